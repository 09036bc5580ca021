//! Where this node can be found: what the host says and what others see.

use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::path::Surroundings;
use crate::path::candidate::is_private;
use crate::time::Instant;
use crate::wire::control::{MAX_RECORD_ENDPOINTS, NatKind};
use crate::wire::prefix::Prefix;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// How often the choice of neighbours is looked at without a reason.
const REVIEW_INTERVAL: Duration = Duration::from_secs(10);

/// How many members have to come unasked before a node counts as one that others reach.
const CALLERS_NEEDED: usize = 2;

/// How often a change of the home relays makes the record anew at most.
const HOMES_INTERVAL: Duration = Duration::from_secs(30);

/// Endpoints that are remembered as open.
const MAX_OPEN: usize = 8;

/// Addresses that peers saw this node at; more come from a symmetric NAT, and are of no use.
const MAX_OBSERVED: usize = 4;

/// Members whose word on that is kept; when full, whoever said something new last gives way.
const MAX_OBSERVERS: usize = 64;

/// How long an observed address waits for others before the record is made anew.
const OBSERVED_DELAY: Duration = Duration::from_secs(1);

/// How often what was observed alone makes the record anew: everybody gets it, and pongs come as fast as their sender likes.
const OBSERVED_INTERVAL: Duration = Duration::from_secs(10);

/// How long a member that starts anew says nothing of where it is, unless it is at home at a relay before: a record without one would have
/// others knock at a NAT that lets nobody in.
const FIRST_RECORD: Duration = Duration::from_secs(3);

/// Where the host is on the underlay.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Underlay {
    /// The endpoints that it has.
    pub endpoints: Vec<SocketAddr>,
    /// The prefixes that its interfaces are connected to.
    pub connected: Vec<Prefix>,
}

/// Own endpoints and the clock of the neighbourhood.
pub(super) struct Reach {
    local: Vec<SocketAddr>,
    connected: Vec<Prefix>,
    /// Where members with a session saw this node last: one word each, what was said first in front.
    observed: Vec<(TransportKey, SocketAddr)>,
    /// Where those saw it last that have a second ear, at that.
    observed_aside: Vec<(TransportKey, SocketAddr)>,
    /// What the newest record says.
    published: Vec<SocketAddr>,
    review_at: Instant,
    /// When a record with what was observed since the last one is due.
    publish_at: Option<Instant>,
    /// When there last was such a record.
    observed_published: Option<Instant>,
    /// Who came unasked since the host is where it is: one alone may lie in wait behind the same NAT.
    callers: BTreeSet<NodeId>,
    /// Whether enough did.
    is_reachable: bool,
    /// Public endpoints of the host at which enough did before, in this run or an earlier one; the latest last.
    open: Vec<SocketAddr>,
    /// When a change of the home relays was last told.
    homes_told: Option<Instant>,
    /// Until then the first record waits for a relay.
    quiet_until: Option<Instant>,
}

impl Reach {
    pub(super) fn new() -> Self {
        Self {
            local: Vec::new(),
            connected: Vec::new(),
            observed: Vec::new(),
            observed_aside: Vec::new(),
            published: Vec::new(),
            review_at: Instant::ZERO,
            publish_at: None,
            observed_published: None,
            callers: BTreeSet::new(),
            is_reachable: false,
            open: Vec::new(),
            homes_told: None,
            quiet_until: None,
        }
    }

    /// Takes the news that the node is a member that starts anew.
    pub(super) fn start_anew(&mut self, now: Instant) {
        self.quiet_until = Some(now + FIRST_RECORD);
    }

    /// Says whether others reach this node without its asking.
    pub(super) fn is_reachable(&self) -> bool {
        self.is_reachable
    }

    /// Says whether relays are to be kept and named, to be reached through: also where others came unasked in an earlier run alone, because
    /// a firewall may have been closed since.
    pub(super) fn needs_relays(&self) -> bool {
        !self.is_reachable || self.callers.is_empty()
    }

    /// Takes who came unasked, and to which of this node's endpoints: others may come as well, and through this node to others. Of IPv4, where
    /// the host has it: a way in over IPv6 alone is none for those without. Returns whether more is known of that now.
    pub(super) fn take_caller(&mut self, by: NodeId, endpoint: SocketAddr) -> bool {
        let has_ipv4 = self.local.iter().any(SocketAddr::is_ipv4);
        let is_enough = self.callers.len() >= CALLERS_NEEDED;
        if is_enough || has_ipv4 && !endpoint.ip().to_canonical().is_ipv4() {
            return false;
        }
        let before = (self.is_reachable, self.needs_relays());
        self.callers.insert(by);
        if self.callers.len() >= CALLERS_NEEDED {
            self.is_reachable = true;
            self.public_endpoints().collect::<Vec<_>>().into_iter().for_each(|endpoint| self.note_open(endpoint));
        }
        before != (self.is_reachable, self.needs_relays())
    }

