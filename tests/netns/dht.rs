//! Members whose addresses all changed find each other by a DHT that knows nothing of them; who lies there gains nothing.
//!
//! ```text
//!   founder ── router ── ada, ben, …          DHT: a host with eight addresses, 203.0.113.1 to .8, and a node at each
//! ```

use crate::capture::{Capture, Seen};
use crate::lab::{Host, Lab, Underlay, eventually};
use crate::node::{Node, PATIENCE, PORT, exchange};
use mainline::async_dht::AsyncDht;
use mainline::{Dht, MutableItem};
use p2plus::crypto::exchange::TransportSecret;
use p2plus::crypto::hash::Digest;
use p2plus::crypto::identity::{NodeId, SigningKey};
use p2plus::crypto::secret::Secret;
use p2plus::node::dht::{Place, open, places, seal};
use p2plus::session::LocalKeys;
use p2plus::time::UnixMillis;
use p2plus::wire::control::{NatKind, NodeRecord, SignedRecord};
use p2plus::wire::dht::signed_part;
use p2plus::wire::ticket::Ticket;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nodes of the DHT.
const DHT_NODES: u8 = 8;
const DHT_PORT: u16 = 6881;

/// How long members who cannot find each other are watched: longer than who can needs.
const IN_VAIN: Duration = Duration::from_secs(20);

/// A host with a DHT on it.
struct Tracker {
    host: Host,
    nodes: Vec<AsyncDht>,
    runtime: tokio::runtime::Runtime,
}

fn dht_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, number)
}

fn dht_endpoint(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new(dht_address(number), DHT_PORT)
}

impl Tracker {
    fn start(lab: &mut Lab) -> Self {
        let host = lab.host_with("dht", Underlay::V4);
        lab.router().ip(&format!("route add 203.0.113.0/24 via {}", host.v4()));
        let numbers = 1..=DHT_NODES;
        let nodes = numbers.clone().map(|number| {
            host.ip(&format!("addr add {}/32 dev lo", dht_address(number)));
            let others: Vec<_> = numbers.clone().filter(|other| *other != number).map(dht_endpoint).collect();
            let mut node = Dht::builder();
            node.server_mode().bootstrap(&others).port(DHT_PORT);
            node.bind_address(dht_address(number)).public_ip(dht_address(number));
            host.run(|| node.build()).unwrap().as_async()
        });
        let nodes: Vec<_> = nodes.collect();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        // Whoever began first found nobody: each asks once more.
        let knows_others = |node: &AsyncDht| {
            runtime.block_on(node.bootstrapped());
            runtime.block_on(node.to_bootstrap()).len() + 1 >= usize::from(DHT_NODES)
        };
        assert!(eventually(PATIENCE, || nodes.iter().all(knows_others)));
        Self { host, nodes, runtime }
    }

    /// The newest value of an item, once there is one.
    fn value(&self, place: Place) -> Vec<u8> {
        let mut value = None;
        let is_there = || {
            let item = self.runtime.block_on(self.nodes[0].get_mutable_most_recent(&place.key.0, None));
            value = item.map(|item: MutableItem| item.value().to_vec());
            value.is_some()
        };
        assert!(eventually(PATIENCE, is_there), "nobody stored it");
        value.unwrap()
    }
}

/// The configuration of a member that finds others by nothing, or by these nodes of the DHT.
fn config(entrances: &[SocketAddrV4]) -> String {
    let nodes: Vec<_> = entrances.iter().map(|entrance| format!("\"{entrance}\"")).collect();
    let dht = format!("dht = {}\ndht_bootstrap = [{}]\n", !nodes.is_empty(), nodes.join(", "));
    format!("[underlay]\nlan_discovery = false\nport_mapping = false\n{dht}")
}

/// Three members of a network, each with this configuration, and a ticket that says what they all know.
fn members(lab: &mut Lab, text: &str) -> ([Node; 3], Ticket) {
    let mut founder = Node::new(&lab.host("founder"), "founder-of-all");
    founder.configure(text);
    founder.found();
    let [ada, ben] = ["ada-the-first", "ben-the-second"].map(|name| {
        let mut node = Node::new(&lab.host(name), name);
        node.configure(text);
        node.join(&founder.invite(&["--name", name]));
        node.meet(&founder);
        node
    });
    ada.meet(&ben);
    let ticket = Ticket::decode(&founder.invite(&[])).unwrap();
    ([founder, ada, ben], ticket)
}

