//! Members whose UDP is blocked, and relays that they reach over TLS.

use crate::nat::NatType;
use crate::overlay::{Overlay, PATIENCE};
use crate::streams::TLS_PORT;
use crate::world::Weather;
use p2plus::node::relay::RelayLimits;
use p2plus::node::status::Way;
use p2plus::wire::control::Wanted;
use std::net::SocketAddr;
use std::time::Duration;

const ADA: usize = 2;
const BEN: usize = 3;

fn way(overlay: &Overlay, from: usize, to: usize) -> Option<Way> {
    let key = overlay.member(to).transport_key;
    overlay.node(from).node.way_to(&key)
}

fn by_tls(overlay: &Overlay, relay: usize) -> Option<Way> {
    Some(Way::Stream(overlay.member(relay).name))
}

/// Has the ledger name a member as a relay with TLS.
fn approve(overlay: &mut Overlay, relay: usize) {
    let wanted = Wanted::Relay { endpoints: [Some(overlay.addresses[relay]), None], tls_port: TLS_PORT };
    overlay.order(relay, |node, now| node.request(now, wanted)).unwrap();
    overlay.world.run_for(Duration::from_secs(15));
    let waiting = overlay.order(0, |node, now| node.asked(now));
    overlay.order(0, |node, now| node.approve(now, &waiting[0])).unwrap();
    let id = overlay.id(relay);
    let everywhere = |world: &crate::world::World<crate::machine::SimNode>| {
        let knows = |at: &SocketAddr| world.host(*at).node.policy().member(&id).is_some_and(|it| it.relay.is_some());
        world.addresses().iter().all(knows)
    };
    assert!(overlay.world.run_until(PATIENCE, everywhere).is_some());
}

/// The founder, a relay with TLS, and two behind NATs that let nobody in.
fn scene(seed: u64) -> Overlay {
    let mut overlay = Overlay::found(seed, Weather::FAIR);
    assert_eq!(overlay.invite_one(), 1);
    assert_eq!([(); 2].map(|()| overlay.invite_behind(NatType::SYMMETRIC)), [ADA, BEN]);
    overlay.wait_for_everybody();
    approve(&mut overlay, 1);
    overlay.world.run_for(Duration::from_secs(30));
    overlay
}

/// Stops a member as its user does, and starts it where its UDP is blocked.
fn restart(overlay: &mut Overlay, member: usize) {
    unblock(overlay);
    overlay.order(member, |node, now| node.say_goodbye(now));
    overlay.world.run_for(Duration::from_millis(100));
    let machine = overlay.kill(member);
    block(overlay, member);
    overlay.revive(machine);
}

/// Blocks all UDP of a member that is behind a NAT.
fn block(overlay: &mut Overlay, member: usize) {
    let inside = overlay.addresses[member];
    let outside = overlay.world.nats[overlay.world.inside[&inside]].public();
    overlay.world.cut = Box::new(move |from, to| from == inside || to == inside || to.ip() == outside);
}

fn unblock(overlay: &mut Overlay) {
    overlay.world.cut = Box::new(|_, _| false);
}

#[test]
fn a_member_that_starts_where_udp_is_blocked_comes_through_within_a_second() {
    for seed in 700..705 {
        let mut overlay = scene(seed);
        restart(&mut overlay, ADA);
        let took = overlay.talk(ADA, BEN, false, PATIENCE).expect("a way over TLS");
        assert!(took <= Duration::from_secs(1), "seed {seed}: {took:?}");
        assert_eq!(way(&overlay, ADA, BEN), by_tls(&overlay, 1));
        assert!(matches!(way(&overlay, BEN, ADA), Some(Way::Relayed(_))), "{:?}", way(&overlay, BEN, ADA));
        assert!(overlay.talk(BEN, ADA, true, PATIENCE).expect("and back") <= Duration::from_secs(1));
        assert_eq!(overlay.node(BEN).streams.asked, 0, "its UDP passes");
        overlay.assert_no_duplicates();
    }
}

