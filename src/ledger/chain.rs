//! The order of history: which block may follow which, and the replay that proves it.
//!
//! ```text
//!  genesis ◄─parent─ 1 ◄─parent─ 2 ◄─parent─ head        the certificate of each is inside the next, that of the head beside it
//!     │              │           │            │
//!  network id     state_root after each: replayed, never believed
//! ```
//! Owns what makes a block acceptable after a head. Refuses to know where blocks come from and where they are kept.

use super::Changes;
use super::block::{Block, BlockId, Body, FORMAT, Header, Height, MAX_BLOCK_EVIDENCE, MAX_BLOCK_LEN};
use super::block::{MAX_BLOCK_TRANSACTIONS, MalformedBlock};
use super::certificate::{BadCertificate, Certificate, Evidence};
use super::genesis::{Genesis, GenesisError};
use super::operation::PROTOCOL_SET;
use super::operation::Revoke;
use super::state::{Draft, Effect, State, TxError};
use super::transaction::{MalformedTransaction, SignedTransaction, TxId, Verified};
use super::tree::{MemoryTree, StateTree, TreeError};
use crate::crypto::hash::Digest;
use crate::crypto::identity::VerifyingKey;
use crate::time::UnixMillis;

/// The last block of a chain, and the proof of its commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// Its name.
    pub id: BlockId,
    /// What it says of itself.
    pub header: Header,
    /// Who committed it; absent for genesis.
    pub certificate: Option<Certificate>,
    /// The commit inside it, of the block before.
    pub parent_commit: Option<Certificate>,
}

/// What executing a block gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Execution {
    /// What it changes in the state.
    pub changes: Changes,
    /// What it did, in order.
    pub effects: Vec<Effect>,
    /// The names of its transactions, in order.
    pub transactions: Vec<TxId>,
}

/// A block made from what was pending.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Built {
    /// The block.
    pub block: Block,
    /// What it does.
    pub execution: Execution,
    /// What does not apply, and why.
    pub dropped: Vec<(TxId, TxError)>,
}

/// Who proposes a block, when, and on top of what else than the head.
pub struct Proposing {
    /// The block's time; later than the head's.
    pub time: UnixMillis,
    /// The proposer's key.
    pub proposer: VerifyingKey,
    /// Votes that exclude each other.
    pub evidence: Vec<Evidence>,
}

/// A block that cannot follow the head.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The form of the block is wrong.
    #[error(transparent)]
    Block(#[from] MalformedBlock),
    /// The first block is no genesis.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The first block is the genesis of another network.
    #[error("this is the genesis of another network, {0}")]
    OtherNetwork(Digest),
    /// There is no block at all.
    #[error("there is no block")]
    Empty,
    /// It belongs to another chain, or to another epoch of it.
    #[error("the block belongs to another chain or epoch")]
    OtherChain,
    /// It is not the next one.
    #[error("the block has height {given}, {expected} is next")]
    NotNext {
        /// What would follow.
        expected: Height,
        /// What came.
        given: Height,
    },
    /// Its parent is not the head.
    #[error("the block's parent is not the block before it")]
    WrongParent,
    /// Its time is not later than the head's.
    #[error("the block is not later than the block before it")]
    NotLater,
    /// The validators, now or next, are not those that it says.
    #[error("the block names other validators than the state")]
    WrongValidators,
    /// Its proposer is no validator.
    #[error("the block's proposer is no validator")]
    NotAProposer,
    /// The commit inside is not one of the block before, or is missing, or too much.
    #[error("the commit inside the block is not that of the block before it")]
    WrongLastCommit,
    /// The commit inside proves nothing.
    #[error("the commit inside the block: {0}")]
    BadLastCommit(BadCertificate),
    /// Its evidence is none.
    #[error("evidence in the block proves nothing")]
    BadEvidence,
    /// A transaction's form or signature is wrong.
    #[error("transaction {place}: {error}")]
    MalformedTransaction {
        /// Its place in the block.
        place: usize,
        /// What is wrong.
        error: MalformedTransaction,
    },
    /// A transaction does not apply.
    #[error("transaction {place}: {error}")]
    InvalidTransaction {
        /// Its place in the block.
        place: usize,
        /// Why.
        error: TxError,
    },
    /// The state after it is not the one that it says.
    #[error("the block leads to another state than it claims")]
    WrongState,
    /// The certificate beside it is missing, or of another block.
    #[error("the certificate is not that of the block")]
    WrongCertificate,
    /// The certificate beside it proves nothing.
    #[error("the certificate: {0}")]
    BadCertificate(BadCertificate),
    /// It contradicts the checkpoint in the ticket.
    #[error("the block contradicts the checkpoint")]
    ContradictsCheckpoint,
    /// The tree could not be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl ChainError {
    /// Returns the code of the operation of a later version at which this program stops applying.
    pub fn unknown_operation(&self) -> Option<u16> {
        match self {
            Self::InvalidTransaction { error: TxError::UnknownOperation(code), .. } => Some(*code),
            Self::InvalidTransaction { error: TxError::UnknownProtocol(_), .. } => Some(PROTOCOL_SET),
            _ => None,
        }
    }
}

