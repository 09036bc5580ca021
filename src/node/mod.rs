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
mod ears;
mod exchange;
mod fallback;
pub mod forward;
pub mod gossip;
pub mod lan;
pub mod membership;
pub mod names;
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
use crate::crypto::identity::{NodeId, SigningKey, VerifyingKey};
use crate::ledger::address::{ipv6_prefix, resolver_ipv4, resolver_ipv6};
use crate::ledger::{Ledger, TxId};
use crate::path::{Path, ProbeId};
use crate::policy::{Policy, PolicyDiff, Subnet};
use crate::router::Prefix;
use crate::router::icmp::AnswerSources;
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
use control::{ControlLink, LinkError, LinkId};
use ears::Ears;
use fallback::Fallback;
use gossip::Gossip;
use lan::LanView;
use membership::{Invitation, Membership, Refusal};
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
use spares::{OpenSpares, SparePurpose};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use subnets::Accepted;
use table::ForwardingTable;

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

/// What the shell is told.
pub enum NodeEvent {
    /// Give this table to the data threads.
    Publish(Arc<ForwardingTable>),
    /// Give the device these addresses, each with its prefix length, and take away all others.
    Configure(Vec<(IpAddr, u8)>),
    /// The user accepts this of what lies behind other members, from now on and in the runs to come.
    Accepted(Accepted),
    /// This node asks signers for this, from now on and in the runs to come.
    Requested(Vec<Request>),
    /// A signer refused what this node asked for.
    RequestRefused {
        /// The signer's name.
        by: String,
    },
    /// What lies behind this node or behind others changed, or who is used for it.
    Routes,
    /// Have a device for each of these segments, and for no other.
    Segments(Vec<OwnSegment>),
    /// Members were cut just now, each with the name that it had.
    Cut(Vec<(NodeId, String)>),
    /// The ledger has a new block.
    Block {
        /// Its height.
        height: u64,
    },
    /// This node's standing changed.
    Standing(membership::Standing),
    /// A transaction is in a block that is on disk.
    Final {
        /// Which one.
        transaction: TxId,
        /// The block's height.
        height: u64,
    },
    /// A transaction that waited here does not apply any more.
    Dropped {
        /// Which one.
        transaction: TxId,
        /// Why.
        reason: String,
    },
    /// The ledger of this node stopped; tunnels stay.
    LedgerStopped(String),
    /// What is sent to a peer by a path arrives damaged: let nobody cut it on the way.
    Damaged {
        /// Who says so.
        peer: TransportKey,
        /// The path.
        path: Path,
    },
    /// A validator signed two things that exclude each other; shows both.
    Misbehaved(String),
    /// A probe was answered.
    Pong {
        /// By whom.
        peer: TransportKey,
        /// Which.
        probe: ProbeId,
        /// The round trip.
        rtt: Duration,
    },
    /// Open a link over TLS to a relay, and tell whether it is there: [`Node::handle_stream_up`], [`Node::handle_stream_failed`].
    OpenStream {
        /// The relay.
        relay: NodeId,
        /// The key that it has to show.
        key: VerifyingKey,
        /// Where it listens.
        endpoints: Vec<SocketAddr>,
    },
    /// Close the link over TLS that this path is.
    CloseStream(Path),
    /// Listen for links over TLS at these addresses, and at no others.
    ServeStreams(Vec<SocketAddr>),
    /// Open so many sockets beside those that the node listens on, for datagrams over IPv4, and tell which there are: [`Node::handle_spares`].
    OpenSpares {
        /// How many; fewer are of use, too.
        count: usize,
        /// What they are for.
        purpose: SparePurpose,
    },
    /// Close those of these sockets, by their positions.
    CloseSpares(BTreeSet<u8>),
    /// Store the handshakes that must not be replayed, and where peers were, some time soon.
    Remember,
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
    relaying: Relaying,
    calls: Calls,
    fallback: Fallback,
    ears: Ears,
    searches: Searches,
    spares: OpenSpares,
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
            relaying: Relaying::new(relay),
            calls: Calls::default(),
            fallback: Fallback::default(),
            ears: Ears::default(),
            searches: Searches::default(),
            spares: OpenSpares::new(),
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
                let _ = self.peers.send_stream(now, peer.0, &packet);
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
                self.relay_reached(now, key);
                self.call_if_relayed(now, key);
            }
            PeerEvent::Down(key) => {
                self.relay_lost(now, key);
                self.calls.forget(&key);
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
            PeerEvent::Sought(key) => self.seek(now, key),
            PeerEvent::Reached(by, endpoint) => self.handle_reached(now, by, endpoint),
            PeerEvent::Ways(key, message) => self.handle_ways(now, key, message),
        }
    }

    /// Takes the ledger's policy in force: who was cut loses everything here at once.
    fn follow_policy(&mut self, now: Now, diff: &PolicyDiff) {
        let removed: Vec<_> = diff.removed.iter().filter_map(|id| self.policy.member(id)).cloned().collect();
        let cut: Vec<_> = removed.iter().map(|member| (member.id, member.name.clone())).collect();
        let keys: Vec<_> = removed.iter().map(|member| (member.id, member.transport_key)).collect();
        self.policy = self.ledger.policy();
        let (peers, mut ctx) = self.peers_and_context(now);
        peers.handle_policy(&mut ctx, diff);
        self.cut_ways(now, &keys);
        for (_, key) in &keys {
            self.ears.forget(key);
            self.forget_search(key);
        }
        self.learn_static(diff.admitted.iter().chain(&diff.changed));
        self.gossip.forget(&diff.removed);
        self.routing.forget(&diff.removed);
        let policy = &self.policy;
        self.heads_heard.retain(|key, _| policy.is_validator(key));
        if !diff.admitted.is_empty() {
            // A record may have come before the block that admitted its node, and was refused.
            self.gossip.hurry();
        }
        self.routing.set_answer_sources(answer_sources(&self.ledger));
        let before = (self.subnet_routes(), self.own_part.clone());
        let own = self.policy.member(&self.own_id);
        self.own_part = own.map(|member| (member.subnets.clone(), member.is_exit)).unwrap_or_default();
        if self.routing.handle_policy(&self.own_id, &self.policy, subnets(&self.ledger)) {
            self.tell(NodeEvent::Configure(self.routing.interface_addresses()));
        }
        if before != (self.subnet_routes(), self.own_part.clone()) {
            self.tell(NodeEvent::Routes);
        }
        self.follow_names();
        self.follow_stream_relays(now);
        if self.routing.handle_segments(&self.own_id, &self.policy) {
            self.tell(NodeEvent::Segments(self.routing.own_segments().to_vec()));
        }
        let is_member = self.policy.member(&self.own_id).is_some();
        let became = self.membership.handle_policy(is_member, self.policy.is_revoked(&self.own_id));
        if became {
            self.enter(now);
        }
        self.review_requests(now);
        self.tell_standing();
        if !cut.is_empty() {
            self.tell(NodeEvent::Cut(cut));
        }
        self.reach.hurry();
    }

    /// Tells the shell this node's standing if it changed.
    fn tell_standing(&mut self) {
        if let Some(standing) = self.membership.take_news() {
            self.tell(NodeEvent::Standing(standing));
        }
    }

    fn tell(&mut self, event: NodeEvent) {
        self.events.push_back(event);
    }
}

