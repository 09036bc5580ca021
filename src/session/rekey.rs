//! One peer's sessions in time: which one sends, which ones receive, and when the next is due.
//!
//! ```text
//!              initiator                                responder
//!   M2 came ─► unconfirmed ─ anything authentic ─┐      M2 sent ─► tentative ─ anything authentic (D3) ─┐
//!              │ empty packets at 0…800 ms       ▼                 │                                    ▼
//!              │                             confirmed             │                 answer, store ► confirmed
//!              └─ 5 s: retired                   │ a newer one     └─ 8 s: retired                      │
//!                                                ▼                                                      ▼
//!                                previous: receives on; 180 s end all of them
//! ```
//! Of handshakes that crossed, each side can only guess which the other takes for the newer: what it does not send in, it still receives.
//!
//! A session that carries nothing is silent and expires: a rekey happens only in use, or when the node keeps the peer close.

use super::handshake::responder::is_still_admitted;
use super::handshake::{ATTEMPT_LIFETIME, Established, HALF_OPEN_LIFETIME};
use super::seal::{MAX_AGE, Role, Scope, Session};
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::policy::{Policy, Rights};
use crate::time::Instant;
use crate::wire::datagram::SessionIndex;
use crate::wire::handshake::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// When the initiator sends an empty packet after M2, until something authentic comes.
pub const CONFIRMATIONS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];
/// Age at which a session's initiator makes a new one.
pub const REKEY_AS_INITIATOR: Duration = Duration::from_secs(120);
/// Age at which its responder does, because the initiator did not.
pub const REKEY_AS_RESPONDER: Duration = Duration::from_secs(150);
/// A session is in use when a packet of the data threads passed within this time; past the rekey age it is looked at twice as often.
pub const IN_USE: Duration = Duration::from_secs(10);
/// Tentative sessions of one peer: a third is refused, because a D1 replaces nothing. Unconfirmed ones, which this node began, are as
/// many, and the oldest makes room.
pub const MAX_TENTATIVE: usize = 2;
/// Sessions of one peer altogether: two tentative, two unconfirmed, a pair, and previous ones. When full the oldest previous one goes.
pub const MAX_SESSIONS: usize = 8;

const REKEY_CHECK: Duration = Duration::from_secs(5);

/// What the node has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Seal an empty packet in this session and send it.
    SendConfirmation(SessionIndex),
    /// Begin a handshake with the peer, unless one is under way.
    StartHandshake(RekeyReason),
    /// Forget the session: its packets are unknown from now on, and its index is free.
    Retire(SessionIndex),
    /// Store the latest confirmed initiation of the peer's key, some time soon.
    StoreTimestamp(TransportKey, Timestamp),
}

/// Why a new session is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RekeyReason {
    /// The key is in use, or its peer is kept close, and old.
    Age,
    /// The key has sealed or opened many packets, or seen many forgeries.
    Worn,
    /// The clock jumped: the peer may have forgotten the key.
    ClockJump,
    /// The peer answered a handshake and then nothing under its key.
    Unconfirmed,
}

/// What a deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// To send the next confirmation, or give the session up.
    Confirm,
    /// To see whether an old session is in use.
    Rekey,
    /// To retire a session.
    Retire,
}

enum State {
    /// Responder, before D3.
    Tentative { until: Instant, timestamp: Option<Timestamp> },
    /// Initiator, before anything came.
    Unconfirmed { confirmations_sent: usize },
    /// Both sides have the key. An empty packet from the initiator says that it does not know yet.
    Confirmed { answers_left: usize, next_check: Instant },
    /// Replaced: receives only.
    Previous,
}

struct Held {
    session: Arc<Session>,
    guest_there: bool,
    state: State,
}

impl Held {
    fn is_confirmed(&self) -> bool {
        matches!(self.state, State::Confirmed { .. })
    }

    /// Says whether each side takes the other for a member, as far as this side can tell.
    fn is_among_members(&self) -> bool {
        let session = &self.session;
        !self.guest_there && session.admission().rights() != Rights::Guest && session.scope() == Scope::Full
    }

    fn hard_stop(&self) -> Instant {
        self.session.created() + MAX_AGE
    }
}

