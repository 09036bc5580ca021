//! The thread that owns the node: its queues in, datagrams and events out.

mod reload;

use super::api::request::{Reply, Request};
use super::api::route::Right;
use super::api::server::{Call, LiveSettings, Response};
use super::api::types::{Event, Status};
use super::behind::{Behind, BehindSettings};
use super::config::Config;
use super::data_plane::Shared;
use super::dht;
use super::failure::{ErrorCode, Failure};
use super::files::{MEMORY_DELAY, Memory, NodeFiles};
use super::host::{HostSettings, HostSide};
use super::host_names::HostNames;
use super::inbox::{FromWire, InboxReader, Message};
use super::lan_discovery::{self, LanSide};
use super::logging::LogHandle;
use super::orders::{self, Outcome, Surroundings};
use super::paths::Paths;
use super::pending::{LOOK_INTERVAL, Pong, Task};
use super::port_mapping::PortMapping;
use super::segment_orders;
use super::segments::SegmentDevices;
use super::status::{self, state_of};
use crate::io::clock::{self, OsRng};
use crate::io::device::Device;
use crate::io::dht::DhtOrders;
use crate::io::host::Host;
use crate::io::host_dns::Delegation;
use crate::io::network::Network;
use crate::io::sender::PathSender;
use crate::io::tls::{OpenOrder, TlsEvent, TlsOrders};
use crate::ledger::TxId;
use crate::node::membership::Standing;
use crate::node::peers::Transmit;
use crate::node::spares::Spare;
use crate::node::{Node, NodeEvent, Underlay};
use crate::path::Path;
use crate::time::{Instant, Now};
use crate::wire::drops::DropReason;
use crate::wire::prefix::Prefix;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{broadcast, oneshot};

/// How long changes of the host's network settle before its addresses are read again.
const HOST_SETTLE: Duration = Duration::from_millis(100);

/// How often the host is looked at though it told of no change: nobody tells when the packet filter is flushed.
const HOST_RECHECK: Duration = Duration::from_secs(60);

/// Callers that wait at a time; the API allows no more.
const MAX_PENDING: usize = 256;

/// How long the loop sleeps at most: well below the gap that the node takes for a suspend.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);

/// How often the log tells of damage at most: a peer that moves about may tell of it for each of its paths.
const DAMAGE_INTERVAL: Duration = Duration::from_secs(60);

/// What the loop is made of.
pub struct Parts {
    /// Where the network lives.
    pub paths: Paths,
    /// The configuration in force.
    pub config: Config,
    /// Its files.
    pub files: NodeFiles,
    /// The node.
    pub node: Node<OsRng>,
    /// What it shares with the data threads.
    pub shared: Shared,
    /// Its queues.
    pub inbox: InboxReader,
    /// Its sockets and links, for sending.
    pub sender: PathSender,
    /// Its links over TLS.
    pub tls: TlsOrders,
    /// Its interface, or none.
    pub device: Device,
    /// The kernel's network configuration.
    pub network: Network,
    /// What is changed in it; none without an interface.
    pub host: Option<Host>,
    /// Where this host's programs ask for names.
    pub host_names: HostNames,
    /// What the default gateway passes on.
    pub port_mapping: PortMapping,
    /// Who is on the LANs of this host.
    pub lan: LanSide,
    /// Asks the DHT.
    pub dht: DhtOrders,
    /// Events for readers of the API.
    pub events: broadcast::Sender<Event>,
    /// IPv4 was forced by a flag, which a reload does not override.
    pub force_ipv4: bool,
    /// What a reload changes in the API.
    pub settings: LiveSettings,
    /// The log, whose level a reload changes unless a flag set it.
    pub log: Option<LogHandle>,
}

