//! The engine's view of our types. It sees names of blocks, never their bytes, and no secret key.

use super::certificate::{BlockId, Certificate, CommitSignature, Height, Round, VoteKind};
use super::message::{PolkaCertificate, RoundCertificate, RoundProof, RoundVote, SignedProposal, SignedVote};
use super::validators::ValidatorSet;
use crate::crypto::identity::{Signature, VerifyingKey};
use arc_malachitebft_core_types as engine;
use engine::NilOrVal;
use std::fmt;
use std::sync::Arc;

/// Ties the types together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Context;

/// A validator's place in the set: the shortest name that a certificate can use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place(pub(super) u16);

/// The place of a node that is no validator.
pub(super) const NOWHERE: Place = Place(u16::MAX);

/// A proposal of a block by name; its bytes travel beside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Proposal {
    height: Height,
    round: engine::Round,
    block: BlockId,
    pol_round: engine::Round,
    proposer: Place,
}

/// A vote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Vote {
    height: Height,
    round: engine::Round,
    kind: engine::VoteType,
    block: NilOrVal<BlockId>,
    voter: Place,
}

/// One validator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Voter {
    place: Place,
    key: VerifyingKey,
    power: u64,
}

/// The validators of a height, with the order in which they propose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Voters {
    voters: Arc<[Voter]>,
    proposers: Arc<[u16]>,
}

impl Voters {
    /// Takes the set and the order; the caller has checked that the order is a permutation of the set's places.
    pub(super) fn new(set: &ValidatorSet, proposers: &[u16]) -> Self {
        let voter = |(place, validator): (u16, &super::Validator)| Voter {
            place: Place(place),
            key: validator.key,
            power: validator.power,
        };
        let voters = (0..=u16::MAX).zip(set.as_slice()).map(voter).collect();
        Self { voters, proposers: proposers.into() }
    }

    /// Returns the place of the proposer of a round.
    pub(super) fn proposer(&self, round: Round) -> u16 {
        self.proposers[round.0 as usize % self.proposers.len()]
    }
}

impl engine::Context for Context {
    type Address = Place;
    type Height = Height;
    type ProposalPart = NoPart;
    type Proposal = Proposal;
    type Validator = Voter;
    type ValidatorSet = Voters;
    type Timeouts = engine::LinearTimeouts;
    type Value = BlockId;
    type Vote = Vote;
    type Extension = ();
    type SigningScheme = Ed25519;

    fn select_proposer<'a>(&self, set: &'a Voters, _height: Height, round: engine::Round) -> &'a Voter {
        &set.voters[usize::from(set.proposer(from_round(round)))]
    }

    fn new_proposal(
        &self,
        height: Height,
        round: engine::Round,
        block: BlockId,
        pol_round: engine::Round,
        proposer: Place,
    ) -> Proposal {
        Proposal { height, round, block, pol_round, proposer }
    }

    fn new_prevote(&self, height: Height, round: engine::Round, block: NilOrVal<BlockId>, voter: Place) -> Vote {
        Vote { height, round, kind: engine::VoteType::Prevote, block, voter }
    }

    fn new_precommit(&self, height: Height, round: engine::Round, block: NilOrVal<BlockId>, voter: Place) -> Vote {
        Vote { height, round, kind: engine::VoteType::Precommit, block, voter }
    }
}

impl engine::Height for Height {
    const ZERO: Self = Self(0);
    const INITIAL: Self = Self(1);

    fn increment_by(&self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(n).map(Self)
    }

    fn as_u64(&self) -> u64 {
        self.0
    }
}

impl engine::Address for Place {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl engine::Value for BlockId {
    type Id = Self;

