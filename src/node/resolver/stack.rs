//! UDP, TCP and ping at the resolver's addresses, by smoltcp: packets of the own device in, packets for it out.
//!
//! Owns the sockets and their bounds. Whoever on this host opens many connections or leaves them idle loses the oldest; a query that is too
//! long ends its connection. Nothing is kept per sender of a datagram.

use super::answer::{Answer, MAX_QUERY_LEN, MAX_UDP_LEN, Transport, Unanswerable};
use crate::node::packet_queue::{PacketQueue, from_smoltcp, to_smoltcp};
use crate::router::icmp::AnswerSources;
use crate::time::Instant;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::time::Duration;

/// The port of DNS.
const PORT: u16 = 53;
/// TCP connections at a time, one of which waits for the next.
pub(super) const MAX_CONNECTIONS: usize = 16;
/// How long a connection may move nothing.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The length in front of a message over TCP (RFC 1035 §4.2.2).
const LEN_LEN: usize = 2;
/// What a connection receives ahead: two queries.
const RECEIVE_BUFFER: usize = 2 * (LEN_LEN + MAX_QUERY_LEN);
/// What it sends ahead: the rest of a long answer waits in one buffer beside it.
const SEND_BUFFER: usize = 8192;
/// Datagrams in the socket: each is answered before the next one comes.
const DATAGRAMS: usize = 4;
/// How soon to look again when smoltcp asks for it at once and then does nothing: all that could be sent was.
const MIN_WAIT: Duration = Duration::from_millis(1);
/// The MTU that smoltcp goes by: of the device's, the smallest that P2Plus allows.
const MTU: usize = 1280;

/// Answers a query; what the zone says is no matter of this file.
pub(super) type Answering<'a> = dyn FnMut(&[u8], Transport) -> Result<Answer, Unanswerable> + 'a;

/// See the module.
pub(super) struct Stack {
    interface: Interface,
    device: PacketQueue,
    sockets: SocketSet<'static>,
    datagrams: SocketHandle,
    connections: Vec<Connection>,
    evicted: u64,
}

/// One TCP connection, or the place for one.
struct Connection {
    handle: SocketHandle,
    /// What came of a query, its length in front.
    inbound: Vec<u8>,
    /// What did not fit into the socket of an answer.
    outbound: Vec<u8>,
    written: usize,
    /// When something last moved; nothing while the place is free.
    moved_at: Option<Instant>,
}

impl Stack {
    /// Listens at the addresses. `seed` makes sequence numbers unpredictable.
    pub(super) fn new(addresses: AnswerSources, seed: u64) -> Self {
        let mut device = PacketQueue::new(MTU);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, smoltcp::time::Instant::ZERO);
        let hosts = addresses.v4.map(|it| IpCidr::new(it.into(), 32)).into_iter();
        let hosts = hosts.chain(addresses.v6.map(|it| IpCidr::new(it.into(), 128)));
        interface.update_ip_addrs(|list| hosts.for_each(|host| list.push(host).expect("an interface has two places")));
        let mut sockets = SocketSet::new(Vec::new());
        let buffer = |len: usize| udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; DATAGRAMS], vec![0; len]);
        let mut socket = udp::Socket::new(buffer(2 * MTU), buffer(DATAGRAMS * usize::from(MAX_UDP_LEN)));
        socket.bind(PORT).expect("the port is not 0 and the socket is new");
        let datagrams = sockets.add(socket);
        let connections = (0..MAX_CONNECTIONS).map(|_| Connection::listening(&mut sockets)).collect();
        Self { interface, device, sockets, datagrams, connections, evicted: 0 }
    }

    /// How many connections made room for others, or were idle or wrong.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Takes a packet of the device, and answers it.
    pub(super) fn handle_packet(&mut self, now: Instant, packet: &[u8], answering: &mut Answering<'_>) {
        self.device.put(packet);
        self.interface.poll_ingress_single(to_smoltcp(now), &mut self.device, &mut self.sockets);
        self.settle(now, answering);
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant, answering: &mut Answering<'_>) {
        self.settle(now, answering);
    }

    /// The next packet for the device.
    pub(super) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.device.pop()
    }

    /// When [`Self::handle_timeout`] is due.
    pub(super) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let idle = self.connections.iter().filter_map(|it| Some(it.moved_at? + IDLE_TIMEOUT));
        let smoltcp = self.interface.poll_at(to_smoltcp(now), &self.sockets).map(from_smoltcp);
        idle.chain(smoltcp).min().map(|at| at.max(now + MIN_WAIT))
    }

    /// Moves everything on until nothing moves.
    fn settle(&mut self, now: Instant, answering: &mut Answering<'_>) {
        self.answer_datagrams(answering);
        for connection in &mut self.connections {
            if !connection.serve(now, &mut self.sockets, answering) {
                connection.end(&mut self.sockets);
                self.evicted += 1;
            }
        }
        self.send(now);
        self.make_room();
        self.send(now);
        for connection in &mut self.connections {
            connection.listen_again(&mut self.sockets);
        }
    }

    /// Lets smoltcp make the packets that are due.
    fn send(&mut self, now: Instant) {
        while self.interface.poll_egress(to_smoltcp(now), &mut self.device, &mut self.sockets) != PollResult::None {}
    }

    fn answer_datagrams(&mut self, answering: &mut Answering<'_>) {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.datagrams);
        while let Ok((query, from)) = socket.recv() {
            // What gets no answer was counted where that was decided.
            let Ok(answer) = answering(query, Transport::Udp) else { continue };
            // The socket is empty before each datagram, and the answer no longer than a place in it.
            let _ = socket.send_slice(&answer.bytes, from);
        }
    }

    /// Ends the connection that moved nothing for the longest time, when none is left for the next one.
    fn make_room(&mut self) {
        let is_full = self.connections.iter().all(|connection| connection.moved_at.is_some());
        if is_full && let Some(oldest) = self.connections.iter_mut().min_by_key(|connection| connection.moved_at) {
            oldest.end(&mut self.sockets);
            self.evicted += 1;
        }
    }
}

