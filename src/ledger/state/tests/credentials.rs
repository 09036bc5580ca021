use super::*;
use crate::ledger::operation::{Credential, Join};

const CREDENTIAL: u8 = 9;

fn with_credential(change: impl FnOnce(&mut Credential)) -> Net {
    let mut net = Net::new();
    let until = net.later().after(DAY * 7);
    let mut credential = credential(CREDENTIAL, 1, until);
    change(&mut credential);
    net.order(Operation::Credential(credential)).unwrap();
    net
}

#[test]
fn who_holds_the_secret_of_a_credential_joins_by_it() {
    let mut net = with_credential(|credential| credential.tags = BTreeSet::from([label("guest")]));
    let transaction = net.joining(join(NODE, CREDENTIAL), CREDENTIAL, NODE);
    net.commit(transaction).unwrap();
    let member = net.state.member(&id(NODE)).unwrap();
    assert_eq!(member.tags, BTreeSet::from([label("guest")]));
    assert_eq!(member.admitted_by, key(ADMIN).verifying_key());
    assert!(net.state.credentials().is_empty());
}

#[test]
fn two_joins_on_a_one_use_credential_in_one_block_are_one_admission() {
    let mut net = with_credential(|_| {});
    let joins = [NODE, NODE + 1].map(|seed| net.joining(join(seed, CREDENTIAL), CREDENTIAL, seed));
    let time = net.later();
    let built = net.commit_at(time, &joins);
    assert_eq!(built.dropped, [(joins[1].id(), TxError::NoSuchCredential)]);
    assert!(net.is_member(NODE) && !net.is_member(NODE + 1));
}

#[test]
fn a_credential_admits_as_many_as_it_says() {
    let mut net = with_credential(|credential| credential.uses = 3);
    let joins: Vec<_> = (NODE..NODE + 5).map(|seed| net.joining(join(seed, CREDENTIAL), CREDENTIAL, seed)).collect();
    let time = net.later();
    assert_eq!(net.commit_at(time, &joins).dropped.len(), 2);
    assert_eq!(net.state.members().len(), 4);
}

#[test]
fn a_join_needs_the_identity_and_the_credential_to_sign() {
    let mut net = with_credential(|_| {});
    let forgeries: [&[u8]; 3] = [&[NODE], &[CREDENTIAL], &[CREDENTIAL, NODE]];
    for seeds in forgeries {
        let transaction = net.sign(seeds, vec![Operation::Join(join(NODE, CREDENTIAL))]);
        assert_eq!(net.commit(transaction), Err(TxError::JoinNotSigned));
    }
    let other = net.joining(join(NODE, NODE + 1), NODE + 1, NODE);
    assert_eq!(net.commit(other), Err(TxError::NoSuchCredential));
}

#[test]
fn a_credential_ends_at_its_time() {
    let mut net = with_credential(|_| {});
    let expires = net.state.credentials()[0].1.expires;
    net.commit_at(UnixMillis(expires.0 - 1), &[]);
    assert_eq!(net.state.credentials().len(), 1);
    let transaction = net.joining(join(NODE, CREDENTIAL), CREDENTIAL, NODE);
    let built = net.commit_at(expires, std::slice::from_ref(&transaction));
    assert_eq!(built.dropped, [(transaction.id(), TxError::NoSuchCredential)]);
    assert!(net.state.credentials().is_empty());
}

#[test]
fn a_revoked_credential_admits_nobody() {
    let mut net = with_credential(|_| {});
    let key_hash = net.state.credentials()[0].0;
    net.order(Operation::CredentialRevoke(CredentialRevoke { key_hash })).unwrap();
    let transaction = net.joining(join(NODE, CREDENTIAL), CREDENTIAL, NODE);
    assert_eq!(net.commit(transaction), Err(TxError::NoSuchCredential));
    let again = net.order(Operation::CredentialRevoke(CredentialRevoke { key_hash }));
    assert_eq!(again, Err(TxError::NoSuchCredential));
}

#[test]
fn a_revoked_identity_does_not_join_again() {
    let mut net = with_credential(|credential| credential.uses = 2);
    net.commit(net.revocation(ADMIN, &[(NODE, 0)])).unwrap();
    let transaction = net.joining(join(NODE, CREDENTIAL), CREDENTIAL, NODE);
    assert_eq!(net.commit(transaction), Err(TxError::WasRevoked(id(NODE))));
    assert_eq!(net.state.credentials()[0].1.uses, 2, "a refused join uses nothing");
}

