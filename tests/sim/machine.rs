//! One whole node on the simulated network: the very `Node`, data path, ledger and store that the daemon runs.
//!
//! ```text
//!   Machine   keys, disk, mark, log, memory: what outlives a crash          ─── start ──►  SimNode
//!   SimNode   datagrams ─► forward::Opening ─► device, Node        packets ─► Outgoing::seal ─► wire, Node
//! ```

use crate::packet::UdpPacket;
use crate::spares::Spares;
use crate::streams::{Streams, stream_path};
use crate::world::Guest;
use p2plus::crypto::exchange::{TransportKey, TransportSecret};
use p2plus::crypto::hash::Digest;
use p2plus::crypto::identity::{NodeId, SigningKey};
use p2plus::crypto::secret::Secret;
use p2plus::ledger::chain::Checkpoint;
use p2plus::ledger::consensus::Timeouts;
use p2plus::ledger::consensus::wal::{Log, LogStore};
use p2plus::ledger::engine::{OpenError, ValidatorConfig};
use p2plus::ledger::store::disk::{Disk, Fault};
use p2plus::ledger::store::{Behind, MemoryMark, Store};
use p2plus::ledger::{Ledger, TxId};
use p2plus::node::forward::{
    Delivery, DevicePacket, HEADROOM, Inbound, Incoming, Opening, Outbound, Outbox, Outgoing, TAILROOM,
};
use p2plus::node::membership::{Bootstrap, Invitation};
use p2plus::node::peers::Transmit;
use p2plus::node::relay::RelayLimits;
use p2plus::node::subnets::Accepted;
use p2plus::node::table::ForwardingTable;
use p2plus::node::{Node, NodeEvent, Setup, SigningKeys, UdpFailure, Underlay};
use p2plus::path::Path;
use p2plus::router::PeerIndex;
use p2plus::router::segmentation::SuperPacket;
use p2plus::session::LocalKeys;
use p2plus::time::{Instant, Now};
use p2plus::wire::datagram::Lane;
use p2plus::wire::drops::{DropReason, Drops};
use p2plus::wire::ecn::Ecn;
use p2plus::wire::handshake::{CipherSet, OffloadSet, Timestamp};
use p2plus::wire::offload::VnetHeader;
use p2plus::wire::transport_record::Layer;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long what is to be remembered waits for more, as in the daemon.
const MEMORY_DELAY: Duration = Duration::from_secs(2);

/// The lane of the thread that reads the device, as in the daemon.
const DEVICE_LANE: Lane = Lane::new(1, 0);

/// The MTU of every machine's link.
const LINK_MTU: usize = 1500;

/// A validator's log in memory; clones share it.
#[derive(Clone, Default)]
pub struct SimLog(Arc<Mutex<LogBytes>>);

#[derive(Default)]
struct LogBytes {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    operations: u64,
    /// The operation after which every other one fails.
    last: Option<u64>,
}

impl LogBytes {
    fn operate(&mut self) -> io::Result<&mut Self> {
        self.operations += 1;
        if self.has_failed() { Err(io::Error::other("the power is gone")) } else { Ok(self) }
    }

    fn has_failed(&self) -> bool {
        self.last.is_some_and(|last| self.operations > last)
    }
}

impl SimLog {
    /// What a power cut leaves: everything synced and, of what only grew since, a part.
    pub fn after_power_cut(&self, luck: u64) -> Self {
        let log = self.0.lock().unwrap();
        let mut left = log.durable.clone();
        if let Some(loose) = log.bytes.strip_prefix(log.durable.as_slice()) {
            left.extend(&loose[..usize::try_from(luck).unwrap() % (loose.len() + 1)]);
        }
        Self::holding(left)
    }

    /// What SIGKILL leaves: everything that was written, synced or not.
    pub fn after_kill(&self) -> Self {
        Self::holding(self.0.lock().unwrap().bytes.clone())
    }

    fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(LogBytes { bytes: bytes.clone(), durable: bytes, ..LogBytes::default() })))
    }

    fn fail_after(&self, operations: u64) {
        let mut log = self.0.lock().unwrap();
        log.last = Some(log.operations + operations);
    }

    fn has_failed(&self) -> bool {
        self.0.lock().unwrap().has_failed()
    }
}

