//! What the data plane costs without the kernel: packets sealed and opened, super-packets put together and split, destinations looked up.
//! `cargo bench --bench data_plane`.
//!
//! With `--features null-cipher` in front of the name: all of it but the cipher. Destinations are uniformly random, so that nothing is in
//! a cache that would not be there at work.

mod support;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use p2plus::crypto::identity::NodeId;
use p2plus::io::batch::SendBatch;
use p2plus::node::forward::{Arrival, Delivery, DevicePacket, Inbound, Incoming, Opening, Outbound, Outgoing};
use p2plus::node::table::{ForwardingTable, Inlet, Outlet};
use p2plus::path::{LocalEnd, Path, PathMtu};
use p2plus::policy::decision::NumberedRule;
use p2plus::policy::rule::{Action, PortRange, Ports, Protocol, Rule, Selector};
use p2plus::policy::{Policy, Rights};
use p2plus::router::filter::Filter;
use p2plus::router::segmentation::{Cut, Run, SuperPacket};
use p2plus::router::{PeerIndex, Prefix, Router};
use p2plus::session::Session;
use p2plus::time::Instant;
use p2plus::wire::datagram::{Lane, SessionIndex};
use p2plus::wire::drops::DropReason;
use p2plus::wire::ecn::Ecn;
use p2plus::wire::handshake::OffloadSet;
use p2plus::wire::inner::InnerPacket;
use p2plus::wire::offload::{PlainHeaders, Segmentation, VnetHeader};
use p2plus::wire::transport_record::{Chunk, Layer};
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const NOW: Instant = Instant::ZERO;

/// Segments of a super-packet and payload bytes of each, as a TUN with an MTU of 1400 bytes gives them.
const SEGMENTS: usize = 45;
const SEGMENT_LEN: usize = 1360;

/// Bytes of a small packet, and how many of them go in a row.
const SMALL_LEN: usize = 64;
const SMALL_ROW: usize = 64;

const PEERS: [u32; 3] = [10, 1_000, 100_000];

/// Rules of a network that has many.
const RULES: u32 = 10_000;

/// The node that seals, then its peers.
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);

fn address(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(NEAR.to_bits() + 1 + peer)
}

fn id(address: Ipv4Addr) -> NodeId {
    let mut id = [7; 32];
    id[..4].copy_from_slice(&address.octets());
    NodeId(id)
}

fn filter(rules: impl IntoIterator<Item = Rule>) -> Arc<Filter> {
    let rules = (1..).zip(rules).map(|(number, rule)| NumberedRule { number, rule }).collect();
    Arc::new(Filter::closed(NOW).following(&Policy::default().with_rules(rules)))
}

/// Rules of which the last one allows what the benches send; those before it are about neighbours of both ends and other ports.
fn many_rules() -> impl Iterator<Item = Rule> {
    let prefix = |address: Ipv4Addr, len| Selector::Prefix(Prefix::new(address.into(), len).expect("a prefix"));
    let port = |port| Ports::new([PortRange::new(port, port).expect("a port")]).expect("one range");
    (1..=RULES).map(move |number| {
        let is_last = number == RULES;
        let action = if number % 7 == 0 && !is_last { Action::Deny } else { Action::Allow };
        let ends = match number % 3 {
            _ if is_last => [prefix(NEAR, 20), prefix(NEAR, 20)],
            0 => [prefix(address(number), 32), prefix(address(number + 1), 32)],
            1 => [prefix(NEAR, 24), prefix(address(number), 32)],
            _ => [prefix(NEAR, 20), prefix(NEAR, 20)],
        };
        let ports = if is_last { Ports::default() } else { port(1 + (number % 900) as u16) };
        Rule::new(action, ends, Protocol::Any, ports).expect("a rule")
    })
}

