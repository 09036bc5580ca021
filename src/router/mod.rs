//! Who owns an inner address: destination → peer on the way out, source → peer on the way in.
//!
//! ```text
//!   device ──► outbound(packet) ──► peer            peer ──► inbound(peer, packet) ──► device
//!                  └─ no route: icmp::Answerer            └─ source not the peer's: dropped, counted
//! ```
//! Owns the routes and both checks, as an immutable value that the slow node builds and the data threads read. Knows nothing of sessions
//! and paths, and of a peer only its [`PeerIndex`].

pub mod bridge;
pub mod budget;
pub mod classifier;
pub mod filter;
pub mod flows;
pub mod icmp;
pub mod prefix;
pub mod segmentation;

pub use prefix::{Prefix, PrefixMap};

use crate::wire::drops::DropReason;
use crate::wire::inner::InnerPacket;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;

/// The number by which the data threads know a peer: as small as can be, so that tables of 100k peers stay in the caches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerIndex(NonZeroU32);

impl PeerIndex {
    /// What is not a peer in a [`Code`] lies below the first.
    const FIRST: u32 = 4;

    /// The peer at a position, from 0; `None` at the last four of 2^32.
    pub const fn at(position: u32) -> Option<Self> {
        match position.checked_add(Self::FIRST) {
            Some(number) => Some(Self(NonZeroU32::new(number).expect("four at least"))),
            None => None,
        }
    }

    /// Returns the position.
    #[inline]
    pub fn position(self) -> usize {
        (self.0.get() - Self::FIRST) as usize
    }
}

/// Who owns a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// This node: one of its addresses, or a subnet that it advertises.
    Local,
    /// A peer: one of its addresses, or a subnet that it advertises.
    Peer(PeerIndex),
    /// Everybody, which is not carried: the broadcast address of an overlay subnet.
    Broadcast,
}

/// An owner in four bytes that are never zero: in a slot of the table, "nobody" takes no byte of its own.
#[derive(Clone, Copy, Debug)]
struct Code(NonZeroU32);

impl Code {
    const LOCAL: Self = Self(NonZeroU32::new(1).unwrap());
    const BROADCAST: Self = Self(NonZeroU32::new(2).unwrap());
    /// An address of the overlay that nobody has: an exit, which has everybody's else, has it not.
    const NOBODY: Self = Self(NonZeroU32::new(3).unwrap());

    #[inline]
    fn owner(self) -> Option<Owner> {
        match self.0 {
            number if number == Self::LOCAL.0 => Some(Owner::Local),
            number if number == Self::BROADCAST.0 => Some(Owner::Broadcast),
            number if number == Self::NOBODY.0 => None,
            number => Some(Owner::Peer(PeerIndex(number))),
        }
    }
}

/// The routes of one moment.
#[derive(Clone, Debug, Default)]
pub struct Router {
    owners: PrefixMap<Code>,
    /// By subnet: where in `routers` the peers are that may speak from there besides the one in use.
    groups: PrefixMap<u32>,
    routers: Vec<Vec<PeerIndex>>,
}

impl Router {
    /// Builds the routes.
    ///
    /// `local` are this node's addresses and advertised subnets, `subnets` the overlay's own (what is nobody's in them no default route
    /// carries), `routes` every peer's addresses and advertised subnets. The longest prefix decides; of two equal ones the first in the
    /// order local, overlay, routes, so that no peer takes an address from this node.
    pub fn new(
        local: impl IntoIterator<Item = Prefix>,
        subnets: impl IntoIterator<Item = Prefix>,
        routes: impl IntoIterator<Item = (Prefix, PeerIndex)>,
    ) -> Self {
        let local = local.into_iter().map(|prefix| (prefix, Code::LOCAL));
        let overlay = subnets.into_iter().flat_map(|subnet| {
            let broadcast = subnet.broadcast().map(|address| (address, Code::BROADCAST));
            broadcast.into_iter().chain([(subnet, Code::NOBODY)])
        });
        let routes = routes.into_iter().map(|(prefix, peer)| (prefix, Code(peer.0)));
        let owners = PrefixMap::new(local.chain(overlay).chain(routes));
        Self { owners, groups: PrefixMap::default(), routers: Vec::new() }
    }

