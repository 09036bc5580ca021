//! A small network for the tests of this folder: one founder, one signer, one validator, blocks made and committed by hand.

use super::address::Ipv4Choice;
use super::block::Block;
use super::certificate::Certificate;
use super::certificate::tests::certificate;
use super::chain::{Built, Execution, Head, Proposing, build, execute};
use super::genesis::{Founding, Genesis};
use super::name::Label;
use super::operation::{Admit, Credential, Incarnation, Join, Operation, PROTOCOL_VERSION, Revoke, credential_hash};
use super::state::{State, TxError};
use super::transaction::{SignedTransaction, Transaction, Verified};
use super::tree::MemoryTree;
use super::validators::{Seat, Seats, Validator};
use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::Digest;
use crate::crypto::identity::{NodeId, SigningKey};
use crate::time::UnixMillis;
use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) const FOUNDER: u8 = 1;
pub(crate) const ADMIN: u8 = 2;
pub(crate) const VALIDATOR: u8 = 3;
/// Seeds of nodes begin here.
pub(crate) const NODE: u8 = 10;
pub(crate) const BEGIN: UnixMillis = UnixMillis(1_800_000_000_000);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

pub(crate) fn id(seed: u8) -> NodeId {
    key(seed).node_id()
}

pub(crate) fn label(text: &str) -> Label {
    text.parse().unwrap()
}

pub(crate) fn seats() -> Seats {
    let validator = Validator { key: key(VALIDATOR).verifying_key(), power: 1 };
    Seats::new(vec![Seat { validator, node: id(FOUNDER), transport_key: TransportKey([FOUNDER; 32]) }]).unwrap()
}

pub(crate) fn found(ipv4: Ipv4Choice) -> Genesis {
    found_at(ipv4, PROTOCOL_VERSION)
}

fn found_at(ipv4: Ipv4Choice, protocol_version: u32) -> Genesis {
    let founding = Founding {
        name: label("home"),
        ipv4,
        time: BEGIN,
        identity: &key(FOUNDER),
        node_key: key(FOUNDER + 100).verifying_key(),
        transport_key: TransportKey([FOUNDER; 32]),
        member_name: Some(label("founder")),
        others: Vec::new(),
        signer: &key(ADMIN),
        seats: seats(),
        recovery: BTreeSet::from([key(4).verifying_key(), key(5).verifying_key()]),
        recovery_needed: 1,
        protocol_version,
    };
    Genesis::create(&founding, &MemoryTree::default()).unwrap()
}

pub(crate) fn admit(seed: u8, incarnation: Incarnation) -> Admit {
    Admit {
        identity: id(seed),
        node_key: key(seed + 100).verifying_key(),
        transport_key: TransportKey([seed; 32]),
        name: None,
        tags: BTreeSet::new(),
        ipv4: None,
        expires: None,
        incarnation,
    }
}

pub(crate) fn join(seed: u8, credential: u8) -> Join {
    Join {
        identity: id(seed),
        node_key: key(seed + 100).verifying_key(),
        transport_key: TransportKey([seed; 32]),
        credential: key(credential).verifying_key(),
        name: None,
    }
}

pub(crate) fn credential(seed: u8, uses: u32, expires: UnixMillis) -> Credential {
    let key_hash = credential_hash(&key(seed).verifying_key());
    Credential { key_hash, name: None, tags: BTreeSet::new(), uses, expires }
}

pub(crate) struct Net {
    pub(crate) genesis: Genesis,
    pub(crate) head: Head,
    pub(crate) state: State,
    pub(crate) tree: MemoryTree,
    pub(crate) blocks: Vec<(Block, Option<Certificate>)>,
    seq: u64,
}

impl Net {
    pub(crate) fn new() -> Self {
        Self::with(Ipv4Choice::Derived)
    }

    pub(crate) fn with(ipv4: Ipv4Choice) -> Self {
        Self::begin(found(ipv4))
    }

    /// A network of an earlier protocol version.
    pub(crate) fn of_version(protocol_version: u32) -> Self {
        Self::begin(found_at(Ipv4Choice::Derived, protocol_version))
    }

