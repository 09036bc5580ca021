//! The node: sessions, paths, ledger and streams composed; still pure. The daemon runs it, and so does the simulator.
//!
//! ```text
//!   handshake, control, stream ──► PeerTable ──► ControlLink ──► Ledger, Gossip
//!                                     │                             │ policy
//!        data threads ◄── ForwardingTable ◄───────────────────────── ┘
//! ```
//! Packets of the own device for the resolver's addresses go to [`resolver::Resolver`], and its answers back to the device.
//!
//! Two speeds: [`Node`] (`&mut self`, one thread, slow) decides and publishes an immutable [`table::ForwardingTable`];
//! [`forward`] (any thread, hot) reads it. After every `handle_*` call, `poll_transmit`, `poll_device` and `poll_event` until they give nothing,
//! and call again at `poll_timeout`.

pub mod authoring;
mod behind;
mod calls;
pub mod control;
pub mod dht;
mod ears;
mod event;
mod exchange;
mod fallback;
mod following;
pub mod forward;
pub mod gossip;
pub mod lan;
pub mod membership;
pub mod names;
mod neighbourhood;
mod neighbours;
mod numbering;
mod packet_queue;
mod peer;
pub mod peers;
pub mod pulse;
mod reach;
pub mod reachability;
pub mod relay;
pub mod requests;
pub mod resolver;
mod resolving;
mod routing;
mod searching;
pub mod spares;
pub mod staging;
pub mod status;
pub mod subnets;
pub mod table;

use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::{NodeId, SigningKey};
use crate::ledger::Ledger;
use crate::path::{Path, ProbeId};
use crate::policy::{Policy, PolicyDiff, Subnet};
use crate::session::{LocalKeys, Terms};
use crate::time::{Instant, Now};
use crate::wire::control::Request;
use crate::wire::datagram::SessionIndex;
use crate::wire::drops::{DropReason, Drops};
use crate::wire::frame::{MacAddress, SegmentNumber};
use crate::wire::handshake::{CipherSet, OffloadSet, Timestamp};
use crate::wire::record::ZoneName;
use crate::wire::transport_record::Layer;
use calls::Calls;
use control::{ControlLink, LinkError, LinkId, asks_for_answer};
use dht::Plan;
use ears::Ears;
pub use event::NodeEvent;
use fallback::Fallback;
pub use fallback::UdpFailure;
use gossip::Gossip;
use lan::LanView;
use membership::{Invitation, Membership, Refusal};
use neighbours::Choice;
use peers::{Context, PeerEvent, PeerTable, Transmit};
use pulse::Pulse;
use rand_core::CryptoRng;
use reach::Reach;
pub use reach::Underlay;
use relay::{RelayLimits, Relaying};
use requests::Requests;
use resolver::Resolver;
pub use routing::OwnSegment;
use routing::Routing;
use searching::Searches;
use spares::OpenSpares;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use subnets::Accepted;

/// Signing keys that a node may hold.
pub struct SigningKeys {
    /// Who it is; signs transactions.
    pub identity: SigningKey,
    /// Signs node records.
    pub node: SigningKey,
}

/// What a node starts with.
pub struct Setup<R> {
    /// Its keys for handshakes.
    pub keys: LocalKeys,
    /// Its keys for signatures.
    pub signing: SigningKeys,
    /// Its ledger, empty for a joiner.
    pub ledger: Ledger,
    /// How it became, or is to become, a member.
    pub invitation: Option<Invitation>,
    /// Why an earlier run was refused, when there is no newer invitation.
    pub refusal: Option<Refusal>,
    /// What its user accepts of what lies behind other members.
    pub accepted: Accepted,
    /// What it asks signers for.
    pub requests: Vec<Request>,
    /// The longest packet that a host gives or takes, in bytes.
    pub inner_mtu: u16,
    /// Whether it passes on for others, and how much.
    pub relay: RelayLimits,
    /// The ciphers that are fast here.
    pub ciphers: CipherSet,
    /// The super-packets that the device takes.
    pub offload: OffloadSet,
    /// The suffix of the network's names on this host; none where nobody is to ask for them.
    pub zone_name: Option<ZoneName>,
    /// Where drops are counted.
    pub drops: Arc<Drops>,
    /// Entropy.
    pub rng: R,
}

