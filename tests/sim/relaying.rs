//! Members whose NATs let nobody in, and those who help them.

use crate::machine::{SimNode, Tamper};
use crate::nat::{Behaviour, NatType};
use crate::overlay::{Overlay, PATIENCE};
use crate::world::{Weather, World};
use p2plus::node::relay::RelayLimits;
use p2plus::node::relay::{MAX_LABELS, MAX_LABELS_PER_MEMBER};
use p2plus::node::status::Way;
use p2plus::wire::control::{ControlMessage, LabelRequest, NatKind};
use p2plus::wire::datagram::Lane;
use p2plus::wire::drops::DropReason;
use p2plus::wire::relay::{ENVELOPE_LEN, Envelope, Label};
use p2plus::wire::transport_record::RECORD_CONTROL;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::net::SocketAddr;
use std::time::Duration;

/// The way from one node to another.
fn way(overlay: &Overlay, from: usize, to: usize) -> Option<Way> {
    let key = overlay.member(to).transport_key;
    overlay.node(from).node.way_to(&key)
}

fn is_relayed(overlay: &Overlay, from: usize, to: usize) -> bool {
    matches!(way(overlay, from, to), Some(Way::Relayed(_)))
}

#[test]
fn two_behind_nats_that_let_nobody_in_reach_each_other_through_a_member_that_everybody_reaches() {
    for seed in 200..205 {
        let mut overlay = Overlay::found(seed, Weather::FAIR);
        let [ada, ben] = [(); 2].map(|()| overlay.invite_behind(NatType::SYMMETRIC));
        overlay.wait_for_everybody();
        overlay.world.run_for(Duration::from_secs(15));
        let took = overlay.talk(ada, ben, false, PATIENCE).expect("a way through the founder");
        assert!(took <= Duration::from_secs(1), "seed {seed}: {took:?}");
        assert!(is_relayed(&overlay, ada, ben), "{:?}", way(&overlay, ada, ben));
        assert!(overlay.talk(ben, ada, true, PATIENCE).expect("and back") <= Duration::from_secs(1));
        let circuits = overlay.node(0).node.circuits(overlay.world.now().instant);
        assert!((1..=2).contains(&circuits.len()), "each may have asked: {circuits:?}");
        overlay.assert_no_duplicates();
    }
}

#[test]
fn who_starts_asks_its_relay_for_a_way_before_it_is_told_where_anybody_is() {
    let mut overlay = Overlay::found(205, Weather::FAIR);
    let [ada, ben] = [(); 2].map(|()| overlay.invite_behind(NatType::SYMMETRIC));
    overlay.wait_for_everybody();
    overlay.world.run_for(Duration::from_secs(15));
    // Of a link's length: four until the founder is known to be there, two for the question, four for the member's handshake through it, two for
    // the packet.
    let far = Duration::from_millis(100);
    overlay.world.distance = Some(Box::new(move |_, _| far));
    let mut machine = overlay.kill(ada);
    machine.remember(vec![(overlay.id(0), overlay.addresses[0])]);
    overlay.world.run_for(Duration::from_secs(10));
    overlay.revive(machine);
    let took = overlay.talk(ada, ben, false, PATIENCE).expect("a way through the founder");
    assert!(took <= far * 13, "{took:?}");
}

#[test]
fn each_pair_of_nats_comes_to_what_their_behaviour_permits_and_never_waits() {
    for (number, one) in NatType::ALL.into_iter().enumerate() {
        for (other_number, other) in NatType::ALL.into_iter().enumerate() {
            let seed = 210 + 10 * number as u64 + other_number as u64;
            let mut overlay = Overlay::found(seed, Weather::FAIR);
            let [ada, ben] = [one, other].map(|kind| overlay.invite_behind(kind));
            overlay.wait_for_everybody();
            overlay.world.run_for(Duration::from_secs(15));
            let took = overlay.talk(ada, ben, false, PATIENCE).expect("a way");
            assert!(took <= Duration::from_secs(1), "{one:?} and {other:?}: {took:?}");
            let direct = |overlay: &Overlay| !is_relayed(overlay, ada, ben) && !is_relayed(overlay, ben, ada);
            let start = overlay.world.now().instant;
            while !direct(&overlay) && overlay.world.now().instant < start + Duration::from_secs(8) {
                overlay.talk(ada, ben, false, PATIENCE).expect("it goes on");
                overlay.world.run_for(Duration::from_millis(100));
            }
            assert_eq!(direct(&overlay), one.meets(other), "{one:?} and {other:?}");
            overlay.assert_no_duplicates();
        }
    }
}

