//! Packet in: from a datagram to a packet or frame for a device.

use super::bundle::MAX_BUNDLED;
use super::fragments::Fragments;
use super::links::longest_of_stream;
use super::paid::{Paid, Trust};
use super::pressure::Pressure;
use crate::node::control::CONTROL_MTU;
use crate::node::peers::source_of;
use crate::node::relay::LabelUse;
use crate::node::table::{ForwardingTable, Inlet};
use crate::path::Path;
use crate::router::segmentation::{Run, SuperPacket};
use crate::session::BySession;
use crate::time::Instant;
use crate::wire::control::MAX_CONTROL_LEN;
use crate::wire::datagram::{Datagram, DatagramError, Lane, SessionIndex, TRANSPORT_HEADER_LEN};
use crate::wire::drops::DropReason;
use crate::wire::ecn::Ecn;
use crate::wire::frame::Frame;
use crate::wire::handshake::OffloadSet;
use crate::wire::inner::InnerPacket;
use crate::wire::mss;
use crate::wire::offload::{PlainHeaders, VnetHeader};
use crate::wire::relay::{ENVELOPE_LEN, Envelope};
use crate::wire::transport_record::{
    Chunk, Fragment, KIND_MASK, Layer, MEASURE_LEN, RECORD_CHUNK, RECORD_FRAME, RECORD_FRAME_CHUNK, RECORD_PACKET,
    Record, next_bundled,
};
use std::time::Duration;

/// How often one session's liveness is reported at most: a flood of packets from a new address is one report.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// How a datagram came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// By which path.
    pub path: Path,
    /// What the path said of congestion.
    pub ecn: Ecn,
}

impl From<Path> for Arrival {
    /// By this path, without a mark.
    fn from(path: Path) -> Self {
        Self { path, ecn: Ecn::NotCapable }
    }
}

/// Where the packets go that datagrams carried.
pub trait Delivery {
    /// Takes a packet for the device, or a frame for that of its segment.
    fn packet(&mut self, layer: Layer, vnet: &VnetHeader, packet: &[u8]);

