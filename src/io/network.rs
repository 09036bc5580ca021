//! The host's network configuration: links, addresses and routes, by routing netlink.
//!
//! Owns setting up our own interface and reading everybody else's. Refuses to change anything that is not ours: no foreign address or
//! route is ever touched. All calls block for as long as the kernel takes (microseconds) and need no runtime. What is set on an interface
//! of ours vanishes with it; rules and tables of routes are in [`policy_routing`](super::policy_routing).

use super::netlink::NetlinkSocket;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{AddressMessageBuilder, LinkUnspec, RouteMessageBuilder};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The main routing table.
pub const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// Bytes of a super-packet at most: all its chunks, with what each has around it, leave as one train of at most 65,507.
const MAX_SUPER_PACKET: u32 = 60_000;

/// A change or a question that the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The process lacks CAP_NET_ADMIN.
    #[error("no permission to {action}: run as root (CAP_NET_ADMIN)")]
    NoPermission {
        /// What was tried.
        action: String,
    },
    /// Anything else the kernel said.
    #[error("cannot {action}: {source}")]
    Failed {
        /// What was tried.
        action: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index, by which everything else refers to it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether the operator switched it on and, where it can tell, whether it has a carrier.
    pub is_up: bool,
    /// Whether the operator switched it on, whatever its carrier.
    pub is_on: bool,
    /// Whether it leads back to this host alone.
    pub is_loopback: bool,
    /// Whether its packets travel inside others: TUN, WireGuard and the like, our own device included.
    pub is_tunnel: bool,
    /// The longest packet, in bytes.
    pub mtu: u32,
    /// How many packets wait for it at most.
    pub queue_len: u32,
    /// Whether it joins others into one link.
    pub is_bridge: bool,
    /// The bridge, or the like, that it is a port of.
    pub controller: Option<u32>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's index.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// The length of the connected prefix, in bits.
    pub prefix_len: u8,
    /// Whether it reaches beyond the link (neither link-local nor loopback).
    pub is_global: bool,
    /// Whether it can be a source now: not failed, nor still being probed for a duplicate, nor deprecated.
    pub is_usable: bool,
}

/// A unicast route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The first address of the destination; unspecified with length 0 is the default route.
    pub destination: IpAddr,
    /// The destination's length, in bits.
    pub prefix_len: u8,
    /// The router on the way, if any.
    pub gateway: Option<IpAddr>,
    /// The interface that it leaves by, if it names one.
    pub interface: Option<u32>,
    /// The routing table.
    pub table: u32,
    /// The metric; the kernel takes the lowest.
    pub metric: u32,
}

/// The way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The index of the interface that it leaves by.
    pub interface: u32,
    /// The router on the way, if any.
    pub gateway: Option<IpAddr>,
    /// The address of this host that goes with it.
    pub source: Option<IpAddr>,
}

/// Reads and changes the configuration of the network namespace in which it was opened.
pub struct Network {
    pub(super) socket: NetlinkSocket,
}

impl Network {
    /// Opens a netlink socket.
    ///
    /// # Errors
    /// [`NetworkError::Failed`] when the kernel gives none.
    pub fn open() -> Result<Self, NetworkError> {
        let socket = NetlinkSocket::open().map_err(error("open a netlink socket"))?;
        Ok(Self { socket })
    }

