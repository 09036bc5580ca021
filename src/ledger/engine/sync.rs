//! Talking with peers: whose chain is longer, and the blocks between.

use super::meter::Reader;
use super::peers::{FETCH_TIMEOUT, Fetch};
use super::ration::Request;
use super::{ANNOUNCE_EVERY, Ledger, MessageRefused, Recipient};
use crate::crypto::exchange::TransportKey;
use crate::ledger::TxId;
use crate::ledger::block::{Block, Height};
use crate::ledger::chain::ChainError;
use crate::ledger::sync::{CommittedBlock, HeadNotice, LedgerMessage, MAX_BLOCKS, MAX_BLOCKS_LEN, MAX_TRANSACTIONS};
use crate::policy::Rights;
use crate::time::Now;

impl Ledger {
    /// Begins to talk with a peer: its session is confirmed.
    pub fn handle_session(&mut self, now: Now, peer: TransportKey) {
        match self.head_notice() {
            Some(notice) => {
                self.send(Recipient::Peer(peer), LedgerMessage::Head(notice));
                let pending = self.pending_ids();
                // A member that was connected to for them: they were not sent, because there was no session.
                if !pending.is_empty() && self.takes_part(&peer) {
                    self.send(Recipient::Peer(peer), LedgerMessage::HaveTransactions(pending));
                }
            }
            None => {
                // Whoever has a chain has its beginning.
                self.peers.note(peer, Height(0), false, now.instant);
                self.fetch_next(now);
            }
        }
    }

    /// Forgets what a peer told: its last session ended.
    pub fn handle_session_end(&mut self, now: Now, peer: &TransportKey) {
        self.peers.forget(peer, now.instant);
        self.ration.forget(peer);
        self.waiting.retain(|_, submitter| submitter != peer);
        self.fetch_next(now);
    }

    /// Takes a message from the holder of a transport key.
    ///
    /// # Errors
    /// [`MessageRefused`] names why it changed nothing, or which part of it did not.
    pub fn handle_message(
        &mut self,
        now: Now,
        from: TransportKey,
        message: LedgerMessage,
    ) -> Result<(), MessageRefused> {
        let result = match message {
            LedgerMessage::Head(notice) => {
                self.on_head(now, from, &notice);
                Ok(())
            }
            LedgerMessage::GetBlocks { from: first, limit } => self.on_get_blocks(now, from, first, limit),
            LedgerMessage::Blocks(blocks) => self.on_blocks(now, from, blocks),
            LedgerMessage::Submit(signed) => self.on_submit(now, from, signed),
            LedgerMessage::Transactions(transactions) => self.on_transactions(now, &from, transactions),
            LedgerMessage::HaveTransactions(ids) => self
                .rationed(now, from)
                .and_then(|reader| self.for_members(&from, |ledger| ledger.on_have_transactions(now, &reader, ids))),
            LedgerMessage::GetTransactions(ids) => self
                .rationed(now, from)
                .and_then(|reader| self.for_members(&from, |ledger| ledger.on_get_transactions(now, &reader, &ids))),
            LedgerMessage::GetRevocations => self.rationed(now, from).map(|reader| self.send_revocations(now, &reader)),
            LedgerMessage::Consensus(bytes) => self.on_consensus(now, &from, bytes),
            LedgerMessage::Submitted(transaction) => {
                self.events.push_back(super::Event::Submitted { transaction });
                Ok(())
            }
            LedgerMessage::Refused { id, reason } => {
                self.events.push_back(super::Event::RefusedByPeer { transaction: id, reason });
                Ok(())
            }
        };
        self.start_height(now);
        self.schedule_ending(now);
        result
    }

    /// Says whether a peer is more than a guest: a member, or a validator that was revoked on sight, which hears and is asked for all that
    /// it is to order.
    pub(super) fn takes_part(&self, peer: &TransportKey) -> bool {
        self.policy.admit(peer).rights() != Rights::Guest
    }

