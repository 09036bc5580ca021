//! What changes under the sessions: the policy, the clock, the underlay; and how sessions and peers end.

use super::{Context, PeerEvent, PeerTable};
use crate::crypto::exchange::TransportKey;
use crate::node::peer::Peer;
use crate::policy::PolicyDiff;
use crate::session::Action;
use crate::time::Now;
use crate::wire::drops::DropReason;
use rand_core::CryptoRng;

impl PeerTable {
    /// Follows a new policy: who was removed or changed its key loses sessions, attempts, half-open handshakes and staged packets at
    /// once; guests who became members may handshake anew.
    pub fn handle_policy(&mut self, ctx: &mut Context<'_, impl CryptoRng>, diff: &PolicyDiff) {
        let (now, policy) = (ctx.now, ctx.policy);
        self.responder.handle_policy(policy);
        self.kept.retain(|key| !diff.removed_keys.contains(key));
        for key in self.peers.keys() {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let actions = peer.sessions.handle_policy(policy);
            let has_new_key = |id| policy.member(&id).is_some_and(|member| member.transport_key != key);
            let cut = peer.id.is_some_and(|id| diff.removed.contains(&id) || has_new_key(id));
            self.retire(key, &actions);
            if cut {
                self.forget(now, key);
            }
        }
        for id in diff.admitted.iter().chain(&diff.changed) {
            let Some(key) = policy.member(id).map(|member| member.transport_key) else { continue };
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            peer.id = Some(*id);
            peer.sessions.set_remote(Some(*id));
            peer.retry_at_once();
            // What it has is a guest's session, made before this node knew that it was a member.
            if !peer.sessions.is_empty() {
                self.connect(ctx, key);
            }
        }
        self.is_changed = true;
    }

    /// Takes the news that the machine slept or its clock jumped: no session from before sends until a new one is there.
    pub fn handle_clock_jump(&mut self, ctx: &mut Context<'_, impl CryptoRng>) {
        for key in self.peers.keys() {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            peer.retry_at_once();
            // As stale as the sessions are: its answer may have come and gone.
            if let Some(attempt) = peer.attempt.take() {
                self.abandon(attempt.initiator.index());
            }
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let actions = peer.sessions.handle_clock_jump(ctx.now.instant);
            self.act(ctx, key, &actions);
            self.tidy(key);
        }
        self.is_changed = true;
    }

    /// Takes the news that this host is elsewhere: what came in at its earlier addresses says no more how to answer.
    pub fn forget_local_ends(&mut self) {
        for key in self.peers.keys() {
            self.peers.get_mut(&key).into_iter().for_each(|peer| peer.paths.forget_local_ends());
        }
        self.is_changed = true;
    }

    /// Takes the news that the underlay changed: all sessions are renewed, all paths asked.
    pub fn handle_underlay_change(&mut self, ctx: &mut Context<'_, impl CryptoRng>) {
        let keys: Vec<_> =
            self.peers.engaged().filter(|(_, peer)| !peer.sessions.is_empty()).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.retry_at_once();
                // What is being opened is not this host's way any more: it is begun anew.
                peer.punch = None;
                peer.came_from = None;
            }
            self.connect(ctx, key);
        }
    }

    pub(super) fn retire(&mut self, key: TransportKey, actions: &[Action]) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let mut retired = false;
        for action in actions {
            let Action::Retire(index) = action else { continue };
            peer.forget_session(*index);
            self.owners.remove(index);
            self.indices.release(*index);
            retired = true;
        }
        if !retired {
            return;
        }
        self.is_changed = true;
        if peer.sessions.is_empty() {
            // A hole in a NAT lasts no longer than what goes through it.
            peer.paths.forget_current();
            peer.guest_since = None;
            self.events.push_back(PeerEvent::Down(key));
            self.tidy(key);
        }
    }

    /// Forgets a peer of whom nothing is left but where it spoke from: a stranger's keys cost it nothing, and it never uses one again.
    pub(super) fn tidy(&mut self, key: TransportKey) {
        let is_left_over = |peer: &Peer| peer.is_stranger() && !peer.is_busy();
        if self.peers.get(&key).is_some_and(is_left_over) {
            self.peers.remove(&key);
        }
    }

    /// Removes a peer and everything of it.
    fn forget(&mut self, now: Now, key: TransportKey) {
        let Some(mut peer) = self.peers.remove(&key) else { return };
        let (staged, expired) = self.staging.take(now.instant, &key);
        self.drops.add(DropReason::NoRoute, (staged.len() + expired) as u64);
        if let Some(attempt) = peer.attempt.take() {
            self.abandon(attempt.initiator.index());
        }
        for session in peer.sessions.receiving() {
            self.owners.remove(&session.local_index());
            self.indices.release(session.local_index());
        }
        self.kept.remove(&key);
        self.active.remove(&key);
        self.lose_relay(key);
        self.is_changed = true;
        self.events.push_back(PeerEvent::Down(key));
    }
}
