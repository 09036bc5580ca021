//! The links that there are, and what waits to be sent by each.
//!
//! A link's queue is bounded in bytes, and when it is full the oldest goes: TCP below has no bound on how long it keeps what it was given,
//! and TCP inside must hear of the narrow place before what it sent is worthless. Whoever sends never waits.

use crate::path::{LocalEnd, Path};
use crate::wire::drops::{DropReason, Drops};
use crate::wire::length_framing::{LENGTH_LEN, framed_len, length_of};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::Notify;

/// Bytes that wait for one link at most: 200 ms of 10 Mbit/s.
pub(super) const QUEUE_BYTES: usize = 256 << 10;

/// Who began a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// This node.
    Opened,
    /// The other end.
    Accepted,
}

/// One link.
pub(super) struct Link {
    pub(super) remote: SocketAddr,
    pub(super) origin: Origin,
    /// TLS's own handshake is done.
    pub(super) is_through: AtomicBool,
    /// A peer with a session uses it; else it ends soon.
    pub(super) is_confirmed: AtomicBool,
    /// Something of a session came by it, or one uses it: no stranger's.
    is_known: AtomicBool,
    known: Notify,
    waiting: Mutex<Waiting>,
    filled: Notify,
    ended: Notify,
    is_ended: AtomicBool,
}

/// Whole datagrams behind their lengths.
#[derive(Default)]
struct Waiting(VecDeque<u8>);

/// What became of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Queued {
    /// It waits, and so many before it were dropped for it.
    Dropping(usize),
    /// It has no length that a datagram has.
    TooLong,
}

impl Link {
    pub(super) fn new(remote: SocketAddr, origin: Origin) -> Self {
        Self {
            remote,
            origin,
            is_through: AtomicBool::new(false),
            is_confirmed: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
            known: Notify::new(),
            waiting: Mutex::default(),
            filled: Notify::new(),
            ended: Notify::new(),
            is_ended: AtomicBool::new(false),
        }
    }

    /// Takes whether a peer with a session uses it.
    pub(super) fn confirm(&self, is_used: bool) {
        self.is_confirmed.store(is_used, Ordering::Relaxed);
        if is_used {
            self.vouch();
        }
    }

    /// Something of a session came by it.
    pub(super) fn vouch(&self) {
        if !self.is_known.swap(true, Ordering::AcqRel) {
            self.known.notify_one();
        }
    }

    /// Says whether the other end began it and nothing of a session came by it.
    pub(super) fn is_strangers(&self) -> bool {
        self.origin == Origin::Accepted && !self.is_known.load(Ordering::Acquire)
    }

    /// Waits until something of a session comes by it.
    pub(super) async fn known(&self) {
        while !self.is_known.load(Ordering::Acquire) {
            self.known.notified().await;
        }
    }

    /// The path that it is.
    pub(super) fn path(&self) -> Path {
        stream_path(self.remote)
    }

    /// Puts a datagram in the queue.
    pub(super) fn queue(&self, datagram: &[u8]) -> Queued {
        let Some(length) = length_of(datagram.len()) else { return Queued::TooLong };
        let mut waiting = self.lock();
        let dropped = waiting.make_room(LENGTH_LEN + datagram.len());
        waiting.0.extend(length);
        waiting.0.extend(datagram);
        drop(waiting);
        self.filled.notify_one();
        Queued::Dropping(dropped)
    }

    /// Waits for something to send and takes whole datagrams, one at least and `limit` bytes at most if it is not longer itself.
    pub(super) async fn take(&self, limit: usize, out: &mut Vec<u8>) {
        out.clear();
        loop {
            self.lock().take(limit, out);
            if !out.is_empty() {
                return;
            }
            self.filled.notified().await;
        }
    }

    /// Ends the link: its task closes the connection.
    pub(super) fn end(&self) {
        self.is_ended.store(true, Ordering::Release);
        self.ended.notify_waiters();
        self.ended.notify_one();
    }

    /// Waits until it is to end.
    pub(super) async fn ended(&self) {
        while !self.is_ended.load(Ordering::Acquire) {
            self.ended.notified().await;
        }
    }

    /// A thread that panicked while it held the lock aborts the process.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn first_len(&self) -> Option<usize> {
        let length: Vec<u8> = self.0.iter().take(LENGTH_LEN).copied().collect();
        framed_len(&length).ok().flatten().map(|len| LENGTH_LEN + len)
    }

    fn make_room(&mut self, len: usize) -> usize {
        let mut dropped = 0;
        while self.0.len() + len > QUEUE_BYTES
            && let Some(first) = self.first_len()
        {
            self.0.drain(..first);
            dropped += 1;
        }
        dropped
    }

    fn take(&mut self, limit: usize, out: &mut Vec<u8>) {
        while let Some(first) = self.first_len()
            && (out.is_empty() || out.len() + first <= limit)
        {
            out.extend(self.0.drain(..first));
        }
    }
}

