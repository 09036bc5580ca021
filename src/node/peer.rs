//! One peer as the slow side sees it: its sessions, the attempt to make one, and its paths.

use super::peers::dormancy::Dormancy;
use super::peers::punching::Punch;
use super::peers::source_of;
use crate::crypto::identity::NodeId;
use crate::path::mtu::MtuSearch;
use crate::path::{Paths, Traffic};
use crate::session::{Initiator, LaneSealer, Origin, PeerSessions, Session, Source};
use crate::time::Instant;
use crate::wire::datagram::{Lane, SessionIndex};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Waits after attempts that led nowhere, doubling from the first to the longest.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// How long a guest stays: then its sessions end, and its place is free for others. It may come again.
pub(super) const GUEST_STAY: Duration = Duration::from_secs(600);

/// How long one that was not reached counts as away, beyond the wait before it may be tried again: the first time, doubling up to the longest.
const FIRST_AWAY: Duration = Duration::from_secs(600);
const LONGEST_AWAY: Duration = Duration::from_secs(9600);

/// A goodbye to a session younger than this says that there is no place for this node.
const DISMISSAL_AGE: Duration = Duration::from_secs(5);

/// Silent for this long although it owes an answer, and asked by a probe for a second of it, a peer is taken for gone where others can do
/// what it does.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// How often others are asked to help find one peer.
const SEEK_INTERVAL: Duration = Duration::from_secs(1);

/// How long one whose NAT lets nobody in is tried all the same, and how long then not: an attempt, and longer than NATs remember what came.
const TRY_FOR: Duration = Duration::from_secs(6);
const TRY_INTERVAL: Duration = Duration::from_secs(45);

/// How often new endpoints in a peer's record cut its wait short.
const RECORD_INTERVAL: Duration = Duration::from_secs(30);

/// An attempt to make a session.
pub(super) struct Attempt {
    /// The handshake.
    pub(super) initiator: Initiator,
    /// Where its datagrams go: every candidate at the start of the attempt, and the ways through relays.
    pub(super) targets: Vec<Source>,
    /// When it began.
    pub(super) begun_at: Instant,
    /// When those through relays get their first flight; none when they may have had it.
    pub(super) relays_at: Option<Instant>,
    /// It renews a session by the path in use, and was not sent anywhere else.
    pub(super) is_renewal: bool,
    /// The targets that got the flight again for a cookie.
    pub(super) paid: BTreeSet<Source>,
}

/// Waits that grow: a second, then doubling up to a minute.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    over_at: Instant,
}

impl Backoff {
    /// Says whether the wait is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.over_at
    }

    /// When the wait is over.
    pub(super) fn over_at(&self) -> Instant {
        self.over_at
    }

    /// Notes a failure: the next wait is longer.
    pub(super) fn fail(&mut self, now: Instant) {
        let wait = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(6)).min(LONGEST_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        self.over_at = now + wait;
    }

    /// Forgets all failures.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
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
    pub(super) attempt: Option<Box<Attempt>>,
    /// What its path in use takes.
    pub(super) mtu: MtuSearch,
    /// The direct path that is being opened.
    pub(super) punch: Option<Punch>,
    /// Whether its path in use may be gone because nothing used it.
    pub(super) dormancy: Dormancy,
    /// Whether the peer said, in the last handshake, that this node is a guest there.
    pub(super) guest_there: bool,
    /// Waits before the peer is asked again whether it knows by now that this node is a member.
    pub(super) recognition: Backoff,
    /// Since when it has been a guest here without a pause.
    pub(super) guest_since: Option<Instant>,
    /// Whence it came as a guest, which its cookie proved.
    pub(super) guest_origin: Option<Origin>,
    /// Waits after goodbyes to sessions that had just begun: there is no place for this node.
    pub(super) dismissals: Backoff,
    /// When something authentic last came in a session that is gone.
    pub(super) last_heard: Option<Instant>,
    /// Bytes sent and received in sessions that are gone.
    pub(super) past_bytes: (u64, u64),
    /// Datagrams that did not open in its sessions, when that was last looked at.
    pub(super) failed_opens: u64,
    /// The node's own lane in each session.
    sealers: BTreeMap<SessionIndex, LaneSealer>,
    /// Sessions in which the peer was heard.
    confirmed: BTreeSet<SessionIndex>,
    attempts: Backoff,
    record_heeded: Option<Instant>,
    /// When others were last asked to help find it.
    sought_at: Option<Instant>,
    /// Its record says that its NAT lets nobody in.
    pub(super) is_closed: bool,
    /// Until then its endpoints are tried all the same.
    tried_until: Option<Instant>,
    /// The session that it came for from a place that it had not been asked at.
    pub(super) came_unasked: Option<SessionIndex>,
    /// From where it did, until that is told.
    pub(super) came_from: Option<SocketAddr>,
    /// It ended its sessions itself, and was not heard since.
    said_goodbye: bool,
}

