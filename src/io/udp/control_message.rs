//! What the kernel says beside a datagram, and is told: which of the host's addresses it came to or leaves from (ip(7), ipv6(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address of either family: header 16, at most 20 bytes, padded to eight.
const SPACE: usize = 40;

/// Memory for the control messages of one datagram, aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct ControlMessage([u8; SPACE]);

impl ControlMessage {
    pub(super) const LEN: usize = SPACE;

    pub(super) const fn empty() -> Self {
        Self([0; SPACE])
    }

    /// Says that a datagram to `remote` leaves from `source`; returns how many bytes of it the kernel reads.
    pub(super) fn source(source: IpAddr, remote: &SocketAddr) -> (Self, usize) {
        let mut message = Self::empty();
        let len = match source {
            IpAddr::V4(source) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                message.put(libc::IPPROTO_IP, libc::IP_PKTINFO, info)
            }
            IpAddr::V6(source) => {
                // A link-local address means something on its link alone, which is that of the remote one.
                let scope = if let SocketAddr::V6(remote) = remote { remote.scope_id() } else { 0 };
                let info =
                    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: source.octets() }, ipi6_ifindex: scope };
                message.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
            }
        };
        (message, len)
    }

    fn put<T>(&mut self, level: libc::c_int, kind: libc::c_int, value: T) -> usize {
        const HEADER: usize = size_of::<libc::cmsghdr>();
        const { assert!(HEADER + size_of::<T>() <= SPACE && align_of::<T>() <= 8) };
        // SAFETY: a header and a value of type `T` fit by the assertion, and lie aligned: the memory is aligned to eight bytes, the header
        // has 16, and no value wants more than eight.
        unsafe {
            let header = self.0.as_mut_ptr().cast::<libc::cmsghdr>();
            (*header).cmsg_len = HEADER + size_of::<T>();
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            self.0.as_mut_ptr().add(HEADER).cast::<T>().write(value);
        }
        (HEADER + size_of::<T>()).next_multiple_of(8)
    }

    /// Reads the host's address that a received datagram came to; `None` when the kernel did not say.
    pub(super) fn destination(header: &libc::msghdr) -> Option<IpAddr> {
        // SAFETY: `header` was filled in by the kernel, so its control messages lie within the memory that it points at, which the caller
        // keeps alive; each has at least the length that is read, and is read unaligned.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(header);
            while let Some(at) = message.as_ref() {
                let data = libc::CMSG_DATA(message);
                let len = at.cmsg_len - size_of::<libc::cmsghdr>();
                match (at.cmsg_level, at.cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) if len >= size_of::<libc::in_pktinfo>() => {
                        let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                        return Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into());
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if len >= size_of::<libc::in6_pktinfo>() => {
                        let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                        return Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                    }
                    _ => message = libc::CMSG_NXTHDR(header, message),
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_kernels_form() {
        for (source, remote) in [("192.0.2.1", "192.0.2.2:1"), ("2001:db8::1", "[2001:db8::2]:1")] {
            let source: IpAddr = source.parse().unwrap();
            let (mut message, len) = ControlMessage::source(source, &remote.parse().unwrap());
            // SAFETY: integers and pointers, for which all zero is a value.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            assert_eq!(ControlMessage::destination(&header), None);
            header.msg_control = (&raw mut message).cast();
            header.msg_controllen = len;
            assert_eq!(ControlMessage::destination(&header), Some(source));
        }
    }
}
