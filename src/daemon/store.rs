//! Where a network's chain lies on disk: made whole or not at all, and with a mark that shows when it is an older copy.

use crate::crypto::hash::Digest;
use crate::io::durable::rename_durably;
use crate::io::ledger_files::open_disk;
use crate::ledger::store::{Behind, DiskMark, FileBackend, Store, StoreError};
use crate::time::UnixMillis;
use std::path::Path;

/// The chain and its state.
pub const STORE_FILE: &str = "ledger.redb";
const UNFINISHED_FILE: &str = "ledger.redb.new";
const MARK_FILE: &str = "ledger.mark";

/// Says whether a folder has a store, or had one: one that was being made when the program died never held anything, whatever its mark says.
pub fn is_there(folder: &Path) -> bool {
    let was_begun = !folder.join(MARK_FILE).exists() || folder.join(UNFINISHED_FILE).exists();
    folder.join(STORE_FILE).exists() || !was_begun
}

/// Makes an empty store of a network in a folder. It gets its name when it is whole, so that a crash leaves none that is half made.
///
/// # Errors
/// What the store says.
pub fn create(folder: &Path, network_id: Digest, now: UnixMillis) -> Result<Store, StoreError> {
    let unfinished = folder.join(UNFINISHED_FILE);
    // The mark first: as long as the unfinished store is there, a mark without a store is known to be no loss.
    for path in [folder.join(MARK_FILE), unfinished.clone()] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(StoreError::Io(error)),
            _ => {}
        }
    }
    let store = Store::create(disk(&unfinished)?, mark(folder)?, network_id, now, Behind::Refuse)?;
    rename_durably(&unfinished, &folder.join(STORE_FILE)).map_err(StoreError::Io)?;
    Ok(store)
}

/// Opens the store in a folder.
///
/// # Errors
/// What the store says; [`StoreError::Missing`] among it.
pub fn open(folder: &Path, network_id: Digest) -> Result<Store, StoreError> {
    // An absent file is an empty disk to the store, which then asks the mark whether there was one.
    Store::open(disk(&folder.join(STORE_FILE))?, mark(folder)?, network_id, Behind::Refuse)
}

fn disk(path: &Path) -> Result<FileBackend, StoreError> {
    Ok(FileBackend::new(open_disk(path).map_err(StoreError::Io)?)?)
}

fn mark(folder: &Path) -> Result<Box<DiskMark>, StoreError> {
    Ok(Box::new(DiskMark::new(disk(&folder.join(MARK_FILE))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: Digest = Digest([7; 32]);

    #[test]
    fn a_store_whose_making_was_interrupted_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let unfinished = folder.path().join(UNFINISHED_FILE);
        // Killed after the mark was written and before the store had its name.
        drop(create(folder.path(), NETWORK, UnixMillis(1)).unwrap());
        std::fs::rename(folder.path().join(STORE_FILE), &unfinished).unwrap();
        assert!(folder.path().join(MARK_FILE).exists());
        drop(create(folder.path(), NETWORK, UnixMillis(2)).unwrap());
        assert!(open(folder.path(), NETWORK).is_ok() && !unfinished.exists());
    }
}