    /// The same where several peers route one subnet: each of these may speak from the subnet beside it, whoever it is that gets what is for it.
    #[must_use]
    pub fn with_routers(self, routers: impl IntoIterator<Item = (Prefix, PeerIndex)>) -> Self {
        let mut groups: BTreeMap<Prefix, Vec<PeerIndex>> = BTreeMap::new();
        routers.into_iter().for_each(|(subnet, peer)| groups.entry(subnet).or_default().push(peer));
        let places = groups.keys().copied().zip(0..);
        Self { owners: self.owners, groups: PrefixMap::new(places), routers: groups.into_values().collect() }
    }

    /// Finds who owns `address` by the longest prefix.
    #[inline]
    pub fn owner(&self, address: IpAddr) -> Option<Owner> {
        self.owners.get(address)?.owner()
    }

    /// Says whether an inner packet from `peer` may come from `source`: the longest prefix over it is the peer's own, or routed by it too.
    #[inline]
    pub fn source_allowed(&self, peer: PeerIndex, source: IpAddr) -> bool {
        !is_nobody(source)
            && match self.owner(source) {
                Some(Owner::Peer(owner)) => owner == peer || self.routes_too(peer, source),
                Some(Owner::Local | Owner::Broadcast) | None => false,
            }
    }

    /// Says whether a peer is another router of the very subnet by which an address has its owner: who routes a larger one, everything even,
    /// does not speak for what others have of it.
    fn routes_too(&self, peer: PeerIndex, address: IpAddr) -> bool {
        let owned = self.owners.longest(address).map(|(bits, _)| bits);
        let group = self.groups.longest(address).filter(|(bits, _)| Some(*bits) == owned);
        group.is_some_and(|(_, place)| self.routers[place as usize].contains(&peer))
    }

    /// Chooses the peer for a packet that the device gave.
    ///
    /// # Errors
    /// The reason to drop it. [`DropReason::NoRoute`] and [`DropReason::Prohibited`] deserve an ICMP answer.
    #[inline]
    pub fn outbound(&self, packet: &InnerPacket) -> Result<PeerIndex, DropReason> {
        if is_multicast(packet.destination) {
            return Err(DropReason::Multicast);
        }
        if is_nobody(packet.destination) {
            return Err(DropReason::NoRoute);
        }
        let peer = match self.owner(packet.destination) {
            Some(Owner::Peer(peer)) => peer,
            Some(Owner::Local) => return Err(DropReason::DestinationIsLocal),
            Some(Owner::Broadcast) => return Err(DropReason::Multicast),
            None => return Err(DropReason::NoRoute),
        };
        // The peer would refuse it: the kernel chose the address of another interface, or forwards for somebody.
        match self.owner(packet.source) {
            Some(Owner::Local) => Ok(peer),
            _ => Err(DropReason::SourceNotOurs),
        }
    }

    /// Checks a packet that `peer` sent, before the device gets it.
    ///
    /// # Errors
    /// The reason to drop it.
    #[inline]
    pub fn inbound(&self, peer: PeerIndex, packet: &InnerPacket) -> Result<(), DropReason> {
        if is_nobody(packet.source) {
            return Err(DropReason::SourceInvalid);
        }
        if !self.source_allowed(peer, packet.source) {
            return Err(DropReason::SourceNotPeers);
        }
        if is_multicast(packet.destination) {
            return Err(DropReason::Multicast);
        }
        if is_nobody(packet.destination) {
            return Err(DropReason::DestinationNotOurs);
        }
        match self.owner(packet.destination) {
            Some(Owner::Local) => Ok(()),
            Some(Owner::Broadcast) => Err(DropReason::Multicast),
            Some(Owner::Peer(_)) | None => Err(DropReason::DestinationNotOurs),
        }
    }
}

