//! Handshakes in both roles: attempts begun here, initiations answered, and the sessions that come of them.

use super::roster::Roster;
use super::{Context, PeerTable, Transmit};
use crate::crypto::exchange::TransportKey;
use crate::node::peer::{Attempt, Peer};
use crate::path::{Path, Paths};
use crate::policy::Rights;
use crate::session::handshake::responder::Inbound;
use crate::session::{Aim, Established, Initiator, InitiatorStep, Local, Source};
use crate::time::Now;
use crate::wire::datagram::{Datagram, SessionIndex};
use crate::wire::drops::DropReason;
use crate::wire::handshake::{INITIATION_LEN, KEY_PART_LEN};
use rand_core::CryptoRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The bytes of one flight: D1, D2a and D2b.
const FLIGHT_LEN: usize = INITIATION_LEN + 2 * KEY_PART_LEN;

impl PeerTable {
    /// Begins a handshake with a peer unless one is under way, was tried in vain a moment ago, or nothing is known of where it is.
    pub fn connect(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if !peer.may_attempt(ctx.now.instant) || peer.paths.candidates().is_empty() {
            return;
        }
        let failed = peer.has_failed();
        let targets = peer.paths.candidates_mut().targets(ctx.now.instant, &self.around, failed, FLIGHT_LEN);
        if targets.is_empty() {
            return;
        }
        let Some(index) = self.indices.reserve(ctx.rng) else { return };
        let aim = Aim { key, identity: peer.id.filter(|id| ctx.policy.member(id).is_some()) };
        let offer = self.terms.offer(self.timestamps.next(ctx.now.wall));
        let Ok(initiator) = Initiator::new(ctx.now.instant, &self.keys, aim, offer, index, ctx.rng) else {
            self.indices.release(index);
            return;
        };
        peer.attempt = Some(Attempt { initiator, targets, paid: BTreeSet::new() });
        self.owners.insert(index, key);
        Arc::make_mut(&mut self.attempts).insert(index);
        self.is_gate_changed = true;
        self.fire(ctx.now, key);
    }

    /// Frees the index of an attempt that came to nothing.
    pub(super) fn abandon(&mut self, index: SessionIndex) {
        self.close_to_answers(index);
        self.owners.remove(&index);
        self.indices.release(index);
    }

    /// Lets no more answers to an attempt through the gate.
    fn close_to_answers(&mut self, index: SessionIndex) {
        Arc::make_mut(&mut self.attempts).remove(&index);
        self.is_gate_changed = true;
    }

    /// Begins a handshake with a member whose session is still a guest's: it began before this node knew of the admission.
    pub(super) fn promote(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        let Some(session) = self.peers.get(&key).and_then(|peer| peer.sessions.sending()) else { return };
        if session.admission().member().is_none() && ctx.policy.admit(&key).member().is_some() {
            self.connect(ctx, key);
        }
    }

    /// Sends the flight of the attempt under way to those of its targets whose allowance it fits.
    fn fire(&mut self, now: Now, key: TransportKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(attempt) = &peer.attempt else { return };
        for target in &attempt.targets {
            if !peer.paths.candidates_mut().spend(now.instant, *target, FLIGHT_LEN) {
                self.drops.count(DropReason::RateLimited);
                continue;
            }
            for datagram in attempt.initiator.datagrams(Source::Endpoint(*target)) {
                self.transmits.push_back(Transmit { path: peer.paths.path_to(*target), datagram: datagram.to_vec() });
            }
        }
    }

    pub(super) fn drive_attempt(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(attempt) = &mut peer.attempt else { return };
        match attempt.initiator.handle_timeout(ctx.now.instant) {
            InitiatorStep::Wait => {}
            InitiatorStep::Retransmit => self.fire(ctx.now, key),
            InitiatorStep::GaveUp => {
                let index = attempt.initiator.index();
                peer.attempt_failed(ctx.now.instant);
                self.abandon(index);
                self.tidy(key);
            }
        }
    }

    /// Takes a handshake datagram or a cookie.
    pub fn handle_handshake(&mut self, ctx: &mut Context<'_, impl CryptoRng>, path: Path, datagram: &[u8]) {
        let reason = match Datagram::classify(datagram) {
            Ok(Datagram::Initiation(_) | Datagram::KeyPart(_)) => self.respond(ctx, path, datagram),
            Ok(Datagram::Response(index, _)) => self.handle_response(ctx, index, path, datagram),
            Ok(Datagram::Cookie(index, _)) => self.handle_cookie(ctx.now, index, path, datagram),
            _ => Err(DropReason::MalformedDatagram),
        };
        if let Err(reason) = reason {
            self.drops.count(reason);
        }
    }

