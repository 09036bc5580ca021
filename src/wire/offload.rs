//! Offload between the host's kernel and the device: the vnet header in front of each packet (virtio 1.2 §5.1.6, `virtio_net_hdr`), and
//! the headers of a packet that is cut into segments or put together of them.
//!
//! Owns the layout of headers, lengths and checksums. Only plain ones leave their payload: packets with others travel whole.

use super::inner::{Fragment, InnerPacket};
use std::ops::Range;

/// Bytes of the vnet header that a TUN device has in front of every packet.
pub const VNET_HEADER_LEN: usize = 10;

/// Bytes of IP and transport header of a plain packet at most: IPv6 and TCP with all its options.
pub const MAX_PLAIN_HEADERS: usize = IPV6_HEADER_LEN + 60;

const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
const UDP_HEADER_LEN: usize = 8;
const IPV4_DONT_FRAGMENT: u8 = 0x40;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

const NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_PSH: u8 = 0x08;
const TCP_URG: u8 = 0x20;
const TCP_CWR: u8 = 0x80;

/// What a packet that is longer than the device's MTU consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams of one length, the last one shorter or not.
    Udp,
}

/// A packet that stands for several: one set of headers before the payload of all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segmentation {
    /// Which protocol.
    pub kind: SegmentKind,
    /// Payload bytes of each, but for the last.
    pub segment_len: u16,
    /// TCP: the first one alone has CWR.
    pub has_cwr: bool,
}

/// A transport checksum that holds only the sum of the pseudo-header: whoever has the whole packet completes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartialChecksum {
    /// Where the bytes begin that it is over.
    pub start: u16,
    /// Where it stands, from there.
    pub offset: u16,
}

/// The vnet header, in the byte order of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VnetHeader {
    /// The transport checksum that is left to do.
    pub checksum: Option<PartialChecksum>,
    /// What the packet stands for, and the length of the headers that are repeated.
    pub segments: Option<(Segmentation, u16)>,
}

/// A vnet header that the kernel does not write with what was asked of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the vnet header's segmentation type {0} is unknown")]
pub struct UnknownSegmentation(u8);

impl VnetHeader {
    /// Reads what the kernel wrote.
    ///
    /// # Errors
    /// [`UnknownSegmentation`].
    pub fn decode(bytes: &[u8; VNET_HEADER_LEN]) -> Result<Self, UnknownSegmentation> {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let kind = match bytes[1] & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCP_V4 => Some(SegmentKind::TcpV4),
            GSO_TCP_V6 => Some(SegmentKind::TcpV6),
            GSO_UDP => Some(SegmentKind::Udp),
            unknown => return Err(UnknownSegmentation(unknown)),
        };
        let has_cwr = bytes[1] & GSO_ECN != 0;
        let checksum = PartialChecksum { start: word(6), offset: word(8) };
        Ok(Self {
            checksum: (bytes[0] & NEEDS_CHECKSUM != 0).then_some(checksum),
            segments: kind.map(|kind| (Segmentation { kind, segment_len: word(4), has_cwr }, word(2))),
        })
    }

    /// Returns what the kernel says of the same packet with so many bytes of a link header in front.
    pub fn behind(self, link_len: usize) -> Self {
        let link_len = link_len as u16;
        Self {
            checksum: self.checksum.map(|it| PartialChecksum { start: it.start.saturating_add(link_len), ..it }),
            segments: self.segments.map(|(segments, header_len)| (segments, header_len.saturating_add(link_len))),
        }
    }

    /// Returns the bytes for the kernel.
    pub fn encode(&self) -> [u8; VNET_HEADER_LEN] {
        let mut bytes = [0; VNET_HEADER_LEN];
        let mut put = |at: usize, word: u16| bytes[at..at + 2].copy_from_slice(&word.to_ne_bytes());
        if let Some((segments, header_len)) = self.segments {
            put(2, header_len);
            put(4, segments.segment_len);
        }
        if let Some(checksum) = self.checksum {
            put(6, checksum.start);
            put(8, checksum.offset);
        }
        bytes[0] = if self.checksum.is_some() { NEEDS_CHECKSUM } else { 0 };
        bytes[1] = self.segments.map_or(GSO_NONE, |(segments, _)| {
            let kind = match segments.kind {
                SegmentKind::TcpV4 => GSO_TCP_V4,
                SegmentKind::TcpV6 => GSO_TCP_V6,
                SegmentKind::Udp => GSO_UDP,
            };
            kind | if segments.has_cwr { GSO_ECN } else { 0 }
        });
        bytes
    }
}

