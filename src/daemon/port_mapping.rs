//! The loop's side of port mapping: which gateway is asked, and which endpoint is believed.

use crate::io::network::{InterfaceAddress, Network};
use crate::io::port_map::{Order, PortMapOrders, PortMapState, Target};
use crate::path::candidate::is_private;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The address that stands for the nearest gateway that maps ports (RFC 7723), so the way there is the way to the default gateway: nobody
/// has a route of its own for it. Nothing is sent there.
const ANY_GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 9);

/// What the loop knows of the gateway.
pub struct PortMapping {
    orders: PortMapOrders,
    mark: u32,
    /// What the log has.
    told: PortMapState,
}

impl PortMapping {
    /// Takes what gives the task its orders, and the mark of the daemon's packets.
    pub fn new(orders: PortMapOrders, mark: u32) -> Self {
        Self { orders, mark, told: PortMapState::Off }
    }

    /// Has the default gateway asked for one of these ports, or, where it is not wanted, nobody for anything. `addresses` are the host's on
    /// interfaces that are up and lead to the underlay: the loss of a carrier ends a mapping, since another router may be there afterwards.
    pub fn follow(
        &self,
        network: &mut Network,
        is_wanted: bool,
        listen: &[SocketAddr],
        addresses: &[InterfaceAddress],
    ) {
        let is_possible = is_wanted && listen.iter().any(SocketAddr::is_ipv4);
        self.orders.give(match is_possible {
            false => Order::Rest,
            true => self.target(network, listen, addresses).map_or(Order::Wait, Order::Map),
        });
    }

    /// Only a private gateway is asked: in front of a public address there is no NAT of this host's own.
    fn target(&self, network: &mut Network, listen: &[SocketAddr], addresses: &[InterfaceAddress]) -> Option<Target> {
        let way = network.way(ANY_GATEWAY.into(), self.mark).ok()?;
        let (Some(IpAddr::V4(gateway)), Some(IpAddr::V4(source))) = (way.gateway, way.source) else { return None };
        let is_there = addresses.iter().any(|it| it.interface == way.interface && it.address == IpAddr::V4(source));
        let listens = |it: &&SocketAddr| it.ip() == IpAddr::V4(source) || it.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let port = listen.iter().find(listens)?.port();
        (is_there && is_private(gateway.into()) && is_private(source.into())).then_some(Target {
            gateway,
            source,
            port,
        })
    }

    /// How it stands.
    pub fn state(&self) -> PortMapState {
        self.orders.state()
    }

    /// Tells the log how it stands.
    pub fn report(&mut self) {
        let state = self.state();
        match (&self.told, &state) {
            (_, PortMapState::Mapped { external, by }) => {
                tracing::info!(%external, %by, "the gateway passes on what comes for this node");
            }
            (PortMapState::Mapped { .. }, _) => tracing::info!(?state, "the gateway passes nothing on any more"),
            _ => tracing::debug!(?state, "port mapping"),
        }
        self.told = state;
    }

    /// The endpoint at which the gateway passes on what comes. No overlay address is among those that are believed: they are all private.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        match self.state() {
            PortMapState::Mapped { external, .. } => Some(external.into()),
            _ => None,
        }
    }
}
