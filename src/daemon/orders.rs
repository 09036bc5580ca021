//! Requests of the control API, answered by the node: at once, or by something that is waited for.

use super::api::request::{Authorize, Condition, Invite, LedgerLog, Ping, Reply, Request, Wait};
use super::api::types::{Addresses, Submitted, TicketText};
use super::config::{DnsBackend, RelayMode};
use super::failure::{ErrorCode, Failure};
use super::history::{self, AdmittedKeys, KeySearch, LogSearch, Sought};
use super::host_names::HostNamesReport;
use super::pending::{self, Awaited, Invited, Task};
use super::policy_orders;
use super::relay_orders;
use super::route_orders;
use super::views::{self, Names};
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::crypto::secret::Secret;
use crate::io::clock::OsRng;
use crate::io::port_map::PortMapState;
use crate::ledger::TxId;
use crate::ledger::engine::SubmitError;
use crate::ledger::name::Label;
use crate::ledger::pool::PoolRefused;
use crate::ledger::revocation::RevocationRefused;
use crate::ledger::state::{BadRoute, TxError, is_default_name};
use crate::node::Node;
use crate::node::authoring::{Candidate, InvitationTerms, Issued};
use crate::node::membership::{Refusal, Remedy, Standing};
use crate::node::names::{self, MIN_DIGITS, NameError};
use crate::policy::Member;
use crate::time::Now;
use crate::wire::name::NetworkName;
use crate::wire::ticket::{BootstrapPeer, Checkpoint, MAX_ENDPOINTS, Ticket, is_reachable};
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
    /// How this host's programs are to be told where names are.
    pub dns_backend: DnsBackend,
    /// How they were.
    pub host_names: HostNamesReport,
    /// Where the daemon listens.
    pub listen: Vec<SocketAddr>,
    /// What the gateway passes on.
    pub port_mapping: PortMapState,
    /// Whether it relays, as configured.
    pub relay_mode: RelayMode,
}

