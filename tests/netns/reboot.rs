//! Two members that were rebooted, and nobody else to ask.

use crate::lab::{Host, Lab, Underlay};
use crate::node::{Node, PORT, exchange, transfer};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What one TCP connection moves.
const TRANSFER_LEN: usize = 2_000_000;
/// How long the meeting may take once both are there; the rest is for a machine that does other things too.
const MEET_LIMIT: Duration = Duration::from_secs(15);

/// A founder and three members on hosts of a family; then the founder and the last one are stopped for good.
fn two_left_of_four(lab: &mut Lab, underlay: Underlay, address: fn(&Host) -> IpAddr) -> [Node; 4] {
    let mut nodes = ["founder", "ada", "ben", "cleo"].map(|name| Node::new(&lab.host_with(name, underlay), name));
    let (founder, others) = nodes.split_first_mut().unwrap();
    founder.found();
    for node in others {
        node.join(&founder.invite_by((address(founder.host()), PORT).into(), &["--name", node.name()]));
    }
    for (one, other) in [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)] {
        nodes[one].meet(&nodes[other]);
    }
    nodes[0].stop();
    nodes[3].kill();
    nodes
}

fn meet_and_carry(ada: &Node, ben: &Node) {
    let began = Instant::now();
    ada.meet(ben);
    let took = began.elapsed();
    println!("met after {} ms", took.as_millis());
    assert!(took <= MEET_LIMIT, "{took:?}");
    transfer(ada, ben, ben.v6(), TRANSFER_LEN);
    transfer(ben, ada, ada.v4(), TRANSFER_LEN);
    exchange(ada, ben, [ada.v4(), ben.v4()]);
    exchange(ben, ada, [ben.v6(), ada.v6()]);
}

#[test]
fn two_rebooted_members_find_each_other_and_carry_with_nobody_else_there() {
    for (underlay, address) in [(Underlay::Both, Host::v4 as fn(&Host) -> IpAddr), (Underlay::V6, Host::v6)] {
        let Some(mut lab) = Lab::new() else { return };
        let [_founder, mut ada, mut ben, _cleo] = two_left_of_four(&mut lab, underlay, address);
        // An orderly reboot, one back before the other: its first attempts find nobody.
        ada.stop();
        ben.stop();
        ada.start();
        ada.say(&["wait", "--for", "peer=ben", "--timeout", "0.5"]).refusal(7);
        ben.start();
        meet_and_carry(&ada, &ben);
        // The power goes.
        ada.kill();
        ben.kill();
        ben.start();
        ada.start();
        meet_and_carry(&ada, &ben);
    }
}

#[test]
fn a_rebooted_member_that_got_another_address_finds_the_one_that_it_knew() {
    let Some(mut lab) = Lab::new() else { return };
    let [_founder, mut ada, mut ben, _cleo] = two_left_of_four(&mut lab, Underlay::Both, Host::v4);
    ada.stop();
    ben.stop();
    ben.moved_to(lab.relocate(ben.host(), Underlay::Both));
    ada.start();
    ben.start();
    meet_and_carry(&ada, &ben);
}

#[test]
fn rebooted_members_of_whom_all_but_one_moved_find_each_other_by_that_one() {
    let Some(mut lab) = Lab::new() else { return };
    let mut nodes = ["founder", "ada", "ben", "cleo"].map(|name| Node::new(&lab.host(name), name));
    let (founder, others) = nodes.split_first_mut().unwrap();
    founder.found();
    for node in others {
        node.join(&founder.invite(&["--name", node.name()]));
    }
    for (one, other) in [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)] {
        nodes[one].meet(&nodes[other]);
    }
    nodes.iter_mut().for_each(Node::stop);
    for node in &mut nodes[..3] {
        let moved = lab.relocate(node.host(), Underlay::Both);
        node.moved_to(moved);
    }
    nodes.iter_mut().for_each(Node::start);
    let [founder, ada, ben, _cleo] = &nodes;
    meet_and_carry(ada, ben);
    meet_and_carry(founder, ada);
}
