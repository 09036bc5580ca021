//! The symmetric half of Noise (Noise §5.2) with BLAKE2s and ChaCha20-Poly1305, one method per token.
//!
//! Besides what Noise has, [`SymmetricState::seal_part`] seals pieces of one message that travel in datagrams of their own: all under the
//! transcript before the first of them, each under its own nonce, so that they open alone and in any order.

use crate::crypto::aead::{OpenError, TAG_LEN, open_handshake, seal_handshake};
use crate::crypto::exchange::{ExchangeError, TransportKey, TransportSecret};
use crate::crypto::hash::{blake2s, hmac_blake2s};
use crate::crypto::secret::Secret;

/// Whether the pattern has a `psk` token: then each `e` is mixed into the key as well (Noise §9.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PskMode {
    /// The pattern has one.
    WithPsk,
    /// The pattern has none; only tests against other implementations run so.
    WithoutPsk,
}

/// `h`, `ck`, `k` and `n` of one handshake.
pub struct SymmetricState {
    hash: [u8; 32],
    chaining_key: Secret<32>,
    key: Option<Secret<32>>,
    nonce: u64,
    psk_mode: PskMode,
}

impl SymmetricState {
    /// `InitializeSymmetric(protocol_name)`, then `MixHash(prologue)`.
    pub fn new(protocol_name: &[u8], prologue: &[u8], psk_mode: PskMode) -> Self {
        let mut hash = [0; 32];
        match hash.get_mut(..protocol_name.len()) {
            Some(front) => front.copy_from_slice(protocol_name),
            None => hash = blake2s(&[protocol_name]),
        }
        let mut state = Self { hash, chaining_key: Secret::new(hash), key: None, nonce: 0, psk_mode };
        state.mix_hash(&[prologue]);
        state
    }

    /// Makes a second copy, for a message that may turn out false.
    pub fn duplicate(&self) -> Self {
        Self {
            hash: self.hash,
            chaining_key: self.chaining_key.duplicate(),
            key: self.key.as_ref().map(Secret::duplicate),
            nonce: self.nonce,
            psk_mode: self.psk_mode,
        }
    }

    /// Returns `h`, the hash of everything so far.
    pub fn transcript(&self) -> &[u8; 32] {
        &self.hash
    }

    /// `MixHash` of the concatenation of `parts`.
    pub fn mix_hash(&mut self, parts: &[&[u8]]) {
        let mut input = [[].as_slice(); 4];
        input[0] = &self.hash;
        input[1..=parts.len()].copy_from_slice(parts);
        self.hash = blake2s(&input);
    }

    /// `MixKey`.
    pub fn mix_key(&mut self, input: &[u8]) {
        let [chaining_key, key] = expand(&self.chaining_key, input);
        self.chaining_key = chaining_key;
        self.key = Some(key);
        self.nonce = 0;
    }

    /// Token `e`: `MixHash(e)`, and `MixKey(e)` in a handshake with a psk.
    pub fn mix_ephemeral(&mut self, ephemeral: &TransportKey) {
        self.mix_hash(&[&ephemeral.0]);
        if self.psk_mode == PskMode::WithPsk {
            self.mix_key(&ephemeral.0);
        }
    }

    /// Tokens `es`, `ss`, `ee`, `se`: `MixKey(DH)`.
    ///
    /// # Errors
    /// [`ExchangeError::SmallOrder`]; the state is then as before.
    pub fn mix_dh(&mut self, secret: &TransportSecret, public: &TransportKey) -> Result<(), ExchangeError> {
        let shared = secret.agree(public)?;
        self.mix_key(shared.expose());
        Ok(())
    }

    /// Token `psk`: `MixKeyAndHash`.
    pub fn mix_psk(&mut self, psk: &Secret<32>) {
        let [chaining_key, hash_input, key] = expand(&self.chaining_key, psk.expose());
        self.chaining_key = chaining_key;
        self.mix_hash(&[hash_input.expose()]);
        self.key = Some(key);
        self.nonce = 0;
    }

    /// `EncryptAndHash` in place: `field` is the plaintext and room for the tag.
    pub fn seal(&mut self, field: &mut [u8]) {
        let associated = self.hash;
        self.seal_at(self.nonce, &associated, field);
        self.nonce += 1;
        self.mix_hash(&[field]);
    }

