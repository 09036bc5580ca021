//! The blocking threads of the data plane: one reads each queue of the device, one receives from each queue of each socket.
//!
//! Owns the threads, their names and their end. Refuses to know what a packet means: each thread lends its batch to a handler, which
//! seals or opens in place and sends what comes of it.
//!
//! ```text
//!   p2p-device-N  Device::read                ──► PacketHandler::take            seal into a SendBatch, UdpSender::send_each
//!   p2p-segments  Device::read, of all segments ──► FrameHandler::take      likewise
//!   p2p-udp-N-M   UdpReceiver::receive_batch  ──► handler(&mut DatagramBatch)    open in the slots, Device::write
//!   p2p-streams   TlsReceiver::receive_batch  ──► handler(…)                     likewise, for all links over TLS
//!   p2p-spares    SpareReceiver::receive_batch ──► handler(&mut DatagramBatch)   likewise, for all sockets that come and go
//! ```
//! A thread ends when it is stopped, or when its device is unusable, which is told to the owner. A panic in a handler ends the
//! process: half a data plane, with a thread silently dead, is worse than a restart.

use super::taps::Taps;
use crate::io::StopSignal;
use crate::io::batch::{DatagramBatch, DatagramShape, PacketBuffer};
use crate::io::device::{Device, ReadEnd};
use crate::io::stop::Wake;
use crate::io::tls::{Incoming, TlsReceiver};
use crate::io::udp::{ReceiveEnd, SpareReceiver, UdpReceiver};
use crate::io::watch::{NetworkEvent, NetworkWatch, WatchEnd};
use crate::node::forward::DevicePacket;
use crate::wire::frame::SegmentNumber;
use arc_swap::ArcSwap;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a failed watch of the host's network rests before it is opened anew, at first.
const FIRST_WATCH_PAUSE: Duration = Duration::from_millis(100);
/// The same after many failures in a row.
const LONGEST_WATCH_PAUSE: Duration = Duration::from_secs(60);

/// A worker that ended although nobody stopped it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the thread {thread} ended: {reason}")]
pub struct WorkerFailure {
    /// The thread's name.
    pub thread: String,
    /// What it met.
    pub reason: String,
}

/// What is done with the packets of a device, on its thread.
pub trait PacketHandler {
    /// Packets come, of a device that was empty until now.
    fn begin(&mut self);

    /// Takes a packet.
    fn take(&mut self, packet: DevicePacket<'_>);

    /// Nothing more is there: what was kept back for others to come leaves now.
    fn end(&mut self);
}

/// What is done with the frames of the segments' devices, on their thread.
pub trait FrameHandler {
    /// Frames come, of devices that were empty until now.
    fn begin(&mut self);

    /// Takes a frame that a segment's device gave.
    fn take(&mut self, segment: SegmentNumber, device: &Device, frame: DevicePacket<'_>);

    /// Nothing more is there.
    fn end(&mut self);

    /// A segment's device is gone: somebody removed it.
    fn lost(&mut self, segment: SegmentNumber, end: &ReadEnd);
}

/// Frames that are read from one segment's device before the others have their turn.
const FRAMES_A_TURN: usize = 64;

/// The running threads. Dropping it stops and joins them.
pub struct Workers {
    stop: StopSignal,
    failed: Arc<dyn Fn(WorkerFailure) + Send + Sync>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts with no thread. `failed` is called from a thread that ends unasked: it tells the event loop, and does not wait.
    ///
    /// # Errors
    /// The kernel's, when there is no descriptor left.
    pub fn new(failed: impl Fn(WorkerFailure) + Send + Sync + 'static) -> io::Result<Self> {
        Ok(Self { stop: StopSignal::new()?, failed: Arc::new(failed), threads: Vec::new() })
    }

    /// Starts the thread that reads `device` and lends each packet to `handler`.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn read_device(&mut self, device: Device, mut handler: impl PacketHandler + Send + 'static) -> io::Result<()> {
        self.spawn(format!("p2p-device-{}", device.queue()), move |stop| {
            let mut buffer = PacketBuffer::default();
            loop {
                match read_all(&device, stop, &mut buffer, &mut handler) {
                    Ok(()) => {}
                    Err(ReadEnd::Stopped) => return Ok(()),
                    Err(end @ ReadEnd::Gone(_)) => return Err(end.to_string()),
                }
            }
        })
    }

