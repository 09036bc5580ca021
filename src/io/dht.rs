//! The Mainline DHT, asked by the library `mainline`: has this node's item stored there, and looks members up.
//!
//! ```text
//!   orders ──► task ──► a client of the DHT, opened when something is asked ──► what is found is told to the node
//!                              └─ closed after 30 s without a question, and after ten minutes in any case
//! ```
//! The client has a thread of its own, and a socket at a free port of IPv4 that does not carry the daemon's mark, since the library lends it to
//! nobody. It answers no question: it would begin to after 15 minutes on a host that others reach, and is never open for so long, by which what
//! a hostile DHT can have it remember is bounded, too. The library checks each item's signature and that its key is the one asked for.

use crate::crypto::identity::NodeId;
use crate::node::dht::{Item, Place, Report};
use crate::wire::dht::MAX_VALUE_LEN;
use futures_core::Stream;
use mainline::async_dht::AsyncDht;
use mainline::{DEFAULT_BOOTSTRAP_NODES, Dht, MutableItem, ServerSettings};
use std::future::poll_fn;
use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::pin::Pin;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

/// Orders that wait at most: three searches and an item are more than the node gives before it hears of them.
const MAX_ORDERS: usize = 16;

/// Addresses of nodes that let this one in.
const MAX_ENTRANCES: usize = 16;

/// How long opening may take, most of which is the system's resolver.
const OPEN_LIMIT: Duration = Duration::from_secs(20);

/// How long one search may take: a DHT of millions is crossed in a few seconds, nodes that are gone cost two each.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// How long it may take to store an item, which begins with a search.
const STORE_LIMIT: Duration = Duration::from_secs(60);

/// How long the client stays open for the next question.
const LINGER: Duration = Duration::from_secs(30);

/// How long it is open at most; two thirds of the time after which it would begin to answer.
const LONGEST_OPEN: Duration = Duration::from_secs(600);

/// Values of one item that are told: nodes that were away have older ones.
const MAX_VALUES: usize = 8;

/// What is done about each report; called on the runtime, may not block.
pub trait Notify: Fn(Report) + Clone + Send + Sync + 'static {}

impl<F: Fn(Report) + Clone + Send + Sync + 'static> Notify for F {}

/// Gives the task its orders. It ends when all of these are dropped.
#[derive(Clone)]
pub struct DhtOrders(mpsc::Sender<Order>);

enum Order {
    /// Use the DHT, by these nodes, or by the usual ones; or do not.
    Use(Option<Vec<String>>),
    Store(Item),
    LookUp(NodeId, Vec<Place>),
}

struct Client<N> {
    orders: mpsc::Receiver<Order>,
    notify: N,
    entrances: Option<Vec<String>>,
    open: Option<Open>,
    questions: JoinSet<()>,
}

struct Open {
    dht: AsyncDht,
    since: Instant,
    used: Instant,
}

/// Starts the task, which opens nothing yet.
pub fn start(runtime: &Runtime, notify: impl Notify) -> DhtOrders {
    let (orders, ordered) = mpsc::channel(MAX_ORDERS);
    let client = Client { orders: ordered, notify, entrances: None, open: None, questions: JoinSet::new() };
    runtime.spawn(client.run());
    DhtOrders(orders)
}

impl DhtOrders {
    /// Has the DHT used by way of these nodes, each `HOST:PORT`, or, when there are none, of the usual ones.
    pub fn use_by(&self, entrances: Vec<String>) {
        self.give(Order::Use(Some(entrances)));
    }

    /// Has nothing asked any more.
    pub fn rest(&self) {
        self.give(Order::Use(None));
    }

    /// Has this node's item stored.
    pub fn store(&self, item: Item) {
        self.give(Order::Store(item));
    }

    /// Has a member looked up.
    pub fn look_up(&self, member: NodeId, places: Vec<Place>) {
        self.give(Order::LookUp(member, places));
    }

    fn give(&self, order: Order) {
        // The node asks again for what it hears nothing of.
        if self.0.try_send(order).is_err() {
            tracing::debug!("the DHT has too much to do");
        }
    }
}