#[test]
fn where_udp_works_nobody_opens_a_link_and_a_relay_that_dies_is_asked_for_one_ever_less_often() {
    let mut overlay = scene(710);
    overlay.talk(ADA, BEN, false, PATIENCE).expect("a way");
    overlay.world.run_for(Duration::from_secs(120));
    let asked = |overlay: &Overlay| [0, ADA, BEN].map(|number| overlay.node(number).streams.asked);
    assert_eq!(asked(&overlay), [0; 3]);
    overlay.kill(1);
    let relay = SocketAddr::new(overlay.addresses[1].ip(), TLS_PORT);
    for member in [0, ADA, BEN] {
        let at = overlay.addresses[member];
        overlay.world.with(at, |host, _| host.streams.unreachable.insert(relay));
    }
    overlay.talk(ADA, BEN, false, PATIENCE).expect("through the founder");
    assert!(matches!(way(&overlay, ADA, BEN), Some(Way::Relayed(_))), "{:?}", way(&overlay, ADA, BEN));
    overlay.world.run_for(Duration::from_secs(120));
    assert!(asked(&overlay).iter().all(|asked| *asked <= 10), "{:?}", asked(&overlay));
    assert!(matches!(way(&overlay, ADA, 0), Some(Way::Direct(_))), "{:?}", way(&overlay, ADA, 0));
}

#[test]
fn a_relay_that_alone_is_silent_by_udp_is_reached_over_tls_and_udp_is_not_given_up() {
    let mut overlay = scene(715);
    // The founder passes nothing on: there is no other way to the relay.
    let off = RelayLimits { is_on: false, member_rate: None, whole_rate: None };
    overlay.order(0, |node, now| node.handle_relay_limits(now, off));
    overlay.world.run_for(Duration::from_secs(60));
    let (inside, relay) = (overlay.addresses[ADA], overlay.addresses[1]);
    let outside = overlay.world.nats[overlay.world.inside[&inside]].public();
    overlay.world.cut = Box::new(move |from, to| {
        let is_ada = |it: SocketAddr| it == inside || it.ip() == outside;
        is_ada(from) && to == relay || from == relay && is_ada(to)
    });
    overlay.world.run_for(Duration::from_secs(60));
    assert_eq!(way(&overlay, ADA, 1), by_tls(&overlay, 1), "though the founder is heard by UDP");
    assert!(matches!(way(&overlay, ADA, 0), Some(Way::Direct(_))), "{:?}", way(&overlay, ADA, 0));
    assert_eq!(overlay.node(ADA).streams.asked, 1);
}

#[test]
fn links_that_end_soon_after_they_come_into_use_are_opened_ever_less_often() {
    let mut overlay = scene(760);
    let (ada, at) = (overlay.addresses[ADA], SocketAddr::new(overlay.addresses[1].ip(), TLS_PORT));
    restart(&mut overlay, ADA);
    let mut used = 0;
    for _ in 0..1200 {
        overlay.world.run_for(Duration::from_millis(100));
        if way(&overlay, ADA, 1) == by_tls(&overlay, 1) {
            used += 1;
            overlay.world.with(ada, |host, now| host.lose_stream(now, at));
        }
    }
    let asked = overlay.node(ADA).streams.asked;
    assert!(used >= 3 && asked <= 15, "{used} of {asked} in two minutes");
}

