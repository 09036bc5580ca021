//! The state folder of one network: keys, and what else must survive a restart.
//!
//! ```text
//!   STATE/NET/            0700    made by `init` or `join`, whole or not at all
//!     network                     which network this is, so that a foreign folder is noticed
//!     *.key               0600    see `key_file`
//!     lock                        held by the daemon
//!   STATE/NET.tmp-PID/            an unfinished one: renamed to NET at the end, removed when its maker is dead
//! ```

use super::durable::{create_atomic, read_bounded, rename_new, sync_folder, write_atomic};
use super::key_file::{KeyFileError, KeyKind, create_key, read_key};
use super::lock::{FileLock, LockError};
use crate::crypto::hash::Digest;
use crate::crypto::identity::NodeId;
use crate::crypto::secret::Secret;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Longest name of a network: one LDH label, bytes.
const NAME_MAX: usize = 32;
/// The file that names the network.
const NETWORK_FILE: &str = "network";
/// Longest network file, bytes.
const NETWORK_FILE_MAX: usize = 256;
/// The lock within a network's folder.
const LOCK_FILE: &str = "lock";
/// What stands between a network's name and its maker's process id in the name of an unfinished folder; no network name has a dot.
const UNFINISHED: &str = ".tmp-";

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// Not one lower-case label.
    #[error("{name:?} is no name for a network: 1 to {NAME_MAX} of a-z, 0-9 and -, no - at either end")]
    BadName {
        /// The name.
        name: String,
    },
    /// The network exists: a second `init` or `join`.
    #[error("the network {name} exists already in {}: choose another name, or p2plus leave it first", path.display())]
    Exists {
        /// The network.
        name: String,
        /// Its folder.
        path: PathBuf,
    },
    /// There is no such network here.
    #[error("no network {name} in {}: p2plus networks lists those there are", state_dir.display())]
    NotFound {
        /// The network.
        name: String,
        /// Where it was looked for.
        state_dir: PathBuf,
    },
    /// Others can look into the folder.
    #[error("the state folder {} has mode {mode:04o}, so others can look into it: run chmod 700 {}", path.display(), path.display())]
    Exposed {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The folder holds another network's state.
    #[error("{} holds the state of the network {found}, not of {expected}: move it back where it belongs", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// The network that it says it is.
        found: String,
        /// The network wanted.
        expected: String,
    },
    /// The file that names the network is damaged or absent.
    #[error("{} does not name a network: restore the state folder from a backup, or leave and join again", path.display())]
    Garbled {
        /// The file.
        path: PathBuf,
    },
    /// A key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// Another process has the folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Anything else the system said.
    #[error("{}: {source}", path.display())]
    Io {
        /// What it was about.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The folder of one network.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    network: String,
    network_id: Digest,
}

/// A folder that is being made. Dropped before [`NewStateFolder::finish`], it leaves nothing.
#[derive(Debug)]
pub struct NewStateFolder {
    state_dir: PathBuf,
    network: String,
    /// `None` once finished.
    unfinished: Option<PathBuf>,
    /// Tells others that the maker lives.
    _lock: FileLock,
}

