//! The two hot routes, for any thread: packet out ([`seal`]) and packet in ([`open`]).
//!
//! Both read an immutable [`ForwardingTable`] and work in the buffers that the shell lent. A super-packet leaves as chunks, and comes
//! in as [`Runs`] of them. Whatever is not plain data is handed on: a packet without a session is staged, everything that is not an inner
//! packet goes to [`super::Node`].

use super::control::CONTROL_MTU;
use super::table::{ForwardingTable, Inlet};
use crate::crypto::identity::NodeId;
use crate::path::Path;
use crate::policy::Rights;
use crate::router::icmp::{AnswerSources, Answerer};
use crate::router::segment::{Cut, Run, SuperPacket};
use crate::session::{Knock, LaneSealer, Source};
use crate::time::Instant;
use crate::wire::control::MAX_CONTROL_LEN;
use crate::wire::data::{
    self, CHUNK_HEADER_LEN, Chunk, Datagram, DatagramError, FLAG_NEEDS_CHECKSUM, Lane, RECORD_HEADER_LEN,
    RECORD_PACKET, Record, SessionIndex,
};
use crate::wire::drops::DropReason;
use crate::wire::handshake::{InitiationTag, OffloadSet};
use crate::wire::icmp::IcmpError;
use crate::wire::inner::InnerPacket;
use crate::wire::offload::{PlainHeaders, SegmentKind, VnetHeader, complete_checksum};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Free bytes in front of a packet's record: the transport header and the record's kind.
pub const HEADROOM: usize = data::TRANSPORT_HEADER_LEN + data::RECORD_HEADER_LEN;

/// Free bytes behind a record: the tag.
pub const TAILROOM: usize = crate::crypto::aead::TAG_LEN;

/// Bytes around an inner packet in a datagram to an endpoint: IP and UDP headers, and what sealing adds.
const fn overhead(endpoint: SocketAddr) -> usize {
    let outer = if endpoint.is_ipv4() { 20 + 8 } else { 40 + 8 };
    outer + HEADROOM + TAILROOM
}

/// The longest inner packet that is sent without asking: no IPv6 link is narrower than 1280 bytes (RFC 8200 §5), and no IPv4 link that
/// P2Plus works on than [`data::MIN_WIRE_LEN`].
const fn fits_any_link(endpoint: SocketAddr) -> usize {
    let narrowest = if endpoint.is_ipv4() { data::MIN_WIRE_LEN } else { 1280 };
    narrowest - overhead(endpoint)
}

/// The longest packet that a segment of a super-packet becomes, in bytes: no device has a larger MTU.
const MAX_SEGMENT_PACKET: usize = 9217;

/// Bytes that a chunk has in front of its headers beyond those of a packet.
const CHUNK_EXTRA: usize = CHUNK_HEADER_LEN - RECORD_HEADER_LEN;

/// How long the MTU of the link towards an endpoint is believed; one that shrank meanwhile is noticed at once.
const LINK_LIFETIME: Duration = Duration::from_secs(60);

/// Endpoints whose link is remembered; asking again costs two system calls.
const MAX_LINKS: usize = 4096;

/// How often one session's liveness is reported at most: a flood of packets from a new address is one report.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Paid initiations remembered at a time: forgetting one costs its other parts their place before the strangers', no more.
const MAX_PAID: usize = 1024;

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

/// How far a handshake datagram that passed the gate may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its sender proved, by a cookie, that it receives where it sends from.
    Proved,
    /// It claims to answer a handshake of this node.
    Answer,
    /// Its source may be forged.
    Stranger,
}

