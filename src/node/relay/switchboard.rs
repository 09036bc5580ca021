//! A relay's circuits: which label of which peer leads to which label of which other one.
//!
//! ```text
//!   Ada ── label 17 ──► this node ── label 99 ──► Ben         a circuit: two legs, each a peer and a label
//!       ◄── label 17 ──           ◄── label 99 ──
//! ```
//! Owns who may have how many, and when they end. Knows neither sessions nor paths: who passes datagrams on looks those up.

use super::pace::{Meter, Pace};
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::time::Instant;
use crate::wire::control::LabelRefusal;
use crate::wire::relay::Label;
use rand_core::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Labels of a relay in all: two for each circuit.
pub const MAX_LABELS: usize = 1024;

/// Of these, labels in circuits that one member asked for.
pub const MAX_LABELS_PER_MEMBER: usize = 64;

/// A circuit that carried nothing for so long ends.
pub const LABEL_IDLE: Duration = Duration::from_secs(60);

/// Whether this node passes datagrams on, and how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelayLimits {
    /// Whether it does.
    pub is_on: bool,
    /// Bytes per second for each member that asks; none is no limit.
    pub member_rate: Option<u64>,
    /// Bytes per second for all together.
    pub whole_rate: Option<u64>,
}

/// One end of a circuit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leg {
    /// The peer there.
    pub peer: TransportKey,
    /// The label on the hop to it, in both directions.
    pub label: Label,
}

/// Two legs.
#[derive(Clone, Debug)]
pub struct Circuit {
    /// Its ends here: who asked for it, and where it leads.
    pub legs: [Leg; 2],
    /// The member who asked.
    pub asker: NodeId,
    /// What the one who asked calls its question.
    pub request: u32,
    /// The member behind the other leg: where it leads, or a further relay.
    pub next: NodeId,
    /// The members that it is between: one of the legs may be another relay's.
    pub ends: [NodeId; 2],
    /// What came in by each of the legs, and was passed on.
    pub meters: [Arc<Meter>; 2],
}

/// All circuits.
pub struct Switchboard {
    limits: RelayLimits,
    circuits: Vec<Circuit>,
    everybody: Arc<Pace>,
    /// One for each member with circuits.
    paces: BTreeMap<NodeId, Arc<Pace>>,
}

impl Switchboard {
    /// Starts with none.
    pub fn new(limits: RelayLimits) -> Self {
        let everybody = Arc::new(Pace::new(limits.whole_rate));
        Self { limits, circuits: Vec::new(), everybody, paces: BTreeMap::new() }
    }

    /// What it does.
    pub fn limits(&self) -> &RelayLimits {
        &self.limits
    }

    /// Takes other limits; circuits that there are keep theirs until they end, or end now. Returns those.
    pub fn set_limits(&mut self, limits: RelayLimits) -> Vec<Circuit> {
        self.everybody = Arc::new(Pace::new(limits.whole_rate));
        self.paces.clear();
        self.limits = limits;
        if limits.is_on { Vec::new() } else { std::mem::take(&mut self.circuits) }
    }

