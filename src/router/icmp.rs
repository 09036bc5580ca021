//! When a packet that cannot be carried deserves an ICMP error, written back into the device.
//!
//! Owns the rules of RFC 1122 §3.2.2 and RFC 4443 §2.4 (e) and the rate limit of (f). The bytes are `wire::icmp`'s.

use super::budget::TokenBucket;
use super::{is_multicast, is_nobody};
use crate::time::Instant;
use crate::wire::icmp::{IcmpError, encode_error, may_be_icmp_error};
use crate::wire::inner::{Fragment, InnerPacket};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// ICMP errors per second of one answerer: a scan through the tunnel costs no more (Linux: 1000 for the host).
const RATE: u64 = 100;

/// ICMP errors at once: a burst of connections to a host that is gone.
const BURST: u64 = 50;

/// The addresses that answers come from, one per version: of the overlay, and nobody's. Linux drops an ICMP message from one of its own
/// addresses as a martian before any socket hears of it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct AnswerSources {
    /// For IPv4.
    pub v4: Option<Ipv4Addr>,
    /// For IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl AnswerSources {
    /// Says whether an address is one of them: the resolver answers there.
    pub fn contains(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4 == Some(address),
            IpAddr::V6(address) => self.v6 == Some(address),
        }
    }

    /// The source of an answer about a packet to `destination`. Without an address of the network's own the destination, nobody's on this
    /// host either, has to do.
    fn about(self, destination: IpAddr) -> IpAddr {
        match destination {
            IpAddr::V4(_) => self.v4.map_or(destination, IpAddr::V4),
            IpAddr::V6(_) => self.v6.map_or(destination, IpAddr::V6),
        }
    }
}

/// Answers the local kernel, within a budget that lasts as long as the thread. Each data thread has its own.
#[derive(Clone, Debug)]
pub struct Answerer {
    budget: TokenBucket,
}

/// Why no ICMP error goes out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Silent {
    /// The packet is an ICMP error itself.
    #[error("an ICMP error is never answered")]
    IcmpError,
    /// The packet is a fragment, and not the first.
    #[error("a later fragment is never answered")]
    LaterFragment,
    /// It was sent to more than one host.
    #[error("multicast and broadcast are never answered")]
    Multicast,
    /// Its source is no single host.
    #[error("the source is no host")]
    BadSource,
    /// The budget is spent.
    #[error("too many ICMP errors")]
    RateLimited,
}

impl Answerer {
    /// Makes an answerer with a full budget.
    pub const fn new() -> Self {
        Self { budget: TokenBucket::new(RATE, BURST) }
    }

    /// Builds the answer to `original`, which `packet` describes: one IP packet for the device.
    ///
    /// # Errors
    /// The rule that forbids an answer.
    pub fn answer(
        &mut self,
        now: Instant,
        sources: AnswerSources,
        error: IcmpError,
        packet: &InnerPacket,
        original: &[u8],
    ) -> Result<Vec<u8>, Silent> {
        if is_multicast(packet.destination) {
            return Err(Silent::Multicast);
        }
        if is_nobody(packet.source) {
            return Err(Silent::BadSource);
        }
        if matches!(packet.fragment, Fragment::Later(_)) {
            return Err(Silent::LaterFragment);
        }
        if may_be_icmp_error(packet, original) {
            return Err(Silent::IcmpError);
        }
        if !self.budget.take(now, 1) {
            return Err(Silent::RateLimited);
        }
        encode_error(error, sources.about(packet.destination), packet, original).ok_or(Silent::BadSource)
    }
}

