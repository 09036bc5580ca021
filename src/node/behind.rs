//! What lies behind other members: what the user accepts of it, and which of several routers is used.

use super::subnets::{Accepted, SubnetRoute};
use super::{Node, NodeEvent};
use crate::crypto::identity::NodeId;
use crate::time::Now;
use rand_core::CryptoRng;
use std::time::Duration;

/// How often the routers of subnets that have several are looked at.
const ROUTER_INTERVAL: Duration = Duration::from_secs(1);

impl<R: CryptoRng> Node<R> {
    /// Takes what the user accepts of what lies behind other members.
    pub fn handle_accepted(&mut self, now: Now, accepted: Accepted) {
        self.notice(now);
        if self.routing.accept(&self.own_id, &self.policy, accepted) {
            self.peers.note_change();
            self.tell(NodeEvent::Accepted(self.accepted().clone()));
            self.tell(NodeEvent::Routes);
        }
        self.settle(now);
    }

    /// What the user accepts of what lies behind other members.
    pub fn accepted(&self) -> &Accepted {
        self.routing.behind_others().accepted()
    }

    /// Says whether a member that routes a subnet, as others do, does not answer this node.
    pub fn is_silent(&self, member: &NodeId) -> bool {
        self.routing.behind_others().is_silent(member)
    }

    /// The routes to what lies behind other members that are in use.
    pub fn subnet_routes(&self) -> Vec<SubnetRoute> {
        self.routing.behind_others().routes().collect()
    }

    /// Looks whether the routers of subnets that have several are there.
    pub(super) fn watch_routers(&mut self, now: Now) {
        if now.instant < self.routers_at {
            return;
        }
        self.routers_at = now.instant + ROUTER_INTERVAL;
        let rivals = self.routing.behind_others().rivals();
        let silent = self.peers.silent_among(now.instant, &self.policy, rivals);
        if self.routing.set_silent(&self.own_id, &self.policy, silent) {
            self.peers.note_change();
            self.tell(NodeEvent::Routes);
        }
    }
}
