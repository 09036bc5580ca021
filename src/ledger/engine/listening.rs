//! Listening: what keeps a validator that is alone from a second block at a height after its state folder was put back.
//!
//! A copy of the folder knows nothing of the blocks made after it, and nothing inside it can tell. Others can: members hold those
//! blocks under this validator's own signature. So it waits for all who answer in [`LISTEN_FOR`], not for the first: who that is
//! may have been away as well. Whoever the copy does not know as a member counts too, for it may have come in later, and its blocks
//! prove themselves.

use super::peers::FETCH_TIMEOUT;
use crate::time::{Instant, Now, UnixMillis};
use std::time::Duration;

/// How long a validator that is alone listens after its start for somebody who knows later blocks.
const LISTEN_FOR: Duration = Duration::from_secs(10);
/// How old a network may be whose validator starts for the first time without a wait: it is being set up.
const SET_UP_TIME: Duration = Duration::from_secs(600);

/// What the store says of its own age.
#[derive(Clone, Copy)]
pub(super) struct Stored {
    /// When it was made.
    pub(super) created: UnixMillis,
    /// The time of the last block in it.
    pub(super) head_time: UnixMillis,
}

/// How far the listening after a start has come.
pub(super) struct Listening {
    /// Whether the validator's key has signed nothing yet, as far as the disk knows.
    is_first_start: bool,
    began: Option<Instant>,
    is_over: bool,
}

impl Listening {
    pub(super) fn new(is_first_start: bool) -> Self {
        Self { is_first_start, began: None, is_over: false }
    }

    /// Says whether it is over, so that blocks may be made; `is_asking` that an answer with blocks is awaited. A clock that fell back
    /// behind what is stored says nothing of its age: an old copy would look young.
    pub(super) fn is_over(&mut self, now: Now, stored: Stored, is_asking: bool) -> bool {
        let is_clock_right = now.wall >= stored.created && now.wall >= stored.head_time;
        let is_young = is_clock_right && now.wall.saturating_since(stored.created) < SET_UP_TIME;
        let is_set_up = self.is_first_start && is_young;
        let heard_for = now.instant.saturating_since(*self.began.get_or_insert(now.instant));
        // Whoever answered in time may still be sending; one that claims blocks and has none gains a moment and no more.
        let patience = if is_asking { LISTEN_FOR + FETCH_TIMEOUT } else { LISTEN_FOR };
        self.is_over |= is_set_up || heard_for >= patience;
        self.is_over
    }

    /// Returns when it is to be looked at again; `asking_until` is when an awaited answer with blocks is given up.
    pub(super) fn poll_timeout(&self, asking_until: Option<Instant>) -> Option<Instant> {
        let end = self.began.filter(|_| !self.is_over)? + LISTEN_FOR;
        Some(asking_until.map_or(end, |until| until.clamp(end, end + FETCH_TIMEOUT)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { instant: Instant::from_micros(seconds * 1_000_000), wall: UnixMillis(seconds * 1000) }
    }

    fn stored(created: u64, head_time: u64) -> Stored {
        Stored { created: UnixMillis(created * 1000), head_time: UnixMillis(head_time * 1000) }
    }

    #[test]
    fn it_ends_after_ten_seconds_or_with_the_answer_that_is_awaited_then() {
        let mut listening = Listening::new(false);
        let created = stored(0, 0);
        assert!(!listening.is_over(at(100), created, false));
        assert_eq!(listening.poll_timeout(None), Some(at(110).instant));
        assert!(!listening.is_over(at(109), created, true));
        assert!(!listening.is_over(at(110), created, true), "blocks are on their way");
        assert_eq!(listening.poll_timeout(Some(at(113).instant)), Some(at(113).instant));
        assert!(!listening.is_over(at(114), created, true), "from another one");
        assert_eq!(listening.poll_timeout(Some(at(118).instant)), Some(at(115).instant));
        assert!(listening.is_over(at(115), created, true), "nobody holds it up for ever");
        assert_eq!(listening.poll_timeout(None), None);
    }

    #[test]
    fn only_the_first_start_of_a_young_network_does_without() {
        let created = stored(100, 100);
        assert!(Listening::new(true).is_over(at(101), created, false));
        assert!(!Listening::new(false).is_over(at(101), created, false));
        assert!(!Listening::new(true).is_over(at(701), created, false));
    }

    #[test]
    fn a_clock_behind_the_store_or_its_head_makes_nothing_young() {
        assert!(!Listening::new(true).is_over(at(99), stored(100, 100), false));
        assert!(!Listening::new(true).is_over(at(101), stored(100, 102), false));
        assert!(Listening::new(true).is_over(at(102), stored(100, 102), false));
    }
}
