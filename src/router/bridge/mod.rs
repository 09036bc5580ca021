//! The segments of the link layer: which station is behind which member, and what may cross.
//!
//! ```text
//!   TAP ──► outbound(frame) ──► one peer | those that want it | an answer at once      peer ──► inbound(peer, frame) ──► TAP
//!              └─ source, guard, learn, listeners, limit                                 └─ source, guard, learn, listeners, limit
//! ```
//! A segment is a full mesh: a frame goes from the member where it entered straight to those where it leaves, and is never passed on by a
//! third. Owns the node's own segments as an immutable value that the slow node builds, and beside it what the data threads learn, which
//! outlasts the value. Knows nothing of sessions and devices.

mod groups;
mod guard;
mod neighbours;
mod stations;
mod storm;
#[cfg(test)]
mod tests;

use super::{PeerIndex, Prefix};
use crate::crypto::hash::domain_hash;
use crate::crypto::identity::NodeId;
use crate::time::Instant;
use crate::wire::drops::DropReason;
use crate::wire::frame::{Frame, MacAddress, SegmentNumber};
use crate::wire::neighbour::LinkMessage;
use groups::Groups;
use neighbours::Neighbours;
use stations::Stations;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use storm::Storm;

/// Where a station is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// Behind this node's own device.
    Local,
    /// Behind a peer.
    Peer(PeerIndex),
}

/// What a member is in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Role {
    /// The address of its device: nobody else's.
    pub mac: MacAddress,
    /// It vouches for the stations of a network behind it.
    pub is_bridge: bool,
    /// Routers and DHCP servers may speak from there.
    pub is_gateway: bool,
}

impl Role {
    /// That of a member which is neither bridge nor gateway.
    pub fn plain(segment: SegmentNumber, member: &NodeId) -> Self {
        Self { mac: node_mac(segment, member), is_bridge: false, is_gateway: false }
    }
}

/// Returns the address of a member's device in a segment: locally administered, and the same on every node.
pub fn node_mac(segment: SegmentNumber, member: &NodeId) -> MacAddress {
    let digest = domain_hash("P2Plus/1 segment device", &[&segment.0.to_le_bytes(), &member.0]);
    let [first, b, c, d, e, f, ..] = digest.0;
    MacAddress([first & 0xfc | 0x02, b, c, d, e, f])
}

/// What a segment is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What this node is in it.
    pub own: Role,
    /// What the others are. Of two with one address the first has it.
    pub peers: Vec<(PeerIndex, Role)>,
    /// Frames a second that one member may send to everybody.
    pub storm_limit: u32,
    /// The overlay's own subnets: no host of a segment has an address in them.
    pub overlay: Vec<Prefix>,
}

/// Whither a frame of the device goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// To the one that has the destination.
    Peer(PeerIndex),
    /// To each of these.
    Peers(Vec<PeerIndex>),
    /// Nowhere: this frame, for the device, answers it.
    Answer(Vec<u8>),
}

/// One segment of this node's.
#[derive(Debug)]
pub struct Segment {
    plan: Plan,
    roles: HashMap<PeerIndex, Role>,
    /// Whose device has an address.
    devices: HashMap<MacAddress, Place>,
    bridges: Vec<PeerIndex>,
    memory: Arc<Memory>,
}

/// What the data threads learned of a segment. It outlasts the tables.
#[derive(Debug, Default)]
struct Memory {
    stations: Stations,
    groups: Mutex<Groups>,
    neighbours: Mutex<Neighbours>,
    storm: Mutex<Storm>,
}

impl Segment {
    /// Builds a segment; what was learned of it `before` holds, as far as it may still be so.
    pub fn new(plan: Plan, before: Option<&Self>) -> Self {
        let mut devices = HashMap::from([(plan.own.mac, Place::Local)]);
        for (peer, role) in &plan.peers {
            devices.entry(role.mac).or_insert(Place::Peer(*peer));
        }
        let roles: HashMap<_, _> = plan.peers.iter().copied().collect();
        let bridges = plan.peers.iter().filter(|(_, role)| role.is_bridge).map(|(peer, _)| *peer).collect();
        let memory = before.map(|before| Arc::clone(&before.memory)).unwrap_or_default();
        let segment = Self { plan, roles, devices, bridges, memory };
        segment.memory.stations.retain(|place, mac| segment.vouches(place) && !segment.devices.contains_key(&mac));
        lock(&segment.memory.groups).retain(|place| segment.is_member(place));
        lock(&segment.memory.neighbours).retain(|place| segment.is_member(place));
        lock(&segment.memory.storm).retain(|place| segment.is_member(place));
        segment
    }

