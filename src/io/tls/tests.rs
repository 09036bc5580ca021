use super::*;
use crate::wire::length_framing::MAX_FRAMED;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as StdStream};
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

const RELAY: NodeId = NodeId([9; 32]);

/// One end, with a runtime of its own.
struct End {
    links: TlsLinks,
    receiver: TlsReceiver,
    orders: TlsOrders,
    events: std_mpsc::Receiver<TlsEvent>,
    drops: Arc<Drops>,
    runtime: Runtime,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

impl End {
    fn new(seed: u8) -> Self {
        let runtime = Runtime::new().unwrap();
        let (drops, (told, events)) = (Arc::new(Drops::new()), std_mpsc::channel());
        let notify = move |event| {
            let _ = told.send(event);
        };
        let (links, receiver, orders) = start(&runtime, key(seed), 0, Arc::clone(&drops), notify).unwrap();
        Self { links, receiver, orders, events, drops, runtime }
    }

    /// Has it listen. Returns where.
    fn listen(&mut self) -> SocketAddr {
        let address = free_address();
        self.orders.listen(&[address]);
        eventually(|| StdStream::connect(address).is_ok());
        address
    }

    fn open(&self, at: SocketAddr, seed: u8) -> TlsEvent {
        self.orders.open(OpenOrder { relay: RELAY, key: key(seed).verifying_key(), endpoints: vec![at] });
        self.events.recv_timeout(PATIENCE).unwrap()
    }

    fn send(&self, path: Path, datagram: &[u8]) -> Option<(usize, DropReason)> {
        let train = Train {
            bytes: 0..datagram.len(),
            datagram_len: datagram.len(),
            path,
            ecn: crate::wire::ecn::Ecn::NotCapable,
            hop_limit: None,
        };
        self.links.send(datagram, &train)
    }

    /// The next datagrams, and where they come from.
    fn receive(&mut self) -> (SocketAddr, Vec<Vec<u8>>) {
        let mut batch = Vec::new();
        self.receiver.receive_batch(&StopSignal::new().unwrap(), &mut batch).unwrap();
        let first = batch.first().unwrap().remote;
        (first, batch.into_iter().flat_map(|it| it.datagrams).map(|datagram| datagram.to_vec()).collect())
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason)
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn eventually(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "it never came");
        thread::sleep(Duration::from_millis(5));
    }
}

fn opened(event: TlsEvent) -> Path {
    match event {
        TlsEvent::Opened { relay: RELAY, path } => path,
        other => panic!("{other:?}"),
    }
}

#[test]
fn datagrams_go_both_ways_and_the_end_is_told() {
    let (mut relay, mut member) = (End::new(1), End::new(2));
    let at = relay.listen();
    let path = opened(member.open(at, 1));
    assert!(path.is_stream() && path.remote == at);
    assert_eq!(member.send(path, b"there"), None);
    let (from, came) = relay.receive();
    assert_eq!(came, [b"there"]);
    let back = links::stream_path(from);
    relay.orders.confirm(&BTreeSet::from([from]));
    let long = vec![7; MAX_FRAMED];
    assert_eq!(relay.send(back, &long), None);
    assert_eq!(member.receive(), (at, vec![long]));
    member.orders.close(path);
    assert_eq!(member.events.recv_timeout(PATIENCE), Ok(TlsEvent::Closed { path }));
    // Whoever only looked whether the port is open is none that was a link.
    assert_eq!(relay.events.recv_timeout(PATIENCE), Ok(TlsEvent::Closed { path: back }));
    assert_eq!(member.send(path, b"gone"), Some((1, DropReason::SendFailed)));
}

#[test]
fn a_relay_that_shows_another_key_is_refused() {
    let (mut impostor, member) = (End::new(3), End::new(2));
    let at = impostor.listen();
    // Of whoever looked whether it listens.
    eventually(|| impostor.dropped(DropReason::StreamRefused) == 1);
    let before = impostor.dropped(DropReason::StreamRefused);
    assert_eq!(member.open(at, 1), TlsEvent::Failed { relay: RELAY });
    assert!(member.links.0.links.get(&at).is_none());
    // For the impostor it was none either: whoever asked turned away before its own last word of TLS.
    eventually(|| impostor.dropped(DropReason::StreamRefused) == before + 1);
    assert_eq!(impostor.dropped(DropReason::MalformedStream), 0);
}

