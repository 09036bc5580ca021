//! What the host should be like, and what is in the way: from the ledger, the configuration and the host's own networks to a [`HostPlan`].
//!
//! ```text
//!   the ledger's addresses ──► set ─────┐
//!   the host's network changed ► look ──┼──► is the pool free?  yes, or forced: IPv4 and IPv6      no: IPv6 alone, a conflict
//!   the configuration ────────► force ──┘             └──► HostPlan ──► Host::apply
//! ```
//! An IPv4 address brings its pool as a route; over a network of the host it would take that network away. Overlay subnets that this node
//! has no address in any more, being revoked, lead nowhere until the daemon is stopped: what is meant for members leaves in clear never.

use super::api::types::AddressConflict;
use super::behind::{self, Behind, BehindSettings, HostNetworks};
use crate::io::device_name::DeviceName;
use crate::io::host::{FilterPlan, Host, HostPlan};
use crate::io::network::{InterfaceAddress, Network, NetworkError, overlapping};
use crate::wire::prefix::Prefix;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The host's side of this node: what it has, what it should have, and what is in the way.
pub struct HostSide {
    /// None for a node without an interface.
    host: Option<Host>,
    /// The interface's index.
    device: Option<u32>,
    /// The ledger's word; `None` before it was heard, when what an earlier run left still holds.
    wanted: Option<Vec<(IpAddr, u8)>>,
    /// Subnets that the interface led to in this run.
    once_routed: BTreeSet<Prefix>,
    conflicts: Vec<AddressConflict>,
    problems: Vec<String>,
    /// What lies behind members, this node among them.
    behind: Behind,
    /// The host's networks, as they were seen last.
    networks: HostNetworks,
    settings: HostSettings,
    /// Tells the data threads whether the interface has its IPv4 address: a packet for one that it has not would be passed on to the
    /// host's own network.
    takes_ipv4: Arc<AtomicBool>,
}

/// What is configured.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostSettings {
    /// IPv4 is given whatever it covers.
    pub force_ipv4: bool,
    /// Interfaces by which others may reach the overlay and this host's overlay addresses.
    pub forward_from: BTreeSet<DeviceName>,
    /// What concerns subnets and exits.
    pub behind: BehindSettings,
}

impl HostSide {
    /// Starts with nothing asked for.
    pub fn new(host: Option<Host>, device: Option<u32>, settings: HostSettings, takes_ipv4: Arc<AtomicBool>) -> Self {
        let (conflicts, problems) = (Vec::new(), Vec::new());
        let (behind, networks) = (Behind::default(), HostNetworks::default());
        let once_routed = BTreeSet::new();
        Self { host, device, wanted: None, once_routed, conflicts, problems, behind, networks, settings, takes_ipv4 }
    }

    /// This node's overlay addresses, on the interface or not.
    pub fn all(&self) -> impl Iterator<Item = IpAddr> {
        self.wanted().iter().map(|(address, _)| *address)
    }

    fn wanted(&self) -> &[(IpAddr, u8)] {
        self.wanted.as_deref().unwrap_or_default()
    }

    /// What keeps IPv4 away.
    pub fn conflicts(&self) -> &[AddressConflict] {
        &self.conflicts
    }

    /// What of the plan is not in force, and why.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Takes the addresses that the ledger gives this node, and what lies behind members: never the one without the other, or a lock-down that
    /// an earlier run left would be open for a moment.
    pub fn set(&mut self, network: &mut Network, wanted: Vec<(IpAddr, u8)>, behind: Behind) {
        (self.wanted, self.behind) = (Some(wanted), behind);
        self.look(network);
    }

    /// Takes what lies behind members.
    pub fn set_behind(&mut self, network: &mut Network, behind: Behind) {
        if self.behind != behind {
            self.behind = behind;
            self.look(network);
        }
    }

    /// Takes what is configured.
    pub fn configure(&mut self, network: &mut Network, settings: HostSettings) {
        self.settings = settings;
        self.look(network);
    }

