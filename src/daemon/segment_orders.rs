//! Orders about segments and bridges: what the ledger is to say, and what this host is to do.

use super::api::link::{
    AddBridge, BridgeView, Bridged, JudgeBridge, LinkRequest, RemoveBridge, RemoveSegment, SegmentView, SetSegment,
    StationView,
};
use super::api::request::Reply;
use super::failure::{ErrorCode, Failure};
use super::files::NodeFiles;
use super::orders::{self, Outcome, refusal};
use super::pending::{Awaited, Task};
use super::segments::{BridgeOrder, SegmentDevices};
use crate::crypto::identity::NodeId;
use crate::io::bridge::BridgeError;
use crate::io::clock::OsRng;
use crate::io::network::{Network, NetworkError};
use crate::ledger::engine::SubmitError;
use crate::ledger::name::Label;
use crate::ledger::operation::{BridgeApprove, BridgeRevoke, Operation, SegmentDel, SegmentSet};
use crate::ledger::pool::PoolRefused;
use crate::ledger::state::TxError;
use crate::node::Node;
use crate::policy::Segment;
use crate::router::bridge::node_mac;
use crate::time::Now;

/// Frames a second that one member of a new segment may send to everybody: some hundred hosts' ARP and discovery, and far below what
/// keeps a host busy.
const STORM_LIMIT: u32 = 1_000;

/// What an order may change on this host.
pub struct Host<'a> {
    /// The devices of segments.
    pub segments: &'a mut SegmentDevices,
    /// The kernel's network configuration.
    pub network: &'a mut Network,
    /// Where bridges are stored.
    pub files: &'a NodeFiles,
}

/// Answers a request about the link layer, or says what to wait for.
pub fn answer(node: &mut Node<OsRng>, now: Now, host: &mut Host<'_>, request: LinkRequest) -> Outcome {
    match request {
        LinkRequest::Segments => Ok(Reply::Segments(segments(node, now, host.segments))).into(),
        LinkRequest::Bridges => Ok(Reply::Bridges(bridges(node, host.segments))).into(),
        LinkRequest::SetSegment(set) => later(set_segment(node, now, &set)),
        LinkRequest::RemoveSegment(remove) => later(remove_segment(node, now, &remove)),
        LinkRequest::JudgeBridge(judge) => later(judge_bridge(node, now, &judge)),
        LinkRequest::AddBridge(add) => match add_bridge(node, now, host, &add) {
            Ok(outcome) => outcome,
            Err(failure) => Err(failure).into(),
        },
        LinkRequest::RemoveBridge(remove) => remove_bridge(node, now, host, &remove).into(),
    }
}

fn later(task: Result<Task, Failure>) -> Outcome {
    match task {
        Ok(task) => Outcome::Later(task),
        Err(failure) => Err(failure).into(),
    }
}

fn segments(node: &Node<OsRng>, now: Now, devices: &SegmentDevices) -> Vec<SegmentView> {
    let view = |segment: &Segment| {
        let members = node.policy().members().filter(|member| segment.has(member));
        let is_member = node.policy().member(&node.id()).is_some_and(|member| segment.has(member));
        let (device, problem) = devices.device(segment.number);
        let stations = node.stations(now.instant, segment.number).into_iter();
        SegmentView {
            name: segment.name.clone(),
            number: segment.number.0,
            tag: segment.tag.clone(),
            members: sorted(members.map(|member| member.name.clone())),
            gateways: sorted(segment.gateways.iter().map(|id| name_of(node, id))),
            bridges: sorted(segment.bridges.iter().map(|id| name_of(node, id))),
            storm_limit: segment.storm_limit,
            is_member,
            device: device.map(ToOwned::to_owned),
            mac: is_member.then(|| node_mac(segment.number, &node.id()).to_string()),
            problem: problem.map(ToOwned::to_owned),
            stations: stations
                .map(|(mac, behind, seen)| StationView {
                    mac: mac.to_string(),
                    behind: name_of(node, &behind.unwrap_or_else(|| node.id())),
                    seen_seconds: seen.as_secs(),
                })
                .collect(),
        }
    };
    node.policy().segments().map(view).collect()
}

