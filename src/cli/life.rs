//! The verbs of a network's life on this machine: init, join, daemon, networks, reload, leave, cleanup, and version, completion.

use super::args::{BeginArgs, CompletionArgs, DaemonArgs, InitArgs, JoinArgs, LeaveArgs};
use super::client::{Answer, Client, PATIENCE};
use super::output::Output;
use super::scope::{Scope, command_line};
use super::{CommandError, CommandResult, Done, look, service, text};
use crate::daemon::VERSION;
use crate::daemon::api::request::Request;
use crate::daemon::api::types::{LedgerRole, NetworkState, PublicKeys, Reloaded, Status};
use crate::daemon::failure::{ErrorCode, Failure};
use crate::daemon::logging;
use crate::daemon::paths::Paths;
use crate::daemon::setup::{self, DeviceChoice, InitReport, RunArgs};
use crate::wire::name::NodeName;
use crate::wire::ticket::{Ticket, TicketError};
use serde::Serialize;
use std::io::Read;
use std::net::IpAddr;
use std::time::Duration;
use zeroize::Zeroizing;

/// More than any ticket: what is longer on standard input is something else.
const MAX_TICKET_INPUT: u64 = 64 * 1024;
/// How long `networks` waits for each daemon.
const GLANCE: Duration = Duration::from_secs(2);

/// `init`.
#[derive(Serialize)]
struct Founded<'r> {
    network: &'r str,
    network_id: String,
    node_id: String,
    name: &'r str,
    addresses: &'r [IpAddr],
    recovery_words: Vec<&'r str>,
    started: bool,
}

/// Founds a network. The report is printed even when the service then does not start: the recovery words are shown once.
pub(super) fn init(scope: &Scope, output: &Output, args: &InitArgs) -> CommandResult {
    let paths = scope.paths_of(&args.net)?;
    let config = scope.config(&paths)?;
    let node_name = args.name.clone().unwrap_or_else(host_name);
    let listen = args.begin.listen.clone();
    let init_args = setup::InitArgs { paths: paths.clone(), config, node_name, ipv4: args.ipv4, listen };
    let report = setup::init(&init_args)?;
    let start = start(&paths, &args.begin);
    let founded = Founded {
        network: report.network.as_str(),
        network_id: report.network_id.to_string(),
        node_id: report.node_id.to_string(),
        name: report.node_name.as_str(),
        addresses: &report.addresses,
        recovery_words: report.recovery_words.iter().map(|words| words.as_str()).collect(),
        started: matches!(start, Ok(Started::Yes)),
    };
    output.answer(&founded, &[], |_| founding_text(output, &report, &paths, &start));
    start.map(|_| Done::Well)
}

fn founding_text(output: &Output, report: &InitReport, paths: &Paths, start: &Result<Started, CommandError>) -> String {
    let style = output.style;
    let rows = [
        ("node", look::named(style, report.node_name.as_str(), &report.node_id.to_string())),
        ("addresses", text::list(&report.addresses)),
        ("keys", paths.state_folder().display().to_string()),
    ];
    let mut out = format!("founded network {}\n{}", style.bold(report.network.as_str()), text::fields(style, &rows));
    out.push_str("\nRecovery words: each line alone can rescue the network. They are shown once and stored nowhere: write them down.\n");
    for words in &report.recovery_words {
        out.push_str(&format!("  {}\n", words.as_str()));
    }
    let invite = command_line(paths, "invite");
    match start {
        Ok(Started::Yes) => out.push_str(&format!("\nThe daemon is running. Next: sudo {invite}\n")),
        _ => {
            let daemon = command_line(paths, "daemon");
            out.push_str(&format!("\nNext: sudo {daemon}\nthen: sudo {invite}\n"));
        }
    }
    out
}

/// `join`.
#[derive(Serialize)]
struct Joined {
    network: String,
    network_id: String,
    node_id: String,
    node_key: String,
    transport_key: String,
    needs_approval: bool,
    started: bool,
}

pub(super) fn join(scope: &Scope, output: &Output, args: &JoinArgs) -> CommandResult {
    let ticket = read_ticket(&args.ticket)?;
    let paths = scope.paths_of(&ticket.network)?;
    let config = scope.config(&paths)?;
    let report = setup::join(&setup::JoinArgs {
        paths: paths.clone(),
        config,
        ticket,
        node_name: args.name.clone(),
        host_name: host_name(),
        listen: args.begin.listen.clone(),
    })?;
    let start = start(&paths, &args.begin);
    let joined = Joined {
        network: report.network.to_string(),
        network_id: report.network_id.to_string(),
        node_id: report.keys.id.clone(),
        node_key: report.keys.node_key.clone(),
        transport_key: report.keys.transport_key.clone(),
        needs_approval: report.needs_approval,
        started: matches!(start, Ok(Started::Yes)),
    };
    output.answer(&joined, &[], |joined| {
        let title = format!("ready to join network {}", output.style.bold(&joined.network));
        let rows = [("node", text::short(&joined.node_id)), ("keys", paths.state_folder().display().to_string())];
        let next = if joined.started {
            format!("The daemon is running and joins. Next: {}", command_line(&paths, "status"))
        } else {
            format!("The daemon joins when it runs. Next: sudo {}", command_line(&paths, "daemon"))
        };
        let approval = if joined.needs_approval { how_to_admit(&paths, &report.keys) } else { String::new() };
        format!("{title}\n{}\n{next}\n{approval}", text::fields(output.style, &rows))
    });
    start.map(|_| Done::Well)
}

