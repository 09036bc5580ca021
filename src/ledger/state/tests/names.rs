use super::*;
use crate::ledger::operation::{NameDel, NameSet, WhichRecords};
use crate::ledger::state::name_records::{MAX_RECORDS, MAX_RECORDS_OF_MEMBER, MAX_RECORDS_OF_NAME};
use crate::wire::record::{RecordData, RecordKind, RecordMark, RecordName, Target, Text};

fn name(text: &str) -> RecordName {
    text.parse().unwrap()
}

fn set(text: &str, data: RecordData) -> Operation {
    Operation::NameSet(NameSet { name: name(text), data })
}

fn address(seed: u8) -> RecordData {
    RecordData::Address(id(seed))
}

fn mail(target: Target) -> RecordData {
    RecordData::Mail { priority: 10, target }
}

fn to(seed: u8) -> Target {
    Target::Member(id(seed))
}

fn to_name(text: &str) -> Target {
    Target::Name(name(text))
}

fn service(port: u16, target: Target) -> RecordData {
    RecordData::Service { priority: 0, weight: 1, port, target }
}

fn text(string: &str) -> RecordData {
    RecordData::Text(Text::new(vec![string.to_owned()]).unwrap())
}

fn all_of(text: &str) -> Operation {
    Operation::NameDel(NameDel { name: name(text), which: WhichRecords::All })
}

/// A network with the members `ada` and `ben`.
fn ada_and_ben() -> Net {
    let mut net = Net::new();
    net.order(Operation::Admit(named(NODE, "ada"))).unwrap();
    net.order(Operation::Admit(named(NODE + 1, "ben"))).unwrap();
    net
}

impl Net {
    fn order_by(&mut self, seed: u8, operation: Operation) -> Result<(), TxError> {
        let transaction = self.sign(&[seed], vec![operation]);
        self.commit(transaction)
    }

    fn record_names(&self) -> Vec<String> {
        self.state.name_records().iter().map(|(name, _)| name.to_string()).collect()
    }
}

fn not_authorized() -> TxError {
    TxError::NotAuthorized { scope: Scope::Names, weight: 0, threshold: 1 }
}

#[test]
fn a_member_sets_records_at_and_below_its_own_name_and_nowhere_else() {
    let mut net = ada_and_ben();
    for operation in [
        set("www.ada", address(NODE)),
        set("ada", mail(to(NODE))),
        set("ada", text("v=spf1 a -all")),
        set("_imap._tcp.ada", service(143, to(NODE))),
        set("default._domainkey.ada", text("v=DKIM1; k=rsa; p=")),
    ] {
        assert_eq!(net.order_by(NODE, operation), Ok(()));
    }
    for foreign in ["ben", "x.ben", "@", "shop", "mail", "_dmarc", "www"] {
        assert_eq!(net.order_by(NODE, set(foreign, text("x"))), Err(not_authorized()), "{foreign}");
        assert_eq!(net.order(set(foreign, text("x"))), Ok(()), "a signer may: {foreign}");
        assert_eq!(net.order_by(NODE, all_of(foreign)), Err(not_authorized()), "{foreign}");
    }
    assert_eq!(net.order_by(NODE, all_of("ada")), Ok(()));
    assert_eq!(net.order(all_of("www.ada")), Ok(()), "a signer may end them too");
}

#[test]
fn a_signer_without_the_scope_names_sets_none() {
    let mut net = ada_and_ben();
    let scopes = [Scope::Members, Scope::Rights].into_iter().collect();
    net.order(Operation::SignerSet(SignerSet { key: key(NODE + 1).verifying_key(), weight: 1, scopes })).unwrap();
    assert_eq!(net.order_by(NODE + 1, set("shop", address(NODE))), Err(not_authorized()));
    assert_eq!(net.order_by(NODE + 1, set("www.ben", address(NODE))), Ok(()));
}

#[test]
fn names_of_members_and_names_with_records_do_not_collide() {
    let mut net = ada_and_ben();
    let taken = |text: &str| Err(TxError::NameTaken(label(text)));
    assert_eq!(net.order(set("ada", address(NODE + 1))), taken("ada"));
    assert_eq!(net.order_by(NODE, set("ada", address(NODE))), taken("ada"));
    net.order(set("shop", address(NODE))).unwrap();
    net.order(set("a.deep", text("x"))).unwrap();
    for owned in ["shop", "deep"] {
        assert_eq!(net.order(Operation::Admit(named(NODE + 2, owned))), taken(owned));
        let rename = Operation::Rename(Rename { identity: id(NODE), name: label(owned) });
        assert_eq!(net.order_by(NODE, rename), taken(owned));
    }
    let of_nobody = "node-01234567";
    assert_eq!(net.order(set(of_nobody, address(NODE))), Err(TxError::NameOfAnother(label(of_nobody))));
    net.commit(net.revocation(ADMIN, &[(NODE + 1, 0)])).unwrap();
    assert_eq!(net.order(set("x.ben", text("x"))), taken("ben"), "a name at rest waits for its last holder");
    net.order(all_of("shop")).unwrap();
    net.order(Operation::Admit(named(NODE + 2, "shop"))).unwrap();
}

