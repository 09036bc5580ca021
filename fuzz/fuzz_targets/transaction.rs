//! Transactions: one spelling each, and none that breaks the state, whoever signed it.
#![no_main]

use borsh::BorshDeserialize;
use libfuzzer_sys::fuzz_target;
use p2plus::crypto::exchange::TransportKey;
use p2plus::ledger::address::Ipv4Choice;
use p2plus::ledger::genesis::{Founding, Genesis};
use p2plus::ledger::tree::MemoryTree;
use p2plus::ledger::{Height, Operation, Seat, Seats, SignedTransaction, State, Transaction, Validator};
use p2plus::time::UnixMillis;
use p2plus_fuzz::{Script, signing_key, verifying_key};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

const BEGIN: UnixMillis = UnixMillis(1_800_000_000_000);

fuzz_target!(|bytes: &[u8]| {
    if let Ok(signed) = SignedTransaction::decode(bytes) {
        assert_eq!(signed.encode(), bytes);
        let _ = signed.verify(&genesis().network_id());
    }
    apply(&mut Script::new(bytes));
});

/// Applies operations that the founder, the signer (who has every right) or a stranger signs, and checks what they leave behind.
fn apply(script: &mut Script<'_>) {
    let genesis = genesis();
    let mut draft = genesis.state.draft(Height(1), BEGIN.after(Duration::from_secs(1)));
    for seq in 1..=8 {
        let (author, count) = (signing_key(1 + script.u8() % 4), script.u8() % 4 + 1);
        let operations: Vec<_> = (0..count).filter_map(|_| Operation::deserialize(&mut script.chunk()).ok()).collect();
        if operations.is_empty() {
            break;
        }
        let last_moment = BEGIN.after(Duration::from_secs(3600));
        let mut transaction = Transaction::new(author.verifying_key(), seq, last_moment, operations);
        if transaction.is_revocation() {
            (transaction.seq, transaction.valid_until) = (0, UnixMillis(0));
        }
        let keys = [author, signing_key(2), signing_key(1)];
        let signed = transaction.sign(&genesis.network_id(), &keys.each_ref()[..1 + usize::from(script.u8() % 3)]);
        let Ok(verified) = signed.verify(&genesis.network_id()) else { continue };
        assert_eq!(SignedTransaction::decode(&verified.encode()).as_ref(), Ok(&*verified));
        let _ = draft.apply(&verified);
    }
    let (changes, _) = draft.finish();
    let mut state: State = genesis.state.clone();
    state.commit(&changes);
    let _ = state.policy(&BTreeMap::new());
}

fn genesis() -> &'static Genesis {
    static GENESIS: OnceLock<Genesis> = OnceLock::new();
    GENESIS.get_or_init(|| {
        let identity = signing_key(1);
        let validator = Validator { key: verifying_key(3), power: 1 };
        let seat = Seat { validator, node: identity.node_id(), transport_key: TransportKey([1; 32]) };
        let founding = Founding {
            name: "home".parse().expect("a label"),
            ipv4: Ipv4Choice::Derived,
            time: BEGIN,
            identity: &identity,
            node_key: verifying_key(101),
            transport_key: TransportKey([1; 32]),
            member_name: None,
            signer: &signing_key(2),
            seats: Seats::new(vec![seat]).expect("one seat"),
            recovery: BTreeSet::from([verifying_key(4)]),
            recovery_needed: 1,
        };
        Genesis::create(&founding, &MemoryTree::default()).expect("a network")
    })
}
