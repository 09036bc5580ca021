//! TLS where UDP does not pass: when this node wants a link to a relay, and when it wants it no more.
//!
//! ```text
//!   a relay with a TLS port is silent by UDP ── 300 ms ──► open ──► handshake or probe over the link ──► in use
//!            │ at once, if UDP failed on this network within an hour                  │ failed: later
//!            └ after 3 s where somebody beyond the own site is heard by UDP meanwhile ▼
//!   in use: the relay is asked by UDP every minute ── an answer ──► UDP in use ── 10 s ──► closed
//! ```
//! Owns the decisions. The shell opens, closes and listens; what goes over a link, and whether it is the path in use, is the business of
//! [`super::peers`] as for every other path. On a relay itself it says where to listen.

use super::peer::Backoff;
use super::peers::Silence;
use super::{Node, NodeEvent};
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::path::Path;
use crate::policy::Policy;
use crate::time::{Instant, Now, UnixMillis};
use rand_core::CryptoRng;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// How long a relay may leave handshakes by UDP unanswered before TLS is tried: longer than the round trip to almost everywhere.
const PATIENCE: Duration = Duration::from_millis(300);

/// How long it is remembered that UDP failed on this network.
const MEMORY: Duration = Duration::from_hours(1);

/// How long a relay may be silent where others are heard by UDP: it may be the one whose UDP is blocked, or they may be on this side of
/// what blocks it.
const INSISTENCE: Duration = Duration::from_secs(3);

/// Whoever was heard by UDP within that time, and owes nothing, shows that UDP passes: peers with a session speak every 25 seconds.
const LATELY: Duration = Duration::from_secs(30);

/// How long a link has to be in use to count as one that works.
const PROVED: Duration = Duration::from_secs(30);

/// Links of this node to relays at a time.
const MAX_STREAMS: usize = 2;

/// How often a relay that is reached by TLS is asked by UDP.
const UDP_INTERVAL: Duration = Duration::from_mins(1);

/// How long a link that is not in use stays.
const UNUSED: Duration = Duration::from_secs(10);

/// How long a relay may owe an answer on a link: the other end may be gone, and TCP would not notice for minutes.
const DEAD: Duration = Duration::from_secs(3);

/// How often links are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a relay that there is no reason to open a link to is not looked at again.
const NO_REASON: Duration = Duration::from_secs(2);

/// Where and when UDP was seen to fail: what an earlier run found where the host is still.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UdpFailure {
    /// When that was last so.
    pub at: UnixMillis,
    /// The host's endpoints then.
    pub endpoints: Vec<SocketAddr>,
}

/// A relay that listens by TLS, as the ledger says.
#[derive(Clone, Debug)]
struct Relay {
    id: NodeId,
    key: TransportKey,
    node_key: VerifyingKey,
    endpoints: Vec<SocketAddr>,
}

/// What there is of a link.
#[derive(Clone, Copy, Debug)]
enum Stream {
    /// The shell was asked for it.
    Opening,
    /// It is there.
    Open {
        path: Path,
        /// Since when it is the path in use, or is not.
        standing: Standing,
        /// When the relay is asked by UDP next.
        ask_at: Instant,
    },
}

/// Whether a link is the path in use, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Used(Instant),
    Unused(Instant),
}

impl Standing {
    /// What it is now that it is used or not.
    fn after(self, now: Instant, is_used: bool) -> Self {
        match (self, is_used) {
            (Self::Used(_), true) | (Self::Unused(_), false) => self,
            (Self::Unused(_), true) => Self::Used(now),
            (Self::Used(_), false) => Self::Unused(now),
        }
    }

    /// Says whether it has been in use for so long that the link works.
    fn is_proved(self, now: Instant) -> bool {
        matches!(self, Self::Used(since) if now.saturating_since(since) >= PROVED)
    }
}

/// Links wanted and had.
#[derive(Default)]
pub(super) struct Fallback {
    relays: Vec<Relay>,
    streams: BTreeMap<TransportKey, Stream>,
    /// Waits after links that came to nothing.
    waits: BTreeMap<TransportKey, Backoff>,
    /// Since when those were silent because of whom others were asked whether UDP reaches them, and when that was.
    others_asked: BTreeMap<TransportKey, (Instant, Instant)>,
    /// Until then there was no reason to open one.
    quiet_until: BTreeMap<TransportKey, Instant>,
    /// When UDP was last seen to fail on this network.
    udp_failed_at: Option<Instant>,
    /// What an earlier run knew of that.
    remembered: Option<UdpFailure>,
    look_at: Option<Instant>,
    /// Where this node listens itself.
    served: Vec<SocketAddr>,
}

