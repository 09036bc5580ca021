//! Genesis: the block with height 0, whose hash is the network's id and whose only authority is that hash.
//!
//! Its one transaction names the network, its first signer, validators, recovery keys and first member, and is signed for the chain
//! zero by the first signer and the founder. The network's secret is not in it: genesis is readable by whoever may sync.

use super::Changes;
use super::address::Ipv4Choice;
use super::block::{Block, BlockId, Body, FORMAT, Header, Height, MalformedBlock};
use super::name::Label;
use super::operation::{Admit, NetworkSet, Operation, RecoverySet, Scopes, SignerSet, ValidatorSetOperation};
use super::state::{State, TxError};
use super::transaction::{MalformedTransaction, SignedTransaction, Transaction, Verified};
use super::tree::{StateTree, TreeError};
use super::validators::Seats;
use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::Digest;
use crate::crypto::identity::{SigningKey, VerifyingKey};
use crate::time::UnixMillis;
use std::collections::BTreeSet;

/// The chain for which genesis is signed, because its own id is not known before.
const NO_CHAIN: Digest = Digest([0; 32]);

/// What a founder decides.
pub struct Founding<'k> {
    /// The network's name.
    pub name: Label,
    /// Where IPv4 addresses come from.
    pub ipv4: Ipv4Choice,
    /// When the network begins.
    pub time: UnixMillis,
    /// The identity of the first member.
    pub identity: &'k SigningKey,
    /// The key of its node records.
    pub node_key: VerifyingKey,
    /// The key of its handshakes.
    pub transport_key: TransportKey,
    /// Its name.
    pub member_name: Option<Label>,
    /// Further first members: a network of several validators orders nothing before most of them are there.
    pub others: Vec<Admit>,
    /// The first signer, which has every scope; may be the identity.
    pub signer: &'k SigningKey,
    /// Who orders the history.
    pub seats: Seats,
    /// The keys that can continue the chain after a disaster.
    pub recovery: BTreeSet<VerifyingKey>,
    /// How many of them it takes.
    pub recovery_needed: u8,
    /// Which operations its blocks may hold, [`PROTOCOL_VERSION`](super::operation::PROTOCOL_VERSION) at most.
    pub protocol_version: u32,
}

/// A checked genesis, and the state after it.
#[derive(Clone, Debug)]
pub struct Genesis {
    /// The block.
    pub block: Block,
    /// What it puts into the empty state.
    pub changes: Changes,
    /// The state after it.
    pub state: State,
}

