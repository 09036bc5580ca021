//! The outer side of every datagram.
//!
//! Owns what the first byte means and the 16 clear bytes of a transport packet (docs/protocol.md, "Transport packets").
//! Refuses to know keys: a [`TransportHeader`] is what somebody wrote, until the session opens the packet.

use super::codec::{CodecError, Reader, Writer};
use super::handshake::{COOKIE_LEN, INITIATION_LEN, KEY_PART_LEN, Part, RESPONSE_LEN};
use super::relay::Envelope;

/// First byte of an initiation, D1.
pub const TYPE_INITIATION: u8 = 0x01;
/// First byte of half an encapsulation key, D2a and D2b.
pub const TYPE_KEY_PART: u8 = 0x02;
/// First byte of half a response, M2a and M2b.
pub const TYPE_RESPONSE: u8 = 0x03;
/// First byte of a cookie.
pub const TYPE_COOKIE: u8 = 0x04;
/// First byte of a relay's envelope around an unchanged datagram.
pub const TYPE_RELAY: u8 = 0x06;
/// First byte of a transport packet.
pub const TYPE_TRANSPORT: u8 = 0x10;

/// The smallest path that P2Plus works on, in bytes of an underlay IP packet.
pub const MIN_WIRE_LEN: usize = 1124;

/// Clear bytes in front of a transport packet's ciphertext.
pub const TRANSPORT_HEADER_LEN: usize = 16;
/// Bytes that a transport packet has besides its plaintext: header and tag.
pub const TRANSPORT_OVERHEAD: usize = TRANSPORT_HEADER_LEN + crate::crypto::aead::TAG_LEN;

/// A random number by which a receiver finds its session; each side draws its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionIndex(pub u32);

/// Who seals: a worker (high 4 bits; 0 is the node's own thread) on a path slot (low 4 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lane(pub u8);

impl Lane {
    /// The lane of control records, confirmations and handshake leftovers: the node's own thread on its first path slot.
    pub const NODE: Self = Self(0);

    /// Makes a lane from its worker (0–15) and path slot (0–15); higher bits are cut off.
    pub const fn new(worker: u8, slot: u8) -> Self {
        Self((worker & 15) << 4 | slot & 15)
    }

    /// Returns the worker, 0–15.
    pub const fn worker(self) -> u8 {
        self.0 >> 4
    }

    /// Returns the path slot, 0–15.
    pub const fn slot(self) -> u8 {
        self.0 & 15
    }
}

/// The number of a packet within one lane of one key, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Counter(pub u64);

/// The 16 clear bytes: `0x10 | lane | 0 u16 | receiver u32 | counter u64`. Each one selects key or nonce, or is zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct TransportHeader {
    /// The sender's lane.
    pub lane: Lane,
    /// The receiver's session index.
    pub receiver: SessionIndex,
    /// The packet's number in its lane.
    pub counter: Counter,
}

impl TransportHeader {
    /// Reads the header off the front of `datagram`; ciphertext and tag follow it.
    ///
    /// # Errors
    /// [`DatagramError`] for another type, a reserved bit, or fewer bytes than header and tag.
    pub fn decode(datagram: &[u8]) -> Result<Self, DatagramError> {
        if datagram.len() < TRANSPORT_OVERHEAD {
            return Err(DatagramError::WrongLength);
        }
        let mut reader = Reader::new(datagram);
        if reader.u8()? != TYPE_TRANSPORT {
            return Err(DatagramError::UnknownType(datagram[0]));
        }
        let lane = Lane(reader.u8()?);
        reader.zeros::<2>()?;
        Ok(Self { lane, receiver: SessionIndex(reader.u32()?), counter: Counter(reader.u64()?) })
    }

    /// Returns the header's bytes.
    pub fn encode(&self) -> [u8; TRANSPORT_HEADER_LEN] {
        let mut bytes = [0; TRANSPORT_HEADER_LEN];
        Writer::new(&mut bytes)
            .u8(TYPE_TRANSPORT)
            .u8(self.lane.0)
            .zeros::<2>()
            .u32(self.receiver.0)
            .u64(self.counter.0)
            .finish()
            .expect("1 + 1 + 2 + 4 + 8 = 16");
        bytes
    }

    /// Returns the AEAD nonce: `lane | 0 0 0 | counter`.
    pub fn nonce(&self) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[0] = self.lane.0;
        nonce[4..].copy_from_slice(&self.counter.0.to_le_bytes());
        nonce
    }
}

