//! What a relay sees, what happens when it dies, and who needs none.

use crate::lab::{Host, Lab, Running, eventually};
use crate::nat::{Nat, behind_nat};
use crate::node::{Node, PATIENCE, noise, transfer};
use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes of a marker: none comes by chance.
const MARKER_LEN: usize = 32;

/// Two behind gates that let nobody in, joined by way of a founder.
fn two_behind_gates(lab: &mut Lab, founder: &Node) -> [Node; 2] {
    ["ada", "ben"].map(|name| {
        let (_gate, host) = behind_nat(lab, Nat::Symmetric, name);
        joined(founder, &host, name)
    })
}

fn joined(founder: &Node, host: &Host, name: &str) -> Node {
    let mut node = Node::new(host, name);
    node.join(&founder.invite(&["--name", name]));
    node
}

fn kind(node: &Node, other: &Node) -> String {
    node.peer(other)["path"]["kind"].as_str().unwrap().to_owned()
}

/// A socket at a node's overlay address that does not wait.
fn socket(node: &Node) -> UdpSocket {
    let socket = node.udp(node.v4());
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Keeps what passes an interface until it is stopped.
fn keep(host: &Host, interface: &str, file: &Path) -> Running {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host.namespace(), "tcpdump", "-i", interface, "-s", "0", "-U", "-w"]).arg(file);
    let running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    assert!(eventually(PATIENCE, || std::fs::metadata(file).is_ok_and(|file| file.len() > 0)), "tcpdump began");
    running
}

/// How many of the markers are in these bytes.
fn found(bytes: &[u8], markers: &BTreeSet<Vec<u8>>) -> usize {
    let windows = bytes.windows(MARKER_LEN).filter(|window| markers.contains(*window));
    windows.collect::<BTreeSet<_>>().len()
}

/// What a process may write to: its heap and its stacks.
fn memory(pid: u32) -> Vec<u8> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut piece = vec![0; usize::try_from(to - from).unwrap()];
        if memory.read_exact_at(&mut piece, from).is_ok() {
            all.extend(piece);
        }
    }
    all
}

#[test]
fn a_relay_that_keeps_everything_reads_none_of_a_thousand_markers() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = crate::node::founder(&mut lab);
    let [ada, ben] = two_behind_gates(&mut lab, &founder);
    ada.meet(&ben);
    assert_eq!((kind(&ada, &ben).as_str(), kind(&ben, &ada).as_str()), ("relay", "relay"));
    let folder = tempfile::tempdir().unwrap();
    let [at_relay, at_ada] = ["relay", "ada"].map(|name| folder.path().join(name));
    let keeping = [keep(founder.host(), "any", &at_relay), keep(ada.host(), "p2p-lab", &at_ada)];
    let markers: BTreeSet<Vec<u8>> = (0..1000).map(|seed| noise(seed, MARKER_LEN)).collect();
    let (from, to) = (socket(&ada), socket(&ben));
    let target = to.local_addr().unwrap();
    let mut arrived = 0;
    let mut take = || {
        while to.recv(&mut [0; 64]).is_ok() {
            arrived += 1;
        }
        arrived == 1000
    };
    for marker in &markers {
        from.send_to(marker, target).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        take();
    }
    eventually(PATIENCE, take);
    assert_eq!(arrived, 1000);
    let in_memory = memory(founder.pid());
    assert!(in_memory.len() > 1 << 20, "{} bytes", in_memory.len());
    assert!(
        eventually(PATIENCE, || found(&std::fs::read(&at_ada).unwrap(), &markers) == 1000),
        "they were there to see"
    );
    drop(keeping);
    let relayed = std::fs::read(&at_relay).unwrap();
    assert!(relayed.len() > 2 * 1000 * (MARKER_LEN + 60), "{} bytes passed the relay", relayed.len());
    assert_eq!((found(&relayed, &markers), found(&in_memory, &markers)), (0, 0));
    assert_eq!(kind(&ada, &ben), "relay");
}

/// Two behind gates, and two relays that both have a session with: one of them passes on what they say.
struct TwoRelays {
    relays: [Node; 2],
    ada: Node,
    ben: Node,
    from: UdpSocket,
    to: UdpSocket,
}

impl TwoRelays {
    fn new(lab: &mut Lab) -> Self {
        let founder = crate::node::founder(lab);
        let host = lab.host("cid");
        let cid = joined(&founder, &host, "cid");
        let [ada, ben] = two_behind_gates(lab, &founder);
        ada.meet(&ben);
        let (from, to) = (socket(&ada), socket(&ben));
        let scene = Self { relays: [founder, cid], ada, ben, from, to };
        scene.await_homes();
        scene
    }

