//! The answering side: D1, D2a, D2b in any order after D1, and M2a, M2b out.
//!
//! Authenticate first, then change state. mac1 comes before everything; under load a cookie comes before any key exchange; a claim becomes
//! an admission before the rest of D1 is looked at. A D1 replaces nothing: it only fills a table of its own, and what it leads to is tentative.

use super::agreements::Agreements;
use super::answer::{Answering, answer};
use super::gate::Gate;
use super::keys::StaticKey;
use super::noise::SymmetricState;
use super::table::{
    FlightPart, HalfOpen, HalfOpenTable, LoadMeter, MAX_HALF_OPEN, MAX_HALF_OPEN_GUESTS, MAX_HALF_OPEN_PER_PEER, Seen,
    Stage, Verdict, Waiting,
};
use super::timestamps::TimestampTable;
use super::{Established, Local, LocalKeys, Refusal, begin};
use crate::crypto::exchange::{KEM_KEY_LEN, TransportKey};
use crate::policy::{Admission, Policy, Rights};
use crate::session::cookie::{CookieSecrets, Origin, Source};
use crate::session::index::Indices;
use crate::time::Instant;
use crate::wire::datagram::{Datagram, DatagramError, SessionIndex, TYPE_INITIATION};
use crate::wire::handshake::{
    Initiation, InitiationTag, KeyPart, MAC_LEN, Offer, Part, SEALED_KEY_HALF_LEN, Timestamp,
};
use rand_core::CryptoRng;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A handshake datagram and whence it came.
#[derive(Clone, Copy, Debug)]
pub struct Inbound<'a> {
    /// When it came.
    pub now: Instant,
    /// Whence it came, and where answers go.
    pub source: Source,
    /// Its bytes.
    pub datagram: &'a [u8],
}

/// What a datagram led to. Answers go to the datagram's source, and are never more bytes than that source sent.
#[derive(Default)]
pub struct Outcome {
    /// A cookie, or M2a and M2b; at most two datagrams.
    pub transmit: Vec<Vec<u8>>,
    /// A finished handshake: the session is tentative until something authentic comes under it.
    pub established: Option<Established>,
}

/// Everything that a node remembers as a responder.
pub struct Responder {
    members: HalfOpenTable,
    guests: HalfOpenTable,
    seen: Seen,
    cookies: CookieSecrets,
    timestamps: TimestampTable,
    agreements: Agreements,
    load: LoadMeter,
    is_gate_changed: bool,
}

/// D1 after mac1 and mac2: who sent it is still a claim.
struct Checked<'a> {
    initiation: Initiation,
    own: &'a StaticKey,
    key_retired: bool,
    cookie_paid: bool,
}

/// D1 after its sealed fields opened: the sender has the claimed key.
struct Opened {
    noise: SymmetricState,
    admission: Admission,
    offer: Offer,
}

impl Responder {
    /// Starts with empty tables.
    pub fn new(now: Instant, rng: &mut impl CryptoRng) -> Self {
        Self {
            members: HalfOpenTable::default(),
            guests: HalfOpenTable::default(),
            seen: Seen::default(),
            cookies: CookieSecrets::new(now, rng),
            timestamps: TimestampTable::default(),
            agreements: Agreements::default(),
            load: LoadMeter::default(),
            is_gate_changed: true,
        }
    }

    /// Remembers what an earlier run stored: the latest confirmed initiation of a key.
    pub fn import_timestamp(&mut self, key: TransportKey, timestamp: Timestamp) {
        self.timestamps.record(key, timestamp);
    }

    /// Iterates over the latest initiation of each key, confirmed or not, for a whole export.
    pub fn timestamps(&self) -> impl Iterator<Item = (&TransportKey, &Timestamp)> {
        self.timestamps.iter()
    }

    /// Makes the check that any thread can do before a datagram is brought here, or to one of these attempts.
    pub fn gate(&self, keys: &LocalKeys, attempts: Arc<BTreeSet<SessionIndex>>) -> Gate {
        Gate::new(keys, self.cookies.accepted(), attempts)
    }

