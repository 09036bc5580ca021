//! Packets that are no plain ones: fragments, and IPv6 extension headers. They travel whole.
use crate::kernel::{assert_undamaged, counted};
use crate::lab::Lab;
use crate::node::{noise, pair};
use crate::socket::{receive_with_control, set_bytes, set_option};
use std::net::UdpSocket;

/// Bytes in front of what a control message carries (cmsg(3)).
const CONTROL_HEADER_LEN: usize = size_of::<libc::cmsghdr>();

/// An option of eight bytes that nobody knows and everybody skips (RFC 4727 §3.4): next header, no more words, type, length, content.
const OPTION: [u8; 8] = [0, 0, 0x1e, 4, 1, 2, 3, 4];

/// Sends a datagram; it arrives unchanged.
fn send(from: &UdpSocket, to: &UdpSocket, len: usize) {
    let sent = noise(len as u64, len);
    from.send_to(&sent, to.local_addr().unwrap()).unwrap();
    let mut received = vec![0; 65_536];
    let received_len = to.recv(&mut received).unwrap();
    assert!(received[..received_len] == sent, "{received_len} of {len} bytes");
}

#[test]
fn datagrams_that_the_kernel_cuts_up_arrive_whole() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    for (addresses, counter) in [([founder.v4(), ada.v4()], "IpReasmOKs"), ([founder.v6(), ada.v6()], "Ip6ReasmOKs")] {
        let (here, there) = (founder.udp(addresses[0]), ada.udp(addresses[1]));
        for socket in [&here, &there] {
            let (level, name) = match addresses[0].is_ipv4() {
                true => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
                false => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
            };
            set_option(socket, level, name, libc::IP_PMTUDISC_DONT);
        }
        for len in [1_373, 8_000, 60_000] {
            send(&here, &there, len);
            send(&there, &here, len);
        }
        for node in [&founder, &ada] {
            assert_eq!(counted(node.host(), counter), 3);
        }
    }
    assert_undamaged(&[founder.host(), ada.host()]);
}

#[test]
fn extension_headers_arrive_as_they_were_sent() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    for (send, receive) in [(libc::IPV6_HOPOPTS, libc::IPV6_RECVHOPOPTS), (libc::IPV6_DSTOPTS, libc::IPV6_RECVDSTOPTS)]
    {
        let (here, there) = (founder.udp(founder.v6()), ada.udp(ada.v6()));
        set_bytes(&here, libc::IPPROTO_IPV6, send, &OPTION);
        set_option(&there, libc::IPPROTO_IPV6, receive, 1);
        // The longest whole packet with the option, and one that is cut up.
        for len in [1, 1_344, 8_000] {
            let sent = noise(len as u64, len);
            here.send_to(&sent, there.local_addr().unwrap()).unwrap();
            let mut received = vec![0; 9_000];
            let (received_len, control) = receive_with_control(&there, &mut received).unwrap();
            assert!(received[..received_len] == sent, "{received_len} of {len} bytes");
            assert_eq!(control.get(CONTROL_HEADER_LEN + 1..CONTROL_HEADER_LEN + 8), Some(&OPTION[1..]), "{control:?}");
        }
    }
    assert_undamaged(&[founder.host(), ada.host()]);
}
