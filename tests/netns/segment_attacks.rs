//! A member that does not keep to the rules of a segment: the library's own handshake and seal, and frames that no honest daemon sends.

use crate::caller::{Caller, Line, transport_key};
use crate::lab::{Host, Lab, eventually};
use crate::node::{Node, PATIENCE};
use crate::segments::{DEVICE, address, is_answered, segment, set_segment, view, wait_for_answer};
use crate::socket::open_link;
use etherparse::PacketBuilder;
use p2plus::router::bridge::node_mac;
use p2plus::wire::frame::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, MacAddress, SegmentNumber};
use p2plus::wire::transport_record::{Layer, RECORD_PACKET};
use socket2::Socket;
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::time::Duration;

/// Frames that are sent before it is looked whether they arrived: they fit the daemon's socket queue.
const CHUNK: usize = 64;
/// Frames a second that the segment lets a member send to everybody.
const STORM_LIMIT: usize = 200;
const PATIENCE_SECONDS: &str = "60";
/// What marks a frame of the attacker's wherever it is seen.
const MARK: &[u8] = b"from the attacker";

/// A hostile member, its session with a daemon, and what it may call itself.
struct Attacker {
    line: Line,
    segment: SegmentNumber,
    mac: MacAddress,
}

impl Attacker {
    fn new(founder: &Node, victim: &Node, host: &Host, number: usize, options: &[&str]) -> Self {
        let caller = Caller::admit_with(founder, number, options);
        victim.wait_for(&format!("height={}", founder.status()["ledger"]["height"]));
        let line = caller.call(host, victim.endpoint(), transport_key(victim)).expect("a session");
        let segment = SegmentNumber(u32::try_from(view(victim)["number"].as_u64().unwrap()).unwrap());
        Self { line, segment, mac: node_mac(segment, &caller.id()) }
    }

    fn send(&mut self, frame: &[u8]) {
        let header = Layer::Link(self.segment).record_header(RECORD_PACKET, 0);
        self.line.send_record(&[header.as_slice(), frame].concat());
    }

    /// Sends frames and waits until the daemon counted as many more for this reason.
    fn send_refused(&mut self, victim: &Node, reason: &str, frames: &[Vec<u8>]) {
        let mut before = victim.drops(reason);
        for chunk in frames.chunks(CHUNK) {
            chunk.iter().for_each(|frame| self.send(frame));
            before += chunk.len() as u64;
            let is_counted = eventually(PATIENCE, || victim.drops(reason) >= before);
            assert!(is_counted, "{reason}: {} and not {before}", victim.drops(reason));
        }
        assert_eq!(victim.drops(reason), before, "{reason}");
    }
}

fn frame(from: MacAddress, to: MacAddress, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &ethertype.to_be_bytes(), payload].concat()
}

fn datagram(from: MacAddress, to: MacAddress, port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([192, 168, 99, 66], [255; 4], 64).udp(67, port).write(&mut packet, MARK).unwrap();
    frame(from, to, ETHERTYPE_IPV4, &packet)
}

fn arp_reply(from: MacAddress, to: MacAddress, (mac, address): (MacAddress, IpAddr)) -> Vec<u8> {
    let IpAddr::V4(address) = address else { panic!("ARP is of IPv4") };
    let body = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &mac.0, &address.octets(), &to.0, &[192, 168, 99, 1]].concat();
    frame(from, to, ETHERTYPE_ARP, &body)
}

fn discovery(from: MacAddress, to: MacAddress, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut source = [0; 16];
    (source[0], source[1]) = (0xfe, 0x80);
    source[8..].copy_from_slice(&from.interface_id());
    let mut packet = Vec::new();
    PacketBuilder::ipv6(source, [0xff; 16], 255).icmpv6_raw(kind, 0, [0; 4]).write(&mut packet, body).unwrap();
    frame(from, to, ETHERTYPE_IPV6, &packet)
}

