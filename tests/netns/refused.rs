//! Packets that the tunnel does not carry: each is counted under its name, and none arrives.

use crate::caller::{Caller, transport_key};
use crate::lab::{Lab, eventually};
use crate::node::{Node, PATIENCE, pair};
use etherparse::PacketBuilder;
use etherparse::checksum::Sum16BitWords;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const PORT: u16 = 7000;

/// A UDP packet with these addresses, of one family.
fn udp(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    let builder = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => PacketBuilder::ipv4(source.octets(), destination.octets(), 64),
        (IpAddr::V6(source), IpAddr::V6(destination)) => PacketBuilder::ipv6(source.octets(), destination.octets(), 64),
        _ => panic!("two families in one packet"),
    };
    let mut packet = Vec::new();
    builder.udp(PORT, PORT).write(&mut packet, payload).unwrap();
    packet
}

/// The same packet at the end of its hops, with options (IPv4: four no-operations; IPv6: a header of destination options, RFC 8200 §4.6).
fn dressed(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet.splice(20..20, [1; 4]);
        let len = u16::try_from(packet.len()).unwrap();
        packet[0] = 0x46;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[8] = 1;
        packet[10..12].fill(0);
        let sum = Sum16BitWords::new().add_slice(&packet[..24]).ones_complement();
        packet[10..12].copy_from_slice(&sum.to_ne_bytes());
    } else {
        packet.splice(40..40, [17, 0, 1, 4, 0, 0, 0, 0]);
        let len = u16::try_from(packet.len() - 40).unwrap();
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        (packet[6], packet[7]) = (60, 1);
    }
    packet
}

/// Waits until a reason was counted `count` times more than `before`.
fn assert_counted(node: &Node, reason: &str, before: u64, count: u64) {
    assert!(eventually(PATIENCE, || node.drops(reason) >= before + count), "{reason}: {}", node.status());
    assert_eq!(node.drops(reason), before + count, "{reason}");
}

#[test]
fn a_member_that_sends_from_another_ones_inner_address_is_dropped_and_counted_and_nothing_arrives() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    let caller = Caller::admit(&founder, 1);
    ada.wait_for(&format!("height={}", founder.status()["ledger"]["height"]));
    let host = lab.host("liar");
    let mut line = caller.call(&host, ada.endpoint(), transport_key(&ada)).expect("a session with ada");
    for is_v4 in [true, false] {
        let (own, other, target) = match is_v4 {
            true => (caller.overlay(&founder, true), founder.v4(), ada.v4()),
            false => (caller.overlay(&founder, false), founder.v6(), ada.v6()),
        };
        let nobodys = match own {
            IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() ^ 0x100)),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() ^ 0x100)),
        };
        let (loopback, group): (IpAddr, IpAddr) = match is_v4 {
            true => ([127, 0, 0, 1].into(), [224, 0, 0, 251].into()),
            false => (Ipv6Addr::LOCALHOST.into(), "ff02::fb".parse().unwrap()),
        };
        let socket = ada.host().run(|| std::net::UdpSocket::bind((target, PORT))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        for (reason, lies) in [
            (
                "source_not_peers",
                vec![udp(other, target, b"lie"), udp(target, target, b"lie"), udp(nobodys, target, b"lie")],
            ),
            ("source_invalid", vec![udp(loopback, target, b"lie")]),
            ("destination_not_ours", vec![udp(own, other, b"lie")]),
            ("multicast", vec![udp(own, group, b"lie")]),
            ("malformed_packet", vec![udp(own, target, b"lie")[..20].to_vec(), vec![0x45]]),
        ] {
            let before = ada.drops(reason);
            lies.iter().for_each(|packet| line.send(packet));
            // Its own kernel may multicast meanwhile; that is counted under the same name.
            if reason == "multicast" {
                assert!(eventually(PATIENCE, || ada.drops(reason) > before), "{}", ada.status());
            } else {
                assert_counted(&ada, reason, before, lies.len() as u64);
            }
        }
        line.send(&udp(own, target, b"truth"));
        line.send(&dressed(udp(own, target, b"dress")));
        let mut buffer = [0; 100];
        for expected in [b"truth", b"dress"] {
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], from), (expected.as_slice(), (own, PORT).into()));
        }
        socket.set_nonblocking(true).unwrap();
        assert_eq!(socket.recv_from(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock, "a lie arrived");
    }
}

#[test]
fn groups_the_subnets_ends_and_foreign_sources_are_counted_by_name_on_their_way_out() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    let (IpAddr::V4(own), IpAddr::V4(peer)) = (founder.v4(), ada.v4()) else { panic!("no IPv4") };
    let network = Ipv4Addr::from_bits(own.to_bits() & !0xfff);
    let broadcast = Ipv4Addr::from_bits(own.to_bits() | 0xfff);
    founder.host().ip("addr add 192.0.2.9/32 dev lo");
    founder.host().ip("route add 224.0.0.251 dev p2p-lab");
    let socket = founder.udp(own.into());
    socket.set_broadcast(true).unwrap();
    let foreign = founder.udp([192, 0, 2, 9].into());
    for (reason, socket, target) in [
        ("multicast", &socket, Ipv4Addr::new(224, 0, 0, 251)),
        ("multicast", &socket, broadcast),
        ("no_route", &socket, network),
        ("no_route", &socket, Ipv4Addr::from_bits(network.to_bits() + 54)),
        ("source_not_ours", &foreign, peer),
    ] {
        let before = founder.drops(reason);
        socket.send_to(b"datagram", (target, PORT)).unwrap();
        assert!(eventually(PATIENCE, || founder.drops(reason) > before), "{reason} {target}: {}", founder.status());
    }
}
