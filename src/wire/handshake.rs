//! The layouts of the handshake's five datagrams and of the cookie (docs/protocol.md, "Handshake datagrams").
//!
//! Owns offsets and lengths. Seals nothing and checks no authenticator: `session::handshake` does.

pub use super::payload::*;

use super::codec::{Reader, Writer};
use super::datagram::{DatagramError, SessionIndex, TYPE_COOKIE, TYPE_INITIATION, TYPE_KEY_PART, TYPE_RESPONSE};
use crate::crypto::aead::TAG_LEN;
use crate::crypto::exchange::{KEM_CIPHERTEXT_LEN, KEM_KEY_LEN, TransportKey};

/// Bytes of mac1 and of mac2.
pub const MAC_LEN: usize = 16;
/// Bytes of a sealed static key.
pub const SEALED_STATIC_LEN: usize = 32 + TAG_LEN;
/// Bytes of the sealed first payload.
pub const SEALED_PAYLOAD1_LEN: usize = PAYLOAD1_LEN + TAG_LEN;
/// Bytes of the sealed second payload.
pub const SEALED_PAYLOAD2_LEN: usize = PAYLOAD2_LEN + TAG_LEN;
/// Bytes of a sealed half of the encapsulation key.
pub const SEALED_KEY_HALF_LEN: usize = KEM_KEY_LEN / 2 + TAG_LEN;
/// Bytes of a sealed half of the KEM ciphertext.
pub const SEALED_CIPHERTEXT_HALF_LEN: usize = KEM_CIPHERTEXT_LEN / 2 + TAG_LEN;

/// Bytes of D1's clear header.
pub const INITIATION_HEADER_LEN: usize = 8;
/// Bytes of D2a's and D2b's clear header.
pub const KEY_PART_HEADER_LEN: usize = 16;
/// Bytes of M2a's and M2b's clear header.
pub const RESPONSE_HEADER_LEN: usize = 12;

/// Bytes of D1.
pub const INITIATION_LEN: usize = 172;
/// Bytes of D2a and of D2b.
pub const KEY_PART_LEN: usize = 640;
/// Bytes of M2a and of M2b.
pub const RESPONSE_LEN: [usize; 2] = [636, 672];
/// Bytes of a cookie datagram.
pub const COOKIE_LEN: usize = 64;
/// No handshake datagram is longer, so that all of them pass a path of 1124 bytes, also inside a relay's envelope.
pub const LONGEST_HANDSHAKE_DATAGRAM: usize = 700;

/// Which of two datagrams carries a half.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The first half.
    A,
    /// The second half.
    B,
}

