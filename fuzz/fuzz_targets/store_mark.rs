//! The mark beside the store: raw, and with the hash that fits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::crypto::hash::domain_hash;
use p2plus::ledger::store::Mark;

fuzz_target!(|bytes: &[u8]| {
    let hash = domain_hash("p2plus 2026 head mark", &[bytes]);
    for bytes in [bytes, &[bytes, &hash.0].concat()] {
        if let Ok(mark) = Mark::decode(bytes) {
            assert_eq!(mark.encode(), bytes);
            assert!(!mark.is_behind(&mark));
        }
    }
});