    fn respond(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        path: Path,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let local = Local { keys: &self.keys, policy: ctx.policy, terms: &self.terms };
        let inbound = Inbound { now: ctx.now.instant, source: Source::Endpoint(path.remote), datagram };
        let outcome = self.responder.handle(local, inbound, &mut self.indices, ctx.rng).map_err(DropReason::from)?;
        let is_cookie = |datagram: &Vec<u8>| matches!(Datagram::classify(datagram), Ok(Datagram::Cookie(..)));
        // One that a guest is asked for is its handshake's first step.
        if self.responder.is_under_load(ctx.now.instant) && outcome.transmit.iter().any(is_cookie) {
            self.drops.count(DropReason::CookieRequired);
        }
        if let Some(established) = outcome.established {
            let (key, index) = (*established.session.admission().transport_key(), established.session.local_index());
            // By the policy of now: a guest may have become a member while its handshake ran.
            let admission = ctx.policy.admit(&key);
            let (id, is_guest) = (admission.member(), admission.rights() == Rights::Guest);
            let origin = self.responder.origin(index).filter(|_| is_guest);
            if is_guest && !self.make_place(ctx.now, &key, origin) {
                // It gets no answer, then or later, and knocks again after longer and longer waits.
                self.responder.withdraw(index);
                self.indices.release(index);
                return Err(DropReason::NoPlace);
            }
            self.entry(key, id).guest_origin = origin;
            self.install(ctx, key, established);
        }
        self.transmits.extend(outcome.transmit.into_iter().map(|datagram| Transmit { path, datagram }));
        Ok(())
    }

    fn handle_response(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        index: SessionIndex,
        path: Path,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let (key, attempt, paths) = attempt_of(&self.owners, &mut self.peers, index)?;
        let local = Local { keys: &self.keys, policy: ctx.policy, terms: &self.terms };
        let finished = attempt.initiator.handle_response(local, ctx.now.instant, datagram).map_err(DropReason::from)?;
        if let Some(established) = finished {
            // M2 cannot be made without the flight: where that went to alone, or the peer was before, it reads. A record may name a victim
            // beside the peer, and M2 comes from wherever its sender likes.
            if attempt.targets == [path.remote] || paths.candidates().is_trusted(path.remote) {
                paths.established(ctx.now.instant, path);
            } else {
                // The confirmation is a probe there.
                paths.heard_from(ctx.now.instant, path);
            }
            self.peers.get_mut(&key).into_iter().for_each(Peer::attempt_succeeded);
            self.close_to_answers(index);
            self.install(ctx, key, established);
            self.flush(ctx.now, key);
        }
        Ok(())
    }

    fn handle_cookie(&mut self, now: Now, index: SessionIndex, path: Path, datagram: &[u8]) -> Result<(), DropReason> {
        let (_, attempt, paths) = attempt_of(&self.owners, &mut self.peers, index)?;
        // The cookie is authentic wherever it comes from: a host with several addresses answers from another one, and so does whoever
        // repeats what he saw. The flight goes only to where it went before, and once: a cookie is no reflector.
        let is_target = attempt.targets.contains(&path.remote);
        let unpaid = attempt.targets.iter().filter(|target| !attempt.paid.contains(target));
        let receivers: Vec<_> = if is_target { vec![path.remote] } else { unpaid.copied().collect() };
        for to in receivers {
            let source = Source::Endpoint(to);
            attempt.initiator.handle_cookie(source, datagram).map_err(DropReason::from)?;
            if !attempt.paid.insert(to) {
                continue;
            }
            if !paths.candidates_mut().spend(now.instant, to, FLIGHT_LEN) {
                self.drops.count(DropReason::RateLimited);
                continue;
            }
            let flight = attempt.initiator.datagrams(source).map(<[u8]>::to_vec);
            let path = if is_target { path } else { paths.path_to(to) };
            self.transmits.extend(flight.map(|datagram| Transmit { path, datagram }));
        }
        Ok(())
    }

    fn install(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey, established: Established) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        self.owners.insert(established.session.local_index(), key);
        self.is_changed = true;
        let is_guest = established.session.admission().rights() == Rights::Guest;
        peer.note_standing(ctx.now.instant, established.guest_there, is_guest);
        let actions = peer.sessions.handle_established(ctx.now.instant, established);
        self.act(ctx, key, &actions);
    }
}

/// The attempt that an index names, whose it is, and its peer's ways.
fn attempt_of<'p>(
    owners: &BTreeMap<SessionIndex, TransportKey>,
    peers: &'p mut Roster,
    index: SessionIndex,
) -> Result<(TransportKey, &'p mut Attempt, &'p mut Paths), DropReason> {
    let key = *owners.get(&index).ok_or(DropReason::UnknownSession)?;
    let peer = peers.get_mut(&key).ok_or(DropReason::UnknownSession)?;
    let attempt = peer.attempt.as_mut().filter(|attempt| attempt.initiator.index() == index);
    Ok((key, attempt.ok_or(DropReason::HandshakeReplayed)?, &mut peer.paths))
}
