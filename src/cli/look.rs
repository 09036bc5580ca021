//! The verbs that look: status, peers, ping, ip, whois, wait.

use super::args::{IpArgs, PingArgs, StatusArgs, WaitArgs, WhoisArgs};
use super::client::{Answer, Client, GRACE, PATIENCE};
use super::output::{Output, Style};
use super::scope::Scope;
use super::{CommandResult, Done, text};
use crate::daemon::api::request::{Condition, Ip, Ping, Request, Wait, Whois};
use crate::daemon::api::types::{
    Addresses, DeviceStatus, LedgerRole, LedgerStatus, Member, PathKind, Peer, PingReport, Status, Waited,
};
use crate::daemon::failure::{ErrorCode, Failure};
use std::time::{Duration, Instant};

/// How often `status --watch` looks, and how far apart the probes of `ping` are.
const SECOND: Duration = Duration::from_secs(1);
/// How long one probe may take: its handshake retransmits for almost four seconds.
const PROBE_PATIENCE: Duration = Duration::from_secs(15);
/// How often `wait` looks for a daemon or a name that is not there yet.
const WAIT_RETRY: Duration = Duration::from_millis(100);

pub(super) fn status(scope: &Scope, output: &Output, args: &StatusArgs) -> CommandResult {
    let client = scope.client()?;
    loop {
        let answer: Answer<Status> = client.ask(&Request::Status, PATIENCE)?;
        if args.watch {
            output.clear_screen();
        }
        output.answer(&answer.data, &answer.warnings, |status| describe(output.style, status));
        if !args.watch || !output.is_read() {
            return Ok(Done::Well);
        }
        std::thread::sleep(SECOND);
    }
}

fn describe(style: Style, status: &Status) -> String {
    let Status { node, network, ledger, peers, drops, degraded } = status;
    let mut out = format!("{} is {}", style.bold(&network.name), text::painted_state(style, network.state));
    if let Some(reason) = &network.reason {
        out.push_str(&format!(": {}", text::clean(reason)));
    }
    out.push('\n');
    let mut rows = vec![
        ("node", named(style, &node.name, &node.id)),
        ("daemon", format!("p2plus {}, running for {}", node.version, text::span(node.uptime_seconds))),
    ];
    if !network.addresses.is_empty() {
        rows.push(("addresses", text::list(&network.addresses)));
    }
    if !network.conflicts.is_empty() {
        let conflicts = network.conflicts.iter().map(|it| format!("{} overlaps {}", it.prefix, text::clean(&it.with)));
        let list = conflicts.collect::<Vec<_>>().join(", ");
        rows.push(("conflict", style.bad(&format!("{list}: IPv6 only, until it is gone or `daemon --force-ipv4`"))));
    }
    rows.extend(network.problems.iter().map(|problem| ("problem", style.bad(&text::clean(problem)))));
    if !network.listen.is_empty() {
        rows.push(("device", device(&network.device)));
        rows.push(("listening", text::list(&network.listen)));
    }
    rows.push(("ledger", describe_ledger(ledger)));
    rows.extend(halt_notice(style, ledger).map(|notice| ("halted", notice)));
    for (title, counters) in [("dropped", drops), ("degraded", degraded)] {
        if !counters.is_empty() {
            let list: Vec<String> = counters.iter().map(|(name, count)| format!("{name} {count}")).collect();
            rows.push((title, list.join(", ")));
        }
    }
    out.push_str(&text::fields(style, &rows));
    if !peers.is_empty() {
        out.push('\n');
        out.push_str(&peer_table(peers));
    }
    out
}

/// A node's name with the first digits of its identity, which a stranger does not get to see.
pub(super) fn named(style: Style, name: &str, id: &str) -> String {
    if id.is_empty() { name.to_owned() } else { format!("{name} {}", style.dim(&format!("({})", text::short(id)))) }
}

fn device(device: &DeviceStatus) -> String {
    device.name.as_ref().map_or_else(|| "none".to_owned(), |name| format!("{name}, MTU {}", device.mtu))
}

/// Why the ledger stands still, and what to do about it.
pub(super) fn halt_notice(style: Style, ledger: &LedgerStatus) -> Option<String> {
    let reason = style.bad(&text::clean(ledger.halted.as_ref()?));
    Some(format!("{reason} (tunnels stay; mend the cause, then restart the daemon)"))
}

