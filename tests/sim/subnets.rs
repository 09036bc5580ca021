//! What lies behind members: who gets what is for a subnet, who may speak from it, and what happens when a router is gone.

use crate::overlay::{Overlay, WEATHERS};
use crate::packet::UdpPacket;
use p2plus::ledger::operation::{Operation, RouteApprove, RouteRevoke};
use p2plus::node::subnets::Accepted;
use p2plus::router::Prefix;
use p2plus::wire::control::{MAX_REQUESTS, Wanted};
use p2plus::wire::drops::DropReason;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// From the end of a router to the first packet at another one.
const FAILOVER: Duration = Duration::from_secs(6);

fn site() -> Prefix {
    "192.168.7.0/24".parse().unwrap()
}

/// The founder, a client and two routers of one subnet.
fn overlay(seed: u64) -> Overlay {
    let mut overlay = Overlay::of(4, seed, WEATHERS[0]);
    for router in [2, 3] {
        let approve = RouteApprove { identity: overlay.id(router), prefix: site(), local: None };
        overlay.order(0, |node, now| node.order(now, vec![Operation::RouteApprove(approve)])).unwrap();
    }
    overlay.world.run_for(SECOND);
    overlay
}

/// Sends one packet a second from a member to a host of the site until a router gets one. Returns which, and after how long.
fn reaches(overlay: &mut Overlay, from: usize, limit: Duration) -> Option<(usize, Duration)> {
    let start = overlay.world.now().instant;
    while overlay.world.now().instant < start + limit {
        let packet = UdpPacket { destination: [192, 168, 7, 9].into(), ..overlay.packet(from, 0, false) };
        overlay.world.with(overlay.addresses[from], |host, now| host.send(now, &packet));
        for _ in 0..10 {
            overlay.world.run_for(SECOND / 10);
            let alive = |router: &usize| overlay.world.addresses().contains(&overlay.addresses[*router]);
            let got = [2, 3].into_iter().filter(alive).find(|router| overlay.received(*router, &packet) > 0);
            if let Some(router) = got {
                return Some((router, overlay.world.now().instant.saturating_since(start)));
            }
        }
    }
    None
}

#[test]
fn another_router_takes_over_when_the_one_in_use_is_gone() {
    for seed in 70..74 {
        let mut overlay = overlay(seed);
        let (first, _) = reaches(&mut overlay, 1, 5 * SECOND).unwrap();
        let machine = overlay.kill(first);
        let (second, took) = reaches(&mut overlay, 1, 2 * FAILOVER).unwrap();
        assert!(second == 5 - first && took <= FAILOVER, "seed {seed}: {took:?}");
        overlay.revive(machine);
        overlay.world.run_for(30 * SECOND);
        assert_eq!(reaches(&mut overlay, 1, SECOND).unwrap().0, second, "no way back without need");
        let revoked = overlay.id(second);
        overlay.order(0, |node, now| node.revoke(now, revoked)).unwrap();
        overlay.world.run_for(SECOND);
        assert_eq!(reaches(&mut overlay, 1, 5 * SECOND).unwrap().0, first);
        let stop = RouteRevoke { identity: overlay.id(first), prefix: site() };
        overlay.order(0, |node, now| node.order(now, vec![Operation::RouteRevoke(stop)])).unwrap();
        overlay.world.run_for(SECOND);
        assert_eq!(reaches(&mut overlay, 1, 3 * SECOND), None);
        assert!(overlay.node(1).dropped(DropReason::NoRoute) > 0);
    }
}

#[test]
fn every_router_may_speak_from_the_subnet_and_nobody_else() {
    let mut overlay = overlay(80);
    reaches(&mut overlay, 1, 5 * SECOND).unwrap();
    for (from, arrives) in [(2, true), (3, true), (0, false)] {
        let packet = UdpPacket { source: [192, 168, 7, 9].into(), ..overlay.packet(from, 1, false) };
        overlay.talk(from, 1, false, 10 * SECOND).unwrap();
        overlay.world.with(overlay.addresses[from], |host, now| host.send(now, &packet));
        overlay.world.run_for(SECOND);
        assert_eq!(overlay.received(1, &packet), usize::from(arrives), "from {from}");
    }
    assert!(overlay.node(0).dropped(DropReason::SourceNotOurs) > 0);
}

#[test]
fn what_was_not_accepted_goes_nowhere_and_comes_from_nowhere() {
    let mut overlay = overlay(90);
    overlay.order(1, |node, now| node.handle_accepted(now, Accepted::default()));
    assert_eq!(reaches(&mut overlay, 1, 3 * SECOND), None);
    let packet = UdpPacket { source: [192, 168, 7, 9].into(), ..overlay.packet(2, 1, false) };
    overlay.talk(2, 1, false, 10 * SECOND).unwrap();
    overlay.world.with(overlay.addresses[2], |host, now| host.send(now, &packet));
    overlay.world.run_for(SECOND);
    assert_eq!((overlay.received(1, &packet), overlay.node(1).dropped(DropReason::SourceNotPeers)), (0, 1));
    let one = Accepted { prefixes: [site()].into(), ..Accepted::default() };
    overlay.order(1, |node, now| node.handle_accepted(now, one));
    assert!(reaches(&mut overlay, 1, 5 * SECOND).is_some());
}

#[test]
fn what_a_member_asks_for_reaches_a_signer_who_gives_it_or_refuses() {
    let mut overlay = Overlay::of(4, 95, WEATHERS[1]);
    let site = |third: u8| Prefix::new([172, 20, third, 0].into(), 24).unwrap();
    let ask = |overlay: &mut Overlay, third| {
        let wanted = Wanted::Route { prefix: site(third), local: None };
        overlay.order(2, |node, now| node.request(now, wanted))
    };
    let ids: Vec<_> = (0..MAX_REQUESTS as u8).map(|third| ask(&mut overlay, third).unwrap()).collect();
    assert!(ask(&mut overlay, 9).is_err());
    let asked = |overlay: &mut Overlay, at| overlay.order(at, |node, now| node.asked(now));
    for at in [0, 3] {
        overlay.world.run_for(30 * SECOND);
        assert_eq!(asked(&mut overlay, at).iter().map(|asked| asked.id).collect::<Vec<_>>(), ids, "{at}");
    }
    let first = asked(&mut overlay, 3).swap_remove(0);
    overlay.order(3, |node, now| node.approve(now, &first)).unwrap_err();
    overlay.order(3, |node, now| node.refuse(now, ids[1]));
    overlay.order(0, |node, now| node.approve(now, &first)).unwrap();
    overlay.order(0, |node, now| node.refuse(now, ids[3]));
    overlay.world.run_for(30 * SECOND);
    assert_eq!(overlay.member(2).subnets[0].prefix, site(0));
    let left = asked(&mut overlay, 2).iter().map(|asked| asked.id).collect::<Vec<_>>();
    assert_eq!(left, [ids[1], ids[2]], "what a signer gave or refused is gone, and nobody else's refusal counts");
    assert!(overlay.order(2, |node, now| {
        node.withdraw(now, |wanted| matches!(wanted, Wanted::Route { prefix, .. } if *prefix == site(1)))
    }));
    overlay.world.run_for(30 * SECOND);
    assert_eq!(asked(&mut overlay, 0).len(), 1, "the one that this signer refused was gone before");
}
