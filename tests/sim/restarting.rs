//! Life without the founder, and life after a crash.

use crate::overlay::{Overlay, PATIENCE, WEATHERS};
use crate::world::Weather;
use p2plus::ledger::Height;
use p2plus::wire::drops::DropReason;
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn members_go_on_without_the_founder_and_find_each_other_again_after_a_restart() {
    for weather in WEATHERS {
        for seed in 20..23 {
            let mut overlay = Overlay::of(3, seed, weather);
            overlay.world.run_for(Duration::from_secs(20));
            overlay.world.remove(overlay.addresses[0]);
            // Past the end of every session that there was: they go on by themselves.
            for _ in 0..5 {
                overlay.world.run_for(Duration::from_secs(60));
                assert!(overlay.talk(1, 2, false, PATIENCE).is_some(), "seed {seed}, {weather:?}");
                assert!(overlay.talk(2, 1, true, PATIENCE).is_some(), "seed {seed}, {weather:?}");
            }
            let machines = [1, 2].map(|number| overlay.kill(number));
            overlay.world.run_for(Duration::from_secs(30));
            for machine in machines {
                overlay.revive(machine);
            }
            for (from, to, is_v6) in [(1, 2, true), (2, 1, false)] {
                let took = overlay.talk(from, to, is_v6, PATIENCE);
                assert!(took.is_some(), "seed {seed}, {weather:?}: nothing after the restart");
            }
            overlay.assert_no_duplicates();
        }
    }
}

#[test]
fn one_restarted_node_is_heard_again_within_a_second() {
    for seed in 20..25 {
        let mut overlay = Overlay::of(3, seed, Weather::FAIR);
        overlay.world.run_for(Duration::from_secs(20));
        overlay.world.remove(overlay.addresses[0]);
        let machine = overlay.kill(1);
        overlay.revive(machine);
        // It calls its neighbours by itself: who sends to it notices nothing.
        overlay.world.run_for(Duration::from_millis(100));
        let packet = overlay.send(2, 1, false);
        overlay.world.run_for(Duration::from_millis(900));
        assert_eq!(overlay.received(1, &packet), 1, "seed {seed}");
    }
}

#[test]
fn a_member_killed_right_after_joining_is_found_by_the_others() {
    for seed in 20..25 {
        let mut overlay = Overlay::of(3, seed, Weather::FAIR);
        // Nothing but the chain is on its disk yet.
        let machine = overlay.kill(1);
        overlay.revive(machine);
        let took = overlay.talk(2, 1, false, PATIENCE).expect("the others know where it is");
        assert!(took < Duration::from_secs(30), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_copy_of_the_founders_disk_that_is_put_back_splits_no_network() {
    for seed in 20..24 {
        // One that knows nobody goes on from whoever calls, which is rarer the longer it was away; the other one calls by itself.
        for (before, after, away) in [(1, 3, 30), (3, 4, 60)] {
            let mut overlay = Overlay::found(seed, Weather::FAIR);
            while overlay.addresses.len() < before {
                overlay.invite_one();
                overlay.wait_for_everybody();
            }
            // Where the others are is on its disk by then.
            overlay.world.run_for(Duration::from_secs(3));
            let copy = overlay.node(0).machine.after_kill();
            while overlay.addresses.len() < after {
                overlay.invite_one();
                overlay.wait_for_everybody();
            }
            // Within the minutes in which networks are set up.
            overlay.world.run_for(Duration::from_secs(60));
            overlay.kill(0);
            overlay.world.run_for(Duration::from_secs(away));
            overlay.revive(copy);
            // Its user is faster than anybody's first word, and is told if that was in vain.
            let (founder, name) = (overlay.id(0), "eager".parse().unwrap());
            overlay.order(0, |node, now| node.rename(now, founder, name)).unwrap();
            overlay.world.run_for(Duration::from_secs(60));
            overlay.invite_one();
            overlay.wait_for_everybody();
            let ledgers = || overlay.addresses.iter().map(|at| overlay.world.host(*at).node.ledger());
            let highest = ledgers().filter_map(|ledger| ledger.head()).map(|head| head.height().0).max().unwrap();
            for height in 0..=highest {
                let ids: BTreeSet<_> = ledgers()
                    .filter_map(|ledger| ledger.block(Height(height)).unwrap())
                    .map(|(block, _)| block.id())
                    .collect();
                assert_eq!(ids.len(), 1, "seed {seed}: two blocks at height {height}");
            }
        }
    }
}

#[test]
fn who_made_all_handshakes_and_comes_back_with_a_clock_that_is_behind_is_heard_at_once() {
    for number in [0, 1] {
        let mut overlay = Overlay::of(2, 40, Weather::FAIR);
        overlay.world.run_for(Duration::from_secs(600));
        let machine = overlay.kill(number);
        overlay.world.behind.insert(overlay.addresses[number], Duration::from_secs(300));
        overlay.revive(machine);
        let took = overlay.talk(number, 1 - number, false, PATIENCE).expect("it is heard");
        assert!(took < Duration::from_secs(1), "node {number}: {took:?}");
        assert_eq!(overlay.node(1 - number).dropped(DropReason::HandshakeReplayed), 0, "node {number}");
    }
}
