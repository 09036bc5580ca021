use super::*;
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> (Vec<u8>, Option<Vec<u8>>) {
    (key.into(), Some(value.into()))
}

fn scratch_root(pairs: &Pairs) -> Digest {
    build(pairs.clone()).unwrap().head.root
}

fn apply_to(pairs: &mut Pairs, changes: &Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => pairs.insert(key.clone(), value.clone()),
            None => pairs.remove(key),
        };
    }
}

fn tree_of(count: u32) -> (MemoryTree, Pairs) {
    let changes: Changes = (0..count).map(|n| put(format!("key {n}"), format!("value {n}"))).collect();
    let (mut tree, mut pairs) = (MemoryTree::default(), Pairs::new());
    tree.apply(&changes).unwrap();
    apply_to(&mut pairs, &changes);
    (tree, pairs)
}

/// Keys from a small set, so that updates, deletions and keys that come back are frequent.
fn any_changes() -> impl Strategy<Value = Changes> {
    let change = (0..24u8, proptest::option::weighted(0.6, proptest::collection::vec(any::<u8>(), 0..4)));
    proptest::collection::vec(change.prop_map(|(key, value)| (vec![key], value)), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn root_is_that_of_a_tree_built_from_nothing(blocks in proptest::collection::vec(any_changes(), 1..12)) {
        let (mut tree, mut pairs) = (MemoryTree::default(), Pairs::new());
        for changes in &blocks {
            let promised = tree.root_after(changes).unwrap();
            tree.apply(changes).unwrap();
            apply_to(&mut pairs, changes);
            prop_assert_eq!(tree.root(), promised);
            prop_assert_eq!(tree.root(), scratch_root(&pairs));
            prop_assert!(tree.check(pairs.clone()).is_ok());
            // Nothing but the newest version is kept: as many nodes as the tree from nothing has, and the root of an emptied one.
            let fresh = build(pairs.clone()).unwrap().written.len();
            prop_assert_eq!(tree.nodes.len(), fresh.max(usize::from(tree.head.updates > 0)));
        }
    }

    #[test]
    fn root_does_not_depend_on_the_order(pairs in proptest::collection::btree_map(any::<[u8; 3]>(), any::<u8>(), 0..40), seed: u64) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut order: Vec<_> = pairs.iter().map(|(key, value)| (key.to_vec(), vec![*value])).collect();
        let expected = build(order.clone()).unwrap().head.root;
        for last in (1..order.len()).rev() {
            order.swap(last, rng.next_u64() as usize % (last + 1));
        }
        let mut tree = MemoryTree::default();
        for (key, value) in order {
            tree.apply(&vec![(key, Some(value))]).unwrap();
        }
        prop_assert_eq!(tree.root(), expected);
    }

    #[test]
    fn proofs_show_what_is_there_and_what_is_not(changes in any_changes(), more in any_changes()) {
        let (mut tree, mut pairs) = (MemoryTree::default(), Pairs::new());
        for changes in [&changes, &more] {
            tree.apply(changes).unwrap();
            apply_to(&mut pairs, changes);
        }
        for key in (0..28u8).map(|key| vec![key]) {
            let proof = Proof::decode(&tree.prove(&key).unwrap().encode()).unwrap();
            let value = pairs.get(&key).map(Vec::as_slice);
            prop_assert_eq!(proof.verify(tree.root(), &key, value), Ok(()));
            let lie = if value.is_some() { None } else { Some(b"lie".as_slice()) };
            prop_assert_eq!(proof.verify(tree.root(), &key, lie), Err(ProofError::Wrong));
            prop_assert_eq!(proof.verify(tree.root(), &key, Some(b"another lie")), Err(ProofError::Wrong));
            prop_assert_eq!(proof.verify(Digest::default(), &key, value), Err(ProofError::Wrong));
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_proof(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(proof) = Proof::decode(&bytes) {
            prop_assert_eq!(proof.encode(), bytes);
            prop_assert_eq!(proof.verify(Digest([1; 32]), b"key", None), Err(ProofError::Wrong));
        }
    }
}

#[test]
fn an_empty_tree_has_the_empty_root_and_proves_absence() {
    let mut tree = MemoryTree::default();
    assert_eq!(tree.root(), EMPTY_ROOT);
    assert_eq!(tree.prove(b"a").unwrap().verify(EMPTY_ROOT, b"a", None), Ok(()));
    tree.apply(&vec![put("a", "1")]).unwrap();
    tree.apply(&vec![(b"a".to_vec(), None)]).unwrap();
    assert_eq!(tree.root(), EMPTY_ROOT);
    assert_eq!(tree.prove(b"a").unwrap().verify(EMPTY_ROOT, b"a", None), Ok(()));
    tree.apply(&vec![put("b", "1")]).unwrap();
    assert_eq!(tree.root(), scratch_root(&Pairs::from([(b"b".to_vec(), b"1".to_vec())])));
}

#[test]
fn changes_that_change_nothing_write_nothing() {
    let (tree, _) = tree_of(50);
    let same = tree.update(&vec![put("key 7", "value 7"), (b"never there".to_vec(), None)]).unwrap();
    assert_eq!((same.head, same.written.len(), same.removed.len()), (tree.head(), 0, 0));
}

#[test]
fn of_two_changes_of_one_key_the_later_holds() {
    let (tree, mut pairs) = tree_of(9);
    let changes = vec![put("key 3", "x"), put("key 3", "y"), put("key 4", "z"), (b"key 4".to_vec(), None)];
    apply_to(&mut pairs, &changes);
    assert_eq!(tree.root_after(&changes).unwrap(), scratch_root(&pairs));
}

#[test]
fn every_missing_or_damaged_node_is_noticed_and_none_panics() {
    let (tree, pairs) = tree_of(40);
    let written = build(pairs.clone()).unwrap().written;
    assert!(written.len() > 40);
    for (key, node) in &written {
        let mut without = tree.clone();
        without.nodes.apply(TreeUpdate { removed: [key.clone()].into(), ..TreeUpdate::unchanged(TreeHead::EMPTY) });
        assert!(matches!(without.check(pairs.clone()), Err(TreeError::Missing)));
        for n in 0..40 {
            let key = format!("key {n}").into_bytes();
            let _ = without.prove(&key);
            let _ = without.update(&vec![(key.clone(), None)]);
            let _ = without.update(&vec![(key, Some(vec![1]))]);
        }
        for at in (0..node.len()).step_by(13) {
            let mut damaged = node.clone();
            damaged[at] ^= 0x10;
            let mut tree = tree.clone();
            let written = [(key.clone(), damaged)].into();
            tree.nodes.apply(TreeUpdate { written, ..TreeUpdate::unchanged(TreeHead::EMPTY) });
            assert!(tree.check(pairs.clone()).is_err(), "byte {at} of a node");
            for n in 0..40 {
                let key = format!("key {n}").into_bytes();
                let _ = tree.prove(&key);
                let _ = tree.update(&vec![(key.clone(), None)]);
                let _ = tree.update(&vec![(key, Some(vec![1]))]);
            }
        }
    }
}

#[test]
fn a_missing_root_is_not_an_empty_tree() {
    let (tree, _) = tree_of(5);
    let bare = Tree::new(MemoryNodes::default(), tree.head());
    assert!(matches!(bare.root_after(&vec![put("a", "1")]), Err(TreeError::Missing)));
    assert!(matches!(bare.prove(b"key 1"), Err(TreeError::Missing)));
}

#[test]
fn check_refuses_other_pairs() {
    let (tree, pairs) = tree_of(20);
    let (mut more, mut fewer, mut other) = (pairs.clone(), pairs.clone(), pairs);
    more.insert(b"x".to_vec(), b"y".to_vec());
    fewer.remove(b"key 3".as_slice());
    other.insert(b"key 3".to_vec(), b"y".to_vec());
    for pairs in [more, fewer, other] {
        assert!(matches!(tree.check(pairs), Err(TreeError::Mismatch)));
    }
}

#[test]
fn a_proof_with_any_byte_changed_proves_nothing_else() {
    let (tree, _) = tree_of(300);
    let bytes = tree.prove(b"key 17").unwrap().encode();
    for at in 0..bytes.len() {
        let mut forged = bytes.clone();
        forged[at] ^= 1;
        let Ok(forged) = Proof::decode(&forged) else { continue };
        assert_eq!(forged.verify(tree.root(), b"key 17", None), Err(ProofError::Wrong));
        assert_eq!(forged.verify(tree.root(), b"key 17", Some(b"value 18")), Err(ProofError::Wrong));
    }
}

/// The root is consensus: another hash, another encoding or another jmt would fork the chain.
#[test]
fn the_root_of_known_pairs_never_changes() {
    assert_eq!(tree_of(3).0.root().to_string(), "4d9cfa0ba86848e8214b7ef167e5080045a1295006e34d1e98fe9793a49ef36c");
}
