//! What lies behind this node and behind others, as far as it concerns the host: which subnets lead into the tunnel, and what this host passes on.
//!
//! ```text
//!   accepted subnets ─► in the way of a network of this host? ── no, or forced ─► led to the interface       yes ─► told
//!   an exit in use   ─► everything is led to the interface, but what the host is connected to
//!   own subnets, own exit ─► forwarding between the interface and theirs, masquerade, 1:1 mapping
//! ```
//! A function of the ledger's word, the configuration and the host's networks.

use crate::io::device_name::DeviceName;
use crate::io::host::{HostPlan, HostView, LockDown, Masquerade, RouteConflict, Slot, Sysctl, route_conflicts};
use crate::io::network::{Interface, InterfaceAddress, MAIN_TABLE, Network, NetworkError, Route};
use crate::policy::Subnet;
use crate::wire::prefix::Prefix;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Every interface together, as the kernel's settings name them.
const EVERY_INTERFACE: &str = "all";

/// Everywhere, in both versions of IP.
const EVERYWHERE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// Networks of one's own: RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291 §2.5.6.
const PRIVATE: [&str; 7] =
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"];

/// The ledger's word, and the user's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Behind {
    /// Subnets to which this node sends by others; everywhere, when there is an exit in use.
    pub accepted: BTreeSet<Prefix>,
    /// Those among them that the user wants whatever they cover.
    pub forced: BTreeSet<Prefix>,
    /// An exit is to be used, there at the moment or not.
    pub wants_exit: bool,
    /// Subnets behind this node.
    pub own: Vec<Subnet>,
    /// This node carries others' traffic to everywhere.
    pub is_exit: bool,
}

/// What is configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BehindSettings {
    /// Who comes out of the tunnel goes on under an address of this host.
    pub masquerade: bool,
    /// While an exit is used nothing leaves beside the overlay.
    pub lock_down: bool,
    /// Networks that the host is connected to stay in reach all the same.
    pub lan_access: bool,
    /// The daemon's own UDP ports.
    pub underlay_ports: BTreeSet<u16>,
}

impl Default for BehindSettings {
    fn default() -> Self {
        Self { masquerade: true, lock_down: false, lan_access: true, underlay_ports: BTreeSet::new() }
    }
}

/// The host's own networks.
#[derive(Clone, Debug, Default)]
pub struct HostNetworks {
    interfaces: Vec<Interface>,
    addresses: Vec<InterfaceAddress>,
    routes: Vec<Route>,
    /// The index of our interface.
    device: Option<u32>,
    /// The interface of another daemon by which everything goes, whatever this one's table says.
    exit: Option<u32>,
}

