//! Sending: from any thread, one datagram or a batch per system call.

use super::control_message::ControlMessages;
use super::counters::{UdpCounts, add};
use super::sockaddr::RawAddress;
use super::spares::Spares;
use super::{Queue, Shared, overflow, set_option};
use crate::io::batch::Train;
use crate::path::Path;
use crate::wire::ecn::Ecn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Trains handed to the kernel by one system call at most; longer batches take several.
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

/// Sends from the node's sockets. Cheap to clone; any thread may.
#[derive(Clone)]
pub struct UdpSender {
    pub(super) shared: Arc<Shared>,
    /// Which of each socket's queues datagrams leave by.
    queue: usize,
    /// Whether it waits for room in a full queue.
    waits: bool,
}

impl UdpSender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, queue: 0, waits: true }
    }

    /// Returns a sender that uses another queue of each socket, from 0: threads with one each do not wait for each other in the kernel.
    pub fn by_queue(&self, queue: usize) -> Self {
        Self { shared: Arc::clone(&self.shared), queue, waits: self.waits }
    }

    /// Returns a sender that drops what a full queue has no room for: for a thread that others wait for.
    pub fn unwaiting(&self) -> Self {
        Self { waits: false, ..self.clone() }
    }

    fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.shared.sockets.iter().flat_map(|socket| &socket.queues)
    }

    /// Returns the addresses that the sockets are bound to, by position.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.shared.sockets.iter().map(|socket| socket.local).collect()
    }

    /// Returns what all sockets did so far.
    pub fn counts(&self) -> UdpCounts {
        let spares = self.shared.spares.load();
        self.shared.counters.snapshot(self.queues().chain(spares.queues()).map(overflow).sum())
    }

    /// Marks everything sent from now on, so that the host's routing rules keep it out of the tunnel (`SO_MARK`).
    ///
    /// # Errors
    /// The kernel's: it takes CAP_NET_ADMIN.
    pub fn set_mark(&self, mark: u32) -> io::Result<()> {
        let mark = libc::c_int::from_ne_bytes(mark.to_ne_bytes());
        self.shared.mark.store(mark, Ordering::Relaxed);
        self.queues().try_for_each(|queue| set_option(&queue.fd, libc::SOL_SOCKET, libc::SO_MARK, mark))
    }

    /// Hands each datagram to the kernel by itself from now on, and takes them so.
    pub fn handle_singly(&self) {
        self.shared.trains.forgo();
        // A kernel that does not know the option joins nothing.
        self.queues().for_each(|queue| drop(set_option(&queue.fd, libc::SOL_UDP, libc::UDP_GRO, 0)));
    }

    /// Hands the datagrams of a path to the kernel one by one for a while: what it cuts arrives damaged. Returns
    /// whether it did not do so already.
    pub fn note_damage(&self, path: Path) -> bool {
        self.shared.trains.damaged(path)
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// [`SendError`]; the datagram is dropped and counted.
    pub fn send(&self, path: Path, datagram: &[u8]) -> Result<(), SendError> {
        self.send_over(path, datagram, None)
    }

    /// Sends one datagram over so many routers at most.
    ///
    /// # Errors
    /// [`SendError`]; the datagram is dropped and counted.
    pub fn send_over(&self, path: Path, datagram: &[u8], hop_limit: Option<u8>) -> Result<(), SendError> {
        let (bytes, datagram_len) = (0..datagram.len(), datagram.len());
        let train = Train { bytes, datagram_len, path, ecn: Ecn::NotCapable, hop_limit };
        let mut outcome = Ok(());
        self.send_each(datagram, std::slice::from_ref(&train), |_, _, error| outcome = Err(error));
        outcome
    }

    /// Sends `trains` in their order, from where they lie in `memory`. Tells `dropped` the position of a train of which datagrams were not
    /// sent, how many, and the cause; they are counted already.
    ///
    /// # Panics
    /// When a range reaches beyond `memory`.
    pub fn send_each(&self, memory: &[u8], trains: &[Train], mut dropped: impl FnMut(usize, usize, SendError)) {
        let (spares, mut next) = (self.shared.spares.load(), 0);
        while next < trains.len() {
            let train = &trains[next];
            let Some(socket) = self.queue_for(&spares, train) else {
                self.count_drops(train.count(), SendError::NoSocket);
                dropped(next, train.count(), SendError::NoSocket);
                next += 1;
                continue;
            };
            let goes_along = |other: &&Train| {
                let has_same_socket = self.queue_for(&spares, other).is_some_and(|it| std::ptr::eq(it, socket));
                has_same_socket && (other.count() == 1 || self.shared.trains.takes(&other.path))
            };
            let run = trains[next..].iter().take(CALL_MAX).take_while(goes_along).count();
            if run == 0 {
                self.send_singly(socket, memory, train, |count, error| dropped(next, count, error));
                next += 1;
                continue;
            }
            match self.send_run(socket, memory, &trains[next..next + run]) {
                Ok(sent) => next += sent,
                Err(SendError::TooLong | SendError::Refused(_)) if train.count() > 1 => {
                    if self.send_singly(socket, memory, train, |count, error| dropped(next, count, error)) {
                        self.shared.trains.refused(train.path);
                    }
                    next += 1;
                }
                // The kernel's word is about the first train of the run; the others get their own turn.
                Err(error) => {
                    self.count_drops(train.count(), error);
                    dropped(next, train.count(), error);
                    next += 1;
                }
            }
        }
    }

    /// Sends the datagrams of a train one by one. Returns whether the kernel took them all.
    fn send_singly(
        &self,
        socket: &Queue,
        memory: &[u8],
        train: &Train,
        mut dropped: impl FnMut(usize, SendError),
    ) -> bool {
        let mut are_all_sent = true;
        let datagrams: Vec<_> = train.datagrams().collect();
        let mut rest = datagrams.as_slice();
        while !rest.is_empty() {
            match self.send_run(socket, memory, &rest[..rest.len().min(CALL_MAX)]) {
                Ok(sent) => {
                    rest = &rest[sent..];
                    if !self.shared.trains.is_forgone() {
                        add(&self.shared.counters.sent_singly, sent);
                    }
                }
                // The kernel's word is about the first.
                Err(error) => {
                    rest = &rest[1..];
                    are_all_sent = false;
                    self.count_drops(1, error);
                    dropped(1, error);
                }
            }
        }
        are_all_sent
    }

    /// Hands a run of trains to the kernel; returns how many it took, at least one. When it refuses the first for a source address that the
    /// host may have lost, the choice of the source is left to the host.
    fn send_run(&self, socket: &Queue, memory: &[u8], run: &[Train]) -> Result<usize, SendError> {
        let counters = &self.shared.counters;
        let sent = match send_run(socket, memory, run, (Source::OfPath, self.waits)) {
            Err(SendError::Unreachable | SendError::Refused(libc::EINVAL)) if source(&run[0]).is_some() => {
                let sent = send_run(socket, memory, &run[..1], (Source::OfHost, self.waits))?;
                add(&counters.sent_from_elsewhere, run[0].count());
                sent
            }
            outcome => outcome?,
        };
        add(&counters.sent, run[..sent].iter().map(Train::count).sum());
        run[..sent].iter().filter(|train| train.count() > 1).for_each(|train| self.shared.trains.taken(&train.path));
        Ok(sent)
    }

    fn queue_for<'s>(&'s self, spares: &'s Spares, train: &Train) -> Option<&'s Queue> {
        let is_of_family = |local: &SocketAddr| local.is_ipv4() == train.path.remote.is_ipv4();
        let mut sockets = self.shared.sockets.iter();
        let socket = match train.path.local {
            Some(local) => sockets
                .nth(local.socket.into())
                .or_else(|| spares.get(local.socket))
                .filter(|socket| is_of_family(&socket.local)),
            None => sockets.find(|socket| is_of_family(&socket.local)),
        }?;
        socket.queues.get(self.queue % socket.queues.len())
    }

    fn count_drops(&self, count: usize, error: SendError) {
        let counters = &self.shared.counters;
        let counter = match error {
            SendError::Unreachable => &counters.send_unreachable,
            SendError::TooLong => &counters.send_too_long,
            SendError::QueueFull => &counters.send_queue_full,
            SendError::NoSocket => &counters.send_no_socket,
            SendError::Refused(_) => &counters.send_refused,
        };
        add(counter, count);
    }
}

