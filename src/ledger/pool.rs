//! The pool: transactions that wait for a block.
//!
//! Bounded in number, bytes and per author; what does not fit or does not apply is refused with a reason, so that nobody waits for
//! nothing. Revocations do not wait here: see [`super::revocation`].

use super::block::Height;
use super::operation::Operation;
use super::state::{MAX_OWN_TRANSACTIONS, State, TxError};
use super::transaction::{SignedTransaction, TxId, Verified};
use crate::crypto::identity::VerifyingKey;
use crate::time::UnixMillis;
use std::collections::BTreeMap;

/// The most transactions that wait: eight full blocks.
pub const MAX_PENDING: usize = 4096;
/// The most bytes that wait.
pub const MAX_PENDING_LEN: usize = 8 * 1024 * 1024;
/// The most transactions of one signer that wait; anybody else has [`MAX_OWN_TRANSACTIONS`], its share of a day.
pub const MAX_PENDING_PER_SIGNER: usize = 256;
/// The most joins by one credential that wait: who holds its secret makes identities at will.
pub const MAX_PENDING_PER_CREDENTIAL: usize = 64;

/// Why a transaction does not wait here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolRefused {
    /// It would not apply to the head.
    #[error(transparent)]
    Invalid(#[from] TxError),
    /// Another transaction of its author with this sequence number waits.
    #[error("another transaction of this author with the same sequence number waits")]
    SequenceTaken,
    /// Its author has too many waiting.
    #[error("too many transactions of this author wait")]
    AuthorFull,
    /// Too many joins by one credential wait.
    #[error("{MAX_PENDING_PER_CREDENTIAL} joins by this credential wait")]
    CredentialFull,
    /// Too many wait.
    #[error("too many transactions wait")]
    Full,
}

/// The transactions that wait, in the order in which they came.
#[derive(Default)]
pub struct Pool {
    by_arrival: BTreeMap<u64, Verified<SignedTransaction>>,
    by_id: BTreeMap<TxId, u64>,
    by_author: BTreeMap<(VerifyingKey, u64), u64>,
    next_arrival: u64,
    encoded_len: usize,
}

impl Pool {
    /// Takes a transaction in; returns `false` when it waits already. `time` is what the next block could have.
    ///
    /// # Errors
    /// [`PoolRefused`] names the reason, which is for its author.
    pub fn submit(
        &mut self,
        state: &State,
        next: Height,
        time: UnixMillis,
        transaction: Verified<SignedTransaction>,
    ) -> Result<bool, PoolRefused> {
        if self.by_id.contains_key(&transaction.id()) {
            return Ok(false);
        }
        self.screen(state, next, time, &transaction)?;
        self.keep(transaction);
        Ok(true)
    }

    /// Says whether a transaction that does not wait yet would be taken in if its signatures are right.
    ///
    /// # Errors
    /// [`PoolRefused`] names the reason, which is for its author.
    pub(super) fn screen(
        &self,
        state: &State,
        next: Height,
        time: UnixMillis,
        signed: &SignedTransaction,
    ) -> Result<(), PoolRefused> {
        if self.by_author.contains_key(&(signed.transaction.author, signed.transaction.seq)) {
            return Err(PoolRefused::SequenceTaken);
        }
        self.check_shares(state, signed)?;
        if self.by_id.len() >= MAX_PENDING || self.encoded_len + signed.encode().len() > MAX_PENDING_LEN {
            return Err(PoolRefused::Full);
        }
        state.draft(next, time).would_apply(signed)?;
        Ok(())
    }

    /// Takes in what passed [`Pool::screen`] just before.
    pub(super) fn keep(&mut self, transaction: Verified<SignedTransaction>) {
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        self.encoded_len += transaction.encode().len();
        self.by_id.insert(transaction.id(), arrival);
        self.by_author.insert((transaction.transaction.author, transaction.transaction.seq), arrival);
        self.by_arrival.insert(arrival, transaction);
    }

