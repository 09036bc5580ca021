//! One path, as datagrams take it: which of this host's sockets and addresses, and which endpoint of the peer's, or of a relay with a label.

use crate::wire::relay::Label;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

/// The positions of sockets that come and go beside those that the node listens on.
pub const SPARE_SOCKETS: Range<u8> = 16..u8::MAX;

/// Where datagrams leave or enter this host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LocalEnd {
    /// The socket, by its position among the node's.
    pub socket: u8,
    /// The host's address, when the socket is bound to none of its own.
    pub address: Option<IpAddr>,
}

impl LocalEnd {
    /// The end of a link that carries datagrams over TLS; the remote end is its TCP address then.
    pub const STREAM: Self = Self { socket: u8::MAX, address: None };
}

/// What kind of way a path is, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PathClass {
    /// To the peer by UDP.
    Direct,
    /// Through a relay that is reached by UDP.
    Relayed,
    /// By a link over TLS that leads to the peer.
    Stream,
    /// Through a relay that such a link leads to.
    RelayedStream,
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
    /// The position of the socket that it leaves from, if that is one that comes and goes.
    pub fn spare(&self) -> Option<u8> {
        self.local.map(|local| local.socket).filter(|socket| SPARE_SOCKETS.contains(socket))
    }

    /// Says whether a relay passes on what goes this way.
    pub fn is_relayed(&self) -> bool {
        self.label.is_some()
    }

    /// Says whether what goes this way goes over TLS.
    pub fn is_stream(&self) -> bool {
        self.local == Some(LocalEnd::STREAM)
    }

    /// Says whether it leads to the peer's own endpoint by UDP.
    pub fn is_direct(&self) -> bool {
        self.class() == PathClass::Direct
    }

    /// What kind of way it is.
    pub fn class(&self) -> PathClass {
        match (self.is_stream(), self.is_relayed()) {
            (true, false) => PathClass::Stream,
            (true, true) => PathClass::RelayedStream,
            (false, true) => PathClass::Relayed,
            (false, false) => PathClass::Direct,
        }
    }
}

impl From<SocketAddr> for Path {
    fn from(remote: SocketAddr) -> Self {
        Self { remote, local: None, label: None }
    }
}
