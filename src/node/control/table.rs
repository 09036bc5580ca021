//! The link's connections: found, made, moved on, ended.

use super::account::{Direction, cost};
use super::connection::{BrokenReason, Connection, ConnectionKey, Opener, Step};
use super::refusal::{LinkError, LinkEvent, SendError};
use super::segment::FIRST_PORT;
use super::service::{Class, LinkId, Service, Standing};
use super::{ControlLink, GUEST_SOCKETS, MEMBER_SOCKETS, SOCKETS_PER_GUEST, SOCKETS_PER_MEMBER};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::wire::{IpEndpoint, IpListenEndpoint};
use std::collections::BTreeMap;

/// Connections that a peer may have opened for one service: a live one, and one that it left behind when it restarted.
pub(super) const CONNECTIONS_PER_SERVICE: usize = 2;

/// Send and receive buffer of a member's socket: 64 KiB per round trip.
const MEMBER_SOCKET_BUFFER: usize = 64 << 10;

/// Send and receive buffer of a guest's socket.
const GUEST_SOCKET_BUFFER: usize = 16 << 10;

/// Events that wait for `poll_event`; when full the oldest goes.
const MAX_EVENTS: usize = 1024;

/// Segments that wait to go out once more.
const MAX_RESENT: usize = 1024;

impl ControlLink {
    /// Chooses the connection for a message: an own one, else the newest that the peer opened.
    pub(super) fn usable_connection(&self, peer: LinkId, service: Service) -> Option<ConnectionKey> {
        self.connections_of(peer)
            .filter(|(key, connection)| key.service == service && connection.is_usable())
            .max_by_key(|(key, connection)| (key.opener == Opener::Local, connection.serial))
            .map(|(key, _)| *key)
    }

    pub(super) fn connect(&mut self, peer: LinkId, service: Service) -> Result<ConnectionKey, SendError> {
        let class = self.room_for_socket(peer).map_err(|error| match error {
            LinkError::NotAttached => SendError::NotAttached,
            _ => SendError::SocketsFull,
        })?;
        let key = loop {
            let key = ConnectionKey { peer, service, opener: Opener::Local, port: self.next_port };
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
            // Ends: a peer has fewer connections than there are ports.
            if !self.connections.contains_key(&key) {
                break key;
            }
        };
        let mut socket = new_socket(class);
        let remote = IpEndpoint::new(peer.address().into(), service.port());
        let local = IpListenEndpoint { addr: Some(self.address.into()), port: key.port };
        socket
            .connect(self.interface.context(), remote, local)
            .expect("a fresh socket connects to a unicast address and a port that is not 0");
        self.insert(key, class, socket);
        Ok(key)
    }

    /// Makes room for the connection that a SYN wants, and a socket that listens for it and nothing else.
    pub(super) fn accept(&mut self, key: ConnectionKey) -> Result<(), LinkError> {
        let peer = self.peers.get_mut(&key.peer).ok_or(LinkError::NotAttached)?;
        if !peer.opening_rate.take(self.now, 1) {
            return Err(LinkError::TooManyOpenings);
        }
        let same = self
            .connections_of(key.peer)
            .filter(|(other, _)| (other.service, other.opener) == (key.service, key.opener));
        let mut same: Vec<(u64, ConnectionKey)> = same.map(|(other, connection)| (connection.serial, *other)).collect();
        same.sort_unstable();
        if let [(_, oldest), ..] = same[..]
            && same.len() >= CONNECTIONS_PER_SERVICE
        {
            self.report(oldest, BrokenReason::Replaced);
            self.remove(oldest);
        }
        let class = self.room_for_socket(key.peer)?;
        let mut socket = new_socket(class);
        let local = IpListenEndpoint { addr: Some(self.address.into()), port: key.service.port() };
        socket.listen(local).expect("a fresh socket listens on a port that is not 0");
        self.insert(key, class, socket);
        Ok(())
    }

    /// Finds room for one more socket of `peer`. When all of its own are taken, its oldest goes: what it left behind when it restarted must
    /// not keep it out. When all of all peers are, the one that has most gives its oldest away, if it has more.
    fn room_for_socket(&mut self, peer: LinkId) -> Result<Class, LinkError> {
        let class = self.peers.get(&peer).ok_or(LinkError::NotAttached)?.standing.class();
        let (all, per_peer) = match class {
            Class::Member => (MEMBER_SOCKETS, SOCKETS_PER_MEMBER),
            Class::Guest => (GUEST_SOCKETS, SOCKETS_PER_GUEST),
        };
        let mut counts: BTreeMap<LinkId, usize> = BTreeMap::new();
        for (key, _) in self.connections.iter().filter(|(_, connection)| connection.class == class) {
            *counts.entry(key.peer).or_default() += 1;
        }
        let own = counts.get(&peer).copied().unwrap_or(0);
        let giver = if own >= per_peer {
            peer
        } else if counts.values().sum::<usize>() < all {
            return Ok(class);
        } else {
            let richest = counts.into_iter().max_by_key(|(_, count)| *count).filter(|(_, count)| *count > own + 1);
            richest.ok_or(LinkError::SocketsFull)?.0
        };
        let oldest = self.connections_of(giver).filter(|(_, connection)| connection.class == class);
        let oldest = oldest.min_by_key(|(_, connection)| connection.serial).map(|(key, _)| *key);
        let oldest = oldest.ok_or(LinkError::SocketsFull)?;
        self.report(oldest, BrokenReason::Replaced);
        self.remove(oldest);
        Ok(class)
    }

