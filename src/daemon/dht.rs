//! The daemon's side of the DHT: whether it is used, by way of whom, and how what it says comes to the node.

use super::config::UnderlayConfig;
use super::inbox::{Inbox, Message};
use crate::io::clock::OsRng;
use crate::io::dht::{self, DhtOrders};
use crate::node::Node;
use crate::time::Now;
use tokio::runtime::Runtime;

/// Starts the task, which does nothing until the configuration wants it. What it says is told to the node's thread.
pub fn start(runtime: &Runtime, inbox: &Inbox) -> DhtOrders {
    let inbox = inbox.clone();
    dht::start(runtime, move |report| {
        let inbox = inbox.clone();
        // The queue may be full for a moment; waiting for a place must not hold up the runtime.
        drop(tokio::task::spawn_blocking(move || inbox.put(Message::Dht(report))));
    })
}

/// Has the DHT used, or not, as the configuration says.
pub fn follow(orders: &DhtOrders, node: &mut Node<OsRng>, now: Now, underlay: &UnderlayConfig) {
    if underlay.dht {
        orders.use_by(underlay.dht_bootstrap.texts());
    } else {
        orders.rest();
    }
    node.use_dht(now, underlay.dht);
}
