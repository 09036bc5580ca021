//! Where this node can be found, and whom it keeps close.

use super::control::{BrokenReason, LinkEvent, LinkId, Service, Standing};
use super::gossip::{self, GossipMessage, GossipOutcome};
use super::peers::Context;
use super::{Node, NodeEvent};
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::path::candidate::is_private;
use crate::path::{CandidateSource, Surroundings, is_possible};
use crate::policy::Rights;
use crate::time::{Instant, Now};
use crate::wire::control::{MAX_RECORD_ENDPOINTS, NatKind, NodeRecord, SignedRecord};
use crate::wire::drops::DropReason;
use crate::wire::prefix::Prefix;
use rand_core::CryptoRng;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// How often the choice of neighbours is looked at without a reason.
const REVIEW_INTERVAL: Duration = Duration::from_secs(10);

/// Addresses that peers saw this node at; more come from a symmetric NAT, and are of no use.
const MAX_OBSERVED: usize = 4;

/// Members whose word on that is kept; when full, whoever said something new last gives way.
const MAX_OBSERVERS: usize = 64;

/// How long an observed address waits for others before the record is made anew.
const OBSERVED_DELAY: Duration = Duration::from_secs(1);

/// How often what was observed alone makes the record anew: everybody gets it, and pongs come as fast as their sender likes.
const OBSERVED_INTERVAL: Duration = Duration::from_secs(10);

/// Members that news goes to, the neighbours among them.
const MAX_PUSH: usize = 16;

/// How many members have to come unasked before a node counts as one that others reach.
const CALLERS_NEEDED: usize = 2;

/// How long a member that starts anew says nothing of where it is, unless it is at home at a relay before: a record without one would have
/// others knock at a NAT that lets nobody in.
const FIRST_RECORD: Duration = Duration::from_secs(3);

/// How often a change of the home relays makes the record anew at most.
const HOMES_INTERVAL: Duration = Duration::from_secs(30);

/// Where the host is on the underlay.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Underlay {
    /// The endpoints that it has.
    pub endpoints: Vec<SocketAddr>,
    /// The prefixes that its interfaces are connected to.
    pub connected: Vec<Prefix>,
}

