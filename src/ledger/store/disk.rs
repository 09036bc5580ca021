//! A disk in memory that can fail as disks do: for tests and the simulator.
//!
//! It keeps what was synced apart from what was only written, so that a power cut can lose, keep or tear any of the latter.

use super::image::Image;
use redb::StorageBackend;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// How writes, changes of length and syncs fail from some point on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The disk is full (ENOSPC). Syncs go on.
    NoSpace,
    /// The disk fails (EIO).
    Broken,
}

#[derive(Clone, Debug)]
enum Pending {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Default)]
struct Platter {
    /// What a read returns.
    seen: Image,
    /// What is there after a power cut.
    synced: Image,
    pending: Vec<Pending>,
    operations: u64,
    fault: Option<(u64, Fault)>,
}

/// The disk; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

impl Disk {
    /// Makes a disk with `image` on it.
    pub fn new(image: &[u8]) -> Self {
        Self::holding(Image::from(image))
    }

    fn holding(image: Image) -> Self {
        Self(Arc::new(Mutex::new(Platter { seen: image.clone(), synced: image, ..Platter::default() })))
    }

    /// Makes another disk, with what is on this one, synced or not: what a killed process leaves.
    pub fn after_kill(&self) -> Self {
        Self::holding(self.platter().seen.clone())
    }

    /// Returns what is on the disk, synced or not.
    pub fn image(&self) -> Vec<u8> {
        self.platter().seen.to_vec()
    }

    /// Returns the number of writes, changes of length and syncs so far, failed ones included.
    pub fn operations(&self) -> u64 {
        self.platter().operations
    }

    /// Lets every operation after the first `operations` from now fail with `fault`; `None` heals the disk.
    pub fn fail_after(&self, operations: u64, fault: Option<Fault>) {
        let mut platter = self.platter();
        platter.fault = fault.map(|fault| (platter.operations + operations, fault));
    }

    /// Returns what a power cut leaves: everything synced, and of each later write all, nothing or its beginning, as `seed` says.
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let platter = self.platter();
        let mut image = platter.synced.clone();
        let mut luck = seed;
        for pending in &platter.pending {
            let luck = split_mix(&mut luck);
            match (pending, luck % 4) {
                (_, 0) => {}
                (Pending::Length(len), _) => image.resize(*len),
                (Pending::Write { offset, bytes }, torn) => {
                    let kept = if torn == 1 { (luck >> 8) as usize % (bytes.len() + 1) } else { bytes.len() };
                    let kept = kept.min(image.len().saturating_sub(*offset));
                    image.write(*offset, &bytes[..kept]);
                }
            }
        }
        Self::holding(image)
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn operate(&self, is_sync: bool) -> io::Result<MutexGuard<'_, Platter>> {
        let mut platter = self.platter();
        platter.operations += 1;
        match platter.fault {
            Some((last, Fault::NoSpace)) if platter.operations > last && !is_sync => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Some((last, Fault::Broken)) if platter.operations > last => Err(io::Error::other("the disk is broken")),
            _ => Ok(platter),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let is_there = self.platter().seen.read(place(offset)?, out);
        if is_there { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.operate(false)?;
        let len = place(len)?;
        platter.seen.resize(len);
        platter.pending.push(Pending::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.operate(true)?;
        platter.pending.clear();
        platter.synced = platter.seen.clone();
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut platter = self.operate(false)?;
        let offset = place(offset)?;
        if !platter.seen.write(offset, bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        platter.pending.push(Pending::Write { offset, bytes: bytes.to_vec() });
        Ok(())
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// The next number of SplitMix64 (Steele, Lea, Flood 2014): enough luck for a disk.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut luck = *state;
    luck = (luck ^ (luck >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    luck = (luck ^ (luck >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    luck ^ (luck >> 31)
}
