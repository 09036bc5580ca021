//! What callers of the control API wait for: a block, pongs, a condition.

use super::api::link::Bridged;
use super::api::request::{Authorize, Condition, Finality, Reply, Wait};
use super::api::types::{self, PingReply, PingReport, Waited};
use super::failure::{ErrorCode, Failure};
use super::history::{ItemSearch, KeySearch, LogSearch};
use super::orders::{admit, must_be_member, submitted, ticket};
use super::policy_orders::Change;
use super::views;
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::io::clock::OsRng;
use crate::ledger::TxId;
use crate::ledger::engine::Verification;
use crate::node::Node;
use crate::node::authoring::Issued;
use crate::node::membership::Standing;
use crate::node::names;
use crate::path::ProbeId;
use crate::time::{Instant, Now};
use crate::wire::name::NetworkName;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// How often conditions are looked at that no event announces.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Blocks that are replayed between two looks at everything else: some milliseconds.
const VERIFY_BLOCKS: usize = 8;

/// Blocks that are read and shown between two such looks: likewise.
const SEARCH_BLOCKS: usize = 64;

/// Between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// How long a ping's answer is waited for: a handshake with one retransmission, and the pong.
const PING_PATIENCE: Duration = Duration::from_secs(5);

/// Between two probes of a wait.
const WAIT_PROBE_INTERVAL: Duration = Duration::from_millis(200);

/// The probes of a wait whose answers count: those of more than the longest round trip.
const MAX_WAIT_PROBES: usize = 32;

/// An answered probe.
#[derive(Clone, Copy)]
pub struct Pong {
    /// By whom.
    pub peer: TransportKey,
    /// Which.
    pub probe: ProbeId,
    /// The round trip.
    pub rtt: Duration,
}

/// What the answer to an ordered transaction is.
pub enum Awaited {
    /// Its id and height.
    Submitted,
    /// The same, once this identity is no signer any more either.
    Revoked(NodeId),
    /// A ticket.
    Invited(Box<Invited>),
    /// What was bridged, and the same.
    Bridged(Box<Bridged>),
}

/// An invitation on its way.
pub struct Invited {
    /// The network's name.
    pub network: NetworkName,
    /// Where the joiner will look for this node.
    pub endpoints: Vec<SocketAddr>,
    /// The credential; none for a ticket that needs approval.
    pub issued: Option<Issued>,
}

/// Something a caller waits for.
pub struct Task {
    deadline: Instant,
    goal: Goal,
}

enum Goal {
    Final { tx: TxId, wait: bool, awaited: Awaited },
    Pings(Pings),
    Condition { wait: Condition, probe_at: Instant, probes: VecDeque<ProbeId> },
    Verify(Box<Verification>),
    Log(LogSearch),
    Item(ItemSearch),
    Keys { search: KeySearch, authorize: Box<Authorize> },
    Change(Box<Change>),
}

struct Pings {
    key: TransportKey,
    name: String,
    count: u32,
    sent: u32,
    next_at: Instant,
    in_flight: BTreeMap<ProbeId, u32>,
    replies: Vec<PingReply>,
}

impl Task {
    /// Waits until a transaction is final, or not at all.
    pub fn finality(now: Now, tx: TxId, finality: Finality, awaited: Awaited) -> Self {
        Self { deadline: now.instant + finality.timeout(), goal: Goal::Final { tx, wait: finality.wait, awaited } }
    }

    /// Sends pings and collects the pongs.
    pub fn ping(now: Now, key: TransportKey, name: String, count: u32) -> Self {
        let deadline = now.instant + PING_INTERVAL * count.saturating_sub(1) + PING_PATIENCE;
        let (in_flight, replies) = (BTreeMap::new(), Vec::new());
        let pings = Pings { key, name, count, sent: 0, next_at: now.instant, in_flight, replies };
        Self { deadline, goal: Goal::Pings(pings) }
    }

    /// Replays the stored chain, a few blocks at a time, so that the tunnels' control goes on meanwhile.
    pub fn verify(now: Now) -> Self {
        Self { deadline: now.instant, goal: Goal::Verify(Box::default()) }
    }

    /// Goes through the stored chain for what happened, likewise.
    pub fn log(now: Now, search: LogSearch) -> Self {
        Self { deadline: now.instant, goal: Goal::Log(search) }
    }

    /// Goes through the stored chain for a transaction, likewise.
    pub fn item(now: Now, search: ItemSearch) -> Self {
        Self { deadline: now.instant, goal: Goal::Item(search) }
    }

