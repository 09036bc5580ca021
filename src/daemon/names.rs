//! The DNS records of the ledger as people read them, and why it refuses some.

use super::failure::ErrorCode;
use super::views::Names;
use crate::ledger::state::TxError;
use crate::wire::record::{RecordData, RecordName, Target};

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
