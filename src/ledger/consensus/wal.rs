//! The log that keeps a validator from contradicting itself after a crash.
//!
//! ```text
//!   frame   = length u32 LE | crc32c(length) | crc32c(record) | record (borsh)
//!   log     = frame(Opened h) frame … frame            one height; replaced when the next one opens
//! ```
//! A frame that ends early or fails its check at the very end is what a crash leaves behind: it is dropped, and nothing that it would have
//! justified has been sent. The same anywhere before means that the disk lies: refused. The length has its own check, or one flipped
//! bit in it would make all that follows look like a torn tail.

use super::certificate::{BlockId, Height, Round};
use super::message::{PolkaCertificate, SignedProposal, SignedVote};
use super::{MAX_BLOCK_LEN, Verdict};
use borsh::{BorshDeserialize, BorshSerialize};

/// The longest record: a block with what was found about it.
pub const MAX_RECORD_LEN: usize = MAX_BLOCK_LEN + 1024;
/// The longest log. A height that fills it has failed thousands of rounds; voting stops ([`super::Halt::LogFull`]).
pub const MAX_LOG_LEN: usize = 64 * 1024 * 1024;

const HEADER_LEN: usize = 12;

/// The steps that can end a round without a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum TimedStep {
    /// No proposal came (paper L57).
    Propose,
    /// The prevotes do not agree (L61).
    Prevote,
    /// The precommits do not agree (L65).
    Precommit,
}

/// One thing that moved the state machine.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// A height opened.
    Opened {
        /// The height.
        height: Height,
        /// The highest one at which this validator may have signed.
        max_height_signed: Height,
    },
    /// A vote, of anybody.
    Vote(SignedVote),
    /// A proposal, of anybody.
    Proposal(SignedProposal),
    /// What executing a block gave.
    Verdict {
        /// The round in which it was proposed.
        round: Round,
        /// [`SignedProposal::pol_round`].
        pol_round: Option<Round>,
        /// Who proposed it.
        proposer: u16,
        /// The block.
        block: BlockId,
        /// Whether it may be voted for.
        valid: bool,
        /// Its bytes, the first time.
        bytes: Option<Vec<u8>>,
    },
    /// Prevotes of two thirds, received as one.
    Polka(PolkaCertificate),
    /// A timeout.
    Timeout(TimedStep, Round),
}

impl Record {
    /// Writes the record with its frame.
    pub fn frame(&self) -> Vec<u8> {
        let record = borsh::to_vec(self).expect("writing to memory does not fail");
        let length = u32::try_from(record.len()).expect("a record is a block and some numbers").to_le_bytes();
        let checks = [crc32c::crc32c(&length).to_le_bytes(), crc32c::crc32c(&record).to_le_bytes()].concat();
        [length.as_slice(), &checks, &record].concat()
    }
}

/// A log, read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Log {
    /// The height that was open; 0 in an empty log.
    pub height: Height,
    /// The highest height at which this validator may have signed.
    pub max_height_signed: Height,
    /// What happened at `height`, in order.
    pub records: Vec<Record>,
    /// How many bytes of the file are whole frames; the rest is a torn tail, to be cut off before anything is appended.
    pub whole_len: usize,
}

/// A log that cannot be trusted. The validator must not vote by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CorruptLog {
    /// Longer than [`MAX_LOG_LEN`].
    #[error("the consensus log is longer than {MAX_LOG_LEN} bytes")]
    TooLong,
    /// A check fails before the end.
    #[error("the consensus log is damaged at byte {0}")]
    Damaged(usize),
    /// A frame holds no record.
    #[error("the consensus log holds an unknown record at byte {0}")]
    Unknown(usize),
    /// A record stands before the first [`Record::Opened`].
    #[error("the consensus log does not begin with a height")]
    NoHeight,
}

impl Log {
    /// Reads a log; what comes after the last [`Record::Opened`] counts.
    ///
    /// # Errors
    /// [`CorruptLog`], never for a torn tail.
    pub fn decode(bytes: &[u8]) -> Result<Self, CorruptLog> {
        if bytes.len() > MAX_LOG_LEN {
            return Err(CorruptLog::TooLong);
        }
        let mut log = Self::default();
        let mut opened = false;
        while let Some((record, next)) = next_record(bytes, log.whole_len)? {
            match record {
                Record::Opened { height, max_height_signed } => {
                    opened = true;
                    log.height = height;
                    log.max_height_signed = log.max_height_signed.max(max_height_signed);
                    log.records.clear();
                }
                _ if !opened => return Err(CorruptLog::NoHeight),
                record => log.records.push(record),
            }
            log.whole_len = next;
        }
        Ok(log)
    }
}

/// Reads the frame at `start`; `None` at the end, or where the rest is a torn tail.
fn next_record(bytes: &[u8], start: usize) -> Result<Option<(Record, usize)>, CorruptLog> {
    let rest = &bytes[start..];
    let Some((header, rest)) = rest.split_at_checked(HEADER_LEN) else { return Ok(None) };
    let field = |place: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| header[place + byte]));
    let (length, length_check, record_check) = (field(0) as usize, field(4), field(8));
    if crc32c::crc32c(&header[..4]) != length_check || length > MAX_RECORD_LEN {
        // A file system may have lengthened the file before the crash and written nothing, or half a header, there.
        let torn = rest.iter().all(|byte| *byte == 0);
        return if torn { Ok(None) } else { Err(CorruptLog::Damaged(start)) };
    }
    let Some((record, after)) = rest.split_at_checked(length) else { return Ok(None) };
    if crc32c::crc32c(record) != record_check {
        let torn = after.iter().all(|byte| *byte == 0);
        return if torn { Ok(None) } else { Err(CorruptLog::Damaged(start)) };
    }
    let record = borsh::from_slice(record).map_err(|_| CorruptLog::Unknown(start))?;
    Ok(Some((record, start + HEADER_LEN + length)))
}

