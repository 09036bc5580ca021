//! Who can impersonate whom with which key leaked. Node 1 initiates, node 2 responds, the attacker is node 7 and no member.
//!
//! The table is in docs/protocol.md, "What a leaked key gives": that of Noise IK. The attacker runs the protocol's own steps with its own
//! keys in place of those that did not leak.

use super::*;
use crate::crypto::aead::TransportCipher;
use crate::crypto::exchange::{KEM_CIPHERTEXT_LEN, KEM_KEY_LEN, KemSecret, TransportKey, TransportSecret, encapsulate};
use crate::session::handshake::noise::SymmetricState;
use crate::wire::datagram::SessionIndex;
use crate::wire::handshake::{
    Answer, INITIATION_LEN, Initiation, InitiationTag, KEY_PART_LEN, KeyPart, MAC_LEN, OffloadSet, PAYLOAD1_LEN,
    PAYLOAD2_LEN, Part, Response, ResponseTail, SEALED_CIPHERTEXT_HALF_LEN, SEALED_KEY_HALF_LEN, SEALED_PAYLOAD1_LEN,
    SEALED_PAYLOAD2_LEN, SEALED_STATIC_LEN,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// What leaked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Leak {
    network_secret: bool,
    initiator_static: bool,
    responder_static: bool,
    /// The initiator's ephemeral key of the very handshake that is attacked.
    ephemeral: bool,
}

const NOTHING: Leak =
    Leak { network_secret: false, initiator_static: false, responder_static: false, ephemeral: false };
const SECRET: Leak = Leak { network_secret: true, ..NOTHING };

const ANSWER: Answer = Answer {
    version: VERSION,
    cipher: TransportCipher::ChaCha20Poly1305,
    version_too_old: false,
    key_retired: false,
    guest: false,
    ledger: LedgerHead { height: 0, head: [0; 8] },
    offload: OffloadSet { tcp: false, udp: false, frames: false },
};

impl Leak {
    /// The attacker's keys: its own static one, and the network's secret or a guess.
    fn keys(self) -> LocalKeys {
        let secret = if self.network_secret { NETWORK_SECRET } else { [0; 32] };
        keys_with(7, secret)
    }

    /// The static key that the attacker holds for the node with `seed`: that one, or its own.
    fn static_key(self, seed: u8) -> TransportSecret {
        let leaked = if seed == 1 { self.initiator_static } else { self.responder_static };
        TransportSecret::from_bytes([if leaked { seed } else { 7 }; 32])
    }
}

/// The initiator's half of the protocol, run by an attacker that claims to be node 1.
struct FalseInitiator {
    keys: LocalKeys,
    ephemeral: TransportSecret,
    kem: KemSecret,
    noise: SymmetricState,
    flight: [Vec<u8>; 3],
}

impl FalseInitiator {
    fn new(leak: Leak) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let keys = leak.keys();
        let (ephemeral, kem) = (TransportSecret::generate(&mut rng), KemSecret::generate(&mut rng));
        let (network, responder) = (keys.network_keys(&transport_key(2)), transport_key(2));
        let mut noise = begin(&keys, &responder);
        let mut initiation = Initiation {
            sender: SessionIndex(5),
            ephemeral: ephemeral.public_key(),
            sealed_static: [0; SEALED_STATIC_LEN],
            sealed_payload: [0; SEALED_PAYLOAD1_LEN],
            mac1: [0; MAC_LEN],
            mac2: [0; MAC_LEN],
        };
        noise.mix_hash(&[&initiation.header()]);
        noise.mix_ephemeral(&initiation.ephemeral);
        noise.mix_dh(&ephemeral, &responder).unwrap(); // es
        initiation.sealed_static[..32].copy_from_slice(&transport_key(1).0);
        noise.seal(&mut initiation.sealed_static);
        mix_static_static(&mut noise, leak); // ss
        initiation.sealed_payload[..PAYLOAD1_LEN]
            .copy_from_slice(&Terms::default().offer(Timestamp::default()).encode());
        noise.seal(&mut initiation.sealed_payload);
        initiation.mac1 = network.mac1(&initiation.encode()[..INITIATION_LEN - 2 * MAC_LEN]);
        let key_parts = Part::BOTH.map(|part| {
            let mut sealed_half = [0; SEALED_KEY_HALF_LEN];
            let half = &kem.encapsulation_key()[part.position() * KEM_KEY_LEN / 2..][..KEM_KEY_LEN / 2];
            sealed_half[..half.len()].copy_from_slice(half);
            let tag = InitiationTag::of(&initiation.mac1);
            let mut key_part =
                KeyPart { part, sender: initiation.sender, initiation: tag, sealed_half, mac1: [0; MAC_LEN] };
            noise.seal_part(part.position() as u64, &key_part.header(), &mut key_part.sealed_half);
            key_part.mac1 = network.mac1(&key_part.encode()[..KEY_PART_LEN - MAC_LEN]);
            key_part
        });
        let [first, second] = &key_parts;
        noise.mix_parts([(&first.header(), &first.sealed_half), (&second.header(), &second.sealed_half)]);
        let [first, second] = key_parts.map(|key_part| key_part.encode().to_vec());
        Self { keys, ephemeral, kem, noise, flight: [initiation.encode().to_vec(), first, second] }
    }

    /// Reads the answer with whatever gives `se`: only then is there a session to confirm.
    fn reads(mut self, leak: Leak, answers: &[Vec<u8>]) -> bool {
        let [first, second] = [0, 1].map(|position| Response::decode(&answers[position]).unwrap());
        self.noise.mix_ephemeral(&first.ephemeral);
        self.noise.mix_dh(&self.ephemeral, &first.ephemeral).unwrap(); // ee
        let mut ciphertext = [0; KEM_CIPHERTEXT_LEN];
        for (response, place) in [&first, &second].into_iter().zip(ciphertext.chunks_mut(KEM_CIPHERTEXT_LEN / 2)) {
            let mut half: [u8; SEALED_CIPHERTEXT_HALF_LEN] = response.sealed_half;
            self.noise.open_part(response.part().position() as u64, &response.header(), &mut half).unwrap();
            place.copy_from_slice(&half[..place.len()]);
        }
        self.noise.mix_parts([(&first.header(), &first.sealed_half), (&second.header(), &second.sealed_half)]);
        self.noise.mix_key(self.kem.decapsulate(&ciphertext).expose());
        let ResponseTail::B(payload) = second.tail else { panic!("the second answer is M2b") };
        [leak.static_key(1), leak.static_key(2)].iter().any(|candidate| {
            let mut noise = self.noise.duplicate();
            noise.mix_dh(candidate, &first.ephemeral).unwrap(); // se
            noise.mix_psk(self.keys.psk());
            noise.open(&mut payload.clone()).is_ok()
        })
    }
}

