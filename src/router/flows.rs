//! The conversations under way: what lets replies pass that no rule allows by themselves.
//!
//! Both data directions of a peer look here, under the mutex of the peer's shard. Every peer has a share of its own, so that whoever floods
//! this node with conversations pushes out its own only.
//!
//! ```text
//!   young ◄── noted, or used ──┐      a look finds it in either; from `old` it moves to `young`
//!     │ full                   │
//!     ▼                        │
//!    old ──────────────────────┘      when `young` is full it becomes `old`, and what was there unused since is forgotten
//! ```

use super::PeerIndex;
use crate::time::Instant;
use crate::wire::flow::{Flow, Fragmented, Signal};
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most conversations with one peer.
pub const MAX_FLOWS_OF_PEER: usize = 8_192;
/// The most conversations of a node: 32 MiB.
pub const MAX_FLOWS: usize = 262_144;
/// The most packets of a peer whose further fragments may pass.
const MAX_FRAGMENTED: usize = 64;
/// Mutexes between which peers are divided.
const SHARDS: usize = 64;
/// How often one shard is searched for what has ended, when the node's share is used up.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How long an established TCP connection may be silent (RFC 5382, REQ-5).
const TCP_ESTABLISHED: Duration = Duration::from_secs(2 * 3600 + 240);
/// How long one that begins or ends may be (RFC 5382, REQ-5).
const TCP_TRANSITORY: Duration = Duration::from_secs(240);
/// How long an echo waits for its answer (RFC 5508, REQ-1).
const ICMP_QUERY: Duration = Duration::from_secs(60);
/// How long anything else may be silent (RFC 4787, REQ-5).
const UNCONNECTED: Duration = Duration::from_secs(300);
/// How long the fragments of a packet may follow its first one (RFC 791 §3.2).
const FRAGMENTS: Duration = Duration::from_secs(15);

/// A conversation, as one look finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// The direction in which it began.
    pub begun: Flow,
    /// The rules under which it was last allowed.
    pub generation: u64,
}

impl Known {
    /// Says whether a packet can belong to it: a TCP connection is opened by the side that began it, and by the other one never.
    fn has(&self, flow: Flow, signal: Signal) -> bool {
        !(flow.protocol == TCP && signal == Signal::Opens && flow != self.begun)
    }
}

/// No more conversations can be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The conversations of a node.
pub struct Flows {
    shards: Box<[Mutex<Shard>]>,
    total: AtomicUsize,
    /// The shard that is searched next for what is over.
    next_swept: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    /// By the peers' positions, of which each shard has every 64th.
    peers: Vec<Option<Box<PeerFlows>>>,
    swept: Option<Instant>,
}

/// The conversations with one peer.
#[derive(Default)]
struct PeerFlows {
    young: HashMap<Key, Entry>,
    old: HashMap<Key, Entry>,
    fragmented: VecDeque<(Fragmented, u64, Instant)>,
}

/// A conversation, whichever way a packet of it goes: the lesser of its two directions.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key(Flow);

/// In few pieces, since every packet is looked for.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Flow { source, destination, protocol, source_port, destination_port } = self.0;
        for address in [source, destination] {
            match address {
                IpAddr::V4(address) => state.write_u32(address.to_bits()),
                IpAddr::V6(address) => state.write_u128(address.to_bits()),
            }
        }
        let rest = u64::from(source_port) << 32 | u64::from(destination_port) << 16 | u64::from(protocol);
        state.write_u64(rest << 1 | u64::from(source.is_ipv4()));
    }
}

#[derive(Clone, Copy)]
struct Entry {
    generation: u64,
    seen: Instant,
    /// It began in the direction of its key.
    began_as_key: bool,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody answered yet.
    Begun,
    /// Both sides spoke.
    Established,
    /// A side said that it ends.
    Ending,
}