impl Fallback {
    /// Takes which relays there are.
    fn follow(&mut self, own: &NodeId, policy: &Policy) {
        let relays = policy.members().filter(|member| member.id != *own).filter_map(|member| {
            let terms = member.relay.as_ref()?;
            let port = terms.tls_port()?;
            let at = |endpoint: &SocketAddr| SocketAddr::new(endpoint.ip(), port);
            let mut endpoints: Vec<_> = terms.endpoints().as_slice().iter().map(at).collect();
            endpoints.dedup();
            Some(Relay { id: member.id, key: member.transport_key, node_key: member.node_key, endpoints })
        });
        self.relays = relays.collect();
        let relays = &self.relays;
        let is_relay = |key: &TransportKey| relays.iter().any(|relay| relay.key == *key);
        self.waits.retain(|key, _| is_relay(key));
        self.quiet_until.retain(|key, _| is_relay(key));
        self.others_asked.retain(|key, _| is_relay(key));
    }

    fn has_failed(&self, now: Instant) -> bool {
        self.udp_failed_at.is_some_and(|at| now.saturating_since(at) < MEMORY)
    }

    /// Says whether what this node reaches, it reaches by TLS.
    pub(super) fn is_in_use(&self) -> bool {
        self.streams.values().any(|stream| matches!(stream, Stream::Open { standing: Standing::Used(_), .. }))
    }

    /// A link is in use. Whether UDP fails on this network is what others say of it, not one relay. Returns whether that is news.
    fn note_use(&mut self, now: Instant, is_udp_heard: bool) -> bool {
        let had_failed = self.has_failed(now);
        if is_udp_heard {
            self.forget_failure();
        } else {
            self.udp_failed_at = Some(now);
        }
        had_failed == is_udp_heard
    }

    fn forget_failure(&mut self) {
        self.udp_failed_at = None;
        self.remembered = None;
    }

    /// The host is where it is now: what was learnt elsewhere says nothing here, but for what was learnt here.
    fn arrive(&mut self, now: Now, endpoints: &[SocketAddr]) {
        let age = |failure: &UdpFailure| now.wall.saturating_since(failure.at);
        let is_here = |failure: &&UdpFailure| failure.endpoints == endpoints;
        // Since a start of the machine later than that the clock does not reach so far back.
        let is_of_now = |it: &&UdpFailure| it.at <= now.wall && Instant::ZERO + age(it) <= now.instant;
        let here = self.remembered.as_ref().filter(is_here).filter(is_of_now).filter(|it| age(it) < MEMORY);
        self.udp_failed_at = here.map(|failure| now.instant - age(failure));
    }

    /// A link ended. One that worked for long is missed at once; one that did not is no better a moment later.
    fn note_end(&mut self, now: Instant, key: TransportKey, standing: Standing) {
        if !standing.is_proved(now) {
            self.waits.entry(key).or_default().fail(now);
        }
    }

    /// Until when it is of no use to look at a relay again that a link is not opened to now, for all that it has been silent since then.
    fn quiet_until(now: Instant, since: Instant) -> Instant {
        let (usual, insistence) = (now + NO_REASON, since + INSISTENCE);
        if insistence > now { usual.min(insistence) } else { usual }
    }

    /// Since when a relay is silent, and how long it may be.
    fn patience(&self, silence: Silence) -> (Instant, Duration) {
        match silence {
            Silence::Handshake(since) if self.udp_failed_at.is_some_and(|at| since.saturating_since(at) < MEMORY) => {
                (since, Duration::ZERO)
            }
            Silence::Handshake(since) => (since, PATIENCE),
            Silence::Session(since, rtt) => (since, PATIENCE.max(3 * rtt)),
            Silence::Behind => (Instant::ZERO, Duration::ZERO),
        }
    }

    /// When something is to be done about it: the others are asked at half its time, so that they answer within it.
    fn due_at(&self, relay: &TransportKey, silence: Silence) -> Instant {
        let (since, patience) = self.patience(silence);
        let asked = self.others_asked.get(relay).filter(|(because, _)| *because == since);
        asked.map_or(since + patience / 2, |(_, at)| (since + patience).max(*at + patience / 2))
    }
}