impl Head {
    /// Returns the head of a chain that has nothing but its genesis.
    pub fn genesis(genesis: &Genesis) -> Self {
        Self::new(&genesis.block, None)
    }

    /// Makes the head of a chain that ends with `block`.
    pub fn new(block: &Block, certificate: Option<Certificate>) -> Self {
        let parent_commit = block.body.last_commit.clone();
        Self { id: block.id(), header: block.header.clone(), certificate, parent_commit }
    }

    /// Returns its place.
    pub fn height(&self) -> Height {
        self.header.height
    }
}

/// Executes a block after `head`, and checks all that does not need its own certificate: form, links, times, validators, the commit
/// inside, every transaction and the state root. This is what a validator does before it votes.
///
/// # Errors
/// [`ChainError`] names the first thing that is wrong.
pub fn execute(head: &Head, state: &State, tree: &impl StateTree, block: &Block) -> Result<Execution, ChainError> {
    block.check_form()?;
    check_links(head, state, block)?;
    check_last_commit(head, state, &block.body)?;
    let chain = state.network_id();
    if !block.body.evidence.iter().all(|evidence| evidence.is_valid(chain)) {
        return Err(ChainError::BadEvidence);
    }
    let transactions = block
        .body
        .verify_transactions(chain)
        .map_err(|(place, error)| ChainError::MalformedTransaction { place, error })?;
    let mut draft = state.draft(block.header.height, block.header.time);
    for (place, signed) in transactions.iter().enumerate() {
        draft.apply(signed).map_err(|error| ChainError::InvalidTransaction { place, error })?;
    }
    if block.header.next_validators_hash != draft.validators().hash() {
        return Err(ChainError::WrongValidators);
    }
    let (changes, effects) = draft.finish();
    if block.header.state_root != tree.root_after(&changes)? {
        return Err(ChainError::WrongState);
    }
    Ok(Execution { changes, effects, transactions: transactions.iter().map(Verified::id).collect() })
}

fn check_links(head: &Head, state: &State, block: &Block) -> Result<(), ChainError> {
    let header = &block.header;
    if header.chain != *state.network_id() || header.epoch != head.header.epoch {
        return Err(ChainError::OtherChain);
    }
    let expected = head.height().next();
    if header.height != expected {
        return Err(ChainError::NotNext { expected, given: header.height });
    }
    if header.parent != head.id {
        return Err(ChainError::WrongParent);
    }
    if header.time <= head.header.time {
        return Err(ChainError::NotLater);
    }
    let validators = state.validators();
    if header.validators_hash != validators.hash() {
        return Err(ChainError::WrongValidators);
    }
    if validators.index_of(&header.proposer).is_none() {
        return Err(ChainError::NotAProposer);
    }
    Ok(())
}

/// Checks the commit inside a block. It may come from another round and other validators than the one beside the head.
fn check_last_commit(head: &Head, state: &State, body: &Body) -> Result<(), ChainError> {
    match &body.last_commit {
        None if head.height() == Height(0) => Ok(()),
        Some(commit) if head.height() != Height(0) && commit.height == head.height() && commit.block == head.id => {
            commit.verify(state.network_id(), &state.committers()).map_err(ChainError::BadLastCommit)
        }
        _ => Err(ChainError::WrongLastCommit),
    }
}

/// Checks that `certificate` commits `block`, whose predecessor left `state`.
///
/// # Errors
/// [`ChainError::WrongCertificate`] or [`ChainError::BadCertificate`].
pub fn check_certificate(state: &State, block: &Header, certificate: &Certificate) -> Result<(), ChainError> {
    if certificate.height != block.height || certificate.block != block.id() {
        return Err(ChainError::WrongCertificate);
    }
    certificate.verify(state.network_id(), &state.validators()).map_err(ChainError::BadCertificate)
}

/// Makes the next block of what is pending: what does not apply is left out and named, what does not fit waits.
///
/// # Errors
/// [`TreeError`] when the state root cannot be computed.
pub fn build<'p>(
    head: &Head,
    state: &State,
    tree: &impl StateTree,
    pending: impl IntoIterator<Item = &'p Verified<SignedTransaction>>,
    proposing: Proposing,
) -> Result<Built, TreeError> {
    let Proposing { time, proposer, mut evidence } = proposing;
    evidence.truncate(MAX_BLOCK_EVIDENCE);
    let mut body = Body { transactions: Vec::new(), last_commit: head.certificate.clone(), evidence };
    let mut draft = state.draft(head.height().next(), time);
    let (transactions, dropped) = fill(&mut draft, &mut body, pending);
    let next_validators_hash = draft.validators().hash();
    let (changes, effects) = draft.finish();
    let header = Header {
        format: FORMAT,
        chain: *state.network_id(),
        epoch: head.header.epoch,
        height: head.height().next(),
        time,
        parent: head.id,
        txs_root: body.root(),
        state_root: tree.root_after(&changes)?,
        validators_hash: state.validators().hash(),
        next_validators_hash,
        proposer,
    };
    Ok(Built { block: Block { header, body }, execution: Execution { changes, effects, transactions }, dropped })
}

