//! The longest prefix over an address: one hash probe for a host route, one more for each shorter length that occurs.
//!
//! Immutable once built. A probe reads one slot of a flat table, key and value side by side, so that a uniformly random destination among
//! 100k hosts costs one cache miss. The hash is fixed: what is inserted comes from the ledger, not from a stranger.

pub use crate::wire::prefix::{Prefix, PrefixError};

use crate::wire::prefix::{mask_v4, mask_v6};
use std::net::IpAddr;

/// A map from prefixes to values, for IPv4 and IPv6.
#[derive(Clone, Debug)]
pub struct PrefixMap<T> {
    hosts_v4: FlatTable<u32, T>,
    hosts_v6: FlatTable<Bits128, T>,
    /// Descending by length, one table per length that occurs: at most 32.
    subnets_v4: Vec<Subnets<u32, T>>,
    /// The same for IPv6: at most 128.
    subnets_v6: Vec<Subnets<Bits128, T>>,
    len: usize,
}

/// All prefixes of one length.
#[derive(Clone, Debug)]
struct Subnets<Key, T> {
    bits: u8,
    mask: Key,
    table: FlatTable<Key, T>,
}

impl<T: Copy> PrefixMap<T> {
    /// Builds the map; of equal prefixes the first one stays.
    pub fn new(entries: impl IntoIterator<Item = (Prefix, T)>) -> Self {
        let mut by_len_v4: [Vec<(u32, T)>; 33] = std::array::from_fn(|_| Vec::new());
        let mut by_len_v6: [Vec<(Bits128, T)>; 129] = std::array::from_fn(|_| Vec::new());
        for (prefix, value) in entries {
            let len = usize::from(prefix.bits());
            match prefix.address() {
                IpAddr::V4(address) => by_len_v4[len].push((address.to_bits(), value)),
                IpAddr::V6(address) => by_len_v6[len].push((Bits128::new(address.to_bits()), value)),
            }
        }
        let hosts_v4 = FlatTable::new(&by_len_v4[32]);
        let hosts_v6 = FlatTable::new(&by_len_v6[128]);
        let subnets_v4 = subnets(&by_len_v4[..32], mask_v4);
        let subnets_v6 = subnets(&by_len_v6[..128], |len| Bits128::new(mask_v6(len)));
        let len = hosts_v4.len
            + hosts_v6.len
            + subnets_v4.iter().map(|subnets| subnets.table.len).sum::<usize>()
            + subnets_v6.iter().map(|subnets| subnets.table.len).sum::<usize>();
        Self { hosts_v4, hosts_v6, subnets_v4, subnets_v6, len }
    }

    /// Finds the value of the longest prefix that contains `address`.
    #[inline]
    pub fn get(&self, address: IpAddr) -> Option<T> {
        match address {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                self.hosts_v4.get(bits).or_else(|| longest(&self.subnets_v4, bits).map(|(_, value)| value))
            }
            IpAddr::V6(address) => {
                let bits = Bits128::new(address.to_bits());
                self.hosts_v6.get(bits).or_else(|| longest(&self.subnets_v6, bits).map(|(_, value)| value))
            }
        }
    }

    /// Finds the length, in bits, of the longest prefix that contains `address`, and its value.
    pub fn longest(&self, address: IpAddr) -> Option<(u8, T)> {
        let (host, subnet) = match address {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                (self.hosts_v4.get(bits).map(|value| (32, value)), longest(&self.subnets_v4, bits))
            }
            IpAddr::V6(address) => {
                let bits = Bits128::new(address.to_bits());
                (self.hosts_v6.get(bits).map(|value| (128, value)), longest(&self.subnets_v6, bits))
            }
        };
        host.or(subnet)
    }

    /// The number of prefixes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Says whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T: Copy> Default for PrefixMap<T> {
    fn default() -> Self {
        Self::new([])
    }
}

fn subnets<Key: Bits, T: Copy>(by_len: &[Vec<(Key, T)>], mask: impl Fn(u8) -> Key) -> Vec<Subnets<Key, T>> {
    let lens = (0..=u8::MAX).zip(by_len).rev();
    lens.filter(|(_, entries)| !entries.is_empty())
        .map(|(bits, entries)| Subnets { bits, mask: mask(bits), table: FlatTable::new(entries) })
        .collect()
}

fn longest<Key: Bits, T: Copy>(subnets: &[Subnets<Key, T>], address: Key) -> Option<(u8, T)> {
    subnets.iter().find_map(|subnets| Some((subnets.bits, subnets.table.get(address.and(subnets.mask))?)))
}

/// An address as the tables see it.
trait Bits: Copy + Eq + Default {
    fn and(self, mask: Self) -> Self;
    fn hash(self) -> u64;
}

/// An odd constant without pattern: 2^64 divided by the golden ratio (Knuth, TAOCP 3, §6.4).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Multiplies to 128 bits and folds, so that every bit of the input reaches the top of the result.
fn mix(bits: u64) -> u64 {
    let product = u128::from(bits ^ MULTIPLIER) * u128::from(MULTIPLIER);
    (product >> 64) as u64 ^ product as u64
}

impl Bits for u32 {
    fn and(self, mask: Self) -> Self {
        self & mask
    }

    fn hash(self) -> u64 {
        mix(self.into())
    }
}

/// An IPv6 address with the alignment of 4 bytes, so that a slot wastes none.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Bits128([u32; 4]);