    /// Starts the thread that reads the devices of all segments, those that are there from time to time, and lends each frame to `handler`.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn read_segments(
        &mut self,
        taps: Arc<ArcSwap<Taps>>,
        mut handler: impl FrameHandler + Send + 'static,
    ) -> io::Result<()> {
        self.spawn("p2p-segments".to_owned(), move |stop| {
            let (mut buffer, mut ready) = (PacketBuffer::default(), Vec::new());
            loop {
                let current = taps.load_full();
                let mut devices: Vec<_> = current.devices().collect();
                let mut is_drained = true;
                while !current.replaced().is_triggered() {
                    let waiting = devices.iter().map(|(_, device)| device);
                    if Device::wait_any(waiting, stop, current.replaced(), &mut ready).is_err() {
                        return Ok(());
                    }
                    if is_drained {
                        handler.begin();
                    }
                    is_drained = true;
                    let mut is_ready = ready.iter().copied();
                    devices.retain(|(segment, device)| {
                        if !is_ready.next().unwrap_or(false) {
                            return true;
                        }
                        let turn = take_turn(*segment, device, stop, &mut buffer, &mut handler);
                        is_drained &= !matches!(turn, Ok(Turn::Over));
                        turn.map_err(|end| handler.lost(*segment, &end)).is_ok()
                    });
                    handler.end();
                }
            }
        })
    }

