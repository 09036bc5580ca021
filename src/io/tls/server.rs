//! The relay's side: listeners, and the bounds of what strangers may hold.
//!
//! Whoever connects proves who it is by the handshake inside alone, and until then it is anybody: such links are few for each source, few in
//! all, and short of life. Where there are too many of them the oldest ends: who means it is through within a second.

use super::connection::{UNCONFIRMED, carry};
use super::links::{Link, Origin};
use super::{Shared, TlsEvent, quieten};
use crate::wire::drops::DropReason;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// Links that others began, in all.
const MAX_LINKS: usize = 1024;

/// Of these, links that are nobody's yet.
pub(super) const MAX_UNCONFIRMED: usize = 256;

/// Of those, links from one address, or one IPv6 network of 64 bits: a company's members come from one.
pub(super) const MAX_OF_SOURCE: usize = 32;

/// How long TLS's own handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long a listener that cannot be had waits until it tries again.
const RETRY: Duration = Duration::from_secs(30);

/// How long a listener rests after an error: when there are no descriptors left.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Connections that the kernel keeps for a listener.
const BACKLOG: u32 = 256;

/// Who holds a place.
struct Place {
    source: IpAddr,
    since: Instant,
    link: Arc<Link>,
    is_over: AtomicBool,
}

/// All places.
#[derive(Default)]
pub(super) struct Places(Mutex<Vec<Arc<Place>>>);

/// Frees its place when dropped.
struct Held<'p>(&'p Places, Arc<Place>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.1.is_over.store(true, Ordering::Relaxed);
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|place| !Arc::ptr_eq(place, &self.1));
    }
}

impl Places {
    /// Gives a link a place if there is one for its source; the oldest that is nobody's gives way.
    fn take(&self, link: &Arc<Link>) -> Option<Held<'_>> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let source = source_of(link.remote.ip());
        let is_unconfirmed = |place: &&Arc<Place>| !place.link.is_confirmed.load(Ordering::Relaxed);
        let of_source = places.iter().filter(is_unconfirmed).filter(|place| place.source == source).count();
        if of_source >= MAX_OF_SOURCE || places.len() >= MAX_LINKS {
            return None;
        }
        // One that was told to end is on its way out.
        let is_there = |place: &&Arc<Place>| is_unconfirmed(place) && !place.is_over.load(Ordering::Relaxed);
        if places.iter().filter(is_there).count() >= MAX_UNCONFIRMED
            && let Some(oldest) = places.iter().filter(is_there).min_by_key(|place| place.since)
        {
            oldest.is_over.store(true, Ordering::Relaxed);
            oldest.link.end();
        }
        let place =
            Arc::new(Place { source, since: Instant::now(), link: Arc::clone(link), is_over: AtomicBool::new(false) });
        places.push(Arc::clone(&place));
        Some(Held(self, place))
    }
}

/// What an address counts as.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

/// Listens at an address for good.
pub(super) async fn listen(shared: Arc<Shared>, address: SocketAddr, acceptor: TlsAcceptor) {
    let listener = loop {
        match open(address, shared.mark) {
            Ok(listener) => break listener,
            Err(error) => {
                let hint = match error.kind() {
                    io::ErrorKind::PermissionDenied => "; a port below 1024 takes CAP_NET_BIND_SERVICE",
                    _ => "",
                };
                tracing::warn!(%address, %error, retry = ?RETRY, "no TLS here, members whose UDP is blocked do not come through{hint}");
                sleep(RETRY).await;
            }
        }
    };
    tracing::info!(%address, "listening by TLS");
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => drop(tokio::spawn(serve(Arc::clone(&shared), stream, remote, acceptor.clone()))),
            Err(error) => {
                tracing::debug!(%address, %error, "no connection was taken");
                sleep(ERROR_PAUSE).await;
            }
        }
    }
}

fn open(address: SocketAddr, mark: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // What is accepted has the listener's mark.
    super::mark(&socket, mark)?;
    if address.is_ipv6() {
        socket2::SockRef::from(&socket).set_only_v6(true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn serve(shared: Arc<Shared>, stream: TcpStream, remote: SocketAddr, acceptor: TlsAcceptor) {
    let link = Arc::new(Link::new(remote, Origin::Accepted));
    let Some(_place) = shared.places.take(&link) else { return shared.links.drops.count(DropReason::StreamRefused) };
    if let Err(error) = quieten(&stream) {
        tracing::debug!(%remote, %error, "a connection's options");
    }
    let handshake = tokio::select! {
        handshake = timeout(HANDSHAKE, acceptor.accept(stream)) => handshake,
        () = link.ended() => return shared.links.drops.count(DropReason::StreamRefused),
    };
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%remote, %error, "no TLS");
            return shared.links.drops.count(DropReason::StreamRefused);
        }
        Err(_) => return shared.links.drops.count(DropReason::StreamRefused),
    };
    if !shared.links.add(&link) {
        return shared.links.drops.count(DropReason::StreamRefused);
    }
    tracing::debug!(%remote, within = ?UNCONFIRMED, "somebody came by TLS");
    let end = carry(&shared.links, Arc::clone(&link), stream, shared.received.clone()).await;
    tracing::debug!(%remote, %end, "a TLS link ended");
    // Of others the node knows nothing, and strangers come as fast as they like.
    if link.was_confirmed.load(Ordering::Relaxed) {
        (shared.notify)(TlsEvent::Closed { path: link.path() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: u32) -> Arc<Link> {
        Arc::new(Link::new(SocketAddr::from((number.to_be_bytes(), 1000)), Origin::Accepted))
    }

    #[test]
    fn one_source_has_few_places_and_a_flood_from_everywhere_ends_the_oldest() {
        let places = Places::default();
        let one: Vec<_> = (0..2 * MAX_OF_SOURCE).filter_map(|_| places.take(&link(7))).collect();
        assert_eq!(one.len(), MAX_OF_SOURCE);
        one[0].1.link.confirm(true);
        assert!(places.take(&link(7)).is_some(), "who is somebody takes no stranger's place");
        drop(one);
        let first = link(1);
        let held: Vec<_> =
            std::iter::once(&first).chain(&(2..=300).map(link).collect::<Vec<_>>()).map(|it| places.take(it)).collect();
        assert!(held.iter().all(Option::is_some));
        let there = |held: &[Option<Held<'_>>]| {
            held.iter().flatten().filter(|held| !held.1.is_over.load(Ordering::Relaxed)).count()
        };
        assert_eq!(there(&held), MAX_UNCONFIRMED);
        assert!(held[0].as_ref().unwrap().1.is_over.load(Ordering::Relaxed), "the first that came");
        drop(held);
        assert!(places.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let at = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
    }
}
