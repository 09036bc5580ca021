use super::*;

#[test]
fn a_founder_alone_commits_at_once_and_says_so() {
    let genesis = found(Ipv4Choice::Derived);
    let mut world = World::new(vec![Node::founder(&genesis, FOUNDER, Some(VALIDATOR))]);
    let transaction = world.order(0, Operation::Admit(admit(NODE, 0)));
    let node = &world.nodes[0];
    let head = node.ledger.head().unwrap();
    assert_eq!(head.height(), Height(1));
    let admitted = PolicyDiff { admitted: vec![id(NODE)], ..PolicyDiff::default() };
    let expected = [
        Event::Committed { height: Height(1), id: head.id },
        Event::Final { transaction, height: Height(1) },
        Event::PolicyChanged(admitted),
    ];
    assert_eq!(node.events, expected);
    assert_eq!(node.ledger.transaction(&transaction).unwrap().unwrap().0, Height(1));
    assert!(node.ledger.pending().is_empty());
}

#[test]
fn no_height_starts_without_work() {
    let mut world = World::pair();
    let heights = world.heights();
    world.pass(DAY);
    assert_eq!(world.heights(), heights);
}

#[test]
fn more_transactions_than_a_block_holds_fill_several() {
    let mut world = World::pair();
    world.nodes[0].ledger.ordering = None;
    for count in 0..600u32 {
        let author = SigningKey::from_seed(&[count.to_le_bytes()[0]; 32]);
        let name = format!("n{}", count);
        let rename = crate::ledger::operation::Rename { identity: id(FOUNDER), name: label(&name) };
        let until = world.now.wall.after(HOUR);
        let signer = SignerSet { key: author.verifying_key(), weight: 1, scopes: Scopes::ALL };
        // Two hundred and fifty-six signers, so that no share of the pool is used up.
        let operation = if count < 256 { Operation::SignerSet(signer) } else { Operation::Rename(rename) };
        let author = if count < 256 { key(ADMIN) } else { author };
        let signed = Transaction::new(author.verifying_key(), u64::from(count) + 2, until, vec![operation])
            .sign(world.nodes[0].ledger.network_id(), &[&author]);
        let taken = world.nodes[0].ledger.submit(world.now, signed);
        if count == 255 {
            world.nodes[0].validate(false);
            world.pass(Duration::from_secs(11));
            world.nodes[0].ledger.ordering = None;
        }
        taken.unwrap();
    }
    let before = world.nodes[0].ledger.next_height();
    assert_eq!(world.nodes[0].ledger.pending().len(), 344);
    world.nodes[0].validate(false);
    world.pass(Duration::from_secs(11));
    assert!(world.nodes[0].ledger.pending().is_empty());
    assert!(world.nodes[0].ledger.next_height() > before);
}

#[test]
fn a_membership_ends_though_nobody_asks() {
    let mut world = World::pair();
    let expires = world.now.wall.after(HOUR);
    let brief = crate::ledger::operation::Admit { expires: Some(expires), ..admit(NODE + 1, 0) };
    world.order(0, Operation::Admit(brief));
    world.pass(HOUR - Duration::from_secs(1));
    assert!(world.nodes[1].ledger.policy().member(&id(NODE + 1)).is_some());
    world.pass(Duration::from_secs(60));
    assert!(world.nodes[1].ledger.policy().member(&id(NODE + 1)).is_none());
    assert_eq!(world.heights(), [3, 3]);
}

fn four() -> World {
    let seats = (1..=4).map(|seat| Seat {
        validator: Validator { key: key(30 + seat).verifying_key(), power: 1 },
        node: id(40 + seat),
        transport_key: TransportKey([40 + seat; 32]),
    });
    let founding = crate::ledger::genesis::Founding {
        name: label("home"),
        ipv4: Ipv4Choice::Derived,
        time: BEGIN,
        identity: &key(41),
        node_key: key(141).verifying_key(),
        transport_key: TransportKey([41; 32]),
        member_name: None,
        others: Vec::new(),
        signer: &key(ADMIN),
        seats: Seats::new(seats.collect()).unwrap(),
        recovery: BTreeSet::from([key(4).verifying_key()]),
        recovery_needed: 1,
        protocol_version: crate::ledger::operation::PROTOCOL_VERSION,
    };
    let genesis = Genesis::create(&founding, &MemoryTree::default()).unwrap();
    let mut nodes: Vec<_> = (1..=4).map(|seat| Node::founder(&genesis, 40 + seat, Some(30 + seat))).collect();
    nodes.push(Node::joiner(&genesis, NODE, None));
    World::new(nodes)
}

fn agree(world: &World, height: u64) {
    let ids: BTreeSet<_> = world
        .nodes
        .iter()
        .filter(|node| node.is_up)
        .map(|node| node.ledger.block(Height(height)).unwrap().unwrap().0.id())
        .collect();
    assert_eq!(ids.len(), 1);
}

