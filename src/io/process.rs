//! What the process asks of the kernel about itself.

#![allow(unsafe_code)]

use std::io;

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
