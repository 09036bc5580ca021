//! From one node's device to the other's: both routes, with nothing between them but what a network does.

use super::testing::{Delivered, NOW, Sealed, table};
use super::{Arrival, DevicePacket, Inbound, Incoming, Opening, Outbound, Outgoing, TAILROOM};
use crate::node::table::ForwardingTable;
use crate::path::Path;
use crate::router::filter::Filter;
use crate::session::testing::established_pair_with;
use crate::time::Instant;
use crate::wire::datagram::{Lane, MIN_WIRE_LEN, TRANSPORT_HEADER_LEN, TransportHeader};
use crate::wire::drops::DropReason;
use crate::wire::ecn::Ecn;
use crate::wire::handshake::OffloadSet;
use crate::wire::offload::{SegmentKind, Segmentation, VnetHeader};
use crate::wire::testing::{ip, leave_checksum};
use crate::wire::transport_record::{RECORD_BUNDLE, RECORD_PACKET};
use std::net::SocketAddr;
use std::sync::Arc;

mod path_mtu;

/// Two nodes with a session, at 10.64.0.1 and 10.64.0.2.
struct Pair {
    near: ForwardingTable,
    far: ForwardingTable,
    outgoing: Outgoing,
    /// Workers whose lanes nobody has claimed.
    outgoing_lanes: std::ops::Range<u8>,
    incoming: Incoming,
}

const ENDPOINT: ([u8; 4], u16) = ([192, 0, 2, 2], 4647);

impl Pair {
    fn new(offload: OffloadSet) -> Self {
        let (.., near, far) = established_pair_with(offload);
        let endpoint = SocketAddr::from(ENDPOINT);
        Self {
            near: table([1, 2], near.session, endpoint),
            far: table([2, 1], far.session, endpoint),
            outgoing: Outgoing::new(Lane::new(1, 0)),
            outgoing_lanes: 2..16,
            incoming: Incoming::new(offload),
        }
    }

    /// Seals what the device of the near one gives in one batch.
    fn seal(&mut self, packets: &[(VnetHeader, Vec<u8>)]) -> Vec<(Vec<u8>, Ecn)> {
        let mut sealed = Sealed::default();
        for (vnet, packet) in packets {
            let mut packet = DevicePacket { vnet: *vnet, bytes: &mut packet.clone() };
            let outcome = self.outgoing.seal(&self.near, NOW, &mut packet, &mut sealed);
            assert_eq!(outcome, Outbound::Sealed);
        }
        assert_eq!(self.outgoing.finish(NOW, &mut sealed), []);
        sealed.datagrams
    }

    /// Delivers what the far one receives in one batch.
    fn open(&mut self, datagrams: Vec<(Vec<u8>, Ecn)>) -> Delivered {
        self.open_at(NOW, datagrams)
    }

    fn open_at(&mut self, now: Instant, mut datagrams: Vec<(Vec<u8>, Ecn)>) -> Delivered {
        let mut delivered = Delivered::default();
        let mut opening = Opening::new(&self.far, &mut self.incoming, now);
        for (datagram, ecn) in &mut datagrams {
            let arrival = Arrival { path: Path::from(SocketAddr::from(ENDPOINT)), ecn: *ecn };
            let (inbound, _) = opening.open(arrival, datagram, &mut delivered);
            assert_eq!(inbound, Inbound::Done);
        }
        opening.end(&mut delivered);
        delivered
    }
}

/// A UDP packet from the near one to the far one, with its checksum done.
fn udp(destination_port: u16, len: usize, fill: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    ip(false).udp(1000, destination_port).write(&mut bytes, &vec![fill; len]).unwrap();
    bytes
}

/// The same packet as the kernel gives it to a device that computes checksums.
fn with_checksum_left(mut packet: Vec<u8>) -> (VnetHeader, Vec<u8>) {
    let checksum = leave_checksum(&mut packet);
    (VnetHeader { checksum: Some(checksum), segments: None }, packet)
}

/// The kinds of the records in these datagrams, which the far one opens.
fn kinds(pair: &Pair, datagrams: &[(Vec<u8>, Ecn)]) -> Vec<u8> {
    let key = |datagram: &[u8]| {
        let header = TransportHeader::decode(datagram).unwrap();
        let mut sealed = datagram[TRANSPORT_HEADER_LEN..].to_vec();
        pair.far.inlets[&header.receiver].session.open(NOW, &header, &mut sealed).unwrap()[0] & 0x0f
    };
    datagrams.iter().map(|(datagram, _)| key(datagram)).collect()
}

const USO: OffloadSet = OffloadSet { tcp: true, udp: true, frames: true };

#[test]
fn small_packets_of_one_batch_share_datagrams_that_pass_every_path() {
    let mut pair = Pair::new(USO);
    let packets: Vec<_> = (0..100).map(|number| udp(2000 + number, 64, number as u8)).collect();
    let given: Vec<_> = packets.iter().map(|packet| (VnetHeader::default(), packet.clone())).collect();
    let datagrams = pair.seal(&given);
    assert_eq!(datagrams.len(), 10, "eleven to a datagram: {:?}", datagrams[0].0.len());
    assert!(datagrams.iter().all(|(datagram, _)| datagram.len() + 28 <= MIN_WIRE_LEN));
    let delivered = pair.open(datagrams);
    assert_eq!((delivered.packets, delivered.dropped), (packets, vec![]));
}

