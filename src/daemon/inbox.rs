//! The node thread's queues: what the data threads saw, what users ask, what the host did.
//!
//! ```text
//!   API, host, signals ──► orders  (wait for a place)  ─┐
//!   members' records   ──► members (a share each)      ─┤
//!   guests' records    ──► guests                      ─┤   take: a bounded number of each, in this order
//!   handshakes         ──► proved, answers, strangers  ─┼──► node thread
//!   packets unsent     ──► unsent                      ─┤
//!   to the resolver    ──► queries                     ─┘
//! ```
//! One queue per degree of trust, so that whoever floods one is dropped there, and counted, while the others go on. Each wake takes a
//! bounded number from every queue: authenticated records go before handshakes, and a flood of either leaves the other its turn. Within a
//! queue each sender has a share, whatever number of sessions or addresses it has: a member, the guests or the handshakes of one origin, a
//! destination.

use super::api::server::Call;
use super::fair_queue::FairQueue;
use super::workers::WorkerFailure;
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::io::tls::TlsEvent;
use crate::io::watch::NetworkEvent;
use crate::node::dht::Report;
use crate::node::forward::Trust;
use crate::node::peers::source_of;
use crate::node::table::Inlet;
use crate::path::Path;
use crate::policy::Rights;
use crate::session::Origin;
use crate::wire::datagram::SessionIndex;
use crate::wire::drops::DropReason;
use crate::wire::frame::SegmentNumber;
use crate::wire::transport_record::Layer;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Orders that wait at most; who brings one more waits itself.
const MAX_ORDERS: usize = 256;
/// Orders taken at one wake.
const ORDERS_A_WAKE: usize = 16;

/// The bounds of one queue.
struct Bounds {
    /// Items that wait at most.
    capacity: usize,
    /// Of these, items of one sender.
    share: usize,
    /// Items taken at one wake: all queues' together are some milliseconds of work, of which a handshake is 0.2 and the rest 0.02 each.
    a_wake: usize,
    /// What is counted when there is no place.
    full: DropReason,
}

/// Who is trusted how far, in the order in which they are served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Queue {
    /// Records and news of members. A share takes the control link's whole window of 64 KiB twice, in records of a kilobyte.
    Members,
    /// Handshakes whose sender proved its address by a cookie.
    Proved,
    /// What claims to answer this node's own handshakes; refused by a look at a table when it does not.
    Answers,
    /// Records and news of guests, whom anybody can be.
    Guests,
    /// Handshakes from addresses that may be forged.
    Strangers,
    /// Packets of this host for members without a session.
    Unsent,
    /// Packets of this host for the resolver.
    Queries,
}

impl Queue {
    const ALL: [Self; 7] =
        [Self::Members, Self::Proved, Self::Answers, Self::Guests, Self::Strangers, Self::Unsent, Self::Queries];

    const fn bounds(self) -> Bounds {
        let (capacity, share, a_wake, full) = match self {
            Self::Members => (4096, 128, 64, DropReason::QueueFull),
            Self::Proved => (1024, 16, 16, DropReason::HandshakeQueueFull),
            Self::Answers => (1024, 64, 32, DropReason::HandshakeQueueFull),
            Self::Guests => (512, 32, 16, DropReason::GuestQueueFull),
            Self::Strangers => (1024, 64, 16, DropReason::HandshakeQueueFull),
            Self::Unsent => (512, 64, 32, DropReason::UnsentQueueFull),
            Self::Queries => (256, 256, 64, DropReason::ResolverQueueFull),
        };
        Bounds { capacity, share, a_wake, full }
    }
}

/// Whose share of a queue an item takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sender {
    /// A member, in whichever of its sessions.
    Member(NodeId),
    /// All guests of one origin, or whoever handshakes from there.
    Origin(Origin),
    /// A guest that this node sought out itself, or a member that has no more than a guest.
    Guest(TransportKey),
    /// The member that a packet is for.
    Destination(NodeId),
    /// Whatever runs on this host.
    Host,
}

impl Sender {
    /// Who speaks in a session.
    pub fn of(inlet: &Inlet) -> Self {
        match (inlet.rights, inlet.guest_origin) {
            (Rights::Member(id) | Rights::Consensus(id), _) => Self::Member(id),
            (Rights::Guest, Some(origin)) => Self::Origin(origin),
            (Rights::Guest, None) => Self::Guest(*inlet.session.admission().transport_key()),
        }
    }

    /// Where records of a session wait.
    const fn queue(self) -> Queue {
        match self {
            Self::Member(_) => Queue::Members,
            Self::Origin(_) | Self::Guest(_) => Queue::Guests,
            Self::Destination(_) => Queue::Unsent,
            Self::Host => Queue::Queries,
        }
    }
}