/// Says whether a destination is a group or everybody on a link.
fn is_multicast(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Says whether an address can be nobody's beyond one host or link, neither a sender's nor a receiver's, whatever prefix (such as an exit's default
/// route) covers it: a cloud's metadata service is among them.
fn is_nobody(address: IpAddr) -> bool {
    is_multicast(address)
        || address.is_unspecified()
        || address.is_loopback()
        || match address {
            IpAddr::V4(address) => address.octets()[0] == 0 || address.octets()[0] >= 240 || address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local() || address.to_ipv4_mapped().is_some(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::inner::Fragment;
    use proptest::prelude::*;

    const ALICE: PeerIndex = PeerIndex::at(0).unwrap();
    const BOB: PeerIndex = PeerIndex::at(1).unwrap();
    const EXIT: PeerIndex = PeerIndex::at(2).unwrap();

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn packet(source: &str, destination: &str) -> InnerPacket {
        InnerPacket {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: 17,
            total_len: 100,
            payload_offset: 20,
            hop_limit: 64,
            dont_fragment: true,
            fragment: Fragment::Whole,
        }
    }

    /// This node is 10.64.0.1 and advertises 192.168.1.0/24; Bob advertises 192.168.0.0/16, and an exit everything.
    fn router() -> Router {
        Router::new(
            [prefix("10.64.0.1/32"), prefix("fd00::1/128"), prefix("192.168.1.0/24")],
            [prefix("10.64.0.0/20"), prefix("fd00::/64")],
            [
                (prefix("10.64.0.2/32"), ALICE),
                (prefix("fd00::2/128"), ALICE),
                (prefix("10.64.0.3/32"), BOB),
                (prefix("192.168.0.0/16"), BOB),
                (prefix("0.0.0.0/0"), EXIT),
                (prefix("10.64.0.1/32"), BOB),
                (prefix("10.64.15.255/32"), BOB),
            ],
        )
    }

    #[test]
    fn a_destination_goes_to_the_owner_of_its_longest_prefix() {
        let router = router();
        for (destination, expected) in [
            ("10.64.0.2", Ok(ALICE)),
            ("10.64.0.3", Ok(BOB)),
            ("192.168.7.7", Ok(BOB)),
            ("9.9.9.9", Ok(EXIT)),
            ("192.168.1.7", Err(DropReason::DestinationIsLocal)),
            ("10.64.0.1", Err(DropReason::DestinationIsLocal)),
            ("10.64.15.255", Err(DropReason::Multicast)),
            ("224.0.0.251", Err(DropReason::Multicast)),
            ("255.255.255.255", Err(DropReason::Multicast)),
        ] {
            assert_eq!(router.outbound(&packet("10.64.0.1", destination)), expected, "{destination}");
        }
        for (destination, expected) in [
            ("fd00::2", Ok(ALICE)),
            ("fd00::9", Err(DropReason::NoRoute)),
            ("ff02::fb", Err(DropReason::Multicast)),
            ("::ffff:10.64.0.2", Err(DropReason::NoRoute)),
        ] {
            assert_eq!(router.outbound(&packet("fd00::1", destination)), expected, "{destination}");
        }
    }

    #[test]
    fn an_exit_carries_neither_what_is_nobody_s_in_the_overlay_nor_what_is_of_one_link() {
        let router = router();
        for address in ["10.64.0.77", "10.64.0.53", "169.254.169.254", "127.0.0.1", "0.1.2.3", "240.0.0.1"] {
            let packet = |source, destination| packet(source, destination);
            assert_eq!(router.outbound(&packet("10.64.0.1", address)), Err(DropReason::NoRoute), "{address}");
            assert!(router.inbound(EXIT, &packet(address, "10.64.0.1")).is_err(), "{address}");
        }
        // On the exit itself everything else is local.
        let everything = Router::new(
            [prefix("0.0.0.0/0"), prefix("10.64.0.1/32")],
            [prefix("10.64.0.0/20")],
            [(prefix("10.64.0.2/32"), ALICE)],
        );
        let check = |destination| everything.inbound(ALICE, &packet("10.64.0.2", destination));
        assert_eq!((check("9.9.9.9"), check("10.64.0.1")), (Ok(()), Ok(())));
        for address in ["169.254.169.254", "127.0.0.1", "10.64.0.77", "10.64.0.53"] {
            assert_eq!(check(address), Err(DropReason::DestinationNotOurs), "{address}");
        }
    }

    #[test]
    fn only_own_sources_leave() {
        let router = router();
        assert_eq!(router.outbound(&packet("192.168.1.9", "10.64.0.2")), Ok(ALICE));
        for source in ["10.64.0.3", "172.16.0.1", "0.0.0.0", "127.0.0.1", "10.64.15.255"] {
            assert_eq!(router.outbound(&packet(source, "10.64.0.2")), Err(DropReason::SourceNotOurs), "{source}");
        }
    }

    #[test]
    fn a_peer_speaks_for_its_own_addresses_only() {
        let router = router();
        for (peer, source, expected) in [
            (ALICE, "10.64.0.2", Ok(())),
            (BOB, "192.168.200.1", Ok(())),
            (EXIT, "9.9.9.9", Ok(())),
            (BOB, "10.64.0.2", Err(DropReason::SourceNotPeers)),
            (EXIT, "10.64.0.2", Err(DropReason::SourceNotPeers)),
            (EXIT, "192.168.200.1", Err(DropReason::SourceNotPeers)),
            (BOB, "192.168.1.200", Err(DropReason::SourceNotPeers)),
            (BOB, "10.64.0.1", Err(DropReason::SourceNotPeers)),
            (BOB, "10.64.15.255", Err(DropReason::SourceNotPeers)),
            (EXIT, "127.0.0.1", Err(DropReason::SourceInvalid)),
            (EXIT, "0.0.0.0", Err(DropReason::SourceInvalid)),
            (EXIT, "169.254.169.254", Err(DropReason::SourceInvalid)),
            (EXIT, "224.0.0.1", Err(DropReason::SourceInvalid)),
            (EXIT, "255.255.255.255", Err(DropReason::SourceInvalid)),
        ] {
            assert_eq!(router.inbound(peer, &packet(source, "10.64.0.1")), expected, "{peer:?} {source}");
        }
    }

    #[test]
    fn a_peer_reaches_nothing_behind_this_node_but_what_it_advertises() {
        let router = router();
        for (destination, expected) in [
            ("192.168.1.4", Ok(())),
            ("10.64.0.3", Err(DropReason::DestinationNotOurs)),
            ("192.168.2.4", Err(DropReason::DestinationNotOurs)),
            ("127.0.0.1", Err(DropReason::DestinationNotOurs)),
            ("224.0.0.251", Err(DropReason::Multicast)),
            ("10.64.15.255", Err(DropReason::Multicast)),
        ] {
            assert_eq!(router.inbound(ALICE, &packet("10.64.0.2", destination)), expected, "{destination}");
        }
    }

    #[test]
    fn each_router_of_a_subnet_may_speak_from_it_and_one_is_spoken_to() {
        let (site, everywhere) = (prefix("192.168.0.0/16"), prefix("0.0.0.0/0"));
        let router = router().with_routers([(site, ALICE), (site, BOB), (everywhere, EXIT)]);
        for (peer, source, expected) in [
            (ALICE, "192.168.7.7", true),
            (BOB, "192.168.7.7", true),
            (EXIT, "192.168.7.7", false),
            (EXIT, "10.64.0.2", false),
            (EXIT, "10.64.0.3", false),
            (EXIT, "10.64.0.77", false),
            (EXIT, "9.9.9.9", true),
            (ALICE, "10.64.0.3", false),
            (ALICE, "192.168.1.7", false),
            (ALICE, "9.9.9.9", false),
        ] {
            assert_eq!(router.source_allowed(peer, source.parse().unwrap()), expected, "{peer:?} {source}");
        }
        assert_eq!(router.outbound(&packet("10.64.0.1", "192.168.7.7")), Ok(BOB));
    }

    fn plan() -> impl Strategy<Value = Vec<(Prefix, PeerIndex)>> {
        let entry = (any::<u8>(), 20..=32u8, 0..5u32).prop_map(|(low, len, peer)| {
            (Prefix::new(IpAddr::from([10, 64, low & 3, low]), len).unwrap(), PeerIndex::at(peer).unwrap())
        });
        prop::collection::vec(entry, 0..30)
    }

    #[test]
    fn the_last_peer_is_none_of_the_others() {
        assert_eq!(PeerIndex::at(u32::MAX - 3), None);
        for position in [0, 1, u32::MAX - 4] {
            let peer = PeerIndex::at(position).unwrap();
            assert_eq!((peer.position(), Code(peer.0).owner()), (position as usize, Some(Owner::Peer(peer))));
        }
        let others = [Code::LOCAL, Code::BROADCAST, Code::NOBODY].map(Code::owner);
        assert_eq!(others, [Some(Owner::Local), Some(Owner::Broadcast), None]);
        assert_eq!(size_of::<Option<Code>>(), 4);
    }

    proptest! {
        #[test]
        fn under_any_plan_an_address_has_at_most_one_peer(plan in plan(), low in any::<u8>(), third in 0..4u8) {
            let address = IpAddr::from([10, 64, third, low]);
            let router = Router::new([], [], plan.iter().copied());
            let allowed: Vec<_> = (0..5).filter_map(PeerIndex::at).filter(|peer| router.source_allowed(*peer, address)).collect();
            let longest = plan.iter().filter(|(prefix, _)| prefix.contains(address)).map(|(prefix, _)| prefix.bits()).max();
            let owner = plan.iter().find(|(prefix, _)| prefix.contains(address) && Some(prefix.bits()) == longest);
            prop_assert_eq!(allowed, owner.map(|(_, peer)| *peer).into_iter().collect::<Vec<_>>());
        }
    }
}
