//! Ways to one peer through relays: a bounded set, each known by its relay and the label that the relay gave for it.

use super::local::Path;
use crate::crypto::exchange::TransportKey;
use crate::time::Instant;
use std::time::Duration;

/// Ways through relays to one peer: three that this node asked for and those that the peer did.
pub const MAX_RELAYED: usize = 6;

/// Of these, ways through one relay: it may offer as many labels as it likes.
const MAX_OF_RELAY: usize = 2;

/// Questions in a row that the peer may leave unanswered by a way: one or two are lost now and then, after three the label leads nowhere.
const MAX_UNANSWERED: u32 = 3;

/// How long it is remembered that ways through a relay led nowhere.
const SHUNNED_FOR: Duration = Duration::from_secs(60);

/// How often that may be in this time before the relay is asked for no more, and within what time it is for one reason.
const MAX_SILENT: usize = 3;
const SAME_REASON: Duration = Duration::from_secs(5);

/// How long an answer to one of them may take.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// One of them.
#[derive(Clone, Copy, Debug)]
struct RelayedWay {
    relay: TransportKey,
    path: Path,
    /// The round trip by it, once the peer answered there.
    rtt: Option<Duration>,
    /// Whether the peer answered there.
    has_answered: bool,
    /// Questions since it last did, a second apart at least, and when the last one was asked.
    unanswered: u32,
    asked_at: Option<Instant>,
    /// Whether it is to be asked soon, because the relay may have started anew.
    is_doubted: bool,
}

impl RelayedWay {
    /// Says whether the last question had its time.
    fn is_over(&self, now: Instant) -> bool {
        self.asked_at.is_none_or(|at| now.saturating_since(at) >= ANSWER_TIME)
    }
}

/// All of them, the one that was made first in front.
#[derive(Clone, Debug, Default)]
pub(super) struct RelayedWays {
    ways: Vec<RelayedWay>,
    /// Through which relays ways were dropped because nobody answered by them, and when.
    silent: Vec<(TransportKey, Instant)>,
}

/// Says whether two paths lead through the same relay by the same label, whatever end of this host they begin at.
fn is_same(one: &Path, other: &Path) -> bool {
    (one.remote, one.label) == (other.remote, other.label)
}

impl RelayedWays {
    /// Adds a way. When there are too many, the first that the peer never answered by, and that is not `used`, gives way; where there is none,
    /// nothing is added: what anybody offers moves nothing that works. Through one relay a new way always takes the place of one of its own:
    /// it can end those anyway, and a peer that started anew knows the old ones no more.
    pub(super) fn add(&mut self, relay: TransportKey, path: Path, used: Option<Path>) {
        if self.relay_of(&path).is_some() {
            return;
        }
        let of_relay = self.ways.iter().filter(|way| way.relay == relay).count();
        let is_used = |way: &RelayedWay| used.is_some_and(|used| is_same(&used, &way.path));
        let mut idle = self.ways.iter().enumerate().filter(|(_, way)| !way.has_answered && !is_used(way));
        let loser = if of_relay >= MAX_OF_RELAY {
            let is_spare = |way: &RelayedWay| way.relay == relay && !is_used(way);
            idle.find(|(_, way)| way.relay == relay).map(|(at, _)| at).or(self.ways.iter().position(is_spare))
        } else if self.ways.len() >= MAX_RELAYED {
            let Some((at, _)) = idle.next() else { return };
            Some(at)
        } else {
            None
        };
        loser.map(|at| self.ways.remove(at));
        self.ways.push(RelayedWay {
            relay,
            path,
            rtt: None,
            has_answered: false,
            unanswered: 0,
            asked_at: None,
            is_doubted: false,
        });
    }

    /// Drops those that are none any more. Returns whether there were any.
    pub(super) fn remove(&mut self, is_gone: impl Fn(&TransportKey, &Path) -> bool) -> bool {
        let before = self.ways.len();
        self.ways.retain(|way| !is_gone(&way.relay, &way.path));
        self.ways.len() != before
    }

    /// Takes where a relay is reached: its labels stay what they are.
    pub(super) fn relay_moved(&mut self, relay: &TransportKey, to: Path) {
        for way in self.ways.iter_mut().filter(|way| way.relay == *relay) {
            way.path = Path { label: way.path.label, ..to };
        }
    }

    /// Notes that the peer answered by a way, in so long.
    pub(super) fn answered(&mut self, path: &Path, rtt: Option<Duration>) {
        for way in self.ways.iter_mut().filter(|way| is_same(&way.path, path)) {
            way.has_answered = true;
            way.rtt = rtt.or(way.rtt);
            way.unanswered = 0;
            way.is_doubted = false;
        }
    }