impl Default for Answerer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LOCAL_V4: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
    const LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const FROM_V4: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 53);
    const FROM_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x53);
    const FROM: AnswerSources = AnswerSources { v4: Some(FROM_V4), v6: Some(FROM_V6) };
    const NOW: Instant = Instant::from_micros(5);

    /// An IPv4 packet of 40 bytes whose payload starts with `first`.
    fn v4(source: [u8; 4], destination: [u8; 4], protocol: u8, first: u8) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[..4].copy_from_slice(&[0x45, 0, 0, 40]);
        (packet[8], packet[9]) = (64, protocol);
        packet[12..16].copy_from_slice(&source);
        packet[16..20].copy_from_slice(&destination);
        packet[20] = first;
        packet
    }

    fn v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, first: u8) -> Vec<u8> {
        let mut packet = vec![0; 60];
        packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 20, protocol, 64]);
        packet[8..24].copy_from_slice(&source.octets());
        packet[24..40].copy_from_slice(&destination.octets());
        packet[40] = first;
        packet
    }

    fn answer(original: &[u8]) -> Result<Vec<u8>, Silent> {
        let packet = InnerPacket::parse(original).unwrap();
        Answerer::new().answer(NOW, FROM, IcmpError::NoRoute, &packet, original)
    }

    #[test]
    fn the_answer_goes_back_from_an_address_that_is_nobodys() {
        let original = v4([10, 64, 0, 1], [10, 64, 0, 9], 17, 0);
        let reply = answer(&original).unwrap();
        let parsed = InnerPacket::parse(&reply).unwrap();
        assert_eq!((parsed.source, parsed.destination), (FROM_V4.into(), LOCAL_V4.into()));
        assert_eq!(&reply[28..], original);
        let original = v6(LOCAL_V6, Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9), 6, 0);
        let reply = answer(&original).unwrap();
        assert_eq!(InnerPacket::parse(&reply).unwrap().source, IpAddr::from(FROM_V6));
        assert_eq!(&reply[48..], original);
    }

    #[test]
    fn icmp_errors_are_not_answered_and_questions_are() {
        let (source, destination) = ([10, 64, 0, 1], [10, 64, 0, 9]);
        for (icmp_type, answered) in
            [(8, true), (0, true), (13, true), (3, false), (11, false), (5, false), (99, false)]
        {
            assert_eq!(answer(&v4(source, destination, 1, icmp_type)).is_ok(), answered, "{icmp_type}");
        }
        let destination = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);
        for (icmp_type, answered) in [(128, true), (129, true), (1, false), (2, false), (100, false), (137, false)] {
            assert_eq!(answer(&v6(LOCAL_V6, destination, 58, icmp_type)).is_ok(), answered, "{icmp_type}");
        }
        let mut cut = v4(source, [10, 64, 0, 9], 1, 8)[..20].to_vec();
        cut[3] = 20;
        assert_eq!(answer(&cut), Err(Silent::IcmpError), "the type is missing");
    }

    #[test]
    fn later_fragments_groups_and_nobodies_are_not_answered() {
        let mut first = v4([10, 64, 0, 1], [10, 64, 0, 9], 17, 0);
        first[6] = 0x20;
        assert!(answer(&first).is_ok());
        first[7] = 1;
        assert_eq!(answer(&first), Err(Silent::LaterFragment));
        assert_eq!(answer(&v4([10, 64, 0, 1], [224, 0, 0, 1], 17, 0)), Err(Silent::Multicast));
        assert_eq!(answer(&v4([10, 64, 0, 1], [255; 4], 17, 0)), Err(Silent::Multicast));
        for source in [[0; 4], [255; 4], [127, 0, 0, 1], [224, 0, 0, 1]] {
            assert_eq!(answer(&v4(source, [10, 64, 0, 9], 17, 0)), Err(Silent::BadSource));
        }
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        assert_eq!(answer(&v6(LOCAL_V6, group, 17, 0)), Err(Silent::Multicast));
        assert_eq!(answer(&v6(Ipv6Addr::UNSPECIFIED, LOCAL_V6, 17, 0)), Err(Silent::BadSource));
    }

    #[test]
    fn a_network_without_a_resolvers_address_answers_from_the_destination() {
        let original = v4([10, 64, 0, 1], [10, 64, 0, 9], 6, 0);
        let packet = InnerPacket::parse(&original).unwrap();
        let sources = AnswerSources { v4: None, ..FROM };
        let reply = Answerer::new().answer(NOW, sources, IcmpError::NoRoute, &packet, &original).unwrap();
        assert_eq!(InnerPacket::parse(&reply).unwrap().source, IpAddr::from([10, 64, 0, 9]));
    }

    #[test]
    fn answers_are_limited_to_the_rate() {
        let original = v4([10, 64, 0, 1], [10, 64, 0, 9], 17, 0);
        let packet = InnerPacket::parse(&original).unwrap();
        let mut answerer = Answerer::new();
        let mut sent = 0;
        for millis in 0..10_000 {
            let now = NOW + Duration::from_millis(millis);
            sent += u64::from(answerer.answer(now, FROM, IcmpError::Prohibited, &packet, &original).is_ok());
        }
        assert!((RATE * 10..=RATE * 10 + BURST).contains(&sent), "{sent}");
    }
}
