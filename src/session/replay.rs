//! Nothing is delivered twice: one window of 8192 bits per lane (RFC 6479).
//!
//! A check before the AEAD spares work and proves nothing; [`LaneWindows::mark`] after it is a test-and-set under the lane's lock, so that of
//! two threads with the same packet exactly one delivers it. What came in a lane is counted under that lock, too: a packet in order
//! costs one lock and no other shared write.

use crate::wire::datagram::{Counter, Lane};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Bits of one window. The word that the newest counter lies in is only partly past, so 8128 counters behind it are always told apart.
pub const WINDOW_BITS: u64 = 8192;
/// Lanes of one key that have a window. A packet of another one is refused.
pub const MAX_LANES: usize = 32;

const WORD_BITS: u64 = 64;
const WORDS: usize = (WINDOW_BITS / WORD_BITS) as usize;

/// Why a counter is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The counter came before.
    #[error("the packet came before")]
    Repeated,
    /// The counter lies before the window, where nobody knows whether it came.
    #[error("the packet is older than the replay window")]
    TooOld,
    /// The key has windows for [`MAX_LANES`] lanes already.
    #[error("the packet's lane is one too many")]
    TooManyLanes,
}

/// The authentic packets that came, each once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Came {
    /// How many.
    pub packets: u64,
    /// Bytes of their datagrams.
    pub bytes: u64,
}

/// The counters of one lane that came, as far back as the window reaches.
pub struct ReplayWindow {
    /// One more than the highest counter that came.
    next: u64,
    words: Box<[u64; WORDS]>,
    came: Came,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { next: 0, words: Box::new([0; WORDS]), came: Came::default() }
    }
}

impl ReplayWindow {
    /// Says whether `counter` may still be marked.
    ///
    /// # Errors
    /// [`ReplayError::Repeated`] or [`ReplayError::TooOld`].
    pub fn check(&self, counter: Counter) -> Result<(), ReplayError> {
        if counter.0 >= self.next {
            return Ok(());
        }
        if self.next - counter.0 > WINDOW_BITS - WORD_BITS {
            return Err(ReplayError::TooOld);
        }
        let (word, bit) = place(counter);
        if self.words[word] & bit == 0 { Ok(()) } else { Err(ReplayError::Repeated) }
    }

    /// Checks and marks `counter` in one step.
    ///
    /// # Errors
    /// As [`ReplayWindow::check`]; the window is then as before.
    pub fn mark(&mut self, counter: Counter) -> Result<(), ReplayError> {
        self.check(counter)?;
        if counter.0 >= self.next {
            // RFC 6479 §3: the words between the old and the new front are cleared, at most all of them.
            let first = self.next.div_ceil(WORD_BITS);
            let last = counter.0 / WORD_BITS;
            for word in (first..=last).take(WORDS) {
                self.words[(word % WORDS as u64) as usize] = 0;
            }
            self.next = counter.0.saturating_add(1);
        }
        let (word, bit) = place(counter);
        self.words[word] |= bit;
        Ok(())
    }
}

fn place(counter: Counter) -> (usize, u64) {
    ((counter.0 / WORD_BITS % WORDS as u64) as usize, 1 << (counter.0 % WORD_BITS))
}

/// A window behind a lock: a `std` mutex, or the one of a model checker.
pub trait Guarded: Send + Sync {
    /// Puts a window behind a new lock.
    fn guard(window: ReplayWindow) -> Self;
    /// Works on the window, alone.
    fn with<R>(&self, work: impl FnOnce(&mut ReplayWindow) -> R) -> R;
}

impl Guarded for Mutex<ReplayWindow> {
    fn guard(window: ReplayWindow) -> Self {
        Self::new(window)
    }

