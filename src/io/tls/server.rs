//! The relay's side: listeners, and the bounds of what strangers may hold.
//!
//! Whoever connects proves who it is by the handshake inside alone, and until then it is anybody: such links are few for each source, few in
//! all, and short of life. Where there are too many of them another one ends for each that comes, the oldest of those that hold most: who means
//! it is through within a second.

use super::connection::{UNCONFIRMED, carry};
use super::links::{Link, Origin};
use super::{Shared, TlsEvent, quieten};
use crate::wire::drops::DropReason;
use std::cmp::Reverse;
use std::collections::HashMap;
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
    /// Gives a link a place; where there are too many that are nobody's yet, another gives way: the oldest of the same source, or one of the
    /// network that holds most of them all.
    fn take(&self, link: &Arc<Link>) -> Option<Held<'_>> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let source = source_of(link.remote.ip());
        // One that was told to end is on its way out.
        let there: Vec<_> = places.iter().filter(|place| !place.is_over.load(Ordering::Relaxed)).collect();
        let nobodys: Vec<_> =
            there.iter().copied().filter(|place| !place.link.is_confirmed.load(Ordering::Relaxed)).collect();
        let of_source = nobodys.iter().copied().filter(|place| place.source == source);
        let victim = if of_source.clone().count() >= MAX_OF_SOURCE {
            of_source.min_by_key(|place| place.since)
        } else if nobodys.len() >= MAX_UNCONFIRMED || there.len() >= MAX_LINKS {
            Some(greediest(&nobodys)?)
        } else {
            None
        };
        // Those take the moment that their tasks need; more than this there never are.
        if places.len() >= 2 * MAX_LINKS {
            return None;
        }
        if let Some(victim) = victim {
            victim.is_over.store(true, Ordering::Relaxed);
            victim.link.end();
        }
        let place =
            Arc::new(Place { source, since: Instant::now(), link: Arc::clone(link), is_over: AtomicBool::new(false) });
        places.push(Arc::clone(&place));
        Some(Held(self, place))
    }
}

/// Of the network that holds most of these places: the oldest, among those that did not finish TLS if there are any.
fn greediest<'p>(places: &[&'p Arc<Place>]) -> Option<&'p Arc<Place>> {
    let mut held: HashMap<IpAddr, usize> = HashMap::new();
    places.iter().for_each(|place| *held.entry(network_of(place.source)).or_default() += 1);
    let rank = |place: &&'p Arc<Place>| {
        let is_through = place.link.is_through.load(Ordering::Relaxed);
        (Reverse(held[&network_of(place.source)]), is_through, place.since)
    };
    places.iter().copied().min_by_key(rank)
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

/// Whose sources count together when all places are taken: what one customer gets is an IPv6 network of 48 bits, or a few addresses of IPv4.
fn network_of(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            IpAddr::from([a, b, c, 0, 0, 0, 0, 0])
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
    link.is_through.store(true, Ordering::Relaxed);
    if !shared.links.add(&link) {
        return shared.links.drops.count(DropReason::StreamRefused);
    }
    tracing::debug!(%remote, within = ?UNCONFIRMED, "somebody came by TLS");
    let end = carry(&shared.links, Arc::clone(&link), stream, shared.received.clone()).await;
    tracing::debug!(%remote, %end, "a TLS link ended");
    // Of others the node knows nothing, and strangers come as fast as they like.
    if !link.is_strangers() {
        (shared.notify)(TlsEvent::Closed { path: link.path() });
    }
    shared.links.remove(&remote);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: u32) -> Arc<Link> {
        Arc::new(Link::new(SocketAddr::from((number.to_be_bytes(), 1000)), Origin::Accepted))
    }

    fn is_over(held: &Held<'_>) -> bool {
        held.1.is_over.load(Ordering::Relaxed)
    }

    fn there(held: &[Held<'_>]) -> usize {
        held.iter().filter(|held| !is_over(held)).count()
    }

    #[test]
    fn one_source_has_few_places_and_its_own_oldest_gives_way() {
        let places = Places::default();
        let other = places.take(&link(8)).unwrap();
        let one: Vec<_> = (0..2 * MAX_OF_SOURCE).map(|_| places.take(&link(7)).unwrap()).collect();
        assert_eq!(there(&one), MAX_OF_SOURCE);
        assert!(one[..MAX_OF_SOURCE].iter().all(is_over), "who comes last comes in");
        one.last().unwrap().1.link.confirm(true);
        let next = places.take(&link(7)).unwrap();
        assert_eq!(there(&one) + there(&[next]), MAX_OF_SOURCE + 1, "who is somebody takes no stranger's place");
        assert!(!is_over(&other));
        drop((one, other));
        assert!(places.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_flood_ends_links_of_the_network_that_holds_most_and_leaves_others_alone() {
        let places = Places::default();
        let address = |number: u32| Arc::new(Link::new((number.to_be_bytes(), 1000).into(), Origin::Accepted));
        let honest: Vec<_> = (1..=20_u32).map(|number| places.take(&address(number << 16)).unwrap()).collect();
        let through = address(0x0a00_0001);
        through.is_through.store(true, Ordering::Relaxed);
        let finished = places.take(&through).unwrap();
        // From all addresses of one network, each a few times.
        let flood: Vec<_> =
            (0..600_u32).map(|number| places.take(&address(0x0a00_0000 + number % 256)).unwrap()).collect();
        assert_eq!(there(&honest), honest.len(), "though they are the oldest");
        assert!(!is_over(&finished), "those that did not finish TLS go first");
        assert_eq!(there(&flood), MAX_UNCONFIRMED - honest.len() - 1);
        assert!(!is_over(flood.last().unwrap()) && is_over(&flood[0]));
        // From everywhere, each once: the oldest goes.
        let places = Places::default();
        let held: Vec<_> = (1..=300).map(|number| places.take(&address(number << 8)).unwrap()).collect();
        assert_eq!(there(&held), MAX_UNCONFIRMED);
        assert!(is_over(&held[0]) && !is_over(&held[299]));
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let at = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_eq!(network_of(at("2001:db8:7:1::1")), network_of(at("2001:db8:7:2::1")));
        assert_ne!(network_of(at("2001:db8:7::1")), network_of(at("2001:db8:8::1")));
        assert_eq!(network_of(at("192.0.2.1")), network_of(at("192.0.2.200")));
    }
}
