//! What a network's state folder holds besides keys, and how its ledger is opened.
//!
//! ```text
//!   ledger.redb   the chain and its state        ledger.mark     that an older copy of the chain is noticed
//!   consensus.log a validator's votes            ticket          while this node is still joining
//!   listen        addresses given to init, join  name            the node name to ask for
//!   port          a free one, where the default was taken
//!   bridges       interfaces of this host that are in segments
//!   refusal       why the last ticket did not work   memory      handshakes that must not come again, where peers were
//! ```

use super::api::types::PublicKeys;
use super::failure::{ErrorCode, Failure};
use super::paths::Paths;
use super::segments::BridgeOrder;
use super::store;
use crate::crypto::exchange::{TransportKey, TransportSecret};
use crate::crypto::hash::Digest;
use crate::crypto::identity::{NodeId, SigningKey};
use crate::crypto::secret::Secret;
use crate::io::key_file::KeyKind;
use crate::io::keystore::StateFolder;
use crate::io::ledger_files::FileLog;
use crate::io::lock::FileLock;
use crate::ledger::Ledger;
use crate::ledger::chain::Checkpoint;
use crate::ledger::consensus::Timeouts;
use crate::ledger::engine::{OpenError, ValidatorConfig};
use crate::ledger::store::StoreError;
use crate::ledger::{BlockId, Height};
use crate::node::membership::Refusal;
use crate::node::subnets::Accepted;
use crate::node::{SigningKeys, UdpFailure};
use crate::session::LocalKeys;
use crate::time::UnixMillis;
use crate::wire::control::Request;
use crate::wire::handshake::Timestamp;
use crate::wire::ticket::Ticket;
use borsh::{BorshDeserialize, BorshSerialize};
use std::net::SocketAddr;
use std::time::Duration;
use zeroize::Zeroizing;

const LOG_FILE: &str = "consensus.log";
/// The invitation, as text, until this node is a member.
pub const TICKET_FILE: &str = "ticket";
/// Addresses to listen on, one a line.
pub const LISTEN_FILE: &str = "listen";
/// The node name to ask for.
pub const NAME_FILE: &str = "name";
/// The port that was taken in the default one's place.
const PORT_FILE: &str = "port";
const REFUSAL_FILE: &str = "refusal";
const MEMORY_FILE: &str = "memory";
const ACCEPTED_FILE: &str = "accepted";
const REQUESTS_FILE: &str = "requests";
/// Interfaces of this host that are bridged into segments.
const BRIDGES_FILE: &str = "bridges";

/// Longer than any of the small files: 10,000 peers' memory; bytes.
const FILE_MAX: usize = 4 << 20;

/// How long what is to be remembered may wait for more.
pub const MEMORY_DELAY: Duration = Duration::from_secs(2);

/// What a node remembers from one run to the next, apart from its ledger.
#[derive(Default, BorshSerialize, BorshDeserialize)]
pub struct Memory {
    /// The own last initiation: (milliseconds, step).
    pub own_timestamp: (u64, u32),
    /// The last confirmed initiations of others.
    pub timestamps: Vec<(TransportKey, u64, u32)>,
    /// Where members were; this node itself where others reached it unasked.
    pub endpoints: Vec<(NodeId, SocketAddr)>,
    /// When UDP last failed, in milliseconds since 1970, and the host's endpoints then.
    pub udp_failure: Option<(u64, Vec<SocketAddr>)>,
}

/// The state folder of one network, held by one process.
pub struct NodeFiles {
    folder: StateFolder,
    lock: FileLock,
}

impl NodeFiles {
    /// Opens the folder and takes its lock.
    ///
    /// # Errors
    /// Not found, conflict when another process holds it, permission, or failed with the cause.
    pub fn open(paths: &Paths) -> Result<Self, Failure> {
        let folder = StateFolder::open(&paths.roots.state_dir, paths.network.as_str())?;
        let lock = folder.lock()?;
        Ok(Self { folder, lock })
    }

    /// Returns the network's id, as the folder says.
    pub fn network_id(&self) -> Digest {
        self.folder.network_id()
    }

