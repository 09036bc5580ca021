//! Packet out: from a packet of the device to sealed datagrams.

use super::TAILROOM;
use super::links::{Links, fits_any_link};
use crate::crypto::identity::NodeId;
use crate::node::table::ForwardingTable;
use crate::path::Path;
use crate::router::icmp::{AnswerSources, Answerer};
use crate::router::segment::Cut;
use crate::session::LaneSealer;
use crate::time::Instant;
use crate::wire::data::{
    self, CHUNK_HEADER_LEN, Chunk, FLAG_NEEDS_CHECKSUM, Lane, RECORD_HEADER_LEN, RECORD_PACKET, SessionIndex,
};
use crate::wire::drops::DropReason;
use crate::wire::handshake::OffloadSet;
use crate::wire::icmp::IcmpError;
use crate::wire::inner::InnerPacket;
use crate::wire::offload::{PlainHeaders, SegmentKind, VnetHeader, complete_checksum};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;

/// The longest packet that a segment of a super-packet becomes, in bytes: no device has a larger MTU.
const MAX_SEGMENT_PACKET: usize = 9217;

/// Bytes that a chunk has in front of its headers beyond those of a packet.
const CHUNK_EXTRA: usize = CHUNK_HEADER_LEN - RECORD_HEADER_LEN;
/// Where datagrams are sealed: memory of the shell's.
pub trait Outbox {
    /// Lends room for one datagram behind those that are there; `None` when there is not so much.
    fn room(&mut self, len: usize) -> Option<&mut [u8]>;

    /// Takes what was lent last, the first `len` bytes of it, as a datagram.
    fn push(&mut self, len: usize, path: Path);
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
    /// Its datagrams are in the outbox.
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
    sealers: HashMap<SessionIndex, LaneSealer>,
    links: Links,
    generation: u64,
    answerer: Answerer,
    /// The number of the latest super-packet.
    super_packet: u16,
}