impl Part {
    /// Both, in the order in which they are hashed.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// Returns 0 or 1: the byte on the wire, and the place in an array of two.
    pub fn position(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    /// Reads the byte on the wire.
    ///
    /// # Errors
    /// [`DatagramError::UnknownPart`].
    pub fn decode(byte: u8) -> Result<Self, DatagramError> {
        match byte {
            0 => Ok(Self::A),
            1 => Ok(Self::B),
            _ => Err(DatagramError::UnknownPart),
        }
    }

    fn encode(self) -> u8 {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

/// The first 8 bytes of an initiation's mac1: by them the other parts name it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InitiationTag(pub [u8; 8]);

impl InitiationTag {
    /// Takes the front of `mac1`.
    pub fn of(mac1: &[u8; MAC_LEN]) -> Self {
        let mut tag = [0; 8];
        tag.copy_from_slice(&mac1[..8]);
        Self(tag)
    }
}

/// D1: `1 | 0 [3] | sender u32 | e 32 | enc(s) 48 | enc(payload1) 52 | mac1 16 | mac2 16`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Initiation {
    /// The initiator's session index.
    pub sender: SessionIndex,
    /// The initiator's ephemeral key.
    pub ephemeral: TransportKey,
    /// The initiator's static key, sealed.
    pub sealed_static: [u8; SEALED_STATIC_LEN],
    /// The first payload, sealed.
    pub sealed_payload: [u8; SEALED_PAYLOAD1_LEN],
    /// Proof that the sender knows the receiver's key and the network's secret.
    pub mac1: [u8; MAC_LEN],
    /// Proof that the sender receives at its address, or zero.
    pub mac2: [u8; MAC_LEN],
}

impl Initiation {
    /// Reads a datagram.
    ///
    /// # Errors
    /// [`DatagramError`].
    pub fn decode(datagram: &[u8]) -> Result<Self, DatagramError> {
        let mut reader = expect_type(datagram, TYPE_INITIATION, INITIATION_LEN)?;
        reader.zeros::<3>()?;
        let initiation = Self {
            sender: SessionIndex(reader.u32()?),
            ephemeral: TransportKey(reader.array()?),
            sealed_static: reader.array()?,
            sealed_payload: reader.array()?,
            mac1: reader.array()?,
            mac2: reader.array()?,
        };
        reader.finish()?;
        Ok(initiation)
    }

    /// Returns the datagram.
    pub fn encode(&self) -> [u8; INITIATION_LEN] {
        let mut datagram = [0; INITIATION_LEN];
        Writer::new(&mut datagram)
            .bytes(&self.header())
            .bytes(&self.ephemeral.0)
            .bytes(&self.sealed_static)
            .bytes(&self.sealed_payload)
            .bytes(&self.mac1)
            .bytes(&self.mac2)
            .finish()
            .expect("8 + 32 + 48 + 52 + 16 + 16 = 172");
        datagram
    }

    /// Returns the clear header, which the transcript binds.
    pub fn header(&self) -> [u8; INITIATION_HEADER_LEN] {
        let mut header = [0; INITIATION_HEADER_LEN];
        let mut writer = Writer::new(&mut header);
        writer.u8(TYPE_INITIATION).zeros::<3>().u32(self.sender.0).finish().expect("1 + 3 + 4 = 8");
        header
    }
}

/// D2a, D2b: `2 | part | 0 u16 | sender u32 | mac1(D1) 8 | enc(half of ek) 608 | mac1 16`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPart {
    /// Which half.
    pub part: Part,
    /// The initiator's session index, as in D1.
    pub sender: SessionIndex,
    /// The D1 that it belongs to.
    pub initiation: InitiationTag,
    /// Half of the ML-KEM-768 encapsulation key, sealed.
    pub sealed_half: [u8; SEALED_KEY_HALF_LEN],
    /// As in D1.
    pub mac1: [u8; MAC_LEN],
}

impl KeyPart {
    /// Reads a datagram.
    ///
    /// # Errors
    /// [`DatagramError`].
    pub fn decode(datagram: &[u8]) -> Result<Self, DatagramError> {
        let mut reader = expect_type(datagram, TYPE_KEY_PART, KEY_PART_LEN)?;
        let part = Part::decode(reader.u8()?)?;
        reader.zeros::<2>()?;
        let key_part = Self {
            part,
            sender: SessionIndex(reader.u32()?),
            initiation: InitiationTag(reader.array()?),
            sealed_half: reader.array()?,
            mac1: reader.array()?,
        };
        reader.finish()?;
        Ok(key_part)
    }

    /// Returns the datagram.
    pub fn encode(&self) -> [u8; KEY_PART_LEN] {
        let mut datagram = [0; KEY_PART_LEN];
        Writer::new(&mut datagram)
            .bytes(&self.header())
            .bytes(&self.sealed_half)
            .bytes(&self.mac1)
            .finish()
            .expect("16 + 608 + 16 = 640");
        datagram
    }

    /// Returns the clear header, which the half is sealed with.
    pub fn header(&self) -> [u8; KEY_PART_HEADER_LEN] {
        let mut header = [0; KEY_PART_HEADER_LEN];
        Writer::new(&mut header)
            .u8(TYPE_KEY_PART)
            .u8(self.part.encode())
            .zeros::<2>()
            .u32(self.sender.0)
            .bytes(&self.initiation.0)
            .finish()
            .expect("1 + 1 + 2 + 4 + 8 = 16");
        header
    }
}

/// M2a, M2b: `3 | part | 0 u16 | sender u32 | receiver u32 | e 32 | enc(half of ct) 560 | [enc(payload2) 36 in M2b] | mac1 16 | mac2 16`.
///
/// Both carry `e`, so that each half verifies without the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// The responder's session index.
    pub sender: SessionIndex,
    /// The initiator's session index.
    pub receiver: SessionIndex,
    /// The responder's ephemeral key, the same in both parts.
    pub ephemeral: TransportKey,
    /// Half of the ML-KEM-768 ciphertext, sealed.
    pub sealed_half: [u8; SEALED_CIPHERTEXT_HALF_LEN],
    /// Which half, and what only the second has.
    pub tail: ResponseTail,
    /// As in D1, under the initiator's key.
    pub mac1: [u8; MAC_LEN],
    /// Zero: nobody asks a responder for a cookie.
    pub mac2: [u8; MAC_LEN],
}

/// What tells the two parts of a response apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ResponseTail {
    /// M2a has nothing more.
    A,
    /// M2b has the second payload, sealed.
    B([u8; SEALED_PAYLOAD2_LEN]),
}

