//! The last line before a signature: never two different ones for one step, never one below what was signed.
//!
//! Independent of the engine, which has guards of its own: a validator that contradicts itself can never take it back.

use super::certificate::{BlockId, Height, Round, VoteKind};
use super::message::{SignedProposal, SignedVote};

/// What can be signed in a round, in the order in which it happens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Act {
    Proposal,
    Prevote,
    Precommit,
}

/// A place in the course of signatures.
type Position = (Height, Round, Act);

/// What a signature commits to: the block, and for a proposal its reason.
type Subject = (Option<BlockId>, Option<Round>);

/// Remembers the latest signature.
#[derive(Default)]
pub(super) struct Guard {
    last: Option<(Position, Subject)>,
    /// No vote at or below: signatures may exist there that this guard does not know.
    floor: Option<Height>,
}

impl Guard {
    /// Returns the highest height at which something may have been signed.
    pub(super) fn max_height_signed(&self) -> Height {
        let last = self.last.map(|((height, ..), _)| height);
        last.max(self.floor).unwrap_or_default()
    }

    /// Forbids votes at `height` and below.
    pub(super) fn raise_floor(&mut self, height: Height) {
        self.floor = self.floor.max(Some(height));
    }

    /// Says whether this node may sign at a height at all.
    pub(super) fn may_sign_at(&self, height: Height) -> bool {
        let above_floor = self.floor.is_none_or(|floor| height > floor);
        let not_passed = self.last.is_none_or(|((last, ..), _)| height >= last);
        above_floor && not_passed
    }

    /// Asks to sign a vote; `true` is remembered.
    #[must_use]
    pub(super) fn permit_vote(&mut self, vote: &SignedVote) -> bool {
        self.permit(position(vote), (vote.block, None))
    }

    /// Asks to sign a proposal; `true` is remembered.
    #[must_use]
    pub(super) fn permit_proposal(&mut self, proposal: &SignedProposal) -> bool {
        let position = (proposal.height, proposal.round, Act::Proposal);
        self.permit(position, (Some(proposal.block), proposal.pol_round))
    }

    /// Says whether a vote signed by this very key is one that nobody here remembers: another life of this validator cast it.
    pub(super) fn is_unknown(&self, vote: &SignedVote) -> bool {
        self.last.is_none_or(|(last, _)| position(vote) > last)
    }

    fn permit(&mut self, position: Position, subject: Subject) -> bool {
        if !self.may_sign_at(position.0) {
            return false;
        }
        match self.last {
            Some((last, _)) if position < last => false,
            Some((last, signed)) if position == last => subject == signed,
            Some(_) | None => {
                self.last = Some((position, subject));
                true
            }
        }
    }
}

fn position(vote: &SignedVote) -> Position {
    let act = match vote.kind {
        VoteKind::Prevote => Act::Prevote,
        VoteKind::Precommit => Act::Precommit,
    };
    (vote.height, vote.round, act)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Digest;
    use crate::crypto::identity::Signature;

    fn vote(height: u64, round: u32, kind: VoteKind, block: u8) -> SignedVote {
        let block = (block > 0).then_some(BlockId(Digest([block; 32])));
        let signature = Signature([0; 64]);
        SignedVote { height: Height(height), round: Round(round), kind, block, validator: 0, signature }
    }

    #[test]
    fn a_step_is_signed_once_and_the_course_never_turns_back() {
        use VoteKind::{Precommit, Prevote};
        let mut guard = Guard::default();
        assert!(guard.permit_vote(&vote(5, 0, Prevote, 1)));
        assert!(guard.permit_vote(&vote(5, 0, Prevote, 1)), "the same again");
        assert!(!guard.permit_vote(&vote(5, 0, Prevote, 2)));
        assert!(guard.permit_vote(&vote(5, 0, Precommit, 1)));
        assert!(!guard.permit_vote(&vote(5, 0, Prevote, 1)));
        assert!(guard.permit_vote(&vote(5, 1, Prevote, 0)));
        assert!(!guard.permit_vote(&vote(4, 9, Precommit, 1)));
        assert_eq!(guard.max_height_signed(), Height(5));
    }

    #[test]
    fn nothing_is_signed_at_or_below_the_floor() {
        let mut guard = Guard::default();
        guard.raise_floor(Height(7));
        guard.raise_floor(Height(3));
        assert!(!guard.permit_vote(&vote(7, 3, VoteKind::Prevote, 1)));
        assert!(guard.permit_vote(&vote(8, 0, VoteKind::Prevote, 1)));
    }

    #[test]
    fn a_vote_of_another_life_is_recognized() {
        let mut guard = Guard::default();
        assert!(guard.is_unknown(&vote(1, 0, VoteKind::Prevote, 1)));
        assert!(guard.permit_vote(&vote(5, 0, VoteKind::Prevote, 1)));
        assert!(!guard.is_unknown(&vote(5, 0, VoteKind::Prevote, 1)));
        assert!(guard.is_unknown(&vote(5, 0, VoteKind::Precommit, 1)));
    }
}
