//! Transactions: what somebody wants, and who signed it.
//!
//! ```text
//! unsigned : format u8 | author 32 | seq u64 | valid_until u64 | operations u32 × (code u16 | len u32 | bytes) | stamp 0 or 1 …
//! signed   : unsigned | witnesses u32 × (key 32 | signature 64)        witnesses in the order of their keys
//! id       : H("p2plus/transaction/1", chain, unsigned)                what every witness signs; the chain is never sent
//! ```
//! One value has one byte string: decoding refuses every other spelling. A transaction is known by its id, which no change of
//! its witnesses alters, so that nobody can make a second name for it.

use super::operation::{Operation, Revoke};
use crate::crypto::hash::{Digest, domain_hash};
use crate::crypto::identity::{Signature, SigningKey, VerifyingKey};
use crate::time::UnixMillis;
use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use std::ops::Deref;

/// The format of this file.
pub const FORMAT: u8 = 1;
/// The most operations of a transaction; they happen together or not at all.
pub const MAX_OPERATIONS: usize = 16;
/// The most witnesses of a transaction, which bounds the work of checking it.
pub const MAX_WITNESSES: usize = 16;
/// The most bytes of a signed transaction: a quarter of a block.
pub const MAX_TRANSACTION_LEN: usize = 64 * 1024;
/// What a witness signs begins with this.
const SIGNING_DOMAIN: &[u8] = b"p2plus/transaction/1";

/// The name of a transaction on its chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct TxId(pub Digest);

impl fmt::Display for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Proof of work for open networks. Format 1 accepts none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Stamp {
    /// A recent block.
    pub recent: Digest,
    /// The number that was searched for.
    pub nonce: u64,
}

/// What somebody wants to happen, unsigned.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Transaction {
    /// [`FORMAT`].
    pub format: u8,
    /// Whose sequence of transactions this belongs to; always a witness.
    pub author: VerifyingKey,
    /// Strictly increasing per author, at least 1; 0 in a revocation, which nothing may displace.
    pub seq: u64,
    /// The last block time at which it may be applied; 0 in a revocation.
    pub valid_until: UnixMillis,
    /// What happens, in order; 1 to [`MAX_OPERATIONS`].
    pub operations: Vec<Operation>,
    /// Absent in format 1.
    pub stamp: Option<Stamp>,
}

/// One signature under a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Witness {
    /// Who signed.
    pub key: VerifyingKey,
    /// Over the domain string and the transaction's id.
    pub signature: Signature,
}

/// A transaction with its witnesses, as it travels.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SignedTransaction {
    /// What was signed.
    pub transaction: Transaction,
    /// In the order of their keys, each key once; 1 to [`MAX_WITNESSES`].
    pub witnesses: Vec<Witness>,
}

/// A transaction whose form and signatures were checked for one chain; only [`SignedTransaction::verify`] makes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified<T> {
    value: T,
    id: TxId,
}

/// Bytes or a value that can never be a transaction of this chain; always the fault of who made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedTransaction {
    /// Longer than [`MAX_TRANSACTION_LEN`].
    #[error("the transaction is longer than {MAX_TRANSACTION_LEN} bytes")]
    TooLong,
    /// Not the encoding of a transaction.
    #[error("the bytes are no transaction")]
    Undecodable,
    /// Another spelling of a transaction than the one that it has.
    #[error("the transaction is not spelled canonically")]
    NotCanonical,
    /// Not [`FORMAT`].
    #[error("transaction format {0} is unknown")]
    Format(u8),
    /// No operation, or more than [`MAX_OPERATIONS`].
    #[error("a transaction has 1 to {MAX_OPERATIONS} operations, not {0}")]
    OperationCount(usize),
    /// No witness, or more than [`MAX_WITNESSES`].
    #[error("a transaction has 1 to {MAX_WITNESSES} witnesses, not {0}")]
    WitnessCount(usize),
    /// Witnesses out of order or twice.
    #[error("the witnesses are not sorted and distinct")]
    WitnessOrder,
    /// The author is no witness.
    #[error("the author did not sign")]
    AuthorMissing,
    /// A revocation with a sequence number or a last moment, by which something could displace it.
    #[error("a revocation has no sequence number and no last moment")]
    DisplaceableRevocation,
    /// Anything else without a sequence number or a last moment.
    #[error("the transaction has no sequence number or no last moment")]
    Unsequenced,
    /// A stamp, which format 1 does not know.
    #[error("this network takes no stamps")]
    Stamped,
    /// A signature that is false, or made for another chain.
    #[error("the signature of {0} is not valid on this chain")]
    BadSignature(VerifyingKey),
}

