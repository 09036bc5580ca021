//! The two payloads of a handshake: what both sides offer and choose, sealed in D1 and M2b (docs/protocol.md, "Payloads").
//!
//! Owns their layouts and the rules that each one keeps by itself. Whether an answer fits an offer is the initiator's to check.

use super::codec::{CodecError, Reader, Writer};
use crate::crypto::aead::{IS_NULL, TransportCipher};
use crate::time::UnixMillis;

/// Bytes of the first payload, in D1.
pub const PAYLOAD1_LEN: usize = 36;
/// Bytes of the second payload, in M2b.
pub const PAYLOAD2_LEN: usize = 20;

/// When an initiation was made, as its maker says: it only ever grows. 12 bytes: `milliseconds u64 | step u32`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Timestamp {
    /// The maker's wall clock.
    pub wall: UnixMillis,
    /// Tells apart initiations of one millisecond, and goes on while the clock stands or falls back.
    pub step: u32,
}

impl Timestamp {
    /// Returns the next possible timestamp.
    pub fn successor(self) -> Self {
        match self.step.checked_add(1) {
            Some(step) => Self { wall: self.wall, step },
            None => Self { wall: UnixMillis(self.wall.0.saturating_add(1)), step: 0 },
        }
    }
}

/// The protocol versions that a node speaks, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    /// The oldest.
    pub lowest: u8,
    /// The newest.
    pub highest: u8,
}

/// The transport ciphers that a node wants to use. ChaCha20-Poly1305 is always among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CipherSet {
    /// AES-256-GCM was measured faster than ChaCha20-Poly1305 at start.
    pub aes_256_gcm: bool,
}

impl CipherSet {
    /// Chooses for two nodes: AES-256-GCM only when both want it.
    pub fn common(self, other: Self) -> TransportCipher {
        if self.aes_256_gcm && other.aes_256_gcm {
            TransportCipher::Aes256Gcm
        } else {
            TransportCipher::ChaCha20Poly1305
        }
    }

    /// Says whether `cipher` is in the set.
    pub fn contains(self, cipher: TransportCipher) -> bool {
        match cipher {
            TransportCipher::ChaCha20Poly1305 => true,
            TransportCipher::Aes256Gcm => self.aes_256_gcm,
        }
    }
}

/// The bit of ChaCha20-Poly1305, which every offer has. A build without a cipher has one in its place that no release sends: neither takes
/// the other's offers.
const CIPHER_MANDATORY: u16 = if IS_NULL { 1 << 15 } else { 1 << 0 };
const CIPHER_AES_256_GCM: u16 = 1 << 1;

/// The super-packets that a node's device takes: of others its peers send the segments one by one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OffloadSet {
    /// Those of TCP.
    pub tcp: bool,
    /// Those of UDP.
    pub udp: bool,
    /// Not a super-packet: frames of the network's segments, which older versions do not know.
    pub frames: bool,
}

const OFFLOAD_TCP: u8 = 1 << 0;
const OFFLOAD_UDP: u8 = 1 << 1;
const OFFLOAD_FRAMES: u8 = 1 << 2;

impl OffloadSet {
    fn from_bits(bits: u8) -> Self {
        Self { tcp: bits & OFFLOAD_TCP != 0, udp: bits & OFFLOAD_UDP != 0, frames: bits & OFFLOAD_FRAMES != 0 }
    }

    fn bits(self) -> u8 {
        let [tcp, udp, frames] = [self.tcp, self.udp, self.frames].map(u8::from);
        (tcp * OFFLOAD_TCP) | (udp * OFFLOAD_UDP) | (frames * OFFLOAD_FRAMES)
    }
}

/// How far a node's ledger is: the fresher side teaches the staler.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LedgerHead {
    /// Height of the last block.
    pub height: u64,
    /// First 8 bytes of that block's id.
    pub head: [u8; 8],
}

/// Payload 1, the initiator's: `timestamp 12 | versions 2 | aead u16 | height u64 | head 8 | offload u8 | 0 24 bits`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// When the initiation was made.
    pub timestamp: Timestamp,
    /// What the initiator speaks.
    pub versions: Versions,
    /// What the initiator wants to seal with.
    pub ciphers: CipherSet,
    /// How far the initiator's ledger is.
    pub ledger: LedgerHead,
    /// What the initiator's device takes.
    pub offload: OffloadSet,
}

