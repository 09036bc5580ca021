//! All peers: handshakes in both roles, sessions, and the way of every control record.
//!
//! Keyed by transport key, because that is what a handshake proves; who stands behind it is the policy's word. Knows neither the
//! ledger nor what a stream carries.

use super::forward::{HEADROOM, TAILROOM};
use super::peer::{Attempt, Peer};
use super::table::{Inlet, Outlet};
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::path::{CandidateError, CandidateSource, PathCheck, ProbeId};
use crate::policy::{Policy, PolicyDiff, Rights};
use crate::session::handshake::responder::Inbound;
use crate::session::{
    Action, Aim, Established, Indices, Initiator, InitiatorStep, Local, LocalKeys, Responder, Scope, Session, Source,
    Terms, TimestampSource,
};
use crate::time::{Instant, Now};
use crate::wire::control::ControlMessage;
use crate::wire::data::{Datagram, RECORD_CONTROL, RECORD_PACKET, RECORD_STREAM, Record, SessionIndex};
use crate::wire::drops::{DropReason, Drops};
use crate::wire::handshake::{LedgerHead, Timestamp};
use rand_core::CryptoRng;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How often paths, keepalives and worn keys are looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A session that is kept gets an empty packet when nothing was sent for this long: most NATs forget UDP after 30 s (RFC 4787 REQ-5
/// asks for two minutes and is not obeyed).
const KEEPALIVE: Duration = Duration::from_secs(25);

/// Peers remembered at a time besides members: guests come and go.
const MAX_GUESTS: usize = 128;

/// Candidates that one flight goes to: 8 × 1.5 kB.
const MAX_TARGETS: usize = 8;

/// A datagram on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The endpoint.
    pub to: SocketAddr,
    /// The bytes.
    pub datagram: Vec<u8>,
}

/// What happened with a peer.
#[derive(Debug)]
pub enum PeerEvent {
    /// A session is confirmed both ways.
    Up(TransportKey, Rights),
    /// The last session ended.
    Down(TransportKey),
    /// A ledger message came in a control record.
    Ledger(TransportKey, Vec<u8>),
    /// A packet of the control link came.
    Stream(TransportKey, Vec<u8>),
    /// A probe was answered.
    Pong(TransportKey, ProbeId, Duration),
    /// The peer sees this node at an address.
    Observed(TransportKey, SocketAddr),
    /// A handshake was confirmed that must not be replayed after a restart.
    Timestamp(TransportKey, Timestamp),
}

/// What the node lends for one call: the moment, the policy in force, and randomness.
pub struct Context<'a, R> {
    /// The moment.
    pub now: Now,
    /// Who may do what.
    pub policy: &'a Policy,
    /// Entropy.
    pub rng: &'a mut R,
}

/// All peers of a node.
pub struct PeerTable {
    keys: LocalKeys,
    terms: Terms,
    responder: Responder,
    timestamps: TimestampSource,
    indices: Indices,
    peers: BTreeMap<TransportKey, Peer>,
    /// Whose session or attempt an index names.
    owners: BTreeMap<SessionIndex, TransportKey>,
    /// Members whose sessions are kept up.
    kept: BTreeSet<TransportKey>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<PeerEvent>,
    is_changed: bool,
    check_at: Instant,
    drops: Arc<Drops>,
}

impl PeerTable {
    /// Starts with nobody known.
    pub fn new(now: Now, keys: LocalKeys, terms: Terms, drops: Arc<Drops>, rng: &mut impl CryptoRng) -> Self {
        Self {
            keys,
            terms,
            responder: Responder::new(now.instant, rng),
            timestamps: TimestampSource::after(Timestamp::default()),
            indices: Indices::default(),
            peers: BTreeMap::new(),
            owners: BTreeMap::new(),
            kept: BTreeSet::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            is_changed: true,
            check_at: now.instant,
            drops,
        }
    }

