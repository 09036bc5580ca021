//! Subnets behind members and exits, on the real kernel: hosts that know nothing of the overlay, routers that are killed, two sites with one
//! subnet.

use crate::host_state::{assert_untouched, dump};
use crate::lab::{Host, Lab, eventually};
use crate::node::{Node, PATIENCE, founder, joiner};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How long one try to reach a host of a site takes.
pub const TRY: Duration = Duration::from_millis(700);
/// From the end of a router to the first answer by the other one.
const FAILOVER: Duration = Duration::from_secs(8);

/// Adds a LAN behind a node's host: an interface `lan0` with the first address, and a host beyond it with the second one, whose only other
/// route is none. Returns that host's namespace as a lab's host.
pub fn lan(lab: &mut Lab, router: &Node, name: &str, subnet: [u8; 3]) -> Host {
    let beyond = lab.host_with(name, crate::lab::Underlay::V4);
    let [a, b, c] = subnet;
    beyond.ip("link set eth0 down");
    router.host().ip(&format!("link add lan0 type veth peer name eth1 netns {}", beyond.namespace()));
    router.host().ip("link set lan0 up");
    beyond.ip("link set eth1 up");
    router.host().ip(&format!("addr add {a}.{b}.{c}.1/24 dev lan0"));
    beyond.ip(&format!("addr add {a}.{b}.{c}.9/24 dev eth1"));
    beyond
}

/// Answers everybody who connects to port 80 there with a text.
pub fn serve(host: &Host, text: &'static str) {
    let listener = host.run(|| TcpListener::bind(("0.0.0.0", 80))).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(text.as_bytes());
        }
    });
}

/// What a server tells, if it does soon.
pub fn ask(from: &Host, to: [u8; 4]) -> Option<String> {
    let mut stream = from.run(|| TcpStream::connect_timeout(&SocketAddr::from((to, 80)), TRY)).ok()?;
    stream.set_read_timeout(Some(TRY)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

pub fn is_told(from: &Host, to: [u8; 4], text: &str) -> bool {
    eventually(PATIENCE, || ask(from, to).as_deref() == Some(text))
}

#[test]
fn a_subnet_behind_a_member_is_asked_for_approved_accepted_and_reached_by_programs_that_know_nothing_of_it() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let [mut router, mut client] = ["gate", "client"].map(|name| joiner(&mut lab, &founder, name));
    let site = lan(&mut lab, &router, "site", [192, 168, 77]);
    serve(&site, "printer");
    let before = [dump(router.host()), dump(client.host())];
    let refusal = router.say(&["advertise", "192.168.77.0/24"]).refusal(6);
    assert!(refusal.contains("a signer has to approve"), "{refusal}");
    assert!(eventually(PATIENCE, || founder.ask(&["requests"]) != json!([])));
    let id = founder.ask(&["requests"])[0]["id"].as_str().unwrap().to_owned();
    founder.ask(&["approve", &id]);
    assert!(eventually(PATIENCE, || client.ask(&["routes"]) != json!([])));
    assert_eq!(founder.ask(&["requests"]), json!([]));
    assert_eq!(ask(client.host(), [192, 168, 77, 9]), None, "not accepted yet");
    client.ask(&["accept", "192.168.77.0/24"]);
    assert!(is_told(client.host(), [192, 168, 77, 9], "printer"), "{}\n{}", client.log(), router.log());

    // The site's host may not begin: it has no way here, and this node's own rules hold.
    client.ask(&["unaccept", "192.168.77.0/24"]);
    assert!(eventually(PATIENCE, || ask(client.host(), [192, 168, 77, 9]).is_none()));
    client.ask(&["accept", "all"]);
    assert!(is_told(client.host(), [192, 168, 77, 9], "printer"));
    client.stop();
    client.start();
    assert!(is_told(client.host(), [192, 168, 77, 9], "printer"), "what was accepted outlasts the daemon");
    router.ask(&["unadvertise", "192.168.77.0/24"]);
    assert!(eventually(PATIENCE, || ask(client.host(), [192, 168, 77, 9]).is_none()));
    client.stop();
    router.stop();
    let running = [dump(router.host()), dump(client.host())];
    assert_ne!(before[0], running[0], "the daemons ran before");
}

#[test]
fn of_two_routers_of_a_subnet_the_other_one_takes_over_when_one_is_killed() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let [one, two, client] = ["one", "two", "client"].map(|name| joiner(&mut lab, &founder, name));
    let mut routers = [one, two];
    for (router, text) in routers.iter().zip(["by one", "by two"]) {
        let site = lan(&mut lab, router, &format!("site-{}", router.name()), [192, 168, 77]);
        serve(&site, text);
        founder.ask(&["advertise", "192.168.77.0/24", "--for", router.name()]);
    }
    assert!(eventually(PATIENCE, || client.ask(&["routes"])[0]["routers"].as_array().is_some_and(|it| it.len() == 2)));
    client.ask(&["accept", "all"]);
    let texts = ["by one", "by two"];
    assert!(eventually(PATIENCE, || ask(client.host(), [192, 168, 77, 9]).is_some()));
    let first = ask(client.host(), [192, 168, 77, 9]).unwrap();
    let used = texts.iter().position(|text| *text == first).unwrap();
    routers[used].kill();
    let killed = Instant::now();
    assert!(is_told(client.host(), [192, 168, 77, 9], texts[1 - used]));
    println!("the other router answered {} ms after the first one was killed", killed.elapsed().as_millis());
    assert!(killed.elapsed() < FAILOVER, "{:?}", killed.elapsed());
    let routes = client.ask(&["routes"]);
    let states = routes[0]["routers"].as_array().unwrap();
    assert!(states.iter().any(|state| state["silent"] == true) && states.iter().any(|state| state["in_use"] == true));
}

