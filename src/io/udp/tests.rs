//! Sockets on the loopback interface; those on real links are in `tests/netns`.

use super::*;
use crate::io::StopSignal;
use crate::io::batch::{DatagramBatch, DatagramShape, SendBatch, Train};
use crate::node::forward::Outbox;
use crate::path::{LocalEnd, Path};
use crate::wire::datagram::{TYPE_RELAY, TYPE_TRANSPORT};
use crate::wire::ecn::Ecn;
use std::thread;
use std::time::Duration;

mod spares;

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn bind_loopback() -> UdpSockets {
    bind(&Listen::Exactly(vec![loopback(0)]), 1).unwrap()
}

/// One datagram.
fn train(bytes: std::ops::Range<usize>, path: Path) -> Train {
    Train { datagram_len: bytes.len(), bytes, path, ecn: Ecn::NotCapable, hop_limit: None }
}

/// Receives until `count` datagrams arrived whole.
fn receive(receiver: &mut UdpReceiver, shape: DatagramShape, count: usize) -> Vec<(Path, Vec<u8>)> {
    let (stop, mut batch, mut received) = (StopSignal::new().unwrap(), DatagramBatch::new(shape), Vec::new());
    // What does not come within this time is a failure, not a hanging test.
    let late = stop.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(20));
        late.trigger();
    });
    while received.len() < count {
        receiver.receive_batch(&stop, &mut batch).unwrap();
        received.extend(batch.datagrams().map(|datagram| (datagram.arrival.path, datagram.payload.to_vec())));
    }
    received
}

#[test]
fn datagrams_of_every_extreme_length_arrive_with_their_sender() {
    let (left, mut right) = (bind_loopback(), bind_loopback());
    let from = left.receivers[0].local_address();
    let to = right.receivers[0].local_address();
    let whole = DatagramShape { count: 4, capacity: 65_536 };
    for length in [0, 1, 1_472, 65_507] {
        let datagram = vec![0xA5; length];
        left.sender.send(to.into(), &datagram).unwrap();
        let local = Some(LocalEnd { socket: 0, address: None });
        assert_eq!(receive(&mut right.receivers[0], whole, 1), [(Path { local, ..from.into() }, datagram)]);
    }
    assert_eq!((left.sender.counts().sent, right.sender.counts().received), (4, 4));
}

#[test]
fn a_batch_longer_than_a_call_arrives_whole_and_in_order() {
    let (left, mut right) = (bind_loopback(), bind_loopback());
    let to = right.receivers[0].local_address();
    let memory: Vec<u8> = (0..100).collect();
    let batch: Vec<_> = (0..100).map(|index| train(index..100, to.into())).collect();
    left.sender.send_each(&memory, &batch, |_, _, error| panic!("{error}"));
    for (index, (_, payload)) in receive(&mut right.receivers[0], DatagramShape::default(), 100).iter().enumerate() {
        assert_eq!(payload, &memory[index..]);
    }
}

#[test]
fn a_batch_tells_whether_the_socket_had_nothing_before_it() {
    let (left, mut right) = (bind_loopback(), bind_loopback());
    let to = Path::from(right.receivers[0].local_address());
    let (stop, mut batch) = (StopSignal::new().unwrap(), DatagramBatch::new(DatagramShape { count: 2, capacity: 100 }));
    for _ in 0..2 {
        (0..4u8).for_each(|number| left.sender.send(to, &[number]).unwrap());
        // Both take what is there already.
        for _ in 0..2 {
            right.receivers[0].receive_batch(&stop, &mut batch).unwrap();
            assert!(!batch.is_after_silence());
        }
        let sender = left.sender.clone();
        let late = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            sender.send(to, b"late").unwrap();
        });
        right.receivers[0].receive_batch(&stop, &mut batch).unwrap();
        assert!(batch.is_after_silence());
        late.join().unwrap();
    }
}

#[test]
fn a_datagram_longer_than_the_slot_is_dropped_counted_and_in_nobodys_way() {
    let (left, mut right) = (bind_loopback(), bind_loopback());
    let to = right.receivers[0].local_address();
    for datagram in [&[1; 100][..], &[2; 101], &[3; 60_000], &[4; 99]] {
        left.sender.send(to.into(), datagram).unwrap();
    }
    let received = receive(&mut right.receivers[0], DatagramShape { count: 4, capacity: 100 }, 2);
    assert_eq!(received.iter().map(|(_, payload)| payload[0]).collect::<Vec<_>>(), [1, 4]);
    let counts = right.sender.counts();
    assert_eq!((counts.received, counts.received_truncated), (2, 2));
}