    fn await_homes(&self) {
        let homes = |node: &Node| node.ask(&["netcheck"])["relays"].as_array().unwrap().len();
        let both = || homes(&self.ada) == 2 && homes(&self.ben) == 2;
        assert!(eventually(PATIENCE, both), "both are at home at both");
    }

    /// Sends a datagram every 10 ms for so long; returns the longest time without one.
    fn gap(&self, span: Duration) -> Duration {
        let target = self.to.local_addr().unwrap();
        let (began, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
        while began.elapsed() < span {
            let _ = self.from.send_to(b"on and on", target);
            std::thread::sleep(Duration::from_millis(10));
            while self.to.recv(&mut [0; 64]).is_ok() {
                last = Instant::now();
            }
            longest = longest.max(last.elapsed());
        }
        longest
    }

    /// The relay in use, by its place among the two.
    fn used(&self) -> Option<usize> {
        let path = self.ada.peer(&self.ben)["path"]["relay"].clone();
        self.relays.iter().position(|relay| path == relay.name())
    }

    /// Kills the relay in use; returns which it was, and for how long nothing came.
    fn kill_used(&mut self) -> (usize, Duration) {
        // Long enough for the second way to be asked for and tried.
        self.gap(Duration::from_secs(18));
        let used = self.used().expect("a relay is used");
        self.relays[used].kill();
        let longest = self.gap(Duration::from_secs(8));
        assert_eq!(self.used(), Some(1 - used));
        (used, longest)
    }
}

#[test]
fn a_relay_that_is_killed_is_replaced_before_anybody_notices() {
    let Some(mut lab) = Lab::new() else { return };
    let (_, longest) = TwoRelays::new(&mut lab).kill_used();
    println!("the relay was killed: {longest:?} without a datagram");
}

#[test]
#[ignore = "ten minutes: run by --all, prints figures of docs/reachability.md"]
fn relays_that_are_killed_one_after_the_other() {
    const ROUNDS: usize = 20;
    let Some(mut lab) = Lab::new() else { return };
    let mut scene = TwoRelays::new(&mut lab);
    let mut gaps: Vec<_> = std::iter::repeat_with(|| {
        let (killed, gap) = scene.kill_used();
        scene.relays[killed].start();
        scene.await_homes();
        gap
    })
    .take(ROUNDS)
    .collect();
    gaps.sort_unstable();
    println!("{ROUNDS} relays killed: without a datagram p50 {:?}, p99 {:?}", gaps[ROUNDS / 2], gaps[ROUNDS - 1]);
    assert!(gaps[ROUNDS - 1] < Duration::from_secs(1), "{gaps:?}");
}

/// Makes the gate answer its LAN at its own address outside, for the host that has the port: RFC 4787 §6, "hairpinning".
fn hairpin(gate: &Host) {
    let outside = gate.v4();
    // It would tell each of a shorter way to the other, which there is not, and its bridge would take it.
    for interfaces in ["all", "lan0"] {
        gate.sysctl(&format!("net/ipv4/conf/{interfaces}/send_redirects"), "0");
    }
    if gate.run(|| Path::new("/proc/sys/net/bridge").exists()) {
        gate.sysctl("net/bridge/bridge-nf-call-iptables", "0");
    }
    gate.rules(&format!(
        "table ip hairpin {{
            map ports {{ type inet_service : ipv4_addr . inet_service; flags dynamic, timeout; timeout 5m; size 65535; }}
            chain learn {{ type filter hook forward priority mangle;
                oifname eth0 meta l4proto udp update @ports {{ udp sport : ip saddr . udp sport }}; }}
            chain in {{ type nat hook prerouting priority dstnat;
                iifname lan0 ip daddr {outside} meta l4proto udp dnat to udp dport map @ports; }}
            chain out {{ type nat hook postrouting priority srcnat - 1; oifname lan0 ct status dnat snat to {outside}; }}
        }}"
    ));
}

