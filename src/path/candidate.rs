//! Endpoints where a peer may be: a bounded set that hostile records can neither fill up nor point at forbidden places.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::time::Instant;

/// Candidates kept for one peer. A host has a handful of addresses; more come from a liar.
pub const MAX_CANDIDATES: usize = 16;

/// The address of cloud metadata services: never probed, whoever names it.
const CLOUD_METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// How a candidate became known, the least trusted first: the first to go when the set is full.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CandidateSource {
    /// The peer's own signed node record.
    Record,
    /// The last endpoint of an earlier run, from disk.
    Remembered,
    /// An authenticated packet came from there.
    Observed,
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

#[derive(Clone, Copy, Debug)]
struct Candidate {
    endpoint: SocketAddr,
    source: CandidateSource,
    /// When something authenticated last came from there.
    heard: Option<Instant>,
}

/// The candidates of one peer, at most [`MAX_CANDIDATES`].
#[derive(Clone, Debug, Default)]
pub struct Candidates(Vec<Candidate>);

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
        if let Some(known) = self.0.iter_mut().find(|known| known.endpoint == endpoint) {
            known.source = known.source.max(source);
            return Ok(());
        }
        if self.0.len() == MAX_CANDIDATES {
            let worst = self.0.iter().enumerate().min_by_key(|(_, candidate)| (candidate.source, candidate.heard));
            match worst {
                Some((index, candidate)) if candidate.source <= source => drop(self.0.remove(index)),
                _ => return Err(CandidateError::Full),
            }
        }
        self.0.push(Candidate { endpoint, source, heard: None });
        Ok(())
    }

    /// Notes that something authenticated came from `endpoint`.
    pub fn heard(&mut self, now: Instant, endpoint: SocketAddr) {
        if let Some(candidate) = self.0.iter_mut().find(|candidate| candidate.endpoint == endpoint) {
            candidate.heard = Some(now);
        }
    }

    /// Drops what the peer's earlier node record named and its newest does not.
    pub fn retain_records(&mut self, newest: &[SocketAddr]) {
        self.0.retain(|candidate| {
            candidate.source != CandidateSource::Record
                || candidate.heard.is_some()
                || newest.contains(&candidate.endpoint)
        });
    }

    /// The endpoints, the most promising first: lately heard from, then by trust.
    pub fn ranked(&self) -> Vec<SocketAddr> {
        let mut ranked = self.0.clone();
        ranked.sort_by_key(|candidate| std::cmp::Reverse((candidate.heard, candidate.source)));
        ranked.into_iter().map(|candidate| candidate.endpoint).collect()
    }

    /// Says whether nothing is known but where the peer spoke from: nobody else vouches for it.
    pub fn is_only_observed(&self) -> bool {
        self.0.iter().all(|candidate| candidate.source == CandidateSource::Observed)
    }

    /// Says whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Says whether an endpoint can be a peer's at all: see [`CandidateError::Forbidden`].
pub fn is_possible(endpoint: &SocketAddr) -> bool {
    let forbidden_ip = match endpoint.ip().to_canonical() {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip == CLOUD_METADATA
                || ip.octets()[0] == 0
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_multicast(),
    };
    !forbidden_ip && endpoint.port() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_was_heard_lately_comes_first() {
        let mut candidates = Candidates::default();
        candidates.add(endpoint(1), CandidateSource::Configured, underlay).unwrap();
        candidates.add(endpoint(2), CandidateSource::Record, underlay).unwrap();
        candidates.heard(Instant::from_micros(1), endpoint(2));
        assert_eq!(candidates.ranked(), [endpoint(2), endpoint(1)]);
        candidates.retain_records(&[]);
        assert_eq!(candidates.ranked(), [endpoint(2), endpoint(1)]);
    }
}
