use super::*;
use crate::crypto::identity::SigningKey;
use crate::policy::Member;
use crate::wire::control::NatKind;
use std::collections::BTreeSet;

const NETWORK: Digest = Digest([5; 32]);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn many(number: usize) -> SigningKey {
    SigningKey::from_seed(&domain_hash("many", &[&number.to_le_bytes()]).0)
}

fn policy(seeds: impl IntoIterator<Item = u8>) -> Policy {
    policy_of(seeds.into_iter().map(key).collect::<Vec<_>>().iter())
}

fn policy_of<'k>(keys: impl Iterator<Item = &'k SigningKey>) -> Policy {
    let members = keys.map(|key| Member {
        id: key.node_id(),
        name: key.node_id().to_string(),
        node_key: key.verifying_key(),
        transport_key: TransportKey(key.node_id().0),
        addresses: Vec::new(),
        tags: Vec::new(),
        subnets: Vec::new(),
        is_exit: false,
        relay: None,
        static_endpoints: Vec::new(),
    });
    Policy::new(members, BTreeMap::new(), BTreeSet::new())
}

fn record(seed: u8, sequence: u64) -> SignedRecord {
    record_of(&key(seed), sequence)
}

fn record_of(key: &SigningKey, sequence: u64) -> SignedRecord {
    SignedRecord::sign(unsigned(key, sequence), key, &NETWORK)
}

fn unsigned(key: &SigningKey, sequence: u64) -> NodeRecord {
    NodeRecord {
        id: key.node_id(),
        sequence,
        endpoints: Vec::new(),
        requests: Vec::new(),
        refused: Vec::new(),
        nat: NatKind::Unknown,
        is_relay: false,
        homes: Vec::new(),
    }
}

fn at(instant: Instant) -> Now {
    Now { instant, wall: UnixMillis(1_800_000_000_000) }
}

const PEER: TransportKey = TransportKey([7; 32]);

const NOW: Now = Now { instant: Instant::ZERO, wall: UnixMillis(1_800_000_000_000) };

/// What went between two nodes until both were silent.
#[derive(Default)]
struct Spoken {
    messages: usize,
    bytes: usize,
    /// One way after the other.
    turns: usize,
}

/// Lets `left` compare itself with `right` at `now`.
fn compare(left: &mut Gossip, right: &mut Gossip, now: Instant, lefts: &Policy, rights: &Policy) -> Spoken {
    let mut said = vec![left.handle_timeout(now, || vec![PEER]).unwrap().1];
    let mut spoken = Spoken::default();
    while !said.is_empty() {
        spoken.messages += said.len();
        spoken.bytes += said.iter().map(|message| message.encode().len()).sum::<usize>();
        let hears = |message| match spoken.turns % 2 {
            0 => right.handle(at(now), PEER, message, rights).replies,
            _ => left.handle(at(now), PEER, message, lefts).replies,
        };
        said = said.into_iter().flat_map(hears).collect();
        spoken.turns += 1;
        assert!(spoken.turns < 100, "they fall silent");
    }
    spoken
}

#[test]
fn nodes_that_believe_different_members_fall_silent_after_each_comparison() {
    // 1 does not know yet that 4 is a member, 2 not that 3 was revoked.
    let (lefts, rights) = (policy([1, 2, 3]), policy([1, 2, 4]));
    let mut left = Gossip::new(key(1).node_id(), NETWORK);
    let mut right = Gossip::new(key(2).node_id(), NETWORK);
    left.handle(NOW, PEER, GossipMessage::Records(vec![record(3, 30)]), &lefts);
    right.handle(NOW, PEER, GossipMessage::Records(vec![record(4, 40)]), &rights);
    for round in 0..3 {
        let now = Instant::ZERO + Duration::from_secs(30) * round;
        let sent = compare(&mut left, &mut right, now, &lefts, &rights);
        assert!(sent.messages <= 3, "a comparison, a summary and the records that are refused: {}", sent.messages);
    }
}

