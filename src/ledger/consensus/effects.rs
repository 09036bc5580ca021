//! What the engine asks of its host, one arm per effect.
//!
//! The engine runs as a coroutine that stops at each effect; [`Host::effect`] answers at once and never waits. What takes time
//! (building, executing, syncing) is an [`Output`], and its answer comes back as an input of its own.

use super::blocks::Blocks;
use super::certificate::{BlockId, Certificate, Evidence, Height, QuotedVote, Round, VoteKind};
use super::config::{Config, Timeouts};
use super::context::{Context, NOWHERE, Place, Proposal, Vote, Voters, from_round, to_round};
use super::guard::Guard;
use super::message::{Message, PolkaCertificate, RoundCertificate, RoundProof, SignedProposal, SignedVote};
use super::timers::Timers;
use super::validators::ValidatorSet;
use super::wal::{MAX_LOG_LEN, Record, TimedStep};
use super::{Halt, Misbehaviour, Origin, Output, Recipients, Refusal, Verdict};
use crate::crypto::hash::Digest;
use crate::crypto::identity::{Signature, SigningKey, VerifyingKey};
use crate::time::Instant;
use arc_malachitebft_core_consensus as core;
use arc_malachitebft_core_types as engine;
use core::{ConsensusMsg, LivenessMsg, MisbehaviorEvidence, ProposedValue, Resumable, Resume, SignedConsensusMsg};
use engine::{CertificateError, TimeoutKind, Validity, ValueOrigin};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

pub(super) type EngineInput = core::Input<Context>;
type Effect = core::Effect<Context>;

/// The height that is open, or was last.
pub(super) struct OpenHeight {
    pub(super) height: Height,
    /// This node's place; [`super::context::NOWHERE`] when it does not vote.
    pub(super) place: Place,
    pub(super) set: ValidatorSet,
    pub(super) voters: Voters,
}

/// Everything but the engine.
pub(super) struct Host {
    pub(super) chain: Digest,
    pub(super) key: SigningKey,
    pub(super) timeouts: Timeouts,
    pub(super) now: Instant,
    pub(super) open: OpenHeight,
    pub(super) guard: Guard,
    pub(super) blocks: Blocks,
    pub(super) timers: Timers,
    pub(super) outputs: VecDeque<Output>,
    /// Inputs that an effect gave rise to, to be handled when the engine has come to rest.
    pub(super) pending: VecDeque<EngineInput>,
    /// The latest vote of each validator: what [`Message::LastVote`] tells it after a restart.
    pub(super) seen: BTreeMap<VerifyingKey, SignedVote>,
    pub(super) halt: Option<Halt>,
    /// Why the engine dropped what it was last given, if it did.
    pub(super) refusal: Option<Refusal>,
    /// The proposal whose signature was found good in this run.
    pub(super) accepted: Option<SignedProposal>,
    /// The certificate of the block that is being synced.
    pub(super) synced: Option<(Round, Place, BlockId)>,
    pub(super) decided: bool,
    /// While the log is replayed: the frames in it, which are not written again, and the round for which a block was asked.
    pub(super) replay: Option<Replay>,
    pub(super) log_len: usize,
    pub(super) logged_blocks: BTreeSet<BlockId>,
}

/// What happens otherwise during a replay.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) frames: BTreeSet<Vec<u8>>,
    pub(super) build: Option<Round>,
}

