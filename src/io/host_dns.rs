//! Where the programs of this host ask for names: told to systemd-resolved, to resolvconf, or written into `/etc/resolv.conf`.
//!
//! ```text
//!   resolved    names of the zone go to our servers, and no others: asked by link, gone with the link
//!   resolvconf  our server is the first of /etc/resolv.conf; it refuses what is not the zone's, and the next one is asked
//!   file        the same, without anybody's help
//! ```
//! Owns the three ways and how each is undone. Refuses to know why: who calls says what is wanted, and keeps what it has to undo.

use super::device_name::DeviceName;
use std::fs;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Where the system's programs are, whatever the environment says.
const SYSTEM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Where systemd-resolved keeps what it tells others, while it runs.
const RESOLVED_FILE: &str = "/run/systemd/resolve/stub-resolv.conf";
/// What glibc reads (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where resolvconf keeps its records: Debian's, and openresolv's.
const RECORD_FOLDERS: [&str; 2] = ["/run/resolvconf/interface", "/run/resolvconf/interfaces"];
/// How long a program may take: a bus that does not answer would be waited for 25 s.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a running program is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// The longest `/etc/resolv.conf` that is rewritten: what is longer is something else.
const MAX_FILE_LEN: u64 = 64 << 10;
/// What stands before our line in `/etc/resolv.conf`, with the interface's name behind it.
const MARK: &str = "# p2plus ";

/// How this host is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostDns {
    /// By `resolvectl`.
    Resolved,
    /// By `resolvconf`, Debian's or openresolv's.
    Resolvconf,
    /// In `/etc/resolv.conf` itself.
    File,
}

/// What the host is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delegation {
    /// The overlay's interface.
    pub interface: DeviceName,
    /// Where to ask, the best first.
    pub servers: Vec<IpAddr>,
    /// What to ask for there: zones, as they are written.
    pub zones: Vec<String>,
}

/// Why the host was not told.
#[derive(Debug, thiserror::Error)]
pub enum HostDnsError {
    /// A program cannot be run, or a file not be read or written.
    #[error("{what}: {cause}")]
    System {
        /// The program or the file.
        what: String,
        /// What the system said.
        cause: io::Error,
    },
    /// A program says no.
    #[error("{program} refused: {complaint}")]
    Refused {
        /// The program with its arguments.
        program: String,
        /// The first line of what it printed.
        complaint: String,
    },
    /// A program does not come to an end.
    #[error("{program} gave no answer within {} s", PATIENCE.as_secs())]
    Silent {
        /// The program with its arguments.
        program: String,
    },
}

impl HostDns {
    /// Finds what is there: systemd-resolved where it runs, else resolvconf where it is installed.
    pub fn detect() -> Option<Self> {
        if Path::new(RESOLVED_FILE).exists() && run("resolvectl", &["dns"], "").is_ok() {
            return Some(Self::Resolved);
        }
        let mut folders = SYSTEM_PATH.split(':').map(|folder| Path::new(folder).join("resolvconf"));
        folders.any(|path| path.exists() && !is_resolveds(&path)).then_some(Self::Resolvconf)
    }

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::Resolvconf => "resolvconf",
            Self::File => "file",
        }
    }

    /// Tells the host. What an earlier call told for the interface is replaced.
    ///
    /// # Errors
    /// [`HostDnsError`]; then nothing is told.
    pub fn set(self, delegation: &Delegation) -> Result<(), HostDnsError> {
        let outcome = match self {
            Self::Resolved => set_resolved(delegation),
            Self::Resolvconf => set_resolvconf(delegation),
            Self::File => set_file(Path::new(RESOLV_CONF), delegation),
        };
        if outcome.is_err() {
            // What was told in part is worse than nothing: a link with a server and without a zone is asked for everything.
            let _ = self.clear(delegation.interface.as_str());
        }
        outcome
    }

    /// Takes back what was told for an interface. Nothing to take back is fine.
    ///
    /// # Errors
    /// [`HostDnsError`].
    pub fn clear(self, interface: &str) -> Result<(), HostDnsError> {
        match self {
            Self::Resolved if !Path::new("/sys/class/net").join(interface).exists() => Ok(()),
            Self::Resolved => run("resolvectl", &["revert", interface], "").map(drop),
            Self::Resolvconf => clear_resolvconf(interface).map(drop),
            Self::File => clear_file(Path::new(RESOLV_CONF), interface).map(drop),
        }
    }

    /// What changes when somebody else may have undone what was told: the identity of a file, or `None` while there is none.
    pub fn watched(self) -> Option<FileState> {
        let path = match self {
            Self::Resolved => RESOLVED_FILE,
            Self::Resolvconf | Self::File => RESOLV_CONF,
        };
        FileState::of(Path::new(path))
    }
}

