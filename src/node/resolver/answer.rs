//! One DNS message in, one out: RFC 1035, with EDNS(0) (RFC 6891).
//!
//! ```text
//!   shorter than a header, or a response    nothing: no answer can be meant
//!   another opcode                          NOTIMP
//!   not one question, or unreadable         FORMERR
//!   outside the zone, other classes, AXFR   REFUSED: nobody else is ever asked
//!   a name that is not there                NXDOMAIN with the SOA
//!   nothing of the type                     an empty answer with the SOA
//!   ANY                                     the records of one type (RFC 8482 §4.1)
//! ```
//! An answer over UDP that is too long is sent without its additional records, else empty with the TC bit: then who asks comes by TCP.

use super::zone::{Place, Reverse, Zone};
use crate::wire::record::{RecordData, RecordName, Target};
use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, MX, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};
use std::net::IpAddr;

/// How long an answer may be kept, in seconds: short, because asking again costs less than a millisecond and a revoked member is to be gone.
pub const TTL: u32 = 30;
/// How long it may be kept that something is not there, in seconds: who adds a name tries it at once.
pub const NEGATIVE_TTL: u32 = 5;
/// The longest query that is read, in bytes: a question takes 271, and its options (padding, cookies) some hundred more.
pub const MAX_QUERY_LEN: usize = 1232;
/// The longest answer over UDP to who does not say what it takes (RFC 1035 §4.2.1).
const PLAIN_UDP_LEN: u16 = 512;
/// The longest answer over UDP at all, whatever is asked for: one packet of the smallest IPv6 MTU.
pub const MAX_UDP_LEN: u16 = 1232;
/// The header of a message.
const HEADER_LEN: usize = 12;
/// For a secondary, of which there is none: refresh, retry and expiry of the SOA, in seconds.
const SOA_TIMES: [i32; 3] = [3600, 600, 86_400];
/// Types of questions for whole zones (RFC 5936, RFC 1995).
const TRANSFERS: [RecordType; 2] = [RecordType::AXFR, RecordType::IXFR];
/// What an ANY question gets the first of.
const ANY_ORDER: [RecordType; 8] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::MX,
    RecordType::SRV,
    RecordType::TXT,
    RecordType::PTR,
    RecordType::SOA,
    RecordType::NS,
];

/// What carried a query, which limits its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// As long as the sender says that it takes, within bounds.
    Udp,
    /// As long as a message can be.
    Tcp,
}

/// Why a message gets no answer at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unanswerable {
    /// It has no whole header.
    #[error("the message is shorter than a header")]
    Short,
    /// It is longer than [`MAX_QUERY_LEN`].
    #[error("the query is longer than {MAX_QUERY_LEN} bytes")]
    Long,
    /// It is an answer itself: two who answer answers never end.
    #[error("the message is a response")]
    Response,
}

/// An answer, and what it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The message.
    pub bytes: Vec<u8>,
    /// Its response code, as numbered in RFC 1035 §4.1.1.
    pub code: u16,
    /// It was too long for UDP.
    pub is_truncated: bool,
}

