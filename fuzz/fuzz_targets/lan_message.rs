//! What comes from a LAN by multicast DNS: a bounded part of it is read.
//!
//! Input: the message, as it is and behind the head of an answer with the service's name in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::node::lan::message::{Heard, Instance, decode};
use p2plus::node::lan::{Finds, MAX_ENDPOINTS};
use p2plus::time::Instant;
use p2plus_fuzz::node_id;

/// An answer with one record to come, of this name.
const HEAD: &[u8] = b"\0\0\x84\0\0\0\0\x01\0\0\0\0\x10abababababababab\x07_p2plus\x04_udp\x05local\0";

fuzz_target!(|bytes: &[u8]| {
    for message in [bytes, &[HEAD, bytes].concat()] {
        let Some(Heard::Adverts(adverts)) = decode(message, Instance([1; 8])) else { continue };
        assert!(!adverts.is_empty() && adverts.len() <= 8);
        let mut finds = Finds::default();
        for advert in adverts {
            assert!(advert.endpoints.len() <= MAX_ENDPOINTS);
            let _ = finds.take(Instant::ZERO, node_id(advert.member.0[0]), &advert.endpoints);
        }
    }
});
