//! Every reason for which the data path gives a packet up, with a counter each: nothing from outside vanishes unnamed.

use std::sync::atomic::{AtomicU64, Ordering};

/// Declares the reasons once: the variant, its name in status JSON and in logs, and what happened.
macro_rules! drop_reasons {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $name:literal, )+) => {
        /// Why a packet or datagram went no further.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl DropReason {
            /// All reasons, in the order of the counters.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The name in status JSON, metrics and logs: snake_case, never renamed.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )+ }
            }
        }
    };
}

drop_reasons! {
    /// An inner packet that is no whole IPv4 or IPv6 packet.
    MalformedPacket = "malformed_packet",
    /// A datagram whose clear header or length fits no message.
    MalformedDatagram = "malformed_datagram",
    /// A datagram whose first byte names no message.
    UnknownType = "unknown_type",
    /// An authentic record that is of no known kind or garbled within.
    MalformedRecord = "malformed_record",
    /// No member and no subnet route owns the inner destination.
    NoRoute = "no_route",
    /// The inner destination is an address of this node.
    DestinationIsLocal = "destination_is_local",
    /// A peer sent a packet whose inner destination is not this node's.
    DestinationNotOurs = "destination_not_ours",
    /// A peer sent a packet whose inner source it does not own.
    SourceNotPeers = "source_not_peers",
    /// The device gave a packet whose source this node does not own.
    SourceNotOurs = "source_not_ours",
    /// The inner source can be nobody's: unspecified, loopback, multicast, broadcast.
    SourceInvalid = "source_invalid",
    /// Multicast and broadcast are not carried.
    Multicast = "multicast",
    /// No rule of the network lets the packet's conversation begin.
    Prohibited = "prohibited",
    /// The packet hides its ports or flags behind its end or in its fragments, so that no rule could be applied to it.
    PortsHidden = "ports_hidden",
    /// As many conversations are under way as a node remembers.
    FlowTableFull = "flow_table_full",
    /// No session has the receiver index, or no attempt that of a handshake's answer.
    UnknownSession = "unknown_session",
    /// The session's keys have expired.
    SessionExpired = "session_expired",
    /// A session of this kind may not carry such a record.
    RecordNotAllowed = "record_not_allowed",
    /// No way to the peer is known.
    NoPath = "no_path",
    /// The queue of packets that wait for a handshake is full, or its packets are too old.
    StagingFull = "staging_full",
    /// The queue of members' records to the node's thread is full, or this member's share of it.
    QueueFull = "queue_full",
    /// The queue of guests' records is full, or the share of this guest's origin.
    GuestQueueFull = "guest_queue_full",
    /// A queue of handshakes is full, or the share of this origin.
    HandshakeQueueFull = "handshake_queue_full",
    /// The queue of packets without a session is full, or this destination's share of it.
    UnsentQueueFull = "unsent_queue_full",
    /// The queue of packets to the resolver is full.
    ResolverQueueFull = "resolver_queue_full",
    /// A packet to the resolver that no answer can be given to: a fragment, a response, too short or too long.
    MalformedQuery = "malformed_query",
    /// The counter was seen before, or is below the window.
    Replayed = "replayed",
    /// The tag does not verify.
    Unauthenticated = "unauthenticated",
    /// The lane's counters are used up.
    CounterExhausted = "counter_exhausted",
    /// More lanes than a key may have.
    LanesExhausted = "lanes_exhausted",
    /// The packet exceeds what the path or the buffer can carry.
    TooLarge = "too_large",
    /// A relay's envelope with a label that was not given to where it came from.
    UnknownLabel = "unknown_label",
    /// A relay's envelope that as many relays passed on as may.
    HopsExhausted = "hops_exhausted",
    /// More than this node passes on, for this member or for all.
    RelayLimit = "relay_limit",
    /// A link over TLS takes less than it is given: the oldest that waited for it went.
    StreamQueueFull = "stream_queue_full",
    /// A connection to the TLS port that spoke no TLS, that there was no place for, or that nothing of a session came by.
    StreamRefused = "stream_refused",
    /// What came by a link over TLS was no row of datagrams: the link ended.
    MalformedStream = "malformed_stream",
    /// A handshake message without a valid mac1: a stranger.
    BadMac = "bad_mac",
    /// A handshake message that was seen before.
    HandshakeReplayed = "handshake_replayed",
    /// A handshake message that fails after mac1.
    HandshakeRefused = "handshake_refused",
    /// The table of half-open handshakes is full.
    HalfOpenFull = "half_open_full",
    /// A peer that there is no place for: there are as many guests, or peers on the control link, as there may be.
    NoPlace = "no_place",
    /// Under load: a cookie went out instead.
    CookieRequired = "cookie_required",
    /// A packet of the control link that it refused.
    ControlRefused = "control_refused",
    /// A value from the DHT that nobody of the network sealed, or whose record its member did not sign.
    DhtRefused = "dht_refused",
    /// A budget for unverified senders is spent.
    RateLimited = "rate_limited",
    /// A frame that is none, or a message to its link that is none or hides what it says.
    MalformedFrame = "malformed_frame",
    /// A frame of a segment that this node is not in.
    UnknownSegment = "unknown_segment",
    /// A frame from a peer that is not in its segment.
    NotInSegment = "not_in_segment",
    /// A frame for a peer whose version knows no segments, or that has no device.
    FramesNotCarried = "frames_not_carried",
    /// A peer sent a frame from a station that is neither its own device nor behind its bridge.
    SourceMacNotPeers = "source_mac_not_peers",
    /// The device of a segment gave a frame from a station that is neither this node nor behind its bridge.
    SourceMacNotOurs = "source_mac_not_ours",
    /// A bridge has more stations behind it than it may vouch for.
    MacTableFull = "mac_table_full",
    /// Nobody is known to have the frame's destination, and no bridge could.
    UnknownStation = "unknown_station",
    /// A frame that bridges keep to one link: spanning tree, pause, LLDP.
    LinkControl = "link_control",
    /// A frame to a group that nobody listens to.
    NoListener = "no_listener",
    /// A member sends more to everybody than its segment permits.
    StormLimited = "storm_limited",
    /// A DHCP server speaks from where the segment has no gateway.
    RogueDhcp = "rogue_dhcp",
    /// A router speaks from where the segment has no gateway.
    RogueRouter = "rogue_router",
    /// A frame of a segment with an IP packet from or to an address of the overlay, which travel by the overlay alone.
    OverlayInSegment = "overlay_in_segment",
    /// ARP or neighbour discovery that claims what is somebody else's.
    SpoofedNeighbour = "spoofed_neighbour",
    /// A part of a frame whose other parts did not come in time, or that does not fit them.
    FragmentLost = "fragment_lost",
    /// The inner destination is this node's IPv4 address, which a network of the host keeps off the interface.
    AddressConflict = "address_conflict",
    /// The device's queue has not been empty for long: the loss of this packet, or of one segment, tells its sender to slow down.
    QueueStanding = "queue_standing",
    /// The path marked congestion on a packet whose transport knows no such mark: it is lost, as it would have been there (RFC 6040).
    Congested = "congested",
    /// The device refused the packet.
    DeviceRefused = "device_refused",
    /// The operating system refused to send the datagram.
    SendFailed = "send_failed",
}

