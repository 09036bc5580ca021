//! Where the network is found when nothing else is known: members that relay for others, and the static endpoints of validators.
//!
//! Both end with the membership, those of a validator with its seat too.

use super::records::{ENDPOINTS, EndpointsRecord, RELAYS, RelayRecord, VALIDATORS};
use super::table::View;
use super::{Draft, Effect, TxError};
use crate::crypto::identity::NodeId;
use crate::ledger::operation::{EndpointsSet, RelayApprove, Scope};
use crate::ledger::transaction::SignedTransaction;
use crate::ledger::validators::Seats;
use crate::wire::endpoint::StaticEndpoints;
use crate::wire::prefix::Prefix;
use std::net::SocketAddr;

impl Draft<'_> {
    pub(super) fn approve_relay(&mut self, signed: &SignedTransaction, approve: &RelayApprove) -> Result<(), TxError> {
        let RelayApprove { identity, terms } = approve;
        // Whoever relays may stop.
        if terms.is_some() || !signed.is_witness(&identity.verifying_key()) {
            self.permit(signed, Scope::Rights)?;
        }
        if !self.is_member(identity) {
            return Err(TxError::NotAMember(*identity));
        }
        match terms {
            Some(terms) => {
                self.refuse_overlay(terms.endpoints())?;
                let record = RelayRecord { terms: terms.clone(), approval: self.approval(signed) };
                self.layers.put(&RELAYS, identity, &record);
            }
            None if self.layers.has(&RELAYS, identity) => self.layers.remove(&RELAYS, identity),
            None => return Err(TxError::NotARelay(*identity)),
        }
        self.effects.push(Effect::RelaySet(*identity));
        Ok(())
    }

    pub(super) fn set_endpoints(&mut self, signed: &SignedTransaction, set: &EndpointsSet) -> Result<(), TxError> {
        let EndpointsSet { identity, endpoints } = set;
        if !signed.is_witness(&identity.verifying_key()) {
            self.permit(signed, Scope::Rights)?;
        }
        if !self.is_member(identity) {
            return Err(TxError::NotAMember(*identity));
        }
        let seats = self.layers.read(&VALIDATORS, &()).unwrap_or_default();
        if !seats.has(identity) {
            return Err(TxError::NotAValidator(*identity));
        }
        self.refuse_overlay(endpoints)?;
        if endpoints.as_slice().is_empty() {
            self.layers.remove(&ENDPOINTS, identity);
        } else {
            let record = EndpointsRecord { endpoints: endpoints.clone(), approval: self.approval(signed) };
            self.layers.put(&ENDPOINTS, identity, &record);
        }
        self.effects.push(Effect::EndpointsSet(*identity));
        Ok(())
    }

    /// Refuses endpoints inside the overlay: what is sent there would come back to be sent there again.
    fn refuse_overlay(&self, endpoints: &StaticEndpoints) -> Result<(), TxError> {
        let inside = |endpoint: &&SocketAddr| self.overlaps_overlay(Prefix::host(endpoint.ip()));
        endpoints.as_slice().iter().find(inside).map_or(Ok(()), |endpoint| Err(TxError::OverlayEndpoint(*endpoint)))
    }

    /// Ends the places at which a member is found.
    pub(super) fn end_places_of(&mut self, id: &NodeId) {
        self.layers.remove(&RELAYS, id);
        self.layers.remove(&ENDPOINTS, id);
    }

    /// Ends the static endpoints of those that are no validators any more.
    pub(super) fn end_endpoints_without(&mut self, seats: &Seats) {
        for (id, _) in self.layers.list(&ENDPOINTS, &[], usize::MAX) {
            if !seats.has(&id) {
                self.layers.remove(&ENDPOINTS, &id);
            }
        }
    }
}
