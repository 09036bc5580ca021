use super::*;

#[test]
fn an_unnamed_member_is_named_after_its_identity() {
    let mut net = Net::new();
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    let name = net.state.member(&id(NODE)).unwrap().name;
    assert_eq!(name.as_str(), format!("node-{}", &id(NODE).to_string()[..8]));
}

#[test]
fn a_name_that_follows_from_an_identity_is_kept_for_it() {
    let mut net = Net::new();
    let of_node = format!("node-{}", &id(NODE).to_string()[..8]);
    let taken = Err(TxError::NameOfAnother(label(&of_node)));
    assert_eq!(net.order(Operation::Admit(named(NODE + 1, &of_node))), taken);
    net.order(Operation::Admit(named(NODE + 1, "node-1"))).unwrap();
    let rename = vec![Operation::Rename(Rename { identity: id(NODE + 1), name: label(&of_node) })];
    let by_itself = net.sign(&[NODE + 1], rename.clone());
    assert_eq!(net.commit(by_itself), taken);
    assert_eq!(net.order(rename[0].clone()), taken);
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    assert_eq!(net.state.member(&id(NODE)).unwrap().name, label(&of_node));
}

#[test]
fn identities_that_begin_alike_are_both_admitted() {
    let net = Net::new();
    // Digits that another identity, ground out for it, holds already.
    let of_node = label(&format!("node-{}", &id(NODE).to_string()[..8]));
    let mut held = net.state.draft(Height(1), net.later());
    held.layers.put(&super::super::records::NAMES, &of_node, &Tenure::Held(id(NODE + 1)));
    assert_eq!(held.take_default_name(&id(NODE)), Ok(label(&format!("node-{}", &id(NODE).to_string()[..16]))));
}

#[test]
fn nobody_is_admitted_twice() {
    let mut net = Net::new();
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    assert_eq!(net.order(Operation::Admit(admit(NODE, 0))), Err(TxError::AlreadyMember(id(NODE))));
}

#[test]
fn a_name_an_address_and_a_transport_key_belong_to_one_member() {
    let mut net = Net::with(small_pool("10.77.0.0/24"));
    let ipv4 = Some(Ipv4Addr::new(10, 77, 0, 9));
    net.order(Operation::Admit(crate::ledger::operation::Admit { ipv4, ..named(NODE, "web") })).unwrap();
    let other = named(NODE + 1, "web");
    assert_eq!(net.order(Operation::Admit(other.clone())), Err(TxError::NameTaken(label("web"))));
    let other = crate::ledger::operation::Admit { name: None, ipv4, ..other };
    assert_eq!(net.order(Operation::Admit(other.clone())), Err(TxError::Ipv4Taken(Ipv4Addr::new(10, 77, 0, 9))));
    let transport_key = admit(NODE, 0).transport_key;
    let other = crate::ledger::operation::Admit { ipv4: None, transport_key, ..other };
    assert_eq!(net.order(Operation::Admit(other)), Err(TxError::TransportKeyTaken));
    assert_eq!(net.state.members().len(), 2);
}

#[test]
fn the_first_the_last_the_resolvers_and_foreign_addresses_are_given_to_nobody() {
    let mut net = Net::with(small_pool("10.77.0.0/24"));
    for host in [[10, 77, 0, 0], [10, 77, 0, 53], [10, 77, 0, 255], [10, 78, 0, 1], [9, 0, 0, 1]] {
        let ipv4 = Some(Ipv4Addr::from(host));
        let wished = crate::ledger::operation::Admit { ipv4, ..admit(NODE, 0) };
        assert_eq!(net.order(Operation::Admit(wished)), Err(TxError::Ipv4Taken(Ipv4Addr::from(host))));
    }
}

