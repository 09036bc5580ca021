//! Certificates: the proof that validators with more than two thirds of the power committed one block, and nobody's word alone.

pub use super::block::{BlockId, Height, Round};

use super::validators::{MAX_VALIDATORS, ValidatorSet};
use crate::crypto::hash::Digest;
use crate::crypto::identity::{Signature, VerifyingKey};
use borsh::{BorshDeserialize, BorshSerialize};

/// Which of the two votes of a round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum VoteKind {
    /// The first vote.
    Prevote = 0,
    /// The second vote; a certificate is made of these.
    Precommit = 1,
}

/// Returns what a validator signs when it votes:
/// `"p2plus/vote/1" | chain 32 | height u64 LE | round i64 LE | kind u8 | 0, or 1 and the block id 32`.
pub fn vote_bytes(chain: &Digest, height: Height, round: Round, kind: VoteKind, block: Option<BlockId>) -> Vec<u8> {
    let mut bytes = b"p2plus/vote/1".to_vec();
    bytes.extend_from_slice(&chain.0);
    bytes.extend_from_slice(&height.0.to_le_bytes());
    bytes.extend_from_slice(&i64::from(round.0).to_le_bytes());
    bytes.push(kind as u8);
    match block {
        None => bytes.push(0),
        Some(BlockId(Digest(id))) => {
            bytes.push(1);
            bytes.extend_from_slice(&id);
        }
    }
    bytes
}

/// Returns what a validator signs when it precommits a block, or nil.
pub fn precommit_bytes(chain: &Digest, height: Height, round: Round, block: Option<BlockId>) -> Vec<u8> {
    vote_bytes(chain, height, round, VoteKind::Precommit, block)
}

/// One validator's precommit inside a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct CommitSignature {
    /// The validator's place in the set of the height.
    pub validator: u16,
    /// Over [`precommit_bytes`].
    pub signature: Signature,
}

/// The proof that one block was committed.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Certificate {
    /// The block's height.
    pub height: Height,
    /// The round in which it was committed.
    pub round: Round,
    /// The block.
    pub block: BlockId,
    /// The precommits, in the order of the validators.
    pub signatures: Vec<CommitSignature>,
}

/// A certificate that proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadCertificate {
    /// The signatures are out of order, twice, or more than there can be validators.
    #[error("the signatures are not in the order of the validators")]
    Order,
    /// A place that no validator has.
    #[error("there is no validator {0} at this height")]
    NoSuchValidator(u16),
    /// A false signature.
    #[error("the signature of validator {0} is not valid")]
    BadSignature(u16),
    /// Not more than two thirds of the power.
    #[error("validators with a power of {signed} of {total} signed, which is not more than two thirds")]
    NoQuorum {
        /// The power that signed.
        signed: u64,
        /// The power of all.
        total: u64,
    },
}

impl Certificate {
    /// Checks every signature, and that those who signed have more than two thirds of the power.
    ///
    /// # Errors
    /// [`BadCertificate`]; a single false signature spoils the whole.
    pub fn verify(&self, chain: &Digest, validators: &ValidatorSet) -> Result<(), BadCertificate> {
        let sorted = self.signatures.is_sorted_by(|left, right| left.validator < right.validator);
        if !sorted || self.signatures.len() > MAX_VALIDATORS {
            return Err(BadCertificate::Order);
        }
        let message = precommit_bytes(chain, self.height, self.round, Some(self.block));
        let mut signed = 0;
        for CommitSignature { validator: index, signature } in &self.signatures {
            let validator = validators.at(*index).ok_or(BadCertificate::NoSuchValidator(*index))?;
            validator.key.verify(&message, signature).map_err(|_| BadCertificate::BadSignature(*index))?;
            signed += validator.power;
        }
        if !validators.is_quorum(signed) {
            return Err(BadCertificate::NoQuorum { signed, total: validators.total_power() });
        }
        Ok(())
    }
}

/// One vote, as evidence quotes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct QuotedVote {
    /// What was voted for; nil when absent.
    pub block: Option<BlockId>,
    /// Over [`vote_bytes`].
    pub signature: Signature,
}

/// Two votes of one validator that exclude each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Evidence {
    /// Who voted twice.
    pub validator: VerifyingKey,
    /// At which height.
    pub height: Height,
    /// In which round.
    pub round: Round,
    /// With which vote.
    pub kind: VoteKind,
    /// One vote, for the lower value.
    pub first: QuotedVote,
    /// The other vote.
    pub second: QuotedVote,
}

