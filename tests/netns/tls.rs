//! Members whose UDP is blocked: they reach the others over TLS to a relay, and by UDP again as soon as that passes.
//!
//! ```text
//!   founder, cid: relays with TLS on 443 ── router ── gate ── ada         her gate can be told to pass TCP alone
//!                                              ├───── gate ── ben
//!                                              └───── proxy
//! ```

use crate::cable::{Cable, Fate};
use crate::lab::{Host, Lab, Running, eventually};
use crate::nat::{Nat, behind_nat};
use crate::node::{Node, PATIENCE, accept, noise, transfer};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What each cable delays each way where times are measured.
const CABLE_DELAY: Duration = Duration::from_millis(25);

const PROXY_PORT: u16 = 3128;

/// Makes a relay with TLS of a node that signs.
pub fn relay_by_tls(founder: &Node, relay: &Node) {
    let endpoint = relay.endpoint().to_string();
    founder.ask(&["relay", "on", "--for", relay.name(), "--endpoint", &endpoint, "--tls-port", "443"]);
    assert!(eventually(PATIENCE, || relay.log().contains("listening by TLS")), "{} listens", relay.name());
}

/// Lets nothing but TCP through a gate, and only to a port.
pub fn block_udp(gate: &Host, port: u16) {
    gate.rules(&format!(
        "table inet blocked {{ chain passed {{ type filter hook forward priority filter - 1;
            meta l4proto udp drop; ct state new tcp dport != {port} drop; }}; }}"
    ));
}

fn unblock(gate: &Host) {
    gate.rules("delete table inet blocked");
}

/// How a node reaches another: the kind of the way, and by which relay.
fn way(node: &Node, other: &Node) -> (String, String) {
    let path = &node.peer(other)["path"];
    let text = |key: &str| path[key].as_str().unwrap_or_default().to_owned();
    (text("kind"), text("relay"))
}

fn is_by_tls(node: &Node, other: &Node) -> bool {
    way(node, other).0 == "tls"
}

/// Two members behind gates that let nobody in, and a founder whom everybody reaches by UDP and TLS.
struct Scene {
    founder: Node,
    ada: Node,
    ben: Node,
    ada_gate: Host,
    _cables: Vec<Cable>,
}

impl Scene {
    fn new(lab: &mut Lab) -> Self {
        Self::with(lab, |_, host| (None, host.clone()))
    }

    fn with(lab: &mut Lab, mut plug: impl FnMut(&mut Lab, &Host) -> (Option<Cable>, Host)) -> Self {
        let host = lab.host("founder");
        let (cable, host) = plug(lab, &host);
        let mut cables = vec![cable];
        let mut founder = Node::new(&host, "founder");
        founder.found();
        relay_by_tls(&founder, &founder);
        let [(ada, ada_gate), (ben, _)] = ["ada", "ben"].map(|name| {
            let (gate, host) = behind_nat(lab, Nat::Symmetric, name);
            let (cable, gate) = plug(lab, &gate);
            cables.push(cable);
            let mut node = Node::new(&host, name);
            node.join(&founder.invite(&["--name", name]));
            (node, gate)
        });
        for node in [&ada, &ben] {
            node.meet(&founder);
        }
        Self { founder, ada, ben, ada_gate, _cables: cables.into_iter().flatten().collect() }
    }
}

/// Sends a question, has it answered if it came, and says whether an answer came.
fn echo(asking: &UdpSocket, answering: &UdpSocket, to: SocketAddr) -> bool {
    let mut bytes = [0; 64];
    let _ = asking.send_to(b"are you there", to);
    while let Ok((len, from)) = answering.recv_from(&mut bytes) {
        let _ = answering.send_to(&bytes[..len], from);
    }
    asking.recv(&mut bytes).is_ok()
}

fn socket(node: &Node) -> UdpSocket {
    let socket = node.udp(node.v4());
    socket.set_nonblocking(true).unwrap();
    socket
}

