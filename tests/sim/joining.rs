//! From a founder alone to members that talk.

use crate::machine::SimNode;
use crate::overlay::{Overlay, PATIENCE, WEATHERS};
use crate::world::Weather;
use p2plus::crypto::hash::Digest;
use p2plus::crypto::identity::SigningKey;
use p2plus::node::authoring::{Candidate, InvitationTerms};
use p2plus::node::control::LinkCounters;
use p2plus::node::membership::{Bootstrap, Invitation, Remedy, Standing};
use std::collections::BTreeSet;
use std::time::Duration;

/// Founds, lets two join, and exchanges packets in all directions. Returns the trace.
fn found_join_and_talk(seed: u64, weather: Weather) -> Digest {
    let mut overlay = Overlay::of(3, seed, weather);
    for (from, to) in [(1, 2), (2, 1), (0, 1), (1, 0), (0, 2), (2, 0)] {
        for is_v6 in [false, true] {
            let took = overlay.talk(from, to, is_v6, PATIENCE);
            assert!(took.is_some(), "seed {seed}, {weather:?}: {from} → {to}");
        }
    }
    overlay.world.run_for(Duration::from_secs(5));
    overlay.assert_no_duplicates();
    overlay.world.trace()
}

#[test]
fn invited_nodes_become_members_and_exchange_packets_in_any_weather() {
    for weather in WEATHERS {
        for seed in 1..4 {
            found_join_and_talk(seed, weather);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_another() {
    let weather = Weather::foul(10);
    let trace = found_join_and_talk(11, weather);
    assert_eq!(trace, found_join_and_talk(11, weather));
    assert_ne!(trace, found_join_and_talk(12, weather));
}

#[test]
fn a_joiner_whose_clock_is_days_behind_is_admitted_to_a_chain_where_nothing_happened_for_hours() {
    let mut overlay = Overlay::found(21, Weather::FAIR);
    let terms = InvitationTerms { name: None, tags: BTreeSet::new(), uses: 1, lifetime: Duration::from_secs(86_400) };
    let issued = overlay.order(0, |node, now| node.invite(now, terms)).unwrap();
    overlay.world.run_for(Duration::from_secs(3 * 3600));
    let host = host(&overlay);
    overlay.world.behind.insert(crate::overlay::address(1), Duration::from_secs(5 * 86_400));
    overlay.join(Invitation { credential: Some(issued.secret), name: None, bootstrap: vec![host] });
    overlay.wait_for_everybody();
}

/// What a ticket says of the founder.
fn host(overlay: &Overlay) -> Bootstrap {
    let founder = &overlay.node(0).machine;
    Bootstrap { id: founder.id(), transport_key: founder.transport().public_key(), endpoints: vec![founder.address] }
}

#[test]
fn a_joiner_whose_clock_is_a_month_behind_is_admitted_once_the_clock_is_set() {
    const MONTH: Duration = Duration::from_secs(30 * 86_400);
    let mut overlay = Overlay::found(22, Weather::FAIR);
    let terms = InvitationTerms { name: None, tags: BTreeSet::new(), uses: 1, lifetime: 2 * MONTH };
    let issued = overlay.order(0, |node, now| node.invite(now, terms)).unwrap();
    overlay.world.jump(MONTH);
    overlay.world.behind.insert(crate::overlay::address(1), MONTH);
    let invitation = Invitation { credential: Some(issued.secret), name: None, bootstrap: vec![host(&overlay)] };
    let number = overlay.join(invitation);
    overlay.world.run_for(Duration::from_secs(30));
    let standing = overlay.node(number).node.standing();
    assert_eq!(standing, &Standing::Joining("waiting for validators"), "its Join has expired by the founder's clock");
    overlay.world.behind.clear();
    overlay.wait_for_everybody();
}

#[test]
fn another_name_helps_a_refused_node_only_where_its_ticket_gives_none() {
    let mut overlay = Overlay::of(2, 23, Weather::FAIR);
    for (given, remedy) in [(None, Remedy::Name), (Some("ada"), Remedy::Ticket)] {
        let name = given.map(|name| name.parse().unwrap());
        let terms = InvitationTerms { name, tags: BTreeSet::new(), uses: 1, lifetime: Duration::from_secs(3600) };
        let issued = overlay.order(0, |node, now| node.invite(now, terms)).unwrap();
        let member = overlay.id(1);
        overlay.order(0, |node, now| node.rename(now, member, "ada".parse().unwrap())).unwrap();
        let (credential, name) = (Some(issued.secret), Some("ada".parse().unwrap()));
        let number = overlay.join(Invitation { credential, name, bootstrap: vec![host(&overlay)] });
        overlay.world.run_for(Duration::from_secs(30));
        let standing = overlay.node(number).node.standing();
        let Standing::Refused(refusal) = standing else { panic!("{standing:?}") };
        assert_eq!((refusal.reason.as_str(), refusal.remedy), ("the name ada is taken or at rest", remedy));
    }
}

#[test]
fn the_first_packet_waits_for_the_session_and_arrives() {
    for seed in 1..4 {
        let mut overlay = Overlay::of(3, seed, Weather::FAIR);
        overlay.world.run_for(Duration::from_secs(5));
        // All sessions end, so that the next packet has to make one.
        for number in [1, 2] {
            let machine = overlay.kill(number);
            overlay.revive(machine);
        }
        let packets: Vec<_> = (0..10).map(|_| overlay.send(1, 2, false)).collect();
        overlay.world.run_for(Duration::from_secs(1));
        let arrived: Vec<_> = overlay.node(2).delivered.iter().map(|delivered| delivered.packet.clone()).collect();
        assert_eq!(arrived, packets, "seed {seed}: all of them, once, in order");
    }
}

/// What is seen of a network whose members have just met is that nothing went wrong.
#[test]
fn who_joins_in_good_weather_finds_nothing_dropped_anywhere() {
    for seed in 1..4 {
        let mut overlay = Overlay::of(3, seed, Weather::FAIR);
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            overlay.talk(from, to, false, PATIENCE).unwrap();
        }
        overlay.world.run_for(Duration::from_secs(100));
        for number in 0..3 {
            let SimNode { node, drops, .. } = overlay.node(number);
            let dropped: Vec<_> = drops.snapshot().into_iter().filter(|(_, count)| *count > 0).collect();
            let LinkCounters { messages, peers, broken, lost_events, .. } = node.control_counters();
            assert_eq!(dropped, [], "seed {seed}, node {number}: {:?}", node.control_counters());
            let of_link = (messages.len(), peers.len(), broken.len(), *lost_events);
            assert_eq!(of_link, (0, 0, 0, 0), "seed {seed}, node {number}: {:?}", node.control_counters());
        }
    }
}

#[test]
fn a_ticket_that_no_block_made_yet_is_waited_for_and_one_that_ended_is_refused() {
    let mut overlay = Overlay::of(2, 9, Weather::FAIR);
    let host = host(&overlay);
    let early =
        Invitation { credential: Some(SigningKey::from_seed(&[77; 32])), name: None, bootstrap: vec![host.clone()] };
    let early = overlay.join(early);
    let terms = InvitationTerms { name: None, tags: BTreeSet::new(), uses: 1, lifetime: Duration::from_secs(3600) };
    let issued = overlay.order(0, |node, now| node.invite(now, terms)).unwrap();
    overlay.world.run_for(Duration::from_secs(5));
    overlay.order(0, |node, now| node.revoke_invitation(now, issued.credential)).unwrap();
    overlay.world.run_for(Duration::from_secs(5));
    let late = overlay.join(Invitation { credential: Some(issued.secret), name: None, bootstrap: vec![host] });
    overlay.world.run_for(Duration::from_secs(60));
    let standing = |number| overlay.node(number).node.standing();
    assert!(
        matches!(standing(early), Standing::Joining(what) if what.contains("makes the ticket valid")),
        "{}",
        overlay.standings()
    );
    assert!(
        matches!(standing(late), Standing::Refused(why) if why.reason.contains("credential")),
        "{}",
        overlay.standings()
    );
}

#[test]
fn a_node_whose_ticket_lets_nobody_in_waits_as_a_guest_until_a_signer_admits_it() {
    for weather in WEATHERS {
        let mut overlay = Overlay::of(2, 5, weather);
        let bootstrap = vec![host(&overlay)];
        let number = overlay.join(Invitation { credential: None, name: None, bootstrap });
        // Longer than a guest's session lives.
        overlay.world.run_for(Duration::from_secs(700));
        let stranger = overlay.node(number);
        assert!(
            matches!(stranger.node.standing(), Standing::Joining(what) if what.contains("signer")),
            "{}",
            overlay.standings()
        );
        assert_eq!(overlay.node(0).node.policy().members().count(), 2, "nobody is admitted by such a ticket");
        let machine = &stranger.machine;
        let candidate = Candidate {
            id: machine.id(),
            node_key: machine.signing_key("node").verifying_key(),
            transport_key: machine.transport().public_key(),
            name: Some("late".parse().unwrap()),
            tags: BTreeSet::new(),
        };
        overlay.order(0, |node, now| node.authorize(now, candidate)).unwrap();
        overlay.wait_for_everybody();
        for (from, to) in [(number, 1), (1, number), (number, 0)] {
            assert!(overlay.talk(from, to, false, PATIENCE).is_some(), "{weather:?}: {from} → {to}");
        }
    }
}