/// The loop.
pub struct EventLoop {
    parts: Parts,
    pending: Vec<(Task, oneshot::Sender<Result<Response, Failure>>)>,
    pongs: Vec<Pong>,
    dropped: Vec<(TxId, String)>,
    host: HostSide,
    segments: SegmentDevices,
    host_check_at: Option<Instant>,
    host_recheck_at: Option<Instant>,
    remember_at: Option<Instant>,
    lan_look_at: Instant,
    damage_told_at: Option<Instant>,
}

impl EventLoop {
    /// Prepares to run.
    pub fn new(mut parts: Parts) -> Self {
        let settings = host_settings(&parts.config, parts.force_ipv4, &parts.sender.udp().local_addresses());
        let takes_ipv4 = Arc::clone(&parts.shared.takes_ipv4);
        let journal = parts.host.as_ref().map(|host| host.journal().clone());
        Self {
            host: HostSide::new(parts.host.take(), parts.device.index(), settings, takes_ipv4),
            segments: SegmentDevices::new(
                Arc::clone(&parts.shared.taps),
                journal,
                parts.config.tunnel.offload,
                parts.files.bridges(),
            ),
            parts,
            pending: Vec::new(),
            pongs: Vec::new(),
            dropped: Vec::new(),
            host_check_at: Some(Instant::ZERO),
            host_recheck_at: None,
            remember_at: None,
            lan_look_at: Instant::ZERO,
            damage_told_at: None,
        }
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// A data thread that ended unasked.
    pub fn run(mut self) -> Result<(), Failure> {
        self.follow_dht();
        loop {
            let now = clock::now();
            self.work(now);
            let patience = self.patience(clock::now());
            for message in self.parts.inbox.take(patience) {
                let outcome = match message {
                    Message::Stop => Ok(()),
                    Message::Failed(failure) => Err(Failure::new(ErrorCode::Failed, failure.to_string())),
                    message => {
                        self.handle(clock::now(), message);
                        continue;
                    }
                };
                self.end();
                // After a failure what protects the overlay's addresses stays, as after a crash: somebody still means to use them.
                if outcome.is_ok() {
                    self.host.undo();
                }
                return outcome;
            }
        }
    }

    /// How long nothing is due.
    fn patience(&mut self, now: Now) -> Duration {
        let is_busy = self.pending.iter().any(|(task, _)| task.is_work());
        let look =
            (!self.pending.is_empty()).then(|| now.instant + if is_busy { Duration::ZERO } else { LOOK_INTERVAL });
        let deadlines = [
            self.parts.node.poll_timeout(),
            self.segments.poll_timeout(),
            self.host_check_at,
            self.host_recheck_at,
            self.remember_at,
            Some(self.lan_look_at),
            look,
        ];
        let next = deadlines.into_iter().flatten().min();
        next.map_or(LONGEST_SLEEP, |at| at.saturating_since(now.instant).min(LONGEST_SLEEP))
    }

    fn handle(&mut self, now: Now, message: Message) {
        let node = &mut self.parts.node;
        match message {
            Message::Wire(FromWire::Handshake { path, datagram, .. }) => node.handle_handshake(now, path, &datagram),
            Message::Wire(FromWire::Record { index, path, record, .. }) => {
                node.handle_record(now, index, path, &record);
            }
            Message::Wire(FromWire::News { index, path, .. }) => node.handle_news(now, index, path),
            Message::Wire(FromWire::Unsent { peer, layer, packet }) => node.handle_unsent(now, peer, layer, packet),
            Message::Wire(FromWire::Query { packet }) => node.handle_query(now, &packet),
            Message::Call(call) => self.answer(now, *call),
            // A host that never rests is looked at all the same.
            Message::Host(_) => drop(self.host_check_at.get_or_insert(now.instant + HOST_SETTLE)),
            Message::PortMap => {
                self.parts.port_mapping.report();
                self.read_endpoints(now);
            }
            Message::Tls(TlsEvent::Opened { relay, path }) => node.handle_stream_up(now, relay, path),
            Message::Tls(TlsEvent::Failed { relay }) => node.handle_stream_failed(now, relay),
            Message::Tls(TlsEvent::Closed { path }) => node.handle_stream_down(now, path),
            Message::Reload => {
                if let Err(failure) = self.reload() {
                    tracing::error!(%failure, "the configuration was not reloaded");
                }
            }
            Message::Neighbour(member, endpoints) => node.handle_neighbour(now, member, &endpoints),
            Message::Dht(report) => node.handle_dht(now, report),
            Message::SegmentLost(segment) => self.segments.lose(now.instant, segment),
            Message::Failed(_) | Message::Stop => {}
        }
    }

    /// Does what is due, sends what is to be sent, and answers who waited for it.
    fn work(&mut self, now: Now) {
        if self.host_check_at.is_some_and(|at| now.instant >= at) {
            self.host_check_at = None;
            self.look_at_host(now);
            self.read_endpoints(now);
        }
        if self.host_recheck_at.is_some_and(|at| now.instant >= at) {
            self.look_at_host(now);
        }
        if now.instant >= self.lan_look_at {
            self.look_at_lan(now);
        }
        if self.segments.poll_timeout().is_some_and(|at| now.instant >= at) {
            self.segments.look(now.instant, &mut self.parts.network);
        }
        if self.parts.node.poll_timeout().is_some_and(|at| now.instant >= at) {
            self.parts.node.handle_timeout(now);
        }
        self.flush();
        self.settle_pending(now);
        self.flush();
        if self.remember_at.is_some_and(|at| now.instant >= at) {
            self.remember_at = None;
            self.remember();
        }
    }

    fn flush(&mut self) {
        while let Some(event) = self.parts.node.poll_event() {
            self.show(event);
        }
        while let Some(packet) = self.parts.node.poll_device() {
            if self.parts.device.write(&packet).is_err() {
                self.parts.shared.drops.count(DropReason::DeviceRefused);
            }
        }
        while let Some(transmit) = self.parts.node.poll_transmit() {
            let Transmit { path, datagram, hop_limit, is_measure } = transmit;
            match self.parts.sender.send_over(path, &datagram, hop_limit) {
                Ok(()) => {}
                Err(DropReason::TooLarge) if is_measure => {}
                Err(reason) => self.parts.shared.drops.count(reason),
            }
        }
    }

    fn show(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::Publish(table) => {
                let paths = table.inlets.values().filter_map(|inlet| inlet.path);
                let gone = self.parts.tls.confirm(&paths.filter(Path::is_stream).map(|path| path.remote).collect());
                self.parts.shared.table.store(table);
                for path in gone {
                    self.parts.node.handle_stream_down(clock::now(), path);
                }
            }
            NodeEvent::OpenStream { relay, key, endpoints } => {
                self.parts.tls.open(OpenOrder { relay, key, endpoints });
            }
            NodeEvent::CloseStream(path) => self.parts.tls.close(path),
            NodeEvent::ServeStreams(addresses) => self.parts.tls.listen(&addresses),
            NodeEvent::Configure(addresses) => {
                let behind = behind_of(&self.parts.node);
                self.host.set(&mut self.parts.network, addresses, behind);
                self.tell_names();
            }
            NodeEvent::Requested(requests) => self.parts.files.write_requests(&requests),
            NodeEvent::RequestRefused { by } => tracing::warn!(by, "what this node asked for was refused"),
            NodeEvent::Accepted(accepted) => self.parts.files.write_accepted(&accepted),
            NodeEvent::Routes => {
                let behind = behind_of(&self.parts.node);
                tracing::debug!(?behind, "what lies behind members changed");
                self.host.set_behind(&mut self.parts.network, behind);
            }
            NodeEvent::Segments(wanted) => {
                self.segments.follow(clock::now().instant, &mut self.parts.network, wanted);
            }
            NodeEvent::Cut(members) => {
                for (id, name) in members {
                    tracing::warn!(peer = %id, name, "revoked: all its sessions are cut");
                    let event = Event::Revoked { peer: id.to_string(), name };
                    let _ = self.parts.events.send(event);
                }
            }
            NodeEvent::Block { height } => {
                tracing::info!(height, "new block");
                let hash = self.parts.node.ledger().head().map(|head| head.id.0.to_string()).unwrap_or_default();
                let _ = self.parts.events.send(Event::Block { height, hash });
                self.lan_look_at = Instant::ZERO;
            }
            NodeEvent::Standing(standing) => self.show_standing(&standing),
            NodeEvent::Final { .. } => {}
            NodeEvent::Dropped { transaction, reason } => self.dropped.push((transaction, reason)),
            NodeEvent::LedgerStopped(reason) => tracing::error!(reason, "the ledger stopped; tunnels stay"),
            NodeEvent::Misbehaved(what) => {
                tracing::error!(what, "a validator signed two things that exclude each other");
            }
            NodeEvent::Pong { peer, probe, rtt } => self.pongs.push(Pong { peer, probe, rtt }),
            NodeEvent::Damaged { peer, path } => {
                let (is_news, now) = (self.parts.sender.udp().note_damage(path), clock::now().instant);
                if is_news && self.damage_told_at.is_none_or(|told| now.saturating_since(told) >= DAMAGE_INTERVAL) {
                    self.damage_told_at = Some(now);
                    tracing::warn!(?peer, remote = %path.remote, "datagrams arrive there damaged: the kernel cuts none for a while");
                }
            }
            NodeEvent::OpenSpares { count, purpose } => {
                let opened = self.parts.sender.udp().open_spares(true, count).unwrap_or_else(|error| {
                    tracing::debug!(%error, count, "the host gives no more sockets");
                    Vec::new()
                });
                let spares: Vec<_> = opened.into_iter().map(|(position, port)| Spare { position, port }).collect();
                self.parts.node.handle_spares(clock::now(), purpose, &spares);
            }
            NodeEvent::CloseSpares(positions) => {
                if let Err(error) = self.parts.sender.udp().close_spares(&positions) {
                    tracing::debug!(%error, "sockets that nothing uses stay open");
                }
            }
            NodeEvent::Store(item) => self.parts.dht.store(item),
            NodeEvent::LookUp { member, places } => self.parts.dht.look_up(member, places),
            NodeEvent::Remember => {
                self.remember_at.get_or_insert(clock::now().instant + MEMORY_DELAY);
            }
        }
    }

