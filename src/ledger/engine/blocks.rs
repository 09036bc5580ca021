//! Blocks on their way into the store: executed, written, then shown.

use super::{Event, Halt, Ledger, MessageRefused, Recipient};
use crate::ledger::Changes;
use crate::ledger::block::{Block, Height};
use crate::ledger::certificate::Certificate;
use crate::ledger::chain::{ChainError, Execution, Head, check_certificate, execute, revocations};
use crate::ledger::genesis::Genesis;
use crate::ledger::revocation::{Held, Settled, certified_key};
use crate::ledger::state::State;
use crate::ledger::store::{BlockRecord, StoreError};
use crate::ledger::sync::LedgerMessage;
use crate::ledger::transaction::TxId;
use crate::ledger::tree::MemoryTree;
use crate::time::{Now, UnixMillis};

/// Returns what genesis did, as if it had been executed like any other block.
pub(super) fn execution_of(genesis: &Genesis) -> Execution {
    let signed = &genesis.block.body.transactions;
    let transactions = signed.iter().map(|signed| signed.id(&genesis.block.header.chain)).collect();
    Execution { changes: genesis.changes.clone(), effects: Vec::new(), transactions }
}

impl Ledger {
    /// Takes the first block of a chain that comes from a peer.
    pub(super) fn commit_genesis(&mut self, now: Now, block: Block) -> Result<(), MessageRefused> {
        if block.id().0 != self.network_id {
            return Err(ChainError::OtherNetwork(block.id().0).into());
        }
        self.check_checkpoint(&block)?;
        let genesis = Genesis::open(block, &MemoryTree::default()).map_err(ChainError::from)?;
        let execution = execution_of(&genesis);
        self.write_block(&genesis.block, None, &execution).map_err(|error| self.halt_store(&error))?;
        self.after_commit(now, &genesis.block, &execution);
        Ok(())
    }

    /// Takes the next block with its proof, from a peer or from consensus: certificate first, execution next, disk, and only then
    /// does anybody see it.
    ///
    /// # Errors
    /// A false certificate is the sender's fault. A true one of a block that does not execute halts this ledger.
    pub(super) fn commit(&mut self, now: Now, block: &Block, certificate: &Certificate) -> Result<(), MessageRefused> {
        self.refuse_when_halted()?;
        let next = self.next_height();
        let head = self.head.clone().ok_or(ChainError::Empty)?;
        if block.header.height != next {
            return Err(ChainError::NotNext { expected: next, given: block.header.height }.into());
        }
        self.check_checkpoint(block)?;
        check_certificate(&self.state, &block.header, certificate)?;
        let execution = match self.executed.remove(&block.id()) {
            Some((_, execution)) => execution,
            None => self.execute_committed(&head, block)?,
        };
        self.write_block(block, Some(certificate), &execution).map_err(|error| self.halt_store(&error))?;
        self.after_commit(now, block, &execution);
        Ok(())
    }

    pub(super) fn refuse_when_halted(&self) -> Result<(), Halt> {
        self.halted.clone().map_or(Ok(()), Err)
    }

    fn check_checkpoint(&self, block: &Block) -> Result<(), ChainError> {
        match &self.checkpoint {
            Some(point) if point.height == block.header.height && point.id != block.id() => {
                Err(ChainError::ContradictsCheckpoint)
            }
            _ => Ok(()),
        }
    }

    /// Executes a block that the validators committed. If it is wrong then so is this program, or two thirds of them.
    fn execute_committed(&mut self, head: &Head, block: &Block) -> Result<Execution, MessageRefused> {
        let tree = self.store.tree().map_err(|error| self.halt_store(&error))?;
        let error = match execute(head, &self.state, &tree, block) {
            Ok(execution) => return Ok(execution),
            Err(error) => error,
        };
        drop(tree);
        let height = block.header.height;
        let halt = match (error.unknown_operation(), &error) {
            (Some(code), _) => {
                self.halt(Halt::Upgrade { height, code });
                self.extract_revocations(block);
                Halt::Upgrade { height, code }
            }
            (None, ChainError::Tree(error)) => self.halt(Halt::Store(error.to_string())),
            (None, error) => self.halt(Halt::Diverged { height, reason: error.to_string() }),
        };
        Err(halt.into())
    }

    /// Enforces what a committed block revokes that this program cannot apply: it was valid to those who committed it.
    fn extract_revocations(&mut self, block: &Block) {
        self.beyond = Some((block.header.height, block.id()));
        let revocations = revocations(block);
        if revocations.is_empty() {
            return;
        }
        let height = block.header.height;
        let held = Held::Certified { height, revocations: revocations.clone() };
        let bytes = borsh::to_vec(&held).expect("writing to memory does not fail");
        if let Err(error) = self.store.put_revocation(certified_key(height), &bytes) {
            // It acts all the same, as long as this process lives.
            tracing::error!(%error, "a revocation could not be made durable");
        }
        self.revocations.certify(height, revocations);
        self.refresh_policy();
    }

