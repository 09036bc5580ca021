//! One session: two keys, their counters and their limits.
//!
//! [`Session`] is shared by all threads and opens packets; a [`LaneSealer`] belongs to one thread and seals in one lane. A sealer owns its
//! counter, is claimed once in the life of a key and is not `Clone`: a nonce cannot come twice.

use super::replay::{LaneWindows, MAX_LANES, ReplayError};
use crate::crypto::aead::{TAG_LEN, TransportAead, TransportCipher};
use crate::crypto::secret::Secret;
use crate::policy::Admission;
use crate::time::Instant;
use crate::wire::datagram::{Counter, Lane, SessionIndex, TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD, TransportHeader};
use crate::wire::handshake::OffloadSet;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Packets of one key, over all lanes, after which a new handshake begins: far enough before the limit for any rate.
pub const REKEY_AFTER_PACKETS: u64 = 1 << 27;
/// Packets of one key that are never exceeded: AES-GCM's confidentiality limit for packets up to 2^11 bytes (RFC 9001 appendix B.1.1).
pub const MAX_PACKETS: u64 = 1 << 28;
/// Forgery attempts on one key after which it ends: ChaCha20-Poly1305's integrity limit (RFC 9001 §6.6).
pub const MAX_FAILED_OPENS: u64 = 1 << 36;
/// Age at which a key ends, whatever happened.
pub const MAX_AGE: Duration = Duration::from_secs(180);

/// Which side of the handshake the local node was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Role {
    /// It sent D1.
    Initiator,
    /// It answered.
    Responder,
}

/// What the handshake leaves of an admission's rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Scope {
    /// All of them.
    Full,
    /// The stream `sync` only: enough to learn why.
    SyncOnly(SyncReason),
}

/// Why a session carries sync only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum SyncReason {
    /// One side speaks no version that the network still allows.
    VersionTooOld,
    /// The initiator used a key that the responder has rotated away from.
    KeyRetired,
}

/// What a handshake hands over.
pub(super) struct SessionParts {
    pub(super) role: Role,
    pub(super) local_index: SessionIndex,
    pub(super) remote_index: SessionIndex,
    pub(super) admission: Admission,
    pub(super) scope: Scope,
    pub(super) cipher: TransportCipher,
    pub(super) offload: OffloadSet,
    pub(super) sending: Secret<32>,
    pub(super) receiving: Secret<32>,
    pub(super) created: Instant,
}

/// One key pair between two nodes. Made only by a handshake that a policy admitted.
pub struct Session {
    role: Role,
    local_index: SessionIndex,
    remote_index: SessionIndex,
    admission: Admission,
    scope: Scope,
    cipher: TransportCipher,
    offload: OffloadSet,
    created: Instant,
    sending: TransportAead,
    receiving: TransportAead,
    claimed: Mutex<BTreeSet<Lane>>,
    windows: LaneWindows,
    sent: Sealed,
    last_sent: Latest,
    last_received: Latest,
    failed_opens: AtomicU64,
    /// When a packet last passed in a data thread's lane.
    used: Latest,
    /// Whether nothing is sealed any more.
    outdated: AtomicBool,
    #[cfg(debug_assertions)]
    nonces: Mutex<std::collections::BTreeMap<Lane, Counter>>,
}

/// What was sealed, over all lanes.
#[derive(Default)]
struct Sealed {
    packets: AtomicU64,
    wire_bytes: AtomicU64,
}

/// The latest time at which something happened: microseconds of the monotonic clock plus one, or 0 before the first.
#[derive(Default)]
struct Latest(AtomicU64);

impl Latest {
    /// Takes a time. Packets of a batch have one and the same: most of them write nothing.
    fn note(&self, now: Instant) {
        let now = now.as_micros().saturating_add(1);
        if self.0.load(Ordering::Relaxed) < now {
            self.0.fetch_max(now, Ordering::Relaxed);
        }
    }

    fn get(&self) -> Option<Instant> {
        self.0.load(Ordering::Relaxed).checked_sub(1).map(Instant::from_micros)
    }
}

