//! Sources that a member makes up: its own keys are genuine, the address that a datagram claims to come from is a victim's.

use super::*;

fn victim() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 9], 53))
}

fn bytes_to(sent: &[Transmit], to: SocketAddr) -> usize {
    sent.iter().filter(|transmit| transmit.path.remote == to).map(|transmit| transmit.datagram.len()).sum()
}

/// A member that begins a handshake with a node which has 40 packets for it, and sends its flight from these places, in this order.
/// Returns both, and what the node answered.
fn knocked(sources: &[SocketAddr]) -> (Side, Side, Vec<Transmit>) {
    let (mut member, mut node) = (Side::new(1, &[1, 2]).knows(2), Side::new(2, &[1, 2]));
    (0..40).for_each(|_| node.stage(at(0), 1, vec![0x45; 1000]));
    member.connect(at(1), 2);
    let flight = member.sent();
    for source in sources {
        flight.iter().for_each(|transmit| node.receive(at(1), *source, transmit.datagram.clone()));
    }
    let answers = node.sent();
    (member, node, answers)
}

/// Lets the member read an answer, and its confirmation come to the node from `source`. Returns what the node sends then.
fn confirm_from(source: SocketAddr, member: &mut Side, node: &mut Side, answers: &[Transmit]) -> Vec<Transmit> {
    answers.iter().take(2).for_each(|answer| member.receive(at(2), node.endpoint, answer.datagram.clone()));
    let confirmation = member.sent();
    assert!(!confirmation.is_empty(), "the member has its session");
    confirmation.iter().for_each(|transmit| node.receive(at(3), source, transmit.datagram.clone()));
    node.sent()
}

#[test]
fn a_confirmation_from_where_no_answer_went_sends_nothing_there_but_a_probe() {
    let (mut member, mut node, answers) = knocked(&[endpoint(1)]);
    let sent = confirm_from(victim(), &mut member, &mut node, &answers);
    assert!((1..200).contains(&bytes_to(&sent, victim())), "{} bytes", bytes_to(&sent, victim()));
    assert_eq!(sent.len(), 1, "nobody is sent what waits");
    assert!(node.table.outlets().is_empty() && node.table.usable().count() == 0);
    assert!(!node.events().iter().any(|event| matches!(event, PeerEvent::Up(..))));
    // It speaks from where it is, and gets what waited.
    let repeated = member.table.send_stream(at(100), transport(2).public_key(), b"here", true);
    assert!(repeated);
    carry(at(100), &mut member, &mut node);
    assert_eq!(node.table.outlets()[&NodeId([1; 32])].path.remote, endpoint(1));
    assert!(node.events().iter().any(|event| matches!(event, PeerEvent::Up(..))));
}

#[test]
fn a_confirmation_from_where_the_answer_went_is_a_path_at_once() {
    let (mut member, mut node, answers) = knocked(&[endpoint(1)]);
    let sent = confirm_from(endpoint(1), &mut member, &mut node, &answers);
    assert!(bytes_to(&sent, endpoint(1)) > 40_000, "all that waited");
}

#[test]
fn an_answer_that_went_to_two_places_proves_neither_and_a_pong_does() {
    for sources in [[endpoint(1), victim()], [victim(), endpoint(1)]] {
        let (mut member, mut node, answers) = knocked(&sources);
        let to_victim = bytes_to(&answers, victim());
        assert!(to_victim > 0 && bytes_to(&answers, endpoint(1)) > 0, "both sent a whole flight");
        let sent = confirm_from(victim(), &mut member, &mut node, &answers);
        assert!(bytes_to(&sent, victim()) < 200, "{} bytes", bytes_to(&sent, victim()));
        assert!(node.table.outlets().is_empty());
    }
    let (mut member, mut node, answers) = knocked(&[victim(), endpoint(1)]);
    for transmit in confirm_from(endpoint(1), &mut member, &mut node, &answers) {
        member.receive(at(4), node.endpoint, transmit.datagram);
    }
    carry(at(5), &mut member, &mut node);
    assert_eq!(node.table.outlets()[&NodeId([1; 32])].path.remote, endpoint(1), "the answer to the probe proved it");
    let session = &node.table.outlets()[&NodeId([1; 32])].session;
    assert!(session.bytes_sent() > 40_000, "and what waited is gone");
}

#[test]
fn an_answer_from_one_of_many_places_that_a_record_names_sends_nothing_there_but_probes() {
    let (key, id) = (transport(2).public_key(), Some(NodeId([2; 32])));
    let (mut node, mut member) = (Side::new(1, &[1, 2]), Side::new(2, &[1, 2]));
    for named in [endpoint(2), victim()] {
        node.table.add_candidate(key, id, named, CandidateSource::Record, |_| false).unwrap();
    }
    (0..40).for_each(|_| node.stage(at(0), 2, vec![0x45; 1000]));
    let flights = node.sent();
    let own = flights.iter().filter(|transmit| transmit.path.remote == endpoint(2));
    own.for_each(|transmit| member.receive(at(1), node.endpoint, transmit.datagram.clone()));
    for answer in member.sent() {
        node.receive(at(2), victim(), answer.datagram);
    }
    let sent = node.sent();
    assert!((1..200).contains(&bytes_to(&sent, victim())), "{} bytes", bytes_to(&sent, victim()));
    assert!(node.table.outlets().is_empty());
    // The member reads nothing there, but answers whatever it hears of from where it is.
    for transmit in sent {
        member.receive(at(3), node.endpoint, transmit.datagram);
    }
    for transmit in member.sent() {
        node.receive(at(4), endpoint(2), transmit.datagram);
    }
    carry(at(1100), &mut node, &mut member);
    let remotes: Vec<_> = node.table.outlets().values().map(|outlet| outlet.path.remote).collect();
    assert_eq!(remotes, [victim()], "only who reads there moves it");
}

#[test]
fn a_peer_that_restarted_elsewhere_is_found_where_its_record_names_it() {
    let (mut node, _) = acquainted();
    let (key, id) = (transport(2).public_key(), NodeId([2; 32]));
    let mut restarted = Side::new(2, &[1, 2]);
    (restarted.endpoint, restarted.rng) = (endpoint(3), ChaCha20Rng::seed_from_u64(99));
    node.table.add_candidate(key, Some(id), restarted.endpoint, CandidateSource::Record, |_| false).unwrap();
    node.connect(at(1000), 2);
    for millis in (1000..3000).step_by(100) {
        node.handle_timeout(at(millis));
        restarted.handle_timeout(at(millis));
        carry(at(millis), &mut node, &mut restarted);
    }
    let outlets = node.table.outlets();
    assert_eq!(outlets[&id].path.remote, restarted.endpoint);
    assert!(outlets[&id].session.created() >= at(1000).instant, "in a session that it knows");
    assert_eq!(restarted.table.outlets().len(), 1);
}
