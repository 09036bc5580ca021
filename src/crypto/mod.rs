//! Keys and primitives: the only home of the crypto crates.
//!
//! Owns what a key is, how it is compared, zeroized and used. Knows nothing of packets, peers or time; randomness is an argument.

pub mod aead;
pub(crate) mod effort;
pub mod exchange;
pub mod hash;
pub mod identity;
pub mod secret;
pub mod words;
