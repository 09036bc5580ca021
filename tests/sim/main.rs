//! Whole machines in virtual time: an event heap, a seed, and the library's own code.

// Everything here is a test, also what stands outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod allocations;
mod asking;
mod consensus;
mod crashing;
mod crowd;
mod dht;
mod falling_back;
mod history;
mod hostile_member;
mod hostile_outsider;
mod idle;
mod joining;
mod machine;
mod moving;
mod nat;
mod neighbours;
mod overlay;
mod packet;
mod rekeying;
mod relaying;
mod restarting;
mod revoking;
mod scale;
mod searching;
mod secrecy;
mod spares;
mod spreading;
mod streams;
mod subnets;
mod validators;
mod world;
