//! Transactions on their way in: from this node's own user, from other nodes, from guests that want to join.

use super::meter::Reader;
use super::screen::{fingerprint, has_standing};
use super::{Ledger, MAX_WAITING, MessageRefused, Recipient, SubmitError};
use crate::crypto::exchange::TransportKey;
use crate::ledger::block::Height;
use crate::ledger::operation::Operation;
use crate::ledger::pool::PoolRefused;
use crate::ledger::revocation::{Held, Shown};
use crate::ledger::sync::{LedgerMessage, MAX_TRANSACTIONS, MAX_TRANSACTIONS_LEN};
use crate::ledger::transaction::{SignedTransaction, TxId, Verified};
use crate::time::Now;
use std::collections::BTreeSet;

/// The most bytes of transactions in the answer to one request; who lacks more asks again.
const MAX_ANSWER_LEN: usize = 4 * MAX_TRANSACTIONS_LEN;
/// What looking for an announced transaction in the store costs of its sender's ration, in bytes: some microseconds of an index.
const LOOKUP_COST: usize = 512;

impl Ledger {
    /// Takes a transaction of this node's own user: it waits for a block, or, if it revokes and nothing else, acts at once.
    ///
    /// # Errors
    /// [`SubmitError`] names why it does not.
    pub fn submit(&mut self, now: Now, signed: SignedTransaction) -> Result<TxId, SubmitError> {
        self.take_up_own(now);
        let id = self.take(now, signed)?;
        self.start_height(now);
        self.schedule_ending(now);
        self.keep_own(id)?;
        Ok(id)
    }

    /// Says whether a transaction would apply to the own head, whatever waits.
    ///
    /// # Errors
    /// [`SubmitError`] names why it would not.
    pub fn would_apply(&self, now: Now, signed: &SignedTransaction) -> Result<(), SubmitError> {
        let verified = signed.clone().verify(&self.network_id)?;
        let applied = self.state.draft(self.next_height(), self.block_time(now)).apply(&verified);
        Ok(applied.map_err(PoolRefused::from)?)
    }

    /// Takes a transaction of this node's own user.
    pub(super) fn take(&mut self, now: Now, signed: SignedTransaction) -> Result<TxId, SubmitError> {
        self.take_from(now, None, signed)
    }

    /// Takes a transaction from a peer, or from the own user. Whether it would apply is looked at before any signature.
    fn take_from(&mut self, now: Now, from: Option<&Reader>, signed: SignedTransaction) -> Result<TxId, SubmitError> {
        if self.head.is_none() {
            return Err(SubmitError::NoChain);
        }
        let id = signed.id(&self.network_id);
        if self.pool.transaction(&id).is_some() || self.revocations.transaction(&id).is_some() {
            return Ok(id);
        }
        // A store that cannot be read has stopped the ledger, or will with its next write.
        if let Ok(Some(height)) = self.store.transaction_height(id.0) {
            return Err(SubmitError::Final(Height(height)));
        }
        signed.check_form()?;
        if signed.transaction.is_revocation() {
            self.revocations.screen(&self.state, &signed)?;
            let verified = self.check_signatures(now, from, signed)?;
            self.take_revocation(now, verified)?;
        } else {
            self.refuse_when_halted()?;
            self.pool.screen(&self.state, self.next_height(), self.block_time(now), &signed)?;
            let verified = self.check_signatures(now, from, signed)?;
            self.pool.keep(verified.clone());
            self.send(Recipient::Validators, LedgerMessage::Transactions(vec![verified.into_inner()]));
            self.send(Recipient::Sessions, LedgerMessage::HaveTransactions(vec![id]));
        }
        Ok(id)
    }

    /// Checks signatures; what is false costs the peer that showed it, and is not checked a second time.
    fn check_signatures(
        &mut self,
        now: Now,
        from: Option<&Reader>,
        signed: SignedTransaction,
    ) -> Result<Verified<SignedTransaction>, SubmitError> {
        let lead = |key: &_| has_standing(&self.state, key);
        let Some(from) = from else { return Ok(signed.verify_leading(&self.network_id, lead)?) };
        if self.screen.knows(&signed) {
            return Err(SubmitError::RefusedBefore);
        }
        if !self.screen.allows(now.instant, from) {
            return Err(SubmitError::Distrusted);
        }
        let (fingerprint, witness_count) = (fingerprint(&signed), signed.witnesses.len());
        let checked = signed.verify_leading(&self.network_id, lead);
        if checked.is_err() {
            self.screen.refuse(now.instant, from, fingerprint, witness_count);
        }
        Ok(checked?)
    }

    /// Holds a revocation: on disk first, then it cuts, then everybody hears of it.
    fn take_revocation(&mut self, now: Now, verified: Verified<SignedTransaction>) -> Result<(), SubmitError> {
        let (id, signed) = (verified.id(), (*verified).clone());
        if self.revocations.show(&self.state, now.wall, verified)? == Shown::Known {
            return Ok(());
        }
        if let Some(held) = self.revocations.held(&id) {
            let row = |held: &Held| {
                (held.key(&self.network_id), borsh::to_vec(held).expect("writing to memory does not fail"))
            };
            if let Err(error) = self.store.put_revocations(&[row(&held), row(&self.revocations.cuts())]) {
                // The ledger stops, and the cut happens all the same: the safe side.
                self.halt_store(&error);
            }
        }
        self.refresh_policy();
        self.send(Recipient::EverySession, LedgerMessage::Transactions(vec![signed]));
        Ok(())
    }

