//! A node under 50,000 forged handshake datagrams a second: who is honest hardly notices.

use crate::caller::{Caller, keys, transport_key};
use crate::lab::{Host, Lab, eventually};
use crate::node::{Node, PATIENCE, PORT, founder, joiner};
use p2plus::crypto::exchange::TransportKey;
use p2plus::session::handshake::NetworkKeys;
use p2plus::wire::datagram::SessionIndex;
use p2plus::wire::handshake::{CookieReply, INITIATION_LEN, Initiation, KEY_PART_LEN, MAC_LEN};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Forged datagrams a second.
const RATE: u64 = 50_000;
/// No flood lasts longer, whatever the test waits for.
const LONGEST_FLOOD: Duration = Duration::from_secs(30);
/// Members made for the test; each handshakes twice, for a responder keeps four handshakes of a member at a time.
const CALLERS: usize = 50;
/// Honest handshakes.
const CALLS: usize = 2 * CALLERS;
/// At a time.
const CALLERS_AT_ONCE: usize = 4;

/// What the flood is made of.
#[derive(Clone, Copy)]
enum Forgery {
    /// Whoever sends it knows neither the node's key nor the network's secret.
    Garbage,
    /// The sender knows both: a former member. Every source is forged, every mac1 true.
    WithMac1,
    /// Cookies that nobody asked for, which have no mac1 and name an attempt by its index.
    Cookie,
}

/// Lets all callers handshake, a few at a time; returns how many sessions came of it, and how long each took.
fn call_all(callers: &[Caller], host: &Host, target: SocketAddr, key: TransportKey) -> (usize, Vec<Duration>) {
    let (next, sessions, times) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= CALLS {
            return;
        }
        let started = Instant::now();
        if callers[number % CALLERS].call(host, target, key).is_some() {
            sessions.fetch_add(1, Ordering::Relaxed);
            times.lock().unwrap().push(started.elapsed());
        }
    };
    thread::scope(|scope| (0..CALLERS_AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    let mut times = times.into_inner().unwrap();
    times.sort_unstable();
    (sessions.into_inner(), times)
}

/// Writes a forged handshake datagram; `number` makes it like no other.
fn forge(forgery: Forgery, number: u64, network: &NetworkKeys) -> Vec<u8> {
    if let Forgery::Cookie = forgery {
        let receiver = SessionIndex(u32::try_from(number).unwrap());
        return CookieReply { receiver, nonce: [1; 24], sealed_cookie: [2; 32] }.encode().to_vec();
    }
    // One in four names itself a later part of a handshake that nobody began.
    let is_part = number.is_multiple_of(4);
    let mut datagram = vec![0xa5; if is_part { KEY_PART_LEN } else { INITIATION_LEN }];
    if is_part {
        datagram[..4].copy_from_slice(&[2, 0, 0, 0]);
        datagram[8..16].copy_from_slice(&number.to_le_bytes());
    } else {
        let mut ephemeral = [0; 32];
        ephemeral[..8].copy_from_slice(&number.to_le_bytes());
        let initiation = Initiation {
            sender: SessionIndex(1),
            ephemeral: TransportKey(ephemeral),
            sealed_static: [1; 48],
            sealed_payload: [2; 52],
            mac1: [0; MAC_LEN],
            mac2: [0; MAC_LEN],
        };
        datagram = initiation.encode().to_vec();
    }
    let covered = datagram.len() - if is_part { MAC_LEN } else { 2 * MAC_LEN };
    let mac1 = match forgery {
        Forgery::Garbage | Forgery::Cookie => [7; MAC_LEN],
        Forgery::WithMac1 => network.mac1(&datagram[..covered]),
    };
    datagram[covered..covered + MAC_LEN].copy_from_slice(&mac1);
    datagram
}

/// Puts IPv4 and UDP headers in front, from a forged source in 10.0.0.0/8, behind the lab's router.
fn envelope(number: u64, target: SocketAddrV4, datagram: &[u8]) -> Vec<u8> {
    let len = |extra: usize| u16::try_from(datagram.len() + extra).unwrap().to_be_bytes();
    let mut packet = vec![0; 28];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&len(28));
    (packet[8], packet[9]) = (64, 17);
    packet[12] = 10;
    packet[13..16].copy_from_slice(&number.to_be_bytes()[5..]);
    packet[16..20].copy_from_slice(&target.ip().octets());
    packet[20..22].copy_from_slice(&PORT.to_be_bytes());
    packet[22..24].copy_from_slice(&target.port().to_be_bytes());
    packet[24..26].copy_from_slice(&len(8));
    packet.extend(datagram);
    packet
}

