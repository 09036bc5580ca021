//! The choice of one peer's path, and the watch over it.
//!
//! A path is taken when a pong came over it, or a handshake whose peer can only have read there what it answers; never because a packet
//! claims so: an authenticated packet from another address only makes that address a candidate and earns it a probe. Neither an attacker
//! who copies packets nor a member that makes up sources moves anything.

use super::candidate::{CandidateSource, Candidates};
use super::local::Path;
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
    Probe(Path),
    /// The path seems dead: handshake with every candidate.
    Reconnect,
}

#[derive(Clone, Copy, Debug)]
struct Current {
    path: Path,
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
    /// The other path that the peer was last heard on.
    moved_to: Option<Path>,
    /// When such a path was last asked.
    asked_at: Option<Instant>,
}

impl Paths {
    /// The path in use.
    pub fn path(&self) -> Option<Path> {
        self.current.map(|current| current.path)
    }

    /// The endpoint in use.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.path().map(|path| path.remote)
    }

    /// The path to an endpoint: by the local end at which the peer was last heard from there, if it was.
    pub fn path_to(&self, endpoint: SocketAddr) -> Path {
        Path { remote: endpoint, local: self.candidates.local_end(endpoint) }
    }

    /// Forgets at which local ends the peer was heard: the host may have lost them, or its routes may lead elsewhere.
    pub fn forget_local_ends(&mut self) {
        self.candidates.forget_local_ends();
        self.current.iter_mut().for_each(|current| current.path.local = None);
        self.moved_to.iter_mut().for_each(|path| path.local = None);
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

    /// The path that the peer spoke on last, when that is not the one in use.
    pub fn elsewhere(&self) -> Option<Path> {
        self.moved_to
    }

    /// A handshake was completed with a peer that reads at the end of `path`: it is in use from now on, whatever was before.
    pub fn established(&mut self, now: Instant, path: Path) {
        self.note(now, path);
        self.candidates.proved(path.remote);
        self.owed_since = None;
        self.moved_to = None;
        if self.path() != Some(path) {
            self.current = Some(Current { path, rtt: None });
        }
    }

    /// Something authenticated came by `path`. Returns it when it deserves a probe: it is not the one in use, and no
    /// such path of this peer's was asked within a second, whichever it was: a member that makes up sources floods nobody through us.
    pub fn heard_from(&mut self, now: Instant, path: Path) -> Option<Path> {
        self.note(now, path);
        if self.path() == Some(path) {
            self.moved_to = None;
            return None;
        }
        self.moved_to = Some(path);
        if self.asked_at.is_some_and(|at| now.saturating_since(at) < ROAMING_PROBE_INTERVAL) {
            return None;
        }
        self.asked_at = Some(now);
        Some(path)
    }

    /// Notes a probe with `id` that leaves by `path` now.
    pub fn probe_sent(&mut self, now: Instant, id: ProbeId, path: Path) {
        self.probes.sent(now, id, path);
    }

    /// Notes an answer that leaves now, a pong or a confirmation: two ends that answered answers would never fall silent.
    pub fn answered(&mut self, now: Instant) {
        self.answered_at = Some(now);
    }

    /// A pong for `id` came. Returns the round trip when the probe was ours and in time. Its path is in use from now on when the
    /// peer itself speaks there, when the one in use owes an answer, or when that is slower by 5 ms and 10 %.
    pub fn handle_pong(&mut self, now: Instant, id: ProbeId) -> Option<Duration> {
        let (path, rtt) = self.probes.answered(now, id)?;
        self.note(now, path);
        self.candidates.proved(path.remote);
        let moved = self.moved_to == Some(path);
        let silent = self.owed_since.is_some_and(|since| now.saturating_since(since) > rtt);
        match &mut self.current {
            Some(current) if current.path == path => current.rtt = Some(rtt),
            Some(current) => {
                let faster = current.rtt.is_some_and(|used| rtt + SWITCH_GAIN.max(used / 10) <= used);
                if moved || silent || faster {
                    *current = Current { path, rtt: Some(rtt) };
                    self.moved_to = None;
                }
            }
            None => {
                self.current = Some(Current { path, rtt: Some(rtt) });
                self.moved_to = None;
            }
        }
        Some(rtt)
    }

    /// Judges the path in use by the times of the last packet sent to and received from the peer. After an answer nothing is owed: what was
    /// sent before it was answered by what it answers.
    pub fn check(&mut self, now: Instant, sent: Option<Instant>, received: Option<Instant>) -> PathCheck {
        let (Some(path), Some(sent)) = (self.path(), sent) else { return PathCheck::Healthy };
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
            PathCheck::Probe(path)
        } else {
            PathCheck::Healthy
        }
    }

    /// Since when the peer owes an answer on the path in use.
    pub fn owed_since(&self) -> Option<Instant> {
        self.owed_since
    }

    /// Forgets the path in use, not the candidates: after a suspend or when the peer said goodbye.
    pub fn forget_current(&mut self) {
        self.current = None;
    }

    fn note(&mut self, now: Instant, path: Path) {
        // Refused endpoints (a full set, a forbidden place) stay usable as the way back to who spoke from there.
        let _ = self.candidates.add(path.remote, CandidateSource::Observed, |_: IpAddr| false);
        self.candidates.heard(now, path);
    }
}

