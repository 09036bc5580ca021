//! An address prefix, `10.64.0.0/20` or `fd00::/48`.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IPv4 or IPv6 prefix in canonical form: the bits behind its length are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

/// Why something is no prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PrefixError {
    /// Not `ADDRESS/LENGTH`.
    #[error("a prefix is an address, a slash and a length, such as 192.168.7.0/24")]
    Syntax,
    /// The length exceeds 32 (IPv4) or 128 (IPv6).
    #[error("the length of a prefix is at most 32 for IPv4 and 128 for IPv6")]
    TooLong,
    /// Bits are set behind the length: what was meant, the host or the subnet?
    #[error("the address has bits behind the prefix's length; did you mean {0}?")]
    HostBits(Prefix),
}

impl Prefix {
    /// Makes the prefix of `len` bits that contains `address`.
    ///
    /// # Errors
    /// [`PrefixError::TooLong`].
    pub fn new(address: IpAddr, len: u8) -> Result<Self, PrefixError> {
        if len > max_len(address) {
            return Err(PrefixError::TooLong);
        }
        let address = match address {
            IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask_v4(len))),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask_v6(len))),
        };
        Ok(Self { address, len })
    }

    /// Makes the prefix that contains `address` alone.
    pub const fn host(address: IpAddr) -> Self {
        Self { address, len: max_len(address) }
    }

    /// The first address.
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// The length in bits.
    pub const fn bits(self) -> u8 {
        self.len
    }

    /// Says whether it contains one address alone.
    pub const fn is_host(self) -> bool {
        self.len == max_len(self.address)
    }

    /// Says whether `address` is within it; never for another version of IP.
    pub fn contains(self, address: IpAddr) -> bool {
        Self::new(address, self.len) == Ok(self)
    }

    /// Says whether an address is within both.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// Its two halves; none for a host.
    fn halves(self) -> Option<[Self; 2]> {
        let len = self.len + 1;
        let upper = match self.address {
            _ if self.is_host() => return None,
            IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() | 1 << (32 - len))),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() | 1 << (128 - len))),
        };
        Some([self.address, upper].map(|address| Self { address, len }))
    }

    /// The fewest prefixes that together are this one without `holes`.
    pub fn without(self, holes: &[Self]) -> Vec<Self> {
        let holes: Vec<_> = holes.iter().copied().filter(|hole| hole.overlaps(self)).collect();
        if holes.is_empty() {
            return vec![self];
        }
        let is_gone = holes.iter().any(|hole| hole.len <= self.len);
        let halves = self.halves().filter(|_| !is_gone);
        halves.into_iter().flatten().flat_map(|half| half.without(&holes)).collect()
    }

    /// The broadcast address of an IPv4 subnet; none for hosts, point-to-point links (RFC 3021) and IPv6.
    pub fn broadcast(self) -> Option<Self> {
        match self.address {
            IpAddr::V4(address) if self.len <= 30 => {
                Some(Self::host(IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() | !mask_v4(self.len)))))
            }
            _ => None,
        }
    }
}

/// The network mask of an IPv4 prefix; `len` is at most 32.
pub(crate) const fn mask_v4(len: u8) -> u32 {
    !(u32::MAX as u64 >> len) as u32
}

/// The network mask of an IPv6 prefix; `len` is at most 128.
pub(crate) const fn mask_v6(len: u8) -> u128 {
    match u128::MAX.checked_shr(len as u32) {
        Some(host_bits) => !host_bits,
        None => u128::MAX,
    }
}

