//! Frames from one node's segment device to the other's.

use super::testing::{Delivered, NOW, SEGMENT, Sealed, in_segment};
use super::{Arrival, DevicePacket, Inbound, Incoming, Opening, Outbound, Outgoing};
use crate::crypto::identity::NodeId;
use crate::node::table::ForwardingTable;
use crate::path::Path;
use crate::router::PeerIndex;
use crate::router::bridge::node_mac;
use crate::session::testing::established_pair_with;
use crate::wire::datagram::{Lane, MIN_WIRE_LEN};
use crate::wire::drops::DropReason;
use crate::wire::ecn::Ecn;
use crate::wire::handshake::OffloadSet;
use crate::wire::offload::{PlainHeaders, Segmentation, VnetHeader};
use crate::wire::testing::{ip, leave_checksum};
use std::net::SocketAddr;

const ENDPOINT: ([u8; 4], u16) = ([192, 0, 2, 2], 4647);
const OFFLOAD: OffloadSet = OffloadSet { tcp: true, udp: true, frames: true };
/// Bytes of IP and UDP around a datagram.
const OUTER: usize = 28;

struct Pair {
    near: ForwardingTable,
    far: ForwardingTable,
    outgoing: Outgoing,
    incoming: Incoming,
    link_mtu: usize,
}

impl Pair {
    fn new(offload: OffloadSet) -> Self {
        let (.., near, far) = established_pair_with(offload);
        let endpoint = SocketAddr::from(ENDPOINT);
        Self {
            near: in_segment([1, 2], near.session, endpoint),
            far: in_segment([2, 1], far.session, endpoint),
            outgoing: Outgoing::new(Lane::new(15, 0)),
            incoming: Incoming::new(offload),
            link_mtu: 1500,
        }
    }

    /// Seals what the device of the near one gives in one batch.
    fn seal(&mut self, frames: &[(VnetHeader, Vec<u8>)]) -> Result<Vec<Vec<u8>>, Outbound> {
        let (mut sealed, peer) = (Sealed::default(), PeerIndex::at(0).unwrap());
        for (vnet, frame) in frames {
            let mut frame = DevicePacket { vnet: *vnet, bytes: &mut frame.clone() };
            let way = (SEGMENT, peer);
            let mut outcome = self.outgoing.seal_frame(&self.near, NOW, way, &mut frame, &mut sealed);
            if let Outbound::Measure(endpoint) = outcome {
                self.outgoing.learn_link(NOW, endpoint, Some(self.link_mtu));
                outcome = self.outgoing.seal_frame(&self.near, NOW, way, &mut frame, &mut sealed);
            }
            if outcome != Outbound::Sealed {
                return Err(outcome);
            }
        }
        assert_eq!(self.outgoing.finish(NOW, &mut sealed), []);
        Ok(sealed.datagrams.into_iter().map(|(datagram, _)| datagram).collect())
    }

    /// Delivers what the far one receives in one batch.
    fn open(&mut self, mut datagrams: Vec<Vec<u8>>) -> Delivered {
        let mut delivered = Delivered::default();
        let mut opening = Opening::new(&self.far, &mut self.incoming, NOW);
        for datagram in &mut datagrams {
            let arrival = Arrival { path: Path::from(SocketAddr::from(ENDPOINT)), ecn: Ecn::NotCapable };
            let (inbound, _) = opening.open(arrival, datagram, &mut delivered);
            assert_eq!(inbound, Inbound::Done);
        }
        opening.end(&mut delivered);
        delivered
    }

    fn carry(&mut self, frames: &[(VnetHeader, Vec<u8>)]) -> Delivered {
        let datagrams = self.seal(frames).unwrap();
        assert!(datagrams.iter().all(|datagram| datagram.len() + OUTER <= self.link_mtu), "longer than the link");
        self.open(datagrams)
    }
}

/// A packet in a frame from the near one to the far one, with a VLAN tag or without.
fn framed(is_tagged: bool, packet: &[u8]) -> Vec<u8> {
    let [near, far] = [1, 2].map(|node| node_mac(SEGMENT, &NodeId([node; 32])));
    let tag: &[u8] = if is_tagged { &[0x81, 0, 0xa0, 42] } else { &[] };
    let ethertype: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
    [&far.0[..], &near.0, tag, &ethertype, packet].concat()
}

