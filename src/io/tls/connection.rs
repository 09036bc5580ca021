//! A link's connection, once both ends know what they are to know: datagrams in and out until it ends.

use super::links::{Link, Links, Origin, stream_path};
use crate::io::batch::Datagram;
use crate::node::forward::Arrival;
use crate::wire::drops::DropReason;
use crate::wire::length_framing::{LENGTH_LEN, framed_len};
use bytes::BytesMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a link may be silent: peers with a session say something every 25 seconds.
const IDLE: Duration = Duration::from_secs(90);

/// How long an accepted link is nobody's: the handshake inside takes a second, and its life is five.
pub(super) const UNCONFIRMED: Duration = Duration::from_secs(20);

/// How long the other end may take nothing of what it is sent.
const STALL: Duration = Duration::from_secs(20);

/// Bytes written at a time: one record of TLS.
const WRITE_BYTES: usize = 16 << 10;

/// Bytes read at a time at most.
const READ_BYTES: usize = 16 << 10;

/// Bytes that are read of an accepted link before anything of a session came by it: a handshake, twice over.
pub(super) const STRANGER_BYTES: usize = 16 << 10;

/// Datagrams handed on at a time at most: short ones are many in a record, and each costs.
pub(super) const ROW_DATAGRAMS: usize = 128;

/// What came by a link.
pub struct Incoming {
    /// The other end.
    pub remote: SocketAddr,
    /// Datagrams, in their order.
    pub datagrams: Vec<BytesMut>,
}

impl Incoming {
    /// Lends the datagrams.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        let arrival = Arrival::from(stream_path(self.remote));
        self.datagrams.iter_mut().map(move |payload| Datagram { arrival, payload: &mut payload[..] })
    }
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("this node closes it")]
    Closed,
    #[error("the other end closed it")]
    ClosedThere,
    #[error("nobody's session uses it")]
    Unconfirmed,
    #[error("nothing came for long")]
    Idle,
    #[error("the other end takes nothing")]
    Stalled,
    #[error("what comes is no row of datagrams: {0}")]
    Malformed(#[from] crate::wire::length_framing::BadLength),
    #[error(transparent)]
    Broken(#[from] std::io::Error),
}

/// Carries datagrams until the link ends. Whoever calls tells so, and removes it then.
pub(super) async fn carry<S: AsyncRead + AsyncWrite>(
    links: &Links,
    link: Arc<Link>,
    stream: S,
    received: mpsc::Sender<Incoming>,
) -> End {
    let (reader, writer) = split(stream);
    let end = tokio::select! {
        end = read(&link, reader, received) => end,
        end = write(&link, writer) => end,
        () = link.ended() => End::Closed,
    };
    match end {
        End::Malformed(_) => links.drops.count(DropReason::MalformedStream),
        End::Unconfirmed if link.is_strangers() => links.drops.count(DropReason::StreamRefused),
        _ => {}
    }
    end
}

async fn read<S: AsyncRead>(link: &Link, mut reader: ReadHalf<S>, received: mpsc::Sender<Incoming>) -> End {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    // Since when nobody's session has used an accepted link.
    let mut unconfirmed_since = Instant::now();
    // What was read of a stranger's.
    let mut read_bytes = 0;
    loop {
        let now = Instant::now();
        let is_of_use = link.origin == Origin::Opened || link.is_confirmed.load(Ordering::Relaxed);
        if is_of_use {
            unconfirmed_since = now;
        }
        let unconfirmed_until = unconfirmed_since + UNCONFIRMED;
        // Whoever always has more ready never meets the deadline of a read.
        if !is_of_use && now >= unconfirmed_until {
            return End::Unconfirmed;
        }
        let is_strangers = link.is_strangers();
        if is_strangers && read_bytes >= STRANGER_BYTES {
            // Who has a session is known as soon as what was read of it is opened; the rest waits at its own end of TCP.
            match timeout_at(unconfirmed_until, link.known()).await {
                Ok(()) => continue,
                Err(_) => return End::Unconfirmed,
            }
        }
        let deadline = if is_of_use { now + IDLE } else { unconfirmed_until };
        let limit = if is_strangers { STRANGER_BYTES - read_bytes } else { READ_BYTES };
        buffer.reserve(READ_BYTES);
        match timeout_at(deadline, (&mut reader).take(limit as u64).read_buf(&mut buffer)).await {
            Ok(Ok(0)) => return End::ClosedThere,
            Ok(Ok(count)) => read_bytes += if is_strangers { count } else { 0 },
            Ok(Err(error)) => return error.into(),
            Err(_) if is_of_use => return End::Idle,
            // It may have become somebody's meanwhile.
            Err(_) if link.is_confirmed.load(Ordering::Relaxed) => continue,
            Err(_) => return End::Unconfirmed,
        }
        loop {
            let datagrams = match split_off(&mut buffer) {
                Ok(datagrams) if datagrams.is_empty() => break,
                Ok(datagrams) => datagrams,
                Err(error) => return error.into(),
            };
            // Whoever sends faster than this node opens waits here, and then at its own end of TCP.
            if received.send(Incoming { remote: link.remote, datagrams }).await.is_err() {
                return End::Closed;
            }
        }
    }
}

/// Takes whole datagrams off the front, a row of them.
fn split_off(buffer: &mut BytesMut) -> Result<Vec<BytesMut>, crate::wire::length_framing::BadLength> {
    let mut datagrams = Vec::new();
    while datagrams.len() < ROW_DATAGRAMS
        && let Some(len) = framed_len(buffer)?.filter(|len| buffer.len() >= LENGTH_LEN + len)
    {
        let mut datagram = buffer.split_to(LENGTH_LEN + len);
        datagrams.push(datagram.split_off(LENGTH_LEN));
    }
    Ok(datagrams)
}

async fn write<S: AsyncWrite>(link: &Link, mut writer: WriteHalf<S>) -> End {
    let mut out = Vec::with_capacity(WRITE_BYTES);
    loop {
        link.take(WRITE_BYTES, &mut out).await;
        let sent = async {
            writer.write_all(&out).await?;
            writer.flush().await
        };
        match timeout(STALL, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return End::Stalled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_come_out_as_they_went_in_wherever_the_stream_is_cut() {
        let sent: Vec<Vec<u8>> = [1, 300, 1472, 9000].iter().map(|len| vec![*len as u8; *len]).collect();
        let framed = |datagram: &Vec<u8>| [&(datagram.len() as u16).to_le_bytes()[..], datagram].concat();
        let stream: Vec<u8> = sent.iter().flat_map(framed).collect();
        for step in [1, 2, 3, 1000, 20_000] {
            let (mut buffer, mut came) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(step) {
                buffer.extend_from_slice(piece);
                came.extend(split_off(&mut buffer).unwrap().iter().map(|datagram| datagram.to_vec()));
            }
            assert_eq!((came, buffer.len()), (sent.clone(), 0), "{step}");
        }
    }
}
