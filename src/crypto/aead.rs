//! Authenticated encryption: the handshake's and cookies' ciphers, and the transport cipher of the data path.
//!
//! The data path uses aws-lc-rs: per 1400-byte packet it is 3.7x (ChaCha20-Poly1305) and 2.7x (AES-256-GCM) as fast as the
//! pure-Rust crates, which serve the handshake, targets without a C compiler, and the tests as a second opinion. With the feature
//! `null-cipher`, for measurements, it has no cipher at all.

use super::secret::Secret;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, XChaCha20Poly1305};

/// Bytes that sealing adds.
pub const TAG_LEN: usize = 16;

/// The ciphertext is not what the key's holder sealed under this nonce and associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message failed authentication")]
pub struct OpenError;

/// Seals a handshake field: ChaCha20-Poly1305 with Noise's nonce, 4 zero bytes and the little-endian counter (Noise §12).
pub fn seal_handshake(key: &Secret<32>, counter: u64, associated: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
    seal_chacha20_poly1305(key, &noise_nonce(counter), associated, text)
}

/// Opens a handshake field in place.
///
/// # Errors
/// [`OpenError`] when authentication fails; `text` is then unspecified.
pub fn open_handshake(
    key: &Secret<32>,
    counter: u64,
    associated: &[u8],
    text: &mut [u8],
    tag: &[u8; TAG_LEN],
) -> Result<(), OpenError> {
    open_chacha20_poly1305(key, &noise_nonce(counter), associated, text, tag)
}

/// Seals with ChaCha20-Poly1305 (RFC 8439 §2.8) in pure Rust, under a nonce that is used only once with this key.
pub fn seal_chacha20_poly1305(key: &Secret<32>, nonce: &[u8; 12], associated: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
    let cipher = ChaCha20Poly1305::new(key.expose().into());
    cipher
        .encrypt_inout_detached(nonce.into(), associated, text.into())
        .expect("a handshake field is far below the cipher's 256 GiB")
        .into()
}

/// Opens ChaCha20-Poly1305 in place, in pure Rust.
///
/// # Errors
/// [`OpenError`] when authentication fails; `text` is then unspecified.
pub fn open_chacha20_poly1305(
    key: &Secret<32>,
    nonce: &[u8; 12],
    associated: &[u8],
    text: &mut [u8],
    tag: &[u8; TAG_LEN],
) -> Result<(), OpenError> {
    let cipher = ChaCha20Poly1305::new(key.expose().into());
    cipher.decrypt_inout_detached(nonce.into(), associated, text.into(), tag.into()).map_err(|_| OpenError)
}

/// Seals a cookie under a 24-byte random nonce (XChaCha20-Poly1305).
pub fn seal_cookie(key: &[u8; 32], nonce: &[u8; 24], associated: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
    let cipher = XChaCha20Poly1305::new(key.into());
    cipher.encrypt_inout_detached(nonce.into(), associated, text.into()).expect("a cookie is 16 bytes").into()
}

/// Opens a cookie in place.
///
/// # Errors
/// [`OpenError`] when authentication fails; `text` is then unspecified.
pub fn open_cookie(
    key: &[u8; 32],
    nonce: &[u8; 24],
    associated: &[u8],
    text: &mut [u8],
    tag: &[u8; TAG_LEN],
) -> Result<(), OpenError> {
    let cipher = XChaCha20Poly1305::new(key.into());
    cipher.decrypt_inout_detached(nonce.into(), associated, text.into(), tag.into()).map_err(|_| OpenError)
}

fn noise_nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// Whether this is a build for measurements, with the feature `null-cipher`: transport packets are neither encrypted nor authenticated.
pub const IS_NULL: bool = cfg!(feature = "null-cipher");

/// The cipher of a session's transport packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum TransportCipher {
    /// Mandatory for everyone (RFC 8439).
    ChaCha20Poly1305,
    /// Chosen when both sides measured it faster.
    Aes256Gcm,
}

impl TransportCipher {
    /// The name in statuses and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 | Self::Aes256Gcm if IS_NULL => "none",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::Aes256Gcm => "aes-256-gcm",
        }
    }
}

/// One direction's key of one session, with its key schedule. Shared by the threads that seal in lanes of their own.
pub struct TransportAead(backend::Key);

impl TransportAead {
    /// Expands `key` for `cipher`.
    pub fn new(cipher: TransportCipher, key: &Secret<32>) -> Self {
        Self(backend::Key::new(cipher, key))
    }

    /// Encrypts `text` in place under `nonce`, which is used only once with this key. Returns the tag.
    pub fn seal(&self, nonce: [u8; 12], text: &mut [u8]) -> [u8; TAG_LEN] {
        self.0.seal(nonce, text)
    }

    /// Decrypts `sealed` (ciphertext and tag) in place and lends the plaintext.
    ///
    /// # Errors
    /// [`OpenError`] when authentication fails or `sealed` is shorter than a tag; the bytes are then unspecified.
    pub fn open<'b>(&self, nonce: [u8; 12], sealed: &'b mut [u8]) -> Result<&'b mut [u8], OpenError> {
        self.0.open(nonce, sealed)
    }
}

/// Whatever the cipher is called: the text stays as it is, and every tag is the same.
#[cfg(feature = "null-cipher")]
mod backend {
    use super::{OpenError, Secret, TAG_LEN, TransportCipher};

    const TAG: [u8; TAG_LEN] = *b"p2plus no cipher";

    pub(super) struct Key;

    impl Key {
        pub(super) fn new(_: TransportCipher, _: &Secret<32>) -> Self {
            Self
        }

