//! A revocation cuts everywhere, stays, and reaches who was away.

use crate::machine::SimNode;
use crate::overlay::{Overlay, PATIENCE, WEATHERS};
use crate::world::{Weather, World};
use p2plus::node::authoring::Candidate;
use p2plus::time::Instant;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// Cuts what goes to `victim`, so that it does not learn of its end and keeps sending.
fn deafen(overlay: &mut Overlay, victim: usize) {
    let victim = overlay.addresses[victim];
    overlay.world.cut = Box::new(move |_, to| to == victim);
}

fn is_cut_everywhere(world: &World<SimNode>, at: &[SocketAddr], member: &p2plus::policy::Member) -> bool {
    at.iter().all(|at| world.host(*at).node.policy().is_revoked(&member.id))
}

#[test]
fn a_revoked_node_is_cut_everywhere_at_once_and_stays_cut() {
    for weather in WEATHERS {
        for seed in 30..33 {
            let mut overlay = Overlay::of(4, seed, weather);
            for (from, to) in [(3, 0), (3, 1), (3, 2), (1, 3), (2, 3)] {
                overlay.talk(from, to, false, PATIENCE).unwrap();
            }
            // Until no answered handshake from its time as a guest is remembered.
            overlay.world.run_for(Duration::from_secs(10));
            deafen(&mut overlay, 3);
            let member = overlay.member(3);
            overlay.order(0, |node, now| node.revoke(now, member.id)).unwrap();
            assert_eq!(overlay.node(0).node.mentions(&member), Vec::<&str>::new(), "the revoker itself");
            let others = overlay.addresses[..3].to_vec();
            let took = overlay.world.run_until(PATIENCE, |world| is_cut_everywhere(world, &others, &member));
            let limit = if weather.loss == 0 { Duration::from_millis(50) } else { Duration::from_secs(20) };
            assert!(took.is_some_and(|took| took <= limit), "seed {seed}, {weather:?}: {took:?}");
            for number in 0..3 {
                assert_eq!(overlay.node(number).node.mentions(&member), Vec::<&str>::new(), "node {number}");
            }

            // What is still in the air may arrive, and is thrown away.
            let silent_from = overlay.world.now().instant;
            keep_sending(&mut overlay, 3, Duration::from_secs(200));
            assert_nothing_from(&overlay, 3, silent_from);

            let machines = [0, 1, 2].map(|number| overlay.kill(number));
            for machine in machines {
                overlay.revive(machine);
            }
            keep_sending(&mut overlay, 3, Duration::from_secs(60));
            assert_nothing_from(&overlay, 3, silent_from);
            for number in 0..3 {
                assert!(overlay.node(number).node.policy().is_revoked(&member.id), "node {number} forgot it");
            }
            assert!(overlay.talk(1, 2, true, PATIENCE).is_some(), "the others go on");
        }
    }
}

/// Lets the revoked node send to all others, ten packets a second each.
fn keep_sending(overlay: &mut Overlay, from: usize, span: Duration) {
    let end = overlay.world.now().instant + span;
    while overlay.world.now().instant < end {
        for to in 0..overlay.addresses.len() {
            if to != from {
                overlay.send(from, to, to % 2 == 0);
            }
        }
        overlay.world.run_for(Duration::from_millis(100));
    }
}

fn assert_nothing_from(overlay: &Overlay, from: usize, since: Instant) {
    let sources = [false, true].map(|is_v6| overlay.node(from).overlay(is_v6));
    for at in overlay.world.addresses() {
        let late = overlay
            .world
            .host(at)
            .delivered
            .iter()
            .find(|delivered| delivered.at > since && sources.contains(&delivered.packet.source));
        assert!(late.is_none(), "{at} got {late:?} after the cut at {since:?}");
    }
}

#[test]
fn a_node_that_was_away_cuts_when_it_is_back() {
    for (away, limit) in [(20, 12), (90, 20), (600, 65)] {
        for seed in 40..43 {
            let mut overlay = Overlay::of(4, seed, Weather::FAIR);
            overlay.talk(3, 1, false, PATIENCE).unwrap();
            overlay.world.run_for(Duration::from_secs(5));
            // 1 and 3 on an island, 0 and 2 on the other.
            let island = [overlay.addresses[1], overlay.addresses[3]];
            overlay.world.cut = Box::new(move |from, to| island.contains(&from) != island.contains(&to));
            let member = overlay.member(3);
            overlay.order(0, |node, now| node.revoke(now, member.id)).unwrap();
            overlay.world.run_for(Duration::from_secs(away));
            assert!(overlay.talk(3, 1, false, PATIENCE).is_some(), "on the island nobody knows");
            deafen(&mut overlay, 3);
            let back = [overlay.addresses[1]];
            let took = overlay.world.run_until(PATIENCE, |world| is_cut_everywhere(world, &back, &member));
            println!("away for {away} s, seed {seed}: cut after {took:?}");
            assert!(
                took.is_some_and(|took| took <= Duration::from_secs(limit)),
                "{away} s away, seed {seed}: {took:?}"
            );
            assert_eq!(overlay.node(1).node.mentions(&member), Vec::<&str>::new());
            let silent_from = overlay.world.now().instant;
            keep_sending(&mut overlay, 3, Duration::from_secs(30));
            assert_nothing_from(&overlay, 3, silent_from);
        }
    }
}