#[test]
fn one_relay_alone_tells_a_node_what_its_nat_does_and_becomes_no_path_for_it() {
    for (number, kind) in NatType::ALL.into_iter().enumerate() {
        let mut overlay = Overlay::found(320 + number as u64, Weather::FAIR);
        // A relay is known by those who came to it unasked.
        let [ada, _] = [(); 2].map(|()| overlay.invite_behind(kind));
        overlay.wait_for_everybody();
        overlay.world.run_for(Duration::from_secs(40));
        let placement = overlay.node(ada).node.placement();
        let expected = match kind.mapping {
            Behaviour::Independent => NatKind::Independent,
            Behaviour::Dependent => NatKind::Dependent,
        };
        assert_eq!(placement.nat, expected, "{kind:?}");
        assert_eq!(overlay.node(0).spares.open.len(), 1, "one ear for all");
        let founder = overlay.member(0);
        let ways = overlay.node(ada).node.explain_ways(overlay.world.now().instant, &founder).ways;
        assert!(ways.iter().all(|way| way.way == Way::Direct(overlay.addresses[0])), "{ways:?}");
        let seen = overlay.node(0).node.explain_ways(overlay.world.now().instant, &overlay.member(ada)).ways;
        assert!(seen.iter().filter(|way| way.heard.is_some()).count() <= 1, "{seen:?}");
    }
}

#[test]
fn without_any_relay_a_member_in_touch_with_both_brings_them_together() {
    let off = RelayLimits { is_on: false, member_rate: None, whole_rate: None };
    for seed in 240..245 {
        let mut overlay = Overlay::found(seed, Weather::FAIR);
        overlay.order(0, |node, now| node.handle_relay_limits(now, off));
        let [ada, ben] = [(); 2].map(|()| overlay.invite_behind(NatType::RESTRICTED));
        overlay.wait_for_everybody();
        overlay.world.run_for(Duration::from_secs(15));
        let took = overlay.talk(ada, ben, false, PATIENCE).expect("both begin at once");
        assert!(took <= Duration::from_secs(2), "seed {seed}: {took:?}");
        assert!(!is_relayed(&overlay, ada, ben));
    }
}

/// Two behind symmetric NATs, the founder, and another node that everybody reaches: both relays are known to all.
fn with_two_relays(seed: u64) -> (Overlay, [usize; 2], [usize; 2]) {
    let mut overlay = Overlay::found(seed, Weather::FAIR);
    let other = overlay.invite_one();
    let ends = [(); 2].map(|()| overlay.invite_behind(NatType::SYMMETRIC));
    overlay.wait_for_everybody();
    let home = |overlay: &Overlay, end: usize| overlay.node(end).node.home_relays().len() == 2;
    let mut waited = 0;
    while !ends.iter().all(|end| home(&overlay, *end)) {
        overlay.world.run_for(Duration::from_secs(1));
        waited += 1;
        assert!(waited < 120, "seed {seed}: two relays, and both ends at home at them");
    }
    overlay.talk(ends[0], ends[1], false, PATIENCE).expect("a way");
    (overlay, [0, other], ends)
}

/// The relay in use from one node to another.
fn relay_between(overlay: &Overlay, relays: [usize; 2], [from, to]: [usize; 2]) -> usize {
    let Some(Way::Relayed(name)) = way(overlay, from, to) else { panic!("{:?}", way(overlay, from, to)) };
    relays.into_iter().find(|relay| overlay.member(*relay).name == name).unwrap()
}

#[test]
fn relays_that_die_in_turn_and_come_again_are_replaced_each_time() {
    for seed in 330..333 {
        let (mut overlay, relays, ends) = with_two_relays(seed);
        for round in 0..6 {
            let before = overlay.longest_gap(ends, Duration::from_secs(18));
            assert!(before < Duration::from_secs(1), "seed {seed}, round {round}: {before:?}");
            let used = relay_between(&overlay, relays, ends);
            let machine = overlay.kill(used);
            let gap = overlay.longest_gap(ends, Duration::from_secs(8));
            assert!(gap < Duration::from_secs(1), "seed {seed}, round {round}: {gap:?}");
            overlay.revive(machine);
        }
    }
}

#[test]
fn a_relay_that_dies_is_replaced_within_a_second() {
    for seed in 250..255 {
        let (mut overlay, relays, ends) = with_two_relays(seed);
        assert!(overlay.longest_gap(ends, Duration::from_secs(20)) < Duration::from_millis(150));
        let used = relay_between(&overlay, relays, ends);
        let at = overlay.addresses[used];
        overlay.world.remove(at);
        let gap = overlay.longest_gap(ends, Duration::from_secs(10));
        assert!(gap < Duration::from_secs(1), "seed {seed}: {gap:?}");
    }
}

