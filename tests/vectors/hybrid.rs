//! Frozen bytes of the hybrid handshake: whoever changes one of them has changed the protocol.
//!
//! All keys and all randomness are written down (docs/protocol.md, "Frozen vectors"), so that another implementation can reproduce
//! hybrid.txt. `P2PLUS_FREEZE=1 cargo test --test vectors` writes it anew.

use crate::stream::Stream;
use p2plus::crypto::aead::TransportCipher;
use p2plus::crypto::exchange::TransportSecret;
use p2plus::crypto::hash::Digest;
use p2plus::crypto::identity::{NodeId, VerifyingKey};
use p2plus::crypto::secret::Secret;
use p2plus::policy::{Member, Policy};
use p2plus::session::handshake::responder::Inbound;
use p2plus::session::{Aim, Established, Indices, Initiator, Local, LocalKeys, Responder, Session, Source, Terms};
use p2plus::time::{Instant, UnixMillis};
use p2plus::wire::datagram::{Lane, SessionIndex, TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD, TransportHeader};
use p2plus::wire::handshake::{CipherSet, LedgerHead, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

const FROZEN: &str = include_str!("hybrid.txt");

fn keys(seed: u8) -> LocalKeys {
    let transport = TransportSecret::from_bytes([seed; 32]);
    LocalKeys::new(transport, NodeId([seed; 32]), Digest([0x4e; 32]), Secret::new([0x53; 32]))
}

fn member(seed: u8) -> Member {
    Member {
        id: NodeId([seed; 32]),
        name: format!("node-{seed}"),
        node_key: VerifyingKey([seed; 32]),
        transport_key: keys(seed).transport_key(),
        addresses: Vec::new(),
        tags: Vec::new(),
        subnets: Vec::new(),
        is_exit: false,
        relay: None,
        static_endpoints: Vec::new(),
    }
}

fn address(last: u8) -> Source {
    Source::Endpoint(SocketAddr::from(([192, 0, 2, last], 5000)))
}

/// Every datagram of one handshake between members 1 and 2, in which the responder asks for a cookie when `is_guest`.
fn run(cipher: TransportCipher, is_guest: bool) -> Vec<(String, Vec<u8>)> {
    let (near_keys, far_keys) = (keys(1), keys(2));
    let near_policy = Policy::new([member(1), member(2)], BTreeMap::new(), BTreeSet::new());
    let known = if is_guest { vec![member(2)] } else { vec![member(1), member(2)] };
    let far_policy = Policy::new(known, BTreeMap::new(), BTreeSet::new());
    let ciphers = CipherSet { aes_256_gcm: cipher == TransportCipher::Aes256Gcm };
    let terms = |height| Terms { ciphers, ledger: LedgerHead { height, head: [height as u8; 8] }, ..Terms::default() };
    let (near_terms, far_terms) = (terms(17), terms(18));
    let near = Local { keys: &near_keys, policy: &near_policy, terms: &near_terms };
    let far = Local { keys: &far_keys, policy: &far_policy, terms: &far_terms };
    let (mut near_random, mut far_random) = (Stream::of(b"initiator"), Stream::of(b"responder"));
    let now = Instant::ZERO;

    let offer = near_terms.offer(Timestamp { wall: UnixMillis(1_700_000_000_000), step: 3 });
    let aim = Aim { key: far_keys.transport_key(), identity: Some(NodeId([2; 32])) };
    let mut initiator =
        Initiator::new(now, &near_keys, aim, offer, SessionIndex(0xa1a2_a3a4), &mut near_random).unwrap();
    let (mut responder, mut indices) = (Responder::new(now, &mut far_random), Indices::default());
    let mut frozen = Vec::new();
    let mut give = |datagram: &[u8]| {
        let inbound = Inbound { now, source: address(1), datagram };
        responder.handle(far, inbound, &mut indices, &mut far_random).unwrap()
    };
    if is_guest {
        let asked = give(initiator.datagrams(address(2))[0]).transmit;
        frozen.push(("cookie".to_owned(), asked[0].clone()));
        initiator.handle_cookie(address(2), &asked[0]).unwrap();
    }
    let (mut answers, mut far_end) = (Vec::new(), None);
    for (name, datagram) in ["d1", "d2a", "d2b"].into_iter().zip(initiator.datagrams(address(2))) {
        frozen.push((name.to_owned(), datagram.to_vec()));
        let outcome = give(datagram);
        answers.extend(outcome.transmit);
        far_end = outcome.established.or(far_end);
    }
    let mut near_end = None;
    for (name, answer) in ["m2a", "m2b"].into_iter().zip(&answers) {
        frozen.push((name.to_owned(), answer.clone()));
        near_end = initiator.handle_response(near, now, answer).unwrap().or(near_end);
    }
    let (near_end, far_end): (Established, Established) = (near_end.unwrap(), far_end.unwrap());
    assert_eq!((near_end.session.cipher(), far_end.session.cipher()), (cipher, cipher));
    frozen.push(("d3".to_owned(), packet(&near_end.session, &far_end.session, b"")));
    frozen.push(("reply".to_owned(), packet(&far_end.session, &near_end.session, b"\x03control")));
    frozen
}

fn packet(from: &Arc<Session>, to: &Arc<Session>, text: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; TRANSPORT_OVERHEAD + text.len()];
    datagram[TRANSPORT_HEADER_LEN..][..text.len()].copy_from_slice(text);
    from.claim_lane(Lane::NODE).unwrap().seal(Instant::ZERO, &mut datagram).unwrap();
    let header = TransportHeader::decode(&datagram).unwrap();
    let mut sealed = datagram[TRANSPORT_HEADER_LEN..].to_vec();
    assert_eq!(to.open(Instant::ZERO, &header, &mut sealed).unwrap(), text);
    datagram
}

#[test]
fn every_datagram_has_its_frozen_bytes() {
    let handshakes = [
        ("member-chacha20-poly1305", TransportCipher::ChaCha20Poly1305, false),
        ("member-aes-256-gcm", TransportCipher::Aes256Gcm, false),
        ("guest-with-cookie", TransportCipher::ChaCha20Poly1305, true),
    ];
    let mut text = String::new();
    for (handshake, cipher, is_guest) in handshakes {
        for (name, datagram) in run(cipher, is_guest) {
            writeln!(text, "{handshake}.{name} {}", hex::encode(datagram)).unwrap();
        }
    }
    if std::env::var_os("P2PLUS_FREEZE").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/hybrid.txt"), &text).unwrap();
        return;
    }
    assert_eq!(FROZEN.lines().count(), 7 + 7 + 8);
    for (frozen, made) in FROZEN.lines().zip(text.lines()) {
        assert_eq!(frozen, made);
    }
    assert_eq!(FROZEN, text);
}
