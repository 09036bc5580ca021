//! The beginning side: one attempt, from D1 to the session, with its own schedule.
//!
//! One attempt is one set of ephemeral keys and one set of bytes, fired at every candidate and sent again as it is: the handshake is also the
//! hole punch. M2a and M2b come in any order; a part that fails changes nothing.

use super::answer::scope_of;
use super::noise::SymmetricState;
use super::responder::front;
use super::{ATTEMPT_LIFETIME, Aim, Established, Local, LocalKeys, NetworkKeys, Refusal, begin};
use crate::crypto::exchange::{
    ExchangeError, KEM_CIPHERTEXT_LEN, KEM_KEY_LEN, KemSecret, TransportKey, TransportSecret,
};
use crate::crypto::identity::NodeId;
use crate::crypto::secret::Secret;
use crate::policy::{Admission, Rights};
use crate::session::cookie::{Source, mac2_of, open_reply};
use crate::session::seal::{Role, Scope, Session, SessionParts, SyncReason};
use crate::time::Instant;
use crate::wire::datagram::SessionIndex;
use crate::wire::handshake::{
    Answer, CookieReply, Initiation, InitiationTag, KeyPart, MAC_LEN, Offer, PAYLOAD1_LEN, Part, PayloadError,
    Response, ResponseTail, SEALED_CIPHERTEXT_HALF_LEN, SEALED_KEY_HALF_LEN, SEALED_PAYLOAD1_LEN, SEALED_PAYLOAD2_LEN,
    SEALED_STATIC_LEN,
};
use rand_core::CryptoRng;
use std::sync::Arc;
use std::time::Duration;

/// When the flight is sent again, after the first time; each moved by up to a fifth, so that many nodes do not beat together.
pub const RETRANSMISSIONS: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(750), Duration::from_millis(1750), Duration::from_millis(3750)];

/// Cookies kept in one attempt, by the place that gave them. When full, the oldest is forgotten.
pub const MAX_COOKIES: usize = 8;

/// What an attempt waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InitiatorTimer {
    /// To send the flight again.
    Retransmit,
    /// To give up; the next attempt has new ephemeral keys.
    GiveUp,
}

/// What a deadline led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InitiatorStep {
    /// No deadline has come.
    Wait,
    /// Send [`Initiator::datagrams`] again to every candidate.
    Retransmit,
    /// The attempt is over: release the index and begin anew, if there is still need.
    GaveUp,
}

/// One attempt to reach one responder.
pub struct Initiator {
    aim: Aim,
    index: SessionIndex,
    offer: Offer,
    responder: NetworkKeys,
    ephemeral: TransportSecret,
    kem: KemSecret,
    noise: SymmetricState,
    initiation: Vec<u8>,
    key_parts: [Vec<u8>; 2],
    cookies: Vec<(Source, Vec<u8>)>,
    answering: Option<Answering>,
    retransmissions: Vec<Instant>,
    gives_up_at: Instant,
}

/// The answer of one responder's ephemeral key, as far as it came.
struct Answering {
    sender: SessionIndex,
    ephemeral: TransportKey,
    noise: SymmetricState,
    parts: [Option<Response>; 2],
}

/// What D1 is made from.
struct D1<'a> {
    own: TransportKey,
    aim: TransportKey,
    index: SessionIndex,
    ephemeral: &'a TransportSecret,
    static_shared: Secret<32>,
    offer: &'a Offer,
}

impl D1<'_> {
    /// -> e, es, s, ss, payload1
    fn seal(&self, noise: &mut SymmetricState, responder: &NetworkKeys) -> Result<Initiation, ExchangeError> {
        let mut initiation = Initiation {
            sender: self.index,
            ephemeral: self.ephemeral.public_key(),
            sealed_static: [0; SEALED_STATIC_LEN],
            sealed_payload: [0; SEALED_PAYLOAD1_LEN],
            mac1: [0; MAC_LEN],
            mac2: [0; MAC_LEN],
        };
        noise.mix_hash(&[&initiation.header()]);
        noise.mix_ephemeral(&initiation.ephemeral); // e
        noise.mix_dh(self.ephemeral, &self.aim)?; // es
        initiation.sealed_static[..32].copy_from_slice(&self.own.0);
        noise.seal(&mut initiation.sealed_static); // s
        noise.mix_key(self.static_shared.expose()); // ss
        initiation.sealed_payload[..PAYLOAD1_LEN].copy_from_slice(&self.offer.encode());
        noise.seal(&mut initiation.sealed_payload); // payload1
        initiation.mac1 = responder.mac1(without_macs(&initiation.encode(), 2));
        Ok(initiation)
    }
}

