use super::stack::{IDLE_TIMEOUT, MAX_CONNECTIONS};
use super::testing::{RESOLVER, lab, v6};
use super::*;
use crate::node::packet_queue::{PacketQueue, to_smoltcp};
use etherparse::PacketBuilder;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::net::Ipv4Addr;
use std::time::Duration;

/// This node's own addresses, those of `ada`.
const OWN: [u8; 4] = [10, 77, 0, 2];
const START: Instant = Instant::from_micros(1_000_000_000);

/// A question for the addresses of `ada`, with the id 7.
const QUESTION: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03ada\x03lab\x08internal\0\0\x01\0\x01";
/// One for sixteen long texts.
const LONG: &[u8] = b"\0\x08\x01\0\0\x01\0\0\0\0\0\0\x04long\x03lab\x08internal\0\0\x10\0\x01";

fn resolver() -> Resolver {
    let addresses = AnswerSources { v4: Some(RESOLVER.into()), v6: Some(v6(0x53)) };
    let mut resolver = Resolver::new();
    let own = vec![IpAddr::from(OWN), v6(2).into()];
    resolver.set_zone(Arc::new(lab()), own, addresses, &mut ChaCha20Rng::seed_from_u64(1));
    resolver
}

fn udp_from(source: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(source, RESOLVER, 64).udp(40_000, 53).write(&mut packet, payload).unwrap();
    packet
}

fn udp_v6(payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv6(v6(2).octets(), v6(0x53).octets(), 64);
    builder.udp(40_000, 53).write(&mut packet, payload).unwrap();
    packet
}

/// All packets that come back, each with its description.
fn answers(resolver: &mut Resolver) -> Vec<(InnerPacket, Vec<u8>)> {
    let packets = std::iter::from_fn(|| resolver.poll_transmit());
    packets.map(|packet| (InnerPacket::parse(&packet).unwrap(), packet)).collect()
}

#[test]
fn a_question_of_this_host_is_answered_from_where_it_went_in_both_families() {
    let mut resolver = resolver();
    for (packet, source) in [(udp_from(OWN, QUESTION), IpAddr::from(RESOLVER)), (udp_v6(QUESTION), v6(0x53).into())] {
        assert_eq!(resolver.handle_packet(START, &packet), Ok(()));
        let [(inner, answer)] = &answers(&mut resolver)[..] else { panic!("one answer") };
        assert_eq!((inner.source, inner.protocol), (source, 17));
        let message = &answer[inner.payload_offset + 8..];
        assert_eq!((&message[..2], message[3] & 0xf, message[7]), (&QUESTION[..2], 0, 1));
    }
    assert_eq!(resolver.counters().answered, 2);
}

#[test]
fn whoever_is_not_this_host_gets_nothing() {
    let mut resolver = resolver();
    for stranger in [[10, 77, 0, 3], [192, 168, 1, 1], [127, 0, 0, 1], RESOLVER] {
        assert_eq!(resolver.handle_packet(START, &udp_from(stranger, QUESTION)), Err(DropReason::SourceNotOurs));
    }
    let mut elsewhere = Vec::new();
    PacketBuilder::ipv4(OWN, [10, 77, 0, 54], 64).udp(40_000, 53).write(&mut elsewhere, QUESTION).unwrap();
    assert_eq!(resolver.handle_packet(START, &elsewhere), Err(DropReason::NoRoute));
    assert_eq!(answers(&mut resolver).len(), 0);
}

#[test]
fn a_ping_is_answered_and_another_port_is_said_to_be_closed() {
    let mut resolver = resolver();
    let mut ping = Vec::new();
    PacketBuilder::ipv4(OWN, RESOLVER, 64).icmpv4_echo_request(3, 4).write(&mut ping, b"payload").unwrap();
    assert_eq!(resolver.handle_packet(START, &ping), Ok(()));
    let mut ping = Vec::new();
    PacketBuilder::ipv6(v6(2).octets(), v6(0x53).octets(), 64)
        .icmpv6_echo_request(3, 4)
        .write(&mut ping, b"payload")
        .unwrap();
    assert_eq!(resolver.handle_packet(START, &ping), Ok(()));
    let mut other = Vec::new();
    PacketBuilder::ipv4(OWN, RESOLVER, 64).udp(40_000, 54).write(&mut other, b"?").unwrap();
    assert_eq!(resolver.handle_packet(START, &other), Ok(()));
    let types: Vec<_> =
        answers(&mut resolver).iter().map(|(inner, it)| (inner.protocol, it[inner.payload_offset])).collect();
    assert_eq!(types, [(1, 0), (58, 129), (1, 3)]);
}

