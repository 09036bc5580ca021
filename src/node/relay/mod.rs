//! Ways through other members: asked for, given, and passed on, by labels.
//!
//! ```text
//!   Ada: LABEL_REQUEST(Ben) ──► relay: are both members? is there room? is Ben there?
//!   Ada ◄── LABEL_GRANTED(17)   relay   LABEL_OFFERED(Ada, 99) ──► Ben
//!   Ada: 17 | sealed for Ben ──► relay, which looks the label up and nothing else ──► 99 | sealed for Ben: Ben
//! ```
//! A relay reads no more than the label: what it passes on is sealed between the ends, and a datagram with a label that was not given to
//! where it comes from is dropped. Relays in a row ask each other, so that each hop has a label of its own. Who relays is said in node
//! records; every member may, and needs no right for it, because it can do no more than drop and delay.

mod asking;
mod choice;
mod pace;
mod switchboard;

pub use pace::Meter;
pub use switchboard::{LABEL_IDLE, MAX_LABELS, MAX_LABELS_PER_MEMBER, RelayLimits};

use super::Node;
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::path::Path;
use crate::policy::Policy;
use crate::time::{Instant, Now};
use crate::wire::control::{ControlMessage, LabelRefusal, LabelRequest};
use crate::wire::drops::DropReason;
use crate::wire::relay::Label;
use asking::{Asking, Purpose};
use rand_core::CryptoRng;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use switchboard::{Circuit, Leg, Switchboard};

/// How often circuits are looked at that may be idle.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(5);

/// How long news of relays waits for more.
const SEEK_DELAY: Duration = Duration::from_millis(30);

/// What becomes of a datagram that comes with a label.
#[derive(Clone, Debug)]
pub enum LabelUse {
    /// It is for this node.
    Own,
    /// It is passed on by this path, if the meter lets it.
    Pass(Path, Arc<Meter>),
}

/// What the labels mean that datagrams may come with, by whence they come.
pub type Labels = HashMap<(SocketAddr, Label), LabelUse>;

/// This node as a relay, and as one who asks relays.
pub(super) struct Relaying {
    board: Switchboard,
    asking: Asking,
    expire_at: Instant,
    /// When relays are asked once more, because somebody new may know ways.
    seek_at: Option<Instant>,
}

/// A circuit, as its relay's user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitStatus {
    /// The members that it is between.
    pub ends: [NodeId; 2],
    /// Who asked for it.
    pub asker: NodeId,
    /// Bytes passed on so far.
    pub bytes: u64,
    /// How long ago it was last used.
    pub idle: Duration,
}

impl Relaying {
    pub(super) fn new(limits: RelayLimits) -> Self {
        Self { board: Switchboard::new(limits), asking: Asking::default(), expire_at: Instant::ZERO, seek_at: None }
    }

    /// Says whether this node relays.
    pub(super) fn is_on(&self) -> bool {
        self.board.limits().is_on
    }

    /// Says whether any circuit or question concerns a member.
    pub(super) fn mentions(&self, member: &NodeId, key: &TransportKey) -> bool {
        let is_concerned = |circuit: &Circuit| circuit.concerns(member, key);
        self.board.circuits().iter().any(is_concerned) || self.asking.mentions(member, key)
    }

    /// Has relays asked once more, soon: what happens at once is one reason.
    pub(super) fn seek_soon(&mut self, now: Instant) {
        self.seek_at.get_or_insert(now + SEEK_DELAY);
    }

    /// The relays that circuits lead on through: nobody else keeps the sessions with them. The ends of a circuit keep their own.
    pub(super) fn next_relays(&self, policy: &Policy) -> impl Iterator<Item = TransportKey> {
        let legs = self.board.circuits().iter().flat_map(|circuit| circuit.legs.map(|leg| (leg.peer, circuit.ends)));
        legs.filter(|(peer, ends)| policy.admit(peer).member().is_some_and(|id| !ends.contains(&id)))
            .map(|(peer, _)| peer)
    }

