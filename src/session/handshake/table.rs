//! What a responder remembers of strangers, all of it bounded: half-open initiations, seen initiations, and how busy it is.

use super::HALF_OPEN_LIFETIME;
use super::noise::SymmetricState;
use crate::crypto::exchange::TransportKey;
use crate::policy::Admission;
use crate::session::cookie::{Origin, Source};
use crate::time::Instant;
use crate::wire::datagram::SessionIndex;
use crate::wire::handshake::{InitiationTag, KeyPart, MAC_LEN, Offer};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Half-open initiations of members. When full, a new one is refused: only members can fill it.
pub const MAX_HALF_OPEN: usize = 4096;
/// Half-open initiations of one member, or of one guest's [`Origin`]: four attempts fit into the life of the first only when it restarts.
pub const MAX_HALF_OPEN_PER_PEER: usize = 4;
/// Half-open initiations of guests, in a table of their own: strangers cannot crowd out members.
pub const MAX_HALF_OPEN_GUESTS: usize = 64;
/// Sources of one initiation: it is fired at many candidates. When full, the oldest one that sent only some parts is forgotten.
pub const MAX_SOURCES: usize = 16;
/// Initiations remembered as seen, in two generations. When one is full it ages early: what is forgotten costs a cookie or one key exchange.
pub const MAX_SEEN: usize = 65_536;
/// How long one generation of seen initiations collects.
pub const SEEN_GENERATION: Duration = Duration::from_secs(120);
/// Initiations per second above which a cookie is asked for before any key exchange.
pub const LOAD_THRESHOLD: u32 = 500;

/// Datagrams of an initiator's flight, as bits.
#[derive(Clone, Copy)]
pub(super) enum FlightPart {
    Initiation = 1,
    KeyPartA = 2,
    KeyPartB = 4,
}

const WHOLE_FLIGHT: u8 = 1 | 2 | 4;

/// What one source sent and got within one handshake.
struct SourceBudget {
    source: Source,
    received_len: usize,
    sent_len: usize,
    parts: u8,
    next_answer: usize,
}

/// An initiation that was accepted, until [`HALF_OPEN_LIFETIME`] after it came.
pub(super) struct HalfOpen {
    /// Who claims to send it; proved by `ss`.
    pub(super) admission: Admission,
    /// The initiator's session index.
    pub(super) sender: SessionIndex,
    /// The halves that opened.
    pub(super) key_parts: [Option<KeyPart>; 2],
    /// How far it is.
    pub(super) stage: Stage,
    /// Whence D1 came when it was accepted. Only a guest's is proved, by its cookie.
    pub(super) origin: Origin,
    sources: Vec<SourceBudget>,
}

/// How far an initiation is.
pub(super) enum Stage {
    /// Halves of the encapsulation key are missing.
    Waiting(Box<Waiting>),
    /// M2a and M2b, which answer duplicates as well, and the session that they made.
    Answered { answers: [Vec<u8>; 2], session: SessionIndex },
}

/// What D1 left behind for the answer.
pub(super) struct Waiting {
    pub(super) noise: SymmetricState,
    pub(super) ephemeral: TransportKey,
    pub(super) offer: Offer,
    pub(super) key_retired: bool,
}

impl HalfOpen {
    pub(super) fn new(admission: Admission, sender: SessionIndex, origin: Origin, waiting: Waiting) -> Self {
        let stage = Stage::Waiting(Box::new(waiting));
        Self { admission, sender, key_parts: [None, None], stage, origin, sources: Vec::new() }
    }

    /// Notes that `source` sent `len` bytes of this handshake.
    pub(super) fn credit(&mut self, source: Source, part: FlightPart, len: usize) {
        let budget = match self.sources.iter().position(|budget| budget.source == source) {
            Some(position) => &mut self.sources[position],
            None => {
                if self.sources.len() >= MAX_SOURCES {
                    // A source that sent only some parts got nothing, so forgetting it gives nobody bytes for free.
                    let Some(oldest) = self.sources.iter().position(|budget| budget.parts != WHOLE_FLIGHT) else {
                        return;
                    };
                    self.sources.remove(oldest);
                }
                self.sources.push(SourceBudget { source, received_len: 0, sent_len: 0, parts: 0, next_answer: 0 });
                self.sources.last_mut().expect("one was pushed")
            }
        };
        budget.received_len += len;
        budget.parts |= part as u8;
    }

