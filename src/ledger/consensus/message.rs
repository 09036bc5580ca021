//! What validators send each other: borsh, bounded, one spelling per message.

use super::MAX_BLOCK_LEN;
use super::certificate::{BlockId, CommitSignature, Height, Round, VoteKind, vote_bytes};
use super::validators::MAX_VALIDATORS;
use crate::crypto::hash::Digest;
use crate::crypto::identity::Signature;
use borsh::{BorshDeserialize, BorshSerialize};

/// The longest message: a proposal with the largest block.
pub const MAX_MESSAGE_LEN: usize = MAX_BLOCK_LEN + 1024;
/// The highest round: 10 months of the longest timeouts. Bounds arithmetic on rounds.
pub const MAX_ROUND: Round = Round(1 << 20);

/// A vote with its signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SignedVote {
    /// The height.
    pub height: Height,
    /// The round.
    pub round: Round,
    /// Which of the two.
    pub kind: VoteKind,
    /// For what; nil when absent.
    pub block: Option<BlockId>,
    /// The voter's place in the set of the height.
    pub validator: u16,
    /// Over [`vote_bytes`].
    pub signature: Signature,
}

impl SignedVote {
    /// Returns what the signature covers.
    pub fn signed_bytes(&self, chain: &Digest) -> Vec<u8> {
        vote_bytes(chain, self.height, self.round, self.kind, self.block)
    }
}

/// A proposal with its signature; the block's bytes travel beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SignedProposal {
    /// The height.
    pub height: Height,
    /// The round.
    pub round: Round,
    /// The earlier round in which the block had two thirds of the prevotes (`validRound`, paper L16); absent for a new block.
    pub pol_round: Option<Round>,
    /// The block.
    pub block: BlockId,
    /// The proposer's place in the set of the height.
    pub proposer: u16,
    /// Over [`SignedProposal::signed_bytes`].
    pub signature: Signature,
}

impl SignedProposal {
    /// Returns what the signature covers:
    /// `"p2plus/proposal/1" | chain 32 | height u64 LE | round i64 LE | pol round i64 LE, −1 if absent | block id 32`.
    pub fn signed_bytes(&self, chain: &Digest) -> Vec<u8> {
        let mut bytes = b"p2plus/proposal/1".to_vec();
        bytes.extend_from_slice(&chain.0);
        bytes.extend_from_slice(&self.height.0.to_le_bytes());
        bytes.extend_from_slice(&i64::from(self.round.0).to_le_bytes());
        bytes.extend_from_slice(&self.pol_round.map_or(-1, |round| i64::from(round.0)).to_le_bytes());
        bytes.extend_from_slice(&self.block.0.0);
        bytes
    }
}

/// Prevotes of more than two thirds for one block.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct PolkaCertificate {
    /// The height.
    pub height: Height,
    /// The round.
    pub round: Round,
    /// The block.
    pub block: BlockId,
    /// The prevotes.
    pub signatures: Vec<CommitSignature>,
}

/// What justifies a new round.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum RoundProof {
    /// Votes of more than one third in the round to enter (paper L55).
    Skip,
    /// Precommits of more than two thirds in the round to leave (paper L47).
    Precommits,
}

/// One vote inside a [`RoundCertificate`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct RoundVote {
    /// Which of the two.
    pub kind: VoteKind,
    /// For what; nil when absent.
    pub block: Option<BlockId>,
    /// The voter's place.
    pub validator: u16,
    /// Over [`vote_bytes`].
    pub signature: Signature,
}

/// Votes of one round that justify entering a round.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct RoundCertificate {
    /// The height.
    pub height: Height,
    /// The round of the votes.
    pub round: Round,
    /// What they justify.
    pub proof: RoundProof,
    /// The votes.
    pub votes: Vec<RoundVote>,
}

impl PolkaCertificate {
    /// Takes it apart.
    pub(super) fn into_votes(self) -> Vec<SignedVote> {
        let (height, round, kind, block) = (self.height, self.round, VoteKind::Prevote, Some(self.block));
        let vote =
            |CommitSignature { validator, signature }| SignedVote { height, round, kind, block, validator, signature };
        self.signatures.into_iter().map(vote).collect()
    }
}

impl RoundCertificate {
    /// Takes it apart.
    pub(super) fn into_votes(self) -> Vec<SignedVote> {
        let (height, round) = (self.height, self.round);
        let vote = |vote: RoundVote| SignedVote {
            height,
            round,
            kind: vote.kind,
            block: vote.block,
            validator: vote.validator,
            signature: vote.signature,
        };
        self.votes.into_iter().map(vote).collect()
    }
}

/// Where a validator stands within a round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
pub enum Step {
    /// The height is not open.
    Waiting,
    /// Waits for the proposal.
    Propose,
    /// Has prevoted.
    Prevote,
    /// Has precommitted.
    Precommit,
    /// Has decided.
    Commit,
}

