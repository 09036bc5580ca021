//! Orders about what lies behind members: subnets and exits, approved on the ledger, accepted here.

use super::api::request::Reply;
use super::api::routes::{Accept, AcceptedView, Advertise, ExitView, RouteView, RouterView, UseExit, subnet};
use super::failure::{ErrorCode, Failure};
use super::orders::{self, refusal};
use super::pending::{Awaited, Task};
use super::views::Names;
use crate::crypto::identity::NodeId;
use crate::io::clock::OsRng;
use crate::ledger::operation::{ExitApprove, Operation, RouteApprove, RouteRevoke};
use crate::node::Node;
use crate::time::Now;
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
    let identity = whom(node, order)?;
    let mut operations = Vec::new();
    if let Some(text) = &order.subnet {
        let there = parse(text)?;
        let (prefix, local) = match &order.map {
            Some(map) => (parse(map)?, Some(there)),
            None => (there, None),
        };
        operations.push(Operation::RouteApprove(RouteApprove { identity, prefix, local }));
    }
    if order.exit {
        operations.push(Operation::ExitApprove(ExitApprove { identity, is_exit: true }));
    }
    submit(node, now, order, operations)
}

/// Ends what [`advertise`] began; a subnet is named as the overlay sees it.
///
/// # Errors
/// Usage, not found, or what the ledger refuses.
pub fn unadvertise(node: &mut Node<OsRng>, now: Now, order: &Advertise) -> Result<Task, Failure> {
    let identity = whom(node, order)?;
    let mut operations = Vec::new();
    if let Some(text) = &order.subnet {
        operations.push(Operation::RouteRevoke(RouteRevoke { identity, prefix: parse(text)? }));
    }
    if order.exit {
        operations.push(Operation::ExitApprove(ExitApprove { identity, is_exit: false }));
    }
    submit(node, now, order, operations)
}

fn whom(node: &Node<OsRng>, order: &Advertise) -> Result<NodeId, Failure> {
    match &order.member {
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
        accepted.prefixes.extend(prefixes);
        if accepted.prefixes.len() > MAX_ACCEPTED {
            return Err(
                Failure::new(ErrorCode::Usage, format!("more than {MAX_ACCEPTED} subnets")).hint("`p2plus accept all`")
            );
        }
    } else if order.all {
        (accepted.all, accepted.prefixes) = (false, Default::default());
    } else {
        accepted.prefixes.retain(|prefix| !prefixes.contains(prefix));
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