    /// Removes the folder with everything in it.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(self) -> Result<(), Failure> {
        Ok(self.folder.remove(self.lock)?)
    }

    /// Reads the public halves of the node's keys.
    ///
    /// # Errors
    /// A key file that is missing, garbled or readable by others.
    pub fn public_keys(&self) -> Result<PublicKeys, Failure> {
        public_keys(&self.folder)
    }

    /// Reads the keys of handshakes.
    ///
    /// # Errors
    /// A key file that is missing, garbled or readable by others.
    pub fn local_keys(&self) -> Result<LocalKeys, Failure> {
        let transport = TransportSecret::from_bytes(*self.folder.read_key(KeyKind::Transport)?.expose());
        let node_id = self.signing_key(KeyKind::Identity)?.node_id();
        let network_secret = self.folder.read_key(KeyKind::NetworkSecret)?;
        Ok(LocalKeys::new(transport, node_id, self.folder.network_id(), network_secret))
    }

    /// Reads the keys of signatures.
    ///
    /// # Errors
    /// A key file that is missing, garbled or readable by others.
    pub fn signing_keys(&self) -> Result<SigningKeys, Failure> {
        Ok(SigningKeys { identity: self.signing_key(KeyKind::Identity)?, node: self.signing_key(KeyKind::Node)? })
    }

    /// Says whether this node has, or had, a validator's key.
    pub fn has_validator_key(&self) -> bool {
        self.folder.has_key(KeyKind::Validator)
    }

    fn signing_key(&self, kind: KeyKind) -> Result<SigningKey, Failure> {
        Ok(SigningKey::from_seed(self.folder.read_key(kind)?.expose()))
    }

    /// Opens the ledger: an existing one whole, or for a joiner an empty one that must agree with the ticket.
    ///
    /// # Errors
    /// A chain that is missing, corrupt, rolled back or of another network: the node must not carry data.
    pub fn open_ledger(&self, ticket: Option<&Ticket>, now: UnixMillis) -> Result<Ledger, Failure> {
        let folder = self.folder.path();
        let checkpoint = ticket
            .map(|ticket| Checkpoint { height: Height(ticket.checkpoint.height), id: BlockId(ticket.checkpoint.hash) });
        let store = match ticket {
            _ if store::is_there(folder) => store::open(folder, self.folder.network_id()),
            Some(_) => store::create(folder, self.folder.network_id(), now),
            // An empty file made here would look to a joiner's first start like a ledger that was lost.
            None => Err(StoreError::Missing),
        };
        let mut ledger = Ledger::open(store.map_err(OpenError::Store)?, checkpoint)?;
        if self.has_validator_key() {
            let log_file = folder.join(LOG_FILE);
            // The log is made by the first start and stays: a chain of genesis alone may be an older copy of a longer one.
            let is_new_key = !log_file.exists() && ledger.head().is_some_and(|head| head.height() == Height(0));
            let log = FileLog::open(log_file).map_err(OpenError::Log)?;
            ledger.validate(ValidatorConfig {
                key: self.signing_key(KeyKind::Validator)?,
                log: Box::new(log),
                is_new_key,
                timeouts: Timeouts::default(),
            })?;
        }
        Ok(ledger)
    }

    /// Reads the invitation of a node that is still joining.
    ///
    /// # Errors
    /// A file that is no ticket.
    pub fn ticket(&self) -> Result<Option<Ticket>, Failure> {
        let Some(bytes) = self.folder.read_file(TICKET_FILE, FILE_MAX)? else { return Ok(None) };
        let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
        Ticket::decode(&text).map(Some).map_err(|error| {
            Failure::new(ErrorCode::Failed, format!("the stored ticket is damaged: {error}"))
                .hint("run `p2plus join` with the ticket again")
        })
    }

    /// Stores a new invitation and the name to ask for.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_ticket(&self, ticket: &str, name: &str) -> Result<(), Failure> {
        self.folder.write_file(NAME_FILE, name.as_bytes())?;
        self.folder.write_file(TICKET_FILE, ticket.as_bytes())?;
        self.forget_refusal();
        Ok(())
    }

    /// Forgets the invitation: this node is a member, or was refused.
    pub fn forget_ticket(&self) {
        self.forget(TICKET_FILE);
    }

    /// Reads why this node was refused in an earlier run.
    pub fn refusal(&self) -> Option<Refusal> {
        let bytes = self.folder.read_file(REFUSAL_FILE, FILE_MAX).ok().flatten()?;
        borsh::from_slice(&bytes).ok()
    }

    /// Stores why this node was refused, for the runs to come.
    pub fn write_refusal(&self, refusal: &Refusal) {
        let bytes = borsh::to_vec(refusal).expect("writing to memory does not fail");
        if let Err(error) = self.folder.write_file(REFUSAL_FILE, &bytes) {
            tracing::warn!(%error, "the reason of the refusal could not be stored");
        }
    }

    /// Forgets a refusal: this node is a member, or has another invitation.
    pub fn forget_refusal(&self) {
        self.forget(REFUSAL_FILE);
    }

    /// Reads what the user accepts of what lies behind other members: nothing, where nothing was ever said.
    ///
    /// # Errors
    /// A file that cannot be read: to take it for nothing would send in clear what was to go by an exit.
    pub fn accepted(&self) -> Result<Accepted, Failure> {
        let Some(bytes) = self.folder.read_file(ACCEPTED_FILE, FILE_MAX)? else { return Ok(Accepted::default()) };
        borsh::from_slice(&bytes).map_err(|error| {
            let path = self.folder.path().join(ACCEPTED_FILE);
            Failure::new(ErrorCode::Failed, format!("{} is damaged: {error}", path.display()))
                .hint("delete it, and say again what is accepted: `p2plus accept`, `p2plus exit-node use`")
        })
    }

    /// Stores what the user accepts, for the runs to come.
    pub fn write_accepted(&self, accepted: &Accepted) {
        let bytes = borsh::to_vec(accepted).expect("writing to memory does not fail");
        if let Err(error) = self.folder.write_file(ACCEPTED_FILE, &bytes) {
            tracing::error!(%error, "what is accepted could not be stored: it holds until the daemon ends");
        }
    }

    /// Reads what this node asks signers for. What cannot be read is asked for no more.
    pub fn requests(&self) -> Vec<Request> {
        let bytes = self.folder.read_file(REQUESTS_FILE, FILE_MAX).ok().flatten();
        bytes.and_then(|bytes| borsh::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Stores what this node asks signers for.
    pub fn write_requests(&self, requests: &[Request]) {
        let bytes = borsh::to_vec(requests).expect("writing to memory does not fail");
        if let Err(error) = self.folder.write_file(REQUESTS_FILE, &bytes) {
            tracing::warn!(%error, "what this node asks for could not be stored: it is asked for until the daemon ends");
        }
    }

    fn forget(&self, file: &str) {
        if let Err(error) = std::fs::remove_file(self.folder.path().join(file))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(file, %error, "a file that is of no use any more could not be removed");
        }
    }

    /// Reads the node name to ask for.
    pub fn asked_name(&self) -> Option<String> {
        let bytes = self.folder.read_file(NAME_FILE, FILE_MAX).ok().flatten()?;
        String::from_utf8(bytes).ok()
    }

    /// Reads the addresses to listen on that were given to `init` or `join`.
    pub fn listen(&self) -> Vec<SocketAddr> {
        let bytes = self.folder.read_file(LISTEN_FILE, FILE_MAX).ok().flatten().unwrap_or_default();
        String::from_utf8_lossy(&bytes).lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Stores the addresses to listen on that were given to `join`.
    pub fn write_listen(&self, addresses: &[SocketAddr]) {
        if let Err(error) = self.folder.write_file(LISTEN_FILE, listen_text(addresses).as_bytes()) {
            tracing::warn!(%error, "the listen addresses could not be stored");
        }
    }

    /// Reads the port that an earlier run took because the default one was not to be had.
    pub fn chosen_port(&self) -> Option<u16> {
        let bytes = self.folder.read_file(PORT_FILE, FILE_MAX).ok().flatten()?;
        String::from_utf8_lossy(&bytes).trim().parse().ok()
    }

    /// Stores the port that was taken, so that the next run tries it first.
    pub fn write_chosen_port(&self, port: u16) {
        if let Err(error) = self.folder.write_file(PORT_FILE, format!("{port}\n").as_bytes()) {
            tracing::warn!(%error, "the chosen port could not be stored");
        }
    }

    /// Reads which interfaces of this host are to be in which segments: one a line, with the segment's name.
    pub fn bridges(&self) -> Vec<BridgeOrder> {
        let bytes = self.folder.read_file(BRIDGES_FILE, FILE_MAX).ok().flatten().unwrap_or_default();
        let order = |line: &str| {
            let (interface, segment) = line.split_once(' ')?;
            Some(BridgeOrder { interface: interface.to_owned(), segment: segment.to_owned() })
        };
        String::from_utf8_lossy(&bytes).lines().filter_map(order).collect()
    }

    /// Stores them.
    ///
    /// # Errors
    /// What the system says: they would be forgotten at the next start.
    pub fn write_bridges(&self, orders: &[BridgeOrder]) -> Result<(), Failure> {
        let lines = orders.iter().map(|order| format!("{} {}\n", order.interface, order.segment));
        Ok(self.folder.write_file(BRIDGES_FILE, lines.collect::<String>().as_bytes())?)
    }

    /// Reads what an earlier run remembered; nothing where that is missing or damaged: it only saves time.
    pub fn memory(&self) -> Memory {
        let bytes = self.folder.read_file(MEMORY_FILE, FILE_MAX).ok().flatten().unwrap_or_default();
        borsh::from_slice(&bytes).unwrap_or_default()
    }

    /// Stores what the next run should remember.
    pub fn write_memory(&self, memory: &Memory) {
        let bytes = borsh::to_vec(memory).expect("writing to memory does not fail");
        if let Err(error) = self.folder.write_file(MEMORY_FILE, &bytes) {
            tracing::warn!(%error, "what peers taught could not be stored");
        }
    }
}

impl Memory {
    /// Makes the memory of what a node tells.
    pub fn new(
        own: Timestamp,
        timestamps: impl IntoIterator<Item = (TransportKey, Timestamp)>,
        endpoints: Vec<(NodeId, SocketAddr)>,
        udp_failure: Option<UdpFailure>,
    ) -> Self {
        let timestamps =
            timestamps.into_iter().map(|(key, timestamp)| (key, timestamp.wall.0, timestamp.step)).collect();
        let udp_failure = udp_failure.map(|failure| (failure.at.0, failure.endpoints));
        Self { own_timestamp: (own.wall.0, own.step), timestamps, endpoints, udp_failure }
    }

    /// Returns where UDP failed.
    pub fn udp_failure(&self) -> Option<UdpFailure> {
        self.udp_failure.clone().map(|(at, endpoints)| UdpFailure { at: UnixMillis(at), endpoints })
    }

    /// Returns the handshakes of others that must not come again.
    pub fn known_timestamps(&self) -> impl Iterator<Item = (TransportKey, Timestamp)> {
        self.timestamps.iter().map(|(key, wall, step)| (*key, Timestamp { wall: UnixMillis(*wall), step: *step }))
    }

    /// Returns the latest own handshake that there may have been: those of the time for which storing waits are not in the file. Where
    /// the clock fell back meanwhile, peers would take the next ones for replays.
    pub fn own(&self) -> Timestamp {
        let delay = u64::try_from(MEMORY_DELAY.as_millis()).expect("a delay is seconds");
        Timestamp { wall: UnixMillis(self.own_timestamp.0.saturating_add(delay)), step: self.own_timestamp.1 }
    }
}

/// Reads the public halves of the keys in a folder, which may be in use.
///
/// # Errors
/// A key file that is missing, garbled or readable by others.
pub fn public_keys(folder: &StateFolder) -> Result<PublicKeys, Failure> {
    let signing = |kind| Ok::<_, Failure>(SigningKey::from_seed(folder.read_key(kind)?.expose()).verifying_key());
    let transport = TransportSecret::from_bytes(*folder.read_key(KeyKind::Transport)?.expose());
    Ok(PublicKeys {
        id: signing(KeyKind::Identity)?.to_string(),
        node_key: signing(KeyKind::Node)?.to_string(),
        transport_key: NodeId(transport.public_key().0).to_string(),
        name: folder.read_file(NAME_FILE, FILE_MAX)?.and_then(|bytes| String::from_utf8(bytes).ok()),
    })
}

/// One address a line.
pub fn listen_text(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| format!("{address}\n")).collect()
}

