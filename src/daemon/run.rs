//! The daemon's beginning and end: everything is opened in one place, in the order in which it may fail, and only then `ready`.

use super::api::server::{MAX_CALLS, MAX_EVENTS, Server};
use super::api::socket::ApiSocket;
use super::config::{Cipher, Config};
use super::data_plane::{self, Receivers, Shared};
use super::dht;
use super::event_loop::{EventLoop, Parts};
use super::failure::{ErrorCode, Failure};
use super::files::NodeFiles;
use super::founding::invitation;
use super::host_names::HostNames;
use super::inbox::{Inbox, Message};
use super::lan_discovery::LanSide;
use super::port_mapping::PortMapping;
use super::segment_plane;
use super::segments::no_taps;
use super::setup::{DeviceChoice, RunArgs};
use super::workers::Workers;
use crate::crypto::aead::IS_NULL;
use crate::io::clock::{self, OsRng};
use crate::io::device::{Device, DeviceError, TunConfig, default_interface_name};
use crate::io::device_name::NotADeviceName;
use crate::io::host::{Host, HostError, HostSetup, undo_leftovers};
use crate::io::lan::LanDiscovery;
use crate::io::network::{Network, NetworkError};
use crate::io::port_map::PortMapper;
use crate::io::process::forbid_core_dumps;
use crate::io::sender::PathSender;
use crate::io::tls::{self, TlsLinks, TlsOrders, TlsReceiver};
use crate::io::udp::{BindError, Listen, UdpSockets, bind};
use crate::io::watch::NetworkWatch;
use crate::node::lan::message::Instance;
use crate::node::table::ForwardingTable;
use crate::node::{Node, Setup};
use crate::wire::drops::Drops;
use crate::wire::handshake::{CipherSet, OffloadSet};
use arc_swap::ArcSwap;
use rand_core::Rng;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc};

/// The port where a node listens unless told otherwise.
const DEFAULT_PORT: u16 = 4647;

/// How long the control API may take to end: it waits for nobody, and nobody waits for it.
const SERVER_END: Duration = Duration::from_secs(1);

/// Packets that wait in the interface for the tunnel: short, so that the sender's TCP feels the tunnel's pace.
const QUEUE_LEN: u32 = 500;