impl LogStore for SimLog {
    type Error = io::Error;

    fn load(&mut self) -> io::Result<Vec<u8>> {
        let mut log = self.0.lock().unwrap();
        if let Ok(read) = Log::decode(&log.bytes) {
            log.bytes.truncate(read.whole_len);
        }
        Ok(log.bytes.clone())
    }

    fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().operate()?.bytes.extend_from_slice(frame);
        Ok(())
    }

    fn reset(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().operate()?.bytes = frame.to_vec();
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut log = self.0.lock().unwrap();
        log.operate()?;
        log.durable = log.bytes.clone();
        Ok(())
    }
}

/// What a node remembers from one run to the next, apart from its ledger.
#[derive(Clone, Default)]
pub struct Memory {
    own: Timestamp,
    timestamps: Vec<(TransportKey, Timestamp)>,
    endpoints: Vec<(NodeId, SocketAddr)>,
    udp_failure: Option<UdpFailure>,
}

/// A ticket, as a joiner keeps it until it is a member.
#[derive(Clone)]
struct Ticket {
    secret: Option<[u8; 32]>,
    bootstrap: Vec<Bootstrap>,
    checkpoint: Option<Checkpoint>,
}

impl Ticket {
    fn invitation(&self) -> Invitation {
        let credential = self.secret.as_ref().map(SigningKey::from_seed);
        Invitation { credential, name: None, bootstrap: self.bootstrap.clone() }
    }
}

/// Which of its stores a machine writes to when its power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The ledger's store.
    Store,
    /// The validator's log.
    Log,
}

/// What outlives a crash.
#[derive(Clone)]
pub struct Machine {
    seed: u64,
    pub address: SocketAddr,
    network_id: Digest,
    pub disk: Disk,
    pub mark: MemoryMark,
    pub log: SimLog,
    pub is_validator: bool,
    memory: Memory,
    ticket: Option<Ticket>,
    /// The operation of the disk at which the power goes.
    last_operation: Option<u64>,
    runs: u64,
}

impl Machine {
    /// A machine with an empty disk; all its keys follow from `seed`.
    pub fn new(seed: u64, address: SocketAddr, network_id: Digest) -> Self {
        Self {
            seed,
            address,
            network_id,
            disk: Disk::default(),
            mark: MemoryMark::default(),
            log: SimLog::default(),
            is_validator: false,
            memory: Memory::default(),
            ticket: None,
            last_operation: None,
            runs: 0,
        }
    }

    /// Tells it where others are, as an earlier run would have.
    pub fn remember(&mut self, endpoints: Vec<(NodeId, SocketAddr)>) {
        self.memory.endpoints = endpoints;
    }

    /// Gives it a ledger that another machine wrote.
    pub fn take_ledger(&mut self, other: &Machine) {
        (self.disk, self.mark) = (other.disk.after_kill(), MemoryMark::new(other.mark.bytes()));
    }

    /// Lets the power go after so many more writes, changes of length and syncs of one of its stores: in the middle of whatever it does.
    pub fn lose_power_after(&mut self, operations: u64, victim: Victim) {
        match victim {
            Victim::Store => {
                self.last_operation = Some(self.disk.operations() + operations);
                self.disk.fail_after(operations, Some(Fault::Broken));
            }
            Victim::Log => self.log.fail_after(operations),
        }
    }

    /// Says whether the power is gone.
    pub fn has_lost_power(&self) -> bool {
        self.last_operation.is_some_and(|last| self.disk.operations() > last) || self.log.has_failed()
    }

    fn bytes(&self, purpose: &str) -> [u8; 32] {
        p2plus::crypto::hash::domain_hash("sim key", &[&self.seed.to_le_bytes(), purpose.as_bytes()]).0
    }

    /// One of its signing keys.
    pub fn signing_key(&self, purpose: &str) -> SigningKey {
        SigningKey::from_seed(&self.bytes(purpose))
    }

