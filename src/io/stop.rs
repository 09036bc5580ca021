//! The way to end a thread that waits for the kernel: an eventfd that every wait looks at as well.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Tells any number of waiting threads to end. Cheap to clone; once triggered, it stays so.
#[derive(Clone, Debug)]
pub struct StopSignal(Arc<Signal>);

#[derive(Debug)]
struct Signal {
    eventfd: OwnedFd,
    is_triggered: AtomicBool,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The descriptor is ready, or has an error to fetch.
    Ready,
    /// The time is over.
    TimedOut,
    /// The stop signal was triggered.
    Stopped,
}

impl StopSignal {
    /// Makes a signal that nobody triggered yet.
    ///
    /// # Errors
    /// The kernel's, when no descriptor is to be had.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; a non-negative result is a descriptor that nobody else owns.
        let eventfd = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self(Arc::new(Signal { eventfd, is_triggered: AtomicBool::new(false) })))
    }

    /// Ends every wait on this signal and its clones, present and future.
    pub fn trigger(&self) {
        self.0.is_triggered.store(true, Ordering::Release);
        let one = 1u64.to_ne_bytes();
        // SAFETY: `one` is 8 readable bytes, as eventfd demands. Nobody ever reads the counter: it saturates and stays readable.
        unsafe { libc::write(self.0.eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Says whether the signal was triggered, without asking the kernel: for loops that have no need to wait.
    pub fn is_triggered(&self) -> bool {
        self.0.is_triggered.load(Ordering::Acquire)
    }

    /// Lends the descriptor, which is readable once the signal is triggered.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.eventfd.as_fd()
    }

    /// Waits until `fd` is readable or the signal is triggered, at most `timeout` (`None`: without end).
    pub(super) fn wait(&self, fd: BorrowedFd<'_>, timeout: Option<Duration>) -> Wake {
        poll(&mut [readable(self.0.eventfd.as_raw_fd()), readable(fd.as_raw_fd())], timeout)
    }

    /// Waits `timeout`, unless the signal is triggered before.
    pub fn sleep(&self, timeout: Duration) -> Wake {
        poll(&mut [readable(self.0.eventfd.as_raw_fd())], Some(timeout))
    }
}

/// Waits until one of `fds` is readable, or one of the two signals is triggered. Says in `ready` which of `fds` are, one word for each.
/// [`Wake::Stopped`] is of `stop` alone.
pub(super) fn wait_any(stop: &StopSignal, other: &StopSignal, fds: &[BorrowedFd<'_>], ready: &mut Vec<bool>) -> Wake {
    let signals = [stop, other].map(|signal| readable(signal.0.eventfd.as_raw_fd()));
    let mut all: Vec<_> = signals.into_iter().chain(fds.iter().map(|fd| readable(fd.as_raw_fd()))).collect();
    let wake = poll(&mut all, None);
    ready.clear();
    ready.extend(all[signals.len()..].iter().map(|fd| fd.revents != 0));
    wake
}

fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Polls `fds`, the first of which is the eventfd. A wait cut short by a signal handler counts as [`Wake::TimedOut`]: callers loop.
fn poll(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> Wake {
    let millis = timeout.map_or(-1, |span| i32::try_from(span.as_millis()).unwrap_or(i32::MAX));
    // SAFETY: `fds` is a writable array of the length given; the descriptors in it are borrowed by the callers for this call.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) };
    if ready <= 0 {
        return Wake::TimedOut;
    }
    if fds[0].revents != 0 { Wake::Stopped } else { Wake::Ready }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_trigger_ends_a_wait_in_another_thread_and_every_later_one() {
        let stop = StopSignal::new().unwrap();
        assert!(!stop.is_triggered());
        let waiting = thread::spawn({
            let stop = stop.clone();
            move || stop.sleep(Duration::from_secs(60))
        });
        stop.trigger();
        assert_eq!(waiting.join().unwrap(), Wake::Stopped);
        assert_eq!(stop.sleep(Duration::from_secs(60)), Wake::Stopped);
        assert!(stop.is_triggered());
    }

    #[test]
    fn of_several_descriptors_the_readable_ones_are_told_and_either_signal_ends_the_wait() {
        use std::io::Write;
        use std::os::fd::AsFd;
        let [stop, other] = [(); 2].map(|()| StopSignal::new().unwrap());
        let pipes = [(); 3].map(|()| std::io::pipe().unwrap());
        let fds: Vec<_> = pipes.iter().map(|(reader, _)| reader.as_fd()).collect();
        let mut ready = vec![true; 9];
        (&pipes[1].1).write_all(b"x").unwrap();
        assert_eq!(wait_any(&stop, &other, &fds, &mut ready), Wake::Ready);
        assert_eq!(ready, [false, true, false]);
        other.trigger();
        assert_eq!(wait_any(&stop, &other, &[], &mut ready), Wake::Ready);
        assert!(ready.is_empty());
        stop.trigger();
        assert_eq!(wait_any(&stop, &other, &fds, &mut ready), Wake::Stopped);
    }

    #[test]
    fn a_readable_descriptor_ends_a_wait_and_an_idle_one_does_not() {
        use std::io::Write;
        use std::os::fd::AsFd;
        let stop = StopSignal::new().unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let brief = Some(Duration::from_millis(1));
        assert_eq!(stop.wait(reader.as_fd(), brief), Wake::TimedOut);
        writer.write_all(b"x").unwrap();
        assert_eq!(stop.wait(reader.as_fd(), None), Wake::Ready);
        stop.trigger();
        assert_eq!(stop.wait(reader.as_fd(), None), Wake::Stopped);
    }
}
