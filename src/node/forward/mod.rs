//! The two hot routes, for any thread: packet out ([`Outgoing::seal`]) and packet in ([`Opening`]).
//!
//! Both read an immutable [`ForwardingTable`](super::table::ForwardingTable) and work in the buffers that the shell lent. A super-packet
//! leaves as chunks, small packets leave in bundles, and both come in as what the kernel takes at once. Whatever is not plain data is handed
//! on: a packet without a session is staged, everything that is not an inner packet goes to [`super::Node`].

mod bundle;
mod fragments;
#[cfg(test)]
mod frame_tests;
mod incoming;
mod links;
mod outgoing;
mod paid;
mod pressure;
mod sealing;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub(super) use links::{datagram_lengths, fits_any_link, measure_len};

pub use incoming::{Arrival, Delivery, Inbound, Incoming, Opening};
pub use outgoing::{DevicePacket, Outbound, Outgoing, each_whole};
pub use paid::Trust;
pub use sealing::Outbox;

use crate::crypto::aead;
use crate::wire::datagram::TRANSPORT_HEADER_LEN;
use crate::wire::transport_record::RECORD_HEADER_LEN;

/// Free bytes in front of a packet's record: the transport header and the record's kind.
pub const HEADROOM: usize = TRANSPORT_HEADER_LEN + RECORD_HEADER_LEN;

/// Free bytes behind a record: the tag.
pub const TAILROOM: usize = aead::TAG_LEN;
