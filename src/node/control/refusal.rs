//! What the link refuses, why, and how often.

use super::connection::BrokenReason;
use super::service::{LinkId, Service};
use std::collections::BTreeMap;

/// Something that happened to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkEvent {
    /// A connection ended before its time. Messages on it may be lost, also ones that had left the queue.
    Broken {
        /// The other end.
        peer: LinkId,
        /// What the connection was for.
        service: Service,
        /// Why it ended.
        reason: BrokenReason,
        /// Queued messages that certainly did not arrive.
        unsent: usize,
    },
}

/// Why a packet was refused. Its sender's fault, but for the last three.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum LinkError {
    /// The sender is not attached.
    #[error("the peer is not attached to the control link")]
    NotAttached,
    /// Not one TCP segment in an IPv6 packet.
    #[error("the packet is no TCP segment over IPv6")]
    Malformed,
    /// The source is not the sender's address.
    #[error("the packet's source is not its sender")]
    SourceNotPeers,
    /// The destination is not this end's address.
    #[error("the packet's destination is not this node")]
    DestinationNotOurs,
    /// A guest sends too fast.
    #[error("the guest sends faster than guests may")]
    RateLimited,
    /// Nobody listens on the port.
    #[error("there is no such service")]
    UnknownService,
    /// The peer may not use the service.
    #[error("the peer may not use the service")]
    NotAllowed,
    /// The peer knows before this node does that this node is a member: it will ask again.
    #[error("the peer may use the service once this node is a member")]
    TooEarly,
    /// The peer opens connections too fast.
    #[error("the peer opens connections too fast")]
    TooManyOpenings,
    /// The packet belongs to no connection: one of the ends forgot it.
    #[error("the packet belongs to no connection")]
    NoConnection,
    /// All connections are taken.
    #[error("there are too many connections")]
    SocketsFull,
}

/// Why a message was not taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum SendError {
    /// The peer is not attached.
    #[error("the peer is not attached to the control link")]
    NotAttached,
    /// The peer may not use the service.
    #[error("the peer may not use the service")]
    NotAllowed,
    /// The message is empty or longer than the service's limit.
    #[error("the message's length is not one that the service has")]
    Length,
    /// Too much waits for this peer already.
    #[error("too much waits for the peer already")]
    PeerFull,
    /// Too much waits for all peers of its class.
    #[error("too much waits for all peers already")]
    LinkFull,
    /// All connections are taken.
    #[error("there are too many connections")]
    SocketsFull,
}

/// Why a peer was not attached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum AttachError {
    /// It is this node.
    #[error("a node has no control link to itself")]
    OwnAddress,
    /// There are as many peers as there may be.
    #[error("there are too many peers on the control link")]
    PeersFull,
    /// There are as many guests as there may be.
    #[error("there are too many guests on the control link")]
    GuestsFull,
}

/// What was refused so far, by reason.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LinkCounters {
    /// Packets.
    pub packets: BTreeMap<LinkError, u64>,
    /// Messages that were to be sent.
    pub messages: BTreeMap<SendError, u64>,
    /// Peers.
    pub peers: BTreeMap<AttachError, u64>,
    /// Connections that broke.
    pub broken: BTreeMap<BrokenReason, u64>,
    /// Events that nobody fetched in time.
    pub lost_events: u64,
}

/// Counts a refusal on its way out.
pub(super) fn count<T, Reason: Ord + Copy>(
    counters: &mut BTreeMap<Reason, u64>,
    result: Result<T, Reason>,
) -> Result<T, Reason> {
    if let Err(reason) = &result {
        *counters.entry(*reason).or_default() += 1;
    }
    result
}
