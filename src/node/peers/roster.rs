//! The peers by their keys, and which of them is due when: what one peer says costs nothing for the others.

use crate::crypto::exchange::TransportKey;
use crate::node::peer::Peer;
use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// A map of peers that knows their deadlines. Whoever was lent for a change is asked anew for its own.
#[derive(Default)]
pub(super) struct Roster {
    peers: BTreeMap<TransportKey, Peer>,
    /// When each busy peer is due; none when only time as such can make it so.
    deadlines: BTreeMap<TransportKey, Option<Instant>>,
    by_time: BTreeSet<(Instant, TransportKey)>,
    /// Lent since the deadlines were last brought up to date.
    lent: BTreeSet<TransportKey>,
}

impl Roster {
    pub(super) fn get(&self, key: &TransportKey) -> Option<&Peer> {
        self.peers.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &TransportKey) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(key)?;
        self.lent.insert(*key);
        Some(peer)
    }

    pub(super) fn get_or_insert_with(&mut self, key: TransportKey, peer: impl FnOnce() -> Peer) -> &mut Peer {
        self.lent.insert(key);
        self.peers.entry(key).or_insert_with(peer)
    }

    pub(super) fn remove(&mut self, key: &TransportKey) -> Option<Peer> {
        self.lent.insert(*key);
        self.peers.remove(key)
    }

    pub(super) fn contains(&self, key: &TransportKey) -> bool {
        self.peers.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&TransportKey, &Peer)> {
        self.peers.iter()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// The peers with a session or an attempt, in the order of their keys. They are few, however many are known.
    pub(super) fn engaged(&self) -> impl Iterator<Item = (&TransportKey, &Peer)> {
        let candidates: BTreeSet<_> = self.deadlines.keys().chain(&self.lent).collect();
        let known = candidates.into_iter().filter_map(|key| self.peers.get_key_value(key));
        known.filter(|(_, peer)| peer.is_busy())
    }

    /// The keys, apart from the map: for a walk that changes it.
    pub(super) fn keys(&self) -> Vec<TransportKey> {
        self.peers.keys().copied().collect()
    }

    /// The keys of peers that have deadlines or need watching, in their order.
    pub(super) fn busy(&mut self) -> Vec<TransportKey> {
        self.bring_up_to_date();
        self.deadlines.keys().copied().collect()
    }

    /// Says whether any peer has deadlines or needs watching.
    pub(super) fn is_any_busy(&mut self) -> bool {
        self.bring_up_to_date();
        !self.deadlines.is_empty()
    }

    /// The keys of peers whose deadlines have come, in the order of the keys.
    pub(super) fn due(&mut self, now: Instant) -> Vec<TransportKey> {
        self.bring_up_to_date();
        let mut keys: Vec<_> = self.by_time.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key).collect();
        keys.sort_unstable();
        keys
    }

    /// When the first peer is due.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        self.bring_up_to_date();
        self.by_time.first().map(|(at, _)| *at)
    }

    fn bring_up_to_date(&mut self) {
        while let Some(key) = self.lent.pop_first() {
            if let Some(Some(before)) = self.deadlines.remove(&key) {
                self.by_time.remove(&(before, key));
            }
            let Some(peer) = self.peers.get(&key).filter(|peer| peer.is_busy()) else { continue };
            let deadline = peer.poll_timeout();
            self.deadlines.insert(key, deadline);
            self.by_time.extend(deadline.map(|at| (at, key)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::identity::NodeId;
    use crate::session::testing::established_pair;
    use std::time::Duration;

    const IDLE: TransportKey = TransportKey([1; 32]);
    const BUSY: TransportKey = TransportKey([2; 32]);

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_peer_is_due_when_it_says_so_whatever_was_done_to_it() {
        let mut roster = Roster::default();
        for key in [IDLE, BUSY] {
            roster.get_or_insert_with(key, || Peer::new(NodeId([1; 32]), Some(NodeId([2; 32]))));
        }
        assert!(!roster.is_any_busy() && roster.next_deadline().is_none());

        // An initiator's session wants to be confirmed, again after 100 ms, and after 200.
        let (_, _, near, _) = established_pair();
        let engaged = |roster: &Roster| roster.engaged().map(|(key, _)| *key).collect::<Vec<_>>();
        assert!(engaged(&roster).is_empty());
        roster.get_mut(&BUSY).unwrap().sessions.handle_established(at(0), near);
        assert_eq!(engaged(&roster), [BUSY], "before anybody asked for deadlines");
        assert_eq!((roster.next_deadline(), roster.busy()), (Some(at(100)), vec![BUSY]));
        assert_eq!(engaged(&roster), [BUSY], "and after");
        assert!(roster.due(at(99)).is_empty());
        assert_eq!(roster.due(at(100)), [BUSY]);
        roster.get_mut(&BUSY).unwrap().sessions.handle_timeout(at(100));
        assert_eq!(roster.next_deadline(), Some(at(200)));
        assert!(roster.due(at(199)).is_empty());

        assert!(roster.remove(&BUSY).is_some() && engaged(&roster).is_empty());
        assert!(!roster.is_any_busy() && roster.next_deadline().is_none() && roster.due(at(300)).is_empty());
    }
}
