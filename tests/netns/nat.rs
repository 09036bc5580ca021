//! Real NATs, by nftables, in front of hosts on LANs of their own. Each maps and filters as RFC 4787 calls it, which the tests here show.
//!
//! ```text
//!   host 192.168.GATE.N ── lan0  gate  eth0 198.18.GATE.2 ── router
//! ```
//! What comes unasked is dropped in the gate's own input, too: if its kernel answered "port unreachable", it would remember that flow, and the
//! host's next packet to who had called would get another port.

use crate::lab::{Host, Lab, eventually};
use crate::node::PATIENCE;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// How long what must not arrive is waited for.
const SHORTLY: Duration = Duration::from_millis(150);

/// How a gate treats its LAN's packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nat {
    /// Endpoint-independent mapping and filtering: whoever knows the mapped port reaches the host.
    FullCone,
    /// Endpoint-independent mapping, address and port-dependent filtering: most home routers.
    PortRestricted,
    /// Address and port-dependent mapping, ports at random: most companies' and mobile networks.
    Symmetric,
    /// As `PortRestricted`, but the gate itself answers what comes unasked, and gives the host another port afterwards.
    Leaky,
    /// `PortRestricted` behind `PortRestricted`: a home router behind a provider's.
    Double,
    /// IPv6 without any translation behind a firewall that lets nothing in unasked, and IPv4 by `Symmetric`: mobile networks.
    Ipv6Firewall,
    /// Nothing but TCP to port 443 leaves.
    UdpBlocked,
}

impl Nat {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::FullCone,
        Self::PortRestricted,
        Self::Symmetric,
        Self::Double,
        Self::Leaky,
        Self::Ipv6Firewall,
        Self::UdpBlocked,
    ];

    /// Those of IPv4 alone, each by itself, that carry UDP.
    pub const ALL_OF_UDP: [Self; 4] = [Self::FullCone, Self::PortRestricted, Self::Symmetric, Self::Leaky];

    /// Makes a host a gate of this kind.
    pub fn apply(self, gate: &Host) {
        let translation = |flags: &str| {
            format!(
                "table ip translation {{ chain out {{ type nat hook postrouting priority srcnat; oifname eth0 masquerade {flags}; }}; }}"
            )
        };
        let unasked = "table inet unasked {
            chain own { type filter hook input priority filter; iifname eth0 ct state new drop; };
            chain passed { type filter hook forward priority filter; iifname eth0 ct state new drop; }; }";
        let text = match self {
            // Who sent from a port last has what comes for it, from anybody; the kernel keeps the port.
            Self::FullCone => format!(
                "{}
                table ip cone {{
                    map ports {{ type inet_service : ipv4_addr . inet_service; flags dynamic, timeout; timeout 5m; size 65535; }}
                    chain learn {{ type filter hook forward priority mangle;
                        oifname eth0 meta l4proto udp update @ports {{ udp sport : ip saddr . udp sport }}; }}
                    chain in {{ type nat hook prerouting priority dstnat;
                        iifname eth0 meta l4proto udp dnat to udp dport map @ports; }}
                }}",
                translation("")
            ),
            Self::PortRestricted | Self::Double => format!("{}\n{unasked}", translation("")),
            Self::Symmetric | Self::Ipv6Firewall => format!("{}\n{unasked}", translation("random, fully-random")),
            Self::Leaky => translation(""),
            Self::UdpBlocked => format!(
                "{}
                table inet blocked {{ chain passed {{ type filter hook forward priority filter; policy drop;
                    ct state established,related accept; tcp dport 443 accept; }}; }}",
                translation("")
            ),
        };
        gate.rules(&text);
    }

    /// Whether every destination sees the host at one port (RFC 4787 §4.1): over IPv4.
    pub fn maps_independently(self) -> bool {
        matches!(self, Self::FullCone | Self::PortRestricted | Self::Leaky | Self::Double)
    }

    /// Whether anybody reaches the host at that port (RFC 4787 §5).
    pub fn filters_independently(self) -> bool {
        self == Self::FullCone
    }
}

/// Adds a gate of a kind at the router, and a host behind it.
pub fn behind_nat(lab: &mut Lab, nat: Nat, name: &str) -> (Host, Host) {
    let gate = lab.host(&format!("{name}-gate"));
    nat.apply(&gate);
    let inner = (nat == Nat::Double).then(|| lab.host_behind(&gate, &format!("{name}-inner")));
    inner.iter().for_each(|inner| nat.apply(inner));
    let host = lab.host_behind(inner.as_ref().unwrap_or(&gate), name);
    if nat == Nat::Ipv6Firewall {
        lab.give_ipv6(&gate, &host);
    }
    (gate, host)
}

