use super::*;

/// A pair whose validator is away, and a transaction that the other's user submitted.
fn submitted() -> (World, SignedTransaction, TxId) {
    let mut world = World::pair();
    world.nodes[0].is_up = false;
    let signed = world.sign(&[ADMIN], vec![Operation::Admit(admit(NODE + 1, 0))]);
    let id = world.nodes[1].ledger.submit(world.now, signed.clone()).unwrap();
    (world, signed, id)
}

fn own(node: &Node) -> usize {
    node.ledger.store.own_pending().unwrap().len()
}

#[test]
fn what_a_user_submitted_outlives_the_process_and_reaches_a_block() {
    let (mut world, signed, transaction) = submitted();
    world.nodes[1].restart().unwrap();
    let author = signed.transaction.author;
    assert_eq!(world.nodes[1].ledger.next_seq(&author), signed.transaction.seq + 1, "its number is not given twice");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.nodes[1].ledger.pending(), [(transaction, &signed)]);
    world.nodes[0].is_up = true;
    world.meet();
    world.pass(Duration::from_secs(15));
    let height = Height(2);
    assert!(world.nodes[1].events.contains(&Event::Final { transaction, height }), "{:?}", world.nodes[1].events);
    assert_eq!(own(&world.nodes[1]), 0);
    world.nodes[1].restart().unwrap();
    world.pass(Duration::from_secs(1));
    assert!(world.nodes[1].ledger.pending().is_empty());
}

#[test]
fn what_no_longer_applies_after_the_restart_is_dropped_with_its_reason() {
    let (mut world, signed, transaction) = submitted();
    world.nodes[1].restart().unwrap();
    world.now = world.now + HOUR + HOUR;
    world.pass(Duration::from_secs(1));
    let reason = world.nodes[1].events.iter().find_map(|event| match event {
        Event::Dropped { transaction: dropped, reason, .. } if *dropped == transaction => Some(reason.clone()),
        _ => None,
    });
    assert!(matches!(reason, Some(TxError::Expired { .. })), "{reason:?}: {signed:?}");
    assert_eq!(own(&world.nodes[1]), 0);
}

#[test]
fn what_was_dropped_while_the_node_ran_is_gone_from_the_disk_too() {
    let (mut world, _, _) = submitted();
    assert_eq!(own(&world.nodes[1]), 1);
    world.now = world.now + HOUR + HOUR;
    world.pass(Duration::from_secs(15));
    assert!(world.nodes[1].ledger.pending().is_empty());
    assert_eq!(own(&world.nodes[1]), 0);
}

#[test]
fn only_what_waits_is_written_and_only_the_own() {
    let mut world = World::pair();
    // A validator that is alone has it in a block before it answers.
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    assert_eq!(own(&world.nodes[0]), 0);
    world.nodes[0].is_up = false;
    let signed = world.sign(&[ADMIN], vec![Operation::Admit(admit(NODE + 2, 0))]);
    let from = TransportKey([FOUNDER; 32]);
    world.nodes[1].ledger.handle_message(world.now, from, LedgerMessage::Submit(signed)).unwrap();
    assert_eq!((world.nodes[1].ledger.pending().len(), own(&world.nodes[1])), (1, 0));
}

#[test]
fn what_cannot_be_kept_is_not_acknowledged() {
    let mut world = World::pair();
    world.nodes[1].disk.fail_after(0, Some(Fault::NoSpace));
    world.nodes[0].is_up = false;
    let signed = world.sign(&[ADMIN], vec![Operation::Admit(admit(NODE + 1, 0))]);
    let refused = world.nodes[1].ledger.submit(world.now, signed);
    assert!(matches!(refused, Err(SubmitError::Halted(Halt::Store(_)))), "{refused:?}");
}

#[test]
fn a_submitter_waits_no_longer_than_its_session_or_what_it_submitted() {
    let mut world = World::pair();
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    world.nodes[0].is_up = false;
    let submitter = TransportKey([FOUNDER; 32]);
    let signed = world.sign(&[ADMIN], vec![Operation::Admit(admit(NODE + 2, 0))]);
    let ledger = &mut world.nodes[1].ledger;
    ledger.handle_message(world.now, submitter, LedgerMessage::Submit(signed)).unwrap();
    assert_eq!(ledger.waiting.len(), 1);
    ledger.handle_session_end(world.now, &submitter);
    assert_eq!(ledger.waiting.len(), 0);
    // A revocation that another one makes needless never comes into a block.
    let needless = world.revocation(ADMIN, &[(NODE + 1, 0)]);
    world.nodes[1].ledger.handle_message(world.now, submitter, LedgerMessage::Submit(needless)).unwrap();
    world.settle();
    let wider = world.revocation(ADMIN, &[(NODE + 1, 0), (NODE + 3, 0)]);
    world.nodes[0].ledger.submit(world.now, wider).unwrap();
    world.nodes[0].is_up = true;
    world.meet();
    assert!(world.nodes[1].ledger.revocations.is_empty());
    assert_eq!(world.nodes[1].ledger.waiting.len(), 0);
}
