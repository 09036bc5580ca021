//! What a network costs as it grows: whole nodes in virtual time, most of them behind NATs, some of which die and come again.

use crate::allocations::held;
use crate::crowd::{Reached, nat_of, public_of};
use crate::machine::Machine;
use crate::nat::NatType;
use crate::overlay::{Overlay, PATIENCE};
use p2plus::ledger::store::image;
use p2plus::node::dht::{Report, places, seal};
use p2plus::node::gossip::NEIGHBOURS;
use p2plus::time::Instant;
use p2plus::wire::control::{HomeRelay, NatKind, NodeRecord, SignedRecord};
use p2plus::wire::dht::NONCE_LEN;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// How long everybody has to find its place before anything is measured.
const SETTLING: Duration = Duration::from_secs(300);

/// Three rounds of comparisons, and some.
const ROUNDS: Duration = Duration::from_secs(100);

/// How long what idle members send is counted.
const IDLE: Duration = Duration::from_secs(300);

/// Pairs that talk.
const PAIRS: usize = 200;

/// How long what they send is counted, and how often each of them says something.
const TALK: Duration = Duration::from_secs(120);
const PACE: Duration = Duration::from_secs(5);

/// Of all members so many a thousand die in an hour, for so long.
const CHURN: u32 = 300;
const DEATH: Duration = Duration::from_secs(30);

/// Packets of a transfer whose relay dies, and for how long before and after.
const PACKETS: Duration = Duration::from_millis(20);
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(4);

/// Members that do not run here, but whose records are as new as those of members who do.
struct Absent {
    numbers: std::ops::Range<usize>,
    next: Instant,
    rng: ChaCha20Rng,
}

impl Absent {
    /// Those of so many members who do not run.
    fn of(overlay: &Overlay, members: usize, seed: u64) -> Self {
        let numbers = overlay.addresses.len()..members;
        Self { numbers, next: overlay.world.now().instant, rng: ChaCha20Rng::seed_from_u64(seed) }
    }

    /// Tells one running member of all of them. Returns when all others know them too, if that is not too late.
    fn tell_all(&mut self, overlay: &mut Overlay, within: Duration) -> Option<Duration> {
        for number in self.numbers.clone() {
            self.tell(overlay, number, Duration::from_secs(3600), 1);
        }
        let start = overlay.world.now().instant;
        let others = self.numbers.end - 1;
        let knows_all =
            |at: &SocketAddr, overlay: &Overlay| overlay.world.host(*at).node.known_endpoints().len() >= others;
        while !overlay.world.addresses().iter().all(|at| knows_all(at, overlay)) {
            overlay.world.run_for(Duration::from_secs(1));
            if overlay.world.now().instant.saturating_since(start) > within {
                return None;
            }
        }
        Some(overlay.world.now().instant.saturating_since(start))
    }

    /// The record of one, as it is after a start at `age` ago: behind a NAT, at home at three relays.
    fn record(&mut self, overlay: &Overlay, number: usize, age: Duration) -> SignedRecord {
        let machine = overlay.machine(number);
        let wall = overlay.world.now().wall.0 - u64::try_from(age.as_millis()).unwrap();
        let port = 1024 + (self.rng.next_u64() % 60_000) as u16;
        let relays = (0..overlay.addresses.len()).step_by(10).take(3);
        let homes = relays.map(|relay| HomeRelay { id: overlay.id(relay), rtt_millis: 30 }).collect();
        let record = NodeRecord {
            id: machine.id(),
            sequence: wall,
            endpoints: vec![machine.address, SocketAddr::new(public_of(number), port)],
            requests: Vec::new(),
            refused: Vec::new(),
            nat: NatKind::Independent,
            is_relay: false,
            homes,
        };
        SignedRecord::sign(record, &machine.signing_key("node"), &overlay.network_id())
    }

