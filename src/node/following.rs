//! The ledger's policy in force, and what follows from it for every part of the node.

use super::{Node, NodeEvent};
use crate::ledger::Ledger;
use crate::ledger::address::{ipv6_prefix, resolver_ipv4, resolver_ipv6};
use crate::policy::PolicyDiff;
use crate::router::Prefix;
use crate::router::icmp::AnswerSources;
use crate::time::Now;
use rand_core::CryptoRng;
use std::net::IpAddr;

impl<R: CryptoRng> Node<R> {
    /// Takes the ledger's policy in force: who was cut loses everything here at once.
    pub(super) fn follow_policy(&mut self, now: Now, diff: &PolicyDiff) {
        let removed: Vec<_> = diff.removed.iter().filter_map(|id| self.policy.member(id)).cloned().collect();
        let cut: Vec<_> = removed.iter().map(|member| (member.id, member.name.clone())).collect();
        let keys: Vec<_> = removed.iter().map(|member| (member.id, member.transport_key)).collect();
        self.policy = self.ledger.policy();
        let (peers, mut ctx) = self.peers_and_context(now);
        peers.handle_policy(&mut ctx, diff);
        self.cut_ways(now, &keys);
        for (_, key) in &keys {
            self.ears.forget(key);
            self.forget_search(key);
        }
        self.learn_static(diff.admitted.iter().chain(&diff.changed));
        self.gossip.forget(&diff.removed);
        self.dht.forget(&diff.removed);
        self.routing.forget(&diff.removed);
        let policy = &self.policy;
        self.heads_heard.retain(|key, _| policy.is_validator(key));
        if !diff.admitted.is_empty() {
            // A record may have come before the block that admitted its node, and was refused.
            self.gossip.hurry();
        }
        self.routing.set_answer_sources(answer_sources(&self.ledger));
        let before = (self.subnet_routes(), self.own_part.clone());
        let own = self.policy.member(&self.own_id);
        self.own_part = own.map(|member| (member.subnets.clone(), member.is_exit)).unwrap_or_default();
        if self.routing.handle_policy(&self.own_id, &self.policy, subnets(&self.ledger)) {
            self.tell(NodeEvent::Configure(self.routing.interface_addresses()));
        }
        if before != (self.subnet_routes(), self.own_part.clone()) {
            self.tell(NodeEvent::Routes);
        }
        self.follow_names();
        self.follow_stream_relays(now);
        if self.routing.handle_segments(&self.own_id, &self.policy) {
            self.tell(NodeEvent::Segments(self.routing.own_segments().to_vec()));
        }
        let is_member = self.policy.member(&self.own_id).is_some();
        let became = self.membership.handle_policy(is_member, self.policy.is_revoked(&self.own_id));
        if became {
            self.enter(now);
        }
        self.review_requests(now);
        self.tell_standing();
        if !cut.is_empty() {
            self.tell(NodeEvent::Cut(cut));
        }
        self.reach.hurry();
    }

    /// Tells the shell this node's standing if it changed.
    pub(super) fn tell_standing(&mut self) {
        if let Some(standing) = self.membership.take_news() {
            self.tell(NodeEvent::Standing(standing));
        }
    }
}

/// The subnet of a network's IPv6 addresses: host parts have 64 bits (RFC 4291 §2.5.1).
const IPV6_PREFIX_LEN: u8 = 64;

/// What ICMP answers come from: the resolver's addresses, which no node gets, so that no host takes one for its own.
pub(super) fn answer_sources(ledger: &Ledger) -> AnswerSources {
    let state = ledger.state();
    let Some(network) = state.network() else { return AnswerSources::default() };
    let v4 = network.ipv4.pool(state.network_id()).and_then(|pool| resolver_ipv4(&pool));
    AnswerSources { v4, v6: Some(resolver_ipv6(state.network_id())) }
}

/// The overlay's own subnets: the IPv4 pool, when the network has one, and the IPv6 /64.
pub(super) fn subnets(ledger: &Ledger) -> Vec<Prefix> {
    let state = ledger.state();
    let Some(network) = state.network() else { return Vec::new() };
    let ipv4 = network.ipv4.pool(state.network_id()).map(|pool| (IpAddr::V4(pool.base()), pool.len()));
    let ipv6 = (IpAddr::V6(ipv6_prefix(state.network_id())), IPV6_PREFIX_LEN);
    ipv4.into_iter().chain([ipv6]).filter_map(|(base, len)| Prefix::new(base, len).ok()).collect()
}
