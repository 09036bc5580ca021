//! The proof that a policy looked at a key: a session cannot be built without one.

use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;

/// What a session may carry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Rights {
    /// Everything that the member's grants allow.
    Member(NodeId),
    /// Consensus and sync streams only: a validator that was revoked on sight.
    Consensus(NodeId),
    /// The streams `join` and read-only `sync` only: an unknown or revoked key.
    Guest,
}

impl Rights {
    /// Says whether they are a member's.
    pub fn is_member(self) -> bool {
        matches!(self, Self::Member(_))
    }
}

/// A decision about one transport key, made by [`super::Policy::admit`] and by nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admission {
    transport_key: TransportKey,
    rights: Rights,
}

impl Admission {
    pub(super) fn new(transport_key: TransportKey, rights: Rights) -> Self {
        Self { transport_key, rights }
    }

    /// The key that was looked at.
    pub fn transport_key(&self) -> &TransportKey {
        &self.transport_key
    }

    /// What its holder may do.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// The member behind the key, when it is one in good standing.
    pub fn member(&self) -> Option<NodeId> {
        match self.rights {
            Rights::Member(id) => Some(id),
            Rights::Consensus(_) | Rights::Guest => None,
        }
    }
}
