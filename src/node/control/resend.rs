//! Repairs loss below smoltcp, which answers it with a timer of at least a second, doubled at each loss and rarely taken back: at 5 %
//! loss with reordering its connections stall for good.
//!
//! Keeps a copy of each segment until it arrived. A segment is lost when one that left later arrived (RACK, RFC 8985 §6.2), and the first
//! ones are sent again when nothing arrives at all (tail loss probe, §7). What this layer gives up, smoltcp's timer still repairs.
//!
//! There is no congestion window: a connection has at most its socket buffer in flight.

use super::segment::{IPV6_HEADER_LEN, Segment};
use crate::time::Instant;
use smoltcp::wire::{TcpControl, TcpPacket, TcpSeqNumber};
use std::collections::VecDeque;
use std::time::Duration;

/// Copies that are kept; more are left to smoltcp. A window of full segments has 68.
const MAX_COPIES: usize = 256;

/// When to send again before a round trip was measured.
const INITIAL_TIMEOUT: Duration = Duration::from_millis(250);

/// Waited beyond a round trip: for the far side's delayed acknowledgement (10 ms in smoltcp) and a busy thread.
const ACK_DELAY: Duration = Duration::from_millis(20);

/// The longest first wait, so that a peer that lies about round trips delays no more than smoltcp would.
const MAX_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits without any arrival, each twice as long as the one before; then smoltcp goes on alone.
const MAX_TIMEOUTS: u32 = 7;

/// Segments that are sent again when a wait is over: enough to hear of the rest.
const PROBE_SEGMENTS: usize = 2;

/// The copies of one connection's segments, and what is known of its round trips.
#[derive(Debug, Default)]
pub(super) struct Resend {
    /// By sequence number.
    copies: VecDeque<Copy>,
    round_trip: Option<RoundTrip>,
    /// When the segment left that left last of those that arrived.
    arrived: Instant,
    /// Waits since something last arrived.
    timeouts: u32,
    /// The acknowledgement and window that left last, for segments that are sent again.
    sent: Option<(u32, u16)>,
}

#[derive(Debug)]
struct Copy {
    start: u32,
    end: u32,
    packet: Vec<u8>,
    departed: Instant,
    is_resent: bool,
}

/// RFC 6298 §2.
#[derive(Clone, Copy, Debug)]
struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
}

impl Resend {
    /// Notes a packet of smoltcp's that leaves.
    pub(super) fn departs(&mut self, now: Instant, segment: &Segment, packet: &[u8]) {
        if let Some(ack) = segment.ack {
            self.sent = Some((ack, segment.window));
        }
        if segment.start == segment.end || segment.control == TcpControl::Rst {
            return;
        }
        // smoltcp repeats itself, perhaps cut differently.
        let before = self.copies.len();
        self.copies.retain(|copy| is_before(copy.start, segment.start) || is_before(segment.end, copy.end));
        let is_resent = self.copies.len() < before;
        if self.copies.len() < MAX_COPIES {
            let place = self.copies.partition_point(|copy| is_before(copy.start, segment.start));
            let (start, end) = (segment.start, segment.end);
            self.copies.insert(place, Copy { start, end, packet: packet.to_vec(), departed: now, is_resent });
        }
    }

    /// Learns from a segment of the peer what arrived.
    pub(super) fn arrives(&mut self, now: Instant, segment: &Segment) {
        let Some(ack) = segment.ack.filter(|_| segment.control != TcpControl::Rst) else { return };
        let has_arrived = |copy: &Copy| {
            let mut sacks = segment.sack.iter().flatten();
            !is_before(ack, copy.end)
                || sacks.any(|(from, below)| !is_before(copy.start, *from) && !is_before(*below, copy.end))
        };
        let least_round_trip = self.round_trip.map_or(Duration::ZERO, |round_trip| round_trip.smoothed * 3 / 4);
        let mut sample = None;
        self.copies.retain(|copy| {
            let arrived = has_arrived(copy);
            if arrived {
                self.timeouts = 0;
                if !copy.is_resent {
                    sample = sample.max(Some(copy.departed));
                }
                // An answer that came too soon is to the first sending: it says nothing of what left since (RFC 8985 §6.2 step 2).
                if !copy.is_resent || now.saturating_since(copy.departed) >= least_round_trip {
                    self.arrived = self.arrived.max(copy.departed);
                }
            }
            !arrived
        });
        if let Some(departed) = sample {
            let measured = now.saturating_since(departed);
            self.round_trip = Some(RoundTrip::sample(self.round_trip, measured));
        }
    }

    /// Gives the segments that are to be sent again to `send`.
    pub(super) fn resend(&mut self, now: Instant, mut send: impl FnMut(Vec<u8>)) {
        let reordering = self.round_trip.map_or(Duration::ZERO, |round_trip| round_trip.smoothed / 4);
        for copy in &mut self.copies {
            if copy.departed + reordering < self.arrived {
                copy.resend(now, self.sent, &mut send);
            }
        }
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.timeouts += 1;
            for copy in self.copies.iter_mut().take(PROBE_SEGMENTS) {
                copy.resend(now, self.sent, &mut send);
            }
        }
    }

    /// When a wait is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let first = self.copies.front()?;
        if self.timeouts >= MAX_TIMEOUTS {
            return None;
        }
        let timeout = self.round_trip.map_or(INITIAL_TIMEOUT, RoundTrip::timeout);
        Some(first.departed + timeout * (1 << self.timeouts))
    }
}

