//! How much each member may send to everybody.

use super::Place;
use crate::router::budget::TokenBucket;
use crate::time::Instant;
use std::collections::HashMap;

/// A budget for each member of a segment: as many of them as the segment has members.
#[derive(Debug, Default)]
pub(super) struct Storm(HashMap<Place, (u32, TokenBucket)>);

impl Storm {
    /// Takes one frame out of a member's budget of `limit` a second, which may save up one second's. Returns whether there was one.
    pub(super) fn take(&mut self, now: Instant, place: Place, limit: u32) -> bool {
        let full = (limit, TokenBucket::new(limit.into(), limit.into()));
        let budget = self.0.entry(place).or_insert(full);
        if budget.0 != limit {
            *budget = full;
        }
        budget.1.take(now, 1)
    }

    /// Forgets the budgets of who is no member any more.
    pub(super) fn retain(&mut self, keep: impl Fn(Place) -> bool) {
        self.0.retain(|place, _| keep(*place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::PeerIndex;
    use std::time::Duration;

    #[test]
    fn each_member_has_a_budget_of_its_own_and_a_new_limit_holds_at_once() {
        let (mut storm, peer) = (Storm::default(), Place::Peer(PeerIndex::at(0).unwrap()));
        let now = Instant::from_micros(1);
        let taken = |storm: &mut Storm, now, place, limit| (0..500).filter(|_| storm.take(now, place, limit)).count();
        assert_eq!(taken(&mut storm, now, peer, 100), 100);
        assert_eq!(taken(&mut storm, now, Place::Local, 100), 100);
        assert_eq!(taken(&mut storm, now + Duration::from_millis(500), peer, 100), 50);
        assert_eq!(taken(&mut storm, now + Duration::from_millis(500), peer, 20), 20);
        storm.retain(|place| place == Place::Local);
        assert_eq!(storm.0.len(), 1);
    }
}
