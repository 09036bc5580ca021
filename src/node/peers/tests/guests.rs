//! Who gets a guest's place, and who gives one up.

use super::*;
use crate::node::peers::guests::MAX_GUESTS_PER_ORIGIN;

/// A host and the moment; guests come a fifth of a second apart, slower than half-open handshakes pile up.
struct House {
    host: Side,
    millis: u64,
}

impl House {
    fn new() -> Self {
        Self { host: Side::new(200, &[200]), millis: 0 }
    }

    /// Lets the guest with this seed come from an address.
    fn enter(&mut self, seed: u8, from: [u8; 4]) -> Side {
        let mut guest = Side::new(seed, &[200]).knows(200);
        guest.endpoint = SocketAddr::from((from, 1000 + u16::from(seed)));
        // Longer than a half-open handshake lives: those of an address have a bound of their own.
        self.millis += if self.count() < 8 { 2100 } else { 200 };
        guest.connect(at(self.millis), 200);
        carry(at(self.millis), &mut guest, &mut self.host);
        guest
    }

    fn speak(&mut self, guest: &mut Side) {
        self.millis += 10;
        guest.table.send_stream(at(self.millis), transport(200).public_key(), b"a word", true);
        carry(at(self.millis), guest, &mut self.host);
    }

    fn is_in(&self, seed: u8) -> bool {
        self.host.table.usable().any(|(key, _)| key == transport(seed).public_key())
    }

    fn count(&self) -> usize {
        self.host.table.usable().count()
    }
}

#[test]
fn one_host_has_a_few_places_and_its_most_silent_guest_makes_room() {
    let mut house = House::new();
    let own = [192, 0, 2, 1];
    let mut guests: Vec<_> = (1..=MAX_GUESTS_PER_ORIGIN as u8).map(|seed| house.enter(seed, own)).collect();
    assert_eq!(house.count(), MAX_GUESTS_PER_ORIGIN);
    // The second one is silent.
    for seed in [1, 3, 4] {
        house.speak(&mut guests[seed - 1]);
    }
    house.enter(10, [192, 0, 2, 9]);
    assert!(house.is_in(2) && house.is_in(10), "another host's guest takes no place of theirs");
    house.enter(5, own);
    assert!(!house.is_in(2) && [1, 3, 4, 5, 10].into_iter().all(|seed| house.is_in(seed)));
    for seed in 20..100 {
        house.enter(seed, own);
        assert_eq!(house.count(), MAX_GUESTS_PER_ORIGIN + 1);
    }
    assert!(house.is_in(10));
}

#[test]
fn when_all_places_are_taken_a_greedy_or_idle_guest_makes_room_and_no_busy_one() {
    let mut house = House::new();
    let mut guests: Vec<_> = (0..MAX_GUESTS as u8).map(|seed| house.enter(seed + 1, [192, 0, 2, seed / 4])).collect();
    assert_eq!(house.count(), MAX_GUESTS);
    guests.iter_mut().for_each(|guest| house.speak(guest));
    house.enter(100, [198, 51, 100, 1]);
    assert!(house.is_in(100) && house.count() == MAX_GUESTS, "one of a host with four goes");
    assert!(!house.is_in(1), "that was silent for longest");

    let mut house = House::new();
    let mut guests: Vec<_> = (1..=MAX_GUESTS as u8).map(|seed| house.enter(seed, [192, 0, 2, seed])).collect();
    house.enter(100, [198, 51, 100, 1]);
    assert!(!house.is_in(100) && house.count() == MAX_GUESTS, "nobody goes for a stranger");
    assert_eq!(house.host.dropped(DropReason::NoPlace), 1);
    house.millis += 20_000;
    guests.iter_mut().skip(1).for_each(|guest| house.speak(guest));
    house.millis += 20_000;
    house.enter(101, [198, 51, 100, 2]);
    assert!(house.is_in(101) && !house.is_in(1), "who was silent for long goes");
    assert!(guests[1..].iter().enumerate().all(|(index, _)| house.is_in(index as u8 + 2)));
}