impl Transaction {
    /// Makes a transaction that its author's sequence number and last moment bound.
    pub fn new(author: VerifyingKey, seq: u64, valid_until: UnixMillis, operations: Vec<Operation>) -> Self {
        Self { format: FORMAT, author, seq, valid_until, operations, stamp: None }
    }

    /// Makes a transaction of revocations only, which nothing can displace.
    pub fn revocation(author: VerifyingKey, revocations: impl IntoIterator<Item = Revoke>) -> Self {
        let operations = revocations.into_iter().map(Operation::Revoke).collect();
        Self::new(author, 0, UnixMillis(0), operations)
    }

    /// Says whether it revokes and does nothing else.
    pub fn is_revocation(&self) -> bool {
        self.operations.iter().all(|operation| matches!(operation, Operation::Revoke(_)))
    }

    /// Iterates over what it revokes, among whatever else it does.
    pub fn revocations(&self) -> impl Iterator<Item = Revoke> {
        self.operations.iter().filter_map(|operation| match operation {
            Operation::Revoke(revoke) => Some(*revoke),
            _ => None,
        })
    }

    /// Returns its id on the chain `chain`.
    pub fn id(&self, chain: &Digest) -> TxId {
        let bytes = borsh::to_vec(self).expect("writing to memory does not fail");
        TxId(domain_hash("p2plus/transaction/1", &[&chain.0, &bytes]))
    }

    /// Signs with all of `keys`.
    pub fn sign(self, chain: &Digest, keys: &[&SigningKey]) -> SignedTransaction {
        let message = signed_bytes(&self.id(chain));
        let mut witnesses: Vec<_> =
            keys.iter().map(|key| Witness { key: key.verifying_key(), signature: key.sign(&message) }).collect();
        witnesses.sort_by_key(|witness| witness.key);
        witnesses.dedup_by_key(|witness| witness.key);
        SignedTransaction { transaction: self, witnesses }
    }
}

/// Returns what a witness signs.
fn signed_bytes(id: &TxId) -> Vec<u8> {
    [SIGNING_DOMAIN, &id.0.0].concat()
}

