//! How long a packet may be for the link by which it leaves.

use super::{HEADROOM, TAILROOM};
use crate::node::table::Outlet;
use crate::path::{Path, PathClass, PathMtu};
use crate::time::Instant;
use crate::wire::datagram::MIN_WIRE_LEN;
use crate::wire::relay::ENVELOPE_LEN;
use crate::wire::transport_record::{CHUNK_FIELDS_LEN, MEASURE_LEN, RECORD_HEADER_LEN};
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
/// P2Plus works on than [`MIN_WIRE_LEN`]. Behind a relay it may be either.
pub(in crate::node) const fn fits_any_link(path: &Path) -> usize {
    let narrowest = match (path.remote.is_ipv4(), path.label.is_some()) {
        (true, _) => MIN_WIRE_LEN,
        (false, false) => 1280,
        (false, true) => MIN_WIRE_LEN + 20,
    };
    narrowest - overhead(path)
}

/// The least that any path takes, and the longest that is ever sent by this one for packets of at most `inner_mtu` bytes: lengths of IP
/// packets, in bytes.
pub(in crate::node) fn datagram_lengths(path: &Path, inner_mtu: u16) -> (u16, u16) {
    let least = fits_any_link(path) + overhead(path);
    let longest = usize::from(inner_mtu) + CHUNK_FIELDS_LEN + overhead(path);
    let longest = u16::try_from(longest).unwrap_or(u16::MAX);
    // A stream takes everything.
    (if path.class() == PathClass::Stream { longest } else { least as u16 }, longest)
}

/// The bytes of a record that fills an IP packet of `len` bytes by a path.
pub(in crate::node) fn measure_len(path: &Path, len: u16) -> usize {
    (usize::from(len) + RECORD_HEADER_LEN).saturating_sub(overhead(path)).max(MEASURE_LEN)
}

/// The longest packet of a stream that crosses the network whole: `inner_mtu` bytes, or what is known to pass by a path.
pub(super) fn longest_of_stream(inner_mtu: u16, outlet: &Outlet) -> usize {
    let passing = match outlet.mtu {
        PathMtu::Unknown => usize::MAX,
        PathMtu::Known(mtu) => usize::from(mtu).saturating_sub(overhead(&outlet.path) + CHUNK_FIELDS_LEN),
    };
    passing.min(inner_mtu.into())
}

/// How much of a packet one datagram takes, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Room {
    /// What is longer leaves in parts, or not at all.
    pub(super) whole: usize,
    /// The most that whoever sends is told of: while the path is being measured, what the own link takes.
    pub(super) told: usize,
}

impl Room {
    /// What a path takes behind the own link, which takes packets of `link` bytes.
    pub(super) fn of(link: usize, path: &Path, mtu: PathMtu) -> Self {
        match mtu {
            PathMtu::Unknown => Self { whole: link.min(fits_any_link(path)), told: link },
            PathMtu::Known(mtu) => {
                let longest = link.min(usize::from(mtu).saturating_sub(overhead(path)));
                Self { whole: longest, told: longest }
            }
        }
    }
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
