//! Keys that change while packets pass, for hours.

use crate::overlay::Overlay;
use crate::packet::UdpPacket;
use crate::world::Weather;
use p2plus::node::forward::{HEADROOM, TAILROOM};
use p2plus::node::peers::Holdings;
use p2plus::session::rekey::MAX_SESSIONS;
use p2plus::session::seal::MAX_AGE;
use p2plus::wire::datagram::{Datagram, SessionIndex};
use p2plus::wire::drops::DropReason;
use p2plus::wire::relay::{ENVELOPE_LEN, MAX_HOPS};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// How long these networks run.
const SPAN: Duration = Duration::from_secs(6 * 3600);

/// Inner packets of the test are this long, and nothing else that is sealed is: so a lost one is known on the wire by its length.
const PACKET_LEN: usize = 397;

/// Indices of handshakes that have not come to a session yet, at any moment: an attempt each way and those that were given up lately.
const MAX_OPENING: usize = 8;

/// Who sends when.
#[derive(Clone, Copy, Debug)]
enum Traffic {
    /// One packet a second each way.
    Steady,
    /// Up to twenty packets at once, then nothing for up to ten minutes.
    Bursty,
}

/// What was given to the devices, what came out of them, and what the wire showed meanwhile.
struct Observer {
    overlay: Overlay,
    /// Given to a device, and not come out of one yet.
    missing: BTreeSet<UdpPacket>,
    given: usize,
    sealed: usize,
    /// What the weather took, by receiver, lane and counter, and what a relay's copy of arrived.
    lost: BTreeSet<(SessionIndex, u8, u64)>,
    arrived: BTreeSet<(SessionIndex, u8, u64)>,
    nonces: BTreeMap<(SocketAddr, SocketAddr, SessionIndex), BTreeSet<(u8, u64)>>,
}

impl Observer {
    fn new(count: usize, seed: u64, weather: Weather) -> Self {
        let mut overlay = Overlay::of(count, seed, weather);
        // Until everybody knows where everybody is.
        overlay.world.run_for(Duration::from_secs(20));
        overlay.world.wire = Some(Vec::new());
        Self {
            overlay,
            missing: BTreeSet::new(),
            given: 0,
            sealed: 0,
            lost: BTreeSet::new(),
            arrived: BTreeSet::new(),
            nonces: BTreeMap::new(),
        }
    }

    fn send(&mut self, from: usize, to: usize) {
        let mut packet = self.overlay.packet(from, to, false);
        let header_len = packet.encode().len() - packet.payload.len();
        packet.payload.resize(PACKET_LEN - header_len, 0);
        let at = self.overlay.addresses[from];
        self.overlay.world.with(at, |host, now| host.send(now, &packet));
        self.given += 1;
        self.missing.insert(packet);
    }

    /// Lets a second pass, and looks at everything.
    fn pass_a_second(&mut self) {
        self.overlay.world.run_for(Duration::from_secs(1));
        self.look_at_the_wire();
        self.look_at_the_devices();
        self.look_at_the_sessions();
    }

    /// No nonce of a key leaves twice. A key is known by who uses it, towards whom, under which index.
    fn look_at_the_wire(&mut self) {
        for sighting in self.overlay.world.wire.as_mut().unwrap().drain(..) {
            // What a relay passes on was seen when it came to the relay.
            let (is_first, inside) = match Datagram::classify(&sighting.datagram) {
                Ok(Datagram::Relayed(envelope)) => (envelope.hops == MAX_HOPS, &sighting.datagram[ENVELOPE_LEN..]),
                _ => (true, &sighting.datagram[..]),
            };
            let Ok(Datagram::Transport(header)) = Datagram::classify(inside) else { continue };
            let is_packet = inside.len() == HEADROOM + PACKET_LEN + TAILROOM;
            let name = (header.receiver, header.lane.0, header.counter.0);
            if is_packet && sighting.is_lost && !self.arrived.contains(&name) {
                self.lost.insert(name);
            } else if is_packet && !sighting.is_lost && !is_first {
                // Of a copy that was lost behind the relay, there was another one.
                self.lost.remove(&name);
                self.arrived.insert(name);
            }
            if !is_first {
                continue;
            }
            let key = (sighting.from, sighting.to, header.receiver);
            let is_new = self.nonces.entry(key).or_default().insert((header.lane.0, header.counter.0));
            assert!(is_new, "a nonce came twice: {key:?} {header:?}");
            self.sealed += usize::from(is_packet);
        }
    }

