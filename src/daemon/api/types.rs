//! The documented JSON: what goes into `data`. A contract, changed only by addition; golden files pin it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What surrounds every successful answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// [`super::API_VERSION`].
    pub api: u32,
    /// The answer.
    pub data: T,
    /// What is worth a look though it worked.
    pub warnings: Vec<String>,
}

/// What surrounds every failure.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorEnvelope {
    /// [`super::API_VERSION`].
    pub api: u32,
    /// The failure.
    pub error: crate::daemon::failure::Failure,
}

/// `status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// This node.
    pub node: NodeStatus,
    /// Its network.
    pub network: NetworkStatus,
    /// Its ledger.
    pub ledger: LedgerStatus,
    /// The other members that it knows.
    pub peers: Vec<Peer>,
    /// Packets that were dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// What was done in a slower way than it could be, because the kernel or a driver refused the fast one: how often, by name.
    #[serde(default)]
    pub degraded: BTreeMap<String, u64>,
}

/// This node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its identity, 64 hexadecimal digits.
    pub id: String,
    /// Its name in the network.
    pub name: String,
    /// The daemon's version.
    pub version: String,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
}

/// The network as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// The hash of the genesis, 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether this node takes part.
    pub state: NetworkState,
    /// Why the state is not `up`: what a joining node waits for, why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// This node's overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// The interface.
    pub device: DeviceStatus,
    /// Where the daemon listens.
    pub listen: Vec<SocketAddr>,
    /// What keeps the IPv4 address off the interface.
    #[serde(default)]
    pub conflicts: Vec<AddressConflict>,
    /// What of the host's rules, routes and packet filter is not as it should be, and why.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// A network of the host that overlaps the overlay's pool.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct AddressConflict {
    /// The overlay's prefix.
    pub prefix: String,
    /// The host's interface and prefix, as `eth0 10.77.0.0/24`.
    pub with: String,
}

/// Whether a node takes part in its network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkState {
    /// A member, with its ledger at hand.
    Up,
    /// Waiting to be admitted.
    Joining,
    /// Not carrying data: being set up, or shutting down.
    Stopped,
    /// The ticket was used, expired or foreign; `join` again works.
    Refused,
    /// Once a member, no longer.
    Revoked,
}

/// The interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its name; `null` without one.
    pub name: Option<String>,
    /// Its kind.
    pub mode: DeviceMode,
    /// Its MTU in bytes, 0 without one.
    pub mtu: u16,
}

/// The kind of interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceMode {
    /// IP packets.
    Tun,
    /// No interface: the node relays and keeps the ledger.
    None,
}

/// The ledger as this node holds it; also `ledger status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LedgerStatus {
    /// The height of the newest block.
    pub height: u64,
    /// Its hash, 64 hexadecimal digits.
    pub hash: String,
    /// The epoch, counted up by recoveries.
    pub epoch: u64,
    /// This node's part.
    pub role: LedgerRole,
    /// How many validators there are.
    pub validators: u32,
    /// The newest block has its certificate.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Age of the newest proof of freshness; `null` when there was none yet.
    pub age_seconds: Option<u64>,
    /// Transactions that wait for a block.
    pub pending: u64,
    /// Why this node adds no more blocks, or as a validator votes no more; `null` while it does. Tunnels stay.
    #[serde(default)]
    pub halted: Option<String>,
}

/// A node's part in the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LedgerRole {
    /// It votes.
    Validator,
    /// It holds and verifies.
    Full,
}

/// Another member, and how it is reached; one of `peers`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Its identity, 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether the ledger admits it.
    pub authorization: Authorization,
    /// Seconds since something authenticated came from it; `null` for never.
    pub seen_seconds: Option<u64>,
    /// The way to it.
    pub path: PeerPath,
    /// Round-trip time of that way; `null` when not measured.
    pub rtt_ms: Option<f64>,
    /// The session with it; `null` without one.
    pub session: Option<PeerSession>,
    /// Bytes of packets sent to it.
    pub tx_bytes: u64,
    /// Bytes of packets received from it.
    pub rx_bytes: u64,
}