/// Where the parts of a packet's headers are. Plain ones: IPv4 without options, not fragmented, or IPv6 without extension headers; then
/// TCP or UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlainHeaders {
    is_ipv6: bool,
    is_tcp: bool,
    /// Where TCP or UDP begins.
    transport: usize,
    len: usize,
}

impl PlainHeaders {
    /// Reads the headers at the front of `packet`; `None` when they are not plain or not whole. Lengths and checksums are not looked at.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (is_ipv6, protocol) = match *packet.first()? {
            0x45 if packet.len() >= IPV4_HEADER_LEN => {
                // More fragments, or an offset.
                let is_fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
                (!is_fragment).then_some((false, packet[9]))?
            }
            first if first >> 4 == 6 && packet.len() >= IPV6_HEADER_LEN => (true, packet[6]),
            _ => return None,
        };
        let transport = if is_ipv6 { IPV6_HEADER_LEN } else { IPV4_HEADER_LEN };
        Self::at(packet, is_ipv6, protocol, transport)
    }

    /// Reads also those with IPv4 options or IPv6 extension headers, of one whole packet.
    pub fn parse_extended(packet: &[u8]) -> Option<Self> {
        let inner = InnerPacket::parse(packet).ok().filter(|inner| inner.fragment == Fragment::Whole)?;
        Self::at(packet, inner.source.is_ipv6(), inner.protocol, inner.payload_offset)
    }

    fn at(packet: &[u8], is_ipv6: bool, protocol: u8, transport: usize) -> Option<Self> {
        let (is_tcp, transport_len) = match protocol {
            PROTOCOL_TCP => (true, usize::from(packet.get(transport + 12)? >> 4) * 4),
            PROTOCOL_UDP => (false, UDP_HEADER_LEN),
            _ => return None,
        };
        let len = transport + transport_len;
        let is_whole = packet.len() >= len && (!is_tcp || transport_len >= 20);
        is_whole.then_some(Self { is_ipv6, is_tcp, transport, len })
    }

    /// Says whether there is nothing between IP's own header and TCP or UDP.
    pub fn is_plain(&self) -> bool {
        self.transport == if self.is_ipv6 { IPV6_HEADER_LEN } else { IPV4_HEADER_LEN }
    }

    /// Bytes of all headers together.
    pub fn header_len(&self) -> usize {
        self.len
    }

    /// What a packet with these headers that stands for several is.
    pub fn kind(&self) -> SegmentKind {
        match (self.is_tcp, self.is_ipv6) {
            (true, false) => SegmentKind::TcpV4,
            (true, true) => SegmentKind::TcpV6,
            (false, _) => SegmentKind::Udp,
        }
    }

    /// The transport checksum, as the vnet header names it.
    pub fn checksum(&self) -> PartialChecksum {
        PartialChecksum { start: self.transport as u16, offset: if self.is_tcp { 16 } else { 6 } }
    }

    fn addresses(&self) -> Range<usize> {
        if self.is_ipv6 { 8..40 } else { 12..20 }
    }

    fn tcp_flags(&self) -> Option<usize> {
        self.is_tcp.then_some(self.transport + 13)
    }

    /// Says whether two headers of this shape are those of one flow's datagrams, which may become one super-packet: they differ in nothing
    /// but lengths, checksums, and IPv4's identification, which means nothing where no router may fragment (RFC 6864 §4.1).
    pub fn is_same_flow(&self, one: &[u8], other: &[u8]) -> bool {
        let (varying, is_whole): (&[Range<usize>], _) = match self.is_ipv6 {
            true => (&[4..6, 44..48], true),
            false => (&[2..6, 10..12, 24..28], one[6] & IPV4_DONT_FRAGMENT != 0),
        };
        let mut from = 0;
        let is_equal = varying.iter().all(|range| {
            let is_equal = one[from..range.start] == other[from..range.start];
            from = range.end;
            is_equal
        });
        !self.is_tcp && is_whole && is_equal
    }

    /// Says whether TCP's flags are such that its payload may be cut: nothing begins, ends at once, or is urgent.
    pub fn may_be_cut(&self, headers: &[u8]) -> bool {
        self.tcp_flags().is_none_or(|at| headers[at] & (TCP_SYN | TCP_RST | TCP_URG) == 0)
    }

    /// Says whether TCP tells that the sender halved its window.
    pub fn has_cwr(&self, headers: &[u8]) -> bool {
        self.tcp_flags().is_some_and(|at| headers[at] & TCP_CWR != 0)
    }

    /// Makes the headers of the whole those of a part, which begins `offset` payload bytes after the whole and `index` segments. The
    /// lengths are [`Self::set_payload_len`]'s.
    pub fn move_to(&self, headers: &mut [u8], offset: u32, index: u16, is_first: bool, is_last: bool) {
        if !self.is_ipv6 {
            let id = u16::from_be_bytes([headers[4], headers[5]]).wrapping_add(index);
            headers[4..6].copy_from_slice(&id.to_be_bytes());
        }
        let Some(flags) = self.tcp_flags() else { return };
        let at = self.transport + 4;
        let sequence = u32::from_be_bytes([headers[at], headers[at + 1], headers[at + 2], headers[at + 3]]);
        headers[at..at + 4].copy_from_slice(&sequence.wrapping_add(offset).to_be_bytes());
        if !is_first {
            headers[flags] &= !TCP_CWR;
        }
        if !is_last {
            headers[flags] &= !(TCP_FIN | TCP_PSH);
        }
    }

    /// Writes the lengths of a packet with `payload_len` bytes of payload, IPv4's own checksum, and the sum of the pseudo-header where the
    /// transport checksum goes.
    ///
    /// # Panics
    /// When headers and payload together exceed what IP's length field holds.
    pub fn set_payload_len(&self, headers: &mut [u8], payload_len: usize) {
        let transport = self.transport;
        let of_packet = |end: usize| u16::try_from(end + payload_len).expect("a packet of IP");
        let transport_len = of_packet(self.len - transport);
        if self.is_ipv6 {
            headers[4..6].copy_from_slice(&of_packet(self.len - IPV6_HEADER_LEN).to_be_bytes());
        } else {
            headers[2..4].copy_from_slice(&of_packet(self.len).to_be_bytes());
            headers[10..12].fill(0);
            let checksum = !fold(sum(&headers[..transport], 0));
            headers[10..12].copy_from_slice(&checksum.to_ne_bytes());
        }
        if !self.is_tcp {
            headers[transport + 4..transport + 6].copy_from_slice(&transport_len.to_be_bytes());
        }
        let protocol = u16::from(if self.is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP });
        let about = u64::from(protocol.to_be()) + u64::from(transport_len.to_be());
        let pseudo = fold(sum(&headers[self.addresses()], about));
        let at = transport + usize::from(self.checksum().offset);
        headers[at..at + 2].copy_from_slice(&pseudo.to_ne_bytes());
    }
}

