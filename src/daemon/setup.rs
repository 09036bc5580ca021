//! What commands ask of the host and of the parts that keep keys and ledger, as typed calls.
//!
//! The commands know what was typed and how to print what came of it; these functions do the work. Nothing is printed and nothing is asked here.

use super::api::socket::ApiSocket;
use super::config::{Config, DeviceName};
use super::failure::{ErrorCode, Failure};
use super::files::NodeFiles;
use super::logging::LogHandle;
use super::paths::Paths;
use super::views::verify_all;
use super::{files, founding, run};
use crate::crypto::hash::Digest;
use crate::crypto::identity::NodeId;
use crate::daemon::api::types::{PublicKeys, VerifyReport};
use crate::io::clock;
use crate::io::device::default_interface_name;
use crate::io::host::undo_leftovers;
use crate::io::host_dns::clear_leftovers;
use crate::io::keystore::StateFolder;
use crate::wire::name::{NetworkName, NodeName};
use crate::wire::ticket::Ticket;
use std::net::{IpAddr, SocketAddr};
use zeroize::Zeroizing;

pub use crate::ledger::address::Ipv4Pool;

/// What `init` is asked for.
pub struct InitArgs {
    /// Where the network will live; its state folder must not hold one yet.
    pub paths: Paths,
    /// The configuration that will apply.
    pub config: Config,
    /// The founder's node name.
    pub node_name: NodeName,
    /// The pool of IPv4 addresses; `None` chooses one from the network id.
    pub ipv4: Option<Ipv4Pool>,
    /// Where the daemon will listen, to be stored; empty for the default.
    pub listen: Vec<SocketAddr>,
}

/// What `init` made.
pub struct InitReport {
    /// The network.
    pub network: NetworkName,
    /// The hash of its genesis.
    pub network_id: Digest,
    /// The founder's identity.
    pub node_id: NodeId,
    /// The founder's node name.
    pub node_name: NodeName,
    /// Its overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// The recovery keys as words, shown once and kept nowhere.
    pub recovery_words: Vec<Zeroizing<String>>,
}

/// What `join` is asked for.
pub struct JoinArgs {
    /// Where the network will live.
    pub paths: Paths,
    /// The configuration that will apply.
    pub config: Config,
    /// The invitation.
    pub ticket: Ticket,
    /// The node name that was typed.
    pub node_name: Option<NodeName>,
    /// The name to ask for when neither `node_name` nor the credential has one.
    pub host_name: NodeName,
    /// Where the daemon will listen, to be stored; empty for the default.
    pub listen: Vec<SocketAddr>,
}

/// What `join` prepared.
pub struct JoinReport {
    /// The network.
    pub network: NetworkName,
    /// The hash of its genesis.
    pub network_id: Digest,
    /// The new node's public keys.
    pub keys: PublicKeys,
    /// The ticket lets nobody in: a signer has to admit this node by its keys.
    pub needs_approval: bool,
}

/// What `daemon` is asked for.
pub struct RunArgs {
    /// Where the network lives.
    pub paths: Paths,
    /// The configuration, with nothing of the flags in it but the log level.
    pub config: Config,
    /// Where to listen, by flag; empty for what is configured or stored.
    pub listen: Vec<SocketAddr>,
    /// The interface.
    pub device: DeviceChoice,
    /// IPv4 whatever it covers, by flag.
    pub force_ipv4: bool,
    /// The level was set by a flag, which a reload does not override.
    pub log_level_is_fixed: bool,
    /// Changes the level of the log at a reload.
    pub log: LogHandle,
}

/// Which interface the daemon opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceChoice {
    /// `p2p-NETWORK`, cut to 15 characters.
    Default,
    /// A name that was typed or configured.
    Named(DeviceName),
    /// None at all: a node that only relays and keeps the ledger.
    None,
}

/// What `leave` removed.
pub struct LeaveReport {
    /// The network.
    pub network: NetworkName,
}

/// What `cleanup` undid.
pub struct CleanupReport {
    /// One line for each change to the host that was undone.
    pub undone: Vec<String>,
}

/// Makes identity, genesis, first admin and one validator. Binds nothing.
///
/// # Errors
/// Conflict when the state folder already holds a network, permission, or failed with the cause.
pub fn init(args: &InitArgs) -> Result<InitReport, Failure> {
    founding::found(args)
}

