//! Members behind real NATs: by what way they reach each other, and how soon.
//!
//! ```text
//!   founder ── cable ── router ── cable ── gate ── ada          every cable delays
//!                          └───── cable ── gate ── ben
//! ```

use crate::cable::{Cable, Fate};
use crate::lab::{Host, Lab, eventually};
use crate::nat::{Nat, behind_nat};
use crate::node::{Node, PATIENCE, transfer};
use crate::tls::{block_udp, relay_by_tls};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// What each cable delays each way: two hosts are 50 ms apart, and what a relay passes on takes 100.
const CABLE_DELAY: Duration = Duration::from_millis(25);

/// How long a direct path is waited for, where there can be one.
const DIRECT_WITHIN: Duration = Duration::from_secs(8);

/// What came of two that wanted to talk.
struct Meeting {
    /// From the caller's daemon being ready to the first packet that the other one gets.
    first: Duration,
    /// To the first answer to one.
    answer: Duration,
    /// The way by which that came.
    first_way: String,
    /// From then to the first answer on a direct path.
    direct: Option<Duration>,
}

/// Two members behind gates of their own, and the founder, whom everybody reaches.
struct Scene {
    _cables: Vec<Cable>,
    _founder: Node,
    ada: Node,
    ben: Node,
}

fn delayed(lab: &mut Lab, host: &Host) -> (Cable, Host) {
    Cable::plug(lab, host, || Fate::Delay(CABLE_DELAY))
}

impl Scene {
    /// Ben's daemon runs, and knows the founder; ada's does not.
    fn new(lab: &mut Lab, nats: [Nat; 2]) -> Self {
        let host = lab.host("founder");
        let (cable, host) = delayed(lab, &host);
        let mut cables = vec![cable];
        let mut founder = Node::new(&host, "founder");
        founder.found();
        if nats.contains(&Nat::UdpBlocked) {
            relay_by_tls(&founder, &founder);
        }
        // Each knows that the other is a member, and the two never spoke: what goes to a gate that nobody spoke through yet makes some gates
        // choose another port.
        let mut ben = Self::member(lab, &mut cables, &founder, ("ben", nats[1]));
        ben.stop();
        let mut ada = Self::member(lab, &mut cables, &founder, ("ada", nats[0]));
        ada.stop();
        ben.start();
        ben.meet(&founder);
        assert!(eventually(PATIENCE, || !ben.peer(&ada).is_null()), "ben learns that ada is a member");
        Self { _cables: cables, _founder: founder, ada, ben }
    }

    /// A member behind a gate, at home at the founder.
    fn member(lab: &mut Lab, cables: &mut Vec<Cable>, founder: &Node, (name, nat): (&str, Nat)) -> Node {
        // Who joins where UDP is blocked cannot know of a relay yet.
        let at_first = if nat == Nat::UdpBlocked { Nat::Symmetric } else { nat };
        let (gate, host) = behind_nat(lab, at_first, name);
        let (cable, gate) = delayed(lab, &gate);
        cables.push(cable);
        if nat == Nat::Ipv6Firewall {
            lab.route_ipv6(&gate);
        }
        let mut node = Node::new(&host, name);
        node.join(&founder.invite(&["--name", name]));
        node.meet(founder);
        if nat == Nat::UdpBlocked {
            block_udp(&gate, 443);
            let is_by_tls = eventually(PATIENCE, || node.peer(founder)["path"]["kind"] == "tls");
            assert!(is_by_tls, "{}", node.peer(founder));
        }
        // The founder knows by now that it can be reached.
        node.meet(founder);
        node
    }

    /// Starts the caller and has it ask the other one until it answers.
    fn meet(&mut self) -> Meeting {
        self.ada.start();
        let began = Instant::now();
        let (from, to) = (self.ada.v4(), self.ben.v4());
        let asking = self.ada.udp(from);
        let answering = self.ben.udp(to);
        for socket in [&asking, &answering] {
            socket.set_nonblocking(true).unwrap();
        }
        let to = answering.local_addr().unwrap();
        let mut first = None;
        let is_answered = eventually(PATIENCE, || {
            let said = echo(&asking, &answering, to);
            if said.has_arrived {
                first.get_or_insert(began.elapsed());
            }
            said.is_answered
        });
        assert!(is_answered, "no answer at all");
        let answer = began.elapsed();
        let way = |node: &Node, other: &Node| node.peer(other)["path"]["kind"].as_str().unwrap().to_owned();
        let first_way = way(&self.ada, &self.ben);
        let mut is_direct = || {
            echo(&asking, &answering, to);
            way(&self.ada, &self.ben) == "direct" && way(&self.ben, &self.ada) == "direct"
        };
        let is_direct = eventually(DIRECT_WITHIN, &mut is_direct);
        let direct = is_direct.then(|| began.elapsed().saturating_sub(answer));
        Meeting { first: first.expect("what is answered arrived"), answer, first_way, direct }
    }
}

/// What became of a question.
struct Said {
    has_arrived: bool,
    is_answered: bool,
}

/// Sends a question, and has it answered if one came.
fn echo(asking: &UdpSocket, answering: &UdpSocket, to: std::net::SocketAddr) -> Said {
    let (mut bytes, mut has_arrived) = ([0; 64], false);
    let _ = asking.send_to(b"are you there", to);
    while let Ok((len, from)) = answering.recv_from(&mut bytes) {
        has_arrived = true;
        let _ = answering.send_to(&bytes[..len], from);
    }
    Said { has_arrived, is_answered: asking.recv(&mut bytes).is_ok() }
}

