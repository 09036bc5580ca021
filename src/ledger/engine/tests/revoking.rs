use super::*;
use crate::ledger::revocation::cuts_key;

/// A pair whose validator has been stopped, with a few more members.
fn without_validator(members: u8) -> World {
    let mut world = World::pair();
    for seed in NODE + 1..NODE + 1 + members {
        world.order(0, Operation::Admit(admit(seed, 0)));
    }
    world.nodes[0].is_up = false;
    world.nodes[1].events.clear();
    world
}

fn is_member(world: &World, node: usize, seed: u8) -> bool {
    world.nodes[node].ledger.policy().member(&id(seed)).is_some()
}

/// How many revocations are on disk, beside the count of the signers' cuts.
fn stored_revocations(node: &Node) -> usize {
    let rows = node.ledger.store.revocations().unwrap();
    rows.iter().filter(|(key, _)| *key != cuts_key()).count()
}

#[test]
fn a_revocation_acts_before_any_block_and_survives_a_restart() {
    let mut world = without_validator(1);
    let revocation = world.revocation(ADMIN, &[(NODE + 1, 0)]);
    world.nodes[1].ledger.submit(world.now, revocation.clone()).unwrap();
    assert!(!is_member(&world, 1, NODE + 1));
    world.settle();
    let removed_keys = vec![TransportKey([NODE + 1; 32])];
    let removed = PolicyDiff { removed: vec![id(NODE + 1)], removed_keys, ..PolicyDiff::default() };
    assert_eq!(world.nodes[1].policy_changes(), [&removed]);
    assert_eq!(world.nodes[1].ledger.head().unwrap().height(), Height(2));
    world.nodes[1].restart().unwrap();
    assert!(!is_member(&world, 1, NODE + 1));
    assert_eq!(world.nodes[1].ledger.pending().len(), 1);
    world.nodes[0].is_up = true;
    world.meet();
    assert_eq!(world.heights(), [3, 3]);
    assert!(!is_member(&world, 0, NODE + 1) && !is_member(&world, 1, NODE + 1));
    assert!(world.nodes[1].ledger.pending().is_empty());
    assert_eq!(stored_revocations(&world.nodes[1]), 0);
}

#[test]
fn everybody_with_a_session_hears_of_a_revocation_with_its_body() {
    let mut world = without_validator(1);
    let revocation = world.revocation(ADMIN, &[(NODE + 1, 0)]);
    world.nodes[1].ledger.submit(world.now, revocation.clone()).unwrap();
    let message = world.nodes[1].ledger.poll_message();
    assert_eq!(message, Some((Recipient::EverySession, LedgerMessage::Transactions(vec![revocation]))));
}

#[test]
fn who_was_away_pulls_the_pending_revocations() {
    let mut world = without_validator(1);
    let genesis = found(Ipv4Choice::Derived);
    let revocation = world.revocation(ADMIN, &[(NODE + 1, 0)]);
    world.nodes[1].ledger.submit(world.now, revocation).unwrap();
    world.settle();
    world.nodes.push(Node::joiner(&genesis, NODE + 2, None));
    world.meet();
    world.pass(Duration::from_secs(15));
    assert_eq!(world.heights()[2], 2);
    assert!(!is_member(&world, 2, NODE + 1));
}

#[test]
fn a_revocation_by_nobody_in_particular_does_nothing() {
    let mut world = without_validator(1);
    let forged = world.revocation(NODE, &[(NODE + 1, 0)]);
    let refused = world.nodes[1].ledger.submit(world.now, forged);
    assert!(matches!(refused, Err(SubmitError::Revocation(RevocationRefused::Invalid(TxError::NotAuthorized { .. })))));
    assert!(is_member(&world, 1, NODE + 1));
}

#[test]
fn a_stolen_key_cuts_eight_an_hour_and_the_rest_waits_for_a_block() {
    let mut world = without_validator(12);
    for seed in NODE + 1..NODE + 13 {
        let revocation = world.revocation(ADMIN, &[(seed, 0)]);
        world.nodes[1].ledger.submit(world.now, revocation).unwrap();
    }
    let cut = |world: &World| (NODE + 1..NODE + 13).filter(|seed| !is_member(world, 1, *seed)).count();
    assert_eq!(cut(&world), 8);
    world.nodes[1].restart().unwrap();
    let more = world.revocation(ADMIN, &[(FOUNDER, 0)]);
    world.nodes[1].ledger.submit(world.now, more).unwrap();
    assert_eq!(cut(&world), 8);
    assert!(is_member(&world, 1, FOUNDER), "a restart gives no new budget");
    world.nodes[0].is_up = true;
    world.meet();
    world.pass(Duration::from_secs(15));
    assert_eq!(cut(&world), 12);
}

