//! What a handshake costs: refusing garbage, answering a whole one, beginning and ending one. `cargo bench --bench handshake`.
//!
//! The node has one thread for all of it, so that the time of one refusal says which flood fills a core, and the time of a whole
//! handshake how many peers can come at once.

mod support;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use p2plus::session::{Local, Refusal};
use p2plus::wire::handshake::{INITIATION_LEN, KEY_PART_LEN, RESPONSE_LEN};
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use std::hint::black_box;
use std::time::Duration;
use support::{INITIATOR, Node, RESPONDER, flight};

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
