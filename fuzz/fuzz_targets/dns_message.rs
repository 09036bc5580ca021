//! Messages to the resolver, as datagrams, over TCP and as packets of the own device: no answer is longer than its transport allows, and
//! none comes without a question.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::node::resolver::{MAX_QUERY_LEN, MAX_UDP_LEN, Resolver, Transport, Zone, ZoneTerms, answer, ask};
use p2plus::policy::{Member, Policy};
use p2plus::router::Prefix;
use p2plus::router::icmp::AnswerSources;
use p2plus::time::Instant;
use p2plus::wire::inner::InnerPacket;
use p2plus::wire::record::{RecordData, RecordName, Target, Text, ZoneName};
use p2plus_fuzz::{node_id, transport_key, verifying_key};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 53);
/// A header of a plain question.
const HEADER: [u8; 12] = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];

static ZONE: LazyLock<Arc<Zone>> = LazyLock::new(|| Arc::new(zone()));

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&[HEADER.as_slice(), bytes].concat());
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = ask(&ZONE, text, None);
    }
    check_packet(bytes);
});

fn check(query: &[u8]) {
    for transport in [Transport::Udp, Transport::Tcp] {
        let Ok(answer) = answer(&ZONE, query, transport) else { continue };
        assert!(query.len() <= MAX_QUERY_LEN && query[2] & 0x80 == 0);
        assert!(answer.bytes[2] & 0x80 != 0 && answer.bytes[..2] == query[..2]);
        assert!(transport == Transport::Tcp || answer.bytes.len() <= usize::from(MAX_UDP_LEN));
    }
}

/// Lets the resolver have a packet: as it is, and as a datagram from the own address.
fn check_packet(bytes: &[u8]) {
    let addresses = AnswerSources { v4: Some(RESOLVER), v6: None };
    let mut resolver = Resolver::new();
    resolver.set_zone(Arc::clone(&ZONE), vec![OWN.into()], addresses, &mut ChaCha20Rng::seed_from_u64(1));
    let datagram = udp(bytes);
    for packet in [bytes, &datagram] {
        let _ = resolver.handle_packet(Instant::ZERO, packet);
        while let Some(answer) = resolver.poll_transmit() {
            let inner = InnerPacket::parse(&answer).expect("an answer is a packet");
            assert_eq!((inner.source, inner.destination), (RESOLVER.into(), IpAddr::from(OWN)));
        }
    }
}

/// A datagram to the resolver, without a checksum as UDP over IPv4 allows.
fn udp(payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(2000)];
    let len = |headers: usize| u16::try_from(headers + payload.len()).expect("it is short").to_be_bytes();
    let mut packet =
        [&[0x45, 0][..], &len(28), &[0, 0, 0x40, 0, 64, 17, 0, 0], &OWN.octets(), &RESOLVER.octets()].concat();
    let checksum = p2plus_fuzz::internet_checksum(&[&packet]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    [&packet[..], &[0x9c, 0x40, 0, 53], &len(8), &[0, 0], payload].concat()
}

fn zone() -> Zone {
    let member = |seed: u8, name: &str| Member {
        id: node_id(seed),
        name: name.to_owned(),
        node_key: verifying_key(seed),
        transport_key: transport_key(seed),
        addresses: vec![Ipv4Addr::new(10, 77, 0, seed).into(), v6(u16::from(seed)).into()],
        tags: Vec::new(),
        subnets: Vec::new(),
        is_exit: false,
        relay: None,
        static_endpoints: Vec::new(),
    };
    let name = |text: &str| text.parse::<RecordName>().expect("it is a name");
    let text = |number: u8| Text::new(vec![char::from(b'a' + number).to_string().repeat(250); 4]).expect("it is short");
    let ada = Target::Member(node_id(2));
    let mut records = vec![
        (name("mail"), RecordData::Address(node_id(2))),
        (name("@"), RecordData::Mail { priority: 10, target: Target::Name(name("mail")) }),
        (name("_imap._tcp.ada"), RecordData::Service { priority: 1, weight: 2, port: 143, target: ada }),
    ];
    records.extend((0..16).map(|number| (name("long"), RecordData::Text(text(number)))));
    let policy = Policy::new([member(1, "founder"), member(2, "ada")], BTreeMap::new(), BTreeSet::new());
    let subnets = [(IpAddr::from([10, 77, 0, 0]), 24), (v6(0).into(), 64)];
    let terms = ZoneTerms {
        name: "lab.internal".parse::<ZoneName>().expect("it is a zone"),
        subnets: subnets.into_iter().map(|(base, len)| Prefix::new(base, len).expect("it is a prefix")).collect(),
        resolver: AnswerSources { v4: Some(RESOLVER), v6: Some(v6(0x53)) },
        serial: 7,
    };
    Zone::new(Arc::new(policy.with_names(records)), terms)
}

fn v6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host)
}
