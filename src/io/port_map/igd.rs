//! UPnP: finds the gateway's connection to the world and asks it, by HTTP, to pass a port on.
//!
//! The search goes to the gateway alone and to the group, because some routers hear no more than one of them; answers of others than the
//! gateway are not read. Every connection goes to the gateway's own address: where its words lead elsewhere nobody goes
//! ([`upnp::location`]), so that nobody on the link has this process call upon a third party.

use super::gateway::{AskError, Fault, marked};
use super::{Mapping, Target};
use crate::wire::upnp::{
    self, Action, Connection, FAULT_CONFLICT, FAULT_PERMANENT_ONLY, MAX_DOCUMENT_LEN, MAX_SEARCH_ANSWER_LEN, Place,
    SEARCH_GROUP, SEARCH_PORT, SEARCH_TARGETS,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Duration;
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

/// How long the search waits for an answer: a device may take its second (MX).
const SEARCH: Duration = Duration::from_millis(2500);

/// How long a document, or an action, may take: a router thinks for a while about its own firewall.
const EXCHANGE: Duration = Duration::from_secs(4);

/// Datagrams read for one search: a device answers some copies of it each.
const MAX_ANSWERS: usize = 32;

/// Ports that are tried when another host has the one before.
const PORT_ATTEMPTS: u16 = 4;

/// How far apart those are.
const PORT_STEP: u16 = 1009;

/// The lowest of them: some routers pass no port below on.
const LOWEST_PORT: u16 = 1024;

/// A connection of the gateway to the world, and how to ask it.
#[derive(Clone)]
pub(super) struct Igd {
    target: Target,
    mark: u32,
    connection: Connection,
}

impl Igd {
    /// Looks for the gateway's connections.
    pub(super) async fn find(target: Target, mark: u32) -> Vec<Self> {
        match Self::try_find(target, mark).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(gateway = %target.gateway, %error, "no UPnP gateway");
                Vec::new()
            }
        }
    }

    async fn try_find(target: Target, mark: u32) -> Result<Vec<Self>, AskError> {
        let root = search(target, mark).await?;
        let request = Request::get(&root.path).body(Bytes::new());
        let (_, description) = exchange(target, mark, &root, request).await?;
        let connections = upnp::connections(&description, &root, target.gateway);
        Ok(connections.into_iter().map(|connection| Self { target, mark, connection }).collect())
    }

    /// Asks for the external address, and then for a mapping: for a while, or, where the gateway knows no end, for good.
    pub(super) async fn map(&self, external_port: u16, lifetime: Duration) -> Result<Mapping, AskError> {
        let answer = self.act(Action::ExternalAddress).await?;
        // A gateway without a connection has no address.
        let address = upnp::external_address(&answer).ok_or(AskError::Unknown)?;
        let mut mapping = Mapping { external: SocketAddrV4::new(address, external_port), lifetime };
        let mut lease = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        let mut attempts = 0;
        loop {
            let internal = SocketAddrV4::new(self.target.source, self.target.port);
            let external_port = mapping.external.port();
            match self.act(Action::Add { external_port, internal, lease }).await {
                Ok(_) => return Ok(mapping),
                Err(AskError::Refused(Fault::Upnp(FAULT_PERMANENT_ONLY))) if lease != 0 => lease = 0,
                Err(AskError::Refused(Fault::Upnp(FAULT_CONFLICT))) if attempts < PORT_ATTEMPTS => {
                    attempts += 1;
                    mapping.external.set_port(external_port.wrapping_add(PORT_STEP).max(LOWEST_PORT));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for the end of a mapping.
    pub(super) async fn delete(&self, external_port: u16) -> Result<(), AskError> {
        self.act(Action::Delete { external_port }).await.map(drop)
    }

    async fn act(&self, action: Action) -> Result<String, AskError> {
        let Connection { service, control } = &self.connection;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&control.path)
            .header(header::CONTENT_TYPE, "text/xml; charset=\"utf-8\"")
            .header("SOAPAction", format!("\"{service}#{}\"", action.name()))
            .body(Bytes::from(action.body(service)));
        let (is_success, answer) = exchange(self.target, self.mark, control, request).await?;
        if is_success {
            return Ok(answer);
        }
        Err(upnp::fault(&answer).map_or(AskError::Unknown, |code| AskError::Refused(Fault::Upnp(code))))
    }
}

/// Searches for the gateway's description.
async fn search(target: Target, mark: u32) -> Result<Place, AskError> {
    let socket = marked(Type::DGRAM, target.source, mark).and_then(|socket| {
        socket.set_multicast_if_v4(&target.source)?;
        socket.set_multicast_ttl_v4(2)?; // UPnP Device Architecture 1.1 §1.3.2
        UdpSocket::from_std(socket.into())
    });
    let socket = socket.map_err(AskError::Unreachable)?;
    for host in [SocketAddrV4::new(target.gateway, SEARCH_PORT), SEARCH_GROUP] {
        for kind in SEARCH_TARGETS {
            // Where one of them cannot be sent, another one may.
            let _ = socket.send_to(upnp::search(kind, host).as_bytes(), host).await;
        }
    }
    let deadline = Instant::now() + SEARCH;
    let mut answer = [0; MAX_SEARCH_ANSWER_LEN];
    for _ in 0..MAX_ANSWERS {
        let Ok(received) = timeout_at(deadline, socket.recv_from(&mut answer)).await else { break };
        // An ICMP message in answer to the one is no word on the others.
        let Ok((len, from)) = received else { continue };
        if from.ip() == IpAddr::V4(target.gateway)
            && let Some(place) = upnp::location(&answer[..len], target.gateway)
        {
            return Ok(place);
        }
    }
    Err(AskError::Silent)
}

/// Has one request answered. Returns whether it was a success, and what was said.
async fn exchange(
    target: Target,
    mark: u32,
    place: &Place,
    request: Result<Request<Bytes>, hyper::http::Error>,
) -> Result<(bool, String), AskError> {
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| AskError::Unreachable(io::Error::other(error));
    let mut request = request.map_err(|error| broken(error.into()))?.map(Full::new);
    let host = SocketAddrV4::new(target.gateway, place.port);
    let value = host.to_string().parse().map_err(|error: header::InvalidHeaderValue| broken(error.into()))?;
    request.headers_mut().insert(header::HOST, value);
    let exchange = async {
        let socket = TcpSocket::new_v4()?;
        if mark != 0 {
            SockRef::from(&socket).set_mark(mark)?;
        }
        socket.bind(SocketAddr::from((target.source, 0)))?;
        let stream = socket.connect(SocketAddr::V4(host)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let ask = async move {
            let answer = sender.send_request(request).await.map_err(io::Error::other)?;
            let is_success = answer.status().is_success();
            let body = Limited::new(answer.into_body(), MAX_DOCUMENT_LEN).collect().await.map_err(io::Error::other)?;
            Ok((is_success, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
        };
        // The connection ends with its only sender; how, tells nothing more than the answer does.
        let (answer, _) = tokio::join!(ask, connection);
        answer
    };
    timeout(EXCHANGE, exchange).await.map_err(|_| AskError::Silent)?.map_err(AskError::Unreachable)
}
