//! Many members at once: admitted by the ledger before anybody runs, spread over a plane, most of them behind NATs.

use crate::machine::{Machine, SimNode};
use crate::nat::{Nat, NatType};
use crate::overlay::Overlay;
use crate::world::{Weather, World};
use p2plus::crypto::hash::domain_hash;
use p2plus::ledger::address::Ipv4Choice;
use p2plus::ledger::operation::Operation;
use p2plus::node::status::Way;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How far apart two hosts of the plane can be, one way.
const PLANE: Duration = Duration::from_millis(50);

/// What the last mile adds at both ends together.
const LAST_MILE: Duration = Duration::from_millis(5);

/// Within what all running members start.
const START: Duration = Duration::from_secs(60);

/// Operations in one transaction, transactions under way at a time.
const BATCH: [usize; 2] = [16, 128];

/// What is in front of the host with this number: of ten, one has a public address, two are behind a symmetric NAT, seven behind a
/// port-restricted one.
pub fn nat_of(number: usize) -> Option<NatType> {
    match number % 10 {
        0 => None,
        3 | 7 => Some(NatType::SYMMETRIC),
        _ => Some(NatType::RESTRICTED),
    }
}

/// The address that others see of a host, and its own.
fn places(number: usize) -> (IpAddr, SocketAddr) {
    let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
    let public = Ipv4Addr::new(20, high, low, 1);
    let home = if nat_of(number).is_none() { public } else { Ipv4Addr::new(10, high, low, 2) };
    (public.into(), SocketAddr::new(home.into(), 4647))
}

/// The address that others see of the host with this number.
pub fn public_of(number: usize) -> IpAddr {
    places(number).0
}

/// How long a datagram takes from one public address to another.
pub fn distance(from: IpAddr, to: IpAddr) -> Duration {
    let place = |address: IpAddr| {
        let digest = domain_hash("place on the plane", &[address.to_string().as_bytes()]).0;
        [0, 1].map(|axis| {
            f64::from(u32::from_le_bytes(digest[axis * 4..][..4].try_into().unwrap())) / f64::from(u32::MAX)
        })
    };
    let (from, to) = (place(from), place(to));
    let share = (from[0] - to[0]).hypot(from[1] - to[1]) / std::f64::consts::SQRT_2;
    LAST_MILE + PLANE.mul_f64(share)
}

fn admission(number: usize, machine: &Machine) -> Operation {
    Operation::Admit(crate::overlay::admission(number, machine))
}

impl Overlay {
    /// A network of `members`, of which the first `running` run: started within a minute, each of which knows where the founder is and the
    /// ledger as it is, and has heard of nobody else.
    pub fn crowd(members: usize, running: usize, seed: u64) -> Self {
        let pool = Ipv4Choice::Given("10.128.0.0/16".parse().unwrap());
        let mut overlay = Self::found_with(1, seed, Weather::FAIR, pool);
        overlay.world.distance = Some(Box::new(distance));
        let admissions: Vec<_> = (1..members).map(|number| admission(number, &overlay.machine(number))).collect();
        for several in admissions.chunks(BATCH[0]).collect::<Vec<_>>().chunks(BATCH[1]) {
            for operations in several {
                overlay.order(0, |node, now| node.order(now, operations.to_vec()).unwrap());
            }
            let founder = overlay.addresses[0];
            let is_settled = |world: &World<SimNode>| world.host(founder).node.ledger().pending().is_empty();
            assert!(overlay.world.run_until(crate::overlay::PATIENCE, is_settled).is_some());
        }
        assert_eq!(overlay.node(0).node.policy().members().count(), members);
        let founder = &overlay.node(0).machine;
        let (ledger, known) = (founder.after_kill(), vec![(founder.id(), founder.address)]);
        for number in 1..running {
            let (public, home) = places(number);
            if let Some(kind) = nat_of(number) {
                overlay.world.put_behind(home, Nat::new(kind, public));
            }
            let mut machine = overlay.machine(number);
            machine.take_ledger(&ledger);
            machine.remember(known.clone());
            let now = overlay.world.now_at(home);
            overlay.world.insert(home, machine.restart(now).unwrap());
            overlay.addresses.push(home);
            overlay.world.run_for(START / u32::try_from(running).unwrap());
        }
        overlay
    }

    /// A fresh machine with the keys of the member with this number, where it lives.
    pub fn machine(&self, number: usize) -> Machine {
        Machine::new(self.seed() * 1_000_000 + number as u64, places(number).1, self.network_id())
    }

    /// By which way a node reaches another one: whether directly, or through whom.
    pub fn way(&self, from: usize, to: usize) -> Option<Reached> {
        let key = self.node(to).machine.transport().public_key();
        match self.node(from).node.way_to(&key)? {
            Way::Direct(_) => Some(Reached::Directly),
            Way::Relayed(name) | Way::Stream(name) => {
                Some(Reached::Through(name.strip_prefix("node-").unwrap().parse().unwrap()))
            }
        }
    }

    /// The round trip by a row of hosts, as the plane has it.
    pub fn round_trip(&self, row: &[usize]) -> Duration {
        let public = |number: usize| self.world.public(self.addresses[number]);
        row.windows(2).map(|hop| distance(public(hop[0]), public(hop[1])) * 2).sum()
    }
}

/// How a member is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Directly.
    Directly,
    /// Through the member with this number.
    Through(usize),
}
