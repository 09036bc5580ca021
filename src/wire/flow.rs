//! To which conversation an inner packet belongs, read once from untrusted bytes.
//!
//! Owns the ports of TCP, UDP and their kin, the identifier of an echo, and the packet that an ICMP error speaks of. Knows nothing of what
//! may pass.

use super::inner::{Fragment, InnerPacket};
use etherparse::{
    Icmpv4Slice, Icmpv4Type, Icmpv6Slice, Icmpv6Type, IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, ip_number,
};
use std::net::IpAddr;

/// Protocols whose header begins with the source port and the destination port: TCP, UDP, DCCP (RFC 4340), SCTP (RFC 9260), UDP-Lite (RFC 3828).
const WITH_PORTS: [IpNumber; 5] =
    [ip_number::TCP, ip_number::UDP, ip_number::DCCP, ip_number::SCTP, ip_number::UDP_LITE];
/// Where TCP keeps its flags (RFC 9293 §3.1).
const TCP_FLAGS_AT: usize = 13;
const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;
/// The bytes of TCP's header without options: a first fragment that has fewer hides its flags (RFC 1858).
const TCP_HEADER_LEN: usize = 20;

/// One direction of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Flow {
    /// Who sends.
    pub source: IpAddr,
    /// Who receives.
    pub destination: IpAddr,
    /// The protocol above IP (IANA number).
    pub protocol: u8,
    /// The sender's port; 0 where there is none; the identifier of an echo.
    pub source_port: u16,
    /// The receiver's port; 0 where there is none; the identifier of an echo.
    pub destination_port: u16,
}

/// What a packet does to its conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// It may be the first one; of TCP it is.
    Opens,
    /// It answers the first one of a TCP connection: SYN with ACK.
    Accepts,
    /// It goes on: a TCP segment that acknowledges, or the answer to an echo.
    Continues,
    /// It ends a TCP connection, or one half of it.
    Ends,
}

/// The packet of which a packet is a fragment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fragmented {
    /// Who sends.
    pub source: IpAddr,
    /// Who receives.
    pub destination: IpAddr,
    /// The protocol above IP, in every fragment alike.
    pub protocol: u8,
    /// What the sender gave all fragments of the packet.
    pub identification: u32,
}

/// What a packet is to the filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// A packet of a conversation; with fragments of it to follow, when there is one more thing to remember.
    Packet(Flow, Signal, Option<Fragmented>),
    /// An ICMP error about a packet of this conversation, as that was sent.
    Error(Flow),
    /// A later fragment, which shows no ports.
    Fragment(Fragmented),
    /// So short, or cut in such a way, that its ports or flags cannot be seen: nobody honest sends it.
    Hidden,
}

impl Flow {
    /// The other direction.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }

    /// The port at which the receiver is spoken to, where the protocol has such ports.
    pub fn port(&self) -> Option<u16> {
        WITH_PORTS.contains(&IpNumber(self.protocol)).then_some(self.destination_port)
    }
}

impl Content {
    /// Looks above IP in a packet, or in the headers of one that is cut behind them.
    pub fn of(packet: &InnerPacket, bytes: &[u8]) -> Self {
        let fragmented = |identification| Fragmented {
            source: packet.source,
            destination: packet.destination,
            protocol: packet.protocol,
            identification,
        };
        match packet.fragment {
            Fragment::Later(identification) => Self::Fragment(fragmented(identification)),
            Fragment::First(identification) => Self::above(packet, bytes, Some(fragmented(identification))),
            Fragment::Whole => Self::above(packet, bytes, None),
        }
    }