#[test]
fn a_packet_alone_is_no_bundle_and_one_that_is_not_small_waits_for_nobody() {
    let mut pair = Pair::new(USO);
    for (lens, expected) in [
        (vec![64], vec![RECORD_PACKET]),
        (vec![64, 64], vec![RECORD_BUNDLE]),
        (vec![64, 900, 64, 64], vec![RECORD_PACKET, RECORD_PACKET, RECORD_BUNDLE]),
    ] {
        let packets: Vec<_> = lens.iter().map(|len| udp(2000, *len, 7)).collect();
        let given: Vec<_> = packets.iter().map(|packet| (VnetHeader::default(), packet.clone())).collect();
        let datagrams = pair.seal(&given);
        assert_eq!(kinds(&pair, &datagrams), expected, "{lens:?}");
        let again = pair.seal(&given);
        assert_eq!(pair.open(again).packets, packets, "in their order");
    }
    let len = |packets: &[(VnetHeader, Vec<u8>)], pair: &mut Pair| pair.seal(packets)[0].0.len();
    let alone = (VnetHeader::default(), udp(2000, 64, 7));
    assert_eq!(len(&[alone], &mut pair), TRANSPORT_HEADER_LEN + 1 + 92 + TAILROOM);
}

#[test]
fn datagrams_of_one_flow_are_written_at_once_where_the_device_takes_them() {
    for (offload, writes) in [(USO, 3), (OffloadSet { udp: false, ..USO }, 101)] {
        let mut pair = Pair::new(offload);
        let mut packets: Vec<_> = (0..60).map(|number| udp(2000, 64, number)).collect();
        packets.extend((0..40).map(|number| udp(2000, 64, 60 + number)));
        packets.push(udp(2001, 64, 9));
        let given: Vec<_> = packets.iter().cloned().map(with_checksum_left).collect();
        let datagrams = pair.seal(&given);
        let delivered = pair.open(datagrams);
        // IPv4's identification counts up in a super-packet, where it means nothing.
        let transport = |packets: &[Vec<u8>]| packets.iter().map(|packet| packet[20..].to_vec()).collect::<Vec<_>>();
        assert!(transport(&delivered.packets) == transport(&packets) && delivered.dropped.is_empty());
        assert_eq!(delivered.writes, writes, "64 and 36 datagrams, and one of another flow");
    }
}

#[test]
fn marks_go_out_with_the_datagram_and_come_in_with_the_packet() {
    let mut pair = Pair::new(USO);
    let marked = |ecn: Ecn, len: usize| {
        let mut packet = udp(2000, len, 7);
        ecn.write(&mut packet);
        packet
    };
    for len in [64, 900] {
        let given =
            [Ecn::Capable0, Ecn::Capable0, Ecn::NotCapable].map(|ecn| (VnetHeader::default(), marked(ecn, len)));
        let mut datagrams = pair.seal(&given);
        assert_eq!((datagrams[0].1, datagrams.last().unwrap().1), (Ecn::Capable0, Ecn::NotCapable), "{len}");
        datagrams.iter_mut().for_each(|(_, ecn)| *ecn = Ecn::Congested);
        let delivered = pair.open(datagrams);
        assert_eq!(delivered.packets, [marked(Ecn::Congested, len), marked(Ecn::Congested, len)]);
        assert_eq!(delivered.dropped, [DropReason::Congested], "its transport would not know");
    }
}

#[test]
fn what_waits_for_others_is_counted_when_its_session_ends_first() {
    let mut pair = Pair::new(USO);
    let mut sealed = Sealed::default();
    for _ in 0..3 {
        let mut packet = DevicePacket { vnet: VnetHeader::default(), bytes: &mut udp(2000, 64, 7) };
        assert_eq!(pair.outgoing.seal(&pair.near, NOW, &mut packet, &mut sealed), Outbound::Sealed);
    }
    let late = NOW + crate::session::seal::MAX_AGE;
    assert_eq!(pair.outgoing.finish(late, &mut sealed), [(DropReason::SessionExpired, 3)]);
    assert_eq!((sealed.datagrams.len(), pair.outgoing.finish(late, &mut sealed)), (0, vec![]));
}

/// Times at which a queue is looked at until it stands: at the last of them.
fn looks() -> [Instant; 10] {
    std::array::from_fn(|look| NOW + std::time::Duration::from_millis(2) * (look as u32 + 1))
}

