//! The machine's clocks and its entropy, as the core takes them: values and a generator.

#![allow(unsafe_code)]

use crate::time::{Instant, Now, UnixMillis};
use rand_core::{TryCryptoRng, TryRng};
use std::convert::Infallible;
use std::time::{SystemTime, UNIX_EPOCH};

/// Reads both clocks. The monotonic one runs on while the machine is suspended (`CLOCK_BOOTTIME`), so that a key does not outlive its time.
pub fn now() -> Now {
    Now { instant: boot_time(), wall: wall_time() }
}

fn boot_time() -> Instant {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable and outlives the call.
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    assert_eq!(outcome, 0, "CLOCK_BOOTTIME exists since Linux 2.6.39");
    // The kernel counts both up from zero, tv_nsec below 10^9.
    Instant::from_micros(time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000)
}

/// A wall clock before 1970 reads as 1970.
fn wall_time() -> UnixMillis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// The kernel's generator, for every `&mut impl CryptoRng` of the core.
///
/// # Panics
/// When the kernel gives no entropy: nothing that needs a key can go on then, and nothing may go on without one.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRng;

impl TryRng for OsRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        getrandom::fill(bytes).expect("getrandom(2) waits for entropy and does not fail after that");
        Ok(())
    }
}

impl TryCryptoRng for OsRng {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::secret::Secret;

    #[test]
    fn the_monotonic_clock_advances_and_the_wall_clock_is_of_this_century() {
        let earlier = now();
        let later = now();
        assert!(later.instant >= earlier.instant && earlier.instant > Instant::ZERO);
        assert!(earlier.wall > UnixMillis(1_700_000_000_000));
    }

    #[test]
    fn the_generator_serves_the_core_and_does_not_repeat() {
        assert!(Secret::<32>::random(&mut OsRng) != Secret::<32>::random(&mut OsRng));
    }
}
