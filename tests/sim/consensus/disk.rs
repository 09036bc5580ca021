//! What survives a crash: everything synced, and of the rest a prefix.

use super::block::Chain;
use p2plus::ledger::consensus::wal::{Log, LogStore};
use std::convert::Infallible;

/// A log in memory with a line between what is durable and what is not.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    bytes: Vec<u8>,
    durable_len: usize,
}

/// A disk, to be copied as an image.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub log: MemoryLog,
    pub chain: Chain,
}

impl LogStore for MemoryLog {
    type Error = Infallible;

    fn load(&mut self) -> Result<Vec<u8>, Infallible> {
        if let Ok(log) = Log::decode(&self.bytes) {
            self.bytes.truncate(log.whole_len);
        }
        self.durable_len = self.bytes.len();
        Ok(self.bytes.clone())
    }

    fn append(&mut self, frame: &[u8]) -> Result<(), Infallible> {
        self.bytes.extend_from_slice(frame);
        Ok(())
    }

    fn reset(&mut self, frame: &[u8]) -> Result<(), Infallible> {
        self.bytes = frame.to_vec();
        self.durable_len = self.bytes.len();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Infallible> {
        self.durable_len = self.bytes.len();
        Ok(())
    }
}

impl MemoryLog {
    /// Says whether something is to be synced.
    pub fn is_dirty(&self) -> bool {
        self.durable_len < self.bytes.len()
    }

    /// Loses what was not synced, up to a point given by `random`: a torn write.
    pub fn crash(&mut self, random: u64) {
        let loose = (self.bytes.len() - self.durable_len) as u64;
        let kept = usize::try_from(random % (loose + 1)).unwrap();
        self.bytes.truncate(self.durable_len + kept);
        self.durable_len = self.bytes.len();
    }
}
