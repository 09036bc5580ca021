//! What honest nodes do, on paths that lose, reorder and duplicate.

use super::*;
use crate::crypto::aead::TransportCipher;
use crate::crypto::exchange::TransportSecret;
use crate::session::handshake::initiator::{InitiatorStep, InitiatorTimer};
use crate::session::handshake::table::{LOAD_THRESHOLD, MAX_HALF_OPEN_GUESTS, MAX_HALF_OPEN_PER_PEER, SEEN_GENERATION};
use crate::session::seal::{Role, Scope, SyncReason};
use crate::wire::datagram::{Lane, TRANSPORT_OVERHEAD, TransportHeader};
use crate::wire::handshake::{CipherSet, LedgerHead, Versions};

#[test]
fn both_ends_share_keys_indices_and_what_they_learnt() {
    let (mut left, mut right, mut initiator) = pair();
    right.terms.ledger = LedgerHead { height: 9, head: [9; 8] };
    let (near, far) = shake(after(0), &mut left, &mut initiator, &mut right);
    assert_eq!((near.session.role(), far.session.role()), (Role::Initiator, Role::Responder));
    assert_eq!(near.session.local_index(), far.session.remote_index());
    assert_eq!(near.session.remote_index(), far.session.local_index());
    assert_eq!(near.session.admission().transport_key(), &transport_key(2));
    assert_eq!(far.session.admission().transport_key(), &transport_key(1));
    assert_eq!((near.ledger.height, far.ledger.height), (9, 0));
    assert_eq!((near.session.scope(), far.session.scope()), (Scope::Full, Scope::Full));
    assert!(near.timestamp.is_none() && far.timestamp == Some(left.timestamps.last()) && !near.guest_there);
    for (from, to) in [(&near.session, &far.session), (&far.session, &near.session)] {
        let mut datagram = [0; TRANSPORT_OVERHEAD];
        from.claim_lane(Lane::NODE).unwrap().seal(after(0), &mut datagram).unwrap();
        let header = TransportHeader::decode(&datagram).unwrap();
        assert_eq!(to.open(after(0), &header, &mut datagram[16..]).map(|text| text.len()), Ok(0));
    }
}

#[test]
fn halves_verify_alone_and_in_any_order() {
    for (key_parts, answers) in [([1, 2], [0, 1]), ([2, 1], [1, 0])] {
        let (left, mut right, mut initiator) = pair();
        let sent = flight(&initiator, at(2));
        give(&mut right, after(0), at(1), &sent[..1]);
        let (first, _) = give(&mut right, after(0), at(1), &[sent[key_parts[0]].clone()]);
        assert_eq!(first.len(), 0);
        let (transmit, established) = give(&mut right, after(0), at(1), &[sent[key_parts[1]].clone()]);
        assert_eq!((transmit.len(), established.len()), (2, 1));
        assert!(initiator.handle_response(left.local(), after(0), &transmit[answers[0]]).unwrap().is_none());
        assert!(initiator.handle_response(left.local(), after(0), &transmit[answers[1]]).unwrap().is_some());
    }
}

#[test]
fn a_key_part_without_its_initiation_changes_nothing() {
    let (_, mut right, initiator) = pair();
    let sent = flight(&initiator, at(2));
    for part in &sent[1..] {
        assert_eq!(refusal(right.receive(after(0), at(1), part)), Some(Refusal::NoHandshake));
    }
    assert_eq!(right.responder.half_open_counts(), (0, 0));
    let (transmit, _) = give(&mut right, after(1), at(1), &sent);
    assert_eq!(transmit.len(), 2);
}

#[test]
fn duplicates_get_the_same_answer_and_never_more_bytes_than_were_sent() {
    let (_, mut right, initiator) = pair();
    let (mut sent_len, mut got_len, mut made) = (0, 0, 0);
    let (first, _) = give(&mut right, after(0), at(1), &flight(&initiator, at(2)));
    sent_len += flight(&initiator, at(2)).concat().len();
    got_len += first.concat().len();
    for round in 0..50 {
        let datagram = &flight(&initiator, at(2))[round % 3];
        let (transmit, established) = give(&mut right, after(10), at(1), std::slice::from_ref(datagram));
        sent_len += datagram.len();
        got_len += transmit.concat().len();
        made += established.len();
        assert!(got_len <= sent_len);
        assert!(transmit.iter().all(|answer| first.contains(answer)));
    }
    assert!(got_len > sent_len * 8 / 10, "{got_len} of {sent_len} bytes");
    assert_eq!(made, 0);
}

