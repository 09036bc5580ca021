//! Small packets that share a datagram.
//!
//! They are put together where the datagram is sealed, in the room that the outbox lends last: nothing else may be pushed before the bundle
//! is closed.

use super::links::fits_any_link;
use crate::path::Path;
use crate::wire::datagram::SessionIndex;
use crate::wire::ecn::Ecn;
use crate::wire::transport_record::{
    BUNDLED_HEADER_LEN, Layer, RECORD_BUNDLE, RECORD_HEADER_LEN, RECORD_PACKET, bundled_header,
};

/// Packets up to this length wait, while the device has more, to share a datagram with others, in bytes.
pub(super) const MAX_BUNDLED: usize = 512;

/// How a datagram leaves: packets share one that leave in the same way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaving {
    /// Packets, or frames of this segment.
    pub(super) layer: Layer,
    /// Sealed in this session.
    pub(super) session: SessionIndex,
    /// By this path.
    pub(super) path: Path,
    /// With this mark.
    pub(super) ecn: Ecn,
}

/// A bundle's record while it grows.
pub(super) struct Bundle {
    leaving: Leaving,
    packets: usize,
    /// Bytes of the record so far.
    len: usize,
}

impl Bundle {
    /// Begins with no packet.
    pub(super) fn new(leaving: Leaving) -> Self {
        Self { leaving, packets: 0, len: leaving.layer.record_header_len() }
    }

    /// How it leaves.
    pub(super) fn leaving(&self) -> Leaving {
        self.leaving
    }

    /// How many packets are in it.
    pub(super) fn packets(&self) -> usize {
        self.packets
    }

    /// The record's length at most, in bytes: with it a datagram passes every path that P2Plus works on.
    pub(super) const fn capacity(path: &Path) -> usize {
        RECORD_HEADER_LEN + fits_any_link(path)
    }

    /// Says whether a packet that leaves so may come in.
    pub(super) fn has_room(&self, leaving: Leaving, packet_len: usize) -> bool {
        self.leaving == leaving && self.len + BUNDLED_HEADER_LEN + packet_len <= Self::capacity(&leaving.path)
    }

    /// Writes a packet, for which there is room, behind those in the record.
    pub(super) fn add(&mut self, record: &mut [u8], needs_checksum: bool, packet: &[u8]) {
        let (header, rest) = record[self.len..].split_at_mut(BUNDLED_HEADER_LEN);
        header.copy_from_slice(&bundled_header(packet.len() as u16, needs_checksum));
        rest[..packet.len()].copy_from_slice(packet);
        self.packets += 1;
        self.len += BUNDLED_HEADER_LEN + packet.len();
    }

    /// Writes the record's header; a packet alone becomes a packet's record. Returns the record's length.
    pub(super) fn close(&self, record: &mut [u8]) -> usize {
        let layer = self.leaving.layer;
        let header_len = layer.record_header_len();
        if self.packets > 1 {
            record[..header_len].copy_from_slice(layer.record_header(RECORD_BUNDLE, 0).as_slice());
            return self.len;
        }
        let flags = record[header_len + BUNDLED_HEADER_LEN - 1];
        record.copy_within(header_len + BUNDLED_HEADER_LEN..self.len, header_len);
        record[..header_len].copy_from_slice(layer.record_header(RECORD_PACKET, flags).as_slice());
        self.len - BUNDLED_HEADER_LEN
    }
}
