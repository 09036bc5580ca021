//! Ordering: what this node does when it is a validator.
//!
//! The orderer says what to do, in order: write to its log, build, execute, send, commit. A record that justifies a message is durable
//! before the message leaves.

use super::listening::{Listening, Stored};
use super::{ENDING_POLL, Event, Ledger, MAX_EXECUTED, MessageRefused, OpenError, Recipient};
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::{SigningKey, VerifyingKey};
use crate::ledger::block::{Block, BlockId, Height, Round};
use crate::ledger::certificate::{Certificate, Evidence};
use crate::ledger::chain::{Proposing, build, execute};
use crate::ledger::consensus::wal::{Log, LogStore, Record};
use crate::ledger::consensus::{
    Bft, Config, Deadline, Input, Misbehaviour, Orderer, Origin, Output, Recipients, Recovery, Start, Timeouts,
    Verdict, proposer_order,
};
use crate::ledger::sync::LedgerMessage;
use crate::time::{Instant, Now, UnixMillis};
use std::io;
use std::time::Duration;

/// How far a fresh proposal's time may be from the own wall clock.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(10);
/// The most pieces of evidence that wait for a block; more of the same validator prove nothing new.
const MAX_EVIDENCE: usize = 16;

/// What makes a node a validator.
pub struct ValidatorConfig {
    /// The key of its votes.
    pub key: SigningKey,
    /// Its log, on disk.
    pub log: Box<dyn LogStore<Error = io::Error> + Send>,
    /// Whether the program starts with this key for the first time: then it has signed nothing.
    pub is_new_key: bool,
    /// How long the steps of a round may take.
    pub timeouts: Timeouts,
}

/// The orderer with its log.
pub(super) struct Ordering {
    orderer: Box<dyn Orderer + Send>,
    log: Box<dyn LogStore<Error = io::Error> + Send>,
    key: VerifyingKey,
    /// The height that was opened last.
    open: Option<Height>,
    /// Whether the log holds something that is not durable yet.
    is_dirty: bool,
    evidence: Vec<Evidence>,
    listening: Listening,
}

impl Ordering {
    pub(super) fn poll_timeout(&self) -> Option<(Instant, Deadline)> {
        self.orderer.poll_timeout()
    }

    pub(super) fn listening(&self) -> &Listening {
        &self.listening
    }

    fn write_log(&mut self, output: &Output) -> io::Result<()> {
        match output {
            Output::Persist(frame) => {
                self.is_dirty = true;
                self.log.append(frame)
            }
            Output::Restart(frame) => {
                self.is_dirty = true;
                self.log.reset(frame)
            }
            Output::Send { .. } | Output::Decided { .. } if self.is_dirty => {
                self.is_dirty = false;
                self.log.sync()
            }
            _ => Ok(()),
        }
    }
}

impl Ledger {
    /// Makes this node a validator, from the next height at which its key has a seat. Call it before anything else.
    ///
    /// # Errors
    /// [`OpenError::Log`] when the log cannot be read. A log that is damaged or gone is no error: the validator then stays silent as
    /// long as that is needed for safety.
    pub fn validate(&mut self, config: ValidatorConfig) -> Result<(), OpenError> {
        let ValidatorConfig { key, mut log, is_new_key, timeouts } = config;
        let bytes = log.load().map_err(OpenError::Log)?;
        let head = self.head.as_ref().map_or(Height(0), |head| head.height());
        let recovery = match Log::decode(&bytes) {
            _ if is_new_key => Recovery::NewKey,
            Ok(log) if log.height > Height(0) => Recovery::Log(log),
            // An empty one of a chain without blocks: it was started before, and had nothing to do.
            Ok(_) => Recovery::Lost,
            Err(error) => {
                tracing::error!(%error, "the consensus log is damaged");
                Recovery::Lost
            }
        };
        if let Recovery::Log(log) = &recovery {
            self.take_back(log);
        }
        let config = Config { chain: self.network_id, head, id_of: block_id_of, timeouts };
        let own_key = key.verifying_key();
        let orderer = Box::new(Bft::new(config, key, recovery));
        self.ordering = Some(Ordering {
            orderer,
            log,
            key: own_key,
            open: None,
            is_dirty: false,
            evidence: Vec::new(),
            listening: Listening::new(is_new_key),
        });
        Ok(())
    }

