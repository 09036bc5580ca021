//! The thread that carries frames: from the devices of segments to the sockets. Frames that come in are the receiving threads'.
//!
//! ```text
//!   TAPs ─► Segment::outbound ─► Outgoing::seal_frame, once for each peer ─► UdpSender
//!                 └─ an answer that is known ─► the same TAP
//! ```
//! One thread for all segments: its lane lasts as long as the daemon, whichever devices come and go.

use super::data_plane::{Exit, Shared};
use super::inbox::Message;
use super::workers::{FrameHandler, Workers};
use crate::io::clock;
use crate::io::device::{Device, ReadEnd};
use crate::io::sender::PathSender;
use crate::node::forward::DevicePacket;
use crate::node::table::ForwardingTable;
use crate::router::PeerIndex;
use crate::router::bridge::Route;
use crate::time::Instant;
use crate::wire::drops::DropReason;
use crate::wire::frame::SegmentNumber;
use crate::wire::transport_record::Layer;
use std::io;
use std::sync::Arc;

/// The lane worker of this thread: the last one, which no queue of the packets' device has.
pub const WORKER: u8 = 15;

/// Starts the thread. No datagram of frames is longer than one with a packet of `mtu` bytes.
///
/// # Errors
/// The system's, when it gives no thread.
pub fn start(workers: &mut Workers, shared: &Shared, sender: PathSender, mtu: u16) -> io::Result<()> {
    let taps = Arc::clone(&shared.taps);
    let mut exit = Exit::new(shared.clone(), sender, WORKER);
    exit.limit_frames(mtu);
    workers.read_segments(taps, FramesOut { exit })
}

/// The thread from the devices to the sockets.
struct FramesOut {
    exit: Exit,
}

impl FrameHandler for FramesOut {
    fn begin(&mut self) {
        self.exit.begin();
    }

    fn take(&mut self, segment: SegmentNumber, device: &Device, mut frame: DevicePacket<'_>) {
        let (table, now) = (self.exit.shared.table.load(), clock::now().instant);
        match table.segments.get(segment).and_then(|it| it.outbound(now, frame.bytes)) {
            Ok(Route::Peer(peer)) => self.send(&table, now, (segment, peer), &mut frame),
            Ok(Route::Peers(peers)) => {
                peers.into_iter().for_each(|peer| self.send(&table, now, (segment, peer), &mut frame));
            }
            Ok(Route::Answer(answer)) => {
                if device.write(&answer).is_err() {
                    self.exit.shared.drops.count(DropReason::DeviceRefused);
                }
            }
            Err(reason) => self.exit.shared.drops.count(reason),
        }
    }

    fn end(&mut self) {
        self.exit.flush(clock::now().instant);
    }

    fn lost(&mut self, segment: SegmentNumber, end: &ReadEnd) {
        tracing::warn!(segment = segment.0, %end, "the device of a segment is gone");
        self.exit.shared.inbox.put(Message::SegmentLost(segment));
    }
}

impl FramesOut {
    fn send(
        &mut self,
        table: &ForwardingTable,
        now: Instant,
        (segment, peer): (SegmentNumber, PeerIndex),
        frame: &mut DevicePacket<'_>,
    ) {
        let seal = |outgoing: &mut crate::node::forward::Outgoing, batch: &mut _| {
            outgoing.seal_frame(table, now, (segment, peer), frame, batch)
        };
        let outcome = self.exit.seal(now, seal);
        // Of frames the device is told nothing.
        let _ = self.exit.settle(now, Layer::Link(segment), outcome, frame);
    }
}
