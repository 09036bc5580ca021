//! Endpoints where a peer may be: a bounded set that hostile records can neither fill up nor point at forbidden places, and what may be
//! sent to those that nobody proved.

pub use crate::wire::endpoint::is_possible;

use super::allowance::Allowance;
use super::local::{LocalEnd, Path};
use crate::time::Instant;
use crate::wire::prefix::Prefix;
use std::net::{IpAddr, SocketAddr};

/// Candidates kept for one peer. A host has a handful of addresses; more come from a liar.
pub const MAX_CANDIDATES: usize = 16;

/// Candidates that one attempt goes to: 8 × 1.5 kB a flight.
pub const MAX_TARGETS: usize = 8;

/// How a candidate became known, the least trusted first: the first to go when the set is full.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CandidateSource {
    /// The peer's own signed node record.
    Record,
    /// Somebody on a LAN of this host claims to be the peer, there.
    Lan,
    /// The last endpoint of an earlier run, from disk.
    Remembered,
    /// An authenticated packet came from there.
    Observed,
    /// The ledger: where a relay or a validator stays.
    Ledger,
    /// A ticket or the configuration of this node.
    Configured,
}

/// Why an endpoint is no candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CandidateError {
    /// Loopback, unspecified, multicast, broadcast, port 0 or a cloud's metadata service.
    #[error("not an address of a peer on the underlay")]
    Forbidden,
    /// An address inside the overlay: packets would loop.
    #[error("an address inside the overlay")]
    Overlay,
    /// The set holds only better ones.
    #[error("too many candidates")]
    Full,
}

/// What a node knows of its own place, by which it judges the private addresses of others.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Surroundings {
    /// The prefixes that its interfaces are connected to.
    pub connected: Vec<Prefix>,
    /// The public addresses that it is seen at.
    pub public: Vec<IpAddr>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    endpoint: SocketAddr,
    source: CandidateSource,
    /// When something authenticated last came from there.
    heard: Option<Instant>,
    /// The end of this host at which that came.
    local: Option<LocalEnd>,
    /// Whether an answer came to what was sent there: a source address alone proves nothing.
    proved: bool,
    /// Whether anything was sent there.
    is_asked: bool,
    allowance: Allowance,
}

impl Candidate {
    /// Says whether no allowance limits what goes there: the peer answered from there, or this node's own user named it.
    fn is_trusted(&self) -> bool {
        self.proved || self.source == CandidateSource::Configured
    }
}

/// One candidate, for a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CandidateView {
    /// Where.
    pub endpoint: SocketAddr,
    /// What named it.
    pub source: CandidateSource,
    /// Something was sent there.
    pub is_asked: bool,
    /// The peer answered there.
    pub is_proved: bool,
    /// When something last came from there.
    pub heard: Option<Instant>,
}

/// The candidates of one peer, at most [`MAX_CANDIDATES`].
#[derive(Clone, Debug)]
pub struct Candidates {
    held: Vec<Candidate>,
    /// What all unproved ones have together, so that a record which names others every second gains nothing.
    together: Allowance,
}

impl Default for Candidates {
    fn default() -> Self {
        Self { held: Vec::new(), together: Allowance::of(MAX_TARGETS as u32) }
    }
}

impl Candidates {
    /// Adds an endpoint, or raises the trust in a known one. `in_overlay` says whether an address belongs to an overlay prefix.
    ///
    /// # Errors
    /// [`CandidateError`] when the endpoint is refused; the set is then unchanged.
    pub fn add(
        &mut self,
        endpoint: SocketAddr,
        source: CandidateSource,
        in_overlay: impl Fn(IpAddr) -> bool,
    ) -> Result<(), CandidateError> {
        if !is_possible(&endpoint) {
            return Err(CandidateError::Forbidden);
        }
        if in_overlay(endpoint.ip().to_canonical()) {
            return Err(CandidateError::Overlay);
        }
        if let Some(known) = self.find(endpoint) {
            // What a record names stays the record's, whoever else repeats it: nobody on a LAN can take it back.
            let either = [known.source, source];
            let is_of_record = either.contains(&CandidateSource::Record) && either.contains(&CandidateSource::Lan);
            known.source = if is_of_record { CandidateSource::Record } else { known.source.max(source) };
            return Ok(());
        }
        if self.held.len() == MAX_CANDIDATES {
            let worst = self.held.iter().enumerate().min_by_key(|(_, candidate)| (candidate.source, candidate.heard));
            match worst {
                Some((index, candidate)) if candidate.source <= source => drop(self.held.remove(index)),
                _ => return Err(CandidateError::Full),
            }
        }
        self.held.push(Candidate {
            endpoint,
            source,
            heard: None,
            local: None,
            proved: false,
            is_asked: false,
            allowance: Allowance::of(1),
        });
        Ok(())
    }