    /// What comes out of a device went into another one, and comes once.
    fn look_at_the_devices(&mut self) {
        for at in self.overlay.addresses.clone() {
            for delivered in self.overlay.world.with(at, |host, _| std::mem::take(&mut host.delivered)) {
                assert!(self.missing.remove(&delivered.packet), "twice, or never sent: {:?}", delivered.packet);
            }
        }
    }

    /// Says whether every node holds sessions and nothing else: no handshake is under way, and none left an index behind.
    fn is_at_rest(&self) -> bool {
        self.overlay.addresses.iter().all(|at| {
            let Holdings { sessions, owners, indices, half_open, .. } = self.overlay.world.host(*at).node.holdings();
            (owners, indices, half_open) == (sessions, sessions, 0)
        })
    }

    fn look_at_the_sessions(&self) {
        let now = self.overlay.world.now().instant;
        for at in &self.overlay.addresses {
            let table = &self.overlay.world.host(*at).table;
            let holdings = self.overlay.world.host(*at).node.holdings();
            let most = (self.overlay.addresses.len() - 1) * MAX_SESSIONS;
            assert!(holdings.sessions <= most && holdings.indices <= most + MAX_OPENING, "{holdings:?} at {at}");
            for inlet in table.inlets.values() {
                let age = now.saturating_since(inlet.session.created());
                assert!(age <= MAX_AGE, "a session of {age:?} at {at}");
            }
        }
    }
}

/// Passes packets for [`SPAN`]. Returns how many keys were used altogether.
fn pass_packets(count: usize, seed: u64, weather: Weather, traffic: Traffic) -> usize {
    let mut observer = Observer::new(count, seed, weather);
    let pairs: Vec<_> = (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).collect();
    let pairs: Vec<_> = pairs.into_iter().filter(|(from, to)| from != to).collect();
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut next_burst = vec![0; pairs.len()];
    for second in 0..SPAN.as_secs() {
        for (place, (from, to)) in pairs.iter().enumerate() {
            let packets = match traffic {
                Traffic::Steady => 1,
                Traffic::Bursty if second == next_burst[place] => {
                    next_burst[place] = second + 1 + rng.next_u64() % 600;
                    1 + rng.next_u64() % 20
                }
                Traffic::Bursty => 0,
            };
            (0..packets).for_each(|_| observer.send(*from, *to));
        }
        observer.pass_a_second();
    }
    for _ in 0..30 {
        observer.pass_a_second();
    }
    let mut seconds = 0;
    while !observer.is_at_rest() {
        observer.pass_a_second();
        seconds += 1;
        assert!(seconds < 60, "seed {seed}: something is left over");
    }
    let Observer { overlay, missing, given, sealed, lost, nonces, .. } = &observer;
    assert_eq!(given, sealed, "seed {seed}: each packet is sealed, and once");
    assert_eq!(missing.len(), lost.len(), "seed {seed}: what is missing is what the weather took");
    for number in 0..count {
        for reason in [DropReason::StagingFull, DropReason::NoPath, DropReason::SessionExpired] {
            assert_eq!(overlay.node(number).dropped(reason), 0, "seed {seed}: {reason:?} at node {number}");
        }
    }
    println!("{count} nodes, {traffic:?}, {weather:?}: {given} given, {} lost, {} keys", lost.len(), nonces.len());
    nonces.len()
}

#[test]
fn in_six_hours_of_steady_traffic_rekeys_lose_and_repeat_nothing() {
    for (count, seed, weather) in [(2, 300, Weather::foul(2)), (3, 301, Weather::foul(5))] {
        let keys = pass_packets(count, seed, weather, Traffic::Steady);
        let pairs = count * (count - 1);
        let least = usize::try_from(SPAN.as_secs() / MAX_AGE.as_secs()).unwrap() * pairs;
        assert!(keys > least, "{keys} keys in six hours");
    }
}

#[test]
fn in_six_hours_of_bursts_sessions_end_and_begin_and_lose_and_repeat_nothing() {
    for (count, seed, weather) in [(2, 310, Weather::foul(2)), (3, 311, Weather::foul(5))] {
        pass_packets(count, seed, weather, Traffic::Bursty);
    }
}