impl Peer {
    pub(super) fn new(local: NodeId, id: Option<NodeId>) -> Self {
        Self {
            id,
            sessions: PeerSessions::new(local, id),
            paths: Paths::default(),
            mtu: MtuSearch::default(),
            attempt: None,
            punch: None,
            dormancy: Dormancy::default(),
            guest_there: false,
            recognition: Backoff::default(),
            guest_since: None,
            guest_origin: None,
            dismissals: Backoff::default(),
            last_heard: None,
            past_bytes: (0, 0),
            failed_opens: 0,
            sealers: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            attempts: Backoff::default(),
            record_heeded: None,
            sought_at: None,
            is_closed: false,
            tried_until: None,
            came_unasked: None,
            came_from: None,
            said_goodbye: false,
        }
    }

    /// Says whether a new attempt may begin: none is under way, and the waits after the last failure and dismissal are over.
    pub(super) fn may_attempt(&self, now: Instant) -> bool {
        self.attempt.is_none() && self.attempts.is_over(now) && self.dismissals.is_over(now)
    }

    /// Says whether others may be asked to help find it, once a second, and notes that they are.
    pub(super) fn may_seek(&mut self, now: Instant) -> bool {
        let may = self.sought_at.is_none_or(|at| now.saturating_since(at) >= SEEK_INTERVAL);
        if may {
            self.sought_at = Some(now);
        }
        may
    }

    /// Has its endpoints tried although its NAT lets nobody in: nobody else helps. Now and then: what comes unasked makes some NATs choose other
    /// ports. Returns whether that is news.
    pub(super) fn try_directly(&mut self, now: Instant) -> bool {
        let is_due = self.tried_until.is_none_or(|until| now >= until + TRY_INTERVAL);
        if is_due {
            self.tried_until = Some(now + TRY_FOR);
        }
        is_due
    }

