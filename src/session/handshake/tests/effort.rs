//! What a datagram may cost: next to nothing before it is authenticated, and nothing twice after.

use super::*;
use crate::crypto::effort::{Effort, effort_of};
use crate::crypto::exchange::TransportSecret;
use crate::session::handshake::table::LOAD_THRESHOLD;
use crate::wire::handshake::{COOKIE_LEN, INITIATION_LEN, KEY_PART_LEN, RESPONSE_LEN};

const NOTHING: Effort = Effort { multiplications: 0, kem_operations: 0, hashes: 0, macs: 0 };

/// The right first bytes and the right length, and nothing else right.
fn garbage(front: [u8; 4], len: usize) -> Vec<u8> {
    let mut datagram = vec![0x77; len];
    datagram[..4].copy_from_slice(&front);
    datagram
}

#[test]
fn garbage_costs_one_authenticator_for_each_static_key_and_nothing_else() {
    let (left, mut right, mut initiator) = pair();
    for static_keys in [1, 2] {
        let only_macs = Effort { macs: static_keys, ..NOTHING };
        for datagram in [garbage([1, 0, 0, 0], INITIATION_LEN), garbage([2, 1, 0, 0], KEY_PART_LEN)] {
            let (outcome, effort) = effort_of(|| right.receive(after(0), at(1), &datagram));
            assert_eq!((refusal(outcome), effort), (Some(Refusal::Mac1), only_macs));
        }
        right.keys.rotate(TransportSecret::from_bytes([22; 32]));
    }
    for (front, len) in [([3, 0, 0, 0], RESPONSE_LEN[0]), ([3, 1, 0, 0], RESPONSE_LEN[1])] {
        let (outcome, effort) = effort_of(|| initiator.handle_response(left.local(), after(0), &garbage(front, len)));
        assert_eq!((outcome.err(), effort), (Some(Refusal::Mac1), Effort { macs: 1, ..NOTHING }));
    }
    let mut cookie = garbage([4, 0, 0, 0], COOKIE_LEN);
    cookie[4..8].copy_from_slice(&initiator.index().0.to_le_bytes());
    let (outcome, effort) = effort_of(|| initiator.handle_cookie(at(2), &cookie));
    assert_eq!((outcome.err(), effort), (Some(Refusal::Sealed), NOTHING));
}

#[test]
fn a_cookie_asked_for_under_load_costs_no_curve_operation() {
    let (mut left, mut right, _) = pair();
    let attempts: Vec<_> = (0..=LOAD_THRESHOLD).map(|_| left.initiate(after(0), 2)).collect();
    let (last, others) = attempts.split_last().unwrap();
    for attempt in others {
        let _ = right.receive(after(0), at(1), &flight(attempt, at(2))[0]);
    }
    let (outcome, effort) = effort_of(|| right.receive(after(0), at(1), &flight(last, at(2))[0]).unwrap());
    assert_eq!(outcome.transmit[0].len(), COOKIE_LEN);
    assert_eq!((effort.multiplications, effort.kem_operations), (0, 0));
}

#[test]
fn each_side_of_a_handshake_multiplies_five_times_and_uses_its_kem_as_often_as_the_pattern_says() {
    let (mut left, mut right, _) = pair();
    let counts = |effort: Effort| (effort.multiplications, effort.kem_operations);
    // e, es, ss; then ee, se
    let (aim, offer) = (aim(2), left.terms.offer(left.timestamps.next(crate::time::UnixMillis(1))));
    let index = left.indices.reserve(&mut left.rng).unwrap();
    let begin = || Initiator::new(after(1), &left.keys, aim, offer, index, &mut left.rng).unwrap();
    let (mut initiator, begun) = effort_of(begin);
    assert_eq!(counts(begun), (3, 1));
    let sent = flight(&initiator, at(2));
    // es, ss, e, ee, se
    let ((answers, _), answered) = effort_of(|| give(&mut right, after(1), at(1), &sent));
    assert_eq!(counts(answered), (5, 1));
    let (finished, ended) = effort_of(|| {
        initiator.handle_response(left.local(), after(1), &answers[0]).unwrap();
        initiator.handle_response(left.local(), after(1), &answers[1]).unwrap()
    });
    assert!(finished.is_some());
    assert_eq!(counts(ended), (2, 1));
}

#[test]
fn what_two_static_keys_agree_on_is_computed_once_while_both_are_members_keys() {
    let (mut left, mut right, _) = pair();
    let mut millis = 0;
    let mut multiplications = |left: &mut Node, right: &mut Node| {
        millis += 10_000;
        let sent = flight(&left.initiate(after(millis), 2), at(2));
        effort_of(|| give(right, after(millis), at(1), &sent)).1.multiplications
    };
    assert_eq!([(); 3].map(|()| multiplications(&mut left, &mut right)), [5, 4, 4]);
    let key = left.keys.transport_key();
    right.responder.handle_policy(&policy_of([2]));
    assert!(!right.responder.mentions(&key));
    assert_eq!([(); 2].map(|()| multiplications(&mut left, &mut right)), [5, 4]);
    // What its earlier key agreed on is of no use, and its earlier key still answers.
    right.keys.rotate(TransportSecret::from_bytes([0x77; 32]));
    assert_eq!([(); 2].map(|()| multiplications(&mut left, &mut right)), [5, 5]);
}

#[test]
fn an_attempt_at_an_unusable_key_ends_before_anything_is_drawn_or_generated() {
    let mut node = Node::new(1, policy_of([1, 2]));
    let offer = node.terms.offer(node.timestamps.next(crate::time::UnixMillis(1)));
    let index = node.indices.reserve(&mut node.rng).unwrap();
    let mut order_two = [0xff; 32]; // p - 1
    (order_two[0], order_two[31]) = (0xec, 0x7f);
    for unusable in [[0; 32], order_two] {
        let small = Aim { key: TransportKey(unusable), identity: None };
        let mut rng = node.rng.clone();
        let (begun, effort) = effort_of(|| Initiator::new(after(0), &node.keys, small, offer, index, &mut rng));
        assert_eq!(begun.err(), Some(ExchangeError::SmallOrder));
        assert_eq!(effort, Effort { multiplications: 1, ..NOTHING });
        assert!(rng == node.rng);
    }
}