/// Makes this node's keys and keeps the ticket for the daemon, which completes the join. Binds nothing.
///
/// # Errors
/// Conflict when this node is already a member, or the folder belongs to another network; permission; failed with the cause.
pub fn join(args: &JoinArgs) -> Result<JoinReport, Failure> {
    founding::prepare(args)
}

/// Reads this node's public keys, whether or not its daemon runs.
///
/// # Errors
/// Not found, permission, or a key file that cannot be used.
pub fn public_keys(paths: &Paths) -> Result<PublicKeys, Failure> {
    files::public_keys(&StateFolder::open(&paths.roots.state_dir, paths.network.as_str())?)
}

/// Runs the daemon until SIGINT or SIGTERM.
///
/// # Errors
/// Whatever keeps it from starting: not found, conflict (socket, port, device), permission, or failed with the cause.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    run::run(args)
}

/// Deletes this node's keys and ledger of a network whose daemon does not run.
///
/// # Errors
/// Not found, conflict when the daemon runs or others may be left without a validator (unless `force`), permission, or failed with
/// the cause.
pub fn leave(paths: &Paths, force: bool) -> Result<LeaveReport, Failure> {
    let files = NodeFiles::open(paths)?;
    if !force {
        must_leave_a_validator(&files, &paths.network)?;
    }
    undo_leftovers(&paths.network, &paths.journal())?;
    files.remove()?;
    Ok(LeaveReport { network: paths.network.clone() })
}

/// Refuses where others belong to a network that nobody but this node can change, and where a validator's ledger does not say so.
fn must_leave_a_validator(files: &NodeFiles, network: &NetworkName) -> Result<(), Failure> {
    if !files.has_validator_key() {
        return Ok(());
    }
    let ledger = files.open_ledger(None, clock::now().wall).map_err(|failure| unknown_need(network, &failure))?;
    let (policy, id) = (ledger.policy(), files.signing_keys()?.identity.node_id());
    let is_needed =
        policy.has_validator(&id) && policy.validators().count() == 1 && policy.members().any(|member| member.id != id);
    if is_needed { Err(only_validator(network)) } else { Ok(()) }
}

/// Why the only validator of others stays.
pub fn only_validator(network: &NetworkName) -> Failure {
    let message = format!(
        "this node is the only validator of network {network}: without it nobody there can join, be renamed or be revoked any more"
    );
    Failure::new(ErrorCode::Conflict, message)
        .hint("revoke the others first, or repeat with --force; a copy of the state folder can bring it back")
}

/// Why a node stays of which nobody knows whether it is the only validator of others.
pub fn unknown_need(network: &NetworkName, cause: &Failure) -> Failure {
    let message = format!(
        "nothing says whether this node is the only validator of network {network}, which others would need: {}",
        cause.message
    );
    Failure::new(ErrorCode::Conflict, message)
        .hint("repeat with --force if nobody needs it, or if it cannot be repaired")
}

/// Undoes what a killed daemon left on the host.
///
/// # Errors
/// Conflict when the daemon runs, permission, or failed with the cause.
pub fn cleanup(paths: &Paths) -> Result<CleanupReport, Failure> {
    let socket = paths.socket();
    let was_left = socket.exists();
    // Held until the end: no daemon starts meanwhile.
    let _held = ApiSocket::bind(paths)?;
    let mut undone: Vec<_> = was_left.then(|| format!("removed the socket {}", socket.display())).into_iter().collect();
    undone.extend(undo_leftovers(&paths.network, &paths.journal())?);
    for interface in interfaces(paths) {
        undone.extend(clear_leftovers(&interface));
    }
    Ok(CleanupReport { undone })
}

/// The names that the network's interface has here unless a flag gave it another one.
fn interfaces(paths: &Paths) -> Vec<String> {
    let configured = Config::load(&paths.config_file(), false).ok().and_then(|config| config.tunnel.device.0);
    let default = default_interface_name(paths.network.as_str());
    configured.map(|name| name.as_str().to_owned()).into_iter().chain([default]).collect()
}

/// Verifies the stored ledger of a network whose daemon does not run.
///
/// # Errors
/// Not found, conflict when the daemon runs, permission, or failed with the cause; a broken ledger is a report, not an error.
pub fn verify_ledger(paths: &Paths) -> Result<VerifyReport, Failure> {
    let files = NodeFiles::open(paths)?;
    let ledger = files.open_ledger(None, clock::now().wall)?;
    Ok(verify_all(&ledger))
}
