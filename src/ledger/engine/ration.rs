//! The ration: how much of the chain others may read here in a time.
//!
//! A request has 14 bytes and its answer up to half a megabyte, read from the disk. So each peer has a budget of bytes, and all guests
//! together another, for they make keys at will. Who has used it up is not refused but waits, one request at a time: an honest peer asks
//! one question after the other and so reads on at the rate of the ration; one that asks faster is refused.

use super::meter::{Meter, Rates, Reader};
use crate::crypto::exchange::TransportKey;
use crate::ledger::block::Height;
use crate::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes per second that one peer may read for long: the longest answer every 0.4 s, well within the patience of who asks.
const RATE: u64 = 2 << 20;
/// Bytes per second that all guests together may read for long.
const GUESTS_RATE: u64 = 4 << 20;
/// The time for which a budget is saved up: 32 MiB for one peer, a chain of some 25,000 small blocks at once.
const SAVED: Duration = Duration::from_secs(16);
/// What an answer costs beyond its bytes: a read of the disk.
const ANSWER_COST: usize = 4096;
/// The most requests that wait, one of a peer.
const MAX_WAITING: usize = 1024;

/// A request for blocks that waits for its peer's budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) reader: Reader,
    pub(super) first: Height,
    pub(super) limit: u8,
}

/// What was read, and who waits to read on.
pub(super) struct Ration {
    read: Meter,
    waiting: VecDeque<Request>,
}

impl Default for Ration {
    fn default() -> Self {
        let rates = Rates { member: RATE, guest: RATE, all_guests: GUESTS_RATE, saved: SAVED };
        Self { read: Meter::new(rates), waiting: VecDeque::new() }
    }
}

impl Ration {
    /// Says whether the peer may read now.
    pub(super) fn allows(&self, now: Instant, reader: &Reader) -> bool {
        self.read.allows(now, reader)
    }

    /// Notes what was sent in one answer.
    pub(super) fn charge(&mut self, now: Instant, reader: &Reader, len: usize) {
        self.read.charge(now, reader, u64::try_from(len.saturating_add(ANSWER_COST)).unwrap_or(u64::MAX));
    }

    /// Lets a request wait for its turn. Returns `false` when one of this peer waits already, or too many do.
    #[must_use]
    pub(super) fn wait(&mut self, request: Request) -> bool {
        let has_place = self.waiting.len() < MAX_WAITING && !self.waits(&request.reader.peer);
        if has_place {
            self.waiting.push_back(request);
        }
        has_place
    }

    /// Says whether a request of the peer waits.
    pub(super) fn waits(&self, peer: &TransportKey) -> bool {
        self.waiting.iter().any(|request| request.reader.peer == *peer)
    }

    /// Takes the request that has waited longest of those that may be answered now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Request> {
        let place = self.waiting.iter().position(|request| self.allows(now, &request.reader))?;
        self.waiting.remove(place)
    }

    /// Forgets what a peer waits for, but not what it has read: a new session is no new budget.
    pub(super) fn forget(&mut self, peer: &TransportKey) {
        self.waiting.retain(|request| request.reader.peer != *peer);
    }

    /// Returns when a request that waits may be answered.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.iter().map(|request| self.read.ready_at(&request.reader)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: usize = 512 * 1024;

    fn reader(number: usize, is_member: bool) -> Reader {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        Reader { peer: TransportKey(key), is_member }
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::from_micros(1_000_000_000 + milliseconds * 1000)
    }

    /// What a peer reads that takes everything it is given, in this time.
    fn read(ration: &mut Ration, now: Instant, reader: &Reader) -> usize {
        let mut len = 0;
        while ration.allows(now, reader) {
            ration.charge(now, reader, ANSWER);
            len += ANSWER;
        }
        len
    }

    #[test]
    fn a_peer_reads_what_was_saved_at_once_and_then_at_the_rate() {
        let (mut ration, member) = (Ration::default(), reader(1, true));
        let saved = usize::try_from(RATE).unwrap() * 16;
        let burst = read(&mut ration, at(0), &member);
        assert!((saved * 9 / 10..=saved + ANSWER).contains(&burst), "{burst}");
        let later: usize = (1..=100).map(|tenth| read(&mut ration, at(tenth * 100), &member)).sum();
        assert!(later <= 10 * usize::try_from(RATE).unwrap() + ANSWER, "{later} bytes in 10 s");
        assert!(later >= 9 * usize::try_from(RATE).unwrap(), "{later} bytes in 10 s");
        assert!(ration.allows(at(10_000), &reader(2, true)), "nobody pays for another");
    }

    #[test]
    fn guests_share_one_budget_however_many_keys_they_make() {
        let mut ration = Ration::default();
        let all: usize = (0..3000).map(|number| read(&mut ration, at(0), &reader(number, false))).sum();
        assert!(all <= usize::try_from(GUESTS_RATE).unwrap() * 16 + ANSWER, "{all}");
        assert!(ration.allows(at(0), &reader(1, true)), "members do not pay for guests");
    }

    #[test]
    fn one_request_of_a_peer_waits_and_is_answered_in_the_order_of_asking() {
        let mut ration = Ration::default();
        let request = |number| Request { reader: reader(number, true), first: Height(7), limit: 64 };
        for number in [2, 1] {
            read(&mut ration, at(0), &reader(number, true));
            assert!(ration.wait(request(number)));
            assert!(!ration.wait(request(number)), "one at a time");
        }
        assert_eq!(ration.next(at(0)), None);
        let ready = ration.poll_timeout().unwrap();
        assert!(ready > at(0) && ready <= at(1000), "{ready:?}");
        assert_eq!(ration.next(at(1000)), Some(request(2)));
        ration.forget(&reader(1, true).peer);
        assert_eq!(ration.next(at(1000)), None);
        assert!(!ration.allows(at(0), &reader(1, true)), "it has read what it has read");
    }
}
