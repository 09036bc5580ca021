//! An established session over a hostile path: packets in any order, repeated, damaged, and bytes that nobody sealed.
//!
//! What opens is what was sealed, and opens once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::session::handshake::Local;
use p2plus::session::handshake::responder::Inbound;
use p2plus::session::{Aim, Indices, Initiator, LaneSealer, Responder, Session, Source, Terms, TimestampSource};
use p2plus::time::{Instant, UnixMillis};
use p2plus::wire::datagram::{Lane, TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD, TransportHeader};
use p2plus_fuzz::{Script, local_keys, node_id, policy, transport_key};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// Packets of one run.
const MAX_PACKETS: usize = 256;

fuzz_target!(|bytes: &[u8]| {
    let mut script = Script::new(bytes);
    let (near, far) = pair();
    let mut lanes: Vec<LaneSealer> = (0..3).filter_map(|lane| near.claim_lane(Lane(lane))).collect();
    let mut sealed: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut opened = BTreeSet::new();
    for _ in 0..4 * MAX_PACKETS {
        if script.is_over() {
            break;
        }
        match script.u8() % 4 {
            0 if sealed.len() < MAX_PACKETS => {
                let plaintext = script.chunk().to_vec();
                let lane = usize::from(script.u8()) % lanes.len();
                sealed.push((seal(&mut lanes[lane], &plaintext), plaintext));
            }
            1 => {
                // A burst moves the window.
                let count = usize::from(script.u8()).min(MAX_PACKETS.saturating_sub(sealed.len()));
                for _ in 0..count {
                    sealed.push((seal(&mut lanes[0], &[]), Vec::new()));
                }
            }
            2 if !sealed.is_empty() => {
                let which = usize::from(script.u16()) % sealed.len();
                let (packet, plaintext) = &sealed[which];
                let mut arrived = packet.clone();
                script.damage(&mut arrived);
                if let Some(text) = open(&far, &mut arrived) {
                    assert_eq!(text, *plaintext, "something else was delivered");
                    assert!(opened.insert(which), "a packet was delivered twice");
                }
            }
            _ => assert_eq!(open(&far, &mut script.chunk().to_vec()), None, "nobody sealed this"),
        }
    }
});

fn seal(lane: &mut LaneSealer, plaintext: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; plaintext.len() + TRANSPORT_OVERHEAD];
    datagram[TRANSPORT_HEADER_LEN..][..plaintext.len()].copy_from_slice(plaintext);
    lane.seal(Instant::ZERO, &mut datagram).expect("a fresh session seals");
    datagram
}

fn open(session: &Session, datagram: &mut [u8]) -> Option<Vec<u8>> {
    let header = TransportHeader::decode(datagram).ok()?;
    session.open(Instant::ZERO, &header, &mut datagram[TRANSPORT_HEADER_LEN..]).ok().map(|text| text.to_vec())
}

/// Both ends of a session between two members.
fn pair() -> (Arc<Session>, Arc<Session>) {
    let (mut rng, now, terms) = (ChaCha20Rng::seed_from_u64(3), Instant::ZERO, Terms::default());
    let (policy, keys) = (policy([1, 2], []), [local_keys(1), local_keys(2)]);
    let [near, far] = keys.each_ref().map(|keys| Local { keys, policy: &policy, terms: &terms });
    let source = Source::Endpoint(SocketAddr::from(([192, 0, 2, 1], 4647)));
    let mut indices = Indices::default();
    let aim = Aim { key: transport_key(2), identity: Some(node_id(2)) };
    let offer = terms.offer(TimestampSource::default().next(UnixMillis(1)));
    let index = indices.reserve(&mut rng).expect("no index is in use");
    let mut initiator = Initiator::new(now, near.keys, aim, offer, index, &mut rng).expect("a usable key");
    let mut responder = Responder::new(now, &mut rng);
    let (mut there, mut here) = (None, None);
    for datagram in initiator.datagrams(source).map(<[u8]>::to_vec) {
        let inbound = Inbound { now, source, datagram: &datagram };
        let outcome = responder.handle(far, inbound, &mut indices, &mut rng).expect("an honest handshake");
        there = outcome.established.or(there);
        for answer in outcome.transmit {
            here = initiator.handle_response(near, now, &answer).expect("an honest answer").or(here);
        }
    }
    (here.expect("a session").session, there.expect("a session").session)
}
