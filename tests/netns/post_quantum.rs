//! The hybrid key exchange comes before the first byte of data, in every session: seen on the wire.

use crate::capture::{Capture, Seen};
use crate::lab::Lab;
use crate::node::{Node, exchange, joiner, pair, transfer};
use p2plus::wire::datagram::{TYPE_INITIATION, TYPE_KEY_PART, TYPE_RESPONSE, TYPE_TRANSPORT};
use std::collections::{BTreeMap, BTreeSet};

/// What has gone by of one initiation: halves of the encapsulation key, and of each responder's answer to it.
#[derive(Default)]
struct Progress {
    is_begun: bool,
    key_halves: BTreeSet<u8>,
    answers: BTreeMap<u32, BTreeSet<u8>>,
}

/// Follows all handshakes by their indices, and refuses a transport packet for an index whose key exchange has not gone by whole.
/// Returns how many sessions carried something.
fn follow(seen: &[Seen]) -> usize {
    let mut initiations: BTreeMap<u32, Progress> = BTreeMap::new();
    let (mut whole, mut used) = (BTreeSet::new(), BTreeSet::new());
    for (position, datagram) in seen.iter().enumerate() {
        let part = datagram.front.get(1).copied().unwrap_or_default();
        match datagram.kind() {
            TYPE_INITIATION => initiations.entry(datagram.u32_at(4)).or_default().is_begun = true,
            TYPE_KEY_PART => drop(initiations.entry(datagram.u32_at(4)).or_default().key_halves.insert(part)),
            TYPE_RESPONSE => {
                let (sender, receiver) = (datagram.u32_at(4), datagram.u32_at(8));
                let progress = initiations.entry(receiver).or_default();
                assert!(
                    progress.is_begun && progress.key_halves.len() == 2,
                    "{position}: answered before it was asked"
                );
                let halves = progress.answers.entry(sender).or_default();
                halves.insert(part);
                if halves.len() == 2 {
                    whole.extend([sender, receiver]);
                }
            }
            TYPE_TRANSPORT => {
                let receiver = datagram.u32_at(4);
                assert!(whole.contains(&receiver), "{position}: data before the key exchange is whole, {datagram:?}");
                used.insert(receiver);
            }
            _ => {}
        }
    }
    used.len()
}

/// Every session that a node has is hybrid; it has `count` of them.
fn assert_hybrid(node: &Node, count: usize) {
    let status = node.status();
    let sessions = status["peers"].as_array().unwrap().iter().map(|peer| &peer["session"]).filter(|it| it.is_object());
    let sessions: Vec<_> = sessions.collect();
    assert_eq!(sessions.len(), count, "{status}");
    assert!(sessions.iter().all(|session| session["post_quantum"] == true), "{status}");
}

#[test]
fn no_byte_of_data_goes_by_before_the_hybrid_key_exchange_is_whole() {
    let Some(mut lab) = Lab::new() else { return };
    let capture = Capture::start(lab.router());
    let [founder, mut ada] = pair(&mut lab);
    exchange(&ada, &founder, [ada.v4(), founder.v4()]);
    let ben = joiner(&mut lab, &founder, "ben");
    ada.meet(&ben);
    transfer(&ada, &ben, ben.v6(), 100_000);
    // New sessions, while the others believe in the old ones.
    ada.kill();
    ada.start();
    ada.meet(&founder);
    ada.meet(&ben);
    exchange(&founder, &ada, [founder.v6(), ada.v6()]);
    ben.meet(&founder);
    [&founder, &ada, &ben].into_iter().for_each(|node| assert_hybrid(node, 2));
    // What goes through a relay is a handshake as well.
    let seen: Vec<_> = capture.end().into_iter().map(Seen::unwrapped).collect();
    // Each of the three pairs at least once, ada's two anew, and each session has two sides.
    let sides = follow(&seen);
    println!("{} datagrams, {sides} sides of sessions that carried something", seen.len());
    assert!(sides >= 10, "{sides}");
}
