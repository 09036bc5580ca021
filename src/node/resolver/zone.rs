//! What the network's DNS zone holds, and which of the world's names are in it.
//!
//! ```text
//!   NAME.lab.internal            members, and the records that the ledger holds
//!   dns.lab.internal             the resolver itself, unless the network gave the name to somebody
//!   2.0.77.10.in-addr.arpa …     the member that has the address, for the overlay's own subnets
//! ```
//! Owns the lookup. Refuses to know messages and their bytes.

use crate::crypto::identity::NodeId;
use crate::policy::Policy;
use crate::router::Prefix;
use crate::router::icmp::AnswerSources;
use crate::wire::record::{RecordData, RecordName, Target, ZoneName};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The name of the resolver itself.
const RESOLVER_NAME: &str = "dns";
/// Labels of an IPv4 address in a reverse name, and their bits.
const OCTETS: (usize, u8) = (4, 8);
/// The same for IPv6 (RFC 3596 §2.5).
const NIBBLES: (usize, u8) = (32, 4);

/// The zone at one moment.
pub struct Zone {
    name: ZoneName,
    policy: Arc<Policy>,
    /// Members by their names.
    hosts: BTreeMap<RecordName, NodeId>,
    /// Every name that has something, or has a name below it that does (RFC 8020: such a one is there, though empty).
    existing: BTreeSet<RecordName>,
    subnets: Vec<Prefix>,
    resolver: AnswerSources,
    serial: u32,
}

/// What surrounds a policy where a zone is made of it.
pub struct ZoneTerms {
    /// The suffix of all names.
    pub name: ZoneName,
    /// The overlay's own subnets, whose reverse names are answered.
    pub subnets: Vec<Prefix>,
    /// The resolver's addresses.
    pub resolver: AnswerSources,
    /// Grows with each change: the low bits of the ledger's height.
    pub serial: u32,
}

/// Where a name stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the zone; `None` for one that no record or member can have.
    Name(Option<RecordName>),
    /// In the reverse names of a subnet.
    Reverse(Reverse),
    /// Elsewhere: somebody else answers it.
    Outside,
}

/// A reverse name: an address, or the beginning of some.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reverse {
    /// The address, with zeros where the name says nothing.
    pub address: IpAddr,
    /// How many labels it is said in.
    pub labels: usize,
    /// Labels of the name of the reverse zone that it lies in, beside the two of all reverse names.
    pub zone_labels: usize,
}

impl Reverse {
    /// Says whether it is one whole address.
    pub fn is_whole(self) -> bool {
        self.labels == units(self.address.is_ipv4()).0
    }
}

/// How many labels a reverse name of this family has at most, and the bits of each.
const fn units(is_ipv4: bool) -> (usize, u8) {
    if is_ipv4 { OCTETS } else { NIBBLES }
}

impl Zone {
    /// Makes the zone of a policy.
    pub fn new(policy: Arc<Policy>, terms: ZoneTerms) -> Self {
        let ZoneTerms { name, subnets, resolver, serial } = terms;
        let named = policy.members().filter_map(|member| Some((member.name.parse().ok()?, member.id)));
        let hosts: BTreeMap<RecordName, NodeId> = named.collect();
        let mut existing = BTreeSet::from([RecordName::apex()]);
        for name in hosts.keys().chain(policy.names().iter().map(|(name, _)| name)) {
            exist(&mut existing, name);
        }
        if resolver != AnswerSources::default() {
            existing.insert(resolver_name());
        }
        Self { name, policy, hosts, existing, subnets, resolver, serial }
    }

    /// The suffix of all names.
    pub fn name(&self) -> &ZoneName {
        &self.name
    }

    /// Grows with each change.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// The resolver's own name.
    pub fn resolver_name(&self) -> RecordName {
        resolver_name()
    }

