use super::*;
use crate::ledger::operation::{Admit, BridgeRevoke, MAX_GATEWAYS, MAX_STORM_LIMIT};
use crate::policy::Segment;
use crate::wire::frame::SegmentNumber;

fn set(name: &str) -> SegmentSet {
    SegmentSet { name: label(name), tag: label("lan"), gateways: BTreeSet::new(), storm_limit: 1_000 }
}

fn approve(name: &str, seed: u8) -> Operation {
    Operation::BridgeApprove(BridgeApprove { segment: label(name), member: id(seed) })
}

/// A network with a segment `lab` and two members with its tag, the first of which bridges.
fn with_segment() -> Net {
    let mut net = Net::new();
    for seed in [NODE, NODE + 1] {
        net.order(Operation::Admit(Admit { tags: [label("lan")].into(), ..admit(seed, 0) })).unwrap();
    }
    net.order(Operation::SegmentSet(set("lab"))).unwrap();
    net.order(approve("lab", NODE)).unwrap();
    net
}

fn segments(net: &Net) -> Vec<Segment> {
    net.state.policy(&BTreeMap::new()).segments().cloned().collect()
}

#[test]
fn a_segment_is_in_the_policy_with_its_bridges_and_keeps_its_number_when_it_is_set_anew() {
    let mut net = with_segment();
    let [segment] = &segments(&net)[..] else { panic!("one segment") };
    assert_eq!((segment.name.as_str(), segment.tag.as_str(), segment.storm_limit), ("lab", "lan", 1_000));
    assert_eq!(segment.bridges, [id(NODE)].into());
    let policy = net.state.policy(&BTreeMap::new());
    let members: Vec<_> = policy.members().filter(|it| segment.has(it)).map(|it| it.id).collect();
    assert_eq!(BTreeSet::from_iter(members), BTreeSet::from([id(NODE), id(NODE + 1)]));
    let number = segment.number;
    let gateways = BTreeSet::from([id(NODE + 1)]);
    net.order(Operation::SegmentSet(SegmentSet { gateways: gateways.clone(), storm_limit: 5, ..set("lab") })).unwrap();
    let changed = segments(&net).remove(0);
    assert_eq!((changed.number, changed.gateways, changed.storm_limit), (number, gateways, 5));
    assert_eq!(changed.bridges.len(), 1, "bridges stay");
}

#[test]
fn an_ended_segment_takes_its_bridges_along_and_its_number_does_not_come_again() {
    let mut net = with_segment();
    let number = segments(&net)[0].number;
    net.order(Operation::SegmentDel(SegmentDel { name: label("lab") })).unwrap();
    assert_eq!((segments(&net), net.state.bridges(number.0)), (vec![], vec![]));
    let refused = net.order(Operation::SegmentDel(SegmentDel { name: label("lab") }));
    assert_eq!(refused, Err(TxError::NoSuchSegment(label("lab"))));
    assert_eq!(net.order(approve("lab", NODE)), Err(TxError::NoSuchSegment(label("lab"))));
    net.order(Operation::SegmentSet(set("lab"))).unwrap();
    let [again] = &segments(&net)[..] else { panic!("one segment") };
    assert!(again.number != number && again.bridges.is_empty());
}

#[test]
fn who_is_cut_bridges_nothing_even_when_it_is_admitted_again() {
    let mut net = with_segment();
    let gateways = BTreeSet::from([id(NODE), id(NODE + 1)]);
    net.order(Operation::SegmentSet(SegmentSet { gateways, ..set("lab") })).unwrap();
    net.commit(net.revocation(ADMIN, &[(NODE, 0)])).unwrap();
    net.order(Operation::Admit(admit(NODE, 1))).unwrap();
    let segment = segments(&net).remove(0);
    assert_eq!((segment.bridges, segment.gateways), (BTreeSet::new(), BTreeSet::from([id(NODE + 1)])));
}

#[test]
fn a_bridge_may_be_given_up_by_its_member_and_ended_by_a_signer() {
    let mut net = with_segment();
    let revoke = |seed| Operation::BridgeRevoke(BridgeRevoke { segment: label("lab"), member: id(seed) });
    let stranger = net.sign(&[NODE + 1], vec![revoke(NODE)]);
    assert!(matches!(net.commit(stranger), Err(TxError::NotAuthorized { scope: Scope::Rights, .. })));
    let own = net.sign(&[NODE], vec![revoke(NODE)]);
    assert_eq!(net.commit(own), Ok(()));
    assert_eq!(net.order(revoke(NODE)), Err(TxError::NotABridge(id(NODE), label("lab"))));
    net.order(approve("lab", NODE + 1)).unwrap();
    assert_eq!(net.order(revoke(NODE + 1)), Ok(()));
    assert!(segments(&net)[0].bridges.is_empty());
}

#[test]
fn segments_bridges_and_gateways_have_their_limits() {
    let mut net = with_segment();
    for bad in [
        SegmentSet { storm_limit: 0, ..set("bad") },
        SegmentSet { storm_limit: MAX_STORM_LIMIT + 1, ..set("bad") },
        SegmentSet { gateways: (0..=MAX_GATEWAYS).map(|seed| id(seed as u8)).collect(), ..set("bad") },
    ] {
        assert_eq!(net.order(Operation::SegmentSet(bad)), Err(TxError::BadSegment));
    }
    let stranger = SegmentSet { gateways: [id(99)].into(), ..set("bad") };
    assert_eq!(net.order(Operation::SegmentSet(stranger)), Err(TxError::NotAMember(id(99))));
    assert_eq!(net.order(approve("lab", 99)), Err(TxError::NotAMember(id(99))));
    for first in (1..MAX_SEGMENTS).step_by(15) {
        let names = first..(first + 15).min(MAX_SEGMENTS);
        let operations = names.map(|number| Operation::SegmentSet(set(&format!("s{number}")))).collect();
        let transaction = net.sign(&[ADMIN], operations);
        net.commit(transaction).unwrap();
    }
    let numbers: BTreeSet<SegmentNumber> = segments(&net).iter().map(|segment| segment.number).collect();
    assert_eq!(numbers.len(), MAX_SEGMENTS, "each has a number of its own");
    assert_eq!(net.order(Operation::SegmentSet(set("one-more"))), Err(TxError::TooManySegments));
    assert_eq!(net.order(Operation::SegmentSet(set("s7"))), Ok(()), "one that is there may change");
}
