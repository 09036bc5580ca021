//! Node records on their way through the network: who is kept close, who is told, and what both sides lack.
//!
//! ```text
//!   a new record ──► every neighbour, which passes it on if it is new there, with what else comes within a second
//!   every 30 s:  Compare(digest of all) ──► equal: silence
//!                                           else ◄── Branch(16 digests) ──► for each that differs: Branch │ Summary ◄──► Records, Request
//!                while it is in touch with too few: Wanted ──► ◄── Present(who is there)
//! ```
//! Whoever chose a neighbour compares, the chosen one answers. What differs is found along the digits of the ids, so that one record among
//! ten thousand costs three kilobytes, and a node that knows nothing gets everything in three round trips. A record is believed only under
//! its member's node key; gossip can deny reachability, never gain trust.

mod message;
mod news;
mod schedule;

pub use message::{Branch, GossipError, GossipMessage, IdPrefix, Summary};

use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::{Digest, domain_hash};
use crate::crypto::identity::{NodeId, SigningKey, VerifyingKey};
use crate::policy::Policy;
use crate::time::{Instant, Now, UnixMillis};
use crate::wire::control::{NodeRecord, SignedRecord};
use message::{MAX_PRESENT, MAX_RECORDS, MAX_SUMMARY, PARTS, PartDigest};
use news::News;
use schedule::Schedule;
use std::collections::BTreeMap;
use std::time::Duration;

/// Members that every node keeps a session with.
pub const NEIGHBOURS: usize = 4;

/// How long a choice of neighbours stays, in hours: long enough for sessions to pay, short enough to heal a poor choice.
const NEIGHBOUR_EPOCH_HOURS: u64 = 6;

/// How long who did not begin a session leaves it to the other one to compare.
const RESPONDER_WAIT: Duration = Duration::from_secs(3);

/// Up to this age a record is passed on to everybody with a session; what is older was missed by one node, and most have it.
const NEWS_AGE: Duration = Duration::from_secs(300);

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
    /// The sender is to be told who is there.
    pub is_asked_who_is_there: bool,
    /// Members that are there, as the sender says.
    pub present: Vec<NodeId>,
}

/// The records that this node holds, at most one per member.
pub struct Gossip {
    own_id: NodeId,
    network_id: Digest,
    records: BTreeMap<NodeId, Verified>,
    schedule: Schedule,
    news: News,
}

/// A record, and the key under which it was believed when it came: to verify it at each look costs 50 µs.
struct Verified {
    record: SignedRecord,
    by: VerifyingKey,
}

impl Gossip {
    /// Starts with nothing known.
    pub fn new(own_id: NodeId, network_id: Digest) -> Self {
        Self { own_id, network_id, records: BTreeMap::new(), schedule: Schedule::default(), news: News::default() }
    }

    /// Signs and replaces this node's own record. Returns the message that tells others.
    pub fn publish(&mut self, record: NodeRecord, node_key: &SigningKey) -> GossipMessage {
        let record = SignedRecord::sign(record, node_key, &self.network_id);
        self.records.insert(self.own_id, Verified { record: record.clone(), by: node_key.verifying_key() });
        GossipMessage::Records(vec![record])
    }

    /// Lends the record of a member, as its node key signed it that `policy` has.
    pub fn record(&self, id: &NodeId, policy: &Policy) -> Option<&NodeRecord> {
        let Verified { record, by } = self.records.get(id)?;
        (policy.member(id)?.node_key == *by).then(|| record.claimed())
    }

    /// Lends the record of a member as it was signed.
    pub fn signed(&self, id: &NodeId) -> Option<&SignedRecord> {
        Some(&self.records.get(id)?.record)
    }

    /// Says whether a member's record, which was verified when it came, says that it relays.
    pub fn is_relay(&self, id: &NodeId) -> bool {
        self.records.get(id).is_some_and(|held| held.record.claims_relay())
    }

    /// The members whose records say so, in the order of their ids.
    pub fn relays(&self) -> impl Iterator<Item = NodeId> {
        self.records.iter().filter(|(_, held)| held.record.claims_relay()).map(|(id, _)| *id)
    }

    /// The sequence number of the record held of `id`, 0 when none is.
    pub fn sequence(&self, id: &NodeId) -> u64 {
        self.records.get(id).map_or(0, |held| held.record.claimed_sequence())
    }