    /// This node's keys.
    pub fn keys(&self) -> &LocalKeys {
        &self.keys
    }

    /// Takes what an earlier run stored: initiations that must not come again, and this node's own last one.
    pub fn import_timestamps(&mut self, own: Timestamp, known: impl IntoIterator<Item = (TransportKey, Timestamp)>) {
        self.timestamps = TimestampSource::after(own);
        for (key, timestamp) in known {
            self.responder.import_timestamp(key, timestamp);
        }
    }

    /// The own last initiation and those of others, to be stored.
    pub fn timestamps(&self) -> (Timestamp, impl Iterator<Item = (&TransportKey, &Timestamp)>) {
        (self.timestamps.last(), self.responder.timestamps())
    }

    /// Takes how far the local ledger is, for the next handshakes.
    pub fn set_ledger_head(&mut self, head: LedgerHead) {
        self.terms.ledger = head;
    }

    /// Chooses whose sessions are kept up with keepalives; those that there are not are made at once.
    pub fn keep(&mut self, keys: BTreeSet<TransportKey>) {
        if !keys.is_subset(&self.kept) {
            self.check_at = Instant::ZERO;
        }
        self.kept = keys;
    }

    /// Says whether a peer's sessions are kept up.
    pub fn is_kept(&self, key: &TransportKey) -> bool {
        self.kept.contains(key)
    }

    /// Adds an endpoint where a peer may be. Returns whether it is news; see [`Self::take_record_news`] for those of a record.
    ///
    /// # Errors
    /// Why it is no candidate.
    pub fn add_candidate(
        &mut self,
        key: TransportKey,
        id: Option<NodeId>,
        endpoint: SocketAddr,
        source: CandidateSource,
        in_overlay: impl Fn(IpAddr) -> bool,
    ) -> Result<bool, CandidateError> {
        let peer = self.entry(key, id);
        let is_news = !peer.paths.candidates().ranked().contains(&endpoint);
        peer.paths.candidates_mut().add(endpoint, source, in_overlay)?;
        if is_news && source != CandidateSource::Record {
            peer.retry_at_once();
        }
        Ok(is_news)
    }

