//! Rules that choose a routing table, and the routes of a table of ours.
//!
//! ```text
//!   0      local                       addresses of this host
//!   5100+s all but our own datagrams ► table 52800+s:  routes to the device; behind them, "unreachable" for the same prefixes
//!   32766  main                        whatever DHCP, the operator and others put there
//! ```
//! Unlike what is set on an interface, all this stays when the process dies, but for the routes to the interface. Source: rtnetlink(7),
//! ip-rule(8).

use super::network::{Network, NetworkError, error, ip_of};
use crate::wire::prefix::Prefix;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteScope, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{RouteMessageBuilder, packet_route::route::RouteProtocol};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A version of IP; each has rules and tables of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    const fn address_family(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }

    const fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

/// A rule: packets without `mark` look into `table`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The version of IP.
    pub family: Family,
    /// Its place among the rules; lower ones are asked first.
    pub priority: u32,
    /// The mark of packets that it passes by.
    pub mark: u32,
    /// Which bits of the mark count.
    pub mask: u32,
    /// The table.
    pub table: u32,
}

/// What a route of a table of ours does with a packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// It leaves by the interface of this index.
    Device(u32),
    /// The rules behind ours decide.
    Throw,
    /// The sender is told that nobody is there.
    Unreachable,
}

/// A route of a table of ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TableRoute {
    /// The destination.
    pub prefix: Prefix,
    /// What becomes of packets there.
    pub verdict: Verdict,
}

/// The metric of routes that are in use, and of those behind them: the kernel takes the lowest of one prefix.
const METRIC: u32 = 1024;
const BACKSTOP_METRIC: u32 = u32::MAX;

impl TableRoute {
    const fn metric(self) -> u32 {
        match self.verdict {
            Verdict::Device(_) | Verdict::Throw => METRIC,
            Verdict::Unreachable => BACKSTOP_METRIC,
        }
    }
}

impl Network {
    /// Lists the rules of one priority, by family, with the table that they look into; 0 for those that do something else.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn rules_at(&mut self, priority: u32) -> Result<Vec<(Family, u32)>, NetworkError> {
        let mut found = Vec::new();
        for family in Family::ALL {
            let mut question = RuleMessage::default();
            question.header.family = family.address_family();
            let answers = match self.socket.dump(&RouteNetlinkMessage::GetRule(question)) {
                Err(source) if is_family_missing(&source) => continue,
                answers => answers.map_err(error("list the routing rules"))?,
            };
            let rules = answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRule(rule) => Some(rule),
                _ => None,
            });
            let at = rules.filter(|rule| rule.attributes.contains(&RuleAttribute::Priority(priority)));
            found.extend(at.map(|rule| (family, table_of_rule(rule))));
        }
        Ok(found)
    }

    /// Adds a rule. Returns whether it was added: not when there is the same one already. A version of IP that the kernel lacks needs none.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn add_rule(&mut self, rule: &Rule) -> Result<bool, NetworkError> {
        let message = RouteNetlinkMessage::NewRule(rule_message(rule));
        match self.socket.change(message, NLM_F_CREATE | NLM_F_EXCL) {
            Err(source) if source.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(source) if is_family_missing(&source) => Ok(true),
            outcome => {
                outcome.map(|()| true).map_err(|source| error(&format!("add the rule {}", rule.priority))(source))
            }
        }
    }

    /// Removes a rule; one that is gone already is fine. Returns whether there was one.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn remove_rule(&mut self, rule: &Rule) -> Result<bool, NetworkError> {
        match self.socket.change(RouteNetlinkMessage::DelRule(rule_message(rule)), 0) {
            Err(source) if source.raw_os_error() == Some(libc::ENOENT) || is_family_missing(&source) => Ok(false),
            outcome => {
                outcome.map(|()| true).map_err(|source| error(&format!("remove the rule {}", rule.priority))(source))
            }
        }
    }

    /// Lists the routes of a table of ours. What is none of [`Verdict`] does not count.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn table_routes(&mut self, table: u32) -> Result<Vec<TableRoute>, NetworkError> {
        let mut found = Vec::new();
        for family in Family::ALL {
            let answers = match self.socket.dump(&RouteNetlinkMessage::GetRoute(table_question(family, table))) {
                // A table that nobody has used yet does not exist.
                Err(source) if source.raw_os_error() == Some(libc::ENOENT) || is_family_missing(&source) => continue,
                answers => answers.map_err(error("list the routes"))?,
            };
            found.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) => table_route_of(family, table, route),
                _ => None,
            }));
        }
        Ok(found)
    }

    /// Adds a route to a table of ours; one that is there already is fine.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn add_table_route(&mut self, table: u32, route: &TableRoute) -> Result<(), NetworkError> {
        let message = RouteNetlinkMessage::NewRoute(table_route_message(table, route)?);
        match self.socket.change(message, NLM_F_CREATE | NLM_F_EXCL) {
            Err(source) if source.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            outcome => outcome.map_err(|source| error(&format!("add a route to {}", route.prefix))(source)),
        }
    }

    /// Removes a route from a table of ours; one that is gone already is fine.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn remove_table_route(&mut self, table: u32, route: &TableRoute) -> Result<(), NetworkError> {
        match self.socket.change(RouteNetlinkMessage::DelRoute(table_route_message(table, route)?), 0) {
            Err(source) if matches!(source.raw_os_error(), Some(libc::ESRCH | libc::ENODEV)) => Ok(()),
            outcome => outcome.map_err(|source| error(&format!("remove a route to {}", route.prefix))(source)),
        }
    }
}

