//! Sealed pages: a storage backend between redb and the disk in which every page carries a hash.
//!
//! redb checks its own checksums only when it repairs; a page that rots afterwards is parsed as it is. Here a page whose
//! bytes are not those last written is never handed on: it is an error, or, while redb verifies the whole file at open,
//! zeros that its checksums refuse.
//!
//! ```text
//!  0          8192         16384        +4128       +4128
//!  ├─ header A ┼─ header B ──┼── page 1 ──┼── page 2 ──┼─ …
//!     magic ‖ generation ‖ page 0 ‖ hash     bytes 4096 ‖ hash 32
//! ```
//! Page 0 is the only one that redb overwrites in place, so it is kept twice: a write goes to the copy that is not the durable
//! one, and the valid copy of the higher generation counts. A torn header is then a header not yet written.

use super::error::Damaged;
use crate::crypto::hash::DomainHasher;
use redb::{BackendError, StorageBackend};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes of a page as redb sees it: its own page size, so that no write is partial.
const PAGE: u64 = 4096;
const PAGE_LEN: usize = PAGE as usize;
const HASH_LEN: usize = 32;
/// Bytes of a page as the disk sees it.
const SEALED: u64 = PAGE + HASH_LEN as u64;
const SEALED_LEN: usize = PAGE_LEN + HASH_LEN;
/// Room of one copy of page 0: its own disk sectors, so that a torn write cannot reach the other copy.
const HEADER_ROOM: u64 = 8192;
const HEADER_LEN: usize = 16 + PAGE_LEN + HASH_LEN;
const PAGES_START: u64 = 2 * HEADER_ROOM;

/// Where redb's header keeps its flags, and the one of a two-phase commit (redb `docs/design.md`, "god byte"). Finding it set redb
/// believes the file, and panics where it should not have; finding it clear redb verifies every page that the file's roots reach.
const FLAGS_AT: usize = 9;
const TWO_PHASE: u8 = 4;

const MAGIC: [u8; 8] = *b"p2ledger";
const PAGE_DOMAIN: &str = "p2plus 2026 store page";
const HEADER_DOMAIN: &str = "p2plus 2026 store header";

/// The sealed pages on a disk.
#[derive(Debug)]
pub(super) struct SealedPages {
    disk: Box<dyn StorageBackend>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// redb opens the file, which is made to verify it whole: a damaged page reads as zeros, which its checksums refuse, so that
    /// it falls back to the commit before a torn one. Else a damaged page is an error.
    verifying: bool,
    /// Pages written since nothing reaches the disk any more.
    detached: Option<BTreeMap<u64, Vec<u8>>>,
    /// Page 0.
    header: Vec<u8>,
    generation: u64,
    /// The copy of page 0 that is known to be on the disk, and the one written since the last sync.
    durable_copy: u64,
    fresh_copy: Option<u64>,
    /// Length as redb sees it.
    len: u64,
    /// The disk's lock is held; it is kept until the end, over a second opening too.
    locked: bool,
}

impl SealedPages {
    /// Reads the header copies of `disk`; an empty disk has none.
    ///
    /// # Errors
    /// [`Damaged`] when both copies are, or when the length is none of ours; else the disk's error.
    pub(super) fn open(disk: Box<dyn StorageBackend>) -> io::Result<Self> {
        let mut state = State {
            verifying: true,
            detached: None,
            header: vec![0; PAGE_LEN],
            generation: 0,
            durable_copy: 1,
            fresh_copy: None,
            len: 0,
            locked: false,
        };
        // What an earlier process left in the kernel's cache must be durable before either header copy is overwritten.
        disk.sync_data()?;
        state.load(disk.as_ref())?;
        Ok(Self { disk, state: Mutex::new(state) })
    }

    /// Says whether nothing was ever written.
    pub(super) fn is_empty(&self) -> bool {
        self.state().len == 0
    }

    /// From now on a damaged page is an error.
    pub(super) fn serve(&self) {
        self.state().verifying = false;
    }

