//! How requests travel, and who may send them: one place for both ends of the socket.
//!
//! A request without arguments is a `GET`; every other is a `POST` with a JSON object. Unknown fields are refused.

use super::link::LinkRequest;
use super::names::NameRequest;
use super::reach::ReachRequest;
use super::relays::RelayRequest;
use super::request::Request;
use serde::{Deserialize, Serialize};

/// What a caller must be for a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Right {
    /// Anybody on this machine; gets the redacted answer unless more.
    Anybody,
    /// A member of the group `p2plus`.
    Group,
    /// Root, the daemon's own user, or a user in `[node] admins`.
    Admin,
}

/// The method of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Without a body.
    Get,
    /// With a JSON object.
    Post,
}

impl Request {
    /// Where the request goes, with the body of a `POST`.
    pub fn to_http(&self) -> (&'static str, Option<serde_json::Value>) {
        let path = self.path();
        match self {
            Self::Status
            | Self::Peers
            | Self::Members
            | Self::Invites
            | Self::Rules
            | Self::Routes
            | Self::Requests
            | Self::Exits
            | Self::LedgerStatus => (path, None),
            Self::Name(request) => request.to_http(),
            Self::Link(request) => request.to_http(),
            Self::Relay(request) => request.to_http(),
            Self::Reach(request) => request.to_http(),
            Self::LedgerVerify | Self::Reload => (path, Some(serde_json::json!({}))),
            Self::Ping(body) => (path, json(body)),
            Self::Ip(body) => (path, json(body)),
            Self::Whois(body) => (path, json(body)),
            Self::Wait(body) => (path, json(body)),
            Self::Authorize(body) => (path, json(body)),
            Self::Revoke(body) => (path, json(body)),
            Self::Rename(body) => (path, json(body)),
            Self::Invite(body) => (path, json(body)),
            Self::RevokeInvite(body) => (path, json(body)),
            Self::Tag(body) => (path, json(body)),
            Self::ChangePolicy(body) => (path, json(body)),
            Self::ApplyPolicy(body) => (path, json(body)),
            Self::CheckPolicy(body) => (path, json(body)),
            Self::Explain(body) => (path, json(body)),
            Self::Advertise(body) | Self::Unadvertise(body) => (path, json(body)),
            Self::Accept(body) => (path, json(body)),
            Self::Approve(body) | Self::Refuse(body) => (path, json(body)),
            Self::UseExit(body) => (path, json(body)),
            Self::LedgerUpgrade(body) => (path, json(body)),
            Self::LedgerLog(body) => (path, json(body)),
            Self::LedgerShow(body) => (path, json(body)),
        }
    }

