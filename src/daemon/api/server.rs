//! HTTP in, [`Call`]s out: reads a request, judges it, hands it to the node's thread and writes the answer.

use super::API_VERSION;
use super::access::{AccessRules, Caller};
use super::request::{Reply, Request};
use super::route::{Method, Right};
use super::socket::{ApiSocket, JudgingListener, SharedRules};
use super::types::{DeviceMode, DeviceStatus, Envelope, ErrorEnvelope, Event, LedgerStatus, Status};
use crate::daemon::config::Config;
use crate::daemon::failure::{ErrorCode, Failure};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::get;
use axum::serve::IncomingStream;
use bytes::Bytes;
use hyper::body::Frame;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot};

/// Calls that wait for the node; one more is answered with `failed`.
pub const MAX_CALLS: usize = 64;
/// Of these, calls of strangers: the others find a place however many of those come.
const MAX_STRANGERS_CALLS: usize = 8;
/// Events that a slow reader may fall behind; past it it gets `lagged`.
pub const MAX_EVENTS: usize = 256;
/// Longest request body, in KiB: of those who may give orders, a file with all the rules that a network may have; of others, a name or two.
const MAX_ORDER_KIB: usize = 4096;
const MAX_BODY_KIB: usize = 64;
/// How long a request body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Serialized events between the broadcast and one reader's connection.
const EVENT_LINES: usize = 16;

/// One request on its way to the node.
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Who asks, and what it may see.
    pub caller: Caller,
    /// Takes the answer. Closed (`is_closed`) once the caller has gone: then nobody waits.
    pub reply: oneshot::Sender<Result<Response, Failure>>,
    /// A stranger's place among the few that strangers have, until this is dropped: also when it hung up long before.
    pub place: Option<OwnedSemaphorePermit>,
}

/// The node's answer.
pub struct Response {
    /// The reply of the request's kind.
    pub reply: Reply,
    /// What is worth a look though it worked.
    pub warnings: Vec<String>,
}

impl From<Reply> for Response {
    fn from(reply: Reply) -> Self {
        Self { reply, warnings: Vec::new() }
    }
}

/// The server of one daemon.
pub struct Server {
    socket: ApiSocket,
    handlers: Handlers,
}

/// What a reload changes in a running server.
#[derive(Clone)]
pub struct LiveSettings {
    rules: SharedRules,
    max_staleness_seconds: Arc<AtomicU64>,
}

impl LiveSettings {
    /// Takes `[node] admins` and `[ledger] max_staleness` over, for all connections and answers to come.
    pub fn apply(&self, config: &Config) {
        self.rules.set_admins(config.node.admins.clone());
        self.max_staleness_seconds.store(config.ledger.max_staleness.0.as_secs(), Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct Handlers {
    settings: LiveSettings,
    calls: mpsc::Sender<Call>,
    strangers: Arc<Semaphore>,
    events: broadcast::Sender<Event>,
}

impl Server {
    /// Prepares to answer on `socket`: requests go to `calls` (made with [`MAX_CALLS`]), `events` (made with [`MAX_EVENTS`]) go to readers.
    pub fn new(
        socket: ApiSocket,
        config: &Config,
        calls: mpsc::Sender<Call>,
        events: broadcast::Sender<Event>,
    ) -> Self {
        let rules = SharedRules::new(AccessRules::new(Vec::new(), socket.owner_uid()));
        let settings = LiveSettings { rules, max_staleness_seconds: Arc::default() };
        settings.apply(config);
        let strangers = Arc::new(Semaphore::new(MAX_STRANGERS_CALLS));
        Self { socket, handlers: Handlers { settings, calls, strangers, events } }
    }

    /// The settings that a reload changes.
    pub fn settings(&self) -> LiveSettings {
        self.handlers.settings.clone()
    }

    /// Answers until the future is dropped, which also removes the socket.
    ///
    /// # Errors
    /// The socket cannot be listened to.
    pub async fn run(self) -> io::Result<()> {
        let listener = self.socket.listen(self.handlers.settings.rules.clone())?;
        let router = Router::new().route("/v1/events", get(stream_events)).fallback(answer).with_state(self.handlers);
        axum::serve(listener, router.into_make_service_with_connect_info::<Caller>()).await
    }
}

impl Connected<IncomingStream<'_, JudgingListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, JudgingListener>) -> Self {
        *stream.remote_addr()
    }
}

async fn answer(
    State(handlers): State<Handlers>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    http: axum::extract::Request,
) -> HttpResponse {
    match handlers.call(caller, http).await {
        Ok(response) => {
            let body = Envelope { api: API_VERSION, data: response.reply, warnings: response.warnings };
            json_response(StatusCode::OK, &body)
        }
        Err(failure) => failure_response(failure),
    }
}

impl Handlers {
    async fn call(&self, caller: Caller, http: axum::extract::Request) -> Result<Response, Failure> {
        let request = read_request(http, caller.right).await?;
        if caller.right < request.right() {
            return Err(missing_right(request.right()));
        }
        let is_stranger = caller.right < Right::Group;
        let place = is_stranger.then(|| Arc::clone(&self.strangers).try_acquire_owned()).transpose();
        let place = place.map_err(|_| too_busy())?;
        let (reply, answer) = oneshot::channel();
        self.calls.try_send(Call { request, caller, reply, place }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => too_busy(),
            mpsc::error::TrySendError::Closed(_) => shutting_down(),
        })?;
        let mut response = answer.await.map_err(|_| shutting_down())??;
        match &mut response.reply {
            Reply::Status(status) if is_stranger => {
                redact(status);
                response.warnings = vec!["shortened: members of the group p2plus see the rest".to_owned()];
            }
            Reply::Status(status) => response.warnings.extend(self.staleness(&status.ledger)),
            _ => {}
        }
        Ok(response)
    }

