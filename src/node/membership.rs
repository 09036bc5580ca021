//! Is this node a member, and if not, what is it waiting for?
//!
//! ```text
//!   ticket ─► Joining ─ synced, Join submitted ─► Joining ─ own admission in a block ─► Member
//!                 └─ refused by the ledger ─► Refused            Member ─ revoked ─► Revoked, ─ ended ─► Refused
//! ```
//! A joiner is a guest of the members that its ticket names: it syncs from them, verifies against the ticket's checkpoint, and
//! hands in its Join; any member passes it on. Without a credential it stays a guest until a signer admits it. Nobody is admitted
//! provisionally. That one member refuses the Join says nothing: its ledger may be behind, its disk full. It is over when this node's own
//! ledger refuses it too. A ticket may be handed out before its credential is in a block: one that no block made yet is waited for.

use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::{NodeId, SigningKey};
use crate::ledger::block::Height;
use crate::ledger::name::Label;
use crate::ledger::{SignedTransaction, TxId};
use crate::time::Instant;
use borsh::{BorshDeserialize, BorshSerialize};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a handed-in Join may stay without an answer before another member gets it.
const SUBMIT_PATIENCE: Duration = Duration::from_secs(5);

/// How often a joiner looks for something to do.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What a ticket gives to a joiner.
pub struct Invitation {
    /// The credential's secret half; signs the Join and is never sent. Without one this node waits for a signer's Admit.
    pub credential: Option<SigningKey>,
    /// The name to ask for, when the credential has none.
    pub name: Option<Label>,
    /// Members that will serve a guest.
    pub bootstrap: Vec<Bootstrap>,
}

/// One member that the ticket names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// Its identity.
    pub id: NodeId,
    /// The key of its handshakes.
    pub transport_key: TransportKey,
    /// Where it may be.
    pub endpoints: Vec<SocketAddr>,
}

/// What this node is in its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A member.
    Member,
    /// On the way in; says what is waited for.
    Joining(&'static str),
    /// The own ledger refuses this node.
    Refused(Refusal),
    /// It was a member once.
    Revoked,
}

/// Why the own ledger refuses this node, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Refusal {
    /// The reason, in this node's own words.
    pub reason: String,
    /// What helps.
    pub remedy: Remedy,
}

/// What lets a refused node in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Remedy {
    /// Another name, with the same ticket.
    Name,
    /// Another ticket.
    Ticket,
}

/// The way in.
pub struct Membership {
    standing: Standing,
    invitation: Option<Invitation>,
    submitted: Option<Submitted>,
    told: Option<Standing>,
    next_look: Instant,
    /// No block below this height made the ticket's credential.
    searched: Height,
}

struct Submitted {
    id: TxId,
    join: SignedTransaction,
    at: Instant,
    /// A member did not take it, and the own ledger was not asked yet, or would take it.
    is_refused: bool,
}

impl Membership {
    /// Starts as a joiner with an invitation, else as what an earlier run ended as: refused for a reason, or a member.
    pub fn new(invitation: Option<Invitation>, refusal: Option<Refusal>) -> Self {
        let standing = match (&invitation, refusal) {
            (Some(_), _) => Standing::Joining("looking for a member of the ticket"),
            (None, Some(refusal)) => Standing::Refused(refusal),
            (None, None) => Standing::Member,
        };
        Self { standing, invitation, submitted: None, told: None, next_look: Instant::ZERO, searched: Height(0) }
    }

    /// What this node is.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Says whether this node is a member.
    pub fn is_member(&self) -> bool {
        self.standing == Standing::Member
    }

    /// Lends the invitation while it is needed.
    pub fn invitation(&self) -> Option<&Invitation> {
        self.invitation.as_ref()
    }

    /// The member with this identity, if the ticket names it.
    pub fn host(&self, id: &NodeId) -> Option<&Bootstrap> {
        self.invitation.as_ref()?.bootstrap.iter().find(|host| host.id == *id)
    }

    /// Follows the policy in force. Returns whether this node became a member just now.
    pub fn handle_policy(&mut self, is_member: bool, is_revoked: bool) -> bool {
        let became = is_member && self.standing != Standing::Member;
        if is_member {
            self.standing = Standing::Member;
            self.invitation = None;
            self.submitted = None;
        } else if is_revoked {
            self.standing = Standing::Revoked;
            self.invitation = None;
        } else if self.standing == Standing::Member {
            let reason = "the ledger has no membership of this node, or it ended".to_owned();
            self.standing = Standing::Refused(Refusal { reason, remedy: Remedy::Ticket });
        }
        became
    }

    /// Says whether a Join is to be handed in now: there is a credential for one, and no answer is awaited.
    pub fn may_submit(&self, now: Instant) -> bool {
        let waits =
            self.submitted.as_ref().is_some_and(|submitted| now.saturating_since(submitted.at) < SUBMIT_PATIENCE);
        self.has_credential() && !waits && matches!(self.standing, Standing::Joining(_))
    }

    /// Says whether this node can join by itself.
    pub fn has_credential(&self) -> bool {
        self.invitation.as_ref().is_some_and(|invitation| invitation.credential.is_some())
    }

    /// Notes that a Join was handed in.
    pub fn submitted(&mut self, now: Instant, id: TxId, join: SignedTransaction) {
        if self.searched == Height(0) {
            self.standing = Standing::Joining("waiting for validators");
        }
        self.submitted = Some(Submitted { id, join, at: now, is_refused: false });
    }

