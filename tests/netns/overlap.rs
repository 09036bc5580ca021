//! An overlay whose IPv4 addresses are those of the host's own network.

use crate::lab::{Host, Lab, eventually};
use crate::node::{NETWORK, Node, PATIENCE, exchange};
use serde_json::{Value, json};
use std::net::{IpAddr, UdpSocket};

/// The overlay's pool, and the LAN's prefix.
const POOL: &str = "10.77.0.0/24";
/// Two hosts of the LAN.
const LAN: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 200)), IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 201))];

/// Sends a datagram from one host of the LAN to the other and back.
fn lan_works(hosts: [&Host; 2]) {
    let [here, there] = [0, 1].map(|number| {
        let socket = hosts[number].run(|| UdpSocket::bind((LAN[number], 0))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    });
    for (from, to) in [(&here, &there), (&there, &here)] {
        from.send_to(b"neighbour", to.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 20];
        let (len, seen) = to.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], seen), (b"neighbour".as_slice(), from.local_addr().unwrap()));
    }
}

/// The IPv4 addresses of the interface.
fn device_v4(node: &Node) -> String {
    node.host().ip(&format!("-4 -o addr show dev p2p-{NETWORK}"))
}

fn conflicts(node: &Node) -> Value {
    node.status()["network"]["conflicts"].clone()
}

#[test]
fn an_overlay_that_overlaps_the_lan_leaves_it_alone_and_uses_ipv6_until_it_is_forced() {
    let Some(mut lab) = Lab::new() else { return };
    let (home, neighbour) = (lab.host("ada"), lab.host("neighbour"));
    home.ip(&format!("link add lan0 type veth peer name lan0 netns {}", neighbour.namespace()));
    for (host, address) in [&home, &neighbour].into_iter().zip(LAN) {
        host.ip(&format!("addr add {address}/24 dev lan0"));
        host.ip("link set lan0 up");
    }
    lan_works([&home, &neighbour]);

    let mut founder = Node::new(&lab.host("founder"), "founder");
    founder.ask(&["init", NETWORK, "--name", "founder", "--ipv4", POOL, "--no-start"]);
    founder.start();
    founder.wait_for("online");
    assert_eq!(conflicts(&founder), json!([]));
    let mut ada = Node::new(&home, "ada");
    ada.join(&founder.invite(&[]));
    founder.meet(&ada);

    // The overlay works by IPv6, and the LAN as if it were not there.
    assert_eq!(conflicts(&ada), json!([{"prefix": POOL, "with": "lan0 10.77.0.0/24"}]));
    assert_eq!(device_v4(&ada), "");
    lan_works([&home, &neighbour]);
    exchange(&ada, &founder, [ada.v6(), founder.v6()]);
    let told = |log: &str| log.lines().filter(|line| line.contains("WARN") && line.contains("overlap")).count();
    assert_eq!(told(&ada.log()), 1, "{}", ada.log());
    let said = ada.say_plainly(&["status"]);
    assert!(said.out.contains("10.77.0.0/24 overlaps lan0 10.77.0.0/24"), "{said:?}");
    // What comes for the address all the same goes no further: a host that forwards would pass it on to its LAN.
    let socket = founder.udp(founder.v4());
    let is_dropped = || {
        socket.send_to(b"to the overlay", (ada.v4(), 9)).unwrap();
        ada.drops("address_conflict") > 0
    };
    assert!(eventually(PATIENCE, is_dropped));

    // The LAN goes: IPv4 comes. A wider one appears: it is left alone as well.
    home.ip(&format!("addr del {}/24 dev lan0", LAN[0]));
    assert!(eventually(PATIENCE, || conflicts(&ada) == json!([])));
    exchange(&ada, &founder, [ada.v4(), founder.v4()]);
    home.ip(&format!("addr add {}/16 dev lan0", LAN[0]));
    assert!(eventually(PATIENCE, || conflicts(&ada) == json!([{"prefix": POOL, "with": "lan0 10.77.0.0/16"}])));
    assert_eq!(device_v4(&ada), "");
    lan_works([&home, &neighbour]);

    // By the configuration, while it runs; and by a flag, which no reload takes back.
    ada.configure("[tunnel]\nforce_ipv4 = true\n");
    assert_eq!(ada.ask(&["reload"])["changed"], json!(["tunnel.force_ipv4"]));
    assert!(device_v4(&ada).contains(&ada.v4().to_string()), "{}", device_v4(&ada));
    exchange(&ada, &founder, [ada.v4(), founder.v4()]);
    ada.configure("");
    ada.ask(&["reload"]);
    assert_eq!(device_v4(&ada), "");
    ada.stop();
    ada.start_with(&["--force-ipv4"]);
    ada.meet(&founder);
    ada.ask(&["reload"]);
    assert_eq!(conflicts(&ada), json!([]));
    exchange(&ada, &founder, [ada.v4(), founder.v4()]);
}
