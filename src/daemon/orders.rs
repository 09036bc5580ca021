//! Requests of the control API, answered by the node: at once, or by something that is waited for.

use super::api::request::{Authorize, Invite, LedgerLog, Ping, Reply, Request, Wait};
use super::api::types::{Addresses, Submitted};
use super::failure::{ErrorCode, Failure};
use super::pending::{Awaited, Invited, Task};
use super::views;
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::io::clock::OsRng;
use crate::ledger::TxId;
use crate::ledger::engine::SubmitError;
use crate::ledger::name::Label;
use crate::ledger::pool::PoolRefused;
use crate::ledger::revocation::RevocationRefused;
use crate::ledger::state::TxError;
use crate::node::Node;
use crate::node::authoring::{Candidate, InvitationTerms};
use crate::node::membership::Standing;
use crate::node::names::{self, NameError};
use crate::policy::Member;
use crate::time::Now;
use crate::wire::name::NetworkName;
use crate::wire::ticket::{BootstrapPeer, Checkpoint, MAX_ENDPOINTS, Ticket};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Members that a ticket names besides the one that makes it.
const OTHER_BOOTSTRAP_PEERS: usize = 2;

/// What a request comes to.
pub enum Outcome {
    /// An answer.
    Done(Box<Result<Reply, Failure>>),
    /// Something to wait for, which then has the answer.
    Later(Task),
}

impl From<Result<Reply, Failure>> for Outcome {
    fn from(result: Result<Reply, Failure>) -> Self {
        Self::Done(Box::new(result))
    }
}

/// What the daemon knows besides the node.
pub struct Surroundings<'a> {
    /// The network's name.
    pub network: &'a NetworkName,
    /// Endpoints from the configuration, for tickets.
    pub endpoints: &'a [SocketAddr],
}

/// Answers a request, or says what to wait for. `Status` and `Reload` are the event loop's own.
pub fn answer(node: &mut Node<OsRng>, now: Now, around: &Surroundings<'_>, request: Request) -> Outcome {
    match request {
        Request::Status | Request::Reload => Err(Failure::new(ErrorCode::Failed, "not an order to the node")).into(),
        Request::Peers => Ok(Reply::Peers(node.peers(now).into_iter().map(views::peer).collect())).into(),
        Request::Members => Ok(Reply::Members(views::members(node))).into(),
        Request::Ip(ip) => addresses(node, ip.peer.as_deref()).into(),
        Request::Whois(whois) => {
            member(node, &whois.what).map(|found| Reply::Whois(views::member(node.ledger(), found))).into()
        }
        Request::LedgerStatus => Ok(Reply::LedgerStatus(views::ledger_status(node, now))).into(),
        Request::LedgerLog(LedgerLog { peer, since }) => log(node, peer.as_deref(), since).into(),
        Request::LedgerShow(show) => views::item(node.ledger(), &show.what).map(Reply::LedgerShow).into(),
        Request::LedgerVerify => Task::verify(now).into(),
        Request::Invites => Ok(Reply::Invites(views::invites(node.ledger()))).into(),
        Request::Ping(ping) => self::ping(node, now, &ping).into_outcome(),
        Request::Wait(wait) => self::wait(now, wait).into(),
        Request::Invite(invite) => self::invite(node, now, around, &invite).into_outcome(),
        Request::RevokeInvite(revoke) => views::credential(node.ledger(), &revoke.credential)
            .and_then(|hash| node.revoke_invitation(now, hash).map_err(|error| refusal(&error)))
            .map(|tx| Task::finality(now, tx, revoke.finality, Awaited::Submitted))
            .into_outcome(),
        Request::Revoke(revoke) => revocable(node, &revoke.peer)
            .and_then(|id| node.revoke(now, id).map_err(|error| refusal(&error)))
            .map(|tx| Task::finality(now, tx, revoke.finality, Awaited::Submitted))
            .into_outcome(),
        Request::Rename(rename) => member(node, &rename.peer)
            .map(|member| member.id)
            .and_then(|id| node.rename(now, id, label(&rename.name)?).map_err(|error| refusal(&error)))
            .map(|tx| Task::finality(now, tx, rename.finality, Awaited::Submitted))
            .into_outcome(),
        Request::Authorize(authorize) => {
            let finality = authorize.finality;
            candidate(node, authorize)
                .and_then(|candidate| node.authorize(now, candidate).map_err(|error| refusal(&error)))
                .map(|tx| Task::finality(now, tx, finality, Awaited::Submitted))
                .into_outcome()
        }
    }
}

