//! Handshakes in both roles: attempts begun here, initiations answered, and the sessions that come of them.

use super::roster::Roster;
use super::{Context, PeerEvent, PeerTable, Transmit, source_of};
use crate::crypto::exchange::TransportKey;
use crate::node::peer::{Attempt, Peer};
use crate::path::{Path, Paths, Speech};
use crate::policy::Rights;
use crate::session::handshake::responder::Inbound;
use crate::session::{Aim, Established, Initiator, InitiatorStep, Local, Source};
use crate::time::{Instant, Now};
use crate::wire::datagram::{Datagram, SessionIndex};
use crate::wire::drops::DropReason;
use crate::wire::handshake::{INITIATION_LEN, KEY_PART_LEN};
use rand_core::CryptoRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The bytes of one flight: D1, D2a and D2b.
const FLIGHT_LEN: usize = INITIATION_LEN + 2 * KEY_PART_LEN;

/// How long the direct ways have for themselves, where there are any: most answer within it, and what goes through a relay is then for nothing.
const HEAD_START: Duration = Duration::from_millis(150);

impl PeerTable {
    /// Begins a handshake with a peer unless one is under way, was tried in vain a moment ago, or nothing is known of where it is: by every
    /// way that may lead there, the direct ones first. One that renews a session goes everywhere from now on.
    pub fn connect(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        let now = ctx.now.instant;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let is_renewal = peer.attempt.as_mut().is_some_and(|attempt| std::mem::take(&mut attempt.is_renewal));
        if !is_renewal && !peer.may_attempt(now) {
            return;
        }
        if peer.may_seek(now) {
            self.events.push_back(PeerEvent::Sought(key));
        }
        let failed = peer.has_failed();
        let is_open = peer.is_open(now);
        let candidates = peer.paths.candidates_mut();
        let direct = match is_open {
            true => candidates.targets(now, &self.around, failed, FLIGHT_LEN),
            false => candidates.near_targets(now, &self.around, failed, FLIGHT_LEN),
        };
        let is_direct_likely = !direct.is_empty() && !failed && !self.is_udp_silent;
        let targets: Vec<_> = direct.into_iter().map(Source::Endpoint).chain(peer.other_targets()).collect();
        if is_renewal {
            self.widen(now, key, &targets);
        } else {
            self.attempt(ctx, key, targets, is_direct_likely);
        }
    }

    /// Sends the flight of the attempt under way to places where it did not go yet.
    fn widen(&mut self, now: Instant, key: TransportKey, targets: &[Source]) {
        let attempt = self.peers.get(&key).and_then(|peer| peer.attempt.as_ref());
        let known = attempt.map(|attempt| attempt.targets.clone()).unwrap_or_default();
        for target in targets.iter().filter(|target| !known.contains(target)) {
            let path = self.peers.get_mut(&key).and_then(|peer| path_to(now, &mut peer.paths, target));
            if let Some(path) = path {
                self.fire_also(key, path);
            }
        }
    }

    /// Renews the keys shared with a peer that is there: by the path in use alone, unless that seems dead or led to nothing the last time.
    pub(super) fn renew(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        let is_there = |peer: &&Peer| !peer.has_failed() && peer.paths.owed_since().is_none();
        match self.peers.get(&key).filter(is_there).and_then(|peer| peer.paths.path()) {
            Some(path) => {
                let has_begun = self.attempt(ctx, key, vec![source_of(&path)], false);
                let attempt = self.peers.get_mut(&key).and_then(|peer| peer.attempt.as_mut()).filter(|_| has_begun);
                attempt.into_iter().for_each(|attempt| attempt.is_renewal = true);
            }
            None => self.connect(ctx, key),
        }
    }

    /// Begins a handshake by these ways; if a direct one is likely to lead there, those through relays wait for a moment. Returns whether it did.
    fn attempt(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        key: TransportKey,
        targets: Vec<Source>,
        is_direct_likely: bool,
    ) -> bool {
        let now = ctx.now.instant;
        let may = |peer: &&mut Peer| peer.may_attempt(now) && !targets.is_empty();
        let Some(peer) = self.peers.get_mut(&key).filter(may) else { return false };
        let Some(index) = self.indices.reserve(ctx.rng) else { return false };
        let aim = Aim { key, identity: peer.id.filter(|id| ctx.policy.member(id).is_some()) };
        let offer = self.terms.offer(self.timestamps.next(ctx.now.wall));
        let Ok(initiator) = Initiator::new(ctx.now.instant, &self.keys, aim, offer, index, ctx.rng) else {
            self.indices.release(index);
            return false;
        };
        let relays_at = is_direct_likely.then(|| now + HEAD_START);
        let (is_renewal, paid) = (false, BTreeSet::new());
        peer.attempt = Some(Box::new(Attempt { initiator, targets, begun_at: now, relays_at, is_renewal, paid }));
        self.owners.insert(index, key);
        Arc::make_mut(&mut self.attempts).insert(index);
        self.is_gate_changed = true;
        self.fire(ctx.now, key);
        true
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

    /// Sends the flight of the attempt under way to those of its targets whose allowance it fits, and whose time has come.
    fn fire(&mut self, now: Now, key: TransportKey) {
        self.fire_at(now, key, |_| true);
    }

    fn fire_at(&mut self, now: Now, key: TransportKey, is_meant: impl Fn(&Source) -> bool) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(attempt) = &peer.attempt else { return };
        let mut sent = Vec::new();
        let is_early = |target: &Source| attempt.relays_at.is_some() && is_relayed(target);
        for target in attempt.targets.iter().filter(|target| is_meant(target) && !is_early(target)) {
            let Some(path) = path_to(now.instant, &mut peer.paths, target) else {
                self.drops.count(DropReason::RateLimited);
                continue;
            };
            sent.push(path);
            for datagram in attempt.initiator.datagrams(*target) {
                self.transmits.push_back(Transmit::new(path, datagram.to_vec()));
            }
        }
        sent.iter().for_each(|path| self.note_contact(now.instant, path, false));
    }

