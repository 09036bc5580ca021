//! Packets and frames that wait for a session: a few per peer, not for long, and not many of all peers together, so that the first packet of a
//! connection is not lost and packets to dead peers do not pile up.

use crate::crypto::exchange::TransportKey;
use crate::time::Instant;
use crate::wire::transport_record::Layer;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Packets that wait for one peer: a TCP initial window (RFC 6928) of each of a few connections.
const MAX_PACKETS: usize = 64;

/// Bytes that wait for one peer.
const MAX_BYTES: usize = 128 * 1024;

/// Bytes that wait for all peers: those of 64 at once. When full the oldest packet goes, whosever it is.
pub const MAX_STAGED_BYTES: usize = 8 << 20;

/// How long a packet waits: an attempt's life. After that TCP has sent it again and UDP has given up.
const MAX_AGE: Duration = Duration::from_secs(5);

/// The packets that wait, for each peer the oldest first. A peer that nothing waits for has no queue.
#[derive(Debug, Default)]
pub struct Staging {
    queues: BTreeMap<TransportKey, Queue>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<(Instant, Layer, Vec<u8>)>,
    bytes: usize,
}

impl Staging {
    /// Adds a packet. Returns how many older ones had to go for it; a packet that exceeds the queue alone is refused as one.
    pub fn push(&mut self, now: Instant, key: TransportKey, layer: Layer, packet: Vec<u8>) -> usize {
        if packet.len() > MAX_BYTES {
            return 1;
        }
        let mut dropped = 0;
        while self.queues.get(&key).is_some_and(|queue| !queue.has_room(packet.len())) {
            self.pop(key);
            dropped += 1;
        }
        while self.bytes + packet.len() > MAX_STAGED_BYTES
            && let Some(oldest) = self.oldest()
        {
            self.pop(oldest);
            dropped += 1;
        }
        self.bytes += packet.len();
        let queue = self.queues.entry(key).or_default();
        queue.bytes += packet.len();
        queue.packets.push_back((now, layer, packet));
        dropped
    }

    /// Takes all packets of a peer that are not too old; returns them with the number of those that were.
    pub fn take(&mut self, now: Instant, key: &TransportKey) -> (Vec<(Layer, Vec<u8>)>, usize) {
        let Some(queue) = self.queues.remove(key) else { return (Vec::new(), 0) };
        self.bytes -= queue.bytes;
        let waited = queue.packets.len();
        let young = queue.packets.into_iter().filter(|(at, ..)| !is_too_old(now, *at));
        let young: Vec<_> = young.map(|(_, layer, packet)| (layer, packet)).collect();
        let expired = waited - young.len();
        (young, expired)
    }

    /// Drops what is too old; returns how many.
    pub fn expire(&mut self, now: Instant) -> usize {
        let keys: Vec<_> = self.queues.keys().copied().collect();
        let mut expired = 0;
        for key in keys {
            while self.front(&key).is_some_and(|at| is_too_old(now, at)) {
                self.pop(key);
                expired += 1;
            }
        }
        expired
    }

    /// Says whether nothing waits for anybody.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Says whether something waits for a peer.
    pub fn has(&self, key: &TransportKey) -> bool {
        self.queues.contains_key(key)
    }

    /// The peers that something waits for.
    pub fn keys(&self) -> impl Iterator<Item = &TransportKey> {
        self.queues.keys()
    }

    fn front(&self, key: &TransportKey) -> Option<Instant> {
        self.queues.get(key)?.packets.front().map(|(at, ..)| *at)
    }

    fn oldest(&self) -> Option<TransportKey> {
        self.queues.keys().min_by_key(|key| self.front(key)).copied()
    }

    fn pop(&mut self, key: TransportKey) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        if let Some((.., packet)) = queue.packets.pop_front() {
            queue.bytes -= packet.len();
            self.bytes -= packet.len();
        }
        if queue.packets.is_empty() {
            self.queues.remove(&key);
        }
    }
}

impl Queue {
    fn has_room(&self, len: usize) -> bool {
        self.packets.len() < MAX_PACKETS && self.bytes + len <= MAX_BYTES
    }
}

fn is_too_old(now: Instant, at: Instant) -> bool {
    now.saturating_since(at) >= MAX_AGE
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: TransportKey = TransportKey([1; 32]);

    #[test]
    fn packets_come_back_in_order_and_young() {
        let mut staging = Staging::default();
        staging.push(Instant::ZERO, KEY, Layer::Ip, vec![1]);
        staging.push(Instant::ZERO + Duration::from_secs(1), KEY, Layer::Ip, vec![2]);
        staging.push(Instant::ZERO + Duration::from_secs(2), KEY, Layer::Ip, vec![3]);
        let (packets, expired) = staging.take(Instant::ZERO + MAX_AGE, &KEY);
        assert_eq!((packets, expired), (vec![(Layer::Ip, vec![2]), (Layer::Ip, vec![3])], 1));
        assert!(staging.is_empty() && staging.bytes == 0);
    }

    #[test]
    fn neither_number_nor_bytes_grow_without_bound() {
        let mut staging = Staging::default();
        let dropped: usize = (0..1000).map(|_| staging.push(Instant::ZERO, KEY, Layer::Ip, vec![0; 100])).sum();
        assert_eq!(dropped, 1000 - MAX_PACKETS);
        let dropped: usize = (0..1000).map(|_| staging.push(Instant::ZERO, KEY, Layer::Ip, vec![0; 9000])).sum();
        assert_eq!(staging.queues[&KEY].packets.len(), MAX_BYTES / 9000);
        assert_eq!(dropped + MAX_BYTES / 9000, 1000 + MAX_PACKETS);
        assert_eq!(staging.push(Instant::ZERO, KEY, Layer::Ip, vec![0; MAX_BYTES + 1]), 1);
        staging.take(Instant::ZERO, &KEY);
        assert_eq!(staging.bytes, 0);
    }

    #[test]
    fn all_peers_together_have_a_bound_and_the_oldest_packet_goes() {
        let mut staging = Staging::default();
        let key = |number: u8| TransportKey([number; 32]);
        let at = |number: u8| Instant::from_micros(u64::from(number));
        let in_all = MAX_STAGED_BYTES / MAX_BYTES;
        let mut dropped = 0;
        // The higher the key the older the packet.
        for number in 0..in_all as u8 {
            dropped += staging.push(at(200 - number), key(number), Layer::Ip, vec![0; MAX_BYTES]);
        }
        assert_eq!((dropped, staging.bytes), (0, MAX_STAGED_BYTES));
        assert_eq!(staging.push(at(201), key(200), Layer::Ip, vec![0; 1]), 1);
        assert!(!staging.has(&key(in_all as u8 - 1)) && staging.has(&key(0)) && staging.has(&key(200)));
        assert_eq!(staging.bytes, MAX_STAGED_BYTES - MAX_BYTES + 1);
        assert_eq!(staging.expire(Instant::ZERO + 2 * MAX_AGE), in_all);
        assert!(staging.is_empty() && staging.bytes == 0);
    }
}
