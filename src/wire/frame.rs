//! Ethernet frames: addresses, 802.1Q tags and what the frame carries, read once from untrusted bytes.
//!
//! ```text
//!   destination [6] | source [6] | { 0x8100 or 0x88a8 | tag }, at most two | EtherType | payload, padded to 46 bytes or not
//! ```
//! Owns the layout of the link header (IEEE 802.3 §3, 802.1Q §9.6). Refuses to know who may send from which address.

use super::inner::{InnerError, InnerPacket};
use std::fmt;
use std::str::FromStr;

/// Bytes of a link header without tags.
pub const LINK_HEADER_LEN: usize = 14;
/// Bytes that one 802.1Q tag adds.
pub const TAG_LEN: usize = 4;
/// Tags that a frame has at most: a customer's within a provider's (802.1ad). Behind a third nobody looks at what is inside, so that a guard
/// would be walked past.
pub const MAX_TAGS: usize = 2;
/// Bytes of the longest link header.
pub const MAX_LINK_HEADER: usize = LINK_HEADER_LEN + MAX_TAGS * TAG_LEN;

/// The EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// The EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// The EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// The EtherType of a customer's tag.
pub const ETHERTYPE_TAG: u16 = 0x8100;
/// The EtherType of a provider's tag.
pub const ETHERTYPE_PROVIDER_TAG: u16 = 0x88a8;

/// Which L2 segment of a network: the ledger gives each number once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentNumber(pub u32);

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Says whether it means more than one station.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Says whether a station can have it: neither a group's nor zero.
    pub fn is_station(self) -> bool {
        !self.is_group() && self != Self([0; 6])
    }

    /// Says whether bridges keep frames for it to one link (802.1Q table 8-1): spanning tree, pause, LLDP.
    pub fn is_link_local(self) -> bool {
        self.0[..5] == [0x01, 0x80, 0xc2, 0, 0] && self.0[5] < 0x10
    }

    /// The interface identifier that IPv6 makes of it (RFC 4291 appendix A).
    pub const fn interface_id(self) -> [u8; 8] {
        let [a, b, c, d, e, f] = self.0;
        [a ^ 2, b, c, 0xff, 0xfe, d, e, f]
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an Ethernet address is six pairs of hexadecimal digits with colons between them")]
pub struct BadMacAddress;

impl FromStr for MacAddress {
    type Err = BadMacAddress;

    fn from_str(text: &str) -> Result<Self, BadMacAddress> {
        let mut octets = [0; 6];
        let mut pairs = text.split(':');
        for octet in &mut octets {
            let pair = pairs.next().filter(|pair| pair.len() == 2 && pair.bytes().all(|it| it.is_ascii_hexdigit()));
            *octet = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or(BadMacAddress)?;
        }
        if pairs.next().is_none() { Ok(Self(octets)) } else { Err(BadMacAddress) }
    }
}

/// What the link header of a frame says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// For whom it is.
    pub destination: MacAddress,
    /// From whom it says that it is.
    pub source: MacAddress,
    /// The VLAN that it belongs to, by its outermost tag; priority tags (VLAN 0) and frames without a tag are of none.
    pub vlan: Option<u16>,
    /// What is behind the tags.
    pub ethertype: u16,
    /// Bytes of the link header, tags included.
    pub link_len: usize,
}

/// Why bytes are no frame. The sender's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The link header is cut short.
    #[error("the frame is cut short")]
    Truncated,
    /// More tags than [`MAX_TAGS`].
    #[error("the frame has more than {MAX_TAGS} tags")]
    TooManyTags,
    /// The source is a group's address, or zero.
    #[error("the frame's source is no station")]
    BadSource,
}

