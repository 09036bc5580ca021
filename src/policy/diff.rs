//! What changed from one policy to the next: the work list of a cut.

use super::Policy;
use crate::crypto::identity::NodeId;

/// The members that differ between two policies, each list in the order of the identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyDiff {
    /// Members that were not there before.
    pub admitted: Vec<NodeId>,
    /// Members whose name, keys, addresses or tags changed.
    pub changed: Vec<NodeId>,
    /// Members that are gone: every session, staged packet, label and record of theirs ends.
    pub removed: Vec<NodeId>,
}

impl PolicyDiff {
    /// Compares two policies.
    pub fn between(older: &Policy, newer: &Policy) -> Self {
        let mut diff = Self::default();
        for member in newer.members() {
            match older.member(&member.id) {
                None => diff.admitted.push(member.id),
                Some(before) if before != member => diff.changed.push(member.id),
                Some(_) => {}
            }
        }
        diff.removed = older.members().map(|member| member.id).filter(|id| newer.member(id).is_none()).collect();
        diff
    }

    /// Says whether both policies have the same members.
    pub fn is_empty(&self) -> bool {
        self.admitted.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::member;
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn every_difference_is_named_once() {
        let mut renamed = member(2);
        renamed.name = "other".into();
        let older = Policy::new([member(1), member(2), member(3)], BTreeMap::new(), BTreeSet::new());
        let newer = Policy::new([renamed, member(3), member(4)], BTreeMap::new(), BTreeSet::new());
        let id = |seed| NodeId([seed; 32]);
        let expected = PolicyDiff { admitted: vec![id(4)], changed: vec![id(2)], removed: vec![id(1)] };
        assert_eq!(PolicyDiff::between(&older, &newer), expected);
        assert!(PolicyDiff::between(&older, &older).is_empty());
    }
}
