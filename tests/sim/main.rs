//! Whole machines in virtual time: an event heap, a seed, and the library's own code.

// Everything here is a test, also what stands outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod consensus;
