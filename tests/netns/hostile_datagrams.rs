//! A third host sends a running daemon whatever it likes: it hears nothing, nothing is said of it, nothing grows, and the honest go on.
//!
//! The stranger speaks IPv4 and the members IPv6, so that the kernel's counters of the daemon's host say what reached the daemon.

use crate::lab::{Host, Lab, Underlay, eventually};
use crate::node::{Node, PATIENCE, PORT, noise, transfer};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The longest payload of an IPv4 datagram.
const LONGEST: usize = 65_507;
/// Up to this length every length is sent with every content: all messages but long transport packets are shorter.
const SHORT: usize = 1_500;
/// The messages that there are: first byte, length.
const MESSAGES: [(u8, usize); 7] =
    [(0x01, 172), (0x02, 640), (0x03, 636), (0x03, 672), (0x04, 64), (0x06, 700), (0x10, 1_400)];
/// Zeros, noise, and noise behind the clear header of each message.
const CONTENTS: usize = 2 + MESSAGES.len();
/// How often each message is sent in its own length.
const REPEATS: usize = 500;
/// Datagrams that are sent before it is looked whether they arrived: they fit the daemon's socket queue.
const CHUNK: usize = 32;
/// Why the daemon drops what a stranger sends.
const REASONS: [&str; 4] = ["malformed_datagram", "unknown_type", "unknown_session", "bad_mac"];
/// What the daemon's memory may grow by, in kB: its receive buffers, touched for the first time by long datagrams (32 × 64 KiB for
/// each of two sockets), and a full inbox (4,096 handshakes of at most 672 bytes).
const GROWTH_MAX: u64 = 7 * 1024;
/// What one TCP connection moves meanwhile.
const TRANSFER_LEN: usize = 5_000_000;

/// A host that is nobody's friend, and its socket.
struct Stranger {
    host: Host,
    socket: UdpSocket,
    target: SocketAddr,
    body: Vec<u8>,
    sent: u64,
}

impl Stranger {
    fn new(host: &Host, own: IpAddr, target: SocketAddr) -> Self {
        let socket = host.run(|| UdpSocket::bind((own, 0))).unwrap();
        Self { host: host.clone(), socket, target, body: noise(1, LONGEST), sent: 0 }
    }

    /// Sends `len` bytes of a content. A clear header is a possible one, or nothing would get any further.
    fn send(&mut self, len: usize, content: usize) {
        // Other noise in each: a session index that is guessed is another one each time.
        self.body[4..12].copy_from_slice(&self.sent.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        let mut datagram = if content == 0 { vec![0; len] } else { self.body[..len].to_vec() };
        if let (Some(message), Some(header)) = (content.checked_sub(2), datagram.get_mut(..4)) {
            let part = u8::from(MESSAGES[message] == (0x03, 672));
            header.copy_from_slice(&[MESSAGES[message].0, part, 0, 0]);
        }
        assert_eq!(self.socket.send_to(&datagram, self.target).unwrap(), len);
        self.sent += 1;
    }

    /// How many UDP datagrams its host received, on whatever port.
    fn heard(&self) -> u64 {
        let counts = udp_counts(&self.host);
        ["Udp.InDatagrams", "Udp.NoPorts", "Udp.InErrors", "Udp6InDatagrams", "Udp6NoPorts", "Udp6InErrors"]
            .iter()
            .map(|name| counts[*name])
            .sum()
    }
}

/// The kernel's UDP counters of a host: `Udp.NAME` of IPv4, `Udp6NAME` of IPv6.
fn udp_counts(host: &Host) -> BTreeMap<String, u64> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap();
    let (v4, v6) = host.run(|| (read("snmp"), read("snmp6")));
    let rows: Vec<Vec<&str>> =
        v4.lines().filter(|line| line.starts_with("Udp:")).map(|line| line.split_whitespace().collect()).collect();
    let of_v4 =
        rows[0].iter().zip(&rows[1]).skip(1).map(|(name, count)| (format!("Udp.{name}"), count.parse().unwrap()));
    let of_v6 = v6.lines().filter_map(|line| {
        let (name, count) = line.split_once(char::is_whitespace)?;
        Some((name.to_owned(), count.trim().parse().unwrap()))
    });
    of_v4.chain(of_v6).collect()
}

