//! Tickets: any text, and any payload with the check that fits. One text per ticket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::crypto::hash::domain_hash;
use p2plus::wire::ticket::Ticket;

const DIGITS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        check(text);
    }
    let check_bytes = &domain_hash("P2Plus/1 ticket check", &[bytes]).0[..4];
    check(&spell(&[bytes, check_bytes].concat()));
});

fn check(text: &str) {
    if let Ok(ticket) = Ticket::decode(text) {
        let spelled = ticket.encode().expect("what was read can be written");
        assert_eq!(spelled.as_str(), text.trim().to_ascii_lowercase());
    }
}

/// Writes bytes as a ticket's text.
fn spell(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let digit = |bits: &[u8]| (0..5).fold(0, |value, place| value << 1 | bits.get(place).copied().unwrap_or(0));
    let digits = bits.chunks(5).map(|bits| char::from(DIGITS[usize::from(digit(bits))]));
    "p2plus1".chars().chain(digits).collect()
}
