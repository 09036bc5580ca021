//! What became of datagrams, by cause.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the sockets did so far. Datagrams, unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpCounts {
    /// Received whole.
    pub received: u64,
    /// Received, but longer than a slot: dropped.
    pub received_truncated: u64,
    /// Received from an address that is none: dropped.
    pub received_malformed: u64,
    /// Dropped by the kernel because nobody read them in time: the socket's queue was full.
    pub receive_overflow: u64,
    /// Errors of a receive call: what ICMP reported, no memory.
    pub receive_errors: u64,
    /// Handed to the kernel.
    pub sent: u64,
    /// Of these, one by one, because the kernel refused them together.
    pub sent_singly: u64,
    /// Of these, from an address that the host chose, because the kernel refused the one that the path had.
    pub sent_from_elsewhere: u64,
    /// Dropped: no route, or ICMP said so before.
    pub send_unreachable: u64,
    /// Dropped: longer than the interface's MTU.
    pub send_too_long: u64,
    /// Dropped: the queue stayed full.
    pub send_queue_full: u64,
    /// Dropped: no socket of that family or position.
    pub send_no_socket: u64,
    /// Dropped: a firewall or the kernel refused.
    pub send_refused: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) received: AtomicU64,
    pub(super) received_truncated: AtomicU64,
    pub(super) received_malformed: AtomicU64,
    pub(super) receive_errors: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) sent_from_elsewhere: AtomicU64,
    pub(super) sent_singly: AtomicU64,
    pub(super) send_unreachable: AtomicU64,
    pub(super) send_too_long: AtomicU64,
    pub(super) send_queue_full: AtomicU64,
    pub(super) send_no_socket: AtomicU64,
    pub(super) send_refused: AtomicU64,
}

impl Counters {
    /// Reads all counters; `receive_overflow` is the kernel's.
    pub(super) fn snapshot(&self, receive_overflow: u64) -> UdpCounts {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        UdpCounts {
            received: value(&self.received),
            received_truncated: value(&self.received_truncated),
            received_malformed: value(&self.received_malformed),
            receive_overflow,
            receive_errors: value(&self.receive_errors),
            sent: value(&self.sent),
            sent_singly: value(&self.sent_singly),
            sent_from_elsewhere: value(&self.sent_from_elsewhere),
            send_unreachable: value(&self.send_unreachable),
            send_too_long: value(&self.send_too_long),
            send_queue_full: value(&self.send_queue_full),
            send_no_socket: value(&self.send_no_socket),
            send_refused: value(&self.send_refused),
        }
    }
}

/// Adds `count` to a counter; nothing is ordered by it.
pub(super) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}
