//! Members in the Mainline DHT: what this node has stored there of itself, and whom it looks up.
//!
//! ```text
//!   item key     seed of an Ed25519 key:  H("p2plus/dht-key/1"   | network secret | node id | week)
//!   sealing key  ChaCha20-Poly1305:       H("p2plus/dht-value/1" | network secret | node id | week)
//!   value        wire::dht: the member's own signed record, sealed under a random nonce
//! ```
//! The DHT is public and anybody may be in it. Who does not know the network's secret finds no item, reads none, and cannot tell that the items
//! of two members or two weeks belong together. Whoever does know it can write any member's item: so a value is only where a record came from,
//! and the record is believed as one of gossip is, under the member's node key and when it is newer. Clocks differ, and what was stored lasts
//! for two hours: around the change of week the items of both are looked up.

mod plan;

pub use plan::{MAX_AT_ONCE, MAX_SEARCHES, Plan, Whereabouts};

use super::gossip::GossipMessage;
use super::{Node, NodeEvent};
use crate::crypto::aead::{TAG_LEN, open_chacha20_poly1305, seal_chacha20_poly1305};
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::{NodeId, Signature, SigningKey, VerifyingKey};
use crate::crypto::secret::Secret;
use crate::path::CandidateSource;
use crate::session::LocalKeys;
use crate::time::{Now, UnixMillis};
use crate::wire::control::{MAX_RECORD_ENDPOINTS, SignedRecord};
use crate::wire::dht::{NONCE_LEN, pad, signed_part, unpad};
use crate::wire::drops::DropReason;
use rand_core::CryptoRng;
use std::time::Duration;

const MILLIS_A_WEEK: u64 = 7 * 86_400_000;

/// How long before and after the change of week the items of both weeks are looked up: what was stored before it may last for two hours, and is
/// replaced within one; the rest is for clocks that differ.
const TURN: Duration = Duration::from_secs(3 * 3600);

/// The item of a member in a week.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Weeks since 1970.
    pub week: u64,
    /// The key that signs the item: the DHT finds it by that.
    pub key: VerifyingKey,
}

/// What is to be stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The key that signs the item.
    pub key: VerifyingKey,
    /// Its signature, as BEP 44 has it.
    pub signature: Signature,
    /// Higher replaces lower: seconds since 1970 when it was made, or the last + 1.
    pub sequence: i64,
    /// The sealed record.
    pub value: Vec<u8>,
}

/// What the shell tells of the DHT.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// A value that the member's item of a week has, as somebody says who knows the network's secret.
    Found {
        /// Whose.
        member: NodeId,
        /// Of which week.
        week: u64,
        /// The value.
        value: Vec<u8>,
    },
    /// Nothing more comes of looking this member up.
    Looked(NodeId),
    /// The item is stored at so many nodes of the DHT.
    Stored(u32),
    /// Nobody stored the item.
    NotStored,
}

/// Why a value says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not sealed under the network's secret, for this member and week.
    #[error("a value that nobody of this network sealed for this member and week")]
    Unauthenticated,
    /// Sealed, and no record within.
    #[error("a sealed value that is no record")]
    Malformed,
    /// A record of somebody else.
    #[error("a record of another member")]
    Another,
}

/// The week of a moment.
fn week_of(wall: UnixMillis) -> u64 {
    wall.0 / MILLIS_A_WEEK
}

fn item_key(keys: &LocalKeys, id: &NodeId, week: u64) -> SigningKey {
    let seed = Secret::new(keys.network_hash("p2plus/dht-key/1", &[&id.0, &week.to_le_bytes()]).0);
    SigningKey::from_seed(seed.expose())
}

fn sealing_key(keys: &LocalKeys, id: &NodeId, week: u64) -> Secret<32> {
    Secret::new(keys.network_hash("p2plus/dht-value/1", &[&id.0, &week.to_le_bytes()]).0)
}

/// Where a member's items are now: one, or two around the change of week.
pub fn places(keys: &LocalKeys, id: &NodeId, wall: UnixMillis) -> Vec<Place> {
    let turn = u64::try_from(TURN.as_millis()).unwrap_or(0);
    let (first, last) = (week_of(UnixMillis(wall.0.saturating_sub(turn))), week_of(wall.after(TURN)));
    (first..=last).map(|week| Place { week, key: item_key(keys, id, week).verifying_key() }).collect()
}

/// Seals a record for the item of its member in the week of `wall`; none when it is longer than any that others would believe.
pub fn seal(
    keys: &LocalKeys,
    record: &SignedRecord,
    wall: UnixMillis,
    sequence: i64,
    nonce: [u8; NONCE_LEN],
) -> Option<Item> {
    let (id, week) = (record.claimed_id(), week_of(wall));
    let mut sealed = pad(record)?;
    // A key seals one value a minute at most, for a week: of 10,080 random nonces two are equal once in 2^70.
    let tag = seal_chacha20_poly1305(&sealing_key(keys, &id, week), &nonce, b"", &mut sealed);
    let value = [&nonce[..], &sealed, &tag].concat();
    let key = item_key(keys, &id, week);
    let signature = key.sign(&signed_part(sequence, &value));
    Some(Item { key: key.verifying_key(), signature, sequence, value })
}

