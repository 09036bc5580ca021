//! What a peer makes up of records, put together as they come: the device gets well-formed packets alone.
//!
//! Input: records, each behind its length (u16) and a byte for the session and the mark that it comes with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::router::segment::{Run, SuperPacket};
use p2plus::wire::data::{MIN_SEGMENT_LEN, Record, SessionIndex};
use p2plus::wire::ecn::Ecn;
use p2plus::wire::inner::InnerPacket;
use p2plus::wire::offload::SegmentKind;

/// Datagrams of a super-packet at most, as the kernel takes them.
const MAX_DATAGRAMS: usize = 64;

fn is_well_formed(packet: &SuperPacket<'_>) {
    let whole = [packet.headers(), &packet.pieces.concat()].concat();
    assert!(InnerPacket::parse(&whole).is_ok() && whole.len() <= usize::from(u16::MAX));
    if let Some((segments, header_len)) = packet.vnet.segments {
        assert_eq!(usize::from(header_len), packet.headers().len());
        let payload_len = whole.len() - packet.headers().len();
        assert!(payload_len > segments.segment_len.into() && segments.segment_len > 0);
        let is_row = segments.kind == SegmentKind::Udp && packet.pieces.len() <= MAX_DATAGRAMS;
        assert!(segments.segment_len >= MIN_SEGMENT_LEN || is_row, "a packet of thousands");
    }
    let mut count = 0;
    packet.split(|packet| {
        assert!(InnerPacket::parse(packet).is_ok());
        count += 1;
    });
    assert!(count <= usize::from(u16::MAX / MIN_SEGMENT_LEN).max(MAX_DATAGRAMS) + 1);
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
            (Ok(Record::Packet { packet, .. }), Some(run)) if InnerPacket::parse(packet).is_ok() => {
                run.take_datagram(index, packet)
            }
            _ => false,
        };
        if is_taken {
            continue;
        }
        run.take().into_iter().for_each(|run| is_well_formed(&run.finish()));
        run = match Record::decode(record) {
            Ok(Record::Chunk(chunk)) => Run::begin(index, ecn, &chunk),
            Ok(Record::Packet { packet, .. }) if InnerPacket::parse(packet).is_ok() => {
                Run::begin_datagram(index, packet)
            }
            _ => None,
        };
        if let Some(run) = &mut run {
            assert!(InnerPacket::parse(run.headers()).is_ok());
        }
    }
    run.into_iter().for_each(|run| is_well_formed(&run.finish()));
});
