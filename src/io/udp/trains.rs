//! Which paths take trains: rows of datagrams that the kernel, or the network card, cuts.
//!
//! An interface or a driver may refuse to cut, or do it wrongly, on the way to one peer and not to another. What was seen is believed for a
//! while and then tried again: routes and drivers change. Where nothing was ever wrong, a question costs one read.

use crate::io::clock;
use crate::path::Path;
use crate::time::Instant;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Trains refused in a row after which a path gets none.
pub(super) const REFUSALS_MAX: u32 = 3;
/// How long that is believed.
pub(super) const BELIEF: Duration = Duration::from_mins(10);
/// Paths remembered; forgetting one costs it a few more refusals.
const MAX_PATHS: usize = 1024;

/// What is known of all paths.
#[derive(Default)]
pub(super) struct TrainHealth {
    /// Nobody wants trains.
    is_forgone: AtomicBool,
    /// There is something in `refusals`.
    has_refusals: AtomicBool,
    refusals: Mutex<HashMap<Path, Refusals>>,
}

/// [`REFUSALS_MAX`] of them are final, until they are not believed any more.
struct Refusals {
    in_a_row: u32,
    latest: Instant,
}

impl TrainHealth {
    /// Sends no trains any more.
    pub(super) fn forgo(&self) {
        self.is_forgone.store(true, Ordering::Relaxed);
    }

    /// Says whether trains may be sent by a path.
    pub(super) fn takes(&self, path: &Path) -> bool {
        if self.has_refusals.load(Ordering::Relaxed) {
            return !self.is_forgone.load(Ordering::Relaxed) && self.takes_at(path, clock::now().instant);
        }
        !self.is_forgone.load(Ordering::Relaxed)
    }

    fn takes_at(&self, path: &Path, now: Instant) -> bool {
        let mut refusals = self.refusals();
        let Some(known) = refusals.get(path) else { return true };
        if now.saturating_since(known.latest) < BELIEF {
            return known.in_a_row < REFUSALS_MAX;
        }
        refusals.remove(path);
        self.has_refusals.store(!refusals.is_empty(), Ordering::Relaxed);
        true
    }

    /// Takes note that the kernel refused a train and took its datagrams one by one.
    pub(super) fn refused(&self, path: Path) {
        self.note(path, 1, clock::now().instant);
    }

    /// Takes note that trains arrive damaged by a path. Returns whether it got any until now.
    pub(super) fn damaged(&self, path: Path) -> bool {
        let got_them = self.takes(&path);
        self.note(path, REFUSALS_MAX, clock::now().instant);
        got_them
    }

    fn note(&self, path: Path, refusals_more: u32, now: Instant) {
        let mut refusals = self.refusals();
        if refusals.len() >= MAX_PATHS && !refusals.contains_key(&path) {
            refusals.clear();
        }
        let known = refusals.entry(path).or_insert(Refusals { in_a_row: 0, latest: now });
        known.in_a_row = known.in_a_row.saturating_add(refusals_more);
        known.latest = now;
        self.has_refusals.store(true, Ordering::Relaxed);
    }

    /// Takes note that the kernel took a train.
    pub(super) fn taken(&self, path: &Path) {
        if self.has_refusals.load(Ordering::Relaxed) {
            let mut refusals = self.refusals();
            // One that was on its way when the path got its last refusal changes nothing.
            if refusals.get(path).is_some_and(|known| known.in_a_row < REFUSALS_MAX) {
                refusals.remove(path);
            }
            self.has_refusals.store(!refusals.is_empty(), Ordering::Relaxed);
        }
    }

    fn refusals(&self) -> MutexGuard<'_, HashMap<Path, Refusals>> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn path(port: u16) -> Path {
        Path::from(SocketAddr::from(([192, 0, 2, 1], port)))
    }

    #[test]
    fn a_path_that_refuses_is_left_alone_for_a_while_and_no_other() {
        let (health, now) = (TrainHealth::default(), Instant::ZERO);
        for _ in 0..REFUSALS_MAX {
            assert!(health.takes_at(&path(1), now));
            health.note(path(1), 1, now);
        }
        assert!(!health.takes_at(&path(1), now) && health.takes_at(&path(2), now) && health.takes(&path(2)));
        health.taken(&path(1));
        assert!(!health.takes_at(&path(1), now + BELIEF - Duration::from_secs(1)));
        assert!(health.takes_at(&path(1), now + BELIEF) && !health.has_refusals.load(Ordering::Relaxed));
    }

    #[test]
    fn a_train_that_is_taken_ends_the_row_of_refusals() {
        let (health, now) = (TrainHealth::default(), Instant::ZERO);
        for _ in 0..10 {
            health.note(path(1), 1, now);
            health.note(path(1), 1, now);
            assert!(health.takes_at(&path(1), now));
            health.taken(&path(1));
        }
        assert!(!health.has_refusals.load(Ordering::Relaxed));
        health.forgo();
        assert!(!health.takes(&path(1)));
    }

    #[test]
    fn a_path_that_damages_trains_gets_none() {
        let health = TrainHealth::default();
        assert!(health.damaged(path(1)) && !health.damaged(path(1)));
        assert!(!health.takes(&path(1)) && health.takes(&path(2)));
    }

    #[test]
    fn ever_new_paths_take_no_memory() {
        let health = TrainHealth::default();
        (0..5000).for_each(|port| health.note(path(port), 1, Instant::ZERO));
        assert!(health.refusals().len() <= MAX_PATHS);
    }
}
