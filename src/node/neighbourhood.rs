//! What members who are in touch tell each other of where they are, and what begins and ends with their sessions.

use super::control::{BrokenReason, LinkEvent, LinkId, Service, Standing};
use super::gossip::{GossipMessage, GossipOutcome};
use super::neighbours::{kept_sessions, member_sessions};
use super::peers::Context;
use super::{Node, NodeEvent};
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::path::{CandidateSource, is_possible};
use crate::policy::Rights;
use crate::time::Now;
use crate::wire::control::NodeRecord;
use crate::wire::drops::DropReason;
use rand_core::CryptoRng;
use std::net::SocketAddr;
use std::time::Duration;

/// Members that news goes to, the neighbours among them.
const MAX_PUSH: usize = 16;

/// How often one peer is told of the own head because its connections break: whoever resets them all is not heeded faster.
const GREETING_INTERVAL: Duration = Duration::from_secs(1);

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
            if let Some(own) = self.gossip.own() {
                self.send_gossip(now, key, &own);
            }
            self.gossip.greet(now.instant, key, self.peers.is_initiator(&key));
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

    /// A member came unasked.
    pub(super) fn handle_reached(&mut self, now: Now, by: NodeId, endpoint: SocketAddr) {
        if self.reach.take_caller(by, endpoint) {
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
        if !self.reach.may_publish(now.instant, !homes.is_empty()) {
            return;
        }
        let sequence = now.wall.0.max(self.gossip.sequence(&self.own_id) + 1);
        let endpoints = self.reach.publish();
        let (requests, refused) = self.requests.published();
        let (nat, is_relay) = (self.reach.nat(), self.is_relay());
        let record = NodeRecord { id: self.own_id, sequence, endpoints, requests, refused, nat, is_relay, homes };
        let message = self.gossip.publish(record, &self.signing.node);
        for key in self.push_targets() {
            self.send_gossip(now, key, &message);
        }
        self.note_whereabouts(now);
    }

    /// Reviews whom to keep close, and compares records with them.
    pub(super) fn tend_neighbours(&mut self, now: Now) {
        self.pass_news_on(now);
        let neighbours = || kept_sessions(&self.peers).collect();
        if let Some((key, compare)) = self.gossip.handle_timeout(now.instant, neighbours) {
            self.send_gossip(now, key, &compare);
            if let Some(wanted) = self.ask_who_is_there(now, key) {
                self.send_gossip(now, key, &wanted);
            }
        }
        if self.reach.take_due(now.instant) {
            self.publish_record(now);
        }
        if !self.reach.take_review(now.instant) {
            return;
        }
        if !self.has_standing() {
            let hosts =
                self.membership.invitation().into_iter().flat_map(|it| &it.bootstrap).map(|it| it.transport_key);
            self.peers.keep(hosts.collect());
            return;
        }
        let members = [self.close_members(now), self.acquaintances()].concat();
        let validators = if self.policy.has_validator(&self.own_id) { self.other_validators() } else { Vec::new() };
        let relays = self
            .relays_to_keep()
            .into_iter()
            .chain(self.peers.relays_in_use())
            .chain(self.relaying.next_relays(&self.policy));
        let kept = members.into_iter().chain(validators).chain(relays).collect();
        self.peers.keep(kept);
        // Others look there for this node.
        let (homes, told) = (self.home_relays(), self.told_homes());
        let is_news = homes.len() != told.len() || homes.iter().any(|home| !told.contains(home));
        if is_news && self.reach.take_homes_turn(now.instant, told.is_empty()) {
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
        let mut outcome = match GossipMessage::decode(bytes) {
            Ok(message) => self.gossip.handle(now, from, message, &self.policy),
            Err(error) => GossipOutcome { refused: vec![error], ..GossipOutcome::default() },
        };
        for error in &outcome.refused {
            tracing::debug!(?from, %error, "gossip refused");
            self.drops.count(DropReason::ControlRefused);
        }
        if outcome.is_asked_who_is_there {
            outcome.replies.extend(self.present_for(now, &from));
        }
        self.take_present(from, std::mem::take(&mut outcome.present));
        for reply in &outcome.replies {
            self.send_gossip(now, from, reply);
        }
        self.follow_gossip(now, Some(from), &outcome);
    }

    /// Acts on the records that are new here, and passes them on to all but whom they came from.
    pub(super) fn follow_gossip(&mut self, now: Now, from: Option<TransportKey>, outcome: &GossipOutcome) {
        for id in &outcome.updated {
            self.take_record(now, id);
            self.take_refusals(now, id);
        }
        if self.reach.is_quiet() && !self.homes().is_empty() {
            self.publish_record(now);
        }
        if !outcome.updated.is_empty() {
            self.tend_ears(now);
            self.relaying.seek_soon(now.instant);
            self.reach.hurry();
        }
        self.gossip.add_news(from, &outcome.news);
        self.pass_news_on(now);
        if outcome.own_is_outdated {
            self.publish_record(now);
        }
    }

    /// Tells the neighbours what is new here. Each keeps others, so that it comes everywhere, and to most nodes a few times only.
    fn pass_news_on(&mut self, now: Now) {
        let neighbours = || kept_sessions(&self.peers).collect();
        for (key, news) in self.gossip.take_news(now.instant, neighbours) {
            self.send_gossip(now, key, &news);
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
        if is_news || self.peers.is_away(now.instant, &key) {
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

    /// Adds endpoints where members were in an earlier run; this node itself where others reached it unasked.
    pub fn remember_endpoints(&mut self, known: impl IntoIterator<Item = (NodeId, SocketAddr)>) {
        for (id, endpoint) in known {
            if id == self.own_id {
                self.reach.note_open(endpoint);
                continue;
            }
            let Some(member) = self.policy.member(&id) else { continue };
            let key = member.transport_key;
            // One that became an overlay address or the like since is just not tried.
            let in_overlay = |address| self.routing.in_overlay(address);
            let _ = self.peers.add_candidate(key, Some(id), endpoint, CandidateSource::Remembered, in_overlay);
        }
        self.reach.hurry();
    }

    /// Where members are reached now, and this node itself by those who come unasked, to be stored for the next run.
    pub fn known_endpoints(&self) -> Vec<(NodeId, SocketAddr)> {
        let known = |member: &crate::policy::Member| {
            let peer = self.peers.peer(&member.transport_key)?;
            Some((member.id, peer.paths.endpoint().or_else(|| peer.paths.candidates().ranked().first().copied())?))
        };
        let own = self.reach.open().map(|endpoint| (self.own_id, endpoint));
        self.policy.members().filter_map(known).chain(own).collect()
    }

    /// The members that this node keeps close, those with a session: what is compared with them every few seconds goes to nobody else,
    /// so that all other sessions are silent when they are idle. Who is kept by the other side alone answers.
    pub(super) fn neighbours(&self) -> Vec<TransportKey> {
        kept_sessions(&self.peers).collect()
    }

    /// Members with a session, the kept ones first: whom news goes to at once.
    pub(super) fn push_targets(&self) -> Vec<TransportKey> {
        let others = member_sessions(&self.peers).filter(|key| !self.peers.is_kept(key));
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