    /// Its handshake key.
    pub fn transport(&self) -> TransportSecret {
        TransportSecret::from_bytes(self.bytes("transport"))
    }

    /// Its identity.
    pub fn id(&self) -> NodeId {
        self.signing_key("identity").node_id()
    }

    /// Its keys for handshakes in the network with this secret.
    pub fn local_keys(&self) -> LocalKeys {
        LocalKeys::new(self.transport(), self.id(), self.network_id, Secret::new([7; 32]))
    }

    /// Creates the store on the empty disk.
    pub fn create_store(&self, now: Now) -> Store {
        Store::create(self.disk.clone(), Box::new(self.mark.clone()), self.network_id, now.wall, Behind::Refuse)
            .unwrap()
    }

    /// Opens what is on the disk.
    pub fn open_ledger(&self) -> Result<Ledger, OpenError> {
        let store = Store::open(self.disk.clone(), Box::new(self.mark.clone()), self.network_id, Behind::Refuse)?;
        Ledger::open(store, self.ticket.as_ref().and_then(|ticket| ticket.checkpoint))
    }

    /// The machine as a power cut leaves it.
    pub fn after_power_cut(&self, luck: u64) -> Self {
        let (disk, log) = (self.disk.after_power_cut(luck), self.log.after_power_cut(luck));
        Self { disk, log, mark: MemoryMark::new(self.mark.bytes()), last_operation: None, ..self.clone() }
    }

    /// The machine as SIGKILL leaves it.
    pub fn after_kill(&self) -> Self {
        let (disk, log) = (self.disk.after_kill(), self.log.after_kill());
        Self { disk, log, mark: MemoryMark::new(self.mark.bytes()), last_operation: None, ..self.clone() }
    }

    /// Starts a joiner on an empty disk.
    pub fn join(mut self, now: Now, invitation: Invitation, checkpoint: Option<Checkpoint>) -> SimNode {
        let ledger = Ledger::open(self.create_store(now), checkpoint).unwrap();
        let (credential, bootstrap) = (invitation.credential.as_ref(), invitation.bootstrap.clone());
        let secret = credential.map(|credential| *credential.seed());
        self.ticket = Some(Ticket { secret, bootstrap, checkpoint });
        self.start(now, ledger, Some(invitation))
    }

    /// Starts a member from its disk, or a joiner that is not there yet.
    ///
    /// # Errors
    /// When the chain is not fit to be used.
    pub fn restart(self, now: Now) -> Result<SimNode, OpenError> {
        let ledger = self.open_ledger()?;
        let (policy, id) = (ledger.policy(), self.id());
        let is_joiner = policy.member(&id).is_none() && !policy.is_revoked(&id);
        let invitation = self.ticket.as_ref().filter(|_| is_joiner).map(Ticket::invitation);
        Ok(self.start(now, ledger, invitation))
    }

    /// Starts the node with its ledger.
    pub fn start(mut self, now: Now, mut ledger: Ledger, invitation: Option<Invitation>) -> SimNode {
        self.runs += 1;
        if self.is_validator {
            let config = ValidatorConfig {
                key: self.signing_key("validator"),
                log: Box::new(self.log.clone()),
                is_new_key: ledger.head().is_none_or(|head| head.height().0 == 0) && self.runs == 1,
                timeouts: Timeouts::default(),
            };
            ledger.validate(config).unwrap();
        }
        let drops = Arc::new(Drops::new());
        let setup = Setup {
            keys: self.local_keys(),
            signing: SigningKeys { identity: self.signing_key("identity"), node: self.signing_key("node") },
            ledger,
            invitation,
            refusal: None,
            requests: Vec::new(),
            inner_mtu: 1400,
            relay: RelayLimits { is_on: true, member_rate: None, whole_rate: None },
            accepted: Accepted { all: true, ..Accepted::default() },
            ciphers: CipherSet { aes_256_gcm: self.seed.is_multiple_of(2) },
            offload: OffloadSet::default(),
            zone_name: None,
            drops: Arc::clone(&drops),
            rng: ChaCha20Rng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(self.runs)),
        };
        let mut node = Node::new(now, setup);
        node.import_timestamps(self.memory.own, self.memory.timestamps.iter().copied());
        node.remember_endpoints(self.memory.endpoints.iter().copied());
        node.remember_udp_failure(self.memory.udp_failure.clone());
        node.handle_underlay(now, Underlay { endpoints: vec![self.address], connected: Vec::new() });
        let mut sim = SimNode {
            machine: self,
            node,
            drops,
            table: Arc::new(ForwardingTable::empty()),
            outgoing: Outgoing::new(DEVICE_LANE),
            incoming: Incoming::new(OffloadSet::default()),
            outbox: VecDeque::new(),
            streams: Streams::default(),
            spares: Spares::default(),
            delivered: Vec::new(),
            finals: Vec::new(),
            cuts: Vec::new(),
            misbehaved: Vec::new(),
            stopped: None,
            dht: Vec::new(),
            tamper: None,
            remember_at: None,
        };
        sim.settle(now);
        sim
    }
}