#[test]
fn a_hostile_relay_can_break_no_more_than_its_own_path() {
    let drop_all: Tamper = |_| Vec::new();
    let alter: Tamper = |mut datagram| {
        let at = ENVELOPE_LEN + (datagram.len() - ENVELOPE_LEN) / 2;
        datagram[at] ^= 1;
        vec![datagram]
    };
    for (number, tamper) in [drop_all, alter].into_iter().enumerate() {
        let (mut overlay, relays, ends) = with_two_relays(260 + number as u64);
        overlay.longest_gap(ends, Duration::from_secs(20));
        let used = relay_between(&overlay, relays, ends);
        overlay.world.with(overlay.addresses[used], |host, _| host.tamper = Some(tamper));
        let gap = overlay.longest_gap(ends, Duration::from_secs(10));
        assert!(gap < Duration::from_secs(1), "{number}: {gap:?}");
        assert_ne!(relay_between(&overlay, relays, ends), used, "{number}");
        overlay.assert_no_duplicates();
    }
    // Everything twice, and once more with another label: nothing comes twice, nothing comes wrong.
    let (mut overlay, relays, ends) = with_two_relays(262);
    let used = relay_between(&overlay, relays, ends);
    overlay.world.with(overlay.addresses[used], |host, _| {
        host.tamper = Some(|datagram| {
            let mut other = datagram.clone();
            other[ENVELOPE_LEN - 1] ^= 0x80;
            vec![datagram.clone(), datagram, other]
        });
    });
    assert!(overlay.longest_gap(ends, Duration::from_secs(10)) < Duration::from_millis(150));
    overlay.assert_no_duplicates();
    assert!(overlay.node(ends[1]).dropped(DropReason::Replayed) > 100);
    assert!(overlay.node(ends[1]).dropped(DropReason::UnknownLabel) > 100);
}

#[test]
fn a_revocation_ends_the_circuits_of_its_member_everywhere() {
    let (mut overlay, _, [ada, ben]) = with_two_relays(265);
    let cut = overlay.member(ben);
    overlay.order(0, |node, now| node.revoke(now, cut.id)).unwrap();
    overlay.world.run_for(Duration::from_secs(5));
    for number in [0, 1, ada] {
        // It is let in as a guest, to learn why.
        let places = overlay.node(number).node.mentions(&cut);
        assert!(!places.contains(&"relaying"), "node {number}: {places:?}");
        let circuits = overlay.node(number).node.circuits(overlay.world.now().instant);
        assert!(circuits.iter().all(|circuit| !circuit.ends.contains(&cut.id)), "node {number}: {circuits:?}");
    }
}

fn control(message: &ControlMessage) -> Vec<u8> {
    [&[RECORD_CONTROL][..], &message.encode()].concat()
}

#[test]
fn who_asks_for_labels_without_end_for_itself_in_circles_or_for_strangers_gets_few() {
    let (mut overlay, [relay, other], [ada, ben]) = with_two_relays(266);
    let before = overlay.node(relay).node.circuits(overlay.world.now().instant).len();
    let ids = [ada, ben, relay, other].map(|number| overlay.id(number));
    let stranger = p2plus::crypto::identity::NodeId([7; 32]);
    let ask = |id, origin, target, through: &[_]| {
        control(&ControlMessage::LabelRequest(LabelRequest { id, origin, target, through: through.to_vec() }))
    };
    let [ada_id, ben_id, relay_id, other_id] = ids;
    let bad = [
        ask(1, ada_id, ada_id, &[]),
        ask(2, ada_id, relay_id, &[]),
        ask(3, ada_id, ben_id, &[relay_id]),
        ask(4, ada_id, ben_id, &[other_id, other_id]),
        ask(5, ada_id, ben_id, &[ben_id]),
        ask(6, ada_id, stranger, &[]),
        ask(7, stranger, ben_id, &[]),
        ask(8, ada_id, ben_id, &[stranger]),
        ask(9, ada_id, ben_id, &[ada_id]),
    ];
    let lane = Lane::new(14, 0);
    let at = overlay.addresses[ada];
    assert!(overlay.world.with(at, |host, now| host.send_record(now, &relay_id, lane, &bad)));
    overlay.world.run_for(Duration::from_secs(1));
    let circuits = |overlay: &Overlay| overlay.node(relay).node.circuits(overlay.world.now().instant).len();
    assert_eq!(circuits(&overlay), before);
    for round in 0..20 {
        let flood: Vec<_> = (0..500).map(|id| ask(1000 * round + id, ada_id, ben_id, &[])).collect();
        overlay.world.with(at, |host, now| host.send_record(now, &relay_id, Lane::new(13, round as u8 % 16), &flood));
        overlay.world.run_for(Duration::from_secs(1));
    }
    let after = circuits(&overlay);
    assert!(2 * after <= MAX_LABELS_PER_MEMBER + 2 * before, "{after} circuits");
    assert!(overlay.talk(ada, ben, false, PATIENCE).is_some(), "and the others work on");
}