    /// Tells a running member of it.
    fn tell(&mut self, overlay: &mut Overlay, number: usize, age: Duration, to: usize) {
        let record = self.record(overlay, number, age);
        let keys = overlay.node(to).machine.local_keys();
        let wall = overlay.world.now().wall;
        let item = seal(&keys, &record, wall, 1, [0; NONCE_LEN]).expect("a record that the DHT takes");
        let week = places(&keys, &record.claimed_id(), wall).last().expect("a week").week;
        let report = Report::Found { member: record.claimed_id(), week, value: item.value };
        overlay.order(to, |node, now| node.handle_dht(now, report));
    }

    /// Has as many come anew as are due.
    fn tick(&mut self, overlay: &mut Overlay) {
        let interval = Duration::from_secs(3600) * 1000 / CHURN / u32::try_from(self.numbers.len()).unwrap();
        while self.next <= overlay.world.now().instant {
            let number = self.numbers.start + (self.rng.next_u64() % self.numbers.len() as u64) as usize;
            let running = overlay.world.addresses().len();
            let to = (self.rng.next_u64() % running as u64) as usize;
            self.tell(overlay, number, Duration::ZERO, to);
            self.next = self.next + interval;
        }
    }
}

/// Numbers, for their quantiles.
struct Sample<T>(Vec<T>);

impl<T: Copy + PartialOrd> Sample<T> {
    fn new(values: impl IntoIterator<Item = T>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(|one, other| one.partial_cmp(other).unwrap());
        Self(values)
    }

    fn quantile(&self, share: f64) -> T {
        let last = self.0.len() - 1;
        self.0[((last as f64 * share).ceil() as usize).min(last)]
    }
}

/// What everybody sends in a span: bytes a second of each, and of all by the kind of datagram.
struct Load {
    each: Sample<f64>,
    kinds: BTreeMap<u8, f64>,
}

impl Load {
    fn mean(&self) -> f64 {
        self.each.0.iter().sum::<f64>() / self.each.0.len() as f64
    }

    fn print(&self, what: &str) {
        let kinds: Vec<_> = self.kinds.iter().map(|(kind, bytes)| format!("type {kind}: {bytes:.1}")).collect();
        println!(
            "{what}: bytes a second and node: mean {:.1}, median {:.1}, p99 {:.1}, most {:.1}; {}",
            self.mean(),
            self.each.quantile(0.5),
            self.each.quantile(0.99),
            self.each.quantile(1.0),
            kinds.join(", ")
        );
    }
}

/// Runs `act`, which takes virtual time, and counts what is sent meanwhile.
fn count(overlay: &mut Overlay, act: impl FnOnce(&mut Overlay)) -> Load {
    let start = overlay.world.now().instant;
    overlay.world.traffic = Some(BTreeMap::new());
    act(overlay);
    let span = overlay.world.now().instant.saturating_since(start).as_secs_f64();
    let traffic = overlay.world.traffic.take().unwrap();
    let nodes = overlay.addresses.len() as f64;
    let total = |at| traffic.get(at).map_or(0, |kinds| kinds.values().sum::<u64>()) as f64 / span;
    let mut kinds = BTreeMap::new();
    for (kind, bytes) in traffic.values().flatten() {
        *kinds.entry(*kind).or_default() += *bytes as f64 / span / nodes;
    }
    Load { each: Sample::new(overlay.addresses.iter().map(total)), kinds }
}

/// What this thread holds in memory beside the images of disks.
fn held_by_nodes() -> isize {
    held() - image::held().cast_signed()
}

/// What each node holds beyond what was held before.
fn memory(overlay: &Overlay, before: isize) -> f64 {
    (held_by_nodes() - before) as f64 / overlay.addresses.len() as f64
}

