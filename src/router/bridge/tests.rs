//! A segment of four: this node, Alice, Bob who bridges, and a gateway.

use super::*;
use crate::wire::frame::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use etherparse::PacketBuilder;
use std::time::Duration;

const SEGMENT: SegmentNumber = SegmentNumber(5);
const ALICE: PeerIndex = PeerIndex::at(0).unwrap();
const BOB: PeerIndex = PeerIndex::at(1).unwrap();
const GATE: PeerIndex = PeerIndex::at(2).unwrap();
const STRANGER: PeerIndex = PeerIndex::at(3).unwrap();
const LIMIT: u32 = 50;
/// A host behind Bob's bridge, and one behind this node's.
const HOST: MacAddress = MacAddress([0x52, 0, 0, 0, 0, 1]);
const OWN_HOST: MacAddress = MacAddress([0x52, 0, 0, 0, 0, 2]);
const ALL_NODES: MacAddress = MacAddress([0x33, 0x33, 0, 0, 0, 1]);

fn now() -> Instant {
    Instant::ZERO + Duration::from_secs(1_000)
}

fn role(node: u8) -> Role {
    Role::plain(SEGMENT, &NodeId([node; 32]))
}

fn own() -> MacAddress {
    role(0).mac
}

fn plan(is_bridge: bool) -> Plan {
    let peers = vec![
        (ALICE, role(1)),
        (BOB, Role { is_bridge: true, ..role(2) }),
        (GATE, Role { is_gateway: true, ..role(3) }),
    ];
    let overlay = vec!["10.64.0.0/20".parse().unwrap()];
    Plan { own: Role { is_bridge, ..role(0) }, peers, storm_limit: LIMIT, overlay }
}

/// This node bridges nothing.
fn segment() -> Segment {
    Segment::new(plan(false), None)
}

/// This node bridges, too.
fn bridging() -> Segment {
    Segment::new(plan(true), None)
}

fn mac(peer: PeerIndex) -> MacAddress {
    role(peer.position() as u8 + 1).mac
}

fn frame(from: MacAddress, to: MacAddress, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &ethertype.to_be_bytes(), payload].concat()
}

/// A frame that says nothing to the link.
fn plain(from: MacAddress, to: MacAddress) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 9, 0, 1], [10, 9, 0, 2], 64).udp(1, 2).write(&mut packet, b"x").unwrap();
    frame(from, to, ETHERTYPE_IPV4, &packet)
}

fn udp(from: MacAddress, is_ipv6: bool, port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    match is_ipv6 {
        true => PacketBuilder::ipv6([0xfe; 16], [0xff; 16], 1).udp(547, port).write(&mut packet, b"x").unwrap(),
        false => PacketBuilder::ipv4([10, 9, 0, 1], [255; 4], 64).udp(67, port).write(&mut packet, b"x").unwrap(),
    }
    frame(from, MacAddress::BROADCAST, if is_ipv6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }, &packet)
}

fn arp(from: MacAddress, to: MacAddress, operation: u8, sender: (MacAddress, [u8; 4]), target: [u8; 4]) -> Vec<u8> {
    let body = [&[0, 1, 8, 0, 6, 4, 0, operation][..], &sender.0.0, &sender.1, &[0; 6], &target].concat();
    frame(from, to, ETHERTYPE_ARP, &body)
}

fn icmpv6(from: MacAddress, source: [u8; 16], kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(source, [0xff; 16], 255).icmpv6_raw(kind, 0, [0; 4]).write(&mut packet, body).unwrap();
    frame(from, ALL_NODES, ETHERTYPE_IPV6, &packet)
}

fn igmp_report(from: MacAddress, group: [u8; 4]) -> Vec<u8> {
    let mut packet = Vec::new();
    let body = [&[0x16, 0, 0, 0][..], &group].concat();
    PacketBuilder::ipv4([10, 9, 0, 1], group, 1).write(&mut packet, etherparse::ip_number::IGMP, &body).unwrap();
    frame(from, MacAddress([1, 0, 0x5e, group[1], group[2], group[3]]), ETHERTYPE_IPV4, &packet)
}

