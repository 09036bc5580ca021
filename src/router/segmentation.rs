//! Super-packets: cut into chunks for the way, put together again as far as they arrive, or split into packets.
//!
//! ```text
//!   device ──► super-packet ──► Cut ──► chunks (the headers of the whole in each)  ──► Run ──► super-packet ──► device
//!                                 └───► packets, for who takes no super-packets
//! ```
//! A chunk holds whole segments, so that a lost datagram costs just those, and it is complete by itself: no chunk waits for another, nothing
//! is kept beyond a batch. Datagrams of one flow that come as whole packets become one super-packet, too: the kernel takes a row of small
//! ones at a third of the cost. A frame's link header counts as the front of the headers. Owns the arithmetic. Refuses to know sessions, and to trust a peer: what reaches the kernel is made of one's own
//! reading of the headers.

use crate::wire::datagram::SessionIndex;
use crate::wire::ecn::Ecn;
use crate::wire::frame::MAX_LINK_HEADER;
use crate::wire::offload::{MAX_PLAIN_HEADERS, PlainHeaders, SegmentKind, Segmentation, VnetHeader, complete_checksum};
use crate::wire::transport_record::{Chunk, Layer, MAX_SUPER_PAYLOAD, MIN_SEGMENT_LEN};
use std::ops::Range;

/// Chunks that a run holds at most: all of a super-packet with the shortest segments.
const MAX_PIECES: usize = MAX_SUPER_PAYLOAD / MIN_SEGMENT_LEN as usize + 1;

/// Datagrams of a super-packet that is made here, at most: what Linux takes as one (`UDP_MAX_SEGMENTS` was 64 before Linux 6.9).
const MAX_DATAGRAMS: usize = 64;

/// Bytes of all headers in front of a chunk's payload at most.
const MAX_HEADERS: usize = MAX_LINK_HEADER + MAX_PLAIN_HEADERS;

/// How a super-packet is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Bytes of the link header: none but of a frame.
    link_len: usize,
    plain: PlainHeaders,
    segment_len: usize,
    payload_len: usize,
}

/// One part of a super-packet's payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Where it lies in the payload.
    pub payload: Range<usize>,
    /// The super-packet ends with it.
    pub is_last: bool,
}

impl Cut {
    /// Reads how `bytes`, a packet or frame which the kernel gave with these `segments`, are to be cut; `None` when they are neither TCP nor
    /// UDP or contradict the vnet header.
    pub fn new(layer: Layer, bytes: &[u8], segments: Segmentation) -> Option<Self> {
        let link_len = layer.link_len(bytes)?;
        let packet = &bytes[link_len..];
        let plain = PlainHeaders::parse(packet).or_else(|| PlainHeaders::parse_extended(packet))?;
        let segment_len = usize::from(segments.segment_len);
        let payload_len = packet.len() - plain.header_len();
        let is_good = plain.kind() == segments.kind && segment_len > 0 && plain.may_be_cut(packet);
        is_good.then_some(Self { link_len, plain, segment_len, payload_len })
    }

    /// Cuts TCP into segments with no more payload than `longest`: a stream may be cut anywhere. Datagrams stay what they are.
    pub fn narrowed(self, longest: usize) -> Self {
        match self.plain.kind() {
            SegmentKind::TcpV4 | SegmentKind::TcpV6 => {
                Self { segment_len: self.segment_len.min(longest.max(MIN_SEGMENT_LEN.into())), ..self }
            }
            SegmentKind::Udp => self,
        }
    }

    /// Bytes of the headers, that of the link included.
    pub fn header_len(&self) -> usize {
        self.link_len + self.plain.header_len()
    }

    /// Payload bytes of a segment.
    pub fn segment_len(&self) -> usize {
        self.segment_len
    }

    /// Bytes of the longest segment with its headers.
    pub fn longest_segment(&self) -> usize {
        self.header_len() + self.segment_len.min(self.payload_len)
    }

