use super::*;
use crate::crypto::hash::Digest;
use crate::crypto::identity::{NodeId, Signature};
use crate::ledger::operation::Credential;
use crate::ledger::sync::{MAX_TRANSACTIONS, MAX_TRANSACTIONS_LEN};
use crate::ledger::transaction::{MAX_WITNESSES, MalformedTransaction, Witness};

const MEMBER: TransportKey = TransportKey([NODE; 32]);
const GUEST: TransportKey = TransportKey([99; 32]);

/// Witnesses that exist, with signatures that are false.
fn forged(mut signed: SignedTransaction, seeds: impl Iterator<Item = u8>) -> SignedTransaction {
    let false_one = |seed| Witness { key: key(seed).verifying_key(), signature: Signature([7; 64]) };
    signed.witnesses = seeds.map(false_one).collect();
    signed.witnesses.sort_by_key(|witness| witness.key);
    signed
}

/// A revocation of somebody by the admin, with a false signature.
fn false_revocation(number: u64) -> SignedTransaction {
    let mut identity = [3; 32];
    identity[..8].copy_from_slice(&number.to_le_bytes());
    let revoke = Revoke { identity: NodeId(identity), incarnation: 0 };
    let transaction = Transaction::revocation(key(ADMIN).verifying_key(), [revoke]);
    forged(SignedTransaction { transaction, witnesses: Vec::new() }, [ADMIN].into_iter())
}

