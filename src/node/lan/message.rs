//! DNS messages to and from a LAN: one service, `_p2plus._udp.local`, in RFC 6763's shape and nothing else of multicast DNS (RFC 6762).
//!
//! ```text
//!   _p2plus._udp.local          PTR  I._p2plus._udp.local           I: 16 hexadecimal digits, drawn anew at every start
//!   I._p2plus._udp.local        SRV  port, I.local
//!                               TXT  "n=NETWORK TAG" "m=MEMBER TAG"
//!   I.local                     A, AAAA …
//! ```
//! An instance tells all of this in one message, always, so that each message can be read by itself: there is no cache of records that
//! somebody could fill.

use super::{MAX_ENDPOINTS, MemberTag, NetworkTag};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::{IpAddr, SocketAddr};

/// Bytes of a message that is read or written at most: a packet of an ordinary LAN.
pub const MAX_MESSAGE_LEN: usize = 1472;

/// Instances that are read of one message: each node speaks for itself, and some relay of a LAN perhaps for a few.
const MAX_ADVERTS: usize = 8;

/// Addresses that are told of one interface.
const MAX_ADDRESSES: usize = 8;

/// The label by which a message that concerns nobody here is known at a glance, as it stands in every message that does (RFC 1035 §3.1).
const SERVICE_LABEL: &[u8] = b"\x07_p2plus";

/// What we look for and are.
const SERVICE: [&str; 3] = ["_p2plus", "_udp", "local"];

/// How long records hold, in seconds (RFC 6762 §10): those with addresses, and others.
const HOST_TTL: u32 = 120;
const SERVICE_TTL: u32 = 4500;

/// The class IN, and the bit beside it that says: nobody else has a record of this name and type (RFC 6762 §10.2).
const CLASS_IN: u16 = 1;
const CACHE_FLUSH: u16 = 0x8000;

/// The name of an instance, which reveals nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instance(pub [u8; 8]);

/// What a node tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advert {
    /// Its network.
    pub network: NetworkTag,
    /// Who it is.
    pub member: MemberTag,
    /// Where it is.
    pub endpoints: Vec<SocketAddr>,
}

/// What a message is to us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// Somebody asks who is there, and does not know this instance yet.
    Question,
    /// Nodes say where they are.
    Adverts(Vec<Advert>),
}

/// Whether what is told holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    /// From now on.
    Holds,
    /// No more: the node leaves.
    Ends,
}

/// Writes the question who is there.
pub fn encode_question() -> Vec<u8> {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.queries.extend(service().map(|service| Query::query(service, RecordType::PTR)));
    message.to_vec().unwrap_or_default()
}

/// Writes what a node tells: its tags, its port, and its addresses on the LAN at hand, the first few of them.
pub fn encode_advert(
    instance: Instance,
    tags: (NetworkTag, MemberTag),
    port: u16,
    addresses: &[IpAddr],
    validity: Validity,
) -> Vec<u8> {
    advert(instance, tags, port, addresses, validity).and_then(|message| message.to_vec().ok()).unwrap_or_default()
}

