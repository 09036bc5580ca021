//! Who listens to which multicast group, as hosts say to the routers that ask (IGMP, MLD): a frame goes to listeners alone.
//!
//! Only while somebody asks: without a querier hosts speak up once, when they join, and who believed that for ever would cut off who came
//! later (RFC 4541 §2.1.1). Then, and for groups of the link itself, a frame goes to everybody.

use super::Place;
use crate::time::Instant;
use crate::wire::frame::MacAddress;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// How long a listener is believed: the group membership interval, two queries missed and an answer late (RFC 3376 §8.4).
const LISTENER_LIFETIME: Duration = Duration::from_secs(260);
/// How long a querier is believed (RFC 3376 §8.5).
const QUERIER_LIFETIME: Duration = Duration::from_secs(255);
/// Groups of one segment, and of one member's listeners, at most. When full, what is not in the table goes to everybody.
const MAX_GROUPS: usize = 1024;
const MAX_GROUPS_OF_ONE: usize = 256;

/// The table of one segment.
#[derive(Debug, Default)]
pub(super) struct Groups {
    listeners: HashMap<MacAddress, HashMap<Place, Instant>>,
    /// Groups of each member.
    shares: HashMap<Place, usize>,
    /// Who asked lately, of IPv4 and of IPv6: behind it is a router, which gets everything.
    queriers: [HashMap<Place, Instant>; 2],
    /// Until when the table is too small to rely on.
    overflows_until: Instant,
}

impl Groups {
    /// Takes a report.
    pub(super) fn report(&mut self, now: Instant, place: Place, groups: &[(MacAddress, bool)]) {
        for (group, listens) in groups {
            if *listens {
                self.join(now, place, *group);
            }
            // Who leaves may not be the last of its place: it is forgotten when nobody there answers any more.
        }
    }

    fn join(&mut self, now: Instant, place: Place, group: MacAddress) {
        if is_for_everybody(group) {
            return;
        }
        if let Some(until) = self.listeners.get_mut(&group).and_then(|places| places.get_mut(&place)) {
            *until = now + LISTENER_LIFETIME;
            return;
        }
        if self.is_full(place, group) {
            self.forget_late(now);
        }
        if self.is_full(place, group) {
            self.overflows_until = now + LISTENER_LIFETIME;
            return;
        }
        self.listeners.entry(group).or_default().insert(place, now + LISTENER_LIFETIME);
        *self.shares.entry(place).or_default() += 1;
    }

    /// Takes a question of a router's.
    pub(super) fn query(&mut self, now: Instant, place: Place, is_v6: bool, is_general: bool) {
        if is_general {
            self.queriers[usize::from(is_v6)].insert(place, now + QUERIER_LIFETIME);
        }
    }

    /// Lists who is to get a frame to a group; `None`: everybody.
    pub(super) fn listeners(&self, now: Instant, group: MacAddress) -> Option<Vec<Place>> {
        let queriers = self.queriers.get(family(group)?)?;
        let routers: Vec<_> = present(queriers, now).collect();
        let is_reliable = !routers.is_empty() && !is_for_everybody(group) && now >= self.overflows_until;
        is_reliable.then(|| {
            let listeners = self.listeners.get(&group).into_iter().flat_map(|places| present(places, now));
            routers.into_iter().chain(listeners).collect::<BTreeSet<_>>().into_iter().collect()
        })
    }

    /// Says whether somebody at `place` listens to a group.
    pub(super) fn is_listener(&self, now: Instant, group: MacAddress, place: Place) -> bool {
        self.listeners.get(&group).and_then(|places| places.get(&place)).is_some_and(|until| now < *until)
    }

    /// Forgets who is no member any more.
    pub(super) fn retain(&mut self, keep: impl Fn(Place) -> bool) {
        self.queriers.iter_mut().for_each(|queriers| queriers.retain(|place, _| keep(*place)));
        self.retain_listeners(|place, _| keep(place));
    }

    fn forget_late(&mut self, now: Instant) {
        self.retain_listeners(|_, until| now < until);
    }

    fn retain_listeners(&mut self, keep: impl Fn(Place, Instant) -> bool) {
        let shares = &mut self.shares;
        shares.clear();
        self.listeners.retain(|_, places| {
            places.retain(|place, until| keep(*place, *until));
            places.keys().for_each(|place| *shares.entry(*place).or_default() += 1);
            !places.is_empty()
        });
    }

