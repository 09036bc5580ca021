//! Nodes that a signer lets in by their keys, and what users are told on the way.

use crate::lab::{Lab, eventually};
use crate::node::{NETWORK, Node, PATIENCE, founder, joiner, pair};
use serde_json::{Value, json};

/// What a signer has to know of a node.
fn keys(node: &Node) -> [String; 3] {
    let keys = node.ask(&["keys"]);
    ["id", "node_key", "transport_key"].map(|name| keys[name].as_str().unwrap().to_owned())
}

fn authorization(node: &Node, id: &str) -> Value {
    node.ask(&["whois", id])["authorization"].clone()
}

#[test]
fn a_signer_admits_a_fresh_machine_by_its_keys() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let height = founder.status()["ledger"]["height"].clone();
    let invited = founder.ask(&["invite", "--needs-approval", "--endpoint", &founder.endpoint().to_string()]);
    assert_eq!([&invited["credential"], &invited["expires"], &invited["tx"]], [&Value::Null; 3]);
    let ticket = invited["ticket"].as_str().unwrap();

    let mut ada = Node::new(&lab.host("ada"), "ada");
    let joined = ada.ask(&["join", ticket, "--name", "ada", "--no-start"]);
    let [id, node_key, transport_key] = keys(&ada);
    assert_eq!([&joined["node_id"], &joined["node_key"]], [&json!(id), &json!(node_key)]);
    assert_eq!(joined["needs_approval"], true);
    ada.start();
    let waits = || ada.status()["network"]["reason"] == "waiting for a signer to admit this node";
    assert!(eventually(PATIENCE, waits), "{}", ada.status());
    assert_eq!(ada.status()["network"]["state"], "joining");
    ada.say(&["ip"]).refusal(6);
    assert_eq!(founder.status()["ledger"]["height"], height, "such a ticket is no transaction");

    // Without its keys nobody can be admitted, and half of them are a mistake.
    founder.say(&["authorize", &id]).refusal(5);
    founder.say(&["authorize", &id, "--node-key", &node_key]).refusal(2);
    let admit =
        ["authorize", &id, "--name", "ada", "--tag", "web", "--node-key", &node_key, "--transport-key", &transport_key];
    let admitted = founder.ask(&admit);
    assert!(admitted["height"].as_u64().is_some() && admitted["tx"].is_string(), "{admitted}");
    ada.wait_for("online");
    founder.meet(&ada);
    assert_eq!(ada.status()["node"]["name"], "ada");
    assert_eq!(founder.ask(&["whois", "ada"])["tags"], json!(["web"]));
    founder.say(&admit).refusal(8);
}

#[test]
fn a_revoked_member_is_known_by_its_name_and_comes_back_by_its_identity_alone() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    let [id, ..] = keys(&ada);
    founder.ask(&["revoke", "ada", "--reason", "lost"]);
    assert_eq!(authorization(&founder, "ada"), "revoked");
    assert_eq!(authorization(&founder, &id[..10]), "revoked");
    let members = founder.ask(&["members"]);
    let gone = members.as_array().unwrap().iter().find(|member| member["id"] == *id).unwrap();
    assert_eq!(gone["name"], "ada", "{gone}");
    let log = founder.ask(&["ledger", "log", "--peer", "ada"]);
    let operations: Vec<_> = log.as_array().unwrap().iter().map(|entry| entry["op"].as_str().unwrap()).collect();
    assert_eq!(operations, ["join", "revoke"], "{log}");
    assert!(log.as_array().unwrap().iter().all(|entry| entry["subject_name"] == "ada"), "{log}");
    let message = founder.say(&["revoke", "ada"]).refusal(8);
    assert!(message.contains("revoked already"), "{message}");
    founder.say(&["revoke", &id]).refusal(8);
    assert!(eventually(PATIENCE, || ada.status()["network"]["state"] == "revoked"));
    assert!(ada.status()["network"]["reason"].is_string());
    ada.say(&["ip"]).refusal(6);

    founder.ask(&["authorize", &id, "--name", "ada"]);
    assert_eq!(authorization(&founder, "ada"), "member");
    assert!(eventually(PATIENCE, || ada.status()["network"]["state"] == "up"), "{}", ada.status());
    founder.meet(&ada);
}