    /// From now on nothing reaches the disk: what redb writes stays in memory.
    pub(super) fn detach(&self) {
        self.state().detached.get_or_insert_default();
    }

    /// Starts again from what is on the disk, for a second verification, still without writing to it.
    ///
    /// # Errors
    /// As [`SealedPages::open`].
    pub(super) fn reload_detached(&self) -> io::Result<()> {
        let mut state = self.state();
        state.detached = Some(BTreeMap::new());
        state.verifying = true;
        state.load(self.disk.as_ref())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn load(&mut self, disk: &dyn StorageBackend) -> io::Result<()> {
        let disk_len = disk.len()?;
        if disk_len == 0 {
            return Ok(());
        }
        let pages_len = disk_len.checked_sub(PAGES_START).ok_or(Damaged { page: 0 })?;
        if !pages_len.is_multiple_of(SEALED) {
            return Err(Damaged { page: pages_len / SEALED + 1 }.into());
        }
        self.len = (pages_len / SEALED + 1) * PAGE;
        let mut newest: Option<(u64, u64, Vec<u8>)> = None;
        for copy in 0..2 {
            let mut bytes = vec![0; HEADER_LEN];
            disk.read(copy * HEADER_ROOM, &mut bytes)?;
            if let Some((generation, page)) = open_header(&bytes)
                && newest.as_ref().is_none_or(|(other, ..)| generation > *other)
            {
                newest = Some((generation, copy, page.to_vec()));
            }
        }
        let (generation, copy, header) = newest.ok_or(Damaged { page: 0 })?;
        (self.generation, self.durable_copy, self.header) = (generation, copy, header);
        self.fresh_copy = None;
        Ok(())
    }

    /// Copies page `page` into `out`; `sealed` is what the disk holds of it.
    fn read_page(&self, page: u64, sealed: Option<&[u8]>, out: &mut [u8]) -> Result<(), Damaged> {
        if let Some(bytes) = self.detached.as_ref().and_then(|pages| pages.get(&page)) {
            out.copy_from_slice(bytes);
        } else if let Some((bytes, hash)) = sealed.map(|sealed| sealed.split_at(PAGE_LEN)) {
            if page_hash(page, bytes) == *hash {
                out.copy_from_slice(bytes);
            } else if self.verifying {
                out.fill(0);
            } else {
                return Err(Damaged { page });
            }
        } else {
            out.copy_from_slice(&self.header);
            if self.verifying {
                out[FLAGS_AT] &= !TWO_PHASE;
            }
        }
        Ok(())
    }
}

impl SealedPages {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let end = offset.checked_add(out.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        if end > state.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (first, past) = (offset / PAGE, end.div_ceil(PAGE));
        let mut pages = vec![0; (past - first) as usize * PAGE_LEN];
        let sealed_first = first.max(1);
        let on_disk = past.saturating_sub(sealed_first).min(self.disk_pages()?.saturating_sub(sealed_first - 1));
        let mut sealed = vec![0; on_disk as usize * SEALED_LEN];
        if !sealed.is_empty() {
            self.disk.read(sealed_at(sealed_first), &mut sealed)?;
        }
        for (page, out) in (first..past).zip(pages.chunks_exact_mut(PAGE_LEN)) {
            let sealed = page.checked_sub(sealed_first).filter(|_| page > 0).map(|index| {
                let at = index as usize * SEALED_LEN;
                sealed.get(at..at + SEALED_LEN).unwrap_or(&[0; SEALED_LEN])
            });
            state.read_page(page, sealed, out)?;
        }
        let skip = (offset - first * PAGE) as usize;
        out.copy_from_slice(&pages[skip..skip + out.len()]);
        Ok(())
    }

