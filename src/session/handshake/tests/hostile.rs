//! Altered, cut, random and reflected datagrams. The attacker knows the network's secret and repairs every mac1.

use super::*;
use crate::session::testing::Node;
use crate::wire::handshake::{COOKIE_LEN, MAC_LEN};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// Where mac1 lies, counted from the end: before mac2, where there is one.
fn mac1_end(datagram: &[u8]) -> usize {
    match datagram[0] {
        2 => datagram.len(),
        _ => datagram.len() - MAC_LEN,
    }
}

/// Flips each bit of `datagram` in turn, once plainly and once with mac1 made anew for `receiver`.
fn every_flip(datagram: &[u8], receiver: u8) -> Vec<(usize, Vec<u8>)> {
    let network = keys(9).network_keys(&transport_key(receiver));
    let mut flips = Vec::new();
    for bit in 0..datagram.len() * 8 {
        let mut altered = datagram.to_vec();
        altered[bit / 8] ^= 1 << (bit % 8);
        flips.push((bit, altered.clone()));
        let covered_len = mac1_end(datagram) - MAC_LEN;
        if bit / 8 < covered_len {
            let mac1 = network.mac1(&altered[..covered_len]);
            altered[covered_len..covered_len + MAC_LEN].copy_from_slice(&mac1);
            flips.push((bit, altered));
        }
    }
    flips
}

#[test]
fn no_bit_of_d1_can_change() {
    let (_, mut right, initiator) = pair();
    let sent = flight(&initiator, at(2));
    for (bit, altered) in every_flip(&sent[0], 2) {
        // A flood of valid mac1 would put the responder under load, which answers with cookies; each comes in a second of its own.
        let now = after(1000 * bit as u64);
        assert!(right.receive(now, at(1), &altered).is_err(), "bit {bit}");
    }
    assert_eq!((right.responder.half_open_counts(), right.responder.seen_count()), ((0, 0), 0));
    assert_eq!(right.responder.timestamps().count(), 0);
    assert!(right.receive(after(2_000_000), at(1), &sent[0]).is_ok());
}

#[test]
fn no_bit_of_d2a_or_d2b_can_change_before_or_after_the_true_one() {
    for part in [1, 2] {
        let (_, mut right, initiator) = pair();
        let sent = flight(&initiator, at(2));
        give(&mut right, after(0), at(1), &sent[..1]);
        for (bit, altered) in every_flip(&sent[part], 2) {
            assert!(right.receive(after(0), at(1), &altered).is_err(), "part {part} bit {bit}");
        }
        give(&mut right, after(0), at(1), &sent[part..=part]);
        for (bit, altered) in every_flip(&sent[part], 2) {
            assert!(right.receive(after(0), at(1), &altered).is_err(), "part {part} bit {bit} after the true one");
        }
        let (transmit, established) = give(&mut right, after(0), at(1), &sent[3 - part..=3 - part]);
        assert_eq!((transmit.len(), established.len()), (2, 1));
    }
}

#[test]
fn no_bit_of_m2a_or_m2b_can_change() {
    let (left, mut right, mut initiator) = pair();
    let (answers, _) = give(&mut right, after(0), at(1), &flight(&initiator, at(2)));
    // The second payload opens only once both halves are there, so M2b is altered after M2a came.
    for answer in &answers {
        for (bit, altered) in every_flip(answer, 1) {
            assert!(initiator.handle_response(left.local(), after(0), &altered).is_err(), "bit {bit}");
        }
        let done = initiator.handle_response(left.local(), after(0), answer).unwrap();
        assert_eq!(done.is_some(), answer == &answers[1]);
    }
}

#[test]
fn an_answer_to_another_attempt_is_told_from_a_forgery() {
    let (mut left, mut right, initiator) = pair();
    let (answers, _) = give(&mut right, after(0), at(1), &flight(&initiator, at(2)));
    let mut other = left.initiate(after(1), 2);
    let refused = other.handle_response(left.local(), after(1), &answers[0]);
    assert_eq!(refused.err(), Some(Refusal::NoAttempt));
}

#[test]
fn an_altered_payload_before_m2a_came_does_not_stop_the_true_one() {
    let (left, mut right, mut initiator) = pair();
    let (answers, _) = give(&mut right, after(0), at(1), &flight(&initiator, at(2)));
    let altered = every_flip(&answers[1], 1).into_iter().rfind(|(bit, _)| bit / 8 == 610).unwrap().1;
    assert!(initiator.handle_response(left.local(), after(0), &altered).unwrap().is_none());
    let refused = initiator.handle_response(left.local(), after(0), &answers[0]);
    assert_eq!(refused.err(), Some(Refusal::Sealed));
    assert!(initiator.handle_response(left.local(), after(0), &answers[1]).unwrap().is_some());
}

