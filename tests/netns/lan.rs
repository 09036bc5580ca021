//! Members on one LAN find each other by what they say there, when nothing else tells them where they are; who lies there gains nothing.

use crate::lab::{Host, Lab, eventually};
use crate::nat::{Nat, behind_nat};
use crate::node::{Node, PATIENCE, PORT, exchange};
use p2plus::node::lan::message::{self, Heard, Instance, Validity};
use p2plus::node::lan::{MemberTag, NetworkTag};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const MDNS_PORT: u16 = 5353;

/// The group, and the port, as the kernel's lists show them.
const GROUP_HEX: &str = "FB0000E0";
const PORT_HEX: &str = ":14E9";

/// How long members who cannot find each other are watched.
const IN_VAIN: Duration = Duration::from_secs(8);

/// A founder far away, and two members behind one NAT that knew it once, and each other at addresses that are nobody's any more.
fn estranged(lab: &mut Lab) -> (Host, [Node; 2]) {
    let mut founder = Node::new(&lab.host("founder"), "founder");
    founder.found();
    let (gate, one) = behind_nat(lab, Nat::Symmetric, "ada");
    let other = lab.host_behind(&gate, "ben");
    let [mut ada, mut ben] = [Node::new(&one, "ada"), Node::new(&other, "ben")];
    for node in [&mut ada, &mut ben] {
        node.configure("[underlay]\nlan_discovery = false\n");
        node.join(&founder.invite(&["--name", node.name()]));
    }
    ada.meet(&ben);
    for node in [&mut founder, &mut ada, &mut ben] {
        node.stop();
    }
    for node in [&ada, &ben] {
        let IpAddr::V4(old) = node.host().v4() else { unreachable!("a LAN of the lab is IPv4") };
        node.host().ip("addr flush dev eth0");
        let [a, b, c, d] = old.octets();
        node.host().ip(&format!("addr add {a}.{b}.{c}.{}/24 dev eth0", d + 100));
        node.host().ip(&format!("route add default via {a}.{b}.{c}.1"));
    }
    (gate, [ada, ben])
}

fn is_connected(node: &Node, other: &Node) -> bool {
    !node.peer(other)["session"].is_null()
}

/// A list of the kernel, as this host's namespace has it.
fn list(host: &Host, name: &str) -> String {
    let path = format!("/proc/thread-self/net/{name}");
    host.run(|| std::fs::read_to_string(&path)).unwrap()
}

/// The local addresses of the host's sockets for multicast DNS.
fn sockets(host: &Host) -> Vec<String> {
    let locals = list(host, "udp")
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned))
        .collect::<Vec<_>>();
    locals.into_iter().filter(|local| local.ends_with(PORT_HEX)).collect()
}

/// The interfaces on which the host hears the group.
fn joined(host: &Host) -> Vec<String> {
    let mut device = String::new();
    let mut joined = Vec::new();
    for line in list(host, "igmp").lines() {
        let mut words = line.split_whitespace();
        if !line.starts_with(char::is_whitespace) {
            device = words.nth(1).unwrap_or_default().to_owned();
        } else if words.next() == Some(GROUP_HEX) {
            joined.push(device.clone());
        }
    }
    joined
}

#[test]
fn members_on_one_lan_find_each_other_by_it_alone() {
    let Some(mut lab) = Lab::new() else { return };
    let (_gate, [mut ada, mut ben]) = estranged(&mut lab);
    ada.start();
    ben.start();
    let deadline = Instant::now() + IN_VAIN;
    while Instant::now() < deadline {
        assert!(!is_connected(&ada, &ben), "they know each other's place already");
        thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(sockets(ada.host()), [""; 0], "what is switched off opens no socket");
    for node in [&ada, &ben] {
        node.configure("");
        node.ask(&["reload"]);
    }
    ada.meet(&ben);
    exchange(&ada, &ben, [ada.v4(), ben.v4()]);
    assert_eq!(
        sockets(ada.host()),
        [format!("{GROUP_HEX}{PORT_HEX}")],
        "what is sent to the host itself is for others"
    );
    assert_eq!(joined(ada.host()), ["eth0"], "neither the tunnel nor the loopback is a LAN");
    ada.configure("[underlay]\nlan_discovery = false\n");
    ada.ask(&["reload"]);
    assert!(eventually(PATIENCE, || sockets(ada.host()).is_empty()));
}

/// A socket of the group, as avahi has it.
fn group_socket(host: &Host, address: Ipv4Addr) -> UdpSocket {
    host.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, MDNS_PORT)).into()).unwrap();
        socket.join_multicast_v4_n(&GROUP, &InterfaceIndexOrAddress::Address(address)).unwrap();
        socket.set_multicast_if_v4(&address).unwrap();
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    })
}

/// What a member of the LAN says of itself, overheard.
fn overhear(socket: &UdpSocket, port: u16) -> (NetworkTag, MemberTag) {
    let (mut tags, mut buffer) = (None, [0; 2000]);
    assert!(eventually(PATIENCE, || {
        let _ = socket.send_to(&message::encode_question(), (GROUP, MDNS_PORT));
        let Ok((len, _)) = socket.recv_from(&mut buffer) else { return false };
        let Some(Heard::Adverts(adverts)) = message::decode(&buffer[..len], Instance([0; 8])) else { return false };
        let member = adverts.iter().find(|it| it.endpoints.iter().any(|endpoint| endpoint.port() == port));
        tags = member.map(|it| (it.network, it.member));
        tags.is_some()
    }));
    tags.unwrap()
}