    /// Finds where a name stands, whose labels come from the last one, as they are.
    pub fn place<'l>(&self, labels: impl DoubleEndedIterator<Item = &'l [u8]> + Clone) -> Place {
        let mut rest = labels.clone();
        let zone_labels = self.name.labels_from_top();
        let is_inside = zone_labels.map(Some).all(|label| {
            let matches = |other: &[u8]| label.is_some_and(|label| label.as_bytes().eq_ignore_ascii_case(other));
            rest.next().is_some_and(matches)
        });
        if is_inside {
            let labels: Option<Vec<String>> = rest.map(text).collect();
            return Place::Name(labels.and_then(|labels| RecordName::from_top(labels.iter().map(String::as_str)).ok()));
        }
        self.reverse(labels).map_or(Place::Outside, Place::Reverse)
    }

    /// Says whether a name is there, even if it has nothing of what is asked for.
    pub fn exists(&self, name: &RecordName) -> bool {
        self.existing.contains(name)
    }

    /// Lists the addresses of a name: a member's, and those that records give it.
    pub fn addresses(&self, name: &RecordName) -> Vec<IpAddr> {
        let records = self.policy.names().of(name).iter();
        let aliased = records.filter_map(|data| if let RecordData::Address(id) = data { Some(id) } else { None });
        let members = self.hosts.get(name).into_iter().chain(aliased);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for member in members.filter_map(|id| self.policy.member(id)) {
            addresses
                .extend(member.addresses.iter().filter(|address| !addresses.contains(address)).collect::<Vec<_>>());
        }
        if addresses.is_empty() && self.is_resolver(name) {
            addresses.extend(self.resolver.v4.map(IpAddr::V4));
            addresses.extend(self.resolver.v6.map(IpAddr::V6));
        }
        addresses
    }

    /// Lends the records of a name.
    pub fn records(&self, name: &RecordName) -> &[RecordData] {
        self.policy.names().of(name)
    }

    /// The name of what a record points to.
    pub fn target(&self, target: &Target) -> Option<RecordName> {
        match target {
            Target::Member(id) => self.policy.member(id)?.name.parse().ok(),
            Target::Name(name) => Some(name.clone()),
        }
    }

    /// The one name of an address, whose addresses include it: what mail servers check.
    pub fn pointer(&self, address: IpAddr) -> Option<RecordName> {
        if let Some(member) = self.policy.owner(&address) {
            return member.name.parse().ok();
        }
        let is_own =
            self.resolver.v4.map(IpAddr::V4) == Some(address) || self.resolver.v6.map(IpAddr::V6) == Some(address);
        (is_own && self.is_resolver(&resolver_name())).then(resolver_name)
    }

    /// Lists the reverse zones that are answered here, as they are written.
    pub fn reverse_zones(&self) -> Vec<String> {
        self.subnets.iter().flat_map(|subnet| reverse_zones(*subnet)).collect()
    }

    /// Says whether a name is the resolver's, and nobody else's.
    fn is_resolver(&self, name: &RecordName) -> bool {
        *name == resolver_name() && !self.hosts.contains_key(name) && self.policy.names().of(name).is_empty()
    }

    fn reverse<'l>(&self, mut labels: impl Iterator<Item = &'l [u8]>) -> Option<Reverse> {
        let is = |label: Option<&[u8]>, text: &str| label.is_some_and(|it| it.eq_ignore_ascii_case(text.as_bytes()));
        if !is(labels.next(), "arpa") {
            return None;
        }
        let family = labels.next();
        let (address, count) = match () {
            () if is(family, "in-addr") => read_octets(labels)?,
            () if is(family, "ip6") => read_nibbles(labels)?,
            () => return None,
        };
        let unit = units(address.is_ipv4()).1;
        let subnet = self.subnets.iter().find(|subnet| subnet.contains(address))?;
        let zone_labels = usize::from(reverse_bits(*subnet) / unit);
        (count >= zone_labels).then_some(Reverse { address, labels: count, zone_labels })
    }
}

fn resolver_name() -> RecordName {
    RESOLVER_NAME.parse().expect("it is a label")
}

