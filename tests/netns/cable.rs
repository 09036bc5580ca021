//! A cable in user space between a host and the router, which passes, delays or doubles each frame as it is told.
//!
//! ```text
//!   host eth0 ── near ╌╌ a thread ╌╌ far ── toN router
//! ```

use crate::kernel::features;
use crate::lab::{Host, Lab, Underlay};
use crate::socket::{open_link, wait_for_either};
use socket2::Socket;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The longest frame of a link of MTU 1500.
const MAX_FRAME: usize = 1514;
/// How long an end may take to be noticed.
const LOOK: Duration = Duration::from_millis(20);

/// What becomes of a frame.
#[derive(Clone, Copy)]
pub enum Fate {
    Pass,
    Delay(Duration),
    Double,
}

/// A cable that is plugged in, until it is dropped.
pub struct Cable {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cable {
    /// Puts a cable into a host's link; `decide` says what becomes of each frame. Returns the host as it is addressed now.
    pub fn plug(lab: &mut Lab, host: &Host, decide: impl FnMut() -> Fate + Send + 'static) -> (Self, Host) {
        let (link, router) = (host.router_link(), lab.router().clone());
        let middle = lab.host_with("cable", Underlay::V4);
        router.ip(&format!("link set {link} name near netns {}", middle.namespace()));
        router.ip(&format!("link add {link} type veth peer name far netns {}", middle.namespace()));
        router.ip(&format!("link set {link} up"));
        for (end, name) in [(host, "eth0"), (&router, &*link)] {
            // Frames as they are on a wire: none is longer than the MTU, and every checksum is done.
            features(end, name, "tx off gso off tso off");
        }
        let ends = ["near", "far"].map(|end| {
            middle.ip(&format!("link set {end} up"));
            let socket = middle.run(|| open_link(end));
            socket.set_nonblocking(true).unwrap();
            socket
        });
        let host = lab.relocate(host, Underlay::Both);
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let thread = thread::spawn(move || carry(&ends, &end, decide));
        (Self { ended, thread: Some(thread) }, host)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // A panic in there was printed already.
        self.thread.take().map(JoinHandle::join);
    }
}

fn carry(ends: &[Socket; 2], ended: &AtomicBool, mut decide: impl FnMut() -> Fate) {
    // By the moment at which they are due and their number: the end at which they leave.
    let mut late: BTreeMap<(Instant, u64), (usize, Vec<u8>)> = BTreeMap::new();
    let mut number = 0;
    let mut frame = [0; MAX_FRAME];
    while !ended.load(Ordering::Acquire) {
        let next = late.first_key_value().map_or(LOOK, |((due, _), _)| due.saturating_duration_since(Instant::now()));
        wait_for_either(ends.each_ref(), next.min(LOOK));
        for end in [0, 1] {
            while let Some(len) = take(&ends[end], &mut frame) {
                let (other, frame) = (1 - end, &frame[..len]);
                match decide() {
                    Fate::Pass => put(&ends[other], frame),
                    Fate::Double => (0..2).for_each(|_| put(&ends[other], frame)),
                    Fate::Delay(time) => {
                        number += 1;
                        late.insert((Instant::now() + time, number), (other, frame.to_vec()));
                    }
                }
            }
        }
        while let Some(entry) = late.first_entry().filter(|entry| entry.key().0 <= Instant::now()) {
            let (end, frame) = entry.remove();
            put(&ends[end], &frame);
        }
    }
}

/// Takes a frame that came.
fn take(mut socket: &Socket, frame: &mut [u8]) -> Option<usize> {
    match socket.read(frame) {
        Ok(len) => Some(len),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// Sends a frame; where there is no room for it, it is lost, as on any cable.
fn put(socket: &Socket, frame: &[u8]) {
    match socket.send(frame) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
        Err(error) => panic!("{error}"),
    }
}
