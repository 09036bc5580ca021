//! Frozen bytes: whoever changes one of these changes the format, and breaks every chain that exists.

use super::block::Block;
use super::kit::{ADMIN, BEGIN, DAY, FOUNDER, NODE, Net, admit, credential, id, join, key, label};
use super::operation::{
    BridgeApprove, BridgeRevoke, CredentialRevoke, EndpointsSet, ExitApprove, NameDel, NameSet, Operation, ProtocolSet,
    RelayApprove, Rename, Revoke, RouteApprove, RouteRevoke, RuleDel, Scope, Scopes, SegmentDel, SegmentSet, SignerSet,
    Tags, WhichRecords,
};
use super::sync::{HeadNotice, LedgerMessage};
use super::transaction::{SignedTransaction, Transaction};
use crate::crypto::hash::Digest;
use crate::policy::RelayTerms;
use crate::time::UnixMillis;
use crate::wire::endpoint::StaticEndpoints;
use crate::wire::record::{RecordData, RecordKind, RecordMark, RecordName, Target, Text};

const CHAIN: Digest = Digest([9; 32]);

fn check(name: &str, frozen: &str, bytes: &[u8]) {
    assert_eq!(hex::encode(bytes), frozen.trim(), "tests/vectors/ledger/{name}.hex");
}

/// Compares with a file of `tests/vectors/ledger`.
macro_rules! frozen {
    ($name:literal, $bytes:expr) => {
        check($name, include_str!(concat!("../../tests/vectors/ledger/", $name, ".hex")), &$bytes)
    };
}

fn sign(seeds: &[u8], operations: Vec<Operation>) -> SignedTransaction {
    let keys: Vec<_> = seeds.iter().map(|seed| key(*seed)).collect();
    let keys: Vec<_> = keys.iter().collect();
    Transaction::new(key(seeds[0]).verifying_key(), 7, BEGIN, operations).sign(&CHAIN, &keys)
}

/// Every operation, with sets and options of every kind.
pub(super) fn everything() -> Vec<Operation> {
    let full = super::operation::Admit {
        name: Some(label("web")),
        tags: [label("a"), label("b")].into(),
        ipv4: Some([10, 77, 0, 9].into()),
        expires: Some(BEGIN.after(DAY)),
        ..admit(NODE, 3)
    };
    let key_hash = credential(50, 1, BEGIN).key_hash;
    vec![
        Operation::Admit(full),
        Operation::Admit(admit(NODE + 1, 0)),
        Operation::Join(join(NODE + 2, 50)),
        Operation::Revoke(Revoke { identity: id(NODE), incarnation: 1 }),
        Operation::Rename(Rename { identity: id(NODE), name: label("shop") }),
        Operation::Credential(credential(50, 2, BEGIN.after(DAY))),
        Operation::CredentialRevoke(CredentialRevoke { key_hash }),
        Operation::SignerSet(SignerSet { key: key(ADMIN).verifying_key(), weight: 2, scopes: Scopes::ALL }),
        Operation::Unknown { code: 999, bytes: vec![1, 2, 3] },
    ]
}

#[test]
fn transactions_have_the_frozen_bytes() {
    frozen!("operations", sign(&[ADMIN, NODE], everything()).encode());
    frozen!("operations-id", sign(&[ADMIN, NODE], everything()).id(&CHAIN).0.0);
    let revoke = Revoke { identity: id(NODE), incarnation: 0 };
    let revocation = Transaction::revocation(key(ADMIN).verifying_key(), [revoke]).sign(&CHAIN, &[&key(ADMIN)]);
    frozen!("revocation", revocation.encode());
}

/// Every DNS record, and each way to end some.
fn every_record() -> Vec<Operation> {
    let name = |text: &str| text.parse::<RecordName>().unwrap();
    let set = |text: &str, data| Operation::NameSet(NameSet { name: name(text), data });
    let del = |which| Operation::NameDel(NameDel { name: name("mail"), which });
    let strings = ["v=DKIM1", "p="].map(str::to_owned).to_vec();
    let (member, alias) = (Target::Member(id(NODE)), Target::Name(name("mail")));
    vec![
        set("mail", RecordData::Address(id(NODE))),
        set("@", RecordData::Mail { priority: 10, target: alias.clone() }),
        set("_imap._tcp.web", RecordData::Service { priority: 1, weight: 2, port: 143, target: member }),
        set("k._domainkey", RecordData::Text(Text::new(strings).unwrap())),
        del(WhichRecords::All),
        del(WhichRecords::Kind(RecordKind::Service)),
        del(WhichRecords::One(RecordMark::Service(alias, 143))),
    ]
}

