//! An item of the DHT, frozen: who runs an older version finds and reads what a newer one stores. Computed a second time by the Ed25519 and
//! ChaCha20-Poly1305 of Python's `cryptography` and a BLAKE3 written from its paper.

use p2plus::crypto::exchange::TransportSecret;
use p2plus::crypto::hash::Digest;
use p2plus::crypto::identity::{NodeId, SigningKey};
use p2plus::crypto::secret::Secret;
use p2plus::node::dht::{open, places, seal};
use p2plus::session::LocalKeys;
use p2plus::time::UnixMillis;
use p2plus::wire::control::{HomeRelay, NatKind, NodeRecord, SignedRecord};

/// The key, the signature, and the first and last bytes of the value.
const KEY: &str = "b58590a6fca3a550752b8167c60f97b622ccb0661147a810aedc395dd82a4097";
const SIGNATURE: &str = "0fb8525a6ab2b8a287960c9ff0260a2526917c1fab52580649e0842db5149517\
                         a988b2caa74183a525b2620b2449c2aaa3464a88b71eb5420b1a93223cb93b03";
const FRONT: &str = "4444444444444444444444447fa0fbf202d43a3ce46af2971b2fcc5b43a4061279378092d934b2fc34ccc34f257cddd3";
const BACK: &str = "546cb6c626d412b3246e9ce1f413a848f993c6da0a8ec5e331af1d6d6e19ad0d";

#[test]
fn the_item_of_a_member_has_the_bytes_that_it_always_had() {
    let network_id = Digest([0x1d; 32]);
    let node_key = SigningKey::from_seed(&[2; 32]);
    let record = NodeRecord {
        id: NodeId([0x11; 32]),
        sequence: 1_795_737_600_000,
        endpoints: vec!["192.0.2.7:4647".parse().unwrap(), "[2001:db8::7]:4647".parse().unwrap()],
        requests: Vec::new(),
        refused: Vec::new(),
        nat: NatKind::Independent,
        is_relay: false,
        homes: vec![HomeRelay { id: NodeId([0x33; 32]), rtt_millis: 25 }],
    };
    let record = SignedRecord::sign(record, &node_key, &network_id);
    let transport = TransportSecret::from_bytes([1; 32]);
    let keys = LocalKeys::new(transport, NodeId([0x22; 32]), network_id, Secret::new([0x5e; 32]));
    let wall = UnixMillis(1_795_737_600_000);
    let item = seal(&keys, &record, wall, 1_795_737_600, [0x44; 12]).unwrap();
    assert_eq!(item.value.len(), 412);
    assert_eq!(hex::encode(item.key.0), KEY);
    assert_eq!(hex::encode(item.signature.0), SIGNATURE);
    assert_eq!(hex::encode(&item.value[..48]), FRONT);
    assert_eq!(hex::encode(&item.value[item.value.len() - 32..]), BACK);
    let place = places(&keys, &NodeId([0x11; 32]), wall)[0];
    assert_eq!((place.week, place.key), (2969, item.key));
    assert_eq!(open(&keys, &NodeId([0x11; 32]), place.week, &item.value), Ok(record));
}
