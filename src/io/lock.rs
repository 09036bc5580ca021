//! One process at a time: a lock file that the kernel releases when its holder ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest text of a lock file that is read: a process id.
const HOLDER_MAX: u64 = 20;

/// How long a lock whose holder is dead may still be held by a child of it, and how often that is looked at: a child becomes another program
/// within milliseconds.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(2);
const ORPHAN_LOOK: Duration = Duration::from_millis(5);

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{} is in use by process {holder}: one daemon per network; stop that one, or use another state folder", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The holder's process id, as it wrote it.
        holder: String,
    },
    /// The file cannot be opened or locked.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// A held lock. Dropping it, or the death of the process, releases it; the file stays.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Takes the lock at `path`, creating the file. Waits for nobody but the dead: a child of a holder that was killed, which has not begun its
    /// own program yet, has the lock for a moment longer.
    ///
    /// # Errors
    /// [`LockError::Held`] names the process that has it.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(path).map_err(failed)?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) => {}
            }
            let holder = holder(&mut file);
            if lives(&holder) || begun.elapsed() >= ORPHAN_PATIENCE {
                return Err(LockError::Held { path: path.to_owned(), holder });
            }
            std::thread::sleep(ORPHAN_LOOK);
        }
        let id = std::process::id();
        file.set_len(0).and_then(|()| writeln!(file, "{id}")).map_err(failed)?;
        Ok(Self { file })
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing would release it too, unless a child process inherited the descriptor.
        if let Err(error) = self.file.unlock() {
            tracing::debug!(%error, "lock released by closing only");
        }
    }
}

/// Says whether a process runs; one that was killed has no command line from then on (proc(5)). Who is unknown may run.
fn lives(holder: &str) -> bool {
    holder.parse::<u32>().map_or(true, |id| {
        std::fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|command_line| !command_line.is_empty())
    })
}

/// Reads who has the lock.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(HOLDER_MAX).read_to_string(&mut text));
    match read {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "(unknown)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_has_it_until_the_first_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = FileLock::take(&path).unwrap();
        let refusal = FileLock::take(&path).unwrap_err();
        assert!(
            matches!(&refusal, LockError::Held { holder, .. } if *holder == std::process::id().to_string()),
            "{refusal}"
        );
        drop(first);
        FileLock::take(&path).unwrap();
    }

    #[test]
    fn a_lock_that_a_dead_holder_s_child_has_for_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let left = FileLock::take(&path).unwrap();
        std::fs::write(&path, format!("{}\n", ended.id())).unwrap();
        let child = std::thread::spawn(move || {
            std::thread::sleep(ORPHAN_LOOK * 10);
            drop(left);
        });
        FileLock::take(&path).unwrap();
        child.join().unwrap();
    }
}