    /// Says, once, whether the gate changed since the last call.
    pub fn take_gate_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_gate_changed)
    }

    /// Handles D1, D2a or D2b.
    ///
    /// # Errors
    /// [`Refusal`] names why the datagram changed nothing and gets no answer.
    pub fn handle(
        &mut self,
        local: Local<'_>,
        inbound: Inbound<'_>,
        indices: &mut Indices,
        rng: &mut impl CryptoRng,
    ) -> Result<Outcome, Refusal> {
        self.handle_timeout(inbound.now);
        match Datagram::classify(inbound.datagram)? {
            Datagram::Initiation(_) => self.handle_initiation(local, inbound, rng),
            Datagram::KeyPart(_) => self.handle_key_part(local, inbound, indices, rng),
            _ => Err(DatagramError::UnknownType(inbound.datagram.first().copied().unwrap_or(TYPE_INITIATION)).into()),
        }
    }

    /// Returns when the next half-open initiation expires; its keys are wiped then.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [&self.members, &self.guests].into_iter().filter_map(HalfOpenTable::next_expiry).min()
    }

    /// Forgets what is too old.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.members.expire(now);
        self.guests.expire(now);
        self.seen.rotate(now);
    }

    /// Takes a new policy: drops every initiation, answered or not, whose sender is no longer what it was admitted as.
    pub fn handle_policy(&mut self, policy: &Policy) {
        for table in [&mut self.members, &mut self.guests] {
            table.retain(|half_open| is_still_admitted(policy, &half_open.admission));
        }
        self.agreements.retain(|key| policy.admit(key).rights() != Rights::Guest);
    }

    /// Says whether an initiation of `key` is half open or answered, or a secret shared with it is held. Its last timestamp does not count:
    /// that only refuses replays.
    pub fn mentions(&self, key: &TransportKey) -> bool {
        let is_of_key = |half_open: &HalfOpen| half_open.admission.transport_key() == key;
        let is_half_open = [&self.members, &self.guests].into_iter().any(|table| table.count(is_of_key) > 0);
        is_half_open || self.agreements.mentions(key)
    }

    /// Returns the one source that got the answer which made a session: whoever speaks in the session from there has read the answer
    /// there. None when the answer went to several, or after [`super::HALF_OPEN_LIFETIME`].
    pub fn answered(&self, session: SessionIndex) -> Option<Source> {
        self.of_session(session)?.sole_answered()
    }

    /// Returns whence the initiation came that made a session; a guest's is proved by its cookie. None as with [`Self::answered`].
    pub fn origin(&self, session: SessionIndex) -> Option<Origin> {
        Some(self.of_session(session)?.origin)
    }

    /// Forgets the initiation that made a session which the node does not want: no repetition of it is answered.
    pub fn withdraw(&mut self, session: SessionIndex) {
        for table in [&mut self.members, &mut self.guests] {
            table.retain(|half_open| !half_open.made(session));
        }
    }

    fn of_session(&self, session: SessionIndex) -> Option<&HalfOpen> {
        self.members.of_session(session).or_else(|| self.guests.of_session(session))
    }

    /// Returns how many initiations of members and of guests are half open or answered within their lifetime.
    pub fn half_open_counts(&self) -> (usize, usize) {
        (self.members.len(), self.guests.len())
    }

    /// Returns how many initiations are remembered as seen.
    pub fn seen_count(&self) -> usize {
        self.seen.len()
    }

    /// Says whether cookies are asked of members as well.
    pub fn is_under_load(&self, now: Instant) -> bool {
        self.load.under_load(now)
    }

    fn handle_initiation(
        &mut self,
        local: Local<'_>,
        inbound: Inbound<'_>,
        rng: &mut impl CryptoRng,
    ) -> Result<Outcome, Refusal> {
        let Inbound { now, source, datagram } = inbound;
        let checked = self.check_macs(local, inbound, rng)?;
        let mac1 = checked.initiation.mac1;
        self.load.count(now);

        if let Some(half_open) = self.find(InitiationTag::of(&mac1)) {
            half_open.credit(source, FlightPart::Initiation, datagram.len());
            return Ok(Outcome { transmit: half_open.take_answers(source), established: None });
        }
        match self.seen.verdict(&mac1) {
            Some(Verdict::Taken) => return Err(Refusal::Seen),
            Some(Verdict::CookieSent) if !checked.cookie_paid => return Err(Refusal::Seen),
            Some(Verdict::CookieSent) | None => {}
        }
        if self.load.under_load(now) && !checked.cookie_paid {
            return Ok(self.ask_cookie(&checked, inbound, rng));
        }
        match open_initiation(local, &checked, &mut self.agreements)? {
            Some(opened) => self.accept(inbound, &checked, opened),
            None => Ok(self.ask_cookie(&checked, inbound, rng)),
        }
    }

    /// mac1 first, before anything else is computed; then mac2, which is zero or valid.
    fn check_macs<'a>(
        &mut self,
        local: Local<'a>,
        inbound: Inbound<'_>,
        rng: &mut impl CryptoRng,
    ) -> Result<Checked<'a>, Refusal> {
        let initiation = Initiation::decode(inbound.datagram)?;
        let (covered_by_mac2, _) = inbound.datagram.split_at(inbound.datagram.len() - MAC_LEN);
        let (covered_by_mac1, _) = covered_by_mac2.split_at(covered_by_mac2.len() - MAC_LEN);
        let (own, key_retired) = receiving_key(local, covered_by_mac1, &initiation.mac1)?;
        self.is_gate_changed |= self.cookies.rotate(inbound.now, rng);
        let cookie_paid = initiation.mac2 != [0; MAC_LEN];
        if cookie_paid && !self.cookies.mac2_is_valid(inbound.source, covered_by_mac2, &initiation.mac2) {
            return Err(Refusal::Mac2);
        }
        Ok(Checked { initiation, own, key_retired, cookie_paid })
    }

    /// Gives an authentic D1 its state, unless it is a replay or there is no room.
    fn accept(&mut self, inbound: Inbound<'_>, checked: &Checked<'_>, opened: Opened) -> Result<Outcome, Refusal> {
        let Inbound { now, source, datagram } = inbound;
        let Opened { noise, admission, offer } = opened;
        let Initiation { sender, ephemeral, mac1, .. } = checked.initiation;
        let claim = *admission.transport_key();
        let is_guest = admission.rights() == Rights::Guest;
        if !is_guest && !self.timestamps.is_later(&claim, offer.timestamp) {
            self.seen.insert(now, mac1, Verdict::Taken);
            return Err(Refusal::Stale);
        }
        self.check_room(&claim, is_guest, source)?;
        self.seen.insert(now, mac1, Verdict::Taken);
        let table = if is_guest {
            &mut self.guests
        } else {
            self.timestamps.record(claim, offer.timestamp);
            &mut self.members
        };
        let waiting = Waiting { noise, ephemeral, offer, key_retired: checked.key_retired };
        let half_open = HalfOpen::new(admission, sender, source.origin(), waiting);
        let half_open = table.insert(now, InitiationTag::of(&mac1), half_open);
        half_open.credit(source, FlightPart::Initiation, datagram.len());
        Ok(Outcome::default())
    }

    fn ask_cookie(&mut self, checked: &Checked<'_>, inbound: Inbound<'_>, rng: &mut impl CryptoRng) -> Outcome {
        let Initiation { sender, mac1, .. } = &checked.initiation;
        self.seen.insert(inbound.now, *mac1, Verdict::CookieSent);
        let reply = self.cookies.reply(&checked.own.network.cookie, inbound.source, *sender, mac1, rng);
        Outcome { transmit: vec![reply.encode().to_vec()], established: None }
    }

    fn check_room(&self, claim: &TransportKey, is_guest: bool, source: Source) -> Result<(), Refusal> {
        // A guest makes up keys and ports as it likes, but its address was proved by the cookie. Only the address that paid counts:
        // a copy of D1 from elsewhere proves nothing, and would use up the allowance of whoever lives there.
        let (table, capacity, of_peer) = if is_guest {
            let origin = source.origin();
            (&self.guests, MAX_HALF_OPEN_GUESTS, self.guests.count(|half_open| half_open.origin == origin))
        } else {
            let of_key = self.members.count(|half_open| half_open.admission.transport_key() == claim);
            (&self.members, MAX_HALF_OPEN, of_key)
        };
        if of_peer >= MAX_HALF_OPEN_PER_PEER {
            return Err(Refusal::PeerFull);
        }
        if table.len() >= capacity { Err(Refusal::HalfOpenFull) } else { Ok(()) }
    }

    fn handle_key_part(
        &mut self,
        local: Local<'_>,
        inbound: Inbound<'_>,
        indices: &mut Indices,
        rng: &mut impl CryptoRng,
    ) -> Result<Outcome, Refusal> {
        let Inbound { now, source, datagram } = inbound;
        let key_part = KeyPart::decode(datagram)?;
        let (covered_by_mac1, _) = datagram.split_at(datagram.len() - MAC_LEN);
        receiving_key(local, covered_by_mac1, &key_part.mac1)?;
        let Some(half_open) = self.find(key_part.initiation) else {
            // The rest of a flight that a cookie answered: it comes once more, when the cookie is paid.
            let is_asked = self.seen.verdict_of(key_part.initiation) == Some(Verdict::CookieSent);
            return if is_asked { Ok(Outcome::default()) } else { Err(Refusal::NoHandshake) };
        };
        if half_open.sender != key_part.sender {
            return Err(Refusal::NoHandshake);
        }
        let part = key_part.part;
        match (&half_open.key_parts[part.position()], &half_open.stage) {
            (Some(accepted), _) if *accepted == key_part => {}
            (Some(_), _) | (None, Stage::Answered { .. }) => return Err(Refusal::Conflict),
            (None, Stage::Waiting(waiting)) => {
                open_half(waiting, &key_part)?;
                half_open.key_parts[part.position()] = Some(key_part);
            }
        }
        let flight_part = match part {
            Part::A => FlightPart::KeyPartA,
            Part::B => FlightPart::KeyPartB,
        };
        half_open.credit(source, flight_part, datagram.len());
        let established = match (&half_open.stage, &half_open.key_parts) {
            (Stage::Waiting(waiting), [Some(first), Some(second)]) => {
                if !is_still_admitted(local.policy, &half_open.admission) {
                    return Err(Refusal::PolicyChanged);
                }
                let index = indices.reserve(rng).ok_or(Refusal::NoIndex)?;
                let answering = Answering { local, waiting, key_parts: [first, second], half_open, index, now };
                let (answers, established) = answer(&answering, rng).inspect_err(|_| indices.release(index))?;
                half_open.stage = Stage::Answered { answers, session: index };
                Some(established)
            }
            _ => None,
        };
        Ok(Outcome { transmit: half_open.take_answers(source), established })
    }

    fn find(&mut self, tag: InitiationTag) -> Option<&mut HalfOpen> {
        self.members.find(tag).or_else(|| self.guests.find(tag))
    }
}

