//! Sending by whatever a path is: UDP, or a link that carries datagrams over TLS.

use super::batch::Train;
use super::tls::TlsLinks;
use super::udp::{SendError, UdpSender};
use crate::path::Path;
use crate::wire::drops::DropReason;
use crate::wire::ecn::Ecn;

/// The name under which a datagram is counted that the kernel did not take.
const fn counted_as(error: SendError) -> DropReason {
    match error {
        SendError::TooLong => DropReason::TooLarge,
        SendError::Unreachable | SendError::QueueFull | SendError::NoSocket | SendError::Refused(_) => {
            DropReason::SendFailed
        }
    }
}

/// Sends datagrams. Cheap to clone; any thread may.
#[derive(Clone)]
pub struct PathSender {
    udp: UdpSender,
    tls: TlsLinks,
}

impl PathSender {
    /// Sends by these sockets and links.
    pub fn new(udp: UdpSender, tls: TlsLinks) -> Self {
        Self { udp, tls }
    }

    /// Lends the sockets.
    pub fn udp(&self) -> &UdpSender {
        &self.udp
    }

    /// Lends the links over TLS.
    pub fn tls(&self) -> &TlsLinks {
        &self.tls
    }

    /// As [`UdpSender::by_queue`].
    pub fn by_queue(&self, queue: usize) -> Self {
        Self { udp: self.udp.by_queue(queue), tls: self.tls.clone() }
    }

    /// As [`UdpSender::unwaiting`].
    pub fn unwaiting(&self) -> Self {
        Self { udp: self.udp.unwaiting(), tls: self.tls.clone() }
    }

    /// Sends one datagram over so many routers at most; by a link, over as many as there are.
    ///
    /// # Errors
    /// What the datagram is to be counted as, which is dropped.
    pub fn send_over(&self, path: Path, datagram: &[u8], hop_limit: Option<u8>) -> Result<(), DropReason> {
        let (bytes, datagram_len) = (0..datagram.len(), datagram.len());
        let train = Train { bytes, datagram_len, path, ecn: Ecn::NotCapable, hop_limit };
        let mut outcome = Ok(());
        self.send_each(datagram, std::slice::from_ref(&train), |_, _, reason| outcome = Err(reason));
        outcome
    }

    /// Sends `trains` in their order, from where they lie in `memory`. Tells `dropped` the position of a train of which datagrams were not
    /// sent, how many, and what they are to be counted as: [`DropReason::TooLarge`] when the link is too narrow for them.
    ///
    /// # Panics
    /// When a range reaches beyond `memory`.
    pub fn send_each(&self, memory: &[u8], trains: &[Train], mut dropped: impl FnMut(usize, usize, DropReason)) {
        let mut begin = 0;
        for run in trains.chunk_by(|one, other| one.path.is_stream() == other.path.is_stream()) {
            if run[0].path.is_stream() {
                for (train, position) in run.iter().zip(begin..) {
                    if let Some((count, reason)) = self.tls.send(memory, train) {
                        dropped(position, count, reason);
                    }
                }
            } else {
                self.udp.send_each(memory, run, |position, count, error| {
                    dropped(begin + position, count, counted_as(error));
                });
            }
            begin += run.len();
        }
    }
}
