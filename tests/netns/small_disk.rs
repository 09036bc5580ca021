//! A file system of some megabytes over a node's folder of states, to be filled up.
//!
//! It goes when dropped; what a killed test process left goes when the next one starts.

#![allow(unsafe_code)]

use crate::lab::{own_prefix, prefix_is_stale};
use crate::node::Node;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Three times what a ledger of some hundred blocks takes.
const OPTIONS: &str = "size=16m,mode=0755";
/// What a page of the file system holds, bytes.
const PAGE_LEN: u64 = 4096;

/// The file system. Declare it after its node, so that it goes first.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one over a node's folder, which is empty yet.
    pub fn under(node: &Node) -> Self {
        let path = node.state_dir();
        let name = format!("{}disk", own_prefix());
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", OPTIONS, &name]).arg(&path).output().unwrap();
        assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
        Self(path)
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.filler()).unwrap();
        for len in [1 << 16, PAGE_LEN as usize, 1] {
            let bytes = vec![1; len];
            let error = loop {
                if let Err(error) = file.write_all(&bytes) {
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        }
    }

    /// Leaves this many pages free of a full one.
    pub fn leave(&self, pages: u64) {
        let file = File::options().write(true).open(self.filler()).unwrap();
        let whole = file.metadata().unwrap().len() / PAGE_LEN;
        file.set_len((whole - pages) * PAGE_LEN).unwrap();
    }

    /// Takes away what filled it.
    pub fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// Removes the disks of test processes that are dead.
pub fn remove_stale() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(path)) = (words.next(), words.next()) else { continue };
        if prefix_is_stale(name) {
            unmount(Path::new(path));
        }
    }
}

fn unmount(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a terminated string. Detached, the file system itself goes when the last daemon on it ends.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
}
