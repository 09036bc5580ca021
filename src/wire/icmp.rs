//! ICMP error messages, as bytes: RFC 792, RFC 1191, RFC 4443.
//!
//! Builds them with the right checksums. Whether one may be sent is decided by the router.

use super::inner::InnerPacket;
use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, icmpv4,
    icmpv6, ip_number,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an ICMP error tells the sender of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpError {
    /// Nobody in the overlay has the destination.
    ///
    /// A host that is not there, and to a UDP sender a port that is not there: Linux takes an unreachable host for a passing trouble, which
    /// it keeps from a connected UDP socket (RFC 1122 §4.1.3.3); of an unreachable port it tells at once.
    NoRoute,
    /// No rule of the network allows it.
    Prohibited,
    /// It is larger than what can be carried, `mtu` bytes of IP packet.
    TooBig {
        /// The largest packet that passes; raised to what the version of IP guarantees.
        mtu: u16,
    },
}

/// An IPv4 error stays below the size that every host accepts (RFC 1812 §4.3.2.3).
const MAX_V4_LEN: usize = 576;

/// An IPv6 error stays below the minimum MTU (RFC 4443 §2.4 (c)).
const MAX_V6_LEN: usize = 1280;

/// The least MTU that IPv4 knows (RFC 791).
const MIN_V4_MTU: u16 = 68;

/// The least MTU that IPv6 knows (RFC 8200 §5); Linux ignores a smaller one.
const MIN_V6_MTU: u16 = 1280;

/// Both versions' ICMP error header.
const ICMP_HEADER_LEN: usize = 8;

const HOP_LIMIT: u8 = 64;

/// Builds the IP packet that tells `packet.source` of `error`, quoting as much of `original` as fits.
///
/// `local` is the address that the error comes from. Returns `None` when its version is not the packet's.
pub fn encode_error(error: IcmpError, local: IpAddr, packet: &InnerPacket, original: &[u8]) -> Option<Vec<u8>> {
    match (local, packet.source) {
        (IpAddr::V4(local), IpAddr::V4(sender)) => encode_v4(message_v4(error, packet), local, sender, original),
        (IpAddr::V6(local), IpAddr::V6(sender)) => encode_v6(message_v6(error, packet), local, sender, original),
        _ => None,
    }
}

/// Says whether the packet is an ICMP error itself, or might be one (RFC 1122 §3.2.2, RFC 4443 §2.4 (e.1)).
pub fn may_be_icmp_error(packet: &InnerPacket, original: &[u8]) -> bool {
    let icmp_type = original.get(packet.payload_offset).copied();
    match IpNumber(packet.protocol) {
        // Only what is known to be a question or its answer is no error.
        ip_number::ICMP => !matches!(
            icmp_type,
            Some(
                icmpv4::TYPE_ECHO_REQUEST
                    | icmpv4::TYPE_ECHO_REPLY
                    | icmpv4::TYPE_TIMESTAMP
                    | icmpv4::TYPE_TIMESTAMP_REPLY
            )
        ),
        // RFC 4443 §2.1: errors have the high bit clear. A redirect (137) must not be answered either.
        ip_number::IPV6_ICMP => icmp_type.is_none_or(|icmp_type| icmp_type < 128 || icmp_type == 137),
        _ => false,
    }
}

fn message_v4(error: IcmpError, packet: &InnerPacket) -> Icmpv4Type {
    use icmpv4::DestUnreachableHeader as Unreachable;
    Icmpv4Type::DestinationUnreachable(match error {
        IcmpError::NoRoute if is_udp(packet) => Unreachable::Port,
        IcmpError::NoRoute => Unreachable::Host,
        IcmpError::Prohibited => Unreachable::FilterProhibited,
        IcmpError::TooBig { mtu } => Unreachable::FragmentationNeeded { next_hop_mtu: mtu.max(MIN_V4_MTU) },
    })
}

fn message_v6(error: IcmpError, packet: &InnerPacket) -> Icmpv6Type {
    use icmpv6::DestUnreachableCode as Unreachable;
    match error {
        IcmpError::NoRoute if is_udp(packet) => Icmpv6Type::DestinationUnreachable(Unreachable::Port),
        IcmpError::NoRoute => Icmpv6Type::DestinationUnreachable(Unreachable::Address),
        IcmpError::Prohibited => Icmpv6Type::DestinationUnreachable(Unreachable::Prohibited),
        IcmpError::TooBig { mtu } => Icmpv6Type::PacketTooBig { mtu: mtu.max(MIN_V6_MTU).into() },
    }
}

fn is_udp(packet: &InnerPacket) -> bool {
    IpNumber(packet.protocol) == ip_number::UDP
}

fn encode_v4(message: Icmpv4Type, local: Ipv4Addr, sender: Ipv4Addr, original: &[u8]) -> Option<Vec<u8>> {
    let quoted = &original[..original.len().min(MAX_V4_LEN - Ipv4Header::MIN_LEN - ICMP_HEADER_LEN)];
    let icmp = Icmpv4Header::with_checksum(message, quoted);
    let payload_len = u16::try_from(ICMP_HEADER_LEN + quoted.len()).ok()?;
    let mut ip = Ipv4Header::new(payload_len, HOP_LIMIT, ip_number::ICMP, local.octets(), sender.octets()).ok()?;
    ip.header_checksum = ip.calc_header_checksum();
    Some([&ip.to_bytes()[..], &icmp.to_bytes()[..], quoted].concat())
}