    /// `DecryptAndHash` in place: `field` is ciphertext and tag, and afterwards plaintext and tag.
    ///
    /// # Errors
    /// [`OpenError`]; the state is then as before and `field` is unspecified.
    pub fn open(&mut self, field: &mut [u8]) -> Result<(), OpenError> {
        let mut hashed = self.duplicate();
        hashed.mix_hash(&[field]);
        self.open_at(self.nonce, &self.hash, field)?;
        self.nonce += 1;
        self.hash = hashed.hash;
        Ok(())
    }

    /// Seals piece number `piece` of a message in place, bound to the transcript so far and to the `header` of its datagram.
    ///
    /// The state stays as it is: [`SymmetricState::mix_parts`] ends the message.
    pub fn seal_part(&self, piece: u64, header: &[u8], field: &mut [u8]) {
        self.seal_at(self.nonce + piece, &[&self.hash, header].concat(), field);
    }

    /// Opens piece number `piece` in place.
    ///
    /// # Errors
    /// [`OpenError`]; `field` is then unspecified.
    pub fn open_part(&self, piece: u64, header: &[u8], field: &mut [u8]) -> Result<(), OpenError> {
        self.open_at(self.nonce + piece, &[&self.hash, header].concat(), field)
    }

    /// Hashes the sealed pieces with their headers, in order: `MixHash(header | piece)` for each.
    pub fn mix_parts(&mut self, parts: [(&[u8], &[u8]); 2]) {
        for (header, sealed) in parts {
            self.mix_hash(&[header, sealed]);
        }
        self.nonce += 2;
    }

    /// `Split`: the initiator's sending key, then the responder's.
    pub fn split(self) -> [Secret<32>; 2] {
        expand(&self.chaining_key, &[])
    }

    fn seal_at(&self, nonce: u64, associated: &[u8], field: &mut [u8]) {
        let (text, tag) = field.split_at_mut(field.len() - TAG_LEN);
        tag.copy_from_slice(&seal_handshake(self.expect_key(), nonce, associated, text));
    }

    fn open_at(&self, nonce: u64, associated: &[u8], field: &mut [u8]) -> Result<(), OpenError> {
        let (text, tag) = field.split_last_chunk_mut().ok_or(OpenError)?;
        open_handshake(self.expect_key(), nonce, associated, text, tag)
    }

    fn expect_key(&self) -> &Secret<32> {
        self.key.as_ref().expect("IK mixes es before its first sealed field")
    }
}

/// HKDF as Noise has it (Noise §4.3), with as many outputs as are asked for, at most 255.
fn expand<const N: usize>(chaining_key: &Secret<32>, input: &[u8]) -> [Secret<32>; N] {
    let temporary = Secret::new(hmac_blake2s(chaining_key.expose(), &[input]));
    let mut previous: Option<Secret<32>> = None;
    std::array::from_fn(|position| {
        let number = [position as u8 + 1];
        let output = match &previous {
            None => hmac_blake2s(temporary.expose(), &[&number]),
            Some(previous) => hmac_blake2s(temporary.expose(), &[previous.expose(), &number]),
        };
        previous = Some(Secret::new(output));
        Secret::new(output)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> SymmetricState {
        let mut state = SymmetricState::new(b"name", b"prologue", PskMode::WithPsk);
        state.mix_key(b"input");
        state
    }

    #[test]
    fn a_false_field_leaves_the_state_as_it_was() {
        let (mut sender, mut receiver) = (state(), state());
        let mut field = *b"text................";
        sender.seal(&mut field);
        let mut altered = field;
        altered[0] ^= 1;
        assert_eq!(receiver.open(&mut altered), Err(OpenError));
        assert_eq!(receiver.open(&mut field), Ok(()));
        assert_eq!(&field[..4], b"text");
        assert_eq!(sender.transcript(), receiver.transcript());
        assert!(sender.split() == receiver.split());
    }

    #[test]
    fn parts_open_alone_in_any_order_and_only_at_their_place() {
        let (sender, receiver) = (state(), state());
        let (mut first, mut second) = ([1; 20], [2; 20]);
        sender.seal_part(0, b"a", &mut first);
        sender.seal_part(1, b"b", &mut second);
        assert_eq!(receiver.open_part(1, b"a", &mut second.clone()), Err(OpenError));
        assert_eq!(receiver.open_part(0, b"b", &mut second.clone()), Err(OpenError));
        assert_eq!(receiver.open_part(1, b"b", &mut second), Ok(()));
        assert_eq!(receiver.open_part(0, b"a", &mut first), Ok(()));
        assert_eq!((first[..4].to_vec(), second[..4].to_vec()), (vec![1; 4], vec![2; 4]));
    }
}
