//! A network of whole nodes, from its founding on: what every scenario begins with.

use crate::machine::{Machine, SimNode};
use crate::nat::{Nat, NatType};
use crate::packet::UdpPacket;
use crate::world::{Weather, World};
use p2plus::crypto::hash::Digest;
use p2plus::crypto::identity::NodeId;
use p2plus::ledger::address::Ipv4Choice;
use p2plus::ledger::chain::Checkpoint;
use p2plus::ledger::genesis::{Founding, Genesis};
use p2plus::ledger::operation::{Admit, PROTOCOL_VERSION};
use p2plus::ledger::tree::MemoryTree;
use p2plus::ledger::{Ledger, Seat, Seats, Validator};
use p2plus::node::authoring::InvitationTerms;
use p2plus::node::membership::{Bootstrap, Invitation};
use p2plus::policy::Member;
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Longer than anything that ends takes.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The loss, duplication and reordering that scenarios run under.
pub const WEATHERS: [Weather; 3] = [Weather::FAIR, Weather::foul(5), Weather::foul(20)];

/// The nodes in the order of their coming; 0 is the founder.
pub struct Overlay {
    pub world: World<SimNode>,
    pub addresses: Vec<SocketAddr>,
    seed: u64,
    network_id: Digest,
    sent: u64,
}

/// The underlay address of the node with this number: IPv6 for every third.
pub fn address(number: usize) -> SocketAddr {
    let number = u16::try_from(number).unwrap();
    let ip: IpAddr = if number % 3 == 2 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number + 1).into()
    } else {
        [192, 0, 2, u8::try_from(number + 1).unwrap()].into()
    };
    SocketAddr::new(ip, 4647)
}

fn seat(machine: &Machine) -> Seat {
    let validator = Validator { key: machine.signing_key("validator").verifying_key(), power: 1 };
    Seat { validator, node: machine.id(), transport_key: machine.transport().public_key() }
}

/// What admits a machine under its number.
pub fn admission(number: usize, machine: &Machine) -> Admit {
    Admit {
        identity: machine.id(),
        node_key: machine.signing_key("node").verifying_key(),
        transport_key: machine.transport().public_key(),
        name: Some(format!("node-{number}").parse().unwrap()),
        tags: BTreeSet::new(),
        ipv4: None,
        expires: None,
        incarnation: 0,
    }
}

fn terms(number: usize) -> InvitationTerms {
    InvitationTerms {
        name: Some(format!("node-{number}").parse().unwrap()),
        tags: BTreeSet::new(),
        uses: 1,
        lifetime: Duration::from_secs(3600),
    }
}

impl Overlay {
    /// A network with its founder, running.
    pub fn found(seed: u64, weather: Weather) -> Self {
        Self::found_by(1, seed, weather)
    }

    /// A network with its first members, running. All of them are validators of the same power; the first one alone governs.
    pub fn found_by(count: usize, seed: u64, weather: Weather) -> Self {
        Self::found_with(count, seed, weather, Ipv4Choice::Derived)
    }

    /// The same, with these addresses of IPv4: the derived ones are enough for 4,000.
    pub fn found_with(count: usize, seed: u64, weather: Weather, ipv4: Ipv4Choice) -> Self {
        let mut world = World::new(seed, weather);
        let now = world.now();
        let machine =
            |number: usize, network_id| Machine::new(seed * 1000 + number as u64, address(number), network_id);
        let machines: Vec<_> = (0..count).map(|number| machine(number, Digest::default())).collect();
        let founder = &machines[0];
        let founding = Founding {
            name: "lab".parse().unwrap(),
            ipv4,
            time: now.wall,
            identity: &founder.signing_key("identity"),
            node_key: founder.signing_key("node").verifying_key(),
            transport_key: founder.transport().public_key(),
            member_name: Some("node-0".parse().unwrap()),
            others: (1..count).map(|number| admission(number, &machines[number])).collect(),
            signer: &founder.signing_key("identity"),
            seats: Seats::new(machines.iter().map(seat).collect()).unwrap(),
            recovery: BTreeSet::from([founder.signing_key("recovery").verifying_key()]),
            recovery_needed: 1,
            protocol_version: PROTOCOL_VERSION,
        };
        let genesis = Genesis::create(&founding, &MemoryTree::default()).unwrap();
        let network_id = genesis.network_id();
        let endpoints: Vec<_> = machines.iter().map(|machine| (machine.id(), machine.address)).collect();
        for number in 0..count {
            let mut machine = machine(number, network_id);
            machine.is_validator = true;
            machine.remember(endpoints.iter().copied().filter(|(id, _)| *id != machine.id()).collect());
            let ledger = Ledger::create(machine.create_store(now), &genesis).unwrap();
            world.insert(address(number), machine.start(now, ledger, None));
        }
        Self { world, addresses: (0..count).map(address).collect(), seed, network_id, sent: 0 }
    }