/// One node of one network.
pub struct Node<R> {
    rng: R,
    signing: SigningKeys,
    own_id: NodeId,
    ledger: Ledger,
    policy: Arc<Policy>,
    peers: PeerTable,
    link: ControlLink,
    gossip: Gossip,
    reach: Reach,
    choice: Choice,
    relaying: Relaying,
    calls: Calls,
    fallback: Fallback,
    ears: Ears,
    searches: Searches,
    spares: OpenSpares,
    /// What is due with the DHT.
    dht: Plan,
    /// What was last said of members on LANs.
    lan: Option<LanView>,
    routing: Routing,
    requests: Requests,
    /// The subnets behind this node, and whether it is an exit.
    own_part: (Vec<Subnet>, bool),
    resolver: Resolver,
    zone_name: Option<ZoneName>,
    membership: Membership,
    pulse: Pulse,
    /// When a validator last told of its head.
    heads_heard: BTreeMap<TransportKey, Instant>,
    /// Why this validator votes no more.
    silenced: Option<String>,
    /// When a peer was last greeted.
    greeted: BTreeMap<TransportKey, Instant>,
    /// When the routers of subnets are looked at again.
    routers_at: Instant,
    started: Instant,
    drops: Arc<Drops>,
    events: VecDeque<NodeEvent>,
}

impl<R: CryptoRng> Node<R> {
    /// Starts a node with what it has on disk.
    pub fn new(now: Now, setup: Setup<R>) -> Self {
        let Setup {
            keys,
            signing,
            ledger,
            invitation,
            refusal,
            accepted,
            requests,
            inner_mtu,
            relay,
            ciphers,
            offload,
            zone_name,
            drops,
            mut rng,
        } = setup;
        let own_id = keys.node_id;
        let network_id = keys.network_id;
        let link = ControlLink::new(LinkId(keys.transport_key()), &mut rng);
        let terms = Terms { ciphers, offload, ..Terms::default() };
        let mut node = Self {
            peers: PeerTable::new(now, keys, terms, Arc::clone(&drops), &mut rng),
            rng,
            signing,
            own_id,
            ledger,
            policy: Arc::new(Policy::default()),
            link,
            gossip: Gossip::new(own_id, network_id),
            reach: Reach::new(),
            choice: Choice::default(),
            relaying: Relaying::new(relay),
            calls: Calls::default(),
            fallback: Fallback::default(),
            ears: Ears::default(),
            searches: Searches::default(),
            spares: OpenSpares::new(),
            dht: Plan::default(),
            lan: None,
            routing: Routing::new(now.instant, accepted),
            requests: Requests::new(requests),
            own_part: Default::default(),
            resolver: Resolver::new(),
            zone_name,
            membership: Membership::new(invitation, refusal),
            pulse: Pulse::new(now),
            heads_heard: BTreeMap::new(),
            silenced: None,
            greeted: BTreeMap::new(),
            routers_at: now.instant,
            started: now.instant,
            drops,
            events: VecDeque::new(),
        };
        node.peers.set_inner_mtu(inner_mtu);
        node.invite_bootstrap();
        if node.ledger.policy().member(&own_id).is_some() {
            node.reach.start_anew(now.instant);
        }
        let policy = node.ledger.policy();
        let diff = PolicyDiff::between(&node.policy, &policy);
        node.follow_policy(now, &diff);
        node.settle(now);
        node
    }

    /// Takes a handshake datagram or a cookie.
    pub fn handle_handshake(&mut self, now: Now, path: Path, datagram: &[u8]) {
        self.notice(now);
        let (peers, mut ctx) = self.peers_and_context(now);
        peers.handle_handshake(&mut ctx, path, datagram);
        self.settle(now);
    }

    /// Takes an opened record that is not an inner packet.
    pub fn handle_record(&mut self, now: Now, index: SessionIndex, path: Path, record: &[u8]) {
        self.notice(now);
        if self.is_at_ear(now.instant, &path) {
            self.handle_at_ear(now, index, path, record);
        } else {
            let (peers, mut ctx) = self.peers_and_context(now);
            peers.handle_record(&mut ctx, index, path, record);
        }
        self.settle(now);
    }

