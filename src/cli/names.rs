//! The verbs about names: name add, rm and list, dns status and query.

use super::args::{DnsVerb, NameAddArgs, NameRemoveArgs, NameVerb, QueryArgs};
use super::client::{Answer, PATIENCE};
use super::members::submit;
use super::output::Output;
use super::scope::Scope;
use super::{CommandResult, Done, text};
use crate::daemon::api::names::{
    DnsAnswer, DnsHost, DnsQuery, DnsStatus, NameAdd, NameEntry, NameRemove, NameRequest, Record, RecordType,
};
use crate::daemon::api::request::Request;
use crate::daemon::failure::{ErrorCode, Failure};

/// What follows the name in `name add`.
const FORMS: &str =
    "name add NAME PEER · NAME mx PRIORITY TARGET · NAME srv PRIORITY WEIGHT PORT TARGET · NAME txt TEXT…";

pub(super) fn name(scope: &Scope, output: &Output, verb: NameVerb) -> CommandResult {
    match verb {
        NameVerb::Add(args) => add(scope, output, &args),
        NameVerb::Rm(args) => remove(scope, output, args),
        NameVerb::List => list(scope, output),
    }
}

pub(super) fn dns(scope: &Scope, output: &Output, verb: DnsVerb) -> CommandResult {
    match verb {
        DnsVerb::Status => status(scope, output),
        DnsVerb::Query(args) => query(scope, output, args),
    }
}

fn add(scope: &Scope, output: &Output, args: &NameAddArgs) -> CommandResult {
    let record = record(&args.record)?;
    let request = NameAdd { name: args.name.clone(), record, finality: args.finality.finality() };
    submit(scope, output, &Request::Name(NameRequest::Add(request)), &args.finality, ["set", "setting"], &args.name)
}

fn remove(scope: &Scope, output: &Output, args: NameRemoveArgs) -> CommandResult {
    let NameRemoveArgs { name, record_type, value, finality } = args;
    let request = NameRemove { name: name.clone(), record_type, value, finality: finality.finality() };
    submit(scope, output, &Request::Name(NameRequest::Remove(request)), &finality, ["ended", "ending"], &name)
}

/// Reads what a record says, in the order of a zone file.
fn record(words: &[String]) -> Result<Record, Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Ok(match words.as_slice() {
        [target] => Record::Address { target: (*target).to_owned() },
        ["mx", priority, target] => {
            Record::Mx { priority: number("a priority", priority)?, target: (*target).to_owned() }
        }
        ["srv", priority, weight, port, target] => Record::Srv {
            priority: number("a priority", priority)?,
            weight: number("a weight", weight)?,
            port: number("a port", port)?,
            target: (*target).to_owned(),
        },
        ["txt", strings @ ..] => Record::Txt { strings: strings.iter().map(|text| (*text).to_owned()).collect() },
        _ => return Err(Failure::new(ErrorCode::Usage, "this is no record").hint(FORMS)),
    })
}

fn number(what: &str, text: &str) -> Result<u16, Failure> {
    text.parse().map_err(|_| {
        Failure::new(ErrorCode::Usage, format!("{text:?} is not {what}: a number from 0 to 65535")).hint(FORMS)
    })
}

fn list(scope: &Scope, output: &Output) -> CommandResult {
    let answer: Answer<Vec<NameEntry>> = scope.client()?.ask(&Request::Name(NameRequest::List), PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |entries| {
        if entries.is_empty() {
            return "no name is set beside those of the members (p2plus members)\n".to_owned();
        }
        let rows = entries.iter().map(|entry| {
            let [record_type, value] = said(&entry.record);
            let full = entry.fqdn.clone().unwrap_or_else(|| entry.name.clone());
            vec![text::clean(&full), record_type, value, text::clean(&entry.set_by), entry.height.to_string()]
        });
        text::table(&[("NAME", 0), ("TYPE", 0), ("VALUE", 0), ("BY", 1), ("HEIGHT", 2)], rows)
    });
    Ok(Done::Well)
}

/// A record's type and what it says, as they are typed.
fn said(record: &Record) -> [String; 2] {
    let (record_type, value) = match record {
        Record::Address { target } => ("address", target.clone()),
        Record::Mx { priority, target } => ("mx", format!("{priority} {target}")),
        Record::Srv { priority, weight, port, target } => ("srv", format!("{priority} {weight} {port} {target}")),
        Record::Txt { strings } => {
            ("txt", strings.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(" "))
        }
    };
    [record_type.to_owned(), text::clean(&value)]
}

fn status(scope: &Scope, output: &Output) -> CommandResult {
    let answer: Answer<DnsStatus> = scope.client()?.ask(&Request::Name(NameRequest::Status), PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |status| {
        let style = output.style;
        let Some(zone) = &status.zone else {
            return "names are not answered on this host: it is no member yet, or `enabled = false` stands under [dns]\n"
                .to_owned();
        };
        let queries = &status.queries;
        let rows = [
            ("zone", style.bold(&text::clean(zone))),
            ("servers", text::list(&status.servers)),
            ("reverse zones", shortened(&status.reverse_zones)),
            (
                "names",
                format!(
                    "{}, {}",
                    text::counted(status.members, "member", "members"),
                    text::counted(status.records, "record", "records")
                ),
            ),
            ("host", told(&status.host)),
            ("kept", format!("{} s", status.ttl_seconds)),
            (
                "queries",
                format!(
                    "{} answered, {} of names that are not there, {} refused, {} malformed, {} without an answer",
                    queries.answered, queries.unknown_names, queries.refused, queries.malformed, queries.unanswerable
                ),
            ),
        ];
        text::fields(style, &rows)
    });
    Ok(Done::Well)
}

/// Whether the programs of this host find the resolver.
fn told(host: &DnsHost) -> String {
    match (&host.used, &host.reason) {
        (Some(way), _) => format!("asks here, told by {}", text::clean(way)),
        (None, Some(reason)) => format!("does not ask here: {}", text::clean(reason)),
        (None, None) => "does not ask here".to_owned(),
    }
}

/// The first and the last of a long list.
fn shortened(values: &[String]) -> String {
    match values {
        [first, _, _, .., last] => format!("{first} … {last} ({})", values.len()),
        values => text::list(values),
    }
}

fn query(scope: &Scope, output: &Output, args: QueryArgs) -> CommandResult {
    let request = DnsQuery { name: args.name, query_type: args.query_type };
    let answer: Answer<DnsAnswer> = scope.client()?.ask(&Request::Name(NameRequest::Query(request)), PATIENCE)?;
    let is_there = answer.data.status == "NOERROR";
    output.answer(&answer.data, &answer.warnings, |answer| {
        if answer.answers.is_empty() {
            let what = if is_there { "nothing of this type" } else { answer.status.as_str() };
            return format!("{}: {}\n", text::clean(&answer.name), text::clean(what));
        }
        let rows = answer.answers.iter().map(|record| {
            vec![
                text::clean(&record.name),
                record.ttl.to_string(),
                record.record_type.clone(),
                text::clean(&record.data),
            ]
        });
        text::table(&[("NAME", 0), ("TTL", 1), ("TYPE", 0), ("DATA", 0)], rows)
    });
    Ok(if is_there { Done::Well } else { Done::Badly(ErrorCode::NotFound) })
}

impl std::str::FromStr for RecordType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "address" | "a" | "aaaa" => Ok(Self::Address),
            "mx" => Ok(Self::Mx),
            "srv" => Ok(Self::Srv),
            "txt" => Ok(Self::Txt),
            _ => Err("a type is address, mx, srv or txt".to_owned()),
        }
    }
}
