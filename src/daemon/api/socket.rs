//! The control socket: one live daemon per network, and nobody's connections crowd out an admin's.
//!
//! ```text
//! run folder 0755:  NET.lock 0600, locked while a daemon lives (the kernel lets go of it however the daemon ends)
//!                   NET.sock 0666, replaced by whoever holds the lock
//! ```

use super::access::{AccessRules, Caller};
use super::route::Right;
use crate::daemon::failure::{ErrorCode, Failure};
use crate::daemon::paths::Paths;
use crate::io::lock::{FileLock, LockError};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections of callers with rights, of each kind. One more is closed at once.
const MAX_CONNECTIONS: usize = 64;
/// Connections of everybody else, together.
const MAX_STRANGERS: usize = 16;
/// Pause after a failed accept (out of descriptors), so that the loop does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A bound socket with the lock that makes this daemon the only one of its network. Dropping it removes the socket.
pub struct ApiSocket {
    listener: StdListener,
    path: PathBuf,
    owner_uid: u32,
    _lock: FileLock,
}

impl ApiSocket {
    /// Makes the run folder where it is missing, takes the lock, and binds the socket in place of a dead daemon's.
    ///
    /// # Errors
    /// Conflict when a daemon of this network lives; permission; failed with the cause.
    pub fn bind(paths: &Paths) -> Result<Self, Failure> {
        let path = paths.socket();
        let folder = &paths.roots.run_dir;
        let report = |error: &io::Error| open_failure(&path, error);
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(|error| report(&error))?;
        let lock = take_lock(paths)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(report(&error)),
            _ => {}
        }
        let listener = StdListener::bind(&path).map_err(|error| report(&error))?;
        let owner_uid = fs::metadata(&path)
            .and_then(|metadata| {
                fs::set_permissions(&path, Permissions::from_mode(0o666))?;
                listener.set_nonblocking(true)?;
                Ok(metadata.uid())
            })
            .map_err(|error| report(&error))?;
        Ok(Self { listener, path, owner_uid, _lock: lock })
    }

    /// The user that this daemon runs as.
    pub fn owner_uid(&self) -> u32 {
        self.owner_uid
    }

    /// Makes the listener that judges each connection by the rules of that moment. Needs a tokio runtime.
    ///
    /// # Errors
    /// No runtime, or out of descriptors.
    pub fn listen(&self, rules: SharedRules) -> io::Result<JudgingListener> {
        Ok(JudgingListener {
            listener: UnixListener::from_std(self.listener.try_clone()?)?,
            rules,
            admins: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            group: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
        })
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket was already gone");
        }
    }
}

/// Makes this daemon the only one of its network.
fn take_lock(paths: &Paths) -> Result<FileLock, Failure> {
    FileLock::take(&paths.lock()).map_err(|error| match &error {
        LockError::Held { holder, .. } => {
            let message = format!("a daemon of network {} runs already (process {holder})", paths.network);
            Failure::new(ErrorCode::Conflict, message)
                .hint("stop that one first, or give this one other --state-dir and --run-dir folders")
        }
        LockError::Io { path, source } => open_failure(path, source),
    })
}

fn open_failure(path: &Path, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::PermissionDenied { ErrorCode::Permission } else { ErrorCode::Failed };
    let failure = Failure::new(code, format!("cannot open the control socket {}: {error}", path.display()));
    if code == ErrorCode::Permission {
        failure.hint("use sudo, or name another folder with --run-dir")
    } else {
        failure
    }
}

/// The rules, which a reload replaces.
#[derive(Clone)]
pub struct SharedRules(Arc<RwLock<AccessRules>>);

impl SharedRules {
    /// Shares `rules`.
    pub fn new(rules: AccessRules) -> Self {
        Self(Arc::new(RwLock::new(rules)))
    }

    /// Replaces `[node] admins` for all connections to come.
    pub fn set_admins(&self, admins: Vec<String>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).admins = admins;
    }

    fn judge(&self, uid: u32, gid: u32) -> Caller {
        self.0.read().unwrap_or_else(PoisonError::into_inner).judge(uid, gid)
    }
}

/// Accepts connections, each with its [`Caller`].
pub struct JudgingListener {
    listener: UnixListener,
    rules: SharedRules,
    admins: Arc<Semaphore>,
    group: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl axum::serve::Listener for JudgingListener {
    type Io = Connection;
    type Addr = Caller;

    async fn accept(&mut self) -> (Connection, Caller) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if let Some(accepted) = self.judge(stream) {
                        return accepted;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a control connection was not accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl JudgingListener {
    fn judge(&self, stream: UnixStream) -> Option<(Connection, Caller)> {
        let credentials = stream.peer_cred().ok()?;
        let caller = self.rules.judge(credentials.uid(), credentials.gid());
        let places = match caller.right {
            Right::Admin => &self.admins,
            Right::Group => &self.group,
            Right::Anybody => &self.strangers,
        };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            tracing::debug!(uid = caller.uid, "too many control connections: one more was closed");
            return None;
        };
        Some((Connection { stream, _place: place }, caller))
    }
}

/// A connection and its place among the few that there are.
pub struct Connection {
    stream: UnixStream,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::paths::Roots;

    fn paths(folder: &Path) -> Paths {
        let roots = Roots { state_dir: folder.join("state"), run_dir: folder.join("run/deep"), config_file: None };
        roots.network("lab".parse().unwrap())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_live_socket_is_refused_and_a_dead_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path());
        let first = ApiSocket::bind(&paths).unwrap();
        let Err(failure) = ApiSocket::bind(&paths) else { panic!("two daemons of one network") };
        assert_eq!(failure.code, ErrorCode::Conflict);
        assert!(failure.message.contains(&std::process::id().to_string()), "{failure}");

        // As after SIGKILL: the lock is free, the socket file is there.
        let path = first.path.clone();
        drop(first);
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists());
        let second = ApiSocket::bind(&paths).unwrap();
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_lock_that_leads_elsewhere_is_refused_and_what_it_leads_to_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path());
        let precious = folder.path().join("precious");
        fs::write(&precious, "text").unwrap();
        fs::create_dir_all(&paths.roots.run_dir).unwrap();
        std::os::unix::fs::symlink(&precious, paths.lock()).unwrap();
        assert!(ApiSocket::bind(&paths).is_err());
        assert_eq!(fs::read_to_string(&precious).unwrap(), "text");
    }

    #[test]
    fn everybody_may_knock_and_nobody_else_may_lock() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path());
        let _socket = ApiSocket::bind(&paths).unwrap();
        assert_eq!(mode(&paths.roots.run_dir), 0o755);
        assert_eq!(mode(&paths.socket()), 0o666);
        assert_eq!(mode(&paths.lock()), 0o600);
    }
}