impl<R: CryptoRng> Node<R> {
    /// Follows what the ledger says of relays: where to find them, and whether this node is one.
    pub(super) fn follow_stream_relays(&mut self, now: Now) {
        self.fallback.follow(&self.own_id, &self.policy);
        let gone: Vec<_> = self
            .fallback
            .streams
            .keys()
            .filter(|key| self.fallback.relays.iter().all(|it| it.key != **key))
            .copied()
            .collect();
        for key in gone {
            self.close_stream(&key);
        }
        self.judge_udp(now);
        self.serve_streams();
    }

    /// Says where this node listens by TLS, if that changed.
    pub(super) fn serve_streams(&mut self) {
        let terms = self.policy.member(&self.own_id).and_then(|member| member.relay.as_ref());
        let port = terms.and_then(|terms| terms.tls_port()).filter(|_| self.relaying.is_on());
        let has = |is_v4: bool| {
            terms.is_some_and(|terms| terms.endpoints().as_slice().iter().any(|endpoint| endpoint.is_ipv4() == is_v4))
        };
        let families = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
        let here =
            |port: u16| families.into_iter().filter(|it| has(it.is_ipv4())).map(move |it| SocketAddr::new(it, port));
        let served: Vec<_> = port.into_iter().flat_map(here).collect();
        if served != self.fallback.served {
            self.fallback.served.clone_from(&served);
            self.tell(NodeEvent::ServeStreams(served));
        }
    }

    /// A link to a relay is there, as this node asked for it.
    pub fn handle_stream_up(&mut self, now: Now, relay: NodeId, path: Path) {
        self.notice(now);
        let key = self.fallback.relays.iter().find(|it| it.id == relay).map(|it| it.key);
        let Some(key) = key.filter(|key| matches!(self.fallback.streams.get(key), Some(Stream::Opening))) else {
            self.tell(NodeEvent::CloseStream(path));
            return;
        };
        let (standing, ask_at) = (Standing::Unused(now.instant), now.instant + UDP_INTERVAL);
        self.fallback.streams.insert(key, Stream::Open { path, standing, ask_at });
        self.fallback.look_at = Some(now.instant + LOOK_INTERVAL);
        let (peers, mut ctx) = self.peers_and_context(now);
        peers.stream_up(&mut ctx, key, path);
        self.settle(now);
    }

    /// The shell could not open a link to a relay.
    pub fn handle_stream_failed(&mut self, now: Now, relay: NodeId) {
        self.notice(now);
        let key = self.fallback.relays.iter().find(|it| it.id == relay).map(|it| it.key);
        if let Some(key) = key.filter(|key| matches!(self.fallback.streams.get(key), Some(Stream::Opening))) {
            self.fallback.streams.remove(&key);
            self.fallback.waits.entry(key).or_default().fail(now.instant);
        }
        self.settle(now);
    }

    /// A link ended, whoever began it.
    pub fn handle_stream_down(&mut self, now: Now, path: Path) {
        self.notice(now);
        let is_it = |stream: &Stream| matches!(stream, Stream::Open { path: open, .. } if *open == path);
        let key = self.fallback.streams.iter().find(|(_, stream)| is_it(stream)).map(|(key, _)| *key);
        if let Some(key) = key
            && let Some(Stream::Open { standing, .. }) = self.fallback.streams.remove(&key)
        {
            self.fallback.note_end(now.instant, key, standing);
        }
        self.peers.stream_down(path);
        self.judge_udp(now);
        self.settle(now);
    }

    fn close_stream(&mut self, key: &TransportKey) {
        if let Some(Stream::Open { path, .. }) = self.fallback.streams.remove(key) {
            self.peers.stream_down(path);
            self.tell(NodeEvent::CloseStream(path));
        }
    }

    /// The host is elsewhere: what was learnt of UDP says nothing there.
    pub(super) fn forget_udp_failure(&mut self, now: Now) {
        self.fallback.arrive(now, self.reach.local());
        self.peers.set_udp_silent(false);
        self.fallback.waits.clear();
        self.fallback.quiet_until.clear();
        for stream in self.fallback.streams.values_mut() {
            if let Stream::Open { ask_at, .. } = stream {
                *ask_at = now.instant;
            }
        }
        if !self.fallback.streams.is_empty() {
            self.fallback.look_at = Some(now.instant);
        }
    }

    /// Where UDP fails, to be stored for the next run.
    pub fn udp_failure(&self, now: Now) -> Option<UdpFailure> {
        let age = now.instant.saturating_since(self.fallback.udp_failed_at?);
        let at = UnixMillis(now.wall.0.saturating_sub(u64::try_from(age.as_millis()).ok()?));
        (age < MEMORY).then(|| UdpFailure { at, endpoints: self.reach.local().to_vec() })
    }

