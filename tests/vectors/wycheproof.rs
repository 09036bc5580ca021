//! Wycheproof's vectors against `crypto`. Where the project is stricter than "valid", the test says how often and why.

use crate::stream::Stream;
use ed25519_dalek::Verifier;
use p2plus::crypto::aead::{
    TAG_LEN, TransportAead, TransportCipher, open_chacha20_poly1305, open_cookie, seal_chacha20_poly1305, seal_cookie,
};
use p2plus::crypto::exchange::{ExchangeError, KemSecret, TransportKey, TransportSecret, encapsulate};
use p2plus::crypto::identity::{Signature, VerifyingKey};
use p2plus::crypto::secret::Secret;
use wycheproof_ng_aead::aead;
use wycheproof_ng_dh::xdh;

#[test]
fn x25519_agrees_and_refuses_every_all_zero_secret() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let (mut agreed, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let parse = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap();
        let secret = TransportSecret::from_bytes(parse(&test.private_key));
        match secret.agree(&TransportKey(parse(&test.public_key))) {
            Ok(shared) => {
                assert_eq!(shared.expose()[..], test.shared_secret[..], "case {}", test.tc_id);
                agreed += 1;
            }
            // Wycheproof calls these acceptable either way; the project refuses them (RFC 7748 §6.1).
            Err(ExchangeError::SmallOrder) => {
                assert!(test.flags.contains(&xdh::TestFlag::ZeroSharedSecret), "case {}", test.tc_id);
                refused += 1;
            }
            Err(other) => panic!("case {}: {other}", test.tc_id),
        }
    }
    assert_eq!((agreed, refused), (487, 31)); // all 31 of the set that give zero
}

#[test]
fn ed25519_verifies_what_is_valid_and_nothing_else() {
    // The set has no signature by a small-order key and no mixed-order point, where verify_strict refuses what RFC 8032 lets pass:
    // on these vectors strict and plain verification agree, case by case.
    let set = wycheproof_ng_eddsa::TestSet::load(wycheproof_ng_eddsa::TestName::Ed25519).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in &set.test_groups {
        let key = VerifyingKey(group.key.pk.as_slice().try_into().unwrap());
        assert!(key.is_usable());
        for test in &group.tests {
            let signature = test.sig.as_slice().try_into().ok().map(Signature);
            let verified = signature.is_some_and(|signature| key.verify(&test.msg, &signature).is_ok());
            assert_eq!(verified, !test.result.must_fail(), "case {}: {}", test.tc_id, test.comment);
            *(if verified { &mut valid } else { &mut invalid }) += 1;
        }
    }
    assert_eq!((valid, invalid), (88, 63));
}

#[test]
fn strict_verification_refuses_small_order_keys_that_plain_verification_accepts() {
    // The neutral point as key and R, and S = 0: [S]B = R + [k]A holds for every message.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&neutral);
    let plain = ed25519_dalek::VerifyingKey::from_bytes(&neutral).unwrap();
    assert!(plain.verify(b"any message", &ed25519_dalek::Signature::from_bytes(&signature)).is_ok());
    assert!(VerifyingKey(neutral).verify(b"any message", &Signature(signature)).is_err());
    assert!(!VerifyingKey(neutral).is_usable());
}

/// The cases of an AEAD whose key, nonce and tag have the project's lengths.
fn cases(name: aead::TestName, nonce_len: usize) -> Vec<aead::Test> {
    let set = aead::TestSet::load(name).unwrap();
    let fits = |group: &aead::TestGroup| group.key_size == 256 && group.tag_size == 8 * TAG_LEN;
    let tests = set.test_groups.into_iter().filter(fits).flat_map(|group| group.tests);
    tests.filter(|test| test.nonce.len() == nonce_len).collect()
}

#[test]
fn chacha20_poly1305_of_the_handshake_opens_what_is_valid_and_nothing_else() {
    let cases = cases(aead::TestName::ChaCha20Poly1305, 12);
    assert_eq!(cases.len(), 316);
    for test in cases {
        let key = Secret::new(test.key.as_slice().try_into().unwrap());
        let nonce = test.nonce.as_slice().try_into().unwrap();
        let mut text = test.ct.to_vec();
        let opened = open_chacha20_poly1305(&key, nonce, &test.aad, &mut text, test.tag.as_slice().try_into().unwrap());
        assert_eq!(opened.is_ok(), !test.result.must_fail(), "case {}", test.tc_id);
        if opened.is_ok() {
            assert_eq!(text, *test.pt);
            let tag = seal_chacha20_poly1305(&key, nonce, &test.aad, &mut text);
            assert_eq!((&text, &tag[..]), (&*test.ct, &test.tag[..]));
        }
    }
}

