//! The Noise core with the KEM off against `snow`, and against the vectors that come with it (cacophony's and its own, in noise.json).

use p2plus::crypto::aead::{TAG_LEN, open_handshake, seal_handshake};
use p2plus::crypto::exchange::{TransportKey, TransportSecret};
use p2plus::crypto::secret::Secret;
use p2plus::session::handshake::noise::{PskMode, SymmetricState};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

const IK: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
const IK_PSK2: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";

/// One side of IK or IKpsk2, run by the project's core.
struct Side {
    noise: SymmetricState,
    fixed: TransportSecret,
    ephemeral: TransportSecret,
    remote_static: Option<TransportKey>,
    remote_ephemeral: Option<TransportKey>,
    psk: Option<Secret<32>>,
}

impl Side {
    fn new(
        prologue: &[u8],
        fixed: [u8; 32],
        ephemeral: [u8; 32],
        responder: &TransportKey,
        psk: Option<[u8; 32]>,
    ) -> Self {
        let (name, mode) = if psk.is_some() { (IK_PSK2, PskMode::WithPsk) } else { (IK, PskMode::WithoutPsk) };
        let mut noise = SymmetricState::new(name.as_bytes(), prologue, mode);
        noise.mix_hash(&[&responder.0]);
        Self {
            noise,
            fixed: TransportSecret::from_bytes(fixed),
            ephemeral: TransportSecret::from_bytes(ephemeral),
            remote_static: Some(*responder),
            remote_ephemeral: None,
            psk: psk.map(Secret::new),
        }
    }

    fn seal(&mut self, text: &[u8]) -> Vec<u8> {
        let mut field = [text, &[0; TAG_LEN]].concat();
        self.noise.seal(&mut field);
        field
    }

    fn open(&mut self, field: &[u8]) -> Vec<u8> {
        let mut field = field.to_vec();
        self.noise.open(&mut field).expect("the other side sealed it");
        field.truncate(field.len() - TAG_LEN);
        field
    }

    /// -> e, es, s, ss
    fn write_first(&mut self, payload: &[u8]) -> Vec<u8> {
        let remote = self.remote_static.unwrap();
        let ephemeral = self.ephemeral.public_key();
        self.noise.mix_ephemeral(&ephemeral);
        self.noise.mix_dh(&self.ephemeral, &remote).unwrap();
        let sealed_static = self.seal(&self.fixed.public_key().0);
        self.noise.mix_dh(&self.fixed, &remote).unwrap();
        [&ephemeral.0[..], &sealed_static, &self.seal(payload)].concat()
    }

    fn read_first(&mut self, message: &[u8]) -> Vec<u8> {
        let ephemeral = TransportKey(message[..32].try_into().unwrap());
        self.noise.mix_ephemeral(&ephemeral);
        self.noise.mix_dh(&self.fixed, &ephemeral).unwrap();
        let remote = TransportKey(self.open(&message[32..80]).try_into().unwrap());
        self.noise.mix_dh(&self.fixed, &remote).unwrap();
        (self.remote_static, self.remote_ephemeral) = (Some(remote), Some(ephemeral));
        self.open(&message[80..])
    }

    /// <- e, ee, se, [psk]
    fn write_second(&mut self, payload: &[u8]) -> Vec<u8> {
        let ephemeral = self.ephemeral.public_key();
        self.noise.mix_ephemeral(&ephemeral);
        self.noise.mix_dh(&self.ephemeral, &self.remote_ephemeral.unwrap()).unwrap();
        self.noise.mix_dh(&self.ephemeral, &self.remote_static.unwrap()).unwrap();
        self.psk.iter().for_each(|psk| self.noise.mix_psk(psk));
        [&ephemeral.0[..], &self.seal(payload)].concat()
    }

