//! Short numbers for members.
//!
//! A number is given once and means the same member as long as the daemon runs, whatever becomes of the member: a table made a moment ago and
//! routes made now never speak of two members by one number. A hundred bytes for each member that there ever was.

use crate::crypto::identity::NodeId;
use crate::router::PeerIndex;
use std::collections::HashMap;
use std::sync::Arc;

/// The numbers given so far.
#[derive(Default)]
pub(super) struct Numbering {
    numbers: HashMap<NodeId, PeerIndex>,
    members: Arc<Vec<NodeId>>,
}

impl Numbering {
    /// Returns a member's number; `None` when there are no more.
    pub(super) fn number(&mut self, member: NodeId) -> Option<PeerIndex> {
        if let Some(number) = self.numbers.get(&member) {
            return Some(*number);
        }
        let number = u32::try_from(self.members.len()).ok().and_then(PeerIndex::at)?;
        Arc::make_mut(&mut self.members).push(member);
        self.numbers.insert(member, number);
        Some(number)
    }

    /// Returns the number of a member that has one.
    pub(super) fn known(&self, member: &NodeId) -> Option<PeerIndex> {
        self.numbers.get(member).copied()
    }

    /// Returns the members by the position of their numbers.
    pub(super) fn all(&self) -> Arc<Vec<NodeId>> {
        Arc::clone(&self.members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_one_member_s_for_ever() {
        let mut numbering = Numbering::default();
        let ids = [5, 3, 9].map(|byte| NodeId([byte; 32]));
        let first = ids.map(|id| numbering.number(id).unwrap());
        let before = numbering.all();
        assert!(numbering.number(NodeId([1; 32])).is_some_and(|number| !first.contains(&number)));
        assert_eq!(ids.map(|id| numbering.number(id).unwrap()), first);
        assert_eq!((before.as_slice(), numbering.all().len()), (&ids[..], 4), "and tables keep what they had");
        assert_eq!(first.map(|number| numbering.all()[number.position()]), ids);
    }
}