/// Answers a request, or says what to wait for. `Status`, `Link` and `Reload` are the event loop's own.
pub fn answer(node: &mut Node<OsRng>, now: Now, around: &Surroundings<'_>, request: Request) -> Outcome {
    match request {
        Request::Name(request) => super::names::answer(node, now, around, request),
        Request::Relay(request) => relay_orders::answer(node, now, around, request),
        Request::Reach(request) => super::reach::answer(node, now, around, &request).into(),
        Request::Status | Request::Link(_) | Request::Reload => {
            Err(Failure::new(ErrorCode::Failed, "not an order to the node")).into()
        }
        Request::Peers => Ok(Reply::Peers(views::peers(node, now))).into(),
        Request::Members => Ok(Reply::Members(views::members(node))).into(),
        Request::Ip(ip) => addresses(node, ip.peer.as_deref()).into(),
        Request::Whois(whois) => known(node, &whois.what)
            .map(|id| Reply::Whois(views::member(&Names::new(node.ledger()), node.policy(), &id)))
            .into(),
        Request::LedgerStatus => Ok(Reply::LedgerStatus(views::ledger_status(node, now))).into(),
        Request::LedgerLog(LedgerLog { peer, since }) => {
            log(node, peer.as_deref(), since).map(|search| Task::log(now, search)).into_outcome()
        }
        Request::LedgerShow(show) => match history::item(node.ledger(), &show.what) {
            Ok(Sought::Search(search)) => Task::item(now, search).into(),
            Ok(Sought::Found(item)) => Ok(Reply::LedgerShow(item)).into(),
            Err(failure) => Err(failure).into(),
        },
        Request::LedgerVerify => Task::verify(now).into(),
        Request::Invites => Ok(Reply::Invites(views::invites(node.ledger()))).into(),
        Request::Ping(ping) => self::ping(node, now, &ping).into_outcome(),
        Request::Wait(wait) => self::wait(node, now, wait).into_outcome(),
        Request::Invite(invite) => self::invite(node, now, around, &invite),
        Request::RevokeInvite(revoke) => views::credential(node.ledger(), &revoke.credential)
            .and_then(|hash| node.revoke_invitation(now, hash).map_err(|error| refusal(&error)))
            .map(|tx| Task::finality(now, tx, revoke.finality, Awaited::Submitted))
            .into_outcome(),
        Request::Revoke(revoke) => revocable(node, &revoke.peer)
            .and_then(|id| must_not_be_itself(node, &id, revoke.force).map(|()| id))
            .and_then(|id| {
                tracing::info!(peer = %id, reason = ?revoke.reason, "a revocation was ordered");
                let tx = node.revoke(now, id).map_err(|error| refusal(&error))?;
                Ok(Task::finality(now, tx, revoke.finality, Awaited::Revoked(id)))
            })
            .into_outcome(),
        Request::Rename(rename) => member(node, &rename.peer)
            .map(|member| member.id)
            .and_then(|id| node.rename(now, id, label(&rename.name)?).map_err(|error| refusal(&error)))
            .map(|tx| Task::finality(now, tx, rename.finality, Awaited::Submitted))
            .into_outcome(),
        Request::Authorize(authorize) => self::authorize(node, now, authorize).into_outcome(),
        Request::Tag(tag) => policy_orders::tag(node, now, &tag).into_outcome(),
        Request::Rules => Ok(Reply::Rules(policy_orders::rules(node))).into(),
        Request::ChangePolicy(change) => policy_orders::change(node, now, &change).into_outcome(),
        Request::ApplyPolicy(apply) => match policy_orders::apply(node, now, &apply) {
            Ok(outcome) => outcome,
            Err(failure) => Err(failure).into(),
        },
        Request::CheckPolicy(check) => policy_orders::check(node, &check).into(),
        Request::Explain(question) => policy_orders::explain(node, &question).into(),
        Request::Routes => Ok(Reply::Routes(route_orders::routes(node))).into(),
        Request::Advertise(order) => route_orders::advertise(node, now, &order).into_outcome(),
        Request::Unadvertise(order) => route_orders::unadvertise(node, now, &order).into_outcome(),
        Request::Requests => Ok(Reply::Requests(route_orders::requests(node, now))).into(),
        Request::Approve(order) => route_orders::approve(node, now, &order).into_outcome(),
        Request::Refuse(order) => route_orders::refuse(node, now, &order).into(),
        Request::Accept(order) => route_orders::accept(node, now, &order).into(),
        Request::Exits => Ok(Reply::Exits(route_orders::exits(node))).into(),
        Request::UseExit(order) => route_orders::use_exit(node, now, &order).into(),
        Request::LedgerUpgrade(upgrade) => policy_orders::upgrade(node, now, upgrade.finality).into_outcome(),
    }
}

/// What is waited for, or the reason why nothing is.
pub trait IntoOutcome {
    /// Turns it into an outcome.
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

/// Finds somebody whom the ledger knows: a member, else a node that was revoked, by its identity or the name that it had.
///
/// # Errors
/// Not found.
fn known(node: &Node<OsRng>, text: &str) -> Result<NodeId, Failure> {
    let not_a_member = match member(node, text) {
        Ok(member) => return Ok(member.id),
        Err(failure) => failure,
    };
    let names = Names::new(node.ledger());
    let digits = views::id_digits(text).unwrap_or_else(|_| text.to_owned());
    let is_meant = |id: &&NodeId| {
        names.of(id).as_deref() == Some(text) || (digits.len() >= MIN_DIGITS && id.to_string().starts_with(&digits))
    };
    let mut found = node.policy().revoked().filter(is_meant);
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(*id),
        _ => Err(not_a_member),
    }
}

/// A member to be cut, or an identity that shall never become one.
fn revocable(node: &Node<OsRng>, text: &str) -> Result<NodeId, Failure> {
    match known(node, text) {
        Ok(id) if node.policy().member(&id).is_some() => Ok(id),
        Ok(_) => Err(Failure::new(ErrorCode::Conflict, format!("{text} is revoked already"))
            .hint("nothing is to be done: it stays so until a signer admits it again")),
        Err(unknown) => text.parse().map_err(|_| unknown),
    }
}

/// Refuses that a node cuts itself off by a slip: who signs for a network is often its only signer.
fn must_not_be_itself(node: &Node<OsRng>, id: &NodeId, force: bool) -> Result<(), Failure> {
    if *id != node.id() || force {
        return Ok(());
    }
    let message = "this is the node itself: revoked, it could neither talk to the others nor sign for them again";
    Err(Failure::new(ErrorCode::Conflict, message).hint("name another node; --force if this one is really to go"))
}

