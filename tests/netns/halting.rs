//! A disk that is full: the ledger stops and says so, and the tunnels stay.

use crate::lab::Lab;
use crate::node::{Node, joiner};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system of its own, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        let options = ["-t", "tmpfs", "-o", "size=8m,mode=700", "none"];
        assert!(Command::new("mount").args(options).arg(at).status().unwrap().success());
        Self(at.to_owned())
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let filled = std::fs::write(self.0.join("ballast"), vec![1; 8 << 20]);
        assert!(filled.is_err(), "the disk is larger than it should be");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn status_says_why_the_ledger_stands_still_when_the_disk_is_full() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = Node::new(&lab.host("founder"), "founder");
    let disk = SmallDisk::mount(&founder.state_dir());
    founder.found();
    let ada = joiner(&mut lab, &founder, "ada");
    founder.meet(&ada);
    assert_eq!(founder.status()["ledger"]["halted"], serde_json::Value::Null);

    disk.fill();
    let endpoint = founder.endpoint().to_string();
    // The store has some room left in its file.
    let refused = (0..500).map(|_| founder.say(&["invite", "--endpoint", &endpoint])).find(|said| said.code != 0);
    let refused = refused.expect("blocks were written to a full disk");
    let status = founder.status();
    let halted = status["ledger"]["halted"].as_str().unwrap_or_else(|| panic!("{status} after {refused:?}"));
    assert!(halted.contains("No space left"), "{halted}");
    assert_eq!(founder.ask(&["ledger", "status"])["halted"], halted);
    assert!(founder.say_plainly(&["status"]).out.contains(halted));
    assert_ne!(founder.say(&["rename", "ada", "bea", "--timeout", "1"]).code, 0);
    // What has sessions keeps them.
    founder.ask(&["ping", "ada", "-c", "1"]);
    assert_eq!(status["network"]["state"], "up");
    founder.kill();
}