/// The ledger in one line.
pub(super) fn describe_ledger(ledger: &LedgerStatus) -> String {
    let validators = u64::from(ledger.validators);
    let role = match ledger.role {
        LedgerRole::Validator if validators == 1 => "the only validator".to_owned(),
        LedgerRole::Validator => format!("one of {validators} validators"),
        LedgerRole::Full => text::counted(validators, "validator", "validators"),
    };
    let finality = if ledger.is_final { "final" } else { "not final" };
    let mut line = format!("height {}, {finality}, {role}", ledger.height);
    match ledger.age_seconds {
        Some(age) => line.push_str(&format!(", proved fresh {} ago", text::span(age))),
        None => line.push_str(", not proved fresh yet"),
    }
    if ledger.pending > 0 {
        line.push_str(&format!(", {} pending", ledger.pending));
    }
    if ledger.epoch > 0 {
        line.push_str(&format!(", epoch {}", ledger.epoch));
    }
    line
}

pub(super) fn peers(scope: &Scope, output: &Output) -> CommandResult {
    let answer: Answer<Vec<Peer>> = scope.client()?.ask(&Request::Peers, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |peers| {
        if peers.is_empty() { "no other member is known\n".to_owned() } else { peer_table(peers) }
    });
    Ok(Done::Well)
}

fn peer_table(peers: &[Peer]) -> String {
    let columns = [
        ("PEER", 0),
        ("ADDRESS", 2),
        ("STATE", 5),
        ("SEEN", 1),
        ("PATH", 0),
        ("RTT", 0),
        ("CIPHER", 6),
        ("SENT", 3),
        ("RECEIVED", 4),
    ];
    let dash = || "-".to_owned();
    let rows = peers.iter().map(|peer| {
        vec![
            peer.name.clone(),
            peer.addresses.first().map_or_else(dash, ToString::to_string),
            text::authorization(peer.authorization).to_owned(),
            peer.seen_seconds.map_or_else(|| "never".to_owned(), |age| format!("{} ago", text::span(age))),
            text::path(&peer.path),
            peer.rtt_ms.map_or_else(dash, text::millis),
            peer.session.as_ref().map_or_else(dash, |session| {
                let hybrid = if session.post_quantum { " + ML-KEM" } else { "" };
                format!("{}{hybrid}", session.cipher)
            }),
            text::bytes(peer.tx_bytes),
            text::bytes(peer.rx_bytes),
        ]
    });
    text::table(&columns, rows)
}

/// Sends the probes one by one, so that each line appears when its answer does.
pub(super) fn ping(scope: &Scope, output: &Output, args: &PingArgs) -> CommandResult {
    let client = scope.client()?;
    let mut report = PingReport { peer: args.peer.clone(), replies: Vec::new(), sent: 0, received: 0 };
    for seq in 1..=args.count {
        let started = Instant::now();
        let request = Request::Ping(Ping { peer: args.peer.clone(), count: 1 });
        match client.ask::<PingReport>(&request, PROBE_PATIENCE) {
            Ok(answer) => {
                report.peer = answer.data.peer;
                report.replies.extend(answer.data.replies.into_iter().map(|mut reply| {
                    reply.seq = seq;
                    reply
                }));
            }
            Err(failure) if matches!(failure.code, ErrorCode::Unreachable | ErrorCode::Timeout) => {}
            Err(failure) => return Err(failure.into()),
        }
        report.sent = seq;
        let reply = report.replies.last().filter(|reply| reply.seq == seq);
        let line = match reply {
            Some(reply) => format!("{seq}: {} by {}", text::millis(reply.rtt_ms), text::path(&reply.path)),
            None => format!("{seq}: no answer"),
        };
        if !output.is_json() {
            output.answer(&(), &[], |()| format!("{} {line}", report.peer));
        }
        let is_enough = args.until_direct && reply.is_some_and(|reply| reply.path.kind == PathKind::Direct);
        if is_enough || !output.is_read() {
            break;
        }
        if seq < args.count {
            std::thread::sleep(SECOND.saturating_sub(started.elapsed()));
        }
    }
    report.received = u32::try_from(report.replies.len()).unwrap_or(u32::MAX);
    output.answer(&report, &[], summary);
    let is_direct = report.replies.last().is_some_and(|reply| reply.path.kind == PathKind::Direct);
    if report.received == 0 || (args.until_direct && !is_direct) {
        return Ok(Done::Badly(ErrorCode::Unreachable));
    }
    Ok(Done::Well)
}

