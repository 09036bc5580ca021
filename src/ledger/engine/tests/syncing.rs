use super::*;
use crate::ledger::block::Body;
use crate::ledger::sync::MAX_TRANSACTIONS;

#[test]
fn a_joiner_fetches_the_chain_and_is_admitted_through_any_member() {
    let mut world = World::pair();
    let until = world.now.wall.after(DAY);
    world.order(0, Operation::Credential(credential(9, 1, until)));
    let genesis = found(Ipv4Choice::Derived);
    let head = world.nodes[0].ledger.head().unwrap();
    let checkpoint = Checkpoint { height: head.height(), id: head.id };
    world.nodes.push(Node::joiner(&genesis, NODE + 1, Some(checkpoint)));
    world.meet();
    assert!(world.nodes[2].ledger.is_past_checkpoint());
    let transaction = world.sign(&[NODE + 1, 9], vec![Operation::Join(join(NODE + 1, 9))]);
    let submit = LedgerMessage::Submit(transaction.clone());
    let (member, guest) = (TransportKey([NODE; 32]), TransportKey([NODE + 1; 32]));
    world.nodes[1].ledger.handle_message(world.now, guest, submit).unwrap();
    world.settle();
    assert_eq!(world.nodes[2].ledger.policy().admit(&guest).rights(), Rights::Member(id(NODE + 1)));
    assert_eq!(world.nodes[0].ledger.policy().admit(&guest).rights(), Rights::Member(id(NODE + 1)));
    let submitted = Event::Submitted { transaction: transaction.id(&genesis.network_id()) };
    assert!(world.nodes[2].events.contains(&submitted), "{member:?} answers");
}

#[test]
fn a_joiner_knows_by_itself_whether_its_join_can_still_apply() {
    let mut world = World::pair();
    let until = world.now.wall.after(DAY);
    world.order(0, Operation::Credential(credential(9, 1, until)));
    let joining = world.sign(&[NODE + 1, 9], vec![Operation::Join(join(NODE + 1, 9))]);
    assert_eq!(world.nodes[1].ledger.would_apply(world.now, &joining), Ok(()));
    let rival = world.sign(&[NODE + 2, 9], vec![Operation::Join(join(NODE + 2, 9))]);
    world.nodes[0].ledger.submit(world.now, rival).unwrap();
    world.settle();
    assert!(world.nodes[1].ledger.would_apply(world.now, &joining).is_err(), "the one use is used up");
}

#[test]
fn a_joiner_refuses_a_chain_that_contradicts_its_ticket() {
    let mut world = World::pair();
    let genesis = found(Ipv4Choice::Derived);
    let false_point = Checkpoint { height: Height(1), id: BlockId(Digest([7; 32])) };
    world.nodes.push(Node::joiner(&genesis, NODE + 1, Some(false_point)));
    world.meet();
    assert_eq!(world.nodes[2].ledger.head().unwrap().height(), Height(0));
    assert!(!world.nodes[2].ledger.is_past_checkpoint());
    let refused = &world.nodes[2].refused;
    assert!(matches!(refused[..], [MessageRefused::Block(ChainError::ContradictsCheckpoint), ..]), "{refused:?}");
}

#[test]
fn a_joiner_refuses_the_genesis_of_another_network() {
    let genesis = found(Ipv4Choice::Derived);
    let other = found(Ipv4Choice::Off);
    let world = World::new(vec![Node::founder(&other, FOUNDER, None), Node::joiner(&genesis, NODE, None)]);
    assert!(world.nodes[1].ledger.head().is_none());
    let refused = &world.nodes[1].refused;
    assert!(matches!(refused[..], [MessageRefused::Block(ChainError::OtherNetwork(_)), ..]), "{refused:?}");
}

#[test]
fn a_long_chain_comes_in_several_batches() {
    let mut world = World::pair();
    world.nodes[1].is_up = false;
    for count in 0..150 {
        let rename = crate::ledger::operation::Rename { identity: id(FOUNDER), name: label(&format!("name-{count}")) };
        world.order(0, Operation::Rename(rename));
    }
    world.nodes[1].is_up = true;
    world.meet();
    assert_eq!(world.heights(), [151, 151]);
    assert_eq!(world.nodes[0].ledger.state(), world.nodes[1].ledger.state());
}