/// What every member knows.
fn keys(ticket: &Ticket) -> LocalKeys {
    let transport = TransportSecret::from_bytes([1; 32]);
    LocalKeys::new(transport, NodeId([1; 32]), ticket.network_id, ticket.network_secret.duplicate())
}

fn wall() -> UnixMillis {
    UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

fn id(node: &Node) -> NodeId {
    let text = node.status()["node"]["id"].as_str().unwrap().to_owned();
    text.parse().unwrap()
}

/// The ports of a host's sockets for UDP over IPv4, but for the node's own.
fn other_ports(host: &Host) -> Vec<String> {
    let list = host.run(|| std::fs::read_to_string("/proc/thread-self/net/udp")).unwrap();
    let locals = list.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)?.split_once(':'));
    locals.map(|(_, port)| port.to_owned()).filter(|port| *port != format!("{PORT:04X}")).collect()
}

fn is_connected(node: &Node, other: &Node) -> bool {
    !node.peer(other)["session"].is_null()
}

fn are_all_connected(nodes: &[Node]) -> bool {
    let is_one = |node: &Node| nodes.iter().all(|other| other.name() == node.name() || is_connected(node, other));
    nodes.iter().all(is_one)
}

/// The item of a member that others look up now.
fn place_of(ticket: &Ticket, id: &NodeId) -> Place {
    let own = seal(&keys(ticket), &record_of(*id, 1, &[]), wall(), 1, [0; 12]).unwrap();
    places(&keys(ticket), id, wall()).into_iter().find(|place| place.key == own.key).unwrap()
}

/// A record that somebody else signed.
fn record_of(id: NodeId, sequence: u64, endpoints: &[SocketAddr]) -> SignedRecord {
    let record = NodeRecord {
        id,
        sequence,
        endpoints: endpoints.to_vec(),
        requests: Vec::new(),
        refused: Vec::new(),
        nat: NatKind::None,
        is_relay: false,
        homes: Vec::new(),
    };
    SignedRecord::sign(record, &SigningKey::from_seed(&[66; 32]), &Digest([66; 32]))
}

#[test]
fn members_whose_addresses_all_changed_find_each_other_by_the_dht_which_learns_nothing() {
    let Some(mut lab) = Lab::new() else { return };
    let dht = Tracker::start(&mut lab);
    let (mut nodes, ticket) = members(&mut lab, &config(&[]));
    let ids: Vec<_> = nodes.iter().map(id).collect();
    nodes.iter_mut().for_each(Node::stop);
    for node in &mut nodes {
        let moved = lab.relocate(node.host(), Underlay::Both);
        node.moved_to(moved);
    }
    nodes.iter_mut().for_each(Node::start);
    let deadline = Instant::now() + IN_VAIN;
    while Instant::now() < deadline {
        for (node, other) in [(0, 1), (1, 2), (2, 0)] {
            assert!(!is_connected(&nodes[node], &nodes[other]), "they know each other's place already");
        }
        thread::sleep(Duration::from_millis(500));
    }

    assert_eq!(other_ports(nodes[0].host()), [""; 0], "what is switched off opens no socket");
    let capture = Capture::start_whole(&dht.host);
    let entrances: Vec<_> = (1..=3).map(dht_endpoint).collect();
    let began = Instant::now();
    for node in &nodes {
        node.configure(&config(&entrances));
        let reloaded = node.ask(&["reload"]);
        assert_eq!(reloaded["changed"], serde_json::json!(["underlay.dht", "underlay.dht_bootstrap"]));
    }
    assert!(eventually(3 * PATIENCE, || are_all_connected(&nodes)), "{}", nodes[0].ask(&["peers"]));
    println!("all three met {:?} after they began to use the DHT", began.elapsed());
    for (node, other) in [(0, 1), (1, 2), (2, 0)] {
        exchange(&nodes[node], &nodes[other], [nodes[node].v4(), nodes[other].v4()]);
    }

    assert!(nodes.iter().all(|node| !other_ports(node.host()).is_empty()));

    // What the DHT has is what was sealed for the network, and nobody else sees anything in it.
    for (node, id) in nodes.iter().zip(&ids) {
        let place = place_of(&ticket, id);
        let value = dht.value(place);
        let record = open(&keys(&ticket), id, place.week, &value).unwrap();
        assert!(record.claimed_endpoints().contains(&node.endpoint()), "{:?}", record.claimed_endpoints());
    }
    let seen = capture.end();
    let is_stored = |id: &&NodeId| contains(&seen, &place_of(&ticket, id).key.0);
    assert_eq!(ids.iter().filter(is_stored).count(), 3, "the capture has not what was stored");
    assert!(contains(&seen, b"1:v412:"), "nor any value");
    for secret in secrets(&nodes, &ids, &ticket) {
        assert!(!contains(&seen, &secret), "{secret:?}");
    }
    let is_closed = || nodes.iter().all(|node| other_ports(node.host()).is_empty());
    assert!(eventually(2 * PATIENCE, is_closed), "nobody asks anything any more");
}