    /// Looks at the host's networks, and makes of the host what follows. Without an interface there is nothing to do.
    pub fn look(&mut self, network: &mut Network) {
        let Some(device) = self.device else { return };
        if self.wanted.is_none() {
            return;
        }
        match self.find_conflicts(network, device) {
            Ok(conflicts) => self.note_conflicts(conflicts),
            // What was seen last still holds, as far as anybody knows.
            Err(error) => tracing::warn!(%error, "the host's networks could not be compared with the overlay's"),
        }
        match HostNetworks::read(network, self.device, self.host.as_ref().map(Host::slot)) {
            Ok(networks) => self.networks = networks,
            Err(error) => tracing::warn!(%error, "the host's networks are those that were seen last"),
        }
        let (plan, mut unmet) = self.plan();
        let Some(host) = &mut self.host else { return };
        let before = host.addresses().clone();
        // First, so that no packet is on its way to an address that goes.
        let takes_ipv4 = |given: &BTreeSet<(IpAddr, u8)>| given.iter().any(|(address, _)| address.is_ipv4());
        self.takes_ipv4.store(takes_ipv4(&(&before & &plan.addresses)), Ordering::Relaxed);
        let problems = host.apply(&plan);
        self.takes_ipv4.store(takes_ipv4(host.addresses()), Ordering::Relaxed);
        for (address, len) in before.difference(host.addresses()) {
            tracing::info!(%address, len, "overlay address taken away");
        }
        for (address, len) in host.addresses().difference(&before) {
            tracing::info!(%address, len, "overlay address");
        }
        unmet.extend(problems.iter().map(ToString::to_string));
        self.note_problems(unmet);
    }

    /// Undoes what was changed, at the end of a run that ends well.
    pub fn undo(&mut self) {
        for problem in self.host.as_mut().map(Host::undo).into_iter().flatten() {
            tracing::warn!(%problem, "something was left on the host: `p2plus cleanup` tries again");
        }
    }

    /// What the host should be like, and what of the ledger's and the user's word it cannot be, with the reason.
    fn plan(&mut self) -> (HostPlan, Vec<String>) {
        let is_free = self.conflicts.is_empty();
        let is_allowed = |address: IpAddr| is_free || address.is_ipv6();
        let allowed = self.wanted().iter().copied().filter(|(address, _)| is_allowed(*address));
        let addresses: BTreeSet<_> = allowed.collect();
        let routed: BTreeSet<_> = addresses.iter().filter_map(|(it, len)| Prefix::new(*it, *len).ok()).collect();
        self.once_routed.extend(&routed);
        let refused = self.once_routed.difference(&routed).copied().filter(|prefix| is_allowed(prefix.address()));
        let mut plan = HostPlan {
            refused: refused.collect(),
            addresses,
            routed,
            filter: FilterPlan { forward_from: self.settings.forward_from.clone(), ..FilterPlan::default() },
            ..HostPlan::default()
        };
        let unmet = behind::extend(&mut plan, &self.behind, &self.settings.behind, &self.networks);
        (plan, unmet)
    }

    fn find_conflicts(&self, network: &mut Network, device: u32) -> Result<Vec<AddressConflict>, NetworkError> {
        let present: Vec<InterfaceAddress> = network.addresses()?;
        let mut conflicts = Vec::new();
        let in_question = self.wanted().iter().filter(|(address, _)| address.is_ipv4() && !self.settings.force_ipv4);
        for pool in in_question.filter_map(|(address, len)| Prefix::new(*address, *len).ok()) {
            let found = overlapping(&present, Some(device), pool.address(), pool.bits());
            // Names are for people: asked for only when there is something to say.
            let interfaces = if found.is_empty() { Vec::new() } else { network.interfaces()? };
            conflicts.extend(found.iter().filter_map(|it| {
                let interface = interfaces.iter().find(|interface| interface.index == it.interface)?;
                let connected = Prefix::new(it.address, it.prefix_len).ok()?;
                Some(AddressConflict { prefix: pool.to_string(), with: format!("{} {connected}", interface.name) })
            }));
        }
        conflicts.sort();
        conflicts.dedup();
        Ok(conflicts)
    }

    fn note_conflicts(&mut self, conflicts: Vec<AddressConflict>) {
        for AddressConflict { prefix, with } in conflicts.iter().filter(|new| !self.conflicts.contains(new)) {
            tracing::warn!(prefix, with, "the overlay's IPv4 addresses overlap a network of this host: IPv6 only");
        }
        if conflicts.is_empty() && !self.conflicts.is_empty() {
            tracing::info!("the overlay's IPv4 addresses overlap nothing any more");
        }
        self.conflicts = conflicts;
    }

    /// Tells of each problem once.
    fn note_problems(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|new| !self.problems.contains(new)) {
            tracing::warn!(problem, "the host is not as it should be");
        }
        if problems.is_empty() && !self.problems.is_empty() {
            tracing::info!("the host is as it should be again");
        }
        self.problems = problems;
    }
}
