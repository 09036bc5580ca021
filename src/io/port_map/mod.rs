//! Keeps one UDP port of this host mapped on its gateway, so that others reach it there unasked: a task of the daemon's runtime.
//!
//! ```text
//!   map(target) ──► search: PCP, else NAT-PMP, else UPnP ── none ──► told, and tried again later, ever more seldom
//!                     │ given, and of use
//!                     ▼
//!                   told ──► renewed at half its life ── refused, or its life is over ──► search
//!   rest, another target, the end ──► deleted, where the gateway is still the one that was asked
//! ```
//! Owns the conversation with the gateway, and refuses to know what the mapping is for. The sockets carry the daemon's mark, so that no
//! question leaves by the overlay, where another gateway may have the same address; and they are connected to the gateway, or hear it alone.
//! An address that nobody can come to from outside is worth nothing, whoever tells it, and is not believed.

mod gateway;
mod igd;

use crate::io::clock;
use crate::path::candidate::{is_possible, is_private};
use crate::time::Instant;
use gateway::{AskError, Gateway};
use igd::Igd;
use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a mapping is asked for: what a crash leaves is gone by then, and a gateway that started anew is asked again in half of it.
const LIFETIME: Duration = Duration::from_mins(20);

/// Bounds of the time until a renewal, whatever life a gateway gives: it is not asked more often, and is noticed when it forgets.
const RENEWAL: [Duration; 2] = [Duration::from_secs(30), Duration::from_mins(30)];

/// The first pause after a search in vain; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// The longest one: the option may be switched on in the router some day.
const LONGEST_PAUSE: Duration = Duration::from_mins(15);

/// How long the runtime sleeps at a time at most: its clock stands still while the machine is suspended, and the gateway's does not.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// How long a deletion may take: the daemon's end waits for it.
const DELETION: Duration = Duration::from_millis(1500);

/// What is to be mapped, and by whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// The default gateway.
    pub gateway: Ipv4Addr,
    /// This host's address on the way there.
    pub source: Ipv4Addr,
    /// The UDP port.
    pub port: u16,
}

/// What the task is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Nothing, and hold nothing.
    Rest,
    /// Nothing: there is no gateway that could be asked.
    Wait,
    /// Hold this mapping.
    Map(Target),
}

/// How a gateway was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// The Port Control Protocol.
    Pcp,
    /// Its forerunner.
    NatPmp,
    /// UPnP's Internet Gateway Device.
    Upnp,
}

/// How it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortMapState {
    /// It is switched off, or nothing listens on IPv4.
    Off,
    /// No gateway with a private address is on the way to the world.
    NoGateway,
    /// The gateway is being asked.
    Searching,
    /// It passes on what comes to this endpoint.
    Mapped {
        /// From outside.
        external: SocketAddrV4,
        /// How it was asked.
        by: Protocol,
    },
    /// It does not.
    Unmapped(Refusal),
}

/// Why there is no mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// It was asked in every way.
    #[error("the gateway answers neither PCP, NAT-PMP nor UPnP")]
    Silent,
    /// It said no.
    #[error("the gateway refuses by {by}: result {code}")]
    Refused {
        /// How it was asked.
        by: Protocol,
        /// Its reason, in that protocol's numbers.
        code: u16,
    },
    /// What it names is no place to come to from outside: there is another NAT in front of it, or it lies.
    #[error("the gateway's own address is {0}: nobody comes there from outside")]
    Useless(Ipv4Addr),
}

/// The task. It ends with [`end`](Self::end).
pub struct PortMapper {
    orders: PortMapOrders,
    task: JoinHandle<()>,
}

/// Tells the task what to do, and reads how it stands.
#[derive(Clone)]
pub struct PortMapOrders {
    orders: watch::Sender<Option<Order>>,
    state: watch::Receiver<PortMapState>,
}

/// The task's own.
struct Mapper<F> {
    orders: watch::Receiver<Option<Order>>,
    holder: Holder<F>,
}

/// What is held, and who is told.
struct Holder<F> {
    state: watch::Sender<PortMapState>,
    notify: F,
    mark: u32,
    nonce: [u8; 12],
    held: Option<Held>,
}

/// What a gateway may have for this host.
#[derive(Clone)]
struct Held {
    target: Target,
    way: Way,
    external_port: u16,
}

/// How a gateway is asked for a mapping.
#[derive(Clone)]
enum Way {
    Pcp,
    NatPmp,
    Upnp(Igd),
}

/// A mapping that is of use.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    external: SocketAddrV4,
    lifetime: Duration,
}

impl PortMapper {
    /// Starts the task, which rests. `mark` is put on all that it sends, 0 for none; `nonce` is drawn for this run; `notify` is called when
    /// the state changed, on the runtime, and may not block.
    pub fn start(runtime: &Runtime, mark: u32, nonce: [u8; 12], notify: impl Fn() + Send + Sync + 'static) -> Self {
        let (orders, ordered) = watch::channel(Some(Order::Rest));
        let (told, state) = watch::channel(PortMapState::Off);
        let holder = Holder { state: told, notify, mark, nonce, held: None };
        let task = runtime.spawn(Mapper { orders: ordered, holder }.run());
        Self { orders: PortMapOrders { orders, state }, task }
    }

