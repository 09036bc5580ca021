//! The device that smoltcp believes in: one packet in, a bounded queue of packets out.

use crate::wire::data::MIN_WIRE_LEN;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use std::collections::VecDeque;

/// Outer IPv6 and UDP headers.
const OUTER_LEN: usize = 40 + 8;

/// A relay's envelope around the datagram.
const RELAY_LEN: usize = 8;

/// Transport header, record kind and AEAD tag.
const SEALED_LEN: usize = 16 + 1 + 16;

/// The longest IP packet of the control link, so that it is one datagram on every path, also behind a relay.
pub const CONTROL_MTU: usize = MIN_WIRE_LEN - OUTER_LEN - RELAY_LEN - SEALED_LEN;

/// Packets that wait for `poll_transmit`: one from each socket in a pass, and answers to what came in meanwhile. When full, an answer
/// is dropped and TCP asks again.
const TRANSMIT_QUEUE: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PacketQueue {
    received: Option<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

impl PacketQueue {
    /// Lays down the packet that the next ingress takes.
    pub(super) fn put(&mut self, packet: &[u8]) {
        self.received = Some(packet.to_vec());
    }

    /// Takes the next packet that goes out.
    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        self.sent.pop_front()
    }

    /// Drops the outgoing packets that `unwanted` names.
    pub(super) fn discard(&mut self, unwanted: impl Fn(&[u8]) -> bool) {
        self.sent.retain(|packet| !unwanted(packet));
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.sent.iter()
    }
}

impl Device for PacketQueue {
    type RxToken<'a> = Received;
    type TxToken<'a> = Slot<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Slot<'_>)> {
        let packet = self.received.take()?;
        Some((Received(packet), Slot(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Slot<'_>> {
        (self.sent.len() < TRANSMIT_QUEUE).then_some(Slot(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = CONTROL_MTU;
        capabilities
    }
}

/// The packet that came in.
pub(super) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// A place in the queue.
pub(super) struct Slot<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Slot<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        if self.0.len() < TRANSMIT_QUEUE {
            self.0.push_back(packet);
        }
        result
    }
}