    /// When something of it is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let expiry = (!self.board.circuits().is_empty()).then_some(self.expire_at);
        [expiry, self.asking.poll_timeout(), self.seek_at].into_iter().flatten().min()
    }

    /// What labels mean now: a circuit's, where both its ends are reached directly, and those of this node's own ways.
    pub(super) fn labels(
        &self,
        own: impl Iterator<Item = Path>,
        path: impl Fn(&TransportKey) -> Option<Path>,
    ) -> Labels {
        let mut labels = Labels::new();
        for circuit in self.board.circuits() {
            let [Some(first), Some(second)] = circuit.legs.map(|leg| leg_path(&leg, &path)) else { continue };
            for ((from, to), meter) in [(first, second), (second, first)].into_iter().zip(&circuit.meters) {
                let pass = LabelUse::Pass(to, Arc::clone(meter));
                labels.extend(from.label.map(|label| ((from.remote, label), pass)));
            }
        }
        labels.extend(own.filter_map(|path| Some(((path.remote, path.label?), LabelUse::Own))));
        labels
    }
}

fn leg_path(leg: &Leg, path: impl Fn(&TransportKey) -> Option<Path>) -> Option<Path> {
    Some(Path { label: Some(leg.label), ..path(&leg.peer)? })
}

impl<R: CryptoRng> Node<R> {
    /// Takes whether this node relays, and how much.
    pub fn handle_relay_limits(&mut self, now: Now, limits: RelayLimits) {
        let ended = self.relaying.board.set_limits(limits);
        self.tell_ended(now, &ended, None);
        self.publish_record(now);
        self.serve_streams();
        self.settle(now);
    }

    /// The circuits through this node.
    pub fn circuits(&self, now: Instant) -> Vec<CircuitStatus> {
        let status = |circuit: &Circuit| CircuitStatus {
            ends: circuit.ends,
            asker: circuit.asker,
            bytes: circuit.bytes(),
            idle: now.saturating_since(circuit.used_at()),
        };
        self.relaying.board.circuits().iter().map(status).collect()
    }

    /// The means by which this node relays, and whether it does so now.
    pub fn relay_limits(&self) -> (&RelayLimits, bool) {
        (self.relaying.board.limits(), self.is_relay())
    }

    /// A peer is looked for: asks relays for ways to it, unless it says that everybody reaches it and that was not wrong the last time.
    pub(super) fn seek(&mut self, now: Now, key: TransportKey) {
        let Some(id) = self.policy.admit(&key).member().filter(|_| self.membership.is_member()) else { return };
        let is_open = self.gossip.record(&id, &self.policy).is_some_and(|record| record.homes.is_empty());
        if is_open && !self.has_failed(&key) && !self.fallback.is_in_use() {
            return;
        }
        let relays = self.relays_for(now.instant, &id, &key);
        // Who has a way already needs nobody's help: to knock beside it would spoil what both begin together.
        let has_way = self.peers.peer(&key).is_some_and(|peer| peer.paths.relayed().next().is_some());
        if relays.is_empty() && !has_way {
            self.call_through_others(now, id, key);
            self.try_directly(now, key);
        }
        let alone = relays.into_iter().map(|relay| (relay, Vec::new()));
        // Where that led nowhere, one's own relays may reach those of the member.
        let in_a_row = if self.has_failed(&key) { self.relays_in_a_row(&id) } else { Vec::new() };
        for (relay, through) in alone.chain(in_a_row) {
            let purpose = Purpose::Own { key, id, through };
            if !self.relaying.asking.is_asked(&relay, &purpose) {
                self.ask(now, relay, purpose);
            }
        }
    }

    fn has_failed(&self, key: &TransportKey) -> bool {
        self.peers.peer(key).is_some_and(|peer| peer.has_failed())
    }