fn igmp_query(from: MacAddress) -> Vec<u8> {
    let mut packet = Vec::new();
    let ip = PacketBuilder::ipv4([10, 9, 0, 1], [224, 0, 0, 1], 1);
    ip.write(&mut packet, etherparse::ip_number::IGMP, &[0x11, 100, 0, 0, 0, 0, 0, 0]).unwrap();
    frame(from, MacAddress([1, 0, 0x5e, 0, 0, 1]), ETHERTYPE_IPV4, &packet)
}

#[test]
fn a_frame_goes_to_the_owner_of_its_destination() {
    let segment = segment();
    let out = |to| segment.outbound(now(), &plain(own(), to));
    assert_eq!(out(mac(ALICE)), Ok(Route::Peer(ALICE)));
    assert_eq!(out(own()), Err(DropReason::DestinationIsLocal));
    assert_eq!(out(HOST), Ok(Route::Peers(vec![BOB])), "nobody but a bridge can have it");
    segment.inbound(now(), BOB, &plain(HOST, own())).unwrap();
    assert_eq!(out(HOST), Ok(Route::Peer(BOB)));
    assert_eq!(out(MacAddress::BROADCAST), Ok(Route::Peers(vec![ALICE, BOB, GATE])));
    for link_local in [0, 0x02, 0x0e] {
        assert_eq!(out(MacAddress([1, 0x80, 0xc2, 0, 0, link_local])), Err(DropReason::LinkControl));
    }
    assert_eq!(segment.outbound(now(), &[0; 13]), Err(DropReason::MalformedFrame));
    let lonely = Segment::new(Plan { peers: vec![(ALICE, role(1))], ..plan(false) }, None);
    assert_eq!(lonely.outbound(now(), &plain(own(), HOST)), Err(DropReason::UnknownStation));
    let alone = Segment::new(Plan { peers: vec![], ..plan(false) }, None);
    assert_eq!(alone.outbound(now(), &plain(own(), MacAddress::BROADCAST)), Err(DropReason::NoListener));
}

#[test]
fn a_member_sends_from_its_own_device_and_a_bridge_from_what_nobody_else_has() {
    let segment = bridging();
    let from = |peer, source| segment.inbound(now(), peer, &plain(source, own()));
    assert_eq!(from(ALICE, mac(ALICE)), Ok(()));
    for source in [HOST, mac(BOB), own()] {
        assert_eq!(from(ALICE, source), Err(DropReason::SourceMacNotPeers));
    }
    assert_eq!((from(BOB, mac(BOB)), from(BOB, HOST)), (Ok(()), Ok(())));
    for source in [mac(ALICE), own()] {
        assert_eq!(from(BOB, source), Err(DropReason::SourceMacNotPeers), "a device is never learned for another");
    }
    segment.outbound(now(), &plain(OWN_HOST, mac(ALICE))).unwrap();
    assert_eq!(from(BOB, OWN_HOST), Err(DropReason::SourceMacNotPeers), "it is behind this node's bridge");
    assert_eq!(
        segment.outbound(now(), &plain(HOST, mac(ALICE))),
        Err(DropReason::SourceMacNotOurs),
        "and that behind Bob's"
    );
    assert_eq!(from(STRANGER, HOST), Err(DropReason::NotInSegment));
    assert_eq!(self::segment().outbound(now(), &plain(OWN_HOST, mac(ALICE))), Err(DropReason::SourceMacNotOurs));
}

