use super::*;
use crate::ledger::operation::{PROTOCOL_VERSION, ProtocolSet, RuleDel, Tags};
use crate::policy::rule::{Action, Ports, Protocol, Rule, Selector};

fn rule(action: Action, source: Selector, destination: Selector) -> Rule {
    Rule::new(action, [source, destination], Protocol::Any, Ports::default()).unwrap()
}

/// Allows a member to reach everybody.
fn from_member(seed: u8) -> Rule {
    rule(Action::Allow, Selector::Member(id(seed)), Selector::Any)
}

fn numbers(net: &Net) -> Vec<u64> {
    net.state.rules().into_iter().map(|(number, _)| number).collect()
}

fn tag(seed: u8, tags: &[&str]) -> Tags {
    Tags { identity: id(seed), tags: tags.iter().map(|tag| label(tag)).collect() }
}

#[test]
fn a_network_begins_with_everything_allowed_by_its_first_signer() {
    let net = Net::new();
    let (number, record) = net.state.rules().pop().unwrap();
    assert_eq!((number, record.rule, record.approval.height), (1, Rule::allow_all(), Height(0)));
    assert_eq!(record.approval.signers, [key(ADMIN).verifying_key()]);
}

#[test]
fn rules_are_numbered_once_and_remember_who_made_them() {
    let mut net = Net::new();
    let made = net.sign(&[ADMIN], vec![Operation::Rule(from_member(FOUNDER))]);
    let made_id = made.id();
    net.commit(made).unwrap();
    let record = net.state.rule(2).unwrap();
    assert_eq!((record.approval.transaction, record.approval.height), (made_id.0, Height(1)));
    assert_eq!(net.order(Operation::Rule(from_member(FOUNDER))), Err(TxError::RuleExists(2)));
    net.order(Operation::RuleDel(RuleDel { number: 2 })).unwrap();
    assert_eq!(net.order(Operation::RuleDel(RuleDel { number: 2 })), Err(TxError::NoSuchRule(2)));
    net.order(Operation::Rule(from_member(FOUNDER))).unwrap();
    assert_eq!(numbers(&net), [1, 3]);
}

#[test]
fn only_a_signer_makes_and_ends_rules_and_gives_tags() {
    let mut net = Net::new();
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    let operations = [
        Operation::Rule(from_member(NODE)),
        Operation::RuleDel(RuleDel { number: 1 }),
        Operation::Tag(tag(NODE, &["a"])),
        Operation::Untag(tag(NODE, &["a"])),
        Operation::ProtocolSet(ProtocolSet { version: PROTOCOL_VERSION }),
    ];
    for operation in operations {
        let by_itself = net.sign(&[NODE], vec![operation]);
        assert!(matches!(net.commit(by_itself), Err(TxError::NotAuthorized { .. })));
    }
    assert_eq!(numbers(&net), [1]);
}

#[test]
fn a_rule_ends_with_the_member_that_it_names() {
    let mut net = Net::new();
    assert_eq!(net.order(Operation::Rule(from_member(NODE))), Err(TxError::NotAMember(id(NODE))));
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    net.order(Operation::Rule(from_member(NODE))).unwrap();
    let both = rule(Action::Deny, Selector::Member(id(FOUNDER)), Selector::Member(id(NODE)));
    net.order(Operation::Rule(both)).unwrap();
    net.order(Operation::Rule(from_member(FOUNDER))).unwrap();
    assert_eq!(numbers(&net), [1, 2, 3, 4]);
    net.commit(net.revocation(ADMIN, &[(NODE, 0)])).unwrap();
    assert_eq!(numbers(&net), [1, 4]);
    net.order(Operation::Admit(admit(NODE, 1))).unwrap();
    assert_eq!(numbers(&net), [1, 4], "who comes back brings nothing");
    net.order(Operation::Rule(from_member(NODE))).unwrap();
    assert_eq!(numbers(&net), [1, 4, 5]);
}

#[test]
fn tags_are_given_and_taken_and_have_a_bound() {
    let mut net = Net::new();
    let tags = |net: &Net| net.state.member(&id(FOUNDER)).unwrap().tags;
    net.order(Operation::Tag(tag(FOUNDER, &["b", "a"]))).unwrap();
    net.order(Operation::Untag(tag(FOUNDER, &["a", "never-had"]))).unwrap();
    assert_eq!(tags(&net), [label("b")].into());
    let many: Vec<_> = (0..16).map(|number| format!("t{number}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(net.order(Operation::Tag(tag(FOUNDER, &many))), Err(TxError::TooManyTags));
    assert_eq!(net.order(Operation::Tag(tag(FOUNDER, &[]))), Err(TxError::NoTags));
    assert_eq!(net.order(Operation::Tag(tag(NODE, &["a"]))), Err(TxError::NotAMember(id(NODE))));
    assert_eq!(tags(&net), [label("b")].into());
}

#[test]
fn a_network_of_version_1_has_no_rules_until_it_is_raised() {
    let mut net = Net::of_version(1);
    let later = TxError::LaterProtocol { operation: "rule", needed: 2, network: 1 };
    assert_eq!(net.order(Operation::Rule(from_member(FOUNDER))), Err(later));
    assert!(numbers(&net).is_empty());
    let raise = |version| Operation::ProtocolSet(ProtocolSet { version });
    assert_eq!(net.order(raise(1)), Err(TxError::EarlierProtocol(1)));
    let both = net.sign(&[ADMIN], vec![raise(2), Operation::Rule(from_member(FOUNDER))]);
    net.commit(both).unwrap();
    assert_eq!(net.state.network().unwrap().protocol_version, 2);
    assert_eq!((numbers(&net), net.state.rule(1).unwrap().rule), (vec![1, 2], Rule::allow_all()));
    assert_eq!(net.order(raise(2)), Err(TxError::EarlierProtocol(2)));
}

#[test]
fn a_version_that_this_program_lacks_says_upgrade() {
    let mut net = Net::new();
    let raise = Operation::ProtocolSet(ProtocolSet { version: PROTOCOL_VERSION + 1 });
    assert_eq!(net.order(raise), Err(TxError::UnknownProtocol(PROTOCOL_VERSION + 1)));
}
