//! A founder with two addresses, of which a firewall lets the members reach the second alone: what it answers leaves from there.

use crate::lab::{Host, Lab};
use crate::node::{Node, PORT, transfer};
use std::net::{IpAddr, SocketAddr};

/// The second address of a host, beside the given one.
fn beside(first: IpAddr) -> IpAddr {
    match first {
        IpAddr::V4(first) => std::net::Ipv4Addr::from_bits(first.to_bits() + 1).into(),
        IpAddr::V6(first) => std::net::Ipv6Addr::from_bits(first.to_bits() + 1).into(),
    }
}

/// Lets a member behind a stateful firewall join by the second address of the founder, and move data there.
fn join_by_the_second_address(address: fn(&Host) -> IpAddr, listens: impl FnOnce(&Host) -> Vec<SocketAddr>) {
    let Some(mut lab) = Lab::new() else { return };
    let hosts = [lab.host("founder"), lab.host("ada")];
    let second = beside(address(&hosts[0]));
    let prefix_len = if second.is_ipv4() { 24 } else { 64 };
    hosts[0].ip(&format!("addr add {second}/{prefix_len} dev eth0 nodad"));
    let families = [("ip", hosts[0].v4()), ("ip6", hosts[0].v6())];
    let others = families.map(|(family, first)| format!("{family} daddr {first} drop;")).join(" ");
    lab.router().rules(&format!(
        "table inet firewall {{ chain forward {{ type filter hook forward priority 0; {others} ct state established accept; \
         iifname {} accept; drop; }}; }}",
        hosts[1].router_link()
    ));
    let [mut founder, mut ada] = [Node::new(&hosts[0], "founder"), Node::new(&hosts[1], "ada")];
    let listens = listens(&hosts[0]);
    if !listens.is_empty() {
        founder.configure(&format!(
            "[underlay]\nlisten = {:?}\n",
            listens.iter().map(ToString::to_string).collect::<Vec<_>>()
        ));
    }
    founder.found();
    ada.join(&founder.invite_by((second, PORT).into(), &[]));
    founder.meet(&ada);
    transfer(&ada, &founder, founder.v6(), 1_000_000);
    transfer(&founder, &ada, ada.v4(), 1_000_000);
    let endpoint: SocketAddr = ada.peer(&founder)["path"]["endpoint"].as_str().unwrap().parse().unwrap();
    assert_eq!(endpoint, (second, PORT).into());
}

#[test]
fn one_socket_answers_from_the_address_that_was_spoken_to() {
    join_by_the_second_address(Host::v4, |_| Vec::new());
    join_by_the_second_address(Host::v6, |_| Vec::new());
}

#[test]
fn of_two_sockets_of_a_family_the_one_that_was_spoken_to_answers() {
    join_by_the_second_address(Host::v4, |host| vec![(host.v4(), PORT).into(), (beside(host.v4()), PORT).into()]);
}