/// Why a packet was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Internal: the buffer has no room for header and tag.
    #[error("the buffer has no room for header and tag")]
    NoRoom,
    /// Exhausted: the key is as old as a key gets.
    #[error("the key is too old")]
    Expired,
    /// Refused: the machine slept or its clock jumped since the key was made.
    #[error("the key is from before a clock jump")]
    Outdated,
    /// Exhausted: the key sealed as many packets as it may.
    #[error("the key has sealed too many packets")]
    Exhausted,
}

/// Why a packet was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Malformed: a counter that no honest sender reaches.
    #[error("the counter is past the key's limit")]
    PastLimit,
    /// Exhausted: the key is as old as a key gets.
    #[error("the key is too old")]
    Expired,
    /// Exhausted: too many forgeries were tried on the key.
    #[error("the key has seen too many forgeries")]
    TooManyForgeries,
    /// Replayed, or too old to tell.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Unauthenticated: the peer did not seal this.
    #[error("the packet failed authentication")]
    Forged,
}

impl Session {
    pub(super) fn new(parts: &SessionParts) -> Self {
        Self {
            role: parts.role,
            local_index: parts.local_index,
            remote_index: parts.remote_index,
            admission: parts.admission,
            scope: parts.scope,
            cipher: parts.cipher,
            offload: parts.offload,
            created: parts.created,
            sending: TransportAead::new(parts.cipher, &parts.sending),
            receiving: TransportAead::new(parts.cipher, &parts.receiving),
            claimed: Mutex::default(),
            windows: LaneWindows::default(),
            sent: Sealed::default(),
            last_sent: Latest::default(),
            last_received: Latest::default(),
            failed_opens: AtomicU64::new(0),
            used: Latest::default(),
            outdated: AtomicBool::new(false),
            #[cfg(debug_assertions)]
            nonces: Mutex::default(),
        }
    }

    /// Claims a lane for the calling thread. None when it was claimed before in this key's life, or [`MAX_LANES`] lanes were.
    pub fn claim_lane(self: &Arc<Self>, lane: Lane) -> Option<LaneSealer> {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        if claimed.len() >= MAX_LANES || !claimed.insert(lane) {
            return None;
        }
        Some(LaneSealer { session: Arc::clone(self), lane, next: Counter(0) })
    }

