//! Records into the outbox, sealed where they leave from.

use super::TAILROOM;
use crate::path::Path;
use crate::router::segment::{Cut, Part};
use crate::session::{BySession, LaneSealer, Session};
use crate::time::Instant;
use crate::wire::data::{self, Chunk, FLAG_NEEDS_CHECKSUM, Lane, RECORD_PACKET, SessionIndex};
use crate::wire::drops::DropReason;
use crate::wire::ecn::Ecn;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// The longest packet that a segment of a super-packet becomes, in bytes: no device has a larger MTU.
const MAX_SEGMENT_PACKET: usize = 9217;

/// Where datagrams are sealed: memory of the shell's.
pub trait Outbox {
    /// Lends room for one datagram behind those that are there; `None` when there is not so much. What is written there is there the next
    /// time as well, until something is pushed.
    fn room(&mut self, len: usize) -> Option<&mut [u8]>;

    /// Takes what was lent last, the first `len` bytes of it, as a datagram that leaves by `path` with the mark `ecn`.
    fn push(&mut self, len: usize, path: Path, ecn: Ecn);
}

/// The length of the datagram around a record.
pub(super) const fn datagram_len(record_len: usize) -> usize {
    data::TRANSPORT_HEADER_LEN + record_len + TAILROOM
}

/// One thread's lane in every session that it has used.
pub(super) struct Sealers {
    lane: Lane,
    claimed: BySession<LaneSealer>,
}

impl Sealers {
    /// Starts with nothing claimed.
    pub(super) fn new(lane: Lane) -> Self {
        Self { lane, claimed: BySession::default() }
    }

    /// Claims the lane of a session, unless it has it.
    pub(super) fn claim(&mut self, session: &Arc<Session>) -> Result<&mut LaneSealer, DropReason> {
        match self.claimed.entry(session.local_index()) {
            Entry::Occupied(sealer) => Ok(sealer.into_mut()),
            Entry::Vacant(vacant) => {
                session.claim_lane(self.lane).map(|sealer| vacant.insert(sealer)).ok_or(DropReason::LanesExhausted)
            }
        }
    }

    /// Lends the sealer of a session whose lane was claimed.
    pub(super) fn get(&mut self, session: SessionIndex) -> Option<&mut LaneSealer> {
        self.claimed.get_mut(&session)
    }

    /// Gives up the sealers of sessions that are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(&SessionIndex) -> bool) {
        self.claimed.retain(|session, _| is_there(session));
    }
}

/// One packet of the device on its way into the outbox.
pub(super) struct Sending<'s, O> {
    /// Of its session.
    pub(super) sealer: &'s mut LaneSealer,
    /// When.
    pub(super) now: Instant,
    /// The path that its datagrams leave by.
    pub(super) path: Path,
    /// Their mark.
    pub(super) ecn: Ecn,
    /// Where they go.
    pub(super) outbox: &'s mut O,
}

impl<O: Outbox> Sending<'_, O> {
    /// Seals a packet that stands for itself.
    pub(super) fn packet(&mut self, needs_checksum: bool, packet: &[u8]) -> Result<(), DropReason> {
        let flags = if needs_checksum { FLAG_NEEDS_CHECKSUM } else { 0 };
        self.seal(&[&[RECORD_PACKET | flags], packet])
    }

    /// Seals a super-packet in chunks of one segment each: what the own link takes beyond that, the path may not.
    pub(super) fn chunks(
        &mut self,
        cut: &Cut,
        parts: impl Iterator<Item = Part>,
        packet: &[u8],
        super_packet: u16,
    ) -> Result<(), DropReason> {
        let (headers, payload) = packet.split_at(cut.header_len());
        for part in parts {
            let (offset, segment_len) = (part.payload.start as u16, cut.segment_len() as u16);
            let chunk = Chunk {
                is_last: part.is_last,
                super_packet,
                offset,
                segment_len,
                headers,
                payload: &payload[part.payload],
            };
            self.seal(&[&chunk.encode_header(), headers, chunk.payload])?;
        }
        Ok(())
    }

    /// Seals each segment of a super-packet as a packet of its own.
    pub(super) fn segments(
        &mut self,
        cut: &Cut,
        parts: impl Iterator<Item = Part>,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let mut segment = [0; MAX_SEGMENT_PACKET];
        for part in parts {
            if cut.header_len() + part.payload.len() > segment.len() {
                return Err(DropReason::TooLarge);
            }
            let len = cut.write_segment(packet, &part, &mut segment);
            self.seal(&[&[RECORD_PACKET], &segment[..len]])?;
        }
        Ok(())
    }

    fn seal(&mut self, record: &[&[u8]]) -> Result<(), DropReason> {
        let record_len: usize = record.iter().map(|part| part.len()).sum();
        let len = datagram_len(record_len);
        let datagram = self.outbox.room(len).ok_or(DropReason::TooLarge)?;
        let mut at = data::TRANSPORT_HEADER_LEN;
        for part in record {
            datagram[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.sealer.seal(self.now, datagram)?;
        self.outbox.push(len, self.path, self.ecn);
        Ok(())
    }
}
