//! What a person types and reads: arguments in, calls to the daemon or the host, text or JSON out, and an exit code.

mod args;
mod client;
mod config;
mod ledger;
mod life;
mod look;
mod members;
mod names;
mod output;
mod policy;
mod reach;
mod relays;
mod routes;
mod scope;
mod segments;
mod service;
mod text;

use crate::daemon::api::API_VERSION;
use crate::daemon::api::policy::Verdict;
use crate::daemon::api::types::ErrorEnvelope;
use crate::daemon::config::ConfigError;
use crate::daemon::failure::{ErrorCode, Failure};
use args::{
    BridgeVerb, Cli, Command, ConfigVerb, ExitVerb, InvitesVerb, LedgerVerb, PolicyVerb, SegmentVerb, ServiceVerb,
};
use clap::{CommandFactory, Parser};
use output::Output;
use scope::Scope;
use std::process::ExitCode;

/// Why a command did not do what it was asked.
enum CommandError {
    /// The daemon, the host or the command itself says no.
    Failure(Failure),
    /// The configuration file is wrong at some place.
    Config(Box<ConfigError>),
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Box<ConfigError>> for CommandError {
    fn from(error: Box<ConfigError>) -> Self {
        Self::Config(error)
    }
}

/// What a command that could be carried out ends with.
type CommandResult = Result<Done, CommandError>;

/// The end of a command.
enum Done {
    /// Exit code 0.
    Well,
    /// It did its work, and what it found is bad news: the exit code of this cause. The news is printed already.
    Badly(ErrorCode),
}

/// Runs one command line: parses it, does it, prints, and returns the process's exit code.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse_from(policy::spell_taken_tags(std::env::args_os().collect())) {
        Ok(cli) => cli,
        Err(error) => return usage_error(&error),
    };
    let output = Output::new(cli.global.json);
    let outcome = dispatch(cli, &output).and_then(|done| output.delivered().map(|()| done).map_err(CommandError::from));
    let code = match outcome {
        Ok(Done::Well) => 0,
        Ok(Done::Badly(code)) => code.exit_code(),
        Err(error) => report(&output, &error),
    };
    ExitCode::from(code)
}

