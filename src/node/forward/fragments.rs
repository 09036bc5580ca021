//! Packets and frames that were longer than a datagram, until all their parts are here.
//!
//! The parts leave together, so they come together: what is not whole after a moment has lost one. Each receiving thread has its own table.

use crate::router::PeerIndex;
use crate::time::Instant;
use crate::wire::datagram::{Lane, SessionIndex};
use crate::wire::ecn::Ecn;
use crate::wire::transport_record::{Fragment, Layer, MAX_FRAME_LEN};
use std::collections::VecDeque;
use std::time::Duration;

/// Frames that wait for their other parts at most. When full, the oldest goes.
const MAX_WAITING: usize = 64;
/// Of these, frames of one peer. When it has as many, its oldest goes.
const MAX_OF_ONE: usize = 16;
/// Parts of one frame at most: those of the longest on the narrowest path.
const MAX_PARTS: usize = 12;
/// How long a frame waits: far more than the parts of one may be apart.
const PATIENCE: Duration = Duration::from_millis(250);

/// Which frame.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name {
    origin: (SessionIndex, Lane),
    layer: Layer,
    number: u16,
}

struct Partial {
    peer: PeerIndex,
    name: Name,
    since: Instant,
    ecn: Ecn,
    bytes: Vec<u8>,
    /// Where the parts lie that are here, none over another.
    parts: Vec<(usize, usize)>,
    /// Its length, once its end is here.
    len: Option<usize>,
}

/// The frames that wait, the oldest first.
#[derive(Default)]
pub(super) struct Fragments(VecDeque<Partial>);

impl Fragments {
    /// Takes a part. Returns the frame when it is whole, with the mark that one of its parts came with.
    ///
    /// # Errors
    /// How many frames were given up: that of the part when it does not fit the others, another one for lack of room.
    pub(super) fn take(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        origin: (SessionIndex, Lane),
        ecn: Ecn,
        fragment: &Fragment<'_>,
    ) -> Result<Option<(Ecn, Vec<u8>)>, usize> {
        let name = Name { origin, layer: fragment.layer, number: fragment.number };
        let is_it = |partial: &Partial| partial.peer == peer && partial.name == name;
        let Some(at) = self.0.iter().position(is_it) else {
            let lost = self.make_room(peer);
            self.0.push_back(Partial::new(now, (peer, name), ecn, fragment));
            return if lost == 0 { Ok(None) } else { Err(lost) };
        };
        let partial = &mut self.0[at];
        if !partial.add(ecn, fragment) {
            self.0.remove(at);
            return Err(1);
        }
        if !partial.is_whole() {
            return Ok(None);
        }
        Ok(self.0.remove(at).map(|whole| (whole.ecn, whole.bytes)))
    }

    /// Gives up the frames that waited for too long; returns how many.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let is_late = |partial: &Partial| now.saturating_since(partial.since) >= PATIENCE;
        let late = self.0.iter().take_while(|partial| is_late(partial)).count();
        self.0.drain(..late);
        late
    }

    /// Gives up the oldest of a peer that has its share, or of the one that has most; returns how many.
    fn make_room(&mut self, peer: PeerIndex) -> usize {
        let count = |peer: PeerIndex| self.0.iter().filter(|partial| partial.peer == peer).count();
        let loser = if count(peer) >= MAX_OF_ONE {
            Some(peer)
        } else {
            let is_full = self.0.len() >= MAX_WAITING;
            self.0.iter().map(|partial| partial.peer).max_by_key(|peer| count(*peer)).filter(|_| is_full)
        };
        let oldest = loser.and_then(|peer| self.0.iter().position(|partial| partial.peer == peer));
        oldest.and_then(|at| self.0.remove(at)).iter().count()
    }
}

impl Partial {
    fn new(now: Instant, (peer, name): (PeerIndex, Name), ecn: Ecn, fragment: &Fragment<'_>) -> Self {
        let mut partial = Self { peer, name, since: now, ecn, bytes: Vec::new(), parts: Vec::new(), len: None };
        let is_first = partial.add(ecn, fragment);
        debug_assert!(is_first, "nothing is there that it could lie over");
        partial
    }