/// Draws 32 secret bytes.
pub fn fresh_secret() -> Secret<32> {
    Secret::random(&mut crate::io::clock::OsRng)
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::super::founding;
    use super::super::paths::Roots;
    use super::super::setup::{self, InitArgs, JoinArgs};
    use super::*;
    use crate::io::clock;
    use crate::ledger::Transaction;
    use crate::ledger::operation::{Operation, Rename};
    use crate::session::TimestampSource;
    use crate::wire::control::Wanted;
    use crate::wire::ticket;
    use std::path::Path;

    const NETWORK: Digest = Digest([7; 32]);

    #[test]
    fn the_first_handshake_after_a_crash_is_later_than_all_before_it_also_where_the_clock_fell_back() {
        let folder = tempfile::tempdir().unwrap();
        let files = founded(folder.path(), "one");
        let mut before = TimestampSource::default();
        let stored = before.next(UnixMillis(1_000_000));
        files.write_memory(&Memory::new(stored, [], Vec::new(), None));
        // Sent while the next storing waited, and lost with the process.
        let delay = u64::try_from(MEMORY_DELAY.as_millis()).unwrap();
        let last = before.next(UnixMillis(1_000_000 + delay));
        assert!(TimestampSource::after(files.memory().own()).next(UnixMillis(5)) > last);
    }

    /// Founds a network and returns its files.
    fn founded(state_dir: &Path, name: &str) -> NodeFiles {
        let roots = Roots { state_dir: state_dir.into(), run_dir: state_dir.into(), config_file: None };
        let (paths, config) = (roots.network(name.parse().unwrap()), Config::default());
        let node_name = "ada".parse().unwrap();
        founding::found(&InitArgs { paths: paths.clone(), config, node_name, ipv4: None, listen: Vec::new() }).unwrap();
        NodeFiles::open(&paths).unwrap()
    }

    #[test]
    fn a_validator_whose_ledger_cannot_be_read_leaves_by_force_alone_and_a_joiner_that_never_ran_just_so() {
        let folder = tempfile::tempdir().unwrap();
        let files = founded(folder.path(), "two");
        let store = files.folder.path().join(store::STORE_FILE);
        let roots = Roots { state_dir: folder.path().into(), run_dir: folder.path().into(), config_file: None };
        let paths = |network: &str| roots.network(network.parse().unwrap());
        drop(files);
        std::fs::write(&store, b"torn").unwrap();
        assert_eq!(setup::leave(&paths("two"), false).err().unwrap().code, ErrorCode::Conflict);
        assert!(store.exists());
        assert!(setup::leave(&paths("two"), true).is_ok() && !store.exists());

        drop(prepared(folder.path()));
        assert!(setup::leave(&paths("one"), false).is_ok());
    }

    #[test]
    fn what_this_node_asks_for_outlasts_the_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let files = founded(folder.path(), "one");
        assert_eq!(files.requests(), []);
        let endpoints = [Some("203.0.113.7:4647".parse().unwrap()), Some("[2001:db8::7]:4647".parse().unwrap())];
        let wanted = [Wanted::Relay { endpoints, tls_port: 443 }, Wanted::Exit];
        let requests = wanted.map(|wanted| Request { wanted, made: UnixMillis(1_800_000_000_000) });
        files.write_requests(&requests);
        assert_eq!(files.requests(), requests);
    }

    /// Gets ready to join a network, and returns the files and the ticket.
    fn prepared(state_dir: &Path) -> (NodeFiles, Ticket) {
        let roots = Roots { state_dir: state_dir.into(), run_dir: state_dir.into(), config_file: None };
        let paths = roots.network("one".parse().unwrap());
        let ticket = Ticket {
            network: "one".parse().unwrap(),
            network_id: NETWORK,
            network_secret: Secret::new([1; 32]),
            checkpoint: ticket::Checkpoint { height: 3, hash: Digest([2; 32]) },
            credential: None,
            peers: vec![ticket::BootstrapPeer {
                id: NodeId([3; 32]),
                transport_key: TransportKey([4; 32]),
                endpoints: vec!["192.0.2.1:4647".parse().unwrap()],
            }],
        };
        let join = JoinArgs {
            paths: paths.clone(),
            config: Config::default(),
            ticket: Ticket::decode(&ticket.encode().unwrap()).unwrap(),
            node_name: None,
            host_name: "bob".parse().unwrap(),
            listen: Vec::new(),
        };
        founding::prepare(&join).unwrap();
        (NodeFiles::open(&paths).unwrap(), ticket)
    }

    #[test]
    fn a_look_at_the_ledger_of_a_joiner_that_never_ran_leaves_it_able_to_join() {
        let folder = tempfile::tempdir().unwrap();
        let (files, ticket) = prepared(folder.path());
        let now = clock::now().wall;
        assert!(files.open_ledger(None, now).is_err(), "there is none yet");
        assert!(files.open_ledger(Some(&ticket), now).is_ok());
        assert!(files.open_ledger(Some(&ticket), now).is_ok());
    }

    /// Opens the ledger as a start does, and orders something; returns the height after it.
    fn order(files: &NodeFiles) -> Height {
        let (now, key) = (clock::now(), files.signing_keys().unwrap().identity);
        let mut ledger = files.open_ledger(None, now.wall).unwrap();
        let rename = Operation::Rename(Rename { identity: key.node_id(), name: "eve".parse().unwrap() });
        let until = now.wall.after(Duration::from_secs(60));
        let transaction = Transaction::new(key.verifying_key(), 1, until, vec![rename]);
        ledger.submit(now, transaction.sign(&files.network_id(), &[&key])).unwrap();
        ledger.head().unwrap().height()
    }

    #[test]
    fn only_the_first_start_after_the_founding_makes_blocks_without_listening() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(order(&founded(folder.path(), "one")), Height(1));
        let files = founded(folder.path(), "two");
        drop(files.open_ledger(None, clock::now().wall).unwrap());
        // It has signed nothing yet, but a copy of the folder from now would look the same in a year.
        assert_eq!(order(&files), Height(0));
    }
}