    /// The host's endpoints that are nobody else's, of IPv4 where it has any: whoever reached it there before does so again.
    fn public_endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        let has_ipv4 = self.local.iter().any(SocketAddr::is_ipv4);
        self.local.iter().copied().filter(move |it| it.is_ipv4() == has_ipv4 && !is_private(it.ip()))
    }

    /// Takes that others reached this node unasked at an endpoint, in an earlier run: where it still has it, they do so now. One that starts
    /// anew calls others first, and nobody would come unasked for a long time.
    pub(super) fn note_open(&mut self, endpoint: SocketAddr) {
        self.open.retain(|it| *it != endpoint);
        if self.open.len() >= MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push(endpoint);
        self.is_reachable |= self.is_open();
    }

    /// The endpoints to be known in the next run.
    pub(super) fn open(&self) -> impl Iterator<Item = SocketAddr> {
        self.open.iter().copied()
    }

    fn is_open(&self) -> bool {
        self.public_endpoints().any(|endpoint| self.open.contains(&endpoint))
    }

    /// Says whether the first record waits for a relay.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet_until.is_some()
    }

    /// Says whether a record may be made now; else it is due as soon as it may.
    pub(super) fn may_publish(&mut self, now: Instant, has_home: bool) -> bool {
        let quiet_until = self.quiet_until.filter(|until| now < *until && !has_home && !self.is_reachable);
        self.quiet_until = quiet_until;
        self.publish_at = quiet_until.or(self.publish_at);
        quiet_until.is_none()
    }

    /// The endpoints that the host has.
    pub(super) fn local(&self) -> &[SocketAddr] {
        &self.local
    }

    /// Says, once in a while, that the choice of neighbours is to be looked at.
    pub(super) fn take_review(&mut self, now: Instant) -> bool {
        let is_due = now >= self.review_at;
        if is_due {
            self.review_at = now + REVIEW_INTERVAL;
        }
        is_due
    }

    /// Says whether a change of the home relays may make the record anew; the first choice always does. Everybody hears of it: a relay that comes
    /// and goes makes few records.
    pub(super) fn take_homes_turn(&mut self, now: Instant, is_first: bool) -> bool {
        let is_due = self.homes_told.is_none_or(|at| now.saturating_since(at) >= HOMES_INTERVAL);
        if is_first || is_due {
            self.homes_told = Some(now);
        }
        is_first || is_due
    }

    /// Where members with a session saw this node last.
    pub(super) fn observed(&self) -> &[(TransportKey, SocketAddr)] {
        &self.observed
    }

    /// How the NAT in front chooses endpoints, by what members see: of IPv4, where that is what NATs are for.
    pub(super) fn nat(&self) -> NatKind {
        let seen: Vec<_> = self.observed.iter().filter(|(_, seen)| seen.is_ipv4()).collect();
        let is_public = |local: &SocketAddr| local.is_ipv4() && !is_private(local.ip());
        match &seen[..] {
            [] if self.local.iter().any(is_public) && self.is_reachable => NatKind::None,
            // The only word there is counts as a guess: a wrong one costs a search for ports, or leaves it out.
            [(only, seen)] if !self.local.iter().any(is_public) => match self.observed_aside(only) {
                Some(aside) if aside == *seen => NatKind::Independent,
                Some(_) => NatKind::Dependent,
                None => NatKind::Undetermined,
            },
            [] | [_] => NatKind::Unknown,
            // One liar, or one who saw an endpoint of a moment ago, does not make a NAT dependent.
            many if many.iter().any(|(_, seen)| many.iter().filter(|(_, other)| other == seen).count() > 1) => {
                NatKind::Independent
            }
            _ => NatKind::Dependent,
        }
    }

    /// Takes where the host is. Returns whether its endpoints changed.
    pub(super) fn set_local(&mut self, underlay: Underlay) -> bool {
        let Underlay { endpoints, connected } = underlay;
        self.connected = connected;
        let changed = self.local != endpoints;
        if changed {
            self.callers.clear();
            self.observed.clear();
            self.observed_aside.clear();
            self.local = endpoints;
            self.is_reachable = self.is_open();
        }
        changed
    }

    /// Takes where a member saw this node: its latest word replaces the one before, so that a liar has one vote. Returns whether it is news.
    pub(super) fn observe(&mut self, now: Instant, observer: TransportKey, endpoint: SocketAddr) -> bool {
        if self.observed.contains(&(observer, endpoint)) {
            return false;
        }
        self.forget_observer(&observer);
        if !self.local.contains(&endpoint) {
            for (gone, _) in self.observed.split_off((MAX_OBSERVERS - 1).min(self.observed.len())) {
                self.observed_aside.retain(|(other, _)| *other != gone);
            }
            self.observed.push((observer, endpoint));
        }
        if self.endpoints().any(|endpoint| !self.published.contains(&endpoint)) {
            self.publish_soon(now);
        }
        true
    }

    /// Takes where a member saw this node with its second ear. Returns whether the kind of the NAT is another one for that.
    pub(super) fn observe_aside(&mut self, now: Instant, observer: TransportKey, endpoint: SocketAddr) -> bool {
        let before = self.nat();
        self.observed_aside.retain(|(other, _)| *other != observer);
        if self.observed.iter().any(|(other, _)| *other == observer) {
            self.observed_aside.push((observer, endpoint));
        }
        let is_news = self.nat() != before;
        if is_news {
            self.publish_soon(now);
        }
        is_news
    }

    fn observed_aside(&self, observer: &TransportKey) -> Option<SocketAddr> {
        self.observed_aside.iter().find(|(other, _)| other == observer).map(|(_, endpoint)| *endpoint)
    }

    fn publish_soon(&mut self, now: Instant) {
        let earliest = self.observed_published.map_or(now, |at| at + OBSERVED_INTERVAL);
        self.publish_at.get_or_insert(earliest.max(now + OBSERVED_DELAY));
    }

    /// The last session with a peer ended: where it saw this node says nothing of now.
    pub(super) fn forget_observer(&mut self, observer: &TransportKey) {
        self.observed.retain(|(other, _)| other != observer);
        // Of another moment, it says nothing beside the next word.
        self.observed_aside.retain(|(other, _)| other != observer);
    }

    /// The addresses that most members saw; of those that equally many saw, the ones that were named first.
    fn most_observed(&self) -> Vec<SocketAddr> {
        let mut counted: Vec<(SocketAddr, usize)> = Vec::new();
        for (_, endpoint) in &self.observed {
            match counted.iter_mut().find(|(other, _)| other == endpoint) {
                Some((_, count)) => *count += 1,
                None => counted.push((*endpoint, 1)),
            }
        }
        counted.sort_by_key(|(_, count)| Reverse(*count));
        counted.into_iter().map(|(endpoint, _)| endpoint).take(MAX_OBSERVED).collect()
    }

    /// Says, once, whether a record with what was observed since the last one is due.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.publish_at.take_if(|at| now >= *at).is_some();
        if is_due {
            self.observed_published = Some(now);
        }
        is_due
    }

    /// The endpoints for a record that is made now.
    pub(super) fn publish(&mut self) -> Vec<SocketAddr> {
        self.publish_at = None;
        self.published = self.endpoints().collect();
        self.published.iter().copied().take(MAX_RECORD_ENDPOINTS).collect()
    }

    /// By what private addresses of others are judged.
    pub(super) fn surroundings(&self) -> Surroundings {
        let addresses = self.endpoints().map(|endpoint| endpoint.ip().to_canonical());
        Surroundings { connected: self.connected.clone(), public: addresses.filter(|ip| !is_private(*ip)).collect() }
    }

    /// Own endpoints, the host's before those that others saw.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        self.local.iter().copied().chain(self.most_observed())
    }

    /// Makes the next review come at once.
    pub(super) fn hurry(&mut self) {
        self.review_at = Instant::ZERO;
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.publish_at.map_or(self.review_at, |at| at.min(self.review_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], port))
    }

    fn observer(seed: u8) -> TransportKey {
        TransportKey([seed; 32])
    }

    fn seconds(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_member_that_names_another_address_each_second_displaces_no_true_one_and_makes_few_records() {
        let mut reach = Reach::new();
        let mut records = Vec::new();
        for second in 1..=100 {
            reach.observe(seconds(second), observer(1), endpoint(1000 + second as u16));
            if second == 2 {
                reach.observe(seconds(second), observer(2), endpoint(7));
            }
            if reach.take_due(seconds(second)) {
                records.push((second, reach.publish()));
            }
        }
        assert!(reach.endpoints().any(|it| it == endpoint(7)));
        assert!(records.iter().all(|(_, endpoints)| endpoints.contains(&endpoint(7)) && endpoints.len() == 2));
        assert_eq!(records[0].0, 2, "the first one is fast");
        assert!((9..=10).contains(&records.len()), "{records:?}");
    }

    #[test]
    fn where_others_came_unasked_before_they_do_again_but_not_at_an_address_that_anybody_has() {
        let at = |endpoint: SocketAddr| Underlay { endpoints: vec![endpoint], connected: Vec::new() };
        let private = SocketAddr::from(([192, 168, 1, 2], 4647));
        let mut reach = Reach::new();
        for here in [endpoint(4647), private] {
            reach.set_local(at(here));
            assert!(!reach.is_reachable());
            for caller in 1..=2 {
                reach.take_caller(NodeId([caller; 32]), here);
            }
            assert!(reach.is_reachable());
        }
        assert_eq!(reach.open().collect::<Vec<_>>(), [endpoint(4647)]);
        reach.set_local(at(endpoint(4647)));
        assert!(reach.is_reachable(), "here again");
        reach.set_local(at(private));
        assert!(!reach.is_reachable(), "whose network is this?");

        let mut next = Reach::new();
        next.set_local(at(endpoint(4647)));
        next.note_open(endpoint(4647));
        assert!(next.is_reachable() && next.needs_relays(), "in the next run, as far as it knows");
        assert!(next.take_caller(NodeId([1; 32]), endpoint(9)) && !next.needs_relays(), "so it is still");
        for port in 0..100 {
            next.note_open(endpoint(port));
        }
        assert_eq!(next.open().count(), MAX_OPEN);
    }

    #[test]
    fn what_most_members_see_counts_and_of_single_words_the_first() {
        let mut reach = Reach::new();
        for seed in 1..=11 {
            let seen = if seed < 10 { u16::from(seed) } else { 77 };
            reach.observe(seconds(1), observer(seed), endpoint(seen));
        }
        let observed = |reach: &Reach| reach.endpoints().map(|it| it.port()).collect::<Vec<_>>();
        assert_eq!(observed(&reach), [77, 1, 2, 3]);
        reach.forget_observer(&observer(1));
        assert_eq!(observed(&reach), [77, 2, 3, 4]);
        for seed in 12..=255 {
            reach.observe(seconds(3), observer(seed), endpoint(seed.into()));
            assert!(reach.observed.len() <= MAX_OBSERVERS);
        }
        assert_eq!(observed(&reach), [77, 2, 3, 4]);
        let moved = Underlay { endpoints: vec![endpoint(2)], connected: Vec::new() };
        assert!(reach.set_local(moved));
        assert_eq!(observed(&reach), [2], "elsewhere nothing of it holds");
    }

    #[test]
    fn a_single_member_that_sees_two_conversations_tells_the_kind_of_the_nat_and_has_one_voice_among_several() {
        let mut reach = Reach::new();
        reach.observe(seconds(1), observer(1), endpoint(1));
        assert_eq!(reach.nat(), NatKind::Undetermined);
        assert!(reach.observe_aside(seconds(1), observer(1), endpoint(9)));
        assert_eq!(reach.nat(), NatKind::Dependent);
        assert!(reach.take_due(seconds(2)), "everybody is to know");
        assert!(reach.observe_aside(seconds(3), observer(1), endpoint(1)));
        assert_eq!(reach.nat(), NatKind::Independent);
        // What it saw with one ear at another time says nothing.
        reach.observe(seconds(4), observer(1), endpoint(2));
        assert_eq!(reach.nat(), NatKind::Undetermined);
        assert!(!reach.observe_aside(seconds(5), observer(2), endpoint(2)), "nor who does not see this node otherwise");
        assert_eq!(reach.nat(), NatKind::Undetermined);
        reach.observe_aside(seconds(5), observer(1), endpoint(9));
        reach.observe(seconds(6), observer(2), endpoint(3));
        reach.observe(seconds(6), observer(3), endpoint(3));
        assert_eq!(reach.nat(), NatKind::Independent, "two say the same, whatever a third one makes up");
        reach.forget_observer(&observer(1));
        assert!(reach.observed_aside.is_empty());
    }

    #[test]
    fn an_observer_that_comes_again_with_the_same_word_makes_no_record() {
        let mut reach = Reach::new();
        reach.observe(seconds(1), observer(1), endpoint(1));
        assert!(reach.take_due(seconds(2)));
        reach.publish();
        reach.forget_observer(&observer(1));
        reach.observe(seconds(60), observer(1), endpoint(1));
        assert!(!reach.take_due(seconds(100)));
    }
}