    /// Starts the thread that receives from `receiver` and lends each batch, cut to `shape`, to `handler`.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn receive_udp(
        &mut self,
        mut receiver: UdpReceiver,
        shape: DatagramShape,
        handler: impl FnMut(&mut DatagramBatch) + Send + 'static,
    ) -> io::Result<()> {
        let name = format!("p2p-udp-{}-{}", receiver.socket_index(), receiver.queue());
        self.receive(name, shape, move |stop, batch| receiver.receive_batch(stop, batch), handler)
    }

    /// Starts the thread that receives from all sockets that come and go, and lends each batch, cut to `shape`, to `handler`.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn receive_spares(
        &mut self,
        mut receiver: SpareReceiver,
        shape: DatagramShape,
        handler: impl FnMut(&mut DatagramBatch) + Send + 'static,
    ) -> io::Result<()> {
        self.receive("p2p-spares".to_owned(), shape, move |stop, batch| receiver.receive_batch(stop, batch), handler)
    }

    fn receive(
        &mut self,
        name: String,
        shape: DatagramShape,
        mut receive: impl FnMut(&StopSignal, &mut DatagramBatch) -> Result<(), ReceiveEnd> + Send + 'static,
        mut handler: impl FnMut(&mut DatagramBatch) + Send + 'static,
    ) -> io::Result<()> {
        self.spawn(name, move |stop| {
            let mut batch = DatagramBatch::new(shape);
            loop {
                match receive(stop, &mut batch) {
                    Ok(()) => handler(&mut batch),
                    Err(ReceiveEnd::Stopped) => return Ok(()),
                    Err(end @ ReceiveEnd::Failed(_)) => return Err(end.to_string()),
                }
            }
        })
    }

    /// Starts the thread that receives what comes by links over TLS and lends each batch to `handler`, with whether there was nothing before.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn receive_streams(
        &mut self,
        mut receiver: TlsReceiver,
        mut handler: impl FnMut(bool, &mut Vec<Incoming>) + Send + 'static,
    ) -> io::Result<()> {
        self.spawn("p2p-streams".to_owned(), move |stop| {
            let mut batch = Vec::new();
            loop {
                match receiver.receive_batch(stop, &mut batch) {
                    Ok(is_after_silence) => handler(is_after_silence, &mut batch),
                    Err(ReceiveEnd::Stopped) => return Ok(()),
                    Err(end @ ReceiveEnd::Failed(_)) => return Err(end.to_string()),
                }
            }
        })
    }

    /// Starts the thread that tells `handler` each change of the host's network configuration, on a watch that `open` opens, and opens
    /// anew when it fails: without it the node goes on, and is late to see changes. After each opening all has to be read anew.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn watch_network(
        &mut self,
        mut open: impl FnMut() -> io::Result<NetworkWatch> + Send + 'static,
        mut handler: impl FnMut(NetworkEvent) + Send + 'static,
    ) -> io::Result<()> {
        self.spawn("p2p-watch".to_owned(), move |stop| {
            let mut pause = FIRST_WATCH_PAUSE;
            loop {
                let end = match open() {
                    Ok(mut watch) => {
                        handler(NetworkEvent::Lost);
                        loop {
                            match watch.next(stop) {
                                Ok(event) => {
                                    pause = FIRST_WATCH_PAUSE;
                                    handler(event);
                                }
                                Err(end) => break end,
                            }
                        }
                    }
                    Err(error) => WatchEnd::Failed(error),
                };
                if let WatchEnd::Failed(_) = &end {
                    tracing::warn!(reason = %end, retry = ?pause, "changes of the host's network are not noticed for a while");
                }
                if matches!(end, WatchEnd::Stopped) || stop.sleep(pause) == Wake::Stopped {
                    return Ok(());
                }
                pause = (pause * 2).min(LONGEST_WATCH_PAUSE);
            }
        })
    }

    /// Stops all threads and waits until they ended.
    pub fn stop(mut self) {
        self.stop_and_join();
    }

    fn spawn(
        &mut self,
        name: String,
        body: impl FnOnce(&StopSignal) -> Result<(), String> + Send + 'static,
    ) -> io::Result<()> {
        let (stop, failed, thread_name) = (self.stop.clone(), Arc::clone(&self.failed), name.clone());
        let thread = thread::Builder::new().name(name).spawn(move || {
            let guard = AbortOnPanic { thread: &thread_name };
            match body(&stop) {
                Ok(()) => tracing::debug!(thread = thread_name, "worker stopped"),
                Err(reason) => {
                    tracing::error!(thread = thread_name, reason, "worker ended");
                    failed(WorkerFailure { thread: thread_name.clone(), reason });
                }
            }
            drop(guard);
        })?;
        self.threads.push(thread);
        Ok(())
    }

    fn stop_and_join(&mut self) {
        self.stop.trigger();
        for thread in self.threads.drain(..) {
            // A worker that panicked has taken the process with it.
            let _ = thread.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop_and_join();
    }
}

/// Ends the process when its thread unwinds.
struct AbortOnPanic<'t> {
    thread: &'t str,
}

impl Drop for AbortOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            // The panic's message and place were told by the hook already.
            tracing::error!(thread = self.thread, "a worker panicked: the process ends, so that it is started anew");
            std::process::abort();
        }
    }
}

/// Waits for packets and takes all that are there.
fn read_all(
    device: &Device,
    stop: &StopSignal,
    buffer: &mut PacketBuffer,
    handler: &mut impl PacketHandler,
) -> Result<(), ReadEnd> {
    device.wait(stop)?;
    handler.begin();
    while let Some(vnet) = device.read(stop, buffer)? {
        handler.take(DevicePacket { vnet, bytes: buffer.packet() });
        if stop.is_triggered() {
            return Err(ReadEnd::Stopped);
        }
    }
    handler.end();
    Ok(())
}

/// How a device's turn among others ended.
enum Turn {
    /// It has nothing more.
    Drained,
    /// The others' time has come.
    Over,
}

