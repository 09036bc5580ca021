//! A ledger that is not what was written: the node carries nothing until it is mended, says why, and what was there is lost to nobody.

use crate::image::Image;
use crate::lab::{Lab, eventually};
use crate::node::{Node, PATIENCE, noise, pair, transfer};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Where the pages of the store begin, and how long each is.
const PAGES_START: usize = 16_384;
const PAGE_LEN: usize = 4_128;
/// What one TCP connection moves.
const A_LITTLE: usize = 200_000;

fn store(node: &Node) -> PathBuf {
    node.state().join("ledger.redb")
}

fn mark(node: &Node) -> PathBuf {
    node.state().join("ledger.mark")
}

fn log(node: &Node) -> PathBuf {
    node.state().join("consensus.log")
}

/// Makes blocks, and waits until everybody has them.
fn grow(founder: &Node, others: &[&Node], count: usize) -> Value {
    (0..count).for_each(|_| drop(founder.invite(&[])));
    let ledger = founder.status()["ledger"].clone();
    others.iter().for_each(|node| node.wait_for(&format!("height={}", ledger["height"])));
    ledger
}

/// Runs a daemon that must not carry data and returns the reason that it gives.
fn refused(node: &Node) -> String {
    let before = Image::of(&node.state());
    let said = node.run_daemon(&[]);
    let mut changed = before.changed_in(&Image::of(&node.state()));
    // Opening a store repairs it, and that writes.
    changed.retain(|name| name != "ledger.redb");
    assert_eq!(changed, [""; 0], "{said:?}");
    refusal(said.code, &said.error)
}

/// The reason in what a daemon said that refused.
fn refusal(code: i32, said: &str) -> String {
    assert_eq!(code, 1, "{said}");
    let message = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(message.contains("so no data is carried"), "{message}");
    assert!(message.contains("restore the state folder") && message.contains("join it again"), "{message}");
    message
}

/// Starts a node and asks it whether it has all of the ledger.
fn whole(node: &mut Node, height: &Value) {
    node.start();
    node.wait_for("online");
    assert_eq!(&node.status()["ledger"]["height"], height);
    verifies(node, height);
}

fn verifies(node: &Node, height: &Value) {
    let report = node.ask(&["ledger", "verify"]);
    assert_eq!((&report["bad"], &report["from"], &report["to"]), (&json!(null), &json!(0), height), "{report}");
}

#[test]
fn a_truncated_or_deleted_store_and_a_damaged_mark_carry_nothing_until_the_copy_is_back() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, mut ada] = pair(&mut lab);
    let height = grow(&founder, &[&ada], 2)["height"].clone();
    ada.stop();
    let before = Image::of(&ada.state());
    let (bytes, marked) = (std::fs::read(store(&ada)).unwrap(), std::fs::read(mark(&ada)).unwrap());

    let lengths = [1, 4_095, 8_192, PAGES_START - 1, PAGES_START, PAGES_START + 1, bytes.len() / 2, bytes.len() - 1];
    for len in lengths.into_iter().chain([bytes.len() - PAGE_LEN]) {
        std::fs::write(store(&ada), &bytes[..len]).unwrap();
        let message = refused(&ada);
        assert!(message.contains("corrupt"), "{len}: {message}");
    }
    std::fs::write(store(&ada), []).unwrap();
    let message = refused(&ada);
    assert!(message.contains("gone") && message.contains(&format!("block {height}")), "{message}");
    std::fs::remove_file(store(&ada)).unwrap();
    let message = refused(&ada);
    assert!(message.contains("gone") && message.contains(&format!("block {height}")), "{message}");
    std::fs::remove_file(mark(&ada)).unwrap();
    let message = refused(&ada);
    assert!(message.contains("there is no ledger store"), "{message}");
    before.put_back(&ada.state());

    // Each slot of the mark has a length in its first byte; a bit in one alone leaves the other, which only may be older.
    let flip = |places: &[usize]| {
        let mut flipped = marked.clone();
        places.iter().for_each(|place| flipped[*place] ^= 0x10);
        flipped
    };
    let damaged =
        [("missing", None), ("corrupt", Some(flip(&[20, 4_096 + 20]))), ("corrupt", Some(marked[..100].to_vec()))];
    for (word, bytes) in damaged {
        match bytes {
            Some(bytes) => std::fs::write(mark(&ada), bytes).unwrap(),
            None => std::fs::remove_file(mark(&ada)).unwrap(),
        }
        let message = refused(&ada);
        assert!(message.contains("head mark") && message.contains(word), "{message}");
    }
    for slot in [0, 4_096] {
        before.put_back(&ada.state());
        std::fs::write(mark(&ada), flip(&[slot + 20])).unwrap();
        whole(&mut ada, &height);
        ada.stop();
    }

    // Nobody else minded, and nothing is missing.
    before.put_back(&ada.state());
    whole(&mut ada, &height);
    founder.meet(&ada);
    transfer(&ada, &founder, founder.v4(), A_LITTLE);
}

