//! The ledger of one node: state, pool, store and consensus put together, driven by bytes and time.
//!
//! ```text
//!  submit, handle_message, handle_timeout
//!        │
//!        ▼            revocation: durable, then acts ─────────────────────────────┐
//!     intake ───► pool ───► ordering (validators: Orderer, its log) ───► blocks ──┤
//!                                          others' blocks, by sync ───► (execute, store, commit)
//!                                                                                 ▼
//!        poll_message: what to say, to whom          poll_event: policy changed, committed, final, dropped, halted
//! ```
//! Owns what this node holds to be true. Refuses to know sessions and addresses: a peer is the transport key of its session. Whatever
//! goes wrong with the store or with the chain stops this machine, never the policy that it last gave.

mod blocks;
mod intake;
mod listening;
mod meter;
mod ordering;
mod own;
mod peers;
mod ration;
mod screen;
mod sync;
mod verify;

pub use ordering::ValidatorConfig;
pub use verify::{Verification, VerifyError};

use super::block::{Block, BlockId, Height};
use super::certificate::Certificate;
use super::chain::{ChainError, Checkpoint, Execution, Head};
use super::consensus::{self, Deadline as ConsensusDeadline, Misbehaviour};
use super::genesis::Genesis;
use super::operation::Operation;
use super::pool::{Pool, PoolRefused};
use super::revocation::{Held, RevocationRefused, Revocations};
use super::state::{State, TxError};
use super::store::{Store, StoreError};
use super::sync::LedgerMessage;
use super::transaction::{MalformedTransaction, SignedTransaction, TxId};
use super::tree::TreeError;
use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::Digest;
use crate::crypto::identity::VerifyingKey;
use crate::policy::{Policy, PolicyDiff};
use crate::time::{Instant, Now};
use ordering::Ordering;
use own::Own;
use peers::Peers;
use ration::Ration;
use screen::Screen;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How often the own head is told to the neighbours, so that a lost notice is repaired.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(10);
/// How long after its end a membership may last when nothing else makes a block: clocks of validators differ.
const ENDING_POLL: Duration = Duration::from_secs(30);
/// The most submitters that wait for news of their transaction; later ones ask again.
const MAX_WAITING: usize = 1024;
/// The most executed proposals kept for their commit: as many as consensus holds.
const MAX_EXECUTED: usize = 16;

/// For whom a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recipient {
    /// The session with this transport key.
    Peer(TransportKey),
    /// The gossip neighbours.
    Neighbours,
    /// Members with a live session, the gossip neighbours first.
    Sessions,
    /// Everybody with a live session, and the gossip neighbours.
    EverySession,
    /// Every validator but this node.
    Validators,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// [`Ledger::policy`] is another one.
    PolicyChanged(PolicyDiff),
    /// A block is on disk.
    Committed {
        /// Its place.
        height: Height,
        /// Its name.
        id: BlockId,
    },
    /// A transaction is in a block that is on disk.
    Final {
        /// Which one.
        transaction: TxId,
        /// The block's place.
        height: Height,
    },
    /// A transaction that waited does not apply any more.
    Dropped {
        /// Which one.
        transaction: TxId,
        /// What it was.
        signed: Box<SignedTransaction>,
        /// Why.
        reason: TxError,
    },
    /// A peer took a transaction that was submitted to it.
    Submitted {
        /// Which one.
        transaction: TxId,
    },
    /// A peer did not take a transaction that was submitted to it, or dropped it later.
    RefusedByPeer {
        /// Which one.
        transaction: TxId,
        /// Why, in the peer's words: not to be trusted, to be shown.
        reason: String,
    },
    /// A revocation that acted was let go, because its signers lost the right to it: worth a warning.
    RevocationLifted {
        /// Which one.
        transaction: TxId,
    },
    /// A validator signed two things that exclude each other.
    Misbehaved(Box<Misbehaviour>),
    /// This node votes no more; it follows the others.
    VotingStopped(String),
    /// Nothing is committed any more until the program is started again; the policy stays as it is.
    Halted(Halt),
}

