//! What can be asked, and what is answered: one enum each, for both ends of the socket. `route` says how they travel.

use super::link::{self, LinkRequest};
use super::names::{NameReply, NameRequest};
use super::policy::{self, ApplyPolicy, ChangePolicy, CheckPolicy, Explain, Tag};
use super::reach::{ReachReply, ReachRequest};
use super::relays::RelayRequest;
use super::routes::{self, Accept, Advertise, AnswerRequest, UseExit};
use super::types;
use crate::daemon::duration::Span;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// How long a mutation waits for its block unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// One question or order to the daemon.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// Everything at a glance.
    Status,
    /// The other members, and the ways to them.
    Peers,
    /// Probes through the overlay.
    Ping(Ping),
    /// A peer's overlay addresses, or the own ones.
    Ip(Ip),
    /// Who has this address, name or identity.
    Whois(Whois),
    /// Answers once a condition holds.
    Wait(Wait),
    /// Everybody the ledger knows.
    Members,
    /// Admits a node without a ticket.
    Authorize(Authorize),
    /// Cuts a member.
    Revoke(Revoke),
    /// Renames a member.
    Rename(Rename),
    /// Makes a ticket.
    Invite(Invite),
    /// Lists the credentials that can still admit.
    Invites,
    /// Ends a credential.
    RevokeInvite(RevokeInvite),
    /// Gives a member tags and takes some from it.
    Tag(Tag),
    /// Lists the rules.
    Rules,
    /// Adds rules and removes some.
    ChangePolicy(ChangePolicy),
    /// Makes the rules those of a list.
    ApplyPolicy(ApplyPolicy),
    /// Whether expectations hold.
    CheckPolicy(CheckPolicy),
    /// Whether one may reach another, and why.
    Explain(Explain),
    /// Lists what lies behind members.
    Routes,
    /// Puts a subnet behind a member, or makes it an exit.
    Advertise(Advertise),
    /// Ends that.
    Unadvertise(Advertise),
    /// Lists what waits for a signer.
    Requests,
    /// Gives what was asked for.
    Approve(AnswerRequest),
    /// Refuses it.
    Refuse(AnswerRequest),
    /// Says which subnets this node sends to.
    Accept(Accept),
    /// Lists the exits.
    Exits,
    /// Chooses the exit, or none.
    UseExit(UseExit),
    /// The ledger at a glance.
    LedgerStatus,
    /// What happened.
    LedgerLog(LedgerLog),
    /// One block or transaction.
    LedgerShow(LedgerShow),
    /// Checks the ledger from the beginning.
    LedgerVerify,
    /// Raises the network's protocol version to the daemon's.
    LedgerUpgrade(LedgerUpgrade),
    /// About names.
    Name(NameRequest),
    /// About segments and bridges.
    Link(LinkRequest),
    /// About relays and static endpoints.
    Relay(RelayRequest),
    /// About ways to members.
    Reach(ReachRequest),
    /// Reads the configuration again.
    Reload,
}

/// Sends probes to a peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ping {
    /// A name, an overlay address or an identity.
    pub peer: String,
    /// How many, a second apart.
    pub count: u32,
}

/// Asks for overlay addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ip {
    /// A name or an identity; `None` for the node itself.
    #[serde(default)]
    pub peer: Option<String>,
}

/// Asks for a member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whois {
    /// A name, an overlay address or an identity.
    pub what: String,
}

/// Waits for a condition.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// The condition.
    #[serde(rename = "for")]
    pub condition: Condition,
    /// How long; past it the answer is `timeout`.
    pub timeout_seconds: f64,
}

/// What can be waited for, as text: `online`, `synced`, `peer=NAME`, `direct=NAME`, `height=H`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Condition {
    /// State `up`; no peer needed.
    Online,
    /// The own head is at or above every head that was reported in the last 10 s.
    Synced,
    /// A handshake is confirmed both ways, and one probe was answered.
    Peer(String),
    /// The same on a direct path.
    Direct(String),
    /// The ledger reached a height.
    Height(u64),
}

/// Whether a mutation waits until its transaction is final.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finality {
    /// `false` answers as soon as the transaction is in the pool.
    pub wait: bool,
    /// How long to wait; past it the answer is `not_final`.
    pub timeout_seconds: f64,
}

impl Default for Finality {
    fn default() -> Self {
        Self { wait: true, timeout_seconds: DEFAULT_TIMEOUT.as_secs_f64() }
    }
}

/// Admits a node without a ticket.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorize {
    /// Its identity, 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The key that signs its node records, 64 hexadecimal digits; `None` takes the one that the ledger or a guest session knows.
    #[serde(default)]
    pub node_key: Option<String>,
    /// The key of its handshakes, likewise.
    #[serde(default)]
    pub transport_key: Option<String>,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// Cuts a member.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// A name, an overlay address or an identity.
    pub peer: String,
    /// Why, for the log of the daemon.
    #[serde(default)]
    pub reason: Option<String>,
    /// Also when it is the node that is asked.
    #[serde(default)]
    pub force: bool,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// Renames a member.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// A name, an overlay address or an identity.
    pub peer: String,
    /// The name to be.
    pub name: String,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// Makes a ticket.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// The name that it gives; implies one use.
    #[serde(default)]
    pub name: Option<String>,
    /// The tags that it gives.
    #[serde(default)]
    pub tags: Vec<String>,
    /// How many nodes it admits.
    pub uses: u32,
    /// How long it lasts.
    pub expires: Span,
    /// This node's endpoints for the ticket; empty takes the configured, the global, the seen ones.
    #[serde(default)]
    pub endpoints: Vec<SocketAddr>,
    /// The ticket leads to the network and lets nobody in: a signer admits who comes. Takes no name, tags, uses or end.
    #[serde(default)]
    pub needs_approval: bool,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// Ends a credential.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeInvite {
    /// Its public key, or the first digits of it.
    pub credential: String,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// Asks what happened.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerLog {
    /// Only what this member did or what was done to it.
    #[serde(default)]
    pub peer: Option<String>,
    /// Only from this height on.
    #[serde(default)]
    pub since: Option<u64>,
}