#[test]
fn a_revoked_node_that_hears_of_it_stops_and_is_let_in_no_more() {
    for seed in 50..53 {
        let mut overlay = Overlay::of(3, seed, Weather::foul(5));
        overlay.talk(2, 1, false, PATIENCE).unwrap();
        let id = overlay.id(2);
        let sources = [false, true].map(|is_v6| overlay.node(2).overlay(is_v6));
        overlay.order(0, |node, now| node.revoke(now, id)).unwrap();
        let at = overlay.addresses[2];
        let learnt = overlay.world.run_until(PATIENCE, |world| world.host(at).node.policy().is_revoked(&id));
        assert!(learnt.is_some(), "seed {seed}: it should learn why nobody talks to it");
        let before = overlay.node(1).delivered.len();
        let machine = overlay.kill(2);
        overlay.revive(machine);
        overlay.world.run_for(Duration::from_secs(120));
        let late = overlay.node(1).delivered[before..].iter().any(|got| sources.contains(&got.packet.source));
        assert!(!late, "seed {seed}");
    }
}

#[test]
fn a_revoked_admin_signs_no_more() {
    let mut overlay = Overlay::of(3, 70, Weather::FAIR);
    let signer = overlay.node(1).machine.signing_key("identity").verifying_key();
    let added = overlay.order(0, |node, now| node.add_signer(now, signer)).unwrap();
    overlay.wait_for(&[added]);
    let id = overlay.id(1);
    overlay.order(0, |node, now| node.revoke(now, id)).unwrap();
    let others = [overlay.addresses[0], overlay.addresses[2]];
    let is_over = |world: &World<SimNode>| {
        others.iter().all(|at| world.host(*at).node.ledger().state().signer(&signer).is_none())
    };
    assert!(overlay.world.run_until(PATIENCE, is_over).is_some(), "{}", overlay.standings());
}

#[test]
fn a_revoked_admin_signs_no_more_also_where_no_validator_was_reached_for_hours() {
    let mut overlay = Overlay::of(3, 71, Weather::FAIR);
    let signers = [1, 2].map(|number| overlay.node(number).machine.signing_key("identity").verifying_key());
    let added = signers.map(|signer| overlay.order(0, |node, now| node.add_signer(now, signer)).unwrap());
    overlay.wait_for(&added);
    let validator = overlay.kill(0);
    let id = overlay.id(1);
    overlay.order(2, |node, now| node.revoke(now, id)).unwrap();
    for _ in 0..3 {
        overlay.world.jump(Duration::from_secs(3600));
        overlay.world.run_for(Duration::from_secs(30));
    }
    // What an earlier run ordered and time made void counts as well.
    let admin = overlay.kill(2);
    overlay.world.jump(Duration::from_secs(7200));
    overlay.revive(admin);
    overlay.revive(validator);
    let others = [overlay.addresses[0], overlay.addresses[2]];
    let is_over = |world: &World<SimNode>| {
        others.iter().all(|at| world.host(*at).node.ledger().state().signer(&signers[0]).is_none())
    };
    assert!(overlay.world.run_until(PATIENCE, is_over).is_some(), "{}", overlay.standings());
}

#[test]
fn the_only_validator_goes_on_ordering_when_it_was_revoked_on_sight_and_is_let_in_again() {
    for weather in [Weather::FAIR, Weather::foul(5)] {
        for seed in 60..66 {
            let mut overlay = Overlay::of(3, seed, weather);
            let signer = overlay.node(1).machine.signing_key("identity").verifying_key();
            let added = overlay.order(0, |node, now| node.add_signer(now, signer)).unwrap();
            overlay.wait_for(&[added]);
            let founder = overlay.member(0);
            overlay.order(1, |node, now| node.revoke(now, founder.id)).unwrap();
            let everybody = overlay.addresses.clone();
            let cut = overlay.world.run_until(PATIENCE, |world| is_cut_everywhere(world, &everybody, &founder));
            assert!(cut.is_some(), "seed {seed}, {weather:?}: the founder as well");

            let renamed = |overlay: &mut Overlay, name: &str| {
                let (id, name) = (overlay.id(2), name.parse().unwrap());
                overlay.order(2, |node, now| node.rename(now, id, name)).unwrap()
            };
            // Longer than whatever was under way, and than a session lives.
            for name in ["early", "late"] {
                let ordered = renamed(&mut overlay, name);
                overlay.wait_for(&[ordered]);
                overlay.world.run_for(Duration::from_secs(200));
            }
            assert!(is_cut_everywhere(&overlay.world, &everybody, &founder), "it orders and is no member");
            let machine = &overlay.node(0).machine;
            let candidate = Candidate {
                id: founder.id,
                node_key: machine.signing_key("node").verifying_key(),
                transport_key: machine.transport().public_key(),
                name: Some("again".parse().unwrap()),
                tags: BTreeSet::new(),
            };
            let admitted = overlay.order(1, |node, now| node.authorize(now, candidate)).unwrap();
            overlay.wait_for(&[admitted]);
            overlay.wait_for_everybody();
            assert!(overlay.talk(2, 0, false, PATIENCE).is_some(), "seed {seed}, {weather:?}: a member like others");
        }
    }
}
