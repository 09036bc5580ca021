//! Which relays: for reaching a member, and to be reached through.

use super::super::Node;
use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::domain_hash;
use crate::crypto::identity::NodeId;
use crate::policy::relay::MAX_RELAY_CLASS;
use crate::policy::{RelayTerms, Rights};
use crate::time::Instant;
use crate::wire::control::{HomeRelay, MAX_HOMES};
use rand_core::CryptoRng;
use std::collections::BTreeSet;
use std::time::Duration;

/// Relays that are asked for a way to one member at a time: the second is the backup.
const MAX_ASKED: usize = 2;

/// What one class of approval is worth in round-trip time.
const CLASS_WORTH: Duration = Duration::from_millis(20);

/// What a relay counts that this node has no session with yet, or that the target is not known to have one with: two handshakes' time.
const UNKNOWN_RTT: Duration = Duration::from_millis(400);

impl<R: CryptoRng> Node<R> {
    /// Says whether this node passes on for others now: it is willing, and others reach it, as they found or the ledger says.
    pub(in crate::node) fn is_relay(&self) -> bool {
        self.relaying.is_on() && (self.reach.is_reachable() || self.class(&self.own_id) > 0)
    }

    /// Says whether a member relays, as it or the ledger says.
    pub(in crate::node) fn relays(&self, id: &NodeId) -> bool {
        self.gossip.is_relay(id) || self.class(id) > 0
    }

    /// How much signers prefer a relay, 0 where they do not know it.
    fn class(&self, id: &NodeId) -> u8 {
        self.policy.member(id).and_then(|member| member.relay.as_ref()).map_or(0, RelayTerms::class)
    }

    /// What a relay's round trip counts for: one that signers approved may take longer.
    fn handicap(&self, id: &NodeId) -> Duration {
        CLASS_WORTH * u32::from(MAX_RELAY_CLASS - self.class(id).min(MAX_RELAY_CLASS))
    }

    /// The relays to ask for a way to a member, that with the shortest way first: those that it is at home at, and those that this node has a
    /// session with. Who did not say yet whether it relays is asked, too: its record comes by a stream that is only being opened.
    pub(super) fn relays_for(&self, now: Instant, target: &NodeId, key: &TransportKey) -> Vec<TransportKey> {
        let homes = self.gossip.record(target, &self.policy).map(|record| record.homes.as_slice()).unwrap_or_default();
        let home_ids = homes.iter().map(|home| home.id);
        let may_relay = |id: &NodeId| self.relays(id) || !self.gossip.holds(id);
        let ids: BTreeSet<_> = self.members_in_touch().chain(home_ids).filter(may_relay).collect();
        let way = |id: &NodeId| {
            let relay = self.policy.member(id)?.transport_key;
            let near = self.peers.direct_path(&relay).and_then(|_| self.rtt_of(&relay)).unwrap_or(UNKNOWN_RTT);
            let home = homes.iter().find(|home| home.id == *id);
            let far = home.map_or(UNKNOWN_RTT, |home| Duration::from_millis(home.rtt_millis.into()));
            let is_useful = !self.peers.has_way(key, &relay) && !self.peers.is_shunned(now, key, &relay);
            is_useful.then(|| (near + far + self.handicap(id), relay))
        };
        let others = ids.iter().filter(|id| *id != target && **id != self.own_id);
        let mut relays: Vec<_> = others.filter_map(way).collect();
        relays.sort_unstable();
        relays.into_iter().map(|(_, relay)| relay).take(MAX_ASKED).collect()
    }

