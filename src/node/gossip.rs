//! Node records on their way through the network: who is kept close, who is told, and what both sides lack.
//!
//! Pushes a new record at once to everybody with a live session and repairs what was missed by comparing digests every ten seconds with
//! the neighbours alone: whoever chose compares, the chosen one answers. A record is believed only under its member's node key; gossip can deny reachability, never
//! gain trust.

use crate::crypto::hash::{Digest, domain_hash};
use crate::crypto::identity::NodeId;
use crate::policy::Policy;
use crate::time::{Instant, UnixMillis};
use crate::wire::control::{NodeRecord, RecordError, SignedRecord};
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Members that every node keeps a session with.
const NEIGHBOURS: usize = 4;

/// How long a choice of neighbours stays, in hours: long enough for sessions to pay, short enough to heal a poor choice.
const NEIGHBOUR_EPOCH_HOURS: u64 = 6;

/// How often the records are compared with a neighbour's.
const COMPARE_INTERVAL: Duration = Duration::from_secs(10);

/// Records in one message: below 32 kB.
const MAX_RECORDS: usize = 64;

/// Entries of one summary: 40 kB.
const MAX_SUMMARY: usize = 1024;

/// Why a gossip message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GossipError {
    /// Bytes that are no gossip message of this version.
    #[error("not a gossip message")]
    Malformed,
    /// More entries than one message may have.
    #[error("too many entries in a gossip message")]
    TooMany,
    /// A record of somebody who is no member.
    #[error("a record of a stranger")]
    Stranger,
    /// A record that its member did not sign.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What neighbours say to each other on the gossip stream.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum GossipMessage {
    /// Records that the receiver may lack.
    Records(Vec<SignedRecord>),
    /// A digest over all records of the sender, so that equal sets cost 33 bytes.
    Compare(Digest),
    /// Ids and sequence numbers of the sender's records in one window: answered with what is newer at the receiver, and a request for
    /// what is older there.
    Summary(Summary),
    /// Ids of which the receiver has newer records than the sender. Answered with them and nothing else, so that a comparison ends.
    Request(Vec<NodeId>),
}

/// What a node holds of the ids from `from` on and below `until`, or to the end. An id between them that is not listed has no record there.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Summary {
    from: NodeId,
    until: Option<NodeId>,
    entries: Vec<(NodeId, u64)>,
}

impl Summary {
    fn covers(&self, id: &NodeId) -> bool {
        *id >= self.from && self.until.is_none_or(|until| *id < until)
    }
}

impl GossipMessage {
    /// Encodes the message.
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Decodes a message; all bytes must belong to it, and the counts are bounded.
    ///
    /// # Errors
    /// [`GossipError::Malformed`] or [`GossipError::TooMany`].
    pub fn decode(bytes: &[u8]) -> Result<Self, GossipError> {
        let message = borsh::from_slice(bytes).map_err(|_| GossipError::Malformed)?;
        let fits = match &message {
            Self::Records(records) => records.len() <= MAX_RECORDS,
            Self::Summary(summary) => summary.entries.len() <= MAX_SUMMARY,
            Self::Request(ids) => ids.len() <= MAX_RECORDS,
            Self::Compare(_) => true,
        };
        if fits { Ok(message) } else { Err(GossipError::TooMany) }
    }
}

/// What a message led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct GossipOutcome {
    /// Members whose records are new here.
    pub updated: Vec<NodeId>,
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
}