    pub(super) fn reader(&self, peer: TransportKey) -> Reader {
        Reader { peer, is_member: self.takes_part(&peer) }
    }

    fn for_members(&mut self, from: &TransportKey, then: impl FnOnce(&mut Self)) -> Result<(), MessageRefused> {
        if !self.takes_part(from) {
            return Err(MessageRefused::NotAMember);
        }
        then(self);
        Ok(())
    }

    pub(super) fn head_notice(&self) -> Option<HeadNotice> {
        let head = self.head.as_ref()?;
        let revocations = self.revocations.digest();
        Some(HeadNotice { height: head.height(), id: head.id, time: head.header.time, revocations })
    }

    /// Tells where the own chain ends: everybody with a session when it grew, the neighbours again and again.
    pub(super) fn announce(&mut self, now: Now, to: Recipient) {
        self.announce_at = now.instant + ANNOUNCE_EVERY;
        if let Some(notice) = self.head_notice() {
            self.send(to, LedgerMessage::Head(notice));
            if self.ordering.is_some() {
                self.send(Recipient::Validators, LedgerMessage::Head(notice));
            }
        }
    }

    /// Tells one peer where the own chain ends.
    pub fn tell_head(&mut self, peer: TransportKey) {
        if let Some(notice) = self.head_notice() {
            self.send(Recipient::Peer(peer), LedgerMessage::Head(notice));
        }
    }

    /// Tells the neighbours and the validators again what waits here: the first time may have been lost.
    pub(super) fn announce_pending(&mut self) {
        let ids = self.pending_ids();
        if !ids.is_empty() {
            self.send(Recipient::Neighbours, LedgerMessage::HaveTransactions(ids.clone()));
            self.send(Recipient::Validators, LedgerMessage::HaveTransactions(ids));
        }
    }

    fn pending_ids(&self) -> Vec<TxId> {
        self.pool.in_order().iter().map(|transaction| transaction.id()).take(MAX_TRANSACTIONS).collect()
    }

    fn on_head(&mut self, now: Now, from: TransportKey, notice: &HeadNotice) {
        self.peers.note(from, notice.height, self.takes_part(&from), now.instant);
        let differs = notice.revocations != self.revocations.digest();
        if self.head.is_some() && differs && self.peers.may_ask_revocations(from, now.instant) {
            self.send(Recipient::Peer(from), LedgerMessage::GetRevocations);
        }
        if notice.height.next() < self.next_height()
            && let Some(own) = self.head_notice()
        {
            self.send(Recipient::Peer(from), LedgerMessage::Head(own));
        }
        self.fetch_next(now);
    }

    /// Asks for the next blocks, if somebody has them and nobody was asked.
    pub(super) fn fetch_next(&mut self, now: Now) {
        let from = self.beyond.map_or(self.next_height(), |(height, _)| height.next());
        let stopped = self.halted.is_some() && self.beyond.is_none();
        let Some(peer) = self.peers.with(from) else { return };
        let is_asked = self.peers.fetch.as_ref().is_some_and(|fetch| !self.peers.is_worse(&fetch.peer, &peer));
        if stopped || is_asked {
            return;
        }
        self.peers.fetch = Some(Fetch { peer, from, deadline: now.instant + FETCH_TIMEOUT });
        self.send(Recipient::Peer(peer), LedgerMessage::GetBlocks { from, limit: MAX_BLOCKS });
    }

    /// Asks somebody better than the peer that did not answer, or that one once more.
    pub(super) fn fetch_elsewhere(&mut self, now: Now) {
        if let Some(fetch) = self.peers.fetch.take() {
            self.peers.fall_silent(&fetch.peer, now.instant);
        }
        self.fetch_next(now);
    }

