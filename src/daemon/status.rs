//! What `status` says: everything to who may look, and to a stranger that the network is there and whether it works.

use super::api::types::{
    AddressConflict, DeviceMode, DeviceStatus, LedgerStatus, NetworkState, NetworkStatus, NodeStatus, Status,
};
use super::views;
use crate::io::clock::OsRng;
use crate::io::device::{Device, DeviceCounts};
use crate::io::udp::{UdpCounts, UdpSender};
use crate::node::Node;
use crate::node::control::LinkCounters;
use crate::node::membership::Standing;
use crate::time::Now;
use crate::wire::drops::Drops;
use crate::wire::name::NetworkName;
use std::collections::BTreeMap;

/// What there is to see besides the node.
pub struct Around<'a> {
    /// The network's name.
    pub network: &'a NetworkName,
    /// The interface, or none.
    pub device: &'a Device,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// The sockets.
    pub sender: &'a UdpSender,
    /// What the data threads and the node dropped.
    pub drops: &'a Drops,
    /// What keeps IPv4 off the interface.
    pub conflicts: &'a [AddressConflict],
    /// What of the host is not as it should be.
    pub problems: &'a [String],
}

/// The status in full.
pub fn full(node: &Node<OsRng>, now: Now, around: &Around<'_>) -> Status {
    let (state, reason) = state_of(node.standing());
    let device_name = around.device.name();
    Status {
        node: NodeStatus { id: node.id().to_string(), ..node_status(node, now) },
        network: NetworkStatus {
            id: node.keys().network_id.to_string(),
            name: around.network.to_string(),
            state,
            reason,
            addresses: node.addresses().into_iter().map(|(address, _)| address).collect(),
            device: DeviceStatus {
                name: device_name.map(str::to_owned),
                mode: if device_name.is_some() { DeviceMode::Tun } else { DeviceMode::None },
                mtu: around.mtu,
            },
            listen: around.sender.local_addresses(),
            conflicts: around.conflicts.to_vec(),
            problems: around.problems.to_vec(),
        },
        ledger: views::ledger_status(node, now),
        peers: views::peers(node, now),
        drops: drops(around.drops, around.sender.counts(), around.device.counts(), node.control_counters()),
        degraded: degraded(around.sender.counts(), around.device.counts()),
    }
}

/// What a stranger on this machine may see. It costs the node next to nothing, however often it is asked for.
pub fn short(node: &Node<OsRng>, now: Now, network: &NetworkName) -> Status {
    Status {
        node: node_status(node, now),
        network: NetworkStatus {
            id: String::new(),
            name: network.to_string(),
            state: state_of(node.standing()).0,
            reason: None,
            addresses: Vec::new(),
            device: DeviceStatus { name: None, mode: DeviceMode::None, mtu: 0 },
            listen: Vec::new(),
            conflicts: Vec::new(),
            problems: Vec::new(),
        },
        ledger: LedgerStatus { hash: String::new(), halted: None, ..views::ledger_status(node, now) },
        peers: Vec::new(),
        drops: BTreeMap::new(),
        degraded: BTreeMap::new(),
    }
}

/// The node without its identity.
fn node_status(node: &Node<OsRng>, now: Now) -> NodeStatus {
    NodeStatus {
        id: String::new(),
        name: node.member().map(|member| member.name.clone()).unwrap_or_default(),
        version: super::VERSION.to_owned(),
        uptime_seconds: node.uptime(now).as_secs(),
    }
}

/// A standing as the contract says it, and why it is not `up`.
pub fn state_of(standing: &Standing) -> (NetworkState, Option<String>) {
    match standing {
        Standing::Member => (NetworkState::Up, None),
        Standing::Joining(what) => (NetworkState::Joining, Some((*what).to_owned())),
        Standing::Refused(refusal) => (NetworkState::Refused, Some(refusal.reason.clone())),
        Standing::Revoked => {
            let reason = "a signer ended its membership; one can admit it again, by `p2plus authorize`";
            (NetworkState::Revoked, Some(reason.to_owned()))
        }
    }
}

/// Everything that was dropped, by name. What the data threads counted with a reason of their own is not counted again.
fn drops(drops: &Drops, udp: UdpCounts, device: DeviceCounts, link: &LinkCounters) -> BTreeMap<String, u64> {
    let by_reason = drops.snapshot().map(|(reason, count)| (reason.name(), count));
    let of_io = [
        ("receive_truncated", udp.received_truncated),
        ("receive_malformed", udp.received_malformed),
        ("receive_overflow", udp.receive_overflow),
        ("receive_errors", udp.receive_errors),
        ("device_malformed", device.read_malformed),
        ("device_errors", device.read_errors),
        ("device_absent", device.write_discarded),
    ];
    let of_link = [
        ("control_unsent", link.messages.values().sum()),
        ("control_unattached", link.peers.values().sum()),
        ("control_broken", link.broken.values().sum()),
        ("control_events_lost", link.lost_events),
    ];
    counted(by_reason.into_iter().chain(of_io).chain(of_link))
}

/// What took a slower way, by name.
fn degraded(udp: UdpCounts, device: DeviceCounts) -> BTreeMap<String, u64> {
    counted([
        ("sent_singly", udp.sent_singly),
        ("sent_from_elsewhere", udp.sent_from_elsewhere),
        ("super_packets_split", device.super_packets_refused),
    ])
}

/// The counters that do not stand at zero.
fn counted<'n>(counters: impl IntoIterator<Item = (&'n str, u64)>) -> BTreeMap<String, u64> {
    counters.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::control::{AttachError, SendError};
    use crate::wire::drops::DropReason;

    #[test]
    fn every_counter_of_what_was_lost_has_its_name_and_none_is_counted_twice() {
        let counted = Drops::new();
        counted.add(DropReason::SendFailed, 1);
        let udp = UdpCounts {
            received: 1000,
            received_truncated: 2,
            received_malformed: 3,
            receive_overflow: 4,
            receive_errors: 5,
            sent: 1000,
            sent_singly: 2,
            send_refused: 1,
            ..UdpCounts::default()
        };
        let device = DeviceCounts {
            read: 1000,
            read_malformed: 6,
            read_errors: 7,
            write_discarded: 8,
            super_packets_refused: 3,
            ..DeviceCounts::default()
        };
        let mut link = LinkCounters { lost_events: 9, ..LinkCounters::default() };
        link.messages = BTreeMap::from([(SendError::PeerFull, 10), (SendError::LinkFull, 1)]);
        link.peers = BTreeMap::from([(AttachError::GuestsFull, 12)]);
        let named = drops(&counted, udp, device, &link);
        let named: Vec<_> = named.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(
            named,
            [
                ("control_events_lost", 9),
                ("control_unattached", 12),
                ("control_unsent", 11),
                ("device_absent", 8),
                ("device_errors", 7),
                ("device_malformed", 6),
                ("receive_errors", 5),
                ("receive_malformed", 3),
                ("receive_overflow", 4),
                ("receive_truncated", 2),
                ("send_failed", 1),
            ]
        );
        let expected = [("sent_singly".to_owned(), 2), ("super_packets_split".to_owned(), 3)];
        assert_eq!(degraded(udp, device), BTreeMap::from(expected));
    }
}