/// The path of a link to this remote end.
pub(super) fn stream_path(remote: SocketAddr) -> Path {
    Path { local: Some(LocalEnd::STREAM), ..remote.into() }
}

/// All links.
pub(super) struct Links {
    by_remote: RwLock<HashMap<SocketAddr, Arc<Link>>>,
    pub(super) drops: Arc<Drops>,
}

impl Links {
    pub(super) fn new(drops: Arc<Drops>) -> Self {
        Self { by_remote: RwLock::default(), drops }
    }

    /// Adds a link, unless there is one to the same remote end.
    pub(super) fn add(&self, link: &Arc<Link>) -> bool {
        let mut by_remote = self.write();
        let is_new = !by_remote.contains_key(&link.remote);
        if is_new {
            by_remote.insert(link.remote, Arc::clone(link));
        }
        is_new
    }

    /// Removes a link, once its end is told: what is told of a later one to the same remote end is told later.
    pub(super) fn remove(&self, remote: &SocketAddr) {
        self.write().remove(remote);
    }

    pub(super) fn get(&self, remote: &SocketAddr) -> Option<Arc<Link>> {
        self.read().get(remote).map(Arc::clone)
    }

    /// Takes which remote ends peers with sessions use. Returns those that no link leads to.
    pub(super) fn confirm(&self, used: &BTreeSet<SocketAddr>) -> Vec<Path> {
        let links = self.read();
        links.values().for_each(|link| link.confirm(used.contains(&link.remote)));
        used.iter().filter(|remote| !links.contains_key(remote)).map(|remote| stream_path(*remote)).collect()
    }

    /// Queues a datagram for a link. Returns what it is counted as, unless it waits.
    pub(super) fn send(&self, remote: &SocketAddr, datagram: &[u8]) -> Result<(), DropReason> {
        let links = self.read();
        let link = links.get(remote).ok_or(DropReason::SendFailed)?;
        match link.queue(datagram) {
            Queued::Dropping(dropped) => {
                self.drops.add(DropReason::StreamQueueFull, dropped as u64);
                Ok(())
            }
            Queued::TooLong => Err(DropReason::TooLarge),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<SocketAddr, Arc<Link>>> {
        self.by_remote.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<SocketAddr, Arc<Link>>> {
        self.by_remote.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(link: &Link, limit: usize) -> Vec<u8> {
        let mut out = Vec::new();
        link.lock().take(limit, &mut out);
        out
    }

    #[test]
    fn a_queue_is_bounded_and_drops_the_oldest() {
        let link = Link::new(([192, 0, 2, 1], 443).into(), Origin::Opened);
        let datagram = |number: usize| [&number.to_le_bytes()[..], &[7; 1400]].concat();
        let framed_len = datagram(0).len() + LENGTH_LEN;
        let fits = QUEUE_BYTES / framed_len;
        for number in 0..fits {
            assert_eq!(link.queue(&datagram(number)), Queued::Dropping(0));
        }
        for number in fits..fits + 10 {
            assert_eq!(link.queue(&datagram(number)), Queued::Dropping(1));
        }
        assert_eq!(link.queue(&[1; 60_000]), Queued::Dropping(42), "as many as it takes the room of");
        assert_eq!(take(&link, 1)[LENGTH_LEN..], datagram(52));
        assert!(link.lock().0.len() <= QUEUE_BYTES);
        assert_eq!(link.queue(&[]), Queued::TooLong);
        assert_eq!(link.queue(&[0; 70_000]), Queued::TooLong);
    }

    #[test]
    fn what_is_used_without_a_link_is_told() {
        let links = Links::new(Arc::default());
        let at = |last: u8| SocketAddr::from(([192, 0, 2, last], 443));
        let link = Arc::new(Link::new(at(1), Origin::Accepted));
        assert!(links.add(&link) && link.is_strangers());
        assert_eq!(links.confirm(&BTreeSet::from([at(1), at(2)])), [stream_path(at(2))]);
        assert!(link.is_confirmed.load(Ordering::Relaxed) && !link.is_strangers());
        assert_eq!(links.confirm(&BTreeSet::new()), []);
        assert!(!link.is_confirmed.load(Ordering::Relaxed) && !link.is_strangers(), "it was somebody's");
    }

    #[test]
    fn whole_datagrams_are_taken_in_their_order() {
        let link = Link::new(([192, 0, 2, 1], 443).into(), Origin::Opened);
        for len in [10, 20, 3000, 5] {
            link.queue(&vec![len as u8; len]);
        }
        let taken: Vec<_> = std::iter::from_fn(|| Some(take(&link, 34).len()).filter(|len| *len > 0)).collect();
        assert_eq!(taken, [34, 3002, 7]);
    }
}