impl Flows {
    /// Knows no conversation.
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            total: AtomicUsize::new(0),
            next_swept: AtomicUsize::new(0),
        }
    }

    /// Looks for the conversation to which a packet of this flow belongs.
    pub fn find(&self, now: Instant, peer: PeerIndex, flow: Flow, signal: Signal) -> Option<Known> {
        self.with_peer(peer, |flows, _| flows.find(now, Key::of(flow).0)).filter(|known| known.has(flow, signal))
    }

    /// Notes a packet of a conversation that was allowed under these very rules; says whether there is one.
    #[inline]
    pub fn touch(&self, now: Instant, peer: PeerIndex, flow: Flow, signal: Signal, generation: u64) -> bool {
        self.with_peer(peer, |flows, total| flows.touch(now, flow, signal, generation, total))
    }

    /// Notes a packet of a known conversation that newer rules allow as well.
    pub fn renew(&self, now: Instant, peer: PeerIndex, flow: Flow, signal: Signal, generation: u64) {
        self.with_peer(peer, |flows, total| flows.take(now, Key::of(flow), signal, generation, total));
    }

    /// Notes a conversation that begins with a packet of this flow, allowed by these rules.
    ///
    /// # Errors
    /// [`Full`] when there are [`MAX_FLOWS`], none of them over and none of this peer's that it could give up.
    pub fn begin(
        &self,
        now: Instant,
        peer: PeerIndex,
        flow: Flow,
        signal: Signal,
        generation: u64,
    ) -> Result<(), Full> {
        // Peers that fell silent do not look here any more: whoever comes next clears up after them.
        for _ in 0..SHARDS {
            if self.total.load(Ordering::Relaxed) < MAX_FLOWS {
                break;
            }
            let next = self.next_swept.fetch_add(1, Ordering::Relaxed);
            lock(&self.shards[next % SHARDS]).sweep(now, &self.total);
        }
        let mut shard = self.shard(peer);
        if self.total.load(Ordering::Relaxed) >= MAX_FLOWS {
            shard.make_room(now, peer, &self.total)?;
        }
        shard.entry(peer).begin(now, flow, signal, generation, &self.total);
        Ok(())
    }

    /// Forgets a conversation that the rules allow no more.
    pub fn end(&self, peer: PeerIndex, flow: Flow) {
        self.with_peer(peer, |flows, total| flows.remove(Key::of(flow).0, total));
    }

    /// Notes that the further fragments of a packet may pass as its first one did.
    pub fn begin_fragments(&self, now: Instant, peer: PeerIndex, packet: Fragmented, generation: u64) {
        let mut shard = self.shard(peer);
        let fragmented = &mut shard.entry(peer).fragmented;
        if fragmented.len() >= MAX_FRAGMENTED {
            fragmented.pop_front();
        }
        fragmented.push_back((packet, generation, now));
    }

    /// Says whether the first fragment of this packet passed a moment ago, under these rules.
    pub fn has_fragments(&self, now: Instant, peer: PeerIndex, packet: &Fragmented, generation: u64) -> bool {
        self.with_peer(peer, |flows, _| {
            flows.fragmented.iter().any(|(known, rules, at)| {
                known == packet && *rules == generation && now.saturating_since(*at) < FRAGMENTS
            })
        })
    }

    /// Forgets everything about a peer.
    pub fn forget(&self, peer: PeerIndex) {
        if let Some(flows) = self.shard(peer).place(peer).and_then(Option::take) {
            self.total.fetch_sub(flows.len(), Ordering::Relaxed);
        }
    }

    /// Says whether something is remembered of a peer.
    pub fn has_peer(&self, peer: PeerIndex) -> bool {
        self.shard(peer).get(peer).is_some()
    }

    /// How many conversations are remembered.
    pub fn len(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Says whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, peer: PeerIndex) -> MutexGuard<'_, Shard> {
        lock(&self.shards[peer.position() % SHARDS])
    }

    /// Looks at a peer's conversations; at none, when it has none.
    fn with_peer<T: Default>(&self, peer: PeerIndex, look: impl FnOnce(&mut PeerFlows, &AtomicUsize) -> T) -> T {
        self.shard(peer).get(peer).map(|flows| look(flows, &self.total)).unwrap_or_default()
    }
}

/// Whoever panicked under it left a table that is whole at every step.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Flows {
    fn default() -> Self {
        Self::new()
    }
}

impl Shard {
    fn place(&mut self, peer: PeerIndex) -> Option<&mut Option<Box<PeerFlows>>> {
        self.peers.get_mut(peer.position() / SHARDS)
    }