/// What a data thread hands to the node.
#[derive(Debug)]
pub enum FromWire {
    /// A handshake datagram or a cookie.
    Handshake {
        /// How far it may be trusted.
        trust: Trust,
        /// The path that it came by.
        path: Path,
        /// All of it.
        datagram: Vec<u8>,
    },
    /// An opened record that is not an inner packet.
    Record {
        /// The session that it came in.
        index: SessionIndex,
        /// Its peer.
        sender: Sender,
        /// The path that it came by.
        path: Path,
        /// The plaintext.
        record: Vec<u8>,
    },
    /// Something authentic came in a session that waits for it, or from an unexpected endpoint.
    News {
        /// The session.
        index: SessionIndex,
        /// Its peer.
        sender: Sender,
        /// The path that it came by.
        path: Path,
    },
    /// A packet for the resolver.
    Query {
        /// All of it.
        packet: Vec<u8>,
    },
    /// A packet for a member that there is no session with.
    Unsent {
        /// The member.
        peer: NodeId,
        /// A packet, or a frame of a segment.
        layer: Layer,
        /// The inner packet.
        packet: Vec<u8>,
    },
}

impl FromWire {
    fn place(&self) -> (Queue, Sender) {
        match self {
            Self::Handshake { trust, path, .. } => {
                let queue = match trust {
                    Trust::Proved => Queue::Proved,
                    Trust::Answer => Queue::Answers,
                    Trust::Stranger => Queue::Strangers,
                };
                (queue, Sender::Origin(source_of(path).origin()))
            }
            Self::Record { sender, .. } | Self::News { sender, .. } => (sender.queue(), *sender),
            Self::Unsent { peer, .. } => (Queue::Unsent, Sender::Destination(*peer)),
            Self::Query { .. } => (Queue::Queries, Sender::Host),
        }
    }
}

/// Everything that wakes the node thread besides its deadlines.
pub enum Message {
    /// From a data thread.
    Wire(FromWire),
    /// A request over the control API.
    Call(Box<Call>),
    /// The host's network configuration changed.
    Host(NetworkEvent),
    /// What the gateway maps changed.
    PortMap,
    /// A link over TLS came or went.
    Tls(TlsEvent),
    /// Somebody on a LAN of this host claims to be this member, there.
    Neighbour(NodeId, Vec<SocketAddr>),
    /// What the DHT says.
    Dht(Report),
    /// The device of a segment is gone.
    SegmentLost(SegmentNumber),
    /// A data thread ended unasked.
    Failed(WorkerFailure),
    /// Read the configuration again (SIGHUP).
    Reload,
    /// End (SIGINT, SIGTERM).
    Stop,
}

/// The sending end, one per thread.
#[derive(Clone)]
pub struct Inbox(Arc<Shared>);

/// The node thread's end. When it is dropped, nobody waits for a place any more.
pub struct InboxReader(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Something came while the reader waited.
    filled: Condvar,
    /// There is room for an order.
    room: Condvar,
}

struct State {
    orders: VecDeque<Message>,
    /// By [`Queue`].
    queues: [FairQueue<Sender, FromWire>; Queue::ALL.len()],
    is_reader_waiting: bool,
    is_closed: bool,
}

impl Inbox {
    /// Makes the queues.
    pub fn new() -> (Self, InboxReader) {
        let queues = Queue::ALL.map(|queue| FairQueue::new(queue.bounds().capacity, queue.bounds().share));
        let state = State { orders: VecDeque::new(), queues, is_reader_waiting: false, is_closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), filled: Condvar::new(), room: Condvar::new() });
        (Self(Arc::clone(&shared)), InboxReader(shared))
    }

    /// Puts a message of the wire in if there is a place. Never waits but for another thread's push or the reader's taking.
    ///
    /// # Errors
    /// What the message is dropped for.
    pub fn offer(&self, message: FromWire) -> Result<(), DropReason> {
        let (queue, sender) = message.place();
        let mut state = self.0.lock();
        if !state.queues[queue as usize].push(sender, message) {
            return Err(queue.bounds().full);
        }
        self.0.wake_reader(state);
        Ok(())
    }

    /// Puts an order in, waiting for a place. One to a node that ended is lost: there is nobody to care.
    pub fn put(&self, message: Message) {
        let state = self.0.lock();
        let full = |state: &mut State| state.orders.len() >= MAX_ORDERS && !state.is_closed;
        let mut state = self.0.room.wait_while(state, full).unwrap_or_else(PoisonError::into_inner);
        if !state.is_closed {
            state.orders.push_back(message);
            self.0.wake_reader(state);
        }
    }
}