    fn begin(genesis: Genesis) -> Self {
        let mut tree = MemoryTree::default();
        tree.apply(&genesis.changes).unwrap();
        let (head, state) = (Head::genesis(&genesis), genesis.state.clone());
        let blocks = vec![(genesis.block.clone(), None)];
        Self { genesis, head, state, tree, blocks, seq: 0 }
    }

    pub(crate) fn chain(&self) -> Digest {
        self.genesis.network_id()
    }

    /// The time that a block an hour after the head has.
    pub(crate) fn later(&self) -> UnixMillis {
        self.head.header.time.after(HOUR)
    }

    /// Signs by all of `seeds`, the first of which is the author.
    pub(crate) fn sign(&mut self, seeds: &[u8], operations: Vec<Operation>) -> Verified<SignedTransaction> {
        self.seq += 1;
        let until = self.later().after(HOUR * 12);
        self.sign_with(seeds, Transaction::new(key(seeds[0]).verifying_key(), self.seq, until, operations))
    }

    pub(crate) fn sign_with(&self, seeds: &[u8], transaction: Transaction) -> Verified<SignedTransaction> {
        let keys: Vec<_> = seeds.iter().map(|seed| key(*seed)).collect();
        let keys: Vec<_> = keys.iter().collect();
        transaction.sign(&self.chain(), &keys).verify(&self.chain()).unwrap()
    }

    pub(crate) fn admission(&mut self, admit: Admit) -> Verified<SignedTransaction> {
        self.sign(&[ADMIN], vec![Operation::Admit(admit)])
    }

    pub(crate) fn joining(&mut self, join: Join, credential: u8, seed: u8) -> Verified<SignedTransaction> {
        self.sign(&[seed, credential], vec![Operation::Join(join)])
    }

    pub(crate) fn revocation(&self, signer: u8, revoked: &[(u8, Incarnation)]) -> Verified<SignedTransaction> {
        let revoke =
            |(seed, incarnation): &(u8, Incarnation)| Revoke { identity: id(*seed), incarnation: *incarnation };
        let author = key(signer).verifying_key();
        self.sign_with(&[signer], Transaction::revocation(author, revoked.iter().map(revoke)))
    }

    pub(crate) fn propose(&self, time: UnixMillis, pending: &[Verified<SignedTransaction>]) -> Built {
        let proposing = Proposing { time, proposer: key(VALIDATOR).verifying_key(), evidence: Vec::new() };
        build(&self.head, &self.state, &self.tree, pending, proposing).unwrap()
    }

    pub(crate) fn certify(&self, block: &Block) -> Certificate {
        certificate(&self.chain(), block.header.height, block.id(), &self.state.validators(), &[VALIDATOR])
    }

    /// Proposes, executes and commits a block of all that applies; returns what did not.
    pub(crate) fn commit_at(&mut self, time: UnixMillis, pending: &[Verified<SignedTransaction>]) -> Built {
        let built = self.propose(time, pending);
        let execution = execute(&self.head, &self.state, &self.tree, &built.block).unwrap();
        assert_eq!(execution, built.execution);
        self.take(&built.block, &execution);
        built
    }

    pub(crate) fn take(&mut self, block: &Block, execution: &Execution) {
        let certificate = self.certify(block);
        self.tree.apply(&execution.changes).unwrap();
        self.state.commit(&execution.changes);
        self.head = Head::new(block, Some(certificate.clone()));
        self.blocks.push((block.clone(), Some(certificate)));
    }

    /// Commits one transaction in a block of its own, an hour later.
    pub(crate) fn commit(&mut self, transaction: Verified<SignedTransaction>) -> Result<(), TxError> {
        let time = self.later();
        match self.commit_at(time, &[transaction]).dropped.pop() {
            None => Ok(()),
            Some((_, error)) => Err(error),
        }
    }

    /// Commits one transaction of the admin in a block of its own, an hour later.
    pub(crate) fn order(&mut self, operation: Operation) -> Result<(), TxError> {
        let transaction = self.sign(&[ADMIN], vec![operation]);
        self.commit(transaction)
    }

    pub(crate) fn is_member(&self, seed: u8) -> bool {
        self.state.member(&id(seed)).is_some()
    }
}