/// The sessions of one peer, or of one guest.
pub struct PeerSessions {
    local: NodeId,
    remote: Option<NodeId>,
    held: Vec<Held>,
    next_handshake: Instant,
    is_kept: bool,
}

impl PeerSessions {
    /// Starts without a session. `remote` is none for a guest.
    pub fn new(local: NodeId, remote: Option<NodeId>) -> Self {
        Self { local, remote, held: Vec::new(), next_handshake: Instant::ZERO, is_kept: false }
    }

    /// Takes whether the node keeps the peer close: then an old session is replaced although nothing uses it.
    pub fn set_kept(&mut self, is_kept: bool) {
        self.is_kept = is_kept;
    }

    /// Takes the peer's identity, once a guest became a member.
    pub fn set_remote(&mut self, remote: Option<NodeId>) {
        self.remote = remote;
    }

    /// Takes a finished handshake, of either role.
    pub fn handle_established(&mut self, now: Instant, established: Established) -> Vec<Action> {
        let Established { session, timestamp, guest_there, .. } = established;
        let index = session.local_index();
        let mut actions = Vec::new();
        let state = match session.role() {
            Role::Initiator => {
                self.make_room(&mut actions, |state| matches!(state, State::Unconfirmed { .. }), MAX_TENTATIVE);
                actions.push(Action::SendConfirmation(index));
                State::Unconfirmed { confirmations_sent: 1 }
            }
            Role::Responder => {
                // A D1 replaces nothing: not even what another D1 led to, while that may still be confirmed.
                let is_over = |held: &Held| matches!(held.state, State::Tentative { until, .. } if now >= until);
                actions = self.retire_where(is_over);
                let is_tentative = |held: &&Held| matches!(held.state, State::Tentative { .. });
                if self.held.iter().filter(is_tentative).count() >= MAX_TENTATIVE {
                    actions.push(Action::Retire(index));
                    return actions;
                }
                State::Tentative { until: now + HALF_OPEN_LIFETIME, timestamp }
            }
        };
        let of_other_kinds = self.held.iter().filter(|held| !matches!(held.state, State::Previous)).count();
        let room = MAX_SESSIONS.saturating_sub(of_other_kinds);
        self.make_room(&mut actions, |state| matches!(state, State::Previous), room);
        self.held.push(Held { session, guest_there, state });
        actions
    }

    /// Takes the news that an authentic packet came: the first of a session, or an empty one.
    pub fn handle_received(&mut self, now: Instant, index: SessionIndex, is_empty: bool) -> Vec<Action> {
        let Some(held) = self.held.iter_mut().find(|held| held.session.local_index() == index) else {
            return Vec::new();
        };
        let session = &held.session;
        let mut actions = Vec::new();
        match (&mut held.state, session.role()) {
            (State::Tentative { timestamp, .. }, _) => {
                let key = *session.admission().transport_key();
                actions.extend(timestamp.map(|timestamp| Action::StoreTimestamp(key, timestamp)));
                actions.push(Action::SendConfirmation(index));
                held.state = confirmed(session, CONFIRMATIONS.len() - 1);
                self.supersede();
            }
            (State::Unconfirmed { .. }, _) => {
                held.state = confirmed(session, 0);
                self.supersede();
            }
            // The initiator stops when an answer comes, so another empty packet soon after says that the answer was lost.
            (State::Confirmed { answers_left, .. }, Role::Responder)
                if is_empty
                    && *answers_left > 0
                    && session.may_seal()
                    && now < session.created() + HALF_OPEN_LIFETIME =>
            {
                *answers_left -= 1;
                actions.push(Action::SendConfirmation(index));
            }
            (State::Confirmed { .. } | State::Previous, _) => {}
        }
        actions
    }

    /// Takes the news that the machine slept or its clock jumped: nobody seals anything under a key from before, and a new one is asked
    /// for. What nobody confirmed ends; the rest receives on.
    pub fn handle_clock_jump(&mut self, now: Instant) -> Vec<Action> {
        let had_session = !self.held.is_empty();
        let is_unproved = |held: &Held| matches!(held.state, State::Tentative { .. } | State::Unconfirmed { .. });
        let mut actions = self.retire_where(is_unproved);
        self.held.iter().for_each(|held| held.session.stop_sealing());
        if had_session {
            // Also when an attempt is under way: it may be as stale as the sessions are.
            self.next_handshake = now;
            self.start_handshake(now, RekeyReason::ClockJump, &mut actions);
        }
        actions
    }