/// Adds a name and those above it.
fn exist(existing: &mut BTreeSet<RecordName>, name: &RecordName) {
    let labels: Vec<&str> = name.labels_from_top().collect();
    for count in 1..=labels.len() {
        existing.extend(RecordName::from_top(labels[..count].iter().copied()));
    }
}

/// A label as names of the zone have it; `None` for bytes that none of them has.
fn text(label: &[u8]) -> Option<String> {
    let is_plain = label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    is_plain.then(|| label.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect())
}

/// How many bits the names of a subnet's reverse zones say: up to the next label, so that they cover the subnet and nothing else. A pool below
/// a /24 has one for each address: who asks for its neighbours asks somebody else.
fn reverse_bits(subnet: Prefix) -> u8 {
    subnet.bits().next_multiple_of(units(subnet.address().is_ipv4()).1)
}

fn reverse_zones(subnet: Prefix) -> Vec<String> {
    let bits = reverse_bits(subnet);
    let count = 1_u32 << (bits - subnet.bits());
    match subnet.address() {
        IpAddr::V4(base) => (0..count)
            .map(|number| {
                let octets = Ipv4Addr::from_bits(base.to_bits() | number << (32 - bits)).octets();
                let said = octets[..usize::from(bits / 8)].iter().rev();
                said.map(|octet| format!("{octet}.")).chain(["in-addr.arpa".to_owned()]).collect()
            })
            .collect(),
        IpAddr::V6(base) => (0..u128::from(count))
            .map(|number| {
                let address = base.to_bits() | number << (128 - bits);
                let said = (0..bits / 4).rev().map(|place| address >> (124 - 4 * u32::from(place)) & 0xf);
                said.map(|nibble| format!("{nibble:x}.")).chain(["ip6.arpa".to_owned()]).collect()
            })
            .collect(),
    }
}

/// Reads an IPv4 address, or its beginning, and how many labels said it.
fn read_octets<'l>(labels: impl Iterator<Item = &'l [u8]>) -> Option<(IpAddr, usize)> {
    let (mut bits, mut count) = (0_u32, 0);
    for label in labels {
        let octet: u8 = std::str::from_utf8(label).ok()?.parse().ok()?;
        if count == OCTETS.0 || octet.to_string().as_bytes() != label {
            return None;
        }
        bits |= u32::from(octet) << (24 - 8 * count);
        count += 1;
    }
    Some((Ipv4Addr::from_bits(bits).into(), count))
}

