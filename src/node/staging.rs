//! Packets that wait for a session: a few per peer, not for long, so that the first packet of a connection is not lost and a dead
//! peer's packets do not pile up.

use crate::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Packets that wait for one peer: a TCP initial window (RFC 6928) of each of a few connections.
const MAX_PACKETS: usize = 64;

/// Bytes that wait for one peer.
const MAX_BYTES: usize = 128 * 1024;

/// How long a packet waits: an attempt's life. After that TCP has sent it again and UDP has given up.
const MAX_AGE: Duration = Duration::from_secs(5);

/// The packets that wait for one peer, the oldest first.
#[derive(Debug, Default)]
pub struct Staging {
    packets: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl Staging {
    /// Adds a packet. Returns how many older ones had to go for it; a packet that exceeds the queue alone is refused as one.
    pub fn push(&mut self, now: Instant, packet: Vec<u8>) -> usize {
        if packet.len() > MAX_BYTES {
            return 1;
        }
        let before = self.packets.len();
        self.expire(now);
        while self.packets.len() >= MAX_PACKETS || self.bytes + packet.len() > MAX_BYTES {
            self.pop();
        }
        let dropped = before - self.packets.len();
        self.bytes += packet.len();
        self.packets.push_back((now, packet));
        dropped
    }

    /// Takes all packets that are not too old; returns them with the number of those that were.
    pub fn take(&mut self, now: Instant) -> (Vec<Vec<u8>>, usize) {
        let expired = self.expire(now);
        self.bytes = 0;
        (self.packets.drain(..).map(|(_, packet)| packet).collect(), expired)
    }

    /// Drops what is too old; returns how many.
    pub fn expire(&mut self, now: Instant) -> usize {
        let before = self.packets.len();
        while self.packets.front().is_some_and(|(at, _)| now.saturating_since(*at) >= MAX_AGE) {
            self.pop();
        }
        before - self.packets.len()
    }

    /// Says whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    fn pop(&mut self) {
        if let Some((_, packet)) = self.packets.pop_front() {
            self.bytes -= packet.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_back_in_order_and_young() {
        let mut staging = Staging::default();
        staging.push(Instant::ZERO, vec![1]);
        staging.push(Instant::ZERO + Duration::from_secs(1), vec![2]);
        staging.push(Instant::ZERO + Duration::from_secs(2), vec![3]);
        let (packets, expired) = staging.take(Instant::ZERO + MAX_AGE);
        assert_eq!((packets, expired), (vec![vec![2], vec![3]], 1));
        assert!(staging.is_empty());
    }

    #[test]
    fn neither_number_nor_bytes_grow_without_bound() {
        let mut staging = Staging::default();
        let dropped: usize = (0..1000).map(|_| staging.push(Instant::ZERO, vec![0; 100])).sum();
        assert_eq!(dropped, 1000 - MAX_PACKETS);
        let dropped: usize = (0..1000).map(|_| staging.push(Instant::ZERO, vec![0; 9000])).sum();
        assert_eq!(staging.packets.len(), MAX_BYTES / 9000);
        assert_eq!(dropped + staging.packets.len(), 1000 + MAX_PACKETS);
        assert_eq!(staging.push(Instant::ZERO, vec![0; MAX_BYTES + 1]), 1);
        staging.take(Instant::ZERO);
        assert_eq!(staging.bytes, 0);
    }
}