fn encode_v6(message: Icmpv6Type, local: Ipv6Addr, sender: Ipv6Addr, original: &[u8]) -> Option<Vec<u8>> {
    let quoted = &original[..original.len().min(MAX_V6_LEN - Ipv6Header::LEN - ICMP_HEADER_LEN)];
    let icmp = Icmpv6Header::with_checksum(message, local.octets(), sender.octets(), quoted).ok()?;
    let ip = Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: u16::try_from(ICMP_HEADER_LEN + quoted.len()).ok()?,
        next_header: ip_number::IPV6_ICMP,
        hop_limit: HOP_LIMIT,
        source: local.octets(),
        destination: sender.octets(),
    };
    Some([&ip.to_bytes()[..], &icmp.to_bytes()[..], quoted].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice, checksum::Sum16BitWords};

    fn udp_v4(payload_len: usize) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([10, 64, 0, 1], [10, 64, 0, 2], 61)
            .udp(7, 53)
            .write(&mut packet, &vec![5; payload_len])
            .unwrap();
        packet
    }

    fn udp_v6(payload_len: usize) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv6([0xfd; 16], [0xfc; 16], 61).udp(7, 53).write(&mut packet, &vec![5; payload_len]).unwrap();
        packet
    }

    fn encode(error: IcmpError, local: IpAddr, original: &[u8]) -> Vec<u8> {
        encode_error(error, local, &InnerPacket::parse(original).unwrap(), original).unwrap()
    }

    #[test]
    fn an_ipv4_error_parses_with_true_checksums() {
        let local = IpAddr::from([10, 64, 0, 9]);
        for payload_len in [0, 1, 100, 1400] {
            let original = udp_v4(payload_len);
            for (error, code) in
                [(IcmpError::NoRoute, 3), (IcmpError::Prohibited, 13), (IcmpError::TooBig { mtu: 1372 }, 4)]
            {
                let reply = encode(error, local, &original);
                assert!(reply.len() <= MAX_V4_LEN);
                let parsed = SlicedPacket::from_ip(&reply).unwrap();
                let Some(NetSlice::Ipv4(ip)) = parsed.net else { panic!("no IPv4") };
                assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
                assert_eq!(ip.header().destination(), [10, 64, 0, 1]);
                let Some(TransportSlice::Icmpv4(icmp)) = parsed.transport else { panic!("no ICMPv4") };
                assert_eq!(Sum16BitWords::new().add_slice(icmp.slice()).ones_complement(), 0);
                assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, code));
                assert!(original.starts_with(icmp.payload()) && icmp.payload().len() >= original.len().min(548));
                if code == 4 {
                    assert_eq!(icmp.bytes5to8()[2..], 1372u16.to_be_bytes());
                }
            }
        }
    }

    #[test]
    fn an_ipv6_error_parses_with_a_true_checksum() {
        let local = [0xfd; 16];
        for payload_len in [0, 1, 100, 1400] {
            let original = udp_v6(payload_len);
            for (error, kind) in [
                (IcmpError::NoRoute, (1, 4)),
                (IcmpError::Prohibited, (1, 1)),
                (IcmpError::TooBig { mtu: 1372 }, (2, 0)),
            ] {
                let reply = encode(error, local.into(), &original);
                assert!(reply.len() <= MAX_V6_LEN);
                let parsed = SlicedPacket::from_ip(&reply).unwrap();
                let Some(TransportSlice::Icmpv6(icmp)) = parsed.transport else { panic!("no ICMPv6") };
                assert!(icmp.is_checksum_valid(local, [0xfd; 16]));
                assert_eq!((icmp.type_u8(), icmp.code_u8()), kind);
                assert!(original.starts_with(icmp.payload()) && icmp.payload().len() >= original.len().min(1232));
                if kind.0 == 2 {
                    assert_eq!(icmp.bytes5to8(), 1372u32.to_be_bytes());
                }
            }
        }
    }

    #[test]
    fn who_does_not_speak_udp_hears_that_the_host_is_not_there() {
        let mut tcp = Vec::new();
        PacketBuilder::ipv4([10, 64, 0, 1], [10, 64, 0, 2], 61).tcp(7, 80, 0, 0).write(&mut tcp, &[]).unwrap();
        assert_eq!(encode(IcmpError::NoRoute, IpAddr::from([10, 64, 0, 9]), &tcp)[20..22], [3, 1]);
        let mut tcp = Vec::new();
        PacketBuilder::ipv6([0xfd; 16], [0xfc; 16], 61).tcp(7, 80, 0, 0).write(&mut tcp, &[]).unwrap();
        assert_eq!(encode(IcmpError::NoRoute, [0xfd; 16].into(), &tcp)[40..42], [1, 3]);
    }

    #[test]
    fn the_checksum_sums_to_zero_by_hand() {
        let reply = encode(IcmpError::NoRoute, IpAddr::from([10, 64, 0, 9]), &udp_v4(33));
        assert_eq!(Sum16BitWords::new().add_slice(&reply[..20]).ones_complement(), 0);
        assert_eq!(Sum16BitWords::new().add_slice(&reply[20..]).ones_complement(), 0);
    }

    #[test]
    fn the_mtu_never_goes_below_what_ip_guarantees() {
        let reply = encode(IcmpError::TooBig { mtu: 1 }, IpAddr::from([10, 64, 0, 9]), &udp_v4(1));
        assert_eq!(reply[26..28], MIN_V4_MTU.to_be_bytes());
        let reply = encode(IcmpError::TooBig { mtu: 1 }, IpAddr::from([0xfd; 16]), &udp_v6(1));
        assert_eq!(reply[44..48], u32::from(MIN_V6_MTU).to_be_bytes());
    }

    #[test]
    fn an_address_of_the_other_version_answers_nothing() {
        let original = udp_v4(1);
        let packet = InnerPacket::parse(&original).unwrap();
        assert_eq!(encode_error(IcmpError::NoRoute, IpAddr::from([0xfd; 16]), &packet, &original), None);
    }
}
