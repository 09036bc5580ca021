//! Which numbers a daemon uses on the host: a table, a rule's priority and a mark, no two daemons the same.

use super::HostError;
use crate::io::lock::{FileLock, LockError};
use crate::io::network::{Network, NetworkError};
use crate::io::policy_routing::{Family, Rule};
use std::path::Path;

/// The first table; clear of other VPNs' (52 of Tailscale, 51820 of wg-quick).
const FIRST_TABLE: u32 = 52_800;
/// The first rule's priority: before main's 32766, and clear of Tailscale's 5210 to 5270.
const FIRST_PRIORITY: u32 = 5_100;
/// What the marks of all daemons have in common.
const MARK: u32 = 0x0050_0000;
/// Where the slot stands in a mark.
const MARK_SHIFT: u32 = 8;
/// Which bits of a mark are ours: clear of kube-proxy's 0x4000 and 0x8000, which others may set beside them.
const MARK_MASK: u32 = 0x00ff_3f00;

/// One of the places for daemons on a host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Slot(u8);

/// A number of no slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("slots are 0 to {}", Slot::COUNT - 1)]
pub struct NoSlot;

impl TryFrom<u8> for Slot {
    type Error = NoSlot;

    fn try_from(number: u8) -> Result<Self, NoSlot> {
        (number < Self::COUNT).then_some(Self(number)).ok_or(NoSlot)
    }
}

impl From<Slot> for u8 {
    fn from(slot: Slot) -> Self {
        slot.0
    }
}

impl Slot {
    /// How many there are: daemons on one host at most.
    pub const COUNT: u8 = 64;

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    /// Its routing table.
    pub const fn table(self) -> u32 {
        FIRST_TABLE + self.0 as u32
    }

    /// The slot that a routing table belongs to.
    pub fn of(table: u32) -> Option<Self> {
        u8::try_from(table.checked_sub(FIRST_TABLE)?).ok()?.try_into().ok()
    }

    /// Its rules' priority.
    pub const fn priority(self) -> u32 {
        FIRST_PRIORITY + self.0 as u32
    }

    /// What its daemon's own datagrams are marked with (`SO_MARK`).
    pub const fn mark(self) -> u32 {
        MARK | (self.0 as u32) << MARK_SHIFT
    }

    /// Which bits of a mark say whose datagrams they are.
    pub const fn mask() -> u32 {
        MARK_MASK
    }

    /// Its rules, one for each version of IP.
    pub fn rules(self) -> [Rule; 2] {
        Family::ALL.map(|family| Rule {
            family,
            priority: self.priority(),
            mark: self.mark(),
            mask: MARK_MASK,
            table: self.table(),
        })
    }

    /// Says whether the kernel has rules or routes in its place: a daemon's with another run folder, a dead one's, or somebody else's.
    fn is_used(self, network: &mut Network) -> Result<bool, NetworkError> {
        Ok(!network.rules_at(self.priority())?.is_empty() || !network.table_routes(self.table())?.is_empty())
    }
}

/// A slot that no other daemon with the same run folder takes.
pub struct SlotLock {
    slot: Slot,
    _lock: FileLock,
}

impl SlotLock {
    /// Takes `own`, the slot of an earlier run, whatever is in it, else the first that is free.
    ///
    /// # Errors
    /// [`HostError::NoSlot`] when all are taken; the system's.
    pub fn take(run_dir: &Path, network: &mut Network, own: Option<Slot>) -> Result<Self, HostError> {
        for slot in own.into_iter().chain(Slot::all()) {
            let lock = match FileLock::take(&run_dir.join(format!("slot-{}.lock", slot.0))) {
                Ok(lock) => lock,
                Err(LockError::Held { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            if own == Some(slot) || !slot.is_used(network)? {
                return Ok(Self { slot, _lock: lock });
            }
        }
        Err(HostError::NoSlot)
    }

    /// The slot.
    pub fn slot(&self) -> Slot {
        self.slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_slots_share_a_number_and_none_has_a_bit_of_kube_proxy() {
        let mut marks: Vec<_> = Slot::all().map(Slot::mark).collect();
        assert!(marks.iter().all(|mark| mark & !MARK_MASK == 0 && mark & 0xc000 == 0 && mark & MARK == MARK));
        marks.dedup();
        assert_eq!((marks.len(), marks[0], marks[63]), (64, 0x0050_0000, 0x0050_3f00));
        let last = Slot::try_from(63).unwrap();
        assert_eq!((last.table(), last.priority()), (52_863, 5_163));
        assert!(Slot::all().all(|slot| Slot::of(slot.table()) == Some(slot)));
        assert_eq!([52_799, 52_864, 254].map(Slot::of), [None; 3]);
        assert!(Slot::try_from(64).is_err());
    }
}