/// From the start of a node's daemon to its first answer from another one.
fn first_answer(node: &mut Node, other: &Node) -> Duration {
    node.start();
    let began = Instant::now();
    let (asking, answering) = (socket(node), socket(other));
    let to = answering.local_addr().unwrap();
    assert!(eventually(PATIENCE, || echo(&asking, &answering, to)), "no answer at all");
    began.elapsed()
}

#[test]
fn a_member_whose_udp_is_blocked_reaches_another_behind_a_nat_over_tls() {
    let Some(mut lab) = Lab::new() else { return };
    let Scene { founder, mut ada, ben, ada_gate, .. } = Scene::new(&mut lab);
    ada.stop();
    block_udp(&ada_gate, 443);
    let first = first_answer(&mut ada, &ben);
    println!("the first answer over TLS, without delays: {first:?}");
    let by_founder = ("tls".to_owned(), "founder".to_owned());
    assert_eq!([way(&ada, &ben), way(&ada, &founder)], [by_founder.clone(), by_founder]);
    assert_eq!(way(&ben, &ada), ("relay".to_owned(), "founder".to_owned()), "ben's UDP passes");
    assert_eq!(way(&founder, &ada).0, "tls");
    transfer(&ada, &ben, ben.v4(), 1 << 20);
    transfer(&ben, &ada, ada.v4(), 1 << 20);
    let net = ada.ask(&["netcheck"]);
    assert_eq!((net["udp"].as_bool(), net["tls"].as_bool()), (Some(false), Some(true)), "{net}");
    let why = ada.ask(&["why", "ben"]);
    assert_eq!(why["reason"], "over TLS through founder: UDP does not pass between this node and founder", "{why}");
    assert!(!is_by_tls(&ben, &founder) && ben.ask(&["netcheck"])["tls"] == false, "ben needs no TLS");
    assert!(first < Duration::from_secs(10), "{first:?}");
}

#[test]
#[ignore = "prints a row of docs/reachability.md: run by --all"]
fn how_soon_the_first_answer_comes_over_tls() {
    let Some(mut lab) = Lab::new() else { return };
    let plug = |lab: &mut Lab, host: &Host| {
        let (cable, host) = Cable::plug(lab, host, || Fate::Delay(CABLE_DELAY));
        (Some(cable), host)
    };
    let Scene { mut ada, ben, ada_gate, _cables, founder } = Scene::with(&mut lab, plug);
    for round in 0..3 {
        ada.stop();
        if round == 0 {
            block_udp(&ada_gate, 443);
        }
        let first = first_answer(&mut ada, &ben);
        println!("UDP blocked, 25 ms on every link: the first answer after {first:?}, by {:?}", way(&ada, &ben));
    }
    drop(founder);
}

#[test]
fn a_member_behind_a_proxy_reaches_others_through_it() {
    let Some(mut lab) = Lab::new() else { return };
    let proxy_host = lab.host("proxy");
    let Scene { mut ada, ben, ada_gate, founder: _founder, .. } = Scene::new(&mut lab);
    ada.stop();
    block_udp(&ada_gate, PROXY_PORT);
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("tinyproxy.conf");
    let text = format!(
        "Port {PROXY_PORT}\nListen {}\nTimeout 600\nBasicAuth ann secret\nConnectPort 443\nMaxClients 20\n",
        proxy_host.v4()
    );
    std::fs::write(&settings, text).unwrap();
    let mut command = proxy_host.command("tinyproxy");
    command.arg("-d").arg("-c").arg(&settings).stdout(Stdio::null()).stderr(Stdio::null());
    let _proxy: Running = proxy_host.spawn(&mut command);
    let at = SocketAddr::from((proxy_host.v4(), PROXY_PORT));
    assert!(eventually(PATIENCE, || proxy_host.run(|| TcpStream::connect(at)).is_ok()), "the proxy listens");
    ada.configure(&format!("[underlay]\nproxy = \"http://ann:wrong@{at}\"\n"));
    ada.start();
    assert!(eventually(PATIENCE, || ada.log().contains("the proxy answers 401")), "{}", ada.log());
    ada.configure(&format!("[underlay]\nproxy = \"http://ann:secret@{at}\"\n"));
    ada.ask(&["reload"]);
    ada.meet(&ben);
    assert_eq!(way(&ada, &ben), ("tls".to_owned(), "founder".to_owned()));
    transfer(&ada, &ben, ben.v4(), 1 << 20);
}