#[test]
fn addresses_are_given_upwards_and_wrap_around() {
    let mut net = Net::with(small_pool("10.77.0.0/29"));
    for (seed, host) in [(NODE, 2), (NODE + 1, 3), (NODE + 2, 4), (NODE + 3, 5), (NODE + 4, 6)] {
        net.order(Operation::Admit(admit(seed, 0))).unwrap();
        assert_eq!(net.state.member(&id(seed)).unwrap().ipv4, Some(host));
    }
    assert_eq!(net.order(Operation::Admit(admit(NODE + 5, 0))), Err(TxError::PoolExhausted));
    net.commit(net.revocation(ADMIN, &[(NODE + 1, 0)])).unwrap();
    assert_eq!(net.order(Operation::Admit(admit(NODE + 5, 0))), Err(TxError::PoolExhausted));
    let rested = net.head.header.time.after(REST);
    net.commit_at(rested, &[]);
    net.order(Operation::Admit(admit(NODE + 5, 0))).unwrap();
    assert_eq!(net.state.member(&id(NODE + 5)).unwrap().ipv4, Some(3));
}

#[test]
fn a_freed_name_rests_and_only_its_last_holder_has_it_back_before() {
    let mut net = Net::new();
    net.order(Operation::Admit(named(NODE, "web"))).unwrap();
    net.commit(net.revocation(ADMIN, &[(NODE, 0)])).unwrap();
    assert_eq!(net.order(Operation::Admit(named(NODE + 1, "web"))), Err(TxError::NameTaken(label("web"))));
    let again = crate::ledger::operation::Admit { incarnation: 1, ..named(NODE, "web") };
    net.order(Operation::Admit(again)).unwrap();
    let renamed = Rename { identity: id(NODE), name: label("mailer") };
    net.order(Operation::Rename(renamed)).unwrap();
    assert_eq!(net.order(Operation::Admit(named(NODE + 1, "web"))), Err(TxError::NameTaken(label("web"))));
    let rested = net.head.header.time.after(REST);
    net.commit_at(rested, &[]);
    net.order(Operation::Admit(named(NODE + 1, "web"))).unwrap();
}

#[test]
fn a_member_renames_itself_but_not_to_a_name_that_people_trust() {
    let mut net = Net::new();
    net.order(Operation::Admit(named(NODE, "web"))).unwrap();
    let rename = |name: &str| vec![Operation::Rename(Rename { identity: id(NODE), name: label(name) })];
    let to_shop = net.sign(&[NODE], rename("shop"));
    assert_eq!(net.commit(to_shop), Ok(()));
    let to_mail = net.sign(&[NODE], rename("mail"));
    assert!(matches!(net.commit(to_mail), Err(TxError::NotAuthorized { scope: Scope::Members, .. })));
    assert_eq!(net.order(rename("mail").remove(0)), Ok(()));
    assert_eq!(net.state.member(&id(NODE)).unwrap().name, label("mail"));
}

#[test]
fn a_membership_ends_at_its_time_before_anything_else_happens() {
    let mut net = Net::new();
    let expires = net.later().after(DAY);
    let brief = crate::ledger::operation::Admit { expires: Some(expires), ..named(NODE, "web") };
    net.order(Operation::Admit(brief.clone())).unwrap();
    assert_eq!(net.state.next_ending(), Some(expires));
    let again = net.sign(&[ADMIN], vec![Operation::Admit(crate::ledger::operation::Admit { expires: None, ..brief })]);
    let again = Transaction { valid_until: expires.after(HOUR), ..again.transaction.clone() };
    let again = net.sign_with(&[ADMIN], again);
    let before = net.propose(UnixMillis(expires.0 - 1), std::slice::from_ref(&again));
    assert_eq!(before.dropped, [(again.id(), TxError::AlreadyMember(id(NODE)))]);
    assert_eq!(net.propose(expires, std::slice::from_ref(&again)).dropped, []);
    net.commit_at(expires, &[]);
    assert!(!net.is_member(NODE));
    assert_eq!(net.state.next_ending(), None);
    assert_eq!(net.state.incarnation(&id(NODE)), 0);
}

#[test]
fn a_revocation_is_for_the_current_incarnation() {
    let mut net = Net::new();
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    let future = TxError::FutureIncarnation { identity: id(NODE), current: 0, given: 1 };
    assert_eq!(net.commit(net.revocation(ADMIN, &[(NODE, 1)])), Err(future));
    assert_eq!(net.commit(net.revocation(ADMIN, &[(NODE, 0)])), Ok(()));
    assert!(!net.is_member(NODE));
    let wrong = TxError::WrongIncarnation { identity: id(NODE), current: 1, given: 0 };
    assert_eq!(net.order(Operation::Admit(admit(NODE, 0))), Err(wrong));
    assert_eq!(net.order(Operation::Admit(admit(NODE, 1))), Ok(()));
    assert_eq!(net.commit(net.revocation(ADMIN, &[(NODE, 0)])), Err(TxError::AlreadyRevoked));
    assert!(net.is_member(NODE));
}

