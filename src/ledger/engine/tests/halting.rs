use super::*;
use crate::ledger::certificate::tests::certificate;
use crate::ledger::sync::{CommittedBlock, HeadNotice};

/// Makes the next block of a node's chain, with whatever in it, and commits it with the validator's key.
fn forge(
    ledger: &Ledger,
    now: Now,
    transactions: Vec<SignedTransaction>,
    state_root: Option<Digest>,
) -> CommittedBlock {
    let proposing = Proposing { time: now.wall, proposer: key(VALIDATOR).verifying_key(), evidence: Vec::new() };
    let head = ledger.head().unwrap();
    let tree = ledger.store.tree().unwrap();
    let mut block = build(head, ledger.state(), &tree, [], proposing).unwrap().block;
    block.body.transactions = transactions;
    block.header.txs_root = block.body.root();
    block.header.state_root = state_root.unwrap_or(block.header.state_root);
    let (chain, height) = (ledger.network_id(), block.header.height);
    let certificate = certificate(chain, height, block.id(), &ledger.state().validators(), &[VALIDATOR]);
    CommittedBlock { block: block.encode(), certificate: Some(certificate) }
}

/// Makes and commits a block behind one that the node cannot apply.
fn behind(ledger: &Ledger, before: &CommittedBlock, transactions: Vec<SignedTransaction>) -> CommittedBlock {
    let before = Block::decode(&before.block).unwrap();
    let mut block = before.clone();
    block.header.height = before.header.height.next();
    block.header.parent = before.id();
    block.body.transactions = transactions;
    block.header.txs_root = block.body.root();
    let (chain, height) = (ledger.network_id(), block.header.height);
    let certificate = certificate(chain, height, block.id(), &ledger.state().validators(), &[VALIDATOR]);
    CommittedBlock { block: block.encode(), certificate: Some(certificate) }
}

/// Lets a node fetch one block from a peer that nobody else knows.
fn feed(world: &mut World, node: usize, committed: CommittedBlock) -> Result<(), MessageRefused> {
    let peer = TransportKey([99; 32]);
    let block = Block::decode(&committed.block).unwrap();
    let ledger = &mut world.nodes[node].ledger;
    let revocations = ledger.revocations.digest();
    let notice = HeadNotice { height: block.header.height, id: block.id(), time: block.header.time, revocations };
    ledger.handle_message(world.now, peer, LedgerMessage::Head(notice))?;
    ledger.handle_message(world.now, peer, LedgerMessage::Blocks(vec![committed]))
}

fn unknown() -> Operation {
    Operation::Unknown { code: 999, bytes: vec![1, 2, 3] }
}

#[test]
fn an_unknown_operation_halts_and_the_revocations_beside_it_are_enforced() {
    let mut world = World::pair();
    for seed in [NODE + 1, NODE + 2] {
        world.order(0, Operation::Admit(admit(seed, 0)));
    }
    world.nodes[0].is_up = false;
    let beside = Operation::Revoke(Revoke { identity: id(NODE + 1), incarnation: 0 });
    let transaction = world.sign(&[ADMIN], vec![unknown(), beside]);
    let block = forge(&world.nodes[1].ledger, world.now, vec![transaction], None);
    let halt = Halt::Upgrade { height: Height(4), code: 999 };
    let refused = feed(&mut world, 1, block.clone()).unwrap_err();
    assert_eq!(refused.to_string(), halt.to_string());
    assert_eq!(world.nodes[1].ledger.halted(), Some(&halt));
    let policy = world.nodes[1].ledger.policy();
    assert!(policy.member(&id(NODE + 1)).is_none() && policy.member(&id(NODE + 2)).is_some());
    // What comes after it is followed for its revocations alone, as far as the certificates hold.
    let revocation = world.revocation(ADMIN, &[(NODE + 2, 0)]);
    let committed = behind(&world.nodes[1].ledger, &block, vec![revocation]);
    let unproved = Certificate { signatures: Vec::new(), ..committed.certificate.clone().unwrap() };
    let forged = CommittedBlock { certificate: Some(unproved), ..committed.clone() };
    assert!(feed(&mut world, 1, forged).is_err());
    assert!(world.nodes[1].ledger.policy().member(&id(NODE + 2)).is_some());
    feed(&mut world, 1, committed).unwrap();
    assert!(world.nodes[1].ledger.policy().member(&id(NODE + 2)).is_none());
    world.nodes[1].restart().unwrap();
    let policy = world.nodes[1].ledger.policy();
    assert!(policy.member(&id(NODE + 1)).is_none() && policy.member(&id(NODE + 2)).is_none());
    assert_eq!(world.nodes[1].ledger.head().unwrap().height(), Height(3));
}

#[test]
fn who_sent_the_block_that_halts_is_no_liar_and_what_it_sent_behind_it_is_enforced() {
    let mut world = World::pair();
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    world.nodes[0].is_up = false;
    let transaction = world.sign(&[ADMIN], vec![unknown()]);
    let halting = forge(&world.nodes[1].ledger, world.now, vec![transaction], None);
    let revocation = world.revocation(ADMIN, &[(NODE + 1, 0)]);
    let behind = behind(&world.nodes[1].ledger, &halting, vec![revocation]);
    let peer = TransportKey([99; 32]);
    let (now, ledger) = (world.now, &mut world.nodes[1].ledger);
    let revocations = ledger.revocations.digest();
    let notice = HeadNotice { height: Height(9), id: BlockId(Digest([9; 32])), time: now.wall, revocations };
    ledger.handle_message(now, peer, LedgerMessage::Head(notice)).unwrap();
    let taken = ledger.handle_message(now, peer, LedgerMessage::Blocks(vec![halting, behind]));
    assert!(matches!(taken, Err(MessageRefused::Halted(_))), "{taken:?}");
    assert!(ledger.policy().member(&id(NODE + 1)).is_none());
    let next = LedgerMessage::GetBlocks { from: Height(5), limit: crate::ledger::sync::MAX_BLOCKS };
    let said: Vec<_> = std::iter::from_fn(|| ledger.poll_message()).collect();
    assert!(said.contains(&(Recipient::Peer(peer), next)), "it is asked on: {said:?}");
}

