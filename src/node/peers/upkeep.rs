//! What happens by itself as time passes: attempts driven, sessions renewed and ended, paths watched, kept peers kept.

use super::{CONTACT_FOR, Context, PeerEvent, PeerTable};
use crate::crypto::exchange::TransportKey;
use crate::path::{Path, PathCheck};
use crate::policy::Rights;
use crate::session::{Action, RekeyReason, Role};
use crate::time::{Instant, Now};
use crate::wire::control::ControlMessage;
use crate::wire::drops::DropReason;
use crate::wire::transport_record::RECORD_CONTROL;
use rand_core::CryptoRng;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How often paths, keepalives and worn keys are looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often the paths of peers are looked at that are in use or owe an answer: what failover takes beyond the silence that it waits for.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// How long after the last packet a peer counts as one of those.
const ACTIVE_FOR: Duration = Duration::from_secs(2);

/// Datagrams that fail to open between two looks before the peer hears of it. Who saw one datagram of the session can forge as many; all that
/// comes of it is that the peer sends its datagrams one by one.
const DAMAGED_MIN: u64 = 8;

/// A session that is kept gets a probe when nothing was sent for this long: most NATs forget UDP after 30 s (RFC 4787 REQ-5 asks for two
/// minutes and is not obeyed). Its answer serves the other side as well, and says that the peer is there.
const KEEPALIVE: Duration = Duration::from_secs(25);

impl PeerTable {
    /// Chooses whose sessions are kept up with keepalives; those that there are not are made at once.
    pub fn keep(&mut self, keys: BTreeSet<TransportKey>) {
        if !keys.is_subset(&self.kept) {
            self.check_at = Instant::ZERO;
        }
        self.kept = keys;
    }

    /// Says whether a peer's sessions are kept up.
    pub fn is_kept(&self, key: &TransportKey) -> bool {
        self.kept.contains(key)
    }

    /// Acts on the deadlines that have come.
    pub fn handle_timeout(&mut self, ctx: &mut Context<'_, impl CryptoRng>) {
        self.responder.handle_timeout(ctx.now.instant);
        let is_check = ctx.now.instant >= self.check_at;
        if is_check {
            self.check_at = ctx.now.instant + CHECK_INTERVAL;
            self.active.clear();
            self.contacts.retain(|_, contact| ctx.now.instant.saturating_since(contact.at) < CONTACT_FOR);
        }
        let is_watch = self.watch_at.is_some_and(|at| ctx.now.instant >= at);
        let watched = if is_watch { self.active.clone() } else { BTreeSet::new() };
        let due = if is_check { self.peers.busy() } else { self.peers.due(ctx.now.instant) };
        for key in due {
            self.drive_attempt(ctx, key);
            self.drive_punch(ctx, key);
            self.drive_measuring(ctx, key);
            let is_kept = self.kept.contains(&key);
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            peer.sessions.set_kept(is_kept);
            let actions = peer.sessions.handle_timeout(ctx.now.instant);
            self.act(ctx, key, &actions);
            if is_check {
                self.report_damage(ctx.now, key);
                self.check(ctx, key);
                self.review_dormancy(ctx.now.instant, key);
            }
        }
        if is_check {
            let expired = self.staging.expire(ctx.now.instant);
            self.drops.add(DropReason::NoPath, expired as u64);
            let kept: Vec<_> = self.kept.iter().copied().collect();
            for key in kept {
                self.keep_up(ctx, key);
            }
        } else {
            watched.into_iter().for_each(|key| self.check(ctx, key));
        }
        if is_check || is_watch {
            self.watch_at = None;
            if !self.active.is_empty() {
                self.watch_soon(ctx.now.instant);
            }
        }
    }

    /// Has the paths of those that are active looked at soon.
    pub(super) fn watch_soon(&mut self, now: Instant) {
        self.watch_at.get_or_insert(now + WATCH_INTERVAL);
    }

    /// Tells a peer when many of its datagrams do not open: of those that are cut by a network card or a driver, the peer can cut none.
    fn report_damage(&mut self, now: Now, key: TransportKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let failed = peer.sessions.receiving().map(|session| session.failed_opens()).sum();
        let before = std::mem::replace(&mut peer.failed_opens, failed);
        // A session that ended takes its failures with it.
        if failed.saturating_sub(before) >= DAMAGED_MIN {
            self.send(now, key, RECORD_CONTROL, &ControlMessage::Damaged.encode());
        }
    }

