use super::*;
use crate::ledger::address::{Ipv4Choice, Ipv4Pool};
use crate::ledger::kit::*;
use crate::ledger::name::Label;
use crate::ledger::operation::{
    BridgeApprove, CredentialRevoke, Rename, Revoke, Scopes, SegmentDel, SegmentSet, SignerSet,
};
use crate::ledger::transaction::Transaction;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

mod credentials;
mod members;
mod names;
mod order;
mod properties;
mod relays;
mod routes;
mod rules;
mod segments;

fn segment_set() -> Operation {
    let (name, tag) = (label("lab"), label("lan"));
    Operation::SegmentSet(SegmentSet { name, tag, gateways: BTreeSet::new(), storm_limit: 1_000 })
}

fn small_pool(text: &str) -> Ipv4Choice {
    Ipv4Choice::Given(text.parse::<Ipv4Pool>().unwrap())
}

fn named(seed: u8, name: &str) -> crate::ledger::operation::Admit {
    crate::ledger::operation::Admit { name: Some(label(name)), ..admit(seed, 0) }
}

#[test]
fn genesis_holds_what_the_founder_decided() {
    let net = Net::new();
    assert_eq!(net.state.network().unwrap().name, label("home"));
    assert_eq!(net.state.members().len(), 1);
    assert_eq!(net.state.member(&id(FOUNDER)).unwrap().ipv4, Some(1));
    assert_eq!(net.state.signers().len(), 1);
    assert_eq!(net.state.seats(), seats());
    assert_eq!(net.state.recovery().unwrap().keys.len(), 2);
}

#[test]
fn a_state_is_restored_from_its_entries() {
    let mut net = Net::new();
    let until = net.later().after(DAY);
    net.order(Operation::Credential(credential(9, 3, until))).unwrap();
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    net.commit(net.revocation(ADMIN, &[(NODE, 0)])).unwrap();
    let entries: Vec<_> = net.state.entries().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    assert_eq!(State::from_entries(net.chain(), entries.clone()), Ok(net.state));
    for broken in [(vec![2, 1], Vec::new()), (vec![99], Vec::new()), (Vec::new(), Vec::new()), (vec![11], vec![1])] {
        assert_eq!(
            State::from_entries(net.genesis.network_id(), entries.iter().cloned().chain([broken])),
            Err(UnreadableEntry)
        );
    }
}

#[test]
fn an_operation_of_a_later_version_stops_everything() {
    let mut net = Net::new();
    let operations = vec![Operation::Admit(admit(NODE, 0)), Operation::Unknown { code: 999, bytes: vec![1] }];
    let transaction = net.sign(&[ADMIN], operations);
    assert_eq!(net.commit(transaction), Err(TxError::UnknownOperation(999)));
    assert!(!net.is_member(NODE));
}

#[test]
fn what_only_genesis_may_set_is_refused_later() {
    let mut net = Net::new();
    let founding = net.genesis.block.body.transactions[0].transaction.operations.clone();
    for operation in founding {
        let expected = match operation {
            Operation::NetworkSet(_) | Operation::ValidatorSet(_) | Operation::RecoverySet(_) => {
                Err(TxError::Misplaced(operation.name()))
            }
            Operation::Admit(_) => Err(TxError::AlreadyMember(id(FOUNDER))),
            _ => Ok(()),
        };
        assert_eq!(net.order(operation), expected);
    }
}

#[test]
fn the_policy_has_every_member_with_its_addresses() {
    let mut net = Net::with(small_pool("10.77.0.0/24"));
    net.order(Operation::Admit(named(NODE, "web"))).unwrap();
    let policy = net.state.policy(&BTreeMap::new());
    let member = policy.member(&id(NODE)).unwrap();
    assert_eq!(member.name, "web");
    assert_eq!(member.addresses[0], IpAddr::from([10, 77, 0, 2]));
    assert!(matches!(member.addresses[1], IpAddr::V6(address) if address.octets()[0] == 0xfd));
    assert_eq!(policy.validators().map(|(id, _)| *id).collect::<Vec<_>>(), [id(FOUNDER)]);
}

#[test]
fn a_pending_revocation_takes_its_incarnation_out_of_the_policy_and_no_later_one() {
    let mut net = Net::new();
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    let pending = BTreeMap::from([(id(NODE), 0)]);
    let policy = net.state.policy(&pending);
    assert!(policy.member(&id(NODE)).is_none() && policy.is_revoked(&id(NODE)));
    net.commit(net.revocation(ADMIN, &[(NODE, 0)])).unwrap();
    net.order(Operation::Admit(admit(NODE, 1))).unwrap();
    let policy = net.state.policy(&pending);
    assert!(policy.member(&id(NODE)).is_some() && !policy.is_revoked(&id(NODE)));
}

#[test]
fn a_revoked_validator_keeps_its_place_until_the_validators_change() {
    let mut net = Net::new();
    net.commit(net.revocation(ADMIN, &[(FOUNDER, 0)])).unwrap();
    let policy = net.state.policy(&BTreeMap::new());
    assert!(policy.member(&id(FOUNDER)).is_none());
    assert_eq!(policy.validators().map(|(id, _)| *id).collect::<Vec<_>>(), [id(FOUNDER)]);
}

#[test]
fn somebody_always_governs() {
    let mut net = Net::new();
    let set =
        |seed: u8, weight, scopes| Operation::SignerSet(SignerSet { key: key(seed).verifying_key(), weight, scopes });
    let revoker: Scopes = [Scope::Revocation].into_iter().collect();
    assert_eq!(net.order(set(ADMIN, 0, Scopes::ALL)), Err(TxError::NoGovernor));
    assert_eq!(net.order(set(ADMIN, 1, revoker)), Err(TxError::NoGovernor));
    assert_eq!(net.order(set(20, 1, Scopes::ALL)), Ok(()));
    assert_eq!(net.order(set(ADMIN, 1, revoker)), Ok(()));
    let refused = TxError::NotAuthorized { scope: Scope::Governance, weight: 0, threshold: 1 };
    assert_eq!(net.order(set(ADMIN, 1, Scopes::ALL)), Err(refused));
}

#[test]
fn each_operation_needs_a_signer_with_its_scope() {
    let mut net = Net::new();
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    let until = net.later().after(DAY);
    for (scope, operation) in [
        (Scope::Members, Operation::Admit(admit(NODE + 1, 0))),
        (Scope::Members, Operation::Rename(Rename { identity: id(FOUNDER), name: label("other") })),
        (Scope::Credentials, Operation::Credential(credential(9, 1, until))),
        (
            Scope::Credentials,
            Operation::CredentialRevoke(CredentialRevoke { key_hash: credential(9, 1, until).key_hash }),
        ),
        (Scope::Rights, segment_set()),
        (Scope::Rights, Operation::SegmentDel(SegmentDel { name: label("lab") })),
        (Scope::Rights, Operation::BridgeApprove(BridgeApprove { segment: label("lab"), member: id(NODE) })),
        (
            Scope::Governance,
            Operation::SignerSet(SignerSet { key: key(NODE).verifying_key(), weight: 1, scopes: Scopes::ALL }),
        ),
    ] {
        let transaction = net.sign(&[NODE], vec![operation]);
        assert_eq!(net.commit(transaction), Err(TxError::NotAuthorized { scope, weight: 0, threshold: 1 }));
    }
    let refused = TxError::NotAuthorized { scope: Scope::Revocation, weight: 0, threshold: 1 };
    assert_eq!(net.commit(net.revocation(NODE, &[(FOUNDER, 0)])), Err(refused));
}
