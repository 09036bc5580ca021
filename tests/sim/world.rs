//! A network of whole nodes in one process: virtual time, an event heap, one seed.
//!
//! Datagrams are lost, duplicated, delayed and reordered as the seed says; every event goes into a trace hash, so that two runs
//! can be compared byte for byte.

use crate::nat::Nat;
use crate::spares;
use crate::streams::{self, is_stream_port};
use p2plus::crypto::hash::{Digest, domain_hash};
use p2plus::time::{Instant, Now, UnixMillis};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The wall clock at the start of every run: 2026-01-01.
const EPOCH: UnixMillis = UnixMillis(1_767_225_600_000);

/// Events at one moment after which the simulator calls it a livelock.
const MAX_RESTLESS: u32 = 100_000;

/// What runs on a host of the world.
pub trait Guest {
    /// A datagram arrived from `source` at a port.
    fn handle_datagram(&mut self, now: Now, port: u16, source: SocketAddr, datagram: Vec<u8>);
    /// A deadline passed.
    fn handle_timeout(&mut self, now: Now);
    /// The next datagram to send, and from which port, where not from the host's own.
    fn poll_transmit(&mut self, now: Now) -> Option<(Option<u16>, SocketAddr, Vec<u8>)>;
    /// A datagram arrived by a link over TLS; an empty one is the link's end.
    fn handle_stream(&mut self, _now: Now, _source: SocketAddr, _datagram: Vec<u8>) {}
    /// The next datagram to send by one, and from which port.
    fn poll_stream(&mut self) -> Option<(u16, SocketAddr, Vec<u8>)> {
        None
    }
    /// When to be called at the latest.
    fn poll_timeout(&mut self) -> Option<Instant>;
}

/// How a link treats datagrams. Probabilities are per thousand.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Base delay, one way.
    pub latency: Duration,
    /// Random delay on top; reorders when it exceeds the gap between datagrams.
    pub jitter: Duration,
    /// Datagrams lost, ‰.
    pub loss: u64,
    /// Datagrams delivered twice, ‰.
    pub duplication: u64,
}

impl Weather {
    /// A good link: 10 ms, nothing lost.
    pub const FAIR: Self = Self { latency: Duration::from_millis(10), jitter: Duration::ZERO, loss: 0, duplication: 0 };

    /// A link that loses, doubles and reorders `percent` of what passes.
    pub const fn foul(percent: u64) -> Self {
        Self {
            latency: Duration::from_millis(10),
            jitter: Duration::from_millis(percent),
            loss: percent * 10,
            duplication: percent * 10,
        }
    }
}

/// A datagram that left a host, as somebody on the wire sees it.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Its source.
    pub from: SocketAddr,
    /// Its destination.
    pub to: SocketAddr,
    /// Its bytes.
    pub datagram: Vec<u8>,
    /// Whether it went no further: a cut link, or the weather.
    pub is_lost: bool,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Delivery {
    at: Instant,
    order: u64,
    to: SocketAddr,
    from: SocketAddr,
    datagram: Vec<u8>,
}

/// What a host sent, by the first byte of its datagrams: bytes with the headers of IP and UDP.
pub type Traffic = BTreeMap<u8, u64>;

/// How long a datagram travels from one address to another.
pub type Distance = Box<dyn Fn(IpAddr, IpAddr) -> Duration>;

/// The hosts, the air between them and the clock.
pub struct World<G> {
    now: Now,
    rng: ChaCha20Rng,
    pub weather: Weather,
    hosts: BTreeMap<SocketAddr, G>,
    deadlines: BTreeMap<SocketAddr, Instant>,
    /// The same, by time.
    due: BTreeSet<(Instant, SocketAddr)>,
    in_flight: BinaryHeap<Reverse<Delivery>>,
    order: u64,
    trace: Digest,
    /// Events at one and the same moment: many mean that a host does not come to rest.
    restless: u32,
    /// Says whether the link from the first to the second is cut.
    pub cut: Box<dyn Fn(SocketAddr, SocketAddr) -> bool>,
    /// How far the wall clocks of some hosts are behind everybody's.
    pub behind: BTreeMap<SocketAddr, Duration>,
    /// The NATs, and the hosts behind them.
    pub nats: Vec<Nat>,
    pub inside: BTreeMap<SocketAddr, usize>,
    by_public: HashMap<IpAddr, usize>,
    /// How long what is injected travels.
    pub latency_of_injected: Duration,
    /// Where hosts are not equally far from each other.
    pub distance: Option<Distance>,
    /// Every datagram that left a host, while somebody listens.
    pub wire: Option<Vec<Sighting>>,
    /// How often a host was called because a deadline passed.
    pub wakeups: u64,
    /// What each host sent, while somebody counts.
    pub traffic: Option<BTreeMap<SocketAddr, Traffic>>,
}

