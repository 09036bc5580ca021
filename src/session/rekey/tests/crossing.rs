//! Handshakes that cross in every way that delays, guests and changes of policy make of them.

use super::super::super::testing::{Node, at, policy_of};
use super::super::*;
use super::{HIGH, LOW, Pair, after};
use crate::policy::Rights;
use crate::session::Initiator;
use crate::wire::datagram::Datagram;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;

/// What reaches a side, or happens there.
enum Event {
    /// It begins a handshake, unless it has one under way.
    Begin,
    /// Its policy knows the other side as a member from now on.
    Admit,
    /// A datagram of a handshake.
    Datagram(Vec<u8>),
    /// An empty packet in this session.
    Empty(SessionIndex),
}

/// Two nodes and the datagrams between them, which are late at random and keep their order.
struct Crossing {
    pair: Pair,
    attempts: [Option<Initiator>; 2],
    /// By time in microseconds and a running number.
    events: BTreeMap<(u64, u64), (usize, Event)>,
    /// When the last thing arrives that was sent to each side.
    arrived: [u64; 2],
    rng: ChaCha20Rng,
}

impl Crossing {
    fn below(&mut self, limit: u64) -> u64 {
        self.rng.next_u64() % limit
    }

    fn add(&mut self, micros: u64, side: usize, event: Event) {
        let number = self.rng.next_u64();
        self.events.insert((micros, number), (side, event));
    }

    /// Sends after what was sent before.
    fn send(&mut self, now: u64, to: usize, event: Event) {
        let delay = 100 + self.below(20_000);
        self.arrived[to] = (now + delay).max(self.arrived[to] + 1);
        self.add(self.arrived[to], to, event);
    }

    fn run(&mut self) {
        while let Some(((now, _), (side, event))) = self.events.pop_first() {
            self.handle(now, side, event);
        }
    }

    fn handle(&mut self, micros: u64, side: usize, event: Event) {
        let (now, other) = (Instant::ZERO + Duration::from_micros(micros), 1 - side);
        match event {
            Event::Begin if self.attempts[side].is_some() => {}
            Event::Begin => {
                let attempt = self.pair.nodes[side].initiate(now, [HIGH, LOW][side]);
                self.fly(micros, other, &attempt);
                self.attempts[side] = Some(attempt);
            }
            Event::Admit => {
                let policy = policy_of([LOW, HIGH]);
                let actions = self.pair.sessions[side].handle_policy(&policy);
                self.pair.nodes[side].policy = policy;
                self.act(micros, side, &actions);
            }
            Event::Datagram(datagram) => self.handshake(micros, side, &datagram),
            Event::Empty(index) => {
                let actions = self.pair.sessions[side].handle_received(now, index, true);
                self.act(micros, side, &actions);
            }
        }
    }

    fn fly(&mut self, micros: u64, to: usize, attempt: &Initiator) {
        for datagram in attempt.datagrams(at(2)).map(<[u8]>::to_vec) {
            self.send(micros, to, Event::Datagram(datagram));
        }
    }

    fn handshake(&mut self, micros: u64, side: usize, datagram: &[u8]) {
        let (now, other) = (Instant::ZERO + Duration::from_micros(micros), 1 - side);
        let node = &mut self.pair.nodes[side];
        let is_mine = |attempt: &Initiator, index| attempt.index() == index;
        let established = match Datagram::classify(datagram).unwrap() {
            Datagram::Response(index, _) => {
                let Some(mut attempt) = self.attempts[side].take_if(|attempt| is_mine(attempt, index)) else { return };
                let established = attempt.handle_response(node.local(), now, datagram).ok().flatten();
                if established.is_none() {
                    self.attempts[side] = Some(attempt);
                }
                established
            }
            Datagram::Cookie(index, _) => {
                let Some(mut attempt) = self.attempts[side].take_if(|attempt| is_mine(attempt, index)) else { return };
                if attempt.handle_cookie(at(2), datagram).is_ok() {
                    self.fly(micros, other, &attempt);
                }
                self.attempts[side] = Some(attempt);
                None
            }
            _ => {
                let Ok(outcome) = node.receive(now, at(1), datagram) else { return };
                outcome.transmit.into_iter().for_each(|datagram| self.send(micros, other, Event::Datagram(datagram)));
                outcome.established
            }
        };
        if let Some(established) = established {
            let actions = self.pair.sessions[side].handle_established(now, established);
            self.act(micros, side, &actions);
        }
    }

    fn act(&mut self, micros: u64, side: usize, actions: &[Action]) {
        for action in actions {
            let Action::SendConfirmation(index) = action else { continue };
            let session = self.pair.sessions[side].receiving().find(|session| session.local_index() == *index);
            let Some(remote) = session.map(|session| session.remote_index()) else { continue };
            self.send(micros, 1 - side, Event::Empty(remote));
        }
    }
}

#[test]
fn whatever_crosses_each_side_hears_what_the_other_sends_and_members_speak_as_members() {
    let mut crossed = 0;
    for seed in 0..400 {
        let mut crossing = Crossing {
            pair: Pair::new(),
            attempts: [None, None],
            events: BTreeMap::new(),
            arrived: [0; 2],
            rng: ChaCha20Rng::seed_from_u64(seed),
        };
        // One side takes the other for a guest until some time among the handshakes.
        let host = (seed % 2) as usize;
        crossing.pair.nodes[host] = Node::new([LOW, HIGH][host], policy_of([[LOW, HIGH][host]]));
        let admitted = 100_000;
        crossing.add(admitted, host, Event::Admit);
        for _ in 0..2 + crossing.below(6) {
            // It knows whom it calls.
            let is_host = crossing.below(2) == 0;
            let at = if is_host { admitted + crossing.below(20_000) } else { admitted / 2 + crossing.below(admitted) };
            crossing.add(at, if is_host { host } else { 1 - host }, Event::Begin);
        }
        crossing.run();
        // The last word, as a node has it that is not heard as a member yet.
        crossing.attempts = [None, None];
        crossing.add(400_000, 1 - host, Event::Begin);
        crossing.run();

        let sessions = &mut crossing.pair.sessions;
        let roles: Vec<_> = sessions[0].receiving().map(|session| session.role()).collect();
        crossed += usize::from(roles.contains(&Role::Initiator) && roles.contains(&Role::Responder));
        for millis in (500..120_000).step_by(500) {
            for side in 0..2 {
                sessions[side].handle_timeout(after(millis));
                let sending = sessions[side].sending().unwrap();
                let is_there = |session: &&Arc<Session>| session.local_index() == sending.remote_index();
                let there = sessions[1 - side].receiving().find(is_there);
                let there = there.unwrap_or_else(|| panic!("seed {seed}, nobody hears {side} at {millis} ms"));
                let rights = [sending, there].map(|session| session.admission().rights());
                assert!(!rights.contains(&Rights::Guest), "seed {seed}, {side} at {millis} ms: {rights:?}");
            }
        }
    }
    assert!(crossed > 200, "{crossed} of 400 crossed");
}
