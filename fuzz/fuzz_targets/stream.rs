//! What comes by TCP before and instead of datagrams: a proxy's reply, and lengths in front of datagrams.
//!
//! Input: the bytes, read as either, the reply also behind a good head.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::wire::http_connect::{Proxy, Reply, read_reply};
use p2plus::wire::length_framing::{LENGTH_LEN, MAX_FRAMED, framed_len, length_of};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n";

fuzz_target!(|bytes: &[u8]| {
    for reply in [bytes, &[HEAD, bytes].concat()] {
        if let Ok(Reply::Connected(len)) = read_reply(reply) {
            assert!(len <= reply.len() && reply[..len].ends_with(b"\r\n\r\n"));
        }
    }
    let mut rest = bytes;
    while let Ok(Some(len)) = framed_len(rest) {
        assert!((1..=MAX_FRAMED).contains(&len));
        assert_eq!(length_of(len).as_ref().map(|it| &it[..]), Some(&rest[..LENGTH_LEN]));
        let Some(next) = rest.get(LENGTH_LEN + len..) else { break };
        rest = next;
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(proxy) = text.parse::<Proxy>()
    {
        let request = proxy.request(([192, 0, 2, 1], 443).into());
        // Whatever the user wrote, the request is one.
        assert!(request.find("\r\n\r\n") == Some(request.len() - 4) && request.matches("\r\n").count() <= 4);
        assert_eq!(String::from(proxy.clone()).parse::<Proxy>().as_ref(), Ok(&proxy));
    }
});
