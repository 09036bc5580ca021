//! What is carried never shows on the wire.

use crate::overlay::{Overlay, PATIENCE};
use crate::world::Weather;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::HashSet;
use std::time::Duration;

#[test]
fn a_thousand_secret_markers_never_appear_on_the_wire() {
    let mut overlay = Overlay::found(120, Weather::foul(5));
    overlay.world.wire = Some(Vec::new());
    overlay.invite_one();
    overlay.invite_one();
    overlay.wait_for_everybody();
    overlay.talk(1, 2, false, PATIENCE).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(120);
    let mut markers = HashSet::new();
    for turn in 0..1000 {
        let (from, to) = [(0, 1), (1, 2), (2, 0), (2, 1)][turn % 4];
        let mut marker = [0; 32];
        rng.fill_bytes(&mut marker);
        markers.insert(marker);
        let mut packet = overlay.packet(from, to, turn % 3 == 0);
        packet.payload = marker.to_vec();
        overlay.world.with(overlay.addresses[from], |host, now| host.send(now, &packet));
        overlay.world.run_for(Duration::from_millis(200));
    }
    let arrived = |number| overlay.node(number).delivered.iter().filter(|got| is_marker(&markers, &got.packet.payload));
    let arrived: usize = (0..3).map(|number| arrived(number).count()).sum();
    assert!(arrived > 900, "{arrived} arrived: the search below would look in vain");
    let wire = overlay.world.wire.take().unwrap();
    let shows = |bytes: &[u8]| bytes.windows(32).any(|window| is_marker(&markers, window));
    assert!(
        shows(&[b"before", &markers.iter().next().unwrap()[..], b"after"].concat()),
        "the search finds what is there"
    );
    let found = wire.iter().filter(|sighting| shows(&sighting.datagram)).count();
    assert_eq!(found, 0, "of {} datagrams", wire.len());
    // Nor do the inner addresses, of which a header would tell.
    let inner: Vec<_> = (0..3).map(|number| overlay.node(number).overlay(true)).collect();
    for address in inner {
        let std::net::IpAddr::V6(address) = address else { panic!("an IPv6 address") };
        let octets = address.octets();
        assert!(!wire.iter().any(|sighting| sighting.datagram.windows(16).any(|window| window == octets)));
    }
}

fn is_marker(markers: &HashSet<[u8; 32]>, bytes: &[u8]) -> bool {
    <[u8; 32]>::try_from(bytes).is_ok_and(|bytes| markers.contains(&bytes))
}
