//! Packets that are longer than a path takes.

use super::*;
use crate::node::forward::fits_any_link;
use crate::path::PathMtu;
use crate::router::PeerIndex;
use crate::wire::transport_record::{RECORD_CHUNK, RECORD_FRAGMENT};

/// A pair whose own link takes 1500 bytes, and the path behind it as much as is known.
fn pair(mtu: PathMtu) -> Pair {
    let mut pair = Pair::new(USO);
    let number = PeerIndex::at(0).unwrap();
    let mut outlet = pair.near.outlets.get(number).unwrap().clone();
    outlet.mtu = mtu;
    pair.near.outlets = Arc::new([(number, outlet)].into_iter().collect());
    pair.outgoing.learn_link(NOW, SocketAddr::from(ENDPOINT), Some(1500));
    pair
}

/// Three segments of `len` bytes each as one packet.
fn super_packet(len: u16) -> (VnetHeader, Vec<u8>) {
    let (mut vnet, bytes) = with_checksum_left(udp(2000, 3 * usize::from(len), 7));
    vnet.segments = Some((Segmentation { kind: SegmentKind::Udp, segment_len: len, has_cwr: false }, 28));
    (vnet, bytes)
}

/// Takes the permission to cut it from a packet's header, or gives it.
fn dont_fragment(packet: &mut [u8], is_set: bool) {
    packet[6] = if is_set { 0x40 } else { 0 };
    let sum: u32 = [0, 2, 4, 6, 8, 12, 14, 16, 18]
        .map(|at| u32::from(u16::from_be_bytes([packet[at], packet[at + 1]])))
        .iter()
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn try_to_seal(pair: &mut Pair, packet: &[u8]) -> (Outbound, Vec<(Vec<u8>, Ecn)>) {
    let mut sealed = Sealed::default();
    let packet = &mut DevicePacket { vnet: VnetHeader::default(), bytes: &mut packet.to_vec() };
    (pair.outgoing.seal(&pair.near, NOW, packet, &mut sealed), sealed.datagrams)
}

/// The MTU that an ICMP error of IPv4 tells.
fn told(outcome: &Outbound) -> u16 {
    let Outbound::Answer(DropReason::TooLarge, answer) = outcome else { panic!("{outcome:?}") };
    u16::from_be_bytes([answer[26], answer[27]])
}

#[test]
fn until_a_path_is_measured_what_is_long_leaves_in_parts_that_every_path_takes() {
    let mut pair = pair(PathMtu::Unknown);
    let long = udp(2000, 1372, 7);
    let given = [with_checksum_left(long.clone()), super_packet(1372), (VnetHeader::default(), udp(2000, 1000, 7))];
    let datagrams = pair.seal(&given);
    assert_eq!(kinds(&pair, &datagrams), [&[RECORD_FRAGMENT; 8][..], &[RECORD_PACKET]].concat());
    let datagrams = pair.seal(&given);
    assert!(datagrams.iter().all(|(datagram, _)| datagram.len() + 28 <= MIN_WIRE_LEN));
    let delivered = pair.open(datagrams);
    assert_eq!(delivered.packets.len(), 5);
    assert_eq!((&delivered.packets[0], delivered.dropped), (&long, vec![]));
    assert!(delivered.packets[1..4].iter().all(|packet| packet.len() == 1400 && packet[28..] == long[28..]));
}

#[test]
fn a_path_that_takes_it_gets_it_whole_and_one_that_does_not_tells_of_its_limit() {
    let mut wide = pair(PathMtu::Known(1476));
    let datagrams = wide.seal(&[with_checksum_left(udp(2000, 1372, 7)), super_packet(1372)]);
    assert_eq!(kinds(&wide, &datagrams), [RECORD_PACKET, RECORD_CHUNK, RECORD_CHUNK, RECORD_CHUNK]);
    let mut narrow = pair(PathMtu::Known(1280));
    let limit = 1280 - (MIN_WIRE_LEN - fits_any_link(&SocketAddr::from(ENDPOINT).into()));
    let mut packet = udp(2000, 1372, 7);
    dont_fragment(&mut packet, true);
    let (outcome, datagrams) = try_to_seal(&mut narrow, &packet);
    assert_eq!((told(&outcome).into(), datagrams), (limit, vec![]));
    let mut fitting = udp(2000, limit - 28, 7);
    dont_fragment(&mut fitting, true);
    let (outcome, datagrams) = try_to_seal(&mut narrow, &fitting);
    assert_eq!((outcome, datagrams[0].0.len() + 28), (Outbound::Sealed, 1280));
    dont_fragment(&mut packet, false);
    let (outcome, datagrams) = try_to_seal(&mut narrow, &packet);
    assert_eq!((outcome, datagrams.len()), (Outbound::Sealed, 2), "whose sender allows it, is cut");
    assert!(datagrams.iter().all(|(datagram, _)| datagram.len() + 28 <= 1280));
    assert_eq!(narrow.open(datagrams).packets, [packet]);
}
