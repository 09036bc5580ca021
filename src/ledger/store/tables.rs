//! The tables inside the database, and what is checked of them before anything is believed.

use super::error::StoreError;
use super::mark::{Head, Mark};
use super::{BlockRecord, Snapshot};
use crate::crypto::hash::Digest;
use crate::ledger::tree::{NodeSource, TreeError, TreeHead, TreeUpdate};
use crate::time::UnixMillis;
use borsh::{BorshDeserialize, BorshSerialize};
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    TableError, WriteTransaction,
};

/// The format written; a higher one is refused.
pub(super) const FORMAT: u32 = 1;

/// Height → block id ‖ block.
pub(super) const BLOCKS: TableDefinition<u64, &[u8]> = TableDefinition::new("blocks");
/// Height → commit certificate.
pub(super) const COMMITS: TableDefinition<u64, &[u8]> = TableDefinition::new("commits");
/// Transaction id → height.
pub(super) const TRANSACTIONS: TableDefinition<&[u8; 32], u64> = TableDefinition::new("transactions");
/// State key → value.
pub(super) const STATE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("state");
/// Tree node key → node.
pub(super) const NODES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("nodes");
/// Name → what revokes before its block does, in the ledger's encoding.
pub(super) const REVOKED_PENDING: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("revoked_pending");
/// Transaction id → transaction of this node's own user that waits for a block.
pub(super) const OWN_PENDING: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("own_pending");

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const META_KEY: &str = "meta";

/// What the store knows of itself.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub(super) struct Meta {
    pub(super) chain: Digest,
    pub(super) created: UnixMillis,
    /// Blocks, snapshots and changes of what waits for a block, ever.
    pub(super) writes: u64,
    pub(super) head: Option<Head>,
    pub(super) tree: TreeHead,
}

impl Meta {
    pub(super) fn new(chain: Digest, created: UnixMillis) -> Self {
        Self { chain, created, writes: 0, head: None, tree: TreeHead::EMPTY }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { chain: self.chain, writes: self.writes, head: self.head }
    }

    pub(super) fn write(&self, txn: &WriteTransaction) -> Result<(), StoreError> {
        let bytes = borsh::to_vec(self).expect("borsh writes to memory without error");
        let mut table = txn.open_table(META)?;
        table.insert(FORMAT_KEY, FORMAT.to_le_bytes().as_slice())?;
        table.insert(META_KEY, bytes.as_slice())?;
        Ok(())
    }

    pub(super) fn read(database: &Database) -> Result<Self, StoreError> {
        let table = open(&database.begin_read()?, META)?;
        let format = table.get(FORMAT_KEY)?.ok_or_else(|| StoreError::corrupt("no format"))?;
        let format = format.value().try_into().map(u32::from_le_bytes);
        match format.map_err(|_| StoreError::corrupt("malformed format"))? {
            FORMAT => {}
            found if found > FORMAT => return Err(StoreError::NewerFormat { found }),
            _ => return Err(StoreError::corrupt("unknown format")),
        }
        let bytes = table.get(META_KEY)?.ok_or_else(|| StoreError::corrupt("no meta record"))?;
        borsh::from_slice(bytes.value()).map_err(|_| StoreError::corrupt("malformed meta record"))
    }
}

/// Opens a table to read; one that is not there, or is of another type, is corruption.
pub(super) fn open<K: redb::Key, V: redb::Value>(
    txn: &ReadTransaction,
    table: TableDefinition<K, V>,
) -> Result<ReadOnlyTable<K, V>, StoreError> {
    txn.open_table(table).map_err(|error| match error {
        TableError::Storage(error) => error.into(),
        other => StoreError::corrupt(other.to_string()),
    })
}

/// Makes all tables.
pub(super) fn create(database: &Database, meta: &Meta) -> Result<(), StoreError> {
    let txn = database.begin_write()?;
    meta.write(&txn)?;
    txn.open_table(BLOCKS)?;
    txn.open_table(COMMITS)?;
    txn.open_table(TRANSACTIONS)?;
    txn.open_table(STATE)?;
    txn.open_table(NODES)?;
    txn.open_table(REVOKED_PENDING)?;
    txn.open_table(OWN_PENDING)?;
    Ok(txn.commit()?)
}