fn dispatch(cli: Cli, output: &Output) -> CommandResult {
    let scope = Scope::new(&cli.global);
    match cli.command {
        Command::Init(args) => life::init(&scope, output, &args),
        Command::Join(args) => life::join(&scope, output, &args),
        Command::Invite(args) => members::invite(&scope, output, &args),
        Command::Daemon(args) => life::daemon(&scope, &args),
        Command::Up => service::up(&scope, output),
        Command::Down => service::down(&scope, output),
        Command::Networks => life::networks(&scope, output),
        Command::Keys => life::keys(&scope, output),
        Command::Reload => life::reload(&scope, output),
        Command::Leave(args) => life::leave(&scope, output, &args),
        Command::Cleanup => life::cleanup(&scope, output),
        Command::Status(args) => look::status(&scope, output, &args),
        Command::Peers => look::peers(&scope, output),
        Command::Ping(args) => look::ping(&scope, output, &args),
        Command::Ip(args) => look::ip(&scope, output, args),
        Command::Whois(args) => look::whois(&scope, output, args),
        Command::Why(args) => reach::why(&scope, output, &args),
        Command::Netcheck => reach::netcheck(&scope, output),
        Command::Wait(args) => look::wait(&scope, output, &args),
        Command::Members => members::members(&scope, output),
        Command::Revoke(args) => members::revoke(&scope, output, &args),
        Command::Rename(args) => members::rename(&scope, output, &args),
        Command::Authorize(args) => members::authorize(&scope, output, &args),
        Command::Tag(args) => policy::tag(&scope, output, &args),
        Command::Allow(args) => policy::add(&scope, output, Verdict::Allow, &args),
        Command::Deny(args) => policy::add(&scope, output, Verdict::Deny, &args),
        Command::Policy(verb) => match verb {
            PolicyVerb::Show => policy::show(&scope, output),
            PolicyVerb::Rm(args) => policy::remove(&scope, output, &args),
            PolicyVerb::Test(args) => policy::test(&scope, output, &args),
            PolicyVerb::Apply(args) => policy::apply(&scope, output, &args),
            PolicyVerb::History => policy::history(&scope, output),
        },
        Command::Advertise(args) => routes::advertise(&scope, output, &args),
        Command::Unadvertise(args) => routes::unadvertise(&scope, output, &args),
        Command::Requests => routes::requests(&scope, output),
        Command::Approve(args) => routes::approve(&scope, output, &args),
        Command::Refuse(args) => routes::refuse(&scope, output, &args),
        Command::Accept(args) => routes::accept(&scope, output, &args, true),
        Command::Unaccept(args) => routes::accept(&scope, output, &args, false),
        Command::Routes => routes::routes(&scope, output),
        Command::ExitNode(verb) => match verb {
            ExitVerb::List => routes::exits(&scope, output),
            ExitVerb::Use(args) => routes::use_exit(&scope, output, &args),
            ExitVerb::Off => routes::no_exit(&scope, output),
        },
        Command::Relay(command) => relays::relay(&scope, output, command),
        Command::Explain(args) => policy::explain(&scope, output, &args),
        Command::Invites(args) => match args.verb {
            None => members::invites(&scope, output),
            Some(InvitesVerb::Revoke(args)) => members::revoke_invite(&scope, output, &args),
        },
        Command::Name(verb) => names::name(&scope, output, verb),
        Command::Dns(verb) => names::dns(&scope, output, verb),
        Command::Ledger(verb) => match verb {
            LedgerVerb::Status => ledger::status(&scope, output),
            LedgerVerb::Log(args) => ledger::log(&scope, output, args),
            LedgerVerb::Show(args) => ledger::show(&scope, output, args),
            LedgerVerb::Verify => ledger::verify(&scope, output),
            LedgerVerb::Endpoints(args) => relays::endpoints(&scope, output, args),
            LedgerVerb::Upgrade(args) => ledger::upgrade(&scope, output, &args),
        },
        Command::Segment(verb) => match verb {
            SegmentVerb::Add(args) => segments::add(&scope, output, &args),
            SegmentVerb::Rm(args) => segments::remove(&scope, output, &args),
            SegmentVerb::List => segments::list(&scope, output),
        },
        Command::Bridge(verb) => match verb {
            BridgeVerb::Add(args) => segments::bridge(&scope, output, &args),
            BridgeVerb::Rm(args) => segments::unbridge(&scope, output, &args),
            BridgeVerb::List => segments::bridges(&scope, output),
            BridgeVerb::Approve(args) => segments::judge(&scope, output, &args, true),
            BridgeVerb::Revoke(args) => segments::judge(&scope, output, &args, false),
        },
        Command::Config(verb) => match verb {
            ConfigVerb::Check => config::check(&scope, output),
            ConfigVerb::Show => config::show(&scope, output),
        },
        Command::Service(verb) => match verb {
            ServiceVerb::Install => service::install(output),
            ServiceVerb::Uninstall => service::uninstall(&scope, output),
        },
        Command::Completion(args) => life::completion(output, &args),
        Command::Version => life::version(output),
    }
}

/// Prints a failure on standard error, as JSON where that was asked for, and returns its exit code.
fn report(output: &Output, error: &CommandError) -> u8 {
    match error {
        CommandError::Failure(failure) => {
            output.failure(failure);
            failure.code.exit_code()
        }
        CommandError::Config(error) => {
            output.config_error(error);
            ErrorCode::Usage.exit_code()
        }
    }
}

/// Prints clap's own text, or the documented JSON when `--json` is among the arguments.
fn usage_error(error: &clap::Error) -> ExitCode {
    let is_failure = error.use_stderr();
    let wants_json = std::env::args_os().any(|arg| arg == "--json");
    if wants_json && is_failure {
        let failure =
            Failure::new(ErrorCode::Usage, what_is_wrong(&error.render().to_string())).hint("try `p2plus --help`");
        output::print_error_json(&ErrorEnvelope { api: API_VERSION, error: failure });
    } else if error.print().is_err_and(|error| error.kind() != std::io::ErrorKind::BrokenPipe) && !is_failure {
        return ExitCode::FAILURE;
    }
    ExitCode::from(if is_failure { ErrorCode::Usage.exit_code() } else { 0 })
}

/// The complaint of clap's text on one line: all of it before the usage.
fn what_is_wrong(text: &str) -> String {
    let lines =
        text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    words.join(" ").trim_start_matches("error: ").to_owned()
}

/// The command line's grammar, for shell completions.
fn grammar() -> clap::Command {
    Cli::command()
}