    /// Takes a message of a peer in, each record by itself: one that cannot be believed costs none of the others.
    pub fn handle(&mut self, now: Now, from: TransportKey, message: GossipMessage, policy: &Policy) -> GossipOutcome {
        let mut outcome = GossipOutcome::default();
        let is_look = !matches!(message, GossipMessage::Records(_) | GossipMessage::Request(_));
        if is_look && !self.schedule.may_look(now.instant, from) {
            outcome.refused.push(GossipError::TooOften);
            return outcome;
        }
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
                if digest != self.digest() && self.schedule.answer(now.instant, from) {
                    outcome.replies.push(self.describe(IdPrefix::ALL));
                }
            }
            GossipMessage::Branch(branch) => {
                if branch.prefix != IdPrefix::ALL || self.schedule.follow(&from) {
                    outcome.replies = self.differences(&branch);
                }
            }
            GossipMessage::Summary(summary) => outcome.replies = self.settle(&summary, policy),
            GossipMessage::Request(ids) => outcome.replies.extend(self.held_of(&ids)),
            GossipMessage::Wanted => outcome.is_asked_who_is_there = true,
            GossipMessage::Present(ids) => outcome.present = ids,
        }
        outcome
    }

    /// There is a session with a peer: records are compared with it, by who began it at once, and by the other one if something is left then.
    pub fn greet(&mut self, now: Instant, peer: TransportKey, is_initiator: bool) {
        self.schedule.expect(if is_initiator { now } else { now + RESPONDER_WAIT }, peer);
    }

    /// Forgets a peer whose last session ended.
    pub fn part_from(&mut self, peer: &TransportKey) {
        self.schedule.forget(peer);
    }

    /// This node's own record, as a message.
    pub fn own(&self) -> Option<GossipMessage> {
        self.held_of(&[self.own_id])
    }

    /// Takes members whose records are to be passed on to the neighbours, but to the one that they came from.
    pub fn add_news(&mut self, from: Option<TransportKey>, ids: &[NodeId]) {
        self.news.add(from, ids.iter().copied());
    }

    /// Returns what the neighbours are to be told now, each what it did not tell itself.
    pub fn take_news(
        &mut self,
        now: Instant,
        neighbours: impl FnOnce() -> Vec<TransportKey>,
    ) -> Vec<(TransportKey, GossipMessage)> {
        let news = self.news.take(now);
        if news.is_empty() {
            return Vec::new();
        }
        let mut messages = Vec::new();
        for peer in neighbours() {
            let others = news.iter().filter(|(_, from)| **from != Some(peer));
            let ids: Vec<_> = others.map(|(id, _)| *id).collect();
            messages.extend(ids.chunks(MAX_RECORDS).filter_map(|some| Some((peer, self.held_of(some)?))));
        }
        messages
    }

    /// The message with the records of `ids`.
    fn records_of(&self, ids: &[NodeId]) -> GossipMessage {
        GossipMessage::Records(ids.iter().filter_map(|id| self.signed(id)).take(MAX_RECORDS).cloned().collect())
    }

    /// Makes comparisons with all neighbours due at once.
    pub fn hurry(&mut self) {
        self.schedule.hurry();
    }

    /// When the next comparison is due, or news.
    pub fn poll_timeout(&self) -> Instant {
        let comparison = self.schedule.poll_timeout();
        self.news.poll_timeout().map_or(comparison, |news| news.min(comparison))
    }

    /// Returns with whom to compare now, and what begins it. `neighbours` is asked when all of them are due.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        neighbours: impl FnOnce() -> Vec<TransportKey>,
    ) -> Option<(TransportKey, GossipMessage)> {
        let peer = self.schedule.take(now, neighbours)?;
        Some((peer, GossipMessage::Compare(self.digest())))
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
        let by = policy.member(&id).ok_or(GossipError::Stranger)?.node_key;
        record.verify(&by, &self.network_id)?;
        self.records.insert(id, Verified { record, by });
        Ok(true)
    }

    /// Notes a newer record of this node itself, so that the next one published is newer still.
    fn outdates_own(&mut self, record: &SignedRecord, policy: &Policy) -> bool {
        let is_newer = record.claimed_sequence() > self.sequence(&self.own_id);
        let own_key = policy.member(&self.own_id).map(|member| member.node_key);
        let by = own_key.filter(|key| is_newer && record.verify(key, &self.network_id).is_ok());
        if let Some(by) = by {
            self.records.insert(self.own_id, Verified { record: record.clone(), by });
        }
        by.is_some()
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
        self.records.iter().map(|(id, held)| (*id, held.record.claimed_sequence()))
    }

    fn entries_of(&self, prefix: &IdPrefix) -> impl Iterator<Item = (NodeId, u64)> {
        let (first, last) = prefix.range();
        self.records.range(first..=last).map(|(id, held)| (*id, held.record.claimed_sequence()))
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

/// Of these members, others than `own`, the order in which it keeps sessions with them, the first that are there: the highest by rendezvous hash
/// of (own id, epoch, candidate), so that every node chooses differently and nobody can arrange to be chosen by all.
pub fn neighbours(own: &NodeId, members: impl Iterator<Item = NodeId>, wall: UnixMillis) -> Vec<NodeId> {
    let epoch = neighbour_epoch(wall);
    let weight = |id: &NodeId| domain_hash("p2plus neighbour 1", &[&own.0, &epoch.to_le_bytes(), &id.0]);
    let mut others: Vec<_> = members.filter(|id| id != own).map(|id| (weight(&id), id)).collect();
    others.sort_unstable();
    others.into_iter().rev().map(|(_, id)| id).collect()
}

/// The number of the span of time for which a choice of neighbours stays.
pub fn neighbour_epoch(wall: UnixMillis) -> u64 {
    wall.0 / (NEIGHBOUR_EPOCH_HOURS * 3_600_000)
}

/// The answer to one that is in touch with too few members: of those that are there, the first in its order.
pub fn present(asker: &NodeId, in_touch: impl Iterator<Item = NodeId>, wall: UnixMillis) -> GossipMessage {
    let mut members = neighbours(asker, in_touch, wall);
    members.truncate(MAX_PRESENT);
    GossipMessage::Present(members)
}

#[cfg(test)]
mod tests;