    /// Takes where UDP failed in an earlier run, before the host says where it is.
    pub fn remember_udp_failure(&mut self, failure: Option<UdpFailure>) {
        self.fallback.remembered = failure;
    }

    /// Whatever kept links from being opened may be gone: the user says so.
    pub fn retry_streams(&mut self) {
        self.fallback.waits.clear();
        self.fallback.quiet_until.clear();
    }

    /// Opens links that are missed, and closes those that are not.
    pub(super) fn tend_streams(&mut self, now: Now) {
        for relay in self.missed(now.instant) {
            let Some(silence) = self.peers.silence(&relay.key) else { continue };
            let is_full = self.fallback.streams.len() >= MAX_STREAMS;
            let (since, patience) = self.fallback.patience(silence);
            // Half of it is left for their answers.
            if self.fallback.others_asked.get(&relay.key).is_none_or(|(because, _)| *because != since) {
                self.fallback.others_asked.insert(relay.key, (since, now.instant));
                if !patience.is_zero() {
                    let (peers, mut ctx) = self.peers_and_context(now);
                    peers.ask_far_by_udp(&mut ctx);
                }
            }
            if now.instant < self.fallback.due_at(&relay.key, silence) {
                continue;
            }
            let is_udp_there = match silence {
                Silence::Behind => !self.fallback.has_failed(now.instant),
                Silence::Handshake(_) | Silence::Session(..) => {
                    now.instant < since + INSISTENCE && self.peers.is_udp_heard(now.instant, since)
                }
            };
            if is_full || is_udp_there {
                let until = Fallback::quiet_until(now.instant, since);
                self.fallback.quiet_until.insert(relay.key, until);
                continue;
            }
            self.fallback.streams.insert(relay.key, Stream::Opening);
            let Relay { id, node_key, endpoints, .. } = relay;
            self.tell(NodeEvent::OpenStream { relay: id, key: node_key, endpoints });
        }
        if self.fallback.look_at.take_if(|at| now.instant >= *at).is_some() {
            let open: Vec<_> = self.fallback.streams.keys().copied().collect();
            open.iter().for_each(|key| self.look_at_stream(now, *key));
            let is_any = !self.fallback.streams.is_empty();
            self.fallback.look_at = is_any.then(|| now.instant + LOOK_INTERVAL);
        }
    }

    /// The relays that have been silent for so long that something is to be done, and that a link may be opened to.
    fn missed(&self, now: Instant) -> Vec<Relay> {
        let fallback = &self.fallback;
        let is_missed = |relay: &&Relay| {
            !fallback.streams.contains_key(&relay.key)
                && fallback.waits.get(&relay.key).is_none_or(|wait| wait.is_over(now))
                && fallback.quiet_until.get(&relay.key).is_none_or(|until| now >= *until)
                && self.peers.silence(&relay.key).is_some_and(|silence| now >= fallback.due_at(&relay.key, silence))
        };
        fallback.relays.iter().filter(is_missed).cloned().collect()
    }

    /// Looks at the link to a relay, if there is one: whether it is in use, still or at last, and alive.
    pub(super) fn look_at_stream(&mut self, now: Now, key: TransportKey) {
        let Some(Stream::Open { path, standing, ask_at }) = self.fallback.streams.get(&key).copied() else { return };
        let peer = self.peers.peer(&key);
        let used = peer.filter(|peer| peer.is_usable()).and_then(|peer| peer.paths.path());
        let owed_since = peer.and_then(|peer| peer.paths.owed_since());
        let is_used = used == Some(path);
        if is_used && matches!(standing, Standing::Unused(_)) {
            tracing::info!(?key, "UDP does not pass to a relay: it is reached by TLS");
        }
        let standing = standing.after(now.instant, is_used);
        let is_dead = is_used && owed_since.is_some_and(|since| now.instant.saturating_since(since) >= DEAD);
        let is_unused = matches!(standing, Standing::Unused(since) if now.instant.saturating_since(since) >= UNUSED);
        if is_dead || is_unused {
            // Whatever was there instead: what made this node open it may come again in a moment.
            self.fallback.waits.entry(key).or_default().fail(now.instant);
            self.close_stream(&key);
            self.judge_udp(now);
            return;
        }
        let is_due = is_used && now.instant >= ask_at;
        let ask_at = if is_due { now.instant + UDP_INTERVAL } else { ask_at };
        self.fallback.streams.insert(key, Stream::Open { path, standing, ask_at });
        if is_used {
            let is_udp_heard = self.peers.is_udp_heard(now.instant, now.instant - LATELY);
            if self.fallback.note_use(now.instant, is_udp_heard) {
                self.tell(NodeEvent::Remember);
            }
            if standing.is_proved(now.instant) {
                self.fallback.waits.remove(&key);
            }
        } else if used.is_some_and(|used| used.is_direct()) {
            self.fallback.forget_failure();
        }
        self.judge_udp(now);
        if is_due {
            let (peers, mut ctx) = self.peers_and_context(now);
            peers.ask_by_udp(&mut ctx, key);
        }
    }