impl Response {
    /// Reads a datagram.
    ///
    /// # Errors
    /// [`DatagramError`].
    pub fn decode(datagram: &[u8]) -> Result<Self, DatagramError> {
        let part = Part::decode(*datagram.get(1).ok_or(DatagramError::WrongLength)?)?;
        let mut reader = expect_type(datagram, TYPE_RESPONSE, RESPONSE_LEN[part.position()])?;
        reader.u8()?;
        reader.zeros::<2>()?;
        let response = Self {
            sender: SessionIndex(reader.u32()?),
            receiver: SessionIndex(reader.u32()?),
            ephemeral: TransportKey(reader.array()?),
            sealed_half: reader.array()?,
            tail: match part {
                Part::A => ResponseTail::A,
                Part::B => ResponseTail::B(reader.array()?),
            },
            mac1: reader.array()?,
            mac2: reader.array()?,
        };
        reader.finish()?;
        Ok(response)
    }

    /// Returns the datagram: 636 or 672 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut datagram = vec![0; RESPONSE_LEN[self.part().position()]];
        let mut writer = Writer::new(&mut datagram);
        writer.bytes(&self.header()).bytes(&self.ephemeral.0).bytes(&self.sealed_half);
        if let ResponseTail::B(sealed_payload) = &self.tail {
            writer.bytes(sealed_payload);
        }
        writer.bytes(&self.mac1).bytes(&self.mac2).finish().expect("12 + 32 + 560 + 32 = 636, and 36 more in M2b");
        datagram
    }

    /// Returns the clear header, which the half is sealed with.
    pub fn header(&self) -> [u8; RESPONSE_HEADER_LEN] {
        let mut header = [0; RESPONSE_HEADER_LEN];
        Writer::new(&mut header)
            .u8(TYPE_RESPONSE)
            .u8(self.part().encode())
            .zeros::<2>()
            .u32(self.sender.0)
            .u32(self.receiver.0)
            .finish()
            .expect("1 + 1 + 2 + 4 + 4 = 12");
        header
    }

    /// Says which half it carries.
    pub fn part(&self) -> Part {
        match self.tail {
            ResponseTail::A => Part::A,
            ResponseTail::B(_) => Part::B,
        }
    }
}

/// A cookie: `4 | 0 [3] | receiver u32 | nonce 24 | enc(cookie) 32`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CookieReply {
    /// The initiator's session index.
    pub receiver: SessionIndex,
    /// The random nonce.
    pub nonce: [u8; 24],
    /// The 16 bytes that make mac2, sealed with the initiation's mac1 as associated data.
    pub sealed_cookie: [u8; 16 + TAG_LEN],
}

impl CookieReply {
    /// Reads a datagram.
    ///
    /// # Errors
    /// [`DatagramError`].
    pub fn decode(datagram: &[u8]) -> Result<Self, DatagramError> {
        let mut reader = expect_type(datagram, TYPE_COOKIE, COOKIE_LEN)?;
        reader.zeros::<3>()?;
        let receiver = SessionIndex(reader.u32()?);
        let cookie = Self { receiver, nonce: reader.array()?, sealed_cookie: reader.array()? };
        reader.finish()?;
        Ok(cookie)
    }

    /// Returns the datagram.
    pub fn encode(&self) -> [u8; COOKIE_LEN] {
        let mut datagram = [0; COOKIE_LEN];
        Writer::new(&mut datagram)
            .u8(TYPE_COOKIE)
            .zeros::<3>()
            .u32(self.receiver.0)
            .bytes(&self.nonce)
            .bytes(&self.sealed_cookie)
            .finish()
            .expect("1 + 3 + 4 + 24 + 32 = 64");
        datagram
    }
}

