//! A member whose underlay address changes: it is followed, its transfers go on, and it is found again when it is called.

use crate::lab::{Host, Lab, Underlay, eventually};
use crate::node::{Node, PATIENCE, PORT, pair_on, transfer_paced, trio};
use crate::stream::{Ear, Stream};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

/// Datagrams a second each way.
const RATE: u32 = 200;
/// From the new address to the first datagram there. The aim is 2 s; the rest is for a machine that does other things too.
const FOLLOW_LIMIT: Duration = Duration::from_secs(5);
/// From a call to its answer, when the one called lost what it said of its move: the old address is given up after 6 s.
const FIND_LIMIT: Duration = Duration::from_secs(20);
/// A transfer that takes 3 s by itself: 20 MB in pieces.
const TRANSFER_LEN: usize = 20_000_000;
const PIECE_PAUSE: Duration = Duration::from_millis(15);
/// What it may take with two moves on the way: TCP makes more of each gap than it was.
const TRANSFER_LIMIT: Duration = Duration::from_secs(20);

/// One way to be on the underlay: which hosts, and the family that they use.
type Family = (Underlay, fn(&Host) -> IpAddr);
const FAMILIES: [Family; 2] = [(Underlay::V4, Host::v4), (Underlay::V6, Host::v6)];

/// Two hosts with one family on their links; IPv6 stays on for the overlay.
fn hosts(lab: &mut Lab, underlay: Underlay) -> [Host; 2] {
    let hosts = ["founder", "ada"]
        .map(|name| lab.host_with(name, if underlay == Underlay::V6 { underlay } else { Underlay::Both }));
    if underlay == Underlay::V4 {
        hosts.iter().for_each(|host| drop(host.ip("-6 addr flush dev eth0 scope global")));
    }
    hosts
}

/// Where `node` has the path to `other`.
fn endpoint(node: &Node, other: &Node) -> SocketAddr {
    node.peer(other)["path"]["endpoint"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_member_that_moves_while_it_sends_is_followed_in_the_session_that_it_has() {
    for (underlay, address) in FAMILIES {
        let Some(mut lab) = Lab::new() else { return };
        let hosts = hosts(&mut lab, underlay);
        let [founder, mut ada] = pair_on([&hosts[0], &hosts[1]], address);
        let ears = [Ear::open(&founder, founder.v4()), Ear::open(&ada, ada.v6())];
        let _streams = [Stream::start(&ada, RATE, &[&ears[0]]), Stream::start(&founder, RATE, &[&ears[1]])];
        assert!(eventually(PATIENCE, || ears.iter().all(|ear| ear.count() > RATE as usize / 2)));
        // From here on no handshake passes, whoever begins one.
        lab.router().rules(
            "table inet no-handshake { chain forward { type filter hook forward priority 0; meta l4proto udp @th,64,8 { 1, 2, 3 } drop; }; }",
        );
        ada.moved_to(lab.relocate(&hosts[1], underlay));
        let moved = Instant::now();
        let is_followed = || ears.iter().all(|ear| ear.first_after(moved).is_some());
        assert!(eventually(PATIENCE, is_followed), "{underlay:?}: {}", founder.peer(&ada));
        let took = ears.each_ref().map(|ear| ear.first_after(moved).unwrap() - moved);
        println!("{underlay:?}: heard after {} ms, answered after {} ms", took[0].as_millis(), took[1].as_millis());
        assert!(took.iter().all(|took| *took <= FOLLOW_LIMIT), "{underlay:?}: {took:?}");
        assert_eq!(endpoint(&founder, &ada), (address(ada.host()), PORT).into());
        assert!(founder.peer(&ada)["session"].is_object());
    }
}

#[test]
fn a_transfer_is_whole_although_first_the_sender_and_then_the_receiver_moves() {
    for (underlay, address) in FAMILIES {
        let Some(mut lab) = Lab::new() else { return };
        let hosts = hosts(&mut lab, underlay);
        let [founder, ada] = pair_on([&hosts[0], &hosts[1]], address);
        let mut moved = hosts.clone();
        let began = Instant::now();
        transfer_paced(&ada, &founder, founder.v6(), TRANSFER_LEN, |written| {
            thread::sleep(PIECE_PAUSE);
            for (place, at) in [(1, TRANSFER_LEN / 3), (0, TRANSFER_LEN * 2 / 3)] {
                if written >= at && moved[place].v4() == hosts[place].v4() {
                    moved[place] = lab.relocate(&hosts[place], underlay);
                }
            }
        });
        let took = began.elapsed();
        println!("{underlay:?}: {TRANSFER_LEN} bytes in {} ms", took.as_millis());
        assert!(took <= TRANSFER_LIMIT, "{underlay:?}: {took:?}");
        assert_eq!(endpoint(&founder, &ada), (address(&moved[1]), PORT).into());
        assert_eq!(endpoint(&ada, &founder), (address(&moved[0]), PORT).into());
    }
}

#[test]
fn a_silent_member_that_moved_unheard_is_found_by_who_calls_it() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, mut ada, ben] = trio(&mut lab);
    // What it says of its move is lost.
    let link = ada.host().router_link();
    lab.router().rules(&format!(
        "table inet cut {{ chain forward {{ type filter hook forward priority 0; iifname {link} counter drop; }}; }}"
    ));
    let lost = || lab.router().command("nft").args(["list", "table", "inet", "cut"]).output().unwrap().stdout;
    ada.moved_to(lab.relocate(ada.host(), Underlay::Both));
    assert!(eventually(PATIENCE, || !String::from_utf8_lossy(&lost()).contains("packets 0 ")));
    lab.router().rules("delete table inet cut");
    let called = Instant::now();
    ben.wait_for("peer=ada");
    let took = called.elapsed();
    println!("found after {} ms", took.as_millis());
    assert!(took <= FIND_LIMIT, "{took:?}");
    let found = endpoint(&ben, &ada);
    assert!([ada.host().v4(), ada.host().v6()].contains(&found.ip()), "{found}");
    founder.meet(&ada);
}
