//! Bytes that must not leak: zeroized on drop, compared in constant time, never printed, never copied by accident.

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes. Neither `Clone` nor `Debug`; [`Secret::duplicate`] is the one visible way to a copy.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Takes `bytes` over; the caller zeroizes its own copy, if it keeps one.
    pub fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// Draws a fresh secret from `rng`.
    pub fn random(rng: &mut impl rand_core::CryptoRng) -> Self {
        let mut secret = Self([0; N]);
        rng.fill_bytes(&mut secret.0);
        secret
    }

    /// Lends the bytes.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Makes a second copy, which zeroizes itself as well.
    pub fn duplicate(&self) -> Self {
        Self(self.0)
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl<const N: usize> Eq for Secret<N> {}

/// Compares two byte strings in time that depends only on their lengths.
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    fn wipes_itself<T: ZeroizeOnDrop>() {}

    /// Each crate says so only with its feature `zeroize`: without it this does not compile.
    #[test]
    fn whatever_holds_a_key_wipes_it_at_the_end() {
        wipes_itself::<super::Secret<32>>();
        wipes_itself::<x25519_dalek::StaticSecret>();
        wipes_itself::<x25519_dalek::SharedSecret>();
        wipes_itself::<ml_kem::DecapsulationKey768>();
        wipes_itself::<ed25519_dalek::SigningKey>();
        wipes_itself::<blake2::Blake2sMac<blake2::digest::consts::U16>>();
        wipes_itself::<blake2::Blake2sMac<blake2::digest::consts::U32>>();
        wipes_itself::<chacha20poly1305::ChaCha20Poly1305>();
        wipes_itself::<chacha20poly1305::XChaCha20Poly1305>();
        wipes_itself::<aes_gcm::Aes256Gcm>();
    }
}
