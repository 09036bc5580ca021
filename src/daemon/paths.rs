//! Where one network lives on this machine.

use crate::wire::name::NetworkName;
use std::path::{Path, PathBuf};

/// Keys and ledgers, one folder per network.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/p2plus";
/// Control sockets and locks, one of each per network.
pub const DEFAULT_RUN_DIR: &str = "/run/p2plus";
/// Configuration files, one per network.
pub const DEFAULT_CONFIG_DIR: &str = "/etc/p2plus";

/// The folders that all networks of an installation share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Roots {
    /// Holds one state folder per network.
    pub state_dir: PathBuf,
    /// Holds one control socket per network.
    pub run_dir: PathBuf,
    /// A configuration file that was named explicitly: it must exist.
    pub config_file: Option<PathBuf>,
}

/// The places of one network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paths {
    /// The folders above it.
    pub roots: Roots,
    /// The network.
    pub network: NetworkName,
}

impl Roots {
    /// Names the places of `network`.
    pub fn network(&self, network: NetworkName) -> Paths {
        Paths { roots: self.clone(), network }
    }

    /// Says whether these are the folders that the system service uses.
    pub fn are_default(&self) -> bool {
        self.state_dir == Path::new(DEFAULT_STATE_DIR)
            && self.run_dir == Path::new(DEFAULT_RUN_DIR)
            && self.config_file.is_none()
    }

    /// Says whether this user may not look into the state folder, so that only running networks are seen.
    pub fn is_hidden(&self) -> bool {
        std::fs::read_dir(&self.state_dir).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    }

    /// Finds the networks that have a state folder or a control socket here, sorted.
    ///
    /// A folder that cannot be read counts as empty: an ordinary user sees the sockets alone.
    pub fn networks(&self) -> Vec<NetworkName> {
        let folders = entries(&self.state_dir).filter(|path| path.is_dir());
        let sockets =
            entries(&self.run_dir).filter(|path| path.extension().is_some_and(|extension| extension == "sock"));
        let mut names: Vec<NetworkName> = folders
            .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
            .chain(sockets.filter_map(|path| path.file_stem()?.to_str()?.parse().ok()))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

impl Paths {
    /// The folder of keys and ledger.
    pub fn state_folder(&self) -> PathBuf {
        self.roots.state_dir.join(self.network.as_str())
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.roots.run_dir.join(format!("{}.sock", self.network))
    }

    /// The file whose lock says that a daemon lives; its text is the daemon's process id.
    pub fn lock(&self) -> PathBuf {
        self.roots.run_dir.join(format!("{}.lock", self.network))
    }

    /// The journal of what was changed on the host, while anything is.
    pub fn journal(&self) -> PathBuf {
        self.roots.run_dir.join(format!("{}.undo", self.network))
    }

    /// The configuration file, which need not exist unless it was named explicitly.
    pub fn config_file(&self) -> PathBuf {
        match &self.roots.config_file {
            Some(path) => path.clone(),
            None => Path::new(DEFAULT_CONFIG_DIR).join(format!("{}.toml", self.network)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_found_by_folder_and_by_socket() {
        let folder = tempfile::tempdir().unwrap();
        let roots =
            Roots { state_dir: folder.path().join("state"), run_dir: folder.path().join("run"), config_file: None };
        assert_eq!(roots.networks(), []);
        std::fs::create_dir_all(roots.state_dir.join("lab")).unwrap();
        std::fs::create_dir_all(roots.state_dir.join("Not A Name")).unwrap();
        std::fs::write(roots.state_dir.join("file"), "").unwrap();
        std::fs::create_dir_all(&roots.run_dir).unwrap();
        for file in ["lab.sock", "home.sock", "other.lock"] {
            std::fs::write(roots.run_dir.join(file), "").unwrap();
        }
        let names: Vec<String> = roots.networks().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["home", "lab"]);
    }
}
