//! Tickets that do not work: each is refused with its reason, nothing is lost, and `join` with a good one works after it.

use crate::lab::{Lab, eventually};
use crate::node::{NETWORK, Node, PATIENCE, founder};
use serde_json::json;
use std::net::SocketAddr;

/// Joins by a ticket that has to be refused and returns the reason, which `wait` and `status` say alike. It stays refused after a restart.
fn refused(node: &mut Node, ticket: &str) -> String {
    let name = node.name().to_owned();
    node.ask(&["join", ticket, "--name", &name, "--no-start"]);
    node.start();
    let mut reasons = Vec::new();
    for _ in 0..2 {
        let message = node.say(&["wait", "--for", "online", "--timeout", "60"]).refusal(6);
        let network = node.status()["network"].clone();
        assert_eq!(network["state"], "refused", "{network}");
        let reason = network["reason"].as_str().unwrap().to_owned();
        assert!(message.contains(&reason), "{message}: {reason}");
        reasons.push(reason);
        node.stop();
        node.start();
    }
    node.stop();
    assert_eq!(reasons[0], reasons[1], "the reason after a restart");
    assert!(!node.state().join("ticket").exists(), "a ticket that does not work is still there");
    reasons.swap_remove(0)
}

/// Lets a refused node come in by a good ticket, as the same node.
fn accepted(node: &mut Node, founder: &Node, ticket: &str) {
    let id = identity(node);
    node.join(ticket);
    founder.meet(node);
    assert_eq!(node.status()["node"]["id"], id);
    assert!(!node.state().join("refusal").exists(), "it is in, and was refused before");
}

fn identity(node: &Node) -> String {
    let seed = p2plus::io::key_file::read_key(&node.state(), p2plus::io::key_file::KeyKind::Identity).unwrap();
    p2plus::crypto::identity::SigningKey::from_seed(seed.expose()).node_id().to_string()
}

#[test]
fn a_garbled_ticket_is_refused_where_it_is_typed_and_makes_nothing() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let ada = Node::new(&lab.host("ada"), "ada");
    let ticket = founder.invite(&[]);
    let mut swapped: Vec<char> = ticket.chars().collect();
    let middle = swapped.len() / 2;
    swapped[middle] = if swapped[middle] == 'q' { 'p' } else { 'q' };
    let swapped: String = swapped.into_iter().collect();
    for garbled in [&ticket[..ticket.len() - 7], &ticket[8..], &swapped, "", "hello"] {
        let message = ada.say(&["join", garbled, "--no-start"]).refusal(2);
        assert!(message.contains("ticket"), "{garbled}: {message}");
    }
    assert_eq!(std::fs::read_dir(ada.state_dir()).unwrap().count(), 0);
}

#[test]
fn a_ticket_stands_alone_on_standard_output() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let said = founder.say_plainly(&["invite", "--endpoint", &founder.endpoint().to_string()]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.starts_with("p2plus1") && said.out.lines().count() == 1, "{said:?}");
    assert!(said.error.contains("tx "), "{said:?}");
}

#[test]
fn an_expired_ticket_is_refused_with_that_reason() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let mut ada = Node::new(&lab.host("ada"), "ada");
    let ticket = founder.invite(&["--expires", "1s"]);
    assert!(eventually(PATIENCE, || founder.ask(&["invites"]) == json!([])));
    let reason = refused(&mut ada, &ticket);
    assert!(reason.contains("expired"), "{reason}");
    accepted(&mut ada, &founder, &founder.invite(&[]));
}

#[test]
fn a_ticket_for_one_is_refused_to_the_second() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let ticket = founder.invite(&[]);
    let mut ada = Node::new(&lab.host("ada"), "ada");
    ada.join(&ticket);
    let mut ben = Node::new(&lab.host("ben"), "ben");
    let reason = refused(&mut ben, &ticket);
    assert!(reason.contains("use"), "{reason}");
    accepted(&mut ben, &founder, &founder.invite(&[]));
    ada.meet(&ben);
}

