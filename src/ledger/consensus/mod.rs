//! Consensus: validators agree on one block per height, whoever among a third of the power crashes or lies.
//!
//! ```text
//!               Start, Built, Validated, Message, Synced, Timer
//!                                   │
//!   shell ──────────────────► Orderer::handle ─────► queue of outputs ──► Persist  to the log
//!   (disk, sockets, clock)          │                                     Send     to validators
//!                              ┌────▼────┐                                Build, Validate  to the state machine
//!                              │   Bft   │  which heights and messages    Decided  to the chain
//!                              ├─────────┤
//!                              │ engine  │  Tendermint, arXiv 1807.04938 (arc-malachitebft)
//!                              └─────────┘
//! ```
//! Owns the votes, the log that survives a crash, and the order of proposers. Refuses to know what is in a block: bytes with a name.
//! The engine is an implementation detail of [`Bft`]; its traits and types do not leave this folder.

mod bft;
mod blocks;
mod config;
mod context;
mod effects;
mod exchange;
mod guard;
mod inbox;
pub mod message;
mod opening;
mod proposer;
mod timers;
pub mod wal;

pub use super::block::MAX_BLOCK_LEN;
pub use super::{certificate, validators};
pub use bft::Bft;
pub use certificate::{BadCertificate, BlockId, Certificate, CommitSignature, Evidence, Height, Round, VoteKind};
pub use config::{Config, Recovery, Timeouts};
pub use message::{Malformed, Message, Step};
pub use proposer::proposer_order;
pub use timers::Deadline;
pub use validators::{BadValidatorSet, MAX_POWER, MAX_VALIDATORS, Validator, ValidatorSet};

use crate::crypto::identity::VerifyingKey;
use crate::time::{Instant, Now};
use std::sync::Arc;

/// Something that puts blocks in one order for everybody. A pure machine: bytes, time and verdicts come in, outputs go out.
///
/// The outputs are a queue, to be drained after every call and carried out **in order**; see [`Output::Persist`].
pub trait Orderer {
    /// Takes one input.
    ///
    /// # Errors
    /// A [`Refusal`] names why the input changed nothing. The machine stays usable; outputs may still be queued.
    fn handle(&mut self, now: Now, input: Input) -> Result<(), Refusal>;

    /// Returns the next thing to do.
    fn poll_output(&mut self) -> Option<Output>;

    /// Returns when [`Input::Timer`] is due, and for what.
    fn poll_timeout(&self) -> Option<(Instant, Deadline)>;
}

/// What is known when a height opens. Everybody derives the same from the block before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// The height to decide: one above the head.
    pub height: Height,
    /// Who votes at it.
    pub validators: ValidatorSet,
    /// Who proposes in which round, by place: [`proposer_order`].
    pub proposers: Vec<u16>,
}

/// What an orderer is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A transaction or an expiry is pending (or [`Output::Wanted`] was seen): open the height.
    Start(Start),
    /// The answer to [`Output::Build`]. None comes when there is nothing to propose; the round then passes.
    Built {
        /// The height asked for.
        height: Height,
        /// The round asked for.
        round: Round,
        /// The block, at most [`MAX_BLOCK_LEN`] bytes, already executed.
        block: Vec<u8>,
    },
    /// The answer to [`Output::Validate`].
    Validated {
        /// The block that was executed.
        block: BlockId,
        /// What came of it.
        verdict: Verdict,
    },
    /// Bytes of [`Output::Send`] from another node.
    Message {
        /// The validator that sent it, as the session proved.
        from: VerifyingKey,
        /// What it sent.
        bytes: Vec<u8>,
    },
    /// A block of the open height that others committed.
    Synced {
        /// Its bytes.
        block: Vec<u8>,
        /// The proof.
        certificate: Certificate,
    },
    /// The deadline of [`Orderer::poll_timeout`] has come.
    Timer,
}

/// What executing a block gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Every transaction in it is valid and its roots are right: prevote it.
    Valid,
    /// It breaks a rule: prevote nil.
    Invalid,
}

/// How a block came, which decides whether its time is compared with the own clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A proposal seen for the first time: its time must be near the own clock.
    Fresh,
    /// More than two thirds of the power prevoted or committed it: its time is not checked again.
    Certified,
}

/// Whom a message is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recipients {
    /// Every validator of the open height but this node.
    Validators,
    /// One of them.
    Validator(VerifyingKey),
}