/// Different pairs of running members.
fn pairs(running: usize, count: usize, rng: &mut ChaCha20Rng, fits: impl Fn(usize) -> bool) -> Vec<[usize; 2]> {
    let mut pairs = BTreeSet::new();
    while pairs.len() < count {
        let [from, to] = [(); 2].map(|()| 1 + (rng.next_u64() % (running as u64 - 1)) as usize);
        if from != to && fits(from) && fits(to) && !pairs.contains(&[to, from]) {
            pairs.insert([from, to]);
        }
    }
    pairs.into_iter().collect()
}

/// With how many others a running member has a session.
fn sessions_of(overlay: &Overlay, at: SocketAddr) -> usize {
    let now = overlay.world.now();
    overlay.world.host(at).node.peers(now).iter().filter(|peer| peer.session.is_some()).count()
}

fn sessions(overlay: &Overlay) -> usize {
    overlay.addresses.iter().map(|at| sessions_of(overlay, *at)).sum()
}

/// Has each pair say something both ways every few seconds.
fn converse(overlay: &mut Overlay, pairs: &[[usize; 2]], span: Duration) {
    let end = overlay.world.now().instant + span;
    while overlay.world.now().instant < end {
        for [from, to] in pairs {
            overlay.send(*from, *to, false);
            overlay.send(*to, *from, false);
            overlay.world.run_for(PACE / u32::try_from(pairs.len()).unwrap());
        }
    }
    forget_delivered(overlay);
}

/// What all pairs came to: how many are direct and should be, and for those that are relayed how much longer the way is than by the best relay.
fn judge(overlay: &Overlay, pairs: &[[usize; 2]]) -> (usize, usize, Sample<f64>) {
    let open = |number: usize| nat_of(number).is_none();
    let meets = |[from, to]: &[usize; 2]| match (nat_of(*from), nat_of(*to)) {
        (Some(one), Some(other)) => one.meets(other),
        _ => true,
    };
    let ways: Vec<_> = pairs.iter().map(|[from, to]| overlay.way(*from, *to)).collect();
    let direct = ways.iter().filter(|way| **way == Some(Reached::Directly)).count();
    let relays: Vec<_> = (0..overlay.addresses.len()).filter(|number| open(*number)).collect();
    let stretch = |([from, to], way): (&[usize; 2], &Option<Reached>)| {
        let Some(Reached::Through(relay)) = way else { return None };
        let taken = overlay.round_trip(&[*from, *relay, *to]);
        let best = relays.iter().map(|relay| overlay.round_trip(&[*from, *relay, *to])).min().unwrap();
        Some(taken.as_secs_f64() / best.as_secs_f64())
    };
    let stretches = pairs.iter().zip(&ways).filter_map(stretch);
    (direct, pairs.iter().filter(|pair| meets(pair)).count(), Sample::new(stretches))
}

/// The longest silence at a member of what another one sends every 20 ms, in a span.
fn gap(overlay: &Overlay, [from, to]: [usize; 2], span: [Instant; 2]) -> Duration {
    let source = overlay.node(from).overlay(false);
    let came = overlay.node(to).delivered.iter().filter(|delivered| delivered.packet.source == source);
    let mut moments: Vec<_> = came.map(|delivered| delivered.at).collect();
    moments.extend(span);
    moments.sort_unstable();
    moments.windows(2).map(|two| two[1].saturating_since(two[0])).max().unwrap()
}

/// Members that die and come again, while others talk.
struct Churn {
    flows: Vec<[usize; 2]>,
    dead: Vec<(usize, Instant, Machine)>,
    deaths: u32,
    gaps: Vec<Duration>,
}

impl Churn {
    fn new(overlay: &Overlay, rng: &mut ChaCha20Rng) -> Self {
        let running = overlay.addresses.len();
        let is_symmetric = |number: usize| nat_of(number) == Some(NatType::SYMMETRIC);
        let flows = pairs(running, 2 * running / 5, rng, is_symmetric);
        Self { flows, dead: Vec::new(), deaths: 0, gaps: Vec::new() }
    }

