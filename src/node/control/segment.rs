//! What the link reads of a TCP segment, from a peer or of its own making.

use super::LinkError;
use super::connection::{ConnectionKey, Opener};
use super::service::{LinkId, Service};
use crate::wire::inner::InnerPacket;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{TcpControl, TcpPacket, TcpRepr};
use std::net::{IpAddr, Ipv6Addr};

/// The IPv6 header; extension headers have no use on the link, so that none of their code is reached.
pub(super) const IPV6_HEADER_LEN: usize = 40;

/// The first port of those that open connections (RFC 6335 §6: dynamic ports).
pub(super) const FIRST_PORT: u16 = 49_152;

/// IANA's number of TCP.
const TCP: u8 = 6;

/// The headers of one segment, its checksum verified.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    source_port: u16,
    destination_port: u16,
    pub(super) control: TcpControl,
    /// The sequence numbers that it covers, from and below; a SYN and a FIN take one each.
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) ack: Option<u32>,
    pub(super) window: u16,
    /// What arrived beyond `ack` (RFC 2018), from and below.
    pub(super) sack: [Option<(u32, u32)>; 3],
}

impl Segment {
    /// Parses one IPv6 packet.
    pub(super) fn parse(packet: &[u8]) -> Result<Self, LinkError> {
        let inner = InnerPacket::parse(packet).map_err(|_| LinkError::Malformed)?;
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (inner.source, inner.destination) else {
            return Err(LinkError::Malformed);
        };
        if (inner.protocol, inner.payload_offset) != (TCP, IPV6_HEADER_LEN) {
            return Err(LinkError::Malformed);
        }
        let tcp = TcpPacket::new_checked(&packet[IPV6_HEADER_LEN..]).map_err(|_| LinkError::Malformed)?;
        let tcp = TcpRepr::parse(&tcp, &source.into(), &destination.into(), &ChecksumCapabilities::default())
            .map_err(|_| LinkError::Malformed)?;
        let start = tcp.seq_number.0 as u32;
        Ok(Self {
            source,
            destination,
            source_port: tcp.src_port,
            destination_port: tcp.dst_port,
            control: tcp.control,
            start,
            end: start.wrapping_add(tcp.segment_len() as u32),
            ack: tcp.ack_number.map(|ack| ack.0 as u32),
            window: tcp.window_len,
            sack: tcp.sack_ranges,
        })
    }

    /// Says whether it asks for a new connection.
    pub(super) fn opens(&self) -> bool {
        self.control == TcpControl::Syn && self.ack.is_none()
    }

    /// Names the connection of a segment that came from `peer`. Services have low ports and openers dynamic ones, so that the ports
    /// tell who opened it.
    pub(super) fn inbound_key(&self, peer: LinkId) -> Result<ConnectionKey, LinkError> {
        Self::key(peer, self.source_port, self.destination_port)
    }

    /// Names the connection of a segment that goes to `peer`.
    pub(super) fn outbound_key(&self, peer: LinkId) -> Result<ConnectionKey, LinkError> {
        Self::key(peer, self.destination_port, self.source_port)
    }

    fn key(peer: LinkId, remote_port: u16, local_port: u16) -> Result<ConnectionKey, LinkError> {
        let (opener, service_port, port) = match (remote_port >= FIRST_PORT, local_port >= FIRST_PORT) {
            (true, false) => (Opener::Remote, local_port, remote_port),
            (false, true) => (Opener::Local, remote_port, local_port),
            _ => return Err(LinkError::UnknownService),
        };
        let service = Service::from_port(service_port).ok_or(LinkError::UnknownService)?;
        Ok(ConnectionKey { peer, service, opener, port })
    }
}

/// Says whether a packet of our own making asks for an answer: acknowledgements and resets do not.
pub fn asks_for_answer(packet: &[u8]) -> bool {
    Segment::parse(packet).is_ok_and(|segment| segment.start != segment.end)
}

/// Reads where a packet of our own making goes.
pub(super) fn destination(packet: &[u8]) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    Some(octets.into())
}
