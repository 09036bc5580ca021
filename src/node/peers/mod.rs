//! All peers: who is known, the sessions with each, and what the data threads may use of them.
//!
//! ```text
//!   datagrams ──► handshakes ──► sessions ◄── records ◄── opened by the data threads
//!                     ▲             ▲
//!                   upkeep       changes
//!                   (time)       (policy, clock, underlay)
//! ```
//! Keyed by transport key, because that is what a handshake proves; who stands behind it is the policy's word. Knows neither the
//! ledger nor what a stream carries.

mod aside;
mod changes;
pub(super) mod dormancy;
mod guests;
mod handshakes;
mod measuring;
pub(super) mod port_search;
pub(super) mod punching;
mod records;
mod roster;
mod streams;
mod upkeep;
mod ways;

use self::dormancy::Dormancy;
use self::roster::Roster;
pub use self::streams::Silence;
use super::peer::Peer;
use super::staging::Staging;
use super::table::{Inlet, Outlet};
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::path::{CandidateError, CandidateSource, Path, PathMtu, ProbeId, Surroundings};
use crate::policy::{Policy, Rights};
use crate::router::PeerIndex;
use crate::session::{
    BySession, Gate, Indices, LocalKeys, Responder, Role, Scope, Session, Source, Terms, TimestampSource,
};
use crate::time::{Instant, Now};
use crate::wire::control::ControlMessage;
use crate::wire::datagram::SessionIndex;
use crate::wire::drops::Drops;
use crate::wire::handshake::{LedgerHead, Timestamp};
use crate::wire::relay::Envelope;
use rand_core::CryptoRng;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How long it is remembered who spoke first, since either last did: longer than NATs remember. Of so many hosts: of others nothing follows.
const CONTACT_FOR: Duration = Duration::from_mins(5);
const MAX_CONTACTS: usize = 8192;

/// Who spoke first, this node or a host, and when either last did.
#[derive(Clone, Copy)]
struct Contact {
    they_began: bool,
    at: Instant,
}

/// A datagram on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The path.
    pub path: Path,
    /// The bytes.
    pub datagram: Vec<u8>,
    /// The routers that it passes at most, where not as many as usual.
    pub hop_limit: Option<u8>,
    /// Whether it is no loss if it is too long for the own link: that is what it asks.
    pub is_measure: bool,
}

impl Transmit {
    fn new(path: Path, datagram: Vec<u8>) -> Self {
        Self { path, datagram, hop_limit: None, is_measure: false }
    }
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
    /// The peer is reached at another endpoint, as it proved.
    Moved(TransportKey),
    /// What this node sends by a path, to a member, arrives damaged.
    Damaged(TransportKey, Path),
    /// A handshake was confirmed that must not be replayed after a restart.
    Timestamp(TransportKey, Timestamp),
    /// A peer is looked for: who can help may be asked.
    Sought(TransportKey),
    /// A member came unasked from beyond this host's own links, to this endpoint's family: others can come as well.
    Reached(NodeId, SocketAddr),
    /// A member says something about ways to members.
    Ways(TransportKey, ControlMessage),
}

/// How much a node holds of its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Peers that it remembers.
    pub peers: usize,
    /// Sessions in any state.
    pub sessions: usize,
    /// Indices with a session or an attempt behind them.
    pub owners: usize,
    /// Indices that are not free.
    pub indices: usize,
    /// Handshakes that others began.
    pub half_open: usize,
}

