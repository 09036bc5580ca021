//! A frame from a member, at every rank that a segment knows: what is said of it lies within it, and nobody gets past the guard.
//!
//! Input: one byte for who sends it (two bits) and the moment, then the frame.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::crypto::identity::NodeId;
use p2plus::router::PeerIndex;
use p2plus::router::bridge::{Plan, Role, Route, Segment};
use p2plus::time::Instant;
use p2plus::wire::frame::{Frame, MAX_LINK_HEADER, SegmentNumber};
use p2plus::wire::neighbour::{LinkMessage, answer};
use std::time::Duration;

const SEGMENT: SegmentNumber = SegmentNumber(1);

/// Peer 0 is plain, peer 1 a bridge, peer 2 a gateway; this node bridges.
fn segment() -> Segment {
    let role = |node: u8| Role::plain(SEGMENT, &NodeId([node; 32]));
    let peer = |position| PeerIndex::at(position).expect("few");
    let peers = vec![
        (peer(0), role(1)),
        (peer(1), Role { is_bridge: true, ..role(2) }),
        (peer(2), Role { is_gateway: true, ..role(3) }),
    ];
    let overlay = vec!["10.64.0.0/20".parse().expect("a prefix")];
    Segment::new(Plan { own: Role { is_bridge: true, ..role(0) }, peers, storm_limit: 1_000, overlay }, None)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&from, bytes)) = bytes.split_first() else { return };
    let now = Instant::ZERO + Duration::from_secs(u64::from(from >> 2));
    let (segment, sender) = (segment(), u32::from(from & 3));
    let (inbound, outbound) =
        (segment.inbound(now, PeerIndex::at(sender).expect("few"), bytes), segment.outbound(now, bytes));
    let Ok(frame) = Frame::parse(bytes) else { return assert!(inbound.is_err() && outbound.is_err()) };
    assert!(frame.link_len <= bytes.len() && frame.link_len <= MAX_LINK_HEADER);
    if let Some(Ok(inner)) = frame.inner(bytes) {
        assert!(frame.link_len + inner.total_len <= bytes.len());
    }
    let message = LinkMessage::of(&frame, bytes);
    if inbound.is_ok() {
        assert!(sender < 3, "a stranger");
        let is_authority = matches!(message, Ok(LinkMessage::Router { .. } | LinkMessage::DhcpServer));
        assert!(!is_authority || sender == 2, "only a gateway");
        assert!(message.is_ok());
    }
    if let Ok(Route::Answer(answer)) = outbound {
        assert!(Frame::parse(&answer).is_ok_and(|answer| answer.destination == frame.source));
    }
    if let Ok(LinkMessage::Neighbour(question)) = message
        && let Some(told) = answer(&frame, bytes, &question, frame.destination)
        && let Ok(told_frame) = Frame::parse(&told)
    {
        assert!(matches!(LinkMessage::of(&told_frame, &told), Ok(LinkMessage::Neighbour(_))));
    }
});
