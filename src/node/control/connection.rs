//! One TCP connection of the control link: messages framed by their length, and when the connection ends.
//!
//! ```text
//!   frame: length u32, little-endian, 1 ..= the service's limit | message
//! ```

use super::account::cost;
use super::resend::Resend;
use super::service::{Class, LinkId, Service};
use crate::node::packet_queue::{PacketQueue, from_smoltcp, to_smoltcp};
use crate::router::budget::TokenBucket;
use crate::time::Instant;
use smoltcp::iface::{Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use std::collections::VecDeque;
use std::time::Duration;

/// How long a connection may take to be established: four transmissions of a SYN (0, 1, 3, 7 s).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(12);

/// How long a connection may have something to move and move nothing: beyond the longest gap of retransmissions (RFC 6298 §2.5).
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection with nothing to do stays open on the side that opened it.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The other side waits longer, so that only one of them closes.
const IDLE_GRACE: Duration = Duration::from_secs(15);

/// How long an orderly end may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a paced connection goes on: at 256 kB/s, a few packets each time.
const PACE_INTERVAL: Duration = Duration::from_millis(10);

const FRAME_HEADER_LEN: usize = 4;

/// Names a connection: `port` is the opener's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ConnectionKey {
    pub(super) peer: LinkId,
    pub(super) service: Service,
    pub(super) opener: Opener,
    pub(super) port: u16,
}

/// Who opened a connection. Messages go both ways in either case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Opener {
    Local,
    Remote,
}

/// Why a connection ended before its time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum BrokenReason {
    /// The peer did not answer.
    #[error("the peer did not answer")]
    Unanswered,
    /// The peer reset the connection: it restarted, or refuses the service.
    #[error("the peer reset the connection")]
    Reset,
    /// Nothing moved any more: the peer is gone, or does not read.
    #[error("the connection stalled")]
    Stalled,
    /// The peer closed the connection within a message.
    #[error("the peer closed the connection within a message")]
    CutShort,
    /// The peer announced a message of a length that its service does not have.
    #[error("the peer announced a message of a forbidden length")]
    MessageLength,
    /// Another connection took its place: a newer one of the peer for the same service, or one of a peer that has fewer.
    #[error("another connection took its place")]
    Replaced,
    /// The peer may no longer use the service.
    #[error("the peer may not use the service")]
    NotAllowed,
}

/// What to do with a connection after its bytes were moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Keep,
    Remove,
    Break(BrokenReason),
}

/// A TCP socket, alone in its set: what concerns it does not touch any other.
#[derive(Debug)]
struct LoneSocket {
    set: SocketSet<'static>,
    handle: SocketHandle,
}

impl LoneSocket {
    fn new(socket: Socket<'static>) -> Self {
        let mut set = SocketSet::new(Vec::new());
        let handle = set.add(socket);
        Self { set, handle }
    }

    fn get(&self) -> &Socket<'static> {
        self.set.get(self.handle)
    }

    fn get_mut(&mut self) -> &mut Socket<'static> {
        self.set.get_mut(self.handle)
    }
}

/// A connection: its socket, queues and clocks.
#[derive(Debug)]
pub(super) struct Connection {
    socket: LoneSocket,
    /// The class whose socket it took.
    pub(super) class: Class,
    /// Grows with every connection: the newest of several has the greatest.
    pub(super) serial: u64,
    pub(super) resend: Resend,
    outbound: VecDeque<Vec<u8>>,
    /// Bytes of the first outbound frame that the socket has.
    written: usize,
    inbound: Inbound,
    phase: Phase,
    /// When something last moved, or the phase began.
    moved_at: Instant,
    /// What the socket had to send when last looked at.
    unacknowledged: usize,
    /// When a paced connection goes on.
    paced_until: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Opening,
    Open,
    /// Our half is closed.
    Closing,
    /// Aborted: only the reset has to go out.
    Dead,
}

/// The frame that is coming in.
#[derive(Debug, Default)]
struct Inbound {
    header: [u8; FRAME_HEADER_LEN],
    header_len: usize,
    /// Its length, once memory for it was booked.
    expected: Option<usize>,
    body: Vec<u8>,
    /// There was no memory for it.
    blocked: bool,
}

impl Connection {
    pub(super) fn new(now: Instant, socket: Socket<'static>, class: Class, serial: u64) -> Self {
        Self {
            socket: LoneSocket::new(socket),
            class,
            serial,
            resend: Resend::default(),
            outbound: VecDeque::new(),
            written: 0,
            inbound: Inbound::default(),
            phase: Phase::Opening,
            moved_at: now,
            unacknowledged: 0,
            paced_until: None,
        }
    }

