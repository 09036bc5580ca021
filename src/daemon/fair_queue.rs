//! A bounded queue in which no sender takes all places.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// First in, first out; each sender has a share of the places. Who floods it waits for, and loses, its own items alone.
#[derive(Debug)]
pub struct FairQueue<Sender, Item> {
    capacity: usize,
    share: usize,
    items: VecDeque<(Sender, Item)>,
    /// How many items of each sender wait; who has none is not in it.
    waiting: HashMap<Sender, usize>,
}

impl<Sender: Copy + Eq + Hash, Item> FairQueue<Sender, Item> {
    /// Makes an empty queue of `capacity` places, of which each sender gets `share`.
    pub fn new(capacity: usize, share: usize) -> Self {
        Self { capacity, share, items: VecDeque::new(), waiting: HashMap::new() }
    }

    /// Adds an item unless the queue or the sender's share is full. Says whether it did.
    #[must_use]
    pub fn push(&mut self, sender: Sender, item: Item) -> bool {
        if self.items.len() >= self.capacity {
            return false;
        }
        let waiting = self.waiting.entry(sender).or_default();
        if *waiting >= self.share {
            return false;
        }
        *waiting += 1;
        self.items.push_back((sender, item));
        true
    }

    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<Item> {
        let (sender, item) = self.items.pop_front()?;
        if let Some(waiting) = self.waiting.get_mut(&sender) {
            *waiting -= 1;
            if *waiting == 0 {
                self.waiting.remove(&sender);
            }
        }
        Some(item)
    }

    /// Says whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_that_floods_fills_its_share_and_no_more() {
        let mut queue = FairQueue::new(10, 4);
        assert_eq!((0..100).filter(|item| queue.push("loud", *item)).count(), 4);
        assert!(queue.push("quiet", 1_000), "the flood left no place");
        assert_eq!(queue.pop(), Some(0));
        assert!(queue.push("loud", 4), "a place of its own came free");
        assert!(!queue.push("loud", 5));
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(rest, [1, 2, 3, 1_000, 4]);
        assert!(queue.is_empty() && queue.waiting.is_empty());
    }

    #[test]
    fn many_senders_together_fill_the_queue_and_no_more() {
        let mut queue = FairQueue::new(10, 4);
        assert_eq!((0..100).filter(|sender| queue.push(*sender, ())).count(), 10);
        assert_eq!(queue.waiting.len(), 10, "who was refused is remembered");
    }
}