    /// Opens a packet in place: `sealed` is what follows the header. Lends the plaintext.
    ///
    /// # Errors
    /// [`OpenError`]; `sealed` is then unspecified and the packet is dropped.
    pub fn open<'b>(
        &self,
        now: Instant,
        header: &TransportHeader,
        sealed: &'b mut [u8],
    ) -> Result<&'b mut [u8], OpenError> {
        if self.is_expired(now) {
            return Err(OpenError::Expired);
        }
        if header.counter.0 >= MAX_PACKETS {
            return Err(OpenError::PastLimit);
        }
        if self.failed_opens.load(Ordering::Relaxed) > MAX_FAILED_OPENS {
            return Err(OpenError::TooManyForgeries);
        }
        self.windows.check(header.lane, header.counter)?; // a hint: cheap refusal before the AEAD
        let wire_len = TRANSPORT_HEADER_LEN + sealed.len();
        let Ok(plaintext) = self.receiving.open(header.nonce(), sealed) else {
            self.failed_opens.fetch_add(1, Ordering::Relaxed);
            return Err(OpenError::Forged);
        };
        self.windows.mark(header.lane, header.counter, wire_len)?; // test-and-set, only after authentication: RFC 6479
        self.last_received.note(now);
        self.note_use(header.lane, now);
        Ok(plaintext)
    }

    /// Returns the index by which the peer's packets find this session.
    pub fn local_index(&self) -> SessionIndex {
        self.local_index
    }

    /// Returns the peer's index, which goes into the packets sent.
    pub fn remote_index(&self) -> SessionIndex {
        self.remote_index
    }

    /// Returns what the policy said of the peer.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Returns what the handshake left of the peer's rights.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Returns which side of the handshake the local node was.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns the cipher of both directions.
    pub fn cipher(&self) -> TransportCipher {
        self.cipher
    }

    /// Returns the super-packets that the peer's device takes.
    pub fn offload(&self) -> OffloadSet {
        self.offload
    }

    /// Returns when the handshake ended here.
    pub fn created(&self) -> Instant {
        self.created
    }

    /// Says whether the key is past its age.
    pub fn is_expired(&self, now: Instant) -> bool {
        now.saturating_since(self.created) >= MAX_AGE
    }

    /// Says whether the key nears a limit of packets, or had too many forgeries: a new one is wanted.
    pub fn wants_rekey(&self) -> bool {
        let most = self.packets_sent().max(self.packets_received());
        most >= REKEY_AFTER_PACKETS || self.failed_opens.load(Ordering::Relaxed) > MAX_FAILED_OPENS
    }

    /// Returns packets sealed, over all lanes.
    pub fn packets_sent(&self) -> u64 {
        self.sent.packets.load(Ordering::Relaxed)
    }

    /// Returns authentic packets received, over all lanes.
    pub fn packets_received(&self) -> u64 {
        self.windows.came().packets
    }

    /// Returns bytes of datagrams sent.
    pub fn bytes_sent(&self) -> u64 {
        self.sent.wire_bytes.load(Ordering::Relaxed)
    }

    /// Returns bytes of authentic datagrams received.
    pub fn bytes_received(&self) -> u64 {
        self.windows.came().bytes
    }

    /// Returns when the last packet was sealed.
    pub fn last_sent(&self) -> Option<Instant> {
        self.last_sent.get()
    }

    /// Returns when the last authentic packet came.
    pub fn last_received(&self) -> Option<Instant> {
        self.last_received.get()
    }

    /// Returns when a packet last passed, either way, in a lane of a data thread: what the node's own thread says, its comparisons and
    /// probes, is no use of a session.
    pub fn last_use(&self) -> Option<Instant> {
        self.used.get()
    }

    /// Ends sealing, in every lane and whoever holds it; the session receives on.
    pub(super) fn stop_sealing(&self) {
        self.outdated.store(true, Ordering::Relaxed);
    }

    /// Says whether the session still seals: it stops for good at a clock jump.
    pub fn may_seal(&self) -> bool {
        !self.outdated.load(Ordering::Relaxed)
    }

    /// Returns how many packets failed authentication.
    pub fn failed_opens(&self) -> u64 {
        self.failed_opens.load(Ordering::Relaxed)
    }

    /// Makes the key look as if it had sealed very many packets.
    #[cfg(test)]
    pub(crate) fn wear_out(&self) {
        self.sent.packets.store(REKEY_AFTER_PACKETS, Ordering::Relaxed);
    }

    fn note_use(&self, lane: Lane, now: Instant) {
        if lane.worker() != Lane::NODE.worker() {
            self.used.note(now);
        }
    }

    /// Takes one packet off the key's budget.
    fn spend_packet(&self) -> Result<(), SealError> {
        let before = self.sent.packets.fetch_add(1, Ordering::Relaxed);
        if before >= MAX_PACKETS {
            self.sent.packets.fetch_sub(1, Ordering::Relaxed);
            return Err(SealError::Exhausted);
        }
        Ok(())
    }

    /// Fails on a nonce that does not come after all before it. Debug builds only: the simulator runs them.
    #[cfg(debug_assertions)]
    fn record_nonce(&self, lane: Lane, counter: Counter) {
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = nonces.insert(lane, counter);
        assert!(previous.is_none_or(|previous| previous < counter), "a nonce came twice: {lane:?} {counter:?}");
    }
}

/// Seals in one lane of one session. Owned by one thread.
pub struct LaneSealer {
    session: Arc<Session>,
    lane: Lane,
    next: Counter,
}