impl SignedTransaction {
    /// Reads the one spelling of a transaction.
    ///
    /// # Errors
    /// [`MalformedTransaction`] for bytes that are too long, undecodable or spelled in another way.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedTransaction> {
        if bytes.len() > MAX_TRANSACTION_LEN {
            return Err(MalformedTransaction::TooLong);
        }
        let signed: Self = borsh::from_slice(bytes).map_err(|_| MalformedTransaction::Undecodable)?;
        if signed.encode() != bytes {
            return Err(MalformedTransaction::NotCanonical);
        }
        Ok(signed)
    }

    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Returns its id on the chain `chain`.
    pub fn id(&self, chain: &Digest) -> TxId {
        self.transaction.id(chain)
    }

    /// Checks the form and every signature.
    ///
    /// # Errors
    /// The first [`MalformedTransaction`] found, cheap checks before signatures.
    pub fn verify(self, chain: &Digest) -> Result<Verified<Self>, MalformedTransaction> {
        self.verify_leading(chain, |_| true)
    }

    /// Checks the form and every signature, first those of witnesses that `lead`: a forger lacks these, whatever others it made.
    ///
    /// # Errors
    /// As [`SignedTransaction::verify`].
    pub fn verify_leading(
        self,
        chain: &Digest,
        lead: impl Fn(&VerifyingKey) -> bool,
    ) -> Result<Verified<Self>, MalformedTransaction> {
        self.check_form()?;
        let id = self.id(chain);
        let message = signed_bytes(&id);
        let (leading, others): (Vec<&Witness>, Vec<&Witness>) =
            self.witnesses.iter().partition(|witness| lead(&witness.key));
        for Witness { key, signature } in leading.into_iter().chain(others) {
            key.verify(&message, signature).map_err(|_| MalformedTransaction::BadSignature(*key))?;
        }
        Ok(Verified { value: self, id })
    }

    /// Checks everything but the signatures.
    pub(super) fn check_form(&self) -> Result<(), MalformedTransaction> {
        let Transaction { format, author, seq, valid_until, operations, stamp } = &self.transaction;
        if *format != FORMAT {
            return Err(MalformedTransaction::Format(*format));
        }
        if !(1..=MAX_OPERATIONS).contains(&operations.len()) {
            return Err(MalformedTransaction::OperationCount(operations.len()));
        }
        if !(1..=MAX_WITNESSES).contains(&self.witnesses.len()) {
            return Err(MalformedTransaction::WitnessCount(self.witnesses.len()));
        }
        if !self.witnesses.is_sorted_by(|left, right| left.key < right.key) {
            return Err(MalformedTransaction::WitnessOrder);
        }
        if !self.is_witness(author) {
            return Err(MalformedTransaction::AuthorMissing);
        }
        if stamp.is_some() {
            return Err(MalformedTransaction::Stamped);
        }
        match (self.transaction.is_revocation(), *seq, valid_until.0) {
            (true, 0, 0) => {}
            (true, _, _) => return Err(MalformedTransaction::DisplaceableRevocation),
            (false, 0, _) | (false, _, 0) => return Err(MalformedTransaction::Unsequenced),
            (false, _, _) => {}
        }
        if self.encode().len() > MAX_TRANSACTION_LEN {
            return Err(MalformedTransaction::TooLong);
        }
        Ok(())
    }

    /// Says whether `key` is among the witnesses.
    pub fn is_witness(&self, key: &VerifyingKey) -> bool {
        self.witnesses.binary_search_by_key(key, |witness| witness.key).is_ok()
    }
}

impl Verified<SignedTransaction> {
    /// Returns the id on the chain for which it was checked.
    pub fn id(&self) -> TxId {
        self.id
    }

