//! What the ledger and its peers say to each other, carried by the control link; and the joiner's part of it.

use super::control::{LinkId, Service};
use super::membership::{Refusal, Remedy, Standing};
use super::{Node, NodeEvent};
use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::Digest;
use crate::ledger::Ledger;
use crate::ledger::Transaction;
use crate::ledger::engine::{Event, Recipient, SubmitError};
use crate::ledger::operation::{Join, Operation, credential_hash};
use crate::ledger::pool::PoolRefused;
use crate::ledger::state::TxError;
use crate::ledger::sync::LedgerMessage;
use crate::path::CandidateSource;
use crate::policy::Rights;
use crate::time::{Now, UnixMillis};
use crate::wire::control::MAX_LEDGER_IN_CONTROL;
use crate::wire::drops::DropReason;
use crate::wire::handshake::LedgerHead;
use rand_core::CryptoRng;
use std::time::Duration;

/// How long a Join may wait for a block, in block time: half of what two witnesses allow, so that the joiner's clock, or a head that
/// grew old because nothing happened, may be that far off either way.
const JOIN_VALIDITY: Duration = Duration::from_secs(15 * 24 * 3600);

impl<R: CryptoRng> Node<R> {
    /// Takes a whole message of the control link.
    pub(super) fn handle_message(&mut self, now: Now, from: TransportKey, service: Service, message: &[u8]) {
        match service {
            Service::Gossip => self.handle_gossip(now, from, message),
            Service::Sync | Service::Join | Service::Consensus => self.handle_ledger_bytes(now, from, message),
            Service::Call => self.drops.count(DropReason::ControlRefused),
        }
    }

    /// Takes a ledger message, from a stream or a control record.
    pub(super) fn handle_ledger_bytes(&mut self, now: Now, from: TransportKey, bytes: &[u8]) {
        match LedgerMessage::decode(bytes) {
            Ok(message) => {
                if matches!(message, LedgerMessage::Head(_)) {
                    self.note_head(now, from);
                }
                if let Err(error) = self.ledger.handle_message(now, from, message) {
                    tracing::debug!(?from, %error, "ledger message refused");
                    self.drops.count(DropReason::ControlRefused);
                }
            }
            Err(error) => {
                tracing::debug!(?from, %error, "ledger message refused");
                self.drops.count(DropReason::ControlRefused);
            }
        }
    }

    /// Sends a ledger message to whom it is for.
    pub(super) fn send_ledger(&mut self, now: Now, recipient: Recipient, message: &LedgerMessage) {
        let bytes = message.encode();
        match recipient {
            Recipient::Peer(key) => self.stream_ledger(now, key, message, &bytes),
            Recipient::Neighbours => {
                for key in self.ledger_neighbours() {
                    self.stream_ledger(now, key, message, &bytes);
                }
            }
            Recipient::Sessions => {
                for key in self.ledger_targets() {
                    self.stream_ledger(now, key, message, &bytes);
                }
            }
            Recipient::EverySession => {
                let everybody: Vec<_> = self.peers.usable().map(|(key, _)| key).collect();
                if bytes.len() <= MAX_LEDGER_IN_CONTROL {
                    for key in everybody {
                        self.peers.send_ledger(now, key, bytes.clone());
                    }
                }
                self.send_ledger(now, Recipient::Sessions, message);
            }
            Recipient::Validators => {
                for key in self.other_validators() {
                    self.stream_ledger(now, key, message, &bytes);
                }
            }
        }
    }

    /// A peer told of its head. A validator's word is the proof that a chain is fresh, so it answers members that keep it close while it
    /// does not keep them; nobody answers such an answer.
    fn note_head(&mut self, now: Now, from: TransportKey) {
        if self.policy.is_validator(&from) {
            self.heads_heard.insert(from, now.instant);
        } else if self.policy.is_validator(&self.peers.keys().transport_key())
            && self.policy.admit(&from).rights().is_member()
            && !self.peers.is_kept(&from)
        {
            self.ledger.tell_head(from);
        }
    }