    /// What gives it orders.
    pub fn orders(&self) -> PortMapOrders {
        self.orders.clone()
    }

    /// Has the mapping deleted, and waits for that, not for long.
    pub fn end(self, runtime: &Runtime) {
        self.orders.orders.send_replace(None);
        // The deletion has a time limit of its own; what else the task may be at is broken off.
        let _ = runtime.block_on(async { tokio::time::timeout(DELETION * 2, self.task).await });
    }
}

impl PortMapOrders {
    /// Gives an order; the same again changes nothing.
    pub fn give(&self, order: Order) {
        self.orders.send_if_modified(|current| {
            // None is the end, which is final.
            let is_news = current.is_some_and(|it| it != order);
            if is_news {
                *current = Some(order);
            }
            is_news
        });
    }

    /// How it stands.
    pub fn state(&self) -> PortMapState {
        *self.state.borrow()
    }
}

impl<F: Fn() + Send + Sync> Mapper<F> {
    async fn run(mut self) {
        loop {
            let Some(order) = *self.orders.borrow_and_update() else { return self.holder.release().await };
            self.holder.leave_for(order).await;
            match order {
                Order::Rest => self.holder.tell(PortMapState::Off),
                Order::Wait => self.holder.tell(PortMapState::NoGateway),
                Order::Map(target) => {
                    let (holder, orders) = (&mut self.holder, &mut self.orders);
                    tokio::select! {
                        never = holder.hold(target) => match never {},
                        Ok(()) = orders.changed() => continue,
                        else => {}
                    }
                }
            }
            if self.orders.changed().await.is_err() {
                return self.holder.release().await;
            }
        }
    }
}

impl<F: Fn() + Send + Sync> Holder<F> {
    /// Parts with what is held, where the next order is not to hold the same. Another gateway is not told of what this one has.
    async fn leave_for(&mut self, order: Order) {
        let Some(held) = &self.held else { return };
        match order {
            Order::Map(target) if target == held.target => {}
            Order::Map(target) if target.source != held.target.source => self.held = None,
            Order::Wait => self.held = None,
            Order::Rest | Order::Map(_) => self.release().await,
        }
    }

    /// Has the mapping that may be there deleted.
    async fn release(&mut self) {
        let Some(held) = self.held.take() else { return };
        let by = held.way.protocol();
        match tokio::time::timeout(DELETION, self.delete(&held)).await {
            Ok(Ok(())) => tracing::debug!(%by, port = held.external_port, "the gateway's mapping is deleted"),
            Ok(Err(error)) => tracing::debug!(%by, %error, "the gateway did not delete the mapping"),
            Err(_) => tracing::debug!(%by, "the gateway was asked to delete the mapping, and says nothing"),
        }
    }

