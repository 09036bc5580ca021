//! What a segment costs for each frame, before anything is sealed: who has the destination, may the source be it, does it say something
//! to the link. `cargo bench --bench segments`.
//!
//! With two threads both ask for stations behind one bridge, which share the learned table.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use p2plus::crypto::identity::NodeId;
use p2plus::router::PeerIndex;
use p2plus::router::bridge::{Plan, Role, Segment};
use p2plus::time::Instant;
use p2plus::wire::frame::{MacAddress, SegmentNumber};
use std::hint::black_box;
use std::thread;
use std::time::Duration;

const SEGMENT: SegmentNumber = SegmentNumber(1);
/// Stations behind the bridge: as many as it may have.
const STATIONS: u64 = 256;

fn role(node: u32) -> Role {
    let mut id = [7; 32];
    id[..4].copy_from_slice(&node.to_le_bytes());
    Role { is_bridge: true, ..Role::plain(SEGMENT, &NodeId(id)) }
}

fn peer(position: u32) -> PeerIndex {
    PeerIndex::at(position).expect("few")
}

fn segment(members: u32) -> Segment {
    let peers = (0..members).map(|position| (peer(position), role(position + 1))).collect();
    Segment::new(Plan { own: role(0), peers, storm_limit: 1_000, overlay: Vec::new() }, None)
}

/// A TCP packet's headers in a frame: what of a super-frame is looked at.
fn frame(from: MacAddress, to: MacAddress) -> Vec<u8> {
    let mut packet = [0; 40];
    packet[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
    packet[12..20].copy_from_slice(&[10, 99, 0, 1, 10, 99, 0, 2]);
    packet[32] = 0x50;
    [&to.0[..], &from.0, &[8, 0], &packet].concat()
}

fn station(number: u64) -> MacAddress {
    MacAddress([0x52, 0, 0, 0, 0, (number % STATIONS) as u8])
}

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a frame of a segment");
    group.throughput(Throughput::Elements(1));
    for members in [3, 250] {
        let (segment, now) = (segment(members), Instant::ZERO + Duration::from_secs(1));
        let (own, other) = (role(0).mac, role(1).mac);
        let (out, inward) = (frame(own, other), frame(other, own));
        group.bench_function(BenchmarkId::new("out, to a device", members), |bencher| {
            bencher.iter(|| segment.outbound(now, black_box(&out)).expect("a member"));
        });
        group.bench_function(BenchmarkId::new("in, from a device", members), |bencher| {
            bencher.iter(|| segment.inbound(now, peer(0), black_box(&inward)).expect("a member"));
        });
        let stations: Vec<_> = (0..STATIONS).map(|number| frame(station(number), own)).collect();
        stations.iter().for_each(|frame| segment.inbound(now, peer(0), frame).expect("a bridge"));
        group.bench_function(BenchmarkId::new("in, from stations behind a bridge", members), |bencher| {
            let mut frames = stations.iter().cycle();
            bencher.iter(|| segment.inbound(now, peer(0), black_box(frames.next().expect("an endless row"))));
        });
        group.bench_function(BenchmarkId::new("the same, two threads at once", members), |bencher| {
            bencher.iter_custom(|frames| {
                let began = std::time::Instant::now();
                thread::scope(|scope| {
                    for _ in 0..2 {
                        scope.spawn(|| {
                            for number in 0..frames {
                                let frame = &stations[(number % STATIONS) as usize];
                                segment.inbound(now, peer(0), black_box(frame)).expect("a bridge");
                            }
                        });
                    }
                });
                began.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
