use super::*;
use crate::policy::decision::NumberedRule;
use crate::policy::rule::{Action, PortRange, Ports, Protocol, Rule, Selector};
use crate::policy::tests::member;
use etherparse::PacketBuilder;
use std::collections::{BTreeMap, BTreeSet};

const PEER: PeerIndex = PeerIndex::at(0).unwrap();
const START: Instant = Instant::from_micros(1_000_000);
/// When connections from before the start are picked up no more.
fn later() -> Instant {
    START + PICK_UP
}

const A: [u8; 4] = [10, 64, 0, 1];
const B: [u8; 4] = [10, 64, 0, 2];

fn rule(action: Action, source: u8, destination: u8, protocol: Protocol, port: Option<u16>) -> Rule {
    let end = |seed| Selector::Member(member(seed).id);
    let ports = Ports::new(port.map(|port| PortRange::new(port, port).unwrap())).unwrap();
    Rule::new(action, [end(source), end(destination)], protocol, ports).unwrap()
}

/// Lets A reach port 22 of B by TCP.
fn ssh() -> Rule {
    rule(Action::Allow, 1, 2, Protocol::Tcp, Some(22))
}

fn policy(rules: &[Rule]) -> Policy {
    let rules = (1..).zip(rules).map(|(number, rule)| NumberedRule { number, rule: rule.clone() }).collect();
    Policy::new([member(1), member(2)], BTreeMap::new(), BTreeSet::new()).with_rules(rules)
}

fn filter(rules: &[Rule]) -> Filter {
    Filter::closed(START).following(&policy(rules))
}

fn check(filter: &Filter, now: Instant, bytes: &[u8]) -> Result<(), DropReason> {
    filter.check(now, PEER, &InnerPacket::parse(bytes).unwrap(), bytes)
}

#[derive(Clone, Copy)]
enum Tcp {
    Syn,
    SynAck,
    Ack,
}

fn tcp(source: [u8; 4], destination: [u8; 4], ports: [u16; 2], kind: Tcp) -> Vec<u8> {
    let segment = PacketBuilder::ipv4(source, destination, 64).tcp(ports[0], ports[1], 0, 100);
    let segment = match kind {
        Tcp::Syn => segment.syn(),
        Tcp::SynAck => segment.syn().ack(1),
        Tcp::Ack => segment.ack(1),
    };
    let mut bytes = Vec::new();
    segment.write(&mut bytes, &[]).unwrap();
    bytes
}

fn udp(source: [u8; 4], destination: [u8; 4], ports: [u16; 2], len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4(source, destination, 64).udp(ports[0], ports[1]).write(&mut bytes, &vec![0; len]).unwrap();
    bytes
}

const NO: Result<(), DropReason> = Err(DropReason::Prohibited);

#[test]
fn what_answers_passes_and_what_begins_needs_a_rule() {
    let filter = filter(&[ssh()]);
    assert_eq!(check(&filter, later(), &tcp(B, A, [22, 1000], Tcp::SynAck)), NO, "nobody asked");
    assert_eq!(check(&filter, later(), &tcp(A, B, [1000, 22], Tcp::Syn)), Ok(()));
    assert_eq!(check(&filter, later(), &tcp(B, A, [22, 1000], Tcp::SynAck)), Ok(()));
    assert_eq!(check(&filter, later(), &tcp(A, B, [1000, 22], Tcp::Ack)), Ok(()));
    for wrong in [
        tcp(B, A, [22, 1001], Tcp::SynAck),
        tcp(B, A, [23, 1000], Tcp::SynAck),
        tcp(B, A, [1000, 22], Tcp::Syn),
        tcp(A, B, [1000, 23], Tcp::Syn),
        udp(A, B, [1000, 22], 8),
    ] {
        assert_eq!(check(&filter, later(), &wrong), NO);
    }
    assert_eq!(filter.flow_count(), 1, "what is refused is not noted");
}

#[test]
fn a_connection_that_was_taken_for_an_older_one_is_not_opened_from_the_other_side() {
    // A may reach everything of B, and has just started; B makes it believe in a connection from before, and then opens one itself.
    let filter = filter(&[rule(Action::Allow, 1, 2, Protocol::Any, None)]);
    let from_b = |kind| tcp(B, A, [22, 5432], kind);
    assert_eq!(check(&filter, START, &from_b(Tcp::SynAck)), Err(DropReason::Prohibited), "an answer to nothing");
    assert_eq!(check(&filter, START, &from_b(Tcp::Ack)), Ok(()), "a download goes on");
    for now in [START, later()] {
        assert_eq!(check(&filter, now, &from_b(Tcp::Syn)), Err(DropReason::Prohibited), "opened by B");
    }
    let from_a = |kind| tcp(A, B, [5432, 22], kind);
    for (bytes, what) in
        [(from_a(Tcp::Syn), "A opens it"), (from_b(Tcp::SynAck), "B accepts"), (from_a(Tcp::Ack), "and it goes on")]
    {
        assert_eq!(check(&filter, later(), &bytes), Ok(()), "{what}");
    }
    assert_eq!(check(&filter, later(), &from_b(Tcp::Syn)), Err(DropReason::Prohibited), "not while it is there");
}

#[test]
fn a_denial_of_the_other_direction_does_not_cut_replies() {
    let filter = filter(&[rule(Action::Deny, 2, 1, Protocol::Any, None), ssh()]);
    assert_eq!(check(&filter, later(), &tcp(A, B, [1000, 22], Tcp::Syn)), Ok(()));
    assert_eq!(check(&filter, later(), &tcp(B, A, [22, 1000], Tcp::SynAck)), Ok(()));
    assert_eq!(check(&filter, later(), &udp(B, A, [22, 1000], 8)), NO);
}

