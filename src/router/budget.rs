//! A token bucket: how much of something may happen per second, and how much at once.

use crate::time::Instant;

/// A budget of `rate` units per second that can save up `burst` units. Starts full.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    rate: u64,
    burst: u64,
    /// In millionths of a unit, so that no time is lost by rounding.
    saved: u64,
    filled_at: Instant,
}

/// Millionths in a unit: the clock counts microseconds.
const PARTS: u64 = 1_000_000;

impl TokenBucket {
    /// Makes a full bucket.
    pub const fn new(rate: u64, burst: u64) -> Self {
        Self { rate, burst, saved: burst.saturating_mul(PARTS), filled_at: Instant::ZERO }
    }

    /// Takes `cost` units if there are as many.
    #[must_use]
    pub fn take(&mut self, now: Instant, cost: u64) -> bool {
        self.fill(now);
        let cost = cost.saturating_mul(PARTS);
        let enough = cost <= self.saved;
        if enough {
            self.saved -= cost;
        }
        enough
    }

    /// Takes as many units as there are, at most `wanted`; returns how many.
    #[must_use]
    pub fn take_up_to(&mut self, now: Instant, wanted: u64) -> u64 {
        self.fill(now);
        let taken = wanted.min(self.saved / PARTS);
        self.saved -= taken * PARTS;
        taken
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = u64::try_from(now.saturating_since(self.filled_at).as_micros()).unwrap_or(u64::MAX);
        let full = self.burst.saturating_mul(PARTS);
        self.saved = self.saved.saturating_add(elapsed.saturating_mul(self.rate)).min(full);
        self.filled_at = self.filled_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut bucket = TokenBucket::new(10, 3);
        let mut now = Instant::from_micros(77);
        assert_eq!((0..9).filter(|_| bucket.take(now, 1)).count(), 3);
        let mut passed = 0;
        for _ in 0..1_000 {
            now = now + Duration::from_millis(10);
            passed += u32::from(bucket.take(now, 1));
        }
        assert_eq!(passed, 100, "ten per second for ten seconds");
    }

    #[test]
    fn a_part_is_taken_where_the_whole_is_not_there() {
        let mut bucket = TokenBucket::new(10, 5);
        let now = Instant::from_micros(1);
        assert_eq!([bucket.take_up_to(now, 3), bucket.take_up_to(now, 3), bucket.take_up_to(now, 3)], [3, 2, 0]);
        assert_eq!(bucket.take_up_to(now + Duration::from_millis(150), 3), 1);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let mut bucket = TokenBucket::new(1, 1);
        let late = Instant::from_micros(9_000_000);
        assert!(bucket.take(late, 1));
        assert!(!bucket.take(Instant::ZERO, 1));
        assert!(!bucket.take(late, 1));
        assert!(bucket.take(late + Duration::from_secs(1), 1));
    }
}
