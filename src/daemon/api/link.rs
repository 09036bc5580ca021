//! What can be asked about segments and bridges, and what is answered. How they travel is said here, too.

use super::request::Finality;
use super::route::{Method, Right};
use serde::{Deserialize, Serialize};

/// One question or order about the link layer.
#[derive(Clone, PartialEq, Debug)]
pub enum LinkRequest {
    /// Lists the segments.
    Segments,
    /// Makes a segment, or changes it.
    SetSegment(SetSegment),
    /// Ends a segment.
    RemoveSegment(RemoveSegment),
    /// Lists the bridges, those of this host and those that the ledger permits.
    Bridges,
    /// Bridges an interface of this host into a segment.
    AddBridge(AddBridge),
    /// Undoes that.
    RemoveBridge(RemoveBridge),
    /// Permits a member to bridge into a segment, or forbids it.
    JudgeBridge(JudgeBridge),
}

/// Makes a segment, or changes what is named of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetSegment {
    /// Its name.
    pub name: String,
    /// The tag of its members; `null` leaves it as it is, which a new segment cannot.
    #[serde(default)]
    pub tag: Option<String>,
    /// The members behind which its routers and DHCP servers are: names, addresses or identities; `null` leaves them as they are.
    #[serde(default)]
    pub gateways: Option<Vec<String>>,
    /// Frames a second that one member may send to everybody; `null` leaves it as it is, 1000 for a new one.
    #[serde(default)]
    pub storm_limit: Option<u32>,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// Ends a segment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveSegment {
    /// Its name.
    pub name: String,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// Bridges an interface of this host into a segment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddBridge {
    /// A network interface, or a bridge that exists.
    pub interface: String,
    /// The segment's name.
    pub segment: String,
    /// Waiting for the approval, where this node's key can give it.
    #[serde(default)]
    pub finality: Finality,
}

/// Takes an interface of this host out of its segment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveBridge {
    /// The interface.
    pub interface: String,
    /// Only out of this segment.
    #[serde(default)]
    pub segment: Option<String>,
}

/// Permits a member to bridge into a segment, or forbids it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeBridge {
    /// The segment's name.
    pub segment: String,
    /// A name, an overlay address or an identity.
    pub peer: String,
    /// Whether it may.
    pub approve: bool,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// One of `segment list`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SegmentView {
    /// Its name.
    pub name: String,
    /// Its number, by which frames name it.
    pub number: u32,
    /// The tag of its members.
    pub tag: String,
    /// Its members' names.
    pub members: Vec<String>,
    /// The names of those behind which its routers and DHCP servers are.
    pub gateways: Vec<String>,
    /// The names of those that may bridge into it.
    pub bridges: Vec<String>,
    /// Frames a second that one member may send to everybody.
    pub storm_limit: u32,
    /// Whether this node is in it.
    pub is_member: bool,
    /// This node's interface; `null` where there is none.
    pub device: Option<String>,
    /// Its Ethernet address, where this node is in the segment.
    pub mac: Option<String>,
    /// Why there is no interface although this node is in the segment.
    pub problem: Option<String>,
    /// Stations that were heard behind bridges lately.
    pub stations: Vec<StationView>,
}

/// A station behind a bridge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StationView {
    /// Its Ethernet address.
    pub mac: String,
    /// The name of the member whose bridge it is behind.
    pub behind: String,
    /// Seconds since it spoke.
    pub seen_seconds: u64,
}

/// One of `bridge list`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BridgeView {
    /// The segment's name.
    pub segment: String,
    /// The member's name.
    pub member: String,
    /// Whether the ledger permits it.
    pub is_approved: bool,
    /// The interface, where the member is this node and bridges.
    pub interface: Option<String>,
    /// The kernel's bridge that the interface and the segment's device are ports of.
    pub bridge: Option<String>,
    /// What is in the way on this host.
    pub problem: Option<String>,
}

/// `bridge add`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bridged {
    /// The interface.
    pub interface: String,
    /// The segment's name.
    pub segment: String,
    /// The kernel's bridge that both are ports of.
    pub bridge: Option<String>,
    /// What is in the way on this host.
    pub problem: Option<String>,
    /// Whether the ledger permits it: until then the others drop what is bridged.
    pub is_approved: bool,
    /// The transaction that asks for it, where one was needed and this node's key could sign it.
    pub tx: Option<String>,
    /// The block that it is in.
    pub height: Option<u64>,
}

