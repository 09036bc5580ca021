//! What nodes say to each other about the ledger, over control streams.
//!
//! ```text
//! behind                      ahead
//!   │ ◄──────── Head ──────────│      after each commit, and when a session begins
//!   │ ── GetBlocks(from, n) ──► │
//!   │ ◄─────── Blocks ─────────│      each with its certificate
//! ```
//! Bytes are read here once, with every bound; what they mean is the engine's.

use super::block::{BlockId, Height, MAX_BLOCK_LEN};
use super::certificate::Certificate;
use super::transaction::{MAX_TRANSACTION_LEN, SignedTransaction, TxId};
use crate::crypto::hash::Digest;
use crate::time::UnixMillis;
use borsh::{BorshDeserialize, BorshSerialize};

/// The most blocks that one answer may hold.
pub const MAX_BLOCKS: u8 = 64;
/// The most bytes of blocks in one answer, unless a single one is longer: a second of a slow member's upstream.
pub const MAX_BLOCKS_LEN: usize = 512 * 1024;
/// The most transactions that one message may name or hold.
pub const MAX_TRANSACTIONS: usize = 512;
/// The most bytes of transactions in one message.
pub const MAX_TRANSACTIONS_LEN: usize = 256 * 1024;
/// The most bytes of a consensus message: a proposal with its whole block, and room for its votes.
pub const MAX_CONSENSUS_LEN: usize = MAX_BLOCK_LEN + 64 * 1024;
/// The longest reason, in bytes.
pub const MAX_REASON_LEN: usize = 512;
/// The most bytes of a message, which the stream that carries it must allow.
pub const MAX_MESSAGE_LEN: usize = MAX_BLOCKS_LEN + MAX_BLOCK_LEN + 64 * 1024;

/// A block as it is stored and sent.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct CommittedBlock {
    /// [`super::Block::encode`].
    pub block: Vec<u8>,
    /// Who committed it; absent for genesis.
    pub certificate: Option<Certificate>,
}

/// Where somebody's chain ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct HeadNotice {
    /// The height of the last block.
    pub height: Height,
    /// The last block.
    pub id: BlockId,
    /// Its time.
    pub time: UnixMillis,
    /// [`super::revocation::Revocations::digest`].
    pub revocations: Digest,
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum LedgerMessage {
    /// Where the sender's chain ends.
    Head(HeadNotice),
    /// A request for blocks.
    GetBlocks {
        /// The first height.
        from: Height,
        /// How many, 1 to [`MAX_BLOCKS`].
        limit: u8,
    },
    /// Blocks in order, at most [`MAX_BLOCKS`]; none when the sender does not hold the first that was asked for.
    Blocks(Vec<CommittedBlock>),
    /// Transactions that wait at the sender, at most [`MAX_TRANSACTIONS`].
    HaveTransactions(Vec<TxId>),
    /// A request for transactions, at most [`MAX_TRANSACTIONS`].
    GetTransactions(Vec<TxId>),
    /// Transactions, at most [`MAX_TRANSACTIONS`].
    Transactions(Vec<SignedTransaction>),
    /// A transaction whose author wants an answer.
    Submit(SignedTransaction),
    /// The transaction waits for a block.
    Submitted(TxId),
    /// The transaction does not, or no longer, wait for a block.
    Refused {
        /// Which one.
        id: TxId,
        /// Why, for a person; at most [`MAX_REASON_LEN`] bytes.
        reason: String,
    },
    /// A message of the consensus engine, at most [`MAX_CONSENSUS_LEN`] bytes.
    Consensus(Vec<u8>),
    /// A request for all revocations that wait for a block.
    GetRevocations,
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Longer than [`MAX_MESSAGE_LEN`].
    #[error("a ledger message is longer than {MAX_MESSAGE_LEN} bytes")]
    TooLong,
    /// Not the encoding of a message.
    #[error("the bytes are no ledger message")]
    Undecodable,
    /// A list, text or number in it is beyond its bound.
    #[error("a ledger message is beyond its bounds")]
    OutOfBounds,
}

impl LedgerMessage {
    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Reads a message and checks its bounds.
    ///
    /// # Errors
    /// [`BadMessage`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        if bytes.len() > MAX_MESSAGE_LEN {
            return Err(BadMessage::TooLong);
        }
        let message: Self = borsh::from_slice(bytes).map_err(|_| BadMessage::Undecodable)?;
        if message.is_bounded() { Ok(message) } else { Err(BadMessage::OutOfBounds) }
    }

    fn is_bounded(&self) -> bool {
        match self {
            Self::Head(_) | Self::Submitted(_) | Self::GetRevocations => true,
            Self::GetBlocks { limit, .. } => (1..=MAX_BLOCKS).contains(limit),
            Self::Blocks(blocks) => {
                let fits = |block: &CommittedBlock| block.block.len() <= MAX_BLOCK_LEN;
                blocks.len() <= usize::from(MAX_BLOCKS) && blocks.iter().all(fits)
            }
            Self::HaveTransactions(ids) | Self::GetTransactions(ids) => ids.len() <= MAX_TRANSACTIONS,
            Self::Transactions(transactions) => transactions.len() <= MAX_TRANSACTIONS,
            Self::Submit(transaction) => transaction.encode().len() <= MAX_TRANSACTION_LEN,
            Self::Refused { reason, .. } => reason.len() <= MAX_REASON_LEN,
            Self::Consensus(bytes) => bytes.len() <= MAX_CONSENSUS_LEN,
        }
    }

    /// Makes the refusal of a transaction, with the reason cut to what a message may hold.
    pub fn refused(id: TxId, reason: &impl std::fmt::Display) -> Self {
        let mut reason = reason.to_string();
        let mut len = reason.len().min(MAX_REASON_LEN);
        while !reason.is_char_boundary(len) {
            len -= 1;
        }
        reason.truncate(len);
        Self::Refused { id, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_its_bytes() {
        let message = LedgerMessage::GetBlocks { from: Height(7), limit: 64 };
        assert_eq!(LedgerMessage::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn what_is_beyond_its_bounds_is_refused() {
        let id = TxId(Digest([1; 32]));
        let block = |len| CommittedBlock { block: vec![0; len], certificate: None };
        for message in [
            LedgerMessage::GetBlocks { from: Height(7), limit: 0 },
            LedgerMessage::GetBlocks { from: Height(7), limit: 65 },
            LedgerMessage::Blocks(vec![block(0); 65]),
            LedgerMessage::Blocks(vec![block(MAX_BLOCK_LEN + 1)]),
            LedgerMessage::HaveTransactions(vec![id; MAX_TRANSACTIONS + 1]),
            LedgerMessage::GetTransactions(vec![id; MAX_TRANSACTIONS + 1]),
            LedgerMessage::Refused { id, reason: "x".repeat(MAX_REASON_LEN + 1) },
            LedgerMessage::Consensus(vec![0; MAX_CONSENSUS_LEN + 1]),
        ] {
            assert_eq!(LedgerMessage::decode(&message.encode()), Err(BadMessage::OutOfBounds));
        }
        assert_eq!(LedgerMessage::decode(&vec![0; MAX_MESSAGE_LEN + 1]), Err(BadMessage::TooLong));
        assert_eq!(LedgerMessage::decode(&[99]), Err(BadMessage::Undecodable));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let LedgerMessage::Refused { reason, .. } =
            LedgerMessage::refused(TxId(Digest([1; 32])), &"ä".repeat(MAX_REASON_LEN))
        else {
            panic!("a refusal");
        };
        assert_eq!(reason.len(), MAX_REASON_LEN);
    }
}