#[test]
fn two_behind_one_gate_whose_lan_keeps_them_apart_meet_at_its_outer_address() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = crate::node::founder(&mut lab);
    let (gate, first) = behind_nat(&mut lab, Nat::PortRestricted, "ada");
    let second = lab.host_behind(&gate, "ben");
    hairpin(&gate);
    for port in gate.ip("-o link show master lan0").lines().filter_map(|line| line.split([' ', '@', ':']).nth(2)) {
        gate.ip(&format!("link set dev {port} type bridge_slave isolated on"));
    }
    // Two mapped ports on one address need two ports inside.
    let mut nodes = [(&first, "ada", "4647"), (&second, "ben", "4648")].map(|(host, name, port)| {
        let mut node = Node::new(host, name);
        node.configure(&format!("[underlay]\nlisten = [\"0.0.0.0:{port}\"]\n"));
        node.join(&founder.invite(&["--name", name]));
        node
    });
    let [ada, ben] = &mut nodes;
    ada.meet(ben);
    let endpoint = || ada.peer(ben)["path"]["endpoint"].as_str().map(str::to_owned);
    assert!(eventually(PATIENCE, || endpoint().is_some()), "{:?}", ada.ask(&["why", "ben"]));
    assert_eq!(endpoint(), Some(format!("{}:4648", gate.v4())));
    transfer(ada, ben, ben.v4(), 1 << 20);
}

#[test]
fn a_node_without_a_device_relays_for_others() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = crate::node::founder(&mut lab);
    let host = lab.host("cid");
    let mut relay = joined(&founder, &host, "cid");
    relay.stop();
    relay.start_with(&["--no-device"]);
    assert_eq!(relay.status()["network"]["device"]["mode"], "none");
    let [ada, ben] = two_behind_gates(&mut lab, &founder);
    let mut founder = founder;
    assert!(eventually(PATIENCE, || relay.ask(&["relay", "status"])["relaying"] == true));
    let is_home = |node: &Node| {
        let relays = node.ask(&["netcheck"])["relays"].clone();
        relays.as_array().unwrap().iter().any(|relay| relay["name"] == "cid")
    };
    assert!(eventually(PATIENCE, || is_home(&ada) && is_home(&ben)));
    founder.stop();
    ada.meet(&ben);
    assert!(eventually(PATIENCE, || ada.peer(&ben)["path"]["relay"] == "cid"), "{}", ada.peer(&ben));
    transfer(&ada, &ben, ben.v4(), 1 << 20);
    let said = ada.say(&["ping", "ben", "--until-direct", "-c", "3"]);
    assert_eq!(said.code, 7, "{said:?}");
    assert!(ada.ask(&["ping", "ben", "-c", "1"])["received"] == 1);
}

#[test]
fn two_on_one_lan_behind_a_gate_speak_there() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = crate::node::founder(&mut lab);
    let (gate, first) = behind_nat(&mut lab, Nat::Symmetric, "ada");
    let second = lab.host_behind(&gate, "ben");
    let [ada, ben] = [(&first, "ada"), (&second, "ben")].map(|(host, name)| joined(&founder, host, name));
    ada.meet(&ben);
    let endpoint = || ada.peer(&ben)["path"]["endpoint"].as_str().map(str::to_owned);
    assert!(eventually(PATIENCE, || endpoint().is_some()), "{:?}", ada.peer(&ben));
    assert_eq!(endpoint(), Some(format!("{}:4647", ben.host().v4())));
    let why = ada.ask(&["why", "ben"]);
    assert!(why["reason"].as_str().unwrap().starts_with("direct"), "{why}");
}

#[test]
fn what_a_node_says_of_its_place_is_true() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = crate::node::founder(&mut lab);
    let [ada, ben] = two_behind_gates(&mut lab, &founder);
    ada.meet(&ben);
    assert!(eventually(PATIENCE, || ada.ask(&["netcheck"])["relays"][0]["name"] == "founder"));
    let is_known = || ada.ask(&["netcheck"])["nat"] == "endpoint-dependent";
    assert!(eventually(PATIENCE, is_known), "one relay alone tells: {}", ada.ask(&["netcheck"]));
    let net = ada.ask(&["netcheck"]);
    assert_eq!((net["reachable"].as_bool(), net["udp"].as_bool()), (Some(false), Some(true)));
    assert_eq!(net["seen"][0]["by"], "founder");
    let why = ada.ask(&["why", "ben"]);
    assert!(why["reason"].as_str().unwrap().starts_with("through founder"), "{why}");
    assert_eq!((why["path"]["kind"].as_str(), why["path"]["relay"].as_str()), (Some("relay"), Some("founder")));
    let relay = founder.ask(&["relay", "status"]);
    assert_eq!((relay["mode"].as_str(), relay["relaying"].as_bool()), (Some("auto"), Some(true)));
    assert!(!relay["circuits"].as_array().unwrap().is_empty(), "{relay}");
    let said = ada.say(&["why", "nobody"]);
    assert_eq!(said.code, 5, "{said:?}");
}
