//! Orders about where the network is found: members that relay for others, and the static endpoints of validators.

use super::api::relays::{RelayOff, RelayOn, RelayRequest, SetEndpoints};
use super::api::request::Finality;
use super::failure::{ErrorCode, Failure};
use super::orders::{self, IntoOutcome, Outcome, Surroundings, refusal};
use super::pending::{Awaited, Task};
use super::route_orders::{ask, asked_no_more, whom};
use crate::io::clock::OsRng;
use crate::ledger::engine::SubmitError;
use crate::ledger::operation::{EndpointsSet, Operation, RelayApprove};
use crate::ledger::pool::PoolRefused;
use crate::ledger::state::TxError;
use crate::node::Node;
use crate::path::candidate::is_private;
use crate::policy::RelayTerms;
use crate::policy::relay::{BadRelay, DEFAULT_RELAY_CLASS};
use crate::time::Now;
use crate::wire::control::{MAX_WANTED_ENDPOINTS, Wanted};
use crate::wire::endpoint::{BadEndpoint, MAX_STATIC_ENDPOINTS, StaticEndpoints, is_possible};
use std::net::SocketAddr;

/// Does what is ordered, or says what to wait for.
pub fn answer(node: &mut Node<OsRng>, now: Now, around: &Surroundings<'_>, request: RelayRequest) -> Outcome {
    match request {
        RelayRequest::On(order) => relay(node, now, around, &order).into_outcome(),
        RelayRequest::Off(order) => end_relay(node, now, &order).into_outcome(),
        RelayRequest::SetEndpoints(order) => set_endpoints(node, now, &order).into_outcome(),
    }
}

fn relay(node: &mut Node<OsRng>, now: Now, around: &Surroundings<'_>, order: &RelayOn) -> Result<Task, Failure> {
    let identity = whom(node, order.member.as_deref())?;
    let endpoints = relay_endpoints(node, around, order)?;
    let (tls_port, class) = (order.tls_port.unwrap_or(0), order.class.unwrap_or(DEFAULT_RELAY_CLASS));
    let is_asked = identity == node.id() && !node.gives_rights();
    let terms = RelayTerms::new(StaticEndpoints::new(endpoints)?, tls_port, class)?;
    let wanted = is_asked.then(|| wanted(&terms, order)).transpose()?;
    let operation = Operation::RelayApprove(RelayApprove { identity, terms: Some(terms) });
    match wanted {
        None => submit(node, now, operation, order.finality),
        Some(wanted) => {
            must_be_known(node, &operation)?;
            Err(ask(node, now, &[wanted])?)
        }
    }
}

/// Where the relay is to be: what was typed, else what this node would have an invitation say, without what only neighbours reach.
fn relay_endpoints(node: &Node<OsRng>, around: &Surroundings<'_>, order: &RelayOn) -> Result<Vec<SocketAddr>, Failure> {
    let is_typed = !order.endpoints.is_empty();
    if !is_typed && order.member.is_some() {
        return Err(Failure::new(ErrorCode::Usage, "this node does not know where another one stays")
            .hint("give its addresses with --endpoint IP:PORT, or run this there"));
    }
    let mut endpoints = orders::own_endpoints(node, around, &order.endpoints);
    if is_typed {
        return Ok(endpoints);
    }
    endpoints.retain(is_possible);
    if endpoints.iter().any(|endpoint| !is_private(endpoint.ip().to_canonical())) {
        endpoints.retain(|endpoint| !is_private(endpoint.ip().to_canonical()));
    }
    if endpoints.is_empty() {
        return Err(Failure::new(ErrorCode::Failed, "this node knows no address at which others could reach it")
            .hint("give one with --endpoint IP:PORT, or `endpoints` under [underlay] in the configuration"));
    }
    endpoints.truncate(MAX_STATIC_ENDPOINTS);
    Ok(endpoints)
}

