//! Orders about what lies behind members: subnets and exits, approved on the ledger, accepted here.

use super::api::request::Reply;
use super::api::routes::{
    Accept, AcceptedView, Advertise, AnswerRequest, ExitView, RequestView, RouteView, RouterView, UseExit, subnet,
};
use super::failure::{ErrorCode, Failure};
use super::orders::{self, refusal};
use super::pending::{Awaited, Task};
use super::views::Names;
use crate::crypto::identity::NodeId;
use crate::io::clock::OsRng;
use crate::ledger::operation::{ExitApprove, Operation, RouteRevoke};
use crate::node::Node;
use crate::node::requests::{Asked, REQUEST_LIFETIME, operation};
use crate::policy::relay::BadRelay;
use crate::time::Now;
use crate::wire::control::Wanted;
use crate::wire::prefix::Prefix;
use std::collections::BTreeMap;

/// The most subnets that a user accepts one by one.
const MAX_ACCEPTED: usize = 1024;

/// Lists the subnets behind members.
pub fn routes(node: &Node<OsRng>) -> Vec<RouteView> {
    let names = Names::new(node.ledger());
    let in_use = node.subnet_routes();
    let mut views: BTreeMap<Prefix, RouteView> = BTreeMap::new();
    for ((id, prefix), record) in node.ledger().state().routes() {
        // A revocation on sight leaves the record in the state until its block.
        let Some(member) = node.policy().member(&id) else { continue };
        let used = in_use.iter().find(|route| route.prefix == prefix && route.router == id);
        let view = views.entry(prefix).or_insert_with(|| RouteView {
            prefix: prefix.to_string(),
            accepted: node.accepted().takes(prefix) && id != node.id(),
            routers: Vec::new(),
        });
        view.routers.push(RouterView {
            name: member.name.clone(),
            local: record.local.map(|local| local.to_string()),
            in_use: used.is_some(),
            silent: node.is_silent(&id),
            tx: record.approval.transaction.to_string(),
            signers: record.approval.signers.iter().map(|key| names.key(key)).collect(),
        });
    }
    views.into_values().collect()
}

/// Lists the members that are exits.
pub fn exits(node: &Node<OsRng>) -> Vec<ExitView> {
    let exits = node.policy().members().filter(|member| member.is_exit);
    exits
        .map(|member| ExitView {
            name: member.name.clone(),
            in_use: node.accepted().exit == Some(member.id),
            silent: node.is_silent(&member.id),
        })
        .collect()
}

/// Puts a subnet behind a member, or makes it an exit.
///
/// # Errors
/// Usage, not found, or what the ledger refuses.
pub fn advertise(node: &mut Node<OsRng>, now: Now, order: &Advertise) -> Result<Task, Failure> {
    let identity = whom(node, order.member.as_deref())?;
    let mut wanted = Vec::new();
    if let Some(text) = &order.subnet {
        let there = parse(text)?;
        let (prefix, local) = match &order.map {
            Some(map) => (parse(map)?, Some(there)),
            None => (there, None),
        };
        wanted.push(Wanted::Route { prefix, local });
    }
    wanted.extend(order.exit.then_some(Wanted::Exit));
    if identity == node.id() && !node.gives_rights() {
        return Err(ask(node, now, &wanted)?);
    }
    let operations: Result<_, BadRelay> = wanted.into_iter().map(|wanted| operation(identity, wanted)).collect();
    submit(node, now, order, operations?)
}

/// Ends what [`advertise`] began; a subnet is named as the overlay sees it.
///
/// # Errors
/// Usage, not found, or what the ledger refuses.
pub fn unadvertise(node: &mut Node<OsRng>, now: Now, order: &Advertise) -> Result<Task, Failure> {
    let identity = whom(node, order.member.as_deref())?;
    let subnet = order.subnet.as_deref().map(parse).transpose()?;
    let (mut operations, mut withdrawn) = (Vec::new(), false);
    if let Some(prefix) = subnet {
        let is_meant = |wanted: &Wanted| matches!(wanted, Wanted::Route { prefix: asked, .. } if *asked == prefix);
        withdrawn |= identity == node.id() && node.withdraw(now, is_meant);
        operations.push(Operation::RouteRevoke(RouteRevoke { identity, prefix }));
    }
    if order.exit {
        withdrawn |= identity == node.id() && node.withdraw(now, |wanted| *wanted == Wanted::Exit);
        operations.push(Operation::ExitApprove(ExitApprove { identity, is_exit: false }));
    }
    match submit(node, now, order, operations) {
        Err(failure) if withdrawn && failure.code == ErrorCode::NotFound => Err(asked_no_more()),
        outcome => outcome,
    }
}