    /// Switches an interface on, with its MTU in bytes and the length of its queue in packets. Its super-packets have at most 60,000 bytes.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn set_up(&mut self, interface: u32, mtu: u32, queue_len: u32) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(interface)
            .mtu(mtu)
            .append_extra_attribute(LinkAttribute::TxQueueLen(queue_len))
            .append_extra_attribute(LinkAttribute::GsoMaxSize(MAX_SUPER_PACKET))
            .up()
            .build();
        let action = || format!("switch on interface {interface} with MTU {mtu}");
        self.socket.change(RouteNetlinkMessage::SetLink(message), 0).map_err(|source| error(&action())(source))
    }

    /// Gives an interface an address. An address that it has already is fine. No route comes with it (`IFA_F_NOPREFIXROUTE`): one in the
    /// main table would lose against any more specific one there.
    ///
    /// IPv6 skips duplicate address detection: nobody else is on a link of ours, and the address is usable at once.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn add_address(&mut self, interface: u32, address: IpAddr, prefix_len: u8) -> Result<(), NetworkError> {
        let mut message = address_message(interface, address, prefix_len);
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute));
        let outcome = self.socket.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE);
        outcome.map_err(|source| error(&format!("add the address {address}/{prefix_len}"))(source))
    }

    /// Takes an address from an interface. One that it does not have, or an interface that is gone, is fine.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn remove_address(&mut self, interface: u32, address: IpAddr, prefix_len: u8) -> Result<(), NetworkError> {
        let message = address_message(interface, address, prefix_len);
        match self.socket.change(RouteNetlinkMessage::DelAddress(message), 0) {
            Err(source) if matches!(source.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
            outcome => outcome.map_err(|source| error(&format!("remove the address {address}/{prefix_len}"))(source)),
        }
    }

    /// Installs a route to an interface or gateway.
    ///
    /// # Errors
    /// [`NetworkError`]; a route to the same destination in the same table with the same metric is never replaced (`EEXIST`).
    pub fn add_route(&mut self, route: &Route) -> Result<(), NetworkError> {
        let message = route_message(route)?;
        let outcome = self.socket.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL);
        outcome.map_err(|source| error(&format!("add the route {}/{}", route.destination, route.prefix_len))(source))
    }

    /// Removes a route that [`add_route`](Self::add_route) installed; one that is gone already is fine.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn remove_route(&mut self, route: &Route) -> Result<(), NetworkError> {
        let message = route_message(route)?;
        match self.socket.change(RouteNetlinkMessage::DelRoute(message), 0) {
            Err(source) if matches!(source.raw_os_error(), Some(libc::ESRCH | libc::ENODEV)) => Ok(()),
            outcome => outcome.map_err(|source| {
                error(&format!("remove the route {}/{}", route.destination, route.prefix_len))(source)
            }),
        }
    }

    /// Lists all interfaces.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn interfaces(&mut self) -> Result<Vec<Interface>, NetworkError> {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.socket.dump(&question).map_err(error("list the interfaces"))?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(interface_of(link)),
                _ => None,
            })
            .collect())
    }

    /// Lists all addresses, of all interfaces.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn addresses(&mut self) -> Result<Vec<InterfaceAddress>, NetworkError> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.socket.dump(&question).map_err(error("list the addresses"))?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(address) => address_of(address),
                _ => None,
            })
            .collect())
    }

    /// Asks by which way packets with this mark (0 for none) leave for `destination`.
    ///
    /// # Errors
    /// [`NetworkError`]: there is no way there, or it names no interface.
    pub fn way(&mut self, destination: IpAddr, mark: u32) -> Result<Way, NetworkError> {
        let failed = |source| error(&format!("find the link towards {destination}"))(source);
        let mut question = match destination {
            IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, 32).build(),
            IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build(),
        };
        // A question names neither table nor kind.
        question.header = RouteHeader {
            address_family: question.header.address_family,
            destination_prefix_length: question.header.destination_prefix_length,
            ..RouteHeader::default()
        };
        question.attributes.retain(|attribute| matches!(attribute, RouteAttribute::Destination(_)));
        question.attributes.push(RouteAttribute::Mark(mark));
        let RouteNetlinkMessage::NewRoute(route) =
            self.socket.ask(RouteNetlinkMessage::GetRoute(question)).map_err(failed)?
        else {
            return Err(failed(io::ErrorKind::InvalidData.into()));
        };
        let (mut interface, mut gateway, mut source) = (None, None, None);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Gateway(address) => gateway = ip_of(address),
                RouteAttribute::PrefSource(address) => source = ip_of(address),
                _ => {}
            }
        }
        let interface = interface.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        Ok(Way { interface, gateway, source })
    }

    /// Asks for the MTU, in bytes, of the link by which packets with this mark (0 for none) leave for `destination`: the interface's own,
    /// which no message from the network can change.
    ///
    /// # Errors
    /// [`NetworkError`]: there is no way there, or it names no interface.
    pub fn link_mtu(&mut self, destination: IpAddr, mark: u32) -> Result<u32, NetworkError> {
        let failed = |source| error(&format!("find the link towards {destination}"))(source);
        let mut question = LinkMessage::default();
        question.header.index = self.way(destination, mark)?.interface;
        match self.socket.ask(RouteNetlinkMessage::GetLink(question)).map_err(failed)? {
            RouteNetlinkMessage::NewLink(link) => Ok(interface_of(&link).mtu),
            _ => Err(failed(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Lists the unicast routes of all tables, IPv4 before IPv6.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn routes(&mut self) -> Result<Vec<Route>, NetworkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            let answers =
                self.socket.dump(&RouteNetlinkMessage::GetRoute(question)).map_err(error("list the routes"))?;
            routes.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) => route_of(route),
                _ => None,
            }));
        }
        Ok(routes)
    }

    /// Lists the addresses under which others may reach this host: global, usable, on interfaces that are up and are no tunnel.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn underlay_addresses(&mut self) -> Result<Vec<InterfaceAddress>, NetworkError> {
        let interfaces = self.interfaces()?;
        let is_underlay =
            |index| interfaces.iter().any(|it| it.index == index && it.is_up && !it.is_loopback && !it.is_tunnel);
        let mut addresses = self.addresses()?;
        addresses.retain(|it| it.is_global && it.is_usable && is_underlay(it.interface));
        Ok(addresses)
    }
}

