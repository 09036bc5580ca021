//! Orders and questions about names, and the records of the ledger as people read them.

use super::api::names::{
    DnsAnswer, DnsHost, DnsQueries, DnsQuery, DnsRecord, DnsStatus, NameAdd, NameEntry, NameRemove, NameReply,
    NameRequest, Record, RecordType,
};
use super::api::request::Reply;
use super::failure::{ErrorCode, Failure};
use super::orders::{IntoOutcome, Outcome, Surroundings, must_be_member, refusal};
use super::pending::{Awaited, Task};
use super::views::Names;
use crate::crypto::identity::NodeId;
use crate::io::clock::OsRng;
use crate::ledger::Operation;
use crate::ledger::operation::{NameDel, NameSet, WhichRecords};
use crate::ledger::state::TxError;
use crate::node::Node;
use crate::node::names;
use crate::node::resolver::{TTL, ask};
use crate::time::Now;
use crate::wire::record::{RecordData, RecordKind, RecordName, Target, Text};

/// Answers a request about names, or says what to wait for.
pub fn answer(node: &mut Node<OsRng>, now: Now, around: &Surroundings<'_>, request: NameRequest) -> Outcome {
    match request {
        NameRequest::List => Ok(Reply::Name(NameReply::List(list(node)))).into(),
        NameRequest::Status => Ok(Reply::Name(NameReply::Status(status(node, around)))).into(),
        NameRequest::Query(query) => {
            self::query(node, &query).map(|answer| Reply::Name(NameReply::Answer(answer))).into()
        }
        NameRequest::Add(add) => self::add(node, now, &add).into_outcome(),
        NameRequest::Remove(remove) => self::remove(node, now, &remove).into_outcome(),
    }
}

fn add(node: &mut Node<OsRng>, now: Now, add: &NameAdd) -> Result<Task, Failure> {
    let name = record_name(node, &add.name)?;
    let data = data(node, &add.record)?;
    let tx = node.order(now, vec![Operation::NameSet(NameSet { name, data })]).map_err(|error| refusal(&error))?;
    Ok(Task::finality(now, tx, add.finality, Awaited::Submitted))
}

/// Ends what is meant, each record by a name of its own, so that one that came meanwhile stays.
fn remove(node: &mut Node<OsRng>, now: Now, remove: &NameRemove) -> Result<Task, Failure> {
    let name = record_name(node, &remove.name)?;
    let kind = remove.record_type.map(RecordKind::from);
    let meant = meant(node, kind, &remove.value)?;
    let records = node.ledger().state().name_records().into_iter();
    let of_name = records.filter(|(other, _)| *other == name).map(|(_, record)| record.data);
    let ended = of_name.filter(|data| kind.is_none_or(|kind| data.kind() == kind) && meant(data));
    let end = |data: RecordData| NameDel { name: name.clone(), which: WhichRecords::One(data.mark()) };
    let operations: Vec<_> = ended.map(|data| Operation::NameDel(end(data))).collect();
    if operations.is_empty() {
        return Err(Failure::new(ErrorCode::NotFound, format!("there is no such record of {name}"))
            .hint("`p2plus name list` shows all"));
    }
    let tx = node.order(now, operations).map_err(|error| refusal(&error))?;
    Ok(Task::finality(now, tx, remove.finality, Awaited::Submitted))
}

/// What tells the records that a value means from others of its name.
fn meant(
    node: &Node<OsRng>,
    kind: Option<RecordKind>,
    value: &[String],
) -> Result<impl Fn(&RecordData) -> bool + use<>, Failure> {
    let usage = |message: &str| Failure::new(ErrorCode::Usage, message);
    let (target, strings) = match (kind, value) {
        (_, []) => (None, None),
        (None, _) => return Err(usage("a value needs a type before it").hint("for example: name rm shop mx ada")),
        (Some(RecordKind::Text), strings) => (None, Some(strings.to_vec())),
        (Some(_), [text]) => (Some(self::target(node, text)?), None),
        (Some(_), _) => return Err(usage("only a TXT record has more than one value")),
    };
    Ok(move |data: &RecordData| match data {
        RecordData::Text(text) => strings.as_ref().is_none_or(|strings| text.strings() == strings),
        _ => target.as_ref().is_none_or(|target| data.target().as_ref() == Some(target)),
    })
}

