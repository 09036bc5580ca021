//! Packet out: from a packet of the device to sealed datagrams.

use super::TAILROOM;
use super::links::{Links, fits_any_link};
use super::pressure::Pressure;
use crate::crypto::identity::NodeId;
use crate::node::table::{ForwardingTable, Outlet};
use crate::path::Path;
use crate::router::icmp::{AnswerSources, Answerer};
use crate::router::segment::{Cut, Part};
use crate::session::{BySession, LaneSealer, Session};
use crate::time::Instant;
use crate::wire::data::{
    self, BUNDLED_HEADER_LEN, CHUNK_HEADER_LEN, Chunk, FLAG_NEEDS_CHECKSUM, Lane, RECORD_BUNDLE, RECORD_HEADER_LEN,
    RECORD_PACKET, SessionIndex,
};
use crate::wire::drops::DropReason;
use crate::wire::ecn::Ecn;
use crate::wire::handshake::OffloadSet;
use crate::wire::icmp::IcmpError;
use crate::wire::inner::InnerPacket;
use crate::wire::offload::{PlainHeaders, SegmentKind, VnetHeader, complete_checksum};
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;

/// The longest packet that a segment of a super-packet becomes, in bytes: no device has a larger MTU.
const MAX_SEGMENT_PACKET: usize = 9217;

/// Bytes that a chunk has in front of its headers beyond those of a packet.
const CHUNK_EXTRA: usize = CHUNK_HEADER_LEN - RECORD_HEADER_LEN;

/// Packets up to this length wait, while the device has more, to share a datagram with others, in bytes.
const MAX_BUNDLED: usize = 512;

/// Where datagrams are sealed: memory of the shell's.
pub trait Outbox {
    /// Lends room for one datagram behind those that are there; `None` when there is not so much. What is written there is there the next
    /// time as well, until something is pushed.
    fn room(&mut self, len: usize) -> Option<&mut [u8]>;

    /// Takes what was lent last, the first `len` bytes of it, as a datagram that leaves by `path` with the mark `ecn`.
    fn push(&mut self, len: usize, path: Path, ecn: Ecn);
}

/// A packet as the device gave it.
pub struct DevicePacket<'p> {
    /// What the kernel says of it.
    pub vnet: VnetHeader,
    /// IP and all above it.
    pub bytes: &'p mut [u8],
}

/// What becomes of a packet that the device gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Outbound {
    /// Its datagrams are in the outbox, or it waits there for others: [`Outgoing::finish`] before they are sent.
    Sealed,
    /// Say the MTU of the link towards this endpoint by [`Outgoing::learn_link`], and seal again.
    Measure(SocketAddr),
    /// Keep the packet until a session with this member exists.
    Stage(NodeId),
    /// Write this ICMP error into the device; the packet is dropped for the reason.
    Answer(DropReason, Vec<u8>),
    /// Drop it.
    Drop(DropReason),
}

/// One sending thread's own state: its lane in every session that it has used, the links that it sends on, its budget for ICMP answers.
pub struct Outgoing {
    lane: Lane,
    sealers: BySession<LaneSealer>,
    links: Links,
    generation: u64,
    answerer: Answerer,
    /// The number of the latest super-packet.
    super_packet: u16,
    bundle: Option<Bundle>,
    pressure: Pressure,
    /// Packets and segments that were not sealed although [`Outbound::Sealed`] was said of what they were part of, and why.
    lost: Vec<(DropReason, usize)>,
}

/// How a datagram leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Leaving {
    session: SessionIndex,
    path: Path,
    ecn: Ecn,
}

/// Small packets in the outbox that wait for more of them, in front of what was pushed.
struct Bundle {
    leaving: Leaving,
    packets: usize,
    /// Bytes of the record so far.
    len: usize,
}

impl Outgoing {
    /// Starts with nothing claimed. `lane` belongs to this thread alone.
    pub fn new(lane: Lane) -> Self {
        Self {
            lane,
            sealers: BySession::default(),
            links: Links::default(),
            generation: 0,
            answerer: Answerer::new(),
            super_packet: 0,
            bundle: None,
            pressure: Pressure::default(),
            lost: Vec::new(),
        }
    }

