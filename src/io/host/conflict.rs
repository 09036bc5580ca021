//! What speaks against sending a subnet's packets into the tunnel: a function of what the host has.

use crate::io::network::{Interface, InterfaceAddress};
use crate::wire::prefix::Prefix;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// What the host has and the tunnel needs.
#[derive(Clone, Debug, Default)]
pub struct HostView {
    /// The subnets that the host is connected to, each with its interface's name; not those of our own device, nor of the loopback interface.
    pub connected: Vec<(String, Prefix)>,
    /// Where packets for everywhere else go first.
    pub gateways: BTreeSet<IpAddr>,
    /// Where members are reached.
    pub endpoints: BTreeSet<IpAddr>,
    /// The overlay's own subnets.
    pub overlay: BTreeSet<Prefix>,
}

impl HostView {
    /// Makes the part that the kernel knows; `own` is the index of our device.
    pub fn of(interfaces: &[Interface], addresses: &[InterfaceAddress], own: Option<u32>) -> Self {
        let connected = addresses.iter().filter(|it| it.is_global && Some(it.interface) != own).filter_map(|it| {
            let interface =
                interfaces.iter().find(|interface| interface.index == it.interface && !interface.is_loopback)?;
            Some((interface.name.clone(), Prefix::new(it.address, it.prefix_len).ok()?))
        });
        Self { connected: connected.collect(), ..Self::default() }
    }
}

/// What speaks against a route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteConflict {
    /// It is the default route: for an exit node alone.
    Default,
    /// It equals or covers a subnet that the host is connected to, which would be out of reach.
    Covers {
        /// The interface.
        interface: String,
        /// The host's subnet.
        connected: Prefix,
    },
    /// It takes a part of a subnet that the host is connected to.
    Within {
        /// The interface.
        interface: String,
        /// The host's subnet.
        connected: Prefix,
    },
    /// It covers the way out, or a place where a member is reached.
    Underlay(IpAddr),
    /// It overlaps the overlay's own subnets.
    Overlay(Prefix),
}

impl RouteConflict {
    /// Says whether the operator may have it all the same, by force.
    pub const fn can_be_forced(&self) -> bool {
        matches!(self, Self::Covers { .. } | Self::Within { .. })
    }

    /// Says whether it is worth a word and no more: what is deliberately more specific takes only what it names.
    pub const fn is_warning(&self) -> bool {
        matches!(self, Self::Within { .. })
    }
}

impl fmt::Display for RouteConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("it is the default route, which only an exit node has: `exit-node use PEER`"),
            Self::Covers { interface, connected } => {
                write!(f, "it covers {interface} {connected}, to which this host is connected")
            }
            Self::Within { interface, connected } => {
                write!(f, "it is a part of {interface} {connected}, to which this host is connected")
            }
            Self::Underlay(address) => write!(f, "it covers {address}, which the tunnel itself goes through"),
            Self::Overlay(overlay) => write!(f, "it overlaps the overlay's own {overlay}"),
        }
    }
}