/// Whether two such hosts can reach each other directly: one of the two has to know the endpoint that the other's gate will use towards it, or
/// to guess its port, unless one gate lets anybody in.
fn can_meet(one: Nat, other: Nat) -> bool {
    let has_udp = one != Nat::UdpBlocked && other != Nat::UdpBlocked;
    let opens_ipv4 = one.maps_independently()
        || other.maps_independently()
        || one.filters_independently()
        || other.filters_independently();
    has_udp && (opens_ipv4 || [one, other] == [Nat::Ipv6Firewall; 2])
}

/// The ports of a host's sockets for UDP that are bound to all its addresses, but for the node's own and that of the LAN's discovery.
fn spare_ports(host: &Host) -> Vec<String> {
    let listed = host.command("ss").args(["-uanH"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let local = listed.lines().filter_map(|line| line.split_whitespace().nth(3));
    let ports = local.filter_map(|local| local.strip_prefix("0.0.0.0:"));
    ports.filter(|port| !["4647", "5353"].contains(port)).map(str::to_owned).collect()
}

/// Has two meet of which one is behind a gate that chooses a port for each conversation: what is hit is kept, and all else is closed.
fn search_ports(nats: [Nat; 2]) {
    let Some(mut lab) = Lab::new() else { return };
    let mut scene = Scene::new(&mut lab, nats);
    let Meeting { first, answer, first_way, direct } = scene.meet();
    println!("{nats:?}: {first:?}, answered after {answer:?} by {first_way}, direct after {direct:?}");
    assert!(direct.is_some(), "{nats:?}");
    let (ada, ben) = (&scene.ada, &scene.ben);
    let open = |node: &Node| spare_ports(node.host()).len();
    let expected = nats.map(|nat| usize::from(nat == Nat::Symmetric));
    let is_tidy = eventually(PATIENCE, || [open(ada), open(ben)] == expected);
    assert!(is_tidy, "{nats:?}: {:?} and {:?}", spare_ports(ada.host()), spare_ports(ben.host()));
    transfer(ada, ben, ben.v4(), 1 << 20);
    transfer(ben, ada, ada.v4(), 1 << 20);
    for (node, other) in [(ada, ben), (ben, ada)] {
        assert_eq!(node.peer(other)["path"]["kind"], "direct", "{nats:?}");
    }
    assert_eq!([open(ada), open(ben)], expected, "{nats:?}");
}

#[test]
fn a_gate_that_chooses_a_port_for_each_conversation_and_a_home_router_are_opened_for_each_other() {
    search_ports([Nat::Symmetric, Nat::PortRestricted]);
    search_ports([Nat::PortRestricted, Nat::Symmetric]);
}

#[test]
fn a_leaky_gate_keeps_its_port_while_those_of_another_one_are_searched() {
    search_ports([Nat::Symmetric, Nat::Leaky]);
    search_ports([Nat::Leaky, Nat::Symmetric]);
}

#[test]
fn two_behind_gates_that_let_nobody_in_talk_at_once_through_the_founder() {
    let Some(mut lab) = Lab::new() else { return };
    let mut scene = Scene::new(&mut lab, [Nat::Symmetric; 2]);
    let Meeting { first, first_way, direct, .. } = scene.meet();
    assert_eq!((first_way.as_str(), direct), ("relay", None));
    assert!(first < Duration::from_secs(10), "{first:?}");
    assert_eq!(scene.ada.peer(&scene.ben)["path"]["relay"], "founder");
    transfer(&scene.ada, &scene.ben, scene.ben.v4(), 1 << 20);
    transfer(&scene.ben, &scene.ada, scene.ada.v4(), 1 << 20);
}

#[test]
fn two_behind_home_routers_open_them_for_each_other() {
    for nats in [[Nat::PortRestricted; 2], [Nat::Leaky; 2], [Nat::Ipv6Firewall; 2]] {
        let Some(mut lab) = Lab::new() else { return };
        let mut scene = Scene::new(&mut lab, nats);
        let Meeting { first, answer, first_way, direct } = scene.meet();
        println!("{nats:?}: {first:?}, answered after {answer:?} by {first_way}, direct after {direct:?}");
        assert!(direct.is_some(), "{nats:?}: {}", scene.ada.ask(&["why", "ben"]));
    }
}

#[test]
#[ignore = "minutes: run by --all, prints the table of docs/reachability.md"]
fn every_pair_of_gates() {
    let kinds = Nat::ALL;
    println!("| caller | called | first packet | first answer | by | direct after |");
    for one in kinds {
        for other in kinds {
            let Some(mut lab) = Lab::new() else { return };
            let Meeting { first, answer, first_way, direct } = Scene::new(&mut lab, [one, other]).meet();
            let after = direct.map_or("never".to_owned(), |after| format!("{:.2} s", after.as_secs_f64()));
            let [first, answer] = [first, answer].map(|at| format!("{:.2} s", at.as_secs_f64()));
            println!("| {one:?} | {other:?} | {first} | {answer} | {first_way} | {after} |");
            assert_eq!(direct.is_some(), can_meet(one, other), "{one:?} and {other:?}");
        }
    }
}