#[test]
fn a_peer_that_does_not_answer_is_not_asked_for_ever() {
    let mut world = World::pair();
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    let genesis = found(Ipv4Choice::Derived);
    let mut late = Node::joiner(&genesis, NODE + 2, None);
    let silent = TransportKey([99; 32]);
    let notice = HeadNoticeOf(&world.nodes[0].ledger).at(1000);
    late.ledger.handle_session(world.now, silent);
    late.ledger.handle_message(world.now, silent, LedgerMessage::Head(notice)).unwrap();
    world.nodes.push(late);
    world.pass(Duration::from_secs(1));
    assert!(world.nodes[2].ledger.head().is_none());
    world.meet();
    world.pass(Duration::from_secs(20));
    assert_eq!(world.heights(), [2, 2, 2]);
}

struct HeadNoticeOf<'a>(&'a Ledger);

impl HeadNoticeOf<'_> {
    fn at(&self, height: u64) -> crate::ledger::sync::HeadNotice {
        crate::ledger::sync::HeadNotice { height: Height(height), ..self.0.head_notice().unwrap() }
    }
}

#[test]
fn blocks_that_nobody_asked_for_are_refused() {
    let mut world = World::pair();
    let block = world.nodes[0].ledger.stored(Height(1)).unwrap().unwrap();
    let refused = world.nodes[1].ledger.handle_message(
        world.now,
        TransportKey([FOUNDER; 32]),
        LedgerMessage::Blocks(vec![block]),
    );
    assert!(matches!(refused, Err(MessageRefused::Unasked)));
}

#[test]
fn a_guest_reads_but_does_not_speak() {
    let mut world = World::pair();
    let guest = TransportKey([99; 32]);
    let admission = world.sign(&[ADMIN], vec![Operation::Admit(admit(NODE + 1, 0))]);
    for message in [
        LedgerMessage::Submit(admission.clone()),
        LedgerMessage::Transactions(vec![admission]),
        LedgerMessage::HaveTransactions(Vec::new()),
        LedgerMessage::GetTransactions(Vec::new()),
    ] {
        let refused = world.nodes[0].ledger.handle_message(world.now, guest, message);
        assert!(matches!(refused, Err(MessageRefused::NotAMember)));
    }
    let refused = world.nodes[0].ledger.handle_message(world.now, guest, LedgerMessage::Consensus(Vec::new()));
    assert!(matches!(refused, Err(MessageRefused::NotAValidator)));
    let read = LedgerMessage::GetBlocks { from: Height(0), limit: 64 };
    world.nodes[0].ledger.handle_message(world.now, guest, read).unwrap();
    let Some((Recipient::Peer(to), LedgerMessage::Blocks(blocks))) = world.nodes[0].ledger.poll_message() else {
        panic!("blocks");
    };
    assert_eq!((to, blocks.len()), (guest, 2));
}

#[test]
fn the_author_hears_why_its_transaction_was_dropped() {
    let mut world = World::pair();
    world.nodes[0].is_up = false;
    let until = world.now.wall.after(DAY);
    let author = TransportKey([FOUNDER; 32]);
    let rivals = [NODE + 1, NODE + 2].map(|seed| {
        let named = crate::ledger::operation::Admit { name: Some(label("web")), ..admit(seed, 0) };
        let signer = key(ADMIN).verifying_key();
        world.signed(&[ADMIN], Transaction::new(signer, u64::from(seed), until, vec![Operation::Admit(named)]))
    });
    for rival in &rivals {
        let submit = LedgerMessage::Submit(rival.clone());
        world.nodes[1].ledger.handle_message(world.now, author, submit).unwrap();
    }
    while world.nodes[1].ledger.poll_message().is_some() {}
    world.nodes[0].is_up = true;
    world.nodes[0].ledger.submit(world.now, rivals[0].clone()).unwrap();
    world.settle();
    let dropped = rivals[1].id(world.nodes[0].ledger.network_id());
    let reason = TxError::NameTaken(label("web"));
    let is_it = |event: &Event| matches!(event, Event::Dropped { transaction, reason: why, .. } if *transaction == dropped && *why == reason);
    assert!(world.nodes[1].events.iter().any(is_it));
    let told = Event::RefusedByPeer { transaction: dropped, reason: reason.to_string() };
    assert!(world.nodes[0].events.contains(&told), "{:?}", world.nodes[0].events);
}