#[test]
fn who_finds_no_place_gets_no_answer_however_often_it_repeats_itself() {
    let mut house = House::new();
    (1..=MAX_GUESTS as u8).for_each(|seed| drop(house.enter(seed, [192, 0, 2, seed])));
    let mut late = Side::new(100, &[200]).knows(200);
    late.endpoint = SocketAddr::from(([198, 51, 100, 1], 1000));
    house.millis += 200;
    let held = house.host.table.holdings();
    late.connect(at(house.millis), 200);
    let mut answered = 0;
    for step in 0..8 {
        let now = at(house.millis + step * 600);
        late.handle_timeout(now);
        for transmit in late.sent() {
            house.host.receive(now, late.endpoint, transmit.datagram);
        }
        for transmit in house.host.sent() {
            answered += usize::from(transmit.datagram[0] == 3);
            late.receive(now, house.host.endpoint, transmit.datagram);
        }
    }
    assert_eq!(answered, 0);
    assert_eq!(house.host.dropped(DropReason::NoPlace), 1);
    assert_eq!((house.host.table.holdings().indices, house.count()), (held.indices, MAX_GUESTS));
}

#[test]
fn nobody_looks_for_a_guest_that_fell_silent() {
    let mut house = House::new();
    let guest = house.enter(1, [192, 0, 2, 1]);
    house.millis += 10;
    house.host.table.send_stream(at(house.millis), transport(1).public_key(), b"a question", true);
    let mut sent = house.host.sent();
    for millis in (house.millis..house.millis + 60_000).step_by(250) {
        house.host.handle_timeout(at(millis));
        sent.extend(house.host.sent());
    }
    assert!(sent.len() > 3, "it is asked again");
    for Transmit { path, datagram, .. } in sent {
        assert_eq!(path.remote, guest.endpoint);
        assert!(datagram.len() < 200, "by no flight of a handshake: {} bytes", datagram.len());
    }
}

/// A host that calls its only guest from a new place, and hears its goodbye meanwhile.
fn called_while_leaving() -> House {
    let mut house = House::new();
    let mut guest = house.enter(1, [192, 0, 2, 1]);
    let now = at(house.millis);
    let Side { policy, table, rng, .. } = &mut house.host;
    table.handle_underlay_change(&mut Context { now, policy, rng });
    assert!(house.host.sent().iter().any(|transmit| transmit.datagram[0] == 1), "it is called");
    guest.table.say_goodbye(now);
    guest.sent().into_iter().for_each(|transmit| house.host.receive(now, guest.endpoint, transmit.datagram));
    let held = house.host.table.holdings();
    assert_eq!((held.peers, held.sessions, held.owners), (1, 0, 1), "the call is under way");
    house
}

#[test]
fn a_guest_that_left_is_forgotten_once_nobody_calls_it_any_more() {
    let mut house = called_while_leaving();
    for millis in (house.millis..house.millis + 6000).step_by(250) {
        house.host.handle_timeout(at(millis));
    }
    let held = house.host.table.holdings();
    assert_eq!((held.peers, held.owners, held.indices), (0, 0, 0));
}

#[test]
fn a_guest_that_left_is_forgotten_when_a_clock_jump_ends_the_call() {
    let mut house = called_while_leaving();
    let Side { policy, table, rng, .. } = &mut house.host;
    table.handle_clock_jump(&mut Context { now: at(house.millis + 10), policy, rng });
    assert_eq!((table.holdings().peers, table.holdings().owners), (0, 0));
}

/// A member whose first handshake is judged before the host knows of its admission, and confirmed after the host's own one.
#[test]
fn a_guest_s_handshake_that_is_confirmed_late_takes_no_member_s_rights() {
    let (mut newcomer, mut host) = (Side::new(1, &[1, 2]).knows(2), Side::new(2, &[2]));
    newcomer.connect(at(1), 2);
    let flight = newcomer.sent();
    host.receive_all(at(1), newcomer.endpoint, flight);
    let cookie = host.sent();
    newcomer.receive_all(at(1), host.endpoint, cookie);
    let flight = newcomer.sent();
    host.receive_all(at(1), newcomer.endpoint, flight);
    let late = host.sent();
    host.policy = policy_of(&[1, 2]);
    let mut host = host.knows(1);
    host.connect(at(20), 1);
    carry(at(20), &mut newcomer, &mut host);
    let rights = |host: &mut Side| {
        let ups = host.events().into_iter().filter_map(|event| match event {
            PeerEvent::Up(_, rights) => Some(rights),
            _ => None,
        });
        ups.collect::<Vec<_>>()
    };
    assert_eq!(rights(&mut host), [Rights::Member(NodeId([1; 32]))]);
    newcomer.receive_all(at(40), host.endpoint, late);
    carry(at(40), &mut newcomer, &mut host);
    assert_eq!(rights(&mut host), [Rights::Member(NodeId([1; 32]))], "said of the peer, not of the session");
}
