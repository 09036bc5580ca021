//! The verbs about what lies behind members: advertise, unadvertise, accept, routes, exit-node.

use super::args::{AcceptArgs, AdvertiseArgs, AnswerArgs, ExitUseArgs, UnadvertiseArgs};
use super::client::{Answer, PATIENCE};
use super::members::submit;
use super::output::Output;
use super::scope::Scope;
use super::{CommandResult, Done, text};
use crate::daemon::api::request::Request;
use crate::daemon::api::routes::{
    Accept, AcceptedView, Advertise, AnswerRequest, ExitView, RequestView, RouteView, RouterView, UseExit,
};

pub(super) fn advertise(scope: &Scope, output: &Output, args: &AdvertiseArgs) -> CommandResult {
    let order = Advertise {
        subnet: args.subnet.clone(),
        map: args.map.clone(),
        exit: args.exit,
        member: args.member.clone(),
        finality: args.finality.finality(),
    };
    let about = about(args.subnet.as_deref(), args.exit);
    submit(scope, output, &Request::Advertise(order), &args.finality, ["approved", "approving"], &about)
}

pub(super) fn unadvertise(scope: &Scope, output: &Output, args: &UnadvertiseArgs) -> CommandResult {
    let order = Advertise {
        subnet: args.subnet.clone(),
        map: None,
        exit: args.exit,
        member: args.member.clone(),
        finality: args.finality.finality(),
    };
    let about = about(args.subnet.as_deref(), args.exit);
    submit(scope, output, &Request::Unadvertise(order), &args.finality, ["ended", "ending"], &about)
}

fn about(subnet: Option<&str>, exit: bool) -> String {
    let parts = [subnet.map(|subnet| format!("the route to {subnet}")), exit.then(|| "the exit".to_owned())];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

pub(super) fn requests(scope: &Scope, output: &Output) -> CommandResult {
    let answer: Answer<Vec<RequestView>> = scope.client()?.ask(&Request::Requests, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |requests| {
        if requests.is_empty() {
            return "nobody asks for anything\n".to_owned();
        }
        let rows = requests.iter().map(|request| {
            vec![
                request.id.clone(),
                text::clean(&request.member),
                wanted(request),
                format!("{} UTC", text::date(request.made)),
                format!("{} UTC", text::date(request.expires)),
            ]
        });
        text::table(&[("ID", 0), ("MEMBER", 0), ("ASKS FOR", 0), ("SINCE", 1), ("UNTIL", 2)], rows)
    });
    Ok(Done::Well)
}

/// What a request is for, in a few words.
fn wanted(request: &RequestView) -> String {
    match (&request.prefix, &request.local) {
        (Some(prefix), Some(local)) => format!("{} {prefix}, which is {local} there", text::clean(&request.kind)),
        (Some(prefix), None) => format!("{} {prefix}", text::clean(&request.kind)),
        (None, _) if request.endpoints.is_empty() => text::clean(&request.kind),
        (None, _) => {
            let tls = request.tls_port.map(|port| format!(", TLS on port {port}")).unwrap_or_default();
            format!("{} at {}{tls}", text::clean(&request.kind), text::list(&request.endpoints))
        }
    }
}

pub(super) fn approve(scope: &Scope, output: &Output, args: &AnswerArgs) -> CommandResult {
    let request = Request::Approve(AnswerRequest { id: args.id.clone(), finality: args.finality.finality() });
    submit(scope, output, &request, &args.finality, ["approved", "approving"], &format!("request {}", args.id))
}

pub(super) fn refuse(scope: &Scope, output: &Output, args: &AnswerArgs) -> CommandResult {
    let request = Request::Refuse(AnswerRequest { id: args.id.clone(), finality: args.finality.finality() });
    let answer: Answer<RequestView> = scope.client()?.ask(&request, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |request| {
        format!("refused {}: {}\n", text::clean(&request.member), wanted(request))
    });
    Ok(Done::Well)
}

pub(super) fn accept(scope: &Scope, output: &Output, args: &AcceptArgs, accept: bool) -> CommandResult {
    let all = args.subnets.iter().any(|subnet| subnet == "all");
    let prefixes = args.subnets.iter().filter(|subnet| *subnet != "all").cloned().collect();
    tell_accepted(scope, output, &Request::Accept(Accept { all, prefixes, accept, force: args.force }))
}

fn tell_accepted(scope: &Scope, output: &Output, request: &Request) -> CommandResult {
    let answer: Answer<AcceptedView> = scope.client()?.ask(request, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |accepted| {
        let subnets = match (accepted.all, &accepted.prefixes[..]) {
            (true, _) => "every subnet that is approved".to_owned(),
            (false, []) => "no subnet".to_owned(),
            (false, prefixes) => text::list(prefixes),
        };
        let exit = accepted.exit.as_deref().map_or_else(|| "none".to_owned(), text::clean);
        text::fields(output.style, &[("accepted", subnets), ("exit", exit)])
    });
    Ok(Done::Well)
}

pub(super) fn routes(scope: &Scope, output: &Output) -> CommandResult {
    let answer: Answer<Vec<RouteView>> = scope.client()?.ask(&Request::Routes, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |routes| {
        if routes.is_empty() {
            return "no subnet lies behind any member\n".to_owned();
        }
        let rows = routes.iter().flat_map(|route| {
            route.routers.iter().map(move |router| {
                vec![
                    route.prefix.clone(),
                    text::clean(&router.name),
                    router.local.clone().unwrap_or_else(|| "-".to_owned()),
                    use_text(route.accepted, router).to_owned(),
                    text::list(&router.signers),
                    text::short(&router.tx),
                ]
            })
        });
        text::table(&[("SUBNET", 0), ("BEHIND", 0), ("IS THERE", 1), ("USE", 0), ("APPROVED BY", 2), ("TX", 3)], rows)
    });
    Ok(Done::Well)
}

fn use_text(accepted: bool, router: &RouterView) -> &'static str {
    match (accepted, router.in_use, router.silent) {
        (false, ..) => "not accepted",
        (true, true, false) => "in use",
        (true, true, true) => "in use, silent",
        (true, false, false) => "standby",
        (true, false, true) => "silent",
    }
}

pub(super) fn exits(scope: &Scope, output: &Output) -> CommandResult {
    let answer: Answer<Vec<ExitView>> = scope.client()?.ask(&Request::Exits, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |exits| {
        if exits.is_empty() {
            return "no member is an exit\n".to_owned();
        }
        let rows = exits.iter().map(|exit| {
            let state = match (exit.in_use, exit.silent) {
                (true, false) => "in use",
                (true, true) => "in use, silent",
                (false, false) => "-",
                (false, true) => "silent",
            };
            vec![text::clean(&exit.name), state.to_owned()]
        });
        text::table(&[("EXIT", 0), ("USE", 0)], rows)
    });
    Ok(Done::Well)
}

pub(super) fn use_exit(scope: &Scope, output: &Output, args: &ExitUseArgs) -> CommandResult {
    tell_accepted(scope, output, &Request::UseExit(UseExit { peer: Some(args.peer.clone()) }))
}

pub(super) fn no_exit(scope: &Scope, output: &Output) -> CommandResult {
    tell_accepted(scope, output, &Request::UseExit(UseExit { peer: None }))
}