    /// Returns the number of sealed pages on the disk: fewer than redb sees when it grew the file while detached.
    fn disk_pages(&self) -> io::Result<u64> {
        Ok(self.disk.len()?.saturating_sub(PAGES_START) / SEALED)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let end = offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        if end > state.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if end <= PAGE {
            return self.write_header(&mut state, offset as usize, bytes);
        }
        // Only page 0 is ever written in part, or in place.
        if offset < PAGE || !offset.is_multiple_of(PAGE) || !end.is_multiple_of(PAGE) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let pages = (offset / PAGE..).zip(bytes.chunks_exact(PAGE_LEN));
        if let Some(detached) = &mut state.detached {
            detached.extend(pages.map(|(page, bytes)| (page, bytes.to_vec())));
            return Ok(());
        }
        let mut sealed = Vec::with_capacity(bytes.len() / PAGE_LEN * SEALED_LEN);
        for (page, bytes) in pages {
            sealed.extend_from_slice(bytes);
            sealed.extend_from_slice(&page_hash(page, bytes));
        }
        self.disk.write(sealed_at(offset / PAGE), &sealed)
    }

    fn write_header(&self, state: &mut State, offset: usize, bytes: &[u8]) -> io::Result<()> {
        state.header[offset..offset + bytes.len()].copy_from_slice(bytes);
        if state.detached.is_some() {
            return Ok(());
        }
        // Until a sync the durable copy stays as it is, however often the other is written.
        let copy = 1 - state.durable_copy;
        state.generation += 1;
        state.fresh_copy = Some(copy);
        self.disk.write(copy * HEADER_ROOM, &seal_header(state.generation, &state.header))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.detached.is_some() {
            return Ok(());
        }
        self.disk.sync_data()?;
        if let Some(copy) = state.fresh_copy.take() {
            state.durable_copy = copy;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        if len == 0 || !len.is_multiple_of(PAGE) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match &mut state.detached {
            Some(pages) => pages.retain(|page, _| *page < len / PAGE),
            None => self.disk.set_len(sealed_at(len / PAGE))?,
        }
        state.len = len;
        Ok(())
    }

    fn lock(&self, take: impl FnOnce(&dyn StorageBackend) -> Result<bool, BackendError>) -> Result<bool, BackendError> {
        if self.state().locked {
            return Ok(true);
        }
        take(self.disk.as_ref())
    }
}

impl Drop for SealedPages {
    fn drop(&mut self) {
        if let Err(error) = self.disk.close() {
            tracing::warn!(%error, "the ledger store did not close");
        }
    }
}

/// One opening of the pages by redb. Its end does not close the disk, so that its lock is held over a second opening.
#[derive(Clone, Debug)]
pub(super) struct Opening(pub(super) Arc<SealedPages>);

impl StorageBackend for Opening {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.state().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write(offset, bytes)
    }

    fn close(&self) -> io::Result<()> {
        self.0.state().locked = true;
        Ok(())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.lock(|disk| disk.try_lock_range(start, end))
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock(|disk| disk.unlock_range(start, end).map(|()| true)).map(drop)
    }
}

/// Where page `page` (1 or more) begins on the disk.
fn sealed_at(page: u64) -> u64 {
    PAGES_START + (page - 1) * SEALED
}

fn page_hash(page: u64, bytes: &[u8]) -> [u8; HASH_LEN] {
    DomainHasher::new(PAGE_DOMAIN).update(&page.to_le_bytes()).update(bytes).finish().0
}

/// `magic ‖ generation u64 ‖ page 0 ‖ hash of all before`.
fn seal_header(generation: u64, page: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    bytes.extend(MAGIC);
    bytes.extend(generation.to_le_bytes());
    bytes.extend(page);
    let hash = DomainHasher::new(HEADER_DOMAIN).update(&bytes).finish();
    bytes.extend(hash.0);
    bytes
}

fn open_header(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (body, hash) = bytes.split_last_chunk::<HASH_LEN>()?;
    let body =
        body.strip_prefix(&MAGIC).filter(|_| DomainHasher::new(HEADER_DOMAIN).update(body).finish().0 == *hash)?;
    let (generation, page) = body.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*generation), page))
}

#[cfg(test)]
mod tests {
    use super::super::disk::Disk;
    use super::*;

    fn pages(disk: &Disk) -> SealedPages {
        SealedPages::open(Box::new(disk.clone())).unwrap()
    }

