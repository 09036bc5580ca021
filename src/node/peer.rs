//! One peer as the slow side sees it: its sessions, the attempt to make one, its paths, and what waits for it.

use super::staging::Staging;
use crate::crypto::identity::NodeId;
use crate::path::Paths;
use crate::session::{Initiator, LaneSealer, PeerSessions, Session};
use crate::time::Instant;
use crate::wire::data::{Lane, SessionIndex};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Waits between attempts that got no answer: at first at once, then doubling up to a minute.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// How often new endpoints in a peer's record cut its wait short.
const RECORD_INTERVAL: Duration = Duration::from_secs(30);

/// An attempt to make a session.
pub(super) struct Attempt {
    /// The handshake.
    pub(super) initiator: Initiator,
    /// Where its datagrams go: every candidate at the start of the attempt.
    pub(super) targets: Vec<SocketAddr>,
    /// The targets that got the flight again for a cookie.
    pub(super) paid: BTreeSet<SocketAddr>,
}

/// One peer.
pub(super) struct Peer {
    /// The member that it is, as far as the local ledger knows.
    pub(super) id: Option<NodeId>,
    /// Its sessions.
    pub(super) sessions: PeerSessions,
    /// Its ways.
    pub(super) paths: Paths,
    /// The handshake that this node began.
    pub(super) attempt: Option<Attempt>,
    /// Whether the peer said, in the last handshake, that this node is a guest there.
    pub(super) guest_there: bool,
    /// Packets that wait for a session.
    pub(super) staged: Staging,
    /// When something authentic last came in a session that is gone.
    pub(super) last_heard: Option<Instant>,
    /// Bytes sent and received in sessions that are gone.
    pub(super) past_bytes: (u64, u64),
    /// The node's own lane in each session.
    sealers: BTreeMap<SessionIndex, LaneSealer>,
    /// Sessions in which the peer was heard.
    confirmed: BTreeSet<SessionIndex>,
    failures: u32,
    next_attempt: Instant,
    record_heeded: Option<Instant>,
}

impl Peer {
    pub(super) fn new(local: NodeId, id: Option<NodeId>) -> Self {
        Self {
            id,
            sessions: PeerSessions::new(local, id),
            paths: Paths::default(),
            attempt: None,
            guest_there: false,
            staged: Staging::default(),
            last_heard: None,
            past_bytes: (0, 0),
            sealers: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            failures: 0,
            next_attempt: Instant::ZERO,
            record_heeded: None,
        }
    }

    /// Says whether a new attempt may begin: none is under way, and the wait after the last failure is over.
    pub(super) fn may_attempt(&self, now: Instant) -> bool {
        self.attempt.is_none() && now >= self.next_attempt
    }

    /// Notes an attempt that nobody answered: the next one waits longer.
    pub(super) fn attempt_failed(&mut self, now: Instant) {
        self.attempt = None;
        let wait = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(6)).min(LONGEST_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        self.next_attempt = now + wait;
    }

    /// Notes an attempt that came to a session.
    pub(super) fn attempt_succeeded(&mut self) {
        self.attempt = None;
        self.retry_at_once();
    }

    /// Notes that the peer was heard in this session. Returns whether that is news.
    pub(super) fn confirm(&mut self, index: SessionIndex) -> bool {
        self.confirmed.insert(index)
    }

    /// Says whether the peer was heard in this session.
    pub(super) fn is_confirmed(&self, index: SessionIndex) -> bool {
        self.confirmed.contains(&index)
    }

    /// Says whether there is a session that both sides have confirmed, and a path.
    pub(super) fn is_usable(&self) -> bool {
        self.paths.endpoint().is_some()
            && self.sessions.sending().is_some_and(|session| self.is_confirmed(session.local_index()))
    }

    /// Says whether the peer has deadlines or needs watching.
    pub(super) fn is_busy(&self) -> bool {
        self.attempt.is_some() || !self.sessions.is_empty() || !self.staged.is_empty()
    }

    /// Forgets earlier failures: something changed that may make the next attempt succeed.
    pub(super) fn retry_at_once(&mut self) {
        self.failures = 0;
        self.next_attempt = Instant::ZERO;
    }

    /// As [`Self::retry_at_once`], for a record that names new endpoints: at most once per [`RECORD_INTERVAL`].
    pub(super) fn retry_for_record(&mut self, now: Instant) {
        if self.record_heeded.is_none_or(|at| now.saturating_since(at) >= RECORD_INTERVAL) {
            self.record_heeded = Some(now);
            self.retry_at_once();
        }
    }

    /// Lends the node's own sealer in `session`; none once the lane is used up.
    pub(super) fn sealer(&mut self, session: &Arc<Session>) -> Option<&mut LaneSealer> {
        let index = session.local_index();
        match self.sealers.entry(index) {
            Entry::Occupied(sealer) => Some(sealer.into_mut()),
            Entry::Vacant(vacant) => Some(vacant.insert(session.claim_lane(Lane::NODE)?)),
        }
    }

    /// Drops the sealer of a session that is gone.
    pub(super) fn forget_session(&mut self, index: SessionIndex) {
        self.sealers.remove(&index);
        self.confirmed.remove(&index);
    }
}
