//! What lies behind members: subnets that they route, and those that are exits.
//!
//! Two members may route one subnet, so that one of them may fail. Routes and exits end with the membership.

use super::records::{EXITS, NETWORK, ROUTES, RouteRecord};
use super::table::View;
use super::{Draft, Effect, TxError};
use crate::crypto::identity::NodeId;
use crate::ledger::address::ipv6_prefix;
use crate::ledger::operation::{ExitApprove, RouteApprove, RouteRevoke, Scope};
use crate::ledger::transaction::SignedTransaction;
use crate::wire::prefix::Prefix;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The most subnets that one member routes.
pub const MAX_ROUTES_OF_MEMBER: usize = 256;

/// The shortest prefix that is a subnet: what is broader is an exit's business.
const MIN_BITS_V4: u8 = 8;
/// The same for IPv6: what a regional registry gives to a provider is longer.
const MIN_BITS_V6: u8 = 16;

/// Prefixes that are nobody's beyond one host or link, or everybody's (RFC 6890, RFC 5771, RFC 4291).
const NEVER: [(IpAddr, u8); 9] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
    (IpAddr::V4(Ipv4Addr::new(240, 0, 0, 0)), 4),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 127),
    (IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)), 96),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
];

/// Why a prefix is no subnet that a member may route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRoute {
    /// It covers too much.
    #[error("it is broader than a subnet: an exit carries everything")]
    TooBroad,
    /// It is nobody's beyond one host or link, or everybody's.
    #[error("such addresses are not routed")]
    NotRoutable,
    /// It overlaps the overlay's own addresses.
    #[error("it overlaps the overlay's own addresses")]
    Overlay,
    /// The two prefixes of a mapping differ in length or version.
    #[error("a mapping has the same version and length on both sides")]
    UnlikeMapping,
}

impl Draft<'_> {
    pub(super) fn approve_route(&mut self, signed: &SignedTransaction, approve: &RouteApprove) -> Result<(), TxError> {
        self.permit(signed, Scope::Rights)?;
        let RouteApprove { identity, prefix, local } = *approve;
        if !self.is_member(&identity) {
            return Err(TxError::NotAMember(identity));
        }
        self.check_route(prefix).map_err(|reason| TxError::BadRoute(prefix, reason))?;
        if let Some(local) = local {
            let is_like = local.bits() == prefix.bits() && local.address().is_ipv4() == prefix.address().is_ipv4();
            let checked = if is_like { self.check_route(local) } else { Err(BadRoute::UnlikeMapping) };
            checked.map_err(|reason| TxError::BadRoute(local, reason))?;
        }
        let record = RouteRecord { local: local.filter(|local| *local != prefix), approval: self.approval(signed) };
        let held = self.layers.read(&ROUTES, &(identity, prefix));
        if held.is_some_and(|held| held.local == record.local) {
            return Err(TxError::RouteExists(prefix, identity));
        }
        self.layers.put(&ROUTES, &(identity, prefix), &record);
        if self.layers.list(&ROUTES, &identity.0, MAX_ROUTES_OF_MEMBER + 1).len() > MAX_ROUTES_OF_MEMBER {
            return Err(TxError::TooManyRoutes);
        }
        self.effects.push(Effect::Routed(identity));
        Ok(())
    }

    /// Refuses what is no subnet outside the overlay.
    fn check_route(&self, prefix: Prefix) -> Result<(), BadRoute> {
        let min_bits = if prefix.address().is_ipv4() { MIN_BITS_V4 } else { MIN_BITS_V6 };
        if prefix.bits() < min_bits {
            return Err(BadRoute::TooBroad);
        }
        if NEVER.into_iter().any(|never| overlaps(never, prefix)) {
            return Err(BadRoute::NotRoutable);
        }
        if self.overlaps_overlay(prefix) { Err(BadRoute::Overlay) } else { Ok(()) }
    }

    /// Says whether an address of a prefix belongs to the overlay.
    pub(super) fn overlaps_overlay(&self, prefix: Prefix) -> bool {
        let pool = self.layers.read(&NETWORK, &()).and_then(|network| network.ipv4.pool(&self.network_id));
        let pool = pool.map(|pool| (IpAddr::V4(pool.base()), pool.len()));
        let ipv6 = (IpAddr::V6(ipv6_prefix(&self.network_id)), OVERLAY_BITS_V6);
        pool.into_iter().chain([ipv6]).any(|overlay| overlaps(overlay, prefix))
    }

    pub(super) fn revoke_route(&mut self, signed: &SignedTransaction, revoke: &RouteRevoke) -> Result<(), TxError> {
        let RouteRevoke { identity, prefix } = *revoke;
        // Whoever routes may stop.
        if !signed.is_witness(&identity.verifying_key()) {
            self.permit(signed, Scope::Rights)?;
        }
        if !self.layers.has(&ROUTES, &(identity, prefix)) {
            return Err(TxError::NoSuchRoute(prefix, identity));
        }
        self.layers.remove(&ROUTES, &(identity, prefix));
        self.effects.push(Effect::Routed(identity));
        Ok(())
    }

    pub(super) fn approve_exit(&mut self, signed: &SignedTransaction, approve: &ExitApprove) -> Result<(), TxError> {
        let ExitApprove { identity, is_exit } = *approve;
        if is_exit || !signed.is_witness(&identity.verifying_key()) {
            self.permit(signed, Scope::Rights)?;
        }
        if !self.is_member(&identity) {
            return Err(TxError::NotAMember(identity));
        }
        if is_exit {
            let approval = self.approval(signed);
            self.layers.put(&EXITS, &identity, &approval);
        } else {
            self.layers.remove(&EXITS, &identity);
        }
        self.effects.push(Effect::Routed(identity));
        Ok(())
    }

    /// Ends all that lies behind a member.
    pub(super) fn end_routes_of(&mut self, id: &NodeId) {
        for (key, _) in self.layers.list(&ROUTES, &id.0, usize::MAX) {
            self.layers.remove(&ROUTES, &key);
        }
        self.layers.remove(&EXITS, id);
    }
}

fn overlaps((address, bits): (IpAddr, u8), prefix: Prefix) -> bool {
    Prefix::new(address, bits).is_ok_and(|other| other.overlaps(prefix))
}

/// The network's ULA /48, of which the overlay uses the first /64.
const OVERLAY_BITS_V6: u8 = 48;