#[test]
fn two_sites_with_one_subnet_are_told_apart_by_mapping() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let [east, west] = ["east", "west"].map(|name| joiner(&mut lab, &founder, name));
    for (router, text, shown) in [(&east, "east", "172.20.1.0/24"), (&west, "west", "172.20.2.0/24")] {
        let site = lan(&mut lab, router, &format!("site-{text}"), [192, 168, 1]);
        serve(&site, text);
        founder.ask(&["advertise", "192.168.1.0/24", "--map", shown, "--for", text]);
    }
    for (from, shown, text) in [(&east, [172, 20, 2, 9], "west"), (&west, [172, 20, 1, 9], "east")] {
        assert!(eventually(PATIENCE, || from.ask(&["routes"]).as_array().is_some_and(|routes| routes.len() == 2)));
        from.ask(&["accept", "all"]);
        assert!(is_told(from.host(), shown, text), "{text}: {}", from.log());
        assert!(is_told(from.host(), [192, 168, 1, 9], from.name()), "its own site is what it was");
    }
    // Unmapped, one would take the other's own network away: told, and not done.
    founder.ask(&["advertise", "192.168.1.0/24", "--for", "east"]);
    let problem = |node: &Node| node.status()["network"]["problems"].to_string();
    assert!(eventually(PATIENCE, || problem(&west).contains("192.168.1.0/24")), "{}", west.status());
    assert!(problem(&west).contains("lan0") && is_told(west.host(), [192, 168, 1, 9], "west"));
}

