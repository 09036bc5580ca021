//! A member's host that forwards between the tunnel and a host behind it, whose link does no work for its kernel.
//!
//! ```text
//!   founder ══ tunnel ══ ada ── lan0, no checksums, no segments ── behind     192.168.77.1, .2 and fd77::1, ::2
//! ```
//! The tunnel knows of ada's addresses alone: her kernel translates.

use crate::kernel::{assert_undamaged, features};
use crate::lab::{Host, Lab, Underlay, eventually};
use crate::node::{Node, PATIENCE, move_bytes, pair};
use crate::rows::send_rows;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// How long what must not arrive is waited for.
const SHORTLY: Duration = Duration::from_millis(200);
const TRANSFER_LEN: usize = 10_000_000;
/// What ada translates.
const PORT: u16 = 7000;
const BEHIND: [&str; 2] = ["192.168.77.2", "fd77::2"];

/// Puts a host behind another one.
fn behind(lab: &mut Lab, ada: &Node) -> Host {
    let (gateway, host) = (ada.host(), lab.host_with("behind", Underlay::Both));
    host.ip("link del eth0");
    gateway.ip(&format!("link add lan0 type veth peer name lan0 netns {}", host.namespace()));
    for (end, number) in [(gateway, 1), (&host, 2)] {
        features(end, "lan0", "tx off rx off sg off tso off gso off gro off");
        end.ip(&format!("addr add 192.168.77.{number}/24 dev lan0"));
        end.ip(&format!("addr add fd77::{number}/64 dev lan0 nodad"));
        end.ip("link set lan0 up");
    }
    host.ip("route add default via 192.168.77.1");
    host.ip("route add default via fd77::1");
    gateway.sysctl("net/ipv4/ip_forward", "1");
    gateway.sysctl("net/ipv6/conf/all/forwarding", "1");
    gateway.rules(&format!(
        "table inet translation {{
            chain inwards {{ type nat hook prerouting priority dstnat;
                iifname p2p-lab meta l4proto {{ tcp, udp }} th dport {PORT} dnat ip to {}
                iifname p2p-lab meta l4proto {{ tcp, udp }} th dport {PORT} dnat ip6 to {}; }};
            chain outwards {{ type nat hook postrouting priority srcnat; oifname p2p-lab masquerade; }}; }}",
        BEHIND[0], BEHIND[1]
    ));
    host
}

/// Moves bytes from one host to a port of another, which has another address where it is.
fn transfer(from: &Host, target: SocketAddr, to: &Host, address: IpAddr) {
    let listener = to.run(|| TcpListener::bind((address, target.port()))).unwrap();
    let stream = from.run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap();
    move_bytes(stream, &listener, TRANSFER_LEN, |_| {});
}

fn udp(host: &Host, address: IpAddr, port: u16) -> UdpSocket {
    let socket = host.run(|| UdpSocket::bind((address, port))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn what_is_forwarded_to_a_link_without_offload_has_its_checksums() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    let behind = behind(&mut lab, &ada);
    let addresses = BEHIND.map(|address| address.parse::<IpAddr>().unwrap());
    ada.configure("[routes]\nforward_from = [\"lan0\"]\n");
    ada.ask(&["reload"]);
    for (address, [here, gateway]) in addresses.into_iter().zip([[founder.v4(), ada.v4()], [founder.v6(), ada.v6()]]) {
        transfer(founder.host(), (gateway, PORT).into(), &behind, address);
        transfer(&behind, (here, PORT).into(), founder.host(), here);
        let (near, far) = (udp(founder.host(), here, PORT), udp(&behind, address, PORT));
        send_rows(&near, (&far, (gateway, PORT).into()), [1_200, 777]);
        send_rows(&far, (&near, (here, PORT).into()), [1_200, 777]);
    }
    assert_undamaged(&[founder.host(), ada.host(), &behind]);
}

#[test]
fn replies_of_who_is_behind_a_member_pass_and_its_own_flows_only_by_a_trusted_interface() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    let behind = behind(&mut lab, &ada);
    let addresses = BEHIND.map(|address| address.parse::<IpAddr>().unwrap());
    let pairs = addresses.into_iter().zip([[founder.v4(), ada.v4()], [founder.v6(), ada.v6()]]);
    for (address, [here, gateway]) in pairs {
        let (near, far) = (udp(founder.host(), here, 7001), udp(&behind, address, 7001));
        near.set_nonblocking(true).unwrap();
        far.send_to(b"unasked", (here, 7001)).unwrap();
        assert!(!eventually(SHORTLY, || near.recv(&mut [0; 10]).is_ok()), "{address} came in by itself");
        // As a container behind a published port.
        transfer(founder.host(), (gateway, PORT).into(), &behind, address);
    }
}