/// The subnet of a network's IPv6 addresses: host parts have 64 bits (RFC 4291 §2.5.1).
const IPV6_PREFIX_LEN: u8 = 64;

/// What ICMP answers come from: the resolver's addresses, which no node gets, so that no host takes one for its own.
fn answer_sources(ledger: &Ledger) -> AnswerSources {
    let state = ledger.state();
    let Some(network) = state.network() else { return AnswerSources::default() };
    let v4 = network.ipv4.pool(state.network_id()).and_then(|pool| resolver_ipv4(&pool));
    AnswerSources { v4, v6: Some(resolver_ipv6(state.network_id())) }
}

/// The overlay's own subnets: the IPv4 pool, when the network has one, and the IPv6 /64.
fn subnets(ledger: &Ledger) -> Vec<Prefix> {
    let state = ledger.state();
    let Some(network) = state.network() else { return Vec::new() };
    let ipv4 = network.ipv4.pool(state.network_id()).map(|pool| (IpAddr::V4(pool.base()), pool.len()));
    let ipv6 = (IpAddr::V6(ipv6_prefix(state.network_id())), IPV6_PREFIX_LEN);
    ipv4.into_iter().chain([ipv6]).filter_map(|(base, len)| Prefix::new(base, len).ok()).collect()
}