/// Takes what a segment's device has, up to a share.
fn take_turn(
    segment: SegmentNumber,
    device: &Device,
    stop: &StopSignal,
    buffer: &mut PacketBuffer,
    handler: &mut impl FrameHandler,
) -> Result<Turn, ReadEnd> {
    for _ in 0..FRAMES_A_TURN {
        match device.read(stop, buffer)? {
            Some(vnet) => handler.take(segment, device, DevicePacket { vnet, bytes: buffer.packet() }),
            None => return Ok(Turn::Drained),
        }
    }
    Ok(Turn::Over)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::udp::{self, Listen};
    use std::net::{SocketAddr, UdpSocket};
    use std::process::Command;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    /// Starts a receiver that counts into the counter returned; gives its address as well.
    fn receiver(workers: &mut Workers) -> (SocketAddr, Arc<AtomicUsize>) {
        let mut sockets = udp::bind(&Listen::Exactly(vec![SocketAddr::from(([127, 0, 0, 1], 0))]), 1).unwrap();
        let received = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&received);
        workers
            .receive_udp(sockets.receivers.remove(0), DatagramShape::default(), move |batch| {
                assert_eq!(thread::current().name(), Some("p2p-udp-0-0"));
                let hostile = batch.datagrams().any(|datagram| *datagram.payload == *b"panic");
                assert!(!hostile, "told to panic");
                counter.fetch_add(batch.datagrams().count(), Ordering::Relaxed);
            })
            .unwrap();
        (sockets.sender.local_addresses()[0], received)
    }

    struct Nothing;

    impl PacketHandler for Nothing {
        fn take(&mut self, _packet: DevicePacket<'_>) {
            panic!("an absent device reads nothing");
        }

        fn begin(&mut self) {}

        fn end(&mut self) {}
    }

    fn eventually(condition: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        condition()
    }

    #[test]
    fn handlers_get_what_arrives_until_the_threads_are_stopped() {
        let mut workers = Workers::new(|failure| panic!("{failure}")).unwrap();
        workers.read_device(Device::absent(), Nothing).unwrap();
        workers.watch_network(NetworkWatch::open, |_| {}).unwrap();
        let (address, received) = receiver(&mut workers);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..10 {
            socket.send_to(b"datagram", address).unwrap();
        }
        assert!(eventually(|| received.load(Ordering::Relaxed) == 10));
        workers.stop();
        // The handler is gone with its thread: ours is the only reference left.
        assert_eq!(Arc::strong_count(&received), 1);
        assert!(eventually(|| UdpSocket::bind(address).is_ok()), "the socket is still open");
    }

    #[test]
    fn a_watch_that_fails_ends_nothing_and_is_opened_anew() {
        let (told, failures) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&failures);
        let mut workers = Workers::new(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        let mut openings = 0;
        let open = move || {
            openings += 1;
            match openings {
                1 => Ok(NetworkWatch::unusable()),
                2 => Err(io::ErrorKind::OutOfMemory.into()),
                _ => NetworkWatch::open(),
            }
        };
        let counter = Arc::clone(&told);
        let handler = move |event| {
            counter.fetch_add(usize::from(event == NetworkEvent::Lost), Ordering::Relaxed);
        };
        workers.watch_network(open, handler).unwrap();
        // The unusable one was read from, another was not to be had, and the third one stays.
        assert!(eventually(|| told.load(Ordering::Relaxed) == 2), "{told:?}");
        workers.stop();
        assert_eq!(failures.load(Ordering::Relaxed), 0, "the daemon was told to end");
    }

    /// Panics in a worker; does nothing unless told so by the next test.
    #[test]
    fn victim_of_the_next_test() {
        if std::env::var_os("P2PLUS_WORKER_VICTIM").is_none() {
            return;
        }
        tracing_subscriber::fmt().with_ansi(false).with_writer(io::stderr).init();
        let mut workers = Workers::new(|_| {}).unwrap();
        let (address, _) = receiver(&mut workers);
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"panic", address).unwrap();
        thread::sleep(Duration::from_secs(60));
    }

    #[test]
    fn a_panic_in_a_handler_ends_the_process_and_names_the_thread() {
        let started = Instant::now();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "daemon::workers::tests::victim_of_the_next_test", "--nocapture"])
            .env("P2PLUS_WORKER_VICTIM", "1")
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && started.elapsed() < Duration::from_secs(30), "{errors}");
        assert!(errors.contains("told to panic"), "{errors}");
        assert!(errors.contains("a worker panicked") && errors.contains("thread=\"p2p-udp-0-0\""), "{errors}");
    }
}
