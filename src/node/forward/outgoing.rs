//! Packet out: from a packet or frame of a device to sealed datagrams.

use super::bundle::{Bundle, Leaving, MAX_BUNDLED};
use super::links::{Links, Room, fits_any_link, longest_of_stream};
use super::pressure::Pressure;
use super::sealing::{self, Outbox, Sealers, Sending, datagram_len};
use crate::crypto::identity::NodeId;
use crate::node::table::{ForwardingTable, Outlet};
use crate::path::PathClass;
use crate::router::icmp::{AnswerSources, Answerer};
use crate::router::segmentation::Cut;
use crate::router::{Owner, PeerIndex};
use crate::time::Instant;
use crate::wire::datagram::{Lane, TRANSPORT_HEADER_LEN};
use crate::wire::drops::DropReason;
use crate::wire::ecn::Ecn;
use crate::wire::frame::{Frame, SegmentNumber};
use crate::wire::handshake::OffloadSet;
use crate::wire::icmp::IcmpError;
use crate::wire::inner::{Fragment, InnerPacket};
use crate::wire::mss;
use crate::wire::offload::{PartialChecksum, PlainHeaders, SegmentKind, VnetHeader, complete_checksum};
use crate::wire::transport_record::{CHUNK_FIELDS_LEN, Layer, RECORD_HEADER_LEN};
use std::net::SocketAddr;

/// Bytes that a chunk has in front of its headers beyond those of a packet.
const CHUNK_EXTRA: usize = CHUNK_FIELDS_LEN;

/// What every path takes of IPv6 (RFC 8200 §5), in bytes.
const MIN_IPV6_MTU: usize = 1280;

/// A packet, or a frame, as the device gave it.
pub struct DevicePacket<'p> {
    /// What the kernel says of it.
    pub vnet: VnetHeader,
    /// IP and all above it, behind the link header of a frame.
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
    /// It is for the resolver on this node.
    Resolve,
    /// Write this ICMP error into the device; the packet is dropped for the reason.
    Answer(DropReason, Vec<u8>),
    /// Drop it.
    Drop(DropReason),
}

/// One sending thread's own state: its lane in every session that it has used, the links that it sends on, its budget for ICMP answers.
pub struct Outgoing {
    sealers: Sealers,
    links: Links,
    /// Of the table that the sealers follow.
    generation: u64,
    answerer: Answerer,
    /// The number of the latest super-packet or frame that left in parts.
    number: u16,
    /// Small packets in the outbox that wait for more of them, behind what was pushed.
    bundle: Option<Bundle>,
    pressure: Pressure,
    /// The longest record of frames, in bytes, where the link takes longer ones.
    longest_frames: usize,
    /// Packets and segments that were not sealed although [`Outbound::Sealed`] was said of what they were part of, and why.
    lost: Vec<(DropReason, usize)>,
}

impl Outgoing {
    /// Starts with nothing claimed. `lane` belongs to this thread alone.
    pub fn new(lane: Lane) -> Self {
        Self {
            sealers: Sealers::new(lane),
            links: Links::default(),
            generation: 0,
            answerer: Answerer::new(),
            number: 0,
            bundle: None,
            pressure: Pressure::default(),
            longest_frames: usize::MAX,
            lost: Vec::new(),
        }
    }

    /// Cuts frames so that no datagram is longer than one with a packet, or a super-packet's segment, of `mtu` bytes: what the operator thinks
    /// that paths behind the own link take.
    pub fn limit_frames(&mut self, mtu: u16) {
        self.longest_frames = usize::from(mtu) + CHUNK_EXTRA;
    }

    /// Takes the news that the device had nothing until now.
    pub fn device_was_empty(&mut self, now: Instant) {
        self.pressure.emptied(now);
    }

    /// Takes the MTU, in bytes, of the link by which datagrams to an endpoint leave; `None` when it is not known: then the link decides.
    pub fn learn_link(&mut self, now: Instant, endpoint: SocketAddr, mtu: Option<usize>) {
        self.links.learn(now, endpoint, mtu);
    }

    /// Takes the news that the link towards an endpoint refused a datagram for its length: what was believed of it is wrong.
    pub fn forget_link(&mut self, endpoint: SocketAddr) {
        self.links.forget(endpoint);
    }

