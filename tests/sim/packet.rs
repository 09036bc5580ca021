//! Inner packets as a device gives and takes them: UDP in IPv4 and IPv6.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use std::net::IpAddr;

/// A UDP packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UdpPacket {
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl UdpPacket {
    /// Builds the bytes of the packet.
    pub fn encode(&self) -> Vec<u8> {
        let builder = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                PacketBuilder::ipv6(source.octets(), destination.octets(), 64)
            }
            _ => panic!("source and destination are of one version"),
        };
        let mut bytes = Vec::new();
        builder.udp(7, 7).write(&mut bytes, &self.payload).unwrap();
        bytes
    }

    /// Reads a packet.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let sliced = SlicedPacket::from_ip(bytes).ok()?;
        let (source, destination) = match &sliced.net? {
            NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Arp(_) => return None,
        };
        let Some(TransportSlice::Udp(udp)) = sliced.transport else { return None };
        Some(Self { source, destination, payload: udp.payload().to_vec() })
    }
}
