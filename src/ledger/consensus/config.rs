//! What a validator is told once, when the program starts.

use super::certificate::{BlockId, Height};
use super::context::from_round;
use super::wal::Log;
use crate::crypto::hash::Digest;
use arc_malachitebft_core_types as engine;
use engine::TimeoutKind;
use std::time::Duration;

/// How long the steps of a round may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// Until the proposal is there.
    pub propose: Duration,
    /// From two thirds of prevotes, for anything, to two thirds for one thing.
    pub prevote: Duration,
    /// The same for precommits.
    pub precommit: Duration,
    /// Between repetitions of the own votes.
    pub rebroadcast: Duration,
    /// What each round adds to the first three, so that they outgrow any delay of the network (paper §3.2).
    pub per_round: Duration,
    /// What the first three never pass.
    pub longest: Duration,
}

impl Default for Timeouts {
    /// For validators within 100 ms of each other; measured in `docs/consensus.md`.
    fn default() -> Self {
        Self {
            propose: Duration::from_millis(500),
            prevote: Duration::from_millis(200),
            precommit: Duration::from_millis(200),
            rebroadcast: Duration::from_millis(1500),
            per_round: Duration::from_millis(250),
            longest: Duration::from_secs(30),
        }
    }
}

impl Timeouts {
    pub(super) fn duration(&self, timeout: engine::Timeout) -> Duration {
        let grown = |base: Duration| {
            base.saturating_add(self.per_round.saturating_mul(from_round(timeout.round).0)).min(self.longest)
        };
        match timeout.kind {
            TimeoutKind::Propose => grown(self.propose),
            TimeoutKind::Prevote => grown(self.prevote),
            TimeoutKind::Precommit => grown(self.precommit),
            TimeoutKind::Rebroadcast => self.rebroadcast,
            TimeoutKind::FinalizeHeight(wait) => wait,
        }
    }
}

/// What does not change while the node runs.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The network; every signature names it.
    pub chain: Digest,
    /// The height of the chain's head.
    pub head: Height,
    /// Names a block, or refuses bytes that are none. Two different byte strings never have one name.
    pub id_of: fn(&[u8]) -> Option<BlockId>,
    /// How long steps may take.
    pub timeouts: Timeouts,
}

/// What this validator knows of its own past.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recovery {
    /// The key was made in this run of the program: it has signed nothing.
    NewKey,
    /// The log that it kept.
    Log(Log),
    /// The log is lost or corrupt. Nothing is signed with this key again, unless the node is the only validator.
    Lost,
}