    /// Seals a packet of the device, or each segment of a super-packet, for the peer that owns its destination.
    pub fn seal(
        &mut self,
        table: &ForwardingTable,
        now: Instant,
        packet: &mut DevicePacket<'_>,
        outbox: &mut impl Outbox,
    ) -> Outbound {
        self.follow(table, now, outbox);
        let (way, cut) = match self.way(table, now, packet) {
            Ok(way) => way,
            Err(instead) => return instead,
        };
        if mss::may_be_syn(packet.bytes) {
            let longest = longest_of_stream(table.inner_mtu, way.outlet);
            mss::clamp(packet.bytes, longest, packet.vnet.checksum.is_some());
        }
        let is_chosen = self.choose(now, packet.bytes);
        match self.seal_for(now, way, (cut, packet), is_chosen, outbox) {
            Ok(()) => Outbound::Sealed,
            Err(reason) => Outbound::Drop(reason),
        }
    }

    /// Seals a frame of a segment's device, or each part of a super-frame, for a peer in the segment.
    pub fn seal_frame(
        &mut self,
        table: &ForwardingTable,
        now: Instant,
        (segment, peer): (SegmentNumber, PeerIndex),
        frame: &mut DevicePacket<'_>,
        outbox: &mut impl Outbox,
    ) -> Outbound {
        self.follow(table, now, outbox);
        let (way, cut) = match self.frame_way(table, now, (segment, peer), frame) {
            Ok(way) => way,
            Err(instead) => return instead,
        };
        let packet_at = way.layer.link_len(frame.bytes);
        let is_chosen = packet_at.is_some_and(|at| self.choose(now, &mut frame.bytes[at..]));
        match self.seal_for(now, way, (cut, frame), is_chosen, outbox) {
            Ok(()) => Outbound::Sealed,
            Err(reason) => Outbound::Drop(reason),
        }
    }

    fn seal_for(
        &mut self,
        now: Instant,
        way: Way<'_>,
        (cut, packet): (Option<Cut>, &mut DevicePacket<'_>),
        is_chosen: bool,
        outbox: &mut impl Outbox,
    ) -> Result<(), DropReason> {
        match cut {
            Some(cut) => self.super_packet(now, way, (&cut, packet), is_chosen, outbox),
            None if is_chosen => Err(DropReason::QueueStanding),
            None => self.packet(now, way, packet, outbox),
        }
    }

    /// Seals what waits in a bundle: it is sent now. Returns the packets and segments that were given up since the last time, by reason.
    pub fn finish(&mut self, now: Instant, outbox: &mut impl Outbox) -> Vec<(DropReason, usize)> {
        self.close_bundle(now, outbox);
        std::mem::take(&mut self.lost)
    }

    /// Follows a new table: sealers of sessions that are gone end. The budget for answers goes on.
    fn follow(&mut self, table: &ForwardingTable, now: Instant, outbox: &mut impl Outbox) {
        if self.generation != table.generation {
            self.close_bundle(now, outbox);
            self.generation = table.generation;
            self.sealers.retain(|session| table.inlets.contains_key(session));
        }
    }

    /// Says where a packet goes, and how it is cut if it stands for several; or what becomes of it instead.
    fn way<'t>(
        &mut self,
        table: &'t ForwardingTable,
        now: Instant,
        packet: &DevicePacket<'_>,
    ) -> Result<(Way<'t>, Option<Cut>), Outbound> {
        let bytes = &*packet.bytes;
        let inner = InnerPacket::parse(bytes).map_err(|_| Outbound::Drop(DropReason::MalformedPacket))?;
        if table.answer_sources.contains(inner.destination) {
            // Of the own addresses alone; the resolver looks closer.
            let is_ours = table.router.owner(inner.source) == Some(Owner::Local);
            return Err(if is_ours { Outbound::Resolve } else { Outbound::Drop(DropReason::SourceNotOurs) });
        }
        let peer = table.router.outbound(&inner).and_then(|peer| {
            table.filter.check(now, peer, &inner, bytes)?;
            Ok(peer)
        });
        let peer = match peer {
            Ok(peer) => peer,
            Err(DropReason::NoRoute) => {
                let cause = (DropReason::NoRoute, IcmpError::NoRoute);
                return Err(self.refuse(now, table.answer_sources, cause, (&inner, bytes)));
            }
            Err(DropReason::Prohibited) => {
                let cause = (DropReason::Prohibited, IcmpError::Prohibited);
                return Err(self.refuse(now, table.answer_sources, cause, (&inner, bytes)));
            }
            Err(reason) => return Err(Outbound::Drop(reason)),
        };
        let outlet = outlet(table, now, peer)?;
        let cut = match packet.vnet.segments.map(|(segments, _)| Cut::new(Layer::Ip, bytes, segments)) {
            Some(None) => return Err(Outbound::Drop(DropReason::MalformedPacket)),
            Some(cut) => cut,
            None => None,
        };
        let (extra, needed) = match &cut {
            Some(cut) => (CHUNK_EXTRA, CHUNK_EXTRA + cut.longest_segment()),
            None => (0, bytes.len()),
        };
        let room = self.room(now, outlet, needed)?;
        if needed > room.told && !may_be_cut(&inner, needed - extra) {
            let mtu = u16::try_from(room.told.saturating_sub(extra)).unwrap_or(u16::MAX);
            let cause = (DropReason::TooLarge, IcmpError::TooBig { mtu });
            return Err(self.refuse(now, table.answer_sources, cause, (&inner, bytes)));
        }
        Ok((Way { layer: Layer::Ip, outlet, room: room.whole }, cut))
    }

