//! Transactions that this node signs: what a user orders, as operations of the ledger.

use super::Node;
use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::Digest;
use crate::crypto::identity::{NodeId, SigningKey, VerifyingKey};
use crate::ledger::engine::SubmitError;
use crate::ledger::name::Label;
use crate::ledger::operation::{
    Admit, Credential, CredentialRevoke, Operation, Rename, Revoke, Scope, Scopes, SignerSet, credential_hash,
};
use crate::ledger::state::TxError;
use crate::ledger::{Transaction, TxId};
use crate::time::{Now, UnixMillis};
use rand_core::CryptoRng;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long an order may wait for its block, in block time.
const VALIDITY: Duration = Duration::from_secs(3600);

/// What an invitation gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvitationTerms {
    /// The name of who joins; implies one use.
    pub name: Option<Label>,
    /// The tags of who joins.
    pub tags: BTreeSet<Label>,
    /// How many may join by it.
    pub uses: u32,
    /// How long it is good for.
    pub lifetime: Duration,
}

/// A node to be admitted by a signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its identity.
    pub id: NodeId,
    /// The key of its node records.
    pub node_key: VerifyingKey,
    /// The key of its handshakes.
    pub transport_key: TransportKey,
    /// Its name.
    pub name: Option<Label>,
    /// Its tags.
    pub tags: BTreeSet<Label>,
}

/// A fresh credential: its secret goes into a ticket and nowhere else.
pub struct Issued {
    /// The transaction that registers it.
    pub tx: TxId,
    /// Its secret half.
    pub secret: SigningKey,
    /// Its name on the ledger.
    pub credential: Digest,
    /// When it ends by itself.
    pub expires: UnixMillis,
}

impl<R: CryptoRng> Node<R> {
    /// Registers a credential.
    ///
    /// # Errors
    /// [`SubmitError`] when the ledger refuses it.
    pub fn invite(&mut self, now: Now, terms: InvitationTerms) -> Result<Issued, SubmitError> {
        let secret = SigningKey::generate(&mut self.rng);
        let credential = credential_hash(&secret.verifying_key());
        let expires = self.network_time(now).after(terms.lifetime);
        let InvitationTerms { name, tags, uses, .. } = terms;
        let operation = Operation::Credential(Credential { key_hash: credential, name, tags, uses, expires });
        let tx = self.order(now, vec![operation])?;
        Ok(Issued { tx, secret, credential, expires })
    }

    /// Ends a credential.
    ///
    /// # Errors
    /// [`SubmitError`] when the ledger refuses it.
    pub fn revoke_invitation(&mut self, now: Now, credential: Digest) -> Result<TxId, SubmitError> {
        self.order(now, vec![Operation::CredentialRevoke(CredentialRevoke { key_hash: credential })])
    }

    /// Cuts a member: here at once, elsewhere on sight. One that was a signer loses that too, where this node governs.
    ///
    /// # Errors
    /// [`SubmitError`] when the ledger refuses it.
    pub fn revoke(&mut self, now: Now, identity: NodeId) -> Result<TxId, SubmitError> {
        let incarnation = self.ledger.state().incarnation(&identity);
        let transaction = Transaction::revocation(self.author(), [Revoke { identity, incarnation }]);
        let revocation = self.submit(now, transaction)?;
        self.end_signer(now, &identity);
        Ok(revocation)
    }

    /// Says whether an identity is a signer that this node, once it revokes it, makes one no more.
    pub fn may_end_signer(&self, identity: &NodeId) -> bool {
        let state = self.ledger.state();
        let governs = state.signer(&self.author()).is_some_and(|signer| signer.scopes.contains(Scope::Governance));
        *identity != self.own_id && governs && state.signer(&identity.verifying_key()).is_some()
    }

    /// Ends what a revoked identity may sign: by a transaction of its own, because with anything else a revocation would not act on sight.
    fn end_signer(&mut self, now: Now, identity: &NodeId) {
        if !self.may_end_signer(identity) {
            return;
        }
        let (key, none) = (identity.verifying_key(), Scopes::from_iter([]));
        if let Err(error) = self.order(now, vec![Operation::SignerSet(SignerSet { key, weight: 0, scopes: none })]) {
            tracing::warn!(%identity, %error, "revoked, and a signer still");
        }
    }

    /// Orders again what ends a signer, where it came into no block in time: a revoked one must not stay a signer unnoticed.
    pub(super) fn renew_ends(&mut self, now: Now, dropped: &Transaction, reason: &TxError) {
        if dropped.author != self.author() || !matches!(reason, TxError::Expired { .. } | TxError::Replayed { .. }) {
            return;
        }
        for operation in &dropped.operations {
            if let Operation::SignerSet(SignerSet { key, weight: 0, .. }) = operation
                && self.policy.is_revoked(&NodeId(key.0))
            {
                self.end_signer(now, &NodeId(key.0));
            }
        }
    }

    /// Renames a member.
    ///
    /// # Errors
    /// [`SubmitError`] when the ledger refuses it.
    pub fn rename(&mut self, now: Now, identity: NodeId, name: Label) -> Result<TxId, SubmitError> {
        self.order(now, vec![Operation::Rename(Rename { identity, name })])
    }

    /// Admits a node without a ticket.
    ///
    /// # Errors
    /// [`SubmitError`] when the ledger refuses it.
    pub fn authorize(&mut self, now: Now, candidate: Candidate) -> Result<TxId, SubmitError> {
        let Candidate { id, node_key, transport_key, name, tags } = candidate;
        let incarnation = self.ledger.state().incarnation(&id);
        let admit = Admit { identity: id, node_key, transport_key, name, tags, ipv4: None, expires: None, incarnation };
        self.order(now, vec![Operation::Admit(admit)])
    }

    /// Gives a key the right to sign everything that signers may, with weight 1.
    ///
    /// # Errors
    /// [`SubmitError`] when the ledger refuses it.
    pub fn add_signer(&mut self, now: Now, key: VerifyingKey) -> Result<TxId, SubmitError> {
        self.order(now, vec![Operation::SignerSet(SignerSet { key, weight: 1, scopes: Scopes::ALL })])
    }

    /// Signs and submits operations that happen together or not at all; [`crate::ledger::transaction::MAX_OPERATIONS`] at most.
    ///
    /// # Errors
    /// [`SubmitError`] when the ledger refuses them.
    pub fn order(&mut self, now: Now, operations: Vec<Operation>) -> Result<TxId, SubmitError> {
        let author = self.author();
        let valid_until = self.network_time(now).after(VALIDITY);
        let transaction = Transaction::new(author, self.ledger.next_seq(&author), valid_until, operations);
        self.submit(now, transaction)
    }

    fn submit(&mut self, now: Now, transaction: Transaction) -> Result<TxId, SubmitError> {
        let signed = transaction.sign(&self.peers.keys().network_id, &[&self.signing.identity]);
        let outcome = self.ledger.submit(now, signed);
        self.settle(now);
        outcome
    }

    fn author(&self) -> VerifyingKey {
        self.signing.identity.verifying_key()
    }
}