    fn get(&mut self, peer: PeerIndex) -> Option<&mut PeerFlows> {
        self.place(peer)?.as_deref_mut()
    }

    fn entry(&mut self, peer: PeerIndex) -> &mut PeerFlows {
        let at = peer.position() / SHARDS;
        if at >= self.peers.len() {
            self.peers.resize_with(at + 1, Option::default);
        }
        self.peers[at].get_or_insert_default()
    }

    /// Forgets what is over, unless that was done a moment ago.
    fn sweep(&mut self, now: Instant, total: &AtomicUsize) {
        if self.swept.is_none_or(|swept| now.saturating_since(swept) >= SWEEP_INTERVAL) {
            self.swept = Some(now);
            for place in &mut self.peers {
                if let Some(flows) = place {
                    flows.sweep(now, total);
                }
                *place = place.take().filter(|flows| flows.len() > 0);
            }
        }
    }

    /// Makes room for a conversation of `peer`: by what is over, else by what the peer itself used least lately.
    fn make_room(&mut self, now: Instant, peer: PeerIndex, total: &AtomicUsize) -> Result<(), Full> {
        self.sweep(now, total);
        if total.load(Ordering::Relaxed) < MAX_FLOWS {
            return Ok(());
        }
        let own = self.get(peer).ok_or(Full)?;
        if own.old.is_empty() {
            own.rotate(total);
        }
        let given_up = std::mem::take(&mut own.old).len();
        total.fetch_sub(given_up, Ordering::Relaxed);
        if given_up == 0 { Err(Full) } else { Ok(()) }
    }
}

impl PeerFlows {
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn find(&self, now: Instant, key: Key) -> Option<Known> {
        let entry = self.young.get(&key).or_else(|| self.old.get(&key))?;
        if entry.is_over(now, key) {
            return None;
        }
        Some(entry.known(key))
    }

    fn touch(&mut self, now: Instant, flow: Flow, signal: Signal, generation: u64, total: &AtomicUsize) -> bool {
        let (key, goes_as_key) = Key::of(flow);
        let has = |entry: &Entry| {
            entry.generation == generation && !entry.is_over(now, key) && entry.known(key).has(flow, signal)
        };
        if let Some(entry) = self.young.get_mut(&key) {
            let has = has(entry);
            if has {
                entry.take(now, goes_as_key, signal, generation);
            }
            return has;
        }
        let has = self.old.get(&key).is_some_and(has);
        if has {
            self.take(now, (key, goes_as_key), signal, generation, total);
        }
        has
    }

    fn take(
        &mut self,
        now: Instant,
        (key, goes_as_key): (Key, bool),
        signal: Signal,
        generation: u64,
        total: &AtomicUsize,
    ) {
        if let Some(entry) = self.young.get_mut(&key) {
            entry.take(now, goes_as_key, signal, generation);
        } else if let Some(mut entry) = self.old.remove(&key) {
            total.fetch_sub(1, Ordering::Relaxed);
            entry.take(now, goes_as_key, signal, generation);
            self.insert(key, entry, total);
        }
    }

    fn begin(&mut self, now: Instant, flow: Flow, signal: Signal, generation: u64, total: &AtomicUsize) {
        let (key, goes_as_key) = Key::of(flow);
        self.remove(key, total);
        let phase = if signal == Signal::Ends { Phase::Ending } else { Phase::Begun };
        self.insert(key, Entry { generation, seen: now, began_as_key: goes_as_key, phase }, total);
    }

    /// Takes in what is in neither map.
    fn insert(&mut self, key: Key, entry: Entry, total: &AtomicUsize) {
        if self.young.len() >= MAX_FLOWS_OF_PEER / 2 {
            self.rotate(total);
        }
        self.young.insert(key, entry);
        total.fetch_add(1, Ordering::Relaxed);
    }

    fn rotate(&mut self, total: &AtomicUsize) {
        let forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        total.fetch_sub(forgotten.len(), Ordering::Relaxed);
    }

