//! Who comes in, how members go on without the founder, and what `members`, `rename` and `authorize` do.

use crate::lab::{Lab, eventually};
use crate::node::{NETWORK, Node, PATIENCE, exchange, founder, joiner, pair, transfer, trio};
use p2plus::crypto::exchange::TransportSecret;
use p2plus::crypto::identity::SigningKey;
use p2plus::io::key_file::{KeyKind, read_key};
use serde_json::json;

/// What one TCP connection moves where the amount does not matter.
const A_LITTLE: usize = 500_000;

/// The names of the members that a node lists.
fn names(node: &Node) -> Vec<String> {
    let members = node.ask(&["members"]);
    members.as_array().unwrap().iter().map(|member| member["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_ticket_is_all_it_takes_to_join_and_everybody_lists_the_new_member() {
    let Some(mut lab) = Lab::new() else { return };
    let nodes = trio(&mut lab);
    for node in &nodes {
        assert!(eventually(PATIENCE, || names(node) == ["ada", "ben", "founder"]), "{:?}", names(node));
        let ledger = node.ask(&["ledger", "verify"]);
        assert_eq!((&ledger["bad"], &ledger["from"]), (&json!(null), &json!(0)), "{ledger}");
    }
    assert!(nodes[1].ask(&["whois", "ada"])["admitted_height"].as_u64() > Some(0));
    assert_eq!(nodes[0].ask(&["invites"]), json!([]), "both tickets are used up");
    // The ticket is a secret, and of no use any more.
    assert!(!nodes[1].state().join("ticket").exists());
}

#[test]
fn inviting_takes_a_signer_and_one_ticket_may_admit_several() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    // Inviting takes a signer's key, which only the founder has.
    let refusal = ada.say(&["invite", "--endpoint", &ada.endpoint().to_string()]).refusal(6);
    assert!(!refusal.is_empty());
    // One ticket for two, each with a name of its own.
    let ticket = founder.invite(&["--uses", "2", "--tag", "edge"]);
    for name in ["ben", "cleo"] {
        let mut node = Node::new(&lab.host(name), name);
        node.join(&ticket);
        let seen = node.ask(&["whois", name]);
        assert_eq!((&seen["name"], &seen["tags"]), (&json!(name), &json!(["edge"])));
    }
}

#[test]
fn members_exchange_data_while_the_founder_is_stopped_and_while_it_is_dead() {
    let Some(mut lab) = Lab::new() else { return };
    let [mut founder, ada, ben] = trio(&mut lab);
    let (v4, v6) = ([ada.v4(), ben.v4()], [ada.v6(), ben.v6()]);
    founder.stop();
    transfer(&ada, &ben, v4[1], A_LITTLE);
    founder.start();
    founder.meet(&ada);
    founder.kill();
    transfer(&ben, &ada, v6[0], A_LITTLE);
    exchange(&ada, &ben, v4);
    exchange(&ada, &ben, v6);
}

#[test]
fn members_find_each_other_from_disk_while_the_founder_is_away() {
    let Some(mut lab) = Lab::new() else { return };
    let [mut founder, mut ada, mut ben] = trio(&mut lab);
    // An orderly end stores what was learned, so that this does not hang on when the last one did.
    founder.stop();
    ada.stop();
    ben.stop();
    ada.start();
    ben.start();
    ada.meet(&ben);
    transfer(&ada, &ben, ben.v4(), A_LITTLE);
    // And from what they stored, after the disorderly end as well.
    ada.kill();
    ben.kill();
    ada.start();
    ben.start();
    ada.meet(&ben);
}

#[test]
fn a_member_that_is_killed_the_moment_it_came_in_finds_the_others_again() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founder(&mut lab);
    let mut ada = Node::new(&lab.host("ada"), "ada");
    ada.join(&founder.invite(&[]));
    ada.kill();
    // The founder cannot be the one that remembers.
    founder.kill();
    std::fs::remove_file(founder.state().join("memory")).unwrap_or_default();
    founder.start();
    ada.start();
    ada.meet(&founder);
}

#[test]
fn a_rename_is_seen_by_everybody_and_the_old_name_rests() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada, ben] = trio(&mut lab);
    let done = founder.ask(&["rename", "ada", "eve"]);
    for node in [&founder, &ada, &ben] {
        node.wait_for(&format!("height={}", done["height"]));
        assert_eq!(names(node), ["ben", "eve", "founder"]);
    }
    assert_eq!(ada.status()["node"]["name"], "eve");
    ben.ask(&["ping", "eve", "-c", "1"]);
    founder.say(&["ping", "ada", "-c", "1"]).refusal(5);
    founder.say(&["rename", "ben", "eve"]).refusal(8);
    ben.say(&["rename", "eve", "ada"]).refusal(6);
    // Who asks for the old name must not find somebody else behind it.
    founder.say(&["rename", "ben", "ada"]).refusal(8);
}

#[test]
fn a_node_whose_ticket_was_refused_comes_in_when_a_signer_authorizes_its_keys() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let ticket = founder.invite(&[]);
    let mut ben = Node::new(&lab.host("ben"), "ben");
    ben.join(&ticket);
    let mut ada = Node::new(&lab.host("ada"), "ada");
    let joined = ada.ask(&["join", &ticket, "--name", "ada", "--no-start"]);
    ada.start();
    ada.say(&["wait", "--for", "online", "--timeout", "60"]).refusal(6);

    let id = joined["node_id"].as_str().unwrap();
    founder.say(&["authorize", id, "--name", "ada"]).refusal(5);
    let key = |kind| *read_key(&ada.state(), kind).unwrap().expose();
    let node_key = SigningKey::from_seed(&key(KeyKind::Node)).verifying_key();
    let transport_key = TransportSecret::from_bytes(key(KeyKind::Transport)).public_key();
    let (node_key, transport_key) = (hex::encode(node_key.0), hex::encode(transport_key.0));
    let keys = ["--node-key", &node_key, "--transport-key", &transport_key];
    founder.ask(&[&["authorize", id, "--name", "ada"], keys.as_slice()].concat());
    assert!(eventually(PATIENCE, || ada.status()["network"]["state"] == "up"), "{}", ada.status());
    founder.meet(&ada);
    founder.say(&[&["authorize", id, "--name", "ada"], keys.as_slice()].concat()).refusal(8);
}

#[test]
fn a_node_that_left_can_join_again_as_a_new_member() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let mut ada = joiner(&mut lab, &founder, "ada");
    ada.say(&["leave", "--yes"]).refusal(8);
    ada.stop();
    assert_eq!(ada.ask(&["leave", "--yes"]), json!({"network": NETWORK}));
    assert!(!ada.state().exists());
    ada.say(&["leave", "--yes"]).refusal(5);
    ada.ask(&["join", &founder.invite(&[]), "--name", "eve", "--no-start"]);
    ada.start();
    ada.wait_for("online");
    founder.wait_for("peer=eve");
    assert_eq!(names(&founder), ["ada", "eve", "founder"]);
}
