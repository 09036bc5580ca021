//! One path, as datagrams take it: which of this host's sockets and addresses, and which endpoint of the peer's, or of a relay with a label.

use crate::wire::relay::Label;
use std::net::{IpAddr, SocketAddr};

/// Where datagrams leave or enter this host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LocalEnd {
    /// The socket, by its position among the node's.
    pub socket: u8,
    /// The host's address, when the socket is bound to none of its own.
    pub address: Option<IpAddr>,
}

/// A path: holes in NATs and firewalls belong to a pair of ends, so an answer leaves where the question came in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Path {
    /// The peer's endpoint, or its relay's.
    pub remote: SocketAddr,
    /// This host's end. `None` where nothing came from that endpoint: the first socket of its family, and the address by the host's routes.
    pub local: Option<LocalEnd>,
    /// By what the relay at that endpoint knows whom it is for; none on a direct path.
    pub label: Option<Label>,
}

impl Path {
    /// Says whether a relay passes on what goes this way.
    pub fn is_relayed(&self) -> bool {
        self.label.is_some()
    }
}

impl From<SocketAddr> for Path {
    fn from(remote: SocketAddr) -> Self {
        Self { remote, local: None, label: None }
    }
}
