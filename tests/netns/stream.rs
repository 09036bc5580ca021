//! Steady streams of datagrams through the overlay, and who hears them when.

use crate::node::Node;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes of each datagram: too many to share a datagram on the wire with others.
const LEN: usize = 1200;
/// How long an end may take to be noticed.
const LOOK: Duration = Duration::from_millis(20);

/// A sender that goes on, whatever the kernel answers, until it is dropped.
pub struct Stream(Worker);

/// A listener on one overlay address of a node; it stays when the daemon is restarted.
pub struct Ear {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Instant>>>,
    _worker: Worker,
}

/// A thread that ends, and is waited for, when this is dropped.
struct Worker {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        Self { ended, thread: Some(thread::spawn(move || work(&end))) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // A panic in there was printed already.
        self.thread.take().map(JoinHandle::join);
    }
}

impl Stream {
    /// Sends `rate` datagrams a second to each ear. Late ones are made up for.
    pub fn start(from: &Node, rate: u32, ears: &[&Ear]) -> Self {
        let any = |is_v4| if is_v4 { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let targets = ears.iter().map(|ear| {
            let socket = from.host().run(|| UdpSocket::bind((any(ear.address.is_ipv4()), 0))).unwrap();
            (socket, ear.address)
        });
        let targets: Vec<_> = targets.collect();
        Self(Worker::start(move |ended| {
            let start = Instant::now();
            let mut round = 0;
            while !ended.load(Ordering::Acquire) {
                thread::sleep(
                    (start + Duration::from_secs(1) * round / rate).saturating_duration_since(Instant::now()),
                );
                for (socket, to) in &targets {
                    let _ = socket.send_to(&[0x55; LEN], to);
                }
                round += 1;
            }
        }))
    }

    /// Ends the stream.
    pub fn stop(self) {
        drop(self.0);
    }
}

impl Ear {
    /// Begins to listen.
    pub fn open(node: &Node, address: IpAddr) -> Self {
        let any = if address.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = node.host().run(|| UdpSocket::bind((any, 0))).unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let address = SocketAddr::new(address, socket.local_addr().unwrap().port());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&heard);
        let worker = Worker::start(move |ended| {
            while !ended.load(Ordering::Acquire) {
                if socket.recv(&mut [0; 100]).is_ok() {
                    noted.lock().unwrap().push(Instant::now());
                }
            }
        });
        Self { address, heard, _worker: worker }
    }

    /// When datagrams came, within a span.
    pub fn between(&self, from: Instant, to: Instant) -> usize {
        self.heard.lock().unwrap().iter().filter(|at| (from..to).contains(at)).count()
    }

    /// How many came so far.
    pub fn count(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    /// When the first one came after a moment.
    pub fn first_after(&self, moment: Instant) -> Option<Instant> {
        self.heard.lock().unwrap().iter().copied().find(|at| *at > moment)
    }

    /// When the last one came.
    pub fn last(&self) -> Option<Instant> {
        self.heard.lock().unwrap().last().copied()
    }
}
