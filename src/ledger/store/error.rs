//! Why the store refuses, told apart by cause, because the answer to each differs.

use super::mark::Mark;
use crate::crypto::hash::Digest;
use crate::ledger::tree::TreeError;
use std::io;
use thiserror::Error;

/// Why the store could not be opened, read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is no store here, and no mark says that there ever was one with a block.
    #[error("there is no ledger store")]
    Missing,
    /// The mark remembers blocks, but the store is gone.
    #[error("the ledger store is gone; it held block {}", .mark.height())]
    Deleted {
        /// What the mark remembers.
        mark: Mark,
    },
    /// A store is to be created where one exists.
    #[error("a ledger store exists already")]
    Exists,
    /// The store, or its mark, belongs to another network.
    #[error("the ledger store belongs to another network ({found})")]
    OtherChain {
        /// The network it belongs to.
        found: Digest,
    },
    /// A newer program wrote it.
    #[error("the ledger store has format {found}, newer than this program reads")]
    NewerFormat {
        /// The format found.
        found: u32,
    },
    /// Its bytes are not what was written.
    #[error("the ledger store is corrupt: {0}")]
    Corrupt(String),
    /// The stored state does not have the root that the head block certifies.
    #[error("the stored state has root {stored}, the chain says {expected}")]
    WrongState {
        /// The root of the stored pairs.
        stored: Digest,
        /// The root asked for.
        expected: Digest,
    },
    /// The store is older than the last write that the mark remembers.
    #[error("the ledger store was rolled back: it ends before block {} and its revocations", .mark.height())]
    RolledBack {
        /// What the mark remembers.
        mark: Mark,
    },
    /// The store holds another block at the marked height.
    #[error("the ledger store holds another block at height {height} than was written")]
    Forked {
        /// The marked height.
        height: u64,
    },
    /// The mark beside the store is gone, so nobody can say whether the store is the newest.
    #[error("the head mark beside the ledger store is missing")]
    MarkMissing,
    /// The mark beside the store is unreadable.
    #[error("the head mark beside the ledger store is corrupt")]
    MarkCorrupt,
    /// Another process has it open.
    #[error("the ledger store is in use by another process")]
    Locked,
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// The disk failed.
    #[error("the ledger store could not be read or written: {0}")]
    Io(io::Error),
    /// An earlier failure stopped all writing; the store must be opened again.
    #[error("the ledger is stopped by an earlier failure: {cause}")]
    Stopped {
        /// The first failure.
        cause: String,
    },
    /// A block is not the next one.
    #[error("block {got} does not follow the head; {expected} does")]
    NotNext {
        /// The height that may be written.
        expected: u64,
        /// The height given.
        got: u64,
    },
    /// The tree update was not made from the stored tree.
    #[error("the state tree update does not start from the stored tree")]
    StaleUpdate,
    /// The state tree could not be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl StoreError {
    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt(what.into())
    }
}

/// What a sealed page says when its bytes are not what was written; travels through redb inside an [`io::Error`].
#[derive(Clone, Copy, Debug, Error)]
#[error("page {page} is damaged")]
pub(super) struct Damaged {
    pub(super) page: u64,
}

impl From<Damaged> for io::Error {
    fn from(damaged: Damaged) -> Self {
        Self::new(io::ErrorKind::InvalidData, damaged)
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            io::ErrorKind::InvalidData => Self::Corrupt(error.to_string()),
            io::ErrorKind::UnexpectedEof => Self::corrupt("truncated"),
            _ => Self::Io(error),
        }
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => error.into(),
            redb::Error::Corrupted(what) => Self::Corrupt(what),
            redb::Error::DatabaseAlreadyOpen => Self::Locked,
            redb::Error::PreviousIo | redb::Error::LockPoisoned(_) => Self::Stopped { cause: error.to_string() },
            other => Self::Corrupt(other.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}
from_redb!(StorageError, TableError, TransactionError, CommitError, DatabaseError, CompactionError);