impl Copy {
    /// Sends it again with the newest acknowledgement: smoltcp drops a segment whose own is older than the last one it saw.
    fn resend(&mut self, now: Instant, sent: Option<(u32, u16)>, send: &mut impl FnMut(Vec<u8>)) {
        (self.departed, self.is_resent) = (now, true);
        let mut packet = self.packet.clone();
        if let (Ok(segment), Some((ack, window))) = (Segment::parse(&packet), sent)
            && segment.control != TcpControl::Syn
        {
            let mut tcp = TcpPacket::new_unchecked(&mut packet[IPV6_HEADER_LEN..]);
            tcp.set_ack_number(TcpSeqNumber(ack as i32));
            tcp.set_window_len(window);
            tcp.fill_checksum(&segment.source.into(), &segment.destination.into());
        }
        send(packet);
    }
}

impl RoundTrip {
    fn sample(before: Option<Self>, measured: Duration) -> Self {
        let Some(Self { smoothed, variation }) = before else {
            return Self { smoothed: measured, variation: measured / 2 };
        };
        Self { smoothed: (smoothed * 7 + measured) / 8, variation: (variation * 3 + smoothed.abs_diff(measured)) / 4 }
    }

    fn timeout(self) -> Duration {
        (self.smoothed * 3 / 2 + self.variation * 4 + ACK_DELAY).min(MAX_TIMEOUT)
    }
}

/// Compares sequence numbers, which wrap (RFC 9293 §3.4).
fn is_before(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::super::{CONTROL_MTU, LinkId, tests::packet};
    use super::*;
    use crate::crypto::exchange::TransportKey;

    const NOW: Instant = Instant::from_micros(1_000_000);
    const LOCAL: LinkId = LinkId(TransportKey([1; 32]));
    const REMOTE: LinkId = LinkId(TransportKey([2; 32]));

    fn depart(resend: &mut Resend, now: Instant, seq: u32, ack: u32, payload: &[u8]) {
        let bytes = packet(LOCAL, REMOTE, (50_000, 1), |tcp| {
            tcp.control = TcpControl::None;
            tcp.seq_number = TcpSeqNumber(seq as i32);
            tcp.ack_number = Some(TcpSeqNumber(ack as i32));
            tcp.payload = payload;
        });
        resend.departs(now, &Segment::parse(&bytes).unwrap(), &bytes);
    }

    fn arrive(resend: &mut Resend, now: Instant, ack: u32, sack: Option<(u32, u32)>) {
        let bytes = packet(REMOTE, LOCAL, (1, 50_000), |tcp| {
            tcp.control = TcpControl::None;
            tcp.ack_number = Some(TcpSeqNumber(ack as i32));
            tcp.sack_ranges = [sack, None, None];
        });
        resend.arrives(now, &Segment::parse(&bytes).unwrap());
    }

    fn resent(resend: &mut Resend, now: Instant) -> Vec<Segment> {
        let mut segments = Vec::new();
        resend.resend(now, |packet| segments.push(Segment::parse(&packet).unwrap()));
        segments
    }

    fn starts(segments: &[Segment]) -> Vec<u32> {
        segments.iter().map(|segment| segment.start).collect()
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_left_before_an_arrival_is_sent_again_also_where_numbers_wrap() {
        let first = u32::MAX - 15;
        let mut resend = Resend::default();
        for index in 0..4u32 {
            depart(&mut resend, NOW + millis(20) * index, first.wrapping_add(index * 10), 5, &[7; 10]);
        }
        let third = first.wrapping_add(20);
        arrive(&mut resend, NOW + millis(80), first, Some((third, third.wrapping_add(10))));
        assert_eq!(starts(&resent(&mut resend, NOW + millis(80))), [first, first.wrapping_add(10)]);
        assert!(resent(&mut resend, NOW + millis(81)).is_empty(), "they are on their way");
        arrive(&mut resend, NOW + millis(130), first.wrapping_add(40), None);
        assert_eq!(resend.deadline(), None);
    }

    #[test]
    fn a_segment_sent_again_carries_the_newest_acknowledgement() {
        let mut resend = Resend::default();
        depart(&mut resend, NOW, 100, 5, &[7; 10]);
        depart(&mut resend, NOW, 110, 9, &[]);
        let segments = resent(&mut resend, NOW + INITIAL_TIMEOUT);
        assert_eq!((starts(&segments), segments[0].ack), (vec![100], Some(9)));
    }

    #[test]
    fn without_an_answer_the_waits_double_and_end() {
        let mut resend = Resend::default();
        for index in 0..5 {
            depart(&mut resend, NOW, 100 + index * 10, 5, &[7; 10]);
        }
        let mut now = NOW;
        let mut waits = Vec::new();
        while let Some(deadline) = resend.deadline() {
            waits.push(deadline.saturating_since(now).as_millis());
            now = deadline;
            assert_eq!(starts(&resent(&mut resend, now)), [100, 110]);
        }
        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000]);
    }

    #[test]
    fn copies_are_bounded() {
        let mut resend = Resend::default();
        for index in 0..10_000 {
            depart(&mut resend, NOW, 100 + index, 5, &[7]);
        }
        assert_eq!(resend.copies.len(), MAX_COPIES);
        const { assert!(MAX_COPIES * CONTROL_MTU < 300_000) };
    }
}
