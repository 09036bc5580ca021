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
const FOUNDER: u8 = 1;
/// Has every right.
const SIGNER: u8 = 2;
const VALIDATOR: u8 = 3;

/// Transactions of one run.
const MAX_TRANSACTIONS: usize = 8;

/// A transaction to be: who writes it, what it does, and how many others sign it.
struct Plan {
    author: u8,
    operations: Vec<Operation>,
    others: usize,
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(signed) = SignedTransaction::decode(bytes) {
        assert_eq!(signed.encode(), bytes);
        let _ = signed.verify(&genesis().network_id());
    }
    apply(match SignedTransaction::try_from_slice(bytes) {
        Ok(signed) => one_by_one(signed.transaction.operations),
        Err(_) => scripted(&mut Script::new(bytes)),
    });
});

/// Each operation by itself, signed by everybody.
fn one_by_one(operations: Vec<Operation>) -> Vec<Plan> {
    let operations = operations.into_iter().take(MAX_TRANSACTIONS);
    operations.map(|operation| Plan { author: SIGNER, operations: vec![operation], others: 2 }).collect()
}

/// Several operations, written by the founder, the signer, a validator or a stranger.
fn scripted(script: &mut Script<'_>) -> Vec<Plan> {
    let mut plans = Vec::new();
    while !script.is_over() && plans.len() < MAX_TRANSACTIONS {
        let (author, count, others) = (1 + script.u8() % 4, script.u8() % 4 + 1, usize::from(script.u8() % 3));
        let operations = (0..count).filter_map(|_| Operation::deserialize(&mut script.chunk()).ok()).collect();
        plans.push(Plan { author, operations, others });
    }
    plans
}

/// Carries the plans out in one block, and reads the state that they leave behind.
fn apply(plans: Vec<Plan>) {
    let genesis = genesis();
    let mut draft = genesis.state.draft(Height(1), BEGIN.after(Duration::from_secs(1)));
    let last_moment = BEGIN.after(Duration::from_secs(3600));
    for (seq, Plan { author, operations, others }) in (1..).zip(plans) {
        let mut transaction = Transaction::new(verifying_key(author), seq, last_moment, operations);
        if transaction.is_revocation() {
            (transaction.seq, transaction.valid_until) = (0, UnixMillis(0));
        }
        let keys = [signing_key(author), signing_key(SIGNER), signing_key(FOUNDER)];
        let signed = transaction.sign(&genesis.network_id(), &keys.each_ref()[..1 + others]);
        let Ok(verified) = signed.verify(&genesis.network_id()) else { continue };
        assert_eq!(SignedTransaction::decode(&verified.encode()).as_ref(), Ok(&*verified));
        let _ = draft.apply(&verified);
    }
    let (changes, _) = draft.finish();
    let mut state = genesis.state.clone();
    state.commit(&changes);
    let _ = state.policy(&BTreeMap::new());
    let entries = state.entries().map(|(key, value)| (key.to_vec(), value.to_vec()));
    State::from_entries(genesis.network_id(), entries).expect("what was written can be read");
}

fn genesis() -> &'static Genesis {
    static GENESIS: OnceLock<Genesis> = OnceLock::new();
    GENESIS.get_or_init(|| {
        let identity = signing_key(FOUNDER);
        let validator = Validator { key: verifying_key(VALIDATOR), power: 1 };
        let seat = Seat { validator, node: identity.node_id(), transport_key: TransportKey([1; 32]) };
        let founding = Founding {
            name: "home".parse().expect("a label"),
            ipv4: Ipv4Choice::Derived,
            time: BEGIN,
            identity: &identity,
            node_key: verifying_key(101),
            transport_key: TransportKey([1; 32]),
            member_name: None,
            others: Vec::new(),
            signer: &signing_key(SIGNER),
            seats: Seats::new(vec![seat]).expect("one seat"),
            recovery: BTreeSet::from([verifying_key(4)]),
            recovery_needed: 1,
            protocol_version: p2plus::ledger::operation::PROTOCOL_VERSION,
        };
        Genesis::create(&founding, &MemoryTree::default()).expect("a network")
    })
}
