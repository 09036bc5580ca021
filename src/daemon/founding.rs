//! The beginning of a node: founding a network, or getting ready to join one. Keys are made here and nothing is bound.

use super::api::types::PublicKeys;
use super::failure::{ErrorCode, Failure};
use super::files::{self, LISTEN_FILE, NAME_FILE, NodeFiles, TICKET_FILE, fresh_secret, listen_text};
use super::setup::{InitArgs, InitReport, JoinArgs, JoinReport};
use super::store;
use crate::crypto::exchange::TransportSecret;
use crate::crypto::identity::SigningKey;
use crate::crypto::words::words;
use crate::io::clock;
use crate::io::key_file::KeyKind;
use crate::io::keystore::NewStateFolder;
use crate::ledger::address::Ipv4Choice;
use crate::ledger::engine::OpenError;
use crate::ledger::genesis::{Founding, Genesis, GenesisError};
use crate::ledger::name::Label;
use crate::ledger::operation::PROTOCOL_VERSION;
use crate::ledger::tree::MemoryTree;
use crate::ledger::{Ledger, Seat, Seats, Validator};
use crate::wire::ticket::Ticket;
use std::collections::BTreeSet;

/// How many recovery keys `init` makes; one of them is enough to continue the chain.
const RECOVERY_KEYS: usize = 2;

/// Founds a network: keys, genesis, and the ledger that begins with it.
///
/// # Errors
/// Conflict when the state folder already holds a network, permission, or failed with the cause; nothing is left then.
pub fn found(args: &InitArgs) -> Result<InitReport, Failure> {
    let now = clock::now().wall;
    let folder = NewStateFolder::begin(&args.paths.roots.state_dir, args.paths.network.as_str())?;
    let identity = new_signing_key(&folder, KeyKind::Identity)?;
    let node = new_signing_key(&folder, KeyKind::Node)?;
    let validator = new_signing_key(&folder, KeyKind::Validator)?;
    let transport_key = new_transport_key(&folder)?;
    folder.create_key(KeyKind::NetworkSecret, &fresh_secret())?;

    let recovery: Vec<_> = (0..RECOVERY_KEYS).map(|_| fresh_secret()).collect();
    let validator = Validator { key: validator.verifying_key(), power: 1 };
    let seat = Seat { validator, node: identity.node_id(), transport_key: transport_key.public_key() };
    let founding = Founding {
        name: label(args.paths.network.as_str())?,
        ipv4: args.ipv4.map_or(Ipv4Choice::Derived, Ipv4Choice::Given),
        time: now,
        identity: &identity,
        node_key: node.verifying_key(),
        transport_key: transport_key.public_key(),
        member_name: Some(label(args.node_name.as_str())?),
        others: Vec::new(),
        // The identity governs as the first signer, so that what it issued ends with its membership.
        signer: &identity,
        seats: Seats::new(vec![seat]).map_err(internal)?,
        recovery: recovery
            .iter()
            .map(|secret| SigningKey::from_seed(secret.expose()).verifying_key())
            .collect::<BTreeSet<_>>(),
        recovery_needed: 1,
        protocol_version: PROTOCOL_VERSION,
    };
    let genesis = Genesis::create(&founding, &MemoryTree::default()).map_err(|error| refused(&error))?;
    let network_id = genesis.network_id();
    let store = store::create(folder.path(), network_id, now).map_err(OpenError::Store)?;
    let ledger = Ledger::create(store, &genesis)?;
    let policy = ledger.policy();
    drop(ledger);
    folder.write_file(LISTEN_FILE, listen_text(&args.listen).as_bytes())?;
    folder.finish(network_id)?;

    let member = policy.member(&identity.node_id());
    Ok(InitReport {
        network: args.paths.network.clone(),
        network_id,
        node_id: identity.node_id(),
        node_name: args.node_name.clone(),
        addresses: member.map(|member| member.addresses.clone()).unwrap_or_default(),
        recovery_words: recovery.iter().map(words).collect(),
    })
}

