//! Whole handshakes between two nodes, and what attackers make of their datagrams.

mod effort;
mod flow;
mod gate;
mod hostile;
mod impersonation;

use super::initiator::Initiator;
use super::responder::Outcome;
use super::*;
use crate::session::cookie::Source;
use crate::session::testing::{NETWORK_SECRET, Node, aim, at, keys, keys_with, policy_of, shake, transport_key};
use crate::time::Instant;

fn after(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

/// Members 1 and 2 and an attempt of the first.
fn pair() -> (Node, Node, Initiator) {
    let policy = policy_of([1, 2]);
    let mut left = Node::new(1, policy.clone());
    let initiator = left.initiate(after(0), 2);
    (left, Node::new(2, policy), initiator)
}

fn flight(initiator: &Initiator, to: Source) -> [Vec<u8>; 3] {
    initiator.datagrams(to).map(<[u8]>::to_vec)
}

/// Gives datagrams to a responder and returns all it sends and makes.
fn give(node: &mut Node, now: Instant, source: Source, datagrams: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<Established>) {
    let (mut transmit, mut established) = (Vec::new(), Vec::new());
    for datagram in datagrams {
        let outcome = node.receive(now, source, datagram).unwrap();
        transmit.extend(outcome.transmit);
        established.extend(outcome.established);
    }
    (transmit, established)
}

fn refusal(outcome: Result<Outcome, Refusal>) -> Option<Refusal> {
    outcome.err()
}
