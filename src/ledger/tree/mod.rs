//! The authenticated key/value tree whose root is a block's `state_root`.
//!
//! Owns the root after some changes, the node writes that go with it, and the proofs that a key has a value or none.
//! Refuses to know what keys and values mean and where nodes are kept: they come from a [`NodeSource`].
//!
//! ```text
//!  pairs ──► leaf = H("JMT::LeafNode" ‖ H(key) ‖ H(value)) ──► 16-ary nodes of a binary Merkle tree over H(key) ──► root
//! ```
//! The root is a function of the pairs alone, whatever the order in which they came. Only the newest version's nodes are kept.
//! Source: `jmt` 0.12 (the Jellyfish Merkle tree of Diem), with BLAKE3 under a domain string as its hash.

mod node;
mod proof;

pub use node::MemoryNodes;
pub use proof::{Proof, ProofError};

use crate::crypto::hash::{Digest, DomainHasher};
use crate::ledger::Changes;
use borsh::{BorshDeserialize, BorshSerialize};
use jmt::storage::{Node, NodeKey};
use jmt::{JellyfishMerkleTree, KeyHash, SimpleHasher, ValueHash};
use node::{Reader, decode_node, encode_node, encode_node_key, root_key};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// The root of a tree without keys, as `jmt` defines it.
pub const EMPTY_ROOT: Digest = Digest(*b"SPARSE_MERKLE_PLACEHOLDER_HASH__");

const DOMAIN: &str = "p2plus 2026 state tree";

/// Why a tree could not be read or changed. Each is a fault of what is stored, never of a peer.
#[derive(Debug, Error)]
pub enum TreeError {
    /// A node that the tree refers to is not stored.
    #[error("a node of the state tree is missing")]
    Missing,
    /// A stored node is malformed or does not hash to what its parent says.
    #[error("a node of the state tree is corrupt")]
    Corrupt,
    /// The nodes and the stored pairs are not the same state.
    #[error("the state tree does not match the stored state")]
    Mismatch,
    /// The source of the nodes could not be read.
    #[error("the state tree could not be read: {0}")]
    Source(String),
}

/// Where nodes are read from: opaque keys and values, as a [`TreeUpdate`] wrote them.
pub trait NodeSource {
    /// Returns the node stored under `key`.
    ///
    /// # Errors
    /// [`TreeError::Source`] when the storage fails.
    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TreeError>;
}

impl<S: NodeSource + ?Sized> NodeSource for &S {
    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        (**self).node(key)
    }
}

/// What a block's execution asks of the tree.
pub trait StateTree {
    /// Returns the root as of the last block.
    fn root(&self) -> Digest;

    /// Returns the root as it would be after `changes`, changing nothing.
    ///
    /// # Errors
    /// A [`TreeError`] when the stored tree cannot be read.
    fn root_after(&self, changes: &Changes) -> Result<Digest, TreeError>;
}

/// Which tree is meant: its root and how many updates led to it (node keys carry that number).
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct TreeHead {
    /// Updates so far; 0 means a tree that never held a key.
    pub updates: u64,
    /// The root hash.
    pub root: Digest,
}

impl TreeHead {
    /// The tree before the first key.
    pub const EMPTY: Self = Self { updates: 0, root: EMPTY_ROOT };
}

/// The writes that turn one tree into the next: to be stored together with the block, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeUpdate {
    /// The tree that the changes were applied to.
    pub base: TreeHead,
    /// The tree after them.
    pub head: TreeHead,
    /// New nodes by key.
    pub written: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Keys of nodes that the new tree no longer needs.
    pub removed: BTreeSet<Vec<u8>>,
}

impl TreeUpdate {
    fn unchanged(head: TreeHead) -> Self {
        Self { base: head, head, written: BTreeMap::new(), removed: BTreeSet::new() }
    }
}

/// A tree over the nodes of a [`NodeSource`].
#[derive(Clone, Debug)]
pub struct Tree<S> {
    nodes: S,
    head: TreeHead,
}

impl<S: NodeSource> Tree<S> {
    /// Makes the tree `head` of the nodes in `nodes`.
    pub fn new(nodes: S, head: TreeHead) -> Self {
        Self { nodes, head }
    }

    /// Returns which tree this is.
    pub fn head(&self) -> TreeHead {
        self.head
    }

