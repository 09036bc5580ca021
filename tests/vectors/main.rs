//! Frozen and published bytes: the project's cryptography against other implementations and against its own past.
#![allow(clippy::unwrap_used)]

mod dht;
mod hybrid;
mod kem;
mod noise;
mod rfc;
mod stream;
mod wycheproof;
