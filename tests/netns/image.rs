//! What a state folder holds: to be compared, and put back.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The content of every file of a folder but the lock, by its path.
#[derive(Clone, PartialEq, Eq)]
pub struct Image(BTreeMap<PathBuf, Vec<u8>>);

impl Image {
    /// Reads a folder.
    pub fn of(folder: &Path) -> Self {
        let entries = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
        let files = entries.filter(|entry| entry.file_type().is_file() && entry.file_name() != "lock");
        Self(files.map(|entry| (entry.path().to_owned(), std::fs::read(entry.path()).unwrap())).collect())
    }

    /// Makes the folder hold this again, and nothing else; no daemon may run there.
    pub fn put_back(&self, folder: &Path) {
        for path in Self::of(folder).0.keys().filter(|path| !self.0.contains_key(*path)) {
            std::fs::remove_file(path).unwrap();
        }
        for (path, bytes) in &self.0 {
            std::fs::write(path, bytes).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
        }
    }

    /// The names of its files that a later image lacks or has otherwise.
    pub fn changed_in(&self, later: &Self) -> Vec<String> {
        let changed = self.0.iter().filter(|(path, bytes)| later.0.get(*path) != Some(bytes));
        changed.map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }
}