#[test]
fn no_bit_of_a_cookie_can_change_and_mac2_is_zero_or_valid() {
    let (mut left, mut right, _) = pair();
    right.policy = policy_of([2]);
    let mut initiator = left.initiate(after(0), 2);
    let (asked, _) = give(&mut right, after(0), at(1), &flight(&initiator, at(2))[..1]);
    for bit in 0..asked[0].len() * 8 {
        let mut altered = asked[0].clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(initiator.handle_cookie(at(2), &altered).is_err(), "bit {bit}");
    }
    initiator.handle_cookie(at(2), &asked[0]).unwrap();
    let paid = flight(&initiator, at(2))[0].clone();
    for bit in 156 * 8..172 * 8 {
        let mut altered = paid.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(refusal(right.receive(after(1), at(1), &altered)), Some(Refusal::Mac2), "bit {bit}");
    }
}

#[test]
fn nothing_cut_off_is_taken() {
    let (mut left, mut right, mut initiator) = pair();
    let sent = flight(&initiator, at(2));
    for (position, datagram) in sent.iter().enumerate() {
        for len in 0..datagram.len() {
            assert!(right.receive(after(0), at(1), &datagram[..len]).is_err(), "datagram {position}, {len} bytes");
        }
        give(&mut right, after(0), at(1), &sent[position..position]);
    }
    let (answers, _) = give(&mut right, after(0), at(1), &sent);
    for answer in &answers {
        for len in 0..answer.len() {
            assert!(initiator.handle_response(left.local(), after(0), &answer[..len]).is_err(), "{len} bytes");
        }
    }
    right.policy = policy_of([2]);
    let asked = right.receive(after(0), at(1), &flight(&left.initiate(after(1), 2), at(2))[0]).unwrap().transmit;
    for len in 0..asked[0].len() {
        assert!(initiator.handle_cookie(at(2), &asked[0][..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn random_bytes_of_every_length_get_no_answer_and_fill_no_table() {
    let (left, mut right, mut initiator) = pair();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut bytes = vec![0; 65_507];
    rng.fill_bytes(&mut bytes);
    for len in 0..=65_507 {
        bytes[0] = (len % 19) as u8; // each type in turn, and unknown ones
        let datagram = &bytes[..len];
        assert!(right.receive(after(0), at(1), datagram).is_err(), "{len} bytes");
        if len < 1000 {
            assert!(initiator.handle_response(left.local(), after(0), datagram).is_err());
            assert!(initiator.handle_cookie(at(2), datagram).is_err());
        }
    }
    // The right lengths, types and reserved bytes, and nothing else right.
    for _ in 0..2000 {
        for (len, head) in [(172, [1, 0, 0, 0]), (640, [2, 0, 0, 0]), (640, [2, 1, 0, 0]), (64, [4, 0, 0, 0])] {
            rng.fill_bytes(&mut bytes[..len]);
            bytes[..4].copy_from_slice(&head);
            assert!(right.receive(after(0), at(1), &bytes[..len]).is_err());
        }
    }
    assert_eq!((right.responder.half_open_counts(), right.responder.seen_count()), ((0, 0), 0));
    assert!(right.indices.is_empty());
}

#[test]
fn every_unauthenticated_datagram_gets_at_most_as_many_bytes_as_it_has() {
    let network = keys(9).network_keys(&transport_key(2));
    let mut right = Node::new(2, policy_of([1, 2]));
    let (mut received_len, mut sent_len, mut cookies) = (0, 0, 0);
    // A flood of initiations by somebody who knows the network's secret: each new one gets at most a cookie, a repeated one nothing.
    for count in 0..3000u32 {
        let mut datagram = vec![0x77; 172];
        datagram[..4].copy_from_slice(&[1, 0, 0, 0]);
        datagram[4..8].copy_from_slice(&(count / 2).to_le_bytes());
        datagram[156..].fill(0);
        let mac1 = network.mac1(&datagram[..140]);
        datagram[140..156].copy_from_slice(&mac1);
        received_len += datagram.len();
        if let Ok(outcome) = right.receive(after(0), at(5), &datagram) {
            assert_eq!(outcome.transmit.len(), 1);
            assert_eq!(outcome.transmit[0].len(), COOKIE_LEN);
            assert!(outcome.established.is_none());
            cookies += 1;
            sent_len += COOKIE_LEN;
        }
    }
    assert!(cookies > 1000 && sent_len <= received_len);
    assert_eq!(cookies, right.responder.seen_count());
    assert_eq!(right.responder.half_open_counts(), (0, 0));
}

#[test]
fn a_reflected_flight_and_ones_own_key_get_no_session() {
    let (mut left, _, initiator) = pair();
    for datagram in flight(&initiator, at(2)) {
        assert_eq!(refusal(left.receive(after(0), at(2), &datagram)), Some(Refusal::Mac1));
    }
    let to_itself = left.initiate(after(1), 1);
    let refused = left.receive(after(1), at(2), &flight(&to_itself, at(1))[0]);
    assert_eq!(refusal(refused), Some(Refusal::OwnKey));
}

#[test]
fn another_network_is_not_understood() {
    let (_, mut right, initiator) = pair();
    let sent = flight(&initiator, at(2));
    right.keys = keys_with(2, [1; 32]);
    assert_eq!(refusal(right.receive(after(0), at(1), &sent[0])), Some(Refusal::Mac1));
    right.keys = keys(2);
    right.keys.network_id = crate::crypto::hash::Digest([2; 32]);
    assert_eq!(refusal(right.receive(after(0), at(1), &sent[0])), Some(Refusal::Sealed));
}