/// A packet that the device got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// When.
    pub at: Instant,
    /// What.
    pub packet: UdpPacket,
}

/// What a hostile relay makes of a datagram.
pub type Tamper = fn(Vec<u8>) -> Vec<Vec<u8>>;

/// A running node with its data path and its device.
pub struct SimNode {
    pub machine: Machine,
    pub node: Node<ChaCha20Rng>,
    pub drops: Arc<Drops>,
    pub table: Arc<ForwardingTable>,
    outgoing: Outgoing,
    incoming: Incoming,
    outbox: VecDeque<(Path, Vec<u8>)>,
    pub spares: Spares,
    pub streams: Streams,
    /// Everything that the device got.
    pub delivered: Vec<Delivered>,
    /// The transactions that its user was told are final, and in which block.
    pub finals: Vec<(TxId, u64)>,
    /// Who was cut, and what it was called.
    pub cuts: Vec<(NodeId, String)>,
    /// Contradictions that it saw validators sign.
    pub misbehaved: Vec<String>,
    /// Why the ledger stopped.
    pub stopped: Option<String>,
    /// What it asks the DHT, which nobody answers unasked.
    pub dht: Vec<NodeEvent>,
    /// What a hostile relay does with what it is to pass on: what it sends instead.
    pub tamper: Option<Tamper>,
    remember_at: Option<Instant>,
}

/// Datagrams that [`Outgoing::seal`] made, and where they go.
#[derive(Default)]
struct Sealed {
    room: Vec<u8>,
    datagrams: Vec<(Path, Vec<u8>)>,
}

/// Where [`Opening`] delivers.
struct Host<'n> {
    now: Instant,
    delivered: &'n mut Vec<Delivered>,
    drops: &'n Drops,
}

impl Delivery for Host<'_> {
    fn packet(&mut self, _layer: Layer, _vnet: &VnetHeader, packet: &[u8]) {
        let packet = UdpPacket::decode(packet).expect("the simulator's devices carry UDP alone");
        self.delivered.push(Delivered { at: self.now, packet });
    }

    fn super_packet(&mut self, _packet: &SuperPacket<'_>) {
        panic!("the simulator's devices give and take no super-packets");
    }

    fn dropped(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }
}

impl Outbox for Sealed {
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.room.resize(len, 0);
        Some(&mut self.room)
    }

    fn push(&mut self, len: usize, path: Path, _ecn: Ecn) {
        self.datagrams.push((path, self.room[..len].to_vec()));
    }
}

impl SimNode {
    /// Gives the device a packet to send.
    pub fn send(&mut self, now: Now, packet: &UdpPacket) {
        self.send_bytes(now, &packet.encode());
    }