    fn read_second(&mut self, message: &[u8]) -> Vec<u8> {
        let ephemeral = TransportKey(message[..32].try_into().unwrap());
        self.noise.mix_ephemeral(&ephemeral);
        self.noise.mix_dh(&self.ephemeral, &ephemeral).unwrap();
        self.noise.mix_dh(&self.fixed, &ephemeral).unwrap();
        self.psk.iter().for_each(|psk| self.noise.mix_psk(psk));
        self.open(&message[32..])
    }
}

#[derive(serde::Deserialize)]
struct Vectors {
    vectors: Vec<Vector>,
}

#[derive(serde::Deserialize)]
struct Vector {
    protocol_name: String,
    init_prologue: String,
    init_static: String,
    init_ephemeral: String,
    init_remote_static: String,
    #[serde(default)]
    init_psks: Vec<String>,
    resp_static: String,
    resp_ephemeral: String,
    handshake_hash: Option<String>,
    messages: Vec<Message>,
}

#[derive(serde::Deserialize)]
struct Message {
    payload: String,
    ciphertext: String,
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    hex::decode(hexadecimal).unwrap()
}

fn key(hexadecimal: &str) -> [u8; 32] {
    bytes(hexadecimal).try_into().unwrap()
}

#[test]
fn packaged_vectors_of_ik_and_ikpsk2_come_out() {
    let vectors: Vectors = serde_json::from_str(include_str!("noise.json")).unwrap();
    let mut names: Vec<_> = vectors.vectors.iter().map(|vector| vector.protocol_name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, [IK, IK, IK_PSK2]);
    for vector in &vectors.vectors {
        let responder = TransportKey(key(&vector.init_remote_static));
        let psk = vector.init_psks.first().map(|psk| key(psk));
        assert_eq!(psk.is_some(), vector.protocol_name == IK_PSK2);
        let side =
            |fixed, ephemeral| Side::new(&bytes(&vector.init_prologue), key(fixed), key(ephemeral), &responder, psk);
        let mut initiator = side(&vector.init_static, &vector.init_ephemeral);
        let mut responder = side(&vector.resp_static, &vector.resp_ephemeral);
        let [first, second, transport @ ..] = &vector.messages[..] else { panic!("two handshake messages") };
        assert_eq!(initiator.write_first(&bytes(&first.payload)), bytes(&first.ciphertext));
        assert_eq!(responder.read_first(&bytes(&first.ciphertext)), bytes(&first.payload));
        assert_eq!(responder.write_second(&bytes(&second.payload)), bytes(&second.ciphertext));
        assert_eq!(initiator.read_second(&bytes(&second.ciphertext)), bytes(&second.payload));
        assert_eq!(initiator.noise.transcript(), responder.noise.transcript());
        if let Some(expected) = &vector.handshake_hash {
            assert_eq!(initiator.noise.transcript(), &key(expected));
        }
        let keys = initiator.noise.split();
        assert!(keys == responder.noise.split());
        // The initiator's packets and the responder's take turns.
        for (position, message) in transport.iter().enumerate() {
            let mut text = bytes(&message.payload);
            let tag = seal_handshake(&keys[position % 2], position as u64 / 2, &[], &mut text);
            assert_eq!([&text[..], &tag].concat(), bytes(&message.ciphertext));
        }
    }
}

#[test]
fn ik_and_ikpsk2_run_with_snow_on_either_side() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for round in 0..64 {
        let mut random = || {
            let mut bytes = [0; 32];
            rng.fill_bytes(&mut bytes);
            bytes
        };
        let (ours, theirs, ephemeral, prologue) = (random(), random(), random(), random());
        let psk = (round % 2 == 0).then(&mut random);
        let (first, second) = (random()[..round % 33].to_vec(), random()[..(round * 7) % 33].to_vec());
        if round % 4 < 2 {
            we_initiate(ours, theirs, ephemeral, &prologue, psk, [&first, &second]);
        } else {
            snow_initiates(ours, theirs, ephemeral, &prologue, psk, [&first, &second]);
        }
    }
}

