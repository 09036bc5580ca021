//! Proofs that an entry is, or is not, in the state.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::ledger::tree::{MemoryTree, Proof};
use std::sync::OnceLock;

fuzz_target!(|bytes: &[u8]| {
    static TREE: OnceLock<MemoryTree> = OnceLock::new();
    let tree = TREE.get_or_init(|| {
        let mut tree = MemoryTree::default();
        let entries = (0u8..40).map(|key| (vec![key], Some(vec![key, 1]))).collect();
        tree.apply(&entries).expect("a tree in memory");
        tree
    });
    let Ok(proof) = Proof::decode(bytes) else { return };
    assert_eq!(proof.encode(), bytes);
    let root = tree.head().root;
    assert!(proof.verify(root, &[1], None).is_err(), "an entry was proved away");
    assert!(proof.verify(root, &[1], Some(&[2])).is_err(), "another value was proved");
    assert!(proof.verify(root, &[99], Some(&[])).is_err(), "a foreign entry was proved");
});
