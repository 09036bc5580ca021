//! What may be sent to a place that nobody proved to be the peer's: a record may name anybody's address, and each attempt is 7 kB.

use crate::time::Instant;
use std::time::Duration;

/// Attempts at once towards one unproved place: the waits between them grow to a minute meanwhile.
pub const UNPROVED_ATTEMPTS: u32 = 8;

/// Bytes at once towards it: its attempts, five flights of 1452 bytes each, and as many again as cookies and probes need.
pub const UNPROVED_BYTES: usize = 64_000;

/// After this one more attempt may be made, with its bytes: 67 bytes a second for as long as somebody wants the peer.
pub const REFILL_INTERVAL: Duration = Duration::from_secs(120);

/// The bytes that come with it.
const REFILL_BYTES: usize = UNPROVED_BYTES / UNPROVED_ATTEMPTS as usize;

/// What is left for one unproved place, or for all those of one peer together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// How many places share it.
    places: u32,
    attempts: u32,
    bytes: usize,
    refilled_at: Instant,
}

impl Allowance {
    /// A full one, shared by so many places.
    pub(super) const fn of(places: u32) -> Self {
        let bytes = UNPROVED_BYTES * places as usize;
        Self { places, attempts: UNPROVED_ATTEMPTS * places, bytes, refilled_at: Instant::ZERO }
    }

    /// Says whether an attempt may begin: one is left, and bytes for its first flight at least.
    pub(super) fn has_attempt(&mut self, now: Instant, first_len: usize) -> bool {
        self.refill(now);
        self.attempts > 0 && self.bytes >= first_len
    }

    /// Takes an attempt; the caller asked before.
    pub(super) fn take_attempt(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
    }

    /// Says whether so many bytes are left.
    pub(super) fn has_bytes(&mut self, now: Instant, len: usize) -> bool {
        self.refill(now);
        self.bytes >= len
    }

    /// Takes so many bytes; the caller asked before.
    pub(super) fn take_bytes(&mut self, len: usize) {
        self.bytes = self.bytes.saturating_sub(len);
    }

    fn refill(&mut self, now: Instant) {
        let full = Self::of(self.places);
        let intervals = now.saturating_since(self.refilled_at).as_secs() / REFILL_INTERVAL.as_secs();
        let refills = u32::try_from(intervals).unwrap_or(u32::MAX).min(UNPROVED_ATTEMPTS);
        if self.attempts == full.attempts && self.bytes == full.bytes {
            // The interval begins with the first loss.
            self.refilled_at = now;
        } else if refills > 0 {
            self.attempts = (self.attempts + refills * self.places).min(full.attempts);
            self.bytes = (self.bytes + refills as usize * REFILL_BYTES * self.places as usize).min(full.bytes);
            self.refilled_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_spent_comes_back_slowly_and_never_beyond_what_it_was() {
        for places in [1, 8] {
            let mut allowance = Allowance::of(places);
            let mut attempts = 0;
            let mut spend = |seconds: u64| {
                while allowance.has_attempt(after(seconds), 1452) {
                    allowance.take_attempt();
                    attempts += 1;
                }
                attempts
            };
            assert_eq!(spend(1000), UNPROVED_ATTEMPTS * places);
            assert_eq!(spend(1119), UNPROVED_ATTEMPTS * places);
            assert_eq!(spend(1120), (UNPROVED_ATTEMPTS + 1) * places);
            assert_eq!(spend(100_000), (2 * UNPROVED_ATTEMPTS + 1) * places);
        }
    }

    #[test]
    fn bytes_end_an_allowance_as_attempts_do() {
        let mut allowance = Allowance::of(1);
        let mut sent = 0;
        while allowance.has_bytes(after(5), 1452) {
            allowance.take_bytes(1452);
            sent += 1452;
        }
        assert!(sent <= UNPROVED_BYTES && sent + 1452 > UNPROVED_BYTES);
        assert!(!allowance.has_attempt(after(5), 1452));
        assert!(allowance.has_attempt(after(125), 1452));
    }
}
