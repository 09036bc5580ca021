//! One rule of a network: who may reach whom, by which protocol, at which ports.
//!
//! A rule speaks of whoever begins a conversation and of whom it is begun with; what answers it passes with it. Owns the one form in which
//! a rule is stored and typed. Refuses to know who is a member and what a packet looks like.

use crate::crypto::identity::NodeId;
use crate::wire::name::NodeName;
use crate::wire::prefix::Prefix;
use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use std::io;

/// The most port ranges of a rule.
pub const MAX_PORT_RANGES: usize = 16;

/// ICMP's protocol number (RFC 792).
const ICMP: u8 = 1;
/// TCP's protocol number (RFC 9293).
const TCP: u8 = 6;
/// UDP's protocol number (RFC 768).
const UDP: u8 = 17;
/// ICMPv6's protocol number (RFC 4443).
const ICMPV6: u8 = 58;

/// What a rule says of the conversations that it covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub enum Action {
    /// They may begin, unless another rule denies it.
    Allow,
    /// They may not, whatever else is allowed.
    Deny,
}

/// One end of the conversations that a rule covers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub enum Selector {
    /// Everybody, beyond the overlay too.
    Any,
    /// A member, at its overlay addresses; not what lies behind it.
    Member(NodeId),
    /// The members with a tag, likewise.
    Tag(NodeName),
    /// The addresses of a prefix, whoever has them.
    Prefix(Prefix),
}

/// Which protocols a rule covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub enum Protocol {
    /// All of them; with ports, those that have some: TCP and UDP.
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP in IPv4, ICMPv6 in IPv6.
    Icmp,
}

/// Ports from a first to a last one, both included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// The destination ports of a rule: every port when there is no range; else ranges in rising order with a gap between each two.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, BorshSerialize)]
pub struct Ports(Vec<PortRange>);

/// What a network allows or denies.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize)]
pub struct Rule {
    action: Action,
    source: Selector,
    destination: Selector,
    protocol: Protocol,
    ports: Ports,
}

/// Why something is no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// A range of ports that is none.
    #[error("a range of ports is FIRST-LAST with 1 ≤ FIRST ≤ LAST ≤ 65535")]
    PortRange,
    /// More than [`MAX_PORT_RANGES`].
    #[error("a rule has at most {MAX_PORT_RANGES} ranges of ports")]
    TooManyPorts,
    /// Ports of a protocol that has none.
    #[error("ICMP has no ports")]
    PortsOfIcmp,
}

impl PortRange {
    /// Makes the range from `first` to `last`.
    ///
    /// # Errors
    /// [`BadRule::PortRange`] when it would be empty, or hold port 0, which is nobody's.
    pub fn new(first: u16, last: u16) -> Result<Self, BadRule> {
        if first == 0 || first > last { Err(BadRule::PortRange) } else { Ok(Self { first, last }) }
    }

    /// Says whether a port is in it.
    #[inline]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl Ports {
    /// Makes the set of all ports in these ranges, which may overlap and come in any order; none is every port.
    ///
    /// # Errors
    /// [`BadRule::TooManyPorts`].
    pub fn new(ranges: impl IntoIterator<Item = PortRange>) -> Result<Self, BadRule> {
        let mut sorted: Vec<_> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut joined: Vec<PortRange> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match joined.last_mut() {
                Some(before) if range.first <= before.last.saturating_add(1) => {
                    before.last = before.last.max(range.last);
                }
                _ => joined.push(range),
            }
        }
        if joined.len() > MAX_PORT_RANGES { Err(BadRule::TooManyPorts) } else { Ok(Self(joined)) }
    }

    /// Says whether every port is meant, those of protocols without ports too.
    #[inline]
    pub fn is_every(&self) -> bool {
        self.0.is_empty()
    }

    /// The one port that is among them, if it is one.
    pub fn single(&self) -> Option<u16> {
        match self.0[..] {
            [PortRange { first, last }] if first == last => Some(first),
            _ => None,
        }
    }

    /// Says whether a port is among them.
    #[inline]
    pub fn contains(&self, port: u16) -> bool {
        self.is_every() || self.0.iter().any(|range| range.contains(port))
    }
}