    /// What this node is in it.
    pub fn own(&self) -> &Role {
        &self.plan.own
    }

    /// Decides about a frame that the device gave.
    ///
    /// # Errors
    /// The reason to drop it.
    pub fn outbound(&self, now: Instant, bytes: &[u8]) -> Result<Route, DropReason> {
        let frame = self.parse(bytes)?;
        self.check_source(now, Place::Local, &frame)?;
        let message = self.check_message(Place::Local, &frame, bytes)?;
        self.note(now, Place::Local, &frame, &message);
        if !frame.destination.is_group() {
            return self.route_unicast(now, frame.destination);
        }
        if let Some(answer) = self.answer(now, &frame, bytes, &message) {
            return Ok(Route::Answer(answer));
        }
        let listeners = match message {
            // What is said of groups everybody has to hear.
            LinkMessage::Query { .. } | LinkMessage::Report { .. } => None,
            _ => lock(&self.memory.groups).listeners(now, frame.destination),
        };
        let peers: Vec<_> = match listeners {
            Some(listeners) => listeners.into_iter().filter_map(Place::peer).collect(),
            None => {
                self.limit(now, Place::Local)?;
                self.plan.peers.iter().map(|(peer, _)| *peer).collect()
            }
        };
        if peers.is_empty() { Err(DropReason::NoListener) } else { Ok(Route::Peers(peers)) }
    }

    /// Checks a frame that `peer` sent, before the device gets it.
    ///
    /// # Errors
    /// The reason to drop it.
    pub fn inbound(&self, now: Instant, peer: PeerIndex, bytes: &[u8]) -> Result<(), DropReason> {
        let place = Place::Peer(peer);
        if !self.is_member(place) {
            return Err(DropReason::NotInSegment);
        }
        let frame = self.parse(bytes)?;
        self.check_source(now, place, &frame)?;
        let message = self.check_message(place, &frame, bytes)?;
        self.note(now, place, &frame, &message);
        if frame.destination == self.plan.own.mac {
            return Ok(());
        }
        if frame.destination.is_group() {
            let is_wanted = lock(&self.memory.groups).is_listener(now, frame.destination, Place::Local);
            return if is_wanted { Ok(()) } else { self.limit(now, place) };
        }
        if !self.plan.own.is_bridge || self.devices.contains_key(&frame.destination) {
            return Err(DropReason::DestinationNotOurs);
        }
        match self.memory.stations.place_of(now, frame.destination) {
            Some(Place::Local) => Ok(()),
            Some(Place::Peer(_)) => Err(DropReason::DestinationNotOurs),
            // It went to all bridges, and counts as what goes to everybody.
            None => self.limit(now, place),
        }
    }

    /// Lists the stations that were heard of and are no members' devices, with the time since.
    pub fn stations(&self, now: Instant) -> Vec<(MacAddress, Place, std::time::Duration)> {
        self.memory.stations.list(now)
    }

    fn parse(&self, bytes: &[u8]) -> Result<Frame, DropReason> {
        let frame = Frame::parse(bytes).map_err(|_| DropReason::MalformedFrame)?;
        if frame.destination.is_link_local() {
            return Err(DropReason::LinkControl);
        }
        Ok(frame)
    }

    /// Lets a frame through only from the member's own device, or from a station that it vouches for and nobody else had before.
    fn check_source(&self, now: Instant, place: Place, frame: &Frame) -> Result<(), DropReason> {
        let stranger = if place == Place::Local { DropReason::SourceMacNotOurs } else { DropReason::SourceMacNotPeers };
        match self.devices.get(&frame.source) {
            Some(owner) if *owner == place => Ok(()),
            Some(_) => Err(stranger),
            None if self.vouches(place) => self.memory.stations.claim(now, place, frame.source, stranger),
            None => Err(stranger),
        }
    }

    /// Reads what the frame says to the link, and lets only those say it that may.
    fn check_message(&self, place: Place, frame: &Frame, bytes: &[u8]) -> Result<LinkMessage, DropReason> {
        let (message, inner) = LinkMessage::read(frame, bytes).map_err(|_| DropReason::MalformedFrame)?;
        // The host would take it for one that came by the overlay, where sources are proved and rules hold.
        let is_of_overlay = |address| self.plan.overlay.iter().any(|subnet| subnet.contains(address));
        if inner.is_some_and(|inner| is_of_overlay(inner.source) || is_of_overlay(inner.destination)) {
            return Err(DropReason::OverlayInSegment);
        }
        let is_gateway = self.role(place).is_some_and(|role| role.is_gateway);
        guard::check(frame, &message, is_gateway, |address| self.whose(address))?;
        Ok(message)
    }

