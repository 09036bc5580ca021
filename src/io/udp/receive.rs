//! Receiving: one thread per socket, a batch per system call.

use super::control_message::ControlMessages;
use super::counters::add;
use super::sockaddr::RawAddress;
use super::{Bound, Queue, Shared};
use crate::io::StopSignal;
use crate::io::batch::{DatagramBatch, DatagramShape, Received};
use crate::node::forward::Arrival;
use crate::path::{LocalEnd, Path};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How long a receiver rests after an error that repeats, so that no error makes it spin.
const ERROR_PAUSE: Duration = Duration::from_millis(1);

/// Why a receiver gets nothing more.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveEnd {
    /// The stop signal was triggered.
    #[error("stopped")]
    Stopped,
    /// The system does not let it wait.
    #[error("it cannot wait for more: {0}")]
    Failed(#[from] io::Error),
}

/// The receiving side of one queue of a socket, for one thread.
pub struct UdpReceiver {
    shared: Arc<Shared>,
    /// The socket's position among the node's sockets.
    index: u8,
    queue: usize,
    headers: Headers,
}

/// What `recvmmsg` writes to, apart from the payloads. The pointers in it are set anew before each call.
#[derive(Default)]
pub(super) struct Headers {
    addresses: Vec<RawAddress>,
    controls: Vec<ControlMessages>,
    vectors: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers are dead between two calls of `receive_from`, which needs `&mut`; nothing else is bound to a thread.
unsafe impl Send for Headers {}

impl UdpReceiver {
    pub(super) fn new(shared: Arc<Shared>, index: u8, queue: usize) -> Self {
        Self { shared, index, queue, headers: Headers::default() }
    }

    /// Returns the socket's position among the node's sockets, as a [`LocalEnd`] counts them.
    pub fn socket_index(&self) -> u8 {
        self.index
    }

    /// Returns which of the socket's queues this is, from 0.
    pub fn queue(&self) -> usize {
        self.queue
    }

    /// Returns the address that the socket is bound to.
    pub fn local_address(&self) -> SocketAddr {
        self.socket().local
    }

    fn socket(&self) -> &Bound {
        &self.shared.sockets[usize::from(self.index)]
    }

    fn fd(&self) -> &OwnedFd {
        &self.socket().queues[self.queue].fd
    }

    fn receive(&mut self, batch: &mut DatagramBatch) -> io::Result<()> {
        let queue = &self.shared.sockets[usize::from(self.index)].queues[self.queue];
        receive_from(&self.shared, (queue, self.index), &mut self.headers, batch)
    }

    /// Waits for datagrams and fills `batch` with all that are there, up to its size: at least one.
    ///
    /// # Errors
    /// [`ReceiveEnd`]: stopped. What the network reports is counted and never an error here.
    pub fn receive_batch(&mut self, stop: &StopSignal, batch: &mut DatagramBatch) -> Result<(), ReceiveEnd> {
        batch.clear();
        // What is there already is taken without asking whether it is.
        while !stop.is_triggered() {
            match self.receive(batch) {
                Ok(()) if !batch.is_empty() => return Ok(()),
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                    batch.note_silence();
                    stop.wait(self.fd().as_fd(), None);
                }
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => {
                    // ICMP's word on an earlier datagram of ours (ECONNREFUSED, EHOSTUNREACH …), or no memory: both pass.
                    tracing::trace!(%error, local = %self.local_address(), "receive error ignored");
                    add(&self.shared.counters.receive_errors, 1);
                    stop.sleep(ERROR_PAUSE);
                }
            }
        }
        Err(ReceiveEnd::Stopped)
    }
}

/// Makes one `recvmmsg` call on a queue of the socket at a position, and files what it brought.
pub(super) fn receive_from(
    shared: &Shared,
    (queue, position): (&Queue, u8),
    headers: &mut Headers,
    batch: &mut DatagramBatch,
) -> io::Result<()> {
    let shape = batch.shape();
    let fd = queue.fd.as_raw_fd();
    let messages = headers.point_at(batch.memory_mut(), shape);
    // SAFETY: each header points at an address, a control message and a vector of `headers` and at a slot of `batch`, all of which
    // live and stay in place until the call returns, with their true lengths.
    let count = unsafe {
        libc::recvmmsg(
            fd,
            messages.as_mut_ptr(),
            messages.len() as libc::c_uint,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    };
    // Negative on error only.
    let Ok(count) = usize::try_from(count) else { return Err(io::Error::last_os_error()) };
    let counters = &shared.counters;
    let mut datagrams = 0;
    for slot in 0..count {
        let message = &headers.messages[slot];
        if message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            add(&counters.received_truncated, 1);
            continue;
        }
        match headers.addresses[slot].decode() {
            Some(remote) => {
                let told = ControlMessages::told(&message.msg_hdr);
                let local = Some(LocalEnd { socket: position, address: told.destination });
                let len = message.msg_len as usize;
                let datagram_len = told.datagram_len.unwrap_or(len);
                datagrams += len.div_ceil(datagram_len.max(1)).max(1);
                let arrival = Arrival { path: Path { local, ..remote.into() }, ecn: told.ecn };
                batch.push(Received { slot, len, datagram_len, arrival });
            }
            None => add(&counters.received_malformed, 1),
        }
    }
    add(&counters.received, datagrams);
    Ok(())
}

impl Headers {
    /// Points one header at each slot of `memory`.
    fn point_at(&mut self, memory: &mut [u8], shape: DatagramShape) -> &mut [libc::mmsghdr] {
        self.addresses.resize(shape.count, RawAddress::unspecified());
        self.controls.resize(shape.count, ControlMessages::none());
        self.vectors.clear();
        self.messages.clear();
        self.vectors.extend(
            memory
                .chunks_exact_mut(shape.capacity)
                .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() }),
        );
        for ((address, control), vector) in self.addresses.iter_mut().zip(&mut self.controls).zip(&mut self.vectors) {
            // SAFETY: integers and pointers, for which all zero is a value.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_name = (&raw mut *address).cast();
            message.msg_hdr.msg_namelen = RawAddress::LEN;
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
            control.lend(&mut message.msg_hdr);
            self.messages.push(message);
        }
        &mut self.messages
    }
}