    /// Takes a transaction whose sender wants an answer.
    pub(super) fn on_submit(
        &mut self,
        now: Now,
        from: TransportKey,
        signed: SignedTransaction,
    ) -> Result<(), MessageRefused> {
        let sender = self.reader(from);
        if !sender.is_member && !is_join(&signed) {
            return Err(MessageRefused::NotAMember);
        }
        let id = signed.id(&self.network_id);
        let taken = self.take_from(now, Some(&sender), signed);
        let answer = match &taken {
            Ok(id) => LedgerMessage::Submitted(*id),
            Err(SubmitError::Final(_)) => LedgerMessage::Submitted(id),
            Err(error) => LedgerMessage::refused(id, error),
        };
        self.send(Recipient::Peer(from), answer);
        taken?;
        if self.waiting.len() < MAX_WAITING {
            self.waiting.insert(id, from);
        }
        Ok(())
    }

    /// Takes transactions that a member passes on. Each is looked at, whatever became of the one before.
    pub(super) fn on_transactions(
        &mut self,
        now: Now,
        from: &TransportKey,
        transactions: Vec<SignedTransaction>,
    ) -> Result<(), MessageRefused> {
        let mut result = Ok(());
        for signed in transactions {
            // A revocation is worth its signatures, whoever shows it.
            let sender = self.reader(*from);
            if !sender.is_member && !signed.transaction.is_revocation() {
                result = Err(MessageRefused::NotAMember);
                continue;
            }
            match self.take_from(now, Some(&sender), signed) {
                Ok(_) | Err(SubmitError::Final(_)) => {}
                Err(error) => result = Err(error.into()),
            }
        }
        result
    }

    /// Asks for the announced transactions that are not here.
    pub(super) fn on_have_transactions(&mut self, now: Now, from: &Reader, ids: Vec<TxId>) {
        let waits = |id: &TxId| self.pool.transaction(id).is_some() || self.revocations.transaction(id).is_some();
        let strange: Vec<_> = ids.into_iter().filter(|id| !waits(id)).collect();
        self.ration.charge(now.instant, from, strange.len() * LOOKUP_COST);
        let is_missing = |id: &TxId| matches!(self.store.transaction_height(id.0), Ok(None));
        let missing: Vec<_> = strange.into_iter().filter(is_missing).collect();
        if !missing.is_empty() {
            self.send(Recipient::Peer(from.peer), LedgerMessage::GetTransactions(missing));
        }
    }

    pub(super) fn on_get_transactions(&mut self, now: Now, to: &Reader, ids: &[TxId]) {
        let mut seen = BTreeSet::new();
        let distinct = ids.iter().filter(|id| seen.insert(**id));
        let here = distinct.filter_map(|id| self.pool.transaction(id).or_else(|| self.revocations.transaction(id)));
        let here = fitting(here);
        self.send_transactions(now, to, here);
    }

    /// Sends what revokes, the next part of it where one answer does not hold all.
    pub(super) fn send_revocations(&mut self, now: Now, to: &Reader) {
        let held = fitting(self.revocations.transactions_after(self.peers.told_revocation(&to.peer)));
        if let Some(last) = held.last() {
            self.peers.note_told(to.peer, last.id(&self.network_id));
        }
        self.send_transactions(now, to, held);
    }

    /// Sends transactions in as many messages as their bounds need.
    fn send_transactions(&mut self, now: Now, to: &Reader, transactions: Vec<SignedTransaction>) {
        let (mut batch, mut batch_len, mut len) = (Vec::new(), 0, 0);
        for signed in transactions {
            let own_len = signed.encode().len();
            if batch.len() == MAX_TRANSACTIONS || batch_len + own_len > MAX_TRANSACTIONS_LEN {
                self.send(Recipient::Peer(to.peer), LedgerMessage::Transactions(std::mem::take(&mut batch)));
                batch_len = 0;
            }
            batch_len += own_len;
            len += own_len;
            batch.push(signed);
        }
        if !batch.is_empty() {
            self.send(Recipient::Peer(to.peer), LedgerMessage::Transactions(batch));
        }
        self.ration.charge(now.instant, to, len);
    }
}

/// Copies as many transactions, from the first on, as one answer holds.
fn fitting<'t>(transactions: impl Iterator<Item = &'t Verified<SignedTransaction>>) -> Vec<SignedTransaction> {
    let mut len = 0;
    let fits = |signed: &&Verified<SignedTransaction>| {
        len += signed.encode().len();
        len <= MAX_ANSWER_LEN
    };
    transactions.take_while(fits).map(|verified| (**verified).clone()).collect()
}

/// Says whether a transaction does nothing but join: what a guest may ask for.
fn is_join(signed: &SignedTransaction) -> bool {
    matches!(signed.transaction.operations.as_slice(), [Operation::Join(_)])
}