/// `ss` of nodes 1 and 2 takes either's static key.
fn mix_static_static(noise: &mut SymmetricState, leak: Leak) {
    let (secret, public): (_, TransportKey) = if leak.responder_static {
        (leak.static_key(2), transport_key(1))
    } else {
        (leak.static_key(1), transport_key(2))
    };
    noise.mix_dh(&secret, &public).unwrap();
}

/// As node 1 towards node 2.
fn poses_as_initiator(leak: Leak) -> bool {
    let mut responder = Node::new(2, policy_of([1, 2]));
    let attacker = FalseInitiator::new(leak);
    let mut answers = Vec::new();
    for datagram in &attacker.flight {
        let Ok(outcome) = responder.receive(after(0), at(1), datagram) else { return false };
        answers.extend(outcome.transmit);
    }
    attacker.reads(leak, &answers)
}

/// As node 2 towards node 1, which begins a handshake of its own.
fn poses_as_responder(leak: Leak) -> bool {
    let mut victim = Node::new(1, policy_of([1, 2]));
    let mut attempt = victim.initiate(after(0), 2);
    let Some(answers) = false_answers(leak, &attempt, &ANSWER) else { return false };
    answers.iter().any(|answer| matches!(attempt.handle_response(victim.local(), after(0), answer), Ok(Some(_))))
}