/// Where the frames are kept: a file, or memory in the simulator. The shell carries out [`super::Output::Persist`] on it.
pub trait LogStore {
    /// What can go wrong. After an error the validator must not send anything more.
    type Error;

    /// Reads everything, and cuts off what [`Log::whole_len`] says is torn.
    ///
    /// # Errors
    /// When it cannot be read.
    fn load(&mut self) -> Result<Vec<u8>, Self::Error>;

    /// Adds a frame at the end; it need not be durable yet.
    ///
    /// # Errors
    /// When it cannot be written.
    fn append(&mut self, frame: &[u8]) -> Result<(), Self::Error>;

    /// Replaces everything by one frame, atomically: after a crash either the old or the new log is there.
    ///
    /// # Errors
    /// When it cannot be written.
    fn reset(&mut self, frame: &[u8]) -> Result<(), Self::Error>;

    /// Makes everything durable: fsync.
    ///
    /// # Errors
    /// When it cannot be written.
    fn sync(&mut self) -> Result<(), Self::Error>;
}

impl From<bool> for Verdict {
    fn from(valid: bool) -> Self {
        if valid { Self::Valid } else { Self::Invalid }
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::VoteKind;
    use super::*;
    use crate::crypto::hash::Digest;
    use crate::crypto::identity::Signature;

    fn opened(height: u64) -> Record {
        Record::Opened { height: Height(height), max_height_signed: Height(height - 1) }
    }

    fn vote(round: u32) -> Record {
        Record::Vote(SignedVote {
            height: Height(7),
            round: Round(round),
            kind: VoteKind::Precommit,
            block: None,
            validator: 2,
            signature: Signature([5; 64]),
        })
    }

    fn block() -> Record {
        let block = BlockId(Digest([1; 32]));
        let bytes = Some(vec![7; 300]);
        Record::Verdict { round: Round(0), pol_round: None, proposer: 1, block, valid: true, bytes }
    }

    fn encode(records: &[Record]) -> Vec<u8> {
        records.iter().flat_map(Record::frame).collect()
    }

    fn sample() -> [Record; 5] {
        [opened(7), block(), vote(0), Record::Timeout(TimedStep::Propose, Round(0)), vote(1)]
    }

    #[test]
    fn the_frame_of_a_timeout_is_these_bytes() {
        let frame = Record::Timeout(TimedStep::Prevote, Round(2)).frame();
        assert_eq!(hex::encode(frame), "06000000b559228cc96c998d050102000000");
    }

    #[test]
    fn a_log_gives_back_what_was_appended_at_its_last_height() {
        let older = encode(&[opened(6), vote(3)]);
        let log = Log::decode(&[older, encode(&sample())].concat()).unwrap();
        assert_eq!((log.height, log.max_height_signed), (Height(7), Height(6)));
        assert_eq!(log.records, sample()[1..]);
        assert_eq!(Log::decode(&[]), Ok(Log::default()));
    }

    #[test]
    fn a_log_torn_anywhere_keeps_its_whole_records() {
        let bytes = encode(&sample());
        let mut ends = vec![0];
        sample().iter().for_each(|record| ends.push(ends.last().unwrap() + record.frame().len()));
        for len in 0..bytes.len() {
            let log = Log::decode(&bytes[..len]).unwrap();
            let whole = ends.iter().rfind(|end| **end <= len).unwrap();
            assert_eq!(log.whole_len, *whole);
            // The same, when the file was lengthened but not written; a record that ends in zeros may be whole again.
            let blank = Log::decode(&[&bytes[..len], &[0; 64]].concat()).unwrap().records;
            assert!(blank.starts_with(&log.records) && sample()[1..].starts_with(&blank), "torn at {len}");
        }
    }

    #[test]
    fn a_bit_flipped_before_the_last_record_is_refused() {
        let bytes = encode(&sample());
        let last = bytes.len() - vote(1).frame().len();
        for place in 0..last * 8 {
            let mut flipped = bytes.clone();
            flipped[place / 8] ^= 1 << (place % 8);
            assert!(matches!(Log::decode(&flipped), Err(CorruptLog::Damaged(_))), "bit {place}");
        }
    }

    #[test]
    fn a_log_without_a_height_and_an_unknown_record_are_refused() {
        assert_eq!(Log::decode(&vote(0).frame()), Err(CorruptLog::NoHeight));
        let mut unknown = opened(7).frame();
        let record = [99_u8];
        let length = 1_u32.to_le_bytes();
        let checks = [crc32c::crc32c(&length).to_le_bytes(), crc32c::crc32c(&record).to_le_bytes()].concat();
        let start = unknown.len();
        unknown.extend([length.as_slice(), &checks, &record].concat());
        assert_eq!(Log::decode(&unknown), Err(CorruptLog::Unknown(start)));
    }
}
