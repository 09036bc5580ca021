//! The session indices in use: random, so that nobody off the path guesses one, and never the same twice at a time.

use crate::wire::datagram::SessionIndex;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// Indices in use at a time: sessions (a few per peer), attempts and tentative sessions. When full, no handshake begins or ends.
pub const MAX_INDICES: usize = 1 << 16;

/// Something for each session of this node, found once per packet.
pub type BySession<T> = HashMap<SessionIndex, T, BuildHasherDefault<IndexHasher>>;

/// Spreads the bits of an index, no more: this node drew it at random, nobody else can choose two that meet.
#[derive(Default)]
pub struct IndexHasher(u64);

impl Hasher for IndexHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, word: u32) {
        // 2^64 divided by the golden ratio: high bits and low ones both depend on all of the word.
        self.0 = (self.0.rotate_left(32) ^ u64::from(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

/// Draws and takes back the local session indices of a node.
#[derive(Debug, Default)]
pub struct Indices {
    used: BTreeSet<SessionIndex>,
}

impl Indices {
    /// Draws an unused index; [`Indices::release`] frees it. None when [`MAX_INDICES`] are in use.
    pub fn reserve(&mut self, rng: &mut impl rand_core::CryptoRng) -> Option<SessionIndex> {
        if self.used.len() >= MAX_INDICES {
            return None;
        }
        // At most 2^16 of 2^32 are taken, so that a second draw is rare and a hundredth impossible.
        (0..100).map(|_| SessionIndex(rng.next_u32())).find(|index| self.used.insert(*index))
    }

    /// Frees an index.
    pub fn release(&mut self, index: SessionIndex) {
        self.used.remove(&index);
    }

    /// Returns how many indices are in use.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Says whether no index is in use.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn indices_are_distinct_bounded_and_come_back() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut indices = Indices::default();
        let first = indices.reserve(&mut rng).unwrap();
        for _ in 1..MAX_INDICES {
            indices.reserve(&mut rng).unwrap();
        }
        assert_eq!((indices.len(), indices.reserve(&mut rng)), (MAX_INDICES, None));
        indices.release(first);
        assert!(indices.reserve(&mut rng).is_some());
    }
}
