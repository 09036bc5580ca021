//! What is found on a LAN is a place to try: it brings members together that nothing else does, and whoever lies there gets little.

use crate::overlay::{Overlay, PATIENCE};
use crate::world::Weather;
use p2plus::node::Underlay;
use p2plus::wire::prefix::Prefix;
use std::net::SocketAddr;
use std::time::Duration;

/// What two members that stand alone are tried for.
const IN_VAIN: Duration = Duration::from_secs(40);

/// Where the second one is afterwards.
const MOVED: ([u8; 4], u16) = ([192, 0, 2, 200], 4647);

/// Nodes 1 and 3 of a network whose others are gone. They know nothing of each other but their names, and node 3 is at [`MOVED`].
fn strangers(seed: u64) -> Overlay {
    let mut overlay = Overlay::of(4, seed, Weather::FAIR);
    let [_, mut one, _, mut three] = [0, 1, 2, 3].map(|number| overlay.kill(number));
    one.remember(Vec::new());
    three.remember(Vec::new());
    three.address = MOVED.into();
    overlay.addresses[3] = three.address;
    overlay.revive(one);
    overlay.revive(three);
    overlay
}

/// Says where a node's LAN is.
fn connect(overlay: &mut Overlay, number: usize) {
    let endpoints = vec![overlay.addresses[number]];
    let connected = vec![Prefix::new([192, 0, 2, 0].into(), 24).unwrap()];
    overlay.order(number, |node, now| node.handle_underlay(now, Underlay { endpoints, connected }));
}

#[test]
fn a_neighbour_is_reached_once_it_was_found_and_only_on_a_connected_prefix() {
    let mut overlay = strangers(41);
    let (id, place) = (overlay.id(3), [SocketAddr::from(MOVED)]);
    assert_eq!(overlay.talk(1, 3, false, IN_VAIN), None, "nobody told where it is");
    overlay.order(1, |node, now| node.handle_neighbour(now, id, &place));
    assert_eq!(overlay.talk(1, 3, false, IN_VAIN), None, "this host is on no such LAN");
    connect(&mut overlay, 1);
    overlay.order(1, |node, now| node.handle_neighbour(now, id, &place));
    assert!(overlay.talk(1, 3, false, PATIENCE).is_some());
}

#[test]
fn who_claims_to_be_a_member_at_ever_other_places_gets_few_bytes_there() {
    let mut overlay = strangers(42);
    connect(&mut overlay, 1);
    let id = overlay.id(3);
    overlay.world.wire = Some(Vec::new());
    let packet = overlay.packet(1, 3, false);
    for second in 0..600_u16 {
        let lies: Vec<SocketAddr> =
            (0..8).map(|place| ([192, 0, 2, 100 + place as u8], 1000 + second).into()).collect();
        overlay.order(1, |node, now| node.handle_neighbour(now, id, &lies));
        // A packet for the member, so that it is looked for all the time.
        let from = overlay.addresses[1];
        overlay.world.with(from, |host, now| host.send(now, &packet));
        overlay.world.run_for(Duration::from_secs(1));
    }
    let wire = overlay.world.wire.take().unwrap();
    let lied_to = wire.iter().filter(|sighting| sighting.to.port() != MOVED.1);
    let bytes: usize = lied_to.map(|sighting| sighting.datagram.len()).sum();
    assert!(bytes > 0, "it is tried");
    // What eight places get that nobody proved, however many are named: at once, and every two minutes.
    assert!(bytes <= 8 * (64_000 + 5 * 8000), "{bytes} bytes in ten minutes");
}
