//! What the DHT gives: a value as it is, what was sealed in one, and one that a member sealed and somebody damaged.
#![no_main]

use borsh::BorshDeserialize;
use libfuzzer_sys::fuzz_target;
use p2plus::crypto::aead::TAG_LEN;
use p2plus::node::dht::{open, places, seal};
use p2plus::time::UnixMillis;
use p2plus::wire::control::{NodeRecord, SignedRecord};
use p2plus::wire::dht::{MAX_VALUE_LEN, NONCE_LEN, pad, unpad};
use p2plus_fuzz::{NETWORK, Script, local_keys, node_id, signing_key};

/// In the middle of a week.
const NOW: UnixMillis = UnixMillis(20_786 * 86_400_000);

fuzz_target!(|bytes: &[u8]| {
    let mut script = Script::new(bytes);
    let (keys, id) = (local_keys(1), node_id(2));
    let week = places(&keys, &id, NOW)[0].week;
    assert!(open(&keys, &id, week, bytes).is_err(), "somebody guessed the network's secret");

    // Zeros behind what there is, as many as there have to be.
    let mut sealed = bytes.to_vec();
    let len = if bytes.len() <= 384 { 384 } else { MAX_VALUE_LEN - NONCE_LEN - TAG_LEN };
    sealed.resize(len, 0);
    if let Ok(record) = unpad(&sealed) {
        assert_eq!(pad(&record), Some(sealed));
    }

    let nonce = script.array();
    let mode = script.u8();
    let damage = script.bytes(1 + 3 * usize::from(mode % 4));
    let Ok(mut record) = NodeRecord::deserialize(&mut script.rest()) else { return };
    record.id = node_id(2 + mode % 2);
    let record = SignedRecord::sign(record, &signing_key(2), &NETWORK);
    let Some(item) = seal(&keys, &record, NOW, 1, nonce) else { return };
    assert!(item.value.len() <= MAX_VALUE_LEN);
    let mut value = item.value.clone();
    Script::new(damage).damage(&mut value);
    match open(&keys, &id, week, &value) {
        Ok(opened) => assert!(opened == record && value == item.value && mode.is_multiple_of(2)),
        Err(_) => assert!(value != item.value || mode % 2 == 1),
    }
});