    fn above(packet: &InnerPacket, bytes: &[u8], fragmented: Option<Fragmented>) -> Self {
        let above = bytes.get(packet.payload_offset..).unwrap_or_default();
        let flow = |source_port, destination_port| Flow {
            source: packet.source,
            destination: packet.destination,
            protocol: packet.protocol,
            source_port,
            destination_port,
        };
        match IpNumber(packet.protocol) {
            ip_number::ICMP if packet.source.is_ipv4() => match icmpv4(above) {
                Some(Icmp::Echo(id, signal)) => Self::Packet(flow(id, id), signal, fragmented),
                Some(Icmp::Other) => Self::Packet(flow(0, 0), Signal::Opens, fragmented),
                Some(Icmp::Error(about)) => about.map_or(Self::Hidden, Self::Error),
                None => Self::Hidden,
            },
            ip_number::IPV6_ICMP if packet.source.is_ipv6() => match icmpv6(above) {
                Some(Icmp::Echo(id, signal)) => Self::Packet(flow(id, id), signal, fragmented),
                Some(Icmp::Other) => Self::Packet(flow(0, 0), Signal::Opens, fragmented),
                Some(Icmp::Error(about)) => about.map_or(Self::Hidden, Self::Error),
                None => Self::Hidden,
            },
            protocol if WITH_PORTS.contains(&protocol) => {
                let Some([source_port, destination_port]) = ports(above) else { return Self::Hidden };
                let signal = match protocol {
                    ip_number::TCP if above.len() < TCP_HEADER_LEN => return Self::Hidden,
                    ip_number::TCP => tcp_signal(above[TCP_FLAGS_AT]),
                    _ => Signal::Opens,
                };
                Self::Packet(flow(source_port, destination_port), signal, fragmented)
            }
            _ => Self::Packet(flow(0, 0), Signal::Opens, fragmented),
        }
    }
}

/// The first four bytes of a header as two ports.
fn ports(header: &[u8]) -> Option<[u16; 2]> {
    let [a, b, c, d] = *header.first_chunk()?;
    Some([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])])
}

fn tcp_signal(flags: u8) -> Signal {
    if flags & (TCP_FIN | TCP_RST) != 0 {
        Signal::Ends
    } else {
        match (flags & TCP_SYN != 0, flags & TCP_ACK != 0) {
            (true, true) => Signal::Accepts,
            (false, true) => Signal::Continues,
            (_, false) => Signal::Opens,
        }
    }
}

/// What an ICMP message is about.
enum Icmp {
    /// An echo with this identifier.
    Echo(u16, Signal),
    /// A packet that came to grief; none where too little of it is there.
    Error(Option<Flow>),
    /// Anything else.
    Other,
}

fn icmpv4(message: &[u8]) -> Option<Icmp> {
    let icmp = Icmpv4Slice::from_slice(message).ok()?;
    Some(match icmp.icmp_type() {
        Icmpv4Type::EchoRequest(echo) => Icmp::Echo(echo.id, Signal::Opens),
        Icmpv4Type::EchoReply(echo) => Icmp::Echo(echo.id, Signal::Continues),
        Icmpv4Type::DestinationUnreachable(_) | Icmpv4Type::TimeExceeded(_) | Icmpv4Type::ParameterProblem(_) => {
            Icmp::Error(quoted_v4(icmp.payload()))
        }
        // Nobody beyond the link may say where else to send (RFC 1812 §5.2.7.2), nor quench anybody (RFC 6633).
        _ => Icmp::Other,
    })
}

fn icmpv6(message: &[u8]) -> Option<Icmp> {
    let icmp = Icmpv6Slice::from_slice(message).ok()?;
    Some(match icmp.icmp_type() {
        Icmpv6Type::EchoRequest(echo) => Icmp::Echo(echo.id, Signal::Opens),
        Icmpv6Type::EchoReply(echo) => Icmp::Echo(echo.id, Signal::Continues),
        Icmpv6Type::DestinationUnreachable(_)
        | Icmpv6Type::PacketTooBig { .. }
        | Icmpv6Type::TimeExceeded(_)
        | Icmpv6Type::ParameterProblem(_) => Icmp::Error(quoted_v6(icmp.payload())),
        _ => Icmp::Other,
    })
}

/// The flow of the packet whose beginning an error quotes: its IP header and at least eight bytes more (RFC 792).
fn quoted_v4(quoted: &[u8]) -> Option<Flow> {
    let header = Ipv4HeaderSlice::from_slice(quoted).ok()?;
    if header.fragments_offset().value() != 0 {
        return None;
    }
    let above = &quoted[header.slice().len()..];
    let ends = [header.source_addr(), header.destination_addr()].map(IpAddr::V4);
    quoted_flow(ends, header.protocol(), above)
}

