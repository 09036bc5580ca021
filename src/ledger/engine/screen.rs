//! The screen: what keeps others from making this node check signatures for nothing.
//!
//! ```text
//!   known already? ─► would it apply, were it signed as it says? ─► false before? ─► budget left? ─► signatures, those with standing first
//!      map look-ups            the state, no cryptography           a hash                          a false one is charged to who showed it
//! ```
//! What is taken costs its sender nothing, for the pool and the revocations' rooms bound it; honest peers pass on nothing that is false.

use super::meter::{Meter, Rates, Reader};
use crate::crypto::hash::{Digest, domain_hash};
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::ledger::operation::credential_hash;
use crate::ledger::state::State;
use crate::ledger::transaction::SignedTransaction;
use crate::time::Instant;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Signatures per second in false transactions that one member may have checked for long: at 50 µs each 1.3 % of a core.
const RATE: u64 = 256;
/// The same of one guest.
const GUEST_RATE: u64 = 32;
/// The same of all guests together. A guest that showed nothing false is heard whatever the others did.
const GUESTS_RATE: u64 = 256;
/// The time for which a budget is saved up.
const SAVED: Duration = Duration::from_secs(4);
/// The most false transactions that are remembered, the latest; of 32 bytes each.
const MAX_REFUSED: usize = 1024;

/// Who had false signatures checked, and which.
pub(super) struct Screen {
    spent: Meter,
    /// Hashes over all bytes: an id does not cover the signatures, and a false copy must not stand in the way of the true one.
    refused: BTreeSet<Digest>,
    by_age: VecDeque<Digest>,
}

impl Default for Screen {
    fn default() -> Self {
        let rates = Rates { member: RATE, guest: GUEST_RATE, all_guests: GUESTS_RATE, saved: SAVED };
        Self { spent: Meter::new(rates), refused: BTreeSet::new(), by_age: VecDeque::new() }
    }
}

impl Screen {
    /// Says whether signatures that this peer shows may be checked now.
    pub(super) fn allows(&self, now: Instant, from: &Reader) -> bool {
        !self.spent.owes(now, from) || self.spent.allows(now, from)
    }

    /// Says whether exactly these bytes were found false before.
    pub(super) fn knows(&self, signed: &SignedTransaction) -> bool {
        !self.refused.is_empty() && self.refused.contains(&fingerprint(signed))
    }

    /// Notes a transaction whose signatures were checked and are false.
    pub(super) fn refuse(&mut self, now: Instant, from: &Reader, fingerprint: Digest, witness_count: usize) {
        self.spent.charge(now, from, u64::try_from(witness_count).unwrap_or(u64::MAX));
        if self.refused.insert(fingerprint) {
            self.by_age.push_back(fingerprint);
        }
        if self.by_age.len() > MAX_REFUSED
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.refused.remove(&oldest);
        }
    }
}

/// Names a transaction with its signatures.
pub(super) fn fingerprint(signed: &SignedTransaction) -> Digest {
    domain_hash("p2plus/refused/1", &[&signed.encode()])
}

/// Says whether a witness counts for something in `state`: its signature is the one that a forger lacks, so it is checked first.
pub(super) fn has_standing(state: &State, key: &VerifyingKey) -> bool {
    state.signer(key).is_some()
        || state.member(&NodeId(key.0)).is_some()
        || state.credential(&credential_hash(key)).is_some()
}
