//! Everything that a socket may deliver: told apart once, decoded, and spelled in one way only.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::wire::datagram::{Datagram, TransportHeader};
use p2plus::wire::handshake::{CookieReply, Initiation, KeyPart, Response};
use p2plus::wire::payload::{Answer, Offer};

fuzz_target!(|bytes: &[u8]| {
    let kind = Datagram::classify(bytes);
    if let Ok(initiation) = Initiation::decode(bytes) {
        assert!(matches!(kind, Ok(Datagram::Initiation(_))));
        assert_eq!(initiation.encode()[..], *bytes);
    }
    if let Ok(part) = KeyPart::decode(bytes) {
        assert!(matches!(kind, Ok(Datagram::KeyPart(_))));
        assert_eq!(part.encode()[..], *bytes);
    }
    if let Ok(response) = Response::decode(bytes) {
        assert!(matches!(kind, Ok(Datagram::Response(index, _)) if index == response.receiver));
        assert_eq!(response.encode(), bytes);
    }
    if let Ok(cookie) = CookieReply::decode(bytes) {
        assert!(matches!(kind, Ok(Datagram::Cookie(index, _)) if index == cookie.receiver));
        assert_eq!(cookie.encode()[..], *bytes);
    }
    if let Ok(header) = TransportHeader::decode(bytes) {
        assert_eq!(kind, Ok(Datagram::Transport(header)));
        assert!(bytes.starts_with(&header.encode()));
    }
    // The payloads ignore what later versions add.
    if let Some(Ok(offer)) = bytes.first_chunk().map(Offer::decode) {
        assert_eq!(Offer::decode(&offer.encode()), Ok(offer));
    }
    if let Some(Ok(answer)) = bytes.first_chunk().map(Answer::decode) {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
});