    /// Takes the news that something authentic came in a session that waits for it, or from an unexpected endpoint.
    pub fn handle_news(&mut self, now: Now, index: SessionIndex, path: Path) {
        self.notice(now);
        if !self.is_at_ear(now.instant, &path) {
            let (peers, mut ctx) = self.peers_and_context(now);
            peers.handle_news(&mut ctx, index, path);
        }
        self.settle(now);
    }

    /// Takes an inner packet, or a frame, for a member that there is no session with.
    pub fn handle_unsent(&mut self, now: Now, peer: NodeId, layer: Layer, packet: Vec<u8>) {
        self.notice(now);
        let (peers, mut ctx) = self.peers_and_context(now);
        peers.stage(&mut ctx, peer, layer, packet);
        self.settle(now);
    }

    /// Takes where this node is on the underlay, as the host and the configuration say. Sessions move by themselves; records follow.
    pub fn handle_underlay(&mut self, now: Now, underlay: Underlay) {
        self.notice(now);
        let is_elsewhere = self.reach.set_local(underlay);
        self.peers.set_surroundings(self.reach.surroundings());
        if is_elsewhere {
            self.peers.forget_local_ends();
            self.ears.move_on();
            self.stop_searches();
            self.dht.hurry(now.instant);
            self.publish_record(now);
            self.forget_udp_failure(now);
            let (peers, mut ctx) = self.peers_and_context(now);
            peers.handle_underlay_change(&mut ctx);
        }
        self.settle(now);
    }

    /// Notices, before anything else is done, that the machine slept or its clock jumped: sessions are renewed before they carry more.
    fn notice(&mut self, now: Now) {
        if self.pulse.beat(now) {
            tracing::info!("the machine slept or its clock jumped: sessions are renewed");
            let (peers, mut ctx) = self.peers_and_context(now);
            peers.handle_clock_jump(&mut ctx);
        }
    }

    /// Acts on the deadlines that have come.
    pub fn handle_timeout(&mut self, now: Now) {
        self.notice(now);
        let (peers, mut ctx) = self.peers_and_context(now);
        peers.handle_timeout(&mut ctx);
        self.link.handle_timeout(now.instant);
        self.resolver.handle_timeout(now.instant);
        self.ledger.handle_timeout(now);
        self.tend_neighbours(now);
        self.tend_membership(now);
        self.tend_relaying(now);
        self.tend_streams(now);
        self.tend_ears(now);
        self.tend_searches(now);
        self.tend_dht(now);
        self.watch_routers(now);
        self.settle(now);
    }

