//! A real TUN interface.

use crate::lab::{Host, Lab, eventually, stop_after};
use crate::socket::set_option;
use p2plus::io::StopSignal;
use p2plus::io::batch::PacketBuffer;
use p2plus::io::device::{Device, DeviceError, ReadEnd, TunConfig, WriteError};
use p2plus::io::network::{MAIN_TABLE, Network, Route};
use p2plus::wire::offload::{PlainHeaders, SegmentKind, VnetHeader};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// The overlay address of the host and one that is nobody's.
pub const OWN: [u8; 4] = [10, 64, 0, 1];
pub const OTHER: [u8; 4] = [10, 64, 0, 2];

/// How long anything here may take.
const WAIT: Duration = Duration::from_secs(20);

pub fn config(name: &str) -> TunConfig {
    TunConfig { name: name.to_owned(), mtu: 1420, queues: 1, offload: true }
}

/// Opens a TUN in the host, up, with [`OWN`] and a route to its subnet of 24 bits.
pub fn open_up(host: &Host, name: &str) -> Device {
    host.run(|| {
        let device = Device::open(&config(name)).unwrap();
        let mut network = Network::open().unwrap();
        network.add_address(device.index().unwrap(), IpAddr::from(OWN), 24).unwrap();
        network.set_up(device.index().unwrap(), 1420, 500).unwrap();
        let destination = IpAddr::from([10, 64, 0, 0]);
        let (interface, table) = (device.index(), MAIN_TABLE);
        let route = Route { destination, prefix_len: 24, gateway: None, interface, table, metric: 0 };
        network.add_route(&route).unwrap();
        device
    })
}

/// An IPv4 packet with a UDP datagram; UDP's checksum is left out, as IPv4 permits (RFC 768).
pub fn udp_packet(source: ([u8; 4], u16), destination: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(8 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0];
    packet[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
    packet.extend(source.0);
    packet.extend(destination.0);
    let sum: u32 = packet.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend([source.1, destination.1, udp_len, 0].iter().flat_map(|field| field.to_be_bytes()));
    packet.extend(payload);
    packet
}

/// What is left of a packet from [`OWN`] to [`OTHER`] on `port`: its payload.
pub fn payload_to_other(packet: &[u8], port: u16) -> Option<&[u8]> {
    let is_it = packet.len() >= 28 && packet[0] == 0x45 && packet[9] == 17 && packet[16..20] == OTHER;
    (is_it && packet[22..24] == port.to_be_bytes()).then(|| &packet[28..])
}

#[test]
fn packets_written_arrive_at_the_hosts_sockets_and_theirs_are_read() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("host");
    let device = open_up(&host, "p2p-test");
    let socket = host.run(|| UdpSocket::bind((IpAddr::from(OWN), 5000)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();

    device.write(&udp_packet((OTHER, 6000), (OWN, 5000), b"inbound")).unwrap();
    let mut buffer = [0; 100];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (b"inbound".as_slice(), SocketAddr::from((OTHER, 6000))));

    for payload in [b"first".as_slice(), b"second"] {
        socket.send_to(payload, (IpAddr::from(OTHER), 6000)).unwrap();
    }
    let (stop, mut buffer) = (stop_after(WAIT), PacketBuffer::default());
    let mut seen = Vec::new();
    while seen.len() < 2 {
        device.wait(&stop).unwrap();
        while device.read(&stop, &mut buffer).unwrap().is_some() {
            // The kernel's own packets (router solicitations, multicast reports) come by as well.
            seen.extend(payload_to_other(buffer.packet(), 6000).map(<[u8]>::to_vec));
        }
    }
    assert_eq!(seen, [b"first".to_vec(), b"second".to_vec()]);
    assert_eq!(device.counts().written, 1);
}

#[test]
fn a_device_that_is_not_up_drops_what_is_written_and_recovers() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("host");
    let device = host.run(|| Device::open(&config("p2p-test")).unwrap());
    let packet = udp_packet((OTHER, 6000), (OWN, 5000), b"early");
    assert!(matches!(device.write(&packet), Err(WriteError::NotUp)));
    assert!(matches!(device.write(b"\xffno packet"), Err(WriteError::NotUp | WriteError::Refused(_))));
    host.run(|| Network::open().unwrap().set_up(device.index().unwrap(), 1420, 500)).unwrap();
    device.write(&packet).unwrap();
    assert!(matches!(device.write(b"\xffno packet"), Err(WriteError::Refused(_))));
    let counts = device.counts();
    assert_eq!((counts.written, counts.write_not_up + counts.write_refused), (1, 3));
}

