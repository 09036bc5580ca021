//! The memory that packets travel in: filled by a read, sealed or opened in place, sent from where it lies.
//!
//! One allocation at the start of a thread, cut into slots; nothing is copied and nothing grows.
//!
//! ```text
//!   slot of a PacketBatch:   | headroom |  packet (≤ capacity)  | tailroom |     outer header goes in front, tag behind
//!   slot of a DatagramBatch: | datagram (≤ capacity)            |
//! ```

use crate::path::Path;
use std::ops::Range;

/// How a [`PacketBatch`] is cut. Bytes, except `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketShape {
    /// How many packets one batch holds at most.
    pub count: usize,
    /// Free bytes in front of each packet, for outer headers.
    pub headroom: usize,
    /// The longest packet.
    pub capacity: usize,
    /// Free bytes behind each packet, for the tag.
    pub tailroom: usize,
}

impl Default for PacketShape {
    /// 32 packets of at most 2,048 bytes; 32 bytes in front (transport header 16, record head 1, room to spare) and 32 behind (tag 16).
    fn default() -> Self {
        Self { count: 32, headroom: 32, capacity: 2_048, tailroom: 32 }
    }
}

impl PacketShape {
    fn stride(&self) -> usize {
        self.headroom + self.capacity + self.tailroom
    }
}

/// Packets read from the device, each with room around it.
pub struct PacketBatch {
    shape: PacketShape,
    memory: Box<[u8]>,
    /// Length of each packet read; the rest of the slots is unused.
    lengths: Vec<usize>,
}

/// One packet of a batch: the whole slot, and where in it the packet lies.
pub struct PacketSlot<'b> {
    /// Where the slot starts in [`PacketBatch::memory`].
    pub offset: usize,
    /// The slot: headroom, packet, tailroom.
    pub buffer: &'b mut [u8],
    /// The packet, within `buffer`.
    pub packet: Range<usize>,
}

impl PacketBatch {
    /// Allocates the slots.
    ///
    /// # Panics
    /// When `shape.count` is zero.
    pub fn new(shape: PacketShape) -> Self {
        assert!(shape.count > 0, "a batch has at least one slot");
        let memory = vec![0; shape.stride() * shape.count].into_boxed_slice();
        Self { shape, memory, lengths: Vec::with_capacity(shape.count) }
    }

    /// Returns how many packets were read.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Says whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Lends the packets one after the other, in the order in which they were read.
    pub fn slots(&mut self) -> impl Iterator<Item = PacketSlot<'_>> {
        let (stride, headroom) = (self.shape.stride(), self.shape.headroom);
        self.memory.chunks_exact_mut(stride).zip(&self.lengths).enumerate().map(move |(index, (buffer, length))| {
            PacketSlot { offset: index * stride, buffer, packet: headroom..headroom + length }
        })
    }

    /// Lends all slots as one piece of memory: what [`UdpSender::send_each`](super::udp::UdpSender::send_each) sends from.
    pub fn memory(&self) -> &[u8] {
        &self.memory
    }

    pub(super) fn clear(&mut self) {
        self.lengths.clear();
    }

    pub(super) fn is_full(&self) -> bool {
        self.lengths.len() == self.shape.count
    }

    /// Lends the packet part of the next free slot. Not to be called on a full batch.
    pub(super) fn next_packet(&mut self) -> &mut [u8] {
        let start = self.lengths.len() * self.shape.stride() + self.shape.headroom;
        &mut self.memory[start..start + self.shape.capacity]
    }

    /// Takes the next free slot as filled with `length` bytes.
    pub(super) fn push(&mut self, length: usize) {
        debug_assert!(length <= self.shape.capacity && !self.is_full());
        self.lengths.push(length);
    }
}

/// How a [`DatagramBatch`] is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramShape {
    /// How many datagrams one system call receives at most.
    pub count: usize,
    /// The longest datagram in bytes; a longer one is dropped and counted.
    pub capacity: usize,
}