#[test]
fn a_revocation_kills_an_admission_that_comes_after_it() {
    let mut net = Net::new();
    let admission = net.admission(admit(NODE, 0));
    assert_eq!(net.commit(net.revocation(ADMIN, &[(NODE, 0)])), Ok(()));
    let wrong = TxError::WrongIncarnation { identity: id(NODE), current: 1, given: 0 };
    assert_eq!(net.commit(admission), Err(wrong));
}

#[test]
fn a_revocation_of_many_survives_that_some_are_revoked_already() {
    let mut net = Net::new();
    for seed in [NODE, NODE + 1] {
        net.order(Operation::Admit(admit(seed, 0))).unwrap();
    }
    net.commit(net.revocation(ADMIN, &[(NODE, 0)])).unwrap();
    net.commit(net.revocation(ADMIN, &[(NODE, 0), (NODE + 1, 0)])).unwrap();
    assert!(!net.is_member(NODE) && !net.is_member(NODE + 1));
    assert_eq!(net.commit(net.revocation(ADMIN, &[(NODE, 0), (NODE + 1, 0)])), Err(TxError::AlreadyRevoked));
}

#[test]
fn a_transaction_happens_as_a_whole_or_not_at_all() {
    let mut net = Net::new();
    let operations = vec![Operation::Admit(named(NODE, "web")), Operation::Admit(named(NODE + 1, "web"))];
    let transaction = net.sign(&[ADMIN], operations);
    let before = net.state.clone();
    let built = net.propose(net.later(), std::slice::from_ref(&transaction));
    assert_eq!(built.dropped, [(transaction.id(), TxError::NameTaken(label("web")))]);
    assert_eq!((built.execution.effects, net.state.clone()), (Vec::new(), before));
    let committers: Vec<_> = built.execution.changes.iter().map(|(key, _)| key[0]).collect();
    assert_eq!(committers, [17, 18], "the first block records who committed, and nothing else happened");
}

#[test]
fn weak_keys_become_no_members() {
    let mut net = Net::new();
    let weak = crate::ledger::operation::Admit { node_key: VerifyingKey([0; 32]), ..admit(NODE, 0) };
    assert_eq!(net.order(Operation::Admit(weak)), Err(TxError::UnusableKey(id(NODE))));
    let weak = crate::ledger::operation::Admit { identity: NodeId([0; 32]), ..admit(NODE, 0) };
    assert_eq!(net.order(Operation::Admit(weak)), Err(TxError::UnusableKey(NodeId([0; 32]))));
}

#[test]
fn too_many_tags_are_refused() {
    let mut net = Net::new();
    let tags = |count: usize| -> BTreeSet<Label> { (0..count).map(|tag| label(&format!("tag-{tag}"))).collect() };
    let tagged = |count| crate::ledger::operation::Admit { tags: tags(count), ..admit(NODE, 0) };
    assert_eq!(net.order(Operation::Admit(tagged(17))), Err(TxError::TooManyTags));
    assert_eq!(net.order(Operation::Admit(tagged(16))), Ok(()));
}

#[test]
fn revoking_a_member_revokes_everything_it_was() {
    let mut net = Net::new();
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    let revoked = Revoke { identity: id(NODE), incarnation: 0 };
    let renamed = Rename { identity: id(FOUNDER), name: label("other") };
    let both = net.sign(&[ADMIN], vec![Operation::Revoke(revoked), Operation::Rename(renamed)]);
    net.commit(both).unwrap();
    let table = |tag: u8| net.state.entries().filter(|(key, _)| key[0] == tag).count();
    assert_eq!([table(2), table(6), table(7)], [1, 1, 1], "only the founder is left");
    assert_eq!(net.state.incarnation(&id(NODE)), 1);
}
