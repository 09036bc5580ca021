//! What a gateway, or whoever claims to be one, answers: PCP, NAT-PMP, and UPnP's texts. No place that it names is on another host.
//!
//! Input: the answer, as it is and with the head of a good one before it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::wire::port_mapping::{MapRequest, PCP_MAP_LEN, decode_address};
use p2plus::wire::upnp::{MAX_CONNECTIONS, Place, connections, external_address, fault, location};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const SEARCH_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1";

fuzz_target!(|bytes: &[u8]| {
    let request = MapRequest {
        client: Ipv4Addr::new(192, 168, 1, 2),
        internal_port: 4647,
        external: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 4647),
        lifetime: Duration::from_secs(1200),
        nonce: [7; 12],
    };
    let mut answer = request.encode_pcp().to_vec();
    answer[1] |= 0x80;
    let tail = PCP_MAP_LEN - bytes.len().min(PCP_MAP_LEN);
    answer.splice(tail.., bytes.iter().copied());
    for answer in [bytes, &answer] {
        let granted = request.decode_pcp(answer);
        assert!(granted.is_err() || answer.len() >= PCP_MAP_LEN);
        let _ = (request.decode_nat_pmp(answer), decode_address(answer));
    }
    for answer in [bytes, &[SEARCH_HEAD, bytes].concat()] {
        if let Some(place) = location(answer, GATEWAY) {
            check(&place);
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let root = Place { port: 5000, path: "/rootDesc.xml".to_owned() };
    let found = connections(text, &root, GATEWAY);
    assert!(found.len() <= MAX_CONNECTIONS);
    found.iter().for_each(|connection| check(&connection.control));
    let _ = (external_address(text), fault(text));
});

/// It becomes the target of a request, and nothing more of it.
fn check(place: &Place) {
    assert!(place.port != 0 && place.path.starts_with('/') && place.path.bytes().all(|byte| byte.is_ascii_graphic()));
}
