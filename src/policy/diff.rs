//! What changed from one policy to the next: the work list of a cut.

use super::Policy;
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;

/// The members that differ between two policies, each list in the order of the identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyDiff {
    /// Members that were not there before.
    pub admitted: Vec<NodeId>,
    /// Members whose name, keys, addresses, tags, subnets, part as an exit or relay, or static endpoints changed.
    pub changed: Vec<NodeId>,
    /// Members that are gone: every session, staged packet, label and record of theirs ends.
    pub removed: Vec<NodeId>,
    /// The handshake keys that these had.
    pub removed_keys: Vec<TransportKey>,
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
        for gone in older.members().filter(|member| newer.member(&member.id).is_none()) {
            diff.removed.push(gone.id);
            diff.removed_keys.push(gone.transport_key);
        }
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
    use super::super::{Member, RelayTerms};
    use super::*;
    use crate::wire::endpoint::StaticEndpoints;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn every_difference_is_named_once() {
        let mut renamed = member(2);
        renamed.name = "other".into();
        let older = Policy::new([member(1), member(2), member(3)], BTreeMap::new(), BTreeSet::new());
        let newer = Policy::new([renamed, member(3), member(4)], BTreeMap::new(), BTreeSet::new());
        let id = |seed| NodeId([seed; 32]);
        let removed_keys = vec![member(1).transport_key];
        let expected = PolicyDiff { admitted: vec![id(4)], changed: vec![id(2)], removed: vec![id(1)], removed_keys };
        assert_eq!(PolicyDiff::between(&older, &newer), expected);
        assert!(PolicyDiff::between(&older, &older).is_empty());
    }

    #[test]
    fn a_member_that_becomes_a_relay_or_moves_has_changed() {
        let endpoint = "203.0.113.7:4647".parse().unwrap();
        let terms = |class| RelayTerms::new(StaticEndpoints::new([endpoint]).unwrap(), 443, class).unwrap();
        let policy = |member| Policy::new([member], BTreeMap::new(), BTreeSet::new());
        let places = [
            member(1),
            Member { relay: Some(terms(2)), ..member(1) },
            Member { relay: Some(terms(3)), ..member(1) },
            Member { static_endpoints: vec![endpoint], ..member(1) },
        ];
        for pair in places.windows(2) {
            let diff = PolicyDiff::between(&policy(pair[0].clone()), &policy(pair[1].clone()));
            assert_eq!(diff, PolicyDiff { changed: vec![NodeId([1; 32])], ..PolicyDiff::default() });
        }
    }
}
