//! What there is to see of a node, as plain values.

use super::Node;
use super::control::LinkCounters;
use super::membership::{Bootstrap, Standing};
use super::peers::Holdings;
use crate::crypto::aead::TransportCipher;
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::ledger::Ledger;
use crate::policy::{Member, Policy};
use crate::session::LocalKeys;
use crate::time::{Instant, Now};
use rand_core::CryptoRng;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// One other member, and the way to it.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatus {
    /// Who it is.
    pub member: Member,
    /// How long ago something authentic came; none when never in this run.
    pub seen: Option<Duration>,
    /// The way in use, while there is a session.
    pub way: Option<Way>,
    /// The last measured round trip.
    pub rtt: Option<Duration>,
    /// The session in use, once confirmed.
    pub session: Option<SessionStatus>,
    /// Bytes of datagrams sent to it in its sessions of now.
    pub tx_bytes: u64,
    /// Bytes of authentic datagrams that came from it, likewise.
    pub rx_bytes: u64,
}

/// How a peer is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// At this endpoint of its own.
    Direct(SocketAddr),
    /// Through the relay of this name.
    Relayed(String),
    /// Over TLS to the relay of this name: through it, or it itself.
    Stream(String),
}

/// A session in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// Its cipher.
    pub cipher: TransportCipher,
    /// Its age.
    pub age: Duration,
}

impl<R: CryptoRng> Node<R> {
    /// This node's identity.
    pub fn id(&self) -> NodeId {
        self.own_id
    }

    /// This node as a member, once it is one.
    pub fn member(&self) -> Option<&Member> {
        self.policy.member(&self.own_id)
    }

    /// What this node is in its network.
    pub fn standing(&self) -> &Standing {
        self.membership.standing()
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The ledger, for reading.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// This node's keys for handshakes.
    pub fn keys(&self) -> &LocalKeys {
        self.peers.keys()
    }

    /// The way in use to a peer.
    pub fn way_to(&self, key: &TransportKey) -> Option<Way> {
        let paths = &self.peers.peer(key)?.paths;
        let path = paths.path()?;
        if path.is_direct() {
            return Some(Way::Direct(path.remote));
        }
        let relay = if path.is_relayed() { paths.relay_of(&path)? } else { *key };
        let name = self.name_of(&relay)?;
        Some(if path.is_stream() { Way::Stream(name) } else { Way::Relayed(name) })
    }

    /// The name of the member that has a key.
    pub(super) fn name_of(&self, key: &TransportKey) -> Option<String> {
        let id = self.policy.admit(key).member()?;
        self.policy.member(&id).map(|member| member.name.clone())
    }

    /// How old the newest proof is that the ledger is fresh: a validator's word, or being the only one.
    pub fn ledger_age(&self, now: Now) -> Option<Duration> {
        if self.policy.has_validator(&self.own_id) && self.policy.validators().count() == 1 {
            return Some(Duration::ZERO);
        }
        let heard = self.policy.validators().filter_map(|(_, key)| self.heads_heard.get(key)).max()?;
        Some(now.instant.saturating_since(*heard))
    }

    /// Why the ledger stands still for a reason of this node's own, or this validator votes no more.
    pub fn ledger_trouble(&self) -> Option<String> {
        let silenced = || self.silenced.as_ref().map(|reason| format!("this validator votes no more: {reason}"));
        self.ledger.halted().map(ToString::to_string).or_else(silenced)
    }

    /// How long the node runs.
    pub fn uptime(&self, now: Now) -> Duration {
        now.instant.saturating_since(self.started)
    }

    /// This node's overlay addresses, each with the prefix length of its subnet.
    pub fn addresses(&self) -> Vec<(IpAddr, u8)> {
        self.routing.interface_addresses()
    }

    /// What the control link refused and lost.
    pub fn control_counters(&self) -> &LinkCounters {
        self.link.counters()
    }

    /// Where this node believes it can be reached: the host's endpoints before those that others saw.
    pub fn endpoints(&self) -> Vec<SocketAddr> {
        self.reach.endpoints().collect()
    }

    /// All other members.
    pub fn peers(&self, now: Now) -> Vec<PeerStatus> {
        let others = self.policy.members().filter(|member| member.id != self.own_id);
        others.map(|member| self.peer_status(now.instant, member)).collect()
    }

    /// One member, and the way to it.
    pub fn peer_status(&self, now: Instant, member: &Member) -> PeerStatus {
        let mut status = PeerStatus {
            member: member.clone(),
            seen: None,
            way: None,
            rtt: None,
            session: None,
            tx_bytes: 0,
            rx_bytes: 0,
        };
        let Some(peer) = self.peers.peer(&member.transport_key) else { return status };
        let sessions = || peer.sessions.receiving();
        let last_received = sessions().filter_map(|session| session.last_received()).max();
        status.seen = last_received.or(peer.last_heard).map(|at| now.saturating_since(at));
        status.tx_bytes = peer.past_bytes.0 + sessions().map(|session| session.bytes_sent()).sum::<u64>();
        status.rx_bytes = peer.past_bytes.1 + sessions().map(|session| session.bytes_received()).sum::<u64>();
        if peer.is_usable() {
            status.way = self.way_to(&member.transport_key);
            status.rtt = peer.paths.rtt();
            status.session = peer.sessions.sending().map(|session| SessionStatus {
                cipher: session.cipher(),
                age: now.saturating_since(session.created()),
            });
        }
        status
    }

    /// Members that a ticket may name besides this node: those with known endpoints, validators first, at most `limit`.
    pub fn bootstrap_members(&self, limit: usize) -> Vec<Bootstrap> {
        let mut found: Vec<_> = self
            .policy
            .members()
            .filter(|member| member.id != self.own_id)
            .filter_map(|member| {
                let record = self.gossip.record(&member.id, &self.policy)?;
                let endpoints = record.endpoints.clone();
                (!endpoints.is_empty()).then_some(Bootstrap {
                    id: member.id,
                    transport_key: member.transport_key,
                    endpoints,
                })
            })
            .collect();
        found.sort_by_key(|bootstrap| !self.policy.has_validator(&bootstrap.id));
        found.truncate(limit);
        found
    }

    /// How much it holds of its peers.
    pub fn holdings(&self) -> Holdings {
        self.peers.holdings()
    }

    /// Says in which parts of the node an identity or its key still stands: empty after a cut.
    pub fn mentions(&self, member: &Member) -> Vec<&'static str> {
        let key = &member.transport_key;
        let places = [
            ("policy", self.policy.member(&member.id).is_some()),
            ("peers", self.peers.mentions(key)),
            ("control link", self.link.peers().any(|(peer, _)| peer.0 == *key)),
            ("gossip", self.gossip.holds(&member.id)),
            ("routing", self.routing.mentions(&member.id)),
            ("relaying", self.relaying.mentions(&member.id, key)),
            ("calls", self.calls.mentions(key)),
            ("ears", self.ears.mentions(key)),
            ("searches", self.searches.mentions(key)),
        ];
        places.into_iter().filter(|(_, is_there)| *is_there).map(|(place, _)| place).collect()
    }
}
