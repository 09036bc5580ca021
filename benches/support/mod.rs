//! Two nodes that make handshakes with each other, for whatever a bench needs a session for.

#![allow(dead_code)] // no bench uses all of it

use p2plus::crypto::exchange::TransportSecret;
use p2plus::crypto::hash::Digest;
use p2plus::crypto::identity::{NodeId, VerifyingKey};
use p2plus::crypto::secret::Secret;
use p2plus::policy::{Member, Policy};
use p2plus::session::handshake::responder::Inbound;
use p2plus::session::{
    Aim, Established, Indices, Initiator, Local, LocalKeys, Outcome, Refusal, Responder, Session, Source, Terms,
    TimestampSource,
};
use p2plus::time::{Instant, UnixMillis};
use p2plus::wire::handshake::{CipherSet, OffloadSet};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub const INITIATOR: u8 = 1;
pub const RESPONDER: u8 = 2;

/// Longer than a half-open initiation lives, so that no table fills and nothing counts as load.
const PAUSE: Duration = Duration::from_secs(10);

/// A node as far as handshakes need it.
pub struct Node {
    pub keys: LocalKeys,
    pub policy: Policy,
    pub terms: Terms,
    indices: Indices,
    timestamps: TimestampSource,
    responder: Responder,
    pub rng: ChaCha20Rng,
    pub now: Instant,
}

impl Node {
    pub fn new(seed: u8) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(u64::from(seed));
        Self {
            keys: keys(seed),
            policy: Policy::new([INITIATOR, RESPONDER].map(member), BTreeMap::new(), BTreeSet::new()),
            terms: Terms::default(),
            indices: Indices::default(),
            timestamps: TimestampSource::default(),
            responder: Responder::new(Instant::ZERO, &mut rng),
            rng,
            now: Instant::ZERO,
        }
    }

    pub fn initiate(&mut self) -> Initiator {
        let aim = Aim { key: transport(RESPONDER).public_key(), identity: Some(NodeId([RESPONDER; 32])) };
        let offer = self.terms.offer(self.timestamps.next(UnixMillis(1)));
        let index = self.indices.reserve(&mut self.rng).expect("each attempt gives its index back");
        self.indices.release(index);
        Initiator::new(self.now, &self.keys, aim, offer, index, &mut self.rng).expect("the responder's key is usable")
    }

    pub fn receive(&mut self, datagram: &[u8]) -> Result<Outcome, Refusal> {
        let local = Local { keys: &self.keys, policy: &self.policy, terms: &self.terms };
        let source = Source::Endpoint(SocketAddr::from(([192, 0, 2, 1], 5000)));
        let inbound = Inbound { now: self.now, source, datagram };
        self.responder.handle(local, inbound, &mut self.indices, &mut self.rng)
    }

    /// Answers one flight, and forgets the session: what it leaves in the tables goes with the next one's time.
    pub fn answer(&mut self, flight: &[Vec<u8>]) -> (Vec<Vec<u8>>, Established) {
        self.now = self.now + PAUSE;
        let (mut answers, mut established) = (Vec::new(), None);
        for datagram in flight {
            let outcome = self.receive(datagram).expect("an honest flight");
            answers.extend(outcome.transmit);
            established = outcome.established.or(established);
        }
        let established = established.expect("a whole flight makes a session");
        self.indices.release(established.session.local_index());
        (answers, established)
    }

    pub fn finish(&self, initiator: &mut Initiator, answers: &[Vec<u8>]) -> Established {
        let local = Local { keys: &self.keys, policy: &self.policy, terms: &self.terms };
        let finished =
            answers.iter().map(|answer| initiator.handle_response(local, self.now, answer).expect("an honest answer"));
        finished.last().flatten().expect("both halves make a session")
    }
}

/// Both ends of a session, the initiator's first: of devices that take super-packets, with AES-256-GCM if that is wanted.
pub fn session(aes_256_gcm: bool) -> (Arc<Session>, Arc<Session>) {
    let [mut near, mut far] = [INITIATOR, RESPONDER].map(|seed| {
        let mut node = Node::new(seed);
        node.terms.ciphers = CipherSet { aes_256_gcm };
        node.terms.offload = OffloadSet { tcp: true, udp: true, frames: true };
        node
    });
    let mut initiator = near.initiate();
    let (answers, far_end) = far.answer(&flight(&initiator));
    (near.finish(&mut initiator, &answers).session, far_end.session)
}

fn transport(seed: u8) -> TransportSecret {
    TransportSecret::from_bytes([seed; 32])
}

fn keys(seed: u8) -> LocalKeys {
    LocalKeys::new(transport(seed), NodeId([seed; 32]), Digest([7; 32]), Secret::new([8; 32]))
}

fn member(seed: u8) -> Member {
    Member {
        id: NodeId([seed; 32]),
        name: format!("node-{seed}"),
        node_key: VerifyingKey([seed; 32]),
        transport_key: transport(seed).public_key(),
        addresses: Vec::new(),
        tags: Vec::new(),
        subnets: Vec::new(),
        is_exit: false,
        relay: None,
        static_endpoints: Vec::new(),
    }
}

/// What an initiator sends, datagram by datagram.
pub fn flight(initiator: &Initiator) -> Vec<Vec<u8>> {
    let to = Source::Endpoint(SocketAddr::from(([192, 0, 2, 2], 5000)));
    initiator.datagrams(to).map(<[u8]>::to_vec).into()
}
