//! The choice of one peer's path: a direct one before any through a relay, by UDP before any over TLS, else the faster one.
//!
//! A path is taken when a pong came over it, or a handshake whose peer can only have read there what it answers; never because a packet
//! claims so: an authenticated packet from another address only makes that address a candidate and earns it a probe. Neither an attacker
//! who copies packets nor a member that makes up sources moves anything.

use super::candidate::{CandidateSource, Candidates};
use super::local::Path;
use super::probe::{ProbeId, Probes};
use super::relayed::RelayedWays;
use super::stream::StreamWay;
use super::watch::{BACKUP_INTERVAL, Verdict, Watch};
use crate::crypto::exchange::TransportKey;
use crate::time::Instant;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The least gain in round-trip time that is worth a switch.
const SWITCH_GAIN: Duration = Duration::from_millis(5);

/// Probes to an address that only a packet named: one a second and session, so that nobody is flooded through us.
const ROAMING_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The same to where the peer speaks over TLS, once the path in use left a probe unanswered: that is no address that only a packet named.
const LEFT_PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// What an answer is taken to need on a path that nobody measured.
const UNMEASURED_RTT: Duration = Duration::from_millis(200);

/// Ways besides the one in use that are asked at a time.
const MAX_BACKUPS: usize = 3;

/// When something last passed between this node and a peer.
#[derive(Clone, Copy, Default, Debug)]
pub struct Traffic {
    /// To it.
    pub sent: Option<Instant>,
    /// From it, and authentic.
    pub received: Option<Instant>,
    /// Either way, of a user's.
    pub used: Option<Instant>,
}

impl Traffic {
    /// Says whether something of a user's passed a moment ago.
    pub fn is_in_use(&self, now: Instant) -> bool {
        self.used.is_some_and(|used| now.saturating_since(used) < BACKUP_INTERVAL)
    }
}

/// What the watch asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PathCheck {
    /// Nothing to do.
    Healthy,
    /// The peer owes an answer: probe these, and see whether what is long comes through.
    Probe(Vec<Path>),
    /// Probe these, which would be taken next.
    Warm(Vec<Path>),
    /// The path seems dead: handshake with every candidate.
    Reconnect,
}

#[derive(Clone, Copy, Debug)]
struct Current {
    path: Path,
    rtt: Option<Duration>,
}

/// What a packet says of the path that it came by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speech {
    /// Its sender uses the path.
    Using,
    /// Its sender tries the path, or answers who does.
    Trying,
}

/// All ways to one peer.
#[derive(Debug, Default)]
pub struct Paths {
    candidates: Candidates,
    relayed: RelayedWays,
    /// The link over TLS to the peer, where there is one.
    stream: Option<StreamWay>,
    probes: Probes,
    current: Option<Current>,
    watch: Watch,
    /// The other path that the peer was last heard on.
    moved_to: Option<Path>,
    /// When such a path was last asked: a direct one, whose end may be made up, and any other, so that neither takes the other's turn.
    asked_at: [Option<Instant>; 2],
}

impl Paths {
    /// The path in use.
    pub fn path(&self) -> Option<Path> {
        self.current.map(|current| current.path)
    }

