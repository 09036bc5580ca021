//! Questions that this node asks itself, for a person to read.

use super::answer::{Transport, answer};
use super::zone::Zone;
use crate::wire::record::RecordName;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use std::net::IpAddr;

/// What is asked for where no type is named.
const EVERY_TYPE: [RecordType; 5] = [RecordType::A, RecordType::AAAA, RecordType::MX, RecordType::SRV, RecordType::TXT];
/// The code of an answer without trouble.
const NO_ERROR: &str = "NOERROR";

/// What the resolver says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The name in full.
    pub name: String,
    /// The response code by its name.
    pub status: &'static str,
    /// The records of the answers.
    pub answers: Vec<AskedRecord>,
}

/// One record, as in a zone file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AskedRecord {
    /// Its name.
    pub name: String,
    /// Its type.
    pub record_type: String,
    /// How long it may be kept, in seconds.
    pub ttl: u32,
    /// What it says.
    pub data: String,
}

/// Text that is no question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadQuestion {
    /// No name of any zone.
    #[error("{0:?} is no name")]
    Name(String),
    /// No type of records.
    #[error("{0:?} is no type of records, such as A, AAAA, MX, SRV, TXT or PTR")]
    Type(String),
}

/// Asks `zone` for a name in it, with or without the zone; for another one with a dot at its end; or for the name of an address.
///
/// # Errors
/// [`BadQuestion`].
pub fn ask(zone: &Zone, name: &str, record_type: Option<&str>) -> Result<Asked, BadQuestion> {
    let typed = |text: &str| text.to_ascii_uppercase().parse().map_err(|_| BadQuestion::Type(text.to_owned()));
    let address: Option<IpAddr> = name.parse().ok();
    let full = match address {
        Some(address) => Name::from(address),
        None => full_name(zone, name)?,
    };
    let types = match (record_type, address) {
        (Some(text), _) => vec![typed(text)?],
        (None, Some(_)) => vec![RecordType::PTR],
        (None, None) => EVERY_TYPE.to_vec(),
    };
    let mut asked = Asked { name: shown(&full), status: NO_ERROR, answers: Vec::new() };
    for record_type in types {
        let (code, answers) = ask_one(zone, &full, record_type).ok_or_else(|| BadQuestion::Name(name.to_owned()))?;
        asked.status = code;
        asked.answers.extend(answers);
    }
    Ok(asked)
}

fn full_name(zone: &Zone, text: &str) -> Result<Name, BadQuestion> {
    let bad = || BadQuestion::Name(text.to_owned());
    let lower = text.to_ascii_lowercase();
    let suffix = zone.name().as_str();
    let is_full = lower.ends_with('.') || lower == suffix || lower.ends_with(&format!(".{suffix}"));
    let full = match lower.parse::<RecordName>() {
        Ok(name) if !is_full => zone.name().full(&name),
        _ if is_full => lower.clone(),
        _ => return Err(bad()),
    };
    let labels = full.trim_end_matches('.').split('.').map(str::as_bytes);
    Name::from_labels(labels).map_err(|_| bad())
}

/// One question in bytes and one answer from bytes, as everybody else gets it. `None` for what cannot be asked.
fn ask_one(zone: &Zone, name: &Name, record_type: RecordType) -> Option<(&'static str, Vec<AskedRecord>)> {
    let mut query = Message::new(0, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(name.clone(), record_type));
    let answer = answer(zone, &query.to_vec().ok()?, Transport::Tcp).ok()?;
    let reply = Message::from_vec(&answer.bytes).ok()?;
    let status = match answer.code {
        0 => NO_ERROR,
        1 => "FORMERR",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        _ => "SERVFAIL",
    };
    let records = reply.answers.iter().map(|record| AskedRecord {
        name: shown(&record.name),
        record_type: record.record_type().to_string(),
        ttl: record.ttl,
        data: record.data.to_string(),
    });
    Some((status, records.collect()))
}

fn shown(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::testing::lab;
    use super::*;

    fn data(name: &str, record_type: Option<&str>) -> Vec<String> {
        let asked = ask(&lab(), name, record_type).unwrap();
        asked.answers.into_iter().map(|record| format!("{} {}", record.record_type, record.data)).collect()
    }

    #[test]
    fn a_person_may_leave_the_zone_and_the_type_away() {
        let of_ada = ["A 10.77.0.2", "AAAA fdab:abab:abab::2", "MX 20 ada.lab.internal."];
        for name in ["ada", "Ada.Lab.internal", "ada.lab.internal."] {
            assert_eq!(data(name, None), of_ada, "{name}");
        }
        assert_eq!(data("@", Some("mx")), ["MX 10 mail.lab.internal."]);
        assert_eq!(data("10.77.0.2", None), ["PTR ada.lab.internal."]);
        assert_eq!(data("fdab:abab:abab::3", None), ["PTR ben.lab.internal."]);
    }

    #[test]
    fn what_is_not_there_or_not_ours_says_so() {
        let status = |name: &str| ask(&lab(), name, Some("A")).unwrap().status;
        assert_eq!([status("nobody"), status("example.com."), status("ada")], ["NXDOMAIN", "REFUSED", "NOERROR"]);
        assert_eq!(ask(&lab(), "a b", None), Err(BadQuestion::Name("a b".to_owned())));
        assert_eq!(ask(&lab(), "ada", Some("colour")), Err(BadQuestion::Type("colour".to_owned())));
    }
}
