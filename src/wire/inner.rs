//! The inner packet: what the router and the filter need to know of it, read once from untrusted bytes.
//!
//! Owns the check that the bytes are exactly one IP packet. Knows nothing of who may send it.

use etherparse::{
    IpAuthHeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice,
    ip_number,
};
use std::net::IpAddr;

/// One whole IPv4 or IPv6 packet, as its headers describe it. `total_len` equals the length of the bytes it was parsed from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InnerPacket {
    /// The source address.
    pub source: IpAddr,
    /// The destination address; always of the source's version.
    pub destination: IpAddr,
    /// The protocol above IP (IANA number), behind any IPv6 extension headers.
    pub protocol: u8,
    /// The packet's length in bytes, all headers included.
    pub total_len: usize,
    /// Where the protocol's own header starts; at most `total_len`.
    pub payload_offset: usize,
    /// TTL (IPv4) or hop limit (IPv6).
    pub hop_limit: u8,
    /// No router may fragment it: the DF bit, and every IPv6 packet.
    pub dont_fragment: bool,
    /// Whether it is a part of a larger packet.
    pub fragment: Fragment,
}

/// Whether a packet is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragment {
    /// It is whole.
    Whole,
    /// The first part: it has the start of the protocol's header. Holds the packet's identification.
    First(u32),
    /// A later part: `payload_offset` points into the middle of something. Holds the packet's identification.
    Later(u32),
}

/// Why bytes are not one IP packet. The sender's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InnerError {
    /// There are no bytes.
    #[error("the packet is empty")]
    Empty,
    /// Neither IPv4 nor IPv6.
    #[error("the packet's version is neither 4 nor 6")]
    UnknownVersion,
    /// The header, or what its length field says, does not fit into the bytes.
    #[error("the packet is cut short")]
    Truncated,
    /// The bytes go on after the packet.
    #[error("bytes follow the packet")]
    TrailingBytes,
    /// The header contradicts itself.
    #[error("the packet's header is malformed")]
    BadHeader,
    /// The IPv6 extension headers are cut short, out of order or too many.
    #[error("the packet's extension headers are malformed")]
    BadExtensions,
}

/// How many IPv6 extension headers are walked: RFC 8200 §4.1 lists seven in a packet, so that one packet costs a bounded walk.
const MAX_EXTENSIONS: usize = 8;

impl InnerPacket {
    /// Parses exactly one packet.
    ///
    /// # Errors
    /// An [`InnerError`] when `bytes` are anything but one whole packet.
    pub fn parse(bytes: &[u8]) -> Result<Self, InnerError> {
        match bytes.first().ok_or(InnerError::Empty)? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => Err(InnerError::UnknownVersion),
        }
    }

    fn parse_v4(bytes: &[u8]) -> Result<Self, InnerError> {
        use etherparse::err::ipv4::HeaderSliceError;
        let header = Ipv4HeaderSlice::from_slice(bytes).map_err(|error| match error {
            HeaderSliceError::Len(_) => InnerError::Truncated,
            HeaderSliceError::Content(_) => InnerError::BadHeader,
        })?;
        let total_len = usize::from(header.total_len());
        if total_len < header.slice().len() {
            return Err(InnerError::BadHeader);
        }
        check_len(bytes, total_len)?;
        Ok(Self {
            source: IpAddr::V4(header.source_addr()),
            destination: IpAddr::V4(header.destination_addr()),
            protocol: header.protocol().0,
            total_len,
            payload_offset: header.slice().len(),
            hop_limit: header.ttl(),
            dont_fragment: header.dont_fragment(),
            fragment: Fragment::new(
                header.fragments_offset().value(),
                header.more_fragments(),
                header.identification().into(),
            ),
        })
    }

    fn parse_v6(bytes: &[u8]) -> Result<Self, InnerError> {
        // The version is known to be 6: only the length can be wrong.
        let header = Ipv6HeaderSlice::from_slice(bytes).map_err(|_| InnerError::Truncated)?;
        let header_len = header.slice().len();
        let total_len = header_len + usize::from(header.payload_length());
        check_len(bytes, total_len)?;
        let above = walk_extensions(header.next_header(), &bytes[header_len..])?;
        Ok(Self {
            source: IpAddr::V6(header.source_addr()),
            destination: IpAddr::V6(header.destination_addr()),
            protocol: above.protocol.0,
            total_len,
            payload_offset: header_len + above.extensions_len,
            hop_limit: header.hop_limit(),
            dont_fragment: true,
            fragment: above.fragment,
        })
    }
}

impl Fragment {
    fn new(offset: u16, more_follow: bool, identification: u32) -> Self {
        match (offset, more_follow) {
            (0, false) => Self::Whole,
            (0, true) => Self::First(identification),
            _ => Self::Later(identification),
        }
    }
}