fn bridges(node: &Node<OsRng>, devices: &SegmentDevices) -> Vec<BridgeView> {
    let own = node.id();
    let of_host = devices.bridges();
    let mut views = Vec::new();
    for standing in &of_host {
        let segment = node.policy().segment(&standing.order.segment);
        views.push(BridgeView {
            segment: standing.order.segment.clone(),
            member: name_of(node, &own),
            is_approved: segment.is_some_and(|segment| segment.bridges.contains(&own)),
            interface: Some(standing.order.interface.clone()),
            bridge: standing.bridge.clone(),
            problem: standing.problem.clone(),
        });
    }
    for segment in node.policy().segments() {
        let shown = |id: &&NodeId| **id != own || !of_host.iter().any(|it| it.order.segment == segment.name);
        views.extend(segment.bridges.iter().filter(shown).map(|id| BridgeView {
            segment: segment.name.clone(),
            member: name_of(node, id),
            is_approved: true,
            interface: None,
            bridge: None,
            problem: None,
        }));
    }
    views.sort_by(|one, other| (&one.segment, &one.member).cmp(&(&other.segment, &other.member)));
    views
}

fn set_segment(node: &mut Node<OsRng>, now: Now, set: &SetSegment) -> Result<Task, Failure> {
    let name = label(&set.name)?;
    let before = node.ledger().state().segment(&name);
    let tag = match (&set.tag, &before) {
        (Some(tag), _) => label(tag)?,
        (None, Some(before)) => before.tag.clone(),
        (None, None) => {
            return Err(Failure::new(
                ErrorCode::Usage,
                format!("there is no segment {name} yet, and a new one needs a tag"),
            )
            .hint("give the tag of its members with --tag"));
        }
    };
    let gateways = match &set.gateways {
        Some(peers) => peers.iter().map(|peer| Ok(orders::member(node, peer)?.id)).collect::<Result<_, Failure>>()?,
        None => before.as_ref().map(|before| before.gateways.clone()).unwrap_or_default(),
    };
    let storm_limit = set.storm_limit.or(before.map(|before| before.storm_limit)).unwrap_or(STORM_LIMIT);
    let operation = Operation::SegmentSet(SegmentSet { name, tag, gateways, storm_limit });
    let tx = node.order(now, vec![operation]).map_err(|error| refusal(&error))?;
    Ok(Task::finality(now, tx, set.finality, Awaited::Submitted))
}

fn remove_segment(node: &mut Node<OsRng>, now: Now, remove: &RemoveSegment) -> Result<Task, Failure> {
    let operation = Operation::SegmentDel(SegmentDel { name: label(&remove.name)? });
    let tx = node.order(now, vec![operation]).map_err(|error| refusal(&error))?;
    Ok(Task::finality(now, tx, remove.finality, Awaited::Submitted))
}

fn judge_bridge(node: &mut Node<OsRng>, now: Now, judge: &JudgeBridge) -> Result<Task, Failure> {
    let (segment, member) = (label(&judge.segment)?, orders::member(node, &judge.peer)?.id);
    let operation = match judge.approve {
        true => Operation::BridgeApprove(BridgeApprove { segment, member }),
        false => Operation::BridgeRevoke(BridgeRevoke { segment, member }),
    };
    let tx = node.order(now, vec![operation]).map_err(|error| refusal(&error))?;
    Ok(Task::finality(now, tx, judge.finality, Awaited::Submitted))
}

