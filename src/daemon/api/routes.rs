//! What can be asked and ordered about what lies behind members, and the documented JSON of the answers.

use super::request::Finality;
use crate::wire::prefix::Prefix;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Puts a subnet behind a member, or makes it an exit; or ends that.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advertise {
    /// The subnet as it is there.
    #[serde(default)]
    pub subnet: Option<String>,
    /// The subnet as the overlay shall see it, where that is another one of the same length.
    #[serde(default)]
    pub map: Option<String>,
    /// Everywhere.
    #[serde(default)]
    pub exit: bool,
    /// Which member; `None` for the node itself.
    #[serde(default)]
    pub member: Option<String>,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// Says which subnets this node sends to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// Every subnet that is approved, now and later.
    #[serde(default)]
    pub all: bool,
    /// Subnets as the overlay sees them.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// Whether they are accepted from now on, or no more.
    pub accept: bool,
    /// Also where they cover a network of this host, which is then out of reach.
    #[serde(default)]
    pub force: bool,
}

/// Says by which member this node sends what is for nobody in the overlay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UseExit {
    /// A member that is an exit; `None` for none.
    #[serde(default)]
    pub peer: Option<String>,
}

/// A subnet behind members.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RouteView {
    /// As the overlay sees it.
    pub prefix: String,
    /// Whether this node sends there.
    pub accepted: bool,
    /// Who routes it.
    pub routers: Vec<RouterView>,
}

/// One member that routes a subnet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RouterView {
    /// Its name.
    pub name: String,
    /// What the subnet is there; `null` where it is the same.
    pub local: Option<String>,
    /// Whether this node sends what is for the subnet to it.
    pub in_use: bool,
    /// Whether it does not answer this node.
    pub silent: bool,
    /// The transaction that approved it.
    pub tx: String,
    /// The signers by whose authority: names of members, else keys.
    pub signers: Vec<String>,
}

/// A member that is an exit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExitView {
    /// Its name.
    pub name: String,
    /// Whether this node uses it.
    pub in_use: bool,
    /// Whether it does not answer this node.
    pub silent: bool,
}

/// What a node accepts of what lies behind others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AcceptedView {
    /// Every subnet that is approved, now and later.
    pub all: bool,
    /// These.
    pub prefixes: Vec<String>,
    /// The exit in use, by its name.
    pub exit: Option<String>,
}

/// Answers a request: gives what was asked for, or refuses it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerRequest {
    /// The request's id, or its first digits.
    pub id: String,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// Something that waits for a signer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RequestView {
    /// Its id, 16 hexadecimal digits.
    pub id: String,
    /// Who asks.
    pub member: String,
    /// For what: `route`, `exit` or `relay`.
    pub kind: String,
    /// The subnet as the overlay would see it.
    pub prefix: Option<String>,
    /// The subnet as it is there; `null` where it is the same.
    pub local: Option<String>,
    /// Where the relay would be; empty for what is none.
    #[serde(default)]
    pub endpoints: Vec<SocketAddr>,
    /// The port at which it would be reached by TLS, if by any.
    #[serde(default)]
    pub tls_port: Option<u16>,
    /// When it was made, in seconds since 1970.
    pub made: u64,
    /// When it ends by itself, likewise.
    pub expires: u64,
}

/// Reads a subnet as it was typed.
///
/// # Errors
/// What is wrong with it.
pub fn subnet(text: &str) -> Result<Prefix, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}