const fn max_len(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// Reads a prefix and refuses one that is too long or has bits behind its length.
impl BorshDeserialize for Prefix {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let (address, len) = <(IpAddr, u8)>::deserialize_reader(reader)?;
        let prefix = Self::new(address, len).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if prefix.address == address {
            return Ok(prefix);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, PrefixError::HostBits(prefix)))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, len) = text.split_once('/').ok_or(PrefixError::Syntax)?;
        let address = address.parse().map_err(|_| PrefixError::Syntax)?;
        // `u8::from_str` would take "+8" and "008".
        if len.is_empty() || !len.bytes().all(|byte| byte.is_ascii_digit()) || (len.len() > 1 && len.starts_with('0')) {
            return Err(PrefixError::Syntax);
        }
        let prefix = Self::new(address, len.parse().map_err(|_| PrefixError::TooLong)?)?;
        if prefix.address == address { Ok(prefix) } else { Err(PrefixError::HostBits(prefix)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_without_holes_is_all_of_it_but_them() {
        let without = |prefix: &str, holes: &[&str]| {
            let holes: Vec<Prefix> = holes.iter().map(|hole| hole.parse().unwrap()).collect();
            let rest = prefix.parse::<Prefix>().unwrap().without(&holes);
            rest.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(without("10.0.0.0/8", &["192.168.0.0/16", "fd00::/8"]), ["10.0.0.0/8"]);
        assert_eq!(without("10.0.0.0/8", &["10.0.0.0/8"]), [""; 0]);
        assert_eq!(without("10.1.0.0/16", &["10.0.0.0/8"]), [""; 0]);
        assert_eq!(without("10.0.0.0/30", &["10.0.0.2/32"]), ["10.0.0.0/31", "10.0.0.3/32"]);
        assert_eq!(without("10.0.0.0/8", &["10.128.0.0/9", "10.0.0.0/10"]), ["10.64.0.0/10"]);
        assert_eq!(without("fd00::/126", &["fd00::/128"]), ["fd00::1/128", "fd00::2/127"]);
        assert_eq!(without("0.0.0.0/0", &["9.9.9.9/32"]).len(), 32);
        assert_eq!(without("::/0", &["fd00::1/128"]).len(), 128);
        assert_eq!(without("10.0.0.1/32", &["10.0.0.1/32"]), [""; 0]);
    }

    #[test]
    fn a_prefix_survives_text() {
        for text in ["0.0.0.0/0", "10.64.0.0/20", "10.64.0.1/32", "::/0", "fd00:1:2::/48", "fd00::1/128"] {
            assert_eq!(prefix(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_prefix_has_its_name() {
        for text in ["", "/", "10.0.0.0", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/08", "10.0.0/8", "10.0.0.0/8 ", "::/-1"]
        {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError::Syntax), "{text}");
        }
        for text in ["10.0.0.0/33", "::/129", "::/256", "::/99999999999"] {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError::TooLong), "{text}");
        }
        assert_eq!("10.1.2.3/8".parse::<Prefix>(), Err(PrefixError::HostBits(prefix("10.0.0.0/8"))));
    }

    #[test]
    fn contains_and_overlaps_agree_with_the_bits() {
        assert!(prefix("10.0.0.0/8").contains(IpAddr::from([10, 255, 0, 1])));
        assert!(!prefix("10.0.0.0/8").contains(IpAddr::from([11, 0, 0, 0])));
        assert!(prefix("0.0.0.0/0").contains(IpAddr::from([255, 255, 255, 255])));
        assert!(!prefix("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(prefix("::/0").contains("ffff::".parse().unwrap()));
        assert!(
            prefix("10.0.0.0/8").overlaps(prefix("10.3.0.0/16"))
                && prefix("10.3.0.0/16").overlaps(prefix("10.0.0.0/8"))
        );
        assert!(!prefix("10.2.0.0/16").overlaps(prefix("10.3.0.0/16")));
        assert!(!prefix("0.0.0.0/0").overlaps(prefix("::/0")));
    }

    #[test]
    fn only_an_ipv4_subnet_has_a_broadcast_address() {
        assert_eq!(prefix("10.64.16.0/20").broadcast(), Some(prefix("10.64.31.255/32")));
        assert_eq!(prefix("10.64.16.0/31").broadcast(), None);
        assert_eq!(prefix("fd00::/64").broadcast(), None);
    }
}
