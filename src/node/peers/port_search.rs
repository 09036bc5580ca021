//! A search for the ports of a NAT that chooses one for each conversation: many conversations at its end, guesses at the other one.
//!
//! ```text
//!   E: 238 sockets ── a probe of few hops from each ──► E's NAT: 238 ports that let I's endpoint in
//!   I: one socket  ── probes to E's address, each at another port ──► one of those, and E answers from that very socket
//! ```
//! After n of 64,512 ports nothing was hit with a chance of (1 - n/64512)^238: 2.5 % after 1,000, 0.05 % after 2,000.
//! Pure: says what is to be sent and when; who searches, and for whom, is the node's choice.

use crate::time::Instant;
use crate::wire::control::NatKind;
use rand_core::CryptoRng;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Sockets that are opened for one search, adopted ones among them: all that there may be, but for an ear.
pub(in crate::node) const SEARCH_SOCKETS: usize = 238;

/// Guesses of one search, and how many there are at a time: 400 a second, for 5 s.
pub(in crate::node) const MAX_GUESSES: usize = 2000;
const GUESSES_AT_ONCE: usize = 10;
const GUESS_INTERVAL: Duration = Duration::from_millis(25);

/// The first port that NATs choose: below are those of services (RFC 6056 §3.2).
const FIRST_PORT: u16 = 1024;

/// Addresses of a peer that are guessed at, in turn: a NAT has one, or few.
const MAX_PLACES: usize = 2;

/// The routers that openers pass in the first search, and in the next: beyond the own NAT, or that of a provider as well, and not as far as the
/// other one, which would choose another port for what answers.
const OPENER_HOPS: [u8; 2] = [2, 3];

/// What one end does in a search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::node) enum Role {
    /// Its NAT chooses the ports: it opens many.
    Opening,
    /// Its own endpoint is known: it guesses.
    Guessing,
}

/// What two kinds of NATs mean for a search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::node) enum Outlook {
    /// It is worth one.
    Search(Role),
    /// Nobody knows yet.
    Undecided,
    /// Nothing is to be guessed, or too much.
    Pointless,
}

/// Judges the kinds of the own NAT and the peer's.
pub(in crate::node) const fn outlook(own: NatKind, peer: NatKind) -> Outlook {
    use NatKind::{Dependent, Undetermined};
    match (own, peer) {
        (Dependent, Dependent) => Outlook::Pointless,
        (Undetermined, _) | (_, Undetermined) => Outlook::Undecided,
        (Dependent, _) => Outlook::Search(Role::Opening),
        (_, Dependent) => Outlook::Search(Role::Guessing),
        _ => Outlook::Pointless,
    }
}

/// The routers that the openers of a round pass, counted from 0.
pub(in crate::node) fn opener_hops(round: usize) -> u8 {
    OPENER_HOPS[round.min(OPENER_HOPS.len() - 1)]
}

/// The guesses at one peer's ports.
#[derive(Debug)]
pub(in crate::node) struct Guesses {
    addresses: Vec<IpAddr>,
    tried: BTreeSet<SocketAddr>,
    next_at: Instant,
}

impl Guesses {
    /// Begins to guess where the peer said that it is seen.
    pub(in crate::node) fn new(now: Instant, places: &[SocketAddr]) -> Self {
        let addresses: BTreeSet<_> = places.iter().map(SocketAddr::ip).take(MAX_PLACES).collect();
        Self { addresses: addresses.into_iter().collect(), tried: BTreeSet::new(), next_at: now }
    }

    /// Says whether all are made.
    pub(in crate::node) fn is_spent(&self) -> bool {
        self.addresses.is_empty() || self.tried.len() >= MAX_GUESSES
    }

    /// When the next ones are due; none when all are made.
    pub(in crate::node) fn next_at(&self) -> Option<Instant> {
        (!self.is_spent()).then_some(self.next_at)
    }

    /// Takes the guesses that are due, no port twice. What a busy node missed is not made up for.
    pub(in crate::node) fn take(&mut self, now: Instant, rng: &mut impl CryptoRng) -> Vec<SocketAddr> {
        let mut due = Vec::new();
        if now < self.next_at {
            return due;
        }
        self.next_at = (self.next_at + GUESS_INTERVAL).max(now);
        while due.len() < GUESSES_AT_ONCE && !self.is_spent() {
            let address = self.addresses[self.tried.len() % self.addresses.len()];
            let port = FIRST_PORT + (rng.next_u32() % (u32::from(u16::MAX - FIRST_PORT) + 1)) as u16;
            let guess = SocketAddr::new(address, port);
            if self.tried.insert(guess) {
                due.push(guess);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_search_makes_no_more_guesses_than_it_may_and_none_twice() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let place = SocketAddr::from(([203, 0, 113, 1], 7));
        let mut guesses = Guesses::new(at(0), &[place]);
        let mut made: Vec<(Instant, SocketAddr)> = Vec::new();
        while let Some(now) = guesses.next_at() {
            made.extend(guesses.take(now, &mut rng).into_iter().map(|guess| (now, guess)));
        }
        let distinct: BTreeSet<_> = made.iter().map(|(_, guess)| *guess).collect();
        assert_eq!((made.len(), distinct.len()), (MAX_GUESSES, MAX_GUESSES));
        assert!(made.iter().all(|(_, guess)| guess.ip() == place.ip() && guess.port() >= FIRST_PORT));
        let within = |from: u64| made.iter().filter(|(when, _)| (at(from)..at(from + 1000)).contains(when)).count();
        assert!((0..5000).step_by(100).all(|from| within(from) <= 400), "400 a second");
        assert_eq!(made.last().map(|(when, _)| *when), Some(at(4975)));
        assert!(guesses.take(at(9000), &mut rng).is_empty());
    }

    #[test]
    fn a_node_that_was_busy_does_not_make_up_for_it() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let places = [SocketAddr::from(([203, 0, 113, 1], 7)), SocketAddr::from(([203, 0, 113, 2], 7))];
        let mut guesses = Guesses::new(at(0), &places);
        let first = guesses.take(at(3000), &mut rng);
        assert_eq!(first.len(), GUESSES_AT_ONCE);
        assert_eq!(first.iter().filter(|guess| guess.ip() == places[0].ip()).count(), GUESSES_AT_ONCE / 2);
        guesses.take(at(3001), &mut rng);
        assert_eq!(guesses.next_at(), Some(at(3025)));
        assert!(Guesses::new(at(0), &[]).is_spent());
    }

    #[test]
    fn exactly_one_nat_that_chooses_other_ports_is_worth_a_search() {
        use NatKind::{Dependent, Independent, None, Undetermined, Unknown};
        for other in [Independent, None, Unknown] {
            assert_eq!(outlook(Dependent, other), Outlook::Search(Role::Opening));
            assert_eq!(outlook(other, Dependent), Outlook::Search(Role::Guessing));
            assert_eq!(outlook(other, Independent), Outlook::Pointless);
        }
        assert_eq!(outlook(Dependent, Dependent), Outlook::Pointless);
        assert_eq!(outlook(Undetermined, Dependent), Outlook::Undecided);
        assert_eq!(outlook(Independent, Undetermined), Outlook::Undecided);
    }
}