impl InboxReader {
    /// Waits until something is there, at most `patience`, and takes a bounded number from each queue, orders first.
    pub fn take(&self, patience: Duration) -> Vec<Message> {
        let mut state = self.0.lock();
        if state.is_empty() {
            state.is_reader_waiting = true;
            let waited = self.0.filled.wait_timeout_while(state, patience, |state| state.is_empty());
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            state.is_reader_waiting = false;
        }
        let orders = state.orders.len().min(ORDERS_A_WAKE);
        let mut taken: Vec<Message> = state.orders.drain(..orders).collect();
        for queue in Queue::ALL {
            let items = std::iter::from_fn(|| state.queues[queue as usize].pop());
            taken.extend(items.take(queue.bounds().a_wake).map(Message::Wire));
        }
        drop(state);
        if orders > 0 {
            self.0.room.notify_all();
        }
        taken
    }
}

impl Drop for InboxReader {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.room.notify_all();
    }
}

impl Shared {
    /// A thread that panicked while it held the lock left the queues whole: every change is one push or one pop.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the reader if it sleeps: no system call while it is busy.
    fn wake_reader(&self, state: MutexGuard<'_, State>) {
        let is_waiting = state.is_reader_waiting;
        drop(state);
        if is_waiting {
            self.filled.notify_one();
        }
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.orders.is_empty() && self.queues.iter().all(FairQueue::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use std::thread;
    use std::time::Instant;

    /// As long as a waiting thread of a busy machine may take.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn handshake(trust: Trust, source: u32) -> FromWire {
        let path = SocketAddr::from((IpAddr::from(source.to_be_bytes()), 4647)).into();
        FromWire::Handshake { trust, path, datagram: vec![1; 172] }
    }

    fn record(session: u32, number: usize, sender: Sender) -> FromWire {
        let path = SocketAddr::from(([192, 0, 2, 1], 4647)).into();
        FromWire::Record { index: SessionIndex(session), sender, path, record: number.to_le_bytes().to_vec() }
    }

    const MEMBER: Sender = Sender::Member(NodeId([1; 32]));

    fn guest(origin: u32) -> Sender {
        Sender::Origin(Origin::V4(origin.into()))
    }

    fn count(taken: &[Message], which: impl Fn(&FromWire) -> bool) -> usize {
        taken.iter().filter(|message| matches!(message, Message::Wire(item) if which(item))).count()
    }

    #[test]
    fn strangers_fill_their_own_queue_and_leave_members_guests_and_orders_theirs() {
        let (inbox, reader) = Inbox::new();
        let kept = (0..50_000).filter(|source| inbox.offer(handshake(Trust::Stranger, *source)).is_ok()).count();
        assert_eq!(kept, Queue::Strangers.bounds().capacity);
        assert_eq!(inbox.offer(handshake(Trust::Stranger, 0)), Err(DropReason::HandshakeQueueFull));
        assert_eq!(inbox.offer(record(1, 0, MEMBER)), Ok(()));
        assert_eq!(inbox.offer(record(2, 0, guest(2))), Ok(()));
        assert_eq!(inbox.offer(handshake(Trust::Proved, 7)), Ok(()));
        assert_eq!(inbox.offer(handshake(Trust::Answer, 7)), Ok(()));
        inbox.put(Message::Reload);
        let taken = reader.take(PATIENCE);
        assert!(matches!(taken[0], Message::Reload), "orders come first");
        assert!(matches!(&taken[1], Message::Wire(FromWire::Record { sender: Sender::Member(_), .. })));
        assert_eq!(count(&taken, |item| matches!(item, FromWire::Record { .. })), 2);
        assert_eq!(count(&taken, |item| matches!(item, FromWire::Handshake { trust: Trust::Proved, .. })), 1);
        // And they have their turn.
        let strangers = count(&taken, |item| matches!(item, FromWire::Handshake { trust: Trust::Stranger, .. }));
        assert_eq!(strangers, Queue::Strangers.bounds().a_wake);
    }

    #[test]
    fn a_member_that_floods_records_loses_its_own_and_keeps_nobody_waiting() {
        let (inbox, reader) = Inbox::new();
        let share = Queue::Members.bounds().share;
        let kept = (0..50_000).filter(|number| inbox.offer(record(1, *number, MEMBER)).is_ok()).count();
        assert_eq!(kept, share);
        assert_eq!(inbox.offer(record(1, 0, MEMBER)), Err(DropReason::QueueFull));
        assert_eq!(inbox.offer(record(2, 7, Sender::Member(NodeId([2; 32])))), Ok(()));
        assert_eq!(inbox.offer(handshake(Trust::Stranger, 1)), Ok(()));
        let first = reader.take(PATIENCE);
        assert_eq!(count(&first, |item| matches!(item, FromWire::Handshake { .. })), 1, "handshakes wait for records");
        let wakes = share.div_ceil(Queue::Members.bounds().a_wake);
        let later: Vec<_> = (0..wakes).flat_map(|_| reader.take(Duration::ZERO)).collect();
        let is_other = |item: &FromWire| matches!(item, FromWire::Record { index: SessionIndex(2), .. });
        assert_eq!(count(&later, is_other), 1, "behind no more than a share");
    }

    #[test]
    fn neither_more_sessions_nor_more_addresses_are_a_greater_share() {
        let (inbox, _reader) = Inbox::new();
        let kept_of =
            |items: &dyn Fn(u32) -> FromWire| (0..50_000).filter(|it| inbox.offer(items(*it)).is_ok()).count();
        let sessions_of_one_member = |number| record(number % 8, 0, MEMBER);
        assert_eq!(kept_of(&sessions_of_one_member), Queue::Members.bounds().share);
        let guests_of_one_host = |number| record(number % 32, 0, guest(1));
        assert_eq!(kept_of(&guests_of_one_host), Queue::Guests.bounds().share);
        for (trust, queue) in [(Trust::Stranger, Queue::Strangers), (Trust::Proved, Queue::Proved)] {
            let addresses_of_one_network = |number| {
                let ip = IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, (number % 64) as u16]);
                FromWire::Handshake { trust, path: SocketAddr::from((ip, 4647)).into(), datagram: vec![1; 172] }
            };
            assert_eq!(kept_of(&addresses_of_one_network), queue.bounds().share);
        }
    }

    #[test]
    fn guests_and_packets_without_a_session_have_bounds_of_their_own() {
        let (inbox, _reader) = Inbox::new();
        let kept = (0..50_000).filter(|number| inbox.offer(record(1, 0, guest(*number))).is_ok()).count();
        assert_eq!(kept, Queue::Guests.bounds().capacity);
        assert_eq!(inbox.offer(record(1, 0, guest(0))), Err(DropReason::GuestQueueFull));
        let unsent = |peer: u8| FromWire::Unsent { peer: NodeId([peer; 32]), layer: Layer::Ip, packet: vec![0; 40] };
        assert_eq!((0..50_000).filter(|_| inbox.offer(unsent(1)).is_ok()).count(), Queue::Unsent.bounds().share);
        assert_eq!(inbox.offer(unsent(1)), Err(DropReason::UnsentQueueFull));
        assert_eq!(inbox.offer(unsent(2)), Ok(()), "one dead member keeps another's packets out");
        assert_eq!(inbox.offer(record(1, 0, MEMBER)), Ok(()));
    }

    #[test]
    fn a_sleeping_reader_wakes_for_whatever_comes_and_else_sleeps_its_time_out() {
        let (inbox, reader) = Inbox::new();
        let started = Instant::now();
        assert!(reader.take(Duration::from_millis(30)).is_empty());
        assert!(started.elapsed() >= Duration::from_millis(30));
        for round in 0..200 {
            let sender = inbox.clone();
            let sending = thread::spawn(move || match round % 2 {
                0 => sender.put(Message::Host(NetworkEvent::LinkGone(1))),
                _ => sender.offer(record(round, 0, MEMBER)).unwrap(),
            });
            assert_eq!(reader.take(PATIENCE).len(), 1, "round {round}");
            sending.join().unwrap();
            assert!(started.elapsed() < PATIENCE, "a wake-up was lost");
        }
    }

    #[test]
    fn orders_wait_for_a_place_and_for_nobody_once_the_node_ended() {
        let (inbox, reader) = Inbox::new();
        let putting = thread::spawn({
            let inbox = inbox.clone();
            move || (0..MAX_ORDERS + 100).for_each(|_| inbox.put(Message::Reload))
        });
        let mut taken = 0;
        while taken < MAX_ORDERS + 100 {
            assert!(inbox.0.lock().orders.len() <= MAX_ORDERS);
            let orders = reader.take(PATIENCE);
            // Time for the other thread, in case it does not wait.
            thread::sleep(Duration::from_millis(1));
            assert!((1..=ORDERS_A_WAKE).contains(&orders.len()), "{}", orders.len());
            taken += orders.len();
        }
        putting.join().unwrap();
        let putting = thread::spawn(move || (0..=MAX_ORDERS).for_each(|_| inbox.put(Message::Reload)));
        drop(reader);
        putting.join().unwrap();
    }
}
