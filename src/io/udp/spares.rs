//! Sockets that come and go beside those that the node listens on, each at a port that the kernel chooses: a NAT that gives each conversation
//! a port of its own is met by opening many, and keeping the one that an answer came to.

use super::receive::{Headers, receive_from};
use super::{Bound, Queue, ReceiveEnd, Shared, UdpSender, add, open_socket, set_option};
use crate::io::StopSignal;
use crate::io::batch::DatagramBatch;
use crate::io::stop::{Wake, wait_any};
use crate::path::SPARE_SOCKETS;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The sockets that there are now. A new value takes the place of an old one, whose reader is woken.
pub(super) struct Spares {
    sockets: BTreeMap<u8, Arc<Bound>>,
    replaced: StopSignal,
}

impl Spares {
    /// None.
    pub(super) fn none() -> io::Result<Self> {
        Ok(Self { sockets: BTreeMap::new(), replaced: StopSignal::new()? })
    }

    /// The socket at a position.
    pub(super) fn get(&self, position: u8) -> Option<&Bound> {
        self.sockets.get(&position).map(AsRef::as_ref)
    }

    /// Iterates over their queues.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.sockets.values().flat_map(|bound| &bound.queues)
    }
}

impl UdpSender {
    /// Opens up to `count` sockets for datagrams to one family, as many as there is room for. Returns where each is among the node's sockets,
    /// and its port. One thread at a time may change them.
    ///
    /// # Errors
    /// The kernel's, when there is no descriptor left; none is open then beyond those before.
    pub fn open_spares(&self, is_ipv4: bool, count: usize) -> io::Result<Vec<(u8, u16)>> {
        let any = if is_ipv4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        let mut sockets = self.shared.spares.load().sockets.clone();
        let free: Vec<_> = SPARE_SOCKETS.filter(|position| !sockets.contains_key(position)).take(count).collect();
        let mut opened = Vec::with_capacity(free.len());
        for position in free {
            let bound = self.shared.bind_spare(SocketAddr::new(any, 0))?;
            opened.push((position, bound.local.port()));
            sockets.insert(position, Arc::new(bound));
        }
        self.replace_spares(sockets)?;
        Ok(opened)
    }

    /// Closes those of such sockets that are at these positions.
    ///
    /// # Errors
    /// The kernel's, when there is no descriptor left; all stay open then.
    pub fn close_spares(&self, positions: &BTreeSet<u8>) -> io::Result<()> {
        let mut sockets = self.shared.spares.load().sockets.clone();
        let before = sockets.len();
        sockets.retain(|position, _| !positions.contains(position));
        if sockets.len() < before { self.replace_spares(sockets) } else { Ok(()) }
    }

    fn replace_spares(&self, sockets: BTreeMap<u8, Arc<Bound>>) -> io::Result<()> {
        let spares = Spares { sockets, replaced: StopSignal::new()? };
        self.shared.spares.swap(Arc::new(spares)).replaced.trigger();
        Ok(())
    }
}

impl Shared {
    fn bind_spare(&self, address: SocketAddr) -> io::Result<Bound> {
        let socket = open_socket(address)?;
        socket.bind(&address.into())?;
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        if self.trains.is_forgone() {
            let _ = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 0);
        }
        let mark = self.mark.load(Ordering::Relaxed);
        if mark != 0 {
            set_option(&socket, libc::SOL_SOCKET, libc::SO_MARK, mark)?;
        }
        Ok(Bound { local, queues: vec![Queue::new(socket.into())] })
    }
}

/// The receiving side of all such sockets, for one thread.
pub struct SpareReceiver {
    shared: Arc<Shared>,
    headers: Headers,
    /// Those that have something, as far as was seen.
    ready: Vec<(u8, Arc<Bound>)>,
}

impl SpareReceiver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, headers: Headers::default(), ready: Vec::new() }
    }

    /// Waits for datagrams and fills `batch` with what one socket has, up to its size: at least one.
    ///
    /// # Errors
    /// [`ReceiveEnd`]: stopped. What the network reports is counted and never an error here.
    pub fn receive_batch(&mut self, stop: &StopSignal, batch: &mut DatagramBatch) -> Result<(), ReceiveEnd> {
        batch.clear();
        while !stop.is_triggered() {
            let Some((position, bound)) = self.ready.pop() else {
                self.wait(stop, batch);
                continue;
            };
            match receive_from(&self.shared, (&bound.queues[0], position), &mut self.headers, batch) {
                Ok(()) if !batch.is_empty() => {
                    self.ready.push((position, bound));
                    return Ok(());
                }
                Ok(()) => self.ready.push((position, bound)),
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                // ICMP's word on an earlier datagram of ours, or no memory: both pass.
                Err(_) => add(&self.shared.counters.receive_errors, 1),
            }
        }
        Err(ReceiveEnd::Stopped)
    }

    fn wait(&mut self, stop: &StopSignal, batch: &mut DatagramBatch) {
        batch.note_silence();
        let spares = self.shared.spares.load_full();
        let fds: Vec<_> = spares.queues().map(|queue| queue.fd.as_fd()).collect();
        let mut ready = Vec::new();
        if wait_any(stop, &spares.replaced, &fds, &mut ready) == Wake::Stopped {
            return;
        }
        let sockets = spares.sockets.iter().zip(ready).filter(|(_, is_ready)| *is_ready);
        self.ready.extend(sockets.map(|((position, bound), _)| (*position, Arc::clone(bound))));
    }
}
