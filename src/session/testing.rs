//! Two nodes that know each other, for tests.

use super::cookie::Source;
use super::handshake::initiator::Initiator;
use super::handshake::responder::{Inbound, Outcome, Responder};
use super::handshake::timestamps::TimestampSource;
use super::handshake::{Aim, Established, Local, LocalKeys, Refusal, Terms};
use super::index::Indices;
use crate::crypto::exchange::{TransportKey, TransportSecret};
use crate::crypto::hash::Digest;
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::crypto::secret::Secret;
use crate::policy::{Member, Policy};
use crate::time::{Instant, UnixMillis};
use crate::wire::handshake::OffloadSet;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

pub(super) const NETWORK_SECRET: [u8; 32] = [0x5e; 32];

/// A node: keys, tables and what it thinks of the network.
pub(crate) struct Node {
    pub(super) keys: LocalKeys,
    pub(super) policy: Policy,
    pub(super) terms: Terms,
    pub(super) indices: Indices,
    pub(super) timestamps: TimestampSource,
    pub(super) responder: Responder,
    pub(super) rng: ChaCha20Rng,
}

impl Node {
    pub(super) fn new(seed: u8, policy: Policy) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(u64::from(seed));
        Self {
            keys: keys(seed),
            policy,
            terms: Terms::default(),
            indices: Indices::default(),
            timestamps: TimestampSource::default(),
            responder: Responder::new(Instant::ZERO, &mut rng),
            rng,
        }
    }

    pub(super) fn local(&self) -> Local<'_> {
        Local { keys: &self.keys, policy: &self.policy, terms: &self.terms }
    }

    /// Begins an attempt towards the member with `seed`.
    pub(super) fn initiate(&mut self, now: Instant, seed: u8) -> Initiator {
        let offer = self.terms.offer(self.timestamps.next(UnixMillis(now.as_micros() / 1000)));
        let index = self.indices.reserve(&mut self.rng).unwrap();
        Initiator::new(now, &self.keys, aim(seed), offer, index, &mut self.rng).unwrap()
    }

    pub(super) fn receive(&mut self, now: Instant, source: Source, datagram: &[u8]) -> Result<Outcome, Refusal> {
        let local = Local { keys: &self.keys, policy: &self.policy, terms: &self.terms };
        self.responder.handle(local, Inbound { now, source, datagram }, &mut self.indices, &mut self.rng)
    }
}

pub(super) fn keys(seed: u8) -> LocalKeys {
    keys_with(seed, NETWORK_SECRET)
}

/// The keys of a node that believes in another secret of the network.
pub(super) fn keys_with(seed: u8, network_secret: [u8; 32]) -> LocalKeys {
    let transport = TransportSecret::from_bytes([seed; 32]);
    LocalKeys::new(transport, NodeId([seed; 32]), Digest([0x1d; 32]), Secret::new(network_secret))
}

pub(super) fn transport_key(seed: u8) -> TransportKey {
    TransportSecret::from_bytes([seed; 32]).public_key()
}

pub(super) fn aim(seed: u8) -> Aim {
    Aim { key: transport_key(seed), identity: Some(NodeId([seed; 32])) }
}

/// A network of the members with these seeds.
pub(super) fn policy_of(seeds: impl IntoIterator<Item = u8>) -> Policy {
    let members = seeds.into_iter().map(|seed| Member {
        id: NodeId([seed; 32]),
        name: format!("node-{seed}"),
        node_key: VerifyingKey([seed; 32]),
        transport_key: transport_key(seed),
        addresses: Vec::new(),
        tags: Vec::new(),
        subnets: Vec::new(),
        is_exit: false,
        relay: None,
        static_endpoints: Vec::new(),
    });
    Policy::new(members, BTreeMap::new(), BTreeSet::new())
}

pub(super) fn at(port: u16) -> Source {
    Source::Endpoint(SocketAddr::from(([192, 0, 2, 1], port)))
}

/// Carries one flight to `responder` and its answers back; returns both ends.
pub(super) fn shake(
    now: Instant,
    initiator_node: &mut Node,
    initiator: &mut Initiator,
    responder: &mut Node,
) -> (Established, Established) {
    let (mut far, mut near) = (None, None);
    for datagram in initiator.datagrams(at(2)).map(<[u8]>::to_vec) {
        let outcome = responder.receive(now, at(1), &datagram).unwrap();
        far = outcome.established.or(far);
        for answer in outcome.transmit {
            near = initiator.handle_response(initiator_node.local(), now, &answer).unwrap().or(near);
        }
    }
    (near.unwrap(), far.unwrap())
}

/// Members 1 and 2, and their session: the initiator's end first.
pub(crate) fn established_pair() -> (Node, Node, Established, Established) {
    established_pair_with(OffloadSet::default())
}

/// The same, with devices that take these super-packets.
pub(crate) fn established_pair_with(offload: OffloadSet) -> (Node, Node, Established, Established) {
    let policy = policy_of([1, 2]);
    let (mut left, mut right) = (Node::new(1, policy.clone()), Node::new(2, policy));
    left.terms.offload = offload;
    right.terms.offload = offload;
    let mut initiator = left.initiate(Instant::ZERO, 2);
    let (near, far) = shake(Instant::ZERO, &mut left, &mut initiator, &mut right);
    (left, right, near, far)
}