/// A policy of so many members, and two nodes that hold those of their records that `lack` says they do not.
fn two_of_many(count: usize, lack: impl Fn(usize) -> [bool; 2]) -> (Policy, Gossip, Gossip) {
    let everybody: Vec<_> = (0..count).map(many).collect();
    let mut both = [0, 1].map(|number| Gossip::new(many(number).node_id(), NETWORK));
    for (number, key) in everybody.iter().enumerate() {
        let record = record_of(key, 1);
        for (gossip, lacks) in both.iter_mut().zip(lack(number)) {
            if !lacks {
                gossip.records.insert(key.node_id(), Verified { record: record.clone(), by: key.verifying_key() });
            }
        }
    }
    let [left, right] = both;
    (policy_of(everybody.iter()), left, right)
}

#[test]
fn more_records_than_one_message_can_name_spread_in_one_comparison() {
    // Each lacks some hundred that the other holds, spread over all ids.
    let (policy, mut left, mut right) = two_of_many(2000, |number| [number % 20 == 3, number % 20 == 7]);
    let spoken = compare(&mut left, &mut right, Instant::ZERO, &policy, &policy);
    assert_eq!(left.digest(), right.digest());
    assert!(spoken.turns <= 8, "{}", spoken.turns);
}

#[test]
fn who_knows_nothing_gets_everything_in_three_round_trips_and_each_record_once() {
    let (policy, mut left, mut right) = two_of_many(2000, |number| [number > 0, false]);
    let whole: usize = right.records.values().map(|held| borsh::to_vec(&held.record).unwrap().len()).sum();
    let spoken = compare(&mut left, &mut right, Instant::ZERO, &policy, &policy);
    assert_eq!(left.digest(), right.digest());
    assert!(spoken.turns <= 6, "{}", spoken.turns);
    assert!(spoken.bytes < whole * 5 / 4, "{} bytes for records of {whole}", spoken.bytes);
}

#[test]
fn who_knows_everything_brings_it_to_one_that_knows_little_whoever_began() {
    let (policy, mut left, mut right) = two_of_many(2000, |number| [false, number > 1]);
    compare(&mut left, &mut right, Instant::ZERO, &policy, &policy);
    assert_eq!(left.digest(), right.digest());
    // What it does not ask for, and was not asked for, begins nothing.
    let unasked = left.branch(IdPrefix::ALL);
    let (_, _, mut other) = two_of_many(2000, |_| [true; 2]);
    assert_eq!(other.handle(NOW, PEER, unasked, &policy), GossipOutcome::default());
}

#[test]
fn one_record_among_many_is_found_for_few_bytes() {
    let (policy, mut left, mut right) = two_of_many(2000, |number| [number == 77, false]);
    let spoken = compare(&mut left, &mut right, Instant::ZERO, &policy, &policy);
    assert_eq!(left.digest(), right.digest());
    assert!(spoken.bytes < 2000 && spoken.messages <= 8, "{} bytes, {} messages", spoken.bytes, spoken.messages);
}

#[test]
fn a_record_of_now_is_news_and_an_old_one_is_not() {
    let policy = policy([1, 2, 3]);
    let mut gossip = Gossip::new(key(1).node_id(), NETWORK);
    let records = vec![record(2, NOW.wall.0 - 299_000), record(3, NOW.wall.0 - 301_000)];
    let outcome = gossip.handle(NOW, PEER, GossipMessage::Records(records), &policy);
    assert_eq!(outcome.updated, [key(2).node_id(), key(3).node_id()]);
    assert_eq!(outcome.news, [key(2).node_id()]);
}

#[test]
fn records_spread_over_one_comparison() {
    let policy = policy([1, 2, 3]);
    let mut left = Gossip::new(key(1).node_id(), NETWORK);
    let mut right = Gossip::new(key(2).node_id(), NETWORK);
    left.publish(unsigned(&key(1), 10), &key(1));
    right.publish(unsigned(&key(2), 20), &key(2));
    right.handle(NOW, PEER, GossipMessage::Records(vec![record(3, 30)]), &policy);

    compare(&mut left, &mut right, Instant::ZERO, &policy, &policy);
    assert_eq!(left.digest(), right.digest());
    assert_eq!(left.sequence(&key(3).node_id()), 30);
    assert_eq!(right.sequence(&key(1).node_id()), 10);
}