impl Connection {
    fn listening(sockets: &mut SocketSet<'static>) -> Self {
        let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
        let mut socket = tcp::Socket::new(buffer(RECEIVE_BUFFER), buffer(SEND_BUFFER));
        socket.listen(PORT).expect("the port is not 0 and the socket is new");
        // An answer is written at once: to wait for more of it would only delay its end.
        socket.set_nagle_enabled(false);
        // Who sends a length and then its message waits for the acknowledgement in between.
        socket.set_ack_delay(None);
        let handle = sockets.add(socket);
        Self { handle, inbound: Vec::new(), outbound: Vec::new(), written: 0, moved_at: None }
    }

    /// Answers what came, one query after the other. False for a connection that has to end.
    fn serve(&mut self, now: Instant, sockets: &mut SocketSet<'_>, answering: &mut Answering<'_>) -> bool {
        let socket = sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        if matches!(socket.state(), tcp::State::Listen | tcp::State::Closed) {
            self.moved_at = None;
            return true;
        }
        let moved_at = *self.moved_at.get_or_insert(now);
        if now.saturating_since(moved_at) >= IDLE_TIMEOUT {
            return false;
        }
        loop {
            if !self.write(now, socket) {
                break;
            }
            match self.read(now, socket) {
                Ok(false) => break,
                Ok(true) => {
                    let answer = answering(&self.inbound[LEN_LEN..], Transport::Tcp);
                    self.inbound.clear();
                    let Ok(answer) = answer else { return false };
                    let Ok(len) = u16::try_from(answer.bytes.len()) else { return false };
                    self.outbound = [len.to_be_bytes().as_slice(), &answer.bytes].concat();
                    self.written = 0;
                }
                Err(_) => return false,
            }
        }
        if !socket.may_recv() && self.outbound.is_empty() && socket.state() == tcp::State::CloseWait {
            socket.close();
        }
        true
    }

    /// Writes what fits of an answer; true when nothing of it is left.
    fn write(&mut self, now: Instant, socket: &mut tcp::Socket<'_>) -> bool {
        let rest = &self.outbound[self.written..];
        if !rest.is_empty()
            && let Ok(len @ 1..) = socket.send_slice(rest)
        {
            self.written += len;
            self.moved_at = Some(now);
        }
        if self.written == self.outbound.len() {
            self.outbound = Vec::new();
            self.written = 0;
        }
        self.outbound.is_empty()
    }

    /// Reads what came of a query; true when all of it is there.
    fn read(&mut self, now: Instant, socket: &mut tcp::Socket<'_>) -> Result<bool, Unanswerable> {
        loop {
            let wanted = match self.inbound.first_chunk::<LEN_LEN>() {
                None => LEN_LEN,
                Some(len) => LEN_LEN + usize::from(u16::from_be_bytes(*len)),
            };
            if wanted > LEN_LEN + MAX_QUERY_LEN {
                return Err(Unanswerable::Long);
            }
            if wanted > LEN_LEN && self.inbound.len() == wanted {
                return Ok(true);
            }
            if wanted == LEN_LEN && self.inbound.len() == LEN_LEN {
                return Err(Unanswerable::Short);
            }
            let missing = wanted - self.inbound.len();
            let inbound = &mut self.inbound;
            let taken = socket.recv(|bytes| {
                let taken = missing.min(bytes.len());
                inbound.extend_from_slice(&bytes[..taken]);
                (taken, taken)
            });
            if !matches!(taken, Ok(1..)) {
                return Ok(false);
            }
            self.moved_at = Some(now);
        }
    }

    /// Ends it at once: the peer gets a reset.
    fn end(&mut self, sockets: &mut SocketSet<'_>) {
        sockets.get_mut::<tcp::Socket<'_>>(self.handle).abort();
        self.inbound = Vec::new();
        self.outbound = Vec::new();
        self.written = 0;
        self.moved_at = None;
    }

    /// Waits for the next connection once the one before has ended.
    fn listen_again(&mut self, sockets: &mut SocketSet<'_>) {
        let socket = sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        if !socket.is_open() {
            self.end(sockets);
            let socket = sockets.get_mut::<tcp::Socket<'_>>(self.handle);
            socket.listen(PORT).expect("the port is not 0 and the socket is closed");
        }
    }
}