    /// Notes that the peer is asked by a way.
    pub(super) fn asked(&mut self, now: Instant, path: &Path) {
        for way in self.ways.iter_mut().filter(|way| is_same(&way.path, path) && way.is_over(now)) {
            way.unanswered += 1;
            way.asked_at = Some(now);
            way.is_doubted = false;
        }
    }

    /// A relay may have started anew, and know its labels no more: each of them is to be asked soon.
    pub(super) fn doubt(&mut self, relay: &TransportKey) {
        for way in self.ways.iter_mut().filter(|way| way.relay == *relay) {
            way.is_doubted = true;
        }
    }

    /// The ways other than `used` by which an answer is overdue, or that are to be asked for another reason.
    pub(super) fn doubtful(&self, now: Instant, used: Option<Path>) -> Vec<Path> {
        let is_used = |path: &Path| used.is_some_and(|used| is_same(&used, path));
        let is_doubtful = |way: &&RelayedWay| way.is_doubted || way.unanswered > 0 && way.is_over(now);
        self.ways.iter().filter(is_doubtful).map(|way| way.path).filter(|path| !is_used(path)).collect()
    }

    /// Drops the ways but `used` that the peer answers by no more. Returns them with their relays.
    pub(super) fn drop_silent(&mut self, now: Instant, used: Option<Path>) -> Vec<(TransportKey, Path)> {
        let is_used = |path: &Path| used.is_some_and(|used| is_same(&used, path));
        let is_silent =
            |way: &mut RelayedWay| way.unanswered >= MAX_UNANSWERED && way.is_over(now) && !is_used(&way.path);
        let silent: Vec<_> = self.ways.extract_if(.., is_silent).map(|way| (way.relay, way.path)).collect();
        self.silent.retain(|(_, at)| now.saturating_since(*at) < SHUNNED_FOR);
        for (relay, _) in &silent {
            // All that a relay gave are dropped when it started anew: that counts as one.
            let is_same = |(it, at): &(TransportKey, Instant)| it == relay && now.saturating_since(*at) < SAME_REASON;
            if !self.silent.iter().any(is_same) {
                self.silent.push((*relay, now));
            }
        }
        silent
    }

    /// Says whether ways through a relay were dropped again and again of late.
    pub(super) fn is_shunned(&self, now: Instant, relay: &TransportKey) -> bool {
        let lately = self.silent.iter().filter(|(it, at)| it == relay && now.saturating_since(*at) < SHUNNED_FOR);
        lately.count() >= MAX_SILENT
    }

    /// Says whether the peer answered by a way.
    pub(super) fn has_answered(&self, path: &Path) -> bool {
        self.ways.iter().any(|way| way.has_answered && is_same(&way.path, path))
    }

    /// The way that the peer answers by the fastest, with its round trip.
    pub(super) fn best(&self) -> Option<(Path, Option<Duration>)> {
        let answered = self.ways.iter().filter(|way| way.has_answered);
        answered.min_by_key(|way| way.rtt.unwrap_or(Duration::MAX)).map(|way| (way.path, way.rtt))
    }

    /// Whose relay a way leads through.
    pub(super) fn relay_of(&self, path: &Path) -> Option<TransportKey> {
        self.ways.iter().find(|way| is_same(&way.path, path)).map(|way| way.relay)
    }

