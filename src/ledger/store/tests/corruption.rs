//! Deleted, truncated, flipped, swapped, rolled back: an error with its cause, or the identical content; never a panic.

use super::*;
use crate::ledger::store::disk::Fault;
use redb::backends::InMemoryBackend;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Opens an image and reads everything in it; `catch_unwind` only to name the damage that would make it panic.
fn read_all(image: &[u8], mark: &MemoryMark, damage: &str) -> Result<Content, StoreError> {
    let mark = MemoryMark::new(mark.bytes());
    let disk = Disk::new(image);
    let result = catch_unwind(AssertUnwindSafe(|| content(&opened(&disk, &mark)?)));
    result.unwrap_or_else(|_| panic!("panic: {damage}"))
}

/// Flips bits and says how many flips were refused; one that is not must leave the content as it was.
fn flip(image: &[u8], mark: &MemoryMark, positions: impl Iterator<Item = usize>) -> usize {
    let whole = read_all(image, mark, "none").unwrap();
    let mut refused = 0;
    for at in positions {
        let mut damaged = image.to_vec();
        damaged[at] ^= 1 << (at % 8);
        match read_all(&damaged, mark, &format!("bit flipped in byte {at}")) {
            Ok(content) => assert_eq!(content, whole, "other content accepted after a flip in byte {at}"),
            Err(_) => refused += 1,
        }
    }
    refused
}

#[test]
fn no_flipped_bit_is_accepted_as_other_content() {
    let (disk, mark) = filled(12);
    let image = disk.image();
    let refused = flip(&image, &mark, (0..image.len()).step_by(64));
    println!("{refused} of {} flips refused, the others in unused pages", image.len().div_ceil(64));
    assert!(refused > 50);
}

/// redb believes a file that it closed in good order, or repaired, and panics where that is wrong.
#[test]
fn a_file_left_by_a_refused_or_killed_opening_or_a_clean_close_is_verified_as_any_other() {
    let (disk, mark) = filled(4);
    let mut images = Vec::new();
    let ahead = Mark { writes: 1000, ..Mark::decode(&mark.bytes().unwrap()).unwrap() };
    let refused = disk.after_kill();
    assert!(matches!(opened(&refused, &MemoryMark::new(Some(ahead.encode()))), Err(StoreError::RolledBack { .. })));
    images.push(refused.image());
    let closed = disk.after_kill();
    tamper(&closed, |_| {});
    images.push(closed.image());
    for operations in 0..12 {
        let killed = disk.after_kill();
        killed.fail_after(operations, Some(Fault::Broken));
        let _ = opened(&killed, &mark);
        images.push(killed.image());
    }
    for image in images {
        read_all(&image, &mark, "none").unwrap();
        flip(&image, &mark, (16384..image.len()).step_by(4128).filter(|&at| image[at] != 0));
    }
}

#[test]
fn no_flipped_byte_of_the_headers_is_accepted_as_other_content() {
    let (disk, mark) = filled(3);
    let image = disk.image();
    // Both header copies: magic, generation, redb's own header and the hash, byte by byte.
    let fields = (0..400).chain(4096..4160);
    flip(&image, &mark, fields.flat_map(|at| [at, at + 8192]));
}

#[test]
fn garbage_of_any_length_over_any_place_is_never_other_content() {
    let (disk, mark) = filled(8);
    let image = disk.image();
    let whole = read_all(&image, &mark, "none").unwrap();
    for (at, len, byte) in (0..240_usize).map(|n| (n * 7919 * 13 % image.len(), 1 + n * n * 5, (n * 37) as u8)) {
        let mut damaged = image.clone();
        let end = (at + len).min(image.len());
        damaged[at..end].fill(byte);
        if let Ok(content) = read_all(&damaged, &mark, &format!("{len} bytes of {byte} at {at}")) {
            assert_eq!(content, whole);
        }
    }
}

