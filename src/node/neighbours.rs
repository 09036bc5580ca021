//! Whom a node keeps sessions with: as few as keep the network together, chosen so that nobody can arrange to be chosen by all, and
//! there although most members may be away.
//!
//! ```text
//!   order of neighbours:   A away   B in touch   C untried   D in touch   E in touch   F in touch   G untried …
//!   kept:                           B            C           D            E            F
//! ```
//! Only those in touch count: whoever is tried may never answer, and what this node hears of the network comes by sessions that are there.
//! Where hardly anybody is there, chance finds nobody: who is in touch with too few asks them whom else they see, and tries those next.

use super::Node;
use super::gossip::{self, GossipMessage, NEIGHBOURS};
use super::peers::PeerTable;
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::policy::Policy;
use crate::time::{Instant, Now};
use rand_core::CryptoRng;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The first so many members in the order of neighbours are tried before any others.
const MAX_TRIED: usize = 16;

/// How often others are asked who is there: whoever names members that are away has each tried once, sixteen in this time.
const ASK_INTERVAL: Duration = Duration::from_secs(120);

/// Members that are tried between two reviews by who is in touch with nobody.
const ACQUAINTANCES: usize = 16;

/// What a node remembers for its choice.
#[derive(Default)]
pub(super) struct Choice {
    /// The first members in the order of neighbours, for this policy and this epoch: to find them takes a hash for each member.
    first: Option<(Arc<Policy>, u64, Vec<NodeId>)>,
    /// Who was asked who is there, and did not answer yet.
    asked: Option<TransportKey>,
    /// When somebody was asked last.
    asked_at: Option<Instant>,
    /// Whom that one named the last time. They are tried after those of chance, and nothing else is believed of it.
    hinted: Vec<NodeId>,
    /// Whose turn it is among the members that are tried while nobody is in touch.
    turn: usize,
}

impl Choice {
    /// Says whether a member is to be asked who is there, and notes that it is.
    fn ask(&mut self, now: Instant, member: TransportKey) -> bool {
        let may = self.asked_at.is_none_or(|at| now.saturating_since(at) >= ASK_INTERVAL);
        if may {
            (self.asked, self.asked_at) = (Some(member), Some(now));
        }
        may
    }

    /// Takes the answer of the member that was asked, once. Returns whether there is somebody to try.
    fn take(&mut self, from: TransportKey, present: Vec<NodeId>) -> bool {
        let is_answer = self.asked.take_if(|asked| *asked == from).is_some() && !present.is_empty();
        if is_answer {
            self.hinted = present;
        }
        is_answer
    }
}

/// What is known of a member that may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// There is a session.
    InTouch,
    /// It may be reached.
    Untried,
    /// It was not reached, and is not to be tried again before this.
    Unreached(Instant),
    /// Nobody says where it is.
    Lost,
}

impl<R: CryptoRng> Node<R> {
    /// The members to keep sessions with.
    pub(super) fn close_members(&mut self, now: Now) -> Vec<TransportKey> {
        let named = [self.first_in_order(now), self.choice.hinted.clone()].concat();
        let first = named.iter().filter_map(|id| self.policy.member(id)).map(|it| it.transport_key);
        // Beyond the first ones, who is in touch may stay.
        let members: Vec<_> = first.chain(member_sessions(&self.peers)).collect();
        let mut seen = BTreeSet::new();
        let distinct = members.into_iter().filter(|key| seen.insert(*key));
        let in_touch: BTreeSet<_> = member_sessions(&self.peers).collect();
        let presence = |key: TransportKey| match self.peers.peer(&key) {
            _ if in_touch.contains(&key) => Presence::InTouch,
            Some(peer) if !peer.is_away(now.instant) => Presence::Untried,
            Some(peer) if peer.has_failed() => Presence::Unreached(peer.next_attempt()),
            _ => Presence::Lost,
        };
        choose(now.instant, distinct.map(|key| (key, presence(key))))
    }

    fn first_in_order(&mut self, now: Now) -> Vec<NodeId> {
        let epoch = gossip::neighbour_epoch(now.wall);
        let known =
            self.choice.first.take().filter(|(policy, of, _)| Arc::ptr_eq(policy, &self.policy) && *of == epoch);
        let (policy, _, first) = known.unwrap_or_else(|| {
            let mut order = gossip::neighbours(&self.own_id, self.policy.members().map(|member| member.id), now.wall);
            order.truncate(MAX_TRIED);
            (Arc::clone(&self.policy), epoch, order)
        });
        self.choice.first = Some((policy, epoch, first.clone()));
        first
    }

    /// What this node asks a member that it compares records with, while it is in touch with too few.
    pub(super) fn ask_who_is_there(&mut self, now: Now, member: TransportKey) -> Option<GossipMessage> {
        let wants_more = member_sessions(&self.peers).take(NEIGHBOURS).count() < NEIGHBOURS;
        (wants_more && self.choice.ask(now.instant, member)).then_some(GossipMessage::Wanted)
    }

    /// What one that asked is told of who is there.
    pub(super) fn present_for(&self, now: Now, asker: &TransportKey) -> Option<GossipMessage> {
        let asker = self.policy.admit(asker).member()?;
        let in_touch = member_sessions(&self.peers).filter_map(|key| self.policy.admit(&key).member());
        Some(gossip::present(&asker, in_touch, now.wall))
    }

    /// Takes who is there, as a member says that was asked.
    pub(super) fn take_present(&mut self, from: TransportKey, present: Vec<NodeId>) {
        if self.choice.take(from, present) {
            self.reach.hurry();
        }
    }

