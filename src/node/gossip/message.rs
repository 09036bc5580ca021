//! What neighbours say to each other about node records.

use crate::crypto::hash::Digest;
use crate::crypto::identity::NodeId;
use crate::wire::control::{RecordError, SignedRecord};
use borsh::{BorshDeserialize, BorshSerialize};

/// Records in one message: below 64 kB.
pub(super) const MAX_RECORDS: usize = 64;

/// Entries of one summary: with the rest of the message, one datagram.
pub(super) const MAX_SUMMARY: usize = 24;

/// Members that one answer names.
pub(super) const MAX_PRESENT: usize = 16;

/// Into how many parts ids are divided at each step.
pub(super) const PARTS: usize = 16;

/// Digits of an id, of which each step has one.
const DIGITS: u8 = 64;

/// Why a gossip message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GossipError {
    /// Bytes that are no gossip message of this version.
    #[error("not a gossip message")]
    Malformed,
    /// More entries than one message may have.
    #[error("too many entries in a gossip message")]
    TooMany,
    /// More messages of one peer than are looked at.
    #[error("too many gossip messages")]
    TooOften,
    /// A record of somebody who is no member.
    #[error("a record of a stranger")]
    Stranger,
    /// A record that its member did not sign.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What neighbours say to each other on the gossip stream.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum GossipMessage {
    /// Records that the receiver may lack.
    Records(Vec<SignedRecord>),
    /// A digest over all records of the sender, so that equal sets cost 33 bytes.
    Compare(Digest),
    /// Digests over the sixteen parts of what begins with some digits: answered with a closer look at those that differ at the receiver.
    Branch(Box<Branch>),
    /// Ids and sequence numbers of all the sender's records that begin with some digits: answered with what is newer at the receiver, or a
    /// branch where that is too much, and a request for what is older there.
    Summary(Summary),
    /// Ids of which the receiver has newer records than the sender. Answered with them and nothing else, so that a comparison ends.
    Request(Vec<NodeId>),
    /// The sender is in touch with too few members: answered with some that are there.
    Wanted,
    /// Members that the sender is in touch with, for one that asked: a hint whom to try.
    Present(Vec<NodeId>),
}

/// The first hexadecimal digits of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct IdPrefix {
    /// The first id that begins so: zeros follow.
    first: NodeId,
    digits: u8,
}

/// A digest over the records of one part.
pub(super) type PartDigest = [u8; 16];

/// What a node holds of the ids that begin so, part by part.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Branch {
    pub(super) prefix: IdPrefix,
    pub(super) parts: [PartDigest; PARTS],
}

/// What a node holds of the ids that begin so. One that is not listed has no record there.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Summary {
    pub(super) prefix: IdPrefix,
    pub(super) entries: Vec<(NodeId, u64)>,
}

impl IdPrefix {
    /// That of all ids.
    pub(super) const ALL: Self = Self { first: NodeId([0; 32]), digits: 0 };

    /// The first and the last id that begin so.
    pub(super) fn range(&self) -> (NodeId, NodeId) {
        let mut last = self.first;
        for digit in usize::from(self.digits)..usize::from(DIGITS) {
            last.0[digit / 2] |= if digit.is_multiple_of(2) { 0xf0 } else { 0x0f };
        }
        (self.first, last)
    }

    /// What begins with one digit more, 0 to 15; none where an id has no more.
    pub(super) fn part(&self, digit: u8) -> Option<Self> {
        let mut first = self.first;
        let byte = first.0.get_mut(usize::from(self.digits) / 2)?;
        *byte |= if self.digits.is_multiple_of(2) { digit << 4 } else { digit };
        Some(Self { first, digits: self.digits + 1 })
    }

    fn is_valid(&self) -> bool {
        let (first, last) = self.range();
        // What follows the digits is zero: set, each bit there is one of the range's.
        let spread = first.0.iter().zip(&last.0).map(|(low, high)| (low ^ high).count_ones()).sum::<u32>();
        self.digits <= DIGITS && spread == 4 * u32::from(DIGITS - self.digits)
    }
}

impl GossipMessage {
    /// Encodes the message.
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Decodes a message; all bytes must belong to it, and the counts are bounded.
    ///
    /// # Errors
    /// [`GossipError::Malformed`] or [`GossipError::TooMany`].
    pub fn decode(bytes: &[u8]) -> Result<Self, GossipError> {
        let message = borsh::from_slice(bytes).map_err(|_| GossipError::Malformed)?;
        let (fits, is_valid) = match &message {
            Self::Records(records) => (records.len() <= MAX_RECORDS, true),
            Self::Summary(summary) => (summary.entries.len() <= MAX_SUMMARY, summary.prefix.is_valid()),
            Self::Request(ids) => (ids.len() <= MAX_RECORDS, true),
            Self::Branch(branch) => (true, branch.prefix.is_valid()),
            Self::Compare(_) | Self::Wanted => (true, true),
            Self::Present(ids) => (ids.len() <= MAX_PRESENT, true),
        };
        match (fits, is_valid) {
            (true, true) => Ok(message),
            (false, _) => Err(GossipError::TooMany),
            (true, false) => Err(GossipError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_the_ids_that_begin_with_its_digits() {
        assert_eq!(IdPrefix::ALL.range(), (NodeId([0; 32]), NodeId([0xff; 32])));
        let (first, last) =
            IdPrefix::ALL.part(0xa).and_then(|it| it.part(0xb)).and_then(|it| it.part(3)).unwrap().range();
        assert_eq!((first.0[0], first.0[1], first.0[2]), (0xab, 0x30, 0));
        assert_eq!((last.0[0], last.0[1], last.0[2]), (0xab, 0x3f, 0xff));
        let mut whole = IdPrefix::ALL;
        for digit in 0..64 {
            whole = whole.part(digit % 16).unwrap();
        }
        assert_eq!(whole.range().0, whole.range().1);
        assert_eq!(whole.part(0), None, "an id has 64 digits");
    }

    #[test]
    fn a_message_with_too_many_entries_or_a_crooked_prefix_is_refused() {
        let decode = |message: GossipMessage| GossipMessage::decode(&message.encode());
        let entries = vec![(NodeId([1; 32]), 1); MAX_SUMMARY + 1];
        let summary = |prefix, entries| GossipMessage::Summary(Summary { prefix, entries });
        assert_eq!(decode(summary(IdPrefix::ALL, entries)), Err(GossipError::TooMany));
        let present = GossipMessage::Present(vec![NodeId([1; 32]); MAX_PRESENT + 1]);
        assert_eq!(GossipMessage::decode(&present.encode()), Err(GossipError::TooMany));
        let request = GossipMessage::Request(vec![NodeId([1; 32]); MAX_RECORDS + 1]);
        assert_eq!(decode(request), Err(GossipError::TooMany));
        assert_eq!(GossipMessage::decode(&[7]), Err(GossipError::Malformed));
        for (first, digits) in [([1; 32], 0), ([0xff; 32], 63), ([0; 32], 65), ([0; 32], 255)] {
            let prefix = IdPrefix { first: NodeId(first), digits };
            assert_eq!(decode(summary(prefix, Vec::new())), Err(GossipError::Malformed), "{digits}");
        }
        let whole = IdPrefix { first: NodeId([0xff; 32]), digits: 64 };
        assert!(decode(summary(whole, Vec::new())).is_ok());
    }
}
