//! The threads that carry packets: `forward` between the device and the sockets, with the node told of what is not plain data.
//!
//! ```text
//!   device ─► Outgoing::seal ─► UdpSender          sockets ─► forward::Opening ─► device
//!          └─ no session, resolver ─► inbox              └─ handshake, control, news ─► inbox
//! ```
//! The threads share only the published table, the drop counters and the inbox, bounded queues: when the node cannot keep up, what
//! it would have got is dropped and counted, and data goes on. A handshake datagram without a valid mac1, or a cookie or response for no
//! attempt under way, never gets that far.

use super::inbox::{FromWire, Inbox, Sender};
use super::taps::Taps;
use super::workers::{PacketHandler, Workers};
use crate::io::batch::{Datagram, DatagramShape, SendBatch};
use crate::io::clock;
use crate::io::device::{Device, WriteError};
use crate::io::network::Network;
use crate::io::sender::PathSender;
use crate::io::tls::{self, TlsReceiver};
use crate::io::udp::{SpareReceiver, UdpReceiver};
use crate::node::forward::{self, Delivery, DevicePacket, Inbound, Incoming, Opening, Outbound, Outbox, Outgoing};
use crate::node::table::ForwardingTable;
use crate::path::Path;
use crate::router::segmentation::SuperPacket;
use crate::time::Instant;
use crate::wire::datagram::{Lane, SessionIndex};
use crate::wire::drops::{DropReason, Drops};
use crate::wire::ecn::Ecn;
use crate::wire::offload::VnetHeader;
use crate::wire::transport_record::Layer;
use arc_swap::ArcSwap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The lane worker of the thread that reads the device's first queue; 0 is the node's. Those of the others follow.
const FIRST_WORKER: u8 = 1;

/// What every data thread shares.
#[derive(Clone)]
pub struct Shared {
    /// The table in force.
    pub table: Arc<ArcSwap<ForwardingTable>>,
    /// What was given up, by reason.
    pub drops: Arc<Drops>,
    /// The way to the node.
    pub inbox: Inbox,
    /// The interface has its IPv4 address.
    pub takes_ipv4: Arc<AtomicBool>,
    /// What the kernel's routing rules know our own datagrams by; 0 without an interface.
    pub mark: u32,
    /// The devices of this node's segments.
    pub taps: Arc<ArcSwap<Taps>>,
}

/// What receives datagrams, each for a thread.
pub struct Receivers {
    /// One for each queue of each socket.
    pub udp: Vec<UdpReceiver>,
    /// For all sockets that come and go.
    pub spares: SpareReceiver,
    /// For all links over TLS.
    pub streams: TlsReceiver,
}

/// Starts the threads: one on each queue of the device, and one for each receiver.
///
/// # Errors
/// The system's, when it gives no thread.
pub fn start(
    workers: &mut Workers,
    shared: &Shared,
    device: &Device,
    receivers: Receivers,
    sender: &PathSender,
) -> io::Result<()> {
    let queues = device.queues();
    for receiver in receivers.udp {
        let device = queues[receiver.queue() % queues.len()].clone();
        let sender = sender.by_queue(receiver.queue()).unwaiting();
        start_incoming(workers, shared.clone(), device, receiver, sender)?;
    }
    start_spares(workers, shared.clone(), queues[0].clone(), receivers.spares, sender.unwaiting())?;
    start_streams(workers, shared.clone(), queues[0].clone(), receivers.streams, sender.unwaiting())?;
    queues.into_iter().zip(FIRST_WORKER..).try_for_each(|(device, worker)| {
        let sender = sender.by_queue(device.queue());
        start_outgoing(workers, shared.clone(), device, sender, worker)
    })
}

fn start_outgoing(
    workers: &mut Workers,
    shared: Shared,
    device: Device,
    sender: PathSender,
    worker: u8,
) -> io::Result<()> {
    let way_out = WayOut { answers: device.clone(), exit: Exit::new(shared, sender, worker) };
    workers.read_device(device, way_out)
}

/// The thread from the device to the sockets.
struct WayOut {
    /// Where ICMP answers go.
    answers: Device,
    exit: Exit,
}

