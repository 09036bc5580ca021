//! The state as an ordered map of bytes: typed tables over it, and the layers in which a block changes it.
//!
//! ```text
//! key   : table u8 | key, numbers big-endian, so that the order of bytes is the order of keys
//! value : borsh of the record
//! reads : transaction's changes ─► block's changes ─► entries before the block
//! ```

use super::super::Changes;
use super::super::name::Label;
use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::Digest;
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::time::UnixMillis;
use crate::wire::prefix::Prefix;
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::ops::Bound;

/// The entries of the state.
pub(super) type Entries = BTreeMap<Vec<u8>, Vec<u8>>;
/// Entries that changed, `None` where one ends.
pub(super) type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A table of the state: which keys, which records, under which first byte.
pub(super) struct Table<K, V> {
    tag: u8,
    types: PhantomData<fn(K) -> V>,
}

/// What a table may be ordered by.
pub(super) trait Key: Sized {
    /// Appends the key, such that the order of bytes is the order of keys.
    fn write(&self, bytes: &mut Vec<u8>);
    /// Reads what [`Key::write`] wrote; `None` for anything else.
    fn read(bytes: &[u8]) -> Option<Self>;
}

impl<K: Key, V: BorshSerialize + BorshDeserialize> Table<K, V> {
    /// Names a table; each tag once.
    pub(super) const fn new(tag: u8) -> Self {
        Self { tag, types: PhantomData }
    }

    pub(super) fn key(&self, key: &K) -> Vec<u8> {
        let mut bytes = vec![self.tag];
        key.write(&mut bytes);
        bytes
    }

    fn parse_key(&self, bytes: &[u8]) -> K {
        K::read(&bytes[1..]).expect("State::from_entries read every key once, and only Table::key writes them")
    }

    fn parse_value(bytes: &[u8]) -> V {
        borsh::from_slice(bytes).expect("State::from_entries read every value once, and only Draft::put writes them")
    }

    /// Says whether an entry that comes from outside belongs here and can be read.
    pub(super) fn accepts(&self, key: &[u8], value: &[u8]) -> bool {
        key.first() == Some(&self.tag) && K::read(&key[1..]).is_some() && borsh::from_slice::<V>(value).is_ok()
    }
}

/// Anything that the state can be read from: the state itself, or a draft of the next one.
pub(super) trait View {
    /// Lends the value of an entry.
    fn value(&self, key: &[u8]) -> Option<&[u8]>;

    /// Visits the entries from `from` up to and not including `to`, until `visit` returns `false`.
    fn visit(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool);

    /// Reads a record.
    fn read<K: Key, V: BorshSerialize + BorshDeserialize>(&self, table: &Table<K, V>, key: &K) -> Option<V> {
        self.value(&table.key(key)).map(Table::<K, V>::parse_value)
    }

    /// Says whether a record exists.
    fn has<K: Key, V: BorshSerialize + BorshDeserialize>(&self, table: &Table<K, V>, key: &K) -> bool {
        self.value(&table.key(key)).is_some()
    }

    /// Calls `visit` for each record of a table, unread.
    fn visit_table<K: Key, V: BorshSerialize + BorshDeserialize>(&self, table: &Table<K, V>, visit: &mut dyn FnMut()) {
        self.visit(&[table.tag], &successor(&[table.tag]), &mut |_, _| {
            visit();
            true
        });
    }

    /// Collects the keys of a table from its first up to the first that `keep` refuses.
    fn take_while<K: Key, V: BorshSerialize + BorshDeserialize>(
        &self,
        table: &Table<K, V>,
        keep: impl Fn(&K) -> bool,
    ) -> Vec<K> {
        let mut keys = Vec::new();
        self.visit(&[table.tag], &successor(&[table.tag]), &mut |key, _| {
            let key = table.parse_key(key);
            let kept = keep(&key);
            if kept {
                keys.push(key);
            }
            kept
        });
        keys
    }

    /// Collects up to `limit` records of a table whose keys begin with `prefix`, in order.
    fn list<K: Key, V: BorshSerialize + BorshDeserialize>(
        &self,
        table: &Table<K, V>,
        prefix: &[u8],
        limit: usize,
    ) -> Vec<(K, V)> {
        let from = [&[table.tag], prefix].concat();
        let mut records = Vec::new();
        if limit == 0 {
            return records;
        }
        self.visit(&from, &successor(&from), &mut |key, value| {
            records.push((table.parse_key(key), Table::<K, V>::parse_value(value)));
            records.len() < limit
        });
        records
    }
}

