//! The node's pulse: a gap in it means that the machine slept, and a key from before must not seal.
//!
//! After a suspend nobody knows which thread runs first. [`super::Node`] judges the gap in front of whatever it handles, and the data
//! threads read the [`Heartbeat`] before they seal: whichever comes first, nothing leaves under an old key.

use crate::time::{Instant, Now};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A gap that no busy moment explains: [`super::Node::poll_timeout`] asks for a third of it at most.
pub const JUMP: Duration = Duration::from_secs(30);

/// When the node last ran, for any thread.
#[derive(Debug, Default)]
pub struct Heartbeat(AtomicU64);

impl Heartbeat {
    /// Says whether the node has not run for so long that the machine must have slept.
    pub fn is_stale(&self, now: Instant) -> bool {
        now.saturating_since(Instant::from_micros(self.0.load(Ordering::Relaxed))) >= JUMP
    }
}

/// Judges the time between calls.
pub(super) struct Pulse {
    last: Now,
    heartbeat: Arc<Heartbeat>,
}

impl Pulse {
    pub(super) fn new(now: Now) -> Self {
        let heartbeat = Arc::new(Heartbeat(AtomicU64::new(now.instant.as_micros())));
        Self { last: now, heartbeat }
    }

    /// Beats. Returns whether the machine slept or its clock jumped since the last beat.
    pub(super) fn beat(&mut self, now: Now) -> bool {
        let before = std::mem::replace(&mut self.last, now);
        self.heartbeat.0.fetch_max(now.instant.as_micros(), Ordering::Relaxed);
        slept_or_jumped(before, now)
    }

    /// Lends the heartbeat to the data threads.
    pub(super) fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::clone(&self.heartbeat)
    }
}

fn slept_or_jumped(before: Now, now: Now) -> bool {
    let passed = now.instant.saturating_since(before.instant);
    let forward = now.wall.saturating_since(before.wall);
    let backward = before.wall.saturating_since(now.wall);
    passed >= JUMP || forward.abs_diff(passed) >= JUMP || backward >= JUMP
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixMillis;

    fn at(instant: u64, wall: u64) -> Now {
        Now { instant: Instant::from_micros(instant * 1_000_000), wall: UnixMillis(1_000_000_000 + wall * 1000) }
    }

    #[test]
    fn a_suspend_or_a_set_clock_is_noticed_and_a_busy_second_is_not() {
        assert!(!slept_or_jumped(at(0, 0), at(15, 15)));
        assert!(!slept_or_jumped(at(0, 0), at(17, 19)));
        assert!(slept_or_jumped(at(0, 0), at(3600, 3600)), "suspended");
        assert!(slept_or_jumped(at(0, 0), at(1, 3600)), "set forward");
        assert!(slept_or_jumped(at(0, 7200), at(1, 0)), "set back");
    }

    #[test]
    fn other_threads_see_the_gap_until_the_node_ran() {
        let mut pulse = Pulse::new(at(100, 100));
        let heartbeat = pulse.heartbeat();
        assert!(!heartbeat.is_stale(at(129, 0).instant) && heartbeat.is_stale(at(130, 0).instant));
        assert!(pulse.beat(at(130, 130)) && !pulse.beat(at(131, 131)));
        assert!(!heartbeat.is_stale(at(160, 0).instant));
    }
}