/// Whether the ledger admits a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Authorization {
    /// Admitted.
    Member,
    /// Admitted once, no longer.
    Revoked,
    /// Asked for admission.
    Pending,
}

/// The way to a peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerPath {
    /// Its kind.
    pub kind: PathKind,
    /// The peer's underlay endpoint, for `direct`.
    pub endpoint: Option<SocketAddr>,
    /// The relay's name, for `relay` and `tls`.
    pub relay: Option<String>,
}

/// The kind of a way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// Datagrams to the peer itself.
    Direct,
    /// Datagrams to another member, which passes them on.
    Relay,
    /// TLS to another member, which passes them on.
    Tls,
    /// No way is known.
    None,
}

/// A session with a peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerSession {
    /// `aes-256-gcm` or `chacha20-poly1305`.
    pub cipher: String,
    /// The key came from X25519 and ML-KEM-768 together.
    pub post_quantum: bool,
    /// Seconds since its handshake.
    pub age_seconds: u64,
}

/// `ping`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PingReport {
    /// The peer's name.
    pub peer: String,
    /// The answers that came.
    pub replies: Vec<PingReply>,
    /// Probes sent.
    pub sent: u32,
    /// Answers received.
    pub received: u32,
}

/// One answer to a probe.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PingReply {
    /// The probe's number, from 1.
    pub seq: u32,
    /// Round-trip time.
    pub rtt_ms: f64,
    /// The way that both took.
    pub path: PeerPath,
}

/// `ip`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// Overlay addresses, IPv4 before IPv6.
    pub addresses: Vec<IpAddr>,
}

/// One of `members`; also `whois`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its identity, 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether the ledger admits it.
    pub authorization: Authorization,
    /// The height of the block that admitted it; `null` while pending.
    pub admitted_height: Option<u64>,
    /// Who signed the admission or the invite: a name, or an identity when there is none.
    pub admitted_by: Option<String>,
}

/// A condition that `wait` waited for and that holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Waited {
    /// The condition as it was typed.
    #[serde(rename = "for")]
    pub condition: String,
    /// The height of the newest block.
    pub height: u64,
}

/// A transaction that was submitted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Submitted {
    /// The transaction's id, 64 hexadecimal digits.
    pub tx: String,
    /// The height of the block that holds it; `null` while it is not final.
    pub height: Option<u64>,
}

/// A ticket as text: a secret, wiped when it is dropped.
#[derive(PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct TicketText(String);

impl TicketText {
    /// Takes the text.
    pub fn new(mut text: Zeroizing<String>) -> Self {
        Self(std::mem::take(&mut *text))
    }

    /// Shows the text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TicketText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketText(…)")
    }
}

/// `invite`.
#[derive(PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Invited {
    /// The ticket.
    pub ticket: TicketText,
    /// The credential's public key, 64 hexadecimal digits; `null` for a ticket that needs approval, as are the next three.
    pub credential: Option<String>,
    /// When it ends, in seconds since the Unix epoch.
    pub expires: Option<u64>,
    /// The transaction's id.
    pub tx: Option<String>,
    /// The height of its block; `null` while it is not final.
    pub height: Option<u64>,
}

/// `keys`: what a signer needs to admit this node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PublicKeys {
    /// Its identity, 64 hexadecimal digits.
    pub id: String,
    /// The key that signs its node records, likewise.
    pub node_key: String,
    /// The key of its handshakes, likewise.
    pub transport_key: String,
    /// The name that it asked for when it joined; `null` for a founder.
    pub name: Option<String>,
}

