//! What a router, an exit and who uses an exit do not let pass beside the overlay, or into it.

use crate::capture::Capture;
use crate::lab::{Host, Lab, Underlay, eventually};
use crate::node::{Node, PATIENCE, founder, joiner};
use crate::subnets::{TRY, ask, is_told, lan, serve};
use serde_json::json;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Datagrams that are sent to see whether any comes through.
const DATAGRAMS: usize = 200;

fn octets(address: IpAddr) -> [u8; 4] {
    let IpAddr::V4(address) = address else { panic!("{address}") };
    address.octets()
}

/// An exit, and who uses it, locked down.
fn exit_and_client(lab: &mut Lab) -> (Node, Node, Node) {
    let founder = founder(lab);
    let exit = joiner(lab, &founder, "exit");
    let client = joiner(lab, &founder, "client");
    founder.ask(&["advertise", "--exit", "--for", "exit"]);
    assert!(eventually(PATIENCE, || client.ask(&["exit-node", "list"]) != json!([])));
    client.configure("[routes]\nlock_down = true\nlan_access = false\n");
    client.ask(&["reload"]);
    client.ask(&["exit-node", "use", "exit"]);
    let is_led = || client.host().ip("route show table 52800").contains("default dev");
    assert!(eventually(PATIENCE, is_led), "{}", client.log());
    (founder, exit, client)
}

/// Says how many of the datagrams come that one host sends to a port of another.
fn received(from: &Host, to: &Host, port: u16) -> usize {
    let receiver = to.run(|| UdpSocket::bind((to.v4(), port))).unwrap();
    receiver.set_read_timeout(Some(TRY)).unwrap();
    let sender = from.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    (0..DATAGRAMS).for_each(|_| drop(sender.send_to(b"passing by", (to.v4(), port))));
    (0..DATAGRAMS).take_while(|_| receiver.recv(&mut [0; 64]).is_ok()).count()
}

#[test]
fn locked_down_nothing_leaves_while_the_daemon_starts_anew_nor_when_its_exit_is_none_any_more() {
    let Some(mut lab) = Lab::new() else { return };
    let server = lab.host_with("server", Underlay::V4);
    serve(&server, "here");
    let (founder, _exit, mut client) = exit_and_client(&mut lab);
    let host = client.host().clone();
    assert!(is_told(&host, octets(server.v4()), "here"), "{}", client.log());
    let capture = Capture::start(lab.router());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (host, server, is_over) = (&host, &server, &is_over);
        scope.spawn(move || {
            let sender = host.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                let _ = sender.send_to(b"in clear", (server.v4(), 9));
                thread::sleep(Duration::from_micros(200));
            }
        });
        for _ in 0..5 {
            client.kill();
            client.start();
            client.wait_for("online");
        }
        founder.ask(&["unadvertise", "--exit", "--for", "exit"]);
        assert!(eventually(PATIENCE, || client.ask(&["exit-node", "list"]) == json!([])));
        client.kill();
        client.start();
        client.wait_for("online");
        thread::sleep(TRY);
        is_over.store(true, Ordering::Relaxed);
    });
    // What goes by the exit comes to the router from there.
    let seen = capture.end();
    let in_clear = seen.iter().filter(|it| it.from.ip() == host.v4() && it.to == (server.v4(), 9).into()).count();
    assert_eq!(in_clear, 0, "of what left in clear, while {} datagrams passed", seen.len());
    assert_eq!(ask(&host, octets(server.v4())), None);
    client.ask(&["exit-node", "off"]);
    assert!(is_told(&host, octets(server.v4()), "here"));
}

#[test]
fn locked_down_nothing_is_passed_on_beside_the_tunnel_for_a_container_either() {
    let Some(mut lab) = Lab::new() else { return };
    let server = lab.host_with("server", Underlay::V4);
    let (_founder, _exit, client) = exit_and_client(&mut lab);
    let container = lan(&mut lab, &client, "container", [172, 17, 0]);
    container.ip("route replace default via 172.17.0.1");
    client.host().sysctl("net/ipv4/ip_forward", "1");
    lab.router().ip(&format!("route add 172.17.0.0/16 via {}", client.host().v4()));
    // The daemon's own port is no way out, and no other is.
    for port in [4647, 4648] {
        assert_eq!(received(&container, &server, port), 0, "port {port}");
    }
    client.ask(&["exit-node", "off"]);
    assert!(
        eventually(PATIENCE, || received(&container, &server, 4647) == DATAGRAMS),
        "without an exit it goes its way"
    );
}

#[test]
fn an_exit_s_uplink_begins_nothing_in_the_overlay() {
    let Some(mut lab) = Lab::new() else { return };
    let outside = lab.host_with("outside", Underlay::V4);
    serve(&outside, "outside");
    let founder = founder(&mut lab);
    let exit = joiner(&mut lab, &founder, "exit");
    for masquerade in [true, false] {
        exit.configure(&format!("[routes]\nmasquerade = {masquerade}\n"));
        exit.ask(&["reload"]);
        founder.ask(&["advertise", "--exit", "--for", "exit"]);
        assert!(eventually(PATIENCE, || founder.ask(&["exit-node", "list"]) != json!([])));
        founder.ask(&["exit-node", "use", "exit"]);
        // Whoever is on its link may send there what is for the overlay: here the lab's router does.
        lab.router().ip(&format!("route replace 10.64.0.0/10 via {}", exit.host().v4()));
        assert!(is_told(founder.host(), octets(outside.v4()), "outside"), "{masquerade}: {}", exit.log());
        let receiver = founder.host().run(|| UdpSocket::bind((founder.v4(), 7))).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let sender = outside.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        let is_heard = || {
            let _ = sender.send_to(b"unasked", SocketAddr::new(founder.v4(), 7));
            receiver.recv(&mut [0; 64]).is_ok()
        };
        assert!(!eventually(TRY, is_heard), "{masquerade}: a stranger began a conversation");
    }
}

#[test]
fn a_router_of_one_lan_passes_nothing_on_between_its_other_networks() {
    let Some(mut lab) = Lab::new() else { return };
    let server = lab.host("server");
    let founder = founder(&mut lab);
    let site = lan(&mut lab, &founder, "site", [192, 168, 77]);
    site.ip("route replace default via 192.168.77.1");
    lab.router().ip(&format!("route add 192.168.77.0/24 via {}", founder.host().v4()));
    founder.ask(&["advertise", "192.168.77.0/24"]);
    let forwards =
        || founder.host().run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/lan0/forwarding").unwrap());
    assert!(eventually(PATIENCE, || forwards().trim() == "1"), "{}", founder.log());
    assert_eq!(received(&site, &server, 4648), 0, "from the LAN to the uplink");
    // Where the operator lets it pass it does.
    founder.host().sysctl("net/ipv4/ip_forward", "1");
    founder.ask(&["reload"]);
    assert!(eventually(PATIENCE, || received(&site, &server, 4648) == DATAGRAMS), "{}", founder.log());
}
