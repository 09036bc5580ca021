//! The vectors of the RFCs that name the primitives.

use p2plus::crypto::aead::{TransportAead, TransportCipher, open_chacha20_poly1305, seal_chacha20_poly1305};
use p2plus::crypto::exchange::{TransportKey, TransportSecret};
use p2plus::crypto::hash::{blake2s, blake2s_mac};
use p2plus::crypto::identity::SigningKey;
use p2plus::crypto::secret::Secret;

fn bytes<const N: usize>(hexadecimal: &str) -> [u8; N] {
    hex::decode(hexadecimal).unwrap().try_into().unwrap()
}

fn agree(secret: [u8; 32], public: [u8; 32]) -> [u8; 32] {
    *TransportSecret::from_bytes(secret).agree(&TransportKey(public)).unwrap().expose()
}

#[test]
fn x25519_has_the_outputs_of_rfc_7748_section_5_2() {
    let cases = [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ];
    for (secret, public, shared) in cases {
        assert_eq!(agree(bytes(secret), bytes(public)), bytes(shared));
    }
    let mut base = [0; 32];
    base[0] = 9;
    let (mut secret, mut public) = (base, base);
    for round in 1..=1000 {
        (secret, public) = (agree(secret, public), secret);
        if round == 1 {
            assert_eq!(secret, bytes("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"));
        }
    }
    assert_eq!(secret, bytes("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"));
}

#[test]
fn chacha20_poly1305_has_the_output_of_rfc_8439_section_2_8_2() {
    let key = Secret::new(std::array::from_fn(|position| 0x80 + position as u8));
    let nonce: [u8; 12] = bytes("070000004041424344454647");
    let associated: [u8; 12] = bytes("50515253c0c1c2c3c4c5c6c7");
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
        sunscreen would be it.";
    let sealed = "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b\
        1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
        3ff4def08e4b7a9de576d26586cec64b6116";
    let mut field = *text;
    let tag = seal_chacha20_poly1305(&key, &nonce, &associated, &mut field);
    assert_eq!((hex::encode(field), hex::encode(tag)), (sealed.into(), "1ae10b594f09e26a7e902ecbd0600691".into()));
    open_chacha20_poly1305(&key, &nonce, &associated, &mut field, &tag).unwrap();
    assert_eq!(&field, text);
}

#[test]
fn the_transport_cipher_is_the_handshakes_cipher_without_associated_data() {
    let transport = TransportAead::new(TransportCipher::ChaCha20Poly1305, &Secret::new([7; 32]));
    for len in [0, 1, 15, 16, 17, 63, 64, 65, 1400, 62_000] {
        let (mut fast, mut pure) = (vec![3; len], vec![3; len]);
        let tag = transport.seal([9; 12], &mut fast);
        assert_eq!(tag, seal_chacha20_poly1305(&Secret::new([7; 32]), &[9; 12], &[], &mut pure));
        assert_eq!(fast, pure);
    }
}

#[test]
fn ed25519_has_the_signatures_of_rfc_8032_section_7_1() {
    let cases = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ];
    for (seed, public, message, signature) in cases {
        let key = SigningKey::from_seed(&bytes(seed));
        let message = hex::decode(message).unwrap();
        assert_eq!(key.verifying_key().0, bytes(public));
        assert_eq!(key.sign(&message).0, bytes(signature));
        assert_eq!(key.verifying_key().verify(&message, &key.sign(&message)), Ok(()));
    }
}

#[test]
fn blake2s_has_the_outputs_of_rfc_7693_and_of_another_implementation() {
    let abc = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982";
    assert_eq!(blake2s(&[b"abc"]), bytes(abc)); // RFC 7693 appendix B
    // Key 00 … 1f, input of 0 and of 1 bytes, 16 bytes of output: by Python's hashlib.
    let key = std::array::from_fn(|position| position as u8);
    let keyed = ["9536f9b267655743dee97b8a670f9f53", "13bacfb85b48a1223c595f8c1e7e82cb"];
    assert_eq!([blake2s_mac(&key, &[]), blake2s_mac(&key, &[0])], keyed.map(bytes));
}
