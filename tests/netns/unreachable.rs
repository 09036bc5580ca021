//! What an application hears of packets that go nowhere, from the real kernel.

use crate::lab::{Lab, eventually};
use crate::node::{Node, PATIENCE, founder};
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