/// Bridges on this host, and has the ledger permit it where this node's key can.
fn add_bridge(node: &mut Node<OsRng>, now: Now, host: &mut Host<'_>, add: &AddBridge) -> Result<Outcome, Failure> {
    orders::must_be_member(node)?;
    let AddBridge { interface, segment, finality } = add;
    let Some(known) = node.policy().segment(segment) else {
        return Err(Failure::new(ErrorCode::NotFound, format!("there is no segment {segment}"))
            .hint("`p2plus segment list` lists those that there are"));
    };
    let own = node.id();
    if !node.policy().member(&own).is_some_and(|member| known.has(member)) {
        let message = format!("this node is not in the segment {segment}: it lacks the tag {}", known.tag);
        return Err(Failure::new(ErrorCode::NotAuthorized, message).hint("a signer gives it: `p2plus tag`"));
    }
    let is_approved = known.bridges.contains(&own);
    let order = BridgeOrder { interface: interface.clone(), segment: segment.clone() };
    host.segments.bridge(now.instant, host.network, order.clone())?;
    if let Err(failure) = host.files.write_bridges(host.segments.orders()) {
        host.segments.unbridge(now.instant, host.network, interface, Some(segment));
        return Err(failure);
    }
    let standing = host.segments.bridges().into_iter().find(|standing| standing.order == order);
    let (bridge, problem) = standing.map(|standing| (standing.bridge, standing.problem)).unwrap_or_default();
    let bridged = Bridged {
        interface: interface.clone(),
        segment: segment.clone(),
        bridge,
        problem,
        is_approved,
        tx: None,
        height: None,
    };
    if is_approved {
        return Ok(Ok(Reply::Bridged(bridged)).into());
    }
    let approve = Operation::BridgeApprove(BridgeApprove { segment: label(segment)?, member: own });
    match node.order(now, vec![approve]) {
        Ok(tx) => Ok(Outcome::Later(Task::finality(now, tx, *finality, Awaited::Bridged(Box::new(bridged))))),
        // What was done here stays: a signer elsewhere can permit it.
        Err(SubmitError::Pool(PoolRefused::Invalid(TxError::NotAuthorized { .. }))) => {
            Ok(Ok(Reply::Bridged(bridged)).into())
        }
        Err(error) => Err(refusal(&error)),
    }
}

fn remove_bridge(node: &Node<OsRng>, now: Now, host: &mut Host<'_>, remove: &RemoveBridge) -> Result<Reply, Failure> {
    let RemoveBridge { interface, segment } = remove;
    if !host.segments.unbridge(now.instant, host.network, interface, segment.as_deref()) {
        return Err(Failure::new(ErrorCode::NotFound, format!("{interface} is in no segment by this node's order"))
            .hint("`p2plus bridge list` shows what is"));
    }
    host.files.write_bridges(host.segments.orders())?;
    Ok(Reply::Bridges(bridges(node, host.segments)))
}

/// Names in their order, which people look for.
fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

fn name_of(node: &Node<OsRng>, id: &NodeId) -> String {
    node.policy().member(id).map_or_else(|| id.to_string(), |member| member.name.clone())
}

fn label(text: &str) -> Result<Label, Failure> {
    text.parse().map_err(|error| Failure::new(ErrorCode::Usage, format!("{text:?}: {error}")))
}

impl From<BridgeError> for Failure {
    fn from(error: BridgeError) -> Self {
        let (code, hint) = match &error {
            BridgeError::NoInterface(_) => (ErrorCode::NotFound, "`ip link` lists the interfaces of this host"),
            BridgeError::IsPort(_) => (ErrorCode::Conflict, "name the bridge that it is a port of"),
            BridgeError::HasAddresses(_) => (
                ErrorCode::Conflict,
                "make a bridge yourself, move the addresses to it, and name the bridge: ip link add br0 type bridge; \
                 ip link set dev IFACE master br0",
            ),
            BridgeError::NoEthernet(_) => (ErrorCode::Usage, "name a network card, or a bridge"),
            BridgeError::Network(NetworkError::NoPermission { .. }) => {
                (ErrorCode::Permission, "the daemon needs CAP_NET_ADMIN")
            }
            BridgeError::Network(_) => return Self::new(ErrorCode::Failed, error.to_string()),
        };
        Self::new(code, error.to_string()).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_on_the_host_has_a_code_and_a_way_out() {
        let name = || "eth0".to_owned();
        for (error, code) in [
            (BridgeError::NoInterface(name()), ErrorCode::NotFound),
            (BridgeError::IsPort(name()), ErrorCode::Conflict),
            (BridgeError::HasAddresses(name()), ErrorCode::Conflict),
            (BridgeError::NoEthernet(name()), ErrorCode::Usage),
        ] {
            let failure = Failure::from(error);
            assert_eq!(failure.code, code);
            assert!(failure.message.contains("eth0") && failure.hint.is_some());
        }
    }
}
