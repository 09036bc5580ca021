//! The session indices in use: random, so that nobody off the path guesses one, and never the same twice at a time.

use crate::wire::data::SessionIndex;
use std::collections::BTreeSet;

/// Indices in use at a time: sessions (a few per peer), attempts and tentative sessions. When full, no handshake begins or ends.
pub const MAX_INDICES: usize = 1 << 16;

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
