//! Who is not needed is left alone: sessions that nothing uses fall silent and end, but for those of neighbours.

use crate::crowd::nat_of;
use crate::nat::NatType;
use crate::overlay::{Overlay, PATIENCE};
use crate::world::Weather;
use p2plus::node::gossip::{NEIGHBOURS, neighbours};
use p2plus::wire::datagram::TYPE_RELAY;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// Longer than any key lives that is not renewed.
const IDLE: Duration = Duration::from_secs(400);

fn keeps(overlay: &Overlay, from: usize, to: usize) -> bool {
    let members = overlay.node(from).node.policy().members().map(|member| member.id);
    let chosen = neighbours(&overlay.id(from), members, overlay.world.now().wall);
    // Who is not known to be reached by everybody keeps a few relays close.
    chosen[..NEIGHBOURS].contains(&overlay.id(to)) || overlay.node(from).node.home_relays().contains(&overlay.id(to))
}

/// The pairs of nodes of which at least one keeps the other close, both ways round.
fn related(overlay: &Overlay) -> BTreeSet<(usize, usize)> {
    let count = overlay.addresses.len();
    let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
    pairs.filter(|(from, to)| keeps(overlay, *from, *to) || keeps(overlay, *to, *from)).collect()
}

/// The pairs that have a session, as the first sees it.
fn in_session(overlay: &Overlay) -> BTreeSet<(usize, usize)> {
    let now = overlay.world.now();
    let mut pairs = BTreeSet::new();
    for from in 0..overlay.addresses.len() {
        for peer in overlay.node(from).node.peers(now) {
            let to = (0..overlay.addresses.len()).find(|to| overlay.id(*to) == peer.member.id).unwrap();
            if peer.session.is_some() {
                pairs.insert((from, to));
            }
        }
    }
    pairs
}

/// The pairs between which datagrams travel within a span.
fn speaking(overlay: &mut Overlay, span: Duration) -> BTreeSet<(usize, usize)> {
    overlay.world.wire = Some(Vec::new());
    overlay.world.run_for(span);
    let number = |at: SocketAddr| overlay.addresses.iter().position(|address| *address == at).unwrap();
    let mut wire = overlay.world.wire.take().unwrap();
    // What a relay passes on is what others say: neighbours keep their second way warm.
    wire.retain(|sighting| sighting.datagram[0] != TYPE_RELAY);
    wire.iter().map(|sighting| (number(sighting.from), number(sighting.to))).collect()
}

#[test]
fn two_that_talked_once_fall_silent_forget_each_other_and_talk_again() {
    let mut overlay = Overlay::of(9, 130, Weather::FAIR);
    overlay.world.run_for(IDLE);
    let close = related(&overlay);
    assert_eq!(in_session(&overlay), close, "neighbours have sessions, and nobody else");
    let strangers = (0..9).flat_map(|from| (0..9).map(move |to| (from, to)));
    let (from, to) =
        strangers.filter(|pair| pair.0 != pair.1).find(|pair| !close.contains(pair)).expect("a pair apart");
    for _ in 0..2 {
        let took = overlay.talk(from, to, true, PATIENCE).expect("they find each other");
        assert!(took < Duration::from_secs(2), "{took:?}");
        overlay.world.run_for(Duration::from_secs(1));
        assert!(in_session(&overlay).is_superset(&BTreeSet::from([(from, to), (to, from)])));
        overlay.world.run_for(Duration::from_secs(70));
        let heard = speaking(&mut overlay, Duration::from_secs(60));
        assert_eq!(heard, close, "idle, they are silent while neighbours speak");
        overlay.world.run_for(Duration::from_secs(60));
        assert_eq!(in_session(&overlay), close, "and their session is gone");
    }
    overlay.assert_no_duplicates();
}

#[test]
fn a_validator_proves_freshness_to_whoever_keeps_it_close() {
    let mut overlay = Overlay::of(9, 132, Weather::FAIR);
    overlay.world.run_for(IDLE);
    let now = overlay.world.now();
    let choosers: Vec<_> = (1..9).filter(|number| keeps(&overlay, *number, 0)).collect();
    assert!(choosers.iter().any(|number| !keeps(&overlay, 0, *number)), "somebody keeps it who is not kept");
    for number in choosers {
        let age = overlay.node(number).node.ledger_age(now);
        assert!(age.is_some_and(|age| age < Duration::from_secs(12)), "node {number}: {age:?}");
    }
}

#[test]
fn two_that_go_on_talking_keep_their_session() {
    let mut overlay = Overlay::of(9, 131, Weather::FAIR);
    overlay.world.run_for(IDLE);
    let close = related(&overlay);
    let pairs = (0..9).flat_map(|from| (0..9).map(move |to| (from, to)));
    let (from, to) = pairs.filter(|pair| pair.0 != pair.1).find(|pair| !close.contains(pair)).expect("a pair apart");
    overlay.talk(from, to, false, PATIENCE).unwrap();
    for _ in 0..80 {
        let packet = overlay.send(from, to, false);
        overlay.world.run_for(Duration::from_secs(5));
        assert_eq!(overlay.received(to, &packet), 1, "every packet arrives, across two renewals");
    }
}

#[test]
fn who_talks_again_after_the_nats_forgot_is_soon_heard() {
    let mut overlay = Overlay::crowd(30, 30, 7016);
    overlay.world.run_for(Duration::from_secs(120));
    let is_restricted = |number: &usize| nat_of(*number) == Some(NatType::RESTRICTED);
    let everybody: Vec<_> = (1..30).filter(is_restricted).collect();
    let pairs: Vec<_> = everybody.windows(2).map(|two| [two[0], two[1]]).collect();
    let apart = |[from, to]: &[usize; 2]| !keeps(&overlay, *from, *to) && !keeps(&overlay, *to, *from);
    let pairs: Vec<_> = pairs.into_iter().filter(apart).take(8).collect();
    assert!(pairs.len() == 8);
    // Before their keys are to be renewed, while they are, and after they were forgotten.
    for idle in [40, 80, 110, 130, 150, 170, 190] {
        for [from, to] in &pairs {
            overlay.talk(*from, *to, false, PATIENCE).unwrap();
        }
        overlay.world.run_for(Duration::from_secs(idle));
        for [from, to] in &pairs {
            let took = overlay.talk(*to, *from, false, PATIENCE).unwrap();
            assert!(took < Duration::from_secs(1), "{to} to {from} after {idle} s: {took:?}");
        }
    }
}
