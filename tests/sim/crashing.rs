//! Nodes that lose their power or are killed in the middle of a write: while somebody joins, and while blocks are agreed on.

use crate::machine::{Machine, Victim};
use crate::overlay::{Overlay, PATIENCE};
use crate::world::Weather;
use p2plus::ledger::TxId;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::time::Duration;

/// How a machine goes down in the middle of a write.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Of what was not synced all, nothing or a part is left, as the number says.
    PowerCut(u64),
    /// The process alone: whatever was written is there.
    Kill,
}

impl End {
    fn of(self, machine: &Machine) -> Machine {
        match self {
            Self::PowerCut(luck) => machine.after_power_cut(luck),
            Self::Kill => machine.after_kill(),
        }
    }
}

/// Lets a node go down after so many more operations of one of its stores.
fn arm(overlay: &mut Overlay, number: usize, operations: u64, victim: Victim) {
    let at = overlay.addresses[number];
    overlay.world.with(at, |host, _| host.machine.lose_power_after(operations, victim));
}

/// Takes a node away if it went down, and gives what is left of it.
fn take_fallen(overlay: &mut Overlay, number: usize, end: End) -> Option<Machine> {
    if !overlay.running().contains(&number) || !overlay.node(number).machine.has_lost_power() {
        return None;
    }
    let fallen = overlay.world.remove(overlay.addresses[number]).unwrap();
    Some(end.of(&fallen.machine))
}

/// Lets a second node join; one of the two goes down after so many operations on its store. Says whether it came to that.
fn join_with_a_crash(number: usize, operations: u64, end: End) -> bool {
    let mut overlay = Overlay::found(400 + operations, Weather::FAIR);
    overlay.world.run_for(Duration::from_secs(1));
    if number == 0 {
        arm(&mut overlay, 0, operations, Victim::Store);
    }
    let issued = overlay.try_invite_one().is_some();
    if issued && number == 1 {
        arm(&mut overlay, 1, operations, Victim::Store);
    }
    overlay.world.run_for(Duration::from_secs(2));
    let left = take_fallen(&mut overlay, number, end);
    let fell = left.is_some();
    if let Some(left) = left {
        overlay.revive(left);
    }
    if !issued {
        overlay.invite_one();
    }
    overlay.wait_for_everybody();
    overlay.wait_for(&[]);
    overlay.assert_one_history();
    assert!(overlay.talk(1, 0, false, PATIENCE).is_some(), "node {number}, {operations} operations, {end:?}");
    fell
}

#[test]
fn a_crash_at_any_write_of_a_join_admits_the_joiner_once_and_leaves_one_history() {
    for number in [0, 1] {
        for end in [End::Kill, End::PowerCut(1), End::PowerCut(2)] {
            let falls = (0..).take_while(|operations| join_with_a_crash(number, *operations, end)).count();
            println!("node {number}, {end:?}: {falls} places to fall");
            assert!(falls > 20, "{falls} operations are less than two blocks");
        }
    }
}

/// Four validators order what they are told while one after the other goes down in the middle of a write.
fn order_with_crashes(seed: u64, crashes: usize) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut overlay = Overlay::found_by(4, seed, Weather::foul(2));
    overlay.world.run_for(Duration::from_secs(2));
    // Every log holds a height from here on: whoever starts again with an empty one never votes.
    overlay.invite_one();
    overlay.wait_for_everybody();
    let mut told: Vec<TxId> = Vec::new();
    for crash in 0..crashes {
        let victim = usize::try_from(rng.next_u64() % 4).unwrap();
        let store = if rng.next_u64().is_multiple_of(2) { Victim::Store } else { Victim::Log };
        arm(&mut overlay, victim, rng.next_u64() % 24, store);
        for number in (0..4).filter(|number| *number != victim) {
            let (id, name) = (overlay.id(number), format!("node-{number}-{crash}").parse().unwrap());
            overlay.order(number, |node, now| node.rename(now, id, name)).unwrap();
        }
        overlay.world.run_for(Duration::from_secs(5));
        let end = if rng.next_u64().is_multiple_of(2) { End::Kill } else { End::PowerCut(rng.next_u64()) };
        told.extend(overlay.running().into_iter().flat_map(|number| finals(&overlay, number)));
        let left = match take_fallen(&mut overlay, victim, end) {
            Some(left) => left,
            // It wrote too little to get there.
            None => end.of(&overlay.world.remove(overlay.addresses[victim]).unwrap().machine),
        };
        overlay.world.run_for(Duration::from_secs(1));
        overlay.revive(left);
        overlay.world.run_for(Duration::from_secs(12));
    }
    overlay.wait_for(&told);
    overlay.assert_one_history();
    assert!(told.len() >= crashes, "seed {seed}: little was ordered");
}

/// What the user of a node was told is final in its run of now.
fn finals(overlay: &Overlay, number: usize) -> Vec<TxId> {
    overlay.node(number).finals.iter().map(|(id, _)| *id).collect()
}

#[test]
fn validators_that_fall_in_the_middle_of_writes_keep_one_history_and_all_that_was_acknowledged() {
    for seed in 420..428 {
        order_with_crashes(seed, 5);
    }
}

#[test]
#[ignore = "a hundred seeds take a minute: run by scripts/test.sh --all"]
fn a_hundred_seeds_of_validators_that_fall_in_the_middle_of_writes() {
    for seed in 500..600 {
        order_with_crashes(seed, 6);
    }
}
