//! When an interface is asked and told: RFC 6762 §5.2, §6, §8.3.

use crate::io::clock::OsRng;
use crate::time::Instant;
use rand_core::Rng;
use std::ops::Range;
use std::time::Duration;

/// Between a question and the answer, in milliseconds, so that not all nodes speak at once.
const DELAY: Range<u64> = 20..120;

/// The pause after the first question; each is twice the one before, until an answer that was lost is no loss any more.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(15);

/// Nothing is told twice within this, whoever asks how often.
const ADVERT_INTERVAL: Duration = Duration::from_secs(1);

/// How often something new is told, because one datagram may be lost.
const ANNOUNCEMENTS: u8 = 2;

/// The questions and answers of one interface.
pub(super) struct Schedule {
    question_at: Instant,
    pause: Duration,
    advert_at: Option<Instant>,
    /// Announcements left.
    left: u8,
    told: Option<Instant>,
}

/// What is to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Due {
    pub(super) is_question: bool,
    pub(super) is_advert: bool,
}

impl Schedule {
    /// An interface that is new: it is asked and told.
    pub(super) fn new(now: Instant) -> Self {
        let mut schedule =
            Self { question_at: now + delay(), pause: FIRST_PAUSE, advert_at: None, left: 0, told: None };
        schedule.announce(now);
        schedule
    }

    /// There is something new to tell.
    pub(super) fn announce(&mut self, now: Instant) {
        self.left = ANNOUNCEMENTS;
        self.tell_at(now + delay());
    }

    /// Somebody asks.
    pub(super) fn asked(&mut self, now: Instant) {
        self.left = self.left.max(1);
        self.tell_at(now + delay());
    }

    fn tell_at(&mut self, at: Instant) {
        let at = self.told.map_or(at, |told| at.max(told + ADVERT_INTERVAL));
        self.advert_at = Some(self.advert_at.map_or(at, |due| due.min(at)));
    }

    /// When something is due.
    pub(super) fn next(&self) -> Instant {
        self.advert_at.map_or(self.question_at, |at| at.min(self.question_at))
    }

    /// Takes what is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Due {
        let is_question = now >= self.question_at;
        if is_question {
            self.question_at = now + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        let is_advert = self.advert_at.take_if(|at| now >= *at).is_some();
        if is_advert {
            self.told = Some(now);
            self.left = self.left.saturating_sub(1);
            if self.left > 0 {
                self.tell_at(now);
            }
        }
        Due { is_question, is_advert }
    }
}

fn delay() -> Duration {
    Duration::from_millis(DELAY.start + OsRng.next_u64() % (DELAY.end - DELAY.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times, in milliseconds, at which a schedule asks and tells, with a question heard at each of `asked`.
    fn run(until: u64, mut asked: impl FnMut(u64) -> bool) -> (Vec<u64>, Vec<u64>) {
        let mut schedule = Schedule::new(Instant::ZERO);
        let (mut questions, mut adverts) = (Vec::new(), Vec::new());
        for millis in 0..until {
            let now = Instant::ZERO + Duration::from_millis(millis);
            if asked(millis) {
                schedule.asked(now);
            }
            let due = schedule.take_due(now);
            questions.extend(due.is_question.then_some(millis));
            adverts.extend(due.is_advert.then_some(millis));
        }
        (questions, adverts)
    }

    #[test]
    fn a_new_interface_is_told_twice_and_asked_ever_more_seldom() {
        let (questions, adverts) = run(600_000, |_| false);
        assert_eq!(adverts.len(), 2);
        assert!(adverts[0] < 120 && adverts[1] - adverts[0] >= 1000, "{adverts:?}");
        let pauses: Vec<u64> = questions.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[..5], [1000, 2000, 4000, 8000, 16_000]);
        assert!(questions.len() < 12, "{questions:?}");
    }

    #[test]
    fn who_asks_is_answered_soon_but_a_flood_of_questions_no_more_than_once_a_second() {
        let (_, adverts) = run(20_000, |millis| millis == 10_000);
        assert_eq!(adverts.len(), 3);
        assert!((10_020..10_120).contains(&adverts[2]), "{adverts:?}");
        let (_, adverts) = run(20_000, |_| true);
        assert!(adverts.len() <= 20, "{} answers", adverts.len());
        assert!(adverts.windows(2).all(|pair| pair[1] - pair[0] >= 1000), "{adverts:?}");
    }
}
