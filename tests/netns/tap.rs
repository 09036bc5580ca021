//! Frames instead of packets: what the tunnel will carry between two TAP devices, with and without a VLAN tag.
//!
//! ```text
//!   sockets ── tap0 ─► | link header | super-packet | ─► chunks ─► run ─► | link header | super-packet | ─► tap0 ── sockets
//! ```
//! A harness, made of the product's own pieces behind the link header, stands where the daemons will be.

use crate::kernel::assert_undamaged;
use crate::lab::{Host, Lab};
use crate::node::{PATIENCE, move_bytes};
use crate::rows::send_rows;
use crate::socket::wait_for_either;
use crate::tagging::Tagging;
use p2plus::router::segment::{Cut, Part, Run};
use p2plus::wire::data::{Chunk, Record, SessionIndex};
use p2plus::wire::ecn::Ecn;
use p2plus::wire::offload::{PartialChecksum, PlainHeaders, VNET_HEADER_LEN, VnetHeader, complete_checksum};
use std::io::{ErrorKind, IoSlice};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// Bytes of a frame in front of its packet, and what a VLAN tag adds.
pub const LINK_HEADER_LEN: usize = 14;
pub const TAG_LEN: usize = 4;
/// The EtherType of a tag (IEEE 802.1Q).
pub const TAGGED: [u8; 2] = [0x81, 0];

const TRANSFER_LEN: usize = 10_000_000;
/// Of so many chunks one is lost.
const LOSS: u32 = 500;
const LOOK: Duration = Duration::from_millis(20);

/// What went by, in both directions.
#[derive(Default)]
struct Counts {
    frames: AtomicU32,
    super_packets: AtomicU32,
    tagged: AtomicU32,
    chunks: AtomicU32,
}

/// Two TAP devices and what is between them, until it is dropped.
struct Harness {
    counts: Arc<Counts>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Harness {
    fn start(hosts: [&Host; 2]) -> Self {
        let taps = hosts.map(|host| {
            let builder = || DeviceBuilder::new().name("tap0").layer(Layer::L2).mtu(1500).offload(true);
            let tap = host.run(|| builder().build_sync()).unwrap();
            tap.set_nonblocking(true).unwrap();
            tap
        });
        let (counts, ended) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (counts, ended) = (Arc::clone(&counts), Arc::clone(&ended));
            move || carry(&taps, &ended, &counts)
        });
        Self { counts, ended, thread: Some(thread) }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // A panic in there was printed already.
        self.thread.take().map(JoinHandle::join);
    }
}

