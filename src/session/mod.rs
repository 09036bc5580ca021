//! One peer's keys in time: the handshake, the sessions it makes, and their end.
//!
//! ```text
//!   Initiator ──D1,D2a,D2b──►  Responder          both turn a Claim into an Admission by the Policy
//!       ▲──────M2a,M2b────────     │
//!       ▼                          ▼
//!   Established                Established
//!       ▼                          ▼
//!   PeerSessions: unconfirmed  PeerSessions: tentative ──D3──► confirmed ──► previous ──► retired
//! ```
//! Owns keys, counters, replay windows and deadlines. Refuses to know paths, routes and the ledger, opens no socket and reads no clock:
//! `docs/protocol.md` says the bytes, `docs/threats.md` says what is promised.

pub mod cookie;
mod drop_reason;
pub mod handshake;
pub mod index;
pub mod rekey;
pub mod replay;
pub mod seal;
#[cfg(test)]
pub(crate) mod testing;

pub use cookie::{Origin, Source};
pub use handshake::gate::{Gate, Knock};
pub use handshake::initiator::{Initiator, InitiatorStep, InitiatorTimer};
pub use handshake::responder::{Outcome, Responder};
pub use handshake::timestamps::TimestampSource;
pub use handshake::{Aim, Established, Local, LocalKeys, Refusal, Terms};
pub use index::{BySession, Indices};
pub use rekey::{Action, PeerSessions, RekeyReason};
pub use seal::{LaneSealer, Role, Scope, Session};