/// How often one peer is told of the own head because its connections break: whoever resets them all is not heeded faster.
const GREETING_INTERVAL: Duration = Duration::from_secs(1);

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
    sequence: u64,
    review_at: Instant,
    /// When a record with what was observed since the last one is due.
    publish_at: Option<Instant>,
    /// When there last was such a record.
    observed_published: Option<Instant>,
    /// The relays that the newest record names.
    homes: Vec<NodeId>,
    /// Who came unasked since the host is where it is: one alone may lie in wait behind the same NAT.
    callers: BTreeSet<NodeId>,
    /// Whether enough did.
    is_reachable: bool,
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
            sequence: 0,
            review_at: Instant::ZERO,
            publish_at: None,
            observed_published: None,
            homes: Vec::new(),
            callers: BTreeSet::new(),
            is_reachable: false,
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

    /// Where members with a session saw this node last.
    pub(super) fn observed(&self) -> &[(TransportKey, SocketAddr)] {
        &self.observed
    }

    /// The relays that the newest record names.
    pub(super) fn homes(&self) -> &[NodeId] {
        &self.homes
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
            self.is_reachable = false;
            self.callers.clear();
            self.observed.clear();
            self.observed_aside.clear();
            self.local = endpoints;
        }
        changed
    }

    /// Takes where a member saw this node: its latest word replaces the one before, so that a liar has one vote. Returns whether it is news.
    fn observe(&mut self, now: Instant, observer: TransportKey, endpoint: SocketAddr) -> bool {
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
    fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.publish_at.take_if(|at| now >= *at).is_some();
        if is_due {
            self.observed_published = Some(now);
        }
        is_due
    }

    /// The endpoints for a record that is made now.
    fn publish(&mut self) -> Vec<SocketAddr> {
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

impl<R: CryptoRng> Node<R> {
    /// A session with a peer is confirmed both ways: streams open, and each side learns what it lacks.
    pub(super) fn handle_up(&mut self, now: Now, key: TransportKey, rights: Rights) {
        let is_guest = !self.has_standing() || rights.is_member() && self.peers.is_guest_at(&key);
        let standing = match (is_guest, self.is_host(&key)) {
            (false, _) => Standing::Peer(rights),
            // Whatever the half-synced ledger of a joiner says of its host: the host sees a guest.
            (true, true) => Standing::Host,
            (true, false) => Standing::Peer(Rights::Guest),
        };
        let is_new = !self.link.peers().any(|peer| peer == (LinkId(key), standing));
        if let Err(error) = self.link.attach(LinkId(key), standing) {
            tracing::info!(?key, %error, "a peer found no place");
            self.drops.count(DropReason::NoPlace);
            self.peers.dismiss(now, key);
            return;
        }
        // Each handshake has a timestamp: the own last one is no less to be stored than those of others.
        self.tell(NodeEvent::Remember);
        if !is_new {
            return;
        }
        self.greet(now, key);
        if rights.is_member() && !is_guest {
            for message in self.gossip.everything() {
                self.send_gossip(now, key, &message);
            }
            let probe = self.ping(now, key);
            tracing::debug!(?key, ?probe, "session up");
            self.relaying.seek_soon(now.instant);
        }
    }

    /// Says whether a peer may serve this node while this node is a guest: its ticket or its ledger names it, or it went there by itself.
    /// Whoever else comes to it is a stranger, who may know no more than the network's secret.
    pub(super) fn is_host(&self, key: &TransportKey) -> bool {
        let mut bootstrap = self.membership.invitation().into_iter().flat_map(|it| &it.bootstrap);
        bootstrap.any(|it| it.transport_key == *key)
            || self.policy.admit(key).rights() != Rights::Guest
            || self.peers.is_initiator(key)
    }

    fn greet(&mut self, now: Now, key: TransportKey) {
        self.greeted.insert(key, now.instant);
        self.ledger.handle_session(now, key);
    }

    /// A connection with a peer broke, and what it carried is gone. The ledger and gossip ask again by themselves in time; but a reset
    /// says that the peer started anew, and what it has missed since, a revocation perhaps, does not wait for that.
    pub(super) fn handle_broken(&mut self, now: Now, event: LinkEvent) {
        let LinkEvent::Broken { peer: LinkId(key), service, reason, .. } = event;
        let is_new = service == Service::Sync && reason == BrokenReason::Reset;
        let is_greeted = self.greeted.get(&key).is_some_and(|at| now.instant.saturating_since(*at) < GREETING_INTERVAL);
        if is_new && !is_greeted {
            self.greet(now, key);
        }
    }

    /// A member saw this node at an address that the host does not have: a NAT's. Others may reach it there.
    pub(super) fn handle_observed(&mut self, now: Now, key: TransportKey, endpoint: SocketAddr) {
        let is_member = self.policy.admit(&key).member().is_some();
        let is_possible = is_possible(&endpoint) && !self.routing.in_overlay(endpoint.ip().to_canonical());
        if is_member && is_possible && self.reach.observe(now.instant, key, endpoint) {
            self.peers.set_surroundings(self.reach.surroundings());
            self.tend_ears(now);
        }
    }

    /// A member came unasked: others may come as well, and through this node to others. Of IPv4, where the host has it: a way in over IPv6
    /// alone is none for those without.
    pub(super) fn handle_reached(&mut self, now: Now, by: NodeId, endpoint: SocketAddr) {
        let has_ipv4 = self.reach.local.iter().any(SocketAddr::is_ipv4);
        if has_ipv4 && !endpoint.ip().to_canonical().is_ipv4() {
            return;
        }
        let callers = &mut self.reach.callers;
        if callers.len() < CALLERS_NEEDED {
            callers.insert(by);
        }
        if callers.len() >= CALLERS_NEEDED && !self.reach.is_reachable {
            self.reach.is_reachable = true;
            tracing::debug!("others reach this node unasked");
            self.publish_record(now);
        }
    }

    /// Signs and spreads where this node is.
    pub(super) fn publish_record(&mut self, now: Now) {
        if !self.membership.is_member() {
            return;
        }
        let homes = self.homes();
        if let Some(until) = self.reach.quiet_until.filter(|until| now.instant < *until)
            && homes.is_empty()
            && !self.reach.is_reachable
        {
            self.reach.publish_at = Some(until);
            return;
        }
        self.reach.quiet_until = None;
        self.reach.sequence = now.wall.0.max(self.reach.sequence + 1).max(self.gossip.sequence(&self.own_id) + 1);
        let (sequence, endpoints) = (self.reach.sequence, self.reach.publish());
        let (requests, refused) = self.requests.published();
        let (nat, is_relay) = (self.reach.nat(), self.is_relay());
        self.reach.homes = homes.iter().map(|home| home.id).collect();
        let record = NodeRecord { id: self.own_id, sequence, endpoints, requests, refused, nat, is_relay, homes };
        let record = SignedRecord::sign(record, &self.signing.node, &self.peers.keys().network_id);
        let message = self.gossip.publish(record);
        for key in self.push_targets() {
            self.send_gossip(now, key, &message);
        }
    }

    /// Reviews whom to keep close, and compares records with them.
    pub(super) fn tend_neighbours(&mut self, now: Now) {
        if let Some(compare) = self.gossip.handle_timeout(now.instant) {
            for key in self.neighbours() {
                self.send_gossip(now, key, &compare);
            }
        }
        if self.reach.take_due(now.instant) {
            self.publish_record(now);
        }
        if now.instant < self.reach.review_at {
            return;
        }
        self.reach.review_at = now.instant + REVIEW_INTERVAL;
        if !self.has_standing() {
            let hosts =
                self.membership.invitation().into_iter().flat_map(|it| &it.bootstrap).map(|it| it.transport_key);
            self.peers.keep(hosts.collect());
            return;
        }
        let close = gossip::neighbours(&self.own_id, &self.policy, now.wall);
        let members = close.iter().filter_map(|id| self.policy.member(id)).map(|member| member.transport_key);
        let validators = if self.policy.has_validator(&self.own_id) { self.other_validators() } else { Vec::new() };
        let relays = self
            .relays_to_keep()
            .into_iter()
            .chain(self.peers.relays_in_use())
            .chain(self.relaying.next_relays(&self.policy));
        let kept = members.chain(validators).chain(relays).collect();
        self.peers.keep(kept);
        // Others look there for this node.
        let (homes, told) = (self.home_relays(), self.reach.homes());
        let is_news = homes.len() != told.len() || homes.iter().any(|home| !told.contains(home));
        // Everybody hears of it: a relay that comes and goes makes few records.
        let is_due = self.reach.homes_told.is_none_or(|at| now.instant.saturating_since(at) >= HOMES_INTERVAL);
        if is_news && (told.is_empty() || is_due) {
            self.reach.homes_told = Some(now.instant);
            self.publish_record(now);
        }
    }

    /// Says whether this node takes part: as a member, or as a validator that goes on ordering although it was revoked on sight.
    pub(super) fn has_standing(&self) -> bool {
        self.membership.is_member() || self.policy.has_validator(&self.own_id)
    }

    /// The handshake keys of all validators but this node.
    pub(super) fn other_validators(&self) -> Vec<TransportKey> {
        self.policy.validators().filter(|(id, _)| **id != self.own_id).map(|(_, key)| *key).collect()
    }

    /// Takes a gossip message of a member.
    pub(super) fn handle_gossip(&mut self, now: Now, from: TransportKey, bytes: &[u8]) {
        let outcome = match GossipMessage::decode(bytes) {
            Ok(message) => self.gossip.handle(message, &self.policy),
            Err(error) => GossipOutcome { refused: vec![error], ..GossipOutcome::default() },
        };
        for error in &outcome.refused {
            tracing::debug!(?from, %error, "gossip refused");
            self.drops.count(DropReason::ControlRefused);
        }
        for id in &outcome.updated {
            self.take_record(now, id);
            self.take_refusals(now, id);
        }
        if self.reach.quiet_until.is_some() && !self.homes().is_empty() {
            self.publish_record(now);
        }
        for reply in &outcome.replies {
            self.send_gossip(now, from, reply);
        }
        if !outcome.updated.is_empty() {
            self.tend_ears(now);
            self.relaying.seek_soon(now.instant);
            self.reach.hurry();
            let news = self.gossip.records_of(&outcome.updated);
            for key in self.push_targets().into_iter().filter(|key| *key != from) {
                self.send_gossip(now, key, &news);
            }
        }
        if outcome.own_is_outdated {
            self.publish_record(now);
        }
    }

    /// Adds the endpoints of a member's newest record to its candidates.
    fn take_record(&mut self, now: Now, id: &NodeId) {
        let Some(member) = self.policy.member(id) else { return };
        let Some(record) = self.gossip.record(id, &self.policy) else { return };
        let (key, routing) = (member.transport_key, &self.routing);
        self.peers.retain_records(key, &record.endpoints);
        let mut is_news = false;
        for endpoint in &record.endpoints {
            let in_overlay = |address| routing.in_overlay(address);
            match self.peers.add_candidate(key, Some(*id), *endpoint, CandidateSource::Record, in_overlay) {
                Ok(added) => is_news |= added,
                Err(error) => tracing::debug!(peer = ?id, %endpoint, %error, "candidate refused"),
            }
        }
        self.peers.set_closed(key, record.nat.is_there() && !record.homes.is_empty());
        if is_news {
            self.peers.take_record_news(now.instant, key);
        }
    }

    /// Adds where the ledger says that members stay.
    pub(super) fn learn_static<'i>(&mut self, ids: impl Iterator<Item = &'i NodeId>) {
        for member in ids.filter_map(|id| self.policy.member(id)).filter(|member| member.id != self.own_id) {
            let in_overlay = |address| self.routing.in_overlay(address);
            for endpoint in &member.static_endpoints {
                let (key, id) = (member.transport_key, Some(member.id));
                let added = self.peers.add_candidate(key, id, *endpoint, CandidateSource::Ledger, in_overlay);
                if let Err(error) = added {
                    tracing::debug!(peer = ?member.id, %endpoint, %error, "candidate refused");
                }
            }
        }
    }

    /// Adds endpoints where members were in an earlier run.
    pub fn remember_endpoints(&mut self, known: impl IntoIterator<Item = (NodeId, SocketAddr)>) {
        for (id, endpoint) in known {
            let Some(member) = self.policy.member(&id) else { continue };
            let key = member.transport_key;
            // One that became an overlay address or the like since is just not tried.
            let in_overlay = |address| self.routing.in_overlay(address);
            let _ = self.peers.add_candidate(key, Some(id), endpoint, CandidateSource::Remembered, in_overlay);
        }
        self.reach.hurry();
    }

    /// Where members are reached now, to be stored for the next run.
    pub fn known_endpoints(&self) -> Vec<(NodeId, SocketAddr)> {
        let known = |member: &crate::policy::Member| {
            let peer = self.peers.peer(&member.transport_key)?;
            Some((member.id, peer.paths.endpoint().or_else(|| peer.paths.candidates().ranked().first().copied())?))
        };
        self.policy.members().filter_map(known).collect()
    }

    /// The members that this node keeps close, those with a session: what is compared with them every few seconds goes to nobody else,
    /// so that all other sessions are silent when they are idle. Who is kept by the other side alone answers.
    pub(super) fn neighbours(&self) -> Vec<TransportKey> {
        self.member_sessions().filter(|key| self.peers.is_kept(key)).collect()
    }

    /// Members with a session, the kept ones first: whom news goes to at once.
    pub(super) fn push_targets(&self) -> Vec<TransportKey> {
        let others = self.member_sessions().filter(|key| !self.peers.is_kept(key));
        self.neighbours().into_iter().chain(others).take(MAX_PUSH).collect()
    }

    /// The same for news of the ledger: a validator that was revoked on sight hears them too, or nothing would be ordered any more.
    pub(super) fn ledger_targets(&self) -> Vec<TransportKey> {
        self.revoked_validators().chain(self.push_targets()).collect()
    }

    /// Whom the ledger is compared with every few seconds: the neighbours, and those validators, which may have missed the news.
    pub(super) fn ledger_neighbours(&self) -> Vec<TransportKey> {
        self.revoked_validators().chain(self.neighbours()).collect()
    }

    fn revoked_validators(&self) -> impl Iterator<Item = TransportKey> {
        self.peers.usable().filter(|(_, rights)| matches!(rights, Rights::Consensus(_))).map(|(key, _)| key)
    }

    fn member_sessions(&self) -> impl Iterator<Item = TransportKey> {
        self.peers.usable().filter(|(_, rights)| rights.is_member()).map(|(key, _)| key)
    }

    fn send_gossip(&mut self, now: Now, key: TransportKey, message: &GossipMessage) {
        // Who takes this node for a guest hears it once that is over.
        if self.link.allows(LinkId(key), Service::Gossip) {
            // A full queue or a peer that just left: the next comparison repairs it.
            let _ = self.link.send(now.instant, LinkId(key), Service::Gossip, message.encode());
        }
    }

    /// Connects to a peer if that is possible now.
    pub(super) fn connect(&mut self, now: Now, key: TransportKey) {
        let mut ctx = Context { now, policy: &self.policy, rng: &mut self.rng };
        self.peers.connect(&mut ctx, key);
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
