//! The overlay addresses on the interface: all of them, but for IPv4 where the host has a network in its pool.
//!
//! ```text
//!   the ledger's addresses ──► set ─────┐
//!   the host's network changed ► look ──┼──► is the pool free?  yes, or forced: IPv4 and IPv6      no: IPv6 alone, a conflict
//!   the configuration ────────► force ──┘
//! ```
//! An IPv4 address brings its pool as a connected route; over a network of the host it would take that network away.

use super::api::types::AddressConflict;
use crate::io::network::{InterfaceAddress, Network, NetworkError, overlapping};
use crate::wire::prefix::Prefix;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the interface has, what it should have, and what is in the way.
pub struct HostAddresses {
    wanted: Vec<(IpAddr, u8)>,
    /// What the kernel confirmed, and nobody took away since.
    given: Vec<(IpAddr, u8)>,
    conflicts: Vec<AddressConflict>,
    is_forced: bool,
    /// Tells the data threads whether the interface has its IPv4 address: a packet for one that it has not would be passed on to the
    /// host's own network.
    takes_ipv4: Arc<AtomicBool>,
}

impl HostAddresses {
    /// Starts with none; `is_forced` gives IPv4 whatever it covers.
    pub const fn new(is_forced: bool, takes_ipv4: Arc<AtomicBool>) -> Self {
        Self { wanted: Vec::new(), given: Vec::new(), conflicts: Vec::new(), is_forced, takes_ipv4 }
    }

    /// This node's overlay addresses, on the interface or not.
    pub fn all(&self) -> impl Iterator<Item = IpAddr> {
        self.wanted.iter().map(|(address, _)| *address)
    }

    /// What keeps IPv4 away.
    pub fn conflicts(&self) -> &[AddressConflict] {
        &self.conflicts
    }

    /// Takes the addresses that the ledger gives this node.
    pub fn set(&mut self, network: &mut Network, device: Option<u32>, wanted: Vec<(IpAddr, u8)>) {
        self.wanted = wanted;
        self.look(network, device);
    }

    /// Takes whether IPv4 is to be given whatever it covers.
    pub fn force(&mut self, network: &mut Network, device: Option<u32>, is_forced: bool) {
        self.is_forced = is_forced;
        self.look(network, device);
    }

    /// Looks at the host's networks, and gives and takes what follows. Without an interface there is nothing to do.
    pub fn look(&mut self, network: &mut Network, device: Option<u32>) {
        let Some(device) = device else { return };
        match self.see(network, device) {
            Ok(conflicts) => self.note(conflicts),
            // What was seen last still holds, as far as anybody knows.
            Err(error) => tracing::warn!(%error, "the host's networks could not be compared with the overlay's"),
        }
        let is_free = self.conflicts.is_empty();
        let allowed: Vec<_> = self.wanted.iter().copied().filter(|(address, _)| is_free || address.is_ipv6()).collect();
        self.take_away(network, device, &allowed);
        self.give(network, device, &allowed);
    }

    /// Takes every address away that is not allowed. What fails is tried again at the next look.
    fn take_away(&mut self, network: &mut Network, device: u32, allowed: &[(IpAddr, u8)]) {
        // First, so that no packet is on its way to an address that goes.
        self.takes_ipv4.store(self.given.iter().any(|it| it.0.is_ipv4() && allowed.contains(it)), Ordering::Relaxed);
        self.given.retain(|(address, len)| {
            if allowed.contains(&(*address, *len)) {
                return true;
            }
            let outcome = network.remove_address(device, *address, *len);
            match &outcome {
                Ok(()) => tracing::info!(%address, len, "overlay address taken away"),
                Err(error) => tracing::warn!(%address, %error, "an overlay address was not removed"),
            }
            outcome.is_err()
        });
    }

    /// Gives every address that is allowed and not there. What fails is tried again at the next look.
    fn give(&mut self, network: &mut Network, device: u32, allowed: &[(IpAddr, u8)]) {
        for (address, len) in allowed {
            if self.given.contains(&(*address, *len)) {
                continue;
            }
            match network.add_address(device, *address, *len) {
                Ok(()) => {
                    tracing::info!(%address, len, "overlay address");
                    self.given.push((*address, *len));
                }
                Err(error) => tracing::error!(%address, %error, "an overlay address was not added"),
            }
        }
        self.takes_ipv4.store(self.given.iter().any(|(address, _)| address.is_ipv4()), Ordering::Relaxed);
    }

    /// Sees what the host has: forgets what somebody else took from the interface, and returns what is in IPv4's way.
    fn see(&mut self, network: &mut Network, device: u32) -> Result<Vec<AddressConflict>, NetworkError> {
        let present = network.addresses()?;
        let on_device: Vec<_> =
            present.iter().filter(|it| it.interface == device).map(|it| (it.address, it.prefix_len)).collect();
        self.given.retain(|given| on_device.contains(given));
        self.find_conflicts(network, device, &present)
    }

    fn find_conflicts(
        &self,
        network: &mut Network,
        device: u32,
        present: &[InterfaceAddress],
    ) -> Result<Vec<AddressConflict>, NetworkError> {
        let mut conflicts = Vec::new();
        let in_question = self.wanted.iter().filter(|(address, _)| address.is_ipv4() && !self.is_forced);
        for pool in in_question.filter_map(|(address, len)| Prefix::new(*address, *len).ok()) {
            let found = overlapping(present, Some(device), pool.address(), pool.bits());
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

    fn note(&mut self, conflicts: Vec<AddressConflict>) {
        for AddressConflict { prefix, with } in conflicts.iter().filter(|new| !self.conflicts.contains(new)) {
            tracing::warn!(prefix, with, "the overlay's IPv4 addresses overlap a network of this host: IPv6 only");
        }
        if conflicts.is_empty() && !self.conflicts.is_empty() {
            tracing::info!("the overlay's IPv4 addresses overlap nothing any more");
        }
        self.conflicts = conflicts;
    }
}
