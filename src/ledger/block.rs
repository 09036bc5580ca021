//! Blocks: a batch of transactions, tied to everything before it and to the state after it.

use super::certificate::{Certificate, Evidence};
use super::transaction::{MAX_TRANSACTION_LEN, MalformedTransaction, SignedTransaction, Verified};
use crate::crypto::hash::{Digest, domain_hash};
use crate::crypto::identity::VerifyingKey;
use crate::time::UnixMillis;
use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;

/// The format of this file.
pub const FORMAT: u8 = 1;
/// The most bytes of a block, header and body: a second of a slow member's upstream.
pub const MAX_BLOCK_LEN: usize = 256 * 1024;
/// The most transactions of a block.
pub const MAX_BLOCK_TRANSACTIONS: usize = 512;
/// The most pieces of evidence of a block; more wait for the next one.
pub const MAX_BLOCK_EVIDENCE: usize = 16;

const _: () = assert!(MAX_TRANSACTION_LEN <= MAX_BLOCK_LEN / 4);

/// A place in the chain; genesis has 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct Height(pub u64);

impl Height {
    /// Returns the next height.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An attempt at one height, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct Round(pub u32);

/// The hash of a block's header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct BlockId(pub Digest);

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// What a block says of itself, 245 bytes.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u8,
    /// The network id; zero in genesis, whose own hash it is.
    pub chain: Digest,
    /// How often the chain was continued by recovery keys.
    pub epoch: u32,
    /// Its place.
    pub height: Height,
    /// Its time, later than its parent's.
    pub time: UnixMillis,
    /// The block before it; zero in genesis.
    pub parent: BlockId,
    /// [`Body::root`]: every transaction with its witnesses, the last commit and the evidence.
    pub txs_root: Digest,
    /// The root over the state after this block.
    pub state_root: Digest,
    /// [`super::ValidatorSet::hash`] of those who commit this block.
    pub validators_hash: Digest,
    /// The same of those who commit the next one.
    pub next_validators_hash: Digest,
    /// The validator that proposed it.
    pub proposer: VerifyingKey,
}

impl Header {
    /// Returns the block's name.
    pub fn id(&self) -> BlockId {
        let bytes = borsh::to_vec(self).expect("writing to memory does not fail");
        BlockId(domain_hash("p2plus/block/1", &[&bytes]))
    }
}

/// What a block holds.
#[derive(Clone, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct Body {
    /// The transactions, in the order in which they happen.
    pub transactions: Vec<SignedTransaction>,
    /// The certificate of the block before; absent in genesis and in the block after it.
    pub last_commit: Option<Certificate>,
    /// Votes that exclude each other.
    pub evidence: Vec<Evidence>,
}

impl Body {
    /// Returns the hash that the header carries.
    pub fn root(&self) -> Digest {
        let bytes = |part: borsh::io::Result<Vec<u8>>| part.expect("writing to memory does not fail");
        let transactions = bytes(borsh::to_vec(&self.transactions));
        let last_commit = bytes(borsh::to_vec(&self.last_commit));
        let evidence = bytes(borsh::to_vec(&self.evidence));
        domain_hash("p2plus/body/1", &[&transactions, &last_commit, &evidence])
    }

    /// Checks every transaction's form and signatures.
    ///
    /// # Errors
    /// The place and fault of the first one that fails.
    pub fn verify_transactions(
        &self,
        chain: &Digest,
    ) -> Result<Vec<Verified<SignedTransaction>>, (usize, MalformedTransaction)> {
        let verify =
            |(place, signed): (usize, &SignedTransaction)| signed.clone().verify(chain).map_err(|error| (place, error));
        self.transactions.iter().enumerate().map(verify).collect()
    }
}

/// A header with its body.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Block {
    /// What it says of itself.
    pub header: Header,
    /// What it holds.
    pub body: Body,
}

/// Bytes that can never be a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedBlock {
    /// Longer than [`MAX_BLOCK_LEN`].
    #[error("the block is longer than {MAX_BLOCK_LEN} bytes")]
    TooLong,
    /// Not the encoding of a block.
    #[error("the bytes are no block")]
    Undecodable,
    /// Another spelling of a block than the one that it has.
    #[error("the block is not spelled canonically")]
    NotCanonical,
    /// Not [`FORMAT`].
    #[error("block format {0} is unknown")]
    Format(u8),
    /// More than [`MAX_BLOCK_TRANSACTIONS`].
    #[error("the block has more than {MAX_BLOCK_TRANSACTIONS} transactions")]
    TooManyTransactions,
    /// More than [`MAX_BLOCK_EVIDENCE`].
    #[error("the block has more than {MAX_BLOCK_EVIDENCE} pieces of evidence")]
    TooMuchEvidence,
    /// The body is not the one of the header.
    #[error("the body does not belong to the header")]
    WrongBody,
}