#[test]
fn records_have_the_frozen_bytes_and_state() {
    frozen!("operations-names", sign(&[ADMIN], every_record()).encode());
    let mut net = Net::new();
    let named = super::operation::Admit { name: Some(label("web")), ..admit(NODE, 0) };
    net.order(Operation::Admit(named)).unwrap();
    for operation in every_record().into_iter().take(4) {
        net.order(operation).unwrap();
    }
    let entries: Vec<_> = net.state.entries().filter(|(key, _)| key[0] == 24).collect();
    frozen!("state-names", borsh::to_vec(&entries).unwrap());
}

#[test]
fn the_frozen_bytes_still_verify() {
    let frozen = hex::decode(include_str!("../../tests/vectors/ledger/revocation.hex").trim()).unwrap();
    assert!(SignedTransaction::decode(&frozen).unwrap().verify(&CHAIN).is_ok());
    let frozen = hex::decode(include_str!("../../tests/vectors/ledger/block-2.hex").trim()).unwrap();
    assert_eq!(Block::decode(&frozen).unwrap().header.height.0, 2);
}

#[test]
fn a_chain_has_the_frozen_bytes_and_state() {
    let mut net = Net::of_version(1);
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    net.commit(net.revocation(ADMIN, &[(NODE, 0)])).unwrap();
    frozen!("genesis", net.blocks[0].0.encode());
    frozen!("network-id", net.chain().0);
    frozen!("block-2", net.blocks[2].0.encode());
    frozen!("certificate-2", borsh::to_vec(&net.blocks[2].1).unwrap());
    let entries: Vec<_> = net.state.entries().collect();
    frozen!("state-2", borsh::to_vec(&entries).unwrap());
}

#[test]
fn a_signer_that_loses_credentials_leaves_the_frozen_state() {
    let mut net = Net::of_version(1);
    let set = |scopes| Operation::SignerSet(SignerSet { key: key(NODE).verifying_key(), weight: 1, scopes });
    net.order(set(Scopes::ALL)).unwrap();
    let until = net.later().after(DAY);
    let issued = net.sign(&[NODE], vec![Operation::Credential(credential(50, 1, until))]);
    net.commit(issued).unwrap();
    net.order(set(Scopes::from_iter([Scope::Revocation]))).unwrap();
    frozen!("block-of-ended-credentials", net.blocks[3].0.encode());
}

/// The operations of protocol version 2 that say who may reach whom.
pub(super) fn rights() -> Vec<Operation> {
    use crate::policy::rule::{Action, PortRange, Ports, Protocol, Rule, Selector};
    let prefix = |text: &str| Selector::Prefix(text.parse().unwrap());
    let ports = |ranges: &[(u16, u16)]| {
        Ports::new(ranges.iter().map(|(first, last)| PortRange::new(*first, *last).unwrap())).unwrap()
    };
    let rule = |action, ends, protocol, ranges: &[(u16, u16)]| {
        Operation::Rule(Rule::new(action, ends, protocol, ports(ranges)).unwrap())
    };
    let tags = Tags { identity: id(FOUNDER), tags: [label("a"), label("b")].into() };
    vec![
        Operation::Tag(tags.clone()),
        Operation::Untag(tags),
        rule(Action::Deny, [Selector::Any, prefix("192.168.7.0/24")], Protocol::Icmp, &[]),
        rule(
            Action::Allow,
            [Selector::Tag("a".parse().unwrap()), Selector::Member(id(FOUNDER))],
            Protocol::Tcp,
            &[(22, 22), (8000, 8100)],
        ),
        rule(Action::Allow, [prefix("fd00::/8"), Selector::Any], Protocol::Udp, &[(53, 53)]),
        Operation::RuleDel(RuleDel { number: 1 }),
    ]
}

#[test]
fn rights_have_the_frozen_bytes_and_state() {
    let mut net = Net::of_version(1);
    net.order(Operation::ProtocolSet(ProtocolSet { version: 2 })).unwrap();
    let signed = net.sign(&[ADMIN], rights());
    frozen!("rights", signed.encode());
    net.commit(signed).unwrap();
    let entries: Vec<_> = net.state.entries().collect();
    frozen!("rights-state", borsh::to_vec(&entries).unwrap());
    frozen!("genesis-of-version-2", Net::of_version(2).blocks[0].0.encode());
}