    /// Says whether the parts may travel as chunks.
    pub fn fits_chunks(&self) -> bool {
        self.plain.is_plain()
            && (usize::from(MIN_SEGMENT_LEN)..=usize::from(u16::MAX)).contains(&self.segment_len)
            && self.payload_len <= MAX_SUPER_PAYLOAD
    }

    /// The parts of at most `room` bytes each: as many whole segments as that holds, one at least.
    pub fn parts(&self, room: usize) -> impl Iterator<Item = Part> + use<> {
        let (step, end) = ((room / self.segment_len).max(1) * self.segment_len, self.payload_len);
        (0..end).step_by(step).map(move |start| {
            let payload = start..(start + step).min(end);
            Part { is_last: payload.end == end, payload }
        })
    }

    /// Writes one segment of `packet` as a packet of its own, with all checksums, to the front of `out`. Returns its length.
    ///
    /// # Panics
    /// When `out` is shorter than headers and payload of the segment, or `packet` is not the one that was cut.
    pub fn write_segment(&self, packet: &[u8], part: &Part, out: &mut [u8]) -> usize {
        let (header_len, payload_len) = (self.header_len(), part.payload.len());
        let (headers, payload) = packet.split_at(header_len);
        let out = &mut out[..header_len + payload_len];
        out[..header_len].copy_from_slice(headers);
        out[header_len..].copy_from_slice(&payload[part.payload.clone()]);
        self.make_part(&mut out[..header_len], part);
        let is_inside = complete_checksum(&mut out[self.link_len..], self.plain.checksum());
        debug_assert!(is_inside, "the checksum is in the headers");
        out.len()
    }

    fn make_part(&self, headers: &mut [u8], part: &Part) {
        let headers = &mut headers[self.link_len..];
        let (offset, is_first) = (part.payload.start, part.payload.start == 0);
        let index = offset / self.segment_len;
        self.plain.move_to(headers, offset as u32, index as u16, is_first, part.is_last);
        self.plain.set_payload_len(headers, part.payload.len());
    }
}

/// What goes on from each other, on its way to the device: contiguous chunks of one super-packet, or datagrams of one flow.
pub struct Run<'d> {
    layer: Layer,
    of: RunOf,
    cut: Cut,
    headers: [u8; MAX_HEADERS],
    /// The part of the super-packet's payload that is here.
    part: Part,
    pieces: Vec<&'d [u8]>,
}

/// What a run consists of.
#[derive(PartialEq, Eq)]
enum RunOf {
    /// Chunks of this super-packet, that came with this mark.
    Chunks(SessionIndex, u16, Ecn),
    /// Whole UDP packets that came in this session.
    Datagrams(SessionIndex),
}

/// What a [`Run`] came to: one packet for the device.
pub struct SuperPacket<'d> {
    /// Whose: the packets' device, or that of a segment.
    pub layer: Layer,
    cut: Cut,
    headers: [u8; MAX_HEADERS],
    /// What the kernel is told of it.
    pub vnet: VnetHeader,
    /// The payload, in order.
    pub pieces: Vec<&'d [u8]>,
}

impl<'d> Run<'d> {
    /// Begins with a chunk that came in the session `origin` with this mark; `None` when its headers are not those of a packet that can be
    /// cut.
    pub fn begin(origin: SessionIndex, ecn: Ecn, chunk: &Chunk<'d>) -> Option<Self> {
        let link_len = chunk.layer.link_len(chunk.headers)?;
        let of_packet = &chunk.headers[link_len..];
        let plain = PlainHeaders::parse(of_packet)?;
        if plain.header_len() != of_packet.len() || !plain.may_be_cut(of_packet) {
            return None;
        }
        let mut headers = [0; MAX_HEADERS];
        headers[..chunk.headers.len()].copy_from_slice(chunk.headers);
        let start = usize::from(chunk.offset);
        let part = Part { payload: start..start + chunk.payload.len(), is_last: chunk.is_last };
        let cut = Cut { link_len, plain, segment_len: chunk.segment_len.into(), payload_len: part.payload.end };
        let mut pieces = Vec::with_capacity(MAX_PIECES.min(64));
        pieces.push(chunk.payload);
        Some(Self {
            layer: chunk.layer,
            of: RunOf::Chunks(origin, chunk.super_packet, ecn),
            cut,
            headers,
            part,
            pieces,
        })
    }