/// Completes the checksum of a packet that holds only the sum of its pseudo-header. Returns whether it lies within the packet.
pub fn complete_checksum(packet: &mut [u8], checksum: PartialChecksum) -> bool {
    let start = usize::from(checksum.start);
    let at = start + usize::from(checksum.offset);
    if at + 2 > packet.len() {
        return false;
    }
    let complete = !fold(sum(&packet[start..], 0));
    // RFC 768: a UDP checksum of zero says that there is none; both are the same number in ones' complement.
    let complete = if complete == 0 { u16::MAX } else { complete };
    packet[at..at + 2].copy_from_slice(&complete.to_ne_bytes());
    true
}

/// Adds 16-bit words in ones' complement (RFC 1071), as yet unfolded; in the byte order of the host, whatever that is (RFC 1071 §2 (B)).
fn sum(bytes: &[u8], initial: u64) -> u64 {
    let mut words = bytes.chunks_exact(4);
    let whole: u64 =
        words.by_ref().map(|word| u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))).sum();
    let mut rest = [0; 4];
    rest[..words.remainder().len()].copy_from_slice(words.remainder());
    initial + whole + u64::from(u32::from_ne_bytes(rest))
}

fn fold(mut sum: u64) -> u16 {
    while sum > u64::from(u16::MAX) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::ip;
    use etherparse::{
        IpHeaders, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader, PacketBuilder,
        PacketHeaders, TransportHeader, ip_number,
    };
    use proptest::prelude::*;

    /// A packet with right checksums.
    fn packet(is_ipv6: bool, is_tcp: bool, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        if is_tcp {
            let options = [etherparse::TcpOptionElement::Noop, etherparse::TcpOptionElement::Timestamp(7, 8)];
            let tcp = ip(is_ipv6).tcp(1000, 2000, 4_000_000_000, 500).ack(9).psh().options(&options).unwrap();
            tcp.write(&mut bytes, payload).unwrap();
        } else {
            ip(is_ipv6).udp(1000, 2000).write(&mut bytes, payload).unwrap();
        }
        bytes
    }

    #[test]
    fn the_vnet_header_has_the_bytes_of_the_kernel() {
        let segments = Segmentation { kind: SegmentKind::TcpV6, segment_len: 0x0584, has_cwr: true };
        let checksum = PartialChecksum { start: 40, offset: 16 };
        let header = VnetHeader { checksum: Some(checksum), segments: Some((segments, 72)) };
        let words = [72u16, 0x0584, 40, 16].map(u16::to_ne_bytes).concat();
        assert_eq!(header.encode().to_vec(), [&[1, 0x84][..], &words].concat());
        assert_eq!(VnetHeader::decode(&header.encode()), Ok(header));
        let framed = header.behind(18);
        assert_eq!((framed.checksum.unwrap().start, framed.checksum.unwrap().offset), (58, 16));
        assert_eq!((framed.segments, VnetHeader::default().behind(18)), (Some((segments, 90)), VnetHeader::default()));
        assert_eq!(VnetHeader::decode(&[0; 10]), Ok(VnetHeader::default()));
        assert_eq!(VnetHeader::decode(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), Err(UnknownSegmentation(3)));
    }

    #[test]
    fn what_is_not_plain_is_not_read() {
        let tcp = packet(false, true, b"payload");
        assert_eq!(PlainHeaders::parse(&tcp).unwrap().header_len(), 20 + 32);
        let mut changed = tcp.clone();
        for (at, byte) in [(0, 0x46), (6, 0x20), (7, 1), (9, 1), (20 + 12, 0x40), (20 + 12, 0xf0)] {
            changed[at] = byte;
            assert_eq!(PlainHeaders::parse(&changed[..52]), None, "byte {at} is {byte:#x}");
            changed[at] = tcp[at];
        }
        assert_eq!((0..52).find_map(|len| PlainHeaders::parse(&tcp[..len])), None);
        let mut extended = packet(true, false, &[]);
        extended[6] = 0;
        assert_eq!(PlainHeaders::parse(&extended), None, "a hop-by-hop header");
    }

    /// A packet of IPv6 with an extension header, or of IPv4 with options.
    fn extended(is_ipv6: bool, payload: &[u8]) -> Vec<u8> {
        let ip = if is_ipv6 {
            let options = Ipv6RawExtHeader::new_raw(ip_number::TCP, &[1, 4, 0, 0, 0, 0]).unwrap();
            let header = Ipv6Header { source: [0xfd; 16], destination: [0xfe; 16], ..Ipv6Header::default() };
            IpHeaders::Ipv6(header, Ipv6Extensions { hop_by_hop_options: Some(options), ..Ipv6Extensions::default() })
        } else {
            let mut header = Ipv4Header::new(0, 64, ip_number::TCP, [10, 64, 0, 1], [10, 64, 0, 2]).unwrap();
            header.options = [1; 4].into();
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        };
        let mut bytes = Vec::new();
        PacketBuilder::ip(ip).tcp(1000, 2000, 7, 500).ack(9).write(&mut bytes, payload).unwrap();
        bytes
    }

    #[test]
    fn extended_headers_are_read_only_where_they_are_asked_for_and_lengths_and_checksums_are_theirs() {
        for is_ipv6 in [false, true] {
            let whole = extended(is_ipv6, &[5; 1001]);
            assert_eq!(PlainHeaders::parse(&whole), None);
            let headers = PlainHeaders::parse_extended(&whole).unwrap();
            assert!(
                !headers.is_plain()
                    && headers.kind() == PlainHeaders::parse(&packet(is_ipv6, true, b"")).unwrap().kind()
            );
            let mut again = whole.clone();
            again[if is_ipv6 { 4..6 } else { 2..4 }].fill(0xee);
            headers.set_payload_len(&mut again[..headers.header_len()], 1001);
            assert!(complete_checksum(&mut again, headers.checksum()));
            assert_eq!(again, whole);
        }
        let mut fragment = extended(false, b"");
        fragment[6] |= 0x20;
        assert_eq!(PlainHeaders::parse_extended(&fragment), None);
        let plain = packet(true, false, b"");
        assert_eq!(PlainHeaders::parse_extended(&plain), PlainHeaders::parse(&plain));
    }

    proptest! {
        #[test]
        fn a_packet_whose_lengths_and_checksum_are_made_anew_is_the_one_that_it_was(
            is_ipv6: bool, is_tcp: bool, payload in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let whole = packet(is_ipv6, is_tcp, &payload);
            let plain = PlainHeaders::parse(&whole).unwrap();
            let mut again = whole.clone();
            let garbled = if is_ipv6 { 4..6 } else { 2..4 };
            again[garbled].fill(0xee);
            plain.set_payload_len(&mut again[..plain.header_len()], payload.len());
            prop_assert!(complete_checksum(&mut again, plain.checksum()));
            prop_assert_eq!(again, whole);
        }

        #[test]
        fn a_part_has_its_own_sequence_number_and_only_the_flags_that_are_its_own(
            offset in 0u32..70_000, is_first: bool, is_last: bool,
        ) {
            let mut part = packet(false, true, b"");
            part[20 + 13] |= TCP_CWR | TCP_FIN;
            let plain = PlainHeaders::parse(&part).unwrap();
            plain.move_to(&mut part, offset, 3, is_first, is_last);
            plain.set_payload_len(&mut part, 0);
            let headers = PacketHeaders::from_ip_slice(&part).unwrap();
            let Some(TransportHeader::Tcp(tcp)) = headers.transport else { panic!("no TCP") };
            prop_assert_eq!(tcp.sequence_number, 4_000_000_000u32.wrapping_add(offset));
            prop_assert_eq!((tcp.cwr, tcp.fin, tcp.psh, tcp.ack), (is_first, is_last, is_last, true));
            prop_assert_eq!(u16::from_be_bytes([part[4], part[5]]), 3);
        }
    }
}