#[test]
fn two_that_race_with_a_ticket_for_one_end_as_one_member_and_one_refused() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let ticket = founder.invite(&[]);
    let mut nodes = ["ada", "ben"].map(|name| Node::new(&lab.host(name), name));
    for node in &nodes {
        node.ask(&["join", &ticket, "--name", node.name(), "--no-start"]);
    }
    nodes.iter_mut().for_each(|node| node.launch(&[]));
    let mut codes = nodes.each_ref().map(|node| node.say(&["wait", "--for", "online", "--timeout", "60"]).code);
    codes.sort_unstable();
    assert_eq!(codes, [0, 6]);
    assert_eq!(founder.ask(&["members"]).as_array().unwrap().len(), 2);
}

#[test]
fn a_ticket_whose_invite_was_ended_is_refused() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let mut ada = Node::new(&lab.host("ada"), "ada");
    let ticket = founder.invite(&[]);
    let credential = founder.ask(&["invites"])[0]["credential"].as_str().unwrap().to_owned();
    founder.ask(&["invites", "revoke", &credential[..10]]);
    founder.say(&["invites", "revoke", &credential]).refusal(5);
    let reason = refused(&mut ada, &ticket);
    assert!(!reason.is_empty());
    accepted(&mut ada, &founder, &founder.invite(&[]));
}

#[test]
fn a_name_that_somebody_has_is_refused_and_the_ticket_lives_on() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let ticket = founder.invite(&[]);
    let mut ada = Node::new(&lab.host("ada"), "ada");
    ada.ask(&["join", &ticket, "--name", "founder", "--no-start"]);
    ada.start();
    let message = ada.say(&["wait", "--for", "online", "--timeout", "60"]).refusal(6);
    assert!(message.contains("name"), "{message}");
    ada.stop();
    accepted(&mut ada, &founder, &ticket);
}

#[test]
fn a_ticket_of_another_network_of_the_same_name_changes_nothing_at_a_member() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let mut stranger = Node::new(&lab.host("stranger"), "stranger");
    stranger.found();
    let foreign = stranger.invite(&[]);
    let mut ada = Node::new(&lab.host("ada"), "ada");
    ada.join(&founder.invite(&[]));
    ada.stop();
    let message = ada.say(&["join", &foreign, "--no-start"]).refusal(8);
    assert!(message.contains("another network") && message.contains(NETWORK), "{message}");
    // Nor does a further one of its own network.
    ada.say(&["join", &founder.invite(&[]), "--no-start"]).refusal(8);
    ada.start();
    founder.meet(&ada);
}

#[test]
fn a_ticket_that_leads_to_another_network_keeps_the_node_waiting_and_can_be_replaced() {
    let Some(mut lab) = Lab::new() else { return };
    let founder = founder(&mut lab);
    let mut stranger = Node::new(&lab.host("stranger"), "stranger");
    stranger.found();
    // A network that has moved: at the ticket's endpoint now lives another one of that name.
    let astray: SocketAddr = stranger.endpoint();
    let ticket = founder.invite_by(astray, &[]);
    let mut ada = Node::new(&lab.host("ada"), "ada");
    ada.ask(&["join", &ticket, "--name", "ada", "--no-start"]);
    ada.start();
    // The stranger got the handshake and did not know what to do with it.
    let refused = || stranger.drops("bad_mac") + stranger.drops("handshake_refused") > 0;
    assert!(eventually(PATIENCE, refused), "{}", stranger.status()["drops"]);
    ada.say(&["wait", "--for", "online", "--timeout", "0.3"]).refusal(7);
    assert_eq!(ada.status()["network"]["state"], "joining");
    ada.stop();
    accepted(&mut ada, &founder, &founder.invite(&[]));
    assert_eq!(stranger.ask(&["members"]).as_array().unwrap().len(), 1);
}
