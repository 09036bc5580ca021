//! What peers say of their chains, and how far each is believed.

use crate::crypto::exchange::TransportKey;
use crate::ledger::block::Height;
use crate::ledger::transaction::TxId;
use crate::time::Instant;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

/// The most peers whose heads are remembered; more are heard and forgotten.
const MAX_PEERS: usize = 1024;
/// The most peers whose faults are remembered; beyond, those of a guest go first, which makes keys at will, and the older before the newer.
const MAX_FAULTS: usize = 1024;
/// How long a fault counts: a member that lied has to stay away for that long to be believed unseen.
const FAULT_MEMORY: Duration = Duration::from_secs(3600);
/// How long an answer with blocks may take before another peer is asked: half a megabyte at 1 Mb/s.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Failures after which a peer that does not answer is asked no more.
const MAX_UNANSWERED: u32 = 3;
/// How often one peer is asked for its pending revocations.
const REVOCATIONS_EVERY: Duration = Duration::from_secs(5);

/// Where the peers' chains end, and what was asked of whom.
#[derive(Default)]
pub(super) struct Peers {
    claims: BTreeMap<TransportKey, Claim>,
    /// What went wrong with whom. It outlives the sessions: a new one is no fresh start.
    faults: BTreeMap<TransportKey, Faults>,
    asked_revocations: BTreeMap<TransportKey, Instant>,
    /// The last revocation that a peer was sent, where one answer does not hold all.
    told_revocations: BTreeMap<TransportKey, TxId>,
    pub(super) fetch: Option<Fetch>,
}

/// Where a peer says that its chain ends. Only an answer proves it.
#[derive(Clone, Copy)]
struct Claim {
    /// None after it failed, until it tells of its head again.
    height: Option<Height>,
    is_member: bool,
}

/// What went wrong with a peer since it last answered a question well.
#[derive(Clone, Copy)]
struct Faults {
    /// Questions that it answered wrongly.
    wrong: u32,
    /// Questions that it did not answer.
    unanswered: u32,
    /// Questions that were open when its session ended. The first may be the network's fault.
    breaks: u32,
    is_member: bool,
    last: Instant,
}

impl Faults {
    fn count(&self) -> u32 {
        self.wrong.saturating_add(self.silences())
    }

    fn silences(&self) -> u32 {
        self.unanswered.saturating_add(self.breaks.saturating_sub(1))
    }
}

/// A question for blocks that was not answered yet.
pub(super) struct Fetch {
    pub(super) peer: TransportKey,
    pub(super) from: Height,
    pub(super) deadline: Instant,
}

impl Peers {
    /// The highest head that a member told of and that nothing speaks against.
    pub(super) fn highest(&self) -> Option<Height> {
        self.highest_where(|_| false)
    }

    /// The highest head that a member told of and that is not refuted: who was silent for a moment may have what it tells of all the same.
    pub(super) fn highest_told(&self) -> Option<Height> {
        self.highest_where(|faults| faults.wrong == 0 && faults.silences() < MAX_UNANSWERED)
    }

    /// The highest head of those members without faults, or with such as are excused.
    fn highest_where(&self, is_excused: impl Fn(&Faults) -> bool) -> Option<Height> {
        let is_credible = |peer| self.faults.get(peer).is_none_or(|faults| faults.count() == 0 || is_excused(faults));
        let credible = self.claims.iter().filter(|(peer, claim)| claim.is_member && is_credible(peer));
        credible.filter_map(|(_, claim)| claim.height).max()
    }

    pub(super) fn fetch_deadline(&self) -> Option<Instant> {
        self.fetch.as_ref().map(|fetch| fetch.deadline)
    }

    pub(super) fn note(&mut self, peer: TransportKey, height: Height, is_member: bool, now: Instant) {
        self.forgive(now);
        let is_full = self.claims.len() >= MAX_PEERS;
        match self.claims.get_mut(&peer) {
            Some(claim) => (claim.height, claim.is_member) = (Some(height), is_member),
            None if is_full => {}
            None => drop(self.claims.insert(peer, Claim { height: Some(height), is_member })),
        }
    }

    /// Notes a question that was not answered: the answer may be lost with its connection, where one of the two started anew. Who is
    /// silent again and again is believed to have nothing until it tells of its head again.
    pub(super) fn fall_silent(&mut self, peer: &TransportKey, now: Instant) {
        let faults = self.faults_of(peer, now);
        faults.unanswered = faults.unanswered.saturating_add(1);
        if faults.wrong.saturating_add(faults.unanswered) >= MAX_UNANSWERED
            && let Some(claim) = self.claims.get_mut(peer)
        {
            claim.height = None;
        }
    }

    /// Notes a wrong answer: the peer is believed to have nothing until it tells of its head again.
    pub(super) fn fail(&mut self, peer: &TransportKey, now: Instant) {
        if let Some(claim) = self.claims.get_mut(peer) {
            claim.height = None;
        }
        let faults = self.faults_of(peer, now);
        faults.wrong = faults.wrong.saturating_add(1);
    }

    pub(super) fn succeed(&mut self, peer: &TransportKey) {
        self.faults.remove(peer);
    }

