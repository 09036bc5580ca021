//! Proofs that a key has a value, or none, under a state root.

use super::{TreeHasher, key_hash};
use crate::crypto::hash::Digest;
use jmt::RootHash;
use jmt::proof::SparseMerkleProof;
use thiserror::Error;

/// The longest encoding that is read: 256 siblings of at most 65 bytes, the leaf and two length fields.
const MAX_PROOF_LEN: usize = 256 * 65 + 65 + 4;

/// Why a proof was refused. Each is a fault of whoever presented it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ProofError {
    /// The bytes are no proof.
    #[error("malformed proof")]
    Malformed,
    /// The proof does not show what is claimed.
    #[error("the proof does not lead to the state root")]
    Wrong,
}

/// The way from a leaf, or from the empty place of one, to the root.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof(SparseMerkleProof<TreeHasher>);

impl Proof {
    pub(super) fn new(proof: SparseMerkleProof<TreeHasher>) -> Self {
        Self(proof)
    }

    /// Checks that under `root` the key has `value`, or that it is absent where `value` is `None`.
    ///
    /// # Errors
    /// [`ProofError::Wrong`].
    pub fn verify(&self, root: Digest, key: &[u8], value: Option<&[u8]>) -> Result<(), ProofError> {
        self.0.verify(RootHash(root.0), key_hash(key), value).map_err(|_| ProofError::Wrong)
    }

    /// Encodes the proof (borsh): about 1.2 kB at 100,000 keys.
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(&self.0).expect("borsh writes to memory without error")
    }

    /// Decodes what [`Proof::encode`] made.
    ///
    /// # Errors
    /// [`ProofError::Malformed`], also for more than 256 siblings.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        if bytes.len() > MAX_PROOF_LEN {
            return Err(ProofError::Malformed);
        }
        borsh::from_slice(bytes).map(Self).map_err(|_| ProofError::Malformed)
    }
}
