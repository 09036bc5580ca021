//! Why a peer is reached as it is, and how this node is placed, as plain values.

use super::Node;
use super::status::Way;
use crate::crypto::identity::NodeId;
use crate::path::{CandidateSource, PathMtu};
use crate::policy::Member;
use crate::time::Instant;
use crate::wire::control::NatKind;
use rand_core::CryptoRng;
use std::net::SocketAddr;
use std::time::Duration;

/// How one node is placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// How its NAT chooses endpoints.
    pub nat: NatKind,
    /// Others reach it without its asking; what a member says of itself, by naming no relays.
    pub is_reachable: bool,
    /// Where it can be found.
    pub endpoints: Vec<SocketAddr>,
    /// The relays that it keeps a session with, by name, each with its round trip.
    pub homes: Vec<(String, Duration)>,
}

/// A way to a peer that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownWay {
    /// Which.
    pub way: Way,
    /// What named it; none for a relay's.
    pub source: Option<CandidateSource>,
    /// It is in use.
    pub is_used: bool,
    /// Something was sent there.
    pub is_tried: bool,
    /// The peer answered there, in this run.
    pub has_answered: bool,
    /// How long ago something came from there.
    pub heard: Option<Duration>,
}

/// What is known of the ways to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// This node.
    pub own: Placement,
    /// The peer, as its record says; none when nobody told of it.
    pub peer: Option<Placement>,
    /// Every way that is known.
    pub ways: Vec<KnownWay>,
    /// What the way in use takes.
    pub mtu: PathMtu,
    /// A handshake is under way.
    pub is_connecting: bool,
    /// Handshakes failed lately.
    pub has_failed: bool,
    /// A direct path is being opened from both sides.
    pub is_punching: bool,
    /// Ports are being searched for: that of this node's NAT, or that of the peer's.
    pub is_searching: bool,
    /// The peer takes this node for a guest: it does not know yet that it is a member.
    pub is_guest_there: bool,
}

impl<R: CryptoRng> Node<R> {
    /// How this node is placed.
    pub fn placement(&self) -> Placement {
        let named = |id: NodeId, rtt: u16| self.policy.member(&id).map(|member| (member.name.clone(), millis(rtt)));
        Placement {
            nat: self.reach.nat(),
            is_reachable: self.reach.is_reachable(),
            endpoints: self.reach.endpoints().collect(),
            homes: self.homes().into_iter().filter_map(|home| named(home.id, home.rtt_millis)).collect(),
        }
    }

    /// Where members see this node, each by name.
    pub fn sightings(&self) -> Vec<(String, SocketAddr)> {
        let named = |(key, endpoint): &(_, SocketAddr)| {
            let id = self.policy.admit(key).member()?;
            Some((self.policy.member(&id)?.name.clone(), *endpoint))
        };
        self.reach.observed().iter().filter_map(named).collect()
    }

    /// What is known of the ways to a member.
    pub fn explain_ways(&self, now: Instant, member: &Member) -> Explanation {
        let record = self.gossip.record(&member.id, &self.policy);
        let peer = record.map(|record| Placement {
            nat: record.nat,
            is_reachable: record.homes.is_empty(),
            endpoints: record.endpoints.clone(),
            homes: record
                .homes
                .iter()
                .filter_map(|home| Some((self.policy.member(&home.id)?.name.clone(), millis(home.rtt_millis))))
                .collect(),
        });
        let key = &member.transport_key;
        let mut explanation = Explanation {
            own: self.placement(),
            peer,
            ways: Vec::new(),
            mtu: PathMtu::Unknown,
            is_connecting: false,
            has_failed: false,
            is_punching: self.peers.is_punching(key),
            is_searching: self.searches.is_under_way(key),
            is_guest_there: self.peers.is_guest_at(key),
        };
        let Some(known) = self.peers.peer(key) else { return explanation };
        explanation.is_connecting = known.attempt.is_some();
        explanation.mtu = known.mtu.mtu();
        explanation.has_failed = known.has_failed();
        let used = self.way_to(key);
        let direct = known.paths.candidates().views().map(|view| KnownWay {
            way: Way::Direct(view.endpoint),
            source: Some(view.source),
            is_used: used == Some(Way::Direct(view.endpoint)),
            is_tried: view.is_asked,
            has_answered: view.is_proved,
            heard: view.heard.map(|at| now.saturating_since(at)),
        });
        explanation.ways.extend(direct);
        for (relay, path) in known.paths.relayed() {
            let way = if path.is_stream() { Way::Stream } else { Way::Relayed };
            explanation.ways.extend(self.name_of(&relay).map(|name| KnownWay {
                way: way(name),
                source: None,
                is_used: known.paths.path() == Some(path),
                is_tried: true,
                has_answered: true,
                heard: None,
            }));
        }
        if let Some(path) = known.paths.stream() {
            explanation.ways.push(KnownWay {
                way: Way::Stream(member.name.clone()),
                source: None,
                is_used: known.paths.path() == Some(path),
                is_tried: true,
                has_answered: true,
                heard: None,
            });
        }
        explanation
    }
}

fn millis(rtt: u16) -> Duration {
    Duration::from_millis(rtt.into())
}
