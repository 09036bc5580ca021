//! P2Plus, a mesh VPN with no coordination server: the replicated, signed ledger is the control plane.

pub mod cli;
pub mod crypto;
pub mod daemon;
pub mod io;
pub mod ledger;
pub mod node;
pub mod path;
pub mod policy;
pub mod router;
pub mod session;
pub mod time;
pub mod wire;
