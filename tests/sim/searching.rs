//! NATs that choose another port for each conversation, met by many conversations at one end and guesses from the other.

use crate::nat::NatType;
use crate::overlay::{Overlay, PATIENCE};
use crate::world::Weather;
use p2plus::node::Underlay;
use p2plus::node::status::Way;
use std::net::SocketAddr;
use std::time::Duration;

/// Meetings that the shares are taken of.
const MEETINGS: u64 = 120;

/// Longer than a session lives, by which the one that stays would still hold what it opened before.
const APART: Duration = Duration::from_secs(300);

/// Two members behind such NATs. The first one's daemon starts just now, and knows nothing of its NAT.
fn apart(seed: u64, kinds: [NatType; 2]) -> (Overlay, [usize; 2]) {
    let mut overlay = Overlay::found(seed, Weather::FAIR);
    let ends = kinds.map(|kind| overlay.invite_behind(kind));
    overlay.wait_for_everybody();
    // The founder has to become a relay.
    overlay.world.run_for(Duration::from_secs(20));
    let machine = overlay.kill(ends[0]);
    overlay.world.run_for(APART);
    overlay.revive(machine);
    (overlay, ends)
}

fn is_direct(overlay: &Overlay, [from, to]: [usize; 2]) -> bool {
    let way = |from: usize, to: usize| {
        let key = overlay.member(to).transport_key;
        overlay.node(from).node.way_to(&key)
    };
    [way(from, to), way(to, from)].iter().all(|way| matches!(way, Some(Way::Direct(_))))
}

/// Has one call the other, and waits for a direct path. Returns how long that took from the first packet on.
fn meet(overlay: &mut Overlay, ends: [usize; 2], limit: Duration) -> Option<Duration> {
    let start = overlay.world.now().instant;
    overlay.talk(ends[0], ends[1], false, PATIENCE).expect("a way through the founder");
    while overlay.world.now().instant < start + limit {
        if is_direct(overlay, ends) {
            return Some(overlay.world.now().instant.saturating_since(start));
        }
        overlay.send(ends[0], ends[1], false);
        overlay.world.run_for(Duration::from_millis(20));
    }
    None
}

#[test]
fn a_symmetric_nat_and_a_restricted_one_are_opened_for_each_other_within_seconds() {
    let (mut times, mut kept) = (Vec::new(), 0);
    for number in 0..MEETINGS {
        let mut kinds = [NatType::SYMMETRIC, NatType::RESTRICTED];
        kinds.rotate_left(number as usize % 2);
        let (mut overlay, ends) = apart(4000 + number, kinds);
        times.push(meet(&mut overlay, ends, Duration::from_secs(8)));
        assert!(times[number as usize].is_some(), "meeting {number}: no port was hit, as in one of 1,600");
        overlay.world.run_for(Duration::from_secs(1));
        let symmetric = ends[number as usize % 2];
        // A guess may hit what the ordinary socket opened.
        let open = overlay.node(symmetric).spares.open.len();
        assert!(open <= 1, "what no path uses is closed");
        kept += open as u64;
        assert!(overlay.node(ends[1 - number as usize % 2]).spares.open.is_empty());
        for _ in 0..if number < 4 { 3 } else { 0 } {
            overlay.talk(ends[1], ends[0], true, PATIENCE).expect("both ways");
            overlay.world.run_for(Duration::from_secs(40));
        }
        assert!(is_direct(&overlay, ends), "the socket that was hit is kept");
        overlay.assert_no_duplicates();
    }
    let within = |seconds| times.iter().flatten().filter(|time| **time <= Duration::from_secs(seconds)).count() as u64;
    let mut sorted: Vec<_> = times.iter().flatten().collect();
    sorted.sort_unstable();
    println!(
        "{MEETINGS} meetings: direct within 3 s {}, within 6 s {}; median {:?}, longest {:?}",
        within(3),
        within(6),
        sorted[sorted.len() / 2],
        sorted.last().unwrap()
    );
    assert!(kept >= MEETINGS - 2, "the socket that is hit stays open: {kept}");
    assert!(100 * within(3) >= 95 * MEETINGS, "{times:?}");
    assert_eq!(within(6), MEETINGS, "{times:?}");
}

#[test]
fn two_symmetric_nats_are_searched_by_nobody() {
    let (mut overlay, ends) = apart(4200, [NatType::SYMMETRIC; 2]);
    overlay.world.wire = Some(Vec::new());
    assert_eq!(meet(&mut overlay, ends, Duration::from_secs(20)), None);
    let wire = overlay.world.wire.take().unwrap();
    let strange = wire.iter().filter(|it| it.from == overlay.addresses[ends[0]] && it.to != overlay.addresses[0]);
    assert!(strange.count() < 100, "punching alone");
    assert!(ends.iter().all(|end| overlay.node(*end).spares.open.is_empty()));
}

#[test]
fn a_host_that_moves_closes_what_it_opened_and_searches_anew_there() {
    let (mut overlay, ends) = apart(4210, [NatType::SYMMETRIC, NatType::RESTRICTED]);
    overlay.talk(ends[0], ends[1], false, PATIENCE).unwrap();
    let is_searching = |overlay: &Overlay| overlay.node(ends[0]).spares.open.len() > 200;
    for _ in 0..100 {
        if is_searching(&overlay) {
            break;
        }
        overlay.world.run_for(Duration::from_millis(20));
    }
    assert!(is_searching(&overlay), "a search is under way");
    let elsewhere = Underlay { endpoints: vec![SocketAddr::from(([10, 0, 77, 2], 4647))], connected: Vec::new() };
    overlay.order(ends[0], |node, now| node.handle_underlay(now, elsewhere));
    assert!(overlay.node(ends[0]).spares.open.is_empty());
    assert!(meet(&mut overlay, ends, Duration::from_secs(80)).is_some(), "once more, a minute later");
}

#[test]
fn who_names_a_victim_in_its_calls_sends_it_a_bounded_number_of_guesses() {
    let mut overlay = Overlay::found(4220, Weather::FAIR);
    // Two that see the liar's NAT, which no lie changes.
    overlay.invite_one();
    let ends = [NatType::RESTRICTED, NatType::SYMMETRIC].map(|kind| overlay.invite_behind(kind));
    overlay.wait_for_everybody();
    let victim = SocketAddr::from(([198, 51, 100, 9], 53));
    let lie = Underlay { endpoints: vec![victim, overlay.addresses[ends[1]]], connected: Vec::new() };
    overlay.order(ends[1], |node, now| node.handle_underlay(now, lie));
    overlay.world.run_for(Duration::from_secs(10));
    overlay.world.wire = Some(Vec::new());
    // An answer would end the search.
    let (ada, liar) = (overlay.addresses[ends[0]], overlay.world.nats[1].public());
    overlay.world.cut = Box::new(move |from, to| from == ada && to.ip() == liar);
    for _ in 0..180 {
        overlay.send(ends[0], ends[1], false);
        overlay.send(ends[1], ends[0], false);
        overlay.world.run_for(Duration::from_secs(1));
    }
    let wire = overlay.world.wire.take().unwrap();
    let sent = wire.iter().filter(|it| it.from == overlay.addresses[ends[0]] && it.to.ip() == victim.ip()).count();
    println!("{sent} datagrams in three minutes");
    assert!((500..3 * 2000 + 200).contains(&sent), "{sent} datagrams in three minutes");
}
