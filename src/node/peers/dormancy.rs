//! Sessions that nobody keeps up and nothing used for a while: the NATs between may have forgotten the path, and then what is sent first is lost.
//!
//! ```text
//!   awake ── nothing heard for 28 s ──► dormant: the data threads bring what is for the peer here
//!   dormant ── a packet ──► waking: it leaves by the path at once, with a probe, and a copy stays here
//!   waking ── the path answers ──► awake: the copies are dropped
//!          ── it does not, in the time that it usually takes ──► relays are asked for ways; what answers there gets the copies
//! ```

use super::{Context, PeerEvent, PeerTable};
use crate::crypto::exchange::TransportKey;
use crate::node::peer::Peer;
use crate::path::Path;
use crate::time::{Instant, Now};
use crate::wire::datagram::SessionIndex;
use crate::wire::transport_record::Layer;
use rand_core::CryptoRng;
use std::time::Duration;

/// Longer than a session is silent that one of its ends keeps up, and shorter than most NATs remember UDP (RFC 4787 REQ-5 asks for two
/// minutes and is not obeyed).
const SILENT_FOR: Duration = Duration::from_secs(28);

/// How far a peer's path may be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::node) enum Dormancy {
    /// It was heard not long ago.
    #[default]
    Awake,
    /// It may lead nowhere any more.
    Dormant,
    /// Packets left in this session by this path, and nothing answered yet.
    Waking(SessionIndex, Path),
}

impl PeerTable {
    /// Looks, once a second, whether a peer was silent for so long that its path may be gone.
    pub(super) fn review_dormancy(&mut self, now: Instant, key: TransportKey) {
        let is_kept = self.kept.contains(&key);
        let Some(peer) = self.peers.get(&key).filter(|peer| peer.dormancy == Dormancy::Awake && !is_kept) else {
            return;
        };
        let is_doubtful = peer.is_usable() && self.may_be_forgotten(peer) && is_silent(now, peer);
        if is_doubtful && let Some(peer) = self.peers.get_mut(&key) {
            peer.dormancy = Dormancy::Dormant;
            self.is_changed = true;
        }
    }

    /// Says whether something between remembers the path in use: neither a link of this host's own nor a connection.
    fn may_be_forgotten(&self, peer: &Peer) -> bool {
        let is_near = |path: &Path| {
            let remote = path.remote.ip().to_canonical();
            path.is_direct() && self.around.connected.iter().any(|prefix| prefix.contains(remote))
        };
        peer.paths.path().is_some_and(|path| !path.is_stream() && !is_near(&path))
    }

    /// Sends a packet to a peer that is dormant, or only waking, and keeps a copy. Returns whether it is.
    pub(super) fn wake(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        key: TransportKey,
        (layer, packet): (Layer, &[u8]),
    ) -> bool {
        self.note_awake(ctx.now, key);
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.dormancy != Dormancy::Awake) else { return false };
        let Some((session, path)) = peer.sessions.sending().zip(peer.paths.path()) else { return false };
        if peer.dormancy == Dormancy::Dormant {
            peer.dormancy = Dormancy::Waking(session.local_index(), path);
            peer.paths.owe(ctx.now.instant);
            self.active.insert(key);
            self.watch_soon(ctx.now.instant);
            self.probe(ctx, key, path);
        }
        self.send_waiting(ctx.now, key, layer, packet);
        true
    }

    /// Has others help while a waking peer's path does not answer.
    pub(super) fn help_to_wake(&mut self, now: Instant, key: TransportKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let is_waking = matches!(peer.dormancy, Dormancy::Waking(..));
        if is_waking && peer.paths.is_silent(now) && peer.may_seek(now) {
            self.events.push_back(PeerEvent::Sought(key));
        }
    }

    /// A peer was heard, perhaps: if that proves its path, the copies of what left by it are not needed; if it is reached by another one, or in
    /// another session, they are, and are flushed with what else waits.
    pub(super) fn note_awake(&mut self, now: Now, key: TransportKey) {
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.dormancy != Dormancy::Awake) else { return };
        let in_use = peer.sessions.sending().map(|session| session.local_index()).zip(peer.paths.path());
        let is_awake = match (peer.dormancy, in_use) {
            (Dormancy::Waking(index, path), Some(in_use)) => {
                let is_same = in_use == (index, path);
                if is_same && peer.paths.owed_since().is_none() {
                    self.staging.take(now.instant, &key);
                }
                !is_same || peer.paths.owed_since().is_none()
            }
            (_, None) => true,
            (_, Some(_)) => !is_silent(now.instant, peer),
        };
        if is_awake {
            peer.dormancy = Dormancy::Awake;
            self.is_changed = true;
        }
    }
}

/// Says whether a peer was not heard for long in any session.
fn is_silent(now: Instant, peer: &Peer) -> bool {
    peer.silent_since().is_some_and(|at| now.saturating_since(at) >= SILENT_FOR)
}
