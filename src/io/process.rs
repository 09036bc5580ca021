//! What the process asks of the kernel about itself.

#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

/// Makes the process leave no core dump and lets no other process of the same user read its memory: there are keys in it.
///
/// # Errors
/// The kernel's; then keys may reach the disk, and the caller says so.
pub fn forbid_core_dumps() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is readable and outlives the call.
    let limited = succeeded(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) });
    // A dump that goes to a pipe (core_pattern) ignores the limit; this flag it does not.
    // SAFETY: PR_SET_DUMPABLE takes an integer and touches no memory.
    let hidden = succeeded(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0 as libc::c_ulong) });
    // Each is worth having without the other.
    limited.and(hidden)
}

/// Asks the scheduler to run the calling thread in short turns: it then comes to its turn sooner when it wakes, before what has long ones, and
/// gets no more of the processor by that. Linux has done so since 6.12, from 0.1 to 100 ms; before, it takes the wish and does nothing.
///
/// # Errors
/// The kernel's; the thread then runs as all others do.
pub fn ask_for_short_turns(turn: Duration) -> io::Result<()> {
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: all fields are integers.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes `size` bytes at most, which are there.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    succeeded(read as libc::c_int)?;
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        // Somebody made it a real-time thread, or one for batches.
        return Ok(());
    }
    attributes.sched_runtime = u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel reads as many bytes as `attributes` says of itself.
    succeeded(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } as libc::c_int)
}

fn succeeded(outcome: libc::c_int) -> io::Result<()> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Returns the user that the process acts as; 0 is root.
pub fn effective_user() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn core_dumps_are_off_afterwards() {
        forbid_core_dumps().unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        // SAFETY: PR_GET_DUMPABLE and PR_SET_DUMPABLE touch no memory.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, 0);

        // Where the limit is refused, the memory is hidden all the same. Here, since the flag is the whole process's.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1 as libc::c_ulong) }, 0);
        let outcome = thread::spawn(|| {
            refuse_limits();
            forbid_core_dumps()
        });
        assert_eq!(outcome.join().unwrap().unwrap_err().raw_os_error(), Some(libc::EPERM));
        // SAFETY: as above.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, 0);
    }

    #[test]
    fn a_thread_runs_in_the_turns_that_it_asked_for() {
        let slice = thread::spawn(|| {
            ask_for_short_turns(Duration::from_micros(300)).unwrap();
            // SAFETY: gettid takes nothing and cannot fail.
            let thread = unsafe { libc::gettid() };
            std::fs::read_to_string(format!("/proc/self/task/{thread}/sched")).unwrap()
        });
        let text = slice.join().unwrap();
        let slice = text.lines().find(|line| line.starts_with("se.slice"));
        // Kernels before 6.12 have none.
        assert!(slice.is_none_or(|line| line.ends_with(" 300000")), "{slice:?}");
    }

    /// Has the kernel refuse changes of limits to the calling thread, for good.
    fn refuse_limits() {
        let statement = |code: u32, k, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
        let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        let mut filter = [
            // The number of the system call is the first field of seccomp_data (seccomp(2)).
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_prlimit64 as u32, 0, 1),
            statement(libc::BPF_RET | libc::BPF_K, refused, 0, 0),
            statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the first takes integers; the second reads the program, which outlives the call.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as libc::c_ulong, 0, 0, 0), 0);
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
        }
    }
}
