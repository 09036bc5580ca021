//! Ways to peers through relays: taken, moved and lost as the relays say.

use super::{Context, PeerEvent, PeerTable};
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::node::peer::Peer;
use crate::path::Path;
use crate::time::{Instant, Now};
use crate::wire::control::ControlMessage;
use crate::wire::relay::Label;
use crate::wire::transport_record::RECORD_CONTROL;
use rand_core::CryptoRng;
use std::collections::BTreeSet;

impl PeerTable {
    /// The direct path to a peer with a usable session: what a relay's label may be put on.
    pub fn direct_path(&self, key: &TransportKey) -> Option<Path> {
        self.peers.get(key).filter(|peer| peer.is_usable())?.paths.path().filter(|path| !path.is_relayed())
    }

    /// Sends a control message. Returns whether a session was there.
    pub fn send_control(&mut self, now: Now, key: TransportKey, message: &ControlMessage) -> bool {
        self.send(now, key, RECORD_CONTROL, &message.encode())
    }

    /// Takes a way to a member through a relay, and tries it.
    pub fn add_relayed(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        (key, id): (TransportKey, NodeId),
        (relay, label): (TransportKey, Label),
        is_wanted: bool,
    ) {
        let Some(direct) = self.direct_path(&relay) else { return };
        let path = Path { label: Some(label), ..direct };
        let peer = self.entry(key, Some(id));
        peer.paths.add_relayed(relay, path);
        if peer.paths.relay_of(&path).is_none() {
            return;
        }
        self.try_way(ctx, key, path, is_wanted);
    }

    /// There is one more way to a peer: an attempt under way goes there as well, a session asks it, and without either one an attempt begins if
    /// the peer is wanted.
    pub(super) fn try_way(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        key: TransportKey,
        path: Path,
        is_wanted: bool,
    ) {
        self.is_changed = true;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.attempt.is_some() {
            self.fire_also(key, path);
        } else if peer.is_usable() {
            self.probe(ctx, key, path);
        } else if is_wanted {
            peer.retry_at_once();
            self.connect(ctx, key);
        }
    }

    /// A label of a relay's leads nowhere any more.
    pub fn lose_label(&mut self, relay: TransportKey, label: Label) {
        self.lose_ways(|by, path| *by == relay && path.label == Some(label));
    }

    /// A relay is gone, and all its labels with it.
    pub fn lose_relay(&mut self, relay: TransportKey) {
        self.lose_ways(|by, _| *by == relay);
    }

    fn lose_ways(&mut self, is_gone: impl Fn(&TransportKey, &Path) -> bool) {
        for key in self.with_way(|by, path| is_gone(by, path)) {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let before = peer.paths.path();
            peer.paths.lose_relayed(&is_gone);
            let after = peer.paths.path();
            self.is_changed = true;
            if before != after {
                self.events.push_back(PeerEvent::Moved(key));
            }
        }
    }

    /// There is a new session with a relay, which may know its labels no more.
    pub fn doubt_relay(&mut self, relay: &TransportKey) {
        for key in self.with_way(|by, _| by == relay) {
            self.peers.get_mut(&key).into_iter().for_each(|peer| peer.paths.doubt_relay(relay));
        }
    }

    /// A peer is reached by another path now: so are those behind it, if it is a relay.
    pub fn relay_moved(&mut self, relay: TransportKey) {
        let Some(to) = self.direct_path(&relay) else { return };
        for key in self.with_way(|by, _| *by == relay) {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.paths.relay_moved(&relay, to);
                self.is_changed = true;
            }
        }
    }

    /// The peers with such a way.
    fn with_way(&self, is_meant: impl Fn(&TransportKey, &Path) -> bool) -> Vec<TransportKey> {
        let has_any = |peer: &Peer| peer.paths.relayed().any(|(by, path)| is_meant(&by, &path));
        self.peers.iter().filter(|(_, peer)| has_any(peer)).map(|(key, _)| *key).collect()
    }

    /// The ways through relays that anything may come by.
    pub fn relayed_ways(&self) -> impl Iterator<Item = Path> {
        self.peers.values().flat_map(|peer| peer.paths.relayed()).map(|(_, path)| path)
    }

    /// The relays that are in use now.
    pub fn relays_in_use(&self) -> impl Iterator<Item = TransportKey> {
        self.peers.engaged().filter_map(|(_, peer)| peer.paths.relay_of(&peer.paths.path()?))
    }

    /// Takes whether a peer's record says that its NAT lets nobody in.
    pub fn set_closed(&mut self, key: TransportKey, is_closed: bool) {
        self.peers.get_mut(&key).into_iter().for_each(|peer| peer.is_closed = is_closed);
    }

    /// Nobody helps to reach a peer: tries its endpoints, whatever its record says.
    pub fn try_directly(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.is_closed && !peer.is_usable() && peer.try_directly(ctx.now.instant) {
            self.connect(ctx, key);
        }
    }

    /// The peers that this node tries to reach, or would, if it knew of any place.
    pub fn sought(&self) -> Vec<TransportKey> {
        let tried = self.peers.engaged().filter(|(_, peer)| peer.attempt.is_some()).map(|(key, _)| key);
        let all: BTreeSet<_> = tried.chain(self.staging.keys()).collect();
        let is_sought = |key: &TransportKey| self.peers.get(key).is_some_and(|peer| !peer.is_usable());
        all.into_iter().filter(|key| is_sought(key)).copied().collect()
    }

    /// Says whether ways to a peer through this relay led nowhere again and again of late.
    pub fn is_shunned(&self, now: Instant, key: &TransportKey, relay: &TransportKey) -> bool {
        self.peers.get(key).is_some_and(|peer| peer.paths.is_shunned(now, relay))
    }

    /// Says whether a way to a peer leads through this relay.
    pub fn has_way(&self, key: &TransportKey, relay: &TransportKey) -> bool {
        self.peers.get(key).is_some_and(|peer| peer.paths.relayed().any(|(by, _)| by == *relay))
    }
}
