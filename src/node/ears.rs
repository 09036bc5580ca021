//! A relay's second ear: two conversations with one member say whether the NAT in front of this node chooses another port for each.
//!
//! ```text
//!   Ada ── EarWanted ──► relay, which opens another socket at the first such question
//!   Ada ◄── Ear(port) ── relay
//!   Ada ── probe ──► relay:4647      Ada ── probe ──► relay:port
//!   Ada ◄── pong, from where         Ada ◄── pong, from where         the same: independent; another: dependent
//! ```
//! Where two members see this node, nobody is asked. An ear answers probes and is deaf to all else; no path leads there.

use super::spares::{Spare, SparePurpose};
use super::{Node, NodeEvent};
use crate::crypto::exchange::TransportKey;
use crate::path::{Path, ProbeId, is_possible};
use crate::time::{Instant, Now};
use crate::wire::control::{ControlMessage, NatKind};
use crate::wire::datagram::SessionIndex;
use crate::wire::drops::DropReason;
use crate::wire::transport_record::Record;
use rand_core::CryptoRng;
use std::net::SocketAddr;
use std::time::Duration;

/// Members that wait until the ear is there; more ask again.
const MAX_WAITING: usize = 64;

/// How long an answer is waited for, beyond any underlay's round trip.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits between two questions, doubling from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// This node's own ear.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Own {
    #[default]
    Closed,
    Opening,
    Open(Spare),
}

/// What this node asked a relay.
#[derive(Clone, Copy, Debug)]
struct Question {
    relay: TransportKey,
    asked: Instant,
    /// What was sent to the ear, once the relay said where it is.
    probe: Option<(ProbeId, SocketAddr)>,
    is_answered: bool,
}

/// Ears: that of this node, and that of a relay which this node asked.
#[derive(Debug)]
pub(super) struct Ears {
    own: Own,
    /// Who is to be told where it is.
    waiting: Vec<TransportKey>,
    question: Option<Question>,
    /// Whether there is something to ask, and somebody.
    is_wanted: bool,
    ask_at: Instant,
    wait: Duration,
}

impl Default for Ears {
    fn default() -> Self {
        Self {
            own: Own::default(),
            waiting: Vec::new(),
            question: None,
            is_wanted: false,
            ask_at: Instant::ZERO,
            wait: FIRST_WAIT,
        }
    }
}

impl Ears {
    /// Says whether it is time to ask a relay, if one is wanted; then that is noted.
    fn take_turn(&mut self, now: Instant, relay: Option<TransportKey>) -> Option<TransportKey> {
        self.is_wanted = relay.is_some();
        let relay = relay.filter(|_| now >= self.ask_at)?;
        self.question = Some(Question { relay, asked: now, probe: None, is_answered: false });
        self.ask_at = now + self.wait;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Some(relay)
    }

    /// The question to a relay that it may answer now.
    fn pending(&mut self, now: Instant, relay: TransportKey) -> Option<&mut Question> {
        let is_pending = |it: &&mut Question| it.relay == relay && now.saturating_since(it.asked) < PATIENCE;
        self.question.as_mut().filter(is_pending).filter(|question| question.probe.is_none())
    }

    /// Says whether a pong of a relay answers the probe to its ear; once.
    fn take_pong(&mut self, relay: TransportKey, id: ProbeId) -> bool {
        let is_it = |it: &&mut Question| it.relay == relay && it.probe.is_some_and(|(sent, _)| sent == id);
        let Some(question) = self.question.as_mut().filter(is_it).filter(|it| !it.is_answered) else { return false };
        question.is_answered = true;
        self.wait = FIRST_WAIT;
        true
    }

    /// The host is elsewhere: whatever was answered, or was not, says nothing of now.
    pub(super) fn move_on(&mut self) {
        *self = Self { own: self.own, waiting: std::mem::take(&mut self.waiting), ..Self::default() };
    }

    /// Says whether anything here belongs to a peer.
    pub(super) fn mentions(&self, key: &TransportKey) -> bool {
        self.waiting.contains(key) || self.question.is_some_and(|question| question.relay == *key)
    }

    /// Forgets a peer that is no member any more.
    pub(super) fn forget(&mut self, key: &TransportKey) {
        self.waiting.retain(|waiting| waiting != key);
        self.question.take_if(|question| question.relay == *key);
    }

    /// When a question is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.is_wanted.then_some(self.ask_at)
    }

    /// The position of this node's own ear among its sockets.
    pub(super) fn own_position(&self) -> Option<u8> {
        match self.own {
            Own::Open(spare) => Some(spare.position),
            Own::Closed | Own::Opening => None,
        }
    }
}

impl<R: CryptoRng> Node<R> {
    /// Asks a relay for its ear, when that alone can say what kind of NAT there is.
    pub(super) fn tend_ears(&mut self, now: Now) {
        let relay = self.relay_to_ask();
        if let Some(relay) = self.ears.take_turn(now.instant, relay) {
            self.peers.send_control(now, relay, &ControlMessage::EarWanted);
        }
    }

    /// The only member that sees this node, if it is a relay, and reached directly over IPv4.
    fn relay_to_ask(&self) -> Option<TransportKey> {
        if self.reach.nat() != NatKind::Undetermined {
            return None;
        }
        let (key, _) = self.reach.observed().iter().find(|(_, seen)| seen.is_ipv4())?;
        let id = self.policy.admit(key).member()?;
        let path = self.peers.direct_path(key)?;
        (self.relays(&id) && path.is_direct() && path.remote.is_ipv4()).then_some(*key)
    }

