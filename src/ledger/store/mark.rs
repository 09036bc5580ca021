//! The head mark: a small record beside the store that an older copy of the store alone cannot satisfy.
//!
//! It is written after each commit and never goes down, so `mark ≤ store` is a crash between the two writes or nothing at all,
//! and `mark > store` is an older store. What it cannot see is both rolled back together: peers tell that.

use super::StoreError;
use crate::crypto::hash::{Digest, domain_hash};
use borsh::{BorshDeserialize, BorshSerialize};
use redb::StorageBackend;
use std::io;
use std::sync::{Arc, Mutex};

const DOMAIN: &str = "p2plus 2026 head mark";
const MARK_FORMAT: u8 = 1;

/// Where the mark is kept. The write must be atomic and durable; [`DiskMark`] is.
pub trait HeadMark: Send {
    /// Returns the bytes last written, `None` where there are none.
    ///
    /// # Errors
    /// Those of the file system, except that the file does not exist.
    fn read(&self) -> io::Result<Option<Vec<u8>>>;

    /// Replaces the bytes.
    ///
    /// # Errors
    /// Those of the file system.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// The newest block of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Head {
    /// Its height.
    pub height: u64,
    /// Its id.
    pub id: Digest,
}

/// What was last written to a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Mark {
    /// The network.
    pub chain: Digest,
    /// The number of writes to the store: blocks and pending revocations.
    pub writes: u64,
    /// The newest block, `None` before the first.
    pub head: Option<Head>,
}

impl Mark {
    /// Returns the height of the marked head, 0 where there is none.
    pub fn height(&self) -> u64 {
        self.head.map_or(0, |head| head.height)
    }

    /// Encodes the mark: format u8, borsh, BLAKE3 of both.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![MARK_FORMAT];
        self.serialize(&mut bytes).expect("borsh writes to memory without error");
        let hash = domain_hash(DOMAIN, &[&bytes]);
        bytes.extend(hash.0);
        bytes
    }

    /// Decodes what [`Mark::encode`] made.
    ///
    /// # Errors
    /// [`StoreError::MarkCorrupt`].
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let (body, hash) = bytes.split_last_chunk::<32>().ok_or(StoreError::MarkCorrupt)?;
        if domain_hash(DOMAIN, &[body]).0 != *hash {
            return Err(StoreError::MarkCorrupt);
        }
        let (&MARK_FORMAT, body) = body.split_first().ok_or(StoreError::MarkCorrupt)? else {
            return Err(StoreError::MarkCorrupt);
        };
        borsh::from_slice(body).map_err(|_| StoreError::MarkCorrupt)
    }

    /// Says whether a store that is at `self` lacks something that `marked` remembers.
    pub fn is_behind(&self, marked: &Self) -> bool {
        self.writes < marked.writes || self.head.map(|head| head.height) < marked.head.map(|head| head.height)
    }
}

/// Reads and decodes the mark of `chain`; `None` where there is none.
///
/// # Errors
/// [`StoreError::MarkCorrupt`], [`StoreError::OtherChain`] or an I/O error.
pub fn read_mark(mark: &dyn HeadMark, chain: Digest) -> Result<Option<Mark>, StoreError> {
    let Some(bytes) = mark.read()? else { return Ok(None) };
    let mark = Mark::decode(&bytes)?;
    if mark.chain == chain { Ok(Some(mark)) } else { Err(StoreError::OtherChain { found: mark.chain }) }
}

/// A mark on a small disk of its own: two slots written in turn, so that a torn write leaves the other. That is one sync (4 ms),
/// where a temporary file, a rename and a folder take three (12 ms, same disk).
#[derive(Debug)]
pub struct DiskMark(Box<dyn StorageBackend>);

/// Distance of the two slots: disk sectors of their own.
const SLOT_ROOM: u64 = 4096;
/// Bytes of a slot: the mark's length u8, the mark, zeros.
const SLOT_LEN: usize = 128;

impl DiskMark {
    /// Makes the mark of a disk, which is empty before the first write.
    pub fn new(disk: impl StorageBackend) -> Self {
        Self(Box::new(disk))
    }

    /// Returns what a slot holds, right or wrong.
    fn slot(&self, slot: u64) -> io::Result<Vec<u8>> {
        let mut bytes = [0; SLOT_LEN];
        self.0.read(slot * SLOT_ROOM, &mut bytes)?;
        Ok(bytes[1..].iter().take(usize::from(bytes[0])).copied().collect())
    }