/// Asks for one block or transaction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerShow {
    /// A height, or a transaction's id or the first digits of it.
    pub what: String,
}

/// Raises the network's protocol version.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerUpgrade {
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// What the daemon answers, one kind for each request.
#[derive(PartialEq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// To `Status`.
    Status(Box<types::Status>),
    /// To `Peers`.
    Peers(Vec<types::Peer>),
    /// To `Ping`.
    Ping(types::PingReport),
    /// To `Ip`.
    Ip(types::Addresses),
    /// To `Whois`.
    Whois(types::Member),
    /// To `Wait`.
    Waited(types::Waited),
    /// To `Members`.
    Members(Vec<types::Member>),
    /// To `Authorize`, `Revoke`, `Rename`, `RevokeInvite`, `Tag`, `Advertise`, `Unadvertise`, `Approve`, `LedgerUpgrade` and `Relay`.
    Submitted(types::Submitted),
    /// To `Invite`.
    Invited(types::Invited),
    /// To `Invites`.
    Invites(Vec<types::Invite>),
    /// To `Rules`.
    Rules(Vec<policy::RuleView>),
    /// To `ChangePolicy` and `ApplyPolicy`.
    PolicyChanged(policy::PolicyChanged),
    /// To `CheckPolicy`.
    Checked(policy::Checked),
    /// To `Routes`.
    Routes(Vec<routes::RouteView>),
    /// To `Requests`.
    Requests(Vec<routes::RequestView>),
    /// To `Refuse`.
    Refused(routes::RequestView),
    /// To `Accept` and `UseExit`.
    Accepted(routes::AcceptedView),
    /// To `Exits`.
    Exits(Vec<routes::ExitView>),
    /// To `Explain`.
    Explained(policy::Explanation),
    /// To `LedgerStatus`.
    LedgerStatus(types::LedgerStatus),
    /// To `LedgerLog`.
    LedgerLog(Vec<types::LogEntry>),
    /// To `LedgerShow`.
    LedgerShow(types::LedgerItem),
    /// To `LedgerVerify`.
    LedgerVerify(types::VerifyReport),
    /// To `Name`.
    Name(NameReply),
    /// To `Reach`.
    Reach(ReachReply),
    /// To `Link` with `Segments`.
    Segments(Vec<link::SegmentView>),
    /// To `Link` with `Bridges` and `RemoveBridge`.
    Bridges(Vec<link::BridgeView>),
    /// To `Link` with `AddBridge`.
    Bridged(link::Bridged),
    /// To `Reload`.
    Reloaded(types::Reloaded),
}

impl Finality {
    /// How long the daemon may take to answer.
    pub fn timeout(&self) -> Duration {
        seconds(self.timeout_seconds)
    }
}

impl Wait {
    /// How long the daemon may take to answer.
    pub fn timeout(&self) -> Duration {
        seconds(self.timeout_seconds)
    }
}

/// A span from a number of seconds; what is negative or no number is zero, what is above a year is a year.
fn seconds(seconds: f64) -> Duration {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    Duration::try_from_secs_f64(seconds.max(0.0)).map_or(YEAR, |span| span.min(YEAR))
}

/// Text that is no condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a condition is one of: online, synced, peer=NAME, direct=NAME, height=H")]
pub struct NotACondition;

impl FromStr for Condition {
    type Err = NotACondition;

    fn from_str(text: &str) -> Result<Self, NotACondition> {
        match text.split_once('=') {
            None if text == "online" => Ok(Self::Online),
            None if text == "synced" => Ok(Self::Synced),
            Some(("peer", name)) if !name.is_empty() => Ok(Self::Peer(name.to_owned())),
            Some(("direct", name)) if !name.is_empty() => Ok(Self::Direct(name.to_owned())),
            Some(("height", height)) => height.parse().map(Self::Height).map_err(|_| NotACondition),
            _ => Err(NotACondition),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Online => f.write_str("online"),
            Self::Synced => f.write_str("synced"),
            Self::Peer(name) => write!(f, "peer={name}"),
            Self::Direct(name) => write!(f, "direct={name}"),
            Self::Height(height) => write!(f, "height={height}"),
        }
    }
}

impl TryFrom<String> for Condition {
    type Error = NotACondition;

    fn try_from(text: String) -> Result<Self, NotACondition> {
        text.parse()
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> Self {
        condition.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_those_of_the_contract() {
        for text in ["online", "synced", "peer=b", "direct=b", "height=12"] {
            assert_eq!(text.parse::<Condition>().unwrap().to_string(), text);
        }
        for text in ["", "Online", "peer", "peer=", "height=", "height=-1", "height=x", "online=1", "colour=red"] {
            assert_eq!(text.parse::<Condition>(), Err(NotACondition), "{text:?}");
        }
    }

    #[test]
    fn a_hostile_timeout_is_bounded() {
        for (typed, meant) in [(-1.0, 0), (f64::NAN, 0), (f64::INFINITY, 31_536_000), (1e300, 31_536_000), (2.0, 2)] {
            let finality = Finality { wait: true, timeout_seconds: typed };
            assert_eq!(finality.timeout(), Duration::from_secs(meant), "{typed}");
        }
    }
}