    /// Gives the transaction up.
    pub fn into_inner(self) -> SignedTransaction {
        self.value
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::super::kit::{ADMIN, BEGIN, DAY, FOUNDER, NODE, admit, id, join, key};
    use super::super::vectors::everything;
    use super::*;
    use crate::ledger::sync::LedgerMessage;
    use crate::wire::control::MAX_LEDGER_IN_CONTROL;
    use proptest::prelude::*;

    const CHAIN: Digest = Digest([9; 32]);

    fn signed() -> SignedTransaction {
        let operations = vec![Operation::Join(join(NODE, 50))];
        Transaction::new(key(NODE).verifying_key(), 1, BEGIN, operations).sign(&CHAIN, &[&key(NODE), &key(50)])
    }

    fn revocation(count: u8) -> SignedTransaction {
        let revoke = |seed| Revoke { identity: id(seed), incarnation: 0 };
        Transaction::revocation(key(ADMIN).verifying_key(), (0..count).map(revoke)).sign(&CHAIN, &[&key(ADMIN)])
    }

    /// Decodes and verifies, as every node does with bytes from outside.
    fn receive(bytes: &[u8]) -> Result<Verified<SignedTransaction>, MalformedTransaction> {
        SignedTransaction::decode(bytes)?.verify(&CHAIN)
    }

    #[test]
    fn what_was_signed_is_received() {
        let signed = signed();
        let received = receive(&signed.encode()).unwrap();
        assert_eq!((received.id(), &*received), (signed.id(&CHAIN), &signed));
    }

    #[test]
    fn the_signature_of_who_leads_is_checked_first_and_all_the_same_all_are() {
        let mut signed = signed();
        let last = signed.witnesses.last().unwrap().key;
        for witness in &mut signed.witnesses {
            witness.signature = Signature([7; 64]);
        }
        let refused = signed.clone().verify_leading(&CHAIN, |key| *key == last);
        assert_eq!(refused, Err(MalformedTransaction::BadSignature(last)));
        let (first, true_last) = (signed.witnesses[0].key, super::tests::signed().witnesses[1]);
        signed.witnesses[1] = true_last;
        let refused = signed.verify_leading(&CHAIN, |key| *key == last);
        assert_eq!(refused, Err(MalformedTransaction::BadSignature(first)));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        for signed in [signed(), revocation(2)] {
            let bytes = signed.encode();
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(receive(&flipped).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn whatever_decodes_as_a_transaction_encodes_to_the_same_bytes() {
        let mut transaction = Transaction::new(key(ADMIN).verifying_key(), 7, BEGIN, everything());
        transaction.stamp = Some(Stamp { recent: CHAIN, nonce: 1 });
        let bytes = transaction.sign(&CHAIN, &[&key(ADMIN), &key(NODE)]).encode();
        let mut decoded = 0;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(signed) = SignedTransaction::decode(&flipped) {
                assert!(signed.encode() == flipped, "bit {bit}");
                decoded += 1;
            }
        }
        assert!(decoded > bytes.len() * 4, "most bits are of keys, signatures and numbers: {decoded}");
    }

    #[test]
    fn every_truncation_and_every_extension_is_refused() {
        let bytes = signed().encode();
        for len in 0..bytes.len() {
            assert_eq!(receive(&bytes[..len]), Err(MalformedTransaction::Undecodable), "{len} bytes");
        }
        for byte in 0..=255 {
            assert_eq!(receive(&[bytes.as_slice(), &[byte]].concat()), Err(MalformedTransaction::Undecodable));
        }
    }

    #[test]
    fn a_transaction_is_for_one_chain() {
        let other = Digest([8; 32]);
        assert_ne!(signed().id(&CHAIN), signed().id(&other));
        assert!(matches!(signed().verify(&other), Err(MalformedTransaction::BadSignature(_))));
    }

    #[test]
    fn witnesses_are_sorted_distinct_and_hold_the_author() {
        let good = signed();
        let mut swapped = good.clone();
        swapped.witnesses.reverse();
        assert_eq!(swapped.verify(&CHAIN), Err(MalformedTransaction::WitnessOrder));
        let mut doubled = good.clone();
        doubled.witnesses.insert(0, doubled.witnesses[0]);
        assert_eq!(doubled.verify(&CHAIN), Err(MalformedTransaction::WitnessOrder));
        let mut orphaned = good.clone();
        orphaned.witnesses.retain(|witness| witness.key != key(NODE).verifying_key());
        assert_eq!(orphaned.verify(&CHAIN), Err(MalformedTransaction::AuthorMissing));
        let bare = SignedTransaction { witnesses: Vec::new(), ..good };
        assert_eq!(bare.verify(&CHAIN), Err(MalformedTransaction::WitnessCount(0)));
    }

    #[test]
    fn a_change_of_witnesses_is_no_other_transaction() {
        let operations = vec![Operation::Admit(admit(NODE, 0))];
        let transaction = Transaction::new(key(ADMIN).verifying_key(), 1, BEGIN, operations);
        let alone = transaction.clone().sign(&CHAIN, &[&key(ADMIN)]);
        let together = transaction.sign(&CHAIN, &[&key(ADMIN), &key(FOUNDER)]);
        assert_ne!(alone.encode(), together.encode());
        assert_eq!(alone.id(&CHAIN), together.id(&CHAIN));
    }

    #[test]
    fn the_limits_are_kept() {
        let sign = |operations: usize, witnesses: u8| {
            let operations = vec![Operation::Admit(admit(NODE, 0)); operations];
            let keys: Vec<_> = (1..=witnesses).map(key).collect();
            let keys: Vec<_> = keys.iter().collect();
            let transaction = Transaction::new(key(1).verifying_key(), 1, BEGIN, operations);
            transaction.sign(&CHAIN, &keys).verify(&CHAIN).map(drop)
        };
        assert_eq!(sign(16, 16), Ok(()));
        assert_eq!(sign(0, 1), Err(MalformedTransaction::OperationCount(0)));
        assert_eq!(sign(17, 1), Err(MalformedTransaction::OperationCount(17)));
        assert_eq!(sign(1, 17), Err(MalformedTransaction::WitnessCount(17)));
        let long = Operation::Unknown { code: 999, bytes: vec![0; MAX_TRANSACTION_LEN] };
        let long = Transaction::new(key(1).verifying_key(), 1, BEGIN, vec![long]).sign(&CHAIN, &[&key(1)]);
        assert_eq!(long.clone().verify(&CHAIN), Err(MalformedTransaction::TooLong));
        assert_eq!(receive(&long.encode()), Err(MalformedTransaction::TooLong));
    }

    #[test]
    fn nothing_can_displace_a_revocation_and_something_bounds_everything_else() {
        let revocation = revocation(1).transaction;
        let author = key(ADMIN);
        for displaceable in
            [Transaction { seq: 1, ..revocation.clone() }, Transaction { valid_until: BEGIN, ..revocation.clone() }]
        {
            let refused = displaceable.sign(&CHAIN, &[&author]).verify(&CHAIN);
            assert_eq!(refused, Err(MalformedTransaction::DisplaceableRevocation));
        }
        let mixed = vec![Operation::Admit(admit(NODE, 0)), revocation.operations[0].clone()];
        for (seq, until) in [(0, BEGIN), (1, UnixMillis(0))] {
            let unbounded = Transaction::new(author.verifying_key(), seq, until, mixed.clone());
            let refused = unbounded.sign(&CHAIN, &[&author]).verify(&CHAIN);
            assert_eq!(refused, Err(MalformedTransaction::Unsequenced));
        }
        let bounded = Transaction::new(author.verifying_key(), 1, BEGIN.after(DAY), mixed);
        assert!(bounded.sign(&CHAIN, &[&author]).verify(&CHAIN).is_ok());
    }

    #[test]
    fn another_format_and_a_stamp_are_refused() {
        let transaction = signed().transaction;
        let keys = [&key(NODE), &key(50)];
        let format = Transaction { format: 2, ..transaction.clone() };
        assert_eq!(format.sign(&CHAIN, &keys).verify(&CHAIN), Err(MalformedTransaction::Format(2)));
        let stamp = Some(Stamp { recent: CHAIN, nonce: 1 });
        let stamped = Transaction { stamp, ..transaction };
        assert_eq!(stamped.sign(&CHAIN, &keys).verify(&CHAIN), Err(MalformedTransaction::Stamped));
    }

    #[test]
    fn a_revocation_of_sixteen_fits_in_one_record() {
        let message = LedgerMessage::Transactions(vec![revocation(16)]);
        assert!(message.encode().len() <= MAX_LEDGER_IN_CONTROL);
        assert_eq!(revocation(1).encode().len(), 200);
        assert_eq!(revocation(16).encode().len(), 890);
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            (any::<u8>(), any::<u64>()).prop_map(|(seed, incarnation)| Operation::Admit(admit(seed / 3, incarnation))),
            (any::<u8>(), any::<u8>()).prop_map(|(seed, credential)| Operation::Join(join(seed / 3, credential))),
            (any::<[u8; 32]>(), any::<u64>()).prop_map(|(identity, incarnation)| {
                Operation::Revoke(Revoke { identity: crate::crypto::identity::NodeId(identity), incarnation })
            }),
            (100u16.., proptest::collection::vec(any::<u8>(), 0..64))
                .prop_map(|(code, bytes)| Operation::Unknown { code, bytes }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn decoding_what_was_encoded_gives_the_same(
            operations in proptest::collection::vec(operation(), 1..16),
            seq in 1u64..,
            until in 1u64..,
        ) {
            let transaction = Transaction::new(key(ADMIN).verifying_key(), seq, UnixMillis(until), operations);
            prop_assume!(!transaction.is_revocation());
            let signed = transaction.sign(&CHAIN, &[&key(ADMIN)]);
            prop_assert_eq!(&*receive(&signed.encode()).unwrap(), &signed);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(signed) = SignedTransaction::decode(&bytes) {
                prop_assert_eq!(signed.encode(), bytes);
            }
        }
    }
}
