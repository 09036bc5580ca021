//! The operating system: descriptors, clocks, netlink, files. The only home of `unsafe`.
//!
//! Owns how bytes reach and leave this machine. Refuses to know what they mean: packets here are byte strings with a place to come
//! from or go to. Everything that waits takes a [`StopSignal`], so that a thread ends when the daemon says so, and in no other way.
//!
//! ```text
//!   Device::read ──► PacketBuffer ──► (Outgoing::seal) ──► SendBatch ──► UdpSender::send_each
//!   Device::write_parts ◄────────── (forward::Opening::open) ◄── DatagramBatch ◄── UdpReceiver::receive_batch
//! ```

pub mod batch;
pub mod bridge;
pub mod clock;
pub mod device;
pub mod device_name;
pub mod dht;
pub mod durable;
pub mod host;
pub mod host_dns;
pub mod key_file;
pub mod keystore;
pub mod lan;
pub mod ledger_files;
pub mod lock;
mod netlink;
pub mod network;
pub mod policy_routing;
pub mod port_map;
pub mod process;
pub mod sender;
pub mod stop;
pub mod tls;
pub mod udp;
pub mod watch;

pub use stop::StopSignal;
