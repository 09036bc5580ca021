//! The two hot routes, for any thread: packet out ([`seal`]) and packet in ([`open`]).
//!
//! Both read an immutable [`ForwardingTable`](super::table::ForwardingTable) and work in the buffers that the shell lent. A super-packet
//! leaves as chunks, and comes in as [`Runs`] of them. Whatever is not plain data is handed on: a packet without a session is staged,
//! everything that is not an inner packet goes to [`super::Node`].

mod incoming;
mod links;
mod outgoing;
mod paid;
#[cfg(test)]
mod testing;

pub use incoming::{Inbound, Incoming, Runs, open};
pub use outgoing::{DevicePacket, Outbound, Outbox, Outgoing, each_whole, seal};
pub use paid::Trust;

use crate::crypto::aead;
use crate::wire::data;

/// Free bytes in front of a packet's record: the transport header and the record's kind.
pub const HEADROOM: usize = data::TRANSPORT_HEADER_LEN + data::RECORD_HEADER_LEN;

/// Free bytes behind a record: the tag.
pub const TAILROOM: usize = aead::TAG_LEN;
