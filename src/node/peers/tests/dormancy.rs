//! Sessions whose path may be forgotten between: what is sent first is not lost with it.

use super::*;

/// A packet of the host's: longer than a control message, shorter than a handshake.
const PACKET: [u8; 333] = [0x45; 333];

fn is_packet(transmit: &Transmit) -> bool {
    (PACKET.len()..400).contains(&transmit.datagram.len())
}

fn is_usable(side: &Side) -> bool {
    !side.table.outlets().is_empty()
}

/// Two that had a session, and said nothing in it up to a second.
fn silent_until(second: u64) -> (Side, Side) {
    let (mut left, mut right) = acquainted();
    pass(1000..second * 1000, &mut left, &mut right);
    (left, right)
}

#[test]
fn a_session_that_nothing_was_heard_in_for_long_sends_by_the_node_alone() {
    let (left, right) = silent_until(20);
    assert!(is_usable(&left) && is_usable(&right));
    let (left, right) = silent_until(45);
    assert!(left.table.has_session(&transport(2).public_key()) && !is_usable(&left) && !is_usable(&right));
}

#[test]
fn one_that_is_kept_stays_awake_at_both_ends() {
    let (mut left, mut right) = acquainted();
    left.table.keep(BTreeSet::from([transport(2).public_key()]));
    for second in 1..100 {
        pass(second * 1000..(second + 1) * 1000, &mut left, &mut right);
        assert!(is_usable(&left) && is_usable(&right), "in second {second}");
    }
}

#[test]
fn one_on_a_link_of_this_host_never_sleeps() {
    let (mut left, mut right) = acquainted();
    let connected = vec!["192.0.2.0/24".parse().unwrap()];
    left.table.set_surroundings(Surroundings { connected, ..Surroundings::default() });
    pass(1000..45_000, &mut left, &mut right);
    assert!(is_usable(&left) && !is_usable(&right));
}

#[test]
fn a_packet_to_one_that_sleeps_leaves_at_once_and_once_where_the_path_works() {
    let (mut left, mut right) = silent_until(45);
    left.stage(at(45_000), 2, PACKET.to_vec());
    let sent = left.sent();
    assert_eq!(sent.iter().filter(|transmit| is_packet(transmit)).count(), 1);
    assert!(sent.len() > 1, "and asks whether it arrives");
    assert!(!is_usable(&left), "nobody knows yet");
    // What comes meanwhile goes the same way.
    left.stage(at(45_010), 2, PACKET.to_vec());
    let more = left.sent();
    assert_eq!(more.iter().filter(|transmit| is_packet(transmit)).count(), 1);
    let answers = |right: &mut Side, sent: Vec<Transmit>| {
        // The packets themselves end in a data thread.
        let asked = sent.into_iter().filter(|transmit| !is_packet(transmit)).collect();
        right.receive_all(at(45_050), endpoint(1), asked);
        right.sent()
    };
    let pongs = answers(&mut right, sent);
    left.receive_all(at(45_100), endpoint(2), pongs);
    assert!(is_usable(&left));
    let later = left.sent();
    assert!(!later.iter().any(is_packet), "the copies are not needed: {}", later.len());
    left.stage(at(45_200), 2, PACKET.to_vec());
    assert_eq!(left.sent().iter().filter(|transmit| is_packet(transmit)).count(), 1);
    assert_eq!(left.dropped(DropReason::NoPath), 0);
}

#[test]
fn where_the_path_is_dead_others_are_asked_for_help_and_what_was_sent_goes_by_the_next_way() {
    let (mut left, mut right) = silent_until(45);
    left.events();
    left.stage(at(45_000), 2, PACKET.to_vec());
    // Something between ate it all.
    left.sent();
    let mut sought_at = None;
    for millis in 45_000..46_000 {
        left.handle_timeout(at(millis));
        left.sent();
        if sought_at.is_none() && left.events().iter().any(|event| matches!(event, PeerEvent::Sought(_))) {
            sought_at = Some(millis);
        }
    }
    assert!(sought_at.is_some_and(|millis| millis < 45_500), "{sought_at:?}");
    assert!(!is_usable(&left));
    // The peer is found at another place: it speaks from there, is asked there, and answers.
    let elsewhere = endpoint(77);
    right.ping(at(46_000), transport(1).public_key());
    let from_right = right.sent();
    left.receive_all(at(46_010), elsewhere, from_right);
    let asked: Vec<_> = left.sent().into_iter().filter(|transmit| transmit.path.remote == elsewhere).collect();
    assert!(!asked.is_empty() && !asked.iter().any(is_packet));
    right.endpoint = elsewhere;
    right.receive_all(at(46_020), endpoint(1), asked);
    let pongs = right.sent();
    left.receive_all(at(46_030), elsewhere, pongs);
    assert!(is_usable(&left));
    let copies: Vec<_> = left.sent().into_iter().filter(is_packet).collect();
    assert!(copies.len() == 1 && copies[0].path.remote == elsewhere, "{}", copies.len());
}
