//! Datagrams by TLS over TCP, for where UDP does not pass: a relay that the ledger names listens, members connect, and on each connection
//! datagrams travel behind their lengths as they would by UDP.
//!
//! ```text
//!   TlsLinks::send_each ──► a queue for each link, which drops the oldest ──► its task ──► TLS ──► TCP
//!   TlsReceiver::receive_batch ◄── one bounded channel ◄── its task ◄── TLS ◄── TCP
//! ```
//! Owns connections, their bounds and their keys: a relay shows its node key, and whoever connects knows that from the ledger. Refuses to
//! know what a datagram says, when a link is wanted, and who it is that connected: that is proved inside, as on every other path.

#![allow(unsafe_code)]

mod certificate;
mod client;
mod connection;
mod links;
mod server;
#[cfg(test)]
mod tests;

pub use connection::Incoming;

use super::StopSignal;
use super::batch::Train;
use super::udp::ReceiveEnd;
use crate::crypto::identity::{NodeId, SigningKey, VerifyingKey};
use crate::path::Path;
use crate::wire::drops::{DropReason, Drops};
use crate::wire::http_connect::Proxy;
use links::Links;
use server::Places;
use socket2::SockRef;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Rows of datagrams that wait for the thread that opens them: 64 × 16 KiB.
const MAX_WAITING: usize = 64;

/// Bytes of one connection that the kernel holds and has not sent: what waits waits where the oldest can be dropped.
const UNSENT_BYTES: libc::c_int = 32 << 10;

/// A relay to be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenOrder {
    /// Which.
    pub relay: NodeId,
    /// The key that it has to show.
    pub key: VerifyingKey,
    /// Where it listens by TCP.
    pub endpoints: Vec<SocketAddr>,
}

/// What happened to a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsEvent {
    /// A relay is reached, as was ordered.
    Opened {
        /// The relay.
        relay: NodeId,
        /// The path that the link is.
        path: Path,
    },
    /// It is not.
    Failed {
        /// The relay.
        relay: NodeId,
    },
    /// A link ended that this node began, or that something of a session came by.
    Closed {
        /// The path that it was.
        path: Path,
    },
}

/// What the connections share.
struct Shared {
    links: Links,
    places: Places,
    mark: u32,
    proxy: Mutex<Option<Arc<Proxy>>>,
    received: mpsc::Sender<Incoming>,
    notify: Box<dyn Fn(TlsEvent) + Send + Sync>,
}

