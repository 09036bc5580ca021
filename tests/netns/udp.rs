//! UDP between two hosts, over a router that can do what routers do.

use crate::lab::{Host, Lab, Underlay, stop_after};
use p2plus::io::batch::{DatagramBatch, DatagramShape};
use p2plus::io::udp::{self, Listen, SendError, UdpReceiver, UdpSockets};
use p2plus::path::Path;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

fn bind(host: &Host) -> UdpSockets {
    host.run(|| udp::bind(&Listen::default(), 1)).unwrap()
}

fn path_to(address: IpAddr, port: u16) -> Path {
    SocketAddr::new(address, port).into()
}

fn receive_one(receiver: &mut UdpReceiver) -> (SocketAddr, Vec<u8>) {
    let mut batch = DatagramBatch::new(DatagramShape::default());
    receiver.receive_batch(&stop_after(Duration::from_secs(20)), &mut batch).unwrap();
    let datagram = batch.datagrams().next().unwrap();
    (datagram.arrival.path.remote, datagram.payload.to_vec())
}

#[test]
fn the_default_sockets_carry_both_families_across_a_router() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = (lab.host("a"), lab.host("b"));
    let (from, mut to) = (bind(&a), bind(&b));
    let expected: Vec<SocketAddr> = vec!["0.0.0.0:4647".parse().unwrap(), "[::]:4647".parse().unwrap()];
    assert_eq!(from.sender.local_addresses(), expected);
    for (index, (source, destination)) in [(a.v4(), b.v4()), (a.v6(), b.v6())].into_iter().enumerate() {
        from.sender.send(path_to(destination, 4647), &[7; 1_400]).unwrap();
        let received = receive_one(&mut to.receivers[index]);
        assert_eq!(received, (SocketAddr::new(source, 4647), vec![7; 1_400]));
    }
}

#[test]
fn a_host_with_one_family_uses_it_and_names_the_other_as_unreachable() {
    let Some(mut lab) = Lab::new() else { return };
    let (v4, v6, both) = (lab.host_with("v4", Underlay::V4), lab.host_with("v6", Underlay::V6), lab.host("both"));
    let mut to = bind(&both);
    for (index, host, there, not_there) in [(0, &v4, both.v4(), both.v6()), (1, &v6, both.v6(), both.v4())] {
        let from = bind(host);
        from.sender.send(path_to(there, 4647), b"hello").unwrap();
        assert_eq!(receive_one(&mut to.receivers[index]).1, b"hello");
        assert_eq!(from.sender.send(path_to(not_there, 4647), b"hello"), Err(SendError::Unreachable));
        assert_eq!(from.sender.counts().send_unreachable, 1);
    }
}

#[test]
fn an_unreachable_host_a_closed_port_and_a_dead_link_end_no_loop() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = (lab.host("a"), lab.host("b"));
    let (from, mut to) = (bind(&a), bind(&b));
    for nowhere in ["198.18.2.2:9", "198.18.77.1:4647", "198.18.2.99:4647", "[2001:db8:2::2]:9", "[2001:db8:99::1]:9"] {
        for _ in 0..3 {
            // Whether the kernel knows already that it is in vain is its own affair.
            let _ = from.sender.send(nowhere.parse::<SocketAddr>().unwrap().into(), b"nobody");
        }
    }
    a.ip("link set eth0 down");
    assert_eq!(from.sender.send(path_to(b.v4(), 4647), b"down"), Err(SendError::Unreachable));
    a.ip("link set eth0 up");
    a.ip("route add default via 198.18.1.1");
    from.sender.send(path_to(b.v4(), 4647), b"alive").unwrap();
    assert_eq!(receive_one(&mut to.receivers[0]).1, b"alive");
}

#[test]
fn datagrams_carry_dont_fragment_and_heed_the_own_link_alone() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = (lab.host("a"), lab.host("b"));
    let (from, mut to) = (bind(&a), bind(&b));
    lab.router().ip(&format!("link set {} mtu 1280", b.router_link()));
    let endpoint = SocketAddr::new(b.v4(), 4647);
    assert_eq!(from.sender.send(endpoint.into(), &[0; 1_473]), Err(SendError::TooLong));
    // Too long for the far link: dropped there, and the ICMP answer does not make the kernel fragment or refuse the next.
    for _ in 0..3 {
        from.sender.send(endpoint.into(), &[1; 1_472]).unwrap();
    }
    from.sender.send(endpoint.into(), &[2; 1_252]).unwrap();
    assert_eq!(receive_one(&mut to.receivers[0]), (SocketAddr::new(a.v4(), 4647), vec![2; 1_252]));
}

#[test]
fn a_marked_socket_follows_its_own_rule() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = (lab.host("a"), lab.host("b"));
    let (from, mut to) = (bind(&a), bind(&b));
    a.ip("rule add fwmark 0x500000 lookup 99");
    a.ip("route add unreachable default table 99");
    from.sender.set_mark(0x0050_0000).unwrap();
    assert_eq!(from.sender.send(path_to(b.v4(), 4647), b"marked"), Err(SendError::Unreachable));
    from.sender.set_mark(0).unwrap();
    from.sender.send(path_to(b.v4(), 4647), b"unmarked").unwrap();
    assert_eq!(receive_one(&mut to.receivers[0]).1, b"unmarked");
}