    /// Returns the slot of the newest valid mark and its bytes.
    fn newest(&self) -> io::Result<Option<(u64, Vec<u8>)>> {
        let slots = [self.slot(0)?, self.slot(1)?];
        let valid = (0..).zip(slots).filter_map(|(slot, bytes)| Some((Mark::decode(&bytes).ok()?.writes, slot, bytes)));
        Ok(valid.max_by_key(|(writes, ..)| *writes).map(|(_, slot, bytes)| (slot, bytes)))
    }
}

impl HeadMark for DiskMark {
    fn read(&self) -> io::Result<Option<Vec<u8>>> {
        match self.0.len()? {
            0 => Ok(None),
            len if len < 2 * SLOT_ROOM => Ok(Some(Vec::new())),
            // Bytes that are no mark are reported as such.
            _ => Ok(Some(self.newest()?.map_or_else(Vec::new, |(_, bytes)| bytes))),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.0.len()? < 2 * SLOT_ROOM {
            self.0.set_len(2 * SLOT_ROOM)?;
        }
        let slot = self.newest()?.map_or(0, |(newest, _)| 1 - newest);
        let mut room = [0; SLOT_LEN];
        let len = u8::try_from(bytes.len()).ok().filter(|&len| usize::from(len) < SLOT_LEN);
        room[0] = len.ok_or(io::ErrorKind::InvalidInput)?;
        room[1..=bytes.len()].copy_from_slice(bytes);
        self.0.write(slot * SLOT_ROOM, &room)?;
        self.0.sync_data()
    }
}

/// A mark in memory, for tests and the simulator; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryMark(Arc<Mutex<Option<Vec<u8>>>>);

impl MemoryMark {
    /// Makes a mark that holds `bytes`.
    pub fn new(bytes: Option<Vec<u8>>) -> Self {
        Self(Arc::new(Mutex::new(bytes)))
    }

    /// Returns the bytes it holds.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

impl HeadMark for MemoryMark {
    fn read(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(bytes.to_vec());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::{Disk, Fault};
    use super::*;

    fn mark(writes: u64) -> Mark {
        let head = writes.checked_sub(1).map(|height| Head { height, id: Digest([height as u8; 32]) });
        Mark { chain: Digest([7; 32]), writes, head }
    }

    fn read(disk: &Disk) -> Result<Option<Mark>, StoreError> {
        read_mark(&DiskMark::new(disk.clone()), Digest([7; 32]))
    }

    #[test]
    fn marks_come_back_as_written_and_in_the_order_of_the_writes() {
        let disk = Disk::default();
        assert!(matches!(read(&disk), Ok(None)));
        for writes in 0..9 {
            assert_eq!(Mark::decode(&mark(writes).encode()).unwrap(), mark(writes));
            DiskMark::new(disk.clone()).write(&mark(writes).encode()).unwrap();
            assert_eq!(read(&disk).unwrap(), Some(mark(writes)));
        }
        assert!(DiskMark::new(disk).write(&[0; SLOT_LEN]).is_err());
    }

    #[test]
    fn a_power_cut_leaves_the_mark_before_or_the_new_one() {
        let disk = Disk::default();
        DiskMark::new(disk.clone()).write(&mark(0).encode()).unwrap();
        for writes in 1..50 {
            disk.fail_after(1, Some(Fault::Broken));
            DiskMark::new(disk.clone()).write(&mark(writes).encode()).unwrap_err();
            disk.fail_after(0, None);
            for seed in 0..20 {
                let left = read(&disk.after_power_cut(seed)).unwrap();
                assert!(left == Some(mark(writes)) || left == Some(mark(writes - 1)));
            }
            DiskMark::new(disk.clone()).write(&mark(writes).encode()).unwrap();
        }
    }

    #[test]
    fn a_damaged_or_truncated_disk_is_no_mark() {
        let disk = Disk::default();
        DiskMark::new(disk.clone()).write(&mark(3).encode()).unwrap();
        let image = disk.image();
        for len in 1..image.len() {
            assert!(matches!(read(&Disk::new(&image[..len])), Err(StoreError::MarkCorrupt)));
        }
        for at in 0..=mark(3).encode().len() {
            let mut image = image.clone();
            image[at] ^= 0x81;
            assert!(matches!(read(&Disk::new(&image)), Err(StoreError::MarkCorrupt)), "byte {at}");
        }
    }
}