    /// Gives the device bytes to send.
    pub fn send_bytes(&mut self, now: Now, packet: &[u8]) {
        let mut bytes = packet.to_vec();
        let mut device_packet = DevicePacket { vnet: VnetHeader::default(), bytes: &mut bytes };
        let mut sealed = Sealed::default();
        self.outgoing.device_was_empty(now.instant);
        let mut outcome = self.outgoing.seal(&self.table, now.instant, &mut device_packet, &mut sealed);
        if let Outbound::Measure(to) = outcome {
            self.outgoing.learn_link(now.instant, to, Some(LINK_MTU));
            outcome = self.outgoing.seal(&self.table, now.instant, &mut device_packet, &mut sealed);
        }
        for (reason, count) in self.outgoing.finish(now.instant, &mut sealed) {
            self.drops.add(reason, count as u64);
        }
        sealed.datagrams.into_iter().for_each(|(path, datagram)| self.depart(path, datagram));
        match outcome {
            Outbound::Measure(_) => panic!("the link was measured"),
            Outbound::Sealed => {}
            Outbound::Resolve => panic!("nobody asks for names here"),
            Outbound::Stage(peer) => self.node.handle_unsent(now, peer, Layer::Ip, packet.to_vec()),
            Outbound::Answer(reason, _) | Outbound::Drop(reason) => self.drops.count(reason),
        }
        self.settle(now);
    }

    /// Seals a record of one's own making for a member, past every check of an honest sender. Says whether there was a session.
    pub fn send_record(&mut self, now: Now, peer: &NodeId, lane: Lane, records: &[Vec<u8>]) -> bool {
        let number = (0..).zip(&*self.table.members).find(|(_, member)| *member == peer);
        let number = number.and_then(|(position, _)| PeerIndex::at(position));
        let Some(outlet) = number.and_then(|number| self.table.outlets.get(number)) else { return false };
        let Some(mut sealer) = outlet.session.claim_lane(lane) else { return false };
        let mut sealed = Vec::new();
        for record in records {
            let mut datagram = vec![0; HEADROOM - 1 + record.len() + TAILROOM];
            datagram[HEADROOM - 1..][..record.len()].copy_from_slice(record);
            sealer.seal(now.instant, &mut datagram).unwrap();
            sealed.push((outlet.path, datagram));
        }
        sealed.into_iter().for_each(|(path, datagram)| self.depart(path, datagram));
        true
    }

    /// Acts on the node, as an order of its user does.
    pub fn order<T>(&mut self, now: Now, act: impl FnOnce(&mut Node<ChaCha20Rng>) -> T) -> T {
        let result = act(&mut self.node);
        self.settle(now);
        result
    }