/// An authenticated payload that breaks the rules: its sender is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// A field is missing.
    #[error(transparent)]
    Field(#[from] CodecError),
    /// ChaCha20-Poly1305 is not offered, or this build has no cipher and the peer's has.
    #[error("the mandatory cipher is not offered")]
    MandatoryCipherMissing,
    /// The cipher chosen is unknown, or was not offered.
    #[error("the cipher chosen was not offered")]
    CipherNotOffered,
    /// The lowest version is above the highest, or the one chosen was not offered.
    #[error("the versions contradict each other")]
    Versions,
}

impl Offer {
    /// Reads the opened payload. Flags of later versions are ignored.
    ///
    /// # Errors
    /// [`PayloadError`].
    pub fn decode(payload: &[u8; PAYLOAD1_LEN]) -> Result<Self, PayloadError> {
        let mut reader = Reader::new(payload);
        let timestamp = Timestamp { wall: UnixMillis(reader.u64()?), step: reader.u32()? };
        let versions = Versions { lowest: reader.u8()?, highest: reader.u8()? };
        let ciphers = reader.u16()?;
        let ledger = LedgerHead { height: reader.u64()?, head: reader.array()? };
        let offload = OffloadSet::from_bits(reader.u8()?);
        if versions.lowest > versions.highest {
            return Err(PayloadError::Versions);
        }
        if ciphers & CIPHER_MANDATORY == 0 {
            return Err(PayloadError::MandatoryCipherMissing);
        }
        let ciphers = CipherSet { aes_256_gcm: ciphers & CIPHER_AES_256_GCM != 0 };
        Ok(Self { timestamp, versions, ciphers, ledger, offload })
    }

    /// Returns the payload.
    pub fn encode(&self) -> [u8; PAYLOAD1_LEN] {
        let mut payload = [0; PAYLOAD1_LEN];
        let aes = if self.ciphers.aes_256_gcm { CIPHER_AES_256_GCM } else { 0 };
        Writer::new(&mut payload)
            .u64(self.timestamp.wall.0)
            .u32(self.timestamp.step)
            .u8(self.versions.lowest)
            .u8(self.versions.highest)
            .u16(CIPHER_MANDATORY | aes)
            .u64(self.ledger.height)
            .bytes(&self.ledger.head)
            .u8(self.offload.bits())
            .zeros::<3>()
            .finish()
            .expect("12 + 2 + 2 + 8 + 8 + 1 + 3 = 36");
        payload
    }
}

/// Payload 2, the responder's: `version u8 | aead u8 | flags u8 | offload u8 | height u64 | head 8`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The version that both will speak.
    pub version: u8,
    /// The cipher that both will seal with.
    pub cipher: TransportCipher,
    /// The session carries sync only, because the initiator speaks no version that the network still allows.
    pub version_too_old: bool,
    /// The session carries sync only, because the initiator used a key that the responder has rotated away from.
    pub key_retired: bool,
    /// The responder's policy does not know the initiator as a member (or no longer): the session carries what guests may.
    pub guest: bool,
    /// How far the responder's ledger is.
    pub ledger: LedgerHead,
    /// What the responder's device takes.
    pub offload: OffloadSet,
}

const ANSWER_VERSION_TOO_OLD: u8 = 1 << 0;
const ANSWER_KEY_RETIRED: u8 = 1 << 1;
const ANSWER_GUEST: u8 = 1 << 2;

impl Answer {
    /// Reads the opened payload. Flags of later versions are ignored.
    ///
    /// # Errors
    /// [`PayloadError`].
    pub fn decode(payload: &[u8; PAYLOAD2_LEN]) -> Result<Self, PayloadError> {
        let mut reader = Reader::new(payload);
        let version = reader.u8()?;
        let cipher = match reader.u8()? {
            0 => TransportCipher::ChaCha20Poly1305,
            1 => TransportCipher::Aes256Gcm,
            _ => return Err(PayloadError::CipherNotOffered),
        };
        let (flags, offload) = (reader.u8()?, OffloadSet::from_bits(reader.u8()?));
        Ok(Self {
            version,
            cipher,
            version_too_old: flags & ANSWER_VERSION_TOO_OLD != 0,
            key_retired: flags & ANSWER_KEY_RETIRED != 0,
            guest: flags & ANSWER_GUEST != 0,
            ledger: LedgerHead { height: reader.u64()?, head: reader.array()? },
            offload,
        })
    }

