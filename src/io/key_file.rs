//! Key files: one 32-byte secret each, one line of text, mode 0600.
//!
//! ```text
//!   p2plus-key 1 identity <64 hexadecimal digits> <8 digits of a check>
//! ```
//! The kind is in the line, so that no key is ever taken for another; the check finds a damaged file before it becomes a new identity.
//! A file that others can read is refused: whoever could read it may have. Nothing here is logged, and every buffer is zeroized.

use super::durable::create_atomic;
use crate::crypto::hash::domain_hash;
use crate::crypto::secret::{Secret, constant_time_eq};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The first words of each key file.
const MAGIC: &str = "p2plus-key 1";
/// Longer than any key file, so that a longer one is noticed; bytes.
const FILE_MAX: usize = 160;
/// Bytes of the check: 2^-32 that damage passes.
const CHECK_LEN: usize = 4;

/// Which secret a file holds. The recovery key is in none: `init` shows its words once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// The Ed25519 key that the node is known by.
    Identity,
    /// The Ed25519 key that signs node records.
    Node,
    /// The X25519 key of the handshake.
    Transport,
    /// The Ed25519 key that votes.
    Validator,
    /// The secret that all members of the network share.
    NetworkSecret,
}

impl KeyKind {
    fn word(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Node => "node",
            Self::Transport => "transport",
            Self::Validator => "validator",
            Self::NetworkSecret => "network-secret",
        }
    }

    /// Returns the file's name within the network's folder.
    pub fn file_name(self) -> String {
        format!("{}.key", self.word())
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a key file was not read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Group or others may read or write it.
    #[error(
        "the key file {} has mode {mode:04o}, so others can read or write it: if nobody did, run chmod 600 {}; if somebody \
         may have, leave the network and join it as a new node",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No such file.
    #[error("the key file {} is missing: restore it from a backup, or leave the network and join again", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is a link, a folder, or anything but a file.
    #[error("{} is not an ordinary file: put the key file itself there", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// It holds something else, or was damaged.
    #[error("the key file {} does not hold a whole {kind} key: restore it from a backup", path.display())]
    Garbled {
        /// The file.
        path: PathBuf,
        /// The kind of key expected.
        kind: KeyKind,
    },
    /// A key is there already, and keys are never replaced in place.
    #[error("the key file {} exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Anything else the system said.
    #[error("key file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Creates the key file of `kind` in `folder`, durable when this returns.
///
/// # Errors
/// [`KeyFileError::Exists`], or [`KeyFileError::Io`]; no partial file is left.
pub fn create_key(folder: &Path, kind: KeyKind, secret: &Secret<32>) -> Result<(), KeyFileError> {
    let path = folder.join(kind.file_name());
    create_atomic(&path, &encode(kind, secret)).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists { path },
        _ => KeyFileError::Io { path, source },
    })
}

/// Reads the key file of `kind` in `folder`.
///
/// # Errors
/// See [`KeyFileError`]; what is wrong with the permissions is said before the contents are looked at.
pub fn read_key(folder: &Path, kind: KeyKind) -> Result<Secret<32>, KeyFileError> {
    let path = folder.join(kind.file_name());
    let text = read_private(&path)?;
    decode(kind, &text).ok_or(KeyFileError::Garbled { path, kind })
}

fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let failed = |source: io::Error| match source.raw_os_error() {
        Some(libc::ENOENT) => KeyFileError::Missing { path: path.to_owned() },
        Some(libc::ELOOP) => KeyFileError::NotAFile { path: path.to_owned() },
        _ => KeyFileError::Io { path: path.to_owned(), source },
    };
    // NONBLOCK: a planted FIFO must not hold the daemon up.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile { path: path.to_owned() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    // One allocation of the final size: growing would leave a copy behind that nobody zeroizes.
    let mut text = Zeroizing::new(vec![0; FILE_MAX]);
    let mut length = 0;
    while length < FILE_MAX {
        match file.read(&mut text[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    text.truncate(length);
    Ok(text)
}

fn encode(kind: KeyKind, secret: &Secret<32>) -> Zeroizing<Vec<u8>> {
    let mut line = Zeroizing::new(Vec::with_capacity(FILE_MAX));
    let written = write!(line, "{MAGIC} {kind} ").and_then(|()| {
        secret.expose().iter().try_for_each(|byte| write!(line, "{byte:02x}"))?;
        writeln!(line, " {}", check(kind, secret))
    });
    written.expect("writing to memory does not fail");
    line
}

fn decode(kind: KeyKind, text: &[u8]) -> Option<Secret<32>> {
    let text = std::str::from_utf8(text).ok()?;
    let words = text.strip_suffix('\n')?.strip_prefix(MAGIC)?.strip_prefix(' ')?.strip_prefix(kind.word())?;
    let (digits, found) = words.strip_prefix(' ')?.split_once(' ')?;
    let secret = decode_hex(digits)?;
    constant_time_eq(found.as_bytes(), check(kind, &secret).as_bytes()).then_some(secret)
}

/// Decodes 64 lower-case hexadecimal digits.
fn decode_hex(digits: &str) -> Option<Secret<32>> {
    let mut bytes = Zeroizing::new([0; 32]);
    if digits.len() != 2 * bytes.len() || !digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Secret::new(*bytes))
}

/// The check's digits: of the kind and the secret, so that neither can change alone.
fn check(kind: KeyKind, secret: &Secret<32>) -> String {
    let digest = domain_hash("P2Plus/1 key file", &[kind.word().as_bytes(), secret.expose()]).to_string();
    digest[..2 * CHECK_LEN].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    fn secret(seed: u8) -> Secret<32> {
        Secret::random(&mut rand_chacha::ChaCha20Rng::from_seed([seed; 32]))
    }

    #[test]
    fn a_key_survives_its_file_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        create_key(folder.path(), KeyKind::Identity, &secret(1)).unwrap();
        assert!(read_key(folder.path(), KeyKind::Identity).unwrap() == secret(1));
        let mode = std::fs::metadata(folder.path().join("identity.key")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_path_mode_and_remedy() {
        let folder = tempfile::tempdir().unwrap();
        create_key(folder.path(), KeyKind::Transport, &secret(2)).unwrap();
        let path = folder.path().join("transport.key");
        for mode in [0o644, 0o640, 0o604, 0o620, 0o601] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let Err(error) = read_key(folder.path(), KeyKind::Transport) else { panic!("read at mode {mode:o}") };
            assert!(matches!(error, KeyFileError::Exposed { mode: seen, .. } if seen == mode), "{error}");
            let text = error.to_string();
            assert!(
                text.contains(&format!("{mode:04o}")) && text.contains("transport.key") && text.contains("chmod 600")
            );
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(read_key(folder.path(), KeyKind::Transport).unwrap() == secret(2));
    }

    #[test]
    fn a_key_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        create_key(folder.path(), KeyKind::Node, &secret(3)).unwrap();
        let again = create_key(folder.path(), KeyKind::Node, &secret(4));
        assert!(matches!(again, Err(KeyFileError::Exists { .. })));
        assert!(read_key(folder.path(), KeyKind::Node).unwrap() == secret(3));
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let whole = encode(KeyKind::Validator, &secret(5));
        assert!(decode(KeyKind::Validator, &whole).is_some());
        for index in 0..whole.len() {
            let mut changed = whole.to_vec();
            changed[index] ^= 1;
            assert!(decode(KeyKind::Validator, &changed).is_none(), "byte {index}");
            assert!(decode(KeyKind::Validator, &whole[..index]).is_none(), "cut at {index}");
        }
        assert!(decode(KeyKind::Identity, &whole).is_none());
    }

    #[test]
    fn links_folders_and_absent_or_endless_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let read = || read_key(folder.path(), KeyKind::Identity);
        assert!(matches!(read(), Err(KeyFileError::Missing { .. })));
        // A link to a whole and private key, which somebody else may exchange.
        std::fs::write(folder.path().join("elsewhere"), &*encode(KeyKind::Identity, &secret(6))).unwrap();
        std::fs::set_permissions(folder.path().join("elsewhere"), Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(read(), Err(KeyFileError::NotAFile { .. })));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(read(), Err(KeyFileError::NotAFile { .. })));
        std::fs::remove_dir(&path).unwrap();
        super::super::durable::write_atomic(&path, &[b'a'; 10 * FILE_MAX]).unwrap();
        assert!(matches!(read(), Err(KeyFileError::Garbled { .. })));
    }
}
