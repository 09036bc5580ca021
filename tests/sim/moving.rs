//! Nodes that move, sleep and lose their power.

use crate::overlay::{Overlay, PATIENCE};
use crate::world::Weather;
use p2plus::node::authoring::InvitationTerms;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

#[test]
fn a_node_that_moved_is_followed_within_seconds() {
    for seed in 60..63 {
        let mut overlay = Overlay::of(3, seed, Weather::FAIR);
        overlay.talk(1, 2, false, PATIENCE).unwrap();
        overlay.talk(2, 1, false, PATIENCE).unwrap();
        let elsewhere = SocketAddr::from(([198, 51, 100, 7], 9999));
        overlay.world.relocate(overlay.addresses[1], elsewhere);
        overlay.addresses[1] = elsewhere;
        let took = overlay.talk(1, 2, false, PATIENCE).expect("its own packets arrive");
        assert!(took <= Duration::from_secs(1), "{took:?}");
        let back = overlay.talk(2, 1, false, PATIENCE).expect("answers find it");
        assert!(back <= Duration::from_secs(3), "{back:?}");
        overlay.assert_no_duplicates();
    }
}

#[test]
fn after_a_suspend_of_hours_the_tunnel_comes_back() {
    let mut overlay = Overlay::of(3, 64, Weather::FAIR);
    overlay.talk(1, 2, true, PATIENCE).unwrap();
    overlay.world.jump(Duration::from_secs(3 * 3600));
    let took = overlay.talk(1, 2, true, PATIENCE).expect("new keys are made");
    assert!(took <= Duration::from_secs(10), "{took:?}");
    assert!(overlay.talk(2, 1, true, PATIENCE).is_some());
    overlay.assert_no_duplicates();
}

#[test]
fn after_a_suspend_shorter_than_a_keys_life_nothing_leaves_under_a_key_from_before() {
    for seed in 65..68 {
        let mut overlay = Overlay::of(3, seed, Weather::FAIR);
        overlay.world.wire = Some(Vec::new());
        for (from, to) in [(1, 2), (2, 1), (0, 1), (2, 0)] {
            overlay.talk(from, to, true, PATIENCE).unwrap();
        }
        overlay.world.run_for(Duration::from_secs(15));
        let receivers = |wire: &[crate::world::Sighting]| -> BTreeSet<Vec<u8>> {
            let transport = wire.iter().filter(|sighting| sighting.datagram[0] == 0x10);
            transport.map(|sighting| sighting.datagram[4..8].to_vec()).collect()
        };
        let old = receivers(&overlay.world.wire.replace(Vec::new()).unwrap());
        assert!(old.len() >= 6, "three sessions, seen from both sides");
        overlay.world.jump(Duration::from_secs(60));
        // The thread that reads the device wakes first, and elsewhere a user who gives an order.
        let packet = overlay.send(1, 2, false);
        let terms = InvitationTerms { name: None, tags: BTreeSet::new(), uses: 1, lifetime: Duration::from_secs(3600) };
        overlay.order(0, |node, now| node.invite(now, terms).map(|issued| issued.tx)).unwrap();
        overlay.world.run_for(Duration::from_secs(5));
        let fresh = receivers(&overlay.world.wire.take().unwrap());
        assert_eq!(old.intersection(&fresh).count(), 0, "seed {seed}: an old key sealed");
        assert!(fresh.len() >= 6, "seed {seed}: all sessions are new");
        assert_eq!(overlay.received(2, &packet), 1, "seed {seed}: the packet waited for the new key");
    }
}

#[test]
fn a_founder_that_loses_power_goes_on_from_what_it_showed() {
    for luck in 0..8 {
        let mut overlay = Overlay::of(2, 70 + luck, Weather::FAIR);
        for _ in 0..3 {
            let terms =
                InvitationTerms { name: None, tags: BTreeSet::new(), uses: 1, lifetime: Duration::from_secs(3600) };
            overlay.order(0, |node, now| node.invite(now, terms).map(|issued| issued.tx)).unwrap();
        }
        let shown = overlay.node(0).node.ledger().head().unwrap().id;
        let founder = overlay.addresses[0];
        let left = overlay.world.remove(founder).unwrap().machine.after_power_cut(luck);
        overlay.revive(left);
        assert_eq!(
            overlay.node(0).node.ledger().head().unwrap().id,
            shown,
            "luck {luck}: a block that was shown is on the disk"
        );
        assert!(overlay.talk(1, 0, false, PATIENCE).is_some());
        let same = |world: &crate::world::World<crate::machine::SimNode>| {
            let ids = world.addresses().into_iter().map(|at| world.host(at).node.ledger().head().unwrap().id);
            ids.collect::<Vec<_>>().windows(2).all(|pair| pair[0] == pair[1])
        };
        assert!(overlay.world.run_until(PATIENCE, same).is_some(), "luck {luck}: one chain");
    }
}
