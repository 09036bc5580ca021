//! What is due with the DHT, and when: nothing unless it is wanted, and seldom enough for strangers' machines.

use crate::crypto::identity::NodeId;
use crate::time::{Instant, UnixMillis};
use crate::wire::control::NatKind;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Members that are looked up at the same time: for each, 20 strangers and more get two datagrams.
pub const MAX_AT_ONCE: usize = 3;

/// Members whose last search is remembered. When as many are looked for, one more waits until one of them is found, or is not looked for.
pub const MAX_SEARCHES: usize = 64;

/// How long whoever is looked for has to be found without the DHT: longer than an attempt takes.
const PATIENCE: Duration = Duration::from_secs(8);

/// How often one member is looked up: after a minute, then doubling while it is not found.
const FIRST_AGAIN: Duration = Duration::from_secs(60);
const LONGEST_AGAIN: Duration = Duration::from_secs(15 * 60);

/// Attempts to reach a member are a minute apart at most: whoever had none for so long is not looked for any more.
const SOUGHT_FOR: Duration = Duration::from_secs(180);

/// How long an answer is waited for that the shell owes.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// What changes at the same moment is stored at once.
const SETTLE: Duration = Duration::from_secs(1);

/// How often something is stored at most.
const STORE_INTERVAL: Duration = Duration::from_secs(60);

/// How often the same is stored again: this, and at random up to as long again. The DHT forgets within two hours.
const STORE_AGAIN: Duration = Duration::from_secs(30 * 60);

/// What others need to reach this node: if it changed, it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Whereabouts {
    /// Where it is.
    pub endpoints: Vec<SocketAddr>,
    /// Through whom it is reached.
    pub homes: Vec<NodeId>,
    /// The kind of its NAT.
    pub nat: NatKind,
}

/// What is due, and what was done.
#[derive(Default)]
pub struct Plan {
    is_on: bool,
    stored: Whereabouts,
    stored_at: Option<Instant>,
    store_at: Option<Instant>,
    failures: u32,
    sequence: i64,
    searches: BTreeMap<NodeId, Search>,
}

struct Search {
    /// When the member was last tried in vain.
    sought_at: Instant,
    /// When it may be looked up.
    due: Instant,
    times: u32,
    /// Since when the DHT is asked.
    running_since: Option<Instant>,
}

impl Plan {
    /// Begins, or ends and forgets everything.
    pub fn set_on(&mut self, is_on: bool) {
        if self.is_on != is_on {
            *self = Self { is_on, sequence: self.sequence, ..Self::default() };
        }
    }

    /// Takes where this node is by its newest record.
    pub fn note(&mut self, now: Instant, whereabouts: Whereabouts) {
        let can_be_found = !whereabouts.endpoints.is_empty() || !whereabouts.homes.is_empty();
        if self.is_on && can_be_found && whereabouts != self.stored {
            self.stored = whereabouts;
            let earliest = self.stored_at.map_or(now, |at| at + STORE_INTERVAL).max(now + SETTLE);
            self.store_at = Some(self.store_at.map_or(earliest, |at| at.min(earliest)));
        }
    }

    /// Says, once, whether the newest record is to be stored; `luck` says when it is to be stored again.
    pub fn take_publication(&mut self, now: Instant, luck: u64) -> bool {
        let is_due = self.store_at.is_some_and(|at| now >= at);
        if is_due {
            self.stored_at = Some(now);
            self.store_at = Some(now + STORE_AGAIN + Duration::from_secs(luck % STORE_AGAIN.as_secs()));
        }
        is_due
    }

    /// The number of the next item.
    pub fn next_sequence(&mut self, wall: UnixMillis) -> i64 {
        let seconds = i64::try_from(wall.0 / 1000).unwrap_or(i64::MAX);
        self.sequence = seconds.max(self.sequence.saturating_add(1));
        self.sequence
    }

    /// The item is stored.
    pub fn stored(&mut self) {
        self.failures = 0;
    }

