//! Finds members on the LANs of this host, and is found there, by multicast DNS: a task of the daemon's runtime.
//!
//! ```text
//!   follow(plan) ──► a socket for each interface and version of IP ──► asked and told, as RFC 6762 wants it
//!        datagrams ──► read by themselves (node::lan::message) ──► a member? news? (Tags, Finds) ──► told to the node
//! ```
//! Owns the sockets and the pace. Without a plan there is no socket. Each is bound to the group's address, not to the port alone: what is
//! sent to this host's own address at port 5353 goes to whoever else does multicast DNS here, as before (avahi, systemd-resolved), and both
//! hear the group. Each belongs to one interface of the underlay, so that nothing goes out or comes in by any other.

mod schedule;
mod socket;

use crate::crypto::identity::NodeId;
use crate::io::clock;
use crate::io::policy_routing::Family;
use crate::node::lan::message::{self, Heard, Instance, Validity};
use crate::node::lan::{Finds, LanTags};
use schedule::{Due, Schedule};
use socket::{Heard as HeardOn, LanSocket, MAX_WAITING};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Interfaces that are looked at.
const MAX_INTERFACES: usize = 16;

/// How long the task sleeps at most: the runtime's clock stands still while the machine is suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// How long the daemon's end waits for the farewell.
const FAREWELL: Duration = Duration::from_millis(500);

/// An interface of the underlay, and this host's addresses there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LanInterface {
    /// Its index.
    pub index: u32,
    /// The addresses at which the node listens.
    pub addresses: Vec<IpAddr>,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LanPlan {
    /// Where to look.
    pub interfaces: Vec<LanInterface>,
    /// The UDP port at which this node is found.
    pub port: u16,
    /// What to say, and whom to know.
    pub tags: Arc<LanTags>,
}

/// What is done about each find.
pub trait Found: Fn(NodeId, Vec<SocketAddr>) + Send + Sync + 'static {}

impl<F: Fn(NodeId, Vec<SocketAddr>) + Send + Sync + 'static> Found for F {}

/// The task. It ends with [`end`](Self::end).
pub struct LanDiscovery {
    orders: LanOrders,
    task: JoinHandle<()>,
}

