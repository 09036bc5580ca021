//! Names: what can be asked and ordered, how it travels, and the documented JSON of the answers.

use super::request::Finality;
use super::route::{Method, Right, json};
use super::types::Submitted;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// One question or order about names.
#[derive(Clone, PartialEq, Debug)]
pub enum NameRequest {
    /// Lists the records.
    List,
    /// Sets a record.
    Add(NameAdd),
    /// Ends records.
    Remove(NameRemove),
    /// The resolver at a glance.
    Status,
    /// Asks the resolver.
    Query(DnsQuery),
}

/// What is answered, one kind for each request.
#[derive(PartialEq, Serialize)]
#[serde(untagged)]
pub enum NameReply {
    /// To `List`.
    List(Vec<NameEntry>),
    /// To `Add` and `Remove`.
    Submitted(Submitted),
    /// To `Status`.
    Status(DnsStatus),
    /// To `Query`.
    Answer(DnsAnswer),
}

/// Sets a record.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameAdd {
    /// Its name in the zone, with or without the zone; `@` is the zone itself.
    pub name: String,
    /// What it says.
    pub record: Record,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// Ends records of one name.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameRemove {
    /// Their name, as in [`NameAdd`].
    pub name: String,
    /// Only those of this type.
    #[serde(default, rename = "type")]
    pub record_type: Option<RecordType>,
    /// Of these, only those that point there, or a TXT record with these words.
    #[serde(default)]
    pub value: Vec<String>,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// Asks the resolver.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsQuery {
    /// A name in the zone, with or without the zone; another one with a dot at its end; or an address, for its name.
    pub name: String,
    /// `A`, `MX` and so on; without it all that there is.
    #[serde(default, rename = "type")]
    pub query_type: Option<String>,
}

/// The type of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordType {
    /// The addresses of a member: A and AAAA.
    Address,
    /// A mail server.
    Mx,
    /// A service.
    Srv,
    /// Text.
    Txt,
}

/// What a record says. A target is a member, by its name, address or identity, or a name with addresses of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Record {
    /// The addresses of a member: A and AAAA.
    Address {
        /// The member.
        target: String,
    },
    /// A mail server.
    Mx {
        /// The lowest is tried first.
        priority: u16,
        /// The server.
        target: String,
    },
    /// A service.
    Srv {
        /// The lowest is tried first.
        priority: u16,
        /// The share among those of one priority.
        weight: u16,
        /// Where it listens.
        port: u16,
        /// The server.
        target: String,
    },
    /// Text.
    Txt {
        /// Its strings.
        strings: Vec<String>,
    },
}

/// One record of `name list`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NameEntry {
    /// Its name in the zone.
    pub name: String,
    /// The same in full; `null` where names are not answered on this host.
    pub fqdn: Option<String>,
    /// What it says.
    #[serde(flatten)]
    pub record: Record,
    /// Who set it.
    pub set_by: String,
    /// In which block.
    pub height: u64,
}

/// `dns status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DnsStatus {
    /// Names are answered on this host.
    pub enabled: bool,
    /// The suffix of the names.
    pub zone: Option<String>,
    /// Where they are answered.
    pub servers: Vec<IpAddr>,
    /// The zones of addresses that are answered too.
    pub reverse_zones: Vec<String>,
    /// How long answers may be kept.
    pub ttl_seconds: u32,
    /// Names that members have.
    pub members: u64,
    /// Records beside them.
    pub records: u64,
    /// Whether this host's programs ask there.
    pub host: DnsHost,
    /// What was asked so far.
    pub queries: DnsQueries,
}

/// How the programs of a host come to the resolver.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DnsHost {
    /// What the configuration says: `auto`, `resolved`, `resolvconf`, `file` or `none`.
    pub backend: String,
    /// By what they were told; `null` when they were not.
    pub used: Option<String>,
    /// Why they were not.
    pub reason: Option<String>,
}

/// Questions by what became of them, since the daemon started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DnsQueries {
    /// All that were answered.
    pub answered: u64,
    /// Of these, about names that are not there.
    pub unknown_names: u64,
    /// Of these, about names of others.
    pub refused: u64,
    /// Of these, no questions at all.
    pub malformed: u64,
    /// Of these, answered over UDP by the word to come by TCP.
    pub truncated: u64,
    /// Messages that got no answer.
    pub unanswerable: u64,
    /// TCP connections that were ended from here: idle, wrong, or in the way of others.
    pub ended_connections: u64,
}

/// `dns query`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DnsAnswer {
    /// The name that was asked for, in full.
    pub name: String,
    /// `NOERROR`, `NXDOMAIN`, `REFUSED` or `FORMERR`.
    pub status: String,
    /// The records.
    pub answers: Vec<DnsRecord>,
}

/// A record of an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DnsRecord {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub record_type: String,
    /// How long it may be kept.
    pub ttl: u32,
    /// What it says, as in a zone file.
    pub data: String,
}

impl NameRequest {
    /// Where it goes, with the body of a `POST`.
    pub(super) fn to_http(&self) -> (&'static str, Option<serde_json::Value>) {
        match self {
            Self::List => ("/v1/names", None),
            Self::Add(body) => ("/v1/names/add", json(body)),
            Self::Remove(body) => ("/v1/names/remove", json(body)),
            Self::Status => ("/v1/dns", None),
            Self::Query(body) => ("/v1/dns/query", json(body)),
        }
    }

    /// Reads one; `None` when there is no such path or method.
    pub(super) fn from_http(method: Method, path: &str, body: &[u8]) -> Option<Result<Self, serde_json::Error>> {
        Some(match (method, path) {
            (Method::Get, "/v1/names") => Ok(Self::List),
            (Method::Post, "/v1/names/add") => serde_json::from_slice(body).map(Self::Add),
            (Method::Post, "/v1/names/remove") => serde_json::from_slice(body).map(Self::Remove),
            (Method::Get, "/v1/dns") => Ok(Self::Status),
            (Method::Post, "/v1/dns/query") => serde_json::from_slice(body).map(Self::Query),
            _ => return None,
        })
    }

    /// Who may ask it.
    pub(super) fn right(&self) -> Right {
        match self {
            Self::List | Self::Status | Self::Query(_) => Right::Group,
            Self::Add(_) | Self::Remove(_) => Right::Admin,
        }
    }
}
