//! Tables for the tests of both routes.

use crate::crypto::identity::NodeId;
use crate::node::table::{ForwardingTable, Inlet, Outlet};
use crate::path::Path;
use crate::policy::Rights;
use crate::router::icmp::AnswerSources;
use crate::router::{Prefix, Router};
use crate::session::Session;
use crate::time::Instant;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub(super) const NOW: Instant = Instant::from_micros(5);

/// The table of a node at 10.64.0.1 that has a session with a member at 10.64.0.2, who is reached at an endpoint.
pub(super) fn with_peer(session: Arc<Session>, endpoint: SocketAddr) -> ForwardingTable {
    let (peer, index) = (NodeId([2; 32]), session.local_index());
    let own = Prefix::host(IpAddr::from([10, 64, 0, 1]));
    let theirs = (Prefix::host(IpAddr::from([10, 64, 0, 2])), peer);
    let subnet = Prefix::new(IpAddr::from([10, 64, 0, 0]), 20).unwrap();
    let path = Path::from(endpoint);
    let outlet = Outlet { session: Arc::clone(&session), path };
    let inlet = Inlet { session, rights: Rights::Member(peer), guest_origin: None, path: Some(path), awaited: false };
    ForwardingTable {
        generation: 1,
        router: Arc::new(Router::new([own], [subnet], [theirs])),
        outlets: Arc::new(HashMap::from([(peer, outlet)])),
        inlets: Arc::new(HashMap::from([(index, inlet)])),
        answer_sources: AnswerSources { v4: Some([10, 64, 0, 53].into()), v6: None },
        ..ForwardingTable::empty()
    }
}