fn snow_builder<'a>(prologue: &'a [u8], fixed: &'a [u8; 32], psk: Option<&'a [u8; 32]>) -> snow::Builder<'a> {
    let name = if psk.is_some() { IK_PSK2 } else { IK };
    let builder = snow::Builder::new(name.parse().unwrap()).prologue(prologue).unwrap();
    let builder = builder.local_private_key(fixed).unwrap();
    match psk {
        Some(psk) => builder.psk(2, psk).unwrap(),
        None => builder,
    }
}

fn we_initiate(
    ours: [u8; 32],
    theirs: [u8; 32],
    ephemeral: [u8; 32],
    prologue: &[u8],
    psk: Option<[u8; 32]>,
    [first, second]: [&[u8]; 2],
) {
    let responder = TransportSecret::from_bytes(theirs).public_key();
    let mut us = Side::new(prologue, ours, ephemeral, &responder, psk);
    let mut them = snow_builder(prologue, &theirs, psk.as_ref()).build_responder().unwrap();
    let mut room = [0; 1024];
    let message = us.write_first(first);
    let len = them.read_message(&message, &mut room).unwrap();
    assert_eq!(&room[..len], first);
    let len = them.write_message(second, &mut room).unwrap();
    assert_eq!(us.read_second(&room[..len]), second);
    check_split(us, them, true);
}

fn snow_initiates(
    ours: [u8; 32],
    theirs: [u8; 32],
    ephemeral: [u8; 32],
    prologue: &[u8],
    psk: Option<[u8; 32]>,
    [first, second]: [&[u8]; 2],
) {
    let responder = TransportSecret::from_bytes(ours).public_key();
    let mut us = Side::new(prologue, ours, ephemeral, &responder, psk);
    let builder = snow_builder(prologue, &theirs, psk.as_ref()).remote_public_key(&responder.0).unwrap();
    let mut them = builder.build_initiator().unwrap();
    let mut room = [0; 1024];
    let len = them.write_message(first, &mut room).unwrap();
    assert_eq!(us.read_first(&room[..len]), first);
    assert_eq!(us.remote_static, Some(TransportSecret::from_bytes(theirs).public_key()));
    let message = us.write_second(second);
    let len = them.read_message(&message, &mut room).unwrap();
    assert_eq!(&room[..len], second);
    check_split(us, them, false);
}

/// Both have the same transcript and keys: packets of either direction open on the other side.
fn check_split(us: Side, them: snow::HandshakeState, we_initiated: bool) {
    assert_eq!(us.noise.transcript(), them.get_handshake_hash());
    let them = them.into_stateless_transport_mode().unwrap();
    let [initiators, responders] = us.noise.split();
    let (ours, theirs) = if we_initiated { (initiators, responders) } else { (responders, initiators) };
    let mut text = *b"packet";
    let tag = seal_handshake(&ours, 5, &[], &mut text);
    let mut room = [0; 64];
    let len = them.read_message(5, &[&text[..], &tag].concat(), &mut room).unwrap();
    assert_eq!(&room[..len], b"packet");
    let len = them.write_message(6, b"packet", &mut room).unwrap();
    let (text, tag) = room[..len].split_last_chunk_mut().unwrap();
    open_handshake(&theirs, 6, &[], text, tag).unwrap();
    assert_eq!(text, b"packet");
}

#[test]
fn a_handshake_cipher_opens_only_what_it_sealed() {
    let key = Secret::new([1; 32]);
    let mut text = *b"text";
    let tag = seal_handshake(&key, 3, b"associated", &mut text);
    assert!(open_handshake(&key, 4, b"associated", &mut text.clone(), &tag).is_err());
    assert!(open_handshake(&key, 3, b"other", &mut text.clone(), &tag).is_err());
    assert!(open_handshake(&key, 3, b"associated", &mut text, &tag).is_ok());
}
