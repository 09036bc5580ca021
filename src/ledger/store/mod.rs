//! The ledger on disk: blocks, commits, state, tree nodes and pending revocations, one atomic transaction per block.
//!
//! Owns the tables, their durability and every check at opening. Refuses to know what a block or a transaction means: bytes, ids,
//! heights. The disk is injected ([`StorageBackend`]), so that the daemon gives a file and the simulator one that fails.
//!
//! ```text
//!  Store ── redb (tables, transactions) ── pages (a hash on every page) ── the disk
//!    └──── HeadMark (what was last written, beside the store)
//! ```
//! - A store is never closed cleanly: each opening is a recovery that verifies the whole file, so there is one way to open, not two.
//! - A damaged page never reaches redb. See `pages`.
//! - The first failed write stops all writing; what was committed stays readable. The tunnels do not care.
//!
//! Bytes and causes: `docs/store.md`.

pub mod disk;
mod error;
pub mod image;
mod mark;
mod pages;
mod read;
mod tables;

pub use error::StoreError;
pub use mark::{DiskMark, Head, HeadMark, Mark, MemoryMark, read_mark};
/// What a disk must do.
pub use redb::StorageBackend;
/// The disk of a file that the shell opened for reading and writing; it is locked as long as the store is open.
pub use redb::backends::FileBackend;
pub use tables::StoredNodes;

use crate::crypto::hash::Digest;
use crate::ledger::Changes;
use crate::ledger::tree::{self, TreeUpdate};
use crate::time::UnixMillis;
use pages::{Opening, SealedPages};
use redb::{Builder, Database, WriteTransaction};
use std::sync::Arc;
use tables::{Meta, OWN_PENDING, REVOKED_PENDING};

/// A key and its value, as stored.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Bytes of pages that redb keeps in memory: the upper levels of every table of a 10,000-member network.
const CACHE_LEN: usize = 32 << 20;

/// What to do when the mark remembers more than the store holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behind {
    /// Refuse: [`StoreError::RolledBack`], [`StoreError::Deleted`] or [`StoreError::MarkMissing`].
    Refuse,
    /// Open it to be filled up from peers. The mark stays until the store has passed it, with the same block at its height.
    Resync,
}

/// One block and everything that changes with it.
#[derive(Clone, Debug)]
pub struct BlockRecord {
    /// Its height: the head's + 1, or 0 in an empty store.
    pub height: u64,
    /// Its id.
    pub id: Digest,
    /// Its encoding.
    pub block: Vec<u8>,
    /// Its commit certificate's encoding.
    pub commit: Vec<u8>,
    /// The ids of its transactions.
    pub transaction_ids: Vec<Digest>,
    /// What it changes in the state.
    pub changes: Changes,
    /// What `changes` do to the tree, as [`Store::tree`] computed it.
    pub tree: TreeUpdate,
    /// Pending revocations that the block settles.
    pub settled_revocations: Vec<Digest>,
}

impl BlockRecord {
    fn head(&self) -> Head {
        Head { height: self.height, id: self.id }
    }
}

/// A whole state at some block, fetched from peers.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The block's height: above the head's.
    pub height: u64,
    /// The block's id.
    pub id: Digest,
    /// The block's encoding.
    pub block: Vec<u8>,
    /// Its commit certificate's encoding.
    pub commit: Vec<u8>,
    /// The state after the block.
    pub state: Vec<Pair>,
    /// The state root that the block certifies.
    pub root: Digest,
}

impl Snapshot {
    fn head(&self) -> Head {
        Head { height: self.height, id: self.id }
    }
}

/// The ledger's store.
pub struct Store {
    /// `None` only after a failure from which not even reading recovered.
    database: Option<Database>,
    pages: Arc<SealedPages>,
    mark: Box<dyn HeadMark>,
    meta: Meta,
    /// What the mark remembers and the store still lacks.
    behind: Option<Mark>,
    stopped: Option<String>,
}

