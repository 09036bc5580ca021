//! Records into the outbox, sealed where they leave from.

use super::TAILROOM;
use super::links::envelope_len;
use crate::path::Path;
use crate::router::segmentation::{Cut, Part};
use crate::session::{BySession, LaneSealer, Session};
use crate::time::Instant;
use crate::wire::datagram::{Lane, SessionIndex, TRANSPORT_HEADER_LEN};
use crate::wire::drops::DropReason;
use crate::wire::ecn::Ecn;
use crate::wire::frame::MAX_LINK_HEADER;
use crate::wire::relay::{ENVELOPE_LEN, Envelope};
use crate::wire::transport_record::{Chunk, FLAG_NEEDS_CHECKSUM, Fragment, Layer, MAX_FRAME_LEN, RECORD_PACKET};
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// The longest packet or frame that a segment of a super-packet becomes, in bytes: no device has a larger MTU.
const MAX_SEGMENT_PACKET: usize = 9217 + MAX_LINK_HEADER;

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
    TRANSPORT_HEADER_LEN + record_len + TAILROOM
}

/// Lends room for a datagram by a path, behind the envelope that a relay's has.
pub(super) fn room<'o>(outbox: &'o mut impl Outbox, path: &Path, len: usize) -> Option<&'o mut [u8]> {
    let front = envelope_len(path);
    outbox.room(front + len)?.get_mut(front..)
}

/// Puts the datagram that was sealed where [`room`] was lent last into the outbox.
pub(super) fn push(outbox: &mut impl Outbox, len: usize, path: Path, ecn: Ecn) -> Result<(), DropReason> {
    let whole = envelope_len(&path) + len;
    if let Some(label) = path.label {
        let front = outbox.room(whole).and_then(|room| room.first_chunk_mut::<ENVELOPE_LEN>());
        *front.ok_or(DropReason::TooLarge)? = Envelope::first(label).encode(len);
    }
    outbox.push(whole, path, ecn);
    Ok(())
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

/// One packet or frame of a device on its way into the outbox.
pub(super) struct Sending<'s, O> {
    /// Of its session.
    pub(super) sealer: &'s mut LaneSealer,
    /// Which of the two it is.
    pub(super) layer: Layer,
    /// When.
    pub(super) now: Instant,
    /// The number of the latest super-packet or frame that left in parts.
    pub(super) number: &'s mut u16,
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
        self.seal(&[self.layer.record_header(RECORD_PACKET, flags).as_slice(), packet])
    }

    /// Seals a packet or frame that is longer than one datagram may be, in parts of at most `room` bytes.
    pub(super) fn fragments(&mut self, bytes: &[u8], room: usize) -> Result<(), DropReason> {
        if bytes.len() > MAX_FRAME_LEN {
            return Err(DropReason::TooLarge);
        }
        let number = self.next_number();
        for fragment in Fragment::cut(self.layer, number, bytes, room) {
            let (header, fields) = fragment.encode_header();
            self.seal(&[header.as_slice(), &fields, fragment.bytes])?;
        }
        Ok(())
    }

    /// Seals a super-packet in chunks of one segment each: what the own link takes beyond that, the path may not.
    pub(super) fn chunks(
        &mut self,
        cut: &Cut,
        parts: impl Iterator<Item = Part>,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let (headers, payload) = packet.split_at(cut.header_len());
        let super_packet = self.next_number();
        for part in parts {
            let (offset, segment_len) = (part.payload.start as u16, cut.segment_len() as u16);
            let chunk = Chunk {
                layer: self.layer,
                is_last: part.is_last,
                super_packet,
                offset,
                segment_len,
                headers,
                payload: &payload[part.payload],
            };
            let (header, fields) = chunk.encode_header();
            self.seal(&[header.as_slice(), &fields, headers, chunk.payload])?;
        }
        Ok(())
    }

    /// Seals each segment of a super-packet as a packet or frame of its own; one that is longer than `room` bytes in fragments.
    pub(super) fn segments(
        &mut self,
        cut: &Cut,
        parts: impl Iterator<Item = Part>,
        packet: &[u8],
        room: usize,
    ) -> Result<(), DropReason> {
        let mut segment = [0; MAX_SEGMENT_PACKET];
        for part in parts {
            if cut.header_len() + part.payload.len() > segment.len() {
                return Err(DropReason::TooLarge);
            }
            let len = cut.write_segment(packet, &part, &mut segment);
            if len > room {
                self.fragments(&segment[..len], room)?;
            } else {
                self.packet(false, &segment[..len])?;
            }
        }
        Ok(())
    }

    fn next_number(&mut self) -> u16 {
        *self.number = self.number.wrapping_add(1);
        *self.number
    }

    fn seal(&mut self, record: &[&[u8]]) -> Result<(), DropReason> {
        let record_len: usize = record.iter().map(|part| part.len()).sum();
        let len = datagram_len(record_len);
        let datagram = room(self.outbox, &self.path, len).ok_or(DropReason::TooLarge)?;
        let mut at = TRANSPORT_HEADER_LEN;
        for part in record {
            datagram[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.sealer.seal(self.now, datagram)?;
        push(self.outbox, len, self.path, self.ecn)
    }
}
