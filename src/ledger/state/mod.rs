//! The state machine: what the network is after a block, as a pure function of what it was before and of the block.
//!
//! ```text
//! State ── draft(height, time) ─► Draft: what ends by then has ended
//!                                   │ apply(transaction)   all of it or nothing
//!                                   ▼
//!                                 finish() ─► Changes ─► tree (state root), store, State::commit
//! ```
//! Owns the rules of membership, credentials and signers. Refuses to know clocks, blocks' hashes, disks and peers.

mod addresses;
mod credentials;
mod error;
mod governance;
mod members;
mod name_records;
mod order;
mod policy;
mod records;
mod relays;
mod routes;
mod rules;
mod segments;
mod table;

pub use addresses::is_default_name;
pub use error::TxError;
pub use name_records::NameRecord;
pub use records::{
    Approval, Author, CredentialRecord, EndpointsRecord, MemberRecord, Network, Recovery, RelayRecord, RouteRecord,
    RuleRecord, SegmentRecord, SignerRecord, Tenure,
};
pub use routes::{BadRoute, MAX_ROUTES_OF_MEMBER};

use super::Changes;
use super::block::Height;
use super::name::Label;
use super::operation::{Incarnation, Operation, PROTOCOL_VERSION, RuleNumber, Scope};
use super::transaction::{SignedTransaction, Verified};
use super::validators::{Seats, ValidatorSet};
use crate::crypto::hash::Digest;
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::time::UnixMillis;
use crate::wire::prefix::Prefix;
use crate::wire::record::RecordName;
use records::{
    AUTHORS, BRIDGES, COMMITTERS, CREDENTIALS, ENDINGS, ENDPOINTS, EXITS, Ending, MEMBERS, NAMES, NETWORK,
    PARENT_COMMITTERS, RECOVERY, RELAYS, ROUTES, RULES, SEGMENTS, SIGNERS, VALIDATORS, is_readable,
};
use std::time::Duration;
use table::{Entries, Layers, View};

/// How far ahead the last moment of a transaction may lie.
pub const MAX_VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// The same with more than one witness: people collect signatures for days.
pub const MAX_VALIDITY_SHARED: Duration = Duration::from_secs(30 * 24 * 3600);
/// How many transactions a day a member may author without being a signer.
pub const MAX_OWN_TRANSACTIONS: u16 = 16;
/// How long a freed name or address is nobody else's, so that late packets and bookmarks reach no stranger.
pub const REST: Duration = Duration::from_secs(30 * 24 * 3600);
/// The most signers of a network.
pub const MAX_SIGNERS: usize = 256;
/// The most unspent credentials of one author.
pub const MAX_ISSUED: usize = 1024;

/// The most rules of a network.
pub const MAX_RULES: usize = 16_384;
/// The most segments of a network.
pub const MAX_SEGMENTS: usize = 256;
/// The most members that may bridge into one segment.
pub const MAX_BRIDGES: usize = 256;

/// What the chain says at one height.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    network_id: Digest,
    entries: Entries,
}

/// Entries that no state of this version has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an entry of the state cannot be read")]
pub struct UnreadableEntry;

/// What a transaction or the passing of time did, for logs and lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// A node became a member.
    Admitted(NodeId),
    /// A member was renamed.
    Renamed(NodeId),
    /// A member got tags or lost some.
    Tagged(NodeId),
    /// A membership ended by itself.
    MemberExpired(NodeId),
    /// A member routes another subnet, or one no more, or became an exit or is none any more.
    Routed(NodeId),
    /// A member relays for others on other terms, or began to, or does no more.
    RelaySet(NodeId),
    /// The static endpoints of a validator were set.
    EndpointsSet(NodeId),
    /// A rule was made.
    RuleMade(RuleNumber),
    /// A rule ended, by itself where a member that it named is gone.
    RuleEnded(RuleNumber),
    /// Blocks may hold the operations of this protocol version.
    ProtocolSet(u32),
    /// An identity was revoked; it need not have been a member.
    Revoked(NodeId, Incarnation),
    /// A credential was made.
    CredentialMade(Digest),
    /// A credential ended: used up, expired or revoked.
    CredentialEnded(Digest),
    /// A segment, or who may bridge into it, was set.
    SegmentSet(Label),
    /// A segment ended.
    SegmentEnded(Label),
    /// A signer was set or ended.
    SignerSet(VerifyingKey),
    /// A DNS record of this name was set.
    RecordSet(RecordName),
    /// A DNS record of this name ended: it was deleted, or a member that it belonged or pointed to is gone.
    RecordEnded(RecordName),
    /// The network, its validators or its recovery keys were set.
    NetworkFounded,
}