/// What a signer types, on a machine with folders of its own.
fn how_to_admit(paths: &Paths, keys: &PublicKeys) -> String {
    let PublicKeys { id, node_key, transport_key, name } = keys;
    let name = name.as_ref().map(|name| format!(" --name {}", text::clean(name))).unwrap_or_default();
    let network = &paths.network;
    format!(
        "To admit this node, on a signer's node (the founder's, unless signers were added):\n  \
         sudo p2plus -n {network} authorize {id}{name} --node-key {node_key} --transport-key {transport_key}\n"
    )
}

/// Prints the keys that others may know; the private halves stay in their files.
pub(super) fn keys(scope: &Scope, output: &Output) -> CommandResult {
    let paths = scope.paths()?;
    let keys = setup::public_keys(&paths)?;
    output.answer(&keys, &[], |keys| {
        let rows = [
            ("identity", keys.id.clone()),
            ("node key", keys.node_key.clone()),
            ("transport key", keys.transport_key.clone()),
        ];
        format!("{}\n{}", text::fields(output.style, &rows), how_to_admit(&paths, keys))
    });
    Ok(Done::Well)
}

fn read_ticket(typed: &str) -> Result<Ticket, Failure> {
    let mut text = Zeroizing::new(String::new());
    if typed == "-" {
        let read = std::io::stdin().take(MAX_TICKET_INPUT).read_to_string(&mut text);
        read.map_err(|error| {
            Failure::new(ErrorCode::Usage, format!("cannot read the ticket from standard input: {error}"))
        })?;
    } else {
        text.push_str(typed);
    }
    Ticket::decode(&text).map_err(|error| {
        let hint = match error {
            TicketError::NewerVersion(_) => "install the newest p2plus on this machine",
            TicketError::BadField(_) => "ask for a new ticket; this one was not made by p2plus invite",
            _ => "copy the whole line that `p2plus invite` printed, or ask for a new one",
        };
        Failure::new(ErrorCode::Usage, error.to_string()).hint(hint)
    })
}

/// Whether the service was started.
enum Started {
    Yes,
    /// It was not asked for, or nothing here starts services.
    No,
}

fn start(paths: &Paths, args: &BeginArgs) -> Result<Started, CommandError> {
    if args.no_start || !paths.roots.are_default() || !service::systemd_runs() {
        return Ok(Started::No);
    }
    service::start(&paths.network).map(|()| Started::Yes).map_err(CommandError::Failure)
}

/// The host's name as a node's; `node` where it has none that fits.
fn host_name() -> NodeName {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    NodeName::from_host_name(&host).unwrap_or_else(|| "node".parse().expect("`node` is a label"))
}

/// Runs the daemon. What flags say goes along with the configuration, which a reload reads again without them.
pub(super) fn daemon(scope: &Scope, args: &DaemonArgs) -> CommandResult {
    let paths = scope.paths()?;
    let config = scope.config(&paths)?;
    let device = match args.device.clone().or_else(|| config.tunnel.device.0.clone()) {
        _ if args.no_device => DeviceChoice::None,
        Some(name) => DeviceChoice::Named(name),
        None => DeviceChoice::Default,
    };
    let log = logging::start(config.node.log_level);
    setup::run(&RunArgs {
        paths,
        config,
        listen: args.listen.clone(),
        device,
        force_ipv4: args.force_ipv4,
        log_level_is_fixed: scope.log_level.is_some(),
        log,
    })?;
    Ok(Done::Well)
}

/// One of `networks`.
#[derive(Serialize)]
struct NetworkLine {
    name: String,
    state: NetworkState,
    addresses: Vec<IpAddr>,
}

pub(super) fn networks(scope: &Scope, output: &Output) -> CommandResult {
    let lines: Vec<NetworkLine> =
        scope.roots.networks().into_iter().map(|network| glance(&scope.roots.network(network))).collect();
    let is_hidden = scope.roots.is_hidden();
    let warning = || {
        format!("networks that do not run are not shown: only root may look into {}", scope.roots.state_dir.display())
    };
    let warnings: Vec<String> = is_hidden.then(warning).into_iter().collect();
    output.answer(&lines, &warnings, |lines| {
        if lines.is_empty() && is_hidden {
            return String::new();
        }
        if lines.is_empty() {
            return format!("there is no network in {}\n", scope.roots.state_dir.display());
        }
        let rows = lines
            .iter()
            .map(|line| vec![line.name.clone(), text::state(line.state).to_owned(), text::list(&line.addresses)]);
        text::table(&[("NETWORK", 0), ("STATE", 0), ("ADDRESSES", 0)], rows)
    });
    Ok(Done::Well)
}

