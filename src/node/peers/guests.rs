//! Places for guests: how many there are, how many of one host, and who gives his up.

use super::PeerTable;
use crate::crypto::exchange::TransportKey;
use crate::node::control::MAX_GUESTS;
use crate::node::peer::Peer;
use crate::session::Origin;
use crate::time::Now;
use crate::wire::control::ControlMessage;
use crate::wire::transport_record::RECORD_CONTROL;
use std::time::Duration;

/// Guests of one [`Origin`]: as many as it may have half-open handshakes.
pub const MAX_GUESTS_PER_ORIGIN: usize = 4;

/// A guest that was silent for this long gives its place to another one: what it came for takes seconds, keepalives come every 25 s.
const GUEST_IDLE: Duration = Duration::from_secs(30);

impl PeerTable {
    /// Finds a place for a guest that comes from `origin`. Who gives one up is told.
    ///
    /// Of an origin that has its share the guest goes that was silent for longest. When all places are taken it is the one silent for
    /// longest of those that are idle, or of an origin with at least two more than the new one has. Else there is none.
    pub(super) fn make_place(&mut self, now: Now, key: &TransportKey, origin: Option<Origin>) -> bool {
        let count_of = |origin| self.guests(key).filter(|(_, peer)| peer.guest_origin == origin).count();
        let own = count_of(origin);
        let leaving = if own >= MAX_GUESTS_PER_ORIGIN {
            longest_silent(self.guests(key).filter(|(_, peer)| peer.guest_origin == origin))
        } else if self.guests(key).count() >= MAX_GUESTS {
            let may_go = |peer: &Peer| {
                let is_idle = peer.silent_since().is_none_or(|at| now.instant.saturating_since(at) >= GUEST_IDLE);
                is_idle || count_of(peer.guest_origin) > own + 1
            };
            let Some(leaving) = longest_silent(self.guests(key).filter(|(_, peer)| may_go(peer))) else { return false };
            Some(leaving)
        } else {
            None
        };
        if let Some(leaving) = leaving {
            self.dismiss(now, leaving);
        }
        true
    }

    /// Ends all sessions with a peer that there is no place for any more: it is told.
    pub fn dismiss(&mut self, now: Now, key: TransportKey) {
        self.send(now, key, RECORD_CONTROL, &ControlMessage::Goodbye.encode());
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let actions = peer.sessions.retire_all();
        self.retire(key, &actions);
    }

    /// All guests but the one with this key.
    fn guests(&self, but: &TransportKey) -> impl Iterator<Item = (&TransportKey, &Peer)> {
        let is_guest = |peer: &Peer| peer.guest_origin.is_some() && peer.id.is_none() && !peer.sessions.is_empty();
        self.peers.engaged().filter(move |(key, peer)| *key != but && is_guest(peer))
    }
}

fn longest_silent<'a>(guests: impl Iterator<Item = (&'a TransportKey, &'a Peer)>) -> Option<TransportKey> {
    guests.min_by_key(|(_, peer)| peer.silent_since()).map(|(key, _)| *key)
}