/// Makes a node's keys and keeps the ticket for the daemon. A node that was refused, or never came in, may take another ticket.
///
/// # Errors
/// Conflict when this node is a member already or the ticket is of another network; permission; failed with the cause.
pub fn prepare(args: &JoinArgs) -> Result<JoinReport, Failure> {
    let name = args.node_name.as_ref().unwrap_or(&args.host_name);
    let text = args.ticket.encode().map_err(internal)?;
    let keys = if args.paths.state_folder().exists() {
        replace_ticket(args, &text, name.as_str())?
    } else {
        let folder = NewStateFolder::begin(&args.paths.roots.state_dir, args.paths.network.as_str())?;
        new_signing_key(&folder, KeyKind::Identity)?;
        new_signing_key(&folder, KeyKind::Node)?;
        new_transport_key(&folder)?;
        folder.create_key(KeyKind::NetworkSecret, &args.ticket.network_secret)?;
        folder.write_file(NAME_FILE, name.as_str().as_bytes())?;
        folder.write_file(TICKET_FILE, text.as_bytes())?;
        folder.write_file(LISTEN_FILE, listen_text(&args.listen).as_bytes())?;
        files::public_keys(&folder.finish(args.ticket.network_id)?)?
    };
    let needs_approval = args.ticket.credential.is_none();
    Ok(JoinReport { network: args.paths.network.clone(), network_id: args.ticket.network_id, keys, needs_approval })
}

/// Gives a node that is not in yet another ticket of the same network.
fn replace_ticket(args: &JoinArgs, text: &str, name: &str) -> Result<PublicKeys, Failure> {
    let files = NodeFiles::open(&args.paths)?;
    if files.network_id() != args.ticket.network_id {
        let message = format!(
            "the state folder {} belongs to another network that is called {} too",
            args.paths.state_folder().display(),
            args.paths.network
        );
        return Err(Failure::new(ErrorCode::Conflict, message)
            .hint("leave that network first, or give this one a state folder of its own with --state-dir"));
    }
    let node_id = files.local_keys()?.node_id;
    let ledger = files.open_ledger(Some(&args.ticket), clock::now().wall)?;
    if ledger.policy().member(&node_id).is_some() {
        let message = format!("this node is a member of network {} already", args.paths.network);
        return Err(Failure::new(ErrorCode::Conflict, message).hint("start its daemon: p2plus daemon"));
    }
    drop(ledger);
    if !args.listen.is_empty() {
        files.write_listen(&args.listen);
    }
    files.write_ticket(text, name)?;
    files.public_keys()
}

/// Reads what a ticket gives to the joiner.
///
/// # Errors
/// A name that is none.
pub fn invitation(ticket: &Ticket, name: Option<&str>) -> Result<crate::node::membership::Invitation, Failure> {
    let bootstrap = ticket.peers.iter().map(|peer| crate::node::membership::Bootstrap {
        id: peer.id,
        transport_key: peer.transport_key,
        endpoints: peer.endpoints.clone(),
    });
    Ok(crate::node::membership::Invitation {
        credential: ticket.credential.as_ref().map(|seed| SigningKey::from_seed(seed.expose())),
        name: name.map(label).transpose()?,
        bootstrap: bootstrap.collect(),
    })
}

fn new_signing_key(folder: &NewStateFolder, kind: KeyKind) -> Result<SigningKey, Failure> {
    let seed = fresh_secret();
    folder.create_key(kind, &seed)?;
    Ok(SigningKey::from_seed(seed.expose()))
}

fn new_transport_key(folder: &NewStateFolder) -> Result<TransportSecret, Failure> {
    let bytes = fresh_secret();
    folder.create_key(KeyKind::Transport, &bytes)?;
    Ok(TransportSecret::from_bytes(*bytes.expose()))
}

fn label(text: &str) -> Result<Label, Failure> {
    text.parse()
        .map_err(|error: crate::ledger::name::NotALabel| Failure::new(ErrorCode::Usage, format!("{text:?}: {error}")))
}

fn refused(error: &GenesisError) -> Failure {
    Failure::new(ErrorCode::Failed, error.to_string())
}

fn internal(error: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::Failed, error.to_string())
}
