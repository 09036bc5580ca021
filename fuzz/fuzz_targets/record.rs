//! The plaintext of an opened transport packet, and whatever it holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::wire::control::ControlMessage;
use p2plus::wire::data::{FLAG_NEEDS_CHECKSUM, RECORD_CONTROL, RECORD_PACKET, RECORD_STREAM, Record};
use p2plus::wire::inner::InnerPacket;

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = Record::decode(bytes) else { return };
    let (first, content) = match record {
        Record::Empty => return assert!(bytes.is_empty()),
        Record::Packet { needs_checksum, packet } => {
            let _ = InnerPacket::parse(packet);
            (RECORD_PACKET | if needs_checksum { FLAG_NEEDS_CHECKSUM } else { 0 }, packet)
        }
        Record::Control(content) => {
            let _ = ControlMessage::decode(content);
            (RECORD_CONTROL, content)
        }
        Record::Stream(content) => (RECORD_STREAM, content),
    };
    assert_eq!([&[first], content].concat(), bytes);
});
