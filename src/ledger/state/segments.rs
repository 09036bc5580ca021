//! Segments of the link layer: which there are, who is in them by a tag, and who may bridge a network into one.

use super::records::{BRIDGES, MEMBERS, SEGMENTS, SegmentRecord};
use super::table::View;
use super::{Draft, Effect, MAX_BRIDGES, MAX_SEGMENTS, TxError};
use crate::crypto::hash::domain_hash;
use crate::crypto::identity::NodeId;
use crate::ledger::name::Label;
use crate::ledger::operation::{
    BridgeApprove, BridgeRevoke, MAX_GATEWAYS, MAX_STORM_LIMIT, Scope, SegmentDel, SegmentSet,
};
use crate::ledger::transaction::SignedTransaction;

impl Draft<'_> {
    pub(super) fn set_segment(&mut self, signed: &SignedTransaction, set: &SegmentSet) -> Result<(), TxError> {
        self.permit(signed, Scope::Rights)?;
        let SegmentSet { name, tag, gateways, storm_limit } = set;
        if gateways.len() > MAX_GATEWAYS || !(1..=MAX_STORM_LIMIT).contains(storm_limit) {
            return Err(TxError::BadSegment);
        }
        if let Some(stranger) = gateways.iter().find(|gateway| !self.layers.has(&MEMBERS, gateway)) {
            return Err(TxError::NotAMember(*stranger));
        }
        let number = match self.layers.read(&SEGMENTS, name) {
            Some(record) => record.number,
            None => self.new_segment_number(name)?,
        };
        let record = SegmentRecord { number, tag: tag.clone(), gateways: gateways.clone(), storm_limit: *storm_limit };
        self.layers.put(&SEGMENTS, name, &record);
        self.effects.push(Effect::SegmentSet(name.clone()));
        Ok(())
    }

    /// Gives a new segment a number that no other has; nor, but by chance, had: what is under way to an ended one reaches nobody.
    fn new_segment_number(&self, name: &Label) -> Result<u32, TxError> {
        let others = self.layers.list(&SEGMENTS, &[], MAX_SEGMENTS);
        if others.len() == MAX_SEGMENTS {
            return Err(TxError::TooManySegments);
        }
        let digest = domain_hash("p2plus/segment/1", &[name.as_str().as_bytes(), &self.height.0.to_le_bytes()]);
        let [a, b, c, d, ..] = digest.0;
        let mut number = u32::from_le_bytes([a, b, c, d]);
        while others.iter().any(|(_, record)| record.number == number) {
            number = number.wrapping_add(1);
        }
        Ok(number)
    }

    pub(super) fn end_segment(&mut self, signed: &SignedTransaction, del: &SegmentDel) -> Result<(), TxError> {
        self.permit(signed, Scope::Rights)?;
        let record = self.segment(&del.name)?;
        for (bridge, ()) in self.layers.list(&BRIDGES, &record.number.to_be_bytes(), MAX_BRIDGES) {
            self.layers.remove(&BRIDGES, &bridge);
        }
        self.layers.remove(&SEGMENTS, &del.name);
        self.effects.push(Effect::SegmentEnded(del.name.clone()));
        Ok(())
    }

    pub(super) fn approve_bridge(
        &mut self,
        signed: &SignedTransaction,
        approve: &BridgeApprove,
    ) -> Result<(), TxError> {
        self.permit(signed, Scope::Rights)?;
        let number = self.segment(&approve.segment)?.number;
        if !self.layers.has(&MEMBERS, &approve.member) {
            return Err(TxError::NotAMember(approve.member));
        }
        self.layers.put(&BRIDGES, &(number, approve.member), &());
        if self.layers.list(&BRIDGES, &number.to_be_bytes(), MAX_BRIDGES + 1).len() > MAX_BRIDGES {
            return Err(TxError::TooManyBridges);
        }
        self.effects.push(Effect::SegmentSet(approve.segment.clone()));
        Ok(())
    }

    /// Ends a bridge, by a signer's authority or the member's own.
    pub(super) fn revoke_bridge(&mut self, signed: &SignedTransaction, revoke: &BridgeRevoke) -> Result<(), TxError> {
        if !signed.is_witness(&revoke.member.verifying_key()) {
            self.permit(signed, Scope::Rights)?;
        }
        let bridge = (self.segment(&revoke.segment)?.number, revoke.member);
        if !self.layers.has(&BRIDGES, &bridge) {
            return Err(TxError::NotABridge(revoke.member, revoke.segment.clone()));
        }
        self.layers.remove(&BRIDGES, &bridge);
        self.effects.push(Effect::SegmentSet(revoke.segment.clone()));
        Ok(())
    }

    /// Takes from a former member what it may in segments: admitted again, it is nobody's bridge and no gateway.
    pub(super) fn leave_segments(&mut self, id: &NodeId) {
        for (name, mut record) in self.layers.list(&SEGMENTS, &[], MAX_SEGMENTS) {
            self.layers.remove(&BRIDGES, &(record.number, *id));
            if record.gateways.remove(id) {
                self.layers.put(&SEGMENTS, &name, &record);
            }
        }
    }

    fn segment(&self, name: &Label) -> Result<SegmentRecord, TxError> {
        self.layers.read(&SEGMENTS, name).ok_or_else(|| TxError::NoSuchSegment(name.clone()))
    }
}
