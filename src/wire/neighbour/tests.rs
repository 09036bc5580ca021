//! Messages as hosts send them, and as attackers do.

use super::*;
use crate::wire::frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use etherparse::{IpFragOffset, IpHeaders, Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, ip_number};
use proptest::prelude::*;

const ASKER: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const OWNER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const TARGET: [u8; 16] = [0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

fn framed(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&OWNER.0[..], &ASKER.0, &[0x81, 0, 0, 42], &ethertype.to_be_bytes(), payload].concat()
}

fn read(bytes: &[u8]) -> Result<LinkMessage, LinkMessageError> {
    LinkMessage::of(&Frame::parse(bytes).unwrap(), bytes)
}

fn arp_frame(operation: u16, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let packet = [&ARP_OF_IPV4[..], &operation.to_be_bytes(), &ASKER.0, &sender, &[0; 6], &target].concat();
    framed(ETHERTYPE_ARP, &[&packet[..], &[0; 18]].concat())
}

fn icmp_frame(source: [u8; 16], kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(source, TARGET, 255).icmpv6_raw(kind, 0, [0; 4]).write(&mut packet, body).unwrap();
    framed(ETHERTYPE_IPV6, &packet)
}

fn udp_frame(is_ipv6: bool, destination: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    match is_ipv6 {
        true => PacketBuilder::ipv6(LINK_LOCAL, TARGET, 1).udp(67, destination).write(&mut packet, b"x").unwrap(),
        false => PacketBuilder::ipv4([10; 4], [255; 4], 1).udp(67, destination).write(&mut packet, b"x").unwrap(),
    }
    framed(if is_ipv6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }, &packet)
}

fn igmp_frame(body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let ip = PacketBuilder::ipv4([10, 0, 0, 1], [224, 0, 0, 22], 1);
    ip.write(&mut packet, ip_number::IGMP, body).unwrap();
    framed(ETHERTYPE_IPV4, &packet)
}

fn option(kind: u8, address: MacAddress) -> Vec<u8> {
    [&[kind, 1][..], &address.0].concat()
}

#[test]
fn arp_says_who_asks_and_who_has_an_address() {
    let ip = |octets: [u8; 4]| IpAddr::from(octets);
    let question = Neighbour {
        kind: NeighbourKind::Question,
        sender: Some(ip([10, 9, 0, 1])),
        link: Some(ASKER),
        target: ip([10, 9, 0, 2]),
    };
    assert_eq!(read(&arp_frame(1, [10, 9, 0, 1], [10, 9, 0, 2])), Ok(LinkMessage::Neighbour(question)));
    assert_eq!((question.claimed(), question.wants_answer()), (Some(ip([10, 9, 0, 1])), true));
    let LinkMessage::Neighbour(probe) = read(&arp_frame(1, [0; 4], [10, 9, 0, 2])).unwrap() else { panic!() };
    assert_eq!((probe.claimed(), probe.wants_answer()), (None, false), "it looks whether the address is free");
    let LinkMessage::Neighbour(announced) = read(&arp_frame(1, [10, 9, 0, 2], [10, 9, 0, 2])).unwrap() else {
        panic!()
    };
    assert_eq!((announced.claimed(), announced.wants_answer()), (Some(ip([10, 9, 0, 2])), false));
    let LinkMessage::Neighbour(reply) = read(&arp_frame(2, [10, 9, 0, 2], [10, 9, 0, 1])).unwrap() else { panic!() };
    assert_eq!((reply.claimed(), reply.wants_answer()), (Some(ip([10, 9, 0, 2])), false));
    for (at, byte) in [(18, 9), (19, 9), (22, 7), (23, 8), (25, 3)] {
        let mut bad = arp_frame(1, [10, 9, 0, 1], [10, 9, 0, 2]);
        bad[at] = byte;
        assert_eq!(read(&bad), Err(LinkMessageError::Malformed), "{at}");
    }
    let whole = arp_frame(1, [10, 9, 0, 1], [10, 9, 0, 2]);
    assert_eq!(read(&whole[..18 + 27]), Err(LinkMessageError::Malformed));
}