    /// Holds a mapping for as long as nobody says otherwise.
    async fn hold(&mut self, target: Target) -> Infallible {
        self.tell(PortMapState::Searching);
        let mut pause = FIRST_PAUSE;
        loop {
            let refusal = match self.search(target).await {
                Ok(mapping) => {
                    pause = FIRST_PAUSE;
                    self.keep(target, mapping).await
                }
                Err(refusal) => refusal,
            };
            self.tell(PortMapState::Unmapped(refusal));
            sleep_until(clock::now().instant + pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Asks in every way for a mapping that is of use. Of several reasons against it, returns the one that says most.
    async fn search(&mut self, target: Target) -> Result<Mapping, Refusal> {
        let mut refusal = Refusal::Silent;
        for way in [Way::Pcp, Way::NatPmp] {
            match self.ask(target, way, target.port).await {
                Ok(mapping) => return Ok(mapping),
                Err(error) => refusal = refusal.or(error),
            }
        }
        for igd in Igd::find(target, self.mark).await {
            match self.ask(target, Way::Upnp(igd), target.port).await {
                Ok(mapping) => return Ok(mapping),
                Err(error) => refusal = refusal.or(error),
            }
        }
        // Who never answered has nothing, most likely, and nobody waits for it when the daemon ends.
        self.held = None;
        Err(refusal)
    }

    /// Renews a mapping until it is lost. Returns why.
    async fn keep(&mut self, target: Target, mut mapping: Mapping) -> Refusal {
        loop {
            let Some(Held { way, .. }) = self.held.clone() else { return Refusal::Silent };
            self.tell(PortMapState::Mapped { external: mapping.external, by: way.protocol() });
            let now = clock::now().instant;
            let (mut renewal, expiry) = (now + renewal_of(mapping.lifetime), now + mapping.lifetime);
            mapping = loop {
                sleep_until(renewal).await;
                match self.ask(target, way.clone(), mapping.external.port()).await {
                    Ok(renewed) => break renewed,
                    // It may be busy, or starting anew: what it gave holds for its time (RFC 6887 §11.2.1).
                    Err(Refusal::Silent) if clock::now().instant < expiry => {
                        let now = clock::now().instant;
                        renewal = now + (expiry.saturating_since(now) / 2).max(RENEWAL[0]);
                    }
                    Err(refusal) => return refusal,
                }
            };
        }
    }

    /// Asks in one way for a mapping, and notes what the gateway may have then.
    async fn ask(&mut self, target: Target, way: Way, external_port: u16) -> Result<Mapping, Refusal> {
        let by = way.protocol();
        self.held = Some(Held { target, way: way.clone(), external_port });
        let lifetime = LIFETIME;
        let outcome = match &way {
            Way::Pcp | Way::NatPmp => match Gateway::open(target, self.mark, self.nonce).await {
                Ok(gateway) if matches!(way, Way::Pcp) => gateway.map_by_pcp(external_port, lifetime).await,
                Ok(gateway) => gateway.map_by_nat_pmp(external_port, lifetime).await,
                Err(error) => Err(AskError::Unreachable(error)),
            },
            Way::Upnp(igd) => igd.map(external_port, lifetime).await,
        };
        match outcome {
            Ok(mapping) if is_reachable(mapping.external) => {
                self.held = Some(Held { target, way, external_port: mapping.external.port() });
                Ok(mapping)
            }
            Ok(mapping) => {
                tracing::debug!(%by, external = %mapping.external, "the gateway's own address is of no use");
                self.held = Some(Held { target, way, external_port: mapping.external.port() });
                self.release().await;
                Err(Refusal::Useless(*mapping.external.ip()))
            }
            Err(error) => {
                tracing::debug!(%by, gateway = %target.gateway, %error, "no port mapping");
                if !matches!(error, AskError::Silent) {
                    self.held = None;
                }
                Err(error.into_refusal(by))
            }
        }
    }

    async fn delete(&self, held: &Held) -> Result<(), AskError> {
        if let Way::Upnp(igd) = &held.way {
            return igd.delete(held.external_port).await;
        }
        let gateway = Gateway::open(held.target, self.mark, self.nonce).await.map_err(AskError::Unreachable)?;
        match held.way {
            Way::Pcp => gateway.map_by_pcp(held.external_port, Duration::ZERO).await.map(drop),
            _ => gateway.delete_by_nat_pmp().await,
        }
    }

    fn tell(&self, state: PortMapState) {
        let is_news = self.state.send_if_modified(|current| {
            let is_news = *current != state;
            *current = state;
            is_news
        });
        if is_news {
            (self.notify)();
        }
    }
}

impl Refusal {
    /// Of two reasons the one that says more; of two that say as much, the first.
    fn or(self, other: Self) -> Self {
        let weight = |it: &Self| match it {
            Self::Silent => 0,
            Self::Refused { .. } => 1,
            Self::Useless(_) => 2,
        };
        if weight(&other) > weight(&self) { other } else { self }
    }
}

impl Way {
    const fn protocol(&self) -> Protocol {
        match self {
            Self::Pcp => Protocol::Pcp,
            Self::NatPmp => Protocol::NatPmp,
            Self::Upnp(_) => Protocol::Upnp,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// Says whether others can come to an endpoint: it is one of the internet, as far as its address tells.
fn is_reachable(external: SocketAddrV4) -> bool {
    is_possible(&SocketAddr::V4(external)) && !is_private(IpAddr::V4(*external.ip()))
}

/// When a mapping of this life is renewed.
fn renewal_of(lifetime: Duration) -> Duration {
    (lifetime / 2).clamp(RENEWAL[0], RENEWAL[1])
}

async fn sleep_until(at: Instant) {
    loop {
        let left = at.saturating_since(clock::now().instant);
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_nobody_comes_to_is_not_believed() {
        for text in ["8.0.0.11:4647", "198.18.1.2:4647", "203.0.113.7:1"] {
            assert!(is_reachable(text.parse().unwrap()), "{text}");
        }
        for text in [
            "127.0.0.1:4647",
            "0.0.0.0:4647",
            "10.0.0.7:4647",
            "192.168.1.1:4647",
            "100.64.0.7:4647",
            "169.254.169.254:80",
            "224.0.0.251:5353",
            "255.255.255.255:1",
            "8.0.0.11:0",
        ] {
            assert!(!is_reachable(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_renewal_is_neither_hurried_nor_forgotten_whatever_life_the_gateway_gives() {
        let renewal = |seconds| renewal_of(Duration::from_secs(seconds)).as_secs();
        assert_eq!((renewal(0), renewal(1), renewal(1200)), (30, 30, 600));
        assert_eq!(renewal(u32::MAX.into()), 1800);
    }

    #[test]
    fn the_reason_that_says_most_is_told() {
        let refused = |code| Refusal::Refused { by: Protocol::Pcp, code };
        let useless = Refusal::Useless(Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(Refusal::Silent.or(refused(2)).or(Refusal::Silent).or(refused(3)), refused(2));
        assert_eq!(refused(2).or(useless).or(refused(4)), useless);
    }
}