impl<N: Notify> Client<N> {
    async fn run(mut self) {
        loop {
            let is_open = self.open.is_some();
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.take(order).await,
                    None => return,
                },
                Some(ended) = self.questions.join_next() => self.note_end(ended.is_err_and(|error| error.is_panic())),
                () = sleep(LINGER), if is_open => {}
            }
            self.close_if_idle();
        }
    }

    async fn take(&mut self, order: Order) {
        match order {
            Order::Use(entrances) if entrances == self.entrances => {}
            Order::Use(entrances) => {
                self.entrances = entrances;
                self.questions.abort_all();
                self.open = None;
            }
            Order::Store(item) => match self.client().await {
                Some(dht) => drop(self.questions.spawn(store(dht, item, self.notify.clone()))),
                None => (self.notify)(Report::NotStored),
            },
            Order::LookUp(member, places) => match self.client().await {
                Some(dht) => drop(self.questions.spawn(look_up(dht, member, places, self.notify.clone()))),
                None => (self.notify)(Report::Looked(member)),
            },
        }
    }

    /// The client, opened if need be.
    async fn client(&mut self) -> Option<AsyncDht> {
        let entrances = self.entrances.clone()?;
        let now = Instant::now();
        if self.open.as_ref().is_none_or(|open| now >= open.since + LONGEST_OPEN) {
            let opened = timeout(OPEN_LIMIT, spawn_blocking(move || open(&entrances))).await;
            match opened.map(|outcome| outcome.unwrap_or_else(|_| Err("it ended in a panic".to_owned()))) {
                Ok(Ok(dht)) => self.open = Some(Open { dht: dht.as_async(), since: now, used: now }),
                Ok(Err(reason)) => tracing::debug!(reason, "there is no way to the DHT"),
                Err(_) => tracing::debug!("its nodes are looked up for too long: there is no way to the DHT"),
            }
        }
        let open = self.open.as_mut().filter(|open| now < open.since + LONGEST_OPEN)?;
        open.used = Instant::now();
        Some(open.dht.clone())
    }

    fn note_end(&mut self, is_panic: bool) {
        if is_panic {
            // The library's thread is gone: the next question opens another client.
            self.open = None;
        } else if let Some(open) = &mut self.open {
            open.used = Instant::now();
        }
    }

    fn close_if_idle(&mut self) {
        let now = Instant::now();
        let is_over = |open: &mut Open| now >= open.used + LINGER || now >= open.since + LONGEST_OPEN;
        if self.questions.is_empty() && self.open.take_if(is_over).is_some() {
            tracing::debug!("the DHT is left");
        }
    }
}

/// Opens a client; blocks for as long as the system's resolver does.
fn open(entrances: &[String]) -> Result<Dht, String> {
    let usual = DEFAULT_BOOTSTRAP_NODES.map(str::to_owned);
    let entrances = if entrances.is_empty() { &usual[..] } else { entrances };
    let found = entrances.iter().filter_map(|entrance| entrance.to_socket_addrs().ok()).flatten();
    let found: Vec<SocketAddrV4> = found.filter_map(ipv4).take(MAX_ENTRANCES).collect();
    if found.is_empty() {
        return Err("none of its nodes has an IPv4 address".to_owned());
    }
    // Room for what it never keeps.
    let nothing = ServerSettings {
        max_info_hashes: 1,
        max_peers_per_info_hash: 1,
        max_immutable_values: 1,
        max_mutable_values: 1,
        ..ServerSettings::default()
    };
    let opened = Dht::builder().bootstrap(&found).port(0).server_settings(nothing).build();
    opened.map_err(|error| error.to_string())
}

fn ipv4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    }
}

async fn store(dht: AsyncDht, item: Item, notify: impl Notify) {
    let Item { key, signature, sequence, value } = item;
    let item = MutableItem::new_signed_unchecked(key.0, signature.0, &value, sequence, None);
    match timeout(STORE_LIMIT, dht.put_mutable(item, None)).await {
        Ok(Ok(outcome)) => notify(Report::Stored(outcome.stored_at)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "not stored");
            notify(Report::NotStored);
        }
        Err(_) => notify(Report::NotStored),
    }
}

async fn look_up(dht: AsyncDht, member: NodeId, places: Vec<Place>, notify: impl Notify) {
    for Place { week, key } in places {
        let search = async {
            let mut items = dht.get_mutable(&key.0, None, None);
            let mut told: Vec<Vec<u8>> = Vec::new();
            while let Some(item) = poll_fn(|context| Pin::new(&mut items).poll_next(context)).await {
                let value = item.value();
                let is_known = value.len() > MAX_VALUE_LEN || told.iter().any(|known| known == value);
                if *item.key() == key.0 && !is_known && told.len() < MAX_VALUES {
                    told.push(value.to_vec());
                    notify(Report::Found { member, week, value: value.to_vec() });
                }
            }
        };
        // What came until then was told.
        let _ = timeout(LOOK_LIMIT, search).await;
    }
    notify(Report::Looked(member));
}

#[cfg(test)]
mod tests;