    /// Says whether a new message may go this way.
    pub(super) fn is_usable(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Open)
            && matches!(self.socket.get().state(), State::SynSent | State::SynReceived | State::Established)
    }

    /// Takes the packet that lies in the device.
    pub(super) fn ingress(&mut self, now: Instant, interface: &mut Interface, device: &mut PacketQueue) {
        interface.poll_ingress_single(to_smoltcp(now), device, &mut self.socket.set);
    }

    /// Lays its next packet down in the device. Returns whether there was anything to do.
    pub(super) fn egress(&mut self, now: Instant, interface: &mut Interface, device: &mut PacketQueue) -> bool {
        interface.poll_egress(to_smoltcp(now), device, &mut self.socket.set) != PollResult::None
    }

    /// Queues a message whose cost is booked.
    pub(super) fn queue(&mut self, now: Instant, message: Vec<u8>) {
        if self.is_idle() {
            self.moved_at = now;
        }
        self.outbound.push_back(message);
    }

    /// Moves queued bytes into the socket, no faster than `pace`; returns the cost of the messages that it has wholly.
    pub(super) fn write(&mut self, now: Instant, mut pace: Option<&mut TokenBucket>) -> usize {
        let socket = self.socket.get_mut();
        let mut released = 0;
        self.paced_until = None;
        while let Some(message) = self.outbound.front() {
            let Ok(header) = u32::try_from(message.len()).map(u32::to_le_bytes) else { break };
            let rest = match self.written.checked_sub(FRAME_HEADER_LEN) {
                Some(body_written) => &message[body_written..],
                None => &header[self.written..],
            };
            let room = if socket.can_send() { socket.send_capacity() - socket.send_queue() } else { 0 };
            let mut len = rest.len().min(room);
            if len == 0 {
                break;
            }
            if let Some(pace) = &mut pace {
                len = usize::try_from(pace.take_up_to(now, len as u64)).unwrap_or(len);
                if len == 0 {
                    self.paced_until = Some(now + PACE_INTERVAL);
                    break;
                }
            }
            let Ok(len @ 1..) = socket.send_slice(&rest[..len]) else { break };
            self.written += len;
            self.moved_at = now;
            if self.written == FRAME_HEADER_LEN + message.len() {
                released += cost(message.len());
                self.written = 0;
                self.outbound.pop_front();
            }
        }
        released
    }

    /// Moves bytes out of the socket until it has none or `reserve` refuses the cost of a message; whole messages go to `deliver`.
    pub(super) fn read(
        &mut self,
        now: Instant,
        max_len: usize,
        mut reserve: impl FnMut(usize) -> bool,
        mut deliver: impl FnMut(Vec<u8>),
    ) -> Result<(), BrokenReason> {
        self.inbound.blocked = false;
        if self.phase == Phase::Dead {
            return Ok(());
        }
        let socket = self.socket.get_mut();
        loop {
            if self.inbound.header_len == FRAME_HEADER_LEN && self.inbound.expected.is_none() {
                let len = usize::try_from(u32::from_le_bytes(self.inbound.header)).unwrap_or(usize::MAX);
                if len == 0 || len > max_len {
                    return Err(BrokenReason::MessageLength);
                }
                if !reserve(cost(len)) {
                    // Our own scarcity is no stall of the peer.
                    self.inbound.blocked = true;
                    self.moved_at = now;
                    return Ok(());
                }
                self.inbound.expected = Some(len);
            }
            if !socket.can_recv() {
                return Ok(());
            }
            let Ok(taken) = socket.recv(|bytes| self.inbound.take(bytes)) else { return Ok(()) };
            if taken == 0 {
                return Ok(());
            }
            self.moved_at = now;
            if let Some(message) = self.inbound.complete() {
                deliver(message);
            }
        }
    }

    /// Looks at the socket's state and the clocks, begins an orderly end, and says what becomes of the connection.
    pub(super) fn step(&mut self, now: Instant, opener: Opener) -> Step {
        let socket = self.socket.get();
        if socket.send_queue() < self.unacknowledged {
            self.moved_at = now;
        }
        self.unacknowledged = socket.send_queue();
        if self.phase == Phase::Opening && matches!(socket.state(), State::Established | State::CloseWait) {
            self.phase = Phase::Open;
            self.moved_at = now;
        }
        let is_over = now >= self.expires_at(opener);
        let (is_read, state) = (socket.recv_queue() == 0, socket.state());
        match (self.phase, state) {
            (Phase::Dead, _) if is_over || self.has_left() => Step::Remove,
            (Phase::Dead, _) => Step::Keep,
            // Both ends said that they are done. Who said so first stays to acknowledge that of the other one (RFC 9293 §3.6.1).
            (Phase::Closing, State::Closed) if is_read || is_over => Step::Remove,
            (Phase::Closing, State::TimeWait) if is_over => Step::Remove,
            (Phase::Closing, State::TimeWait | State::Closed) => Step::Keep,
            (Phase::Closing, _) if is_over => {
                self.abort();
                Step::Keep
            }
            (Phase::Closing, _) => Step::Keep,
            // A refused SYN leaves a listening socket behind, which would accept anybody.
            (_, State::Closed | State::Listen) => Step::Break(BrokenReason::Reset),
            (Phase::Opening, _) if is_over => Step::Break(BrokenReason::Unanswered),
            (Phase::Open, State::CloseWait) if is_read && self.inbound.header_len > 0 => {
                Step::Break(BrokenReason::CutShort)
            }
            (Phase::Open, State::CloseWait) if is_read && self.outbound.is_empty() => self.close(now),
            (Phase::Open, _) if is_over && self.is_idle() => self.close(now),
            (Phase::Open, _) if is_over => Step::Break(BrokenReason::Stalled),
            (Phase::Opening | Phase::Open, _) => Step::Keep,
        }
    }

    /// Ends the connection at once; the peer gets a reset.
    pub(super) fn abort(&mut self) {
        self.socket.get_mut().abort();
        self.phase = Phase::Dead;
        self.outbound.clear();
        self.inbound = Inbound::default();
        self.resend = Resend::default();
    }

    /// Says whether the peer knows nothing of it, or was told that it is over: a reset that went out has no other end any more.
    pub(super) fn has_left(&self) -> bool {
        self.socket.get().remote_endpoint().is_none()
    }

    /// When the connection must be looked at again, whatever comes.
    pub(super) fn deadline(&self, now: Instant, interface: &mut Interface, opener: Opener) -> Instant {
        let smoltcp = interface.poll_at(to_smoltcp(now), &self.socket.set).map(from_smoltcp);
        let others = [self.paced_until, self.resend.deadline(), smoltcp];
        others.into_iter().flatten().fold(self.expires_at(opener), Instant::min)
    }

    fn expires_at(&self, opener: Opener) -> Instant {
        self.moved_at
            + match self.phase {
                Phase::Opening => CONNECT_TIMEOUT,
                Phase::Open if !self.is_idle() => STALL_TIMEOUT,
                Phase::Open if opener == Opener::Remote => IDLE_TIMEOUT + IDLE_GRACE,
                Phase::Open => IDLE_TIMEOUT,
                Phase::Closing | Phase::Dead => CLOSE_TIMEOUT,
            }
    }

    /// The number of messages that did not wholly reach the socket.
    pub(super) fn waiting(&self) -> usize {
        self.outbound.len()
    }

    /// The booked cost of what it holds: outbound, inbound.
    pub(super) fn costs(&self) -> (usize, usize) {
        let outbound = self.outbound.iter().map(|message| cost(message.len())).sum();
        (outbound, self.inbound.expected.map_or(0, cost))
    }

    /// Says whether it waits for memory to read on.
    pub(super) fn is_blocked(&self) -> bool {
        self.inbound.blocked
    }

    fn close(&mut self, now: Instant) -> Step {
        self.socket.get_mut().close();
        self.phase = Phase::Closing;
        self.moved_at = now;
        Step::Keep
    }

    /// Nothing is on its way in either direction.
    fn is_idle(&self) -> bool {
        self.outbound.is_empty() && self.unacknowledged == 0 && self.inbound.header_len == 0
    }
}

impl Inbound {
    /// Takes what the frame still needs from the front of `bytes`; returns the count, as smoltcp wants it.
    fn take(&mut self, bytes: &[u8]) -> (usize, usize) {
        let taken = match self.expected {
            None => {
                let len = bytes.len().min(FRAME_HEADER_LEN - self.header_len);
                self.header[self.header_len..self.header_len + len].copy_from_slice(&bytes[..len]);
                self.header_len += len;
                len
            }
            Some(expected) => {
                let len = bytes.len().min(expected - self.body.len());
                self.body.extend_from_slice(&bytes[..len]);
                len
            }
        };
        (taken, taken)
    }

    fn complete(&mut self) -> Option<Vec<u8>> {
        if self.expected != Some(self.body.len()) {
            return None;
        }
        Some(std::mem::take(self).body)
    }
}
