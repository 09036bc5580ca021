//! Bytes to types and back: untrusted bytes are parsed here, once.

pub mod codec;
pub mod control;
pub mod datagram;
pub mod dht;
pub mod drops;
pub mod ecn;
pub mod endpoint;
pub mod flow;
pub mod frame;
pub mod handshake;
pub mod http_connect;
pub mod icmp;
pub mod inner;
pub mod length_framing;
pub mod mss;
pub mod name;
pub mod neighbour;
pub mod offload;
pub mod payload;
pub mod port_mapping;
pub mod prefix;
pub mod record;
pub mod relay;
#[cfg(test)]
pub(crate) mod testing;
pub mod ticket;
pub mod transport_record;
pub mod upnp;