    /// Takes the answers that `source` may have: all parts came from it, and it never gets more bytes than it sent.
    pub(super) fn take_answers(&mut self, source: Source) -> Vec<Vec<u8>> {
        let Stage::Answered { answers, .. } = &self.stage else { return Vec::new() };
        let mut taken = Vec::new();
        let complete = |budget: &&mut SourceBudget| budget.source == source && budget.parts == WHOLE_FLIGHT;
        let Some(budget) = self.sources.iter_mut().find(complete) else { return taken };
        // The halves take turns, so that a retransmission that lost a datagram still brings the half that is missing.
        while taken.len() < answers.len() {
            let answer = &answers[budget.next_answer];
            if budget.sent_len + answer.len() > budget.received_len {
                break;
            }
            budget.sent_len += answer.len();
            budget.next_answer = (budget.next_answer + 1) % answers.len();
            taken.push(answer.clone());
        }
        taken
    }
}

impl HalfOpen {
    /// Says whether its answer made this session.
    pub(super) fn made(&self, index: SessionIndex) -> bool {
        matches!(self.stage, Stage::Answered { session, .. } if session == index)
    }

    /// The only source that got answers; none when several did.
    pub(super) fn sole_answered(&self) -> Option<Source> {
        let mut answered = self.sources.iter().filter(|budget| budget.sent_len > 0);
        let sole = answered.next().map(|budget| budget.source);
        sole.filter(|_| answered.next().is_none())
    }
}

/// A bounded set of half-open initiations, the oldest first.
#[derive(Default)]
pub(super) struct HalfOpenTable {
    entries: BTreeMap<InitiationTag, HalfOpen>,
    expiries: VecDeque<(Instant, InitiationTag)>,
}

impl HalfOpenTable {
    pub(super) fn find(&mut self, tag: InitiationTag) -> Option<&mut HalfOpen> {
        self.entries.get_mut(&tag)
    }

    /// Adds an initiation that has no entry yet; the caller checked the table's bounds.
    pub(super) fn insert(&mut self, now: Instant, tag: InitiationTag, half_open: HalfOpen) -> &mut HalfOpen {
        self.expiries.push_back((now + HALF_OPEN_LIFETIME, tag));
        self.entries.entry(tag).or_insert(half_open)
    }

    pub(super) fn of_session(&self, index: SessionIndex) -> Option<&HalfOpen> {
        self.entries.values().find(|half_open| half_open.made(index))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn count(&self, which: impl Fn(&HalfOpen) -> bool) -> usize {
        self.entries.values().filter(|half_open| which(half_open)).count()
    }

    pub(super) fn retain(&mut self, which: impl Fn(&HalfOpen) -> bool) {
        self.entries.retain(|_, half_open| which(half_open));
        self.expiries.retain(|(_, tag)| self.entries.contains_key(tag));
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.front().map(|(at, _)| *at)
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((at, tag)) = self.expiries.front().copied() {
            if now < at {
                break;
            }
            self.expiries.pop_front();
            self.entries.remove(&tag);
        }
    }
}

/// What came of an initiation that was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It was answered with a cookie, and may come once more with it.
    CookieSent,
    /// It had its chance.
    Taken,
}

/// The initiations of the last two to four minutes, by their mac1.
#[derive(Default)]
pub(super) struct Seen {
    current: BTreeMap<[u8; MAC_LEN], Verdict>,
    previous: BTreeMap<[u8; MAC_LEN], Verdict>,
    rotates_at: Instant,
}

impl Seen {
    pub(super) fn verdict(&self, mac1: &[u8; MAC_LEN]) -> Option<Verdict> {
        self.current.get(mac1).or_else(|| self.previous.get(mac1)).copied()
    }