#[test]
fn an_exit_carries_what_is_for_everywhere_and_locked_down_nothing_leaves_beside_it() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let mut exit = joiner(&mut lab, &founder, "exit");
    let client = joiner(&mut lab, &founder, "client");
    let server = lab.host_with("server", crate::lab::Underlay::V4);
    let IpAddr::V4(to) = server.v4() else { panic!("{}", server.v4()) };
    let told = |host: &Host| {
        // Whom a server sees.
        let listener = server.run(|| TcpListener::bind(("0.0.0.0", 80))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let seen = ask_nobody(host, to.octets());
        let deadline = Instant::now() + TRY;
        while seen && Instant::now() < deadline {
            if let Ok((_, peer)) = listener.accept() {
                return Some(peer.ip());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    };
    assert_eq!(told(client.host()), Some(client.host().v4()));
    client.say(&["exit-node", "use", "exit"]).refusal(5);
    founder.ask(&["advertise", "--exit", "--for", "exit"]);
    assert!(eventually(PATIENCE, || client.ask(&["exit-node", "list"]) != json!([])));
    client.configure("[routes]\nlock_down = true\nlan_access = false\n");
    client.ask(&["reload"]);
    client.ask(&["exit-node", "use", "exit"]);
    assert!(eventually(PATIENCE, || told(client.host()) == Some(exit.host().v4())), "{}\n{}", client.log(), exit.log());
    // The tunnel's own datagrams go on as before, and members too.
    client.wait_for("peer=founder");
    exit.kill();
    let socket = client.host().run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let heard = server.run(|| UdpSocket::bind("0.0.0.0:9")).unwrap();
    heard.set_read_timeout(Some(TRY)).unwrap();
    for _ in 0..1000 {
        let _ = socket.send_to(b"in clear", (to, 9));
    }
    assert!(heard.recv_from(&mut [0; 64]).is_err(), "left in clear");
    client.ask(&["exit-node", "off"]);
    assert!(eventually(PATIENCE, || told(client.host()) == Some(client.host().v4())));
}

/// Says whether a connection comes about.
fn ask_nobody(from: &Host, to: [u8; 4]) -> bool {
    from.run(|| TcpStream::connect_timeout(&SocketAddr::from((to, 80)), TRY)).is_ok()
}

#[test]
fn a_router_and_exit_that_stops_leaves_its_host_as_it_was() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founder(&mut lab);
    let site = lan(&mut lab, &founder, "site", [192, 168, 77]);
    serve(&site, "site");
    founder.stop();
    let before = dump(founder.host());
    founder.start();
    founder.ask(&["advertise", "192.168.77.0/24", "--map", "172.20.7.0/24", "--exit"]);
    let forwards =
        || founder.host().run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/lan0/forwarding").unwrap());
    assert!(eventually(PATIENCE, || forwards().trim() == "1"), "{}", founder.log());
    founder.stop();
    assert_untouched(&before, founder.host());
    founder.start();
    assert!(eventually(PATIENCE, || founder
        .host()
        .run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/lan0/forwarding").unwrap())
        .trim()
        == "1"));
    founder.kill();
    founder.say_inside(&["cleanup"]).data();
    assert_untouched(&before, founder.host());
}

#[test]
fn of_two_networks_with_an_exit_on_one_host_the_one_that_is_asked_first_has_it() {
    let Some(mut lab) = Lab::new() else { return };
    let server = lab.host_with("server", crate::lab::Underlay::V4);
    serve(&server, "here");
    let IpAddr::V4(to) = server.v4() else { panic!("{}", server.v4()) };
    let founder = founder(&mut lab);
    founder.ask(&["advertise", "--exit"]);
    let mut client = joiner(&mut lab, &founder, "client");
    let mut other_founder = Node::new(&lab.host("other"), "other");
    other_founder.ask(&["init", "other", "--name", "other", "--no-start"]);
    other_founder.start();
    other_founder.wait_for("online");
    other_founder.ask(&["advertise", "--exit"]);
    let mut second = Node::new(client.host(), "second");
    second.ask(&["join", &other_founder.invite(&["--name", "second"]), "--name", "second", "--no-start"]);
    second.start_with(&["--listen", "0.0.0.0:4700"]);
    second.wait_for("online");
    for (node, exit) in [(&client, "founder"), (&second, "other")] {
        assert!(eventually(PATIENCE, || node.ask(&["exit-node", "list"]) != json!([])), "{}", node.log());
        node.ask(&["exit-node", "use", exit]);
    }
    let problems = |node: &Node| node.status()["network"]["problems"].to_string();
    let yields = || problems(&second).contains("p2p-lab, another network's, is the way to everywhere already");
    assert!(eventually(PATIENCE, yields), "{}", problems(&second));
    assert_eq!(problems(&client), "[]");
    let host = client.host().clone();
    let everywhere = |table: u32| host.ip(&format!("route show table {table}")).contains("default dev");
    assert!(everywhere(52_800) && !everywhere(52_801));
    assert!(is_told(client.host(), to.octets(), "here"));
    client.ask(&["exit-node", "off"]);
    assert!(eventually(PATIENCE, || everywhere(52_801) && problems(&second) == "[]"), "{}", problems(&second));
    assert!(is_told(client.host(), to.octets(), "here"));
    // Back again, it is asked first as before, and the other one makes way.
    client.ask(&["exit-node", "use", "founder"]);
    assert!(eventually(PATIENCE, || everywhere(52_800) && !everywhere(52_801) && yields()), "{}", second.log());
    client.stop();
    assert!(eventually(PATIENCE, || everywhere(52_801)), "{}", second.log());
}

/// Announces the router of a host's link as the way to everywhere, as a real one does every few minutes (RFC 4861 §4.2).
fn advertise_router(lab: &Lab, host: &Host) {
    let link = host.router_link();
    lab.router().run(|| {
        let index = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        let index = index.lines().find(|line| line.ends_with(&format!(" {link}"))).unwrap();
        let index = u32::from_str_radix(index.split_whitespace().nth(1).unwrap(), 16).unwrap();
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        socket.set_multicast_hops_v6(255).unwrap();
        socket.set_multicast_if_v6(index).unwrap();
        let everybody = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index);
        // Type 134, for 1800 s; the kernel fills in the checksum.
        let advertisement = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        socket.send_to(&advertisement, &everybody.into()).unwrap();
    });
}

#[test]
fn a_host_that_learned_its_way_out_from_a_router_keeps_it_while_it_passes_packets_on() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founder(&mut lab);
    let host = founder.host().clone();
    host.ip("-6 route del default");
    let learned = || {
        advertise_router(&lab, &host);
        eventually(Duration::from_millis(300), || host.ip("-6 route show default").contains("proto ra"))
    };
    assert!(eventually(PATIENCE, learned));
    let setting = |name: &str| {
        let path = format!("/proc/sys/net/ipv6/conf/{name}");
        host.run(|| std::fs::read_to_string(path).unwrap()).trim().to_owned()
    };
    assert_eq!((setting("all/forwarding"), setting("eth0/accept_ra")), ("0".into(), "1".into()));
    founder.ask(&["advertise", "--exit"]);
    assert!(eventually(PATIENCE, || setting("all/forwarding") == "1"), "{}", founder.log());
    assert!(host.ip("-6 route show default").contains("proto ra"), "forgotten");
    host.ip("-6 route del default");
    assert!(eventually(PATIENCE, learned), "heeded no more");
    // One that comes later is a host's as well.
    host.ip("link add late0 type veth peer name late1");
    host.ip("link set late0 up");
    assert!(eventually(PATIENCE, || setting("late0/accept_ra") == "2"), "{}", founder.log());
    founder.stop();
    let after =
        ["all/forwarding", "eth0/accept_ra", "late0/accept_ra", "late1/accept_ra", "default/accept_ra"].map(setting);
    assert_eq!(after, ["0", "1", "1", "1", "1"]);
}
