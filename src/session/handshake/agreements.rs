//! What this node's static key and each member's agree on (token `ss`): the same in every handshake, and computed in the first.

use crate::crypto::exchange::{ExchangeError, TransportKey, TransportSecret};
use crate::crypto::secret::Secret;
use std::collections::BTreeMap;

/// The shared secrets with members, at most one for each, all of one static key. Zeroized on drop.
#[derive(Default)]
pub(super) struct Agreements {
    /// Whose secrets they are.
    own: Option<TransportKey>,
    /// Boxed: what the map moves, it does not wipe.
    shared: BTreeMap<TransportKey, Box<Secret<32>>>,
}

impl Agreements {
    /// Returns the shared secret of `own` and a member's key. Those of another key than `own` are wiped now.
    ///
    /// # Errors
    /// [`ExchangeError::SmallOrder`].
    pub(super) fn with(&mut self, own: &TransportSecret, member: &TransportKey) -> Result<&Secret<32>, ExchangeError> {
        if self.own != Some(own.public_key()) {
            self.own = Some(own.public_key());
            self.shared.clear();
        }
        if !self.shared.contains_key(member) {
            self.shared.insert(*member, Box::new(own.agree(member)?));
        }
        Ok(&self.shared[member])
    }

    /// Wipes those with keys that are no member's any more.
    pub(super) fn retain(&mut self, is_member: impl Fn(&TransportKey) -> bool) {
        self.shared.retain(|key, _| is_member(key));
    }

    /// Says whether there is one with this key.
    pub(super) fn mentions(&self, key: &TransportKey) -> bool {
        self.shared.contains_key(key)
    }
}