    fn check_shares(&self, state: &State, transaction: &SignedTransaction) -> Result<(), PoolRefused> {
        let author = &transaction.transaction.author;
        let share =
            if state.signer(author).is_some() { MAX_PENDING_PER_SIGNER } else { usize::from(MAX_OWN_TRANSACTIONS) };
        if self.of_author(author).count() >= share {
            return Err(PoolRefused::AuthorFull);
        }
        for credential in credentials(transaction) {
            let same = |waiting: &&Verified<SignedTransaction>| credentials(waiting).any(|other| other == credential);
            if self.by_arrival.values().filter(same).count() >= MAX_PENDING_PER_CREDENTIAL {
                return Err(PoolRefused::CredentialFull);
            }
        }
        Ok(())
    }

    fn of_author(&self, author: &VerifyingKey) -> impl Iterator<Item = (u64, u64)> {
        let range = self.by_author.range((*author, 0)..=(*author, u64::MAX));
        range.map(|((_, seq), arrival)| (*seq, *arrival))
    }

    /// Returns the highest sequence number of an author that waits.
    pub fn last_seq(&self, author: &VerifyingKey) -> Option<u64> {
        self.of_author(author).last().map(|(seq, _)| seq)
    }

    /// Lists what waits: first come first served, but each author's own in the order of their sequence numbers.
    pub fn in_order(&self) -> Vec<&Verified<SignedTransaction>> {
        let mut next: BTreeMap<VerifyingKey, Vec<u64>> = BTreeMap::new();
        for ((author, _), arrival) in self.by_author.iter().rev() {
            next.entry(*author).or_default().push(*arrival);
        }
        let turn = |transaction: &Verified<SignedTransaction>| next.get_mut(&transaction.transaction.author)?.pop();
        let arrivals: Vec<u64> = self.by_arrival.values().filter_map(turn).collect();
        arrivals.iter().filter_map(|arrival| self.by_arrival.get(arrival)).collect()
    }

    /// Removes a transaction.
    pub fn remove(&mut self, id: &TxId) {
        let Some(arrival) = self.by_id.remove(id) else { return };
        if let Some(transaction) = self.by_arrival.remove(&arrival) {
            self.encoded_len -= transaction.encode().len();
            self.by_author.remove(&(transaction.transaction.author, transaction.transaction.seq));
        }
    }

    /// Looks at all that waits again, after a block, and drops what no longer applies; returns each with the reason.
    pub fn recheck(
        &mut self,
        state: &State,
        next: Height,
        time: UnixMillis,
    ) -> Vec<(Verified<SignedTransaction>, TxError)> {
        let mut dropped = Vec::new();
        let mut draft = state.draft(next, time);
        for transaction in self.in_order() {
            if let Err(error) = draft.apply(transaction) {
                dropped.push((transaction.clone(), error));
            }
        }
        for (transaction, _) in &dropped {
            self.remove(&transaction.id());
        }
        dropped
    }

    /// Finds a transaction that waits.
    pub fn transaction(&self, id: &TxId) -> Option<&Verified<SignedTransaction>> {
        self.by_arrival.get(self.by_id.get(id)?)
    }