impl Gossip {
    /// Starts with nothing known.
    pub fn new(own_id: NodeId, network_id: Digest) -> Self {
        Self { own_id, network_id, records: BTreeMap::new(), compare_at: Instant::ZERO }
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

    /// Takes a message in, each record by itself: one that cannot be believed costs none of the others.
    pub fn handle(&mut self, message: GossipMessage, policy: &Policy) -> GossipOutcome {
        let mut outcome = GossipOutcome::default();
        match message {
            GossipMessage::Records(records) => {
                for record in records {
                    let id = record.claimed_id();
                    if id == self.own_id {
                        outcome.own_is_outdated |= self.outdates_own(&record, policy);
                        continue;
                    }
                    match self.take(record, policy) {
                        Ok(true) => outcome.updated.push(id),
                        Ok(false) => {}
                        Err(error) => outcome.refused.push(error),
                    }
                }
            }
            GossipMessage::Compare(digest) => {
                if digest != self.digest() {
                    outcome.replies.push(GossipMessage::Summary(self.summary()));
                }
            }
            GossipMessage::Summary(summary) => outcome.replies = self.settle(&summary, policy),
            GossipMessage::Request(ids) => outcome.replies.extend(self.held_of(&ids)),
        }
        outcome
    }

    /// The messages that give a fresh session's peer all records, in pieces.
    pub fn everything(&self) -> Vec<GossipMessage> {
        let all: Vec<_> = self.records.values().cloned().collect();
        all.chunks(MAX_RECORDS).map(|piece| GossipMessage::Records(piece.to_vec())).collect()
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

    /// A window of the records, another one each time where there are too many for one message.
    fn summary(&self) -> Summary {
        let windows = self.records.len().div_ceil(MAX_SUMMARY).max(1);
        let window = self.round(windows);
        let start = |window: usize| self.records.keys().nth(window * MAX_SUMMARY).copied();
        Summary {
            from: if window == 0 { NodeId([0; 32]) } else { start(window).unwrap_or(NodeId([0; 32])) },
            until: start(window + 1),
            entries: self.entries().skip(window * MAX_SUMMARY).take(MAX_SUMMARY).collect(),
        }
    }

    /// Which of `turns` it is: the next one after each comparison.
    fn round(&self, turns: usize) -> usize {
        let round = self.compare_at.as_micros() / u64::try_from(COMPARE_INTERVAL.as_micros()).unwrap_or(u64::MAX);
        usize::try_from(round % turns.max(1) as u64).unwrap_or(0)
    }

    fn entries(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.records.iter().map(|(id, record)| (*id, record.claimed_sequence()))
    }

    /// What is newer here, and a request for what is newer there and would be believed here.
    fn settle(&self, theirs: &Summary, policy: &Policy) -> Vec<GossipMessage> {
        let known: BTreeMap<_, _> = theirs.entries.iter().copied().collect();
        let is_newer = |(id, sequence): &(NodeId, u64)| known.get(id).is_none_or(|known| known < sequence);
        let mut newer: Vec<_> = self.entries().filter(|(id, _)| theirs.covers(id)).filter(is_newer).collect();
        // Records that the other side refuses, because its ledger is behind, must not keep all others from it.
        let turn = self.round(newer.len().div_ceil(MAX_RECORDS)) * MAX_RECORDS;
        let turn = turn.min(newer.len());
        newer.rotate_left(turn);
        let newer: Vec<_> = newer.into_iter().take(MAX_RECORDS).map(|(id, _)| id).collect();
        let is_lacking = |(id, sequence): &&(NodeId, u64)| *id != self.own_id && *sequence > self.sequence(id);
        let believable = theirs.entries.iter().filter(is_lacking).filter(|(id, _)| policy.member(id).is_some());
        let wanted: Vec<_> = believable.take(MAX_RECORDS).map(|(id, _)| *id).collect();
        let request = (!wanted.is_empty()).then_some(GossipMessage::Request(wanted));
        self.held_of(&newer).into_iter().chain(request).collect()
    }

    /// The message with the records held of `ids`, when there is one.
    fn held_of(&self, ids: &[NodeId]) -> Option<GossipMessage> {
        let message = self.records_of(ids);
        (message != GossipMessage::Records(Vec::new())).then_some(message)
    }
}

/// The members that `own` keeps sessions with: the highest by rendezvous hash of (own id, epoch, candidate), so that every node
/// chooses differently and nobody can arrange to be chosen by all.
pub fn neighbours(own: &NodeId, policy: &Policy, wall: UnixMillis) -> BTreeSet<NodeId> {
    let epoch = wall.0 / (NEIGHBOUR_EPOCH_HOURS * 3_600_000);
    let weight = |id: &NodeId| domain_hash("p2plus neighbour 1", &[&own.0, &epoch.to_le_bytes(), &id.0]);
    let mut others: Vec<_> =
        policy.members().map(|member| member.id).filter(|id| id != own).map(|id| (weight(&id), id)).collect();
    others.sort_unstable();
    others.into_iter().rev().take(NEIGHBOURS).map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::exchange::TransportKey;
    use crate::crypto::identity::SigningKey;
    use crate::policy::Member;
    use crate::wire::control::NatKind;

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
        let record = NodeRecord {
            id: key(seed).node_id(),
            sequence,
            endpoints: Vec::new(),
            requests: Vec::new(),
            refused: Vec::new(),
            nat: NatKind::Unknown,
            is_relay: false,
            homes: Vec::new(),
        };
        SignedRecord::sign(record, &key(seed), &NETWORK)
    }

    /// Lets `left` compare itself with `right` at `now`; returns how many messages went between them until both were silent.
    fn compare(left: &mut Gossip, right: &mut Gossip, now: Instant, lefts: &Policy, rights: &Policy) -> usize {
        let mut to_right = vec![left.handle_timeout(now).unwrap()];
        // The other one compares itself with its own neighbours meanwhile.
        right.handle_timeout(now).unwrap();
        let mut sent = 0;
        while !to_right.is_empty() && sent < 100 {
            sent += to_right.len();
            let to_left: Vec<_> =
                to_right.drain(..).flat_map(|message| right.handle(message, rights).replies).collect();
            sent += to_left.len();
            to_right = to_left.into_iter().flat_map(|message| left.handle(message, lefts).replies).collect();
        }
        sent
    }

    #[test]
    fn nodes_that_believe_different_members_fall_silent_after_each_comparison() {
        // 1 does not know yet that 4 is a member, 2 not that 3 was revoked.
        let (lefts, rights) = (policy([1, 2, 3]), policy([1, 2, 4]));
        let mut left = Gossip::new(key(1).node_id(), NETWORK);
        let mut right = Gossip::new(key(2).node_id(), NETWORK);
        left.handle(GossipMessage::Records(vec![record(3, 30)]), &lefts);
        right.handle(GossipMessage::Records(vec![record(4, 40)]), &rights);
        for round in 0..3 {
            let now = Instant::ZERO + COMPARE_INTERVAL * round;
            let sent = compare(&mut left, &mut right, now, &lefts, &rights);
            assert!(sent <= 3, "a comparison, a summary and the records that are refused: {sent}");
        }
    }

    #[test]
    fn more_records_than_one_message_can_name_spread_as_well() {
        let everybody: Vec<_> = (0..2 * MAX_SUMMARY + 300).map(many).collect();
        let policy = policy_of(everybody.iter());
        let mut left = Gossip::new(many(0).node_id(), NETWORK);
        let mut right = Gossip::new(many(1).node_id(), NETWORK);
        for (number, key) in everybody.iter().enumerate() {
            let record = NodeRecord {
                id: key.node_id(),
                sequence: 1,
                endpoints: Vec::new(),
                requests: Vec::new(),
                refused: Vec::new(),
                nat: NatKind::Unknown,
                is_relay: false,
                homes: Vec::new(),
            };
            let record = SignedRecord::sign(record, key, &NETWORK);
            // Each lacks some hundred that the other holds, spread over all ids.
            if number % 20 != 3 {
                left.records.insert(key.node_id(), record.clone());
            }
            if number % 20 != 7 {
                right.records.insert(key.node_id(), record);
            }
        }
        let mut rounds = 0;
        while left.digest() != right.digest() && rounds < 100 {
            compare(&mut left, &mut right, Instant::ZERO + COMPARE_INTERVAL * rounds, &policy, &policy);
            rounds += 1;
        }
        assert!(
            rounds <= 12,
            "{rounds} rounds for 3 windows with some 40 records lacking in each of them on either side"
        );
    }

    #[test]
    fn records_spread_over_one_comparison() {
        let policy = policy([1, 2, 3]);
        let mut left = Gossip::new(key(1).node_id(), NETWORK);
        let mut right = Gossip::new(key(2).node_id(), NETWORK);
        left.publish(record(1, 10));
        right.publish(record(2, 20));
        right.handle(GossipMessage::Records(vec![record(3, 30)]), &policy);

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
        assert_eq!(gossip.handle(records(record(9, 1)), &policy).refused, [GossipError::Stranger]);
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
        assert!(matches!(gossip.handle(records(forged), &policy).refused[..], [GossipError::Record(_)]));
        assert_eq!(gossip.handle(records(record(2, 5)), &policy).updated, [key(2).node_id()]);
        assert!(gossip.handle(records(record(2, 4)), &policy).updated.is_empty());
        assert_eq!(gossip.sequence(&key(2).node_id()), 5);
        gossip.forget(&[key(2).node_id()]);
        assert!(!gossip.holds(&key(2).node_id()));
    }

    #[test]
    fn a_record_that_is_not_believed_costs_none_of_the_others() {
        let policy = policy([1, 2, 3]);
        let mut gossip = Gossip::new(key(1).node_id(), NETWORK);
        let message = GossipMessage::Records(vec![record(2, 5), record(9, 5), record(3, 5)]);
        let outcome = gossip.handle(message, &policy);
        assert_eq!(outcome.updated, [key(2).node_id(), key(3).node_id()]);
        assert_eq!(outcome.refused, [GossipError::Stranger]);
    }

    #[test]
    fn neighbours_are_four_others_and_change_with_the_epoch() {
        let policy = policy(1..=20);
        let own = key(1).node_id();
        let first = neighbours(&own, &policy, UnixMillis(0));
        assert_eq!(first.len(), NEIGHBOURS);
        assert!(!first.contains(&own));
        assert_eq!(first, neighbours(&own, &policy, UnixMillis(3_600_000)));
        assert_ne!(first, neighbours(&own, &policy, UnixMillis(7 * 3_600_000)));
    }

    #[test]
    fn a_message_with_too_many_entries_is_refused() {
        let entries = vec![(NodeId([1; 32]), 1); MAX_SUMMARY + 1];
        let summary = Summary { from: NodeId([0; 32]), until: None, entries };
        assert_eq!(GossipMessage::decode(&GossipMessage::Summary(summary).encode()), Err(GossipError::TooMany));
        let request = GossipMessage::Request(vec![NodeId([1; 32]); MAX_RECORDS + 1]);
        assert_eq!(GossipMessage::decode(&request.encode()), Err(GossipError::TooMany));
        assert_eq!(GossipMessage::decode(&[7]), Err(GossipError::Malformed));
    }
}