#[test]
fn revoking_a_member_ends_the_credential_that_it_joined_by_and_those_that_it_issued() {
    let mut net = with_credential(|credential| credential.uses = 5);
    let transaction = net.joining(join(NODE, CREDENTIAL), CREDENTIAL, NODE);
    net.commit(transaction).unwrap();
    let set = SignerSet { key: key(NODE).verifying_key(), weight: 1, scopes: Scopes::ALL };
    net.order(Operation::SignerSet(set)).unwrap();
    let until = net.later().after(DAY);
    let issued = net.sign(&[NODE], vec![Operation::Credential(credential(8, 5, until))]);
    net.commit(issued).unwrap();
    assert_eq!(net.state.credentials().len(), 2);
    net.commit(net.revocation(ADMIN, &[(NODE, 0)])).unwrap();
    assert!(net.state.credentials().is_empty());
    assert_eq!(net.state.next_ending(), None);
}

#[test]
fn a_signer_that_may_invite_no_more_leaves_no_invitation_behind() {
    for (weight, scopes) in [(0, Scopes::ALL), (1, Scopes::from_iter([Scope::Revocation]))] {
        let mut net = Net::new();
        let set = |weight, scopes| SignerSet { key: key(NODE).verifying_key(), weight, scopes };
        net.order(Operation::SignerSet(set(1, Scopes::ALL))).unwrap();
        let until = net.later().after(DAY);
        let issued = net.sign(&[NODE], vec![Operation::Credential(credential(8, 5, until))]);
        net.commit(issued).unwrap();
        net.order(Operation::SignerSet(set(2, Scopes::ALL))).unwrap();
        assert_eq!(net.state.credentials().len(), 1);
        net.order(Operation::SignerSet(set(weight, scopes))).unwrap();
        assert!(net.state.credentials().is_empty());
        assert_eq!(net.state.next_ending(), None);
    }
}

#[test]
fn a_name_in_the_credential_comes_before_the_one_that_the_joiner_wishes() {
    let mut net = with_credential(|credential| credential.name = Some(label("mail")));
    let wish = Join { name: Some(label("boss")), ..join(NODE, CREDENTIAL) };
    let transaction = net.joining(wish, CREDENTIAL, NODE);
    net.commit(transaction).unwrap();
    assert_eq!(net.state.member(&id(NODE)).unwrap().name, label("mail"));
}

#[test]
fn a_joiner_does_not_give_itself_a_name_that_people_trust() {
    let mut net = with_credential(|_| {});
    let wish = Join { name: Some(label("mail")), ..join(NODE, CREDENTIAL) };
    let transaction = net.joining(wish, CREDENTIAL, NODE);
    assert_eq!(net.commit(transaction), Err(TxError::NameReserved(label("mail"))));
}

#[test]
fn a_credential_that_nobody_could_use_is_refused() {
    let mut net = Net::new();
    let now = net.later();
    let year = now.after(DAY * 367);
    let named = |uses| Credential { name: Some(label("web")), ..credential(CREDENTIAL, uses, now.after(DAY)) };
    for (credential, expected) in [
        (credential(CREDENTIAL, 0, now.after(DAY)), TxError::BadCredential),
        (credential(CREDENTIAL, 10_001, now.after(DAY)), TxError::BadCredential),
        (credential(CREDENTIAL, 1, year), TxError::BadCredential),
        (credential(CREDENTIAL, 1, now), TxError::EndsInThePast),
        (named(2), TxError::BadCredential),
    ] {
        let transaction = net.sign(&[ADMIN], vec![Operation::Credential(credential)]);
        let built = net.propose(now, std::slice::from_ref(&transaction));
        assert_eq!(built.dropped, [(transaction.id(), expected)]);
    }
    let transaction = net.sign(&[ADMIN], vec![Operation::Credential(named(1))]);
    assert_eq!(net.propose(now, &[transaction]).dropped, []);
}

#[test]
fn a_credential_is_made_once() {
    let mut net = with_credential(|_| {});
    let until = net.later().after(DAY);
    let again = net.order(Operation::Credential(credential(CREDENTIAL, 1, until)));
    assert_eq!(again, Err(TxError::CredentialExists));
}