    /// Takes the MTU, in bytes, of the link by which datagrams to an endpoint leave; `None` when it is not known: then the link decides.
    pub fn learn_link(&mut self, now: Instant, endpoint: SocketAddr, mtu: Option<usize>) {
        self.links.learn(now, endpoint, mtu);
    }

    /// Takes the news that the link towards an endpoint refused a datagram for its length: what was believed of it is wrong.
    pub fn forget_link(&mut self, endpoint: SocketAddr) {
        self.links.forget(endpoint);
    }

    /// Builds the ICMP error about a packet that is dropped for `reason`, when one may be sent.
    fn refuse(
        &mut self,
        now: Instant,
        sources: AnswerSources,
        (reason, error): (DropReason, IcmpError),
        (inner, bytes): (&InnerPacket, &[u8]),
    ) -> Outbound {
        match self.answerer.answer(now, sources, error, inner, bytes) {
            Ok(answer) => Outbound::Answer(reason, answer),
            Err(_) => Outbound::Drop(reason),
        }
    }

    /// Follows a new table: sealers of sessions that are gone end. The budget for answers goes on.
    fn follow(&mut self, table: &ForwardingTable, now: Instant, outbox: &mut impl Outbox) {
        if self.generation != table.generation {
            self.close(now, outbox);
            self.generation = table.generation;
            self.sealers.retain(|index, _| table.inlets.contains_key(index));
        }
    }

    /// Claims this thread's lane of a session, unless it has it.
    fn sealer(&mut self, session: &Arc<Session>) -> Result<&mut LaneSealer, DropReason> {
        match self.sealers.entry(session.local_index()) {
            Entry::Occupied(sealer) => Ok(sealer.into_mut()),
            Entry::Vacant(vacant) => {
                session.claim_lane(self.lane).map(|sealer| vacant.insert(sealer)).ok_or(DropReason::LanesExhausted)
            }
        }
    }

