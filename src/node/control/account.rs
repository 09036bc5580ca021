//! How much memory waiting messages take, per peer and in all.

use super::service::Class;

/// Waiting bytes to one member, and as many from it: two messages of the longest kind.
pub const MEMBER_BUFFER: usize = (2 << 20) + (64 << 10);

/// Waiting bytes to one guest.
pub const GUEST_OUTBOUND_BUFFER: usize = (1 << 20) + (64 << 10);

/// Waiting bytes from one guest.
pub const GUEST_INBOUND_BUFFER: usize = 128 << 10;

/// Waiting bytes to all members, and as many from them.
pub const MEMBERS_BUFFER: usize = 64 << 20;

/// Waiting bytes to all guests, and as many from them.
pub const GUESTS_BUFFER: usize = 16 << 20;

/// What a message costs beyond its bytes, so that a flood of tiny ones is no cheaper to its sender than it is here.
const MESSAGE_OVERHEAD: usize = 128;

/// Which way messages go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    Outbound,
    Inbound,
}

/// Which limit is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scarce {
    /// The peer's own.
    Peer,
    /// That of all peers of its class.
    Class,
}

/// The bytes that messages of one peer, or of all peers of a class, take; by [`Direction`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Account([usize; 2]);

/// The accounts of both classes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Accounts([Account; 2]);

/// Returns what a message of `len` bytes costs while it waits.
pub(super) const fn cost(len: usize) -> usize {
    len + MESSAGE_OVERHEAD
}

impl Accounts {
    /// Books `cost` to the peer and to its class.
    pub(super) fn reserve(
        &mut self,
        peer: &mut Account,
        class: Class,
        direction: Direction,
        cost: usize,
    ) -> Result<(), Scarce> {
        let all = &mut self.0[class as usize].0[direction as usize];
        let own = &mut peer.0[direction as usize];
        if *own + cost > peer_limit(class, direction) {
            return Err(Scarce::Peer);
        }
        if *all + cost > class_limit(class) {
            return Err(Scarce::Class);
        }
        *own += cost;
        *all += cost;
        Ok(())
    }

    /// Takes back what was booked.
    pub(super) fn release(&mut self, peer: &mut Account, class: Class, direction: Direction, cost: usize) {
        peer.0[direction as usize] -= cost;
        self.0[class as usize].0[direction as usize] -= cost;
    }

    /// Moves a peer's bookings to another class, even above its limit: what waits is not lost, only nothing is added.
    pub(super) fn reclass(&mut self, peer: &Account, from: Class, to: Class) {
        for direction in [Direction::Outbound, Direction::Inbound] {
            self.0[from as usize].0[direction as usize] -= peer.0[direction as usize];
            self.0[to as usize].0[direction as usize] += peer.0[direction as usize];
        }
    }
}

const fn peer_limit(class: Class, direction: Direction) -> usize {
    match (class, direction) {
        (Class::Member, _) => MEMBER_BUFFER,
        (Class::Guest, Direction::Outbound) => GUEST_OUTBOUND_BUFFER,
        (Class::Guest, Direction::Inbound) => GUEST_INBOUND_BUFFER,
    }
}

const fn class_limit(class: Class) -> usize {
    match class {
        Class::Member => MEMBERS_BUFFER,
        Class::Guest => GUESTS_BUFFER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_stops_at_its_own_limit_and_all_at_the_class_limit() {
        let mut accounts = Accounts::default();
        let mut peers = vec![Account::default(); 100];
        let mut refused = Vec::new();
        for peer in &mut peers {
            while accounts.reserve(peer, Class::Member, Direction::Inbound, 1 << 20).is_ok() {}
            refused.push(accounts.reserve(peer, Class::Member, Direction::Inbound, 1 << 20).unwrap_err());
        }
        assert_eq!(refused[0], Scarce::Peer);
        assert_eq!(refused[99], Scarce::Class);
        assert_eq!(accounts.reserve(&mut peers[0], Class::Member, Direction::Outbound, 1), Ok(()));
        assert_eq!(accounts.reserve(&mut Account::default(), Class::Guest, Direction::Inbound, 1), Ok(()));
    }

    #[test]
    fn what_was_released_can_be_booked_again() {
        let mut accounts = Accounts::default();
        let mut peer = Account::default();
        accounts.reserve(&mut peer, Class::Guest, Direction::Inbound, 1000).unwrap();
        accounts.reclass(&peer, Class::Guest, Class::Member);
        accounts.release(&mut peer, Class::Member, Direction::Inbound, 1000);
        assert_eq!((accounts, peer), (Accounts::default(), Account::default()));
    }
}