impl State {
    /// Restores a state from its entries.
    ///
    /// # Errors
    /// [`UnreadableEntry`] when one belongs to no table, or its record does not decode.
    pub fn from_entries(
        network_id: Digest,
        entries: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, UnreadableEntry> {
        let entries: Entries = entries.into_iter().collect();
        let readable = entries.iter().all(|(key, value)| is_readable(key, value));
        if readable { Ok(Self { network_id, entries }) } else { Err(UnreadableEntry) }
    }

    /// Iterates over the entries in order.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// Lends the value of an entry.
    pub fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.entries.value(key)
    }

    /// Begins the block at `height` and block time `time`: first of all, everything with `expires ≤ time` ends.
    pub fn draft(&self, height: Height, time: UnixMillis) -> Draft<'_> {
        let mut draft = self.bare_draft(height, time);
        draft.layers.put(&PARENT_COMMITTERS, &(), &self.committers());
        draft.layers.put(&COMMITTERS, &(), &self.validators());
        draft.end_what_expired();
        draft
    }

    fn bare_draft(&self, height: Height, time: UnixMillis) -> Draft<'_> {
        let network_id = self.network_id;
        Draft { network_id, layers: Layers::over(&self.entries), height, time, effects: Vec::new() }
    }

    /// Applies the one transaction of genesis, and returns what it changed in the empty state.
    pub(super) fn found(time: UnixMillis, signed: &Verified<SignedTransaction>) -> Result<Changes, TxError> {
        let nothing = Self::default();
        let mut draft = nothing.bare_draft(Height(0), time);
        draft.found(signed)?;
        Ok(draft.finish().0)
    }

    /// Begins the life of a network: the state after its genesis, whose block id is the network's.
    pub(super) fn after_genesis(network_id: Digest, changes: &Changes) -> Self {
        let mut state = Self { network_id, ..Self::default() };
        state.commit(changes);
        state
    }

    /// Takes over what a draft changed.
    pub fn commit(&mut self, changes: &Changes) {
        for (key, value) in changes {
            match value {
                Some(value) => self.entries.insert(key.clone(), value.clone()),
                None => self.entries.remove(key),
            };
        }
    }

    /// Returns what the network is; absent before genesis.
    pub fn network(&self) -> Option<Network> {
        self.entries.read(&NETWORK, &())
    }

    /// Finds a member.
    pub fn member(&self, id: &NodeId) -> Option<MemberRecord> {
        self.entries.read(&MEMBERS, id)
    }

    /// Lists all members in the order of their identities.
    pub fn members(&self) -> Vec<(NodeId, MemberRecord)> {
        self.entries.list(&MEMBERS, &[], usize::MAX)
    }

    /// Counts the members.
    pub fn member_count(&self) -> usize {
        let mut count = 0;
        self.entries.visit_table(&MEMBERS, &mut || count += 1);
        count
    }

    /// Returns the incarnation at which an identity is: the next one to be revoked.
    pub fn incarnation(&self, id: &NodeId) -> Incarnation {
        members::incarnation(&self.entries, id)
    }

    /// Finds a credential that can be used, by [`super::operation::credential_hash`].
    pub fn credential(&self, key_hash: &Digest) -> Option<CredentialRecord> {
        self.entries.read(&CREDENTIALS, key_hash)
    }

    /// Lists all credentials that can be used.
    pub fn credentials(&self) -> Vec<(Digest, CredentialRecord)> {
        self.entries.list(&CREDENTIALS, &[], usize::MAX)
    }

    /// Finds who has a name, or had it lately.
    pub fn tenure(&self, name: &Label) -> Option<Tenure> {
        self.entries.read(&NAMES, name)
    }

    /// Lists the names that are held or rest.
    pub fn names(&self) -> Vec<(Label, Tenure)> {
        self.entries.list(&NAMES, &[], usize::MAX)
    }

    /// Lists the subnets behind members, as the overlay sees them, in the order of the members.
    pub fn routes(&self) -> Vec<((NodeId, Prefix), RouteRecord)> {
        self.entries.list(&ROUTES, &[], usize::MAX)
    }

    /// Says by whose authority a member carries others' traffic to everywhere, if it may.
    pub fn exit(&self, id: &NodeId) -> Option<Approval> {
        self.entries.read(&EXITS, id)
    }

    /// Says on what terms and by whose authority a member relays for others, if it does.
    pub fn relay(&self, id: &NodeId) -> Option<RelayRecord> {
        self.entries.read(&RELAYS, id)
    }

    /// Says where a validator stays and by whose authority, if it does.
    pub fn endpoints(&self, id: &NodeId) -> Option<EndpointsRecord> {
        self.entries.read(&ENDPOINTS, id)
    }

    /// Finds a rule.
    pub fn rule(&self, number: RuleNumber) -> Option<RuleRecord> {
        self.entries.read(&RULES, &number)
    }

    /// Lists the rules in the order of their numbers; none in a network of protocol version 1, where everything is allowed.
    pub fn rules(&self) -> Vec<(RuleNumber, RuleRecord)> {
        self.entries.list(&RULES, &[], usize::MAX)
    }

    /// Finds what a key may sign.
    pub fn signer(&self, key: &VerifyingKey) -> Option<SignerRecord> {
        self.entries.read(&SIGNERS, key)
    }

    /// Lists the witnesses of a transaction that are signers with `scope`.
    pub fn witnesses_with(&self, signed: &SignedTransaction, scope: Scope) -> Vec<VerifyingKey> {
        governance::witnesses_with(&self.entries, signed, scope)
    }

    /// Checks that `keys` together reach the threshold of `scope`.
    ///
    /// # Errors
    /// [`TxError::NotAuthorized`].
    pub fn authorize(&self, keys: &[VerifyingKey], scope: Scope) -> Result<(), TxError> {
        governance::authorize(&self.entries, keys, scope)
    }

    /// Lists all signers.
    pub fn signers(&self) -> Vec<(VerifyingKey, SignerRecord)> {
        self.entries.list(&SIGNERS, &[], usize::MAX)
    }

    /// Finds a segment.
    pub fn segment(&self, name: &Label) -> Option<SegmentRecord> {
        self.entries.read(&SEGMENTS, name)
    }

    /// Lists all segments in the order of their names.
    pub fn segments(&self) -> Vec<(Label, SegmentRecord)> {
        self.entries.list(&SEGMENTS, &[], usize::MAX)
    }

    /// Lists who may bridge into the segment with this number.
    pub fn bridges(&self, segment: u32) -> Vec<NodeId> {
        let bridges = self.entries.list(&BRIDGES, &segment.to_be_bytes(), usize::MAX);
        bridges.into_iter().map(|((_, member), ())| member).collect()
    }

    /// Returns the validators of the next height; empty before genesis.
    pub fn validators(&self) -> ValidatorSet {
        self.seats().validators()
    }

    /// Returns the validators of the next height with their nodes; empty before genesis.
    pub fn seats(&self) -> Seats {
        self.entries.read(&VALIDATORS, &()).unwrap_or_default()
    }

    /// Returns the validators that committed the block of this state; empty in genesis, which nobody commits.
    pub fn committers(&self) -> ValidatorSet {
        self.entries.read(&COMMITTERS, &()).unwrap_or_default()
    }

    /// Returns the validators that committed the block before: those whom the commit inside this block names.
    pub fn parent_committers(&self) -> ValidatorSet {
        self.entries.read(&PARENT_COMMITTERS, &()).unwrap_or_default()
    }

    /// Returns the recovery keys; absent before genesis.
    pub fn recovery(&self) -> Option<Recovery> {
        self.entries.read(&RECOVERY, &())
    }

    /// Returns how far an author has come.
    pub fn author(&self, key: &VerifyingKey) -> Author {
        self.entries.read(&AUTHORS, key).unwrap_or_default()
    }

    /// Returns when the next membership or credential ends by itself.
    pub fn next_ending(&self) -> Option<UnixMillis> {
        self.entries.list(&ENDINGS, &[], 1).first().map(|((time, _), ())| *time)
    }

    /// Checks that a transaction of revocations only would apply, whoever else waits, if its signatures are right.
    ///
    /// # Errors
    /// [`TxError`], as [`Draft::apply`].
    pub fn check_revocation(&self, revocation: &SignedTransaction) -> Result<(), TxError> {
        if !revocation.transaction.is_revocation() {
            return Err(TxError::NotARevocation);
        }
        self.bare_draft(Height(0), UnixMillis(0)).would_apply(revocation)
    }
}