/// Applies what is pending until the block is full.
fn fill<'p>(
    draft: &mut Draft<'_>,
    body: &mut Body,
    pending: impl IntoIterator<Item = &'p Verified<SignedTransaction>>,
) -> (Vec<TxId>, Vec<(TxId, TxError)>) {
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    let mut room = MAX_BLOCK_LEN - HEADER_LEN - encoded_len(body);
    for signed in pending {
        let len = signed.encode().len();
        if kept.len() == MAX_BLOCK_TRANSACTIONS || len > room {
            continue;
        }
        match draft.apply(signed) {
            Ok(()) => {
                room -= len;
                kept.push(signed.id());
                body.transactions.push((**signed).clone());
            }
            Err(error) => dropped.push((signed.id(), error)),
        }
    }
    (kept, dropped)
}

/// Bytes of a header.
const HEADER_LEN: usize = 245;

fn encoded_len(body: &Body) -> usize {
    borsh::object_length(body).expect("writing to memory does not fail")
}

/// A place in the chain that a ticket vouches for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Its height.
    pub height: Height,
    /// The block there.
    pub id: BlockId,
}

/// A chain as far as it was replayed.
#[derive(Debug)]
pub struct Replay {
    tree: MemoryTree,
    head: Head,
    state: State,
    checkpoint: Option<Checkpoint>,
}

impl Replay {
    /// Begins with genesis.
    ///
    /// # Errors
    /// [`ChainError::OtherNetwork`] when the genesis is not that of `network_id`, [`ChainError::Genesis`] when it is none.
    pub fn begin(network_id: &Digest, genesis: Block, checkpoint: Option<Checkpoint>) -> Result<Self, ChainError> {
        let mut tree = MemoryTree::default();
        if genesis.id().0 != *network_id {
            return Err(ChainError::OtherNetwork(genesis.id().0));
        }
        let genesis = Genesis::open(genesis, &tree)?;
        tree.apply(&genesis.changes)?;
        let replay = Self { head: Head::genesis(&genesis), state: genesis.state, tree, checkpoint };
        replay.check_checkpoint(&replay.head.header).map(|()| replay)
    }

    /// Executes and checks the next block with its certificate; nothing changes when it is refused.
    ///
    /// # Errors
    /// [`ChainError`] names the first thing that is wrong.
    pub fn advance(&mut self, block: &Block, certificate: Certificate) -> Result<Execution, ChainError> {
        self.check_checkpoint(&block.header)?;
        check_certificate(&self.state, &block.header, &certificate)?;
        let execution = execute(&self.head, &self.state, &self.tree, block)?;
        self.tree.apply(&execution.changes)?;
        self.state.commit(&execution.changes);
        self.head = Head::new(block, Some(certificate));
        Ok(execution)
    }

    fn check_checkpoint(&self, header: &Header) -> Result<(), ChainError> {
        match &self.checkpoint {
            Some(checkpoint) if checkpoint.height == header.height && checkpoint.id != header.id() => {
                Err(ChainError::ContradictsCheckpoint)
            }
            _ => Ok(()),
        }
    }

    /// Lends the last block.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Lends the state after it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Says whether the checkpoint, if there is one, was reached.
    pub fn is_past_checkpoint(&self) -> bool {
        self.checkpoint.is_none_or(|checkpoint| self.head.height() >= checkpoint.height)
    }
}

/// Replays a whole chain from genesis, each block with its certificate (genesis has none).
///
/// # Errors
/// The height of the first block that is wrong, and what is wrong with it.
pub fn verify_chain(
    network_id: &Digest,
    blocks: impl IntoIterator<Item = (Block, Option<Certificate>)>,
) -> Result<Head, (Height, ChainError)> {
    let mut blocks = blocks.into_iter();
    let (genesis, _) = blocks.next().ok_or((Height(0), ChainError::Empty))?;
    let mut replay = Replay::begin(network_id, genesis, None).map_err(|error| (Height(0), error))?;
    for (block, certificate) in blocks {
        let height = replay.head.height().next();
        let certificate = certificate.ok_or((height, ChainError::WrongCertificate))?;
        replay.advance(&block, certificate).map_err(|error| (height, error))?;
    }
    Ok(replay.head)
}

/// Collects what a committed block revokes, among whatever else it does: also when this program cannot apply it.
pub fn revocations(block: &Block) -> Vec<Revoke> {
    block.body.transactions.iter().flat_map(|signed| signed.transaction.revocations()).collect()
}

#[cfg(test)]
mod tests;
