//! Ed25519: who signs. A node is its identity key.
//!
//! Verification is strict (no small-order keys, canonical encodings): two honest nodes never disagree about a signature.

use super::hash::write_hex;
use borsh::{BorshDeserialize, BorshSerialize};
use ed25519_dalek::Signer;
use std::fmt;
use std::str::FromStr;

/// A node's identity: its Ed25519 public key, 32 bytes; 64 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct NodeId(pub [u8; 32]);

/// An Ed25519 public key of any kind of signer (identity, node key, validator, credential, recovery).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct VerifyingKey(pub [u8; 32]);

/// An Ed25519 signature, 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Signature(pub [u8; 64]);

/// A signature that does not belong to this key and message, or a key that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not valid for this key and message")]
pub struct BadSignature;

/// Text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node id is 64 hexadecimal digits")]
pub struct NotANodeId;

impl NodeId {
    /// Returns the key that verifies this identity's signatures.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0)
    }
}

impl VerifyingKey {
    /// Checks `signature` over `message`, strictly (RFC 8032 §5.1.7 and no small-order component).
    ///
    /// # Errors
    /// [`BadSignature`] for a malformed key, a non-canonical or a false signature.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(message, &signature).map_err(|_| BadSignature)
    }

    /// Says whether the bytes are a point of full order, so that a key that can never verify is refused when registered.
    pub fn is_usable(&self) -> bool {
        ed25519_dalek::VerifyingKey::from_bytes(&self.0).is_ok_and(|key| !key.is_weak())
    }
}

/// An Ed25519 secret key. Zeroized on drop; neither `Clone` nor `Debug`.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// Draws a fresh key from `rng`.
    pub fn generate(rng: &mut impl rand_core::CryptoRng) -> Self {
        Self(ed25519_dalek::SigningKey::generate(rng))
    }

    /// Restores a key from its 32-byte seed (RFC 8032 §5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// Lends the 32-byte seed, for the key file.
    pub fn seed(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Returns the public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key().to_bytes())
    }

    /// Returns the public half as a node's identity.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.verifying_key().0)
    }

    /// Signs `message`, which starts with or is hashed under a domain string.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// The first eight digits: enough for a log line.
impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0[..4])
    }
}

impl FromStr for NodeId {
    type Err = NotANodeId;

    fn from_str(text: &str) -> Result<Self, NotANodeId> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotANodeId);
        }
        let mut id = [0; 32];
        for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| NotANodeId)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotANodeId)?;
        }
        Ok(Self(id))
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0[..4])
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0[..4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_survives_text() {
        let id = SigningKey::from_seed(&[7; 32]).node_id();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("7f".parse::<NodeId>(), Err(NotANodeId));
        assert_eq!("+f".repeat(32).parse::<NodeId>(), Err(NotANodeId));
    }

    #[test]
    fn another_message_or_key_does_not_verify() {
        let key = SigningKey::from_seed(&[1; 32]);
        let signature = key.sign(b"message");
        assert_eq!(key.verifying_key().verify(b"message", &signature), Ok(()));
        assert_eq!(key.verifying_key().verify(b"massage", &signature), Err(BadSignature));
        let other = SigningKey::from_seed(&[2; 32]).verifying_key();
        assert_eq!(other.verify(b"message", &signature), Err(BadSignature));
    }

    #[test]
    fn a_small_order_key_is_unusable() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert!(!VerifyingKey(neutral).is_usable());
        assert!(SigningKey::from_seed(&[3; 32]).verifying_key().is_usable());
    }
}
