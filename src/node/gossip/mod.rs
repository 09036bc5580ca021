//! Node records on their way through the network: who is kept close, who is told, and what both sides lack.
//!
//! ```text
//!   a new record ──► every neighbour, which passes it on if it is new there
//!   every 30 s:  Compare(digest of all) ──► equal: silence
//!                                           else ◄── Branch(16 digests) ──► for each that differs: Branch │ Summary ◄──► Records, Request
//! ```
//! Whoever chose a neighbour compares, the chosen one answers. What differs is found along the digits of the ids, so that one record among
//! ten thousand costs three kilobytes, and a node that knows nothing gets everything in three round trips. A record is believed only under
//! its member's node key; gossip can deny reachability, never gain trust.

mod message;

pub use message::{Branch, GossipError, GossipMessage, IdPrefix, Summary};

use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::{Digest, domain_hash};
use crate::crypto::identity::NodeId;
use crate::policy::Policy;
use crate::time::{Instant, Now, UnixMillis};
use crate::wire::control::{NodeRecord, SignedRecord};
use message::{MAX_RECORDS, MAX_SUMMARY, PARTS, PartDigest};
use std::collections::BTreeMap;
use std::time::Duration;

/// Members that every node keeps a session with.
pub const NEIGHBOURS: usize = 4;

/// How long a choice of neighbours stays, in hours: long enough for sessions to pay, short enough to heal a poor choice.
const NEIGHBOUR_EPOCH_HOURS: u64 = 6;

/// How often the records are compared with a neighbour's.
const COMPARE_INTERVAL: Duration = Duration::from_secs(30);

/// How long after one comparison no other one is begun: what the first brings, others need not bring as well.
const COMPARE_PAUSE: Duration = Duration::from_secs(1);

/// How often one peer's is answered, or followed, at most.
const PEER_PAUSE: Duration = Duration::from_secs(10);

/// Up to this age a record is passed on to everybody with a session; what is older was missed by one node, and most have it.
const NEWS_AGE: Duration = Duration::from_secs(60);

/// What a message led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct GossipOutcome {
    /// Members whose records are new here.
    pub updated: Vec<NodeId>,
    /// Those of them that may be new to others as well.
    pub news: Vec<NodeId>,
    /// Why records were not believed.
    pub refused: Vec<GossipError>,
    /// Answers to the sender.
    pub replies: Vec<GossipMessage>,
    /// Somebody holds a newer record of this node than it knows of, from before its clock or disk went back.
    pub own_is_outdated: bool,
}

/// The records that this node holds, at most one per member.
pub struct Gossip {
    own_id: NodeId,
    network_id: Digest,
    records: BTreeMap<NodeId, SignedRecord>,
    compare_at: Instant,
    /// When the next one may be begun with a single peer.
    begin_at: Instant,
    /// Whose comparison was answered, and whose answer followed.
    answered: Turns,
    followed: Turns,
}

/// Turns that come once in [`COMPARE_PAUSE`], so that several peers do not all bring the same; each peer's once in [`PEER_PAUSE`], so that one that
/// takes every turn that it gets leaves most to others.
#[derive(Default)]
struct Turns {
    next: Option<Instant>,
    /// Who had one lately.
    latest: BTreeMap<TransportKey, Instant>,
}

impl Turns {
    fn take(&mut self, now: Instant, peer: TransportKey) -> bool {
        self.latest.retain(|_, at| now.saturating_since(*at) < PEER_PAUSE);
        let is_free = self.next.is_none_or(|at| now >= at) && !self.latest.contains_key(&peer);
        if is_free {
            self.next = Some(now + COMPARE_PAUSE);
            self.latest.insert(peer, now);
        }
        is_free
    }
}

impl Gossip {
    /// Starts with nothing known.
    pub fn new(own_id: NodeId, network_id: Digest) -> Self {
        let [compare_at, begin_at] = [Instant::ZERO; 2];
        let [answered, followed] = [(); 2].map(|()| Turns::default());
        Self { own_id, network_id, records: BTreeMap::new(), compare_at, begin_at, answered, followed }
    }

    /// Replaces this node's own record. Returns the message that tells others.
    pub fn publish(&mut self, record: SignedRecord) -> GossipMessage {
        self.records.insert(self.own_id, record.clone());
        GossipMessage::Records(vec![record])
    }

    /// Lends the record of a member, verified against its node key as `policy` has it.
    pub fn record(&self, id: &NodeId, policy: &Policy) -> Option<&NodeRecord> {
        self.records.get(id)?.verify(&policy.member(id)?.node_key, &self.network_id).ok()
    }

