//! What is on a disk in memory, in pages that copies share until one of them is written: a hundred nodes that begin with the same ledger
//! hold it once.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

const PAGE_LEN: usize = 4096;

thread_local! {
    static PAGES: Cell<usize> = const { Cell::new(0) };
}

/// Bytes of all pages that this thread made and did not let go, each counted once however many images share it.
pub fn held() -> usize {
    PAGES.get() * PAGE_LEN
}

#[derive(Debug)]
struct Page([u8; PAGE_LEN]);

impl Page {
    fn new(bytes: [u8; PAGE_LEN]) -> Self {
        PAGES.set(PAGES.get().wrapping_add(1));
        Self(bytes)
    }
}

impl Clone for Page {
    fn clone(&self) -> Self {
        Self::new(self.0)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        PAGES.set(PAGES.get().wrapping_sub(1));
    }
}

/// Bytes of some length; beyond it, within the last page, all are zero.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pages: Vec<Arc<Page>>,
    len: usize,
}

impl Image {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Cuts it off, or lengthens it with zeros.
    pub(super) fn resize(&mut self, len: usize) {
        let kept = self.len.min(len);
        self.pages.resize_with(len.div_ceil(PAGE_LEN), || Arc::new(Page::new([0; PAGE_LEN])));
        self.len = len;
        if kept < len.next_multiple_of(PAGE_LEN)
            && let Some(page) = self.pages.get_mut(kept / PAGE_LEN)
        {
            Arc::make_mut(page).0[kept % PAGE_LEN..].fill(0);
        }
    }

    /// Copies what begins at `offset` to `out`. Returns false, and copies nothing, when it is too short.
    pub(super) fn read(&self, offset: usize, out: &mut [u8]) -> bool {
        let fits = self.fits(offset, out.len());
        if fits {
            for (page, within, part) in parts(offset, out.len()) {
                out[part].copy_from_slice(&self.pages[page].0[within]);
            }
        }
        fits
    }

    /// Overwrites what begins at `offset`. Returns false, and writes nothing, when it is too short.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let fits = self.fits(offset, bytes.len());
        if fits {
            for (page, within, part) in parts(offset, bytes.len()) {
                Arc::make_mut(&mut self.pages[page]).0[within].copy_from_slice(&bytes[part]);
            }
        }
        fits
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }

    fn fits(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }
}

impl From<&[u8]> for Image {
    fn from(bytes: &[u8]) -> Self {
        let mut image = Self::default();
        image.resize(bytes.len());
        image.write(0, bytes);
        image
    }
}

/// The pages that a range lies on: of each its number, what of it, and what of the range.
fn parts(offset: usize, len: usize) -> impl Iterator<Item = (usize, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let (page, start) = ((offset + done) / PAGE_LEN, (offset + done) % PAGE_LEN);
        let some = (PAGE_LEN - start).min(len - done);
        let part = done..done + some;
        done += some;
        (some > 0).then_some((page, start..start + some, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_its_bytes_whatever_was_written_and_cut() {
        let mut bytes: Vec<u8> = (0..20_000_usize).map(|at| (at % 251) as u8).collect();
        let mut image = Image::from(bytes.as_slice());
        for (offset, len) in [(0, 1), (4095, 2), (100, 9000), (19_999, 1), (8192, 4096), (5, 0)] {
            assert!(image.write(offset, &vec![7; len]));
            bytes[offset..offset + len].fill(7);
            let mut read = vec![0; len + 1];
            assert!(image.read(offset.min(19_999 - len), &mut read));
            assert_eq!(read, bytes[offset.min(19_999 - len)..][..=len]);
        }
        for len in [20_000, 12_289, 12_288, 12_287, 30_000, 4096, 8192, 0, 3, 5000] {
            image.resize(len);
            bytes.resize(len, 0);
            assert_eq!((image.to_vec(), image.len()), (bytes.clone(), len));
        }
        assert!(!image.read(4999, &mut [0; 2]) && !image.write(usize::MAX, &[0; 2]) && image.read(5000, &mut []));
    }

    #[test]
    fn copies_share_what_neither_of_them_wrote() {
        let before = held();
        let one = Image::from([1; 10 * PAGE_LEN].as_slice());
        let mut other = one.clone();
        assert_eq!(held() - before, 10 * PAGE_LEN);
        assert!(other.write(PAGE_LEN - 1, &[2; 2]));
        assert_eq!(held() - before, 12 * PAGE_LEN);
        assert_eq!(one.to_vec(), [1; 10 * PAGE_LEN]);
        drop((one, other));
        assert_eq!(held(), before);
    }
}