/// A datagram, told apart by its first byte and its length. Nothing in it is authenticated yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Datagram<'a> {
    /// D1, for the responder.
    Initiation(&'a [u8]),
    /// D2a or D2b, for the responder.
    KeyPart(&'a [u8]),
    /// M2a or M2b, for the initiator that owns the index.
    Response(SessionIndex, &'a [u8]),
    /// A cookie, for the initiator that owns the index.
    Cookie(SessionIndex, &'a [u8]),
    /// A transport packet; ciphertext and tag follow the header.
    Transport(TransportHeader),
    /// A relay's envelope; the datagram that it is around follows.
    Relayed(Envelope),
}

/// A datagram that is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// There is not even a first byte.
    #[error("the datagram is empty")]
    Empty,
    /// The first byte means nothing here.
    #[error("the datagram's type {0:#04x} is unknown")]
    UnknownType(u8),
    /// The type has another length.
    #[error("the datagram's length does not fit its type")]
    WrongLength,
    /// A part is neither the first nor the second.
    #[error("the datagram's part is unknown")]
    UnknownPart,
    /// A field is missing or a reserved one is set.
    #[error(transparent)]
    Field(#[from] CodecError),
}

impl<'a> Datagram<'a> {
    /// Tells what `bytes` claims to be.
    ///
    /// # Errors
    /// [`DatagramError`] names why it is nothing; the caller counts and drops it.
    pub fn classify(bytes: &'a [u8]) -> Result<Self, DatagramError> {
        let len_is = |len| if bytes.len() == len { Ok(()) } else { Err(DatagramError::WrongLength) };
        match *bytes.first().ok_or(DatagramError::Empty)? {
            TYPE_INITIATION => len_is(INITIATION_LEN).map(|()| Self::Initiation(bytes)),
            TYPE_KEY_PART => len_is(KEY_PART_LEN).map(|()| Self::KeyPart(bytes)),
            TYPE_RESPONSE => {
                let part = Part::decode(*bytes.get(1).ok_or(DatagramError::WrongLength)?)?;
                len_is(RESPONSE_LEN[part.position()])?;
                Ok(Self::Response(index_at(bytes, 8)?, bytes))
            }
            TYPE_COOKIE => {
                len_is(COOKIE_LEN)?;
                Ok(Self::Cookie(index_at(bytes, 4)?, bytes))
            }
            TYPE_RELAY => Envelope::decode(bytes).map(Self::Relayed),
            TYPE_TRANSPORT => TransportHeader::decode(bytes).map(Self::Transport),
            unknown => Err(DatagramError::UnknownType(unknown)),
        }
    }
}

fn index_at(bytes: &[u8], offset: usize) -> Result<SessionIndex, CodecError> {
    let mut reader = Reader::new(bytes);
    reader.bytes(offset)?;
    reader.u32().map(SessionIndex)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: TransportHeader =
        TransportHeader { lane: Lane(0x21), receiver: SessionIndex(0x0403_0201), counter: Counter(0x0807_0605) };

    #[test]
    fn a_transport_header_has_the_bytes_of_the_document() {
        let mut datagram = [0; TRANSPORT_OVERHEAD];
        datagram[..TRANSPORT_HEADER_LEN].copy_from_slice(&HEADER.encode());
        assert_eq!(datagram[..16], [0x10, 0x21, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0]);
        assert_eq!(TransportHeader::decode(&datagram), Ok(HEADER));
        assert_eq!(HEADER.nonce(), [0x21, 0, 0, 0, 5, 6, 7, 8, 0, 0, 0, 0]);
        assert_eq!(Datagram::classify(&datagram), Ok(Datagram::Transport(HEADER)));
    }

    #[test]
    fn a_lane_is_a_worker_and_a_slot() {
        let lane = Lane::new(3, 5);
        assert_eq!((lane.0, lane.worker(), lane.slot()), (0x35, 3, 5));
    }

    #[test]
    fn other_types_lengths_and_reserved_bits_have_names() {
        assert_eq!(Datagram::classify(&[]), Err(DatagramError::Empty));
        assert_eq!(Datagram::classify(&[0x45; 40]), Err(DatagramError::UnknownType(0x45)));
        assert_eq!(Datagram::classify(&[TYPE_INITIATION; 171]), Err(DatagramError::WrongLength));
        assert_eq!(Datagram::classify(&[TYPE_RESPONSE, 2, 0, 0]), Err(DatagramError::UnknownPart));
        let mut datagram = [0; TRANSPORT_OVERHEAD];
        datagram[..TRANSPORT_HEADER_LEN].copy_from_slice(&HEADER.encode());
        assert_eq!(Datagram::classify(&datagram[..TRANSPORT_OVERHEAD - 1]), Err(DatagramError::WrongLength));
        datagram[2] = 1;
        assert_eq!(Datagram::classify(&datagram), Err(DatagramError::Field(CodecError::ReservedNotZero)));
    }
}
