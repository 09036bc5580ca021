//! Which connections are to be looked at: those that something happened to, and those whose time has come. All others cost nothing.

use super::connection::ConnectionKey;
use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// A connection is touched, or rests until a deadline.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    touched: BTreeSet<ConnectionKey>,
    deadlines: BTreeMap<ConnectionKey, Instant>,
    /// The same, by time.
    by_time: BTreeSet<(Instant, ConnectionKey)>,
}

impl Agenda {
    /// Something happened to a connection: it may have packets again, and other things due.
    pub(super) fn touch(&mut self, key: ConnectionKey) {
        self.forget(&key);
        self.touched.insert(key);
    }

    /// A connection has nothing to do before this.
    pub(super) fn rest(&mut self, key: ConnectionKey, until: Instant) {
        self.forget(&key);
        self.deadlines.insert(key, until);
        self.by_time.insert((until, key));
    }

    /// A connection is gone.
    pub(super) fn forget(&mut self, key: &ConnectionKey) {
        self.touched.remove(key);
        if let Some(until) = self.deadlines.remove(key) {
            self.by_time.remove(&(until, *key));
        }
    }

    /// The touched connections.
    pub(super) fn touched(&self) -> impl Iterator<Item = &ConnectionKey> {
        self.touched.iter()
    }

    /// The touched connections, and those that have rested long enough.
    pub(super) fn due(&self, now: Instant) -> Vec<ConnectionKey> {
        let rested = self.by_time.iter().take_while(|(until, _)| *until <= now).map(|(_, key)| *key);
        self.touched.iter().copied().chain(rested).collect()
    }

    /// When the first one has rested long enough.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.by_time.first().map(|(until, _)| *until)
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> BTreeSet<ConnectionKey> {
        assert_eq!(self.by_time.len(), self.deadlines.len());
        self.touched.iter().chain(self.deadlines.keys()).copied().collect()
    }
}