    /// Notes that something authenticated came by `path`.
    pub fn heard(&mut self, now: Instant, path: Path) {
        if let Some(candidate) = self.find(path.remote) {
            candidate.heard = Some(now);
            candidate.local = path.local;
        }
    }

    /// The end of this host at which something last came from `endpoint`.
    pub fn local_end(&self, endpoint: SocketAddr) -> Option<LocalEnd> {
        self.held.iter().find(|candidate| candidate.endpoint == endpoint)?.local
    }

    /// Forgets all of these.
    pub fn forget_local_ends(&mut self) {
        self.held.iter_mut().for_each(|candidate| candidate.local = None);
    }

    /// Puts others in the place of those, by endpoint.
    pub(super) fn replace_local_ends(&mut self, other: impl Fn(SocketAddr, LocalEnd) -> Option<LocalEnd>) {
        for candidate in &mut self.held {
            candidate.local = candidate.local.and_then(|local| other(candidate.endpoint, local));
        }
    }

    /// Notes that the peer answered what was sent to `endpoint`.
    pub fn proved(&mut self, endpoint: SocketAddr) {
        if let Some(candidate) = self.find(endpoint) {
            candidate.proved = true;
        }
    }

    /// The endpoints that the peer answered from, the most promising first.
    pub fn proved_endpoints(&self) -> Vec<SocketAddr> {
        self.by_promise().into_iter().filter(|candidate| candidate.proved).map(|candidate| candidate.endpoint).collect()
    }

    /// Says whether the peer answered from `endpoint` before, or this node's own user named it.
    pub fn is_trusted(&self, endpoint: SocketAddr) -> bool {
        self.held.iter().any(|candidate| candidate.endpoint == endpoint && candidate.is_trusted())
    }

    /// Chooses where an attempt goes, whose flight has `flight_len` bytes, and takes it off the allowances: at most [`MAX_TARGETS`], the
    /// most promising first. Private addresses elsewhere come into question only when nothing else does, or when that `failed` before.
    pub fn targets(&mut self, now: Instant, around: &Surroundings, failed: bool, flight_len: usize) -> Vec<SocketAddr> {
        self.targets_of(now, around, failed, flight_len, |_| true)
    }

    /// The same where the peer's NAT lets nobody in: only who shares its link comes through, and what users and signers named.
    pub fn near_targets(
        &mut self,
        now: Instant,
        around: &Surroundings,
        failed: bool,
        flight_len: usize,
    ) -> Vec<SocketAddr> {
        let is_meant = |candidate: &Candidate| {
            let is_named = matches!(candidate.source, CandidateSource::Ledger | CandidateSource::Configured);
            is_named || is_private(candidate.endpoint.ip().to_canonical())
        };
        self.targets_of(now, around, failed, flight_len, is_meant)
    }

