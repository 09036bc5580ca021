use super::super::testing::{lab, zone};
use super::*;
use hickory_proto::rr::rdata::opt::EdnsOption;
use proptest::prelude::*;

/// A question as a resolver sends it, with the id 7.
fn question(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let labels = name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    message.add_query(Query::query(Name::from_labels(labels).unwrap(), record_type));
    message
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.edns = Some(edns);
    message
}

fn send(zone: &Zone, message: &Message, transport: Transport) -> Message {
    let answer = answer(zone, &message.to_vec().unwrap(), transport).unwrap();
    Message::from_vec(&answer.bytes).unwrap()
}

fn ask(name: &str, record_type: RecordType) -> Message {
    send(&lab(), &question(name, record_type), Transport::Udp)
}

/// The records of a section, as in a zone file.
fn shown(records: &[Record]) -> Vec<String> {
    records.iter().map(|it| format!("{} {} {}", it.name, it.record_type(), it.data)).collect()
}

fn code(reply: &Message) -> ResponseCode {
    reply.metadata.response_code
}

#[test]
fn a_member_an_alias_and_a_group_have_addresses() {
    let reply = ask("ada.lab.internal", RecordType::A);
    assert_eq!(shown(&reply.answers), ["ada.lab.internal. A 10.77.0.2"]);
    assert_eq!(reply.answers[0].ttl, TTL);
    let metadata = reply.metadata;
    assert!(metadata.authoritative && metadata.recursion_desired && !metadata.recursion_available);
    assert_eq!(metadata.id, 7);
    assert_eq!(
        shown(&ask("mail.lab.internal", RecordType::AAAA).answers),
        ["mail.lab.internal. AAAA fdab:abab:abab::2"]
    );
    assert_eq!(ask("pool.lab.internal", RecordType::A).answers.len(), 2);
    assert_eq!(shown(&ask("dns.lab.internal", RecordType::A).answers), ["dns.lab.internal. A 10.77.0.53"]);
}

#[test]
fn mail_and_services_come_with_their_addresses() {
    let reply = ask("lab.internal", RecordType::MX);
    assert_eq!(shown(&reply.answers), ["lab.internal. MX 10 mail.lab.internal."]);
    assert_eq!(
        shown(&reply.additionals),
        ["mail.lab.internal. A 10.77.0.2", "mail.lab.internal. AAAA fdab:abab:abab::2"]
    );
    let reply = ask("_imap._tcp.ada.lab.internal", RecordType::SRV);
    assert_eq!(shown(&reply.answers), ["_imap._tcp.ada.lab.internal. SRV 1 2 143 ada.lab.internal."]);
    assert_eq!(reply.additionals.len(), 2);
    assert_eq!(shown(&ask("lab.internal", RecordType::TXT).answers), ["lab.internal. TXT v=spf1 mx -all"]);
    assert_eq!(shown(&ask("lab.internal", RecordType::NS).answers), ["lab.internal. NS dns.lab.internal."]);
}

#[test]
fn a_name_that_is_not_there_and_one_without_such_records_are_told_apart_and_kept_briefly() {
    for (name, record_type, expected) in [
        ("nobody.lab.internal", RecordType::A, ResponseCode::NXDomain),
        ("x.ada.lab.internal", RecordType::A, ResponseCode::NXDomain),
        ("_tcp.ada.lab.internal", RecordType::A, ResponseCode::NoError),
        ("ada.lab.internal", RecordType::SRV, ResponseCode::NoError),
        ("ada.lab.internal", RecordType::CNAME, ResponseCode::NoError),
        ("lab.internal", RecordType::A, ResponseCode::NoError),
        ("9.0.77.10.in-addr.arpa", RecordType::PTR, ResponseCode::NXDomain),
        ("0.77.10.in-addr.arpa", RecordType::PTR, ResponseCode::NoError),
    ] {
        let reply = ask(name, record_type);
        assert_eq!((code(&reply), reply.answers.len()), (expected, 0), "{name} {record_type}");
        let [soa] = reply.authorities.as_slice() else { panic!("{name}: {:?}", reply.authorities) };
        assert!(matches!(&soa.data, RData::SOA(data) if data.minimum == NEGATIVE_TTL && data.serial == 7));
        let apex = if name.ends_with("arpa") { "0.77.10.in-addr.arpa." } else { "lab.internal." };
        assert_eq!((soa.name.to_string().as_str(), soa.ttl), (apex, NEGATIVE_TTL));
        assert!(reply.metadata.authoritative);
    }
}