/// Checks that blocks and commits are unbroken rows that end at the head.
pub(super) fn check_head(database: &Database, meta: &Meta) -> Result<(), StoreError> {
    let txn = database.begin_read()?;
    let (blocks, commits) = (open(&txn, BLOCKS)?, open(&txn, COMMITS)?);
    let head = match blocks.last()? {
        Some((height, value)) => Some(Head { height: height.value(), id: split_block(value.value())?.0 }),
        None => None,
    };
    if head != meta.head {
        return Err(StoreError::corrupt("the head record is not the last block"));
    }
    let rows = [row(&blocks)?, row(&commits)?];
    if rows[0] != rows[1] {
        return Err(StoreError::corrupt("blocks and commits differ"));
    }
    Ok(())
}

/// Returns the first and last height of a table that has every height between.
fn row(table: &ReadOnlyTable<u64, &'static [u8]>) -> Result<Option<(u64, u64)>, StoreError> {
    let (Some((first, _)), Some((last, _))) = (table.first()?, table.last()?) else { return Ok(None) };
    let (first, last) = (first.value(), last.value());
    if last - first == table.len()? - 1 {
        Ok(Some((first, last)))
    } else {
        Err(StoreError::corrupt("heights are missing"))
    }
}

/// Splits a value of [`BLOCKS`].
pub(super) fn split_block(value: &[u8]) -> Result<(Digest, &[u8]), StoreError> {
    let (id, block) = value.split_first_chunk::<32>().ok_or_else(|| StoreError::corrupt("a block without id"))?;
    Ok((Digest(*id), block))
}

fn insert_block(txn: &WriteTransaction, head: Head, block: &[u8], commit: &[u8]) -> Result<(), StoreError> {
    let value = [head.id.0.as_slice(), block].concat();
    txn.open_table(BLOCKS)?.insert(head.height, value.as_slice())?;
    txn.open_table(COMMITS)?.insert(head.height, commit)?;
    Ok(())
}

/// Writes a block and all that changes with it.
pub(super) fn append(txn: &WriteTransaction, record: &BlockRecord) -> Result<(), StoreError> {
    insert_block(txn, record.head(), &record.block, &record.commit)?;
    let mut transactions = txn.open_table(TRANSACTIONS)?;
    for id in &record.transaction_ids {
        transactions.insert(&id.0, record.height)?;
    }
    let mut state = txn.open_table(STATE)?;
    for (key, value) in &record.changes {
        match value {
            Some(value) => state.insert(key.as_slice(), value.as_slice())?,
            None => state.remove(key.as_slice())?,
        };
    }
    let mut pending = txn.open_table(REVOKED_PENDING)?;
    for id in &record.settled_revocations {
        pending.remove(&id.0)?;
    }
    let mut own = txn.open_table(OWN_PENDING)?;
    for id in &record.transaction_ids {
        own.remove(&id.0)?;
    }
    write_nodes(txn, &record.tree)
}

/// Replaces everything but what waits for a block by a snapshot.
pub(super) fn install(txn: &WriteTransaction, snapshot: &Snapshot, tree: &TreeUpdate) -> Result<(), StoreError> {
    txn.delete_table(BLOCKS)?;
    txn.delete_table(COMMITS)?;
    txn.delete_table(TRANSACTIONS)?;
    txn.delete_table(STATE)?;
    insert_block(txn, snapshot.head(), &snapshot.block, &snapshot.commit)?;
    txn.open_table(TRANSACTIONS)?;
    let mut state = txn.open_table(STATE)?;
    for (key, value) in &snapshot.state {
        state.insert(key.as_slice(), value.as_slice())?;
    }
    replace_nodes(txn, tree)
}

/// Replaces all tree nodes by those of a tree built from nothing.
pub(super) fn replace_nodes(txn: &WriteTransaction, tree: &TreeUpdate) -> Result<(), StoreError> {
    txn.delete_table(NODES)?;
    write_nodes(txn, tree)
}

fn write_nodes(txn: &WriteTransaction, tree: &TreeUpdate) -> Result<(), StoreError> {
    let mut nodes = txn.open_table(NODES)?;
    for key in &tree.removed {
        nodes.remove(key.as_slice())?;
    }
    for (key, node) in &tree.written {
        nodes.insert(key.as_slice(), node.as_slice())?;
    }
    Ok(())
}

/// The tree nodes as of one moment. While it lives, the pages that later blocks free are not used again: keep it short.
pub struct StoredNodes(pub(super) ReadOnlyTable<&'static [u8], &'static [u8]>);

impl NodeSource for StoredNodes {
    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        let value = self.0.get(key).map_err(|error| TreeError::Source(error.to_string()))?;
        Ok(value.map(|value| value.value().to_vec()))
    }
}