    /// Somebody new may know ways: asks once more for those to members that this node tries to reach.
    fn seek_again(&mut self, now: Now) {
        for key in self.peers.sought() {
            self.seek(now, key);
        }
    }

    /// Asks a peer for a way, at once or when there is a session.
    fn ask(&mut self, now: Now, of: TransportKey, purpose: Purpose) {
        let asked_by = match &purpose {
            Purpose::Own { .. } => None,
            Purpose::Passing { asker, id, .. } => Some((*asker, *id)),
        };
        let is_taken = if self.peers.direct_path(&of).is_none() {
            let is_queued = self.relaying.asking.queue(now.instant, of, purpose);
            if is_queued {
                self.connect(now, of);
            }
            is_queued
        } else {
            let id = self.relaying.asking.ask(now.instant, of, purpose.clone());
            if let Some(id) = id {
                self.send_request(now, of, id, purpose);
            }
            id.is_some()
        };
        if let Some((asker, id)) = asked_by.filter(|_| !is_taken) {
            self.refuse_label(now, asker, id, LabelRefusal::Full);
        }
    }

    fn send_request(&mut self, now: Now, of: TransportKey, id: u32, purpose: Purpose) {
        let (origin, target, through) = match purpose {
            Purpose::Own { id, through, .. } => (self.own_id, id, through),
            Purpose::Passing { ends: [origin, target], through, .. } => (origin, target, through),
        };
        let request = LabelRequest { id, origin, target, through };
        self.peers.send_control(now, of, &ControlMessage::LabelRequest(request));
    }

    /// There is a session with a peer: asks it what waited for that, or leads on what waited for it.
    pub(super) fn relay_reached(&mut self, now: Now, key: TransportKey) {
        self.peers.relay_moved(key);
        if self.peers.direct_path(&key).is_none() {
            return;
        }
        for purpose in self.relaying.asking.reached(&key) {
            match purpose {
                Purpose::Passing { asker, id, ends, .. } if self.policy.admit(&key).member() == Some(ends[1]) => {
                    self.grant(now, (asker, id), ends, key);
                }
                purpose => self.ask(now, key, purpose),
            }
        }
    }

    /// Takes what a member says of ways to members.
    pub(super) fn handle_ways(&mut self, now: Now, from: TransportKey, message: ControlMessage) {
        match message {
            ControlMessage::LabelRequest(request) => {
                let id = request.id;
                if let Err(reason) = self.handle_request(now, from, request) {
                    self.refuse_label(now, from, id, reason);
                }
            }
            ControlMessage::LabelGranted { id, label } => match self.relaying.asking.answered(from, id) {
                Some(Purpose::Own { key, id, .. }) => self.take_way(now, (key, id), (from, label), true),
                Some(Purpose::Passing { asker, id, ends, .. }) => {
                    let next = Leg { peer: from, label };
                    if let Err(reason) = self.lead_on(now, (asker, id), ends, next) {
                        self.refuse_label(now, asker, id, reason);
                        self.peers.send_control(now, from, &ControlMessage::LabelGone { label });
                    }
                }
                None => {}
            },
            ControlMessage::LabelRefused { id, reason } => {
                let purpose = self.relaying.asking.answered(from, id);
                tracing::debug!(?from, ?reason, "a relay gives no label");
                match purpose {
                    Some(Purpose::Passing { asker, id, .. }) => self.refuse_label(now, asker, id, reason),
                    Some(Purpose::Own { key, .. }) => self.try_directly(now, key),
                    None => {}
                }
            }
            ControlMessage::LabelOffered { .. } | ControlMessage::LabelGone { .. } if !self.calls.take(now, from) => {
                self.drops.count(DropReason::RateLimited);
            }
            ControlMessage::LabelOffered { origin, label } => {
                if let Some(member) = self.policy.member(&origin).filter(|member| member.id != self.own_id) {
                    self.take_way(now, (member.transport_key, origin), (from, label), false);
                }
            }
            ControlMessage::LabelGone { label } => {
                self.peers.lose_label(from, label);
                let leg = Leg { peer: from, label };
                let ended = self.relaying.board.end(|circuit| circuit.legs.contains(&leg));
                self.tell_ended(now, &ended, Some(from));
            }
            ControlMessage::Call(call) => self.handle_call(now, from, call),
            ControlMessage::EarWanted => self.handle_ear_wanted(now, from),
            ControlMessage::Ear { port } => self.handle_ear(now, from, port),
            _ => {}
        }
    }