impl StateFolder {
    /// Opens the folder of `network` below `state_dir`.
    ///
    /// # Errors
    /// See [`KeystoreError`]: absent, readable to others, another network's, damaged.
    pub fn open(state_dir: &Path, network: &str) -> Result<Self, KeystoreError> {
        check_name(network)?;
        let path = state_dir.join(network);
        let metadata = std::fs::symlink_metadata(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                KeystoreError::NotFound { name: network.to_owned(), state_dir: state_dir.to_owned() }
            }
            _ => io_error(&path)(source),
        })?;
        if !metadata.is_dir() {
            return Err(io_error(&path)(io::ErrorKind::NotADirectory.into()));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeystoreError::Exposed { path, mode });
        }
        let (found, network_id) = read_network_file(&path.join(NETWORK_FILE))?;
        if found != network {
            return Err(KeystoreError::Foreign { path, found, expected: network.to_owned() });
        }
        Ok(Self { path, network: found, network_id })
    }

    /// Returns the folder's path; the ledger's store and the like live below it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the network's name.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Returns the network's id, as noted when the folder was made. The ledger's own word is compared with it.
    pub fn network_id(&self) -> Digest {
        self.network_id
    }

    /// Takes the folder for this process, until the lock is dropped.
    ///
    /// # Errors
    /// [`LockError::Held`] when another daemon has it.
    pub fn lock(&self) -> Result<FileLock, LockError> {
        FileLock::take(&self.path.join(LOCK_FILE))
    }

    /// Reads the key of `kind`.
    ///
    /// # Errors
    /// See [`KeyFileError`].
    pub fn read_key(&self, kind: KeyKind) -> Result<Secret<32>, KeyFileError> {
        read_key(&self.path, kind)
    }

    /// Stores a further key: the validator key of a node that becomes one.
    ///
    /// # Errors
    /// See [`KeyFileError`]; a key is never replaced.
    pub fn create_key(&self, kind: KeyKind, secret: &Secret<32>) -> Result<(), KeyFileError> {
        create_key(&self.path, kind, secret)
    }

    /// Says whether there is a key of `kind`, usable or not.
    pub fn has_key(&self, kind: KeyKind) -> bool {
        std::fs::symlink_metadata(self.path.join(kind.file_name())).is_ok()
    }

    /// Replaces the small file `name` (peers' endpoints, the last timestamp sent), durable when this returns.
    ///
    /// # Errors
    /// The system's, with the path; the old file is untouched then.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), KeystoreError> {
        let path = self.path.join(name);
        write_atomic(&path, bytes).map_err(io_error(&path))
    }

    /// Reads the small file `name` of at most `limit` bytes; `None` when there is none.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn read_file(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, KeystoreError> {
        let path = self.path.join(name);
        match read_bounded(&path, limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(&path)(error)),
        }
    }

    /// Removes the folder with everything in it. It is gone under its name at once, whatever happens to the rest.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn remove(self, lock: FileLock) -> Result<(), KeystoreError> {
        let state_dir = self.path.parent().unwrap_or(Path::new("/"));
        let leaving = unfinished_path(state_dir, &self.network);
        rename_new(&self.path, &leaving).map_err(io_error(&self.path))?;
        sync_folder(state_dir).map_err(io_error(state_dir))?;
        let removed = std::fs::remove_dir_all(&leaving).map_err(io_error(&leaving));
        drop(lock);
        removed
    }
}

impl NewStateFolder {
    /// Begins the folder of `network` below `state_dir`, which is created if need be; cleans up after those who died doing so.
    ///
    /// # Errors
    /// [`KeystoreError::Exists`] when the network is here already, else as [`KeystoreError`] says.
    pub fn begin(state_dir: &Path, network: &str) -> Result<Self, KeystoreError> {
        check_name(network)?;
        DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(io_error(state_dir))?;
        // While this is held nobody takes an unfinished folder without its lock for a dead one's.
        let makers = File::open(state_dir).map_err(io_error(state_dir))?;
        makers.lock().map_err(io_error(state_dir))?;
        remove_leftovers(state_dir)?;
        let finished = state_dir.join(network);
        if std::fs::symlink_metadata(&finished).is_ok() {
            return Err(KeystoreError::Exists { name: network.to_owned(), path: finished });
        }
        let path = unfinished_path(state_dir, network);
        DirBuilder::new().mode(0o700).create(&path).map_err(io_error(&path))?;
        let lock = FileLock::take(&path.join(LOCK_FILE))?;
        Ok(Self { state_dir: state_dir.to_owned(), network: network.to_owned(), unfinished: Some(path), _lock: lock })
    }

    /// Returns the folder as long as it is being made: what else belongs into it (the ledger's store) is put there before the end.
    pub fn path(&self) -> &Path {
        self.unfinished.as_deref().expect("finish takes self")
    }

    /// Stores a key.
    ///
    /// # Errors
    /// See [`KeyFileError`].
    pub fn create_key(&self, kind: KeyKind, secret: &Secret<32>) -> Result<(), KeyFileError> {
        create_key(self.path(), kind, secret)
    }