    /// When `handle_timeout` is due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let has_rivals = !self.routing.behind_others().rivals().is_empty();
        [
            self.peers.poll_timeout(),
            self.link.poll_timeout(),
            self.resolver.poll_timeout(),
            self.ledger.poll_timeout().map(|(at, _)| at),
            Some(self.gossip.poll_timeout()),
            Some(self.reach.poll_timeout()),
            self.relaying.poll_timeout(),
            self.stream_timeout(),
            self.ears.poll_timeout(),
            self.searches.poll_timeout(),
            self.dht.poll_timeout(),
            self.membership.poll_timeout(),
            has_rivals.then_some(self.routers_at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.peers.poll_transmit()
    }

    /// The next thing that the shell is told.
    pub fn poll_event(&mut self) -> Option<NodeEvent> {
        self.events.pop_front()
    }

    /// Probes a member, over a handshake when need be. Returns the probe's id once one is on its way.
    pub fn ping(&mut self, now: Now, key: TransportKey) -> Option<ProbeId> {
        self.notice(now);
        let (peers, mut ctx) = self.peers_and_context(now);
        let probe = peers.ping(&mut ctx, key);
        self.settle(now);
        probe
    }

    /// Lists the stations that were heard behind the bridges of a segment, each with the member whose bridge it is, this node by `None`, and
    /// the time since.
    pub fn stations(&self, now: Instant, segment: SegmentNumber) -> Vec<(MacAddress, Option<NodeId>, Duration)> {
        self.routing.stations(now, segment)
    }

    /// Says goodbye to all peers, at the end of the daemon.
    pub fn say_goodbye(&mut self, now: Now) {
        self.notice(now);
        self.peers.say_goodbye(now);
    }

    /// Takes what an earlier run stored of handshakes: the own last one, and those that must not come again.
    pub fn import_timestamps(&mut self, own: Timestamp, known: impl IntoIterator<Item = (TransportKey, Timestamp)>) {
        self.peers.import_timestamps(own, known);
    }

    /// What to store of handshakes.
    pub fn timestamps(&self) -> (Timestamp, Vec<(TransportKey, Timestamp)>) {
        let (own, known) = self.peers.timestamps();
        (own, known.map(|(key, timestamp)| (*key, *timestamp)).collect())
    }

    fn peers_and_context(&mut self, now: Now) -> (&mut PeerTable, Context<'_, R>) {
        (&mut self.peers, Context { now, policy: &self.policy, rng: &mut self.rng })
    }

    /// Passes on what the parts have to say to each other, until they are silent; then publishes.
    fn settle(&mut self, now: Now) {
        // Orders of the user begin here.
        self.notice(now);
        loop {
            if let Some(event) = self.peers.poll_event() {
                self.handle_peer_event(now, event);
            } else if let Some((peer, service, message)) = self.link.poll_message() {
                self.handle_message(now, peer.0, service, &message);
            } else if let Some((recipient, message)) = self.ledger.poll_message() {
                self.send_ledger(now, recipient, &message);
            } else if let Some(event) = self.ledger.poll_event() {
                self.handle_ledger_event(now, event);
            } else if let Some((peer, packet)) = self.link.poll_transmit() {
                // Without a session TCP will send it again.
                let _ = self.peers.send_stream(now, peer.0, &packet, asks_for_answer(&packet));
            } else if let Some(event) = self.link.poll_event() {
                self.handle_broken(now, event);
            } else {
                break;
            }
        }
        if let Some(change) = self.peers.take_change() {
            self.review_spares();
            let direct = |key: &TransportKey| self.peers.direct_path(key);
            let labels = || self.relaying.labels(self.peers.relayed_ways(), direct);
            let table = Arc::new(self.routing.table(&self.peers, (change, labels), self.pulse.heartbeat()));
            self.tell(NodeEvent::Publish(table));
        }
    }

    fn handle_peer_event(&mut self, now: Now, event: PeerEvent) {
        match event {
            PeerEvent::Up(key, rights) => {
                self.look_at_stream(now, key);
                self.handle_up(now, key, rights);
                self.peers.doubt_relay(&key);
                self.relay_reached(now, key);
                self.call_if_relayed(now, key);
            }
            PeerEvent::Down(key) => {
                self.relay_lost(now, key);
                self.calls.forget(&key);
                self.gossip.part_from(&key);
                self.link.close_peer(LinkId(key));
                self.greeted.remove(&key);
                self.reach.forget_observer(&key);
                self.ledger.handle_session_end(now, &key);
            }
            PeerEvent::Ledger(key, bytes) => self.handle_ledger_bytes(now, key, &bytes),
            PeerEvent::Stream(key, packet) => {
                if let Err(error) = self.link.handle_packet(now.instant, LinkId(key), &packet) {
                    tracing::debug!(?key, %error, "control packet refused");
                    if error != LinkError::TooEarly {
                        self.drops.count(DropReason::ControlRefused);
                    }
                }
            }
            PeerEvent::Pong(peer, probe, rtt) => self.tell(NodeEvent::Pong { peer, probe, rtt }),
            PeerEvent::Observed(key, endpoint) => self.handle_observed(now, key, endpoint),
            PeerEvent::Damaged(peer, path) => self.tell(NodeEvent::Damaged { peer, path }),
            PeerEvent::Moved(key) => {
                if self.peers.peer(&key).is_some_and(|peer| peer.paths.path().is_none()) {
                    self.connect(now, key);
                }
                self.look_at_stream(now, key);
                self.end_searches(now);
                self.relay_reached(now, key);
                self.call_if_relayed(now, key);
                self.tell(NodeEvent::Remember);
            }
            PeerEvent::Timestamp(..) => self.tell(NodeEvent::Remember),
            PeerEvent::Sought(key) => {
                self.look_up_soon(now, &key);
                self.seek(now, key);
            }
            PeerEvent::Reached(by, endpoint) => self.handle_reached(now, by, endpoint),
            PeerEvent::Ways(key, message) => self.handle_ways(now, key, message),
        }
    }

    fn tell(&mut self, event: NodeEvent) {
        self.events.push_back(event);
    }
}