    fn check(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        self.promote(ctx, key);
        let is_member = ctx.policy.member(&self.keys.node_id).is_some();
        let is_guest = ctx.policy.admit(&key).rights() == Rights::Guest;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let silent = peer.paths.drop_silent(ctx.now.instant);
        if !silent.is_empty() {
            self.give_up_ways(ctx.now, key, &silent);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if is_member && peer.is_stay_over(ctx.now.instant) {
            self.dismiss(ctx.now, key);
            return;
        }
        let traffic = peer.traffic();
        let verdict = peer.paths.check(ctx.now.instant, traffic);
        let is_young = |at: Option<Instant>| at.is_some_and(|at| ctx.now.instant.saturating_since(at) < ACTIVE_FOR);
        if is_young(traffic.used) || is_young(traffic.sent) && peer.paths.owed_since().is_some() {
            self.active.insert(key);
        }
        self.help_to_wake(ctx.now.instant, key);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        match verdict {
            // The other side did not know yet that this node is a member: by now it may.
            PathCheck::Healthy if is_member && peer.guest_there && peer.recognition.is_over(ctx.now.instant) => {
                self.connect(ctx, key);
            }
            PathCheck::Healthy => {}
            PathCheck::Probe(paths) => {
                // Where only short datagrams come through, it is what is long that nobody answers.
                if traffic.is_in_use(ctx.now.instant) {
                    peer.mtu.suspect(ctx.now.instant);
                }
                self.ask_ways(ctx, key, &paths);
            }
            PathCheck::Warm(paths) => {
                // The relay in use may die: another one's way is to be there before.
                if peer.paths.hangs_on_one_relay() {
                    self.events.push_back(PeerEvent::Sought(key));
                }
                self.ask_ways(ctx, key, &paths);
            }
            PathCheck::Reconnect => {
                peer.paths.forget_local_ends();
                // None of them answered, though they were asked: their labels may lead nowhere any more.
                self.is_changed |= peer.paths.lose_relayed(|_, _| true);
                let Some(peer) = self.peers.get_mut(&key) else { return };
                // A guest comes again by itself; its silence sends no flights to all the places that it claimed to speak from.
                if !is_guest || !peer.is_stranger() {
                    self.connect(ctx, key);
                }
            }
        }
    }

    /// Tells relays that nobody is reached by these labels of theirs, and has them asked for others.
    fn give_up_ways(&mut self, now: Now, key: TransportKey, silent: &[(TransportKey, Path)]) {
        for (relay, path) in silent {
            if let Some(label) = path.label {
                self.send_control(now, *relay, &ControlMessage::LabelGone { label });
            }
        }
        self.is_changed = true;
        self.events.push_back(PeerEvent::Sought(key));
    }

    /// Probes ways to a peer, and first the relays that they lead through: a relay takes labels only from where it sees this node, and may see
    /// it elsewhere by now.
    fn ask_ways(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey, paths: &[Path]) {
        for path in paths {
            let relay = self.peers.get(&key).and_then(|peer| peer.paths.relay_of(path));
            if let Some((relay, direct)) = relay.and_then(|relay| Some((relay, self.direct_path(&relay)?))) {
                self.probe(ctx, relay, direct);
            }
            self.probe(ctx, key, *path);
        }
    }

    fn keep_up(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some((session, path)) = peer.sessions.sending().map(Arc::clone).zip(peer.paths.path()) else {
            self.connect(ctx, key);
            return;
        };
        let idle = session.last_sent().is_none_or(|at| ctx.now.instant.saturating_since(at) >= KEEPALIVE);
        if idle {
            self.probe_in(ctx, key, &session, path);
        }
    }

    pub(super) fn act(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey, actions: &[Action]) {
        for action in actions {
            match *action {
                Action::SendConfirmation(index) => {
                    let Some(peer) = self.peers.get(&key) else { return };
                    let session = peer.sessions.receiving().find(|session| session.local_index() == index);
                    let Some(session) = session.map(Arc::clone) else { continue };
                    let elsewhere = peer.paths.elsewhere();
                    self.seal_in(ctx.now, key, &session, None, &[]);
                    // Whoever spoke from elsewhere is confirmed by a probe there, which asks for the proof that it reads there. A peer that
                    // restarted at another place knows no other session than this one.
                    if let Some(path) = elsewhere {
                        self.probe_in(ctx, key, &session, path);
                    }
                    if let Some(peer) = self.peers.get_mut(&key).filter(|_| session.role() == Role::Responder) {
                        peer.paths.answered(ctx.now.instant);
                    }
                }
                Action::StartHandshake(RekeyReason::Age | RekeyReason::Worn) => self.renew(ctx, key),
                Action::StartHandshake(RekeyReason::ClockJump | RekeyReason::Unconfirmed) => self.connect(ctx, key),
                Action::StoreTimestamp(key, timestamp) => self.events.push_back(PeerEvent::Timestamp(key, timestamp)),
                Action::Retire(_) => {}
            }
        }
        self.retire(key, actions);
    }

    /// When `handle_timeout` is due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let is_watching = !self.kept.is_empty() || !self.staging.is_empty() || self.peers.is_any_busy();
        let check = is_watching.then_some(self.check_at);
        [self.responder.poll_timeout(), self.peers.next_deadline(), check, self.watch_at].into_iter().flatten().min()
    }
}