    /// Reads a request; `None` when there is no such path or method.
    ///
    /// # Errors
    /// A body that is not the documented JSON.
    pub fn from_http(method: Method, path: &str, body: &[u8]) -> Option<Result<Self, serde_json::Error>> {
        Some(match (method, path) {
            (Method::Get, "/v1/status") => Ok(Self::Status),
            (Method::Get, "/v1/peers") => Ok(Self::Peers),
            (Method::Get, "/v1/members") => Ok(Self::Members),
            (Method::Get, "/v1/invites") => Ok(Self::Invites),
            (Method::Get, "/v1/routes") => Ok(Self::Routes),
            (Method::Get, "/v1/requests") => Ok(Self::Requests),
            (Method::Post, "/v1/requests/approve") => serde_json::from_slice(body).map(Self::Approve),
            (Method::Post, "/v1/requests/refuse") => serde_json::from_slice(body).map(Self::Refuse),
            (Method::Get, "/v1/exits") => Ok(Self::Exits),
            (Method::Get, "/v1/policy") => Ok(Self::Rules),
            (Method::Get, "/v1/ledger") => Ok(Self::LedgerStatus),
            (Method::Post, "/v1/ledger/verify") => empty(body).map(|()| Self::LedgerVerify),
            (Method::Post, "/v1/reload") => empty(body).map(|()| Self::Reload),
            (Method::Post, "/v1/ping") => serde_json::from_slice(body).map(Self::Ping),
            (Method::Post, "/v1/ip") => serde_json::from_slice(body).map(Self::Ip),
            (Method::Post, "/v1/whois") => serde_json::from_slice(body).map(Self::Whois),
            (Method::Post, "/v1/wait") => serde_json::from_slice(body).map(Self::Wait),
            (Method::Post, "/v1/members/authorize") => serde_json::from_slice(body).map(Self::Authorize),
            (Method::Post, "/v1/members/revoke") => serde_json::from_slice(body).map(Self::Revoke),
            (Method::Post, "/v1/members/rename") => serde_json::from_slice(body).map(Self::Rename),
            (Method::Post, "/v1/members/tag") => serde_json::from_slice(body).map(Self::Tag),
            (Method::Post, "/v1/policy/change") => serde_json::from_slice(body).map(Self::ChangePolicy),
            (Method::Post, "/v1/policy/apply") => serde_json::from_slice(body).map(Self::ApplyPolicy),
            (Method::Post, "/v1/policy/check") => serde_json::from_slice(body).map(Self::CheckPolicy),
            (Method::Post, "/v1/policy/explain") => serde_json::from_slice(body).map(Self::Explain),
            (Method::Post, "/v1/routes/advertise") => serde_json::from_slice(body).map(Self::Advertise),
            (Method::Post, "/v1/routes/unadvertise") => serde_json::from_slice(body).map(Self::Unadvertise),
            (Method::Post, "/v1/routes/accept") => serde_json::from_slice(body).map(Self::Accept),
            (Method::Post, "/v1/exits/use") => serde_json::from_slice(body).map(Self::UseExit),
            (Method::Post, "/v1/ledger/upgrade") => serde_json::from_slice(body).map(Self::LedgerUpgrade),
            (Method::Post, "/v1/invites") => serde_json::from_slice(body).map(Self::Invite),
            (Method::Post, "/v1/invites/revoke") => serde_json::from_slice(body).map(Self::RevokeInvite),
            (Method::Post, "/v1/ledger/log") => serde_json::from_slice(body).map(Self::LedgerLog),
            (Method::Post, "/v1/ledger/show") => serde_json::from_slice(body).map(Self::LedgerShow),
            _ => {
                let name = || NameRequest::from_http(method, path, body).map(|request| request.map(Self::Name));
                let link = || LinkRequest::from_http(method, path, body).map(|request| request.map(Self::Link));
                let relay = || RelayRequest::from_http(method, path, body).map(|request| request.map(Self::Relay));
                let reach = || ReachRequest::from_http(method, path, body).map(|request| request.map(Self::Reach));
                return name().or_else(link).or_else(relay).or_else(reach);
            }
        })
    }

    /// Who may ask it: what signs a transaction or reads a secret is for admins.
    pub fn right(&self) -> Right {
        match self {
            Self::Name(request) => request.right(),
            Self::Link(request) => request.right(),
            Self::Relay(request) => request.right(),
            Self::Reach(request) => request.right(),
            Self::Status => Right::Anybody,
            Self::Peers
            | Self::Ping(_)
            | Self::Ip(_)
            | Self::Whois(_)
            | Self::Wait(_)
            | Self::Members
            | Self::Invites
            | Self::Rules
            | Self::Routes
            | Self::Requests
            | Self::Exits
            | Self::Accept(_)
            | Self::UseExit(_)
            | Self::CheckPolicy(_)
            | Self::Explain(_)
            | Self::LedgerStatus
            | Self::LedgerLog(_)
            | Self::LedgerShow(_)
            | Self::LedgerVerify => Right::Group,
            Self::Authorize(_)
            | Self::Revoke(_)
            | Self::Rename(_)
            | Self::Invite(_)
            | Self::RevokeInvite(_)
            | Self::Tag(_)
            | Self::ChangePolicy(_)
            | Self::ApplyPolicy(_)
            | Self::Advertise(_)
            | Self::Unadvertise(_)
            | Self::Approve(_)
            | Self::Refuse(_)
            | Self::LedgerUpgrade(_)
            | Self::Reload => Right::Admin,
        }
    }

