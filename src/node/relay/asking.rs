//! What this node asked relays for: for itself, and as a relay for those whose way leads further.

use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an answer is waited for, and a session with who is to be asked: a handshake's life.
const PATIENCE: Duration = Duration::from_secs(5);

/// When a question is asked for the second time; each pause is twice the one before. A datagram may be lost.
const FIRST_PAUSE: Duration = Duration::from_millis(400);

/// Questions, and what waits for a session, at a time: beyond that nothing is asked.
const MAX_WAITING: usize = 1024;

/// For whom a way is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// This node wants to reach a member.
    Own {
        /// Its key.
        key: TransportKey,
        /// Its identity.
        id: NodeId,
        /// The relays behind the one that is asked.
        through: Vec<NodeId>,
    },
    /// A peer asked this node, as a relay.
    Passing {
        /// The peer.
        asker: TransportKey,
        /// What it calls its question.
        id: u32,
        /// Who wants to reach whom.
        ends: [NodeId; 2],
        /// The relays behind the next one.
        through: Vec<NodeId>,
    },
}

/// Something wanted of a peer, until then.
#[derive(Clone, Debug)]
struct Waiting {
    of: TransportKey,
    purpose: Purpose,
    until: Instant,
    /// When it is asked again, and how long after the time before; none while there is no session.
    again: Option<(Instant, Duration)>,
}

/// Questions under way.
#[derive(Default)]
pub struct Asking {
    latest: u32,
    /// Asked, by the question's number.
    asked: BTreeMap<u32, Waiting>,
    /// To be asked once there is a session.
    queued: Vec<Waiting>,
}

impl Asking {
    /// Numbers a question to a peer; none when too many are under way.
    pub fn ask(&mut self, now: Instant, of: TransportKey, purpose: Purpose) -> Option<u32> {
        if self.asked.len() >= MAX_WAITING {
            return None;
        }
        self.latest = self.latest.wrapping_add(1);
        let again = Some((now + FIRST_PAUSE, FIRST_PAUSE));
        self.asked.insert(self.latest, Waiting { of, purpose, until: now + PATIENCE, again });
        Some(self.latest)
    }

    /// Takes the question that a peer answers.
    pub fn answered(&mut self, by: TransportKey, id: u32) -> Option<Purpose> {
        self.asked.get(&id).filter(|waiting| waiting.of == by)?;
        self.asked.remove(&id).map(|waiting| waiting.purpose)
    }

    /// Takes the questions that are to be asked once more: of whom, by which number, and what.
    pub fn again(&mut self, now: Instant) -> Vec<(TransportKey, u32, Purpose)> {
        let mut due = Vec::new();
        for (id, waiting) in &mut self.asked {
            if let Some((at, pause)) = &mut waiting.again
                && now >= *at
            {
                *pause *= 2;
                *at = now + *pause;
                due.push((waiting.of, *id, waiting.purpose.clone()));
            }
        }
        due
    }

    /// Says whether a peer's question, so numbered, for a way between these is under way here.
    pub fn is_passing(&self, from: &TransportKey, number: u32, between: [NodeId; 2]) -> bool {
        let is_it = |waiting: &Waiting| match &waiting.purpose {
            Purpose::Passing { asker, id, ends, .. } => (asker, *id, *ends) == (from, number, between),
            Purpose::Own { .. } => false,
        };
        self.asked.values().chain(&self.queued).any(is_it)
    }

    /// Says whether a peer is asked, or to be asked, for the same.
    pub fn is_asked(&self, of: &TransportKey, purpose: &Purpose) -> bool {
        self.asked.values().chain(&self.queued).any(|waiting| waiting.of == *of && waiting.purpose == *purpose)
    }

    /// Keeps what is wanted of a peer until there is a session with it. Returns whether there was room.
    pub fn queue(&mut self, now: Instant, of: TransportKey, purpose: Purpose) -> bool {
        let is_room = self.queued.len() < MAX_WAITING;
        if is_room {
            self.queued.push(Waiting { of, purpose, until: now + PATIENCE, again: None });
        }
        is_room
    }

    /// Takes what waited for a session with a peer, or for its answer.
    pub fn reached(&mut self, peer: &TransportKey) -> Vec<Purpose> {
        // What it was asked in a session before this one, it may have forgotten.
        let asked = self.asked.extract_if(.., |_, waiting| waiting.of == *peer).map(|(_, waiting)| waiting);
        let queued = self.queued.extract_if(.., |waiting| waiting.of == *peer);
        asked.chain(queued).map(|waiting| waiting.purpose).collect()
    }