/// A block that cannot begin a chain.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// The form of the block is wrong.
    #[error(transparent)]
    Block(#[from] MalformedBlock),
    /// The form or a signature of its transaction is wrong.
    #[error(transparent)]
    Transaction(#[from] MalformedTransaction),
    /// What it founds is no network.
    #[error("genesis founds no network: {0}")]
    Founding(#[from] TxError),
    /// It has a parent, another height or chain, a commit, or not exactly one transaction.
    #[error("the block is no genesis")]
    NotGenesis,
    /// Its validators or state are not those that its header says.
    #[error("genesis does not lead to the state that it claims")]
    WrongState,
    /// The empty tree could not be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl Founding<'_> {
    fn operations(&self) -> Vec<Operation> {
        let admit = Admit {
            identity: self.identity.node_id(),
            node_key: self.node_key,
            transport_key: self.transport_key,
            name: self.member_name.clone(),
            tags: BTreeSet::new(),
            ipv4: None,
            expires: None,
            incarnation: 0,
        };
        let network = NetworkSet { name: self.name.clone(), ipv4: self.ipv4, protocol_version: self.protocol_version };
        let mut operations = vec![
            Operation::NetworkSet(network),
            Operation::SignerSet(SignerSet { key: self.signer.verifying_key(), weight: 1, scopes: Scopes::ALL }),
            Operation::ValidatorSet(ValidatorSetOperation { seats: self.seats.clone() }),
            Operation::RecoverySet(RecoverySet { keys: self.recovery.clone(), needed: self.recovery_needed }),
            Operation::Admit(admit),
        ];
        operations.extend(self.others.iter().cloned().map(Operation::Admit));
        operations
    }
}

impl Genesis {
    /// Founds a network; `tree` is the empty one.
    ///
    /// # Errors
    /// [`GenesisError::Founding`] when what was decided is no network.
    pub fn create(founding: &Founding<'_>, tree: &impl StateTree) -> Result<Self, GenesisError> {
        let author = founding.signer.verifying_key();
        let signed = Transaction::new(author, 1, founding.time, founding.operations())
            .sign(&NO_CHAIN, &[founding.signer, founding.identity])
            .verify(&NO_CHAIN)?;
        let changes = State::found(founding.time, &signed)?;
        let body = Body { transactions: vec![signed.into_inner()], ..Body::default() };
        let validators_hash = founding.seats.validators().hash();
        let proposer = founding.seats.as_slice().first().ok_or(GenesisError::NotGenesis)?.validator.key;
        let header = Header {
            format: FORMAT,
            chain: NO_CHAIN,
            epoch: 0,
            height: Height(0),
            time: founding.time,
            parent: BlockId::default(),
            txs_root: body.root(),
            state_root: tree.root_after(&changes)?,
            validators_hash,
            next_validators_hash: validators_hash,
            proposer,
        };
        Self::open(Block { header, body }, tree)
    }

    /// Checks that a block begins a chain; `tree` is the empty one.
    ///
    /// # Errors
    /// [`GenesisError`] names the first thing that is wrong.
    pub fn open(block: Block, tree: &impl StateTree) -> Result<Self, GenesisError> {
        block.check_form()?;
        let signed = founding_transaction(&block)?;
        let changes = State::found(block.header.time, &signed)?;
        let state = State::after_genesis(block.id().0, &changes);
        let header = &block.header;
        let validators = state.validators();
        let validators_hash = validators.hash();
        let consistent = header.state_root == tree.root_after(&changes)?
            && header.validators_hash == validators_hash
            && header.next_validators_hash == validators_hash
            && validators.index_of(&header.proposer).is_some();
        if consistent { Ok(Self { block, changes, state }) } else { Err(GenesisError::WrongState) }
    }

    /// Returns the network's id.
    pub fn network_id(&self) -> Digest {
        self.block.id().0
    }
}

fn founding_transaction(block: &Block) -> Result<Verified<SignedTransaction>, GenesisError> {
    let Block { header, body } = block;
    let first = header.chain == NO_CHAIN && header.parent == BlockId::default();
    let zero = header.epoch == 0 && header.height == Height(0);
    let bare = body.last_commit.is_none() && body.evidence.is_empty();
    match body.transactions.as_slice() {
        [signed] if first && zero && bare => Ok(signed.clone().verify(&NO_CHAIN)?),
        _ => Err(GenesisError::NotGenesis),
    }
}

#[cfg(test)]
mod tests {
    use super::super::kit::{found, key};
    use super::super::tree::MemoryTree;
    use super::*;

    fn open(change: impl FnOnce(&mut Block)) -> Result<Genesis, GenesisError> {
        let mut block = found(Ipv4Choice::Derived).block;
        change(&mut block);
        block.header.txs_root = block.body.root();
        Genesis::open(block, &MemoryTree::default())
    }

    #[test]
    fn a_genesis_is_opened_as_it_was_founded() {
        let founded = found(Ipv4Choice::Derived);
        let opened = open(|_| {}).unwrap();
        assert_eq!(
            (opened.network_id(), opened.changes, opened.state),
            (founded.network_id(), founded.changes, founded.state)
        );
    }

    #[test]
    fn what_is_no_beginning_is_no_genesis() {
        let changes: [fn(&mut Block); 6] = [
            |block| block.header.height = Height(1),
            |block| block.header.epoch = 1,
            |block| block.header.chain = Digest([1; 32]),
            |block| block.header.parent = BlockId(Digest([1; 32])),
            |block| block.body.transactions.clear(),
            |block| block.body.transactions.push(block.body.transactions[0].clone()),
        ];
        for change in changes {
            assert!(matches!(open(change), Err(GenesisError::NotGenesis)));
        }
    }

    #[test]
    fn a_genesis_leads_to_the_state_that_it_claims() {
        let changes: [fn(&mut Block); 4] = [
            |block| block.header.state_root = Digest([1; 32]),
            |block| block.header.validators_hash = Digest([1; 32]),
            |block| block.header.next_validators_hash = Digest([1; 32]),
            |block| block.header.proposer = key(77).verifying_key(),
        ];
        for change in changes {
            assert!(matches!(open(change), Err(GenesisError::WrongState)));
        }
    }

    #[test]
    fn a_genesis_is_signed() {
        let refused = open(|block| block.body.transactions[0].transaction.seq = 2);
        assert!(matches!(refused, Err(GenesisError::Transaction(MalformedTransaction::BadSignature(_)))));
    }

    #[test]
    fn a_network_needs_a_name_a_signer_validators_and_recovery_keys() {
        for missing in 0..4 {
            let refused = open(|block| {
                let mut transaction = block.body.transactions[0].transaction.clone();
                transaction.operations.remove(missing);
                block.body.transactions[0] = transaction.sign(&NO_CHAIN, &[&key(super::super::kit::ADMIN)]);
            });
            assert!(matches!(refused, Err(GenesisError::Founding(_))), "without operation {missing}");
        }
    }

    #[test]
    fn two_networks_of_one_name_are_two() {
        assert_ne!(found(Ipv4Choice::Derived).network_id(), found(Ipv4Choice::Off).network_id());
    }
}