/// What becomes of a datagram that a socket gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound<'d> {
    /// Write the inner packet into the device.
    Deliver(VnetHeader, &'d [u8]),
    /// Put these segments of a super-packet to those before them, by [`Runs::take`].
    Chunk(SessionIndex, Chunk<'d>),
    /// Hand the opened record of this session to the node: control, stream, or the empty record; a kilobyte at most.
    Record(SessionIndex, &'d [u8]),
    /// Hand the datagram to the node: handshake and cookies, past the gate.
    Handshake(Trust, &'d [u8]),
    /// Drop it.
    Drop(DropReason),
}

/// One sending thread's own state: its lane in every session that it has used, the links that it sends on, its budget for ICMP answers.
pub struct Outgoing {
    lane: Lane,
    sealers: HashMap<SessionIndex, LaneSealer>,
    /// By endpoint: the longest inner packet that the own link takes, and until when that is believed.
    links: HashMap<SocketAddr, (usize, Instant)>,
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
            links: HashMap::new(),
            generation: 0,
            answerer: Answerer::new(),
            super_packet: 0,
        }
    }

    /// Takes the MTU, in bytes, of the link by which datagrams to an endpoint leave; `None` when it is not known: then the link decides.
    pub fn learn_link(&mut self, now: Instant, endpoint: SocketAddr, mtu: Option<usize>) {
        if self.links.len() >= MAX_LINKS {
            self.links.clear();
        }
        let longest = mtu.map_or(usize::MAX, |mtu| mtu.saturating_sub(overhead(endpoint)));
        self.links.insert(endpoint, (longest, now + LINK_LIFETIME));
    }

    /// Takes the news that the link towards an endpoint refused a datagram for its length: what was believed of it is wrong.
    pub fn forget_link(&mut self, endpoint: SocketAddr) {
        self.links.remove(&endpoint);
    }

    /// The longest inner packet for an endpoint, if that is known.
    fn longest(&self, now: Instant, endpoint: SocketAddr) -> Option<usize> {
        self.links.get(&endpoint).filter(|(_, until)| now < *until).map(|(longest, _)| *longest)
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
        let Some(longest) = outgoing.longest(now, endpoint) else { return Outbound::Measure(endpoint) };
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

/// One receiving thread's own state: what it reported lately, and whose initiations were paid for.
#[derive(Default)]
pub struct Incoming {
    reported: HashMap<SessionIndex, (Path, Instant)>,
    paid: Paid,
    generation: u64,
}

/// The latest initiations that came with a cookie: their other parts, which have none, come from the same place.
#[derive(Default)]
struct Paid {
    known: HashSet<(SocketAddr, InitiationTag)>,
    order: VecDeque<(SocketAddr, InitiationTag)>,
}

impl Paid {
    fn insert(&mut self, from: SocketAddr, tag: InitiationTag) {
        if !self.known.insert((from, tag)) {
            return;
        }
        self.order.push_back((from, tag));
        if self.order.len() > MAX_PAID {
            let oldest = self.order.pop_front();
            oldest.map(|oldest| self.known.remove(&oldest));
        }
    }

    /// Judges a datagram that passed the gate.
    fn trust(&mut self, from: SocketAddr, knock: Knock) -> Trust {
        match knock {
            Knock::Opening { tag, is_paid: true } => {
                self.insert(from, tag);
                Trust::Proved
            }
            Knock::Part(tag) if self.known.contains(&(from, tag)) => Trust::Proved,
            Knock::Opening { is_paid: false, .. } | Knock::Part(_) => Trust::Stranger,
            Knock::Answer => Trust::Answer,
        }
    }
}

impl Incoming {
    /// Starts with nothing reported.
    pub fn new() -> Self {
        Self::default()
    }

    fn follow(&mut self, table: &ForwardingTable) {
        if self.generation != table.generation {
            self.generation = table.generation;
            self.reported.retain(|index, _| table.inlets.contains_key(index));
        }
    }

    /// Says whether the node should hear that something of this session came by `path`, and notes it.
    fn is_news(&mut self, now: Instant, inlet: &Inlet, path: Path) -> bool {
        if !inlet.awaited && inlet.path == Some(path) {
            return false;
        }
        let index = inlet.session.local_index();
        let known = self
            .reported
            .get(&index)
            .is_some_and(|(reported, at)| *reported == path && now.saturating_since(*at) < REPORT_INTERVAL);
        if !known {
            self.reported.insert(index, (path, now));
        }
        !known
    }
}

/// Opens a datagram in place that came by `path`. `news` says the index of a session whose peer turned out to be alive or elsewhere.
pub fn open<'d>(
    table: &ForwardingTable,
    incoming: &mut Incoming,
    now: Instant,
    path: Path,
    datagram: &'d mut [u8],
) -> (Inbound<'d>, Option<SessionIndex>) {
    incoming.follow(table);
    let header = match Datagram::classify(datagram) {
        Ok(Datagram::Transport(header)) => header,
        Ok(Datagram::Relayed(_)) | Err(DatagramError::UnknownType(_)) => {
            return (Inbound::Drop(DropReason::UnknownType), None);
        }
        Ok(_) => {
            return match table.gate.check(Source::Endpoint(path.remote), datagram) {
                Ok(knock) => (Inbound::Handshake(incoming.paid.trust(path.remote, knock), datagram), None),
                Err(refusal) => (Inbound::Drop(refusal.into()), None),
            };
        }
        Err(_) => return (Inbound::Drop(DropReason::MalformedDatagram), None),
    };
    let Some(inlet) = table.inlets.get(&header.receiver) else {
        return (Inbound::Drop(DropReason::UnknownSession), None);
    };
    let plaintext = match inlet.session.open(now, &header, &mut datagram[data::TRANSPORT_HEADER_LEN..]) {
        Ok(plaintext) => plaintext,
        Err(error) => return (Inbound::Drop(error.into()), None),
    };
    let news = incoming.is_news(now, inlet, path).then_some(header.receiver);
    let inbound = if let Ok(Record::Packet { needs_checksum, .. }) = Record::decode(plaintext) {
        admit(table, inlet, &mut plaintext[RECORD_HEADER_LEN..], needs_checksum)
    } else {
        match Record::decode(plaintext) {
            Ok(Record::Chunk(chunk)) => Inbound::Chunk(header.receiver, chunk),
            Ok(record) if is_for_node(&record) => Inbound::Record(header.receiver, plaintext),
            Ok(_) | Err(_) => Inbound::Drop(DropReason::MalformedRecord),
        }
    };
    (inbound, news)
}

/// Says whether the node takes such a record. What waits for it is bounded in records, so each has a bound.
fn is_for_node(record: &Record<'_>) -> bool {
    match record {
        Record::Empty => true,
        Record::Control(content) => content.len() <= MAX_CONTROL_LEN,
        Record::Stream(packet) => packet.len() <= CONTROL_MTU,
        Record::Packet { .. } | Record::Chunk(_) => false,
    }
}

/// Lets an inner packet through only from a member, from that member's own address, to this node. Where its checksum is left to do, the
/// kernel is told so in one's own words.
fn admit<'d>(table: &ForwardingTable, inlet: &Inlet, packet: &'d mut [u8], needs_checksum: bool) -> Inbound<'d> {
    if let Err(reason) = check(table, inlet, packet) {
        return Inbound::Drop(reason);
    }
    let mut vnet = VnetHeader::default();
    if needs_checksum {
        let Some(plain) = PlainHeaders::parse(packet) else { return Inbound::Drop(DropReason::MalformedPacket) };
        let (headers, payload) = packet.split_at_mut(plain.header_len());
        plain.set_payload_len(headers, payload.len());
        vnet.checksum = Some(plain.checksum());
    }
    Inbound::Deliver(vnet, packet)
}

