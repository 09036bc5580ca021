//! Overlay addresses: where a network's prefixes come from and how a node's host number becomes an address.
//!
//! The state holds host numbers, never whole addresses: the prefixes follow from the network id, which is the hash of a block that
//! already holds the state's root.

use crate::crypto::hash::{Digest, domain_hash};
use crate::crypto::identity::NodeId;
use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Prefix length of a pool that was derived from the network id: 4,093 usable addresses.
const DERIVED_POOL_LEN: u8 = 20;
/// Where derived pools lie: 10.64.0.0/10, half of which is clear of the usual home and container ranges.
const DERIVED_POOLS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
/// Where pools may lie (RFC 1918 §3, RFC 6598 §7).
const PRIVATE_RANGES: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
];
/// The host number of the resolver's address; no node gets it.
const RESOLVER_HOST: u32 = 53;
/// The same in IPv6, where it is to read `::53`.
const RESOLVER_IPV6_HOST: u64 = 0x53;
/// Host numbers below this are nobody's in IPv6, so that `::53` and its like stay free.
const RESERVED_IPV6_HOSTS: u64 = 1 << 16;

/// A pool of IPv4 addresses: a prefix of 8 to 29 bits without host bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct Ipv4Pool {
    base: Ipv4Addr,
    len: u8,
}

/// A prefix that cannot be a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPool {
    /// The text is not `ADDRESS/LENGTH`.
    #[error("a pool is written as ADDRESS/LENGTH, for example 10.77.0.0/24")]
    Syntax,
    /// The length is outside 8 to 29.
    #[error("the prefix length of a pool is 8 to 29")]
    Length,
    /// The address has bits behind the prefix; holds the pool without them.
    #[error("the address has bits behind the prefix: did you mean {0}?")]
    HostBits(Ipv4Pool),
    /// The addresses are, in part at least, somebody's on the Internet, or nobody's at all: whoever joins would lose the way to them.
    #[error("an overlay's addresses lie in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10")]
    NotPrivate,
}

impl Ipv4Pool {
    /// Makes a pool of a prefix.
    ///
    /// # Errors
    /// [`BadPool`] names what is wrong with it.
    pub fn new(base: Ipv4Addr, len: u8) -> Result<Self, BadPool> {
        let pool = Self { base, len };
        pool.check().map(|()| pool)
    }

    /// Checks a pool that came by decoding.
    ///
    /// # Errors
    /// As [`Ipv4Pool::new`].
    pub fn check(&self) -> Result<(), BadPool> {
        if !(8..=29).contains(&self.len) {
            return Err(BadPool::Length);
        }
        if self.base.to_bits() & (self.size() - 1) != 0 {
            let base = Ipv4Addr::from_bits(self.base.to_bits() & !(self.size() - 1));
            return Err(BadPool::HostBits(Self { base, ..*self }));
        }
        let is_within = |(base, len): &(Ipv4Addr, u8)| {
            self.len >= *len && (self.base.to_bits() ^ base.to_bits()) >> (32 - len) == 0
        };
        if PRIVATE_RANGES.iter().any(is_within) { Ok(()) } else { Err(BadPool::NotPrivate) }
    }

    /// Derives the default pool of a network: a /20 of 10.64.0.0/10.
    pub fn derived(network_id: &Digest) -> Self {
        let draw = domain_hash("p2plus/ipv4-pool/1", &[&network_id.0]).0;
        let slot = u32::from(u16::from_be_bytes([draw[0], draw[1]])) & 0x3ff;
        Self { base: Ipv4Addr::from_bits(DERIVED_POOLS.to_bits() | slot << 12), len: DERIVED_POOL_LEN }
    }

    /// The first address, which no node gets.
    pub fn base(&self) -> Ipv4Addr {
        self.base
    }

    /// The prefix length.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Never true: a pool holds at least eight addresses.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// How many addresses the prefix spans.
    pub fn size(&self) -> u32 {
        1 << (32 - u32::from(self.len))
    }

    /// Returns the address with this host number.
    pub fn address(&self, host: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() | host & (self.size() - 1))
    }

    /// Returns the host number of an address inside the pool.
    pub fn host(&self, address: Ipv4Addr) -> Option<u32> {
        let host = address.to_bits().checked_sub(self.base.to_bits())?;
        (host < self.size()).then_some(host)
    }
}

impl fmt::Display for Ipv4Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.len)
    }
}

impl FromStr for Ipv4Pool {
    type Err = BadPool;

    fn from_str(text: &str) -> Result<Self, BadPool> {
        let (base, len) = text.split_once('/').ok_or(BadPool::Syntax)?;
        Self::new(base.parse().map_err(|_| BadPool::Syntax)?, len.parse().map_err(|_| BadPool::Syntax)?)
    }
}

/// Which IPv4 pool a network has, as genesis says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Ipv4Choice {
    /// None: members have IPv6 addresses only.
    Off,
    /// [`Ipv4Pool::derived`] from the network id.
    Derived,
    /// This one.
    Given(Ipv4Pool),
}

impl Ipv4Choice {
    /// Returns the network's pool.
    pub fn pool(&self, network_id: &Digest) -> Option<Ipv4Pool> {
        match self {
            Self::Off => None,
            Self::Derived => Some(Ipv4Pool::derived(network_id)),
            Self::Given(pool) => Some(*pool),
        }
    }

