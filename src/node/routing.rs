//! The forwarding table, made from the policy and the peers.

use super::numbering::Numbering;
use super::peers::{Change, PeerTable};
use super::pulse::Heartbeat;
use super::table::{ForwardingTable, Inlet, Outlets};
use crate::crypto::identity::NodeId;
use crate::policy::Policy;
use crate::router::filter::Filter;
use crate::router::icmp::AnswerSources;
use crate::router::{Prefix, Router};
use crate::session::BySession;
use crate::time::Instant;
use std::net::IpAddr;
use std::sync::Arc;

/// What outlasts a table: routes and own addresses, which change only with the policy, and the sessions, while only the gate changes.
pub(super) struct Routing {
    router: Arc<Router>,
    filter: Arc<Filter>,
    members: Numbering,
    addresses: Vec<IpAddr>,
    subnets: Vec<Prefix>,
    answer_sources: AnswerSources,
    outlets: Arc<Outlets>,
    inlets: Arc<BySession<Inlet>>,
    generation: u64,
}

impl Routing {
    /// Routes to nowhere.
    pub(super) fn new(started: Instant) -> Self {
        Self {
            router: Arc::default(),
            filter: Arc::new(Filter::closed(started)),
            members: Numbering::default(),
            addresses: Vec::new(),
            subnets: Vec::new(),
            answer_sources: AnswerSources::default(),
            outlets: Arc::default(),
            inlets: Arc::default(),
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
        let others = policy.members().filter(|member| member.id != *own);
        let routes = others.flat_map(|member| {
            let peer = self.members.number(member.id);
            member.addresses.iter().filter_map(move |address| Some((Prefix::host(*address), peer?)))
        });
        let local = addresses.iter().copied().map(Prefix::host);
        self.router = Arc::new(Router::new(local, subnets.iter().copied(), routes));
        self.filter = Arc::new(self.filter.following(policy));
        let changed = addresses != self.addresses || subnets != self.subnets;
        self.addresses = addresses;
        self.subnets = subnets;
        changed
    }

    /// Forgets the conversations with members that were cut.
    pub(super) fn forget(&mut self, removed: &[NodeId]) {
        removed.iter().filter_map(|id| self.members.number(*id)).for_each(|peer| self.filter.forget(peer));
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
    pub(super) fn table(&mut self, peers: &PeerTable, change: Change, heartbeat: Arc<Heartbeat>) -> ForwardingTable {
        if change == Change::Sessions {
            let outlets = peers.outlets().into_iter();
            let members = &mut self.members;
            self.outlets =
                Arc::new(outlets.filter_map(|(member, outlet)| Some((members.number(member)?, outlet))).collect());
            self.inlets = Arc::new(peers.inlets(|member| members.number(member)));
            self.generation += 1;
        }
        ForwardingTable {
            generation: self.generation,
            router: Arc::clone(&self.router),
            filter: Arc::clone(&self.filter),
            members: self.members.all(),
            outlets: Arc::clone(&self.outlets),
            inlets: Arc::clone(&self.inlets),
            answer_sources: self.answer_sources,
            heartbeat,
            gate: peers.gate(),
        }
    }
}