    /// A network of `count` members that all know each other.
    pub fn of(count: usize, seed: u64, weather: Weather) -> Self {
        let mut overlay = Self::found(seed, weather);
        while overlay.addresses.len() < count {
            overlay.invite_one();
        }
        overlay.wait_for_everybody();
        overlay
    }

    /// What all its keys and its luck follow from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The network's id.
    pub fn network_id(&self) -> Digest {
        self.network_id
    }

    /// Waits until every running node holds the same chain, with every node as a member.
    pub fn wait_for_everybody(&mut self) {
        let count = self.addresses.len();
        let everybody = |world: &World<SimNode>| {
            world.addresses().iter().all(|at| world.host(*at).node.policy().members().count() == count)
        };
        assert!(self.world.run_until(PATIENCE, everybody).is_some(), "{}", self.standings());
    }

    /// What each node is, for messages.
    pub fn standings(&self) -> String {
        let line = |at: SocketAddr| {
            let node = &self.world.host(at).node;
            let height = node.ledger().head().map(|head| head.height());
            format!("{at}: {:?}, {height:?}, {} members", node.standing(), node.policy().members().count())
        };
        self.world.addresses().into_iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Invites one more node, by the founder; returns its number.
    pub fn invite_one(&mut self) -> usize {
        self.try_invite_one().unwrap()
    }

    /// The same, by a founder that may lose its power meanwhile: then there is no ticket.
    pub fn try_invite_one(&mut self) -> Option<usize> {
        self.try_invite_at(address(self.addresses.len()))
    }

    /// Invites one more node, which is behind a NAT of its own; returns its number.
    pub fn invite_behind(&mut self, kind: NatType) -> usize {
        let number = u8::try_from(self.addresses.len()).unwrap();
        let inside = SocketAddr::from(([10, 0, number, 2], 4647));
        self.world.put_behind(inside, Nat::new(kind, [203, 0, 113, number + 1].into()));
        self.try_invite_at(inside).unwrap()
    }

    fn try_invite_at(&mut self, place: SocketAddr) -> Option<usize> {
        let number = self.addresses.len();
        let at = self.addresses[0];
        let secret = loop {
            let issued = self.world.with(at, |host, now| host.order(now, |node| node.invite(now, terms(number))));
            if self.node(0).machine.has_lost_power() {
                return None;
            }
            let issued = issued.unwrap();
            let id = issued.tx;
            let waits = |host: &SimNode| host.node.ledger().pending().iter().any(|(pending, _)| *pending == id);
            let is_settled = |world: &World<SimNode>| world.host(at).machine.has_lost_power() || !waits(world.host(at));
            assert!(self.world.run_until(PATIENCE, is_settled).is_some(), "{}", self.standings());
            let host = self.node(0);
            if host.machine.has_lost_power() {
                return None;
            }
            // What a crash left in the log may have come first, and have taken its place.
            if host.finals.iter().any(|(known, _)| *known == id) {
                break issued.secret;
            }
        };
        let founder = &self.world.host(at).machine;
        let host = Bootstrap {
            id: founder.id(),
            transport_key: founder.transport().public_key(),
            endpoints: vec![founder.address],
        };
        let invitation = Invitation { credential: Some(secret), name: None, bootstrap: vec![host] };
        self.join_at(invitation, place);
        Some(number)
    }

    /// Starts a joiner with this invitation; returns its number.
    pub fn join(&mut self, invitation: Invitation) -> usize {
        self.join_at(invitation, address(self.addresses.len()))
    }

    fn join_at(&mut self, invitation: Invitation, place: SocketAddr) -> usize {
        let number = self.addresses.len();
        let now = self.world.now_at(place);
        let head = self.world.host(self.addresses[0]).node.ledger().head().unwrap();
        let checkpoint = Checkpoint { height: head.height(), id: head.id };
        let machine = Machine::new(self.seed * 1000 + number as u64, place, self.network_id);
        self.world.insert(place, machine.join(now, invitation, Some(checkpoint)));
        self.addresses.push(place);
        number
    }

    /// Lends a node.
    pub fn node(&self, number: usize) -> &SimNode {
        self.world.host(self.addresses[number])
    }

    /// Acts on a node as its user does.
    pub fn order<T>(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut p2plus::node::Node<rand_chacha::ChaCha20Rng>, p2plus::time::Now) -> T,
    ) -> T {
        self.world.with(self.addresses[number], |host, now| host.order(now, |node| act(node, now)))
    }

