//! What is slower and loses nothing: peers, kernels and drivers that take no super-packets or trains, or damage them.

#![allow(unsafe_code)]

use crate::kernel::{assert_undamaged, counted, device_packets, features};
use crate::lab::{Lab, eventually};
use crate::node::{Node, PATIENCE, pair, transfer};
use crate::rows::send_rows;
use crate::socket::set_option;
use socket2::{Domain, Socket, Type};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What one TCP connection moves.
const TRANSFER_LEN: usize = 5_000_000;

/// How many datagrams of trains left one by one.
fn sent_singly(node: &Node) -> u64 {
    node.status()["degraded"]["sent_singly"].as_u64().unwrap_or(0)
}

#[test]
fn a_node_that_forgoes_offload_and_one_that_does_not_understand_each_other() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = Node::new(&lab.host("founder"), "founder");
    founder.configure("[tunnel]\noffload = false\n");
    founder.found();
    let mut ada = Node::new(&lab.host("ada"), "ada");
    ada.join(&founder.invite(&["--name", "ada"]));
    ada.meet(&founder);
    for address in [founder.v4(), founder.v6()] {
        let before = device_packets(founder.host());
        transfer(&ada, &founder, address, TRANSFER_LEN);
        let came = device_packets(founder.host()) - before;
        assert!(came >= (TRANSFER_LEN / 1400) as u64, "{came} packets: super-packets");
    }
    for address in [ada.v4(), ada.v6()] {
        transfer(&founder, &ada, address, TRANSFER_LEN);
    }
    let (sender, receiver) = (ada.udp(ada.v4()), founder.udp(founder.v4()));
    send_rows(&sender, (&receiver, receiver.local_addr().unwrap()), [1_200, 777]);
    send_rows(&receiver, (&sender, sender.local_addr().unwrap()), [1_200, 777]);
    for node in [&founder, &ada] {
        assert_eq!(node.drops("malformed_packet") + node.drops("device_refused"), 0, "{}", node.status());
    }
    assert_undamaged(&[founder.host(), ada.host()]);
}

/// Alters a byte of every twentieth datagram that was cut in the host, as a faulty driver does: the kernel numbers those, and no others, since
/// all may not be fragmented (RFC 6864 §4.1). Without a checksum nobody notices before the tunnel does.
const FAULTY_DRIVER: &str = "table inet driver { counter altered { };
    chain forward { type filter hook forward priority 0;
        ip id != 0 udp length >= 1000 numgen random mod 20 < 1 udp checksum set 0 @th,4000,8 set 0x55 counter name altered; }; }";

#[test]
fn where_a_driver_damages_what_it_cuts_nothing_is_cut_any_more() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    features(ada.host(), "eth0", "tx-udp-segmentation off");
    lab.router().rules(FAULTY_DRIVER);
    let is_noticed = eventually(PATIENCE, || {
        transfer(&ada, &founder, founder.v4(), TRANSFER_LEN);
        sent_singly(&ada) > 0
    });
    let damaged = founder.drops("unauthenticated");
    assert!(is_noticed && damaged >= 8, "{damaged} damaged: {}", ada.status());
    transfer(&ada, &founder, founder.v6(), 4 * TRANSFER_LEN);
    assert_eq!(founder.drops("unauthenticated"), damaged, "more are damaged");
    // The other way nothing was ever wrong.
    transfer(&founder, &ada, ada.v4(), TRANSFER_LEN);
    assert_eq!(sent_singly(&founder), 0, "{}", founder.status());
}

/// The UDP sockets of a node's daemon that are of IPv4, as a descriptor of ours each.
fn underlay_sockets(node: &Node) -> Vec<Socket> {
    let own = |descriptor: libc::c_long| {
        assert!(descriptor >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the kernel made this descriptor for us just now.
        unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) }
    };
    // SAFETY: both calls take integers.
    let process = own(unsafe { libc::syscall(libc::SYS_pidfd_open, node.pid(), 0) });
    let folder = std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap();
    let sockets = folder.map(|entry| entry.unwrap()).filter(|entry| {
        std::fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    });
    let sockets = sockets.map(|entry| {
        let number: libc::c_int = entry.file_name().to_str().unwrap().parse().unwrap();
        // SAFETY: as above.
        Socket::from(own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) }))
    });
    let is_underlay = |socket: &Socket| {
        let kind = (socket.domain().unwrap(), socket.r#type().unwrap());
        kind == (Domain::IPV4, Type::DGRAM)
    };
    sockets.filter(is_underlay).collect()
}

#[test]
fn where_the_kernel_refuses_to_cut_trains_their_datagrams_leave_one_by_one_and_none_is_lost() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    let sockets = underlay_sockets(&ada);
    assert!(!sockets.is_empty());
    // The kernel computes no checksums for a socket that wants none, and refuses to cut what it sends.
    sockets.iter().for_each(|socket| set_option(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1));
    for address in [founder.v4(), founder.v6()] {
        transfer(&ada, &founder, address, TRANSFER_LEN);
    }
    let singly = sent_singly(&ada);
    assert!(singly >= (TRANSFER_LEN / 1400) as u64, "{singly}: {}", ada.status());
    assert_eq!(ada.drops("send_failed"), 0, "{}", ada.status());
    let told = ada.drops("queue_standing") + founder.drops("congested");
    let again = counted(ada.host(), "TcpRetransSegs");
    // On a busy machine TCP sends a few again that were not lost.
    assert!(again <= told + 10, "{again} segments sent again, {told} were given up");
    assert_undamaged(&[founder.host(), ada.host()]);
}
