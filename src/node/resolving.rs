//! The node's part in names: a zone for each policy, and packets to the resolver.

use super::Node;
use super::following::{answer_sources, subnets};
use super::resolver::{Resolver, Zone, ZoneTerms};
use crate::time::Now;
use crate::wire::record::ZoneName;
use rand_core::CryptoRng;
use std::sync::Arc;

impl<R: CryptoRng> Node<R> {
    /// Takes a packet of the own device for the resolver; what becomes of it is for [`Node::poll_device`].
    pub fn handle_query(&mut self, now: Now, packet: &[u8]) {
        if let Err(reason) = self.resolver.handle_packet(now.instant, packet) {
            self.drops.count(reason);
        }
    }

    /// The next packet for the own device.
    pub fn poll_device(&mut self) -> Option<Vec<u8>> {
        self.resolver.poll_transmit()
    }

    /// Gives the zone another name, or answers nobody any more.
    pub fn set_zone_name(&mut self, name: Option<ZoneName>) {
        self.zone_name = name;
        self.follow_names();
    }

    /// The resolver, to look at.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Makes the zone of the policy in force.
    pub(super) fn follow_names(&mut self) {
        let Some(name) = self.zone_name.clone() else {
            self.resolver = Resolver::new();
            return;
        };
        let own: Vec<_> = self.routing.interface_addresses().into_iter().map(|(address, _)| address).collect();
        let sources = answer_sources(&self.ledger);
        let height = self.ledger.head().map_or(0, |head| head.height().0);
        let terms = ZoneTerms {
            name,
            subnets: subnets(&self.ledger),
            resolver: sources,
            // A serial number wraps around (RFC 1982).
            serial: (height & u64::from(u32::MAX)) as u32,
        };
        let zone = Arc::new(Zone::new(Arc::clone(&self.policy), terms));
        self.resolver.set_zone(zone, own, sources, &mut self.rng);
    }
}
