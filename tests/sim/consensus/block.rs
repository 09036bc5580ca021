//! A toy chain: blocks with the last commit inside, so that the order of proposers comes from where it will come from.

use borsh::{BorshDeserialize, BorshSerialize};
use p2plus::crypto::hash::{Digest, domain_hash};
use p2plus::ledger::consensus::{BlockId, Certificate, Height, Start, ValidatorSet, proposer_order};
use p2plus::time::Instant;

/// The network of every simulation.
pub const CHAIN: Digest = Digest([42; 32]);

/// A block of the toy chain.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Block {
    pub height: Height,
    pub parent: BlockId,
    pub last_commit: Option<Certificate>,
    /// Breaks the rules when false.
    pub is_valid: bool,
    pub salt: u64,
    pub filler: Vec<u8>,
}

/// A block with its proof, as one node committed it.
#[derive(Clone, Debug)]
pub struct Committed {
    pub id: BlockId,
    pub bytes: Vec<u8>,
    pub certificate: Certificate,
    pub at: Instant,
}

/// Names a block.
pub fn id_of(bytes: &[u8]) -> Option<BlockId> {
    borsh::from_slice::<Block>(bytes).ok()?;
    Some(BlockId(domain_hash("p2plus/sim/block", &[bytes])))
}

/// What one node has committed; heights begin at 1.
#[derive(Clone, Debug, Default)]
pub struct Chain(pub Vec<Committed>);

impl Chain {
    pub fn head(&self) -> Height {
        Height(self.0.len() as u64)
    }

    pub fn at(&self, height: Height) -> Option<&Committed> {
        self.0.get(usize::try_from(height.0.checked_sub(1)?).ok()?)
    }

    fn head_id(&self) -> BlockId {
        self.at(self.head()).map(|block| block.id).unwrap_or_default()
    }

    /// Builds the next block.
    pub fn build(&self, is_valid: bool, filler_len: usize, salt: u64) -> Vec<u8> {
        let block = Block {
            height: self.head().next(),
            parent: self.head_id(),
            last_commit: self.at(self.head()).map(|block| block.certificate.clone()),
            is_valid,
            salt,
            filler: vec![0; filler_len],
        };
        borsh::to_vec(&block).unwrap()
    }

    /// Says whether a block may be the next one.
    pub fn accepts(&self, bytes: &[u8], validators: &ValidatorSet) -> bool {
        let Ok(block) = borsh::from_slice::<Block>(bytes) else { return false };
        let commit_holds = match (&block.last_commit, self.at(self.head())) {
            (None, None) => true,
            (Some(commit), Some(head)) => commit.block == head.id && commit.verify(&CHAIN, validators).is_ok(),
            (None, Some(_)) | (Some(_), None) => false,
        };
        block.is_valid && block.height == self.head().next() && block.parent == self.head_id() && commit_holds
    }

    /// Returns what the next height starts with.
    pub fn next_start(&self, validators: &ValidatorSet) -> Start {
        let height = self.head().next();
        let head: Option<Block> = self.at(self.head()).map(|block| borsh::from_slice(&block.bytes).unwrap());
        let last_commit = head.and_then(|block| block.last_commit);
        let proposers = proposer_order(validators, last_commit.as_ref().map(|commit| (commit, validators)), height);
        Start { height, validators: validators.clone(), proposers }
    }
}
