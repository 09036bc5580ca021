//! What a neighbour says on the gossip stream: raw, and with records that members really signed.
#![no_main]

use borsh::BorshDeserialize;
use libfuzzer_sys::fuzz_target;
use p2plus::crypto::exchange::TransportKey;
use p2plus::node::gossip::{Gossip, GossipMessage};
use p2plus::time::{Instant, Now, UnixMillis};
use p2plus::wire::control::{NodeRecord, SignedRecord};
use p2plus_fuzz::{NETWORK, Script, node_id, policy, signing_key};

const PEER: TransportKey = TransportKey([1; 32]);
const NOW: Now = Now { instant: Instant::ZERO, wall: UnixMillis(1_800_000_000_000) };

fuzz_target!(|bytes: &[u8]| {
    let mut script = Script::new(bytes);
    let policy = policy(1..=4, []);
    let mut gossip = Gossip::new(node_id(1), NETWORK);
    while !script.is_over() {
        let mode = script.u8();
        let (is_raw, raw) = (mode.is_multiple_of(2), script.chunk());
        let message = if is_raw { GossipMessage::decode(raw).ok() } else { signed(mode, raw) };
        let Some(message) = message else { continue };
        assert_eq!(GossipMessage::decode(&message.encode()), Ok(message.clone()));
        if is_raw {
            assert_eq!(message.encode(), raw);
        }
        let outcome = gossip.handle(NOW, PEER, message, &policy);
        for reply in outcome.replies {
            assert_eq!(GossipMessage::decode(&reply.encode()), Ok(reply));
        }
        assert!(outcome.news.iter().all(|id| outcome.updated.contains(id)));
        for id in outcome.updated {
            let record = gossip.record(&id, &policy).expect("a record that was taken is believed");
            assert_eq!(record.sequence, gossip.sequence(&id));
        }
        assert!(!gossip.holds(&node_id(5)), "a stranger's record was taken");
    }
});

/// A record of one of the members 1 to 4 or of the stranger 5, signed by one of them.
fn signed(mode: u8, raw: &[u8]) -> Option<GossipMessage> {
    let mut record = NodeRecord::deserialize(&mut &raw[..]).ok()?;
    record.id = node_id(1 + (mode >> 1) % 5);
    let key = signing_key(1 + (mode >> 4) % 5);
    Some(GossipMessage::Records(vec![SignedRecord::sign(record, &key, &NETWORK)]))
}