impl PacketHandler for WayOut {
    fn begin(&mut self) {
        self.exit.begin();
    }

    fn take(&mut self, mut packet: DevicePacket<'_>) {
        let now = clock::now().instant;
        let table = self.exit.shared.table.load();
        let outcome = self.exit.seal(now, |outgoing, batch| outgoing.seal(&table, now, &mut packet, batch));
        if let Some(answer) = self.exit.settle(now, Layer::Ip, outcome, &mut packet)
            && self.answers.write(&answer).is_err()
        {
            self.exit.shared.drops.count(DropReason::DeviceRefused);
        }
    }

    fn end(&mut self) {
        self.exit.flush(clock::now().instant);
    }
}

/// A thread's way to the sockets: what it seals, and where that waits to be sent.
pub(super) struct Exit {
    pub(super) shared: Shared,
    sender: PathSender,
    outgoing: Outgoing,
    links: Links,
    batch: SendBatch,
}

impl Exit {
    /// Begins with nothing sealed. `worker` is the number of this thread's lane.
    pub(super) fn new(shared: Shared, sender: PathSender, worker: u8) -> Self {
        let (outgoing, links) = (Outgoing::new(Lane::new(worker, 0)), Links::open(shared.mark));
        Self { shared, sender, outgoing, links, batch: SendBatch::default() }
    }

    /// Cuts frames to this length of packets.
    pub(super) fn limit_frames(&mut self, mtu: u16) {
        self.outgoing.limit_frames(mtu);
    }

    /// Takes the news that the device had nothing until now.
    pub(super) fn begin(&mut self) {
        self.outgoing.device_was_empty(clock::now().instant);
    }

    /// Seals, and once more when the link had to be measured first.
    pub(super) fn seal(
        &mut self,
        now: Instant,
        mut seal: impl FnMut(&mut Outgoing, &mut SendBatch) -> Outbound,
    ) -> Outbound {
        let outcome = seal(&mut self.outgoing, &mut self.batch);
        let Outbound::Measure(to) = outcome else { return outcome };
        self.outgoing.learn_link(now, to, self.links.mtu(to));
        seal(&mut self.outgoing, &mut self.batch)
    }

    /// Does what became of a packet or frame. Returns what the device is told of it.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        layer: Layer,
        outcome: Outbound,
        packet: &mut DevicePacket<'_>,
    ) -> Option<Vec<u8>> {
        let shared = &self.shared;
        let mut answered = None;
        match outcome {
            Outbound::Sealed => {}
            Outbound::Stage(peer) => forward::each_whole(layer, packet, |packet| {
                shared.tell(FromWire::Unsent { peer, layer, packet: packet.to_vec() });
            }),
            Outbound::Resolve => forward::each_whole(layer, packet, |packet| {
                shared.tell(FromWire::Query { packet: packet.to_vec() });
            }),
            Outbound::Answer(reason, answer) => {
                shared.drops.count(reason);
                answered = Some(answer);
            }
            Outbound::Drop(reason) => shared.drops.count(reason),
            // It was measured a moment ago.
            Outbound::Measure(_) => shared.drops.count(DropReason::TooLarge),
        }
        if self.batch.is_full() {
            self.flush(now);
        }
        answered
    }

    /// Sends what is sealed.
    pub(super) fn flush(&mut self, now: Instant) {
        let Self { shared, outgoing, batch, .. } = self;
        for (reason, count) in outgoing.finish(now, batch) {
            shared.drops.add(reason, count as u64);
        }
        let trains = batch.trains();
        self.sender.send_each(batch.memory(), trains, |position, count, reason| {
            if reason == DropReason::TooLarge {
                outgoing.forget_link(trains[position].path.remote);
            }
            shared.drops.add(reason, count as u64);
        });
        batch.clear();
    }
}

/// What the host knows of the links that datagrams leave by; nothing, when it cannot be asked.
struct Links {
    network: Option<Network>,
    mark: u32,
}