#[test]
fn new_rules_cut_what_is_under_way_and_keep_what_they_allow() {
    let both = filter(&[ssh(), rule(Action::Allow, 1, 2, Protocol::Udp, Some(53))]);
    assert_eq!(check(&both, later(), &tcp(A, B, [1000, 22], Tcp::Syn)), Ok(()));
    assert_eq!(check(&both, later(), &udp(A, B, [1000, 53], 8)), Ok(()));
    let without_dns = both.following(&policy(&[ssh()]));
    assert_eq!(check(&without_dns, later(), &udp(B, A, [53, 1000], 8)), NO);
    assert_eq!(check(&without_dns, later(), &udp(A, B, [1000, 53], 8)), NO);
    assert_eq!(check(&without_dns, later(), &tcp(B, A, [22, 1000], Tcp::Ack)), Ok(()));
    let denied = without_dns.following(&policy(&[ssh(), rule(Action::Deny, 1, 2, Protocol::Any, None)]));
    for segment in [tcp(B, A, [22, 1000], Tcp::Ack), tcp(A, B, [1000, 22], Tcp::Ack)] {
        assert_eq!(check(&denied, later(), &segment), NO);
    }
    assert_eq!(denied.flow_count(), 0);
}

#[test]
fn where_everything_is_allowed_nothing_is_noted() {
    let filter = filter(&[Rule::allow_all()]);
    assert_eq!(check(&filter, later(), &udp(B, A, [1, 2], 8)), Ok(()));
    assert_eq!(filter.flow_count(), 0);
    assert_eq!(check(&Filter::closed(START), later(), &udp(B, A, [1, 2], 8)), NO);
}

#[test]
fn an_error_passes_with_the_conversation_that_it_is_about() {
    let filter = filter(&[rule(Action::Allow, 1, 2, Protocol::Udp, Some(53))]);
    let asked = udp(A, B, [1000, 53], 8);
    let error = |source: [u8; 4], destination: [u8; 4], about: &[u8]| {
        let mut bytes = Vec::new();
        let icmp = PacketBuilder::ipv4(source, destination, 64).icmpv4_raw(3, 3, [0; 4]);
        icmp.write(&mut bytes, about).unwrap();
        bytes
    };
    assert_eq!(check(&filter, later(), &error(B, A, &asked)), NO, "nobody asked");
    assert_eq!(check(&filter, later(), &asked), Ok(()));
    assert_eq!(check(&filter, later(), &error(B, A, &asked)), Ok(()));
    assert_eq!(check(&filter, later(), &error(B, A, &udp(A, B, [1001, 53], 8))), NO);
    assert_eq!(check(&filter, later(), &error(B, [10, 64, 0, 9], &asked)), NO, "to somebody else");
    assert_eq!(check(&filter, later(), &error(B, A, &udp(B, A, [53, 1000], 8))), NO, "about what B sent itself");
}

#[test]
fn fragments_pass_with_their_first_one_only() {
    let filter = filter(&[rule(Action::Allow, 1, 2, Protocol::Udp, Some(53))]);
    let fragment = |port: u16, identification: u8, offset: u8| {
        let mut bytes = udp(A, B, [1000, port], 24);
        bytes[4..8].copy_from_slice(&[0, identification, if offset == 0 { 0x20 } else { 0 }, offset]);
        bytes
    };
    assert_eq!(check(&filter, later(), &fragment(53, 1, 4)), NO, "before its first one");
    assert_eq!(check(&filter, later(), &fragment(53, 1, 0)), Ok(()));
    assert_eq!(check(&filter, later(), &fragment(0, 1, 4)), Ok(()));
    assert_eq!(check(&filter, later(), &fragment(54, 2, 0)), NO);
    assert_eq!(check(&filter, later(), &fragment(53, 2, 4)), NO);
    let closed = filter.following(&policy(&[]));
    assert_eq!(check(&closed, later(), &fragment(53, 1, 4)), NO);
}

#[test]
fn what_hides_its_ports_does_not_pass() {
    let filter = filter(&[rule(Action::Allow, 1, 2, Protocol::Any, None)]);
    let mut first = tcp(A, B, [1000, 22], Tcp::Syn)[..36].to_vec();
    first[2..8].copy_from_slice(&[0, 36, 0, 1, 0x20, 0]);
    assert_eq!(check(&filter, later(), &first), Err(DropReason::PortsHidden));
}

#[test]
fn a_download_from_before_the_start_goes_on_for_it_says_nothing_itself() {
    let filter = filter(&[ssh()]);
    let data = tcp(B, A, [22, 1000], Tcp::Ack);
    assert_eq!(check(&filter, START, &tcp(B, A, [22, 1000], Tcp::SynAck)), NO);
    assert_eq!(check(&filter, START, &tcp(B, A, [23, 1000], Tcp::Ack)), NO);
    assert_eq!(check(&filter, START, &udp(B, A, [22, 1000], 8)), NO);
    assert_eq!(check(&filter, later(), &data), NO);
    assert_eq!(check(&filter, START, &data), Ok(()));
    assert_eq!(check(&filter, later(), &data), Ok(()), "and is known from then on");
    assert_eq!(check(&filter, later(), &tcp(A, B, [1000, 22], Tcp::Ack)), Ok(()));
}