    /// Lends the record of a member as it was signed.
    pub fn signed(&self, id: &NodeId) -> Option<&SignedRecord> {
        self.records.get(id)
    }

    /// Says whether a member's record, which was verified when it came, says that it relays.
    pub fn is_relay(&self, id: &NodeId) -> bool {
        self.records.get(id).is_some_and(SignedRecord::claims_relay)
    }

    /// The members whose records say so, in the order of their ids.
    pub fn relays(&self) -> impl Iterator<Item = NodeId> {
        self.records.iter().filter(|(_, record)| record.claims_relay()).map(|(id, _)| *id)
    }

    /// The sequence number of the record held of `id`, 0 when none is.
    pub fn sequence(&self, id: &NodeId) -> u64 {
        self.records.get(id).map_or(0, SignedRecord::claimed_sequence)
    }

    /// Takes a message of a peer in, each record by itself: one that cannot be believed costs none of the others.
    pub fn handle(&mut self, now: Now, from: TransportKey, message: GossipMessage, policy: &Policy) -> GossipOutcome {
        let mut outcome = GossipOutcome::default();
        match message {
            GossipMessage::Records(records) => {
                for record in records {
                    let (id, sequence) = (record.claimed_id(), record.claimed_sequence());
                    if id == self.own_id {
                        outcome.own_is_outdated |= self.outdates_own(&record, policy);
                        continue;
                    }
                    match self.take(record, policy) {
                        Ok(true) => {
                            outcome.updated.push(id);
                            let age = now.wall.saturating_since(UnixMillis(sequence));
                            outcome.news.extend((age < NEWS_AGE).then_some(id));
                        }
                        Ok(false) => {}
                        Err(error) => outcome.refused.push(error),
                    }
                }
            }
            GossipMessage::Compare(digest) => {
                if digest != self.digest() && self.answered.take(now.instant, from) {
                    outcome.replies.push(self.describe(IdPrefix::ALL));
                }
            }
            GossipMessage::Branch(branch) => {
                if branch.prefix != IdPrefix::ALL || self.followed.take(now.instant, from) {
                    outcome.replies = self.differences(&branch);
                }
            }
            GossipMessage::Summary(summary) => outcome.replies = self.settle(&summary, policy),
            GossipMessage::Request(ids) => outcome.replies.extend(self.held_of(&ids)),
        }
        outcome
    }

    /// The message that begins a comparison with one peer, unless another one began just now: the next one with all neighbours finds what that
    /// one leaves.
    pub fn begin(&mut self, now: Instant) -> Option<GossipMessage> {
        if now < self.begin_at {
            return None;
        }
        self.begin_at = now + COMPARE_PAUSE;
        Some(GossipMessage::Compare(self.digest()))
    }

    /// This node's own record, as a message.
    pub fn own(&self) -> Option<GossipMessage> {
        self.held_of(&[self.own_id])
    }

    /// The message that passes on the records of `ids`.
    pub fn records_of(&self, ids: &[NodeId]) -> GossipMessage {
        GossipMessage::Records(ids.iter().filter_map(|id| self.records.get(id)).take(MAX_RECORDS).cloned().collect())
    }

    /// Makes the next comparison due at once.
    pub fn hurry(&mut self) {
        self.compare_at = Instant::ZERO;
    }

    /// When the next comparison is due.
    pub fn poll_timeout(&self) -> Instant {
        self.compare_at
    }

