//! The stations behind bridging members: who claimed an address first has it, until it falls silent.
//!
//! In shards, each under a lock of its own: two threads seldom meet, and a frame of a known station writes nothing but once a second. The
//! devices of members are not in it: theirs are known from the ledger.

use super::{Place, lock};
use crate::time::Instant;
use crate::wire::drops::DropReason;
use crate::wire::frame::MacAddress;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

/// Stations that one member vouches for at most. When it has as many, new ones are refused until one falls silent.
pub const MAX_STATIONS: usize = 256;

/// How long a silent station keeps its place (802.1Q §8.8.3, recommended).
pub const SILENCE: Duration = Duration::from_secs(300);

/// How old a note of a station's last frame becomes before it is written anew.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// How often the table is searched for silent stations of a member that has its share: a flood of addresses costs one look each.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

const SHARDS: usize = 16;

/// Where a station is, and when it last spoke.
#[derive(Clone, Copy, Debug)]
struct Station {
    place: Place,
    heard: Instant,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Stations {
    shards: [Mutex<HashMap<MacAddress, Station>>; SHARDS],
    /// Held for as long as an address is added or taken away. Taken before a shard.
    shares: Mutex<HashMap<Place, Share>>,
}

/// What one member has of the table.
#[derive(Debug, Default)]
struct Share {
    count: usize,
    swept: Option<Instant>,
}

impl Stations {
    /// Finds where a station is.
    pub(super) fn place_of(&self, now: Instant, mac: MacAddress) -> Option<Place> {
        let station = lock(self.shard(mac)).get(&mac).copied();
        station.filter(|station| station.is_present(now)).map(|station| station.place)
    }

    /// Takes note of a frame from `mac` at `place`.
    ///
    /// # Errors
    /// `stranger` when it is somebody else's, [`DropReason::MacTableFull`] when the member vouches for too many.
    pub(super) fn claim(
        &self,
        now: Instant,
        place: Place,
        mac: MacAddress,
        stranger: DropReason,
    ) -> Result<(), DropReason> {
        if let Some(station) = lock(self.shard(mac)).get_mut(&mac) {
            if station.place == place {
                if now.saturating_since(station.heard) >= NOTE_INTERVAL {
                    station.heard = now;
                }
                return Ok(());
            }
            if station.is_present(now) {
                return Err(stranger);
            }
        }
        self.add(now, place, mac, stranger)
    }

    fn add(&self, now: Instant, place: Place, mac: MacAddress, stranger: DropReason) -> Result<(), DropReason> {
        let mut shares = lock(&self.shares);
        let share = shares.entry(place).or_default();
        if share.count >= MAX_STATIONS {
            let is_due = share.swept.is_none_or(|swept| now.saturating_since(swept) >= SWEEP_INTERVAL);
            if !is_due {
                return Err(DropReason::MacTableFull);
            }
            share.swept = Some(now);
            self.sweep(&mut shares, |_, station| station.is_present(now));
            if shares.get(&place).is_some_and(|share| share.count >= MAX_STATIONS) {
                return Err(DropReason::MacTableFull);
            }
        }
        let mut shard = lock(self.shard(mac));
        // Another thread may have been faster.
        match shard.get(&mac).copied() {
            Some(station) if station.place != place && station.is_present(now) => return Err(stranger),
            Some(station) if station.place == place => return Ok(()),
            Some(station) => {
                if let Some(share) = shares.get_mut(&station.place) {
                    share.count -= 1;
                }
            }
            None => {}
        }
        shard.insert(mac, Station { place, heard: now });
        shares.entry(place).or_default().count += 1;
        Ok(())
    }

    /// Forgets the stations that `keep` refuses.
    pub(super) fn retain(&self, keep: impl Fn(Place, MacAddress) -> bool) {
        self.sweep(&mut lock(&self.shares), |mac, station| keep(station.place, mac));
    }

    fn sweep(&self, shares: &mut HashMap<Place, Share>, keep: impl Fn(MacAddress, &Station) -> bool) {
        for shard in &self.shards {
            lock(shard).retain(|mac, station| {
                let is_kept = keep(*mac, station);
                if !is_kept && let Some(share) = shares.get_mut(&station.place) {
                    share.count -= 1;
                }
                is_kept
            });
        }
        shares.retain(|_, share| share.count > 0 || share.swept.is_some());
    }

