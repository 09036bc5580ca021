//! The control link: reliable, ordered messages between nodes, inside their sessions.
//!
//! ```text
//!   send ─► queue ─► frame ─► TCP (smoltcp) ─► poll_transmit ─► a stream record of the peer's session
//!   poll_message ◄─ inbox ◄─ frame ◄─ TCP ◄─ source, destination, service, budgets ◄─ handle_packet
//! ```
//! Owns the connections: at most a few per peer and service, opened on demand, closed when idle. A message arrives whole and once, in the
//! order of its connection, or the connection breaks, which [`ControlLink::poll_event`] tells; who needs it then asks again. Refuses to
//! know what a message says and how packets travel. What a peer may use follows from its [`Standing`], checked at every packet and message.
//!
//! When full: a packet is refused and counted (TCP asks again), a message is refused to its sender, and what a peer sends stays in the
//! peer's own memory (the window closes).

mod account;
mod agenda;
mod connection;
mod refusal;
mod resend;
mod segment;
mod service;
mod table;
#[cfg(test)]
mod tests;

pub use account::{GUEST_INBOUND_BUFFER, GUEST_OUTBOUND_BUFFER, GUESTS_BUFFER, MEMBER_BUFFER, MEMBERS_BUFFER};
pub use connection::{BrokenReason, IDLE_TIMEOUT};
pub use refusal::{AttachError, LinkCounters, LinkError, LinkEvent, SendError};
pub use segment::asks_for_answer;
pub use service::{LinkId, MAX_MESSAGE_LEN, Service, Standing};

use super::packet_queue::{PacketQueue, to_smoltcp};
use crate::router::budget::TokenBucket;
use crate::time::Instant;
use crate::wire::datagram::MIN_WIRE_LEN;
use account::{Account, Accounts, Direction, Scarce, cost};
use agenda::Agenda;
use connection::{Connection, ConnectionKey, Opener};
use rand_core::CryptoRng;
use refusal::count;
use segment::{FIRST_PORT, Segment, destination};
use service::Class;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::time::Duration;

/// Outer IPv6 and UDP headers.
const OUTER_LEN: usize = 40 + 8;

/// A relay's envelope around the datagram.
const RELAY_LEN: usize = 8;

/// Transport header, record kind and AEAD tag.
const SEALED_LEN: usize = 16 + 1 + 16;

/// The longest IP packet of the control link, so that it is one datagram on every path, also behind a relay.
pub const CONTROL_MTU: usize = MIN_WIRE_LEN - OUTER_LEN - RELAY_LEN - SEALED_LEN;

/// Attached peers of any standing.
pub const MAX_PEERS: usize = 4096;

/// Attached guests (PROTOCOL: guests).
pub const MAX_GUESTS: usize = 64;

/// Sockets of all members: 128 KiB of buffers each.
pub const MEMBER_SOCKETS: usize = 384;

/// Sockets of one member: each of its services from either side, and some that are about to close.
pub const SOCKETS_PER_MEMBER: usize = 16;

/// Sockets of all guests: 32 KiB of buffers each.
pub const GUEST_SOCKETS: usize = SOCKETS_PER_GUEST * MAX_GUESTS;

/// Sockets of one guest: its two services, and as many that are about to close.
pub const SOCKETS_PER_GUEST: usize = 4;

/// Bytes per second from a guest and to a guest.
pub const GUEST_RATE: u64 = 256_000;

/// Bytes at once to a guest.
const GUEST_BURST: u64 = 32 << 10;

/// What a guest's packets may take of what its bytes may: headers and acknowledgements come on top.
const GUEST_PACKET_RATE: u64 = 2 * GUEST_RATE;

/// Packet bytes at once from a guest: two full windows.
const GUEST_PACKET_BURST: u64 = 64 << 10;

/// Connections per second that a peer may open.
const OPENING_RATE: u64 = 5;

/// Connections at once: every service after a restart, twice.
const OPENING_BURST: u64 = 10;