#[test]
fn neighbour_discovery_says_the_same_of_ipv6() {
    let body = [&TARGET[..], &option(OPTION_SOURCE_LINK, ASKER)].concat();
    let LinkMessage::Neighbour(question) = read(&icmp_frame(LINK_LOCAL, 135, &body)).unwrap() else { panic!() };
    assert_eq!((question.link, question.claimed()), (Some(ASKER), Some(IpAddr::from(LINK_LOCAL))));
    assert!(question.wants_answer());
    let LinkMessage::Neighbour(probe) = read(&icmp_frame([0; 16], 135, &TARGET)).unwrap() else { panic!() };
    assert_eq!((probe.link, probe.claimed(), probe.wants_answer()), (None, None, false));
    let body = [&TARGET[..], &option(OPTION_TARGET_LINK, ASKER)].concat();
    let LinkMessage::Neighbour(told) = read(&icmp_frame(LINK_LOCAL, 136, &body)).unwrap() else { panic!() };
    assert_eq!(
        (told.link, told.claimed(), told.kind),
        (Some(ASKER), Some(IpAddr::from(TARGET)), NeighbourKind::Statement)
    );

    let bad = |options: &[u8]| read(&icmp_frame(LINK_LOCAL, 136, &[&TARGET[..], options].concat()));
    assert_eq!(bad(&[OPTION_TARGET_LINK, 0, 0, 0, 0, 0, 0, 0]), Err(LinkMessageError::Malformed), "no length");
    assert_eq!(bad(&[OPTION_TARGET_LINK, 2, 0, 0, 0, 0, 0, 0]), Err(LinkMessageError::Malformed), "too long");
    let two = [option(OPTION_TARGET_LINK, ASKER), option(OPTION_TARGET_LINK, OWNER)].concat();
    assert_eq!(bad(&two), Err(LinkMessageError::Malformed), "two addresses");
}

#[test]
fn routers_and_servers_are_known_by_what_they_say() {
    let advertisement = [&[0; 8][..], &option(OPTION_SOURCE_LINK, ASKER)].concat();
    assert_eq!(read(&icmp_frame(LINK_LOCAL, 134, &advertisement)), Ok(LinkMessage::Router { link: Some(ASKER) }));
    assert_eq!(read(&icmp_frame(LINK_LOCAL, 137, &[0; 32])), Ok(LinkMessage::Router { link: None }));
    assert_eq!(read(&icmp_frame(LINK_LOCAL, 133, &[])), Ok(LinkMessage::RouterSolicitation { link: None }));
    assert_eq!(read(&icmp_frame(LINK_LOCAL, 128, &[1])), Ok(LinkMessage::None), "a ping");
    for (is_ipv6, port) in [(false, 68), (true, 546)] {
        assert_eq!(read(&udp_frame(is_ipv6, port)), Ok(LinkMessage::DhcpServer));
        assert_eq!(read(&udp_frame(is_ipv6, port - 1)), Ok(LinkMessage::None));
    }
}

#[test]
fn listeners_are_known_by_their_reports() {
    let groups = |report: Result<LinkMessage, _>| match report {
        Ok(LinkMessage::Report { groups, .. }) => groups,
        other => panic!("{other:?}"),
    };
    let mdns = MacAddress([1, 0, 0x5e, 0, 0, 0xfb]);
    assert_eq!(groups(read(&igmp_frame(&[0x16, 0, 0, 0, 224, 0, 0, 251]))), [(mdns, true)]);
    assert_eq!(groups(read(&igmp_frame(&[0x17, 0, 0, 0, 224, 0, 0, 251]))), [(mdns, false)]);
    // Two records: everything from 239.129.2.3 with one word of its own, and nothing from 224.0.0.251 any more.
    let joined = [4, 1, 0, 0, 239, 129, 2, 3, 9, 9, 9, 9];
    let report = [&[0x22, 0, 0, 0, 0, 0, 0, 2][..], &joined, &[3, 0, 0, 0, 224, 0, 0, 251]].concat();
    assert_eq!(groups(read(&igmp_frame(&report))), [(MacAddress([1, 0, 0x5e, 1, 2, 3]), true), (mdns, false)]);
    assert_eq!(read(&igmp_frame(&report[..27])), Err(LinkMessageError::Malformed));
    let query = |group: [u8; 4]| read(&igmp_frame(&[&[0x11, 100, 0, 0][..], &group].concat()));
    assert_eq!(query([0; 4]), Ok(LinkMessage::Query { is_v6: false, is_general: true }));
    assert_eq!(query([224, 0, 0, 251]), Ok(LinkMessage::Query { is_v6: false, is_general: false }));

    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb];
    let record = [&[4, 0, 0, 0][..], &group].concat();
    let mut body = icmp_frame(LINK_LOCAL, 143, &record);
    let count = 18 + 40 + 7;
    body[count] = 1;
    assert_eq!(groups(read(&body)), [(MacAddress([0x33, 0x33, 0, 0, 0, 0xfb]), true)]);
    body[count] = 2;
    assert_eq!(read(&body), Err(LinkMessageError::Malformed));
    assert_eq!(groups(read(&icmp_frame(LINK_LOCAL, 131, &group))).len(), 1);
    assert_eq!(groups(read(&icmp_frame(LINK_LOCAL, 132, &group))), [(MacAddress([0x33, 0x33, 0, 0, 0, 0xfb]), false)]);
    assert_eq!(read(&icmp_frame(LINK_LOCAL, 130, &[0; 16])), Ok(LinkMessage::Query { is_v6: true, is_general: true }));
}