/// Runs the daemon until SIGINT or SIGTERM.
///
/// # Errors
/// Whatever keeps it from starting, or a part of it that failed for good.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    if IS_NULL {
        tracing::warn!("BUILT WITHOUT A CIPHER, for measurements: packets are neither encrypted nor authenticated");
    }
    if let Err(error) = forbid_core_dumps() {
        tracing::warn!(%error, "core dumps could not be forbidden");
    }
    let socket = ApiSocket::bind(&args.paths)?;
    let files = NodeFiles::open(&args.paths)?;
    let sockets = bind_underlay(args, &files)?;
    let (device, network) = open_device(args)?;
    let host = open_host(args, &device)?;
    let mark = host.as_ref().map_or(0, |host| host.slot().mark());
    if host.is_some() {
        sockets.sender.set_mark(mark).map_err(|error| system("mark for its sockets", &error))?;
    }
    let drops = Arc::new(Drops::new());
    let node = open_node(args, &files, &drops, device.offload())?;
    let (inbox, queue) = Inbox::new();
    let shared = Shared {
        table: Arc::new(ArcSwap::from_pointee(ForwardingTable::empty())),
        drops,
        inbox: inbox.clone(),
        // Without an interface there is nothing to keep off it.
        takes_ipv4: Arc::new(AtomicBool::new(device.index().is_none())),
        mark,
        taps: no_taps().map_err(|error| system("descriptors", &error))?,
    };

    let runtime = Runtime::new().map_err(|error| system("the runtime", &error))?;
    let (links, streams, tls) = carry_streams(&runtime, &files, &shared, &args.config)?;
    let sender = PathSender::new(sockets.sender, links);
    let failed = inbox.clone();
    let mut workers =
        Workers::new(move |failure| failed.put(Message::Failed(failure))).map_err(|error| system("threads", &error))?;
    let receivers = Receivers { udp: sockets.receivers, spares: sockets.spares, streams };
    data_plane::start(&mut workers, &shared, &device, receivers, &sender).map_err(|error| system("threads", &error))?;
    segment_plane::start(&mut workers, &shared, sender.by_queue(0), args.config.tunnel.mtu.0)
        .map_err(|error| system("threads", &error))?;
    watch_host(&mut workers, &inbox).map_err(|error| system("threads", &error))?;

    let host_names =
        HostNames::start(args.config.dns.backend, device.name(), host.as_ref().map(|host| host.journal().clone()))
            .map_err(|error| system("threads", &error))?;
    let (events, _) = broadcast::channel(MAX_EVENTS);
    let settings = serve(&runtime, socket, &args.config, &inbox, &events);
    forward_signals(&runtime, &inbox)?;
    let port_mapper = map_port(&runtime, mark, &inbox);
    let lan = look_at_lan(&runtime, mark, &inbox);
    let event_loop = EventLoop::new(Parts {
        paths: args.paths.clone(),
        config: args.config.clone(),
        files,
        node,
        shared,
        inbox: queue,
        sender,
        tls,
        device,
        network,
        host,
        host_names,
        port_mapping: PortMapping::new(port_mapper.orders(), mark),
        lan: LanSide::new(lan.orders()),
        dht: dht::start(&runtime, &inbox),
        events,
        force_ipv4: args.force_ipv4,
        settings,
        log: (!args.log_level_is_fixed).then(|| args.log.clone()),
    });
    tracing::info!(network = %args.paths.network, "ready");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "no service manager was told");
    }
    let outcome = event_loop.run();
    workers.stop();
    port_mapper.end(&runtime);
    lan.end(&runtime);
    // Waited for, since it is the server that removes the control socket.
    runtime.shutdown_timeout(SERVER_END);
    outcome
}

/// Opens the ledger, and makes the node from it and from what an earlier run remembered.
fn open_node(
    args: &RunArgs,
    files: &NodeFiles,
    drops: &Arc<Drops>,
    offload: OffloadSet,
) -> Result<Node<OsRng>, Failure> {
    let now = clock::now();
    let ticket = files.ticket()?;
    let invitation = ticket.as_ref().map(|ticket| invitation(ticket, files.asked_name().as_deref())).transpose()?;
    let setup = Setup {
        keys: files.local_keys()?,
        signing: files.signing_keys()?,
        ledger: files.open_ledger(ticket.as_ref(), now.wall)?,
        invitation,
        refusal: files.refusal(),
        accepted: files.accepted()?,
        requests: files.requests(),
        inner_mtu: args.config.tunnel.mtu.0,
        relay: args.config.relay.limits(),
        ciphers: ciphers(&args.config),
        offload,
        zone_name: args.config.dns.zone_name(&args.paths.network),
        drops: Arc::clone(drops),
        rng: OsRng,
    };
    let mut node = Node::new(now, setup);
    let memory = files.memory();
    node.import_timestamps(memory.own(), memory.known_timestamps());
    node.remember_endpoints(memory.endpoints.iter().copied());
    node.remember_udp_failure(memory.udp_failure());
    Ok(node)
}

/// AES-256-GCM is offered where it is the faster one here, or the only one wanted.
fn ciphers(config: &Config) -> CipherSet {
    let aes_256_gcm = match config.tunnel.cipher {
        Cipher::Aes256Gcm => true,
        Cipher::ChaCha20Poly1305 => false,
        Cipher::Auto => super::self_test::aes_is_faster(),
    };
    CipherSet { aes_256_gcm }
}