impl Evidence {
    /// Says whether both votes are the validator's own and exclude each other.
    pub fn is_valid(&self, chain: &Digest) -> bool {
        let holds = |vote: &QuotedVote| {
            let message = vote_bytes(chain, self.height, self.round, self.kind, vote.block);
            self.validator.verify(&message, &vote.signature).is_ok()
        };
        self.first.block < self.second.block && holds(&self.first) && holds(&self.second)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::validators::tests::validator;
    use super::*;
    use crate::crypto::identity::SigningKey;

    const CHAIN: Digest = Digest([9; 32]);
    const BLOCK: BlockId = BlockId(Digest([7; 32]));

    /// A certificate signed by the validators with these seeds.
    pub(crate) fn certificate(
        chain: &Digest,
        height: Height,
        block: BlockId,
        set: &ValidatorSet,
        seeds: &[u8],
    ) -> Certificate {
        let message = precommit_bytes(chain, height, Round(0), Some(block));
        let mut signatures: Vec<_> = seeds
            .iter()
            .map(|seed| SigningKey::from_seed(&[*seed; 32]))
            .map(|key| CommitSignature {
                validator: set.index_of(&key.verifying_key()).unwrap(),
                signature: key.sign(&message),
            })
            .collect();
        signatures.sort_by_key(|signature| signature.validator);
        Certificate { height, round: Round(0), block, signatures }
    }

    fn four() -> ValidatorSet {
        ValidatorSet::new((1..=4).map(|seed| validator(seed, 1)).collect()).unwrap()
    }

    #[test]
    fn the_bytes_of_a_vote_are_these() {
        let bytes = vote_bytes(&CHAIN, Height(0x0102), Round(3), VoteKind::Precommit, Some(BLOCK));
        let expected = [
            b"p2plus/vote/1".as_slice(),
            &[9; 32],
            &[2, 1, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[1, 1],
            &[7; 32],
        ];
        assert_eq!(bytes, expected.concat());
        let nil = vote_bytes(&CHAIN, Height(0), Round(0), VoteKind::Prevote, None);
        assert_eq!(nil[45..], [0; 18]);
    }

    #[test]
    fn three_of_four_commit_and_two_do_not() {
        let set = four();
        let three = certificate(&CHAIN, Height(5), BLOCK, &set, &[1, 2, 4]);
        assert_eq!(three.verify(&CHAIN, &set), Ok(()));
        let two = certificate(&CHAIN, Height(5), BLOCK, &set, &[1, 2]);
        assert_eq!(two.verify(&CHAIN, &set), Err(BadCertificate::NoQuorum { signed: 2, total: 4 }));
    }

    #[test]
    fn one_validator_counts_once() {
        let set = four();
        let mut certificate = certificate(&CHAIN, Height(5), BLOCK, &set, &[1, 2]);
        certificate.signatures.push(certificate.signatures[1]);
        assert_eq!(certificate.verify(&CHAIN, &set), Err(BadCertificate::Order));
    }

    #[test]
    fn a_precommit_counts_for_its_chain_height_round_and_block_alone() {
        let set = four();
        let good = certificate(&CHAIN, Height(5), BLOCK, &set, &[1, 2, 3]);
        let index = good.signatures[0].validator;
        let false_ones = [
            Certificate { height: Height(6), ..good.clone() },
            Certificate { round: Round(1), ..good.clone() },
            Certificate { block: BlockId(Digest([8; 32])), ..good.clone() },
        ];
        for certificate in &false_ones {
            assert_eq!(certificate.verify(&CHAIN, &set), Err(BadCertificate::BadSignature(index)));
        }
        assert_eq!(good.verify(&Digest([8; 32]), &set), Err(BadCertificate::BadSignature(index)));
    }

    #[test]
    fn a_place_that_nobody_has_is_refused() {
        let set = four();
        let mut certificate = certificate(&CHAIN, Height(5), BLOCK, &set, &[1, 2, 3]);
        certificate.signatures[2].validator = 4;
        assert_eq!(certificate.verify(&CHAIN, &set), Err(BadCertificate::NoSuchValidator(4)));
    }

    #[test]
    fn evidence_needs_two_different_votes_of_one_key() {
        let key = SigningKey::from_seed(&[1; 32]);
        let vote = |block: Option<BlockId>| QuotedVote {
            block,
            signature: key.sign(&vote_bytes(&CHAIN, Height(3), Round(0), VoteKind::Precommit, block)),
        };
        let evidence = |first, second| Evidence {
            validator: key.verifying_key(),
            height: Height(3),
            round: Round(0),
            kind: VoteKind::Precommit,
            first,
            second,
        };
        assert!(evidence(vote(None), vote(Some(BLOCK))).is_valid(&CHAIN));
        assert!(!evidence(vote(Some(BLOCK)), vote(Some(BLOCK))).is_valid(&CHAIN));
        let forged = QuotedVote { block: Some(BLOCK), signature: vote(None).signature };
        assert!(!evidence(vote(None), forged).is_valid(&CHAIN));
    }
}
