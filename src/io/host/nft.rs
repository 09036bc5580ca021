//! The program nft, fed with a ruleset: one transaction, all or nothing; and others of its kind, which are only asked.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where the program may be, if the caller's path leads nowhere: a plain user's lacks the folders of root.
const ADMIN_FOLDERS: &str = "/usr/sbin:/sbin";
/// How long it may take: it reads, asks the kernel once and ends.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often its end is looked for.
const LOOK: Duration = Duration::from_millis(1);
/// How much of what it says is kept; bytes.
const ANSWER_MAX: u64 = 1 << 20;
/// How much of a refusal is told on; characters.
const REFUSAL_MAX: usize = 400;

/// Why a ruleset is not in force.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no such program.
    #[error(
        "the program nft is missing, so nothing guards the overlay's addresses against this host's neighbours: install nftables"
    )]
    Missing,
    /// It cannot be run, or did not end.
    #[error("the program nft cannot be run: {0}")]
    Io(#[from] io::Error),
    /// The kernel lacks nftables, or something of what is asked for.
    #[error("nft refused the ruleset: {0}")]
    Refused(String),
}

/// Runs nft with these arguments and this text to read, and returns what it said.
pub(super) fn run(arguments: &[&str], text: &str) -> Result<String, NftError> {
    run_program("nft", arguments, text)
}

/// Runs another program of the same folders.
pub(super) fn run_program(program: &str, arguments: &[&str], text: &str) -> Result<String, NftError> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", format!("{path}:{ADMIN_FOLDERS}"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NftError::Missing,
        _ => NftError::Io(error),
    })?;
    converse(child, text)
}

/// Writes, reads and waits, none of which may wait for ever.
fn converse(mut child: Child, text: &str) -> Result<String, NftError> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A program that ended before it read everything says why elsewhere.
            stdin.map(|mut stdin| stdin.write_all(text.as_bytes()))
        });
        let said = scope.spawn(move || read(stdout));
        let complaint = scope.spawn(move || read(stderr));
        let ended = wait(&mut child);
        if ended.is_err() {
            // Its end closes the pipes, on which the threads wait.
            let _ = child.kill();
            let _ = child.wait();
        }
        let (said, complaint) = (said.join().unwrap_or_default(), complaint.join().unwrap_or_default());
        match ended? {
            true => Ok(said),
            false => Err(NftError::Refused(shortened(&complaint))),
        }
    })
}

fn read(from: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let _ = from.take(ANSWER_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the end; says whether it was a good one.
fn wait(child: &mut Child) -> io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not end within 10 s"));
        }
        std::thread::sleep(LOOK);
    }
}

/// The first words of a refusal on one line.
fn shortened(complaint: &str) -> String {
    let words = complaint.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(REFUSAL_MAX).collect()
}
