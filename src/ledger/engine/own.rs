//! What this node's own user submitted and no block holds yet: an answer was given, so it must not vanish with the process.
//!
//! It is on disk before the user hears that it was taken, and is taken up again by the next run. What waits here of others is theirs
//! to tell again.

use super::{Event, Ledger, SubmitError};
use crate::ledger::pool::PoolRefused;
use crate::ledger::transaction::{SignedTransaction, TxId};
use crate::time::Now;
use std::collections::BTreeSet;

/// The own transactions that wait; as many at most as the pool holds.
#[derive(Default)]
pub(super) struct Own {
    stored: BTreeSet<TxId>,
    /// Those of an earlier run that are not in the pool yet.
    earlier: Vec<SignedTransaction>,
}

impl Own {
    /// Lends those of an earlier run that are not in the pool yet.
    pub(super) fn earlier(&self) -> &[SignedTransaction] {
        &self.earlier
    }

    /// Notes that a transaction waits no more; says whether it was an own one.
    pub(super) fn forget(&mut self, id: &TxId) -> bool {
        self.stored.remove(id)
    }

    /// Notes what an earlier run left on the disk.
    pub(super) fn restore(&mut self, id: TxId, signed: SignedTransaction) {
        self.stored.insert(id);
        self.earlier.push(signed);
    }
}

impl Ledger {
    /// Stores an own transaction that waits for a block.
    pub(super) fn keep_own(&mut self, id: TxId) -> Result<(), SubmitError> {
        let Some(signed) = self.pool.transaction(&id) else { return Ok(()) };
        if self.own.stored.contains(&id) {
            return Ok(());
        }
        let bytes = signed.encode();
        self.store.put_own(id.0, &bytes).map_err(|error| self.halt_store(&error))?;
        self.own.stored.insert(id);
        Ok(())
    }

    /// Removes own transactions from the disk that wait no more.
    pub(super) fn drop_own(&mut self, ids: impl IntoIterator<Item = TxId>) {
        let own: Vec<_> = ids.into_iter().filter(|id| self.own.forget(id)).map(|id| id.0).collect();
        if own.is_empty() {
            return;
        }
        if let Err(error) = self.store.remove_own(&own) {
            self.halt_store(&error);
        }
    }

    /// Takes up again what the user submitted in an earlier run.
    pub(super) fn take_up_own(&mut self, now: Now) {
        for signed in std::mem::take(&mut self.own.earlier) {
            let transaction = signed.id(&self.network_id);
            match self.take(now, signed.clone()) {
                Ok(_) => {}
                Err(SubmitError::Final(_)) => self.drop_own([transaction]),
                Err(SubmitError::Pool(PoolRefused::Invalid(reason))) => {
                    self.drop_own([transaction]);
                    self.events.push_back(Event::Dropped { transaction, signed: Box::new(signed), reason });
                }
                Err(error) => tracing::warn!(%transaction, %error, "a transaction of an earlier run stays on disk"),
            }
        }
    }
}