/// Binds what was typed, configured or stored, else the default port, or the free one that an earlier run had to take in its place: peers
/// know this node by it, but who has it meanwhile does not keep the daemon from starting.
fn bind_underlay(args: &RunArgs, files: &NodeFiles) -> Result<UdpSockets, Failure> {
    let asked =
        [&args.listen, &args.config.underlay.listen, &files.listen()].into_iter().find(|it| !it.is_empty()).cloned();
    let chosen = files.chosen_port();
    let listen = asked.map_or_else(|| Listen::Preferred(chosen.unwrap_or(DEFAULT_PORT)), Listen::Exactly);
    let sockets = bind(&listen, args.config.tunnel.queues.get())?;
    if !args.config.tunnel.offload {
        sockets.sender.handle_singly();
    }
    let bound = sockets.sender.local_addresses();
    for address in &bound {
        tracing::info!(%address, "listening");
    }
    if let (Listen::Preferred(preferred), Some(first)) = (&listen, bound.first())
        && first.port() != *preferred
    {
        files.write_chosen_port(first.port());
    }
    Ok(sockets)
}

fn open_device(args: &RunArgs) -> Result<(Device, Network), Failure> {
    let mut network = Network::open()?;
    let name = match &args.device {
        DeviceChoice::None => return Ok((Device::absent(), network)),
        DeviceChoice::Named(name) => name.as_str().to_owned(),
        DeviceChoice::Default => default_interface_name(args.paths.network.as_str()),
    };
    let tunnel = &args.config.tunnel;
    let (mtu, queues, offload) = (tunnel.mtu.0, tunnel.queues.get(), tunnel.offload);
    let device = Device::open(&TunConfig { name, mtu, queues, offload })?;
    if let Some(index) = device.index() {
        network.set_up(index, u32::from(mtu), QUEUE_LEN)?;
    }
    Ok((device, network))
}

/// Takes the daemon's place on the host, and what an earlier run left in it. Without an interface nothing of that has a use.
fn open_host(args: &RunArgs, device: &Device) -> Result<Option<Host>, Failure> {
    let (Some(name), Some(index)) = (device.name(), device.index()) else {
        for line in undo_leftovers(&args.paths.network, &args.paths.journal())? {
            tracing::info!("an earlier run left something on the host: {line}");
        }
        return Ok(None);
    };
    let device = name.parse().map_err(|error: NotADeviceName| Failure::new(ErrorCode::Usage, error.to_string()))?;
    let (run_dir, journal) = (&args.paths.roots.run_dir, &args.paths.journal());
    Ok(Some(Host::open(HostSetup { network: args.paths.network.clone(), device, index, run_dir, journal })?))
}

/// Carries datagrams over TLS, by links that there are none of yet.
fn carry_streams(
    runtime: &Runtime,
    files: &NodeFiles,
    shared: &Shared,
    config: &Config,
) -> Result<(TlsLinks, TlsReceiver, TlsOrders), Failure> {
    let (events, mut waiting) = mpsc::unbounded_channel();
    let inbox = shared.inbox.clone();
    // In their order; a full queue is waited for elsewhere than on the runtime. There are no more than two for each link of use.
    runtime.spawn(async move {
        while let Some(event) = waiting.recv().await {
            let inbox = inbox.clone();
            if tokio::task::spawn_blocking(move || inbox.put(Message::Tls(event))).await.is_err() {
                break;
            }
        }
    });
    let notify = move |event| {
        // Nobody is there any more when the daemon ends.
        let _ = events.send(event);
    };
    let (key, drops) = (files.signing_keys()?.node, Arc::clone(&shared.drops));
    let made = tls::start(runtime, key, shared.mark, drops, notify).map_err(|error| system("TLS", &error))?;
    made.2.set_proxy(config.underlay.proxy.0.clone());
    Ok(made)
}

fn watch_host(workers: &mut Workers, inbox: &Inbox) -> std::io::Result<()> {
    let inbox = inbox.clone();
    workers.watch_network(NetworkWatch::open, move |event| inbox.put(Message::Host(event)))
}