/// -> ek
fn seal_key(
    noise: &mut SymmetricState,
    initiation: &Initiation,
    encapsulation_key: &[u8; KEM_KEY_LEN],
    responder: &NetworkKeys,
) -> [KeyPart; 2] {
    let key_parts = Part::BOTH.map(|part| {
        let mut sealed_half = [0; SEALED_KEY_HALF_LEN];
        let half = &encapsulation_key[part.position() * KEM_KEY_LEN / 2..][..KEM_KEY_LEN / 2];
        sealed_half[..half.len()].copy_from_slice(half);
        let tag = InitiationTag::of(&initiation.mac1);
        let mut key_part =
            KeyPart { part, sender: initiation.sender, initiation: tag, sealed_half, mac1: [0; MAC_LEN] };
        let header = key_part.header();
        noise.seal_part(part.position() as u64, &header, &mut key_part.sealed_half);
        key_part.mac1 = responder.mac1(without_macs(&key_part.encode(), 1));
        key_part
    });
    let [first, second] = &key_parts;
    noise.mix_parts([(&first.header(), &first.sealed_half), (&second.header(), &second.sealed_half)]);
    key_parts
}

impl Initiator {
    /// Begins an attempt: draws the ephemeral keys and makes D1, D2a and D2b. The caller reserved `index` and made `offer` from its terms.
    ///
    /// # Errors
    /// [`ExchangeError::SmallOrder`] when the responder's key is unusable.
    pub fn new(
        now: Instant,
        keys: &LocalKeys,
        aim: Aim,
        offer: Offer,
        index: SessionIndex,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, ExchangeError> {
        // First, because it alone can fail: an unusable key costs one multiplication.
        let static_shared = keys.current().secret.agree(&aim.key)?;
        let ephemeral = TransportSecret::generate(rng);
        let kem = KemSecret::generate(rng);
        let responder = keys.network_keys(&aim.key);
        let mut noise = begin(keys, &aim.key);
        let d1 =
            D1 { own: keys.transport_key(), aim: aim.key, index, ephemeral: &ephemeral, static_shared, offer: &offer };
        let initiation = d1.seal(&mut noise, &responder)?;
        let key_parts = seal_key(&mut noise, &initiation, &kem.encapsulation_key(), &responder);
        Ok(Self {
            aim,
            index,
            offer,
            responder,
            ephemeral,
            kem,
            noise,
            initiation: initiation.encode().to_vec(),
            key_parts: key_parts.map(|key_part| key_part.encode().to_vec()),
            cookies: Vec::new(),
            answering: None,
            retransmissions: RETRANSMISSIONS.iter().rev().map(|after| now + jitter(*after, rng)).collect(),
            gives_up_at: now + ATTEMPT_LIFETIME,
        })
    }

    /// Returns the local session index, by which answers and cookies find this attempt.
    pub fn index(&self) -> SessionIndex {
        self.index
    }

    /// Returns whom the attempt is for.
    pub fn aim(&self) -> &Aim {
        &self.aim
    }

    /// Leaks the ephemeral key, to an attacker in a test.
    #[cfg(test)]
    pub(super) fn ephemeral(&self) -> &TransportSecret {
        &self.ephemeral
    }

    /// Returns D1, D2a and D2b for one place: the same bytes each time, with mac2 once that place gave a cookie.
    pub fn datagrams(&self, to: Source) -> [&[u8]; 3] {
        let paid = self.cookies.iter().find(|(source, _)| *source == to).map(|(_, initiation)| initiation);
        let [first, second] = &self.key_parts;
        [paid.unwrap_or(&self.initiation), first, second]
    }

    /// Returns the next deadline and its reason.
    pub fn poll_timeout(&self) -> Option<(Instant, InitiatorTimer)> {
        match self.retransmissions.last() {
            Some(at) if *at < self.gives_up_at => Some((*at, InitiatorTimer::Retransmit)),
            _ => Some((self.gives_up_at, InitiatorTimer::GiveUp)),
        }
    }

    /// Acts on the deadlines that have come.
    pub fn handle_timeout(&mut self, now: Instant) -> InitiatorStep {
        if now >= self.gives_up_at {
            return InitiatorStep::GaveUp;
        }
        let waiting = self.retransmissions.len();
        self.retransmissions.retain(|at| now < *at);
        if self.retransmissions.len() < waiting { InitiatorStep::Retransmit } else { InitiatorStep::Wait }
    }

    /// Takes a cookie that came from `source`. Send [`Initiator::datagrams`] there again at once.
    ///
    /// # Errors
    /// [`Refusal`] when the cookie is not for this attempt.
    pub fn handle_cookie(&mut self, source: Source, datagram: &[u8]) -> Result<(), Refusal> {
        let reply = CookieReply::decode(datagram)?;
        if reply.receiver != self.index {
            return Err(Refusal::NoAttempt);
        }
        let mac1 = Initiation::decode(&self.initiation)?.mac1;
        let cookie = open_reply(&reply, &self.responder.cookie, &mac1)?;
        let mut initiation = self.initiation.clone();
        let covered_len = initiation.len() - MAC_LEN;
        let mac2 = mac2_of(&cookie, &initiation[..covered_len]);
        initiation[covered_len..].copy_from_slice(&mac2);
        self.cookies.retain(|(known, _)| *known != source);
        if self.cookies.len() >= MAX_COOKIES {
            self.cookies.remove(0);
        }
        self.cookies.push((source, initiation));
        Ok(())
    }

    /// Takes M2a or M2b. Both, in any order, make the session.
    ///
    /// # Errors
    /// [`Refusal`]; the part then changed nothing.
    pub fn handle_response(
        &mut self,
        local: Local<'_>,
        now: Instant,
        datagram: &[u8],
    ) -> Result<Option<Established>, Refusal> {
        let response = Response::decode(datagram)?;
        if !local.keys.current().network.mac1_is_valid(without_macs(datagram, 2), &response.mac1) {
            return Err(Refusal::Mac1);
        }
        if response.mac2 != [0; MAC_LEN] {
            return Err(Refusal::Mac2);
        }
        if response.receiver != self.index {
            return Err(Refusal::NoAttempt);
        }
        let fresh = self.verify_half(&response)?;
        if fresh.is_some() {
            // Authentic, and newer than an answer that never became whole: the responder was restarted.
            self.answering = fresh;
        }
        let position = response.part().position();
        let answering = self.answering.as_mut().expect("an authentic half has a state");
        answering.parts[position] = Some(response);
        let Some(answering @ Answering { parts: [Some(first), Some(second)], .. }) = &self.answering else {
            return Ok(None);
        };
        // The halves are authentic: when this fails, the second payload was altered on the way, and its part may come again.
        self.finish(local, now, [first, second], answering).map(Some)
    }

    /// Opens the half of a response, and returns the new state when its ephemeral key was not seen before.
    fn verify_half(&self, response: &Response) -> Result<Option<Answering>, Refusal> {
        let known =
            |answering: &&Answering| answering.ephemeral == response.ephemeral && answering.sender == response.sender;
        if let Some(answering) = self.answering.as_ref().filter(known) {
            open_half(&answering.noise, response)?;
            return Ok(None);
        }
        let mut noise = self.noise.duplicate();
        noise.mix_ephemeral(&response.ephemeral); // <- e
        noise.mix_dh(&self.ephemeral, &response.ephemeral)?; // ee
        open_half(&noise, response)?;
        Ok(Some(Answering { sender: response.sender, ephemeral: response.ephemeral, noise, parts: [None, None] }))
    }

    /// Makes the session of two authentic halves.
    fn finish(
        &self,
        local: Local<'_>,
        now: Instant,
        halves: [&Response; 2],
        answering: &Answering,
    ) -> Result<Established, Refusal> {
        let (noise, answer) = self.open_answer(local, halves, answering)?;
        let (admission, scope) = self.check_answer(local, &answer)?;
        let [sending, receiving] = noise.split();
        let session = Session::new(&SessionParts {
            role: Role::Initiator,
            local_index: self.index,
            remote_index: answering.sender,
            admission,
            scope,
            cipher: answer.cipher,
            offload: answer.offload,
            sending,
            receiving,
            created: now,
        });
        Ok(Established {
            session: Arc::new(session),
            ledger: answer.ledger,
            version: answer.version,
            guest_there: answer.guest,
            timestamp: None,
        })
    }

    /// <- ct, MixKey(kem), se, psk, payload2
    fn open_answer(
        &self,
        local: Local<'_>,
        [first, second]: [&Response; 2],
        answering: &Answering,
    ) -> Result<(SymmetricState, Answer), Refusal> {
        let ResponseTail::B(sealed_payload) = &second.tail else { return Err(Refusal::NoHandshake) };
        let mut noise = answering.noise.duplicate();
        let mut ciphertext = [0; KEM_CIPHERTEXT_LEN];
        ciphertext[..KEM_CIPHERTEXT_LEN / 2].copy_from_slice(&open_half(&noise, first)?);
        ciphertext[KEM_CIPHERTEXT_LEN / 2..].copy_from_slice(&open_half(&noise, second)?);
        noise.mix_parts([(&first.header(), &first.sealed_half), (&second.header(), &second.sealed_half)]); // ct
        noise.mix_key(self.kem.decapsulate(&ciphertext).expose()); // MixKey(kem)
        noise.mix_dh(&local.keys.current().secret, &answering.ephemeral)?; // se
        noise.mix_psk(local.keys.psk()); // psk
        let mut payload: [u8; SEALED_PAYLOAD2_LEN] = *sealed_payload;
        noise.open(&mut payload)?; // payload2
        let answer = Answer::decode(&front(&payload))?;
        Ok((noise, answer))
    }

    /// Says what the responder is and what the session may carry, when the answer keeps to the offer and comes from whom it was aimed at.
    fn check_answer(&self, local: Local<'_>, answer: &Answer) -> Result<(Admission, Scope), Refusal> {
        if answer.version > self.offer.versions.highest {
            return Err(PayloadError::Versions.into());
        }
        if !self.offer.ciphers.contains(answer.cipher) {
            return Err(PayloadError::CipherNotOffered.into());
        }
        let admission = local.policy.admit(&self.aim.key);
        if self.aim.identity.is_some_and(|aimed| identity_of(admission.rights()) != Some(aimed)) {
            return Err(Refusal::NotTheAimed);
        }
        let oldest = local.terms.minimum_version.max(local.terms.versions.lowest);
        let scope = if answer.version < oldest { Scope::SyncOnly(SyncReason::VersionTooOld) } else { scope_of(answer) };
        Ok((admission, scope))
    }
}

fn identity_of(rights: Rights) -> Option<NodeId> {
    match rights {
        Rights::Member(id) | Rights::Consensus(id) => Some(id),
        Rights::Guest => None,
    }
}

fn open_half(noise: &SymmetricState, response: &Response) -> Result<[u8; KEM_CIPHERTEXT_LEN / 2], Refusal> {
    let mut half: [u8; SEALED_CIPHERTEXT_HALF_LEN] = response.sealed_half;
    noise.open_part(response.part().position() as u64, &response.header(), &mut half)?;
    Ok(front(&half))
}

/// Cuts `count` authenticators off the end.
fn without_macs(datagram: &[u8], count: usize) -> &[u8] {
    &datagram[..datagram.len() - count * MAC_LEN]
}

/// Moves a time by up to a fifth, either way.
fn jitter(after: Duration, rng: &mut impl CryptoRng) -> Duration {
    after * (800 + rng.next_u32() % 401) / 1000
}