/// A TCP connection that sends on and on, and how much of it has arrived, in order and whole.
fn stream_while(from: &Node, to: &Node, body: impl FnOnce(&AtomicUsize)) {
    let listener = to.host().run(|| TcpListener::bind((to.v4(), 0))).unwrap();
    let target = listener.local_addr().unwrap();
    let mut sending = from.host().run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap();
    let (mut receiving, _) = accept(&listener);
    let (arrived, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let piece = noise(7, 10_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            sending.set_write_timeout(Some(PATIENCE)).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                sending.write_all(&piece).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(sending);
        });
        scope.spawn(|| {
            receiving.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut came = vec![0; piece.len()];
            while receiving.read_exact(&mut came).is_ok() {
                assert!(came == piece);
                arrived.fetch_add(came.len(), Ordering::Relaxed);
            }
        });
        body(&arrived);
        is_over.store(true, Ordering::Relaxed);
    });
}

/// How long nothing arrives from now on, and that much does then.
fn resumes(arrived: &AtomicUsize) -> Duration {
    let (began, before) = (Instant::now(), arrived.load(Ordering::Relaxed));
    // What was on its way when UDP ended has arrived a moment later.
    std::thread::sleep(Duration::from_millis(200));
    let before = arrived.load(Ordering::Relaxed).max(before);
    assert!(eventually(PATIENCE, || arrived.load(Ordering::Relaxed) > before + 100_000), "it never goes on");
    began.elapsed()
}

#[test]
fn a_transfer_goes_on_when_udp_is_blocked_under_it_and_comes_back_to_udp() {
    let Some(mut lab) = Lab::new() else { return };
    let Scene { founder, ada, ben, ada_gate, .. } = Scene::new(&mut lab);
    ada.meet(&ben);
    stream_while(&ada, &ben, |arrived| {
        assert!(eventually(PATIENCE, || arrived.load(Ordering::Relaxed) > 500_000));
        assert_eq!(way(&ada, &ben).0, "relay");
        block_udp(&ada_gate, 443);
        let gap = resumes(arrived);
        println!("UDP blocked under a transfer: it went on after {gap:?}");
        assert!(is_by_tls(&ada, &ben), "{:?}", way(&ada, &ben));
        unblock(&ada_gate);
        let began = Instant::now();
        let is_back = || way(&ada, &ben).0 == "relay" && way(&ada, &founder).0 == "direct";
        // The relay is asked by UDP every minute, and more often while something flows.
        assert!(eventually(2 * PATIENCE, is_back), "{:?}", way(&ada, &ben));
        println!("back to UDP after {:?}", began.elapsed());
        resumes(arrived);
        let is_closed = || ada.log().contains("the TLS link to a relay ended");
        assert!(eventually(PATIENCE, is_closed), "a link that is not in use is closed");
    });
    assert_eq!(way(&founder, &ada).0, "direct");
}