impl LinkRequest {
    /// Where the request goes, with the body of a `POST`.
    pub fn to_http(&self) -> (&'static str, Option<serde_json::Value>) {
        match self {
            Self::Segments => ("/v1/segments", None),
            Self::SetSegment(body) => ("/v1/segments", json(body)),
            Self::RemoveSegment(body) => ("/v1/segments/remove", json(body)),
            Self::Bridges => ("/v1/bridges", None),
            Self::AddBridge(body) => ("/v1/bridges", json(body)),
            Self::RemoveBridge(body) => ("/v1/bridges/remove", json(body)),
            Self::JudgeBridge(body) => ("/v1/bridges/judge", json(body)),
        }
    }

    /// Reads a request; `None` when there is no such path or method.
    ///
    /// # Errors
    /// A body that is not the documented JSON.
    pub fn from_http(method: Method, path: &str, body: &[u8]) -> Option<Result<Self, serde_json::Error>> {
        Some(match (method, path) {
            (Method::Get, "/v1/segments") => Ok(Self::Segments),
            (Method::Get, "/v1/bridges") => Ok(Self::Bridges),
            (Method::Post, "/v1/segments") => serde_json::from_slice(body).map(Self::SetSegment),
            (Method::Post, "/v1/segments/remove") => serde_json::from_slice(body).map(Self::RemoveSegment),
            (Method::Post, "/v1/bridges") => serde_json::from_slice(body).map(Self::AddBridge),
            (Method::Post, "/v1/bridges/remove") => serde_json::from_slice(body).map(Self::RemoveBridge),
            (Method::Post, "/v1/bridges/judge") => serde_json::from_slice(body).map(Self::JudgeBridge),
            _ => return None,
        })
    }

    /// Who may ask it: what signs a transaction or changes bridges is for admins.
    pub fn right(&self) -> Right {
        match self {
            Self::Segments | Self::Bridges => Right::Group,
            Self::SetSegment(_)
            | Self::RemoveSegment(_)
            | Self::AddBridge(_)
            | Self::RemoveBridge(_)
            | Self::JudgeBridge(_) => Right::Admin,
        }
    }
}

fn json(body: &impl Serialize) -> Option<serde_json::Value> {
    Some(serde_json::to_value(body).expect("request bodies consist of JSON's types"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_request() -> Vec<LinkRequest> {
        let finality = Finality { wait: false, timeout_seconds: 2.5 };
        let text = || "lab".to_owned();
        vec![
            LinkRequest::Segments,
            LinkRequest::SetSegment(SetSegment {
                name: text(),
                tag: Some(text()),
                gateways: Some(vec![text()]),
                storm_limit: Some(7),
                finality,
            }),
            LinkRequest::RemoveSegment(RemoveSegment { name: text(), finality }),
            LinkRequest::Bridges,
            LinkRequest::AddBridge(AddBridge { interface: text(), segment: text(), finality }),
            LinkRequest::RemoveBridge(RemoveBridge { interface: text(), segment: None }),
            LinkRequest::JudgeBridge(JudgeBridge { segment: text(), peer: text(), approve: true, finality }),
        ]
    }

    #[test]
    fn every_request_survives_the_way_and_what_changes_something_is_for_admins() {
        for request in every_request() {
            let (path, body) = request.to_http();
            let method = if body.is_some() { Method::Post } else { Method::Get };
            assert_eq!(request.right(), if body.is_some() { Right::Admin } else { Right::Group }, "{path}");
            let bytes = body.map(|body| body.to_string()).unwrap_or_default();
            assert_eq!(LinkRequest::from_http(method, path, bytes.as_bytes()).unwrap().unwrap(), request);
        }
        assert!(LinkRequest::from_http(Method::Get, "/v1/segments/remove", b"").is_none());
        assert!(LinkRequest::from_http(Method::Post, "/v1/bridges", br#"{"interface":"eth1"}"#).unwrap().is_err());
    }
}
