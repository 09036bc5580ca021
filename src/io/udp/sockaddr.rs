//! Socket addresses as the kernel reads and writes them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Memory for an address of either family, 28 bytes. Filled in by the kernel, or from a [`SocketAddr`].
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union RawAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl RawAddress {
    pub(super) const LEN: libc::socklen_t = size_of::<Self>() as libc::socklen_t;

    /// All zero: family `AF_UNSPEC`.
    pub(super) fn unspecified() -> Self {
        // SAFETY: both members are plain integers, for which all zero is a value.
        unsafe { std::mem::zeroed() }
    }

    /// Encodes `address` and returns the length that the kernel wants to be told.
    pub(super) fn encode(address: &SocketAddr) -> (Self, libc::socklen_t) {
        let mut raw = Self::unspecified();
        match address {
            SocketAddr::V4(address) => {
                raw.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                    sin_zero: [0; 8],
                };
                (raw, size_of::<libc::sockaddr_in>() as libc::socklen_t)
            }
            SocketAddr::V6(address) => {
                raw.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                };
                (raw, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
            }
        }
    }

    /// Reads what the kernel wrote; `None` for any other family.
    pub(super) fn decode(&self) -> Option<SocketAddr> {
        // SAFETY: every byte of the union is initialized (zeroed first), the family lies at the same place in both members, and
        // both members take any bytes.
        unsafe {
            match i32::from(self.v4.sin_family) {
                libc::AF_INET => {
                    let ip = Ipv4Addr::from(self.v4.sin_addr.s_addr.to_ne_bytes());
                    Some(SocketAddrV4::new(ip, u16::from_be(self.v4.sin_port)).into())
                }
                libc::AF_INET6 => {
                    let ip = Ipv6Addr::from(self.v6.sin6_addr.s6_addr);
                    // The flow label is a hint of one datagram, no part of who sent it: an endpoint compares equal without.
                    Some(SocketAddrV6::new(ip, u16::from_be(self.v6.sin6_port), 0, self.v6.sin6_scope_id).into())
                }
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_kernels_form() {
        for text in ["192.0.2.1:4647", "[2001:db8::1]:65535", "[fe80::1%7]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(RawAddress::encode(&address).0.decode(), Some(address));
        }
        assert_eq!(RawAddress::unspecified().decode(), None);
    }
}
