//! The grammar of the command line. What was typed is parsed into its meaning here, by the types of its values.

mod behind;
mod names;
mod reach;
mod relays;
mod rights;
mod segments;

pub(super) use behind::*;
pub(super) use names::*;
pub(super) use reach::*;
pub(super) use relays::*;
pub(super) use rights::*;
pub(super) use segments::*;

use crate::daemon::api::request::{Condition, Finality};
use crate::daemon::config::{DeviceName, LogLevel};
use crate::daemon::duration::Span;
use crate::daemon::paths::{DEFAULT_RUN_DIR, DEFAULT_STATE_DIR};
use crate::daemon::setup::Ipv4Pool;
use crate::daemon::{LONG_VERSION, VERSION};
use crate::wire::name::{NetworkName, NodeName};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const START: &str = "\
First steps:
  p2plus init lab           found a network on this machine
  p2plus invite             print a ticket for the next node
  p2plus join TICKET        on that node
  p2plus status             see who is there, and how they are reached

Exit codes:
  0 done        3 daemon not running  6 not authorized or pending   9 ledger stale or not final
  1 failed      4 permission          7 unreachable or timed out   10 a check found problems
  2 usage       5 not found           8 conflict";

/// A mesh VPN without a coordination server: a signed ledger that every member holds says who belongs.
#[derive(Parser)]
#[command(name = "p2plus", version = VERSION, long_version = LONG_VERSION, after_help = START, max_term_width = 110, disable_help_subcommand = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options that every command takes.
#[derive(Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// The network [default: the only one on this machine]
    #[arg(short, long, global = true, value_name = "NET")]
    pub(super) network: Option<NetworkName>,
    /// Keys and ledgers, one folder per network
    #[arg(long, global = true, value_name = "DIR", env = "P2PLUS_STATE_DIR", default_value = DEFAULT_STATE_DIR, hide_env_values = true)]
    pub(super) state_dir: PathBuf,
    /// Control sockets, one per network
    #[arg(long, global = true, value_name = "DIR", env = "P2PLUS_RUN_DIR", default_value = DEFAULT_RUN_DIR, hide_env_values = true)]
    pub(super) run_dir: PathBuf,
    /// The configuration file [default: /etc/p2plus/NET.toml, where it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// How much the daemon logs
    #[arg(long, global = true, value_name = "LEVEL", value_parser = levels())]
    pub(super) log_level: Option<LogLevel>,
    /// Log more: -v is debug, -vv is trace
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "log_level")]
    pub(super) verbose: u8,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Found a network, with this node as its first member and validator
    Init(InitArgs),
    /// Make a ticket that lets a node join
    Invite(InviteArgs),
    /// Join a network with a ticket
    Join(JoinArgs),
    /// Run a network's daemon in the foreground
    Daemon(DaemonArgs),
    /// Start a network's daemon as a service, also at boot
    Up,
    /// Stop a network's service
    Down,
    /// List the networks on this machine
    Networks,
    /// Show this node, its network and its peers
    Status(StatusArgs),
    /// Show the other members and the ways to them
    Peers,
    /// Send probes to a peer through the overlay
    Ping(PingArgs),
    /// Show this node's overlay addresses, or a peer's
    Ip(IpArgs),
    /// Show the member behind an address, a name or an identity
    Whois(WhoisArgs),
    /// Say why a peer is reached as it is, what was tried, and what would help
    Why(WhyArgs),
    /// Say how this node is placed: its NAT, who reaches it, its relays
    Netcheck,
    /// Wait until something holds
    Wait(WaitArgs),
    /// List everybody whom the ledger knows
    Members,
    /// Cut a member off, at once and everywhere
    Revoke(RevokeArgs),
    /// Give a member another name
    Rename(RenameArgs),
    /// Admit a node by its public keys, which `p2plus keys` prints there
    Authorize(AuthorizeArgs),
    /// List the invites that can still admit, or end one
    Invites(InvitesArgs),
    /// Give a member tags, or take some from it
    Tag(TagArgs),
    /// Let some members reach others, at once and everywhere
    Allow(RuleArgs),
    /// Keep some members from others; comes before everything that is allowed
    Deny(RuleArgs),
    /// Look at the rules about who may reach whom, or change them
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// Say whether one member may reach another, and who decided that
    Explain(ExplainArgs),
    /// Put a subnet behind this node, or make it an exit: others reach it once they accept it
    Advertise(AdvertiseArgs),
    /// Take a subnet from behind this node, or end it as an exit
    Unadvertise(UnadvertiseArgs),
    /// List what members ask signers for
    Requests,
    /// Give a member what it asks for
    Approve(AnswerArgs),
    /// Refuse it
    Refuse(AnswerArgs),
    /// Send to subnets behind other members
    Accept(AcceptArgs),
    /// Send to them no more
    Unaccept(AcceptArgs),
    /// List the subnets behind members, and who is used for them
    Routes,
    /// Send by a member what is for nobody in the overlay
    #[command(subcommand)]
    ExitNode(ExitVerb),
    /// Be a relay that everybody finds, or none any more
    #[command(subcommand)]
    Relay(RelayCommand),
    /// Name services and hosts of the network
    #[command(subcommand)]
    Name(NameVerb),
    /// Look at the resolver of the network's names
    #[command(subcommand)]
    Dns(DnsVerb),
    /// Let members share an Ethernet, or end that
    #[command(subcommand)]
    Segment(SegmentVerb),
    /// Bridge a network of this host into a segment, or end that
    #[command(subcommand)]
    Bridge(BridgeVerb),
    /// Look into the ledger
    #[command(subcommand)]
    Ledger(LedgerVerb),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Print this node's public keys, by which a signer can admit it
    Keys,
    /// Make a running daemon read its configuration again
    Reload,
    /// Leave a network: delete this node's keys and ledger of it
    Leave(LeaveArgs),
    /// Undo what a killed daemon left on this machine
    Cleanup,
    /// Install or remove the system service
    #[command(subcommand)]
    Service(ServiceVerb),
    /// Print completions for a shell
    Completion(CompletionArgs),
    /// Print the version
    Version,
}