    fn insert(&mut self, key: ConnectionKey, class: Class, mut socket: Socket<'static>) {
        // A message is written at once; waiting for more would only delay it.
        socket.set_nagle_enabled(false);
        self.connections.insert(key, Connection::new(self.now, socket, class, self.next_serial));
        self.next_serial += 1;
    }

    /// Moves a connection's bytes both ways and sees to its end.
    pub(super) fn settle(&mut self, key: ConnectionKey) {
        let Self { peers, connections, agenda, accounts, inbox, blocked, resent, now, .. } = self;
        let (Some(connection), Some(peer)) = (connections.get_mut(&key), peers.get_mut(&key.peer)) else { return };
        agenda.touch(key);
        let (now, standing) = (*now, peer.standing);
        let class = standing.class();
        let pace = (class == Class::Guest).then_some(&mut peer.outbound_rate);
        let written = connection.write(now, pace);
        accounts.release(&mut peer.account, class, Direction::Outbound, written);
        let read = connection.read(
            now,
            standing.max_inbound_len(key.service),
            |cost| accounts.reserve(&mut peer.account, class, Direction::Inbound, cost).is_ok(),
            |message| inbox.push_back((key.peer, key.service, message)),
        );
        if connection.is_blocked() {
            blocked.insert(key);
        }
        connection.resend.resend(now, |packet| {
            // What finds no place smoltcp repairs in time.
            if resent.len() < MAX_RESENT {
                resent.push_back((key.peer, packet));
            }
        });
        let step = match read {
            Ok(()) => connection.step(now, key.opener),
            Err(reason) => Step::Break(reason),
        };
        match step {
            Step::Keep => {}
            Step::Remove => self.remove(key),
            Step::Break(reason) => self.break_off(key, reason),
        }
    }

    /// Ends a connection with a reset to the peer, and tells of it.
    fn break_off(&mut self, key: ConnectionKey, reason: BrokenReason) {
        self.report(key, reason);
        let costs = self.connections.get(&key).map_or((0, 0), Connection::costs);
        self.release(key.peer, Direction::Outbound, costs.0);
        self.release(key.peer, Direction::Inbound, costs.1);
        let Some(connection) = self.connections.get_mut(&key) else { return };
        connection.abort();
        if connection.has_left() {
            self.remove(key);
        } else {
            self.agenda.touch(key);
        }
    }

    /// Forgets a connection at once.
    pub(super) fn remove(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.remove(&key) else { return };
        let (outbound, inbound) = connection.costs();
        self.release(key.peer, Direction::Outbound, outbound);
        self.release(key.peer, Direction::Inbound, inbound);
        self.blocked.remove(&key);
        self.agenda.forget(&key);
    }

    fn report(&mut self, key: ConnectionKey, reason: BrokenReason) {
        *self.counters.broken.entry(reason).or_default() += 1;
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
            self.counters.lost_events += 1;
        }
        let unsent = self.connections.get(&key).map_or(0, Connection::waiting);
        self.events.push_back(LinkEvent::Broken { peer: key.peer, service: key.service, reason, unsent });
    }

    pub(super) fn enforce_standing(&mut self, peer: LinkId, standing: Standing) {
        for key in self.keys_of(peer) {
            if !standing.allows(key.service) {
                self.break_off(key, BrokenReason::NotAllowed);
            }
        }
        self.purge_inbox(peer, |service| !standing.allows(service));
        self.wake_blocked();
    }

    pub(super) fn purge_inbox(&mut self, peer: LinkId, unwanted: impl Fn(Service) -> bool) {
        let mut purged = 0;
        self.inbox.retain(|(from, service, message)| {
            let keep = *from != peer || !unwanted(*service);
            purged += if keep { 0 } else { cost(message.len()) };
            keep
        });
        self.release(peer, Direction::Inbound, purged);
    }

    /// Lets connections read on that waited for memory.
    pub(super) fn wake_blocked(&mut self) {
        for key in std::mem::take(&mut self.blocked) {
            self.settle(key);
        }
    }

    pub(super) fn release(&mut self, peer: LinkId, direction: Direction, cost: usize) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            let class = peer.standing.class();
            self.accounts.release(&mut peer.account, class, direction, cost);
        }
    }

    pub(super) fn connections_of(&self, peer: LinkId) -> impl Iterator<Item = (&ConnectionKey, &Connection)> {
        let first = ConnectionKey { peer, service: Service::Sync, opener: Opener::Local, port: 0 };
        self.connections.range(first..).take_while(move |(key, _)| key.peer == peer)
    }

    pub(super) fn keys_of(&self, peer: LinkId) -> Vec<ConnectionKey> {
        self.connections_of(peer).map(|(key, _)| *key).collect()
    }
}

fn new_socket(class: Class) -> Socket<'static> {
    let len = match class {
        Class::Member => MEMBER_SOCKET_BUFFER,
        Class::Guest => GUEST_SOCKET_BUFFER,
    };
    Socket::new(SocketBuffer::new(vec![0; len]), SocketBuffer::new(vec![0; len]))
}