#[test]
fn the_first_address_that_shows_the_key_is_taken() {
    let (mut relay, mut impostor, member) = (End::new(1), End::new(3), End::new(2));
    let (right, wrong, closed) = (relay.listen(), impostor.listen(), free_address());
    let endpoints = vec![closed, wrong, right];
    member.orders.open(OpenOrder { relay: RELAY, key: key(1).verifying_key(), endpoints });
    assert_eq!(opened(member.events.recv_timeout(PATIENCE).unwrap()).remote, right);
}

#[test]
fn garbage_on_the_port_is_counted_and_harms_nobody() {
    let (mut relay, member) = (End::new(1), End::new(2));
    let at = relay.listen();
    let before = relay.dropped(DropReason::StreamRefused);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 5000], b"\x16\x03\x01\xff\xff", &[0x80; 3]] {
        let mut stream = StdStream::connect(at).unwrap();
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    eventually(|| relay.dropped(DropReason::StreamRefused) >= before + 4);
    opened(member.open(at, 1));
}

/// A TLS connection to a relay, over which anything can be said.
fn connection(end: &End, at: SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
    let config = certificate::client_config(key(1).verifying_key()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    end.runtime.block_on(async {
        let name = rustls::pki_types::ServerName::IpAddress(at.ip().into());
        connector.connect(name, TcpStream::connect(at).await.unwrap()).await.unwrap()
    })
}

#[test]
fn a_length_that_no_datagram_has_ends_the_link() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut relay = End::new(1);
    let at = relay.listen();
    for (length, count) in [([0, 0], 1), ([0xff, 0xff], 2)] {
        let mut stream = connection(&relay, at);
        let ended = relay.runtime.block_on(async {
            stream.write_all(&[&[2, 0, 7, 7], &length[..]].concat()).await.unwrap();
            tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await
        });
        assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
        eventually(|| relay.dropped(DropReason::MalformedStream) == count);
    }
}

#[test]
fn a_stranger_s_bytes_are_few_until_something_of_a_session_came() {
    use tokio::io::AsyncWriteExt;
    let mut relay = End::new(1);
    let at = relay.listen();
    let mut stream = connection(&relay, at);
    // Datagrams of one byte, in a few records: many each.
    let sent = 4 * connection::STRANGER_BYTES / 3;
    let writer = relay.runtime.spawn(async move {
        stream.write_all(&[1, 0, 7].repeat(sent)).await.unwrap();
        stream.flush().await.unwrap();
        stream
    });
    let (mut came, mut from) = (0, None);
    let mut take_all = |relay: &mut End, enough: usize| {
        while came < enough {
            let mut batch = Vec::new();
            relay.receiver.receive_batch(&StopSignal::new().unwrap(), &mut batch).unwrap();
            assert!(batch.iter().all(|row| (1..=connection::ROW_DATAGRAMS).contains(&row.datagrams.len())));
            from = Some(batch[0].remote);
            came += batch.iter().map(|row| row.datagrams.len()).sum::<usize>();
        }
        (came, from)
    };
    let few = connection::STRANGER_BYTES / 3;
    let (came, from) = take_all(&mut relay, few);
    assert_eq!(came, few);
    thread::sleep(Duration::from_millis(300));
    assert!(relay.receiver.received.try_recv().is_err(), "no more of a stranger's");
    relay.links.vouch(&from.unwrap());
    assert_eq!(take_all(&mut relay, sent).0, sent);
    relay.runtime.block_on(writer).unwrap();
}

