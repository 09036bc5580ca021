//! Several links on a network of virtual time that loses, reorders and duplicates by a seed.

mod delivery;
mod limits;

use super::*;
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::policy::Rights;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, Ipv6Packet, Ipv6Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

const LATENCY: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Default)]
struct Faults {
    loss_percent: u32,
    duplicate_percent: u32,
    jitter: Duration,
}

/// Links, the packets between them, and what is seen of both.
struct Net {
    now: Instant,
    rng: ChaCha20Rng,
    faults: Faults,
    links: Vec<ControlLink>,
    /// By arrival, then by departure.
    flying: BTreeMap<(Instant, u64), (usize, usize, Vec<u8>)>,
    departures: u64,
    delivered: Vec<Vec<(LinkId, Service, Vec<u8>)>>,
    events: Vec<Vec<LinkEvent>>,
    /// Links that take no messages out.
    deaf: BTreeSet<usize>,
    trace: Vec<(Instant, usize, Vec<u8>)>,
}

fn id(index: usize) -> LinkId {
    LinkId(TransportKey([index as u8 + 1; 32]))
}

fn member(index: usize) -> Rights {
    Rights::Member(NodeId([index as u8 + 1; 32]))
}

fn message(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

impl Net {
    /// `count` members that know one another.
    fn new(seed: u64, count: usize, faults: Faults) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let links = (0..count).map(|index| ControlLink::new(id(index), &mut rng)).collect();
        let mut net = Self {
            now: Instant::from_micros(1_000_000),
            rng,
            faults,
            links,
            flying: BTreeMap::new(),
            departures: 0,
            delivered: vec![Vec::new(); count],
            events: vec![Vec::new(); count],
            deaf: BTreeSet::new(),
            trace: Vec::new(),
        };
        for (one, other) in (0..count).flat_map(|one| (0..count).map(move |other| (one, other))) {
            if one != other {
                net.links[one].attach(id(other), member(other)).unwrap();
            }
        }
        net
    }

    fn send(&mut self, from: usize, to: usize, service: Service, message: Vec<u8>) -> Result<(), SendError> {
        self.links[from].send(self.now, id(to), service, message)
    }

    /// Replaces a link by a fresh one, as a restart does.
    fn restart(&mut self, index: usize) {
        self.links[index] = ControlLink::new(id(index), &mut self.rng);
        for other in (0..self.links.len()).filter(|other| *other != index) {
            self.links[index].attach(id(other), member(other)).unwrap();
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.next_u32() % 100 < percent
    }

    fn launch(&mut self, from: usize, to: usize, packet: &[u8]) {
        let jitter = self.faults.jitter.as_micros() as u64;
        let extra = if jitter == 0 { 0 } else { self.rng.next_u64() % jitter };
        let arrival = self.now + LATENCY + Duration::from_micros(extra);
        self.departures += 1;
        self.flying.insert((arrival, self.departures), (from, to, packet.to_vec()));
    }

    fn drain(&mut self) {
        for from in 0..self.links.len() {
            while let Some((peer, packet)) = self.links[from].poll_transmit() {
                assert!(packet.len() <= CONTROL_MTU);
                self.trace.push((self.now, from, packet.clone()));
                let to = usize::from(peer.0.0[0]) - 1;
                if to >= self.links.len() || self.chance(self.faults.loss_percent) {
                    continue;
                }
                self.launch(from, to, &packet);
                if self.chance(self.faults.duplicate_percent) {
                    self.launch(from, to, &packet);
                }
            }
            while let Some(event) = self.links[from].poll_event() {
                self.events[from].push(event);
            }
            if !self.deaf.contains(&from) {
                while let Some(message) = self.links[from].poll_message() {
                    self.delivered[from].push(message);
                }
            }
        }
    }

    /// Goes to the next thing that happens, not beyond `end`; false when nothing is left before it.
    fn step(&mut self, end: Instant) -> bool {
        self.drain();
        let timers: Vec<Option<Instant>> = self.links.iter_mut().map(ControlLink::poll_timeout).collect();
        let timer = timers.iter().flatten().min().copied();
        let arrival = self.flying.keys().next().map(|(arrival, _)| *arrival);
        let Some(next) = [timer, arrival].into_iter().flatten().min().filter(|next| *next <= end) else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(next);
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, packet) = entry.remove();
            // Refusals are counted in the link.
            let _ = self.links[to].handle_packet(self.now, id(from), &packet);
        }
        for (link, timer) in self.links.iter_mut().zip(timers) {
            if timer.is_some_and(|timer| timer <= self.now) {
                link.handle_timeout(self.now);
            }
        }
        true
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.step(end) {}
        self.drain();
    }

    /// Runs until `index` has `count` messages; fails after `span`. Returns how long it took.
    fn run_until_delivered(&mut self, index: usize, count: usize, span: Duration) -> Duration {
        let start = self.now;
        self.drain();
        while self.delivered[index].len() < count {
            let goes_on = self.step(start + span);
            self.drain();
            let arrived = self.delivered[index].len();
            assert!(goes_on || arrived >= count, "{arrived} of {count} messages after {span:?}: {:?}", self.events);
        }
        self.now.saturating_since(start)
    }
}

/// Builds a packet as a hostile peer would, with a true checksum.
pub(super) fn packet<'a>(from: LinkId, to: LinkId, ports: (u16, u16), edit: impl FnOnce(&mut TcpRepr<'a>)) -> Vec<u8> {
    let mut tcp = TcpRepr {
        src_port: ports.0,
        dst_port: ports.1,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(77),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    edit(&mut tcp);
    let (source, destination) = (from.address(), to.address());
    let ip = Ipv6Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 40 + tcp.buffer_len()];
    ip.emit(&mut Ipv6Packet::new_unchecked(&mut bytes));
    let mut segment = TcpPacket::new_unchecked(&mut bytes[40..]);
    tcp.emit(&mut segment, &source.into(), &destination.into(), &ChecksumCapabilities::default());
    bytes
}

/// Fails when anything of `peer` is left.
fn assert_forgotten(link: &ControlLink, peer: LinkId) {
    assert!(!link.peers.contains_key(&peer));
    assert!(!link.addresses.contains_key(&peer.address()) && !link.addresses.values().any(|other| *other == peer));
    assert!(!link.connections.keys().any(|key| key.peer == peer));
    assert!(!link.blocked.iter().any(|key| key.peer == peer));
    assert!(!link.resent.iter().any(|(other, _)| *other == peer));
    assert!(!link.inbox.iter().any(|(other, ..)| *other == peer));
    assert!(!link.events.iter().any(|LinkEvent::Broken { peer: other, .. }| *other == peer));
    assert!(!link.device.iter().any(|packet| destination(packet) == Some(peer.address())));
    assert!(link.agenda.keys().iter().eq(link.connections.keys()), "every connection is looked at some time");
    if link.peers.is_empty() {
        assert_eq!(link.accounts, Accounts::default());
    }
}

fn refused(link: &ControlLink, reason: LinkError) -> u64 {
    link.counters().packets.get(&reason).copied().unwrap_or(0)
}