    /// Says how much of something with `needed` bytes one datagram takes, or that the own link has to be looked at first.
    fn room(&self, now: Instant, outlet: &Outlet, needed: usize) -> Result<Room, Outbound> {
        let path = &outlet.path;
        // A stream is cut elsewhere.
        if needed <= fits_any_link(path) || path.class() == PathClass::Stream {
            return Ok(Room { whole: needed, told: needed });
        }
        let link = self.links.longest(now, path).ok_or(Outbound::Measure(path.remote))?;
        Ok(Room::of(link, path, outlet.mtu))
    }

    /// Says how a frame leaves for a peer, and how it is cut if it stands for several: a stream into what the link takes, whatever the
    /// kernel cuts it into.
    fn frame_way<'t>(
        &mut self,
        table: &'t ForwardingTable,
        now: Instant,
        (segment, peer): (SegmentNumber, PeerIndex),
        frame: &DevicePacket<'_>,
    ) -> Result<(Way<'t>, Option<Cut>), Outbound> {
        let (layer, bytes) = (Layer::Link(segment), &*frame.bytes);
        let outlet = outlet(table, now, peer)?;
        if !outlet.session.offload().frames {
            return Err(Outbound::Drop(DropReason::FramesNotCarried));
        }
        let cut = match frame.vnet.segments.map(|(segments, _)| Cut::new(layer, bytes, segments)) {
            Some(None) => return Err(Outbound::Drop(DropReason::MalformedFrame)),
            Some(cut) => cut.filter(|_| is_unpadded(layer, bytes)),
            None => None,
        };
        if frame.vnet.segments.is_some() != cut.is_some() {
            return Err(Outbound::Drop(DropReason::MalformedFrame));
        }
        let needed = cut.as_ref().map_or(bytes.len(), |cut| CHUNK_EXTRA + cut.longest_segment());
        let extra = layer.record_header_len() - RECORD_HEADER_LEN;
        let room = self.room(now, outlet, needed + extra)?;
        let room = room.whole.min(self.longest_frames).saturating_sub(extra);
        let cut = cut.map(|cut| cut.narrowed(room.saturating_sub(CHUNK_EXTRA + cut.header_len())));
        Ok((Way { layer, outlet, room }, cut))
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

    /// Says whether a packet, or the first of its segments, is lost to tell its sender that the queue stands. One that can be marked is marked
    /// instead.
    fn choose(&mut self, now: Instant, packet: &mut [u8]) -> bool {
        if packet.len() <= MAX_BUNDLED || !self.pressure.chooses(now) {
            return false;
        }
        let marked = Ecn::of(packet).received_in(Ecn::Congested);
        if let Some(marked) = marked {
            marked.write(packet);
        }
        marked.is_none()
    }

    /// Seals a packet that stands for itself, or puts it into a bundle.
    fn packet(
        &mut self,
        now: Instant,
        Way { layer, outlet: Outlet { session, path, .. }, room }: Way<'_>,
        packet: &mut DevicePacket<'_>,
        outbox: &mut impl Outbox,
    ) -> Result<(), DropReason> {
        let is_in_parts = packet.bytes.len() > room;
        let offload = if is_in_parts { OffloadSet::default() } else { session.offload() };
        let needs_checksum = leaves_checksum(layer, packet, offload)?;
        let ecn = mark(layer, packet.bytes);
        if packet.bytes.len() <= MAX_BUNDLED {
            self.sealers.claim(session)?;
            let leaving = Leaving { layer, session: session.local_index(), path: *path, ecn };
            return self.bundle(now, leaving, needs_checksum, packet.bytes, outbox);
        }
        self.close_bundle(now, outbox);
        let sealer = self.sealers.claim(session)?;
        let mut sending = Sending { sealer, layer, now, number: &mut self.number, path: *path, ecn, outbox };
        if is_in_parts { sending.fragments(packet.bytes, room) } else { sending.packet(needs_checksum, packet.bytes) }
    }

    /// Seals a super-packet: without its first segment if that is chosen to be lost, because those behind it tell the receiver so at once.
    fn super_packet(
        &mut self,
        now: Instant,
        Way { layer, outlet: Outlet { session, path, .. }, room }: Way<'_>,
        (cut, packet): (&Cut, &DevicePacket<'_>),
        is_chosen: bool,
        outbox: &mut impl Outbox,
    ) -> Result<(), DropReason> {
        self.close_bundle(now, outbox);
        let sealer = self.sealers.claim(session)?;
        if is_chosen {
            self.lost.push((DropReason::QueueStanding, 1));
        }
        let parts = cut.parts(0).skip(usize::from(is_chosen));
        let ecn = mark(layer, packet.bytes);
        let mut sending = Sending { sealer, layer, now, number: &mut self.number, path: *path, ecn, outbox };
        let is_short = cut.longest_segment().saturating_add(CHUNK_EXTRA) <= room;
        if is_short && cut.fits_chunks() && takes(session.offload(), packet.vnet) {
            sending.chunks(cut, parts, packet.bytes)
        } else {
            sending.segments(cut, parts, packet.bytes, room)
        }
    }

    /// Puts a small packet to those that wait to leave in the same way, or begins to wait with it. The session's lane is claimed.
    fn bundle(
        &mut self,
        now: Instant,
        leaving: Leaving,
        needs_checksum: bool,
        packet: &[u8],
        outbox: &mut impl Outbox,
    ) -> Result<(), DropReason> {
        if self.bundle.as_ref().is_none_or(|open| !open.has_room(leaving, packet.len())) {
            self.close_bundle(now, outbox);
        }
        let len = datagram_len(Bundle::capacity(&leaving.path));
        let room = sealing::room(outbox, &leaving.path, len).ok_or(DropReason::TooLarge)?;
        let open = self.bundle.get_or_insert_with(|| Bundle::new(leaving));
        open.add(&mut room[TRANSPORT_HEADER_LEN..], needs_checksum, packet);
        Ok(())
    }

    /// Seals what waits in a bundle.
    fn close_bundle(&mut self, now: Instant, outbox: &mut impl Outbox) {
        if let Some(bundle) = self.bundle.take()
            && let Err(reason) = self.seal_bundle(now, &bundle, outbox)
        {
            self.lost.push((reason, bundle.packets()));
        }
    }

    fn seal_bundle(&mut self, now: Instant, bundle: &Bundle, outbox: &mut impl Outbox) -> Result<(), DropReason> {
        let Leaving { session, path, ecn, .. } = bundle.leaving();
        let sealer = self.sealers.get(session).ok_or(DropReason::UnknownSession)?;
        let room = sealing::room(outbox, &path, datagram_len(Bundle::capacity(&path))).ok_or(DropReason::TooLarge)?;
        let len = datagram_len(bundle.close(&mut room[TRANSPORT_HEADER_LEN..]));
        sealer.seal(now, &mut room[..len])?;
        sealing::push(outbox, len, path, ecn)
    }
}

/// How a packet or frame leaves.
#[derive(Clone, Copy)]
struct Way<'t> {
    layer: Layer,
    outlet: &'t Outlet,
    /// The longest packet or frame in one datagram, in bytes.
    room: usize,
}

