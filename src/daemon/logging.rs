//! The daemon's log: lines on standard error, at a level that can change while it runs.

use super::config::LogLevel;
use std::io::IsTerminal;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// Changes the level of a running log.
#[derive(Clone)]
pub struct LogHandle(Option<reload::Handle<EnvFilter, Registry>>);

impl LogHandle {
    /// A handle to no log, for tests.
    pub fn disconnected() -> Self {
        Self(None)
    }

    /// Sets the level from the next line on.
    pub fn set_level(&self, level: LogLevel) {
        if let Some(handle) = &self.0
            && let Err(error) = handle.reload(filter(level))
        {
            tracing::warn!(%error, "the log level did not change");
        }
    }
}

/// Starts the log of this process. A second call in one process has no effect.
pub fn start(level: LogLevel) -> LogHandle {
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).with_target(false);
    // A reader of the log that went away (`p2plus daemon 2>&1 | head`) must not end the daemon: to complain about it would panic.
    let lines = lines.log_internal_errors(false);
    // The journal stamps each line with its own time.
    let lines = if std::env::var_os("JOURNAL_STREAM").is_some() { lines.without_time().boxed() } else { lines.boxed() };
    match tracing_subscriber::registry().with(filter).with(lines).try_init() {
        Ok(()) => LogHandle(Some(handle)),
        Err(_) => LogHandle::disconnected(),
    }
}

/// Dependencies speak at warn: their debug lines say nothing about the network. That of the DHT is silent: every two seconds without a way there
/// are an error to it, and what comes of its questions is said here.
fn filter(level: LogLevel) -> EnvFilter {
    let others = if level == LogLevel::Error { "error" } else { "warn" };
    EnvFilter::new(format!("{others},mainline=off,p2plus={level}"))
}