impl Host {
    /// Prepares the host of a validator with no height open.
    pub(super) fn new(config: Config, key: SigningKey, guard: Guard) -> Self {
        let set = ValidatorSet::default();
        let open = OpenHeight { height: config.head, place: NOWHERE, voters: Voters::new(&set, &[]), set };
        Self {
            chain: config.chain,
            key,
            timeouts: config.timeouts,
            now: Instant::ZERO,
            open,
            guard,
            blocks: Blocks::default(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
            pending: VecDeque::new(),
            seen: BTreeMap::new(),
            halt: None,
            refusal: None,
            accepted: None,
            synced: None,
            decided: false,
            replay: None,
            log_len: 0,
            logged_blocks: BTreeSet::new(),
        }
    }

    /// Answers one effect.
    pub(super) fn effect(&mut self, effect: Effect) -> Result<Resume<Context>, Infallible> {
        Ok(match effect {
            // L20, L34, L47: timeouts are measured here, the engine has no clock.
            Effect::ScheduleTimeout(timeout, resume) => {
                self.timers.schedule(timeout, self.now + self.timeouts.duration(timeout));
                resume.resume_with(())
            }
            Effect::CancelTimeout(timeout, resume) => {
                self.timers.cancel(timeout);
                resume.resume_with(())
            }
            // L11: a round begins, nothing of the last one elapses any more.
            Effect::CancelAllTimeouts(resume) => {
                self.timers.cancel_all();
                resume.resume_with(())
            }
            // Of no interest outside: the status tick tells the round.
            Effect::StartRound(_, _, _, _, resume) => resume.resume_with(()),
            // L18 getValue(): the state machine builds a block; its answer is Input::Built.
            Effect::GetValue(height, round, _timeout, resume) => {
                self.ask_for_block(height, from_round(round));
                resume.resume_with(())
            }
            // L19, L24, L30, L37: what was signed leaves, behind the log record that the engine asked for before.
            Effect::PublishConsensusMsg(SignedConsensusMsg::Vote(vote), resume) => {
                let vote = SignedVote::from_engine(&vote.message, vote.signature);
                self.broadcast(&Message::Vote(vote));
                resume.resume_with(())
            }
            Effect::PublishConsensusMsg(SignedConsensusMsg::Proposal(proposal), resume) => {
                self.publish_proposal(SignedProposal::from_engine(&proposal.message, proposal.signature));
                resume.resume_with(())
            }
            // Justifications of a new round or an old block, so that the others can follow.
            Effect::PublishLivenessMsg(message, resume) => {
                self.broadcast(&match message {
                    LivenessMsg::Vote(vote) => Message::Vote(SignedVote::from_engine(&vote.message, vote.signature)),
                    LivenessMsg::PolkaCertificate(certificate) => Message::Polka(certificate.into()),
                    LivenessMsg::SkipRoundCertificate(certificate) => Message::Round(certificate.into()),
                });
                resume.resume_with(())
            }
            // Messages get lost: the last votes and the reason of the round are repeated until the height is decided.
            Effect::RepublishVote(vote, resume) => {
                self.broadcast(&Message::Vote(SignedVote::from_engine(&vote.message, vote.signature)));
                resume.resume_with(())
            }
            Effect::RepublishRoundCertificate(certificate, resume) => {
                self.broadcast(&Message::Round(certificate.into()));
                resume.resume_with(())
            }
            // The block always travels with its proposal, so there is nothing to stream a second time.
            Effect::RestreamProposal(_, _, _, _, _, resume) => resume.resume_with(()),
            Effect::SignVote(vote, resume) => {
                let signature = self.sign_vote(&vote);
                resume.resume_with(engine::SignedMessage::new(vote, signature))
            }
            Effect::SignProposal(proposal, resume) => {
                let signature = self.sign_proposal(&proposal);
                resume.resume_with(engine::SignedMessage::new(proposal, signature))
            }
            Effect::VerifySignature(message, key, resume) => {
                let is_valid = match message.message {
                    ConsensusMsg::Vote(vote) => self.check_vote(SignedVote::from_engine(&vote, message.signature)),
                    ConsensusMsg::Proposal(proposal) => {
                        self.check_proposal(SignedProposal::from_engine(&proposal, message.signature), &key)
                    }
                };
                resume.resume_with(is_valid)
            }
            // The certificate that the engine made of votes it has checked one by one (L49).
            Effect::VerifyCommitCertificate(certificate, _, _, resume) => {
                let certificate = Certificate::from_engine(certificate);
                resume.resume_with(self.check_commit(&certificate))
            }
            // A certificate from another node. Extensions are disabled: there is nothing more to check in it.
            Effect::VerifyExtendedCommitCertificate(certificate, _, _, _, resume) => {
                let certificate = Certificate::from_engine(certificate.trim_vote_extensions());
                resume.resume_with(self.check_commit(&certificate))
            }
            Effect::VerifyPolkaCertificate(certificate, _, thresholds, resume) => {
                let votes = PolkaCertificate::from(certificate).into_votes();
                resume.resume_with(self.check_votes(&votes, thresholds.quorum))
            }
            Effect::VerifyRoundCertificate(certificate, _, thresholds, resume) => {
                let certificate = RoundCertificate::from(certificate);
                resume.resume_with(self.check_round(certificate, thresholds))
            }
            // Before anything leaves: Output::Persist stands before the Output::Send that follows.
            Effect::WalAppend(_height, input, resume) => {
                self.log(input);
                resume.resume_with(())
            }
            // The certificate of a synced block holds; its state is still computed here.
            Effect::CertVerifiedSyncValue(response, proposer, resume) => {
                let certificate = response.certificate;
                self.validate_synced(from_round(certificate.round), proposer, certificate.value_id);
                resume.resume_with(())
            }
            Effect::CertRejectedSyncValue(_, _, error, resume) => {
                tracing::debug!(%error, "synced certificate refused");
                resume.resume_with(())
            }
            // L49-L51.
            Effect::Decide(certificate, _, resume) => {
                self.decide(Certificate::from_engine(certificate));
                resume.resume_with(())
            }
            // Follows Decide at once, because no target time is set; brings what was collected about liars.
            Effect::Finalize(_, _, evidence, resume) => {
                self.report(evidence);
                resume.resume_with(())
            }
            // Never asked: vote extensions are disabled at every height.
            Effect::ExtendVote(_, _, _, _, resume) => resume.resume_with(None),
            Effect::VerifyVoteExtension(_, _, _, _, _, _, resume) => resume.resume_with(Ok(())),
        })
    }

    /// Sends to every other validator; nothing leaves a node that has stopped voting, or is alone.
    pub(super) fn broadcast(&mut self, message: &Message) {
        if self.halt.is_none() && self.open.set.as_slice().len() > 1 {
            self.outputs.push_back(Output::Send { to: Recipients::Validators, bytes: message.encode() });
        }
    }

    /// Stops voting for good.
    pub(super) fn stop(&mut self, reason: Halt) {
        if self.halt.is_none() {
            tracing::error!(%reason, height = self.open.height.0, "this validator stops voting");
            self.halt = Some(reason);
            self.outputs.push_back(Output::Halted(reason));
        }
    }

    fn ask_for_block(&mut self, height: Height, round: Round) {
        match &mut self.replay {
            // The log may lead past this round: asked at the end of the replay, if still needed.
            Some(replay) => replay.build = Some(round),
            None => self.outputs.push_back(Output::Build { height, round }),
        }
    }

    fn publish_proposal(&mut self, proposal: SignedProposal) {
        self.blocks.note_proposal(proposal);
        match self.blocks.find(&proposal.block) {
            Some(held) => {
                let message = Message::Proposal(proposal, held.bytes.to_vec());
                self.broadcast(&message);
            }
            // A block proposed again may have been dropped as the oldest of many; the round passes.
            None => tracing::warn!(block = %proposal.block, "the block to propose is not held"),
        }
    }

    fn sign_vote(&mut self, vote: &Vote) -> Signature {
        let unsigned = SignedVote::from_engine(vote, UNSIGNED);
        if self.halt.is_none() && self.guard.permit_vote(&unsigned) {
            return self.key.sign(&unsigned.signed_bytes(&self.chain));
        }
        self.stop(Halt::WouldEquivocate);
        UNSIGNED
    }

    fn sign_proposal(&mut self, proposal: &Proposal) -> Signature {
        let unsigned = SignedProposal::from_engine(proposal, UNSIGNED);
        if self.halt.is_none() && self.guard.permit_proposal(&unsigned) {
            return self.key.sign(&unsigned.signed_bytes(&self.chain));
        }
        self.stop(Halt::WouldEquivocate);
        UNSIGNED
    }

    /// Checks a vote's signature, and takes note of a good one.
    pub(super) fn check_vote(&mut self, vote: SignedVote) -> bool {
        let Some(validator) = self.open.set.at(vote.validator) else { return false };
        let key = validator.key;
        if key.verify(&vote.signed_bytes(&self.chain), &vote.signature).is_err() {
            self.refusal = Some(Refusal::BadSignature);
            return false;
        }
        self.note_vote(key, vote);
        true
    }

    /// Remembers a vote whose signature is good.
    pub(super) fn note_vote(&mut self, key: VerifyingKey, vote: SignedVote) {
        let place = |vote: &SignedVote| (vote.height, vote.round, vote.kind);
        if self.seen.get(&key).is_none_or(|seen| place(seen) < place(&vote)) {
            self.seen.insert(key, vote);
        }
        if key == self.key.verifying_key() {
            self.heed_own_vote(&vote);
        } else if let Some(block) = vote.block.filter(|_| vote.height == self.open.height) {
            self.blocks.want(self.now, vote.round, block, vote.validator);
        }
    }

    /// A vote of this very key that is not in the log: the disk is older than the vote. Never again at that height.
    pub(super) fn heed_own_vote(&mut self, vote: &SignedVote) {
        if self.guard.is_unknown(vote) {
            tracing::warn!(height = vote.height.0, round = vote.round.0, "others know a vote that this disk does not");
            self.guard.raise_floor(vote.height);
        }
    }

    fn check_proposal(&mut self, proposal: SignedProposal, key: &VerifyingKey) -> bool {
        let is_valid = key.verify(&proposal.signed_bytes(&self.chain), &proposal.signature).is_ok();
        if is_valid {
            self.accepted = Some(proposal);
        } else {
            self.refusal = Some(Refusal::BadSignature);
        }
        is_valid
    }

    fn check_commit(&mut self, certificate: &Certificate) -> Result<(), CertificateError<Context>> {
        certificate.verify(&self.chain, &self.open.set).map_err(|error| {
            self.refusal = Some(Refusal::BadCertificate(error));
            NOT_PROVED
        })
    }

    fn check_round(
        &mut self,
        certificate: RoundCertificate,
        thresholds: engine::ThresholdParams,
    ) -> Result<(), CertificateError<Context>> {
        let (threshold, precommits_alone) = match certificate.proof {
            RoundProof::Skip => (thresholds.honest, false),
            RoundProof::Precommits => (thresholds.quorum, true),
        };
        let votes = certificate.into_votes();
        if precommits_alone && votes.iter().any(|vote| vote.kind == VoteKind::Prevote) {
            self.refusal = Some(Refusal::TooFewSigners);
            return Err(NOT_PROVED);
        }
        self.check_votes(&votes, threshold)
    }

    /// Checks votes of distinct validators whose power together must pass the threshold.
    fn check_votes(
        &mut self,
        votes: &[SignedVote],
        threshold: engine::ThresholdParam,
    ) -> Result<(), CertificateError<Context>> {
        let mut signers = BTreeSet::new();
        let power_of = |vote: &SignedVote| self.open.set.at(vote.validator).map_or(0, |validator| validator.power);
        let power = votes.iter().filter(|vote| signers.insert(vote.validator)).map(power_of).sum();
        // Weighed first: checking the signatures of a certificate that could prove nothing would be work for nothing.
        if signers.len() != votes.len() || !threshold.is_met(power, self.open.set.total_power()) {
            self.refusal = Some(Refusal::TooFewSigners);
            return Err(NOT_PROVED);
        }
        if votes.iter().all(|vote| self.check_vote(*vote)) { Ok(()) } else { Err(NOT_PROVED) }
    }

    fn log(&mut self, input: EngineInput) {
        let record = match input {
            EngineInput::Vote(vote) => Record::Vote(SignedVote::from_engine(&vote.message, vote.signature)),
            EngineInput::Proposal(proposal) => {
                Record::Proposal(SignedProposal::from_engine(&proposal.message, proposal.signature))
            }
            EngineInput::ProposedValue(value, _) => self.verdict_record(&value),
            EngineInput::PolkaCertificate(certificate) => Record::Polka(certificate.into()),
            EngineInput::TimeoutElapsed(timeout) => match timeout.kind {
                TimeoutKind::Propose => Record::Timeout(TimedStep::Propose, from_round(timeout.round)),
                TimeoutKind::Prevote => Record::Timeout(TimedStep::Prevote, from_round(timeout.round)),
                TimeoutKind::Precommit => Record::Timeout(TimedStep::Precommit, from_round(timeout.round)),
                // Move nothing that a restart would have to repeat.
                TimeoutKind::Rebroadcast | TimeoutKind::FinalizeHeight(_) => return,
            },
            // By the engine's contract never written: the host has them, or they are written as their parts.
            EngineInput::StartHeight(..)
            | EngineInput::RoundCertificate(_)
            | EngineInput::Propose(_)
            | EngineInput::SyncValueResponse(_) => return,
        };
        let frame = record.frame();
        if self.replay.as_ref().is_some_and(|replay| replay.frames.contains(&frame)) {
            return;
        }
        self.log_len += frame.len();
        if self.log_len > MAX_LOG_LEN {
            return self.stop(Halt::LogFull);
        }
        self.outputs.push_back(Output::Persist(frame));
    }

    fn verdict_record(&mut self, value: &ProposedValue<Context>) -> Record {
        let is_first = self.logged_blocks.insert(value.value);
        let held = self.blocks.find(&value.value).filter(|_| is_first);
        Record::Verdict {
            round: from_round(value.round),
            pol_round: value.valid_round.as_u32().map(Round),
            proposer: value.proposer.0,
            block: value.value,
            valid: value.validity.is_valid(),
            bytes: held.map(|held| held.bytes.to_vec()),
        }
    }

    fn validate_synced(&mut self, round: Round, proposer: Place, id: BlockId) {
        self.synced = Some((round, proposer, id));
        match self.blocks.find(&id) {
            Some(held) if held.verdict == Some(Verdict::Valid) => {
                self.pending.push_back(self.proposed_value(id, Verdict::Valid));
            }
            Some(held) => {
                let (height, block) = (self.open.height, Arc::clone(&held.bytes));
                self.outputs.push_back(Output::Validate { height, id, block, origin: Origin::Certified });
            }
            None => tracing::warn!(block = %id, "the synced block was dropped before its certificate was checked"),
        }
    }

    /// Tells the engine what executing a block gave.
    pub(super) fn proposed_value(&self, id: BlockId, verdict: Verdict) -> EngineInput {
        let validity = match verdict {
            Verdict::Valid => Validity::Valid,
            Verdict::Invalid => Validity::Invalid,
        };
        let synced = self.synced.filter(|(_, _, block)| *block == id);
        let proposal = self.blocks.any_proposal(&id);
        let (origin, round, pol_round, proposer) = match (synced, proposal) {
            (Some((round, proposer, _)), _) => (ValueOrigin::Sync, round, None, proposer),
            (None, Some(proposal)) => {
                (ValueOrigin::Consensus, proposal.round, proposal.pol_round, Place(proposal.proposer))
            }
            // A block is held because of a proposal or a certificate; the round is only a label to the engine.
            (None, None) => (ValueOrigin::Consensus, Round(0), None, Place(self.open.voters.proposer(Round(0)))),
        };
        let value = ProposedValue {
            height: self.open.height,
            round: to_round(Some(round)),
            valid_round: to_round(pol_round),
            proposer,
            value: id,
            validity,
        };
        EngineInput::ProposedValue(value, origin)
    }

    fn decide(&mut self, certificate: Certificate) {
        self.decided = true;
        let id = certificate.block;
        self.outputs.push_back(match self.blocks.find(&id) {
            Some(held) => Output::Decided { id, block: Arc::clone(&held.bytes), certificate },
            // Decided in a round so old that its block was dropped as the oldest of many: others have it.
            None => Output::NeedSync { height: certificate.height },
        });
    }

    fn report(&mut self, evidence: MisbehaviorEvidence<Context>) {
        for (place, pairs) in evidence.votes {
            let Some(validator) = self.open.set.at(place.0).map(|validator| validator.key) else { continue };
            let reports = pairs.iter().map(|(first, second)| {
                let quote = |vote: &engine::SignedVote<Context>| SignedVote::from_engine(&vote.message, vote.signature);
                Misbehaviour::Votes(Evidence::new(validator, &quote(first), &quote(second)))
            });
            self.outputs.extend(reports.map(Output::Misbehaved));
        }
        for (place, pairs) in evidence.proposals {
            let Some(proposer) = self.open.set.at(place.0).map(|validator| validator.key) else { continue };
            let reports = pairs.iter().map(|(first, second)| {
                let quote =
                    |it: &engine::SignedProposal<Context>| SignedProposal::from_engine(&it.message, it.signature);
                Misbehaviour::Proposals { proposer, first: quote(first), second: quote(second) }
            });
            self.outputs.extend(reports.map(Output::Misbehaved));
        }
    }
}

/// Stands where a signature will be, or was refused; verifies under no key.
const UNSIGNED: Signature = Signature([0; 64]);

/// The engine needs to know that a certificate failed, not why; that is in [`Host::refusal`].
const NOT_PROVED: CertificateError<Context> = CertificateError::VerificationError(None);

impl Evidence {
    fn new(validator: VerifyingKey, one: &SignedVote, other: &SignedVote) -> Self {
        let quote = |vote: &SignedVote| QuotedVote { block: vote.block, signature: vote.signature };
        let (first, second) = if one.block < other.block { (one, other) } else { (other, one) };
        let (height, round, kind) = (one.height, one.round, one.kind);
        Self { validator, height, round, kind, first: quote(first), second: quote(second) }
    }
}