/// One counter per [`DropReason`], counted from any thread.
#[derive(Debug)]
pub struct Drops([AtomicU64; DropReason::ALL.len()]);

impl Drops {
    /// Makes counters that stand at zero.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; DropReason::ALL.len()])
    }

    /// Counts one drop.
    pub fn count(&self, reason: DropReason) {
        self.add(reason, 1);
    }

    /// Counts `number` drops at once, for a batch.
    pub fn add(&self, reason: DropReason, number: u64) {
        // Relaxed: the counters order nothing, they are only read for display.
        self.0[reason as usize].fetch_add(number, Ordering::Relaxed);
    }

    /// Returns one counter.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    /// Returns all counters, in the order of [`DropReason::ALL`].
    pub fn snapshot(&self) -> [(DropReason, u64); DropReason::ALL.len()] {
        DropReason::ALL.map(|reason| (reason, self.get(reason)))
    }
}

impl Default for Drops {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_snake_case() {
        let names: BTreeSet<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        assert!(
            names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'1'))
        );
    }

    #[test]
    fn each_reason_counts_for_itself() {
        let drops = Drops::new();
        for (number, reason) in DropReason::ALL.into_iter().enumerate() {
            drops.add(reason, number as u64);
            drops.count(reason);
        }
        for (number, (reason, count)) in drops.snapshot().into_iter().enumerate() {
            assert_eq!((reason, count), (DropReason::ALL[number], number as u64 + 1));
        }
    }
}
