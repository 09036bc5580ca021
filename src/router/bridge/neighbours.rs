//! Which Ethernet address an IP address has, as its owner said: a question whose answer is known is answered here and bothers nobody.
//!
//! A hint, never a proof: who asks a second time, because the answer led nowhere, asks everybody.

use super::Place;
use crate::time::Instant;
use crate::wire::frame::{Frame, MacAddress};
use crate::wire::neighbour::{Neighbour, answer};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// How long a statement is believed after it was made: hosts themselves ask again after half a minute or so.
const LIFETIME: Duration = Duration::from_secs(60);
/// Who asks again within this time got an answer that did not help: hosts ask once a second, three times (RFC 4861 §10).
const PATIENCE: Duration = Duration::from_secs(5);
/// Statements of one segment, and of one member, at most. When full, others are not remembered: their questions go to everybody.
const MAX_NEIGHBOURS: usize = 4096;
const MAX_OF_ONE: usize = 256;

/// An address in the VLAN of a segment.
type Key = (Option<u16>, IpAddr);

#[derive(Clone, Copy, Debug)]
struct Entry {
    mac: MacAddress,
    place: Place,
    stated: Instant,
    answered: Option<Instant>,
}

/// The table of one segment.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    entries: HashMap<Key, Entry>,
    shares: HashMap<Place, usize>,
}

impl Neighbours {
    /// Takes note of what a checked message says of its sender. Of two that say different things within the lifetime neither is believed.
    pub(super) fn note(&mut self, now: Instant, place: Place, frame: &Frame, neighbour: &Neighbour) {
        let (Some(address), Some(mac)) = (neighbour.claimed(), neighbour.link) else { return };
        let key = (frame.vlan, address);
        if let Some(entry) = self.entries.get_mut(&key) {
            if (entry.place, entry.mac) == (place, mac) {
                entry.stated = now;
                return;
            }
            let is_disputed = entry.is_believed(now);
            self.remove(&key);
            if is_disputed {
                return;
            }
        }
        if self.is_full(place) {
            self.retain_entries(|entry| entry.is_believed(now));
        }
        if !self.is_full(place) {
            self.entries.insert(key, Entry { mac, place, stated: now, answered: None });
            *self.shares.entry(place).or_default() += 1;
        }
    }

    /// Answers a question of the own device about a station behind a peer.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        frame: &Frame,
        bytes: &[u8],
        question: &Neighbour,
    ) -> Option<Vec<u8>> {
        if !question.wants_answer() {
            return None;
        }
        let entry = self.entries.get_mut(&(frame.vlan, question.target))?;
        let is_again = entry.answered.is_some_and(|answered| now.saturating_since(answered) < PATIENCE);
        if entry.place == Place::Local || !entry.is_believed(now) || is_again {
            return None;
        }
        entry.answered = Some(now);
        answer(frame, bytes, question, entry.mac)
    }

    /// Forgets what was said by who is no member any more.
    pub(super) fn retain(&mut self, keep: impl Fn(Place) -> bool) {
        self.retain_entries(|entry| keep(entry.place));
    }

    fn retain_entries(&mut self, keep: impl Fn(&Entry) -> bool) {
        let shares = &mut self.shares;
        shares.clear();
        self.entries.retain(|_, entry| {
            let is_kept = keep(entry);
            if is_kept {
                *shares.entry(entry.place).or_default() += 1;
            }
            is_kept
        });
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key)
            && let Some(count) = self.shares.get_mut(&entry.place)
        {
            *count -= 1;
        }
    }

    fn is_full(&self, place: Place) -> bool {
        self.entries.len() >= MAX_NEIGHBOURS || self.shares.get(&place).is_some_and(|count| *count >= MAX_OF_ONE)
    }
}