impl LaneSealer {
    /// Returns the session.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Returns the lane.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Seals in place: `datagram` is 16 bytes of room, the plaintext (or nothing: a confirmation or keepalive), and 16 bytes of room.
    /// Returns the counter used.
    ///
    /// # Errors
    /// [`SealError`]; nothing is to be sent then, and no counter was used.
    pub fn seal(&mut self, now: Instant, datagram: &mut [u8]) -> Result<Counter, SealError> {
        let session = &*self.session;
        let wire_len = datagram.len();
        if wire_len < TRANSPORT_OVERHEAD {
            return Err(SealError::NoRoom);
        }
        if session.is_expired(now) {
            return Err(SealError::Expired);
        }
        if !session.may_seal() {
            return Err(SealError::Outdated);
        }
        session.spend_packet()?;
        let counter = self.next;
        self.next = Counter(counter.0 + 1); // before the key is used: no path leads back to this nonce
        #[cfg(debug_assertions)]
        session.record_nonce(self.lane, counter);
        let header = TransportHeader { lane: self.lane, receiver: session.remote_index, counter };
        let (front, body) = datagram.split_at_mut(TRANSPORT_HEADER_LEN);
        front.copy_from_slice(&header.encode());
        let (text, tag) = body.split_at_mut(body.len() - TAG_LEN);
        tag.copy_from_slice(&session.sending.seal(header.nonce(), text));
        session.sent.wire_bytes.fetch_add(wire_len as u64, Ordering::Relaxed);
        session.last_sent.note(now);
        session.note_use(self.lane, now);
        Ok(counter)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::established_pair;
    use super::*;

    fn sealed(sealer: &mut LaneSealer, text: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; TRANSPORT_OVERHEAD + text.len()];
        datagram[TRANSPORT_HEADER_LEN..][..text.len()].copy_from_slice(text);
        sealer.seal(Instant::ZERO, &mut datagram).unwrap();
        datagram
    }

    fn open(session: &Session, datagram: &[u8]) -> Result<Vec<u8>, OpenError> {
        let header = TransportHeader::decode(datagram).unwrap();
        let mut sealed = datagram[TRANSPORT_HEADER_LEN..].to_vec();
        session.open(Instant::ZERO, &header, &mut sealed).map(|text| text.to_vec())
    }

    #[test]
    fn what_one_side_seals_the_other_opens_once() {
        let (_, _, near, far) = established_pair();
        let (near, far) = (near.session, far.session);
        for (sender, receiver) in [(&near, &far), (&far, &near)] {
            let mut sealer = sender.claim_lane(Lane::new(1, 2)).unwrap();
            let datagram = sealed(&mut sealer, b"packet");
            assert_eq!(open(receiver, &datagram), Ok(b"packet".to_vec()));
            assert_eq!(open(receiver, &datagram), Err(OpenError::Replay(ReplayError::Repeated)));
            assert_eq!((sender.packets_sent(), sender.bytes_sent()), (1, 38));
            assert_eq!((receiver.packets_received(), receiver.bytes_received()), (1, 38));
            assert_eq!((sender.last_sent(), receiver.last_received()), (Some(Instant::ZERO), Some(Instant::ZERO)));
        }
    }

    #[test]
    fn no_bit_of_a_transport_packet_can_change_and_none_be_cut_off() {
        let (_, _, near, far) = established_pair();
        let mut sealer = near.session.claim_lane(Lane::new(1, 2)).unwrap();
        sealed(&mut sealer, b"first");
        let datagram = sealed(&mut sealer, b"packet");
        for bit in 0..datagram.len() * 8 {
            let mut altered = datagram.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let header = TransportHeader::decode(&altered);
            let other_session = header.is_ok_and(|header| header.receiver != far.session.local_index());
            let refused = header.is_err() || other_session || open(&far.session, &altered).is_err();
            assert!(refused, "bit {bit}");
        }
        for len in 0..datagram.len() {
            let cut = &datagram[..len];
            assert!(TransportHeader::decode(cut).is_err() || open(&far.session, cut).is_err(), "{len} bytes");
        }
        assert_eq!(far.session.packets_received(), 0);
        assert_eq!(open(&far.session, &datagram), Ok(b"packet".to_vec()));
    }

    #[test]
    fn a_changed_receiver_index_leads_to_a_key_that_does_not_open() {
        let (_, _, near, _) = established_pair();
        let datagram = sealed(&mut near.session.claim_lane(Lane::NODE).unwrap(), b"packet");
        assert_eq!(open(&near.session, &datagram), Err(OpenError::Forged));
        assert_eq!(near.session.failed_opens(), 1);
    }

    #[test]
    fn a_lane_is_claimed_once_in_the_life_of_a_key() {
        let (_, _, near, _) = established_pair();
        let sealer = near.session.claim_lane(Lane::NODE).unwrap();
        drop(sealer);
        assert!(near.session.claim_lane(Lane::NODE).is_none());
        let claimed = (0..=255).filter(|lane| near.session.claim_lane(Lane(*lane)).is_some()).count();
        assert_eq!(claimed, MAX_LANES - 1);
    }

