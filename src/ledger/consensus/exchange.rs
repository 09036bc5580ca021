//! What comes from other validators: everything is checked here before it reaches the engine.

use super::bft::{
    Bft, PROPOSAL_ROUNDS_AHEAD, Phase, REPLIES_PER_SECOND, STATUS_EVERY, SYNC_AFTER, VOTE_ROUNDS_AHEAD, protected,
};
use super::certificate::{BlockId, Height, Round};
use super::context::{from_round, to_round};
use super::effects::EngineInput;
use super::message::{Message, SignedProposal, SignedVote};
use super::validators::MAX_VALIDATORS;
use super::{Origin, Output, Recipients, Refusal, Verdict};
use crate::crypto::identity::VerifyingKey;
use std::sync::Arc;

impl Bft {
    /// Takes a message of another validator.
    pub(super) fn message(&mut self, from: VerifyingKey, message: Message) -> Result<(), Refusal> {
        if from == self.host.key.verifying_key() {
            return Err(Refusal::UnknownSender);
        }
        let height = match &message {
            Message::Vote(vote) => vote.height,
            Message::Proposal(proposal, _) => proposal.height,
            Message::Polka(certificate) => certificate.height,
            Message::Round(certificate) => certificate.height,
            Message::GetProposal { height, .. } | Message::Status { height, .. } | Message::GetLastVote { height } => {
                *height
            }
            Message::LastVote(_) => self.next,
        };
        if height > self.next {
            self.note_ahead();
        } else if height == self.next && matches!(self.phase, Phase::Idle) && self.wanted < Some(height) {
            self.wanted = Some(height);
            self.host.outputs.push_back(Output::Wanted { height });
        }
        match (&self.phase, message) {
            // About the sender or this node, whatever is open.
            (_, Message::Status { height, .. }) => self.on_status(from, height),
            (_, Message::GetLastVote { .. }) => self.on_get_last_vote(from),
            (_, Message::LastVote(vote)) => self.on_last_vote(from, vote),
            // About a height that is decided: the sender learns so from the status it gets for its own.
            (_, _) if height < self.next => Err(Refusal::Old),
            (Phase::Open(_), message) if height == self.next => self.on_consensus(from, message),
            // For a height that is not open yet, here or anywhere.
            (_, message) => self.keep(height, from, message),
        }
    }

    fn keep(&mut self, height: Height, from: VerifyingKey, message: Message) -> Result<(), Refusal> {
        if self.inbox.push(height, from, message) { Ok(()) } else { Err(Refusal::Full) }
    }

    /// A message of the open height, from one of its validators.
    fn on_consensus(&mut self, from: VerifyingKey, message: Message) -> Result<(), Refusal> {
        let Phase::Open(engine) = &self.phase else { return Err(Refusal::NotOpen) };
        self.known_sender(&from)?;
        let round = from_round(engine.round());
        let is_place = |place: u16| usize::from(place) < self.host.open.set.as_slice().len();
        match message {
            Message::Vote(vote) => {
                if !is_place(vote.validator) {
                    return Err(Refusal::UnknownValidator);
                }
                if vote.round.0 > round.0.saturating_add(VOTE_ROUNDS_AHEAD) {
                    return Err(Refusal::TooFarAhead);
                }
                self.run(EngineInput::Vote(vote.into()));
            }
            Message::Proposal(proposal, block) => return self.on_proposal(proposal, block),
            Message::Polka(certificate) => {
                if !certificate.signatures.iter().all(|signature| is_place(signature.validator)) {
                    return Err(Refusal::UnknownValidator);
                }
                self.run(EngineInput::PolkaCertificate(certificate.into()));
            }
            Message::Round(certificate) => {
                if !certificate.votes.iter().all(|vote| is_place(vote.validator)) {
                    return Err(Refusal::UnknownValidator);
                }
                self.run(EngineInput::RoundCertificate(certificate.into()));
            }
            Message::GetProposal { round, block, .. } => return self.on_get_proposal(from, round, block),
            // Answered before a height is looked at.
            Message::Status { .. } | Message::GetLastVote { .. } | Message::LastVote(_) => {}
        }
        self.host.refusal.map_or(Ok(()), Err)
    }

