//! The other end of the control socket: one request, one connection, one answer.

use super::scope::command_line;
use crate::daemon::api::request::Request;
use crate::daemon::api::types::{Envelope, ErrorEnvelope};
use crate::daemon::failure::{ErrorCode, Failure};
use crate::daemon::paths::Paths;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::io;
use std::time::Duration;
use tokio::net::UnixStream;

/// How long a daemon that does nothing but look something up may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// What an answer may take longer than the waiting that was asked for.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// Longest answer: a log of a hundred thousand entries.
const MAX_ANSWER_LEN: usize = 64 << 20;

/// Talks to the daemon of one network.
pub(super) struct Client {
    /// The network's places.
    pub(super) paths: Paths,
}

/// What a daemon answered.
pub(super) struct Answer<T> {
    /// The answer.
    pub(super) data: T,
    /// What is worth a look though it worked.
    pub(super) warnings: Vec<String>,
}

impl Client {
    pub(super) fn new(paths: Paths) -> Self {
        Self { paths }
    }

    /// Asks, and waits at most `patience` for the answer.
    pub(super) fn ask<T: DeserializeOwned>(&self, request: &Request, patience: Duration) -> Result<Answer<T>, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(ErrorCode::Failed, format!("cannot talk to the daemon: {error}")))?;
        runtime.block_on(async {
            match tokio::time::timeout(patience, self.exchange(request)).await {
                Ok(answer) => answer,
                Err(_) => Err(Failure::new(
                    ErrorCode::Timeout,
                    format!("the daemon of network {} did not answer in {} s", self.paths.network, patience.as_secs()),
                )
                .hint("look at its log; it may be overloaded or stuck")),
            }
        })
    }

    async fn exchange<T: DeserializeOwned>(&self, request: &Request) -> Result<Answer<T>, Failure> {
        let stream = UnixStream::connect(self.paths.socket()).await.map_err(|error| self.no_connection(&error))?;
        let broken = |error: hyper::Error| self.broken(&error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let (path, body) = request.to_http();
        let method = if body.is_some() { hyper::Method::POST } else { hyper::Method::GET };
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let http = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "p2plus")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.broken(&error.to_string()))?;
        let response = sender.send_request(http).await.map_err(broken)?;
        let is_success = response.status().is_success();
        let body = Limited::new(response.into_body(), MAX_ANSWER_LEN).collect().await;
        let body = body.map_err(|error| self.broken(&error.to_string()))?.to_bytes();
        connection.abort();
        self.understand(is_success, &body)
    }

    fn understand<T: DeserializeOwned>(&self, is_success: bool, body: &[u8]) -> Result<Answer<T>, Failure> {
        let not_understood = |error: serde_json::Error| {
            Failure::new(ErrorCode::Failed, format!("the daemon's answer is not understood: {error}"))
                .hint("the daemon and this command are different versions: restart the daemon")
        };
        if is_success {
            let envelope: Envelope<T> = serde_json::from_slice(body).map_err(not_understood)?;
            Ok(Answer { data: envelope.data, warnings: envelope.warnings })
        } else {
            Err(serde_json::from_slice::<ErrorEnvelope>(body).map_err(not_understood)?.error)
        }
    }

    fn no_connection(&self, error: &io::Error) -> Failure {
        let network = &self.paths.network;
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                // Who may not look into the state folder cannot know whether it is there.
                if !self.paths.roots.is_hidden() && !self.paths.roots.networks().contains(network) {
                    return super::scope::missing(&self.paths);
                }
                Failure::new(ErrorCode::NotRunning, format!("the daemon of network {network} is not running"))
                    .hint(format!("start it: {}", self.how_to_start()))
            }
            io::ErrorKind::PermissionDenied => {
                let socket = self.paths.socket();
                Failure::new(ErrorCode::Permission, format!("cannot open {}: {error}", socket.display()))
                    .hint("use sudo")
            }
            _ => self.broken(&error.to_string()),
        }
    }

    /// What starts this network's daemon.
    fn how_to_start(&self) -> String {
        let by_service = self.paths.roots.are_default() && super::service::systemd_runs();
        format!("sudo {}", command_line(&self.paths, if by_service { "up" } else { "daemon" }))
    }

    /// The connection ended in the middle: the daemon stops, or it has too many connections.
    fn broken(&self, cause: &str) -> Failure {
        Failure::new(
            ErrorCode::NotRunning,
            format!("the daemon of network {} broke the connection: {cause}", self.paths.network),
        )
        .hint("it may be stopping, or busy: try again, and look at its log")
    }
}