#[test]
fn xchacha20_poly1305_of_the_cookies_opens_what_is_valid_and_nothing_else() {
    let cases = cases(aead::TestName::XChaCha20Poly1305, 24);
    assert!(cases.len() > 250);
    for test in cases {
        let (key, nonce) = (test.key.as_slice().try_into().unwrap(), test.nonce.as_slice().try_into().unwrap());
        let mut text = test.ct.to_vec();
        let opened = open_cookie(key, nonce, &test.aad, &mut text, test.tag.as_slice().try_into().unwrap());
        assert_eq!(opened.is_ok(), !test.result.must_fail(), "case {}", test.tc_id);
        if opened.is_ok() {
            assert_eq!(text, *test.pt);
            let tag = seal_cookie(key, nonce, &test.aad, &mut text);
            assert_eq!((&text, &tag[..]), (&*test.ct, &test.tag[..]));
        }
    }
}

#[test]
fn both_transport_ciphers_open_what_is_valid_and_nothing_else() {
    // Transport packets have no associated data, because every clear field selects key or nonce: the cases without any apply.
    let sets = [
        (TransportCipher::ChaCha20Poly1305, aead::TestName::ChaCha20Poly1305, 45),
        (TransportCipher::Aes256Gcm, aead::TestName::AesGcm, 48),
    ];
    for (cipher, name, count) in sets {
        let cases: Vec<_> = cases(name, 12).into_iter().filter(|test| test.aad.is_empty()).collect();
        assert_eq!(cases.len(), count);
        for test in cases {
            let key = TransportAead::new(cipher, &Secret::new(test.key.as_slice().try_into().unwrap()));
            let nonce = test.nonce.as_slice().try_into().unwrap();
            let mut sealed = [&test.ct[..], &test.tag[..]].concat();
            let opened = key.open(nonce, &mut sealed).map(|text| text.to_vec());
            assert_eq!(opened.is_ok(), !test.result.must_fail(), "{} case {}", cipher.name(), test.tc_id);
            if let Ok(mut text) = opened {
                assert_eq!(text, *test.pt);
                let tag = key.seal(nonce, &mut text);
                assert_eq!((&text, &tag[..]), (&*test.ct, &test.tag[..]));
            }
        }
    }
}

#[test]
fn ml_kem_768_opens_what_is_valid() {
    let (mut opened, mut refused) = (0, 0);
    for test in kem_cases(wycheproof_ng_mlkem::TestName::MlKem768) {
        // The types admit no false length: what does not fit is refused before the primitive.
        let seed = test.seed.as_ref().and_then(|seed| seed.as_slice().try_into().ok());
        let ciphertext = test.ct.as_ref().and_then(|ciphertext| ciphertext.as_slice().try_into().ok());
        let (Some(seed), Some(ciphertext)) = (seed, ciphertext) else {
            assert!(test.result.must_fail(), "case {}", test.tc_id);
            refused += 1;
            continue;
        };
        let secret = KemSecret::from_seed(&Secret::new(seed));
        assert!(!test.result.must_fail(), "case {}", test.tc_id);
        assert_eq!(secret.encapsulation_key()[..], test.ek.unwrap()[..], "case {}", test.tc_id);
        assert_eq!(secret.decapsulate(ciphertext).expose()[..], test.k.unwrap()[..], "case {}", test.tc_id);
        opened += 1;
    }
    assert_eq!((opened, refused), (161, 40));
}

#[test]
fn ml_kem_768_encapsulates_and_refuses_malformed_keys() {
    let (mut made, mut refused) = (0, 0);
    for test in kem_cases(wycheproof_ng_mlkem::TestName::MlKem768Encaps) {
        let key = test.ek.as_ref().and_then(|key| key.as_slice().try_into().ok());
        let random = test.m.unwrap();
        let result =
            key.filter(|_| random.len() == 32).and_then(|key| encapsulate(key, &mut Stream::exactly(&random)).ok());
        assert_eq!(result.is_some(), !test.result.must_fail(), "case {}", test.tc_id);
        let Some((ciphertext, shared)) = result else {
            refused += 1;
            continue;
        };
        assert_eq!(ciphertext[..], test.ct.unwrap()[..], "case {}", test.tc_id);
        assert_eq!(shared.expose()[..], test.k.unwrap()[..], "case {}", test.tc_id);
        made += 1;
    }
    assert_eq!((made, refused), (133, 132));
}

#[test]
fn ml_kem_768_expands_seeds() {
    // Only the seed form of a secret key exists here, so the sets of expanded decapsulation keys do not apply.
    let cases = kem_cases(wycheproof_ng_mlkem::TestName::MlKem768KeygenSeed);
    assert_eq!(cases.len(), 100);
    for test in cases {
        let secret = KemSecret::from_seed(&Secret::new(test.seed.unwrap().as_slice().try_into().unwrap()));
        assert_eq!(secret.encapsulation_key()[..], test.ek.unwrap()[..], "case {}", test.tc_id);
    }
}

fn kem_cases(name: wycheproof_ng_mlkem::TestName) -> Vec<wycheproof_ng_mlkem::Test> {
    let set = wycheproof_ng_mlkem::TestSet::load(name).unwrap();
    set.test_groups.into_iter().flat_map(|group| group.tests).collect()
}
