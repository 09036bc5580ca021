//! Which peer's ports are searched for, and when: one whose NAT, or this node's, chooses another port for each conversation, and not both.
//!
//! ```text
//!   call ──► wanted ── 400 ms ──► both kinds known, still relayed? ──► opening, or guessing ── direct, or spent ──► over
//!              ▲                                                                                                     │
//!              └──────────────────────────────── once more, a minute later ──────────────────────────────────────────┘
//! ```
//! What is sent is the business of [`super::peers::port_search`]. One search of each role at a time; guesses go only to a public address that
//! the peer itself named, in the session that they are sealed in.

use super::peers::port_search::{Guesses, Outlook, Role, SEARCH_SOCKETS, opener_hops, outlook};
use super::spares::{Spare, SparePurpose};
use super::{Node, NodeEvent};
use crate::crypto::exchange::TransportKey;
use crate::path::candidate::is_private;
use crate::path::{LocalEnd, Path};
use crate::time::{Instant, Now};
use crate::wire::control::{ControlMessage, NatKind};
use rand_core::CryptoRng;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long what needs no guessing has for itself.
const HEAD_START: Duration = Duration::from_millis(400);

/// How often it is looked at again whether both kinds are known and this node has time.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long that is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// Between two searches for one peer.
const SEARCH_INTERVAL: Duration = Duration::from_secs(60);

/// Searches after one call.
const MAX_ROUNDS: usize = 2;

/// Guesses take 5 s; the sockets stay a little longer, because the other end begins later.
const OPEN_FOR: Duration = Duration::from_secs(7);

/// Peers that wait for a search at a time; for more there is none.
const MAX_WANTED: usize = 64;

/// Endpoints of a peer that openers go to: a NAT shows one, or few.
const MAX_PLACES: usize = 2;

/// A peer whose ports are to be searched for, if it comes to that.
#[derive(Debug)]
struct Wanted {
    /// What it says of its NAT.
    nat: NatKind,
    /// The public endpoints that it names.
    places: Vec<SocketAddr>,
    due: Instant,
    give_up_at: Instant,
    round: usize,
}

/// A search at the end whose ports are not known.
#[derive(Debug)]
struct Opening {
    key: TransportKey,
    places: Vec<SocketAddr>,
    hops: u8,
    until: Instant,
}

/// A search at the other end.
#[derive(Debug)]
struct Guessing {
    key: TransportKey,
    guesses: Guesses,
}

/// The searches under way, and those to come.
#[derive(Debug, Default)]
pub(super) struct Searches {
    wanted: BTreeMap<TransportKey, Wanted>,
    /// When the last search for a peer began.
    begun: BTreeMap<TransportKey, Instant>,
    opening: Option<Opening>,
    guessing: Option<Guessing>,
}

impl Searches {
    /// When something of it is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let wanted = self.wanted.values().map(|wanted| wanted.due).min();
        let guess = self.guessing.as_ref().and_then(|guessing| guessing.guesses.next_at());
        [wanted, guess, self.opening.as_ref().map(|opening| opening.until)].into_iter().flatten().min()
    }

    /// Says whether sockets are open for a search.
    pub(super) fn is_opening(&self) -> bool {
        self.opening.is_some()
    }

    /// Says whether a peer's ports, or this node's for it, are being searched for.
    pub(super) fn is_under_way(&self, key: &TransportKey) -> bool {
        let opening = self.opening.as_ref().map(|opening| opening.key);
        let guessing = self.guessing.as_ref().map(|guessing| guessing.key);
        [opening, guessing].contains(&Some(*key))
    }

    /// Says whether anything here belongs to a peer.
    pub(super) fn mentions(&self, key: &TransportKey) -> bool {
        self.wanted.contains_key(key) || self.begun.contains_key(key) || self.is_under_way(key)
    }

    fn has_room_for(&self, role: Role) -> bool {
        match role {
            Role::Opening => self.opening.is_none(),
            Role::Guessing => self.guessing.is_none(),
        }
    }

    /// Notes a call of a peer, with what it says of itself.
    fn want(&mut self, begin: Instant, key: TransportKey, nat: NatKind, places: Vec<SocketAddr>) {
        if self.wanted.len() >= MAX_WANTED && !self.wanted.contains_key(&key) {
            return;
        }
        let earliest = self.begun.get(&key).map_or(begin, |begun| *begun + SEARCH_INTERVAL);
        let due = (begin + HEAD_START).max(earliest);
        let round = self.wanted.get(&key).map_or(0, |before| before.round);
        self.wanted.insert(key, Wanted { nat, places, due, give_up_at: due + PATIENCE, round });
    }

    /// Takes a search of a peer that begins now off the list, for its next round.
    fn begin(&mut self, now: Instant, key: TransportKey) {
        self.begun.retain(|_, begun| now.saturating_since(*begun) < SEARCH_INTERVAL);
        self.begun.insert(key, now);
        if let Some(mut wanted) = self.wanted.remove(&key)
            && wanted.round + 1 < MAX_ROUNDS
        {
            wanted.round += 1;
            wanted.due = now + SEARCH_INTERVAL;
            wanted.give_up_at = wanted.due + PATIENCE;
            self.wanted.insert(key, wanted);
        }
    }

    /// Looks at a peer again, unless that was done for long enough.
    fn look_again(&mut self, now: Instant, key: TransportKey) {
        if let Some(wanted) = self.wanted.get_mut(&key) {
            wanted.due = now + LOOK_INTERVAL;
            if now >= wanted.give_up_at {
                self.wanted.remove(&key);
            }
        }
    }
}

