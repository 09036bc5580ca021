//! How much work a thread did: tests say with it what is computed before a datagram is authenticated. It counts in tests only.

/// What is worth counting.
#[derive(Clone, Copy)]
pub(super) enum Work {
    /// X25519, by the base point or another one.
    Multiplication,
    /// An ML-KEM key pair, a ciphertext or its opening.
    KemOperation,
    /// A plain BLAKE2s hash.
    Hash,
    /// A keyed one.
    Mac,
}

/// Counts one piece of work.
#[inline]
pub(super) fn spend(work: Work) {
    #[cfg(test)]
    counted::add(work);
    #[cfg(not(test))]
    let _ = work;
}

#[cfg(test)]
pub(crate) use counted::{Effort, effort_of};

#[cfg(test)]
mod counted {
    use super::Work;
    use std::cell::Cell;

    /// Pieces of work.
    #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
    pub(crate) struct Effort {
        pub(crate) multiplications: usize,
        pub(crate) kem_operations: usize,
        pub(crate) hashes: usize,
        pub(crate) macs: usize,
    }

    thread_local! {
        static SPENT: Cell<Effort> = Cell::default();
    }

    pub(super) fn add(work: Work) {
        let mut spent = SPENT.get();
        *match work {
            Work::Multiplication => &mut spent.multiplications,
            Work::KemOperation => &mut spent.kem_operations,
            Work::Hash => &mut spent.hashes,
            Work::Mac => &mut spent.macs,
        } += 1;
        SPENT.set(spent);
    }

    /// Does `job` and returns what it took.
    pub(crate) fn effort_of<R>(job: impl FnOnce() -> R) -> (R, Effort) {
        let before = SPENT.replace(Effort::default());
        let result = job();
        (result, SPENT.replace(before))
    }
}