    /// Stores the small file `name`.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), KeystoreError> {
        let path = self.path().join(name);
        write_atomic(&path, bytes).map_err(io_error(&path))
    }

    /// Gives the folder its name: from here on the network exists, also after a power cut.
    ///
    /// # Errors
    /// [`KeystoreError::Exists`] when somebody was faster, else the system's; nothing is left then.
    pub fn finish(mut self, network_id: Digest) -> Result<StateFolder, KeystoreError> {
        let unfinished = self.path().to_owned();
        let network_file = unfinished.join(NETWORK_FILE);
        let line = encode_network_file(&self.network, &network_id);
        create_atomic(&network_file, line.as_bytes()).map_err(io_error(&network_file))?;
        let path = self.state_dir.join(&self.network);
        rename_new(&unfinished, &path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeystoreError::Exists { name: self.network.clone(), path: path.clone() },
            _ => io_error(&path)(source),
        })?;
        self.unfinished = None;
        sync_folder(&self.state_dir).map_err(io_error(&self.state_dir))?;
        Ok(StateFolder { path, network: self.network.clone(), network_id })
    }
}

impl Drop for NewStateFolder {
    fn drop(&mut self) {
        let Some(path) = self.unfinished.take() else { return };
        if let Err(error) = std::fs::remove_dir_all(&path) {
            tracing::warn!(%error, path = %path.display(), "unfinished state folder left behind; the next init removes it");
        }
    }
}

/// Removes unfinished folders whose makers are dead. The caller holds the lock on `state_dir`.
fn remove_leftovers(state_dir: &Path) -> Result<(), KeystoreError> {
    for name in entries(state_dir)? {
        let Some((network, _)) = name.split_once(UNFINISHED) else { continue };
        if check_name(network).is_err() {
            continue;
        }
        let path = state_dir.join(&name);
        match FileLock::take(&path.join(LOCK_FILE)) {
            Err(LockError::Held { holder, .. }) => {
                tracing::debug!(%network, %holder, "another init or join is at work");
            }
            Err(LockError::Io { source, .. }) => return Err(io_error(&path)(source)),
            Ok(_lock) => {
                tracing::info!(%network, path = %path.display(), "removing what an interrupted init, join or leave left");
                std::fs::remove_dir_all(&path).map_err(io_error(&path))?;
            }
        }
    }
    Ok(())
}

/// The names of the folders in `folder`; none when it is absent.
fn entries(folder: &Path) -> Result<Vec<String>, KeystoreError> {
    let listing = match std::fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(folder)(error)),
    };
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(io_error(folder))?;
        let is_folder = entry.file_type().map_err(io_error(folder))?.is_dir();
        names.extend(entry.file_name().into_string().ok().filter(|_| is_folder));
    }
    Ok(names)
}

fn unfinished_path(state_dir: &Path, network: &str) -> PathBuf {
    state_dir.join(format!("{network}{UNFINISHED}{}", std::process::id()))
}