fn addresses(node: &Node<OsRng>, peer: Option<&str>) -> Result<Reply, Failure> {
    let addresses = match peer {
        Some(text) => member(node, text)?.addresses.clone(),
        None => {
            must_be_member(node)?;
            node.addresses().into_iter().map(|(address, _)| address).collect()
        }
    };
    Ok(Reply::Ip(Addresses { addresses }))
}

fn log(node: &Node<OsRng>, peer: Option<&str>, since: Option<u64>) -> Result<LogSearch, Failure> {
    let subject = peer.map(|text| known(node, text)).transpose()?;
    LogSearch::new(node.ledger(), subject, since)
}

fn ping(node: &Node<OsRng>, now: Now, ping: &Ping) -> Result<Task, Failure> {
    let member = member(node, &ping.peer)?;
    if member.id == node.id() {
        return Err(itself(&member.name));
    }
    Ok(Task::ping(now, member.transport_key, member.name.clone(), ping.count))
}

/// Refuses to wait for what can never come about.
fn wait(node: &Node<OsRng>, now: Now, wait: Wait) -> Result<Task, Failure> {
    if let Condition::Peer(name) | Condition::Direct(name) = &wait.condition
        && names::resolve(node.policy(), name).is_ok_and(|member| member.id == node.id())
    {
        return Err(itself(name));
    }
    Ok(Task::wait(now, wait))
}

fn itself(name: &str) -> Failure {
    Failure::new(ErrorCode::Usage, format!("{name} is this node itself")).hint("name another member: `p2plus peers`")
}

/// Makes a ticket, at once when it lets nobody in.
fn invite(node: &mut Node<OsRng>, now: Now, around: &Surroundings<'_>, invite: &Invite) -> Outcome {
    let endpoints = match must_be_member(node).and_then(|()| ticket_endpoints(node, around, &invite.endpoints)) {
        Ok(endpoints) => endpoints,
        Err(failure) => return Err(failure).into(),
    };
    let network = around.network.clone();
    if invite.needs_approval {
        return pending::invitation(node, &Invited { network, endpoints, issued: None }, None).into();
    }
    register(node, now, invite, |issued| Invited { network, endpoints, issued: Some(issued) }).into_outcome()
}

/// Registers a credential; the ticket is made when the block is there, so that its checkpoint covers it.
fn register(
    node: &mut Node<OsRng>,
    now: Now,
    invite: &Invite,
    invited: impl FnOnce(Issued) -> Invited,
) -> Result<Task, Failure> {
    let name = invite.name.as_deref().map(label).transpose()?;
    // The ledger looks at the name when somebody joins: too late for who made the ticket.
    let unusable = name.as_ref().and_then(|name| match node.ledger().state().tenure(name) {
        Some(_) => Some(TxError::NameTaken(name.clone())),
        None => is_default_name(name).then(|| TxError::NameOfAnother(name.clone())),
    });
    if let Some(reason) = unusable {
        return Err(refusal(&SubmitError::Pool(PoolRefused::Invalid(reason))));
    }
    let terms = InvitationTerms { name, tags: labels(&invite.tags)?, uses: invite.uses, lifetime: invite.expires.0 };
    let issued = node.invite(now, terms).map_err(|error| refusal(&error))?;
    Ok(Task::finality(now, issued.tx, invite.finality, Awaited::Invited(Box::new(invited(issued)))))
}

/// Where others find this node: what was typed, else the configuration's, else what the host has and others saw.
pub fn own_endpoints(node: &Node<OsRng>, around: &Surroundings<'_>, typed: &[SocketAddr]) -> Vec<SocketAddr> {
    match (typed, around.endpoints) {
        ([], []) => node.endpoints(),
        ([], configured) => configured.to_vec(),
        (typed, _) => typed.to_vec(),
    }
}

