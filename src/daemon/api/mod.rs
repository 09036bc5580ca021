//! The control API: HTTP/1.1 and JSON on a Unix socket, one per network.
//!
//! ```text
//! command ── HTTP ──► socket ──► access (who is it? SO_PEERCRED) ──► server ── Call ──► the node's thread
//!                                                                       ◄── Result<Response, Failure> ──┘
//! ```
//! `request` has the typed requests, `route` maps them to HTTP and back, for both ends; `types` are the documented JSON; `names`, `link` and `relays` have all of that for theirs. Knows nothing of the node: the
//! daemon takes [`server::Call`]s from a channel and answers each.

pub mod access;
pub mod link;
pub mod names;
pub mod policy;
pub mod reach;
pub mod relays;
pub mod request;
pub mod route;
pub mod routes;
pub mod server;
pub mod socket;
pub mod types;

/// The version in every envelope.
pub const API_VERSION: u32 = 1;