#[test]
fn a_transaction_that_nobody_heard_is_told_again() {
    let mut world = World::pair();
    world.nodes[0].is_up = false;
    let transaction = world.sign(&[ADMIN], vec![Operation::Admit(admit(NODE + 1, 0))]);
    world.nodes[1].ledger.submit(world.now, transaction).unwrap();
    world.settle();
    world.nodes[0].is_up = true;
    world.pass(Duration::from_secs(15));
    assert!(world.nodes[1].ledger.policy().member(&id(NODE + 1)).is_some());
}

#[test]
fn the_stored_chain_is_verified_from_genesis_in_steps() {
    let mut world = World::pair();
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    let ledger = &world.nodes[1].ledger;
    let mut verification = Verification::default();
    assert_eq!(verification.step(ledger, 2).unwrap(), None);
    assert_eq!(verification.verified(), Some(Height(1)));
    assert_eq!(verification.step(ledger, 2).unwrap(), Some(Height(2)));
    let body = ledger.block(Height(2)).unwrap().unwrap().0.body;
    assert_ne!(body, Body::default());
}

#[test]
fn a_liar_about_its_head_holds_up_nobody() {
    let mut world = World::pair();
    let (member, guest) = (world.nodes[0].transport_key, TransportKey([99; 32]));
    world.nodes[1].is_up = false;
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    world.nodes[1].is_up = true;
    // A guest that claims the longest chain of all, again and again, and shows nothing.
    let mut lie = world.nodes[0].ledger.head_notice().unwrap();
    lie.height = Height(u64::MAX);
    let (now, ledger) = (world.now, &mut world.nodes[1].ledger);
    ledger.handle_message(now, guest, LedgerMessage::Head(lie)).unwrap();
    let honest = world.nodes[0].ledger.head_notice().unwrap();
    let ledger = &mut world.nodes[1].ledger;
    ledger.handle_message(now, guest, LedgerMessage::Head(lie)).unwrap();
    ledger.handle_message(now, member, LedgerMessage::Head(honest)).unwrap();
    assert_eq!(ledger.peers.highest(), Some(honest.height), "a guest's word says nothing about freshness");
    world.settle();
    assert_eq!(world.heights()[0], world.heights()[1]);
}

#[test]
fn a_member_that_lies_about_its_head_is_asked_last() {
    let mut world = World::pair();
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    let liar = TransportKey([NODE + 1; 32]);
    let honest = world.nodes[0].transport_key;
    world.nodes[1].is_up = false;
    world.order(0, Operation::Admit(admit(NODE + 2, 0)));
    world.nodes[1].is_up = true;
    let truth = world.nodes[0].ledger.head_notice().unwrap();
    let mut lie = truth;
    lie.height = Height(u64::MAX);
    let now = world.now;
    world.nodes[1].ledger.handle_message(now, liar, LedgerMessage::Head(lie)).unwrap();
    world.pass(Duration::from_secs(6));
    let now = world.now;
    world.nodes[1].ledger.handle_message(now, liar, LedgerMessage::Head(lie)).unwrap();
    world.nodes[1].ledger.handle_message(now, honest, LedgerMessage::Head(truth)).unwrap();
    world.settle();
    assert_eq!(world.heights()[0], world.heights()[1]);
}

/// What a liar says: that its chain is the longest of all.
fn lie(world: &World) -> LedgerMessage {
    LedgerMessage::Head(HeadNoticeOf(&world.nodes[0].ledger).at(u64::MAX))
}

#[test]
fn a_liar_does_not_start_afresh_with_a_new_session() {
    let mut world = World::pair();
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    let (liar, honest) = (TransportKey([NODE + 1; 32]), world.nodes[0].transport_key);
    let (lie, truth) = (lie(&world), world.nodes[0].ledger.head_notice().unwrap());
    world.nodes[0].is_up = false;
    let now = world.now;
    world.nodes[1].ledger.handle_message(now, liar, lie.clone()).unwrap();
    assert_eq!(world.nodes[1].ledger.peers.highest(), Some(Height(u64::MAX)), "nothing speaks against it yet");
    world.pass(Duration::from_secs(6));
    let now = world.now;
    let ledger = &mut world.nodes[1].ledger;
    ledger.handle_session_end(now, &liar);
    ledger.handle_session(now, liar);
    ledger.handle_message(now, liar, lie.clone()).unwrap();
    ledger.handle_message(now, honest, LedgerMessage::Head(truth)).unwrap();
    assert_eq!(ledger.peers.highest(), Some(truth.height));
    // It counts for a while, and not for ever.
    world.pass(2 * HOUR);
    let now = world.now;
    let ledger = &mut world.nodes[1].ledger;
    ledger.handle_message(now, liar, lie).unwrap();
    assert_eq!(ledger.peers.highest(), Some(Height(u64::MAX)));
}

