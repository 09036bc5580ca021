//! Nothing that is meant for the overlay leaves in clear, and nothing comes in but by the overlay: crash, rogue routes, neighbours.

use crate::capture::{Capture, Seen};
use crate::lab::{Host, Lab, eventually};
use crate::node::{Node, PATIENCE, exchange, pair};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// Packets of each attack.
const COUNT: u32 = 10_000;
/// The port that they are for.
const PORT: u16 = 7_777;

/// A service at an overlay address, which counts what comes until it is dropped.
struct Service {
    count: Arc<AtomicU32>,
    has_ended: Arc<AtomicBool>,
}

impl Service {
    fn start(node: &Node, address: IpAddr) -> Self {
        let socket = node.host().run(|| UdpSocket::bind((address, PORT))).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let service = Self { count: Arc::default(), has_ended: Arc::default() };
        let (count, has_ended) = (Arc::clone(&service.count), Arc::clone(&service.has_ended));
        thread::spawn(move || {
            while !has_ended.load(Ordering::Relaxed) {
                count.fetch_add(u32::from(socket.recv(&mut [0; 100]).is_ok()), Ordering::Relaxed);
            }
        });
        service
    }

    /// How many datagrams came.
    fn received(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }
}

/// Sends from a host to an endpoint, some thousand a second, and calls `at_half` on the way. Returns how many the kernel took.
fn send_many(from: &Host, to: SocketAddr, at_half: impl FnOnce()) -> u32 {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = from.run(|| UdpSocket::bind((any, 0))).unwrap();
    let (mut taken, mut at_half) = (0, Some(at_half));
    for number in 0..COUNT {
        if number == COUNT / 2 {
            at_half.take().expect("once")();
        }
        taken += u32::from(socket.send_to(b"in clear", to).is_ok());
        if number % 50 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
    taken
}

/// What of a capture goes to these addresses without any protection.
fn in_clear(seen: &[Seen], addresses: &[IpAddr]) -> usize {
    seen.iter().filter(|it| addresses.contains(&it.to.ip())).count()
}

#[test]
fn of_ten_thousand_packets_none_leaves_in_clear_when_the_sender_s_daemon_is_killed() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, mut ada] = pair(&mut lab);
    let addresses = [founder.v4(), founder.v6()];
    // The observer sees what a host sends by its default route.
    let host = ada.host().clone();
    for to in addresses {
        let capture = Capture::start(lab.router());
        let taken = send_many(&host, (to, PORT).into(), || ada.kill());
        assert!((COUNT / 2 - 100..=COUNT / 2 + 100).contains(&taken), "{taken} were taken: none after the end");
        let seen = capture.end();
        assert_eq!(in_clear(&seen, &addresses), 0);
        assert!(seen.len() > 100, "the observer saw {} datagrams", seen.len());
        ada.start();
        ada.meet(&founder);
    }
    exchange(&ada, &founder, [ada.v4(), founder.v4()]);
    // What would have leaked, had nothing been left: the same packets after a cleanup.
    ada.kill();
    ada.say_inside(&["cleanup"]).data();
    let capture = Capture::start(lab.router());
    send_many(&host, (addresses[0], PORT).into(), || {});
    assert!(in_clear(&capture.end(), &addresses) > COUNT as usize / 2, "the observer sees what leaves in clear");
}

#[test]
fn a_rogue_route_to_a_member_takes_no_packet_out_of_the_tunnel() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    let addresses = [founder.v4(), founder.v6()];
    let host = ada.host();
    // As a DHCP server or a router on the link may set them (CVE-2024-3661), more specific than anything.
    host.ip(&format!("route add {}/32 via 198.18.2.1", addresses[0]));
    host.ip(&format!("-6 route add {}/128 via 2001:db8:2::1", addresses[1]));
    host.ip("route add 0.0.0.0/1 via 198.18.2.1");
    let capture = Capture::start(lab.router());
    for to in addresses {
        let service = Service::start(&founder, to);
        assert_eq!(send_many(host, (to, PORT).into(), || {}), COUNT);
        // Queues may overflow on a busy machine; what they lose is not on the wire either.
        let most = || service.received() > COUNT / 10 * 9;
        assert!(eventually(PATIENCE, most), "{} of {COUNT} arrived at {to}", service.received());
    }
    assert_eq!(in_clear(&capture.end(), &addresses), 0);
}

#[test]
fn where_the_rules_are_gone_the_packet_filter_lets_nothing_out_in_clear() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, mut ada] = pair(&mut lab);
    let addresses = [founder.v4(), founder.v6()];
    let host = ada.host().clone();
    ada.kill();
    // Nobody puts them back now.
    host.ip("rule del priority 5100");
    host.ip("-6 rule del priority 5100");
    let capture = Capture::start(lab.router());
    for to in addresses {
        assert_eq!(send_many(&host, (to, PORT).into(), || {}), 0, "the sender is told");
    }
    assert_eq!(in_clear(&capture.end(), &addresses), 0);
}

#[test]
fn a_neighbour_on_the_lan_reaches_no_service_at_an_overlay_address() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, mut ada] = pair(&mut lab);
    let neighbour = lab.host("neighbour");
    let host = ada.host().clone();
    neighbour.ip(&format!("link add lan0 type veth peer name lan0 netns {}", host.namespace()));
    for (host, number) in [(&host, 1), (&neighbour, 2)] {
        host.ip(&format!("addr add 192.0.2.{number}/24 dev lan0"));
        host.ip(&format!("addr add 2001:db8:99::{number}/64 dev lan0 nodad"));
        host.ip("link set lan0 up");
    }
    let addresses = [ada.v4(), ada.v6()];
    neighbour.ip(&format!("route add {}/32 via 192.0.2.1", addresses[0]));
    neighbour.ip(&format!("-6 route add {}/128 via 2001:db8:99::1", addresses[1]));
    for to in addresses {
        let service = Service::start(&ada, to);
        assert_eq!(send_many(&neighbour, (to, PORT).into(), || {}), COUNT);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(service.received(), 0);
        // Members reach it all the while.
        let from = founder.udp(if to.is_ipv4() { founder.v4() } else { founder.v6() });
        from.send_to(b"member", (to, PORT)).unwrap();
        assert!(eventually(PATIENCE, || service.received() == 1));
    }

    // An interface that is trusted, by the configuration, while it runs.
    ada.configure("[routes]\nforward_from = [\"lan0\"]\n");
    assert_eq!(ada.ask(&["reload"])["changed"], serde_json::json!(["routes"]));
    let trusting = Service::start(&ada, addresses[0]);
    send_many(&neighbour, (addresses[0], PORT).into(), || {});
    let most = || trusting.received() > COUNT / 10 * 9;
    assert!(eventually(PATIENCE, most), "{} of {COUNT} came by a trusted interface", trusting.received());

    // Neither does a killed daemon's host pass on what is for the overlay, nor does one that forwards.
    ada.configure("");
    ada.ask(&["reload"]);
    host.sysctl("net/ipv4/ip_forward", "1");
    neighbour.ip(&format!("route add {}/32 via 192.0.2.1", founder.v4()));
    let at_founder = Service::start(&founder, founder.v4());
    send_many(&neighbour, (founder.v4(), PORT).into(), || ada.kill());
    assert_eq!(at_founder.received(), 0);
}