impl HostNetworks {
    /// Reads them, for a daemon with this interface and this slot: whose slot comes first is asked first.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn read(network: &mut Network, device: Option<u32>, slot: Option<Slot>) -> Result<Self, NetworkError> {
        let mut routes = network.routes()?;
        let is_asked_first = |route: &Route| slot.is_some_and(|own| Slot::of(route.table).is_some_and(|it| it < own));
        let exit = routes.iter().find(|route| route.prefix_len == 0 && is_asked_first(route));
        let exit = exit.and_then(|route| route.interface);
        routes.retain(|route| route.table == MAIN_TABLE);
        Ok(Self { interfaces: network.interfaces()?, addresses: network.addresses()?, routes, device, exit })
    }

    fn name(&self, index: u32) -> Option<DeviceName> {
        self.interfaces.iter().find(|interface| interface.index == index)?.name.parse().ok()
    }

    /// The interfaces by which a subnet is reached: that of the way to all of it, and those of ways to parts of it. For everywhere, the first alone.
    fn towards(&self, subnet: Prefix) -> BTreeSet<DeviceName> {
        let ways = self.routes.iter().filter(|route| route.interface != self.device);
        let ways =
            ways.filter_map(|route| Some((Prefix::new(route.destination, route.prefix_len).ok()?, route.interface?)));
        let (mut parts, mut whole) = (BTreeSet::new(), BTreeSet::new());
        let mut longest = 0;
        for (way, interface) in ways {
            if way.contains(subnet.address()) && way.bits() <= subnet.bits() {
                if way.bits() > longest {
                    (longest, whole) = (way.bits(), BTreeSet::new());
                }
                whole.extend((way.bits() == longest).then_some(interface));
            } else if subnet.bits() > 0 && subnet.contains(way.address()) {
                parts.insert(interface);
            }
        }
        whole.union(&parts).filter_map(|index| self.name(*index)).collect()
    }

    fn view(&self) -> HostView {
        let gateways = self.routes.iter().filter(|route| route.prefix_len == 0).filter_map(|route| route.gateway);
        HostView { gateways: gateways.collect(), ..HostView::of(&self.interfaces, &self.addresses, self.device) }
    }

    /// What the host is connected to, link-local prefixes too.
    fn connected(&self) -> BTreeSet<Prefix> {
        let foreign = self.addresses.iter().filter(|it| Some(it.interface) != self.device && !it.address.is_loopback());
        foreign.filter_map(|it| Prefix::new(it.address, it.prefix_len).ok()).filter(|it| !it.is_host()).collect()
    }

    /// The private networks among them. Whoever answers DHCP or advertises a router says what this host is connected to: half the internet,
    /// perhaps, which would then leave beside the exit (CVE-2023-36672).
    fn lan(&self) -> BTreeSet<Prefix> {
        let ranges: Vec<Prefix> = PRIVATE.iter().map(|range| range.parse().expect("a prefix")).collect();
        let is_private =
            |it: &Prefix| ranges.iter().any(|range| range.contains(it.address()) && range.bits() <= it.bits());
        self.connected().into_iter().filter(is_private).collect()
    }

    /// What of a subnet is the host's own: connected networks, and gateways.
    fn own_within(&self, subnet: Prefix) -> Vec<Prefix> {
        let gateways = self.view().gateways.into_iter().map(Prefix::host);
        self.connected().into_iter().chain(gateways).filter(|own| own.overlaps(subnet)).collect()
    }
}

/// Adds to a plan, which has the overlay's own subnets, what follows from all this. Returns what is not done, and why.
pub fn extend(plan: &mut HostPlan, behind: &Behind, settings: &BehindSettings, host: &HostNetworks) -> Vec<String> {
    let mut problems = lead(plan, behind, settings, host);
    problems.extend(pass_on(plan, behind, settings, host));
    problems
}

/// Leads what is accepted into the tunnel.
fn lead(plan: &mut HostPlan, behind: &Behind, settings: &BehindSettings, host: &HostNetworks) -> Vec<String> {
    let (view, mut problems) = (host.view(), Vec::new());
    for prefix in behind.accepted.iter().filter(|prefix| prefix.bits() > 0) {
        let is_forced = behind.forced.contains(prefix);
        let speaks_against =
            |conflict: &RouteConflict| !(conflict.is_warning() || is_forced && conflict.can_be_forced());
        match route_conflicts(*prefix, &view).into_iter().find(speaks_against) {
            None => drop(plan.routed.insert(*prefix)),
            Some(conflict) => {
                let remedy = if conflict.can_be_forced() {
                    "`p2plus accept --force` takes it all the same; or show it as another one: `p2plus advertise --map`"
                } else {
                    "show it as another one: `p2plus advertise --map`"
                };
                // What the user wants in the tunnel does not leave in clear because a network here has a part of it.
                plan.refused.extend(prefix.without(&host.own_within(*prefix)));
                problems.push(format!("no route to {prefix}: {conflict}; the rest of it leads nowhere ({remedy})"));
            }
        }
    }
    if behind.wants_exit {
        let everywhere = EVERYWHERE.into_iter().filter_map(|address| Prefix::new(address, 0).ok());
        match host.exit {
            None => plan.routed.extend(everywhere),
            // Each would carry the other's datagrams, and those again the other's, without an end.
            Some(other) => {
                let name = host.name(other).map_or_else(|| format!("interface {other}"), |name| name.to_string());
                problems.push(format!(
                    "no exit node: {name}, another network's, is the way to everywhere already (`p2plus exit-node off` there)"
                ));
            }
        }
        if settings.lan_access {
            plan.spared.extend(host.lan().difference(&plan.routed));
        }
        plan.filter.carries_default = true;
        plan.filter.lock_down = settings.lock_down.then(|| LockDown { lan: plan.spared.clone() });
        plan.sysctls.insert(Sysctl::Ipv4SourceHeedsMark, 1);
    }
    plan.filter.underlay_ports.clone_from(&settings.underlay_ports);
    problems
}