    fn path(&self) -> &'static str {
        match self {
            Self::Name(request) => request.to_http().0,
            Self::Link(request) => request.to_http().0,
            Self::Relay(request) => request.to_http().0,
            Self::Reach(request) => request.to_http().0,
            Self::Status => "/v1/status",
            Self::Peers => "/v1/peers",
            Self::Ping(_) => "/v1/ping",
            Self::Ip(_) => "/v1/ip",
            Self::Whois(_) => "/v1/whois",
            Self::Wait(_) => "/v1/wait",
            Self::Members => "/v1/members",
            Self::Authorize(_) => "/v1/members/authorize",
            Self::Revoke(_) => "/v1/members/revoke",
            Self::Rename(_) => "/v1/members/rename",
            Self::Invite(_) | Self::Invites => "/v1/invites",
            Self::RevokeInvite(_) => "/v1/invites/revoke",
            Self::Tag(_) => "/v1/members/tag",
            Self::Routes => "/v1/routes",
            Self::Advertise(_) => "/v1/routes/advertise",
            Self::Unadvertise(_) => "/v1/routes/unadvertise",
            Self::Accept(_) => "/v1/routes/accept",
            Self::Requests => "/v1/requests",
            Self::Approve(_) => "/v1/requests/approve",
            Self::Refuse(_) => "/v1/requests/refuse",
            Self::Exits => "/v1/exits",
            Self::UseExit(_) => "/v1/exits/use",
            Self::Rules => "/v1/policy",
            Self::ChangePolicy(_) => "/v1/policy/change",
            Self::ApplyPolicy(_) => "/v1/policy/apply",
            Self::CheckPolicy(_) => "/v1/policy/check",
            Self::Explain(_) => "/v1/policy/explain",
            Self::LedgerUpgrade(_) => "/v1/ledger/upgrade",
            Self::LedgerStatus => "/v1/ledger",
            Self::LedgerLog(_) => "/v1/ledger/log",
            Self::LedgerShow(_) => "/v1/ledger/show",
            Self::LedgerVerify => "/v1/ledger/verify",
            Self::Reload => "/v1/reload",
        }
    }
}

/// The body of a `POST`.
pub(super) fn json(body: &impl Serialize) -> Option<serde_json::Value> {
    Some(serde_json::to_value(body).expect("request bodies consist of JSON's types"))
}

/// Accepts no body and an empty object.
fn empty(body: &[u8]) -> Result<(), serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Empty {}
    if body.is_empty() { Ok(()) } else { serde_json::from_slice::<Empty>(body).map(|Empty {}| ()) }
}

#[cfg(test)]
mod tests {
    use super::super::names::{DnsQuery, NameAdd, NameRemove, Record, RecordType};
    use super::super::request::{
        Authorize, Condition, Finality, Invite, Ip, LedgerLog, LedgerShow, LedgerUpgrade, Ping, Rename, Revoke,
        RevokeInvite, Wait, Whois,
    };
    use super::*;
    use crate::daemon::api::policy::{ApplyPolicy, ChangePolicy, CheckPolicy, Explain, Tag};
    use crate::daemon::api::routes::{Accept, Advertise, AnswerRequest, UseExit};
    use crate::daemon::duration::Span;
    use std::time::Duration;

