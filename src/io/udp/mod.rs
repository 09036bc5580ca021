//! The underlay: UDP sockets on every listen address, IPv4 and IPv6 apart.
//!
//! Owns binding, socket options and counters. Refuses to know what a datagram says and who is behind an endpoint. Which socket and which
//! of the host's addresses a datagram came to is part of its path, and what answers it leaves from there.
//! A socket has queues, which are sockets to the kernel: one thread receives from each ([`UdpReceiver`]), and what one thread of the peer
//! sealed comes to one queue, in its order. Every thread may send ([`UdpSender`]). What ICMP or a full queue does to one
//! datagram is counted and never ends a loop: an error from the network is an opinion of the network.

#![allow(unsafe_code)]

mod control_message;
mod counters;
mod receive;
mod send;
mod sockaddr;
mod spares;
mod steer;
mod trains;

pub use counters::UdpCounts;
pub use receive::{ReceiveEnd, UdpReceiver};
pub use send::{SendError, UdpSender};
pub use spares::SpareReceiver;

use arc_swap::ArcSwap;
use counters::{Counters, add};
use socket2::{Domain, Protocol, Socket, Type};
use spares::Spares;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use trains::TrainHealth;

/// The port that a node listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 4647;
/// Listen addresses of one daemon at most: every one has a socket and a thread.
pub const LISTEN_MAX: usize = 8;
/// Bytes that a socket's queues hold: TCP inside the tunnel overruns smaller ones (4–8 MiB measured good).
const QUEUE_BYTES: libc::c_int = 4 << 20;
/// How often a free port is tried that the other family turns out to have in use.
const PORT_ATTEMPTS: usize = 16;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `0.0.0.0` and `[::]` at this port, or at a free one when another program has it. A family that the host lacks is left out.
    Preferred(u16),
    /// Exactly these addresses; one that cannot be had is an error. Port 0 is any free port.
    Exactly(Vec<SocketAddr>),
}

impl Default for Listen {
    fn default() -> Self {
        Self::Preferred(DEFAULT_PORT)
    }
}

/// Why the sockets could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error("UDP {address} is in use: stop what has it, or choose another port with --listen")]
    InUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// No interface of this host has the address.
    #[error("no interface has the address {}: listen on one of this host, or on 0.0.0.0 and [::]", address.ip())]
    NotLocal {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The port is below 1024 and the process may not have it.
    #[error("no permission to listen on UDP {address}: choose a port above 1023, or run as root")]
    NoPermission {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Neither family is there.
    #[error("this host has neither IPv4 nor IPv6: {source}")]
    NoFamily {
        /// What the last attempt said.
        source: io::Error,
    },
    /// Nothing to listen on, or more than [`LISTEN_MAX`] addresses.
    #[error("{count} listen addresses: 1 to {LISTEN_MAX} are possible")]
    Count {
        /// How many were asked for.
        count: usize,
    },
    /// Anything else the kernel said.
    #[error("cannot listen on UDP {address}: {source}")]
    Failed {
        /// The address asked for.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// The bound sockets, before threads take them.
pub struct UdpSockets {
    /// One per queue of each socket, each for one thread.
    pub receivers: Vec<UdpReceiver>,
    /// For what comes to sockets that are opened later.
    pub spares: SpareReceiver,
    /// Sends from all of them.
    pub sender: UdpSender,
}

/// One bound socket. Its position among the node's sockets never changes.
struct Bound {
    local: SocketAddr,
    queues: Vec<Queue>,
}

/// One of the kernel's sockets on the address of a [`Bound`].
struct Queue {
    fd: OwnedFd,
}

struct Shared {
    sockets: Vec<Bound>,
    spares: ArcSwap<Spares>,
    /// What everything sent is marked with; 0 is none.
    mark: AtomicI32,
    counters: Counters,
    trains: TrainHealth,
}

/// Binds the sockets of `listen`, each with so many queues, one at least.
///
/// # Errors
/// See [`BindError`]; nothing stays bound then.
pub fn bind(listen: &Listen, queues: usize) -> Result<UdpSockets, BindError> {
    let sockets = match listen {
        Listen::Exactly(addresses) if addresses.is_empty() || addresses.len() > LISTEN_MAX => {
            return Err(BindError::Count { count: addresses.len() });
        }
        Listen::Exactly(addresses) => {
            addresses.iter().map(|address| bind_one(*address)).collect::<Result<Vec<_>, _>>()?
        }
        Listen::Preferred(port) => bind_everywhere(*port)?,
    };
    let sockets = sockets.into_iter().map(|bound| add_queues(bound, queues)).collect::<Result<Vec<_>, _>>()?;
    let spares = Spares::none().map_err(|source| BindError::NoFamily { source })?;
    let shared = Arc::new(Shared {
        sockets,
        spares: ArcSwap::from_pointee(spares),
        mark: AtomicI32::new(0),
        counters: Counters::default(),
        trains: TrainHealth::default(),
    });
    let of_socket = |(index, bound): (u8, &Bound)| (0..bound.queues.len()).map(move |queue| (index, queue));
    let all = (0..).zip(&shared.sockets).flat_map(of_socket);
    let receivers = all.map(|(index, queue)| UdpReceiver::new(Arc::clone(&shared), index, queue)).collect();
    let spares = SpareReceiver::new(Arc::clone(&shared));
    Ok(UdpSockets { receivers, spares, sender: UdpSender::new(shared) })
}

/// Tries the preferred port, then free ones, until one is free in every family that the host has.
fn bind_everywhere(preferred: u16) -> Result<Vec<Bound>, BindError> {
    let mut port = preferred;
    for _ in 0..PORT_ATTEMPTS {
        match bind_both(port) {
            Err(BindError::InUse { .. }) => port = 0,
            outcome => return outcome,
        }
    }
    bind_both(port)
}

/// Binds one port on both families; port 0 becomes the one that IPv4 (or else IPv6) was given.
fn bind_both(mut port: u16) -> Result<Vec<Bound>, BindError> {
    let mut sockets: Vec<Bound> = Vec::with_capacity(2);
    let mut missing = None;
    for ip in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
        match bind_one(SocketAddr::new(ip, port)) {
            Ok(bound) => {
                port = bound.local.port();
                sockets.push(bound);
            }
            // Families switched off: at boot (EAFNOSUPPORT), by sysctl (EADDRNOTAVAIL).
            Err(BindError::NotLocal { .. }) => missing = Some(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)),
            Err(BindError::Failed { source, .. }) if source.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                missing = Some(source);
            }
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(source) if sockets.is_empty() => Err(BindError::NoFamily { source }),
        _ => Ok(sockets),
    }
}

fn bind_one(address: SocketAddr) -> Result<Bound, BindError> {
    try_bind(address).map_err(|source| match source.raw_os_error() {
        Some(libc::EADDRINUSE) => BindError::InUse { address },
        Some(libc::EADDRNOTAVAIL) => BindError::NotLocal { address },
        Some(libc::EACCES | libc::EPERM) => BindError::NoPermission { address },
        _ => BindError::Failed { address, source },
    })
}

/// Adds sockets on the address of the first one until there are `count`. The first was bound alone, so that a port in use was noticed:
/// nobody else's socket is among them.
fn add_queues(mut bound: Bound, count: usize) -> Result<Bound, BindError> {
    let address = bound.local;
    let failed = |source| BindError::Failed { address, source };
    if count > 1 {
        set_option(&bound.queues[0].fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).map_err(failed)?;
    }
    while bound.queues.len() < count {
        let socket = open_socket(address).map_err(failed)?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).map_err(failed)?;
        socket.bind(&address.into()).map_err(failed)?;
        bound.queues.push(Queue::new(socket.into()));
    }
    if count > 1
        && let Err(error) = steer::by_lane(&bound.queues[0].fd, count)
    {
        tracing::debug!(%error, %address, "datagrams come to queues by their addresses");
    }
    Ok(bound)
}

