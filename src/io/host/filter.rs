//! The ruleset of a network, as text for nft: from values to words, nothing of the host is asked.
//!
//! ```text
//!   prerouting   to our overlay addresses, not by our device, lo or a trusted interface      drop
//!   forward      to our device: from an advertised or trusted interface, replies             pass, MSS clamped; the rest: drop
//!                to an overlay prefix by anything but our device                             drop
//!   output       to an overlay prefix by anything but our device or lo                       drop
//!                locked down: by anything but our device, lo, our own datagrams, DHCP, LAN   drop
//!   nat          a mapped subnet 1:1; masquerade for who goes out here, never onto our port
//! ```
//! All of it is one table of family inet. Source: nft(8), RFC 1122 §3.3.4.2 (weak host), RFC 879 and RFC 6691 (MSS).

use super::Slot;
use crate::io::device_name::DeviceName;
use crate::wire::name::NetworkName;
use crate::wire::prefix::Prefix;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Pairs of hosts whose replies pass at a time, and how long a silent pair is remembered: as long as TCP keeps a connection before it asks.
const REPLIES_MAX: usize = 65_536;
const REPLIES_KEPT: &str = "2h";
/// Ports that a masqueraded flow may get.
const NAT_PORTS: RangeInclusive<u16> = 1024..=u16::MAX;

/// What the ruleset is for, besides protecting the overlay.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FilterPlan {
    /// The interfaces by which others may reach the overlay and this host's overlay addresses, as configured.
    pub forward_from: BTreeSet<DeviceName>,
    /// The interfaces of advertised subnets: who is there may begin flows to the overlay.
    pub advertised: BTreeSet<DeviceName>,
    /// Who goes out here under an address of this host.
    pub masquerade: BTreeSet<Masquerade>,
    /// Something is passed on for others.
    pub forwards: bool,
    /// To everywhere, too: the kernel keeps track of flows then, and nothing but their replies comes back.
    pub is_exit: bool,
    /// Subnets under other addresses, of the same length: what the overlay says, and what they have.
    pub mapped: BTreeMap<Prefix, Prefix>,
    /// What the overlay says of subnets that cannot be mapped: nothing there is passed on.
    pub unmapped: BTreeSet<Prefix>,
    /// Nothing leaves but by the overlay.
    pub lock_down: Option<LockDown>,
    /// The device carries the default route: datagrams that come for our ports are marked, so that a strict check of where they come from
    /// passes them ([`Sysctl::Ipv4SourceHeedsMark`](super::Sysctl::Ipv4SourceHeedsMark)).
    pub carries_default: bool,
    /// Our own UDP ports.
    pub underlay_ports: BTreeSet<u16>,
}

impl FilterPlan {
    /// Says whether this host passes packets on for others.
    pub(super) fn passes_on(&self) -> bool {
        self.forwards || !self.forward_from.is_empty()
    }

    /// Says whether packets change their addresses here.
    fn has_nat(&self) -> bool {
        !self.mapped.is_empty() || !self.masquerade.is_empty()
    }

    /// Says whether the kernel keeps track of flows.
    fn is_tracked(&self) -> bool {
        self.has_nat() || self.is_exit
    }
}

/// Packets that leave under an address of this host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Masquerade {
    /// Whence.
    pub from: Prefix,
    /// Where to, of the same version of IP.
    pub to: Prefix,
}

/// What may leave beside the overlay.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LockDown {
    /// Connected networks that stay in reach.
    pub lan: BTreeSet<Prefix>,
}

/// What a ruleset is made of.
pub struct RulesetInput<'a> {
    /// The network.
    pub network: &'a NetworkName,
    /// The interface.
    pub device: &'a DeviceName,
    /// The daemon's slot.
    pub slot: Slot,
    /// This host's overlay addresses.
    pub own: &'a BTreeSet<IpAddr>,
    /// Where packets leave by the device alone.
    pub guarded: &'a BTreeSet<Prefix>,
    /// What the kernel passes on because of this program alone.
    pub opened: &'a Opened,
    /// The rest.
    pub plan: &'a FilterPlan,
}