    /// Returns what to send to each neighbour when a comparison is due.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<GossipMessage> {
        if now < self.compare_at {
            return None;
        }
        self.compare_at = now + COMPARE_INTERVAL;
        Some(GossipMessage::Compare(self.digest()))
    }

    /// Forgets those who are no members any more.
    pub fn forget(&mut self, removed: &[NodeId]) {
        self.records.retain(|id, _| !removed.contains(id));
    }

    /// Says whether a record of `id` is held.
    pub fn holds(&self, id: &NodeId) -> bool {
        self.records.contains_key(id)
    }

    fn take(&mut self, record: SignedRecord, policy: &Policy) -> Result<bool, GossipError> {
        let id = record.claimed_id();
        if record.claimed_sequence() <= self.sequence(&id) {
            return Ok(false);
        }
        let member = policy.member(&id).ok_or(GossipError::Stranger)?;
        record.verify(&member.node_key, &self.network_id)?;
        self.records.insert(id, record);
        Ok(true)
    }

    /// Notes a newer record of this node itself, so that the next one published is newer still.
    fn outdates_own(&mut self, record: &SignedRecord, policy: &Policy) -> bool {
        let is_newer = record.claimed_sequence() > self.sequence(&self.own_id);
        let is_own =
            policy.member(&self.own_id).is_some_and(|member| record.verify(&member.node_key, &self.network_id).is_ok());
        if is_newer && is_own {
            self.records.insert(self.own_id, record.clone());
        }
        is_newer && is_own
    }

    fn digest(&self) -> Digest {
        let entries: Vec<_> = self.entries().collect();
        let bytes = borsh::to_vec(&entries).expect("writing to memory does not fail");
        domain_hash("p2plus gossip digest 1", &[&bytes])
    }

    /// What is held of the ids that begin so: each with its sequence number, or digests where these are too many.
    fn describe(&self, prefix: IdPrefix) -> GossipMessage {
        let entries: Vec<_> = self.entries_of(&prefix).take(MAX_SUMMARY + 1).collect();
        if entries.len() > MAX_SUMMARY {
            self.branch(prefix)
        } else {
            GossipMessage::Summary(Summary { prefix, entries })
        }
    }

    fn branch(&self, prefix: IdPrefix) -> GossipMessage {
        let digest = |part: u8| prefix.part(part).map_or([0; 16], |part| self.digest_of(&part));
        let parts: [PartDigest; PARTS] = std::array::from_fn(|part| digest(part as u8));
        GossipMessage::Branch(Box::new(Branch { prefix, parts }))
    }

    fn digest_of(&self, prefix: &IdPrefix) -> PartDigest {
        let entries: Vec<_> = self.entries_of(prefix).collect();
        let bytes = borsh::to_vec(&entries).expect("writing to memory does not fail");
        let digest = domain_hash("p2plus gossip part 1", &[&bytes]).0;
        std::array::from_fn(|at| digest[at])
    }

    /// A closer look at each part that differs.
    fn differences(&self, theirs: &Branch) -> Vec<GossipMessage> {
        let parts = (0..).zip(&theirs.parts).filter_map(|(digit, digest)| Some((theirs.prefix.part(digit)?, digest)));
        let differing = parts.filter(|(part, digest)| self.digest_of(part) != **digest);
        differing.map(|(part, _)| self.describe(part)).collect()
    }

    fn entries(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.records.iter().map(|(id, record)| (*id, record.claimed_sequence()))
    }

    fn entries_of(&self, prefix: &IdPrefix) -> impl Iterator<Item = (NodeId, u64)> {
        let (first, last) = prefix.range();
        self.records.range(first..=last).map(|(id, record)| (*id, record.claimed_sequence()))
    }

    /// What is newer here, or a closer look where that is too much for a message: records that the other side refuses, because its ledger is
    /// behind, keep no others from it. And a request for what is newer there and would be believed here.
    fn settle(&self, theirs: &Summary, policy: &Policy) -> Vec<GossipMessage> {
        let (first, last) = theirs.prefix.range();
        let known: BTreeMap<_, _> = theirs.entries.iter().copied().collect();
        let is_newer = |(id, sequence): &(NodeId, u64)| known.get(id).is_none_or(|known| known < sequence);
        let newer: Vec<_> = self.entries_of(&theirs.prefix).filter(is_newer).map(|(id, _)| id).collect();
        let is_lacking = |(id, sequence): &&(NodeId, u64)| {
            (first..=last).contains(id)
                && *id != self.own_id
                && *sequence > self.sequence(id)
                && policy.member(id).is_some()
        };
        let wanted: Vec<_> = theirs.entries.iter().filter(is_lacking).map(|(id, _)| *id).collect();
        let request = (!wanted.is_empty()).then_some(GossipMessage::Request(wanted));
        let answer = if newer.len() > MAX_RECORDS { Some(self.branch(theirs.prefix)) } else { self.held_of(&newer) };
        answer.into_iter().chain(request).collect()
    }

    /// The message with the records held of `ids`, when there is one.
    fn held_of(&self, ids: &[NodeId]) -> Option<GossipMessage> {
        let message = self.records_of(ids);
        (message != GossipMessage::Records(Vec::new())).then_some(message)
    }
}