/// The responder's half of the protocol, as far as the leak carries it.
fn false_answers(leak: Leak, attempt: &Initiator, answer: &Answer) -> Option<[Vec<u8>; 2]> {
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let keys = leak.keys();
    let [d1, d2a, d2b] = flight(attempt, at(2));
    let initiation = Initiation::decode(&d1).unwrap();
    let mut noise = begin(&keys, &transport_key(2));
    noise.mix_hash(&[&initiation.header()]);
    noise.mix_ephemeral(&initiation.ephemeral);
    // es: the responder's static key or the initiator's ephemeral one
    let [secret, public] = if leak.ephemeral {
        [*attempt.ephemeral().expose(), transport_key(2).0]
    } else {
        [*leak.static_key(2).expose(), initiation.ephemeral.0]
    };
    noise.mix_dh(&TransportSecret::from_bytes(secret), &TransportKey(public)).unwrap();
    noise.open(&mut initiation.sealed_static.clone()).ok()?;
    mix_static_static(&mut noise, leak); // ss
    noise.open(&mut initiation.sealed_payload.clone()).ok()?;
    let parts = [d2a, d2b].map(|part| KeyPart::decode(&part).unwrap());
    let mut encapsulation_key = [0; KEM_KEY_LEN];
    for (part, place) in parts.iter().zip(encapsulation_key.chunks_mut(KEM_KEY_LEN / 2)) {
        let mut half = part.sealed_half;
        noise.open_part(part.part.position() as u64, &part.header(), &mut half).ok()?;
        place.copy_from_slice(&half[..place.len()]);
    }
    noise.mix_parts([(&parts[0].header(), &parts[0].sealed_half), (&parts[1].header(), &parts[1].sealed_half)]);
    let ephemeral = TransportSecret::generate(&mut rng);
    noise.mix_ephemeral(&ephemeral.public_key());
    noise.mix_dh(&ephemeral, &initiation.ephemeral).unwrap(); // ee
    let (ciphertext, shared) = encapsulate(&encapsulation_key, &mut rng).unwrap();
    let tails = [ResponseTail::A, ResponseTail::B([0; SEALED_PAYLOAD2_LEN])];
    let mut responses = tails.map(|tail| Response {
        sender: SessionIndex(6),
        receiver: initiation.sender,
        ephemeral: ephemeral.public_key(),
        sealed_half: [0; SEALED_CIPHERTEXT_HALF_LEN],
        tail,
        mac1: [0; MAC_LEN],
        mac2: [0; MAC_LEN],
    });
    for (response, half) in responses.iter_mut().zip(ciphertext.chunks(KEM_CIPHERTEXT_LEN / 2)) {
        response.sealed_half[..half.len()].copy_from_slice(half);
        let header = response.header();
        noise.seal_part(response.part().position() as u64, &header, &mut response.sealed_half);
    }
    let [first, second] = &responses;
    noise.mix_parts([(&first.header(), &first.sealed_half), (&second.header(), &second.sealed_half)]);
    noise.mix_key(shared.expose());
    noise.mix_dh(&ephemeral, &transport_key(1)).unwrap(); // se
    noise.mix_psk(keys.psk());
    let mut payload = [0; SEALED_PAYLOAD2_LEN];
    payload[..PAYLOAD2_LEN].copy_from_slice(&answer.encode());
    noise.seal(&mut payload);
    responses[1].tail = ResponseTail::B(payload);
    let network = keys.network_keys(&transport_key(1));
    Some(responses.map(|response| {
        let mut datagram = response.encode();
        let covered_len = datagram.len() - 2 * MAC_LEN;
        let mac1 = network.mac1(&datagram[..covered_len]);
        datagram[covered_len..covered_len + MAC_LEN].copy_from_slice(&mac1);
        datagram
    }))
}

#[test]
fn a_leaked_key_gives_what_the_table_says_and_no_more() {
    let initiator = Leak { initiator_static: true, ..SECRET };
    let responder = Leak { responder_static: true, ..SECRET };
    let both = Leak { responder_static: true, ..initiator };
    let ephemeral = Leak { ephemeral: true, ..SECRET };
    // leaked, poses as node 1 towards node 2, poses as node 2 towards node 1
    let table = [
        (NOTHING, false, false),
        (SECRET, false, false),
        (ephemeral, false, false),
        (initiator, true, false),
        (responder, false, true),
        (both, true, true),
        // Both secrets of one side compute es and ss: the attacker answers in node 2's place in this one handshake, as in every Noise IK.
        (Leak { ephemeral: true, ..initiator }, true, true),
        (Leak { ephemeral: true, ..responder }, false, true),
        // Keys without the network's secret open no door, though nothing relies on that.
        (Leak { network_secret: false, ..both }, false, false),
    ];
    for (leak, as_initiator, as_responder) in table {
        assert_eq!(poses_as_initiator(leak), as_initiator, "as node 1 with {leak:?}");
        assert_eq!(poses_as_responder(leak), as_responder, "as node 2 with {leak:?}");
    }
}

#[test]
fn with_the_responders_own_key_a_false_claim_is_heard_but_its_session_stays_tentative() {
    let leak = Leak { responder_static: true, ..SECRET };
    let mut responder = Node::new(2, policy_of([1, 2]));
    let (answers, established) = give(&mut responder, after(0), at(1), &FalseInitiator::new(leak).flight);
    assert_eq!((answers.len(), established.len()), (2, 1));
    // Key compromise impersonation (Noise §7.7) ends at `se`: nobody confirms the session, and a tentative one carries nothing.
    assert!(!FalseInitiator::new(leak).reads(leak, &answers));
    let refused = responder.receive(after(0), at(1), &FalseInitiator::new(SECRET).flight[0]);
    assert_eq!(refusal(refused), Some(Refusal::Sealed));
}

#[test]
fn a_responder_cannot_choose_what_was_not_offered() {
    let leak = Leak { responder_static: true, ..SECRET };
    let answers = [
        (Answer { cipher: TransportCipher::Aes256Gcm, ..ANSWER }, Some(PayloadError::CipherNotOffered)),
        (Answer { version: VERSION + 1, ..ANSWER }, Some(PayloadError::Versions)),
        (ANSWER, None),
    ];
    for (answer, refused) in answers {
        let mut victim = Node::new(1, policy_of([1, 2]));
        let mut attempt = victim.initiate(after(0), 2);
        let [first, second] = false_answers(leak, &attempt, &answer).unwrap();
        attempt.handle_response(victim.local(), after(0), &first).unwrap();
        let finished = attempt.handle_response(victim.local(), after(0), &second);
        assert_eq!(finished.err(), refused.map(Refusal::Payload));
    }
}
