//! What the ledger permits, as an immutable value.
//!
//! `ledger` produces a [`Policy`] after each block and each revocation on sight; everybody else consumes it and never sees the ledger.
//! Owns who is a member, under which keys and addresses, the network's DNS records, and the proof that a handshake was admitted. Refuses to
//! know how that came about.

pub mod admission;
pub mod decision;
pub mod diff;
pub mod names;
pub mod relay;
pub mod rule;

pub use admission::{Admission, Rights};
pub use diff::PolicyDiff;
pub use names::Names;
pub use relay::RelayTerms;

use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::wire::frame::SegmentNumber;
use crate::wire::prefix::Prefix;
use crate::wire::record::{RecordData, RecordName};
use decision::NumberedRule;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// One admitted node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub id: NodeId,
    /// Its name in the network: one lower-case LDH label, unique.
    pub name: String,
    /// The key that signs its node records.
    pub node_key: VerifyingKey,
    /// The key of its handshakes.
    pub transport_key: TransportKey,
    /// Its overlay addresses, IPv4 (when the network has a pool) before IPv6.
    pub addresses: Vec<IpAddr>,
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// The subnets behind it, sorted by how the overlay sees them.
    pub subnets: Vec<Subnet>,
    /// Whether it may carry others' traffic to everywhere.
    pub is_exit: bool,
    /// On what terms it relays for others by a signer's approval.
    pub relay: Option<RelayTerms>,
    /// Where the ledger says that it is, as a relay or a validator: sorted and distinct.
    pub static_endpoints: Vec<SocketAddr>,
}

/// A subnet behind a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    /// As the overlay sees it.
    pub prefix: Prefix,
    /// As it is there, of the same length: the same prefix, or one to which each address is mapped 1:1.
    pub local: Prefix,
}

/// A segment of the link layer: the members with its tag share one Ethernet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its number, by which frames name it.
    pub number: SegmentNumber,
    /// Its name: one lower-case LDH label, unique.
    pub name: String,
    /// The tag of its members.
    pub tag: String,
    /// The members behind which its routers and DHCP servers are.
    pub gateways: BTreeSet<NodeId>,
    /// The members that vouch for the stations of a network behind them.
    pub bridges: BTreeSet<NodeId>,
    /// Frames a second that one member may send to everybody.
    pub storm_limit: u32,
}

impl Segment {
    /// Says whether a member is in it.
    pub fn has(&self, member: &Member) -> bool {
        member.tags.contains(&self.tag)
    }
}

/// Who belongs to the network and what its rules are, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    members: BTreeMap<NodeId, Member>,
    by_transport_key: BTreeMap<TransportKey, NodeId>,
    by_address: BTreeMap<IpAddr, NodeId>,
    validators: BTreeMap<NodeId, TransportKey>,
    revoked: BTreeSet<NodeId>,
    rules: Vec<NumberedRule>,
    names: Names,
    segments: Vec<Segment>,
}

impl Policy {
    /// Builds the indexes over `members`, without those in `revoked`.
    ///
    /// `validators` maps the identities of current validators to their transport keys: a revoked one keeps its consensus streams.
    pub fn new(
        members: impl IntoIterator<Item = Member>,
        validators: BTreeMap<NodeId, TransportKey>,
        revoked: BTreeSet<NodeId>,
    ) -> Self {
        let mut policy = Self { validators, revoked, ..Self::default() };
        for member in members {
            if policy.revoked.contains(&member.id) {
                continue;
            }
            policy.by_transport_key.insert(member.transport_key, member.id);
            policy.by_address.extend(member.addresses.iter().map(|address| (*address, member.id)));
            policy.members.insert(member.id, member);
        }
        policy
    }

    /// The same with these rules, in the order of their numbers; without any, nobody may begin to talk to anybody.
    #[must_use]
    pub fn with_rules(self, rules: Vec<NumberedRule>) -> Self {
        Self { rules, ..self }
    }