    /// Says whether a member may have one more circuit.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, asker: &NodeId) -> Result<(), LabelRefusal> {
        if !self.limits.is_on {
            return Err(LabelRefusal::NoRelay);
        }
        let of_asker = self.circuits.iter().filter(|circuit| circuit.asker == *asker).count();
        let is_room = 2 * self.circuits.len() < MAX_LABELS && 2 * of_asker < MAX_LABELS_PER_MEMBER;
        is_room.then_some(()).ok_or(LabelRefusal::Full)
    }

    /// Draws a label for the hop to a peer.
    pub fn draw_label(&self, peer: &TransportKey, rng: &mut impl Rng) -> Label {
        loop {
            let label = Label(rng.next_u32());
            if !self.is_used(&Leg { peer: *peer, label }) {
                return label;
            }
        }
    }

    fn is_used(&self, leg: &Leg) -> bool {
        self.circuits.iter().any(|circuit| circuit.legs.contains(leg))
    }

    /// Finds the circuit between these that a peer's question, so numbered, led to: who started anew counts from the start.
    pub fn granted(&self, asker: &TransportKey, request: u32, ends: [NodeId; 2]) -> Option<&Circuit> {
        let is_it =
            |circuit: &&Circuit| circuit.legs[0].peer == *asker && (circuit.request, circuit.ends) == (request, ends);
        self.circuits.iter().find(is_it)
    }

    /// Connects two legs, each of a member, for a question: who asks, and who is next.
    ///
    /// # Errors
    /// As [`Self::check`]; also when a further relay chose a label that is in use on that hop.
    pub fn connect(
        &mut self,
        now: Instant,
        ([asker, next], request): ([NodeId; 2], u32),
        ends: [NodeId; 2],
        legs: [Leg; 2],
    ) -> Result<(), LabelRefusal> {
        self.check(&asker)?;
        if legs.iter().any(|leg| self.is_used(leg)) || legs[0] == legs[1] {
            return Err(LabelRefusal::Full);
        }
        let rate = self.limits.member_rate;
        // Each way spends what its sender has: nobody pays for what is sent to it, nor for what others say of it.
        let meters = [asker, next].map(|sender| {
            let member = Arc::clone(self.paces.entry(sender).or_insert_with(|| Arc::new(Pace::new(rate))));
            Arc::new(Meter::new(now, member, Arc::clone(&self.everybody)))
        });
        self.circuits.push(Circuit { legs, asker, request, next, ends, meters });
        Ok(())
    }

    /// Ends circuits, and returns them.
    pub fn end(&mut self, is_over: impl Fn(&Circuit) -> bool) -> Vec<Circuit> {
        let ended: Vec<_> = self.circuits.extract_if(.., |circuit| is_over(circuit)).collect();
        if ended.is_empty() {
            return ended;
        }
        let circuits = &self.circuits;
        self.paces.retain(|member, _| circuits.iter().any(|circuit| [circuit.asker, circuit.next].contains(member)));
        ended
    }

    /// Ends those that carried nothing for [`LABEL_IDLE`].
    pub fn expire(&mut self, now: Instant) -> Vec<Circuit> {
        self.end(|circuit| now.saturating_since(circuit.used_at()) >= LABEL_IDLE)
    }

    /// The circuits.
    pub fn circuits(&self) -> &[Circuit] {
        &self.circuits
    }
}

impl Circuit {
    /// The bytes that were passed on, both ways together.
    pub fn bytes(&self) -> u64 {
        self.meters.iter().map(|meter| meter.bytes()).sum()
    }

    /// When something last came by one of its legs.
    pub fn used_at(&self) -> Instant {
        self.meters.each_ref().map(|meter| meter.used_at()).into_iter().max().unwrap_or_default()
    }

