//! Hashes with a purpose in them.
//!
//! BLAKE3 with a domain string identifies things of the ledger; BLAKE2s is the hash of the handshake (Noise §12).

use super::effort::{Work, spend};
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use borsh::{BorshDeserialize, BorshSerialize};
use hmac::SimpleHmac;
use std::fmt;

/// A 32-byte BLAKE3 hash, made by [`domain_hash`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0[..4])
    }
}

/// Writes bytes as lower-case hexadecimal digits.
pub(super) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Hashes `parts` under `domain`, each part preceded by its length, so that no two lists of parts collide.
pub fn domain_hash(domain: &'static str, parts: &[&[u8]]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(domain);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Digest(*hasher.finalize().as_bytes())
}

/// A BLAKE3 hash under a domain, fed piece by piece. Unlike [`domain_hash`] it marks no boundaries between the pieces.
#[derive(Clone)]
pub struct DomainHasher(blake3::Hasher);

impl DomainHasher {
    /// Starts a hash under `domain`.
    pub fn new(domain: &'static str) -> Self {
        Self(blake3::Hasher::new_derive_key(domain))
    }

    /// Feeds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// Returns the hash of everything fed so far.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

/// Hashes the concatenation of `parts` with BLAKE2s-256 (Noise §4.3).
pub fn blake2s(parts: &[&[u8]]) -> [u8; 32] {
    spend(Work::Hash);
    let mut hasher = Blake2s256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Returns the keyed 16-byte BLAKE2s of `message`.
pub fn blake2s_mac(key: &[u8; 32], message: &[u8]) -> [u8; 16] {
    spend(Work::Mac);
    let mut mac = <Blake2sMac<U16> as KeyInit>::new(key.into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// HMAC-BLAKE2s of the concatenation of `parts`; the key may have any length (RFC 2104).
pub fn hmac_blake2s(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <SimpleHmac<Blake2s256> as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(domain_hash("a", &[b"ab", b"c"]), domain_hash("a", &[b"a", b"bc"]));
        assert_ne!(domain_hash("a", &[b"abc"]), domain_hash("b", &[b"abc"]));
    }

    #[test]
    fn pieces_and_the_whole_hash_alike() {
        let mut pieces = DomainHasher::new("a");
        pieces.update(b"ab").update(b"c");
        assert_eq!(pieces.finish(), DomainHasher::new("a").update(b"abc").finish());
        assert_ne!(pieces.finish(), DomainHasher::new("b").update(b"abc").finish());
    }

    #[test]
    fn blake2s_matches_rfc_7693_appendix_b() {
        let expected = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982";
        assert_eq!(Digest(blake2s(&[b"a", b"bc"])).to_string(), expected);
    }
}