    /// Notes what is waited for.
    pub fn waiting_for(&mut self, what: &'static str) {
        if matches!(self.standing, Standing::Joining(_)) && self.submitted.is_none() {
            self.standing = Standing::Joining(what);
        }
    }

    /// Notes that a member did not take the Join. The next look says what that is worth.
    pub fn handle_refused(&mut self, id: &TxId) {
        if let Some(submitted) = self.submitted.as_mut().filter(|submitted| submitted.id == *id) {
            submitted.is_refused = true;
        }
    }

    /// Lends the Join that a member did not take.
    pub fn refused_join(&self) -> Option<&SignedTransaction> {
        self.submitted.as_ref().filter(|submitted| submitted.is_refused).map(|submitted| &submitted.join)
    }

    /// Lets a refusal end nothing: the next Join is signed anew.
    pub fn forget_refusal(&mut self) {
        if let Some(submitted) = &mut self.submitted {
            submitted.is_refused = false;
        }
    }

    /// Lets a refusal end nothing: the ticket's credential was in no block before `searched`, and may come with a later one.
    pub fn await_credential(&mut self, searched: Height) {
        self.searched = searched;
        self.forget_refusal();
        self.standing = Standing::Joining("waiting for the block that makes the ticket valid");
    }

    /// Returns the first height of which it is not known whether it made the ticket's credential.
    pub fn searched(&self) -> Height {
        self.searched
    }

    /// Ends the way in.
    pub fn refuse(&mut self, refusal: Refusal) {
        if !self.is_member() {
            self.standing = Standing::Refused(refusal);
            self.invitation = None;
            self.submitted = None;
        }
    }

    /// Says what this node is, once for every change.
    pub fn take_news(&mut self) -> Option<Standing> {
        if self.told.as_ref() == Some(&self.standing) {
            return None;
        }
        self.told = Some(self.standing.clone());
        self.told.clone()
    }

    /// Notes that the way in is looked at now.
    pub fn tended(&mut self, now: Instant) {
        self.next_look = now + LOOK_INTERVAL;
    }

    /// When the way in is to be looked at.
    pub fn poll_timeout(&self) -> Option<Instant> {
        matches!(self.standing, Standing::Joining(_)).then_some(self.next_look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Digest;
    use crate::ledger::Transaction;
    use crate::time::UnixMillis;

    fn joining() -> Membership {
        let credential = SigningKey::from_seed(&[1; 32]);
        Membership::new(Some(Invitation { credential: Some(credential), name: None, bootstrap: Vec::new() }), None)
    }

    fn refusal() -> Refusal {
        Refusal { reason: "the credential has expired".into(), remedy: Remedy::Ticket }
    }

    fn join() -> SignedTransaction {
        let key = SigningKey::from_seed(&[2; 32]);
        Transaction::new(key.verifying_key(), 1, UnixMillis(1), Vec::new()).sign(&Digest([3; 32]), &[&key])
    }

    #[test]
    fn a_join_is_handed_in_again_only_after_patience() {
        let mut membership = joining();
        let id = TxId(Digest([1; 32]));
        assert!(membership.may_submit(Instant::ZERO));
        membership.submitted(Instant::ZERO, id, join());
        assert!(!membership.may_submit(Instant::ZERO));
        assert!(membership.may_submit(Instant::ZERO + SUBMIT_PATIENCE));
        assert!(membership.handle_policy(true, false));
        assert!(!membership.handle_policy(true, false), "only once");
        assert!(!membership.may_submit(Instant::ZERO + SUBMIT_PATIENCE));
    }

    #[test]
    fn a_members_refusal_of_the_own_join_is_looked_at_and_ends_nothing_by_itself() {
        let mut membership = joining();
        membership.submitted(Instant::ZERO, TxId(Digest([1; 32])), join());
        membership.handle_refused(&TxId(Digest([2; 32])));
        assert_eq!(membership.refused_join(), None);
        membership.handle_refused(&TxId(Digest([1; 32])));
        assert_eq!(membership.refused_join(), Some(&join()));
        assert!(matches!(membership.standing(), Standing::Joining(_)));
        assert!(membership.may_submit(Instant::ZERO + SUBMIT_PATIENCE), "another member may take it");
        membership.refuse(refusal());
        assert_eq!(membership.standing(), &Standing::Refused(refusal()));
        assert!(membership.handle_policy(true, false), "an admission by a signer still counts");
    }

    #[test]
    fn the_reason_of_a_refusal_outlives_the_run_until_the_ledger_has_the_node() {
        let mut membership = Membership::new(None, Some(refusal()));
        assert!(!membership.handle_policy(false, false));
        assert_eq!(membership.standing(), &Standing::Refused(refusal()));
        assert!(membership.handle_policy(true, false), "a signer admitted it");
        membership.handle_policy(false, false);
        assert_ne!(membership.standing(), &Standing::Refused(refusal()), "that was before");
    }

    #[test]
    fn a_node_that_the_ledger_does_not_have_is_no_member_whatever_it_was() {
        let mut membership = Membership::new(None, None);
        assert!(!membership.handle_policy(false, false));
        assert!(matches!(membership.standing(), Standing::Refused(_)));
        assert!(membership.handle_policy(true, false));
        membership.handle_policy(false, false);
        assert!(!membership.is_member(), "its membership ended");
    }
}
