use super::*;
use crate::crypto::identity::SigningKey;
use crate::ledger::address::Ipv4Choice;
use crate::ledger::chain::{Proposing, build};
use crate::ledger::consensus::Timeouts;
use crate::ledger::consensus::wal::{Log, LogStore};
use crate::ledger::kit::*;
use crate::ledger::operation::{Operation, Revoke, Scope, Scopes, SignerSet};
use crate::ledger::store::disk::{Disk, Fault};
use crate::ledger::store::{Behind, MemoryMark};
use crate::ledger::transaction::Transaction;
use crate::ledger::tree::MemoryTree;
use crate::ledger::validators::{Seat, Seats, Validator};
use crate::policy::Rights;
use crate::time::UnixMillis;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

mod halting;
mod ordering;
mod revoking;
mod screening;
mod submitting;
mod syncing;

/// A log in memory; clones share it.
#[derive(Clone, Default)]
struct MemoryLog(Arc<Mutex<Vec<u8>>>);

impl LogStore for MemoryLog {
    type Error = io::Error;

    fn load(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = self.0.lock().unwrap();
        if let Ok(log) = Log::decode(&bytes) {
            bytes.truncate(log.whole_len);
        }
        Ok(bytes.clone())
    }

    fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().extend_from_slice(frame);
        Ok(())
    }

    fn reset(&mut self, frame: &[u8]) -> io::Result<()> {
        *self.0.lock().unwrap() = frame.to_vec();
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One node: its ledger and what outlives it.
struct Node {
    ledger: Ledger,
    transport_key: TransportKey,
    disk: Disk,
    mark: MemoryMark,
    log: MemoryLog,
    validator: Option<u8>,
    events: Vec<Event>,
    refused: Vec<MessageRefused>,
    is_up: bool,
}

impl Node {
    /// A store that is young when the world begins.
    fn store(disk: &Disk, mark: &MemoryMark, chain: Digest) -> Store {
        Store::create(disk.clone(), Box::new(mark.clone()), chain, BEGIN.after(HOUR), Behind::Refuse).unwrap()
    }

    fn founder(genesis: &Genesis, seed: u8, validator: Option<u8>) -> Self {
        let (disk, mark) = (Disk::default(), MemoryMark::default());
        let ledger = Ledger::create(Self::store(&disk, &mark, genesis.network_id()), genesis).unwrap();
        Self::with(ledger, seed, disk, mark, validator)
    }

    fn joiner(genesis: &Genesis, seed: u8, checkpoint: Option<Checkpoint>) -> Self {
        let (disk, mark) = (Disk::default(), MemoryMark::default());
        let ledger = Ledger::open(Self::store(&disk, &mark, genesis.network_id()), checkpoint).unwrap();
        Self::with(ledger, seed, disk, mark, None)
    }

    fn with(ledger: Ledger, seed: u8, disk: Disk, mark: MemoryMark, validator: Option<u8>) -> Self {
        let (transport_key, log) = (TransportKey([seed; 32]), MemoryLog::default());
        let (events, refused) = (Vec::new(), Vec::new());
        let mut node = Self { ledger, transport_key, disk, mark, log, validator, events, refused, is_up: true };
        node.validate(true);
        node
    }

    fn validate(&mut self, is_new_key: bool) {
        if let Some(seed) = self.validator {
            let (log, timeouts) = (Box::new(self.log.clone()), Timeouts::default());
            self.ledger.validate(ValidatorConfig { key: key(seed), log, is_new_key, timeouts }).unwrap();
        }
    }

    /// Kills the node and starts it again from its disk.
    fn restart(&mut self) -> Result<(), OpenError> {
        let chain = *self.ledger.network_id();
        let disk = self.disk.after_kill();
        let store = Store::open(disk.clone(), Box::new(self.mark.clone()), chain, Behind::Refuse)?;
        self.ledger = Ledger::open(store, None)?;
        self.disk = disk;
        self.validate(false);
        Ok(())
    }

    fn policy_changes(&self) -> Vec<&PolicyDiff> {
        let changes = self.events.iter().filter_map(|event| match event {
            Event::PolicyChanged(diff) => Some(diff),
            _ => None,
        });
        changes.collect()
    }
}

/// Nodes that hear each other at once.
struct World {
    nodes: Vec<Node>,
    now: Now,
    seq: u64,
}

impl World {
    fn new(nodes: Vec<Node>) -> Self {
        let now = Now { instant: Instant::from_micros(1), wall: BEGIN.after(HOUR) };
        let mut world = Self { nodes, now, seq: 0 };
        world.meet();
        world
    }

    /// A founder that is the only validator, and a member that is none.
    fn pair() -> Self {
        let genesis = found(Ipv4Choice::Derived);
        let founder = Node::founder(&genesis, FOUNDER, Some(VALIDATOR));
        let mut world = Self::new(vec![founder, Node::joiner(&genesis, NODE, None)]);
        world.order(0, Operation::Admit(admit(NODE, 0)));
        assert!(world.nodes[1].ledger.policy().member(&id(NODE)).is_some());
        world
    }

    /// Opens sessions between all nodes that are up.
    fn meet(&mut self) {
        let keys: Vec<_> = self.nodes.iter().map(|node| node.transport_key).collect();
        for node in self.nodes.iter_mut().filter(|node| node.is_up) {
            for peer in keys.iter().filter(|key| **key != node.transport_key) {
                node.ledger.handle_session(self.now, *peer);
            }
        }
        self.settle();
    }

    /// Delivers messages until nobody has anything to say.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let mut quiet = true;
            for sender in 0..self.nodes.len() {
                while let Some((to, message)) = self.nodes[sender].ledger.poll_message() {
                    quiet = false;
                    self.deliver(sender, to, &message);
                }
                while let Some(event) = self.nodes[sender].ledger.poll_event() {
                    self.nodes[sender].events.push(event);
                }
            }
            if quiet {
                return;
            }
        }
        panic!("the nodes never stop talking");
    }

    fn deliver(&mut self, sender: usize, to: Recipient, message: &LedgerMessage) {
        let from = self.nodes[sender].transport_key;
        if !self.nodes[sender].is_up {
            return;
        }
        let bytes = message.encode();
        for receiver in 0..self.nodes.len() {
            let node = &mut self.nodes[receiver];
            let meant = match to {
                Recipient::Peer(key) => key == node.transport_key,
                Recipient::Neighbours | Recipient::Sessions | Recipient::EverySession => true,
                Recipient::Validators => node.validator.is_some(),
            };
            if receiver != sender && node.is_up && meant {
                let message = LedgerMessage::decode(&bytes).unwrap();
                if let Err(refused) = node.ledger.handle_message(self.now, from, message) {
                    node.refused.push(refused);
                }
            }
        }
    }

    /// Lets time pass, with every deadline in it.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        self.settle();
        loop {
            let up = self.nodes.iter().filter(|node| node.is_up);
            let next = up.filter_map(|node| node.ledger.poll_timeout()).map(|(at, _)| at).min();
            let Some(at) = next.filter(|at| *at <= end.instant) else { break };
            self.now = self.now + at.saturating_since(self.now.instant);
            for node in self.nodes.iter_mut().filter(|node| node.is_up) {
                if node.ledger.poll_timeout().is_some_and(|(at, _)| at <= self.now.instant) {
                    node.ledger.handle_timeout(self.now);
                }
            }
            self.settle();
        }
        self.now = self.now + end.instant.saturating_since(self.now.instant);
    }

    fn sign(&mut self, seeds: &[u8], operations: Vec<Operation>) -> SignedTransaction {
        self.seq += 1;
        let until = self.now.wall.after(HOUR);
        self.signed(seeds, Transaction::new(key(seeds[0]).verifying_key(), self.seq, until, operations))
    }

    fn signed(&self, seeds: &[u8], transaction: Transaction) -> SignedTransaction {
        let keys: Vec<SigningKey> = seeds.iter().map(|seed| key(*seed)).collect();
        let keys: Vec<_> = keys.iter().collect();
        transaction.sign(self.nodes[0].ledger.network_id(), &keys)
    }

    fn revocation(&self, signer: u8, revoked: &[(u8, u64)]) -> SignedTransaction {
        let revoke = |(seed, incarnation): &(u8, u64)| Revoke { identity: id(*seed), incarnation: *incarnation };
        let author = key(signer).verifying_key();
        self.signed(&[signer], Transaction::revocation(author, revoked.iter().map(revoke)))
    }

    /// Lets one node submit an operation of the admin.
    fn order(&mut self, node: usize, operation: Operation) -> TxId {
        let transaction = self.sign(&[ADMIN], vec![operation]);
        let transaction = self.nodes[node].ledger.submit(self.now, transaction).unwrap();
        self.settle();
        self.now = self.now + Duration::from_millis(5);
        transaction
    }

    fn heights(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.ledger.head().map_or(0, |head| head.height().0)).collect()
    }
}
