//! What a link is good for beyond IP: a DHCP server and a router advertise across a segment, behind its gateway and from nowhere else.

use crate::lab::{Host, Lab, Running, eventually};
use crate::node::{Node, PATIENCE, Said};
use crate::segments::{DEVICE, address, segment, set_segment, view};
use std::process::Stdio;

/// Asks for an address as a host without one does; says what the server offered.
fn ask_for_address(host: &Host, link: &str, tries: u32) -> Option<String> {
    let script = "#!/bin/sh\n[ \"$1\" = bound ] && echo \"got $ip\"\nexit 0\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script");
    std::fs::write(&path, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&path, mode).unwrap();
    let mut command = host.command("busybox");
    command.args(["udhcpc", "-i", link, "-n", "-q", "-f", "-t", &tries.to_string(), "-T", "1", "-s"]).arg(&path);
    let said = Said::of(&command.output().unwrap());
    said.out.lines().find_map(|line| line.strip_prefix("got ")).map(ToOwned::to_owned)
}

/// Starts a server that gives addresses and advertises a prefix.
fn serve(host: &Host) -> Running {
    let mut command = host.command("dnsmasq");
    command.args(["--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--bind-interfaces", "--pid-file="]);
    command.args(["--dhcp-leasefile=/dev/null", "--leasefile-ro", "--user=root", &format!("--interface={DEVICE}")]);
    command.args(["--dhcp-range=192.168.99.100,192.168.99.150,1h", "--enable-ra", "--dhcp-range=fd99::,ra-only,1h"]);
    command.args(["--ra-param", &format!("{DEVICE},4,600")]).stdout(Stdio::null()).stderr(Stdio::null());
    host.spawn(&mut command)
}

fn has_prefix(node: &Node) -> bool {
    node.host().ip(&format!("-6 addr show dev {DEVICE}")).contains("fd99:")
}

#[test]
fn a_dhcp_server_and_a_router_are_heard_behind_the_gateway_alone() {
    let Some(mut lab) = Lab::new() else { return };
    let (founder, [ada, ben]) = segment(&mut lab, ["ada", "ben"], &[]);
    address(ada.host(), DEVICE, 1);
    ada.host().sysctl(&format!("net/ipv6/conf/{DEVICE}/forwarding"), "1");
    ben.host().sysctl(&format!("net/ipv6/conf/{DEVICE}/accept_ra"), "2");
    ben.host().ip(&format!("link set {DEVICE} up"));
    let _server = serve(ada.host());
    assert_eq!(ask_for_address(ben.host(), DEVICE, 3), None, "nobody said that it is the segment's server");
    assert!(eventually(PATIENCE, || ada.drops("rogue_dhcp") > 0 && ada.drops("rogue_router") > 0));
    assert!(!has_prefix(&ben));

    set_segment(&founder, &["--gateway", "ada"]);
    assert!(eventually(PATIENCE, || view(&ada)["gateways"][0] == "ada" && view(&ben)["gateways"][0] == "ada"));
    let mut given = None;
    assert!(eventually(PATIENCE, || {
        given = ask_for_address(ben.host(), DEVICE, 3);
        given.is_some()
    }));
    let given = given.unwrap();
    assert!(given.starts_with("192.168.99.1"), "{given}");
    assert!(eventually(PATIENCE, || has_prefix(&ben)), "{}", ben.host().ip(&format!("-6 addr show dev {DEVICE}")));
}