/// What an orderer wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Append this record to the log ([`wal::LogStore::append`]). It must be durable before any later [`Output::Send`] leaves;
    /// several may share one sync.
    Persist(Vec<u8>),
    /// A height opens: replace the log by this record ([`wal::LogStore::reset`]), with the same duty.
    Restart(Vec<u8>),
    /// It is this node's turn to propose; answer by [`Input::Built`].
    Build {
        /// At this height.
        height: Height,
        /// In this round.
        round: Round,
    },
    /// Execute the block, answer by [`Input::Validated`].
    Validate {
        /// At this height.
        height: Height,
        /// The block's name.
        id: BlockId,
        /// The block.
        block: Arc<[u8]>,
        /// Whether its time is to be compared with the clock.
        origin: Origin,
    },
    /// Send these bytes.
    Send {
        /// To whom.
        to: Recipients,
        /// A [`Message`]; lost ones are repaired.
        bytes: Vec<u8>,
    },
    /// The height is decided. Commit it to disk before showing it to anybody: with one validator nothing else keeps a restart from deciding again.
    Decided {
        /// The block's name.
        id: BlockId,
        /// The block.
        block: Arc<[u8]>,
        /// The proof; it names height and round.
        certificate: Certificate,
    },
    /// A validator signed two things that exclude each other.
    Misbehaved(Misbehaviour),
    /// Others are past this height: fetch its block and certificate, answer by [`Input::Synced`] or by starting a later height.
    NeedSync {
        /// The lowest height that is missing.
        height: Height,
    },
    /// Another validator works at this height, which is not open here: [`Input::Start`] it.
    Wanted {
        /// The height.
        height: Height,
    },
    /// This node has stopped voting until it is restarted.
    Halted(Halt),
}

/// Proof that a validator broke the rules.
#[derive(Clone, PartialEq, Eq, Debug, borsh::BorshSerialize, borsh::BorshDeserialize)]
pub enum Misbehaviour {
    /// Two votes of one kind in one round.
    Votes(Evidence),
    /// Two proposals in one round.
    Proposals {
        /// Who proposed twice.
        proposer: VerifyingKey,
        /// One proposal.
        first: message::SignedProposal,
        /// The other.
        second: message::SignedProposal,
    },
}

/// Why this node stopped voting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Signing this would contradict an earlier signature.
    #[error("a vote would contradict one that this validator has signed")]
    WouldEquivocate,
    /// The log does not lead to the votes that it holds.
    #[error("the consensus log does not lead to the votes in it")]
    LogDiverges,
    /// The log of one height has grown to [`wal::MAX_LOG_LEN`].
    #[error("the consensus log of one height is full")]
    LogFull,
}

/// Why an input changed nothing. The first group is the sender's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are no message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The sender is no validator of this height, or is this node.
    #[error("the sender is no other validator of this height")]
    UnknownSender,
    /// The message names a validator that does not exist.
    #[error("there is no such validator")]
    UnknownValidator,
    /// The proposal is not from the proposer of its round, or names a later round as its reason.
    #[error("the proposal is not from the proposer of its round")]
    NotTheProposer,
    /// The block's bytes are no block, or not the one that was signed.
    #[error("the block is not the one that was proposed")]
    WrongBlock,
    /// A signature is false.
    #[error("the signature is not valid")]
    BadSignature,
    /// The certificate proves nothing.
    #[error(transparent)]
    BadCertificate(#[from] BadCertificate),
    /// A certificate for a round or an old block has the votes of too few, or of one validator twice.
    #[error("the votes of the certificate do not justify it")]
    TooFewSigners,
    /// Too many replies went to this peer within a second.
    #[error("the peer asks too often")]
    TooOften,
    /// The message is for a height that is decided.
    #[error("the height is decided")]
    Old,
    /// The message is for a height or a round too far ahead.
    #[error("the height or round is too far ahead")]
    TooFarAhead,
    /// The queue for the next height, or the table of blocks, is full.
    #[error("the table is full")]
    Full,
    /// What is asked for is not here.
    #[error("unknown block or proposal")]
    NotHere,
    /// No height is open, or this one is not.
    #[error("the height is not open")]
    NotOpen,
    /// The answer comes too late, or for another round.
    #[error("the answer is for a round that has passed")]
    Stale,
    /// The height is open already; nothing is lost.
    #[error("the height is open already")]
    AlreadyOpen,
    /// There are no validators, or the order of proposers does not name each of them once.
    #[error("the start of the height is inconsistent")]
    BadStart,
}

#[cfg(test)]
mod tests;