    /// Begins with a UDP packet that came in the session `origin` and whose checksum is left to do; `None` when no other can follow it.
    pub fn begin_datagram(origin: SessionIndex, layer: Layer, packet: &'d [u8]) -> Option<Self> {
        let link_len = layer.link_len(packet)?;
        let plain = PlainHeaders::parse(&packet[link_len..]).filter(|plain| plain.kind() == SegmentKind::Udp)?;
        let (front, payload) = packet.split_at(link_len + plain.header_len());
        let of_packet = &front[link_len..];
        if payload.is_empty() || !plain.is_same_flow(of_packet, of_packet) {
            return None;
        }
        let mut headers = [0; MAX_HEADERS];
        headers[..front.len()].copy_from_slice(front);
        let part = Part { payload: 0..payload.len(), is_last: false };
        let cut = Cut { link_len, plain, segment_len: payload.len(), payload_len: payload.len() };
        Some(Self { layer, of: RunOf::Datagrams(origin), cut, headers, part, pieces: vec![payload] })
    }

    /// The headers as a packet, or a frame with one, without payload: what decides whether the packet may come in.
    pub fn headers(&mut self) -> &mut [u8] {
        let headers = &mut self.headers[..self.cut.header_len()];
        self.cut.plain.set_payload_len(&mut headers[self.cut.link_len..], 0);
        headers
    }

    /// Takes a UDP packet, whose checksum is left to do, that is of the same flow and as long, or shorter and the last. Returns whether it is.
    pub fn take_datagram(&mut self, origin: SessionIndex, layer: Layer, packet: &'d [u8]) -> bool {
        let Cut { link_len, plain, .. } = self.cut;
        let Some((front, payload)) = packet.split_at_checked(self.cut.header_len()) else { return false };
        let (link, of_packet) = front.split_at(link_len);
        let goes_on = self.of == RunOf::Datagrams(origin)
            && self.layer == layer
            && !self.part.is_last
            && self.headers[..link_len] == *link
            && PlainHeaders::parse(&packet[link_len..]) == Some(plain)
            && plain.is_same_flow(&self.headers[link_len..front.len()], of_packet)
            && (1..=self.cut.segment_len).contains(&payload.len())
            && self.pieces.len() < MAX_DATAGRAMS
            && self.part.payload.end + payload.len() <= MAX_SUPER_PAYLOAD;
        if goes_on {
            self.part.payload.end += payload.len();
            self.part.is_last = payload.len() < self.cut.segment_len;
            self.pieces.push(payload);
        }
        goes_on
    }

    /// Takes a chunk that goes on where this ends. Returns whether it does.
    pub fn take(&mut self, origin: SessionIndex, ecn: Ecn, chunk: &Chunk<'d>) -> bool {
        let goes_on = !self.part.is_last
            && self.layer == chunk.layer
            && self.of == RunOf::Chunks(origin, chunk.super_packet, ecn)
            && self.part.payload.end == usize::from(chunk.offset)
            && self.cut.segment_len == usize::from(chunk.segment_len)
            && self.cut.header_len() == chunk.headers.len()
            && self.pieces.len() < MAX_PIECES;
        if goes_on {
            self.part.payload.end += chunk.payload.len();
            self.part.is_last = chunk.is_last;
            self.pieces.push(chunk.payload);
        }
        goes_on
    }