impl<G: Guest> World<G> {
    /// An empty world, reproducible by its seed.
    pub fn new(seed: u64, weather: Weather) -> Self {
        Self {
            now: Now { instant: Instant::ZERO + Duration::from_secs(1), wall: EPOCH },
            rng: ChaCha20Rng::seed_from_u64(seed),
            weather,
            hosts: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            due: BTreeSet::new(),
            in_flight: BinaryHeap::new(),
            order: 0,
            trace: Digest::default(),
            restless: 0,
            cut: Box::new(|_, _| false),
            behind: BTreeMap::new(),
            nats: Vec::new(),
            inside: BTreeMap::new(),
            by_public: HashMap::new(),
            latency_of_injected: weather.latency,
            distance: None,
            wire: None,
            wakeups: 0,
            traffic: None,
        }
    }

    /// The moment.
    pub fn now(&self) -> Now {
        self.now
    }

    /// The moment by the clocks of one host.
    pub fn now_at(&self, address: SocketAddr) -> Now {
        let behind = self.behind.get(&address).map_or(0, |behind| u64::try_from(behind.as_millis()).unwrap());
        Now { wall: UnixMillis(self.now.wall.0 - behind), ..self.now }
    }

    /// A hash over everything that was delivered, when and to whom.
    pub fn trace(&self) -> Digest {
        self.trace
    }

    /// Puts a host at `address`; one that was there is gone.
    pub fn insert(&mut self, address: SocketAddr, guest: G) {
        self.hosts.insert(address, guest);
        self.collect(address);
    }

    /// Takes a host away: a crash, as the others see it.
    pub fn remove(&mut self, address: SocketAddr) -> Option<G> {
        self.set_deadline(address, None);
        self.hosts.remove(&address)
    }

    /// Has a host that is to come live behind a NAT of its own.
    pub fn put_behind(&mut self, inside: SocketAddr, nat: Nat) {
        self.inside.insert(inside, self.nats.len());
        self.by_public.insert(nat.public(), self.nats.len());
        self.nats.push(nat);
    }

    /// The address that others see of a host.
    pub fn public(&self, home: SocketAddr) -> IpAddr {
        self.inside.get(&home).map_or(home.ip(), |nat| self.nats[*nat].public())
    }

    /// Moves a host to another address, as roaming does; what is in flight to the old one is lost.
    pub fn relocate(&mut self, from: SocketAddr, to: SocketAddr) {
        if let Some(guest) = self.remove(from) {
            self.insert(to, guest);
        }
    }