impl Entry {
    fn is_believed(&self, now: Instant) -> bool {
        now.saturating_since(self.stated) < LIFETIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::PeerIndex;
    use crate::wire::frame::ETHERTYPE_ARP;
    use crate::wire::neighbour::NeighbourKind;

    const PEER: Place = Place::Peer(PeerIndex::at(0).unwrap());
    const ASKER: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const OWNER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
    const FRAME: Frame =
        Frame { destination: MacAddress::BROADCAST, source: ASKER, vlan: None, ethertype: ETHERTYPE_ARP, link_len: 14 };

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 9, 0, last])
    }

    fn statement(last: u8, mac: MacAddress) -> Neighbour {
        Neighbour { kind: NeighbourKind::Statement, sender: Some(ip(last)), link: Some(mac), target: ip(last) }
    }

    fn question(last: u8) -> Neighbour {
        Neighbour { kind: NeighbourKind::Question, sender: Some(ip(1)), link: Some(ASKER), target: ip(last) }
    }

    #[test]
    fn what_an_owner_said_is_answered_once_in_a_while_and_not_for_ever() {
        let mut neighbours = Neighbours::default();
        let asks =
            |neighbours: &mut Neighbours, now, question| neighbours.answer(now, &FRAME, &[0; 14], &question).is_some();
        assert!(!asks(&mut neighbours, at(0), question(2)));
        neighbours.note(at(0), PEER, &FRAME, &statement(2, OWNER));
        assert!(asks(&mut neighbours, at(0), question(2)));
        assert!(!asks(&mut neighbours, at(1_000), question(2)), "the answer did not help");
        assert!(asks(&mut neighbours, at(5_000), question(2)) && !asks(&mut neighbours, at(60_000), question(2)));
        neighbours.note(at(60_000), PEER, &FRAME, &statement(2, OWNER));
        assert!(asks(&mut neighbours, at(60_000), question(2)));
        assert!(!asks(&mut neighbours, at(70_000), Neighbour { sender: None, ..question(2) }), "it wants the address");
        let in_vlan = Frame { vlan: Some(42), ..FRAME };
        assert!(neighbours.answer(at(70_000), &in_vlan, &[0; 18], &question(2)).is_none(), "another VLAN");
        neighbours.note(at(0), Place::Local, &FRAME, &statement(3, OWNER));
        assert!(!asks(&mut neighbours, at(0), question(3)), "it answers for itself");
    }

    #[test]
    fn of_two_that_claim_one_address_neither_is_believed() {
        let mut neighbours = Neighbours::default();
        neighbours.note(at(0), PEER, &FRAME, &statement(2, OWNER));
        neighbours.note(at(1), PEER, &FRAME, &statement(2, ASKER));
        assert!(neighbours.answer(at(1), &FRAME, &[0; 14], &question(2)).is_none());
        neighbours.note(at(2), PEER, &FRAME, &statement(2, ASKER));
        neighbours.note(at(70_000), PEER, &FRAME, &statement(2, OWNER));
        let answer = neighbours.answer(at(70_000), &FRAME, &[0; 14], &question(2)).unwrap();
        assert_eq!(answer[6..12], OWNER.0, "the other was forgotten");
    }

    #[test]
    fn a_flood_of_statements_fills_a_share() {
        let mut neighbours = Neighbours::default();
        for number in 0..10_000u32 {
            let address = IpAddr::from(number.to_be_bytes());
            let told = Neighbour { kind: NeighbourKind::Statement, sender: None, link: Some(OWNER), target: address };
            neighbours.note(at(0), PEER, &FRAME, &told);
        }
        assert_eq!((neighbours.entries.len(), neighbours.shares[&PEER]), (MAX_OF_ONE, MAX_OF_ONE));
        neighbours.note(at(60_000), PEER, &FRAME, &statement(2, OWNER));
        assert_eq!(neighbours.entries.len(), 1);
        neighbours.retain(|_| false);
        assert!(neighbours.entries.is_empty() && neighbours.shares.is_empty());
    }
}