/// The host's address that a train leaves from, if its path says so.
fn source(train: &Train) -> Option<IpAddr> {
    train.path.local.and_then(|local| local.address)
}

/// Who chooses the address that a datagram leaves from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    OfPath,
    OfHost,
}

/// Makes one call with at most [`CALL_MAX`] trains; returns how many the kernel took, at least one.
fn send_run(
    socket: &Queue,
    memory: &[u8],
    run: &[Train],
    (chooser, waits): (Source, bool),
) -> Result<usize, SendError> {
    let mut addresses = [RawAddress::unspecified(); CALL_MAX];
    let mut controls = [ControlMessages::none(); CALL_MAX];
    let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; CALL_MAX];
    // SAFETY: integers and pointers, for which all zero is a value.
    let mut messages: [libc::mmsghdr; CALL_MAX] = unsafe { std::mem::zeroed() };
    for (index, train) in run.iter().enumerate() {
        let bytes = &memory[train.bytes.clone()];
        let (address, address_len) = RawAddress::encode(&train.path.remote);
        addresses[index] = address;
        vectors[index] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let header = &mut messages[index].msg_hdr;
        header.msg_name = (&raw mut addresses[index]).cast();
        header.msg_namelen = address_len;
        header.msg_iov = &raw mut vectors[index];
        header.msg_iovlen = 1;
        if let Some(address) = source(train).filter(|_| chooser == Source::OfPath) {
            controls[index].say_source(address, &train.path.remote);
        }
        if train.ecn != Ecn::NotCapable {
            controls[index].say_ecn(train.ecn, &train.path.remote);
        }
        if let Some(hops) = train.hop_limit {
            controls[index].say_hop_limit(hops, &train.path.remote);
        }
        if train.count() > 1 {
            controls[index].say_datagram_len(train.datagram_len as u16);
        }
        controls[index].attach(header);
    }
    let mut waited = !waits;
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
fn wait_for_room(socket: &Queue) {
    let mut fds = [libc::pollfd { fd: socket.fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 }];
    // SAFETY: one writable pollfd; the descriptor is borrowed for this call.
    unsafe { libc::poll(fds.as_mut_ptr(), 1, QUEUE_WAIT_MILLIS) };
}