    fn try_directly(&mut self, now: Now, key: TransportKey) {
        let (peers, mut ctx) = self.peers_and_context(now);
        peers.try_directly(&mut ctx, key);
    }

    fn take_way(&mut self, now: Now, to: (TransportKey, NodeId), by: (TransportKey, Label), is_wanted: bool) {
        let (peers, mut ctx) = self.peers_and_context(now);
        peers.add_relayed(&mut ctx, to, by, is_wanted);
    }

    fn refuse_label(&mut self, now: Now, asker: TransportKey, id: u32, reason: LabelRefusal) {
        self.peers.send_control(now, asker, &ControlMessage::LabelRefused { id, reason });
    }

    /// A member asks this node for a way.
    fn handle_request(&mut self, now: Now, from: TransportKey, request: LabelRequest) -> Result<(), LabelRefusal> {
        let LabelRequest { id, origin, target, mut through } = request;
        let asker = self.policy.admit(&from).member().ok_or(LabelRefusal::Stranger)?;
        if !self.calls.take(now, from) {
            return Err(LabelRefusal::Full);
        }
        if self.is_asked_again(now, (from, id), [origin, target]) {
            return Ok(());
        }
        self.relaying.board.check(&asker)?;
        // Only a relay asks for others: whoever could, would give out ways to itself as those to somebody else.
        if origin != asker && !self.relays(&asker) {
            return Err(LabelRefusal::Stranger);
        }
        let named: BTreeSet<_> = [origin, target, self.own_id].into_iter().chain(through.iter().copied()).collect();
        if named.len() != 3 + through.len() || through.contains(&asker) || target == asker {
            return Err(LabelRefusal::Loop);
        }
        let key_of =
            |id: &NodeId| self.policy.member(id).map(|member| member.transport_key).ok_or(LabelRefusal::Stranger);
        named.iter().try_for_each(|member| key_of(member).map(drop))?;
        let ends = [origin, target];
        if through.is_empty() {
            let to = key_of(&target)?;
            if self.peers.direct_path(&to).is_some() {
                self.grant(now, (from, id), ends, to);
                return Ok(());
            }
            let purpose = Purpose::Passing { asker: from, id, ends, through };
            self.ask_to_come(now, to, purpose)
        } else {
            let next = key_of(&through.remove(0))?;
            self.ask(now, next, Purpose::Passing { asker: from, id, ends, through });
            Ok(())
        }
    }

    /// Says whether a question came before; if it was answered, that is said once more: an answer may be lost.
    fn is_asked_again(&mut self, now: Now, (from, id): (TransportKey, u32), ends: [NodeId; 2]) -> bool {
        let Some(circuit) = self.relaying.board.granted(&from, id, ends) else {
            return self.relaying.asking.is_passing(&from, id, ends);
        };
        let [first, next] = circuit.legs;
        self.peers.send_control(now, from, &ControlMessage::LabelGranted { id, label: first.label });
        if self.policy.admit(&next.peer).member() == Some(ends[1]) {
            let offer = ControlMessage::LabelOffered { origin: ends[0], label: next.label };
            self.peers.send_control(now, next.peer, &offer);
        }
        true
    }

    /// Waits for a session with the member that a way leads to.
    fn ask_to_come(&mut self, now: Now, to: TransportKey, purpose: Purpose) -> Result<(), LabelRefusal> {
        if !self.relaying.asking.queue(now.instant, to, purpose) {
            return Err(LabelRefusal::Full);
        }
        self.connect(now, to);
        Ok(())
    }