/// What is found for a question.
struct Found {
    code: ResponseCode,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

/// Answers a message.
///
/// # Errors
/// [`Unanswerable`] when silence is the answer.
pub fn answer(zone: &Zone, query: &[u8], transport: Transport) -> Result<Answer, Unanswerable> {
    let header = query.get(..HEADER_LEN).ok_or(Unanswerable::Short)?;
    if query.len() > MAX_QUERY_LEN {
        return Err(Unanswerable::Long);
    }
    let mut decoder = BinDecoder::new(query);
    let header = Header::read(&mut decoder).map_err(|_| header_only(header, ResponseCode::FormErr));
    let header = match header {
        Ok(header) if header.metadata.message_type == MessageType::Response => return Err(Unanswerable::Response),
        Ok(header) => header,
        Err(answer) => return Ok(answer),
    };
    let mut reply = Message::response(header.metadata.id, header.metadata.op_code);
    reply.metadata.recursion_desired = header.metadata.recursion_desired;
    if header.metadata.op_code != OpCode::Query {
        return Ok(finish(reply, ResponseCode::NotImp, transport, PLAIN_UDP_LEN));
    }
    if header.counts.queries != 1 {
        return Ok(finish(reply, ResponseCode::FormErr, transport, PLAIN_UDP_LEN));
    }
    let Ok(question) = Query::read(&mut decoder) else {
        return Ok(finish(reply, ResponseCode::FormErr, transport, PLAIN_UDP_LEN));
    };
    let Ok(edns) = read_edns(&mut decoder, &header) else {
        return Ok(finish(reply, ResponseCode::FormErr, transport, PLAIN_UDP_LEN));
    };
    reply.queries.push(question.clone());
    let max_len = edns.as_ref().map_or(PLAIN_UDP_LEN, |edns| edns.max_payload().clamp(PLAIN_UDP_LEN, MAX_UDP_LEN));
    if let Some(edns) = &edns {
        let mut own = Edns::new();
        own.set_max_payload(MAX_UDP_LEN);
        reply.edns = Some(own);
        if edns.version() != 0 {
            return Ok(finish(reply, ResponseCode::BADVERS, transport, max_len));
        }
    }
    let found = find(zone, &question);
    reply.metadata.authoritative = found.code != ResponseCode::Refused;
    reply.answers = found.answers;
    reply.authorities = found.authorities;
    reply.additionals = found.additionals;
    Ok(finish(reply, found.code, transport, max_len))
}

/// Reads the three sections behind the question, of which only the options matter.
fn read_edns(
    decoder: &mut BinDecoder<'_>,
    header: &Header,
) -> Result<Option<Edns>, hickory_proto::serialize::binary::DecodeError> {
    let (counts, opcode) = (&header.counts, header.metadata.op_code);
    Message::read_records(decoder, counts.answers.into(), false, opcode)?;
    Message::read_records(decoder, counts.authorities.into(), false, opcode)?;
    let (_, edns, _) = Message::read_records(decoder, counts.additionals.into(), true, opcode)?;
    Ok(edns)
}

/// Encodes a reply so that it fits.
fn finish(mut reply: Message, code: ResponseCode, transport: Transport, max_udp_len: u16) -> Answer {
    reply.metadata.response_code = code;
    let max_len = if transport == Transport::Udp { max_udp_len } else { u16::MAX };
    let fits = |bytes: &Vec<u8>| bytes.len() <= usize::from(max_len);
    let answer = |bytes, is_truncated| Answer { bytes, code: code.into(), is_truncated };
    if let Some(bytes) = encode(&reply).filter(fits) {
        return answer(bytes, false);
    }
    reply.additionals.clear();
    if let Some(bytes) = encode(&reply).filter(fits) {
        return answer(bytes, false);
    }
    let short = reply.truncate();
    let bytes = encode(&short).filter(fits);
    bytes.map_or_else(|| header_only(&reply.metadata.id.to_be_bytes(), ResponseCode::ServFail), |it| answer(it, true))
}

fn encode(reply: &Message) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::from(PLAIN_UDP_LEN));
    let mut encoder = BinEncoder::new(&mut bytes);
    reply.emit(&mut encoder).ok()?;
    Some(bytes)
}

/// A response without anything but the id and the code: for what could not even be read that far.
fn header_only(id: &[u8], code: ResponseCode) -> Answer {
    let mut bytes = vec![0; HEADER_LEN];
    bytes[..2].copy_from_slice(&id[..2]);
    (bytes[2], bytes[3]) = (0x80, code.low());
    Answer { bytes, code: code.into(), is_truncated: false }
}

/// Looks a question up.
fn find(zone: &Zone, question: &Query) -> Found {
    let is_internet = matches!(question.query_class(), DNSClass::IN | DNSClass::ANY);
    if !is_internet || TRANSFERS.contains(&question.query_type()) {
        return Found::code(ResponseCode::Refused);
    }
    let labels: Vec<&[u8]> = question.name().iter().collect();
    let mut found = match zone.place(labels.iter().rev().copied()) {
        Place::Outside => return Found::code(ResponseCode::Refused),
        Place::Name(None) => Found::code(ResponseCode::NXDomain),
        Place::Name(Some(name)) => find_name(zone, question, &name),
        Place::Reverse(reverse) => find_reverse(zone, question, reverse),
    };
    if found.answers.is_empty() {
        found.authorities.extend(authority(zone, question.name()));
    }
    found
}

/// The SOA that says how long nothing is kept: of the zone, or of the reverse zone of a name.
fn authority(zone: &Zone, name: &Name) -> Option<Record> {
    let labels: Vec<&[u8]> = name.iter().collect();
    let count = match zone.place(labels.iter().rev().copied()) {
        Place::Outside => return None,
        Place::Name(_) => zone.name().labels_from_top().count(),
        Place::Reverse(reverse) => reverse.zone_labels + 2,
    };
    let apex = Name::from_labels(labels[labels.len() - count..].iter().copied()).ok()?;
    Some(Record::from_rdata(apex, NEGATIVE_TTL, soa(zone)?))
}

fn soa(zone: &Zone) -> Option<RData> {
    let [refresh, retry, expire] = SOA_TIMES;
    let host = full(zone, &zone.resolver_name())?;
    let mailbox = full(zone, &RecordName::apex())?.prepend_label("hostmaster").ok()?;
    Some(RData::SOA(SOA::new(host, mailbox, zone.serial(), refresh, retry, expire, NEGATIVE_TTL)))
}