    /// Who dies next: a relay of somebody who talks as often as there are public hosts among those that may.
    fn next_victim(&self, overlay: &Overlay, rng: &mut ChaCha20Rng) -> usize {
        let through = |flow: &[usize; 2]| match overlay.way(flow[0], flow[1]) {
            Some(Reached::Through(relay)) => Some(relay),
            _ => None,
        };
        let relays: Vec<_> = self.flows.iter().filter_map(through).filter(|relay| *relay != 0).collect();
        let is_alive = |number: &usize| self.dead.iter().all(|(dead, ..)| dead != number);
        let others: Vec<_> = (1..overlay.addresses.len())
            .filter(|number| nat_of(*number) == Some(NatType::RESTRICTED) && is_alive(number))
            .collect();
        let choice = if self.deaths.is_multiple_of(8) && !relays.is_empty() { &relays } else { &others };
        choice[(rng.next_u64() % choice.len() as u64) as usize]
    }

    /// Lets one member die; if it passes something on, under a packet every 20 ms.
    fn kill(&mut self, overlay: &mut Overlay, victim: usize) {
        let is_concerned = |flow: &&[usize; 2]| overlay.way(flow[0], flow[1]) == Some(Reached::Through(victim));
        let concerned: Vec<_> = self.flows.iter().filter(is_concerned).copied().collect();
        forget_delivered(overlay);
        transfer(overlay, &concerned, BEFORE);
        let start = overlay.world.now().instant;
        self.deaths += 1;
        self.dead.push((victim, start + DEATH, overlay.kill(victim)));
        transfer(overlay, &concerned, AFTER);
        let end = overlay.world.now().instant;
        self.gaps.extend(concerned.iter().map(|flow| gap(overlay, *flow, [start, end])));
    }

    /// Goes on until `end`: those that are dead long enough live again, and those that talk say something.
    fn go_on(&mut self, overlay: &mut Overlay, end: Instant) {
        while overlay.world.now().instant < end {
            let now = overlay.world.now().instant;
            let is_due = |(_, at, _): &mut (usize, Instant, Machine)| *at <= now;
            for (_, _, machine) in self.dead.extract_if(.., is_due) {
                overlay.revive(machine);
            }
            converse(overlay, &self.flows, PACE.min(end.saturating_since(now)));
        }
    }
}

/// Sends a packet every 20 ms from the first to the second of each.
fn transfer(overlay: &mut Overlay, flows: &[[usize; 2]], span: Duration) {
    let end = overlay.world.now().instant + span;
    while !flows.is_empty() && overlay.world.now().instant < end {
        for [from, to] in flows {
            overlay.send(*from, *to, false);
        }
        overlay.world.run_for(PACKETS);
    }
}

fn forget_delivered(overlay: &mut Overlay) {
    for at in overlay.world.addresses() {
        overlay.world.with(at, |host, _| host.delivered.clear());
    }
}