fn show(world: &mut World, from: TransportKey, signed: SignedTransaction) -> Option<SubmitError> {
    let message = LedgerMessage::Transactions(vec![signed]);
    match world.nodes[0].ledger.handle_message(world.now, from, message) {
        Ok(()) => None,
        Err(MessageRefused::Transaction(error)) => Some(error),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn no_signature_is_checked_of_what_would_not_apply_were_it_signed() {
    let mut world = World::pair();
    let by_nobody = Transaction::revocation(key(100).verifying_key(), [Revoke { identity: id(NODE), incarnation: 0 }]);
    let by_nobody = SignedTransaction { transaction: by_nobody, witnesses: Vec::new() };
    let by_nobody = forged(by_nobody, 100..116);
    assert_eq!(by_nobody.witnesses.len(), MAX_WITNESSES);
    let refused = show(&mut world, GUEST, by_nobody);
    let expected = |error: &Option<SubmitError>| {
        matches!(error, Some(SubmitError::Revocation(RevocationRefused::Invalid(TxError::NotAuthorized { .. }))))
    };
    assert!(expected(&refused), "{refused:?}");
    let by_no_credential = world.sign(&[NODE + 1, 50], vec![Operation::Join(join(NODE + 1, 50))]);
    let by_no_credential = forged(by_no_credential, [NODE + 1, 50].into_iter());
    let refused = world.nodes[0].ledger.handle_message(world.now, GUEST, LedgerMessage::Submit(by_no_credential));
    let Err(MessageRefused::Transaction(SubmitError::Pool(PoolRefused::Invalid(reason)))) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(reason, TxError::NoSuchCredential);
}

#[test]
fn who_shows_false_signatures_is_not_heard_for_a_while_and_nobody_else_suffers() {
    let mut world = World::pair();
    let mut checked = 0;
    let refused = loop {
        match show(&mut world, GUEST, false_revocation(checked)) {
            Some(SubmitError::Malformed(MalformedTransaction::BadSignature(_))) if checked < 10_000 => checked += 1,
            other => break other,
        }
    };
    assert_eq!(refused, Some(SubmitError::Distrusted));
    assert!(checked <= 32 * 4 + 1, "{checked} were checked");
    // The key that a guest makes next has shown nothing false, and members do not pay for guests.
    let other_guest = TransportKey([98; 32]);
    let true_one = world.revocation(ADMIN, &[(NODE + 1, 0)]);
    assert_eq!(show(&mut world, other_guest, true_one), None);
    assert!(matches!(show(&mut world, MEMBER, false_revocation(checked)), Some(SubmitError::Malformed(_))));
    let true_one = world.revocation(ADMIN, &[(NODE + 2, 0)]);
    assert_eq!(show(&mut world, GUEST, true_one.clone()), Some(SubmitError::Distrusted));
    world.now = world.now + Duration::from_secs(5);
    assert_eq!(show(&mut world, GUEST, true_one), None, "it is heard again");
}

#[test]
fn the_same_false_bytes_are_checked_once_and_do_not_stand_in_the_way_of_the_true_ones() {
    let mut world = World::pair();
    let true_one = world.revocation(ADMIN, &[(NODE, 0)]);
    let false_one = forged(true_one.clone(), [ADMIN].into_iter());
    assert!(matches!(show(&mut world, MEMBER, false_one.clone()), Some(SubmitError::Malformed(_))));
    assert_eq!(show(&mut world, MEMBER, false_one), Some(SubmitError::RefusedBefore));
    assert_eq!(show(&mut world, GUEST, true_one), None);
    assert!(world.nodes[0].ledger.policy().member(&id(NODE)).is_none());
}

/// What an honest peer passes on in bulk costs it nothing; prints what bulk and made-up transactions take.
#[test]
fn honest_bulk_is_taken_whole_however_much_of_it_there_is() {
    let mut world = World::pair();
    world.nodes[0].is_up = false;
    let rename = |seq: u64| Operation::Rename(rename_of(seq));
    let bulk: Vec<_> = (0..200).map(|seq| world.sign(&[ADMIN], vec![rename(seq)])).collect();
    let began = std::time::Instant::now();
    let message = LedgerMessage::Transactions(bulk);
    world.nodes[1].ledger.handle_message(world.now, TransportKey([FOUNDER; 32]), message).unwrap();
    eprintln!("200 true transactions taken in {:?}", began.elapsed());
    assert_eq!(world.nodes[1].ledger.pending().len(), 200);
    let made_up: Vec<_> = (0..512_u64).map(made_up).collect();
    let began = std::time::Instant::now();
    let refused = world.nodes[0].ledger.handle_message(world.now, GUEST, LedgerMessage::Transactions(made_up));
    eprintln!("512 made-up revocations of 16 witnesses refused in {:?}", began.elapsed());
    assert!(refused.is_err());
}

fn rename_of(seq: u64) -> crate::ledger::operation::Rename {
    crate::ledger::operation::Rename { identity: id(NODE), name: label(&format!("name-{seq}")) }
}

fn made_up(number: u64) -> SignedTransaction {
    let revoke = Revoke { identity: id(NODE), incarnation: number };
    let transaction = Transaction::revocation(key(100).verifying_key(), [revoke]);
    let keys: Vec<_> = (100..116).map(key).collect();
    let keys: Vec<_> = keys.iter().collect();
    transaction.sign(&Digest([0; 32]), &keys)
}

/// What a node answered to one peer: how many transactions in how many bytes.
fn answer(ledger: &mut Ledger, to: TransportKey) -> Vec<SignedTransaction> {
    let mut answered = Vec::new();
    while let Some((recipient, message)) = ledger.poll_message() {
        if let (Recipient::Peer(peer), LedgerMessage::Transactions(transactions)) = (recipient, message)
            && peer == to
        {
            answered.extend(transactions);
        }
    }
    answered
}

#[test]
fn a_request_that_names_one_transaction_many_times_is_answered_once() {
    let mut world = World::pair();
    world.nodes[0].is_up = false;
    let waiting = world.order(1, Operation::Admit(admit(NODE + 1, 0)));
    let founder = TransportKey([FOUNDER; 32]);
    let ask = LedgerMessage::GetTransactions(vec![waiting; MAX_TRANSACTIONS]);
    world.nodes[1].ledger.handle_message(world.now, founder, ask).unwrap();
    assert_eq!(answer(&mut world.nodes[1].ledger, founder).len(), 1);
}

#[test]
fn one_request_for_transactions_is_answered_within_a_mebibyte() {
    let mut world = World::pair();
    world.nodes[0].is_up = false;
    let tags: BTreeSet<_> = (10..26).map(|tag| label(&format!("{tag}{}", "x".repeat(61)))).collect();
    let expires = world.now.wall.after(DAY);
    let ids: Vec<_> = (0..80_u8)
        .map(|first| {
            let credential = |second| {
                let key_hash = Digest([first.wrapping_add(100), second].repeat(16).try_into().unwrap());
                Operation::Credential(Credential { key_hash, name: None, tags: tags.clone(), uses: 1, expires })
            };
            let signed = world.sign(&[ADMIN], (0..16).map(credential).collect());
            world.nodes[1].ledger.submit(world.now, signed).unwrap()
        })
        .collect();
    world.settle();
    let founder = TransportKey([FOUNDER; 32]);
    world.nodes[1].ledger.handle_message(world.now, founder, LedgerMessage::GetTransactions(ids)).unwrap();
    let answered = answer(&mut world.nodes[1].ledger, founder);
    let len: usize = answered.iter().map(|signed| signed.encode().len()).sum();
    assert!((3 * MAX_TRANSACTIONS_LEN..=4 * MAX_TRANSACTIONS_LEN).contains(&len), "{len} bytes");
}

#[test]
fn who_asks_for_revocations_gets_them_a_part_at_a_time_and_all_in_the_end() {
    let mut world = World::pair();
    let scopes = [Scope::Revocation].into_iter().collect();
    world.order(0, Operation::SignerSet(SignerSet { key: key(20).verifying_key(), weight: 1, scopes }));
    let chain = *world.nodes[0].ledger.network_id();
    for number in 0..1300_u64 {
        let signer = if number % 2 == 0 { ADMIN } else { 20 };
        let revoke = |place| {
            let mut identity = [place; 32];
            identity[..8].copy_from_slice(&number.to_le_bytes());
            Revoke { identity: NodeId(identity), incarnation: 0 }
        };
        let signed = Transaction::revocation(key(signer).verifying_key(), (0..16).map(revoke));
        let verified = signed.sign(&chain, &[&key(signer)]).verify(&chain).unwrap();
        let ledger = &mut world.nodes[0].ledger;
        ledger.revocations.show(&ledger.state, world.now.wall, verified).unwrap();
    }
    let ledger = &mut world.nodes[0].ledger;
    ledger.halt(Halt::Store("nothing settles them meanwhile".to_owned()));
    let mut heard = BTreeSet::new();
    for _ in 0..2 {
        ledger.handle_message(world.now, GUEST, LedgerMessage::GetRevocations).unwrap();
        let part = answer(ledger, GUEST);
        let len: usize = part.iter().map(|signed| signed.encode().len()).sum();
        assert!(len <= 4 * MAX_TRANSACTIONS_LEN, "{len} bytes");
        heard.extend(part.iter().map(|signed| signed.id(&chain)));
    }
    assert_eq!(heard.len(), 1300);
}
