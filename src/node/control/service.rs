//! Who speaks on the control link, and about what: names, services, standings, and the limits that follow from them.

use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::domain_hash;
use crate::policy::Rights;
use std::net::Ipv6Addr;

/// One end of a control link: the key of its handshakes, which both ends of a session know, whatever each believes the other to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub TransportKey);

/// What a connection is for; a TCP port each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Service {
    /// Blocks and snapshots of the ledger.
    Sync,
    /// A guest's request to be admitted.
    Join,
    /// Proposals, votes and certificates.
    Consensus,
    /// Transactions and node records.
    Gossip,
    /// A question from node to node, and its answer.
    Call,
}

/// What a peer may do on the link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Standing {
    /// What the policy says of the peer.
    Peer(Rights),
    /// A member that serves this node while this node is the guest.
    Host,
}

/// Peers that share one set of limits, so that guests take nothing from members.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Class {
    Member,
    Guest,
}

/// The longest message of all services, in bytes.
pub const MAX_MESSAGE_LEN: usize = 1 << 20;

/// The longest message of services that carry one small thing.
const SMALL_MESSAGE_LEN: usize = 64 << 10;

impl LinkId {
    /// The address of this end inside the link: `fd` and 120 bits of a hash (RFC 4193 form), too many to collide on purpose.
    pub fn address(&self) -> Ipv6Addr {
        let mut octets = [0xfd; 16];
        octets[1..].copy_from_slice(&domain_hash("P2Plus 2026 control link address", &[&self.0.0]).0[..15]);
        Ipv6Addr::from(octets)
    }
}

impl Service {
    /// All services, in the order of their ports.
    pub const ALL: [Self; 5] = [Self::Sync, Self::Join, Self::Consensus, Self::Gossip, Self::Call];

    /// The TCP port on which a node accepts the service.
    pub const fn port(self) -> u16 {
        match self {
            Self::Sync => 1,
            Self::Join => 2,
            Self::Consensus => 3,
            Self::Gossip => 4,
            Self::Call => 5,
        }
    }

    /// Finds the service of a port.
    pub fn from_port(port: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.port() == port)
    }

    /// The longest message of the service, in bytes; the shortest is 1.
    pub const fn max_len(self) -> usize {
        match self {
            Self::Sync | Self::Consensus => MAX_MESSAGE_LEN,
            Self::Join | Self::Gossip | Self::Call => SMALL_MESSAGE_LEN,
        }
    }
}

impl Standing {
    /// Says whether a peer of this standing may use `service`, in either direction.
    pub fn allows(self, service: Service) -> bool {
        match self {
            // `join` as well: what it began as a guest goes on to its end.
            Self::Peer(Rights::Member(_)) => true,
            Self::Peer(Rights::Consensus(_)) => matches!(service, Service::Consensus | Service::Sync),
            Self::Peer(Rights::Guest) | Self::Host => matches!(service, Service::Join | Service::Sync),
        }
    }

    /// The longest message that is accepted from such a peer: a guest asks, it does not tell.
    pub(super) fn max_inbound_len(self, service: Service) -> usize {
        match self.class() {
            Class::Member => service.max_len(),
            Class::Guest => service.max_len().min(SMALL_MESSAGE_LEN),
        }
    }

    pub(super) fn class(self) -> Class {
        match self {
            Self::Peer(Rights::Member(_) | Rights::Consensus(_)) | Self::Host => Class::Member,
            Self::Peer(Rights::Guest) => Class::Guest,
        }
    }
}

impl From<Rights> for Standing {
    fn from(rights: Rights) -> Self {
        Self::Peer(rights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::identity::NodeId;

    #[test]
    fn each_standing_has_its_services() {
        let id = NodeId([1; 32]);
        let allowed = |standing: Standing| Service::ALL.map(|service| standing.allows(service));
        assert_eq!(allowed(Rights::Member(id).into()), [true; 5]);
        assert_eq!(allowed(Rights::Consensus(id).into()), [true, false, true, false, false]);
        assert_eq!(allowed(Rights::Guest.into()), [true, true, false, false, false]);
        assert_eq!(allowed(Standing::Host), [true, true, false, false, false]);
    }

    #[test]
    fn a_port_names_its_service() {
        for service in Service::ALL {
            assert_eq!(Service::from_port(service.port()), Some(service));
        }
        assert_eq!(Service::from_port(0), None);
        assert_eq!(Service::from_port(6), None);
    }

    #[test]
    fn addresses_differ_and_are_unique_local() {
        let [one, two] = [1, 2].map(|seed| LinkId(TransportKey([seed; 32])).address());
        assert_ne!(one, two);
        assert!(one.is_unique_local() && two.is_unique_local());
    }
}