impl Block {
    /// Returns the block's name.
    pub fn id(&self) -> BlockId {
        self.header.id()
    }

    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Reads the one spelling of a block, and checks its form.
    ///
    /// # Errors
    /// [`MalformedBlock`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedBlock> {
        if bytes.len() > MAX_BLOCK_LEN {
            return Err(MalformedBlock::TooLong);
        }
        let block: Self = borsh::from_slice(bytes).map_err(|_| MalformedBlock::Undecodable)?;
        if block.encode() != bytes {
            return Err(MalformedBlock::NotCanonical);
        }
        block.check_form().map(|()| block)
    }

    /// Checks the format, the limits and that the body is the header's.
    ///
    /// # Errors
    /// [`MalformedBlock`].
    pub fn check_form(&self) -> Result<(), MalformedBlock> {
        if self.header.format != FORMAT {
            return Err(MalformedBlock::Format(self.header.format));
        }
        if self.body.transactions.len() > MAX_BLOCK_TRANSACTIONS {
            return Err(MalformedBlock::TooManyTransactions);
        }
        if self.body.evidence.len() > MAX_BLOCK_EVIDENCE {
            return Err(MalformedBlock::TooMuchEvidence);
        }
        if self.encode().len() > MAX_BLOCK_LEN {
            return Err(MalformedBlock::TooLong);
        }
        if self.body.root() != self.header.txs_root {
            return Err(MalformedBlock::WrongBody);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::kit::{ADMIN, NODE, Net, admit, key};
    use super::super::operation::Operation;
    use super::super::transaction::Transaction;
    use super::*;
    use proptest::prelude::*;

    fn block() -> Block {
        let mut net = Net::new();
        net.order(Operation::Admit(admit(NODE, 0))).unwrap();
        net.order(Operation::Admit(admit(NODE + 1, 0))).unwrap();
        net.blocks.pop().unwrap().0
    }

    /// Gives the header what belongs to the body.
    fn sealed(mut block: Block) -> Block {
        block.header.txs_root = block.body.root();
        block
    }

    #[test]
    fn a_block_survives_its_bytes() {
        let block = block();
        assert_eq!(Block::decode(&block.encode()), Ok(block.clone()));
        assert_eq!(borsh::to_vec(&block.header).unwrap().len(), 245);
        assert!(block.body.last_commit.is_some());
    }

    #[test]
    fn every_flipped_bit_makes_another_block_or_none() {
        let block = block();
        let bytes = block.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Block::decode(&flipped).is_ok_and(|other| other.id() != block.id()) || Block::decode(&flipped).is_err()
            );
            if bit >= 245 * 8 {
                assert!(Block::decode(&flipped).is_err(), "bit {bit} of the body");
            }
        }
    }

    #[test]
    fn a_truncated_or_lengthened_block_is_none() {
        let bytes = block().encode();
        for len in 0..bytes.len() {
            assert_eq!(Block::decode(&bytes[..len]), Err(MalformedBlock::Undecodable));
        }
        assert_eq!(Block::decode(&[bytes.as_slice(), &[0]].concat()), Err(MalformedBlock::Undecodable));
    }

    #[test]
    fn every_part_of_the_body_is_in_the_header() {
        let block = block();
        let mut without = block.clone();
        without.body.transactions[0].witnesses.clear();
        assert_eq!(without.check_form(), Err(MalformedBlock::WrongBody));
        let mut without = block.clone();
        without.body.transactions.clear();
        assert_eq!(without.check_form(), Err(MalformedBlock::WrongBody));
        let mut without = block;
        without.body.last_commit = None;
        assert_eq!(without.check_form(), Err(MalformedBlock::WrongBody));
    }

    #[test]
    fn the_limits_of_a_block_are_kept() {
        let mut block = block();
        block.body.transactions = vec![block.body.transactions[0].clone(); MAX_BLOCK_TRANSACTIONS];
        block = sealed(block);
        assert_eq!(block.check_form(), Ok(()));
        block.body.transactions.push(block.body.transactions[0].clone());
        assert_eq!(sealed(block.clone()).check_form(), Err(MalformedBlock::TooManyTransactions));
        let long = Operation::Unknown { code: 999, bytes: vec![0; 60_000] };
        let long = Transaction::new(key(ADMIN).verifying_key(), 1, UnixMillis(1), vec![long]);
        block.body.transactions = vec![long.sign(&Digest([1; 32]), &[&key(ADMIN)]); 5];
        assert_eq!(sealed(block.clone()).check_form(), Err(MalformedBlock::TooLong));
        assert_eq!(Block::decode(&sealed(block.clone()).encode()), Err(MalformedBlock::TooLong));
        block.body.transactions.clear();
        block.header.format = 2;
        assert_eq!(sealed(block).check_form(), Err(MalformedBlock::Format(2)));
    }

    proptest! {
        #[test]
        fn random_bytes_are_no_block(bytes in proptest::collection::vec(any::<u8>(), 0..1024)) {
            prop_assert!(Block::decode(&bytes).is_err());
        }
    }
}