#[test]
fn four_validators_and_a_follower_come_to_one_history() {
    let mut world = four();
    for seed in [NODE, NODE + 1, NODE + 2] {
        world.order(0, Operation::Admit(admit(seed, 0)));
        world.pass(Duration::from_secs(5));
    }
    let heights = world.heights();
    assert!(heights.iter().all(|height| *height == heights[0] && *height >= 3), "{heights:?}");
    for height in 0..=heights[0] {
        agree(&world, height);
    }
    assert!(world.nodes[4].ledger.policy().member(&id(NODE + 2)).is_some());
}

#[test]
fn three_of_four_validators_go_on_and_the_fourth_catches_up() {
    let mut world = four();
    world.nodes[3].is_up = false;
    for seed in NODE..NODE + 4 {
        world.order(0, Operation::Admit(admit(seed, 0)));
        world.pass(Duration::from_secs(20));
    }
    assert!(world.heights()[0] >= 4, "{:?}", world.heights());
    assert_eq!(world.heights()[3], 0);
    world.nodes[3].restart().unwrap();
    world.nodes[3].is_up = true;
    world.meet();
    world.pass(Duration::from_secs(30));
    let heights = world.heights();
    assert!(heights.iter().all(|height| *height == heights[0]), "{heights:?}");
    agree(&world, heights[0]);
}

#[test]
fn two_of_four_validators_commit_nothing() {
    let mut world = four();
    world.nodes[2].is_up = false;
    world.nodes[3].is_up = false;
    world.order(0, Operation::Admit(admit(NODE, 0)));
    world.pass(Duration::from_secs(60));
    assert_eq!(world.heights(), [0; 5]);
    world.nodes[2].is_up = true;
    world.meet();
    world.pass(Duration::from_secs(120));
    assert!(world.heights()[0] >= 1, "{:?}", world.heights());
    assert!(world.nodes[4].ledger.policy().member(&id(NODE)).is_some());
}

#[test]
fn a_founder_restored_from_an_older_copy_makes_no_second_block_at_a_height() {
    let mut world = World::pair();
    let image = (world.nodes[0].disk.image(), world.nodes[0].mark.bytes(), world.nodes[0].log.clone());
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    world.order(0, Operation::Admit(admit(NODE + 2, 0)));
    let true_head = world.nodes[1].ledger.head().unwrap().id;
    // Store, mark and log are put back together, long after the network began: nothing on the disk tells.
    world.now = world.now + HOUR;
    let node = &mut world.nodes[0];
    (node.disk, node.mark, node.log) = (Disk::new(&image.0), MemoryMark::new(image.1), image.2);
    node.restart().unwrap();
    let transaction = world.sign(&[ADMIN], vec![Operation::Admit(admit(NODE + 3, 0))]);
    let now = world.now;
    // Its user is faster than the first word of a member.
    let submitted = world.nodes[0].ledger.submit(now, transaction);
    assert!(world.nodes[0].ledger.head().unwrap().height() < world.nodes[1].ledger.head().unwrap().height());
    world.meet();
    world.pass(Duration::from_secs(20));
    let chains = world.nodes.iter().map(|node| node.ledger.block(Height(3)).unwrap().unwrap().0.id());
    assert_eq!(chains.collect::<std::collections::BTreeSet<_>>().len(), 1, "one block at height 3");
    assert_eq!(world.heights()[0], world.heights()[1]);
    assert!(world.nodes[1].ledger.block(Height(3)).unwrap().unwrap().0.id() == true_head || world.heights()[1] > 3);
    drop(submitted);
}

#[test]
fn a_founder_that_nobody_answers_orders_after_it_has_listened() {
    let mut world = World::pair();
    world.now = world.now + HOUR;
    world.nodes[1].is_up = false;
    world.nodes[0].restart().unwrap();
    let transaction = world.sign(&[ADMIN], vec![Operation::Admit(admit(NODE + 1, 0))]);
    let now = world.now;
    world.nodes[0].ledger.submit(now, transaction).unwrap();
    assert_eq!(world.heights()[0], 1);
    world.pass(Duration::from_secs(9));
    assert_eq!(world.heights()[0], 1);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heights()[0], 2);
}

/// What is copied of a node's disk.
type Image = (Vec<u8>, Option<Vec<u8>>, Vec<u8>);

fn image(node: &Node) -> Image {
    (node.disk.image(), node.mark.bytes(), node.log.0.lock().unwrap().clone())
}

/// Puts an image back in place of a node's disk, and starts the node.
fn put_back(node: &mut Node, (disk, mark, log): Image) {
    node.disk = Disk::new(&disk);
    node.mark = MemoryMark::new(mark);
    node.log = MemoryLog(Arc::new(Mutex::new(log)));
    node.restart().unwrap();
}

/// Lets two nodes open a session.
fn introduce(world: &mut World, first: usize, second: usize) {
    let keys = [first, second].map(|number| world.nodes[number].transport_key);
    world.nodes[first].ledger.handle_session(world.now, keys[1]);
    world.nodes[second].ledger.handle_session(world.now, keys[0]);
    world.settle();
}