/// Finds where to seal for a peer, or says what becomes of what is for it instead.
fn outlet(table: &ForwardingTable, now: Instant, peer: PeerIndex) -> Result<&Outlet, Outbound> {
    // When the machine slept and this thread woke first, the node, once it has the packet, makes new keys.
    let outlet = table.outlets.get(peer).filter(|_| !table.heartbeat.is_stale(now));
    outlet.ok_or_else(|| stage(table, peer))
}

/// Says whether a packet of `len` bytes, of which a super-packet stands for several, travels in parts where it is too long: its sender cuts
/// what is long itself, or lets others do so, or IP promises that so much passes (RFC 8200 §5).
fn may_be_cut(inner: &InnerPacket, len: usize) -> bool {
    inner.fragment != Fragment::Whole || !inner.dont_fragment || inner.source.is_ipv6() && len <= MIN_IPV6_MTU
}

/// What the IP header of a packet, or of the one in a frame, says of congestion.
fn mark(layer: Layer, bytes: &[u8]) -> Ecn {
    layer.link_len(bytes).map_or(Ecn::NotCapable, |at| Ecn::of(&bytes[at..]))
}

/// Says whether nothing follows the IP packet in a frame: where something does, lengths made anew would count it in.
fn is_unpadded(layer: Layer, bytes: &[u8]) -> bool {
    match layer {
        Layer::Ip => true,
        Layer::Link(_) => {
            let frame = Frame::parse(bytes).ok();
            let packet = frame.and_then(|frame| Some((frame.link_len, frame.ip(bytes)?.ok()?.len())));
            packet.is_some_and(|(link_len, len)| link_len + len == bytes.len())
        }
    }
}