/// Lets through what others send by this node.
fn pass_on(plan: &mut HostPlan, behind: &Behind, settings: &BehindSettings, host: &HostNetworks) -> Vec<String> {
    let everywhere =
        EVERYWHERE.into_iter().filter(|_| behind.is_exit).filter_map(|address| Prefix::new(address, 0).ok());
    let targets: Vec<_> = behind.own.iter().map(|subnet| subnet.local).chain(everywhere).collect();
    let sources: Vec<_> = plan.routed.iter().copied().filter(|prefix| prefix.bits() > 0).collect();
    for to in &targets {
        let interfaces = host.towards(*to);
        for interface in &interfaces {
            forward(plan, *to, interface.clone());
        }
        plan.filter.forwards = true;
        plan.filter.is_exit |= to.bits() == 0;
        // Who is on the way to everywhere answers; it begins nothing.
        plan.filter.advertised.extend(interfaces.into_iter().filter(|_| to.bits() > 0));
        if settings.masquerade {
            let same_version = sources.iter().filter(|from| from.address().is_ipv4() == to.address().is_ipv4());
            plan.filter.masquerade.extend(same_version.map(|from| Masquerade { from: *from, to: *to }));
        }
    }
    if !targets.is_empty()
        && let Some(device) = host.device.and_then(|index| host.name(index))
    {
        targets.iter().for_each(|to| forward(plan, *to, device.clone()));
    }
    map(plan, &behind.own)
}

/// Shows subnets as others. Of two that overlap, in what is shown or in what is there, the first is: both ways an address has one meaning.
fn map(plan: &mut HostPlan, own: &[Subnet]) -> Vec<String> {
    let mut problems = Vec::new();
    for subnet in own.iter().filter(|subnet| subnet.prefix != subnet.local) {
        let (shown, local) = (subnet.prefix, subnet.local);
        let overlaps = |(other, there): &(&Prefix, &Prefix)| other.overlaps(shown) || there.overlaps(local);
        match plan.filter.mapped.iter().find(overlaps) {
            None => drop(plan.filter.mapped.insert(shown, local)),
            Some((other, there)) => {
                problems
                    .push(format!("{local} is not shown as {shown}: it overlaps {there}, which is shown as {other}"));
                plan.filter.unmapped.insert(shown);
            }
        }
    }
    problems
}