#[test]
fn what_cannot_be_answered_is_dropped_by_its_name() {
    let mut resolver = resolver();
    let mut response = QUESTION.to_vec();
    response[2] |= 0x80;
    for (payload, name) in [(response, "a response"), (vec![0; 5], "too short"), (vec![0; 1300], "too long")] {
        let outcome = resolver.handle_packet(START, &udp_from(OWN, &payload));
        assert_eq!((outcome, name), (Err(DropReason::MalformedQuery), name));
    }
    let mut fragment = udp_from(OWN, QUESTION);
    fragment[6] = 0x20;
    assert_eq!(resolver.handle_packet(START, &fragment), Err(DropReason::MalformedQuery));
    assert_eq!(resolver.handle_packet(START, &fragment[..19]), Err(DropReason::MalformedPacket));
    assert_eq!((answers(&mut resolver).len(), resolver.counters().unanswerable), (0, 3));
    assert_eq!(resolver.handle_packet(START, &udp_from(OWN, QUESTION)), Ok(()));
}

#[test]
fn a_resolver_without_a_zone_answers_nobody() {
    let packet = udp_from(OWN, QUESTION);
    assert_eq!(Resolver::new().handle_packet(START, &packet), Err(DropReason::NoRoute));
    assert_eq!(Resolver::new().poll_timeout(), None);
}

/// A program on this host: TCP sockets at the own address, whose packets go to the resolver and back.
struct Host {
    resolver: Resolver,
    interface: Interface,
    device: PacketQueue,
    sockets: SocketSet<'static>,
    now: Instant,
    port: u16,
}

impl Host {
    fn new() -> Self {
        let mut device = PacketQueue::new(1400);
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut device, to_smoltcp(START));
        interface.update_ip_addrs(|list| list.push(IpCidr::new(Ipv4Addr::from(OWN).into(), 32)).unwrap());
        let sockets = SocketSet::new(Vec::new());
        Self { resolver: resolver(), interface, device, sockets, now: START, port: 40_000 }
    }

    /// Opens a connection that reads `window` bytes ahead.
    fn connect(&mut self, window: usize) -> SocketHandle {
        let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
        let handle = self.sockets.add(tcp::Socket::new(buffer(window), buffer(4096)));
        self.port += 1;
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.connect(self.interface.context(), (Ipv4Addr::from(RESOLVER), 53), self.port).unwrap();
        self.exchange();
        handle
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut::<tcp::Socket<'_>>(handle)
    }

    /// Carries packets both ways until there are none.
    fn exchange(&mut self) {
        loop {
            while self.interface.poll_egress(to_smoltcp(self.now), &mut self.device, &mut self.sockets)
                != PollResult::None
            {}
            let mut is_still = true;
            while let Some(packet) = self.device.pop() {
                let outcome = self.resolver.handle_packet(self.now, &packet);
                assert!(matches!(outcome, Ok(()) | Err(DropReason::MalformedQuery)), "{outcome:?}");
                is_still = false;
            }
            while let Some(packet) = self.resolver.poll_transmit() {
                self.device.put(&packet);
                self.interface.poll_ingress_single(to_smoltcp(self.now), &mut self.device, &mut self.sockets);
                is_still = false;
            }
            if is_still {
                return;
            }
        }
    }

    fn send(&mut self, handle: SocketHandle, bytes: &[u8]) {
        assert_eq!(self.socket(handle).send_slice(bytes), Ok(bytes.len()));
        self.exchange();
    }

    /// Lets time pass, with all that is due in it.
    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.resolver.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.resolver.handle_timeout(self.now);
            self.exchange();
        }
        self.now = end;
        self.exchange();
    }

    /// Reads all messages that came.
    fn read(&mut self, handle: SocketHandle) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let taken = self.socket(handle).recv(|part| {
                bytes.extend_from_slice(part);
                (part.len(), part.len())
            });
            self.exchange();
            if !matches!(taken, Ok(1..)) {
                break;
            }
        }
        let mut messages = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some((len, behind)) = rest.split_first_chunk::<2>() {
            let (message, behind) = behind.split_at(usize::from(u16::from_be_bytes(*len)));
            messages.push(message.to_vec());
            rest = behind;
        }
        messages
    }

    fn is_open(&mut self, handle: SocketHandle) -> bool {
        self.socket(handle).state() == tcp::State::Established
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [u16::try_from(message.len()).unwrap().to_be_bytes().as_slice(), message].concat()
}