    #[test]
    fn a_key_ends_by_age_by_packets_and_by_forgeries() {
        let (_, _, near, far) = established_pair();
        let (near, far) = (near.session, far.session);
        let mut sealer = near.claim_lane(Lane::NODE).unwrap();
        let datagram = sealed(&mut sealer, b"packet");
        let header = TransportHeader::decode(&datagram).unwrap();
        let mut room = [0; TRANSPORT_OVERHEAD];
        let end = Instant::ZERO + MAX_AGE;
        assert_eq!(sealer.seal(end, &mut room), Err(SealError::Expired));
        assert_eq!(far.open(end, &header, &mut room), Err(OpenError::Expired));

        near.sent.packets.store(REKEY_AFTER_PACKETS - 1, Ordering::Relaxed);
        assert!(!near.wants_rekey());
        near.sent.packets.store(MAX_PACKETS - 1, Ordering::Relaxed);
        assert!(near.wants_rekey());
        assert_eq!(sealer.seal(Instant::ZERO, &mut room), Ok(Counter(1)));
        assert_eq!(sealer.seal(Instant::ZERO, &mut room), Err(SealError::Exhausted));
        let mut other_lane = near.claim_lane(Lane::new(1, 0)).unwrap();
        assert_eq!(other_lane.seal(Instant::ZERO, &mut room), Err(SealError::Exhausted));
        assert_eq!(near.packets_sent(), MAX_PACKETS);

        let past = TransportHeader { counter: Counter(MAX_PACKETS), ..header };
        assert_eq!(far.open(Instant::ZERO, &past, &mut room), Err(OpenError::PastLimit));
        far.failed_opens.store(MAX_FAILED_OPENS + 1, Ordering::Relaxed);
        assert_eq!(open(&far, &datagram), Err(OpenError::TooManyForgeries));
        assert!(far.wants_rekey());
    }

    #[test]
    fn an_outdated_key_seals_in_no_lane_and_opens_on() {
        let (_, _, near, far) = established_pair();
        let mut claimed = near.session.claim_lane(Lane::new(1, 0)).unwrap();
        let on_the_way = sealed(&mut far.session.claim_lane(Lane::NODE).unwrap(), b"packet");
        near.session.stop_sealing();
        let mut room = [0; TRANSPORT_OVERHEAD];
        assert_eq!(claimed.seal(Instant::ZERO, &mut room), Err(SealError::Outdated));
        let mut fresh = near.session.claim_lane(Lane::NODE).unwrap();
        assert_eq!(fresh.seal(Instant::ZERO, &mut room), Err(SealError::Outdated));
        assert_eq!(near.session.packets_sent(), 0);
        assert_eq!(open(&near.session, &on_the_way), Ok(b"packet".to_vec()));
    }

    #[test]
    fn what_the_nodes_own_thread_says_is_no_use() {
        let (_, _, near, far) = established_pair();
        for (lane, used) in [(Lane::NODE, None), (Lane::new(0, 3), None), (Lane::new(1, 0), Some(Instant::ZERO))] {
            let datagram = sealed(&mut near.session.claim_lane(lane).unwrap(), b"packet");
            open(&far.session, &datagram).unwrap();
            assert_eq!((near.session.last_use(), far.session.last_use()), (used, used), "{lane:?}");
        }
        assert_eq!(near.session.last_sent(), Some(Instant::ZERO));
    }

    #[test]
    fn a_buffer_without_room_uses_no_counter() {
        let (_, _, near, _) = established_pair();
        let mut sealer = near.session.claim_lane(Lane::NODE).unwrap();
        assert_eq!(sealer.seal(Instant::ZERO, &mut [0; TRANSPORT_OVERHEAD - 1]), Err(SealError::NoRoom));
        assert_eq!(sealer.seal(Instant::ZERO, &mut [0; TRANSPORT_OVERHEAD]), Ok(Counter(0)));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "a nonce came twice")]
    fn a_repeated_nonce_stops_a_debug_build() {
        let (_, _, near, _) = established_pair();
        let mut sealer = near.session.claim_lane(Lane::NODE).unwrap();
        sealed(&mut sealer, b"packet");
        sealer.next = Counter(0);
        sealed(&mut sealer, b"packet");
    }
}