    /// Forgets what is too late, and returns it.
    pub fn expire(&mut self, now: Instant) -> Vec<Purpose> {
        let asked = self.asked.extract_if(.., |_, waiting| now >= waiting.until).map(|(_, waiting)| waiting);
        let queued = self.queued.extract_if(.., |waiting| now >= waiting.until);
        asked.chain(queued).map(|waiting| waiting.purpose).collect()
    }

    /// Forgets everything that concerns a member.
    pub fn forget(&mut self, member: &NodeId, key: &TransportKey) {
        let concerns = |waiting: &Waiting| {
            waiting.of == *key
                || match &waiting.purpose {
                    Purpose::Own { id, through, .. } => id == member || through.contains(member),
                    Purpose::Passing { asker, ends, through, .. } => {
                        asker == key || ends.contains(member) || through.contains(member)
                    }
                }
        };
        self.asked.retain(|_, waiting| !concerns(waiting));
        self.queued.retain(|waiting| !concerns(waiting));
    }

    /// Says whether anything concerns a member.
    pub fn mentions(&self, member: &NodeId, key: &TransportKey) -> bool {
        self.asked.values().chain(&self.queued).any(|waiting| {
            waiting.of == *key
                || match &waiting.purpose {
                    Purpose::Own { id, through, .. } => id == member || through.contains(member),
                    Purpose::Passing { ends, through, .. } => ends.contains(member) || through.contains(member),
                }
        })
    }

    /// When [`Self::expire`] or [`Self::again`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let again = self.asked.values().filter_map(|waiting| waiting.again).map(|(at, _)| at);
        self.asked.values().chain(&self.queued).map(|waiting| waiting.until).chain(again).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: TransportKey = TransportKey([1; 32]);
    const OTHER: TransportKey = TransportKey([2; 32]);

    fn own(seed: u8) -> Purpose {
        Purpose::Own { key: TransportKey([seed; 32]), id: NodeId([seed; 32]), through: Vec::new() }
    }

    #[test]
    fn only_who_was_asked_answers_and_only_once() {
        let mut asking = Asking::default();
        let id = asking.ask(Instant::ZERO, RELAY, own(7)).unwrap();
        assert!(asking.is_asked(&RELAY, &own(7)) && !asking.is_asked(&OTHER, &own(7)));
        assert_eq!(asking.answered(OTHER, id), None);
        assert_eq!(asking.answered(RELAY, id), Some(own(7)));
        assert_eq!(asking.answered(RELAY, id), None);
    }

    #[test]
    fn a_question_is_asked_again_less_and_less_often_until_it_is_answered() {
        let mut asking = Asking::default();
        let id = asking.ask(Instant::ZERO, RELAY, own(7)).unwrap();
        let mut asked = Vec::new();
        for millis in (0..5000).step_by(100) {
            let due = asking.again(Instant::ZERO + Duration::from_millis(millis));
            assert!(due.iter().all(|again| *again == (RELAY, id, own(7))));
            asked.extend(due.iter().map(|_| millis));
        }
        assert_eq!(asked, [400, 1200, 2800]);
        asking.answered(RELAY, id);
        assert!(asking.again(Instant::ZERO + Duration::from_secs(9)).is_empty());
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_time_and_goes_with_its_member() {
        let mut asking = Asking::default();
        for _ in 0..2 * MAX_WAITING {
            asking.ask(Instant::ZERO, RELAY, own(7));
            asking.queue(Instant::ZERO, OTHER, own(8));
        }
        assert_eq!((asking.asked.len(), asking.queued.len()), (MAX_WAITING, MAX_WAITING));
        asking.forget(&NodeId([8; 32]), &TransportKey([8; 32]));
        assert!(!asking.mentions(&NodeId([8; 32]), &TransportKey([8; 32])) && asking.queued.is_empty());
        assert!(asking.expire(Instant::ZERO + PATIENCE / 2).is_empty());
        assert_eq!(asking.expire(Instant::ZERO + PATIENCE).len(), MAX_WAITING);
        assert_eq!(asking.poll_timeout(), None);
    }
}
