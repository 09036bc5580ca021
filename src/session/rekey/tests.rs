//! Two nodes' sessions in time, with real handshakes and an invented clock.

mod crossing;

use super::super::testing::{Node, at, policy_of, shake};
use super::*;
use crate::session::Responder;
use crate::wire::datagram::{Lane, TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD, TransportHeader};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

const LOW: u8 = 1;
const HIGH: u8 = 2;

fn after(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

/// Two members, the sessions that each holds of the other, and a wire without loss between them.
struct Pair {
    nodes: [Node; 2],
    sessions: [PeerSessions; 2],
}

impl Pair {
    fn new() -> Self {
        let policy = policy_of([LOW, HIGH]);
        let ids = [NodeId([LOW; 32]), NodeId([HIGH; 32])];
        Self {
            nodes: [Node::new(LOW, policy.clone()), Node::new(HIGH, policy)],
            sessions: [PeerSessions::new(ids[0], Some(ids[1])), PeerSessions::new(ids[1], Some(ids[0]))],
        }
    }

    /// Runs a handshake that `side` begins. Returns its index at both sides and the actions, the initiator's first.
    fn handshake(&mut self, now: Instant, side: usize) -> ([SessionIndex; 2], [Vec<Action>; 2]) {
        let [low, high] = &mut self.nodes;
        let (from, to, seed) = if side == 0 { (low, high, HIGH) } else { (high, low, LOW) };
        let mut initiator = from.initiate(now, seed);
        let (near, far) = shake(now, from, &mut initiator, to);
        let indices = [near.session.local_index(), far.session.local_index()];
        let near_actions = self.sessions[side].handle_established(now, near);
        let far_actions = self.sessions[1 - side].handle_established(now, far);
        (indices, [near_actions, far_actions])
    }

    /// Runs a handshake and its confirmation.
    fn confirmed(&mut self, now: Instant, side: usize) -> [SessionIndex; 2] {
        let ([near, far], _) = self.handshake(now, side);
        self.sessions[1 - side].handle_received(now, far, true);
        self.sessions[side].handle_received(now, near, true);
        [near, far]
    }

    fn sends_in(&self, side: usize) -> Option<SessionIndex> {
        self.sessions[side].sending().map(|session| session.local_index())
    }

    /// Seals one packet in whatever `side` sends in, in the lane `slot`.
    fn use_session(&self, side: usize, now: Instant, slot: u8) {
        let session = self.sessions[side].sending().unwrap();
        let mut sealer = session.claim_lane(Lane::new(1, slot)).unwrap();
        sealer.seal(now, &mut [0; TRANSPORT_OVERHEAD]).unwrap();
    }
}

fn starts(actions: &[Action]) -> Vec<RekeyReason> {
    let reason = |action: &Action| if let Action::StartHandshake(reason) = action { Some(*reason) } else { None };
    actions.iter().filter_map(reason).collect()
}

#[test]
fn a_responder_sends_only_after_the_confirmation_and_answers_it() {
    let mut pair = Pair::new();
    let ([near, far], [near_actions, far_actions]) = pair.handshake(after(0), 0);
    assert_eq!(near_actions, [Action::SendConfirmation(near)]);
    assert_eq!(far_actions, []);
    assert_eq!((pair.sends_in(0), pair.sends_in(1)), (Some(near), None));
    let actions = pair.sessions[1].handle_received(after(20), far, true);
    let [Action::StoreTimestamp(key, _), Action::SendConfirmation(answered)] = actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!((key, answered), (super::super::testing::transport_key(LOW), far));
    assert_eq!(pair.sends_in(1), Some(far));
    assert_eq!(pair.sessions[0].handle_received(after(40), near, true), []);
}

#[test]
fn the_confirmation_is_repeated_until_something_authentic_comes() {
    let mut pair = Pair::new();
    let ([near, _], _) = pair.handshake(after(0), 0);
    for millis in [100, 200, 400, 800] {
        assert_eq!(pair.sessions[0].poll_timeout(), Some((after(millis), Reason::Confirm)));
        assert_eq!(pair.sessions[0].handle_timeout(after(millis - 1)), []);
        assert_eq!(pair.sessions[0].handle_timeout(after(millis)), [Action::SendConfirmation(near)]);
    }
    assert_eq!(pair.sessions[0].poll_timeout(), Some((after(5000), Reason::Confirm)));
    assert_eq!(pair.sessions[0].handle_timeout(after(5000)), [Action::Retire(near)]);

    let ([near, _], _) = pair.handshake(after(6000), 0);
    pair.sessions[0].handle_received(after(6050), near, false);
    assert_eq!(pair.sessions[0].handle_timeout(after(6800)), []);
    assert_eq!(pair.sessions[0].poll_timeout(), Some((after(126_000), Reason::Rekey)));
}

#[test]
fn a_late_timer_catches_up_with_one_confirmation() {
    let mut pair = Pair::new();
    let ([near, _], _) = pair.handshake(after(0), 0);
    assert_eq!(pair.sessions[0].handle_timeout(after(900)), [Action::SendConfirmation(near)]);
}

#[test]
fn a_lost_answer_is_given_again_a_few_times_and_keepalives_get_none() {
    let mut pair = Pair::new();
    let ([_, far], _) = pair.handshake(after(0), 0);
    let answers = (0..20).map(|_| pair.sessions[1].handle_received(after(100), far, true));
    let count = answers.flatten().filter(|action| *action == Action::SendConfirmation(far)).count();
    assert_eq!(count, CONFIRMATIONS.len());
    let mut pair = Pair::new();
    let ([_, far], _) = pair.handshake(after(0), 0);
    pair.sessions[1].handle_received(after(100), far, true);
    assert_eq!(pair.sessions[1].handle_received(after(8000), far, true), []);
}

#[test]
fn a_used_session_that_nobody_confirms_is_tried_anew_and_an_unused_one_is_not() {
    let mut pair = Pair::new();
    pair.handshake(after(0), 0);
    let session = Arc::clone(pair.sessions[0].sending().unwrap());
    let mut sealer = session.claim_lane(Lane::new(1, 0)).unwrap();
    for _ in 0..=CONFIRMATIONS.len() {
        sealer.seal(after(10), &mut [0; TRANSPORT_OVERHEAD]).unwrap();
    }
    assert_eq!(starts(&pair.sessions[0].handle_timeout(after(5000))), [RekeyReason::Unconfirmed]);
    assert!(pair.sessions[0].is_empty());
    pair.handshake(after(6000), 0);
    assert_eq!(starts(&pair.sessions[0].handle_timeout(after(11_000))), []);
}

#[test]
fn a_tentative_session_replaces_nothing_is_one_of_two_and_expires() {
    let mut pair = Pair::new();
    let [_, current] = pair.confirmed(after(0), 0);
    let tentative: Vec<_> = (1..=3).map(|step| pair.handshake(after(step * 1000), 0).0[1]).collect();
    assert_eq!(pair.sends_in(1), Some(current));
    let receiving: Vec<_> = pair.sessions[1].receiving().map(|session| session.local_index()).collect();
    assert_eq!(receiving, [current, tentative[0], tentative[1]], "a third one is refused");
    let expired = pair.sessions[1].handle_timeout(after(10_000));
    assert_eq!(expired, [Action::Retire(tentative[0]), Action::Retire(tentative[1])]);
    assert_eq!(pair.sessions[1].handle_received(after(10_000), tentative[1], true), []);
    assert_eq!(pair.sends_in(1), Some(current));
    pair.handshake(after(11_000), 0);
    assert_eq!(pair.sessions[1].receiving().count(), 2, "there is room again");
}

#[test]
fn the_initiator_keeps_sending_in_the_old_session_until_the_new_one_is_confirmed() {
    let mut pair = Pair::new();
    let [old, _] = pair.confirmed(after(0), 0);
    let ([new, _], _) = pair.handshake(after(120_000), 0);
    assert_eq!(pair.sends_in(0), Some(old));
    pair.sessions[0].handle_received(after(120_050), new, false);
    assert_eq!(pair.sends_in(0), Some(new));
}

#[test]
fn a_replaced_key_receives_as_long_as_keys_live() {
    let mut pair = Pair::new();
    let [old, _] = pair.confirmed(after(0), 0);
    pair.confirmed(after(120_000), 0);
    assert_eq!(pair.sessions[0].receiving().count(), 2);
    assert_eq!(pair.sessions[0].poll_timeout(), Some((after(180_000), Reason::Retire)));
    assert_eq!(pair.sessions[0].handle_timeout(after(179_999)), []);
    assert_eq!(pair.sessions[0].handle_timeout(after(180_000)), [Action::Retire(old)]);
}

#[test]
fn both_sides_of_a_simultaneous_open_send_in_the_lower_nodes_session_and_receive_in_both() {
    for first in [0, 1] {
        let mut pair = Pair::new();
        let a = pair.confirmed(after(0), first);
        let b = pair.confirmed(after(30), 1 - first);
        // What the low node began has its index at the low node first.
        let [at_low, at_high] = if first == 0 { a } else { b };
        assert_eq!((pair.sends_in(0), pair.sends_in(1)), (Some(at_low), Some(at_high)));
        pair.sessions[0].handle_timeout(after(60_000));
        assert_eq!(pair.sessions[0].receiving().count(), 2);
        // The next one replaces both.
        let [near, far] = pair.confirmed(after(120_000), 0);
        assert_eq!((pair.sends_in(0), pair.sends_in(1)), (Some(near), Some(far)));
        assert_eq!(pair.sessions[0].handle_timeout(after(180_030)).len(), 2);
    }
}

#[test]
fn a_goodbye_ends_all_that_crossed_and_what_is_older_but_nothing_newer() {
    // In the twin that both send in, with a replaced one between it and the newest; and in a replaced one.
    for in_replaced in [false, true] {
        let mut pair = Pair::new();
        let [_, first] = pair.confirmed(after(0), 0);
        let [replaced, _] = pair.confirmed(after(1000), 1);
        pair.confirmed(after(2000), 1);
        let last = if in_replaced { replaced } else { first };
        assert!(in_replaced || pair.sends_in(1) == Some(first));
        let ended = pair.sessions[1].handle_goodbye(last).len();
        assert_eq!((ended, pair.sessions[1].receiving().count()), if in_replaced { (2, 1) } else { (3, 0) });
    }
    // In a replaced one that the peer takes for the newer of two that crossed.
    let mut pair = Pair::new();
    let [_, first] = pair.confirmed(after(0), 0);
    pair.confirmed(after(500), 0);
    pair.confirmed(after(1000), 1);
    assert_eq!((pair.sessions[1].handle_goodbye(first).len(), pair.sessions[1].is_empty()), (3, true));

    let mut pair = Pair::new();
    let [_, first] = pair.confirmed(after(0), 0);
    pair.confirmed(after(5000), 1);
    assert_eq!(pair.sessions[1].handle_goodbye(first), [Action::Retire(first)]);
    assert_eq!(pair.sessions[1].receiving().count(), 1);
}

#[test]
fn handshakes_further_apart_than_an_attempt_are_no_pair() {
    let mut pair = Pair::new();
    pair.confirmed(after(0), 0);
    let [at_high, at_low] = pair.confirmed(after(5000), 1);
    assert_eq!((pair.sends_in(0), pair.sends_in(1)), (Some(at_low), Some(at_high)));
}

#[test]
fn a_session_in_use_is_replaced_by_its_initiator_at_120_seconds_or_its_responder_at_150() {
    let mut pair = Pair::new();
    pair.confirmed(after(0), 0);
    for (side, seconds) in [(0, 120), (1, 150)] {
        pair.use_session(side, after(seconds * 1000 - 2000), side as u8);
        assert_eq!(pair.sessions[side].poll_timeout(), Some((after(seconds * 1000), Reason::Rekey)));
        assert_eq!(pair.sessions[side].handle_timeout(after(seconds * 1000 - 1)), []);
        assert_eq!(starts(&pair.sessions[side].handle_timeout(after(seconds * 1000))), [RekeyReason::Age]);
    }
}

#[test]
fn a_handshake_is_asked_for_once_in_an_attempts_life() {
    let mut pair = Pair::new();
    pair.confirmed(after(0), 0);
    pair.use_session(0, after(119_000), 0);
    let asked = |pair: &mut Pair, millis| starts(&pair.sessions[0].handle_timeout(after(millis))).len();
    assert_eq!((asked(&mut pair, 120_000), asked(&mut pair, 124_999), asked(&mut pair, 125_000)), (1, 0, 1));
    assert_eq!(starts(&pair.sessions[0].handle_clock_jump(after(126_000))), [RekeyReason::ClockJump]);
}

#[test]
fn a_worn_key_is_replaced_at_once_and_asked_for_once_per_attempt() {
    let mut pair = Pair::new();
    pair.confirmed(after(0), 0);
    pair.sessions[0].sending().unwrap().wear_out();
    let mut asked = |millis| starts(&pair.sessions[0].handle_timeout(after(millis)));
    assert_eq!(asked(1000), [RekeyReason::Worn]);
    assert_eq!(asked(5999), []);
    assert_eq!(asked(6000), [RekeyReason::Worn]);
}

#[test]
fn a_worn_key_past_its_rekey_age_leaves_no_deadline_in_the_past() {
    let mut pair = Pair::new();
    pair.confirmed(after(0), 0);
    pair.sessions[0].sending().unwrap().wear_out();
    pair.sessions[0].handle_timeout(after(121_000));
    assert!(pair.sessions[0].poll_timeout().is_some_and(|(at, _)| at > after(121_000)));
}

#[test]
fn an_idle_session_is_silent_and_ends_at_180_seconds() {
    let mut pair = Pair::new();
    let [near, _] = pair.confirmed(after(0), 0);
    let mut actions = Vec::new();
    while let Some((at, _)) = pair.sessions[0].poll_timeout() {
        assert!(at <= after(180_000));
        actions.extend(pair.sessions[0].handle_timeout(at));
    }
    assert_eq!(actions, [Action::Retire(near)]);
}

#[test]
fn a_session_that_comes_into_use_late_is_replaced_before_its_end() {
    let mut pair = Pair::new();
    pair.confirmed(after(0), 0);
    assert_eq!(pair.sessions[0].handle_timeout(after(140_000)), []);
    pair.use_session(0, after(160_000), 0);
    let (at, reason) = pair.sessions[0].poll_timeout().unwrap();
    assert_eq!(reason, Reason::Rekey);
    assert_eq!(starts(&pair.sessions[0].handle_timeout(at.max(after(160_000)))), [RekeyReason::Age]);
}

#[test]
fn a_kept_session_is_replaced_although_nothing_uses_it() {
    let mut pair = Pair::new();
    pair.confirmed(after(0), 0);
    pair.sessions[1].set_kept(true);
    assert_eq!(starts(&pair.sessions[0].handle_timeout(after(150_000))), []);
    assert_eq!(starts(&pair.sessions[1].handle_timeout(after(149_999))), []);
    assert_eq!(starts(&pair.sessions[1].handle_timeout(after(150_000))), [RekeyReason::Age]);
}

#[test]
fn the_nodes_own_words_keep_no_session_alive() {
    let mut pair = Pair::new();
    let [near, _] = pair.confirmed(after(0), 0);
    let mut sealer = pair.sessions[0].sending().unwrap().claim_lane(Lane::NODE).unwrap();
    let mut actions = Vec::new();
    for second in 1..=180 {
        let _ = sealer.seal(after(second * 1000), &mut [0; TRANSPORT_OVERHEAD]);
        actions.extend(pair.sessions[0].handle_timeout(after(second * 1000)));
    }
    assert_eq!(actions, [Action::Retire(near)]);
}

#[test]
fn nothing_from_before_a_clock_jump_seals() {
    let mut pair = Pair::new();
    let [_, current] = pair.confirmed(after(0), 0);
    let ([near, far], _) = pair.handshake(after(9_900), 0);
    let mut sealer = pair.sessions[1].sending().unwrap().claim_lane(Lane::new(1, 0)).unwrap();
    let ended = pair.sessions[1].handle_clock_jump(after(10_000));
    assert_eq!(ended, [Action::Retire(far), Action::StartHandshake(RekeyReason::ClockJump)]);
    assert!(pair.sessions[0].handle_clock_jump(after(10_000)).contains(&Action::Retire(near)));
    assert!(sealer.seal(after(10_000), &mut [0; TRANSPORT_OVERHEAD]).is_err());
    // An empty packet that was on its way is not answered under the old key.
    assert_eq!(pair.sessions[1].handle_received(after(7_000), current, true), []);
    assert!(pair.sessions[1].poll_timeout().is_none_or(|(at, _)| at > after(10_000)));
}

#[test]
fn no_session_from_before_a_clock_jump_sends() {
    let mut pair = Pair::new();
    pair.confirmed(after(0), 0);
    assert_eq!(starts(&pair.sessions[0].handle_clock_jump(after(10_000))), [RekeyReason::ClockJump]);
    assert_eq!(pair.sends_in(0), None);
    assert_eq!(pair.sessions[0].receiving().count(), 1);
    let [near, _] = pair.confirmed(after(10_100), 0);
    assert_eq!(pair.sends_in(0), Some(near));
}

#[test]
fn a_policy_without_the_peer_ends_every_session_at_once() {
    let mut pair = Pair::new();
    let [_, current] = pair.confirmed(after(0), 0);
    let ([_, tentative], _) = pair.handshake(after(10), 0);
    assert_eq!(pair.sessions[1].handle_policy(&policy_of([LOW, HIGH, 3])), []);
    let cut = pair.sessions[1].handle_policy(&policy_of([HIGH]));
    assert_eq!(cut, [Action::Retire(current), Action::Retire(tentative)]);
    assert!(pair.sessions[1].is_empty() && pair.sends_in(1).is_none());
}

#[test]
fn a_guest_keeps_its_session_when_it_becomes_a_member_until_a_members_session_comes() {
    let mut pair = Pair::new();
    pair.nodes[1].policy = policy_of([HIGH]);
    let [low, high] = &mut pair.nodes;
    let mut initiator = low.initiate(after(0), HIGH);
    // The guest is asked for a cookie first.
    let asked = high.receive(after(0), at(1), initiator.datagrams(at(2))[0]).unwrap().transmit;
    initiator.handle_cookie(at(2), &asked[0]).unwrap();
    let (near, far) = shake(after(0), low, &mut initiator, high);
    assert!(near.guest_there);
    let (near_index, far_index) = (near.session.local_index(), far.session.local_index());
    pair.sessions[0].handle_established(after(0), near);
    pair.sessions[1].handle_established(after(0), far);
    pair.sessions[1].handle_received(after(0), far_index, true);
    pair.sessions[0].handle_received(after(0), near_index, true);
    let policy = policy_of([LOW, HIGH]);
    assert_eq!(pair.sessions[1].handle_policy(&policy), []);
    pair.nodes[1].policy = policy;
    // Even from the other side and right after, the guest's session is not preferred.
    let [near, far] = pair.confirmed(after(1000), 1);
    assert_eq!((pair.sends_in(1), pair.sends_in(0)), (Some(near), Some(far)));
}

#[test]
fn a_packet_under_the_old_key_still_opens_after_a_rekey() {
    let mut pair = Pair::new();
    pair.confirmed(after(0), 0);
    let old = Arc::clone(pair.sessions[0].sending().unwrap());
    pair.confirmed(after(120_000), 0);
    let mut datagram = [0; TRANSPORT_OVERHEAD];
    old.claim_lane(Lane::NODE).unwrap().seal(after(120_001), &mut datagram).unwrap();
    let header = TransportHeader::decode(&datagram).unwrap();
    let receiver = pair.sessions[1].receiving().find(|session| session.local_index() == header.receiver).unwrap();
    assert!(receiver.open(after(120_002), &header, &mut datagram[TRANSPORT_HEADER_LEN..]).is_ok());
}

#[test]
fn replaced_keys_receive_as_many_as_there_is_room_for() {
    let mut pair = Pair::new();
    let mut made = Vec::new();
    for count in 1..=MAX_SESSIONS + 3 {
        made.push(pair.confirmed(after(10_000 * count as u64), 0)[0]);
        let receiving: Vec<_> = pair.sessions[0].receiving().map(|session| session.local_index()).collect();
        assert_eq!(receiving, made[count.saturating_sub(MAX_SESSIONS)..], "after {count}");
    }
}

#[test]
fn of_many_handshakes_that_crossed_one_pair_remains() {
    let mut pair = Pair::new();
    let ours: Vec<_> = (0..2).map(|step| pair.handshake(after(step * 100), 0).0[0]).collect();
    let theirs = pair.handshake(after(300), 1).0[1];
    for index in [theirs, ours[0], ours[1]] {
        pair.sessions[0].handle_received(after(400), index, true);
    }
    let confirmed = pair.sessions[0].held.iter().filter(|held| held.is_confirmed());
    assert_eq!(confirmed.map(|held| held.session.local_index()).collect::<Vec<_>>(), [ours[1], theirs]);
}

#[test]
fn no_order_of_handshakes_and_confirmations_passes_the_bound() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let (mut pair, mut millis, mut most) = (Pair::new(), 0, 0);
    for _ in 0..600 {
        millis += u64::from(rng.next_u32() % 500);
        for side in 0..2 {
            // Handshakes come faster than a responder's own tables let them.
            pair.nodes[side].responder = Responder::new(after(millis), &mut rng);
            let due = pair.sessions[side].handle_timeout(after(millis));
            assert!(due.len() <= 2 * MAX_SESSIONS);
        }
        pair.handshake(after(millis), (rng.next_u32() % 2) as usize);
        for side in 0..2 {
            let held: Vec<_> = pair.sessions[side].receiving().map(|session| session.local_index()).collect();
            assert!(held.len() <= MAX_SESSIONS, "{} sessions", held.len());
            most = most.max(held.len());
            let index = held[rng.next_u32() as usize % held.len()];
            pair.sessions[side].handle_received(after(millis), index, rng.next_u32() % 2 == 0);
        }
    }
    assert_eq!(most, MAX_SESSIONS);
}
