//! Nodes as bytes, and the sources that `jmt` reads them from.

use super::{NodeSource, TreeError, TreeUpdate};
use jmt::storage::{LeafNode, NibblePath, Node, NodeKey, TreeReader};
use jmt::{KeyHash, OwnedValue, Version};
use std::collections::BTreeMap;

/// The most leaves a node may claim: far above any network, far below an overflow.
const MAX_LEAVES: u64 = 1 << 40;

/// Nodes kept in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryNodes(BTreeMap<Vec<u8>, Vec<u8>>);

impl MemoryNodes {
    /// Writes and removes what `update` says.
    pub fn apply(&mut self, update: TreeUpdate) {
        for key in &update.removed {
            self.0.remove(key);
        }
        self.0.extend(update.written);
    }

    /// Returns the number of nodes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl NodeSource for MemoryNodes {
    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        Ok(self.0.get(key).cloned())
    }
}

/// A [`NodeSource`] as `jmt` wants to read it.
pub(super) struct Reader<'a, S>(pub(super) &'a S);

impl<S: NodeSource> TreeReader for Reader<'_, S> {
    fn get_node_option(&self, key: &NodeKey) -> anyhow::Result<Option<Node>> {
        let Some(bytes) = self.0.node(&encode_node_key(key))? else {
            // Only the root before the first key may be absent; jmt would take any other for an empty tree.
            return if key.nibble_path().is_empty() { Ok(None) } else { Err(TreeError::Missing.into()) };
        };
        Ok(Some(decode_node(&bytes)?))
    }

    fn get_value_option(&self, _: Version, _: KeyHash) -> anyhow::Result<Option<OwnedValue>> {
        Ok(None)
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        Ok(None)
    }
}

/// The nodes that one proof needs.
#[derive(Default)]
pub(super) struct Path(BTreeMap<NodeKey, Node>);

impl Path {
    pub(super) fn insert(&mut self, key: NodeKey, node: Node) {
        self.0.insert(key, node);
    }
}

impl TreeReader for Path {
    fn get_node_option(&self, key: &NodeKey) -> anyhow::Result<Option<Node>> {
        Ok(self.0.get(key).cloned())
    }

    /// A proof needs only the value's hash, which is in the leaf: the value itself is in the state table.
    fn get_value_option(&self, _: Version, _: KeyHash) -> anyhow::Result<Option<OwnedValue>> {
        Ok(Some(Vec::new()))
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        Ok(None)
    }
}

pub(super) fn root_key(version: Version) -> NodeKey {
    NodeKey::new(version, NibblePath::from_iter([]))
}

/// `version` u64 big endian ‖ one byte per nibble: in the order of the versions, so that a block's new nodes lie together.
pub(super) fn encode_node_key(key: &NodeKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + key.nibble_path().num_nibbles());
    bytes.extend(key.version().to_be_bytes());
    bytes.extend(key.nibble_path().nibbles().map(u8::from));
    bytes
}

pub(super) fn encode_node(node: &Node) -> Vec<u8> {
    borsh::to_vec(node).expect("borsh writes to memory without error")
}

/// Decodes a node, refusing counts that do not fit together: no hash covers them, and `jmt` adds them up unchecked.
pub(super) fn decode_node(bytes: &[u8]) -> Result<Node, TreeError> {
    let node = borsh::from_slice(bytes).map_err(|_| TreeError::Corrupt)?;
    let Node::Internal(internal) = &node else { return Ok(node) };
    let (mut children, mut leaves) = (0_u64, 0_u64);
    for (_, child) in internal.children_sorted() {
        children += 1;
        leaves = leaves.checked_add(child.leaf_count() as u64).ok_or(TreeError::Corrupt)?;
    }
    // borsh writes the two counts last.
    let counts = [children.to_le_bytes(), leaves.to_le_bytes()].concat();
    if leaves <= MAX_LEAVES && bytes.ends_with(&counts) { Ok(node) } else { Err(TreeError::Corrupt) }
}
