//! Calls: two members tell each other their endpoints at the moment at which both begin to open their NATs.
//!
//! ```text
//!   Ada ── Call(endpoints) ──► Ben      in their session, through a relay; or by a member that has a session with both
//!   Ada ◄── Call(endpoints, answer) ── Ben, who waits for half a round trip
//!   Ada ◄═══ probes ═══► Ben            both at once
//! ```
//! What a call names is believed no more than a record is: probes to it are few, and nothing moves without an answer.

use super::Node;
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::path::CandidateSource;
use crate::router::budget::TokenBucket;
use crate::time::Now;
use crate::wire::control::{Call, ControlMessage, MAX_RECORD_ENDPOINTS};
use crate::wire::drops::DropReason;
use rand_core::CryptoRng;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Calls of one member, and its questions for labels, that are passed on or heeded: a second, and at once.
const CALLS_PER_SECOND: u64 = 4;
const CALLS_AT_ONCE: u64 = 32;

/// Members that a call goes through at a time.
const MAX_BETWEEN: usize = 2;

/// How many calls each peer may still make.
#[derive(Default)]
pub(super) struct Calls(BTreeMap<TransportKey, TokenBucket>);

impl Calls {
    /// Takes one. Returns whether there was one left.
    pub(super) fn take(&mut self, now: Now, from: TransportKey) -> bool {
        let full = TokenBucket::new(CALLS_PER_SECOND, CALLS_AT_ONCE);
        self.0.entry(from).or_insert(full).take(now.instant, 1)
    }

    /// Says whether a peer's calls are counted.
    pub(super) fn mentions(&self, peer: &TransportKey) -> bool {
        self.0.contains_key(peer)
    }

    /// Forgets a peer whose last session ended, or who is none any more.
    pub(super) fn forget(&mut self, peer: &TransportKey) {
        self.0.remove(peer);
    }
}

impl<R: CryptoRng> Node<R> {
    /// A relay carries what is for a peer: has both ends look for a direct path.
    pub(super) fn call_if_relayed(&mut self, now: Now, key: TransportKey) {
        if let Some(id) = self.policy.admit(&key).member().filter(|_| self.peers.wants_punch(&key)) {
            let call = self.own_call(id, false);
            self.peers.send_control(now, key, &ControlMessage::Call(call));
            // Until the answer comes, what the record says.
            self.punch(now, key, Vec::new());
        }
    }

    /// Asks members in touch with both to have a member meet this node half-way.
    pub(super) fn call_through_others(&mut self, now: Now, id: NodeId, key: TransportKey) {
        let between: Vec<_> = self.push_targets().into_iter().filter(|other| *other != key).take(MAX_BETWEEN).collect();
        for other in between {
            let call = self.own_call(id, false);
            self.peers.send_control(now, other, &ControlMessage::Call(call));
        }
    }

    pub(super) fn own_call(&self, to: NodeId, is_answer: bool) -> Call {
        let endpoints = self.reach.endpoints().take(MAX_RECORD_ENDPOINTS).collect();
        Call { from: self.own_id, to, endpoints, nat: self.reach.nat(), is_answer }
    }

    /// Takes a call: for this node, or to be passed on once.
    pub(super) fn handle_call(&mut self, now: Now, by: TransportKey, call: Call) {
        let (by_id, is_for_us) = (self.policy.admit(&by).member(), call.to == self.own_id);
        let caller = self.policy.member(&call.from).map(|member| member.transport_key);
        // Who passes a call on does not pay for it.
        let Some(key) = caller.filter(|_| call.from != self.own_id) else {
            return self.drops.count(DropReason::ControlRefused);
        };
        if !self.calls.take(now, key) {
            return self.drops.count(DropReason::RateLimited);
        }
        if !is_for_us {
            let to = self.policy.member(&call.to).map(|member| member.transport_key);
            // Only for the caller itself: so a call is passed on once.
            if let Some(to) = to.filter(|_| by_id == Some(call.from)) {
                self.peers.send_control(now, to, &ControlMessage::Call(call));
            }
            return;
        }
        // What somebody else says of its endpoints is not believed: its record has them, too.
        let told = call.endpoints.iter().copied().filter(|_| by == key);
        let endpoints: Vec<_> = told.filter(|endpoint| self.take_called(key, call.from, *endpoint)).collect();
        if !call.is_answer && by == key {
            let answer = self.own_call(call.from, true);
            self.peers.send_control(now, key, &ControlMessage::Call(answer));
        }
        if self.peers.wants_punch(&key) || self.peers.is_punching(&key) {
            let begin = if call.is_answer { now } else { self.half_way(now, &key) };
            if by == key {
                self.want_search(begin, key, call.nat, &endpoints);
            }
            self.punch(begin, key, endpoints);
        } else if !self.peers.has_session(&key) {
            self.peers.take_record_news(now.instant, key);
            let (peers, mut ctx) = self.peers_and_context(now);
            peers.try_directly(&mut ctx, key);
            peers.connect(&mut ctx, key);
        }
    }

    /// The moment at which an answer that leaves now arrives.
    fn half_way(&self, now: Now, key: &TransportKey) -> Now {
        let rtt = self.peers.peer(key).and_then(|peer| peer.paths.rtt()).unwrap_or_default();
        now + rtt / 2
    }

    fn take_called(&mut self, key: TransportKey, id: NodeId, endpoint: SocketAddr) -> bool {
        let in_overlay = |address| self.routing.in_overlay(address);
        self.peers.add_candidate(key, Some(id), endpoint, CandidateSource::Record, in_overlay).is_ok()
    }

    /// Begins to open a direct path at `begin`, to these endpoints and to what is known already.
    fn punch(&mut self, begin: Now, key: TransportKey, endpoints: Vec<SocketAddr>) {
        let known = self.peers.peer(&key).map(|peer| peer.paths.candidates().ranked()).unwrap_or_default();
        let mut targets = endpoints;
        targets.extend(known);
        let mut seen = std::collections::BTreeSet::new();
        targets.retain(|target| seen.insert(*target));
        targets.truncate(MAX_RECORD_ENDPOINTS);
        self.peers.punch(key, begin.instant, targets);
    }
}
