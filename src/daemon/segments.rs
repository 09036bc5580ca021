//! The devices of this node's segments on the host: one TAP for each, and the kernel's bridges that they are ports of.
//!
//! ```text
//!   the ledger's segments ──► follow ─┐
//!   the operator's bridges ─► bridge ─┼──► look: open, close, attach, detach; what fails is tried again
//!   a moment later ─────────► look ───┘
//! ```
//! Addresses on a TAP are the operator's business, or DHCP's. Refuses to know what a frame says.

use super::taps::Taps;
use crate::io::bridge::{BridgeError, Bridging};
use crate::io::device::{Device, TapConfig, segment_bridge_name, segment_interface_name};
use crate::io::host::{Change, HostError, Journal};
use crate::io::network::{Network, NetworkError};
use crate::node::OwnSegment;
use crate::time::Instant;
use crate::wire::frame::SegmentNumber;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The longest packet in a frame: that of every Ethernet, so that a site's hosts may be bridged as they are. What a path does not take in
/// one datagram leaves in two.
const MTU: u16 = 1500;

/// Frames that wait in a device for the tunnel.
const QUEUE_LEN: u32 = 500;

/// How long after a failure the same is tried again: the cause is on the host, whose operator needs a moment.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// A network interface of this host that is to be in a segment, as the operator ordered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BridgeOrder {
    /// The interface: a network card, or a bridge that exists.
    pub interface: String,
    /// The segment's name.
    pub segment: String,
}

/// How an order stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeStanding {
    /// The order.
    pub order: BridgeOrder,
    /// The kernel's bridge that holds both, when they are in one.
    pub bridge: Option<String>,
    /// What is in the way.
    pub problem: Option<String>,
}

/// The devices, and what is to become of them.
pub struct SegmentDevices {
    /// None without a device for packets: then there is none for frames.
    journal: Option<Journal>,
    offload: bool,
    taps: Arc<ArcSwap<Taps>>,
    wanted: Vec<OwnSegment>,
    open: BTreeMap<SegmentNumber, OpenDevice>,
    problems: BTreeMap<SegmentNumber, String>,
    orders: Vec<BridgeOrder>,
    attached: BTreeMap<BridgeOrder, Attached>,
    order_problems: BTreeMap<BridgeOrder, String>,
    retry_at: Option<Instant>,
}

struct OpenDevice {
    device: Device,
    segment: OwnSegment,
}

/// What was done on the host for an order, so that it can be undone.
#[derive(Clone, Debug)]
struct Attached {
    bridge: u32,
    bridge_name: String,
    tap: u32,
    /// What was made of the network card; an operator's own bridge is left as it was.
    bridging: Option<Bridging>,
}

impl SegmentDevices {
    /// Begins without a device; `orders` are those of an earlier run.
    pub fn new(taps: Arc<ArcSwap<Taps>>, journal: Option<Journal>, offload: bool, orders: Vec<BridgeOrder>) -> Self {
        Self {
            journal,
            offload,
            taps,
            wanted: Vec::new(),
            open: BTreeMap::new(),
            problems: BTreeMap::new(),
            orders,
            attached: BTreeMap::new(),
            order_problems: BTreeMap::new(),
            retry_at: None,
        }
    }

    /// Takes the segments that this node is in.
    pub fn follow(&mut self, now: Instant, network: &mut Network, wanted: Vec<OwnSegment>) {
        self.wanted = wanted;
        self.look(now, network);
    }

    /// Takes the news that a device is gone.
    pub fn lose(&mut self, now: Instant, segment: SegmentNumber) {
        self.open.remove(&segment);
        self.publish();
        // Not at once: who removes it again and again is not raced.
        self.retry_at.get_or_insert(now + RETRY_INTERVAL);
    }

    /// When [`Self::look`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Opens and closes, attaches and detaches, until the host is as it should be; or as far as it can be for now.
    pub fn look(&mut self, now: Instant, network: &mut Network) {
        self.retry_at = None;
        if let Some(journal) = self.journal.clone() {
            self.close_unwanted();
            self.detach_unwanted(network, &journal);
            self.open_missing(network);
            self.attach_missing(network, &journal);
            self.undo_leftovers(network, &journal);
        }
        if !self.problems.is_empty() || !self.order_problems.is_empty() {
            self.retry_at = Some(now + RETRY_INTERVAL);
        }
    }

    /// The interface of a segment's device, and what keeps it from being there.
    pub fn device(&self, segment: SegmentNumber) -> (Option<&str>, Option<&str>) {
        let name = self.open.get(&segment).and_then(|open| open.device.name());
        (name, self.problems.get(&segment).map(String::as_str))
    }