    /// Goes through the stored chain for the keys of a node that is to be admitted again, likewise.
    pub fn keys(now: Now, search: KeySearch, authorize: Authorize) -> Self {
        Self { deadline: now.instant, goal: Goal::Keys { search, authorize: Box::new(authorize) } }
    }

    /// Waits until all transactions of a change are final, or not at all.
    pub fn change(now: Now, finality: Finality, change: Change) -> Self {
        Self { deadline: now.instant + finality.timeout(), goal: Goal::Change(Box::new(change)) }
    }

    /// Says whether it waits for nothing but its turn.
    pub fn is_work(&self) -> bool {
        matches!(self.goal, Goal::Verify(_) | Goal::Log(_) | Goal::Item(_) | Goal::Keys { .. })
    }

    /// Waits for a condition.
    pub fn wait(now: Now, wait: Wait) -> Self {
        let deadline = now.instant + wait.timeout();
        Self {
            deadline,
            goal: Goal::Condition { wait: wait.condition, probe_at: now.instant, probes: VecDeque::new() },
        }
    }

    /// Looks whether the answer is there. `dropped` are transactions that the ledger gave up since the last look.
    pub fn poll(
        &mut self,
        node: &mut Node<OsRng>,
        now: Now,
        pongs: &[Pong],
        dropped: &[(TxId, String)],
    ) -> Option<Result<Reply, Failure>> {
        let is_late = now.instant >= self.deadline;
        match &mut self.goal {
            Goal::Final { tx, wait, awaited } => {
                if let Some((_, reason)) = dropped.iter().find(|(id, _)| id == tx) {
                    return Some(Err(Failure::new(
                        ErrorCode::Failed,
                        format!("the transaction was dropped: {reason}"),
                    )));
                }
                let height = node.ledger().transaction(tx).ok().flatten().map(|(height, _)| height.0);
                let signs = matches!(awaited, Awaited::Revoked(id) if node.may_end_signer(id));
                match height {
                    None if *wait && !is_late => None,
                    None if *wait => Some(Err(not_final(tx))),
                    Some(_) if *wait && signs && !is_late => None,
                    Some(height) if *wait && signs => Some(Err(still_signs(tx, height))),
                    height => Some(finished(node, *tx, height, awaited)),
                }
            }
            Goal::Verify(verification) => views::verify_step(verification, node.ledger(), VERIFY_BLOCKS)
                .map(|report| Ok(Reply::LedgerVerify(report))),
            Goal::Log(search) => {
                search.step(node.ledger(), SEARCH_BLOCKS).map(|found| found.map(Reply::LedgerLog)).transpose()
            }
            Goal::Item(search) => {
                search.step(node.ledger(), SEARCH_BLOCKS).map(|found| found.map(Reply::LedgerShow)).transpose()
            }
            Goal::Keys { search, authorize } => {
                let keys = match search.step(node.ledger(), SEARCH_BLOCKS).transpose()? {
                    Ok(keys) => keys,
                    Err(failure) => return Some(Err(failure)),
                };
                match admit(node, now, authorize, &keys) {
                    Ok(admission) => *self = admission,
                    Err(failure) => return Some(Err(failure)),
                }
                self.poll(node, now, pongs, dropped)
            }
            Goal::Change(change) => change.poll(node, now, dropped, is_late),
            Goal::Pings(pings) => pings.poll(node, now, pongs, is_late),
            Goal::Condition { wait, probe_at, probes } => match holds(node, now, wait, probe_at, probes, pongs) {
                Err(failure) => Some(Err(failure)),
                Ok(true) => {
                    let height = node.ledger().head().map_or(0, |head| head.height().0);
                    Some(Ok(Reply::Waited(Waited { condition: String::from(wait.clone()), height })))
                }
                Ok(false) if is_late => Some(Err(Failure::new(ErrorCode::Timeout, why_not(node, wait)))),
                Ok(false) => None,
            },
        }
    }
}

fn finished(node: &Node<OsRng>, tx: TxId, height: Option<u64>, awaited: &Awaited) -> Result<Reply, Failure> {
    match awaited {
        Awaited::Submitted | Awaited::Revoked(_) => Ok(submitted(tx, height)),
        Awaited::Invited(invited) => invitation(node, invited, height),
        Awaited::Bridged(bridged) => Ok(Reply::Bridged(Bridged {
            is_approved: height.is_some(),
            tx: Some(tx.to_string()),
            height,
            ..bridged.as_ref().clone()
        })),
    }
}