    /// Lends the faults of a peer, to which one is about to be added.
    fn faults_of(&mut self, peer: &TransportKey, now: Instant) -> &mut Faults {
        self.forgive(now);
        if self.faults.len() >= MAX_FAULTS && !self.faults.contains_key(peer) {
            let least = self.faults.iter().min_by_key(|(_, faults)| (faults.is_member, faults.last));
            let least = least.map(|(peer, _)| *peer);
            least.and_then(|least| self.faults.remove(&least));
        }
        let is_member = self.claims.get(peer).is_some_and(|claim| claim.is_member);
        let faults =
            self.faults.entry(*peer).or_insert(Faults { wrong: 0, unanswered: 0, breaks: 0, is_member, last: now });
        faults.is_member |= is_member;
        faults.last = now;
        faults
    }

    fn forgive(&mut self, now: Instant) {
        self.faults.retain(|_, faults| now.saturating_since(faults.last) < FAULT_MEMORY);
    }

    fn fault_count(&self, peer: &TransportKey) -> u32 {
        self.faults.get(peer).map_or(0, Faults::count)
    }

    /// Whom to ask first: members, then whoever failed least. A lie costs its teller its place.
    fn standing(&self, peer: &TransportKey) -> Option<(bool, Reverse<u32>)> {
        self.claims.get(peer).map(|claim| (claim.is_member, Reverse(self.fault_count(peer))))
    }

    /// Picks whom to ask for the block at `height`: of equal standing, the one with the longest chain.
    pub(super) fn with(&self, height: Height) -> Option<TransportKey> {
        let able = self.claims.iter().filter(|(_, claim)| claim.height >= Some(height));
        able.max_by_key(|(peer, claim)| (self.standing(peer), claim.height)).map(|(peer, _)| *peer)
    }

    /// Says whether somebody better is there than who was asked: a guest's lie must not hold up what a member offers.
    pub(super) fn is_worse(&self, asked: &TransportKey, other: &TransportKey) -> bool {
        self.standing(asked) < self.standing(other)
    }

    /// Forgets what a peer told, but not what went wrong with it.
    pub(super) fn forget(&mut self, peer: &TransportKey, now: Instant) {
        if self.fetch.take_if(|fetch| fetch.peer == *peer).is_some() {
            let faults = self.faults_of(peer, now);
            faults.breaks = faults.breaks.saturating_add(1);
        }
        self.claims.remove(peer);
        self.asked_revocations.remove(peer);
        self.told_revocations.remove(peer);
    }

    /// Returns the revocation after which the next answer to a peer begins.
    pub(super) fn told_revocation(&self, peer: &TransportKey) -> Option<TxId> {
        self.told_revocations.get(peer).copied()
    }

    /// Notes up to which revocation a peer was told.
    pub(super) fn note_told(&mut self, peer: TransportKey, last: TxId) {
        if self.told_revocations.len() < MAX_PEERS || self.told_revocations.contains_key(&peer) {
            self.told_revocations.insert(peer, last);
        }
    }

    /// Says whether the peer may be asked for its revocations again, and notes that it is.
    pub(super) fn may_ask_revocations(&mut self, peer: TransportKey, now: Instant) -> bool {
        self.asked_revocations.retain(|_, at| now.saturating_since(*at) < REVOCATIONS_EVERY);
        let free = self.asked_revocations.len() < MAX_PEERS && !self.asked_revocations.contains_key(&peer);
        if free {
            self.asked_revocations.insert(peer, now);
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_was_silent_for_a_moment_is_still_waited_for_and_a_liar_is_not() {
        let (mut peers, now) = (Peers::default(), Instant::ZERO);
        let member = TransportKey([1; 32]);
        for silences in 1..=MAX_UNANSWERED {
            peers.note(member, Height(9), true, now);
            peers.fall_silent(&member, now);
            peers.note(member, Height(9), true, now);
            assert_eq!(peers.highest(), None, "no validator waits for it before it decides alone");
            let told = (silences < MAX_UNANSWERED).then_some(Height(9));
            assert_eq!(peers.highest_told(), told, "after {silences} questions");
        }
        peers.succeed(&member);
        peers.fail(&member, now);
        peers.note(member, Height(9), true, now);
        assert_eq!(peers.highest_told(), None);
    }

    #[test]
    fn guests_that_come_and_go_cannot_push_out_what_a_member_did() {
        let (mut peers, now) = (Peers::default(), Instant::ZERO);
        let member = TransportKey([255; 32]);
        peers.note(member, Height(9), true, now);
        peers.fail(&member, now);
        for number in 0..2 * MAX_FAULTS {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            let guest = TransportKey(key);
            peers.note(guest, Height(9), false, now);
            peers.fail(&guest, now);
            peers.forget(&guest, now);
            assert!(peers.faults.len() <= MAX_FAULTS);
        }
        assert_eq!(peers.fault_count(&member), 1);
        peers.note(member, Height(9), true, now);
        assert_eq!(peers.highest(), None);
        peers.succeed(&member);
        assert_eq!(peers.highest(), Some(Height(9)));
    }
}