    /// Lists the orders.
    pub fn bridges(&self) -> Vec<BridgeStanding> {
        let standing = |order: &BridgeOrder| BridgeStanding {
            order: order.clone(),
            bridge: self.attached.get(order).map(|attached| attached.bridge_name.clone()),
            problem: self.order_problems.get(order).cloned(),
        };
        self.orders.iter().map(standing).collect()
    }

    /// The orders, to be stored.
    pub fn orders(&self) -> &[BridgeOrder] {
        &self.orders
    }

    /// The kernel's bridges that segments are ports of: their addresses are reached through the overlay, and so lead to no underlay.
    pub fn bridge_indices(&self) -> impl Iterator<Item = u32> {
        self.attached.values().map(|attached| attached.bridge)
    }

    /// Takes an order, and carries it out. Returns whether it is a new one.
    ///
    /// # Errors
    /// What is in the way; the order is then not taken.
    pub fn bridge(&mut self, now: Instant, network: &mut Network, order: BridgeOrder) -> Result<bool, BridgeError> {
        if self.orders.contains(&order) {
            self.look(now, network);
            return Ok(false);
        }
        let interface = network.interface_named(&order.interface)?;
        if let Some(other) = self.orders.iter().find(|other| other.interface == order.interface) {
            return Err(BridgeError::IsPort(other.interface.clone()));
        }
        if !interface.is_bridge {
            network.check_port(&interface)?;
        }
        self.orders.push(order);
        self.look(now, network);
        Ok(true)
    }

    /// Takes an order back. Returns whether there was one.
    pub fn unbridge(&mut self, now: Instant, network: &mut Network, interface: &str, segment: Option<&str>) -> bool {
        let before = self.orders.len();
        self.orders
            .retain(|order| order.interface != interface || segment.is_some_and(|segment| order.segment != segment));
        self.look(now, network);
        self.orders.len() < before
    }

    /// Undoes on the host what does not vanish with the devices, at the end of the daemon.
    pub fn end(&mut self, network: &mut Network) {
        self.orders.clear();
        if let Some(journal) = self.journal.clone() {
            self.detach_unwanted(network, &journal);
        }
    }

    fn close_unwanted(&mut self) {
        let wanted = &self.wanted;
        let before = self.open.len();
        self.open.retain(|_, open| {
            let is_wanted = wanted.iter().any(|segment| {
                (segment.number, segment.mac, &segment.name)
                    == (open.segment.number, open.segment.mac, &open.segment.name)
            });
            if !is_wanted {
                tracing::info!(segment = open.segment.name, "its device is closed");
            }
            is_wanted
        });
        self.problems.retain(|number, _| wanted.iter().any(|segment| segment.number == *number));
        if self.open.len() < before {
            self.publish();
        }
    }

    fn open_missing(&mut self, network: &mut Network) {
        let mut is_changed = false;
        for segment in &self.wanted {
            if self.open.contains_key(&segment.number) {
                continue;
            }
            let name = segment_interface_name(&segment.name);
            let config = TapConfig { name: name.clone(), mac: segment.mac, mtu: MTU, offload: self.offload };
            match open(network, &config) {
                Ok(device) => {
                    tracing::info!(segment = segment.name, device = name, mac = %segment.mac, "its device is open");
                    self.problems.remove(&segment.number);
                    self.open.insert(segment.number, OpenDevice { device, segment: segment.clone() });
                    is_changed = true;
                }
                Err(problem) => {
                    if self.problems.get(&segment.number) != Some(&problem) {
                        tracing::error!(segment = segment.name, problem, "its device could not be opened");
                    }
                    self.problems.insert(segment.number, problem);
                }
            }
        }
        if is_changed {
            self.publish();
        }
    }

    /// Gives the data threads the devices that there are.
    fn publish(&self) {
        let devices = self.open.iter().map(|(number, open)| (*number, open.device.clone())).collect();
        match Taps::new(devices) {
            Ok(taps) => self.taps.swap(Arc::new(taps)).replaced().trigger(),
            Err(error) => tracing::error!(%error, "the devices of segments are not read"),
        }
    }

    fn attach_missing(&mut self, network: &mut Network, journal: &Journal) {
        let known = std::mem::take(&mut self.order_problems);
        for order in self.orders.clone() {
            if self.attached.contains_key(&order) {
                continue;
            }
            let tap = self.open.values().find(|open| open.segment.name == order.segment);
            let Some(tap) = tap.and_then(|open| open.device.index()) else {
                self.order_problems.insert(order, "this node has no device for the segment".to_owned());
                continue;
            };
            match attach(network, journal, &order, tap) {
                Ok(attached) => {
                    let bridge = &attached.bridge_name;
                    tracing::info!(interface = order.interface, segment = order.segment, bridge, "bridged");
                    self.attached.insert(order, attached);
                }
                Err(error) => {
                    let problem = error.to_string();
                    if known.get(&order) != Some(&problem) {
                        tracing::warn!(interface = order.interface, segment = order.segment, problem, "not bridged");
                    }
                    self.order_problems.insert(order, problem);
                }
            }
        }
    }

