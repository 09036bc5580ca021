//! What an observer in the middle sees: every UDP datagram that enters a host, in its order over all links, before any rule drops it.

#![allow(unsafe_code)]

use crate::lab::Host;
use crate::socket::set_option;
use p2plus::wire::datagram::TYPE_RELAY;
use p2plus::wire::relay::ENVELOPE_LEN;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes kept of a packet: the IP and UDP headers and the clear header of any datagram.
const SNAP_LEN: usize = 96;
/// More than any link's MTU here.
const WHOLE: usize = 2048;
/// The kernel's queue: seconds of a flood.
const QUEUE_LEN: libc::c_int = 64 << 20;
/// How long an end may take to be noticed.
const LOOK: Duration = Duration::from_millis(20);

/// A datagram that went by.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// The first bytes of its payload.
    pub front: Vec<u8>,
    /// The bytes of the whole IP packet.
    pub wire_len: usize,
    /// Whether a router has to drop it where it does not fit, rather than cut it up.
    pub is_whole_or_nothing: bool,
}

impl Seen {
    /// The same datagram without a relay's envelope around it.
    pub fn unwrapped(mut self) -> Self {
        if self.kind() == TYPE_RELAY {
            self.front.drain(..ENVELOPE_LEN.min(self.front.len()));
        }
        self
    }

    /// The type of a P2Plus datagram.
    pub fn kind(&self) -> u8 {
        self.front.first().copied().unwrap_or_default()
    }

    /// A little-endian number in its clear header.
    pub fn u32_at(&self, offset: usize) -> u32 {
        let bytes = self.front.get(offset..offset + 4).unwrap_or_else(|| panic!("{self:?} is too short"));
        u32::from_le_bytes(bytes.try_into().unwrap())
    }
}

/// A capture that runs.
pub struct Capture {
    ended: Arc<AtomicBool>,
    reader: JoinHandle<Vec<Seen>>,
}

impl Capture {
    /// Begins; what enters `host` after this returns is seen.
    pub fn start(host: &Host) -> Self {
        Self::of(host, SNAP_LEN)
    }

    /// Begins, and keeps all of each datagram.
    pub fn start_whole(host: &Host) -> Self {
        Self::of(host, WHOLE)
    }

    fn of(host: &Host, snap_len: usize) -> Self {
        let socket = host.run(open);
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        Self { ended, reader: thread::spawn(move || read(socket, snap_len, &end)) }
    }

    /// Ends and returns what was seen. A capture that lost a packet proves nothing, so that is a failure.
    pub fn end(self) -> Vec<Seen> {
        self.ended.store(true, Ordering::Release);
        self.reader.join().unwrap()
    }
}

/// Opens a packet socket (packet(7)) on all interfaces, for what comes in.
fn open() -> Socket {
    let every_protocol = libc::c_int::from((libc::ETH_P_ALL as u16).to_be());
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(every_protocol))).unwrap();
    socket.set_read_timeout(Some(LOOK)).unwrap();
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, QUEUE_LEN);
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1);
    socket
}

/// Reads until the end was told, and then what is in the queue.
fn read(mut socket: Socket, snap_len: usize, ended: &AtomicBool) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut buffer = vec![0; snap_len];
    let mut is_ending = false;
    loop {
        match socket.read(&mut buffer) {
            Ok(len) => seen.extend(parse(&buffer[..len])),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && is_ending => break,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("{error}"),
        }
        if !is_ending && ended.load(Ordering::Acquire) {
            is_ending = true;
            socket.set_nonblocking(true).unwrap();
        }
    }
    assert_eq!(lost(&socket), 0, "the capture lost packets");
    seen
}

/// How many packets found no room in the queue.
fn lost(socket: &Socket) -> u32 {
    // SAFETY: plain numbers, of which all-zero is a value.
    let mut stats: libc::tpacket_stats = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&stats) as libc::socklen_t;
    let (fd, out) = (socket.as_raw_fd(), (&raw mut stats).cast());
    // SAFETY: both pointers are writable, and the length is that of the structure.
    let outcome = unsafe { libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, out, &raw mut len) };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
    stats.tp_drops
}

/// Reads the front of an IP packet without options or extension headers: the daemon sends no others.
fn parse(packet: &[u8]) -> Option<Seen> {
    let two = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    let (addresses, wire_len, is_whole_or_nothing, udp) = match packet.first()? >> 4 {
        4 if packet[0] == 0x45 && *packet.get(9)? == 17 => {
            let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            ((address(12)?, address(16)?), two(2)?.into(), two(6)? == 0x4000, 20)
        }
        6 if *packet.get(6)? == 17 => {
            let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            ((address(8)?.into(), address(24)?.into()), 40 + usize::from(two(4)?), true, 40)
        }
        _ => return None,
    };
    Some(Seen {
        at: Instant::now(),
        from: (addresses.0, two(udp)?).into(),
        to: (addresses.1, two(udp + 2)?).into(),
        front: packet.get(udp + 8..)?.to_vec(),
        wire_len,
        is_whole_or_nothing,
    })
}
