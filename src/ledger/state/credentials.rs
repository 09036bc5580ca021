//! Credentials: admission by whoever holds a key, bounded in number and time.
//!
//! The chain knows a hash of the key and never its secret half. A use is taken inside the state transition, so that however many join
//! at once, in one block or in rival ones, a credential admits as many as it says.

use super::records::{CREDENTIALS, CredentialRecord, ENDINGS, Ending, ISSUED};
use super::table::View;
use super::{Draft, Effect, MAX_ISSUED, TxError};
use crate::crypto::hash::Digest;
use crate::crypto::identity::VerifyingKey;
use crate::ledger::name::Label;
use crate::ledger::operation::{Credential, CredentialRevoke, MAX_TAGS, Scope, credential_hash};
use crate::ledger::transaction::SignedTransaction;
use std::collections::BTreeSet;
use std::time::Duration;

/// The most uses of one credential.
const MAX_USES: u32 = 10_000;
/// How long a credential may last.
const MAX_LIFETIME: Duration = Duration::from_secs(366 * 24 * 3600);

/// What a spent credential gives.
pub(super) struct Grant {
    pub(super) key_hash: Digest,
    pub(super) issuer: VerifyingKey,
    pub(super) name: Option<Label>,
    pub(super) tags: BTreeSet<Label>,
}

impl Draft<'_> {
    pub(super) fn make_credential(
        &mut self,
        signed: &SignedTransaction,
        credential: &Credential,
    ) -> Result<(), TxError> {
        self.permit(signed, Scope::Credentials)?;
        let Credential { key_hash, name, tags, uses, expires } = credential;
        if tags.len() > MAX_TAGS {
            return Err(TxError::TooManyTags);
        }
        if *expires <= self.time {
            return Err(TxError::EndsInThePast);
        }
        let most = if name.is_some() { 1 } else { MAX_USES };
        if !(1..=most).contains(uses) || *expires > self.time.after(MAX_LIFETIME) {
            return Err(TxError::BadCredential);
        }
        if self.layers.has(&CREDENTIALS, key_hash) {
            return Err(TxError::CredentialExists);
        }
        let issuer = signed.transaction.author;
        if self.layers.list(&ISSUED, &issuer.0, MAX_ISSUED).len() == MAX_ISSUED {
            return Err(TxError::TooManyCredentials);
        }
        let (name, tags) = (name.clone(), tags.clone());
        let record = CredentialRecord { issuer, name, tags, uses: *uses, expires: *expires };
        self.layers.put(&CREDENTIALS, key_hash, &record);
        self.layers.put(&ISSUED, &(issuer, *key_hash), &());
        self.layers.put(&ENDINGS, &(*expires, Ending::Credential(*key_hash)), &());
        self.effects.push(Effect::CredentialMade(*key_hash));
        Ok(())
    }

    /// Ends a credential, by a signer's authority or its issuer's own.
    pub(super) fn revoke_credential(
        &mut self,
        signed: &SignedTransaction,
        revoke: &CredentialRevoke,
    ) -> Result<(), TxError> {
        let record = self.layers.read(&CREDENTIALS, &revoke.key_hash);
        if !record.as_ref().is_some_and(|record| signed.is_witness(&record.issuer)) {
            self.permit(signed, Scope::Credentials)?;
        }
        if record.is_none() {
            return Err(TxError::NoSuchCredential);
        }
        self.end_credential(&revoke.key_hash);
        Ok(())
    }

    /// Takes one use of the credential with this key.
    pub(super) fn spend_credential(&mut self, key: &VerifyingKey) -> Result<Grant, TxError> {
        let key_hash = credential_hash(key);
        let mut record = self.layers.read(&CREDENTIALS, &key_hash).ok_or(TxError::NoSuchCredential)?;
        record.uses -= 1;
        if record.uses == 0 {
            self.end_credential(&key_hash);
        } else {
            self.layers.put(&CREDENTIALS, &key_hash, &record);
        }
        Ok(Grant { key_hash, issuer: record.issuer, name: record.name, tags: record.tags })
    }

    pub(super) fn end_credentials_issued_by(&mut self, issuer: &VerifyingKey) {
        for ((_, key_hash), ()) in self.layers.list(&ISSUED, &issuer.0, MAX_ISSUED) {
            self.end_credential(&key_hash);
        }
    }

    /// Removes a credential from every table, if it is still there.
    pub(super) fn end_credential(&mut self, key_hash: &Digest) {
        let Some(record) = self.layers.read(&CREDENTIALS, key_hash) else {
            return;
        };
        self.layers.remove(&CREDENTIALS, key_hash);
        self.layers.remove(&ISSUED, &(record.issuer, *key_hash));
        self.layers.remove(&ENDINGS, &(record.expires, Ending::Credential(*key_hash)));
        self.effects.push(Effect::CredentialEnded(*key_hash));
    }
}
