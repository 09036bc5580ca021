//! Which packets may pass between two members: the network's rules, and what answers what they let begin.
//!
//! ```text
//!   packet ─► Content ─► conversation known? ── allowed by these rules, or now by them too ─► passes
//!                              │ no, or no more
//!                              ▼
//!                         a rule allows it to begin? ── no ─► refused
//!                              │ yes: noted
//!                              ▼ passes
//! ```
//! The receiver of a packet enforces, and its sender too, for it knows the same rules: then a refused program hears so at once. A network in
//! which everything is allowed is not looked at any closer. Owns the decision; refuses to know sessions and where a packet goes.

use super::PeerIndex;
use super::classifier::Classifier;
use super::flows::{Flows, Full};
use crate::policy::Policy;
use crate::policy::decision::Conversation;
use crate::time::Instant;
use crate::wire::drops::DropReason;
use crate::wire::flow::{Content, Flow, Fragmented, Signal};
use crate::wire::inner::InnerPacket;
use std::sync::Arc;
use std::time::Duration;

/// How long after its start a node believes of a TCP segment, which nothing but the other direction's rule allows, that it goes on with a
/// connection from before the start: who downloads says nothing by which the connection would be found again.
const PICK_UP: Duration = Duration::from_secs(120);

/// The rules of one moment, and the conversations that outlast them.
pub struct Filter {
    classifier: Classifier,
    /// Grows by one with each change of the rules.
    generation: u64,
    flows: Arc<Flows>,
    /// Until when connections from before the start are picked up.
    pick_up_until: Instant,
}

impl Filter {
    /// Lets nothing pass: what holds before there is a policy.
    pub fn closed(started: Instant) -> Self {
        Self {
            classifier: Classifier::default(),
            generation: 0,
            flows: Arc::default(),
            pick_up_until: started + PICK_UP,
        }
    }

    /// The filter that follows this one under a policy. Conversations go on as far as its rules allow them.
    #[must_use]
    pub fn following(&self, policy: &Policy) -> Self {
        Self {
            classifier: Classifier::new(policy),
            generation: self.generation + 1,
            flows: Arc::clone(&self.flows),
            pick_up_until: self.pick_up_until,
        }
    }

    /// Forgets the conversations with a peer.
    pub fn forget(&self, peer: PeerIndex) {
        self.flows.forget(peer);
    }

    /// Says whether something is remembered of a peer.
    pub fn mentions(&self, peer: PeerIndex) -> bool {
        self.flows.has_peer(peer)
    }

    /// How many conversations are under way, as far as they had to be noted.
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// Decides on a packet to or from a peer; `bytes` are the packet, or as much of it as has its headers.
    ///
    /// # Errors
    /// The reason to drop it. [`DropReason::Prohibited`] deserves an ICMP answer.
    #[inline]
    pub fn check(&self, now: Instant, peer: PeerIndex, packet: &InnerPacket, bytes: &[u8]) -> Result<(), DropReason> {
        if self.classifier.is_open() {
            return Ok(());
        }
        match Content::of(packet, bytes) {
            Content::Packet(flow, signal, fragmented) => self.packet(now, peer, flow, signal, fragmented),
            Content::Error(about) => self.error(now, peer, packet, about),
            Content::Fragment(part) => self.fragment(now, peer, &part),
            Content::Hidden => Err(DropReason::PortsHidden),
        }
    }

    fn packet(
        &self,
        now: Instant,
        peer: PeerIndex,
        flow: Flow,
        signal: Signal,
        fragmented: Option<Fragmented>,
    ) -> Result<(), DropReason> {
        if self.flows.touch(now, peer, flow, signal, self.generation) {
            // What nearly every packet is.
        } else if self.goes_on(now, peer, flow, signal) {
            self.flows.renew(now, peer, flow, signal, self.generation);
        } else {
            let begun = self.begun_by(now, flow, signal).ok_or(DropReason::Prohibited)?;
            let noted = self.flows.begin(now, peer, begun, signal, self.generation);
            noted.map_err(|Full| DropReason::FlowTableFull)?;
        }
        if let Some(fragmented) = fragmented {
            self.flows.begin_fragments(now, peer, fragmented, self.generation);
        }
        Ok(())
    }

    /// Says whether a packet of a flow belongs to a conversation that the rules still allow.
    fn goes_on(&self, now: Instant, peer: PeerIndex, flow: Flow, signal: Signal) -> bool {
        let Some(known) = self.flows.find(now, peer, flow, signal) else { return false };
        let is_allowed = known.generation == self.generation || self.allows(known.begun);
        if !is_allowed {
            self.flows.end(peer, flow);
        }
        is_allowed
    }

    /// Says how the conversation began that a packet of this flow makes known: by this packet, or before this node started.
    fn begun_by(&self, now: Instant, flow: Flow, signal: Signal) -> Option<Flow> {
        if self.allows(flow) {
            return Some(flow);
        }
        let may_be_older = signal == Signal::Continues && flow.port().is_some() && now < self.pick_up_until;
        let reversed = flow.reversed();
        (may_be_older && self.allows(reversed)).then_some(reversed)
    }

    fn allows(&self, flow: Flow) -> bool {
        self.classifier.decide(&Conversation::from(flow)).allows()
    }

    /// An error passes with the conversation that it is about; else by the rules for ICMP.
    fn error(&self, now: Instant, peer: PeerIndex, packet: &InnerPacket, about: Flow) -> Result<(), DropReason> {
        // It is told to who sent the packet that it is about.
        let is_told_back = about.source == packet.destination;
        let InnerPacket { source, destination, protocol, .. } = *packet;
        let as_icmp = Conversation { source, destination, protocol, port: None };
        let passes = (is_told_back && self.goes_on(now, peer, about, Signal::Continues))
            || self.classifier.decide(&as_icmp).allows();
        if passes { Ok(()) } else { Err(DropReason::Prohibited) }
    }

    /// A later fragment passes with the first one of its packet; else where its ports do not matter.
    fn fragment(&self, now: Instant, peer: PeerIndex, part: &Fragmented) -> Result<(), DropReason> {
        if self.flows.has_fragments(now, peer, part, self.generation) {
            return Ok(());
        }
        let Fragmented { source, destination, protocol, .. } = *part;
        let conversation = Conversation { source, destination, protocol, port: None };
        if self.classifier.decide(&conversation).allows() { Ok(()) } else { Err(DropReason::Prohibited) }
    }
}

#[cfg(test)]
mod tests;
