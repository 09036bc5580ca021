//! The blocks proposed at the open height, and who lacks one.

use super::certificate::{BlockId, Round};
use super::message::SignedProposal;
use super::{Refusal, Verdict};
use crate::time::Instant;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Blocks kept per height, 4 MiB. When more come, the one proposed longest ago goes, unless it may still be decided.
const MAX_BLOCKS: usize = 16;
/// Blocks of one round: two prove that the proposer lies, more prove nothing.
const MAX_BLOCKS_PER_ROUND: usize = 2;
/// Proposals asked for at a time. When more are missing, those of the highest rounds are asked for.
const MAX_WANTS: usize = 8;
/// How long a proposal may be under way behind the first vote for it: a block of 256 kB at 10 Mb/s.
const PULL_AFTER: Duration = Duration::from_millis(200);
/// How long an answer may take before somebody else is asked.
const PULL_AGAIN: Duration = Duration::from_millis(300);
/// Whom to ask for one proposal; more voters are forgotten.
const MAX_SOURCES: usize = 8;

/// A block's bytes, and what executing it gave.
pub(super) struct Held {
    pub(super) bytes: Arc<[u8]>,
    pub(super) verdict: Option<Verdict>,
}

/// A proposal that somebody voted for and that is not here.
struct Want {
    ask_at: Instant,
    sources: Vec<u16>,
}

/// What is held, and what is missing.
#[derive(Default)]
pub(super) struct Blocks {
    held: BTreeMap<BlockId, Held>,
    proposals: BTreeMap<(Round, BlockId), SignedProposal>,
    wants: BTreeMap<(Round, BlockId), Want>,
}

impl Blocks {
    /// Lends a block.
    pub(super) fn find(&self, id: &BlockId) -> Option<&Held> {
        self.held.get(id)
    }

    /// Writes down what executing a block gave.
    pub(super) fn judge(&mut self, id: &BlockId, verdict: Verdict) {
        if let Some(held) = self.held.get_mut(id) {
            held.verdict = Some(verdict);
        }
    }

    /// Lends a proposal with its block, when both are here.
    pub(super) fn proposal(&self, round: Round, id: BlockId) -> Option<(&SignedProposal, &Held)> {
        self.proposals.get(&(round, id)).zip(self.held.get(&id))
    }

    /// Lends some proposal of a block: the one of the lowest round.
    pub(super) fn any_proposal(&self, id: &BlockId) -> Option<&SignedProposal> {
        self.proposals.values().find(|proposal| proposal.block == *id)
    }

    /// Says whether one more block of this round would prove nothing.
    pub(super) fn is_round_full(&self, round: Round, id: BlockId) -> bool {
        let in_round = || self.proposals.keys().filter(|(other, _)| *other == round);
        in_round().count() >= MAX_BLOCKS_PER_ROUND && !in_round().any(|(_, other)| *other == id)
    }

    /// Keeps a proposal whose signature was checked.
    pub(super) fn note_proposal(&mut self, proposal: SignedProposal) {
        self.proposals.insert((proposal.round, proposal.block), proposal);
        self.forget_met_wants();
    }

    /// Keeps a block's bytes. `protected` names those that may still be decided.
    ///
    /// # Errors
    /// [`Refusal::Full`] when every block held is protected.
    pub(super) fn hold(
        &mut self,
        id: BlockId,
        bytes: Arc<[u8]>,
        verdict: Option<Verdict>,
        protected: &[BlockId],
    ) -> Result<(), Refusal> {
        if self.held.contains_key(&id) {
            return Ok(());
        }
        if self.held.len() >= MAX_BLOCKS {
            let last_round =
                |id: &BlockId| self.proposals.keys().rfind(|(_, other)| other == id).map(|(round, _)| *round);
            let spare = self.held.keys().filter(|id| !protected.contains(id));
            let oldest = spare.min_by_key(|id| last_round(id)).copied().ok_or(Refusal::Full)?;
            self.held.remove(&oldest);
            self.proposals.retain(|(_, other), _| *other != oldest);
        }
        self.held.insert(id, Held { bytes, verdict });
        self.forget_met_wants();
        Ok(())
    }

    /// Forgets the proposals, not the blocks, of rounds before `round`.
    pub(super) fn forget_rounds_before(&mut self, round: Round) {
        self.proposals.retain(|(other, _), _| *other >= round);
        self.wants.retain(|(other, _), _| *other >= round);
    }