#[test]
fn one_initiation_at_many_candidates_is_answered_where_all_parts_came_from() {
    let (_, mut right, initiator) = pair();
    let sent = flight(&initiator, at(2));
    give(&mut right, after(0), at(1), &sent[..2]);
    give(&mut right, after(0), at(7), &sent[..1]);
    // The last part comes from elsewhere: the session is made, but nobody sent all of it.
    let (transmit, established) = give(&mut right, after(0), at(9), &sent[2..]);
    assert_eq!((transmit.len(), established.len()), (0, 1));
    let (transmit, established) = give(&mut right, after(0), at(7), &sent[1..]);
    assert_eq!((transmit.len(), established.len()), (2, 0));
    let (transmit, _) = give(&mut right, after(0), at(1), &sent[2..]);
    assert_eq!(transmit.len(), 2);
}

#[test]
fn more_candidates_than_a_table_holds_do_not_crowd_out_the_one_that_works() {
    let (_, mut right, initiator) = pair();
    let sent = flight(&initiator, at(2));
    for port in 100..200 {
        give(&mut right, after(0), at(port), &sent[..1]);
    }
    let (transmit, _) = give(&mut right, after(0), at(1), &sent);
    assert_eq!(transmit.len(), 2);
    for port in 100..200 {
        give(&mut right, after(0), at(port), &sent[..1]);
    }
    // The source that had its answer is still known: it gets no second one for a single datagram.
    let (transmit, _) = give(&mut right, after(0), at(1), &sent[..1]);
    assert_eq!(transmit.len(), 0);
}

#[test]
fn the_schedule_repeats_the_same_bytes_and_gives_up_after_five_seconds() {
    let (_, _, mut initiator) = pair();
    let bytes = flight(&initiator, at(2));
    for millis in [250, 750, 1750, 3750] {
        let (due, timer) = initiator.poll_timeout().unwrap();
        assert_eq!(timer, InitiatorTimer::Retransmit);
        assert!(due >= after(millis * 8 / 10) && due <= after(millis * 12 / 10), "{millis}: {due:?}");
        assert_eq!(initiator.handle_timeout(due - Duration::from_micros(1)), InitiatorStep::Wait);
        assert_eq!(initiator.handle_timeout(due), InitiatorStep::Retransmit);
        assert_eq!(flight(&initiator, at(2)), bytes);
    }
    assert_eq!(initiator.poll_timeout(), Some((after(5000), InitiatorTimer::GiveUp)));
    assert_eq!(initiator.handle_timeout(after(5000)), InitiatorStep::GaveUp);
}

#[test]
fn aes_is_chosen_only_when_both_want_it() {
    for (near, far) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut left, mut right, _) = pair();
        left.terms.ciphers = CipherSet { aes_256_gcm: near };
        right.terms.ciphers = CipherSet { aes_256_gcm: far };
        let mut initiator = left.initiate(after(0), 2);
        let (near_end, far_end) = shake(after(0), &mut left, &mut initiator, &mut right);
        let expected = if near && far { TransportCipher::Aes256Gcm } else { TransportCipher::ChaCha20Poly1305 };
        assert_eq!((near_end.session.cipher(), far_end.session.cipher()), (expected, expected));
    }
}

