//! The watch over the path in use: whether the peer owes an answer, and what to do about it.

use crate::time::Instant;
use std::time::Duration;

/// Sent to without an answer for three round trips, and for this long at least, a path is asked with a probe, and so are the others: beyond
/// what TCP delays acknowledgements for on Linux, 40 to 200 ms.
const SILENCE_UNTIL_PROBE: Duration = Duration::from_millis(300);

/// The same where no round trip was measured.
const SILENCE_UNMEASURED: Duration = Duration::from_secs(1);

/// Sent to without an answer for this long, the peer is looked for everywhere by a new handshake.
const SILENCE_UNTIL_RECONNECT: Duration = Duration::from_secs(2);

/// What an answer may take beyond the usual, and a quarter of that, before its path counts as silent.
const ANSWER_MARGIN: Duration = Duration::from_millis(30);

/// How often the peer is looked for again, while it stays silent.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(6);

/// How often a path is asked then, and ways that owe an answer beside one that works.
const LATE_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How often the ways that would be taken next are asked while the one in use carries something of a user's: so that they are warm, and their
/// labels known.
pub(super) const BACKUP_INTERVAL: Duration = Duration::from_secs(15);

/// How long what comes is taken to come by another path after something did: that is told once in 100 ms, not of each packet.
const ELSEWHERE_FOR: Duration = Duration::from_millis(250);

/// What a look at the path in use comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Nothing to do.
    Healthy,
    /// The peer owes an answer: ask the path in use, and those that would be taken next.
    Ask,
    /// The path seems dead: look for the peer everywhere.
    Reconnect,
}

/// What one peer owes on the path in use.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Since when the peer owes an answer: a look saw a packet sent and nothing received after.
    owed_since: Option<Instant>,
    /// When the peer last got an answer: by itself that asks for none.
    answered_at: Option<Instant>,
    /// Until when what comes is taken to come by another path than the one in use: a session knows that it was heard, not by which path.
    elsewhere_at: Option<Instant>,
    /// When something last came that may have come by the path in use.
    heard_at: Instant,
    /// When the path in use was first asked since the peer owes an answer.
    asked_at: Option<Instant>,
    /// When ways were last asked because of a look.
    watched_at: Option<Instant>,
    /// When the peer was last looked for, since it fell silent.
    reconnected_at: Option<Instant>,
}

impl Watch {
    /// Since when the peer owes an answer.
    pub(super) fn owed_since(&self) -> Option<Instant> {
        self.owed_since
    }

    /// Forgets that something was owed: it came.
    pub(super) fn forgive(&mut self) {
        self.owed_since = None;
        self.asked_at = None;
        self.reconnected_at = None;
    }

    /// Takes the news that another path is in use.
    pub(super) fn moved(&mut self) {
        self.elsewhere_at = None;
        self.forgive();
    }

    /// Takes the news that something came by another path than the one in use. Where the peer answered before, more may come that way until
    /// the next news; who merely copies its packets is not taken for it.
    pub(super) fn heard_elsewhere(&mut self, now: Instant, is_proved: bool) {
        self.elsewhere_at = Some(if is_proved { now + ELSEWHERE_FOR } else { now });
    }

    /// Takes the news that something came by the path in use itself.
    pub(super) fn heard_here(&mut self, now: Instant) {
        self.heard_at = self.heard_at.max(now);
        self.forgive();
    }

    /// Takes the news that an answer leaves now.
    pub(super) fn answered(&mut self, now: Instant) {
        self.answered_at = Some(now);
    }

    /// Takes the news that the path in use is asked.
    pub(super) fn asked(&mut self, now: Instant) {
        if self.owed_since.is_some() {
            self.asked_at.get_or_insert(now);
        }
    }

    /// Takes the news that the path in use is to be asked now: the peer owes an answer, whatever it got before.
    pub(super) fn owe(&mut self, now: Instant) {
        self.owed_since.get_or_insert(now);
    }

    /// Says whether the path in use left a probe unanswered for longer than its answer usually takes. A slower way's answer comes later than
    /// that of a path that works, and must not be taken for a reason to leave it.
    pub(super) fn is_silent(&self, now: Instant, usual: Duration) -> bool {
        let is_unanswered = |at| now.saturating_since(at) > usual + usual / 4 + ANSWER_MARGIN;
        self.owed_since.is_some() && self.asked_at.is_some_and(is_unanswered)
    }

