//! On a DHT of the library's own, on the loopback.

use super::*;
use crate::crypto::hash::Digest;
use crate::crypto::identity::SigningKey;
use crate::wire::dht::signed_part;
use mainline::Testnet;
use std::sync::mpsc as std_mpsc;

/// How long anything may take on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

fn item(seed: u8, sequence: i64, value: &[u8]) -> Item {
    let key = SigningKey::from_seed(&[seed; 32]);
    let signature = key.sign(&signed_part(sequence, value));
    Item { key: key.verifying_key(), signature, sequence, value: value.to_vec() }
}

fn place(seed: u8) -> Place {
    Place { week: 7, key: SigningKey::from_seed(&[seed; 32]).verifying_key() }
}

/// A runtime, a task on it, and what that tells.
fn begin() -> (Runtime, DhtOrders, std_mpsc::Receiver<Report>) {
    let runtime = Runtime::new().unwrap();
    let (told, reports) = std_mpsc::channel();
    let orders = start(&runtime, move |report| drop(told.send(report)));
    (runtime, orders, reports)
}

/// Everything until the search for a member ended.
fn looked(reports: &std_mpsc::Receiver<Report>, member: NodeId) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    loop {
        match reports.recv_timeout(PATIENCE).unwrap() {
            Report::Found { member: id, week, value } => {
                assert_eq!((id, week), (member, 7));
                found.push(value);
            }
            Report::Looked(id) => {
                assert_eq!(id, member);
                return found;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_one_stores_another_finds_and_a_newer_one_replaces_it() {
    let testnet = Testnet::builder(8).build().unwrap();
    let ((_ada_runtime, ada, ada_told), (_ben_runtime, ben, ben_told)) = (begin(), begin());
    ada.use_by(testnet.bootstrap.clone());
    ben.use_by(testnet.bootstrap.clone());
    let member = NodeId(Digest([1; 32]).0);
    ben.look_up(member, vec![place(1)]);
    assert_eq!(looked(&ben_told, member), [[0; 0]; 0]);
    for (sequence, value) in [(5, b"old"), (6, b"new")] {
        ada.store(item(1, sequence, value));
        let stored = ada_told.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(stored, Report::Stored(nodes) if nodes >= 4), "{stored:?}");
    }
    ben.look_up(member, vec![place(2), place(1)]);
    assert_eq!(looked(&ben_told, member), [b"new"]);
    // Whoever signs something older afterwards changes nothing.
    ada.store(item(1, 4, b"older"));
    assert_eq!(ada_told.recv_timeout(PATIENCE).unwrap(), Report::NotStored);
    // What is too long to be a value of ours is not told.
    ada.store(item(3, 1, &[7; MAX_VALUE_LEN + 1]));
    assert!(matches!(ada_told.recv_timeout(PATIENCE).unwrap(), Report::Stored(_)));
    ben.look_up(member, vec![place(3)]);
    assert_eq!(looked(&ben_told, member), [[0; 0]; 0]);
}

#[test]
fn where_no_node_is_nothing_is_found_and_nothing_hangs() {
    let (_runtime, orders, told) = begin();
    let member = NodeId([1; 32]);
    orders.look_up(member, vec![place(1)]);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Report::Looked(member), "it is off");
    // A port that nobody listens at: whoever had it gave it back.
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    orders.use_by(vec![nobody.to_string()]);
    orders.look_up(member, vec![place(1)]);
    assert_eq!(looked(&told, member), [[0; 0]; 0]);
    orders.store(item(1, 1, b"value"));
    assert_eq!(told.recv_timeout(2 * PATIENCE).unwrap(), Report::NotStored);
    orders.use_by(vec!["[::1]:7".to_owned()]);
    orders.look_up(member, vec![place(1)]);
    assert_eq!(looked(&told, member), [[0; 0]; 0], "there is none of IPv6");
}