#[test]
fn a_peer_that_is_too_old_gets_a_sync_only_session_and_is_told() {
    let too_old = Scope::SyncOnly(SyncReason::VersionTooOld);
    let versions = |lowest, highest| Versions { lowest, highest };
    let cases = [
        (versions(1, 1), 1, versions(1, 2), 2, 1, too_old),
        (versions(3, 3), 3, versions(1, 2), 1, 2, too_old),
        (versions(1, 3), 1, versions(1, 2), 2, 2, Scope::Full),
    ];
    for (near, near_minimum, far, far_minimum, version, scope) in cases {
        let (mut left, mut right, _) = pair();
        (left.terms.versions, left.terms.minimum_version) = (near, near_minimum);
        (right.terms.versions, right.terms.minimum_version) = (far, far_minimum);
        let mut initiator = left.initiate(after(0), 2);
        let (near_end, far_end) = shake(after(0), &mut left, &mut initiator, &mut right);
        assert_eq!((near_end.version, far_end.version), (version, version));
        assert_eq!(near_end.session.scope(), scope);
    }
}

#[test]
fn a_rotated_key_still_answers_for_sync_only_and_a_forgotten_one_not_at_all() {
    let (mut left, mut right, mut initiator) = pair();
    right.keys.rotate(TransportSecret::from_bytes([22; 32]));
    let (near, far) = shake(after(0), &mut left, &mut initiator, &mut right);
    let retired = Scope::SyncOnly(SyncReason::KeyRetired);
    assert_eq!((near.session.scope(), far.session.scope()), (retired, retired));
    right.keys.forget_retired();
    let initiator = left.initiate(after(100), 2);
    let refused = right.receive(after(100), at(1), &flight(&initiator, at(2))[0]);
    assert_eq!(refusal(refused), Some(Refusal::Mac1));
}

#[test]
fn a_guest_pays_a_cookie_first_and_learns_its_standing() {
    let mut guest = Node::new(3, policy_of([]));
    let (_, mut right, _) = pair();
    let offer = guest.terms.offer(guest.timestamps.next(crate::time::UnixMillis(1)));
    let index = guest.indices.reserve(&mut guest.rng).unwrap();
    // A joiner knows nobody: its bootstrap peer is a guest to it, too.
    let unknown = Aim { identity: None, ..aim(2) };
    let mut initiator = Initiator::new(after(0), &guest.keys, unknown, offer, index, &mut guest.rng).unwrap();
    let bare = flight(&initiator, at(2));
    // What follows D1 is no error: it comes again when the cookie is paid.
    let (transmit, _) = give(&mut right, after(0), at(1), &bare);
    assert_eq!((transmit.len(), transmit[0].len()), (1, 64));
    assert_eq!(right.responder.half_open_counts(), (0, 0));
    assert_eq!(refusal(right.receive(after(1), at(1), &bare[0])), Some(Refusal::Seen));
    initiator.handle_cookie(at(2), &transmit[0]).unwrap();
    assert_eq!(flight(&initiator, at(8)), bare);
    // A cookie serves the address that it was given to, and no other.
    let paid = flight(&initiator, at(2));
    assert_eq!(paid[0][..156], bare[0][..156]);
    assert_eq!(refusal(right.receive(after(2), at(7), &paid[0])), Some(Refusal::Mac2));
    let (near, far) = shake(after(2), &mut guest, &mut initiator, &mut right);
    assert_eq!(right.responder.half_open_counts(), (0, 1));
    assert_eq!(far.session.admission().rights(), crate::policy::Rights::Guest);
    assert_eq!(near.session.admission().rights(), crate::policy::Rights::Guest);
    assert!(near.guest_there);
}

/// A guest's first initiation, once it has paid its cookie at `source`.
fn paid_initiation(right: &mut Node, seed: u8, source: Source) -> Vec<u8> {
    let mut guest = Node::new(seed, policy_of([2]));
    let mut attempt = guest.initiate(after(0), 2);
    let asked = right.receive(after(0), source, &flight(&attempt, at(2))[0]).unwrap();
    attempt.handle_cookie(at(2), &asked.transmit[0]).unwrap();
    flight(&attempt, at(2))[0].clone()
}