    /// Takes a new policy: every session whose peer is no longer what it was admitted as ends at once.
    pub fn handle_policy(&mut self, policy: &Policy) -> Vec<Action> {
        self.retire_where(|held| !is_still_admitted(policy, held.session.admission()))
    }

    /// Takes a goodbye that came in a session: that one ends, what crossed it, and what is older than either. A newer one was made by a
    /// peer that is back.
    pub fn handle_goodbye(&mut self, index: SessionIndex) -> Vec<Action> {
        let Some(last) = self.held.iter().position(|held| held.session.local_index() == index) else {
            return Vec::new();
        };
        let last = self.held.remove(last);
        let mut actions = vec![Action::Retire(index)];
        let crossed = self.held.iter().filter(|held| is_pair(held, &last)).map(|held| held.session.created());
        let until = crossed.fold(last.session.created(), Instant::max);
        actions.extend(self.retire_where(|held| held.session.created() <= until));
        actions
    }

    /// Ends every session, at the end of a guest's stay.
    pub fn retire_all(&mut self) -> Vec<Action> {
        self.retire_where(|_| true)
    }

    /// Returns the session to send in: a confirmed one before an unconfirmed one, the newest first.
    ///
    /// Of a pair from a simultaneous open both sides take the one of two members, or else whose initiator has the lower node id.
    pub fn sending(&self) -> Option<&Arc<Session>> {
        self.sending_held().map(|held| &held.session)
    }

    /// Iterates over the sessions that receive.
    pub fn receiving(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.held.iter().map(|held| &held.session)
    }