#[cfg(test)]
mod tests {
    use super::super::local::LocalEnd;
    use super::*;

    /// A path whose local end is not known.
    fn path(last: u8) -> Path {
        SocketAddr::from(([192, 0, 2, last], 4647)).into()
    }

    fn seconds(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_packet_from_elsewhere_moves_nothing_until_its_pong() {
        let mut paths = Paths::default();
        paths.established(seconds(1), path(1));
        assert_eq!(paths.heard_from(seconds(2), path(2)), Some(path(2)));
        paths.probe_sent(seconds(2), ProbeId(7), path(2));
        assert_eq!(paths.heard_from(seconds(2), path(2)), None, "one probe a second");
        assert_eq!(paths.heard_from(seconds(2), path(3)), None, "not one for each address");
        assert_eq!(paths.heard_from(seconds(2), path(2)), None);
        assert_eq!(paths.path(), Some(path(1)));
        let rtt = Duration::from_millis(10);
        assert_eq!(paths.handle_pong(seconds(2) + rtt, ProbeId(7)), Some(rtt));
        assert_eq!(paths.path(), Some(path(2)));
        assert_eq!(paths.handle_pong(seconds(3), ProbeId(8)), None, "an unknown probe");
    }

    #[test]
    fn a_working_path_is_left_only_for_a_faster_one() {
        let mut paths = Paths::default();
        paths.established(seconds(1), path(1));
        paths.probe_sent(seconds(1), ProbeId(1), path(1));
        paths.handle_pong(seconds(1) + Duration::from_millis(30), ProbeId(1));
        for (id, millis, expected) in [(2, 27, path(1)), (3, 25, path(2))] {
            let sent = seconds(10);
            paths.probe_sent(sent, ProbeId(id), path(2));
            let pong = sent + Duration::from_millis(millis);
            paths.handle_pong(pong, ProbeId(id));
            assert_eq!(paths.path(), Some(expected));
        }
    }

    #[test]
    fn silence_is_asked_about_and_then_acted_on_once() {
        let mut paths = Paths::default();
        paths.established(seconds(1), path(1));
        let (sent, received) = (Some(seconds(111)), Some(seconds(10)));
        assert_eq!(
            paths.check(seconds(111), sent, received),
            PathCheck::Healthy,
            "the first packet after a long silence"
        );
        assert_eq!(paths.check(seconds(113), sent, received), PathCheck::Probe(path(1)));
        assert_eq!(paths.check(seconds(117), sent, received), PathCheck::Reconnect);
        assert_eq!(paths.check(seconds(118), sent, received), PathCheck::Healthy);
        assert_eq!(paths.check(seconds(140), Some(seconds(120)), Some(seconds(121))), PathCheck::Healthy, "idle");
    }

    #[test]
    fn an_answer_asks_for_none() {
        let mut paths = Paths::default();
        paths.established(seconds(1), path(1));
        let just_after = seconds(10) + Duration::from_micros(50);
        paths.answered(just_after);
        for second in 11..60 {
            assert_eq!(paths.check(seconds(second), Some(just_after), Some(seconds(10))), PathCheck::Healthy);
        }
        let sent = Some(seconds(60));
        assert_eq!(paths.check(seconds(60), sent, Some(seconds(10))), PathCheck::Healthy);
        assert_eq!(paths.check(seconds(62), sent, Some(seconds(10))), PathCheck::Probe(path(1)), "data after it does");
    }

    #[test]
    fn a_busy_path_that_answers_is_healthy() {
        let mut paths = Paths::default();
        paths.established(seconds(1), path(1));
        for second in 2..60 {
            let received = Some(seconds(second) - Duration::from_millis(2));
            assert_eq!(paths.check(seconds(second), Some(seconds(second)), received), PathCheck::Healthy);
        }
    }

    #[test]
    fn the_other_end_of_a_path_is_the_hosts_own_and_counts_as_much() {
        let by = |socket| Path { local: Some(LocalEnd { socket, address: None }), ..path(1) };
        let mut paths = Paths::default();
        paths.established(seconds(1), by(0));
        assert_eq!(paths.heard_from(seconds(2), by(0)), None);
        assert_eq!(paths.heard_from(seconds(2), by(1)), Some(by(1)), "the same endpoint spoke to another socket");
        assert_eq!((paths.path(), paths.path_to(path(1).remote)), (Some(by(0)), by(1)));
        paths.probe_sent(seconds(2), ProbeId(1), by(1));
        paths.handle_pong(seconds(2) + Duration::from_millis(9), ProbeId(1));
        assert_eq!(paths.path(), Some(by(1)));
        paths.forget_local_ends();
        assert_eq!((paths.path(), paths.path_to(path(1).remote)), (Some(path(1)), path(1)));
        assert_eq!(paths.path_to(path(2).remote), path(2), "never heard from there");
    }
}
