//! What the kernel makes of the offload that the tunnel's device has: TCP of all kinds, and rows of UDP datagrams.

use crate::kernel::{assert_undamaged, counted, device_packets, features};
use crate::lab::Lab;
use crate::node::{Node, PATIENCE, accept, move_bytes, noise, pair, transfer};
use crate::rows::{ROW, ROWS, send_rows};
use crate::socket::{set_bytes, set_option};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::thread;

/// What one TCP connection moves.
const TRANSFER_LEN: usize = 5_000_000;

/// IPv6 options of eight bytes, which say nothing (RFC 8200 §4.2): next header, no more words, PadN of four.
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

/// Connects one node's host to an address of another's, with a socket that `prepare` has had.
fn connect(from: &Node, to: &Node, address: IpAddr, prepare: impl Fn(&Socket)) -> (TcpStream, TcpListener) {
    let listener = to.host().run(|| TcpListener::bind((address, 0))).unwrap();
    let target = listener.local_addr().unwrap();
    let socket = from.host().run(|| Socket::new(Domain::for_address(target), Type::STREAM, None)).unwrap();
    prepare(&socket);
    socket.connect_timeout(&SockAddr::from(target), PATIENCE).unwrap();
    (socket.into(), listener)
}

#[test]
fn tcp_with_options_of_ip_passes() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    let no_operations: fn(&Socket) = |socket| set_bytes(socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &[1; 4]);
    let hop_by_hop: fn(&Socket) = |socket| set_bytes(socket, libc::IPPROTO_IPV6, libc::IPV6_HOPOPTS, &PADDING);
    let destination: fn(&Socket) = |socket| set_bytes(socket, libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, &PADDING);
    for (address, prepare) in [(founder.v4(), no_operations), (founder.v6(), hop_by_hop), (founder.v6(), destination)] {
        let (stream, listener) = connect(&ada, &founder, address, prepare);
        move_bytes(stream, &listener, TRANSFER_LEN, |_| {});
    }
    assert_eq!(ada.drops("malformed_packet"), 0, "{}", ada.status());
    assert_undamaged(&[founder.host(), ada.host()]);
}

#[test]
fn tcp_of_short_segments_passes() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    for address in [founder.v4(), founder.v6()] {
        let short = |socket: &Socket| set_option(socket, libc::IPPROTO_TCP, libc::TCP_MAXSEG, 300);
        let (stream, listener) = connect(&ada, &founder, address, short);
        move_bytes(stream, &listener, TRANSFER_LEN, |_| {});
    }
    assert_eq!(ada.drops("malformed_packet"), 0, "{}", ada.status());
    assert_undamaged(&[founder.host(), ada.host()]);
}

/// Sends bytes of which one in a hundred thousand is urgent; they arrive in their places.
fn send_urgently(stream: TcpStream, listener: &TcpListener) {
    let (mut incoming, _) = accept(listener);
    // Urgent bytes are read with the others. Nothing was sent yet.
    set_option(&incoming, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1);
    incoming.set_read_timeout(Some(PATIENCE)).unwrap();
    let (sent, mut received) = (noise(8, 1_000_000), Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| incoming.read_to_end(&mut received).unwrap());
        let mut socket = Socket::from(stream);
        for piece in sent.chunks(100_000) {
            let (urgent, others) = piece.split_at(1);
            assert_eq!(socket.send_out_of_band(urgent).unwrap(), 1);
            socket.write_all(others).unwrap();
        }
    });
    assert!(received == sent, "{} bytes arrived whole", received.len());
}

#[test]
fn tcp_with_urgent_bytes_passes() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    for address in [founder.v4(), founder.v6()] {
        let (stream, listener) = connect(&ada, &founder, address, |_| {});
        send_urgently(stream, &listener);
    }
    assert_eq!(ada.drops("malformed_packet"), 0, "{}", ada.status());
    assert_undamaged(&[founder.host(), ada.host()]);
}

#[test]
fn tcp_with_ecn_passes_and_its_packets_stay_marked() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    for node in [&founder, &ada] {
        node.host().sysctl("net/ipv4/tcp_ecn", "1");
    }
    for (address, counter) in [(founder.v4(), "IpExtInECT0Pkts"), (founder.v6(), "Ip6InECT0Pkts")] {
        let before = counted(founder.host(), counter);
        transfer(&ada, &founder, address, TRANSFER_LEN);
        let marked = counted(founder.host(), counter) - before;
        // The kernel counts a super-packet as one.
        assert!(marked >= TRANSFER_LEN as u64 / 65_536, "{marked} packets were marked: {counter}");
    }
    assert_undamaged(&[founder.host(), ada.host()]);
}

/// Segments that TCP may send again on a busy machine although none was lost.
const SPURIOUS: u64 = 10;

/// Marks every tenth of the full datagrams that say they can be marked.
const MARKS: &str = "table inet marks { counter marked { };
    chain forward { type filter hook forward priority 0;
        udp length >= 1000 ip ecn ect0 numgen random mod 10 < 1 ip ecn set ce counter name marked; }; }";

#[test]
fn marks_of_the_path_slow_the_sender_inside_and_cost_no_segment() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    for node in [&founder, &ada] {
        node.host().sysctl("net/ipv4/tcp_ecn", "1");
        node.host().sysctl("net/ipv4/tcp_congestion_control", "reno");
        // A train that is cut in the host is datagrams on the wire.
        features(node.host(), "eth0", "tx-udp-segmentation off");
    }
    lab.router().rules(MARKS);
    for address in [founder.v4(), founder.v6()] {
        let before = counted(ada.host(), "TcpExtTCPDeliveredCE");
        transfer(&ada, &founder, address, TRANSFER_LEN);
        let told = counted(ada.host(), "TcpExtTCPDeliveredCE") - before;
        assert!(told > 100, "the sender heard of {told} marked segments");
    }
    // What tells the receiver that its sender slowed down (CWR) goes through in super-packets as well.
    let again = counted(ada.host(), "TcpRetransSegs");
    assert!(again <= ada.drops("queue_standing") + SPURIOUS, "{again} segments sent again");
    assert_undamaged(&[founder.host(), ada.host()]);
}

#[test]
fn rows_of_udp_datagrams_arrive_in_order_and_long_ones_together() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    for [here, there] in [[founder.v4(), ada.v4()], [founder.v6(), ada.v6()]] {
        for lens in [[1_200, 777], [536, 1], [535, 77], [100, 100]] {
            let (sender, receiver) = (ada.udp(there), founder.udp(here));
            let before = device_packets(founder.host());
            send_rows(&sender, (&receiver, receiver.local_addr().unwrap()), lens);
            let packets = device_packets(founder.host()) - before;
            // A row that several calls brought is several super-packets.
            let is_together = packets < (ROWS * ROW / 4) as u64;
            assert!(is_together || lens[0] < 536, "{packets} packets for rows of {lens:?}");
        }
    }
    assert_undamaged(&[founder.host(), ada.host()]);
}
