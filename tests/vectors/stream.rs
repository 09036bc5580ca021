//! "Randomness" that is written down: given bytes, or BLAKE2s of a label and a counter.

use p2plus::crypto::hash::blake2s;
use rand_core::{TryCryptoRng, TryRng};
use std::collections::VecDeque;
use std::convert::Infallible;

/// Gives the bytes of a label's stream: BLAKE2s(label | 0 u64), BLAKE2s(label | 1 u64) … ; or only given bytes.
pub struct Stream {
    label: Option<&'static [u8]>,
    block: u64,
    bytes: VecDeque<u8>,
}

impl Stream {
    /// Starts the endless stream of `label`.
    pub fn of(label: &'static [u8]) -> Self {
        Self { label: Some(label), block: 0, bytes: VecDeque::new() }
    }

    /// Gives `bytes` and then panics: for a primitive whose random input a vector names.
    pub fn exactly(bytes: &[u8]) -> Self {
        Self { label: None, block: 0, bytes: bytes.iter().copied().collect() }
    }

    fn next(&mut self) -> u8 {
        if self.bytes.is_empty() {
            let label = self.label.expect("the vector has enough bytes");
            self.bytes.extend(blake2s(&[label, &self.block.to_le_bytes()]));
            self.block += 1;
        }
        self.bytes.pop_front().expect("a block has 32 bytes")
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(std::array::from_fn(|_| self.next())))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(std::array::from_fn(|_| self.next())))
    }

    fn try_fill_bytes(&mut self, room: &mut [u8]) -> Result<(), Infallible> {
        room.fill_with(|| self.next());
        Ok(())
    }
}

impl TryCryptoRng for Stream {}