#[test]
fn a_flipped_bit_in_the_store_is_refused_or_of_no_consequence() {
    let Some(mut lab) = Lab::new() else { return };
    let [mut founder, ada] = pair(&mut lab);
    let height = grow(&founder, &[&ada], 2)["height"].clone();
    founder.stop();
    let before = Image::of(&founder.state());
    let bytes = std::fs::read(store(&founder)).unwrap();
    // One bit in each header copy and in each page that was ever written.
    let pages = bytes[PAGES_START..].chunks_exact(PAGE_LEN).enumerate();
    let written = pages.filter(|(_, page)| page.iter().any(|byte| *byte != 0)).map(|(page, _)| page);
    let luck = noise(11, 4 * bytes.len() / PAGE_LEN);
    let in_page = |page: usize| {
        let drawn = u32::from_le_bytes(luck[4 * page..4 * page + 4].try_into().unwrap());
        PAGES_START + page * PAGE_LEN + drawn as usize % PAGE_LEN
    };
    let mut refusals = 0;
    for place in [100, 8_192 + 100].into_iter().chain(written.map(in_page)) {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1 << (place % 8);
        std::fs::write(store(&founder), &flipped).unwrap();
        founder.launch(&[]);
        let outcome = eventually(PATIENCE, || founder.has_ended() || founder.log().contains(" ready "));
        assert!(outcome, "byte {place}: {}", founder.log());
        if founder.has_ended() {
            let code = founder.reap();
            let message = refusal(code, &founder.log());
            assert!(message.contains("corrupt") || message.contains("rolled back"), "byte {place}: {message}");
            refusals += 1;
        } else {
            founder.wait_for("online");
            verifies(&founder, &height);
            founder.stop();
        }
        before.put_back(&founder.state());
    }
    assert!(refusals > 3, "pages in use were hit {refusals} times");
    whole(&mut founder, &height);
    founder.meet(&ada);
}

#[test]
fn an_older_store_is_refused_and_an_older_folder_goes_on_from_what_members_hold() {
    let Some(mut lab) = Lab::new() else { return };
    let [mut founder, mut ada] = pair(&mut lab);
    grow(&founder, &[&ada], 1);
    // Nobody writes, so that this is what a backup holds.
    let older = [&founder, &ada].map(|node| Image::of(&node.state()));
    let older_store = std::fs::read(store(&ada)).unwrap();
    let ledger = grow(&founder, &[&ada], 3);

    // The store alone: its mark knows better.
    ada.stop();
    let newest = Image::of(&ada.state());
    std::fs::write(store(&ada), &older_store).unwrap();
    let message = refused(&ada);
    assert!(message.contains("rolled back") && message.contains(&format!("block {}", ledger["height"])), "{message}");
    newest.put_back(&ada.state());
    whole(&mut ada, &ledger["height"]);

    // A restored backup of everything: peers know better. First of a member, then of the only validator.
    ada.stop();
    older[1].put_back(&ada.state());
    ada.start();
    ada.wait_for(&format!("height={}", ledger["height"]));
    assert_eq!(ada.status()["ledger"]["hash"], ledger["hash"]);
    founder.stop();
    older[0].put_back(&founder.state());
    founder.start();
    founder.wait_for(&format!("height={}", ledger["height"]));
    assert_eq!(founder.status()["ledger"]["hash"], ledger["hash"]);
    let ledger = grow(&founder, &[&ada], 1);
    assert_eq!(ada.status()["ledger"]["hash"], ledger["hash"]);
    [&founder, &ada].iter().for_each(|node| verifies(node, &ledger["height"]));
}

#[test]
fn a_store_or_mark_of_another_network_is_refused() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, mut ada] = pair(&mut lab);
    let height = grow(&founder, &[&ada], 1)["height"].clone();
    ada.stop();
    let before = Image::of(&ada.state());
    // Of the same name, and with a longer chain.
    let mut other = Node::new(&lab.host("other"), "other");
    other.found();
    grow(&other, &[], 5);
    other.stop();
    for file in [store, mark] {
        std::fs::copy(file(&other), file(&ada)).unwrap();
        let message = refused(&ada);
        assert!(message.contains("belongs to another network"), "{message}");
        before.put_back(&ada.state());
    }
    whole(&mut ada, &height);
    founder.meet(&ada);
}

#[test]
fn a_damaged_consensus_log_is_told_and_no_block_is_lost() {
    let Some(mut lab) = Lab::new() else { return };
    let [mut founder, ada] = pair(&mut lab);
    let height = grow(&founder, &[&ada], 2)["height"].clone();
    founder.stop();
    let whole_log = std::fs::read(log(&founder)).unwrap();
    let flipped = |place: usize| {
        let mut bytes = whole_log.clone();
        bytes[place] ^= 0x04;
        bytes
    };
    let middle = whole_log.len() / 2;
    let cases: [(&str, Option<Vec<u8>>, bool); 6] = [
        ("without its last byte", Some(whole_log[..whole_log.len() - 1].to_vec()), false),
        ("with half of it", Some(whole_log[..middle].to_vec()), false),
        ("empty", Some(Vec::new()), false),
        ("gone", None, false),
        ("flipped at its beginning", Some(flipped(1)), true),
        ("flipped in its middle", Some(flipped(middle)), true),
    ];
    for (case, bytes, is_told) in cases {
        match bytes {
            Some(bytes) => std::fs::write(log(&founder), bytes).unwrap(),
            None => std::fs::remove_file(log(&founder)).unwrap(),
        }
        founder.start();
        founder.wait_for("online");
        assert_eq!(founder.log().contains("the consensus log is damaged"), is_told, "{case}: {}", founder.log());
        verifies(&founder, &height);
        founder.stop();
    }
    founder.start();
    // Alone it sent no vote that it could contradict, so it goes on.
    let ledger = grow(&founder, &[&ada], 1);
    assert_eq!(ada.status()["ledger"]["hash"], ledger["hash"]);
    verifies(&founder, &ledger["height"]);
}
