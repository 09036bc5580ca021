//! What a handshake costs: refusing garbage, answering a whole one, beginning and ending one. `cargo bench --bench handshake`.
//!
//! The node has one thread for all of it, so that the time of one refusal says which flood fills a core, and the time of a whole
//! handshake how many peers can come at once.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use p2plus::crypto::exchange::TransportSecret;
use p2plus::crypto::hash::Digest;
use p2plus::crypto::identity::{NodeId, VerifyingKey};
use p2plus::crypto::secret::Secret;
use p2plus::policy::{Member, Policy};
use p2plus::session::handshake::responder::Inbound;
use p2plus::session::{
    Aim, Established, Indices, Initiator, Local, LocalKeys, Outcome, Refusal, Responder, Source, Terms, TimestampSource,
};
use p2plus::time::{Instant, UnixMillis};
use p2plus::wire::handshake::{INITIATION_LEN, KEY_PART_LEN, RESPONSE_LEN};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

const INITIATOR: u8 = 1;
const RESPONDER: u8 = 2;

/// Longer than a half-open initiation lives, so that no table fills and nothing counts as load.
const PAUSE: Duration = Duration::from_secs(10);

struct Node {
    keys: LocalKeys,
    policy: Policy,
    terms: Terms,
    indices: Indices,
    timestamps: TimestampSource,
    responder: Responder,
    rng: ChaCha20Rng,
    now: Instant,
}

impl Node {
    fn new(seed: u8) -> Self {
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

    fn initiate(&mut self) -> Initiator {
        let aim = Aim { key: transport(RESPONDER).public_key(), identity: Some(NodeId([RESPONDER; 32])) };
        let offer = self.terms.offer(self.timestamps.next(UnixMillis(1)));
        let index = self.indices.reserve(&mut self.rng).expect("each attempt gives its index back");
        self.indices.release(index);
        Initiator::new(self.now, &self.keys, aim, offer, index, &mut self.rng).expect("the responder's key is usable")
    }

    fn receive(&mut self, datagram: &[u8]) -> Result<Outcome, Refusal> {
        let local = Local { keys: &self.keys, policy: &self.policy, terms: &self.terms };
        let source = Source::Endpoint(SocketAddr::from(([192, 0, 2, 1], 5000)));
        let inbound = Inbound { now: self.now, source, datagram };
        self.responder.handle(local, inbound, &mut self.indices, &mut self.rng)
    }

    /// Answers one flight, and forgets the session: what it leaves in the tables goes with the next one's time.
    fn answer(&mut self, flight: &[Vec<u8>]) -> (Vec<Vec<u8>>, Established) {
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

    fn finish(&self, initiator: &mut Initiator, answers: &[Vec<u8>]) -> Established {
        let local = Local { keys: &self.keys, policy: &self.policy, terms: &self.terms };
        let finished =
            answers.iter().map(|answer| initiator.handle_response(local, self.now, answer).expect("an honest answer"));
        finished.last().flatten().expect("both halves make a session")
    }
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
    }
}

fn flight(initiator: &Initiator) -> Vec<Vec<u8>> {
    let to = Source::Endpoint(SocketAddr::from(([192, 0, 2, 2], 5000)));
    initiator.datagrams(to).map(<[u8]>::to_vec).into()
}

/// A datagram with the right first bytes and length, and nothing else right.
fn garbage(rng: &mut ChaCha20Rng, front: [u8; 4], len: usize) -> Vec<u8> {
    let mut datagram = vec![0; len];
    rng.fill_bytes(&mut datagram);
    datagram[..4].copy_from_slice(&front);
    datagram
}

fn refuse_garbage(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("refuse");
    group.throughput(Throughput::Elements(1));
    let (mut near, mut far) = (Node::new(INITIATOR), Node::new(RESPONDER));
    for (name, front, len) in [("D1", [1, 0, 0, 0], INITIATION_LEN), ("D2", [2, 0, 0, 0], KEY_PART_LEN)] {
        let datagram = garbage(&mut far.rng, front, len);
        group.bench_function(name, |bencher| {
            bencher.iter(|| assert_eq!(far.receive(black_box(&datagram)).err(), Some(Refusal::Mac1)));
        });
    }
    let mut initiator = near.initiate();
    let datagram = garbage(&mut far.rng, [3, 0, 0, 0], RESPONSE_LEN[0]);
    let local = Local { keys: &near.keys, policy: &near.policy, terms: &near.terms };
    group.bench_function("M2", |bencher| {
        bencher.iter(|| {
            let refused = initiator.handle_response(local, near.now, black_box(&datagram));
            assert_eq!(refused.err(), Some(Refusal::Mac1));
        });
    });
    group.finish();
}

fn handshake(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handshake");
    group.throughput(Throughput::Elements(1));
    let (mut near, mut far) = (Node::new(INITIATOR), Node::new(RESPONDER));
    group.bench_function("responder", |bencher| {
        bencher.iter_batched(|| flight(&near.initiate()), |sent| far.answer(&sent), BatchSize::SmallInput);
    });
    group.bench_function("initiator begins", |bencher| bencher.iter(|| near.initiate()));
    group.bench_function("initiator ends", |bencher| {
        let mut setup = |near: &mut Node| {
            let initiator = near.initiate();
            let (answers, _) = far.answer(&flight(&initiator));
            (initiator, answers)
        };
        bencher.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                let (mut initiator, answers) = setup(&mut near);
                let began = std::time::Instant::now();
                black_box(near.finish(&mut initiator, &answers));
                spent += began.elapsed();
            }
            spent
        });
    });
    group.finish();
}

criterion_group!(benches, refuse_garbage, handshake);
criterion_main!(benches);
