//! The resolver: answers DNS at the node's magic addresses, to this host alone, from what the ledger says.
//!
//! ```text
//!   own device ─► handle_packet ─► source one of our own? ─► Stack (UDP, TCP, ping) ─► answer(Zone, query)
//!   own device ◄─ poll_transmit ◄──────────────────────────────────┘                      ▲ policy
//! ```
//! Owns the zone, which follows the policy, and the sockets. Never asks anybody: what it does not know is refused, so that a question about
//! the network never leaves the host, and a question about anything else never comes through here.

mod answer;
mod ask;
mod stack;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod zone;

pub use answer::{Answer, MAX_QUERY_LEN, MAX_UDP_LEN, NEGATIVE_TTL, TTL, Transport, Unanswerable, answer};
pub use ask::{Asked, AskedRecord, BadQuestion, ask};
pub use zone::{Place, Reverse, Zone, ZoneTerms};

use crate::router::icmp::AnswerSources;
use crate::time::Instant;
use crate::wire::drops::DropReason;
use crate::wire::inner::{Fragment, InnerPacket};
use rand_core::CryptoRng;
use stack::Stack;
use std::net::IpAddr;
use std::sync::Arc;

/// Bytes of an IP header without options or extensions, which no resolver of a host sends.
const PLAIN_HEADERS: [usize; 2] = [20, 40];

/// What the resolver did so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ResolverCounters {
    /// Messages that were answered.
    pub answered: u64,
    /// Of these, names that are not there.
    pub unknown_names: u64,
    /// Of these, questions about other people's names.
    pub refused: u64,
    /// Of these, messages that are none, or ask for what nobody does here.
    pub malformed: u64,
    /// Of these, answers that were too long for UDP.
    pub truncated: u64,
    /// Messages that no answer could be given to.
    pub unanswerable: u64,
    /// TCP connections that were ended: idle, wrong, or in the way of newer ones.
    pub ended_connections: u64,
}

/// See the module.
pub struct Resolver {
    zone: Option<Arc<Zone>>,
    own: Vec<IpAddr>,
    addresses: AnswerSources,
    stack: Option<Stack>,
    counters: ResolverCounters,
    now: Instant,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl Resolver {
    /// Answers nobody yet.
    pub fn new() -> Self {
        Self {
            zone: None,
            own: Vec::new(),
            addresses: AnswerSources::default(),
            stack: None,
            counters: ResolverCounters::default(),
            now: Instant::ZERO,
        }
    }

    /// Takes another zone, and this node's own addresses: those that may ask. `addresses` are where it answers.
    pub fn set_zone(&mut self, zone: Arc<Zone>, own: Vec<IpAddr>, addresses: AnswerSources, rng: &mut impl CryptoRng) {
        if self.stack.is_none() || self.addresses != addresses {
            self.stack = Some(Stack::new(addresses, rng.next_u64()));
            self.addresses = addresses;
        }
        self.own = own;
        self.zone = Some(zone);
    }

    /// The zone in force, if there is one.
    pub fn zone(&self) -> Option<&Arc<Zone>> {
        self.zone.as_ref()
    }

    /// Where it answers.
    pub fn addresses(&self) -> AnswerSources {
        self.addresses
    }

    /// What it did so far.
    pub fn counters(&self) -> ResolverCounters {
        let ended_connections = self.stack.as_ref().map_or(0, Stack::evicted);
        ResolverCounters { ended_connections, ..self.counters }
    }

    /// Takes a packet of the own device for one of the resolver's addresses.
    ///
    /// # Errors
    /// The reason to drop it.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> Result<(), DropReason> {
        self.now = self.now.max(now);
        let inner = InnerPacket::parse(packet).map_err(|_| DropReason::MalformedPacket)?;
        if !self.addresses.contains(inner.destination) {
            return Err(DropReason::NoRoute);
        }
        if !self.own.contains(&inner.source) {
            return Err(DropReason::SourceNotOurs);
        }
        if inner.fragment != Fragment::Whole || !PLAIN_HEADERS.contains(&inner.payload_offset) {
            return Err(DropReason::MalformedQuery);
        }
        let (Some(stack), Some(zone)) = (&mut self.stack, &self.zone) else { return Err(DropReason::NoRoute) };
        let before = self.counters.unanswerable;
        stack.handle_packet(self.now, packet, &mut |query, transport| self.counters.answer(zone, query, transport));
        if self.counters.unanswerable > before { Err(DropReason::MalformedQuery) } else { Ok(()) }
    }

    /// The next packet for the device.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.stack.as_mut()?.poll_transmit()
    }

    /// When [`Self::handle_timeout`] is due: for a retransmission, or a connection that idles.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.stack.as_mut()?.poll_timeout(self.now)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if let (Some(stack), Some(zone)) = (&mut self.stack, &self.zone) {
            stack.handle_timeout(self.now, &mut |query, transport| self.counters.answer(zone, query, transport));
        }
    }
}

impl ResolverCounters {
    fn answer(&mut self, zone: &Zone, query: &[u8], transport: Transport) -> Result<Answer, Unanswerable> {
        let answered = answer(zone, query, transport);
        match &answered {
            Ok(answer) => {
                self.answered += 1;
                self.truncated += u64::from(answer.is_truncated);
                match answer.code {
                    1 | 4 | 16 => self.malformed += 1,
                    3 => self.unknown_names += 1,
                    5 => self.refused += 1,
                    _ => {}
                }
            }
            Err(_) => self.unanswerable += 1,
        }
        answered
    }
}
