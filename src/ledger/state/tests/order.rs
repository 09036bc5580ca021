use super::*;

fn rename(seed: u8, name: &str) -> Vec<Operation> {
    vec![Operation::Rename(Rename { identity: id(seed), name: label(name) })]
}

#[test]
fn a_transaction_happens_once() {
    let mut net = Net::new();
    let transaction = net.sign(&[ADMIN], rename(FOUNDER, "first"));
    net.commit(transaction.clone()).unwrap();
    let (seq, last) = (transaction.transaction.seq, transaction.transaction.seq);
    assert_eq!(net.commit(transaction.clone()), Err(TxError::Replayed { seq, last }));
    net.order(rename(FOUNDER, "second").remove(0)).unwrap();
    assert!(matches!(net.commit(transaction), Err(TxError::Replayed { .. })));
    assert_eq!(net.state.member(&id(FOUNDER)).unwrap().name, label("second"));
}

#[test]
fn an_older_sequence_number_comes_too_late() {
    let mut net = Net::new();
    let older = net.sign(&[ADMIN], rename(FOUNDER, "older"));
    let newer = net.sign(&[ADMIN], rename(FOUNDER, "newer"));
    net.commit(newer).unwrap();
    let seq = older.transaction.seq;
    assert_eq!(net.commit(older), Err(TxError::Replayed { seq, last: seq + 1 }));
}

#[test]
fn a_transaction_is_valid_to_its_last_moment_and_no_longer() {
    let mut net = Net::new();
    let transaction = net.sign(&[ADMIN], rename(FOUNDER, "late"));
    let until = transaction.transaction.valid_until;
    let one = std::slice::from_ref(&transaction);
    assert_eq!(net.propose(until, one).dropped, []);
    let expired = TxError::Expired { valid_until: until.0, time: until.0 + 1 };
    assert_eq!(net.propose(UnixMillis(until.0 + 1), one).dropped, [(transaction.id(), expired)]);
}

#[test]
fn a_last_moment_is_a_day_ahead_and_a_month_when_shared() {
    let net = Net::new();
    let time = net.later();
    let dropped = |seeds: &[u8], ahead: Duration| {
        let author = key(ADMIN).verifying_key();
        let transaction = net.sign_with(seeds, Transaction::new(author, 1, time.after(ahead), rename(FOUNDER, "name")));
        net.propose(time, &[transaction]).dropped.pop().map(|(_, error)| error)
    };
    let millisecond = Duration::from_millis(1);
    assert_eq!(dropped(&[ADMIN], MAX_VALIDITY), None);
    assert_eq!(dropped(&[ADMIN], MAX_VALIDITY + millisecond), Some(TxError::ValidTooLong));
    assert_eq!(dropped(&[ADMIN, FOUNDER], MAX_VALIDITY_SHARED), None);
    assert_eq!(dropped(&[ADMIN, FOUNDER], MAX_VALIDITY_SHARED + millisecond), Some(TxError::ValidTooLong));
}

#[test]
fn a_member_makes_sixteen_transactions_a_day_and_a_signer_as_many_as_it_likes() {
    let mut net = Net::new();
    let seeds = [FOUNDER, ADMIN];
    let midnight = UnixMillis((BEGIN.0 / 86_400_000 + 1) * 86_400_000);
    for seed in seeds {
        let many: Vec<_> =
            (0..20).map(|count| net.sign(&[seed], rename(FOUNDER, &format!("s{seed}-{count}")))).collect();
        let many: Vec<_> = many
            .iter()
            .map(|signed| Transaction { valid_until: midnight.after(HOUR), ..signed.transaction.clone() })
            .map(|transaction| net.sign_with(&[seed], transaction))
            .collect();
        let dropped = net.propose(midnight, &many).dropped;
        let expected = if seed == FOUNDER { 4 } else { 0 };
        assert_eq!(dropped.len(), expected);
        assert!(dropped.iter().all(|(_, error)| *error == TxError::TooMany));
    }
}

#[test]
fn the_count_of_a_day_ends_with_it() {
    let mut net = Net::new();
    let midnight = UnixMillis((BEGIN.0 / 86_400_000 + 2) * 86_400_000);
    for (time, count) in [(UnixMillis(midnight.0 - 2), 16), (midnight, 16)] {
        let many: Vec<_> = (0..count)
            .map(|count| net.sign(&[FOUNDER], rename(FOUNDER, &format!("t{}-{count}", time.0))))
            .map(|signed| Transaction { valid_until: time, ..signed.transaction.clone() })
            .collect();
        let many: Vec<_> = many.into_iter().map(|transaction| net.sign_with(&[FOUNDER], transaction)).collect();
        assert_eq!(net.commit_at(time, &many).dropped, []);
    }
    assert_eq!(net.state.author(&key(FOUNDER).verifying_key()).count, 16);
}