impl Outgoing {
    /// Starts with nothing claimed. `lane` belongs to this thread alone.
    pub fn new(lane: Lane) -> Self {
        Self {
            lane,
            sealers: HashMap::new(),
            links: Links::default(),
            generation: 0,
            answerer: Answerer::new(),
            super_packet: 0,
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
    fn follow(&mut self, table: &ForwardingTable) {
        if self.generation != table.generation {
            self.generation = table.generation;
            self.sealers.retain(|index, _| table.inlets.contains_key(index));
        }
    }
}

/// Seals a packet of the device, or each segment of a super-packet, for the peer that owns its destination.
pub fn seal(
    table: &ForwardingTable,
    outgoing: &mut Outgoing,
    now: Instant,
    packet: &mut DevicePacket<'_>,
    outbox: &mut impl Outbox,
) -> Outbound {
    outgoing.follow(table);
    let bytes = &*packet.bytes;
    let Ok(inner) = InnerPacket::parse(bytes) else { return Outbound::Drop(DropReason::MalformedPacket) };
    let peer = match table.router.outbound(&inner) {
        Ok(peer) => peer,
        Err(DropReason::NoRoute) => {
            let cause = (DropReason::NoRoute, IcmpError::NoRoute);
            return outgoing.refuse(now, table.answer_sources, cause, (&inner, bytes));
        }
        Err(reason) => return Outbound::Drop(reason),
    };
    let Some(outlet) = table.outlets.get(&peer) else { return Outbound::Stage(peer) };
    if table.heartbeat.is_stale(now) {
        // The machine slept, and this thread woke first. The node, once it has the packet, makes new keys.
        return Outbound::Stage(peer);
    }
    let cut = match packet.vnet.segments.map(|(segments, _)| Cut::new(bytes, segments)) {
        Some(None) => return Outbound::Drop(DropReason::MalformedPacket),
        Some(cut) => cut,
        None => None,
    };
    let (extra, needed) = match &cut {
        Some(cut) => (CHUNK_EXTRA, CHUNK_EXTRA + cut.longest_segment()),
        None => (0, bytes.len()),
    };
    let endpoint = outlet.path.remote;
    if needed > fits_any_link(endpoint) {
        let Some(longest) = outgoing.links.longest(now, endpoint) else { return Outbound::Measure(endpoint) };
        if needed > longest {
            let mtu = u16::try_from(longest.saturating_sub(extra)).unwrap_or(u16::MAX);
            let cause = (DropReason::TooLarge, IcmpError::TooBig { mtu });
            return outgoing.refuse(now, table.answer_sources, cause, (&inner, bytes));
        }
    }
    let sealer = match outgoing.sealers.entry(outlet.session.local_index()) {
        Entry::Occupied(sealer) => sealer.into_mut(),
        Entry::Vacant(vacant) => match outlet.session.claim_lane(outgoing.lane) {
            Some(sealer) => vacant.insert(sealer),
            None => return Outbound::Drop(DropReason::LanesExhausted),
        },
    };
    let mut sending = Sending { sealer, now, path: outlet.path, outbox };
    let outcome = match cut {
        None => sending.packet(packet, outlet.session.offload()),
        Some(cut) if cut.fits_chunks() && takes(outlet.session.offload(), packet.vnet) => {
            outgoing.super_packet = outgoing.super_packet.wrapping_add(1);
            sending.chunks(&cut, bytes, outgoing.super_packet)
        }
        Some(cut) => sending.segments(&cut, bytes),
    };
    match outcome {
        Ok(()) => Outbound::Sealed,
        Err(reason) => Outbound::Drop(reason),
    }
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
    outbox: &'s mut O,
}

impl<O: Outbox> Sending<'_, O> {
    /// Seals a packet that stands for itself. Its transport checksum is left to a peer whose kernel completes it.
    fn packet(&mut self, packet: &mut DevicePacket<'_>, offload: OffloadSet) -> Result<(), DropReason> {
        let mut kind = RECORD_PACKET;
        if let Some(checksum) = packet.vnet.checksum {
            let is_plain = PlainHeaders::parse(packet.bytes).is_some_and(|plain| plain.checksum() == checksum);
            if is_plain && offload.tcp {
                kind |= FLAG_NEEDS_CHECKSUM;
            } else if !complete_checksum(packet.bytes, checksum) {
                return Err(DropReason::MalformedPacket);
            }
        }
        self.seal(&[&[kind], packet.bytes])
    }

    /// Seals a super-packet in chunks of one segment each: what the own link takes beyond that, the path may not.
    fn chunks(&mut self, cut: &Cut, packet: &[u8], super_packet: u16) -> Result<(), DropReason> {
        let (headers, payload) = packet.split_at(cut.header_len());
        for part in cut.parts(0) {
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
    fn segments(&mut self, cut: &Cut, packet: &[u8]) -> Result<(), DropReason> {
        let mut segment = [0; MAX_SEGMENT_PACKET];
        for part in cut.parts(0) {
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
        let len = data::TRANSPORT_HEADER_LEN + record_len + TAILROOM;
        let datagram = self.outbox.room(len).ok_or(DropReason::TooLarge)?;
        let mut at = data::TRANSPORT_HEADER_LEN;
        for part in record {
            datagram[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.sealer.seal(self.now, datagram)?;
        self.outbox.push(len, self.path);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::forward::links::overhead;
    use crate::node::forward::testing::{NOW, with_peer};
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
        seal(table, outgoing, NOW, &mut packet, &mut Room(Vec::new()))
    }

    /// Memory for one datagram.
    struct Room(Vec<u8>);

    impl Outbox for Room {
        fn room(&mut self, len: usize) -> Option<&mut [u8]> {
            self.0 = vec![0; len];
            Some(&mut self.0)
        }

        fn push(&mut self, len: usize, _path: Path) {
            assert_eq!(len, self.0.len());
        }
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
