//! Links over TLS, as the simulated machines have them: datagrams in order, to and from a port of their own, and past whatever blocks UDP.

use p2plus::crypto::identity::NodeId;
use p2plus::path::{LocalEnd, Path};
use p2plus::time::Instant;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Where relays listen.
pub const TLS_PORT: u16 = 443;

/// Whence members connect.
pub const TLS_CLIENT_PORT: u16 = 50_443;

/// What TCP and TLS take in round trips of 20 ms: two.
const SETUP: Duration = Duration::from_millis(40);

/// What a connection takes to fail.
const FAILURE: Duration = Duration::from_secs(1);

/// The host's own port: the world knows it by no other.
pub fn home_of(endpoint: SocketAddr) -> SocketAddr {
    if is_stream_port(endpoint.port()) { SocketAddr::new(endpoint.ip(), 4647) } else { endpoint }
}

pub fn is_stream_port(port: u16) -> bool {
    [TLS_PORT, TLS_CLIENT_PORT].contains(&port)
}

pub fn stream_path(remote: SocketAddr) -> Path {
    Path { local: Some(LocalEnd::STREAM), ..remote.into() }
}

/// What a machine has of them.
#[derive(Default)]
pub struct Streams {
    /// To be told of, with the path or as failed.
    opening: Vec<(Instant, NodeId, Option<Path>)>,
    open: BTreeSet<SocketAddr>,
    /// By its own port, to whom; an empty one is the end.
    pub outbox: VecDeque<(u16, SocketAddr, Vec<u8>)>,
    /// Relays that answer no TCP.
    pub unreachable: BTreeSet<SocketAddr>,
    /// How many were asked for in all.
    pub asked: usize,
    /// Whether it listens itself.
    pub listens: bool,
}

impl Streams {
    pub fn order(&mut self, now: Instant, relay: NodeId, endpoint: SocketAddr) {
        self.asked += 1;
        let is_there = !self.unreachable.contains(&endpoint);
        let (after, path) = if is_there { (SETUP, Some(stream_path(endpoint))) } else { (FAILURE, None) };
        self.opening.push((now + after, relay, path));
    }

    /// What came of orders by now.
    pub fn take_due(&mut self, now: Instant) -> Vec<(NodeId, Option<Path>)> {
        let due = self.opening.extract_if(.., |(at, ..)| now >= *at);
        let due: Vec<_> = due.map(|(_, relay, path)| (relay, path)).collect();
        self.open.extend(due.iter().filter_map(|(_, path)| path.map(|path| path.remote)));
        due
    }

    pub fn send(&mut self, path: Path, datagram: Vec<u8>) {
        let port = if self.open.contains(&path.remote) { TLS_CLIENT_PORT } else { TLS_PORT };
        self.outbox.push_back((port, path.remote, datagram));
    }

    pub fn close(&mut self, path: Path) {
        self.send(path, Vec::new());
        self.open.remove(&path.remote);
    }

    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Takes the news that one ended.
    pub fn lose(&mut self, remote: SocketAddr) {
        self.open.remove(&remote);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.opening.iter().map(|(at, ..)| *at).min()
    }
}
