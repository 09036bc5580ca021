//! Pending revocations: they act when they are seen, before any block holds them, and nothing displaces them.
//!
//! ```text
//!            permitted by the head's signers?          budget of the signers left?
//!  seen ──► no: refused     yes: held (durable) ──►  yes: acts at once       no: acts when committed
//!                              │
//!           after every block: committed → settled · signers lost the scope → lifted, with a warning · else held
//! ```
//! Owns which identities are cut before their block. Refuses to know blocks' order and disks; [`Held`] is what is written there.

use super::block::Height;
use super::operation::{Incarnation, Revoke, Scope};
use super::state::{State, TxError};
use super::transaction::{SignedTransaction, TxId, Verified};
use crate::crypto::hash::{Digest, domain_hash};
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::time::UnixMillis;
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

/// The most revocations of one signer that wait for a block: a stolen key fills its own room, nobody else's.
pub const MAX_HELD_PER_SIGNER: usize = 1024;
/// The span over which a signer's cuts on sight are counted.
pub const SIGHT_SPAN: Duration = Duration::from_secs(3600);
/// How many identities a signer may cut on sight per [`SIGHT_SPAN`] in a small network.
pub const SIGHT_FLOOR: usize = 8;
/// One of how many members a signer may cut on sight per [`SIGHT_SPAN`] in a large one: 2 %.
const SIGHT_SHARE: usize = 50;

/// A revocation that waits for its block, as it is written to disk.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Held {
    /// Somebody showed it.
    Signed {
        /// The transaction.
        transaction: SignedTransaction,
        /// Which of its identities are cut already.
        acting: BTreeSet<NodeId>,
    },
    /// A committed block holds it, which this program cannot apply.
    Certified {
        /// The block's height.
        height: Height,
        /// What it revokes.
        revocations: Vec<Revoke>,
    },
    /// When each signer cut somebody on sight, as long as that counts: it outlives the revocations, which a block ends.
    Cuts(BTreeMap<VerifyingKey, Vec<UnixMillis>>),
}

impl Held {
    /// Returns the name under which it is written to disk.
    pub fn key(&self, chain: &Digest) -> Digest {
        match self {
            Self::Signed { transaction, .. } => transaction.id(chain).0,
            Self::Certified { height, .. } => certified_key(*height),
            Self::Cuts(_) => cuts_key(),
        }
    }
}

/// Returns the name under which the signers' cuts are written to disk.
pub fn cuts_key() -> Digest {
    domain_hash("p2plus/cuts-on-sight/1", &[])
}

/// Returns the name under which the revocations of a block are written to disk.
pub fn certified_key(height: Height) -> Digest {
    domain_hash("p2plus/certified-revocations/1", &[&height.0.to_le_bytes()])
}

/// All revocations that wait for their block.
#[derive(Default)]
pub struct Revocations {
    signed: BTreeMap<TxId, Pending>,
    certified: BTreeMap<Height, Vec<Revoke>>,
    /// Per signer: when it cut somebody on sight.
    cuts: BTreeMap<VerifyingKey, VecDeque<UnixMillis>>,
}

struct Pending {
    transaction: Verified<SignedTransaction>,
    signers: Vec<VerifyingKey>,
    acting: BTreeSet<NodeId>,
}

/// What became of a revocation that was shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shown {
    /// It is held, and cuts these identities at once; empty when its signers' budgets are used up.
    Held {
        /// Who is cut.
        acting: BTreeSet<NodeId>,
    },
    /// It was held before.
    Known,
}

/// Why a revocation is not held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationRefused {
    /// It would not apply.
    #[error(transparent)]
    Invalid(#[from] TxError),
    /// Its signers have too many waiting.
    #[error("the signers have {MAX_HELD_PER_SIGNER} revocations waiting for a block")]
    Full,
}