/// Finds the static key that the datagram was made for: the current one, or the one before the last rotation.
fn receiving_key<'a>(local: Local<'a>, covered: &[u8], mac1: &[u8; MAC_LEN]) -> Result<(&'a StaticKey, bool), Refusal> {
    let current = (local.keys.current(), false);
    let retired = local.keys.retired().map(|retired| (retired, true));
    let mut candidates = std::iter::once(current).chain(retired);
    candidates.find(|(own, _)| own.network.mac1_is_valid(covered, mac1)).ok_or(Refusal::Mac1)
}

/// -> e, es, s, ss, payload1. None when a guest, whose key `es` has shown, did not pay the cookie that `ss` costs it.
fn open_initiation(
    local: Local<'_>,
    checked: &Checked<'_>,
    agreements: &mut Agreements,
) -> Result<Option<Opened>, Refusal> {
    let Checked { initiation, own: StaticKey { secret: own, .. }, cookie_paid, .. } = checked;
    let mut noise = begin(local.keys, &own.public_key());
    noise.mix_hash(&[&initiation.header()]);
    noise.mix_ephemeral(&initiation.ephemeral); // e
    noise.mix_dh(own, &initiation.ephemeral)?; // es
    let mut sealed_static = initiation.sealed_static;
    noise.open(&mut sealed_static)?; // s
    let claim = TransportKey(front(&sealed_static));
    let admission = local.policy.admit(&claim);
    // ss
    match admission.rights() {
        Rights::Guest if !cookie_paid => return Ok(None),
        Rights::Member(_) | Rights::Consensus(_) if !checked.key_retired => {
            noise.mix_key(agreements.with(own, &claim)?.expose());
        }
        _ => noise.mix_dh(own, &claim)?,
    }
    let mut sealed_payload = initiation.sealed_payload;
    noise.open(&mut sealed_payload)?; // payload1
    let offer = Offer::decode(&front(&sealed_payload))?;
    if claim == local.keys.transport_key() {
        return Err(Refusal::OwnKey);
    }
    Ok(Some(Opened { noise, admission, offer }))
}

