//! What an application hears of packets that are not carried, from the real kernel.

use crate::lab::{Host, Lab, eventually};
use crate::node::{Node, PATIENCE, founder, pair_on, transfer};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The port that is tried; nothing depends on it.
const PORT: u16 = 80;
/// The kernel repeats a SYN after a second (RFC 6298): who fails sooner was answered at the first.
const AT_ONCE: Duration = Duration::from_secs(1);
/// On a machine that does other things too, one of a few is in time.
const ATTEMPTS: usize = 5;

/// An overlay address of the same subnet that nobody has.
fn nobodys(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() ^ 64).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() ^ 64).into(),
    }
}

/// The errno of a TCP connection, and how soon it came.
fn connect(node: &Node, target: SocketAddr) -> (Option<i32>, Duration) {
    let started = Instant::now();
    let outcome = node.host().run(|| TcpStream::connect_timeout(&target, PATIENCE));
    (outcome.unwrap_err().raw_os_error(), started.elapsed())
}

/// The errno that a connected UDP socket gives after one datagram, and how soon it came.
fn send_connected(node: &Node, source: IpAddr, target: SocketAddr) -> (Option<i32>, Duration) {
    let socket = node.udp(source);
    socket.connect(target).unwrap();
    let started = Instant::now();
    socket.send(b"anybody there?").unwrap();
    (socket.recv(&mut [0; 10]).unwrap_err().raw_os_error(), started.elapsed())
}

/// Takes the quickest of a few answers, all of which have to be `errno`.
fn assert_at_once(errno: i32, attempt: impl Fn() -> (Option<i32>, Duration)) {
    let quickest = (0..ATTEMPTS).map(|_| {
        let (error, elapsed) = attempt();
        assert_eq!(error, Some(errno), "after {elapsed:?}");
        elapsed
    });
    let quickest = quickest.min().unwrap();
    assert!(quickest < AT_ONCE, "{quickest:?}");
}

#[test]
fn an_address_that_nobody_has_fails_at_once_in_tcp_and_udp_of_both_families() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    // The strictest kernel there is: the answer comes back by the way that its source is reached.
    for interface in ["all", "default", "p2p-lab"] {
        founder.host().sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "1");
    }
    for own in [founder.v4(), founder.v6()] {
        let target = SocketAddr::new(nobodys(own), PORT);
        let before = founder.drops("no_route");
        assert_at_once(libc::EHOSTUNREACH, || connect(&founder, target));
        assert_at_once(libc::ECONNREFUSED, || send_connected(&founder, own, target));
        let expected = before + 2 * ATTEMPTS as u64;
        assert!(eventually(PATIENCE, || founder.drops("no_route") >= expected), "{}", founder.status());
    }
}

/// The errno that a connected UDP socket gives after a datagram of `len` bytes.
fn send_long(node: &Node, source: IpAddr, target: IpAddr, len: usize) -> Option<i32> {
    let socket = node.udp(source);
    socket.connect((target, PORT)).unwrap();
    socket.send(&vec![7; len]).unwrap();
    socket.recv(&mut [0; 10]).unwrap_err().raw_os_error()
}

#[test]
fn a_packet_that_the_own_link_cannot_take_is_answered_with_its_size_and_tcp_heeds_it() {
    let Some(mut lab) = Lab::new() else { return };
    let hosts = [lab.host("founder"), lab.host("ada")];
    // A tunnel as wide as the link: with its headers around it, a full packet does not fit.
    let nodes = hosts.each_ref().map(|host| {
        host.ip("link set eth0 mtu 1420");
        let node = Node::new(host, if host.v4() == hosts[0].v4() { "founder" } else { "ada" });
        node.configure("[tunnel]\nmtu = 1420\n");
        node
    });
    let [mut founder, mut ada] = nodes;
    founder.found();
    ada.join(&founder.invite(&[]));
    founder.meet(&ada);
    for [own, other] in [[founder.v4(), ada.v4()], [founder.v6(), ada.v6()]] {
        let before = founder.drops("too_large");
        assert_eq!(send_long(&founder, own, other, 1_372), Some(libc::EMSGSIZE));
        assert!(eventually(PATIENCE, || founder.drops("too_large") > before), "{}", founder.status());
        transfer(&founder, &ada, other, 1_000_000);
        transfer(&ada, &founder, own, 1_000_000);
    }
    // A link that shrinks under the daemon is noticed by what it refuses.
    hosts[0].ip("link set eth0 mtu 1400");
    transfer(&founder, &ada, ada.v4(), 1_000_000);
    transfer(&founder, &ada, ada.v6(), 1_000_000);
    assert_eq!(founder.drops("send_failed"), 0, "{}", founder.status());
}

#[test]
fn a_packet_that_the_narrowest_link_cannot_take_is_answered_too() {
    let Some(mut lab) = Lab::new() else { return };
    let hosts = [lab.host("founder"), lab.host("ada")];
    hosts.iter().for_each(|host| drop(host.ip("link set eth0 mtu 1124")));
    let [founder, ada] = pair_on([&hosts[0], &hosts[1]], Host::v4);
    let before = founder.drops("too_large");
    // With its headers it is 1150 bytes: it would pass any link that IPv6 allows.
    assert_eq!(send_long(&founder, founder.v4(), ada.v4(), 1_122), Some(libc::EMSGSIZE));
    assert!(eventually(PATIENCE, || founder.drops("too_large") > before), "{}", founder.status());
    transfer(&founder, &ada, ada.v4(), 100_000);
    assert_eq!(founder.drops("send_failed"), 0, "{}", founder.status());
}