#[test]
fn a_node_does_not_cut_itself_off_and_the_only_validator_does_not_leave_by_a_slip() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founder(&mut lab);
    let [id, ..] = keys(&founder);
    for name in ["founder", &id] {
        let message = founder.say(&["revoke", name]).refusal(8);
        assert!(message.contains("itself"), "{message}");
    }
    let ada = joiner(&mut lab, &founder, "ada");
    founder.stop();
    let message = founder.say(&["leave", "--yes"]).refusal(8);
    assert!(message.contains("only validator"), "{message}");
    founder.start();
    founder.meet(&ada);
    founder.ask(&["revoke", "founder", "--force"]);
    assert!(eventually(PATIENCE, || founder.status()["network"]["state"] == "revoked"), "{}", founder.status());
    founder.stop();
    founder.ask(&["leave", "--yes", "--force"]);
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_written() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let ticket = founder.ask(&["invite", "--endpoint", "192.0.2.1:1"]);
    let height = founder.status()["ledger"]["height"].clone();
    for name in ["founder", "node-0123abcd"] {
        founder.say(&["invite", "--name", name]).refusal(8);
    }
    for endpoint in ["0.0.0.0:4647", "224.0.0.1:1", "192.0.2.1:0"] {
        let message = founder.say(&["invite", "--endpoint", endpoint]).refusal(2);
        assert!(message.contains(endpoint), "{message}");
    }
    let many: Vec<String> = (1..10).map(|port| format!("--endpoint=192.0.2.1:{port}")).collect();
    founder.say(&[&["invite"], many.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat()).refusal(2);
    for id in ["", "0", "zzzz"] {
        founder.say(&["invites", "revoke", id]).refusal(2);
    }
    founder.say(&["ledger", "show", ""]).refusal(2);
    founder.say(&["ping", "founder"]).refusal(2);
    founder.say(&["wait", "--for", "peer=founder"]).refusal(2);
    assert_eq!(founder.status()["ledger"]["height"], height);
    assert_eq!(
        founder.ask(&["invites"])[0]["credential"],
        ticket["credential"],
        "no invite was ended by a typing error"
    );

    // Digits that are no height may begin an id.
    founder.say(&["ledger", "show", "99999"]).refusal(5);
    founder.say(&["ledger", "show", "999"]).refusal(5);
    for terms in [["--expires", "400d"], ["--uses", "10001"]] {
        founder.say(&[&["invite"], terms.as_slice()].concat()).refusal(2);
    }

    // A transaction is shown with the time of its block.
    let shown = founder.ask(&["ledger", "show", ticket["tx"].as_str().unwrap()]);
    let of_block = founder.ask(&["ledger", "show", &height.to_string()]);
    assert_eq!(shown["entries"][0]["time_ms"], of_block["time_ms"]);
}

#[test]
fn a_wait_that_was_in_vain_says_what_was_missing() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, mut ada] = pair(&mut lab);
    for (condition, why) in [("peer=nobody", "no member is called nobody"), ("height=999", "at height")] {
        let message = founder.say(&["wait", "--for", condition, "--timeout", "0.2"]).refusal(7);
        assert!(message.contains(why), "{condition}: {message}");
    }
    ada.kill();
    let message = founder.say(&["wait", "--for", "peer=ada", "--timeout", "0.5"]).refusal(7);
    assert!(message.contains("ada does not answer"), "{message}");
}

#[test]
fn a_stopped_daemon_leaves_no_socket_and_its_log_may_lose_its_reader() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founder(&mut lab);
    let socket = founder.run_dir().join(format!("{NETWORK}.sock"));
    for _ in 0..5 {
        assert!(socket.exists());
        founder.stop();
        assert!(!socket.exists(), "a clean end leaves nothing behind");
        founder.start();
    }
    founder.stop();
    founder.start_unread();
    // Each of these writes to the log, which nobody reads.
    for _ in 0..3 {
        founder.signal(libc::SIGHUP);
        founder.ask(&["invite", "--endpoint", &founder.endpoint().to_string()]);
    }
    assert!(!founder.has_ended());
    founder.stop();
}