    /// Lets the transactions of the blocks that were under way wait again. The log may bring such a block about whatever waits, and
    /// then drops what its authors signed since with the same sequence numbers.
    fn take_back(&mut self, log: &Log) {
        let next = self.next_height();
        if log.height != next {
            return;
        }
        for record in &log.records {
            let Record::Verdict { valid: true, bytes: Some(bytes), .. } = record else { continue };
            let Ok(block) = Block::decode(bytes) else { continue };
            let time = block.header.time;
            // Revocations are on disk by themselves.
            let others = block.body.transactions.into_iter().filter(|signed| !signed.transaction.is_revocation());
            for verified in others.filter_map(|signed| signed.verify(&self.network_id).ok()) {
                if let Err(error) = self.pool.submit(&self.state, next, time, verified) {
                    tracing::debug!(%error, "a transaction that was under way does not wait again");
                }
            }
        }
    }

    /// Opens the next height when something waits for a block and this node has a seat. A validator that is alone decides at once,
    /// so that more than one height may pass.
    pub(super) fn start_height(&mut self, now: Now) {
        // Looked at whether or not there is work: the time that passes without any counts.
        while self.may_decide_alone(now) && self.may_open() && self.has_work(now) {
            self.open_height(now, self.next_height());
        }
    }

    /// Says whether a validator that is alone may decide: it has listened, and no member that was not found lying has later blocks.
    fn may_decide_alone(&mut self, now: Now) -> bool {
        let is_asking = self.peers.fetch_deadline().is_some();
        let Some(ordering) = &mut self.ordering else { return false };
        let head_time = self.head.as_ref().map_or(UnixMillis(0), |head| head.header.time);
        let stored = Stored { created: self.store.created(), head_time };
        let has_listened = ordering.listening.is_over(now, stored, is_asking);
        let is_alone = self.state.validators().as_slice().len() == 1;
        let is_behind = self.peers.highest().is_some_and(|known| known >= self.next_height());
        !is_alone || (has_listened && !is_behind)
    }

    fn may_open(&self) -> bool {
        let Some(ordering) = &self.ordering else { return false };
        let has_seat = self.state.validators().index_of(&ordering.key).is_some();
        has_seat && self.halted.is_none() && ordering.open != Some(self.next_height())
    }

    fn has_work(&mut self, now: Now) -> bool {
        if !self.pool.is_empty() {
            self.drop_what_fails(now);
        }
        let ended = self.state.next_ending().is_some_and(|ending| ending <= now.wall);
        ended || !self.pool.is_empty() || !self.revocations.is_empty()
    }

    fn open_height(&mut self, now: Now, height: Height) {
        let (Some(ordering), Some(head)) = (&mut self.ordering, &self.head) else { return };
        let validators = self.state.validators();
        let last_validators = self.state.parent_committers();
        let last_commit = head.parent_commit.as_ref().map(|commit| (commit, &last_validators));
        let proposers = proposer_order(&validators, last_commit, height);
        ordering.open = Some(height);
        self.tell_orderer(now, Input::Start(Start { height, validators, proposers }));
    }

    /// Gives the orderer an input of this node's own making, and does what it says.
    fn tell_orderer(&mut self, now: Now, input: Input) {
        let Some(ordering) = &mut self.ordering else { return };
        if let Err(refusal) = ordering.orderer.handle(now, input) {
            tracing::debug!(%refusal, "the orderer refused an input");
        }
        self.carry_out(now);
    }

    pub(super) fn tick_consensus(&mut self, now: Now) {
        if self.ordering.as_ref().and_then(Ordering::poll_timeout).is_some_and(|(at, _)| at <= now.instant) {
            self.tell_orderer(now, Input::Timer);
        }
    }