    /// Says where a packet goes, and how it is cut if it stands for several; or what becomes of it instead.
    fn way<'t>(
        &mut self,
        table: &'t ForwardingTable,
        now: Instant,
        packet: &DevicePacket<'_>,
    ) -> Result<(&'t Outlet, Option<Cut>), Outbound> {
        let bytes = &*packet.bytes;
        let inner = InnerPacket::parse(bytes).map_err(|_| Outbound::Drop(DropReason::MalformedPacket))?;
        let peer = match table.router.outbound(&inner) {
            Ok(peer) => peer,
            Err(DropReason::NoRoute) => {
                let cause = (DropReason::NoRoute, IcmpError::NoRoute);
                return Err(self.refuse(now, table.answer_sources, cause, (&inner, bytes)));
            }
            Err(reason) => return Err(Outbound::Drop(reason)),
        };
        let outlet = table.outlets.get(&peer).ok_or(Outbound::Stage(peer))?;
        if table.heartbeat.is_stale(now) {
            // The machine slept, and this thread woke first. The node, once it has the packet, makes new keys.
            return Err(Outbound::Stage(peer));
        }
        let cut = match packet.vnet.segments.map(|(segments, _)| Cut::new(bytes, segments)) {
            Some(None) => return Err(Outbound::Drop(DropReason::MalformedPacket)),
            Some(cut) => cut,
            None => None,
        };
        let (extra, needed) = match &cut {
            Some(cut) => (CHUNK_EXTRA, CHUNK_EXTRA + cut.longest_segment()),
            None => (0, bytes.len()),
        };
        let endpoint = outlet.path.remote;
        if needed > fits_any_link(endpoint) {
            let longest = self.links.longest(now, endpoint).ok_or(Outbound::Measure(endpoint))?;
            if needed > longest {
                let mtu = u16::try_from(longest.saturating_sub(extra)).unwrap_or(u16::MAX);
                let cause = (DropReason::TooLarge, IcmpError::TooBig { mtu });
                return Err(self.refuse(now, table.answer_sources, cause, (&inner, bytes)));
            }
        }
        Ok((outlet, cut))
    }

    /// Puts a small packet to those that wait to leave in the same way, or begins to wait with it.
    fn bundle(
        &mut self,
        now: Instant,
        leaving: Leaving,
        needs_checksum: bool,
        packet: &[u8],
        outbox: &mut impl Outbox,
    ) -> Result<(), DropReason> {
        let (capacity, added) = (bundle_capacity(&leaving.path), BUNDLED_HEADER_LEN + packet.len());
        if self.bundle.as_ref().is_none_or(|open| open.leaving != leaving || open.len + added > capacity) {
            self.close(now, outbox);
        }
        let room = outbox.room(datagram_len(capacity)).ok_or(DropReason::TooLarge)?;
        let open = self.bundle.get_or_insert(Bundle { leaving, packets: 0, len: RECORD_HEADER_LEN });
        let (header, rest) = room[data::TRANSPORT_HEADER_LEN + open.len..].split_at_mut(BUNDLED_HEADER_LEN);
        header.copy_from_slice(&data::bundled_header(packet.len() as u16, needs_checksum));
        rest[..packet.len()].copy_from_slice(packet);
        open.packets += 1;
        open.len += added;
        Ok(())
    }

    /// Seals what waited in a bundle.
    fn close(&mut self, now: Instant, outbox: &mut impl Outbox) {
        let Some(open) = self.bundle.take() else { return };
        let Leaving { session, path, ecn } = open.leaving;
        let mut seal = || {
            let sealer = self.sealers.get_mut(&session).ok_or(DropReason::UnknownSession)?;
            let room = outbox.room(datagram_len(bundle_capacity(&path))).ok_or(DropReason::TooLarge)?;
            let len = datagram_len(close_record(&mut room[data::TRANSPORT_HEADER_LEN..], &open));
            sealer.seal(now, &mut room[..len])?;
            outbox.push(len, path, ecn);
            Ok(())
        };
        if let Err(reason) = seal() {
            self.lost.push((reason, open.packets));
        }
    }

    /// Takes the news that the device had nothing until now.
    pub fn device_was_empty(&mut self, now: Instant) {
        self.pressure.emptied(now);
    }

    /// Seals what waits in a bundle: it is sent now. Returns the packets and segments that were given up since the last time, by reason.
    pub fn finish(&mut self, now: Instant, outbox: &mut impl Outbox) -> Vec<(DropReason, usize)> {
        self.close(now, outbox);
        std::mem::take(&mut self.lost)
    }
}

/// The length of a bundle's record at most: with it a datagram passes every path that P2Plus works on.
const fn bundle_capacity(path: &Path) -> usize {
    RECORD_HEADER_LEN + fits_any_link(path.remote)
}

/// The length of the datagram around a record.
const fn datagram_len(record_len: usize) -> usize {
    data::TRANSPORT_HEADER_LEN + record_len + TAILROOM
}

/// Writes the first byte of a bundle's record, which becomes a packet's record when there is only one. Returns the record's length.
fn close_record(record: &mut [u8], bundle: &Bundle) -> usize {
    if bundle.packets > 1 {
        record[0] = RECORD_BUNDLE;
        return bundle.len;
    }
    let flags = record[RECORD_HEADER_LEN + BUNDLED_HEADER_LEN - 1];
    record.copy_within(RECORD_HEADER_LEN + BUNDLED_HEADER_LEN..bundle.len, RECORD_HEADER_LEN);
    record[0] = RECORD_PACKET | flags;
    bundle.len - BUNDLED_HEADER_LEN
}

