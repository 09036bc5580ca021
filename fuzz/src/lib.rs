//! What the targets share: a way to read an input as a script, and a small network with known keys.

use p2plus::crypto::exchange::{TransportKey, TransportSecret};
use p2plus::crypto::hash::Digest;
use p2plus::crypto::identity::{NodeId, SigningKey, VerifyingKey};
use p2plus::crypto::secret::Secret;
use p2plus::policy::{Member, Policy};
use p2plus::session::LocalKeys;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// The id of the network.
pub const NETWORK: Digest = Digest([0x1d; 32]);

/// Reads an input from the front; behind its end everything is zero or empty.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// Begins to read `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// Says whether everything was read.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads at most `len` bytes.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Reads a length (u16) and as many bytes.
    pub fn chunk(&mut self) -> &'a [u8] {
        let len = usize::from(self.u16());
        self.bytes(len)
    }

    /// Takes all that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Reads a byte.
    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Reads a little-endian number.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Reads `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.bytes(N);
        let mut array = [0; N];
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// Flips bits of `bytes`: a count, then as often a place and a mask.
    pub fn damage(&mut self, bytes: &mut [u8]) {
        for _ in 0..self.u8() % 4 {
            let (place, mask) = (usize::from(self.u16()), self.u8());
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= mask;
            }
        }
    }
}

/// The node key, and every other signing key, with the number `seed`.
pub fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// The public half of [`signing_key`].
pub fn verifying_key(seed: u8) -> VerifyingKey {
    public_keys(seed).0
}

/// The identity of the node with the number `seed`.
pub fn node_id(seed: u8) -> NodeId {
    NodeId([seed; 32])
}

/// The handshake key of the node with the number `seed`.
pub fn transport_key(seed: u8) -> TransportKey {
    public_keys(seed).1
}

/// Public keys take longer to make than most runs.
fn public_keys(seed: u8) -> (VerifyingKey, TransportKey) {
    static KEYS: [OnceLock<(VerifyingKey, TransportKey)>; 256] = [const { OnceLock::new() }; 256];
    *KEYS[usize::from(seed)]
        .get_or_init(|| (signing_key(seed).verifying_key(), TransportSecret::from_bytes([seed; 32]).public_key()))
}

/// All that the node with the number `seed` brings into a handshake.
pub fn local_keys(seed: u8) -> LocalKeys {
    LocalKeys::new(TransportSecret::from_bytes([seed; 32]), node_id(seed), NETWORK, Secret::new([0x5e; 32]))
}

/// The members with these numbers, and `revoked` ones.
pub fn policy(members: impl IntoIterator<Item = u8>, revoked: impl IntoIterator<Item = u8>) -> Policy {
    let member = |seed| Member {
        id: node_id(seed),
        name: format!("node-{seed}"),
        node_key: verifying_key(seed),
        transport_key: transport_key(seed),
        addresses: Vec::new(),
        tags: Vec::new(),
        subnets: Vec::new(),
        is_exit: false,
        relay: None,
        static_endpoints: Vec::new(),
    };
    let revoked: BTreeSet<_> = revoked.into_iter().map(node_id).collect();
    Policy::new(members.into_iter().map(member), BTreeMap::new(), revoked)
}

/// The internet checksum (RFC 1071) of `parts`, each of an even length but the last.
pub fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words.map(|word| u64::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))).sum();
    let mut folded = sum;
    while folded > 0xffff {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    !(folded as u16)
}