    /// Returns how many wait.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Says whether none waits.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

/// Iterates over the credentials by which a transaction joins.
fn credentials(signed: &SignedTransaction) -> impl Iterator<Item = VerifyingKey> {
    signed.transaction.operations.iter().filter_map(|operation| match operation {
        Operation::Join(join) => Some(join.credential),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::kit::{ADMIN, DAY, FOUNDER, NODE, Net, admit, credential, id, join, key, label};
    use super::super::operation::Rename;
    use super::super::transaction::Transaction;
    use super::*;

    fn submit(pool: &mut Pool, net: &Net, transaction: &Verified<SignedTransaction>) -> Result<bool, PoolRefused> {
        pool.submit(&net.state, net.head.height().next(), net.later(), transaction.clone())
    }

    fn rename(net: &Net, seed: u8, seq: u64) -> Verified<SignedTransaction> {
        let rename = Rename { identity: id(FOUNDER), name: label(&format!("name-{seq}")) };
        let author = key(seed).verifying_key();
        net.sign_with(&[seed], Transaction::new(author, seq, net.later(), vec![Operation::Rename(rename)]))
    }

    #[test]
    fn a_transaction_waits_once_and_its_sequence_number_is_its_own() {
        let (net, mut pool) = (Net::new(), Pool::default());
        let first = rename(&net, ADMIN, 1);
        assert_eq!(submit(&mut pool, &net, &first), Ok(true));
        assert_eq!(submit(&mut pool, &net, &first), Ok(false));
        let rival = Rename { identity: id(FOUNDER), name: label("rival") };
        let rival = Transaction::new(key(ADMIN).verifying_key(), 1, net.later(), vec![Operation::Rename(rival)]);
        assert_eq!(submit(&mut pool, &net, &net.sign_with(&[ADMIN], rival)), Err(PoolRefused::SequenceTaken));
        pool.remove(&first.id());
        assert_eq!((pool.len(), pool.encoded_len, pool.by_author.len()), (0, 0, 0));
    }

    #[test]
    fn what_does_not_apply_does_not_wait() {
        let (mut net, mut pool) = (Net::new(), Pool::default());
        let stranger = net.sign(&[NODE], vec![Operation::Admit(admit(NODE, 0))]);
        assert!(matches!(submit(&mut pool, &net, &stranger), Err(PoolRefused::Invalid(TxError::NotAuthorized { .. }))));
        assert!(pool.is_empty());
    }

    #[test]
    fn an_authors_transactions_keep_their_order_whatever_the_order_of_arrival() {
        let (net, mut pool) = (Net::new(), Pool::default());
        for (seed, seq) in [(ADMIN, 3), (FOUNDER, 2), (ADMIN, 1), (FOUNDER, 1), (ADMIN, 2)] {
            submit(&mut pool, &net, &rename(&net, seed, seq)).unwrap();
        }
        let turn = |transaction: &&Verified<SignedTransaction>| {
            (transaction.transaction.author == key(ADMIN).verifying_key(), transaction.transaction.seq)
        };
        let order: Vec<_> = pool.in_order().iter().map(turn).collect();
        assert_eq!(order, [(true, 1), (false, 1), (true, 2), (false, 2), (true, 3)]);
        assert_eq!(pool.last_seq(&key(ADMIN).verifying_key()), Some(3));
    }

    #[test]
    fn a_member_a_signer_and_a_credential_have_their_shares() {
        let (mut net, mut pool) = (Net::new(), Pool::default());
        for seq in 1..=16 {
            submit(&mut pool, &net, &rename(&net, FOUNDER, seq)).unwrap();
        }
        assert_eq!(submit(&mut pool, &net, &rename(&net, FOUNDER, 17)), Err(PoolRefused::AuthorFull));
        for seq in 1..=256 {
            submit(&mut pool, &net, &rename(&net, ADMIN, seq)).unwrap();
        }
        assert_eq!(submit(&mut pool, &net, &rename(&net, ADMIN, 257)), Err(PoolRefused::AuthorFull));
        let until = net.later().after(DAY);
        net.order(Operation::Credential(credential(9, 1, until))).unwrap();
        for seed in 20..84 {
            let joining = net.joining(join(seed, 9), 9, seed);
            submit(&mut pool, &net, &joining).unwrap();
        }
        let joining = net.joining(join(84, 9), 9, 84);
        assert_eq!(submit(&mut pool, &net, &joining), Err(PoolRefused::CredentialFull));
    }

    #[test]
    fn a_block_drops_what_no_longer_applies_and_says_why() {
        let (mut net, mut pool) = (Net::new(), Pool::default());
        let (web, rival) = (named(&mut net, NODE), named(&mut net, NODE + 1));
        submit(&mut pool, &net, &web).unwrap();
        submit(&mut pool, &net, &rival).unwrap();
        net.commit(web.clone()).unwrap();
        pool.remove(&web.id());
        let (next, time) = (net.head.height().next(), net.later());
        let dropped = pool.recheck(&net.state, next, time);
        assert_eq!(dropped, [(rival, TxError::NameTaken(label("web")))]);
        assert!(pool.is_empty());
    }

    fn named(net: &mut Net, seed: u8) -> Verified<SignedTransaction> {
        let admit = super::super::operation::Admit { name: Some(label("web")), ..admit(seed, 0) };
        net.admission(admit)
    }
}