fn expect_type(datagram: &[u8], kind: u8, len: usize) -> Result<Reader<'_>, DatagramError> {
    let mut reader = Reader::new(datagram);
    match reader.u8().map_err(|_| DatagramError::Empty)? {
        first if first != kind => Err(DatagramError::UnknownType(first)),
        _ if datagram.len() != len => Err(DatagramError::WrongLength),
        _ => Ok(reader),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: SessionIndex = SessionIndex(0x0403_0201);

    fn response(tail: ResponseTail) -> Response {
        Response {
            sender: INDEX,
            receiver: SessionIndex(9),
            ephemeral: TransportKey([3; 32]),
            sealed_half: [4; SEALED_CIPHERTEXT_HALF_LEN],
            tail,
            mac1: [5; MAC_LEN],
            mac2: [6; MAC_LEN],
        }
    }

    fn samples() -> [Vec<u8>; 6] {
        let initiation = Initiation {
            sender: INDEX,
            ephemeral: TransportKey([2; 32]),
            sealed_static: [3; SEALED_STATIC_LEN],
            sealed_payload: [4; SEALED_PAYLOAD1_LEN],
            mac1: [5; MAC_LEN],
            mac2: [6; MAC_LEN],
        };
        let key_part = |part| KeyPart {
            part,
            sender: INDEX,
            initiation: InitiationTag([7; 8]),
            sealed_half: [4; SEALED_KEY_HALF_LEN],
            mac1: [5; MAC_LEN],
        };
        let cookie = CookieReply { receiver: INDEX, nonce: [8; 24], sealed_cookie: [9; 32] };
        [
            initiation.encode().to_vec(),
            key_part(Part::A).encode().to_vec(),
            key_part(Part::B).encode().to_vec(),
            response(ResponseTail::A).encode(),
            response(ResponseTail::B([10; SEALED_PAYLOAD2_LEN])).encode(),
            cookie.encode().to_vec(),
        ]
    }

    fn reencoded(datagram: &[u8]) -> Result<Vec<u8>, DatagramError> {
        match datagram.first() {
            Some(&TYPE_INITIATION) => Initiation::decode(datagram).map(|decoded| decoded.encode().to_vec()),
            Some(&TYPE_KEY_PART) => KeyPart::decode(datagram).map(|decoded| decoded.encode().to_vec()),
            Some(&TYPE_RESPONSE) => Response::decode(datagram).map(|decoded| decoded.encode()),
            _ => CookieReply::decode(datagram).map(|decoded| decoded.encode().to_vec()),
        }
    }

    #[test]
    fn each_datagram_survives_and_none_shorter_or_longer_does() {
        for sample in samples() {
            assert_eq!(reencoded(&sample), Ok(sample.clone()));
            for len in (0..sample.len()).chain([sample.len() + 1]) {
                let mut cut = sample.clone();
                cut.resize(len, 0);
                assert!(reencoded(&cut).is_err(), "type {} with {len} bytes", sample[0]);
            }
        }
    }

    #[test]
    fn fields_lie_where_the_document_says() {
        let [initiation, _, key_part, m2a, m2b, cookie] = samples();
        assert_eq!(initiation[..9], [1, 0, 0, 0, 1, 2, 3, 4, 2]);
        assert_eq!((initiation[40], initiation[88], initiation[140], initiation[156]), (3, 4, 5, 6));
        assert_eq!(key_part[..9], [2, 1, 0, 0, 1, 2, 3, 4, 7]);
        assert_eq!((key_part[16], key_part[624]), (4, 5));
        assert_eq!(m2a[..13], [3, 0, 0, 0, 1, 2, 3, 4, 9, 0, 0, 0, 3]);
        assert_eq!((m2a[44], m2a[604], m2a[620]), (4, 5, 6));
        assert_eq!((m2b[1], m2b[44], m2b[604], m2b[640], m2b[656]), (1, 4, 10, 5, 6));
        assert_eq!(cookie[..9], [4, 0, 0, 0, 1, 2, 3, 4, 8]);
        assert_eq!(cookie[32], 9);
    }

    #[test]
    fn reserved_bytes_and_unknown_parts_are_refused() {
        for (position, sample) in [(1, 0), (3, 0), (2, 1), (3, 2), (2, 3), (1, 5)] {
            let mut datagram = samples()[sample].clone();
            datagram[position] = 2;
            assert!(reencoded(&datagram).is_err(), "sample {sample} byte {position}");
        }
        let mut datagram = samples()[1].clone();
        datagram[1] = 2;
        assert_eq!(KeyPart::decode(&datagram), Err(DatagramError::UnknownPart));
    }

    /// IPv6 and UDP headers, and the relay's envelope.
    const OUTER_LEN: usize = 40 + 8 + 8;

    #[test]
    fn every_datagram_passes_a_path_of_1124_bytes_and_answers_are_shorter_than_what_they_answer() {
        for sample in samples() {
            assert!(sample.len() <= LONGEST_HANDSHAKE_DATAGRAM && sample.len() + OUTER_LEN <= 1124);
        }
        let flight_len = INITIATION_LEN + 2 * KEY_PART_LEN;
        assert!(RESPONSE_LEN.iter().sum::<usize>() <= flight_len && COOKIE_LEN <= INITIATION_LEN);
    }
}
