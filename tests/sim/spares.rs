//! Sockets that come and go, as the simulated machines have them: each a port of its own, by its position.

use p2plus::node::spares::Spare;
use p2plus::path::{LocalEnd, Path, SPARE_SOCKETS};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// The port at position 0.
const FIRST_PORT: u16 = 47_000;

/// The host's own port: the world knows it by no other.
pub fn home_of(endpoint: SocketAddr) -> SocketAddr {
    if position_at(endpoint.port()).is_some() { SocketAddr::new(endpoint.ip(), 4647) } else { endpoint }
}

fn port_of(position: u8) -> u16 {
    FIRST_PORT + u16::from(position)
}

fn position_at(port: u16) -> Option<u8> {
    u8::try_from(port.checked_sub(FIRST_PORT)?).ok().filter(|position| SPARE_SOCKETS.contains(position))
}

/// What a machine has of them.
#[derive(Default)]
pub struct Spares {
    pub open: BTreeSet<u8>,
}

impl Spares {
    pub fn open(&mut self, count: usize) -> Vec<Spare> {
        let free: Vec<_> = SPARE_SOCKETS.filter(|position| !self.open.contains(position)).take(count).collect();
        self.open.extend(&free);
        free.into_iter().map(|position| Spare { position, port: port_of(position) }).collect()
    }

    pub fn close(&mut self, positions: &BTreeSet<u8>) {
        self.open.retain(|position| !positions.contains(position));
    }

    /// The port that a path leaves from, if not from the host's own; none when its socket is closed.
    pub fn port_for(&self, path: &Path) -> Option<Option<u16>> {
        match path.spare() {
            None => Some(None),
            Some(position) => self.open.contains(&position).then(|| Some(port_of(position))),
        }
    }

    /// The path of what came to a port; none when nobody listens there.
    pub fn path_at(&self, port: u16, source: SocketAddr) -> Option<Path> {
        let Some(socket) = position_at(port) else { return Some(source.into()) };
        let local = Some(LocalEnd { socket, address: None });
        self.open.contains(&socket).then(|| Path { local, ..source.into() })
    }
}