/// Where the kernel passes packets on because this program switched that on, and did not before: only what comes from the overlay or goes
/// there is meant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Opened {
    /// IPv4, of what comes by these interfaces.
    pub ipv4: BTreeSet<DeviceName>,
    /// IPv6, which knows one switch for all interfaces.
    pub ipv6: bool,
}

/// The name of a network's table.
pub fn table_name(network: &NetworkName) -> String {
    format!("p2plus-{network}")
}

/// Words that remove the table, whether or not there is one. Before the table's own words they replace it in one transaction.
pub fn removal(network: &NetworkName) -> String {
    let table = table_name(network);
    format!("table inet {table}\ndelete table inet {table}\n")
}

/// The whole ruleset, which replaces the one before.
pub fn ruleset(input: &RulesetInput<'_>) -> String {
    let mut out = removal(input.network);
    line(&mut out, format_args!("table inet {} {{", table_name(input.network)));
    sets(&mut out, input);
    prerouting(&mut out, input);
    forward(&mut out, input);
    output(&mut out, input);
    if input.plan.has_nat() {
        nat(&mut out, input);
    }
    out.push_str("}\n");
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string does not fail");
    out.push('\n');
}

/// The words for a version of IP: of its packets, and of the type of its addresses.
const FAMILIES: [(&str, &str); 2] = [("ip", "ipv4_addr"), ("ip6", "ipv6_addr")];

fn is_of(family: &str, address: IpAddr) -> bool {
    address.is_ipv4() == (family == "ip")
}

fn joined(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// Interface names as an anonymous set.
fn names<'n>(names: impl IntoIterator<Item = &'n DeviceName>) -> String {
    let quoted: BTreeSet<_> = names.into_iter().map(|name| format!("\"{name}\"")).collect();
    format!("{{ {} }}", joined(quoted))
}

fn sets(out: &mut String, input: &RulesetInput<'_>) {
    for (family, kind) in FAMILIES {
        let own = joined(input.own.iter().filter(|address| is_of(family, **address)));
        set(out, &format!("own_{family}"), kind, "", &own);
        // The default route is no prefix to guard: what is not the overlay's leaves as it did, unless locked down.
        let guarded = input.guarded.iter().filter(|prefix| is_of(family, prefix.address()) && prefix.bits() > 0);
        set(out, &format!("overlay_{family}"), kind, "flags interval; auto-merge; ", &joined(guarded));
        if !input.plan.is_tracked() {
            let flags = format!("size {REPLIES_MAX}; flags dynamic, timeout; timeout {REPLIES_KEPT}; ");
            set(out, &format!("replies_{family}"), &format!("{kind} . {kind}"), &flags, "");
        }
    }
}

fn set(out: &mut String, name: &str, kind: &str, flags: &str, elements: &str) {
    let elements = if elements.is_empty() { String::new() } else { format!("elements = {{ {elements} }} ") };
    line(out, format_args!("  set {name} {{ type {kind}; {flags}{elements}}}"));
}

fn prerouting(out: &mut String, input: &RulesetInput<'_>) {
    let lo = loopback();
    let trusted = names([input.device, &lo].into_iter().chain(&input.plan.forward_from));
    line(out, format_args!("  chain prerouting {{ type filter hook prerouting priority raw; policy accept;"));
    for (family, _) in FAMILIES {
        line(out, format_args!("    iifname != {trusted} {family} daddr @own_{family} counter drop"));
    }
    if input.plan.carries_default && !input.plan.underlay_ports.is_empty() {
        let (ports, mark) = (joined(&input.plan.underlay_ports), input.slot.mark());
        // Not what is passed on: it would leave beside the overlay.
        let local = format!("iifname != \"{}\" fib daddr type local", input.device);
        line(out, format_args!("    {local} udp dport {{ {ports} }} meta mark set {mark:#x}"));
    }
    out.push_str("  }\n");
}

