//! How a height opens: with a question to the others after a restart, and through the log if it was open before.

use super::bft::{Bft, Phase, RECOVERY_WAIT, STATUS_EVERY};
use super::blocks::Blocks;
use super::context::{Context, NOWHERE, Place, Voters, from_round, to_round};
use super::effects::{EngineInput, Host, OpenHeight, Replay};
use super::guard::Guard;
use super::message::{Message, SignedVote};
use super::wal::{Log, Record, TimedStep};
use super::{Output, Refusal, Start, Verdict};
use crate::crypto::hash::Digest;
use crate::crypto::identity::VerifyingKey;
use arc_malachitebft_core_consensus as core;
use arc_malachitebft_core_types as engine;
use engine::VoteExtensionPolicy;
use std::collections::BTreeSet;

impl Bft {
    /// Opens a height, or first asks what was signed at it.
    pub(super) fn start(&mut self, start: Start) -> Result<(), Refusal> {
        if start.height < self.next {
            return Err(Refusal::Old);
        }
        if start.height == self.next && !matches!(self.phase, Phase::Idle) {
            return Err(Refusal::AlreadyOpen);
        }
        if !is_permutation(&start.proposers, start.validators.as_slice().len()) {
            return Err(Refusal::BadStart);
        }
        let host = &mut self.host;
        let own_place = start.validators.index_of(&host.key.verifying_key());
        let voters = Voters::new(&start.validators, &start.proposers);
        let is_alone = own_place.is_some() && start.validators.as_slice().len() == 1;
        host.open =
            OpenHeight { height: start.height, place: own_place.map_or(NOWHERE, Place), set: start.validators, voters };
        host.blocks = Blocks::default();
        host.timers.cancel_all();
        host.synced = None;
        host.decided = false;
        host.log_len = 0;
        host.logged_blocks.clear();
        host.seen.retain(|key, _| host.open.set.index_of(key).is_some());
        self.next = start.height;
        self.status_at = None;
        self.sync_at = None;
        if self.log_is_lost && !is_alone {
            // What was signed at this height is unknown. Alone, nothing signed was ever sent: only committed blocks were shown.
            self.host.guard.raise_floor(start.height);
        }
        self.remember_votes_in_log();
        match &mut self.phase {
            Phase::Asking { answered, .. } => answered.clear(),
            Phase::Idle | Phase::Open(_) if self.must_ask && own_place.is_some() && !is_alone => {
                let now = self.host.now;
                self.phase = Phase::Asking { until: now + RECOVERY_WAIT, ask_at: now, answered: BTreeSet::new() };
            }
            Phase::Idle | Phase::Open(_) => {
                self.open_engine();
                return Ok(());
            }
        }
        self.ask();
        Ok(())
    }

    /// The log may hold votes of others that they have forgotten, if all restart at once.
    fn remember_votes_in_log(&mut self) {
        let records = self.log.iter().filter(|log| log.height == self.next).flat_map(|log| &log.records);
        let votes: Vec<SignedVote> =
            records.filter_map(|record| if let Record::Vote(vote) = record { Some(*vote) } else { None }).collect();
        for vote in votes {
            self.host.check_vote(vote);
        }
        self.host.refusal = None;
    }

    /// Starts the engine at the open height, through the log if there is one of it.
    pub(super) fn open_engine(&mut self) {
        // Asked once with others about: from then on this program remembers what it signs.
        self.must_ask &= !matches!(self.phase, Phase::Asking { .. });
        let host = &mut self.host;
        let height = host.open.height;
        let log = self.log.take().filter(|log| log.height == height);
        let params = core::Params {
            address: host.open.place,
            threshold_params: engine::ThresholdParams::default(),
            // The engine sees names alone, and waits for the verdict on each before it votes.
            value_payload: engine::ValuePayload::ProposalAndParts,
            enabled: host.halt.is_none() && host.guard.may_sign_at(height),
        };
        if !params.enabled && host.open.place != NOWHERE {
            tracing::warn!(
                height = height.0,
                "this validator may have signed at this height: it follows without voting"
            );
        }
        // Its queue for later heights stays empty: the inbox here is the one that is bounded per sender.
        let mut state = core::State::new(Context, height, host.open.voters.clone(), params, 1, 1);
        let records = log.map_or_else(Vec::new, |log| log.records);
        let is_restart = !records.is_empty();
        let inputs: Vec<_> = records.into_iter().filter_map(|record| host.replayed_input(record)).collect();
        if is_restart {
            state.index_wal_entries(&inputs);
        } else {
            let max_height_signed = host.guard.max_height_signed();
            host.outputs.push_back(Output::Restart(Record::Opened { height, max_height_signed }.frame()));
        }
        self.phase = Phase::Open(Box::new(state));
        let is_alone = self.host.open.set.as_slice().len() == 1;
        self.status_at = (!is_alone).then_some(self.host.now + STATUS_EVERY);
        let voters = self.host.open.voters.clone();
        // A target time would be measured with the engine's own clock.
        self.run(EngineInput::StartHeight(height, voters, is_restart, None, VoteExtensionPolicy::Disabled));
        for input in inputs {
            self.run(input);
        }
        self.end_replay();
        for (from, message) in self.inbox.take(height) {
            if let Err(refusal) = self.message(from, message) {
                tracing::debug!(?from, %refusal, "a message that waited for its height");
            }
        }
    }

