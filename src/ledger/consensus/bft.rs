//! Tendermint as an [`Orderer`], for one validator and for many.
//!
//! ```text
//!            Start                 answers of the others,            decided
//!   Idle ───────────► Asking ──────────── or 10 s ──────► Open ──────────────► Idle
//!     │          (first start of a validator                ▲
//!     └───────────────── with others only) ─────────────────┘
//! ```
//! Owns which heights and messages reach the engine, what is repeated, pulled and told, and how a restart comes back. The steps of a round
//! are the engine's (*The latest gossip on BFT consensus*, arXiv 1807.04938, algorithm 1); its effects are answered in [`super::effects`].

use super::blocks::Blocks;
use super::certificate::{BlockId, Certificate, Height, Round};
use super::config::{Config, Recovery};
use super::context::{Context, Place, from_round, to_round};
use super::effects::{EngineInput, Host};
use super::guard::Guard;
use super::inbox::Inbox;
use super::message::{MAX_ROUND, Message, Step};
use super::opening::remember_own_signatures;
use super::timers::Deadline;
use super::validators::MAX_VALIDATORS;
use super::wal::Log;
use super::{Halt, Input, MAX_BLOCK_LEN, Orderer, Output, Recipients, Refusal, Verdict};
use crate::crypto::identity::{SigningKey, VerifyingKey};
use crate::time::{Instant, Now};
use arc_malachitebft_core_consensus as core;
use arc_malachitebft_core_types as engine;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often a validator tells where it stands while a height is open.
pub(super) const STATUS_EVERY: Duration = Duration::from_secs(1);
/// How long others may be ahead before their block is fetched: usually the own decision is under way.
pub(super) const SYNC_AFTER: Duration = Duration::from_millis(200);
/// How long a validator that has just started waits for what others know of its votes.
pub(super) const RECOVERY_WAIT: Duration = Duration::from_secs(10);
/// How many rounds ahead votes are taken; the engine's own bound, refused here with a name.
pub(super) const VOTE_ROUNDS_AHEAD: u32 = 10;
/// How many rounds ahead a proposal, which is long, is taken. One: the others may have entered the next round a moment earlier.
pub(super) const PROPOSAL_ROUNDS_AHEAD: u32 = 1;
/// How many past rounds are remembered. Whoever is further behind is helped by sync.
const ROUNDS_KEPT: u32 = 64;
/// Replies to one validator per [`STATUS_EVERY`]; each may hold a block.
pub(super) const REPLIES_PER_SECOND: u8 = 8;

/// A validator. See the module for its states.
pub struct Bft {
    pub(super) id_of: fn(&[u8]) -> Option<BlockId>,
    pub(super) host: Host,
    pub(super) phase: Phase,
    /// The lowest height that is not decided.
    pub(super) next: Height,
    pub(super) inbox: Inbox,
    pub(super) log: Option<Log>,
    pub(super) log_is_lost: bool,
    /// Whether the others are to be asked for own votes before the first one is cast.
    pub(super) must_ask: bool,
    pub(super) wanted: Option<Height>,
    pub(super) status_at: Option<Instant>,
    pub(super) sync_at: Option<Instant>,
    pub(super) ration: BTreeMap<VerifyingKey, (Instant, u8)>,
}

pub(super) enum Phase {
    /// No height is open.
    Idle,
    /// The height waits for what the others know.
    Asking { until: Instant, ask_at: Instant, answered: BTreeSet<VerifyingKey> },
    /// The engine runs.
    Open(Box<core::State<Context>>),
}