impl Links {
    fn open(mark: u32) -> Self {
        let network = Network::open();
        if let Err(error) = &network {
            tracing::warn!(%error, "the MTU of the host's links is not known");
        }
        Self { network: network.ok(), mark }
    }

    /// Asks for the MTU of the link towards an endpoint.
    fn mtu(&mut self, to: SocketAddr) -> Option<usize> {
        let mtu = self.network.as_mut()?.link_mtu(to.ip(), self.mark);
        if let Err(error) = &mtu {
            tracing::debug!(%to, %error, "the MTU of the link is not known");
        }
        mtu.ok().and_then(|mtu| usize::try_from(mtu).ok())
    }
}

fn start_incoming(
    workers: &mut Workers,
    shared: Shared,
    device: Device,
    receiver: UdpReceiver,
    sender: PathSender,
) -> io::Result<()> {
    let mut way_in = WayIn::new(shared, device, sender);
    workers.receive_udp(receiver, DatagramShape::default(), move |batch| {
        way_in.take(batch.is_after_silence(), batch.datagrams(), |_| {});
    })
}

/// The thread that opens what comes to all sockets that come and go.
fn start_spares(
    workers: &mut Workers,
    shared: Shared,
    device: Device,
    receiver: SpareReceiver,
    sender: PathSender,
) -> io::Result<()> {
    let mut way_in = WayIn::new(shared, device, sender);
    workers.receive_spares(receiver, DatagramShape::default(), move |batch| {
        way_in.take(batch.is_after_silence(), batch.datagrams(), |_| {});
    })
}

/// The thread that opens what comes by all links over TLS.
fn start_streams(
    workers: &mut Workers,
    shared: Shared,
    device: Device,
    receiver: TlsReceiver,
    sender: PathSender,
) -> io::Result<()> {
    let links = sender.tls().clone();
    let mut way_in = WayIn::new(shared, device, sender);
    workers.receive_streams(receiver, move |is_after_silence, batch| {
        let datagrams = batch.iter_mut().flat_map(tls::Incoming::datagrams);
        let mut vouched = None;
        way_in.take(is_after_silence, datagrams, |path| {
            if vouched.replace(path.remote) != Some(path.remote) {
                links.vouch(&path.remote);
            }
        });
    })
}

/// A thread from the sockets, or from the links, to the device.
struct WayIn {
    incoming: Incoming,
    passing: Passing,
    to_host: ToHost,
    shared: Shared,
}

impl WayIn {
    fn new(shared: Shared, device: Device, sender: PathSender) -> Self {
        Self {
            incoming: Incoming::new(device.offload()),
            passing: Passing { sender, batch: SendBatch::default(), drops: Arc::clone(&shared.drops) },
            to_host: ToHost { shared: shared.clone(), device },
            shared,
        }
    }

    /// Opens a batch of datagrams, which nothing may have come before. Tells `authentic` by which path something of a session came.
    fn take<'b>(
        &mut self,
        is_after_silence: bool,
        datagrams: impl Iterator<Item = Datagram<'b>>,
        mut authentic: impl FnMut(Path),
    ) {
        let Self { incoming, passing, to_host, shared } = self;
        let (table, now) = (shared.table.load(), clock::now().instant);
        if is_after_silence {
            incoming.socket_was_empty(now);
        }
        let mut opening = Opening::new(&table, incoming, now);
        for Datagram { arrival, payload } in datagrams {
            let before = opening.authentic();
            let (inbound, news) = opening.open(arrival, payload, to_host);
            if opening.authentic() > before {
                authentic(arrival.path);
            }
            match inbound {
                Inbound::Done => {}
                Inbound::Record(index, path, record) => {
                    let record = record.to_vec();
                    shared.tell_of(&table, index, |sender| FromWire::Record { index, sender, path, record });
                }
                Inbound::Handshake(trust, path, datagram) => {
                    shared.tell(FromWire::Handshake { trust, path, datagram: datagram.to_vec() });
                }
                Inbound::Pass(path, ecn, datagram) => passing.take(path, ecn, datagram),
            }
            if let Some((index, path)) = news {
                shared.tell_of(&table, index, |sender| FromWire::News { index, sender, path });
            }
        }
        opening.end(to_host);
        passing.flush();
    }
}