impl Store {
    /// Creates a store of `chain` on an empty disk. The shell gives a file of a temporary name and renames it on success, so that
    /// a crash in between leaves no half-made store.
    ///
    /// # Errors
    /// [`StoreError::Exists`]; [`StoreError::Deleted`] when the mark remembers blocks and `behind` refuses; any failure of the disk.
    pub fn create(
        disk: impl StorageBackend,
        mut mark: Box<dyn HeadMark>,
        chain: Digest,
        created: UnixMillis,
        behind: Behind,
    ) -> Result<Self, StoreError> {
        let pages = Arc::new(SealedPages::open(Box::new(disk))?);
        if !pages.is_empty() {
            return Err(StoreError::Exists);
        }
        let marked = remembered(mark.as_ref(), chain, behind)?.filter(|marked| marked.writes > 0);
        if let (Some(mark), Behind::Refuse) = (marked, behind) {
            return Err(StoreError::Deleted { mark });
        }
        let meta = Meta::new(chain, created);
        let database = open_database(&pages)?;
        tables::create(&database, &meta)?;
        pages.serve();
        if marked.is_none() {
            mark.write(&meta.mark().encode())?;
        }
        Ok(Self { database: Some(database), pages, mark, meta, behind: marked, stopped: None })
    }

    /// Opens a store of `chain`, verifying every page that its newest state reaches, and compares it with its mark.
    /// Where the disk takes no writes, the store opens stopped: to be read only.
    ///
    /// # Errors
    /// Each cause has its variant in [`StoreError`].
    pub fn open(
        disk: impl StorageBackend,
        mark: Box<dyn HeadMark>,
        chain: Digest,
        behind: Behind,
    ) -> Result<Self, StoreError> {
        let marked = remembered(mark.as_ref(), chain, behind)?;
        let pages = Arc::new(SealedPages::open(Box::new(disk))?);
        if pages.is_empty() {
            return Err(match marked.filter(|marked| marked.writes > 0) {
                Some(mark) => StoreError::Deleted { mark },
                None => StoreError::Missing,
            });
        }
        let (database, stopped) = match open_database(&pages) {
            Ok(database) => (database, None),
            // Opening writes a little. A node with a full disk still has to know its members.
            Err(error @ (StoreError::DiskFull | StoreError::Io(_))) => {
                pages.reload_detached()?;
                (open_database(&pages)?, Some(error.to_string()))
            }
            Err(error) => return Err(error),
        };
        pages.serve();
        let meta = Meta::read(&database)?;
        if meta.chain != chain {
            return Err(StoreError::OtherChain { found: meta.chain });
        }
        tables::check_head(&database, &meta)?;
        let mut store = Self { database: Some(database), pages, mark, meta, behind: None, stopped };
        store.compare_with(marked, behind)?;
        Ok(store)
    }

    fn compare_with(&mut self, marked: Option<Mark>, behind: Behind) -> Result<(), StoreError> {
        let Some(mark) = marked else {
            return if behind == Behind::Resync { Ok(()) } else { Err(StoreError::MarkMissing) };
        };
        if self.meta.mark().is_behind(&mark) {
            if behind == Behind::Refuse {
                return Err(StoreError::RolledBack { mark });
            }
            self.behind = Some(mark);
        }
        let Some(head) = mark.head else { return Ok(()) };
        match self.block_id(head.height)? {
            Some(id) if id != head.id => Err(StoreError::Forked { height: head.height }),
            _ => Ok(()),
        }
    }

    /// Returns the network the store belongs to.
    pub fn chain(&self) -> Digest {
        self.meta.chain
    }

    /// Returns when the store was created.
    pub fn created(&self) -> UnixMillis {
        self.meta.created
    }

    /// Returns the newest block's height and id, `None` before the first.
    pub fn head(&self) -> Option<Head> {
        self.meta.head
    }

    /// Returns what the mark remembers and the store lacks: until peers have filled it, the node must not speak for the chain.
    pub fn behind(&self) -> Option<Mark> {
        self.behind
    }