fn summary(report: &PingReport) -> String {
    let mut line = format!("{} sent, {} answered", report.sent, report.received);
    let times = || report.replies.iter().map(|reply| reply.rtt_ms);
    if report.received > 1 {
        let mean = times().sum::<f64>() / f64::from(report.received);
        let (least, most) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
        line.push_str(&format!(": {} to {}, mean {}", text::millis(least), text::millis(most), text::millis(mean)));
    }
    line
}

pub(super) fn ip(scope: &Scope, output: &Output, args: IpArgs) -> CommandResult {
    let request = Request::Ip(Ip { peer: args.peer });
    let answer: Answer<Addresses> = scope.client()?.ask(&request, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |data| {
        data.addresses.iter().map(|address| format!("{address}\n")).collect()
    });
    Ok(Done::Well)
}

pub(super) fn whois(scope: &Scope, output: &Output, args: WhoisArgs) -> CommandResult {
    let request = Request::Whois(Whois { what: args.what });
    let answer: Answer<Member> = scope.client()?.ask(&request, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |member| {
        let admitted = match (member.admitted_height, &member.admitted_by) {
            (Some(height), Some(author)) => format!("at height {height} by {}", text::clean(author)),
            (Some(height), None) => format!("at height {height}"),
            (None, _) => "-".to_owned(),
        };
        let rows = [
            ("id", member.id.clone()),
            ("state", text::authorization(member.authorization).to_owned()),
            ("addresses", text::list(&member.addresses)),
            ("tags", text::list(&member.tags)),
            ("admitted", admitted),
        ];
        format!("{}\n{}", output.style.bold(&member.name), text::fields(output.style, &rows))
    });
    Ok(Done::Well)
}

/// Waits for the condition, and before that for the network, the daemon and the name that it is about.
pub(super) fn wait(scope: &Scope, output: &Output, args: &WaitArgs) -> CommandResult {
    let deadline = Instant::now() + args.timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A user who may not look into the state folder waits for a socket to appear.
        let client = scope.client().map_err(|failure| match failure.code {
            ErrorCode::Permission => Failure { code: ErrorCode::NotFound, ..failure },
            _ => failure,
        });
        let attempt = client.and_then(|client| wait_once(&client, &args.condition, left));
        match attempt {
            Ok(answer) => {
                output.answer(&answer.data, &answer.warnings, |waited| waited.condition.clone());
                return Ok(Done::Well);
            }
            Err(failure) if is_worth_waiting(failure.code) && left > Duration::ZERO => {
                std::thread::sleep(WAIT_RETRY.min(left));
            }
            Err(failure) if is_worth_waiting(failure.code) => return Err(timed_out(args, &failure).into()),
            Err(failure) => return Err(failure.into()),
        }
    }
}

fn wait_once(client: &Client, condition: &Condition, left: Duration) -> Result<Answer<Waited>, Failure> {
    let request = Request::Wait(Wait { condition: condition.clone(), timeout_seconds: left.as_secs_f64() });
    client.ask(&request, left + GRACE)
}

/// Says whether time can mend this cause. A refused or revoked node stays so, and a missing right as well.
fn is_worth_waiting(code: ErrorCode) -> bool {
    match code {
        ErrorCode::NotRunning
        | ErrorCode::NotFound
        | ErrorCode::Pending
        | ErrorCode::Unreachable
        | ErrorCode::Timeout
        | ErrorCode::Stale
        | ErrorCode::NotFinal => true,
        ErrorCode::Usage
        | ErrorCode::Permission
        | ErrorCode::NotAuthorized
        | ErrorCode::Refused
        | ErrorCode::Revoked
        | ErrorCode::Conflict
        | ErrorCode::CheckFailed
        | ErrorCode::Failed => false,
    }
}

fn timed_out(args: &WaitArgs, last: &Failure) -> Failure {
    let waited = format!("{} did not hold within {} s", args.condition, args.timeout.as_secs_f64());
    Failure { code: ErrorCode::Timeout, message: format!("{waited}: {}", last.message), hint: last.hint.clone() }
}
