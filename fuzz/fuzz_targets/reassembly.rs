//! What a peer makes up of records, put together as they come: the device gets well-formed packets alone.
//!
//! Input: records, each behind its length (u16) and a byte for the session and the mark that it comes with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::router::segmentation::{Run, SuperPacket};
use p2plus::wire::datagram::SessionIndex;
use p2plus::wire::ecn::Ecn;
use p2plus::wire::inner::InnerPacket;
use p2plus::wire::offload::SegmentKind;
use p2plus::wire::transport_record::{Layer, MIN_SEGMENT_LEN, Record};

/// Datagrams of a super-packet at most, as the kernel takes them.
const MAX_DATAGRAMS: usize = 64;

fn is_well_formed(packet: &SuperPacket<'_>) {
    let whole = [packet.headers(), &packet.pieces.concat()].concat();
    let link_len = packet.layer.link_len(&whole).unwrap();
    assert!(InnerPacket::parse(&whole[link_len..]).is_ok() && whole.len() - link_len <= usize::from(u16::MAX));
    if let Some((segments, header_len)) = packet.vnet.segments {
        assert_eq!(usize::from(header_len), packet.headers().len());
        let payload_len = whole.len() - packet.headers().len();
        assert!(payload_len > segments.segment_len.into() && segments.segment_len > 0);
        let is_row = segments.kind == SegmentKind::Udp && packet.pieces.len() <= MAX_DATAGRAMS;
        assert!(segments.segment_len >= MIN_SEGMENT_LEN || is_row, "a packet of thousands");
    }
    let mut count = 0;
    packet.split(|packet| {
        assert!(InnerPacket::parse(&packet[link_len..]).is_ok());
        count += 1;
    });
    assert!(count <= usize::from(u16::MAX / MIN_SEGMENT_LEN).max(MAX_DATAGRAMS) + 1);
}

/// Whether it is one packet, or a frame of nothing but one: what is looked at before a row begins.
fn is_packet(layer: Layer, bytes: &[u8]) -> bool {
    layer.link_len(bytes).is_some_and(|link_len| InnerPacket::parse(&bytes[link_len..]).is_ok())
}

fn layer_of(record: &[u8]) -> Layer {
    match Record::decode(record) {
        Ok(Record::Chunk(chunk)) => chunk.layer,
        Ok(Record::Packet { layer, .. }) => layer,
        _ => Layer::Ip,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    let mut run: Option<Run<'_>> = None;
    while let Some((&[low, high, origin], behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_le_bytes([low, high])).min(behind.len());
        let (record, behind) = behind.split_at(len);
        rest = behind;
        let (index, ecn) = (SessionIndex(u32::from(origin >> 2)), Ecn::from_bits(origin));
        let is_taken = match (Record::decode(record), &mut run) {
            (Ok(Record::Chunk(chunk)), Some(run)) => run.take(index, ecn, &chunk),
            (Ok(Record::Packet { layer, packet, .. }), Some(run)) if is_packet(layer, packet) => {
                run.take_datagram(index, layer, packet)
            }
            _ => false,
        };
        if is_taken {
            continue;
        }
        run.take().into_iter().for_each(|run| is_well_formed(&run.finish()));
        run = match Record::decode(record) {
            Ok(Record::Chunk(chunk)) => Run::begin(index, ecn, &chunk),
            Ok(Record::Packet { layer, packet, .. }) if is_packet(layer, packet) => {
                Run::begin_datagram(index, layer, packet)
            }
            _ => None,
        };
        if let Some(run) = &mut run {
            assert!(is_packet(layer_of(record), run.headers()));
        }
    }
    run.into_iter().for_each(|run| is_well_formed(&run.finish()));
});