fn forward(out: &mut String, input: &RulesetInput<'_>) {
    let (device, plan) = (input.device, input.plan);
    line(out, format_args!("  chain forward {{ type filter hook forward priority filter; policy accept;"));
    for (family, _) in FAMILIES {
        line(out, format_args!("    oifname != \"{device}\" {family} daddr @overlay_{family} counter drop"));
        if !plan.is_tracked() {
            let pair = format!("{{ {family} daddr . {family} saddr }}");
            line(out, format_args!("    iifname \"{device}\" update @replies_{family} {pair}"));
        }
    }
    unmapped(out, input);
    passing_by(out, input);
    line(out, format_args!("    oifname != \"{device}\" accept"));
    line(out, format_args!("    tcp flags syn tcp option maxseg size set rt mtu"));
    replies(out, plan.is_tracked());
    let from = names(plan.forward_from.iter().chain(&plan.advertised));
    if !plan.forward_from.is_empty() || !plan.advertised.is_empty() {
        line(out, format_args!("    iifname {from} accept"));
    }
    out.push_str("    counter drop\n  }\n");
}

/// Stops what would go on to addresses that mean nothing here, and so by the host's default route.
fn unmapped(out: &mut String, input: &RulesetInput<'_>) {
    for (family, _) in FAMILIES {
        let shown = joined(input.plan.unmapped.iter().filter(|prefix| is_of(family, prefix.address())));
        if !shown.is_empty() {
            line(out, format_args!("    iifname \"{}\" {family} daddr {{ {shown} }} counter drop", input.device));
        }
    }
}

/// Stops what neither comes from the overlay nor goes there: all of it when locked down, but for the networks that stay in reach; else
/// what nothing but this program made the kernel pass on.
fn passing_by(out: &mut String, input: &RulesetInput<'_>) {
    let RulesetInput { device, opened, plan, .. } = input;
    if let Some(lock_down) = &plan.lock_down {
        let beside = format!("iifname != \"{device}\" oifname != \"{device}\"");
        for (family, version) in [("ip", "ipv4"), ("ip6", "ipv6")] {
            let lan = joined(lock_down.lan.iter().filter(|prefix| is_of(family, prefix.address())));
            let what = if lan.is_empty() {
                format!("meta nfproto {version}")
            } else {
                format!("{family} daddr != {{ {lan} }}")
            };
            line(out, format_args!("    {beside} {what} counter drop"));
        }
    }
    let trusted = names([*device].into_iter().chain(&plan.forward_from));
    let by: BTreeSet<_> = opened.ipv4.iter().filter(|it| it != device && !plan.forward_from.contains(it)).collect();
    if !by.is_empty() {
        line(out, format_args!("    meta nfproto ipv4 iifname {} oifname != {trusted} counter drop", names(by)));
    }
    if opened.ipv6 {
        line(out, format_args!("    meta nfproto ipv6 iifname != {trusted} oifname != {trusted} counter drop"));
    }
}

/// Lets replies into the overlay: also where another program, such as Docker, passes a member's packets on to a container. The kernel is asked
/// for a flow's state only where it keeps track of flows for us anyway: one such rule makes it track all flows of the host, our own datagrams
/// among them. Otherwise pairs of hosts are remembered here.
fn replies(out: &mut String, is_tracked: bool) {
    if is_tracked {
        out.push_str("    ct state established,related accept\n");
        return;
    }
    for (family, _) in FAMILIES {
        let pair = format!("{family} saddr . {family} daddr");
        line(out, format_args!("    {pair} @replies_{family} update @replies_{family} {{ {pair} }} accept"));
    }
}

fn output(out: &mut String, input: &RulesetInput<'_>) {
    let lo = loopback();
    let inside = names([input.device, &lo]);
    line(out, format_args!("  chain output {{ type filter hook output priority filter; policy accept;"));
    line(out, format_args!("    oifname {inside} accept"));
    for (family, _) in FAMILIES {
        line(out, format_args!("    {family} daddr @overlay_{family} counter drop"));
    }
    if let Some(lock_down) = &input.plan.lock_down {
        lock_down_rules(out, input.slot, lock_down);
    }
    out.push_str("  }\n");
}

