//! What changes in the host's network configuration, as it happens: the cause of re-probing all paths.

#![cfg_attr(test, allow(unsafe_code))]

use super::StopSignal;
use super::netlink::receive_messages;
use super::network::{Interface, InterfaceAddress, Route, address_of, interface_of, route_of};
use super::stop::Wake;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use std::collections::VecDeque;
#[cfg(test)]
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
#[cfg(test)]
use std::os::fd::{FromRawFd, IntoRawFd};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkEvent {
    /// An interface appeared or changed.
    Link(Interface),
    /// An interface is gone; its index.
    LinkGone(u32),
    /// An interface has this address, or what is known of it changed.
    Address(InterfaceAddress),
    /// An interface has this address no more.
    AddressGone(InterfaceAddress),
    /// A unicast route appeared.
    Route(Route),
    /// A unicast route is gone.
    RouteGone(Route),
    /// What else decides where packets go has changed: a rule appeared or is gone, or a route that is not unicast is gone.
    Routing,
    /// More happened than the socket holds: read everything anew.
    Lost,
}

/// Why a watch gives nothing more.
#[derive(Debug, thiserror::Error)]
pub enum WatchEnd {
    /// The stop signal was triggered.
    #[error("stopped")]
    Stopped,
    /// The socket is unusable.
    #[error("network changes cannot be watched: {0}")]
    Failed(io::Error),
}

/// The stream of changes in the network namespace in which it was opened. The socket is the queue; past its size comes [`NetworkEvent::Lost`].
pub struct NetworkWatch {
    socket: Socket,
    /// The rest of the last datagram.
    pending: VecDeque<NetworkEvent>,
}

impl NetworkWatch {
    /// Starts to watch: every change from here on is told.
    ///
    /// # Errors
    /// The kernel's, when it gives no socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        for group in [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
        ] {
            socket.add_membership(group as u32)?;
        }
        Ok(Self { socket, pending: VecDeque::new() })
    }

    /// A watch whose first reading fails: its descriptor is no socket.
    #[cfg(test)]
    pub fn unusable() -> Self {
        let descriptor = File::open("/proc/self/exe").expect("a process has a program");
        // SAFETY: the descriptor is open and given away; what is done to it fails, as is wanted.
        let socket = unsafe { Socket::from_raw_fd(descriptor.into_raw_fd()) };
        Self { socket, pending: VecDeque::new() }
    }

    /// Waits for the next change.
    ///
    /// # Errors
    /// [`WatchEnd`]: stopped, or the socket is unusable.
    pub fn next(&mut self, stop: &StopSignal) -> Result<NetworkEvent, WatchEnd> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            match stop.wait(self.socket.as_fd(), None) {
                Wake::Stopped => return Err(WatchEnd::Stopped),
                Wake::TimedOut => continue,
                Wake::Ready => {}
            }
            match receive_messages(&self.socket) {
                Ok(messages) => self.pending.extend(messages.into_iter().filter_map(|(_, payload)| event_of(&payload))),
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOBUFS) => {
                        self.drain();
                        return Ok(NetworkEvent::Lost);
                    }
                    Some(libc::EINTR | libc::EAGAIN) => {}
                    _ => return Err(WatchEnd::Failed(error)),
                },
            }
        }
    }

    /// Empties the overrun queue: until it is empty the kernel drops every further change, and says so no second time.
    fn drain(&self) {
        loop {
            // Each datagram is cut to nothing: what it tells is read anew.
            match self.socket.recv(&mut [0u8; 0].as_mut_slice(), 0) {
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EINTR)) => {}
                Err(_) => return,
            }
        }
    }
}

fn event_of(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<NetworkEvent> {
    let NetlinkPayload::InnerMessage(message) = payload else { return None };
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(NetworkEvent::Link(interface_of(link))),
        RouteNetlinkMessage::DelLink(link) => Some(NetworkEvent::LinkGone(link.header.index)),
        RouteNetlinkMessage::NewAddress(address) => address_of(address).map(NetworkEvent::Address),
        RouteNetlinkMessage::DelAddress(address) => address_of(address).map(NetworkEvent::AddressGone),
        RouteNetlinkMessage::NewRoute(route) => route_of(route).map(NetworkEvent::Route),
        RouteNetlinkMessage::DelRoute(route) => {
            Some(route_of(route).map_or(NetworkEvent::Routing, NetworkEvent::RouteGone))
        }
        RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => Some(NetworkEvent::Routing),
        _ => None,
    }
}