#[test]
fn a_train_leaves_at_once_and_arrives_at_once_or_one_by_one() {
    let (left, mut right) = (bind_loopback(), bind_loopback());
    let to = right.receivers[0].local_address();
    for is_forgone in [false, true] {
        if is_forgone {
            left.sender.handle_singly();
            right.sender.handle_singly();
        }
        let mut batch = SendBatch::default();
        for number in 0..45u8 {
            let len = if number == 44 { 700 } else { 1440 };
            batch.room(len).unwrap().fill(number);
            batch.push(len, to.into(), Ecn::NotCapable);
        }
        left.sender.send_each(batch.memory(), batch.trains(), |_, _, error| panic!("{error}"));
        let received = receive(&mut right.receivers[0], DatagramShape::default(), 45);
        let seen: Vec<_> = received.iter().map(|(_, payload)| (payload.len(), payload[0])).collect();
        assert_eq!(seen, (0..45).map(|number| (if number == 44 { 700 } else { 1440 }, number)).collect::<Vec<_>>());
    }
    let counts = left.sender.counts();
    assert_eq!((counts.sent, counts.sent_singly, right.sender.counts().received), (90, 0, 90), "it was a choice");
}

#[test]
fn a_mark_leaves_with_a_train_and_arrives_with_each_datagram() {
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let bind_there = || bind(&Listen::Exactly(vec![host.parse().unwrap()]), 1).unwrap();
        let (left, mut right) = (bind_there(), bind_there());
        let path = Path::from(right.receivers[0].local_address());
        let marks = [Ecn::Capable0, Ecn::NotCapable, Ecn::Congested, Ecn::Capable1];
        for (number, ecn) in marks.into_iter().enumerate() {
            let train = Train { bytes: 0..2400, datagram_len: 1200, path, ecn, hop_limit: None };
            left.sender.send_each(&[number as u8; 2400], &[train], |_, _, error| panic!("{error}"));
        }
        let (stop, mut batch) = (StopSignal::new().unwrap(), DatagramBatch::new(DatagramShape::default()));
        let mut seen = Vec::new();
        while seen.len() < 8 {
            right.receivers[0].receive_batch(&stop, &mut batch).unwrap();
            seen.extend(batch.datagrams().map(|datagram| (datagram.payload[0], datagram.arrival.ecn)));
        }
        let expected: Vec<_> =
            marks.into_iter().enumerate().flat_map(|(number, ecn)| [(number as u8, ecn); 2]).collect();
        assert_eq!(seen, expected, "{host}");
    }
}

#[test]
fn a_datagram_comes_to_the_queue_of_its_lane_and_all_others_to_the_first() {
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let left = bind(&Listen::Exactly(vec![host.parse().unwrap()]), 1).unwrap();
        let mut right = bind(&Listen::Exactly(vec![host.parse().unwrap()]), 3).unwrap();
        assert_eq!(right.receivers.iter().map(UdpReceiver::queue).collect::<Vec<_>>(), [0, 1, 2]);
        let to = Path::from(right.sender.local_addresses()[0]);
        // Workers 0 to 15 in turn, then what is not a transport packet, though its second byte looks like a lane.
        let lane = |worker: u8| vec![TYPE_TRANSPORT, worker << 4 | 3, 0, 0, worker];
        let sent: Vec<_> = (0..16).map(lane).chain([vec![1, 0x10, 0, 0, 99], vec![4, 0x20, 0, 0, 99]]).collect();
        let relayed = |inside: &[u8]| [&[TYPE_RELAY, 4, 0, 0, 1, 2, 3, 4], inside].concat();
        let relayed: Vec<_> = (0..16).map(|worker| relayed(&lane(worker))).chain([relayed(&[1, 0x20, 99])]).collect();
        let sent: Vec<_> = sent.into_iter().chain(relayed).collect();
        sent.iter().for_each(|datagram| left.sender.send(to, datagram).unwrap());
        for (queue, receiver) in right.receivers.iter_mut().enumerate() {
            let expected: Vec<_> = sent
                .iter()
                .filter(|datagram| match datagram[..] {
                    [TYPE_TRANSPORT, lane, ..] | [TYPE_RELAY, _, _, _, _, _, _, _, TYPE_TRANSPORT, lane, ..] => {
                        (usize::from(lane >> 4) + 2) % 3 == queue
                    }
                    _ => queue == 0,
                })
                .cloned()
                .collect();
            let received = receive(receiver, DatagramShape::default(), expected.len());
            assert_eq!(
                received.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(),
                expected,
                "{host} {queue}"
            );
        }
        // Every queue sends from the same address.
        for queue in 0..3 {
            right.sender.by_queue(queue).send(Path::from(left.sender.local_addresses()[0]), b"back").unwrap();
        }
        assert!(
            matches!(bind(&Listen::Exactly(vec![to.remote]), 3), Err(BindError::InUse { .. })),
            "shared with another"
        );
    }
}