fn check_name(name: &str) -> Result<(), KeystoreError> {
    let is_label = (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !name.starts_with('-')
        && !name.ends_with('-');
    if is_label { Ok(()) } else { Err(KeystoreError::BadName { name: name.to_owned() }) }
}

fn encode_network_file(name: &str, id: &Digest) -> String {
    format!("p2plus-network 1 {name} {id}\n")
}

fn read_network_file(path: &Path) -> Result<(String, Digest), KeystoreError> {
    let garbled = || KeystoreError::Garbled { path: path.to_owned() };
    let bytes = read_bounded(path, NETWORK_FILE_MAX).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge => garbled(),
        _ => io_error(path)(source),
    })?;
    let text = String::from_utf8(bytes).map_err(|_| garbled())?;
    let (name, digits) = text
        .strip_prefix("p2plus-network 1 ")
        .and_then(|rest| rest.strip_suffix('\n'))
        .and_then(|rest| rest.split_once(' '))
        .ok_or_else(garbled)?;
    check_name(name).map_err(|_| garbled())?;
    // 32 bytes as 64 digits: the text form of a node id is the same.
    let id = digits.parse::<NodeId>().map_err(|_| garbled())?;
    Ok((name.to_owned(), Digest(id.0)))
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> KeystoreError + '_ {
    move |source| KeystoreError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    const ID: Digest = Digest([7; 32]);

    fn make(state_dir: &Path, network: &str) -> StateFolder {
        let new = NewStateFolder::begin(state_dir, network).unwrap();
        new.create_key(KeyKind::Identity, &Secret::new([1; 32])).unwrap();
        new.finish(ID).unwrap()
    }

    #[test]
    fn a_finished_folder_is_found_again_private_and_whole() {
        let state = tempfile::tempdir().unwrap();
        let state_dir = state.path().join("deep/state");
        make(&state_dir, "home");
        let folder = StateFolder::open(&state_dir, "home").unwrap();
        assert_eq!((folder.network(), folder.network_id()), ("home", ID));
        assert!(folder.read_key(KeyKind::Identity).unwrap() == Secret::new([1; 32]));
        assert!(folder.has_key(KeyKind::Identity) && !folder.has_key(KeyKind::Validator));
        assert_eq!(std::fs::metadata(folder.path()).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(entries(&state_dir).unwrap(), ["home"]);
    }

    #[test]
    fn a_second_init_of_the_same_network_is_refused_and_changes_nothing() {
        let state = tempfile::tempdir().unwrap();
        make(state.path(), "home");
        let again = NewStateFolder::begin(state.path(), "home");
        assert!(matches!(again, Err(KeystoreError::Exists { name, .. }) if name == "home"));
        let folder = StateFolder::open(state.path(), "home").unwrap();
        assert!(folder.read_key(KeyKind::Identity).unwrap() == Secret::new([1; 32]));
    }

    #[test]
    fn an_init_given_up_leaves_nothing_and_a_dead_ones_rest_is_removed() {
        let state = tempfile::tempdir().unwrap();
        drop(NewStateFolder::begin(state.path(), "home").unwrap());
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
        // SIGKILL in the middle: a folder with a lock that nobody holds, and one without.
        let killed = state.path().join("home.tmp-4194305");
        std::fs::create_dir(&killed).unwrap();
        std::fs::write(killed.join("identity.key"), b"half").unwrap();
        std::fs::write(killed.join(LOCK_FILE), b"4194305\n").unwrap();
        std::fs::create_dir(state.path().join("other.tmp-4194306")).unwrap();
        make(state.path(), "home");
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_init_at_work_is_left_alone() {
        let state = tempfile::tempdir().unwrap();
        let at_work = NewStateFolder::begin(state.path(), "first").unwrap();
        make(state.path(), "second");
        at_work.finish(ID).unwrap();
        for name in ["first", "second"] {
            assert_eq!(StateFolder::open(state.path(), name).unwrap().network(), name);
        }
    }

    #[test]
    fn a_folder_from_another_network_is_noticed() {
        let state = tempfile::tempdir().unwrap();
        make(state.path(), "home");
        std::fs::rename(state.path().join("home"), state.path().join("work")).unwrap();
        let error = StateFolder::open(state.path(), "work").unwrap_err();
        assert!(matches!(&error, KeystoreError::Foreign { found, .. } if found == "home"), "{error}");
    }

    #[test]
    fn an_exposed_absent_or_damaged_folder_is_refused_by_name() {
        let state = tempfile::tempdir().unwrap();
        assert!(matches!(StateFolder::open(state.path(), "home"), Err(KeystoreError::NotFound { .. })));
        assert!(matches!(StateFolder::open(state.path(), "../home"), Err(KeystoreError::BadName { .. })));
        let path = make(state.path(), "home").path().to_owned();
        std::fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(StateFolder::open(state.path(), "home"), Err(KeystoreError::Exposed { mode: 0o750, .. })));
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        let whole = std::fs::read(path.join(NETWORK_FILE)).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(path.join(NETWORK_FILE), &whole[..cut]).unwrap();
            assert!(
                matches!(StateFolder::open(state.path(), "home"), Err(KeystoreError::Garbled { .. })),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_locked_folder_is_refused_to_a_second_daemon() {
        let state = tempfile::tempdir().unwrap();
        let folder = make(state.path(), "home");
        let lock = folder.lock().unwrap();
        assert!(matches!(StateFolder::open(state.path(), "home").unwrap().lock(), Err(LockError::Held { .. })));
        folder.remove(lock).unwrap();
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
    }

    #[test]
    fn small_files_come_back_and_absent_ones_are_none() {
        let state = tempfile::tempdir().unwrap();
        let folder = make(state.path(), "home");
        assert_eq!(folder.read_file("peers", 10).unwrap(), None);
        folder.write_file("peers", b"endpoints").unwrap();
        assert_eq!(folder.read_file("peers", 10).unwrap().as_deref(), Some(b"endpoints".as_slice()));
        assert!(folder.read_file("peers", 3).is_err());
    }
}