impl Default for DatagramShape {
    /// 32 datagrams of at most 2,048 bytes: a packet of the device's default MTU with everything around it.
    fn default() -> Self {
        Self { count: 32, capacity: 2_048 }
    }
}

/// Datagrams received from one socket, each with the path that it came by.
pub struct DatagramBatch {
    shape: DatagramShape,
    memory: Box<[u8]>,
    /// Slot, length and path of each datagram received whole.
    received: Vec<(usize, usize, Path)>,
}

/// One datagram of a batch.
pub struct Datagram<'b> {
    /// The path that it came by.
    pub path: Path,
    /// The payload, to be opened in place.
    pub payload: &'b mut [u8],
}

impl DatagramBatch {
    /// Allocates the slots; 64 KiB of `capacity` takes every datagram there is.
    ///
    /// # Panics
    /// When `shape.count` or `shape.capacity` is zero.
    pub fn new(shape: DatagramShape) -> Self {
        assert!(shape.count > 0 && shape.capacity > 0, "a batch has at least one slot, a slot at least one byte");
        let memory = vec![0; shape.capacity * shape.count].into_boxed_slice();
        Self { shape, memory, received: Vec::with_capacity(shape.count) }
    }

    /// Returns how many datagrams were received whole.
    pub fn len(&self) -> usize {
        self.received.len()
    }

    /// Says whether nothing was received.
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Lends the datagrams one after the other, in the order in which they arrived.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        let mut received = self.received.iter().peekable();
        self.memory.chunks_exact_mut(self.shape.capacity).enumerate().filter_map(move |(slot, memory)| {
            let (_, length, path) = received.next_if(|entry| entry.0 == slot)?;
            Some(Datagram { path: *path, payload: &mut memory[..*length] })
        })
    }

    pub(super) fn shape(&self) -> DatagramShape {
        self.shape
    }

    pub(super) fn clear(&mut self) {
        self.received.clear();
    }

    pub(super) fn memory_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Takes `slot` as filled with `length` bytes that came by `path`; slots come in rising order.
    pub(super) fn push(&mut self, slot: usize, length: usize, path: Path) {
        debug_assert!(slot < self.shape.count && length <= self.shape.capacity);
        self.received.push((slot, length, path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn a_slot_has_its_room_around_the_packet() {
        let shape = PacketShape { count: 2, headroom: 4, capacity: 8, tailroom: 2 };
        let mut batch = PacketBatch::new(shape);
        for byte in [1, 2] {
            batch.next_packet()[..3].fill(byte);
            batch.push(3);
        }
        assert!(batch.is_full());
        for (index, slot) in batch.slots().enumerate() {
            assert_eq!((slot.offset, slot.buffer.len(), slot.packet.clone()), (index * 14, 14, 4..7));
            assert_eq!(slot.buffer[slot.packet], [index as u8 + 1; 3]);
        }
        assert_eq!(batch.memory()[14 + 4], 2);
        batch.clear();
        assert_eq!(batch.slots().count(), 0);
    }

    #[test]
    fn a_dropped_datagram_leaves_the_others_with_their_senders() {
        let mut batch = DatagramBatch::new(DatagramShape { count: 4, capacity: 2 });
        batch.memory_mut().copy_from_slice(&[0, 0, 1, 1, 2, 2, 3, 3]);
        let sender = |port| Path::from(SocketAddr::from(([127, 0, 0, 1], port)));
        batch.push(0, 2, sender(10));
        batch.push(2, 1, sender(12));
        batch.push(3, 0, sender(13));
        let seen: Vec<_> =
            batch.datagrams().map(|datagram| (datagram.path.remote.port(), datagram.payload.to_vec())).collect();
        assert_eq!(seen, [(10, vec![0, 0]), (12, vec![2]), (13, vec![])]);
    }
}