/// What of a forwarding table is out of date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The gate alone: a table of the same sessions is soon made.
    Gate,
    /// Sessions or paths.
    Sessions,
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
    peers: Roster,
    /// Whose session or attempt an index names.
    owners: BTreeMap<SessionIndex, TransportKey>,
    /// The indices of the attempts under way, as the gate in force knows them.
    attempts: Arc<BTreeSet<SessionIndex>>,
    /// Members whose sessions are kept up.
    kept: BTreeSet<TransportKey>,
    /// Packets that wait for a session.
    staging: Staging,
    /// The number of the latest frame that left in parts.
    fragmented: u16,
    /// The longest packet of a host, in bytes.
    inner_mtu: u16,
    /// What this node knows of its own place.
    around: Surroundings,
    transmits: VecDeque<Transmit>,
    events: VecDeque<PeerEvent>,
    is_changed: bool,
    is_gate_changed: bool,
    check_at: Instant,
    /// Peers that are in use or owe an answer, whose paths are watched closely, and when the next look is.
    active: BTreeSet<TransportKey>,
    watch_at: Option<Instant>,
    /// UDP reaches nobody from here, as far as this node can tell: what goes over TLS waits for no direct way.
    is_udp_silent: bool,
    /// Hosts in touch: what comes from one that this node spoke to first says nothing of whether strangers can come.
    contacts: BTreeMap<IpAddr, Contact>,
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
            peers: Roster::default(),
            owners: BTreeMap::new(),
            attempts: Arc::default(),
            kept: BTreeSet::new(),
            staging: Staging::default(),
            fragmented: 0,
            inner_mtu: 0,
            around: Surroundings::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            is_changed: true,
            is_gate_changed: false,
            check_at: now.instant,
            active: BTreeSet::new(),
            watch_at: None,
            is_udp_silent: false,
            contacts: BTreeMap::new(),
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

    /// Takes where this node itself is, by which private addresses of peers are judged.
    pub fn set_surroundings(&mut self, around: Surroundings) {
        self.around = around;
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
        if is_news && !matches!(source, CandidateSource::Record | CandidateSource::Lan) {
            peer.retry_at_once();
        }
        Ok(is_news)
    }

    /// A peer's record, or a LAN, named new endpoints: the next attempt need not wait, but not more often than every half minute, because a record
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

    /// Drops candidates where a peer was said to be on a LAN and is said to be no more.
    pub fn retain_neighbour(&mut self, key: TransportKey, newest: &[SocketAddr]) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.paths.candidates_mut().retain_neighbour(newest);
        }
    }

    /// Which of these members are not there, as far as this node can tell. One that it had nothing to do with yet is not among them.
    pub fn silent_among(
        &self,
        now: Instant,
        policy: &Policy,
        ids: impl IntoIterator<Item = NodeId>,
    ) -> BTreeSet<NodeId> {
        let is_silent = |id: &NodeId| {
            let peer = policy.member(id).and_then(|member| self.peers.get(&member.transport_key));
            peer.is_some_and(|peer| peer.is_silent(now))
        };
        ids.into_iter().filter(is_silent).collect()
    }

    /// The next datagram to send, in its envelope where a relay passes it on.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let Transmit { path, datagram, hop_limit, is_measure } = self.transmits.pop_front()?;
        let datagram = match path.label {
            Some(label) => [&Envelope::first(label).encode(datagram.len())[..], &datagram].concat(),
            None => datagram,
        };
        Some(Transmit { path, datagram, hop_limit, is_measure })
    }

    /// Notes that a host and this node speak, and who does so now: that counts if neither did before.
    fn note_contact(&mut self, now: Instant, path: &Path, they_speak: bool) {
        if !path.is_direct() {
            return;
        }
        let host = path.remote.ip().to_canonical();
        let is_room = self.contacts.len() < MAX_CONTACTS;
        match self.contacts.get_mut(&host) {
            Some(contact) if now.saturating_since(contact.at) < CONTACT_FOR => contact.at = now,
            Some(contact) => *contact = Contact { they_began: they_speak, at: now },
            None if is_room => drop(self.contacts.insert(host, Contact { they_began: they_speak, at: now })),
            None => {}
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// Says, once, what changed since the last call, so that a new forwarding table is due.
    pub fn take_change(&mut self) -> Option<Change> {
        let is_gate_changed = std::mem::take(&mut self.is_gate_changed) | self.responder.take_gate_changed();
        let is_changed = std::mem::take(&mut self.is_changed);
        is_changed.then_some(Change::Sessions).or(is_gate_changed.then_some(Change::Gate))
    }

    /// Notes that a new table is due, for something that is none of this table's business.
    pub fn note_change(&mut self) {
        self.is_changed = true;
    }

    /// What a handshake datagram has to show before it is brought here.
    pub fn gate(&self) -> Gate {
        self.responder.gate(&self.keys, Arc::clone(&self.attempts))
    }

    /// Where to seal for members with a confirmed session and a path that was heard on not long ago.
    pub fn outlets(&self) -> HashMap<NodeId, Outlet> {
        let outlet = |peer: &Peer| {
            if peer.dormancy != Dormancy::Awake {
                return None;
            }
            let session = peer.sessions.sending()?;
            let Rights::Member(id) = rights_of(session) else { return None };
            let (session, path) = (Arc::clone(session), peer.paths.path()?);
            let mtu = if peer.is_unmeasured() { PathMtu::Unknown } else { peer.mtu.mtu() };
            Some((id, Outlet { session, path, mtu }))
        };
        self.peers.engaged().filter_map(|(_, peer)| outlet(peer)).collect()
    }

    /// The sessions that datagrams may arrive for. `number` knows members by short numbers.
    pub fn inlets(&self, mut number: impl FnMut(NodeId) -> Option<PeerIndex>) -> BySession<Inlet> {
        let mut inlets = BySession::default();
        for (_, peer) in self.peers.engaged() {
            for session in peer.sessions.receiving() {
                let rights = rights_of(session);
                let inlet = Inlet {
                    session: Arc::clone(session),
                    rights,
                    peer: if let Rights::Member(member) = rights { number(member) } else { None },
                    guest_origin: peer.guest_origin,
                    path: peer.paths.path(),
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
        self.peers.engaged().filter(|(_, peer)| peer.is_usable()).filter_map(|(key, peer)| {
            let session = peer.sessions.sending()?;
            Some((*key, rights_of(session)))
        })
    }

    /// Says whether a peer could not be reached a while ago, or nobody said where it is.
    pub fn is_away(&self, now: Instant, key: &TransportKey) -> bool {
        self.peers.get(key).is_none_or(|peer| peer.is_away(now))
    }

    /// Says whether a peer is there, as far as anybody can tell.
    pub fn is_in_touch(&self, now: Instant, key: &TransportKey) -> bool {
        self.peers.get(key).is_some_and(|peer| peer.is_usable() && !peer.is_silent(now))
    }

    /// Says whether this node began the session in use with a peer.
    pub fn is_initiator(&self, key: &TransportKey) -> bool {
        let session = self.peers.get(key).and_then(|peer| peer.sessions.sending());
        session.is_some_and(|session| session.role() == Role::Initiator)
    }

    /// Says whether a peer took this node for a guest in the last handshake.
    pub fn is_guest_at(&self, key: &TransportKey) -> bool {
        self.peers.get(key).is_some_and(|peer| peer.guest_there)
    }

    /// Says whether there is a session with a peer, confirmed or not.
    pub fn has_session(&self, key: &TransportKey) -> bool {
        self.peers.get(key).is_some_and(|peer| !peer.sessions.is_empty())
    }

    /// Says whether anything here belongs to a transport key: for the proof that a cut is whole.
    pub fn mentions(&self, key: &TransportKey) -> bool {
        self.peers.contains(key)
            || self.owners.values().any(|owner| owner == key)
            || self.kept.contains(key)
            || self.responder.mentions(key)
    }

    /// Counts what is held of all peers: for the proof that nothing is left over.
    pub fn holdings(&self) -> Holdings {
        let (members, guests) = self.responder.half_open_counts();
        Holdings {
            peers: self.peers.len(),
            sessions: self.peers.values().map(|peer| peer.sessions.receiving().count()).sum(),
            owners: self.owners.len(),
            indices: self.indices.len(),
            half_open: members + guests,
        }
    }

    fn entry(&mut self, key: TransportKey, id: Option<NodeId>) -> &mut Peer {
        let local = self.keys.node_id;
        let peer = self.peers.get_or_insert_with(key, || Peer::new(local, id));
        if peer.id.is_none() && id.is_some() {
            peer.id = id;
            peer.sessions.set_remote(id);
        }
        peer
    }
}

/// What a handshake knows a path by: many peers share a relay's address.
pub fn source_of(path: &Path) -> Source {
    match path.label {
        None if path.is_stream() => Source::Stream(path.remote),
        None => Source::Endpoint(path.remote),
        Some(label) => Source::Relayed { relay: path.remote, label: label.0 },
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