fn assert_one_history(world: &World) {
    for height in 0..=*world.heights().iter().max().unwrap() {
        let blocks = world.nodes.iter().filter_map(|node| node.ledger.block(Height(height)).unwrap());
        let ids: BTreeSet<_> = blocks.map(|(block, _)| block.id()).collect();
        assert_eq!(ids.len(), 1, "two blocks at height {height}");
    }
}

#[test]
fn a_restored_founder_waits_for_all_who_answer_and_not_for_the_first() {
    let mut world = World::pair();
    world.nodes.push(Node::joiner(&found(Ipv4Choice::Derived), NODE + 1, None));
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    world.meet();
    let copy = image(&world.nodes[0]);
    // The first member was away as well: it knows of nothing that the copy lacks.
    world.nodes[1].is_up = false;
    world.order(0, Operation::Admit(admit(NODE + 2, 0)));
    assert_eq!(world.heights(), [3, 2, 3]);
    put_back(&mut world.nodes[0], copy);
    (world.nodes[1].is_up, world.nodes[2].is_up) = (true, false);
    introduce(&mut world, 0, 1);
    let transaction = world.sign(&[ADMIN], vec![Operation::Admit(admit(NODE + 3, 0))]);
    world.nodes[0].ledger.submit(world.now, transaction).unwrap();
    world.pass(Duration::from_secs(9));
    assert_eq!(world.heights()[0], 2, "somebody else may still answer");
    world.nodes[2].is_up = true;
    introduce(&mut world, 0, 2);
    world.pass(Duration::from_secs(30));
    assert_one_history(&world);
    assert_eq!(world.heights(), [4; 3]);
}

#[test]
fn a_copy_from_right_after_the_founding_knows_nobody_and_goes_on_from_whoever_calls() {
    let genesis = found(Ipv4Choice::Derived);
    let mut world = World::new(vec![Node::founder(&genesis, FOUNDER, Some(VALIDATOR))]);
    let copy = image(&world.nodes[0]);
    world.nodes.push(Node::joiner(&genesis, NODE, None));
    world.order(0, Operation::Admit(admit(NODE, 0)));
    world.meet();
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    // Some minutes later, in a network that is still young.
    world.now = world.now + Duration::from_secs(60);
    put_back(&mut world.nodes[0], copy);
    world.nodes[1].is_up = false;
    let transaction = world.sign(&[ADMIN], vec![Operation::Admit(admit(NODE + 2, 0))]);
    world.nodes[0].ledger.submit(world.now, transaction).unwrap();
    world.pass(Duration::from_secs(9));
    assert_eq!(world.heights()[0], 0);
    world.nodes[1].is_up = true;
    introduce(&mut world, 0, 1);
    world.pass(Duration::from_secs(30));
    assert_one_history(&world);
    assert_eq!(world.heights(), [3, 3]);
}

#[test]
fn a_second_chain_under_the_validators_own_signature_halts_whoever_holds_the_first() {
    let mut world = World::pair();
    let copy = image(&world.nodes[0]);
    world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    let first = world.nodes[1].ledger.head().unwrap().id;
    // Nobody answers in time: the bound of what listening can do.
    world.nodes[1].is_up = false;
    put_back(&mut world.nodes[0], copy);
    for seed in [NODE + 2, NODE + 3] {
        world.order(0, Operation::Admit(admit(seed, 0)));
        world.pass(Duration::from_secs(16));
    }
    world.nodes[1].is_up = true;
    world.meet();
    world.pass(Duration::from_secs(16));
    let follower = &world.nodes[1].ledger;
    assert!(matches!(follower.halted(), Some(Halt::Diverged { height: Height(3), .. })), "{:?}", follower.halted());
    assert_eq!(follower.head().unwrap().id, first);
    assert!(follower.policy().member(&id(NODE + 1)).is_some(), "its tunnels stay");
}

#[test]
fn what_was_under_way_at_a_kill_waits_again_and_keeps_its_sequence_number() {
    let mut world = World::pair();
    world.nodes[1].is_up = false;
    let (disk, mark) = (world.nodes[0].disk.image(), world.nodes[0].mark.bytes());
    let transaction = world.order(0, Operation::Admit(admit(NODE + 1, 0)));
    // Killed when the block was in the log and not in the store.
    (world.nodes[0].disk, world.nodes[0].mark) = (Disk::new(&disk), MemoryMark::new(mark));
    world.nodes[0].restart().unwrap();
    assert_eq!(world.heights()[0], 1);
    // Its author's next one does not get the number that this one has.
    assert_eq!(world.nodes[0].ledger.next_seq(&key(ADMIN).verifying_key()), world.seq + 1);
    let later = world.order(0, Operation::Admit(admit(NODE + 2, 0)));
    world.pass(Duration::from_secs(11));
    let ledger = &world.nodes[0].ledger;
    assert!(ledger.transaction(&transaction).unwrap().is_some() && ledger.transaction(&later).unwrap().is_some());
}