/// The first byte string behind all those that begin with `prefix`. Tags are below 255, so there is one.
fn successor(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

fn range<'a, V>(map: &'a BTreeMap<Vec<u8>, V>, from: &[u8], to: &[u8]) -> impl Iterator<Item = (&'a Vec<u8>, &'a V)> {
    map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
}

impl View for Entries {
    fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.get(key).map(Vec::as_slice)
    }

    fn visit(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        for (key, value) in range(self, from, to) {
            if !visit(key, value) {
                return;
            }
        }
    }
}

/// The entries before a block under the changes of the block so far, under those of one transaction.
pub(super) struct Layers<'a> {
    base: &'a Entries,
    block: Overlay,
    transaction: Overlay,
}

impl<'a> Layers<'a> {
    pub(super) fn over(base: &'a Entries) -> Self {
        Self { base, block: Overlay::new(), transaction: Overlay::new() }
    }

    pub(super) fn put<K: Key, V: BorshSerialize + BorshDeserialize>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
        record: &V,
    ) {
        let value = borsh::to_vec(record).expect("writing to memory does not fail");
        self.transaction.insert(table.key(key), Some(value));
    }

    pub(super) fn remove<K: Key, V: BorshSerialize + BorshDeserialize>(&mut self, table: &Table<K, V>, key: &K) {
        self.transaction.insert(table.key(key), None);
    }

    /// Makes the transaction's changes part of the block's.
    pub(super) fn keep(&mut self) {
        self.block.append(&mut self.transaction);
    }

    /// Forgets the transaction's changes.
    pub(super) fn discard(&mut self) {
        self.transaction.clear();
    }

    /// Gives the block's changes up, without those that change nothing.
    pub(super) fn into_changes(self) -> Changes {
        let base = self.base;
        self.block.into_iter().filter(|(key, value)| base.get(key) != value.as_ref()).collect()
    }
}

impl View for Layers<'_> {
    fn value(&self, key: &[u8]) -> Option<&[u8]> {
        match self.transaction.get(key).or_else(|| self.block.get(key)) {
            Some(changed) => changed.as_deref(),
            None => self.base.value(key),
        }
    }

    /// Merges the three layers: of entries with one key the newest counts.
    fn visit(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        let mut base = range(self.base, from, to).peekable();
        let mut block = range(&self.block, from, to).peekable();
        let mut transaction = range(&self.transaction, from, to).peekable();
        loop {
            let keys = [base.peek().map(|(key, _)| *key), block.peek().map(|(key, _)| *key)];
            let keys = keys.into_iter().chain([transaction.peek().map(|(key, _)| *key)]);
            let Some(next) = keys.flatten().min() else { return };
            let oldest = base.next_if(|(key, _)| *key == next).map(|(_, value)| Some(value));
            let older = block.next_if(|(key, _)| *key == next).map(|(_, value)| value.as_ref());
            let newest = transaction.next_if(|(key, _)| *key == next).map(|(_, value)| value.as_ref());
            if let Some(Some(value)) = newest.or(older).or(oldest)
                && !visit(next, value)
            {
                return;
            }
        }
    }
}

impl Key for () {
    fn write(&self, _: &mut Vec<u8>) {}

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

/// Keys of a fixed width whose bytes are their order.
macro_rules! byte_keys {
    ($($name:ty: |$this:ident| $inner:expr, |$bytes:ident| $outer:expr;)*) => {
        $(impl Key for $name {
            fn write(&self, bytes: &mut Vec<u8>) {
                let $this = self;
                bytes.extend_from_slice(&$inner);
            }

            fn read(bytes: &[u8]) -> Option<Self> {
                let $bytes = bytes.try_into().ok()?;
                Some($outer)
            }
        })*
    };
}

byte_keys! {
    u32: |number| number.to_be_bytes(), |bytes| Self::from_be_bytes(bytes);
    u64: |number| number.to_be_bytes(), |bytes| Self::from_be_bytes(bytes);
    UnixMillis: |time| time.0.to_be_bytes(), |bytes| Self(u64::from_be_bytes(bytes));
    NodeId: |id| id.0, |bytes| Self(bytes);
    VerifyingKey: |key| key.0, |bytes| Self(bytes);
    TransportKey: |key| key.0, |bytes| Self(bytes);
    Digest: |digest| digest.0, |bytes| Self(bytes);
}

/// Addresses of IPv4 before those of IPv6; of prefixes with one address the shortest first.
impl Key for Prefix {
    fn write(&self, bytes: &mut Vec<u8>) {
        match self.address() {
            IpAddr::V4(address) => {
                bytes.push(4);
                bytes.extend_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                bytes.push(6);
                bytes.extend_from_slice(&address.octets());
            }
        }
        bytes.push(self.bits());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (len, address) = rest.split_last()?;
        let address = match version {
            4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
            6 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
            _ => return None,
        };
        Self::new(address, *len).ok().filter(|prefix| prefix.address() == address)
    }
}

impl Key for Label {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_str().as_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok()?.parse().ok()
    }
}