#[test]
fn a_name_in_use_is_refused_until_its_owner_is_gone() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("host");
    let open = |name: &str| host.run(|| Device::open(&config(name)));
    let in_use = |name: &str| matches!(open(name), Err(DeviceError::NameInUse { name: named }) if named == name);
    let device = open("p2p-test").unwrap();
    assert_eq!(device.name(), Some("p2p-test"));
    assert!(in_use("p2p-test") && in_use("eth0"));
    drop(device);
    assert!(eventually(WAIT, || open("p2p-test").is_ok()));
    // A TUN that another program left for whoever comes is not ours either.
    host.ip("tuntap add mode tun name p2p-left");
    assert!(in_use("p2p-left"));
}

/// Sends with `UDP_SEGMENT`: the device gives one super-packet for all.
#[test]
fn a_super_packet_is_read_whole_and_written_whole() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("host");
    let device = open_up(&host, "p2p-test");
    assert!(device.offload().tcp && device.offload().udp, "Linux 6.2 and later take both");
    let socket = host.run(|| UdpSocket::bind((IpAddr::from(OWN), 5000)).unwrap());
    socket.set_read_timeout(Some(WAIT)).unwrap();
    set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, 600);
    let sent: Vec<u8> = (0..6_300u32).map(|byte| byte as u8).collect();
    socket.send_to(&sent, (IpAddr::from(OTHER), 6000)).unwrap();
    let (stop, mut buffer) = (stop_after(WAIT), PacketBuffer::default());
    let vnet = loop {
        device.wait(&stop).unwrap();
        match device.read(&stop, &mut buffer).unwrap() {
            Some(vnet) if payload_to_other(buffer.packet(), 6000).is_some() => break vnet,
            _ => {}
        }
    };
    let (segments, _) = vnet.segments.unwrap();
    assert_eq!((segments.kind, segments.segment_len), (SegmentKind::Udp, 600));
    assert_eq!(payload_to_other(buffer.packet(), 6000).unwrap(), sent);

    let mut back = udp_packet((OTHER, 6000), (OWN, 5000), &sent);
    let plain = PlainHeaders::parse(&back).unwrap();
    plain.set_payload_len(&mut back[..plain.header_len()], sent.len());
    let vnet = VnetHeader { checksum: Some(plain.checksum()), segments: Some((segments, plain.header_len() as u16)) };
    let (headers, payload) = back.split_at(plain.header_len());
    device.write_parts(&vnet, &[headers, &payload[..1000], &payload[1000..]]).unwrap();
    let mut received = Vec::new();
    for number in 0..11 {
        let mut datagram = [0; 2_000];
        let len = socket.recv(&mut datagram).unwrap();
        assert_eq!(len, if number < 10 { 600 } else { 300 });
        received.extend_from_slice(&datagram[..len]);
    }
    assert_eq!(received, sent);
}

#[test]
fn removing_the_interface_ends_the_reader_with_the_reason() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("host");
    let device = open_up(&host, "p2p-test");
    let reader = std::thread::spawn(move || {
        let (stop, mut buffer) = (stop_after(WAIT), PacketBuffer::default());
        loop {
            if let Err(end) = device.wait(&stop).and_then(|()| device.read(&stop, &mut buffer)) {
                return end;
            }
        }
    });
    host.ip("link del p2p-test");
    assert!(matches!(reader.join().unwrap(), ReadEnd::Gone(_)));
}

#[test]
fn a_stop_ends_a_waiting_reader() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("host");
    let device = open_up(&host, "p2p-test");
    let stop = StopSignal::new().unwrap();
    let reader = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut buffer = PacketBuffer::default();
            loop {
                if let Err(end) = device.wait(&stop).and_then(|()| device.read(&stop, &mut buffer)) {
                    return end;
                }
            }
        }
    });
    stop.trigger();
    assert!(matches!(reader.join().unwrap(), ReadEnd::Stopped));
}