trait IntoOutcome {
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for Result<Task, Failure> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(task) => Outcome::Later(task),
            Err(failure) => Err(failure).into(),
        }
    }
}

impl From<Task> for Outcome {
    fn from(task: Task) -> Self {
        Self::Later(task)
    }
}

/// Finds the member that a user means.
///
/// # Errors
/// Not found.
pub fn member<'n>(node: &'n Node<OsRng>, text: &str) -> Result<&'n Member, Failure> {
    names::resolve(node.policy(), text).map_err(|error| {
        let hint = match &error {
            NameError::Unknown(_) => "`p2plus members` lists names, addresses and identities",
            NameError::Ambiguous(_) => "give more digits of the identity",
        };
        Failure::new(ErrorCode::NotFound, error.to_string()).hint(hint)
    })
}

/// A member, or an identity that was one: revoking twice is harmless and says so.
fn revocable(node: &Node<OsRng>, text: &str) -> Result<NodeId, Failure> {
    match text.parse::<NodeId>() {
        Ok(id) => Ok(id),
        Err(_) => member(node, text).map(|member| member.id),
    }
}

fn addresses(node: &Node<OsRng>, peer: Option<&str>) -> Result<Reply, Failure> {
    let addresses = match peer {
        Some(text) => member(node, text)?.addresses.clone(),
        None => node.addresses().into_iter().map(|(address, _)| address).collect(),
    };
    Ok(Reply::Ip(Addresses { addresses }))
}

fn log(node: &Node<OsRng>, peer: Option<&str>, since: Option<u64>) -> Result<Reply, Failure> {
    let subject = peer.map(|text| member(node, text)).transpose()?;
    views::log(node.ledger(), subject, since).map(Reply::LedgerLog)
}

fn ping(node: &Node<OsRng>, now: Now, ping: &Ping) -> Result<Task, Failure> {
    let member = member(node, &ping.peer)?;
    if member.id == node.id() {
        return Err(Failure::new(ErrorCode::Usage, format!("{} is this node itself", member.name)));
    }
    Ok(Task::ping(now, member.transport_key, member.name.clone(), ping.count))
}

fn wait(now: Now, wait: Wait) -> Task {
    Task::wait(now, wait)
}

/// Registers a credential; the ticket is made when the block is there, so that its checkpoint covers it.
fn invite(node: &mut Node<OsRng>, now: Now, around: &Surroundings<'_>, invite: &Invite) -> Result<Task, Failure> {
    if *node.standing() != Standing::Member {
        return Err(not_a_member());
    }
    let endpoints = ticket_endpoints(node, around, &invite.endpoints)?;
    let terms = InvitationTerms {
        name: invite.name.as_deref().map(label).transpose()?,
        tags: labels(&invite.tags)?,
        uses: invite.uses,
        lifetime: invite.expires.0,
    };
    let issued = node.invite(now, terms).map_err(|error| refusal(&error))?;
    let tx = issued.tx;
    let invited = Invited { network: around.network.clone(), endpoints, issued };
    Ok(Task::finality(now, tx, invite.finality, Awaited::Invited(Box::new(invited))))
}

/// Where the joiner will look for this node: what was typed, else the configuration's, else what the host has and others saw.
fn ticket_endpoints(
    node: &Node<OsRng>,
    around: &Surroundings<'_>,
    typed: &[SocketAddr],
) -> Result<Vec<SocketAddr>, Failure> {
    let mut endpoints = match (typed, around.endpoints) {
        ([], []) => node.endpoints(),
        ([], configured) => configured.to_vec(),
        (typed, _) => typed.to_vec(),
    };
    endpoints.truncate(MAX_ENDPOINTS);
    if endpoints.is_empty() {
        return Err(Failure::new(ErrorCode::Failed, "this node knows no address at which a joiner could reach it")
            .hint("give one with --endpoint IP:PORT, or `endpoints` under [underlay] in the configuration"));
    }
    Ok(endpoints)
}

