//! The device that smoltcp believes in: one packet in, a bounded queue of packets out; and its clock.

use crate::time::Instant;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use std::collections::VecDeque;

/// Packets that wait for `poll_transmit`: one of a socket, and answers to what came in meanwhile. When full, an answer is dropped and TCP
/// asks again.
const TRANSMIT_QUEUE: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct PacketQueue {
    mtu: usize,
    received: Option<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

impl PacketQueue {
    /// Makes one for packets of at most `mtu` bytes.
    pub(super) fn new(mtu: usize) -> Self {
        Self { mtu, received: None, sent: VecDeque::new() }
    }

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

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, Slot<'_>)> {
        let packet = self.received.take()?;
        Some((Received(packet), Slot(&mut self.sent)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Slot<'_>> {
        (self.sent.len() < TRANSMIT_QUEUE).then_some(Slot(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
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

/// An instant as smoltcp counts it.
pub(super) fn to_smoltcp(now: Instant) -> smoltcp::time::Instant {
    // smoltcp adds spans of minutes to it: half of its range is left for them.
    smoltcp::time::Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX).min(i64::MAX / 2))
}

/// An instant as everything else counts it.
pub(super) fn from_smoltcp(instant: smoltcp::time::Instant) -> Instant {
    Instant::from_micros(u64::try_from(instant.total_micros()).unwrap_or(0))
}