#[test]
fn a_frame_is_delivered_to_the_device_or_to_the_network_behind_it_and_never_passed_on() {
    let to = |segment: &Segment, destination| segment.inbound(now(), ALICE, &plain(mac(ALICE), destination));
    let (plain_node, bridge) = (segment(), bridging());
    assert_eq!((to(&plain_node, own()), to(&plain_node, OWN_HOST)), (Ok(()), Err(DropReason::DestinationNotOurs)));
    assert_eq!((to(&bridge, OWN_HOST), to(&bridge, mac(BOB))), (Ok(()), Err(DropReason::DestinationNotOurs)));
    bridge.inbound(now(), BOB, &plain(HOST, own())).unwrap();
    assert_eq!(to(&bridge, HOST), Err(DropReason::DestinationNotOurs), "it is behind Bob");
}

#[test]
fn a_flood_of_stations_is_bounded_and_ends_with_the_right_to_bridge() {
    let segment = segment();
    let host = |number: u16| MacAddress([0x52, 1, 0, 0, (number >> 8) as u8, number as u8]);
    let outcomes: Vec<_> = (0..300).map(|number| segment.inbound(now(), BOB, &plain(host(number), own()))).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), stations::MAX_STATIONS);
    assert!(outcomes[stations::MAX_STATIONS..].iter().all(|it| *it == Err(DropReason::MacTableFull)));
    let peers = vec![(ALICE, role(1)), (BOB, role(2))];
    let after = Segment::new(Plan { peers, ..plan(false) }, Some(&segment));
    assert_eq!(after.stations(now()), []);
    assert_eq!(after.inbound(now(), BOB, &plain(host(0), own())), Err(DropReason::SourceMacNotPeers));
}

#[test]
fn what_was_learned_outlasts_a_new_policy() {
    let before = segment();
    before.inbound(now(), BOB, &plain(HOST, own())).unwrap();
    let after = Segment::new(plan(false), Some(&before));
    assert_eq!(after.outbound(now(), &plain(own(), HOST)), Ok(Route::Peer(BOB)));
}

#[test]
fn a_storm_is_limited_at_both_ends_and_for_each_member() {
    let segment = segment();
    let passed = |outcome: &dyn Fn() -> bool| (0..500).filter(|_| outcome()).count();
    let broadcast = |from| plain(from, MacAddress::BROADCAST);
    assert_eq!(passed(&|| segment.outbound(now(), &broadcast(own())).is_ok()), LIMIT as usize);
    assert_eq!(segment.outbound(now(), &plain(own(), HOST)), Err(DropReason::StormLimited), "unknown stations count");
    assert_eq!(segment.outbound(now(), &plain(own(), mac(ALICE))), Ok(Route::Peer(ALICE)), "known ones do not");
    assert_eq!(passed(&|| segment.inbound(now(), ALICE, &broadcast(mac(ALICE))).is_ok()), LIMIT as usize);
    assert_eq!(segment.inbound(now(), ALICE, &broadcast(mac(ALICE))), Err(DropReason::StormLimited));
    assert_eq!(segment.inbound(now(), ALICE, &plain(mac(ALICE), own())), Ok(()));
    assert_eq!(segment.inbound(now(), BOB, &broadcast(mac(BOB))), Ok(()));
    let later = now() + Duration::from_secs(1);
    assert_eq!(segment.inbound(later, ALICE, &broadcast(mac(ALICE))), Ok(()));
}

