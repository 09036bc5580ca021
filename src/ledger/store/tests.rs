use super::disk::Disk;
use super::tables::{BLOCKS, COMMITS, NODES, STATE};
use super::*;
use crate::ledger::tree::StateTree;
use redb::TableDefinition;
use std::fs::File;

mod corruption;
mod crash;

const CHAIN: Digest = Digest([7; 32]);

fn id(kind: u8, height: u64) -> Digest {
    let mut id = [kind; 32];
    id[..8].copy_from_slice(&height.to_le_bytes());
    Digest(id)
}

/// The block that follows the store's head: a few state changes, one transaction, a size that spans pages now and then.
fn next_block(store: &Store) -> BlockRecord {
    let height = store.head().map_or(0, |head| head.height + 1);
    let changes = vec![
        (format!("member/{height}").into_bytes(), Some(vec![height as u8; 40])),
        (b"head".to_vec(), Some(height.to_le_bytes().to_vec())),
        (format!("member/{}", height / 2).into_bytes(), height.is_multiple_of(3).then(|| b"renamed".to_vec())),
    ];
    let tree = store.tree().unwrap().update(&changes).unwrap();
    BlockRecord {
        height,
        id: id(1, height),
        block: vec![height as u8; 300 + (height as usize % 4) * 3000],
        commit: vec![!height as u8; 120],
        transaction_ids: vec![id(2, height)],
        changes,
        tree,
        settled_revocations: Vec::new(),
    }
}

fn grow(store: &mut Store, blocks: u64) {
    for _ in 0..blocks {
        let block = next_block(store);
        store.append(&block).unwrap();
    }
}

fn created(disk: &Disk, mark: &MemoryMark) -> Store {
    Store::create(disk.clone(), Box::new(mark.clone()), CHAIN, UnixMillis(5), Behind::Refuse).unwrap()
}

fn opened(disk: &Disk, mark: &MemoryMark) -> Result<Store, StoreError> {
    Store::open(disk.clone(), Box::new(mark.clone()), CHAIN, Behind::Refuse)
}

/// A disk with `blocks` blocks and one pending revocation on it, and its mark.
fn filled(blocks: u64) -> (Disk, MemoryMark) {
    let (disk, mark) = (Disk::default(), MemoryMark::default());
    let mut store = created(&disk, &mark);
    grow(&mut store, blocks);
    store.put_revocation(id(3, 0), b"revoke").unwrap();
    (disk, mark)
}

/// Everything that a store says of itself.
#[derive(PartialEq, Debug)]
struct Content {
    head: Option<Head>,
    created: UnixMillis,
    blocks: Vec<(Vec<u8>, Digest, Vec<u8>)>,
    transactions: Vec<Option<u64>>,
    state: Vec<Pair>,
    revocations: Vec<(Digest, Vec<u8>)>,
    root: Digest,
}

fn content(store: &Store) -> Result<Content, StoreError> {
    let heights = store.heights()?.into_iter().flatten().collect::<Vec<_>>();
    let missing = || StoreError::corrupt("a block is missing");
    let blocks = heights.iter().map(|&height| {
        Ok((
            store.block(height)?.ok_or_else(missing)?,
            store.block_id(height)?.ok_or_else(missing)?,
            store.commit_of(height)?.ok_or_else(missing)?,
        ))
    });
    let root = store.tree()?.root();
    store.verify_state(root)?;
    Ok(Content {
        head: store.head(),
        created: store.created(),
        blocks: blocks.collect::<Result<_, StoreError>>()?,
        transactions: heights
            .iter()
            .map(|&height| store.transaction_height(id(2, height)))
            .collect::<Result<_, _>>()?,
        state: store.state()?.collect::<Result<_, _>>()?,
        revocations: store.revocations()?,
        root,
    })
}

#[test]
fn what_was_appended_is_there_after_reopening() {
    let (disk, mark) = filled(6);
    let before = content(&opened(&disk, &mark).unwrap()).unwrap();
    assert_eq!(before.head, Some(Head { height: 5, id: id(1, 5) }));
    assert_eq!(before.transactions, (0..6).map(Some).collect::<Vec<_>>());
    assert_eq!(before.revocations, [(id(3, 0), b"revoke".to_vec())]);
    assert_eq!(before.blocks[3].0, vec![3; 9300]);
    let again = content(&opened(&disk, &mark).unwrap()).unwrap();
    assert_eq!(before, again);
}
