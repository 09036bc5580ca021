//! What happens to a message on its way, and what a liar makes of it.

use super::{Cluster, Event, Partition};
use crate::consensus::block::{Block, CHAIN, id_of};
use p2plus::crypto::hash::Digest;
use p2plus::crypto::identity::VerifyingKey;
use p2plus::ledger::consensus::message::{Message, SignedProposal, SignedVote};
use p2plus::ledger::consensus::{BlockId, Recipients};
use std::time::Duration;

impl Cluster {
    pub(super) fn connected(&self, one: usize, other: usize) -> bool {
        let apart =
            |it: &Partition| self.now >= it.from && self.now < it.until && (one < it.split) != (other < it.split);
        !self.partition.as_ref().is_some_and(apart)
    }

    pub(super) fn send(&mut self, node: usize, to: Recipients, bytes: &[u8]) {
        let place = |key: &VerifyingKey| usize::from(self.validators.index_of(key).unwrap());
        let receivers: Vec<usize> = match to {
            Recipients::Validators => (0..self.nodes.len()).filter(|other| *other != node).collect(),
            Recipients::Validator(key) => vec![place(&key)],
        };
        if !self.nodes[node].is_liar {
            self.watch(node, bytes);
            let is_proposal = matches!(Message::decode(bytes), Ok(Message::Proposal(..)));
            let is_pushed = is_proposal && to == Recipients::Validators;
            for receiver in receivers {
                if !(is_pushed && self.nodes[receiver].is_deaf_to_proposals) {
                    self.transmit(node, receiver, bytes.to_vec());
                }
            }
            return;
        }
        // A liar tells one half this and the other half that, and some of them both.
        let lie = self.lie(node, bytes).unwrap_or_else(|| bytes.to_vec());
        for receiver in receivers {
            let (first, second) = if receiver % 2 == 0 { (bytes, lie.as_slice()) } else { (lie.as_slice(), bytes) };
            self.transmit(node, receiver, first.to_vec());
            if self.random(4) == 0 {
                self.transmit(node, receiver, second.to_vec());
            }
        }
    }

    fn transmit(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        self.counts.messages += 1;
        self.counts.bytes += bytes.len() as u64;
        let is_lost = self.random(1000) < self.options.loss_permille;
        if is_lost || !self.connected(from, to) {
            return;
        }
        let jitter = self.random(u64::try_from(self.options.jitter.as_micros()).unwrap() + 1);
        let arrival = self.now + self.options.latency + Duration::from_micros(jitter);
        let from = self.nodes[from].key().verifying_key();
        self.schedule(arrival, to, None, Event::Deliver { from, bytes });
    }

    /// An honest validator never signs two things for one step, in whichever of its lives.
    fn watch(&mut self, node: usize, bytes: &[u8]) {
        let seed = self.options.seed;
        match Message::decode(bytes) {
            Ok(Message::Vote(vote)) => {
                assert_eq!(usize::from(vote.validator), node);
                let step = (vote.height, vote.round, vote.kind);
                let first = *self.nodes[node].votes.entry(step).or_insert(vote.block);
                assert_eq!(first, vote.block, "node {node} voted twice: {vote:?}, seed {seed}");
            }
            Ok(Message::Proposal(proposal, _)) if usize::from(proposal.proposer) == node => {
                let round = (proposal.height, proposal.round);
                let first = *self.nodes[node].proposals.entry(round).or_insert(proposal.block);
                assert_eq!(first, proposal.block, "node {node} proposed twice: {proposal:?}, seed {seed}");
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Signs something else in place of a vote or a proposal.
    fn lie(&self, node: usize, bytes: &[u8]) -> Option<Vec<u8>> {
        let key = self.nodes[node].key();
        let message = match Message::decode(bytes).ok()? {
            Message::Vote(vote) => {
                let unsigned = SignedVote { block: Some(BlockId(Digest([9; 32]))), ..vote };
                Message::Vote(SignedVote { signature: key.sign(&unsigned.signed_bytes(&CHAIN)), ..unsigned })
            }
            Message::Proposal(proposal, block) if usize::from(proposal.proposer) == node => {
                let mut other: Block = borsh::from_slice(&block).ok()?;
                other.filler.push(7);
                let other = borsh::to_vec(&other).ok()?;
                let unsigned = SignedProposal { block: id_of(&other)?, ..proposal };
                let signed = SignedProposal { signature: key.sign(&unsigned.signed_bytes(&CHAIN)), ..unsigned };
                Message::Proposal(signed, other)
            }
            _ => return None,
        };
        Some(message.encode())
    }
}
