//! Control records and the signed node records.
#![no_main]

use borsh::BorshDeserialize;
use libfuzzer_sys::fuzz_target;
use p2plus::wire::control::{ControlMessage, MAX_RECORD_ENDPOINTS, NodeRecord, SignedRecord};
use p2plus_fuzz::{NETWORK, signing_key, verifying_key};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = ControlMessage::decode(bytes) {
        assert_eq!(message.encode(), bytes);
    }
    let key = signing_key(1);
    if let Ok(record) = SignedRecord::try_from_slice(bytes) {
        assert!(record.verify(&verifying_key(1), &NETWORK).is_err());
    }
    if let Ok(mut record) = NodeRecord::try_from_slice(bytes) {
        let signed = SignedRecord::sign(record.clone(), &key, &NETWORK);
        record.endpoints.truncate(MAX_RECORD_ENDPOINTS);
        assert_eq!(signed.verify(&verifying_key(1), &NETWORK), Ok(&record));
        assert!(signed.verify(&verifying_key(2), &NETWORK).is_err());
    }
});