    /// The peer's endpoint in use, where it is reached by UDP and no relay is between.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.path().filter(Path::is_direct).map(|path| path.remote)
    }

    /// The direct path to an endpoint: by the local end at which the peer was last heard from there, if it was.
    pub fn path_to(&self, endpoint: SocketAddr) -> Path {
        Path { local: self.candidates.local_end(endpoint), ..endpoint.into() }
    }

    /// Adds a way through a relay, if there is room beside those that work.
    pub fn add_relayed(&mut self, relay: TransportKey, path: Path) {
        self.relayed.add(relay, path, self.path());
    }

    /// The link over TLS to the peer, where there is one.
    pub fn stream(&self) -> Option<Path> {
        self.stream.map(|way| way.path)
    }

    /// Takes a link over TLS that leads to the peer, as this node ordered it or the peer proved: it takes the place of the one before.
    pub fn set_stream(&mut self, path: Path) {
        if self.stream() != Some(path) {
            self.stream = Some(path.into());
        }
    }

    /// Drops a link over TLS that ended; if it is in use, another way takes its place. Returns whether it was known.
    pub fn lose_stream(&mut self, path: &Path) -> bool {
        let is_known = self.stream.take_if(|way| way.path == *path).is_some() || self.path() == Some(*path);
        self.leave(path);
        is_known
    }

    /// Whose relay a path leads through.
    pub fn relay_of(&self, path: &Path) -> Option<TransportKey> {
        self.relayed.relay_of(path)
    }

    /// The ways through relays, with their relays.
    pub fn relayed(&self) -> impl Iterator<Item = (TransportKey, Path)> {
        self.relayed.iter()
    }

    /// Drops ways through relays that are none any more; if one of them is in use, another takes its place. Returns whether there were any.
    pub fn lose_relayed(&mut self, is_gone: impl Fn(&TransportKey, &Path) -> bool) -> bool {
        let gone: Vec<_> = self.relayed.iter().filter(|(relay, path)| is_gone(relay, path)).collect();
        let are_any = self.relayed.remove(is_gone);
        gone.iter().for_each(|(_, path)| self.leave(path));
        are_any
    }

    /// A relay may have started anew: whether its labels still lead to the peer is to be asked.
    pub fn doubt_relay(&mut self, relay: &TransportKey) {
        self.relayed.doubt(relay);
    }

    /// Drops the ways through relays that are not in use and by which the peer answers no more. Returns them with their relays.
    pub fn drop_silent(&mut self, now: Instant) -> Vec<(TransportKey, Path)> {
        let used = self.path();
        self.relayed.drop_silent(now, used)
    }

    /// Says whether a relay's way is in use, and no other relay's is known.
    pub fn hangs_on_one_relay(&self) -> bool {
        let used = self.path().and_then(|path| self.relay_of(&path));
        used.is_some_and(|used| self.relayed().all(|(relay, _)| relay == used))
    }

    /// Says whether ways through a relay led nowhere again and again of late.
    pub fn is_shunned(&self, now: Instant, relay: &TransportKey) -> bool {
        self.relayed.is_shunned(now, relay)
    }

    /// Takes where a relay is reached now.
    pub fn relay_moved(&mut self, relay: &TransportKey, to: Path) {
        if let Some(current) = &mut self.current
            && self.relayed.relay_of(&current.path) == Some(*relay)
        {
            current.path = Path { label: current.path.label, ..to };
        }
        self.relayed.relay_moved(relay, to);
    }

    /// Uses another way than this one, if it was in use: through another relay by which the peer answered, by a link over TLS, or none.
    fn leave(&mut self, path: &Path) {
        if self.path() == Some(*path) {
            let stream = self.stream.filter(|way| way.has_answered).map(|way| (way.path, way.rtt));
            self.current = self.relayed.best().or(stream).map(|(path, rtt)| Current { path, rtt });
        }
        self.moved_to = self.moved_to.filter(|moved| moved != path);
    }

    /// Forgets at which local ends the peer was heard: the host may have lost them, or its routes may lead elsewhere.
    pub fn forget_local_ends(&mut self) {
        self.candidates.forget_local_ends();
        let paths = self.current.iter_mut().map(|current| &mut current.path).chain(&mut self.moved_to);
        paths.filter(|path| !path.is_stream()).for_each(|path| path.local = None);
    }

    /// The sockets that come and go which it takes: that of the path in use, and those where the peer answered at other endpoints.
    pub fn spares(&self) -> impl Iterator<Item = u8> {
        let used = self.path();
        let others = self.candidates.proved_endpoints().into_iter().map(|endpoint| self.path_to(endpoint));
        let others = others.filter(move |path| used.is_none_or(|used| used.remote != path.remote));
        used.into_iter().chain(others).filter_map(|path| path.spare())
    }

    /// Says whether anything was heard at such sockets.
    pub fn mentions_spares(&self) -> bool {
        let heard = self.candidates.ranked().into_iter().map(|endpoint| self.path_to(endpoint));
        self.path().into_iter().chain(self.moved_to).chain(heard).any(|path| path.spare().is_some())
    }

    /// Forgets those that are closed.
    pub fn forget_spares(&mut self, closed: &BTreeSet<u8>) {
        let is_closed = |path: &Path| path.spare().is_some_and(|spare| closed.contains(&spare));
        self.moved_to = self.moved_to.filter(|path| !is_closed(path));
        if let Some(current) = self.current.as_mut().filter(|current| is_closed(&current.path)) {
            current.path.local = None;
        }
        let used = self.path();
        self.candidates.replace_local_ends(|endpoint, local| {
            let path = Path { local: Some(local), ..endpoint.into() };
            let used = used.filter(|used| used.remote == endpoint && !used.is_relayed());
            if is_closed(&path) { used.and_then(|used| used.local) } else { Some(local) }
        });
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

    /// A handshake was completed with a peer that reads at the end of `path`: it is in use from now on, but for a relay's beside a direct one.
    pub fn established(&mut self, now: Instant, path: Path) {
        self.note(now, path);
        self.prove(path, None);
        // A handshake through a relay says nothing against a direct path that answers.
        if self.is_worse(path) && self.watch.owed_since().is_none() {
            self.moved_to = Some(path);
            return;
        }
        self.watch.forgive();
        self.moved_to = None;
        if self.path() != Some(path) {
            self.current = Some(Current { path, rtt: None });
        }
    }

    /// Says whether a path leads through a relay while the one in use does not, or over TLS while that does not.
    fn is_worse(&self, path: Path) -> bool {
        self.current.is_some_and(|current| path.class() > current.path.class())
    }

    /// Something authenticated came by `path`, which says so much of it. Returns it when it deserves a probe: it is not the one in use, and no
    /// path of its kind of this peer's was asked within a second, whichever it was: a member that makes up sources floods nobody through us.
    pub fn heard_from(&mut self, now: Instant, path: Path, speech: Speech) -> Option<Path> {
        self.note(now, path);
        if self.path() == Some(path) {
            // Who only tries it uses another one, because this one fails it.
            if speech == Speech::Using {
                self.moved_to = None;
                self.watch.heard_here(now);
            }
            return None;
        }
        // A label counts only from where it was given to: who speaks by one is no copy from somewhere.
        self.watch.heard_elsewhere(now, path.is_relayed() || self.is_proved(path));
        // The peer may use a relay a moment longer than this node; that it speaks there is no reason to follow.
        if self.is_worse(path) && self.watch.owed_since().is_none() {
            // Over TLS comes only whom UDP failed: whether this end's does is soon known.
            let in_use = self.path().filter(|_| path.is_stream())?;
            if !self.take_turn(now, path, ROAMING_PROBE_INTERVAL) {
                return None;
            }
            self.watch.owe(now);
            return Some(in_use);
        }
        // Two ends that probe back what only tries, for ever, would never fall silent; once is enough, unless it is a better way.
        let is_upgrade = self.path().is_some_and(|used| path.class() < used.class());
        if speech == Speech::Trying && self.is_proved(path) && !is_upgrade {
            return None;
        }
        if speech == Speech::Using {
            self.moved_to = Some(path);
        }
        let usual = self.rtt().unwrap_or(UNMEASURED_RTT);
        let is_left = path.is_stream() && self.is_worse(path) && self.watch.is_silent(now, usual);
        let interval = if is_left { LEFT_PROBE_INTERVAL } else { ROAMING_PROBE_INTERVAL };
        self.take_turn(now, path, interval).then_some(path)
    }

    /// Says whether a path on which the peer was heard elsewhere may be asked, one of its kind in so long, and notes that it is.
    fn take_turn(&mut self, now: Instant, path: Path, interval: Duration) -> bool {
        let asked_at = &mut self.asked_at[usize::from(path.is_direct())];
        let may = asked_at.is_none_or(|at| now.saturating_since(at) >= interval);
        if may {
            *asked_at = Some(now);
        }
        may
    }

    /// Notes a probe with `id` that leaves by `path` now.
    pub fn probe_sent(&mut self, now: Instant, id: ProbeId, path: Path) {
        if self.path() == Some(path) {
            self.watch.asked(now);
        }
        self.relayed.asked(now, &path);
        self.probes.sent(now, id, path);
    }

    /// Notes an answer that leaves now, a pong or a confirmation: two ends that answered answers would never fall silent.
    pub fn answered(&mut self, now: Instant) {
        self.watch.answered(now);
    }

    /// A pong for `id` came. Returns the round trip when the probe was ours and in time. Its path is in use from now on when the
    /// peer itself speaks there, when the one in use owes an answer, or when that is slower by 5 ms and 10 %: among direct
    /// ones, or among those through relays. A direct one always takes the place of a relay's.
    pub fn handle_pong(&mut self, now: Instant, id: ProbeId) -> Option<Duration> {
        let (path, rtt) = self.probes.answered(now, id)?;
        self.note(now, path);
        self.prove(path, Some(rtt));
        let moved = self.moved_to == Some(path);
        let usual = self.rtt().unwrap_or(rtt);
        let silent = self.watch.is_silent(now, usual);
        let before = self.path();
        if before != Some(path) {
            self.watch.heard_elsewhere(now, true);
        }
        match &mut self.current {
            Some(current) if current.path == path => {
                current.rtt = Some(rtt);
                self.watch.heard_here(now);
            }
            Some(current) => {
                let is_same_kind = current.path.class() == path.class();
                let faster = current.rtt.is_some_and(|used| rtt + SWITCH_GAIN.max(used / 10) <= used);
                let is_upgrade = path.class() < current.path.class();
                if silent || is_upgrade || is_same_kind && (moved || faster) {
                    *current = Current { path, rtt: Some(rtt) };
                    self.moved_to = None;
                }
            }
            None => {
                self.current = Some(Current { path, rtt: Some(rtt) });
                self.moved_to = None;
            }
        }
        if self.path() != before {
            self.watch.moved();
        }
        Some(rtt)
    }

    /// Judges the path in use by the times of the last packet sent to and received from the peer, and of the last one of a user's. After an
    /// answer nothing is owed: what was sent before it was answered by what it answers.
    pub fn check(&mut self, now: Instant, traffic: Traffic) -> PathCheck {
        let (Some(current), Some(sent)) = (self.current, traffic.sent) else { return PathCheck::Healthy };
        match self.watch.check(now, current.rtt, sent, traffic.received) {
            Verdict::Healthy => {
                let doubtful = self.relayed.doubtful(now, self.path());
                match traffic.is_in_use(now) && self.watch.take_warm_turn(now, !doubtful.is_empty()) {
                    true if doubtful.is_empty() => PathCheck::Warm(self.backups().collect()),
                    true => PathCheck::Warm(doubtful),
                    false => PathCheck::Healthy,
                }
            }
            Verdict::Ask => {
                // What nobody uses has the time to ask the others only where this one leaves the question unanswered.
                let is_urgent = traffic.is_in_use(now) || self.is_silent(now);
                let others = if is_urgent { self.backups().collect() } else { Vec::new() };
                PathCheck::Probe(std::iter::once(current.path).chain(others).collect())
            }
            Verdict::Reconnect => PathCheck::Reconnect,
        }
    }

    /// The ways that would be taken next, the best first: where the peer answered before, then through relays.
    fn backups(&self) -> impl Iterator<Item = Path> {
        let used = self.path();
        let is_other = move |path: &Path| Some(*path) != used;
        let direct = self.candidates.proved_endpoints().into_iter().map(|endpoint| self.path_to(endpoint));
        // One place is a relay's: where the peer was before, it may not be any more.
        let direct = direct.filter(is_other).take(MAX_BACKUPS - 1);
        let relayed = self.relayed.iter().map(|(_, path)| path).filter(is_other);
        let others = direct.chain(relayed).take(MAX_BACKUPS).collect::<Vec<_>>().into_iter();
        others.chain(self.stream().filter(|path| Some(*path) != used))
    }

    /// Takes the news that the path in use is to be asked: the peer owes an answer, whatever it got before.
    pub fn owe(&mut self, now: Instant) {
        self.watch.owe(now);
    }

    /// Says whether the path in use left a probe unanswered for longer than its answer usually takes.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.watch.is_silent(now, self.rtt().unwrap_or(UNMEASURED_RTT))
    }

    /// Since when the peer owes an answer on the path in use.
    pub fn owed_since(&self) -> Option<Instant> {
        self.watch.owed_since()
    }

    /// Forgets the path in use, not the candidates: after a suspend or when the peer said goodbye.
    pub fn forget_current(&mut self) {
        self.current = None;
    }

    fn note(&mut self, now: Instant, path: Path) {
        // A link that something came by may be gone already, or lead to whoever repeats what it saw.
        if !path.is_direct() {
            return;
        }
        // Refused endpoints (a full set, a forbidden place) stay usable as the way back to who spoke from there.
        let _ = self.candidates.add(path.remote, CandidateSource::Observed, |_: IpAddr| false);
        self.candidates.heard(now, path);
    }

    fn is_proved(&self, path: Path) -> bool {
        match (path.is_relayed(), path.is_stream()) {
            (true, _) => self.relayed.has_answered(&path),
            (false, true) => self.stream.is_some_and(|way| way.path == path && way.has_answered),
            (false, false) => self.candidates.proved_endpoints().contains(&path.remote),
        }
    }

    fn prove(&mut self, path: Path, rtt: Option<Duration>) {
        if path.is_relayed() {
            self.relayed.answered(&path, rtt);
        } else if path.is_stream() {
            self.set_stream(path);
            for way in self.stream.iter_mut().filter(|way| way.path == path) {
                way.has_answered = true;
                way.rtt = rtt.or(way.rtt);
            }
        } else {
            self.candidates.proved(path.remote);
        }
    }
}

#[cfg(test)]
mod tests;