    fn on_proposal(&mut self, proposal: SignedProposal, block: Vec<u8>) -> Result<(), Refusal> {
        let Phase::Open(engine) = &self.phase else { return Err(Refusal::NotOpen) };
        let (round, id) = (proposal.round, proposal.block);
        if round.0 > from_round(engine.round()).0.saturating_add(PROPOSAL_ROUNDS_AHEAD) {
            return Err(Refusal::TooFarAhead);
        }
        let is_reason_earlier = proposal.pol_round.is_none_or(|pol_round| pol_round < round);
        if proposal.proposer != self.host.open.voters.proposer(round) || !is_reason_earlier {
            return Err(Refusal::NotTheProposer);
        }
        if self.host.blocks.proposal(round, id).is_some() {
            return Ok(());
        }
        let has_polka = |round: Round| engine.polka_certificate(to_round(Some(round)), &id).is_some();
        if self.host.blocks.is_round_full(round, id) && !has_polka(round) {
            return Err(Refusal::Full);
        }
        if self.name(&block)? != id {
            return Err(Refusal::WrongBlock);
        }
        let origin = if proposal.pol_round.is_some_and(has_polka) { Origin::Certified } else { Origin::Fresh };
        self.host.accepted = None;
        self.run(EngineInput::Proposal(proposal.into()));
        if self.host.accepted != Some(proposal) {
            return self.host.refusal.map_or(Ok(()), Err);
        }
        // Decided in this very moment: its block was already here.
        let Phase::Open(engine) = &self.phase else { return Ok(()) };
        self.host.blocks.note_proposal(proposal);
        let block: Arc<[u8]> = block.into();
        let must_validate = match self.host.blocks.find(&id).map(|held| held.verdict) {
            None => true,
            // Refused before, perhaps for its time alone; now a quorum vouches for that.
            Some(Some(Verdict::Invalid)) => origin == Origin::Certified,
            Some(Some(Verdict::Valid) | None) => false,
        };
        self.host.blocks.hold(id, Arc::clone(&block), None, &protected(engine))?;
        if must_validate {
            self.host.outputs.push_back(Output::Validate { height: self.next, id, block, origin });
        }
        Ok(())
    }

    fn on_get_proposal(&mut self, from: VerifyingKey, round: Round, id: BlockId) -> Result<(), Refusal> {
        let (proposal, held) = self.host.blocks.proposal(round, id).ok_or(Refusal::NotHere)?;
        let message = Message::Proposal(*proposal, held.bytes.to_vec());
        self.reply(from, &message)
    }

    fn on_status(&mut self, from: VerifyingKey, height: Height) -> Result<(), Refusal> {
        if height >= self.next {
            return Ok(());
        }
        self.known_sender(&from)?;
        let (height, round, step) = self.status();
        self.reply(from, &Message::Status { height, round, step })
    }

    fn on_get_last_vote(&mut self, from: VerifyingKey) -> Result<(), Refusal> {
        // Before the first height opens the log is unread, and "none" would be untrue: the asker asks again.
        self.known_sender(&from)?;
        let vote = self.host.seen.get(&from).copied();
        self.reply(from, &Message::LastVote(vote))
    }

    fn on_last_vote(&mut self, from: VerifyingKey, vote: Option<SignedVote>) -> Result<(), Refusal> {
        self.known_sender(&from)?;
        // What is in the log needs no proof; anything newer does, or one liar could silence this node.
        if let Some(vote) = vote.filter(|vote| self.host.guard.is_unknown(vote)) {
            let own_key = self.host.key.verifying_key();
            let bytes = vote.signed_bytes(&self.host.chain);
            own_key.verify(&bytes, &vote.signature).map_err(|_| Refusal::BadSignature)?;
            self.host.heed_own_vote(&vote);
        }
        match &mut self.phase {
            Phase::Idle => {}
            // An answer after the wait: too late for what was signed meanwhile, in time for the rest of the height.
            Phase::Open(engine) => {
                engine.params.enabled = self.host.halt.is_none() && self.host.guard.may_sign_at(self.next);
            }
            Phase::Asking { answered, .. } => {
                answered.insert(from);
                if answered.len() + 1 >= self.host.open.set.as_slice().len() {
                    self.open_engine();
                }
            }
        }
        Ok(())
    }

    fn known_sender(&self, from: &VerifyingKey) -> Result<(), Refusal> {
        self.host.open.set.index_of(from).map(|_| ()).ok_or(Refusal::UnknownSender)
    }

    fn reply(&mut self, to: VerifyingKey, message: &Message) -> Result<(), Refusal> {
        let now = self.host.now;
        if self.ration.len() >= MAX_VALIDATORS && !self.ration.contains_key(&to) {
            self.ration.retain(|_, (since, _)| now.saturating_since(*since) < STATUS_EVERY);
        }
        let (since, count) = self.ration.entry(to).or_insert((now, 0));
        if now.saturating_since(*since) >= STATUS_EVERY {
            (*since, *count) = (now, 0);
        }
        if *count >= REPLIES_PER_SECOND {
            return Err(Refusal::TooOften);
        }
        *count += 1;
        self.host.outputs.push_back(Output::Send { to: Recipients::Validator(to), bytes: message.encode() });
        Ok(())
    }

    fn note_ahead(&mut self) {
        self.sync_at.get_or_insert(self.host.now + SYNC_AFTER);
    }
}
