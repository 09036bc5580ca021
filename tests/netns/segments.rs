//! Segments of the link layer: members that share an Ethernet, and the networks of sites behind real bridges.
//!
//! ```text
//!   ada p2t-lab ┐                          host ── lan0 ┐            ┌ lan0 ── host
//!   ben p2t-lab ┼ the segment `lab`                 p2b-lab ada ··· ben p2b-lab
//!   cleo p2t-lab┘                               p2t-lab ┘            └ p2t-lab
//! ```

use crate::host_state::{assert_untouched, dump};
use crate::kernel::assert_undamaged;
use crate::lab::{Host, Lab, eventually};
use crate::node::{Node, PATIENCE, Said, founder, move_bytes};
use crate::rows::send_rows;
use crate::tagging::Tagging;
use serde_json::{Value, json};
use socket2::SockRef;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// What one TCP connection moves.
const TRANSFER_LEN: usize = 10_000_000;
/// The interface of the segment.
pub const DEVICE: &str = "p2t-lab";
const PATIENCE_SECONDS: &str = "60";

/// A founder who signs and is in no segment, and members of the segment `lab` with these names, whose devices are up.
pub fn segment<const COUNT: usize>(lab: &mut Lab, names: [&str; COUNT], options: &[&str]) -> (Node, [Node; COUNT]) {
    let founder = founder(lab);
    let members = names.map(|name| {
        let mut node = Node::new(&lab.host(name), name);
        node.join(&founder.invite(&["--name", name, "--tag", "lan"]));
        node
    });
    set_segment(&founder, options);
    members.iter().for_each(wait_for_device);
    for (number, member) in members.iter().enumerate() {
        members[..number].iter().for_each(|other| other.meet(member));
    }
    (founder, members)
}

/// Makes the segment, or changes it.
pub fn set_segment(signer: &Node, options: &[&str]) {
    signer.ask(&[&["segment", "add", "lab", "--tag", "lan", "--timeout", PATIENCE_SECONDS], options].concat());
}

/// What a node says of the segment.
pub fn view(node: &Node) -> Value {
    let segments = node.ask(&["segment", "list"]);
    segments.as_array().unwrap().iter().find(|segment| segment["name"] == "lab").cloned().unwrap_or(Value::Null)
}

fn wait_for_device(node: &Node) {
    let has_device = || view(node)["device"] == DEVICE;
    assert!(eventually(PATIENCE, has_device), "{} has no device: {:?}", node.name(), view(node));
}

/// Gives a host's link an address of each family.
pub fn address(host: &Host, link: &str, number: u8) -> [IpAddr; 2] {
    host.ip(&format!("addr add 192.168.99.{number}/24 dev {link}"));
    host.ip(&format!("addr add fd99::{number:x}/64 dev {link} nodad"));
    host.ip(&format!("link set {link} up"));
    [IpAddr::from([192, 168, 99, number]), IpAddr::from([0xfd99, 0, 0, 0, 0, 0, 0, number.into()])]
}

/// Whether an echo request to an address is answered within a second.
pub fn is_answered(host: &Host, address: IpAddr, len: usize) -> bool {
    let (address, len) = (address.to_string(), len.to_string());
    let mut command = host.command("ping");
    let output = command.args(["-n", "-c", "1", "-W", "1", "-M", "do", "-s", &len, &address]).output().unwrap();
    Said::of(&output).code == 0
}

/// Waits until an echo request is answered.
pub fn wait_for_answer(host: &Host, address: IpAddr) {
    assert!(eventually(PATIENCE, || is_answered(host, address, 56)), "{address} does not answer {host:?}");
}