    /// The item is not stored: it is tried again, ever less often.
    pub fn not_stored(&mut self, now: Instant) {
        if let Some(at) = &mut self.store_at {
            *at = (*at).min(now + again(self.failures));
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// A member was tried just now, and nobody knows yet whether it is there.
    pub fn seek(&mut self, now: Instant, id: NodeId) {
        if !self.is_on {
            return;
        }
        if let Some(search) = self.searches.get_mut(&id) {
            search.sought_at = now;
            return;
        }
        if self.searches.len() >= MAX_SEARCHES {
            self.searches.retain(|_, search| !search.is_over(now));
        }
        if self.searches.len() < MAX_SEARCHES {
            let search = Search { sought_at: now, due: now + PATIENCE, times: 0, running_since: None };
            self.searches.insert(id, search);
        }
    }

    /// This host is elsewhere: what led nowhere before is tried again soon.
    pub fn hurry(&mut self, now: Instant) {
        for search in self.searches.values_mut().filter(|search| search.times > 0) {
            search.due = search.due.min(now + FIRST_AGAIN);
            search.times = 1;
        }
    }

    /// The members to look up now: of those whose time has come the ones that `is_sought` still.
    pub fn take_due(&mut self, now: Instant, is_sought: impl Fn(&NodeId) -> bool) -> Vec<NodeId> {
        let is_late = |since: Instant| now.saturating_since(since) >= ANSWER_WITHIN;
        for search in self.searches.values_mut() {
            search.running_since = search.running_since.filter(|since| !is_late(*since));
        }
        self.searches.retain(|id, search| {
            let is_due = search.running_since.is_none() && now >= search.due;
            !is_due || !search.is_over(now) && is_sought(id)
        });
        let running = self.searches.values().filter(|search| search.running_since.is_some()).count();
        let mut due: Vec<_> = self.searches.iter_mut().filter(|(_, search)| search.is_due(now)).collect();
        due.sort_by_key(|(_, search)| search.due);
        let mut begun = Vec::new();
        for (id, search) in due.into_iter().take(MAX_AT_ONCE.saturating_sub(running)) {
            search.running_since = Some(now);
            search.due = now + again(search.times);
            search.times = search.times.saturating_add(1);
            begun.push(*id);
        }
        begun
    }

    /// The DHT has no more to say of a member.
    pub fn looked(&mut self, id: &NodeId) {
        if let Some(search) = self.searches.get_mut(id) {
            search.running_since = None;
        }
    }

    /// Forgets who are no members any more.
    pub fn forget(&mut self, removed: &[NodeId]) {
        self.searches.retain(|id, _| !removed.contains(id));
    }

    /// When something is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let running = || self.searches.values().filter_map(|search| search.running_since);
        let has_room = running().count() < MAX_AT_ONCE;
        let waiting = self.searches.values().filter(|search| has_room && search.running_since.is_none());
        let late = running().map(|since| since + ANSWER_WITHIN).min();
        waiting.map(|search| search.due).chain(late).chain(self.store_at).min()
    }
}

impl Search {
    fn is_due(&self, now: Instant) -> bool {
        self.running_since.is_none() && now >= self.due
    }

    /// Nobody looks for the member any more.
    fn is_over(&self, now: Instant) -> bool {
        self.running_since.is_none() && now.saturating_since(self.sought_at) >= SOUGHT_FOR
    }
}

/// How long is waited after so many times.
fn again(times: u32) -> Duration {
    FIRST_AGAIN.saturating_mul(1 << times.min(4)).min(LONGEST_AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn id(number: u16) -> NodeId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_le_bytes());
        NodeId(id)
    }

    fn plan() -> Plan {
        let mut plan = Plan::default();
        plan.set_on(true);
        plan
    }

    fn seen_at(port: u16) -> Whereabouts {
        Whereabouts { endpoints: vec![([198, 51, 100, 1], port).into()], ..Whereabouts::default() }
    }

    /// The seconds at which something is stored, when `note` is called each second.
    fn stored(plan: &mut Plan, seconds: std::ops::Range<u64>, mut note: impl FnMut(u64) -> Whereabouts) -> Vec<u64> {
        let mut stored = Vec::new();
        for second in seconds {
            plan.note(at(second), note(second));
            if plan.take_publication(at(second), 7 * second) {
                stored.push(second);
            }
        }
        stored
    }

    /// The seconds at which members are looked up that are sought every ten seconds and never found.
    fn looked(plan: &mut Plan, members: &[NodeId], seconds: u64) -> Vec<(u64, NodeId)> {
        let mut looked = Vec::new();
        for second in 0..seconds {
            if second.is_multiple_of(10) {
                members.iter().for_each(|id| plan.seek(at(second), *id));
            }
            if plan.poll_timeout().is_some_and(|due| at(second) >= due) {
                let due = plan.take_due(at(second), |_| true);
                due.iter().for_each(|id| plan.looked(id));
                looked.extend(due.into_iter().map(|id| (second, id)));
            }
        }
        looked
    }

    #[test]
    fn nothing_is_stored_or_looked_up_unless_it_is_wanted() {
        let mut plan = Plan::default();
        assert_eq!(stored(&mut plan, 0..100, |_| seen_at(1)), [0; 0]);
        assert_eq!(looked(&mut plan, &[id(1)], 100), []);
        assert_eq!(plan.poll_timeout(), None);
        plan.set_on(true);
        assert_eq!(stored(&mut plan, 100..200, |_| seen_at(1)).len(), 1);
        plan.seek(at(200), id(1));
        plan.set_on(false);
        assert_eq!(plan.poll_timeout(), None);
    }