/// Seals a packet of the device, or each segment of a super-packet, for the peer that owns its destination.
pub fn seal(
    table: &ForwardingTable,
    outgoing: &mut Outgoing,
    now: Instant,
    packet: &mut DevicePacket<'_>,
    outbox: &mut impl Outbox,
) -> Outbound {
    outgoing.follow(table, now, outbox);
    let (outlet, cut) = match outgoing.way(table, now, packet) {
        Ok(way) => way,
        Err(instead) => return instead,
    };
    let mut is_chosen = packet.bytes.len() > MAX_BUNDLED && outgoing.pressure.chooses(now);
    if is_chosen && let Some(marked) = Ecn::of(packet.bytes).received_in(Ecn::Congested) {
        marked.write(packet.bytes);
        is_chosen = false;
    }
    let (session, path, ecn) = (&outlet.session, outlet.path, Ecn::of(packet.bytes));
    let mut send = || {
        let leaving = Leaving { session: session.local_index(), path, ecn };
        let number = outgoing.super_packet.wrapping_add(u16::from(cut.is_some()));
        let Some(cut) = cut else {
            let needs_checksum = leaves_checksum(packet, session.offload())?;
            if packet.bytes.len() <= MAX_BUNDLED {
                outgoing.sealer(session)?;
                return outgoing.bundle(now, leaving, needs_checksum, packet.bytes, outbox);
            }
            if is_chosen {
                return Err(DropReason::QueueStanding);
            }
            outgoing.close(now, outbox);
            let mut sending = Sending { sealer: outgoing.sealer(session)?, now, path, ecn, outbox };
            return sending.packet(needs_checksum, packet.bytes);
        };
        outgoing.close(now, outbox);
        outgoing.super_packet = number;
        if is_chosen {
            outgoing.lost.push((DropReason::QueueStanding, 1));
        }
        // The first is lost: those behind it tell the receiver so at once.
        let parts = cut.parts(0).skip(usize::from(is_chosen));
        let mut sending = Sending { sealer: outgoing.sealer(session)?, now, path, ecn, outbox };
        if cut.fits_chunks() && takes(session.offload(), packet.vnet) {
            sending.chunks(&cut, parts, packet.bytes, number)
        } else {
            sending.segments(&cut, parts, packet.bytes)
        }
    };
    match send() {
        Ok(()) => Outbound::Sealed,
        Err(reason) => Outbound::Drop(reason),
    }
}

/// Says whether the packet's transport checksum is left to a peer whose kernel completes it; completes it, if it is not.
fn leaves_checksum(packet: &mut DevicePacket<'_>, offload: OffloadSet) -> Result<bool, DropReason> {
    let Some(checksum) = packet.vnet.checksum else { return Ok(false) };
    let is_plain = PlainHeaders::parse(packet.bytes).is_some_and(|plain| plain.checksum() == checksum);
    if is_plain && offload.tcp {
        return Ok(true);
    }
    complete_checksum(packet.bytes, checksum).then_some(false).ok_or(DropReason::MalformedPacket)
}

/// Says whether a device takes such a super-packet.
fn takes(offload: OffloadSet, vnet: VnetHeader) -> bool {
    match vnet.segments.map(|(segments, _)| segments.kind) {
        Some(SegmentKind::TcpV4 | SegmentKind::TcpV6) => offload.tcp,
        Some(SegmentKind::Udp) => offload.udp,
        None => true,
    }
}

/// Lends each packet that `packet` stands for, whole and with all checksums.
pub fn each_whole(packet: &mut DevicePacket<'_>, mut lend: impl FnMut(&[u8])) {
    let cut = packet.vnet.segments.and_then(|(segments, _)| Cut::new(packet.bytes, segments));
    match (cut, packet.vnet) {
        (Some(cut), _) => {
            let mut segment = vec![0; cut.longest_segment()];
            for part in cut.parts(0) {
                let len = cut.write_segment(packet.bytes, &part, &mut segment);
                lend(&segment[..len]);
            }
        }
        (None, VnetHeader { checksum: Some(checksum), segments: None }) => {
            if complete_checksum(packet.bytes, checksum) {
                lend(packet.bytes);
            }
        }
        (None, VnetHeader { checksum: None, segments: None }) => lend(packet.bytes),
        // Nobody can say what it stands for.
        (None, VnetHeader { segments: Some(_), .. }) => {}
    }
}

/// One packet on its way into the outbox.
struct Sending<'s, O> {
    sealer: &'s mut LaneSealer,
    now: Instant,
    path: Path,
    ecn: Ecn,
    outbox: &'s mut O,
}