impl Bits128 {
    fn new(bits: u128) -> Self {
        Self([(bits >> 96) as u32, (bits >> 64) as u32, (bits >> 32) as u32, bits as u32])
    }
}

impl Bits for Bits128 {
    fn and(self, mask: Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index] & mask.0[index]))
    }

    fn hash(self) -> u64 {
        let [a, b, c, d] = self.0.map(u64::from);
        mix(mix(a << 32 | b) ^ (c << 32 | d))
    }
}

/// A hash table by linear probing, at most half full: a lookup rarely leaves its first cache line.
#[derive(Clone, Debug)]
struct FlatTable<Key, T> {
    slots: Box<[Slot<Key, T>]>,
    /// 64 minus the binary logarithm of the number of slots.
    shift: u32,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot<Key, T> {
    key: Key,
    value: Option<T>,
}

impl<Key: Bits, T: Copy> FlatTable<Key, T> {
    fn new(entries: &[(Key, T)]) -> Self {
        let slot_count = (entries.len() * 2).next_power_of_two().max(2);
        let shift = 64 - slot_count.trailing_zeros();
        let slots = vec![Slot { key: Key::default(), value: None }; slot_count].into_boxed_slice();
        let mut table = Self { slots, shift, len: 0 };
        for &(key, value) in entries {
            let index = table.probe(key);
            let slot = &mut table.slots[index];
            if slot.value.is_none() {
                *slot = Slot { key, value: Some(value) };
                table.len += 1;
            }
        }
        table
    }

    #[inline]
    fn get(&self, key: Key) -> Option<T> {
        self.slots[self.probe(key)].value
    }

    /// Returns the slot that holds `key`, or the empty one where it would be; at most half of the slots are taken, so there is one.
    #[inline]
    fn probe(&self, key: Key) -> usize {
        let last = self.slots.len() - 1;
        let mut index = (key.hash() >> self.shift) as usize & last;
        while self.slots[index].value.is_some() && self.slots[index].key != key {
            index = (index + 1) & last;
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// Few distinct bits, so that prefixes nest and addresses hit.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0..4u32, 0..4u32).prop_map(|(high, low)| IpAddr::V4(Ipv4Addr::from_bits(high << 30 | low))),
            (0..4u128, 0..4u128).prop_map(|(high, low)| IpAddr::V6(Ipv6Addr::from_bits(high << 126 | low))),
            any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
            any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
        ]
    }

    fn prefix() -> impl Strategy<Value = Prefix> {
        (address(), any::<u8>(), any::<bool>()).prop_map(|(address, len, is_host)| {
            let longest = Prefix::host(address).bits();
            let len = if is_host { longest } else { len % (longest + 1) };
            Prefix::new(address, len).unwrap()
        })
    }

    fn linear_scan(entries: &[(Prefix, u32)], address: IpAddr) -> Option<u32> {
        let longest =
            entries.iter().filter(|(prefix, _)| prefix.contains(address)).map(|(prefix, _)| prefix.bits()).max()?;
        entries.iter().find(|(prefix, _)| prefix.bits() == longest && prefix.contains(address)).map(|(_, value)| *value)
    }

    proptest! {
        #[test]
        fn lookups_equal_a_linear_scan(
            prefixes in prop::collection::vec(prefix(), 0..60),
            addresses in prop::collection::vec(address(), 1..60),
        ) {
            let entries: Vec<(Prefix, u32)> = prefixes.into_iter().zip(0..).collect();
            let map = PrefixMap::new(entries.iter().copied());
            let inserted = entries.iter().map(|(prefix, _)| prefix.address());
            for address in addresses.into_iter().chain(inserted) {
                prop_assert_eq!(map.get(address), linear_scan(&entries, address), "{}", address);
            }
        }
    }

    #[test]
    fn an_empty_map_finds_nothing() {
        let map = PrefixMap::<u32>::default();
        assert!(map.is_empty());
        assert_eq!(map.get(IpAddr::from([0, 0, 0, 0])), None);
        assert_eq!(map.get(IpAddr::from([0; 16])), None);
    }

    #[test]
    fn of_equal_prefixes_the_first_stays() {
        let prefix = "10.0.0.0/8".parse().unwrap();
        let map = PrefixMap::new([(prefix, 1), (prefix, 2)]);
        assert_eq!((map.len(), map.get(IpAddr::from([10, 1, 1, 1]))), (1, Some(1)));
    }

    #[test]
    fn consecutive_and_random_hosts_cluster_little() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let network = u128::from(rng.next_u64()) << 64;
        for random in [false, true] {
            let keys: Vec<(Bits128, u32)> = (0..100_000)
                .map(|index| {
                    let host = if random { rng.next_u64() } else { index.into() };
                    (Bits128::new(network | u128::from(host)), index)
                })
                .collect();
            let table = FlatTable::new(&keys);
            let steps = |key: Bits128| {
                let start = (key.hash() >> table.shift) as usize;
                table.probe(key).wrapping_sub(start) & (table.slots.len() - 1)
            };
            let total: usize = keys.iter().map(|(key, _)| steps(*key)).sum();
            assert!(total < keys.len(), "less than one step beyond the first slot on average, not {total}");
        }
    }

    #[test]
    fn a_slot_wastes_no_byte() {
        assert_eq!(size_of::<Slot<u32, std::num::NonZeroU32>>(), 8);
        assert_eq!(size_of::<Slot<Bits128, std::num::NonZeroU32>>(), 20);
    }
}