#[test]
fn a_committed_block_that_is_wrong_halts_and_changes_nothing() {
    let mut world = World::pair();
    world.nodes[0].is_up = false;
    let before = world.nodes[1].ledger.policy();
    let block = forge(&world.nodes[1].ledger, world.now, Vec::new(), Some(Digest([7; 32])));
    feed(&mut world, 1, block).unwrap_err();
    let halted = world.nodes[1].ledger.halted();
    assert!(matches!(halted, Some(Halt::Diverged { height: Height(2), .. })), "{halted:?}");
    assert_eq!(world.nodes[1].ledger.policy(), before);
    let transaction = world.sign(&[ADMIN], vec![Operation::Admit(admit(NODE + 1, 0))]);
    let refused = world.nodes[1].ledger.submit(world.now, transaction);
    assert!(matches!(refused, Err(SubmitError::Halted(_))));
}

#[test]
fn a_block_without_its_certificate_is_the_senders_fault_and_halts_nothing() {
    let mut world = World::pair();
    world.nodes[0].is_up = false;
    let block = forge(&world.nodes[1].ledger, world.now, Vec::new(), Some(Digest([7; 32])));
    let certificate = block.certificate.clone().map(|proof| Certificate { signatures: Vec::new(), ..proof });
    let refused = feed(&mut world, 1, CommittedBlock { certificate, ..block });
    assert!(matches!(refused, Err(MessageRefused::Block(ChainError::BadCertificate(_)))));
    assert_eq!(world.nodes[1].ledger.halted(), None);
}

#[test]
fn a_full_disk_stops_the_ledger_and_the_policy_stays() {
    let mut world = World::pair();
    let before = (world.nodes[0].ledger.policy(), world.nodes[0].ledger.state().clone());
    world.nodes[0].disk.fail_after(0, Some(Fault::NoSpace));
    world.nodes[1].is_up = false;
    let transaction = world.sign(&[ADMIN], vec![Operation::Admit(admit(NODE + 1, 0))]);
    let taken = world.nodes[0].ledger.submit(world.now, transaction);
    assert!(matches!(taken, Err(SubmitError::Halted(Halt::Store(_)))), "{taken:?}");
    world.settle();
    let node = &world.nodes[0];
    assert!(matches!(node.ledger.halted(), Some(Halt::Store(_))));
    assert_eq!((node.ledger.policy(), node.ledger.state().clone()), before);
    assert!(matches!(node.events.last(), Some(Event::Halted(Halt::Store(_)))), "{:?}", node.events);
    // A revocation still cuts.
    let revocation = world.revocation(ADMIN, &[(NODE, 0)]);
    world.nodes[0].ledger.submit(world.now, revocation).unwrap();
    assert!(world.nodes[0].ledger.policy().member(&id(NODE)).is_none());
}

#[test]
fn what_was_shown_was_on_disk() {
    let mut world = World::pair();
    world.nodes[1].is_up = false;
    for seed in NODE + 1..NODE + 6 {
        world.order(0, Operation::Admit(admit(seed, 0)));
        let shown = world.nodes[0].ledger.head().unwrap().id;
        let cut = world.nodes[0].disk.after_power_cut(u64::from(seed));
        let chain = *world.nodes[0].ledger.network_id();
        let store = Store::open(cut, Box::new(world.nodes[0].mark.clone()), chain, Behind::Refuse).unwrap();
        assert_eq!(Ledger::open(store, None).unwrap().head().unwrap().id, shown);
    }
}

#[test]
fn a_restarted_founder_goes_on_where_it_was() {
    let mut world = World::pair();
    let head = world.nodes[0].ledger.head().unwrap().clone();
    world.nodes[0].restart().unwrap();
    assert_eq!(world.nodes[0].ledger.head(), Some(&head));
    world.meet();
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    world.pass(Duration::from_secs(11));
    assert_eq!(world.heights(), [2, 2]);
}

#[test]
fn proposals_far_from_the_own_clock_get_no_vote() {
    use crate::ledger::consensus::{Origin, Verdict};
    let mut world = World::pair();
    let now = world.now;
    for (offset, origin, expected) in [
        (0, Origin::Fresh, Verdict::Valid),
        (10_000, Origin::Fresh, Verdict::Valid),
        (10_001, Origin::Fresh, Verdict::Invalid),
        (10_001, Origin::Certified, Verdict::Valid),
    ] {
        let shifted = Now { wall: UnixMillis(now.wall.0 + offset), ..now };
        let block = forge(&world.nodes[1].ledger, shifted, Vec::new(), None);
        let verdict = world.nodes[1].ledger.verdict(now, Height(2), &block.block, origin);
        assert_eq!(verdict, expected, "{offset} ms, {origin:?}");
    }
    assert_eq!(world.nodes[1].ledger.verdict(now, Height(2), b"no block", Origin::Fresh), Verdict::Invalid);
}