/// Resident memory of a process, in KiB.
fn memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_liar_on_the_lan_costs_a_bounded_memory_and_gets_no_session() {
    let Some(mut lab) = Lab::new() else { return };
    let (gate, [mut ada, mut ben]) = estranged(&mut lab);
    let liar = lab.host_behind(&gate, "liar");
    let IpAddr::V4(address) = liar.v4() else { unreachable!("a LAN of the lab is IPv4") };
    for node in [&mut ada, &mut ben] {
        node.configure("");
        node.start();
    }
    ada.meet(&ben);
    let socket = group_socket(&liar, address);
    let tags = overhear(&socket, PORT);

    // Whoever is believed to be there is called upon there.
    let trap = liar.run(|| UdpSocket::bind((address, PORT))).unwrap();
    trap.set_nonblocking(true).unwrap();
    let before = memory(ada.pid());
    assert_eq!(flood(&socket, &trap, address, tags), 0, "who has a session is not looked for");
    assert!(is_connected(&ada, &ben) && is_connected(&ben, &ada));
    exchange(&ada, &ben, [ada.v4(), ben.v4()]);

    ben.stop();
    assert!(eventually(PATIENCE, || !is_connected(&ada, &ben)));
    let calls = flood(&socket, &trap, address, tags);
    // A place that nobody proved gets 64 kB at once, and all of them together not much more: `tests/sim/neighbours.rs`.
    assert!(calls <= 100, "{calls} datagrams went to who claimed to be a member");
    let after = memory(ada.pid());
    assert!(after < before + 8 * 1024, "{before} KiB before, {after} after");
    assert!(!is_connected(&ada, &ben));
    ben.start();
    ada.meet(&ben);
}

/// Speaks for thousands of instances, a true member among them, at four addresses each. Returns how many datagrams came to the trap meanwhile.
fn flood(socket: &UdpSocket, trap: &UdpSocket, address: Ipv4Addr, tags: (NetworkTag, MemberTag)) -> usize {
    let mut calls = 0;
    for round in 0..40_000_u32 {
        let [_, _, high, low] = round.to_be_bytes();
        let instance = Instance([high, low, 1, 2, 3, 4, 5, 6]);
        let member = if round % 2 == 0 { tags.1 } else { MemberTag([high ^ low; 16]) };
        let [a, b, c, _] = address.octets();
        let others = [Ipv4Addr::new(a, b, c, low), Ipv4Addr::new(10, high, low, 7), Ipv4Addr::LOCALHOST];
        let addresses: Vec<IpAddr> = std::iter::once(address).chain(others).map(IpAddr::V4).collect();
        let lie = message::encode_advert(instance, (tags.0, member), PORT, &addresses, Validity::Holds);
        let _ = socket.send_to(&lie, (GROUP, MDNS_PORT));
        calls += std::iter::from_fn(|| trap.recv(&mut [0; 2000]).ok()).count();
        if round % 100 == 0 {
            thread::sleep(Duration::from_millis(10));
        }
    }
    calls
}

#[test]
fn another_responder_on_the_host_hears_all_that_is_its_own() {
    let Some(mut lab) = Lab::new() else { return };
    let (gate, [mut ada, mut ben]) = estranged(&mut lab);
    let friend = lab.host_behind(&gate, "friend");
    let text = ada.host().ip("-4 -o addr show dev eth0");
    let address: Ipv4Addr = text.split_whitespace().nth(3).unwrap().split('/').next().unwrap().parse().unwrap();
    let other = group_socket(ada.host(), address);
    for node in [&mut ada, &mut ben] {
        node.configure("");
        node.start();
    }
    ada.meet(&ben);
    assert_eq!(sockets(ada.host()).len(), 2);
    let mut buffer = [0; 2000];
    let heard = |wanted: &dyn Fn(&[u8]) -> bool, buffer: &mut [u8]| {
        eventually(PATIENCE, || other.recv(buffer).is_ok_and(|len| wanted(&buffer[..len])))
    };
    // Where two sockets have the port on all addresses, the kernel gives each the datagrams of some senders.
    for sender in 0..16 {
        let from = friend.run(|| UdpSocket::bind((friend.v4(), 0))).unwrap();
        let text = format!("sender {sender}, for avahi alone");
        from.send_to(text.as_bytes(), (address, MDNS_PORT)).unwrap();
        assert!(heard(&|bytes| bytes == text.as_bytes(), &mut buffer), "{text}");
    }
    other.send_to(&message::encode_question(), (GROUP, MDNS_PORT)).unwrap();
    let is_advert = |bytes: &[u8]| matches!(message::decode(bytes, Instance([0; 8])), Some(Heard::Adverts(_)));
    assert!(heard(&is_advert, &mut buffer), "both hear the group");
}

#[test]
fn a_joiner_finds_on_the_lan_whom_its_ticket_names() {
    let Some(mut lab) = Lab::new() else { return };
    let (gate, one) = behind_nat(&mut lab, Nat::Symmetric, "founder");
    let other = lab.host_behind(&gate, "ada");
    let [mut founder, mut ada] = [Node::new(&one, "founder"), Node::new(&other, "ada")];
    founder.found();
    // All that the ticket says of where the founder is: where nobody is.
    let nowhere = SocketAddr::from(([198, 51, 100, 7], PORT));
    ada.join(&founder.invite_by(nowhere, &["--name", "ada"]));
    founder.meet(&ada);
}