    /// Takes what several made up together, likewise.
    fn super_packet(&mut self, packet: &SuperPacket<'_>);

    /// Takes note that a packet was given up.
    fn dropped(&mut self, reason: DropReason);
}

/// What the node gets of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound<'d> {
    /// Nothing: its packets went to the device, or it was dropped.
    Done,
    /// The opened record of this session, and the path that it came by: control, stream, or the empty record; a kilobyte at most.
    Record(SessionIndex, Path, &'d [u8]),
    /// The datagram, and the path that it came by: handshake and cookies, past the gate.
    Handshake(Trust, Path, &'d [u8]),
    /// The datagram, to be sent on by this path with this mark.
    Pass(Path, Ecn, &'d [u8]),
}

/// What the node gets of a datagram, and the session, with the path, of a peer that turned out to be alive or elsewhere.
pub type Opened<'d> = (Inbound<'d>, Option<(SessionIndex, Path)>);

/// One receiving thread's own state: what it reported lately, and whose initiations were paid for.
#[derive(Default)]
pub struct Incoming {
    /// What the device takes.
    offload: OffloadSet,
    reported: BySession<(Path, Instant)>,
    paid: Paid,
    generation: u64,
    pressure: Pressure,
    fragments: Fragments,
}

impl Incoming {
    /// Starts with nothing reported, for a device that takes these super-packets.
    pub fn new(offload: OffloadSet) -> Self {
        Self { offload, ..Self::default() }
    }

    /// Takes the news that the socket had nothing until now.
    pub fn socket_was_empty(&mut self, now: Instant) {
        self.pressure.emptied(now);
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

/// One batch of datagrams on its way in. What goes on from each other in it is put together for the device.
pub struct Opening<'t, 'd> {
    table: &'t ForwardingTable,
    incoming: &'t mut Incoming,
    now: Instant,
    run: Option<Run<'d>>,
    authentic: usize,
}

impl<'t, 'd> Opening<'t, 'd> {
    /// Begins a batch.
    pub fn new(table: &'t ForwardingTable, incoming: &'t mut Incoming, now: Instant) -> Self {
        incoming.follow(table);
        Self { table, incoming, now, run: None, authentic: 0 }
    }

    /// How many datagrams of sessions were opened so far: what nobody else can have made.
    pub fn authentic(&self) -> usize {
        self.authentic
    }

    /// Opens a datagram in place. Besides what is for the node, returns the index of a session whose peer turned out to be alive or
    /// elsewhere.
    pub fn open(&mut self, arrival: Arrival, datagram: &'d mut [u8], delivery: &mut impl Delivery) -> Opened<'d> {
        let header = match Datagram::classify(datagram) {
            Ok(Datagram::Transport(header)) => header,
            Ok(Datagram::Relayed(envelope)) => return self.relayed(arrival, envelope, datagram, delivery),
            Err(DatagramError::UnknownType(_)) => return self.drop(DropReason::UnknownType, delivery),
            Ok(_) => return self.knock(arrival.path, datagram, delivery),
            Err(_) => return self.drop(DropReason::MalformedDatagram, delivery),
        };
        let Some(inlet) = self.table.inlets.get(&header.receiver) else {
            return self.drop(DropReason::UnknownSession, delivery);
        };
        let sealed = &mut datagram[TRANSPORT_HEADER_LEN..];
        let plaintext = match inlet.session.open(self.now, &header, sealed) {
            Ok(plaintext) => plaintext,
            Err(error) => return self.drop(error.into(), delivery),
        };
        self.authentic += 1;
        let news = self.incoming.is_news(self.now, inlet, arrival.path).then_some((header.receiver, arrival.path));
        // Where this host cannot keep up, its socket's queue is the narrow place of the path, and says so as a router does.
        let bulk = [RECORD_PACKET, RECORD_CHUNK, RECORD_FRAME, RECORD_FRAME_CHUNK];
        let is_large = plaintext.len() > MAX_BUNDLED && bulk.contains(&(plaintext[0] & KIND_MASK));
        let is_chosen = is_large && self.incoming.pressure.chooses(self.now);
        let ecn = if is_chosen { Ecn::Congested } else { arrival.ecn };
        match self.record(inlet, header.lane, ecn, plaintext, delivery) {
            // What it says of the path, the node sees from the record itself.
            Some(record) => (Inbound::Record(header.receiver, arrival.path, record), None),
            None => (Inbound::Done, news),
        }
    }

    /// Takes a datagram in a relay's envelope: passes it on, or takes it out if it is for this node. A label counts only from where it was
    /// given to.
    fn relayed(
        &mut self,
        arrival: Arrival,
        Envelope { hops, label }: Envelope,
        datagram: &'d mut [u8],
        delivery: &mut impl Delivery,
    ) -> Opened<'d> {
        match self.table.labels.get(&(arrival.path.remote, label)) {
            None => self.drop(DropReason::UnknownLabel, delivery),
            Some(LabelUse::Own) => {
                let path = Path { label: Some(label), ..arrival.path };
                self.open(Arrival { path, ..arrival }, &mut datagram[ENVELOPE_LEN..], delivery)
            }
            Some(LabelUse::Pass(to, meter)) => {
                let (hops, Some(label)) = (hops.saturating_sub(1), to.label) else {
                    return self.drop(DropReason::UnknownLabel, delivery);
                };
                if hops == 0 {
                    return self.drop(DropReason::HopsExhausted, delivery);
                }
                if !meter.pass(self.now, datagram.len()) {
                    return self.drop(DropReason::RelayLimit, delivery);
                }
                let inside_len = datagram.len() - ENVELOPE_LEN;
                datagram[..ENVELOPE_LEN].copy_from_slice(&Envelope { hops, label }.encode(inside_len));
                (Inbound::Pass(*to, arrival.ecn, datagram), None)
            }
        }
    }

    /// Ends the batch: what waited for more to come is delivered.
    pub fn end(mut self, delivery: &mut impl Delivery) {
        self.end_run(delivery);
        (0..self.incoming.fragments.expire(self.now)).for_each(|_| delivery.dropped(DropReason::FragmentLost));
    }

    fn drop(&mut self, reason: DropReason, delivery: &mut impl Delivery) -> Opened<'d> {
        delivery.dropped(reason);
        (Inbound::Done, None)
    }

    /// Lets a handshake's datagram through that shows what the gate demands.
    fn knock(&mut self, path: Path, datagram: &'d [u8], delivery: &mut impl Delivery) -> Opened<'d> {
        let source = source_of(&path);
        match self.table.gate.check(source, datagram) {
            Ok(knock) => (Inbound::Handshake(self.incoming.paid.trust(source, knock), path, datagram), None),
            Err(refusal) => self.drop(refusal.into(), delivery),
        }
    }

    /// Handles what an authentic datagram carried. Returns the record that is for the node.
    fn record(
        &mut self,
        inlet: &Inlet,
        lane: Lane,
        ecn: Ecn,
        plaintext: &'d mut [u8],
        delivery: &mut impl Delivery,
    ) -> Option<&'d [u8]> {
        if let Some(first) = plaintext.first()
            && matches!(first & KIND_MASK, RECORD_CHUNK | RECORD_FRAME_CHUNK)
        {
            match Record::decode(plaintext) {
                Ok(Record::Chunk(chunk)) => self.chunk(inlet, ecn, &chunk, delivery),
                Ok(_) | Err(_) => delivery.dropped(DropReason::MalformedRecord),
            }
            return None;
        }
        match Record::decode(plaintext) {
            Ok(Record::Packet { layer, needs_checksum, .. }) => {
                let packet = &mut plaintext[layer.record_header_len()..];
                self.packet(inlet, (layer, ecn), needs_checksum, packet, delivery);
            }
            Ok(Record::Bundle(layer, _)) => {
                let mut rest = &mut plaintext[layer.record_header_len()..];
                while let Some((needs_checksum, packet)) = next_bundled(&mut rest) {
                    self.packet(inlet, (layer, ecn), needs_checksum, packet, delivery);
                }
            }
            Ok(Record::Fragment(fragment)) => self.fragment(inlet, lane, ecn, &fragment, delivery),
            Ok(Record::Measure(_)) => return plaintext.get(..MEASURE_LEN),
            Ok(record) if is_for_node(&record) => return Some(plaintext),
            Ok(_) | Err(_) => delivery.dropped(DropReason::MalformedRecord),
        }
        None
    }

    /// Takes segments of a super-packet: to those before them, if they go on there.
    fn chunk(&mut self, inlet: &Inlet, ecn: Ecn, chunk: &Chunk<'d>, delivery: &mut impl Delivery) {
        let index = inlet.session.local_index();
        if self.run.as_mut().is_some_and(|run| run.take(index, ecn, chunk)) {
            return;
        }
        self.end_run(delivery);
        let Some(mut run) = Run::begin(index, ecn, chunk) else { return delivery.dropped(DropReason::MalformedRecord) };
        match self.check(inlet, (chunk.layer, ecn), run.headers()) {
            Ok(()) => self.run = Some(run),
            Err(reason) => delivery.dropped(reason),
        }
    }

    /// Takes a packet: to the datagrams of its flow before it, or for itself. Where its checksum is left to do, the kernel is told so in
    /// one's own words.
    fn packet(
        &mut self,
        inlet: &Inlet,
        (layer, ecn): (Layer, Ecn),
        needs_checksum: bool,
        packet: &'d mut [u8],
        delivery: &mut impl Delivery,
    ) {
        if let Err(reason) = self.check(inlet, (layer, ecn), packet) {
            return delivery.dropped(reason);
        }
        if layer == Layer::Ip
            && mss::may_be_syn(packet)
            && let Some(outlet) = inlet.peer.and_then(|peer| self.table.outlets.get(peer))
        {
            mss::clamp(packet, longest_of_stream(self.table.inner_mtu, outlet), needs_checksum);
        }
        if !needs_checksum {
            // Packets of one flow keep their order.
            self.end_run(delivery);
            return delivery.packet(layer, &VnetHeader::default(), packet);
        }
        let Some((link_len, plain)) = plain_headers(layer, packet) else {
            return delivery.dropped(DropReason::MalformedPacket);
        };
        let (headers, payload) = packet[link_len..].split_at_mut(plain.header_len());
        plain.set_payload_len(headers, payload.len());
        let (packet, index) = (&*packet, inlet.session.local_index());
        if self.run.as_mut().is_some_and(|run| run.take_datagram(index, layer, packet)) {
            return;
        }
        self.end_run(delivery);
        self.run = Run::begin_datagram(index, layer, packet).filter(|_| self.incoming.offload.udp);
        if self.run.is_none() {
            let vnet = VnetHeader { checksum: Some(plain.checksum()), segments: None }.behind(link_len);
            delivery.packet(layer, &vnet, packet);
        }
    }

    /// Takes a part of a packet or frame. The whole is looked at when it is whole.
    fn fragment(&mut self, inlet: &Inlet, lane: Lane, ecn: Ecn, fragment: &Fragment<'_>, delivery: &mut impl Delivery) {
        let Some(peer) = inlet.peer else { return delivery.dropped(DropReason::RecordNotAllowed) };
        let origin = (inlet.session.local_index(), lane);
        match self.incoming.fragments.take(self.now, peer, origin, ecn, fragment) {
            Ok(None) => {}
            Ok(Some((ecn, mut frame))) => {
                self.end_run(delivery);
                let layer = fragment.layer;
                match self.check(inlet, (layer, ecn), &mut frame) {
                    Ok(()) => delivery.packet(layer, &VnetHeader::default(), &frame),
                    Err(reason) => delivery.dropped(reason),
                }
            }
            Err(lost) => (0..lost).for_each(|_| delivery.dropped(DropReason::FragmentLost)),
        }
    }

    /// Lets an inner packet through only from a member, from that member's own address, to this node, as the network's rules allow, and marks
    /// it as the path did. A frame as its segment permits.
    fn check(&self, inlet: &Inlet, (layer, ecn): (Layer, Ecn), bytes: &mut [u8]) -> Result<(), DropReason> {
        let peer = inlet.peer.ok_or(DropReason::RecordNotAllowed)?;
        match layer {
            Layer::Ip => {
                let inner = InnerPacket::parse(bytes).map_err(|_| DropReason::MalformedPacket)?;
                self.table.router.inbound(peer, &inner)?;
                self.table.filter.check(self.now, peer, &inner, bytes)?;
            }
            Layer::Link(segment) => self.table.segments.get(segment)?.inbound(self.now, peer, bytes)?,
        }
        // What is not IP knows no marks, and fills no queue.
        let Some(link_len) = layer.link_len(bytes) else { return Ok(()) };
        let packet = &mut bytes[link_len..];
        let left = Ecn::of(packet);
        let marked = left.received_in(ecn).ok_or(DropReason::Congested)?;
        if marked != left {
            marked.write(packet);
        }
        Ok(())
    }

    fn end_run(&mut self, delivery: &mut impl Delivery) {
        if let Some(run) = self.run.take() {
            delivery.super_packet(&run.finish());
        }
    }
}

/// Finds the headers of a packet, or of one that a frame consists of, whose checksum is left to do.
fn plain_headers(layer: Layer, bytes: &[u8]) -> Option<(usize, PlainHeaders)> {
    let link_len = layer.link_len(bytes)?;
    // Behind a frame's packet there may be padding, which no length would count.
    let is_whole = match layer {
        Layer::Ip => true,
        Layer::Link(_) => Frame::parse(bytes).ok()?.ip(bytes)?.ok()?.len() + link_len == bytes.len(),
    };
    PlainHeaders::parse(&bytes[link_len..]).filter(|_| is_whole).map(|plain| (link_len, plain))
}

/// Says whether the node takes such a record. What waits for it is bounded in records, so each has a bound.
fn is_for_node(record: &Record<'_>) -> bool {
    match record {
        Record::Empty => true,
        Record::Control(content) => content.len() <= MAX_CONTROL_LEN,
        Record::Stream(packet) => packet.len() <= CONTROL_MTU,
        Record::Packet { .. } | Record::Bundle(..) | Record::Chunk(_) | Record::Fragment(_) | Record::Measure(_) => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::forward::testing::{Delivered, NOW, with_peer};
    use crate::node::forward::{HEADROOM, TAILROOM};
    use crate::session::testing::established_pair;
    use crate::wire::datagram::Lane;
    use crate::wire::transport_record::{RECORD_CONTROL, RECORD_STREAM};
    use std::net::SocketAddr;

    #[test]
    fn a_record_for_the_node_that_is_longer_than_any_honest_one_is_dropped() {
        let (.., near, far) = established_pair();
        let path = Path::from(SocketAddr::from(([192, 0, 2, 2], 4647)));
        let (table, mut incoming) = (with_peer(near.session, path.remote), Incoming::new(OffloadSet::default()));
        let mut sealer = far.session.claim_lane(Lane::NODE).unwrap();
        for (kind, longest) in [(RECORD_STREAM, CONTROL_MTU), (RECORD_CONTROL, MAX_CONTROL_LEN)] {
            for (len, is_taken) in [(longest, true), (longest + 1, false), (2_000, false), (60_000, false)] {
                let mut datagram = vec![0; HEADROOM + len + TAILROOM];
                datagram[HEADROOM - 1] = kind;
                sealer.seal(NOW, &mut datagram).unwrap();
                let mut delivered = Delivered::default();
                let (inbound, _) =
                    Opening::new(&table, &mut incoming, NOW).open(path.into(), &mut datagram, &mut delivered);
                match inbound {
                    Inbound::Record(_, _, record) => assert!(is_taken && record.len() == len + 1, "{kind}: {len}"),
                    other => assert!(!is_taken && other == Inbound::Done, "{kind}: {len}"),
                }
                assert_eq!(delivered.dropped == [DropReason::MalformedRecord], !is_taken);
            }
        }
    }
}