/// Reads a name of the zone, with or without the zone.
fn record_name(node: &Node<OsRng>, text: &str) -> Result<RecordName, Failure> {
    let usage = |error| Failure::new(ErrorCode::Usage, format!("{text:?}: {error}"));
    relative(node, text).parse().map_err(usage)
}

/// Cuts the zone off a name; what people type in capitals is the same name.
fn relative(node: &Node<OsRng>, text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let zone = node.resolver().zone().map(|zone| zone.name().as_str());
    let full = lower.strip_suffix('.').unwrap_or(&lower);
    match zone.and_then(|zone| full.strip_suffix(zone)) {
        Some("") => "@".to_owned(),
        Some(below) if below.ends_with('.') => below[..below.len() - 1].to_owned(),
        _ => lower,
    }
}

fn data(node: &Node<OsRng>, record: &Record) -> Result<RecordData, Failure> {
    Ok(match record {
        Record::Address { target } => RecordData::Address(member(node, target)?),
        Record::Mx { priority, target } => {
            RecordData::Mail { priority: *priority, target: self::target(node, target)? }
        }
        Record::Srv { priority, weight, port, target } => {
            let (priority, weight, port) = (*priority, *weight, *port);
            RecordData::Service { priority, weight, port, target: self::target(node, target)? }
        }
        Record::Txt { strings } => RecordData::Text(
            Text::new(strings.clone()).map_err(|error| Failure::new(ErrorCode::Usage, error.to_string()))?,
        ),
    })
}

fn member(node: &Node<OsRng>, text: &str) -> Result<NodeId, Failure> {
    must_be_member(node)?;
    super::orders::member(node, &relative(node, text)).map(|member| member.id)
}

/// What a record points to: a member, under whatever name, else a name that has addresses of its own.
fn target(node: &Node<OsRng>, text: &str) -> Result<Target, Failure> {
    must_be_member(node)?;
    let relative = relative(node, text);
    if let Ok(member) = names::resolve(node.policy(), &relative) {
        return Ok(Target::Member(member.id));
    }
    let has_addresses =
        |name: &RecordName| node.policy().names().of(name).iter().any(|data| matches!(data, RecordData::Address(_)));
    let named = relative.parse::<RecordName>().ok().filter(has_addresses);
    named.map(Target::Name).ok_or_else(|| {
        Failure::new(ErrorCode::NotFound, format!("{text} is no member and has no addresses in the network's zone"))
            .hint("`p2plus members` and `p2plus name list` show what there is; `p2plus name add NAME PEER` gives a name addresses")
    })
}

fn list(node: &Node<OsRng>) -> Vec<NameEntry> {
    let (names, zone) = (Names::new(node.ledger()), node.resolver().zone());
    let records = node.ledger().state().name_records().into_iter();
    records
        .map(|(name, record)| NameEntry {
            fqdn: zone.map(|zone| zone.name().full(&name)),
            name: name.to_string(),
            record: shown(&names, &record.data),
            set_by: names.key(&record.author),
            height: record.height.0,
        })
        .collect()
}

/// A record, its target as people call it.
fn shown(names: &Names<'_>, data: &RecordData) -> Record {
    let target = |target: &Target| called(names, target);
    match data {
        RecordData::Address(id) => Record::Address { target: target(&Target::Member(*id)) },
        RecordData::Mail { priority, target: server } => Record::Mx { priority: *priority, target: target(server) },
        RecordData::Service { priority, weight, port, target: server } => {
            Record::Srv { priority: *priority, weight: *weight, port: *port, target: target(server) }
        }
        RecordData::Text(text) => Record::Txt { strings: text.strings().to_vec() },
    }
}

/// A record in a few words, for the log of the ledger.
pub fn in_words(names: &Names<'_>, name: &RecordName, data: &RecordData) -> String {
    let target = data.target().map(|target| called(names, &target)).unwrap_or_default();
    let kind = data.kind().name();
    match data {
        RecordData::Address(_) => format!("{name} {kind} {target}"),
        RecordData::Mail { priority, .. } => format!("{name} {kind} {priority} {target}"),
        RecordData::Service { priority, weight, port, .. } => {
            format!("{name} {kind} {priority} {weight} {port} {target}")
        }
        RecordData::Text(text) => format!("{name} {kind} {}", text.strings().join(" ")),
    }
}

