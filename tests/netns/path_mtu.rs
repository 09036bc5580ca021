//! Paths that take less than the hosts' own links: what crosses the tunnel arrives whole, whether routers say something or not.

use crate::lab::{Host, Lab, eventually};
use crate::narrow::{set_path_mtu, silence};
use crate::node::{Node, PATIENCE, founder, joiner, noise, pair_on, transfer, transfer_paced};
use crate::subnets::lan;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// What one TCP connection moves.
const MEBIBYTE: usize = 1_048_576;

/// The bytes of an echo request that the kernel has to cut into seven packets of the tunnel's.
const LONG_PING: &str = "8972";

/// The path MTUs of the field: plain Ethernet, a WireGuard tunnel, the least of IPv6, mobile networks, and the least that P2Plus works on.
const PATHS: [u16; 5] = [1500, 1420, 1280, 1200, 1124];

/// Sends long pings; all are answered.
fn ping(from: &Node, address: IpAddr) {
    let mut command = from.host().command("ping");
    let words = ["-n", "-c", "3", "-i", "0.2", "-W", "5", "-s", LONG_PING, &address.to_string()].map(str::to_owned);
    let pinged = command.args(words).output().unwrap();
    let text = String::from_utf8_lossy(&pinged.stdout);
    assert!(text.contains("3 received"), "{address}: {text}");
}

/// Moves a mebibyte each way and pings, over both families inside.
fn everything_passes([founder, ada]: [&Node; 2]) {
    for [here, there] in [[founder.v4(), ada.v4()], [founder.v6(), ada.v6()]] {
        transfer(founder, ada, there, MEBIBYTE);
        transfer(ada, founder, here, MEBIBYTE);
        ping(founder, there);
        ping(ada, here);
    }
}

/// What a node says that its path to another one takes.
fn measured(from: &Node, to: &Node) -> Option<u64> {
    from.ask(&["why", to.name()])["mtu"].as_u64()
}

/// Waits until both ends know what the path between them takes; returns how long that was.
fn await_measure(nodes: [&Node; 2], expected: u16) -> Duration {
    let began = Instant::now();
    let is_known = |from: &Node, to: &Node| measured(from, to) == Some(expected.into());
    let both = || is_known(nodes[0], nodes[1]) && is_known(nodes[1], nodes[0]);
    assert!(eventually(PATIENCE, both), "{:?} instead of {expected}", measured(nodes[0], nodes[1]));
    began.elapsed()
}

/// What is found on a path of this MTU: nothing longer than a packet of the tunnel's, a chunk's fields and all headers is ever sent.
fn findable(path: u16, underlay: fn(&Host) -> IpAddr, host: &Host) -> u16 {
    path.min(if underlay(host).is_ipv4() { 1468 } else { 1488 })
}

fn over_path(path: u16, underlay: fn(&Host) -> IpAddr, is_silent: bool) {
    let Some(mut lab) = Lab::new() else { return };
    let hosts = ["founder", "ada"].map(|name| lab.host(name));
    set_path_mtu(&lab, &hosts, path.into());
    if is_silent {
        silence(&lab);
    }
    let [founder, ada] = pair_on([&hosts[0], &hosts[1]], underlay);
    everything_passes([&founder, &ada]);
    let family = if underlay(&hosts[0]).is_ipv4() { "IPv4" } else { "IPv6" };
    let expected = findable(path, underlay, &hosts[0]);
    await_measure([&founder, &ada], expected);
    everything_passes([&founder, &ada]);
    let icmp = if is_silent { "without ICMP" } else { "with ICMP" };
    println!("| {path} | {family} | {icmp} | {expected} | 1,048,576 of 1,048,576, eight times | 24 of 24 |");
}

#[test]
fn a_mebibyte_and_long_pings_cross_every_path_without_a_word_from_routers() {
    PATHS.into_iter().for_each(|path| over_path(path, Host::v4, true));
}

#[test]
fn a_mebibyte_and_long_pings_cross_every_path_whose_routers_speak() {
    PATHS.into_iter().for_each(|path| over_path(path, Host::v4, false));
}

#[test]
fn a_mebibyte_and_long_pings_cross_ipv6_paths() {
    for (path, is_silent) in [(1500, true), (1420, false), (1280, true)] {
        over_path(path, Host::v6, is_silent);
    }
}

#[test]
fn a_path_that_becomes_narrow_without_a_word_stops_a_transfer_for_a_moment() {
    let Some(mut lab) = Lab::new() else { return };
    let hosts = ["founder", "ada"].map(|name| lab.host(name));
    silence(&lab);
    let [founder, ada] = pair_on([&hosts[0], &hosts[1]], Host::v4);
    transfer(&founder, &ada, ada.v4(), MEBIBYTE);
    await_measure([&founder, &ada], 1468);
    let mut narrowed = None;
    let mut longest = Duration::ZERO;
    let mut last = Instant::now();
    transfer_paced(&founder, &ada, ada.v4(), 16 * MEBIBYTE, |moved| {
        if moved >= 4 * MEBIBYTE && narrowed.is_none() {
            set_path_mtu(&lab, &hosts, 1280);
            narrowed = Some(Instant::now());
        }
        if narrowed.is_some() {
            longest = longest.max(last.elapsed());
        }
        last = Instant::now();
    });
    println!("the transfer stood for {longest:?}");
    assert!(narrowed.is_some() && longest < Duration::from_secs(5), "it stood for {longest:?}");
    await_measure([&founder, &ada], 1280);
    everything_passes([&founder, &ada]);
}

/// Gives everybody who connects to port 80 of a host a mebibyte.
fn give(host: &Host) {
    let listener = host.run(|| TcpListener::bind(("0.0.0.0", 80))).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(&noise(7, MEBIBYTE));
        }
    });
}

#[test]
fn a_host_behind_a_router_that_hears_no_icmp_sends_what_passes() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let [gate, client] = ["gate", "client"].map(|name| joiner(&mut lab, &founder, name));
    let site = lan(&mut lab, &gate, "site", [192, 168, 77]);
    give(&site);
    site.rules(
        "table ip deaf { chain input { type filter hook input priority 0; icmp type destination-unreachable drop; }; }",
    );
    founder.ask(&["advertise", "192.168.77.0/24", "--for", "gate"]);
    client.wait_for(&format!("height={}", founder.status()["ledger"]["height"]));
    client.ask(&["accept", "all"]);
    set_path_mtu(&lab, &[gate.host().clone(), client.host().clone()], 1280);
    silence(&lab);
    client.meet(&gate);
    // A path that nobody uses is not measured anew.
    transfer(&client, &gate, gate.v4(), MEBIBYTE);
    transfer(&gate, &client, client.v4(), MEBIBYTE);
    await_measure([&gate, &client], 1280);
    let mut received = Vec::new();
    let connect = || TcpStream::connect_timeout(&SocketAddr::from(([192, 168, 77, 9], 80)), PATIENCE);
    let mut stream = client.host().run(connect).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_to_end(&mut received).unwrap();
    assert!(received == noise(7, MEBIBYTE), "{} bytes", received.len());
    assert_eq!(gate.drops("too_large"), 0);
}