#[test]
fn cuts_that_were_dated_by_a_clock_hours_ahead_count_no_more_once_it_is_set() {
    let mut world = without_validator(9);
    let ahead = world.now + 3 * HOUR;
    for seed in NODE + 1..NODE + 9 {
        let revocation = world.revocation(ADMIN, &[(seed, 0)]);
        world.nodes[1].ledger.submit(ahead, revocation).unwrap();
    }
    let ninth = world.revocation(ADMIN, &[(NODE + 9, 0)]);
    let set = Now { wall: world.now.wall, instant: ahead.instant };
    world.nodes[1].ledger.submit(set, ninth).unwrap();
    assert!(!is_member(&world, 1, NODE + 9));
}

#[test]
fn cuts_that_a_block_holds_already_count_over_a_restart_for_their_hour() {
    let mut world = World::pair();
    for seed in NODE + 1..NODE + 10 {
        world.order(0, Operation::Admit(admit(seed, 0)));
    }
    for seed in NODE + 1..NODE + 9 {
        let revocation = world.revocation(ADMIN, &[(seed, 0)]);
        world.nodes[1].ledger.submit(world.now, revocation).unwrap();
        world.settle();
    }
    assert!(world.nodes[1].ledger.pending().is_empty(), "all are in blocks");
    world.nodes[0].is_up = false;
    world.nodes[1].restart().unwrap();
    let ninth = world.revocation(ADMIN, &[(NODE + 9, 0)]);
    world.nodes[1].ledger.submit(world.now, ninth).unwrap();
    assert!(is_member(&world, 1, NODE + 9), "a restart gives no new budget");
    world.nodes[1].restart().unwrap();
    world.now = world.now + HOUR;
    let later = world.revocation(ADMIN, &[(NODE + 9, 0), (NODE + 8, 0)]);
    world.nodes[1].ledger.submit(world.now, later).unwrap();
    assert!(!is_member(&world, 1, NODE + 9), "the hour is over");
}

#[test]
fn one_transaction_with_more_than_the_budget_cuts_as_many_as_it_may() {
    let mut world = without_validator(12);
    let all: Vec<_> = (NODE + 1..NODE + 13).map(|seed| (seed, 0)).collect();
    let revocation = world.revocation(ADMIN, &all);
    world.nodes[1].ledger.submit(world.now, revocation).unwrap();
    let cut: Vec<_> = (NODE + 1..NODE + 13).filter(|seed| !is_member(&world, 1, *seed)).collect();
    assert_eq!(cut, (NODE + 1..NODE + 9).collect::<Vec<_>>());
}

#[test]
fn a_revocation_is_lifted_when_its_signer_loses_the_right() {
    let mut world = World::pair();
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    let set =
        |weight| SignerSet { key: key(20).verifying_key(), weight, scopes: [Scope::Revocation].into_iter().collect() };
    world.order(0, Operation::SignerSet(set(1)));
    // The validator commits the end of the signer before it hears of the revocation.
    world.nodes[1].is_up = false;
    world.order(0, Operation::SignerSet(set(0)));
    let revocation = world.revocation(20, &[(NODE + 1, 0)]);
    let transaction = world.nodes[1].ledger.submit(world.now, revocation).unwrap();
    assert!(!is_member(&world, 1, NODE + 1));
    world.nodes[1].is_up = true;
    world.meet();
    world.pass(Duration::from_secs(15));
    assert!(is_member(&world, 1, NODE + 1));
    assert!(world.nodes[1].events.contains(&Event::RevocationLifted { transaction }));
    assert_eq!(stored_revocations(&world.nodes[1]), 0);
}

#[test]
fn a_revoked_validator_goes_on_ordering() {
    let mut world = World::pair();
    let revocation = world.revocation(ADMIN, &[(FOUNDER, 0)]);
    world.nodes[1].ledger.submit(world.now, revocation).unwrap();
    world.settle();
    let founder = TransportKey([FOUNDER; 32]);
    assert_eq!(world.nodes[1].ledger.policy().admit(&founder).rights(), Rights::Consensus(id(FOUNDER)));
    world.order(1, Operation::Admit(admit(NODE + 1, 0)));
    world.pass(Duration::from_secs(15));
    assert!(is_member(&world, 1, NODE + 1));
}
