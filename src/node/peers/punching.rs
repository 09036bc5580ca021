//! Openings in NATs, made from both sides at once: probes to each other's endpoints, again and again, while a relay carries what there is.

use super::{Context, PeerTable};
use crate::crypto::exchange::TransportKey;
use crate::node::peer::Peer;
use crate::path::Path;
use crate::time::Instant;
use rand_core::CryptoRng;
use std::net::SocketAddr;
use std::time::Duration;

/// The shots of the first round, by the time since its beginning: every 100 ms for two seconds.
const SHOT_INTERVAL: Duration = Duration::from_millis(100);
const FIRST_ROUND: u32 = 20;

/// The later rounds, by the time since the first; then each is as long after the one before as the last of these after the first.
const LATER: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(60)];

/// The shots of each of them.
const LATER_ROUND: u32 = 6;

/// The first shots of a round die on the way: they open the own NAT before anything can reach the other one, because some take what comes
/// unasked for the beginning of a conversation of their own, and choose another port for what goes the other way (measured with Linux's).
/// Each passes so many routers: beyond the own NAT, or that of a provider, and not as far as the other one.
const OPENER_HOPS: [u8; 3] = [2, 3, 2];

/// An attempt to open a direct path.
#[derive(Debug)]
pub(in crate::node) struct Punch {
    endpoints: Vec<SocketAddr>,
    begins_at: Instant,
    round: usize,
    /// Shots of this round so far.
    shots: u32,
    next_at: Instant,
}

impl Punch {
    fn new(begins_at: Instant, endpoints: Vec<SocketAddr>) -> Self {
        Self { endpoints, begins_at, round: 0, shots: 0, next_at: begins_at }
    }

    /// When the next shot is due.
    pub(in crate::node) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Takes the shot that is due: over so many routers, or all.
    fn shoot(&mut self, now: Instant) -> Option<u8> {
        let hops = OPENER_HOPS.get(self.shots as usize).copied();
        self.shots += 1;
        let shots = if self.round == 0 { FIRST_ROUND } else { LATER_ROUND };
        if self.shots < shots {
            self.next_at = now + SHOT_INTERVAL;
            return hops;
        }
        self.shots = 0;
        let last = LATER[LATER.len() - 1];
        let beyond = self.round.saturating_sub(LATER.len() - 1) as u32;
        self.next_at = (self.begins_at + LATER.get(self.round).copied().unwrap_or(last) + beyond * last).max(now);
        self.round += 1;
        hops
    }
}

impl PeerTable {
    /// Begins to probe a peer's endpoints at the given moment; once more from the start, if that was begun before.
    pub fn punch(&mut self, key: TransportKey, begins_at: Instant, endpoints: Vec<SocketAddr>) {
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.is_usable() && !endpoints.is_empty()) else {
            return;
        };
        peer.punch = Some(Punch::new(begins_at, endpoints));
    }

    /// Says whether a relay carries what is for a peer, and no direct path is being opened.
    pub fn wants_punch(&self, key: &TransportKey) -> bool {
        let is_relayed = |peer: &&Peer| peer.paths.path().is_some_and(|path| path.is_relayed());
        self.peers.get(key).filter(is_relayed).is_some_and(|peer| peer.is_usable() && peer.punch.is_none())
    }

    /// Says whether a direct path to a peer is being opened.
    pub fn is_punching(&self, key: &TransportKey) -> bool {
        self.peers.get(key).is_some_and(|peer| peer.punch.is_some())
    }

    /// Takes the shots that are due.
    pub(super) fn drive_punch(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let is_over = !peer.is_usable() || peer.paths.path().is_some_and(|path| !path.is_relayed());
        let Some(punch) = peer.punch.take_if(|_| is_over).map_or(peer.punch.as_mut(), |_| None) else { return };
        if ctx.now.instant < punch.next_at {
            return;
        }
        let hops = punch.shoot(ctx.now.instant);
        let paths: Vec<Path> = punch.endpoints.iter().map(|endpoint| peer.paths.path_to(*endpoint)).collect();
        for path in paths {
            self.probe_over(ctx, key, path, hops);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_begin_with_openers_and_become_few() {
        let begin = Instant::from_micros(7_000_000);
        let mut punch = Punch::new(begin, Vec::new());
        let mut shots = Vec::new();
        while punch.next_at() < begin + Duration::from_secs(200) {
            let at = punch.next_at();
            shots.push((at.saturating_since(begin).as_millis(), punch.shoot(at).is_some()));
        }
        let openers: Vec<_> = shots.iter().filter(|(_, is_opener)| *is_opener).map(|(at, _)| *at).collect();
        let rounds = [0, 5000, 15_000, 60_000, 120_000, 180_000];
        assert_eq!(openers, rounds.map(|round| [round, round + 100, round + 200]).concat());
        assert_eq!(shots.len(), 20 + 5 * 6);
        assert_eq!(shots[19], (1900, false));
    }
}