/// The other members in the order in which `own` keeps sessions with them, the first that are there: the highest by rendezvous hash of (own id,
/// epoch, candidate), so that every node chooses differently and nobody can arrange to be chosen by all.
pub fn neighbours(own: &NodeId, policy: &Policy, wall: UnixMillis) -> Vec<NodeId> {
    let epoch = wall.0 / (NEIGHBOUR_EPOCH_HOURS * 3_600_000);
    let weight = |id: &NodeId| domain_hash("p2plus neighbour 1", &[&own.0, &epoch.to_le_bytes(), &id.0]);
    let mut others: Vec<_> =
        policy.members().map(|member| member.id).filter(|id| id != own).map(|id| (weight(&id), id)).collect();
    others.sort_unstable();
    others.into_iter().rev().map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
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
        let record = NodeRecord {
            id: key.node_id(),
            sequence,
            endpoints: Vec::new(),
            requests: Vec::new(),
            refused: Vec::new(),
            nat: NatKind::Unknown,
            is_relay: false,
            homes: Vec::new(),
        };
        SignedRecord::sign(record, key, &NETWORK)
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
        let mut said = vec![left.handle_timeout(now).unwrap()];
        // The other one compares itself with its own neighbours meanwhile.
        right.handle_timeout(now).unwrap();
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
            let now = Instant::ZERO + COMPARE_INTERVAL * round;
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
                    gossip.records.insert(key.node_id(), record.clone());
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
        let whole: usize = right.records.values().map(|record| borsh::to_vec(record).unwrap().len()).sum();
        let spoken = compare(&mut left, &mut right, Instant::ZERO, &policy, &policy);
        assert_eq!(left.digest(), right.digest());
        assert!(spoken.turns <= 6, "{}", spoken.turns);
        assert!(spoken.bytes < whole * 5 / 4, "{} bytes for records of {whole}", spoken.bytes);
    }

    #[test]
    fn one_record_among_many_is_found_for_few_bytes() {
        let (policy, mut left, mut right) = two_of_many(2000, |number| [number == 77, false]);
        let spoken = compare(&mut left, &mut right, Instant::ZERO, &policy, &policy);
        assert_eq!(left.digest(), right.digest());
        assert!(spoken.bytes < 2000 && spoken.messages <= 8, "{} bytes, {} messages", spoken.bytes, spoken.messages);
    }

    #[test]
    fn of_many_that_compare_at_once_one_is_answered_and_of_many_answers_one_followed() {
        let (policy, mut left, mut right) = two_of_many(100, |number| [number > 0, false]);
        let compare = left.begin(NOW.instant).unwrap();
        assert_eq!(left.begin(NOW.instant), None);
        let from = |seed| TransportKey([seed; 32]);
        let answers = right.handle(NOW, from(1), compare.clone(), &policy).replies;
        let count = |gossip: &mut Gossip, seconds, seed, message: &GossipMessage| {
            let now = at(NOW.instant + Duration::from_secs(seconds));
            gossip.handle(now, from(seed), message.clone(), &policy).replies.len()
        };
        assert_eq!((answers.len(), count(&mut right, 0, 2, &compare)), (1, 0));
        assert_eq!([1, 2].map(|seed| count(&mut left, 0, seed, &answers[0])), [16, 0]);
        assert_eq!((count(&mut right, 1, 2, &compare), count(&mut left, 1, 2, &answers[0])), (1, 16));
        // One that takes every turn that it gets has one of ten.
        let greedy: Vec<_> = (11..31).map(|second| count(&mut right, second, 1, &compare)).collect();
        assert_eq!(greedy.iter().sum::<usize>(), 2, "{greedy:?}");
        assert_eq!(count(&mut right, 32, 3, &compare), 1);
    }

    #[test]
    fn a_record_of_now_is_news_and_an_old_one_is_not() {
        let policy = policy([1, 2, 3]);
        let mut gossip = Gossip::new(key(1).node_id(), NETWORK);
        let records = vec![record(2, NOW.wall.0 - 59_000), record(3, NOW.wall.0 - 61_000)];
        let outcome = gossip.handle(NOW, PEER, GossipMessage::Records(records), &policy);
        assert_eq!(outcome.updated, [key(2).node_id(), key(3).node_id()]);
        assert_eq!(outcome.news, [key(2).node_id()]);
    }

    #[test]
    fn records_spread_over_one_comparison() {
        let policy = policy([1, 2, 3]);
        let mut left = Gossip::new(key(1).node_id(), NETWORK);
        let mut right = Gossip::new(key(2).node_id(), NETWORK);
        left.publish(record(1, 10));
        right.publish(record(2, 20));
        right.handle(NOW, PEER, GossipMessage::Records(vec![record(3, 30)]), &policy);

        compare(&mut left, &mut right, Instant::ZERO, &policy, &policy);
        assert_eq!(left.digest(), right.digest());
        assert_eq!(left.sequence(&key(3).node_id()), 30);
        assert_eq!(right.sequence(&key(1).node_id()), 10);
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
        let first = neighbours(&own, &policy, UnixMillis(0));
        assert_eq!(first.len(), 19);
        assert!(!first.contains(&own));
        assert_eq!(first, neighbours(&own, &policy, UnixMillis(3_600_000)));
        assert_ne!(first, neighbours(&own, &policy, UnixMillis(7 * 3_600_000)));
    }
}