/// The table of the node at `own`, whose peers all share a session.
fn table(own: Ipv4Addr, peers: impl Iterator<Item = Ipv4Addr>, session: &Arc<Session>) -> ForwardingTable {
    let path = Path::from(SocketAddr::from(([192, 0, 2, 1], 4647)));
    let peers: Vec<_> = (0..).filter_map(PeerIndex::at).zip(peers).collect();
    let routes = peers.iter().map(|(number, peer)| (Prefix::host((*peer).into()), *number));
    let router = Router::new([Prefix::host(own.into())], [], routes);
    let (number, peer) = *peers.first().expect("a peer");
    let (rights, peer_number) = (Rights::Member(id(peer)), Some(number));
    // Packets for two peers share no datagram, though all peers of a bench share one session.
    let local = |number: PeerIndex| LocalEnd { socket: number.position() as u8, address: None };
    let outlet = |number| {
        let path = Path { local: Some(local(number)), ..path };
        (number, Outlet { session: Arc::clone(session), path, mtu: PathMtu::Known(1500) })
    };
    let inlet = Inlet {
        session: Arc::clone(session),
        rights,
        peer: peer_number,
        guest_origin: None,
        path: Some(path),
        awaited: false,
    };
    ForwardingTable {
        generation: 1,
        router: Arc::new(router),
        filter: filter([Rule::allow_all()]),
        members: Arc::new(peers.iter().map(|(_, peer)| id(*peer)).collect()),
        outlets: Arc::new(peers.iter().map(|(number, _)| outlet(*number)).collect()),
        inlets: Arc::new([(session.local_index(), inlet)].into_iter().collect()),
        ..ForwardingTable::empty()
    }
}

/// An IPv4 packet from the near node to `to` as the kernel gives it, with `payload_len` bytes of TCP or UDP behind its headers.
fn packet(to: Ipv4Addr, is_tcp: bool, payload_len: usize) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    bytes[..10].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, if is_tcp { 6 } else { 17 }]);
    bytes[12..16].copy_from_slice(&NEAR.octets());
    bytes[16..20].copy_from_slice(&to.octets());
    bytes.resize(20 + if is_tcp { 20 } else { 8 }, 0);
    if is_tcp {
        bytes[20 + 12..20 + 14].copy_from_slice(&[0x50, 0x10]);
    }
    let header_len = bytes.len();
    bytes.resize(header_len + payload_len, 0x2a);
    PlainHeaders::parse(&bytes).expect("plain headers").set_payload_len(&mut bytes[..header_len], payload_len);
    bytes
}

fn super_packet() -> (Vec<u8>, VnetHeader) {
    let bytes = packet(address(0), true, SEGMENTS * SEGMENT_LEN);
    let plain = PlainHeaders::parse(&bytes).expect("plain headers");
    let segments = Segmentation { kind: plain.kind(), segment_len: SEGMENT_LEN as u16, has_cwr: false };
    (bytes, VnetHeader { checksum: Some(plain.checksum()), segments: Some((segments, 40)) })
}

/// Both ends of a session between the near node and its first peer.
struct Link {
    near: ForwardingTable,
    far: ForwardingTable,
    outgoing: Outgoing,
    incoming: Incoming,
    batch: SendBatch,
}

impl Link {
    fn new(aes_256_gcm: bool) -> Self {
        let (near, far) = support::session(aes_256_gcm);
        Self {
            near: table(NEAR, [address(0)].into_iter(), &near),
            far: table(address(0), [NEAR].into_iter(), &far),
            outgoing: outgoing(),
            incoming: Incoming::new(OffloadSet { tcp: true, udp: true, frames: true }),
            batch: SendBatch::default(),
        }
    }

    /// Seals `count` packets into the batch.
    fn seal(&mut self, count: usize, vnet: VnetHeader, bytes: &mut [u8]) {
        self.batch.clear();
        for _ in 0..count {
            let mut packet = DevicePacket { vnet, bytes };
            let outcome = self.outgoing.seal(&self.near, NOW, &mut packet, &mut self.batch);
            assert_eq!(outcome, Outbound::Sealed);
        }
        assert!(self.outgoing.finish(NOW, &mut self.batch).is_empty());
    }