/// A file as it was at one moment: another one, or one with other contents, is not equal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileState {
    inode: u64,
    changed: (i64, i64),
}

impl FileState {
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(path).ok()?;
        Some(Self { inode: metadata.ino(), changed: (metadata.mtime(), metadata.mtime_nsec()) })
    }
}

/// Undoes what a daemon that was killed left for this interface, in every way that leaves something. Says what it undid.
pub fn clear_leftovers(interface: &str) -> Vec<String> {
    let mut undone = Vec::new();
    if let Ok(true) = clear_file(Path::new(RESOLV_CONF), interface) {
        undone.push(format!("took the server of {interface} out of {RESOLV_CONF}"));
    }
    if let Ok(true) = clear_resolvconf(interface) {
        undone.push(format!("took the server of {interface} out of resolvconf"));
    }
    undone
}

fn set_resolved(delegation: &Delegation) -> Result<(), HostDnsError> {
    let interface = delegation.interface.as_str();
    let servers: Vec<String> = delegation.servers.iter().map(ToString::to_string).collect();
    // A tilde: names below it go here, and it completes no names.
    let zones: Vec<String> = delegation.zones.iter().map(|zone| format!("~{zone}")).collect();
    let words = |verb: &'static str, values: &[String]| -> Vec<String> {
        [verb, interface].map(str::to_owned).into_iter().chain(values.iter().cloned()).collect()
    };
    // The zones come before the servers, so that the link is never asked for anything else.
    let mut commands = vec![words("default-route", &["no".to_owned()]), words("domain", &zones)];
    // Nobody signs the zone, and its servers are this host itself.
    commands.extend(["dnssec", "dnsovertls", "llmnr", "mdns"].map(|verb| words(verb, &["no".to_owned()])));
    commands.push(words("dns", &servers));
    for command in commands {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        run("resolvectl", &words, "")?;
    }
    Ok(())
}

fn set_resolvconf(delegation: &Delegation) -> Result<(), HostDnsError> {
    let Some(server) = delegation.servers.first() else { return Ok(()) };
    // Without a domain, which would become one that names are completed with.
    run("resolvconf", &["-a", &record_of(delegation.interface.as_str())], &format!("nameserver {server}\n")).map(drop)
}

/// Takes our record back; says whether it was there.
fn clear_resolvconf(interface: &str) -> Result<bool, HostDnsError> {
    let record = record_of(interface);
    if !RECORD_FOLDERS.iter().any(|folder| Path::new(folder).join(&record).exists()) {
        return Ok(false);
    }
    run("resolvconf", &["-d", &record], "").map(|_| true)
}

/// The name of our record, which gives it its place: both kinds put tunnels before the host's own links, Debian's by `tun*` in its
/// interface-order, openresolv by `tun[0-9]*` in its dynamic_order.
fn record_of(interface: &str) -> String {
    format!("tun0.{interface}")
}

/// Says whether a program named resolvconf is systemd's own, which talks to resolved alone.
fn is_resolveds(path: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|path| path.ends_with("resolvectl"))
}

/// Puts our server before all others.
fn set_file(path: &Path, delegation: &Delegation) -> Result<(), HostDnsError> {
    let Some(server) = delegation.servers.first() else { return Ok(()) };
    let (_, text) = without_ours(&read(path)?, delegation.interface.as_str());
    let interface = &delegation.interface;
    replace(
        path,
        &format!(
            "{MARK}{interface}: its zone is answered here, the rest is refused and asked below\nnameserver {server}\n{text}"
        ),
    )
}

