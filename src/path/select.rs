//! The choice of one peer's path, and the watch over it.
//!
//! A path is taken when a pong came over it, or a handshake whose peer can only have read there what it answers; never because a packet
//! claims so: an authenticated packet from another address only makes that address a candidate and earns it a probe. Neither an attacker
//! who copies packets nor a member that makes up sources moves anything.

use super::candidate::{CandidateSource, Candidates};
use super::probe::{ProbeId, Probes};
use crate::time::Instant;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The least gain in round-trip time that is worth a switch.
const SWITCH_GAIN: Duration = Duration::from_millis(5);

/// Probes to an address that only a packet named: one a second and session, so that nobody is flooded through us.
const ROAMING_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Sent to without an answer for this long, a path is asked with a probe: 2 s is beyond TCP's delayed acknowledgements.
const SILENCE_UNTIL_PROBE: Duration = Duration::from_secs(2);

/// Sent to without an answer for this long, the peer is looked for everywhere by a new handshake.
const SILENCE_UNTIL_RECONNECT: Duration = Duration::from_secs(6);

/// What the watch asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathCheck {
    /// Nothing to do.
    Healthy,
    /// The peer owes an answer: probe the current path.
    Probe(SocketAddr),
    /// The path seems dead: handshake with every candidate.
    Reconnect,
}

#[derive(Clone, Copy, Debug)]
struct Current {
    endpoint: SocketAddr,
    rtt: Option<Duration>,
}

/// All ways to one peer.
#[derive(Debug, Default)]
pub struct Paths {
    candidates: Candidates,
    probes: Probes,
    current: Option<Current>,
    /// Since when the peer owes an answer: a watch saw a packet sent and nothing received after.
    owed_since: Option<Instant>,
    /// When the peer last got an answer: by itself that asks for none.
    answered_at: Option<Instant>,
    /// The other endpoint that the peer was last heard from.
    moved_to: Option<SocketAddr>,
    /// When such an endpoint was last asked.
    asked_at: Option<Instant>,
}