    /// The ways, with their relays.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TransportKey, Path)> {
        self.ways.iter().map(|way| (way.relay, way.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::relay::Label;
    use std::net::SocketAddr;

    fn way(relay: u8, label: u32) -> Path {
        Path { label: Some(Label(label)), ..SocketAddr::from(([192, 0, 2, relay], 4647)).into() }
    }

    #[test]
    fn a_new_way_displaces_only_one_that_never_answered() {
        let (mut ways, relay) = (RelayedWays::default(), |seed| TransportKey([seed; 32]));
        (0..MAX_RELAYED as u8).for_each(|seed| ways.add(relay(seed), way(seed, 7), None));
        ways.add(relay(3), way(3, 7), None);
        assert_eq!(ways.iter().count(), MAX_RELAYED, "it is known");
        ways.answered(&way(0, 7), None);
        ways.add(relay(99), way(99, 7), Some(way(1, 7)));
        assert_eq!((ways.relay_of(&way(2, 7)), ways.iter().count()), (None, MAX_RELAYED));
        (0..100).for_each(|seed| ways.answered(&way(seed, 7), None));
        ways.add(relay(98), way(98, 7), None);
        assert_eq!(ways.relay_of(&way(98, 7)), None, "all of them work");
    }

    #[test]
    fn a_relay_that_offers_labels_without_end_displaces_its_own_alone() {
        let (mut ways, [liar, other]) = (RelayedWays::default(), [1, 2].map(|seed| TransportKey([seed; 32])));
        ways.add(other, way(2, 7), None);
        ways.add(liar, way(1, 1000), None);
        ways.answered(&way(1, 1000), None);
        (0..100).for_each(|number| ways.add(liar, way(1, number), None));
        assert_eq!((ways.relay_of(&way(2, 7)), ways.relay_of(&way(1, 1000))), (Some(other), Some(liar)));
        assert_eq!(ways.iter().count(), 1 + MAX_OF_RELAY);
        // A peer that started anew: both are the old one's.
        ways.answered(&way(1, 99), None);
        ways.add(liar, way(1, 2000), Some(way(1, 1000)));
        assert_eq!(ways.iter().map(|(_, path)| path).collect::<Vec<_>>(), [way(2, 7), way(1, 1000), way(1, 2000)]);
    }

    #[test]
    fn a_relay_that_moves_or_ends_takes_its_ways_along() {
        let mut ways = RelayedWays::default();
        let [one, other] = [1, 2].map(|seed| TransportKey([seed; 32]));
        ways.add(one, way(1, 7), None);
        ways.add(other, way(2, 7), None);
        ways.relay_moved(&one, Path { label: None, ..way(9, 0) });
        assert_eq!(ways.iter().collect::<Vec<_>>(), [(one, way(9, 7)), (other, way(2, 7))]);
        assert!(ways.remove(|relay, _| *relay == one) && !ways.remove(|relay, _| *relay == one));
        assert_eq!(ways.relay_of(&way(2, 7)), Some(other));
    }

    #[test]
    fn a_way_by_which_nobody_answers_any_more_is_dropped_but_not_for_a_lost_question_or_a_slow_answer() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut ways = RelayedWays::default();
        let [used, idle] = [1, 2].map(|seed| (TransportKey([seed; 32]), way(seed, 7)));
        for (relay, path) in [used, idle] {
            ways.add(relay, path, None);
            ways.answered(&path, None);
        }
        let ask =
            |ways: &mut RelayedWays, millis| [used.1, idle.1].iter().for_each(|path| ways.asked(at(millis), path));
        (0..2900).step_by(100).for_each(|millis| ask(&mut ways, millis));
        assert_eq!(ways.doubtful(at(2999), Some(used.1)), []);
        assert_eq!(ways.doubtful(at(3000), Some(used.1)), [idle.1], "the one in use is watched otherwise");
        assert_eq!(ways.drop_silent(at(2999), Some(used.1)), []);
        ways.answered(&idle.1, None);
        assert_eq!(ways.drop_silent(at(4000), Some(used.1)), [], "it came");
        assert_eq!(ways.doubtful(at(4000), Some(used.1)), []);
        ways.doubt(&idle.0);
        assert_eq!(ways.doubtful(at(4000), Some(used.1)), [idle.1]);
        [4000, 5000, 6000].iter().for_each(|millis| ask(&mut ways, *millis));
        assert_eq!(ways.drop_silent(at(6999), Some(used.1)), []);
        assert_eq!(ways.drop_silent(at(7000), Some(used.1)), [idle]);
        assert_eq!(ways.iter().collect::<Vec<_>>(), [used]);
    }

    #[test]
    fn a_relay_whose_ways_lead_nowhere_again_and_again_is_not_asked_for_a_while() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let (mut ways, relay) = (RelayedWays::default(), TransportKey([1; 32]));
        for round in 0..MAX_SILENT as u64 {
            assert!(!ways.is_shunned(at(6 * round), &relay), "it may have started anew: {round}");
            let both = [2 * round, 2 * round + 1].map(|label| way(1, label as u32));
            both.iter().for_each(|way| ways.add(relay, *way, None));
            (0..3).for_each(|second| both.iter().for_each(|way| ways.asked(at(6 * round + second), way)));
            assert_eq!(ways.drop_silent(at(6 * round + 3), None).len(), 2);
        }
        assert!(ways.is_shunned(at(16), &relay) && !ways.is_shunned(at(16), &TransportKey([2; 32])));
        assert!(!ways.is_shunned(at(3 + 60), &relay));
    }

    #[test]
    fn the_fastest_that_answered_is_the_best() {
        let mut ways = RelayedWays::default();
        (1..=3).for_each(|seed| ways.add(TransportKey([seed; 32]), way(seed, 7), None));
        assert_eq!(ways.best(), None);
        let [slow, fast] = [90, 30].map(|millis| Some(Duration::from_millis(millis)));
        ways.answered(&way(2, 7), slow);
        ways.answered(&way(3, 7), fast);
        assert_eq!(ways.best(), Some((way(3, 7), fast)));
    }
}