    fn id(&self) -> Self {
        *self
    }
}

impl engine::Proposal<Context> for Proposal {
    fn height(&self) -> Height {
        self.height
    }
    fn round(&self) -> engine::Round {
        self.round
    }
    fn value(&self) -> &BlockId {
        &self.block
    }
    fn take_value(self) -> BlockId {
        self.block
    }
    fn pol_round(&self) -> engine::Round {
        self.pol_round
    }
    fn validator_address(&self) -> &Place {
        &self.proposer
    }
}

impl engine::Vote<Context> for Vote {
    fn height(&self) -> Height {
        self.height
    }
    fn round(&self) -> engine::Round {
        self.round
    }
    fn value(&self) -> &NilOrVal<BlockId> {
        &self.block
    }
    fn take_value(self) -> NilOrVal<BlockId> {
        self.block
    }
    fn vote_type(&self) -> engine::VoteType {
        self.kind
    }
    fn validator_address(&self) -> &Place {
        &self.voter
    }
    // Vote extensions are disabled at every height, so a vote never carries one.
    fn extension(&self) -> Option<&engine::SignedExtension<Context>> {
        None
    }
    fn take_extension(&mut self) -> Option<engine::SignedExtension<Context>> {
        None
    }
    fn extend(self, _extension: engine::SignedExtension<Context>) -> Self {
        self
    }
}

impl engine::Validator<Context> for Voter {
    fn address(&self) -> &Place {
        &self.place
    }
    fn public_key(&self) -> &VerifyingKey {
        &self.key
    }
    fn voting_power(&self) -> u64 {
        self.power
    }
}

impl engine::ValidatorSet<Context> for Voters {
    fn count(&self) -> usize {
        self.voters.len()
    }
    fn total_voting_power(&self) -> u64 {
        self.voters.iter().map(|voter| voter.power).sum()
    }
    fn get_by_address(&self, place: &Place) -> Option<&Voter> {
        self.voters.get(usize::from(place.0))
    }
    fn get_by_index(&self, index: usize) -> Option<&Voter> {
        self.voters.get(index)
    }
}

/// Blocks are not streamed in parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NoPart;

impl engine::ProposalPart<Context> for NoPart {
    fn is_first(&self) -> bool {
        true
    }
    fn is_last(&self) -> bool {
        true
    }
}

/// The signature scheme by name; signing and verifying are effects that [`super::bft::Bft`] carries out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ed25519;

impl engine::SigningScheme for Ed25519 {
    type DecodingError = std::array::TryFromSliceError;
    type Signature = Signature;
    type PublicKey = VerifyingKey;
    /// The engine never holds a secret.
    type PrivateKey = ();