/// Sends forged datagrams at [`RATE`] until told to stop; counts them.
fn flood(forgery: Forgery, victim: (&NetworkKeys, SocketAddr), stop: &AtomicBool, sent: &AtomicU64) {
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).unwrap();
    let (network, SocketAddr::V4(target)) = victim else { panic!("the lab's IPv4") };
    let started = Instant::now();
    while !stop.load(Ordering::Relaxed) && started.elapsed() < LONGEST_FLOOD {
        let due = RATE * u64::try_from(started.elapsed().as_micros()).unwrap() / 1_000_000;
        let before = sent.load(Ordering::Relaxed);
        for number in before..due.min(before + RATE / 100) {
            let packet = envelope(number, target, &forge(forgery, number, network));
            // A full queue of the sender's own link is the sender's loss.
            let _ = raw.send_to(&packet, &SocketAddr::V4(target).into());
            sent.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What the kernel dropped because nobody read the node's IPv4 sockets in time: the last column of their lines.
fn overflow(host: &Host) -> u64 {
    let sockets = host.run(|| std::fs::read_to_string("/proc/thread-self/net/udp")).unwrap();
    let of_port = sockets.lines().filter(|line| line.contains(&format!(":{PORT:04X} ")));
    of_port.map(|line| line.split_whitespace().last().unwrap().parse::<u64>().unwrap()).sum()
}

/// Ada is flooded; 100 members handshake with her, her user asks, the founder pings, and ben is revoked.
fn honest_nodes_are_served(forgery: Forgery, refused_as: &str) {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let callers: Vec<Caller> = (0..CALLERS).map(|number| Caller::admit(&founder, number)).collect();
    let (ada, ben) = (joiner(&mut lab, &founder, "ada"), joiner(&mut lab, &founder, "ben"));
    founder.meet(&ada);
    ada.meet(&ben);
    let (honest, mallory) = (lab.host("honest"), lab.host("mallory"));
    ada.wait_for(&format!("height={}", founder.status()["ledger"]["height"]));
    let (key, endpoint) = (transport_key(&ada), ada.endpoint());
    let network = keys(&ada, [9; 32]).network_keys(&key);

    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    let (sessions, times, slowest_status, cut_after, elapsed) = thread::scope(|scope| {
        scope.spawn(|| mallory.run(|| flood(forgery, (&network, endpoint), &stop, &sent)));
        assert!(eventually(PATIENCE, || ada.drops(refused_as) > RATE / 5), "{}", ada.status());
        let calls = scope.spawn(|| call_all(&callers, &honest, endpoint, key));
        let slowest_status = (0..20).map(|_| {
            let asked = Instant::now();
            ada.status();
            asked.elapsed()
        });
        let slowest_status = slowest_status.max().unwrap();
        let pings = founder.ask(&["ping", "ada", "-c", "3"]);
        // What this machine had no time to read is not the node's doing, but all is not lost so.
        let answered = pings["received"].as_u64().unwrap();
        assert!(answered == 3 || answered > 0 && overflow(ada.host()) > 0, "{pings} {}", ada.status());
        let revoked = Instant::now();
        founder.ask(&["revoke", "ben"]);
        let is_cut = || ada.log().contains("revoked: all its sessions are cut");
        assert!(eventually(PATIENCE, is_cut), "{}", ada.status());
        let cut_after = revoked.elapsed();
        let (sessions, times) = calls.join().unwrap();
        stop.store(true, Ordering::Relaxed);
        (sessions, times, slowest_status, cut_after, started.elapsed())
    });
    let sent = sent.into_inner();
    println!(
        "{sent} forged in {elapsed:?}; {sessions} of {CALLS} handshakes, median {:?}, slowest {:?}; status {slowest_status:?}; cut {cut_after:?}; {}",
        times.get(times.len() / 2),
        times.last(),
        ada.status()["drops"]
    );
    assert!(elapsed < LONGEST_FLOOD, "the flood ended before the test: {elapsed:?}");
    let promised = RATE * u64::try_from(elapsed.as_millis()).unwrap() / 1000 * 4 / 5;
    assert!(sent >= promised, "{sent} forged datagrams in {elapsed:?}");
    assert!(sessions * 100 >= CALLS * 99, "{sessions} of {CALLS} honest handshakes");
    assert!(cut_after < Duration::from_secs(2), "{cut_after:?}");
    assert!(slowest_status < Duration::from_secs(5), "{slowest_status:?}");
    assert_eq!(ada.drops("queue_full"), 0, "members' records were dropped for a flood of strangers");
}

#[test]
fn a_flood_of_garbage_keeps_no_member_from_a_session_no_revocation_and_no_user_from_an_answer() {
    honest_nodes_are_served(Forgery::Garbage, "bad_mac");
}

#[test]
fn a_flood_of_forged_sources_with_a_true_mac1_keeps_no_member_from_a_session() {
    honest_nodes_are_served(Forgery::WithMac1, "handshake_refused");
}

#[test]
fn a_flood_of_cookies_that_nobody_asked_for_keeps_no_joiner_from_its_network() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let (mallory, host) = (lab.host("mallory"), lab.host("ada"));
    let network = keys(&founder, [9; 32]).network_keys(&transport_key(&founder));
    let (endpoint, ticket) = (SocketAddr::new(host.v4(), PORT), founder.invite(&["--name", "ada"]));
    // A chain that keeps the joiner's node busy for longer than a flood takes to fill its queues.
    (0..64).for_each(|_| drop(founder.invite(&[])));
    let mut ada = Node::new(&host, "ada");
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| mallory.run(|| flood(Forgery::Cookie, (&network, endpoint), &stop, &sent)));
        // It alone begins its handshakes, and the founder asks a guest for a cookie.
        ada.join(&ticket);
        assert!(eventually(PATIENCE, || ada.drops("unknown_session") > RATE / 5), "{}", ada.status());
        founder.meet(&ada);
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(ada.drops("handshake_queue_full"), 0, "what nobody asked for came to the node: {}", ada.status());
}
