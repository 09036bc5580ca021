//! P2Plus, a mesh VPN with no coordination server: the replicated, signed ledger is the control plane.
//!
//! ```text
//!         applications (mail, chat, web …)
//!                  │  IP packets
//!         ┌────────▼─────────┐
//!  io     │      device      │  TUN
//!         └────────┬─────────┘
//!   ┌──────────────▼──────────────────────────────────────────┐
//!   │     router    which peer owns this destination?         │
//!   │        │                                    ┌──────────┐│
//!   │        ▼                                    │  policy  ││ ◄── ledger   blocks, consensus:
//!   │     session   seal / open, handshake  ◄─────│ may they?││               who belongs, what may they
//!   │        │                                    └──────────┘│
//!   │        ▼                                                │
//!   │     path      which endpoint reaches them?              │
//!   └──────────────┬──────────────────────────────────── node ┘
//!         ┌────────▼─────────┐
//!  io     │    transport     │  UDP
//!         └──────────────────┘
//! ```
//!
//! Three routes, by function name:
//! - **Packet out**: [`io::device::Device::read`] → [`node::forward::Outgoing::seal`] { parse, route, cut, seal in the [`node::forward::Outbox`] } →
//!   [`io::udp::UdpSender::send_each`]. Without a session yet: staged, a handshake begins.
//! - **Packet in**: [`io::udp::UdpReceiver::receive_batch`] → [`node::forward::Opening::open`] { parse, session by index, replay check,
//!   open, mark, source allowed?, join } → [`io::device::Device::write_parts`]. Everything that is not data goes to [`node::Node`].
//! - **Right**: `p2plus revoke X` → [`node::Node::revoke`] → [`ledger::Ledger::submit`] (a revocation acts here) → gossip → block →
//!   [`ledger::Ledger::policy`] → [`policy::PolicyDiff`] → sessions closed, a new [`node::table::ForwardingTable`] published.
//!
//! `docs/architecture.md` has the rooms and who may import whom.

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