    /// A peer's record named new endpoints: the next attempt need not wait, but not more often than every half minute, because a record
    /// may name anybody and each attempt is 7 kB to each endpoint.
    pub fn take_record_news(&mut self, now: Instant, key: TransportKey) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.retry_for_record(now);
        }
    }

    /// Drops candidates that a peer's earlier node record named and its newest does not.
    pub fn retain_records(&mut self, key: TransportKey, newest: &[SocketAddr]) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.paths.candidates_mut().retain_records(newest);
        }
    }

    /// Begins a handshake with a peer unless one is under way, was tried in vain a moment ago, or nothing is known of where it is.
    pub fn connect(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if !peer.may_attempt(ctx.now.instant) || peer.paths.candidates().is_empty() {
            return;
        }
        let Some(index) = self.indices.reserve(ctx.rng) else { return };
        let aim = Aim { key, identity: peer.id.filter(|id| ctx.policy.member(id).is_some()) };
        let offer = self.terms.offer(self.timestamps.next(ctx.now.wall));
        let Ok(initiator) = Initiator::new(ctx.now.instant, &self.keys, aim, offer, index, ctx.rng) else {
            self.indices.release(index);
            return;
        };
        let mut targets = peer.paths.candidates().ranked();
        targets.truncate(MAX_TARGETS);
        peer.attempt = Some(Attempt { initiator, targets, paid: BTreeSet::new() });
        self.owners.insert(index, key);
        self.fire(key);
    }

    /// Takes a handshake datagram or a cookie.
    pub fn handle_handshake(&mut self, ctx: &mut Context<'_, impl CryptoRng>, from: SocketAddr, datagram: &[u8]) {
        let reason = match Datagram::classify(datagram) {
            Ok(Datagram::Initiation(_) | Datagram::KeyPart(_)) => self.respond(ctx, from, datagram),
            Ok(Datagram::Response(index, _)) => self.handle_response(ctx, index, from, datagram),
            Ok(Datagram::Cookie(index, _)) => self.handle_cookie(index, from, datagram),
            _ => Err(DropReason::MalformedDatagram),
        };
        if let Err(reason) = reason {
            self.drops.count(reason);
        }
    }

    fn respond(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let local = Local { keys: &self.keys, policy: ctx.policy, terms: &self.terms };
        let inbound = Inbound { now: ctx.now.instant, source: Source::Endpoint(from), datagram };
        let outcome = self.responder.handle(local, inbound, &mut self.indices, ctx.rng).map_err(DropReason::from)?;
        self.transmits.extend(outcome.transmit.into_iter().map(|datagram| Transmit { to: from, datagram }));
        if let Some(established) = outcome.established {
            let key = *established.session.admission().transport_key();
            // By the policy of now: a guest may have become a member while its handshake ran.
            let id = ctx.policy.admit(&key).member();
            if id.is_none() && self.guest_count() >= MAX_GUESTS && !self.peers.contains_key(&key) {
                self.indices.release(established.session.local_index());
                return Err(DropReason::HalfOpenFull);
            }
            self.entry(key, id);
            self.install(ctx, key, established);
        }
        Ok(())
    }

    fn handle_response(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        index: SessionIndex,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let key = *self.owners.get(&index).ok_or(DropReason::UnknownSession)?;
        let peer = self.peers.get_mut(&key).ok_or(DropReason::UnknownSession)?;
        let attempt = peer.attempt.as_mut().filter(|attempt| attempt.initiator.index() == index);
        let attempt = attempt.ok_or(DropReason::HandshakeReplayed)?;
        let local = Local { keys: &self.keys, policy: ctx.policy, terms: &self.terms };
        let finished = attempt.initiator.handle_response(local, ctx.now.instant, datagram).map_err(DropReason::from)?;
        if let Some(established) = finished {
            peer.attempt_succeeded();
            peer.paths.established(ctx.now.instant, from);
            self.install(ctx, key, established);
            self.flush(ctx.now, key);
        }
        Ok(())
    }

    fn handle_cookie(&mut self, index: SessionIndex, from: SocketAddr, datagram: &[u8]) -> Result<(), DropReason> {
        let key = *self.owners.get(&index).ok_or(DropReason::UnknownSession)?;
        let peer = self.peers.get_mut(&key).ok_or(DropReason::UnknownSession)?;
        let attempt = peer.attempt.as_mut().ok_or(DropReason::HandshakeReplayed)?;
        // The cookie is authentic wherever it comes from: a host with several addresses answers from another one, and so does whoever
        // repeats what he saw. The flight goes only to where it went before, and once: a cookie is no reflector.
        let is_target = attempt.targets.contains(&from);
        let unpaid = attempt.targets.iter().filter(|target| !attempt.paid.contains(target));
        let receivers: Vec<_> = if is_target { vec![from] } else { unpaid.copied().collect() };
        for to in receivers {
            let source = Source::Endpoint(to);
            attempt.initiator.handle_cookie(&self.keys, source, datagram).map_err(DropReason::from)?;
            if attempt.paid.insert(to) {
                let flight = attempt.initiator.datagrams(source).map(<[u8]>::to_vec);
                self.transmits.extend(flight.map(|datagram| Transmit { to, datagram }));
            }
        }
        Ok(())
    }

    fn install(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey, established: Established) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        self.owners.insert(established.session.local_index(), key);
        self.is_changed = true;
        peer.guest_there = established.guest_there;
        let actions = peer.sessions.handle_established(ctx.now.instant, established);
        self.act(ctx, key, &actions);
    }

    /// Takes the news that something authentic came in a session: its first packet, or one from an unexpected endpoint.
    pub fn handle_news(&mut self, ctx: &mut Context<'_, impl CryptoRng>, index: SessionIndex, from: SocketAddr) {
        self.heard(ctx, index, from, false);
    }

    /// Takes an opened record that is not an inner packet.
    pub fn handle_record(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        index: SessionIndex,
        from: SocketAddr,
        record: &[u8],
    ) {
        let Some((key, rights)) = self.heard(ctx, index, from, record.is_empty()) else {
            self.drops.count(DropReason::UnknownSession);
            return;
        };
        match Record::decode(record) {
            Ok(Record::Empty) => {}
            Ok(Record::Control(content)) => self.handle_control(ctx.now, (key, rights), from, content),
            Ok(Record::Stream(packet)) => self.events.push_back(PeerEvent::Stream(key, packet.to_vec())),
            Ok(Record::Packet { .. }) | Err(_) => self.drops.count(DropReason::MalformedRecord),
        }
    }

    fn heard(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        index: SessionIndex,
        from: SocketAddr,
        is_empty: bool,
    ) -> Option<(TransportKey, Rights)> {
        let key = *self.owners.get(&index)?;
        let peer = self.peers.get_mut(&key)?;
        let actions = peer.sessions.handle_received(ctx.now.instant, index, is_empty);
        let rights = rights_of(peer.sessions.receiving().find(|session| session.local_index() == index)?);
        if peer.confirm(index) {
            peer.paths.established(ctx.now.instant, from);
            self.is_changed = true;
            self.events.push_back(PeerEvent::Up(key, rights));
        } else if let Some(endpoint) = peer.paths.heard_from(ctx.now.instant, from) {
            self.probe(ctx, key, endpoint);
        }
        self.act(ctx, key, &actions);
        self.flush(ctx.now, key);
        self.promote(ctx, key);
        Some((key, rights))
    }

    /// Begins a handshake with a member whose session is still a guest's: it began before this node knew of the admission.
    fn promote(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        let Some(session) = self.peers.get(&key).and_then(|peer| peer.sessions.sending()) else { return };
        if session.admission().member().is_none() && ctx.policy.admit(&key).member().is_some() {
            self.connect(ctx, key);
        }
    }

    fn handle_control(&mut self, now: Now, (key, rights): (TransportKey, Rights), from: SocketAddr, content: &[u8]) {
        match ControlMessage::decode(content) {
            Ok(ControlMessage::Probe { id, .. }) => {
                let pong = ControlMessage::Pong { id, observed: from };
                self.seal_to(now, key, from, RECORD_CONTROL, &pong.encode());
            }
            Ok(ControlMessage::Pong { id, observed }) => {
                let Some(peer) = self.peers.get_mut(&key) else { return };
                let before = peer.paths.endpoint();
                let Some(rtt) = peer.paths.handle_pong(now.instant, ProbeId(id)) else { return };
                peer.sessions.set_rtt(rtt);
                self.is_changed |= peer.paths.endpoint() != before;
                self.events.push_back(PeerEvent::Pong(key, ProbeId(id), rtt));
                self.events.push_back(PeerEvent::Observed(key, observed));
            }
            // A guest has the control link, which keeps it to its services and its pace.
            Ok(ControlMessage::Ledger(_)) if rights == Rights::Guest => self.drops.count(DropReason::RecordNotAllowed),
            Ok(ControlMessage::Ledger(bytes)) => self.events.push_back(PeerEvent::Ledger(key, bytes)),
            Ok(ControlMessage::Goodbye) => {
                let Some(peer) = self.peers.get_mut(&key) else { return };
                let actions = peer.sessions.retire_all();
                peer.paths.forget_current();
                self.retire(key, &actions);
            }
            Err(_) => self.drops.count(DropReason::MalformedRecord),
        }
    }

    /// Keeps an inner packet for a member until a session is there, and begins a handshake.
    pub fn stage(&mut self, ctx: &mut Context<'_, impl CryptoRng>, id: NodeId, packet: Vec<u8>) {
        let Some(key) = ctx.policy.member(&id).map(|member| member.transport_key) else {
            self.drops.count(DropReason::NoRoute);
            return;
        };
        let peer = self.entry(key, Some(id));
        let dropped = peer.staged.push(ctx.now.instant, packet);
        let has_way = !peer.paths.candidates().is_empty();
        self.drops.add(DropReason::StagingFull, dropped as u64);
        if !has_way {
            self.drops.count(DropReason::NoPath);
        }
        self.flush(ctx.now, key);
        self.connect(ctx, key);
    }

    /// Sends a probe over the path in use, or begins a handshake when there is none. Returns the probe's id.
    pub fn ping(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) -> Option<ProbeId> {
        let endpoint = self.peers.get(&key).filter(|peer| peer.is_usable()).and_then(|peer| peer.paths.endpoint());
        match endpoint {
            Some(endpoint) => self.probe(ctx, key, endpoint),
            None => {
                self.connect(ctx, key);
                None
            }
        }
    }

    /// Sends a ledger message in a control record. Returns whether a session was there.
    pub fn send_ledger(&mut self, now: Now, key: TransportKey, message: Vec<u8>) -> bool {
        self.send(now, key, RECORD_CONTROL, &ControlMessage::Ledger(message).encode())
    }

    /// Sends a packet of the control link. Returns whether a session was there.
    pub fn send_stream(&mut self, now: Now, key: TransportKey, packet: &[u8]) -> bool {
        self.send(now, key, RECORD_STREAM, packet)
    }

    /// Says goodbye to everybody, at the end of the daemon.
    pub fn say_goodbye(&mut self, now: Now) {
        let keys: Vec<_> = self.peers.keys().copied().collect();
        for key in keys {
            self.send(now, key, RECORD_CONTROL, &ControlMessage::Goodbye.encode());
        }
    }

    /// Follows a new policy: who was removed or changed its key loses sessions, attempts, half-open handshakes and staged packets at
    /// once; guests who became members may handshake anew.
    pub fn handle_policy(&mut self, ctx: &mut Context<'_, impl CryptoRng>, diff: &PolicyDiff) {
        let (now, policy) = (ctx.now, ctx.policy);
        self.responder.handle_policy(policy);
        let keys: Vec<_> = self.peers.keys().copied().collect();
        for key in keys {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let actions = peer.sessions.handle_policy(policy);
            let has_new_key = |id| policy.member(&id).is_some_and(|member| member.transport_key != key);
            let cut = peer.id.is_some_and(|id| diff.removed.contains(&id) || has_new_key(id));
            self.retire(key, &actions);
            if cut {
                self.forget(now, key);
            }
        }
        for id in diff.admitted.iter().chain(&diff.changed) {
            let Some(key) = policy.member(id).map(|member| member.transport_key) else { continue };
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            peer.id = Some(*id);
            peer.sessions.set_remote(Some(*id));
            peer.retry_at_once();
            // What it has is a guest's session, made before this node knew that it was a member.
            if !peer.sessions.is_empty() {
                self.connect(ctx, key);
            }
        }
        self.is_changed = true;
    }

    /// Takes the news that the machine slept or its clock jumped: no session from before sends until a new one is there.
    pub fn handle_clock_jump(&mut self, ctx: &mut Context<'_, impl CryptoRng>) {
        let keys: Vec<_> = self.peers.keys().copied().collect();
        for key in keys {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            peer.retry_at_once();
            // As stale as the sessions are: its answer may have come and gone.
            if let Some(attempt) = peer.attempt.take() {
                self.owners.remove(&attempt.initiator.index());
                self.indices.release(attempt.initiator.index());
            }
            let actions = peer.sessions.handle_clock_jump(ctx.now.instant);
            self.act(ctx, key, &actions);
        }
        self.is_changed = true;
    }

    /// Takes the news that the underlay changed: all sessions are renewed, all paths asked.
    pub fn handle_underlay_change(&mut self, ctx: &mut Context<'_, impl CryptoRng>) {
        let keys: Vec<_> =
            self.peers.iter().filter(|(_, peer)| !peer.sessions.is_empty()).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.retry_at_once();
            }
            self.connect(ctx, key);
        }
    }

    /// Removes a peer and everything of it.
    fn forget(&mut self, now: Now, key: TransportKey) {
        let Some(mut peer) = self.peers.remove(&key) else { return };
        let (staged, expired) = peer.staged.take(now.instant);
        self.drops.add(DropReason::NoRoute, (staged.len() + expired) as u64);
        if let Some(attempt) = peer.attempt.take() {
            self.owners.remove(&attempt.initiator.index());
            self.indices.release(attempt.initiator.index());
        }
        for session in peer.sessions.receiving() {
            self.owners.remove(&session.local_index());
            self.indices.release(session.local_index());
        }
        self.kept.remove(&key);
        self.is_changed = true;
        self.events.push_back(PeerEvent::Down(key));
    }

    /// Acts on the deadlines that have come.
    pub fn handle_timeout(&mut self, ctx: &mut Context<'_, impl CryptoRng>) {
        self.responder.handle_timeout(ctx.now.instant);
        let is_check = ctx.now.instant >= self.check_at;
        if is_check {
            self.check_at = ctx.now.instant + CHECK_INTERVAL;
        }
        let busy: Vec<_> = self.peers.iter().filter(|(_, peer)| peer.is_busy()).map(|(key, _)| *key).collect();
        for key in busy {
            self.drive_attempt(ctx, key);
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let actions = peer.sessions.handle_timeout(ctx.now.instant);
            self.act(ctx, key, &actions);
            if is_check {
                self.check(ctx, key);
            }
        }
        if is_check {
            let kept: Vec<_> = self.kept.iter().copied().collect();
            for key in kept {
                self.keep_up(ctx, key);
            }
        }
    }

    fn drive_attempt(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(attempt) = &mut peer.attempt else { return };
        match attempt.initiator.handle_timeout(ctx.now.instant) {
            InitiatorStep::Wait => {}
            InitiatorStep::Retransmit => self.fire(key),
            InitiatorStep::GaveUp => {
                let index = attempt.initiator.index();
                peer.attempt_failed(ctx.now.instant);
                let expired = peer.staged.expire(ctx.now.instant);
                self.drops.add(DropReason::NoPath, expired as u64);
                self.owners.remove(&index);
                self.indices.release(index);
            }
        }
    }

    fn check(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        self.promote(ctx, key);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let expired = peer.staged.expire(ctx.now.instant);
        self.drops.add(DropReason::NoPath, expired as u64);
        let sent = peer.sessions.receiving().filter_map(|session| session.last_sent()).max();
        let received = peer.sessions.receiving().filter_map(|session| session.last_received()).max();
        match peer.paths.check(ctx.now.instant, sent, received) {
            // The other side did not know yet that this node is a member: by now it may.
            PathCheck::Healthy if peer.guest_there && ctx.policy.member(&self.keys.node_id).is_some() => {
                self.connect(ctx, key);
            }
            PathCheck::Healthy => {}
            PathCheck::Probe(endpoint) => drop(self.probe(ctx, key, endpoint)),
            PathCheck::Reconnect => self.connect(ctx, key),
        }
    }

    fn keep_up(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(session) = peer.sessions.sending().map(Arc::clone) else {
            self.connect(ctx, key);
            return;
        };
        let idle = session.last_sent().is_none_or(|at| ctx.now.instant.saturating_since(at) >= KEEPALIVE);
        if idle {
            self.seal_in(ctx.now, key, &session, None, &[]);
        }
    }

    /// When `handle_timeout` is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let mut deadline = self.responder.poll_timeout();
        let mut sooner = |at: Option<Instant>| deadline = [deadline, at].into_iter().flatten().min();
        let mut is_anybody_busy = !self.kept.is_empty();
        for peer in self.peers.values().filter(|peer| peer.is_busy()) {
            is_anybody_busy = true;
            sooner(peer.sessions.poll_timeout().map(|(at, _)| at));
            sooner(peer.attempt.as_ref().and_then(|attempt| attempt.initiator.poll_timeout()).map(|(at, _)| at));
        }
        if is_anybody_busy {
            sooner(Some(self.check_at));
        }
        deadline
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// Says, once, whether sessions or paths changed since the last call, so that a new forwarding table is due.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// Where to seal for members with a confirmed session and a path.
    pub fn outlets(&self) -> HashMap<NodeId, Outlet> {
        let outlet = |peer: &Peer| {
            let session = peer.sessions.sending()?;
            let Rights::Member(id) = rights_of(session) else { return None };
            Some((id, Outlet { session: Arc::clone(session), endpoint: peer.paths.endpoint()? }))
        };
        self.peers.values().filter_map(outlet).collect()
    }

    /// The sessions that datagrams may arrive for.
    pub fn inlets(&self) -> HashMap<SessionIndex, Inlet> {
        let mut inlets = HashMap::new();
        for peer in self.peers.values() {
            for session in peer.sessions.receiving() {
                let inlet = Inlet {
                    session: Arc::clone(session),
                    rights: rights_of(session),
                    endpoint: peer.paths.endpoint(),
                    awaited: !peer.is_confirmed(session.local_index()),
                };
                inlets.insert(session.local_index(), inlet);
            }
        }
        inlets
    }

    /// Lends a peer's state for a status.
    pub(super) fn peer(&self, key: &TransportKey) -> Option<&Peer> {
        self.peers.get(key)
    }

    /// The keys of peers that have a confirmed session.
    pub fn usable(&self) -> impl Iterator<Item = (TransportKey, Rights)> {
        self.peers.iter().filter(|(_, peer)| peer.is_usable()).filter_map(|(key, peer)| {
            let session = peer.sessions.sending()?;
            Some((*key, rights_of(session)))
        })
    }

    /// Says whether there is a session with a peer, confirmed or not.
    pub fn has_session(&self, key: &TransportKey) -> bool {
        self.peers.get(key).is_some_and(|peer| !peer.sessions.is_empty())
    }

    /// Says whether anything here belongs to a transport key: for the proof that a cut is whole.
    pub fn mentions(&self, key: &TransportKey) -> bool {
        self.peers.contains_key(key)
            || self.owners.values().any(|owner| owner == key)
            || self.kept.contains(key)
            || self.responder.mentions(key)
    }

    fn entry(&mut self, key: TransportKey, id: Option<NodeId>) -> &mut Peer {
        let local = self.keys.node_id;
        let peer = self.peers.entry(key).or_insert_with(|| Peer::new(local, id));
        if peer.id.is_none() && id.is_some() {
            peer.id = id;
            peer.sessions.set_remote(id);
        }
        peer
    }

    fn guest_count(&self) -> usize {
        self.peers.values().filter(|peer| peer.id.is_none()).count()
    }

    /// Sends the flight of the attempt under way to all its targets.
    fn fire(&mut self, key: TransportKey) {
        let Some(attempt) = self.peers.get(&key).and_then(|peer| peer.attempt.as_ref()) else { return };
        for target in &attempt.targets {
            for datagram in attempt.initiator.datagrams(Source::Endpoint(*target)) {
                self.transmits.push_back(Transmit { to: *target, datagram: datagram.to_vec() });
            }
        }
    }

    fn act(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey, actions: &[Action]) {
        for action in actions {
            match *action {
                Action::SendConfirmation(index) => {
                    let Some(peer) = self.peers.get(&key) else { return };
                    let session = peer.sessions.receiving().find(|session| session.local_index() == index);
                    if let Some(session) = session.map(Arc::clone) {
                        self.seal_in(ctx.now, key, &session, None, &[]);
                    }
                }
                Action::StartHandshake(_) => self.connect(ctx, key),
                Action::StoreTimestamp(key, timestamp) => self.events.push_back(PeerEvent::Timestamp(key, timestamp)),
                Action::Retire(_) => {}
            }
        }
        self.retire(key, actions);
    }

    fn retire(&mut self, key: TransportKey, actions: &[Action]) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let mut retired = false;
        for action in actions {
            let Action::Retire(index) = action else { continue };
            peer.forget_session(*index);
            self.owners.remove(index);
            self.indices.release(*index);
            retired = true;
        }
        if !retired {
            return;
        }
        self.is_changed = true;
        if peer.sessions.is_empty() {
            self.events.push_back(PeerEvent::Down(key));
            if peer.id.is_none() && peer.attempt.is_none() && peer.paths.candidates().is_only_observed() {
                self.peers.remove(&key);
            }
        }
    }

    /// Seals what waited for a session.
    fn flush(&mut self, now: Now, key: TransportKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.staged.is_empty() || peer.sessions.sending().is_none_or(|session| !rights_of(session).is_member()) {
            return;
        }
        let (packets, expired) = peer.staged.take(now.instant);
        self.drops.add(DropReason::NoPath, expired as u64);
        for packet in packets {
            self.send(now, key, RECORD_PACKET, &packet);
        }
    }

    fn probe(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        key: TransportKey,
        endpoint: SocketAddr,
    ) -> Option<ProbeId> {
        let id = ProbeId(ctx.rng.next_u64());
        if !self.seal_to(ctx.now, key, endpoint, RECORD_CONTROL, &ControlMessage::probe(id.0).encode()) {
            return None;
        }
        self.peers.get_mut(&key)?.paths.probe_sent(ctx.now.instant, id, endpoint);
        Some(id)
    }

    fn send(&mut self, now: Now, key: TransportKey, kind: u8, content: &[u8]) -> bool {
        let Some(endpoint) = self.peers.get(&key).and_then(|peer| peer.paths.endpoint()) else { return false };
        self.seal_to(now, key, endpoint, kind, content)
    }

    fn seal_to(&mut self, now: Now, key: TransportKey, endpoint: SocketAddr, kind: u8, content: &[u8]) -> bool {
        let Some(session) = self.peers.get(&key).and_then(|peer| peer.sessions.sending()).map(Arc::clone) else {
            return false;
        };
        let record = [&[kind], content].concat();
        self.seal_in(now, key, &session, Some(endpoint), &record)
    }

    /// Seals a record in one session and queues it for `endpoint`, or for the path in use.
    fn seal_in(
        &mut self,
        now: Now,
        key: TransportKey,
        session: &Arc<Session>,
        endpoint: Option<SocketAddr>,
        record: &[u8],
    ) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else { return false };
        let Some(to) = endpoint.or(peer.paths.endpoint()) else { return false };
        let Some(sealer) = peer.sealer(session) else {
            self.drops.count(DropReason::CounterExhausted);
            return false;
        };
        let mut datagram = vec![0; HEADROOM - 1 + record.len() + TAILROOM];
        datagram[HEADROOM - 1..HEADROOM - 1 + record.len()].copy_from_slice(record);
        match sealer.seal(now.instant, &mut datagram) {
            Ok(_) => {
                self.transmits.push_back(Transmit { to, datagram });
                true
            }
            Err(error) => {
                self.drops.count(error.into());
                false
            }
        }
    }
}

/// What a session's peer may do: what the policy said of it, unless the handshake left sync alone; that is what a guest has.
fn rights_of(session: &Session) -> Rights {
    match session.scope() {
        Scope::Full => session.admission().rights(),
        Scope::SyncOnly(_) => Rights::Guest,
    }
}

#[cfg(test)]
mod tests;