    /// Looks at the path in use, with the round trip measured on it and the times of the last packet sent to and received from the peer.
    pub(super) fn check(
        &mut self,
        now: Instant,
        rtt: Option<Duration>,
        sent: Instant,
        received: Option<Instant>,
    ) -> Verdict {
        let received = received.unwrap_or(Instant::ZERO);
        if self.elsewhere_at.is_none_or(|at| received > at) {
            self.heard_at = self.heard_at.max(received);
        }
        let received = self.heard_at;
        if received >= sent {
            self.forgive();
        }
        // An answer, by whatever path it went, asks for none; but it settles nothing that is owed for something else.
        if received >= sent || self.answered_at >= Some(sent) && self.owed_since.is_none() {
            return Verdict::Healthy;
        }
        if self.owed_since.is_some_and(|since| since < received) {
            self.forgive();
        }
        let owed_since = *self.owed_since.get_or_insert(now);
        let silence = now.saturating_since(owed_since);
        let patience = rtt.map_or(SILENCE_UNMEASURED, |rtt| SILENCE_UNTIL_PROBE.max(3 * rtt));
        if silence < patience {
            return Verdict::Healthy;
        }
        if silence < SILENCE_UNTIL_RECONNECT.max(2 * patience) {
            self.watched_at = Some(now);
            return Verdict::Ask;
        }
        if self.reconnected_at.is_none_or(|at| now.saturating_since(at) >= RECONNECT_INTERVAL) {
            self.reconnected_at = Some(now);
            return Verdict::Reconnect;
        }
        if self.watched_at.is_some_and(|at| now.saturating_since(at) < LATE_PROBE_INTERVAL) {
            return Verdict::Healthy;
        }
        self.watched_at = Some(now);
        Verdict::Ask
    }

    /// Says, now and then, that the next best ways are to be asked, while the one in use owes nothing; sooner where one of them owes an answer.
    pub(super) fn take_warm_turn(&mut self, now: Instant, is_doubtful: bool) -> bool {
        let interval = if is_doubtful { LATE_PROBE_INTERVAL } else { BACKUP_INTERVAL };
        let is_warm = self.watched_at.is_some_and(|at| now.saturating_since(at) < interval);
        let is_due = !is_warm && self.owed_since.is_none();
        if is_due {
            self.watched_at = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn millis(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn silence_is_asked_about_soon_and_the_peer_then_looked_for_less_and_less() {
        let (mut watch, rtt) = (Watch::default(), Some(Duration::from_millis(20)));
        let (sent, received) = (seconds(111), Some(seconds(10)));
        let looks = (111_000..131_000).step_by(100);
        let seen: Vec<_> = looks.map(|at| (at, watch.check(millis(at), rtt, sent, received))).collect();
        let times = |verdict| seen.iter().filter(move |look| look.1 == verdict).map(|look| look.0).collect::<Vec<_>>();
        let asked = times(Verdict::Ask);
        let early = asked.iter().filter(|at| **at < 113_000).count();
        assert_eq!((asked[0], early), (111_300, 17), "{asked:?}");
        assert_eq!(times(Verdict::Reconnect), [113_000, 119_000, 125_000]);
        assert!(asked.len() - early <= 18, "one probe a second later: {asked:?}");
        assert_eq!(watch.check(seconds(140), rtt, seconds(120), Some(seconds(121))), Verdict::Healthy, "idle");
    }

    #[test]
    fn an_answer_asks_for_none() {
        let mut watch = Watch::default();
        let just_after = seconds(10) + Duration::from_micros(50);
        watch.answered(just_after);
        for second in 11..60 {
            assert_eq!(watch.check(seconds(second), None, just_after, Some(seconds(10))), Verdict::Healthy);
        }
        assert_eq!(watch.check(seconds(60), None, seconds(60), Some(seconds(10))), Verdict::Healthy);
        assert_eq!(watch.check(seconds(61), None, seconds(60), Some(seconds(10))), Verdict::Ask, "data after it does");
    }

    #[test]
    fn a_peer_that_is_heard_on_another_path_again_and_again_owes_an_answer_on_this_one() {
        let mut watch = Watch::default();
        let mut asked = None;
        for at in (10_000..11_000).step_by(20) {
            if at % 100 == 0 {
                watch.heard_elsewhere(millis(at), true);
            }
            let verdict = watch.check(millis(at), Some(Duration::from_millis(20)), millis(at), Some(millis(at)));
            asked = asked.or((verdict == Verdict::Ask).then_some(at));
        }
        assert_eq!(asked, Some(10_300));
        let mut watch = Watch::default();
        watch.heard_elsewhere(millis(10_000), false);
        let verdict = watch.check(millis(10_020), None, millis(10_010), Some(millis(10_020)));
        assert!(verdict != Verdict::Ask && watch.owed_since().is_none(), "who copies packets is not the peer");
    }

    #[test]
    fn a_path_that_answers_owes_nothing_though_others_that_were_asked_answer_as_well() {
        let mut watch = Watch::default();
        for at in (10_000..20_000).step_by(100) {
            watch.heard_here(millis(at));
            watch.heard_elsewhere(millis(at), true);
            let verdict = watch.check(millis(at + 50), None, millis(at - 50), Some(millis(at)));
            assert_eq!((verdict, watch.owed_since()), (Verdict::Healthy, None));
        }
    }

    #[test]
    fn a_busy_path_that_answers_owes_nothing() {
        let mut watch = Watch::default();
        for second in 2..60 {
            let received = Some(seconds(second) - Duration::from_millis(2));
            assert_eq!(watch.check(seconds(second), None, seconds(second), received), Verdict::Healthy);
        }
    }
}