    fn show_standing(&mut self, standing: &Standing) {
        self.lan_look_at = Instant::ZERO;
        let (state, reason) = state_of(standing);
        match standing {
            Standing::Member => {
                tracing::info!(addresses = ?self.parts.node.addresses(), "up");
                // Until now only the ticket said where anybody is: a node killed in between would know nobody and never find one.
                self.remember();
                self.parts.files.forget_ticket();
                self.parts.files.forget_refusal();
            }
            Standing::Joining(what) => tracing::info!("joining: {what}"),
            Standing::Refused(refusal) => {
                tracing::error!(reason = refusal.reason, "joining was refused");
                // The reason first: killed in between, this node tries the ticket again and hears it once more.
                self.parts.files.write_refusal(refusal);
                self.parts.files.forget_ticket();
            }
            Standing::Revoked => tracing::error!("this node was revoked"),
        }
        let _ = self.parts.events.send(Event::State { state, reason });
    }

    /// Makes the host what it should be, after what it is connected to now.
    fn look_at_host(&mut self, now: Now) {
        self.host_recheck_at = self.parts.device.index().map(|_| now.instant + HOST_RECHECK);
        self.host.look(&mut self.parts.network);
        self.tell_names();
    }

    /// Says where this host's programs find the network's names, as far as they can go there.
    fn tell_names(&self) {
        let Parts { node, device, config, host_names, shared, .. } = &self.parts;
        let (resolver, takes_ipv4) = (node.resolver(), shared.takes_ipv4.load(Ordering::Relaxed));
        let addresses = resolver.addresses();
        let v4 = addresses.v4.filter(|_| takes_ipv4).map(IpAddr::V4);
        let interface = device.name().and_then(|name| name.parse().ok());
        let delegation = interface.zip(resolver.zone()).map(|(interface, zone)| Delegation {
            interface,
            servers: v4.into_iter().chain(addresses.v6.map(IpAddr::V6)).collect(),
            zones: std::iter::once(zone.name().to_string()).chain(zone.reverse_zones()).collect(),
        });
        // Before the interface has its addresses nobody there can ask.
        let is_member = self.host.all().next().is_some();
        host_names.want(config.dns.backend, delegation.filter(|_| is_member));
    }