#[test]
fn a_stranger_s_link_ends_in_its_time_however_much_it_sends() {
    use tokio::io::AsyncWriteExt;
    let mut relay = End::new(1);
    let at = relay.listen();
    let mut stream = connection(&relay, at);
    eventually(|| relay.dropped(DropReason::StreamRefused) == 1);
    let began = Instant::now();
    let writer = relay.runtime.spawn(async move { while stream.write_all(&[1, 0, 7].repeat(1000)).await.is_ok() {} });
    let waited = relay.runtime.block_on(async { tokio::time::timeout(connection::UNCONFIRMED * 2, writer).await });
    assert!(waited.is_ok(), "it lives on");
    assert!(began.elapsed() > connection::UNCONFIRMED / 2, "{:?}", began.elapsed());
    eventually(|| relay.dropped(DropReason::StreamRefused) == 2);
}

#[test]
fn the_end_of_a_link_is_told_before_there_can_be_another_to_the_same_place() {
    let (mut relay, member) = (End::new(1), End::new(2));
    let at = relay.listen();
    for _ in 0..20 {
        let path = opened(member.open(at, 1));
        member.orders.close(path);
        // Asked for at once, while the old one ends: there is one or none, and what is told of the old one comes first.
        member.orders.open(OpenOrder { relay: RELAY, key: key(1).verifying_key(), endpoints: vec![at] });
        let told = [(); 2].map(|()| member.events.recv_timeout(PATIENCE).unwrap());
        let (closed, failed) = (TlsEvent::Closed { path }, TlsEvent::Failed { relay: RELAY });
        match told {
            [first, TlsEvent::Opened { .. }] if first == closed => {
                member.orders.close(path);
                assert_eq!(member.events.recv_timeout(PATIENCE), Ok(closed));
            }
            _ => assert!(told == [closed, failed] || told == [failed, closed], "{told:?}"),
        }
        eventually(|| member.links.0.links.get(&at).is_none());
    }
}

#[test]
fn half_open_connections_of_one_address_are_few_and_end_soon() {
    let mut relay = End::new(1);
    let at = relay.listen();
    let before = relay.dropped(DropReason::StreamRefused);
    let began = Instant::now();
    let silent: Vec<_> = (0..3 * server::MAX_OF_SOURCE).map(|_| StdStream::connect(at).unwrap()).collect();
    let refused = 2 * server::MAX_OF_SOURCE as u64;
    eventually(|| relay.dropped(DropReason::StreamRefused) >= before + refused);
    assert!(began.elapsed() < Duration::from_secs(4), "at once: {:?}", began.elapsed());
    // TLS's own handshake has five seconds.
    eventually(|| relay.dropped(DropReason::StreamRefused) >= before + silent.len() as u64);
    let member = End::new(2);
    opened(member.open(at, 1));
}

#[test]
fn who_reads_nothing_keeps_nobody_from_sending_and_its_queue_is_bounded() {
    use tokio::io::AsyncWriteExt;
    let mut relay = End::new(1);
    let at = relay.listen();
    let mut lazy = connection(&relay, at);
    relay.runtime.block_on(async {
        lazy.write_all(&[3, 0, 1, 2, 3]).await.unwrap();
        lazy.flush().await.unwrap();
    });
    let (from, _) = relay.receive();
    let begun = Instant::now();
    for _ in 0..20_000 {
        assert_eq!(relay.send(links::stream_path(from), &[7; 1400]), None);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(relay.dropped(DropReason::StreamQueueFull) > 10_000);
    // Somebody else's link is none the worse.
    let mut member = End::new(2);
    let path = opened(member.open(at, 1));
    member.send(path, b"hello");
    let (from, _) = relay.receive();
    relay.send(links::stream_path(from), b"answer");
    assert_eq!(member.receive().1, [b"answer"]);
}

/// A proxy of one connection that says this once it was asked. Returns where it is, and what it is asked.
fn proxy(says: impl FnOnce(&mut StdStream) + Send + 'static) -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let asked = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut request, mut byte) = (Vec::new(), [0]);
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
            request.extend(byte);
        }
        says(&mut stream);
        String::from_utf8(request).unwrap()
    });
    (at, asked)
}