    /// Opens all that is in the batch. Returns how long that took.
    fn open(&mut self) -> Duration {
        let end = self.batch.trains().last().map_or(0, |train| train.bytes.end);
        let mut memory = self.batch.memory()[..end].to_vec();
        let began = std::time::Instant::now();
        let mut rest = memory.as_mut_slice();
        let mut delivered = Delivered(0);
        let mut opening = Opening::new(&self.far, &mut self.incoming, NOW);
        for train in self.batch.trains() {
            let (datagrams, behind) = rest.split_at_mut(train.bytes.len());
            rest = behind;
            for datagram in datagrams.chunks_mut(train.datagram_len) {
                let (inbound, _) = opening.open(Arrival::from(train.path), datagram, &mut delivered);
                assert_eq!(inbound, Inbound::Done);
            }
        }
        opening.end(&mut delivered);
        let took = began.elapsed();
        assert!(delivered.0 > 0);
        took
    }
}

/// A device that counts what it gets.
struct Delivered(usize);

impl Delivery for Delivered {
    fn packet(&mut self, _: Layer, _: &VnetHeader, packet: &[u8]) {
        self.0 += black_box(packet).len();
    }

    fn super_packet(&mut self, packet: &SuperPacket<'_>) {
        self.0 += black_box(packet).pieces.len();
    }

    fn dropped(&mut self, reason: DropReason) {
        panic!("{reason:?}");
    }
}

fn outgoing() -> Outgoing {
    let mut outgoing = Outgoing::new(Lane::new(1, 0));
    outgoing.learn_link(NOW, SocketAddr::from(([192, 0, 2, 1], 4647)), Some(1500));
    outgoing
}

fn batches(criterion: &mut Criterion) {
    let (super_bytes, super_vnet) = super_packet();
    let small = packet(address(0), false, SMALL_LEN - 28);
    let shapes = [
        ("super-packet", 1, super_vnet, super_bytes, Throughput::Bytes((SEGMENTS * SEGMENT_LEN) as u64)),
        ("64 packets of 64 B", SMALL_ROW, VnetHeader::default(), small, Throughput::Elements(SMALL_ROW as u64)),
    ];
    for (shape, count, vnet, mut bytes, throughput) in shapes {
        let mut group = criterion.benchmark_group(shape);
        group.throughput(throughput);
        for (cipher, aes_256_gcm) in [("aes-256-gcm", true), ("chacha20-poly1305", false)] {
            // A new link each: a key seals 2^28 packets.
            group.bench_function(BenchmarkId::new("seal", cipher), |bencher| {
                let mut link = Link::new(aes_256_gcm);
                bencher.iter(|| link.seal(count, vnet, black_box(&mut bytes)));
            });
            group.bench_function(BenchmarkId::new("open", cipher), |bencher| {
                let mut link = Link::new(aes_256_gcm);
                let mut round = |_| {
                    link.seal(count, vnet, &mut bytes);
                    link.open()
                };
                bencher.iter_custom(|rounds| (0..rounds).map(&mut round).sum());
            });
        }
        group.finish();
    }
}

/// What the rules cost: none that is looked at, against many, in conversations under way.
fn rules(criterion: &mut Criterion) {
    let (super_bytes, super_vnet) = super_packet();
    let small = packet(address(0), false, SMALL_LEN - 28);
    let full = packet(address(0), false, 1400 - 28);
    for (shape, count, vnet, mut bytes) in [
        ("rules: super-packet", 1, super_vnet, super_bytes),
        ("rules: 64 packets of 64 B", SMALL_ROW, VnetHeader::default(), small),
        ("rules: 64 packets of 1400 B", SMALL_ROW, VnetHeader::default(), full),
    ] {
        let mut group = criterion.benchmark_group(shape);
        group.throughput(Throughput::Elements(count as u64));
        for (name, filter) in [("none", filter([Rule::allow_all()])), ("10000", filter(many_rules()))] {
            group.bench_function(BenchmarkId::new("seal and open", name), |bencher| {
                let mut link = Link::new(true);
                link.near.filter = Arc::clone(&filter);
                link.far.filter = Arc::clone(&filter);
                bencher.iter_custom(|rounds| {
                    let round = |_| {
                        let began = std::time::Instant::now();
                        link.seal(count, vnet, black_box(&mut bytes));
                        began.elapsed() + link.open()
                    };
                    (0..rounds).map(round).sum()
                });
            });
        }
        group.finish();
    }
    let mut group = criterion.benchmark_group("a conversation that begins");
    let filter = filter(many_rules());
    group.bench_function("10000 rules", |bencher| {
        let (bytes, mut number) = (packet(address(0), false, SMALL_LEN - 28), 0_u32);
        bencher.iter(|| {
            let mut bytes = bytes.clone();
            number = number.wrapping_add(1);
            bytes[20..22].copy_from_slice(&(number as u16).to_be_bytes());
            let inner = InnerPacket::parse(&bytes).expect("an IP packet");
            filter.check(NOW, PeerIndex::at(number >> 16).expect("a peer"), &inner, black_box(&bytes))
        });
    });
    group.finish();
}