#[test]
fn a_record_counts_while_the_member_has_the_node_key_that_signed_it() {
    let mut gossip = Gossip::new(key(1).node_id(), NETWORK);
    let before = policy([1, 2]);
    gossip.handle(NOW, PEER, GossipMessage::Records(vec![record(2, 5)]), &before);
    assert_eq!(gossip.record(&key(2).node_id(), &before).map(|record| record.sequence), Some(5));
    let changed = before.members().map(|member| Member { node_key: key(9).verifying_key(), ..member.clone() });
    let after = Policy::new(changed, BTreeMap::new(), BTreeSet::new());
    assert_eq!(gossip.record(&key(2).node_id(), &after), None);
    assert_eq!(gossip.record(&key(2).node_id(), &policy([1])), None, "nor that of one who is no member");
}

#[test]
fn strangers_forgeries_and_old_records_are_refused() {
    let policy = policy([1, 2]);
    let mut gossip = Gossip::new(key(1).node_id(), NETWORK);
    let records = |record| GossipMessage::Records(vec![record]);
    assert_eq!(gossip.handle(NOW, PEER, records(record(9, 1)), &policy).refused, [GossipError::Stranger]);
    let forged = NodeRecord {
        id: key(2).node_id(),
        sequence: 1,
        endpoints: Vec::new(),
        requests: Vec::new(),
        refused: Vec::new(),
        nat: NatKind::Unknown,
        is_relay: false,
        homes: Vec::new(),
    };
    let forged = SignedRecord::sign(forged, &key(9), &NETWORK);
    assert!(matches!(gossip.handle(NOW, PEER, records(forged), &policy).refused[..], [GossipError::Record(_)]));
    assert_eq!(gossip.handle(NOW, PEER, records(record(2, 5)), &policy).updated, [key(2).node_id()]);
    assert!(gossip.handle(NOW, PEER, records(record(2, 4)), &policy).updated.is_empty());
    assert_eq!(gossip.sequence(&key(2).node_id()), 5);
    gossip.forget(&[key(2).node_id()]);
    assert!(!gossip.holds(&key(2).node_id()));
}

#[test]
fn a_record_that_is_not_believed_costs_none_of_the_others() {
    let policy = policy([1, 2, 3]);
    let mut gossip = Gossip::new(key(1).node_id(), NETWORK);
    let message = GossipMessage::Records(vec![record(2, 5), record(9, 5), record(3, 5)]);
    let outcome = gossip.handle(NOW, PEER, message, &policy);
    assert_eq!(outcome.updated, [key(2).node_id(), key(3).node_id()]);
    assert_eq!(outcome.refused, [GossipError::Stranger]);
}

#[test]
fn neighbours_are_others_in_an_order_that_changes_with_the_epoch() {
    let policy = policy(1..=20);
    let own = key(1).node_id();
    let order = |hours: u64| neighbours(&own, policy.members().map(|member| member.id), UnixMillis(hours * 3_600_000));
    let first = order(0);
    assert_eq!(first.len(), 19);
    assert!(!first.contains(&own));
    assert_eq!(first, order(1));
    assert_ne!(first, order(7));
}

#[test]
fn who_asks_is_told_the_first_in_its_own_order_of_those_that_are_there() {
    let policy = policy(1..=40);
    let (asker, ids) = (key(1).node_id(), policy.members().map(|member| member.id).collect::<Vec<_>>());
    let order = neighbours(&asker, ids.iter().copied(), UnixMillis(0));
    let GossipMessage::Present(told) = present(&asker, ids.into_iter(), UnixMillis(0)) else { panic!() };
    assert_eq!(told, order[..MAX_PRESENT]);
    let mut gossip = Gossip::new(asker, NETWORK);
    assert!(gossip.handle(NOW, PEER, GossipMessage::Wanted, &policy).is_asked_who_is_there);
    assert_eq!(gossip.handle(NOW, PEER, GossipMessage::Present(told.clone()), &policy).present, told);
}
