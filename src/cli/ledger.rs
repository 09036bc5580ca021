//! The verbs about the ledger: status, log, show, verify.

use super::args::{FinalityArgs, LogArgs, ShowArgs};
use super::client::{Answer, PATIENCE};
use super::look::{describe_ledger, halt_notice};
use super::members::submit;
use super::output::{Output, Style};
use super::scope::Scope;
use super::{CommandResult, Done, text};
use crate::daemon::api::request::{LedgerLog, LedgerShow, LedgerUpgrade, Request};
use crate::daemon::api::types::{BlockView, LedgerItem, LedgerStatus, LogEntry, TransactionView, VerifyReport};
use crate::daemon::failure::ErrorCode;
use crate::daemon::setup;
use std::time::Duration;

/// How long going through the whole chain may take: a ledger of many years.
const CHAIN_PATIENCE: Duration = Duration::from_hours(1);

pub(super) fn status(scope: &Scope, output: &Output) -> CommandResult {
    let answer: Answer<LedgerStatus> = scope.client()?.ask(&Request::LedgerStatus, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |ledger| {
        let halted = halt_notice(output.style, ledger).map(|notice| format!("halted: {notice}\n"));
        format!("{}\nhead {}\n{}", describe_ledger(ledger), ledger.hash, halted.unwrap_or_default())
    });
    Ok(Done::Well)
}

pub(super) fn log(scope: &Scope, output: &Output, args: LogArgs) -> CommandResult {
    show_log(scope, output, LedgerLog { peer: args.peer, since: args.since }, |_| true)
}

/// Shows what happened, as far as it is of interest.
pub(super) fn log_of(scope: &Scope, output: &Output, is_meant: impl Fn(&LogEntry) -> bool) -> CommandResult {
    show_log(scope, output, LedgerLog::default(), is_meant)
}

fn show_log(
    scope: &Scope,
    output: &Output,
    question: LedgerLog,
    is_meant: impl Fn(&LogEntry) -> bool,
) -> CommandResult {
    let mut answer: Answer<Vec<LogEntry>> = scope.client()?.ask(&Request::LedgerLog(question), CHAIN_PATIENCE)?;
    answer.data.retain(is_meant);
    output.answer(&answer.data, &answer.warnings, |entries| {
        if entries.is_empty() { "nothing happened there\n".to_owned() } else { log_table(entries) }
    });
    Ok(Done::Well)
}

/// `ledger upgrade`.
pub(super) fn upgrade(scope: &Scope, output: &Output, finality: &FinalityArgs) -> CommandResult {
    let request = Request::LedgerUpgrade(LedgerUpgrade { finality: finality.finality() });
    submit(scope, output, &request, finality, ["raised", "raising"], "the network's protocol version")
}

fn log_table(entries: &[LogEntry]) -> String {
    let rows = entries.iter().map(|entry| {
        vec![
            if entry.time_ms == 0 { "-".to_owned() } else { entry.height.to_string() },
            if entry.time_ms == 0 { "-".to_owned() } else { text::date(entry.time_ms / 1000) },
            text::clean(&entry.author),
            text::clean(&entry.op),
            about(entry),
            text::clean(&entry.detail),
            text::short(&entry.tx),
        ]
    });
    let columns =
        [("HEIGHT", 0), ("TIME (UTC)", 2), ("AUTHOR", 1), ("OPERATION", 0), ("ABOUT", 0), ("DETAIL", 0), ("TX", 3)];
    text::table(&columns, rows)
}

/// Whom an operation is about: a name, else the first digits of an identity or a credential.
fn about(entry: &LogEntry) -> String {
    let digits =
        || entry.subject.as_deref().map_or_else(|| "-".to_owned(), |subject| text::short(&text::clean(subject)));
    entry.subject_name.as_deref().map_or_else(digits, text::clean)
}

pub(super) fn show(scope: &Scope, output: &Output, args: ShowArgs) -> CommandResult {
    let request = Request::LedgerShow(LedgerShow { what: args.what });
    let answer: Answer<LedgerItem> = scope.client()?.ask(&request, CHAIN_PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |item| match item {
        LedgerItem::Block(block) => block_text(output.style, block),
        LedgerItem::Transaction(transaction) => transaction_text(output.style, transaction),
    });
    Ok(Done::Well)
}

fn block_text(style: Style, block: &BlockView) -> String {
    let rows = [
        ("hash", block.hash.clone()),
        ("parent", block.parent.clone()),
        ("state root", block.state_root.clone()),
        ("time", format!("{} UTC", text::date(block.time_ms / 1000))),
        ("epoch", block.epoch.to_string()),
        ("proposer", text::clean(&block.proposer)),
        (
            "signed by",
            format!("{} of {}", block.signatures, text::counted(block.validators.into(), "validator", "validators")),
        ),
    ];
    let title = style.bold(&format!("block {}", block.height));
    with_entries(format!("{title}\n{}", text::fields(style, &rows)), &block.entries)
}

fn transaction_text(style: Style, transaction: &TransactionView) -> String {
    let height =
        transaction.height.map_or_else(|| "not final yet".to_owned(), |height| format!("final at height {height}"));
    let rows = [
        ("state", height),
        ("author", text::clean(&transaction.author)),
        ("sequence", transaction.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string())),
        ("signed by", text::list(&transaction.witnesses)),
    ];
    let title = style.bold(&format!("transaction {}", transaction.tx));
    with_entries(format!("{title}\n{}", text::fields(style, &rows)), &transaction.entries)
}

fn with_entries(head: String, entries: &[LogEntry]) -> String {
    if entries.is_empty() { head } else { format!("{head}\n{}", log_table(entries)) }
}

/// Asks the daemon, which holds the ledger open; without one, reads the files.
pub(super) fn verify(scope: &Scope, output: &Output) -> CommandResult {
    let client = scope.client()?;
    let answer = match client.ask::<VerifyReport>(&Request::LedgerVerify, CHAIN_PATIENCE) {
        Err(failure) if failure.code == ErrorCode::NotRunning => {
            Answer { data: setup::verify_ledger(&client.paths)?, warnings: Vec::new() }
        }
        answer => answer?,
    };
    output.answer(&answer.data, &answer.warnings, verdict);
    Ok(if answer.data.bad.is_some() { Done::Badly(ErrorCode::CheckFailed) } else { Done::Well })
}

fn verdict(report: &VerifyReport) -> String {
    let blocks = text::counted(report.blocks, "block", "blocks");
    let from = if report.from == 0 { "genesis".to_owned() } else { format!("{}, the oldest block held,", report.from) };
    match &report.bad {
        None => format!("the ledger holds: {blocks} from {from} to height {}", report.to),
        Some(bad) => format!(
            "the ledger is broken at height {}: {}\n{blocks} from {from} hold before it",
            bad.height,
            text::clean(&bad.reason)
        ),
    }
}
