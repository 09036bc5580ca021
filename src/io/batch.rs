//! The memory that packets travel in: one packet as the device gave it, datagrams on their way out, datagrams as they came in.
//!
//! One allocation each at the start of a thread; nothing grows.
//!
//! ```text
//!   PacketBuffer:   | vnet header | packet or super-packet |                    read, cut
//!   SendBatch:      | datagram | datagram | … | datagram |                      sealed in place, sent from where it lies
//!   DatagramBatch:  | datagrams of one length, as the kernel put them together | …     opened in place
//! ```

use crate::node::forward::Arrival;
use crate::node::forward::Outbox;
use crate::path::Path;
use crate::wire::ecn::Ecn;
use crate::wire::frame::MAX_LINK_HEADER;
use crate::wire::offload::VNET_HEADER_LEN;
use std::ops::Range;

/// The longest packet that a device gives: a super-packet of 64 KiB, behind a frame's link header.
const MAX_PACKET: usize = (1 << 16) + MAX_LINK_HEADER;

/// Bytes of datagrams after which they leave: a super-packet, or hundreds of small packets.
const FULL_BYTES: usize = 64 << 10;

/// Bytes of the datagrams of one packet at most: segments of 64 bytes, each with headers and what sealing adds.
const PACKET_BYTES: usize = 192 << 10;

/// Datagrams of one train: what Linux takes in one call (`UDP_MAX_SEGMENTS` was 64 before Linux 6.9).
const MAX_TRAIN: usize = 64;

/// Bytes of one train: the payload of one UDP datagram, which it is to the kernel until it leaves.
const MAX_TRAIN_BYTES: usize = 65_507;

/// One packet read from the device.
pub struct PacketBuffer {
    memory: Box<[u8]>,
    len: usize,
}

impl Default for PacketBuffer {
    fn default() -> Self {
        Self { memory: vec![0; VNET_HEADER_LEN + MAX_PACKET].into_boxed_slice(), len: 0 }
    }
}

impl PacketBuffer {
    /// Lends the packet.
    pub fn packet(&mut self) -> &mut [u8] {
        &mut self.memory[VNET_HEADER_LEN..VNET_HEADER_LEN + self.len]
    }

    /// Lends all memory, for the vnet header and the packet behind it.
    pub(super) fn memory(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Takes what was read into the memory, and lends the vnet header; `None` when there is not even that.
    pub(super) fn fill(&mut self, len: usize) -> Option<&[u8; VNET_HEADER_LEN]> {
        self.len = len.checked_sub(VNET_HEADER_LEN)?;
        self.memory.first_chunk()
    }
}

/// Datagrams in a row that leave by one path with one mark: all of one length, but for the last, which may be shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Train {
    /// Where they lie in the batch's memory.
    pub bytes: Range<usize>,
    /// The length of each.
    pub datagram_len: usize,
    /// Their path.
    pub path: Path,
    /// What their IP headers say of congestion.
    pub ecn: Ecn,
    /// The routers that they pass at most, where not as many as usual.
    pub hop_limit: Option<u8>,
}

impl Train {
    /// How many datagrams there are.
    pub fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.datagram_len.max(1)).max(1)
    }

    /// Each datagram as a train of its own.
    pub fn datagrams(&self) -> impl Iterator<Item = Self> {
        let Self { bytes, datagram_len, path, ecn, hop_limit } = self.clone();
        let step = datagram_len.max(1);
        (bytes.start..bytes.end.max(bytes.start + 1)).step_by(step).map(move |start| {
            let bytes = start..(start + step).min(bytes.end);
            Self { datagram_len: bytes.len(), bytes, path, ecn, hop_limit }
        })
    }
}

/// Datagrams on their way out, sealed where they lie.
pub struct SendBatch {
    memory: Box<[u8]>,
    used: usize,
    trains: Vec<Train>,
}

impl Default for SendBatch {
    fn default() -> Self {
        Self { memory: vec![0; FULL_BYTES + PACKET_BYTES].into_boxed_slice(), used: 0, trains: Vec::new() }
    }
}

impl SendBatch {
    /// Says whether it is time to send: there may be no room for the datagrams of one more packet.
    pub fn is_full(&self) -> bool {
        self.used >= FULL_BYTES
    }

    /// Lends the memory that the trains' ranges are of.
    pub fn memory(&self) -> &[u8] {
        &self.memory
    }

    /// The datagrams, in the order in which they were put in.
    pub fn trains(&self) -> &[Train] {
        &self.trains
    }

    /// Forgets all datagrams.
    pub fn clear(&mut self) {
        self.used = 0;
        self.trains.clear();
    }
}

impl Outbox for SendBatch {
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.memory[self.used..].get_mut(..len)
    }

    fn push(&mut self, len: usize, path: Path, ecn: Ecn) {
        let bytes = self.used..self.used + len;
        assert!(bytes.end <= self.memory.len(), "what was lent is within the memory");
        self.used = bytes.end;
        if let Some(train) = self.trains.last_mut() {
            let is_open = train.bytes.len() == train.count() * train.datagram_len;
            let fits = train.count() < MAX_TRAIN && train.bytes.len() + len <= MAX_TRAIN_BYTES;
            let is_same = (train.path, train.ecn) == (path, ecn);
            if is_same && is_open && len <= train.datagram_len && len > 0 && fits {
                train.bytes.end = bytes.end;
                return;
            }
        }
        self.trains.push(Train { bytes, datagram_len: len, path, ecn, hop_limit: None });
    }
}

/// How a [`DatagramBatch`] is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramShape {
    /// How many datagrams, or rows of them, one system call receives at most.
    pub count: usize,
    /// The longest in bytes; a longer one is dropped and counted.
    pub capacity: usize,
}

