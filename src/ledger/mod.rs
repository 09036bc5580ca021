//! The replicated truth: who belongs to the network and what each may do, as signed transactions in a chain of blocks.
//!
//! ```text
//!   transaction ─► pool ─► block ─► consensus ─► chain ─► state ─► Policy (for everybody else)
//!    (signed)      │                 (orderer)   (hash,    (pure)
//!                  └─ revocations act from here   certificate)
//! ```
//! Owns the formats ([`operation`], [`transaction`], [`block`]), the state machine ([`state`]) and the order of history ([`chain`]).
//! Refuses to know how members reach each other; what it decides leaves as a [`crate::policy::Policy`].
//! The bytes are described in `docs/ledger.md`.

pub mod address;
pub mod block;
pub mod certificate;
pub mod chain;
pub mod consensus;
pub mod engine;
pub mod genesis;
#[cfg(test)]
mod kit;
pub mod name;
pub mod operation;
pub mod pool;
pub mod revocation;
pub mod state;
pub mod store;
pub mod sync;
pub mod transaction;
pub mod tree;
pub mod validators;
#[cfg(test)]
mod vectors;

pub use block::{Block, BlockId, Body, Header, Height, Round};
pub use certificate::{Certificate, precommit_bytes};
pub use engine::Ledger;
pub use operation::Operation;
pub use state::State;
pub use transaction::{SignedTransaction, Transaction, TxId, Verified};
pub use validators::{Seat, Seats, Validator, ValidatorSet};

/// What one block changes in the state: sorted, distinct keys, each with its new value or `None` where it ends.
pub type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;
