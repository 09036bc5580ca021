//! With whom records are compared, one peer at a time, and how much of that is answered.
//!
//! Several peers that all bring the same at once are a waste, and one that may take every turn can keep all others from theirs: so each peer is
//! asked in its own turn, and a closer look begins only with the one that was asked last, and with the one that was answered last.

use crate::crypto::exchange::TransportKey;
use crate::router::budget::TokenBucket;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often the records are compared with each neighbour.
const COMPARE_INTERVAL: Duration = Duration::from_secs(30);

/// How long after one comparison no other one is begun, or answered: what the first brings, others need not bring as well.
const COMPARE_PAUSE: Duration = Duration::from_secs(1);

/// How often one peer's comparison is answered at most, so that one that takes every turn that it gets leaves nine of ten to others.
const PEER_PAUSE: Duration = Duration::from_secs(10);

/// Messages of one peer that make this node look through its records: a second, and at once, which everything among 10,000 members takes.
const LOOKS_PER_SECOND: u64 = 32;
const LOOKS_AT_ONCE: u64 = 512;

/// Whose turn it is.
#[derive(Default)]
pub(super) struct Schedule {
    /// When all neighbours are due.
    round_at: Instant,
    /// When each peer is due that was not asked yet.
    due: BTreeMap<TransportKey, Instant>,
    pause_until: Instant,
    /// Who was asked last, and did not answer yet.
    asked: Option<TransportKey>,
    answer_at: Instant,
    /// Who was answered last, and may hold more than one message names.
    answering: Option<TransportKey>,
    /// Whose comparison was answered lately.
    answered: BTreeMap<TransportKey, Instant>,
    paces: BTreeMap<TransportKey, TokenBucket>,
}

impl Schedule {
    /// Has a peer be compared with at this time.
    pub(super) fn expect(&mut self, at: Instant, peer: TransportKey) {
        let due = self.due.entry(peer).or_insert(at);
        *due = at.min(*due);
    }

    /// Takes the peer to compare with now, one a second; the neighbours are due every half a minute.
    pub(super) fn take(
        &mut self,
        now: Instant,
        neighbours: impl FnOnce() -> Vec<TransportKey>,
    ) -> Option<TransportKey> {
        if now >= self.round_at {
            self.round_at = now + COMPARE_INTERVAL;
            neighbours().into_iter().for_each(|peer| self.expect(now, peer));
        }
        let (at, peer) = self.due.iter().map(|(peer, at)| (*at, *peer)).min()?;
        if now < at.max(self.pause_until) {
            return None;
        }
        self.due.remove(&peer);
        self.pause_until = now + COMPARE_PAUSE;
        self.asked = Some(peer);
        Some(peer)
    }

    /// When [`Self::take`] is due.
    pub(super) fn poll_timeout(&self) -> Instant {
        let next = self.due.values().min().map(|at| (*at).max(self.pause_until));
        next.map_or(self.round_at, |at| at.min(self.round_at))
    }

    /// Makes the next round due at once.
    pub(super) fn hurry(&mut self) {
        self.round_at = Instant::ZERO;
    }

    /// Says, once for each time that it asked or was asked, whether a closer look at everything with a peer is to begin.
    pub(super) fn follow(&mut self, peer: &TransportKey) -> bool {
        let take = |turn: &mut Option<TransportKey>| turn.take_if(|whose| whose == peer).is_some();
        take(&mut self.asked) || take(&mut self.answering)
    }

    /// Says whether a peer's comparison is to be answered.
    pub(super) fn answer(&mut self, now: Instant, peer: TransportKey) -> bool {
        self.answered.retain(|_, at| now.saturating_since(*at) < PEER_PAUSE);
        let may = now >= self.answer_at && !self.answered.contains_key(&peer);
        if may {
            self.answer_at = now + COMPARE_PAUSE;
            self.answering = Some(peer);
            self.answered.insert(peer, now);
        }
        may
    }

    /// Says whether a peer may have this node look through its records once more.
    pub(super) fn may_look(&mut self, now: Instant, peer: TransportKey) -> bool {
        let full = TokenBucket::new(LOOKS_PER_SECOND, LOOKS_AT_ONCE);
        self.paces.entry(peer).or_insert(full).take(now, 1)
    }

    /// Forgets a peer whose last session ended.
    pub(super) fn forget(&mut self, peer: &TransportKey) {
        self.due.remove(peer);
        [&mut self.asked, &mut self.answering].into_iter().for_each(|turn| {
            turn.take_if(|whose| whose == peer);
        });
        self.paces.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(seed: u8) -> TransportKey {
        TransportKey([seed; 32])
    }

    fn seconds(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn each_peer_has_its_own_turn_and_the_neighbours_one_every_half_a_minute() {
        let mut schedule = Schedule::default();
        schedule.expect(seconds(3), peer(9));
        let mut asked = Vec::new();
        let mut now = Instant::ZERO;
        while now < seconds(40) {
            asked.extend(schedule.take(now, || vec![peer(1), peer(2)]).map(|peer| (now, peer)));
            assert_eq!(schedule.take(now, Vec::new), None, "one at a time");
            assert!(schedule.poll_timeout() > now, "it rests until then");
            now = schedule.poll_timeout();
        }
        let [first, second, third, fourth, fifth] = [0, 1, 3, 30, 31].map(seconds);
        let turns = [(first, peer(1)), (second, peer(2)), (third, peer(9)), (fourth, peer(1)), (fifth, peer(2))];
        assert_eq!(asked, turns);
    }

    #[test]
    fn only_who_was_asked_or_answered_last_is_followed_and_once() {
        let mut schedule = Schedule::default();
        assert!(!schedule.follow(&peer(1)), "nobody was asked");
        schedule.take(seconds(1), || vec![peer(1)]);
        assert!(!schedule.follow(&peer(2)) && schedule.follow(&peer(1)) && !schedule.follow(&peer(1)));
        assert!(schedule.answer(seconds(1), peer(2)) && !schedule.answer(seconds(1), peer(3)));
        assert!(!schedule.follow(&peer(3)) && schedule.follow(&peer(2)) && !schedule.follow(&peer(2)));
    }

    #[test]
    fn of_many_that_compare_at_once_one_is_answered_and_one_that_takes_every_turn_gets_one_of_ten() {
        let mut schedule = Schedule::default();
        assert_eq!([1, 2, 1].map(|seed| schedule.answer(seconds(1), peer(seed))), [true, false, false]);
        assert!(schedule.answer(seconds(2), peer(2)));
        let greedy = (11..31).filter(|second| schedule.answer(seconds(*second), peer(1))).count();
        assert_eq!(greedy, 2);
        assert!(schedule.answer(seconds(32), peer(3)));
    }

    #[test]
    fn one_peer_has_this_node_look_through_its_records_so_often_and_no_more() {
        let mut schedule = Schedule::default();
        let looks = (0..2000).filter(|_| schedule.may_look(seconds(1), peer(1))).count() as u64;
        assert_eq!(looks, LOOKS_AT_ONCE);
        assert!(schedule.may_look(seconds(1), peer(2)));
        schedule.forget(&peer(1));
        assert!(schedule.paces.len() == 1 && schedule.due.is_empty());
    }
}
