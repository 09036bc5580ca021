//! What a validator says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::ledger::consensus::Message;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Message::decode(bytes) {
        assert_eq!(message.encode(), bytes);
    }
});
