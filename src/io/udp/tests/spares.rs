//! Sockets that come and go.

use super::*;
use crate::path::SPARE_SOCKETS;
use std::collections::BTreeSet;
use std::net::UdpSocket;

/// Takes what comes to them until `count` datagrams did.
fn hear(receiver: &mut SpareReceiver, count: usize) -> Vec<(Path, Vec<u8>)> {
    let (stop, mut batch, mut heard) =
        (StopSignal::new().unwrap(), DatagramBatch::new(DatagramShape::default()), Vec::new());
    let late = stop.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(20));
        late.trigger();
    });
    while heard.len() < count {
        receiver.receive_batch(&stop, &mut batch).unwrap();
        heard.extend(batch.datagrams().map(|datagram| (datagram.arrival.path, datagram.payload.to_vec())));
    }
    heard
}

fn from_spare(position: u8, remote: SocketAddr) -> Path {
    Path { local: Some(LocalEnd { socket: position, address: None }), ..remote.into() }
}

#[test]
fn what_comes_to_each_is_known_by_its_position_and_answered_from_its_port() {
    let mut node = bind_loopback();
    let opened = node.sender.open_spares(true, 3).unwrap();
    assert_eq!(opened.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [16, 17, 18]);
    let peer = UdpSocket::bind(loopback(0)).unwrap();
    for (position, port) in &opened {
        peer.send_to(&[*position], loopback(*port)).unwrap();
    }
    let mut heard = hear(&mut node.spares, 3);
    heard.sort_unstable();
    for ((path, payload), (position, port)) in heard.into_iter().zip(opened) {
        assert_eq!((path.spare(), payload.as_slice()), (Some(position), &[position][..]));
        assert_eq!(path.local.and_then(|local| local.address), Some(loopback(0).ip()));
        node.sender.send(path, b"answer").unwrap();
        assert_eq!(peer.recv_from(&mut [0; 16]).unwrap().1, loopback(port));
    }
    // Unasked, as an opener leaves.
    node.sender.send_over(from_spare(17, peer.local_addr().unwrap()), b"opener", Some(2)).unwrap();
    assert_eq!(peer.recv_from(&mut [0; 16]).unwrap().0, 6);
}

#[test]
fn those_opened_while_somebody_waits_are_heard_and_closed_ones_are_gone() {
    let mut node = bind_loopback();
    let sender = node.sender.clone();
    let opening = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        let opened = sender.open_spares(true, 2).unwrap();
        let peer = UdpSocket::bind(loopback(0)).unwrap();
        peer.send_to(b"one", loopback(opened[1].1)).unwrap();
        (opened, peer)
    });
    let heard = hear(&mut node.spares, 1);
    let (opened, peer) = opening.join().unwrap();
    assert_eq!(heard[0].0.spare(), Some(opened[1].0));
    node.sender.close_spares(&BTreeSet::from([opened[0].0])).unwrap();
    let to = peer.local_addr().unwrap();
    assert_eq!(node.sender.send(from_spare(opened[0].0, to), b"gone"), Err(SendError::NoSocket));
    assert!(UdpSocket::bind(("0.0.0.0", opened[0].1)).is_ok(), "its port is free");
    node.sender.send(from_spare(opened[1].0, to), b"here").unwrap();
    assert_eq!(peer.recv_from(&mut [0; 16]).unwrap().1, loopback(opened[1].1));
}

#[test]
fn there_are_as_many_as_positions_and_a_closed_one_makes_room() {
    let node = bind_loopback();
    let opened = node.sender.open_spares(true, 1000).unwrap();
    let positions: Vec<_> = opened.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, SPARE_SOCKETS.collect::<Vec<_>>());
    assert_eq!(opened.iter().map(|(_, port)| *port).collect::<BTreeSet<_>>().len(), opened.len());
    assert!(node.sender.open_spares(true, 1).unwrap().is_empty());
    node.sender.close_spares(&BTreeSet::from([100, 101])).unwrap();
    let again: Vec<_> = node.sender.open_spares(true, 3).unwrap().iter().map(|(position, _)| *position).collect();
    assert_eq!(again, [100, 101]);
}

#[test]
fn they_are_marked_as_the_others_are() {
    let node = bind_loopback();
    if node.sender.set_mark(0x77).is_err() {
        println!("skipped: marks take CAP_NET_ADMIN");
        return;
    }
    let opened = node.sender.open_spares(true, 1).unwrap();
    let spares = node.sender.shared.spares.load();
    let queue = &spares.get(opened[0].0).unwrap().queues[0];
    let (mut mark, mut length) = (0u32, size_of::<u32>() as libc::socklen_t);
    // SAFETY: both pointers are writable, and the length is that of the value.
    let outcome = unsafe {
        libc::getsockopt(queue.fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, (&raw mut mark).cast(), &raw mut length)
    };
    assert_eq!((outcome, mark), (0, 0x77));
}
