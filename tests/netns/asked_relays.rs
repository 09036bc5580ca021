//! Relays and static endpoints on the ledger, as people order and ask for them.

use crate::lab::{Lab, eventually};
use crate::node::{Node, PATIENCE, founder, joiner};
use serde_json::{Value, json};

/// What the ledger says of relays and static endpoints: the operation and its detail, the oldest first.
fn said(node: &Node) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let log = node.ask(&["ledger", "log"]);
    let entries = log.as_array().unwrap().iter().map(|entry| (text(&entry["op"]), text(&entry["detail"])));
    entries.filter(|(op, _)| op == "relay-approve" || op == "endpoints-set").collect()
}

#[test]
fn a_relay_is_asked_for_at_the_addresses_of_its_host_and_stays_asked_for_until_a_signer_decides() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let mut relay = joiner(&mut lab, &founder, "relay-1");
    let refusal = relay.say(&["relay", "on", "--tls-port", "443"]).refusal(6);
    assert!(refusal.contains("a signer has to approve"), "{refusal}");
    relay.say(&["relay", "on", "--class", "3"]).refusal(2);
    relay.say(&["relay", "on", "--endpoint", "127.0.0.1:4647"]).refusal(2);
    assert!(eventually(PATIENCE, || founder.ask(&["requests"]) != json!([])));
    relay.stop();
    relay.start();
    assert!(eventually(PATIENCE, || relay.ask(&["requests"]) != json!([])), "it outlasts the daemon");
    let request = founder.ask(&["requests"])[0].clone();
    let port = relay.endpoint().port();
    let own =
        [relay.host().v4(), relay.host().v6()].map(|address| std::net::SocketAddr::new(address, port).to_string());
    assert_eq!([&request["kind"], &request["tls_port"]], [&json!("relay"), &json!(443)]);
    assert_eq!(request["endpoints"], json!(own));
    founder.ask(&["approve", request["id"].as_str().unwrap()]);
    assert!(eventually(PATIENCE, || relay.ask(&["requests"]) == json!([])));
    let approved = format!("relay at {}, {}, TLS on port 443, class 2", own[0], own[1]);
    assert_eq!(said(&relay), [("relay-approve".to_owned(), approved)]);

    // Whoever relays may stop, and is told when there is nothing to stop.
    relay.ask(&["relay", "off"]);
    relay.say(&["relay", "off"]).refusal(5);
    relay.say(&["relay", "on"]).refusal(6);
    let refusal = relay.say(&["relay", "off"]).refusal(6);
    assert!(refusal.contains("asked for no more"), "{refusal}");

    // A signer needs nobody; only a validator has static endpoints of its own.
    founder.ask(&["relay", "on", "--class", "3", "--endpoint", "203.0.113.7:4647"]);
    founder.ask(&["ledger", "endpoints", "203.0.113.8:4647", "203.0.113.7:4647"]);
    founder.say(&["ledger", "endpoints", "203.0.113.8:4647", "--peer", "relay-1"]).refusal(5);
    founder.say(&["ledger", "endpoints", &format!("{}:4647", founder.v4())]).refusal(2);
    founder.ask(&["ledger", "endpoints"]);
    let last = said(&founder).split_off(2);
    let expected = [
        ("relay-approve", "relay at 203.0.113.7:4647, class 3"),
        ("endpoints-set", "at 203.0.113.7:4647, 203.0.113.8:4647"),
        ("endpoints-set", "no static endpoints"),
    ];
    assert_eq!(last, expected.map(|(op, detail)| (op.to_owned(), detail.to_owned())));
}
