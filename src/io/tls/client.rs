//! The member's side: to a relay that the ledger names, straight or through the proxy that this host has to use.

use super::connection::carry;
use super::links::{Link, Origin};
use super::{OpenOrder, Shared, TlsEvent, certificate, mark, quieten};
use crate::wire::http_connect::{BadReply, MAX_REPLY_LEN, Proxy, Reply, read_reply};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

/// How long all attempts together may take.
const CONNECT: Duration = Duration::from_secs(8);

/// How long one address has for itself before the next is tried as well (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// How long one address of a proxy may take to be connected to: it is near.
const PROXY_CONNECT: Duration = Duration::from_millis(1500);

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("nobody answers in time")]
    Silent,
    #[error(transparent)]
    Unreachable(#[from] io::Error),
    #[error(transparent)]
    Proxy(#[from] BadReply),
    #[error("there is a link already")]
    Twice,
}

/// Opens a link and carries it until it ends; tells of either.
pub(super) async fn open(shared: Arc<Shared>, order: OpenOrder) {
    let relay = order.relay;
    let opened = match timeout(CONNECT, connect_any(&shared, &order)).await {
        Ok(opened) => opened,
        Err(_) => Err(OpenError::Silent),
    };
    let opened = opened.and_then(|(remote, stream)| {
        let link = Arc::new(Link::new(remote, Origin::Opened));
        shared.links.add(&link).then_some((link, stream)).ok_or(OpenError::Twice)
    });
    match opened {
        Ok((link, stream)) => {
            tracing::info!(?relay, remote = %link.remote, "a relay is reached by TLS");
            (shared.notify)(TlsEvent::Opened { relay, path: link.path() });
            let end = carry(&shared.links, Arc::clone(&link), stream, shared.received.clone()).await;
            tracing::info!(?relay, remote = %link.remote, %end, "the TLS link to a relay ended");
            (shared.notify)(TlsEvent::Closed { path: link.path() });
            shared.links.remove(&link.remote);
        }
        Err(error) => {
            tracing::info!(?relay, %error, "a relay is not reached by TLS");
            (shared.notify)(TlsEvent::Failed { relay });
        }
    }
}

/// Tries all addresses, each a moment after the one before, and takes the first that shows the relay's key.
async fn connect_any(shared: &Arc<Shared>, order: &OpenOrder) -> Result<(SocketAddr, TlsStream<TcpStream>), OpenError> {
    let config = certificate::client_config(order.key).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut attempts = JoinSet::new();
    for (endpoint, position) in order.endpoints.iter().copied().zip(0..) {
        let (connector, proxy, mark) = (connector.clone(), shared.proxy(), shared.mark);
        attempts.spawn(async move {
            sleep(HEAD_START * position).await;
            connect(endpoint, proxy.as_deref(), mark, connector).await.map(|stream| (endpoint, stream))
        });
    }
    let mut last = OpenError::Silent;
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(error)) => last = error,
            Err(error) => last = io::Error::other(error).into(),
        }
    }
    Err(last)
}

async fn connect(
    endpoint: SocketAddr,
    proxy: Option<&Proxy>,
    mark: u32,
    connector: TlsConnector,
) -> Result<TlsStream<TcpStream>, OpenError> {
    let stream = match proxy {
        None => reach(endpoint, mark).await?,
        Some(proxy) => pass(proxy, endpoint, mark).await?,
    };
    quieten(&stream)?;
    // The ledger knows relays by their addresses, which TLS does not say.
    let name = ServerName::IpAddress(IpAddr::into(endpoint.ip()));
    Ok(connector.connect(name, stream).await?)
}

async fn reach(endpoint: SocketAddr, bits: u32) -> io::Result<TcpStream> {
    let socket = if endpoint.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    mark(&socket, bits)?;
    socket.connect(endpoint).await
}

/// Tries the addresses of one place, one after the other: one that is silent leaves time for the next.
pub(super) async fn reach_any(addresses: impl Iterator<Item = SocketAddr>, mark: u32) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::HostUnreachable);
    for address in addresses {
        match timeout(PROXY_CONNECT, reach(address, mark)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// Has a proxy connect to an endpoint. A proxy's name is the system's to resolve, whose questions bear no mark: docs/reachability.md.
async fn pass(proxy: &Proxy, endpoint: SocketAddr, mark: u32) -> Result<TcpStream, OpenError> {
    let addresses = lookup_host((proxy.host(), proxy.port())).await?;
    let mut stream = reach_any(addresses, mark).await?;
    stream.write_all(proxy.request(endpoint).as_bytes()).await?;
    // The other end speaks after this node alone: what comes before that is the proxy's. Byte by byte nothing of TLS is taken.
    let mut reply = Vec::with_capacity(512);
    while reply.len() < MAX_REPLY_LEN {
        reply.push(stream.read_u8().await?);
        let is_line_whole = reply.ends_with(b"\n") || reply.len() >= MAX_REPLY_LEN;
        if is_line_whole && matches!(read_reply(&reply)?, Reply::Connected(_)) {
            return Ok(stream);
        }
    }
    Err(BadReply::Nonsense.into())
}
