//! The command line as people and programs meet it: the real binary, alone and against a server with a scripted node behind it.
//!
//! `golden/` pins the documented JSON and the text for people; after an intended change, `P2PLUS_BLESS=1 cargo test --test cli` rewrites it.

// All of this is test code, helpers included.
#![allow(clippy::unwrap_used)]

mod alone;
mod golden;
mod samples;
mod scripted;
mod served;
mod service;
mod unit;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// Folders of one test, and the binary called with them.
pub struct Host {
    folder: TempDir,
}

/// What the binary printed and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Host {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A host that has the state folder of each of `networks`.
    fn with_networks(networks: &[&str]) -> Self {
        let host = Self::new();
        for network in networks {
            std::fs::create_dir_all(host.state_dir().join(network)).unwrap();
        }
        host
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn state_dir(&self) -> PathBuf {
        self.path().join("state")
    }

    fn run_dir(&self) -> PathBuf {
        self.path().join("run")
    }

    /// A file in the host's folder with `text` in it.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_p2plus"));
        command.env("P2PLUS_STATE_DIR", self.state_dir()).env("P2PLUS_RUN_DIR", self.run_dir());
        command.env("TZ", "UTC").env_remove("RUST_LOG").args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ended {
        ended(&self.command(args).output().unwrap())
    }
}

/// Says why a test cannot run here; with `P2PLUS_REQUIRE_ROOT=1` that is a failure.
fn skip(reason: &str) {
    assert!(std::env::var_os("P2PLUS_REQUIRE_ROOT").is_none_or(|value| value != "1"), "cannot run: {reason}");
    // The handle itself, not `eprintln!`: a passing test's captured output is shown to nobody.
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped {test}: {reason}");
}

fn ended(output: &Output) -> Ended {
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout.clone()).unwrap(),
        stderr: String::from_utf8(output.stderr.clone()).unwrap(),
    }
}