fn udp(host: &Host, port: u16) -> UdpSocket {
    let socket = host.run(|| UdpSocket::bind((host.v4(), port))).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Where a server sees a socket, which hears the server's answer.
fn seen(socket: &UdpSocket, server: &UdpSocket) -> Option<SocketAddr> {
    let mut from = None;
    socket.send_to(b"who am I", server.local_addr().unwrap()).unwrap();
    eventually(SHORTLY, || {
        from = server.recv_from(&mut [0; 64]).ok().map(|(_, from)| from);
        from.is_some()
    });
    server.send_to(b"that", from?).unwrap();
    eventually(PATIENCE, || socket.recv(&mut [0; 64]).is_ok()).then_some(from?)
}

/// Whether what `sender` sends to an address comes to a socket.
fn reaches(sender: &UdpSocket, to: SocketAddr, socket: &UdpSocket) -> bool {
    sender.send_to(b"unasked", to).unwrap();
    eventually(SHORTLY, || socket.recv(&mut [0; 64]).is_ok())
}

#[test]
fn each_nat_maps_and_filters_as_its_name_says() {
    let Some(mut lab) = Lab::new() else { return };
    let servers = ["a", "b", "c"].map(|name| lab.host(name));
    for nat in Nat::ALL_OF_UDP {
        let (gate, host) = behind_nat(&mut lab, nat, &format!("{nat:?}").to_lowercase());
        let socket = udp(&host, 4000);
        let [a, b, c] = servers.each_ref().map(|server| udp(server, 3478));
        let [from_a, from_b] = [&a, &b].map(|server| seen(&socket, server).unwrap());
        assert_eq!([from_a.ip(), from_b.ip()], [gate.v4(); 2], "{nat:?}");
        assert_eq!(from_a == from_b, nat.maps_independently(), "{nat:?}: {from_a} and {from_b}");
        assert_eq!(from_a.port() == 4000, nat.maps_independently(), "{nat:?} keeps the port");
        assert_eq!(reaches(&c, from_a, &socket), nat.filters_independently(), "{nat:?}: a stranger");
        let other_port = udp(&servers[0], 3479);
        assert_eq!(
            reaches(&other_port, from_a, &socket),
            nat.filters_independently(),
            "{nat:?}: another port of a friend"
        );
        assert!(reaches(&a, from_a, &socket), "{nat:?}: a friend");
        // The stranger was answered by a leaky gate itself, which now knows that flow, and the host has to take another port towards it.
        let from_c = seen(&socket, &c).unwrap();
        assert_eq!(from_c == from_a, nat.maps_independently() && nat != Nat::Leaky, "{nat:?}: {from_c} and {from_a}");
    }
}

#[test]
fn behind_two_nats_the_outer_one_is_seen_and_the_stricter_one_counts() {
    let Some(mut lab) = Lab::new() else { return };
    let servers = ["a", "b"].map(|name| lab.host(name));
    let (double_gate, double) = behind_nat(&mut lab, Nat::Double, "double");
    let [a, b] = servers.each_ref().map(|server| udp(server, 3479));
    // One socket for both: a closed one lives on in a child that another test is about to start.
    let socket = udp(&double, 4000);
    let froms = [&a, &b].map(|server| seen(&socket, server).unwrap());
    assert!(froms.iter().all(|from| from.ip() == double_gate.v4()) && froms[0] == froms[1], "{froms:?}");
    for (outer, inner, is_independent) in
        [(Nat::PortRestricted, Nat::PortRestricted, true), (Nat::PortRestricted, Nat::Symmetric, false)]
    {
        let gate = lab.host(&format!("{inner:?}-outer").to_lowercase());
        outer.apply(&gate);
        let inner_gate = lab.host_behind(&gate, &format!("{inner:?}-inner").to_lowercase());
        inner.apply(&inner_gate);
        let host = lab.host_behind(&inner_gate, &format!("{inner:?}-host").to_lowercase());
        let socket = udp(&host, 4000);
        let [a, b] = servers.each_ref().map(|server| udp(server, 3478));
        let [from_a, from_b] = [&a, &b].map(|server| seen(&socket, server).unwrap());
        assert_eq!([from_a.ip(), from_b.ip()], [gate.v4(); 2], "{inner:?}");
        assert_eq!(from_a == from_b, is_independent, "{inner:?}");
    }
}

#[test]
fn a_firewall_of_ipv6_translates_nothing_and_lets_in_who_was_asked() {
    let Some(mut lab) = Lab::new() else { return };
    let server = lab.host("server");
    let (_gate, host) = behind_nat(&mut lab, Nat::Ipv6Firewall, "mobile");
    let bind = |host: &Host, port: u16| {
        let socket = host.run(|| UdpSocket::bind(("::", port))).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    let (socket, asked, stranger) = (bind(&host, 4000), bind(&server, 3478), bind(&server, 3479));
    socket.send_to(b"who am I", (server.v6(), 3478)).unwrap();
    let mut from = None;
    let is_heard = || {
        from = asked.recv_from(&mut [0; 64]).ok().map(|(_, from)| from);
        from.is_some()
    };
    assert!(eventually(PATIENCE, is_heard));
    let from = from.unwrap();
    assert_eq!((from.ip(), from.port()), (lab.ipv6_behind(&host), 4000));
    assert!(reaches(&asked, from, &socket) && !reaches(&stranger, from, &socket));
}

#[test]
fn where_udp_is_blocked_only_tcp_to_443_leaves() {
    let Some(mut lab) = Lab::new() else { return };
    let server = lab.host("server");
    let (_gate, host) = behind_nat(&mut lab, Nat::UdpBlocked, "office");
    assert_eq!(seen(&udp(&host, 4000), &udp(&server, 3478)), None);
    let connects = |port: u16| {
        let _listener = server.run(|| TcpListener::bind((server.v4(), port))).unwrap();
        let to = SocketAddr::from((server.v4(), port));
        host.run(|| TcpStream::connect_timeout(&to, SHORTLY)).is_ok()
    };
    assert!(connects(443) && !connects(80));
}

#[test]
fn hosts_of_one_lan_see_each_other_there() {
    let Some(mut lab) = Lab::new() else { return };
    let (gate, one) = behind_nat(&mut lab, Nat::Symmetric, "one");
    let other = lab.host_behind(&gate, "other");
    let from = seen(&udp(&one, 4000), &udp(&other, 4000)).unwrap();
    assert_eq!((from.ip(), from.port()), (one.v4(), 4000));
    assert!(matches!(gate.v4(), IpAddr::V4(address) if address.octets()[0] == 198));
}