    /// Returns how many host numbers there are, which is known before the network id is.
    pub fn size(&self) -> Option<u32> {
        match self {
            Self::Off => None,
            Self::Derived => Some(1 << (32 - u32::from(DERIVED_POOL_LEN))),
            Self::Given(pool) => Some(pool.size()),
        }
    }
}

/// Says whether a node may have this host number in a pool of `size` addresses: not the first, not the last, not the resolver's.
pub fn is_assignable_ipv4(host: u32, size: u32) -> bool {
    host != 0 && host < size - 1 && host != RESOLVER_HOST
}

/// Returns the network's ULA /48 (RFC 4193 §3.1), filled up to its first /64.
pub fn ipv6_prefix(network_id: &Digest) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&network_id.0[..5]);
    Ipv6Addr::from(octets)
}

/// Returns a node's host number in IPv6.
pub fn ipv6_host(node: &NodeId) -> u64 {
    let Digest(hash) = domain_hash("p2plus/ipv6-host/1", &[&node.0]);
    u64::from_be_bytes(hash[..8].try_into().expect("eight bytes of thirty-two"))
}

/// Says whether a node may have this host number in IPv6.
pub fn is_assignable_ipv6(host: u64) -> bool {
    host >= RESERVED_IPV6_HOSTS
}

/// Returns the resolver's IPv4 address, the pool's `.53`; none in a pool too small for it.
pub fn resolver_ipv4(pool: &Ipv4Pool) -> Option<Ipv4Addr> {
    (RESOLVER_HOST < pool.size() - 1).then(|| pool.address(RESOLVER_HOST))
}

/// Returns the resolver's IPv6 address, `::53`.
pub fn resolver_ipv6(network_id: &Digest) -> Ipv6Addr {
    ipv6_address(network_id, RESOLVER_IPV6_HOST)
}

/// Returns the address of the node with this host number in the network's /64.
pub fn ipv6_address(network_id: &Digest, host: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits(ipv6_prefix(network_id).to_bits() | u128::from(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_pool_lies_in_its_range_for_every_network() {
        for seed in 0..=255 {
            let pool = Ipv4Pool::derived(&Digest([seed; 32]));
            assert_eq!(pool.check(), Ok(()));
            assert_eq!(pool.base().to_bits() >> 22, DERIVED_POOLS.to_bits() >> 22, "{pool}");
            assert_eq!(Some(pool.size()), Ipv4Choice::Derived.size());
        }
    }

    #[test]
    fn a_pool_says_what_is_wrong_with_it() {
        assert_eq!("10.77.0.0/24".parse::<Ipv4Pool>().map(|pool| pool.to_string()), Ok("10.77.0.0/24".into()));
        for (text, wrong) in [
            ("10.77.0.0", BadPool::Syntax),
            ("10.77.0/24", BadPool::Syntax),
            ("10.77.0.0/33", BadPool::Length),
            ("10.77.0.0/30", BadPool::Length),
            ("10.77.0.1/24", BadPool::HostBits("10.77.0.0/24".parse().unwrap())),
            ("127.0.0.0/8", BadPool::NotPrivate),
            ("169.254.0.0/16", BadPool::NotPrivate),
            ("224.0.0.0/8", BadPool::NotPrivate),
            ("8.0.0.0/8", BadPool::NotPrivate),
            ("172.32.0.0/16", BadPool::NotPrivate),
            ("172.0.0.0/8", BadPool::NotPrivate),
        ] {
            assert_eq!(text.parse::<Ipv4Pool>(), Err(wrong), "{text}");
        }
    }

    #[test]
    fn private_ranges_are_pools_to_their_edges() {
        for text in ["10.0.0.0/8", "172.16.0.0/12", "172.31.255.0/24", "192.168.0.0/16", "100.127.255.248/29"] {
            assert_eq!(text.parse::<Ipv4Pool>().map(|pool| pool.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn the_first_the_last_and_the_resolver_are_nobodys() {
        let nobodys: Vec<u32> = (0..256).filter(|host| !is_assignable_ipv4(*host, 256)).collect();
        assert_eq!(nobodys, [0, 53, 255]);
    }

    #[test]
    fn the_resolvers_addresses_are_the_53_of_both_families_and_assigned_to_nobody() {
        let pool: Ipv4Pool = "10.77.0.0/24".parse().unwrap();
        assert_eq!(resolver_ipv4(&pool), Some(Ipv4Addr::new(10, 77, 0, 53)));
        let small: Ipv4Pool = "10.77.0.0/27".parse().unwrap();
        assert_eq!(resolver_ipv4(&small), None, "its .21 is a node's");
        let network = Digest([0xab; 32]);
        assert_eq!(resolver_ipv6(&network), "fdab:abab:abab::53".parse::<Ipv6Addr>().unwrap());
        assert!(!is_assignable_ipv6(RESOLVER_IPV6_HOST));
    }

    #[test]
    fn an_ipv6_address_is_prefix_and_host() {
        let network = Digest([0xab; 32]);
        let address = ipv6_address(&network, ipv6_host(&NodeId([1; 32])));
        assert_eq!(address.octets()[..8], [0xfd, 0xab, 0xab, 0xab, 0xab, 0xab, 0, 0]);
        assert_eq!(u64::from_be_bytes(address.octets()[8..].try_into().unwrap()), ipv6_host(&NodeId([1; 32])));
    }
}
