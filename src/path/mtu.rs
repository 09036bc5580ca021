//! How long a datagram may be for the path in use: found by sending datagrams that long (RFC 8899), never by believing what others say.
//!
//! ```text
//!   begin ──► the longest that is ever sent ── answered ──────────────────────────► settled ── asked now and then ── only what is short
//!                │ silent                                                             ▲  ▲                            is answered ──► begin
//!                └──► all usual lengths at once ── after one more try ── the longest ─┘  └── later, the longer ones once more
//!                         │ nothing at all is answered: it is not the length
//!                         └──► begin, after a pause
//! ```
//! Until it is settled nothing is lost and nobody is told of a limit: what is too long for any path leaves in parts.

use super::local::Path;
use super::probe::ProbeId;
use crate::time::Instant;
use std::time::Duration;

/// Lengths of IP packets that links and tunnels have, in bytes: where a path takes less than is wanted, it is one of these.
const USUAL: [u16; 30] = [
    1140, 1160, 1180, 1200, 1220, 1240, 1260, 1280, 1300, 1320, 1340, 1360, 1380, 1400, 1420, 1430, 1440, 1452, 1460,
    1472, 1480, 1492, 1500, 2000, 3000, 4000, 6000, 8000, 9000, 9216,
];

/// How long an answer is waited for beyond three round trips, at least.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long, where no round trip is known.
const PATIENCE_UNMEASURED: Duration = Duration::from_millis(500);

/// How often a length in use is asked before it counts as lost (RFC 8899 §5.1.2, MAX_PROBES).
const TRIES: u8 = 3;

/// When longer datagrams are tried again (RFC 8899 §5.1.1, PMTU_RAISE_TIMER).
const RAISE_INTERVAL: Duration = Duration::from_mins(10);

/// A length in use is asked once in so long at most.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);

/// The same where the peer's questions are the reason: longer than a whole search of its takes, so that two ends do not ask each other for ever.
const QUESTION_INTERVAL: Duration = Duration::from_secs(5);

/// Pauses after a search in which nothing was answered: the first, twice that and so on, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_mins(1)];

/// What a path is known to take, as lengths of IP packets in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathMtu {
    /// Nothing is known yet: what is longer than any path takes leaves in parts.
    Unknown,
    /// So much, and not more.
    Known(u16),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    /// There is nothing to find.
    #[default]
    Idle,
    /// The longest is asked from then on.
    Pending(Instant),
    /// The longest is asked, until then.
    Longest(Instant),
    /// All are asked, for the second time or not, until then.
    All { again: bool, until: Instant },
    /// Found; longer ones are tried again then.
    Settled { raise_at: Instant },
    /// What is in use was asked so often, and so was the shortest; the last time until then. Longer ones are tried again when they were to be.
    Confirming { tries: u8, until: Instant, raise_at: Instant },
}

/// The search for one peer's path in use.
#[derive(Debug, Default)]
pub struct MtuSearch {
    path: Option<Path>,
    /// No path takes less.
    least: u16,
    /// Nothing longer is ever sent.
    wanted: u16,
    /// The longest that was answered, of what is asked; 0 if none.
    answered: u16,
    known: Option<u16>,
    state: State,
    pauses: u32,
    confirmed_at: Instant,
    asked: Vec<(ProbeId, u16)>,
}

impl MtuSearch {
    /// Takes which path is in use: begins anew if it is another one. It takes `lengths.0` in any case, and nothing longer than `lengths.1` is
    /// ever sent.
    pub fn follow(&mut self, now: Instant, path: Option<Path>, lengths: (u16, u16)) {
        if self.path == path {
            return;
        }
        let confirmed_at = self.confirmed_at;
        *self = Self { path, least: lengths.0, wanted: lengths.1, confirmed_at, ..Self::default() };
        if path.is_some() && self.least < self.wanted {
            self.state = State::Pending(now);
        }
    }