    /// Returns the payload.
    pub fn encode(&self) -> [u8; PAYLOAD2_LEN] {
        let mut payload = [0; PAYLOAD2_LEN];
        let cipher = match self.cipher {
            TransportCipher::ChaCha20Poly1305 => 0,
            TransportCipher::Aes256Gcm => 1,
        };
        let too_old = if self.version_too_old { ANSWER_VERSION_TOO_OLD } else { 0 };
        let retired = if self.key_retired { ANSWER_KEY_RETIRED } else { 0 };
        let guest = if self.guest { ANSWER_GUEST } else { 0 };
        Writer::new(&mut payload)
            .u8(self.version)
            .u8(cipher)
            .u8(too_old | retired | guest)
            .u8(self.offload.bits())
            .u64(self.ledger.height)
            .bytes(&self.ledger.head)
            .finish()
            .expect("1 + 1 + 1 + 1 + 8 + 8 = 20");
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: Offer = Offer {
        timestamp: Timestamp { wall: UnixMillis(0x0102), step: 3 },
        versions: Versions { lowest: 1, highest: 4 },
        ciphers: CipherSet { aes_256_gcm: true },
        ledger: LedgerHead { height: 5, head: [6; 8] },
        offload: OffloadSet { tcp: true, udp: false, frames: true },
    };

    const ANSWER: Answer = Answer {
        version: 4,
        cipher: TransportCipher::Aes256Gcm,
        version_too_old: true,
        key_retired: true,
        guest: true,
        ledger: LedgerHead { height: 5, head: [6; 8] },
        offload: OffloadSet { tcp: true, udp: true, frames: false },
    };

    #[test]
    fn an_offer_has_the_bytes_of_the_document() {
        let bytes = OFFER.encode();
        assert_eq!(bytes[..16], [2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 4, 3, 0]);
        assert_eq!(bytes[16..], [5, 0, 0, 0, 0, 0, 0, 0, 6, 6, 6, 6, 6, 6, 6, 6, 5, 0, 0, 0]);
        assert_eq!(Offer::decode(&bytes), Ok(OFFER));
    }

    #[test]
    fn an_answer_has_the_bytes_of_the_document() {
        let bytes = ANSWER.encode();
        assert_eq!(bytes, [4, 1, 7, 3, 5, 0, 0, 0, 0, 0, 0, 0, 6, 6, 6, 6, 6, 6, 6, 6]);
        assert_eq!(Answer::decode(&bytes), Ok(ANSWER));
    }

    #[test]
    fn later_flags_are_ignored_and_contradictions_are_not() {
        let altered = |position: usize, byte| {
            let mut bytes = OFFER.encode();
            bytes[position] = byte;
            Offer::decode(&bytes)
        };
        assert_eq!((altered(35, 0x80), altered(15, 0x80)), (Ok(OFFER), Ok(OFFER)));
        assert_eq!(altered(14, 2), Err(PayloadError::MandatoryCipherMissing));
        assert_eq!(altered(12, 5), Err(PayloadError::Versions));
        let mut bytes = ANSWER.encode();
        bytes[1] = 2;
        assert_eq!(Answer::decode(&bytes), Err(PayloadError::CipherNotOffered));
    }

    #[test]
    fn a_build_with_a_cipher_and_one_without_refuse_each_other() {
        let mut bytes = OFFER.encode();
        let ciphers = u16::from_le_bytes([bytes[14], bytes[15]]);
        let own = if cfg!(feature = "null-cipher") { 1 << 15 } else { 1 << 0 };
        assert_eq!(ciphers & (1 << 0 | 1 << 15), own);
        bytes[14..16].copy_from_slice(&(ciphers ^ (1 << 0 | 1 << 15)).to_le_bytes());
        assert_eq!(Offer::decode(&bytes), Err(PayloadError::MandatoryCipherMissing));
    }

    #[test]
    fn timestamps_grow_across_a_full_step() {
        let last = Timestamp { wall: UnixMillis(7), step: u32::MAX };
        assert_eq!(last.successor(), Timestamp { wall: UnixMillis(8), step: 0 });
    }
}