    /// Lends the rules in the order of their numbers.
    pub fn rules(&self) -> &[NumberedRule] {
        &self.rules
    }

    /// Adds the network's DNS records: those that point to members, or to names that do.
    #[must_use]
    pub fn with_names(mut self, records: impl IntoIterator<Item = (RecordName, RecordData)>) -> Self {
        self.names = Names::new(records, |id| self.members.contains_key(id));
        self
    }

    /// Lends the network's DNS records.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Adds the segments of the link layer.
    pub fn with_segments(self, segments: impl IntoIterator<Item = Segment>) -> Self {
        Self { segments: segments.into_iter().collect(), ..self }
    }

    /// Iterates over the segments of the link layer, in the order of their names.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter()
    }

    /// Finds a segment by its name.
    pub fn segment(&self, name: &str) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.name == name)
    }

    /// Decides what the holder of `transport_key` may do here.
    pub fn admit(&self, transport_key: &TransportKey) -> Admission {
        let rights = match self.by_transport_key.get(transport_key) {
            Some(id) => Rights::Member(*id),
            None => match self.validators.iter().find(|(_, key)| *key == transport_key) {
                Some((id, _)) => Rights::Consensus(*id),
                None => Rights::Guest,
            },
        };
        Admission::new(*transport_key, rights)
    }

    /// Finds a member by its identity.
    pub fn member(&self, id: &NodeId) -> Option<&Member> {
        self.members.get(id)
    }

    /// Finds the member that owns an overlay address.
    pub fn owner(&self, address: &IpAddr) -> Option<&Member> {
        self.members.get(self.by_address.get(address)?)
    }

    /// Iterates over all members in the order of their identities.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Says whether the identity was revoked (and not admitted again since).
    pub fn is_revoked(&self, id: &NodeId) -> bool {
        self.revoked.contains(id)
    }

    /// Iterates over the revoked identities.
    pub fn revoked(&self) -> impl Iterator<Item = &NodeId> {
        self.revoked.iter()
    }

    /// Says whether a transport key is a current validator's.
    pub fn is_validator(&self, key: &TransportKey) -> bool {
        self.validators.values().any(|validator| validator == key)
    }

    /// Says whether the identity is a current validator's, a revoked one's as well.
    pub fn has_validator(&self, id: &NodeId) -> bool {
        self.validators.contains_key(id)
    }

    /// Iterates over the current validators and the keys of their handshakes, in the order of their identities. A revoked one is among
    /// them and no member: it orders until a block replaces it.
    pub fn validators(&self) -> impl Iterator<Item = (&NodeId, &TransportKey)> {
        self.validators.iter()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn member(seed: u8) -> Member {
        Member {
            id: NodeId([seed; 32]),
            name: format!("node-{seed}"),
            node_key: VerifyingKey([seed; 32]),
            transport_key: TransportKey([seed; 32]),
            addresses: vec![IpAddr::from([10, 64, 0, seed])],
            tags: Vec::new(),
            subnets: Vec::new(),
            is_exit: false,
            relay: None,
            static_endpoints: Vec::new(),
        }
    }

    #[test]
    fn a_revoked_member_is_a_guest_and_owns_no_address() {
        let policy = Policy::new([member(1), member(2)], BTreeMap::new(), BTreeSet::from([NodeId([2; 32])]));
        assert_eq!(policy.admit(&TransportKey([1; 32])).rights(), Rights::Member(NodeId([1; 32])));
        assert_eq!(policy.admit(&TransportKey([2; 32])).rights(), Rights::Guest);
        assert_eq!(policy.owner(&IpAddr::from([10, 64, 0, 2])), None);
    }

    #[test]
    fn a_revoked_validator_keeps_its_consensus_streams() {
        let id = NodeId([2; 32]);
        let validators = BTreeMap::from([(id, TransportKey([2; 32]))]);
        let policy = Policy::new([member(2)], validators, BTreeSet::from([id]));
        assert_eq!(policy.admit(&TransportKey([2; 32])).rights(), Rights::Consensus(id));
    }
}