/// What a relay passes on: as it came, in the order and the rows in which it came.
struct Passing {
    sender: PathSender,
    batch: SendBatch,
    drops: Arc<Drops>,
}

impl Passing {
    fn take(&mut self, path: Path, ecn: Ecn, datagram: &[u8]) {
        match self.batch.room(datagram.len()) {
            Some(room) => room.copy_from_slice(datagram),
            None => return self.drops.count(DropReason::TooLarge),
        }
        self.batch.push(datagram.len(), path, ecn);
        if self.batch.is_full() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let Self { sender, batch, drops } = self;
        let count_lost = |_, count, reason| drops.add(reason, count as u64);
        sender.send_each(batch.memory(), batch.trains(), count_lost);
        batch.clear();
    }
}

/// Hands to the host what came for it.
struct ToHost {
    shared: Shared,
    device: Device,
}

impl Delivery for ToHost {
    fn packet(&mut self, layer: Layer, vnet: &VnetHeader, packet: &[u8]) {
        match self.write(layer, vnet, &[packet]) {
            Ok(()) => {}
            Err(NotWritten::For(reason)) => self.dropped(reason),
            Err(NotWritten::By(_)) => self.dropped(DropReason::DeviceRefused),
        }
    }

    fn super_packet(&mut self, packet: &SuperPacket<'_>) {
        let mut parts = Vec::with_capacity(1 + packet.pieces.len());
        parts.push(packet.headers());
        parts.extend(&packet.pieces);
        match self.write(packet.layer, &packet.vnet, &parts) {
            Ok(()) => {}
            Err(NotWritten::For(reason)) => self.dropped(reason),
            Err(NotWritten::By(WriteError::Refused(error))) if packet.vnet.segments.is_some() => {
                tracing::debug!(%error, "a super-packet is split");
                packet.split(|bytes| self.packet(packet.layer, &VnetHeader::default(), bytes));
            }
            Err(NotWritten::By(_)) => self.dropped(DropReason::DeviceRefused),
        }
    }

    fn dropped(&mut self, reason: DropReason) {
        self.shared.drops.count(reason);
    }
}

/// Why the host did not get something.
enum NotWritten {
    /// It was not to, for this reason.
    For(DropReason),
    /// Its device did not take it.
    By(WriteError),
}

impl ToHost {
    /// Writes a packet to the device, a frame to that of its segment.
    fn write(&self, layer: Layer, vnet: &VnetHeader, parts: &[&[u8]]) -> Result<(), NotWritten> {
        match layer {
            Layer::Ip if parts.first().is_some_and(|front| self.is_withheld(front)) => {
                Err(NotWritten::For(DropReason::AddressConflict))
            }
            Layer::Ip => self.device.write_parts(vnet, parts).map_err(NotWritten::By),
            Layer::Link(segment) => {
                let taps = self.shared.taps.load();
                let device = taps.get(segment).ok_or(NotWritten::For(DropReason::UnknownSegment))?;
                device.write_parts(vnet, parts).map_err(NotWritten::By)
            }
        }
    }

    /// Says whether a packet is for the IPv4 address that the interface does not have.
    fn is_withheld(&self, packet: &[u8]) -> bool {
        is_ipv4(packet) && !self.shared.takes_ipv4.load(Ordering::Relaxed)
    }
}

/// Says whether a packet, which was parsed already, is one of IPv4.
fn is_ipv4(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 4)
}

impl Shared {
    fn tell(&self, message: FromWire) {
        if let Err(reason) = self.inbox.offer(message) {
            self.drops.count(reason);
        }
    }

    /// Tells what came in a session of the table.
    fn tell_of(&self, table: &ForwardingTable, index: SessionIndex, message: impl FnOnce(Sender) -> FromWire) {
        match table.inlets.get(&index) {
            Some(inlet) => self.tell(message(Sender::of(inlet))),
            None => self.drops.count(DropReason::UnknownSession),
        }
    }
}