fn glance(paths: &Paths) -> NetworkLine {
    let status: Result<Answer<Status>, Failure> = Client::new(paths.clone()).ask(&Request::Status, GLANCE);
    let (state, addresses) = match status {
        Ok(answer) => (answer.data.network.state, answer.data.network.addresses),
        Err(_) => (NetworkState::Stopped, Vec::new()),
    };
    NetworkLine { name: paths.network.to_string(), state, addresses }
}

pub(super) fn reload(scope: &Scope, output: &Output) -> CommandResult {
    let client = scope.client()?;
    // The daemon says no as well, but here the line can be pointed at.
    scope.config(&client.paths)?;
    let answer: Answer<Reloaded> = client.ask(&Request::Reload, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |reloaded| {
        let mut out = format!("changed: {}\n", text::list(&reloaded.changed));
        if !reloaded.needs_restart.is_empty() {
            out.push_str(&format!("after a restart: {}\n", text::list(&reloaded.needs_restart)));
        }
        out
    });
    Ok(Done::Well)
}

/// `leave`.
#[derive(Serialize)]
struct Left {
    network: String,
}

pub(super) fn leave(scope: &Scope, output: &Output, args: &LeaveArgs) -> CommandResult {
    let paths = scope.paths()?;
    let question = format!(
        "Delete this node's keys and ledger of network {}? It cannot come back without a new ticket.",
        paths.network
    );
    if !args.yes && output.is_interactive() && !output.confirms(&question) {
        return Err(Failure::new(ErrorCode::Failed, "nothing was deleted").into());
    }
    let status: Result<Answer<Status>, Failure> = Client::new(paths.clone()).ask(&Request::Status, PATIENCE);
    match status {
        Err(failure) if failure.code == ErrorCode::NotRunning => {}
        Err(failure) if matches!(failure.code, ErrorCode::NotFound | ErrorCode::Permission) => {
            return Err(failure.into());
        }
        status if paths.roots.are_default() && service::systemd_runs() => {
            if !args.force {
                must_leave_a_validator(&paths, status)?;
            }
            service::stop(&paths.network)?;
        }
        _ => {
            let message = format!("the daemon of network {} is running", paths.network);
            return Err(Failure::new(ErrorCode::Conflict, message).hint("stop it first (Ctrl-C where it runs)").into());
        }
    }
    let report = setup::leave(&paths, args.force)?;
    output.answer(&Left { network: report.network.to_string() }, &[], |left| {
        format!(
            "left network {}\nWhere this node was a member, the others still know it as one, until a signer revokes it.\n",
            left.network
        )
    });
    Ok(Done::Well)
}

/// Refuses by what a running daemon says of itself, while its service still runs.
fn must_leave_a_validator(paths: &Paths, status: Result<Answer<Status>, Failure>) -> Result<(), Failure> {
    let status = status.map_err(|failure| setup::unknown_need(&paths.network, &failure))?.data;
    let is_needed =
        status.ledger.role == LedgerRole::Validator && status.ledger.validators == 1 && !status.peers.is_empty();
    if is_needed { Err(setup::only_validator(&paths.network)) } else { Ok(()) }
}

/// `cleanup`.
#[derive(Serialize)]
struct Cleaned {
    undone: Vec<String>,
}

/// Undoes what is left of the network that was named, or is the only one; of several it passes by those whose daemons run.
pub(super) fn cleanup(scope: &Scope, output: &Output) -> CommandResult {
    let networks = match &scope.named {
        Some(network) => vec![network.clone()],
        None => scope.roots.networks(),
    };
    let is_choosy = networks.len() > 1;
    let mut undone = Vec::new();
    for network in networks {
        match setup::cleanup(&scope.roots.network(network)) {
            Err(failure) if failure.code == ErrorCode::Conflict && is_choosy => {}
            report => undone.extend(report?.undone),
        }
    }
    output.answer(&Cleaned { undone }, &[], |cleaned| {
        if cleaned.undone.is_empty() {
            return "nothing was left over\n".to_owned();
        }
        cleaned.undone.iter().map(|change| format!("undone: {}\n", text::clean(change))).collect()
    });
    Ok(Done::Well)
}

/// `version`.
#[derive(Serialize)]
struct Version {
    version: &'static str,
}

pub(super) fn version(output: &Output) -> CommandResult {
    let version = Version { version: VERSION };
    output.answer(&version, &[], |version| format!("p2plus {}", version.version));
    Ok(Done::Well)
}

/// `completion`.
#[derive(Serialize)]
struct Completion {
    shell: String,
    script: String,
}

pub(super) fn completion(output: &Output, args: &CompletionArgs) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::grammar(), "p2plus", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    output.answer(&Completion { shell: args.shell.to_string(), script }, &[], |completion| completion.script.clone());
    Ok(Done::Well)
}
