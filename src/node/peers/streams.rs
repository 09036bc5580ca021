//! Links over TLS as ways to peers: when one is missed, taken and lost.

use super::{Context, PeerTable};
use crate::crypto::exchange::TransportKey;
use crate::node::peer::Peer;
use crate::node::peers::PeerEvent;
use crate::path::Path;
use crate::path::candidate::is_private;
use crate::time::Instant;
use rand_core::CryptoRng;
use std::time::Duration;

/// Endpoints of a peer that are asked at a time whether UDP reaches them again.
const MAX_ASKED: usize = 4;

/// Peers that are asked at a time whether UDP reaches anybody.
const MAX_FAR_ASKED: usize = 3;

/// An answer may be owed for so long where nothing is wrong.
const OWED_FOR_A_MOMENT: Duration = Duration::from_millis(300);

/// How a peer does not answer by UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silence {
    /// A handshake is under way since then.
    Handshake(Instant),
    /// There is a session whose peer owes an answer since then, and the round trip that was last measured.
    Session(Instant, Duration),
    /// It is to be kept close, and is reached through another relay's link alone.
    Behind,
}

impl PeerTable {
    /// Says whether a peer that something is wanted of does not answer by UDP, or has not yet.
    pub fn silence(&self, key: &TransportKey) -> Option<Silence> {
        let peer = self.peers.get(key)?;
        match peer.paths.path() {
            Some(path) if peer.is_usable() && path.is_stream() => {
                (path.is_relayed() && self.kept.contains(key)).then_some(Silence::Behind)
            }
            Some(_) if peer.is_usable() => {
                let since = peer.paths.owed_since()?;
                Some(Silence::Session(since, peer.paths.rtt().unwrap_or_default()))
            }
            _ => peer.attempt.as_ref().map(|attempt| Silence::Handshake(attempt.begun_at)),
        }
    }

    /// Says whether a peer beyond this host's own site was heard by UDP since then, and owes no answer for long.
    pub fn is_udp_heard(&self, now: Instant, since: Instant) -> bool {
        self.far_by_udp(now).any(|(_, _, heard)| heard > Some(since))
    }

    /// Asks some of those peers whether they still are, those first that were heard last.
    pub fn ask_far_by_udp(&mut self, ctx: &mut Context<'_, impl CryptoRng>) {
        let mut far: Vec<_> = self.far_by_udp(ctx.now.instant).map(|(key, path, heard)| (heard, key, path)).collect();
        far.sort_unstable_by_key(|(heard, ..)| std::cmp::Reverse(*heard));
        for (_, key, path) in far.into_iter().take(MAX_FAR_ASKED) {
            self.probe(ctx, key, path);
        }
    }

    /// The peers beyond this host's own links and site that are reached by UDP and owe nothing for long, and when each was last heard. A
    /// private address counts as the site's, also where no public one is known: what blocks UDP stands behind those.
    fn far_by_udp(&self, now: Instant) -> impl Iterator<Item = (TransportKey, Path, Option<Instant>)> {
        let is_far = |path: Path| {
            let remote = path.remote.ip().to_canonical();
            let is_near = self.around.connected.iter().any(|prefix| prefix.contains(remote));
            !is_near && !is_private(remote)
        };
        let heard = |peer: &Peer| peer.sessions.receiving().filter_map(|session| session.last_received()).max();
        self.peers.engaged().filter_map(move |(key, peer)| {
            let path = peer.paths.path().filter(|path| path.is_direct() && is_far(*path))?;
            let is_sound = peer.paths.owed_since().is_none_or(|since| now.saturating_since(since) < OWED_FOR_A_MOMENT);
            (is_sound && peer.is_usable()).then(|| (*key, path, heard(peer)))
        })
    }

    /// Takes whether UDP reaches nobody from here.
    pub fn set_udp_silent(&mut self, is_silent: bool) {
        self.is_udp_silent = is_silent;
    }

    /// A link over TLS leads to a peer: it is tried.
    pub fn stream_up(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey, path: Path) {
        let id = ctx.policy.admit(&key).member();
        let peer = self.entry(key, id);
        peer.paths.set_stream(path);
        self.try_way(ctx, key, path, true);
    }

    /// A link over TLS ended: whoever was reached by it is reached otherwise, or not.
    pub fn stream_down(&mut self, path: Path) {
        for key in self.peers.keys() {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let before = peer.paths.path();
            if !peer.paths.lose_stream(&path) {
                continue;
            }
            let after = peer.paths.path();
            self.is_changed = true;
            if before != after {
                self.events.push_back(PeerEvent::Moved(key));
            }
        }
    }

    /// Asks where a peer with a session may be by UDP: it takes the place of anything over TLS with its first answer.
    pub fn ask_by_udp(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        let Some(peer) = self.peers.get(&key).filter(|peer| peer.is_usable()) else { return };
        let endpoints = peer.paths.candidates().ranked().into_iter().take(MAX_ASKED);
        let paths: Vec<_> = endpoints.map(|endpoint| peer.paths.path_to(endpoint)).collect();
        for path in paths {
            self.probe(ctx, key, path);
        }
    }
}
