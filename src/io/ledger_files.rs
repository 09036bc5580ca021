//! The ledger's files: the database, the mark beside it, and the consensus log.
//!
//! Owns when bytes are durable. Refuses to know what they say.

use super::durable::write_atomic;
use crate::ledger::consensus::wal::{Log, LogStore};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Opens a file of the store for reading and writing, or makes an empty one, readable by its owner only.
///
/// # Errors
/// The system's.
pub fn open_disk(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// The consensus log, appended to and now and then begun anew.
pub struct FileLog {
    path: PathBuf,
    file: File,
}

impl FileLog {
    /// Opens the log at `path`, or makes an empty one.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = Self::open_file(&path)?;
        Ok(Self { path, file })
    }

    fn open_file(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
    }
}

impl LogStore for FileLog {
    type Error = io::Error;

    fn load(&mut self) -> io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        // A damaged log is told apart by who decodes it; only what a torn write left is cut off here.
        if let Ok(log) = Log::decode(&bytes)
            && log.whole_len < bytes.len()
        {
            self.file.set_len(log.whole_len as u64)?;
            self.file.sync_all()?;
            bytes.truncate(log.whole_len);
        }
        Ok(bytes)
    }

    fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        self.file.write_all(frame)
    }

    fn reset(&mut self, frame: &[u8]) -> io::Result<()> {
        write_atomic(&self.path, frame)?;
        self.file = Self::open_file(&self.path)?;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Height;
    use crate::ledger::consensus::wal::Record;

    fn frame(height: u64) -> Vec<u8> {
        Record::Opened { height: Height(height), max_height_signed: Height(0) }.frame()
    }

    #[test]
    fn a_log_goes_on_where_it_ended_and_loses_only_what_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = FileLog::open(path.clone()).unwrap();
        log.append(&frame(1)).unwrap();
        log.append(&frame(2)[..5]).unwrap();
        log.sync().unwrap();
        drop(log);
        let mut log = FileLog::open(path.clone()).unwrap();
        assert_eq!(log.load().unwrap(), frame(1));
        log.append(&frame(2)).unwrap();
        assert_eq!(log.load().unwrap(), [frame(1), frame(2)].concat());
        log.reset(&frame(3)).unwrap();
        log.append(&frame(4)).unwrap();
        assert_eq!(FileLog::open(path).unwrap().load().unwrap(), [frame(3), frame(4)].concat());
    }
}
