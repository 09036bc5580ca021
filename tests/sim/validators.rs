//! Four validators inside whole nodes: blocks are agreed on over real sessions and control streams, and written to real stores.

use crate::overlay::{Overlay, PATIENCE};
use crate::world::{Weather, World};
use p2plus::crypto::hash::Digest;
use p2plus::ledger::TxId;
use std::net::SocketAddr;
use std::time::Duration;

/// As many as tolerate one that fails.
const VALIDATORS: usize = 4;

/// The weather of these tests: as it should be, and with 5 % lost, doubled and out of order.
const WEATHERS: [Weather; 2] = [Weather::FAIR, Weather::foul(5)];

/// The founded network, once everybody has a session with everybody.
fn validators(seed: u64, weather: Weather) -> Overlay {
    let mut overlay = Overlay::found_by(VALIDATORS, seed, weather);
    let is_meshed = |world: &World<crate::machine::SimNode>| {
        let session = |at: SocketAddr| {
            world.host(at).node.peers(world.now()).iter().filter(|peer| peer.session.is_some()).count()
        };
        world.addresses().into_iter().all(|at| session(at) == VALIDATORS - 1)
    };
    assert!(overlay.world.run_until(PATIENCE, is_meshed).is_some(), "validators keep sessions with each other");
    // Whoever starts again with an empty log cannot know what it signed, and never votes: every log holds a height.
    let first = rename(&mut overlay, &[0], 0);
    overlay.wait_for(&first);
    overlay
}

/// Lets each of these nodes rename itself: every one has its own transactions to be ordered.
fn rename(overlay: &mut Overlay, numbers: &[usize], round: usize) -> Vec<TxId> {
    let rename = |number: &usize| {
        let (id, name) = (overlay.id(*number), format!("node-{number}-{round}").parse().unwrap());
        overlay.order(*number, |node, now| node.rename(now, id, name)).unwrap()
    };
    numbers.iter().map(rename).collect()
}

/// Orders, joins and exchanges packets. Returns the trace.
fn order_and_join(seed: u64, weather: Weather) -> Digest {
    let mut overlay = validators(seed, weather);
    for round in 1..5 {
        let ordered = rename(&mut overlay, &[0, 1, 2, 3], round);
        overlay.wait_for(&ordered);
    }
    let joiner = overlay.invite_one();
    overlay.wait_for_everybody();
    overlay.wait_for(&[]);
    overlay.assert_one_history();
    assert!(overlay.talk(joiner, 3, true, PATIENCE).is_some());
    overlay.world.trace()
}

#[test]
fn four_validators_order_what_any_of_them_is_told_and_let_a_fifth_node_in() {
    for weather in WEATHERS {
        for seed in 200..203 {
            order_and_join(seed, weather);
        }
    }
}

#[test]
fn the_same_seed_gives_validators_the_same_trace() {
    let weather = Weather::foul(5);
    let trace = order_and_join(210, weather);
    assert_eq!(trace, order_and_join(210, weather));
    assert_ne!(trace, order_and_join(211, weather));
}

#[test]
fn three_of_four_validators_go_on_without_the_fourth_which_catches_up() {
    for weather in WEATHERS {
        for seed in 220..223 {
            let mut overlay = validators(seed, weather);
            let away = usize::try_from(seed).unwrap() % VALIDATORS;
            let others: Vec<_> = (0..VALIDATORS).filter(|number| *number != away).collect();
            let machine = overlay.kill(away);
            for round in 1..5 {
                let start = overlay.world.now().instant;
                let ordered = rename(&mut overlay, &others, round);
                overlay.wait_for(&ordered);
                let took = overlay.world.now().instant.saturating_since(start);
                assert!(took <= Duration::from_secs(20), "seed {seed}, {weather:?}, round {round}: {took:?}");
            }
            overlay.revive(machine);
            overlay.wait_for(&[]);
            overlay.assert_one_history();
            // Without its vote the others decide nothing once another one is gone.
            overlay.kill(others[0]);
            for round in 5..9 {
                let ordered = rename(&mut overlay, &[away, others[1], others[2]], round);
                overlay.wait_for(&ordered);
            }
            overlay.assert_one_history();
        }
    }
}

#[test]
fn a_validator_restarted_amid_a_vote_contradicts_nothing_and_goes_on() {
    for weather in WEATHERS {
        for seed in 230..238 {
            let mut overlay = validators(seed, weather);
            let place = usize::try_from(seed).unwrap();
            let (victim, absent) = (place % VALIDATORS, (place + 1) % VALIDATORS);
            let others: Vec<_> = (0..VALIDATORS).filter(|number| *number != victim && *number != absent).collect();
            // Without the fourth, nothing is decided unless the victim votes again.
            let asleep = overlay.kill(absent);
            let mut ordered = rename(&mut overlay, &others, 1);
            // Before, between and after the votes of the first round: three hops of 10 ms.
            overlay.world.run_for(Duration::from_millis(5 * (seed - 229)));
            let machine = overlay.kill(victim);
            overlay.world.run_for(Duration::from_millis(50));
            overlay.revive(machine);
            for round in 2..5 {
                ordered.extend(rename(&mut overlay, &others, round));
                overlay.world.run_for(Duration::from_secs(1));
            }
            overlay.wait_for(&ordered);
            overlay.assert_one_history();
            overlay.revive(asleep);
            let last = rename(&mut overlay, &[victim, absent], 9);
            overlay.wait_for(&last);
            overlay.assert_one_history();
        }
    }
}

#[test]
fn two_halves_of_four_validators_order_nothing_apart_and_one_history_together() {
    for weather in WEATHERS {
        for seed in 240..243 {
            let mut overlay = validators(seed, weather);
            let before = rename(&mut overlay, &[0, 1, 2, 3], 1);
            overlay.wait_for(&before);
            let island = [overlay.addresses[0], overlay.addresses[1]];
            overlay.world.cut = Box::new(move |from, to| island.contains(&from) != island.contains(&to));
            // What left before the cut may still decide.
            overlay.world.run_for(Duration::from_secs(1));
            let height = overlay.height(0);
            let mut ordered = Vec::new();
            for round in 2..5 {
                ordered.extend(rename(&mut overlay, &[0, 1, 2, 3], round));
                overlay.world.run_for(Duration::from_secs(10));
            }
            for number in 0..VALIDATORS {
                assert_eq!(overlay.height(number), height, "seed {seed}: half of the validators decided something");
            }
            overlay.world.cut = Box::new(|_, _| false);
            overlay.wait_for(&ordered);
            overlay.assert_one_history();
        }
    }
}