    /// A member asks for this node's ear.
    pub(super) fn handle_ear_wanted(&mut self, now: Now, from: TransportKey) {
        if !self.calls.take(now, from) {
            return self.drops.count(DropReason::RateLimited);
        }
        match self.ears.own {
            Own::Open(Spare { port, .. }) => drop(self.peers.send_control(now, from, &ControlMessage::Ear { port })),
            _ if !self.is_relay() || self.ears.waiting.len() >= MAX_WAITING => {
                self.drops.count(DropReason::ControlRefused);
            }
            Own::Opening => self.ears.waiting.push(from),
            Own::Closed => {
                self.ears.own = Own::Opening;
                self.ears.waiting.push(from);
                self.tell(NodeEvent::OpenSpares { count: 1, purpose: SparePurpose::Ear });
            }
        }
    }

    /// Takes the socket that is this node's ear, and tells who waited; none when the host had none to give.
    pub(super) fn handle_own_ear(&mut self, now: Now, spare: Option<Spare>) {
        self.ears.own = spare.map_or(Own::Closed, Own::Open);
        let waiting = std::mem::take(&mut self.ears.waiting);
        let Some(Spare { port, .. }) = spare else { return };
        for key in waiting {
            self.peers.send_control(now, key, &ControlMessage::Ear { port });
        }
    }

    /// A relay says where its ear is: sends a probe there, and one by the session's path, whose last answer may be of another time.
    pub(super) fn handle_ear(&mut self, now: Now, from: TransportKey, port: u16) {
        let path = self.peers.direct_path(&from).filter(|path| path.is_direct() && path.remote.is_ipv4());
        let path = path.filter(|path| path.remote.port() != port);
        let ear = path.map(|path| Path { remote: SocketAddr::new(path.remote.ip(), port), ..path });
        let ear = ear.filter(|ear| is_possible(&ear.remote) && self.ears.pending(now.instant, from).is_some());
        let Some(ear) = ear else { return self.drops.count(DropReason::ControlRefused) };
        let (peers, mut ctx) = self.peers_and_context(now);
        peers.ping(&mut ctx, from);
        let probe = peers.probe_aside(&mut ctx, from, ear, None);
        if let Some(question) = self.ears.pending(now.instant, from) {
            question.probe = probe.map(|probe| (probe, ear.remote));
        }
    }

    /// Says whether a path is none: it leads to an ear, or from this node's own.
    pub(super) fn is_at_ear(&self, now: Instant, path: &Path) -> bool {
        let own = self.ears.own_position();
        let asked = self.ears.question.filter(|question| now.saturating_since(question.asked) < PATIENCE);
        let asked = asked.and_then(|question| question.probe).map(|(_, ear)| ear);
        own.is_some() && path.spare() == own || path.is_direct() && asked == Some(path.remote)
    }

    /// Takes an opened record that came to an ear, or from one.
    pub(super) fn handle_at_ear(&mut self, now: Now, index: SessionIndex, path: Path, record: &[u8]) {
        let said = match Record::decode(record) {
            Ok(Record::Control(content)) => ControlMessage::decode(content).ok(),
            _ => None,
        };
        let Some((key, rights)) = self.peers.session_of(index) else {
            return self.drops.count(DropReason::UnknownSession);
        };
        let is_own = path.spare().is_some();
        match said {
            Some(ControlMessage::Probe { id, .. }) if is_own && rights.is_member() => {
                self.peers.pong(now, key, path, id);
            }
            Some(ControlMessage::Pong { id, observed }) if !is_own && self.ears.take_pong(key, ProbeId(id)) => {
                if self.reach.observe_aside(now.instant, key, observed) {
                    tracing::debug!(nat = self.reach.nat().name(), "a relay's second ear says what the NAT does");
                    self.tell_nat(now);
                }
            }
            _ => self.drops.count(DropReason::RecordNotAllowed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: TransportKey = TransportKey([7; 32]);

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    /// Asks whenever it is time, for `span`. Returns when.
    fn ask(ears: &mut Ears, span: Duration) -> Vec<u64> {
        let times = (0..span.as_millis() as u64).step_by(100);
        times.filter(|millis| ears.take_turn(at(*millis), Some(RELAY)).is_some()).collect()
    }

    #[test]
    fn a_relay_that_does_not_answer_is_asked_ever_more_rarely() {
        let mut ears = Ears::default();
        let asked = ask(&mut ears, Duration::from_secs(2000));
        assert_eq!(asked[..5], [0, 2000, 6000, 14_000, 30_000]);
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] <= 300_000) && asked.len() < 16, "{asked:?}");
        assert!(ears.poll_timeout().is_some());
        assert_eq!(ears.take_turn(at(0), None), None);
        assert_eq!(ears.poll_timeout(), None, "nobody to ask");
    }

    #[test]
    fn only_the_relay_that_was_asked_answers_once_and_in_time() {
        let mut ears = Ears::default();
        let other = TransportKey([8; 32]);
        assert!(ears.pending(at(0), RELAY).is_none(), "nobody was asked");
        ears.take_turn(at(0), Some(RELAY));
        assert!(ears.pending(at(0), other).is_none() && ears.pending(at(5000), RELAY).is_none());
        ears.pending(at(100), RELAY).unwrap().probe = Some((ProbeId(1), SocketAddr::from(([192, 0, 2, 1], 5))));
        assert!(ears.pending(at(100), RELAY).is_none(), "one ear for a question");
        assert!(!ears.take_pong(RELAY, ProbeId(2)) && !ears.take_pong(other, ProbeId(1)));
        assert!(ears.take_pong(RELAY, ProbeId(1)));
        assert!(!ears.take_pong(RELAY, ProbeId(1)));
        assert_eq!(ears.wait, FIRST_WAIT);
    }
}
