//! The threads that carry packets: `forward` between the device and the sockets, with the node told of what is not plain data.
//!
//! ```text
//!   device ─► forward::seal ─► UdpSender          sockets ─► forward::open ─► device
//!                  └─ no session ─► inbox              └─ handshake, control, news ─► inbox
//! ```
//! The threads share only the published table, the drop counters and the inbox, bounded queues: when the node cannot keep up, what
//! it would have got is dropped and counted, and data goes on. A handshake datagram without a valid mac1, or a cookie or response for no
//! attempt under way, never gets that far.

use super::config::MAX_MTU;
use super::inbox::{FromWire, Inbox, Sender};
use super::workers::Workers;
use crate::io::batch::{DatagramShape, PacketShape};
use crate::io::clock;
use crate::io::device::Device;
use crate::io::network::Network;
use crate::io::udp::{Outgoing as Datagram, SendError, UdpReceiver, UdpSender};
use crate::node::forward::{self, Inbound, Incoming, Outbound, Outgoing};
use crate::node::table::ForwardingTable;
use crate::wire::data::{Lane, SessionIndex};
use crate::wire::drops::{DropReason, Drops};
use arc_swap::ArcSwap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A slot for the longest packet that the device's MTU allows, and a byte more: one that fills its slot may have been cut.
const SLOT_LEN: usize = MAX_MTU as usize + 1;

/// The lane worker of the thread that reads the device; 0 is the node's.
const DEVICE_WORKER: u8 = 1;

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
}

/// Starts the threads: one on the device, one per socket.
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
    start_outgoing(workers, shared.clone(), device.clone(), sender.clone())?;
    receivers.into_iter().try_for_each(|receiver| start_incoming(workers, shared.clone(), device.clone(), receiver))
}

fn start_outgoing(workers: &mut Workers, shared: Shared, device: Device, sender: UdpSender) -> io::Result<()> {
    let shape = PacketShape { capacity: SLOT_LEN, ..PacketShape::default() };
    let mut outgoing = Outgoing::new(Lane::new(DEVICE_WORKER, 0));
    let mut datagrams: Vec<Datagram> = Vec::with_capacity(shape.count);
    let answers = device.clone();
    let mut links = Links::open();
    workers.read_device(device, shape, move |batch| {
        let table = shared.table.load();
        let now = clock::now().instant;
        datagrams.clear();
        for slot in batch.slots() {
            let mut outcome = forward::seal(&table, &mut outgoing, now, slot.buffer, slot.packet.clone());
            if let Outbound::Measure(to) = outcome {
                outgoing.learn_link(now, to, links.mtu(to));
                outcome = forward::seal(&table, &mut outgoing, now, slot.buffer, slot.packet.clone());
            }
            match outcome {
                Outbound::Send { path, datagram } => {
                    let bytes = slot.offset + datagram.start..slot.offset + datagram.end;
                    datagrams.push(Datagram { bytes, path });
                }
                Outbound::Stage(peer) => {
                    let packet = slot.buffer[slot.packet].to_vec();
                    shared.tell(FromWire::Unsent { peer, packet });
                }
                Outbound::Answer(reason, answer) => {
                    shared.drops.count(reason);
                    if answers.write(&answer).is_err() {
                        shared.drops.count(DropReason::DeviceRefused);
                    }
                }
                Outbound::Drop(reason) => shared.drops.count(reason),
                // It was measured a moment ago.
                Outbound::Measure(_) => shared.drops.count(DropReason::TooLarge),
            }
        }
        sender.send_each(batch.memory(), &datagrams, |position, error| {
            if error == SendError::TooLong {
                outgoing.forget_link(datagrams[position].path.remote);
            }
            shared.drops.count(unsent(error));
        });
    })
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
struct Links(Option<Network>);

impl Links {
    fn open() -> Self {
        let network = Network::open();
        if let Err(error) = &network {
            tracing::warn!(%error, "the MTU of the host's links is not known");
        }
        Self(network.ok())
    }

    /// Asks for the MTU of the link towards an endpoint.
    fn mtu(&mut self, to: SocketAddr) -> Option<usize> {
        let mtu = self.0.as_mut()?.link_mtu(to.ip());
        if let Err(error) = &mtu {
            tracing::debug!(%to, %error, "the MTU of the link is not known");
        }
        mtu.ok().and_then(|mtu| usize::try_from(mtu).ok())
    }
}

fn start_incoming(workers: &mut Workers, shared: Shared, device: Device, receiver: UdpReceiver) -> io::Result<()> {
    // 64 KiB takes every datagram there is, so that none is cut.
    let shape = DatagramShape { capacity: 1 << 16, ..DatagramShape::default() };
    let mut incoming = Incoming::new();
    workers.receive_udp(receiver, shape, move |batch| {
        let table = shared.table.load();
        let now = clock::now().instant;
        for datagram in batch.datagrams() {
            let path = datagram.path;
            let (inbound, news) = forward::open(&table, &mut incoming, now, path, datagram.payload);
            match inbound {
                Inbound::Deliver(packet) if is_ipv4(packet) && !shared.takes_ipv4.load(Ordering::Relaxed) => {
                    shared.drops.count(DropReason::AddressConflict);
                }
                Inbound::Deliver(packet) => {
                    if device.write(packet).is_err() {
                        shared.drops.count(DropReason::DeviceRefused);
                    }
                }
                Inbound::Record(index, record) => {
                    let record = record.to_vec();
                    shared.tell_of(&table, index, |sender| FromWire::Record { index, sender, path, record });
                }
                Inbound::Handshake(trust, datagram) => {
                    shared.tell(FromWire::Handshake { trust, path, datagram: datagram.to_vec() });
                }
                Inbound::Drop(reason) => shared.drops.count(reason),
            }
            if let Some(index) = news {
                shared.tell_of(&table, index, |sender| FromWire::News { index, sender, path });
            }
        }
    })
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