#[test]
fn a_relay_that_is_killed_is_replaced_by_another_over_tls() {
    let Some(mut lab) = Lab::new() else { return };
    let cid_host = lab.host("cid");
    let Scene { mut founder, mut ada, ben, ada_gate, .. } = Scene::new(&mut lab);
    let mut cid = Node::new(&cid_host, "cid");
    cid.join(&founder.invite(&["--name", "cid"]));
    relay_by_tls(&founder, &cid);
    for node in [&ada, &ben] {
        node.meet(&cid);
    }
    ada.stop();
    block_udp(&ada_gate, 443);
    first_answer(&mut ada, &ben);
    assert!(eventually(PATIENCE, || is_by_tls(&ada, &founder) && is_by_tls(&ada, &cid)), "at home at both");
    let (kind, used) = way(&ada, &ben);
    assert_eq!(kind, "tls");
    if used == "cid" {
        cid.kill();
    } else {
        founder.kill();
    }
    let (asking, answering) = (socket(&ada), socket(&ben));
    let to = answering.local_addr().unwrap();
    let began = Instant::now();
    let is_over = || echo(&asking, &answering, to) && way(&ada, &ben).1 != used && is_by_tls(&ada, &ben);
    assert!(eventually(PATIENCE, is_over), "{:?}", way(&ada, &ben));
    println!("the relay was killed: through the other one after {:?}", began.elapsed());
}

#[test]
fn strangers_on_the_tls_port_are_counted_and_keep_nobody_away() {
    let Some(mut lab) = Lab::new() else { return };
    let stranger = lab.host("stranger");
    let Scene { founder, mut ada, ben, ada_gate, .. } = Scene::new(&mut lab);
    let at = SocketAddr::from((founder.host().v4(), 443));
    let connect = || stranger.run(|| TcpStream::connect(at)).unwrap();
    let silent: Vec<_> = (0..200).map(|_| connect()).collect();
    let mut garbage = connect();
    let _ = garbage.write_all(&noise(1, 3000));
    assert!(eventually(PATIENCE, || founder.drops("stream_refused") > 100), "{}", founder.status()["drops"]);
    ada.stop();
    block_udp(&ada_gate, 443);
    first_answer(&mut ada, &ben);
    assert!(is_by_tls(&ada, &ben));
    drop(silent);
}

/// Blocks the UDP of a member that has joined, and waits until it reaches the other one over TLS.
fn fall_back(Scene { ada, ben, ada_gate, .. }: &mut Scene) {
    ada.stop();
    block_udp(ada_gate, 443);
    first_answer(ada, ben);
    assert!(is_by_tls(ada, ben), "{:?}", way(ada, ben));
}

#[test]
fn tcp_inside_gets_through_a_connection_that_loses_packets() {
    let Some(mut lab) = Lab::new() else { return };
    let mut scene = Scene::new(&mut lab);
    fall_back(&mut scene);
    // One in fifty, each way.
    let lossy = "table inet lossy { chain passed { type filter hook forward priority filter;
        meta l4proto tcp numgen random mod 50 == 0 drop; }; }";
    scene.ada_gate.rules(lossy);
    let Scene { ada, ben, .. } = &scene;
    for (from, to) in [(ada, ben), (ben, ada)] {
        let began = Instant::now();
        transfer(from, to, to.v4(), 4 << 20);
        println!("4 MiB over TLS with 2 % of the packets below lost: {:?}", began.elapsed());
    }
}

#[test]
#[ignore = "prints a figure of docs/reachability.md: run by --all"]
fn how_much_goes_over_tls() {
    let Some(mut lab) = Lab::new() else { return };
    let mut scene = Scene::new(&mut lab);
    // Without its modest rate for what nobody asked it to relay.
    scene.founder.configure("[relay]\nmode = \"on\"\n");
    scene.founder.ask(&["reload"]);
    fall_back(&mut scene);
    let Scene { ada, ben, founder, .. } = &scene;
    for (from, to) in [(ada, founder), (founder, ada), (ada, ben), (ben, ada)] {
        let (began, len) = (Instant::now(), 128 << 20);
        transfer(from, to, to.v4(), len);
        let rate = len as f64 * 8e-6 / began.elapsed().as_secs_f64();
        println!("{} to {} over TLS: {rate:.0} Mbit/s", from.name(), to.name());
    }
}