/// Opens a value of a member's item of a week. The record within is not verified.
///
/// # Errors
/// [`ValueError`].
pub fn open(keys: &LocalKeys, id: &NodeId, week: u64, value: &[u8]) -> Result<SignedRecord, ValueError> {
    let parts = value.split_first_chunk::<NONCE_LEN>();
    let parts = parts.and_then(|(nonce, rest)| Some((nonce, rest.split_last_chunk::<TAG_LEN>()?)));
    let (nonce, (sealed, tag)) = parts.ok_or(ValueError::Unauthenticated)?;
    let mut text = sealed.to_vec();
    open_chacha20_poly1305(&sealing_key(keys, id, week), nonce, b"", &mut text, tag)
        .map_err(|_| ValueError::Unauthenticated)?;
    let record = unpad(&text).map_err(|_| ValueError::Malformed)?;
    if record.claimed_id() == *id { Ok(record) } else { Err(ValueError::Another) }
}

impl<R: CryptoRng> Node<R> {
    /// Takes whether the DHT is used.
    pub fn use_dht(&mut self, now: Now, is_wanted: bool) {
        self.dht.set_on(is_wanted);
        self.note_whereabouts(now);
        self.settle(now);
    }

    /// Takes what the shell tells of the DHT.
    pub fn handle_dht(&mut self, now: Now, report: Report) {
        self.notice(now);
        match report {
            Report::Found { member, week, value } => self.take_value(now, member, week, &value),
            Report::Looked(member) => self.dht.looked(&member),
            Report::Stored(nodes) => {
                tracing::debug!(nodes, "the DHT has where this node is");
                self.dht.stored();
            }
            Report::NotStored => {
                tracing::debug!("the DHT does not take where this node is");
                self.dht.not_stored(now.instant);
            }
        }
        self.tend_dht(now);
        self.settle(now);
    }

    /// Stores what is due, and looks up whom this node looks for in vain.
    pub(super) fn tend_dht(&mut self, now: Now) {
        if self.dht.take_publication(now.instant, self.rng.next_u64()) {
            self.store_record(now);
        }
        let (policy, membership, peers) = (&self.policy, &self.membership, &self.peers);
        let is_sought = |id: &NodeId| {
            let host = || membership.host(id).map(|host| host.transport_key);
            let key = policy.member(id).map(|member| member.transport_key).or_else(host);
            key.is_some_and(|key| !peers.is_in_touch(now.instant, &key))
        };
        for member in self.dht.take_due(now.instant, is_sought) {
            tracing::debug!(peer = ?member, "looked up in the DHT");
            let places = places(self.peers.keys(), &member, now.wall);
            self.tell(NodeEvent::LookUp { member, places });
        }
    }

    /// A peer is looked for: unless it is found soon by itself, the DHT is asked.
    pub(super) fn look_up_soon(&mut self, now: Now, key: &TransportKey) {
        let host = || self.membership.invitation()?.bootstrap.iter().find(|host| host.transport_key == *key);
        let id = self.policy.admit(key).member().or_else(|| host().map(|host| host.id));
        if let Some(id) = id.filter(|id| *id != self.own_id) {
            self.dht.seek(now.instant, id);
        }
    }

    /// There is a new record of this node.
    pub(super) fn note_whereabouts(&mut self, now: Now) {
        let Some(record) = self.gossip.record(&self.own_id, &self.policy) else { return };
        let homes = record.homes.iter().map(|home| home.id).collect();
        let whereabouts = Whereabouts { endpoints: record.endpoints.clone(), homes, nat: record.nat };
        self.dht.note(now.instant, whereabouts);
    }

    fn store_record(&mut self, now: Now) {
        let Some(record) = self.gossip.signed(&self.own_id).filter(|_| self.membership.is_member()) else { return };
        let mut nonce = [0; NONCE_LEN];
        self.rng.fill_bytes(&mut nonce);
        let sequence = self.dht.next_sequence(now.wall);
        if let Some(item) = seal(self.peers.keys(), record, now.wall, sequence, nonce) {
            self.tell(NodeEvent::Store(item));
        }
    }

    /// Takes a value: a member's record goes the way of all records.
    fn take_value(&mut self, now: Now, id: NodeId, week: u64, value: &[u8]) {
        let record = match open(self.peers.keys(), &id, week, value) {
            Ok(record) => record,
            Err(error) => {
                tracing::debug!(peer = ?id, %error, "value refused");
                self.drops.count(DropReason::DhtRefused);
                return;
            }
        };
        if let Some(member) = self.policy.member(&id) {
            let outcome =
                self.gossip.handle(now, member.transport_key, GossipMessage::Records(vec![record]), &self.policy);
            for error in &outcome.refused {
                tracing::debug!(peer = ?id, %error, "record from the DHT refused");
                self.drops.count(DropReason::DhtRefused);
            }
            self.follow_gossip(now, None, &outcome);
        } else if let Some(key) = self.membership.host(&id).map(|host| host.transport_key) {
            self.take_host_record(now, key, &record);
        } else {
            self.drops.count(DropReason::DhtRefused);
        }
    }

    /// Takes where a member is that the ticket names. The ledger that says what signs its records is still to come: these are places to try,
    /// and the handshake says who is there.
    fn take_host_record(&mut self, now: Now, key: TransportKey, record: &SignedRecord) {
        let (id, endpoints) = (record.claimed_id(), record.claimed_endpoints());
        let endpoints = &endpoints[..endpoints.len().min(MAX_RECORD_ENDPOINTS)];
        self.peers.retain_records(key, endpoints);
        let mut is_news = false;
        for endpoint in endpoints {
            match self.peers.add_candidate(key, Some(id), *endpoint, CandidateSource::Record, |_| false) {
                Ok(added) => is_news |= added,
                Err(error) => tracing::debug!(peer = ?id, %endpoint, %error, "candidate refused"),
            }
        }
        if is_news {
            self.peers.take_record_news(now.instant, key);
        }
    }
}

#[cfg(test)]
mod tests;
