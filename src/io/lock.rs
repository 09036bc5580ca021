//! One process at a time: a lock file that the kernel releases when its holder ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest text of a lock file that is read: a process id.
const HOLDER_MAX: u64 = 20;

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
    /// Takes the lock at `path`, creating the file, without waiting.
    ///
    /// # Errors
    /// [`LockError::Held`] names the process that has it.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { path: path.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
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

/// Reads who has the lock; the text is for an error message only.
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
}
