//! A member's node record in the Mainline DHT: an item that BEP 44 has signed, and in it a value that only the network can read.
//!
//! ```text
//! item    key 32 | signature 64 | seq i64 | value       a mutable item of BEP 44 without a salt
//! value   nonce 12 | sealed | tag 16                    412 or 796 bytes; an item takes 996 (1000 with their bencoded length)
//! sealed  SignedRecord | zeros                          384 or 768 bytes: what a record has in it does not show in its length
//! ```
//! Knows no keys: who holds the network's secret derives them, seals and opens.

use super::control::SignedRecord;
use crate::crypto::aead::TAG_LEN;
use borsh::BorshDeserialize;

/// The nonce in front of what is sealed.
pub const NONCE_LEN: usize = 12;

/// What is sealed, as long as a record with a few endpoints and relays, or as the longest there is. A node's answer with the shorter value, and
/// with the other nodes that it names, passes every link in one piece.
const SEALED_LENS: [usize; 2] = [384, 768];

/// The longest value of this version.
pub const MAX_VALUE_LEN: usize = NONCE_LEN + SEALED_LENS[1] + TAG_LEN;

/// Bytes that are no record with zeros behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a node record as the DHT has it")]
pub struct MalformedValue;

/// Writes a record as it is sealed; none when it is too long, which no record is that others would believe.
pub fn pad(record: &SignedRecord) -> Option<Vec<u8>> {
    let mut bytes = borsh::to_vec(record).expect("writing to memory does not fail");
    let len = SEALED_LENS.into_iter().find(|len| bytes.len() <= *len)?;
    bytes.resize(len, 0);
    Some(bytes)
}

/// Reads what was sealed; there is one way to write each record.
///
/// # Errors
/// [`MalformedValue`] for whatever [`pad`] does not write.
pub fn unpad(bytes: &[u8]) -> Result<SignedRecord, MalformedValue> {
    if !SEALED_LENS.contains(&bytes.len()) {
        return Err(MalformedValue);
    }
    let record = SignedRecord::deserialize(&mut &bytes[..]).map_err(|_| MalformedValue)?;
    if pad(&record).as_deref() == Some(bytes) { Ok(record) } else { Err(MalformedValue) }
}

/// What the key of an item signs (BEP 44, "Signature verification").
pub fn signed_part(sequence: i64, value: &[u8]) -> Vec<u8> {
    [format!("3:seqi{sequence}e1:v{}:", value.len()).as_bytes(), value].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Digest;
    use crate::crypto::identity::{NodeId, SigningKey};
    use crate::time::UnixMillis;
    use crate::wire::control::{
        HomeRelay, MAX_HOMES, MAX_RECORD_ENDPOINTS, MAX_REFUSALS, MAX_REQUESTS, NatKind, NodeRecord, Request,
        RequestId, Wanted,
    };

    fn signed(endpoints: usize, requests: usize, refusals: usize, homes: usize) -> SignedRecord {
        let key = SigningKey::from_seed(&[1; 32]);
        let endpoint = "[2001:db8::1]:4647".parse().unwrap();
        let wanted = Wanted::Relay { endpoints: [Some(endpoint); 2], tls_port: 443 };
        let record = NodeRecord {
            id: key.node_id(),
            sequence: 5,
            endpoints: vec![endpoint; endpoints],
            requests: vec![Request { wanted, made: UnixMillis(7) }; requests],
            refused: vec![RequestId([8; 8]); refusals],
            nat: NatKind::Dependent,
            is_relay: true,
            homes: vec![HomeRelay { id: NodeId([9; 32]), rtt_millis: 10 }; homes],
        };
        SignedRecord::sign(record, &key, &Digest([2; 32]))
    }

    #[test]
    fn each_record_that_is_believed_fits_an_item_and_lengths_tell_nothing_of_it() {
        let longest = signed(MAX_RECORD_ENDPOINTS, MAX_REQUESTS, MAX_REFUSALS, MAX_HOMES);
        assert_eq!(pad(&longest).unwrap().len(), SEALED_LENS[1]);
        // BEP 44: 1000 bytes with the length in front.
        const { assert!("000:".len() + MAX_VALUE_LEN <= 1000) };
        for record in [signed(1, 0, 0, 0), signed(4, 0, 0, MAX_HOMES), signed(MAX_RECORD_ENDPOINTS, 0, 0, 2)] {
            let padded = pad(&record).unwrap();
            assert_eq!(padded.len(), SEALED_LENS[0]);
            assert_eq!(unpad(&padded), Ok(record));
        }
        assert_eq!(unpad(&pad(&longest).unwrap()), Ok(longest));
        assert_eq!(pad(&signed(MAX_RECORD_ENDPOINTS, 20, MAX_REFUSALS, MAX_HOMES)), None);
    }

    #[test]
    fn there_is_one_way_to_write_a_record() {
        let padded = pad(&signed(1, 0, 0, 0)).unwrap();
        let mut loose = padded.clone();
        *loose.last_mut().unwrap() = 1;
        assert_eq!(unpad(&loose), Err(MalformedValue), "zeros alone follow");
        let longer = [&padded[..], &[0; SEALED_LENS[1] - SEALED_LENS[0]]].concat();
        assert_eq!(unpad(&longer), Err(MalformedValue), "and as few as do");
        for len in [0, 1, SEALED_LENS[0] - 1, SEALED_LENS[0] + 1] {
            assert_eq!(unpad(&longer[..len]), Err(MalformedValue));
        }
        assert_eq!(unpad(&[0xff; SEALED_LENS[0]]), Err(MalformedValue));
    }

    #[test]
    fn what_is_signed_is_what_bep_44_shows() {
        assert_eq!(signed_part(4, b"Hello world!"), b"3:seqi4e1:v12:Hello world!");
    }
}
