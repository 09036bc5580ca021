//! NATs as RFC 4787 calls them: how they choose the endpoint that others see, and whom they let in there.

use p2plus::time::Instant;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long a mapping lasts without a datagram from inside: what most NATs do, whatever RFC 4787 REQ-5 asks for.
const MAPPING_LIFETIME: Duration = Duration::from_secs(30);

/// Where ports for mappings begin.
const FIRST_PORT: u16 = 20_000;

/// Whether something is the same for every remote endpoint, or one's own for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    Independent,
    Dependent,
}

/// A NAT's kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NatType {
    pub mapping: Behaviour,
    pub filtering: Behaviour,
}

impl NatType {
    pub const FULL_CONE: Self = Self { mapping: Behaviour::Independent, filtering: Behaviour::Independent };
    pub const RESTRICTED: Self = Self { mapping: Behaviour::Independent, filtering: Behaviour::Dependent };
    pub const SYMMETRIC: Self = Self { mapping: Behaviour::Dependent, filtering: Behaviour::Dependent };
    pub const ALL: [Self; 3] = [Self::FULL_CONE, Self::RESTRICTED, Self::SYMMETRIC];

    /// Whether two hosts behind such NATs can reach each other directly when both begin at once: one of the two has to know the endpoint that
    /// the other's NAT will use towards it, or to guess its port, unless one NAT lets anybody in.
    pub fn meets(self, other: Self) -> bool {
        let is_open = |nat: Self| nat.filtering == Behaviour::Independent;
        let is_known = |nat: Self| nat.mapping == Behaviour::Independent;
        is_known(self) || is_known(other) || is_open(self) || is_open(other)
    }
}

/// One NAT with the hosts behind it.
pub struct Nat {
    pub kind: NatType,
    public: IpAddr,
    mappings: BTreeMap<Inside, Mapping>,
    by_port: BTreeMap<u16, Inside>,
    next_port: u16,
    /// When all that nobody used is thrown away.
    purge_at: Instant,
}

/// An inside endpoint, and the remote one where each has a mapping of its own.
type Inside = (SocketAddr, Option<SocketAddr>);

struct Mapping {
    port: u16,
    used: Instant,
    /// Whom the inside spoke to by it, and when.
    friends: BTreeMap<SocketAddr, Instant>,
}

impl Nat {
    pub fn new(kind: NatType, public: IpAddr) -> Self {
        let (mappings, by_port) = (BTreeMap::new(), BTreeMap::new());
        Self { kind, public, mappings, by_port, next_port: FIRST_PORT, purge_at: Instant::ZERO }
    }

    pub fn public(&self) -> IpAddr {
        self.public
    }

    /// The source that others see of what an inside endpoint sends.
    pub fn outbound(&mut self, now: Instant, from: SocketAddr, to: SocketAddr) -> SocketAddr {
        if now >= self.purge_at {
            self.purge(now);
        }
        let key = (from, (self.kind.mapping == Behaviour::Dependent).then_some(to));
        if !self.mappings.get(&key).is_some_and(|mapping| is_fresh(now, mapping.used)) {
            if let Some(stale) = self.mappings.remove(&key) {
                self.by_port.remove(&stale.port);
            }
            let port = self.take_port();
            self.by_port.insert(port, key);
            self.mappings.insert(key, Mapping { port, used: now, friends: BTreeMap::new() });
        }
        let mapping = self.mappings.get_mut(&key).expect("it is there now");
        mapping.used = now;
        mapping.friends.insert(to, now);
        SocketAddr::new(self.public, mapping.port)
    }

    /// A port that no mapping has.
    fn take_port(&mut self) -> u16 {
        loop {
            self.next_port = self.next_port.checked_add(7).unwrap_or(FIRST_PORT);
            if !self.by_port.contains_key(&self.next_port) {
                return self.next_port;
            }
        }
    }

    /// The inside endpoint that gets what comes from outside, if it is let in.
    pub fn inbound(&self, now: Instant, from: SocketAddr, port: u16) -> Option<SocketAddr> {
        let inside = self.by_port.get(&port)?;
        let mapping = self.mappings.get(inside).filter(|mapping| is_fresh(now, mapping.used))?;
        let is_friend = mapping.friends.get(&from).is_some_and(|at| is_fresh(now, *at));
        (self.kind.filtering == Behaviour::Independent || is_friend).then_some(inside.0)
    }

    fn purge(&mut self, now: Instant) {
        self.purge_at = now + MAPPING_LIFETIME;
        self.mappings.retain(|_, mapping| is_fresh(now, mapping.used));
        self.by_port.retain(|_, inside| self.mappings.contains_key(inside));
    }

    /// Forgets everything, as when it is switched off and on.
    pub fn reboot(&mut self) {
        self.mappings.clear();
        self.by_port.clear();
        self.next_port = self.next_port.checked_add(1000).unwrap_or(FIRST_PORT);
    }
}

fn is_fresh(now: Instant, used: Instant) -> bool {
    now.saturating_since(used) < MAPPING_LIFETIME
}
