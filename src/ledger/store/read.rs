//! What the store answers: everything here reads what was committed, also after writing has stopped.

use super::error::StoreError;
use super::tables::{self, BLOCKS, COMMITS, NODES, OWN_PENDING, REVOKED_PENDING, STATE, StoredNodes, TRANSACTIONS};
use super::{Pair, Store};
use crate::crypto::hash::Digest;
use crate::ledger::tree::{self, Tree};
use redb::{Key, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, Value};
use std::ops::RangeInclusive;

impl Store {
    /// Returns the pending revocations in the order of their ids.
    ///
    /// # Errors
    /// Any failure to read.
    pub fn revocations(&self) -> Result<Vec<(Digest, Vec<u8>)>, StoreError> {
        self.waiting(REVOKED_PENDING)
    }

    /// Returns the transactions of this node's own user that wait for a block, in the order of their ids.
    ///
    /// # Errors
    /// Any failure to read.
    pub fn own_pending(&self) -> Result<Vec<(Digest, Vec<u8>)>, StoreError> {
        self.waiting(OWN_PENDING)
    }

    fn waiting(
        &self,
        table: TableDefinition<&'static [u8; 32], &'static [u8]>,
    ) -> Result<Vec<(Digest, Vec<u8>)>, StoreError> {
        let table = self.table(table)?;
        let rows = table.iter()?.map(|row| {
            let (id, transaction) = row?;
            Ok((Digest(*id.value()), transaction.value().to_vec()))
        });
        rows.collect()
    }

    /// Returns the block at `height`.
    ///
    /// # Errors
    /// Any failure to read.
    pub fn block(&self, height: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(value) = self.table(BLOCKS)?.get(height)? else { return Ok(None) };
        Ok(Some(tables::split_block(value.value())?.1.to_vec()))
    }

    /// Returns the id of the block at `height`.
    ///
    /// # Errors
    /// Any failure to read.
    pub fn block_id(&self, height: u64) -> Result<Option<Digest>, StoreError> {
        let Some(value) = self.table(BLOCKS)?.get(height)? else { return Ok(None) };
        Ok(Some(tables::split_block(value.value())?.0))
    }

    /// Returns the commit certificate of the block at `height`.
    ///
    /// # Errors
    /// Any failure to read.
    pub fn commit_of(&self, height: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.table(COMMITS)?.get(height)?.map(|value| value.value().to_vec()))
    }

    /// Returns the heights that are held, `None` before the first block: from 0, or from the last snapshot.
    ///
    /// # Errors
    /// Any failure to read.
    pub fn heights(&self) -> Result<Option<RangeInclusive<u64>>, StoreError> {
        let table = self.table(BLOCKS)?;
        let (Some((first, _)), Some((last, _))) = (table.first()?, table.last()?) else { return Ok(None) };
        Ok(Some(first.value()..=last.value()))
    }

    /// Returns the height of the block that holds the transaction `id`, as far as blocks are held.
    ///
    /// # Errors
    /// Any failure to read.
    pub fn transaction_height(&self, id: Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.table(TRANSACTIONS)?.get(&id.0)?.map(|height| height.value()))
    }

    /// Returns the state's pairs in the order of their keys.
    ///
    /// # Errors
    /// Any failure to read, also while going through them.
    pub fn state(&self) -> Result<impl Iterator<Item = Result<Pair, StoreError>> + use<>, StoreError> {
        let rows = self.table(STATE)?.range_owned::<&[u8]>(..)?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            Ok((key.value().to_vec(), value.value().to_vec()))
        }))
    }

    /// Returns the state tree as of the head.
    ///
    /// # Errors
    /// Any failure to read.
    pub fn tree(&self) -> Result<Tree<StoredNodes>, StoreError> {
        Ok(Tree::new(StoredNodes(self.table(NODES)?), self.meta.tree))
    }

    /// Checks that the stored pairs have the state root that the head block certifies, and that the tree is theirs.
    ///
    /// # Errors
    /// [`StoreError::WrongState`] for the pairs; [`StoreError::Tree`] when only the tree is not theirs, which
    /// [`Store::rebuild_tree`] repairs.
    pub fn verify_state(&self, root: Digest) -> Result<(), StoreError> {
        let pairs = self.state()?.collect::<Result<Vec<_>, _>>()?;
        let tree = self.tree()?;
        let checked = tree.check(pairs.iter().cloned());
        let stored = if checked.is_ok() { self.meta.tree.root } else { tree::build(pairs)?.head.root };
        if stored != root {
            return Err(StoreError::WrongState { stored, expected: root });
        }
        Ok(checked?)
    }

    fn table<K: Key, V: Value>(&self, table: TableDefinition<K, V>) -> Result<ReadOnlyTable<K, V>, StoreError> {
        let Some(database) = &self.database else {
            return Err(StoreError::Stopped { cause: self.stopped.clone().unwrap_or_default() });
        };
        tables::open(&database.begin_read()?, table)
    }
}
