//! Who belongs: admission, joining, revocation, names.
//!
//! ```text
//!   identity:  incarnation 0 ──Revoke(0)──► 1 ──Revoke(1)──► 2 …       the next one to be revoked, member or not
//!   Join       only at 0
//!   Admit(i)   only at i
//!   Revoke(i)  at i: ends it;   below i: has happened;   above i: refused
//! ```
//! A revocation that comes before its admission kills it all the same, so their order does not matter.

use super::credentials::Grant;
use super::records::{ENDINGS, Ending, IPV6, MEMBERS, MemberRecord, REVOKED, TRANSPORT_KEYS};
use super::table::View;
use super::{Draft, Effect, TxError};
use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::Digest;
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::ledger::address::{ipv6_host, is_assignable_ipv6};
use crate::ledger::name::Label;
use crate::ledger::operation::{Admit, Incarnation, Join, MAX_TAGS, Rename, Revoke, Scope, Tags};
use crate::ledger::transaction::SignedTransaction;
use crate::time::UnixMillis;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Returns the incarnation at which an identity is.
pub(super) fn incarnation(view: &impl View, id: &NodeId) -> Incarnation {
    view.read(&REVOKED, id).map_or(0, |last| last.saturating_add(1))
}

/// A new member, whoever lets it in.
struct Admission {
    identity: NodeId,
    node_key: VerifyingKey,
    transport_key: TransportKey,
    name: Option<Label>,
    tags: BTreeSet<Label>,
    ipv4: Option<Ipv4Addr>,
    expires: Option<UnixMillis>,
    admitted_by: VerifyingKey,
    credential: Option<Digest>,
}