    /// Says whether something sent to its endpoints may arrive.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        !self.is_closed || self.tried_until.is_some_and(|until| now < until)
    }

    /// Notes a goodbye in a session of this age.
    pub(super) fn note_goodbye(&mut self, now: Instant, age: Duration) {
        self.said_goodbye = true;
        if age < DISMISSAL_AGE {
            self.dismissals.fail(now);
        } else {
            self.dismissals.reset();
        }
    }

    /// When something last passed in its sessions.
    pub(super) fn traffic(&self) -> Traffic {
        let latest = |moment: fn(&Session) -> Option<Instant>| {
            self.sessions.receiving().filter_map(|session| moment(session)).max()
        };
        Traffic {
            sent: latest(Session::last_sent),
            received: latest(Session::last_received),
            used: latest(Session::last_use),
        }
    }

    /// When the peer was last heard, or its newest session made.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        self.sessions.receiving().map(|session| session.last_received().unwrap_or(session.created())).max()
    }

    /// Says whether it is not there, as far as anybody can tell: it said goodbye, answers no handshake, or leaves a probe unanswered.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        let owes = self.paths.owed_since().is_some_and(|since| now.saturating_since(since) >= SILENT_AFTER);
        owes || self.has_failed() || self.said_goodbye
    }

    /// Notes an attempt that nobody answered: the next one waits longer.
    pub(super) fn attempt_failed(&mut self, now: Instant) {
        self.attempt = None;
        self.attempts.fail(now);
    }

    /// Says whether the last attempt was in vain.
    pub(super) fn has_failed(&self) -> bool {
        self.attempts.failures > 0
    }

    /// Says whether nothing is known of where it is, or the last attempt to reach it led nowhere, not long ago.
    pub(super) fn is_away(&self, now: Instant) -> bool {
        let is_lost = self.paths.candidates().ranked().is_empty() && self.other_targets().next().is_none();
        let has_failed = self.has_failed() && now < self.attempts.over_at() + self.away_for();
        !self.is_usable() && self.attempt.is_none() && (is_lost || has_failed)
    }

    /// How long it counts as away after so many failures.
    fn away_for(&self) -> Duration {
        let doublings = self.attempts.failures.saturating_sub(1).min(16);
        FIRST_AWAY.saturating_mul(1 << doublings).min(LONGEST_AWAY)
    }

    /// When the next attempt may begin, as far as the last one that failed is concerned.
    pub(super) fn next_attempt(&self) -> Instant {
        self.attempts.over_at()
    }

    /// Notes an attempt that came to a session.
    pub(super) fn attempt_succeeded(&mut self) {
        self.attempt = None;
        self.attempts.reset();
    }

    /// Notes that the peer was heard in this session. Returns whether that is news.
    pub(super) fn confirm(&mut self, index: SessionIndex) -> bool {
        self.said_goodbye = false;
        self.confirmed.insert(index)
    }

    /// Says whether the peer was heard in this session.
    pub(super) fn is_confirmed(&self, index: SessionIndex) -> bool {
        self.confirmed.contains(&index)
    }

    /// The targets that its ways through relays are, and its link over TLS.
    pub(super) fn other_targets(&self) -> impl Iterator<Item = Source> {
        self.paths.relayed().map(|(_, path)| path).chain(self.paths.stream()).map(|path| source_of(&path))
    }

    /// Says whether there is a session that both sides have confirmed, and a path.
    pub(super) fn is_usable(&self) -> bool {
        self.paths.path().is_some()
            && self.sessions.sending().is_some_and(|session| self.is_confirmed(session.local_index()))
    }

    /// Says whether the peer has deadlines or needs watching.
    pub(super) fn is_busy(&self) -> bool {
        self.attempt.is_some() || !self.sessions.is_empty()
    }

    /// When something of its sessions or its attempt is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let attempt = self.attempt.as_ref().and_then(|attempt| attempt.initiator.poll_timeout());
        let relays = self.attempt.as_ref().and_then(|attempt| attempt.relays_at);
        let sessions = self.sessions.poll_timeout().map(|(at, _)| at);
        let punch = self.punch.as_ref().map(Punch::next_at);
        let mtu = if self.is_unmeasured() { Some(Instant::ZERO) } else { self.mtu.poll_timeout() };
        [sessions, attempt.map(|(at, _)| at), relays, punch, mtu].into_iter().flatten().min()
    }

    /// Says whether nobody vouches for the peer: no member that the ledger names, and known only because it came.
    pub(super) fn is_stranger(&self) -> bool {
        self.id.is_none() && self.paths.candidates().is_only_observed()
    }

    /// Forgets earlier failures: something changed that may make the next attempt succeed.
    pub(super) fn retry_at_once(&mut self) {
        self.attempts.reset();
        self.recognition.reset();
        self.dismissals.reset();
    }

    /// Notes what a finished handshake says of both sides: whether this node is a guest there, and the peer one here.
    pub(super) fn note_standing(&mut self, now: Instant, guest_there: bool, is_guest: bool) {
        self.guest_there = guest_there;
        if guest_there {
            self.recognition.fail(now);
        } else {
            self.recognition.reset();
        }
        self.guest_since = if is_guest { self.guest_since.or(Some(now)) } else { None };
    }

    /// Says whether a guest has stayed as long as guests may.
    pub(super) fn is_stay_over(&self, now: Instant) -> bool {
        self.guest_since.is_some_and(|since| now.saturating_since(since) >= GUEST_STAY)
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

    /// Drops the sealer of a session that is gone, and keeps what the session carried.
    pub(super) fn forget_session(&mut self, index: SessionIndex) {
        self.confirmed.remove(&index);
        // Where the node itself never sealed, nothing was confirmed and nothing came.
        let Some(sealer) = self.sealers.remove(&index) else { return };
        let session = sealer.session();
        self.last_heard = self.last_heard.max(session.last_received());
        self.past_bytes.0 += session.bytes_sent();
        self.past_bytes.1 += session.bytes_received();
    }
}