/// Lets the kernel pass on what comes by an interface.
fn forward(plan: &mut HostPlan, to: Prefix, interface: DeviceName) {
    if to.address().is_ipv4() {
        plan.sysctls.insert(Sysctl::Ipv4Forwarding(interface), 1);
    } else {
        let every = EVERY_INTERFACE.parse().expect("a plain name");
        plan.sysctls.insert(Sysctl::Ipv6Forwarding(every), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    /// A host with eth0 192.168.1.5/24 and the default route by it, eth1 10.9.0.1/16, and the overlay's interface.
    fn host() -> HostNetworks {
        let interface = |index, name: &str| Interface {
            index,
            name: name.to_owned(),
            is_up: true,
            is_on: true,
            is_loopback: false,
            is_tunnel: index == 7,
            mtu: 1500,
            queue_len: 1000,
            controller: None,
            is_bridge: false,
        };
        let address = |interface, address: [u8; 4], prefix_len| InterfaceAddress {
            interface,
            address: address.into(),
            prefix_len,
            is_global: true,
            is_usable: true,
        };
        let route = |destination: [u8; 4], prefix_len, gateway: Option<[u8; 4]>, interface| Route {
            destination: destination.into(),
            prefix_len,
            gateway: gateway.map(Into::into),
            interface: Some(interface),
            table: MAIN_TABLE,
            metric: 0,
        };
        HostNetworks {
            interfaces: vec![interface(2, "eth0"), interface(3, "eth1"), interface(7, "p2p-lab")],
            addresses: vec![
                address(2, [192, 168, 1, 5], 24),
                address(3, [10, 9, 0, 1], 16),
                address(7, [10, 77, 0, 2], 24),
            ],
            routes: vec![
                route([0, 0, 0, 0], 0, Some([192, 168, 1, 1]), 2),
                route([192, 168, 1, 0], 24, None, 2),
                route([10, 9, 0, 0], 16, None, 3),
                route([172, 16, 5, 0], 24, Some([10, 9, 0, 9]), 3),
            ],
            device: Some(7),
            exit: None,
        }
    }

    fn plan(behind: &Behind, settings: &BehindSettings) -> (HostPlan, Vec<String>) {
        let mut plan = HostPlan { routed: [prefix("10.77.0.0/24")].into(), ..HostPlan::default() };
        let problems = extend(&mut plan, behind, settings, &host());
        (plan, problems)
    }

    fn names(set: &BTreeSet<DeviceName>) -> Vec<&str> {
        set.iter().map(DeviceName::as_str).collect()
    }

    #[test]
    fn a_subnet_that_covers_a_network_of_the_host_is_told_and_not_led_away_unless_forced() {
        let accepted = ["172.20.1.0/24", "192.168.1.0/24", "192.168.0.0/16", "10.9.3.0/24"].map(prefix);
        let behind = Behind { accepted: accepted.into(), ..Behind::default() };
        let (calm, problems) = plan(&behind, &BehindSettings::default());
        assert_eq!(calm.routed, ["10.77.0.0/24", "172.20.1.0/24", "10.9.3.0/24"].map(prefix).into());
        assert_eq!(problems.len(), 2, "{problems:?}");
        // Of 192.168.0.0/16 all but the host's own 192.168.1.0/24 leads nowhere, and not out in clear.
        let refused = |address: &str| calm.refused.iter().any(|prefix| prefix.contains(address.parse().unwrap()));
        assert!(refused("192.168.0.1") && refused("192.168.2.1") && refused("192.168.255.1"));
        assert!(!refused("192.168.1.7") && !refused("192.169.0.1"));
        assert!(
            problems[0].contains("192.168.0.0/16") && problems[0].contains("eth0") && problems[0].contains("--force")
        );
        let forced = Behind { forced: [prefix("192.168.1.0/24")].into(), ..behind };
        let (led, problems) = plan(&forced, &BehindSettings::default());
        assert!(led.routed.contains(&prefix("192.168.1.0/24")) && problems.len() == 1);
        assert!(led.sysctls.is_empty() && led.filter.masquerade.is_empty(), "this node passes nothing on");
    }

    #[test]
    fn an_exit_takes_everything_but_what_the_host_is_connected_to() {
        let behind = Behind { wants_exit: true, ..Behind::default() };
        let (plan_, _) = plan(&behind, &BehindSettings::default());
        assert!(plan_.routed.contains(&prefix("0.0.0.0/0")) && plan_.routed.contains(&prefix("::/0")));
        assert_eq!(plan_.spared, ["192.168.1.0/24", "10.9.0.0/16"].map(prefix).into());
        assert!(plan_.filter.carries_default && plan_.filter.lock_down.is_none());
        assert_eq!(plan_.sysctls.get(&Sysctl::Ipv4SourceHeedsMark), Some(&1));
        let strict = BehindSettings { lock_down: true, lan_access: false, ..BehindSettings::default() };
        let (plan_, _) = plan(&behind, &strict);
        assert_eq!((plan_.spared.len(), plan_.filter.lock_down), (0, Some(LockDown::default())));
    }

    #[test]
    fn a_network_that_is_nobody_s_own_is_no_lan_whatever_dhcp_says() {
        let mut networks = host();
        let connect = |networks: &mut HostNetworks, address: &str, prefix_len| {
            let address =
                InterfaceAddress { address: address.parse().unwrap(), prefix_len, ..networks.addresses[0].clone() };
            networks.addresses.push(address);
        };
        for (address, len) in [
            ("128.0.5.5", 1),
            ("203.0.113.9", 24),
            ("2001:db8::9", 64),
            ("fe80::9", 64),
            ("fd07::9", 64),
            ("8.1.2.3", 5),
        ] {
            connect(&mut networks, address, len);
        }
        let mut plan = HostPlan { routed: [prefix("10.77.0.0/24")].into(), ..HostPlan::default() };
        let settings = BehindSettings { lock_down: true, ..BehindSettings::default() };
        extend(&mut plan, &Behind { wants_exit: true, ..Behind::default() }, &settings, &networks);
        let lan: BTreeSet<_> = ["192.168.1.0/24", "10.9.0.0/16", "fe80::/64", "fd07::/64"].map(prefix).into();
        assert_eq!((&plan.spared, plan.filter.lock_down), (&lan, Some(LockDown { lan: lan.clone() })));
    }

    #[test]
    fn subnets_whose_mappings_overlap_are_not_mapped_but_for_the_first() {
        let subnet = |shown: &str, local: &str| Subnet { prefix: prefix(shown), local: prefix(local) };
        let own = vec![
            subnet("172.20.1.0/24", "192.168.1.0/24"),
            subnet("172.21.1.0/24", "192.168.1.0/24"),
            subnet("172.20.1.128/25", "192.168.2.0/25"),
            subnet("172.22.0.0/16", "192.168.0.0/16"),
            subnet("172.23.3.0/24", "192.168.3.0/24"),
        ];
        let (plan, problems) = plan(&Behind { own, ..Behind::default() }, &BehindSettings::default());
        let shown: Vec<_> = plan.filter.mapped.keys().map(ToString::to_string).collect();
        assert_eq!(shown, ["172.20.1.0/24", "172.23.3.0/24"]);
        let unmapped: BTreeSet<_> = ["172.21.1.0/24", "172.20.1.128/25", "172.22.0.0/16"].map(prefix).into();
        assert_eq!((&plan.filter.unmapped, problems.len()), (&unmapped, 3), "{problems:?}");
    }

    #[test]
    fn an_exit_is_not_led_to_where_another_daemon_leads_everything_and_lock_down_holds_all_the_same() {
        let behind = Behind { wants_exit: true, ..Behind::default() };
        let mut plan = HostPlan { routed: [prefix("10.77.0.0/24")].into(), ..HostPlan::default() };
        let networks = HostNetworks { exit: Some(3), ..host() };
        let settings = BehindSettings { lock_down: true, ..BehindSettings::default() };
        let problems = extend(&mut plan, &behind, &settings, &networks);
        assert_eq!(plan.routed, [prefix("10.77.0.0/24")].into());
        assert!(plan.filter.lock_down.is_some());
        assert!(problems[0].contains("eth1, another network's, is the way to everywhere"), "{problems:?}");
    }

    #[test]
    fn own_subnets_are_passed_on_by_their_interfaces_and_an_exit_by_the_default_route_s() {
        let subnet = |shown: &str, local: &str| Subnet { prefix: prefix(shown), local: prefix(local) };
        let own = vec![subnet("172.16.5.0/24", "172.16.5.0/24"), subnet("172.20.1.0/24", "10.9.0.0/24")];
        let (routing, _) = plan(&Behind { own, ..Behind::default() }, &BehindSettings::default());
        assert_eq!(names(&routing.filter.advertised), ["eth1"]);
        assert_eq!(routing.filter.mapped, [(prefix("172.20.1.0/24"), prefix("10.9.0.0/24"))].into());
        let masquerade = |to: &str| Masquerade { from: prefix("10.77.0.0/24"), to: prefix(to) };
        assert_eq!(routing.filter.masquerade, ["172.16.5.0/24", "10.9.0.0/24"].map(masquerade).into());
        let forwards =
            |plan: &HostPlan, name: &str| plan.sysctls.get(&Sysctl::Ipv4Forwarding(name.parse().unwrap())) == Some(&1);
        assert!(forwards(&routing, "eth1") && forwards(&routing, "p2p-lab") && !forwards(&routing, "eth0"));
        let exit = Behind { is_exit: true, ..Behind::default() };
        let (exit, _) = plan(&exit, &BehindSettings { masquerade: false, ..BehindSettings::default() });
        assert_eq!(
            (names(&exit.filter.advertised), exit.filter.masquerade.len()),
            (vec![], 0),
            "its uplink begins nothing"
        );
        assert!(exit.filter.forwards);
        assert!(forwards(&exit, "eth0"));
    }
}