    /// Follows a chain that this program cannot apply, as far as the validators that it knows vouch for it, for its revocations.
    pub(super) fn follow_beyond(&mut self, block: &Block, certificate: &Certificate) -> Result<(), MessageRefused> {
        let Some((height, id)) = self.beyond else { return Ok(()) };
        let header = &block.header;
        if header.height != height.next() || header.parent != id {
            return Err(ChainError::NotNext { expected: height.next(), given: header.height }.into());
        }
        block.check_form().map_err(ChainError::from)?;
        check_certificate(&self.state, header, certificate)?;
        self.extract_revocations(block);
        Ok(())
    }

    /// Writes a block and everything that changes with it, and takes it over once it is on disk. When the disk fails nothing has changed.
    pub(super) fn write_block(
        &mut self,
        block: &Block,
        certificate: Option<&Certificate>,
        execution: &Execution,
    ) -> Result<(), StoreError> {
        let height = block.header.height;
        let tree = self.store.tree()?.update(&execution.changes)?;
        let before = inverse(&self.state, &execution.changes);
        if height == Height(0) {
            self.state = State::after_genesis(self.network_id, &execution.changes);
        } else {
            self.state.commit(&execution.changes);
        }
        let settled = self.revocations.assess(&self.state, height);
        let record = BlockRecord {
            height: height.0,
            id: block.id().0,
            block: block.encode(),
            commit: borsh::to_vec(&certificate).expect("writing to memory does not fail"),
            transaction_ids: execution.transactions.iter().map(|id| id.0).collect(),
            changes: execution.changes.clone(),
            tree,
            settled_revocations: stored_keys(&settled),
        };
        if let Err(error) = self.store.append(&record) {
            self.state.commit(&before);
            return Err(error);
        }
        self.head = Some(Head::new(block, certificate.cloned()));
        self.revocations.settle(&settled);
        // Those that are in the block itself are told of it when it is shown.
        let superseded = settled.done.iter().filter(|id| !execution.transactions.contains(id));
        for id in superseded {
            self.tell_submitter_of_head(id);
        }
        for transaction in settled.lifted {
            tracing::warn!(%transaction, "a revocation is lifted: its signers lost the right to revoke");
            if let Some(submitter) = self.waiting.remove(&transaction) {
                let reason = "its signers lost the right to revoke";
                self.send(Recipient::Peer(submitter), LedgerMessage::refused(transaction, &reason));
            }
            self.events.push_back(Event::RevocationLifted { transaction });
        }
        Ok(())
    }

    /// Shows a block that is on disk.
    pub(super) fn after_commit(&mut self, now: Now, block: &Block, execution: &Execution) {
        let height = block.header.height;
        self.executed.clear();
        self.events.push_back(Event::Committed { height, id: block.id() });
        for id in &execution.transactions {
            self.pool.remove(id);
            // The block that holds it has taken it off the disk.
            self.own.forget(id);
            self.events.push_back(Event::Final { transaction: *id, height });
            self.tell_submitter_of_head(id);
        }
        self.drop_what_fails(now);
        self.refresh_policy();
        self.announce(now, Recipient::Sessions);
        self.schedule_ending(now);
    }

    /// Ends the wait of whoever submitted a transaction that a block made true.
    fn tell_submitter_of_head(&mut self, id: &TxId) {
        if let Some(submitter) = self.waiting.remove(id) {
            self.tell_head(submitter);
        }
    }

    /// Drops from the pool what no longer applies, and tells whoever submitted it.
    pub(super) fn drop_what_fails(&mut self, now: Now) {
        let dropped = self.pool.recheck(&self.state, self.next_height(), self.block_time(now));
        self.drop_own(dropped.iter().map(|(dropped, _)| dropped.id()));
        for (dropped, reason) in dropped {
            let (transaction, signed) = (dropped.id(), Box::new(dropped.into_inner()));
            if let Some(submitter) = self.waiting.remove(&transaction) {
                self.send(Recipient::Peer(submitter), LedgerMessage::refused(transaction, &reason));
            }
            self.events.push_back(Event::Dropped { transaction, signed, reason });
        }
    }

    /// Returns the time that the next block has if it is made now: the own wall clock's, but later than the head's.
    pub(super) fn block_time(&self, now: Now) -> UnixMillis {
        let parent = self.head.as_ref().map_or(0, |head| head.header.time.0);
        now.wall.max(UnixMillis(parent.saturating_add(1)))
    }
}

/// Returns the changes that take `changes` back.
fn inverse(state: &State, changes: &Changes) -> Changes {
    changes.iter().map(|(key, _)| (key.clone(), state.value(key).map(<[u8]>::to_vec))).collect()
}

fn stored_keys(settled: &Settled) -> Vec<crate::crypto::hash::Digest> {
    let transactions = settled.done.iter().chain(&settled.lifted).map(|id| id.0);
    transactions.chain(settled.applied.iter().map(|height| certified_key(*height))).collect()
}
