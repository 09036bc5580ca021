//! Who orders the history, and with which power.

use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::{Digest, domain_hash};
use crate::crypto::identity::{NodeId, VerifyingKey};
use borsh::{BorshDeserialize, BorshSerialize};

/// The most validators of a network: full broadcast costs 75 ms of CPU per height at 31 and grows with the square.
pub const MAX_VALIDATORS: usize = 100;
/// The most power of one validator, so that no sum overflows.
pub const MAX_POWER: u64 = 1 << 32;

/// One validator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Validator {
    /// The key of its votes.
    pub key: VerifyingKey,
    /// Its share of the vote, 1 to [`MAX_POWER`].
    pub power: u64,
}

/// One validator, and the node that runs it: what a transaction names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Seat {
    /// The validator.
    pub validator: Validator,
    /// The node that runs it.
    pub node: NodeId,
    /// The key of that node's handshakes: its consensus streams outlive its membership.
    pub transport_key: TransportKey,
}

/// The validators of one height with their nodes, in the order of the validators' keys, each node once.
#[derive(Clone, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct Seats(Vec<Seat>);

/// The validators of one height, in the order of their keys; a certificate names them by their place in it.
#[derive(Clone, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct ValidatorSet(Vec<Validator>);

/// A list of validators that cannot order anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadValidatorSet {
    /// Nobody is in it.
    #[error("a network needs a validator")]
    Empty,
    /// More than [`MAX_VALIDATORS`].
    #[error("more than {MAX_VALIDATORS} validators")]
    TooMany,
    /// The keys are not sorted and distinct, or one node has two seats.
    #[error("validators are not in the order of their keys, or not distinct")]
    Order,
    /// A power is zero or above [`MAX_POWER`].
    #[error("a validator's power is out of range")]
    Power,
    /// A key has small order or is no point.
    #[error("a validator's key is unusable")]
    Key,
}

impl ValidatorSet {
    /// Sorts the validators by key.
    ///
    /// # Errors
    /// [`BadValidatorSet`] names what is wrong with them.
    pub fn new(mut validators: Vec<Validator>) -> Result<Self, BadValidatorSet> {
        validators.sort_by_key(|validator| validator.key);
        let set = Self(validators);
        set.check().map(|()| set)
    }

    /// Checks a set that came by decoding.
    ///
    /// # Errors
    /// As [`ValidatorSet::new`].
    pub fn check(&self) -> Result<(), BadValidatorSet> {
        if self.0.is_empty() {
            return Err(BadValidatorSet::Empty);
        }
        if self.0.len() > MAX_VALIDATORS {
            return Err(BadValidatorSet::TooMany);
        }
        if !self.0.is_sorted_by(|left, right| left.key < right.key) {
            return Err(BadValidatorSet::Order);
        }
        if self.0.iter().any(|validator| !(1..=MAX_POWER).contains(&validator.power)) {
            return Err(BadValidatorSet::Power);
        }
        if self.0.iter().any(|validator| !validator.key.is_usable()) {
            return Err(BadValidatorSet::Key);
        }
        Ok(())
    }

    /// Lends the validators in order.
    pub fn as_slice(&self) -> &[Validator] {
        &self.0
    }

    /// Finds a validator by its place in the set.
    pub fn at(&self, index: u16) -> Option<&Validator> {
        self.0.get(usize::from(index))
    }

    /// Finds the place of a validator in the set.
    pub fn index_of(&self, key: &VerifyingKey) -> Option<u16> {
        let place = self.0.binary_search_by_key(key, |validator| validator.key).ok()?;
        u16::try_from(place).ok()
    }

    /// Returns the sum of all powers.
    pub fn total_power(&self) -> u64 {
        self.0.iter().map(|validator| validator.power).sum()
    }

    /// Says whether `power` is more than two thirds of the total.
    pub fn is_quorum(&self, power: u64) -> bool {
        u128::from(power) * 3 > u128::from(self.total_power()) * 2
    }

    /// Returns the hash that headers carry.
    pub fn hash(&self) -> Digest {
        let bytes = borsh::to_vec(self).expect("writing to memory does not fail");
        domain_hash("p2plus/validators/1", &[&bytes])
    }
}

impl Seats {
    /// Sorts the seats by the validators' keys.
    ///
    /// # Errors
    /// [`BadValidatorSet`] names what is wrong with them.
    pub fn new(mut seats: Vec<Seat>) -> Result<Self, BadValidatorSet> {
        seats.sort_by_key(|seat| seat.validator.key);
        let seats = Self(seats);
        seats.check().map(|()| seats)
    }

    /// Checks seats that came by decoding.
    ///
    /// # Errors
    /// As [`Seats::new`].
    pub fn check(&self) -> Result<(), BadValidatorSet> {
        let mut nodes: Vec<_> = self.0.iter().map(|seat| seat.node).collect();
        nodes.sort_unstable();
        if !nodes.is_sorted_by(|left, right| left < right) {
            return Err(BadValidatorSet::Order);
        }
        self.validators().check()
    }

    /// Returns who votes.
    pub fn validators(&self) -> ValidatorSet {
        ValidatorSet(self.0.iter().map(|seat| seat.validator).collect())
    }

    /// Says whether a node runs one of the validators.
    pub fn has(&self, node: &NodeId) -> bool {
        self.0.iter().any(|seat| seat.node == *node)
    }

    /// Lends the seats in order.
    pub fn as_slice(&self) -> &[Seat] {
        &self.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::crypto::identity::SigningKey;

    pub(crate) fn validator(seed: u8, power: u64) -> Validator {
        Validator { key: SigningKey::from_seed(&[seed; 32]).verifying_key(), power }
    }

    #[test]
    fn a_quorum_is_more_than_two_thirds() {
        let set = |count: u8| ValidatorSet::new((1..=count).map(|seed| validator(seed, 1)).collect()).unwrap();
        assert!(!set(1).is_quorum(0) && set(1).is_quorum(1));
        assert!(!set(3).is_quorum(2) && set(3).is_quorum(3));
        assert!(!set(4).is_quorum(2) && set(4).is_quorum(3));
    }

    #[test]
    fn a_set_refuses_what_cannot_vote() {
        assert_eq!(ValidatorSet::new(Vec::new()), Err(BadValidatorSet::Empty));
        assert_eq!(ValidatorSet::new(vec![validator(1, 1), validator(1, 1)]), Err(BadValidatorSet::Order));
        let seat = |seed, node| Seat {
            validator: validator(seed, 1),
            node: NodeId([node; 32]),
            transport_key: TransportKey([node; 32]),
        };
        assert!(Seats::new(vec![seat(1, 1), seat(2, 2)]).is_ok());
        assert_eq!(Seats::new(vec![seat(1, 1), seat(2, 1)]), Err(BadValidatorSet::Order));
        assert_eq!(ValidatorSet::new(vec![validator(1, 0)]), Err(BadValidatorSet::Power));
        assert_eq!(ValidatorSet::new(vec![validator(1, MAX_POWER + 1)]), Err(BadValidatorSet::Power));
        let weak = Validator { key: VerifyingKey([0; 32]), ..validator(1, 1) };
        assert_eq!(ValidatorSet::new(vec![weak]), Err(BadValidatorSet::Key));
    }

    #[test]
    fn a_validator_is_found_by_its_place() {
        let set = ValidatorSet::new((1..=9).map(|seed| validator(seed, 1)).collect()).unwrap();
        for (place, validator) in set.as_slice().iter().enumerate() {
            let index = set.index_of(&validator.key).unwrap();
            assert_eq!(usize::from(index), place);
            assert_eq!(set.at(index), Some(validator));
        }
    }
}