    /// While this node is in touch with nobody: members of whom it knows some place, others at each review. One that it finds there knows where
    /// the rest is.
    pub(super) fn acquaintances(&mut self) -> Vec<TransportKey> {
        if member_sessions(&self.peers).next().is_some() {
            return Vec::new();
        }
        let is_known =
            |key: &TransportKey| self.peers.peer(key).is_some_and(|peer| !peer.paths.candidates().ranked().is_empty());
        let others = self.policy.members().filter(|member| member.id != self.own_id);
        let known: Vec<_> = others.map(|member| member.transport_key).filter(is_known).collect();
        let turns = known.len().div_ceil(ACQUAINTANCES).max(1);
        let turn = self.choice.turn % turns;
        self.choice.turn = turn + 1;
        known.into_iter().skip(turn * ACQUAINTANCES).take(ACQUAINTANCES).collect()
    }
}

/// The members with a session.
pub(super) fn member_sessions(peers: &PeerTable) -> impl Iterator<Item = TransportKey> {
    peers.usable().filter(|(_, rights)| rights.is_member()).map(|(key, _)| key)
}

/// Those of them that this node keeps close.
pub(super) fn kept_sessions(peers: &PeerTable) -> impl Iterator<Item = TransportKey> {
    member_sessions(peers).filter(|key| peers.is_kept(key))
}

/// Of members in the order of neighbours, those to keep: the first ones in touch, and the first untried ones that come before them.
///
/// While too few are in touch, the one that was not reached for the longest time is tried as well, after the wait of the one that was tried
/// last: whatever a node spends on who is away, it does not grow with their number. While nobody is in touch, all waits are short.
fn choose(now: Instant, order: impl Iterator<Item = (TransportKey, Presence)>) -> Vec<TransportKey> {
    let (mut in_touch, mut tried) = (0, 0);
    let (mut chosen, mut unreached, mut absent) = (Vec::new(), Vec::new(), Vec::new());
    for (key, presence) in order {
        match presence {
            Presence::InTouch if in_touch < NEIGHBOURS => {
                in_touch += 1;
                chosen.push(key);
            }
            Presence::Untried if in_touch < NEIGHBOURS && tried < NEIGHBOURS => {
                tried += 1;
                chosen.push(key);
            }
            Presence::InTouch | Presence::Untried => {}
            Presence::Unreached(at) => {
                unreached.push((at, key));
                absent.push(key);
            }
            Presence::Lost => absent.push(key),
        }
    }
    if in_touch == 0 {
        chosen.extend(absent.into_iter().take(NEIGHBOURS - tried));
    } else if in_touch < NEIGHBOURS && tried == 0 && unreached.iter().all(|(at, _)| *at <= now) {
        chosen.extend(unreached.iter().min().map(|(_, key)| *key));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is chosen in second 1000 of members, each a letter: `+` for one in touch, `?` for one untried, `-` for one that nobody knows the place of, or the
    /// second at which one may be tried again.
    fn chosen(members: &str) -> String {
        let second = |second| Instant::ZERO + Duration::from_secs(second);
        let order = members.split_whitespace().map(|member| {
            let (name, presence) = member.split_at(1);
            let presence = match presence {
                "+" => Presence::InTouch,
                "?" => Presence::Untried,
                "-" => Presence::Lost,
                number => Presence::Unreached(second(number.parse().unwrap())),
            };
            (TransportKey([name.as_bytes()[0]; 32]), presence)
        });
        choose(second(1000), order).into_iter().map(|key| char::from(key.0[0])).collect()
    }

    #[test]
    fn only_who_was_asked_says_who_is_there_once_and_every_two_minutes() {
        let [asked, liar] = [1, 2].map(|seed| TransportKey([seed; 32]));
        let named = |seed| vec![NodeId([seed; 32])];
        let at = |second| Instant::ZERO + Duration::from_secs(second);
        let mut choice = Choice::default();
        assert!(!choice.take(liar, named(9)), "nobody was asked");
        assert!(choice.ask(at(1), asked) && !choice.ask(at(120), liar));
        assert!(!choice.take(liar, named(9)) && choice.take(asked, named(3)) && !choice.take(asked, named(9)));
        assert_eq!(choice.hinted, named(3));
        assert!(choice.ask(at(121), liar) && !choice.take(liar, Vec::new()));
        assert_eq!(choice.hinted, named(3));
    }

    #[test]
    fn the_first_four_in_touch_are_kept_and_who_is_untried_before_them_is_tried() {
        assert_eq!(chosen("a+ b+ c+ d+ e+ f?"), "abcd");
        assert_eq!(chosen("a1900 b+ c? d+ e+ f+ g?"), "bcdef");
    }

    #[test]
    fn however_many_are_untried_four_at_a_time_are_and_who_is_in_touch_is_kept() {
        assert_eq!(chosen("a? b? c? d? e? f? g+ h+"), "abcdgh");
        assert_eq!(chosen("a? b? c? d? e? f? g+ h+ i+ j+ k+"), "abcdghij");
    }

    #[test]
    fn where_too_few_are_in_touch_who_was_not_reached_is_tried_one_after_the_other() {
        assert_eq!(chosen("a900 b800 c- d950 e+"), "eb");
        assert_eq!(chosen("a900 b1010 c- d950 e+"), "e", "one was tried a moment ago");
        assert_eq!(chosen("a900 b800 c? e+"), "ce", "another one is being tried");
        assert_eq!(chosen("a900 b+ c+ d+ e+"), "bcde", "there are enough");
    }

    #[test]
    fn who_is_in_touch_with_nobody_tries_the_first_ones_again_and_again() {
        assert_eq!(chosen("a900 b1010 c- d950 e950"), "abcd");
        assert_eq!(chosen("a900 b? c- d950 e950"), "bacd");
    }
}
