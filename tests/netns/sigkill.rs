//! SIGKILL at any moment: what was acknowledged is there after the restart, the ledger holds, and joining ends well.
//!
//! The moments are drawn from a seed. What the program does at one of them depends on the machine, so that every run tries others.

use crate::lab::Lab;
use crate::node::{NETWORK, Node, founder, noise, pair};
use serde_json::{Value, json};
use std::process::Child;
use std::thread;
use std::time::Duration;

/// Milliseconds in which a daemon starts, shakes hands and fetches a short ledger, and a joiner is admitted.
const A_START: u64 = 100;
/// Milliseconds in which a few blocks are made.
const A_FEW_BLOCKS: u64 = 120;
/// Milliseconds in which `init` and `join` make a state folder.
const A_FOLDER: u64 = 12;

/// Draws `count` moments below `span` milliseconds.
fn moments(seed: u64, count: usize, span: u64) -> Vec<Duration> {
    let luck = noise(seed, 8 * count);
    let drawn = luck.chunks_exact(8).map(|luck| u64::from_le_bytes(luck.try_into().unwrap()));
    drawn.map(|luck| Duration::from_micros(luck % (span * 1000))).collect()
}

fn verifies(node: &Node) {
    let report = node.ask(&["ledger", "verify"]);
    assert_eq!((&report["bad"], &report["from"]), (&Value::Null, &json!(0)), "{report}");
    assert_eq!(report["to"], node.status()["ledger"]["height"], "{report}");
}

/// Waits until a command ends; its answer, when it had one.
fn answer(command: Child) -> Option<Value> {
    let output = command.wait_with_output().unwrap();
    output.status.success().then(|| serde_json::from_slice::<Value>(&output.stdout).unwrap()["data"].clone())
}

#[test]
fn a_joiner_that_is_killed_again_and_again_becomes_a_member_all_the_same() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let mut interrupted = 0;
    for (seed, name) in [(1, "ada"), (2, "ben"), (3, "cleo")] {
        let mut node = Node::new(&lab.host(name), name);
        let joined = node.ask(&["join", &founder.invite(&[]), "--name", name, "--no-start"]);
        for moment in moments(seed, 4, A_START) {
            node.launch(&[]);
            thread::sleep(moment);
            node.kill();
            // A member has no ticket any more.
            interrupted += usize::from(node.state().join("ticket").exists());
        }
        node.start();
        node.wait_for("online");
        founder.meet(&node);
        assert_eq!(node.status()["node"]["id"], joined["node_id"]);
        verifies(&node);
        // One admission for one ticket, however often it was asked for.
        let members = founder.ask(&["members"]);
        assert_eq!(members.as_array().unwrap().iter().filter(|member| member["name"] == name).count(), 1);
    }
    assert_eq!(founder.ask(&["members"]).as_array().unwrap().len(), 4);
    assert!(interrupted > 0, "no joiner was killed before it was a member");
}

/// Kills a founder while it makes blocks, and starts it again; returns what it had acknowledged, all of which is there.
fn kill_among_blocks(founder: &mut Node, moment: Duration) -> Vec<Value> {
    // Past the ten seconds for which it listens after every start but the first.
    founder.invite(&[]);
    let endpoint = founder.endpoint().to_string();
    let invite = ["invite", "--endpoint", &endpoint, "--timeout", "20"];
    let callers: Vec<Child> = (0..4).map(|_| founder.begin(&invite)).collect();
    thread::sleep(moment);
    founder.kill();
    let acknowledged: Vec<Value> = callers.into_iter().filter_map(answer).collect();
    founder.start();
    founder.wait_for("online");
    verifies(founder);
    for invited in &acknowledged {
        let shown = founder.ask(&["ledger", "show", invited["tx"].as_str().unwrap()]);
        assert_eq!((&shown["tx"], &shown["height"]), (&invited["tx"], &invited["height"]), "{shown}");
    }
    acknowledged
}

#[test]
fn a_founder_that_is_killed_while_it_makes_blocks_keeps_every_acknowledged_transaction() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("alone");
    let mut acknowledged = 0;
    for (turn, moment) in moments(4, 12, A_FEW_BLOCKS).into_iter().enumerate() {
        let mut founder = Node::new(&host, &format!("founder{turn}"));
        founder.found();
        acknowledged += kill_among_blocks(&mut founder, moment).len();
    }
    assert!(acknowledged > 0, "killed too early each time");

    // Once more, and again after the restart, with a member that holds the same chain all along.
    let [mut founder, ada] = pair(&mut lab);
    for moment in moments(5, 2, A_FEW_BLOCKS) {
        kill_among_blocks(&mut founder, moment);
    }
    let before = founder.status()["ledger"]["height"].clone();
    ada.wait_for(&format!("height={before}"));
    // What was under way at the kill may have become a block meanwhile.
    let held = ada.status()["ledger"].clone();
    let shown = founder.ask(&["ledger", "show", &held["height"].to_string()]);
    assert_eq!(shown["hash"], held["hash"], "height {before}, then {}", held["height"]);
    founder.meet(&ada);
}

#[test]
fn a_member_that_is_killed_while_it_syncs_holds_a_whole_ledger_and_catches_up() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, mut ada] = pair(&mut lab);
    for moment in moments(5, 8, A_START) {
        ada.kill();
        (0..4).for_each(|_| drop(founder.invite(&[])));
        ada.launch(&[]);
        thread::sleep(moment);
    }
    ada.kill();
    // What the kills left is a whole ledger, as far as it goes.
    let report = ada.ask(&["ledger", "verify"]);
    assert_eq!(report["bad"], Value::Null, "{report}");
    ada.start();
    let ledger = founder.status()["ledger"].clone();
    ada.wait_for(&format!("height={}", ledger["height"]));
    assert_eq!(ada.status()["ledger"]["hash"], ledger["hash"]);
    verifies(&ada);
    founder.meet(&ada);
}

#[test]
fn init_and_join_that_are_killed_leave_nothing_or_all_and_work_when_typed_again() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let (left, right) = (lab.host("left"), lab.host("right"));
    let ticket = founder.invite(&["--uses", "20"]);
    for (turn, moment) in moments(7, 10, A_FOLDER).into_iter().enumerate() {
        let begun = if turn % 2 == 0 { vec!["init", NETWORK] } else { vec!["join", &ticket] };
        let name = format!("node{turn}");
        let words = [begun.as_slice(), &["--name", &name, "--no-start"]].concat();
        let mut node = Node::new(if turn % 2 == 0 { &left } else { &right }, &name);
        let mut command = node.begin(&words);
        thread::sleep(moment);
        command.kill().unwrap();
        command.wait().unwrap();
        let again = node.say(&words);
        // An `init` that was done already is not done twice.
        assert!(again.code == 0 || again.code == 8 && turn % 2 == 0, "{again:?}");
        node.start();
        node.wait_for("online");
        verifies(&node);
        node.stop();
    }
}