fn try_bind(address: SocketAddr) -> io::Result<Bound> {
    let socket = open_socket(address)?;
    socket.bind(&address.into())?;
    let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    Ok(Bound { local, queues: vec![Queue::new(socket.into())] })
}

/// Opens a socket for an address with all options but those of binding.
fn open_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // PROBE: don't-fragment on every datagram, and no ICMP message from the path may tell us its size (RFC 8899 §4.5).
    let (level, name, probe) = match address {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
    };
    set_option(&socket, level, name, probe)?;
    // With each datagram its mark comes along.
    let (level, name) = match address {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVTOS),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
    };
    set_option(&socket, level, name, 1)?;
    if address.ip().is_unspecified() {
        let (level, name) = match address {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        };
        set_option(&socket, level, name, 1)?;
    }
    // Datagrams of one length that come together are received together; older than Linux 5.0: one by one.
    let _ = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    enlarge_queue(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
    enlarge_queue(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?;
    Ok(socket)
}

/// Asks beyond the system's limit, which takes CAP_NET_ADMIN, else for as much as the limit gives.
fn enlarge_queue(socket: &Socket, forced: libc::c_int, limited: libc::c_int) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, forced, QUEUE_BYTES)
        .or_else(|_| set_option(socket, libc::SOL_SOCKET, limited, QUEUE_BYTES))
}

fn set_option(fd: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the pointer and length describe `value`, which the kernel reads during the call; the descriptor is borrowed.
    let outcome = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Queue {
    fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

/// How many datagrams the kernel dropped because the socket's queue was full; it counts in 32 bits (sock_diag(7), `SK_MEMINFO_DROPS`).
fn overflow(queue: &Queue) -> u64 {
    let mut meminfo = [0u32; 9];
    let mut length = size_of_val(&meminfo) as libc::socklen_t;
    // SAFETY: both pointers are writable, and the length is that of the array.
    let outcome = unsafe {
        libc::getsockopt(
            queue.fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            meminfo.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    // Older than Linux 4.12: unknown, so none.
    if outcome < 0 { 0 } else { meminfo[8].into() }
}

#[cfg(test)]
mod tests;