/// Finds everything that speaks against a route to `subnet`.
pub fn route_conflicts(subnet: Prefix, view: &HostView) -> Vec<RouteConflict> {
    if subnet.bits() == 0 {
        return vec![RouteConflict::Default];
    }
    let mut found: Vec<_> = view
        .connected
        .iter()
        .filter(|(_, connected)| connected.overlaps(subnet))
        .map(|(interface, connected)| {
            let (interface, connected) = (interface.clone(), *connected);
            match subnet.contains(connected.address()) && subnet.bits() <= connected.bits() {
                true => RouteConflict::Covers { interface, connected },
                false => RouteConflict::Within { interface, connected },
            }
        })
        .collect();
    let underlay = view.gateways.union(&view.endpoints).filter(|address| subnet.contains(**address));
    // A gateway in a subnet that is covered was told already.
    let is_told = |address: IpAddr| view.connected.iter().any(|(_, connected)| connected.contains(address));
    found.extend(underlay.copied().filter(|address| !is_told(*address)).map(RouteConflict::Underlay));
    found.extend(view.overlay.iter().filter(|it| it.overlaps(subnet)).copied().map(RouteConflict::Overlay));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> HostView {
        let prefix = |text: &str| text.parse().unwrap();
        HostView {
            connected: vec![
                ("eth0".to_owned(), prefix("192.168.1.0/24")),
                ("wlan0".to_owned(), prefix("10.0.0.0/8")),
                ("eth0".to_owned(), prefix("2001:db8:7::/64")),
            ],
            gateways: ["192.168.1.1", "fe80::1"].map(|text| text.parse().unwrap()).into(),
            endpoints: ["203.0.113.7", "192.168.1.9"].map(|text| text.parse().unwrap()).into(),
            overlay: [prefix("10.77.0.0/24"), prefix("fd00:7::/64")].into(),
        }
    }

    #[test]
    fn each_thing_in_the_way_of_a_route_has_its_name() {
        let told = |subnet: &str| {
            let found = route_conflicts(subnet.parse().unwrap(), &view());
            found.iter().map(|it| it.to_string().replace(", to which this host is connected", "")).collect::<Vec<_>>()
        };
        assert_eq!(told("172.16.0.0/16"), [""; 0]);
        assert_eq!(told("192.168.1.0/24"), ["it covers eth0 192.168.1.0/24"]);
        assert_eq!(told("192.168.0.0/16"), ["it covers eth0 192.168.1.0/24"]);
        assert_eq!(told("192.168.1.1/32"), ["it is a part of eth0 192.168.1.0/24"]);
        assert_eq!(told("10.1.2.0/24"), ["it is a part of wlan0 10.0.0.0/8"]);
        assert_eq!(told("203.0.113.0/24"), ["it covers 203.0.113.7, which the tunnel itself goes through"]);
        assert_eq!(
            told("10.77.0.0/25"),
            ["it is a part of wlan0 10.0.0.0/8", "it overlaps the overlay's own 10.77.0.0/24"]
        );
        assert_eq!(told("fd00::/16"), ["it overlaps the overlay's own fd00:7::/64"]);
        assert_eq!(told("2001:db8::/32"), ["it covers eth0 2001:db8:7::/64"]);
        for all in ["0.0.0.0/0", "::/0"] {
            assert_eq!(route_conflicts(all.parse().unwrap(), &view()), [RouteConflict::Default]);
        }
        // Half of everything is no way around that.
        assert_eq!(told("128.0.0.0/1").len(), 2);
    }

    #[test]
    fn only_what_takes_the_host_s_own_networks_can_be_forced() {
        let of = |subnet: &str| route_conflicts(subnet.parse().unwrap(), &view());
        assert!(of("192.168.0.0/16").iter().all(|it| it.can_be_forced() && !it.is_warning()));
        assert!(of("10.1.2.0/24").iter().all(|it| it.can_be_forced() && it.is_warning()));
        for never in ["0.0.0.0/0", "203.0.113.0/24", "fd00::/16"] {
            assert!(of(never).iter().all(|it| !it.can_be_forced()), "{never}");
        }
    }

    #[test]
    fn the_view_leaves_out_the_loopback_interface_and_the_own_device() {
        let interface = |index, name: &str, is_loopback| Interface {
            index,
            name: name.to_owned(),
            is_up: true,
            is_on: true,
            is_loopback,
            is_tunnel: false,
            mtu: 1500,
            queue_len: 0,
            controller: None,
            is_bridge: false,
        };
        let interfaces = [interface(1, "lo", true), interface(2, "eth0", false), interface(3, "p2p-lab", false)];
        let address = |interface, text: &str, prefix_len| InterfaceAddress {
            interface,
            address: text.parse().unwrap(),
            prefix_len,
            is_global: true,
            is_usable: true,
        };
        let addresses = [
            address(1, "10.9.9.9", 32),
            address(2, "192.168.1.7", 24),
            address(3, "10.77.0.1", 24),
            address(9, "10.8.0.1", 24),
        ];
        let view = HostView::of(&interfaces, &addresses, Some(3));
        assert_eq!(view.connected, [("eth0".to_owned(), "192.168.1.0/24".parse().unwrap())]);
    }
}