fn tcp(is_ipv6: bool, len: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let payload: Vec<u8> = (0..len).map(|byte| (byte / 5) as u8).collect();
    ip(is_ipv6).tcp(1000, 2000, 7, 500).ack(9).write(&mut packet, &payload).unwrap();
    packet
}

fn udp(port: u16, len: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    ip(false).udp(1000, port).write(&mut packet, &vec![3; len]).unwrap();
    packet
}

/// A frame as the kernel gives it to a device that computes checksums and cuts.
fn super_frame(is_tagged: bool, mut packet: Vec<u8>, segment_len: Option<u16>) -> (VnetHeader, Vec<u8>) {
    let plain = PlainHeaders::parse(&packet).unwrap();
    let checksum = Some(leave_checksum(&mut packet));
    let segmentation = |segment_len| Segmentation { kind: plain.kind(), segment_len, has_cwr: false };
    let segments = segment_len.map(|len| (segmentation(len), plain.header_len() as u16));
    let link_len = if is_tagged { 18 } else { 14 };
    (VnetHeader { checksum, segments }.behind(link_len), framed(is_tagged, &packet))
}

/// TCP's payload in these frames, one after the other.
fn stream(frames: &[Vec<u8>], link_len: usize) -> Vec<u8> {
    let payload = |frame: &Vec<u8>| {
        let packet = &frame[link_len..];
        packet[PlainHeaders::parse(packet).unwrap().header_len()..].to_vec()
    };
    frames.iter().flat_map(payload).collect()
}

#[test]
fn a_stream_is_cut_to_the_link_and_arrives_as_one_super_frame() {
    for (is_ipv6, is_tagged) in [(false, false), (true, false), (false, true), (true, true)] {
        for offload in [OFFLOAD, OffloadSet { tcp: false, ..OFFLOAD }] {
            let mut pair = Pair::new(offload);
            let packet = tcp(is_ipv6, 30_000);
            let link_len = if is_tagged { 18 } else { 14 };
            // The kernel cuts it to an Ethernet's MTU, which with all that the tunnel adds the link does not take.
            let delivered = pair.carry(&[super_frame(is_tagged, packet.clone(), Some(1_440))]);
            assert_eq!(delivered.dropped, []);
            assert_eq!(stream(&delivered.packets, link_len), stream(&[framed(is_tagged, &packet)], link_len));
            assert!(delivered.packets.iter().all(|frame| frame[..link_len] == framed(is_tagged, &packet)[..link_len]));
            assert_eq!(delivered.writes == 1, offload.tcp, "{} writes", delivered.writes);
        }
    }
}

#[test]
fn a_frame_that_is_too_long_for_a_datagram_leaves_in_two_and_arrives_as_it_was() {
    for (frame, count) in [(framed(true, &udp(53, 1_472)), 2), (framed(false, &udp(53, 1_300)), 1)] {
        let mut pair = Pair::new(OFFLOAD);
        let datagrams = pair.seal(&[(VnetHeader::default(), frame.clone())]).unwrap();
        assert_eq!(datagrams.len(), count);
        assert!(datagrams.iter().all(|datagram| datagram.len() + OUTER <= 1_500));
        let delivered = pair.open(datagrams);
        assert_eq!((delivered.packets, delivered.dropped), (vec![frame], vec![]));
    }
    let mut pair = Pair::new(OFFLOAD);
    pair.link_mtu = MIN_WIRE_LEN;
    // The kernel leaves the checksum to the device: it is done before the frame is cut.
    let whole = framed(false, &udp(53, 1_472));
    let delivered = pair.carry(&[super_frame(false, udp(53, 1_472), None)]);
    assert_eq!((delivered.packets, delivered.dropped), (vec![whole], vec![]));
    let lost = pair.seal(&[(VnetHeader::default(), framed(false, &udp(53, 1_472)))]).unwrap();
    let delivered = pair.open(lost[..1].to_vec());
    assert_eq!(delivered.packets, Vec::<Vec<u8>>::new());
}