impl Protocol {
    /// Says whether a protocol number (IANA) is meant.
    #[inline]
    pub fn covers(self, number: u8) -> bool {
        match self {
            Self::Any => true,
            Self::Tcp => number == TCP,
            Self::Udp => number == UDP,
            Self::Icmp => matches!(number, ICMP | ICMPV6),
        }
    }
}

impl Rule {
    /// Makes a rule.
    ///
    /// # Errors
    /// [`BadRule::PortsOfIcmp`].
    pub fn new(
        action: Action,
        [source, destination]: [Selector; 2],
        protocol: Protocol,
        ports: Ports,
    ) -> Result<Self, BadRule> {
        if protocol == Protocol::Icmp && !ports.is_every() {
            return Err(BadRule::PortsOfIcmp);
        }
        Ok(Self { action, source, destination, protocol, ports })
    }

    /// `allow * *`: what a network begins with.
    pub fn allow_all() -> Self {
        let [source, destination] = [Selector::Any, Selector::Any];
        Self { action: Action::Allow, source, destination, protocol: Protocol::Any, ports: Ports::default() }
    }

    /// What it says.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Who begins the conversation.
    pub fn source(&self) -> &Selector {
        &self.source
    }

    /// With whom.
    pub fn destination(&self) -> &Selector {
        &self.destination
    }

    /// By which protocols.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// At which ports of the destination.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The members that it names.
    pub fn members(&self) -> impl Iterator<Item = NodeId> {
        [&self.source, &self.destination].into_iter().filter_map(|selector| match selector {
            Selector::Member(id) => Some(*id),
            Selector::Any | Selector::Tag(_) | Selector::Prefix(_) => None,
        })
    }

    /// Says whether it covers a protocol and port, whoever talks. Without a port, which later fragments and most protocols do not show, a
    /// rule about ports denies and does not allow.
    #[inline]
    pub fn covers(&self, protocol: u8, port: Option<u16>) -> bool {
        if !self.protocol.covers(protocol) {
            return false;
        }
        if self.ports.is_every() {
            return true;
        }
        match port {
            Some(port) => matches!(protocol, TCP | UDP) && self.ports.contains(port),
            None => matches!(protocol, TCP | UDP) && self.action == Action::Deny,
        }
    }
}

impl BorshDeserialize for PortRange {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let (first, last) = BorshDeserialize::deserialize_reader(reader)?;
        Self::new(first, last).map_err(invalid)
    }
}

/// Reads ranges and refuses those that [`Ports::new`] would have written otherwise.
impl BorshDeserialize for Ports {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let ranges = Vec::deserialize_reader(reader)?;
        let ports = Self::new(ranges.iter().copied()).map_err(invalid)?;
        if ports.0 == ranges { Ok(ports) } else { Err(invalid("ports out of order")) }
    }
}

impl BorshDeserialize for Rule {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let (action, source, destination, protocol, ports) = BorshDeserialize::deserialize_reader(reader)?;
        Self::new(action, [source, destination], protocol, ports).map_err(invalid)
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// As it is typed behind the destination: nothing for every port, else `:22`, `:80,8000-8100`.
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, PortRange { first, last }) in self.0.iter().enumerate() {
            f.write_str(if position == 0 { ":" } else { "," })?;
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        Ok(())
    }
}

