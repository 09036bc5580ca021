//! Sockets beside those that the node listens on: the shell opens them when the node asks, says which there are, and closes those that are of
//! no more use.

use super::{Node, NodeEvent};
use crate::time::Now;
use rand_core::CryptoRng;
use std::collections::BTreeSet;

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spare {
    /// Its position among the node's sockets.
    pub position: u8,
    /// The port of this host that it is at.
    pub port: u16,
}

/// What sockets are opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SparePurpose {
    /// To see members' probes at a second port.
    Ear,
    /// To have as many ports of a NAT let a peer in.
    Search,
}

/// Those that are open, by their positions.
pub(super) type OpenSpares = BTreeSet<u8>;

impl<R: CryptoRng> Node<R> {
    /// Takes the sockets that the shell opened for a purpose: as many as it could.
    pub fn handle_spares(&mut self, now: Now, purpose: SparePurpose, opened: &[Spare]) {
        self.notice(now);
        self.spares.extend(opened.iter().map(|spare| spare.position));
        match purpose {
            SparePurpose::Ear => self.handle_own_ear(now, opened.first().copied()),
            SparePurpose::Search => self.open_ports(now, opened),
        }
        self.settle(now);
    }

    /// Has those closed that nothing uses: neither a path, nor an ear, nor a search.
    pub(super) fn review_spares(&mut self) {
        let ear = self.ears.own_position();
        if self.searches.is_opening() || self.spares.iter().all(|position| ear == Some(*position)) {
            return;
        }
        let mut used = self.peers.spares_in_use();
        used.extend(ear);
        let unused: OpenSpares = self.spares.difference(&used).copied().collect();
        if !unused.is_empty() {
            self.peers.forget_spares(&unused);
            self.spares.retain(|position| used.contains(position));
            self.tell(NodeEvent::CloseSpares(unused));
        }
    }
}