impl Shared {
    fn proxy(&self) -> Option<Arc<Proxy>> {
        self.proxy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sends by the links that there are. Cheap to clone; any thread may, and none waits.
#[derive(Clone)]
pub struct TlsLinks(Arc<Shared>);

/// What comes by all links, for one thread.
pub struct TlsReceiver {
    received: mpsc::Receiver<Incoming>,
    runtime: Handle,
}

/// Opens, closes and accepts links.
pub struct TlsOrders {
    shared: Arc<Shared>,
    runtime: Handle,
    acceptor: TlsAcceptor,
    listening: Vec<(SocketAddr, JoinHandle<()>)>,
}

/// Makes the three ends, with no link. `key` is this node's own, by which members know it; `mark` is put on all that is sent, 0 for none;
/// `notify` is called on the runtime, and may not block.
///
/// # Errors
/// TLS's, when it cannot be set up.
pub fn start(
    runtime: &Runtime,
    key: SigningKey,
    mark: u32,
    drops: Arc<Drops>,
    notify: impl Fn(TlsEvent) + Send + Sync + 'static,
) -> io::Result<(TlsLinks, TlsReceiver, TlsOrders)> {
    let config = certificate::server_config(key).map_err(io::Error::other)?;
    let (sender, received) = mpsc::channel(MAX_WAITING);
    let shared = Arc::new(Shared {
        links: Links::new(drops),
        places: Places::default(),
        mark,
        proxy: Mutex::default(),
        received: sender,
        notify: Box::new(notify),
    });
    let orders = TlsOrders {
        shared: Arc::clone(&shared),
        runtime: runtime.handle().clone(),
        acceptor: TlsAcceptor::from(Arc::new(config)),
        listening: Vec::new(),
    };
    Ok((TlsLinks(shared), TlsReceiver { received, runtime: runtime.handle().clone() }, orders))
}

impl TlsLinks {
    /// Queues the datagrams of a train, which lies in `memory`, for its link. Returns how many were not, and what they are counted as; what is
    /// dropped for them is counted here.
    ///
    /// # Panics
    /// When the train reaches beyond `memory`.
    pub fn send(&self, memory: &[u8], train: &Train) -> Option<(usize, DropReason)> {
        let mut lost = None;
        for datagram in train.datagrams() {
            if let Err(reason) = self.0.links.send(&train.path.remote, &memory[datagram.bytes]) {
                lost = Some((lost.map_or(1, |(count, _)| count + 1), reason));
            }
        }
        lost
    }

    /// Something of a session came from this remote end: the link is no stranger's.
    pub fn vouch(&self, remote: &SocketAddr) {
        if let Some(link) = self.0.links.get(remote) {
            link.vouch();
        }
    }
}

impl TlsReceiver {
    /// Waits for datagrams and fills `batch` with all that are there, up to a bounded number: at least one. Returns whether there was nothing
    /// before.
    ///
    /// # Errors
    /// [`ReceiveEnd`]: stopped, or that it cannot wait.
    pub fn receive_batch(&mut self, stop: &StopSignal, batch: &mut Vec<Incoming>) -> Result<bool, ReceiveEnd> {
        batch.clear();
        if stop.is_triggered() {
            return Err(ReceiveEnd::Stopped);
        }
        while batch.len() < MAX_WAITING
            && let Ok(incoming) = self.received.try_recv()
        {
            batch.push(incoming);
        }
        if !batch.is_empty() {
            return Ok(false);
        }
        let Self { received, runtime } = self;
        let came = runtime.block_on(async {
            // SAFETY: `stop` lends its descriptor for this call, and the registration ends within it.
            let stopped = unsafe { AsyncFd::register(stop.as_fd()) }.map_err(io::Error::from)?;
            tokio::select! {
                biased;
                _ = stopped.readable() => Err(ReceiveEnd::Stopped),
                came = received.recv() => came.ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe).into()),
            }
        });
        // The runtime may be on its way out: then so is the daemon.
        let is_stopped = stop.is_triggered();
        batch.push(came.map_err(|end| if is_stopped { ReceiveEnd::Stopped } else { end })?);
        Ok(true)
    }
}

impl TlsOrders {
    /// Takes the HTTP proxy through which links are opened from now on.
    pub fn set_proxy(&self, proxy: Option<Proxy>) {
        *self.shared.proxy.lock().unwrap_or_else(PoisonError::into_inner) = proxy.map(Arc::new);
    }

    /// Listens at these addresses, and at no others. Links that there are stay.
    pub fn listen(&mut self, addresses: &[SocketAddr]) {
        self.listening.retain(|(address, task)| {
            let is_wanted = addresses.contains(address);
            if !is_wanted {
                task.abort();
            }
            is_wanted
        });
        for address in addresses {
            if self.listening.iter().all(|(other, _)| other != address) {
                let listening = server::listen(Arc::clone(&self.shared), *address, self.acceptor.clone());
                self.listening.push((*address, self.runtime.spawn(listening)));
            }
        }
    }

    /// Opens a link to a relay. What comes of it is told.
    pub fn open(&self, order: OpenOrder) {
        drop(self.runtime.spawn(client::open(Arc::clone(&self.shared), order)));
    }

    /// Closes a link.
    pub fn close(&self, path: Path) {
        if let Some(link) = self.shared.links.get(&path.remote) {
            link.end();
        }
    }

    /// Takes which links peers with sessions use; those that others began and nobody uses end soon. Returns the paths of those that are used
    /// and are none any more: what came by them was still under way when their end was told.
    pub fn confirm(&self, used: &BTreeSet<SocketAddr>) -> Vec<Path> {
        self.shared.links.confirm(used)
    }
}

fn mark(socket: &impl AsFd, mark: u32) -> io::Result<()> {
    if mark == 0 { Ok(()) } else { SockRef::from(socket).set_mark(mark) }
}

/// Has a connection send what it is given at once, and keep little.
fn quieten(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (value, len) = (UNSENT_BYTES, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the pointer and length describe `value`, which the kernel reads during the call; the descriptor is borrowed.
    let outcome = unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, (&raw const value).cast(), len)
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