    pub(super) fn on_consensus(&mut self, now: Now, from: &TransportKey, bytes: Vec<u8>) -> Result<(), MessageRefused> {
        let seats = self.state.seats();
        let seat = seats.as_slice().iter().find(|seat| seat.transport_key == *from);
        let from = seat.ok_or(MessageRefused::NotAValidator)?.validator.key;
        let ordering = self.ordering.as_mut().ok_or(MessageRefused::NotOrdering)?;
        let result = ordering.orderer.handle(now, Input::Message { from, bytes });
        self.carry_out(now);
        Ok(result?)
    }

    /// Takes a block that others committed, through the orderer when that works at its height.
    pub(super) fn take_block(
        &mut self,
        now: Now,
        block: &Block,
        certificate: &Certificate,
    ) -> Result<(), MessageRefused> {
        let height = block.header.height;
        if self.ordering.as_ref().is_some_and(|ordering| ordering.open == Some(height)) {
            self.tell_orderer(now, Input::Synced { block: block.encode(), certificate: certificate.clone() });
            if self.next_height() > height {
                return Ok(());
            }
        }
        self.commit(now, block, certificate)
    }

    /// Does what the orderer says, in order, until it has nothing more to say.
    fn carry_out(&mut self, now: Now) {
        while let Some(ordering) = &mut self.ordering {
            let Some(output) = ordering.orderer.poll_output() else { return };
            if let Err(error) = ordering.write_log(&output) {
                // What cannot be remembered must not be said.
                self.stop_voting(format!("the consensus log failed: {error}"));
                return;
            }
            self.carry_out_one(now, output);
        }
    }

    fn carry_out_one(&mut self, now: Now, output: Output) {
        match output {
            Output::Persist(_) | Output::Restart(_) => {}
            Output::Build { height, round } => self.propose(now, height, round),
            Output::Validate { height, id, block, origin } => self.judge(now, height, id, &block, origin),
            Output::Send { to, bytes } => self.send_consensus(to, bytes),
            Output::Decided { block, certificate, .. } => self.on_decided(now, &block, &certificate),
            Output::Misbehaved(misbehaviour) => self.on_misbehaviour(misbehaviour),
            Output::NeedSync { .. } => self.fetch_next(now),
            Output::Wanted { height } if height == self.next_height() && self.halted.is_none() => {
                self.open_height(now, height);
            }
            Output::Wanted { .. } => self.fetch_next(now),
            Output::Halted(halt) => self.events.push_back(Event::VotingStopped(halt.to_string())),
        }
    }

    fn stop_voting(&mut self, reason: String) {
        tracing::error!(%reason, "this validator votes no more");
        self.ordering = None;
        self.events.push_back(Event::VotingStopped(reason));
    }

    /// Builds a block of what waits, revocations first.
    fn propose(&mut self, now: Now, height: Height, round: Round) {
        let time = self.block_time(now);
        let (Some(ordering), Some(head)) = (&self.ordering, &self.head) else { return };
        if height != head.height().next() || self.halted.is_some() {
            return;
        }
        let proposing = Proposing { time, proposer: ordering.key, evidence: ordering.evidence.clone() };
        let pending = self.revocations.transactions().chain(self.pool.in_order());
        let built = match self.store.tree().map(|tree| build(head, &self.state, &tree, pending, proposing)) {
            Ok(Ok(built)) => built,
            Ok(Err(error)) => {
                self.halt(super::Halt::Store(error.to_string()));
                return;
            }
            Err(error) => {
                self.halt_store(&error);
                return;
            }
        };
        let block = built.block.encode();
        self.remember(built.block, built.execution);
        self.tell_orderer_later(now, Input::Built { height, round, block });
    }

    /// Gives the orderer an answer to its own output; what it says next is carried out by the loop that is under way.
    fn tell_orderer_later(&mut self, now: Now, input: Input) {
        let Some(ordering) = &mut self.ordering else { return };
        if let Err(refusal) = ordering.orderer.handle(now, input) {
            tracing::debug!(%refusal, "the orderer refused an answer");
        }
    }

