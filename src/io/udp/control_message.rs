//! What the kernel says beside a datagram, and is told: which of the host's addresses it came to or leaves from and how it is marked (ip(7),
//! ipv6(7)), and how long each of several is that are handed over as one (udp(7), `UDP_SEGMENT`, `UDP_GRO`).

use crate::wire::ecn::Ecn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// All four messages: a header of 16 and at most 20 bytes, three headers of 16 and at most 4, each padded to eight.
const SPACE: usize = 40 + 3 * 24;
const HEADER: usize = size_of::<libc::cmsghdr>();

/// Memory for the control messages of one datagram, aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct ControlMessages {
    bytes: [u8; SPACE],
    len: usize,
}

/// What the kernel said of what it received.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Told {
    /// The host's address that it came to.
    pub(super) destination: Option<IpAddr>,
    /// The length of each datagram but the last, when there are several.
    pub(super) datagram_len: Option<usize>,
    /// What its IP header says of congestion.
    pub(super) ecn: Ecn,
}

impl ControlMessages {
    pub(super) const fn none() -> Self {
        Self { bytes: [0; SPACE], len: 0 }
    }

    /// Says that datagrams to `remote` leave from `source`.
    pub(super) fn say_source(&mut self, source: IpAddr, remote: &SocketAddr) {
        match source {
            IpAddr::V4(source) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                self.put(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            IpAddr::V6(source) => {
                // A link-local address means something on its link alone, which is that of the remote one.
                let scope = if let SocketAddr::V6(remote) = remote { remote.scope_id() } else { 0 };
                let info =
                    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: source.octets() }, ipi6_ifindex: scope };
                self.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
        }
    }

    /// Says that datagrams to `remote` leave with this mark.
    pub(super) fn say_ecn(&mut self, ecn: Ecn, remote: &SocketAddr) {
        let (level, kind) = match remote {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        self.put(level, kind, libc::c_int::from(ecn.bits()));
    }

    /// Says that datagrams to `remote` pass so many routers at most.
    pub(super) fn say_hop_limit(&mut self, hops: u8, remote: &SocketAddr) {
        let (level, kind) = match remote {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TTL),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT),
        };
        self.put(level, kind, libc::c_int::from(hops));
    }

    /// Says that what leaves is datagrams of this length, but for the last.
    pub(super) fn say_datagram_len(&mut self, len: u16) {
        self.put(libc::SOL_UDP, libc::UDP_SEGMENT, len);
    }

    fn put<T>(&mut self, level: libc::c_int, kind: libc::c_int, value: T) {
        const { assert!(HEADER + size_of::<T>() <= 40 && align_of::<T>() <= 8) };
        let whole = (HEADER + size_of::<T>()).next_multiple_of(8);
        assert!(self.len + whole <= SPACE, "one message of each kind");
        // SAFETY: header and value fit by the assertions and lie aligned: the memory and every message in it begin at a multiple of eight, the
        // header has 16 bytes, and no value wants more than eight.
        unsafe {
            let at = self.bytes.as_mut_ptr().add(self.len);
            let header = at.cast::<libc::cmsghdr>();
            (*header).cmsg_len = HEADER + size_of::<T>();
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            at.add(HEADER).cast::<T>().write(value);
        }
        self.len += whole;
    }

    /// Has the kernel read these messages with what leaves.
    pub(super) fn attach(&mut self, header: &mut libc::msghdr) {
        if self.len > 0 {
            header.msg_control = self.bytes.as_mut_ptr().cast();
            header.msg_controllen = self.len;
        }
    }

    /// Has the kernel write its messages here.
    pub(super) fn lend(&mut self, header: &mut libc::msghdr) {
        header.msg_control = self.bytes.as_mut_ptr().cast();
        header.msg_controllen = SPACE;
    }

    /// Reads what the kernel wrote.
    pub(super) fn told(header: &libc::msghdr) -> Told {
        let mut told = Told::default();
        // SAFETY: `header` was filled in by the kernel, so its control messages lie within the memory that it points at, which the caller
        // keeps alive; each has at least the length that is read, and is read unaligned.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(header);
            while let Some(at) = message.as_ref() {
                let content = libc::CMSG_DATA(message);
                let len = at.cmsg_len - HEADER;
                match (at.cmsg_level, at.cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) if len >= size_of::<libc::in_pktinfo>() => {
                        let info = content.cast::<libc::in_pktinfo>().read_unaligned();
                        told.destination = Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into());
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if len >= size_of::<libc::in6_pktinfo>() => {
                        let info = content.cast::<libc::in6_pktinfo>().read_unaligned();
                        told.destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                    }
                    // One byte, although what is said to the kernel is four.
                    (libc::IPPROTO_IP, libc::IP_TOS) if len >= 1 => {
                        told.ecn = Ecn::from_bits(content.read());
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) if len >= size_of::<libc::c_int>() => {
                        told.ecn = Ecn::from_bits(content.cast::<libc::c_int>().read_unaligned() as u8);
                    }
                    (libc::SOL_UDP, libc::UDP_GRO) if len >= size_of::<libc::c_int>() => {
                        told.datagram_len = usize::try_from(content.cast::<libc::c_int>().read_unaligned()).ok();
                    }
                    _ => {}
                }
                message = libc::CMSG_NXTHDR(header, message);
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_kernels_form_beside_a_length() {
        for (source, remote) in [("192.0.2.1", "192.0.2.2:1"), ("2001:db8::1", "[2001:db8::2]:1")] {
            let source: IpAddr = source.parse().unwrap();
            let mut messages = ControlMessages::none();
            // SAFETY: integers and pointers, for which all zero is a value.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            messages.attach(&mut header);
            assert_eq!(ControlMessages::told(&header), Told::default());
            messages.say_source(source, &remote.parse().unwrap());
            messages.say_datagram_len(1440);
            // The kernel's first byte on a little-endian machine, on others the last: what is told is another form.
            if cfg!(target_endian = "little") || source.is_ipv6() {
                messages.say_ecn(Ecn::Capable0, &remote.parse().unwrap());
            }
            messages.attach(&mut header);
            let told = ControlMessages::told(&header);
            assert_eq!((told.destination, told.datagram_len, told.ecn), (Some(source), None, Ecn::Capable0));
        }
    }
}