/// What a block settled among the held revocations.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settled {
    /// Committed, by this transaction or another one.
    pub done: Vec<TxId>,
    /// No longer permitted: its signers lost the scope. What it cut is let in again.
    pub lifted: Vec<TxId>,
    /// Blocks that could not be applied before and were now.
    pub applied: Vec<Height>,
}

impl Revocations {
    /// Takes a revocation in, when the signers of `state` permit it.
    ///
    /// # Errors
    /// [`RevocationRefused`]: it would not apply to `state`, or its signers' room is full.
    pub fn show(
        &mut self,
        state: &State,
        wall: UnixMillis,
        transaction: Verified<SignedTransaction>,
    ) -> Result<Shown, RevocationRefused> {
        if self.signed.contains_key(&transaction.id()) {
            return Ok(Shown::Known);
        }
        let signers = self.screen(state, &transaction)?;
        let acting = self.cut(state, wall, &transaction, &signers);
        let pending = Pending { signers, acting: acting.clone(), transaction };
        self.signed.insert(pending.transaction.id(), pending);
        Ok(Shown::Held { acting })
    }

    /// Lists the signers by whose authority a revocation that is not held yet would be, if their signatures are right.
    ///
    /// # Errors
    /// [`RevocationRefused`]: it would not apply to `state`, or its signers' room is full.
    pub fn screen(&self, state: &State, signed: &SignedTransaction) -> Result<Vec<VerifyingKey>, RevocationRefused> {
        state.check_revocation(signed)?;
        let signers = state.witnesses_with(signed, Scope::Revocation);
        if signers.iter().all(|signer| self.held_by(signer) >= MAX_HELD_PER_SIGNER) {
            return Err(RevocationRefused::Full);
        }
        Ok(signers)
    }

    /// Takes back what was written to disk; what `state` no longer permits is named by the next [`Revocations::assess`].
    pub fn restore(&mut self, state: &State, held: Held) {
        match held {
            Held::Certified { height, revocations } => {
                self.certified.insert(height, revocations);
            }
            Held::Signed { transaction, acting } => {
                // What was written was verified before; a store of another program fails here and is left out.
                let Ok(transaction) = transaction.verify(state.network_id()) else {
                    tracing::warn!("a stored revocation is not one of this chain");
                    return;
                };
                let signers = state.witnesses_with(&transaction, Scope::Revocation);
                self.signed.insert(transaction.id(), Pending { transaction, signers, acting });
            }
            Held::Cuts(cuts) => {
                self.cuts = cuts.into_iter().map(|(signer, cuts)| (signer, cuts.into())).collect();
            }
        }
    }

    /// Takes in what a committed block revokes that this program cannot apply.
    pub fn certify(&mut self, height: Height, revocations: Vec<Revoke>) {
        self.certified.insert(height, revocations);
    }

    fn held_by(&self, signer: &VerifyingKey) -> usize {
        self.signed.values().filter(|pending| pending.signers.contains(signer)).count()
    }

    /// Charges the signers' budgets for each identity, as long as those with something left are enough to permit it.
    fn cut(
        &mut self,
        state: &State,
        wall: UnixMillis,
        transaction: &SignedTransaction,
        signers: &[VerifyingKey],
    ) -> BTreeSet<NodeId> {
        let budget = SIGHT_FLOOR.max(state.member_count() / SIGHT_SHARE);
        for cuts in self.cuts.values_mut() {
            // What lies ahead was dated by a clock that was wrong, and would count until that time comes.
            cuts.retain(|at| wall.difference(*at) < SIGHT_SPAN);
        }
        self.cuts.retain(|_, cuts| !cuts.is_empty());
        let mut acting = BTreeSet::new();
        let already = self.acting();
        for revoke in transaction.transaction.revocations() {
            if already.get(&revoke.identity).is_some_and(|incarnation| *incarnation >= revoke.incarnation) {
                acting.insert(revoke.identity);
                continue;
            }
            let solvent = |signer: &&VerifyingKey| self.cuts.get(signer).map_or(0, VecDeque::len) < budget;
            let solvent: Vec<_> = signers.iter().filter(solvent).copied().collect();
            if state.authorize(&solvent, Scope::Revocation).is_err() {
                break;
            }
            for signer in solvent {
                self.cuts.entry(signer).or_default().push_back(wall);
            }
            acting.insert(revoke.identity);
        }
        acting
    }