/// Makes the ticket of an issued credential.
///
/// # Errors
/// More than a ticket can hold.
pub fn ticket(node: &Node<OsRng>, invited: &Invited) -> Result<String, Failure> {
    let head = node.ledger().head().ok_or_else(not_a_member)?;
    let own = BootstrapPeer {
        id: node.id(),
        transport_key: node.keys().transport.public_key(),
        endpoints: invited.endpoints.clone(),
    };
    let others = node.bootstrap_members(OTHER_BOOTSTRAP_PEERS).into_iter().map(|other| BootstrapPeer {
        id: other.id,
        transport_key: other.transport_key,
        endpoints: other.endpoints,
    });
    let ticket = Ticket {
        network: invited.network.clone(),
        network_id: node.keys().network_id,
        network_secret: node.keys().network_secret.duplicate(),
        checkpoint: Checkpoint { height: head.height().0, hash: head.id.0 },
        credential: crate::crypto::secret::Secret::new(*invited.issued.secret.seed()),
        peers: std::iter::once(own).chain(others).collect(),
    };
    let text = ticket.encode().map_err(|error| Failure::new(ErrorCode::Failed, error.to_string()))?;
    Ok(text.to_string())
}

fn candidate(node: &Node<OsRng>, authorize: Authorize) -> Result<Candidate, Failure> {
    let id: NodeId =
        authorize.id.parse().map_err(|error| Failure::new(ErrorCode::Usage, format!("{}: {error}", authorize.id)))?;
    let known = node.ledger().state().member(&id);
    let key = |typed: Option<String>, known: Option<[u8; 32]>, what: &str| match typed {
        Some(text) => text
            .parse::<NodeId>()
            .map(|key| key.0)
            .map_err(|_| Failure::new(ErrorCode::Usage, format!("the {what} is 64 hexadecimal digits, not {text:?}"))),
        None => known.ok_or_else(|| {
            Failure::new(ErrorCode::NotFound, format!("the {what} of {id} is not known here"))
                .hint("give the keys that `p2plus version --keys` prints there, or invite it with a ticket")
        }),
    };
    let node_key = key(authorize.node_key, known.as_ref().map(|record| record.node_key.0), "node key")?;
    let transport_key =
        key(authorize.transport_key, known.as_ref().map(|record| record.transport_key.0), "transport key")?;
    Ok(Candidate {
        id,
        node_key: VerifyingKey(node_key),
        transport_key: TransportKey(transport_key),
        name: authorize.name.as_deref().map(label).transpose()?,
        tags: labels(&authorize.tags)?,
    })
}

fn label(text: &str) -> Result<Label, Failure> {
    text.parse().map_err(|error| Failure::new(ErrorCode::Usage, format!("{text:?}: {error}")))
}

fn labels(texts: &[String]) -> Result<BTreeSet<Label>, Failure> {
    texts.iter().map(|text| label(text)).collect()
}

fn not_a_member() -> Failure {
    Failure::new(ErrorCode::Pending, "this node is not a member yet").hint("`p2plus status` says what it waits for")
}

/// The answer to who ordered a transaction, once it is final.
pub fn submitted(tx: TxId, height: Option<u64>) -> Reply {
    Reply::Submitted(Submitted { tx: tx.to_string(), height })
}

/// Says why the ledger refuses, in the terms of the exit codes.
pub fn refusal(error: &SubmitError) -> Failure {
    let code = match error {
        SubmitError::Pool(PoolRefused::Invalid(reason)) => code_of(reason),
        SubmitError::Revocation(RevocationRefused::Invalid(reason)) => code_of(reason),
        SubmitError::NoChain => ErrorCode::Pending,
        _ => ErrorCode::Failed,
    };
    let failure = Failure::new(code, error.to_string());
    match code {
        ErrorCode::NotAuthorized => {
            failure.hint("run this on a node that holds a signer's key: the founder's, unless signers were added")
        }
        _ => failure,
    }
}

fn code_of(reason: &TxError) -> ErrorCode {
    match reason {
        TxError::NotAuthorized { .. } | TxError::NameReserved(_) => ErrorCode::NotAuthorized,
        TxError::NotAMember(_) | TxError::NoSuchCredential => ErrorCode::NotFound,
        TxError::AlreadyMember(_)
        | TxError::AlreadyRevoked
        | TxError::NameTaken(_)
        | TxError::NameOfAnother(_)
        | TxError::TransportKeyTaken
        | TxError::PoolExhausted => ErrorCode::Conflict,
        _ => ErrorCode::Failed,
    }
}