    /// The path that it is about.
    pub fn path(&self) -> Option<Path> {
        self.path
    }

    /// What the path takes.
    pub fn mtu(&self) -> PathMtu {
        match (self.known, self.least < self.wanted) {
            (Some(known), _) => PathMtu::Known(known),
            (None, false) => PathMtu::Known(self.least),
            (None, true) => PathMtu::Unknown,
        }
    }

    /// Has the length in use asked soon: the peer is silent, or it is time to.
    pub fn suspect(&mut self, now: Instant) {
        self.confirm(now, CONFIRM_INTERVAL);
    }

    /// The peer asks what its direction takes: whatever made it do so may concern this one as well, and its questions hide that nothing else comes.
    pub fn note_question(&mut self, now: Instant) {
        self.confirm(now, QUESTION_INTERVAL);
    }

    fn confirm(&mut self, now: Instant, interval: Duration) {
        let is_due = now.saturating_since(self.confirmed_at) >= interval;
        if is_due
            && let (State::Settled { raise_at }, Some(known)) = (self.state, self.known)
            && known > self.least
        {
            self.confirmed_at = now;
            self.answered = 0;
            self.state = State::Confirming { tries: 0, until: now, raise_at };
        }
    }

    /// Acts on the deadline that has come: returns the lengths of IP packets to be asked now, each by a datagram of its own that is then told
    /// to [`sent`](Self::sent). `rtt` is the path's round trip.
    pub fn handle_timeout(&mut self, now: Instant, rtt: Option<Duration>) -> Vec<u16> {
        let until = now + rtt.map_or(PATIENCE_UNMEASURED, |rtt| 3 * rtt + PATIENCE);
        match self.state {
            State::Pending(at) if now >= at => {
                self.answered = 0;
                self.asked.clear();
                self.state = State::Longest(until);
                vec![self.wanted]
            }
            State::Longest(end) if now >= end => {
                self.state = State::All { again: false, until };
                self.usual()
            }
            State::All { again: false, until: end } if now >= end => {
                self.state = State::All { again: true, until };
                self.usual()
            }
            State::All { again: true, until: end } if now >= end => {
                if self.answered > 0 {
                    self.settle(now);
                } else {
                    let pause = PAUSES[0] * (1 << self.pauses.min(16));
                    self.pauses += 1;
                    self.state = State::Pending(now + pause.min(PAUSES[1]));
                }
                Vec::new()
            }
            State::Settled { raise_at } if now >= raise_at => {
                self.answered = self.known.unwrap_or_default();
                self.state = State::All { again: true, until };
                self.usual()
            }
            State::Confirming { tries: TRIES, until: end, raise_at } if now >= end => {
                if self.answered > 0 {
                    // It took so much before, and now only less comes through.
                    (self.known, self.state) = (None, State::Pending(now));
                    return self.handle_timeout(now, rtt);
                }
                self.asked.clear();
                self.state = State::Settled { raise_at };
                Vec::new()
            }
            State::Confirming { tries, until: end, raise_at } if now >= end => {
                self.state = State::Confirming { tries: tries + 1, until, raise_at };
                [self.least].into_iter().filter(|_| self.answered == 0).chain(self.known).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The lengths that are not answered yet, up to the longest.
    fn usual(&self) -> Vec<u16> {
        let between = USUAL.into_iter().filter(|len| (self.least + 1..self.wanted).contains(len));
        [self.least].into_iter().chain(between).chain([self.wanted]).filter(|len| *len > self.answered).collect()
    }

    fn settle(&mut self, now: Instant) {
        self.known = Some(self.answered);
        self.pauses = 0;
        self.asked.clear();
        self.state = State::Settled { raise_at: now + RAISE_INTERVAL };
    }

    /// Takes the news that a datagram of that length left.
    pub fn sent(&mut self, id: ProbeId, len: u16) {
        self.asked.push((id, len));
    }

    /// Takes the answer to one of the datagrams. Returns whether it was one.
    pub fn handle_pong(&mut self, now: Instant, id: ProbeId) -> bool {
        let Some(at) = self.asked.iter().position(|(asked, _)| *asked == id) else { return false };
        let (_, len) = self.asked.swap_remove(at);
        match self.state {
            State::Confirming { raise_at, .. } if Some(len) == self.known => {
                self.asked.clear();
                self.state = State::Settled { raise_at };
            }
            State::Longest(_) | State::All { .. } | State::Confirming { .. } => {
                self.answered = self.answered.max(len);
                if self.answered == self.wanted {
                    self.settle(now);
                }
            }
            State::Idle | State::Pending(_) | State::Settled { .. } => {}
        }
        true
    }

    /// When `handle_timeout` is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle => None,
            State::Pending(at)
            | State::Longest(at)
            | State::All { until: at, .. }
            | State::Settled { raise_at: at }
            | State::Confirming { until: at, .. } => Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    const LEAST: u16 = 1124;
    const WANTED: u16 = 1476;
    const RTT: Duration = Duration::from_millis(20);

    /// A path that takes so much, and the search over it; every datagram that fits is answered.
    struct Lab {
        search: MtuSearch,
        takes: u16,
        is_dead: bool,
        now: Instant,
        ids: u64,
        /// Each length that was asked, and when.
        asked: Vec<(Instant, u16)>,
    }

    impl Lab {
        fn new(takes: u16) -> Self {
            let mut search = MtuSearch::default();
            search.follow(Instant::ZERO, Some(SocketAddr::from(([192, 0, 2, 1], 4647)).into()), (LEAST, WANTED));
            Self { search, takes, is_dead: false, now: Instant::ZERO, ids: 0, asked: Vec::new() }
        }

        /// Goes from deadline to deadline for so long; answers come after a round trip.
        fn run(&mut self, span: Duration) {
            let end = self.now + span;
            let mut answers: Vec<(Instant, ProbeId)> = Vec::new();
            loop {
                let next = answers.iter().map(|(at, _)| *at).chain(self.search.poll_timeout()).min();
                let Some(next) = next.filter(|next| *next <= end) else { break };
                self.now = self.now.max(next);
                let arrived: Vec<_> = answers.extract_if(.., |(at, _)| *at <= next).collect();
                for (at, id) in arrived {
                    assert!(self.search.handle_pong(at, id));
                }
                for len in self.search.handle_timeout(self.now, Some(RTT)) {
                    self.ids += 1;
                    self.search.sent(ProbeId(self.ids), len);
                    self.asked.push((self.now, len));
                    if len <= self.takes && !self.is_dead {
                        answers.push((self.now + RTT, ProbeId(self.ids)));
                    }
                }
            }
            self.now = end;
        }
    }

    #[test]
    fn what_every_path_of_today_takes_is_known_after_one_round_trip() {
        let mut lab = Lab::new(1500);
        assert_eq!(lab.search.mtu(), PathMtu::Unknown);
        lab.run(RTT);
        assert_eq!(lab.search.mtu(), PathMtu::Known(WANTED));
        assert_eq!(lab.asked, [(Instant::ZERO, WANTED)]);
    }

    #[test]
    fn a_narrower_path_is_measured_within_a_second_and_nothing_is_claimed_before() {
        for takes in [LEAST, 1200, 1280, 1420, 1475] {
            let mut lab = Lab::new(takes);
            lab.run(3 * (3 * RTT + PATIENCE) - Duration::from_millis(1));
            assert_eq!(lab.search.mtu(), PathMtu::Unknown, "{takes}");
            lab.run(Duration::from_millis(1));
            let expected = USUAL.into_iter().filter(|len| *len <= takes).max().unwrap_or(LEAST);
            assert_eq!(lab.search.mtu(), PathMtu::Known(expected), "{takes}");
            assert!(lab.asked.len() <= 2 * USUAL.len() + 2);
        }
    }

    #[test]
    fn a_dead_path_is_not_taken_for_a_narrow_one_and_is_asked_less_and_less() {
        let mut lab = Lab::new(1500);
        lab.is_dead = true;
        lab.run(Duration::from_mins(10));
        assert_eq!(lab.search.mtu(), PathMtu::Unknown);
        let searches = lab.asked.windows(2).filter(|pair| pair[1].0 > pair[0].0 && pair[1].1 == WANTED).count();
        assert!((10..20).contains(&searches), "{searches}");
        lab.is_dead = false;
        lab.run(PAUSES[1] + Duration::from_secs(1));
        assert_eq!(lab.search.mtu(), PathMtu::Known(WANTED));
    }

    #[test]
    fn a_path_that_becomes_narrow_is_noticed_when_only_what_is_short_is_answered() {
        let mut lab = Lab::new(1500);
        lab.run(Duration::from_secs(10));
        lab.takes = 1280;
        lab.search.suspect(lab.now);
        lab.run(3 * (3 * RTT + PATIENCE));
        assert_eq!(lab.search.mtu(), PathMtu::Unknown, "so that what is long leaves in parts");
        lab.run(Duration::from_secs(1));
        assert_eq!(lab.search.mtu(), PathMtu::Known(1280));
        lab.takes = 1500;
        for _ in 0..41 {
            lab.search.suspect(lab.now);
            lab.run(Duration::from_secs(15));
        }
        assert_eq!(lab.search.mtu(), PathMtu::Known(WANTED), "and what is longer is tried again");
    }

    #[test]
    fn loss_alone_makes_no_path_narrow() {
        let mut lab = Lab::new(1500);
        lab.run(Duration::from_secs(10));
        let asked = lab.asked.len();
        for _ in 0..10 {
            lab.search.suspect(lab.now);
            lab.search.suspect(lab.now);
        }
        lab.run(Duration::from_millis(500));
        assert_eq!(lab.asked.len(), asked + 2, "once a second, beside the shortest");
        assert_eq!(lab.search.mtu(), PathMtu::Known(WANTED));
        lab.is_dead = true;
        lab.now = lab.now + Duration::from_secs(1);
        lab.search.suspect(lab.now);
        lab.run(Duration::from_secs(5));
        assert_eq!(lab.search.mtu(), PathMtu::Known(WANTED), "a dead path says nothing of its length");
        assert!(lab.search.asked.is_empty(), "and nothing is kept of what was asked in vain");
    }

    #[test]
    fn a_peers_questions_have_this_end_ask_as_well_but_not_for_ever() {
        let mut lab = Lab::new(1500);
        lab.run(Duration::from_secs(10));
        let asked = lab.asked.len();
        for _ in 0..99 {
            lab.search.note_question(lab.now);
            lab.run(Duration::from_millis(100));
        }
        assert_eq!(lab.asked.len(), asked + 4, "what is in use and the shortest, twice in ten seconds");
        lab.takes = 1280;
        lab.run(Duration::from_secs(5));
        lab.search.note_question(lab.now);
        lab.run(Duration::from_secs(1));
        assert_eq!(lab.search.mtu(), PathMtu::Known(1280));
    }

    #[test]
    fn another_path_is_measured_anew() {
        let mut lab = Lab::new(1500);
        lab.run(RTT);
        let other = SocketAddr::from(([192, 0, 2, 2], 4647)).into();
        lab.search.follow(lab.now, Some(other), (LEAST, WANTED));
        assert_eq!(lab.search.mtu(), PathMtu::Unknown);
        lab.search.follow(lab.now, Some(other), (LEAST, WANTED));
        lab.run(RTT);
        assert_eq!(lab.search.mtu(), PathMtu::Known(WANTED));
        lab.search.follow(lab.now, None, (LEAST, WANTED));
        assert_eq!((lab.search.mtu(), lab.search.poll_timeout()), (PathMtu::Unknown, None));
    }
}