/// Datagrams over IPv4 that the kernel handed to the daemon or dropped because its queue was full.
fn arrived(host: &Host) -> [u64; 2] {
    let counts = udp_counts(host);
    [counts["Udp.InDatagrams"], counts["Udp.RcvbufErrors"]]
}

/// Counts what a stranger's datagrams are before the daemon's socket may drop them.
fn count_from(stranger: &Host, host: &Host) {
    let (v4, v6) = (stranger.v4(), stranger.v6());
    host.rules(&format!(
        "table inet count {{ counter strangers {{ }}; chain input {{ type filter hook input priority 0;
         ip saddr {v4} udp dport {PORT} counter name strangers; ip6 saddr {v6} udp dport {PORT} counter name strangers; }}; }}"
    ));
}

/// How many of these the daemon got for certain: whoever sent what the kernel dropped, it counts as a stranger's.
fn counted(host: &Host, dropped_before: u64) -> u64 {
    let output = host.command("nft").args(["list", "counter", "inet", "count", "strangers"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets").skip(1);
    let packets: u64 = words.next().unwrap().parse().unwrap();
    packets.saturating_sub(kernel_drops(host) - dropped_before)
}

/// Datagrams of both families that the kernel dropped instead of handing them out.
fn kernel_drops(host: &Host) -> u64 {
    let counts = udp_counts(host);
    counts["Udp.InErrors"] + counts["Udp6InErrors"]
}

/// Each message in its own length, as [`Stranger::send`] takes it.
fn messages() -> impl Iterator<Item = (usize, usize)> {
    MESSAGES.iter().enumerate().map(|(message, (_, len))| (*len, message + 2))
}

/// What the daemon dropped for the reasons that a stranger gives.
fn dropped(node: &Node) -> u64 {
    let drops = node.status()["drops"].clone();
    REASONS.iter().filter_map(|reason| drops[reason].as_u64()).sum()
}

/// The daemon's resident memory, in kB.
fn resident(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A founder with both families, and a member that finds it over IPv6.
fn members(lab: &mut Lab) -> [Node; 2] {
    let mut founder = Node::new(&lab.host("founder"), "founder");
    // Its own multicast would be among the datagrams that the kernel counts.
    founder.configure("[underlay]\nlan_discovery = false\n");
    founder.found();
    let ada = newcomer(lab, &founder, "ada");
    founder.meet(&ada);
    [founder, ada]
}

fn newcomer(lab: &mut Lab, founder: &Node, name: &str) -> Node {
    let mut node = Node::new(&lab.host_with(name, Underlay::V6), name);
    node.join(&founder.invite_by((founder.host().v6(), PORT).into(), &[]));
    node
}

/// What the members do meanwhile.
fn go_on(founder: &Node, ada: &Node) {
    for node in [founder, ada] {
        let other = if node.name() == "ada" { "founder" } else { "ada" };
        let report = node.ask(&["ping", other, "-c", "2"]);
        assert_eq!(report["received"], 2, "{report}");
    }
    transfer(ada, founder, founder.v4(), TRANSFER_LEN);
    transfer(founder, ada, ada.v6(), TRANSFER_LEN);
}

#[test]
fn datagrams_of_every_length_get_no_answer_are_counted_and_leave_nothing_behind() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = members(&mut lab);
    let mallory = lab.host("mallory");
    let mut stranger = Stranger::new(&mallory, mallory.v4(), founder.endpoint());
    go_on(&founder, &ada);
    let (log, memory, before) = (founder.log(), resident(&founder), dropped(&founder));
    let [received, overflowed] = arrived(founder.host());
    assert_eq!(stranger.heard(), 0);

    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let honest = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                go_on(&founder, &ada);
            }
        });
        let every_length = (0..=LONGEST).map(|len| (len, len % CONTENTS));
        let every_content = (0..SHORT).flat_map(|len| (1..CONTENTS).map(move |turn| (len, (len + turn) % CONTENTS)));
        let every_message = (0..REPEATS).flat_map(|_| messages());
        let mut datagrams = every_length.chain(every_content).chain(every_message).peekable();
        while datagrams.peek().is_some() && !honest.is_finished() {
            datagrams.by_ref().take(CHUNK).for_each(|(len, content)| stranger.send(len, content));
            let have_arrived = || arrived(founder.host())[0] - received == stranger.sent;
            assert!(eventually(PATIENCE, have_arrived), "{:?} of {}", arrived(founder.host()), stranger.sent);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(arrived(founder.host()), [received + stranger.sent, overflowed], "the kernel dropped some");
    assert!(eventually(PATIENCE, || dropped(&founder) - before == stranger.sent), "{}", founder.status()["drops"]);
    assert_eq!(stranger.heard(), 0, "the stranger was answered");
    assert_eq!(founder.log().strip_prefix(log.as_str()), Some(""), "something was logged");
    let grown = resident(&founder).saturating_sub(memory);
    assert!(grown < GROWTH_MAX, "{grown} kB more");
    go_on(&founder, &ada);
}