#[test]
fn guests_fill_neither_their_table_from_one_address_nor_the_members_table_at_all() {
    let (_, mut right, initiator) = pair();
    let mut admit = |seed: u8, endpoint: String| {
        let source = Source::Endpoint(endpoint.parse().unwrap());
        let initiation = paid_initiation(&mut right, seed, source);
        refusal(right.receive(after(0), source, &initiation))
    };
    let room_for = |refusals: &[Option<Refusal>]| refusals.iter().filter(|refused| refused.is_none()).count();
    // One host has all ports of its address, and all addresses of an IPv6 network.
    let one_v4: Vec<_> = (10..20).map(|seed| admit(seed, format!("192.0.2.1:{}", 1000 + u16::from(seed)))).collect();
    let one_v6: Vec<_> = (20..30).map(|seed| admit(seed, format!("[2001:db8::{seed}:{seed}]:{seed}"))).collect();
    for from_one in [one_v4, one_v6] {
        assert_eq!(room_for(&from_one), MAX_HALF_OPEN_PER_PEER);
        assert_eq!(from_one.last(), Some(&Some(Refusal::PeerFull)));
    }
    let from_many: Vec<_> = (30..130).map(|seed| admit(seed, format!("198.51.100.{seed}:5"))).collect();
    assert_eq!(room_for(&from_many), MAX_HALF_OPEN_GUESTS - 2 * MAX_HALF_OPEN_PER_PEER);
    assert_eq!(from_many.last(), Some(&Some(Refusal::HalfOpenFull)));
    let (transmit, _) = give(&mut right, after(0), at(1), &flight(&initiator, at(2)));
    assert_eq!(transmit.len(), 2);
}

#[test]
fn copies_of_a_guests_initiation_from_a_false_address_take_no_place_of_whoever_lives_there() {
    let (_, mut right, _) = pair();
    let victim = Source::Endpoint("198.51.100.1:5".parse().unwrap());
    for seed in 10..10 + MAX_HALF_OPEN_PER_PEER as u8 {
        let initiation = paid_initiation(&mut right, seed, at(1));
        right.receive(after(0), at(1), &initiation).unwrap();
        let mut unpaid = initiation;
        unpaid[156..].fill(0);
        right.receive(after(0), victim, &unpaid).unwrap();
    }
    let initiation = paid_initiation(&mut right, 50, victim);
    assert_eq!(refusal(right.receive(after(0), victim, &initiation)), None);
}

#[test]
fn under_load_a_member_pays_a_cookie_before_any_key_exchange() {
    let (mut left, mut right, _) = pair();
    // Strangers that know the network's secret: valid mac1, and nothing else.
    let network = keys(9).network_keys(&transport_key(2));
    for count in 0..=LOAD_THRESHOLD {
        let mut garbage = vec![0x77; 172];
        garbage[..4].copy_from_slice(&[1, 0, 0, 0]);
        garbage[4..8].copy_from_slice(&count.to_le_bytes());
        garbage[156..].fill(0);
        let mac1 = network.mac1(&garbage[..140]);
        garbage[140..156].copy_from_slice(&mac1);
        let outcome = right.receive(after(0), at(5), &garbage);
        assert_eq!(outcome.is_ok(), count == LOAD_THRESHOLD, "initiation {count}");
    }
    assert!(right.responder.is_under_load(after(1)));
    let mut initiator = left.initiate(after(1), 2);
    let (transmit, _) = give(&mut right, after(1), at(1), &flight(&initiator, at(2))[..1]);
    assert_eq!(transmit[0].len(), 64);
    initiator.handle_cookie(at(2), &transmit[0]).unwrap();
    let (_, established) = give(&mut right, after(2), at(1), &flight(&initiator, at(2)));
    assert_eq!(established.len(), 1);
    assert!(!right.responder.is_under_load(after(2000)));
}

#[test]
fn a_replayed_flight_gets_nothing_after_its_state_is_gone() {
    let (mut left, mut right, mut initiator) = pair();
    let sent = flight(&initiator, at(2));
    shake(after(0), &mut left, &mut initiator, &mut right);
    for (millis, expected) in [(8000, Refusal::Seen), (300_000, Refusal::Stale), (300_001, Refusal::Seen)] {
        assert_eq!(refusal(right.receive(after(millis), at(1), &sent[0])), Some(expected), "{millis} ms");
        assert_eq!(refusal(right.receive(after(millis), at(1), &sent[1])), Some(Refusal::NoHandshake));
        assert_eq!(right.responder.half_open_counts(), (0, 0));
    }
    assert!(after(300_000) > after(8000) + 2 * SEEN_GENERATION);
}