impl<O: Outbox> Sending<'_, O> {
    /// Seals a packet that stands for itself.
    fn packet(&mut self, needs_checksum: bool, packet: &[u8]) -> Result<(), DropReason> {
        let flags = if needs_checksum { FLAG_NEEDS_CHECKSUM } else { 0 };
        self.seal(&[&[RECORD_PACKET | flags], packet])
    }

    /// Seals a super-packet in chunks of one segment each: what the own link takes beyond that, the path may not.
    fn chunks(
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
    fn segments(&mut self, cut: &Cut, parts: impl Iterator<Item = Part>, packet: &[u8]) -> Result<(), DropReason> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::forward::links::overhead;
    use crate::node::forward::testing::{NOW, Sealed, with_peer};
    use crate::router::{Prefix, Router};
    use crate::session::testing::established_pair;
    use std::net::IpAddr;
    use std::sync::Arc;

    /// A table of a node at 10.64.0.1 that has no peer.
    fn alone(generation: u64) -> ForwardingTable {
        let own = Prefix::host(IpAddr::from([10, 64, 0, 1]));
        let router = Arc::new(Router::new([own], [Prefix::new(IpAddr::from([10, 64, 0, 0]), 20).unwrap()], []));
        ForwardingTable { generation, router, ..ForwardingTable::empty() }
    }

    /// Seals an IPv4 packet of 40 bytes from the node to `destination`.
    fn seal_to(destination: [u8; 4], table: &ForwardingTable, outgoing: &mut Outgoing) -> Outbound {
        seal_long(40, destination, table, outgoing)
    }

    /// Seals an IPv4 packet of `len` bytes from the node to `destination`.
    fn seal_long(len: u16, destination: [u8; 4], table: &ForwardingTable, outgoing: &mut Outgoing) -> Outbound {
        let mut packet = vec![0; len.into()];
        packet[..10].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6]);
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[12..16].copy_from_slice(&[10, 64, 0, 1]);
        packet[16..20].copy_from_slice(&destination);
        let mut packet = DevicePacket { vnet: VnetHeader::default(), bytes: &mut packet };
        seal(table, outgoing, NOW, &mut packet, &mut Sealed::default())
    }

    #[test]
    fn a_packet_that_the_link_cannot_take_is_answered_however_narrow_the_link() {
        for (endpoint, mtu) in [("192.0.2.2:4647", 1124), ("192.0.2.2:4647", 1420), ("[2001:db8::2]:4647", 1280)] {
            let (.., near, _) = established_pair();
            let endpoint = endpoint.parse().unwrap();
            let table = with_peer(near.session, endpoint);
            let mut outgoing = Outgoing::new(Lane::new(1, 0));
            let fitting = u16::try_from(mtu - overhead(endpoint)).unwrap();
            let to_peer = |len, outgoing: &mut Outgoing| seal_long(len, [10, 64, 0, 2], &table, outgoing);
            assert_eq!(to_peer(fitting + 1, &mut outgoing), Outbound::Measure(endpoint));
            outgoing.learn_link(NOW, endpoint, Some(mtu));
            assert_eq!(to_peer(fitting, &mut outgoing), Outbound::Sealed, "{endpoint} {mtu}");
            let refused = to_peer(fitting + 1, &mut outgoing);
            assert!(matches!(refused, Outbound::Answer(DropReason::TooLarge, _)), "{endpoint} {mtu}: {refused:?}");
        }
    }
    #[test]
    fn the_budget_for_answers_outlasts_the_table() {
        let mut outgoing = Outgoing::new(Lane::new(1, 0));
        let mut answers = |generations: std::ops::Range<u64>| {
            let outcomes = generations.map(|generation| seal_to([10, 64, 0, 9], &alone(generation), &mut outgoing));
            let outcomes: Vec<_> = outcomes.collect();
            assert!(outcomes.iter().all(|outcome| matches!(
                outcome,
                Outbound::Answer(DropReason::NoRoute, _) | Outbound::Drop(DropReason::NoRoute)
            )));
            outcomes.iter().filter(|outcome| matches!(outcome, Outbound::Answer(..))).count()
        };
        let first = answers(1..100);
        assert!((1..99).contains(&first), "{first}");
        assert_eq!(answers(100..200), 0, "a new table brought a new budget");
    }
}