/// How soon to look again when smoltcp asks for it at once and then does nothing.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// A link's end: all control connections of one node. Driven by `handle_*` and `send`; after each, `poll_*` until they give nothing.
pub struct ControlLink {
    local: LinkId,
    address: Ipv6Addr,
    now: Instant,
    interface: Interface,
    device: PacketQueue,
    peers: BTreeMap<LinkId, Peer>,
    /// The peers by the addresses of their packets.
    addresses: BTreeMap<Ipv6Addr, LinkId>,
    connections: BTreeMap<ConnectionKey, Connection>,
    /// Which connections are to be looked at when.
    agenda: Agenda,
    /// Connections that wait for memory to read on.
    blocked: BTreeSet<ConnectionKey>,
    /// Segments that go out once more.
    resent: VecDeque<(LinkId, Vec<u8>)>,
    accounts: Accounts,
    inbox: VecDeque<(LinkId, Service, Vec<u8>)>,
    events: VecDeque<LinkEvent>,
    counters: LinkCounters,
    next_port: u16,
    next_serial: u64,
}

/// What is kept of an attached peer besides its connections.
#[derive(Debug)]
struct Peer {
    standing: Standing,
    address: Ipv6Addr,
    account: Account,
    /// Packet bytes that a guest may send.
    inbound_rate: TokenBucket,
    /// Message bytes that a guest may get.
    outbound_rate: TokenBucket,
    /// Connections that it may open.
    opening_rate: TokenBucket,
}

