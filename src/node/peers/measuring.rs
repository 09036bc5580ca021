//! How long datagrams to a peer may be: the search for its path in use, and the answers to those of others.

use super::{Context, Peer, PeerTable};
use crate::crypto::exchange::TransportKey;
use crate::node::forward::{datagram_lengths, measure_len};
use crate::path::{Path, ProbeId};
use crate::time::{Instant, Now};
use crate::wire::control::ControlMessage;
use crate::wire::transport_record::{RECORD_CONTROL, RECORD_MEASURE};
use rand_core::CryptoRng;
use std::sync::Arc;

impl PeerTable {
    /// Takes the longest packet that a host gives or takes, in bytes: nothing longer is searched for.
    pub fn set_inner_mtu(&mut self, inner_mtu: u16) {
        self.inner_mtu = inner_mtu;
    }

    /// The longest packet that a host gives or takes, in bytes.
    pub fn inner_mtu(&self) -> u16 {
        self.inner_mtu
    }

    /// Goes on with the search for what the path to a member takes.
    pub(super) fn drive_measuring(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        let (now, inner_mtu) = (ctx.now.instant, self.inner_mtu);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let path = peer.measured_path();
        let before = peer.mtu.mtu();
        peer.mtu.follow(now, path, path.map_or((0, 0), |path| datagram_lengths(&path, inner_mtu)));
        let lengths = peer.mtu.handle_timeout(now, peer.paths.rtt());
        self.is_changed |= peer.mtu.mtu() != before;
        let session = peer.sessions.sending().map(Arc::clone);
        let Some((session, path)) = session.zip(path) else { return };
        for len in lengths {
            let id = ProbeId(ctx.rng.next_u64());
            let mut record = vec![0; measure_len(&path, len)];
            record[0] = RECORD_MEASURE;
            record[1..9].copy_from_slice(&id.0.to_le_bytes());
            if !self.seal_in(ctx.now, key, &session, Some(path), &record) {
                continue;
            }
            if let Some(last) = self.transmits.back_mut() {
                last.is_measure = true;
            }
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.mtu.sent(id, len);
            }
        }
    }

    /// A peer measures a path: where it is the one in use, and something of a user's passes, this end asks too.
    pub(super) fn note_measure(&mut self, now: Instant, key: TransportKey, path: Path) {
        let is_concerned = |peer: &&mut Peer| peer.paths.path() == Some(path) && peer.traffic().is_in_use(now);
        if let Some(peer) = self.peers.get_mut(&key).filter(is_concerned) {
            peer.mtu.note_question(now);
        }
    }

    /// Answers a probe, however long it was, to where it came from.
    pub(in crate::node) fn pong(&mut self, now: Now, key: TransportKey, path: Path, id: u64) {
        let pong = ControlMessage::Pong { id, observed: path.remote };
        self.seal_to(now, key, path, RECORD_CONTROL, &pong.encode());
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.paths.answered(now.instant);
        }
    }

    /// Takes a pong if it answers a datagram of the search. Returns whether it does.
    pub(super) fn take_measure(&mut self, now: Now, key: TransportKey, id: ProbeId) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else { return false };
        let before = peer.mtu.mtu();
        let is_taken = peer.mtu.handle_pong(now.instant, id);
        self.is_changed |= peer.mtu.mtu() != before;
        is_taken
    }
}

impl Peer {
    /// The path whose length is to be known: that to a member in use.
    fn measured_path(&self) -> Option<Path> {
        self.paths.path().filter(|_| self.id.is_some() && self.is_usable())
    }

    /// Says whether the search is about another path than that.
    pub(in crate::node) fn is_unmeasured(&self) -> bool {
        self.mtu.path() != self.measured_path()
    }
}
