//! Whose turn it is to propose.

use super::certificate::{Certificate, Height};
use super::validators::ValidatorSet;

/// Returns the places of all validators in the order in which they propose at `height`: the one of round `r` stands at `r` modulo their number.
///
/// The turn goes round with the height; who did not sign `last_commit` comes after all who did. `last_commit` is the one *inside* the block
/// before, and `last_validators` the set that its places refer to: everybody who has that block computes the same order.
///
/// ```text
///   height 6, validators 0 1 2 3     →  2 3 0 1
///   the last commit lacks 2          →  3 0 1 2      an absent proposer is asked last, in round 3
/// ```
pub fn proposer_order(
    validators: &ValidatorSet,
    last_commit: Option<(&Certificate, &ValidatorSet)>,
    height: Height,
) -> Vec<u16> {
    let count = validators.as_slice().len() as u64;
    let turn = (height.0 % count.max(1)) as usize;
    let mut places: Vec<u16> = (0..=u16::MAX).take(validators.as_slice().len()).collect();
    places.rotate_left(turn);
    // A stable sort: those present keep their turn among themselves, and so do those absent.
    places.sort_by_key(|place| !is_present(validators, last_commit, *place));
    places
}

/// Says whether the validator signed the last commit. One that was not a validator then has not been absent.
fn is_present(validators: &ValidatorSet, last_commit: Option<(&Certificate, &ValidatorSet)>, place: u16) -> bool {
    let Some((certificate, last_validators)) = last_commit else { return true };
    let Some(validator) = validators.at(place) else { return false };
    let Some(last_place) = last_validators.index_of(&validator.key) else { return true };
    certificate.signatures.iter().any(|signature| signature.validator == last_place)
}

#[cfg(test)]
mod tests {
    use super::super::certificate::{BlockId, CommitSignature, Round};
    use super::super::validators::Validator;
    use super::*;
    use crate::crypto::identity::{Signature, SigningKey};

    fn set(seeds: &[u8]) -> ValidatorSet {
        let key = |seed: &u8| SigningKey::from_seed(&[*seed; 32]).verifying_key();
        ValidatorSet::new(seeds.iter().map(|seed| Validator { key: key(seed), power: 1 }).collect()).unwrap()
    }

    fn commit(places: &[u16]) -> Certificate {
        let sign = |validator: &u16| CommitSignature { validator: *validator, signature: Signature([0; 64]) };
        let signatures = places.iter().map(sign).collect();
        Certificate { height: Height(1), round: Round(0), block: BlockId::default(), signatures }
    }

    #[test]
    fn the_turn_goes_round_with_the_height() {
        let set = set(&[1, 2, 3, 4]);
        let firsts: Vec<_> = (0..6).map(|height| proposer_order(&set, None, Height(height))[0]).collect();
        assert_eq!(firsts, [0, 1, 2, 3, 0, 1]);
    }

    #[test]
    fn who_was_absent_is_asked_last_and_never_forgotten() {
        let set = set(&[1, 2, 3, 4]);
        let last = commit(&[0, 1, 3]);
        assert_eq!(proposer_order(&set, Some((&last, &set)), Height(6)), [3, 0, 1, 2]);
        assert_eq!(proposer_order(&set, Some((&last, &set)), Height(4)), [0, 1, 3, 2]);
    }

    #[test]
    fn a_new_validator_has_not_been_absent() {
        let (before, after) = (set(&[1, 2]), set(&[1, 2, 3]));
        let last = commit(&[0, 1]);
        let new = after.index_of(&SigningKey::from_seed(&[3; 32]).verifying_key()).unwrap();
        let order = proposer_order(&after, Some((&last, &before)), Height(u64::from(new)));
        assert_eq!(order[0], new);
    }
}
