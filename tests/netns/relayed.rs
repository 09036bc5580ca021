//! What a relay sees, what happens when it dies, and who needs none.

use crate::lab::{Host, Lab, Running, eventually};
use crate::nat::{Nat, behind_nat};
use crate::node::{Node, PATIENCE, noise};
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

#[test]
fn a_relay_that_is_killed_is_replaced_before_anybody_notices() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = crate::node::founder(&mut lab);
    let host = lab.host("cid");
    let mut cid = joined(&founder, &host, "cid");
    let [ada, ben] = two_behind_gates(&mut lab, &founder);
    ada.meet(&ben);
    let homes = |node: &Node| node.ask(&["netcheck"])["relays"].as_array().unwrap().len();
    assert!(eventually(PATIENCE, || homes(&ada) == 2 && homes(&ben) == 2), "both are at home at both");
    let (from, to) = (socket(&ada), socket(&ben));
    let target = to.local_addr().unwrap();
    // One every 10 ms, long enough for the second way to be asked for and tried.
    let gap = |span: Duration| {
        let (began, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
        while began.elapsed() < span {
            let _ = from.send_to(b"on and on", target);
            std::thread::sleep(Duration::from_millis(10));
            while to.recv(&mut [0; 64]).is_ok() {
                last = Instant::now();
            }
            longest = longest.max(last.elapsed());
        }
        longest
    };
    gap(Duration::from_secs(18));
    let used = ada.peer(&ben)["path"]["relay"].as_str().unwrap().to_owned();
    if used == "cid" {
        cid.kill();
    } else {
        founder.kill();
    }
    let longest = gap(Duration::from_secs(8));
    println!("the relay was killed: {longest:?} without a datagram");
    let now = ada.peer(&ben)["path"]["relay"].as_str().map(str::to_owned);
    assert!(now.is_some_and(|now| now != used));
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
    let net = ada.ask(&["netcheck"]);
    assert_eq!(
        (net["nat"].as_str(), net["reachable"].as_bool(), net["udp"].as_bool()),
        (Some("undetermined"), Some(false), Some(true))
    );
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
