//! What must hold of the chains of all nodes together, whatever happened to them.

use crate::overlay::{Overlay, PATIENCE};
use p2plus::crypto::identity::NodeId;
use p2plus::ledger::{Block, BlockId, Height, Operation, TxId};
use std::collections::BTreeMap;

impl Overlay {
    /// The numbers of the nodes that run.
    pub fn running(&self) -> Vec<usize> {
        let is_up = |number: &usize| self.world.addresses().contains(&self.addresses[*number]);
        (0..self.addresses.len()).filter(is_up).collect()
    }

    /// Waits until all running nodes hold every one of these transactions and the same last block.
    pub fn wait_for(&mut self, transactions: &[TxId]) {
        let running: Vec<_> = self.running().into_iter().map(|number| self.addresses[number]).collect();
        let took = self.world.run_until(PATIENCE, |world| {
            let ledgers = || running.iter().map(|at| world.host(*at).node.ledger());
            let mut heads = ledgers().map(|ledger| ledger.head().map(|head| head.id));
            let first = heads.next();
            heads.all(|head| Some(head) == first)
                && transactions.iter().all(|id| ledgers().all(|ledger| ledger.transaction(id).unwrap().is_some()))
        });
        assert!(took.is_some(), "not everywhere in a block:\n{}", self.standings());
    }

    /// The height of a node's last block.
    pub fn height(&self, number: usize) -> u64 {
        self.node(number).node.ledger().head().map_or(0, |head| head.height().0)
    }

    /// Every block that a node holds, from genesis on.
    pub fn chain(&self, number: usize) -> Vec<Block> {
        let ledger = self.node(number).node.ledger();
        (0..ledger.next_height().0).map(|height| ledger.block(Height(height)).unwrap().unwrap().0).collect()
    }

    /// Asserts that the running nodes hold one history: the same block at each height, each transaction once, nobody admitted twice,
    /// no vote that contradicts another; and that it holds whatever a user was told is final.
    pub fn assert_one_history(&self) {
        let running = self.running();
        let chains: Vec<_> = running.iter().map(|number| self.chain(*number)).collect();
        let longest = chains.iter().max_by_key(|chain| chain.len()).unwrap();
        let ids = |chain: &[Block]| chain.iter().map(Block::id).collect::<Vec<BlockId>>();
        for (number, chain) in running.iter().zip(&chains) {
            assert_eq!(ids(chain), ids(&longest[..chain.len()]), "node {number} has another history");
        }
        let mut transactions = BTreeMap::new();
        let mut admissions: BTreeMap<NodeId, usize> = BTreeMap::new();
        for block in longest {
            assert!(block.body.evidence.is_empty(), "somebody contradicted itself: {:?}", block.body.evidence);
            for signed in &block.body.transactions {
                let height = block.header.height.0;
                let before = transactions.insert(signed.id(&block.header.chain), height);
                assert_eq!(before, None, "a transaction is in two blocks");
                for operation in &signed.transaction.operations {
                    match operation {
                        Operation::Admit(admit) => *admissions.entry(admit.identity).or_default() += 1,
                        Operation::Join(join) => *admissions.entry(join.identity).or_default() += 1,
                        _ => {}
                    }
                }
            }
        }
        assert!(admissions.values().all(|count| *count == 1), "somebody was admitted twice: {admissions:?}");
        for number in running {
            for (id, height) in &self.node(number).finals {
                assert_eq!(transactions.get(id), Some(height), "node {number} was told of a block that is not there");
            }
            assert_eq!(self.node(number).stopped, None, "node {number}");
            assert_eq!(
                self.node(number).misbehaved,
                Vec::<String>::new(),
                "node {number} saw a validator contradict itself"
            );
        }
    }
}