impl Orderer for Bft {
    fn handle(&mut self, now: Now, input: Input) -> Result<(), Refusal> {
        self.host.now = now.instant;
        self.host.refusal = None;
        match (&self.phase, input) {
            (_, Input::Start(start)) => self.start(start),
            (_, Input::Message { from, bytes }) => self.message(from, Message::decode(&bytes)?),
            (_, Input::Timer) => self.timer(),
            (Phase::Open(_), Input::Built { height, round, block }) => self.built(height, round, block),
            (Phase::Open(_), Input::Validated { block, verdict }) => self.validated(block, verdict),
            (Phase::Open(_), Input::Synced { block, certificate }) => self.synced(block, &certificate),
            // Answers that come after the height was decided.
            (Phase::Idle | Phase::Asking { .. }, Input::Built { .. } | Input::Validated { .. }) => Err(Refusal::Stale),
            (Phase::Idle | Phase::Asking { .. }, Input::Synced { .. }) => Err(Refusal::NotOpen),
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.host.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, Deadline)> {
        let asking = match &self.phase {
            Phase::Asking { until, ask_at, .. } => Some((*until).min(*ask_at)),
            Phase::Idle | Phase::Open(_) => None,
        };
        let deadlines = [
            self.host.timers.next(),
            self.status_at.map(|at| (at, Deadline::Status)),
            self.host.blocks.next_pull().map(|at| (at, Deadline::Pull)),
            self.sync_at.map(|at| (at, Deadline::Sync)),
            asking.map(|at| (at, Deadline::Recovery)),
        ];
        deadlines.into_iter().flatten().min()
    }
}

impl Bft {
    /// Prepares a validator; nothing happens before [`Input::Start`].
    pub fn new(config: Config, key: SigningKey, recovery: Recovery) -> Self {
        let chain = config.chain;
        let own_key = key.verifying_key();
        let mut guard = Guard::default();
        let (log, log_is_lost, must_ask) = match recovery {
            Recovery::NewKey => (None, false, false),
            Recovery::Log(log) => (Some(log), false, true),
            Recovery::Lost => (None, true, true),
        };
        if let Some(log) = &log {
            guard.raise_floor(log.max_height_signed);
            remember_own_signatures(&mut guard, log, &chain, &own_key);
        }
        let host = Host::new(config, key, guard);
        Self {
            id_of: config.id_of,
            host,
            phase: Phase::Idle,
            next: config.head.next(),
            inbox: Inbox::default(),
            log,
            log_is_lost,
            must_ask,
            wanted: None,
            status_at: None,
            sync_at: None,
            ration: BTreeMap::new(),
        }
    }

    /// Returns the highest height at which this validator may have signed, for its attestations.
    pub fn max_height_signed(&self) -> Height {
        self.host.guard.max_height_signed()
    }

    /// Returns where this validator stands.
    pub fn status(&self) -> (Height, Round, Step) {
        let Phase::Open(engine) = &self.phase else { return (self.next, Round(0), Step::Waiting) };
        let driver = &engine.driver;
        let step = if driver.step_is_propose() {
            Step::Propose
        } else if driver.step_is_prevote() {
            Step::Prevote
        } else if driver.step_is_precommit() {
            Step::Precommit
        } else {
            Step::Commit
        };
        (self.next, from_round(engine.round()), step)
    }