/// Returns those of `addresses`, on any interface but `own`, whose connected prefix shares an address with `pool`/`pool_len`.
pub fn overlapping(
    addresses: &[InterfaceAddress],
    own: Option<u32>,
    pool: IpAddr,
    pool_len: u8,
) -> Vec<InterfaceAddress> {
    let shares = |it: &&InterfaceAddress| {
        Some(it.interface) != own && common_bits(it.address, pool) >= Some(u32::from(it.prefix_len.min(pool_len)))
    };
    addresses.iter().filter(shares).cloned().collect()
}

/// How many leading bits two addresses of one family share; `None` for two families.
fn common_bits(left: IpAddr, right: IpAddr) -> Option<u32> {
    match (left, right) {
        (IpAddr::V4(left), IpAddr::V4(right)) => Some((left.to_bits() ^ right.to_bits()).leading_zeros()),
        (IpAddr::V6(left), IpAddr::V6(right)) => Some((left.to_bits() ^ right.to_bits()).leading_zeros()),
        _ => None,
    }
}

fn route_message(route: &Route) -> Result<RouteMessage, NetworkError> {
    let invalid = |invalid| error("make the route")(io::Error::new(io::ErrorKind::InvalidInput, invalid));
    // Device routes to hosts on the link; what has a gateway reaches beyond.
    let scope =
        if route.gateway.is_some() || route.destination.is_ipv6() { RouteScope::Universe } else { RouteScope::Link };
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.destination, route.prefix_len)
        .map_err(invalid)?
        .table_id(route.table)
        .scope(scope);
    if let Some(gateway) = route.gateway {
        builder = builder.gateway(gateway).map_err(invalid)?;
    }
    if let Some(interface) = route.interface {
        builder = builder.output_interface(interface);
    }
    if route.metric != 0 {
        builder = builder.priority(route.metric);
    }
    Ok(builder.build())
}

pub(super) fn interface_of(link: &LinkMessage) -> Interface {
    let flags = link.header.flags;
    let mut interface = Interface {
        index: link.header.index,
        name: String::new(),
        is_up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        is_on: flags.contains(LinkFlags::Up),
        is_loopback: flags.contains(LinkFlags::Loopback),
        is_tunnel: false,
        mtu: 0,
        queue_len: 0,
        is_bridge: false,
        controller: None,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::TxQueueLen(length) => interface.queue_len = *length,
            LinkAttribute::Controller(index) => interface.controller = (*index != 0).then_some(*index),
            LinkAttribute::LinkInfo(infos) => {
                interface.is_tunnel = infos.iter().any(is_tunnel);
                interface.is_bridge = infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Bridge)));
            }
            _ => {}
        }
    }
    interface
}