fn find_name(zone: &Zone, question: &Query, name: &RecordName) -> Found {
    if !zone.exists(name) {
        return Found::code(ResponseCode::NXDomain);
    }
    let mut found = Found::code(ResponseCode::NoError);
    let types = match question.query_type() {
        RecordType::ANY => ANY_ORDER.as_slice(),
        _ => &[question.query_type()],
    };
    for record_type in types {
        let data = records(zone, name, *record_type, &mut found.additionals);
        if !data.is_empty() {
            found.answers =
                data.into_iter().map(|data| Record::from_rdata(question.name().clone(), TTL, data)).collect();
            return found;
        }
    }
    found
}

/// Lists what a name has of a type; the addresses of what it points to become additional records.
fn records(zone: &Zone, name: &RecordName, record_type: RecordType, additionals: &mut Vec<Record>) -> Vec<RData> {
    let mut pointed = |target: &Target| {
        let target = zone.target(target)?;
        add_addresses(zone, &target, additionals);
        full(zone, &target)
    };
    match record_type {
        RecordType::A | RecordType::AAAA => addresses(zone, name, record_type),
        RecordType::SOA if name.is_apex() => soa(zone).into_iter().collect(),
        RecordType::NS if name.is_apex() => {
            add_addresses(zone, &zone.resolver_name(), additionals);
            full(zone, &zone.resolver_name()).map(|name| RData::NS(NS(name))).into_iter().collect()
        }
        _ => zone
            .records(name)
            .iter()
            .filter_map(|data| match (record_type, data) {
                (RecordType::MX, RecordData::Mail { priority, target }) => {
                    Some(RData::MX(MX::new(*priority, pointed(target)?)))
                }
                (RecordType::SRV, RecordData::Service { priority, weight, port, target }) => {
                    Some(RData::SRV(SRV::new(*priority, *weight, *port, pointed(target)?)))
                }
                (RecordType::TXT, RecordData::Text(text)) => Some(RData::TXT(TXT::new(text.strings().to_vec()))),
                _ => None,
            })
            .collect(),
    }
}

fn addresses(zone: &Zone, name: &RecordName, record_type: RecordType) -> Vec<RData> {
    let of_type = |address| match (record_type, address) {
        (RecordType::A, IpAddr::V4(address)) => Some(RData::A(A(address))),
        (RecordType::AAAA, IpAddr::V6(address)) => Some(RData::AAAA(AAAA(address))),
        _ => None,
    };
    zone.addresses(name).into_iter().filter_map(of_type).collect()
}

/// Adds the addresses of a name once.
fn add_addresses(zone: &Zone, name: &RecordName, additionals: &mut Vec<Record>) {
    let Some(owner) = full(zone, name) else { return };
    if additionals.iter().any(|record| record.name == owner) {
        return;
    }
    for record_type in [RecordType::A, RecordType::AAAA] {
        let data = addresses(zone, name, record_type).into_iter();
        additionals.extend(data.map(|data| Record::from_rdata(owner.clone(), TTL, data)));
    }
}

fn find_reverse(zone: &Zone, question: &Query, reverse: Reverse) -> Found {
    let is_asked = |record_type| [record_type, RecordType::ANY].contains(&question.query_type());
    let pointer = reverse.is_whole().then(|| zone.pointer(reverse.address)).flatten();
    let mut found = Found::code(ResponseCode::NoError);
    let data = match pointer {
        Some(name) if is_asked(RecordType::PTR) => full(zone, &name).map(|name| RData::PTR(PTR(name))),
        _ if reverse.labels == reverse.zone_labels && is_asked(RecordType::SOA) => soa(zone),
        _ if reverse.labels == reverse.zone_labels && is_asked(RecordType::NS) => {
            full(zone, &zone.resolver_name()).map(|name| RData::NS(NS(name)))
        }
        None if reverse.is_whole() && reverse.labels > reverse.zone_labels => {
            return Found::code(ResponseCode::NXDomain);
        }
        _ => None,
    };
    found.answers.extend(data.map(|data| Record::from_rdata(question.name().clone(), TTL, data)));
    found
}

/// A name of the zone in full; `None` for one that is too long, which no record has.
fn full(zone: &Zone, name: &RecordName) -> Option<Name> {
    let labels: Vec<&str> = zone.name().labels_from_top().chain(name.labels_from_top()).collect();
    Name::from_labels(labels.into_iter().rev().map(str::as_bytes)).ok()
}

impl Found {
    fn code(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), authorities: Vec::new(), additionals: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
