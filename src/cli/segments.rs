//! The verbs about the link layer: segment, bridge.

use super::args::{AddBridgeArgs, AddSegmentArgs, JudgeBridgeArgs, RemoveBridgeArgs, RemoveSegmentArgs};
use super::client::{Answer, PATIENCE};
use super::members::{patience, submit, transaction};
use super::output::Output;
use super::scope::Scope;
use super::{CommandResult, Done, text};
use crate::daemon::api::link::{
    AddBridge, BridgeView, Bridged, JudgeBridge, LinkRequest, RemoveBridge, RemoveSegment, SegmentView, SetSegment,
};
use crate::daemon::api::request::Request;

pub(super) fn list(scope: &Scope, output: &Output) -> CommandResult {
    let answer: Answer<Vec<SegmentView>> = scope.client()?.ask(&Request::Link(LinkRequest::Segments), PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |segments| {
        if segments.is_empty() {
            return "there is no segment (make one: p2plus segment add NAME --tag TAG)\n".to_owned();
        }
        let rows = segments.iter().map(|segment| {
            let device = match (&segment.device, &segment.problem) {
                (Some(device), _) => device.clone(),
                (None, Some(problem)) => text::clean(problem),
                (None, None) => "-".to_owned(),
            };
            vec![
                segment.name.clone(),
                segment.tag.clone(),
                text::list(&segment.members),
                text::list(&segment.gateways),
                text::list(&segment.bridges),
                segment.stations.len().to_string(),
                segment.storm_limit.to_string(),
                device,
            ]
        });
        let columns = [
            ("NAME", 0),
            ("TAG", 0),
            ("MEMBERS", 1),
            ("GATEWAYS", 1),
            ("BRIDGES", 1),
            ("STATIONS", 2),
            ("STORM LIMIT", 3),
            ("DEVICE", 0),
        ];
        text::table(&columns, rows)
    });
    Ok(Done::Well)
}

pub(super) fn add(scope: &Scope, output: &Output, args: &AddSegmentArgs) -> CommandResult {
    let gateways = (args.no_gateway || !args.gateways.is_empty()).then(|| args.gateways.clone());
    let request = Request::Link(LinkRequest::SetSegment(SetSegment {
        name: args.name.to_string(),
        tag: args.tag.as_ref().map(ToString::to_string),
        gateways,
        storm_limit: args.storm_limit,
        finality: args.finality.finality(),
    }));
    submit(scope, output, &request, &args.finality, ["set segment", "setting segment"], args.name.as_str())
}

pub(super) fn remove(scope: &Scope, output: &Output, args: &RemoveSegmentArgs) -> CommandResult {
    let finality = args.finality.finality();
    let request = Request::Link(LinkRequest::RemoveSegment(RemoveSegment { name: args.name.to_string(), finality }));
    submit(scope, output, &request, &args.finality, ["ended segment", "ending segment"], args.name.as_str())
}

pub(super) fn bridges(scope: &Scope, output: &Output) -> CommandResult {
    let answer: Answer<Vec<BridgeView>> = scope.client()?.ask(&Request::Link(LinkRequest::Bridges), PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |bridges| {
        if bridges.is_empty() {
            return "there is no bridge (make one: p2plus bridge add IFACE SEGMENT)\n".to_owned();
        }
        let rows = bridges.iter().map(|bridge| {
            let approved = if bridge.is_approved { "yes" } else { "no: the others drop what it brings" };
            let state = match (&bridge.bridge, &bridge.problem) {
                (Some(bridge), _) => bridge.clone(),
                (None, Some(problem)) => text::clean(problem),
                (None, None) => "-".to_owned(),
            };
            let interface = bridge.interface.as_deref().map_or_else(|| "-".to_owned(), text::clean);
            vec![bridge.segment.clone(), bridge.member.clone(), interface, state, approved.to_owned()]
        });
        let columns = [("SEGMENT", 0), ("MEMBER", 0), ("INTERFACE", 0), ("BRIDGE", 1), ("APPROVED", 0)];
        text::table(&columns, rows)
    });
    Ok(Done::Well)
}

pub(super) fn bridge(scope: &Scope, output: &Output, args: &AddBridgeArgs) -> CommandResult {
    let request = Request::Link(LinkRequest::AddBridge(AddBridge {
        interface: args.interface.clone(),
        segment: args.segment.to_string(),
        finality: args.finality.finality(),
    }));
    let answer: Answer<Bridged> = scope.client()?.ask(&request, patience(&args.finality))?;
    output.answer(&answer.data, &answer.warnings, said_of_bridge);
    Ok(Done::Well)
}

fn said_of_bridge(bridged: &Bridged) -> String {
    let Bridged { interface, segment, bridge, problem, is_approved, tx, height } = bridged;
    let done = match (bridge, problem) {
        (Some(bridge), _) => format!("bridged {} into {segment}, in {bridge}\n", text::clean(interface)),
        (None, problem) => format!(
            "noted {} for {segment}; it is not bridged yet: {}\n",
            text::clean(interface),
            problem.as_deref().map_or_else(|| "nobody knows why".to_owned(), text::clean)
        ),
    };
    let next = match tx {
        _ if *is_approved && tx.is_none() => String::new(),
        Some(tx) => transaction(tx, *height),
        None => format!(
            "the others drop what it brings until a signer permits it: p2plus bridge approve {segment} NODE, there\n"
        ),
    };
    done + &next
}

pub(super) fn unbridge(scope: &Scope, output: &Output, args: &RemoveBridgeArgs) -> CommandResult {
    let segment = args.segment.as_ref().map(ToString::to_string);
    let request = Request::Link(LinkRequest::RemoveBridge(RemoveBridge { interface: args.interface.clone(), segment }));
    let answer: Answer<Vec<BridgeView>> = scope.client()?.ask(&request, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |_| format!("took {} out\n", text::clean(&args.interface)));
    Ok(Done::Well)
}

pub(super) fn judge(scope: &Scope, output: &Output, args: &JudgeBridgeArgs, approve: bool) -> CommandResult {
    let request = Request::Link(LinkRequest::JudgeBridge(JudgeBridge {
        segment: args.segment.to_string(),
        peer: args.peer.clone(),
        approve,
        finality: args.finality.finality(),
    }));
    let verbs = if approve { ["permitted", "permitting"] } else { ["forbade", "forbidding"] };
    let about = format!("{} to bridge into {}", args.peer, args.segment);
    submit(scope, output, &request, &args.finality, verbs, &about)
}