/// The next state, in the making.
pub struct Draft<'a> {
    network_id: Digest,
    layers: Layers<'a>,
    height: Height,
    time: UnixMillis,
    effects: Vec<Effect>,
}

impl Draft<'_> {
    /// Applies one transaction: all of it, or nothing and the reason.
    ///
    /// # Errors
    /// [`TxError`] names the first thing that is wrong.
    pub fn apply(&mut self, signed: &Verified<SignedTransaction>) -> Result<(), TxError> {
        let effect_count = self.effects.len();
        let result = self.try_apply(signed);
        match result {
            Ok(()) => self.layers.keep(),
            Err(_) => {
                self.layers.discard();
                self.effects.truncate(effect_count);
            }
        }
        result
    }

    /// Says whether a transaction would apply if its signatures are right, and changes nothing: what is looked at before they are.
    ///
    /// # Errors
    /// [`TxError`] names the first thing that is wrong.
    pub fn would_apply(&mut self, signed: &SignedTransaction) -> Result<(), TxError> {
        let effect_count = self.effects.len();
        let result = self.try_apply(signed);
        self.layers.discard();
        self.effects.truncate(effect_count);
        result
    }

    fn try_apply(&mut self, signed: &SignedTransaction) -> Result<(), TxError> {
        refuse_unknown(signed)?;
        self.refuse_later(signed)?;
        if signed.transaction.is_revocation() {
            let effective = self.revoke_all(signed)?;
            return if effective { Ok(()) } else { Err(TxError::AlreadyRevoked) };
        }
        self.take_turn(signed)?;
        signed.transaction.operations.iter().try_for_each(|operation| self.apply_operation(signed, operation))
    }

    /// Refuses what the network's protocol version has not yet, unless an operation before it raises the version.
    fn refuse_later(&self, signed: &SignedTransaction) -> Result<(), TxError> {
        let mut network = self.protocol_version();
        for operation in &signed.transaction.operations {
            if operation.since() > network {
                return Err(TxError::LaterProtocol { operation: operation.name(), needed: operation.since(), network });
            }
            if let Operation::ProtocolSet(set) = operation {
                network = set.version;
            }
        }
        Ok(())
    }

    fn revoke_all(&mut self, signed: &SignedTransaction) -> Result<bool, TxError> {
        let mut effective = false;
        for revoke in signed.transaction.revocations() {
            effective |= self.revoke(signed, &revoke)?;
        }
        Ok(effective)
    }

    fn apply_operation(&mut self, signed: &SignedTransaction, operation: &Operation) -> Result<(), TxError> {
        match operation {
            Operation::Admit(admit) => self.admit(signed, admit),
            Operation::Join(join) => self.join(signed, join),
            Operation::Revoke(revoke) => self.revoke(signed, revoke).map(drop),
            Operation::Rename(rename) => self.rename(signed, rename),
            Operation::Tag(tags) => self.tag(signed, tags),
            Operation::Untag(tags) => self.untag(signed, tags),
            Operation::Rule(rule) => self.make_rule(signed, rule),
            Operation::RuleDel(rule) => self.end_rule(signed, *rule),
            Operation::RouteApprove(approve) => self.approve_route(signed, approve),
            Operation::RouteRevoke(revoke) => self.revoke_route(signed, revoke),
            Operation::ExitApprove(approve) => self.approve_exit(signed, approve),
            Operation::RelayApprove(approve) => self.approve_relay(signed, approve),
            Operation::EndpointsSet(set) => self.set_endpoints(signed, set),
            Operation::ProtocolSet(set) => self.set_protocol(signed, *set),
            Operation::Credential(credential) => self.make_credential(signed, credential),
            Operation::CredentialRevoke(revoke) => self.revoke_credential(signed, revoke),
            Operation::NameSet(set) => self.set_record(signed, set),
            Operation::NameDel(del) => self.delete_records(signed, del),
            Operation::SegmentSet(set) => self.set_segment(signed, set),
            Operation::SegmentDel(del) => self.end_segment(signed, del),
            Operation::BridgeApprove(approve) => self.approve_bridge(signed, approve),
            Operation::BridgeRevoke(revoke) => self.revoke_bridge(signed, revoke),
            Operation::SignerSet(set) => self.set_signer(signed, set),
            Operation::ValidatorSet(_) | Operation::RecoverySet(_) | Operation::NetworkSet(_) => {
                Err(TxError::Misplaced(operation.name()))
            }
            Operation::Unknown { code, .. } => Err(TxError::UnknownOperation(*code)),
        }
    }

    /// Removes every member and credential with `expires ≤ time`, and lets go what has rested.
    fn end_what_expired(&mut self) {
        let now = self.time;
        for (_, ending) in self.layers.take_while(&ENDINGS, |(time, _)| *time <= now) {
            match ending {
                Ending::Member(id) => self.expire_member(id),
                Ending::Credential(hash) => self.end_credential(&hash),
            }
        }
        self.release_rested();
        self.layers.keep();
    }

    /// Returns what the block changed, and what it did.
    pub fn finish(self) -> (Changes, Vec<Effect>) {
        (self.layers.into_changes(), self.effects)
    }

    /// Returns the validators of the next height, as they are in this draft.
    pub fn validators(&self) -> ValidatorSet {
        self.layers.read(&VALIDATORS, &()).unwrap_or_default().validators()
    }
}

/// Stops at an operation of a later version, before anything else is looked at: this state machine would give a wrong answer.
fn refuse_unknown(signed: &SignedTransaction) -> Result<(), TxError> {
    let unknown = signed.transaction.operations.iter().find_map(|operation| match operation {
        Operation::Unknown { code, .. } => Some(TxError::UnknownOperation(*code)),
        Operation::ProtocolSet(set) if set.version > PROTOCOL_VERSION => Some(TxError::UnknownProtocol(set.version)),
        _ => None,
    });
    unknown.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
