//! The node thread's one queue: what the data threads saw, what users ask, what the host did.
//!
//! Bounded: a flood of handshakes fills it and is dropped, while orders from the API and the end of the daemon always get in,
//! because they wait for a place.

use super::api::server::Call;
use super::workers::WorkerFailure;
use crate::crypto::identity::NodeId;
use crate::io::watch::NetworkEvent;
use crate::wire::data::SessionIndex;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Messages that wait at most: 4,096 handshakes are 3 MB and a second's work.
const MAX_WAITING: usize = 4096;

/// What a data thread hands to the node.
pub enum FromWire {
    /// A handshake datagram or a cookie.
    Handshake {
        /// Who sent it.
        from: SocketAddr,
        /// All of it.
        datagram: Vec<u8>,
    },
    /// An opened record that is not an inner packet.
    Record {
        /// The session that it came in.
        index: SessionIndex,
        /// Who sent it.
        from: SocketAddr,
        /// The plaintext.
        record: Vec<u8>,
    },
    /// Something authentic came in a session that waits for it, or from an unexpected endpoint.
    News {
        /// The session.
        index: SessionIndex,
        /// Who sent it.
        from: SocketAddr,
    },
    /// A packet for a member that there is no session with.
    Unsent {
        /// The member.
        peer: NodeId,
        /// The inner packet.
        packet: Vec<u8>,
    },
}

/// Everything that wakes the node thread besides its deadlines.
pub enum Message {
    /// From a data thread.
    Wire(FromWire),
    /// A request over the control API.
    Call(Box<Call>),
    /// The host's network configuration changed.
    Host(NetworkEvent),
    /// A data thread ended unasked.
    Failed(WorkerFailure),
    /// Read the configuration again (SIGHUP).
    Reload,
    /// End (SIGINT, SIGTERM).
    Stop,
}

/// The sending end, one per thread.
#[derive(Clone)]
pub struct Inbox(SyncSender<Message>);

impl Inbox {
    /// Makes the queue.
    pub fn new() -> (Self, Receiver<Message>) {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        (Self(sender), receiver)
    }

    /// Puts a message of the wire in if there is a place.
    #[must_use]
    pub fn offer(&self, message: FromWire) -> bool {
        self.0.try_send(Message::Wire(message)).is_ok()
    }

    /// Puts a message in, waiting for a place. A message to a node that ended is lost: there is nobody to care.
    pub fn put(&self, message: Message) {
        let _ = self.0.send(message);
    }
}
