//! What can be ordered about relays and static endpoints. How it travels is said here, too.

use super::request::Finality;
use super::route::{Method, Right, json};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// One order about relays and static endpoints.
#[derive(Clone, PartialEq, Debug)]
pub enum RelayRequest {
    /// Has a member relay for others.
    On(RelayOn),
    /// Ends that.
    Off(RelayOff),
    /// Says where a validator stays.
    SetEndpoints(SetEndpoints),
}

/// Has a member relay for others at endpoints that stay.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayOn {
    /// Its UDP endpoints; empty takes the configured, the global, the seen ones of the node itself.
    #[serde(default)]
    pub endpoints: Vec<SocketAddr>,
    /// The port at which the same addresses are reached by TLS.
    #[serde(default)]
    pub tls_port: Option<u16>,
    /// How much it is preferred, 1 to 3, the highest first; `null` takes 2.
    #[serde(default)]
    pub class: Option<u8>,
    /// Which member; `null` for the node itself.
    #[serde(default)]
    pub member: Option<String>,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// Has a member relay no more by approval.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayOff {
    /// Which member; `null` for the node itself.
    #[serde(default)]
    pub member: Option<String>,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// Says where a validator stays.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetEndpoints {
    /// Its UDP endpoints; empty when it has none that stay.
    #[serde(default)]
    pub endpoints: Vec<SocketAddr>,
    /// Which member; `null` for the node itself.
    #[serde(default)]
    pub member: Option<String>,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

impl RelayRequest {
    /// Where the request goes, with the body of a `POST`.
    pub fn to_http(&self) -> (&'static str, Option<serde_json::Value>) {
        match self {
            Self::On(body) => ("/v1/relays/on", json(body)),
            Self::Off(body) => ("/v1/relays/off", json(body)),
            Self::SetEndpoints(body) => ("/v1/ledger/endpoints", json(body)),
        }
    }

    /// Reads a request; `None` when there is no such path or method.
    ///
    /// # Errors
    /// A body that is not the documented JSON.
    pub fn from_http(method: Method, path: &str, body: &[u8]) -> Option<Result<Self, serde_json::Error>> {
        Some(match (method, path) {
            (Method::Post, "/v1/relays/on") => serde_json::from_slice(body).map(Self::On),
            (Method::Post, "/v1/relays/off") => serde_json::from_slice(body).map(Self::Off),
            (Method::Post, "/v1/ledger/endpoints") => serde_json::from_slice(body).map(Self::SetEndpoints),
            _ => return None,
        })
    }

    /// Who may ask it: what signs a transaction is for admins.
    pub fn right(&self) -> Right {
        match self {
            Self::On(_) | Self::Off(_) | Self::SetEndpoints(_) => Right::Admin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_survives_the_way_and_is_for_admins() {
        let finality = Finality { wait: false, timeout_seconds: 2.5 };
        let (endpoints, member) = (vec!["203.0.113.7:4647".parse().unwrap()], Some("b".to_owned()));
        for request in [
            RelayRequest::On(RelayOn {
                endpoints: endpoints.clone(),
                tls_port: Some(443),
                class: Some(3),
                member: member.clone(),
                finality,
            }),
            RelayRequest::Off(RelayOff { member: member.clone(), finality }),
            RelayRequest::SetEndpoints(SetEndpoints { endpoints, member, finality }),
        ] {
            let (path, body) = request.to_http();
            assert_eq!(request.right(), Right::Admin, "{path}");
            let bytes = body.unwrap().to_string();
            assert_eq!(RelayRequest::from_http(Method::Post, path, bytes.as_bytes()).unwrap().unwrap(), request);
            assert!(RelayRequest::from_http(Method::Get, path, b"").is_none(), "{path}");
            assert!(RelayRequest::from_http(Method::Post, path, br#"{"colour":"red"}"#).unwrap().is_err());
        }
    }
}
