//! One peer's ways: where it may be reached, which way is used, and when to look for another.
//!
//! Owns candidates, probes and the choice between them. Knows neither keys nor packets: `node` turns a probe id into a sealed
//! control record and reports what came back.
//!
//! ```text
//!   node record, ticket, cache ──► Candidates ──► handshake datagrams to the best of them, within the allowance of each
//!                                      │ answered
//!   authenticated from elsewhere ──► probe ──► pong ──► current path
//! ```

pub mod allowance;
pub mod candidate;
pub mod local;
pub mod mtu;
pub mod probe;
mod relayed;
pub mod select;
mod stream;
mod watch;

pub use candidate::{CandidateError, CandidateSource, Candidates, Surroundings, is_possible};
pub use local::{LocalEnd, Path, PathClass, SPARE_SOCKETS};
pub use mtu::PathMtu;
pub use probe::ProbeId;
pub use select::{PathCheck, Paths, Speech, Traffic};
