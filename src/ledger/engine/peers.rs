//! What peers say of their chains, and how far each is believed.

use crate::crypto::exchange::TransportKey;
use crate::ledger::block::Height;
use crate::time::Instant;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

/// The most peers whose heads are remembered; more are heard and forgotten.
const MAX_PEERS: usize = 1024;
/// How often one peer is asked for its pending revocations.
const REVOCATIONS_EVERY: Duration = Duration::from_secs(5);

/// Where the peers' chains end, and what was asked of whom.
#[derive(Default)]
pub(super) struct Peers {
    claims: BTreeMap<TransportKey, Claim>,
    asked_revocations: BTreeMap<TransportKey, Instant>,
    pub(super) fetch: Option<Fetch>,
    /// Whether a member told of its head since the start.
    member_was_heard: bool,
}

/// Where a peer says that its chain ends. Only an answer proves it.
#[derive(Clone, Copy)]
struct Claim {
    /// None after it failed, until it tells of its head again.
    height: Option<Height>,
    is_member: bool,
    /// Questions that it did not answer, or answered wrongly, since it last answered one well.
    failures: u32,
}

impl Claim {
    /// Whom to ask first: members, then whoever failed least, then the longest chain. A lie costs its teller its place.
    fn rank(&self) -> (bool, Reverse<u32>, Option<Height>) {
        (self.is_member, Reverse(self.failures), self.height)
    }

    fn is_credible(&self) -> bool {
        self.is_member && self.failures == 0
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
        self.claims.values().filter(|claim| claim.is_credible()).filter_map(|claim| claim.height).max()
    }

    /// Says whether a member told of its head since the start.
    pub(super) fn member_was_heard(&self) -> bool {
        self.member_was_heard
    }

    pub(super) fn fetch_deadline(&self) -> Option<Instant> {
        self.fetch.as_ref().map(|fetch| fetch.deadline)
    }

    pub(super) fn note(&mut self, peer: TransportKey, height: Height, is_member: bool) {
        self.member_was_heard |= is_member;
        let is_full = self.claims.len() >= MAX_PEERS;
        match self.claims.get_mut(&peer) {
            Some(claim) => (claim.height, claim.is_member) = (Some(height), is_member),
            None if is_full => {}
            None => drop(self.claims.insert(peer, Claim { height: Some(height), is_member, failures: 0 })),
        }
    }

    /// Notes a question that was not answered well: the peer is believed to have nothing until it tells of its head again.
    pub(super) fn fail(&mut self, peer: &TransportKey) {
        if let Some(claim) = self.claims.get_mut(peer) {
            claim.height = None;
            claim.failures = claim.failures.saturating_add(1);
        }
    }

    pub(super) fn succeed(&mut self, peer: &TransportKey) {
        if let Some(claim) = self.claims.get_mut(peer) {
            claim.failures = 0;
        }
    }

    /// Picks whom to ask for the block at `height`.
    pub(super) fn with(&self, height: Height) -> Option<TransportKey> {
        let able = self.claims.iter().filter(|(_, claim)| claim.height >= Some(height));
        able.max_by_key(|(_, claim)| claim.rank()).map(|(peer, _)| *peer)
    }

    /// Says whether somebody better is there than who was asked: a guest's lie must not hold up what a member offers.
    pub(super) fn is_worse(&self, asked: &TransportKey, other: &TransportKey) -> bool {
        let standing =
            |peer: &TransportKey| self.claims.get(peer).map(|claim| (claim.is_member, Reverse(claim.failures)));
        standing(asked) < standing(other)
    }

    pub(super) fn forget(&mut self, peer: &TransportKey) {
        self.claims.remove(peer);
        self.asked_revocations.remove(peer);
        self.fetch.take_if(|fetch| fetch.peer == *peer);
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
