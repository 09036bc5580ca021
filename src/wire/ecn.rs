//! Congestion marks (RFC 3168), and how those of a packet and of the datagram around it become each other (RFC 6040).

/// What an IP header says of congestion: the low two bits of IPv4's type of service and of IPv6's traffic class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ecn {
    /// The transport knows no marks: congestion is told by loss.
    #[default]
    NotCapable = 0,
    /// The transport knows marks, ECT(1).
    Capable1 = 1,
    /// The transport knows marks, ECT(0).
    Capable0 = 2,
    /// A router on the way was congested, CE.
    Congested = 3,
}

impl Ecn {
    /// Reads the low two bits of a type of service or traffic class.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::NotCapable,
            1 => Self::Capable1,
            2 => Self::Capable0,
            _ => Self::Congested,
        }
    }

    /// Returns the two bits.
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// Reads the mark of an IP packet, which is at least its first two bytes.
    pub fn of(packet: &[u8]) -> Self {
        match packet {
            [first, second, ..] if first >> 4 == 6 => Self::from_bits(second >> 4),
            [_, second, ..] => Self::from_bits(*second),
            _ => Self::NotCapable,
        }
    }

    /// Returns what a packet is marked with that left as `self` and whose datagram came as `outer` (RFC 6040 §4.2); `None`: it is to be
    /// dropped, because its transport would not understand the mark.
    pub const fn received_in(self, outer: Self) -> Option<Self> {
        match (self, outer) {
            (Self::NotCapable, Self::Congested) => None,
            (Self::Capable0 | Self::Capable1, Self::Congested) => Some(Self::Congested),
            (Self::Capable0, Self::Capable1) => Some(Self::Capable1),
            _ => Some(self),
        }
    }

    /// Writes the mark into an IP packet's header, whose own checksum stays right.
    ///
    /// # Panics
    /// When `packet` is shorter than the header.
    pub fn write(self, packet: &mut [u8]) {
        if packet[0] >> 4 == 6 {
            packet[1] = packet[1] & !0x30 | self.bits() << 4;
            return;
        }
        let word = |packet: &[u8], at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let (before, checksum) = (word(packet, 0), word(packet, 10));
        packet[1] = packet[1] & !3 | self.bits();
        // RFC 1624, equation 3.
        let sum = u32::from(!checksum) + u32::from(!before) + u32::from(word(packet, 0));
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Ipv4Header, Ipv4HeaderSlice, PacketBuilder};

    const ALL: [Ecn; 4] = [Ecn::NotCapable, Ecn::Capable1, Ecn::Capable0, Ecn::Congested];

    #[test]
    fn a_mark_is_written_into_either_header_and_the_checksum_stays_right() {
        for (ecn, tos) in ALL.into_iter().flat_map(|ecn| [(ecn, 0), (ecn, 0xb8 | 3), (ecn, 0xff)]) {
            let mut v4 = Ipv4Header::new(100, 64, etherparse::IpNumber::UDP, [10, 64, 0, 1], [10, 64, 0, 2]).unwrap();
            v4.dscp = etherparse::IpDscp::try_new(tos >> 2).unwrap();
            v4.ecn = etherparse::IpEcn::try_new(tos & 3).unwrap();
            v4.header_checksum = v4.calc_header_checksum();
            let mut bytes = v4.to_bytes().to_vec();
            ecn.write(&mut bytes);
            let read = Ipv4HeaderSlice::from_slice(&bytes).unwrap().to_header();
            assert_eq!((Ecn::of(&bytes), read.dscp.value()), (ecn, tos >> 2));
            assert_eq!(read.header_checksum, read.calc_header_checksum(), "{ecn:?} {tos:#x}");

            let mut v6 = Vec::new();
            PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 64).udp(1, 2).write(&mut v6, b"").unwrap();
            v6[..2].copy_from_slice(&[0x60 | tos >> 4, tos << 4 | 5]);
            ecn.write(&mut v6);
            assert_eq!((Ecn::of(&v6), v6[0], v6[1] & !0x30), (ecn, 0x60 | tos >> 4, tos << 4 & !0x30 | 5));
        }
        assert_eq!(Ecn::of(&[0x45]), Ecn::NotCapable);
    }

    /// RFC 6040 figure 4, by row: the inner mark; by column: the outer one as not capable, ECT(0), ECT(1), CE.
    #[test]
    fn marks_come_out_as_the_standard_says() {
        let (not, ect0, ect1, ce) = (Ecn::NotCapable, Ecn::Capable0, Ecn::Capable1, Ecn::Congested);
        let rows = [
            (not, [Some(not), Some(not), Some(not), None]),
            (ect0, [Some(ect0), Some(ect0), Some(ect1), Some(ce)]),
            (ect1, [Some(ect1), Some(ect1), Some(ect1), Some(ce)]),
            (ce, [Some(ce); 4]),
        ];
        for (inner, expected) in rows {
            assert_eq!([not, ect0, ect1, ce].map(|outer| inner.received_in(outer)), expected, "{inner:?}");
        }
    }
}