impl Frame {
    /// Reads the link header at the front of `bytes`.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let (destination, rest) = bytes.split_first_chunk::<6>().ok_or(FrameError::Truncated)?;
        let (source, mut rest) = rest.split_first_chunk::<6>().ok_or(FrameError::Truncated)?;
        let (destination, source) = (MacAddress(*destination), MacAddress(*source));
        if !source.is_station() {
            return Err(FrameError::BadSource);
        }
        let (mut vlan, mut link_len) = (None, LINK_HEADER_LEN);
        loop {
            let (ethertype, behind) = rest.split_first_chunk::<2>().ok_or(FrameError::Truncated)?;
            let ethertype = u16::from_be_bytes(*ethertype);
            if !matches!(ethertype, ETHERTYPE_TAG | ETHERTYPE_PROVIDER_TAG) {
                return Ok(Self { destination, source, vlan, ethertype, link_len });
            }
            if link_len == MAX_LINK_HEADER {
                return Err(FrameError::TooManyTags);
            }
            let (tag, behind) = behind.split_first_chunk::<2>().ok_or(FrameError::Truncated)?;
            let number = u16::from_be_bytes(*tag) & 0x0fff;
            vlan = vlan.or((number != 0).then_some(number));
            link_len += TAG_LEN;
            rest = behind;
        }
    }

    /// Says whether the EtherType is that of IP.
    pub fn carries_ip(&self) -> bool {
        matches!(self.ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6)
    }

    /// Reads the IP packet in the frame, without the padding that a short frame has behind it; `None` when it carries something else.
    ///
    /// # Errors
    /// [`InnerError`]; also for a packet of the other version than the EtherType says.
    pub fn inner(&self, bytes: &[u8]) -> Option<Result<InnerPacket, InnerError>> {
        self.ip(bytes).map(|packet| packet.and_then(InnerPacket::parse))
    }

    /// Lends the IP packet in the frame, as [`Self::inner`] reads it.
    ///
    /// # Errors
    /// [`InnerError`].
    pub fn ip<'b>(&self, bytes: &'b [u8]) -> Option<Result<&'b [u8], InnerError>> {
        let packet = bytes.get(self.link_len..)?;
        let field =
            |at: usize| packet.get(at..at + 2).map(|field| usize::from(u16::from_be_bytes([field[0], field[1]])));
        let (version, len) = match self.ethertype {
            ETHERTYPE_IPV4 => (4, field(2)),
            ETHERTYPE_IPV6 => (6, field(4).map(|payload_len| 40 + payload_len)),
            _ => return None,
        };
        Some(match (packet.first(), len.and_then(|len| packet.get(..len))) {
            (Some(first), _) if first >> 4 != version => Err(InnerError::UnknownVersion),
            (Some(_), Some(packet)) => Ok(packet),
            _ => Err(InnerError::Truncated),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::ip;
    use proptest::prelude::*;

    const STATION: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    fn frame(tags: &[[u8; 4]], ethertype: u16, payload: &[u8]) -> Vec<u8> {
        let tags = tags.concat();
        [&MacAddress::BROADCAST.0[..], &STATION.0, &tags, &ethertype.to_be_bytes(), payload].concat()
    }

    fn packet(is_ipv6: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        ip(is_ipv6).udp(1000, 53).write(&mut bytes, b"x").unwrap();
        bytes
    }

    #[test]
    fn up_to_two_tags_are_walked_to_the_ethertype() {
        let parse = |tags: &[[u8; 4]]| Frame::parse(&frame(tags, 0x0806, b"arp"));
        let plain = Frame::parse(&frame(&[], 0x0806, b"arp")).unwrap();
        assert_eq!((plain.vlan, plain.ethertype, plain.link_len), (None, 0x0806, 14));
        assert_eq!((plain.destination, plain.source), (MacAddress::BROADCAST, STATION));
        let one = parse(&[[0x81, 0, 0xa0, 42]]).unwrap();
        assert_eq!((one.vlan, one.ethertype, one.link_len), (Some(42), 0x0806, 18));
        let two = parse(&[[0x88, 0xa8, 0, 7], [0x81, 0, 0, 42]]).unwrap();
        assert_eq!((two.vlan, two.link_len), (Some(7), 22));
        assert_eq!(parse(&[[0x81, 0, 0xe0, 0], [0x81, 0, 0, 9]]).unwrap().vlan, Some(9), "a priority tag is no VLAN");
        assert_eq!(parse(&[[0x81, 0, 0, 1]; 3]), Err(FrameError::TooManyTags));
    }

    #[test]
    fn what_is_no_frame_has_its_name() {
        let whole = frame(&[[0x81, 0, 0, 1]], 0x0800, b"");
        assert!((0..whole.len()).all(|len| Frame::parse(&whole[..len]) == Err(FrameError::Truncated)));
        for source in [[1, 0, 0x5e, 0, 0, 1], [0xff; 6], [0; 6]] {
            let mut bad = whole.clone();
            bad[6..12].copy_from_slice(&source);
            assert_eq!(Frame::parse(&bad), Err(FrameError::BadSource));
        }
    }

    #[test]
    fn the_packet_within_is_read_without_the_padding_behind_it() {
        for is_ipv6 in [false, true] {
            let ethertype = if is_ipv6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
            let (packet, tag) = (packet(is_ipv6), [[0x81, 0, 0, 42]]);
            let padded = [&packet[..], &[0; 17]].concat();
            for payload in [&packet, &padded] {
                let bytes = frame(&tag, ethertype, payload);
                let inner = Frame::parse(&bytes).unwrap().inner(&bytes).unwrap().unwrap();
                assert_eq!((inner.protocol, inner.total_len), (17, packet.len()));
            }
            let cut = frame(&tag, ethertype, &packet[..packet.len() - 1]);
            assert_eq!(Frame::parse(&cut).unwrap().inner(&cut), Some(Err(InnerError::Truncated)));
            let other = frame(&[], if is_ipv6 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }, &packet);
            assert_eq!(Frame::parse(&other).unwrap().inner(&other), Some(Err(InnerError::UnknownVersion)));
        }
        let arp = frame(&[], ETHERTYPE_ARP, &packet(false));
        assert_eq!(Frame::parse(&arp).unwrap().inner(&arp), None);
    }

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let address: MacAddress = "02:AB:00:00:00:0f".parse().unwrap();
        assert_eq!((address, address.to_string().as_str()), (MacAddress([2, 0xab, 0, 0, 0, 15]), "02:ab:00:00:00:0f"));
        for text in
            ["", "02:ab:00:00:00", "02:ab:00:00:00:0f:1", "02:ab:00:00:00:f", "2:+1:00:00:00:0f", "02ab0000000f"]
        {
            assert_eq!(text.parse::<MacAddress>(), Err(BadMacAddress), "{text}");
        }
        assert_eq!(address.interface_id(), [0, 0xab, 0, 0xff, 0xfe, 0, 0, 15]);
        assert!(MacAddress([1, 0x80, 0xc2, 0, 0, 0x0f]).is_link_local());
        assert!(!MacAddress([1, 0x80, 0xc2, 0, 0, 0x10]).is_link_local());
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_are_what_is_said_of_them_lies_within_them(
            mut bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0usize..5,
        ) {
            let kinds = [ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_TAG, ETHERTYPE_PROVIDER_TAG, 0x1234];
            if bytes.len() > 13 {
                bytes[12..14].copy_from_slice(&kinds[kind].to_be_bytes());
            }
            let Ok(frame) = Frame::parse(&bytes) else { return Ok(()) };
            prop_assert!(frame.link_len <= bytes.len() && frame.link_len <= MAX_LINK_HEADER);
            if let Some(Ok(inner)) = frame.inner(&bytes) {
                prop_assert!(frame.link_len + inner.total_len <= bytes.len());
            }
        }
    }
}