    /// Tells the LANs who this node is today, and asks for whoever is a member.
    fn look_at_lan(&mut self, now: Now) {
        self.lan_look_at = now.instant + lan_discovery::LOOK_INTERVAL;
        let Parts { node, lan, config, .. } = &mut self.parts;
        lan.follow(config.underlay.lan_discovery.then(|| node.lan_tags(now.wall)));
    }

    /// Uses the DHT, or not, as the configuration says.
    fn follow_dht(&mut self) {
        let Parts { node, dht, config, .. } = &mut self.parts;
        dht::follow(dht, node, clock::now(), &config.underlay);
    }

    /// Reads where the host can be reached, for this node's record.
    fn read_endpoints(&mut self, now: Now) {
        let listen = self.parts.sender.udp().local_addresses();
        let mut endpoints = self.parts.config.underlay.endpoints.clone();
        endpoints.extend(self.parts.port_mapping.endpoint());
        let bridges: Vec<_> = self.segments.bridge_indices().collect();
        let addresses: Vec<_> = match self.parts.network.underlay_addresses() {
            // What is reached through a segment is reached through the overlay.
            Ok(addresses) => addresses.into_iter().filter(|it| !bridges.contains(&it.interface)).collect(),
            Err(error) => {
                tracing::warn!(%error, "the host's addresses are not known");
                Vec::new()
            }
        };
        let is_mapped = self.parts.config.underlay.port_mapping;
        self.parts.port_mapping.follow(&mut self.parts.network, is_mapped, &listen, &addresses);
        self.parts.lan.set_place(&listen, &addresses);
        self.lan_look_at = Instant::ZERO;
        for local in &listen {
            if local.ip().is_unspecified() {
                let addresses = addresses.iter().map(|it| it.address);
                let same_family = addresses.filter(|address| address.is_ipv4() == local.is_ipv4());
                endpoints.extend(same_family.map(|address| SocketAddr::new(address, local.port())));
            } else {
                endpoints.push(*local);
            }
        }
        let own: Vec<_> = self.host.all().collect();
        endpoints.retain(|endpoint| !own.contains(&endpoint.ip()));
        let connected = addresses.iter().filter_map(|it| Prefix::new(it.address, it.prefix_len).ok()).collect();
        self.parts.node.handle_underlay(now, Underlay { endpoints, connected });
    }

