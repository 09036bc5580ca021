//! What commands ask of the host and of the parts that keep keys and ledger, as typed calls.
//!
//! The commands know what was typed and how to print what came of it; these functions do the work. Nothing is printed and nothing is asked here.

use super::api::socket::ApiSocket;
use super::config::{Config, DeviceName};
use super::failure::Failure;
use super::files::NodeFiles;
use super::logging::LogHandle;
use super::paths::Paths;
use super::views::verify_all;
use super::{files, founding, run};
use crate::crypto::hash::Digest;
use crate::crypto::identity::NodeId;
use crate::daemon::api::types::{PublicKeys, VerifyReport};
use crate::io::clock;
use crate::io::keystore::StateFolder;
use crate::wire::name::{NetworkName, NodeName};
use crate::wire::ticket::Ticket;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use zeroize::Zeroizing;

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
    /// The configuration with the flags already in it: `underlay.listen` holds `--listen`.
    pub config: Config,
    /// The interface.
    pub device: DeviceChoice,
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
/// Not found, conflict when the daemon runs, permission, or failed with the cause.
pub fn leave(paths: &Paths) -> Result<LeaveReport, Failure> {
    NodeFiles::open(paths)?.remove()?;
    Ok(LeaveReport { network: paths.network.clone() })
}

/// Undoes what a killed daemon left on the host.
///
/// # Errors
/// Conflict when the daemon runs, permission, or failed with the cause.
pub fn cleanup(paths: &Paths) -> Result<CleanupReport, Failure> {
    // Interface, addresses and routes go with the process; what stays is the socket of a daemon that was killed.
    let socket = paths.socket();
    let was_left = socket.exists();
    drop(ApiSocket::bind(paths)?);
    Ok(CleanupReport {
        undone: was_left.then(|| format!("removed the socket {}", socket.display())).into_iter().collect(),
    })
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

/// A range of IPv4 addresses for members, written as a CIDR prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4Pool {
    /// The first address, without bits behind the prefix.
    pub network: Ipv4Addr,
    /// The length of the prefix, 8 to 29.
    pub prefix_len: u8,
}

/// Why a text is no pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPool {
    /// Not `a.b.c.d/n`.
    #[error("a pool is written as a prefix, for example 10.99.0.0/24")]
    NotAPrefix,
    /// Too few or too many addresses.
    #[error("a pool has a prefix length from 8 to 29")]
    BadLength,
    /// Bits behind the prefix are set.
    #[error("the address has bits behind the prefix: did you mean {0}?")]
    HostBits(Ipv4Pool),
    /// Loopback, link-local, multicast, reserved or unspecified.
    #[error("hosts cannot have addresses of this range")]
    NotUnicast,
}

impl fmt::Display for Ipv4Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

impl FromStr for Ipv4Pool {
    type Err = BadPool;

    fn from_str(text: &str) -> Result<Self, BadPool> {
        let (address, prefix_len) = text.split_once('/').ok_or(BadPool::NotAPrefix)?;
        let address: Ipv4Addr = address.parse().map_err(|_| BadPool::NotAPrefix)?;
        let prefix_len: u8 = prefix_len.parse().map_err(|_| BadPool::NotAPrefix)?;
        if !(8..=29).contains(&prefix_len) {
            return Err(BadPool::BadLength);
        }
        let mask = u32::MAX << (32 - u32::from(prefix_len));
        let network = Ipv4Addr::from(u32::from(address) & mask);
        if network != address {
            return Err(BadPool::HostBits(Self { network, prefix_len }));
        }
        let first = network.octets()[0];
        if first == 0 || first == 127 || first >= 224 || network.is_link_local() {
            return Err(BadPool::NotUnicast);
        }
        Ok(Self { network, prefix_len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_a_unicast_prefix_without_host_bits() {
        let pool: Ipv4Pool = "10.99.0.0/24".parse().unwrap();
        assert_eq!(pool, Ipv4Pool { network: Ipv4Addr::new(10, 99, 0, 0), prefix_len: 24 });
        for (text, error) in [
            ("10.99.0.0", BadPool::NotAPrefix),
            ("10.99.0.0/x", BadPool::NotAPrefix),
            ("10.99.0.0/30", BadPool::BadLength),
            ("10.0.0.0/7", BadPool::BadLength),
            ("10.99.0.1/24", BadPool::HostBits(pool)),
            ("127.0.0.0/8", BadPool::NotUnicast),
            ("224.0.0.0/8", BadPool::NotUnicast),
            ("169.254.0.0/16", BadPool::NotUnicast),
            ("0.0.0.0/8", BadPool::NotUnicast),
        ] {
            assert_eq!(text.parse::<Ipv4Pool>(), Err(error), "{text}");
        }
    }
}
