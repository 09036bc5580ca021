//! The loop's side of finding members on the LANs of this host: where to look, as whom, and for whom.

use crate::io::lan::{LanInterface, LanOrders, LanPlan};
use crate::io::network::InterfaceAddress;
use crate::node::lan::LanTags;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How often is looked whether another day began, or another member came.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// What the loop tells the task.
pub struct LanSide {
    orders: LanOrders,
    interfaces: Vec<LanInterface>,
    port: Option<u16>,
}

impl LanSide {
    /// Takes what gives the task its orders.
    pub fn new(orders: LanOrders) -> Self {
        Self { orders, interfaces: Vec::new(), port: None }
    }

    /// Takes where the node listens and which addresses the host has on interfaces of the underlay.
    pub fn set_place(&mut self, listen: &[SocketAddr], addresses: &[InterfaceAddress]) {
        // One port is told: that of the first socket.
        self.port = listen.first().map(SocketAddr::port);
        let listens = |address: IpAddr| {
            let listens_there = |it: &SocketAddr| {
                let is_there = it.ip() == address || it.ip().is_unspecified() && it.is_ipv4() == address.is_ipv4();
                is_there && Some(it.port()) == self.port
            };
            listen.iter().any(listens_there)
        };
        let mut interfaces: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
        for it in addresses.iter().filter(|it| listens(it.address)) {
            interfaces.entry(it.interface).or_default().push(it.address);
        }
        let interfaces = interfaces.into_iter().map(|(index, addresses)| LanInterface { index, addresses });
        self.interfaces = interfaces.collect();
    }

    /// Has the LANs looked at, or, without tags, left alone.
    pub fn follow(&self, tags: Option<Arc<LanTags>>) {
        let plan = tags.zip(self.port).map(|(tags, port)| LanPlan { interfaces: self.interfaces.clone(), port, tags });
        self.orders.follow(plan);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::lan::LanDiscovery;
    use crate::node::lan::message::Instance;
    use tokio::runtime::Runtime;

    #[test]
    fn only_addresses_at_the_port_that_is_told_are_told() {
        let runtime = Runtime::new().unwrap();
        let discovery = LanDiscovery::start(&runtime, 0, Instance([0; 8]), |_, _| {});
        let mut side = LanSide::new(discovery.orders());
        let address = |interface, text: &str| InterfaceAddress {
            interface,
            address: text.parse().unwrap(),
            prefix_len: 24,
            is_global: true,
            is_usable: true,
        };
        let host = [address(2, "192.168.1.2"), address(2, "2001:db8::2"), address(3, "10.0.0.7")];
        let told = |side: &mut LanSide, listen: &[&str]| {
            side.set_place(&listen.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>(), &host);
            let all = side.interfaces.iter().flat_map(|it| &it.addresses);
            (side.port, all.map(ToString::to_string).collect::<Vec<_>>())
        };
        let all = ["192.168.1.2", "2001:db8::2", "10.0.0.7"].map(str::to_owned).to_vec();
        assert_eq!(told(&mut side, &["0.0.0.0:4647", "[::]:4647"]), (Some(4647), all));
        assert_eq!(told(&mut side, &["10.0.0.7:7", "[::]:8"]), (Some(7), vec!["10.0.0.7".to_owned()]));
        assert_eq!(told(&mut side, &["127.0.0.1:7"]), (Some(7), Vec::new()));
        discovery.end(&runtime);
    }
}
