//! News on its way to the neighbours: at once when there was none lately, together once a second when there is much.

use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long after news others wait for each other. Where a thousand members start within a minute, each record changes a few times: one by one
/// they would be a hundred messages a second to each neighbour.
const PAUSE: Duration = Duration::from_secs(1);

/// The records that are to be passed on, and from whom each came, where not from the DHT.
#[derive(Debug, Default)]
pub(super) struct News {
    waiting: BTreeMap<NodeId, Option<TransportKey>>,
    pause_until: Instant,
}

impl News {
    /// Takes records that are new here.
    pub(super) fn add(&mut self, from: Option<TransportKey>, ids: impl IntoIterator<Item = NodeId>) {
        self.waiting.extend(ids.into_iter().map(|id| (id, from)));
    }

    /// Returns what is to be passed on now.
    pub(super) fn take(&mut self, now: Instant) -> BTreeMap<NodeId, Option<TransportKey>> {
        if self.waiting.is_empty() || now < self.pause_until {
            return BTreeMap::new();
        }
        self.pause_until = now + PAUSE;
        std::mem::take(&mut self.waiting)
    }

    /// When [`Self::take`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.pause_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Option<TransportKey> = Some(TransportKey([1; 32]));
    const FROM_OTHER: Option<TransportKey> = Some(TransportKey([2; 32]));

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn the_first_news_goes_at_once_and_what_comes_within_a_second_goes_together() {
        let mut news = News::default();
        assert!(news.take(at(5000)).is_empty() && news.poll_timeout().is_none());
        let [first, second, third] = [1, 2, 3].map(|seed| NodeId([seed; 32]));
        news.add(FROM, [first]);
        assert!(news.poll_timeout().is_some_and(|due| due <= at(5000)));
        assert_eq!(news.take(at(5000)), BTreeMap::from([(first, FROM)]));
        assert!(news.poll_timeout().is_none());

        news.add(None, [second]);
        news.add(FROM, [third]);
        assert!(news.take(at(5999)).is_empty());
        assert_eq!(news.poll_timeout(), Some(at(6000)));
        // A record that is newer still comes from somebody else: that one has it.
        news.add(FROM_OTHER, [third]);
        assert_eq!(news.take(at(6000)), BTreeMap::from([(second, None), (third, FROM_OTHER)]));
        assert!(news.take(at(7000)).is_empty());
    }
}
