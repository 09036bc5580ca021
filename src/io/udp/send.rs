//! Sending: from any thread, one datagram or a batch per system call.

use super::control_message::ControlMessage;
use super::counters::{UdpCounts, add};
use super::sockaddr::RawAddress;
use super::{Bound, Shared, overflow, set_option};
use crate::path::Path;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// Datagrams handed to the kernel by one system call at most; longer batches take several.
const CALL_MAX: usize = 32;
/// How long a sender waits for room in the socket's queue before it drops, in milliseconds: at 1 Gbit/s a full queue drains in 34.
const QUEUE_WAIT_MILLIS: libc::c_int = 50;

/// Why a datagram was not sent. Counted here already: a caller may let it go, for datagrams may always be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No route there, or the network reported that nobody is.
    #[error("the endpoint is unreachable")]
    Unreachable,
    /// Longer than the MTU of the interface it would leave by.
    #[error("the datagram is longer than the interface's MTU")]
    TooLong,
    /// The queue stayed full for 50 ms.
    #[error("the socket's queue is full")]
    QueueFull,
    /// No socket of the endpoint's family, or none at that position.
    #[error("no socket for this endpoint")]
    NoSocket,
    /// A firewall or the kernel refused; the number is the errno.
    #[error("the kernel refused the datagram (errno {0})")]
    Refused(i32),
}

/// One datagram of a batch: where its bytes lie in the memory that all of them share, and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The bytes, within the memory given to [`UdpSender::send_batch`].
    pub bytes: Range<usize>,
    /// The path that they leave by.
    pub path: Path,
}

/// Sends from the node's sockets. Cheap to clone, shared by all threads.
#[derive(Clone)]
pub struct UdpSender {
    shared: Arc<Shared>,
}

impl UdpSender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Returns the addresses that the sockets are bound to, by position.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.shared.sockets.iter().map(|socket| socket.local).collect()
    }

    /// Returns what all sockets did so far.
    pub fn counts(&self) -> UdpCounts {
        self.shared.counters.snapshot(self.shared.sockets.iter().map(overflow).sum())
    }

    /// Marks everything sent from now on, so that the host's routing rules keep it out of the tunnel (`SO_MARK`).
    ///
    /// # Errors
    /// The kernel's: it takes CAP_NET_ADMIN.
    pub fn set_mark(&self, mark: u32) -> io::Result<()> {
        let mark = libc::c_int::from_ne_bytes(mark.to_ne_bytes());
        self.shared.sockets.iter().try_for_each(|socket| set_option(&socket.fd, libc::SOL_SOCKET, libc::SO_MARK, mark))
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// [`SendError`]; the datagram is dropped and counted.
    pub fn send(&self, path: Path, datagram: &[u8]) -> Result<(), SendError> {
        let outgoing = Outgoing { bytes: 0..datagram.len(), path };
        let mut outcome = Ok(());
        self.send_each(datagram, std::slice::from_ref(&outgoing), |_, error| outcome = Err(error));
        outcome
    }

    /// Sends the datagrams of `batch` in their order, from where they lie in `memory`; returns how many the kernel took.
    ///
    /// What it did not take is dropped and counted by cause.
    ///
    /// # Panics
    /// When a range reaches beyond `memory`.
    pub fn send_batch(&self, memory: &[u8], batch: &[Outgoing]) -> usize {
        let mut dropped = 0;
        self.send_each(memory, batch, |_, _| dropped += 1);
        batch.len() - dropped
    }

    /// The same as [`send_batch`](Self::send_batch), telling `dropped` the position and cause of each datagram not sent.
    ///
    /// # Panics
    /// When a range reaches beyond `memory`.
    pub fn send_each(&self, memory: &[u8], batch: &[Outgoing], mut dropped: impl FnMut(usize, SendError)) {
        let counters = &self.shared.counters;
        let mut next = 0;
        while next < batch.len() {
            let Some(socket) = self.socket_for(&batch[next]) else {
                add(&counters.send_no_socket, 1);
                dropped(next, SendError::NoSocket);
                next += 1;
                continue;
            };
            let same_socket = batch[next..].iter().take(CALL_MAX);
            let run = same_socket
                .take_while(|other| self.socket_for(other).is_some_and(|it| std::ptr::eq(it, socket)))
                .count();
            let sent = send_run(socket, memory, &batch[next..next + run], Source::OfPath)
                .or_else(|error| self.resend(socket, memory, &batch[next..=next], error));
            match sent {
                Ok(sent) => {
                    add(&counters.sent, sent);
                    next += sent;
                }
                // The kernel's word is about the first datagram of the run; the others get their own turn.
                Err(error) => {
                    self.count_drop(error);
                    dropped(next, error);
                    next += 1;
                }
            }
        }
    }

    /// Leaves the choice of the source to the host, when the kernel refused the first datagram of a run for one that the host may have lost.
    fn resend(&self, socket: &Bound, memory: &[u8], first: &[Outgoing], error: SendError) -> Result<usize, SendError> {
        let is_bound = first.iter().any(|outgoing| outgoing.source().is_some());
        if !is_bound || !matches!(error, SendError::Unreachable | SendError::Refused(libc::EINVAL)) {
            return Err(error);
        }
        let sent = send_run(socket, memory, first, Source::OfHost)?;
        add(&self.shared.counters.sent_from_elsewhere, sent);
        Ok(sent)
    }

    fn socket_for(&self, outgoing: &Outgoing) -> Option<&Bound> {
        let of_family = |socket: &&Bound| socket.local.is_ipv4() == outgoing.path.remote.is_ipv4();
        match outgoing.path.local {
            Some(local) => self.shared.sockets.get(usize::from(local.socket)).filter(of_family),
            None => self.shared.sockets.iter().find(of_family),
        }
    }

    fn count_drop(&self, error: SendError) {
        let counters = &self.shared.counters;
        let counter = match error {
            SendError::Unreachable => &counters.send_unreachable,
            SendError::TooLong => &counters.send_too_long,
            SendError::QueueFull => &counters.send_queue_full,
            SendError::NoSocket => &counters.send_no_socket,
            SendError::Refused(_) => &counters.send_refused,
        };
        add(counter, 1);
    }
}