/// What one validator tells another.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// A vote.
    Vote(SignedVote),
    /// A proposal with its block.
    Proposal(SignedProposal, Vec<u8>),
    /// Why a block of an earlier round may be voted for.
    Polka(PolkaCertificate),
    /// Why a new round began.
    Round(RoundCertificate),
    /// Asks for a proposal that somebody voted for: the engine never repeats proposals by itself.
    GetProposal {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// The block.
        block: BlockId,
    },
    /// Where the sender stands, about once a second while a height is open.
    Status {
        /// The lowest height that the sender has not decided.
        height: Height,
        /// Its round.
        round: Round,
        /// Its step.
        step: Step,
    },
    /// A validator that has just started asks which of its own votes others know.
    GetLastVote {
        /// The height that the asker wants to vote at.
        height: Height,
    },
    /// The answer: the latest vote of the asker that the sender has seen.
    LastVote(Option<SignedVote>),
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Longer than [`MAX_MESSAGE_LEN`].
    #[error("the message is longer than {MAX_MESSAGE_LEN} bytes")]
    TooLong,
    /// Not the encoding of a message.
    #[error("the bytes are no message")]
    Undecodable,
    /// A block longer than [`MAX_BLOCK_LEN`].
    #[error("the block is longer than {MAX_BLOCK_LEN} bytes")]
    BlockTooLong,
    /// More signatures than there can be votes.
    #[error("the message has more signatures than there can be votes")]
    TooManySignatures,
    /// A round above [`MAX_ROUND`].
    #[error("the round is out of range")]
    RoundTooHigh,
}

impl Message {
    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Reads it; a message has one spelling, because borsh has one per value and trailing bytes are refused.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_MESSAGE_LEN {
            return Err(Malformed::TooLong);
        }
        let message: Self = borsh::from_slice(bytes).map_err(|_| Malformed::Undecodable)?;
        message.check().map(|()| message)
    }

    fn check(&self) -> Result<(), Malformed> {
        let (highest_round, signature_count) = match self {
            Self::Vote(vote) | Self::LastVote(Some(vote)) => (vote.round, 1),
            Self::Proposal(proposal, block) => {
                if block.len() > MAX_BLOCK_LEN {
                    return Err(Malformed::BlockTooLong);
                }
                (proposal.round.max(proposal.pol_round.unwrap_or_default()), 1)
            }
            Self::Polka(certificate) => (certificate.round, certificate.signatures.len()),
            Self::Round(certificate) => (certificate.round, certificate.votes.len()),
            Self::GetProposal { round, .. } | Self::Status { round, .. } => (*round, 0),
            Self::GetLastVote { .. } | Self::LastVote(None) => (Round(0), 0),
        };
        if highest_round > MAX_ROUND {
            return Err(Malformed::RoundTooHigh);
        }
        if signature_count > MAX_VALIDATORS {
            return Err(Malformed::TooManySignatures);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(round: u32) -> SignedVote {
        SignedVote {
            height: Height(4),
            round: Round(round),
            kind: VoteKind::Prevote,
            block: Some(BlockId(Digest([3; 32]))),
            validator: 2,
            signature: Signature([5; 64]),
        }
    }

    fn proposal(round: u32, pol_round: Option<u32>) -> SignedProposal {
        SignedProposal {
            height: Height(4),
            round: Round(round),
            pol_round: pol_round.map(Round),
            block: BlockId(Digest([3; 32])),
            proposer: 1,
            signature: Signature([5; 64]),
        }
    }

    fn samples() -> Vec<Message> {
        let signature = CommitSignature { validator: 1, signature: Signature([6; 64]) };
        let round_vote =
            RoundVote { kind: VoteKind::Precommit, block: None, validator: 1, signature: Signature([6; 64]) };
        let (height, round, block) = (Height(4), Round(1), BlockId(Digest([3; 32])));
        vec![
            Message::Vote(vote(1)),
            Message::Proposal(proposal(1, Some(0)), vec![1, 2, 3]),
            Message::Polka(PolkaCertificate { height, round, block, signatures: vec![signature; 3] }),
            Message::Round(RoundCertificate { height, round, proof: RoundProof::Skip, votes: vec![round_vote; 3] }),
            Message::GetProposal { height, round, block },
            Message::Status { height, round, step: Step::Prevote },
            Message::GetLastVote { height },
            Message::LastVote(Some(vote(1))),
            Message::LastVote(None),
        ]
    }

    #[test]
    fn every_message_survives_its_encoding_and_no_truncation_does() {
        for message in samples() {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Ok(message));
            for len in 0..bytes.len() {
                assert_eq!(Message::decode(&bytes[..len]), Err(Malformed::Undecodable));
            }
            assert_eq!(Message::decode(&[bytes, vec![0]].concat()), Err(Malformed::Undecodable));
        }
    }

    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes() {
        for message in samples() {
            let bytes = message.encode();
            for place in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[place / 8] ^= 1 << (place % 8);
                if let Ok(message) = Message::decode(&flipped) {
                    assert_eq!(message.encode(), flipped);
                }
            }
        }
    }

    #[test]
    fn limits_are_kept() {
        let decode = |message: Message| Message::decode(&message.encode());
        assert_eq!(decode(Message::Vote(vote(MAX_ROUND.0 + 1))), Err(Malformed::RoundTooHigh));
        assert_eq!(decode(Message::Proposal(proposal(0, Some(u32::MAX)), Vec::new())), Err(Malformed::RoundTooHigh));
        let long = Message::Proposal(proposal(0, None), vec![0; MAX_BLOCK_LEN + 1]);
        assert_eq!(decode(long), Err(Malformed::BlockTooLong));
        assert_eq!(Message::decode(&vec![0; MAX_MESSAGE_LEN + 1]), Err(Malformed::TooLong));
        let signature = CommitSignature { validator: 1, signature: Signature([6; 64]) };
        let (height, round, block) = (Height(4), Round(1), BlockId(Digest([3; 32])));
        let polka = PolkaCertificate { height, round, block, signatures: vec![signature; MAX_VALIDATORS + 1] };
        assert_eq!(decode(Message::Polka(polka)), Err(Malformed::TooManySignatures));
    }
}