    fn decode_signature(bytes: &[u8]) -> Result<Signature, Self::DecodingError> {
        bytes.try_into().map(Signature)
    }
    fn encode_signature(signature: &Signature) -> Vec<u8> {
        signature.0.to_vec()
    }
    fn decode_public_key(bytes: &[u8]) -> Result<VerifyingKey, Self::DecodingError> {
        bytes.try_into().map(VerifyingKey)
    }
    fn encode_public_key(key: &VerifyingKey) -> Vec<u8> {
        key.0.to_vec()
    }
}

/// The engine's round; `None` is the round −1 of the paper.
pub(super) fn to_round(round: Option<Round>) -> engine::Round {
    round.map_or(engine::Round::Nil, |round| engine::Round::new(round.0))
}

/// Our round; the engine's −1, before the first, counts as 0.
pub(super) fn from_round(round: engine::Round) -> Round {
    Round(round.as_u32().unwrap_or(0))
}

/// A round that may be −1.
fn from_pol_round(round: engine::Round) -> Option<Round> {
    round.as_u32().map(Round)
}

fn to_kind(kind: VoteKind) -> engine::VoteType {
    match kind {
        VoteKind::Prevote => engine::VoteType::Prevote,
        VoteKind::Precommit => engine::VoteType::Precommit,
    }
}

fn from_kind(kind: engine::VoteType) -> VoteKind {
    match kind {
        engine::VoteType::Prevote => VoteKind::Prevote,
        engine::VoteType::Precommit => VoteKind::Precommit,
    }
}

fn to_value(block: Option<BlockId>) -> NilOrVal<BlockId> {
    block.map_or(NilOrVal::Nil, NilOrVal::Val)
}

fn from_value(value: &NilOrVal<BlockId>) -> Option<BlockId> {
    match value {
        NilOrVal::Nil => None,
        NilOrVal::Val(block) => Some(*block),
    }
}

impl From<SignedVote> for engine::SignedVote<Context> {
    fn from(vote: SignedVote) -> Self {
        let message = Vote {
            height: vote.height,
            round: to_round(Some(vote.round)),
            kind: to_kind(vote.kind),
            block: to_value(vote.block),
            voter: Place(vote.validator),
        };
        Self::new(message, vote.signature)
    }
}

impl SignedVote {
    /// Puts the engine's vote and its signature into one value.
    pub(super) fn from_engine(vote: &Vote, signature: Signature) -> Self {
        Self {
            height: vote.height,
            round: from_round(vote.round),
            kind: from_kind(vote.kind),
            block: from_value(&vote.block),
            validator: vote.voter.0,
            signature,
        }
    }
}

impl From<SignedProposal> for engine::SignedProposal<Context> {
    fn from(proposal: SignedProposal) -> Self {
        let message = Proposal {
            height: proposal.height,
            round: to_round(Some(proposal.round)),
            block: proposal.block,
            pol_round: to_round(proposal.pol_round),
            proposer: Place(proposal.proposer),
        };
        Self::new(message, proposal.signature)
    }
}

impl SignedProposal {
    /// Puts the engine's proposal and its signature into one value.
    pub(super) fn from_engine(proposal: &Proposal, signature: Signature) -> Self {
        Self {
            height: proposal.height,
            round: from_round(proposal.round),
            pol_round: from_pol_round(proposal.pol_round),
            block: proposal.block,
            proposer: proposal.proposer.0,
            signature,
        }
    }
}

impl Certificate {
    /// Puts the signatures into the order of the validators.
    pub(super) fn from_engine(certificate: engine::CommitCertificate<Context>) -> Self {
        let signature = |signature: engine::CommitSignature<Context>| CommitSignature {
            validator: signature.address.0,
            signature: signature.signature,
        };
        let mut signatures: Vec<_> = certificate.commit_signatures.into_iter().map(signature).collect();
        signatures.sort_by_key(|signature| signature.validator);
        let (height, round) = (certificate.height, from_round(certificate.round));
        Self { height, round, block: certificate.value_id, signatures }
    }
}

impl From<PolkaCertificate> for engine::PolkaCertificate<Context> {
    fn from(certificate: PolkaCertificate) -> Self {
        let signature = |signature: CommitSignature| engine::PolkaSignature {
            address: Place(signature.validator),
            signature: signature.signature,
        };
        Self {
            height: certificate.height,
            round: to_round(Some(certificate.round)),
            value_id: certificate.block,
            polka_signatures: certificate.signatures.into_iter().map(signature).collect(),
        }
    }
}

impl From<engine::PolkaCertificate<Context>> for PolkaCertificate {
    fn from(certificate: engine::PolkaCertificate<Context>) -> Self {
        let signature = |signature: engine::PolkaSignature<Context>| CommitSignature {
            validator: signature.address.0,
            signature: signature.signature,
        };
        Self {
            height: certificate.height,
            round: from_round(certificate.round),
            block: certificate.value_id,
            signatures: certificate.polka_signatures.into_iter().map(signature).collect(),
        }
    }
}

impl From<RoundCertificate> for engine::RoundCertificate<Context> {
    fn from(certificate: RoundCertificate) -> Self {
        let signature = |vote: RoundVote| engine::RoundSignature {
            vote_type: to_kind(vote.kind),
            value_id: to_value(vote.block),
            address: Place(vote.validator),
            signature: vote.signature,
        };
        let cert_type = match certificate.proof {
            RoundProof::Skip => engine::RoundCertificateType::Skip,
            RoundProof::Precommits => engine::RoundCertificateType::Precommit,
        };
        Self {
            height: certificate.height,
            round: to_round(Some(certificate.round)),
            cert_type,
            round_signatures: certificate.votes.into_iter().map(signature).collect(),
        }
    }
}

impl From<engine::RoundCertificate<Context>> for RoundCertificate {
    fn from(certificate: engine::RoundCertificate<Context>) -> Self {
        let vote = |signature: engine::RoundSignature<Context>| RoundVote {
            kind: from_kind(signature.vote_type),
            block: from_value(&signature.value_id),
            validator: signature.address.0,
            signature: signature.signature,
        };
        let proof = match certificate.cert_type {
            engine::RoundCertificateType::Skip => RoundProof::Skip,
            engine::RoundCertificateType::Precommit => RoundProof::Precommits,
        };
        Self {
            height: certificate.height,
            round: from_round(certificate.round),
            proof,
            votes: certificate.round_signatures.into_iter().map(vote).collect(),
        }
    }
}
