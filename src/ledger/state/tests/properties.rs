use super::*;
use crate::ledger::chain::execute;
use crate::ledger::operation::{NameDel, NameSet, WhichRecords};
use crate::wire::record::{RecordData, RecordName, Target, Text};
use proptest::prelude::*;

/// What a random history is made of.
#[derive(Clone, Debug)]
enum Step {
    Admit { node: u8, incarnation: u64, name: u8, brief: bool },
    Revoke { node: u8, incarnation: u64 },
    Rename { node: u8, name: u8 },
    Credential { which: u8, uses: u32 },
    Join { node: u8, which: u8 },
    Record { by: u8, at: u8, kind: u8, target: u8 },
    Unrecord { at: u8 },
    Wait { days: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0u8..6;
    prop_oneof![
        4 => (node.clone(), 0u64..3, 0u8..4, any::<bool>())
            .prop_map(|(node, incarnation, name, brief)| Step::Admit { node, incarnation, name, brief }),
        3 => (node.clone(), 0u64..3).prop_map(|(node, incarnation)| Step::Revoke { node, incarnation }),
        2 => (node.clone(), 0u8..4).prop_map(|(node, name)| Step::Rename { node, name }),
        2 => (0u8..3, 1u32..3).prop_map(|(which, uses)| Step::Credential { which, uses }),
        3 => (node, 0u8..3).prop_map(|(node, which)| Step::Join { node, which }),
        6 => (0u8..12, 0u8..10, 0u8..4, 0u8..10)
            .prop_map(|(by, at, kind, target)| Step::Record { by, at, kind, target }),
        2 => (0u8..10).prop_map(|at| Step::Unrecord { at }),
        1 => (1u8..20).prop_map(|days| Step::Wait { days }),
    ]
}

fn name_of(name: u8) -> Option<Label> {
    (name > 0).then(|| label(&format!("name-{name}")))
}

/// A name of the zone: of members, below them, and of nobody.
fn record_name(at: u8) -> RecordName {
    let text = match at {
        0 => "@".to_owned(),
        1..4 => format!("name-{at}"),
        4..7 => format!("www.name-{}", at - 3),
        _ => format!("shop-{at}"),
    };
    text.parse().unwrap()
}

/// A record of some kind that points to a node or to a name.
fn record(kind: u8, target: u8) -> RecordData {
    let node = id(NODE + target % 6);
    let target = if target.is_multiple_of(2) { Target::Member(node) } else { Target::Name(record_name(target)) };
    match kind {
        0 | 1 => RecordData::Address(node),
        2 => RecordData::Mail { priority: 10, target },
        _ => RecordData::Text(Text::new(vec!["text".to_owned()]).unwrap()),
    }
}

/// Signs a step; none for the passing of time.
fn signed(net: &mut Net, step: &Step) -> Option<Verified<SignedTransaction>> {
    let soon = net.later().after(DAY * 3);
    Some(match *step {
        Step::Admit { node, incarnation, name, brief } => {
            let expires = brief.then_some(soon);
            let admit =
                crate::ledger::operation::Admit { name: name_of(name), expires, ..admit(NODE + node, incarnation) };
            net.admission(admit)
        }
        Step::Revoke { node, incarnation } => net.revocation(ADMIN, &[(NODE + node, incarnation)]),
        Step::Rename { node, name } => {
            let name = name_of(name).unwrap_or_else(|| label("plain"));
            net.sign(&[ADMIN], vec![Operation::Rename(Rename { identity: id(NODE + node), name })])
        }
        Step::Credential { which, uses } => {
            net.sign(&[ADMIN], vec![Operation::Credential(credential(50 + which, uses, soon))])
        }
        Step::Join { node, which } => net.joining(join(NODE + node, 50 + which), 50 + which, NODE + node),
        Step::Record { by, at, kind, target } => {
            let set = NameSet { name: record_name(at), data: record(kind, target) };
            net.sign(&[if by < 6 { NODE + by } else { ADMIN }], vec![Operation::NameSet(set)])
        }
        Step::Unrecord { at } => {
            let del = NameDel { name: record_name(at), which: WhichRecords::All };
            net.sign(&[ADMIN], vec![Operation::NameDel(del)])
        }
        Step::Wait { .. } => return None,
    })
}

/// Commits random blocks, executing each on a second state that was restored from its entries.
fn run(steps: &[Vec<Step>]) -> Net {
    let mut net = Net::with(small_pool("10.77.0.0/29"));
    for block in steps {
        let waited: u64 =
            block.iter().map(|step| if let Step::Wait { days } = step { u64::from(*days) } else { 0 }).sum();
        let transactions: Vec<_> = block.iter().filter_map(|step| signed(&mut net, step)).collect();
        let time = net.later().after(DAY * u32::try_from(waited).unwrap());
        let built = net.propose(time, &transactions);
        let entries = net.state.entries().map(|(key, value)| (key.to_vec(), value.to_vec()));
        let twin = State::from_entries(net.chain(), entries).unwrap();
        let execution = execute(&net.head, &twin, &net.tree, &built.block).unwrap();
        assert_eq!(execution, built.execution);
        net.take(&built.block, &execution);
        check_invariants(&net);
    }
    net
}

/// No address, name or key twice; every index agrees with the members; what has ended is nowhere.
fn check_invariants(net: &Net) {
    let members = net.state.members();
    let count = members.len();
    let distinct = |values: BTreeSet<String>| values.len();
    assert_eq!(distinct(members.iter().map(|(_, member)| member.name.to_string()).collect()), count);
    assert_eq!(distinct(members.iter().map(|(_, member)| format!("{:?}", member.ipv4)).collect()), count);
    assert_eq!(distinct(members.iter().map(|(_, member)| member.transport_key.to_string()).collect()), count);
    let policy = net.state.policy(&BTreeMap::new());
    for (id, member) in &members {
        assert!(member.expires.is_none_or(|expires| expires > net.head.header.time));
        assert!(net.state.incarnation(id) <= member.incarnation);
        let admitted = policy.member(id).unwrap();
        for address in &admitted.addresses {
            assert_eq!(policy.owner(address).unwrap().id, *id);
        }
    }
    let table = |tag: u8| net.state.entries().filter(|(key, _)| key[0] == tag).count();
    assert_eq!([table(6), table(7)], [count, count]);
    assert_eq!(table(9), net.state.credentials().len());
    let resting = table(4) + table(5) - 2 * count;
    assert_eq!(table(15), resting, "everything that rests has one end");
    let brief = members.iter().filter(|(_, member)| member.expires.is_some()).count();
    check_records(net, &policy);
    assert_eq!(table(14), brief + net.state.credentials().len(), "everything that ends has one end");
}

/// Every record belongs to the network or to a member's name and points to something; the index and the totals agree with the records.
fn check_records(net: &Net, policy: &crate::policy::Policy) {
    let records = net.state.name_records();
    let by_name = |text: &str| net.state.members().into_iter().any(|(_, member)| member.name.as_str() == text);
    let is_members = |name: &RecordName| name.top().is_some_and(by_name);
    for (name, record) in &records {
        let top = name.top().map(label);
        assert!(top.is_none_or(|top| !matches!(net.state.tenure(&top), Some(Tenure::Resting { .. }))), "{name}");
        match record.data.target() {
            Some(Target::Member(id)) => assert!(policy.member(&id).is_some()),
            Some(Target::Name(target)) => {
                let is_address = |data: &RecordData| matches!(data, RecordData::Address(_));
                assert!(records.iter().any(|(name, record)| *name == target && is_address(&record.data)));
            }
            None => {}
        }
        assert!(policy.names().of(name).contains(&record.data), "what is in force is what the state holds");
    }
    let part = |number: u8| net.state.entries().filter(|(key, _)| key.starts_with(&[24, number])).count();
    assert_eq!(part(0), records.len());
    assert_eq!(part(1), records.iter().filter(|(_, record)| record.data.target().is_some()).count());
    let totals = net.state.value(&[24, 2]).map(|bytes| borsh::from_slice::<(u32, u32)>(bytes).unwrap());
    let members = records.iter().filter(|(name, _)| is_members(name)).count();
    let counted = totals.map(|(network, members)| (network as usize, members as usize)).unwrap_or_default();
    assert_eq!(counted, (records.len() - members, members));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_keep_every_rule(steps in proptest::collection::vec(proptest::collection::vec(step(), 1..6), 1..12)) {
        let once = run(&steps);
        let twice = run(&steps);
        prop_assert_eq!(once.head.id, twice.head.id);
        prop_assert_eq!(once.state, twice.state);
    }

    #[test]
    fn the_order_of_revocations_and_admissions_does_not_matter(order in Just((0usize..4).collect::<Vec<_>>()).prop_shuffle()) {
        let mut net = Net::new();
        let transactions = [
            net.revocation(ADMIN, &[(NODE, 0)]),
            net.revocation(ADMIN, &[(NODE + 1, 0), (NODE, 0)]),
            {
                let author = key(ADMIN).verifying_key();
                let operations = vec![Operation::Admit(admit(NODE, 0))];
                net.sign_with(&[ADMIN], Transaction::new(author, 100, BEGIN.after(DAY), operations))
            },
            {
                let set = vec![Operation::Admit(admit(NODE + 1, 0))];
                let author = key(20).verifying_key();
                let signer = SignerSet { key: author, weight: 1, scopes: Scopes::ALL };
                net.order(Operation::SignerSet(signer)).unwrap();
                net.sign_with(&[20], Transaction::new(author, 100, BEGIN.after(DAY), set))
            },
        ];
        for place in order {
            let _ = net.commit(transactions[place].clone());
        }
        prop_assert!(!net.is_member(NODE) && !net.is_member(NODE + 1));
        prop_assert_eq!(net.state.incarnation(&id(NODE)), 1);
        prop_assert_eq!(net.state.incarnation(&id(NODE + 1)), 1);
    }
}