/// Measures a network of so many members, until as many transfers lost their relay, and prints what there is to say of it.
fn measure(running: usize, failovers: usize, seed: u64) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    println!("== {running} members");
    let before = held_by_nodes();
    let mut overlay = Overlay::crowd(running, running, seed);
    overlay.world.run_for(SETTLING);
    count(&mut overlay, |overlay| overlay.world.run_for(IDLE)).print("idle");
    let (idle, idle_sessions) = (memory(&overlay, before), sessions(&overlay));
    println!("memory of a node, idle: {:.0} kB, {:.1} sessions", idle / 1e3, idle_sessions as f64 / running as f64);

    let talkers = pairs(running, PAIRS.min(4 * running), &mut rng, |_| true);
    let mut first = Vec::new();
    for [from, to] in &talkers {
        first.push(overlay.talk(*from, *to, false, PATIENCE).expect("everybody is reached").as_secs_f64());
    }
    let first = Sample::new(first);
    println!(
        "first packet: median {:.3} s, p99 {:.3} s, most {:.3} s",
        first.quantile(0.5),
        first.quantile(0.99),
        first.quantile(1.0)
    );
    converse(&mut overlay, &talkers, Duration::from_secs(30));
    count(&mut overlay, |overlay| converse(overlay, &talkers, TALK)).print("talking");
    let (active, active_sessions) = (memory(&overlay, before), sessions(&overlay));
    println!(
        "memory of a node, talking: {:.0} kB, {:.1} sessions: {:.1} kB each",
        active / 1e3,
        active_sessions as f64 / running as f64,
        (active - idle) * running as f64 / 1e3 / (active_sessions as f64 - idle_sessions as f64)
    );
    let (direct, possible, stretch) = judge(&overlay, &talkers);
    println!(
        "of {} pairs {possible} can be direct, {direct} are; stretch of {} relayed: median {:.2}, p90 {:.2}, most {:.2}",
        talkers.len(),
        stretch.0.len(),
        stretch.quantile(0.5),
        stretch.quantile(0.9),
        stretch.quantile(1.0)
    );

    let mut churn = Churn::new(&overlay, &mut rng);
    let interval = Duration::from_secs(3600) * 1000 / CHURN / u32::try_from(running).unwrap();
    converse(&mut overlay, &churn.flows, Duration::from_secs(30));
    let load = count(&mut overlay, |overlay| {
        while churn.gaps.len() < failovers {
            let next = overlay.world.now().instant + interval;
            let victim = churn.next_victim(overlay, &mut rng);
            churn.kill(overlay, victim);
            churn.go_on(overlay, next);
        }
    });
    load.print("churn");
    let gaps = Sample::new(churn.gaps.iter().map(Duration::as_secs_f64));
    println!(
        "{} deaths; {} transfers lost their relay: p50 {:.3} s, p99 {:.3} s, most {:.3} s",
        churn.deaths,
        gaps.0.len(),
        gaps.quantile(0.5),
        gaps.quantile(0.99),
        gaps.quantile(1.0)
    );
    assert!(gaps.quantile(0.99) < 1.0, "{:?}", gaps.0);
}

/// Measures what so many members cost, of whom few run here, and the others are known by their records, which change as everybody's do.
fn measure_among(members: usize, running: usize, seed: u64) {
    println!("== {running} members among {members}");
    let before = held_by_nodes();
    let mut overlay = Overlay::crowd(members, running, seed);
    overlay.world.run_for(Duration::from_secs(60));
    let early = memory(&overlay, before);
    let mut absent = Absent::of(&overlay, members, seed);
    let took = absent.tell_all(&mut overlay, SETTLING).expect("everybody learns all records");
    println!("all records known everywhere after {took:?}");
    absent.next = overlay.world.now().instant;
    let mut pass = |overlay: &mut Overlay, span: Duration| {
        let end = overlay.world.now().instant + span;
        while overlay.world.now().instant < end {
            absent.tick(overlay);
            overlay.world.run_for(Duration::from_millis(500));
        }
    };
    pass(&mut overlay, SETTLING);
    count(&mut overlay, |overlay| pass(overlay, IDLE)).print("idle, records of all at 30 % an hour");
    let late = memory(&overlay, before);
    println!(
        "memory of a node: {:.0} kB; {:.2} kB for each record, {:.1} sessions",
        late / 1e3,
        (late - early) / 1e3 / (members - running) as f64,
        sessions(&overlay) as f64 / running as f64
    );
}

#[test]
fn who_uses_nothing_says_little() {
    let mut overlay = Overlay::crowd(20, 20, 7010);
    overlay.world.run_for(Duration::from_secs(240));
    let before = overlay.world.wakeups;
    let load = count(&mut overlay, |overlay| overlay.world.run_for(Duration::from_secs(240)));
    load.print("idle");
    assert!(load.mean() < 1000.0, "{} bytes a second and node", load.mean());
    let wakeups = (overlay.world.wakeups - before) as f64 / 240.0 / 20.0;
    println!("{wakeups:.1} wakeups a second and node");
    assert!(wakeups < 4.0, "{wakeups} wakeups a second and node");
}