/// The answer to who asked for a ticket.
///
/// # Errors
/// More than a ticket can hold.
pub fn invitation(node: &Node<OsRng>, invited: &Invited, height: Option<u64>) -> Result<Reply, Failure> {
    let issued = invited.issued.as_ref();
    Ok(Reply::Invited(types::Invited {
        ticket: ticket(node, invited)?,
        credential: issued.map(|issued| issued.credential.to_string()),
        expires: issued.map(|issued| issued.expires.0 / 1000),
        tx: issued.map(|issued| issued.tx.to_string()),
        height,
    }))
}

fn not_final(tx: &TxId) -> Failure {
    Failure::new(ErrorCode::NotFinal, format!("the transaction {tx} is not in a block yet")).hint(
        "it stays in the pool until a validator is reached; `p2plus ledger show` with the id says when it is final",
    )
}

fn still_signs(tx: &TxId, height: u64) -> Failure {
    let message = format!("the revocation {tx} is in block {height}, but the node is a signer still");
    Failure::new(ErrorCode::NotFinal, message)
        .hint("its end stays in the pool until a validator is reached, and is ordered again when it expires")
}

impl Pings {
    fn poll(
        &mut self,
        node: &mut Node<OsRng>,
        now: Now,
        pongs: &[Pong],
        is_late: bool,
    ) -> Option<Result<Reply, Failure>> {
        for pong in pongs {
            let Some(seq) = self.in_flight.remove(&pong.probe) else { continue };
            let path = views::path(node.way_to(&pong.peer));
            self.replies.push(PingReply { seq, rtt_ms: views::milliseconds(pong.rtt), path });
        }
        if self.sent < self.count && now.instant >= self.next_at {
            match node.ping(now, self.key) {
                Some(probe) => {
                    self.sent += 1;
                    self.in_flight.insert(probe, self.sent);
                    self.next_at = now.instant + PING_INTERVAL;
                }
                // A handshake is under way.
                None => self.next_at = now.instant + LOOK_INTERVAL,
            }
        }
        let is_answered = self.sent == self.count && self.in_flight.is_empty();
        if !is_answered && !is_late {
            return None;
        }
        let received = u32::try_from(self.replies.len()).unwrap_or(u32::MAX);
        let replies = std::mem::take(&mut self.replies);
        Some(Ok(Reply::Ping(PingReport { peer: self.name.clone(), replies, sent: self.sent.max(1), received })))
    }
}

/// Says whether a condition holds. Waiting for a peer makes this node handshake with it, and asks for one answered probe.
fn holds(
    node: &mut Node<OsRng>,
    now: Now,
    condition: &Condition,
    probe_at: &mut Instant,
    probes: &mut VecDeque<ProbeId>,
    pongs: &[Pong],
) -> Result<bool, Failure> {
    match must_be_member(node) {
        Err(failure) if failure.code == ErrorCode::Pending => return Ok(false),
        membership => membership?,
    }
    let height = node.ledger().head().map_or(0, |head| head.height().0);
    match condition {
        Condition::Online => Ok(true),
        Condition::Synced => Ok(node.ledger().highest_told().is_none_or(|known| known.0 <= height)),
        Condition::Height(wanted) => Ok(height >= *wanted),
        Condition::Peer(name) | Condition::Direct(name) => {
            if pongs.iter().any(|pong| probes.contains(&pong.probe)) {
                return Ok(true);
            }
            // A name that nobody has yet may come with a block.
            let Ok(member) = names::resolve(node.policy(), name) else { return Ok(false) };
            let key = member.transport_key;
            if now.instant >= *probe_at {
                match node.ping(now, key) {
                    Some(probe) => {
                        if probes.len() == MAX_WAIT_PROBES {
                            probes.pop_front();
                        }
                        probes.push_back(probe);
                        *probe_at = now.instant + WAIT_PROBE_INTERVAL;
                    }
                    None => *probe_at = now.instant + LOOK_INTERVAL,
                }
            }
            Ok(false)
        }
    }
}

/// What a condition still lacks.
fn why_not(node: &Node<OsRng>, condition: &Condition) -> String {
    if let Standing::Joining(what) = node.standing() {
        return format!("this node is not a member yet: {what}");
    }
    let height = node.ledger().head().map_or(0, |head| head.height().0);
    match condition {
        Condition::Online => "this node is not a member".to_owned(),
        Condition::Synced => {
            let known = node.ledger().highest_told().map_or(height, |known| known.0);
            format!("the ledger is at height {height}, others are at {known}")
        }
        Condition::Height(_) => format!("the ledger is at height {height}"),
        Condition::Peer(name) | Condition::Direct(name) => match names::resolve(node.policy(), name) {
            Ok(member) => format!("{} does not answer", member.name),
            Err(error) => error.to_string(),
        },
    }
}
