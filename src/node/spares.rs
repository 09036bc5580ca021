//! Sockets beside those that the node listens on: the shell opens them when the node asks, and says which there are.

use super::Node;
use crate::time::Now;
use rand_core::CryptoRng;

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
}

impl<R: CryptoRng> Node<R> {
    /// Takes the sockets that the shell opened for a purpose: as many as it could.
    pub fn handle_spares(&mut self, now: Now, purpose: SparePurpose, opened: &[Spare]) {
        self.notice(now);
        match purpose {
            SparePurpose::Ear => self.handle_own_ear(now, opened.first().copied()),
        }
        self.settle(now);
    }
}