#[test]
fn frames_are_cut_to_what_the_operator_says_that_paths_take() {
    for mtu in [1_400u16, 1_280] {
        let mut pair = Pair::new(OFFLOAD);
        pair.outgoing.limit_frames(mtu);
        // The datagram of a super-packet's segment of this length.
        let longest = super::HEADROOM + 7 + usize::from(mtu) + super::TAILROOM;
        for frame in [
            super_frame(false, tcp(false, 30_000), Some(1_440)),
            (VnetHeader::default(), framed(true, &udp(53, 1_472))),
        ] {
            let datagrams = pair.seal(&[frame]).unwrap();
            let lens: Vec<_> = datagrams.iter().map(Vec::len).collect();
            assert!(lens.iter().all(|len| *len <= longest), "{mtu}: {lens:?}");
            assert!(lens.len() > 2 || lens.iter().sum::<usize>() > 1_500);
            assert_eq!(pair.open(datagrams).dropped, []);
        }
    }
}

#[test]
fn small_frames_share_datagrams_and_rows_of_datagrams_are_written_at_once() {
    let mut pair = Pair::new(OFFLOAD);
    let frames: Vec<_> = (0..40).map(|_| super_frame(true, udp(2000, 64), None)).collect();
    let datagrams = pair.seal(&frames).unwrap();
    assert_eq!(datagrams.len(), 5, "nine to a datagram");
    let delivered = pair.open(datagrams);
    assert_eq!((delivered.packets.len(), delivered.writes, delivered.dropped), (40, 1, vec![]));
    let delivered = pair.carry(&[super_frame(false, udp(2000, 20_000), Some(1_200))]);
    assert_eq!((delivered.packets.len(), delivered.writes), (17, 1));
    // Rows of datagrams that are longer than the link cannot be cut elsewhere: each leaves in two.
    let delivered = pair.carry(&[super_frame(false, udp(2000, 14_720), Some(1_472))]);
    assert_eq!((delivered.packets.len(), delivered.dropped), (10, vec![]));
    assert!(delivered.packets.iter().all(|frame| frame.len() == 14 + 28 + 1_472));
}

#[test]
fn what_is_no_ip_and_what_is_padded_arrives_as_it_was() {
    let mut pair = Pair::new(OFFLOAD);
    let lldp = [&framed(false, &[0x45; 20])[..12], &[0x88, 0xb5], &[9; 700]].concat();
    let padded = [&framed(false, &udp(53, 1))[..], &[0; 17]].concat();
    let delivered = pair.carry(&[lldp.clone(), padded.clone()].map(|frame| (VnetHeader::default(), frame)));
    assert_eq!((delivered.packets, delivered.dropped), (vec![lldp, padded.clone()], vec![]));
    // The kernel left the checksum over all that follows, padding too, to the device.
    let vnet = super_frame(false, udp(53, 1), None).0;
    let mut left = padded.clone();
    leave_checksum(&mut left[14..14 + 29]);
    let delivered = pair.carry(&[(vnet, left)]);
    assert_eq!((delivered.packets, delivered.dropped), (vec![padded], vec![]));
}

#[test]
fn a_peer_of_an_older_version_gets_no_frames_and_a_stranger_s_frame_is_not_delivered() {
    let mut pair = Pair::new(OffloadSet { frames: false, ..OFFLOAD });
    let frame = || (VnetHeader::default(), framed(false, &udp(53, 100)));
    assert_eq!(pair.seal(&[frame()]), Err(Outbound::Drop(DropReason::FramesNotCarried)));

    let mut pair = Pair::new(OFFLOAD);
    let datagrams = pair.seal(&[frame()]).unwrap();
    pair.far.segments = std::sync::Arc::default();
    let delivered = pair.open(datagrams);
    assert_eq!((delivered.packets.len(), delivered.dropped), (0, vec![DropReason::UnknownSegment]));

    let mut pair = Pair::new(OFFLOAD);
    let mut forged = frame();
    forged.1[6..12].copy_from_slice(&node_mac(SEGMENT, &NodeId([2; 32])).0);
    let mut chunked = super_frame(false, tcp(false, 30_000), Some(1_300));
    chunked.1[6..12].copy_from_slice(&node_mac(SEGMENT, &NodeId([2; 32])).0);
    let datagrams = pair.seal(&[forged, chunked]).unwrap();
    let count = datagrams.len();
    let delivered = pair.open(datagrams);
    assert_eq!((delivered.packets.len(), delivered.dropped), (0, vec![DropReason::SourceMacNotPeers; count]));
}