fn check_len(bytes: &[u8], total_len: usize) -> Result<(), InnerError> {
    match bytes.len().cmp(&total_len) {
        std::cmp::Ordering::Less => Err(InnerError::Truncated),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(InnerError::TrailingBytes),
    }
}

/// What comes after the IPv6 extension headers.
struct AboveExtensions {
    protocol: IpNumber,
    extensions_len: usize,
    fragment: Fragment,
}

fn walk_extensions(first: IpNumber, payload: &[u8]) -> Result<AboveExtensions, InnerError> {
    let mut above = AboveExtensions { protocol: first, extensions_len: 0, fragment: Fragment::Whole };
    for position in 0..=MAX_EXTENSIONS {
        let rest = &payload[above.extensions_len..];
        let (header_len, next_header) = match above.protocol {
            // RFC 8200 §4.1: hop-by-hop options come first or not at all.
            ip_number::IPV6_HOP_BY_HOP if position > 0 => return Err(InnerError::BadExtensions),
            ip_number::IPV6_HOP_BY_HOP | ip_number::IPV6_ROUTE | ip_number::IPV6_DEST_OPTIONS => {
                let header = Ipv6RawExtHeaderSlice::from_slice(rest).map_err(|_| InnerError::BadExtensions)?;
                (header.slice().len(), header.next_header())
            }
            ip_number::AUTH => {
                let header = IpAuthHeaderSlice::from_slice(rest).map_err(|_| InnerError::BadExtensions)?;
                (header.slice().len(), header.next_header())
            }
            ip_number::IPV6_FRAG if above.fragment == Fragment::Whole => {
                let header = Ipv6FragmentHeaderSlice::from_slice(rest).map_err(|_| InnerError::BadExtensions)?;
                above.fragment =
                    Fragment::new(header.fragment_offset().value(), header.more_fragments(), header.identification());
                (header.slice().len(), header.next_header())
            }
            ip_number::IPV6_FRAG => return Err(InnerError::BadExtensions),
            _ => return Ok(above),
        };
        above.protocol = next_header;
        above.extensions_len += header_len;
        // What follows in a later fragment is payload, whatever its first bytes look like.
        if matches!(above.fragment, Fragment::Later(_)) {
            return Ok(above);
        }
    }
    Err(InnerError::BadExtensions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpFragOffset, Ipv6FragmentHeader, PacketBuilder};
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    fn udp_v4(payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([10, 64, 0, 1], [10, 64, 0, 2], 61).udp(1000, 53).write(&mut packet, payload).unwrap();
        packet
    }

    fn udp_v6(payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv6([0xfd; 16], [0xfc; 16], 62).udp(1000, 53).write(&mut packet, payload).unwrap();
        packet
    }

    /// An IPv6 packet with `extensions`, each given without its first byte's next header, then `payload` of UDP.
    fn extended(extensions: &[(IpNumber, Vec<u8>)], payload: &[u8]) -> Vec<u8> {
        let mut packet = udp_v6(&[])[..40].to_vec();
        packet[6] = extensions.first().map_or(ip_number::UDP, |first| first.0).0;
        for (index, (_, bytes)) in extensions.iter().enumerate() {
            let mut bytes = bytes.clone();
            bytes[0] = extensions.get(index + 1).map_or(ip_number::UDP, |next| next.0).0;
            packet.extend(bytes);
        }
        packet.extend(payload);
        let payload_len = u16::try_from(packet.len() - 40).unwrap();
        packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
        packet
    }

    fn fragment_extension(offset: u16, more_follow: bool) -> (IpNumber, Vec<u8>) {
        let header = Ipv6FragmentHeader::new(ip_number::UDP, IpFragOffset::try_new(offset).unwrap(), more_follow, 7);
        (ip_number::IPV6_FRAG, header.to_bytes().to_vec())
    }

    #[test]
    fn an_ipv4_packet_is_read_whole() {
        let bytes = udp_v4(b"hello");
        let packet = InnerPacket::parse(&bytes).unwrap();
        assert_eq!(packet.source, IpAddr::from([10, 64, 0, 1]));
        assert_eq!(packet.destination, IpAddr::from([10, 64, 0, 2]));
        assert_eq!((packet.protocol, packet.total_len, packet.payload_offset, packet.hop_limit), (17, 33, 20, 61));
        assert_eq!((packet.dont_fragment, packet.fragment), (true, Fragment::Whole));
    }

    #[test]
    fn an_ipv6_packet_is_read_whole() {
        let packet = InnerPacket::parse(&udp_v6(b"hello")).unwrap();
        assert_eq!(packet.source, IpAddr::from([0xfd; 16]));
        assert_eq!(packet.destination, IpAddr::from([0xfc; 16]));
        assert_eq!((packet.protocol, packet.total_len, packet.payload_offset, packet.hop_limit), (17, 53, 40, 62));
        assert_eq!((packet.dont_fragment, packet.fragment), (true, Fragment::Whole));
    }

    #[test]
    fn ipv4_fragments_and_options_are_told_apart() {
        let mut bytes = udp_v4(&[0; 16]);
        for (flags, expected) in [
            ([0x00, 0], (false, Fragment::Whole)),
            ([0x40, 0], (true, Fragment::Whole)),
            ([0x20, 0], (false, Fragment::First(0))),
            ([0x20, 3], (false, Fragment::Later(0))),
            ([0x00, 3], (false, Fragment::Later(0))),
        ] {
            bytes[6..8].copy_from_slice(&flags);
            let packet = InnerPacket::parse(&bytes).unwrap();
            assert_eq!((packet.dont_fragment, packet.fragment), expected);
        }
        bytes[0] = 0x47;
        assert_eq!(InnerPacket::parse(&bytes).unwrap().payload_offset, 28);
    }

    #[test]
    fn ipv6_extension_headers_are_walked_to_the_protocol() {
        let hop_by_hop = (ip_number::IPV6_HOP_BY_HOP, vec![0, 0, 1, 4, 0, 0, 0, 0]);
        let options = (ip_number::IPV6_DEST_OPTIONS, vec![0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let packet = InnerPacket::parse(&extended(&[hop_by_hop.clone(), options.clone()], &[9; 8])).unwrap();
        assert_eq!((packet.protocol, packet.payload_offset), (17, 64));
        let wrong_order = extended(&[options.clone(), hop_by_hop], &[9; 8]);
        assert_eq!(InnerPacket::parse(&wrong_order), Err(InnerError::BadExtensions));
        let chain = extended(&vec![options; MAX_EXTENSIONS + 1], &[9; 8]);
        assert_eq!(InnerPacket::parse(&chain), Err(InnerError::BadExtensions));
    }

    #[test]
    fn the_walk_ends_at_a_later_fragment() {
        let first = InnerPacket::parse(&extended(&[fragment_extension(0, true)], &[9; 8])).unwrap();
        assert_eq!((first.protocol, first.payload_offset, first.fragment), (17, 48, Fragment::First(7)));
        // The payload of a later fragment claims to start with an extension header that is cut short.
        let mut later = extended(&[fragment_extension(5, false)], &[0xff; 8]);
        later[40] = ip_number::IPV6_DEST_OPTIONS.0;
        let later = InnerPacket::parse(&later).unwrap();
        assert_eq!((later.protocol, later.payload_offset, later.fragment), (60, 48, Fragment::Later(7)));
    }

    #[test]
    fn a_wrong_length_has_its_name() {
        for bytes in [udp_v4(b"payload"), udp_v6(b"payload")] {
            for len in 1..bytes.len() {
                assert_eq!(InnerPacket::parse(&bytes[..len]), Err(InnerError::Truncated));
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(InnerPacket::parse(&longer), Err(InnerError::TrailingBytes));
        }
        let mut inside_header = udp_v4(b"");
        inside_header[2..4].copy_from_slice(&19u16.to_be_bytes());
        assert_eq!(InnerPacket::parse(&inside_header), Err(InnerError::BadHeader));
        assert_eq!(InnerPacket::parse(&[]), Err(InnerError::Empty));
        assert_eq!(InnerPacket::parse(&[0x50; 40]), Err(InnerError::UnknownVersion));
    }

    /// What every accepted packet promises to those who index by it.
    fn assert_consistent(bytes: &[u8]) {
        if let Ok(packet) = InnerPacket::parse(bytes) {
            assert_eq!(packet.total_len, bytes.len());
            assert!(packet.payload_offset <= bytes.len());
            assert_eq!(packet.source.is_ipv4(), packet.destination.is_ipv4());
        }
    }

    #[test]
    fn random_bytes_of_every_length_never_panic() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut bytes = vec![0; 2000];
        for len in 0..=2000 {
            for version in [0x00, 0x40, 0x60] {
                rng.fill_bytes(&mut bytes);
                if len > 0 && version != 0 {
                    bytes[0] = version | bytes[0] & 0x0f;
                }
                assert_consistent(&bytes[..len]);
            }
        }
    }

    #[test]
    fn mutated_packets_never_panic() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let options = (ip_number::IPV6_DEST_OPTIONS, vec![0, 0, 1, 4, 0, 0, 0, 0]);
        let seeds = [
            udp_v4(&[7; 100]),
            udp_v6(&[7; 100]),
            extended(&[options.clone(), fragment_extension(0, true), options], &[7; 60]),
        ];
        let mut accepted = 0;
        for seed in &seeds {
            for _ in 0..20_000 {
                let mut bytes = seed.clone();
                for _ in 0..1 + rng.next_u32() % 4 {
                    let index = rng.next_u32() as usize % bytes.len();
                    bytes[index] = rng.next_u32() as u8;
                }
                accepted += usize::from(InnerPacket::parse(&bytes).is_ok());
                assert_consistent(&bytes);
            }
        }
        assert!(accepted > 1000, "the mutations reach past the length checks");
    }
}