    fn is_full(&self, place: Place, group: MacAddress) -> bool {
        let is_new = !self.listeners.contains_key(&group);
        is_new && self.listeners.len() >= MAX_GROUPS
            || self.shares.get(&place).is_some_and(|count| *count >= MAX_GROUPS_OF_ONE)
    }
}

/// Which family's group an address is, 0 for IPv4; `None` for any other.
fn family(group: MacAddress) -> Option<usize> {
    match group.0 {
        [0x01, 0x00, 0x5e, high, ..] if high < 0x80 => Some(0),
        [0x33, 0x33, ..] => Some(1),
        _ => None,
    }
}

/// Groups of the link, to which hosts listen without a word, or on which everything else rests: 224.0.0.x, ff02::1 and the like, and the
/// groups of neighbour discovery, ff02::1:ffxx:xxxx.
fn is_for_everybody(group: MacAddress) -> bool {
    match group.0 {
        [0x01, 0x00, 0x5e, 0, 0, _] | [0x33, 0x33, 0xff, ..] | [0x33, 0x33, 0, 0, 0, _] => true,
        _ => family(group).is_none(),
    }
}

fn present(places: &HashMap<Place, Instant>, now: Instant) -> impl Iterator<Item = Place> {
    places.iter().filter(move |(_, until)| now < **until).map(|(place, _)| *place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::PeerIndex;

    const GROUP: MacAddress = MacAddress([1, 0, 0x5e, 1, 2, 3]);
    const OTHER: MacAddress = MacAddress([0x33, 0x33, 1, 2, 3, 4]);

    fn peer(position: u32) -> Place {
        Place::Peer(PeerIndex::at(position).unwrap())
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_group_goes_to_its_listeners_and_to_routers_while_somebody_asks() {
        let mut groups = Groups::default();
        groups.report(at(0), peer(1), &[(GROUP, true)]);
        assert_eq!(groups.listeners(at(0), GROUP), None, "nobody asks");
        groups.query(at(0), peer(2), false, false);
        assert_eq!(groups.listeners(at(0), GROUP), None, "nobody asks for all");
        groups.query(at(0), peer(2), false, true);
        assert_eq!(groups.listeners(at(0), GROUP), Some(vec![peer(1), peer(2)]));
        assert_eq!(groups.listeners(at(0), MacAddress([1, 0, 0x5e, 9, 9, 9])), Some(vec![peer(2)]));
        assert_eq!(groups.listeners(at(0), OTHER), None, "nobody asks of IPv6");
        for everybody in [[1, 0, 0x5e, 0, 0, 251], [0x33, 0x33, 0, 0, 0, 251], [0x33, 0x33, 0xff, 1, 2, 3], [0xff; 6]] {
            assert_eq!(groups.listeners(at(0), MacAddress(everybody)), None);
        }
        groups.query(at(254), peer(2), false, true);
        assert_eq!(groups.listeners(at(260), GROUP), Some(vec![peer(2)]), "it did not answer");
        assert_eq!(groups.listeners(at(254 + 255), GROUP), None, "the router fell silent");
    }

    #[test]
    fn a_flood_of_groups_fills_a_share_and_then_everybody_gets_everything() {
        let mut groups = Groups::default();
        groups.query(at(0), peer(9), false, true);
        let group = |number: u16| MacAddress([1, 0, 0x5e, 1, (number >> 8) as u8, number as u8]);
        for place in 0..8 {
            for number in 0..1_000 {
                groups.report(at(0), peer(place), &[(group(place as u16 * 1_000 + number), true)]);
            }
        }
        assert_eq!(groups.listeners.len(), MAX_GROUPS);
        assert_eq!(groups.shares.values().copied().max(), Some(MAX_GROUPS_OF_ONE));
        assert_eq!(groups.listeners(at(0), group(0)), None);
        groups.query(at(250), peer(9), false, true);
        groups.report(at(261), peer(1), &[(GROUP, true)]);
        assert_eq!(groups.listeners(at(261), GROUP), Some(vec![peer(1), peer(9)]), "it is small again");
        groups.retain(|place| place != peer(1));
        assert_eq!((groups.listeners.len(), groups.shares.len()), (0, 0));
    }
}