    /// Says whether it is between these, or led through one of them.
    pub fn concerns(&self, member: &NodeId, key: &TransportKey) -> bool {
        self.asker == *member || self.ends.contains(member) || self.legs.iter().any(|leg| leg.peer == *key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    const OPEN: RelayLimits = RelayLimits { is_on: true, member_rate: None, whole_rate: None };

    fn member(seed: u8) -> NodeId {
        NodeId([seed; 32])
    }

    fn leg(seed: u8, label: u32) -> Leg {
        Leg { peer: TransportKey([seed; 32]), label: Label(label) }
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn connect(board: &mut Switchboard, asker: u8, label: u32) -> Result<(), LabelRefusal> {
        let ends = [member(asker), member(200)];
        board.connect(at(1), (ends, 1), ends, [leg(asker, label), leg(200, 1000 * u32::from(asker) + label)])
    }

    #[test]
    fn each_member_has_a_share_and_all_together_no_more_than_there_is() {
        let mut board = Switchboard::new(OPEN);
        for label in 0..MAX_LABELS_PER_MEMBER as u32 / 2 {
            assert_eq!(connect(&mut board, 1, label), Ok(()));
        }
        assert_eq!(connect(&mut board, 1, 999), Err(LabelRefusal::Full));
        for asker in 2..=16 {
            (0..MAX_LABELS_PER_MEMBER as u32 / 2).for_each(|label| connect(&mut board, asker, label).unwrap());
        }
        assert_eq!(2 * board.circuits().len(), MAX_LABELS);
        assert_eq!(connect(&mut board, 17, 0), Err(LabelRefusal::Full));
        assert_eq!(board.expire(at(61)).len(), MAX_LABELS / 2, "nothing was sent by them");
        assert_eq!(connect(&mut board, 17, 0), Ok(()));
    }

    #[test]
    fn a_label_means_one_circuit_on_its_hop() {
        let mut board = Switchboard::new(OPEN);
        let ends = [member(1), member(2)];
        board.connect(at(1), (ends, 1), ends, [leg(1, 7), leg(2, 8)]).unwrap();
        assert_eq!(
            board.connect(at(1), ([member(3), member(2)], 1), ends, [leg(3, 7), leg(2, 8)]),
            Err(LabelRefusal::Full)
        );
        assert_eq!(board.connect(at(1), ([member(3); 2], 1), ends, [leg(3, 7), leg(3, 7)]), Err(LabelRefusal::Full));
        assert_eq!(
            board.connect(at(1), ([member(3), member(2)], 1), ends, [leg(3, 7), leg(2, 9)]),
            Ok(()),
            "another hop"
        );
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let label = board.draw_label(&leg(1, 0).peer, &mut rng);
        assert_ne!(label, board.draw_label(&leg(1, 0).peer, &mut rng));
    }

    #[test]
    fn what_is_used_stays_and_what_concerns_a_member_goes_with_it() {
        let mut board = Switchboard::new(OPEN);
        (1..=3).for_each(|asker| connect(&mut board, asker, 1).unwrap());
        board.circuits()[1].meters[1].pass(at(50), 100);
        assert_eq!(board.expire(at(61)).len(), 2);
        assert!(board.circuits()[0].concerns(&member(2), &leg(9, 0).peer));
        assert!(board.circuits()[0].concerns(&member(9), &leg(200, 0).peer));
        assert!(!board.circuits()[0].concerns(&member(1), &leg(1, 0).peer));
        assert_eq!(board.end(|circuit| circuit.concerns(&member(2), &leg(2, 0).peer)).len(), 1);
        assert!(board.paces.is_empty());
    }

    #[test]
    fn what_is_sent_to_a_member_spends_nothing_of_its_own_rate() {
        let mut board = Switchboard::new(RelayLimits { member_rate: Some(1_000_000), ..OPEN });
        connect(&mut board, 1, 1).unwrap();
        let circuit = &board.circuits()[0];
        let passed = |leg: usize| (0..1000).filter(|_| circuit.meters[leg].pass(at(10), 1000)).count();
        let (back, forth) = (passed(1), passed(0));
        assert!(back < 260 && forth == back, "{back} back, {forth} forth");
        assert_eq!(circuit.bytes(), 1000 * (back + forth) as u64);
    }

    #[test]
    fn what_a_further_relay_sends_in_a_member_s_name_spends_nothing_of_that_member_s() {
        let mut board = Switchboard::new(RelayLimits { member_rate: Some(1_000_000), ..OPEN });
        let (liar, victim) = (member(1), member(2));
        board.connect(at(1), ([liar, member(3)], 1), [liar, victim], [leg(1, 7), leg(3, 8)]).unwrap();
        board.connect(at(1), ([victim, member(4)], 1), [victim, member(4)], [leg(2, 9), leg(4, 10)]).unwrap();
        let flood = (0..1000).filter(|_| board.circuits()[0].meters[1].pass(at(10), 1000)).count();
        assert!(flood < 260 && board.circuits()[1].meters[0].pass(at(10), 100_000));
    }

    #[test]
    fn one_that_is_off_has_no_circuits() {
        let mut board = Switchboard::new(OPEN);
        connect(&mut board, 1, 1).unwrap();
        assert_eq!(board.set_limits(RelayLimits { is_on: false, ..OPEN }).len(), 1);
        assert_eq!(connect(&mut board, 1, 1), Err(LabelRefusal::NoRelay));
    }
}