pub(super) fn open_half(waiting: &Waiting, key_part: &KeyPart) -> Result<[u8; KEM_KEY_LEN / 2], Refusal> {
    let mut half: [u8; SEALED_KEY_HALF_LEN] = key_part.sealed_half;
    waiting.noise.open_part(key_part.part.position() as u64, &key_part.header(), &mut half)?;
    Ok(front(&half))
}

/// Returns the plaintext in front of an opened field's tag.
pub(super) fn front<const N: usize>(opened: &[u8]) -> [u8; N] {
    *opened.first_chunk().expect("a sealed field is its plaintext and a tag")
}

/// Says whether `policy` still gives a peer at least what it was admitted with.
///
/// A guest that became a member keeps its session, which carries the least there is, until a member's session replaces it: a joiner would
/// otherwise be cut off at the very block that admits it.
pub fn is_still_admitted(policy: &Policy, admission: &Admission) -> bool {
    admission.rights() == Rights::Guest || policy.admit(admission.transport_key()) == *admission
}

#[cfg(test)]
mod tests {
    use super::super::{HALF_OPEN_LIFETIME, begin};
    use super::*;
    use crate::session::testing::{Node, at, policy_of, transport_key};

    #[test]
    fn as_many_initiations_of_members_wait_as_may_be_and_no_more() {
        let mut node = Node::new(2, policy_of([1, 2, 3]));
        let admission = node.policy.admit(&transport_key(1));
        let offer = node.terms.offer(Timestamp::default());
        for number in 0..MAX_HALF_OPEN as u64 {
            assert_eq!(node.responder.check_room(&transport_key(3), false, at(1)), Ok(()));
            let noise = begin(&node.keys, &transport_key(2));
            let waiting = Waiting { noise, ephemeral: transport_key(1), offer, key_retired: false };
            let half_open = HalfOpen::new(admission, SessionIndex(1), at(1).origin(), waiting);
            node.responder.members.insert(Instant::ZERO, InitiationTag(number.to_le_bytes()), half_open);
        }
        let room = |node: &Node, is_guest| node.responder.check_room(&transport_key(3), is_guest, at(1));
        assert_eq!(room(&node, false), Err(Refusal::HalfOpenFull));
        assert_eq!(room(&node, true), Ok(()), "guests have a table of their own");
        node.responder.handle_timeout(Instant::ZERO + HALF_OPEN_LIFETIME);
        assert_eq!(room(&node, false), Ok(()));
    }
}