fn advert(
    instance: Instance,
    (network, member): (NetworkTag, MemberTag),
    port: u16,
    addresses: &[IpAddr],
    validity: Validity,
) -> Option<Message> {
    let label = hex(&instance.0);
    let (service, host) = (service()?, Name::from_labels([label.as_bytes(), b"local"]).ok()?);
    let full = service.prepend_label(label.as_bytes()).ok()?;
    let record = |name: &Name, ttl, data, is_unique| {
        let ttl = if validity == Validity::Holds { ttl } else { 0 };
        let mut record = Record::from_rdata(name.clone(), ttl, data);
        record.dns_class = DNSClass::from(CLASS_IN | if is_unique { CACHE_FLUSH } else { 0 });
        record
    };
    let text = vec![format!("n={}", hex(&network.0)), format!("m={}", hex(&member.0))];
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    // RFC 6762 §18.4: every answer is authoritative.
    message.metadata.authoritative = true;
    message.answers.push(record(&service, SERVICE_TTL, RData::PTR(PTR(full.clone())), false));
    message.additionals.push(record(&full, HOST_TTL, RData::SRV(SRV::new(0, 0, port, host.clone())), true));
    message.additionals.push(record(&full, SERVICE_TTL, RData::TXT(TXT::new(text)), true));
    message.additionals.extend(addresses.iter().take(MAX_ADDRESSES).map(|address| {
        let data = match address {
            IpAddr::V4(address) => RData::A(A(*address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
        };
        record(&host, HOST_TTL, data, true)
    }));
    Some(message)
}

/// Reads a message; `None` when it is none to us. `own` is this node's instance.
pub fn decode(bytes: &[u8], own: Instance) -> Option<Heard> {
    if bytes.len() > MAX_MESSAGE_LEN || !bytes.windows(SERVICE_LABEL.len()).any(|it| it == SERVICE_LABEL) {
        return None;
    }
    let message = Message::from_vec(bytes).ok()?;
    if message.metadata.op_code != OpCode::Query {
        return None;
    }
    let service = service()?;
    if message.metadata.message_type == MessageType::Query {
        let kinds = [RecordType::PTR, RecordType::ANY];
        let asks = |query: &Query| kinds.contains(&query.query_type()) && *query.name() == service;
        let is_question = message.queries.iter().any(asks) && !knows(&message, &service, own);
        return is_question.then_some(Heard::Question);
    }
    let adverts = adverts(&message, &service);
    (!adverts.is_empty()).then_some(Heard::Adverts(adverts))
}

/// Says whether who asks knows this instance already, for a while to come (RFC 6762 §7.1).
fn knows(message: &Message, service: &Name, own: Instance) -> bool {
    let label = hex(&own.0);
    message.answers.iter().any(|record| match &record.data {
        RData::PTR(target) => {
            record.name == *service && record.ttl >= SERVICE_TTL / 2 && target.0.iter().next() == Some(label.as_bytes())
        }
        _ => false,
    })
}

fn adverts(message: &Message, service: &Name) -> Vec<Advert> {
    let records = || message.answers.iter().chain(&message.additionals).filter(|record| is_valid(record));
    let located = records().filter_map(|record| match &record.data {
        RData::SRV(location) if record.name.base_name() == *service => Some((&record.name, location)),
        _ => None,
    });
    let advert = |(name, location): (&Name, &SRV)| {
        let mut texts = records().filter(|record| record.name == *name);
        let (network, member) = texts.find_map(|record| match &record.data {
            RData::TXT(text) => tags(text),
            _ => None,
        })?;
        let addresses = records().filter(|record| record.name == location.target);
        let endpoints = addresses.filter_map(|record| match &record.data {
            RData::A(address) => Some(SocketAddr::from((address.0, location.port))),
            RData::AAAA(address) => Some(SocketAddr::from((address.0, location.port))),
            _ => None,
        });
        Some(Advert { network, member, endpoints: endpoints.take(MAX_ENDPOINTS).collect() })
    };
    located.filter_map(advert).take(MAX_ADVERTS).collect()
}

/// Of class IN, and not taken back.
fn is_valid(record: &Record) -> bool {
    u16::from(record.dns_class) & !CACHE_FLUSH == CLASS_IN && record.ttl > 0
}

fn tags(text: &TXT) -> Option<(NetworkTag, MemberTag)> {
    let value = |key: &[u8]| text.txt_data.iter().find_map(|entry| entry.strip_prefix(key));
    Some((NetworkTag(unhex(value(b"n=")?)?), MemberTag(unhex(value(b"m=")?)?)))
}

fn service() -> Option<Name> {
    Name::from_labels(SERVICE.map(str::as_bytes)).ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads lower-case digits, as we write them.
fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Instance = Instance([1; 8]);
    const OTHER: Instance = Instance([0xab; 8]);
    const TAGS: (NetworkTag, MemberTag) = (NetworkTag([0x11; 8]), MemberTag([0x2f; 16]));

    fn told(addresses: &[&str], validity: Validity) -> Vec<u8> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        encode_advert(OTHER, TAGS, 4647, &addresses, validity)
    }

    #[test]
    fn what_a_node_tells_is_read_by_another() {
        let bytes = told(&["192.168.1.2", "2001:db8::2"], Validity::Holds);
        let endpoints = ["192.168.1.2:4647", "[2001:db8::2]:4647"].map(|text| text.parse().unwrap()).to_vec();
        let advert = Advert { network: TAGS.0, member: TAGS.1, endpoints };
        assert_eq!(decode(&bytes, OWN), Some(Heard::Adverts(vec![advert])));
        assert!(bytes.len() < 300, "{}", bytes.len());
    }

    #[test]
    fn the_bytes_hold_no_name_of_network_or_node() {
        let bytes = told(&["192.168.1.2"], Validity::Holds);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for needed in ["_p2plus", "_udp", "abababababababab", "n=1111111111111111", "m=2f2f"] {
            assert!(text.contains(needed), "{needed}");
        }
    }

    #[test]
    fn a_question_is_heard_unless_who_asks_knows_the_answer() {
        assert_eq!(decode(&encode_question(), OWN), Some(Heard::Question));
        let known = |instance: Instance, ttl| {
            let mut question = Message::from_vec(&encode_question()).unwrap();
            let full = service().unwrap().prepend_label(hex(&instance.0)).unwrap();
            question.answers.push(Record::from_rdata(service().unwrap(), ttl, RData::PTR(PTR(full))));
            decode(&question.to_vec().unwrap(), OWN)
        };
        assert_eq!(known(OWN, 4500), None);
        assert_eq!(known(OWN, 100), Some(Heard::Question));
        assert_eq!(known(OTHER, 4500), Some(Heard::Question));
    }

    #[test]
    fn a_farewell_and_other_services_say_nothing() {
        assert_eq!(decode(&told(&["192.168.1.2"], Validity::Ends), OWN), None);
        let mut question = Message::new(0, MessageType::Query, OpCode::Query);
        question.queries.push(Query::query(Name::from_ascii("_ipp._tcp.local.").unwrap(), RecordType::PTR));
        assert_eq!(decode(&question.to_vec().unwrap(), OWN), None);
        question.queries[0].set_name(Name::from_ascii("_p2plus._tcp.local.").unwrap());
        assert_eq!(decode(&question.to_vec().unwrap(), OWN), None);
    }

    #[test]
    fn of_a_liar_s_message_a_bounded_part_is_read() {
        let many: Vec<String> = (0..200).map(|last| format!("192.168.1.{last}")).collect();
        let addresses: Vec<&str> = many.iter().map(String::as_str).collect();
        let Some(Heard::Adverts(adverts)) = decode(&told(&addresses, Validity::Holds), OWN) else { panic!() };
        assert_eq!(adverts[0].endpoints.len(), MAX_ENDPOINTS);

        let mut crowd = Message::new(0, MessageType::Response, OpCode::Query);
        let mut number = 0;
        while crowd.to_vec().unwrap().len() < MAX_MESSAGE_LEN - 200 {
            number += 1;
            let one = advert(Instance([number; 8]), TAGS, 1, &[], Validity::Holds).unwrap();
            crowd.additionals.extend(one.additionals);
        }
        assert!(usize::from(number) > MAX_ADVERTS);
        let Some(Heard::Adverts(adverts)) = decode(&crowd.to_vec().unwrap(), OWN) else { panic!() };
        assert_eq!(adverts.len(), MAX_ADVERTS);
        let mut long = told(&["192.168.1.2"], Validity::Holds);
        long.resize(MAX_MESSAGE_LEN + 1, 0);
        assert_eq!(decode(&long, OWN), None);
    }
}
