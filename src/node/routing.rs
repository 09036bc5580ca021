//! The forwarding table, made from the policy and the peers.

use super::numbering::Numbering;
use super::peers::{Change, PeerTable};
use super::pulse::Heartbeat;
use super::relay::Labels;
use super::subnets::{Accepted, Subnets, behind};
use super::table::{ForwardingTable, Inlet, Outlets};
use crate::crypto::identity::NodeId;
use crate::policy::{Policy, Segment};
use crate::router::bridge::{Plan, Role, Segments, node_mac};
use crate::router::filter::Filter;
use crate::router::icmp::AnswerSources;
use crate::router::{PeerIndex, Prefix, Router};
use crate::session::BySession;
use crate::time::Instant;
use crate::wire::frame::{MacAddress, SegmentNumber};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A segment that this node is in, for its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSegment {
    /// Its number.
    pub number: SegmentNumber,
    /// Its name.
    pub name: String,
    /// The device's address.
    pub mac: MacAddress,
    /// This node may bridge a network into it.
    pub is_bridge: bool,
}

/// What outlasts a table: routes and own addresses, which change only with the policy, and the sessions, while only the gate changes.
pub(super) struct Routing {
    router: Arc<Router>,
    filter: Arc<Filter>,
    segments: Arc<Segments>,
    own_segments: Vec<OwnSegment>,
    members: Numbering,
    addresses: Vec<IpAddr>,
    subnets: Vec<Prefix>,
    behind_others: Subnets,
    answer_sources: AnswerSources,
    outlets: Arc<Outlets>,
    inlets: Arc<BySession<Inlet>>,
    labels: Arc<Labels>,
    generation: u64,
}

impl Routing {
    /// Routes to nowhere.
    pub(super) fn new(started: Instant, accepted: Accepted) -> Self {
        Self {
            router: Arc::default(),
            filter: Arc::new(Filter::closed(started)),
            segments: Arc::default(),
            own_segments: Vec::new(),
            members: Numbering::default(),
            addresses: Vec::new(),
            subnets: Vec::new(),
            behind_others: Subnets::new(accepted),
            answer_sources: AnswerSources::default(),
            outlets: Arc::default(),
            inlets: Arc::default(),
            labels: Arc::default(),
            generation: 0,
        }
    }

    /// Takes what ICMP answers to the local kernel come from.
    pub(super) fn set_answer_sources(&mut self, sources: AnswerSources) {
        self.answer_sources = sources;
    }

    /// Follows a policy. Returns whether this node's addresses or subnets changed.
    pub(super) fn handle_policy(&mut self, own: &NodeId, policy: &Policy, subnets: Vec<Prefix>) -> bool {
        let addresses = policy.member(own).map(|member| member.addresses.clone()).unwrap_or_default();
        let changed = addresses != self.addresses || subnets != self.subnets;
        self.addresses = addresses;
        self.subnets = subnets;
        self.filter = Arc::new(self.filter.following(policy));
        self.behind_others.handle_policy(own, policy);
        self.reroute(own, policy);
        changed
    }

    /// Takes what the user accepts of what lies behind others. Returns whether routes changed.
    pub(super) fn accept(&mut self, own: &NodeId, policy: &Policy, accepted: Accepted) -> bool {
        let is_news = self.behind_others.accept(accepted);
        if is_news {
            self.behind_others.handle_policy(own, policy);
            self.reroute(own, policy);
        }
        is_news
    }

    /// Takes who does not answer: what they route goes by others. Returns whether routes changed.
    pub(super) fn set_silent(&mut self, own: &NodeId, policy: &Policy, silent: BTreeSet<NodeId>) -> bool {
        let is_news = self.behind_others.set_silent(silent);
        if is_news {
            self.reroute(own, policy);
        }
        is_news
    }

    /// What lies behind others and who is there for it.
    pub(super) fn behind_others(&self) -> &Subnets {
        &self.behind_others
    }

    fn reroute(&mut self, own: &NodeId, policy: &Policy) {
        let Self { members, behind_others, .. } = self;
        let own_member = policy.member(own);
        // An exit speaks for everybody whom nobody else owns.
        let behind = own_member.into_iter().flat_map(|member| behind(member, Some(*own)));
        let local: Vec<_> = self.addresses.iter().copied().map(Prefix::host).chain(behind).collect();
        let mut routes: Vec<(Prefix, PeerIndex)> = Vec::new();
        for member in policy.members().filter(|member| member.id != *own) {
            let Some(peer) = members.number(member.id) else { continue };
            routes.extend(member.addresses.iter().map(|address| (Prefix::host(*address), peer)));
        }
        routes.extend(behind_others.routes().filter_map(|route| Some((route.prefix, members.number(route.router)?))));
        let routers = behind_others.routers().filter_map(|(subnet, router)| Some((subnet, members.number(router)?)));
        let routers: Vec<_> = routers.collect();
        let router = Router::new(local, self.subnets.iter().copied(), routes).with_routers(routers);
        self.router = Arc::new(router);
    }