#[test]
fn a_proxy_passes_a_link_on() {
    let (mut relay, mut member) = (End::new(1), End::new(2));
    let at = relay.listen();
    let (proxy, asked) = proxy(move |stream| {
        let mut through = StdStream::connect(at).unwrap();
        stream.write_all(b"HTTP/1.1 200 fine\r\nVia: us\r\n\r\n").unwrap();
        let (mut from, mut to) = (stream.try_clone().unwrap(), through.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from, &mut to));
        let mut stream = stream.try_clone().unwrap();
        thread::spawn(move || std::io::copy(&mut through, &mut stream));
    });
    member.orders.set_proxy(Some(format!("http://ann:secret@{proxy}").parse().unwrap()));
    let path = opened(member.open(at, 1));
    assert_eq!(path.remote, at, "a link is known by the relay's address");
    assert!(asked.join().unwrap().starts_with(&format!("CONNECT {at} HTTP/1.1\r\n")));
    member.send(path, b"through");
    let (from, came) = relay.receive();
    assert_eq!(came, [b"through"]);
    relay.send(links::stream_path(from), b"back");
    assert_eq!(member.receive().1, [b"back"]);
}

#[test]
fn a_proxy_that_refuses_or_talks_nonsense_is_given_up() {
    let member = End::new(2);
    for says in [
        &b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 fine\r\n",
        b"",
    ] {
        let (proxy, asked) = proxy(move |stream| drop(stream.write_all(says)));
        member.orders.set_proxy(Some(format!("http://{proxy}").parse().unwrap()));
        assert_eq!(member.open(([192, 0, 2, 1], 443).into(), 1), TlsEvent::Failed { relay: RELAY }, "{says:?}");
        asked.join().unwrap();
    }
}

#[test]
fn a_proxy_whose_headers_never_end_is_given_up_soon() {
    let member = End::new(2);
    let (proxy, asked) = proxy(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 fine\r\n");
        while stream.write_all(b"X-More: and more of it\r\n").is_ok() {}
    });
    member.orders.set_proxy(Some(format!("http://{proxy}").parse().unwrap()));
    assert_eq!(member.open(([192, 0, 2, 1], 443).into(), 1), TlsEvent::Failed { relay: RELAY });
    asked.join().unwrap();
}

#[test]
fn an_address_of_a_proxy_that_is_silent_leaves_time_for_the_next() {
    let member = End::new(2);
    // A queue that is full: the kernel answers nobody.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let silent = full.local_addr().unwrap().as_socket().unwrap();
    let _first = StdStream::connect(silent).unwrap();
    let there = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = there.local_addr().unwrap();
    let reached = member.runtime.block_on(async {
        let reached = client::reach_any([silent, at].into_iter(), 0);
        tokio::time::timeout(Duration::from_secs(4), reached).await
    });
    assert_eq!(reached.expect("in time").unwrap().peer_addr().unwrap(), at);
}

#[test]
fn a_receiver_that_cannot_wait_says_so_unless_it_is_stopped() {
    let End { mut receiver, runtime, links: _links, orders: _orders, .. } = End::new(1);
    runtime.shutdown_timeout(PATIENCE);
    let stop = StopSignal::new().unwrap();
    let end = receiver.receive_batch(&stop, &mut Vec::new());
    assert!(matches!(end, Err(ReceiveEnd::Failed(_))), "{end:?}");
    stop.trigger();
    assert!(matches!(receiver.receive_batch(&stop, &mut Vec::new()), Err(ReceiveEnd::Stopped)));
}

#[test]
fn a_receiver_ends_when_it_is_stopped() {
    let End { mut receiver, runtime: _runtime, links: _links, orders: _orders, .. } = End::new(1);
    let stop = StopSignal::new().unwrap();
    let waiting = thread::spawn({
        let stop = stop.clone();
        move || receiver.receive_batch(&stop, &mut Vec::new()).is_err()
    });
    thread::sleep(Duration::from_millis(50));
    stop.trigger();
    assert!(waiting.join().unwrap());
}
