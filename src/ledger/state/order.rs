//! Whose turn it is: sequence numbers, last moments, a member's daily share.

use super::records::{AUTHORS, Author, SIGNERS};
use super::table::View;
use super::{Draft, MAX_OWN_TRANSACTIONS, MAX_VALIDITY, MAX_VALIDITY_SHARED, TxError};
use crate::ledger::transaction::SignedTransaction;

/// A day of block time, in milliseconds.
const DAY_MILLIS: u64 = 24 * 3600 * 1000;

impl Draft<'_> {
    /// Checks that the transaction may happen at this time and after its author's last one, and counts it.
    pub(super) fn take_turn(&mut self, signed: &SignedTransaction) -> Result<(), TxError> {
        let transaction = &signed.transaction;
        if transaction.valid_until < self.time {
            return Err(TxError::Expired { valid_until: transaction.valid_until.0, time: self.time.0 });
        }
        let longest = if signed.witnesses.len() > 1 { MAX_VALIDITY_SHARED } else { MAX_VALIDITY };
        if transaction.valid_until > self.time.after(longest) {
            return Err(TxError::ValidTooLong);
        }
        let last: Author = self.layers.read(&AUTHORS, &transaction.author).unwrap_or_default();
        if transaction.seq <= last.seq {
            return Err(TxError::Replayed { seq: transaction.seq, last: last.seq });
        }
        let today = self.time.0 / DAY_MILLIS;
        let before = if last.day == today { last.count } else { 0 };
        let is_signer = self.layers.has(&SIGNERS, &transaction.author);
        if !is_signer && before >= MAX_OWN_TRANSACTIONS {
            return Err(TxError::TooMany);
        }
        let author = Author { seq: transaction.seq, day: today, count: before.saturating_add(1) };
        self.layers.put(&AUTHORS, &transaction.author, &author);
        Ok(())
    }
}