        pub(super) fn seal(&self, _: [u8; 12], _: &mut [u8]) -> [u8; TAG_LEN] {
            TAG
        }

        pub(super) fn open<'b>(&self, _: [u8; 12], sealed: &'b mut [u8]) -> Result<&'b mut [u8], OpenError> {
            let (text, tag) = sealed.split_last_chunk_mut().ok_or(OpenError)?;
            if *tag == TAG { Ok(text) } else { Err(OpenError) }
        }
    }
}

#[cfg(all(feature = "aws-lc", not(feature = "null-cipher")))]
mod backend {
    use super::{OpenError, Secret, TAG_LEN, TransportCipher};
    use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

    pub(super) struct Key(LessSafeKey);

    impl Key {
        pub(super) fn new(cipher: TransportCipher, key: &Secret<32>) -> Self {
            let algorithm = match cipher {
                TransportCipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
                TransportCipher::Aes256Gcm => &AES_256_GCM,
            };
            let key = UnboundKey::new(algorithm, key.expose()).expect("both ciphers take 32-byte keys");
            Self(LessSafeKey::new(key))
        }

        pub(super) fn seal(&self, nonce: [u8; 12], text: &mut [u8]) -> [u8; TAG_LEN] {
            let tag = self
                .0
                .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), text)
                .expect("a packet is far below the cipher's limit");
            tag.as_ref().try_into().expect("both ciphers have 16-byte tags")
        }

        pub(super) fn open<'b>(&self, nonce: [u8; 12], sealed: &'b mut [u8]) -> Result<&'b mut [u8], OpenError> {
            self.0.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), sealed).map_err(|_| OpenError)
        }
    }
}

#[cfg(not(any(feature = "aws-lc", feature = "null-cipher")))]
mod backend {
    use super::{OpenError, Secret, TAG_LEN, TransportCipher};
    use aes_gcm::Aes256Gcm;
    use chacha20poly1305::ChaCha20Poly1305;
    use chacha20poly1305::aead::{AeadInOut, KeyInit};

    pub(super) enum Key {
        ChaCha20Poly1305(Box<ChaCha20Poly1305>),
        Aes256Gcm(Box<Aes256Gcm>),
    }

    impl Key {
        pub(super) fn new(cipher: TransportCipher, key: &Secret<32>) -> Self {
            match cipher {
                TransportCipher::ChaCha20Poly1305 => {
                    Self::ChaCha20Poly1305(Box::new(ChaCha20Poly1305::new(key.expose().into())))
                }
                TransportCipher::Aes256Gcm => Self::Aes256Gcm(Box::new(Aes256Gcm::new(key.expose().into()))),
            }
        }

        pub(super) fn seal(&self, nonce: [u8; 12], text: &mut [u8]) -> [u8; TAG_LEN] {
            let tag = match self {
                Self::ChaCha20Poly1305(key) => key.encrypt_inout_detached(&nonce.into(), &[], text.into()),
                Self::Aes256Gcm(key) => key.encrypt_inout_detached(&nonce.into(), &[], text.into()),
            };
            tag.expect("a packet is far below the cipher's limit").into()
        }

        pub(super) fn open<'b>(&self, nonce: [u8; 12], sealed: &'b mut [u8]) -> Result<&'b mut [u8], OpenError> {
            let text_len = sealed.len().checked_sub(TAG_LEN).ok_or(OpenError)?;
            let (text, tag) = sealed.split_at_mut(text_len);
            let tag: [u8; TAG_LEN] = (&*tag).try_into().map_err(|_| OpenError)?;
            let opened = match self {
                Self::ChaCha20Poly1305(key) => {
                    key.decrypt_inout_detached(&nonce.into(), &[], (&mut *text).into(), &tag.into())
                }
                Self::Aes256Gcm(key) => {
                    key.decrypt_inout_detached(&nonce.into(), &[], (&mut *text).into(), &tag.into())
                }
            };
            opened.map_err(|_| OpenError)?;
            Ok(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        for cipher in [TransportCipher::ChaCha20Poly1305, TransportCipher::Aes256Gcm] {
            let key = TransportAead::new(cipher, &Secret::new([9; 32]));
            let mut sealed = b"packet".to_vec();
            let tag = key.seal([1; 12], &mut sealed);
            sealed.extend_from_slice(&tag);
            assert_eq!(key.open([1; 12], &mut sealed.clone()).map(|text| text.to_vec()), Ok(b"packet".to_vec()));
            assert!(key.open([2; 12], &mut sealed.clone()).is_err());
            sealed[0] ^= 1;
            assert!(key.open([1; 12], &mut sealed).is_err());
            assert!(key.open([1; 12], &mut [0; TAG_LEN - 1]).is_err());
        }
    }
    #[test]
    #[cfg(feature = "null-cipher")]
    fn the_null_cipher_changes_no_byte_and_says_its_name() {
        for cipher in [TransportCipher::ChaCha20Poly1305, TransportCipher::Aes256Gcm] {
            assert_eq!(cipher.name(), "none");
            let key = TransportAead::new(cipher, &Secret::new([9; 32]));
            let mut sealed = b"packet".to_vec();
            let tag = key.seal([1; 12], &mut sealed);
            sealed.extend_from_slice(&tag);
            assert_eq!(sealed, b"packetp2plus no cipher");
            assert_eq!(key.open([2; 12], &mut sealed.clone()).map(|text| text.to_vec()), Ok(b"packet".to_vec()));
            sealed[6] ^= 1;
            assert!(key.open([2; 12], &mut sealed).is_err());
            assert!(key.open([1; 12], &mut [0; TAG_LEN - 1]).is_err());
        }
    }
}