#[test]
fn what_hides_in_fragments_is_refused() {
    let fragment = Ipv6FragmentHeader::new(ip_number::IPV6_ICMP, IpFragOffset::ZERO, true, 7);
    let header = Ipv6Header { source: LINK_LOCAL, destination: TARGET, hop_limit: 255, ..Ipv6Header::default() };
    let extensions = Ipv6Extensions { fragment: Some(fragment), ..Ipv6Extensions::default() };
    let mut packet = Vec::new();
    let ip = PacketBuilder::ip(IpHeaders::Ipv6(header, extensions));
    ip.icmpv6_raw(134, 0, [0; 4]).write(&mut packet, &[0; 8]).unwrap();
    assert_eq!(read(&framed(ETHERTYPE_IPV6, &packet)), Err(LinkMessageError::Hidden));
    // A first fragment that ends before its protocol begins.
    packet.truncate(48);
    packet[4..6].copy_from_slice(&8u16.to_be_bytes());
    assert_eq!(read(&framed(ETHERTYPE_IPV6, &packet)), Err(LinkMessageError::Hidden));
    let mut short = udp_frame(false, 68);
    short.truncate(18 + 20);
    short[18 + 2..18 + 4].copy_from_slice(&20u16.to_be_bytes());
    short[18 + 6] = 0x20;
    assert_eq!(read(&short), Err(LinkMessageError::Hidden));
}

#[test]
fn an_answer_is_what_the_owner_would_have_said() {
    let asked = arp_frame(1, [10, 9, 0, 1], [10, 9, 0, 2]);
    let frame = Frame::parse(&asked).unwrap();
    let Ok(LinkMessage::Neighbour(question)) = read(&asked) else { panic!() };
    let told = answer(&frame, &asked, &question, OWNER).unwrap();
    assert_eq!(told[..18], [&ASKER.0[..], &OWNER.0, &[0x81, 0, 0, 42, 8, 6]].concat());
    let Ok(LinkMessage::Neighbour(reply)) = read(&told) else { panic!() };
    assert_eq!((reply.claimed(), reply.link), (Some(question.target), Some(OWNER)));

    let asked = icmp_frame(LINK_LOCAL, 135, &[&TARGET[..], &option(OPTION_SOURCE_LINK, ASKER)].concat());
    let Ok(LinkMessage::Neighbour(question)) = read(&asked) else { panic!() };
    let told = answer(&frame, &asked, &question, OWNER).unwrap();
    let Ok(LinkMessage::Neighbour(reply)) = read(&told) else { panic!() };
    assert_eq!((reply.claimed(), reply.link), (Some(question.target), Some(OWNER)));
    let parsed = etherparse::SlicedPacket::from_ip(&told[18..]).unwrap();
    let Some(etherparse::TransportSlice::Icmpv6(icmp)) = parsed.transport else { panic!() };
    assert!(icmp.is_checksum_valid(TARGET, LINK_LOCAL));
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(
        payload in prop::collection::vec(any::<u8>(), 0..300), ethertype in 0usize..3, protocol in 0usize..3, kind in 0u8..20,
    ) {
        let ethertype = [ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6][ethertype];
        let mut payload = payload;
        if payload.len() > 48 && ethertype == ETHERTYPE_IPV4 {
            let len = (payload.len() as u16).to_be_bytes();
            payload[..4].copy_from_slice(&[0x45, 0, len[0], len[1]]);
            payload[6..8].fill(0);
            payload[9] = [2, 17, 6][protocol];
            payload[20] = [0x11, 0x16, 0x22][protocol];
        } else if payload.len() > 48 && ethertype == ETHERTYPE_IPV6 {
            let len = (payload.len() as u16 - 40).to_be_bytes();
            payload[..7].copy_from_slice(&[0x60, 0, 0, 0, len[0], len[1], [58, 17, 44][protocol]]);
            payload[40] = 128 + kind;
        }
        let bytes = framed(ethertype, &payload);
        let frame = Frame::parse(&bytes).unwrap();
        if let Ok(LinkMessage::Neighbour(question)) = LinkMessage::of(&frame, &bytes)
            && let Some(told) = answer(&frame, &bytes, &question, OWNER)
        {
            prop_assert!(LinkMessage::of(&Frame::parse(&told).unwrap(), &told).is_ok());
        }
    }
}