/// How many of the attacker's frames came out of the device.
fn marked(mut link: &Socket) -> usize {
    let (mut buffer, mut count) = ([0; 2_000], 0);
    loop {
        match link.read(&mut buffer) {
            Ok(len) => count += usize::from(buffer[..len].windows(MARK.len()).any(|window| window == MARK)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

fn listen(host: &Host) -> Socket {
    let link = host.run(|| open_link(DEVICE));
    link.set_nonblocking(true).unwrap();
    link
}

#[test]
fn what_a_member_may_not_say_is_dropped_and_counted_each_by_its_name() {
    let Some(mut lab) = Lab::new() else { return };
    let limit = STORM_LIMIT.to_string();
    let (founder, [ada, ben]) = segment(&mut lab, ["ada", "ben"], &["--storm-limit", &limit]);
    let [[there, _], _] = [address(ben.host(), DEVICE, 2), address(ada.host(), DEVICE, 1)];
    wait_for_answer(ada.host(), there);
    let of_ada = view(&ada)["mac"].as_str().unwrap().parse().unwrap();
    let of_ben: MacAddress = view(&ben)["mac"].as_str().unwrap().parse().unwrap();
    let host = lab.host("attacker");
    let link = listen(ada.host());
    let all = MacAddress::BROADCAST;
    let stranger = |number: usize| MacAddress([0x52, 0, 0, 0, (number >> 8) as u8, number as u8]);
    let stations = |count| (0..count).map(|number| datagram(stranger(number), of_ada, 9)).collect::<Vec<_>>();

    let mut outsider = Attacker::new(&founder, &ada, &host, 1, &[]);
    let own = outsider.mac;
    outsider.send_refused(&ada, "not_in_segment", &[datagram(own, of_ada, 9)]);

    let mut attacker = Attacker::new(&founder, &ada, &host, 2, &["--tag", "lan"]);
    let own = attacker.mac;
    attacker.send_refused(&ada, "source_mac_not_peers", &[datagram(of_ben, of_ada, 9), datagram(of_ada, of_ada, 9)]);
    attacker.send_refused(&ada, "source_mac_not_peers", &stations(100));
    attacker.send_refused(&ada, "malformed_frame", &[vec![0; 13], frame(own, all, 0x8100, &[0, 1, 0x81, 0].repeat(4))]);
    attacker.send_refused(&ada, "destination_not_ours", &[datagram(own, of_ben, 9), datagram(own, stranger(1), 9)]);
    attacker.send_refused(&ada, "rogue_dhcp", &[datagram(own, all, 68), datagram(own, of_ada, 68)]);
    attacker.send_refused(
        &ada,
        "rogue_router",
        &[discovery(own, of_ada, 134, &[0; 8]), discovery(own, of_ada, 137, &[0; 32])],
    );
    let spoofed = [
        arp_reply(own, of_ada, (of_ben, there)),
        arp_reply(own, of_ada, (own, ben.v4())),
        discovery(own, of_ada, 136, &[&[0xfd; 16][..], &[2, 1], &of_ben.0].concat()),
    ];
    attacker.send_refused(&ada, "spoofed_neighbour", &spoofed);
    let around = |source: IpAddr| {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, ada.v4()) else { panic!("addresses of IPv4") };
        let mut packet = Vec::new();
        let ip = PacketBuilder::ipv4(source.octets(), destination.octets(), 64);
        ip.udp(1, 9).write(&mut packet, MARK).unwrap();
        frame(own, of_ada, ETHERTYPE_IPV4, &packet)
    };
    attacker.send_refused(&ada, "overlay_in_segment", &[around(ben.v4()), around(there)]);
    attacker.segment = SegmentNumber(attacker.segment.0.wrapping_add(1));
    attacker.send_refused(&ada, "unknown_segment", &[datagram(own, of_ada, 9)]);
    attacker.segment = SegmentNumber(attacker.segment.0.wrapping_sub(1));
    assert_eq!(marked(&link), 0);
    attacker.send(&datagram(own, of_ada, 9));
    assert!(eventually(PATIENCE, || marked(&link) == 1), "what is permitted arrives");

    // A storm: what the segment permits arrives, and no more.
    let storm = vec![datagram(own, all, 9); 20 * STORM_LIMIT];
    let began = std::time::Instant::now();
    for chunk in storm.chunks(CHUNK) {
        chunk.iter().for_each(|frame| attacker.send(frame));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(
        eventually(PATIENCE, || ada.drops("storm_limited") > 10 * STORM_LIMIT as u64),
        "{}",
        ada.drops("storm_limited")
    );
    let (arrived, seconds) = (marked(&link), began.elapsed().as_secs_f64());
    let most = STORM_LIMIT as f64 * (seconds + 1.0);
    assert!(arrived as f64 <= most && arrived >= STORM_LIMIT / 2, "{arrived} in {seconds} s");

    // A bridge vouches for 256 stations, and for no device of another member.
    founder.ask(&["bridge", "approve", "lab", "caller-2", "--timeout", PATIENCE_SECONDS]);
    ada.wait_for(&format!("height={}", founder.status()["ledger"]["height"]));
    stations(256).chunks(CHUNK).for_each(|chunk| {
        chunk.iter().for_each(|frame| attacker.send(frame));
        std::thread::sleep(Duration::from_millis(5));
    });
    let known = || view(&ada)["stations"].as_array().unwrap().len();
    assert!(eventually(PATIENCE, || known() == 256), "{}", known());
    attacker.send_refused(&ada, "mac_table_full", &stations(300)[256..]);
    attacker.send_refused(&ada, "source_mac_not_peers", &[datagram(of_ben, of_ada, 9)]);
    assert_eq!(known(), 256);
    assert!(is_answered(ada.host(), there, 56), "the honest go on");

    // Behind a gateway routers and servers may speak.
    set_segment(&founder, &["--gateway", "caller-2"]);
    ada.wait_for(&format!("height={}", founder.status()["ledger"]["height"]));
    let before = [ada.drops("rogue_dhcp"), marked(&link) as u64][0];
    attacker.send(&datagram(own, of_ada, 68));
    assert!(eventually(PATIENCE, || marked(&link) > 0), "its offer arrives");
    assert_eq!(ada.drops("rogue_dhcp"), before);
}

#[test]
fn a_daemon_sends_no_frame_that_its_segment_forbids() {
    let Some(mut lab) = Lab::new() else { return };
    let limit = STORM_LIMIT.to_string();
    let (_founder, [ada, ben]) = segment(&mut lab, ["ada", "ben"], &["--storm-limit", &limit]);
    let [[there, _], _] = [address(ben.host(), DEVICE, 2), address(ada.host(), DEVICE, 1)];
    wait_for_answer(ada.host(), there);
    let own: MacAddress = view(&ada)["mac"].as_str().unwrap().parse().unwrap();
    let of_ben = view(&ben)["mac"].as_str().unwrap().parse().unwrap();
    // As a program on ada's host would, past its own kernel.
    let (near, far) = (listen(ada.host()), listen(ben.host()));
    let refused = |reason: &str, frame: &[u8]| {
        let before = ada.drops(reason);
        near.send(frame).unwrap();
        assert!(eventually(PATIENCE, || ada.drops(reason) > before), "{reason}");
    };
    let all = MacAddress::BROADCAST;
    refused("source_mac_not_ours", &datagram(MacAddress([0x52, 0, 0, 0, 0, 1]), of_ben, 9));
    refused("source_mac_not_ours", &datagram(of_ben, all, 9));
    refused("rogue_dhcp", &datagram(own, all, 68));
    refused("rogue_router", &discovery(own, all, 134, &[0; 8]));
    refused("spoofed_neighbour", &arp_reply(own, of_ben, (own, ben.v4())));
    refused("unknown_station", &datagram(own, MacAddress([0x52, 0, 0, 0, 0, 9]), 9));
    refused("link_control", &frame(own, MacAddress([1, 0x80, 0xc2, 0, 0, 0]), 0x88cc, MARK));
    assert_eq!(marked(&far), 0);
    for _ in 0..10 * STORM_LIMIT {
        near.send(&datagram(own, all, 9)).unwrap();
    }
    assert!(eventually(PATIENCE, || ada.drops("storm_limited") > 0));
    let mut arrived = 0;
    let is_over = || {
        arrived += marked(&far);
        arrived >= STORM_LIMIT / 2
    };
    assert!(eventually(PATIENCE, is_over));
    assert!(arrived <= 3 * STORM_LIMIT, "{arrived}");
}