#[test]
fn a_train_that_the_kernel_cannot_cut_is_sent_one_by_one_and_soon_all_are() {
    let left = bind(&Listen::Exactly(vec![loopback(0)]), 1).unwrap();
    let mut right = bind_loopback();
    // The kernel computes no checksums for a socket that wants none, and refuses to cut what it sends.
    set_option(&left.sender.shared.sockets[0].queues[0].fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    let path = Path::from(right.receivers[0].local_address());
    for round in 0..5u64 {
        let train = Train { bytes: 0..2500, datagram_len: 1000, path, ecn: Ecn::NotCapable, hop_limit: None };
        left.sender.send_each(&[7; 2500], &[train], |_, _, error| panic!("{error}"));
        assert_eq!(receive(&mut right.receivers[0], DatagramShape::default(), 3).len(), 3);
        assert_eq!(left.sender.counts().sent_singly, 3 * (round + 1));
    }
    assert!(!left.sender.shared.trains.takes(&path));
}

#[test]
fn what_the_kernel_refuses_is_named_and_the_rest_of_the_batch_goes() {
    let (left, mut right) = (bind_loopback(), bind_loopback());
    let to = right.receivers[0].local_address();
    let outgoing = |bytes, remote: SocketAddr, socket: Option<u8>| {
        let local = socket.map(|socket| LocalEnd { socket, address: None });
        train(bytes, Path { local, ..remote.into() })
    };
    let batch = [
        outgoing(0..1, to, None),
        outgoing(0..65_508, to, None),
        outgoing(0..2, "[::1]:9".parse().unwrap(), None),
        outgoing(0..3, to, Some(7)),
        outgoing(0..4, loopback(0), None),
        outgoing(0..5, to, Some(0)),
    ];
    let mut dropped = Vec::new();
    left.sender.send_each(&vec![0; 65_508], &batch, |index, count, error| dropped.push((index, count, error)));
    assert_eq!(
        dropped,
        [
            (1, 1, SendError::TooLong),
            (2, 1, SendError::NoSocket),
            (3, 1, SendError::NoSocket),
            (4, 1, SendError::Refused(libc::EINVAL))
        ]
    );
    let received = receive(&mut right.receivers[0], DatagramShape::default(), 2);
    assert_eq!(received.iter().map(|(_, payload)| payload.len()).collect::<Vec<_>>(), [1, 5]);
    let counts = left.sender.counts();
    assert_eq!((counts.sent, counts.send_too_long, counts.send_no_socket, counts.send_refused), (2, 1, 2, 1));
}

#[test]
fn an_answer_leaves_from_where_the_question_came_to() {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let (mut asker, mut host) =
        (bind_loopback(), bind(&Listen::Exactly(vec![loopback(0), everywhere, everywhere]), 1).unwrap());
    for (socket, last) in [(1, 2), (2, 2), (1, 3)] {
        let port = host.receivers[socket].local_address().port();
        let asked = SocketAddr::from(([127, 0, 0, last], port));
        asker.sender.send(asked.into(), b"question").unwrap();
        let question = receive(&mut host.receivers[socket], DatagramShape::default(), 1);
        host.sender.send(question[0].0, b"answer").unwrap();
        let answer = receive(&mut asker.receivers[0], DatagramShape::default(), 1);
        assert_eq!((answer[0].0.remote, &answer[0].1[..]), (asked, &b"answer"[..]));
    }
    assert_eq!(host.sender.counts().sent_from_elsewhere, 0);
}

#[test]
fn an_address_that_the_host_lost_is_replaced_and_counted() {
    let mut right = bind_loopback();
    let left = bind(&Listen::Exactly(vec![SocketAddr::from(([0, 0, 0, 0], 0))]), 1).unwrap();
    let by = |address: Option<[u8; 4]>| Path {
        local: Some(LocalEnd { socket: 0, address: address.map(IpAddr::from) }),
        ..right.receivers[0].local_address().into()
    };
    let paths = [None, Some([192, 0, 2, 1]), Some([127, 0, 0, 9]), Some([192, 0, 2, 1])].map(by);
    let batch: Vec<_> = paths.iter().map(|path| train(0..4, *path)).collect();
    left.sender.send_each(b"here", &batch, |_, _, error| panic!("{error}"));
    let received = receive(&mut right.receivers[0], DatagramShape::default(), 4);
    let sources: Vec<_> = received.iter().map(|(path, _)| path.remote.ip().to_string()).collect();
    assert_eq!(sources, ["127.0.0.1", "127.0.0.1", "127.0.0.9", "127.0.0.1"]);
    assert_eq!((left.sender.counts().sent, left.sender.counts().sent_from_elsewhere), (4, 2));
}

#[test]
fn nobody_listening_ends_no_loop() {
    let (left, mut right) = (bind_loopback(), bind_loopback());
    let closed = bind_loopback().receivers[0].local_address();
    let to = right.receivers[0].local_address();
    for _ in 0..10 {
        left.sender.send(closed.into(), b"nobody").unwrap();
        left.sender.send(to.into(), b"somebody").unwrap();
    }
    assert_eq!(receive(&mut right.receivers[0], DatagramShape::default(), 10).len(), 10);
}

#[test]
fn a_port_in_use_is_an_error_when_asked_for_and_avoided_when_preferred() {
    let taken = bind(&Listen::Exactly(vec![SocketAddr::from(([0, 0, 0, 0], 0))]), 1).unwrap();
    let address = taken.receivers[0].local_address();
    let Err(error) = bind(&Listen::Exactly(vec![address]), 1) else { panic!("bound twice") };
    assert!(matches!(error, BindError::InUse { address: named } if named == address), "{error}");
    assert!(error.to_string().contains(&address.to_string()));
    let chosen = bind(&Listen::Preferred(address.port()), 1).unwrap().sender.local_addresses();
    assert!(!chosen.is_empty() && chosen.iter().all(|it| it.port() == chosen[0].port() && it.port() != address.port()));
}

#[test]
fn an_address_of_another_host_is_named() {
    let address = SocketAddr::from(([192, 0, 2, 1], 0));
    assert!(
        matches!(bind(&Listen::Exactly(vec![address]), 1), Err(BindError::NotLocal { address: named }) if named == address)
    );
    assert!(matches!(bind(&Listen::Exactly(Vec::new()), 1), Err(BindError::Count { count: 0 })));
    assert!(matches!(bind(&Listen::Exactly(vec![loopback(0); 9]), 1), Err(BindError::Count { count: 9 })));
}

#[test]
fn what_overruns_the_queue_is_counted() {
    let (left, mut right) = (bind_loopback(), bind_loopback());
    let to = right.receivers[0].local_address();
    // 32 MiB into a queue of at most 8 (the kernel doubles what is asked for).
    for _ in 0..512 {
        left.sender.send(to.into(), &[0; 65_507]).unwrap();
    }
    let lost = right.sender.counts().receive_overflow;
    assert!((1..512).contains(&lost), "{lost}");
    let whole = DatagramShape { count: 4, capacity: 65_536 };
    assert_eq!(receive(&mut right.receivers[0], whole, 512 - lost as usize).len(), 512 - lost as usize);
}

#[test]
fn a_stop_ends_a_waiting_receiver() {
    let (mut sockets, stop) = (bind_loopback(), StopSignal::new().unwrap());
    let mut receiver = sockets.receivers.remove(0);
    let waiting = thread::spawn({
        let stop = stop.clone();
        move || receiver.receive_batch(&stop, &mut DatagramBatch::new(DatagramShape::default()))
    });
    stop.trigger();
    assert!(matches!(waiting.join().unwrap(), Err(ReceiveEnd::Stopped)));
}

#[test]
fn every_socket_forbids_fragments_and_takes_its_own_family_alone() {
    for bound in bind_everywhere(0).unwrap() {
        let probe = match bound.local {
            SocketAddr::V4(_) => option(&bound, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
            SocketAddr::V6(_) => {
                assert_eq!(option(&bound, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY), 1);
                option(&bound, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
            }
        };
        assert_eq!(probe, libc::IP_PMTUDISC_PROBE);
        assert!(option(&bound, libc::SOL_SOCKET, libc::SO_RCVBUF) >= 212_992);
    }
}

fn option(bound: &Bound, level: libc::c_int, name: libc::c_int) -> libc::c_int {
    let (mut value, mut length): (libc::c_int, _) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: both pointers are writable, and the length is that of the value.
    let outcome = unsafe {
        libc::getsockopt(bound.queues[0].fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length)
    };
    assert_eq!(outcome, 0);
    value
}
