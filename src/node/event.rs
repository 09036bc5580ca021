//! What a node tells its shell.

#[cfg(doc)]
use super::Node;
use super::dht::{Item, Place};
use super::membership::Standing;
use super::routing::OwnSegment;
use super::spares::SparePurpose;
use super::subnets::Accepted;
use super::table::ForwardingTable;
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::ledger::TxId;
use crate::path::{Path, ProbeId};
use crate::wire::control::Request;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What the shell is told.
pub enum NodeEvent {
    /// Give this table to the data threads.
    Publish(Arc<ForwardingTable>),
    /// Give the device these addresses, each with its prefix length, and take away all others.
    Configure(Vec<(IpAddr, u8)>),
    /// The user accepts this of what lies behind other members, from now on and in the runs to come.
    Accepted(Accepted),
    /// This node asks signers for this, from now on and in the runs to come.
    Requested(Vec<Request>),
    /// A signer refused what this node asked for.
    RequestRefused {
        /// The signer's name.
        by: String,
    },
    /// What lies behind this node or behind others changed, or who is used for it.
    Routes,
    /// Have a device for each of these segments, and for no other.
    Segments(Vec<OwnSegment>),
    /// Members were cut just now, each with the name that it had.
    Cut(Vec<(NodeId, String)>),
    /// The ledger has a new block.
    Block {
        /// Its height.
        height: u64,
    },
    /// This node's standing changed.
    Standing(Standing),
    /// A transaction is in a block that is on disk.
    Final {
        /// Which one.
        transaction: TxId,
        /// The block's height.
        height: u64,
    },
    /// A transaction that waited here does not apply any more.
    Dropped {
        /// Which one.
        transaction: TxId,
        /// Why.
        reason: String,
    },
    /// The ledger of this node stopped; tunnels stay.
    LedgerStopped(String),
    /// What is sent to a peer by a path arrives damaged: let nobody cut it on the way.
    Damaged {
        /// Who says so.
        peer: TransportKey,
        /// The path.
        path: Path,
    },
    /// A validator signed two things that exclude each other; shows both.
    Misbehaved(String),
    /// A probe was answered.
    Pong {
        /// By whom.
        peer: TransportKey,
        /// Which.
        probe: ProbeId,
        /// The round trip.
        rtt: Duration,
    },
    /// Open a link over TLS to a relay, and tell whether it is there: [`Node::handle_stream_up`], [`Node::handle_stream_failed`].
    OpenStream {
        /// The relay.
        relay: NodeId,
        /// The key that it has to show.
        key: VerifyingKey,
        /// Where it listens.
        endpoints: Vec<SocketAddr>,
    },
    /// Close the link over TLS that this path is.
    CloseStream(Path),
    /// Listen for links over TLS at these addresses, and at no others.
    ServeStreams(Vec<SocketAddr>),
    /// Open so many sockets beside those that the node listens on, for datagrams over IPv4, and tell which there are: [`Node::handle_spares`].
    OpenSpares {
        /// How many; fewer are of use, too.
        count: usize,
        /// What they are for.
        purpose: SparePurpose,
    },
    /// Close those of these sockets, by their positions.
    CloseSpares(BTreeSet<u8>),
    /// Have the DHT store this, and tell whether it does: [`Node::handle_dht`].
    Store(Item),
    /// Look a member up in the DHT, and tell what is found: [`Node::handle_dht`].
    LookUp {
        /// Whom.
        member: NodeId,
        /// Where: one item, or two around the change of week.
        places: Vec<Place>,
    },
    /// Store the handshakes that must not be replayed, and where peers were, some time soon.
    Remember,
}