fn carry(taps: &[SyncDevice; 2], ended: &AtomicBool, counts: &Counts) {
    let mut memory = vec![0; VNET_HEADER_LEN + LINK_HEADER_LEN + TAG_LEN + 65_536];
    while !ended.load(Ordering::Acquire) {
        wait_for_either(taps.each_ref(), LOOK);
        for (from, to) in [(&taps[0], &taps[1]), (&taps[1], &taps[0])] {
            loop {
                match from.recv(&mut memory) {
                    Ok(len) => pass(&mut memory[..len], to, counts),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

/// Passes what one device gave on to the other: a super-packet in chunks, anything else whole.
fn pass(memory: &mut [u8], to: &SyncDevice, counts: &Counts) {
    let (vnet, frame) = memory.split_first_chunk_mut::<VNET_HEADER_LEN>().unwrap();
    let vnet = VnetHeader::decode(vnet).unwrap();
    let is_tagged = frame[12..14] == TAGGED;
    let link_len = LINK_HEADER_LEN + if is_tagged { TAG_LEN } else { 0 };
    counts.frames.fetch_add(1, Ordering::Relaxed);
    counts.tagged.fetch_add(is_tagged.into(), Ordering::Relaxed);
    if vnet.segments.is_none() {
        vnet.checksum.iter().for_each(|checksum| assert!(complete_checksum(frame, *checksum)));
        return write(to, &VnetHeader::default(), &[frame]);
    }
    counts.super_packets.fetch_add(1, Ordering::Relaxed);
    let (link, packet) = frame.split_at(link_len);
    let records = cut_up(vnet, packet, link_len, counts);
    let mut run: Option<Run<'_>> = None;
    let deliver = |run: Run<'_>| {
        let packet = run.finish();
        write(to, &behind(packet.vnet, link_len), &[&[link, packet.headers()], &packet.pieces[..]].concat());
    };
    for record in &records {
        let Ok(Record::Chunk(chunk)) = Record::decode(record) else { panic!("no chunk") };
        if !run.as_mut().is_some_and(|run| run.take(SessionIndex(1), Ecn::NotCapable, &chunk)) {
            run.take().into_iter().for_each(deliver);
            run = Some(Run::begin(SessionIndex(1), Ecn::NotCapable, &chunk).unwrap());
        }
    }
    run.into_iter().for_each(deliver);
}

/// The chunks of a super-packet, without those that are lost.
fn cut_up(vnet: VnetHeader, packet: &[u8], link_len: usize, counts: &Counts) -> Vec<Vec<u8>> {
    let plain = PlainHeaders::parse(packet).unwrap();
    let (segments, _) = vnet.segments.unwrap();
    // What the kernel says of a frame is what the headers behind the link header say.
    assert_eq!(
        vnet.checksum,
        behind(VnetHeader { checksum: Some(plain.checksum()), segments: None }, link_len).checksum
    );
    let cut = Cut::new(packet, segments).unwrap();
    assert!(cut.fits_chunks());
    let (headers, payload) = packet.split_at(cut.header_len());
    let record = |part: Part| {
        let chunk = Chunk {
            is_last: part.is_last,
            super_packet: 1,
            offset: part.payload.start as u16,
            segment_len: cut.segment_len() as u16,
            headers,
            payload: &payload[part.payload],
        };
        [&chunk.encode_header(), headers, chunk.payload].concat()
    };
    let is_tcp = packet[if packet[0] >> 4 == 4 { 9 } else { 6 }] == 6;
    let arrives = |_: &Vec<u8>| counts.chunks.fetch_add(1, Ordering::Relaxed) % LOSS != LOSS - 1 || !is_tcp;
    cut.parts(0).map(record).filter(arrives).collect()
}

/// What the kernel is told of a packet that has so many bytes of a link header more in front.
pub fn behind(vnet: VnetHeader, link_len: usize) -> VnetHeader {
    let link_len = link_len as u16;
    VnetHeader {
        checksum: vnet.checksum.map(|it| PartialChecksum { start: it.start + link_len, ..it }),
        segments: vnet.segments.map(|(segments, header_len)| (segments, header_len + link_len)),
    }
}

fn write(to: &SyncDevice, vnet: &VnetHeader, parts: &[&[u8]]) {
    let vnet = vnet.encode();
    let slices: Vec<_> = [&vnet[..]].iter().chain(parts).map(|part| IoSlice::new(part)).collect();
    to.send_vectored(&slices).unwrap();
}

/// Gives the hosts' links addresses and moves TCP and rows of UDP datagrams between them, both ways.
fn carry_everything(hosts: [&Host; 2], link: &str) {
    for (number, host) in hosts.iter().enumerate() {
        host.ip(&format!("addr add 10.99.0.{}/24 dev {link}", 1 + number));
        host.ip(&format!("addr add fd99::{}/64 dev {link} nodad", 1 + number));
        host.ip(&format!("link set {link} up"));
    }
    for addresses in [["10.99.0.1", "10.99.0.2"], ["fd99::1", "fd99::2"]] {
        let addresses = addresses.map(|address| address.parse::<IpAddr>().unwrap());
        for [from, to] in [[0, 1], [1, 0]] {
            let listener = hosts[to].run(|| TcpListener::bind((addresses[to], 0))).unwrap();
            let target = listener.local_addr().unwrap();
            let stream = hosts[from].run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap();
            move_bytes(stream, &listener, TRANSFER_LEN, |_| {});
            let udp = |end: usize| {
                let socket = hosts[end].run(|| UdpSocket::bind((addresses[end], 0))).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket
            };
            let receiver = udp(to);
            send_rows(&udp(from), (&receiver, receiver.local_addr().unwrap()), [1_200, 777]);
        }
    }
    assert_undamaged(&hosts);
}

/// Whether most of what went by, went by in super-packets.
fn assert_together(counts: &Counts) {
    let [frames, super_packets, chunks] =
        [&counts.frames, &counts.super_packets, &counts.chunks].map(|count| count.load(Ordering::Relaxed));
    println!("{frames} frames, {super_packets} super-packets, {chunks} chunks");
    assert!(chunks > 4 * (TRANSFER_LEN / 1500) as u32 && super_packets < chunks / 5, "{super_packets}: {chunks}");
}

#[test]
fn super_packets_cross_behind_a_link_header() {
    let Some(mut lab) = Lab::new() else { return };
    let hosts = [lab.host("a"), lab.host("b")];
    let harness = Harness::start(hosts.each_ref());
    carry_everything(hosts.each_ref(), "tap0");
    assert_together(&harness.counts);
    assert_eq!(harness.counts.tagged.load(Ordering::Relaxed), 0);
}

#[test]
fn super_packets_cross_behind_a_link_header_with_a_tag() {
    let Some(mut lab) = Lab::new() else { return };
    let hosts = [lab.host("a"), lab.host("b")];
    let harness = Harness::start(hosts.each_ref());
    let _tagging = hosts.each_ref().map(|host| Tagging::start(host, "tap0"));
    carry_everything(hosts.each_ref(), "untagged");
    assert_together(&harness.counts);
    let tagged = harness.counts.tagged.load(Ordering::Relaxed);
    assert!(tagged > harness.counts.super_packets.load(Ordering::Relaxed), "{tagged} tagged frames");
}