    fn end_replay(&mut self) {
        let Some(replay) = self.host.replay.take() else { return };
        let Phase::Open(engine) = &mut self.phase else { return };
        engine.reset_entries_index();
        let still_due =
            replay.build.filter(|round| engine.driver.step_is_propose() && *round == from_round(engine.round()));
        if let Some(round) = still_due {
            self.host.outputs.push_back(Output::Build { height: self.next, round });
        }
    }

    /// Asks the others which votes of this node they know.
    pub(super) fn ask(&mut self) {
        if let Phase::Asking { ask_at, .. } = &mut self.phase {
            *ask_at = self.host.now + STATUS_EVERY;
            self.host.broadcast(&Message::GetLastVote { height: self.next });
        }
    }
}

impl Host {
    /// Turns a record of the log into the input that it came from, and takes back the block in it.
    fn replayed_input(&mut self, record: Record) -> Option<EngineInput> {
        let frame = record.frame();
        self.log_len += frame.len();
        self.replay.get_or_insert_with(Replay::default).frames.insert(frame);
        Some(match record {
            Record::Vote(vote) => EngineInput::Vote(vote.into()),
            Record::Proposal(proposal) => {
                self.blocks.note_proposal(proposal);
                EngineInput::Proposal(proposal.into())
            }
            Record::Verdict { round, pol_round, proposer, block, valid, bytes } => {
                let verdict = Verdict::from(valid);
                if let Some(bytes) = bytes {
                    // A log holds no more blocks than were held when it was written.
                    let _ = self.blocks.hold(block, bytes.into(), Some(verdict), &[]);
                }
                self.blocks.judge(&block, verdict);
                let value = core::ProposedValue {
                    height: self.open.height,
                    round: to_round(Some(round)),
                    valid_round: to_round(pol_round),
                    proposer: Place(proposer),
                    value: block,
                    validity: engine::Validity::from_bool(valid),
                };
                EngineInput::ProposedValue(value, engine::ValueOrigin::Consensus)
            }
            Record::Polka(certificate) => EngineInput::PolkaCertificate(certificate.into()),
            Record::Timeout(step, round) => {
                let round = to_round(Some(round));
                EngineInput::TimeoutElapsed(match step {
                    TimedStep::Propose => engine::Timeout::propose(round),
                    TimedStep::Prevote => engine::Timeout::prevote(round),
                    TimedStep::Precommit => engine::Timeout::precommit(round),
                })
            }
            // Only the first record of a log, which is not among its records.
            Record::Opened { .. } => return None,
        })
    }
}

/// Brings the guard to where the log leaves off. Which signatures are the own ones, the key itself tells.
pub(super) fn remember_own_signatures(guard: &mut Guard, log: &Log, chain: &Digest, own_key: &VerifyingKey) {
    for record in &log.records {
        match record {
            Record::Vote(vote) if own_key.verify(&vote.signed_bytes(chain), &vote.signature).is_ok() => {
                let _ = guard.permit_vote(vote);
            }
            Record::Proposal(proposal)
                if own_key.verify(&proposal.signed_bytes(chain), &proposal.signature).is_ok() =>
            {
                let _ = guard.permit_proposal(proposal);
            }
            _ => {}
        }
    }
}

fn is_permutation(places: &[u16], count: usize) -> bool {
    let mut sorted = places.to_vec();
    sorted.sort_unstable();
    count > 0 && sorted.len() == count && sorted.iter().zip(0..).all(|(place, expected)| *place == expected)
}