    fn stream_ledger(&mut self, now: Now, key: TransportKey, message: &LedgerMessage, bytes: &[u8]) {
        let is_guest = self.policy.admit(&key).rights() == Rights::Guest || !self.has_standing();
        let service = match message {
            LedgerMessage::Consensus(_) => Service::Consensus,
            LedgerMessage::Submit(_) | LedgerMessage::Submitted(_) | LedgerMessage::Refused { .. } if is_guest => {
                Service::Join
            }
            _ => Service::Sync,
        };
        if let Err(error) = self.link.send(now.instant, LinkId(key), service, bytes.to_vec()) {
            tracing::debug!(?key, ?service, %error, "ledger message not sent");
            // Who takes this node for a guest is asked again by the watch over the session, less and less often.
            if !self.peers.is_guest_at(&key) {
                self.connect(now, key);
            }
        }
    }

    /// Acts on what the ledger says.
    pub(super) fn handle_ledger_event(&mut self, now: Now, event: Event) {
        match event {
            Event::PolicyChanged(diff) => self.follow_policy(now, &diff),
            Event::Committed { height, .. } => {
                self.peers.set_ledger_head(claimed_head(&self.ledger));
                self.tell(NodeEvent::Block { height: height.0 });
            }
            Event::RefusedByPeer { transaction, reason } => {
                tracing::debug!(%transaction, reason, "a peer did not take a transaction");
                self.membership.handle_refused(&transaction);
                self.weigh_refusal(now);
            }
            Event::Halted(halt) => self.tell(NodeEvent::LedgerStopped(halt.to_string())),
            Event::VotingStopped(reason) => {
                tracing::error!(reason, "this validator votes no more");
                self.silenced = Some(reason);
            }
            Event::Misbehaved(misbehaviour) => self.tell(NodeEvent::Misbehaved(format!("{misbehaviour:?}"))),
            Event::RevocationLifted { transaction } => {
                tracing::warn!(%transaction, "a revocation no longer acts: its signers lost the right to revoke");
            }
            Event::Dropped { transaction, signed, reason } => {
                tracing::info!(%transaction, %reason, "a transaction was dropped");
                self.renew_ends(now, &signed.transaction, &reason);
                let reason = reason.to_string();
                self.tell(NodeEvent::Dropped { transaction, reason });
            }
            Event::Final { transaction, height } => self.tell(NodeEvent::Final { transaction, height: height.0 }),
            Event::Submitted { .. } => {}
        }
    }

    /// Gives the joiner its first candidates.
    pub(super) fn invite_bootstrap(&mut self) {
        let Some(invitation) = self.membership.invitation() else { return };
        for bootstrap in invitation.bootstrap.clone() {
            for endpoint in bootstrap.endpoints {
                let key = bootstrap.transport_key;
                let added =
                    self.peers.add_candidate(key, Some(bootstrap.id), endpoint, CandidateSource::Configured, |_| false);
                if let Err(error) = added {
                    tracing::warn!(%endpoint, %error, "an endpoint of the ticket is not usable");
                }
            }
        }
    }

    /// Drives the way in: connect, sync, hand the Join in, look for the block that has it.
    pub(super) fn tend_membership(&mut self, now: Now) {
        if !matches!(self.membership.standing(), Standing::Joining(_)) {
            return;
        }
        self.membership.tended(now.instant);
        self.weigh_refusal(now);
        let hosts: Vec<_> = self.peers.usable().map(|(key, _)| key).filter(|key| self.is_host(key)).collect();
        let bootstrap: Vec<_> =
            self.membership.invitation().into_iter().flat_map(|it| &it.bootstrap).map(|it| it.transport_key).collect();
        for key in bootstrap {
            if !self.peers.has_session(&key) {
                self.connect(now, key);
            }
        }
        if hosts.is_empty() {
            self.membership.waiting_for("looking for a member of the ticket");
        } else if !self.ledger.is_past_checkpoint() {
            self.membership.waiting_for("synchronizing the ledger");
        } else if !self.membership.has_credential() {
            self.membership.waiting_for("waiting for a signer to admit this node");
        } else if self.membership.may_submit(now.instant) {
            self.hand_in(now, &hosts);
        }
        self.tell_standing();
    }

