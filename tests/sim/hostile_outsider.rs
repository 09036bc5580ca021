//! Somebody on the wire who holds no key: replays, flips, cuts, invents.

use crate::machine::SimNode;
use crate::overlay::{Overlay, PATIENCE};
use crate::world::{Sighting, Weather};
use p2plus::node::status::Way;
use p2plus::wire::control::ControlMessage;
use p2plus::wire::datagram::{TRANSPORT_OVERHEAD, TYPE_TRANSPORT};
use p2plus::wire::transport_record::RECORD_HEADER_LEN;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Where the attacker listens.
fn attacker(last: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, last], 666))
}

/// Three members that have talked in all directions, and everything that passed on the wire since the founding.
fn observed(seed: u64, weather: Weather) -> (Overlay, Vec<Sighting>) {
    let mut overlay = Overlay::found(seed, weather);
    overlay.world.wire = Some(Vec::new());
    overlay.invite_one();
    overlay.invite_one();
    overlay.wait_for_everybody();
    for (from, to) in [(1, 2), (2, 1), (0, 1), (2, 0)] {
        overlay.talk(from, to, from == 1, PATIENCE).unwrap();
        (0..20).for_each(|_| drop(overlay.send(from, to, to == 1)));
    }
    overlay.world.run_for(Duration::from_secs(1));
    let wire = overlay.world.wire.take().unwrap();
    overlay.world.weather = Weather::FAIR;
    (overlay, wire)
}

fn delivered(overlay: &Overlay) -> usize {
    overlay.world.addresses().iter().map(|at| overlay.world.host(*at).delivered.len()).sum()
}

/// Runs on, and asserts that no address of the attacker got more bytes than it sent.
fn assert_no_amplification(overlay: &mut Overlay, sent: &BTreeMap<SocketAddr, usize>, span: Duration) -> usize {
    overlay.world.run_for(span);
    let mut got: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for sighting in overlay.world.wire.take().unwrap() {
        if sent.contains_key(&sighting.to) {
            *got.entry(sighting.to).or_default() += sighting.datagram.len();
        }
    }
    for (address, bytes) in &got {
        assert!(*bytes <= sent[address], "{address} sent {} bytes and got {bytes}", sent[address]);
    }
    got.values().sum()
}

/// Sends everything again, from where it came, then from elsewhere.
fn replay(overlay: &mut Overlay, wire: &[Sighting], elsewhere: SocketAddr) -> BTreeMap<SocketAddr, usize> {
    let mut sent: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for (place, sighting) in wire.iter().enumerate() {
        overlay.world.inject(sighting.from, sighting.to, sighting.datagram.clone());
        overlay.world.inject(elsewhere, sighting.to, sighting.datagram.clone());
        *sent.entry(elsewhere).or_default() += sighting.datagram.len();
        if place % 50 == 0 {
            overlay.world.run_for(Duration::from_millis(50));
        }
    }
    overlay.world.run_for(Duration::from_millis(50));
    sent
}

#[test]
fn replaying_all_that_was_ever_seen_delivers_nothing_and_earns_no_more_than_it_costs() {
    for seed in 100..103 {
        // Nothing is lost: a packet that was lost and comes by an attacker's hand is just late.
        let (mut overlay, wire) = observed(seed, Weather::FAIR);
        let before = delivered(&overlay);
        // At once; past the memory of seen handshakes; after a restart of everybody.
        for (round, pause) in [0, 300, 5].into_iter().enumerate() {
            if round == 2 {
                let machines = [0, 1, 2].map(|number| overlay.kill(number));
                machines.into_iter().for_each(|machine| overlay.revive(machine));
            }
            overlay.world.run_for(Duration::from_secs(pause));
            overlay.world.wire = Some(Vec::new());
            let elsewhere = attacker(round as u8 + 1);
            let sent = replay(&mut overlay, &wire, elsewhere);
            for number in 0..3 {
                let peers = overlay.node(number).node.peers(overlay.world.now());
                assert!(
                    peers.iter().all(|peer| peer.way != Some(Way::Direct(elsewhere))),
                    "the path moved to the attacker"
                );
            }
            assert_no_amplification(&mut overlay, &sent, Duration::from_secs(20));
            let now = if round == 2 { 0 } else { before };
            assert_eq!(delivered(&overlay), now, "seed {seed}, round {round}: something was delivered");
        }
        assert!(overlay.talk(1, 2, true, PATIENCE).is_some());
        overlay.assert_no_duplicates();
    }
}

/// Lets two members talk for ten seconds while an attacker sends a copy of each of their datagrams ahead of it; one that relays carries
/// on what comes to itself as well. Returns that, after a look at the overlay every few milliseconds.
fn talk_beside_an_attacker(overlay: &mut Overlay, relays: bool, look: impl Fn(&Overlay)) -> Vec<Sighting> {
    let ends = [overlay.addresses[1], overlay.addresses[2]];
    overlay.world.wire = Some(Vec::new());
    overlay.world.latency_of_injected = Duration::from_millis(1);
    let mut caught = Vec::new();
    let end = overlay.world.now().instant + Duration::from_secs(10);
    while overlay.world.now().instant < end {
        overlay.send(1, 2, false);
        overlay.send(2, 1, true);
        let seen = std::mem::take(overlay.world.wire.as_mut().unwrap());
        for sighting in seen.into_iter().filter(|sighting| ends.contains(&sighting.from)) {
            let other = ends[usize::from(sighting.from == ends[0])];
            let is_caught = sighting.to == attacker(9);
            if sighting.to == other || is_caught && relays {
                overlay.world.inject(attacker(9), other, sighting.datagram.clone());
            }
            caught.extend(Some(sighting).filter(|_| is_caught));
        }
        overlay.world.run_for(Duration::from_millis(5));
        look(overlay);
    }
    overlay.world.wire = None;
    caught
}