/// Why nothing is committed any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// The store failed.
    #[error("the ledger's store failed: {0}")]
    Store(String),
    /// A committed block holds an operation of a later version. Revocations in it are enforced.
    #[error("block {height} holds operation {code}, unknown to this version: upgrade")]
    Upgrade {
        /// The block.
        height: Height,
        /// The operation.
        code: u16,
    },
    /// A committed block is wrong by the own rules.
    #[error("block {height} was committed by the validators and is wrong: {reason}")]
    Diverged {
        /// The block.
        height: Height,
        /// What is wrong.
        reason: String,
    },
}

/// When [`Ledger::handle_timeout`] is due, and for what.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Deadline {
    /// The consensus engine.
    Consensus(ConsensusDeadline),
    /// A membership or credential ends: this validator makes a block.
    Ending,
    /// A validator that is alone has listened long enough after its start.
    Quiet,
    /// A request for blocks was not answered.
    Sync,
    /// A peer that waits for blocks may read on.
    Ration,
    /// The head is to be told again.
    Announce,
}

/// A ledger that cannot be opened; the node must not carry data.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored head block or its certificate is unreadable or not what it should be.
    #[error("the stored chain is wrong at its head: {0}")]
    Head(&'static str),
    /// The store holds another network than the genesis given.
    #[error("the store belongs to another network")]
    OtherNetwork,
    /// The store is not empty.
    #[error("the store holds a chain already")]
    NotEmpty,
    /// The checkpoint of the ticket contradicts the stored chain.
    #[error("the stored chain contradicts the checkpoint")]
    ContradictsCheckpoint,
    /// The consensus log cannot be read or written.
    #[error("the consensus log: {0}")]
    Log(std::io::Error),
}

