//! Routes, packets out of the device and packets from peers, against a list that is searched from end to end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::router::icmp::{AnswerSources, Answerer};
use p2plus::router::{Owner, PeerIndex, Prefix, Router};
use p2plus::time::Instant;
use p2plus::wire::icmp::IcmpError;
use p2plus::wire::inner::InnerPacket;
use p2plus_fuzz::Script;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const LOCAL_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// IPv6 answers come from the destination.
const ANSWER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 53);

fuzz_target!(|bytes: &[u8]| {
    let mut script = Script::new(bytes);
    let mut local = vec![Prefix::host(LOCAL_V4.into()), Prefix::host(LOCAL_V6.into())];
    local.extend(prefixes(&mut script));
    let subnets = prefixes(&mut script);
    let peers: Vec<PeerIndex> = (0..3).filter_map(PeerIndex::at).collect();
    let routes: Vec<_> = prefixes(&mut script).into_iter().zip(peers.iter().copied().cycle()).collect();
    let router = Router::new(local.clone(), subnets.clone(), routes.clone());

    // The first of the longest, in the order local, overlay, routes.
    let mut owners: Vec<(Prefix, Option<Owner>)> = local.iter().map(|prefix| (*prefix, Some(Owner::Local))).collect();
    for subnet in &subnets {
        owners.extend(subnet.broadcast().map(|address| (address, Some(Owner::Broadcast))));
        owners.push((*subnet, None));
    }
    owners.extend(routes.iter().map(|(prefix, peer)| (*prefix, Some(Owner::Peer(*peer)))));
    let owner = |address: IpAddr| {
        let covering = owners.iter().filter(|(prefix, _)| prefix.contains(address));
        covering.rev().max_by_key(|(prefix, _)| prefix.bits()).and_then(|(_, owner)| *owner)
    };

    let sources = AnswerSources { v4: Some(ANSWER_V4), v6: None };
    let mut answerer = Answerer::new();
    let mut now = Instant::ZERO;
    while !script.is_over() {
        now = Instant::from_micros(now.as_micros() + u64::from(script.u16()));
        let raw = addressed(&mut script);
        let Ok(packet) = InnerPacket::parse(&raw) else { continue };
        assert_eq!(router.owner(packet.source), owner(packet.source));
        assert_eq!(router.owner(packet.destination), owner(packet.destination));
        if let Ok(peer) = router.outbound(&packet) {
            assert_eq!(owner(packet.destination), Some(Owner::Peer(peer)));
            assert_eq!(owner(packet.source), Some(Owner::Local));
        }
        for peer in peers.iter().copied() {
            if router.inbound(peer, &packet).is_ok() {
                assert_eq!(owner(packet.source), Some(Owner::Peer(peer)));
                assert_eq!(owner(packet.destination), Some(Owner::Local));
            }
        }
        if let Ok(answer) = answerer.answer(now, sources, IcmpError::NoRoute, &packet, &raw) {
            let answer_packet = InnerPacket::parse(&answer).expect("an answer is a packet");
            assert_eq!(answer_packet.destination, packet.source);
            assert!(answerer.answer(now, sources, IcmpError::NoRoute, &answer_packet, &answer).is_err());
        }
    }
});

/// Reads up to seven prefixes.
fn prefixes(script: &mut Script<'_>) -> Vec<Prefix> {
    (0..script.u8() % 8).filter_map(|_| Prefix::new(address(script), script.u8()).ok()).collect()
}

fn address(script: &mut Script<'_>) -> IpAddr {
    match script.u8() % 4 {
        0 => Ipv4Addr::new(10, 77, 0, script.u8()).into(),
        1 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, script.u16()).into(),
        2 => Ipv4Addr::from(script.array::<4>()).into(),
        _ => Ipv6Addr::from(script.array::<16>()).into(),
    }
}

/// Reads a packet: as it is, or with addresses and lengths that fit.
fn addressed(script: &mut Script<'_>) -> Vec<u8> {
    let mode = script.u8();
    let (source, destination) = (address(script), address(script));
    let mut raw = script.chunk().to_vec();
    let Ok(len) = u16::try_from(raw.len()) else { return raw };
    match (mode % 2, source, destination) {
        (1, IpAddr::V4(source), IpAddr::V4(destination)) if len >= 20 => {
            raw[0] = 0x45;
            raw[2..4].copy_from_slice(&len.to_be_bytes());
            raw[12..16].copy_from_slice(&source.octets());
            raw[16..20].copy_from_slice(&destination.octets());
        }
        (1, IpAddr::V6(source), IpAddr::V6(destination)) if len >= 40 => {
            raw[0] = 0x60;
            raw[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            raw[8..24].copy_from_slice(&source.octets());
            raw[24..40].copy_from_slice(&destination.octets());
        }
        _ => {}
    }
    raw
}