/// Tells the task what to do.
#[derive(Clone)]
pub struct LanOrders(watch::Sender<Order>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Order {
    Rest,
    Follow(LanPlan),
    End,
}

struct Explorer<F> {
    orders: watch::Receiver<Order>,
    found: F,
    mark: u32,
    instance: Instance,
    plan: Option<LanPlan>,
    links: BTreeMap<(u32, Family), Link>,
    finds: Finds,
    /// What the sockets hear, and where they put it.
    heard: mpsc::Receiver<HeardOn>,
    ear: mpsc::Sender<HeardOn>,
}

struct Link {
    socket: LanSocket,
    schedule: Schedule,
}

impl LanDiscovery {
    /// Starts the task, which opens nothing yet. `mark` is put on all that it sends, 0 for none; `instance` is drawn for this run; `found` is
    /// called on the runtime and may not block.
    pub fn start(runtime: &Runtime, mark: u32, instance: Instance, found: impl Found) -> Self {
        let (orders, ordered) = watch::channel(Order::Rest);
        let (ear, heard) = mpsc::channel(MAX_WAITING);
        let explorer = Explorer {
            orders: ordered,
            found,
            mark,
            instance,
            plan: None,
            links: BTreeMap::new(),
            finds: Finds::default(),
            heard,
            ear,
        };
        Self { orders: LanOrders(orders), task: runtime.spawn(explorer.run()) }
    }

    /// What gives it orders.
    pub fn orders(&self) -> LanOrders {
        self.orders.clone()
    }

    /// Says farewell to the LANs.
    pub fn end(self, runtime: &Runtime) {
        self.orders.0.send_replace(Order::End);
        // One that is late says no farewell.
        let _ = runtime.block_on(async { tokio::time::timeout(FAREWELL, self.task).await });
    }
}

impl LanOrders {
    /// Has the LANs of a plan looked at, or none, with no socket open.
    pub fn follow(&self, plan: Option<LanPlan>) {
        let order = plan.map_or(Order::Rest, Order::Follow);
        self.0.send_if_modified(|current| {
            let is_news = *current != Order::End && *current != order;
            if is_news {
                *current = order;
            }
            is_news
        });
    }
}

impl<F: Found> Explorer<F> {
    async fn run(mut self) {
        loop {
            let next = self.links.values().map(|link| link.schedule.next()).min();
            let now = clock::now().instant;
            let patience = next.map_or(LONGEST_SLEEP, |at| at.saturating_since(now).min(LONGEST_SLEEP));
            tokio::select! {
                changed = self.orders.changed() => {
                    let order = self.orders.borrow_and_update().clone();
                    match order {
                        _ if changed.is_err() => return self.leave_all(),
                        Order::End => return self.leave_all(),
                        Order::Rest => self.leave_all(),
                        Order::Follow(plan) => self.take(plan),
                    }
                }
                // There is a sender of our own.
                Some(heard) = self.heard.recv() => self.handle(&heard),
                () = tokio::time::sleep(patience) => {}
            }
            self.send_due();
        }
    }

    /// Opens what the plan has and is not open, and closes the rest. Whoever learns something new by it is told at once.
    fn take(&mut self, plan: LanPlan) {
        let now = clock::now().instant;
        let wanted: BTreeMap<(u32, Family), IpAddr> = plan
            .interfaces
            .iter()
            .take(MAX_INTERFACES)
            .flat_map(|it| it.addresses.iter().map(|address| ((it.index, Family::of(*address)), *address)))
            .collect();
        let gone: Vec<_> = self.links.keys().filter(|key| !wanted.contains_key(*key)).copied().collect();
        for key in gone {
            self.send(key, Validity::Ends);
            self.links.remove(&key);
        }
        let is_the_same = self.plan.as_ref() == Some(&plan);
        self.plan = Some(plan);
        for (key, address) in wanted {
            match self.links.get_mut(&key) {
                Some(link) if !is_the_same => link.schedule.announce(now),
                Some(_) => {}
                None => match LanSocket::open(key.0, address, self.mark, self.ear.clone()) {
                    Ok(socket) => drop(self.links.insert(key, Link { socket, schedule: Schedule::new(now) })),
                    Err(error) => tracing::debug!(interface = key.0, %address, %error, "no multicast DNS here"),
                },
            }
        }
    }

    fn leave_all(&mut self) {
        let keys: Vec<_> = self.links.keys().copied().collect();
        keys.into_iter().for_each(|key| self.send(key, Validity::Ends));
        self.links.clear();
        self.plan = None;
    }

    fn handle(&mut self, heard: &HeardOn) {
        let now = clock::now().instant;
        let Some(plan) = &self.plan else { return };
        match message::decode(&heard.datagram, self.instance) {
            None => {}
            Some(Heard::Question) => {
                if let Some(link) = self.links.get_mut(&heard.link) {
                    link.schedule.asked(now);
                }
            }
            Some(Heard::Adverts(adverts)) => {
                for advert in adverts {
                    let Some(member) = plan.tags.who(&advert) else { continue };
                    if self.finds.take(now, member, &advert.endpoints) {
                        (self.found)(member, advert.endpoints);
                    }
                }
            }
        }
    }

    fn send_due(&mut self) {
        let now = clock::now().instant;
        let due: Vec<_> = self.links.iter_mut().map(|(key, link)| (*key, link.schedule.take_due(now))).collect();
        for (key, Due { is_question, is_advert }) in due {
            if is_question && let Some(link) = self.links.get(&key) {
                link.socket.send(&message::encode_question());
            }
            if is_advert {
                self.send(key, Validity::Holds);
            }
        }
    }

    /// Tells the LAN of an interface where this node is, or that it is there no more. Who is no member has nothing to say.
    fn send(&self, (index, family): (u32, Family), validity: Validity) {
        let (Some(plan), Some(link)) = (&self.plan, self.links.get(&(index, family))) else { return };
        let Some(tags) = plan.tags.own else { return };
        let addresses = plan.interfaces.iter().find(|it| it.index == index).map(|it| &*it.addresses);
        let addresses = addresses.unwrap_or_default();
        link.socket.send(&message::encode_advert(self.instance, tags, plan.port, addresses, validity));
    }
}
