//! The worker threads under load: everything that goes in comes out, and is counted.

use crate::device::{OTHER, OWN, open_up, payload_to_other, udp_packet};
use crate::lab::{Lab, eventually};
use p2plus::daemon::workers::{PacketHandler, Workers};
use p2plus::io::batch::{DatagramShape, SendBatch};
use p2plus::io::udp::{self, Listen, UdpSender};
use p2plus::node::forward::{DevicePacket, Outbox};
use p2plus::wire::ecn::Ecn;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

const COUNT: u32 = 10_000;
const PORT: u16 = 6000;
/// In flight at most, so that no queue of the kernel overflows and every packet can be asked for.
const WINDOW: u32 = 50;

/// Sends packets with 16 bytes in front, where sealing puts its header.
struct Pump {
    sender: UdpSender,
    to: SocketAddr,
    batches: Arc<AtomicU32>,
    batch: SendBatch,
}

impl PacketHandler for Pump {
    fn take(&mut self, packet: DevicePacket<'_>) {
        if payload_to_other(packet.bytes, PORT).is_none() {
            return;
        }
        let len = 16 + packet.bytes.len();
        let room = self.batch.room(len).unwrap();
        room[..16].fill(0x10);
        room[16..].copy_from_slice(packet.bytes);
        self.batch.push(len, self.to.into(), Ecn::NotCapable);
        if self.batch.is_full() {
            self.end();
        }
    }

    fn begin(&mut self) {}

    fn end(&mut self) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.sender.send_each(self.batch.memory(), self.batch.trains(), |_, _, error| panic!("{error}"));
        self.batch.clear();
    }
}

struct Nothing;

impl PacketHandler for Nothing {
    fn take(&mut self, _packet: DevicePacket<'_>) {}

    fn begin(&mut self) {}

    fn end(&mut self) {}
}

/// A tunnel without ciphers, from host a's socket to host b's and through the whole of both data planes:
///
/// ```text
///   a: socket → TUN → device thread → UDP ══ router ══ UDP → thread → TUN → socket :b
/// ```
#[test]
fn ten_thousand_packets_pass_the_device_and_the_udp_threads_and_are_all_counted() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = (lab.host("a"), lab.host("b"));
    let (tun_a, tun_b) = (open_up(&a, "p2p-test"), open_up(&b, "p2p-test"));
    let sockets_a = a.run(|| udp::bind(&Listen::default(), 1)).unwrap();
    let sockets_b = b.run(|| udp::bind(&Listen::default(), 1)).unwrap();
    let (failures, failed) = mpsc::channel();
    let mut workers = Workers::new(move |failure| failures.send(failure).unwrap()).unwrap();

    let (sender, to) = (sockets_a.sender.clone(), SocketAddr::new(b.v4(), udp::DEFAULT_PORT));
    let batches = Arc::new(AtomicU32::new(0));
    workers
        .read_device(tun_a.clone(), Pump { sender, to, batches: Arc::clone(&batches), batch: SendBatch::default() })
        .unwrap();
    for receiver in sockets_b.receivers {
        let device = tun_b.clone();
        workers
            .receive_udp(receiver, DatagramShape::default(), move |batch| {
                for datagram in batch.datagrams() {
                    assert_eq!(datagram.payload[..16], [0x10; 16]);
                    let payload = payload_to_other(&datagram.payload[16..], PORT).unwrap();
                    device.write(&udp_packet((OTHER, 1), (OWN, PORT), payload)).unwrap();
                }
            })
            .unwrap();
    }

    let source = a.run(|| UdpSocket::bind((IpAddr::from(OWN), 5000)).unwrap());
    let sink = b.run(|| UdpSocket::bind((IpAddr::from(OWN), PORT)).unwrap());
    sink.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = [0; 2_000];
    let mut receive = |number: u32| {
        let (length, _) = sink.recv_from(&mut buffer).unwrap();
        assert_eq!((length, &buffer[..4]), (1_000, number.to_be_bytes().as_slice()));
    };
    let mut payload = [0xA5; 1_000];
    for number in 0..COUNT {
        payload[..4].copy_from_slice(&number.to_be_bytes());
        source.send_to(&payload, (IpAddr::from(OTHER), PORT)).unwrap();
        if number >= WINDOW {
            receive(number - WINDOW);
        }
    }
    (COUNT - WINDOW..COUNT).for_each(&mut receive);

    let count = u64::from(COUNT);
    // The last packet arrives a moment before its writer counts it.
    assert!(eventually(Duration::from_secs(5), || tun_b.counts().written == count), "{:?}", tun_b.counts());
    let (sent, received) = (sockets_a.sender.counts(), sockets_b.sender.counts());
    assert!(tun_a.counts().read >= count && tun_a.counts().read_malformed == 0);
    assert_eq!((sent.sent, received.received), (count, count));
    assert_eq!(received.received_truncated + received.receive_overflow + received.receive_errors, 0);
    let batches = batches.load(Ordering::Relaxed);
    assert!(batches <= tun_a.counts().read.try_into().unwrap());
    workers.stop();
    assert!(failed.try_recv().is_err());
}

#[test]
fn a_device_removed_under_its_thread_is_told_to_the_owner_and_the_others_go_on() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("host");
    let device = open_up(&host, "p2p-test");
    let sockets = host.run(|| udp::bind(&Listen::default(), 1)).unwrap();
    let (failures, failed) = mpsc::channel();
    let mut workers = Workers::new(move |failure| failures.send(failure).unwrap()).unwrap();
    workers.read_device(device, Nothing).unwrap();
    for receiver in sockets.receivers {
        workers.receive_udp(receiver, DatagramShape::default(), |_| {}).unwrap();
    }
    host.ip("link del p2p-test");
    let failure = failed.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(failure.thread, "p2p-device-0");
    host.run(|| UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"still there", "127.0.0.1:4647").unwrap());
    assert!(eventually(Duration::from_secs(5), || sockets.sender.counts().received == 1));
    workers.stop();
}
