//! The undo journal: what was changed on the host, on disk before it is changed.
//!
//! ```text
//!   record(change) ──► file, fsync ──► the change          the change undone ──► forget(change) ──► file
//! ```
//! A killed daemon's next start, or `p2plus cleanup`, reads it. It lies in the run folder, under the network's lock there: what it tells of
//! is the kernel's, in one network namespace until the next boot, and a copy of the state folder must not bring it back or lose it. Where
//! the run folder outlasts a boot or is shared by namespaces, the journal's own words tell.

use super::{HostError, Slot, Sysctl};
use crate::io::bridge::Bridging;
use crate::io::device_name::DeviceName;
use crate::io::durable::{read_bounded, write_atomic};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Longer than any journal: a hundred sysctls; bytes.
const FILE_MAX: usize = 1 << 16;

/// A change to the host. Links and their addresses are none: they go with the process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// The rules and the routes of a slot.
    Routing(Slot),
    /// The nft table of this network.
    Filter,
    /// A kernel setting, with what it was before and what it was set to.
    Sysctl {
        /// Which one.
        key: Sysctl,
        /// What it was.
        before: String,
        /// What it became.
        after: String,
    },
    /// A network card that became a port of a bridge that was made for it.
    Bridging(Bridging),
    /// Where the host's programs ask for names, told in the name of an interface.
    Names(DeviceName),
}

/// Where changes were made: they are gone when the machine is booted anew, and elsewhere they cannot be undone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// The kernel's id of this boot; unknown in some sandboxes.
    boot: Option<String>,
    /// The network namespace, by the device and inode of its file.
    namespace: (u64, u64),
}

impl Place {
    fn here() -> io::Result<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let namespace = std::fs::metadata("/proc/thread-self/ns/net")?;
        Ok(Self { boot: boot.map(|id| id.trim().to_owned()), namespace: (namespace.dev(), namespace.ino()) })
    }

    /// Says whether the machine was booted since `self` was written, as far as is known.
    fn is_of_another_boot(&self, here: &Self) -> bool {
        self.boot.is_some() && here.boot.is_some() && self.boot != here.boot
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    place: Place,
    changes: Vec<Change>,
}

/// The journal of one network: a handle, shared by all that change the host for it.
#[derive(Clone)]
pub struct Journal {
    path: Arc<Path>,
    place: Place,
    changes: Arc<Mutex<Vec<Change>>>,
}

/// What an earlier run left.
pub enum Found {
    /// Nothing, or what another boot took away.
    Nothing(Journal),
    /// Changes that are still there.
    Here(Journal),
    /// Changes in another network namespace.
    Elsewhere(Journal),
}

impl Journal {
    /// Reads the journal at `path`; the caller has the lock of its network.
    ///
    /// # Errors
    /// [`HostError::Journal`]: it cannot be read, or is none.
    pub fn open(path: &Path) -> Result<Found, HostError> {
        let failed = |source| HostError::Journal { path: path.to_owned(), source };
        let here = Place::here().map_err(failed)?;
        let nothing = |place| Found::Nothing(Self::new(path, place, Vec::new()));
        let bytes = match read_bounded(path, FILE_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(nothing(here)),
            bytes => bytes.map_err(failed)?,
        };
        let Contents { place, changes } = serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
        if place.is_of_another_boot(&here) {
            return Ok(nothing(here));
        }
        let is_here = place.namespace == here.namespace;
        let journal = Self::new(path, here, changes);
        Ok(if is_here { Found::Here(journal) } else { Found::Elsewhere(journal) })
    }