/// What is said where nothing but a request ended.
pub fn asked_no_more() -> Failure {
    Failure::new(ErrorCode::Pending, "it was asked for, not approved: it is asked for no more")
}

/// Asks the signers, and says so.
///
/// # Errors
/// More than a member may ask for.
pub fn ask(node: &mut Node<OsRng>, now: Now, wanted: &[Wanted]) -> Result<Failure, Failure> {
    let mut ids = Vec::new();
    for wanted in wanted {
        let id = node.request(now, *wanted).map_err(|error| {
            Failure::new(ErrorCode::Failed, error.to_string())
                .hint("`p2plus unadvertise` and `p2plus relay off` take back what is not wanted any more")
        })?;
        ids.push(id.to_string());
    }
    let days = REQUEST_LIFETIME.as_secs() / 86_400;
    let message = format!("asked for: a signer has to approve it, within {days} days");
    let hint = format!("on a signer's node: p2plus approve {}", ids.join("; p2plus approve "));
    Ok(Failure::new(ErrorCode::Pending, message).hint(hint))
}

/// Lists what waits for a signer.
pub fn requests(node: &Node<OsRng>, now: Now) -> Vec<RequestView> {
    node.asked(now).iter().map(|asked| request_view(node, asked)).collect()
}

fn request_view(node: &Node<OsRng>, asked: &Asked) -> RequestView {
    let Asked { id, member, request, .. } = asked;
    let (kind, [prefix, local], (endpoints, tls_port)) = match request.wanted {
        Wanted::Route { prefix, local } => ("route", [Some(prefix), local], Default::default()),
        Wanted::Exit => ("exit", [None, None], Default::default()),
        Wanted::Relay { endpoints, tls_port } => ("relay", [None, None], (endpoints, tls_port)),
    };
    RequestView {
        id: id.to_string(),
        member: node.policy().member(member).map_or_else(|| member.to_string(), |member| member.name.clone()),
        kind: kind.to_owned(),
        prefix: prefix.map(|prefix| prefix.to_string()),
        local: local.map(|local| local.to_string()),
        endpoints: endpoints.into_iter().flatten().collect(),
        tls_port: (tls_port != 0).then_some(tls_port),
        made: request.made.0 / 1000,
        expires: request.made.after(REQUEST_LIFETIME).0 / 1000,
    }
}

/// Gives what was asked for.
///
/// # Errors
/// Not found, or what the ledger refuses.
pub fn approve(node: &mut Node<OsRng>, now: Now, order: &AnswerRequest) -> Result<Task, Failure> {
    let asked = find(node, now, &order.id)?;
    let tx = node.approve(now, &asked).map_err(|error| refusal(&error))?;
    Ok(Task::finality(now, tx, order.finality, Awaited::Submitted))
}

/// Refuses what was asked for.
///
/// # Errors
/// Not found, or a node whose key may not decide.
pub fn refuse(node: &mut Node<OsRng>, now: Now, order: &AnswerRequest) -> Result<Reply, Failure> {
    let asked = find(node, now, &order.id)?;
    if !node.gives_rights() {
        let message = "this node's key may not decide about rights";
        return Err(Failure::new(ErrorCode::NotAuthorized, message).hint("run this on a signer's node"));
    }
    let view = request_view(node, &asked);
    node.refuse(now, asked.id);
    Ok(Reply::Refused(view))
}

fn find(node: &Node<OsRng>, now: Now, digits: &str) -> Result<Asked, Failure> {
    let (all, digits) = (node.asked(now), digits.to_ascii_lowercase());
    let mut found = all.iter().filter(|asked| !digits.is_empty() && asked.id.to_string().starts_with(&digits));
    match (found.next(), found.next()) {
        (Some(asked), None) => Ok(asked.clone()),
        (Some(_), Some(_)) => {
            Err(Failure::new(ErrorCode::Usage, format!("more than one request begins with {digits}"))
                .hint("give more digits"))
        }
        (None, _) => Err(Failure::new(ErrorCode::NotFound, format!("no request {digits} waits"))
            .hint("`p2plus requests` lists them")),
    }
}