    /// Returns the failure that stopped all writing.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// Writes a block and everything that changes with it: all of it, durably, or nothing.
    ///
    /// # Errors
    /// [`StoreError::NotNext`], [`StoreError::StaleUpdate`] and [`StoreError::Forked`] leave the store as it was.
    /// Any other stops it; whether the block is in it then is known at the next opening.
    pub fn append(&mut self, record: &BlockRecord) -> Result<(), StoreError> {
        let expected = self.meta.head.map_or(0, |head| head.height.saturating_add(1));
        if record.height != expected {
            return Err(StoreError::NotNext { expected, got: record.height });
        }
        if record.tree.base != self.meta.tree {
            return Err(StoreError::StaleUpdate);
        }
        self.check_marked(record.head())?;
        self.commit(|txn, meta| {
            meta.head = Some(record.head());
            meta.tree = record.tree.head;
            tables::append(txn, record)
        })
    }

    /// Replaces blocks and state by a snapshot above the head; what waits for a block stays.
    ///
    /// # Errors
    /// [`StoreError::NotNext`], [`StoreError::WrongState`] and [`StoreError::Forked`] leave the store as it was.
    /// Any other stops it.
    pub fn install(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let expected = self.meta.head.map_or(0, |head| head.height.saturating_add(1));
        if snapshot.height < expected {
            return Err(StoreError::NotNext { expected, got: snapshot.height });
        }
        self.check_marked(snapshot.head())?;
        let tree = tree::build(snapshot.state.iter().cloned())?;
        if tree.head.root != snapshot.root {
            return Err(StoreError::WrongState { stored: tree.head.root, expected: snapshot.root });
        }
        self.commit(|txn, meta| {
            meta.head = Some(snapshot.head());
            meta.tree = tree.head;
            tables::install(txn, snapshot, &tree)
        })
    }

    /// Writes a revocation that no block holds yet.
    ///
    /// # Errors
    /// Any failure of the disk; it stops the store.
    pub fn put_revocation(&mut self, id: Digest, transaction: &[u8]) -> Result<(), StoreError> {
        self.put_revocations(&[(id, transaction.to_vec())])
    }

    /// Writes revocations that no block holds yet, and what belongs to them: all or nothing.
    ///
    /// # Errors
    /// Any failure of the disk; it stops the store.
    pub fn put_revocations(&mut self, rows: &[(Digest, Vec<u8>)]) -> Result<(), StoreError> {
        self.commit(|txn, _| {
            let mut table = txn.open_table(REVOKED_PENDING)?;
            for (id, bytes) in rows {
                table.insert(&id.0, bytes.as_slice())?;
            }
            Ok(())
        })
    }

    /// Writes a transaction of this node's own user that waits for a block; the block that holds it removes it.
    ///
    /// # Errors
    /// Any failure of the disk; it stops the store.
    pub fn put_own(&mut self, id: Digest, transaction: &[u8]) -> Result<(), StoreError> {
        self.commit(|txn, _| {
            txn.open_table(OWN_PENDING)?.insert(&id.0, transaction)?;
            Ok(())
        })
    }

    /// Removes own transactions that wait for no block any more.
    ///
    /// # Errors
    /// Any failure of the disk; it stops the store.
    pub fn remove_own(&mut self, ids: &[Digest]) -> Result<(), StoreError> {
        self.commit(|txn, _| {
            let mut own = txn.open_table(OWN_PENDING)?;
            for id in ids {
                own.remove(&id.0)?;
            }
            Ok(())
        })
    }

    /// Builds the tree anew from the stored pairs.
    ///
    /// # Errors
    /// Any failure of the disk; it stops the store.
    pub fn rebuild_tree(&mut self) -> Result<(), StoreError> {
        let pairs = self.state()?.collect::<Result<Vec<_>, _>>()?;
        let tree = tree::build(pairs)?;
        self.commit(|txn, meta| {
            meta.tree = tree.head;
            tables::replace_nodes(txn, &tree)
        })
    }

