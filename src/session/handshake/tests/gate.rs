//! What passes the gate: the check of any thread, against the responder's own.

use super::*;
use crate::session::cookie::SECRET_LIFETIME;
use crate::session::handshake::gate::{Gate, Knock};
use crate::wire::datagram::SessionIndex;
use crate::wire::handshake::InitiationTag;
use std::collections::BTreeSet;
use std::sync::Arc;

fn gate(node: &Node) -> Gate {
    gate_to(node, [])
}

/// The gate of a node with these attempts under way.
fn gate_to<const COUNT: usize>(node: &Node, attempts: [SessionIndex; COUNT]) -> Gate {
    node.responder.gate(&node.keys, Arc::new(BTreeSet::from(attempts)))
}

/// A guest's attempt that was asked for a cookie, and paid.
fn paid() -> (Node, Initiator) {
    let mut right = Node::new(2, policy_of([2]));
    let mut guest = Node::new(1, policy_of([2]));
    let mut initiator = guest.initiate(after(0), 2);
    let cookie = give(&mut right, after(1), at(1), &flight(&initiator, at(2))[..1]).0.remove(0);
    initiator.handle_cookie(at(2), &cookie).unwrap();
    (right, initiator)
}

#[test]
fn a_flight_passes_and_the_gate_says_whether_it_was_paid_for() {
    let (_, right, initiator) = pair();
    let [d1, d2a, d2b] = flight(&initiator, at(2));
    let tag = InitiationTag(d2a[8..16].try_into().unwrap());
    assert_eq!(gate(&right).check(at(1), &d1), Ok(Knock::Opening { tag, is_paid: false }));
    for part in [&d2a, &d2b] {
        assert_eq!(gate(&right).check(at(1), part), Ok(Knock::Part(tag)));
    }
    let (right, initiator) = paid();
    let [d1, ..] = flight(&initiator, at(2));
    assert!(matches!(gate(&right).check(at(1), &d1), Ok(Knock::Opening { is_paid: true, .. })));
    assert_eq!(gate(&right).check(at(7), &d1), Err(Refusal::Mac2), "another source's cookie");
}

#[test]
fn answers_pass_to_the_initiator_they_were_made_for_and_to_nobody_else() {
    let (left, mut right, initiator) = pair();
    let (answers, _) = give(&mut right, after(1), at(1), &flight(&initiator, at(2)));
    assert_eq!(answers.len(), 2);
    for answer in &answers {
        assert_eq!(gate_to(&left, [initiator.index()]).check(at(2), answer), Ok(Knock::Answer));
        assert_eq!(gate_to(&right, [initiator.index()]).check(at(2), answer), Err(Refusal::Mac1));
    }
}

#[test]
fn an_answer_to_no_attempt_is_refused_whoever_made_it() {
    let (left, mut right, initiator) = pair();
    let (mut answers, _) = give(&mut right, after(1), at(1), &flight(&initiator, at(2)));
    let garbage = [&[4, 0, 0, 0], &initiator.index().0.to_le_bytes()[..], &[0xa5; 56]].concat();
    answers.push(garbage);
    let other = SessionIndex(initiator.index().0 ^ 1);
    for answer in &answers {
        assert_eq!(gate_to(&left, [initiator.index(), other]).check(at(2), answer), Ok(Knock::Answer));
        for gate in [gate(&left), gate_to(&left, [other])] {
            assert_eq!(gate.check(at(2), answer), Err(Refusal::NoAttempt));
        }
    }
}

#[test]
fn no_changed_byte_passes_and_nothing_passes_a_closed_gate_or_a_strangers() {
    let (right, initiator) = paid();
    let stranger = gate(&Node::new(3, policy_of([2])));
    let gate = gate(&right);
    for datagram in flight(&initiator, at(2)) {
        assert!(gate.check(at(1), &datagram).is_ok());
        assert_eq!(Gate::closed().check(at(1), &datagram), Err(Refusal::Mac1));
        assert_eq!(stranger.check(at(1), &datagram), Err(Refusal::Mac1));
        for position in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[position] ^= 0x20;
            assert!(gate.check(at(1), &changed).is_err(), "byte {position} of {}", datagram.len());
        }
    }
}

#[test]
fn a_new_cookie_secret_makes_a_new_gate_and_the_second_ends_the_old_cookies() {
    let (mut right, initiator) = paid();
    assert!(right.responder.take_gate_changed(), "the first gate is news");
    assert!(!right.responder.take_gate_changed());
    let [d1, ..] = flight(&initiator, at(2));
    let mut knocking = Node::new(4, policy_of([2]));
    for (lifetimes, is_accepted) in [(1, true), (2, false)] {
        let later = after(0) + SECRET_LIFETIME * lifetimes;
        let unpaid = flight(&knocking.initiate(later, 2), at(2));
        give(&mut right, later, at(5), &unpaid[..1]);
        assert!(right.responder.take_gate_changed());
        assert_eq!(gate(&right).check(at(1), &d1).is_ok(), is_accepted, "after {lifetimes} lifetimes");
    }
}