#[test]
fn routers_and_dhcp_servers_speak_behind_the_gateway_alone() {
    let segment = bridging();
    let advertisement = |from| icmpv6(from, [0xfe; 16], 134, &[0; 8]);
    for (frame, reason) in [
        (udp(mac(ALICE), false, 68), DropReason::RogueDhcp),
        (udp(mac(ALICE), true, 546), DropReason::RogueDhcp),
        (advertisement(mac(ALICE)), DropReason::RogueRouter),
        (icmpv6(mac(ALICE), [0xfe; 16], 137, &[0; 32]), DropReason::RogueRouter),
    ] {
        assert_eq!(segment.inbound(now(), ALICE, &frame), Err(reason));
        let replaced = |from: MacAddress| {
            let mut frame = frame.clone();
            frame[6..12].copy_from_slice(&from.0);
            frame
        };
        assert_eq!(segment.inbound(now(), GATE, &replaced(mac(GATE))), Ok(()));
        assert_eq!(segment.outbound(now(), &replaced(own())), Err(reason), "neither does this node");
    }
    for question in [udp(mac(ALICE), false, 67), udp(mac(ALICE), true, 547)] {
        assert_eq!(segment.inbound(now(), ALICE, &question), Ok(()), "clients may ask");
    }
    let hidden = {
        let mut frame = udp(mac(ALICE), false, 68);
        frame.truncate(14 + 20);
        frame[16..18].copy_from_slice(&20u16.to_be_bytes());
        frame[14 + 6] = 0x20;
        frame
    };
    assert_eq!(segment.inbound(now(), ALICE, &hidden), Err(DropReason::MalformedFrame));
}

#[test]
fn nobody_claims_what_is_another_s() {
    let segment = segment();
    let to_all = MacAddress::BROADCAST;
    let say = |sender: (MacAddress, [u8; 4]), target| {
        let frame = arp(mac(ALICE), to_all, 1, sender, target);
        segment.inbound(now(), ALICE, &frame)
    };
    assert_eq!(say((mac(ALICE), [10, 9, 0, 1]), [10, 9, 0, 2]), Ok(()));
    assert_eq!(say((mac(BOB), [10, 9, 0, 1]), [10, 9, 0, 2]), Err(DropReason::SpoofedNeighbour), "Bob's device");
    assert_eq!(say((mac(ALICE), [10, 64, 0, 3]), [10, 9, 0, 2]), Err(DropReason::SpoofedNeighbour), "the overlay's");
    let reply = arp(mac(ALICE), own(), 2, (mac(ALICE), [10, 64, 0, 3]), [10, 9, 0, 2]);
    assert_eq!(segment.inbound(now(), ALICE, &reply), Err(DropReason::SpoofedNeighbour));

    let link_local = |of: MacAddress| {
        let mut address = [0; 16];
        (address[0], address[1]) = (0xfe, 0x80);
        address[8..].copy_from_slice(&of.interface_id());
        address
    };
    let advertise = |target: [u8; 16], link: MacAddress| {
        let body = [&target[..], &[2, 1], &link.0].concat();
        segment.inbound(now(), ALICE, &icmpv6(mac(ALICE), link_local(mac(ALICE)), 136, &body))
    };
    assert_eq!(advertise(link_local(mac(ALICE)), mac(ALICE)), Ok(()));
    assert_eq!(advertise(link_local(mac(BOB)), mac(ALICE)), Err(DropReason::SpoofedNeighbour));
    assert_eq!(advertise([0xfd; 16], mac(BOB)), Err(DropReason::SpoofedNeighbour));
    assert_eq!(advertise([0xfd; 16], mac(ALICE)), Ok(()));
    let solicitation = [&[0xfd; 16][..], &[1, 1], &mac(BOB).0].concat();
    let asked = icmpv6(mac(ALICE), link_local(mac(ALICE)), 135, &solicitation);
    assert_eq!(segment.inbound(now(), ALICE, &asked), Err(DropReason::SpoofedNeighbour));
}

#[test]
fn a_packet_between_overlay_addresses_does_not_come_by_a_segment() {
    let segment = segment();
    let between = |source: [u8; 4], destination: [u8; 4], from, to| {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(source, destination, 64).tcp(1, 2, 3, 4).write(&mut packet, b"x").unwrap();
        frame(from, to, ETHERTYPE_IPV4, &packet)
    };
    let (overlay, other) = ([10, 64, 0, 2], [10, 9, 0, 1]);
    for (source, destination) in [(overlay, other), (other, overlay), (overlay, [10, 64, 0, 1])] {
        let inward = between(source, destination, mac(ALICE), own());
        assert_eq!(segment.inbound(now(), ALICE, &inward), Err(DropReason::OverlayInSegment));
        let out = between(source, destination, own(), mac(ALICE));
        assert_eq!(segment.outbound(now(), &out), Err(DropReason::OverlayInSegment));
    }
    assert_eq!(segment.inbound(now(), ALICE, &between(other, [10, 9, 0, 2], mac(ALICE), own())), Ok(()));
}

