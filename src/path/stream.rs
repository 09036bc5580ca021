//! The way to a peer by a link over TLS: at most one, the newest.

use super::local::Path;
use std::time::Duration;

/// That way.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamWay {
    pub(super) path: Path,
    /// The round trip by it, once the peer answered there.
    pub(super) rtt: Option<Duration>,
    /// Whether the peer answered there.
    pub(super) has_answered: bool,
}

impl From<Path> for StreamWay {
    fn from(path: Path) -> Self {
        Self { path, rtt: None, has_answered: false }
    }
}