impl<R: CryptoRng> Node<R> {
    /// A peer called: its ports, or this node's, are searched for if what begins at `begin` leads nowhere.
    pub(super) fn want_search(&mut self, begin: Now, key: TransportKey, nat: NatKind, endpoints: &[SocketAddr]) {
        let is_public = |endpoint: &&SocketAddr| endpoint.is_ipv4() && !is_private(endpoint.ip());
        let places = endpoints.iter().filter(is_public).take(MAX_PLACES).copied().collect();
        self.searches.want(begin.instant, key, nat, places);
    }

    /// Tells those that wait for a search what this node's NAT turned out to be.
    pub(super) fn tell_nat(&mut self, now: Now) {
        let waiting: Vec<_> = self.searches.wanted.keys().copied().collect();
        for key in waiting {
            if let Some(id) = self.policy.admit(&key).member() {
                let call = self.own_call(id, true);
                self.peers.send_control(now, key, &ControlMessage::Call(call));
            }
        }
    }

    /// Begins the searches that are due, goes on with those under way, and ends those that are over.
    pub(super) fn tend_searches(&mut self, now: Now) {
        self.end_searches(now);
        let due = self.searches.wanted.iter().filter(|(_, wanted)| now.instant >= wanted.due);
        let due: Vec<_> = due.map(|(key, _)| *key).collect();
        for key in due {
            match self.search_outlook(&key) {
                Outlook::Search(role) if self.searches.has_room_for(role) => self.begin_search(now, key, role),
                Outlook::Search(_) | Outlook::Undecided => self.searches.look_again(now.instant, key),
                Outlook::Pointless => drop(self.searches.wanted.remove(&key)),
            }
        }
        self.guess(now);
    }

    /// Says whether a search for a peer is worth it now.
    fn search_outlook(&self, key: &TransportKey) -> Outlook {
        let Some(wanted) = self.searches.wanted.get(key).filter(|_| self.peers.is_relayed(key)) else {
            return Outlook::Pointless;
        };
        let record = self.policy.admit(key).member().and_then(|id| self.gossip.record(&id, &self.policy));
        let is_told = !matches!(wanted.nat, NatKind::Undetermined | NatKind::Unknown);
        let peer = record.filter(|_| !is_told).map_or(wanted.nat, |record| record.nat);
        match outlook(self.reach.nat(), peer) {
            Outlook::Search(_) if wanted.places.is_empty() => Outlook::Undecided,
            outlook => outlook,
        }
    }

    fn begin_search(&mut self, now: Now, key: TransportKey, role: Role) {
        let Some(wanted) = self.searches.wanted.get(&key) else { return };
        let (places, hops) = (wanted.places.clone(), opener_hops(wanted.round));
        tracing::debug!(?key, ?role, round = wanted.round, "ports are searched for");
        self.searches.begin(now.instant, key);
        match role {
            Role::Opening => {
                let until = now.instant + OPEN_FOR;
                self.searches.opening = Some(Opening { key, places, hops, until });
                self.tell(NodeEvent::OpenSpares { count: SEARCH_SOCKETS, purpose: SparePurpose::Search });
            }
            Role::Guessing => {
                let guesses = Guesses::new(now.instant, &places);
                self.searches.guessing = Some(Guessing { key, guesses });
            }
        }
    }

    /// Sends from each socket that was opened for a search: what dies on its way opens the NAT, and nobody beyond it hears of it.
    pub(super) fn open_ports(&mut self, now: Now, opened: &[Spare]) {
        // One that was over meanwhile needs none.
        let Some(Opening { key, places, hops, .. }) = &self.searches.opening else { return self.review_spares() };
        let (key, places, hops) = (*key, places.clone(), *hops);
        tracing::debug!(sockets = opened.len(), "sockets for a search");
        let (peers, mut ctx) = self.peers_and_context(now);
        for Spare { position, .. } in opened {
            for remote in &places {
                let local = Some(LocalEnd { socket: *position, address: None });
                peers.probe_aside(&mut ctx, key, Path { local, ..(*remote).into() }, Some(hops));
            }
        }
    }

    fn guess(&mut self, now: Now) {
        let Some(Guessing { key, guesses }) = &mut self.searches.guessing else { return };
        let (key, due) = (*key, guesses.take(now.instant, &mut self.rng));
        let (peers, mut ctx) = self.peers_and_context(now);
        for guess in due {
            peers.probe_aside(&mut ctx, key, guess.into(), None);
        }
    }

    /// Ends the searches that led somewhere, or may no more.
    pub(super) fn end_searches(&mut self, now: Now) {
        let is_relayed = |key: &TransportKey| self.peers.is_relayed(key);
        self.searches.wanted.retain(|key, _| is_relayed(key));
        let is_over = |it: &mut Guessing| it.guesses.is_spent() || !is_relayed(&it.key);
        self.searches.guessing.take_if(is_over);
        let is_over = |it: &mut Opening| now.instant >= it.until || !is_relayed(&it.key);
        if self.searches.opening.take_if(is_over).is_some() {
            self.review_spares();
        }
    }

    /// The host is elsewhere: what was opened from where it was is of no use. The next search keeps its time, which the other end keeps, too.
    pub(super) fn stop_searches(&mut self) {
        self.searches.opening = None;
        self.searches.guessing = None;
        self.review_spares();
    }

    /// A peer is no member any more.
    pub(super) fn forget_search(&mut self, key: &TransportKey) {
        self.searches.wanted.remove(key);
        self.searches.begun.remove(key);
        self.searches.guessing.take_if(|it| it.key == *key);
        if self.searches.opening.take_if(|it| it.key == *key).is_some() {
            self.review_spares();
        }
    }
}