#[test]
fn an_address_is_confirmed_both_ways() {
    let v6 = "2.".to_owned() + &"0.".repeat(19) + "b.a.b.a.b.a.b.a.b.a.d.f.ip6.arpa";
    for reverse in ["2.0.77.10.in-addr.arpa", &v6] {
        let reply = ask(reverse, RecordType::PTR);
        let [RData::PTR(pointer)] = reply.answers.iter().map(|it| &it.data).collect::<Vec<_>>()[..] else {
            panic!("{reverse}: {:?}", reply.answers)
        };
        assert_eq!(pointer.0.to_string(), "ada.lab.internal.");
    }
    assert_eq!(
        shown(&ask("53.0.77.10.in-addr.arpa", RecordType::PTR).answers)[0],
        "53.0.77.10.in-addr.arpa. PTR dns.lab.internal."
    );
    assert_eq!(
        shown(&ask("0.77.10.in-addr.arpa", RecordType::NS).answers)[0],
        "0.77.10.in-addr.arpa. NS dns.lab.internal."
    );
}

#[test]
fn the_case_of_a_question_is_no_matter_and_comes_back_as_it_was() {
    let reply = ask("aDa.LAB.iNTernal", RecordType::A);
    assert_eq!(reply.queries[0].name().to_string(), "aDa.LAB.iNTernal.");
    assert_eq!(shown(&reply.answers), ["aDa.LAB.iNTernal. A 10.77.0.2"]);
}

#[test]
fn what_is_not_of_the_zone_is_refused_and_never_asked_for_elsewhere() {
    for (name, record_type) in [
        ("example.com", RecordType::A),
        (".", RecordType::NS),
        ("internal", RecordType::SOA),
        ("1.1.168.192.in-addr.arpa", RecordType::PTR),
        ("lab.internal", RecordType::AXFR),
        ("lab.internal", RecordType::IXFR),
    ] {
        let reply = ask(name, record_type);
        assert_eq!((code(&reply), reply.answers.len()), (ResponseCode::Refused, 0), "{name}");
        assert!(reply.authorities.is_empty() && reply.additionals.is_empty() && !reply.metadata.authoritative);
    }
    let mut chaos = question("version.bind", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&send(&lab(), &chaos, Transport::Udp)), ResponseCode::Refused);
}

#[test]
fn any_gets_one_type() {
    assert_eq!(shown(&ask("ada.lab.internal", RecordType::ANY).answers), ["ada.lab.internal. A 10.77.0.2"]);
    assert_eq!(shown(&ask("lab.internal", RecordType::ANY).answers), ["lab.internal. MX 10 mail.lab.internal."]);
    assert_eq!(ask("2.0.77.10.in-addr.arpa", RecordType::ANY).answers.len(), 1);
}

#[test]
fn an_answer_that_is_too_long_for_udp_comes_by_tcp() {
    let zone = lab();
    for (asked, allowed) in [(None, 512), (Some(0), 512), (Some(1232), 1232), (Some(65_535), 1232)] {
        let message = question("long.lab.internal", RecordType::TXT);
        let message = asked.map_or_else(|| message.clone(), |payload| with_edns(message.clone(), payload));
        let answer = answer(&zone, &message.to_vec().unwrap(), Transport::Udp).unwrap();
        let reply = Message::from_vec(&answer.bytes).unwrap();
        assert!(answer.bytes.len() <= allowed && answer.is_truncated && reply.metadata.truncation);
        assert_eq!(
            (reply.answers.len(), reply.edns.is_some(), code(&reply)),
            (0, asked.is_some(), ResponseCode::NoError)
        );
    }
    let reply = send(&zone, &question("long.lab.internal", RecordType::TXT), Transport::Tcp);
    assert_eq!((reply.answers.len(), reply.metadata.truncation), (16, false));
}

#[test]
fn addresses_that_do_not_fit_beside_an_answer_are_left_out_of_it() {
    let name = |text: &str| text.parse::<RecordName>().unwrap();
    let id = |seed| crate::crypto::identity::NodeId([seed; 32]);
    let long = |number: u8| name(&format!("{}.{}", "m".repeat(60), char::from(b'a' + number).to_string().repeat(60)));
    let mail = (0..3).map(|at| (name("@"), RecordData::Mail { priority: 1, target: Target::Name(long(at)) }));
    let hosts = (0..3).flat_map(|at| (1..4).map(move |seed| (long(at), RecordData::Address(id(seed)))));
    let zone = zone(mail.chain(hosts));
    let reply = send(&zone, &question("lab.internal", RecordType::MX), Transport::Udp);
    assert_eq!((reply.answers.len(), reply.additionals.len(), reply.metadata.truncation), (3, 0, false));
    let reply = send(&zone, &question("lab.internal", RecordType::MX), Transport::Tcp);
    assert_eq!((reply.answers.len(), reply.additionals.len()), (3, 18));
}

