//! A member that lies: its session is real, what it seals is not.

use crate::overlay::{Overlay, PATIENCE};
use crate::packet::UdpPacket;
use crate::world::Weather;
use p2plus::node::Underlay;
use p2plus::wire::datagram::Lane;
use p2plus::wire::drops::DropReason;
use p2plus::wire::transport_record::{RECORD_CONTROL, RECORD_PACKET, RECORD_STREAM};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::net::SocketAddr;
use std::time::Duration;

/// Three members; 2 is the liar, and has a session with 1.
fn with_liar(seed: u64) -> Overlay {
    let mut overlay = Overlay::of(3, seed, Weather::FAIR);
    overlay.talk(2, 1, false, PATIENCE).unwrap();
    overlay.world.run_for(Duration::from_secs(1));
    overlay
}

fn lie(overlay: &mut Overlay, lane: u8, records: &[Vec<u8>]) {
    let (victim, liar) = (overlay.id(1), overlay.addresses[2]);
    let sent = overlay.world.with(liar, |host, now| host.send_record(now, &victim, Lane::new(lane, 0), records));
    assert!(sent, "the liar has a session and a lane of its own");
    overlay.world.run_for(Duration::from_secs(1));
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind], content].concat()
}

fn random_bytes(rng: &mut ChaCha20Rng, longest: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(rng.next_u64() % longest).unwrap()];
    rng.fill_bytes(&mut bytes);
    bytes
}

#[test]
fn a_member_cannot_send_from_an_address_that_is_not_its_own() {
    for seed in 70..73 {
        let mut overlay = with_liar(seed);
        let before = overlay.node(1).delivered.len();
        let mut forged = Vec::new();
        for is_v6 in [false, true] {
            let destination = overlay.node(1).overlay(is_v6);
            let stranger = if is_v6 { "fd00::1" } else { "192.168.7.7" }.parse().unwrap();
            for source in [overlay.node(0).overlay(is_v6), destination, stranger] {
                let packet = UdpPacket { source, destination, payload: b"forged".to_vec() };
                forged.push(record(RECORD_PACKET, &packet.encode()));
            }
        }
        let count = forged.len() as u64;
        let dropped = overlay.node(1).dropped(DropReason::SourceNotPeers);
        lie(&mut overlay, 2, &forged);
        assert_eq!(overlay.node(1).dropped(DropReason::SourceNotPeers) - dropped, count, "each counted by its name");

        // Its own source, but for somebody else: no member is a router by itself.
        let [source, destination] = [2, 0].map(|number| overlay.node(number).overlay(false));
        let misled = UdpPacket { source, destination, payload: b"misled".to_vec() };
        lie(&mut overlay, 3, &[record(RECORD_PACKET, &misled.encode())]);
        assert_eq!(overlay.node(1).dropped(DropReason::DestinationNotOurs), 1);
        assert_eq!(overlay.node(1).delivered.len(), before, "nothing of it reached the device");
        assert!(overlay.talk(2, 1, true, PATIENCE).is_some(), "what is true still passes");
    }
}

#[test]
fn garbage_inside_a_true_session_is_dropped_and_leaves_nothing_behind() {
    for seed in 80..83 {
        let mut overlay = with_liar(seed);
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let before = overlay.node(1).delivered.len();
        let mut garbage: Vec<Vec<u8>> = (0..=255).map(|kind| record(kind, b"whatever")).collect();
        for kind in [RECORD_PACKET, RECORD_CONTROL, RECORD_STREAM] {
            garbage.extend((0..400).map(|_| record(kind, &random_bytes(&mut rng, 1500))));
            // Valid beginnings of control messages, then noise.
            garbage.extend((0..100).map(|tag| record(kind, &[&[tag % 6], &random_bytes(&mut rng, 200)[..]].concat())));
        }
        let count =
            |overlay: &Overlay| DropReason::ALL.map(|reason| overlay.node(1).dropped(reason)).iter().sum::<u64>();
        let dropped = count(&overlay);
        lie(&mut overlay, 2, &garbage);
        assert_eq!(overlay.node(1).delivered.len(), before);
        assert!(count(&overlay) - dropped >= garbage.len() as u64 * 9 / 10, "dropped by name, not swallowed");
        // One goodbye among the noise may have closed the session: the next packet makes another.
        assert!(overlay.talk(1, 2, false, PATIENCE).is_some());
        assert!(overlay.talk(2, 1, true, PATIENCE).is_some());
        assert!(overlay.talk(0, 1, true, PATIENCE).is_some());
    }
}

#[test]
fn a_member_that_gives_out_a_victims_address_sends_it_a_bounded_trickle() {
    // Eight attempts' worth at once and one more every two minutes, of each of the two that keep the liar close.
    const MOST: usize = 2 * (64_000 + 30 * 8000);
    let mut overlay = with_liar(96);
    let victim = SocketAddr::from(([203, 0, 113, 5], 53));
    let underlay = Underlay { endpoints: vec![victim], connected: Vec::new() };
    overlay.order(2, |node, now| node.handle_underlay(now, underlay));
    overlay.world.run_for(Duration::from_secs(5));
    let liar = overlay.kill(2);
    overlay.world.wire = Some(Vec::new());
    overlay.world.run_for(Duration::from_secs(3600));
    let wire = overlay.world.wire.take().unwrap();
    let bytes: usize =
        wire.iter().filter(|sighting| sighting.to == victim).map(|sighting| sighting.datagram.len()).sum();
    assert!(bytes > 2 * 7260 && bytes <= MOST, "{bytes} bytes in an hour");
    overlay.revive(liar);
    assert!(overlay.talk(1, 2, false, PATIENCE).is_some(), "where it answered before, it is found");
}

#[test]
fn ledger_and_gossip_messages_of_noise_change_nothing() {
    for seed in 90..93 {
        let mut overlay = with_liar(seed);
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let head = overlay.node(1).node.ledger().head().unwrap().id;
        let messages = (0u8..12).flat_map(|tag| (0..40).map(move |_| tag));
        let records: Vec<_> = messages
            .map(|tag| {
                let message = [&[tag], &random_bytes(&mut rng, 900)[..]].concat();
                let ledger = p2plus::wire::control::ControlMessage::Ledger(message);
                record(RECORD_CONTROL, &ledger.encode())
            })
            .collect();
        lie(&mut overlay, 2, &records);
        assert_eq!(overlay.node(1).node.ledger().head().unwrap().id, head);
        assert_eq!(overlay.node(1).node.ledger().pending().len(), 0);
        assert_eq!(overlay.node(1).node.policy().members().count(), 3);
        assert!(overlay.talk(1, 0, true, PATIENCE).is_some());
    }
}
