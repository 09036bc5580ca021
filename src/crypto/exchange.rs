//! Key agreement: X25519 (RFC 7748) and ML-KEM-768 (FIPS 203), both with the randomness as an argument.
//!
//! X25519 is that of aws-lc-rs, which is twice as fast as the pure-Rust crate; that one serves targets without a C compiler.

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
///
/// With aws-lc-rs there is a second copy, expanded in the library's own memory, which the library wipes when it frees it.
pub struct TransportSecret {
    secret: Secret<32>,
    key: x25519::Key,
    /// Computed once: it is asked for with every datagram of a stranger, before anything may cost a multiplication.
    public: TransportKey,
}

impl TransportSecret {
    /// Draws a fresh key from `rng`.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self::new(Secret::random(rng))
    }

    /// Restores a key from its 32 bytes; clamping happens at use (RFC 7748 §5).
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self::new(Secret::new(bytes))
    }

    /// Lends the 32 bytes, for the key file.
    pub fn expose(&self) -> &[u8; 32] {
        self.secret.expose()
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
        self.key.agree(&remote.0).ok_or(ExchangeError::SmallOrder)
    }

    fn new(secret: Secret<32>) -> Self {
        spend(Work::Multiplication);
        let (key, public) = x25519::Key::new(&secret);
        Self { secret, key, public: TransportKey(public) }
    }
}

#[cfg(feature = "aws-lc")]
mod x25519 {
    use super::Secret;
    use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};

    pub(super) struct Key(PrivateKey);

    impl Key {
        /// Returns the public half, too.
        pub(super) fn new(secret: &Secret<32>) -> (Self, [u8; 32]) {
            let key = PrivateKey::from_private_key(&X25519, secret.expose()).expect("any 32 bytes are a key");
            let public = key.compute_public_key().expect("the library computed it with the key");
            let public = public.as_ref().try_into().expect("a public key has 32 bytes");
            (Self(key), public)
        }

        /// None when the result is all zero: the library's only refusal of 32 bytes.
        pub(super) fn agree(&self, remote: &[u8; 32]) -> Option<Secret<32>> {
            let remote = UnparsedPublicKey::new(&X25519, remote);
            agree(&self.0, remote, (), |shared| shared.try_into().map(Secret::new).map_err(drop)).ok()
        }
    }
}

#[cfg(not(feature = "aws-lc"))]
mod x25519 {
    use super::Secret;
    use x25519_dalek::{PublicKey, StaticSecret};

    pub(super) struct Key(StaticSecret);

    impl Key {
        /// Returns the public half, too.
        pub(super) fn new(secret: &Secret<32>) -> (Self, [u8; 32]) {
            let key = StaticSecret::from(*secret.expose());
            let public = PublicKey::from(&key).to_bytes();
            (Self(key), public)
        }

        /// None when the result is all zero.
        pub(super) fn agree(&self, remote: &[u8; 32]) -> Option<Secret<32>> {
            let shared = self.0.diffie_hellman(&(*remote).into());
            shared.was_contributory().then(|| Secret::new(shared.to_bytes()))
        }
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
    fn whichever_library_computes_it_is_the_same() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        for _ in 0..20 {
            let secret = TransportSecret::generate(&mut rng);
            let remote = TransportKey(*Secret::<32>::random(&mut rng).expose());
            let other = x25519_dalek::StaticSecret::from(*secret.expose());
            assert_eq!(secret.public_key().0, x25519_dalek::PublicKey::from(&other).to_bytes());
            let shared = other.diffie_hellman(&remote.0.into());
            assert_eq!(secret.agree(&remote).unwrap().expose(), shared.as_bytes());
        }
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