    fn targets_of(
        &mut self,
        now: Instant,
        around: &Surroundings,
        failed: bool,
        flight_len: usize,
        is_meant: impl Fn(&Candidate) -> bool,
    ) -> Vec<SocketAddr> {
        // Behind the same public address, its private addresses may be ours.
        let is_near = self.held.iter().any(|candidate| around.public.contains(&candidate.endpoint.ip().to_canonical()));
        let is_far = |candidate: &Candidate| !candidate.is_trusted() && !is_near && is_elsewhere(candidate, around);
        let meant = self.by_promise().into_iter().filter(is_meant);
        let (far, near): (Vec<_>, Vec<_>) = meant.partition(is_far);
        let mut targets = self.affordable(now, &near, flight_len);
        if targets.is_empty() || failed {
            let more = self.affordable(now, &far, flight_len);
            targets.extend(more);
        }
        targets.truncate(MAX_TARGETS);
        targets.iter().for_each(|target| self.take_attempt(*target));
        targets
    }

    fn affordable(&mut self, now: Instant, candidates: &[Candidate], flight_len: usize) -> Vec<SocketAddr> {
        let together = self.together.has_attempt(now, flight_len);
        let is_affordable =
            |it: &mut Candidate| it.is_trusted() || together && it.allowance.has_attempt(now, flight_len);
        let endpoints = candidates.iter().map(|candidate| candidate.endpoint);
        endpoints.filter(|endpoint| self.find(*endpoint).is_some_and(is_affordable)).collect()
    }

    fn take_attempt(&mut self, endpoint: SocketAddr) {
        let Some(candidate) = self.find(endpoint).filter(|candidate| !candidate.is_trusted()) else { return };
        candidate.allowance.take_attempt();
        self.together.take_attempt();
    }

    /// Takes `len` bytes for `endpoint` off its allowance. Returns whether they may be sent there.
    pub fn spend(&mut self, now: Instant, endpoint: SocketAddr, len: usize) -> bool {
        let together = self.together.has_bytes(now, len);
        // A place that the set had no room for has the common allowance alone.
        if let Some(candidate) = self.find(endpoint) {
            candidate.is_asked = true;
            if candidate.is_trusted() {
                return true;
            }
            if !together || !candidate.allowance.has_bytes(now, len) {
                return false;
            }
            candidate.allowance.take_bytes(len);
        }
        self.together.take_bytes(len);
        together
    }

    /// Drops what the peer's earlier node record named and its newest does not.
    pub fn retain_records(&mut self, newest: &[SocketAddr]) {
        self.retain_of(CandidateSource::Record, newest);
    }

    /// Drops where the peer was said to be on a LAN and is said to be no more.
    pub fn retain_neighbour(&mut self, newest: &[SocketAddr]) {
        self.retain_of(CandidateSource::Lan, newest);
    }

    fn retain_of(&mut self, source: CandidateSource, newest: &[SocketAddr]) {
        self.held.retain(|candidate| {
            candidate.source != source || candidate.heard.is_some() || newest.contains(&candidate.endpoint)
        });
    }

    /// The endpoints, the most promising first: lately heard from, then by trust.
    pub fn ranked(&self) -> Vec<SocketAddr> {
        self.by_promise().into_iter().map(|candidate| candidate.endpoint).collect()
    }

    fn by_promise(&self) -> Vec<Candidate> {
        let mut ranked = self.held.clone();
        ranked.sort_by_key(|candidate| std::cmp::Reverse((candidate.heard, candidate.source)));
        ranked
    }

    /// What there is to see of them, the most promising first.
    pub fn views(&self) -> impl Iterator<Item = CandidateView> {
        self.by_promise().into_iter().map(|candidate| CandidateView {
            endpoint: candidate.endpoint,
            source: candidate.source,
            is_asked: candidate.is_asked,
            is_proved: candidate.proved,
            heard: candidate.heard,
        })
    }

    fn find(&mut self, endpoint: SocketAddr) -> Option<&mut Candidate> {
        self.held.iter_mut().find(|candidate| candidate.endpoint == endpoint)
    }

    /// Says whether nothing is known but where the peer spoke from: nobody else vouches for it.
    pub fn is_only_observed(&self) -> bool {
        self.held.iter().all(|candidate| candidate.source == CandidateSource::Observed)
    }