    /// Computes the tree after `changes` and the node writes that lead to it.
    ///
    /// # Errors
    /// A [`TreeError`] when the stored tree cannot be read.
    pub fn update(&self, changes: &Changes) -> Result<TreeUpdate, TreeError> {
        let latest: BTreeMap<[u8; 32], Option<&Vec<u8>>> =
            changes.iter().map(|(key, value)| (key_hash(key).0, value.as_ref())).collect();
        if latest.is_empty() {
            return Ok(TreeUpdate::unchanged(self.head));
        }
        // jmt takes a missing root for an empty tree, so its presence is checked here.
        if self.head.updates > 0 {
            self.root_node()?;
        }
        let reader = Reader(&self.nodes);
        let version = self.head.updates;
        let pairs = latest.into_iter().map(|(key, value)| (KeyHash(key), value.cloned()));
        let (root, batch) = JellyfishMerkleTree::<_, TreeHasher>::new(&reader)
            .put_value_set(pairs, version)
            .map_err(TreeError::from_jmt)?;
        if root.0 == self.head.root.0 {
            return Ok(TreeUpdate::unchanged(self.head));
        }
        let mut removed: BTreeSet<_> =
            batch.stale_node_index_batch.iter().map(|stale| encode_node_key(&stale.node_key)).collect();
        if version > 0 {
            // jmt leaves the root of an emptied tree behind.
            removed.insert(encode_node_key(&root_key(version - 1)));
        }
        Ok(TreeUpdate {
            base: self.head,
            head: TreeHead { updates: version + 1, root: Digest(root.0) },
            written: encode_nodes(batch.node_batch.nodes()),
            removed,
        })
    }

    /// Checks that every node is there and hashes to what its parent says, and that the leaves are exactly `pairs`.
    ///
    /// # Errors
    /// [`TreeError::Missing`], [`TreeError::Corrupt`] or [`TreeError::Mismatch`].
    pub fn check(&self, pairs: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), TreeError> {
        let mut leaves: BTreeSet<_> = pairs.into_iter().map(|(key, value)| leaf_hash(&key, &value)).collect();
        if self.head.root == EMPTY_ROOT {
            return if leaves.is_empty() { Ok(()) } else { Err(TreeError::Mismatch) };
        }
        let Some(version) = self.head.updates.checked_sub(1) else { return Err(TreeError::Mismatch) };
        let mut open = vec![(root_key(version), self.head.root.0, None)];
        while let Some((key, expected, leaf_count)) = open.pop() {
            let node = self.fetch(&key)?;
            if leaf_count.is_some_and(|count| count != leaves_under(&node)) {
                return Err(TreeError::Corrupt);
            }
            match node {
                Node::Leaf(leaf) if leaf.hash::<TreeHasher>() == expected => {
                    if !leaves.remove(&expected) {
                        return Err(TreeError::Mismatch);
                    }
                }
                Node::Internal(node) if node.hash::<TreeHasher>() == expected => {
                    for (nibble, child) in node.children_sorted() {
                        let child_key = node.get_only_child_without_siblings(&key, nibble).ok_or(TreeError::Corrupt)?;
                        open.push((child_key, child.hash, Some(child.leaf_count())));
                    }
                }
                _ => return Err(TreeError::Corrupt),
            }
        }
        if leaves.is_empty() { Ok(()) } else { Err(TreeError::Mismatch) }
    }

    /// Makes the proof that `key` has its value, or none.
    ///
    /// # Errors
    /// A [`TreeError`] when the stored tree cannot be read.
    pub fn prove(&self, key: &[u8]) -> Result<Proof, TreeError> {
        let key = key_hash(key);
        let version = self.head.updates.saturating_sub(1);
        let nodes = self.path_to(key)?;
        let (_, proof) = JellyfishMerkleTree::<_, TreeHasher>::new(&nodes)
            .get_with_proof(key, version)
            .map_err(TreeError::from_jmt)?;
        Ok(Proof::new(proof))
    }

    /// Collects the nodes on the way to `key` and all their children: `jmt` panics where a proof's sibling is missing,
    /// so each is known to be there before it is asked.
    fn path_to(&self, key: KeyHash) -> Result<node::Path, TreeError> {
        let mut path = node::Path::default();
        let Some(version) = self.head.updates.checked_sub(1) else {
            path.insert(root_key(0), Node::Null);
            return Ok(path);
        };
        let mut next = Some(root_key(version));
        for depth in 0..64 {
            let Some(at) = next else { break };
            let node = self.fetch(&at)?;
            next = None;
            if let Node::Internal(internal) = &node {
                let nibble = (key.0[depth / 2] >> (4 * (1 - depth % 2))) & 0x0f;
                for (index, _) in internal.children_sorted() {
                    let child = internal.get_only_child_without_siblings(&at, index).ok_or(TreeError::Corrupt)?;
                    if u8::from(index) == nibble {
                        next = Some(child.clone());
                    }
                    path.insert(child.clone(), self.fetch(&child)?);
                }
            }
            path.insert(at, node);
        }
        Ok(path)
    }

