//! A relay's envelope: a label in front of a datagram that no relay changes.
//!
//! `0x06 | hops u8 | length u16 | label u32`, then the datagram (docs/protocol.md, "Relays"). Owns its eight bytes. A label means something
//! only between the two ends of one hop, each of which knows the other's endpoint.

use super::codec::{CodecError, Reader, Writer};
use super::datagram::{DatagramError, TYPE_RELAY};
use borsh::{BorshDeserialize, BorshSerialize};

/// Bytes in front of the datagram inside.
pub const ENVELOPE_LEN: usize = 8;

/// What the hop field starts at: relays in a row, and one more than a list may name.
pub const MAX_HOPS: u8 = 4;

/// Names a circuit on one hop; random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct Label(pub u32);

/// The eight bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// How many more relays may pass it on.
    pub hops: u8,
    /// The circuit.
    pub label: Label,
}

impl Envelope {
    /// The one that a sender puts in front.
    pub const fn first(label: Label) -> Self {
        Self { hops: MAX_HOPS, label }
    }

    /// Reads the envelope off the front of `datagram`, whose other bytes are the datagram inside.
    ///
    /// # Errors
    /// [`DatagramError`] for another type, more hops than there are, a false length, or an envelope inside.
    pub fn decode(datagram: &[u8]) -> Result<Self, DatagramError> {
        let mut reader = Reader::new(datagram);
        let kind = reader.u8()?;
        if kind != TYPE_RELAY {
            return Err(DatagramError::UnknownType(kind));
        }
        let (hops, len, label) = (reader.u8()?, reader.u16()?, Label(reader.u32()?));
        if hops > MAX_HOPS {
            return Err(CodecError::ReservedNotZero.into());
        }
        match reader.rest() {
            inside if inside.len() != usize::from(len) => Err(DatagramError::WrongLength),
            [] => Err(DatagramError::Empty),
            [TYPE_RELAY, ..] => Err(DatagramError::UnknownType(TYPE_RELAY)),
            _ => Ok(Self { hops, label }),
        }
    }

    /// Returns the bytes in front of a datagram of `len` bytes, which are at most a UDP datagram's.
    pub fn encode(self, len: usize) -> [u8; ENVELOPE_LEN] {
        let mut bytes = [0; ENVELOPE_LEN];
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        Writer::new(&mut bytes)
            .u8(TYPE_RELAY)
            .u8(self.hops)
            .u16(len)
            .u32(self.label.0)
            .finish()
            .expect("1 + 1 + 2 + 4 = 8");
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVELOPE: Envelope = Envelope { hops: 3, label: Label(0x0403_0201) };

    fn around(inside: &[u8]) -> Vec<u8> {
        [&ENVELOPE.encode(inside.len())[..], inside].concat()
    }

    #[test]
    fn an_envelope_has_the_bytes_of_the_document() {
        let datagram = around(&[0x10, 7, 7]);
        assert_eq!(datagram, [6, 3, 3, 0, 1, 2, 3, 4, 0x10, 7, 7]);
        assert_eq!(Envelope::decode(&datagram), Ok(ENVELOPE));
    }

    #[test]
    fn what_is_false_about_an_envelope_has_a_name() {
        let good = around(&[0x10, 7, 7]);
        for len in 0..good.len() {
            assert!(Envelope::decode(&good[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(Envelope::decode(&[&good[..], &[0]].concat()), Err(DatagramError::WrongLength));
        assert_eq!(Envelope::decode(&around(&[])), Err(DatagramError::Empty));
        assert_eq!(Envelope::decode(&around(&around(&[1]))), Err(DatagramError::UnknownType(TYPE_RELAY)));
        let far = Envelope { hops: MAX_HOPS + 1, ..ENVELOPE };
        let datagram = [&far.encode(1)[..], &[0x10]].concat();
        assert_eq!(Envelope::decode(&datagram), Err(DatagramError::Field(CodecError::ReservedNotZero)));
    }
}