    /// Ways through two relays: one of this node's own, and one that the member is at home at.
    pub(super) fn relays_in_a_row(&self, target: &NodeId) -> Vec<(TransportKey, Vec<NodeId>)> {
        let homes = self.gossip.record(target, &self.policy).map(|record| record.homes.as_slice()).unwrap_or_default();
        let far: Vec<_> = homes.iter().map(|home| home.id).filter(|id| *id != self.own_id).collect();
        let near = self.members_in_touch().filter(|id| id != target && self.relays(id));
        let keyed = near.filter_map(|id| Some((id, self.policy.member(&id)?.transport_key)));
        let pairs = keyed.flat_map(|(near, key)| far.iter().map(move |far| (near, key, *far)));
        let rows = pairs.filter(|(near, key, far)| near != far && self.peers.direct_path(key).is_some());
        rows.map(|(_, key, far)| (key, vec![far])).take(MAX_ASKED).collect()
    }

    fn members_in_touch(&self) -> impl Iterator<Item = NodeId> {
        self.peers.usable().filter_map(|(_, rights)| match rights {
            Rights::Member(id) => Some(id),
            Rights::Consensus(_) | Rights::Guest => None,
        })
    }

    fn rtt_of(&self, key: &TransportKey) -> Option<Duration> {
        self.peers.peer(key)?.paths.rtt()
    }

    /// The relays that this node's newest record names.
    pub(in crate::node) fn told_homes(&self) -> Vec<NodeId> {
        let record = self.gossip.record(&self.own_id, &self.policy);
        record.map(|record| record.homes.iter().map(|home| home.id).collect()).unwrap_or_default()
    }

    /// The relays that this node can be reached through, the nearest first. One that everybody reaches needs none.
    pub(in crate::node) fn homes(&self) -> Vec<HomeRelay> {
        if !self.reach.needs_relays() {
            return Vec::new();
        }
        let near = self.members_in_touch().filter(|id| self.relays(id)).filter_map(|id| {
            let key = self.policy.member(&id)?.transport_key;
            self.peers.direct_path(&key)?;
            Some((self.rtt_of(&key).unwrap_or(UNKNOWN_RTT), self.handicap(&id), id))
        });
        let mut homes: Vec<_> = near.collect();
        // One that is at home somewhere stays there: everybody hears of a change.
        let told = self.told_homes();
        let is_old = |id: &NodeId| told.contains(id);
        homes.sort_unstable_by_key(|(rtt, handicap, id)| (!is_old(id), *rtt + *handicap));
        homes.truncate(MAX_HOMES);
        homes.sort_unstable_by_key(|(rtt, handicap, _)| *rtt + *handicap);
        let rtt_millis = |rtt: Duration| u16::try_from(rtt.as_millis()).unwrap_or(u16::MAX);
        homes.into_iter().map(|(rtt, _, id)| HomeRelay { id, rtt_millis: rtt_millis(rtt) }).collect()
    }

    /// The members that this node can be reached through, the nearest first.
    pub fn home_relays(&self) -> Vec<NodeId> {
        self.homes().into_iter().map(|home| home.id).collect()
    }

    /// Whom to keep sessions with so that this node can be reached: its homes, and, while there are too few, others to try.
    pub(in crate::node) fn relays_to_keep(&self) -> Vec<TransportKey> {
        if !self.reach.needs_relays() {
            return Vec::new();
        }
        let homes = self.home_relays();
        let missing = MAX_HOMES.saturating_sub(homes.len());
        let keys = |ids: Vec<NodeId>| {
            ids.iter().filter_map(|id| self.policy.member(id)).map(|member| member.transport_key).collect()
        };
        if missing == 0 {
            return keys(homes);
        }
        let approved = self.policy.members().filter(|member| member.relay.is_some()).map(|member| member.id);
        let others: BTreeSet<_> = self.gossip.relays().chain(approved).collect();
        let others = others.into_iter().filter(|id| *id != self.own_id && !homes.contains(id));
        // Each node tries others first, so that no relay is everybody's.
        let weight = |id: &NodeId| (self.handicap(id), domain_hash("p2plus home relay 1", &[&self.own_id.0, &id.0]));
        let mut others: Vec<_> = others.map(|id| (weight(&id), id)).collect();
        others.sort_unstable();
        keys(homes.into_iter().chain(others.into_iter().map(|(_, id)| id).take(missing)).collect())
    }
}