/// Moves TCP and rows of UDP datagrams between two hosts, both ways, and echo requests as long as a frame may be.
pub fn carry_everything(hosts: [&Host; 2], addresses: [[IpAddr; 2]; 2]) {
    let [[v4, v6], [other_v4, other_v6]] = addresses;
    for pair in [[v4, other_v4], [v6, other_v6]] {
        for [from, to] in [[0, 1], [1, 0]] {
            let (own, other) = (pair[from], pair[to]);
            wait_for_answer(hosts[from], other);
            let headers = if other.is_ipv4() { 28 } else { 48 };
            assert!(
                eventually(PATIENCE, || is_answered(hosts[from], other, 1500 - headers)),
                "a full frame to {other}"
            );
            let listener = hosts[to].run(|| TcpListener::bind((other, 0))).unwrap();
            let target = listener.local_addr().unwrap();
            let stream = hosts[from].run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap();
            move_bytes(stream, &listener, TRANSFER_LEN, |_| {});
            let udp = |host: &Host, address: IpAddr| {
                let socket = host.run(|| UdpSocket::bind((address, 0))).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket
            };
            let receiver = udp(hosts[to], other);
            send_rows(&udp(hosts[from], own), (&receiver, receiver.local_addr().unwrap()), [1_200, 777]);
        }
    }
    assert_undamaged(&hosts);
}