    /// Returns who is cut before their block, each with the highest incarnation that ends.
    pub fn acting(&self) -> BTreeMap<NodeId, Incarnation> {
        let signed = self.signed.values().flat_map(|pending| {
            let acts = |revoke: &Revoke| pending.acting.contains(&revoke.identity);
            pending.transaction.transaction.revocations().filter(acts)
        });
        let mut acting = BTreeMap::new();
        for Revoke { identity, incarnation } in signed.chain(self.certified.values().flatten().copied()) {
            let highest = acting.entry(identity).or_insert(incarnation);
            *highest = incarnation.max(*highest);
        }
        acting
    }

    /// Looks at every held revocation again, after the block at `head` left `state`; changes nothing yet.
    pub fn assess(&self, state: &State, head: Height) -> Settled {
        let mut settled = Settled::default();
        for (id, pending) in &self.signed {
            match state.check_revocation(&pending.transaction) {
                Ok(()) => {}
                Err(TxError::AlreadyRevoked) => settled.done.push(*id),
                Err(_) => settled.lifted.push(*id),
            }
        }
        settled.applied = self.certified.range(..=head).map(|(height, _)| *height).collect();
        settled
    }

    /// Lets go what a block settled, once the block is on disk.
    pub fn settle(&mut self, settled: &Settled) {
        for id in settled.done.iter().chain(&settled.lifted) {
            self.signed.remove(id);
        }
        for height in &settled.applied {
            self.certified.remove(height);
        }
    }

    /// Returns what is to be written to disk for a transaction that is held.
    pub fn held(&self, id: &TxId) -> Option<Held> {
        let pending = self.signed.get(id)?;
        let (transaction, acting) = ((*pending.transaction).clone(), pending.acting.clone());
        Some(Held::Signed { transaction, acting })
    }

    /// Returns what is to be written to disk for the signers' budgets, whenever a revocation was shown.
    pub fn cuts(&self) -> Held {
        Held::Cuts(self.cuts.iter().map(|(signer, cuts)| (*signer, cuts.iter().copied().collect())).collect())
    }

    /// Iterates over the held transactions in the order of their ids, from the one after `last` on and round to it.
    pub fn transactions_after(&self, last: Option<TxId>) -> impl Iterator<Item = &Verified<SignedTransaction>> {
        let last = last.unwrap_or(TxId(Digest([255; 32])));
        let later = self.signed.range((Bound::Excluded(last), Bound::Unbounded));
        later.chain(self.signed.range(..=last)).map(|(_, pending)| &pending.transaction)
    }

    /// Iterates over the held transactions in the order of their ids.
    pub fn transactions(&self) -> impl Iterator<Item = &Verified<SignedTransaction>> {
        self.signed.values().map(|pending| &pending.transaction)
    }

    /// Finds a held transaction.
    pub fn transaction(&self, id: &TxId) -> Option<&Verified<SignedTransaction>> {
        self.signed.get(id).map(|pending| &pending.transaction)
    }

    /// Returns the number of held transactions.
    pub fn len(&self) -> usize {
        self.signed.len()
    }

    /// Says whether nothing is held for a block.
    pub fn is_empty(&self) -> bool {
        self.signed.is_empty()
    }

    /// Returns a hash over the held transactions: two nodes with the same one have nothing to tell each other.
    pub fn digest(&self) -> Digest {
        let ids: Vec<&[u8]> = self.signed.keys().map(|id| id.0.0.as_slice()).collect();
        domain_hash("p2plus/revocations/1", &ids)
    }
}