    /// Forgets the conversations with members that were cut.
    pub(super) fn forget(&mut self, removed: &[NodeId]) {
        removed.iter().filter_map(|id| self.members.number(*id)).for_each(|peer| self.filter.forget(peer));
    }

    /// Says whether conversations with a member are remembered, or it routes something; its number outlasts it.
    pub(super) fn mentions(&self, member: &NodeId) -> bool {
        let number = self.members.known(member);
        number.is_some_and(|peer| self.filter.mentions(peer)) || self.behind_others.mentions(member)
    }

    /// Follows a policy's segments. Returns whether this node is in others than before.
    pub(super) fn handle_segments(&mut self, own: &NodeId, policy: &Policy) -> bool {
        let member = policy.member(own);
        let of_own = policy.segments().filter(|segment| member.is_some_and(|member| segment.has(member)));
        let of_own: Vec<_> = of_own.collect();
        let plans: Vec<_> = of_own.iter().map(|segment| (segment.number, self.plan(own, policy, segment))).collect();
        self.segments = Arc::new(Segments::new(plans, &self.segments));
        let own_segments = of_own.iter().map(|segment| OwnSegment {
            number: segment.number,
            name: segment.name.clone(),
            mac: node_mac(segment.number, own),
            is_bridge: segment.bridges.contains(own),
        });
        let own_segments: Vec<_> = own_segments.collect();
        let changed = own_segments != self.own_segments;
        self.own_segments = own_segments;
        changed
    }

    fn plan(&mut self, own: &NodeId, policy: &Policy, segment: &Segment) -> Plan {
        let role = |member: &NodeId| Role {
            is_bridge: segment.bridges.contains(member),
            is_gateway: segment.gateways.contains(member),
            ..Role::plain(segment.number, member)
        };
        let others = policy.members().filter(|member| member.id != *own && segment.has(member));
        let peers = others.filter_map(|member| Some((self.members.number(member.id)?, role(&member.id)))).collect();
        Plan { own: role(own), peers, storm_limit: segment.storm_limit, overlay: self.subnets.clone() }
    }

    /// The segments that this node is in.
    pub(super) fn own_segments(&self) -> &[OwnSegment] {
        &self.own_segments
    }

    /// The stations behind the bridges of a segment.
    pub(super) fn stations(&self, now: Instant, segment: SegmentNumber) -> Vec<(MacAddress, Option<NodeId>, Duration)> {
        let members = self.members.all();
        let stations = self.segments.get(segment).map(|segment| segment.stations(now)).unwrap_or_default();
        let named = stations.into_iter().map(|(mac, place, silence)| {
            (mac, place.peer().and_then(|peer| members.get(peer.position()).copied()), silence)
        });
        named.collect()
    }

    /// This node's overlay addresses, each with the prefix length of its subnet.
    pub(super) fn interface_addresses(&self) -> Vec<(IpAddr, u8)> {
        let len = |address: IpAddr| {
            let subnet = self.subnets.iter().find(|subnet| subnet.contains(address));
            subnet.map_or(Prefix::host(address).bits(), |subnet| subnet.bits())
        };
        self.addresses.iter().map(|address| (*address, len(*address))).collect()
    }

    /// Says whether an address belongs to the overlay, where no underlay endpoint can be.
    pub(super) fn in_overlay(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(address))
    }

    /// Builds the next table to publish.
    pub(super) fn table(
        &mut self,
        peers: &PeerTable,
        (change, labels): (Change, impl FnOnce() -> Labels),
        heartbeat: Arc<Heartbeat>,
    ) -> ForwardingTable {
        if change == Change::Sessions {
            let outlets = peers.outlets().into_iter();
            let members = &mut self.members;
            self.outlets =
                Arc::new(outlets.filter_map(|(member, outlet)| Some((members.number(member)?, outlet))).collect());
            self.inlets = Arc::new(peers.inlets(|member| members.number(member)));
            self.labels = Arc::new(labels());
            self.generation += 1;
        }
        ForwardingTable {
            generation: self.generation,
            router: Arc::clone(&self.router),
            filter: Arc::clone(&self.filter),
            segments: Arc::clone(&self.segments),
            members: self.members.all(),
            outlets: Arc::clone(&self.outlets),
            inlets: Arc::clone(&self.inlets),
            labels: Arc::clone(&self.labels),
            answer_sources: self.answer_sources,
            heartbeat,
            gate: peers.gate(),
            inner_mtu: peers.inner_mtu(),
        }
    }
}