/// Serves the control API, each call handed to the node's thread.
fn serve(
    runtime: &Runtime,
    socket: ApiSocket,
    config: &Config,
    inbox: &Inbox,
    events: &broadcast::Sender<super::api::types::Event>,
) -> super::api::server::LiveSettings {
    let (calls, mut waiting) = mpsc::channel(MAX_CALLS);
    let server = Server::new(socket, config, calls, events.clone());
    let settings = server.settings();
    let inbox = inbox.clone();
    runtime.spawn(async move {
        while let Some(call) = waiting.recv().await {
            let inbox = inbox.clone();
            // The queue may be full for a moment; waiting for a place must not hold up the runtime.
            let put = tokio::task::spawn_blocking(move || inbox.put(Message::Call(Box::new(call))));
            if put.await.is_err() {
                break;
            }
        }
    });
    runtime.spawn(async move {
        if let Err(error) = server.run().await {
            tracing::error!(%error, "the control API ended");
        }
    });
    settings
}

/// Has what the gateway says told to the node's thread.
fn map_port(runtime: &Runtime, mark: u32, inbox: &Inbox) -> PortMapper {
    let mut nonce = [0; 12];
    OsRng.fill_bytes(&mut nonce);
    let inbox = inbox.clone();
    PortMapper::start(runtime, mark, nonce, move || {
        let inbox = inbox.clone();
        // As above: a full queue is waited for elsewhere.
        drop(tokio::task::spawn_blocking(move || inbox.put(Message::PortMap)));
    })
}

/// Has members that are found on a LAN told to the node's thread.
fn look_at_lan(runtime: &Runtime, mark: u32, inbox: &Inbox) -> LanDiscovery {
    let mut instance = [0; 8];
    OsRng.fill_bytes(&mut instance);
    let inbox = inbox.clone();
    LanDiscovery::start(runtime, mark, Instance(instance), move |member, endpoints| {
        let inbox = inbox.clone();
        drop(tokio::task::spawn_blocking(move || inbox.put(Message::Neighbour(member, endpoints))));
    })
}

fn forward_signals(runtime: &Runtime, inbox: &Inbox) -> Result<(), Failure> {
    let _guard = runtime.enter();
    let open = |kind| signal(kind).map_err(|error| system("signals", &error));
    let mut interrupt = open(SignalKind::interrupt())?;
    let mut terminate = open(SignalKind::terminate())?;
    let mut hangup = open(SignalKind::hangup())?;
    let inbox = inbox.clone();
    runtime.spawn(async move {
        loop {
            let message = tokio::select! {
                _ = interrupt.recv() => Message::Stop,
                _ = terminate.recv() => Message::Stop,
                _ = hangup.recv() => Message::Reload,
            };
            let inbox = inbox.clone();
            // As above: a full queue is waited for elsewhere.
            drop(tokio::task::spawn_blocking(move || inbox.put(message)));
        }
    });
    Ok(())
}

fn system(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(ErrorCode::Failed, format!("the system gives no {what}: {error}"))
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        let code = match &error {
            BindError::InUse { .. } => ErrorCode::Conflict,
            BindError::NoPermission { .. } => ErrorCode::Permission,
            _ => ErrorCode::Failed,
        };
        Self::new(code, error.to_string())
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        let code = match &error {
            DeviceError::NameInUse { .. } => ErrorCode::Conflict,
            DeviceError::NoPermission { .. } => ErrorCode::Permission,
            DeviceError::BadName { .. } => ErrorCode::Usage,
            _ => ErrorCode::Failed,
        };
        Self::new(code, error.to_string())
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Network(error) => error.into(),
            HostError::Lock(error) => error.into(),
            HostError::NoSlot => Self::new(ErrorCode::Conflict, error.to_string()),
            HostError::Journal { .. } => Self::new(ErrorCode::Failed, error.to_string())
                .hint("if it is damaged, look at `ip rule`, `nft list tables` and what it says, then remove it"),
            error => Self::new(ErrorCode::Failed, error.to_string()),
        }
    }
}

impl From<NetworkError> for Failure {
    fn from(error: NetworkError) -> Self {
        let code =
            if matches!(error, NetworkError::NoPermission { .. }) { ErrorCode::Permission } else { ErrorCode::Failed };
        Self::new(code, error.to_string())
    }
}