/// Whether what one host says to a group is heard by another one that joined it.
fn hears_group([from, to]: [&Host; 2], [own, other]: [IpAddr; 2], group: [u8; 4]) -> bool {
    let (IpAddr::V4(own), IpAddr::V4(other)) = (own, other) else { panic!("groups of IPv4") };
    let receiver = to.run(|| UdpSocket::bind((Ipv4Addr::from(group), 5353))).unwrap();
    to.run(|| receiver.join_multicast_v4(&group.into(), &other)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let sender = from.run(|| UdpSocket::bind((own, 0))).unwrap();
    SockRef::from(&sender).set_multicast_if_v4(&own).unwrap();
    eventually(PATIENCE, || {
        sender.send_to(b"who is there?", (Ipv4Addr::from(group), 5353)).unwrap();
        receiver.recv(&mut [0; 100]).is_ok()
    })
}

/// Plugs a host into another one's new link `lan0`, as a site's network; the new host's link is `lan`.
pub fn site(lab: &mut Lab, of: &Node, name: &str) -> Host {
    let host = lab.host(name);
    of.host().ip(&format!("link add lan0 type veth peer name lan netns {}", host.namespace()));
    of.host().ip("link set lan0 up");
    host
}

#[test]
fn members_with_the_tag_share_an_ethernet_for_as_long_as_it_is_there() {
    let Some(mut lab) = Lab::new() else { return };
    let (founder, members) = segment(&mut lab, ["ada", "ben", "cleo"], &[]);
    let mut number = 0;
    let addresses = members.each_ref().map(|member| {
        number += 1;
        address(member.host(), DEVICE, number)
    });
    for (from, member) in members.iter().enumerate() {
        for (to, addresses) in addresses.iter().enumerate().filter(|(to, _)| *to != from) {
            addresses.iter().for_each(|address| wait_for_answer(member.host(), *address));
            assert!(to < 3);
        }
    }
    carry_everything([members[0].host(), members[1].host()], [addresses[0], addresses[1]]);
    let seen = view(&members[0]);
    assert_eq!((&seen["members"], &seen["is_member"]), (&json!(["ada", "ben", "cleo"]).clone(), &json!(true)));
    let of_founder = view(&founder);
    assert_eq!((&of_founder["is_member"], &of_founder["device"]), (&json!(false), &Value::Null));
    assert!(!founder.host().ip("link").contains("p2t-"), "who lacks the tag has no device");
    assert_eq!(
        founder.say(&["segment", "add", "other"]).refusal(2),
        "there is no segment other yet, and a new one needs a tag"
    );

    founder.ask(&["segment", "rm", "lab", "--timeout", PATIENCE_SECONDS]);
    for member in &members {
        let is_gone = || !member.host().ip("link").contains(DEVICE);
        assert!(eventually(PATIENCE, is_gone), "{} kept its device", member.name());
    }
    assert_eq!(founder.ask(&["segment", "list"]), json!([]));
    set_segment(&founder, &[]);
    members.iter().for_each(wait_for_device);
    let [first, second] =
        [&members[0], &members[1]].map(|member| address(member.host(), DEVICE, 1 + u8::from(member.name() == "ben")));
    wait_for_answer(members[0].host(), second[0]);
    wait_for_answer(members[1].host(), first[1]);
}

#[test]
fn a_device_that_somebody_removes_comes_back() {
    let Some(mut lab) = Lab::new() else { return };
    let (_founder, [ada, ben]) = segment(&mut lab, ["ada", "ben"], &[]);
    ada.host().ip(&format!("link del {DEVICE}"));
    assert!(eventually(PATIENCE, || ada.host().ip("link").contains(DEVICE)), "{:?}", view(&ada));
    wait_for_device(&ada);
    let [[there, _], _] = [address(ada.host(), DEVICE, 1), address(ben.host(), DEVICE, 2)];
    wait_for_answer(ben.host(), there);
}

#[test]
fn hosts_of_two_sites_behind_real_bridges_are_on_one_link() {
    let Some(mut lab) = Lab::new() else { return };
    let (founder, [ada, mut ben]) = segment(&mut lab, ["ada", "ben"], &[]);
    let hosts = [("left", &ada), ("right", &ben)].map(|(name, node)| site(&mut lab, node, name));
    // One site has a bridge of its own already, with the host's address on it.
    ben.host().ip("link add br0 type bridge");
    ben.host().ip("link set lan0 master br0");
    ben.host().ip("link set br0 up");
    let bridged = ada.ask(&["bridge", "add", "lan0", "lab"]);
    assert_eq!((&bridged["bridge"], &bridged["is_approved"]), (&json!("p2b-lab"), &json!(false)));
    let refused = ben.say(&["bridge", "add", "lan0", "lab"]).refusal(8);
    assert!(refused.contains("is a port of another bridge already"), "{refused}");
    assert_eq!(ben.ask(&["bridge", "add", "br0", "lab"])["bridge"], "br0");
    for member in ["ada", "ben"] {
        founder.ask(&["bridge", "approve", "lab", member, "--timeout", PATIENCE_SECONDS]);
    }
    let mut number = 10;
    let addresses = hosts.each_ref().map(|host| {
        number += 1;
        address(host, "lan", number)
    });
    carry_everything(hosts.each_ref(), addresses);
    // What announces itself on the link is found from the other site, as with mDNS, and so is a group beyond the link.
    for group in [[224, 0, 0, 251], [239, 1, 2, 3]] {
        assert!(hears_group([&hosts[0], &hosts[1]], [addresses[0][0], addresses[1][0]], group), "{group:?}");
    }
    let on_bridge = address(ben.host(), "br0", 2);
    wait_for_answer(&hosts[0], on_bridge[0]);
    let stations = view(&ada)["stations"].as_array().unwrap().clone();
    let behind = |name: &str| stations.iter().filter(|station| station["behind"] == name).count();
    assert!(behind("ada") >= 1 && behind("ben") >= 1, "{stations:?}");

    // What a killed daemon left is taken over by the next one, and a stopped one leaves the host as it was.
    ben.kill();
    ben.start();
    wait_for_answer(&hosts[0], addresses[1][0]);
    ben.stop();
    let links = ben.host().ip("-d link show lan0");
    assert!(links.contains("master br0") && !ben.host().ip("link").contains(DEVICE), "{links}");
    let mut ada = ada;
    ada.kill();
    assert!(ada.host().ip("link").contains("p2b-lab"), "nobody undid it");
    ada.start();
    let is_bridged = || ada.ask(&["bridge", "list"])[0]["bridge"] == "p2b-lab";
    assert!(eventually(PATIENCE, is_bridged), "{:?}", ada.ask(&["bridge", "list"]));
    ada.ask(&["bridge", "rm", "lan0"]);
    let links = ada.host().ip("link");
    assert!(!links.contains("p2b-lab") && links.contains("lan0"), "{links}");
    assert!(!ada.host().ip("link show lan0").contains("master"));
}

#[test]
fn a_bridge_that_a_killed_daemon_made_goes_with_the_cleanup_or_when_nobody_orders_it_any_more() {
    let Some(mut lab) = Lab::new() else { return };
    let (_founder, [mut ada]) = segment(&mut lab, ["ada"], &[]);
    let host = ada.host().clone();
    host.ip("link add lan0 type veth peer name far0");
    // It is off, and has a queue: the kernel gives that with the first switching on, and takes it never back.
    host.ip("link set lan0 up");
    host.ip("link set lan0 down");
    ada.stop();
    let before = dump(&host);
    let is_bridged = || host.ip("link show lan0").contains("master p2b-lab");
    ada.start();
    wait_for_device(&ada);
    ada.ask(&["bridge", "add", "lan0", "lab"]);
    assert!(is_bridged() && host.ip("link show lan0").contains(",UP"), "{}", host.ip("link"));
    ada.kill();
    assert!(is_bridged(), "nobody undid it");
    let undone = ada.say_inside(&["cleanup"]).data()["undone"].to_string();
    assert!(undone.contains("took lan0 out of the bridge p2b-lab"), "{undone}");
    assert_untouched(&before, &host);

    // Taken over by the next run, it is still known to be this program's, and that the card was off.
    for _ in 0..2 {
        ada.start();
        assert!(eventually(PATIENCE, is_bridged), "{:?}", ada.ask(&["bridge", "list"]));
        ada.kill();
    }
    ada.start();
    assert!(eventually(PATIENCE, || ada.ask(&["bridge", "list"])[0]["bridge"] == "p2b-lab"));
    ada.stop();
    assert_untouched(&before, &host);

    ada.start();
    assert!(eventually(PATIENCE, is_bridged));
    ada.kill();
    std::fs::remove_file(ada.state().join("bridges")).unwrap();
    ada.start();
    wait_for_device(&ada);
    assert!(eventually(PATIENCE, || !host.ip("link").contains("p2b-lab")), "{}", host.ip("link"));
    ada.stop();
    assert_untouched(&before, &host);
}

#[test]
fn an_interface_that_the_host_needs_is_no_port() {
    let Some(mut lab) = Lab::new() else { return };
    let (_founder, [ada]) = segment(&mut lab, ["ada"], &[]);
    let refused = |args: [&str; 2], code| ada.say(&["bridge", "add", args[0], args[1]]).refusal(code);
    assert!(refused(["eth0", "lab"], 8).contains("has addresses of this host"));
    assert!(refused(["nothing", "lab"], 5).contains("there is no interface nothing"));
    assert!(refused(["lo", "lab"], 2).contains("carries no Ethernet frames"));
    assert!(refused(["eth0", "other"], 5).contains("there is no segment other"));
    assert_eq!(ada.ask(&["bridge", "list"]), json!([]));
}

#[test]
fn super_frames_cross_with_a_vlan_tag() {
    let Some(mut lab) = Lab::new() else { return };
    let (_founder, members) = segment(&mut lab, ["ada", "ben"], &[]);
    let _tagging = members.each_ref().map(|member| {
        let tagging = Tagging::start(member.host(), DEVICE);
        // The station is the device's: nobody bridges here.
        let mac = view(member)["mac"].as_str().unwrap().to_owned();
        member.host().ip(&format!("link set untagged address {mac}"));
        tagging
    });
    let addresses = [0, 1].map(|member| address(members[member].host(), "untagged", 1 + member as u8));
    carry_everything(members.each_ref().map(Node::host), addresses);
}