impl ControlLink {
    /// Makes the end of the node whose handshake key is `local`'s. `rng` seeds sequence numbers and ports.
    pub fn new(local: LinkId, rng: &mut impl CryptoRng) -> Self {
        let address = local.address();
        let mut device = PacketQueue::new(CONTROL_MTU);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = rng.next_u64();
        let mut interface = Interface::new(config, &mut device, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address.into(), 128)).expect("an interface has room for one address");
        });
        Self {
            local,
            address,
            now: Instant::ZERO,
            interface,
            device,
            peers: BTreeMap::new(),
            addresses: BTreeMap::new(),
            connections: BTreeMap::new(),
            agenda: Agenda::default(),
            blocked: BTreeSet::new(),
            resent: VecDeque::new(),
            accounts: Accounts::default(),
            inbox: VecDeque::new(),
            events: VecDeque::new(),
            counters: LinkCounters::default(),
            next_port: FIRST_PORT + (rng.next_u32() as u16 >> 2),
            next_serial: 0,
        }
    }

    /// The name of this end.
    pub fn local(&self) -> LinkId {
        self.local
    }

    /// What was refused so far.
    pub fn counters(&self) -> &LinkCounters {
        &self.counters
    }

    /// Iterates over the attached peers.
    pub fn peers(&self) -> impl Iterator<Item = (LinkId, Standing)> {
        self.peers.iter().map(|(peer, state)| (*peer, state.standing))
    }

    /// Says whether `peer` is attached with a standing that has `service`.
    pub fn allows(&self, peer: LinkId, service: Service) -> bool {
        self.peers.get(&peer).is_some_and(|state| state.standing.allows(service))
    }

    /// The number of connections in any state.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Lets `peer` use the services of its standing, or changes its standing: connections that it may no longer have are reset, and
    /// their messages are gone.
    ///
    /// # Errors
    /// [`AttachError`]; the peer is then not attached, also if it was before.
    pub fn attach(&mut self, peer: LinkId, standing: impl Into<Standing>) -> Result<(), AttachError> {
        let result = self.try_attach(peer, standing.into());
        if result.is_err() {
            self.close_peer(peer);
        }
        count(&mut self.counters.peers, result)
    }

    fn try_attach(&mut self, peer: LinkId, standing: Standing) -> Result<(), AttachError> {
        let address = peer.address();
        if address == self.address {
            return Err(AttachError::OwnAddress);
        }
        let class = standing.class();
        let before = self.peers.get(&peer).map(|peer| peer.standing.class());
        if before.is_none() && self.peers.len() >= MAX_PEERS {
            return Err(AttachError::PeersFull);
        }
        if class == Class::Guest && before != Some(Class::Guest) && self.guest_count() >= MAX_GUESTS {
            return Err(AttachError::GuestsFull);
        }
        let state = self.peers.entry(peer).or_insert_with(|| Peer::new(standing, address));
        state.standing = standing;
        self.addresses.insert(address, peer);
        if let Some(before) = before {
            self.accounts.reclass(&state.account, before, class);
            self.enforce_standing(peer, standing);
        }
        Ok(())
    }

    /// Forgets `peer`: its connections, its messages in both directions, its packets that wait, its events.
    pub fn close_peer(&mut self, peer: LinkId) {
        for key in self.keys_of(peer) {
            self.remove(key);
        }
        self.purge_inbox(peer, |_| true);
        self.events.retain(|LinkEvent::Broken { peer: other, .. }| *other != peer);
        let Some(state) = self.peers.remove(&peer) else { return };
        self.addresses.remove(&state.address);
        self.device.discard(|packet| destination(packet) == Some(state.address));
        self.resent.retain(|(other, _)| *other != peer);
        self.wake_blocked();
    }

    /// Takes a packet that came as a stream record of `from`'s session.
    ///
    /// # Errors
    /// Why it was refused, which is also counted.
    pub fn handle_packet(&mut self, now: Instant, from: LinkId, packet: &[u8]) -> Result<(), LinkError> {
        self.advance_clock(now);
        let result = self.try_handle_packet(from, packet);
        count(&mut self.counters.packets, result)
    }

    fn try_handle_packet(&mut self, from: LinkId, packet: &[u8]) -> Result<(), LinkError> {
        let peer = self.peers.get_mut(&from).ok_or(LinkError::NotAttached)?;
        if peer.standing.class() == Class::Guest && !peer.inbound_rate.take(self.now, packet.len() as u64) {
            return Err(LinkError::RateLimited);
        }
        let segment = Segment::parse(packet)?;
        if segment.source != peer.address {
            return Err(LinkError::SourceNotPeers);
        }
        if segment.destination != self.address {
            return Err(LinkError::DestinationNotOurs);
        }
        let key = segment.inbound_key(from)?;
        let is_allowed = peer.standing.allows(key.service);
        let accepted = match self.connections.get_mut(&key) {
            _ if !is_allowed && peer.standing == Standing::Host => Err(LinkError::TooEarly),
            _ if !is_allowed => Err(LinkError::NotAllowed),
            Some(connection) => {
                connection.resend.arrives(self.now, &segment);
                Ok(())
            }
            None if segment.opens() && key.opener == Opener::Remote => self.accept(key),
            None => Err(LinkError::NoConnection),
        };
        // A flood is met with silence, and what comes too early as well, so that TCP asks again. Whatever else finds no connection gets a
        // reset from smoltcp, so that the peer opens a new one.
        if !matches!(accepted, Err(LinkError::TooManyOpenings | LinkError::TooEarly)) {
            self.device.put(packet);
            let (now, interface, device) = (self.now, &mut self.interface, &mut self.device);
            match self.connections.get_mut(&key) {
                Some(connection) => connection.ingress(now, interface, device),
                None => {
                    interface.poll_ingress_single(to_smoltcp(now), device, &mut SocketSet::new(Vec::new()));
                }
            }
            self.settle(key);
        }
        accepted
    }

    /// Queues `message` for `peer`, over a connection that is opened if there is none.
    ///
    /// # Errors
    /// Why it was not taken, which is also counted.
    pub fn send(&mut self, now: Instant, peer: LinkId, service: Service, message: Vec<u8>) -> Result<(), SendError> {
        self.advance_clock(now);
        let result = self.try_send(peer, service, message);
        count(&mut self.counters.messages, result)
    }

    fn try_send(&mut self, peer: LinkId, service: Service, message: Vec<u8>) -> Result<(), SendError> {
        let state = self.peers.get_mut(&peer).ok_or(SendError::NotAttached)?;
        if !state.standing.allows(service) {
            return Err(SendError::NotAllowed);
        }
        if message.is_empty() || message.len() > service.max_len() {
            return Err(SendError::Length);
        }
        let class = state.standing.class();
        let cost = cost(message.len());
        self.accounts.reserve(&mut state.account, class, Direction::Outbound, cost).map_err(|scarce| match scarce {
            Scarce::Peer => SendError::PeerFull,
            Scarce::Class => SendError::LinkFull,
        })?;
        let key = match self.usable_connection(peer, service) {
            Some(key) => key,
            None => match self.connect(peer, service) {
                Ok(key) => key,
                Err(error) => {
                    self.release(peer, Direction::Outbound, cost);
                    return Err(error);
                }
            },
        };
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.queue(self.now, message);
        }
        self.settle(key);
        Ok(())
    }

    /// Returns the next message that arrived: from whom, for what.
    pub fn poll_message(&mut self) -> Option<(LinkId, Service, Vec<u8>)> {
        let (peer, service, message) = self.inbox.pop_front()?;
        self.release(peer, Direction::Inbound, cost(message.len()));
        self.wake_blocked();
        Some((peer, service, message))
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// Returns the next packet: to whom, and one IP packet of at most [`CONTROL_MTU`] bytes.
    pub fn poll_transmit(&mut self) -> Option<(LinkId, Vec<u8>)> {
        loop {
            if let Some(resent) = self.resent.pop_front() {
                return Some(resent);
            }
            while let Some(packet) = self.device.pop() {
                if let Some(peer) = destination(&packet).and_then(|address| self.addresses.get(&address).copied()) {
                    self.note_departure(peer, &packet);
                    return Some((peer, packet));
                }
            }
            let key = *self.agenda.touched().next()?;
            let (now, interface, device) = (self.now, &mut self.interface, &mut self.device);
            // Whatever is touched is there.
            let connection = self.connections.get_mut(&key)?;
            if connection.egress(now, interface, device) {
                self.settle(key);
            } else {
                let deadline = connection.deadline(now, interface, key.opener);
                self.agenda.rest(key, deadline.max(now + MIN_WAIT));
            }
        }
    }

    /// When [`Self::handle_timeout`] is due: for a retransmission, a delayed acknowledgement, a paced guest, or a connection's end.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if !self.resent.is_empty() {
            return Some(self.now);
        }
        let Self { now, interface, connections, agenda, .. } = self;
        let touched = agenda.touched().filter_map(|key| Some((key, connections.get(key)?)));
        let touched = touched.map(|(key, connection)| connection.deadline(*now, interface, key.opener)).min();
        [touched, agenda.next_deadline()].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance_clock(now);
        for key in self.agenda.due(self.now) {
            self.settle(key);
        }
    }

    fn note_departure(&mut self, peer: LinkId, packet: &[u8]) {
        let Ok(segment) = Segment::parse(packet) else { return };
        let Ok(key) = segment.outbound_key(peer) else { return };
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.resend.departs(self.now, &segment, packet);
        }
    }

    fn guest_count(&self) -> usize {
        self.peers.values().filter(|peer| peer.standing.class() == Class::Guest).count()
    }

    fn advance_clock(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }
}

impl Peer {
    fn new(standing: Standing, address: Ipv6Addr) -> Self {
        Self {
            standing,
            address,
            account: Account::default(),
            inbound_rate: TokenBucket::new(GUEST_PACKET_RATE, GUEST_PACKET_BURST),
            outbound_rate: TokenBucket::new(GUEST_RATE, GUEST_BURST),
            opening_rate: TokenBucket::new(OPENING_RATE, OPENING_BURST),
        }
    }
}