    fn with<R>(&self, work: impl FnOnce(&mut ReplayWindow) -> R) -> R {
        // A thread that panicked inside left at worst one counter unmarked or some bits cleared early: still a window.
        work(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The window of one lane, and what is known of it without its lock.
struct LaneWindow<G> {
    window: G,
    /// One more than a counter that came: none from here on did, as far as was seen.
    fresh_from: AtomicU64,
}

/// The windows of one key's lanes, shared by all receiving threads.
pub struct LaneWindows<G = Mutex<ReplayWindow>> {
    windows: Box<[OnceLock<LaneWindow<G>>; 256]>,
    /// The lanes that have one: the few of very many.
    allocated: Mutex<Vec<u8>>,
}

impl<G: Guarded> Default for LaneWindows<G> {
    fn default() -> Self {
        Self { windows: Box::new([const { OnceLock::new() }; 256]), allocated: Mutex::default() }
    }
}

impl<G: Guarded> LaneWindows<G> {
    /// Says, before the AEAD, whether it is worth opening the packet.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn check(&self, lane: Lane, counter: Counter) -> Result<(), ReplayError> {
        match self.windows[usize::from(lane.0)].get() {
            Some(lane) if counter.0 >= lane.fresh_from.load(Ordering::Relaxed) => Ok(()),
            Some(lane) => lane.window.with(|window| window.check(counter)),
            None if self.allocated() >= MAX_LANES => Err(ReplayError::TooManyLanes),
            None => Ok(()),
        }
    }

    /// Takes an authenticated packet's counter and its bytes. Whoever gets `Ok` delivers; nobody else does.
    ///
    /// # Errors
    /// [`ReplayError`]: the packet is dropped.
    pub fn mark(&self, lane: Lane, counter: Counter, bytes: usize) -> Result<(), ReplayError> {
        let slot = &self.windows[usize::from(lane.0)];
        let lane = match slot.get() {
            Some(window) => window,
            None => self.allocate(slot, lane)?,
        };
        lane.window.with(|window| {
            window.mark(counter)?;
            window.came.packets += 1;
            window.came.bytes += bytes as u64;
            lane.fresh_from.store(window.next, Ordering::Relaxed);
            Ok(())
        })
    }

    /// Returns what came in all lanes.
    pub fn came(&self) -> Came {
        let allocated = self.lanes();
        let lanes = allocated.iter().filter_map(|lane| self.windows[usize::from(*lane)].get());
        lanes.map(|lane| lane.window.with(|window| window.came)).fold(Came::default(), |sum, lane| Came {
            packets: sum.packets + lane.packets,
            bytes: sum.bytes + lane.bytes,
        })
    }

    /// Returns how many lanes have a window.
    pub fn allocated(&self) -> usize {
        self.lanes().len()
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.allocated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allocate<'a>(&self, slot: &'a OnceLock<LaneWindow<G>>, lane: Lane) -> Result<&'a LaneWindow<G>, ReplayError> {
        let mut allocated = self.lanes();
        if slot.get().is_none() {
            if allocated.len() >= MAX_LANES {
                return Err(ReplayError::TooManyLanes);
            }
            allocated.push(lane.0);
        }
        let lane = || LaneWindow { window: G::guard(ReplayWindow::default()), fresh_from: AtomicU64::new(0) };
        Ok(slot.get_or_init(lane))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The window as it is meant: a set, and what lies too far behind its end.
    #[derive(Default)]
    struct Model {
        came: BTreeSet<u64>,
    }

    impl Model {
        fn mark(&mut self, counter: u64) -> Result<(), ReplayError> {
            let next = self.came.last().map_or(0, |last| last + 1);
            if counter + (WINDOW_BITS - WORD_BITS) < next {
                return Err(ReplayError::TooOld);
            }
            if self.came.insert(counter) { Ok(()) } else { Err(ReplayError::Repeated) }
        }
    }

    /// Counters around a front that moves by steps of every size, some of them back to where the window ends.
    fn counters() -> impl Strategy<Value = Vec<u64>> {
        // Most steps are short, so that words fill up; jumps by about a whole turn then meet the bits of the turn before.
        let step = prop_oneof![
            20 => -70..20i64,
            3 => 8100..8300i64,
            1 => -8200..8200i64,
            1 => -8130..-8126i64,
            1 => 0..40_000i64,
            1 => Just(1 << 27)
        ];
        prop::collection::vec(step, 1..200).prop_map(|steps| {
            let mut front = 0i64;
            steps
                .into_iter()
                .map(|step| {
                    let counter = (front + step).max(0);
                    front = front.max(counter);
                    counter as u64
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn the_window_is_a_set_as_far_back_as_it_reaches(counters in counters()) {
            let (mut window, mut model) = (ReplayWindow::default(), Model::default());
            for counter in counters {
                let expected = model.mark(counter);
                prop_assert_eq!(window.check(Counter(counter)), expected);
                prop_assert_eq!(window.mark(Counter(counter)), expected);
            }
        }
    }

    #[test]
    fn the_window_reaches_8128_counters_back() {
        let mut window = ReplayWindow::default();
        window.mark(Counter(20_000)).unwrap();
        assert_eq!(window.mark(Counter(20_001 - 8128)), Ok(()));
        assert_eq!(window.mark(Counter(20_001 - 8129)), Err(ReplayError::TooOld));
        assert_eq!(window.mark(Counter(u64::MAX - 1)), Ok(()));
        assert_eq!(window.mark(Counter(u64::MAX - 1)), Err(ReplayError::Repeated));
    }

    #[test]
    fn a_lane_has_its_own_window_and_there_are_at_most_32() {
        let windows: LaneWindows = LaneWindows::default();
        assert_eq!(windows.check(Lane(200), Counter(1)), Ok(()));
        assert_eq!(windows.allocated(), 0);
        for lane in 0..MAX_LANES as u8 {
            assert_eq!(windows.mark(Lane(lane), Counter(1), 10), Ok(()));
        }
        assert_eq!(windows.mark(Lane(3), Counter(1), 10), Err(ReplayError::Repeated));
        assert_eq!(windows.check(Lane(200), Counter(1)), Err(ReplayError::TooManyLanes));
        assert_eq!(windows.mark(Lane(200), Counter(1), 10), Err(ReplayError::TooManyLanes));
        assert_eq!(windows.allocated(), MAX_LANES);
        assert_eq!(windows.came(), Came { packets: MAX_LANES as u64, bytes: 10 * MAX_LANES as u64 });
        for (counter, expected) in [(0, Ok(())), (1, Err(ReplayError::Repeated)), (2, Ok(()))] {
            assert_eq!(windows.check(Lane(3), Counter(counter)), expected);
        }
    }

    impl Guarded for shuttle::sync::Mutex<ReplayWindow> {
        fn guard(window: ReplayWindow) -> Self {
            Self::new(window)
        }

        fn with<R>(&self, work: impl FnOnce(&mut ReplayWindow) -> R) -> R {
            work(&mut self.lock().unwrap())
        }
    }

    #[test]
    fn of_two_threads_with_the_same_packet_exactly_one_delivers_it() {
        let scheduler = shuttle::scheduler::DfsScheduler::new(None, false);
        let schedules = shuttle::Runner::new(scheduler, shuttle::Config::default()).run(|| {
            let windows = Arc::new(LaneWindows::<shuttle::sync::Mutex<ReplayWindow>>::default());
            windows.mark(Lane::NODE, Counter(5), 10).unwrap();
            let delivered = Arc::new(AtomicUsize::new(0));
            let threads = [(); 2].map(|()| {
                let (windows, delivered) = (Arc::clone(&windows), Arc::clone(&delivered));
                shuttle::thread::spawn(move || {
                    let hint = windows.check(Lane::NODE, Counter(7));
                    if hint.is_ok() && windows.mark(Lane::NODE, Counter(7), 10).is_ok() {
                        delivered.fetch_add(1, Ordering::Relaxed);
                    }
                })
            });
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(delivered.load(Ordering::Relaxed), 1);
        });
        assert!(schedules > 1, "the model checker saw {schedules} schedules");
    }
}