    /// Ends the run: one packet, which stands for several if it is longer than a segment.
    pub fn finish(mut self) -> SuperPacket<'d> {
        let Cut { link_len, plain, segment_len, .. } = self.cut;
        let headers = &mut self.headers[..self.cut.header_len()];
        self.cut.make_part(headers, &self.part);
        let payload_len = self.part.payload.len();
        let segments = (payload_len > segment_len).then(|| {
            let has_cwr = plain.has_cwr(&headers[link_len..]);
            (Segmentation { kind: plain.kind(), segment_len: segment_len as u16, has_cwr }, plain.header_len() as u16)
        });
        let vnet = VnetHeader { checksum: Some(plain.checksum()), segments }.behind(link_len);
        let cut = Cut { payload_len, ..self.cut };
        SuperPacket { layer: self.layer, cut, headers: self.headers, vnet, pieces: self.pieces }
    }
}

impl SuperPacket<'_> {
    /// The headers in front of the payload.
    pub fn headers(&self) -> &[u8] {
        &self.headers[..self.cut.header_len()]
    }

    /// Lends each of its segments as a packet of its own, with all checksums: for a device that takes no super-packets.
    pub fn split(&self, mut lend: impl FnMut(&[u8])) {
        let mut whole = self.headers().to_vec();
        self.pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        let mut packet = vec![0; whole.len()];
        for part in self.cut.parts(0) {
            let len = self.cut.write_segment(&whole, &part, &mut packet);
            lend(&packet[..len]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{LINK_HEADER_LEN, SegmentNumber, TAG_LEN};
    use crate::wire::inner::InnerPacket;
    use crate::wire::testing::{ip, leave_checksum};
    use crate::wire::transport_record::{CHUNK_FIELDS_LEN, RECORD_HEADER_LEN, Record};
    use etherparse::{PacketHeaders, TransportHeader};
    use proptest::prelude::*;

    const ORIGIN: SessionIndex = SessionIndex(7);

    /// A super-packet as the kernel gives it: the lengths of the whole, the checksum of the pseudo-header.
    fn super_packet(is_ipv6: bool, is_tcp: bool, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        if is_tcp {
            ip(is_ipv6).tcp(1000, 2000, u32::MAX - 5000, 500).ack(9).psh().fin().write(&mut bytes, payload).unwrap();
            let flags = if is_ipv6 { 40 } else { 20 } + 13;
            bytes[flags] |= 0x80;
        } else {
            ip(is_ipv6).udp(1000, 2000).write(&mut bytes, payload).unwrap();
        }
        leave_checksum(&mut bytes);
        bytes
    }

    const SEGMENT: Layer = Layer::Link(SegmentNumber(3));

    /// A packet behind the link header that a frame of its version has, with or without a tag; or as it is.
    fn in_layer(layer: Layer, is_tagged: bool, packet: &[u8]) -> Vec<u8> {
        let tag: &[u8] = if is_tagged { &[0x81, 0, 0xa0, 42] } else { &[] };
        let ethertype: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
        match layer {
            Layer::Ip => packet.to_vec(),
            Layer::Link(_) => [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], tag, &ethertype, packet].concat(),
        }
    }

    fn segmentation(packet: &[u8], segment_len: u16) -> Segmentation {
        Segmentation { kind: PlainHeaders::parse(packet).unwrap().kind(), segment_len, has_cwr: true }
    }

    /// The records of a super-packet's chunks.
    fn chunks(packet: &[u8], segment_len: u16, room: usize) -> Vec<Vec<u8>> {
        layer_chunks(Layer::Ip, packet, segment_len, room)
    }

    /// The same of a packet or frame.
    fn layer_chunks(layer: Layer, bytes: &[u8], segment_len: u16, room: usize) -> Vec<Vec<u8>> {
        let link_len = layer.link_len(bytes).unwrap();
        let cut = Cut::new(layer, bytes, segmentation(&bytes[link_len..], segment_len)).unwrap();
        let (headers, payload) = bytes.split_at(cut.header_len());
        let record = |part: Part| {
            let offset = part.payload.start as u16;
            let payload = &payload[part.payload];
            let chunk = Chunk { layer, is_last: part.is_last, super_packet: 9, offset, segment_len, headers, payload };
            let (header, fields) = chunk.encode_header();
            [header.as_slice(), &fields, headers, payload].concat()
        };
        cut.parts(room).map(record).collect()
    }

    fn chunk(record: &[u8]) -> Chunk<'_> {
        match Record::decode(record) {
            Ok(Record::Chunk(chunk)) => chunk,
            other => panic!("{other:?}"),
        }
    }

    /// What the runs of these records come to.
    fn runs(records: &[Vec<u8>]) -> Vec<SuperPacket<'_>> {
        let mut ended = Vec::new();
        let mut run: Option<Run<'_>> = None;
        for chunk in records.iter().map(|record| chunk(record)) {
            if !run.as_mut().is_some_and(|run| run.take(ORIGIN, Ecn::NotCapable, &chunk)) {
                ended.extend(run.take());
                run = Run::begin(ORIGIN, Ecn::NotCapable, &chunk);
            }
        }
        ended.extend(run);
        ended.into_iter().map(Run::finish).collect()
    }

    fn whole(packet: &SuperPacket<'_>) -> Vec<u8> {
        [packet.headers(), &packet.pieces.concat()].concat()
    }

    /// TCP's stream, or the datagrams' payloads one after the other, as (offset, bytes), of packets each with a right checksum.
    fn delivered(packets: &[SuperPacket<'_>]) -> Vec<(usize, Vec<u8>)> {
        let mut seen = Vec::new();
        for packet in packets {
            packet.split(|bytes| {
                let bytes = &bytes[packet.layer.link_len(bytes).unwrap()..];
                InnerPacket::parse(bytes).unwrap();
                let headers = PacketHeaders::from_ip_slice(bytes).unwrap();
                let payload = headers.payload.slice().to_vec();
                let (net, Some(transport)) = (headers.net.unwrap(), headers.transport) else { panic!("no transport") };
                let at = match &transport {
                    TransportHeader::Tcp(tcp) => tcp.sequence_number.wrapping_sub(u32::MAX - 5000) as usize,
                    _ => seen.len(),
                };
                let mut again = bytes.to_vec();
                let plain = PlainHeaders::parse(bytes).unwrap();
                plain.set_payload_len(&mut again[..plain.header_len()], payload.len());
                assert!(complete_checksum(&mut again, plain.checksum()));
                assert_eq!(again, bytes, "{net:?}");
                seen.push((at, payload));
            });
        }
        seen
    }

    proptest! {
        #[test]
        fn what_arrives_is_what_was_sent_without_what_was_lost(
            is_ipv6: bool, is_tcp: bool, segment_len in 536u16..1400, count in 1usize..40, tail in 0usize..1400,
            room in 0usize..1400, lost in any::<u64>(), is_frame: bool, is_tagged: bool,
        ) {
            let layer = if is_frame { SEGMENT } else { Layer::Ip };
            let tail = tail.min(usize::from(segment_len));
            let payload: Vec<u8> = (0..count * usize::from(segment_len) + tail).map(|byte| (byte / 7) as u8).collect();
            let packet = in_layer(layer, is_tagged, &super_packet(is_ipv6, is_tcp, &payload));
            let mut records = layer_chunks(layer, &packet, segment_len, room);
            let all = runs(&records);
            prop_assert_eq!(all.len(), 1);
            prop_assert_eq!(whole(&all[0]), packet.clone());
            let link_len = layer.link_len(&packet).unwrap();
            let plain = PlainHeaders::parse(&packet[link_len..]).unwrap();
            prop_assert_eq!(all[0].vnet.checksum.unwrap().start, plain.checksum().start + link_len as u16);
            let told = all[0].vnet.segments.map(|(_, header_len)| usize::from(header_len));
            prop_assert!(told.is_none_or(|len| len == link_len + plain.header_len()));
            drop(all);
            let mut number = 0;
            records.retain(|_| {
                number += 1;
                lost >> (number % 64) & 1 == 0
            });
            let expected: usize = records.iter().map(|record| chunk(record).payload.len()).sum();
            let seen = delivered(&runs(&records));
            prop_assert_eq!(seen.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), expected);
            for (at, bytes) in seen {
                prop_assert!(bytes.len() <= usize::from(segment_len));
                prop_assert!(!is_tcp || payload[at..at + bytes.len()] == bytes, "at {}", at);
            }
        }

        #[test]
        fn whatever_a_peer_makes_up_the_kernel_gets_one_well_formed_packet(
            bytes in prop::collection::vec(any::<u8>(), 0..200), version in 0u8..3, fill in 0usize..60_000, is_frame: bool,
        ) {
            let mut record = bytes;
            record.resize(record.len() + fill, 1);
            if let Some(first) = record.first_mut() {
                *first = *first & 0x10 | if is_frame { 6 } else { 1 };
            }
            // Most of the cases look like a packet, or like a frame with one.
            let (fields, link) = if is_frame { (5, LINK_HEADER_LEN) } else { (1, 0) };
            let ip = fields + 7 + link;
            let (ethertype, first) = if version == 0 { ([8, 0], 0x45) } else { ([0x86, 0xdd], 0x60) };
            if version < 2 && record.len() > ip + 40 {
                if is_frame {
                    record[ip - 2..ip].copy_from_slice(&ethertype);
                    record[ip - 8] = 2;
                }
                for (at, byte) in [(fields, 40 + link as u8), (ip, first), (ip + 9, 6), (ip + 6, 6), (ip + 32, 0x50)] {
                    record[at] = byte;
                }
            }
            let Ok(Record::Chunk(chunk)) = Record::decode(&record) else { return Ok(()) };
            let Some(mut run) = Run::begin(ORIGIN, Ecn::NotCapable, &chunk) else { return Ok(()) };
            let link_len = chunk.layer.link_len(run.headers()).unwrap();
            prop_assert!(InnerPacket::parse(&run.headers()[link_len..]).is_ok());
            let packet = run.finish();
            prop_assert!(InnerPacket::parse(&whole(&packet)[link_len..]).is_ok());
            let segments = packet.vnet.segments.map(|(segments, _)| segments.segment_len);
            prop_assert!(segments.is_none_or(|len| len >= MIN_SEGMENT_LEN));
        }
    }

    #[test]
    fn the_flags_of_an_end_are_on_the_last_packet_and_those_of_a_beginning_on_the_first() {
        let packet = super_packet(false, true, &[5; 6000]);
        let records = chunks(&packet, 1000, 0);
        let flags = |packets: &[SuperPacket<'_>]| packets.iter().map(|it| it.headers()[33]).collect::<Vec<_>>();
        assert_eq!(flags(&runs(&records)), [0x99]);
        let parts =
            runs(&[&records[..2], &records[3..4], &records[5..]].concat()).iter().map(|it| it.vnet).collect::<Vec<_>>();
        let lens: Vec<_> =
            parts.iter().map(|vnet| vnet.segments.map(|(it, _)| (it.kind, it.segment_len, it.has_cwr))).collect();
        assert_eq!(lens, [Some((SegmentKind::TcpV4, 1000, true)), None, None]);
        assert_eq!(flags(&runs(&[&records[..2], &records[3..4], &records[5..]].concat())), [0x90, 0x10, 0x19]);
    }

    #[test]
    fn chunks_of_other_sessions_and_super_packets_do_not_mix() {
        let packet = super_packet(true, true, &[5; 3000]);
        let records = chunks(&packet, 1000, 0);
        let mut run = Run::begin(ORIGIN, Ecn::NotCapable, &chunk(&records[0])).unwrap();
        assert!(!run.take(SessionIndex(8), Ecn::NotCapable, &chunk(&records[1])));
        assert!(!run.take(ORIGIN, Ecn::NotCapable, &Chunk { super_packet: 10, ..chunk(&records[1]) }));
        assert!(!run.take(ORIGIN, Ecn::NotCapable, &chunk(&records[2])));
        assert!(!run.take(ORIGIN, Ecn::Congested, &chunk(&records[1])));
        assert!(!run.take(ORIGIN, Ecn::NotCapable, &Chunk { segment_len: 999, ..chunk(&records[1]) }));
        assert!(
            run.take(ORIGIN, Ecn::NotCapable, &chunk(&records[1]))
                && run.take(ORIGIN, Ecn::NotCapable, &chunk(&records[2]))
        );
        assert!(!run.take(ORIGIN, Ecn::NotCapable, &chunk(&records[2])), "after the last");
        let mut changed = records[0].clone();
        changed[RECORD_HEADER_LEN + CHUNK_FIELDS_LEN + 40 + 13] |= 2;
        assert!(Run::begin(ORIGIN, Ecn::NotCapable, &chunk(&changed)).is_none(), "SYN");
    }

    /// A UDP packet with a checksum left to do.
    fn datagram(is_ipv6: bool, destination_port: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = super_packet(is_ipv6, false, payload);
        let transport = if is_ipv6 { 40 } else { 20 };
        packet[transport + 2..transport + 4].copy_from_slice(&destination_port.to_be_bytes());
        packet
    }

    #[test]
    fn datagrams_of_one_flow_become_one_super_packet_that_a_shorter_one_ends() {
        for is_ipv6 in [false, true] {
            let packets: Vec<_> = [64, 64, 64, 30].map(|len| datagram(is_ipv6, 2000, &vec![len as u8; len])).into();
            let mut run = Run::begin_datagram(ORIGIN, Layer::Ip, &packets[0]).unwrap();
            assert!(packets[1..].iter().all(|packet| run.take_datagram(ORIGIN, Layer::Ip, packet)));
            assert!(!run.take_datagram(ORIGIN, Layer::Ip, &packets[3]), "after a shorter one");
            let whole = run.finish();
            let (segments, header_len) = whole.vnet.segments.unwrap();
            assert_eq!((segments.kind, segments.segment_len), (SegmentKind::Udp, 64));
            assert_eq!(usize::from(header_len), whole.headers().len());
            let seen: Vec<_> = delivered(&[whole]).into_iter().map(|(_, payload)| payload).collect();
            assert_eq!(seen, [64, 64, 64, 30].map(|len| vec![len as u8; len]));
        }
    }

    #[test]
    fn frames_of_one_flow_become_one_super_packet_and_those_of_another_link_or_segment_do_not() {
        let packets: Vec<_> =
            [64, 64, 30].map(|len| in_layer(SEGMENT, true, &datagram(false, 2000, &vec![7; len]))).into();
        let mut run = Run::begin_datagram(ORIGIN, SEGMENT, &packets[0]).unwrap();
        let mut other = packets[1].clone();
        other[11] = 9;
        assert!(!run.take_datagram(ORIGIN, SEGMENT, &other), "another station");
        assert!(!run.take_datagram(ORIGIN, Layer::Link(SegmentNumber(4)), &packets[1]), "another segment");
        let untagged = in_layer(SEGMENT, false, &datagram(false, 2000, &[7; 64]));
        assert!(!run.take_datagram(ORIGIN, SEGMENT, &untagged), "another VLAN");
        assert!(packets[1..].iter().all(|packet| run.take_datagram(ORIGIN, SEGMENT, packet)));
        let whole = run.finish();
        assert_eq!((whole.layer, whole.vnet.checksum.unwrap().start), (SEGMENT, 18 + 20));
        assert_eq!(whole.headers()[..18], packets[0][..18]);
        let mut seen = Vec::new();
        whole.split(|frame| seen.push(frame[..LINK_HEADER_LEN + TAG_LEN] == packets[0][..18] && frame.len() >= 76));
        assert_eq!(seen, [true; 3]);
    }

    #[test]
    fn a_stream_is_cut_to_what_a_narrower_path_takes_and_datagrams_stay_whole() {
        let packet = super_packet(false, true, &[5; 3000]);
        let cut = Cut::new(Layer::Ip, &packet, segmentation(&packet, 1460)).unwrap();
        assert_eq!([2000, 1460, 1300, 10].map(|longest| cut.narrowed(longest).segment_len()), [1460, 1460, 1300, 536]);
        let packet = super_packet(false, false, &[5; 3000]);
        let cut = Cut::new(Layer::Ip, &packet, segmentation(&packet, 1460)).unwrap();
        assert_eq!(cut.narrowed(1300).segment_len(), 1460);
    }

    #[test]
    fn datagrams_that_are_not_of_one_flow_do_not_mix() {
        let first = datagram(false, 2000, &[1; 100]);
        let records = chunks(&super_packet(false, true, &[5; 3000]), 1000, 0);
        let mut run = Run::begin_datagram(ORIGIN, Layer::Ip, &first).unwrap();
        let mut others = vec![
            datagram(false, 2001, &[1; 100]),
            datagram(true, 2000, &[1; 100]),
            datagram(false, 2000, &[1; 101]),
            datagram(false, 2000, &[]),
            super_packet(false, true, &[1; 100]),
        ];
        for (at, value) in [(1, 3), (8, 63), (12, 11), (16, 11), (6, 0)] {
            let mut other = first.clone();
            other[at] = value;
            others.push(other);
        }
        for other in &others {
            assert!(!run.take_datagram(ORIGIN, Layer::Ip, other), "{other:?}");
        }
        assert!(!run.take_datagram(SessionIndex(8), Layer::Ip, &first), "another peer");
        assert!(!run.take(ORIGIN, Ecn::NotCapable, &chunk(&records[1])));
        assert!(run.take_datagram(ORIGIN, Layer::Ip, &first));
        let fragmentable = others.last().unwrap();
        assert!(Run::begin_datagram(ORIGIN, Layer::Ip, fragmentable).is_none(), "its identification means something");
        assert!(
            Run::begin_datagram(ORIGIN, Layer::Ip, &others[3]).is_none()
                && Run::begin_datagram(ORIGIN, Layer::Ip, &others[4]).is_none()
        );
        while run.take_datagram(ORIGIN, Layer::Ip, &first) {}
        assert_eq!(run.finish().pieces.len(), MAX_DATAGRAMS);
    }

    #[test]
    fn a_super_packet_with_options_of_ip_is_cut_into_packets_and_never_into_chunks() {
        let mut packet = super_packet(false, true, &[5; 3000]);
        packet[0] = 0x46;
        packet.splice(20..20, [1; 4]);
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        let segments = Segmentation { kind: SegmentKind::TcpV4, segment_len: 1400, has_cwr: false };
        let cut = Cut::new(Layer::Ip, &packet, segments).unwrap();
        assert!(!cut.fits_chunks());
        let mut out = [0; 1500];
        let lens: Vec<_> = cut.parts(0).map(|part| cut.write_segment(&packet, &part, &mut out)).collect();
        assert_eq!(lens, [1444, 1444, 244]);
        assert!(InnerPacket::parse(&out[..244]).is_ok() && out[20..24] == [1; 4]);

        let (headers, payload) = packet.split_at(44);
        let chunk =
            Chunk { layer: Layer::Ip, is_last: true, super_packet: 9, offset: 0, segment_len: 1400, headers, payload };
        assert!(Run::begin(ORIGIN, Ecn::NotCapable, &chunk).is_none());
    }

    #[test]
    fn what_the_kernel_does_not_say_of_its_own_packets_is_not_believed() {
        let packet = super_packet(false, true, &[5; 3000]);
        let good = segmentation(&packet, 1000);
        assert!(Cut::new(Layer::Ip, &packet, good).is_some_and(|cut| cut.fits_chunks()));
        assert_eq!(Cut::new(Layer::Ip, &packet, Segmentation { kind: SegmentKind::TcpV6, ..good }), None);
        assert_eq!(Cut::new(Layer::Ip, &packet, Segmentation { segment_len: 0, ..good }), None);
        assert!(
            Cut::new(Layer::Ip, &packet, Segmentation { segment_len: 535, ..good })
                .is_some_and(|cut| !cut.fits_chunks())
        );
    }
}
