//! A disk that fills up while blocks are written: the ledger stops and says why, the tunnels stay, and with room again nothing is missing.

use crate::lab::{Lab, eventually};
use crate::node::{Node, PATIENCE, joiner, transfer};
use crate::small_disk::SmallDisk;
use serde_json::{Value, json};

/// Blocks that are made at most until a full disk is noticed: the store uses freed pages first.
const BLOCKS_MAX: usize = 400;
/// Pages of 4 KiB that are left where some blocks are to be made on the way.
const SOME_PAGES: u64 = 4;
/// What one TCP connection moves.
const TRANSFER_LEN: usize = 1_000_000;

/// Everything that goes through the tunnel.
fn carry(one: &Node, other: &Node) {
    transfer(one, other, other.v4(), TRANSFER_LEN);
    transfer(other, one, one.v6(), TRANSFER_LEN);
    for (from, to) in [(one, other), (other, one)] {
        from.ask(&["ping", to.name(), "-c", "1"]);
    }
}

fn height(node: &Node) -> u64 {
    node.status()["ledger"]["height"].as_u64().unwrap()
}

fn verifies(node: &Node) {
    let report = node.ask(&["ledger", "verify"]);
    assert_eq!((&report["bad"], &report["from"]), (&Value::Null, &json!(0)), "{report}");
}

#[test]
fn a_member_whose_disk_is_full_keeps_its_tunnels_says_why_its_ledger_stands_and_catches_up_later() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = Node::new(&lab.host("founder"), "founder");
    founder.found();
    let mut ada = Node::new(&lab.host("ada"), "ada");
    let disk = SmallDisk::under(&ada);
    ada.join(&founder.invite(&[]));
    let ben = joiner(&mut lab, &founder, "ben");
    ada.meet(&ben);
    disk.fill();

    let has_stopped = |node: &Node| node.log().contains("the ledger stopped; tunnels stay");
    let mut made = 0;
    while made < BLOCKS_MAX && !has_stopped(&ada) {
        founder.invite(&[]);
        made += 1;
    }
    assert!(eventually(PATIENCE, || has_stopped(&ada)), "{made} blocks: {}", ada.status()["ledger"]);
    let stood = height(&ada);
    founder.invite(&[]);
    carry(&founder, &ada);
    carry(&ada, &ben);
    let status = ada.status();
    assert_eq!((&status["network"]["state"], &status["ledger"]["final"]), (&json!("up"), &json!(false)), "{status}");
    assert!(status["ledger"]["halted"].as_str().unwrap().contains("disk is full"), "{status}");
    assert!(height(&founder) > stood && height(&ada) == stood, "{status}");

    // Started on the full disk it knows its members and carries.
    ada.stop();
    ada.start();
    ada.wait_for("online");
    carry(&founder, &ada);
    ada.kill();

    disk.make_room();
    ada.start();
    ada.wait_for(&format!("height={}", height(&founder)));
    let [left, right] = [&founder, &ada].map(|node| node.status()["ledger"].clone());
    assert_eq!((&left["hash"], &left["final"]), (&right["hash"], &right["final"]));
    verifies(&ada);
    carry(&founder, &ada);
}

#[test]
fn a_founder_whose_disk_is_full_says_why_and_keeps_its_tunnels_and_every_transaction_that_it_took() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = Node::new(&lab.host("founder"), "founder");
    let disk = SmallDisk::under(&founder);
    founder.found();
    let ada = joiner(&mut lab, &founder, "ada");
    founder.meet(&ada);
    let endpoint = founder.endpoint().to_string();
    assert_eq!(founder.status()["ledger"]["halted"], Value::Null);

    disk.fill();
    disk.leave(SOME_PAGES);
    let mut acknowledged = Vec::new();
    let said = loop {
        let said = founder.say(&["invite", "--endpoint", &endpoint, "--timeout", "2"]);
        if said.code != 0 {
            break said;
        }
        acknowledged.push(said.data()["tx"].clone());
        assert!(acknowledged.len() < BLOCKS_MAX, "the disk is never full");
    };
    // Whichever of the two a validator needs found no room.
    let culprits = ["the consensus log failed", "the ledger's store failed"];
    assert!(culprits.iter().any(|culprit| founder.log().contains(culprit)), "{said:?}");
    // What could be kept waits for a block; what could not is refused.
    let message = said.refusal(if said.code == 9 { 9 } else { 1 });
    let unfinished = message.split_whitespace().find(|word| word.len() == 64);
    assert!(unfinished.is_some() || message.contains("disk is full"), "{message}");
    let status = founder.status();
    let halted = status["ledger"]["halted"].as_str().unwrap_or_else(|| panic!("{status}"));
    assert!(["disk is full", "No space left"].iter().any(|cause| halted.contains(cause)), "{halted}");
    assert_eq!(founder.ask(&["ledger", "status"])["halted"], halted);
    assert!(founder.say_plainly(&["status"]).out.contains(halted));
    assert_eq!(status["network"]["state"], "up");
    assert_ne!(founder.say(&["invite", "--endpoint", &endpoint, "--timeout", "1"]).code, 0);
    carry(&founder, &ada);

    founder.stop();
    disk.make_room();
    founder.start();
    founder.wait_for("online");
    let is_final = |tx: &str| {
        let said = founder.say(&["ledger", "show", tx]);
        said.code == 0 && said.data()["height"].is_u64()
    };
    assert!(eventually(PATIENCE, || unfinished.iter().all(|tx| is_final(tx))), "{unfinished:?}");
    assert!(acknowledged.iter().all(|tx| is_final(tx.as_str().unwrap())), "{acknowledged:?}");
    verifies(&founder);
    founder.invite(&[]);
    ada.wait_for(&format!("height={}", height(&founder)));
    assert_eq!(ada.status()["ledger"]["hash"], founder.status()["ledger"]["hash"]);
    carry(&founder, &ada);
}
