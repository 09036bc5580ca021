//! The maximum segment size that a TCP connection's first packets announce (RFC 9293 §3.7.1), lowered to what the way takes: who is behind a
//! router may never hear that its packets are too long (RFC 2923 §2.1).

use super::inner::{Fragment, InnerPacket};
use etherparse::ip_number;

/// Where TCP has its flags and its checksum, and where its options begin.
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;
const OPTIONS: usize = 20;
/// The flag of a connection's first packets.
const SYN: u8 = 2;
/// The option, with its length.
const MSS_OPTION: [u8; 2] = [2, 4];
/// The option that is one byte, and the one that ends the list.
const NO_OPERATION: u8 = 1;
const END: u8 = 0;
/// Less is announced by nobody in earnest (RFC 1122 §4.2.2.6).
const LEAST: usize = 536;

/// Says whether a packet may open a TCP connection, by two of its bytes: so that others cost nothing.
pub fn may_be_syn(packet: &[u8]) -> bool {
    let (protocol, header_len) = match packet {
        [first, ..] if first >> 4 == 6 => (packet.get(6), 40),
        [first, ..] => (packet.get(9), usize::from(first & 15) * 4),
        [] => return false,
    };
    protocol == Some(&ip_number::TCP.0) && packet.get(header_len + FLAGS).is_some_and(|flags| flags & SYN != 0)
}

/// Lowers the size that a packet with SYN announces so that no packet of the connection is longer than `longest` bytes. Where the transport
/// checksum is done already (not `is_partial`), it stays right. Returns whether anything was lowered.
pub fn clamp(packet: &mut [u8], longest: usize, is_partial: bool) -> bool {
    let Some(inner) = InnerPacket::parse(packet).ok().filter(|inner| inner.fragment == Fragment::Whole) else {
        return false;
    };
    let (header_len, Some(tcp)) = (inner.payload_offset, packet.get_mut(inner.payload_offset..)) else { return false };
    let Some(at) = find(tcp).filter(|_| inner.protocol == ip_number::TCP.0) else { return false };
    let most = longest.saturating_sub(header_len + OPTIONS).max(LEAST);
    let announced = u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let Some(most) = u16::try_from(most).ok().filter(|most| *most < announced) else { return false };
    tcp[at..at + 2].copy_from_slice(&most.to_be_bytes());
    if !is_partial {
        let checksum = u16::from_be_bytes([tcp[CHECKSUM], tcp[CHECKSUM + 1]]);
        let checksum = updated(checksum, (announced, most), at % 2 == 1);
        tcp[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    true
}

/// Finds the announced size in a TCP header with SYN.
fn find(tcp: &[u8]) -> Option<usize> {
    let header_len = usize::from(tcp.get(12)? >> 4) * 4;
    let header = tcp.get(..header_len).filter(|header| header.len() > FLAGS && header[FLAGS] & SYN != 0)?;
    let mut at = OPTIONS;
    loop {
        match *header.get(at..)? {
            [END, ..] | [] => return None,
            [NO_OPERATION, ..] => at += 1,
            [kind, len, _, _, ..] if [kind, len] == MSS_OPTION => return Some(at + 2),
            [_, len, ..] if len >= 2 => at += usize::from(len),
            [_, ..] => return None,
        }
    }
}

/// The checksum after a word of what it is over became another one (RFC 1624 §3); at an odd place the word's bytes are in two words.
fn updated(checksum: u16, (before, after): (u16, u16), is_odd: bool) -> u16 {
    let word = |word: u16| u32::from(if is_odd { word.swap_bytes() } else { word });
    let sum = u32::from(!checksum) + (0xffff - word(before)) + word(after);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{ip, leave_checksum};
    use etherparse::{SlicedPacket, TcpOptionElement, TransportSlice};

    fn syn(is_ipv6: bool, options: &[TcpOptionElement]) -> Vec<u8> {
        let mut packet = Vec::new();
        let step = ip(is_ipv6).tcp(1000, 80, 7, 64_000).syn().options(options).unwrap();
        step.write(&mut packet, &[]).unwrap();
        packet
    }

    /// What a packet announces; panics where its checksum is wrong.
    fn announced(packet: &[u8]) -> Option<u16> {
        let parsed = SlicedPacket::from_ip(packet).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = parsed.transport else { panic!("no TCP") };
        let whole = match parsed.net.unwrap() {
            etherparse::NetSlice::Ipv4(ip) => tcp.to_header().calc_checksum_ipv4(&ip.header().to_header(), &[]),
            etherparse::NetSlice::Ipv6(ip) => tcp.to_header().calc_checksum_ipv6(&ip.header().to_header(), &[]),
            etherparse::NetSlice::Arp(_) => panic!("no IP"),
        };
        assert_eq!(tcp.checksum(), whole.unwrap());
        tcp.options_iterator().find_map(|option| match option.unwrap() {
            TcpOptionElement::MaximumSegmentSize(size) => Some(size),
            _ => None,
        })
    }

    #[test]
    fn what_is_announced_is_lowered_to_what_passes_and_the_checksum_stays_right() {
        use TcpOptionElement::{MaximumSegmentSize as Mss, Noop, Timestamp};
        for is_ipv6 in [false, true] {
            for before in [vec![], vec![Noop], vec![Noop, Noop, Timestamp(1, 2)], vec![Noop, Timestamp(1, 2), Noop]] {
                let mut packet = syn(is_ipv6, &[before, vec![Mss(1460)]].concat());
                assert!(may_be_syn(&packet) && clamp(&mut packet, 1400, false));
                assert_eq!(announced(&packet), Some(if is_ipv6 { 1340 } else { 1360 }));
                assert!(!clamp(&mut packet, 1400, false), "low enough");
                assert!(clamp(&mut packet, 100, false));
                assert_eq!(announced(&packet), Some(LEAST as u16));
            }
        }
    }

    #[test]
    fn a_checksum_that_is_left_to_the_device_is_left_alone() {
        let mut packet = syn(false, &[TcpOptionElement::MaximumSegmentSize(1460)]);
        leave_checksum(&mut packet);
        let before = packet[36..38].to_vec();
        assert!(clamp(&mut packet, 1400, true));
        assert_eq!((&packet[36..38], &packet[42..44]), (&before[..], &1360u16.to_be_bytes()[..]));
    }

    #[test]
    fn what_announces_nothing_stays_as_it_is_and_nothing_panics() {
        let mut other = Vec::new();
        ip(false).udp(1, 2).write(&mut other, &[2; 40]).unwrap();
        let mut later = Vec::new();
        ip(false).tcp(1000, 80, 7, 64_000).ack(1).write(&mut later, b"data").unwrap();
        for packet in [other, later, syn(true, &[]), syn(false, &[TcpOptionElement::SelectiveAcknowledgementPermitted])]
        {
            let mut changed = packet.clone();
            assert!(!clamp(&mut changed, 600, false));
            assert_eq!(changed, packet);
        }
        let whole = syn(false, &[TcpOptionElement::MaximumSegmentSize(1460)]);
        for at in 0..whole.len() {
            for value in 0..=255 {
                let mut packet = whole.clone();
                packet[at] = value;
                may_be_syn(&packet);
                clamp(&mut packet, 1200, false);
                clamp(&mut packet[..at], 1200, false);
            }
        }
    }
}