    /// Notes that `voter` voted for a block: it has the proposal.
    pub(super) fn want(&mut self, now: Instant, round: Round, id: BlockId, voter: u16) {
        if self.proposal(round, id).is_some() {
            return;
        }
        let lowest = self.wants.keys().next().copied();
        match self.wants.get_mut(&(round, id)) {
            Some(want) if want.sources.len() < MAX_SOURCES && !want.sources.contains(&voter) => {
                want.sources.push(voter);
            }
            Some(_) => {}
            None => {
                if self.wants.len() >= MAX_WANTS {
                    let Some(lowest) = lowest.filter(|lowest| *lowest < (round, id)) else { return };
                    self.wants.remove(&lowest);
                }
                self.wants.insert((round, id), Want { ask_at: now + PULL_AFTER, sources: vec![voter] });
            }
        }
    }

    /// Returns when the next proposal is to be asked for.
    pub(super) fn next_pull(&self) -> Option<Instant> {
        self.wants.values().map(|want| want.ask_at).min()
    }

    /// Takes one question that is due: which proposal, and of whom. Voters are asked in turn.
    pub(super) fn take_pull(&mut self, now: Instant) -> Option<(Round, BlockId, u16)> {
        let (&(round, id), want) = self.wants.iter_mut().find(|(_, want)| want.ask_at <= now)?;
        want.ask_at = now + PULL_AGAIN;
        want.sources.rotate_left(1);
        let source = *want.sources.last()?;
        Some((round, id, source))
    }

    fn forget_met_wants(&mut self) {
        let (held, proposals) = (&self.held, &self.proposals);
        self.wants.retain(|(round, id), _| !(proposals.contains_key(&(*round, *id)) && held.contains_key(id)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::Height;
    use super::*;
    use crate::crypto::hash::Digest;
    use crate::crypto::identity::Signature;

    fn id(byte: u8) -> BlockId {
        BlockId(Digest([byte; 32]))
    }

    fn proposal(round: u32, block: u8) -> SignedProposal {
        SignedProposal {
            height: Height(1),
            round: Round(round),
            pol_round: None,
            block: id(block),
            proposer: 0,
            signature: Signature([0; 64]),
        }
    }

    fn put(blocks: &mut Blocks, round: u32, block: u8, protected: &[BlockId]) -> Result<(), Refusal> {
        blocks.note_proposal(proposal(round, block));
        blocks.hold(id(block), Arc::from([block]), None, protected)
    }

    #[test]
    fn the_block_proposed_longest_ago_goes_unless_it_may_be_decided() {
        let mut blocks = Blocks::default();
        for block in 0..16 {
            put(&mut blocks, u32::from(block), block, &[]).unwrap();
        }
        put(&mut blocks, 16, 16, &[id(0)]).unwrap();
        assert!(blocks.find(&id(0)).is_some() && blocks.find(&id(1)).is_none() && blocks.find(&id(16)).is_some());
        let all: Vec<_> = (0..=16).map(id).collect();
        assert_eq!(put(&mut blocks, 17, 17, &all), Err(Refusal::Full));
    }

    #[test]
    fn a_round_has_two_blocks_at_most() {
        let mut blocks = Blocks::default();
        put(&mut blocks, 0, 1, &[]).unwrap();
        assert!(!blocks.is_round_full(Round(0), id(2)));
        put(&mut blocks, 0, 2, &[]).unwrap();
        assert!(blocks.is_round_full(Round(0), id(3)) && !blocks.is_round_full(Round(0), id(2)));
        assert!(!blocks.is_round_full(Round(1), id(3)));
    }

    #[test]
    fn a_missing_proposal_is_asked_of_one_voter_after_the_other_until_it_comes() {
        let mut blocks = Blocks::default();
        let at = |millis: u64| Instant::from_micros(millis * 1000);
        blocks.want(at(0), Round(0), id(1), 2);
        blocks.want(at(5), Round(0), id(1), 3);
        assert_eq!(blocks.take_pull(at(199)), None);
        assert_eq!(blocks.take_pull(at(200)), Some((Round(0), id(1), 2)));
        assert_eq!(blocks.take_pull(at(200)), None);
        assert_eq!(blocks.take_pull(at(500)), Some((Round(0), id(1), 3)));
        put(&mut blocks, 0, 1, &[]).unwrap();
        assert_eq!(blocks.next_pull(), None);
        blocks.want(at(600), Round(0), id(1), 1);
        assert_eq!(blocks.next_pull(), None);
    }

    #[test]
    fn votes_for_blocks_that_nobody_has_fill_a_bounded_table() {
        let mut blocks = Blocks::default();
        for block in 0..100 {
            blocks.want(Instant::ZERO, Round(u32::from(block)), id(block), 0);
        }
        assert_eq!(blocks.wants.len(), MAX_WANTS);
        assert_eq!(blocks.wants.keys().next(), Some(&(Round(92), id(92))));
    }
}
