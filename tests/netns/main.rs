//! The operating system's side on the real kernel, in network namespaces: see [`lab`].

// A lab that cannot be built as asked is a failed test.
#![allow(clippy::unwrap_used)]

mod addresses;
mod admission;
mod cable;
mod caller;
mod capture;
mod carry;
mod damaged_store;
mod degraded;
mod device;
mod disorder;
mod flood;
mod forwarding;
mod fragments;
mod full_disk;
mod host;
mod host_names;
mod host_plan;
mod host_state;
mod hostile_datagrams;
mod image;
mod jumbo;
mod kernel;
mod lab;
mod leaks;
mod lossy;
mod membership;
mod multihomed;
mod names;
mod narrow;
mod network;
mod node;
mod offload;
mod overlap;
mod policy;
mod post_quantum;
mod pump;
mod reboot;
mod refused;
mod removal;
mod revocation;
mod roaming;
mod rows;
mod sigkill;
mod small_disk;
mod socket;
mod starting;
mod stream;
mod subnets;
mod tagging;
mod tap;
mod tickets;
mod udp;
mod unreachable;