    /// The same of the initiation with this tag.
    pub(super) fn verdict_of(&self, tag: InitiationTag) -> Option<Verdict> {
        let [first, last] = [0, u8::MAX].map(|rest| {
            let mut mac1 = [rest; MAC_LEN];
            mac1[..tag.0.len()].copy_from_slice(&tag.0);
            mac1
        });
        let found = self.current.range(first..=last).next().or_else(|| self.previous.range(first..=last).next());
        found.map(|(_, verdict)| *verdict)
    }

    pub(super) fn insert(&mut self, now: Instant, mac1: [u8; MAC_LEN], verdict: Verdict) {
        self.rotate(now);
        if self.current.len() >= MAX_SEEN / 2 && !self.current.contains_key(&mac1) {
            self.age(now);
        }
        self.current.insert(mac1, verdict);
    }

    pub(super) fn rotate(&mut self, now: Instant) {
        if now >= self.rotates_at + SEEN_GENERATION {
            self.current.clear();
        }
        if now >= self.rotates_at {
            self.age(now);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.current.len() + self.previous.len()
    }

    fn age(&mut self, now: Instant) {
        self.previous = std::mem::take(&mut self.current);
        self.rotates_at = now + SEEN_GENERATION;
    }
}

/// Counts initiations per second.
#[derive(Default)]
pub(super) struct LoadMeter {
    second_began: Instant,
    count: u32,
    loaded_until: Instant,
}

impl LoadMeter {
    /// Counts one initiation.
    pub(super) fn count(&mut self, now: Instant) {
        const SECOND: Duration = Duration::from_secs(1);
        if now.saturating_since(self.second_began) >= SECOND {
            self.second_began = now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        if self.count > LOAD_THRESHOLD {
            // A second more, so that a steady flood finds no gap at the turn of each second.
            self.loaded_until = self.second_began + 2 * SECOND;
        }
    }

    /// Says whether cookies are asked for.
    pub(super) fn under_load(&self, now: Instant) -> bool {
        now < self.loaded_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn mac1(number: u32) -> [u8; MAC_LEN] {
        let mut mac1 = [0; MAC_LEN];
        mac1[..4].copy_from_slice(&number.to_le_bytes());
        mac1
    }

    #[test]
    fn an_initiation_is_remembered_for_two_generations() {
        let mut seen = Seen::default();
        seen.insert(after(10), mac1(1), Verdict::Taken);
        for (seconds, verdict) in
            [(129, Some(Verdict::Taken)), (130, Some(Verdict::Taken)), (249, Some(Verdict::Taken)), (250, None)]
        {
            seen.rotate(after(seconds));
            assert_eq!(seen.verdict(&mac1(1)), verdict, "{seconds} s");
        }
        seen.insert(after(260), mac1(2), Verdict::CookieSent);
        seen.rotate(after(260) + 2 * SEEN_GENERATION);
        assert_eq!(seen.len(), 0);
    }

    #[test]
    fn a_flood_ages_what_was_seen_and_grows_no_table() {
        let mut seen = Seen::default();
        for number in 0..3 * MAX_SEEN as u32 {
            seen.insert(after(1), mac1(number), Verdict::CookieSent);
            assert!(seen.len() <= MAX_SEEN);
        }
        assert_eq!(seen.verdict(&mac1(3 * MAX_SEEN as u32 - 1)), Some(Verdict::CookieSent));
        assert_eq!(seen.verdict(&mac1(0)), None);
    }

    #[test]
    fn a_later_verdict_replaces_the_earlier_one() {
        let mut seen = Seen::default();
        seen.insert(after(1), mac1(1), Verdict::CookieSent);
        seen.rotate(after(130));
        seen.insert(after(130), mac1(1), Verdict::Taken);
        assert_eq!(seen.verdict(&mac1(1)), Some(Verdict::Taken));
    }

    #[test]
    fn load_begins_above_the_threshold_and_ends_a_second_after_the_flood() {
        let mut load = LoadMeter::default();
        (0..LOAD_THRESHOLD).for_each(|_| load.count(after(10)));
        assert!(!load.under_load(after(10)));
        load.count(after(10));
        assert!(load.under_load(after(11)) && !load.under_load(after(12)));
        (0..LOAD_THRESHOLD).for_each(|_| load.count(after(20)));
        load.count(after(21));
        assert!(!load.under_load(after(21)));
    }
}