#[test]
fn records_have_names_and_targets_that_fit_them() {
    let mut net = ada_and_ben();
    let host = |text: &str| Err(TxError::NotAHost(name(text)));
    assert_eq!(net.order(set("_x.shop", address(NODE))), host("_x.shop"));
    assert_eq!(net.order(set("_x", mail(to(NODE)))), host("_x"));
    for unfit in ["shop", "_sip.shop", "x._sip._tcp"] {
        assert_eq!(net.order(set(unfit, service(1, to(NODE)))), Err(TxError::NotAService(name(unfit))));
    }
    assert_eq!(net.order(set("@", mail(to(NODE + 5)))), Err(TxError::NotAMember(id(NODE + 5))));
    assert_eq!(net.order(set("shop", address(NODE + 5))), Err(TxError::NotAMember(id(NODE + 5))));
    assert_eq!(net.order(set("@", mail(to_name("mail")))), Err(TxError::NoSuchTarget(name("mail"))));
    assert_eq!(net.order(set("@", mail(to_name("ada")))), Err(TxError::NoSuchTarget(name("ada"))));
    net.order(set("mail", address(NODE))).unwrap();
    net.order(set("@", mail(to_name("mail")))).unwrap();
    net.order(set("_smtp._tcp", service(25, to_name("mail")))).unwrap();
}

#[test]
fn a_record_with_the_same_mark_takes_the_place_of_the_older_one() {
    let mut net = ada_and_ben();
    net.order(set("@", mail(to(NODE)))).unwrap();
    let better = RecordData::Mail { priority: 5, target: to(NODE) };
    net.order(set("@", better.clone())).unwrap();
    net.order(set("@", mail(to(NODE + 1)))).unwrap();
    let records = net.state.name_records();
    assert_eq!(records.len(), 2);
    assert!(records.iter().any(|(_, record)| record.data == better && record.author == key(ADMIN).verifying_key()));
    let one = |mark| Operation::NameDel(NameDel { name: name("@"), which: WhichRecords::One(mark) });
    assert_eq!(net.order(one(RecordMark::Mail(to(FOUNDER)))), Err(TxError::NoSuchRecord(name("@"))));
    assert_eq!(net.order(one(RecordMark::Mail(to(NODE)))), Ok(()));
    assert_eq!(net.state.name_records().len(), 1);
}

#[test]
fn records_are_deleted_by_their_kind_and_deleting_nothing_is_refused() {
    let mut net = ada_and_ben();
    net.order(set("shop", address(NODE))).unwrap();
    net.order(set("shop", text("x"))).unwrap();
    net.order(set("a.shop", text("below"))).unwrap();
    let texts = Operation::NameDel(NameDel { name: name("shop"), which: WhichRecords::Kind(RecordKind::Text) });
    assert_eq!(net.order(texts.clone()), Ok(()));
    assert_eq!(net.order(texts), Err(TxError::NoSuchRecord(name("shop"))));
    assert_eq!(net.order(all_of("nothing")), Err(TxError::NoSuchRecord(name("nothing"))));
    assert_eq!(net.record_names(), ["shop", "a.shop"]);
}

#[test]
fn what_belongs_or_points_to_a_member_goes_with_it() {
    let mut net = ada_and_ben();
    for operation in [
        set("www.ada", address(NODE + 1)),
        set("ada", mail(to(NODE + 1))),
        set("www.ben", address(NODE)),
        set("mail", address(NODE)),
        set("pool", address(NODE)),
        set("pool", address(NODE + 1)),
        set("@", mail(to_name("mail"))),
        set("@", mail(to_name("pool"))),
        set("_smtp._tcp", service(25, to_name("www.ada"))),
        set("shop", mail(to(NODE))),
        set("note", text("stays")),
    ] {
        net.order(operation).unwrap();
    }
    let pending = BTreeMap::from([(id(NODE), 0)]);
    let on_sight = net.state.policy(&pending);
    let built = net.propose(net.later(), &[net.revocation(ADMIN, &[(NODE, 0)])]);
    assert!(built.execution.effects.contains(&Effect::RecordEnded(name("www.ada"))));
    net.commit(net.revocation(ADMIN, &[(NODE, 0)])).unwrap();
    assert_eq!(net.record_names(), ["@", "note", "pool"]);
    let after = net.state.policy(&BTreeMap::new());
    assert_eq!(on_sight.names(), after.names(), "on sight as much is cut as by the block");
    assert_eq!(after.names().of(&name("@")), [mail(to_name("pool"))]);
}