impl Outgoing {
    /// The host's address that it leaves from, if its path says so.
    fn source(&self) -> Option<IpAddr> {
        self.path.local.and_then(|local| local.address)
    }
}

/// Who chooses the address that a datagram leaves from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    OfPath,
    OfHost,
}

/// Hands a run of at most [`CALL_MAX`] datagrams to the kernel; returns how many it took, at least one.
fn send_run(socket: &Bound, memory: &[u8], run: &[Outgoing], source: Source) -> Result<usize, SendError> {
    let mut addresses = [RawAddress::unspecified(); CALL_MAX];
    let mut controls = [ControlMessage::empty(); CALL_MAX];
    let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; CALL_MAX];
    // SAFETY: integers and pointers, for which all zero is a value.
    let mut messages: [libc::mmsghdr; CALL_MAX] = unsafe { std::mem::zeroed() };
    for (index, outgoing) in run.iter().enumerate() {
        let bytes = &memory[outgoing.bytes.clone()];
        let (address, address_len) = RawAddress::encode(&outgoing.path.remote);
        addresses[index] = address;
        vectors[index] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let header = &mut messages[index].msg_hdr;
        header.msg_name = (&raw mut addresses[index]).cast();
        header.msg_namelen = address_len;
        header.msg_iov = &raw mut vectors[index];
        header.msg_iovlen = 1;
        if let Some(address) = outgoing.source().filter(|_| source == Source::OfPath) {
            let (control, control_len) = ControlMessage::source(address, &outgoing.path.remote);
            controls[index] = control;
            header.msg_control = (&raw mut controls[index]).cast();
            header.msg_controllen = control_len;
        }
    }
    let mut waited = false;
    loop {
        // SAFETY: each header points at an address, a control message and a vector of this frame and at bytes of `memory`, with their true lengths; the
        // kernel reads them during the call and writes `msg_len` only.
        let count = unsafe {
            libc::sendmmsg(socket.fd.as_raw_fd(), messages.as_mut_ptr(), run.len() as libc::c_uint, libc::MSG_DONTWAIT)
        };
        if let Ok(count @ 1..) = usize::try_from(count) {
            return Ok(count);
        }
        match io::Error::last_os_error().raw_os_error().unwrap_or(0) {
            libc::EINTR => {}
            libc::EAGAIN | libc::ENOBUFS if !waited => {
                wait_for_room(socket);
                waited = true;
            }
            libc::EAGAIN | libc::ENOBUFS => return Err(SendError::QueueFull),
            libc::EMSGSIZE => return Err(SendError::TooLong),
            libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::ENETDOWN
            | libc::EADDRNOTAVAIL => return Err(SendError::Unreachable),
            errno => return Err(SendError::Refused(errno)),
        }
    }
}

/// Waits until the socket's queue has room, a bounded time: a stopping daemon is not kept by it.
fn wait_for_room(socket: &Bound) {
    let mut fds = [libc::pollfd { fd: socket.fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 }];
    // SAFETY: one writable pollfd; the descriptor is borrowed for this call.
    unsafe { libc::poll(fds.as_mut_ptr(), 1, QUEUE_WAIT_MILLIS) };
}