#[test]
fn labels_that_are_guessed_or_come_from_elsewhere_lead_nowhere() {
    let (mut overlay, [relay, _], _) = with_two_relays(267);
    let (to, attacker) = (overlay.addresses[relay], SocketAddr::from(([198, 51, 100, 66], 4647)));
    let used: Vec<_> = overlay.node(relay).table.labels.keys().map(|(_, label)| *label).collect();
    assert!(used.len() >= 2 && used.len() <= MAX_LABELS);
    let mut rng = ChaCha20Rng::seed_from_u64(267);
    let guessed = (0..10_000).map(|_| Label(rng.next_u32()));
    let labels: Vec<_> = used.into_iter().chain(guessed).collect();
    overlay.world.wire = Some(Vec::new());
    for label in &labels {
        let datagram = [&Envelope::first(*label).encode(100)[..], &[0x10; 100]].concat();
        overlay.world.inject(attacker, to, datagram);
    }
    overlay.world.run_for(Duration::from_secs(1));
    assert_eq!(overlay.node(relay).dropped(DropReason::UnknownLabel), labels.len() as u64);
    let wire = overlay.world.wire.take().unwrap();
    assert!(wire.iter().all(|sighting| sighting.datagram.get(ENVELOPE_LEN..) != Some(&[0x10; 100][..])));
}

#[test]
fn three_relays_in_a_row_pass_on_and_no_fourth() {
    let mut overlay = Overlay::found(270, Weather::FAIR);
    let relays = [0, overlay.invite_one(), overlay.invite_one()];
    let [ada, ben] = [(); 2].map(|()| overlay.invite_behind(NatType::SYMMETRIC));
    overlay.wait_for_everybody();
    for (from, to) in [(relays[0], relays[1]), (relays[1], relays[2]), (ada, relays[0]), (ben, relays[2])] {
        overlay.talk(from, to, false, PATIENCE).unwrap();
    }
    // Only who is known as a relay asks for others.
    let places: Vec<_> = relays[..2].iter().map(|relay| overlay.addresses[*relay]).collect();
    let both_relay = |world: &World<SimNode>| places.iter().all(|at| world.host(*at).node.relay_limits().1);
    assert!(overlay.world.run_until(PATIENCE, both_relay).is_some());
    overlay.world.run_for(Duration::from_secs(2));
    let (first, through) = (overlay.id(relays[0]), [overlay.id(relays[1]), overlay.id(relays[2])]);
    let request = LabelRequest { id: 77, origin: overlay.id(ada), target: overlay.id(ben), through: through.to_vec() };
    let record = control(&ControlMessage::LabelRequest(request));
    let at = overlay.addresses[ada];
    assert!(overlay.world.with(at, |host, now| host.send_record(now, &first, Lane::new(14, 0), &[record])));
    overlay.world.run_for(Duration::from_secs(2));
    let ends = [overlay.id(ada), overlay.id(ben)];
    for relay in relays {
        let circuits = overlay.node(relay).node.circuits(overlay.world.now().instant);
        assert!(circuits.iter().any(|circuit| circuit.ends == ends), "relay {relay}: {circuits:?}");
    }
}

/// Two behind home routers that speak directly.
fn two_in_touch(seed: u64) -> (Overlay, [usize; 2]) {
    let mut overlay = Overlay::found(seed, Weather::FAIR);
    let [ada, ben] = [(); 2].map(|()| overlay.invite_behind(NatType::RESTRICTED));
    overlay.wait_for_everybody();
    overlay.world.run_for(Duration::from_secs(15));
    overlay.talk(ada, ben, false, PATIENCE).unwrap();
    overlay.longest_gap([ada, ben], Duration::from_secs(20));
    assert!(!is_relayed(&overlay, ada, ben), "direct first");
    (overlay, [ada, ben])
}

#[test]
fn a_nat_that_was_switched_off_and_on_is_got_over_within_two_seconds() {
    for seed in 275..278 {
        let (mut overlay, [ada, ben]) = two_in_touch(seed);
        overlay.world.nats[0].reboot();
        let gap = overlay.longest_gap([ben, ada], Duration::from_secs(10));
        assert!(gap < Duration::from_secs(2), "seed {seed}: {gap:?}");
    }
}

#[test]
fn a_direct_path_that_dies_in_one_direction_is_left_by_both() {
    for seed in 280..285 {
        let (mut overlay, [ada, ben]) = two_in_touch(seed);
        let (home, gate) = (overlay.addresses[ada].ip(), overlay.world.nats[1].public());
        overlay.world.cut = Box::new(move |from, to| from.ip() == home && to.ip() == gate);
        let gap = overlay.longest_gap([ada, ben], Duration::from_secs(10));
        assert!(gap < Duration::from_secs(2), "seed {seed}: {gap:?}");
        assert!(is_relayed(&overlay, ada, ben) && is_relayed(&overlay, ben, ada), "seed {seed}");
    }
}