    fn root_node(&self) -> Result<Node, TreeError> {
        let node = self.fetch(&root_key(self.head.updates.saturating_sub(1)))?;
        let hash = match &node {
            Node::Null => EMPTY_ROOT.0,
            Node::Leaf(leaf) => leaf.hash::<TreeHasher>(),
            Node::Internal(internal) => internal.hash::<TreeHasher>(),
        };
        if hash == self.head.root.0 { Ok(node) } else { Err(TreeError::Corrupt) }
    }

    fn fetch(&self, key: &NodeKey) -> Result<Node, TreeError> {
        let bytes = self.nodes.node(&encode_node_key(key))?.ok_or(TreeError::Missing)?;
        decode_node(&bytes)
    }
}

impl<S: NodeSource> StateTree for Tree<S> {
    fn root(&self) -> Digest {
        self.head.root
    }

    fn root_after(&self, changes: &Changes) -> Result<Digest, TreeError> {
        Ok(self.update(changes)?.head.root)
    }
}

/// A tree whose nodes are in memory: for tests, the simulator and short-lived copies.
pub type MemoryTree = Tree<MemoryNodes>;

impl Default for MemoryTree {
    fn default() -> Self {
        Self::new(MemoryNodes::default(), TreeHead::EMPTY)
    }
}

impl MemoryTree {
    /// Applies `changes`.
    ///
    /// # Errors
    /// A [`TreeError`] when nodes are missing.
    pub fn apply(&mut self, changes: &Changes) -> Result<(), TreeError> {
        let update = self.update(changes)?;
        self.head = update.head;
        self.nodes.apply(update);
        Ok(())
    }
}

/// Builds the tree of `pairs` from nothing: the oracle of every incremental root, and how missing nodes come back.
///
/// # Errors
/// None that `jmt` is known to give for a tree without stored nodes.
pub fn build(pairs: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<TreeUpdate, TreeError> {
    let pairs: Vec<_> = pairs.into_iter().map(|(key, value)| (key_hash(&key), value)).collect();
    if pairs.is_empty() {
        return Ok(TreeUpdate::unchanged(TreeHead::EMPTY));
    }
    let nothing = MemoryNodes::default();
    let reader = Reader(&nothing);
    let (roots, batch) = JellyfishMerkleTree::<_, TreeHasher>::new(&reader)
        .batch_put_value_sets(vec![pairs], None, 0)
        .map_err(TreeError::from_jmt)?;
    let root = roots.first().ok_or(TreeError::Corrupt)?;
    Ok(TreeUpdate {
        base: TreeHead::EMPTY,
        head: TreeHead { updates: 1, root: Digest(root.0) },
        written: encode_nodes(batch.node_batch.nodes()),
        removed: BTreeSet::new(),
    })
}

fn encode_nodes(nodes: &BTreeMap<NodeKey, Node>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    nodes.iter().map(|(key, node)| (encode_node_key(key), encode_node(node))).collect()
}

impl TreeError {
    /// Gives back the error that our own reader put into `jmt`'s chain; any other means nodes that do not fit together.
    fn from_jmt(error: anyhow::Error) -> Self {
        error.downcast().unwrap_or(Self::Corrupt)
    }
}

fn leaves_under(node: &Node) -> usize {
    match node {
        Node::Null => 0,
        Node::Leaf(_) => 1,
        Node::Internal(internal) => internal.leaf_count(),
    }
}

fn key_hash(key: &[u8]) -> KeyHash {
    KeyHash(DomainHasher::new(DOMAIN).update(key).finish().0)
}

fn leaf_hash(key: &[u8], value: &[u8]) -> [u8; 32] {
    jmt::storage::LeafNode::new(key_hash(key), ValueHash::with::<TreeHasher>(value)).hash::<TreeHasher>()
}

/// BLAKE3 as `jmt` wants a hash.
struct TreeHasher(DomainHasher);

impl SimpleHasher for TreeHasher {
    fn new() -> Self {
        Self(DomainHasher::new(DOMAIN))
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finalize(self) -> [u8; 32] {
        self.0.finish().0
    }
}

#[cfg(test)]
mod tests;
