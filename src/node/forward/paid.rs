//! Whose initiations were paid for by a cookie.

use crate::session::{Knock, Source};
use crate::wire::handshake::InitiationTag;
use std::collections::{HashSet, VecDeque};

/// Paid initiations remembered at a time: forgetting one costs its other parts their place before the strangers', no more.
const MAX_PAID: usize = 1024;
/// How far a handshake datagram that passed the gate may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its sender proved, by a cookie, that it receives where it sends from.
    Proved,
    /// It claims to answer a handshake of this node.
    Answer,
    /// Its source may be forged.
    Stranger,
}

/// The latest initiations that came with a cookie: their other parts, which have none, come from the same place.
#[derive(Default)]
pub(super) struct Paid {
    known: HashSet<(Source, InitiationTag)>,
    order: VecDeque<(Source, InitiationTag)>,
}

impl Paid {
    fn insert(&mut self, from: Source, tag: InitiationTag) {
        if !self.known.insert((from, tag)) {
            return;
        }
        self.order.push_back((from, tag));
        if self.order.len() > MAX_PAID {
            let oldest = self.order.pop_front();
            oldest.map(|oldest| self.known.remove(&oldest));
        }
    }

    /// Judges a datagram that passed the gate.
    pub(super) fn trust(&mut self, from: Source, knock: Knock) -> Trust {
        match knock {
            Knock::Opening { tag, is_paid: true } => {
                self.insert(from, tag);
                Trust::Proved
            }
            Knock::Part(tag) if self.known.contains(&(from, tag)) => Trust::Proved,
            Knock::Opening { is_paid: false, .. } | Knock::Part(_) => Trust::Stranger,
            Knock::Answer => Trust::Answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn the_parts_of_a_paid_initiation_are_trusted_from_its_source_alone_and_not_for_ever() {
        let mut paid = Paid::default();
        let at = |port: u16| Source::Endpoint(SocketAddr::from(([192, 0, 2, 1], port)));
        let tag = |number: u64| InitiationTag(number.to_le_bytes());
        assert_eq!(paid.trust(at(1), Knock::Part(tag(0))), Trust::Stranger);
        assert_eq!(paid.trust(at(1), Knock::Opening { tag: tag(0), is_paid: false }), Trust::Stranger);
        assert_eq!(paid.trust(at(1), Knock::Part(tag(0))), Trust::Stranger);
        assert_eq!(paid.trust(at(1), Knock::Opening { tag: tag(0), is_paid: true }), Trust::Proved);
        assert_eq!(paid.trust(at(1), Knock::Part(tag(0))), Trust::Proved);
        assert_eq!(paid.trust(at(2), Knock::Part(tag(0))), Trust::Stranger);
        for number in 1..=MAX_PAID as u64 {
            assert_eq!(paid.trust(at(1), Knock::Opening { tag: tag(number), is_paid: true }), Trust::Proved);
        }
        assert_eq!(paid.trust(at(1), Knock::Part(tag(0))), Trust::Stranger);
        assert!(paid.known.len() == MAX_PAID && paid.order.len() == MAX_PAID);
    }
}