impl Default for DatagramShape {
    /// 16 slots of 64 KiB, which take every datagram there is, and every row of them that the kernel puts together.
    fn default() -> Self {
        Self { count: 16, capacity: 1 << 16 }
    }
}

/// Datagrams received from one socket, each with how it came.
pub struct DatagramBatch {
    shape: DatagramShape,
    memory: Box<[u8]>,
    /// What was received whole.
    received: Vec<Received>,
    /// The socket had nothing for a time before.
    after_silence: bool,
}

/// What is in one slot: a datagram, or several of one length, but for the last, that came in the same way.
#[derive(Clone, Copy)]
pub(super) struct Received {
    pub(super) slot: usize,
    pub(super) len: usize,
    pub(super) datagram_len: usize,
    pub(super) arrival: Arrival,
}

/// One datagram of a batch.
pub struct Datagram<'b> {
    /// How it came.
    pub arrival: Arrival,
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
        Self { shape, memory, received: Vec::with_capacity(shape.count), after_silence: false }
    }

    /// Says whether nothing was received.
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Says whether the socket had nothing for a time before.
    pub fn is_after_silence(&self) -> bool {
        self.after_silence
    }

    /// Takes note that the socket has nothing.
    pub(super) fn note_silence(&mut self) {
        self.after_silence = true;
    }

    /// Lends the datagrams one after the other, in the order in which they arrived.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        let mut received = self.received.iter().peekable();
        self.memory
            .chunks_exact_mut(self.shape.capacity)
            .enumerate()
            .filter_map(move |(slot, memory)| {
                let Received { len, datagram_len, arrival, .. } = *received.next_if(|entry| entry.slot == slot)?;
                // An empty datagram is one, too.
                let empty = (len == 0).then_some(Datagram { arrival, payload: &mut [] });
                let each = memory[..len].chunks_mut(datagram_len.max(1));
                Some(empty.into_iter().chain(each.map(move |payload| Datagram { arrival, payload })))
            })
            .flatten()
    }

    pub(super) fn shape(&self) -> DatagramShape {
        self.shape
    }

    pub(super) fn clear(&mut self) {
        self.received.clear();
        self.after_silence = false;
    }

    pub(super) fn memory_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Takes a slot as filled; slots come in rising order.
    pub(super) fn push(&mut self, received: Received) {
        debug_assert!(received.slot < self.shape.count && received.len <= self.shape.capacity);
        self.received.push(received);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn path(port: u16) -> Path {
        SocketAddr::from(([127, 0, 0, 1], port)).into()
    }

    #[test]
    fn datagrams_of_one_length_and_path_are_a_train_that_a_shorter_one_ends() {
        let mut batch = SendBatch::default();
        let put = [(100, 1), (100, 1), (60, 1), (60, 1), (100, 1), (100, 2), (0, 2), (0, 2)];
        for (len, port) in put {
            batch.room(len).unwrap().fill(len as u8);
            batch.push(len, path(port), Ecn::NotCapable);
        }
        let trains: Vec<_> = batch.trains().iter().map(|it| (it.bytes.clone(), it.datagram_len, it.count())).collect();
        let expected = [
            (0..260, 100, 3),
            (260..320, 60, 1),
            (320..420, 100, 1),
            (420..520, 100, 1),
            (520..520, 0, 1),
            (520..520, 0, 1),
        ];
        assert_eq!(trains, expected);
        let single: Vec<_> = batch.trains()[0].datagrams().map(|it| (it.bytes, it.datagram_len)).collect();
        assert_eq!(single, [(0..100, 100), (100..200, 100), (200..260, 60)]);
        assert_eq!(batch.trains()[4].datagrams().count(), 1);
        assert_eq!(batch.memory()[250], 60);
        batch.clear();
        assert!(batch.trains().is_empty() && !batch.is_full());
    }

    #[test]
    fn no_train_exceeds_what_the_kernel_takes() {
        let mut batch = SendBatch::default();
        for _ in 0..130 {
            batch.push(64, path(1), Ecn::NotCapable);
        }
        assert_eq!(batch.trains().iter().map(Train::count).collect::<Vec<_>>(), [64, 64, 2]);
        batch.clear();
        for _ in 0..50 {
            batch.push(1440, path(1), Ecn::NotCapable);
        }
        assert_eq!(batch.trains().iter().map(Train::count).collect::<Vec<_>>(), [45, 5]);
        while batch.room(1440).is_some() {
            batch.push(1440, path(1), Ecn::NotCapable);
        }
        assert!(batch.is_full());
        batch.clear();
        for ecn in [Ecn::Capable0, Ecn::Capable0, Ecn::Congested, Ecn::Capable0] {
            batch.push(1440, path(1), ecn);
        }
        assert_eq!(batch.trains().iter().map(Train::count).collect::<Vec<_>>(), [2, 1, 1], "by mark");
    }

    #[test]
    fn a_dropped_datagram_leaves_the_others_with_their_senders_and_a_row_is_taken_apart() {
        let mut batch = DatagramBatch::new(DatagramShape { count: 4, capacity: 2 });
        batch.memory_mut().copy_from_slice(&[0, 0, 1, 1, 2, 3, 4, 4]);
        for (slot, len, datagram_len) in [(0, 2, 2), (2, 2, 1), (3, 0, 0)] {
            batch.push(Received { slot, len, datagram_len, arrival: path(slot as u16).into() });
        }
        let seen: Vec<_> = batch
            .datagrams()
            .map(|datagram| (datagram.arrival.path.remote.port(), datagram.payload.to_vec()))
            .collect();
        assert_eq!(seen, [(0, vec![0, 0]), (2, vec![2]), (2, vec![3]), (3, vec![])]);
    }
}
