//! The consensus log after a crash or on a bad disk: raw, and with checksums that fit; cut anywhere it is a torn tail, never damage.
#![no_main]

use borsh::BorshDeserialize;
use libfuzzer_sys::fuzz_target;
use p2plus::ledger::consensus::wal::{CorruptLog, Log, Record};
use p2plus_fuzz::Script;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(log) = Log::decode(bytes) {
        assert!(log.whole_len <= bytes.len());
    }
    let mut script = Script::new(bytes);
    let cut = usize::from(script.u16());
    let mut framed = Vec::new();
    while !script.is_over() {
        framed.extend(frame(script.chunk()));
    }
    let whole = Log::decode(&framed);
    if let Err(error) = whole {
        return assert!(matches!(error, CorruptLog::Unknown(_) | CorruptLog::NoHeight));
    }
    let torn = Log::decode(&framed[..cut.min(framed.len())]).expect("a torn tail is no damage");
    assert!(torn.whole_len <= cut);
    assert_eq!(Log::decode(&framed[..torn.whole_len]), Ok(torn));
});

/// Frames what may be a record.
fn frame(record: &[u8]) -> Vec<u8> {
    let length = (record.len() as u32).to_le_bytes();
    let checks = [crc32c::crc32c(&length), crc32c::crc32c(record)].map(u32::to_le_bytes);
    let framed = [&length[..], &checks[0], &checks[1], record].concat();
    if let Ok(decoded) = Record::try_from_slice(record) {
        assert_eq!(decoded.frame(), framed);
    }
    framed
}