#[test]
fn a_membership_that_ends_by_itself_takes_its_records_along() {
    let mut net = ada_and_ben();
    let expires = net.later().after(DAY);
    let brief = crate::ledger::operation::Admit { expires: Some(expires), ..named(NODE + 2, "cleo") };
    net.order(Operation::Admit(brief)).unwrap();
    net.order_by(NODE + 2, set("www.cleo", address(NODE + 2))).unwrap();
    net.order(set("shop", address(NODE + 2))).unwrap();
    net.commit_at(expires, &[]);
    assert_eq!(net.record_names(), [""; 0]);
}

#[test]
fn a_renamed_member_keeps_what_points_to_it_and_loses_what_belongs_to_the_old_name() {
    let mut net = ada_and_ben();
    net.order_by(NODE, set("www.ada", address(NODE))).unwrap();
    net.order(set("shop", address(NODE))).unwrap();
    net.order(Operation::Rename(Rename { identity: id(NODE), name: label("ann") })).unwrap();
    assert_eq!(net.record_names(), ["shop"]);
    assert_eq!(net.order_by(NODE, set("www.ann", address(NODE))), Ok(()));
    assert_eq!(net.order_by(NODE, set("x.ada", text("x"))), Err(not_authorized()));
}

#[test]
fn a_name_a_member_and_a_network_have_so_many_records_and_no_more() {
    let mut net = ada_and_ben();
    let fill = |net: &mut Net, by: u8, at: &dyn Fn(usize) -> String, count: usize| {
        let operations: Vec<_> = (0..count).map(|number| set(&at(number), text(&number.to_string()))).collect();
        for chunk in operations.chunks(16) {
            let transaction = net.sign(&[by], chunk.to_vec());
            net.commit(transaction).unwrap();
        }
    };
    fill(&mut net, ADMIN, &|_| "shop".to_owned(), MAX_RECORDS_OF_NAME);
    assert_eq!(net.order(set("shop", text("more"))), Err(TxError::TooManyRecordsOfName(name("shop"))));
    assert_eq!(net.order(set("shop", text("0"))), Ok(()), "one that is there may be set again");
    fill(&mut net, NODE, &|number| format!("a{number}.ada"), MAX_RECORDS_OF_MEMBER);
    let full = Err(TxError::TooManyRecordsOfMember(label("ada")));
    assert_eq!(net.order_by(NODE, set("more.ada", text("x"))), full);
    assert_eq!(net.order_by(NODE + 1, set("www.ben", address(NODE))), Ok(()));
    let rest = MAX_RECORDS as usize - MAX_RECORDS_OF_NAME;
    fill(&mut net, ADMIN, &|number| format!("n{number}"), rest);
    assert_eq!(net.order(set("more", text("x"))), Err(TxError::TooManyRecords));
    assert_eq!(net.order_by(NODE + 1, set("x.ben", text("x"))), Ok(()), "members have room of their own");
    net.order(all_of("n7")).unwrap();
    assert_eq!(net.order(set("more", text("x"))), Ok(()));
    net.order(all_of("a3.ada")).unwrap();
    assert_eq!(net.order_by(NODE, set("more.ada", text("x"))), Ok(()));
}

#[test]
fn a_state_with_records_is_restored_from_its_entries() {
    let mut net = ada_and_ben();
    for operation in [set("mail", address(NODE)), set("@", mail(to_name("mail"))), set("www.ada", text("x"))] {
        net.order(operation).unwrap();
    }
    let entries: Vec<_> = net.state.entries().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    assert_eq!(State::from_entries(net.chain(), entries.clone()), Ok(net.state));
    for broken in [vec![24], vec![24, 0, 0, 1], vec![24, 0, b'A', b'.', 0], vec![24, 1, 2], vec![24, 3]] {
        let entries = entries.iter().cloned().chain([(broken, vec![0])]);
        assert_eq!(State::from_entries(net.genesis.network_id(), entries), Err(UnreadableEntry));
    }
}