#[test]
fn pages_of_an_older_copy_among_newer_ones_are_noticed() {
    let (disk, mark) = filled(5);
    let old = disk.image();
    let mut store = opened(&disk, &mark).unwrap();
    grow(&mut store, 5);
    drop(store);
    let new = disk.image();
    let whole = read_all(&new, &mark, "none").unwrap();
    let (mut refused, mut places) = (0, 0);
    // A backup copied while the store was written: each single unit, and everything from some unit on, is older.
    for at in (0..old.len().min(new.len())).step_by(4128) {
        for end in [at + 4128, old.len()] {
            let mut mixed = new.clone();
            let end = end.min(old.len());
            mixed[at..end].copy_from_slice(&old[at..end]);
            places += usize::from(mixed != new);
            match read_all(&mixed, &mark, &format!("older bytes {at}..{end}")) {
                Ok(content) => assert_eq!(content, whole),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 5, "{refused} of {places} mixtures refused");
}

#[test]
fn truncation_at_any_length_is_refused() {
    let (disk, mark) = filled(6);
    let image = disk.image();
    let whole = read_all(&image, &mark, "none").unwrap();
    let lengths =
        (0..image.len()).step_by(1009).chain([1, 15, 4096, 8192, 16383, 16384, 16384 + 4128, image.len() - 1]);
    for len in lengths {
        match read_all(&image[..len], &mark, &format!("truncated to {len}")) {
            // redb's last pages may be unused.
            Ok(content) => assert_eq!(content, whole),
            Err(StoreError::Deleted { .. }) => assert_eq!(len, 0),
            Err(StoreError::Corrupt(_) | StoreError::RolledBack { .. }) => {}
            Err(other) => panic!("truncated to {len}: {other}"),
        }
    }
}

#[test]
fn an_extended_file_is_never_other_content() {
    let (disk, mark) = filled(4);
    let whole = read_all(&disk.image(), &mark, "none").unwrap();
    for more in [1, 31, 4096, 4128, 2 * 4128, 100 * 4128] {
        for byte in [0, 0xff] {
            let mut image = disk.image();
            image.resize(image.len() + more, byte);
            if let Ok(content) = read_all(&image, &mark, &format!("{more} bytes of {byte} appended")) {
                assert_eq!(content, whole);
            }
        }
    }
}

#[test]
fn a_damaged_page_found_while_serving_is_an_error() {
    let (disk, mark) = filled(40);
    let store = opened(&disk, &mark).unwrap();
    let image = disk.image();
    for page in (16384..image.len()).step_by(4128) {
        disk.write(page as u64 + 100, &[image[page + 100] ^ 1]).unwrap();
    }
    // What redb holds in memory is still right; what it reads from the disk now is an error, or the identical bytes.
    for height in 0..40 {
        match store.block(height) {
            Ok(block) => assert_eq!(block.unwrap()[0], height as u8),
            Err(error) => assert!(matches!(error, StoreError::Corrupt(_) | StoreError::Stopped { .. }), "{error}"),
        }
    }
    let pages = SealedPages::open(Box::new(disk)).unwrap();
    pages.serve();
    let error = Opening(Arc::new(pages)).read(8192, &mut [0; 4096]).unwrap_err();
    assert!(matches!(StoreError::from(error), StoreError::Corrupt(_)));
}

#[test]
fn the_store_of_another_network_is_refused() {
    let (disk, mark) = filled(2);
    let foreign = Digest([8; 32]);
    let open = |mark| Store::open(disk.clone(), Box::new(mark), foreign, Behind::Refuse);
    assert!(matches!(open(mark), Err(StoreError::OtherChain { found: CHAIN })));
    let own_mark = MemoryMark::new(Some(Mark { chain: foreign, writes: 0, head: None }.encode()));
    assert!(matches!(open(own_mark), Err(StoreError::OtherChain { found: CHAIN })));
}

#[test]
fn a_newer_format_is_refused() {
    let (disk, mark) = filled(1);
    let pages = Arc::new(SealedPages::open(Box::new(disk.clone())).unwrap());
    let database = open_database(&pages).unwrap();
    let txn = database.begin_write().unwrap();
    let meta = TableDefinition::<&str, &[u8]>::new("meta");
    txn.open_table(meta).unwrap().insert("format", 2_u32.to_le_bytes().as_slice()).unwrap();
    txn.commit().unwrap();
    drop(database);
    assert!(matches!(opened(&disk, &mark), Err(StoreError::NewerFormat { found: 2 })));
}

#[test]
fn a_plain_redb_file_or_any_other_is_corrupt() {
    let (_, mark) = filled(1);
    let plain = InMemoryBackend::new();
    drop(Builder::new().create_with_backend(plain).unwrap());
    for image in [vec![0; 40_000], vec![0xff; 16384 + 4128], b"SQLite format 3".repeat(3000)] {
        assert!(matches!(read_all(&image, &mark, "another file"), Err(StoreError::Corrupt(_))));
    }
}

/// Changes the tables as no program of ours would.
fn tamper(disk: &Disk, change: impl FnOnce(&WriteTransaction)) {
    let pages = Arc::new(SealedPages::open(Box::new(disk.clone())).unwrap());
    let database = open_database(&pages).unwrap();
    let txn = database.begin_write().unwrap();
    change(&txn);
    txn.commit().unwrap();
}

#[test]
fn tables_that_contradict_the_head_are_refused() {
    type Change = fn(&WriteTransaction);
    let changes: [(&str, Change); 6] = [
        ("the last block is gone", |txn| drop(txn.open_table(BLOCKS).unwrap().remove(4).unwrap())),
        ("a block in the middle is gone", |txn| drop(txn.open_table(BLOCKS).unwrap().remove(2).unwrap())),
        ("a commit is gone", |txn| drop(txn.open_table(COMMITS).unwrap().remove(4).unwrap())),
        ("a block too many", |txn| drop(txn.open_table(BLOCKS).unwrap().insert(5, [1; 40].as_slice()).unwrap())),
        ("the head has another id", |txn| drop(txn.open_table(BLOCKS).unwrap().insert(4, [9; 40].as_slice()).unwrap())),
        ("a table is gone", |txn| assert!(txn.delete_table(COMMITS).unwrap())),
    ];
    for (what, change) in changes {
        let (disk, mark) = filled(5);
        tamper(&disk, change);
        assert!(matches!(opened(&disk, &mark), Err(StoreError::Corrupt(_))), "{what}");
    }
}

#[test]
fn state_that_is_not_the_certified_one_is_refused_and_a_broken_tree_is_rebuilt() {
    let (disk, mark) = filled(5);
    let store = opened(&disk, &mark).unwrap();
    let root = store.tree().unwrap().root();
    store.verify_state(root).unwrap();
    assert!(matches!(store.verify_state(id(9, 9)), Err(StoreError::WrongState { stored, .. }) if stored == root));
    drop(store);

    tamper(&disk, |txn| assert!(txn.open_table(NODES).unwrap().pop_last().unwrap().is_some()));
    let mut store = opened(&disk, &mark).unwrap();
    assert!(matches!(store.verify_state(root), Err(StoreError::Tree(_))));
    store.rebuild_tree().unwrap();
    store.verify_state(root).unwrap();
    grow(&mut store, 2);
    store.verify_state(store.tree().unwrap().root()).unwrap();
    drop(store);

    tamper(&disk, |txn| drop(txn.open_table(STATE).unwrap().insert(b"head".as_slice(), b"x".as_slice()).unwrap()));
    let store = opened(&disk, &mark).unwrap();
    let root = store.tree().unwrap().root();
    assert!(matches!(store.verify_state(root), Err(StoreError::WrongState { expected, .. }) if expected == root));
}

#[test]
fn an_older_copy_of_the_store_is_rolled_back_and_can_be_filled_up() {
    let (disk, mark) = filled(4);
    let old = disk.image();
    let mut store = opened(&disk, &mark).unwrap();
    let block = next_block(&store);
    for n in 1..4 {
        store.put_revocation(id(3, n), b"later").unwrap();
    }
    store.append(&block).unwrap();
    drop(store);

    let old = Disk::new(&old);
    assert!(matches!(opened(&old, &mark), Err(StoreError::RolledBack { mark }) if mark.height() == 4));
    let resync = || Store::open(old.clone(), Box::new(mark.clone()), CHAIN, Behind::Resync).unwrap();
    let mut store = resync();
    assert_eq!(store.behind().unwrap().height(), 4);
    let fork = BlockRecord { id: id(66, 4), ..block.clone() };
    assert!(matches!(store.append(&fork), Err(StoreError::Forked { height: 4 })));
    // A write that does not catch up leaves the mark where it is.
    store.put_revocation(id(3, 1), b"another").unwrap();
    drop(store);
    assert!(matches!(opened(&old, &mark), Err(StoreError::RolledBack { .. })));
    let mut store = resync();
    store.append(&block).unwrap();
    assert_eq!(store.behind(), None);
    drop(store);
    assert_eq!(opened(&old, &mark).unwrap().head(), Some(Head { height: 4, id: block.id }));
}

#[test]
fn a_store_that_lacks_only_the_last_revocation_is_rolled_back() {
    let (disk, mark) = filled(4);
    let old = disk.image();
    opened(&disk, &mark).unwrap().put_revocation(id(3, 1), b"later").unwrap();
    assert!(matches!(opened(&Disk::new(&old), &mark), Err(StoreError::RolledBack { .. })));
}

#[test]
fn another_block_at_the_marked_height_is_a_fork() {
    let (disk, mark) = filled(4);
    let mut marked = Mark::decode(&mark.bytes().unwrap()).unwrap();
    marked.head = Some(Head { height: 2, id: id(66, 2) });
    let mark = MemoryMark::new(Some(marked.encode()));
    assert!(matches!(opened(&disk, &mark), Err(StoreError::Forked { height: 2 })));
}

#[test]
fn a_missing_store_is_told_from_a_deleted_one() {
    let (_, mark) = filled(4);
    let empty = Disk::default();
    assert!(matches!(opened(&empty, &MemoryMark::default()), Err(StoreError::Missing)));
    assert!(matches!(opened(&empty, &mark), Err(StoreError::Deleted { mark }) if mark.height() == 3));
    let create = |behind| Store::create(empty.clone(), Box::new(mark.clone()), CHAIN, UnixMillis(5), behind);
    assert!(matches!(create(Behind::Refuse), Err(StoreError::Deleted { .. })));
    let store = create(Behind::Resync).unwrap();
    assert_eq!(store.behind().unwrap().height(), 3);
    drop(store);
    assert!(matches!(create(Behind::Resync), Err(StoreError::Exists)));
    assert!(matches!(opened(&empty, &mark), Err(StoreError::RolledBack { .. })));
}

#[test]
fn a_missing_or_damaged_mark_is_refused_and_comes_back_with_the_next_write() {
    let (disk, mark) = filled(4);
    let bytes = mark.bytes().unwrap();
    assert!(matches!(opened(&disk, &MemoryMark::default()), Err(StoreError::MarkMissing)));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        assert!(matches!(opened(&disk, &MemoryMark::new(Some(damaged))), Err(StoreError::MarkCorrupt)));
        let short = MemoryMark::new(Some(bytes[..at].to_vec()));
        assert!(matches!(opened(&disk, &short), Err(StoreError::MarkCorrupt)));
    }
    let fresh = MemoryMark::new(Some(b"garbage".to_vec()));
    let mut store = Store::open(disk.clone(), Box::new(fresh.clone()), CHAIN, Behind::Resync).unwrap();
    grow(&mut store, 1);
    drop(store);
    assert_eq!(opened(&disk, &fresh).unwrap().head().unwrap().height, 4);
}

#[test]
fn a_file_is_locked_against_a_second_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let file = || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
    let mark = MemoryMark::default();
    let open = || Store::open(FileBackend::new(file()).unwrap(), Box::new(mark.clone()), CHAIN, Behind::Refuse);
    let disk = FileBackend::new(file()).unwrap();
    let mut store = Store::create(disk, Box::new(mark.clone()), CHAIN, UnixMillis(5), Behind::Refuse).unwrap();
    grow(&mut store, 3);
    assert!(matches!(open(), Err(StoreError::Locked)));
    drop(store);
    assert_eq!(open().unwrap().head().unwrap().height, 2);
}
