//! The forwarding table: what the data threads may know, as one immutable value.
//!
//! The slow [`super::Node`] builds a new one whenever a session, a path or a right changes and publishes it; the data threads
//! load it once per batch. It holds shared keys and routes, never counters of nonces.

use super::pulse::Heartbeat;
use super::relay::Labels;
use crate::crypto::identity::NodeId;
use crate::path::{Path, PathMtu};
use crate::policy::Rights;
use crate::router::bridge::Segments;
use crate::router::filter::Filter;
use crate::router::icmp::AnswerSources;
use crate::router::{PeerIndex, Router};
use crate::session::{BySession, Gate, Origin, Session};
use crate::time::Instant;
use std::sync::Arc;

/// Where to seal for a peer, and where to send: in one cache line, because a packet for a peer that was silent waits for each.
#[derive(Clone)]
#[repr(align(64))]
pub struct Outlet {
    /// The confirmed session to seal in.
    pub session: Arc<Session>,
    /// The path in use.
    pub path: Path,
    /// What the path takes.
    pub mtu: PathMtu,
}

/// An outlet for each peer that has one.
///
/// Found by two reads: members are many and known by dense numbers, those in touch are few, and the table is made anew with each session.
#[derive(Default)]
pub struct Outlets {
    /// By the peer's position: where its outlet is, or [`NOWHERE`].
    places: Box<[u32]>,
    outlets: Vec<Outlet>,
}

/// The place of an outlet that there is not.
const NOWHERE: u32 = u32::MAX;

impl Outlets {
    /// Finds a peer's.
    #[inline]
    pub fn get(&self, peer: PeerIndex) -> Option<&Outlet> {
        self.outlets.get(*self.places.get(peer.position())? as usize)
    }
}

impl FromIterator<(PeerIndex, Outlet)> for Outlets {
    fn from_iter<Entries: IntoIterator<Item = (PeerIndex, Outlet)>>(entries: Entries) -> Self {
        let (peers, outlets): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        let count = peers.iter().map(|peer| peer.position() + 1).max().unwrap_or(0);
        let mut places = vec![NOWHERE; count].into_boxed_slice();
        peers.iter().zip(0..).for_each(|(peer, place)| places[peer.position()] = place);
        Self { places, outlets }
    }
}

/// A session that datagrams may arrive for.
#[derive(Clone)]
pub struct Inlet {
    /// Its keys.
    pub session: Arc<Session>,
    /// What its peer may send.
    pub rights: Rights,
    /// Which peer sends inner packets in it: a member, with a member's rights.
    pub peer: Option<PeerIndex>,
    /// Whence a guest came, which its cookie proved; the source of a record is what its sender likes.
    pub guest_origin: Option<Origin>,
    /// The path in use: a datagram by another one is reported.
    pub path: Option<Path>,
    /// Whether every authenticated datagram is reported: the session waits for its confirmation.
    pub awaited: bool,
}

/// Everything that a data thread needs for a batch.
pub struct ForwardingTable {
    /// Which sessions these are: grows by one when they or their paths change.
    pub generation: u64,
    /// Who owns which inner address.
    pub router: Arc<Router>,
    /// Which packets may pass.
    pub filter: Arc<Filter>,
    /// The segments of the link layer that this node is in.
    pub segments: Arc<Segments>,
    /// The members, by the position of their numbers.
    pub members: Arc<Vec<NodeId>>,
    /// Where to seal.
    pub outlets: Arc<Outlets>,
    /// By the receiver index in the datagram.
    pub inlets: Arc<BySession<Inlet>>,
    /// What datagrams are that come with a label.
    pub labels: Arc<Labels>,
    /// What a handshake datagram has to show before it takes the node's time.
    pub gate: Gate,
    /// The longest packet that hosts give or take, in bytes.
    pub inner_mtu: u16,
    /// What ICMP answers to the local kernel come from.
    pub answer_sources: AnswerSources,
    /// Whether the machine slept since the table was made: then its keys seal nothing.
    pub heartbeat: Arc<Heartbeat>,
}

impl ForwardingTable {
    /// The table of a node that carries nothing yet.
    pub fn empty() -> Self {
        Self {
            generation: 0,
            router: Arc::default(),
            filter: Arc::new(Filter::closed(Instant::ZERO)),
            segments: Arc::default(),
            members: Arc::default(),
            outlets: Arc::default(),
            inlets: Arc::default(),
            labels: Arc::default(),
            gate: Gate::closed(),
            inner_mtu: u16::MAX,
            answer_sources: AnswerSources::default(),
            heartbeat: Arc::default(),
        }
    }
}
