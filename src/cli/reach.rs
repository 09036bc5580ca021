//! The verbs about ways: why, netcheck, relay status.

use super::args::WhyArgs;
use super::client::PATIENCE;
use super::output::Output;
use super::scope::Scope;
use super::{CommandResult, Done, text};
use crate::daemon::api::reach::{
    MappingView, NetReport, PlacementView, ReachRequest, RelayReport, WayView, Why, WhyReport,
};
use crate::daemon::api::request::Request;

pub(super) fn why(scope: &Scope, output: &Output, args: &WhyArgs) -> CommandResult {
    let request = Request::Reach(ReachRequest::Why(Why { peer: args.peer.clone() }));
    let answer = scope.client()?.ask::<WhyReport>(&request, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, why_text);
    Ok(Done::Well)
}

fn why_text(report: &WhyReport) -> String {
    let mut lines = vec![format!("{}: {}", report.peer, report.reason)];
    lines.extend(report.advice.iter().map(|advice| format!("  to change that: {advice}")));
    lines.extend(report.mtu.map(|mtu| format!("  carries     packets of up to {mtu} bytes whole")));
    lines.push(format!("  this node   {}", placement(&report.own)));
    let unknown = || "unknown: no record of it came".to_owned();
    lines.push(format!("  the peer    {}", report.remote.as_ref().map_or_else(unknown, placement)));
    if !report.ways.is_empty() {
        let columns = [("WAY", 0), ("STATE", 0), ("KNOWN BY", 1), ("HEARD", 2)];
        lines.push(text::table(&columns, report.ways.iter().map(way)));
    }
    lines.join("\n")
}

fn way(way: &WayView) -> Vec<String> {
    let relay = || way.relay.as_ref().map_or_else(|| "?".to_owned(), |relay| format!("relay {relay}"));
    let place = way.endpoint.map_or_else(relay, |endpoint| format!("direct {endpoint}"));
    let heard = way.heard_seconds.map_or_else(|| "-".to_owned(), |age| format!("{} ago", text::span(age)));
    vec![place, way.state.clone(), way.source.clone(), heard]
}

fn placement(view: &PlacementView) -> String {
    let open = if view.reachable { "others reach it unasked" } else { "nobody reaches it unasked" };
    let relays: Vec<_> =
        view.relays.iter().map(|relay| format!("{} ({})", relay.name, text::millis(relay.rtt_ms))).collect();
    format!("NAT {} · {open} · relays {} · {}", view.nat, text::list(&relays), text::list(&view.endpoints))
}

pub(super) fn netcheck(scope: &Scope, output: &Output) -> CommandResult {
    let answer = scope.client()?.ask::<NetReport>(&Request::Reach(ReachRequest::NetCheck), PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, net_text);
    Ok(Done::Well)
}

fn net_text(report: &NetReport) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" };
    let mut lines = vec![
        format!("listens on        {}", text::list(&report.listen)),
        format!("NAT               {}", report.own.nat),
        format!("reached unasked   {}", yes(report.own.reachable)),
        format!("UDP passes        {}", yes(report.udp)),
        format!("TLS in its place  {}", yes(report.tls)),
        format!("port mapping      {}", mapping(&report.mapping)),
        format!("found at          {}", text::list(&report.own.endpoints)),
    ];
    lines.extend(report.seen.iter().map(|seen| format!("seen at           {} by {}", seen.endpoint, seen.by)));
    lines.extend(
        report
            .own
            .relays
            .iter()
            .map(|relay| format!("relay             {} {}", relay.name, text::millis(relay.rtt_ms))),
    );
    lines.extend(report.advice.iter().map(|advice| format!("note              {advice}")));
    lines.join("\n")
}

fn mapping(mapping: &MappingView) -> String {
    match mapping {
        MappingView { endpoint: Some(endpoint), by: Some(by), .. } => format!("{endpoint} by {by}"),
        MappingView { reason: Some(reason), .. } => format!("none: {}", text::clean(reason)),
        MappingView { state, .. } => match state.as_str() {
            "off" => "off".to_owned(),
            "no-gateway" => "none: there is no private gateway to ask".to_owned(),
            _ => "the gateway is being asked".to_owned(),
        },
    }
}

pub(super) fn relay_status(scope: &Scope, output: &Output) -> CommandResult {
    let answer = scope.client()?.ask::<RelayReport>(&Request::Reach(ReachRequest::Relaying), PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, relay_text);
    Ok(Done::Well)
}

fn relay_text(report: &RelayReport) -> String {
    let state = match report {
        RelayReport { relaying: true, .. } => "yes",
        RelayReport { mode, .. } if mode == "off" => "no: [relay] mode is off",
        _ => "no: nobody came here unasked yet, so nobody could come through",
    };
    let rate =
        |rate: Option<u64>| rate.map_or_else(|| "no limit".to_owned(), |rate| format!("{}/s", text::bytes(rate)));
    let mut lines = vec![
        format!("relays     {state} (mode {})", report.mode),
        format!("rate       {}, each member {}", rate(report.rate), rate(report.member_rate)),
        format!("labels     {} of {}", report.labels, report.max_labels),
    ];
    if !report.circuits.is_empty() {
        let rows = report.circuits.iter().map(|circuit| {
            let [one, other] = &circuit.between;
            let idle = format!("{} ago", text::span(circuit.idle_seconds));
            vec![format!("{one} – {other}"), text::bytes(circuit.bytes), idle]
        });
        lines.push(text::table(&[("BETWEEN", 0), ("PASSED ON", 0), ("LAST USED", 1)], rows));
    }
    lines.join("\n")
}