impl Paths {
    /// The endpoint in use.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.current.map(|current| current.endpoint)
    }

    /// The last measured round trip of the path in use.
    pub fn rtt(&self) -> Option<Duration> {
        self.current?.rtt
    }

    /// Lends the candidates.
    pub fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// Lends the candidates for adding to them.
    pub fn candidates_mut(&mut self) -> &mut Candidates {
        &mut self.candidates
    }

    /// The endpoint that the peer spoke from last, when that is not the path in use.
    pub fn elsewhere(&self) -> Option<SocketAddr> {
        self.moved_to
    }

    /// A handshake was completed with a peer that reads at `endpoint`: it is the path, whatever was before.
    pub fn established(&mut self, now: Instant, endpoint: SocketAddr) {
        self.note(now, endpoint);
        self.candidates.proved(endpoint);
        self.owed_since = None;
        self.moved_to = None;
        if self.endpoint() != Some(endpoint) {
            self.current = Some(Current { endpoint, rtt: None });
        }
    }

    /// Something authenticated came from `endpoint`. Returns it when it deserves a probe: it is not the path in use, and no
    /// such place of this peer's was asked within a second, whichever it was: a member that makes up sources floods nobody through us.
    pub fn heard_from(&mut self, now: Instant, endpoint: SocketAddr) -> Option<SocketAddr> {
        self.note(now, endpoint);
        if self.endpoint() == Some(endpoint) {
            self.moved_to = None;
            return None;
        }
        self.moved_to = Some(endpoint);
        if self.asked_at.is_some_and(|at| now.saturating_since(at) < ROAMING_PROBE_INTERVAL) {
            return None;
        }
        self.asked_at = Some(now);
        Some(endpoint)
    }

    /// Notes a probe with `id` that leaves for `endpoint` now.
    pub fn probe_sent(&mut self, now: Instant, id: ProbeId, endpoint: SocketAddr) {
        self.probes.sent(now, id, endpoint);
    }

    /// Notes an answer that leaves now, a pong or a confirmation: two ends that answered answers would never fall silent.
    pub fn answered(&mut self, now: Instant) {
        self.answered_at = Some(now);
    }

    /// A pong for `id` came. Returns the round trip when the probe was ours and in time. Its endpoint becomes the path when the peer
    /// itself speaks from there, when the path in use owes an answer, or when that is slower by 5 ms and 10 %.
    pub fn handle_pong(&mut self, now: Instant, id: ProbeId) -> Option<Duration> {
        let (endpoint, rtt) = self.probes.answered(now, id)?;
        self.note(now, endpoint);
        self.candidates.proved(endpoint);
        let moved = self.moved_to == Some(endpoint);
        let silent = self.owed_since.is_some_and(|since| now.saturating_since(since) > rtt);
        match &mut self.current {
            Some(current) if current.endpoint == endpoint => current.rtt = Some(rtt),
            Some(current) => {
                let faster = current.rtt.is_some_and(|used| rtt + SWITCH_GAIN.max(used / 10) <= used);
                if moved || silent || faster {
                    *current = Current { endpoint, rtt: Some(rtt) };
                    self.moved_to = None;
                }
            }
            None => {
                self.current = Some(Current { endpoint, rtt: Some(rtt) });
                self.moved_to = None;
            }
        }
        Some(rtt)
    }

    /// Judges the path in use by the times of the last packet sent to and received from the peer. After an answer nothing is owed: what was
    /// sent before it was answered by what it answers.
    pub fn check(&mut self, now: Instant, sent: Option<Instant>, received: Option<Instant>) -> PathCheck {
        let (Some(endpoint), Some(sent)) = (self.endpoint(), sent) else { return PathCheck::Healthy };
        let received = received.unwrap_or(Instant::ZERO);
        if received >= sent || self.answered_at >= Some(sent) {
            self.owed_since = None;
            return PathCheck::Healthy;
        }
        let owed_since = self.owed_since.filter(|since| *since >= received).unwrap_or(now);
        self.owed_since = Some(owed_since);
        let silence = now.saturating_since(owed_since);
        if silence >= SILENCE_UNTIL_RECONNECT {
            self.owed_since = Some(now);
            PathCheck::Reconnect
        } else if silence >= SILENCE_UNTIL_PROBE {
            PathCheck::Probe(endpoint)
        } else {
            PathCheck::Healthy
        }
    }

    /// Forgets the path in use, not the candidates: after a suspend or when the peer said goodbye.
    pub fn forget_current(&mut self) {
        self.current = None;
    }

    fn note(&mut self, now: Instant, endpoint: SocketAddr) {
        // Refused endpoints (a full set, a forbidden place) stay usable as the way back to who spoke from there.
        let _ = self.candidates.add(endpoint, CandidateSource::Observed, |_: IpAddr| false);
        self.candidates.heard(now, endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 4647))
    }

    fn seconds(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_packet_from_elsewhere_moves_nothing_until_its_pong() {
        let mut paths = Paths::default();
        paths.established(seconds(1), endpoint(1));
        assert_eq!(paths.heard_from(seconds(2), endpoint(2)), Some(endpoint(2)));
        paths.probe_sent(seconds(2), ProbeId(7), endpoint(2));
        assert_eq!(paths.heard_from(seconds(2), endpoint(2)), None, "one probe a second");
        assert_eq!(paths.heard_from(seconds(2), endpoint(3)), None, "not one for each address");
        assert_eq!(paths.heard_from(seconds(2), endpoint(2)), None);
        assert_eq!(paths.endpoint(), Some(endpoint(1)));
        let rtt = Duration::from_millis(10);
        assert_eq!(paths.handle_pong(seconds(2) + rtt, ProbeId(7)), Some(rtt));
        assert_eq!(paths.endpoint(), Some(endpoint(2)));
        assert_eq!(paths.handle_pong(seconds(3), ProbeId(8)), None, "an unknown probe");
    }

    #[test]
    fn a_working_path_is_left_only_for_a_faster_one() {
        let mut paths = Paths::default();
        paths.established(seconds(1), endpoint(1));
        paths.probe_sent(seconds(1), ProbeId(1), endpoint(1));
        paths.handle_pong(seconds(1) + Duration::from_millis(30), ProbeId(1));
        for (id, millis, expected) in [(2, 27, endpoint(1)), (3, 25, endpoint(2))] {
            let sent = seconds(10);
            paths.probe_sent(sent, ProbeId(id), endpoint(2));
            let pong = sent + Duration::from_millis(millis);
            paths.handle_pong(pong, ProbeId(id));
            assert_eq!(paths.endpoint(), Some(expected));
        }
    }

    #[test]
    fn silence_is_asked_about_and_then_acted_on_once() {
        let mut paths = Paths::default();
        paths.established(seconds(1), endpoint(1));
        let (sent, received) = (Some(seconds(111)), Some(seconds(10)));
        assert_eq!(
            paths.check(seconds(111), sent, received),
            PathCheck::Healthy,
            "the first packet after a long silence"
        );
        assert_eq!(paths.check(seconds(113), sent, received), PathCheck::Probe(endpoint(1)));
        assert_eq!(paths.check(seconds(117), sent, received), PathCheck::Reconnect);
        assert_eq!(paths.check(seconds(118), sent, received), PathCheck::Healthy);
        assert_eq!(paths.check(seconds(140), Some(seconds(120)), Some(seconds(121))), PathCheck::Healthy, "idle");
    }

    #[test]
    fn an_answer_asks_for_none() {
        let mut paths = Paths::default();
        paths.established(seconds(1), endpoint(1));
        let just_after = seconds(10) + Duration::from_micros(50);
        paths.answered(just_after);
        for second in 11..60 {
            assert_eq!(paths.check(seconds(second), Some(just_after), Some(seconds(10))), PathCheck::Healthy);
        }
        let sent = Some(seconds(60));
        assert_eq!(paths.check(seconds(60), sent, Some(seconds(10))), PathCheck::Healthy);
        assert_eq!(
            paths.check(seconds(62), sent, Some(seconds(10))),
            PathCheck::Probe(endpoint(1)),
            "data after it does"
        );
    }

    #[test]
    fn a_busy_path_that_answers_is_healthy() {
        let mut paths = Paths::default();
        paths.established(seconds(1), endpoint(1));
        for second in 2..60 {
            let received = Some(seconds(second) - Duration::from_millis(2));
            assert_eq!(paths.check(seconds(second), Some(seconds(second)), received), PathCheck::Healthy);
        }
    }
}
