//! Inner packets for tests, as the kernel gives them.

use super::offload::{PartialChecksum, PlainHeaders};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

/// Begins a packet from 10.64.0.1 to 10.64.0.2, or between two addresses of IPv6.
pub(crate) fn ip(is_ipv6: bool) -> PacketBuilderStep<IpHeaders> {
    if is_ipv6 {
        PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 64)
    } else {
        PacketBuilder::ipv4([10, 64, 0, 1], [10, 64, 0, 2], 64)
    }
}

/// Makes of a packet with all checksums one whose transport checksum is left to the device: there is the sum of the pseudo-header instead.
pub(crate) fn leave_checksum(packet: &mut [u8]) -> PartialChecksum {
    let plain = PlainHeaders::parse(packet).expect("plain headers");
    let (headers, payload) = packet.split_at_mut(plain.header_len());
    plain.set_payload_len(headers, payload.len());
    plain.checksum()
}