#[test]
fn options_are_answered_in_version_0_and_refused_in_another() {
    let reply = send(&lab(), &with_edns(question("ada.lab.internal", RecordType::A), 4096), Transport::Udp);
    let edns = reply.edns.as_ref().unwrap();
    assert_eq!((edns.max_payload(), edns.version(), reply.answers.len()), (MAX_UDP_LEN, 0, 1));
    let mut later = with_edns(question("ada.lab.internal", RecordType::A), 4096);
    later.edns.as_mut().unwrap().set_version(1);
    let reply = send(&lab(), &later, Transport::Udp);
    assert_eq!((u16::from(code(&reply)), reply.answers.len()), (16, 0), "BADVERS");
    let mut padded = with_edns(question("ada.lab.internal", RecordType::A), 1232);
    padded.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Unknown(12, vec![0; 400]));
    assert_eq!(code(&send(&lab(), &padded, Transport::Udp)), ResponseCode::NoError);
}

#[test]
fn what_is_no_question_gets_the_code_for_it_or_nothing() {
    let zone = lab();
    let reply_to = |bytes: &[u8]| answer(&zone, bytes, Transport::Udp);
    let good = question("ada.lab.internal", RecordType::A).to_vec().unwrap();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        reply_to(&bytes).map(|answer| answer.code)
    };
    assert_eq!(changed(&|_| ()), Ok(0));
    assert_eq!(changed(&|bytes| bytes.truncate(11)), Err(Unanswerable::Short));
    assert_eq!(changed(&|bytes| bytes[2] |= 0x80), Err(Unanswerable::Response));
    assert_eq!(changed(&|bytes| bytes.resize(MAX_QUERY_LEN + 1, 0)), Err(Unanswerable::Long));
    for opcode in 1..16 {
        assert_eq!(changed(&|bytes| bytes[2] |= opcode << 3), Ok(4), "opcode {opcode}");
    }
    assert_eq!(changed(&|bytes| bytes[5] = 0), Ok(1), "no question");
    assert_eq!(changed(&|bytes| bytes[5] = 2), Ok(1), "two questions");
    assert_eq!(changed(&|bytes| bytes.truncate(20)), Ok(1), "half a question");
    assert_eq!(changed(&|bytes| bytes[11] = 3), Ok(1), "records that are not there");
    assert_eq!(changed(&|bytes| bytes[12] = 0xc0), Ok(1), "a pointer forward");
    assert_eq!(changed(&|bytes| (bytes[12], bytes[13]) = (0xc0, 12)), Ok(1), "a name that points to itself");
    let twice = [good.clone(), good[12..].to_vec()].concat();
    let mut two = twice;
    two[5] = 2;
    let answer = reply_to(&two).unwrap();
    assert_eq!((answer.code, &answer.bytes[..2]), (1, &good[..2]), "the id comes back");
    let mut doubled = with_edns(question("ada.lab.internal", RecordType::A), 1232).to_vec().unwrap();
    let options = doubled[good.len()..].to_vec();
    doubled.extend(options);
    doubled[11] = 2;
    assert_eq!(reply_to(&doubled).unwrap().code, 1, "two sets of options");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_message_makes_it_panic_or_answer_more_than_is_allowed(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        as_question in any::<bool>(),
        by_tcp in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if as_question && bytes.len() > 12 {
            bytes[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        }
        let transport = if by_tcp { Transport::Tcp } else { Transport::Udp };
        if let Ok(answer) = answer(&lab(), &bytes, transport) {
            prop_assert!(answer.bytes.len() >= HEADER_LEN && answer.bytes[2] & 0x80 != 0);
            prop_assert_eq!(&answer.bytes[..2], &bytes[..2]);
            prop_assert!(by_tcp || answer.bytes.len() <= usize::from(MAX_UDP_LEN));
            prop_assert!(Message::from_vec(&answer.bytes).is_ok());
        }
    }

    #[test]
    fn a_changed_question_is_answered_within_its_bounds(
        at in 0usize..60, byte in any::<u8>(), payload in any::<u16>(), which in 0usize..4,
    ) {
        let names = ["long.lab.internal", "lab.internal", "_imap._tcp.ada.lab.internal", "2.0.77.10.in-addr.arpa"];
        let mut bytes = with_edns(question(names[which], RecordType::ANY), payload).to_vec().unwrap();
        let len = bytes.len();
        bytes[at % len] = byte;
        if let Ok(answer) = answer(&lab(), &bytes, Transport::Udp) {
            prop_assert!(answer.bytes.len() <= usize::from(MAX_UDP_LEN));
            prop_assert!(Message::from_vec(&answer.bytes).is_ok());
        }
    }
}