/// A key of one of several tables that share a tag: its first byte says which.
pub(super) struct Part<const NUMBER: u8, K>(pub(super) K);

impl<const NUMBER: u8, K: Key> Key for Part<NUMBER, K> {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(NUMBER);
        self.0.write(bytes);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (number, key) = bytes.split_first()?;
        (*number == NUMBER).then(|| K::read(key).map(Self)).flatten()
    }
}

/// A pair whose first half has a fixed width.
macro_rules! pair_keys {
    ($($first:ty [$width:literal], $second:ty;)*) => {
        $(impl Key for ($first, $second) {
            fn write(&self, bytes: &mut Vec<u8>) {
                self.0.write(bytes);
                self.1.write(bytes);
            }

            fn read(bytes: &[u8]) -> Option<Self> {
                let (first, second) = bytes.split_at_checked($width)?;
                Some((<$first>::read(first)?, <$second>::read(second)?))
            }
        })*
    };
}

pair_keys! {
    VerifyingKey [32], Digest;
    NodeId [32], u64;
    NodeId [32], Prefix;
    u32 [4], NodeId;
    UnixMillis [8], super::records::Ending;
    UnixMillis [8], super::records::Rest;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NUMBERS: Table<u32, u8> = Table::new(7);

    #[test]
    fn a_discarded_transaction_leaves_nothing() {
        let base = Entries::new();
        let mut layers = Layers::over(&base);
        layers.put(&NUMBERS, &1, &1);
        layers.keep();
        layers.put(&NUMBERS, &1, &2);
        layers.put(&NUMBERS, &2, &2);
        layers.discard();
        assert_eq!((layers.read(&NUMBERS, &1), layers.read(&NUMBERS, &2)), (Some(1), None));
        assert_eq!(layers.into_changes().len(), 1);
    }

    #[test]
    fn a_change_back_is_no_change() {
        let base = Entries::from([(NUMBERS.key(&1), vec![1])]);
        let mut layers = Layers::over(&base);
        layers.remove(&NUMBERS, &1);
        layers.remove(&NUMBERS, &2);
        layers.keep();
        layers.put(&NUMBERS, &1, &1);
        layers.keep();
        assert_eq!(layers.into_changes(), []);
    }

    proptest! {
        #[test]
        fn layers_read_like_the_map_that_they_will_become(
            base in proptest::collection::btree_map(0u32..16, any::<u8>(), 0..12),
            block in proptest::collection::btree_map(0u32..16, any::<Option<u8>>(), 0..8),
            transaction in proptest::collection::btree_map(0u32..16, any::<Option<u8>>(), 0..8),
        ) {
            let entries: Entries = base.iter().map(|(key, value)| (NUMBERS.key(key), vec![*value])).collect();
            let mut layers = Layers::over(&entries);
            let mut model = base;
            for (changes, keep) in [(block, true), (transaction, false)] {
                for (key, value) in changes {
                    match value {
                        Some(value) => { layers.put(&NUMBERS, &key, &value); model.insert(key, value); }
                        None => { layers.remove(&NUMBERS, &key); model.remove(&key); }
                    }
                }
                if keep { layers.keep(); }
            }
            let expected: Vec<(u32, u8)> = model.into_iter().collect();
            prop_assert_eq!(layers.list(&NUMBERS, &[], usize::MAX), expected.clone());
            prop_assert_eq!(layers.list(&NUMBERS, &[], 2), expected[..expected.len().min(2)].to_vec());
        }
    }
}