    /// Remembers what a frame tells of its sender's neighbours and groups.
    fn note(&self, now: Instant, place: Place, frame: &Frame, message: &LinkMessage) {
        match message {
            LinkMessage::Neighbour(neighbour) => lock(&self.memory.neighbours).note(now, place, frame, neighbour),
            LinkMessage::Report { groups, .. } => lock(&self.memory.groups).report(now, place, groups),
            // Behind anybody else is no network with a router that asks all of them; and who asks one member alone, so that it believes in a
            // router, has what it sends to its groups go to nobody else.
            LinkMessage::Query { is_v6, is_general } if self.may_lead_on(place) => {
                lock(&self.memory.groups).query(now, place, *is_v6, *is_general);
            }
            _ => {}
        }
    }

    fn may_lead_on(&self, place: Place) -> bool {
        self.role(place).is_some_and(|role| role.is_gateway || role.is_bridge)
    }

    /// Answers a question whose answer is known, in the place of the owner.
    fn answer(&self, now: Instant, frame: &Frame, bytes: &[u8], message: &LinkMessage) -> Option<Vec<u8>> {
        let LinkMessage::Neighbour(question) = message else { return None };
        lock(&self.memory.neighbours).answer(now, frame, bytes, question)
    }

    fn route_unicast(&self, now: Instant, destination: MacAddress) -> Result<Route, DropReason> {
        let known = self.devices.get(&destination).copied();
        match known.or_else(|| self.memory.stations.place_of(now, destination)) {
            Some(Place::Peer(peer)) => Ok(Route::Peer(peer)),
            Some(Place::Local) => Err(DropReason::DestinationIsLocal),
            None if self.bridges.is_empty() => Err(DropReason::UnknownStation),
            None => self.limit(now, Place::Local).map(|()| Route::Peers(self.bridges.clone())),
        }
    }

    /// Whose an IP address is by its form alone: one of the overlay, or the one that IPv6 makes of a device's address. `None`: anybody's.
    fn whose(&self, address: IpAddr) -> Option<guard::Owner> {
        if self.plan.overlay.iter().any(|subnet| subnet.contains(address)) {
            return Some(guard::Owner::Overlay);
        }
        let IpAddr::V6(address) = address else { return None };
        let octets = address.octets();
        let device = self.devices.keys().find(|mac| octets[8..] == mac.interface_id());
        device.filter(|_| address.is_unicast_link_local()).map(|mac| guard::Owner::Device(*mac))
    }

    fn limit(&self, now: Instant, place: Place) -> Result<(), DropReason> {
        let is_within = lock(&self.memory.storm).take(now, place, self.plan.storm_limit);
        if is_within { Ok(()) } else { Err(DropReason::StormLimited) }
    }

    fn role(&self, place: Place) -> Option<&Role> {
        match place {
            Place::Local => Some(&self.plan.own),
            Place::Peer(peer) => self.roles.get(&peer),
        }
    }

    fn is_member(&self, place: Place) -> bool {
        self.role(place).is_some()
    }

    fn vouches(&self, place: Place) -> bool {
        self.role(place).is_some_and(|role| role.is_bridge)
    }
}

impl Place {
    /// The peer, if it is one's.
    pub fn peer(self) -> Option<PeerIndex> {
        match self {
            Self::Peer(peer) => Some(peer),
            Self::Local => None,
        }
    }
}

/// All segments of this node's.
#[derive(Debug, Default)]
pub struct Segments(BTreeMap<SegmentNumber, Segment>);

impl Segments {
    /// Builds the segments; what was learned `before` holds.
    pub fn new(plans: impl IntoIterator<Item = (SegmentNumber, Plan)>, before: &Self) -> Self {
        let segment = |(number, plan)| (number, Segment::new(plan, before.0.get(&number)));
        Self(plans.into_iter().map(segment).collect())
    }

    /// Finds one.
    ///
    /// # Errors
    /// [`DropReason::UnknownSegment`].
    pub fn get(&self, number: SegmentNumber) -> Result<&Segment, DropReason> {
        self.0.get(&number).ok_or(DropReason::UnknownSegment)
    }

    /// Iterates over all in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (SegmentNumber, &Segment)> {
        self.0.iter().map(|(number, segment)| (*number, segment))
    }
}

/// What another thread left half done in a table of hints harms nobody.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
