//! How long a packet may be for the link by which it leaves.

use super::{HEADROOM, TAILROOM};
use crate::path::Path;
use crate::time::Instant;
use crate::wire::datagram::MIN_WIRE_LEN;
use crate::wire::relay::ENVELOPE_LEN;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long the MTU of the link towards an endpoint is believed; one that shrank meanwhile is noticed at once.
const LINK_LIFETIME: Duration = Duration::from_secs(60);

/// Endpoints whose link is remembered; asking again costs two system calls.
const MAX_LINKS: usize = 4096;

/// Bytes around an inner packet in a datagram by a path: IP and UDP headers, a relay's envelope, and what sealing adds.
pub(super) const fn overhead(path: &Path) -> usize {
    let outer = if path.remote.is_ipv4() { 20 + 8 } else { 40 + 8 };
    outer + envelope_len(path) + HEADROOM + TAILROOM
}

/// Bytes that a datagram has in front of what is sealed.
pub(super) const fn envelope_len(path: &Path) -> usize {
    if path.label.is_some() { ENVELOPE_LEN } else { 0 }
}

/// The longest inner packet that is sent without asking: no IPv6 link is narrower than 1280 bytes (RFC 8200 §5), and no IPv4 link that
/// P2Plus works on than [`MIN_WIRE_LEN`].
pub(in crate::node) const fn fits_any_link(path: &Path) -> usize {
    let narrowest = if path.remote.is_ipv4() { MIN_WIRE_LEN } else { 1280 };
    narrowest - overhead(path)
}

/// By endpoint: the MTU of the own link, none where it is not known, and until when that is believed.
#[derive(Default)]
pub(super) struct Links(HashMap<SocketAddr, (Option<usize>, Instant)>);

impl Links {
    /// Takes the MTU, in bytes, of the link by which datagrams to an endpoint leave; `None` when it is not known: then the link decides.
    pub(super) fn learn(&mut self, now: Instant, endpoint: SocketAddr, mtu: Option<usize>) {
        if self.0.len() >= MAX_LINKS {
            self.0.clear();
        }
        self.0.insert(endpoint, (mtu, now + LINK_LIFETIME));
    }

    /// Takes the news that the link towards an endpoint refused a datagram for its length: what was believed of it is wrong.
    pub(super) fn forget(&mut self, endpoint: SocketAddr) {
        self.0.remove(&endpoint);
    }

    /// The longest inner packet for a path, if that is known.
    pub(super) fn longest(&self, now: Instant, path: &Path) -> Option<usize> {
        let (mtu, _) = self.0.get(&path.remote).filter(|(_, until)| now < *until)?;
        Some(mtu.map_or(usize::MAX, |mtu| mtu.saturating_sub(overhead(path))))
    }
}