#[derive(Args)]
pub(super) struct InitArgs {
    /// The network's name: lower-case letters, digits and hyphens, at most 32
    pub(super) net: NetworkName,
    /// This node's name [default: the host's name]
    #[arg(long, value_name = "NODE")]
    pub(super) name: Option<NodeName>,
    /// The pool of IPv4 addresses [default: a /20 of 10.64.0.0/10]
    #[arg(long, value_name = "CIDR")]
    pub(super) ipv4: Option<Ipv4Pool>,
    #[command(flatten)]
    pub(super) begin: BeginArgs,
}

#[derive(Args)]
pub(super) struct JoinArgs {
    /// The ticket; `-` reads it from standard input, out of sight of the process list
    pub(super) ticket: String,
    /// This node's name [default: the ticket's, else the host's]
    #[arg(long, value_name = "NODE")]
    pub(super) name: Option<NodeName>,
    #[command(flatten)]
    pub(super) begin: BeginArgs,
}

#[derive(Args)]
pub(super) struct BeginArgs {
    /// Where the daemon will listen [default: port 4647]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) listen: Vec<SocketAddr>,
    /// Do not start the service
    #[arg(long)]
    pub(super) no_start: bool,
}

#[derive(Args)]
pub(super) struct InviteArgs {
    /// The name of the node that joins; the ticket then works once
    #[arg(long, value_name = "NODE")]
    pub(super) name: Option<NodeName>,
    /// A tag that the node gets; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub(super) tags: Vec<NodeName>,
    /// How many nodes may join with it, at most 10000
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) uses: u32,
    /// How long it lasts: 90s, 15m, 12h, 7d; at most 366d
    #[arg(long, value_name = "DUR", default_value_t = Span(Duration::from_hours(24)))]
    pub(super) expires: Span,
    /// Where this node is reached [default: configured, global and seen addresses]; may be repeated
    #[arg(long = "endpoint", value_name = "IP:PORT")]
    pub(super) endpoints: Vec<SocketAddr>,
    /// Show the ticket as a QR code too (on standard error)
    #[arg(long)]
    pub(super) qr: bool,
    /// Let nobody in by the ticket alone: who joins with it waits for `authorize`
    #[arg(long, conflicts_with_all = ["name", "tags", "uses", "expires"])]
    pub(super) needs_approval: bool,
    #[command(flatten)]
    pub(super) finality: FinalityArgs,
}

#[derive(Args)]
pub(super) struct DaemonArgs {
    /// Where to listen [default: as configured, else as stored, else port 4647]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) listen: Vec<SocketAddr>,
    /// The interface's name [default: p2p-NET]
    #[arg(long, value_name = "NAME", conflicts_with = "no_device")]
    pub(super) device: Option<DeviceName>,
    /// Open no interface: relay and keep the ledger only
    #[arg(long)]
    pub(super) no_device: bool,
    /// Use IPv4 although its addresses overlap a network of this host, which is then out of reach
    #[arg(long)]
    pub(super) force_ipv4: bool,
}

#[derive(Args)]
pub(super) struct LeaveArgs {
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
    /// Also when this node is the only validator, without which the others cannot change their network any more
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Args)]
pub(super) struct CompletionArgs {
    /// The shell
    pub(super) shell: clap_complete::Shell,
}

#[derive(Args)]
pub(super) struct StatusArgs {
    /// Show it again every second
    #[arg(long)]
    pub(super) watch: bool,
}

#[derive(Args)]
pub(super) struct PingArgs {
    /// A name, an overlay address or an identity
    pub(super) peer: String,
    /// How many probes, a second apart
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) count: u32,
    /// Stop at the first answer that came directly
    #[arg(long)]
    pub(super) until_direct: bool,
}

#[derive(Args)]
pub(super) struct IpArgs {
    /// A name or an identity [default: this node]
    pub(super) peer: Option<String>,
}

