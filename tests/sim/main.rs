//! Whole machines in virtual time: an event heap, a seed, and the library's own code.

// Everything here is a test, also what stands outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod consensus;
mod joining;
mod machine;
mod overlay;
mod packet;
mod restarting;
mod revoking;
mod world;