#[test]
fn a_new_member_comes_in_while_a_stranger_floods() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = members(&mut lab);
    let mallory = lab.host("mallory");
    let (memory, before) = (resident(&founder), dropped(&founder));
    let dropped_by_kernel = kernel_drops(founder.host());
    count_from(&mallory, founder.host());
    let addresses = [(mallory.v4(), founder.host().v4()), (mallory.v6(), founder.host().v6())];
    let strangers = addresses.map(|(own, target)| Stranger::new(&mallory, own, (target, PORT).into()));
    let heard = strangers[0].heard();

    let is_over = AtomicBool::new(false);
    let strangers = thread::scope(|scope| {
        let floods = strangers.map(|mut stranger| {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    for (len, content) in messages() {
                        stranger.send(len, content);
                        // Short lengths, in an order that mixes them.
                        stranger.send(usize::try_from(stranger.sent * 641).unwrap() % SHORT, content);
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                stranger
            })
        });
        let honest = scope.spawn(|| {
            let ben = newcomer(&mut lab, &founder, "ben");
            founder.meet(&ben);
            transfer(&ben, &founder, founder.v4(), TRANSFER_LEN);
            go_on(&founder, &ada);
        });
        // Whatever failed, the floods have to end.
        let outcome = honest.join();
        is_over.store(true, Ordering::Relaxed);
        let strangers = floods.map(|flood| flood.join().unwrap());
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
        strangers
    });
    let sent: u64 = strangers.iter().map(|stranger| stranger.sent).sum();
    let delivered = || counted(founder.host(), dropped_by_kernel);
    assert!(sent > 10_000 && delivered() > 0, "{sent} sent, {} delivered", delivered());
    let lost = |node: &Node| node.drops("queue_full");
    assert!(
        eventually(PATIENCE, || dropped(&founder) - before + lost(&founder) >= delivered()),
        "{} delivered: {}",
        delivered(),
        founder.status()["drops"]
    );
    assert_eq!(strangers[0].heard(), heard, "a stranger was answered");
    let log = founder.log();
    let is_bad =
        |line: &&str| line.contains("WARN") || line.contains("ERROR") || line.contains(&mallory.v4().to_string());
    assert_eq!(log.lines().find(is_bad), None);
    let grown = resident(&founder).saturating_sub(memory);
    assert!(grown < GROWTH_MAX, "{grown} kB more");
    go_on(&founder, &ada);
}