    /// The identity of a node.
    pub fn id(&self, number: usize) -> NodeId {
        self.node(number).machine.id()
    }

    /// A node as a member, in the founder's eyes.
    pub fn member(&self, number: usize) -> Member {
        self.node(0).node.policy().member(&self.id(number)).unwrap().clone()
    }

    /// Builds a packet between two members that is like no other.
    pub fn packet(&mut self, from: usize, to: usize, is_v6: bool) -> UdpPacket {
        self.sent += 1;
        let payload = format!("packet {} from {from} to {to}", self.sent).into_bytes();
        let (source, destination) = (self.node(from).overlay(is_v6), self.node(to).overlay(is_v6));
        UdpPacket { source, destination, payload }
    }

    /// Sends a fresh packet, and returns it.
    pub fn send(&mut self, from: usize, to: usize, is_v6: bool) -> UdpPacket {
        let packet = self.packet(from, to, is_v6);
        self.world.with(self.addresses[from], |host, now| host.send(now, &packet));
        packet
    }

    /// How often a node's device got a packet.
    pub fn received(&self, number: usize, packet: &UdpPacket) -> usize {
        self.node(number).delivered.iter().filter(|delivered| delivered.packet == *packet).count()
    }

    /// Sends fresh packets, one a second, until one arrives. Returns the time from the first one to its arrival.
    pub fn talk(&mut self, from: usize, to: usize, is_v6: bool, limit: Duration) -> Option<Duration> {
        let start = self.world.now().instant;
        let mut sent = VecDeque::new();
        while self.world.now().instant < start + limit {
            sent.push_back(self.send(from, to, is_v6));
            let at = self.addresses[to];
            let arrived = |world: &World<SimNode>| {
                world.host(at).delivered.iter().any(|delivered| sent.contains(&delivered.packet))
            };
            if self.world.run_until(Duration::from_secs(1), arrived).is_some() {
                return Some(self.world.now().instant.saturating_since(start));
            }
        }
        None
    }

    /// Asserts that no device got a packet twice.
    pub fn assert_no_duplicates(&self) {
        for at in self.world.addresses() {
            let packets: Vec<_> = self.world.host(at).delivered.iter().map(|delivered| &delivered.packet).collect();
            let distinct: BTreeSet<_> = packets.iter().collect();
            assert_eq!(distinct.len(), packets.len(), "a device got a packet twice at {at}");
        }
    }

    /// Kills a node, and returns what is left of it.
    pub fn kill(&mut self, number: usize) -> Machine {
        self.world.remove(self.addresses[number]).unwrap().machine.after_kill()
    }

    /// Starts a killed node again.
    pub fn revive(&mut self, machine: Machine) {
        let now = self.world.now_at(machine.address);
        self.world.insert(machine.address, machine.restart(now).unwrap());
    }

    /// Sends a packet every 20 ms both ways for a while. Returns the longest time without one that arrived, one way.
    pub fn longest_gap(&mut self, [from, to]: [usize; 2], span: Duration) -> Duration {
        let start = self.world.now().instant;
        let (mut last, mut longest, mut sent) = (start, Duration::ZERO, Vec::new());
        while self.world.now().instant < start + span {
            sent.push(self.send(from, to, false));
            self.send(to, from, false);
            self.world.run_for(Duration::from_millis(20));
            let now = self.world.now().instant;
            let before = sent.len();
            sent.retain(|packet| self.received(to, packet) == 0);
            if sent.len() < before {
                last = now;
            }
            longest = longest.max(now.saturating_since(last));
        }
        longest
    }
}
