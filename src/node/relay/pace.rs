//! How much a relay passes on: for whom, and when it last did. Read and written by every thread that receives.

use crate::time::Instant;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a pace may be ahead of itself: a burst of so long a time, so that a train of datagrams is never cut for its length.
const BURST: Duration = Duration::from_millis(250);

/// A rate in bytes per second that any thread may draw on: the virtual scheduling of ITU-T I.371's generic cell rate algorithm.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When everything that was let through would have gone at the rate, in microseconds.
    paid_until: AtomicU64,
}

impl Pace {
    /// Makes one that lets so many bytes through a second; none is no limit.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second: bytes_per_second.unwrap_or(u64::MAX).max(1), paid_until: AtomicU64::new(0) }
    }

    /// Draws `len` bytes. Returns whether there were as many.
    pub fn draw(&self, now: Instant, len: usize) -> bool {
        if self.bytes_per_second == u64::MAX {
            return true;
        }
        let cost = (len as u64).saturating_mul(1_000_000).div_ceil(self.bytes_per_second);
        let now = now.as_micros();
        let latest = now.saturating_add(BURST.as_micros() as u64);
        let draw = |paid_until: u64| {
            let until = paid_until.max(now).saturating_add(cost);
            (until <= latest).then_some(until)
        };
        self.paid_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, draw).is_ok()
    }
}

/// What one way through a circuit carried, and whose paces it draws on.
#[derive(Debug)]
pub struct Meter {
    member: Arc<Pace>,
    everybody: Arc<Pace>,
    bytes: AtomicU64,
    /// In microseconds.
    used_at: AtomicU64,
}

impl Meter {
    /// Makes one that draws on the pace of the member who sends, and on that of all together.
    pub fn new(now: Instant, member: Arc<Pace>, everybody: Arc<Pace>) -> Self {
        Self { member, everybody, bytes: AtomicU64::new(0), used_at: AtomicU64::new(now.as_micros()) }
    }

    /// Lets a datagram of `len` bytes through, or not.
    pub fn pass(&self, now: Instant, len: usize) -> bool {
        self.used_at.fetch_max(now.as_micros(), Ordering::Relaxed);
        // The member's first: what it has not, it does not take from everybody.
        let is_let = self.member.draw(now, len) && self.everybody.draw(now, len);
        if is_let {
            self.bytes.fetch_add(len as u64, Ordering::Relaxed);
        }
        is_let
    }

    /// The bytes that were passed on.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// When it was last used.
    pub fn used_at(&self) -> Instant {
        Instant::from_micros(self.used_at.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    /// The datagrams of 1000 bytes that get through when 100 knock every millisecond, for a second from the tenth on.
    fn passed(passes: impl Fn(Instant) -> bool) -> usize {
        (10_000..11_000).map(|millis| (0..100).filter(|_| passes(at(millis))).count()).sum()
    }

    #[test]
    fn a_flood_gets_the_rate_and_one_burst() {
        let pace = Pace::new(Some(1_000_000));
        let count = passed(|now| pace.draw(now, 1000));
        assert!((1245..=1251).contains(&count), "{count}");
        let unbounded = Pace::new(None);
        assert_eq!(passed(|now| unbounded.draw(now, 1000)), 100_000);
    }

    #[test]
    fn one_member_s_flood_leaves_another_its_share_of_what_all_have() {
        let everybody = Arc::new(Pace::new(Some(2_000_000)));
        let meter = || Meter::new(at(0), Arc::new(Pace::new(Some(1_000_000))), Arc::clone(&everybody));
        let (flood, modest) = (meter(), meter());
        passed(|now| flood.pass(now, 1000));
        assert!((1_240_000..=1_251_000).contains(&flood.bytes()), "{}", flood.bytes());
        assert!(modest.pass(at(11_000), 60_000));
        assert_eq!((modest.bytes(), modest.used_at()), (60_000, at(11_000)));
    }
}