#[test]
fn who_knows_one_member_alone_finds_neighbours_though_most_members_are_away() {
    let mut overlay = Overlay::crowd(60, 20, 7011);
    overlay.world.run_for(Duration::from_secs(120));
    for at in overlay.world.addresses() {
        assert!(sessions_of(&overlay, at) >= NEIGHBOURS, "{at}: {}", sessions_of(&overlay, at));
    }
}

#[test]
fn where_hardly_anybody_is_there_each_is_told_who_is_and_nobody_hangs_on_one_alone() {
    let mut overlay = Overlay::crowd(600, 12, 7014);
    overlay.world.run_for(Duration::from_secs(60));
    assert!(Absent::of(&overlay, 600, 7014).tell_all(&mut overlay, ROUNDS).is_some());
    overlay.world.run_for(Duration::from_secs(120));
    for at in overlay.world.addresses() {
        assert!(sessions_of(&overlay, at) >= NEIGHBOURS, "{at}: {}", sessions_of(&overlay, at));
    }
}

#[test]
fn what_one_member_is_told_of_many_who_are_away_all_others_learn_though_each_tries_to_reach_them() {
    let mut overlay = Overlay::crowd(600, 12, 1);
    overlay.world.run_for(Duration::from_secs(60));
    let took = Absent::of(&overlay, 600, 7012).tell_all(&mut overlay, ROUNDS);
    assert!(took.is_some());
}

#[test]
fn a_record_that_changed_is_soon_known_to_almost_everybody_and_to_the_rest_by_comparing() {
    let (members, running) = (70, 50);
    let mut overlay = Overlay::crowd(members, running, 7015);
    overlay.world.run_for(Duration::from_secs(120));
    let mut absent = Absent::of(&overlay, members, 7015);
    let mut times = Vec::new();
    for number in absent.numbers.clone() {
        let id = overlay.machine(number).id();
        absent.tell(&mut overlay, number, Duration::ZERO, number % running);
        let start = overlay.world.now().instant;
        let mut unaware = overlay.world.addresses();
        while !unaware.is_empty() {
            overlay.world.run_for(Duration::from_millis(250));
            let span = overlay.world.now().instant.saturating_since(start);
            let knows =
                |at: &SocketAddr| overlay.world.host(*at).node.known_endpoints().iter().any(|(of, _)| *of == id);
            times.extend(unaware.extract_if(.., |at| knows(at)).map(|_| span.as_secs_f64()));
        }
    }
    let times = Sample::new(times);
    println!(
        "known after: median {:.2} s, p90 {:.2} s, p99 {:.2} s, most {:.2} s",
        times.quantile(0.5),
        times.quantile(0.9),
        times.quantile(0.99),
        times.quantile(1.0)
    );
    assert!(times.quantile(0.9) < 3.0 && times.quantile(1.0) < 45.0);
}

/// How many members a measurement is of: as `P2PLUS_MEMBERS` says, or so many. A hundred take six minutes, and ten thousand of whom a hundred run more than an hour.
fn members(usual: usize) -> usize {
    std::env::var("P2PLUS_MEMBERS").map_or(usual, |text| text.parse().expect("a number of members, 50 or more"))
}

#[test]
#[ignore = "minutes: run by scripts/test.sh --all, prints figures of docs/reachability.md"]
fn what_a_network_costs() {
    measure(members(100), 20, 7001);
}

#[test]
#[ignore = "minutes: run by scripts/test.sh --all, prints figures of docs/reachability.md"]
fn what_a_node_costs_among_many() {
    let members = members(3000);
    measure_among(members, members / 100, 7003);
}
