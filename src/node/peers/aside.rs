//! Probes that no path comes of by themselves: what answers them is looked at, and nothing else changes.

use super::{Context, PeerTable, rights_of};
use crate::crypto::exchange::TransportKey;
use crate::node::peer::Peer;
use crate::path::{Path, ProbeId};
use crate::policy::Rights;
use crate::wire::control::ControlMessage;
use crate::wire::datagram::SessionIndex;
use crate::wire::transport_record::RECORD_CONTROL;
use rand_core::CryptoRng;
use std::collections::BTreeSet;

impl PeerTable {
    /// Whose session an index names, and what its peer may do in it.
    pub fn session_of(&self, index: SessionIndex) -> Option<(TransportKey, Rights)> {
        let key = *self.owners.get(&index)?;
        let mut sessions = self.peers.get(&key)?.sessions.receiving();
        sessions.find(|session| session.local_index() == index).map(|session| (key, rights_of(session)))
    }

    /// Says whether a relay carries what there is for a peer.
    pub fn is_relayed(&self, key: &TransportKey) -> bool {
        let path = self.peers.get(key).filter(|peer| peer.is_usable()).and_then(|peer| peer.paths.path());
        path.is_some_and(|path| path.is_relayed())
    }

    /// The sockets that come and go which paths leave from: those in use, and those where peers answered.
    pub fn spares_in_use(&self) -> BTreeSet<u8> {
        self.peers.engaged().filter(|(_, peer)| peer.is_usable()).flat_map(|(_, peer)| peer.paths.spares()).collect()
    }

    /// Forgets that anything was heard at these sockets, which are closed.
    pub fn forget_spares(&mut self, closed: &BTreeSet<u8>) {
        let has_any = |peer: &Peer| peer.paths.mentions_spares();
        let keys: Vec<_> = self.peers.iter().filter(|(_, peer)| has_any(peer)).map(|(key, _)| *key).collect();
        for key in keys {
            self.peers.get_mut(&key).into_iter().for_each(|peer| peer.paths.forget_spares(closed));
        }
    }

    /// Sends a probe by a path, over so many routers at most; it is not kept, so that a pong alone proves nothing. The caller bounds how many
    /// there are. Returns its id.
    pub fn probe_aside(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        key: TransportKey,
        path: Path,
        hop_limit: Option<u8>,
    ) -> Option<ProbeId> {
        let id = ProbeId(ctx.rng.next_u64());
        self.note_contact(ctx.now.instant, &path, false);
        let probe = ControlMessage::probe(id.0, true);
        if !self.seal_to(ctx.now, key, path, RECORD_CONTROL, &probe.encode()) {
            return None;
        }
        if let Some(last) = self.transmits.back_mut() {
            last.hop_limit = hop_limit;
        }
        Some(id)
    }
}