    /// Gives a member a way to another one that this node reaches.
    fn grant(&mut self, now: Now, question: (TransportKey, u32), ends: [NodeId; 2], to: TransportKey) {
        let label = self.relaying.board.draw_label(&to, &mut self.rng);
        let (asker, id) = question;
        match self.lead_on(now, question, ends, Leg { peer: to, label }) {
            Ok(()) => drop(self.peers.send_control(now, to, &ControlMessage::LabelOffered { origin: ends[0], label })),
            Err(reason) => self.refuse_label(now, asker, id, reason),
        }
    }

    /// Connects a member's leg with the one that leads on, and tells it.
    fn lead_on(
        &mut self,
        now: Now,
        (asker, id): (TransportKey, u32),
        ends: [NodeId; 2],
        next: Leg,
    ) -> Result<(), LabelRefusal> {
        let member = self.policy.admit(&asker).member().ok_or(LabelRefusal::Stranger)?;
        let label = self.relaying.board.draw_label(&asker, &mut self.rng);
        let first = Leg { peer: asker, label };
        let beyond = self.policy.admit(&next.peer).member().ok_or(LabelRefusal::Stranger)?;
        self.relaying.board.connect(now.instant, ([member, beyond], id), ends, [first, next])?;
        if self.relaying.board.circuits().len() == 1 {
            self.relaying.expire_at = now.instant + EXPIRY_INTERVAL;
        }
        self.peers.note_change();
        self.peers.send_control(now, asker, &ControlMessage::LabelGranted { id, label });
        Ok(())
    }

    /// Ends what was not used, and gives up what nobody answered.
    pub(super) fn tend_relaying(&mut self, now: Now) {
        for purpose in self.relaying.asking.expire(now.instant) {
            match purpose {
                Purpose::Passing { asker, id, .. } => {
                    self.refuse_label(now, asker, id, LabelRefusal::Unreachable);
                }
                Purpose::Own { key, id, .. } => {
                    self.call_through_others(now, id, key);
                    self.try_directly(now, key);
                }
            }
        }
        for (of, id, purpose) in self.relaying.asking.again(now.instant) {
            self.send_request(now, of, id, purpose);
        }
        if self.relaying.seek_at.take_if(|at| now.instant >= *at).is_some() {
            self.seek_again(now);
        }
        if now.instant >= self.relaying.expire_at {
            self.relaying.expire_at = now.instant + EXPIRY_INTERVAL;
            let ended = self.relaying.board.expire(now.instant);
            self.tell_ended(now, &ended, None);
        }
    }

    /// The last session with a peer ended: so do the ways through it and the circuits that led to it.
    pub(super) fn relay_lost(&mut self, now: Now, key: TransportKey) {
        self.peers.lose_relay(key);
        let ended = self.relaying.board.end(|circuit| circuit.legs.iter().any(|leg| leg.peer == key));
        self.tell_ended(now, &ended, Some(key));
    }

    /// Members were cut: so is everything that leads to them.
    pub(super) fn cut_ways(&mut self, now: Now, cut: &[(NodeId, TransportKey)]) {
        for (id, key) in cut {
            self.relaying.asking.forget(id, key);
            self.calls.forget(key);
            let ended = self.relaying.board.end(|circuit| circuit.concerns(id, key));
            self.tell_ended(now, &ended, Some(*key));
        }
    }

    /// Tells those at the ends of circuits that are over, but for one who knows.
    fn tell_ended(&mut self, now: Now, ended: &[Circuit], knows: Option<TransportKey>) {
        for leg in ended.iter().flat_map(|circuit| circuit.legs).filter(|leg| Some(leg.peer) != knows) {
            self.peers.send_control(now, leg.peer, &ControlMessage::LabelGone { label: leg.label });
        }
        if !ended.is_empty() {
            self.peers.note_change();
        }
    }
}