/// Uniformly random peers, by a xorshift generator (Marsaglia 2003): a nanosecond each.
fn random_peers(count: u32) -> impl FnMut() -> u32 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (((state >> 32) * u64::from(count)) >> 32) as u32
    }
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("random destination");
    group.throughput(Throughput::Elements(1));
    for count in PEERS {
        let (session, _) = support::session(true);
        let table = table(NEAR, (0..count).map(address), &session);
        let (mut outgoing, mut batch) = (outgoing(), SendBatch::default());
        group.bench_function(BenchmarkId::new("lookup", count), |bencher| {
            let mut peer = random_peers(count);
            let small = packet(address(0), false, SMALL_LEN - 28);
            let mut inner = InnerPacket::parse(&small).expect("an IP packet");
            bencher.iter(|| {
                inner.destination = address(peer()).into();
                table.router.outbound(black_box(&inner))
            });
        });
        for len in [SMALL_LEN, 1400] {
            group.bench_function(BenchmarkId::new(format!("lookup and seal {len} B"), count), |bencher| {
                let mut peer = random_peers(count);
                let mut bytes = packet(address(0), false, len - 28);
                // As the device gives them under load: what is kept back for others leaves at the end of a row.
                bencher.iter_custom(|packets| {
                    let began = std::time::Instant::now();
                    for packet in 0..packets {
                        bytes[16..20].copy_from_slice(&address(peer()).octets());
                        let mut sent = DevicePacket { vnet: VnetHeader::default(), bytes: &mut bytes };
                        assert_eq!(outgoing.seal(&table, NOW, &mut sent, &mut batch), Outbound::Sealed);
                        if packet % SMALL_ROW as u64 == 0 || batch.is_full() {
                            assert!(outgoing.finish(NOW, &mut batch).is_empty());
                            batch.clear();
                        }
                    }
                    began.elapsed()
                });
            });
        }
    }
    group.finish();
}

fn reassembly(criterion: &mut Criterion) {
    let (bytes, vnet) = super_packet();
    let (segments, _) = vnet.segments.expect("a super-packet");
    let cut = Cut::new(Layer::Ip, &bytes, segments).expect("plain headers");
    let (headers, payload) = bytes.split_at(cut.header_len());
    let chunk = |part: p2plus::router::segmentation::Part| Chunk {
        layer: Layer::Ip,
        is_last: part.is_last,
        super_packet: 1,
        offset: part.payload.start as u16,
        segment_len: segments.segment_len,
        headers,
        payload: &payload[part.payload],
    };
    let chunks: Vec<_> = cut.parts(0).map(chunk).collect();
    let put_together = || {
        let mut run = Run::begin(SessionIndex(1), Ecn::NotCapable, &chunks[0]).expect("plain headers");
        assert!(chunks[1..].iter().all(|chunk| run.take(SessionIndex(1), Ecn::NotCapable, black_box(chunk))));
        run.finish()
    };
    let mut group = criterion.benchmark_group("reassembly of 45 chunks");
    group.throughput(Throughput::Bytes((SEGMENTS * SEGMENT_LEN) as u64));
    group.bench_function("run", |bencher| bencher.iter(|| put_together().pieces.len()));
    group.bench_function("split", |bencher| {
        bencher.iter_batched_ref(
            put_together,
            |whole| whole.split(|packet| _ = black_box(packet)),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, batches, lookups, rules, reassembly);
criterion_main!(benches);