    #[test]
    fn what_changes_is_stored_once_a_minute_at_most_and_what_does_not_within_the_hour() {
        assert_eq!(stored(&mut plan(), 0..10, |second| seen_at(second as u16 / 4)), [1]);
        let restless = stored(&mut plan(), 0..601, |second| seen_at(second as u16));
        assert_eq!(restless, (0..=10).map(|minute| 1 + 60 * minute).take(10).collect::<Vec<_>>());
        let day = stored(&mut plan(), 0..86_400, |_| seen_at(1));
        assert!((24..=48).contains(&day.len()), "{}", day.len());
        assert!(day.windows(2).all(|pair| (1800..3600).contains(&(pair[1] - pair[0]))));
        let nowhere = stored(&mut plan(), 0..100, |_| Whereabouts::default());
        assert_eq!(nowhere, [0; 0], "who is nowhere has nothing to say");
    }

    #[test]
    fn what_nobody_stored_is_tried_again_ever_less_often() {
        let mut plan = plan();
        plan.note(at(0), seen_at(1));
        let mut tries = Vec::new();
        for second in 0..3600 {
            if plan.take_publication(at(second), 0) {
                tries.push(second);
                plan.not_stored(at(second));
            }
        }
        assert_eq!(tries, [1, 61, 181, 421, 901, 1801, 2701]);
        plan.stored();
        plan.not_stored(at(3601));
        assert!(plan.take_publication(at(3661), 0));
    }

    #[test]
    fn sequence_numbers_rise_whatever_the_clock_does() {
        let mut plan = plan();
        let of = |plan: &mut Plan, seconds: u64| plan.next_sequence(UnixMillis(seconds * 1000));
        assert_eq!([10, 10, 20, 5].map(|seconds| of(&mut plan, seconds)), [10, 11, 20, 21]);
        plan.set_on(false);
        plan.set_on(true);
        assert_eq!(of(&mut plan, 1), 22);
    }

    #[test]
    fn a_member_that_nobody_finds_is_looked_up_after_a_minute_and_then_ever_less_often() {
        let seconds: Vec<_> = looked(&mut plan(), &[id(1)], 4000).into_iter().map(|(second, _)| second).collect();
        assert_eq!(seconds, [8, 68, 188, 428, 908, 1808, 2708, 3608]);
    }

    #[test]
    fn who_is_found_or_not_looked_for_any_more_is_not_looked_up() {
        let mut plan = plan();
        plan.seek(at(0), id(1));
        assert_eq!(plan.take_due(at(8), |_| false), [], "it answers");
        assert_eq!(plan.poll_timeout(), None);
        plan.seek(at(10), id(1));
        assert_eq!(plan.take_due(at(18), |_| true), [id(1)]);
        plan.looked(&id(1));
        assert_eq!(plan.take_due(at(10 + 180), |_| true), [], "nobody tries it");
        assert_eq!(plan.poll_timeout(), None);
    }

    #[test]
    fn a_few_are_looked_up_at_the_same_time_and_the_others_have_their_turn() {
        let mut plan = plan();
        (0..10).for_each(|number| plan.seek(at(number), id(number as u16)));
        assert_eq!(plan.take_due(at(30), |_| true), [id(0), id(1), id(2)]);
        assert_eq!(plan.take_due(at(31), |_| true), []);
        assert_eq!(plan.poll_timeout(), Some(at(30) + ANSWER_WITHIN), "no loop spins while all are busy");
        plan.looked(&id(1));
        assert_eq!(plan.take_due(at(32), |_| true), [id(3)]);
        // The shell owes three answers and never gives them.
        assert_eq!(plan.take_due(at(152), |_| true), [id(4), id(5), id(6)]);
    }

    #[test]
    fn however_many_are_looked_for_the_memory_and_the_pace_are_bounded() {
        let mut plan = plan();
        let many: Vec<_> = (0..1000).map(id).collect();
        let looked = looked(&mut plan, &many, 600);
        assert!(plan.searches.len() <= MAX_SEARCHES);
        // At 8, 68, 188 and 428 s, those at least a second apart from each other that did not fit.
        assert!(looked.len() <= 4 * MAX_SEARCHES, "{}", looked.len());
        // Those that nobody looks for any more make room.
        plan.seek(at(2000), id(2000));
        assert!(plan.searches.contains_key(&id(2000)));
    }

    #[test]
    fn on_another_network_what_led_nowhere_is_tried_again_within_a_minute() {
        let mut plan = plan();
        looked(&mut plan, &[id(1)], 1000);
        plan.hurry(at(1000));
        plan.seek(at(1000), id(1));
        assert_eq!(plan.take_due(at(1059), |_| true), []);
        assert_eq!(plan.take_due(at(1060), |_| true), [id(1)]);
    }
}
