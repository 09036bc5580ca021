//! The socket of one interface and one version of IP in the multicast DNS group.

use crate::io::policy_routing::Family;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// Datagrams of all interfaces that wait to be read. When it is full the newest is dropped: what it said is said again when it is asked for.
pub(super) const MAX_WAITING: usize = 64;

const PORT: u16 = 5353;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

/// What is sent goes no further than the link, and shows it (RFC 6762 §11).
const HOP_LIMIT: u32 = 255;

/// The longest datagram that is looked at, and one byte by which a longer one is known.
const BUFFER_LEN: usize = crate::node::lan::message::MAX_MESSAGE_LEN + 1;

/// Datagrams that are read of one interface in [`WINDOW`]: far more than a LAN has, and a flood beyond it ends in the kernel.
const READS: usize = 256;

/// The time in which so many are read, and how long nothing is read after an error.
const WINDOW: Duration = Duration::from_secs(1);

/// A datagram of the group.
pub(super) struct Heard {
    /// Where it came in.
    pub(super) link: (u32, Family),
    /// All of it.
    pub(super) datagram: Vec<u8>,
}

/// An open socket; closed when dropped.
pub(super) struct LanSocket {
    socket: Arc<UdpSocket>,
    group: SocketAddr,
    reader: JoinHandle<()>,
}

impl LanSocket {
    /// Joins the group on an interface, where this host has the address. What comes is put into `ear`.
    pub(super) fn open(index: u32, address: IpAddr, mark: u32, ear: mpsc::Sender<Heard>) -> io::Result<Self> {
        let group: SocketAddr = match address {
            IpAddr::V4(_) => SocketAddrV4::new(GROUP_V4, PORT).into(),
            IpAddr::V6(_) => SocketAddrV6::new(GROUP_V6, PORT, 0, index).into(),
        };
        let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if mark != 0 {
            socket.set_mark(mark)?;
        }
        // Everybody who does multicast DNS has the port, by one of these or the other.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        match address {
            IpAddr::V4(address) => {
                // Else the socket would hear what others on this host joined the group for, on whichever interface.
                socket.set_multicast_all_v4(false)?;
                socket.bind(&group.into())?;
                socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index))?;
                socket.set_multicast_if_v4(&address)?;
                socket.set_multicast_ttl_v4(HOP_LIMIT)?;
            }
            IpAddr::V6(_) => {
                socket.set_only_v6(true)?;
                // The scope binds it to the interface.
                socket.bind(&group.into())?;
                socket.join_multicast_v6(&GROUP_V6, index)?;
                socket.set_multicast_if_v6(index)?;
                socket.set_multicast_hops_v6(HOP_LIMIT)?;
            }
        }
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        let link = (index, Family::of(address));
        let reader = tokio::spawn(read(Arc::clone(&socket), link, ear));
        Ok(Self { socket, group, reader })
    }

    /// Sends to the group. What does not go out now is not sent: all of it is said again.
    pub(super) fn send(&self, datagram: &[u8]) {
        if let Err(error) = self.socket.try_send_to(datagram, self.group) {
            tracing::debug!(%error, group = %self.group, "not sent");
        }
    }
}

impl Drop for LanSocket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(socket: Arc<UdpSocket>, link: (u32, Family), ear: mpsc::Sender<Heard>) {
    let mut buffer = [0; BUFFER_LEN];
    let (mut window_end, mut count) = (Instant::now() + WINDOW, 0);
    loop {
        count += 1;
        if count > READS {
            sleep_until(window_end).await;
        }
        if Instant::now() >= window_end {
            (window_end, count) = (Instant::now() + WINDOW, 1);
        }
        match socket.recv_from(&mut buffer).await {
            // Full: dropped, see MAX_WAITING.
            Ok((len, _)) => drop(ear.try_send(Heard { link, datagram: buffer[..len].to_vec() })),
            Err(error) => {
                tracing::debug!(%error, interface = link.0, "multicast DNS");
                sleep(WINDOW).await;
            }
        }
    }
}
