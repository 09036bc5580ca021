//! Which paths take trains: rows of datagrams that the kernel, or the network card, cuts.
//!
//! An interface or a driver may refuse to cut, or do it wrongly, on the way to one peer and not to another. What was seen is believed for a
//! while and then tried again: routes and drivers change. Where nothing is wrong, a question costs two reads of memory.

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
/// Paths remembered; the oldest is forgotten, and has to be refused or damaged anew.
const MAX_PATHS: usize = 4096;
/// How often what is not believed any more is forgotten.
const SWEEP: Duration = Duration::from_secs(10);

/// What is known of all paths.
#[derive(Default)]
pub(super) struct TrainHealth {
    /// Nobody wants trains.
    is_forgone: AtomicBool,
    /// There is something in `refusals`.
    has_refusals: AtomicBool,
    refusals: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_path: HashMap<Path, Refusals>,
    swept_at: Option<Instant>,
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
        let is_unknown = !self.has_refusals.load(Ordering::Relaxed);
        !self.is_forgone() && (is_unknown || self.takes_at(path, clock::now().instant))
    }

    fn takes_at(&self, path: &Path, now: Instant) -> bool {
        let mut known = self.known();
        let is_due = known.swept_at.is_none_or(|swept| now.saturating_since(swept) >= SWEEP);
        if is_due {
            known.swept_at = Some(now);
            known.by_path.retain(|_, refusals| refusals.are_believed(now));
            self.has_refusals.store(!known.by_path.is_empty(), Ordering::Relaxed);
        }
        let refusals = known.by_path.get(path).filter(|refusals| refusals.are_believed(now));
        refusals.is_none_or(|refusals| refusals.in_a_row < REFUSALS_MAX)
    }

    /// Says whether nobody wants trains.
    pub(super) fn is_forgone(&self) -> bool {
        self.is_forgone.load(Ordering::Relaxed)
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
        let mut known = self.known();
        let by_path = &mut known.by_path;
        if by_path.len() >= MAX_PATHS && !by_path.contains_key(&path) {
            let oldest = by_path.iter().min_by_key(|(_, refusals)| refusals.latest).map(|(path, _)| *path);
            oldest.map(|oldest| by_path.remove(&oldest));
        }
        let refusals = by_path.entry(path).or_insert(Refusals { in_a_row: 0, latest: now });
        let before = if refusals.are_believed(now) { refusals.in_a_row } else { 0 };
        *refusals = Refusals { in_a_row: before.saturating_add(refusals_more), latest: now };
        self.has_refusals.store(true, Ordering::Relaxed);
    }

    /// Takes note that the kernel took a train.
    pub(super) fn taken(&self, path: &Path) {
        if self.has_refusals.load(Ordering::Relaxed) {
            let mut known = self.known();
            // One that was on its way when the path got its last refusal changes nothing.
            if known.by_path.get(path).is_some_and(|refusals| refusals.in_a_row < REFUSALS_MAX) {
                known.by_path.remove(path);
            }
            self.has_refusals.store(!known.by_path.is_empty(), Ordering::Relaxed);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refusals {
    fn are_believed(&self, now: Instant) -> bool {
        now.saturating_since(self.latest) < BELIEF
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
        assert!(!health.takes_at(&path(1), now) && health.takes_at(&path(2), now));
        health.taken(&path(1));
        assert!(!health.takes_at(&path(1), now + BELIEF - Duration::from_secs(1)));
        assert!(health.takes_at(&path(1), now + BELIEF));
        assert!(health.takes_at(&path(1), now + BELIEF + SWEEP) && !health.has_refusals.load(Ordering::Relaxed));
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
        (0..5000u16).for_each(|port| health.note(path(port), REFUSALS_MAX, Instant::from_micros(port.into())));
        assert_eq!(health.known().by_path.len(), MAX_PATHS);
        let now = Instant::from_micros(5000);
        assert!(health.takes_at(&path(0), now) && !health.takes_at(&path(4999), now), "the oldest goes");
        // Whatever path is asked about, what nobody believes any more is forgotten, and costs nothing.
        assert!(health.takes_at(&path(9999), now + BELIEF) && !health.has_refusals.load(Ordering::Relaxed));
    }
}
