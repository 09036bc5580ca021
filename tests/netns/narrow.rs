//! Paths that carry little and say nothing: the least that P2Plus works on, without a word from the router.

use crate::capture::{Capture, Seen};
use crate::lab::{Host, Lab, Underlay, eventually};
use crate::node::{Node, PATIENCE, PORT, exchange, pair_on};
use p2plus::wire::datagram::TYPE_TRANSPORT;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

/// What an IP and a UDP header take.
const fn headers(is_v4: bool) -> usize {
    if is_v4 { 28 } else { 48 }
}

/// Narrows the links of all hosts at the router's end, so that no host knows of it, and silences the router.
fn narrow(lab: &Lab, hosts: &[Host], mtu: usize) {
    set_path_mtu(lab, hosts, mtu);
    silence(lab);
}

/// Gives the router's ends of the hosts' links an MTU, so that no host knows of it.
pub fn set_path_mtu(lab: &Lab, hosts: &[Host], mtu: usize) {
    for host in hosts {
        lab.router().ip(&format!("link set {} mtu {mtu}", host.router_link()));
    }
}

/// Has the router tell nobody that a packet was too long for it.
pub fn silence(lab: &Lab) {
    lab.router().rules(
        "table inet silent { chain output { type filter hook output priority 0;
            icmp type destination-unreachable drop; icmpv6 type packet-too-big drop; }; }",
    );
}

/// Says whether a datagram that makes `wire_len` bytes on the underlay gets from one host to the other.
fn passes(from: &Host, to: &Host, address: fn(&Host) -> IpAddr, wire_len: usize) -> bool {
    let bind = |host: &Host| host.run(|| UdpSocket::bind((address(host), 0))).unwrap();
    let (sender, receiver) = (bind(from), bind(to));
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let target = receiver.local_addr().unwrap();
    let len = wire_len - headers(target.is_ipv4());
    sender.send_to(&vec![7; len], target).unwrap();
    receiver.recv(&mut vec![0; len]).is_ok_and(|received| received == len)
}

/// Joins over a narrow path, brings the chain over it, both ways, and carries small packets inside.
fn everything_passes(founder: &Node, ada: &Node) {
    for _ in 0..3 {
        founder.invite(&[]);
        ada.wait_for(&format!("height={}", founder.status()["ledger"]["height"]));
    }
    let ledger = ada.ask(&["ledger", "verify"]);
    assert_eq!(ledger["bad"], serde_json::Value::Null, "{ledger}");
    assert!(eventually(PATIENCE, || founder.status()["ledger"]["hash"] == ada.status()["ledger"]["hash"]));
    for (from, to) in [(founder, ada), (ada, founder)] {
        assert_eq!(from.ask(&["ping", to.name(), "-c", "2"])["received"], 2);
        for address in [to.v4(), to.v6()] {
            let address = address.to_string();
            let pinged = from
                .host()
                .command("ping")
                .args(["-n", "-c", "2", "-i", "0.2", "-W", "10", &address])
                .output()
                .unwrap();
            assert!(pinged.status.success(), "{}", String::from_utf8_lossy(&pinged.stdout));
        }
    }
    exchange(founder, ada, [founder.v4(), ada.v4()]);
    exchange(ada, founder, [ada.v6(), founder.v6()]);
}

/// Runs it all on paths of one family and width; returns what crossed the router of the daemons' datagrams.
fn over_paths(lab: &mut Lab, underlay: Underlay, address: fn(&Host) -> IpAddr, mtu: usize) -> Vec<Seen> {
    let hosts = ["founder", "ada"].map(|name| lab.host_with(name, underlay));
    narrow(lab, &hosts, mtu);
    for [from, to] in [[&hosts[0], &hosts[1]], [&hosts[1], &hosts[0]]] {
        assert!(passes(from, to, address, mtu), "the path is narrower");
        assert!(!passes(from, to, address, mtu + 1), "the path is wider");
    }
    let capture = Capture::start(lab.router());
    let [founder, ada] = pair_on([&hosts[0], &hosts[1]], address);
    everything_passes(&founder, &ada);
    capture.end().into_iter().filter(|seen| seen.from.port() == PORT && seen.to.port() == PORT).collect()
}

#[test]
fn joining_and_the_chain_pass_a_path_of_1124_bytes_without_icmp() {
    let Some(mut lab) = Lab::new() else { return };
    let seen = over_paths(&mut lab, Underlay::Both, Host::v4, 1124);
    assert!(seen.iter().all(|seen| seen.is_whole_or_nothing), "a router may cut it up: {seen:?}");
    let longest =
        |is_data| seen.iter().filter(|seen| (seen.kind() == TYPE_TRANSPORT) == is_data).map(|seen| seen.wire_len).max();
    println!("longest on the wire: {:?} of handshakes, {:?} of sessions", longest(false), longest(true));
    assert!(longest(false) > Some(600) && longest(false) <= Some(728), "handshakes are at most 700 bytes and headers");
    assert!(longest(true) > Some(1000) && longest(true) <= Some(1124), "the chain came in full packets");
}

#[test]
fn joining_and_the_chain_pass_an_ipv6_path_of_its_least_mtu_without_icmp() {
    let Some(mut lab) = Lab::new() else { return };
    let seen = over_paths(&mut lab, Underlay::V6, Host::v6, 1280);
    assert!(seen.iter().any(|seen| seen.kind() == TYPE_TRANSPORT));
    // What sessions send may be as long as the path is measured to take.
    let longest = |seen: &Seen| if seen.kind() == TYPE_TRANSPORT { 1280 } else { 1124 };
    assert!(seen.iter().all(|seen| seen.wire_len <= longest(seen)));
}