    /// Gives unused pages back to the file system; says whether any were.
    ///
    /// # Errors
    /// Any failure of the disk; it stops the store.
    pub fn compact(&mut self) -> Result<bool, StoreError> {
        let compacted = self.writable()?.compact();
        compacted.map_err(|error| self.stop(redb::Error::from(error).into()))
    }

    /// Refuses another block at the marked height.
    fn check_marked(&self, head: Head) -> Result<(), StoreError> {
        match self.behind.and_then(|mark| mark.head) {
            Some(marked) if marked.height == head.height && marked.id != head.id => {
                Err(StoreError::Forked { height: head.height })
            }
            _ => Ok(()),
        }
    }

    /// Writes in one durable transaction, then the mark.
    fn commit(
        &mut self,
        change: impl FnOnce(&WriteTransaction, &mut Meta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let marked = self.behind;
        self.write(|txn, meta| {
            change(txn, meta)?;
            meta.writes = meta.writes.saturating_add(1);
            if let Some(mark) =
                marked.filter(|mark| meta.head.map(|head| head.height) >= mark.head.map(|head| head.height))
            {
                meta.writes = meta.writes.max(mark.writes.saturating_add(1));
            }
            meta.write(txn)
        })?;
        self.behind = marked.filter(|mark| self.meta.mark().is_behind(mark));
        if self.behind.is_none() {
            let bytes = self.meta.mark().encode();
            self.mark.write(&bytes).map_err(|error| self.stop(error.into()))?;
        }
        Ok(())
    }

    fn write(
        &mut self,
        change: impl FnOnce(&WriteTransaction, &mut Meta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut meta = self.meta.clone();
        let database = self.writable()?;
        // redb's default durability is Immediate: commit returns when the bytes are on the disk.
        let written = database.begin_write().map_err(StoreError::from).and_then(|txn| {
            change(&txn, &mut meta)?;
            Ok(txn.commit()?)
        });
        written.map_err(|error| self.stop(error))?;
        self.meta = meta;
        Ok(())
    }

    fn writable(&mut self) -> Result<&mut Database, StoreError> {
        match (&mut self.database, &self.stopped) {
            (Some(database), None) => Ok(database),
            (_, cause) => Err(StoreError::Stopped { cause: cause.clone().unwrap_or_default() }),
        }
    }

    /// Stops all writing and opens what the disk holds once more, to be read: redb itself reads nothing after a failure.
    fn stop(&mut self, error: StoreError) -> StoreError {
        tracing::error!(%error, "the ledger stopped writing");
        self.stopped = Some(error.to_string());
        self.pages.detach();
        self.database = None;
        let reopened = self.pages.reload_detached().map_err(StoreError::from).and_then(|()| {
            let database = open_database(&self.pages)?;
            self.pages.serve();
            self.meta = Meta::read(&database)?;
            Ok(database)
        });
        match reopened {
            Ok(database) => self.database = Some(database),
            Err(error) => tracing::error!(%error, "the ledger cannot be read either"),
        }
        error
    }
}

impl Drop for Store {
    /// Leaves the disk as the last commit left it.
    fn drop(&mut self) {
        self.pages.detach();
    }
}

fn open_database(pages: &Arc<SealedPages>) -> Result<Database, StoreError> {
    Ok(Builder::new().set_cache_size(CACHE_LEN).create_with_backend(Opening(Arc::clone(pages)))?)
}

/// Reads the mark; one that is unreadable counts as none where peers will fill the store up.
fn remembered(mark: &dyn HeadMark, chain: Digest, behind: Behind) -> Result<Option<Mark>, StoreError> {
    match (read_mark(mark, chain), behind) {
        (Err(StoreError::MarkCorrupt), Behind::Resync) => Ok(None),
        (marked, _) => marked,
    }
}

#[cfg(test)]
mod tests;