    /// A member did not take the Join: it is over if this node's own ledger would not take it either, now or once it caught up.
    fn weigh_refusal(&mut self, now: Now) {
        let Some(join) = self.membership.refused_join() else { return };
        if !self.ledger.is_past_checkpoint() {
            return;
        }
        let Err(error) = self.ledger.would_apply(now, join) else { return };
        match error {
            // Its time is over or was never right, by a clock that was set meanwhile; that speaks against no other.
            SubmitError::Pool(PoolRefused::Invalid(
                TxError::Expired { .. } | TxError::ValidTooLong | TxError::Replayed { .. },
            )) => self.membership.forget_refusal(),
            SubmitError::Pool(PoolRefused::Invalid(TxError::NoSuchCredential)) if !self.was_invited() => {
                self.membership.await_credential(self.ledger.next_height());
            }
            error => {
                let refusal = Refusal { reason: error.to_string(), remedy: self.remedy(&error) };
                self.membership.refuse(refusal);
            }
        }
        self.tell_standing();
    }

    /// What helps against a refusal: another name only where the credential does not give one.
    fn remedy(&self, error: &SubmitError) -> Remedy {
        let credential = self.credential().and_then(|key_hash| self.ledger.state().credential(&key_hash));
        let may_choose = credential.is_some_and(|credential| credential.name.is_none());
        match error {
            SubmitError::Pool(PoolRefused::Invalid(
                TxError::NameTaken(_) | TxError::NameReserved(_) | TxError::NameOfAnother(_),
            )) if may_choose => Remedy::Name,
            _ => Remedy::Ticket,
        }
    }

    /// Says whether a block made the ticket's credential: then one that is unknown has ended.
    fn was_invited(&self) -> bool {
        let searched = self.membership.searched();
        self.credential().is_none_or(|key_hash| self.ledger.made_credential(&key_hash, searched))
    }

    /// The ticket's credential, as the ledger knows it.
    fn credential(&self) -> Option<Digest> {
        let credential = self.membership.invitation()?.credential.as_ref()?;
        Some(credential_hash(&credential.verifying_key()))
    }

    /// Signs this node's Join and gives it to one of the hosts, another one each time.
    fn hand_in(&mut self, now: Now, hosts: &[TransportKey]) {
        let Some(invitation) = self.membership.invitation() else { return };
        let Some(credential) = &invitation.credential else { return };
        let network_id = self.peers.keys().network_id;
        let join = Join {
            identity: self.own_id,
            node_key: self.signing.node.verifying_key(),
            transport_key: self.peers.keys().transport_key(),
            credential: credential.verifying_key(),
            name: invitation.name.clone(),
        };
        let author = self.signing.identity.verifying_key();
        let valid_until = self.network_time(now).after(JOIN_VALIDITY);
        let transaction =
            Transaction::new(author, self.ledger.next_seq(&author), valid_until, vec![Operation::Join(join)]);
        let signed = transaction.sign(&network_id, &[&self.signing.identity, credential]);
        let id = signed.id(&network_id);
        let turn = usize::try_from(now.instant.as_micros() / 1_000_000).unwrap_or(0) % hosts.len();
        self.membership.submitted(now.instant, id, signed.clone());
        self.send_ledger(now, Recipient::Peer(hosts[turn]), &LedgerMessage::Submit(signed));
    }

    /// The time by which transactions are made: the own clock's, but never before the chain's head.
    pub(super) fn network_time(&self, now: Now) -> UnixMillis {
        self.ledger.head().map_or(now.wall, |head| now.wall.max(head.header.time))
    }

    /// This node became a member: sessions are made anew with a member's rights, and others learn where it is.
    pub(super) fn enter(&mut self, now: Now) {
        let (peers, mut ctx) = self.peers_and_context(now);
        peers.handle_underlay_change(&mut ctx);
        // Who knew it before makes no new session for it.
        let known: Vec<_> = self.peers.usable().collect();
        known.into_iter().for_each(|(key, rights)| self.handle_up(now, key, rights));
        self.publish_record(now);
        self.reach.hurry();
    }
}

/// How far a ledger is, as handshakes tell it.
fn claimed_head(ledger: &Ledger) -> LedgerHead {
    let Some(head) = ledger.head() else { return LedgerHead::default() };
    let mut front = [0; 8];
    front.copy_from_slice(&head.id.0.0[..8]);
    LedgerHead { height: head.height().0, head: front }
}