#[test]
fn questions_over_tcp_are_answered_in_their_order_however_they_are_cut() {
    let mut host = Host::new();
    let handle = host.connect(65_535);
    let both = [framed(LONG), framed(QUESTION)].concat();
    for piece in both.chunks(7) {
        host.send(handle, piece);
    }
    let messages = host.read(handle);
    assert_eq!(messages.iter().map(|message| message[1]).collect::<Vec<_>>(), [8, 7]);
    assert!(messages[0].len() > 16_000 && messages[0][7] == 16, "all sixteen texts came");
    host.socket(handle).close();
    host.exchange();
    assert!(!host.socket(handle).is_active());
    assert_eq!(host.resolver.counters().ended_connections, 0);
}

#[test]
fn a_reader_that_takes_little_at_a_time_gets_all_of_a_long_answer() {
    let mut host = Host::new();
    let handle = host.connect(600);
    host.send(handle, &framed(LONG));
    let messages = host.read(handle);
    assert_eq!((messages.len(), messages[0][7]), (1, 16));
}

#[test]
fn a_query_that_is_too_long_or_none_ends_its_connection() {
    for bytes in [vec![0xff, 0xff], vec![0, 0], framed(&[0; 5]), framed(&[&QUESTION[..2], &[0x80; 20]].concat())] {
        let mut host = Host::new();
        let handle = host.connect(4096);
        host.send(handle, &bytes);
        assert!(!host.is_open(handle), "{bytes:?}");
        assert_eq!(host.resolver.counters().ended_connections, 1);
    }
}

#[test]
fn connections_that_idle_are_ended_and_those_that_ask_stay() {
    let mut host = Host::new();
    let (idle, busy) = (host.connect(4096), host.connect(4096));
    host.wait(IDLE_TIMEOUT - Duration::from_secs(1));
    host.send(busy, &framed(QUESTION));
    host.wait(Duration::from_secs(2));
    assert!(!host.is_open(idle) && host.is_open(busy));
    assert_eq!(host.read(busy).len(), 1);
}

#[test]
fn whoever_opens_many_connections_loses_the_oldest_and_keeps_nobody_out() {
    let mut host = Host::new();
    let hoard: Vec<_> = (0..100)
        .map(|_| {
            host.wait(Duration::from_millis(1));
            host.connect(512)
        })
        .collect();
    assert_eq!(hoard.iter().filter(|handle| host.is_open(**handle)).count(), MAX_CONNECTIONS - 1);
    assert!(!host.is_open(hoard[0]) && host.is_open(hoard[99]));
    let handle = host.connect(4096);
    host.send(handle, &framed(QUESTION));
    assert_eq!(host.read(handle).len(), 1);
    let fresh = host.connect(4096);
    for _ in 0..3 {
        host.send(fresh, &framed(QUESTION));
        assert_eq!(host.read(fresh).len(), 1, "one connection takes any number of questions");
    }
}

#[test]
fn a_reader_that_reads_nothing_is_ended_and_holds_one_answer_at_most() {
    let mut host = Host::new();
    let handle = host.connect(600);
    for _ in 0..20 {
        let _ = host.socket(handle).send_slice(&framed(LONG));
        host.exchange();
    }
    let answered = host.resolver.counters().answered;
    assert!(answered <= 2, "{answered} answers were made for who reads none");
    host.wait(IDLE_TIMEOUT * 2);
    assert!(!host.is_open(handle));
}
