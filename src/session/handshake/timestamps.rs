//! Initiations grow: each has a later timestamp than all before it, so that a replayed one is known.
//!
//! Compared in memory at D1, stored after D3 (a stranger's replay writes nothing to disk). A D1 that was lost between the two can come
//! again after a restart: it makes a tentative session that nobody confirms.

use crate::crypto::exchange::TransportKey;
use crate::time::UnixMillis;
use crate::wire::handshake::Timestamp;
use std::collections::BTreeMap;

/// Static keys whose last timestamp is remembered. Only members are, so this is above any network's size;
/// past it the key whose timestamp is the oldest is forgotten.
pub const MAX_KEYS: usize = 65_536;

/// Makes the timestamps of the initiations that this node sends.
#[derive(Debug, Default)]
pub struct TimestampSource {
    last: Timestamp,
}

impl TimestampSource {
    /// Goes on after `last`, the highest timestamp that an earlier run may have used.
    pub fn after(last: Timestamp) -> Self {
        Self { last }
    }

    /// Returns max(wall clock, last + 1).
    pub fn next(&mut self, wall: UnixMillis) -> Timestamp {
        self.last = self.last.successor().max(Timestamp { wall, step: 0 });
        self.last
    }

    /// Returns the highest timestamp used, for the store.
    pub fn last(&self) -> Timestamp {
        self.last
    }
}

/// The latest timestamp seen of each member's key.
#[derive(Debug, Default)]
pub(super) struct TimestampTable {
    latest: BTreeMap<TransportKey, Timestamp>,
}

impl TimestampTable {
    /// Says whether an initiation is later than every one of the same key before it.
    pub(super) fn is_later(&self, key: &TransportKey, timestamp: Timestamp) -> bool {
        self.latest.get(key).is_none_or(|latest| timestamp > *latest)
    }

    /// Remembers a timestamp, unless a later one is known.
    pub(super) fn record(&mut self, key: TransportKey, timestamp: Timestamp) {
        if !self.is_later(&key, timestamp) {
            return;
        }
        if self.latest.len() >= MAX_KEYS && !self.latest.contains_key(&key) {
            let oldest = self.latest.iter().min_by_key(|(_, timestamp)| **timestamp).map(|(key, _)| *key);
            oldest.and_then(|key| self.latest.remove(&key));
        }
        self.latest.insert(key, timestamp);
    }

    /// Iterates over everything remembered.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&TransportKey, &Timestamp)> {
        self.latest.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_grow_while_the_clock_stands_or_falls_back() {
        let mut source = TimestampSource::default();
        let first = source.next(UnixMillis(1000));
        let second = source.next(UnixMillis(1000));
        let third = source.next(UnixMillis(5));
        assert!(first < second && second < third);
        assert_eq!(source.next(UnixMillis(1001)), Timestamp { wall: UnixMillis(1001), step: 0 });
        let last = Timestamp { wall: UnixMillis(2000), step: u32::MAX };
        assert_eq!(TimestampSource::after(last).next(UnixMillis(0)), Timestamp { wall: UnixMillis(2001), step: 0 });
    }

    #[test]
    fn only_a_later_timestamp_is_later() {
        let mut table = TimestampTable::default();
        let (key, at) = (TransportKey([1; 32]), |millis| Timestamp { wall: UnixMillis(millis), step: 0 });
        assert!(table.is_later(&key, at(5)));
        table.record(key, at(5));
        table.record(key, at(3));
        assert!(!table.is_later(&key, at(5)) && !table.is_later(&key, at(4)) && table.is_later(&key, at(6)));
    }
}