fn contains(seen: &[Seen], bytes: &[u8]) -> bool {
    seen.iter().any(|datagram| datagram.front.windows(bytes.len()).any(|window| window == bytes))
}

/// What must not be read: keys, names, and where members are, as numbers and as text.
fn secrets(nodes: &[Node], ids: &[NodeId], ticket: &Ticket) -> Vec<Vec<u8>> {
    let mut secrets = vec![ticket.network_secret.expose().to_vec(), ticket.network_id.0.to_vec()];
    secrets.extend(ids.iter().flat_map(|id| [id.0.to_vec(), id.to_string().into_bytes()]));
    for node in nodes {
        secrets.push(node.name().as_bytes().to_vec());
        for address in [node.host().v4(), node.host().v6()] {
            let octets = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            secrets.extend([PORT.to_be_bytes(), PORT.to_le_bytes()].map(|port| [&octets[..], &port].concat()));
            secrets.push(address.to_string().into_bytes());
        }
    }
    secrets
}

/// A node of the DHT that says the same whoever asks for whatever: that it stores it, that it knows no other nodes, and this.
struct Liar {
    ended: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// What the liar says an item is.
struct Lie {
    key: [u8; 32],
    signature: [u8; 64],
    sequence: i64,
    value: Vec<u8>,
}

impl Liar {
    fn start(host: &Host, number: u8, lie: Lie) -> Self {
        host.ip(&format!("addr add {}/32 dev lo", dht_address(number)));
        let socket = host.run(|| UdpSocket::bind(dht_endpoint(number))).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (ended, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (end, count) = (Arc::clone(&ended), Arc::clone(&asked));
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !end.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                if let Some(answer) = answer(&buffer[..len], number, &lie) {
                    count.fetch_add(usize::from(find(&buffer[..len], b"1:q3:get").is_some()), Ordering::Relaxed);
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { ended, asked, thread: Some(thread) }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [format!("{}:", bytes.len()).as_bytes(), bytes].concat()
}

/// What the liar answers to a question (BEP 5, BEP 44).
fn answer(question: &[u8], number: u8, lie: &Lie) -> Option<Vec<u8>> {
    find(question, b"1:y1:q")?;
    let transaction = find(question, b"1:t4:")? + b"1:t4:".len();
    let transaction = question.get(transaction..transaction + 4)?;
    let id = [b"2:id".to_vec(), string(&[number; 20])].concat();
    let is_get = find(question, b"1:q3:get").is_some();
    let item = || {
        let Lie { key, signature, sequence, value } = lie;
        let parts = [
            [b"1:k".to_vec(), string(key)].concat(),
            b"5:nodes0:".to_vec(),
            format!("3:seqi{sequence}e").into_bytes(),
            [b"3:sig".to_vec(), string(signature)].concat(),
            b"5:token4:true".to_vec(),
            [b"1:v".to_vec(), string(value)].concat(),
        ];
        parts.concat()
    };
    let said = if is_get { item() } else { b"5:nodes0:".to_vec() };
    Some([b"d1:rd".as_slice(), &id, &said, b"e1:t", &string(transaction), b"1:y1:re"].concat())
}

/// An item of a member in the hands of somebody who knows the network's secret, with this value, newer than any true one.
fn lie_of(ticket: &Ticket, id: &NodeId, value: Vec<u8>) -> Lie {
    let week = place_of(ticket, id).week;
    let seed = keys(ticket).network_hash("p2plus/dht-key/1", &[&id.0, &week.to_le_bytes()]);
    let (key, sequence) = (SigningKey::from_seed(&seed.0), 1 << 40);
    let signature = key.sign(&signed_part(sequence, &value));
    Lie { key: key.verifying_key().0, signature: signature.0, sequence, value }
}

#[test]
fn a_dht_full_of_lies_changes_nothing() {
    let Some(mut lab) = Lab::new() else { return };
    let dht = Tracker::start(&mut lab);
    let [liars_at, honest] = [[101, 102, 103, 104], [1, 2, 3, 4]];
    let entrances: Vec<_> = liars_at.into_iter().chain(honest).map(dht_endpoint).collect();
    let ([founder, ada, mut ben], ticket) = members(&mut lab, &config(&entrances));
    let (gone, place) = (id(&ben), place_of(&ticket, &id(&ben)));
    let true_value = dht.value(place);
    let trap_host = lab.host("trap");
    let trap = trap_host.run(|| UdpSocket::bind((trap_host.v4(), PORT))).unwrap();
    trap.set_nonblocking(true).unwrap();

    let forged = record_of(gone, wall().0 + 1_000_000, &[trap.local_addr().unwrap()]);
    let sealed = |keys: &LocalKeys, record| seal(keys, record, wall(), 1, [3; 12]).unwrap().value;
    let foreign = LocalKeys::new(TransportSecret::from_bytes([1; 32]), gone, ticket.network_id, Secret::new([8; 32]));
    let rubbish = Lie { key: place.key.0, signature: [7; 64], sequence: i64::MAX, value: vec![7; 412] };
    let lies = [
        rubbish,
        lie_of(&ticket, &gone, sealed(&foreign, &forged)),
        lie_of(&ticket, &gone, sealed(&keys(&ticket), &forged)),
        lie_of(&ticket, &gone, true_value),
    ];
    let liars: Vec<_> = liars_at.into_iter().zip(lies).map(|(at, lie)| Liar::start(&dht.host, at, lie)).collect();

    ben.stop();
    let is_lied_to = |node: &Node| node.drops("dht_refused") >= 2;
    assert!(eventually(2 * PATIENCE, || is_lied_to(&ada) && is_lied_to(&founder)), "{}", ada.status());
    assert!(liars.iter().all(|liar| liar.asked.load(Ordering::Relaxed) > 0));
    thread::sleep(Duration::from_secs(5));
    assert!(trap.recv(&mut [0; 2000]).is_err(), "somebody was called upon where a lie said that ben is");
    assert!(is_connected(&ada, &founder) && is_connected(&founder, &ada));
    exchange(&ada, &founder, [ada.v4(), founder.v4()]);
    assert!(!is_connected(&ada, &ben));
    ben.start();
    ada.meet(&ben);
    exchange(&ada, &ben, [ada.v4(), ben.v4()]);
}

#[test]
fn a_joiner_finds_by_the_dht_whom_its_ticket_names() {
    let Some(mut lab) = Lab::new() else { return };
    let _dht = Tracker::start(&mut lab);
    let text = config(&[dht_endpoint(1), dht_endpoint(2)]);
    let [mut founder, mut ada] = ["founder", "ada"].map(|name| Node::new(&lab.host(name), name));
    founder.configure(&text);
    ada.configure(&text);
    founder.found();
    // All that the ticket says of where the founder is: where nobody is.
    let nowhere = SocketAddr::from(([198, 51, 100, 7], PORT));
    ada.join(&founder.invite_by(nowhere, &["--name", "ada"]));
    founder.meet(&ada);
}