    fn remove(&mut self, key: Key, total: &AtomicUsize) {
        if self.young.remove(&key).or_else(|| self.old.remove(&key)).is_some() {
            total.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn sweep(&mut self, now: Instant, total: &AtomicUsize) {
        let before = self.len();
        for map in [&mut self.young, &mut self.old] {
            map.retain(|key, entry| !entry.is_over(now, *key));
            map.shrink_to_fit();
        }
        total.fetch_sub(before - self.len(), Ordering::Relaxed);
    }
}

impl Key {
    /// The key of a flow, and whether the flow goes in its direction.
    fn of(flow: Flow) -> (Self, bool) {
        let reversed = flow.reversed();
        if flow <= reversed { (Self(flow), true) } else { (Self(reversed), false) }
    }
}

impl Entry {
    fn known(&self, key: Key) -> Known {
        let begun = if self.began_as_key { key.0 } else { key.0.reversed() };
        Known { begun, generation: self.generation }
    }

    fn take(&mut self, now: Instant, goes_as_key: bool, signal: Signal, generation: u64) {
        self.seen = now;
        self.generation = generation;
        self.phase = match (self.phase, signal) {
            (Phase::Ending, _) | (_, Signal::Ends) => Phase::Ending,
            (Phase::Begun, _) if goes_as_key != self.began_as_key => Phase::Established,
            (phase, _) => phase,
        };
    }

    fn is_over(&self, now: Instant, key: Key) -> bool {
        let patience = match (key.0.protocol, self.phase) {
            (TCP, Phase::Established) => TCP_ESTABLISHED,
            (TCP, Phase::Begun | Phase::Ending) => TCP_TRANSITORY,
            (ICMP | ICMPV6, _) => ICMP_QUERY,
            _ => UNCONNECTED,
        };
        now.saturating_since(self.seen) >= patience
    }
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerIndex = PeerIndex::at(0).unwrap();
    const NOW: Instant = Instant::from_micros(1_000_000);

    fn flow(protocol: u8, port: u16) -> Flow {
        Flow {
            source: [10, 64, 0, 1].into(),
            destination: [10, 64, 0, 2].into(),
            protocol,
            source_port: port,
            destination_port: 22,
        }
    }

    #[test]
    fn both_directions_find_it_and_know_who_began() {
        let flows = Flows::new();
        for flow in [flow(6, 1000), flow(17, 1000).reversed()] {
            flows.begin(NOW, PEER, flow, Signal::Opens, 3).unwrap();
            for seen in [flow, flow.reversed()] {
                assert_eq!(flows.find(NOW, PEER, seen, Signal::Continues), Some(Known { begun: flow, generation: 3 }));
            }
            let other = PeerIndex::at(64).unwrap();
            assert_eq!(flows.find(NOW, other, flow, Signal::Continues), None, "another peer of the same shard");
        }
        assert_eq!(flows.len(), 2);
        flows.end(PEER, flow(6, 1000).reversed());
        assert_eq!((flows.find(NOW, PEER, flow(6, 1000), Signal::Continues), flows.len()), (None, 1));
        flows.forget(PEER);
        assert!(flows.is_empty());
    }

    #[test]
    fn each_kind_may_be_silent_for_its_own_time() {
        let cases = [
            (17, None, 300),
            (1, None, 60),
            (6, None, 240),
            (6, Some(Signal::Continues), 7440),
            (6, Some(Signal::Ends), 240),
        ];
        for (protocol, answer, seconds) in cases {
            let flows = Flows::new();
            flows.begin(NOW, PEER, flow(protocol, 5), Signal::Opens, 1).unwrap();
            if let Some(signal) = answer {
                flows.touch(NOW, PEER, flow(protocol, 5).reversed(), signal, 1);
            }
            let after = |seconds| NOW + Duration::from_secs(seconds);
            assert!(
                flows.find(after(seconds - 1), PEER, flow(protocol, 5), Signal::Continues).is_some(),
                "{protocol} {answer:?}"
            );
            assert!(
                flows.find(after(seconds), PEER, flow(protocol, 5), Signal::Continues).is_none(),
                "{protocol} {answer:?}"
            );
        }
    }

    #[test]
    fn what_is_used_outlasts_a_flood_and_a_peer_has_its_share() {
        let flows = Flows::new();
        flows.begin(NOW, PEER, flow(6, 1), Signal::Opens, 1).unwrap();
        let flood = |flows: &Flows, peer, count: u32| {
            for number in 0..count {
                let flood = Flow { source: std::net::Ipv4Addr::from_bits(number).into(), ..flow(17, 9) };
                flows.begin(NOW, peer, flood, Signal::Opens, 1).unwrap();
                if peer == PEER && number % 1000 == 0 {
                    flows.touch(NOW, PEER, flow(6, 1), Signal::Continues, 1);
                }
            }
        };
        flood(&flows, PEER, 50_000);
        assert!(flows.find(NOW, PEER, flow(6, 1), Signal::Continues).is_some());
        assert!((MAX_FLOWS_OF_PEER / 2..=MAX_FLOWS_OF_PEER).contains(&flows.len()), "{}", flows.len());
        flood(&flows, PeerIndex::at(64).unwrap(), 50_000);
        assert!(flows.find(NOW, PEER, flow(6, 1), Signal::Continues).is_some(), "another peer's flood");
    }

    #[test]
    fn a_full_table_refuses_who_has_nothing_to_give_up_until_something_is_over() {
        let flows = Flows::new();
        let peers = MAX_FLOWS / (MAX_FLOWS_OF_PEER / 2);
        for peer in 0..peers as u32 {
            for number in 0..(MAX_FLOWS_OF_PEER / 2) as u32 {
                let one = Flow { source: std::net::Ipv4Addr::from_bits(number).into(), ..flow(17, 9) };
                flows.begin(NOW, PeerIndex::at(peer).unwrap(), one, Signal::Opens, 1).unwrap();
            }
        }
        assert_eq!(flows.len(), MAX_FLOWS);
        let newcomer = PeerIndex::at(1_000).unwrap();
        assert_eq!(flows.begin(NOW, newcomer, flow(17, 1), Signal::Opens, 1), Err(Full));
        assert_eq!(flows.begin(NOW, PEER, flow(17, 1), Signal::Opens, 1), Ok(()), "by its own");
        assert!(flows.len() <= MAX_FLOWS);
        let later = NOW + UNCONNECTED;
        let in_shard_of_a_full_peer = PeerIndex::at(64 + 1).unwrap();
        assert_eq!(flows.begin(later, in_shard_of_a_full_peer, flow(17, 1), Signal::Opens, 1), Ok(()));
    }

    #[test]
    fn peers_that_fell_silent_keep_nobody_out_wherever_they_are() {
        let flows = Flows::new();
        for peer in 0..(MAX_FLOWS / MAX_FLOWS_OF_PEER) as u32 {
            for number in 0..MAX_FLOWS_OF_PEER as u32 {
                let one = Flow { source: std::net::Ipv4Addr::from_bits(number).into(), ..flow(17, 9) };
                flows.begin(NOW, PeerIndex::at(peer).unwrap(), one, Signal::Opens, 1).unwrap();
            }
        }
        let in_an_empty_shard = PeerIndex::at(SHARDS as u32 - 1).unwrap();
        assert_eq!(flows.begin(NOW, in_an_empty_shard, flow(17, 1), Signal::Opens, 1), Err(Full));
        assert_eq!(flows.begin(NOW + UNCONNECTED, in_an_empty_shard, flow(17, 1), Signal::Opens, 1), Ok(()));
    }

    #[test]
    fn fragments_follow_for_a_while_and_under_the_same_rules() {
        let flows = Flows::new();
        let packet = |identification| Fragmented {
            source: [10, 64, 0, 1].into(),
            destination: [10, 64, 0, 2].into(),
            protocol: 17,
            identification,
        };
        flows.begin_fragments(NOW, PEER, packet(1), 1);
        assert!(flows.has_fragments(NOW, PEER, &packet(1), 1));
        assert!(!flows.has_fragments(NOW, PEER, &packet(2), 1));
        assert!(!flows.has_fragments(NOW, PEER, &packet(1), 2));
        assert!(!flows.has_fragments(NOW + FRAGMENTS, PEER, &packet(1), 1));
        (2..=65).for_each(|number| flows.begin_fragments(NOW, PEER, packet(number), 1));
        assert!(!flows.has_fragments(NOW, PEER, &packet(1), 1) && flows.has_fragments(NOW, PEER, &packet(65), 1));
    }
}