    /// Three pages, of which page `n` is full of `n`, all synced.
    fn three_pages() -> Disk {
        let disk = Disk::default();
        let pages = pages(&disk);
        pages.set_len(3 * PAGE).unwrap();
        for page in 0..3 {
            pages.write(page * PAGE, &[page as u8; PAGE_LEN]).unwrap();
        }
        pages.sync().unwrap();
        disk
    }

    fn header_byte(disk: &Disk) -> io::Result<u8> {
        let mut byte = [0];
        SealedPages::open(Box::new(disk.clone()))?.read(0, &mut byte)?;
        Ok(byte[0])
    }

    #[test]
    fn reads_may_begin_and_end_anywhere_but_not_past_the_end() {
        let pages = pages(&three_pages());
        pages.serve();
        let mut out = [9; 4100];
        pages.read(4094, &mut out).unwrap();
        assert_eq!((out[1], out[2], out[4097], out[4098]), (0, 1, 1, 2));
        assert_eq!(pages.read(8193, &mut [0; 4096]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(pages.read(u64::MAX, &mut [0; 2]).is_err());
    }

    #[test]
    fn a_page_written_in_part_or_past_the_end_is_refused() {
        let pages = pages(&three_pages());
        for (offset, len) in [(4096, 100), (5000, 4096), (0, 8192), (12_288, 4096)] {
            assert!(pages.write(offset, &vec![1; len]).is_err(), "{len} bytes at {offset}");
        }
    }

    #[test]
    fn a_page_in_the_place_of_another_or_never_written_is_damaged() {
        let disk = three_pages();
        let mut page = vec![0; SEALED_LEN];
        disk.read(sealed_at(1), &mut page).unwrap();
        disk.write(sealed_at(2), &page).unwrap();
        let pages = pages(&disk);
        pages.set_len(4 * PAGE).unwrap();
        pages.serve();
        let mut out = [0; PAGE_LEN];
        pages.read(PAGE, &mut out).unwrap();
        assert_eq!(pages.read(2 * PAGE, &mut out).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(pages.read(3 * PAGE, &mut out).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn header_writes_between_two_syncs_never_touch_the_durable_copy() {
        let disk = three_pages();
        let pages = pages(&disk);
        for byte in 10..15 {
            pages.write(0, &[byte]).unwrap();
        }
        for seed in 0..200 {
            assert!(matches!(header_byte(&disk.after_power_cut(seed)), Ok(0 | 10..15)), "seed {seed}");
        }
        pages.sync().unwrap();
        assert_eq!(header_byte(&disk.after_power_cut(1)).unwrap(), 14);
    }

    #[test]
    fn a_header_that_a_killed_process_left_unsynced_is_synced_before_the_other_copy_is_written() {
        let disk = three_pages();
        pages(&disk).write(0, &[10]).unwrap();
        let after_kill = pages(&disk);
        after_kill.write(0, &[11]).unwrap();
        for seed in 0..200 {
            assert!(matches!(header_byte(&disk.after_power_cut(seed)), Ok(10 | 11)), "seed {seed}");
        }
    }

    #[test]
    fn nothing_written_while_detached_reaches_the_disk() {
        let disk = three_pages();
        let pages = pages(&disk);
        let image = disk.image();
        pages.detach();
        pages.set_len(5 * PAGE).unwrap();
        pages.write(PAGE, &[7; 4 * PAGE_LEN]).unwrap();
        pages.write(0, &[7]).unwrap();
        pages.sync().unwrap();
        let mut out = vec![0; 5 * PAGE_LEN];
        pages.read(0, &mut out).unwrap();
        assert!(out[PAGE_LEN..].iter().all(|&byte| byte == 7) && out[0] == 7);
        assert_eq!(disk.image(), image);
        pages.reload_detached().unwrap();
        pages.read(0, &mut out[..PAGE_LEN + 1]).unwrap();
        assert_eq!((out[0], out[PAGE_LEN]), (0, 1));
    }
}
