//! ML-KEM-768: the implementation that takes its randomness as an argument against aws-lc-rs, which draws its own.
#![cfg(feature = "aws-lc")]

use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use p2plus::crypto::exchange::{KemSecret, encapsulate};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

#[test]
fn what_the_other_implementation_encapsulates_we_open() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for _ in 0..50 {
        let ours = KemSecret::generate(&mut rng);
        let theirs = EncapsulationKey::new(&ML_KEM_768, &ours.encapsulation_key()).unwrap();
        let (ciphertext, shared) = theirs.encapsulate().unwrap();
        let opened = ours.decapsulate(ciphertext.as_ref().try_into().unwrap());
        assert_eq!(opened.expose()[..], *shared.as_ref());
    }
}

#[test]
fn what_we_encapsulate_the_other_implementation_opens() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    for altered in [false, true].repeat(25) {
        let theirs = DecapsulationKey::generate(&ML_KEM_768).unwrap();
        let key = theirs.encapsulation_key().unwrap().key_bytes().unwrap();
        let (mut ciphertext, shared) = encapsulate(key.as_ref().try_into().unwrap(), &mut rng).unwrap();
        ciphertext[7] ^= u8::from(altered);
        let opened = theirs.decapsulate(Ciphertext::from(&ciphertext[..])).unwrap();
        assert_eq!(*opened.as_ref() == shared.expose()[..], !altered);
    }
}