#[test]
fn the_sender_into_a_standing_queue_is_told_by_a_mark_or_by_the_loss_of_one_segment() {
    let mut pair = Pair::new(USO);
    let mut seal_at = |ecn: Ecn, len: usize, segment_len: Option<u16>| {
        let mut sealed = Sealed::default();
        let (mut vnet, mut bytes) = with_checksum_left(udp(2000, len, 7));
        ecn.write(&mut bytes);
        let segmentation = |segment_len| Segmentation { kind: SegmentKind::Udp, segment_len, has_cwr: false };
        vnet.segments = segment_len.map(|segment_len| (segmentation(segment_len), 28));
        let mut outgoing = Outgoing::new(Lane::new(pair.outgoing_lanes.next().unwrap(), 0));
        outgoing.device_was_empty(NOW);
        let [looks @ .., standing] = looks();
        for now in looks {
            let (vnet, mut bytes) = with_checksum_left(udp(2000, 900, 7));
            let packet = &mut DevicePacket { vnet, bytes: &mut bytes };
            assert_eq!(outgoing.seal(&pair.near, now, packet, &mut Sealed::default()), Outbound::Sealed);
            outgoing.finish(now, &mut Sealed::default());
        }
        let outcome = outgoing.seal(&pair.near, standing, &mut DevicePacket { vnet, bytes: &mut bytes }, &mut sealed);
        (outcome, outgoing.finish(standing, &mut sealed), sealed.datagrams)
    };
    let dropped = Outbound::Drop(DropReason::QueueStanding);
    assert_eq!(seal_at(Ecn::NotCapable, 900, None), (dropped, vec![], vec![]));
    let (outcome, lost, datagrams) = seal_at(Ecn::NotCapable, 3000, Some(1000));
    assert_eq!((outcome, lost, datagrams.len()), (Outbound::Sealed, vec![(DropReason::QueueStanding, 1)], 2));
    for segment_len in [None, Some(1000)] {
        let len = segment_len.map_or(900, |len| usize::from(len) * 3);
        let (outcome, lost, datagrams) = seal_at(Ecn::Capable0, len, segment_len);
        assert_eq!((outcome, lost), (Outbound::Sealed, vec![]));
        assert!(datagrams.iter().all(|(_, ecn)| *ecn == Ecn::Congested) && datagrams.len() == len.div_ceil(1000));
    }
    let (outcome, lost, datagrams) = seal_at(Ecn::NotCapable, 64, None);
    assert_eq!((outcome, lost, datagrams.len()), (Outbound::Sealed, vec![], 1), "a small packet fills no queue");
}

#[test]
fn a_packet_that_no_rule_allows_is_refused_by_its_sender_and_by_its_receiver() {
    let closed = || Arc::new(Filter::closed(Instant::ZERO));
    let mut pair = Pair::new(USO);
    pair.far.filter = closed();
    let packets = [64, 900].map(|len| (VnetHeader::default(), udp(2000, len, 7)));
    let segments = Segmentation { kind: SegmentKind::Udp, segment_len: 1000, has_cwr: false };
    let (mut vnet, bytes) = with_checksum_left(udp(2000, 3000, 7));
    vnet.segments = Some((segments, 28));
    let datagrams = pair.seal(&[packets.to_vec(), vec![(vnet, bytes)]].concat());
    let delivered = pair.open(datagrams);
    assert_eq!((delivered.packets, delivered.dropped), (vec![], vec![DropReason::Prohibited; 5]), "each segment");
    pair.near.filter = closed();
    let mut packet = DevicePacket { vnet: VnetHeader::default(), bytes: &mut udp(2000, 64, 7) };
    let mut sealed = Sealed::default();
    let outcome = pair.outgoing.seal(&pair.near, NOW, &mut packet, &mut sealed);
    assert!(matches!(outcome, Outbound::Answer(DropReason::Prohibited, _)), "{outcome:?}");
    assert_eq!(sealed.datagrams, []);
}

#[test]
fn a_socket_whose_queue_stands_marks_or_loses_a_datagram_and_one_that_empties_none() {
    let [looks @ .., standing] = looks();
    for (ecn, len, is_empty, expected) in [
        (Ecn::Capable0, 900, false, (9, 1, vec![])),
        (Ecn::NotCapable, 900, false, (8, 0, vec![DropReason::Congested])),
        (Ecn::Capable0, 900, true, (9, 0, vec![])),
        // A bundle is long; what is in it is small, and fills no queue.
        (Ecn::NotCapable, 64, false, (9, 0, vec![])),
    ] {
        let mut pair = Pair::new(USO);
        let mut packet = udp(2000, len, 7);
        ecn.write(&mut packet);
        pair.incoming.socket_was_empty(NOW);
        for now in looks {
            let datagrams = pair.seal(&[(VnetHeader::default(), udp(2000, 900, 7))]);
            assert_eq!(pair.open_at(now, datagrams).packets.len(), 1);
        }
        let datagrams = pair.seal(&vec![(VnetHeader::default(), packet); 9]);
        if is_empty {
            pair.incoming.socket_was_empty(standing);
        }
        let delivered = pair.open_at(standing, datagrams);
        let marked = delivered.packets.iter().filter(|packet| Ecn::of(packet) == Ecn::Congested).count();
        assert_eq!((delivered.packets.len(), marked, delivered.dropped), expected, "{ecn:?} {len} {is_empty}");
    }
}