#[test]
fn a_stored_timestamp_refuses_a_replay_after_a_restart() {
    let (_, mut right, initiator) = pair();
    let sent = flight(&initiator, at(2));
    let (_, established) = give(&mut right, after(0), at(1), &sent);
    let mut restarted = Node::new(2, policy_of([1, 2]));
    restarted.responder.import_timestamp(transport_key(1), established[0].timestamp.unwrap());
    assert_eq!(refusal(restarted.receive(after(0), at(1), &sent[0])), Some(Refusal::Stale));
    assert_eq!(restarted.responder.timestamps().count(), 1);
}

#[test]
fn an_older_initiation_that_comes_late_is_refused_and_a_fifth_waits() {
    let (mut left, mut right, first) = pair();
    let attempts: Vec<_> = (1..=MAX_HALF_OPEN_PER_PEER as u64 + 1).map(|step| left.initiate(after(step), 2)).collect();
    let (last, others) = attempts.split_last().unwrap();
    for attempt in others {
        give(&mut right, after(10), at(1), &flight(attempt, at(2))[..1]);
    }
    assert_eq!(refusal(right.receive(after(10), at(1), &flight(&first, at(2))[0])), Some(Refusal::Stale));
    assert_eq!(refusal(right.receive(after(10), at(1), &flight(last, at(2))[0])), Some(Refusal::PeerFull));
    // A refusal for want of room is not held against it.
    assert_eq!(right.responder.poll_timeout(), Some(after(8010)));
    assert!(right.receive(after(8010), at(1), &flight(last, at(2))[0]).is_ok());
}

#[test]
fn a_cut_leaves_no_initiation_and_no_cached_answer() {
    let (_, mut right, initiator) = pair();
    let sent = flight(&initiator, at(2));
    give(&mut right, after(0), at(1), &sent);
    assert!(right.responder.mentions(&transport_key(1)));
    right.responder.handle_policy(&policy_of([1, 2, 3]));
    assert!(right.responder.mentions(&transport_key(1)));
    right.responder.handle_policy(&policy_of([2]));
    assert!(!right.responder.mentions(&transport_key(1)));
    assert_eq!(right.responder.poll_timeout(), None);
    assert_eq!(refusal(right.receive(after(1), at(1), &sent[0])), Some(Refusal::Seen));
}

#[test]
fn a_revocation_between_the_parts_ends_the_handshake() {
    let (_, mut right, initiator) = pair();
    let sent = flight(&initiator, at(2));
    give(&mut right, after(0), at(1), &sent[..2]);
    right.policy = policy_of([2]);
    assert_eq!(refusal(right.receive(after(0), at(1), &sent[2])), Some(Refusal::PolicyChanged));
    assert!(right.indices.is_empty());
}

#[test]
fn an_initiator_gets_no_session_with_anybody_but_the_member_it_aimed_for() {
    let (mut left, mut right, mut initiator) = pair();
    let (transmit, _) = give(&mut right, after(0), at(1), &flight(&initiator, at(2)));
    left.policy = policy_of([1]);
    assert!(initiator.handle_response(left.local(), after(0), &transmit[0]).is_ok());
    let refused = initiator.handle_response(left.local(), after(0), &transmit[1]);
    assert_eq!(refused.err(), Some(Refusal::NotTheAimed));
}

#[test]
fn a_responder_that_was_restarted_in_between_is_answered_anew() {
    let (left, mut right, mut initiator) = pair();
    let (lost, _) = give(&mut right, after(0), at(1), &flight(&initiator, at(2)));
    assert!(initiator.handle_response(left.local(), after(0), &lost[0]).unwrap().is_none());
    let mut restarted = Node::new(2, policy_of([1, 2]));
    restarted.rng = rand_core::SeedableRng::seed_from_u64(77);
    let (transmit, _) = give(&mut restarted, after(300), at(1), &flight(&initiator, at(2)));
    assert!(initiator.handle_response(left.local(), after(300), &transmit[1]).unwrap().is_none());
    assert!(initiator.handle_response(left.local(), after(300), &transmit[0]).unwrap().is_some());
}
