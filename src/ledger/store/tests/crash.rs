//! Killed, powered off, out of space, broken: the old content or the new, and no write after a failed one.

use super::*;
use crate::ledger::store::disk::Fault;

/// Appends one block to a copy of `image` on a disk that fails after `operations`; returns the disk and what came of it.
fn append_failing(
    image: &[u8],
    mark: &MemoryMark,
    operations: u64,
    fault: Fault,
) -> (Disk, MemoryMark, Result<(), StoreError>) {
    let (disk, mark) = (Disk::new(image), MemoryMark::new(mark.bytes()));
    let mut store = opened(&disk, &mark).unwrap();
    let block = next_block(&store);
    disk.fail_after(operations, Some(fault));
    let result = store.append(&block);
    drop(store);
    disk.fail_after(0, None);
    (disk, mark, result)
}

/// The contents before and after the next block.
fn old_and_new(image: &[u8], mark: &MemoryMark) -> [Content; 2] {
    let (disk, mark) = (Disk::new(image), MemoryMark::new(mark.bytes()));
    let mut store = opened(&disk, &mark).unwrap();
    let old = content(&store).unwrap();
    grow(&mut store, 1);
    [old, content(&store).unwrap()]
}

/// The number of disk operations of the next block.
fn operations_of_append(image: &[u8], mark: &MemoryMark) -> u64 {
    let disk = Disk::new(image);
    let mut store = opened(&disk, &MemoryMark::new(mark.bytes())).unwrap();
    let block = next_block(&store);
    let before = disk.operations();
    store.append(&block).unwrap();
    disk.operations() - before
}

#[test]
fn a_kill_or_power_cut_at_any_write_leaves_the_old_block_or_the_new() {
    let (disk, mark) = filled(9);
    let image = disk.image();
    let [old, new] = old_and_new(&image, &mark);
    let points = operations_of_append(&image, &mark);
    let (mut olds, mut news) = (0, 0);
    for point in 0..=points {
        let (disk, mark, result) = append_failing(&image, &mark, point, Fault::Broken);
        assert_eq!(result.is_ok(), point == points);
        let killed = std::iter::once(disk.after_kill());
        for left in killed.chain((0..30).map(|seed| disk.after_power_cut(seed * 1000 + point))) {
            let found = content(&opened(&left, &mark).unwrap()).unwrap();
            assert!(found == old || found == new, "point {point}");
            assert!(result.is_err() || found == new, "an acknowledged block was lost");
            if found == old { olds += 1 } else { news += 1 }
        }
    }
    println!("{points} write points, {olds} times the old block, {news} times the new");
    assert!(points >= 10 && olds > 100 && news > 30);
}

#[test]
fn a_power_cut_while_opening_after_a_power_cut_loses_nothing() {
    let (disk, mark) = filled(7);
    let image = disk.image();
    let [old, new] = old_and_new(&image, &mark);
    for seed in 0..40 {
        let (disk, mark, _) = append_failing(&image, &mark, seed % 20, Fault::Broken);
        let mut left = disk.after_power_cut(seed);
        for again in 0..6 {
            left.fail_after(again, Some(Fault::Broken));
            let _ = opened(&left, &mark);
            left.fail_after(0, None);
            left = left.after_power_cut(seed + 100 * again);
        }
        let found = content(&opened(&left, &mark).unwrap()).unwrap();
        assert!(found == old || found == new, "seed {seed}");
    }
}

#[test]
fn many_blocks_with_power_cuts_between_and_within_stay_a_chain() {
    let (mut disk, mark) = filled(1);
    for seed in 0..60 {
        let mut store = opened(&disk, &mark).unwrap();
        let acknowledged = store.head().unwrap().height;
        grow(&mut store, seed % 3);
        let block = next_block(&store);
        disk.fail_after(seed % 23, Some(Fault::Broken));
        let appended = store.append(&block).is_ok();
        let least = acknowledged + seed % 3 + u64::from(appended);
        drop(store);
        disk = disk.after_power_cut(seed);
        let store = opened(&disk, &mark).unwrap();
        assert!((least..=block.height).contains(&store.head().unwrap().height), "seed {seed}");
        content(&store).unwrap();
    }
}

#[test]
fn a_full_disk_keeps_the_old_head_readable_and_refuses_further_writes() {
    let (disk, mark) = filled(9);
    let image = disk.image();
    let [old, new] = old_and_new(&image, &mark);
    for point in 0..operations_of_append(&image, &mark) {
        let (disk, mark) = (Disk::new(&image), MemoryMark::new(mark.bytes()));
        let mut store = opened(&disk, &mark).unwrap();
        let block = next_block(&store);
        disk.fail_after(point, Some(Fault::NoSpace));
        // Syncs succeed on a full disk, so the last point may be past the last write.
        let Err(error) = store.append(&block) else { continue };
        assert!(matches!(error, StoreError::DiskFull), "point {point}: {error}");
        let seen = content(&store).unwrap();
        assert!(seen == old || seen == new, "point {point}");
        disk.fail_after(0, None);
        let image = disk.image();
        assert!(matches!(store.put_revocation(id(3, 1), b"x"), Err(StoreError::Stopped { .. })));
        let next = next_block(&store);
        assert!(matches!(store.append(&next), Err(StoreError::Stopped { .. })));
        drop(store);
        assert_eq!(disk.image(), image, "a stopped store wrote");
        let mut store = opened(&disk, &mark).unwrap();
        let found = content(&store).unwrap();
        assert!(found == old || found == new, "point {point}");
        grow(&mut store, 1);
    }
}