/// Says whether the kernel has not this version of IP, or no rules for it.
fn is_family_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = rule.family.address_family();
    message.header.action = RuleAction::ToTable;
    message.header.flags = RuleFlags::Invert;
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::FwMark(rule.mark),
        RuleAttribute::FwMask(rule.mask),
        RuleAttribute::Table(rule.table),
    ];
    message
}

fn table_of_rule(rule: &RuleMessage) -> u32 {
    let table = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    });
    if rule.header.action == RuleAction::ToTable { table.unwrap_or_else(|| rule.header.table.into()) } else { 0 }
}

/// Asks for a table alone; a kernel that does not look at the question so closely (before Linux 4.20) lists all of them.
fn table_question(family: Family, table: u32) -> RouteMessage {
    let mut question = RouteMessage::default();
    question.header.address_family = family.address_family();
    question.attributes.push(RouteAttribute::Table(table));
    question
}

fn table_route_message(table: u32, route: &TableRoute) -> Result<RouteMessage, NetworkError> {
    let invalid = |invalid| error("make the route")(io::Error::new(io::ErrorKind::InvalidInput, invalid));
    let (kind, interface) = match route.verdict {
        Verdict::Device(interface) => (RouteType::Unicast, Some(interface)),
        Verdict::Throw => (RouteType::Throw, None),
        Verdict::Unreachable => (RouteType::Unreachable, None),
    };
    let is_link = interface.is_some() && route.prefix.address().is_ipv4();
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.prefix.address(), route.prefix.bits())
        .map_err(invalid)?
        .table_id(table)
        .protocol(RouteProtocol::Static)
        .kind(kind)
        .scope(if is_link { RouteScope::Link } else { RouteScope::Universe })
        .priority(route.metric());
    if let Some(interface) = interface {
        builder = builder.output_interface(interface);
    }
    Ok(builder.build())
}

/// Reads a route of `table`; `None` for those of other tables, and for those that are none of ours.
fn table_route_of(family: Family, table: u32, message: &RouteMessage) -> Option<TableRoute> {
    let (mut address, mut interface, mut metric) = (family.unspecified(), None, 0);
    let mut in_table = u32::from(message.header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(destination) => address = ip_of(destination)?,
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Table(number) => in_table = *number,
            RouteAttribute::Priority(number) => metric = *number,
            _ => {}
        }
    }
    let verdict = match message.header.kind {
        RouteType::Unicast => Verdict::Device(interface?),
        RouteType::Throw => Verdict::Throw,
        RouteType::Unreachable => Verdict::Unreachable,
        _ => return None,
    };
    let route = TableRoute { prefix: Prefix::new(address, message.header.destination_prefix_length).ok()?, verdict };
    (in_table == table && metric == route.metric()).then_some(route)
}