    fn remember(&mut self, block: Block, execution: crate::ledger::chain::Execution) {
        if self.executed.len() >= MAX_EXECUTED {
            self.executed.clear();
        }
        self.executed.insert(block.id(), (block, execution));
    }

    /// Executes a proposed block, and says whether it may be voted for.
    fn judge(&mut self, now: Now, height: Height, id: BlockId, bytes: &[u8], origin: Origin) {
        let verdict = self.verdict(now, height, bytes, origin);
        self.tell_orderer_later(now, Input::Validated { block: id, verdict });
    }

    pub(super) fn verdict(&mut self, now: Now, height: Height, bytes: &[u8], origin: Origin) -> Verdict {
        let (Some(head), Ok(block)) = (&self.head, Block::decode(bytes)) else { return Verdict::Invalid };
        if height != head.height().next() || origin == Origin::Fresh && !is_timely(block.header.time, now.wall) {
            return Verdict::Invalid;
        }
        if self.executed.contains_key(&block.id()) {
            return Verdict::Valid;
        }
        let tree = match self.store.tree() {
            Ok(tree) => tree,
            Err(error) => {
                self.halt_store(&error);
                return Verdict::Invalid;
            }
        };
        match execute(head, &self.state, &tree, &block) {
            Ok(execution) => {
                self.remember(block, execution);
                Verdict::Valid
            }
            Err(error) => {
                tracing::warn!(%height, %error, "a proposed block is not valid");
                Verdict::Invalid
            }
        }
    }

    fn send_consensus(&mut self, to: Recipients, bytes: Vec<u8>) {
        let message = LedgerMessage::Consensus(bytes);
        match to {
            Recipients::Validators => self.send(Recipient::Validators, message),
            Recipients::Validator(key) => {
                let seats = self.state.seats();
                let seat = seats.as_slice().iter().find(|seat| seat.validator.key == key);
                if let Some(seat) = seat {
                    self.send(Recipient::Peer(seat.transport_key), message);
                }
            }
        }
    }

    fn on_decided(&mut self, now: Now, bytes: &[u8], certificate: &Certificate) {
        let Ok(block) = Block::decode(bytes) else { return };
        if block.header.height != self.next_height() {
            // Sync was faster.
            return;
        }
        if let Some(ordering) = &mut self.ordering {
            ordering.evidence.retain(|evidence| !block.body.evidence.contains(evidence));
        }
        if let Err(error) = self.commit(now, &block, certificate) {
            tracing::error!(%error, "a decided block could not be committed");
        }
    }

    fn on_misbehaviour(&mut self, misbehaviour: Misbehaviour) {
        if let (Misbehaviour::Votes(evidence), Some(ordering)) = (&misbehaviour, &mut self.ordering)
            && ordering.evidence.len() < MAX_EVIDENCE
            && evidence.is_valid(&self.network_id)
        {
            ordering.evidence.push(*evidence);
        }
        self.events.push_back(Event::Misbehaved(Box::new(misbehaviour)));
    }

    /// Sets when this validator looks for ended memberships again. The wall clock may jump, so it looks more often than needed.
    pub(super) fn schedule_ending(&mut self, now: Now) {
        let next = self.ordering.as_ref().and_then(|_| self.state.next_ending());
        self.ending_at =
            next.map(|ending| now.instant + ending.saturating_since(now.wall).clamp(MIN_ENDING_WAIT, ENDING_POLL));
    }
}

/// How soon this validator looks again for a membership that has ended but could not be removed yet.
const MIN_ENDING_WAIT: Duration = Duration::from_secs(1);

fn is_timely(time: UnixMillis, wall: UnixMillis) -> bool {
    time.difference(wall) <= MAX_CLOCK_DIFFERENCE
}

/// Names a block, as the orderer asks: by its header, once the form is right.
fn block_id_of(bytes: &[u8]) -> Option<BlockId> {
    Block::decode(bytes).ok().map(|block| block.id())
}
