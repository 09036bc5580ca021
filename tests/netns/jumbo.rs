//! Links of MTU 9000: tunnels as wide, and paths that are narrower behind them.

use crate::kernel::assert_undamaged;
use crate::lab::{Host, Lab};
use crate::node::{Node, Said, pair, transfer};
use crate::socket::{option, set_option};
use std::net::{IpAddr, UdpSocket};

const TRANSFER_LEN: usize = 5_000_000;

/// A pair whose tunnel has MTU 9000, on links that carry it.
fn wide_pair(lab: &mut Lab) -> [Node; 2] {
    let mut nodes = ["founder", "ada"].map(|name| {
        let host = lab.host(name);
        widen(lab, &host, 9100);
        let node = Node::new(&host, name);
        node.configure("[tunnel]\nmtu = 9000\n");
        node
    });
    let [founder, ada] = &mut nodes;
    founder.found();
    ada.join(&founder.invite(&[]));
    founder.meet(ada);
    nodes
}

/// Gives both ends of a host's link an MTU.
fn widen(lab: &Lab, host: &Host, mtu: usize) {
    host.ip(&format!("link set eth0 mtu {mtu}"));
    lab.router().ip(&format!("link set {} mtu {mtu}", host.router_link()));
}

/// What became of a ping.
#[derive(Debug, PartialEq, Eq)]
enum Pinged {
    Answered,
    /// It went out, and the answer was that it is too long.
    Told,
    /// The own kernel knew that it is too long.
    Kept,
    Lost,
}

/// Sends one echo request that no router may fragment, in a packet of `len` bytes.
fn ping(from: &Node, address: IpAddr, len: usize) -> Pinged {
    let headers = if address.is_ipv4() { 28 } else { 48 };
    let (address, len) = (address.to_string(), (len - headers).to_string());
    let mut command = from.host().command("ping");
    let said =
        Said::of(&command.args(["-n", "-c", "1", "-W", "1", "-M", "do", "-s", &len, &address]).output().unwrap());
    let text = said.out + &said.error;
    match said.code {
        0 => Pinged::Answered,
        _ if text.contains("message too long") => Pinged::Kept,
        _ if text.contains("Frag needed") || text.contains("Packet too big") => Pinged::Told,
        _ => Pinged::Lost,
    }
}

#[test]
fn a_wide_tunnel_carries_packets_of_every_length_and_tells_what_a_narrower_link_does_not_take() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = wide_pair(&mut lab);
    for address in [ada.v4(), ada.v6()] {
        for len in [104, 1_400, 1_500, 1_501, 4_000, 8_999, 9_000] {
            assert_eq!(ping(&founder, address, len), Pinged::Answered, "{len} bytes");
        }
        transfer(&founder, &ada, address, TRANSFER_LEN);
    }
    assert_eq!(founder.drops("too_large"), 0);
    widen(&lab, founder.host(), 1_500);
    for address in [ada.v4(), ada.v6()] {
        let before = founder.drops("too_large");
        let pinged = [9_000; 3].map(|len| ping(&founder, address, len));
        // One may find out for the tunnel what the link takes; the next is told.
        assert!(pinged[..2].contains(&Pinged::Told) && pinged[2] == Pinged::Kept, "{pinged:?}");
        let gone = pinged.iter().filter(|pinged| **pinged != Pinged::Kept).count();
        assert_eq!(founder.drops("too_large") - before, gone as u64, "{pinged:?}");
        transfer(&founder, &ada, address, TRANSFER_LEN);
    }
    assert_undamaged(&[founder.host(), ada.host()]);
}

/// A socket's own options: its level, whether its packets may be fragmented, and the MTU of its path.
fn options(address: IpAddr) -> [libc::c_int; 3] {
    match address {
        IpAddr::V4(_) => [libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_MTU],
        IpAddr::V6(_) => [libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_MTU],
    }
}

#[test]
fn a_datagram_that_the_link_does_not_take_teaches_its_sender_the_mtu_and_others_are_fragmented_to_it() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = wide_pair(&mut lab);
    widen(&lab, founder.host(), 1_500);
    for [own, other] in [[founder.v4(), ada.v4()], [founder.v6(), ada.v6()]] {
        let [level, discover, path_mtu] = options(own);
        let (sender, receiver) = (founder.udp(own), ada.udp(other));
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        set_option(&sender, level, discover, libc::IP_PMTUDISC_DO);
        let errno = |outcome: std::io::Result<usize>| outcome.unwrap_err().raw_os_error();
        sender.send(&[7; 8_000]).unwrap();
        assert_eq!(errno(sender.recv(&mut [0; 10])), Some(libc::EMSGSIZE));
        assert_eq!(errno(sender.send(&[7; 8_000])), Some(libc::EMSGSIZE));
        let mtu = usize::try_from(option(&sender, level, path_mtu)).unwrap();
        let headers = if own.is_ipv4() { 28 } else { 48 };
        pass(&sender, &receiver, mtu - headers);
        set_option(&sender, level, discover, libc::IP_PMTUDISC_DONT);
        pass(&sender, &receiver, 8_000);
    }
    assert_undamaged(&[founder.host(), ada.host()]);
}

/// Sends a datagram on a connected socket; it arrives.
fn pass(sender: &UdpSocket, receiver: &UdpSocket, len: usize) {
    sender.send(&vec![7; len]).unwrap();
    assert_eq!(receiver.recv(&mut vec![0; len + 1]).unwrap(), len);
}

#[test]
fn a_link_wider_than_the_path_behind_it_does_not_keep_bulk_from_passing() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    // Only the router, and the far host's link, know that the path is narrower.
    widen(&lab, founder.host(), 9_000);
    for [here, there] in [[founder.v4(), ada.v4()], [founder.v6(), ada.v6()]] {
        assert_eq!(ping(&founder, there, 1_400), Pinged::Answered);
        transfer(&founder, &ada, there, TRANSFER_LEN);
        transfer(&ada, &founder, here, TRANSFER_LEN);
    }
    assert_undamaged(&[founder.host(), ada.host()]);
}
