//! What was found on the LANs: a bounded memory, so that whoever repeats members' words there costs the node a bounded number of looks.

use crate::crypto::identity::NodeId;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Members that are remembered.
pub const MAX_FINDS: usize = 64;

/// How often something new of one member is told at most.
const NEWS_INTERVAL: Duration = Duration::from_secs(1);

/// How often the same is told again: the node may have forgotten it.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// The members found, each with what was told last.
#[derive(Default)]
pub struct Finds {
    held: BTreeMap<NodeId, Find>,
}

struct Find {
    endpoints: Vec<SocketAddr>,
    told: Instant,
}

impl Finds {
    /// Takes where a member says that it is. Returns whether the node is to be told. When all places are taken, who was told of longest ago
    /// gives way, unless that was just now.
    pub fn take(&mut self, now: Instant, id: NodeId, endpoints: &[SocketAddr]) -> bool {
        if let Some(known) = self.held.get(&id) {
            let interval = if known.endpoints == endpoints { REPEAT_INTERVAL } else { NEWS_INTERVAL };
            if now.saturating_since(known.told) < interval {
                return false;
            }
        } else if self.held.len() >= MAX_FINDS {
            let Some((oldest, told)) =
                self.held.iter().map(|(id, find)| (*id, find.told)).min_by_key(|(_, told)| *told)
            else {
                return false;
            };
            if now.saturating_since(told) < NEWS_INTERVAL {
                return false;
            }
            self.held.remove(&oldest);
        }
        self.held.insert(id, Find { endpoints: endpoints.to_vec(), told: now });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn endpoint(port: u16) -> Vec<SocketAddr> {
        vec![SocketAddr::from(([192, 168, 1, 2], port))]
    }

    fn id(number: u16) -> NodeId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_le_bytes());
        NodeId(id)
    }

    #[test]
    fn a_member_is_told_of_when_it_says_something_new_and_seldom_else() {
        let mut finds = Finds::default();
        assert!(finds.take(at(0), id(1), &endpoint(1)));
        assert!(!finds.take(at(30_000), id(1), &endpoint(1)));
        assert!(finds.take(at(60_000), id(1), &endpoint(1)));
        assert!(!finds.take(at(60_100), id(1), &endpoint(2)), "whoever changes its word fast is heard once a second");
        assert!(finds.take(at(61_000), id(1), &endpoint(2)));
    }

    #[test]
    fn a_liar_who_speaks_for_thousands_costs_a_bounded_memory_and_a_bounded_pace() {
        let mut finds = Finds::default();
        let mut told = 0;
        for step in 0..100_000_u32 {
            told += usize::from(finds.take(at(u64::from(step) / 10), id((step % 5000) as u16), &endpoint(step as u16)));
            assert!(finds.held.len() <= MAX_FINDS);
        }
        assert!(told <= MAX_FINDS * 11, "{told} in ten seconds");
        assert!(finds.take(at(20_000), id(60_000), &endpoint(1)), "an honest one finds a place afterwards");
    }
}