/// Where two members send what is for each other.
fn paths(overlay: &Overlay) -> [Option<Way>; 2] {
    let now = overlay.world.now().instant;
    [(1, 2), (2, 1)].map(|(from, to)| overlay.node(from).node.peer_status(now, &overlay.member(to)).way)
}

#[test]
fn whoever_sends_copies_ahead_of_the_originals_gets_probes_and_no_path() {
    for seed in 104..107 {
        let mut overlay = Overlay::of(3, seed, Weather::FAIR);
        for (from, to) in [(1, 2), (2, 1)] {
            overlay.talk(from, to, false, PATIENCE).unwrap();
        }
        let before = [2, 1].map(|number| Some(Way::Direct(overlay.addresses[number])));
        let probes = talk_beside_an_attacker(&mut overlay, false, |overlay| assert_eq!(paths(overlay), before));
        overlay.assert_no_duplicates();
        // One a second from each end.
        assert!((2..=22).contains(&probes.len()), "seed {seed}: {}", probes.len());
        let len = TRANSPORT_OVERHEAD + RECORD_HEADER_LEN + ControlMessage::probe(0, false).encode().len();
        let is_probe = |sighting: &Sighting| sighting.datagram[0] == TYPE_TRANSPORT && sighting.datagram.len() == len;
        assert!(probes.iter().all(is_probe), "seed {seed}: {probes:?}");
    }
}

#[test]
fn whoever_relays_both_ways_faster_than_the_direct_path_carries_until_it_stops_and_is_left_within_ten_seconds() {
    for seed in 104..107 {
        let mut overlay = Overlay::of(3, seed, Weather::FAIR);
        overlay.talk(1, 2, false, PATIENCE).unwrap();
        let caught = talk_beside_an_attacker(&mut overlay, true, |_| {});
        assert_eq!(paths(&overlay), [9; 2].map(|last| Some(Way::Direct(attacker(last)))), "seed {seed}");
        assert!(caught.len() > 1000, "seed {seed}: {}", caught.len());
        // The attacker vanishes, and with it the path that answered: both ends look for each other by themselves.
        for (from, to) in [(1, 2), (2, 1)] {
            let took = overlay.talk(from, to, false, PATIENCE).unwrap();
            assert!(took < Duration::from_secs(10), "seed {seed}: {took:?}");
        }
        overlay.assert_no_duplicates();
    }
}

#[test]
fn flipped_cut_and_invented_datagrams_are_silently_dropped() {
    for seed in 110..113 {
        let (mut overlay, wire) = observed(seed, Weather::foul(5));
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let before = delivered(&overlay);
        overlay.world.wire = Some(Vec::new());
        let mut sent: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        let mut hurl = |overlay: &mut Overlay, to: SocketAddr, datagram: Vec<u8>| {
            *sent.entry(attacker(1)).or_default() += datagram.len();
            overlay.world.inject(attacker(1), to, datagram);
            overlay.world.run_for(Duration::from_micros(500));
        };
        for sighting in &wire {
            let mut flipped = sighting.datagram.clone();
            let bit = usize::try_from(rng.next_u64()).unwrap() % (flipped.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            hurl(&mut overlay, sighting.to, flipped);
            let cut = usize::try_from(rng.next_u64()).unwrap() % sighting.datagram.len();
            hurl(&mut overlay, sighting.to, sighting.datagram[..cut].to_vec());
            hurl(&mut overlay, sighting.to, [&sighting.datagram[..], &[0]].concat());
        }
        let lengths = (0..2000).chain([9000, 65_507]);
        for len in lengths {
            let mut invented = vec![0; len];
            rng.fill_bytes(&mut invented);
            if let Some(first) = invented.first_mut().filter(|_| len % 2 == 0) {
                *first = [1, 2, 3, 4, 6, 0x10][len / 2 % 6];
            }
            let to = overlay.addresses[len % 3];
            hurl(&mut overlay, to, invented);
        }
        let answered = assert_no_amplification(&mut overlay, &sent, Duration::from_secs(20));
        // A flipped bit in mac2 or behind mac1 of a guest's first message is still worth a cookie; nothing else is.
        assert!(answered <= 64 * wire.len() / 100, "{answered} bytes for strangers");
        assert_eq!(delivered(&overlay), before, "seed {seed}");
        for number in 0..3 {
            let now = overlay.world.now();
            let strangers = overlay.node(number).node.known_endpoints().len();
            assert!(strangers <= 2 && overlay.node(number).node.peers(now).len() == 2);
        }
        let sound = |host: &SimNode| host.stopped.is_none();
        assert!(overlay.world.addresses().iter().all(|at| sound(overlay.world.host(*at))));
        assert!(overlay.talk(2, 1, false, PATIENCE).is_some());
    }
}

#[test]
fn forged_packets_do_not_spoil_a_session_in_use() {
    let (mut overlay, wire) = observed(115, Weather::foul(5));
    let transport: Vec<_> = wire.iter().filter(|sighting| sighting.datagram[0] == 0x10).cloned().collect();
    // Counters far ahead: were one believed, everything that follows would be too old.
    for sighting in &transport {
        let mut forged = sighting.datagram.clone();
        forged[8..14].copy_from_slice(&[0xff, 0xff, 0xff, 0, 0, 0]);
        overlay.world.inject(sighting.from, sighting.to, forged);
    }
    overlay.world.run_for(Duration::from_secs(1));
    for (from, to) in [(1, 2), (2, 1), (0, 1)] {
        let packet = overlay.send(from, to, true);
        overlay.world.run_for(Duration::from_secs(1));
        assert_eq!(overlay.received(to, &packet), 1, "{from} → {to}");
    }
}
