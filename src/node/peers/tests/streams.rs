//! Links over TLS beside a peer's other ways.

use super::*;
use crate::path::LocalEnd;

/// Two members at these places, with a session since 1 ms.
fn acquainted_at(places: [[u8; 4]; 2]) -> (Side, Side) {
    let [here, there] = places.map(|place| SocketAddr::from((place, 4647)));
    let (mut left, mut right) = (Side::new(1, &[1, 2]), Side::new(2, &[1, 2]));
    (left.endpoint, right.endpoint) = (here, there);
    let (key, id) = (transport(2).public_key(), Some(NodeId([2; 32])));
    left.table.add_candidate(key, id, there, CandidateSource::Configured, |_| false).unwrap();
    left.connect(at(1), 2);
    carry(at(1), &mut left, &mut right);
    assert!(left.table.has_session(&key));
    (left, right)
}

#[test]
fn whoever_is_heard_by_udp_within_the_site_shows_nothing_of_what_is_beyond() {
    let is_heard = |left: &Side| left.table.is_udp_heard(at(100).instant, Instant::ZERO);
    let (left, _) = acquainted_at([[192, 0, 2, 1], [198, 51, 100, 7]]);
    assert!(is_heard(&left));
    // A colleague in another network of the company, where UDP is blocked at the border: no public address is known.
    let (mut left, _) = acquainted_at([[10, 1, 0, 1], [10, 2, 0, 1]]);
    assert!(!is_heard(&left));
    left.table.set_surroundings(Surroundings { connected: Vec::new(), public: vec![[203, 0, 113, 1].into()] });
    assert!(!is_heard(&left));
}

#[test]
fn a_link_that_comes_up_while_direct_ways_have_a_head_start_gets_its_flight_at_once() {
    let mut left = Side::new(1, &[1, 2]).knows(2);
    left.connect(at(1), 2);
    assert_eq!(left.sent().len(), 3);
    let link = Path { local: Some(LocalEnd::STREAM), ..SocketAddr::from(([192, 0, 2, 2], 443)).into() };
    let mut ctx = Context { now: at(100), policy: &left.policy, rng: &mut left.rng };
    left.table.stream_up(&mut ctx, transport(2).public_key(), link);
    let sent = left.sent();
    assert!(sent.len() == 3 && sent.iter().all(|transmit| transmit.path == link), "{sent:?}");
}