#[test]
fn a_store_on_a_full_disk_opens_to_be_read() {
    let (disk, mark) = filled(9);
    let before = content(&opened(&disk, &mark).unwrap()).unwrap();
    let image = disk.image();
    for operations in 0..6 {
        let disk = Disk::new(&image);
        disk.fail_after(operations, Some(Fault::NoSpace));
        let mut store = opened(&disk, &mark).unwrap();
        assert_eq!(content(&store).unwrap(), before);
        let block = next_block(&store);
        assert!(store.append(&block).is_err());
        drop(store);
        disk.fail_after(0, None);
        assert_eq!(content(&opened(&disk, &mark).unwrap()).unwrap(), before);
    }
}

#[test]
fn a_crash_between_block_and_mark_is_no_rollback() {
    let (disk, mark) = filled(3);
    let before = mark.bytes();
    let mut store = opened(&disk, &mark).unwrap();
    grow(&mut store, 1);
    drop(store);
    assert_eq!(opened(&disk, &MemoryMark::new(before)).unwrap().head().unwrap().height, 3);
}

#[test]
fn a_mark_that_cannot_be_written_stops_the_store() {
    #[derive(Clone)]
    struct FullFolder(MemoryMark);
    impl HeadMark for FullFolder {
        fn read(&self) -> std::io::Result<Option<Vec<u8>>> {
            self.0.read()
        }
        fn write(&mut self, _: &[u8]) -> std::io::Result<()> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
    }
    let (disk, mark) = filled(3);
    let mut store = Store::open(disk.clone(), Box::new(FullFolder(mark.clone())), CHAIN, Behind::Refuse).unwrap();
    let block = next_block(&store);
    let (expected, before) = (operations_of_append(&disk.image(), &mark), disk.operations());
    assert!(matches!(store.append(&block), Err(StoreError::DiskFull)));
    assert_eq!(disk.operations() - before, expected, "nothing is written after the failure");
    assert_eq!(store.head().unwrap().height, 3);
    assert!(matches!(store.put_revocation(id(3, 1), b"x"), Err(StoreError::Stopped { .. })));
    assert!(store.stopped().is_some());
    drop(store);
    assert_eq!(opened(&disk, &mark).unwrap().head().unwrap().height, 3);
}

#[test]
fn pending_revocations_survive_blocks_crashes_and_snapshots_until_settled() {
    let (disk, mark) = filled(2);
    let mut store = opened(&disk, &mark).unwrap();
    store.put_revocation(id(3, 1), b"second").unwrap();
    drop(store);
    let disk = disk.after_power_cut(1);
    let mut store = opened(&disk, &mark).unwrap();
    assert_eq!(store.revocations().unwrap().len(), 2);
    let block = BlockRecord { settled_revocations: vec![id(3, 0)], ..next_block(&store) };
    store.append(&block).unwrap();
    assert_eq!(store.revocations().unwrap(), [(id(3, 1), b"second".to_vec())]);
    store.install(&snapshot(&store, 50)).unwrap();
    assert_eq!(store.revocations().unwrap(), [(id(3, 1), b"second".to_vec())]);
    let block = BlockRecord { settled_revocations: vec![id(3, 1)], ..next_block(&store) };
    store.append(&block).unwrap();
    drop(store);
    assert_eq!(opened(&disk, &mark).unwrap().revocations().unwrap(), []);
}

/// A snapshot with one member more than `store` has.
fn snapshot(store: &Store, height: u64) -> Snapshot {
    let mut state: Vec<_> = store.state().unwrap().collect::<Result<_, _>>().unwrap();
    state.push((b"member/new".to_vec(), b"x".to_vec()));
    let root = tree::build(state.clone()).unwrap().head.root;
    Snapshot { height, id: id(1, height), block: vec![1; 10], commit: vec![2; 10], state, root }
}

#[test]
fn a_snapshot_replaces_blocks_and_state_and_the_chain_goes_on() {
    let (disk, mark) = filled(5);
    let mut store = opened(&disk, &mark).unwrap();
    let snapshot = snapshot(&store, 1024);
    let lie = Snapshot { root: id(9, 9), ..snapshot.clone() };
    assert!(matches!(store.install(&lie), Err(StoreError::WrongState { .. })));
    let old = Snapshot { height: 4, ..snapshot.clone() };
    assert!(matches!(store.install(&old), Err(StoreError::NotNext { expected: 5, got: 4 })));
    store.install(&snapshot).unwrap();
    store.verify_state(snapshot.root).unwrap();
    grow(&mut store, 3);
    drop(store);
    let store = opened(&disk, &mark).unwrap();
    assert_eq!(store.heights().unwrap(), Some(1024..=1027));
    assert_eq!(store.transaction_height(id(2, 3)).unwrap(), None);
    assert_eq!(store.block(3).unwrap(), None);
    content(&store).unwrap();
}

#[test]
fn only_the_next_block_and_an_update_of_the_stored_tree_are_written() {
    let (disk, mark) = filled(5);
    let mut store = opened(&disk, &mark).unwrap();
    let block = next_block(&store);
    for height in [0, 4, 6, u64::MAX] {
        let other = BlockRecord { height, ..block.clone() };
        assert!(matches!(store.append(&other), Err(StoreError::NotNext { expected: 5, .. })));
    }
    store.append(&block).unwrap();
    let stale = BlockRecord { height: 6, ..block };
    assert!(matches!(store.append(&stale), Err(StoreError::StaleUpdate)));
    assert_eq!(store.stopped(), None);
    grow(&mut store, 1);
}

#[test]
fn compaction_keeps_the_content() {
    let (disk, mark) = filled(200);
    let mut store = opened(&disk, &mark).unwrap();
    let before = content(&store).unwrap();
    store.compact().unwrap();
    assert_eq!(content(&store).unwrap(), before);
    drop(store);
    let mut store = opened(&disk, &mark).unwrap();
    assert_eq!(content(&store).unwrap(), before);
    grow(&mut store, 1);
}