fn check(table: &ForwardingTable, inlet: &Inlet, packet: &[u8]) -> Result<(), DropReason> {
    let Rights::Member(peer) = inlet.rights else { return Err(DropReason::RecordNotAllowed) };
    let inner = InnerPacket::parse(packet).map_err(|_| DropReason::MalformedPacket)?;
    table.router.inbound(peer, &inner)
}

/// The chunks of one batch, put together as far as they go on from each other.
#[derive(Default)]
pub struct Runs<'d>(Option<Run<'d>>);

impl<'d> Runs<'d> {
    /// Takes a chunk. Returns the packet that came before it, when it does not go on there, and why it is dropped, if it is.
    pub fn take(
        &mut self,
        table: &ForwardingTable,
        index: SessionIndex,
        chunk: &Chunk<'d>,
    ) -> (Option<SuperPacket<'d>>, Option<DropReason>) {
        if self.0.as_mut().is_some_and(|run| run.take(index, chunk)) {
            return (None, None);
        }
        let before = self.end();
        let Some(inlet) = table.inlets.get(&index) else { return (before, Some(DropReason::UnknownSession)) };
        let Some(mut run) = Run::begin(index, chunk) else { return (before, Some(DropReason::MalformedRecord)) };
        if let Err(reason) = check(table, inlet, run.headers()) {
            return (before, Some(reason));
        }
        self.0 = Some(run);
        (before, None)
    }

