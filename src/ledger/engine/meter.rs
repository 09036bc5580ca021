//! A meter: what each peer, and all guests together, have used of something that comes at a rate.

use crate::crypto::exchange::TransportKey;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// The most peers with a budget in use, members and guests apart; beyond, the one that has used least of it starts anew.
const MAX_BUDGETS: usize = 1024;

/// Who asks, and with which rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reader {
    pub(super) peer: TransportKey,
    pub(super) is_member: bool,
}

/// How much may be used per second for long.
#[derive(Clone, Copy)]
pub(super) struct Rates {
    /// By one member.
    pub(super) member: u64,
    /// By one guest.
    pub(super) guest: u64,
    /// By all guests together, which make keys at will.
    pub(super) all_guests: u64,
    /// The time for which a budget is saved up.
    pub(super) saved: Duration,
}

/// The budgets in use, each as the moment at which all that was used is paid for.
pub(super) struct Meter {
    rates: Rates,
    members: BTreeMap<TransportKey, Instant>,
    guests: BTreeMap<TransportKey, Instant>,
    all_guests: Instant,
}

impl Meter {
    /// Begins with full budgets.
    pub(super) fn new(rates: Rates) -> Self {
        Self { rates, members: BTreeMap::new(), guests: BTreeMap::new(), all_guests: Instant::ZERO }
    }

    /// Says whether the peer has something left.
    pub(super) fn allows(&self, now: Instant, reader: &Reader) -> bool {
        now >= self.ready_at(reader)
    }

    /// Says whether the peer itself has used something that is not paid for.
    pub(super) fn owes(&self, now: Instant, reader: &Reader) -> bool {
        self.budgets(reader).get(&reader.peer).is_some_and(|paid_at| *paid_at > now)
    }

    /// Notes what the peer used.
    pub(super) fn charge(&mut self, now: Instant, reader: &Reader, cost: u64) {
        let rates = self.rates;
        let (budgets, rate) =
            if reader.is_member { (&mut self.members, rates.member) } else { (&mut self.guests, rates.guest) };
        if budgets.len() >= MAX_BUDGETS && !budgets.contains_key(&reader.peer) {
            budgets.retain(|_, paid_at| *paid_at > now);
            let least = budgets.iter().min_by_key(|(_, paid_at)| **paid_at).map(|(peer, _)| *peer);
            least.filter(|_| budgets.len() >= MAX_BUDGETS).and_then(|least| budgets.remove(&least));
        }
        let paid_at = budgets.entry(reader.peer).or_insert(now);
        *paid_at = (*paid_at).max(now) + time_for(cost, rate);
        if !reader.is_member {
            self.all_guests = self.all_guests.max(now) + time_for(cost, rates.all_guests);
        }
    }

    /// Returns when the peer has something left.
    pub(super) fn ready_at(&self, reader: &Reader) -> Instant {
        let own = self.budgets(reader).get(&reader.peer).copied().unwrap_or(Instant::ZERO);
        let shared = if reader.is_member { Instant::ZERO } else { self.all_guests };
        Instant::ZERO + own.max(shared).saturating_since(Instant::ZERO + self.rates.saved)
    }

    fn budgets(&self, reader: &Reader) -> &BTreeMap<TransportKey, Instant> {
        if reader.is_member { &self.members } else { &self.guests }
    }
}

fn time_for(cost: u64, rate: u64) -> Duration {
    Duration::from_micros(cost.saturating_mul(1_000_000) / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_of_keys_made_at_will_stay_within_their_bound() {
        let rates = Rates { member: 1, guest: 1, all_guests: 1, saved: Duration::from_secs(1) };
        let mut meter = Meter::new(rates);
        for number in 0..3 * MAX_BUDGETS {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            let guest = Reader { peer: TransportKey(key), is_member: false };
            meter.charge(Instant::ZERO, &guest, 1);
            assert!(meter.owes(Instant::ZERO, &guest));
        }
        assert_eq!(meter.guests.len(), MAX_BUDGETS);
    }
}