fn is_tunnel(attribute: &LinkInfo) -> bool {
    use InfoKind::{GreTap, GreTap6, GreTun, GreTun6, Ip6Tnl, IpIp, SitTun, Tun, Vti, Vti6, Wireguard, Xfrm};
    let LinkInfo::Kind(kind) = attribute else { return false };
    matches!(kind, Tun | Wireguard | IpIp | Ip6Tnl | SitTun | GreTun | GreTun6 | GreTap | GreTap6 | Vti | Vti6 | Xfrm)
}

/// Reads an address message; `None` for families other than IP.
pub(super) fn address_of(message: &AddressMessage) -> Option<InterfaceAddress> {
    let (mut local, mut remote) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => remote = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let unusable = AddressFlags::Deprecated | AddressFlags::Tentative | AddressFlags::Dadfailed;
    Some(InterfaceAddress {
        interface: message.header.index,
        // On a point-to-point link IFA_ADDRESS is the other end's.
        address: local.or(remote)?,
        prefix_len: message.header.prefix_len,
        is_global: matches!(message.header.scope, AddressScope::Universe | AddressScope::Site),
        is_usable: !flags.intersects(unusable),
    })
}

/// Reads a route message; `None` for anything but unicast routes.
pub(super) fn route_of(message: &RouteMessage) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let unspecified = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut route = Route {
        destination: unspecified,
        prefix_len: message.header.destination_prefix_length,
        gateway: None,
        interface: None,
        table: u32::from(message.header.table),
        metric: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => route.destination = ip_of(address)?,
            RouteAttribute::Gateway(address) => route.gateway = ip_of(address),
            RouteAttribute::Oif(interface) => route.interface = Some(*interface),
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            _ => {}
        }
    }
    Some(route)
}

pub(super) fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

pub(super) fn error(action: &str) -> impl FnOnce(io::Error) -> NetworkError + use<> {
    let action = action.to_owned();
    move |source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => NetworkError::NoPermission { action },
        _ => NetworkError::Failed { action, source },
    }
}

fn address_message(interface: u32, address: IpAddr, prefix_len: u8) -> AddressMessage {
    let mut message = match address {
        IpAddr::V4(address) => AddressMessageBuilder::<Ipv4Addr>::new().address(address, prefix_len).build(),
        IpAddr::V6(address) => AddressMessageBuilder::<Ipv6Addr>::new().address(address, prefix_len).build(),
    };
    message.header.index = interface;
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(interface: u32, text: &str, prefix_len: u8) -> InterfaceAddress {
        InterfaceAddress { interface, address: text.parse().unwrap(), prefix_len, is_global: true, is_usable: true }
    }

    #[test]
    fn a_pool_conflicts_with_what_covers_it_and_with_what_it_covers() {
        let host = [
            connected(1, "127.0.0.1", 8),
            connected(2, "10.64.3.7", 24),
            connected(2, "10.200.0.1", 8),
            connected(3, "10.64.0.1", 20),
            connected(4, "fd00:1::7", 64),
        ];
        let found = |pool: &str, len| {
            let found = overlapping(&host, Some(3), pool.parse().unwrap(), len);
            found.iter().map(|it| it.address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found("10.64.0.0", 20), ["10.64.3.7", "10.200.0.1"]);
        assert_eq!(found("172.16.0.0", 20), [""; 0]);
        assert_eq!(found("10.64.16.0", 20), ["10.200.0.1"]);
        assert_eq!(found("fd00:1::", 48), ["fd00:1::7"]);
        assert_eq!(found("fd00:2::", 48), [""; 0]);
        assert_eq!(found("0.0.0.0", 0), ["127.0.0.1", "10.64.3.7", "10.200.0.1"]);
    }

    #[test]
    fn the_loopback_interface_is_listed_with_what_it_is() {
        let mut network = Network::open().unwrap();
        let interfaces = network.interfaces().unwrap();
        let lo = interfaces.iter().find(|it| it.name == "lo").unwrap();
        assert!(lo.is_loopback && !lo.is_tunnel && lo.mtu >= 1280);
        let address = network.addresses().unwrap().into_iter().find(|it| it.address == IpAddr::from([127, 0, 0, 1]));
        assert!(address.is_none_or(|it| it.interface == lo.index && it.prefix_len == 8 && !it.is_global));
        network.routes().unwrap();
    }
}
