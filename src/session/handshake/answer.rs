//! What a responder answers once D1, D2a and D2b are there: M2a, M2b and the session.

use super::noise::SymmetricState;
use super::responder::open_half;
use super::table::{HalfOpen, Waiting};
use super::{Established, Local, NetworkKeys, Refusal};
use crate::crypto::exchange::{KEM_KEY_LEN, TransportSecret, encapsulate};
use crate::policy::Rights;
use crate::session::seal::{Role, Scope, Session, SessionParts, SyncReason};
use crate::time::Instant;
use crate::wire::datagram::SessionIndex;
use crate::wire::handshake::{
    Answer, KeyPart, MAC_LEN, PAYLOAD2_LEN, Response, ResponseTail, SEALED_CIPHERTEXT_HALF_LEN, SEALED_PAYLOAD2_LEN,
};
use rand_core::CryptoRng;
use std::sync::Arc;

/// Everything that an answer is made from.
pub(super) struct Answering<'a> {
    pub(super) local: Local<'a>,
    pub(super) waiting: &'a Waiting,
    pub(super) key_parts: [&'a KeyPart; 2],
    pub(super) half_open: &'a HalfOpen,
    pub(super) index: SessionIndex,
    pub(super) now: Instant,
}

/// Makes M2a, M2b and the session.
pub(super) fn answer(
    answering: &Answering<'_>,
    rng: &mut impl CryptoRng,
) -> Result<([Vec<u8>; 2], Established), Refusal> {
    let Answering { local, waiting, half_open, .. } = *answering;
    let mut noise = waiting.noise.duplicate();
    let encapsulation_key = open_key(answering, &mut noise)?;
    let answer = choose(local, waiting, half_open.admission.rights() == Rights::Guest);
    let responses = respond(answering, &mut noise, &encapsulation_key, &answer, rng)?;
    let network = local.keys.network_keys(half_open.admission.transport_key());
    let answers = responses.map(|response| stamp(&response, &network));
    Ok((answers, establish(answering, noise, &answer)))
}

/// -> ek
fn open_key(answering: &Answering<'_>, noise: &mut SymmetricState) -> Result<[u8; KEM_KEY_LEN], Refusal> {
    let Answering { waiting, key_parts: [first, second], .. } = *answering;
    let mut encapsulation_key = [0; KEM_KEY_LEN];
    encapsulation_key[..KEM_KEY_LEN / 2].copy_from_slice(&open_half(waiting, first)?);
    encapsulation_key[KEM_KEY_LEN / 2..].copy_from_slice(&open_half(waiting, second)?);
    noise.mix_parts([(&first.header(), &first.sealed_half), (&second.header(), &second.sealed_half)]);
    Ok(encapsulation_key)
}

/// <- e, ee, ct, MixKey(kem), se, psk, payload2
fn respond(
    answering: &Answering<'_>,
    noise: &mut SymmetricState,
    encapsulation_key: &[u8; KEM_KEY_LEN],
    answer: &Answer,
    rng: &mut impl CryptoRng,
) -> Result<[Response; 2], Refusal> {
    let Answering { local, waiting, half_open, index, .. } = *answering;
    let ephemeral = TransportSecret::generate(rng);
    noise.mix_ephemeral(&ephemeral.public_key()); // e
    noise.mix_dh(&ephemeral, &waiting.ephemeral)?; // ee
    let (ciphertext, kem_shared) = encapsulate(encapsulation_key, rng)?; // ct
    let blank = Response {
        sender: index,
        receiver: half_open.sender,
        ephemeral: ephemeral.public_key(),
        sealed_half: [0; SEALED_CIPHERTEXT_HALF_LEN],
        tail: ResponseTail::A,
        mac1: [0; MAC_LEN],
        mac2: [0; MAC_LEN],
    };
    let mut responses = [blank.clone(), Response { tail: ResponseTail::B([0; SEALED_PAYLOAD2_LEN]), ..blank }];
    for (position, (response, half)) in responses.iter_mut().zip(ciphertext.chunks(ciphertext.len() / 2)).enumerate() {
        response.sealed_half[..half.len()].copy_from_slice(half);
        let header = response.header();
        noise.seal_part(position as u64, &header, &mut response.sealed_half);
    }
    let [m2a, m2b] = &responses;
    noise.mix_parts([(&m2a.header(), &m2a.sealed_half), (&m2b.header(), &m2b.sealed_half)]);
    noise.mix_key(kem_shared.expose()); // MixKey(kem)
    noise.mix_dh(&ephemeral, half_open.admission.transport_key())?; // se
    noise.mix_psk(local.keys.psk()); // psk
    let mut sealed_payload = [0; SEALED_PAYLOAD2_LEN];
    sealed_payload[..PAYLOAD2_LEN].copy_from_slice(&answer.encode());
    noise.seal(&mut sealed_payload); // payload2
    responses[1].tail = ResponseTail::B(sealed_payload);
    Ok(responses)
}

/// `Split`, and the session under its keys.
fn establish(answering: &Answering<'_>, noise: SymmetricState, answer: &Answer) -> Established {
    let Answering { waiting, half_open, index, now, .. } = *answering;
    let [receiving, sending] = noise.split();
    let session = Session::new(&SessionParts {
        role: Role::Responder,
        local_index: index,
        remote_index: half_open.sender,
        admission: half_open.admission,
        scope: scope_of(answer),
        cipher: answer.cipher,
        offload: waiting.offer.offload,
        sending,
        receiving,
        created: now,
    });
    Established {
        session: Arc::new(session),
        ledger: waiting.offer.ledger,
        version: answer.version,
        guest_there: false,
        timestamp: Some(waiting.offer.timestamp),
    }
}

/// Chooses version and cipher. A peer that is too old gets an answer all the same, so that it can learn why.
fn choose(local: Local<'_>, waiting: &Waiting, guest: bool) -> Answer {
    let (terms, offer) = (local.terms, &waiting.offer);
    let version = offer.versions.highest.min(terms.versions.highest);
    Answer {
        version,
        cipher: terms.ciphers.common(offer.ciphers),
        version_too_old: version < terms.minimum_version.max(terms.versions.lowest),
        key_retired: waiting.key_retired,
        guest,
        ledger: terms.ledger,
        offload: terms.offload,
    }
}

/// Says what the flags of an answer leave to the session.
pub(super) fn scope_of(answer: &Answer) -> Scope {
    match answer {
        Answer { version_too_old: true, .. } => Scope::SyncOnly(SyncReason::VersionTooOld),
        Answer { key_retired: true, .. } => Scope::SyncOnly(SyncReason::KeyRetired),
        _ => Scope::Full,
    }
}

fn stamp(response: &Response, network: &NetworkKeys) -> Vec<u8> {
    let mut datagram = response.encode();
    let covered_len = datagram.len() - 2 * MAC_LEN;
    let mac1 = network.mac1(&datagram[..covered_len]);
    datagram[covered_len..covered_len + MAC_LEN].copy_from_slice(&mac1);
    datagram
}