    /// One request of every kind.
    fn every_request() -> Vec<Request> {
        let finality = Finality { wait: false, timeout_seconds: 2.5 };
        let peer = || "b".to_owned();
        let subnet = Some("192.168.7.0/24".to_owned());
        let advertise = || Advertise { subnet: subnet.clone(), map: None, exit: true, member: Some(peer()), finality };
        vec![
            Request::Status,
            Request::Peers,
            Request::Ping(Ping { peer: peer(), count: 3 }),
            Request::Ip(Ip { peer: Some(peer()) }),
            Request::Whois(Whois { what: peer() }),
            Request::Wait(Wait { condition: Condition::Height(7), timeout_seconds: 0.5 }),
            Request::Members,
            Request::Authorize(Authorize {
                id: "7".repeat(64),
                name: Some(peer()),
                tags: vec!["web".to_owned()],
                node_key: None,
                transport_key: Some("8".repeat(64)),
                finality,
            }),
            Request::Revoke(Revoke { peer: peer(), reason: Some("lost".to_owned()), force: true, finality }),
            Request::Rename(Rename { peer: peer(), name: "c".to_owned(), finality }),
            Request::Invite(Invite {
                name: None,
                tags: vec![],
                uses: 1,
                expires: Span(Duration::from_hours(24)),
                endpoints: vec!["10.77.1.2:4647".parse().unwrap()],
                needs_approval: false,
                finality,
            }),
            Request::Invites,
            Request::RevokeInvite(RevokeInvite { credential: "9".repeat(64), finality }),
            Request::Tag(Tag { peer: peer(), add: vec![peer()], remove: vec!["c".to_owned()], finality }),
            Request::Rules,
            Request::ChangePolicy(ChangePolicy { add: vec!["allow * *".to_owned()], remove: vec![3], finality }),
            Request::ApplyPolicy(ApplyPolicy { rules: vec![], checks: vec![peer()], dry_run: true, finality }),
            Request::CheckPolicy(CheckPolicy { rules: Some(vec![]), checks: vec![peer()] }),
            Request::Explain(Explain { source: peer(), destination: "c:22".to_owned() }),
            Request::Routes,
            Request::Advertise(advertise()),
            Request::Unadvertise(advertise()),
            Request::Accept(Accept { all: true, prefixes: vec![], accept: false, force: true }),
            Request::Requests,
            Request::Approve(AnswerRequest { id: peer(), finality }),
            Request::Refuse(AnswerRequest { id: peer(), finality }),
            Request::Exits,
            Request::UseExit(UseExit { peer: Some(peer()) }),
            Request::LedgerUpgrade(LedgerUpgrade { finality }),
            Request::LedgerStatus,
            Request::LedgerLog(LedgerLog { peer: None, since: Some(3) }),
            Request::LedgerShow(LedgerShow { what: "3".to_owned() }),
            Request::LedgerVerify,
            Request::Reload,
            Request::Name(NameRequest::List),
            Request::Name(NameRequest::Add(NameAdd {
                name: "@".to_owned(),
                record: Record::Mx { priority: 10, target: peer() },
                finality,
            })),
            Request::Name(NameRequest::Remove(NameRemove {
                name: peer(),
                record_type: Some(RecordType::Txt),
                value: vec!["v=spf1 -all".to_owned()],
                finality,
            })),
            Request::Name(NameRequest::Status),
            Request::Name(NameRequest::Query(DnsQuery { name: peer(), query_type: Some("MX".to_owned()) })),
        ]
    }

    #[test]
    fn every_request_survives_the_way_to_the_daemon() {
        for request in every_request() {
            let (path, body) = request.to_http();
            let method = if body.is_some() { Method::Post } else { Method::Get };
            let bytes = body.map(|body| body.to_string()).unwrap_or_default();
            let read = Request::from_http(method, path, bytes.as_bytes()).unwrap().unwrap();
            assert_eq!(read, request);
        }
    }

    #[test]
    fn what_signs_or_reads_a_secret_is_for_admins() {
        for request in every_request() {
            let (path, body) = request.to_http();
            let right = match (path, body.is_some()) {
                ("/v1/status", false) => Right::Anybody,
                ("/v1/invites" | "/v1/invites/revoke" | "/v1/reload" | "/v1/ledger/upgrade", true) => Right::Admin,
                (
                    "/v1/policy/change" | "/v1/policy/apply" | "/v1/routes/advertise" | "/v1/routes/unadvertise",
                    true,
                ) => Right::Admin,
                ("/v1/names/add" | "/v1/names/remove", true) => Right::Admin,
                (path, true) if path.starts_with("/v1/members/") || path.starts_with("/v1/requests/") => Right::Admin,
                _ => Right::Group,
            };
            assert_eq!(request.right(), right, "{path}");
        }
    }

    #[test]
    fn unknown_paths_methods_and_fields_are_refused() {
        assert!(Request::from_http(Method::Post, "/v1/status", b"{}").is_none());
        assert!(Request::from_http(Method::Get, "/v1/ping", b"").is_none());
        assert!(Request::from_http(Method::Get, "/v2/status", b"").is_none());
        let bodies: [(&str, &[u8]); 5] = [
            ("/v1/ping", b""),
            ("/v1/ping", br#"{"peer":"b"}"#),
            ("/v1/ping", br#"{"peer":"b","count":1,"colour":"red"}"#),
            ("/v1/ping", br#"{"peer":"b","count":-1}"#),
            ("/v1/reload", br#"{"now":true}"#),
        ];
        for (path, body) in bodies {
            assert!(
                Request::from_http(Method::Post, path, body).unwrap().is_err(),
                "{path} {}",
                String::from_utf8_lossy(body)
            );
        }
    }
}
