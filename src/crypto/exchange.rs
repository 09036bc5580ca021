//! Key agreement: X25519 (RFC 7748) and ML-KEM-768 (FIPS 203), both with the randomness as an argument.

use super::effort::{Work, spend};
use super::hash::write_hex;
use super::secret::Secret;
use borsh::{BorshDeserialize, BorshSerialize};
use ml_kem::array::Array;
use ml_kem::kem::{Decapsulate, Encapsulate, KeyExport};
use ml_kem::{DecapsulationKey768, EncapsulationKey768};
use rand_core::CryptoRng;
use std::fmt;

/// Bytes of an ML-KEM-768 encapsulation key (FIPS 203, table 3).
pub const KEM_KEY_LEN: usize = 1184;
/// Bytes of an ML-KEM-768 ciphertext (FIPS 203, table 3).
pub const KEM_CIPHERTEXT_LEN: usize = 1088;

/// An X25519 public key: a node's transport key, or an ephemeral one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct TransportKey(pub [u8; 32]);

impl fmt::Display for TransportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for TransportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0[..4])
    }
}

/// The other side's key gives no usable shared secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// X25519 came out all zero: a key of small order (RFC 7748 §6.1).
    #[error("the public key has small order")]
    SmallOrder,
    /// The ML-KEM encapsulation key fails the modulus check (FIPS 203 §7.2).
    #[error("the encapsulation key is malformed")]
    MalformedKemKey,
}

/// An X25519 secret key, static or ephemeral, with its public half. Zeroized on drop; neither `Clone` nor `Debug`.
pub struct TransportSecret {
    secret: x25519_dalek::StaticSecret,
    /// Computed once: it is asked for with every datagram of a stranger, before anything may cost a multiplication.
    public: TransportKey,
}

impl TransportSecret {
    /// Draws a fresh key from `rng`.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self::new(x25519_dalek::StaticSecret::random_from_rng(rng))
    }

    /// Restores a key from its 32 bytes; clamping happens at use (RFC 7748 §5).
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self::new(bytes.into())
    }

    /// Lends the 32 bytes, for the key file.
    pub fn expose(&self) -> &[u8; 32] {
        self.secret.as_bytes()
    }

    /// Returns the public half, which was computed once.
    pub fn public_key(&self) -> TransportKey {
        self.public
    }

    /// Computes the shared secret with `remote`.
    ///
    /// # Errors
    /// [`ExchangeError::SmallOrder`] when the result is all zero.
    pub fn agree(&self, remote: &TransportKey) -> Result<Secret<32>, ExchangeError> {
        spend(Work::Multiplication);
        let shared = self.secret.diffie_hellman(&remote.0.into());
        if shared.was_contributory() { Ok(Secret::new(shared.to_bytes())) } else { Err(ExchangeError::SmallOrder) }
    }

    fn new(secret: x25519_dalek::StaticSecret) -> Self {
        spend(Work::Multiplication);
        let public = TransportKey(x25519_dalek::PublicKey::from(&secret).to_bytes());
        Self { secret, public }
    }
}

/// The receiving half of one ML-KEM-768 exchange, used once.
pub struct KemSecret(Box<DecapsulationKey768>);

impl KemSecret {
    /// Draws a fresh key pair from `rng` (FIPS 203, algorithm 19).
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let seed = Secret::<64>::random(rng);
        Self::from_seed(&seed)
    }

    /// Expands a 64-byte seed `d | z` (FIPS 203, algorithm 16).
    pub fn from_seed(seed: &Secret<64>) -> Self {
        spend(Work::KemOperation);
        Self(Box::new(DecapsulationKey768::from_seed(Array(*seed.expose()))))
    }

    /// Returns the encapsulation key, which goes to the other side.
    pub fn encapsulation_key(&self) -> [u8; KEM_KEY_LEN] {
        self.0.encapsulation_key().to_bytes().0
    }

    /// Opens a ciphertext. A false one gives a secret that nobody shares (implicit rejection), never an error.
    pub fn decapsulate(&self, ciphertext: &[u8; KEM_CIPHERTEXT_LEN]) -> Secret<32> {
        spend(Work::KemOperation);
        Secret::new(self.0.decapsulate(&Array(*ciphertext)).0)
    }
}

/// Makes a ciphertext and the secret inside it for the holder of `encapsulation_key` (FIPS 203, algorithm 20).
///
/// # Errors
/// [`ExchangeError::MalformedKemKey`] when the key has a coefficient out of range.
pub fn encapsulate(
    encapsulation_key: &[u8; KEM_KEY_LEN],
    rng: &mut impl CryptoRng,
) -> Result<([u8; KEM_CIPHERTEXT_LEN], Secret<32>), ExchangeError> {
    spend(Work::KemOperation);
    let key = EncapsulationKey768::new(&Array(*encapsulation_key)).map_err(|_| ExchangeError::MalformedKemKey)?;
    let (ciphertext, shared) = key.encapsulate_with_rng(rng);
    Ok((ciphertext.0, Secret::new(shared.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn both_sides_agree() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (left, right) = (TransportSecret::generate(&mut rng), TransportSecret::generate(&mut rng));
        let shared = left.agree(&right.public_key()).unwrap();
        assert!(shared == right.agree(&left.public_key()).unwrap());
    }

    #[test]
    fn a_small_order_key_is_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let secret = TransportSecret::generate(&mut rng);
        assert_eq!(secret.agree(&TransportKey([0; 32])).err(), Some(ExchangeError::SmallOrder));
    }

    #[test]
    fn a_kem_secret_arrives_and_an_altered_ciphertext_does_not() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let secret = KemSecret::generate(&mut rng);
        let (mut ciphertext, shared) = encapsulate(&secret.encapsulation_key(), &mut rng).unwrap();
        assert!(secret.decapsulate(&ciphertext) == shared);
        ciphertext[0] ^= 1;
        assert!(secret.decapsulate(&ciphertext) != shared);
        assert_eq!(encapsulate(&[0xff; KEM_KEY_LEN], &mut rng).err(), Some(ExchangeError::MalformedKemKey));
    }
}