    /// How often something was dropped.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason)
    }

    /// Its overlay address of this version.
    pub fn overlay(&self, is_v6: bool) -> IpAddr {
        let addresses = self.node.addresses();
        addresses.iter().map(|(address, _)| *address).find(|address| address.is_ipv6() == is_v6).unwrap()
    }

    /// Takes the news that a link over TLS ended.
    pub fn lose_stream(&mut self, now: Now, remote: SocketAddr) {
        self.streams.lose(remote);
        self.node.handle_stream_down(now, stream_path(remote));
        self.settle(now);
    }

    /// Takes a datagram that came by a path.
    fn take(&mut self, now: Now, path: Path, mut datagram: Vec<u8>) {
        if self.machine.has_lost_power() {
            return;
        }
        let table = Arc::clone(&self.table);
        let mut host = Host { now: now.instant, delivered: &mut self.delivered, drops: &self.drops };
        self.incoming.socket_was_empty(now.instant);
        let mut opening = Opening::new(&table, &mut self.incoming, now.instant);
        let (inbound, news) = opening.open(path.into(), &mut datagram, &mut host);
        let mut passed = Vec::new();
        match inbound {
            Inbound::Done => {}
            Inbound::Record(index, path, record) => self.node.handle_record(now, index, path, record),
            Inbound::Handshake(_, path, datagram) => self.node.handle_handshake(now, path, datagram),
            Inbound::Pass(path, _, datagram) => {
                let sent = self.tamper.map_or_else(|| vec![datagram.to_vec()], |tamper| tamper(datagram.to_vec()));
                passed.extend(sent.into_iter().map(|datagram| (path, datagram)));
            }
        }
        opening.end(&mut host);
        passed.into_iter().for_each(|(path, datagram)| self.depart(path, datagram));
        if let Some((index, path)) = news {
            self.node.handle_news(now, index, path);
        }
        self.settle(now);
    }

    fn depart(&mut self, path: Path, datagram: Vec<u8>) {
        if path.is_stream() {
            self.streams.send(path, datagram);
        } else {
            self.outbox.push_back((path, datagram));
        }
    }

    fn settle(&mut self, now: Now) {
        if self.machine.has_lost_power() {
            // Whatever the program did after that did not happen, and nobody saw what it did just before.
            self.outbox.clear();
            return;
        }
        while let Some(event) = self.node.poll_event() {
            match event {
                NodeEvent::Publish(table) => self.table = table,
                NodeEvent::Cut(members) => self.cuts.extend(members),
                NodeEvent::Final { transaction, height } => self.finals.push((transaction, height)),
                NodeEvent::Misbehaved(what) => self.misbehaved.push(what),
                NodeEvent::LedgerStopped(reason) => self.stopped = Some(reason),
                NodeEvent::OpenStream { relay, endpoints, .. } => {
                    self.streams.order(now.instant, relay, endpoints[0]);
                }
                NodeEvent::CloseStream(path) => self.streams.close(path),
                NodeEvent::ServeStreams(addresses) => self.streams.listens = !addresses.is_empty(),
                NodeEvent::OpenSpares { count, purpose } => {
                    let opened = self.spares.open(count);
                    self.node.handle_spares(now, purpose, &opened);
                }
                NodeEvent::CloseSpares(positions) => self.spares.close(&positions),
                asked @ (NodeEvent::Store(_) | NodeEvent::LookUp { .. }) => self.dht.push(asked),
                NodeEvent::Remember => {
                    self.remember_at.get_or_insert(now.instant + MEMORY_DELAY);
                }
                _ => {}
            }
        }
        while let Some(Transmit { path, datagram, hop_limit, .. }) = self.node.poll_transmit() {
            // What passes few routers opens a NAT and arrives nowhere.
            let datagram = if hop_limit.is_some() && !path.is_stream() { Vec::new() } else { datagram };
            self.depart(path, datagram);
        }
    }
}

impl Guest for SimNode {
    fn handle_datagram(&mut self, now: Now, port: u16, source: SocketAddr, datagram: Vec<u8>) {
        if let Some(path) = self.spares.path_at(port, source) {
            self.take(now, path, datagram);
        }
    }

    fn handle_stream(&mut self, now: Now, source: SocketAddr, datagram: Vec<u8>) {
        if datagram.is_empty() {
            self.lose_stream(now, source);
        } else {
            self.take(now, stream_path(source), datagram);
        }
    }

    fn poll_stream(&mut self) -> Option<(u16, SocketAddr, Vec<u8>)> {
        self.streams.outbox.pop_front()
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.machine.has_lost_power() {
            return;
        }
        for (relay, path) in self.streams.take_due(now.instant) {
            match path {
                Some(path) => self.node.handle_stream_up(now, relay, path),
                None => self.node.handle_stream_failed(now, relay),
            }
        }
        if self.remember_at.is_some_and(|at| now.instant >= at) {
            self.remember_at = None;
            let (own, timestamps) = self.node.timestamps();
            let (endpoints, udp_failure) = (self.node.known_endpoints(), self.node.udp_failure(now));
            self.machine.memory = Memory { own, timestamps, endpoints, udp_failure };
        }
        if self.node.poll_timeout().is_some_and(|at| now.instant >= at) {
            self.node.handle_timeout(now);
        }
        self.settle(now);
    }

    fn poll_transmit(&mut self, _now: Now) -> Option<(Option<u16>, SocketAddr, Vec<u8>)> {
        loop {
            let (path, datagram) = self.outbox.pop_front()?;
            // What leaves by a closed socket is lost.
            if let Some(port) = self.spares.port_for(&path) {
                return Some((port, path.remote, datagram));
            }
        }
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        if self.machine.has_lost_power() {
            return None;
        }
        [self.node.poll_timeout(), self.remember_at, self.streams.poll_timeout()].into_iter().flatten().min()
    }
}