    /// Gives the engine one input, and what follows from it.
    pub(super) fn run(&mut self, input: EngineInput) {
        self.host.pending.push_back(input);
        while let Some(input) = self.host.pending.pop_front() {
            let Phase::Open(engine) = &mut self.phase else { return self.host.pending.clear() };
            let round = engine.round();
            let host = &mut self.host;
            let result: Result<(), core::Error<Context>> =
                core::process!(input: input, state: engine.as_mut(), metrics: &(), with: effect => host.effect(effect));
            match result {
                Ok(()) => {}
                Err(error @ core::Error::ReplayDivergence(..)) => {
                    tracing::error!(%error, "the log and the engine disagree");
                    host.stop(Halt::LogDiverges);
                }
                // The engine refused the input and keeps its state; the guard stands before every signature.
                Err(error) => tracing::warn!(%error, "the engine refused an input"),
            }
            engine.params.enabled = host.halt.is_none() && host.guard.may_sign_at(self.next);
            if engine.round() != round {
                host.blocks.forget_rounds_before(forget_old_rounds(engine));
            }
            if host.decided {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        self.phase = Phase::Idle;
        self.next = self.next.next();
        self.host.timers.cancel_all();
        self.host.blocks = Blocks::default();
        self.host.replay = None;
        self.status_at = None;
        self.sync_at = None;
    }

    fn built(&mut self, height: Height, round: Round, block: Vec<u8>) -> Result<(), Refusal> {
        let Phase::Open(engine) = &self.phase else { return Err(Refusal::Stale) };
        if height != self.next || to_round(Some(round)) != engine.round() || !engine.driver.step_is_propose() {
            return Err(Refusal::Stale);
        }
        if self.host.open.voters.proposer(round) != self.host.open.place.0 {
            return Err(Refusal::NotTheProposer);
        }
        let id = self.name(&block)?;
        self.host.blocks.hold(id, block.into(), Some(Verdict::Valid), &protected(engine))?;
        self.run(EngineInput::Propose(core::LocallyProposedValue::new(height, to_round(Some(round)), id)));
        Ok(())
    }

    pub(super) fn name(&self, block: &[u8]) -> Result<BlockId, Refusal> {
        if block.len() > MAX_BLOCK_LEN {
            return Err(Refusal::WrongBlock);
        }
        (self.id_of)(block).ok_or(Refusal::WrongBlock)
    }

    fn validated(&mut self, id: BlockId, verdict: Verdict) -> Result<(), Refusal> {
        let held = self.host.blocks.find(&id).ok_or(Refusal::NotHere)?;
        if held.verdict == Some(Verdict::Valid) {
            // It may rise from invalid to valid, when a quorum vouches for its time; never the other way.
            return Err(Refusal::Stale);
        }
        self.host.blocks.judge(&id, verdict);
        let value = self.host.proposed_value(id, verdict);
        self.run(value);
        Ok(())
    }

    fn synced(&mut self, block: Vec<u8>, certificate: &Certificate) -> Result<(), Refusal> {
        let Phase::Open(engine) = &self.phase else { return Err(Refusal::NotOpen) };
        if certificate.height != self.next {
            return Err(if certificate.height < self.next { Refusal::Old } else { Refusal::NotOpen });
        }
        let too_far = certificate.round > MAX_ROUND || certificate.signatures.len() > MAX_VALIDATORS;
        if too_far || self.name(&block)? != certificate.block {
            return Err(Refusal::WrongBlock);
        }
        self.host.blocks.hold(certificate.block, block.into(), None, &protected(engine))?;
        let signature = |signature: &super::CommitSignature| engine::ExtendedCommitSignature {
            address: Place(signature.validator),
            signature: signature.signature,
            extension: None,
        };
        let certificate = engine::ExtendedCommitCertificate {
            height: certificate.height,
            round: to_round(Some(certificate.round)),
            value_id: certificate.block,
            commit_signatures: certificate.signatures.iter().map(signature).collect(),
        };
        // Neither the peer nor the bytes matter to the engine: both are known here.
        let response = engine::ValueResponse::new(anonymous_peer(), Default::default(), certificate);
        self.run(EngineInput::SyncValueResponse(response));
        self.host.refusal.map_or(Ok(()), Err)
    }

    fn timer(&mut self) -> Result<(), Refusal> {
        let now = self.host.now;
        while let Some(timeout) = self.host.timers.take_elapsed(now) {
            self.run(EngineInput::TimeoutElapsed(timeout));
        }
        while let Some((round, block, place)) = self.host.blocks.take_pull(now) {
            let Some(validator) = self.host.open.set.at(place) else { continue };
            let bytes = Message::GetProposal { height: self.next, round, block }.encode();
            self.host.outputs.push_back(Output::Send { to: Recipients::Validator(validator.key), bytes });
        }
        if self.status_at.is_some_and(|at| at <= now) {
            self.status_at = Some(now + STATUS_EVERY);
            let (height, round, step) = self.status();
            self.host.broadcast(&Message::Status { height, round, step });
        }
        if self.sync_at.is_some_and(|at| at <= now) {
            self.sync_at = None;
            self.host.outputs.push_back(Output::NeedSync { height: self.next });
        }
        match &self.phase {
            Phase::Asking { until, .. } if *until <= now => self.open_engine(),
            Phase::Asking { ask_at, .. } if *ask_at <= now => self.ask(),
            Phase::Idle | Phase::Asking { .. } | Phase::Open(_) => {}
        }
        Ok(())
    }
}

/// The blocks that may still be decided: locked (L38), valid (L42), or with a polka.
pub(super) fn protected(engine: &core::State<Context>) -> Vec<BlockId> {
    let state = engine.driver.round_state();
    let named = state.locked.iter().chain(&state.valid).map(|value| value.value);
    named.chain(engine.driver.polka_certificates().iter().map(|certificate| certificate.value_id)).collect()
}

/// The engine keeps the votes of all rounds of a height. What a proposal may refer to stays; returns the oldest round that does.
fn forget_old_rounds(engine: &mut core::State<Context>) -> Round {
    let oldest = from_round(engine.round()).0.saturating_sub(ROUNDS_KEPT);
    let valid = engine.driver.valid_value().map_or(oldest, |valid| from_round(valid.round).0);
    let oldest = Round(oldest.min(valid));
    engine.driver.votes_mut().prune_votes(to_round(Some(oldest)));
    oldest
}

/// The engine wants a peer beside a synced block, to blame it. Who sent it is known here.
fn anonymous_peer() -> core::PeerId {
    core::PeerId::from_bytes(&[0, 1, 0]).expect("an identity multihash (code 0) of one byte is a peer id")
}