fn lock_down_rules(out: &mut String, slot: Slot, lock_down: &LockDown) {
    line(out, format_args!("    meta mark & {:#x} == {:#x} accept", Slot::mask(), slot.mark()));
    // An address of its own, and its neighbours': without them there is no link to tunnel through.
    out.push_str("    udp sport 68 udp dport 67 accept\n    udp sport 546 udp dport 547 accept\n");
    out.push_str(
        "    icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept\n",
    );
    for (family, _) in FAMILIES {
        let lan = joined(lock_down.lan.iter().filter(|prefix| is_of(family, prefix.address())));
        if !lan.is_empty() {
            line(out, format_args!("    {family} daddr {{ {lan} }} accept"));
        }
    }
    out.push_str("    counter drop\n");
}

fn nat(out: &mut String, input: &RulesetInput<'_>) {
    let (device, plan) = (input.device, input.plan);
    let of = |family: &'static str| plan.mapped.iter().filter(move |(shown, _)| is_of(family, shown.address()));
    line(out, format_args!("  chain nat_in {{ type nat hook prerouting priority dstnat; policy accept;"));
    for (family, _) in FAMILIES {
        let map = joined(of(family).map(|(shown, real)| format!("{shown} : {real}")));
        if !map.is_empty() {
            let head = format!("iifname \"{device}\" dnat {family} prefix to {family}");
            line(out, format_args!("    {head} daddr map {{ {map} }}"));
        }
    }
    out.push_str("  }\n");
    line(out, format_args!("  chain nat_out {{ type nat hook postrouting priority srcnat; policy accept;"));
    for (family, _) in FAMILIES {
        let map = joined(of(family).map(|(shown, real)| format!("{real} : {shown}")));
        if !map.is_empty() {
            let head = format!("oifname \"{device}\" snat {family} prefix to {family}");
            line(out, format_args!("    {head} saddr map {{ {map} }}"));
        }
    }
    let lo = loopback();
    let outside = format!("oifname != {}", names([device, &lo]));
    for Masquerade { from, to } in &plan.masquerade {
        let family = if from.address().is_ipv4() { "ip" } else { "ip6" };
        let head = format!("{outside} {family} saddr {from} {family} daddr {to}");
        let ports = nat_ports(&plan.underlay_ports);
        line(out, format_args!("    {head} meta l4proto udp masquerade to :{}-{}", ports.start(), ports.end()));
        line(out, format_args!("    {head} masquerade"));
    }
    out.push_str("  }\n");
}

/// The widest range of ports without any of our own: a flow that got one would receive what our peers send us.
fn nat_ports(taken: &BTreeSet<u16>) -> RangeInclusive<u16> {
    let mut begin = *NAT_PORTS.start();
    let mut ranges = Vec::new();
    for port in taken.iter().copied().filter(|port| NAT_PORTS.contains(port)) {
        ranges.push(begin..=port - 1);
        begin = port.saturating_add(1);
    }
    if !taken.contains(NAT_PORTS.end()) {
        ranges.push(begin..=*NAT_PORTS.end());
    }
    ranges.into_iter().max_by_key(ExactSizeIterator::len).expect("there is one before a port of ours, or all are free")
}