/// One of `invites`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Invite {
    /// The credential's public key, 64 hexadecimal digits.
    pub credential: String,
    /// The name that it gives.
    pub name: Option<String>,
    /// The tags that it gives.
    pub tags: Vec<String>,
    /// How many more nodes it admits.
    pub uses_left: u32,
    /// When it ends, in seconds since the Unix epoch.
    pub expires: u64,
    /// Who made it.
    pub author: String,
}

/// One operation of one transaction; one of `ledger log`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogEntry {
    /// The block's height.
    pub height: u64,
    /// The block's time, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The transaction's id.
    pub tx: String,
    /// The author: a name, or an identity when there is none.
    pub author: String,
    /// The operation: `admit`, `join`, `revoke`, `rename`, `credential`, …
    pub op: String,
    /// The member or credential that it is about.
    pub subject: Option<String>,
    /// The name of that member, while the ledger knows it.
    #[serde(default)]
    pub subject_name: Option<String>,
    /// The rest, for people.
    pub detail: String,
}

/// `ledger show`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum LedgerItem {
    /// A block.
    Block(BlockView),
    /// A transaction.
    Transaction(TransactionView),
}

/// A block.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BlockView {
    /// Its height.
    pub height: u64,
    /// Its hash.
    pub hash: String,
    /// The hash of the block before.
    pub parent: String,
    /// The epoch.
    pub epoch: u64,
    /// Its time, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The validator that proposed it: a name, or a key when there is none.
    pub proposer: String,
    /// The root of the state after it.
    pub state_root: String,
    /// How many validators signed it, and of how many.
    pub signatures: u32,
    /// How many validators there were.
    pub validators: u32,
    /// Its operations.
    pub entries: Vec<LogEntry>,
}

/// A transaction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TransactionView {
    /// Its id.
    pub tx: String,
    /// The block that holds it; `null` while it waits in the pool.
    pub height: Option<u64>,
    /// The author: a name, or an identity when there is none.
    pub author: String,
    /// The author's sequence number; `null` for a revocation, which has none.
    pub seq: Option<u64>,
    /// The keys that signed it.
    pub witnesses: Vec<String>,
    /// Its operations.
    pub entries: Vec<LogEntry>,
}

/// `ledger verify`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The first block that was checked: 0, or the oldest one held.
    pub from: u64,
    /// The last block that was checked.
    pub to: u64,
    /// How many blocks hold.
    pub blocks: u64,
    /// The first one that does not.
    pub bad: Option<BadBlock>,
}

/// A block that does not verify.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BadBlock {
    /// Its height.
    pub height: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// `reload`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reloaded {
    /// The keys that changed and act.
    pub changed: Vec<String>,
    /// The keys that changed and act only after a restart.
    pub needs_restart: Vec<String>,
}

/// One line of `GET /v1/events`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The node's part in the network changed.
    State {
        /// What it is.
        state: NetworkState,
        /// Why, when it is not `up`.
        reason: Option<String>,
    },
    /// The way to a peer changed.
    Path {
        /// The peer's identity.
        peer: String,
        /// The peer's name.
        name: String,
        /// The way.
        path: PeerPath,
    },
    /// A block was added.
    Block {
        /// Its height.
        height: u64,
        /// Its hash.
        hash: String,
    },
    /// A member was cut, on sight or by a block.
    Revoked {
        /// Its identity.
        peer: String,
        /// Its name.
        name: String,
    },
    /// The reader was too slow.
    Lagged {
        /// How many events it did not get.
        missed: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_in_the_json_and_in_no_log() {
        let ticket = TicketText::new(Zeroizing::new("p2plus1secret".to_owned()));
        let invited = Invited { ticket, credential: None, expires: None, tx: None, height: None };
        assert!(!format!("{invited:?} {invited:#?}").contains("secret"));
        let json = serde_json::to_value(&invited).unwrap();
        assert_eq!(json["ticket"], "p2plus1secret");
        assert_eq!(serde_json::from_value::<Invited>(json).unwrap(), invited);
        assert!(std::mem::needs_drop::<TicketText>());
    }
}
