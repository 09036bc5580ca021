//! One IP packet, the conversation that it belongs to, and the ICMP error that tells its sender that it goes nowhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::wire::flow::Content;
use p2plus::wire::icmp::{IcmpError, encode_error, may_be_icmp_error};
use p2plus::wire::inner::{Fragment, InnerPacket};
use p2plus::wire::mss;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const LOCAL: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1))];

fuzz_target!(|bytes: &[u8]| {
    let Ok(packet) = InnerPacket::parse(bytes) else { return };
    assert_eq!(packet.total_len, bytes.len());
    assert!(packet.payload_offset <= packet.total_len);
    assert_eq!(packet.source.is_ipv4(), packet.destination.is_ipv4());
    let _ = may_be_icmp_error(&packet, bytes);
    let mut lowered = bytes.to_vec();
    if mss::clamp(&mut lowered, 1280, false) {
        assert_eq!(InnerPacket::parse(&lowered), Ok(packet));
        assert!(!mss::clamp(&mut lowered, 1280, false), "once is enough");
    }
    if let Content::Packet(flow, ..) = Content::of(&packet, bytes) {
        assert_eq!((flow.source, flow.destination), (packet.source, packet.destination));
    }
    // What the filter sees of a super-packet.
    let _ = Content::of(&packet, &bytes[..packet.payload_offset]);
    let errors = [IcmpError::NoRoute, IcmpError::Prohibited, IcmpError::TooBig { mtu: 0 }];
    for (error, local) in errors.into_iter().flat_map(|error| LOCAL.map(|local| (error, local))) {
        let answer = encode_error(error, local, &packet, bytes);
        assert_eq!(answer.is_some(), local.is_ipv4() == packet.source.is_ipv4());
        let Some(answer) = answer else { continue };
        assert!(answer.len() <= if local.is_ipv4() { 576 } else { 1280 });
        let parsed = InnerPacket::parse(&answer).expect("an answer is a packet");
        assert_eq!((parsed.source, parsed.destination), (local, packet.source));
        assert_eq!(parsed.fragment, Fragment::Whole);
        // Who hears of it can find the conversation, unless the packet hides it.
        if let (Content::Packet(flow, ..), Content::Error(about)) =
            (Content::of(&packet, bytes), Content::of(&parsed, &answer))
        {
            assert_eq!((about.source, about.destination), (flow.source, flow.destination));
        }
        assert!(may_be_icmp_error(&parsed, &answer), "an answer must never be answered");
    }
});