impl Draft<'_> {
    pub(super) fn admit(&mut self, signed: &SignedTransaction, admit: &Admit) -> Result<(), TxError> {
        self.permit(signed, Scope::Members)?;
        let current = incarnation(&self.layers, &admit.identity);
        if admit.incarnation != current {
            let (identity, given) = (admit.identity, admit.incarnation);
            return Err(TxError::WrongIncarnation { identity, current, given });
        }
        if admit.tags.len() > MAX_TAGS {
            return Err(TxError::TooManyTags);
        }
        if admit.expires.is_some_and(|expires| expires <= self.time) {
            return Err(TxError::EndsInThePast);
        }
        self.install_member(Admission {
            identity: admit.identity,
            node_key: admit.node_key,
            transport_key: admit.transport_key,
            name: admit.name.clone(),
            tags: admit.tags.clone(),
            ipv4: admit.ipv4,
            expires: admit.expires,
            admitted_by: signed.transaction.author,
            credential: None,
        })
    }

    pub(super) fn join(&mut self, signed: &SignedTransaction, join: &Join) -> Result<(), TxError> {
        let by_identity = signed.transaction.author == join.identity.verifying_key();
        if !by_identity || !signed.is_witness(&join.credential) {
            return Err(TxError::JoinNotSigned);
        }
        if self.layers.has(&REVOKED, &join.identity) {
            return Err(TxError::WasRevoked(join.identity));
        }
        if self.layers.has(&MEMBERS, &join.identity) {
            return Err(TxError::AlreadyMember(join.identity));
        }
        let Grant { key_hash, issuer, name, tags } = self.spend_credential(&join.credential)?;
        let name = match (name, &join.name) {
            (Some(given), _) => Some(given),
            (None, Some(wished)) if wished.is_reserved() => return Err(TxError::NameReserved(wished.clone())),
            (None, wished) => wished.clone(),
        };
        self.install_member(Admission {
            identity: join.identity,
            node_key: join.node_key,
            transport_key: join.transport_key,
            name,
            tags,
            ipv4: None,
            expires: None,
            admitted_by: issuer,
            credential: Some(key_hash),
        })
    }

    fn install_member(&mut self, admission: Admission) -> Result<(), TxError> {
        let id = admission.identity;
        if self.layers.has(&MEMBERS, &id) {
            return Err(TxError::AlreadyMember(id));
        }
        if !id.verifying_key().is_usable() || !admission.node_key.is_usable() {
            return Err(TxError::UnusableKey(id));
        }
        if self.layers.has(&TRANSPORT_KEYS, &admission.transport_key) {
            return Err(TxError::TransportKeyTaken);
        }
        let host = ipv6_host(&id);
        if !is_assignable_ipv6(host) || self.layers.has(&IPV6, &host) {
            return Err(TxError::Ipv6Taken);
        }
        let name = match admission.name {
            Some(name) => self.take_name(&id, &name).map(|()| name)?,
            None => self.take_default_name(&id)?,
        };
        let ipv4 = self.take_ipv4(&id, admission.ipv4)?;
        self.layers.put(&TRANSPORT_KEYS, &admission.transport_key, &id);
        self.layers.put(&IPV6, &host, &id);
        if let Some(expires) = admission.expires {
            self.layers.put(&ENDINGS, &(expires, Ending::Member(id)), &());
        }
        let record = MemberRecord {
            name,
            node_key: admission.node_key,
            transport_key: admission.transport_key,
            tags: admission.tags,
            ipv4,
            expires: admission.expires,
            incarnation: incarnation(&self.layers, &id),
            admitted_height: self.height,
            admitted_by: admission.admitted_by,
            credential: admission.credential,
        };
        self.layers.put(&MEMBERS, &id, &record);
        self.effects.push(Effect::Admitted(id));
        Ok(())
    }

    /// Ends an incarnation; returns whether it had not ended before.
    pub(super) fn revoke(&mut self, signed: &SignedTransaction, revoke: &Revoke) -> Result<bool, TxError> {
        self.permit(signed, Scope::Revocation)?;
        let Revoke { identity, incarnation: given } = *revoke;
        let current = incarnation(&self.layers, &identity);
        if given < current {
            return Ok(false);
        }
        if given > current {
            return Err(TxError::FutureIncarnation { identity, current, given });
        }
        self.layers.put(&REVOKED, &identity, &given);
        self.end_credentials_issued_by(&identity.verifying_key());
        if let Some(record) = self.remove_member(&identity)
            && let Some(credential) = record.credential
        {
            self.end_credential(&credential);
        }
        self.effects.push(Effect::Revoked(identity, given));
        Ok(true)
    }

    pub(super) fn rename(&mut self, signed: &SignedTransaction, rename: &Rename) -> Result<(), TxError> {
        let Rename { identity, name } = rename;
        let by_itself = signed.is_witness(&identity.verifying_key()) && !name.is_reserved();
        if !by_itself {
            self.permit(signed, Scope::Members)?;
        }
        let mut record = self.layers.read(&MEMBERS, identity).ok_or(TxError::NotAMember(*identity))?;
        if record.name == *name {
            return Ok(());
        }
        self.take_name(identity, name)?;
        self.end_records_at_or_below(&record.name);
        self.rest_name(identity, &record.name);
        record.name = name.clone();
        self.layers.put(&MEMBERS, identity, &record);
        self.effects.push(Effect::Renamed(*identity));
        Ok(())
    }

    pub(super) fn tag(&mut self, signed: &SignedTransaction, tags: &Tags) -> Result<(), TxError> {
        self.change_tags(signed, tags, |held| held.extend(tags.tags.iter().cloned()))
    }

    pub(super) fn untag(&mut self, signed: &SignedTransaction, tags: &Tags) -> Result<(), TxError> {
        self.change_tags(signed, tags, |held| held.retain(|tag| !tags.tags.contains(tag)))
    }

    fn change_tags(
        &mut self,
        signed: &SignedTransaction,
        Tags { identity, tags }: &Tags,
        change: impl FnOnce(&mut BTreeSet<Label>),
    ) -> Result<(), TxError> {
        self.permit(signed, Scope::Members)?;
        if tags.is_empty() {
            return Err(TxError::NoTags);
        }
        let mut record = self.layers.read(&MEMBERS, identity).ok_or(TxError::NotAMember(*identity))?;
        change(&mut record.tags);
        if record.tags.len() > MAX_TAGS {
            return Err(TxError::TooManyTags);
        }
        self.layers.put(&MEMBERS, identity, &record);
        self.effects.push(Effect::Tagged(*identity));
        Ok(())
    }

    pub(super) fn is_member(&self, id: &NodeId) -> bool {
        self.layers.has(&MEMBERS, id)
    }

    pub(super) fn expire_member(&mut self, id: NodeId) {
        self.remove_member(&id);
        self.effects.push(Effect::MemberExpired(id));
    }

    /// Removes a member from every table; its name and address rest.
    fn remove_member(&mut self, id: &NodeId) -> Option<MemberRecord> {
        let record = self.layers.read(&MEMBERS, id)?;
        self.layers.remove(&MEMBERS, id);
        self.layers.remove(&TRANSPORT_KEYS, &record.transport_key);
        self.layers.remove(&IPV6, &ipv6_host(id));
        if let Some(expires) = record.expires {
            self.layers.remove(&ENDINGS, &(expires, Ending::Member(*id)));
        }
        self.end_rules_of(id);
        self.end_routes_of(id);
        self.end_places_of(id);
        self.end_records_of(id, &record.name);
        self.rest_name(id, &record.name);
        if let Some(host) = record.ipv4 {
            self.rest_ipv4(id, host);
        }
        self.leave_segments(id);
        Some(record)
    }
}