    /// The addresses at which hosts live.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.hosts.keys().copied().collect()
    }

    /// Puts a datagram on the wire that no host sent; it arrives for certain.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        self.order += 1;
        let at = self.now.instant + self.latency_of_injected;
        self.in_flight.push(Reverse(Delivery { at, order: self.order, to, from, datagram }));
    }

    /// Lets both clocks jump, as after a suspend: whatever was due meanwhile is due at once, and what was in flight arrives then.
    pub fn jump(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    /// Lends a host.
    pub fn host(&self, address: SocketAddr) -> &G {
        &self.hosts[&address]
    }

    /// Acts on a host, then sends what it has to say.
    pub fn with<T>(&mut self, address: SocketAddr, act: impl FnOnce(&mut G, Now) -> T) -> T {
        let now = self.now_at(address);
        let result = act(self.hosts.get_mut(&address).expect("a host lives there"), now);
        self.collect(address);
        result
    }

    /// Runs until `done` holds, at most for `limit`. Returns how long it took.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let start = self.now.instant;
        let end = start + limit;
        loop {
            if done(self) {
                return Some(self.now.instant.saturating_since(start));
            }
            if !self.step(end) {
                return None;
            }
        }
    }

    /// Runs for `span`.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now.instant + span;
        while self.step(end) {}
    }

    /// Handles the next event before `end`; at `end`, moves the clock there and returns false.
    fn step(&mut self, end: Instant) -> bool {
        let delivery = self.in_flight.peek().map(|Reverse(delivery)| delivery.at);
        let deadline = self.due.first().copied();
        let next = [delivery, deadline.map(|(at, _)| at)].into_iter().flatten().min();
        match next {
            Some(at) if at < end => self.advance(at),
            _ => {
                self.advance(end);
                return false;
            }
        }
        assert!(self.restless < MAX_RESTLESS, "the world does not come to rest at {:?}: {next:?}", self.now);
        if delivery.is_some_and(|at| at <= self.now.instant) {
            let Some(Reverse(arrived)) = self.in_flight.pop() else { return true };
            self.deliver(arrived);
        } else if let Some((_, address)) = deadline {
            self.wakeups += 1;
            self.with(address, |guest, now| guest.handle_timeout(now));
        }
        true
    }

    fn advance(&mut self, to: Instant) {
        let span = to.saturating_since(self.now.instant);
        self.restless = if span.is_zero() { self.restless + 1 } else { 0 };
        self.now = self.now + span;
    }

    /// The source that a datagram has on its way from a host; none when it leads nowhere.
    fn leave(&mut self, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let (home, there) = (self.inside.get(&home_of(from)).copied(), self.inside.get(&home_of(to)).copied());
        match (home, there) {
            (Some(home), Some(there)) if home == there => Some(from),
            // A private address of somewhere else.
            (_, Some(_)) => None,
            // No hairpins.
            (Some(home), None) if self.nats[home].public() == to.ip() => None,
            (Some(home), None) => Some(self.nats[home].outbound(self.now.instant, from, to)),
            (None, None) => Some(from),
        }
    }

    fn deliver(&mut self, mut arrived: Delivery) {
        let entry = borsh::to_vec(&(arrived.at.as_micros(), arrived.to, arrived.from)).unwrap();
        self.trace = domain_hash("sim trace", &[&self.trace.0, &entry, &arrived.datagram]);
        if let Some(nat) = self.by_public.get(&arrived.to.ip()) {
            let Some(inside) = self.nats[*nat].inbound(self.now.instant, arrived.from, arrived.to.port()) else {
                return;
            };
            arrived.to = inside;
        }
        let (host, port) = (home_of(arrived.to), arrived.to.port());
        if is_stream_port(port) && self.hosts.contains_key(&host) {
            self.with(host, |guest, now| guest.handle_stream(now, arrived.from, arrived.datagram));
        } else if self.hosts.contains_key(&host) {
            self.with(host, |guest, now| guest.handle_datagram(now, port, arrived.from, arrived.datagram));
        }
    }

    fn collect(&mut self, from: SocketAddr) {
        let now = self.now_at(from);
        while let Some((port, to, datagram)) = self.hosts.get_mut(&from).and_then(|guest| guest.poll_transmit(now)) {
            let is_guess = self.by_public.contains_key(&to.ip());
            assert!(is_guess || !is_stream_port(to.port()), "what goes over TLS does not go by UDP: {to}");
            let is_lost = (self.cut)(from, to) || self.rng.next_u64() % 1000 < self.weather.loss;
            let seen_from = self.leave(SocketAddr::new(from.ip(), port.unwrap_or(from.port())), to);
            if let Some(wire) = self.wire.as_mut().filter(|_| !datagram.is_empty()) {
                wire.push(Sighting { from, to, datagram: datagram.clone(), is_lost });
            }
            if let Some(traffic) = self.traffic.as_mut().filter(|_| !datagram.is_empty()) {
                let headers = if to.is_ipv4() { 20 + 8 } else { 40 + 8 };
                *traffic.entry(from).or_default().entry(datagram[0]).or_default() += headers + datagram.len() as u64;
            }
            let Some(seen_from) = seen_from.filter(|_| !is_lost && !datagram.is_empty()) else { continue };
            if self.rng.next_u64() % 1000 < self.weather.duplication {
                self.launch(seen_from, to, datagram.clone());
            }
            self.launch(seen_from, to, datagram);
        }
        while let Some((port, to, datagram)) = self.hosts.get_mut(&from).and_then(G::poll_stream) {
            let Some(seen_from) = self.leave(SocketAddr::new(from.ip(), port), to) else { continue };
            self.order += 1;
            let at = self.now.instant + self.weather.latency;
            self.in_flight.push(Reverse(Delivery { at, order: self.order, to, from: seen_from, datagram }));
        }
        let deadline = self.hosts.get_mut(&from).and_then(G::poll_timeout);
        self.set_deadline(from, deadline);
    }

    fn set_deadline(&mut self, address: SocketAddr, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.deadlines.insert(address, at),
            None => self.deadlines.remove(&address),
        };
        if before != at {
            before.map(|before| self.due.remove(&(before, address)));
            self.due.extend(at.map(|at| (at, address)));
        }
    }

    fn launch(&mut self, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        let jitter = u64::try_from(self.weather.jitter.as_micros()).expect("jitter below an age");
        let extra = Duration::from_micros(if jitter == 0 { 0 } else { self.rng.next_u64() % jitter });
        let latency = self.distance.as_ref().map_or(self.weather.latency, |distance| distance(from.ip(), to.ip()));
        let at = self.now.instant + latency + extra;
        self.order += 1;
        self.in_flight.push(Reverse(Delivery { at, order: self.order, to, from, datagram }));
    }
}

/// The host's own port: the world knows it by no other.
fn home_of(endpoint: SocketAddr) -> SocketAddr {
    spares::home_of(streams::home_of(endpoint))
}
