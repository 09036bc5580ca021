//! A zone for the tests of this folder.

use super::{Zone, ZoneTerms};
use crate::crypto::identity::NodeId;
use crate::policy::{Member, Policy, tests::member};
use crate::router::Prefix;
use crate::router::icmp::AnswerSources;
use crate::wire::record::{RecordData, RecordName, Target, Text, ZoneName};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// The first half of every IPv6 address.
const V6: [u16; 4] = [0xfdab, 0xabab, 0xabab, 0];

pub(super) fn v6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(V6[0], V6[1], V6[2], V6[3], 0, 0, 0, host)
}

pub(super) const RESOLVER: [u8; 4] = [10, 77, 0, 53];

/// A member at the address `.seed` of both families.
fn named(seed: u8, name: &str) -> Member {
    let addresses = vec![IpAddr::from([10, 77, 0, seed]), v6(u16::from(seed)).into()];
    Member { name: name.to_owned(), addresses, ..member(seed) }
}

/// `lab.internal` with the members `founder` at .1, `ada` at .2 and `ben` at .3, and these records.
pub(super) fn zone(records: impl IntoIterator<Item = (RecordName, RecordData)>) -> Zone {
    let members = [named(1, "founder"), named(2, "ada"), named(3, "ben")];
    let policy = Policy::new(members, BTreeMap::new(), BTreeSet::new()).with_names(records);
    let subnets = [(IpAddr::from([10, 77, 0, 0]), 24), (v6(0).into(), 64)];
    let terms = ZoneTerms {
        name: ZoneName::of_network(&"lab".parse().unwrap()),
        subnets: subnets.into_iter().map(|(base, len)| Prefix::new(base, len).unwrap()).collect(),
        resolver: AnswerSources { v4: Some(RESOLVER.into()), v6: Some(v6(0x53)) },
        serial: 7,
    };
    Zone::new(Arc::new(policy), terms)
}

/// The same with some records of every kind.
pub(super) fn lab() -> Zone {
    let name = |text: &str| text.parse::<RecordName>().unwrap();
    let ada = NodeId([2; 32]);
    let text = |text: &str| RecordData::Text(Text::new(vec![text.to_owned()]).unwrap());
    let long = |number: u8| Text::new(vec![char::from(b'a' + number).to_string().repeat(250); 4]).unwrap();
    let mut records = vec![
        (name("mail"), RecordData::Address(ada)),
        (name("pool"), RecordData::Address(ada)),
        (name("pool"), RecordData::Address(NodeId([3; 32]))),
        (name("@"), RecordData::Mail { priority: 10, target: Target::Name(name("mail")) }),
        (name("ada"), RecordData::Mail { priority: 20, target: Target::Member(ada) }),
        (name("@"), text("v=spf1 mx -all")),
        (
            name("_imap._tcp.ada"),
            RecordData::Service { priority: 1, weight: 2, port: 143, target: Target::Member(ada) },
        ),
    ];
    records.extend((0..16).map(|number| (name("long"), RecordData::Text(long(number)))));
    zone(records)
}