/// The member that an order is about: the node itself, unless another one is named.
///
/// # Errors
/// Not found, or why the node is no member.
pub fn whom(node: &Node<OsRng>, member: Option<&str>) -> Result<NodeId, Failure> {
    match member {
        Some(text) => orders::member(node, text).map(|member| member.id),
        None => orders::must_be_member(node).map(|()| node.id()),
    }
}

fn submit(node: &mut Node<OsRng>, now: Now, order: &Advertise, operations: Vec<Operation>) -> Result<Task, Failure> {
    if operations.is_empty() {
        return Err(
            Failure::new(ErrorCode::Usage, "neither a subnet nor --exit").hint("`p2plus advertise 192.168.7.0/24`")
        );
    }
    let tx = node.order(now, operations).map_err(|error| refusal(&error))?;
    Ok(Task::finality(now, tx, order.finality, Awaited::Submitted))
}

/// Takes subnets into those that this node sends to, or out of them.
///
/// # Errors
/// Usage, or a subnet that nobody routes.
pub fn accept(node: &mut Node<OsRng>, now: Now, order: &Accept) -> Result<Reply, Failure> {
    let prefixes: Vec<_> = order.prefixes.iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
    if prefixes.is_empty() && !order.all {
        return Err(Failure::new(ErrorCode::Usage, "no subnet is named")
            .hint("`p2plus accept all`, or a subnet of `p2plus routes`"));
    }
    let mut accepted = node.accepted().clone();
    if order.accept {
        let routed = |prefix: &Prefix| {
            node.policy().members().any(|member| member.subnets.iter().any(|it| it.prefix == *prefix))
        };
        if let Some(unknown) = prefixes.iter().find(|prefix| !routed(prefix)) {
            return Err(Failure::new(ErrorCode::NotFound, format!("no member routes {unknown}"))
                .hint("`p2plus routes` lists what is approved; `p2plus advertise` on the router asks for more"));
        }
        accepted.all |= order.all;
        accepted.forced.extend(prefixes.iter().filter(|_| order.force));
        accepted.prefixes.extend(prefixes);
        if accepted.prefixes.len() > MAX_ACCEPTED {
            return Err(
                Failure::new(ErrorCode::Usage, format!("more than {MAX_ACCEPTED} subnets")).hint("`p2plus accept all`")
            );
        }
    } else if order.all {
        (accepted.all, accepted.prefixes, accepted.forced) = Default::default();
    } else {
        accepted.prefixes.retain(|prefix| !prefixes.contains(prefix));
        accepted.forced.retain(|prefix| !prefixes.contains(prefix));
    }
    node.handle_accepted(now, accepted);
    Ok(Reply::Accepted(accepted_view(node)))
}

/// Chooses the exit, or none.
///
/// # Errors
/// Not found, or a member that is no exit.
pub fn use_exit(node: &mut Node<OsRng>, now: Now, order: &UseExit) -> Result<Reply, Failure> {
    let exit = match &order.peer {
        Some(text) => {
            let member = orders::member(node, text)?;
            if !member.is_exit || member.id == node.id() {
                return Err(Failure::new(ErrorCode::NotFound, format!("{} is no exit for this node", member.name))
                    .hint(
                        "`p2plus exit-node list` lists those that are; `p2plus advertise --exit` on a node asks for it",
                    ));
            }
            Some(member.id)
        }
        None => None,
    };
    let accepted = crate::node::subnets::Accepted { exit, ..node.accepted().clone() };
    node.handle_accepted(now, accepted);
    Ok(Reply::Accepted(accepted_view(node)))
}

fn accepted_view(node: &Node<OsRng>) -> AcceptedView {
    let accepted = node.accepted();
    let name = |id: &NodeId| node.policy().member(id).map_or_else(|| id.to_string(), |member| member.name.clone());
    AcceptedView {
        all: accepted.all,
        prefixes: accepted.prefixes.iter().map(ToString::to_string).collect(),
        exit: accepted.exit.as_ref().map(name),
    }
}

fn parse(text: &str) -> Result<Prefix, Failure> {
    subnet(text).map_err(|why| Failure::new(ErrorCode::Usage, why))
}