/// Every operation of segments.
pub(super) fn segments() -> Vec<Operation> {
    let (lab, gateways) = (label("lab"), [id(NODE), id(NODE + 1)].into());
    vec![
        Operation::SegmentSet(SegmentSet { name: lab.clone(), tag: label("lan"), gateways, storm_limit: 1_000 }),
        Operation::BridgeApprove(BridgeApprove { segment: lab.clone(), member: id(NODE) }),
        Operation::BridgeRevoke(BridgeRevoke { segment: lab.clone(), member: id(NODE) }),
        Operation::SegmentDel(SegmentDel { name: lab }),
    ]
}

#[test]
fn segments_have_the_frozen_bytes_and_state() {
    frozen!("segments", sign(&[ADMIN], segments()).encode());
    let mut net = Net::new();
    for seed in [NODE, NODE + 1] {
        net.order(Operation::Admit(admit(seed, 0))).unwrap();
    }
    let set = net.sign(&[ADMIN], segments()[..2].to_vec());
    net.commit(set).unwrap();
    let of_segments = net.state.entries().filter(|(key, _)| matches!(key[0], 22 | 23));
    frozen!("segments-state", borsh::to_vec(&of_segments.collect::<Vec<_>>()).unwrap());
}

#[test]
fn routes_have_the_frozen_bytes_and_state() {
    let mut net = Net::of_version(2);
    let route = |prefix: &str, local: Option<&str>| {
        let [prefix, local] = [Some(prefix), local].map(|text| text.map(|text| text.parse().unwrap()));
        Operation::RouteApprove(RouteApprove { identity: id(FOUNDER), prefix: prefix.unwrap(), local })
    };
    let signed = net.sign(
        &[ADMIN],
        vec![
            route("172.20.1.0/24", Some("192.168.1.0/24")),
            route("fd01:2:3::/48", None),
            route("172.20.2.0/24", None),
            Operation::RouteRevoke(RouteRevoke { identity: id(FOUNDER), prefix: "172.20.2.0/24".parse().unwrap() }),
            Operation::ExitApprove(ExitApprove { identity: id(FOUNDER), is_exit: true }),
        ],
    );
    frozen!("routes", signed.encode());
    net.commit(signed).unwrap();
    let entries: Vec<_> = net.state.entries().collect();
    frozen!("routes-state", borsh::to_vec(&entries).unwrap());
}

/// Every operation about relays and static endpoints.
fn relays() -> Vec<Operation> {
    let endpoints = |texts: &[&str]| StaticEndpoints::new(texts.iter().map(|text| text.parse().unwrap())).unwrap();
    let both = endpoints(&["[2001:db8::7]:4647", "203.0.113.7:4647"]);
    let approve = |terms| Operation::RelayApprove(RelayApprove { identity: id(FOUNDER), terms });
    let stays = |endpoints| Operation::EndpointsSet(EndpointsSet { identity: id(FOUNDER), endpoints });
    vec![
        approve(Some(RelayTerms::new(both, 443, 3).unwrap())),
        approve(None),
        approve(Some(RelayTerms::new(endpoints(&["203.0.113.7:4647"]), 0, 1).unwrap())),
        stays(StaticEndpoints::default()),
        stays(endpoints(&["203.0.113.8:4647", "203.0.113.7:4648"])),
    ]
}

#[test]
fn relays_have_the_frozen_bytes_and_state() {
    let mut net = Net::of_version(3);
    let signed = net.sign(&[ADMIN], relays());
    frozen!("relays", signed.encode());
    net.commit(signed).unwrap();
    let entries: Vec<_> = net.state.entries().collect();
    frozen!("relays-state", borsh::to_vec(&entries).unwrap());
    frozen!("genesis-of-version-3", Net::of_version(3).blocks[0].0.encode());
}

#[test]
fn messages_have_the_frozen_bytes() {
    use super::block::{BlockId, Height};
    let revocations = super::revocation::Revocations::default().digest();
    let (height, id, time) = (Height(5), BlockId(CHAIN), UnixMillis(6));
    frozen!("message-head", LedgerMessage::Head(HeadNotice { height, id, time, revocations }).encode());
    frozen!("message-get-blocks", LedgerMessage::GetBlocks { from: height, limit: 64 }.encode());
    frozen!("message-consensus", LedgerMessage::Consensus(vec![1, 2]).encode());
}