    /// Undoes what was done for orders that are taken back, or whose device goes.
    fn detach_unwanted(&mut self, network: &mut Network, journal: &Journal) {
        let (orders, open) = (&self.orders, &self.open);
        self.attached.retain(|order, attached| {
            let is_there = open.values().any(|open| open.device.index() == Some(attached.tap));
            let is_wanted = is_there && orders.contains(order);
            if !is_wanted {
                match detach(network, journal, attached) {
                    Ok(()) => tracing::info!(interface = order.interface, segment = order.segment, "no more bridged"),
                    Err(error) => tracing::warn!(interface = order.interface, %error, "the bridge was not undone"),
                }
            }
            is_wanted
        });
    }

    /// Undoes what a daemon that was killed did for orders that are gone.
    fn undo_leftovers(&self, network: &mut Network, journal: &Journal) {
        for change in journal.changes() {
            let Change::Bridging(bridging) = &change else { continue };
            if self.orders.iter().any(|order| order.interface == bridging.card) {
                continue;
            }
            let outcome = network.undo_bridging(bridging).map_err(HostError::from);
            match outcome.and_then(|_| journal.forget(&change)) {
                Ok(()) => tracing::info!(interface = bridging.card, "bridged by a daemon that was killed, and no more"),
                Err(error) => tracing::warn!(interface = bridging.card, %error, "a bridge was not undone"),
            }
        }
    }
}

fn open(network: &mut Network, config: &TapConfig) -> Result<Device, String> {
    let device = Device::open_tap(config).map_err(|error| error.to_string())?;
    let index = device.index().ok_or("the interface has no index")?;
    network.set_up(index, u32::from(config.mtu), QUEUE_LEN).map_err(|error| error.to_string())?;
    Ok(device)
}

/// Makes a segment's device a port of the interface, if that is a bridge, or of a bridge that is made for both.
fn attach(network: &mut Network, journal: &Journal, order: &BridgeOrder, tap: u32) -> Result<Attached, AttachError> {
    let interface = network.interface_named(&order.interface)?;
    if interface.is_bridge {
        network.add_port(tap, interface.index)?;
        return Ok(Attached { bridge: interface.index, bridge_name: interface.name, tap, bridging: None });
    }
    let name = segment_bridge_name(&order.segment);
    // A daemon that was killed left it as it was.
    let known = journal.changes().into_iter().find_map(|change| match change {
        Change::Bridging(it) if it.card == interface.name && it.bridge == name => Some(it),
        _ => None,
    });
    let bridging = known.unwrap_or_else(|| Bridging {
        bridge: name.clone(),
        card: interface.name.clone(),
        card_was_on: interface.is_on,
    });
    let is_its_port = match network.interface_named(&name) {
        Ok(bridge) => interface.controller == Some(bridge.index),
        Err(_) => false,
    };
    if !is_its_port {
        network.check_port(&interface)?;
    }
    journal.record(Change::Bridging(bridging.clone()))?;
    let bridge = network.ensure_bridge(&name)?;
    if !is_its_port {
        network.add_port(interface.index, bridge.index)?;
    }
    network.add_port(tap, bridge.index)?;
    Ok(Attached { bridge: bridge.index, bridge_name: bridge.name, tap, bridging: Some(bridging) })
}

/// Why an order is not carried out.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    #[error(transparent)]
    Host(#[from] HostError),
}

impl From<NetworkError> for AttachError {
    fn from(error: NetworkError) -> Self {
        Self::Host(error.into())
    }
}

fn detach(network: &mut Network, journal: &Journal, attached: &Attached) -> Result<(), HostError> {
    network.remove_port(attached.tap)?;
    let Some(bridging) = &attached.bridging else { return Ok(()) };
    network.undo_bridging(bridging)?;
    journal.forget(&Change::Bridging(bridging.clone()))
}

/// The devices of a node that is in no segment.
///
/// # Errors
/// The kernel's, when there is no descriptor left.
pub fn no_taps() -> io::Result<Arc<ArcSwap<Taps>>> {
    Ok(Arc::new(ArcSwap::from_pointee(Taps::new(Vec::new())?)))
}
