//! How long a packet may be for the link by which it leaves.

use super::{HEADROOM, TAILROOM};
use crate::time::Instant;
use crate::wire::datagram::MIN_WIRE_LEN;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long the MTU of the link towards an endpoint is believed; one that shrank meanwhile is noticed at once.
const LINK_LIFETIME: Duration = Duration::from_secs(60);

/// Endpoints whose link is remembered; asking again costs two system calls.
const MAX_LINKS: usize = 4096;
/// Bytes around an inner packet in a datagram to an endpoint: IP and UDP headers, and what sealing adds.
pub(super) const fn overhead(endpoint: SocketAddr) -> usize {
    let outer = if endpoint.is_ipv4() { 20 + 8 } else { 40 + 8 };
    outer + HEADROOM + TAILROOM
}

/// The longest inner packet that is sent without asking: no IPv6 link is narrower than 1280 bytes (RFC 8200 §5), and no IPv4 link that
/// P2Plus works on than [`MIN_WIRE_LEN`].
pub(in crate::node) const fn fits_any_link(endpoint: SocketAddr) -> usize {
    let narrowest = if endpoint.is_ipv4() { MIN_WIRE_LEN } else { 1280 };
    narrowest - overhead(endpoint)
}

/// By endpoint: the longest inner packet that the own link takes, and until when that is believed.
#[derive(Default)]
pub(super) struct Links(HashMap<SocketAddr, (usize, Instant)>);

impl Links {
    /// Takes the MTU, in bytes, of the link by which datagrams to an endpoint leave; `None` when it is not known: then the link decides.
    pub(super) fn learn(&mut self, now: Instant, endpoint: SocketAddr, mtu: Option<usize>) {
        if self.0.len() >= MAX_LINKS {
            self.0.clear();
        }
        let longest = mtu.map_or(usize::MAX, |mtu| mtu.saturating_sub(overhead(endpoint)));
        self.0.insert(endpoint, (longest, now + LINK_LIFETIME));
    }

    /// Takes the news that the link towards an endpoint refused a datagram for its length: what was believed of it is wrong.
    pub(super) fn forget(&mut self, endpoint: SocketAddr) {
        self.0.remove(&endpoint);
    }

    /// The longest inner packet for an endpoint, if that is known.
    pub(super) fn longest(&self, now: Instant, endpoint: SocketAddr) -> Option<usize> {
        self.0.get(&endpoint).filter(|(_, until)| now < *until).map(|(longest, _)| *longest)
    }
}