/// What becomes of a packet for a peer without a session.
fn stage(table: &ForwardingTable, peer: PeerIndex) -> Outbound {
    // Who has a route has a number, and was a member when the table was made.
    table.members.get(peer.position()).map_or(Outbound::Drop(DropReason::NoRoute), |member| Outbound::Stage(*member))
}

/// Says whether the packet's transport checksum is left to a peer whose kernel completes it; completes it, if it is not.
fn leaves_checksum(layer: Layer, packet: &mut DevicePacket<'_>, offload: OffloadSet) -> Result<bool, DropReason> {
    let Some(checksum) = packet.vnet.checksum else { return Ok(false) };
    if offload.tcp && plain_checksum(layer, packet.bytes) == Some(checksum) {
        return Ok(true);
    }
    // Done once, for all to whom a frame goes.
    packet.vnet.checksum = None;
    complete_checksum(packet.bytes, checksum).then_some(false).ok_or(DropReason::MalformedPacket)
}

/// Where the receiver will find the transport checksum, by the headers alone.
fn plain_checksum(layer: Layer, bytes: &[u8]) -> Option<PartialChecksum> {
    let link_len = layer.link_len(bytes).filter(|_| is_unpadded(layer, bytes))?;
    let plain = PlainHeaders::parse(&bytes[link_len..])?;
    VnetHeader { checksum: Some(plain.checksum()), segments: None }.behind(link_len).checksum
}

/// Says whether a device takes such a super-packet.
fn takes(offload: OffloadSet, vnet: VnetHeader) -> bool {
    match vnet.segments.map(|(segments, _)| segments.kind) {
        Some(SegmentKind::TcpV4 | SegmentKind::TcpV6) => offload.tcp,
        Some(SegmentKind::Udp) => offload.udp,
        None => true,
    }
}

/// Lends each packet or frame that `packet` stands for, whole and with all checksums.
pub fn each_whole(layer: Layer, packet: &mut DevicePacket<'_>, mut lend: impl FnMut(&[u8])) {
    let cut = packet.vnet.segments.and_then(|(segments, _)| Cut::new(layer, packet.bytes, segments));
    match (cut, packet.vnet) {
        (Some(cut), _) => {
            let mut segment = vec![0; cut.longest_segment()];
            for part in cut.parts(0) {
                let len = cut.write_segment(packet.bytes, &part, &mut segment);
                lend(&segment[..len]);
            }
        }
        (None, VnetHeader { checksum: Some(checksum), segments: None }) => {
            packet.vnet.checksum = None;
            if complete_checksum(packet.bytes, checksum) {
                lend(packet.bytes);
            }
        }
        (None, VnetHeader { checksum: None, segments: None }) => lend(packet.bytes),
        // Nobody can say what it stands for.
        (None, VnetHeader { segments: Some(_), .. }) => {}
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
        // It must not be cut on the way.
        packet[..10].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6]);
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[12..16].copy_from_slice(&[10, 64, 0, 1]);
        packet[16..20].copy_from_slice(&destination);
        let mut packet = DevicePacket { vnet: VnetHeader::default(), bytes: &mut packet };
        outgoing.seal(table, NOW, &mut packet, &mut Sealed::default())
    }

    #[test]
    fn a_packet_that_the_link_cannot_take_is_answered_however_narrow_the_link() {
        for (endpoint, mtu) in [("192.0.2.2:4647", 1124), ("192.0.2.2:4647", 1420), ("[2001:db8::2]:4647", 1280)] {
            let (.., near, _) = established_pair();
            let endpoint = endpoint.parse().unwrap();
            let table = with_peer(near.session, endpoint);
            let mut outgoing = Outgoing::new(Lane::new(1, 0));
            let fitting = u16::try_from(mtu - overhead(&endpoint.into())).unwrap();
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