/// What a record points to, as people call it.
fn called(names: &Names<'_>, target: &Target) -> String {
    match target {
        Target::Member(id) => names.of(id).unwrap_or_else(|| id.to_string()),
        Target::Name(name) => name.to_string(),
    }
}

fn status(node: &Node<OsRng>, around: &Surroundings<'_>) -> DnsStatus {
    let resolver = node.resolver();
    let zone = resolver.zone();
    let (addresses, counters) = (resolver.addresses(), resolver.counters());
    let servers = addresses.v4.map(Into::into).into_iter().chain(addresses.v6.map(Into::into));
    DnsStatus {
        enabled: zone.is_some(),
        zone: zone.map(|zone| zone.name().to_string()),
        servers: servers.collect(),
        reverse_zones: zone.map(|zone| zone.reverse_zones()).unwrap_or_default(),
        ttl_seconds: TTL,
        members: node.policy().members().count() as u64,
        records: node.policy().names().iter().map(|(_, records)| records.len() as u64).sum(),
        host: DnsHost {
            backend: around.dns_backend.name().to_owned(),
            used: around.host_names.used.map(|way| way.name().to_owned()),
            reason: around.host_names.reason.clone(),
        },
        queries: DnsQueries {
            answered: counters.answered,
            unknown_names: counters.unknown_names,
            refused: counters.refused,
            malformed: counters.malformed,
            truncated: counters.truncated,
            unanswerable: counters.unanswerable,
            ended_connections: counters.ended_connections,
        },
    }
}

fn query(node: &Node<OsRng>, query: &DnsQuery) -> Result<DnsAnswer, Failure> {
    must_be_member(node)?;
    let disabled = || {
        Failure::new(ErrorCode::Failed, "names are not answered on this host").hint("set `enabled = true` under [dns]")
    };
    let zone = node.resolver().zone().ok_or_else(disabled)?;
    let asked = ask(zone, &query.name, query.query_type.as_deref())
        .map_err(|error| Failure::new(ErrorCode::Usage, error.to_string()))?;
    let answers = asked.answers.into_iter().map(|record| DnsRecord {
        name: record.name,
        record_type: record.record_type,
        ttl: record.ttl,
        data: record.data,
    });
    Ok(DnsAnswer { name: asked.name, status: asked.status.to_owned(), answers: answers.collect() })
}

/// The exit code of a refusal that only names have.
pub fn code_of(reason: &TxError) -> Option<ErrorCode> {
    Some(match reason {
        TxError::NotAHost(_) | TxError::NotAService(_) => ErrorCode::Usage,
        TxError::NoSuchTarget(_) | TxError::NoSuchRecord(_) => ErrorCode::NotFound,
        TxError::TooManyRecordsOfName(_) | TxError::TooManyRecordsOfMember(_) | TxError::TooManyRecords => {
            ErrorCode::Conflict
        }
        _ => return None,
    })
}

/// What to do about such a refusal.
pub fn advice(reason: &TxError) -> Option<&'static str> {
    Some(match reason {
        TxError::NotAHost(_) => "leave the underscore out",
        TxError::NotAService(_) => "for example: name add _imap._tcp.ada srv 0 0 143 ada",
        TxError::NoSuchTarget(_) => "give it addresses first: `p2plus name add NAME PEER`",
        TxError::NoSuchRecord(_) => "`p2plus name list` shows all",
        TxError::TooManyRecordsOfName(_) | TxError::TooManyRecordsOfMember(_) | TxError::TooManyRecords => {
            "end some that are no longer needed: `p2plus name rm`"
        }
        _ => return None,
    })
}

impl From<RecordType> for RecordKind {
    fn from(record_type: RecordType) -> Self {
        match record_type {
            RecordType::Address => Self::Address,
            RecordType::Mx => Self::Mail,
            RecordType::Srv => Self::Service,
            RecordType::Txt => Self::Text,
        }
    }
}