/// What signers are asked for: of what was not typed the first and the last endpoint, one for each version of IP where it has both.
fn wanted(terms: &RelayTerms, order: &RelayOn) -> Result<Wanted, Failure> {
    if order.class.is_some_and(|class| class != DEFAULT_RELAY_CLASS) {
        let message = format!("a signer chooses the class: what is asked for gets {DEFAULT_RELAY_CLASS}");
        return Err(Failure::new(ErrorCode::Usage, message).hint("leave --class out"));
    }
    if order.endpoints.len() > MAX_WANTED_ENDPOINTS {
        let message = format!("a request names at most {MAX_WANTED_ENDPOINTS} endpoints");
        return Err(
            Failure::new(ErrorCode::Usage, message).hint("a signer can name more: `p2plus relay on --for NODE`")
        );
    }
    let endpoints = match terms.endpoints().as_slice() {
        [first, .., last] => [Some(*first), Some(*last)],
        other => [other.first().copied(), None],
    };
    Ok(Wanted::Relay { endpoints, tls_port: terms.tls_port().unwrap_or(0) })
}

/// Refuses to ask for what the network's protocol version has not: members of an older version could not read the record of who asks.
fn must_be_known(node: &Node<OsRng>, operation: &Operation) -> Result<(), Failure> {
    let network = node.ledger().state().network().map_or(0, |network| network.protocol_version);
    if operation.since() <= network {
        return Ok(());
    }
    let later = TxError::LaterProtocol { operation: operation.name(), needed: operation.since(), network };
    Err(refusal(&SubmitError::Pool(PoolRefused::Invalid(later))))
}

fn end_relay(node: &mut Node<OsRng>, now: Now, order: &RelayOff) -> Result<Task, Failure> {
    let identity = whom(node, order.member.as_deref())?;
    let withdrawn = identity == node.id() && node.withdraw(now, |wanted| matches!(wanted, Wanted::Relay { .. }));
    let operation = Operation::RelayApprove(RelayApprove { identity, terms: None });
    match submit(node, now, operation, order.finality) {
        Err(failure) if withdrawn && failure.code == ErrorCode::NotFound => Err(asked_no_more()),
        outcome => outcome,
    }
}

fn set_endpoints(node: &mut Node<OsRng>, now: Now, order: &SetEndpoints) -> Result<Task, Failure> {
    let identity = whom(node, order.member.as_deref())?;
    let endpoints = StaticEndpoints::new(order.endpoints.iter().copied())?;
    let operation = Operation::EndpointsSet(EndpointsSet { identity, endpoints });
    submit(node, now, operation, order.finality)
}

fn submit(node: &mut Node<OsRng>, now: Now, operation: Operation, finality: Finality) -> Result<Task, Failure> {
    let tx = node.order(now, vec![operation]).map_err(|error| refusal(&error))?;
    Ok(Task::finality(now, tx, finality, Awaited::Submitted))
}

impl From<BadRelay> for Failure {
    fn from(error: BadRelay) -> Self {
        let hint = match error {
            BadRelay::NoEndpoint => "give one with --endpoint IP:PORT",
            BadRelay::Endpoint(BadEndpoint::Forbidden(_)) => {
                "a static endpoint is an address of the node, as everybody reaches it, with its UDP port"
            }
            BadRelay::Endpoint(BadEndpoint::TooMany) => "name those that are reached best",
            BadRelay::Class => "the highest is chosen first",
        };
        Self::new(ErrorCode::Usage, error.to_string()).hint(hint)
    }
}

impl From<BadEndpoint> for Failure {
    fn from(error: BadEndpoint) -> Self {
        BadRelay::Endpoint(error).into()
    }
}

/// The exit code of a refusal that only relays and static endpoints have.
pub fn code_of(reason: &TxError) -> Option<ErrorCode> {
    Some(match reason {
        TxError::NotARelay(_) | TxError::NotAValidator(_) => ErrorCode::NotFound,
        TxError::OverlayEndpoint(_) => ErrorCode::Usage,
        _ => return None,
    })
}

/// What to do about such a refusal.
pub fn advice(reason: &TxError) -> Option<&'static str> {
    Some(match reason {
        TxError::NotARelay(_) => "`p2plus relay on` asks for it",
        TxError::NotAValidator(_) => "a member that others must find can be a relay: `p2plus relay on`",
        TxError::OverlayEndpoint(_) => "name an address of the network beneath, not one that P2Plus gave",
        _ => return None,
    })
}
