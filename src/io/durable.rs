//! Small files that a crash finds either old or new, never torn.
//!
//! Write beside, fsync, rename over, fsync the folder: after [`write_atomic`] returned, the new bytes survive the power cut; before,
//! the old ones do.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Replaces the file at `path` with `bytes`, readable to the owner alone. One writer at a time: the holder of the folder's lock.
///
/// # Errors
/// The system's; the old file is untouched then.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = beside(path)?;
    write_beside(&beside, bytes).and_then(|()| std::fs::rename(&beside, path)).inspect_err(|_| discard(&beside))?;
    sync_parent(path)
}

/// Creates the file at `path` with `bytes`, readable to the owner alone, whole or not at all.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when there is one, whatever is in it; else the system's.
pub fn create_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = beside(path)?;
    write_beside(&beside, bytes).and_then(|()| rename_new(&beside, path)).inspect_err(|_| discard(&beside))?;
    sync_parent(path)
}

/// Reads a file of at most `limit` bytes; a longer one is [`io::ErrorKind::FileTooLarge`].
///
/// # Errors
/// The system's.
pub fn read_bounded(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Renames a file or folder, unless the new name is taken (`RENAME_NOREPLACE`).
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (CString::new(from.as_os_str().as_bytes())?, CString::new(to.as_os_str().as_bytes())?);
    // SAFETY: both are terminated strings that outlive the call.
    let outcome =
        unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::RENAME_NOREPLACE) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Renames a finished file to its name, durably; one that has the name already stays and is an error.
///
/// # Errors
/// The system's.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    rename_new(from, to)?;
    sync_parent(to)
}

/// Makes a folder's entries durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => sync_folder(folder),
        _ => sync_folder(Path::new(".")),
    }
}

/// The name under which a file is written before it is renamed: `.NAME.new` in the same folder.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(".new");
    Ok(path.with_file_name(beside))
}

fn write_beside(beside: &Path, bytes: &[u8]) -> io::Result<()> {
    // What a crash left here is nobody's; O_EXCL afterwards, so that no planted link is followed.
    match std::fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn discard(beside: &Path) {
    if let Err(error) = std::fs::remove_file(beside) {
        tracing::debug!(%error, path = %beside.display(), "unfinished file left behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers");
        std::fs::write(folder.path().join(".peers.new"), b"left by a crash").unwrap();
        write_atomic(&path, b"first").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(read_bounded(&path, 6).unwrap(), b"second");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(read_bounded(&path, 5).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn creating_never_replaces_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create_atomic(&path, b"first").unwrap();
        assert_eq!(create_atomic(&path, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read_bounded(&path, 100).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers");
        std::fs::create_dir(&path).unwrap();
        assert!(write_atomic(&path, b"new").is_err());
        assert!(path.is_dir());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