/// A transaction that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It can never be a transaction of this chain.
    #[error(transparent)]
    Malformed(#[from] MalformedTransaction),
    /// It does not wait here.
    #[error(transparent)]
    Pool(#[from] PoolRefused),
    /// It is a revocation that is not permitted, or has no room.
    #[error(transparent)]
    Revocation(#[from] RevocationRefused),
    /// Exactly these bytes were shown before, and a signature in them is false.
    #[error("the transaction was shown before and has a false signature")]
    RefusedBefore,
    /// Its sender showed so many false signatures that none of its are checked for now.
    #[error("the sender showed too many false signatures")]
    Distrusted,
    /// It is in a block already.
    #[error("the transaction is in block {0}")]
    Final(Height),
    /// The chain is not here yet.
    #[error("this node has no chain yet")]
    NoChain,
    /// The ledger is halted.
    #[error(transparent)]
    Halted(#[from] Halt),
}

/// A message that changed nothing, and whose fault that is: the sender's, for all but the last two.
#[derive(Debug, thiserror::Error)]
pub enum MessageRefused {
    /// The sender is no member, and this is not for guests.
    #[error("the sender is no member")]
    NotAMember,
    /// The sender has no seat among the validators.
    #[error("the sender is no validator")]
    NotAValidator,
    /// A transaction in it was not taken.
    #[error(transparent)]
    Transaction(#[from] SubmitError),
    /// The sender has read as much as it may for now.
    #[error("the sender asks for more than its ration")]
    Rationed,
    /// Blocks that nobody asked for, or others than those asked for.
    #[error("these blocks were not asked for")]
    Unasked,
    /// A block in it is wrong.
    #[error(transparent)]
    Block(#[from] ChainError),
    /// The consensus engine refused it.
    #[error(transparent)]
    Consensus(#[from] consensus::Refusal),
    /// This node is no validator.
    #[error("this node orders nothing")]
    NotOrdering,
    /// The ledger is halted.
    #[error(transparent)]
    Halted(#[from] Halt),
}

/// The ledger of one node.
pub struct Ledger {
    store: Store,
    network_id: Digest,
    head: Option<Head>,
    state: State,
    policy: Arc<Policy>,
    pool: Pool,
    own: Own,
    revocations: Revocations,
    ordering: Option<Ordering>,
    executed: BTreeMap<BlockId, (Block, Execution)>,
    peers: Peers,
    ration: Ration,
    screen: Screen,
    checkpoint: Option<Checkpoint>,
    /// The last block of a chain that this program cannot apply, above the head.
    beyond: Option<(Height, BlockId)>,
    waiting: BTreeMap<TxId, TransportKey>,
    halted: Option<Halt>,
    announce_at: Instant,
    ending_at: Option<Instant>,
    messages: VecDeque<(Recipient, LedgerMessage)>,
    events: VecDeque<Event>,
}

impl Ledger {
    /// Begins the chain of a network that this node founds; `store` is empty.
    ///
    /// # Errors
    /// [`OpenError::NotEmpty`], [`OpenError::OtherNetwork`], or what the store says.
    pub fn create(store: Store, genesis: &Genesis) -> Result<Self, OpenError> {
        if store.head().is_some() {
            return Err(OpenError::NotEmpty);
        }
        if store.chain() != genesis.network_id() {
            return Err(OpenError::OtherNetwork);
        }
        let mut ledger = Self::open(store, None)?;
        ledger.write_block(&genesis.block, None, &blocks::execution_of(genesis)).map_err(OpenError::Store)?;
        ledger.refresh_policy();
        ledger.events.clear();
        Ok(ledger)
    }

    /// Opens what is stored, or begins with nothing where nothing is: then the chain comes from peers, and must agree with `checkpoint`.
    ///
    /// # Errors
    /// [`OpenError`] names the cause; the node must not carry data.
    pub fn open(store: Store, checkpoint: Option<Checkpoint>) -> Result<Self, OpenError> {
        let network_id = store.chain();
        let mut ledger = Self {
            network_id,
            head: None,
            state: State::default(),
            policy: Arc::default(),
            pool: Pool::default(),
            own: Own::default(),
            revocations: Revocations::default(),
            ordering: None,
            executed: BTreeMap::new(),
            peers: Peers::default(),
            ration: Ration::default(),
            screen: Screen::default(),
            checkpoint,
            beyond: None,
            waiting: BTreeMap::new(),
            halted: None,
            announce_at: Instant::ZERO,
            ending_at: None,
            messages: VecDeque::new(),
            events: VecDeque::new(),
            store,
        };
        ledger.load()?;
        Ok(ledger)
    }

    fn load(&mut self) -> Result<(), OpenError> {
        let Some(last) = self.store.head() else { return Ok(()) };
        let height = Height(last.height);
        let (block, certificate) = self.block(height)?.ok_or(OpenError::Head("the block is missing"))?;
        if block.id().0 != last.id || block.header.height != height {
            return Err(OpenError::Head("the block is not the one that was written"));
        }
        let root = block.header.state_root;
        match self.store.verify_state(root) {
            Err(StoreError::Tree(TreeError::Missing | TreeError::Corrupt | TreeError::Mismatch)) => {
                tracing::warn!("the stored state tree was damaged and is built anew");
                self.store.rebuild_tree()?;
                self.store.verify_state(root)?;
            }
            checked => checked?,
        }
        let entries = self.store.state()?.collect::<Result<Vec<_>, _>>()?;
        let unreadable = |_| OpenError::Head("the state is not one of this version");
        self.state = State::from_entries(self.network_id, entries).map_err(unreadable)?;
        self.check_loaded(&block, certificate.as_ref())?;
        self.head = Some(Head::new(&block, certificate));
        for (_, bytes) in self.store.revocations()? {
            let held: Held =
                borsh::from_slice(&bytes).map_err(|_| OpenError::Head("a pending revocation is unreadable"))?;
            self.revocations.restore(&self.state, held);
        }
        for (id, bytes) in self.store.own_pending()? {
            let unreadable = |_| OpenError::Head("an own transaction that waits is unreadable");
            self.own.restore(TxId(id), SignedTransaction::decode(&bytes).map_err(unreadable)?);
        }
        self.policy = Arc::new(self.state.policy(&self.revocations.acting()));
        Ok(())
    }

    fn check_loaded(&self, block: &Block, certificate: Option<&Certificate>) -> Result<(), OpenError> {
        let header = &block.header;
        match certificate {
            None if block.id().0 == self.network_id => {}
            None => return Err(OpenError::Head("the certificate is missing")),
            Some(certificate) => {
                let of_block = certificate.height == header.height && certificate.block == block.id();
                let holds = certificate.verify(&self.network_id, &self.state.committers()).is_ok();
                if !of_block || !holds || header.chain != self.network_id {
                    return Err(OpenError::Head("the certificate does not commit the block"));
                }
            }
        }
        let Some(checkpoint) = self.checkpoint else { return Ok(()) };
        match self.store.block_id(checkpoint.height.0)? {
            Some(id) if id != checkpoint.id.0 => Err(OpenError::ContradictsCheckpoint),
            _ => Ok(()),
        }
    }

    /// Returns the network's id.
    pub fn network_id(&self) -> &Digest {
        &self.network_id
    }

    /// Lends the last block; absent before the chain was fetched.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Returns the place of the next block.
    pub fn next_height(&self) -> Height {
        self.head.as_ref().map_or(Height(0), |head| head.height().next())
    }

    /// Lends the state after the last block.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns who belongs to the network: after the last block and every revocation seen since.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.clone()
    }

    /// Returns why nothing is committed any more.
    pub fn halted(&self) -> Option<&Halt> {
        self.halted.as_ref()
    }

    /// Says whether the chain is here as far as the ticket vouched for it.
    pub fn is_past_checkpoint(&self) -> bool {
        self.head.as_ref().is_some_and(|head| self.checkpoint.is_none_or(|point| head.height() >= point.height))
    }

    /// Returns the highest head that a member told of, unless it showed something else or nothing again and again.
    pub fn highest_told(&self) -> Option<Height> {
        self.peers.highest_told()
    }

    /// Returns the sequence number for the next transaction of an author.
    pub fn next_seq(&self, author: &VerifyingKey) -> u64 {
        let committed = self.state.author(author).seq;
        let earlier = self.own.earlier().iter().map(|signed| &signed.transaction);
        let earlier = earlier.filter(|transaction| transaction.author == *author).map(|transaction| transaction.seq);
        let waiting = self.pool.last_seq(author).max(earlier.max());
        committed.max(waiting.unwrap_or(0)).saturating_add(1)
    }

    /// Lists what waits for a block, revocations first.
    pub fn pending(&self) -> Vec<(TxId, &SignedTransaction)> {
        let waiting = self.revocations.transactions().chain(self.pool.in_order());
        waiting.map(|transaction| (transaction.id(), &**transaction)).collect()
    }

    /// Returns how many wait for a block.
    pub fn pending_count(&self) -> usize {
        self.revocations.len() + self.pool.len()
    }

    /// Reads a block with its certificate; `None` where it is not held.
    ///
    /// # Errors
    /// [`StoreError`], also for a block that cannot be decoded.
    pub fn block(&self, height: Height) -> Result<Option<(Block, Option<Certificate>)>, StoreError> {
        let (Some(block), Some(commit)) = (self.store.block(height.0)?, self.store.commit_of(height.0)?) else {
            return Ok(None);
        };
        let unreadable = || StoreError::Corrupt(format!("block {height} is unreadable"));
        let block = Block::decode(&block).map_err(|_| unreadable())?;
        let certificate = borsh::from_slice(&commit).map_err(|_| unreadable())?;
        Ok(Some((block, certificate)))
    }

    /// Returns the lowest height that is held.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn oldest(&self) -> Result<Option<Height>, StoreError> {
        Ok(self.store.heights()?.map(|heights| Height(*heights.start())))
    }

    /// Finds a transaction in the blocks that are held.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn transaction(&self, id: &TxId) -> Result<Option<(Height, SignedTransaction)>, StoreError> {
        let Some(height) = self.store.transaction_height(id.0)?.map(Height) else { return Ok(None) };
        let Some((block, _)) = self.block(height)? else { return Ok(None) };
        let found = block.body.transactions.into_iter().find(|signed| signed.id(&block.header.chain) == *id);
        Ok(found.map(|signed| (height, signed)))
    }

    /// Says whether a credential was made in a block from `from` on. What cannot be read counts as one that may have made it.
    pub fn made_credential(&self, key_hash: &Digest, from: Height) -> bool {
        let makes =
            |operation: &Operation| matches!(operation, Operation::Credential(made) if made.key_hash == *key_hash);
        let made_at = |height| match self.block(Height(height)) {
            Ok(Some((block, _))) => {
                block.body.transactions.iter().any(|signed| signed.transaction.operations.iter().any(makes))
            }
            Ok(None) | Err(_) => true,
        };
        (from.0..self.next_height().0).any(made_at)
    }

    /// Returns the next message to send. Drain it after every call: what one call says is bounded by what it was given.
    pub fn poll_message(&mut self) -> Option<(Recipient, LedgerMessage)> {
        self.messages.pop_front()
    }

    /// Returns the next thing that happened. Drain it after every call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when [`Ledger::handle_timeout`] is due, and for what.
    pub fn poll_timeout(&self) -> Option<(Instant, Deadline)> {
        let consensus = self.ordering.as_ref().and_then(Ordering::poll_timeout);
        let asking_until = self.peers.fetch_deadline();
        let listening = self.ordering.as_ref().and_then(|ordering| ordering.listening().poll_timeout(asking_until));
        let deadlines = [
            consensus.map(|(at, reason)| (at, Deadline::Consensus(reason))),
            self.ending_at.map(|at| (at, Deadline::Ending)),
            listening.map(|at| (at, Deadline::Quiet)),
            asking_until.map(|at| (at, Deadline::Sync)),
            self.ration.poll_timeout().map(|at| (at, Deadline::Ration)),
            self.head.as_ref().map(|_| (self.announce_at, Deadline::Announce)),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.peers.fetch_deadline().is_some_and(|at| at <= now.instant) {
            self.fetch_elsewhere(now);
        }
        self.serve_waiting(now);
        self.take_up_own(now);
        if self.announce_at <= now.instant {
            self.drop_what_fails(now);
            self.announce(now, Recipient::Neighbours);
            self.announce_pending();
        }
        self.tick_consensus(now);
        self.start_height(now);
        self.schedule_ending(now);
    }

    /// Puts the policy in force that follows from the state and the held revocations.
    fn refresh_policy(&mut self) {
        let policy = self.state.policy(&self.revocations.acting());
        if policy != *self.policy {
            let diff = PolicyDiff::between(&self.policy, &policy);
            self.policy = Arc::new(policy);
            self.events.push_back(Event::PolicyChanged(diff));
        }
    }

    fn halt(&mut self, halt: Halt) -> Halt {
        if self.halted.is_none() {
            tracing::error!(%halt, "the ledger stops; the tunnels stay");
            self.halted = Some(halt.clone());
            self.ordering = None;
            self.events.push_back(Event::Halted(halt.clone()));
        }
        halt
    }

    fn halt_store(&mut self, error: &StoreError) -> Halt {
        self.halt(Halt::Store(error.to_string()))
    }

    fn send(&mut self, to: Recipient, message: LedgerMessage) {
        self.messages.push_back((to, message));
    }
}

#[cfg(test)]
mod tests;