    /// Ends the run under way: what follows is something else, or nothing.
    pub fn end(&mut self) -> Option<SuperPacket<'d>> {
        self.0.take().map(Run::finish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::table::Outlet;
    use crate::router::{Prefix, Router};
    use crate::session::Session;
    use crate::session::testing::established_pair;
    use crate::wire::data::{RECORD_CONTROL, RECORD_STREAM};
    use std::net::IpAddr;
    use std::sync::Arc;

    const NOW: Instant = Instant::from_micros(5);

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

    /// The table of a node at 10.64.0.1 that has a session with a member at 10.64.0.2, who is reached at an endpoint.
    fn with_peer(session: Arc<Session>, endpoint: SocketAddr) -> ForwardingTable {
        let (peer, index) = (NodeId([2; 32]), session.local_index());
        let own = Prefix::host(IpAddr::from([10, 64, 0, 1]));
        let theirs = (Prefix::host(IpAddr::from([10, 64, 0, 2])), peer);
        let subnet = Prefix::new(IpAddr::from([10, 64, 0, 0]), 20).unwrap();
        let path = Path::from(endpoint);
        let outlet = Outlet { session: Arc::clone(&session), path };
        let inlet =
            Inlet { session, rights: Rights::Member(peer), guest_origin: None, path: Some(path), awaited: false };
        ForwardingTable {
            generation: 1,
            router: Arc::new(Router::new([own], [subnet], [theirs])),
            outlets: Arc::new(HashMap::from([(peer, outlet)])),
            inlets: Arc::new(HashMap::from([(index, inlet)])),
            answer_sources: AnswerSources { v4: Some([10, 64, 0, 53].into()), v6: None },
            ..ForwardingTable::empty()
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
    fn a_record_for_the_node_that_is_longer_than_any_honest_one_is_dropped() {
        let (.., near, far) = established_pair();
        let path = Path::from(SocketAddr::from(([192, 0, 2, 2], 4647)));
        let (table, mut incoming) = (with_peer(near.session, path.remote), Incoming::new());
        let mut sealer = far.session.claim_lane(Lane::NODE).unwrap();
        for (kind, longest) in [(RECORD_STREAM, CONTROL_MTU), (RECORD_CONTROL, MAX_CONTROL_LEN)] {
            for (len, is_taken) in [(longest, true), (longest + 1, false), (2_000, false), (60_000, false)] {
                let mut datagram = vec![0; HEADROOM + len + TAILROOM];
                datagram[HEADROOM - 1] = kind;
                sealer.seal(NOW, &mut datagram).unwrap();
                let (inbound, _) = open(&table, &mut incoming, NOW, path, &mut datagram);
                match inbound {
                    Inbound::Record(_, record) => assert!(is_taken && record.len() == len + 1, "{kind}: {len}"),
                    other => assert!(!is_taken && other == Inbound::Drop(DropReason::MalformedRecord), "{kind}: {len}"),
                }
            }
        }
    }

    #[test]
    fn the_parts_of_a_paid_initiation_are_trusted_from_its_source_alone_and_not_for_ever() {
        let mut paid = Paid::default();
        let at = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        let tag = |number: u64| InitiationTag(number.to_le_bytes());
        assert_eq!(paid.trust(at(1), Knock::Part(tag(0))), Trust::Stranger);
        assert_eq!(paid.trust(at(1), Knock::Opening { tag: tag(0), is_paid: false }), Trust::Stranger);
        assert_eq!(paid.trust(at(1), Knock::Part(tag(0))), Trust::Stranger);
        assert_eq!(paid.trust(at(1), Knock::Opening { tag: tag(0), is_paid: true }), Trust::Proved);
        assert_eq!(paid.trust(at(1), Knock::Part(tag(0))), Trust::Proved);
        assert_eq!(paid.trust(at(2), Knock::Part(tag(0))), Trust::Stranger);
        for number in 1..=MAX_PAID as u64 {
            assert_eq!(paid.trust(at(1), Knock::Opening { tag: tag(number), is_paid: true }), Trust::Proved);
        }
        assert_eq!(paid.trust(at(1), Knock::Part(tag(0))), Trust::Stranger);
        assert!(paid.known.len() == MAX_PAID && paid.order.len() == MAX_PAID);
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