/// Takes our server out; says whether it was there.
fn clear_file(path: &Path, interface: &str) -> Result<bool, HostDnsError> {
    match read(path) {
        Ok(text) => match without_ours(&text, interface) {
            (true, text) => replace(path, &text).map(|()| true),
            (false, _) => Ok(false),
        },
        Err(HostDnsError::System { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A file without our mark and the line behind it, and whether they were there.
fn without_ours(text: &str, interface: &str) -> (bool, String) {
    let mark = format!("{MARK}{interface}:");
    let (mut was_there, mut rest) = (false, String::with_capacity(text.len()));
    let mut lines = text.split_inclusive('\n');
    while let Some(line) = lines.next() {
        if line.starts_with(&mark) {
            was_there = true;
            lines.next();
        } else {
            rest.push_str(line);
        }
    }
    (was_there, rest)
}

fn read(path: &Path) -> Result<String, HostDnsError> {
    let mut text = String::new();
    let open = fs::File::open(path).and_then(|file| file.take(MAX_FILE_LEN).read_to_string(&mut text));
    match open {
        Ok(len) if len as u64 == MAX_FILE_LEN => Err(system(&path.display(), io::ErrorKind::FileTooLarge.into())),
        Ok(_) => Ok(text),
        Err(cause) => Err(system(&path.display(), cause)),
    }
}

/// Writes a file at once, so that nobody reads half of it; in place where it is a mount of its own, as in containers.
fn replace(path: &Path, text: &str) -> Result<(), HostDnsError> {
    let target = fs::canonicalize(path).map_err(|cause| system(&path.display(), cause))?;
    let fresh = PathBuf::from(format!("{}.p2plus", target.display()));
    let permissions = fs::metadata(&target).map_err(|cause| system(&target.display(), cause))?.permissions();
    let renamed = fs::write(&fresh, text)
        .and_then(|()| fs::set_permissions(&fresh, permissions))
        .and_then(|()| fs::rename(&fresh, &target));
    if renamed.is_err() {
        let _ = fs::remove_file(&fresh);
        fs::write(&target, text).map_err(|cause| system(&target.display(), cause))?;
    }
    Ok(())
}

fn system(what: &impl ToString, cause: io::Error) -> HostDnsError {
    HostDnsError::System { what: what.to_string(), cause }
}

/// Runs a program of the system, with `input` at its standard input; returns what it printed.
fn run(program: &str, words: &[&str], input: &str) -> Result<String, HostDnsError> {
    let shown = || format!("{program} {}", words.join(" "));
    let mut command = Command::new(program);
    command.args(words).env_clear().env("PATH", SYSTEM_PATH).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|cause| system(&program, cause))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read it says why at its end.
        let _ = stdin.write_all(input.as_bytes());
    }
    if !ends_in_time(&mut child) {
        let _ = child.kill();
        let _ = child.wait();
        return Err(HostDnsError::Silent { program: shown() });
    }
    let output = child.wait_with_output().map_err(|cause| system(&program, cause))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.lines().next().unwrap_or("no reason given").to_owned();
    Err(HostDnsError::Refused { program: shown(), complaint })
}

/// Waits for a program that prints less than a pipe holds.
fn ends_in_time(child: &mut Child) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK_INTERVAL),
            Ok(None) => return false,
            Ok(Some(_)) | Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn delegation(interface: &str) -> Delegation {
        let servers = vec![IpAddr::from([10, 77, 0, 53])];
        Delegation { interface: interface.parse().unwrap(), servers, zones: vec!["lab.internal".to_owned()] }
    }

    #[test]
    fn our_line_comes_first_once_and_leaves_as_it_came() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("resolv.conf");
        let before = "# mine\nnameserver 192.0.2.1\nsearch example.com";
        fs::write(&path, before).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        for _twice in 0..2 {
            set_file(&path, &delegation("p2p-lab")).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            let servers: Vec<_> = text.lines().filter(|line| line.starts_with("nameserver")).collect();
            assert_eq!(servers, ["nameserver 10.77.0.53", "nameserver 192.0.2.1"]);
        }
        set_file(&path, &delegation("p2p-home")).unwrap();
        assert!(!clear_file(&path, "p2p").unwrap(), "a name that begins alike is another one");
        assert!(clear_file(&path, "p2p-lab").unwrap() && clear_file(&path, "p2p-home").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!clear_file(&path, "p2p-lab").unwrap());
        assert!(!clear_file(&home.path().join("missing"), "p2p-lab").unwrap());
    }

    #[test]
    fn a_link_to_the_file_stays_one() {
        let home = tempfile::tempdir().unwrap();
        let (path, target) = (home.path().join("resolv.conf"), home.path().join("target"));
        fs::write(&target, "nameserver 192.0.2.1\n").unwrap();
        symlink(&target, &path).unwrap();
        set_file(&path, &delegation("p2p-lab")).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert!(fs::read_to_string(&target).unwrap().contains("10.77.0.53"));
    }

    #[test]
    fn a_file_that_is_something_else_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("resolv.conf");
        fs::write(&path, "x".repeat(70_000)).unwrap();
        let error = set_file(&path, &delegation("p2p-lab")).unwrap_err().to_string();
        assert!(error.contains("resolv.conf"), "{error}");
        assert_eq!(fs::metadata(&path).unwrap().len(), 70_000);
    }

    #[test]
    fn a_program_says_why_not_and_one_that_hangs_is_ended() {
        assert_eq!(run("cat", &[], "text").unwrap(), "text");
        let refused = run("sh", &["-c", "echo first >&2; echo second >&2; exit 3"], "").unwrap_err().to_string();
        assert!(refused.ends_with("refused: first"), "{refused}");
        assert!(matches!(run("no-such-program", &[], ""), Err(HostDnsError::System { .. })));
        let begun = Instant::now();
        assert!(matches!(run("sleep", &["60"], ""), Err(HostDnsError::Silent { .. })));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
