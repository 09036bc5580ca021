//! Members on the same LAN: what this node tells there of itself, and how it knows the others by what they tell.
//!
//! ```text
//!   network tag   first 8 bytes of  H("p2plus/lan-network/1" | network secret | day)
//!   member tag    first 16 bytes of H("p2plus/lan-member/1"  | network secret | node id | day)
//! ```
//! Who does not know the network's secret learns no more from a tag than that it is the same one all day. Whoever is on the LAN can repeat
//! what a member said, with addresses of his own: what is found is a place to try, and the handshake says who is there. Clocks differ: the
//! tags of the days before and after are known too.

mod finds;
pub mod message;

pub use finds::{Finds, MAX_FINDS};

use super::Node;
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::path::CandidateSource;
use crate::policy::Policy;
use crate::session::LocalKeys;
use crate::time::{Now, UnixMillis};
use message::Advert;
use rand_core::CryptoRng;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// Endpoints of one member that are tried: a host has a few addresses on one LAN.
pub const MAX_ENDPOINTS: usize = 4;

const MILLIS_A_DAY: u64 = 86_400_000;

/// Stands for a network, for a day.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NetworkTag(pub [u8; 8]);

/// Stands for a member, for a day.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MemberTag(pub [u8; 16]);

/// What to tell a LAN, and whom to know there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LanTags {
    /// What this node says of itself; a node that is no member yet listens only.
    pub own: Option<(NetworkTag, MemberTag)>,
    networks: [NetworkTag; 3],
    members: BTreeMap<MemberTag, NodeId>,
}

/// The tags of the day, and what they were made from.
pub(super) struct LanView {
    day: u64,
    policy: Arc<Policy>,
    tags: Arc<LanTags>,
}

impl LanTags {
    /// Makes the tags of a day.
    fn new(keys: &LocalKeys, day: u64, is_member: bool, others: impl Iterator<Item = NodeId>) -> Self {
        let days = [day, day.saturating_sub(1), day + 1];
        let members = others.flat_map(|id| days.map(|day| (member_tag(keys, &id, day), id))).collect();
        let own = is_member.then(|| (network_tag(keys, day), member_tag(keys, &keys.node_id, day)));
        Self { own, networks: days.map(|day| network_tag(keys, day)), members }
    }

    /// The member that speaks so, when it is one that this node looks for.
    pub fn who(&self, advert: &Advert) -> Option<NodeId> {
        self.networks.contains(&advert.network).then(|| self.members.get(&advert.member).copied()).flatten()
    }
}

fn network_tag(keys: &LocalKeys, day: u64) -> NetworkTag {
    NetworkTag(first(&keys.network_hash("p2plus/lan-network/1", &[&day.to_le_bytes()]).0))
}

fn member_tag(keys: &LocalKeys, id: &NodeId, day: u64) -> MemberTag {
    MemberTag(first(&keys.network_hash("p2plus/lan-member/1", &[&id.0, &day.to_le_bytes()]).0))
}

fn first<const N: usize>(hash: &[u8; 32]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&hash[..N]);
    bytes
}

impl<R: CryptoRng> Node<R> {
    /// What to tell the LANs of this host, and whom to know there: all members, or, for a joiner, those whom its ticket names. The same
    /// value until the day or the members change.
    pub fn lan_tags(&mut self, wall: UnixMillis) -> Arc<LanTags> {
        let day = wall.0 / MILLIS_A_DAY;
        match &self.lan {
            Some(view) if view.day == day && Arc::ptr_eq(&view.policy, &self.policy) => Arc::clone(&view.tags),
            _ => {
                let tags = Arc::new(self.make_tags(day));
                self.lan = Some(LanView { day, policy: Arc::clone(&self.policy), tags: Arc::clone(&tags) });
                tags
            }
        }
    }

    fn make_tags(&self, day: u64) -> LanTags {
        let hosts = self.membership.invitation().into_iter().flat_map(|it| &it.bootstrap).map(|it| it.id);
        let members = self.policy.members().map(|member| member.id);
        let others = members.chain(hosts).filter(|id| *id != self.own_id);
        LanTags::new(self.peers.keys(), day, self.membership.is_member(), others)
    }

    /// Takes where a member says, on a LAN of this host, that it is. What is not on a prefix that this host is connected to is no word of a
    /// neighbour.
    pub fn handle_neighbour(&mut self, now: Now, id: NodeId, endpoints: &[SocketAddr]) {
        self.notice(now);
        let Some(key) = self.key_of_neighbour(&id) else { return };
        let around = self.reach.surroundings();
        let is_near = |it: &&SocketAddr| around.connected.iter().any(|prefix| prefix.contains(it.ip()));
        let near: Vec<SocketAddr> = endpoints.iter().filter(is_near).take(MAX_ENDPOINTS).copied().collect();
        self.peers.retain_neighbour(key, &near);
        let mut is_news = false;
        for endpoint in near {
            let in_overlay = |address| self.routing.in_overlay(address);
            match self.peers.add_candidate(key, Some(id), endpoint, CandidateSource::Lan, in_overlay) {
                Ok(added) => is_news |= added,
                Err(error) => tracing::debug!(peer = ?id, %endpoint, %error, "neighbour refused"),
            }
        }
        if is_news {
            tracing::debug!(peer = ?id, "found on the LAN");
            self.peers.take_record_news(now.instant, key);
        }
        self.settle(now);
    }

    fn key_of_neighbour(&self, id: &NodeId) -> Option<TransportKey> {
        let host = || self.membership.host(id).map(|host| host.transport_key);
        self.policy.member(id).map(|member| member.transport_key).or_else(host)
    }
}

#[cfg(test)]
mod tests;