    fn staleness(&self, ledger: &LedgerStatus) -> Option<String> {
        let limit = self.settings.max_staleness_seconds.load(Ordering::Relaxed);
        let age = ledger.age_seconds.filter(|age| *age > limit)?;
        Some(format!(
            "the newest proof that the ledger is fresh is {} hours old: no validator was heard since",
            age / 3600
        ))
    }
}

async fn read_request(http: axum::extract::Request, right: Right) -> Result<Request, Failure> {
    let max_kib = if right == Right::Admin { MAX_ORDER_KIB } else { MAX_BODY_KIB };
    let (head, body) = http.into_parts();
    let method = match head.method {
        axum::http::Method::GET => Some(Method::Get),
        axum::http::Method::POST => Some(Method::Post),
        _ => None,
    };
    let body = tokio::time::timeout(BODY_DEADLINE, to_bytes(body, max_kib * 1024))
        .await
        .map_err(|_| Failure::new(ErrorCode::Usage, "the request's body did not arrive in time"))?
        .map_err(|_| {
            Failure::new(ErrorCode::Usage, format!("the request's body is broken or larger than {max_kib} KiB"))
        })?;
    let path = head.uri.path();
    let unknown = || Failure::new(ErrorCode::NotFound, format!("there is no {} {path} in this API", head.method));
    let request = method.and_then(|method| Request::from_http(method, path, &body)).ok_or_else(unknown)?;
    request.map_err(|error| Failure::new(ErrorCode::Usage, format!("the request's body is not understood: {error}")))
}

fn missing_right(right: Right) -> Failure {
    match right {
        Right::Admin => Failure::new(ErrorCode::Permission, "only root and the users in [node] admins may do this")
            .hint("use sudo, or add your user to `admins` in the network's configuration and reload"),
        Right::Group | Right::Anybody => {
            Failure::new(ErrorCode::Permission, "only root and the members of the group p2plus may do this")
                .hint("use sudo, or `sudo usermod --append --groups p2plus $USER` and log in again")
        }
    }
}

fn too_busy() -> Failure {
    Failure::new(ErrorCode::Failed, "the daemon is too busy to answer")
        .hint("try again in a moment; if it stays so, look at the daemon's log")
}

fn shutting_down() -> Failure {
    Failure::new(ErrorCode::NotRunning, "the daemon is shutting down")
}

/// Leaves what a stranger on this machine may see: that the network is there, and whether it works. The node leaves the rest out as well,
/// to save the work; here is the door.
fn redact(status: &mut Status) {
    status.node.id.clear();
    status.network.id.clear();
    status.network.reason = None;
    status.network.addresses.clear();
    status.network.device = DeviceStatus { name: None, mode: DeviceMode::None, mtu: 0 };
    status.network.listen.clear();
    status.network.conflicts.clear();
    status.network.problems.clear();
    status.ledger.hash.clear();
    status.ledger.halted = None;
    status.peers.clear();
    status.drops.clear();
}

fn failure_response(failure: Failure) -> HttpResponse {
    let status = StatusCode::from_u16(failure.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json_response(status, &ErrorEnvelope { api: API_VERSION, error: failure })
}

fn json_response(status: StatusCode, body: &impl serde::Serialize) -> HttpResponse {
    let body = serde_json::to_vec(body).expect("answers consist of JSON's types");
    (status, [(header::CONTENT_TYPE, "application/json"), (header::CONNECTION, "close")], body).into_response()
}

/// `GET /v1/events`: one JSON object per line, until the reader or the daemon goes.
async fn stream_events(State(handlers): State<Handlers>, ConnectInfo(caller): ConnectInfo<Caller>) -> HttpResponse {
    if caller.right < Right::Group {
        return failure_response(missing_right(Right::Group));
    }
    let (sender, lines) = mpsc::channel(EVENT_LINES);
    tokio::spawn(forward_events(handlers.events.subscribe(), sender));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(EventBody(lines))).into_response()
}

async fn forward_events(mut events: broadcast::Receiver<Event>, lines: mpsc::Sender<Bytes>) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = lines.closed() => return,
        };
        let event = match event {
            Ok(event) => event,
            Err(RecvError::Lagged(missed)) => Event::Lagged { missed },
            Err(RecvError::Closed) => return,
        };
        let mut line = serde_json::to_vec(&event).expect("events consist of JSON's types");
        line.push(b'\n');
        if lines.send(line.into()).await.is_err() {
            return;
        }
    }
}

/// A response body that ends with its channel.
struct EventBody(mpsc::Receiver<Bytes>);

impl hyper::body::Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
