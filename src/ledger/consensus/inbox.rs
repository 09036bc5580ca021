//! Messages for heights that are not open here, from validators that are ahead.
//!
//! A validator that comes back finds the whole course of the height at which the others are, as soon as sync has brought it there.

use super::certificate::Height;
use super::message::Message;
use super::validators::MAX_VALIDATORS;
use crate::crypto::identity::VerifyingKey;
use std::collections::BTreeMap;

/// Heights kept per sender, its latest: what four validators decide while a block is fetched.
const HEIGHTS_PER_SENDER: usize = 4;
/// Messages kept per sender and height: a whole round (proposal, two votes, two certificates) and the start of another. More are
/// refused; the engine repeats votes, and proposals are pulled.
const MESSAGES_PER_HEIGHT: usize = 8;
/// Bytes of blocks kept in all. More are refused, and pulled later.
const MAX_BLOCK_BYTES: usize = 4 * 1024 * 1024;

/// A bounded queue per sender: whoever sends nonsense displaces its own messages alone.
#[derive(Default)]
pub(super) struct Inbox {
    queues: BTreeMap<VerifyingKey, BTreeMap<Height, Vec<Message>>>,
    block_bytes: usize,
}

impl Inbox {
    /// Keeps a message for `height`. `false` when the sender has filled its share, or blocks have filled theirs.
    #[must_use]
    pub(super) fn push(&mut self, height: Height, from: VerifyingKey, message: Message) -> bool {
        let added = block_len(&message);
        let is_full = self.queues.len() >= MAX_VALIDATORS && !self.queues.contains_key(&from);
        if is_full || self.block_bytes + added > MAX_BLOCK_BYTES {
            return false;
        }
        let queue = self.queues.entry(from).or_default();
        if queue.len() >= HEIGHTS_PER_SENDER && !queue.contains_key(&height) {
            let oldest = queue.first_entry().filter(|oldest| *oldest.key() < height);
            let Some(oldest) = oldest else { return false };
            self.block_bytes -= oldest.remove().iter().map(block_len).sum::<usize>();
        }
        let messages = queue.entry(height).or_default();
        let has_block = added > 0 && messages.iter().any(|kept| block_len(kept) > 0);
        if messages.len() >= MESSAGES_PER_HEIGHT || has_block {
            return false;
        }
        messages.push(message);
        self.block_bytes += added;
        true
    }

    /// Takes what was kept for `height`, of each sender in the order of arrival; what was kept for lower ones goes.
    pub(super) fn take(&mut self, height: Height) -> Vec<(VerifyingKey, Message)> {
        let mut taken = Vec::new();
        for (from, queue) in &mut self.queues {
            let later = queue.split_off(&height.next());
            for (kept_for, messages) in std::mem::replace(queue, later) {
                self.block_bytes -= messages.iter().map(block_len).sum::<usize>();
                if kept_for == height {
                    taken.extend(messages.into_iter().map(|message| (*from, message)));
                }
            }
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        taken
    }
}

fn block_len(message: &Message) -> usize {
    if let Message::Proposal(_, block) = message { block.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_BLOCK_LEN;
    use super::super::certificate::{BlockId, Round};
    use super::super::message::SignedProposal;
    use super::*;
    use crate::crypto::identity::Signature;

    const SENDER: VerifyingKey = VerifyingKey([1; 32]);
    const VOTE: Message = Message::LastVote(None);

    fn proposal(height: u64) -> Message {
        let (height, round) = (Height(height), Round(0));
        let signature = Signature([0; 64]);
        let proposal =
            SignedProposal { height, round, pol_round: None, block: BlockId::default(), proposer: 0, signature };
        Message::Proposal(proposal, vec![0; MAX_BLOCK_LEN])
    }

    #[test]
    fn one_sender_fills_its_own_share_alone() {
        let mut inbox = Inbox::default();
        let kept = (0..20).filter(|_| inbox.push(Height(3), SENDER, VOTE)).count();
        assert_eq!(kept, MESSAGES_PER_HEIGHT);
        assert!(inbox.push(Height(3), VerifyingKey([2; 32]), VOTE));
        assert_eq!(inbox.take(Height(3)).len(), MESSAGES_PER_HEIGHT + 1);
    }

    #[test]
    fn the_latest_heights_of_a_sender_are_kept() {
        let mut inbox = Inbox::default();
        (3..9).for_each(|height| assert!(inbox.push(Height(height), SENDER, VOTE)));
        assert!(!inbox.push(Height(4), SENDER, VOTE));
        assert_eq!(inbox.take(Height(4)).len(), 0);
        assert_eq!(inbox.take(Height(7)), [(SENDER, VOTE)]);
        assert_eq!(inbox.take(Height(6)).len(), 0, "it went when a higher one was taken");
        assert_eq!(inbox.take(Height(8)).len(), 1);
    }

    #[test]
    fn blocks_are_counted_in_and_out() {
        let mut inbox = Inbox::default();
        let sender = |number: u8| VerifyingKey([number; 32]);
        let kept = (0..40).filter(|number| inbox.push(Height(3), sender(*number), proposal(3))).count();
        assert_eq!(kept, MAX_BLOCK_BYTES / MAX_BLOCK_LEN);
        assert!(!inbox.push(Height(3), sender(0), proposal(3)), "a second block of one sender");
        assert_eq!(inbox.take(Height(3)).len(), kept);
        assert_eq!(inbox.block_bytes, 0);
        (3..20).for_each(|height| assert!(inbox.push(Height(height), SENDER, proposal(height))));
        assert_eq!(inbox.block_bytes, HEIGHTS_PER_SENDER * MAX_BLOCK_LEN);
    }
}