    fn answer(&mut self, now: Now, call: Call) {
        // Its place in the queue is free for another one when this returns.
        let Call { request, reply, caller, place: _place } = call;
        if reply.is_closed() && request.right() == Right::Anybody {
            return;
        }
        tracing::debug!(uid = caller.uid, ?request, "request");
        let outcome = match request {
            Request::Status => Ok(Reply::Status(Box::new(self.status(now, caller.right)))).into(),
            Request::Reload => self.reload().map(Reply::Reloaded).into(),
            Request::Link(request) => {
                let Parts { node, network, files, .. } = &mut self.parts;
                let mut host = segment_orders::Host { segments: &mut self.segments, network, files };
                segment_orders::answer(node, now, &mut host, request)
            }
            request => {
                let around = Surroundings {
                    network: &self.parts.paths.network,
                    endpoints: &self.parts.config.underlay.endpoints,
                    dns_backend: self.parts.config.dns.backend,
                    host_names: self.parts.host_names.report(),
                    listen: self.parts.sender.udp().local_addresses(),
                    port_mapping: self.parts.port_mapping.state(),
                    relay_mode: self.parts.config.relay.mode,
                };
                orders::answer(&mut self.parts.node, now, &around, request)
            }
        };
        match outcome {
            // The caller may have gone; then nobody waits.
            Outcome::Done(result) => drop(reply.send((*result).map(Response::from))),
            Outcome::Later(_) if self.pending.len() >= MAX_PENDING => {
                let _ = reply.send(Err(Failure::new(ErrorCode::Failed, "too many callers wait already")));
            }
            Outcome::Later(task) => self.pending.push((task, reply)),
        }
    }