#[derive(Args)]
pub(super) struct WhoisArgs {
    /// An overlay address, a name or an identity
    pub(super) what: String,
}

#[derive(Args)]
pub(super) struct WaitArgs {
    /// online, synced, peer=NAME, direct=NAME or height=H
    #[arg(long = "for", value_name = "CONDITION")]
    pub(super) condition: Condition,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub(super) timeout: Duration,
}

#[derive(Args)]
pub(super) struct RevokeArgs {
    /// A name, an overlay address or an identity
    pub(super) peer: String,
    /// Why, for the log of this node's daemon
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Also when it is this node itself
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) finality: FinalityArgs,
}

#[derive(Args)]
pub(super) struct RenameArgs {
    /// A name, an overlay address or an identity
    pub(super) peer: String,
    /// The name to be
    pub(super) name: NodeName,
    #[command(flatten)]
    pub(super) finality: FinalityArgs,
}

#[derive(Args)]
pub(super) struct AuthorizeArgs {
    /// The node's identity, 64 hexadecimal digits
    #[arg(value_parser = parse_key)]
    pub(super) id: String,
    /// The node's name
    #[arg(long, value_name = "NODE")]
    pub(super) name: Option<NodeName>,
    /// A tag that the node gets; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub(super) tags: Vec<NodeName>,
    /// The key that signs its node records [default: the one that it had as a member before]
    #[arg(long, value_name = "HEX", value_parser = parse_key)]
    pub(super) node_key: Option<String>,
    /// The key of its handshakes [default: likewise]
    #[arg(long, value_name = "HEX", value_parser = parse_key)]
    pub(super) transport_key: Option<String>,
    #[command(flatten)]
    pub(super) finality: FinalityArgs,
}

#[derive(Args)]
pub(super) struct InvitesArgs {
    #[command(subcommand)]
    pub(super) verb: Option<InvitesVerb>,
}

#[derive(Subcommand)]
pub(super) enum InvitesVerb {
    /// End an invite
    Revoke(RevokeInviteArgs),
}

#[derive(Args)]
pub(super) struct RevokeInviteArgs {
    /// The invite's id, or its first digits
    #[arg(value_name = "ID")]
    pub(super) credential: String,
    #[command(flatten)]
    pub(super) finality: FinalityArgs,
}

#[derive(Subcommand)]
pub(super) enum LedgerVerb {
    /// Show the ledger at a glance
    Status,
    /// List what happened
    Log(LogArgs),
    /// Show one block or transaction
    Show(ShowArgs),
    /// Check the ledger from the beginning
    Verify,
    /// Say where this node, a validator, stays: others find it before they know anybody
    Endpoints(EndpointsArgs),
    /// Let blocks hold what this version of p2plus knows; members with an older one keep their tunnels, and no more
    Upgrade(FinalityArgs),
}

#[derive(Args)]
pub(super) struct LogArgs {
    /// Only what this member did, or what was done to it
    #[arg(long, value_name = "P")]
    pub(super) peer: Option<String>,
    /// Only from this height on
    #[arg(long, value_name = "H")]
    pub(super) since: Option<u64>,
}

#[derive(Args)]
pub(super) struct ShowArgs {
    /// A height, or a transaction's id or its first digits
    #[arg(value_name = "TX|HEIGHT")]
    pub(super) what: String,
}

#[derive(Subcommand)]
pub(super) enum ConfigVerb {
    /// Read the configuration as the daemon would, and say what is wrong with it
    Check,
    /// Print every key with its value
    Show,
}

#[derive(Subcommand)]
pub(super) enum ServiceVerb {
    /// Install the systemd unit p2plus@.service, one instance per network
    Install,
    /// Stop all networks and remove the unit
    Uninstall,
}

/// Options of every command that makes a transaction.
#[derive(Args)]
pub(super) struct FinalityArgs {
    /// Do not wait until the transaction is final
    #[arg(long)]
    pub(super) no_wait: bool,
    /// How long to wait for it
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub(super) timeout: Duration,
}

impl FinalityArgs {
    /// What the daemon is told.
    pub(super) fn finality(&self) -> Finality {
        Finality { wait: !self.no_wait, timeout_seconds: self.timeout.as_secs_f64() }
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, for example 30 or 0.5".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(span) if seconds <= 86_400.0 => Ok(span),
        _ => Err("a number of seconds from 0 to 86400".to_owned()),
    }
}

/// The levels, by the names that the configuration gives them.
fn levels() -> impl TypedValueParser<Value = LogLevel> {
    const LEVELS: [LogLevel; 5] = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    PossibleValuesParser::new(LEVELS.map(|level| PossibleValue::new(level.name()))).map(|text| {
        let named = LEVELS.into_iter().find(|level| level.name() == text);
        named.expect("the parser lets the names of the levels pass alone")
    })
}

fn parse_key(text: &str) -> Result<String, String> {
    let is_key = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_key { Ok(text.to_ascii_lowercase()) } else { Err("a key is 64 hexadecimal digits".to_owned()) }
}
