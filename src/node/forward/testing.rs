//! Tables for the tests of both routes.

use crate::crypto::identity::NodeId;
use crate::node::forward::{Delivery, Outbox};
use crate::node::table::{ForwardingTable, Inlet, Outlet};
use crate::path::{Path, PathMtu};
use crate::policy::decision::NumberedRule;
use crate::policy::rule::Rule;
use crate::policy::{Policy, Rights};
use crate::router::bridge::{Plan, Role, Segments};
use crate::router::filter::Filter;
use crate::router::icmp::AnswerSources;
use crate::router::segmentation::SuperPacket;
use crate::router::{PeerIndex, Prefix, Router};
use crate::session::Session;
use crate::time::Instant;
use crate::wire::drops::DropReason;
use crate::wire::ecn::Ecn;
use crate::wire::frame::SegmentNumber;
use crate::wire::offload::{VnetHeader, complete_checksum};
use crate::wire::transport_record::Layer;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub(super) const NOW: Instant = Instant::from_micros(5);

/// The table of a node at 10.64.0.1 that has a session with a member at 10.64.0.2, who is reached at an endpoint.
pub(super) fn with_peer(session: Arc<Session>, endpoint: SocketAddr) -> ForwardingTable {
    table([1, 2], session, endpoint)
}

/// The table of a node at `10.64.0.OWN` that has a session with a member at `10.64.0.PEER`, who is reached at an endpoint.
pub(super) fn table([own, peer]: [u8; 2], session: Arc<Session>, endpoint: SocketAddr) -> ForwardingTable {
    let (node, index) = (NodeId([peer; 32]), session.local_index());
    let host = |last: u8| Prefix::host(IpAddr::from([10, 64, 0, last]));
    let subnet = Prefix::new(IpAddr::from([10, 64, 0, 0]), 20).unwrap();
    let path = Path::from(endpoint);
    let outlet = Outlet { session: Arc::clone(&session), path, mtu: PathMtu::Known(9216) };
    let rights = Rights::Member(node);
    let number = PeerIndex::at(0).unwrap();
    let inlet = Inlet { session, rights, peer: Some(number), guest_origin: None, path: Some(path), awaited: false };
    ForwardingTable {
        generation: 1,
        router: Arc::new(Router::new([host(own)], [subnet], [(host(peer), number)])),
        members: Arc::new(vec![node]),
        filter: Arc::new(open_filter()),
        outlets: Arc::new([(number, outlet)].into_iter().collect()),
        inlets: Arc::new([(index, inlet)].into_iter().collect()),
        answer_sources: AnswerSources { v4: Some([10, 64, 0, 53].into()), v6: None },
        ..ForwardingTable::empty()
    }
}

/// Lets everything pass.
fn open_filter() -> Filter {
    let rules = vec![NumberedRule { number: 1, rule: Rule::allow_all() }];
    Filter::closed(NOW).following(&Policy::default().with_rules(rules))
}

/// The segment that both nodes of a table are in.
pub(super) const SEGMENT: SegmentNumber = SegmentNumber(7);

/// The same table, of a node that is in [`SEGMENT`] with its peer; both bridge.
pub(super) fn in_segment([own, peer]: [u8; 2], session: Arc<Session>, endpoint: SocketAddr) -> ForwardingTable {
    let role = |last: u8| Role { is_bridge: true, ..Role::plain(SEGMENT, &NodeId([last; 32])) };
    let peers = vec![(PeerIndex::at(0).unwrap(), role(peer))];
    let plan = Plan { own: role(own), peers, storm_limit: 1_000, overlay: Vec::new() };
    let segments = Arc::new(Segments::new([(SEGMENT, plan)], &Segments::default()));
    ForwardingTable { segments, ..table([own, peer], session, endpoint) }
}

/// Memory for datagrams that may be as long as they like, and how each leaves.
#[derive(Default)]
pub(super) struct Sealed {
    room: Vec<u8>,
    pub(super) datagrams: Vec<(Vec<u8>, Ecn)>,
}

impl Outbox for Sealed {
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.room.resize(len, 0);
        Some(&mut self.room)
    }

    fn push(&mut self, len: usize, _path: Path, ecn: Ecn) {
        self.datagrams.push((self.room[..len].to_vec(), ecn));
    }
}

/// What was delivered: whole packets, in how many writes, and why others were not.
#[derive(Default)]
pub(super) struct Delivered {
    pub(super) packets: Vec<Vec<u8>>,
    pub(super) writes: usize,
    pub(super) dropped: Vec<DropReason>,
}

impl Delivery for Delivered {
    fn packet(&mut self, _layer: Layer, vnet: &VnetHeader, packet: &[u8]) {
        let mut packet = packet.to_vec();
        if let Some(checksum) = vnet.checksum {
            assert!(complete_checksum(&mut packet, checksum));
        }
        self.packets.push(packet);
        self.writes += 1;
    }

    fn super_packet(&mut self, packet: &SuperPacket<'_>) {
        packet.split(|packet| self.packets.push(packet.to_vec()));
        self.writes += 1;
    }

    fn dropped(&mut self, reason: DropReason) {
        self.dropped.push(reason);
    }
}