#[test]
fn a_known_neighbour_is_answered_for_and_an_unknown_one_is_asked_for() {
    let segment = segment();
    let question = arp(own(), MacAddress::BROADCAST, 1, (own(), [10, 9, 0, 9]), [10, 9, 0, 1]);
    assert_eq!(segment.outbound(now(), &question), Ok(Route::Peers(vec![ALICE, BOB, GATE])));
    let reply = arp(mac(ALICE), own(), 2, (mac(ALICE), [10, 9, 0, 1]), [10, 9, 0, 9]);
    segment.inbound(now(), ALICE, &reply).unwrap();
    let Ok(Route::Answer(answer)) = segment.outbound(now(), &question) else { panic!("it is known") };
    assert_eq!(answer[..12], [own().0, mac(ALICE).0].concat());
    assert_eq!(segment.outbound(now(), &question), Ok(Route::Peers(vec![ALICE, BOB, GATE])), "asked again");
    let without_alice = Segment::new(Plan { peers: vec![(BOB, role(2))], ..plan(false) }, Some(&segment));
    let later = now() + Duration::from_secs(10);
    assert_eq!(without_alice.outbound(later, &question), Ok(Route::Peers(vec![BOB])), "she is no member any more");
}

#[test]
fn a_group_goes_to_its_listeners_while_a_router_asks() {
    let segment = segment();
    let group = [239, 1, 2, 3];
    let stream = || plain(own(), MacAddress([1, 0, 0x5e, 1, 2, 3]));
    assert_eq!(segment.outbound(now(), &stream()), Ok(Route::Peers(vec![ALICE, BOB, GATE])), "nobody asks");
    segment.inbound(now(), ALICE, &igmp_query(mac(ALICE))).unwrap();
    assert_eq!(segment.outbound(now(), &stream()), Ok(Route::Peers(vec![ALICE, BOB, GATE])), "who leads nowhere asks");
    segment.inbound(now(), GATE, &igmp_query(mac(GATE))).unwrap();
    segment.inbound(now(), ALICE, &igmp_report(mac(ALICE), group)).unwrap();
    assert_eq!(segment.outbound(now(), &stream()), Ok(Route::Peers(vec![ALICE, GATE])));
    assert_eq!(segment.outbound(now(), &igmp_report(own(), group)), Ok(Route::Peers(vec![ALICE, BOB, GATE])));
    // Who listens gets it however much comes; who does not gets it within the limit.
    let passed = |peer: PeerIndex, group: [u8; 3]| {
        let frame = plain(mac(peer), MacAddress([1, 0, 0x5e, group[0], group[1], group[2]]));
        (0..200).filter(|_| segment.inbound(now(), peer, &frame).is_ok()).count()
    };
    assert_eq!((passed(BOB, [1, 2, 3]), passed(GATE, [9, 9, 9])), (200, LIMIT as usize - 1));
}

#[test]
fn a_device_has_an_address_of_its_own_in_each_segment() {
    let first = node_mac(SEGMENT, &NodeId([1; 32]));
    assert!(first.is_station() && first.0[0] & 3 == 2, "locally administered, one station");
    assert_eq!(first, node_mac(SEGMENT, &NodeId([1; 32])));
    assert!(first != node_mac(SegmentNumber(6), &NodeId([1; 32])) && first != node_mac(SEGMENT, &NodeId([2; 32])));
}