/// Reads an IPv6 address, or its beginning, likewise.
fn read_nibbles<'l>(labels: impl Iterator<Item = &'l [u8]>) -> Option<(IpAddr, usize)> {
    let (mut bits, mut count) = (0_u128, 0);
    for label in labels {
        let [digit] = label else { return None };
        if count == NIBBLES.0 {
            return None;
        }
        bits |= u128::from(char::from(*digit).to_digit(16)?) << (124 - 4 * count);
        count += 1;
    }
    Some((Ipv6Addr::from_bits(bits).into(), count))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{lab, zone};
    use super::*;

    fn place(zone: &Zone, text: &str) -> Place {
        let labels: Vec<&[u8]> = text.split('.').map(str::as_bytes).collect();
        zone.place(labels.into_iter().rev())
    }

    fn name(text: &str) -> RecordName {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_in_the_zone_whatever_its_case_and_nowhere_by_a_likeness() {
        let zone = lab();
        assert_eq!(place(&zone, "Ada.LAB.internal"), Place::Name(Some(name("ada"))));
        assert_eq!(place(&zone, "lab.internal"), Place::Name(Some(RecordName::apex())));
        assert_eq!(place(&zone, "a b.lab.internal"), Place::Name(None));
        assert_eq!(place(&zone, &format!("{}lab.internal", "x.".repeat(9))), Place::Name(None));
        let dotted: [&[u8]; 3] = [b"internal", b"lab", b"www.ada"];
        assert_eq!(zone.place(dotted.into_iter()), Place::Name(None), "one label with a dot in it is not two labels");
        for outside in ["internal", "ada.lab.internal.example", "evil-lab.internal", "example.com", "ada"] {
            assert_eq!(place(&zone, outside), Place::Outside, "{outside}");
        }
    }

    #[test]
    fn reverse_names_are_those_of_the_subnets_and_no_others() {
        let zone = lab();
        let whole = Reverse { address: IpAddr::from([10, 77, 0, 2]), labels: 4, zone_labels: 3 };
        assert_eq!(place(&zone, "2.0.77.10.in-addr.ARPA"), Place::Reverse(whole));
        assert!(matches!(place(&zone, "0.77.10.in-addr.arpa"), Place::Reverse(Reverse { labels: 3, .. })));
        let v6 = "0.".repeat(4) + "b.a.b.a.b.a.b.a.b.a.d.f.ip6.arpa";
        assert!(matches!(place(&zone, &v6), Place::Reverse(Reverse { labels: 16, zone_labels: 16, .. })), "{v6}");
        for outside in [
            "77.10.in-addr.arpa",
            "2.1.77.10.in-addr.arpa",
            "1.2.0.77.10.in-addr.arpa",
            "02.0.77.10.in-addr.arpa",
            "x.0.77.10.in-addr.arpa",
            "arpa",
            "in-addr.arpa",
            "d.f.ip6.arpa",
        ] {
            assert_eq!(place(&zone, outside), Place::Outside, "{outside}");
        }
    }

    #[test]
    fn reverse_zones_cover_a_subnet_and_nothing_else() {
        let zones = |base: [u8; 4], len| reverse_zones(Prefix::new(IpAddr::from(base), len).unwrap());
        assert_eq!(zones([10, 0, 0, 0], 8), ["10.in-addr.arpa"]);
        let of_20 = zones([10, 77, 16, 0], 20);
        assert_eq!(
            (of_20.len(), of_20[0].as_str(), of_20[15].as_str()),
            (16, "16.77.10.in-addr.arpa", "31.77.10.in-addr.arpa")
        );
        let of_29 = zones([10, 77, 0, 8], 29);
        assert_eq!((of_29.len(), of_29[7].as_str()), (8, "15.0.77.10.in-addr.arpa"));
        assert_eq!(zones([172, 16, 0, 0], 12).len(), 16);
        assert_eq!(lab().reverse_zones().last().unwrap(), "0.0.0.0.b.a.b.a.b.a.b.a.b.a.d.f.ip6.arpa");
    }

    #[test]
    fn every_address_has_one_name_whose_addresses_include_it() {
        let zone = lab();
        for address in [[10, 77, 0, 1], [10, 77, 0, 2], [10, 77, 0, 53]].map(IpAddr::from) {
            let pointer = zone.pointer(address).unwrap();
            assert!(zone.addresses(&pointer).contains(&address), "{pointer}");
        }
        assert_eq!(zone.pointer(IpAddr::from([10, 77, 0, 2])), Some(name("ada")), "never an alias");
        assert_eq!(zone.pointer(IpAddr::from([10, 77, 0, 9])), None);
    }

    #[test]
    fn the_resolvers_name_is_whose_the_network_gave_it_to() {
        assert_eq!(lab().addresses(&name("dns"))[0], IpAddr::from([10, 77, 0, 53]));
        let given = zone([(name("dns"), RecordData::Address(NodeId([2; 32])))]);
        assert_eq!(given.addresses(&name("dns"))[0], IpAddr::from([10, 77, 0, 2]));
        assert_eq!(given.pointer(IpAddr::from([10, 77, 0, 53])), None, "it would not be confirmed");
    }

    #[test]
    fn names_above_others_are_there() {
        let zone = lab();
        for there in ["_tcp.ada", "_imap._tcp.ada", "ada", "mail", "@"] {
            assert!(zone.exists(&name(there)), "{there}");
        }
        assert!(!zone.exists(&name("nobody")) && !zone.exists(&name("x.mail")));
    }
}