    fn settle_pending(&mut self, now: Now) {
        let (pongs, dropped) = (std::mem::take(&mut self.pongs), std::mem::take(&mut self.dropped));
        let node = &mut self.parts.node;
        let (mut waiting, mut worked) = (Vec::new(), None);
        let mut has_worked = false;
        for (mut task, reply) in self.pending.drain(..) {
            if reply.is_closed() {
                continue;
            }
            // One at a time, and then to the end of the line: however many there are, the rest of the node gets its turn.
            let is_work = task.is_work();
            if is_work && std::mem::replace(&mut has_worked, true) {
                waiting.push((task, reply));
                continue;
            }
            match task.poll(node, now, &pongs, &dropped) {
                Some(result) => drop(reply.send(result.map(Response::from))),
                None if is_work => worked = Some((task, reply)),
                None => waiting.push((task, reply)),
            }
        }
        waiting.extend(worked);
        self.pending = waiting;
    }

    /// What the caller may see of the status.
    fn status(&self, now: Now, right: Right) -> Status {
        let Parts { node, paths, device, config, sender, shared, .. } = &self.parts;
        if right < Right::Group {
            return status::short(node, now, &paths.network);
        }
        let around = status::Around {
            network: &paths.network,
            device,
            mtu: config.tunnel.mtu.0,
            sender: sender.udp(),
            drops: &shared.drops,
            conflicts: self.host.conflicts(),
            problems: self.host.problems(),
        };
        status::full(node, now, &around)
    }

    fn remember(&self) {
        let node = &self.parts.node;
        let (own, known) = node.timestamps();
        let memory = Memory::new(own, known, node.known_endpoints(), node.udp_failure(clock::now()));
        self.parts.files.write_memory(&memory);
    }

    /// Says goodbye and stores what the next run should know.
    fn end(&mut self) {
        tracing::info!("stopping");
        self.parts.node.say_goodbye(clock::now());
        self.flush();
        self.remember();
        self.segments.end(&mut self.parts.network);
    }
}

/// What lies behind members, as far as it concerns this host.
fn behind_of(node: &Node<OsRng>) -> Behind {
    let own = node.policy().member(&node.id());
    let accepted = node.accepted();
    Behind {
        accepted: node.subnet_routes().iter().map(|route| route.prefix).collect(),
        forced: accepted.forced.clone(),
        wants_exit: accepted.exit.is_some(),
        own: own.map(|member| member.subnets.clone()).unwrap_or_default(),
        is_exit: own.is_some_and(|member| member.is_exit),
    }
}

/// What the configuration and the flags say of the host.
fn host_settings(config: &Config, is_forced: bool, ports: &[SocketAddr]) -> HostSettings {
    HostSettings {
        force_ipv4: config.tunnel.force_ipv4 || is_forced,
        forward_from: config.routes.forward_from.iter().cloned().collect(),
        behind: BehindSettings {
            masquerade: config.routes.masquerade,
            lock_down: config.routes.lock_down,
            lan_access: config.routes.lan_access,
            underlay_ports: ports.iter().map(SocketAddr::port).collect(),
        },
    }
}
