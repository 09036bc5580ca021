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
use super::workers::{PacketHandler, Workers};
use crate::io::batch::{Datagram, DatagramShape, SendBatch};
use crate::io::clock;
use crate::io::device::{Device, WriteError};
use crate::io::network::Network;
use crate::io::udp::{SendError, UdpReceiver, UdpSender};
use crate::node::forward::{self, Delivery, DevicePacket, Inbound, Incoming, Opening, Outbound, Outgoing};
use crate::node::table::ForwardingTable;
use crate::router::segment::SuperPacket;
use crate::time::Instant;
use crate::wire::data::{Lane, SessionIndex};
use crate::wire::drops::{DropReason, Drops};
use crate::wire::offload::VnetHeader;
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
}

/// Starts the threads: one on each queue of the device, one on each queue of each socket.
///
/// # Errors
/// The system's, when it gives no thread.
pub fn start(
    workers: &mut Workers,
    shared: &Shared,
    device: &Device,
    receivers: Vec<UdpReceiver>,
    sender: &UdpSender,
) -> io::Result<()> {
    let queues = device.queues();
    for receiver in receivers {
        let device = queues[receiver.queue() % queues.len()].clone();
        start_incoming(workers, shared.clone(), device, receiver)?;
    }
    queues.into_iter().zip(FIRST_WORKER..).try_for_each(|(device, worker)| {
        let sender = sender.by_queue(device.queue());
        start_outgoing(workers, shared.clone(), device, sender, worker)
    })
}

fn start_outgoing(
    workers: &mut Workers,
    shared: Shared,
    device: Device,
    sender: UdpSender,
    worker: u8,
) -> io::Result<()> {
    let way_out = WayOut {
        links: Links::open(shared.mark),
        shared,
        sender,
        answers: device.clone(),
        outgoing: Outgoing::new(Lane::new(worker, 0)),
        batch: SendBatch::default(),
    };
    workers.read_device(device, way_out)
}

/// The thread from the device to the sockets.
struct WayOut {
    shared: Shared,
    sender: UdpSender,
    /// Where ICMP answers go.
    answers: Device,
    outgoing: Outgoing,
    links: Links,
    batch: SendBatch,
}

impl PacketHandler for WayOut {
    fn begin(&mut self) {
        self.outgoing.device_was_empty(clock::now().instant);
    }

    fn take(&mut self, mut packet: DevicePacket<'_>) {
        let Self { shared, outgoing, batch, .. } = self;
        let table = shared.table.load();
        let now = clock::now().instant;
        let mut outcome = outgoing.seal(&table, now, &mut packet, batch);
        if let Outbound::Measure(to) = outcome {
            outgoing.learn_link(now, to, self.links.mtu(to));
            outcome = outgoing.seal(&table, now, &mut packet, batch);
        }
        match outcome {
            Outbound::Sealed => {}
            Outbound::Stage(peer) => forward::each_whole(&mut packet, |packet| {
                shared.tell(FromWire::Unsent { peer, packet: packet.to_vec() });
            }),
            Outbound::Resolve => forward::each_whole(&mut packet, |packet| {
                shared.tell(FromWire::Query { packet: packet.to_vec() });
            }),
            Outbound::Answer(reason, answer) => {
                shared.drops.count(reason);
                if self.answers.write(&answer).is_err() {
                    shared.drops.count(DropReason::DeviceRefused);
                }
            }
            Outbound::Drop(reason) => shared.drops.count(reason),
            // It was measured a moment ago.
            Outbound::Measure(_) => shared.drops.count(DropReason::TooLarge),
        }
        if batch.is_full() {
            self.flush(now);
        }
    }

    fn end(&mut self) {
        self.flush(clock::now().instant);
    }
}

impl WayOut {
    fn flush(&mut self, now: Instant) {
        let Self { shared, outgoing, batch, .. } = self;
        for (reason, count) in outgoing.finish(now, batch) {
            shared.drops.add(reason, count as u64);
        }
        let trains = batch.trains();
        self.sender.send_each(batch.memory(), trains, |position, count, error| {
            if error == SendError::TooLong {
                outgoing.forget_link(trains[position].path.remote);
            }
            shared.drops.add(unsent(error), count as u64);
        });
        batch.clear();
    }
}

/// The name under which a datagram is counted that the kernel did not take.
pub fn unsent(error: SendError) -> DropReason {
    match error {
        SendError::TooLong => DropReason::TooLarge,
        SendError::Unreachable | SendError::QueueFull | SendError::NoSocket | SendError::Refused(_) => {
            DropReason::SendFailed
        }
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

fn start_incoming(workers: &mut Workers, shared: Shared, device: Device, receiver: UdpReceiver) -> io::Result<()> {
    let mut incoming = Incoming::new(device.offload());
    let mut to_host = ToHost { shared: shared.clone(), device };
    workers.receive_udp(receiver, DatagramShape::default(), move |batch| {
        let (table, now) = (shared.table.load(), clock::now().instant);
        if batch.is_after_silence() {
            incoming.socket_was_empty(now);
        }
        let mut opening = Opening::new(&table, &mut incoming, now);
        for Datagram { arrival, payload } in batch.datagrams() {
            let path = arrival.path;
            let (inbound, news) = opening.open(arrival, payload, &mut to_host);
            match inbound {
                Inbound::Done => {}
                Inbound::Record(index, record) => {
                    let record = record.to_vec();
                    shared.tell_of(&table, index, |sender| FromWire::Record { index, sender, path, record });
                }
                Inbound::Handshake(trust, datagram) => {
                    shared.tell(FromWire::Handshake { trust, path, datagram: datagram.to_vec() });
                }
            }
            if let Some(index) = news {
                shared.tell_of(&table, index, |sender| FromWire::News { index, sender, path });
            }
        }
        opening.end(&mut to_host);
    })
}

/// Hands to the host what came for it.
struct ToHost {
    shared: Shared,
    device: Device,
}

impl Delivery for ToHost {
    fn packet(&mut self, vnet: &VnetHeader, packet: &[u8]) {
        if self.is_withheld(packet) {
            self.dropped(DropReason::AddressConflict);
        } else if self.device.write_parts(vnet, &[packet]).is_err() {
            self.dropped(DropReason::DeviceRefused);
        }
    }

    fn super_packet(&mut self, packet: &SuperPacket<'_>) {
        if self.is_withheld(packet.headers()) {
            self.dropped(DropReason::AddressConflict);
            return;
        }
        let mut parts = Vec::with_capacity(1 + packet.pieces.len());
        parts.push(packet.headers());
        parts.extend(&packet.pieces);
        match self.device.write_parts(&packet.vnet, &parts) {
            Ok(()) => {}
            Err(WriteError::Refused(error)) if packet.vnet.segments.is_some() => {
                tracing::debug!(%error, "a super-packet is split");
                packet.split(|packet| self.packet(&VnetHeader::default(), packet));
            }
            Err(_) => self.dropped(DropReason::DeviceRefused),
        }
    }

    fn dropped(&mut self, reason: DropReason) {
        self.shared.drops.count(reason);
    }
}

impl ToHost {
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
