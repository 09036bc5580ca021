//! A queue that does not empty any more: its senders are told to slow down, before it is full.
//!
//! The kernel's queue in front of a device holds hundreds of super-packets, a socket's megabytes, and TCP fills what there is: everybody's
//! packets then wait for milliseconds. A queue that absorbs bursts empties between them; one that stands does not. Then, one packet
//! after the other is chosen to bear the news, in intervals that shrink with the root of their number: the control law of CoDel
//! (RFC 8289 §5.3), with "it was empty" in the place of a sojourn time, which the device does not tell.

use crate::time::Instant;
use std::time::Duration;

/// How long a queue may be full before it stands: at a few Gbit/s ten megabytes, which no sender has in one burst. Where a slower network card
/// is the narrow place, its socket's queue in front of it holds enough to keep it busy.
const PATIENCE: Duration = Duration::from_millis(20);

/// What counts of the time between two looks at a queue that did not empty. What is more is a pause of the thread that empties it, which other
/// programs kept from running: nobody's sender is to slow down for that, unless it happens again and again.
const LOOK: Duration = Duration::from_millis(2);

/// Between the first two choices: the longest round trip that senders are expected to have, after which they have heard of the first
/// (RFC 8289 §4.3).
const INTERVAL: Duration = Duration::from_millis(100);

/// Packets chosen in one standing of the queue after which the intervals shrink no more, at a hundred a second: with very many flows it
/// stands, whatever each of them does.
const MAX_CHOSEN: u32 = 100;

/// Watches one queue.
pub(super) struct Pressure {
    /// How long the queue stands.
    stood: Duration,
    seen_at: Instant,
    chosen: u32,
    next_at: Instant,
}

impl Default for Pressure {
    fn default() -> Self {
        Self { stood: Duration::ZERO, seen_at: Instant::ZERO, chosen: 0, next_at: Instant::ZERO }
    }
}

impl Pressure {
    /// Takes the news that the queue was empty until now: time in which nothing came is no standing.
    pub(super) fn emptied(&mut self, now: Instant) {
        (self.stood, self.seen_at) = (Duration::ZERO, now);
    }

    /// Says whether the packet at hand is to bear the news.
    pub(super) fn chooses(&mut self, now: Instant) -> bool {
        self.stood += now.saturating_since(self.seen_at).min(LOOK);
        self.seen_at = now;
        if self.stood < PATIENCE || now < self.next_at {
            return false;
        }
        // A queue that stood a moment ago is brought down from where that ended.
        let is_over = now.saturating_since(self.next_at) > 8 * INTERVAL;
        self.chosen = if is_over { 1 } else { (self.chosen + 1).min(MAX_CHOSEN) };
        self.next_at = now + INTERVAL.div_f64(f64::from(self.chosen).sqrt());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    /// How many of the packets that come every millisecond are chosen.
    fn chosen(pressure: &mut Pressure, millis: std::ops::Range<u64>) -> usize {
        millis.filter(|now| pressure.chooses(at(*now))).count()
    }

    #[test]
    fn a_queue_that_empties_now_and_then_is_left_alone() {
        let mut pressure = Pressure::default();
        for burst in 0..100 {
            pressure.emptied(at(burst * 20));
            assert_eq!(chosen(&mut pressure, burst * 20..burst * 20 + 20), 0, "{burst}");
        }
    }

    #[test]
    fn one_that_was_not_looked_at_does_not_stand() {
        let mut pressure = Pressure::default();
        pressure.emptied(at(0));
        let burst: usize = (0..1000).map(|_| chosen(&mut pressure, 90..91)).sum();
        assert_eq!(burst, 0, "the thread came back after 90 ms to all that had come");
        let looks: Vec<_> = (91..300).step_by(10).map(|now| pressure.chooses(at(now))).collect();
        assert_eq!(looks.iter().position(|chosen| *chosen), Some(9), "kept from running again and again: {looks:?}");
    }

    #[test]
    fn one_that_stands_is_told_ever_more_often_up_to_a_hundred_times_a_second_and_no_more_when_it_emptied() {
        let mut pressure = Pressure::default();
        pressure.emptied(at(1080));
        assert_eq!(chosen(&mut pressure, 1080..1100), 0);
        assert_eq!(chosen(&mut pressure, 1100..1200), 1);
        // 100, 71, 58, 50 … milliseconds: the n-th comes 200 (√n − 1) after the first.
        assert!((25..=35).contains(&chosen(&mut pressure, 1200..2100)));
        chosen(&mut pressure, 2100..20_000);
        assert_eq!(chosen(&mut pressure, 20_000..21_000), 100);
        pressure.emptied(at(21_000));
        assert_eq!(chosen(&mut pressure, 21_000..21_020), 0);
        assert!(chosen(&mut pressure, 21_020..21_120) > 5, "it stands again at once");
        pressure.emptied(at(30_000));
        assert_eq!(chosen(&mut pressure, 30_020..30_120), 1, "a new standing");
    }
}