#[test]
fn udp_that_is_blocked_under_a_conversation_is_left_and_taken_again() {
    for seed in 720..725 {
        let mut overlay = scene(seed);
        overlay.talk(ADA, BEN, false, PATIENCE).expect("a way");
        overlay.longest_gap([ADA, BEN], Duration::from_secs(5));
        block(&mut overlay, ADA);
        let gap = overlay.longest_gap([ADA, BEN], Duration::from_secs(20));
        assert!(gap < Duration::from_secs(4), "seed {seed}: {gap:?}");
        assert_eq!(way(&overlay, ADA, BEN), by_tls(&overlay, 1), "seed {seed}");
        unblock(&mut overlay);
        // Every minute, and sooner while something flows.
        let gap = overlay.longest_gap([ADA, BEN], Duration::from_secs(90));
        assert!(gap < Duration::from_millis(300), "seed {seed}: {gap:?}");
        assert!(matches!(way(&overlay, ADA, BEN), Some(Way::Relayed(_))), "seed {seed}: {:?}", way(&overlay, ADA, BEN));
        assert!(matches!(way(&overlay, ADA, 1), Some(Way::Direct(_))), "{:?}", way(&overlay, ADA, 1));
        assert!(matches!(way(&overlay, 1, ADA), Some(Way::Direct(_))), "{:?}", way(&overlay, 1, ADA));
        let asked = overlay.node(ADA).streams.asked;
        overlay.world.run_for(Duration::from_secs(60));
        assert_eq!(overlay.node(ADA).streams.asked, asked);
        assert!(!overlay.node(ADA).streams.is_open(), "seed {seed}: a link that is not in use is closed");
    }
}

#[test]
fn an_idle_member_is_back_on_udp_within_a_minute() {
    let mut overlay = scene(730);
    restart(&mut overlay, ADA);
    overlay.talk(ADA, BEN, false, PATIENCE).expect("a way over TLS");
    overlay.world.run_for(Duration::from_secs(100));
    assert_eq!(way(&overlay, ADA, 1), by_tls(&overlay, 1), "it is kept");
    unblock(&mut overlay);
    overlay.world.run_for(Duration::from_secs(75));
    assert!(matches!(way(&overlay, ADA, 1), Some(Way::Direct(_))), "{:?}", way(&overlay, ADA, 1));
}

#[test]
fn a_relay_that_dies_is_replaced_over_tls() {
    let mut overlay = Overlay::found(740, Weather::FAIR);
    assert_eq!(overlay.invite_one(), 1);
    assert_eq!([(); 2].map(|()| overlay.invite_behind(NatType::SYMMETRIC)), [ADA, BEN]);
    assert_eq!(overlay.invite_one(), 4);
    overlay.wait_for_everybody();
    [1, 4].into_iter().for_each(|relay| approve(&mut overlay, relay));
    overlay.world.run_for(Duration::from_secs(30));
    restart(&mut overlay, ADA);
    overlay.talk(ADA, BEN, false, PATIENCE).expect("a way over TLS");
    overlay.longest_gap([ADA, BEN], Duration::from_secs(20));
    let used = if way(&overlay, ADA, BEN) == by_tls(&overlay, 1) { 1 } else { 4 };
    assert_eq!(way(&overlay, ADA, BEN), by_tls(&overlay, used));
    let other = 5 - used;
    assert_eq!(way(&overlay, ADA, other), by_tls(&overlay, other), "at home at both");
    let at = SocketAddr::new(overlay.addresses[used].ip(), TLS_PORT);
    overlay.kill(used);
    let ada = overlay.addresses[ADA];
    overlay.world.with(ada, |host, now| host.lose_stream(now, at));
    let gap = overlay.longest_gap([ADA, BEN], Duration::from_secs(10));
    assert!(gap < Duration::from_secs(2), "{gap:?}");
    assert_eq!(way(&overlay, ADA, BEN), by_tls(&overlay, other));
}

#[test]
fn a_relay_without_tls_that_answers_is_not_asked_for_links_without_end() {
    let mut overlay = scene(750);
    let relay = SocketAddr::new(overlay.addresses[1].ip(), TLS_PORT);
    restart(&mut overlay, ADA);
    let ada = overlay.addresses[ADA];
    overlay.world.with(ada, |host, _| host.streams.unreachable.insert(relay));
    overlay.world.run_for(Duration::from_secs(600));
    let asked = overlay.node(ADA).streams.asked;
    assert!((5..=20).contains(&asked), "{asked}: again and again, and ever less often");
}
