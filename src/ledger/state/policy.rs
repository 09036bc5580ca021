//! The state as everybody else sees it.

use super::State;
use super::governance::RULES_SINCE;
use super::members::incarnation;
use super::records::{EXITS, MEMBERS, MemberRecord, Network, REVOKED, ROUTES, SegmentRecord};
use super::table::View;
use crate::crypto::hash::Digest;
use crate::crypto::identity::NodeId;
use crate::ledger::address::{ipv6_address, ipv6_host};
use crate::ledger::name::Label;
use crate::ledger::operation::Incarnation;
use crate::policy::decision::NumberedRule;
use crate::policy::rule::Rule;
use crate::policy::{Member, Policy, RelayTerms, Segment, Subnet};
use crate::wire::endpoint::StaticEndpoints;
use crate::wire::frame::SegmentNumber;
use crate::wire::record::{RecordData, RecordName};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

impl State {
    /// Returns who belongs to the network, once `pending` revocations (identity, incarnation) are taken into account.
    ///
    /// A pending revocation counts for the incarnation that it names and every earlier one.
    pub fn policy(&self, pending: &BTreeMap<NodeId, Incarnation>) -> Policy {
        let network = self.network();
        let members = self.entries.list(&MEMBERS, &[], usize::MAX);
        let validators = self.seats().as_slice().iter().map(|seat| (seat.node, seat.transport_key)).collect();
        let revoked = self.revoked(pending);
        let member = |(id, record): (NodeId, MemberRecord)| self.policy_member(network.as_ref(), id, &record);
        let names = self.records_in_force(&members, &revoked);
        let segments = self.segments().into_iter().map(|(name, record)| self.policy_segment(&name, record));
        Policy::new(members.into_iter().map(member), validators, revoked)
            .with_rules(self.policy_rules(network.as_ref()))
            .with_names(names)
            .with_segments(segments)
    }

    fn policy_segment(&self, name: &Label, record: SegmentRecord) -> Segment {
        Segment {
            number: SegmentNumber(record.number),
            name: name.to_string(),
            tag: record.tag.to_string(),
            gateways: record.gateways,
            bridges: self.bridges(record.number).into_iter().collect(),
            storm_limit: record.storm_limit,
        }
    }

    /// Lists the identities that were revoked and are no members, or will not be once `pending` is committed.
    fn revoked(&self, pending: &BTreeMap<NodeId, Incarnation>) -> BTreeSet<NodeId> {
        let committed = self.entries.list(&REVOKED, &[], usize::MAX).into_iter().map(|(id, _)| id);
        let mut revoked: BTreeSet<_> = committed.filter(|id| !self.entries.has(&MEMBERS, id)).collect();
        let acts = |(id, given): &(&NodeId, &Incarnation)| **given >= incarnation(&self.entries, id);
        revoked.extend(pending.iter().filter(acts).map(|(id, _)| *id));
        revoked
    }

    /// The rules; in a network that is too old for them the one that everybody there lives by.
    fn policy_rules(&self, network: Option<&Network>) -> Vec<NumberedRule> {
        match network {
            Some(network) if network.protocol_version < RULES_SINCE => {
                vec![NumberedRule { number: 0, rule: Rule::allow_all() }]
            }
            _ => self.rules().into_iter().map(|(number, record)| NumberedRule { number, rule: record.rule }).collect(),
        }
    }

    /// Lists the DNS records, without those at and below the names of members that are cut before a block says so.
    fn records_in_force(
        &self,
        members: &[(NodeId, MemberRecord)],
        revoked: &BTreeSet<NodeId>,
    ) -> Vec<(RecordName, RecordData)> {
        let cut = members.iter().filter(|(id, _)| revoked.contains(id));
        let cut: BTreeSet<&str> = cut.map(|(_, record)| record.name.as_str()).collect();
        let records = self.name_records().into_iter().map(|(name, record)| (name, record.data));
        records.filter(|(name, _)| name.top().is_none_or(|top| !cut.contains(top))).collect()
    }

    fn policy_member(&self, network: Option<&Network>, id: NodeId, record: &MemberRecord) -> Member {
        let pool = network.and_then(|network| network.ipv4.pool(&self.network_id));
        let ipv4 = pool.zip(record.ipv4).map(|(pool, host)| IpAddr::V4(pool.address(host)));
        let ipv6 = IpAddr::V6(ipv6_address(&self.network_id, ipv6_host(&id)));
        let relay = self.relay(&id).map(|record| record.terms);
        Member {
            id,
            name: record.name.to_string(),
            node_key: record.node_key,
            transport_key: record.transport_key,
            addresses: ipv4.into_iter().chain([ipv6]).collect(),
            tags: record.tags.iter().map(ToString::to_string).collect(),
            subnets: self.subnets_of(&id),
            is_exit: self.entries.has(&EXITS, &id),
            static_endpoints: self.static_endpoints(&id, relay.as_ref()),
            relay,
        }
    }

    /// The endpoints of a member as a relay and as a validator.
    fn static_endpoints(&self, id: &NodeId, relay: Option<&RelayTerms>) -> Vec<SocketAddr> {
        let of_validator = self.endpoints(id).map(|record| record.endpoints);
        let lists = relay.map(RelayTerms::endpoints).into_iter().chain(&of_validator);
        let endpoints: BTreeSet<_> = lists.flat_map(StaticEndpoints::as_slice).copied().collect();
        endpoints.into_iter().collect()
    }

    fn subnets_of(&self, id: &NodeId) -> Vec<Subnet> {
        let routes = self.entries.list(&ROUTES, &id.0, usize::MAX).into_iter();
        routes.map(|((_, prefix), record)| Subnet { prefix, local: record.local.unwrap_or(prefix) }).collect()
    }

    /// Returns the network id, from which the addresses follow; zero before genesis has one.
    pub fn network_id(&self) -> &Digest {
        &self.network_id
    }
}