/// As it is typed at the end: nothing for all of them, else `/tcp` and the like.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "",
            Self::Tcp => "/tcp",
            Self::Udp => "/udp",
            Self::Icmp => "/icmp",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange::new(first, last).unwrap()
    }

    /// Few members, tags, prefixes and ports, so that rules meet.
    pub(crate) fn rule() -> impl Strategy<Value = Rule> {
        let selector = || {
            prop_oneof![
                Just(Selector::Any),
                (1..6u8).prop_map(|seed| Selector::Member(NodeId([seed; 32]))),
                "[a-c]".prop_map(|tag| Selector::Tag(tag.parse().unwrap())),
                (0..8u8, 24..=32u8)
                    .prop_map(|(low, len)| { Selector::Prefix(Prefix::new([10, 64, 0, low].into(), len).unwrap()) }),
                (0..4u8).prop_map(|third| Selector::Prefix(
                    Prefix::new([192, 168, third, 0].into(), 22 + third % 3).unwrap()
                )),
            ]
        };
        let action = prop_oneof![Just(Action::Allow), Just(Action::Deny)];
        let protocol = prop_oneof![Just(Protocol::Any), Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Icmp)];
        let ports = prop::collection::vec((1..6u16, 0..3u16), 0..3);
        (action, [selector(), selector()], protocol, ports).prop_map(|(action, ends, protocol, ports)| {
            let ports = Ports::new(ports.into_iter().map(|(first, more)| range(first, first + more))).unwrap();
            let ports = if protocol == Protocol::Icmp { Ports::default() } else { ports };
            Rule::new(action, ends, protocol, ports).unwrap()
        })
    }

    #[test]
    fn ranges_are_sorted_and_joined() {
        let ports = Ports::new([range(80, 90), range(22, 22), range(91, 95), range(85, 88)]).unwrap();
        assert_eq!(ports.to_string(), ":22,80-95");
        assert!(ports.contains(22) && ports.contains(95) && !ports.contains(79) && !ports.contains(96));
        assert_eq!(Ports::default().to_string(), "");
        assert!(Ports::default().is_every() && !ports.is_every());
        assert_eq!(PortRange::new(0, 5), Err(BadRule::PortRange));
        assert_eq!(PortRange::new(6, 5), Err(BadRule::PortRange));
        let apart = |count: u16| Ports::new((1..=count).map(|number| range(number * 3, number * 3)));
        assert!(apart(16).is_ok());
        assert_eq!(apart(17), Err(BadRule::TooManyPorts));
    }

    #[test]
    fn without_a_port_a_rule_about_ports_denies_and_does_not_allow() {
        let rule = |action, protocol, ports: &[PortRange]| {
            let ports = Ports::new(ports.iter().copied()).unwrap();
            Rule::new(action, [Selector::Any, Selector::Any], protocol, ports).unwrap()
        };
        let ssh = [range(22, 22)];
        for (action, protocol, number, port, expected) in [
            (Action::Allow, Protocol::Tcp, TCP, Some(22), true),
            (Action::Allow, Protocol::Tcp, TCP, Some(23), false),
            (Action::Allow, Protocol::Tcp, UDP, Some(22), false),
            (Action::Allow, Protocol::Any, UDP, Some(22), true),
            (Action::Allow, Protocol::Any, ICMP, Some(22), false),
            (Action::Allow, Protocol::Any, TCP, None, false),
            (Action::Deny, Protocol::Any, TCP, None, true),
            (Action::Deny, Protocol::Any, ICMP, None, false),
        ] {
            assert_eq!(
                rule(action, protocol, &ssh).covers(number, port),
                expected,
                "{action} {protocol} {number} {port:?}"
            );
        }
        assert!(rule(Action::Allow, Protocol::Any, &[]).covers(47, None));
        assert!(rule(Action::Allow, Protocol::Icmp, &[]).covers(ICMPV6, None));
        let icmp = Rule::new(Action::Deny, [Selector::Any, Selector::Any], Protocol::Icmp, Ports::new(ssh).unwrap());
        assert_eq!(icmp, Err(BadRule::PortsOfIcmp));
    }

    #[test]
    fn a_rule_written_otherwise_does_not_decode() {
        let encoded = |ranges: &[(u16, u16)]| {
            let rule = (Action::Allow, Selector::Any, Selector::Any, Protocol::Tcp, ranges.to_vec());
            borsh::to_vec(&rule).unwrap()
        };
        assert!(borsh::from_slice::<Rule>(&encoded(&[(22, 22), (80, 90)])).is_ok());
        for ranges in
            [vec![(80, 90), (22, 22)], vec![(22, 30), (31, 40)], vec![(9, 8)], vec![(0, 8)], vec![(2, 5), (4, 9)]]
        {
            assert!(borsh::from_slice::<Rule>(&encoded(&ranges)).is_err(), "{ranges:?}");
        }
    }

    proptest! {
        #[test]
        fn a_rule_is_read_as_it_was_written(rule in rule()) {
            let bytes = borsh::to_vec(&rule).unwrap();
            prop_assert_eq!(borsh::from_slice::<Rule>(&bytes).unwrap(), rule);
        }
    }
}
