//! Is this node a member, and if not, what is it waiting for?
//!
//! ```text
//!   ticket ─► Joining ─ synced, Join submitted ─► Joining ─ own admission in a block ─► Member
//!                 └─ refused by the ledger ─► Refused            Member ─ revoked ─► Revoked
//! ```
//! A joiner is a guest of the members that its ticket names: it syncs from them, verifies against the ticket's checkpoint, and
//! hands in its Join; any member passes it on. Nobody is admitted provisionally.

use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::{NodeId, SigningKey};
use crate::ledger::TxId;
use crate::ledger::name::Label;
use crate::time::Instant;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a handed-in Join may stay without an answer before another member gets it.
const SUBMIT_PATIENCE: Duration = Duration::from_secs(5);

/// How often a joiner looks for something to do.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What a ticket gives to a joiner.
pub struct Invitation {
    /// The credential's secret half; signs the Join and is never sent.
    pub credential: SigningKey,
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
    /// The ledger refuses this node's Join, for the reason; a new ticket is needed.
    Refused(String),
    /// It was a member once.
    Revoked,
}

/// The way in.
pub struct Membership {
    standing: Standing,
    invitation: Option<Invitation>,
    submitted: Option<Submitted>,
    told: Option<Standing>,
    next_look: Instant,
}

struct Submitted {
    id: TxId,
    at: Instant,
}

impl Membership {
    /// Starts as a member, or with an invitation as a joiner.
    pub fn new(invitation: Option<Invitation>) -> Self {
        let standing = if invitation.is_some() {
            Standing::Joining("looking for a member of the ticket")
        } else {
            Standing::Member
        };
        Self { standing, invitation, submitted: None, told: None, next_look: Instant::ZERO }
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
        }
        became
    }

    /// Says whether a Join is to be handed in now: there is an invitation, and no answer is awaited.
    pub fn may_submit(&self, now: Instant) -> bool {
        let waits =
            self.submitted.as_ref().is_some_and(|submitted| now.saturating_since(submitted.at) < SUBMIT_PATIENCE);
        self.invitation.is_some() && !waits && matches!(self.standing, Standing::Joining(_))
    }

    /// Notes that a Join was handed in.
    pub fn submitted(&mut self, now: Instant, id: TxId) {
        self.standing = Standing::Joining("waiting for validators");
        self.submitted = Some(Submitted { id, at: now });
    }

    /// Notes what is waited for.
    pub fn waiting_for(&mut self, what: &'static str) {
        if matches!(self.standing, Standing::Joining(_)) && self.submitted.is_none() {
            self.standing = Standing::Joining(what);
        }
    }

    /// Takes a member's answer to the Join.
    pub fn handle_refused(&mut self, id: &TxId, reason: String) {
        if self.submitted.as_ref().is_some_and(|submitted| submitted.id == *id) {
            self.refuse(reason);
        }
    }

    /// Ends the way in.
    pub fn refuse(&mut self, reason: String) {
        if !self.is_member() {
            self.standing = Standing::Refused(reason);
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

    fn joining() -> Membership {
        let credential = SigningKey::from_seed(&[1; 32]);
        Membership::new(Some(Invitation { credential, name: None, bootstrap: Vec::new() }))
    }

    #[test]
    fn a_join_is_handed_in_again_only_after_patience() {
        let mut membership = joining();
        let id = TxId(Digest([1; 32]));
        assert!(membership.may_submit(Instant::ZERO));
        membership.submitted(Instant::ZERO, id);
        assert!(!membership.may_submit(Instant::ZERO));
        assert!(membership.may_submit(Instant::ZERO + SUBMIT_PATIENCE));
        assert!(membership.handle_policy(true, false));
        assert!(!membership.handle_policy(true, false), "only once");
        assert!(!membership.may_submit(Instant::ZERO + SUBMIT_PATIENCE));
    }

    #[test]
    fn only_the_answer_to_the_own_join_refuses() {
        let mut membership = joining();
        membership.submitted(Instant::ZERO, TxId(Digest([1; 32])));
        membership.handle_refused(&TxId(Digest([2; 32])), "expired".into());
        assert!(matches!(membership.standing(), Standing::Joining(_)));
        membership.handle_refused(&TxId(Digest([1; 32])), "expired".into());
        assert_eq!(membership.standing(), &Standing::Refused("expired".into()));
        assert!(membership.handle_policy(true, false), "an admission by a signer still counts");
    }
}
