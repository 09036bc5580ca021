//! Probes on their way: which id went where, and when.

use super::local::Path;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// Probes of one peer that may be unanswered at a time; the oldest goes first.
const MAX_IN_FLIGHT: usize = 64;

/// How long a pong is waited for: beyond any underlay's round trip.
const PROBE_LIFETIME: Duration = Duration::from_secs(5);

/// Names one probe; random, so that only who received it can answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ProbeId(pub u64);

/// The unanswered probes of one peer.
#[derive(Debug, Default)]
pub(super) struct Probes(BTreeMap<ProbeId, Sent>);

#[derive(Clone, Copy, Debug)]
struct Sent {
    path: Path,
    at: Instant,
}

impl Probes {
    /// Notes a probe that leaves now.
    pub(super) fn sent(&mut self, now: Instant, id: ProbeId, path: Path) {
        self.0.retain(|_, sent| now.saturating_since(sent.at) < PROBE_LIFETIME);
        if self.0.len() == MAX_IN_FLIGHT
            && let Some(oldest) = self.0.iter().min_by_key(|(_, sent)| sent.at).map(|(id, _)| *id)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(id, Sent { path, at: now });
    }

    /// Takes the probe that a pong answers: where it went, and its round trip.
    pub(super) fn answered(&mut self, now: Instant, id: ProbeId) -> Option<(Path, Duration)> {
        let sent = self.0.remove(&id)?;
        let rtt = now.saturating_since(sent.at);
        (rtt < PROBE_LIFETIME).then_some((sent.path, rtt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn a_probe_is_answered_once_and_in_time() {
        let mut probes = Probes::default();
        let path = Path::from(SocketAddr::from(([192, 0, 2, 1], 4647)));
        let start = Instant::ZERO;
        probes.sent(start, ProbeId(1), path);
        let rtt = Duration::from_millis(20);
        assert_eq!(probes.answered(start + rtt, ProbeId(1)), Some((path, rtt)));
        assert_eq!(probes.answered(start + rtt, ProbeId(1)), None);
        probes.sent(start, ProbeId(2), path);
        assert_eq!(probes.answered(start + PROBE_LIFETIME, ProbeId(2)), None);
    }

    #[test]
    fn unanswered_probes_do_not_pile_up() {
        let mut probes = Probes::default();
        for id in 0..1000 {
            probes.sent(Instant::from_micros(id), ProbeId(id), SocketAddr::from(([192, 0, 2, 1], 4647)).into());
        }
        assert_eq!(probes.0.len(), MAX_IN_FLIGHT);
        assert_eq!(probes.answered(Instant::from_micros(1000), ProbeId(0)), None);
        assert!(probes.answered(Instant::from_micros(1000), ProbeId(999)).is_some());
    }
}