    /// Says whether the peer has no session at all.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns the next deadline and its reason.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        let sending = self.sending_held().map(|held| held.session.local_index());
        let deadline = |held: &Held| {
            let (at, reason) = match &held.state {
                State::Tentative { until, .. } => (*until, Reason::Retire),
                State::Unconfirmed { confirmations_sent } => {
                    (next_confirmation(held, *confirmations_sent), Reason::Confirm)
                }
                State::Confirmed { next_check, .. } if sending == Some(held.session.local_index()) => {
                    (*next_check, Reason::Rekey)
                }
                State::Confirmed { .. } | State::Previous => (held.hard_stop(), Reason::Retire),
            };
            (at, reason).min((held.hard_stop(), Reason::Retire))
        };
        self.held.iter().map(deadline).min()
    }

    /// Acts on the deadlines that have come. The node also calls it once a second, which finds keys that are worn before they are old.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        for held in &mut self.held {
            let State::Unconfirmed { confirmations_sent } = &mut held.state else { continue };
            while let Some(after) = CONFIRMATIONS.get(*confirmations_sent) {
                if now < held.session.created() + *after {
                    break;
                }
                // Late calls catch up with one packet, not with a burst.
                actions.retain(|action| *action != Action::SendConfirmation(held.session.local_index()));
                actions.push(Action::SendConfirmation(held.session.local_index()));
                *confirmations_sent += 1;
            }
        }
        self.retire_due(now, &mut actions);
        self.rekey_when_due(now, &mut actions);
        actions
    }

    fn retire_due(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let was_used = |held: &Held| {
            matches!(held.state, State::Unconfirmed { .. }) && held.session.packets_sent() > CONFIRMATIONS.len() as u64
        };
        let is_due = |held: &Held| match &held.state {
            State::Tentative { until, .. } => now >= *until,
            State::Unconfirmed { .. } => now >= held.session.created() + ATTEMPT_LIFETIME,
            State::Confirmed { .. } | State::Previous => false,
        };
        let is_due = |held: &Held| is_due(held) || now >= held.hard_stop();
        let unanswered = self.held.iter().any(|held| is_due(held) && was_used(held));
        actions.extend(self.retire_where(is_due));
        if unanswered {
            self.start_handshake(now, RekeyReason::Unconfirmed, actions);
        }
    }

    fn rekey_when_due(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(index) = self.sending_held().map(|held| held.session.local_index()) else { return };
        let Some(held) = self.held.iter_mut().find(|held| held.session.local_index() == index) else { return };
        let State::Confirmed { next_check, .. } = &mut held.state else { return };
        let is_due = now >= *next_check;
        if is_due {
            *next_check = now + REKEY_CHECK;
        }
        let reason = if held.session.wants_rekey() {
            RekeyReason::Worn
        } else if is_due {
            let is_in_use = held.session.last_use().is_some_and(|used| now.saturating_since(used) <= IN_USE);
            if !is_in_use && !self.is_kept {
                return;
            }
            RekeyReason::Age
        } else {
            return;
        };
        self.start_handshake(now, reason, actions);
    }

    /// At most one per attempt's life: the attempt under way is the answer to every reason meanwhile.
    fn start_handshake(&mut self, now: Instant, reason: RekeyReason, actions: &mut Vec<Action>) {
        if now >= self.next_handshake {
            self.next_handshake = now + ATTEMPT_LIFETIME;
            actions.push(Action::StartHandshake(reason));
        }
    }

    fn sending_held(&self) -> Option<&Held> {
        let may_send = |held: &&Held| held.session.may_seal();
        let newest = |which: fn(&State) -> bool| {
            self.held
                .iter()
                .filter(may_send)
                .filter(|held| which(&held.state))
                .max_by_key(|held| held.session.created())
        };
        let Some(newest_confirmed) = newest(|state| matches!(state, State::Confirmed { .. })) else {
            return newest(|state| matches!(state, State::Unconfirmed { .. }));
        };
        let twin = self.held.iter().filter(may_send).find(|held| is_pair(held, newest_confirmed));
        let (Some(twin), Some(remote)) = (twin, self.remote) else { return Some(newest_confirmed) };
        let lower = if self.local < remote { Role::Initiator } else { Role::Responder };
        [twin, newest_confirmed].into_iter().max_by_key(|held| (held.is_among_members(), held.session.role() == lower))
    }

    /// Demotes every confirmed session but the newest and its newest twin.
    fn supersede(&mut self) {
        let confirmed = self.held.iter().filter(|held| held.is_confirmed());
        let Some(newest) = confirmed.max_by_key(|held| held.session.created()) else { return };
        let twins = self.held.iter().filter(|held| is_pair(held, newest));
        let twin = twins.max_by_key(|held| held.session.created());
        let keep = [Some(newest), twin].map(|kept| kept.map(|held| held.session.local_index()));
        for held in self.held.iter_mut().filter(|held| held.is_confirmed()) {
            if !keep.contains(&Some(held.session.local_index())) {
                held.state = State::Previous;
            }
        }
    }

    /// Retires the oldest of a kind until less than `limit` are there.
    fn make_room(&mut self, actions: &mut Vec<Action>, of_kind: fn(&State) -> bool, limit: usize) {
        while self.held.iter().filter(|held| of_kind(&held.state)).count() >= limit {
            let Some(oldest) = self.held.iter().position(|held| of_kind(&held.state)) else { return };
            actions.push(Action::Retire(self.held.remove(oldest).session.local_index()));
        }
    }

    fn retire_where(&mut self, which: impl Fn(&Held) -> bool) -> Vec<Action> {
        let retired = self.held.extract_if(.., |held| which(held));
        retired.map(|held| Action::Retire(held.session.local_index())).collect()
    }
}

/// Says whether a confirmed session and another came of handshakes that crossed: each side began one, within an attempt's life.
fn is_pair(held: &Held, other: &Held) -> bool {
    let [at, other_at] = [held, other].map(|held| held.session.created());
    held.is_confirmed()
        && held.session.role() != other.session.role()
        && at.max(other_at).saturating_since(at.min(other_at)) < ATTEMPT_LIFETIME
}

fn confirmed(session: &Session, answers_left: usize) -> State {
    let rekey_age = match session.role() {
        Role::Initiator => REKEY_AS_INITIATOR,
        Role::Responder => REKEY_AS_RESPONDER,
    };
    State::Confirmed { answers_left, next_check: session.created() + rekey_age }
}

fn next_confirmation(held: &Held, confirmations_sent: usize) -> Instant {
    held.session.created() + CONFIRMATIONS.get(confirmations_sent).copied().unwrap_or(ATTEMPT_LIFETIME)
}

#[cfg(test)]
mod tests;
