//! How members are reached: what can be asked, how it travels, and the documented JSON of the answers.

use super::route::{Method, Right, json};
use super::types::{PathKind, PeerPath};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// One question about ways.
#[derive(Clone, PartialEq, Debug)]
pub enum ReachRequest {
    /// Why a peer is reached as it is.
    Why(Why),
    /// How this node is placed.
    NetCheck,
    /// What this node relays.
    Relaying,
}

/// What is answered, one kind for each request.
#[derive(PartialEq, Serialize)]
#[serde(untagged)]
pub enum ReachReply {
    /// To `Why`.
    Why(WhyReport),
    /// To `NetCheck`.
    NetCheck(NetReport),
    /// To `Relaying`.
    Relaying(RelayReport),
}

/// Asks why a peer is reached as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// The peer: a name, an overlay address or an identity.
    pub peer: String,
}

/// How one node is placed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PlacementView {
    /// `unknown`, `none`, `undetermined`, `endpoint-independent` or `endpoint-dependent`.
    pub nat: String,
    /// Others reach it without its asking.
    pub reachable: bool,
    /// Where it can be found.
    pub endpoints: Vec<SocketAddr>,
    /// The relays that it keeps a session with.
    pub relays: Vec<RelayView>,
}

/// A relay, as somebody sees it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RelayView {
    /// Its name.
    pub name: String,
    /// The round trip to it.
    pub rtt_ms: f64,
}

/// One way to a peer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WayView {
    /// Direct, through a relay, or over TLS.
    pub kind: PathKind,
    /// The peer's endpoint, for `direct`.
    pub endpoint: Option<SocketAddr>,
    /// The relay's name, for `relay` and `tls`.
    pub relay: Option<String>,
    /// What named it: `record`, `lan`, `remembered`, `observed`, `ledger`, `configured` or `relay`.
    pub source: String,
    /// `used`, `answered`, `silent` (something was sent there) or `untried`.
    pub state: String,
    /// How long ago something came from there.
    pub heard_seconds: Option<u64>,
}

/// The answer to [`Why`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WhyReport {
    /// The peer's name.
    pub peer: String,
    /// The way in use.
    pub path: PeerPath,
    /// Why, in a sentence.
    pub reason: String,
    /// The longest IP packet that the way in use takes, in bytes; `null` until it is measured.
    pub mtu: Option<u16>,
    /// What would help; empty when nothing has to.
    pub advice: Vec<String>,
    /// This node.
    pub own: PlacementView,
    /// The peer, as it says itself; `null` when nobody told of it.
    pub remote: Option<PlacementView>,
    /// Every way that is known.
    pub ways: Vec<WayView>,
}

/// The answer to `netcheck`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NetReport {
    /// This node.
    #[serde(flatten)]
    pub own: PlacementView,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Some peer answers by UDP.
    pub udp: bool,
    /// Some peer answers over TLS, because UDP does not pass.
    pub tls: bool,
    /// What the gateway passes on.
    pub mapping: MappingView,
    /// Where members see this node.
    pub seen: Vec<Sighting>,
    /// What hinders, and what would help.
    pub advice: Vec<String>,
}

/// Whether the gateway passes on what comes for this node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MappingView {
    /// `off`, `no-gateway`, `searching`, `mapped` or `unmapped`.
    pub state: String,
    /// Where others come to, if it is mapped.
    pub endpoint: Option<SocketAddr>,
    /// How the gateway was asked, if it is mapped: `PCP`, `NAT-PMP` or `UPnP`.
    pub by: Option<String>,
    /// Why not, if it is unmapped.
    pub reason: Option<String>,
}

/// Where a member sees this node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sighting {
    /// Who.
    pub by: String,
    /// Where.
    pub endpoint: SocketAddr,
}

/// The answer to `relay status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RelayReport {
    /// `auto`, `on` or `off`, as configured.
    pub mode: String,
    /// Members may reach each other through this node now.
    pub relaying: bool,
    /// Others reach this node without its asking: else nobody can reach anybody through it.
    pub reachable: bool,
    /// Bytes per second for all together; `null` is no limit.
    pub rate: Option<u64>,
    /// Bytes per second for each member; `null` is no limit.
    pub member_rate: Option<u64>,
    /// Labels in use, two for each circuit, and how many there may be.
    pub labels: usize,
    /// How many there may be.
    pub max_labels: usize,
    /// What is passed on.
    pub circuits: Vec<CircuitView>,
}

/// One circuit through this node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CircuitView {
    /// The members that it is between, by name.
    pub between: [String; 2],
    /// Bytes passed on so far.
    pub bytes: u64,
    /// How long ago it was last used.
    pub idle_seconds: u64,
}

impl ReachRequest {
    /// Where the request goes, with the body of a `POST`.
    pub fn to_http(&self) -> (&'static str, Option<serde_json::Value>) {
        match self {
            Self::Why(body) => ("/v1/why", json(body)),
            Self::NetCheck => ("/v1/netcheck", None),
            Self::Relaying => ("/v1/relay", None),
        }
    }

    /// Reads a request; `None` when there is no such path or method.
    ///
    /// # Errors
    /// A body that is not the documented JSON.
    pub fn from_http(method: Method, path: &str, body: &[u8]) -> Option<Result<Self, serde_json::Error>> {
        Some(match (method, path) {
            (Method::Post, "/v1/why") => serde_json::from_slice(body).map(Self::Why),
            (Method::Get, "/v1/netcheck") => Ok(Self::NetCheck),
            (Method::Get, "/v1/relay") => Ok(Self::Relaying),
            _ => return None,
        })
    }

    /// Who may ask it.
    pub fn right(&self) -> Right {
        Right::Group
    }
}