    fn new(path: &Path, place: Place, changes: Vec<Change>) -> Self {
        Self { path: path.into(), place, changes: Arc::new(Mutex::new(changes)) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Change>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was changed, in its order.
    pub fn changes(&self) -> Vec<Change> {
        self.lock().clone()
    }

    /// The slot that was used.
    pub fn slot(&self) -> Option<Slot> {
        self.lock().iter().find_map(|change| if let Change::Routing(slot) = change { Some(*slot) } else { None })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes a change that is about to be made; durable when this returns. One that stands there already is fine.
    ///
    /// # Errors
    /// [`HostError::Journal`]; the change must not be made then.
    pub fn record(&self, change: Change) -> Result<(), HostError> {
        let mut changes = self.lock();
        if changes.contains(&change) {
            return Ok(());
        }
        changes.push(change);
        self.write(&changes).inspect_err(|_| drop(changes.pop()))
    }

    /// Forgets a change that was undone, or never made.
    ///
    /// # Errors
    /// [`HostError::Journal`]: it is undone once more some day, which does no harm.
    pub fn forget(&self, change: &Change) -> Result<(), HostError> {
        let mut changes = self.lock();
        let count = changes.len();
        changes.retain(|it| it != change);
        if changes.len() == count { Ok(()) } else { self.write(&changes) }
    }

    /// Forgets everything: it was done in a place that is out of reach.
    ///
    /// # Errors
    /// [`HostError::Journal`].
    pub fn clear(&self) -> Result<(), HostError> {
        let mut changes = self.lock();
        changes.clear();
        self.write(&changes)
    }

    fn write(&self, changes: &[Change]) -> Result<(), HostError> {
        let written = if changes.is_empty() {
            match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        } else {
            let contents = Contents { place: self.place.clone(), changes: changes.to_vec() };
            let bytes = serde_json::to_vec_pretty(&contents).expect("a journal consists of JSON's types");
            write_atomic(&self.path, &bytes)
        };
        written.map_err(|source| HostError::Journal { path: self.path.to_path_buf(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u8) -> Change {
        Change::Routing(Slot::try_from(number).unwrap())
    }

    fn here(path: &Path) -> Journal {
        match Journal::open(path).unwrap() {
            Found::Here(journal) => journal,
            Found::Nothing(_) => panic!("nothing was found"),
            Found::Elsewhere(_) => panic!("found elsewhere"),
        }
    }

    #[test]
    fn what_was_recorded_is_found_by_the_next_run_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lab.undo");
        let Found::Nothing(journal) = Journal::open(&path).unwrap() else { panic!("something was found") };
        let sysctl = Change::Sysctl {
            key: Sysctl::Ipv6Forwarding("all".parse().unwrap()),
            before: "0".to_owned(),
            after: "1".to_owned(),
        };
        let bridging =
            Change::Bridging(Bridging { bridge: "p2b-lab".to_owned(), card: "eth1".to_owned(), card_was_on: false });
        let names = Change::Names("p2p-lab".parse().unwrap());
        let other = journal.clone();
        for change in [slot(7), Change::Filter, sysctl.clone(), slot(7)] {
            journal.record(change).unwrap();
        }
        // What one handle noted the other does not lose.
        other.record(bridging.clone()).unwrap();
        journal.record(names.clone()).unwrap();
        drop((journal, other));
        let journal = here(&path);
        assert_eq!(journal.changes(), [slot(7), Change::Filter, sysctl.clone(), bridging.clone(), names.clone()]);
        journal.forget(&bridging).unwrap();
        journal.forget(&names).unwrap();
        assert_eq!(journal.slot().map(u8::from), Some(7));
        journal.forget(&slot(7)).unwrap();
        journal.forget(&sysctl).unwrap();
        assert_eq!(here(&path).changes(), [Change::Filter]);
        journal.forget(&Change::Filter).unwrap();
        assert!(matches!(Journal::open(&path).unwrap(), Found::Nothing(_)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_another_boot_or_namespace_has_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lab.undo");
        let write = |place: Place| {
            Journal::new(&path, place, Vec::new()).record(Change::Filter).unwrap();
        };
        let here = Place::here().unwrap();
        write(Place { boot: Some("another".to_owned()), ..here.clone() });
        let Found::Nothing(journal) = Journal::open(&path).unwrap() else { panic!("found after a reboot") };
        assert_eq!(journal.changes(), []);
        write(Place { namespace: (0, 1), ..here.clone() });
        let Found::Elsewhere(journal) = Journal::open(&path).unwrap() else { panic!("not found elsewhere") };
        assert_eq!(journal.changes(), [Change::Filter]);
        // Where nobody says which boot it is, undoing once too often does no harm.
        write(Place { boot: None, ..here });
        assert!(matches!(Journal::open(&path).unwrap(), Found::Here(_)));
    }

    #[test]
    fn a_file_that_is_no_journal_is_told_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lab.undo");
        let bad_key = r#"{"place":{"boot":null,"namespace":[0,0]},"changes":[{"sysctl":{"key":"kernel/core_pattern","before":"","after":"|x"}}]}"#;
        for text in ["", "{}", "[1]", "null", bad_key, &"x".repeat(FILE_MAX + 1)] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Journal::open(&path), Err(HostError::Journal { .. })), "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