/// Where the joiner will look for this node.
fn ticket_endpoints(
    node: &Node<OsRng>,
    around: &Surroundings<'_>,
    typed: &[SocketAddr],
) -> Result<Vec<SocketAddr>, Failure> {
    if typed.len() > MAX_ENDPOINTS {
        let message = format!("{} endpoints: a ticket holds {MAX_ENDPOINTS}", typed.len());
        return Err(Failure::new(ErrorCode::Usage, message).hint("name those that joiners reach first"));
    }
    let mut endpoints = own_endpoints(node, around, typed);
    if let Some(endpoint) = endpoints.iter().find(|endpoint| !is_reachable(**endpoint)) {
        return Err(Failure::new(ErrorCode::Usage, format!("{endpoint} is nowhere that a joiner could send to"))
            .hint("an endpoint is an address of this node, as others see it, with its port"));
    }
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
pub fn ticket(node: &Node<OsRng>, invited: &Invited) -> Result<TicketText, Failure> {
    let head = node.ledger().head().ok_or_else(not_a_member)?;
    let own = BootstrapPeer {
        id: node.id(),
        transport_key: node.keys().transport_key(),
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
        network_secret: node.keys().network_secret().duplicate(),
        checkpoint: Checkpoint { height: head.height().0, hash: head.id.0 },
        credential: invited.issued.as_ref().map(|issued| Secret::new(*issued.secret.seed())),
        peers: std::iter::once(own).chain(others).collect(),
    };
    let text = ticket.encode().map_err(|error| Failure::new(ErrorCode::Failed, error.to_string()))?;
    Ok(TicketText::new(text))
}

/// Admits a node by the keys that were typed, or looks for those that it had when it was last a member.
fn authorize(node: &mut Node<OsRng>, now: Now, authorize: Authorize) -> Result<Task, Failure> {
    let id = NodeId(key("identity", &authorize.id)?);
    let keys = match (&authorize.node_key, &authorize.transport_key) {
        (Some(node_key), Some(transport_key)) => AdmittedKeys {
            node_key: VerifyingKey(key("node key", node_key)?),
            transport_key: TransportKey(key("transport key", transport_key)?),
        },
        (None, None) => return Ok(Task::keys(now, KeySearch::new(node.ledger(), id)?, authorize)),
        _ => {
            return Err(Failure::new(ErrorCode::Usage, "the node key and the transport key come together")
                .hint("`p2plus keys` on that node prints both"));
        }
    };
    admit(node, now, &authorize, &keys)
}

/// Admits a node by all its keys.
///
/// # Errors
/// What was typed and is none, or what the ledger refuses.
pub fn admit(node: &mut Node<OsRng>, now: Now, authorize: &Authorize, keys: &AdmittedKeys) -> Result<Task, Failure> {
    let candidate = Candidate {
        id: NodeId(key("identity", &authorize.id)?),
        node_key: keys.node_key,
        transport_key: keys.transport_key,
        name: authorize.name.as_deref().map(label).transpose()?,
        tags: labels(&authorize.tags)?,
    };
    let tx = node.authorize(now, candidate).map_err(|error| refusal(&error))?;
    Ok(Task::finality(now, tx, authorize.finality, Awaited::Submitted))
}

fn key(what: &str, digits: &str) -> Result<[u8; 32], Failure> {
    let usage = |error| Failure::new(ErrorCode::Usage, format!("the {what} {digits:?}: {error}"));
    digits.parse::<NodeId>().map(|key| key.0).map_err(usage)
}

fn label(text: &str) -> Result<Label, Failure> {
    text.parse().map_err(|error| Failure::new(ErrorCode::Usage, format!("{text:?}: {error}")))
}

/// Reads labels, such as tags.
///
/// # Errors
/// Usage.
pub fn labels(texts: &[String]) -> Result<BTreeSet<Label>, Failure> {
    texts.iter().map(|text| label(text)).collect()
}

fn not_a_member() -> Failure {
    Failure::new(ErrorCode::Pending, "this node is not a member yet").hint("`p2plus status` says what it waits for")
}

/// Fails with the reason why this node is no member, unless it is one.
///
/// # Errors
/// Pending, refused or revoked.
pub fn must_be_member(node: &Node<OsRng>) -> Result<(), Failure> {
    match node.standing() {
        Standing::Member => Ok(()),
        Standing::Joining(_) => Err(not_a_member()),
        Standing::Refused(Refusal { reason, remedy }) => {
            let hint = match remedy {
                // The ticket was not used up by a name that it could not have.
                Remedy::Name => "stop the daemon, and `p2plus join` with the same ticket and another --name",
                Remedy::Ticket => "ask for a new ticket, stop the daemon, and `p2plus join` with it",
            };
            Err(Failure::new(ErrorCode::Refused, format!("this node was refused: {reason}")).hint(hint))
        }
        Standing::Revoked => Err(Failure::new(ErrorCode::Revoked, "this node was revoked")
            .hint("a signer can admit it again: `p2plus authorize` with its identity, which `p2plus keys` prints")),
    }
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
    let reason = match error {
        SubmitError::Pool(PoolRefused::Invalid(reason))
        | SubmitError::Revocation(RevocationRefused::Invalid(reason)) => Some(reason),
        _ => None,
    };
    let failure = Failure::new(code, error.to_string());
    match reason.and_then(advice) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// What to do about a refusal.
fn advice(reason: &TxError) -> Option<&'static str> {
    Some(match reason {
        TxError::NotAuthorized { .. } => {
            "only a signer may: run this on a node that holds a signer's key, the founder's unless signers were added"
        }
        TxError::NameReserved(_) => "ask a signer to give it: `p2plus rename` on the founder's node",
        TxError::NameOfAnother(_) => "choose another name",
        TxError::NameTaken(_) => "choose another name; one that was given up rests for 30 days",
        TxError::AlreadyMember(_) => "`p2plus whois` with the identity shows it",
        TxError::TransportKeyTaken => "make new keys there: `p2plus leave`, then join again",
        TxError::NoSuchCredential => "`p2plus invites` lists those that can still admit",
        TxError::PoolExhausted => "addresses of former members become free after 30 days",
        TxError::TooManyTags => "leave out some --tag",
        TxError::TooManyCredentials => "end one that is no longer needed: `p2plus invites revoke`",
        TxError::LaterProtocol { .. } => {
            "once every member runs this version or a later one: `p2plus ledger upgrade`; older ones keep their tunnels, and no more"
        }
        TxError::RuleExists(_) | TxError::NoSuchRule(_) => "`p2plus policy show` lists the rules with their numbers",
        TxError::NoSuchRoute(..) | TxError::RouteExists(..) => "`p2plus routes` lists what lies behind whom",
        TxError::BadRoute(_, BadRoute::Overlay) => {
            "choose another one: `p2plus advertise SUBNET --map OTHER` shows it as another one"
        }
        TxError::BadRoute(_, BadRoute::TooBroad) => "`p2plus advertise --exit` makes a member an exit",
        TxError::TooManyRules => {
            "end some: `p2plus policy rm`; one rule can name a tag or a prefix instead of many members"
        }
        TxError::NoSuchSegment(_) => "`p2plus segment list` lists those that there are",
        TxError::NotABridge(..) => "`p2plus bridge list` lists those that may",
        TxError::TooManySegments => "end one that is no longer needed: `p2plus segment rm`",
        TxError::TooMany => "wait: block time has to reach the next day",
        reason => return super::names::advice(reason).or_else(|| relay_orders::advice(reason)),
    })
}

fn code_of(reason: &TxError) -> ErrorCode {
    match reason {
        TxError::NotAuthorized { .. } | TxError::NameReserved(_) => ErrorCode::NotAuthorized,
        TxError::NotAMember(_)
        | TxError::NoSuchCredential
        | TxError::NoSuchRule(_)
        | TxError::NoSuchRoute(..)
        | TxError::NoSuchSegment(_)
        | TxError::NotABridge(..) => ErrorCode::NotFound,
        TxError::AlreadyMember(_)
        | TxError::AlreadyRevoked
        | TxError::NameTaken(_)
        | TxError::NameOfAnother(_)
        | TxError::TransportKeyTaken
        | TxError::RuleExists(_)
        | TxError::RouteExists(..)
        | TxError::EarlierProtocol(_)
        | TxError::PoolExhausted => ErrorCode::Conflict,
        TxError::TooManyTags | TxError::BadCredential | TxError::BadRoute(..) | TxError::BadSegment => ErrorCode::Usage,
        reason => super::names::code_of(reason).or_else(|| relay_orders::code_of(reason)).unwrap_or(ErrorCode::Failed),
    }
}