    /// Says whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

/// Says whether an address is one of a private network that this node is not connected to.
fn is_elsewhere(candidate: &Candidate, around: &Surroundings) -> bool {
    let address = candidate.endpoint.ip().to_canonical();
    is_private(address) && !around.connected.iter().any(|prefix| prefix.contains(address))
}

/// Says whether an address means another host in each network: RFC 1918, RFC 6598 (shared behind carriers' NATs), RFC 4193, link-local.
/// Test and documentation ranges are as good as public: nobody has hosts there but on purpose.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_private() || address.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::allowance::{UNPROVED_ATTEMPTS, UNPROVED_BYTES};
    use super::*;
    use std::time::Duration;

    fn endpoint(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 4647))
    }

    fn underlay(_: IpAddr) -> bool {
        false
    }

    #[test]
    fn places_that_are_no_peer_are_refused() {
        let mut candidates = Candidates::default();
        for text in
            ["127.0.0.1:1", "0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "169.254.169.254:80", "192.0.2.1:0"]
        {
            let refused = candidates.add(text.parse().unwrap(), CandidateSource::Record, underlay);
            assert_eq!(refused, Err(CandidateError::Forbidden), "{text}");
        }
        for text in ["[::1]:1", "[::]:1", "[ff02::1]:1", "[::ffff:127.0.0.1]:1"] {
            let refused = candidates.add(text.parse().unwrap(), CandidateSource::Record, underlay);
            assert_eq!(refused, Err(CandidateError::Forbidden), "{text}");
        }
        assert_eq!(candidates.add(endpoint(1), CandidateSource::Record, |_| true), Err(CandidateError::Overlay));
        assert!(candidates.is_empty());
    }

    #[test]
    fn a_lying_record_cannot_push_out_what_is_trusted() {
        let mut candidates = Candidates::default();
        candidates.add(endpoint(200), CandidateSource::Configured, underlay).unwrap();
        for last in 0..100 {
            candidates.add(endpoint(last), CandidateSource::Record, underlay).unwrap();
        }
        assert_eq!(candidates.ranked().len(), MAX_CANDIDATES);
        assert_eq!(candidates.ranked()[0], endpoint(200));
    }

    #[test]
    fn a_liar_on_the_lan_displaces_neither_a_record_s_word_nor_more_than_its_own() {
        let mut candidates = Candidates::default();
        for last in 0..12 {
            candidates.add(endpoint(last), CandidateSource::Record, underlay).unwrap();
        }
        for round in 0..200 {
            let lies = [round, round + 1, 3, 4].map(endpoint);
            candidates.retain_neighbour(&lies);
            for lie in lies {
                candidates.add(lie, CandidateSource::Lan, underlay).unwrap();
            }
        }
        candidates.retain_neighbour(&[]);
        let mut left = candidates.ranked();
        left.sort_unstable();
        assert_eq!(left, (0..12).map(endpoint).collect::<Vec<_>>());
    }

    /// The bytes that go to each of `endpoints` when an attempt is made every minute, for so long.
    fn sent(candidates: &mut Candidates, minutes: u64) -> Vec<(SocketAddr, usize)> {
        let mut sent = Vec::new();
        for minute in 0..minutes {
            let now = Instant::ZERO + Duration::from_secs(60 * minute);
            for target in candidates.targets(now, &Surroundings::default(), true, 1452) {
                let flights = (0..5).filter(|_| candidates.spend(now, target, 1452)).count();
                sent.push((target, flights * 1452));
            }
        }
        sent
    }

    fn total(sent: &[(SocketAddr, usize)]) -> usize {
        sent.iter().map(|(_, bytes)| bytes).sum()
    }

    #[test]
    fn a_place_that_nobody_proved_gets_a_bounded_number_of_attempts_and_bytes() {
        let mut candidates = Candidates::default();
        candidates.add(endpoint(1), CandidateSource::Record, underlay).unwrap();
        let sent = sent(&mut candidates, 600);
        assert!(sent.len() <= UNPROVED_ATTEMPTS as usize + 600 / 2, "{} attempts", sent.len());
        assert!(sent.len() >= 300, "it is tried on and on, slowly: {} attempts", sent.len());
        let bytes = total(&sent);
        assert!(bytes <= UNPROVED_BYTES + 600 / 2 * 8000, "{bytes} bytes");
    }

    #[test]
    fn a_record_that_names_other_places_every_time_gains_no_more_than_eight_of_them() {
        let mut candidates = Candidates::default();
        let mut bytes = 0;
        for minute in 0..600_u32 {
            let named = SocketAddr::from(([192, 0, 2, 1], 1 + minute as u16));
            candidates.add(named, CandidateSource::Record, underlay).unwrap();
            candidates.retain_records(&[named]);
            let now = Instant::ZERO + Duration::from_secs(u64::from(minute) * 5);
            for target in candidates.targets(now, &Surroundings::default(), true, 1452) {
                bytes += (0..5).filter(|_| candidates.spend(now, target, 1452)).count() * 1452;
            }
        }
        assert!(bytes <= (UNPROVED_BYTES + 3000 / 120 * 8000) * MAX_TARGETS, "{bytes} bytes in 50 minutes");
    }

    #[test]
    fn where_the_peer_answered_and_where_the_user_says_no_allowance_limits() {
        for source in [CandidateSource::Record, CandidateSource::Configured] {
            let mut candidates = Candidates::default();
            candidates.add(endpoint(1), source, underlay).unwrap();
            if source == CandidateSource::Record {
                candidates.heard(Instant::ZERO, endpoint(1).into());
                assert!(total(&sent(&mut candidates.clone(), 600)) < 600 * 7260, "a source address proves nothing");
                candidates.proved(endpoint(1));
            }
            assert_eq!(total(&sent(&mut candidates, 600)), 600 * 7260);
        }
    }

    #[test]
    fn private_addresses_elsewhere_wait_until_nothing_else_is_left() {
        let place = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (public, here, elsewhere) = (place("192.0.2.1:1"), place("10.1.0.7:1"), place("10.2.0.7:1"));
        let mut candidates = Candidates::default();
        for endpoint in [elsewhere, here, public] {
            candidates.add(endpoint, CandidateSource::Record, underlay).unwrap();
        }
        let connected = vec![Prefix::new(here.ip(), 16).unwrap()];
        let around = Surroundings { connected, public: vec![place("192.0.2.9:1").ip()] };
        let targets = |candidates: &Candidates, around: &Surroundings, failed| {
            let mut targets = candidates.clone().targets(Instant::ZERO, around, failed, 1452);
            targets.sort_unstable();
            targets
        };
        assert_eq!(targets(&candidates, &around, false), [here, public], "a connected prefix is near");
        assert_eq!(targets(&candidates, &around, true), [here, elsewhere, public], "routed private networks");
        let neighbour = Surroundings { public: vec![public.ip()], ..Surroundings::default() };
        assert_eq!(targets(&candidates, &neighbour, false), [here, elsewhere, public], "behind the same NAT");
        candidates.retain_records(&[elsewhere]);
        assert_eq!(targets(&candidates, &around, false), [elsewhere], "nothing else is known");
    }

    #[test]
    fn private_means_another_host_in_each_network() {
        for text in ["10.0.0.1", "172.31.0.1", "192.168.1.1", "100.64.0.1", "169.254.1.1", "fd00::1", "fe80::1"] {
            assert!(is_private(text.parse().unwrap()), "{text}");
        }
        for text in ["198.18.1.2", "192.0.2.1", "100.128.0.1", "172.32.0.1", "2001:db8::1"] {
            assert!(!is_private(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn what_was_heard_lately_comes_first() {
        let mut candidates = Candidates::default();
        candidates.add(endpoint(1), CandidateSource::Configured, underlay).unwrap();
        candidates.add(endpoint(2), CandidateSource::Record, underlay).unwrap();
        candidates.heard(Instant::from_micros(1), endpoint(2).into());
        assert_eq!(candidates.ranked(), [endpoint(2), endpoint(1)]);
        candidates.retain_records(&[]);
        assert_eq!(candidates.ranked(), [endpoint(2), endpoint(1)]);
    }
}
