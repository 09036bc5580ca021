//! The verbs about where the network is found: relay, ledger endpoints.

use super::args::{EndpointsArgs, RelayCommand, RelayOffArgs, RelayOnArgs};
use super::members::submit;
use super::output::Output;
use super::scope::Scope;
use super::{CommandResult, reach};
use crate::daemon::api::relays::{RelayOff, RelayOn, RelayRequest, SetEndpoints};
use crate::daemon::api::request::Request;

pub(super) fn relay(scope: &Scope, output: &Output, command: RelayCommand) -> CommandResult {
    match command {
        RelayCommand::On(args) => on(scope, output, args),
        RelayCommand::Off(args) => off(scope, output, args),
        RelayCommand::Status => reach::relay_status(scope, output),
    }
}

fn on(scope: &Scope, output: &Output, args: RelayOnArgs) -> CommandResult {
    let RelayOnArgs { endpoints, tls_port, class, member, finality } = args;
    let about = of("the relay", member.as_deref());
    let order = RelayOn { endpoints, tls_port, class, member, finality: finality.finality() };
    let request = Request::Relay(RelayRequest::On(order));
    submit(scope, output, &request, &finality, ["approved", "approving"], &about)
}

fn off(scope: &Scope, output: &Output, args: RelayOffArgs) -> CommandResult {
    let RelayOffArgs { member, finality } = args;
    let about = of("the relay", member.as_deref());
    let request = Request::Relay(RelayRequest::Off(RelayOff { member, finality: finality.finality() }));
    submit(scope, output, &request, &finality, ["ended", "ending"], &about)
}

/// `ledger endpoints`.
pub(super) fn endpoints(scope: &Scope, output: &Output, args: EndpointsArgs) -> CommandResult {
    let EndpointsArgs { endpoints, peer, finality } = args;
    let about = of("the static endpoints", Some(peer.as_deref().unwrap_or("this node")));
    let verbs = if endpoints.is_empty() { ["cleared", "clearing"] } else { ["set", "setting"] };
    let order = SetEndpoints { endpoints, member: peer, finality: finality.finality() };
    submit(scope, output, &Request::Relay(RelayRequest::SetEndpoints(order)), &finality, verbs, &about)
}

fn of(what: &str, member: Option<&str>) -> String {
    member.map_or_else(|| what.to_owned(), |member| format!("{what} of {member}"))
}