/// The same of IPv6, where the error quotes as much as it may. Behind extension headers it is not looked for.
fn quoted_v6(quoted: &[u8]) -> Option<Flow> {
    let header = Ipv6HeaderSlice::from_slice(quoted).ok()?;
    let above = &quoted[header.slice().len()..];
    let ends = [header.source_addr(), header.destination_addr()].map(IpAddr::V6);
    quoted_flow(ends, header.next_header(), above)
}

fn quoted_flow([source, destination]: [IpAddr; 2], protocol: IpNumber, above: &[u8]) -> Option<Flow> {
    let [source_port, destination_port] = match protocol {
        // The identifier stands behind type, code and checksum in both versions.
        ip_number::ICMP | ip_number::IPV6_ICMP => match ports(above.get(4..)?)? {
            [id, _] if is_echo(protocol, above[0]) => [id, id],
            _ => [0, 0],
        },
        protocol if WITH_PORTS.contains(&protocol) => ports(above)?,
        _ => [0, 0],
    };
    Some(Flow { source, destination, protocol: protocol.0, source_port, destination_port })
}

/// Says whether a message type is an echo request (RFC 792, RFC 4443): errors are told to who asked.
fn is_echo(protocol: IpNumber, message_type: u8) -> bool {
    message_type == if protocol == ip_number::ICMP { 8 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    fn content(bytes: &[u8]) -> Content {
        Content::of(&InnerPacket::parse(bytes).unwrap(), bytes)
    }

    fn v4() -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        PacketBuilder::ipv4([10, 64, 0, 1], [10, 64, 0, 2], 64)
    }

    fn v6() -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        let address = |last| std::array::from_fn(|at| [0xfd, last][usize::from(at == 15)]);
        PacketBuilder::ipv6(address(1), address(2), 64)
    }

    macro_rules! packet {
        ($builder:expr) => {
            packet!($builder, &[])
        };
        ($builder:expr, $payload:expr) => {{
            let mut bytes = Vec::new();
            $builder.write(&mut bytes, $payload).unwrap();
            bytes
        }};
    }

    fn flow(bytes: &[u8]) -> (Flow, Signal) {
        match content(bytes) {
            Content::Packet(flow, signal, None) => (flow, signal),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ports_and_flags_are_read_and_a_flow_has_two_directions() {
        let (udp, signal) = flow(&packet!(v4().udp(1000, 53), &[1]));
        assert_eq!((udp.source_port, udp.destination_port, udp.port(), signal), (1000, 53, Some(53), Signal::Opens));
        assert_eq!((udp.reversed().source, udp.reversed().source_port), (udp.destination, 53));
        assert_eq!(udp.reversed().reversed(), udp);
        let signal = |bytes: Vec<u8>| flow(&bytes).1;
        assert_eq!(signal(packet!(v6().tcp(1000, 22, 0, 100).syn())), Signal::Opens);
        assert_eq!(signal(packet!(v6().tcp(1000, 22, 0, 100).syn().ack(1))), Signal::Accepts);
        assert_eq!(signal(packet!(v6().tcp(1000, 22, 0, 100).ack(1))), Signal::Continues);
        assert_eq!(signal(packet!(v6().tcp(1000, 22, 0, 100).fin().ack(1))), Signal::Ends);
        assert_eq!(signal(packet!(v6().tcp(1000, 22, 0, 100).rst())), Signal::Ends);
        let (gre, _) = flow(&{
            let mut bytes = packet!(v4().udp(1, 2), &[0; 8]);
            bytes[9] = 47;
            bytes
        });
        assert_eq!((gre.protocol, gre.source_port, gre.port()), (47, 0, None));
    }

    #[test]
    fn an_echo_and_its_answer_are_one_conversation() {
        let asked = flow(&packet!(v4().icmpv4_echo_request(7, 1), &[1]));
        let told = flow(&packet!(v4().icmpv4_echo_reply(7, 1), &[1]));
        assert_eq!((asked.0, asked.1, told.1), (told.0, Signal::Opens, Signal::Continues));
        let asked = flow(&packet!(v6().icmpv6_echo_request(7, 1), &[1]));
        assert_eq!((asked.0.source_port, asked.0.destination_port, asked.0.port()), (7, 7, None));
    }

    #[test]
    fn an_error_speaks_of_the_packet_that_it_quotes() {
        for (about, is_v4) in [
            (packet!(v4().udp(1000, 53), &[1]), true),
            (packet!(v4().tcp(1000, 53, 0, 0)), true),
            (packet!(v4().icmpv4_echo_request(7, 1)), true),
            (packet!(v6().udp(1000, 53), &[1]), false),
            (packet!(v6().icmpv6_echo_request(7, 1)), false),
        ] {
            let quoted = &about[..about.len().min(if is_v4 { 28 } else { 48 })];
            let error = if is_v4 {
                packet!(v4().icmpv4_raw(3, 1, [0; 4]), quoted)
            } else {
                packet!(v6().icmpv6_raw(1, 0, [0; 4]), quoted)
            };
            assert_eq!(content(&error), Content::Error(flow(&about).0));
        }
        assert_eq!(content(&packet!(v4().icmpv4_raw(3, 1, [0; 4]), &[0x45; 24])), Content::Hidden);
        // A redirect and a router's advertisement are no errors: rules decide.
        assert!(matches!(content(&packet!(v4().icmpv4_raw(5, 1, [0; 4]), &[0x45; 28])), Content::Packet(..)));
        assert!(matches!(content(&packet!(v6().icmpv6_raw(134, 0, [0; 4]), &[0; 28])), Content::Packet(..)));
    }

    #[test]
    fn fragments_are_known_by_what_their_sender_gave_them_all() {
        let mut first = packet!(v4().udp(1000, 53), &[0; 24]);
        first[4..8].copy_from_slice(&[0x12, 0x34, 0x20, 0]);
        let Content::Packet(flow, _, Some(fragmented)) = content(&first) else { panic!("{:?}", content(&first)) };
        assert_eq!((flow.destination_port, fragmented.identification), (53, 0x1234));
        let mut later = first.clone();
        later[6..8].copy_from_slice(&[0, 3]);
        assert_eq!(content(&later), Content::Fragment(fragmented));
    }

    #[test]
    fn what_hides_its_ports_or_flags_is_named_so() {
        for (protocol, len, is_hidden) in [(17, 3, true), (17, 4, false), (6, 19, true), (6, 20, false), (1, 7, true)] {
            let mut bytes = packet!(v4().udp(1, 2), &[0; 12])[..20 + len].to_vec();
            bytes[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
            bytes[9] = protocol;
            assert_eq!(content(&bytes) == Content::Hidden, is_hidden, "{protocol} {len}");
        }
    }

    #[test]
    fn no_bytes_panic() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let seeds = [
            packet!(v4().udp(1, 2), &[0; 40]),
            packet!(v6().icmpv6_raw(1, 0, [0; 4]), &packet!(v6().udp(1, 2), &[0; 9])),
            packet!(v4().icmpv4_raw(11, 0, [0; 4]), &packet!(v4().tcp(1, 2, 0, 0))),
        ];
        let mut parsed = 0;
        for seed in &seeds {
            for _ in 0..20_000 {
                let mut bytes = seed.clone();
                for _ in 0..1 + rng.next_u32() % 4 {
                    let at = rng.next_u32() as usize % bytes.len();
                    bytes[at] = rng.next_u32() as u8;
                }
                if let Ok(packet) = InnerPacket::parse(&bytes) {
                    let whole = Content::of(&packet, &bytes);
                    parsed += usize::from(whole != Content::Hidden);
                    Content::of(&packet, &bytes[..rng.next_u32() as usize % bytes.len()]);
                }
            }
        }
        assert!(parsed > 10_000, "{parsed}");
    }
}