    /// Lists the stations that are present, in the order of their addresses, with the time since they last spoke.
    pub(super) fn list(&self, now: Instant) -> Vec<(MacAddress, Place, Duration)> {
        let mut stations = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let present = shard.iter().filter(|(_, station)| station.is_present(now));
            stations.extend(present.map(|(mac, it)| (*mac, it.place, now.saturating_since(it.heard))));
        }
        stations.sort_unstable();
        stations
    }

    fn shard(&self, mac: MacAddress) -> &Mutex<HashMap<MacAddress, Station>> {
        // The last byte counts up in most networks. Who chooses addresses of one shard slows down the segment that vouches for it.
        &self.shards[usize::from(mac.0[5] ^ mac.0[4]) % SHARDS]
    }
}

impl Station {
    fn is_present(&self, now: Instant) -> bool {
        now.saturating_since(self.heard) < SILENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::PeerIndex;

    const ALICE: Place = Place::Peer(PeerIndex::at(0).unwrap());
    const BOB: Place = Place::Peer(PeerIndex::at(1).unwrap());
    const STRANGER: DropReason = DropReason::SourceMacNotPeers;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn station(number: u16) -> MacAddress {
        let [high, low] = number.to_be_bytes();
        MacAddress([2, 0, 0, 0, high, low])
    }

    #[test]
    fn the_first_who_claims_an_address_has_it_until_it_is_silent_for_long() {
        let stations = Stations::default();
        assert_eq!(stations.claim(at(0), ALICE, station(1), STRANGER), Ok(()));
        assert_eq!(stations.claim(at(299), BOB, station(1), STRANGER), Err(STRANGER));
        assert_eq!(stations.claim(at(299), ALICE, station(1), STRANGER), Ok(()));
        assert_eq!(stations.claim(at(598), BOB, station(1), STRANGER), Err(STRANGER), "it spoke at 299");
        assert_eq!(stations.place_of(at(598), station(1)), Some(ALICE));
        assert_eq!(stations.place_of(at(599), station(1)), None);
        assert_eq!(stations.claim(at(599), BOB, station(1), STRANGER), Ok(()));
        assert_eq!(stations.list(at(600)), [(station(1), BOB, Duration::from_secs(1))]);
    }

    #[test]
    fn a_flood_of_addresses_fills_the_share_of_its_member_alone_and_what_falls_silent_makes_room() {
        let stations = Stations::default();
        let claim = |now, place, number| stations.claim(at(now), place, station(number), STRANGER);
        let taken = (0..1_000).filter(|number| claim(0, ALICE, *number).is_ok()).count();
        assert_eq!(taken, MAX_STATIONS);
        assert_eq!(claim(0, ALICE, 2_000), Err(DropReason::MacTableFull));
        assert_eq!((claim(0, BOB, 2_000), claim(0, ALICE, 7)), (Ok(()), Ok(())));
        claim(200, ALICE, 7).unwrap();
        assert_eq!(claim(300, ALICE, 3_000), Ok(()), "all but one fell silent");
        assert_eq!(stations.list(at(300)).len(), 2);
        let taken = (4_000..5_000).filter(|number| claim(301, ALICE, *number).is_ok()).count();
        assert_eq!(taken, MAX_STATIONS - 2);
    }

    #[test]
    fn who_vouches_no_more_has_no_stations_and_gets_a_share_anew() {
        let stations = Stations::default();
        (0..256).for_each(|number| stations.claim(at(0), ALICE, station(number), STRANGER).unwrap());
        stations.retain(|place, _| place != ALICE);
        assert_eq!(stations.list(at(0)), []);
        (0..256).for_each(|number| stations.claim(at(0), BOB, station(number), STRANGER).unwrap());
        stations.retain(|_, mac| mac != station(9));
        assert_eq!(stations.claim(at(0), BOB, station(999), STRANGER), Ok(()));
    }
}