    /// Tells the peers whether anybody is reached by UDP from here.
    fn judge_udp(&mut self, now: Now) {
        let is_silent = self.fallback.has_failed(now.instant) && self.fallback.is_in_use();
        self.peers.set_udp_silent(is_silent);
    }

    /// When something of it is due.
    pub(super) fn stream_timeout(&self) -> Option<Instant> {
        let fallback = &self.fallback;
        let missed =
            fallback.relays.iter().filter(|relay| !fallback.streams.contains_key(&relay.key)).filter_map(|relay| {
                let due = fallback.due_at(&relay.key, self.peers.silence(&relay.key)?);
                let wait = fallback.waits.get(&relay.key).map(Backoff::over_at);
                let quiet = fallback.quiet_until.get(&relay.key).copied();
                [Some(due), wait, quiet].into_iter().flatten().max()
            });
        missed.chain(fallback.look_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: TransportKey = TransportKey([1; 32]);

    fn seconds(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn udp_is_taken_to_fail_only_where_nobody_is_heard_by_it() {
        let mut fallback = Fallback::default();
        fallback.note_use(seconds(10), true);
        assert!(!fallback.has_failed(seconds(10)));
        fallback.note_use(seconds(20), false);
        assert!(fallback.has_failed(seconds(20)));
        fallback.note_use(seconds(30), true);
        assert!(!fallback.has_failed(seconds(30)));
    }

    #[test]
    fn what_an_earlier_run_found_holds_for_an_hour_and_where_it_found_it() {
        let at = |minutes: u64| Now {
            instant: seconds(minutes * 60),
            wall: UnixMillis(1_800_000_000_000 + minutes * 60_000),
        };
        let [here, there] = [1, 2].map(|host| vec![SocketAddr::from(([192, 0, 2, host], 4647))]);
        let failure = UdpFailure { at: at(100).wall, endpoints: here.clone() };
        let arrived = |minutes, endpoints: &[SocketAddr]| {
            let mut fallback = Fallback { remembered: Some(failure.clone()), ..Fallback::default() };
            fallback.arrive(at(minutes), endpoints);
            fallback.has_failed(at(minutes).instant)
        };
        assert!(arrived(100, &here) && arrived(159, &here));
        assert!(!arrived(160, &here) && !arrived(99, &here) && !arrived(110, &there));
        let mut fallback = Fallback { udp_failed_at: Some(seconds(6000)), ..Fallback::default() };
        fallback.arrive(at(101), &there);
        assert!(!fallback.has_failed(at(101).instant), "elsewhere");
        fallback.remembered = Some(failure);
        fallback.note_use(at(102).instant, true);
        fallback.arrive(at(103), &here);
        assert!(!fallback.has_failed(at(103).instant), "UDP passed meanwhile");
    }

    #[test]
    fn a_link_that_was_in_use_for_a_moment_is_none_that_works() {
        let mut fallback = Fallback::default();
        let used = Standing::Unused(seconds(1)).after(seconds(2), true);
        assert_eq!(used.after(seconds(9), true), Standing::Used(seconds(2)));
        assert_eq!(used.after(seconds(9), false), Standing::Unused(seconds(9)));
        fallback.note_end(seconds(32), RELAY, used);
        assert!(fallback.waits.is_empty(), "it worked for 30 s");
        for wait in [1, 2, 4] {
            fallback.note_end(seconds(31), RELAY, used);
            assert_eq!(fallback.waits[&RELAY].over_at(), seconds(31 + wait));
        }
    }

    #[test]
    fn a_relay_is_looked_at_when_its_silence_is_long_enough_whoever_else_is_heard() {
        let quiet = |now: u64| Fallback::quiet_until(seconds(now), seconds(10));
        assert_eq!([quiet(10), quiet(12), quiet(20)], [seconds(12), seconds(13), seconds(22)]);
    }
}
