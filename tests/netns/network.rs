//! Addresses, routes and what changes in them.

use crate::device::config;
use crate::lab::{Lab, eventually, stop_after};
use p2plus::io::device::Device;
use p2plus::io::network::{MAIN_TABLE, Network, Route, overlapping};
use p2plus::io::watch::{NetworkEvent, NetworkWatch, WatchEnd};
use std::net::IpAddr;
use std::time::Duration;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_device_gets_its_addresses_and_routes_and_takes_them_along() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("host");
    let device = host.run(|| Device::open(&config("p2p-test")).unwrap());
    let index = device.index().unwrap();
    let mut network = host.run(|| Network::open().unwrap());
    for _twice in 0..2 {
        network.add_address(index, ip("10.64.0.1"), 20).unwrap();
        network.add_address(index, ip("fd50:1::1"), 64).unwrap();
    }
    network.set_up(index, 1380, 321).unwrap();

    let interface = network.interfaces().unwrap().into_iter().find(|it| it.index == index).unwrap();
    assert_eq!((interface.name.as_str(), interface.mtu, interface.queue_len), ("p2p-test", 1380, 321));
    assert!(interface.is_up && interface.is_tunnel && !interface.is_loopback);
    let mut own = network.addresses().unwrap();
    own.retain(|it| it.interface == index && it.is_global);
    let seen: Vec<_> = own.iter().map(|it| (it.address, it.prefix_len, it.is_usable)).collect();
    assert_eq!(seen, [(ip("10.64.0.1"), 20, true), (ip("fd50:1::1"), 64, true)]);
    // An address brings no route: that is for the own table.
    let of_device = network.routes().unwrap().into_iter().filter(|it| it.interface == Some(index));
    let connected: Vec<_> =
        of_device.filter(|it| [ip("10.64.0.0"), ip("fd50:1::")].contains(&it.destination)).collect();
    assert_eq!(connected, []);

    for (destination, prefix_len, table) in
        [("172.20.0.0", 16, MAIN_TABLE), ("fd60::", 48, MAIN_TABLE), ("172.21.0.0", 16, 52_800)]
    {
        let (destination, metric) = (ip(destination), 1_024);
        let route = Route { destination, prefix_len, gateway: None, interface: Some(index), table, metric };
        network.add_route(&route).unwrap();
        assert!(network.add_route(&route).unwrap_err().to_string().contains("exists"));
        assert!(network.routes().unwrap().contains(&route));
        network.remove_route(&route).unwrap();
        network.remove_route(&route).unwrap();
        assert!(!network.routes().unwrap().contains(&route));
        network.add_route(&route).unwrap();
    }

    drop(device);
    // Not at once: a process that another test is just starting shares the descriptor until it runs its own program.
    let mut gone = || network.interfaces().unwrap().iter().all(|it| it.name != "p2p-test");
    assert!(eventually(Duration::from_secs(5), &mut gone));
    assert!(network.addresses().unwrap().iter().all(|it| it.interface != index));
    assert!(network.routes().unwrap().iter().all(|it| it.interface != Some(index)));
}

#[test]
fn only_addresses_that_others_can_reach_are_candidates() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("host");
    let device = host.run(|| Device::open(&config("p2p-test")).unwrap());
    let mut network = host.run(|| Network::open().unwrap());
    network.add_address(device.index().unwrap(), ip("10.64.0.1"), 20).unwrap();
    network.set_up(device.index().unwrap(), 1380, 500).unwrap();
    let mut addresses = || network.underlay_addresses().unwrap().into_iter().map(|it| it.address).collect::<Vec<_>>();
    assert_eq!(addresses(), [host.v4(), host.v6()]);
    host.ip("link set eth0 down");
    assert_eq!(addresses(), Vec::<IpAddr>::new());
}

#[test]
fn a_pool_that_overlaps_a_link_of_the_host_is_found() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("host");
    host.ip("addr add 10.64.5.1/24 dev eth0");
    let mut network = host.run(|| Network::open().unwrap());
    let device = host.run(|| Device::open(&config("p2p-test")).unwrap());
    network.add_address(device.index().unwrap(), ip("10.64.0.1"), 20).unwrap();
    let present = network.addresses().unwrap();
    let found = overlapping(&present, device.index(), ip("10.64.0.0"), 20);
    assert_eq!(found.iter().map(|it| it.address).collect::<Vec<_>>(), [ip("10.64.5.1")]);
    assert_eq!(overlapping(&present, device.index(), ip("10.64.16.0"), 20), []);
}

#[test]
fn changes_are_told_in_their_order_until_stopped() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("host");
    let mut watch = host.run(|| NetworkWatch::open().unwrap());
    host.ip("addr add 192.0.2.1/24 dev eth0");
    host.ip("addr del 192.0.2.1/24 dev eth0");
    host.ip("link set eth0 down");
    host.ip("link add away type veth peer name away2");
    host.ip("link del away");
    let stop = stop_after(Duration::from_secs(20));
    let mut wait_for = |wanted: &dyn Fn(&NetworkEvent) -> bool| {
        while !wanted(&watch.next(&stop).unwrap()) {}
    };
    let added = ip("192.0.2.1");
    wait_for(&|event| matches!(event, NetworkEvent::Address(it) if it.address == added));
    wait_for(&|event| matches!(event, NetworkEvent::AddressGone(it) if it.address == added));
    wait_for(&|event| matches!(event, NetworkEvent::Link(it) if it.name == "eth0" && !it.is_up));
    wait_for(&|event| matches!(event, NetworkEvent::LinkGone(_)));
    stop.trigger();
    assert!(matches!(watch.next(&stop), Err(WatchEnd::Stopped)));
}

#[test]
fn more_changes_than_the_queue_holds_are_told_as_lost() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("host");
    let mut watch = host.run(|| NetworkWatch::open().unwrap());
    let mut network = host.run(|| Network::open().unwrap());
    let eth0 = network.interfaces().unwrap().into_iter().find(|it| it.name == "eth0").unwrap().index;
    let (destination, table) = (ip("192.0.2.0"), MAIN_TABLE);
    let route = Route { destination, prefix_len: 24, gateway: None, interface: Some(eth0), table, metric: 0 };
    for _ in 0..1_000 {
        network.add_route(&route).unwrap();
        network.remove_route(&route).unwrap();
    }
    let stop = stop_after(Duration::from_secs(20));
    while watch.next(&stop).unwrap() != NetworkEvent::Lost {}
    host.ip("link add away type veth peer name away2");
    host.ip("link del away");
    while !matches!(watch.next(&stop).unwrap(), NetworkEvent::LinkGone(_)) {}
}