    /// Sends the flight of the attempt under way, if there is one, to one more place as well.
    pub(super) fn fire_also(&mut self, key: TransportKey, path: Path) {
        let Some(attempt) = self.peers.get_mut(&key).and_then(|peer| peer.attempt.as_mut()) else { return };
        let target = source_of(&path);
        if attempt.targets.contains(&target) {
            return;
        }
        attempt.targets.push(target);
        // What goes through a relay alone waits for the direct ways.
        if attempt.relays_at.is_none() || !is_relayed(&target) {
            let flight = attempt.initiator.datagrams(target).map(<[u8]>::to_vec);
            self.transmits.extend(flight.map(|datagram| Transmit::new(path, datagram)));
        }
    }

    pub(super) fn drive_attempt(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(attempt) = &mut peer.attempt else { return };
        if attempt.relays_at.take_if(|at| ctx.now.instant >= *at).is_some() {
            self.fire_at(ctx.now, key, is_relayed);
        }
        let Some(attempt) = self.peers.get_mut(&key).and_then(|peer| peer.attempt.as_mut()) else { return };
        match attempt.initiator.handle_timeout(ctx.now.instant) {
            InitiatorStep::Wait => {}
            InitiatorStep::Retransmit => self.fire(ctx.now, key),
            InitiatorStep::GaveUp => {
                let index = attempt.initiator.index();
                if let Some(peer) = self.peers.get_mut(&key) {
                    peer.attempt_failed(ctx.now.instant);
                    // Their labels may lead nowhere any more: they are asked for anew.
                    self.is_changed |= !peer.is_usable() && peer.paths.lose_relayed(|_, _| true);
                }
                self.abandon(index);
                self.tidy(key);
            }
        }
    }

    /// Takes a handshake datagram or a cookie.
    pub fn handle_handshake(&mut self, ctx: &mut Context<'_, impl CryptoRng>, path: Path, datagram: &[u8]) {
        self.note_contact(ctx.now.instant, &path, true);
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
        let inbound = Inbound { now: ctx.now.instant, source: source_of(&path), datagram };
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
            let contact = self.contacts.get(&path.remote.ip().to_canonical());
            let they_began = contact.is_some_and(|contact| contact.they_began);
            let peer = self.entry(key, id);
            peer.guest_origin = origin;
            let is_unasked = path.is_direct() && they_began;
            peer.came_unasked = is_unasked.then_some(index);
            self.install(ctx, key, established);
        }
        self.transmits.extend(outcome.transmit.into_iter().map(|datagram| Transmit::new(path, datagram)));
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
            let is_told = path.is_relayed() && paths.relay_of(&path).is_some() || paths.stream() == Some(path);
            if is_told || attempt.targets == [source_of(&path)] || paths.candidates().is_trusted(path.remote) {
                paths.established(ctx.now.instant, path);
            } else {
                // The confirmation is a probe there.
                paths.heard_from(ctx.now.instant, path, Speech::Using);
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
        let is_target = attempt.targets.contains(&source_of(&path));
        let unpaid = attempt.targets.iter().filter(|target| !attempt.paid.contains(target));
        let receivers: Vec<_> = if is_target { vec![source_of(&path)] } else { unpaid.copied().collect() };
        for to in receivers {
            attempt.initiator.handle_cookie(to, datagram).map_err(DropReason::from)?;
            if !attempt.paid.insert(to) {
                continue;
            }
            let Some(way) = path_to(now.instant, paths, &to) else {
                self.drops.count(DropReason::RateLimited);
                continue;
            };
            let flight = attempt.initiator.datagrams(to).map(<[u8]>::to_vec);
            let path = if is_target { path } else { way };
            self.transmits.extend(flight.map(|datagram| Transmit::new(path, datagram)));
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

fn is_relayed(target: &Source) -> bool {
    matches!(target, Source::Relayed { .. })
}

/// The path by which a flight goes to a target of an attempt, taken off its allowance; none when that is used up, or the relay is gone.
fn path_to(now: Instant, paths: &mut Paths, target: &Source) -> Option<Path> {
    match *target {
        Source::Endpoint(endpoint) => {
            paths.candidates_mut().spend(now, endpoint, FLIGHT_LEN).then(|| paths.path_to(endpoint))
        }
        Source::Stream(_) => paths.stream().filter(|path| source_of(path) == *target),
        Source::Relayed { .. } => paths.relayed().map(|(_, path)| path).find(|path| source_of(path) == *target),
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