#[test]
fn a_liar_that_hangs_up_before_it_must_answer_is_no_better() {
    let mut world = World::pair();
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    let liar = TransportKey([NODE + 1; 32]);
    let (now, lie) = (world.now, lie(&world));
    let ledger = &mut world.nodes[1].ledger;
    for (sessions, believed) in [(1, Some(Height(u64::MAX))), (2, None)] {
        ledger.handle_message(now, liar, lie.clone()).unwrap();
        ledger.handle_session_end(now, &liar);
        ledger.handle_session(now, liar);
        ledger.handle_message(now, liar, lie.clone()).unwrap();
        let highest = ledger.peers.highest().filter(|height| *height == Height(u64::MAX));
        assert_eq!(highest, believed, "after {sessions} questions that it ran away from");
    }
}

/// How many bytes of blocks the first node has to say, and how many messages.
fn said(world: &mut World) -> (usize, usize) {
    let (mut len, mut count) = (0, 0);
    while let Some((_, message)) = world.nodes[0].ledger.poll_message() {
        if let LedgerMessage::Blocks(blocks) = message {
            len += blocks.iter().map(|block| block.block.len()).sum::<usize>();
            count += 1;
        }
    }
    (len, count)
}

/// A founder with this many blocks, whose member is off.
fn long_chain(blocks: usize) -> World {
    let mut world = World::pair();
    world.nodes[1].is_up = false;
    for count in 1..blocks {
        let rename = crate::ledger::operation::Rename { identity: id(FOUNDER), name: label(&format!("name-{count}")) };
        world.order(0, Operation::Rename(rename));
    }
    world
}

#[test]
fn who_reads_the_chain_without_end_is_slowed_down_and_nobody_else() {
    let mut world = long_chain(70);
    let (greedy, member) = (TransportKey([99; 32]), world.nodes[1].transport_key);
    let read = || LedgerMessage::GetBlocks { from: Height(0), limit: 64 };
    let (mut refused, mut len) = (0, 0);
    for request in 0..3000 {
        let taken = world.nodes[0].ledger.handle_message(world.now, greedy, read());
        refused += usize::from(matches!(taken, Err(MessageRefused::Rationed)));
        len += said(&mut world).0;
        if request % 100 == 0 {
            // A new session is no new ration.
            world.nodes[0].ledger.handle_session_end(world.now, &greedy);
            world.nodes[0].ledger.handle_session(world.now, greedy);
        }
    }
    assert!(len < 40 << 20, "{len} bytes at once");
    assert!(refused > 1000, "{refused} of 3000 refused");
    world.nodes[0].ledger.handle_message(world.now, member, read()).unwrap();
    assert_eq!(said(&mut world).1, 1, "a member is answered at once");
    // The one request that waits is answered in time, and no more than that one.
    world.pass(Duration::from_secs(4));
    assert!(!world.nodes[0].ledger.ration.waits(&greedy));
}

#[test]
fn who_announces_what_nobody_has_without_end_is_slowed_down_and_nobody_else() {
    let mut world = World::pair();
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    let (greedy, member) = (TransportKey([NODE + 1; 32]), world.nodes[1].transport_key);
    let (now, ledger) = (world.now, &mut world.nodes[0].ledger);
    let announcement = || LedgerMessage::HaveTransactions(vec![TxId(Digest([7; 32])); MAX_TRANSACTIONS]);
    let refused = (0..1000).filter(|_| ledger.handle_message(now, greedy, announcement()).is_err()).count();
    assert!(refused > 500, "{refused} of 1000 refused");
    ledger.handle_message(now, member, announcement()).unwrap();
}

#[test]
fn a_chain_of_thousands_of_blocks_is_fetched_without_a_pause() {
    let mut world = long_chain(3000);
    world.nodes[1].is_up = true;
    let before = world.now;
    world.meet();
    assert_eq!(world.heights(), [3000, 3000]);
    assert_eq!(world.now, before, "not even a moment's wait");
}