    /// Answers a request for blocks, or lets it wait until its sender may read on.
    fn on_get_blocks(&mut self, now: Now, from: TransportKey, first: Height, limit: u8) -> Result<(), MessageRefused> {
        let reader = self.reader(from);
        let request = Request { reader, first, limit };
        if self.ration.allows(now.instant, &reader) && !self.ration.waits(&from) {
            self.send_blocks(now, &request);
            return Ok(());
        }
        if self.ration.wait(request) { Ok(()) } else { Err(MessageRefused::Rationed) }
    }

    /// Answers the requests for blocks whose senders may read on.
    pub(super) fn serve_waiting(&mut self, now: Now) {
        while let Some(request) = self.ration.next(now.instant) {
            self.send_blocks(now, &request);
        }
    }

    /// Says who reads, if it may at this moment.
    fn rationed(&self, now: Now, from: TransportKey) -> Result<Reader, MessageRefused> {
        let reader = self.reader(from);
        if self.ration.allows(now.instant, &reader) { Ok(reader) } else { Err(MessageRefused::Rationed) }
    }

    fn send_blocks(&mut self, now: Now, request: &Request) {
        let mut blocks = Vec::new();
        let mut len = 0;
        for height in request.first.0..request.first.0.saturating_add(u64::from(request.limit)) {
            // What cannot be read is not served; the own reads of it stop the ledger.
            let Ok(Some(block)) = self.stored(Height(height)) else { break };
            if !blocks.is_empty() && len + block.block.len() > MAX_BLOCKS_LEN {
                break;
            }
            len += block.block.len();
            blocks.push(block);
        }
        self.ration.charge(now.instant, &request.reader, len);
        self.send(Recipient::Peer(request.reader.peer), LedgerMessage::Blocks(blocks));
    }

    pub(super) fn stored(&self, height: Height) -> Result<Option<CommittedBlock>, crate::ledger::store::StoreError> {
        let (Some(block), Some(commit)) = (self.store.block(height.0)?, self.store.commit_of(height.0)?) else {
            return Ok(None);
        };
        Ok(borsh::from_slice(&commit).ok().map(|certificate| CommittedBlock { block, certificate }))
    }

    /// Takes the blocks that were asked for, one by one, up to the first that is wrong or that stops this node for good.
    fn on_blocks(&mut self, now: Now, from: TransportKey, blocks: Vec<CommittedBlock>) -> Result<(), MessageRefused> {
        let Some(fetch) = self.peers.fetch.take_if(|fetch| fetch.peer == from) else {
            return Err(MessageRefused::Unasked);
        };
        let result = self.take_blocks(now, &fetch, blocks);
        match result {
            Ok(()) => self.peers.succeed(&from),
            // It sent what the validators committed.
            Err(MessageRefused::Halted(_)) => {}
            Err(_) => self.peers.fail(&from, now.instant),
        }
        self.fetch_next(now);
        result
    }

    fn take_blocks(&mut self, now: Now, fetch: &Fetch, blocks: Vec<CommittedBlock>) -> Result<(), MessageRefused> {
        if blocks.is_empty() {
            return Err(MessageRefused::Unasked);
        }
        let mut outcome = Ok(());
        for (place, committed) in (fetch.from.0..).zip(blocks) {
            let block = Block::decode(&committed.block).map_err(ChainError::from)?;
            if block.header.height != Height(place) {
                return Err(MessageRefused::Unasked);
            }
            if block.header.height < self.next_height() {
                // Consensus was faster.
                continue;
            }
            match committed.certificate {
                None if self.head.is_none() => self.commit_genesis(now, block)?,
                None => return Err(ChainError::WrongCertificate.into()),
                Some(certificate) if self.beyond.is_some() => self.follow_beyond(&block, &certificate)?,
                Some(certificate) => match self.take_block(now, &block, &certificate) {
                    // The blocks behind it may revoke.
                    Err(halt @ MessageRefused::Halted(_)) if self.beyond.is_some() => outcome = Err(halt),
                    taken => taken?,
                },
            }
        }
        outcome
    }
}
