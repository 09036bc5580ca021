//! The deadlines of an open height.

use crate::time::Instant;
use arc_malachitebft_core_types::{Timeout, TimeoutKind};

/// What a deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Deadline {
    /// The proposal of this round does not come.
    Propose,
    /// The prevotes of this round do not agree.
    Prevote,
    /// The precommits of this round do not agree.
    Precommit,
    /// Votes are repeated.
    Rebroadcast,
    /// Where this node stands is told.
    Status,
    /// A missing proposal is asked for.
    Pull,
    /// Others are ahead for too long.
    Sync,
    /// Answers about own votes are no longer waited for, or are asked for again.
    Recovery,
}

/// The engine's timeouts. It cancels all of them when a round begins, so there are never more than its kinds.
#[derive(Default)]
pub(super) struct Timers(Vec<(Timeout, Instant)>);

impl Timers {
    /// Sets a timeout, or sets it anew.
    pub(super) fn schedule(&mut self, timeout: Timeout, at: Instant) {
        self.cancel(timeout);
        self.0.push((timeout, at));
    }

    /// Forgets a timeout.
    pub(super) fn cancel(&mut self, timeout: Timeout) {
        self.0.retain(|(other, _)| *other != timeout);
    }

    /// Forgets all.
    pub(super) fn cancel_all(&mut self) {
        self.0.clear();
    }

    /// Returns the next deadline.
    pub(super) fn next(&self) -> Option<(Instant, Deadline)> {
        self.0.iter().map(|(timeout, at)| (*at, deadline(timeout.kind))).min()
    }

    /// Takes one timeout that has elapsed, the earliest first.
    pub(super) fn take_elapsed(&mut self, now: Instant) -> Option<Timeout> {
        let elapsed = self.0.iter().enumerate().filter(|(_, (_, at))| *at <= now);
        let (place, _) = elapsed.min_by_key(|(_, (timeout, at))| (*at, deadline(timeout.kind)))?;
        Some(self.0.remove(place).0)
    }
}

fn deadline(kind: TimeoutKind) -> Deadline {
    match kind {
        TimeoutKind::Propose => Deadline::Propose,
        TimeoutKind::Prevote => Deadline::Prevote,
        // The last is never scheduled: it belongs to a target time per height, which is not used.
        TimeoutKind::Precommit | TimeoutKind::FinalizeHeight(_) => Deadline::Precommit,
        TimeoutKind::Rebroadcast => Deadline::Rebroadcast,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arc_malachitebft_core_types::Round;

    #[test]
    fn timeouts_elapse_in_order_and_a_second_one_replaces_the_first() {
        let mut timers = Timers::default();
        let at = Instant::from_micros;
        timers.schedule(Timeout::rebroadcast(Round::new(0)), at(30));
        timers.schedule(Timeout::propose(Round::new(0)), at(20));
        timers.schedule(Timeout::rebroadcast(Round::new(0)), at(10));
        assert_eq!(timers.next(), Some((at(10), Deadline::Rebroadcast)));
        assert_eq!(timers.take_elapsed(at(9)), None);
        assert_eq!(timers.take_elapsed(at(40)), Some(Timeout::rebroadcast(Round::new(0))));
        assert_eq!(timers.take_elapsed(at(40)), Some(Timeout::propose(Round::new(0))));
        assert_eq!(timers.take_elapsed(at(40)), None);
    }
}