fn loopback() -> DeviceName {
    "lo".parse().expect("lo is a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> BTreeSet<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn devices(texts: &[&str]) -> BTreeSet<DeviceName> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// This program made the kernel pass on what comes by two LANs, and all IPv6.
    fn opened() -> Opened {
        Opened { ipv4: devices(&["lan0", "docker0", "p2p-lab"]), ipv6: true }
    }

    /// What stops what passes by for no other reason.
    const PASSING_BY: [&str; 2] = [
        r#"meta nfproto ipv4 iifname { "docker0", "lan0" } oifname != { "p2p-lab" } counter drop"#,
        r#"meta nfproto ipv6 iifname != { "p2p-lab" } oifname != { "p2p-lab" } counter drop"#,
    ];

    /// The lines of a chain or set of the ruleset for a plan, without their indentation.
    fn lines_of(part: &str, plan: &FilterPlan) -> Vec<String> {
        let text = ruleset(&RulesetInput {
            network: &"lab".parse().unwrap(),
            device: &"p2p-lab".parse().unwrap(),
            slot: Slot::try_from(3).unwrap(),
            own: &["10.77.0.1", "fd00::1"].map(|text| text.parse().unwrap()).into(),
            guarded: &prefixes(&["10.77.0.0/24", "fd00::/64", "0.0.0.0/0"]),
            opened: &opened(),
            plan,
        });
        assert!(text.starts_with("table inet p2plus-lab\ndelete table inet p2plus-lab\ntable inet p2plus-lab {\n"));
        assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
        let lines = text.lines().skip_while(|line| !line.starts_with(&format!("  {part} {{")));
        let mut lines: Vec<_> = lines.take_while(|line| *line != "  }").map(|line| line.trim().to_owned()).collect();
        if part.starts_with("set") {
            lines.truncate(1);
        }
        lines
    }

    #[test]
    fn by_default_the_own_addresses_and_the_way_into_the_overlay_are_closed_to_others_and_nothing_else_is() {
        let plan = FilterPlan::default();
        assert_eq!(lines_of("set own_ip", &plan), ["set own_ip { type ipv4_addr; elements = { 10.77.0.1 } }"]);
        // A default route is no reason to stop what leaves beside the overlay.
        let overlay = "set overlay_ip { type ipv4_addr; flags interval; auto-merge; elements = { 10.77.0.0/24 } }";
        assert_eq!(lines_of("set overlay_ip", &plan), [overlay]);
        assert_eq!(
            lines_of("chain prerouting", &plan)[1..],
            [
                r#"iifname != { "lo", "p2p-lab" } ip daddr @own_ip counter drop"#,
                r#"iifname != { "lo", "p2p-lab" } ip6 daddr @own_ip6 counter drop"#,
            ]
        );
        assert_eq!(
            lines_of("chain forward", &plan)[1..],
            [
                r#"oifname != "p2p-lab" ip daddr @overlay_ip counter drop"#,
                r#"iifname "p2p-lab" update @replies_ip { ip daddr . ip saddr }"#,
                r#"oifname != "p2p-lab" ip6 daddr @overlay_ip6 counter drop"#,
                r#"iifname "p2p-lab" update @replies_ip6 { ip6 daddr . ip6 saddr }"#,
                PASSING_BY[0],
                PASSING_BY[1],
                r#"oifname != "p2p-lab" accept"#,
                "tcp flags syn tcp option maxseg size set rt mtu",
                "ip saddr . ip daddr @replies_ip update @replies_ip { ip saddr . ip daddr } accept",
                "ip6 saddr . ip6 daddr @replies_ip6 update @replies_ip6 { ip6 saddr . ip6 daddr } accept",
                "counter drop",
            ]
        );
        assert_eq!(
            lines_of("chain output", &plan)[1..],
            [
                r#"oifname { "lo", "p2p-lab" } accept"#,
                "ip daddr @overlay_ip counter drop",
                "ip6 daddr @overlay_ip6 counter drop",
            ]
        );
        assert_eq!(lines_of("chain nat_in", &plan), [""; 0]);
    }

    #[test]
    fn trusted_and_advertised_interfaces_lead_in_and_only_the_trusted_ones_to_the_own_addresses() {
        let plan =
            FilterPlan { forward_from: devices(&["docker0"]), advertised: devices(&["lan0"]), ..FilterPlan::default() };
        let prerouting = r#"iifname != { "docker0", "lo", "p2p-lab" } ip daddr @own_ip counter drop"#;
        assert!(lines_of("chain prerouting", &plan).contains(&prerouting.to_owned()));
        let forward = lines_of("chain forward", &plan);
        let [.., from, last] = &forward[..] else { panic!("{forward:?}") };
        assert_eq!((from.as_str(), last.as_str()), (r#"iifname { "docker0", "lan0" } accept"#, "counter drop"));
        // Who is trusted may go anywhere, as before.
        let trusted = r#"{ "docker0", "p2p-lab" }"#;
        let passing_by = [
            format!(r#"meta nfproto ipv4 iifname {{ "lan0" }} oifname != {trusted} counter drop"#),
            format!("meta nfproto ipv6 iifname != {trusted} oifname != {trusted} counter drop"),
        ];
        assert!(passing_by.iter().all(|line| forward.contains(line)), "{forward:?}");
    }

    #[test]
    fn what_cannot_be_mapped_is_passed_on_to_nobody() {
        let plan = FilterPlan { unmapped: prefixes(&["172.20.1.0/24"]), ..FilterPlan::default() };
        let stopped = r#"iifname "p2p-lab" ip daddr { 172.20.1.0/24 } counter drop"#.to_owned();
        assert!(lines_of("chain forward", &plan).contains(&stopped));
    }

    #[test]
    fn locked_down_only_the_tunnel_the_link_s_own_needs_and_the_allowed_lan_leave() {
        let lan = prefixes(&["192.168.1.0/24"]);
        let plan = FilterPlan { lock_down: Some(LockDown { lan }), ..FilterPlan::default() };
        assert_eq!(
            lines_of("chain output", &plan)[4..],
            [
                "meta mark & 0xff3f00 == 0x500300 accept",
                "udp sport 68 udp dport 67 accept",
                "udp sport 546 udp dport 547 accept",
                "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept",
                "ip daddr { 192.168.1.0/24 } accept",
                "counter drop",
            ]
        );
        let beside = r#"iifname != "p2p-lab" oifname != "p2p-lab""#;
        let forward = lines_of("chain forward", &plan);
        let at = |line: &str| forward.iter().position(|it| it == line).unwrap_or_else(|| panic!("{line}: {forward:?}"));
        let passes = at(r#"oifname != "p2p-lab" accept"#);
        assert!(at(&format!("{beside} ip daddr != {{ 192.168.1.0/24 }} counter drop")) < passes, "containers' packets");
        assert!(at(&format!("{beside} meta nfproto ipv6 counter drop")) < passes);
    }

    #[test]
    fn who_goes_out_here_gets_no_port_of_ours_and_mapped_subnets_are_mapped_both_ways() {
        let masquerade = Masquerade { from: "10.77.0.0/24".parse().unwrap(), to: "0.0.0.0/0".parse().unwrap() };
        let plan = FilterPlan {
            masquerade: [masquerade].into(),
            mapped: [("10.99.1.0/24".parse().unwrap(), "192.168.1.0/24".parse().unwrap())].into(),
            underlay_ports: [4647].into(),
            ..FilterPlan::default()
        };
        assert_eq!(
            lines_of("chain nat_in", &plan)[1..],
            [r#"iifname "p2p-lab" dnat ip prefix to ip daddr map { 10.99.1.0/24 : 192.168.1.0/24 }"#]
        );
        let forward = lines_of("chain forward", &plan);
        assert!(forward.contains(&"ct state established,related accept".to_owned()));
        assert!(forward.iter().all(|line| !line.contains("@replies")) && lines_of("set replies_ip", &plan).is_empty());
        let head = r#"oifname != { "lo", "p2p-lab" } ip saddr 10.77.0.0/24 ip daddr 0.0.0.0/0"#;
        assert_eq!(
            lines_of("chain nat_out", &plan)[1..],
            [
                r#"oifname "p2p-lab" snat ip prefix to ip saddr map { 192.168.1.0/24 : 10.99.1.0/24 }"#.to_owned(),
                format!("{head} meta l4proto udp masquerade to :4648-65535"),
                format!("{head} masquerade"),
            ]
        );
    }

    #[test]
    fn the_widest_range_without_our_ports_is_for_others() {
        let range = |taken: &[u16]| nat_ports(&taken.iter().copied().collect());
        assert_eq!(range(&[]), 1024..=65_535);
        assert_eq!(range(&[80]), 1024..=65_535);
        assert_eq!(range(&[60_000]), 1024..=59_999);
        assert_eq!(range(&[65_535]), 1024..=65_534);
        assert_eq!(range(&[1024]), 1025..=65_535);
        assert_eq!(range(&[4647, 4648, 40_000]), 4649..=39_999);
    }

    #[test]
    fn where_the_device_carries_the_default_route_what_comes_for_our_ports_is_marked() {
        let plan = FilterPlan { carries_default: true, underlay_ports: [4647].into(), ..FilterPlan::default() };
        let last = lines_of("chain prerouting", &plan).pop().unwrap();
        assert_eq!(last, r#"iifname != "p2p-lab" fib daddr type local udp dport { 4647 } meta mark set 0x500300"#);
    }
}