    /// Puts a part where it belongs; returns whether it fits those that are there.
    fn add(&mut self, ecn: Ecn, fragment: &Fragment<'_>) -> bool {
        let (start, end) = (usize::from(fragment.offset), usize::from(fragment.offset) + fragment.bytes.len());
        let is_over = self.parts.iter().any(|(from, to)| start < *to && *from < end);
        let contradicts = match (self.len, fragment.is_last) {
            (Some(_), true) => true,
            (Some(len), false) => end > len,
            (None, true) => self.bytes.len() > end,
            (None, false) => false,
        };
        if is_over || contradicts || end > MAX_FRAME_LEN || self.parts.len() == MAX_PARTS {
            return false;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(fragment.bytes);
        self.parts.push((start, end));
        if fragment.is_last {
            self.len = Some(end);
        }
        if ecn == Ecn::Congested {
            self.ecn = ecn;
        }
        true
    }

    fn is_whole(&self) -> bool {
        let here: usize = self.parts.iter().map(|(start, end)| end - start).sum();
        self.len == Some(here)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ORIGIN: (SessionIndex, Lane) = (SessionIndex(1), Lane(0));

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn part(number: u16, offset: u16, is_last: bool, bytes: &[u8]) -> Fragment<'_> {
        Fragment { layer: Layer::Ip, is_last, number, offset, bytes }
    }

    const ANN: PeerIndex = PeerIndex::at(0).unwrap();

    fn take(fragments: &mut Fragments, fragment: &Fragment<'_>) -> Result<Option<Vec<u8>>, usize> {
        let taken = fragments.take(at(0), ANN, ORIGIN, Ecn::NotCapable, fragment);
        taken.map(|whole| whole.map(|(_, bytes)| bytes))
    }

    proptest! {
        #[test]
        fn a_frame_is_whole_when_all_parts_are_here_in_whatever_order(
            len in 2usize..9_000, count in 2usize..=MAX_PARTS, turn in 0usize..12, ends_first: bool,
        ) {
            let frame: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
            let step = len.div_ceil(count);
            let mut parts: Vec<_> = frame.chunks(step).enumerate().map(|(number, bytes)| {
                let offset = number * step;
                part(7, offset as u16, offset + bytes.len() == len, bytes)
            }).collect();
            let turn = turn % parts.len();
            parts.rotate_left(turn);
            if ends_first {
                parts.reverse();
            }
            let mut fragments = Fragments::default();
            for part in &parts[..parts.len() - 1] {
                prop_assert_eq!(take(&mut fragments, part), Ok(None));
            }
            prop_assert_eq!(take(&mut fragments, parts.last().unwrap()), Ok(Some(frame)));
            prop_assert!(fragments.0.is_empty());
        }
    }

    #[test]
    fn parts_that_contradict_each_other_end_the_frame() {
        for (first, second) in [
            (part(1, 0, false, &[1; 100]), part(1, 99, true, &[2; 100])),
            (part(1, 100, true, &[1; 100]), part(1, 300, true, &[2; 100])),
            (part(1, 100, true, &[1; 100]), part(1, 200, false, &[2; 100])),
            (part(1, 500, false, &[1; 100]), part(1, 0, true, &[2; 100])),
            (part(1, 0, false, &[1; 100]), part(1, 0, false, &[1; 100])),
        ] {
            let mut fragments = Fragments::default();
            assert_eq!(take(&mut fragments, &first), Ok(None));
            assert_eq!(take(&mut fragments, &second), Err(1), "{first:?} {second:?}");
            assert!(fragments.0.is_empty());
        }
    }

    #[test]
    fn frames_do_not_mix_and_a_mark_on_one_part_is_on_the_whole() {
        let mut fragments = Fragments::default();
        take(&mut fragments, &part(1, 0, false, b"one")).unwrap();
        take(&mut fragments, &part(2, 0, false, b"two")).unwrap();
        let other = (SessionIndex(2), Lane(0));
        assert_eq!(fragments.take(at(0), ANN, other, Ecn::NotCapable, &part(1, 3, true, b"!")), Ok(None));
        assert_eq!(take(&mut fragments, &part(2, 3, true, b"!")), Ok(Some(b"two!".to_vec())));
        let whole = fragments.take(at(0), ANN, ORIGIN, Ecn::Congested, &part(1, 3, true, b"!"));
        assert_eq!(whole, Ok(Some((Ecn::Congested, b"one!".to_vec()))));
    }

    #[test]
    fn what_is_never_whole_goes_after_a_moment_or_when_its_sender_has_too_many() {
        let mut fragments = Fragments::default();
        let lost = (0..100).filter(|frame| take(&mut fragments, &part(*frame, 0, false, b"x")).is_err()).count();
        assert_eq!((fragments.0.len(), lost), (MAX_OF_ONE, 100 - MAX_OF_ONE));
        // More sessions are no more room.
        for session in 2..100 {
            let _ =
                fragments.take(at(0), ANN, (SessionIndex(session), Lane(0)), Ecn::NotCapable, &part(0, 0, false, b"x"));
        }
        assert_eq!(fragments.0.len(), MAX_OF_ONE);
        let other = PeerIndex::at(1).unwrap();
        assert_eq!(fragments.take(at(1), other, ORIGIN, Ecn::NotCapable, &part(7, 0, false, b"one")), Ok(None));
        for peer in 2..50 {
            let peer = PeerIndex::at(peer).unwrap();
            for number in 0..2 {
                let _ = fragments.take(at(1), peer, ORIGIN, Ecn::NotCapable, &part(number, 0, false, b"x"));
            }
        }
        let whole = fragments.take(at(1), other, ORIGIN, Ecn::NotCapable, &part(7, 3, true, b"!"));
        assert_eq!(whole, Ok(Some((Ecn::NotCapable, b"one!".to_vec()))), "who has most gives way");
        assert_eq!(fragments.0.len(), MAX_WAITING - 1);
        assert_eq!(fragments.expire(at(251)), MAX_WAITING - 1);
    }
}
