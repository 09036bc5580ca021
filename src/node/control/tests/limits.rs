//! What peers may do, and how much of it.

use super::*;
use crate::node::control::table::CONNECTIONS_PER_SERVICE;

#[test]
fn a_peer_that_does_not_read_fills_its_own_budget_only() {
    let mut net = Net::new(8, 3, Faults::default());
    net.deaf.insert(1);
    let mut taken: Vec<Vec<u8>> = Vec::new();
    for round in 0..400 {
        let message = message(round, 64 << 10);
        match net.send(0, 1, Service::Sync, message.clone()) {
            Ok(()) => taken.push(message),
            Err(error) => assert_eq!(error, SendError::PeerFull),
        }
        net.run(Duration::from_millis(50));
    }
    let bytes = taken.len() << 16;
    assert!((2 * MEMBER_BUFFER - (256 << 10)..=2 * MEMBER_BUFFER + (256 << 10)).contains(&bytes), "{bytes} bytes wait");
    assert_eq!(net.links[0].counters().messages[&SendError::PeerFull], 400 - taken.len() as u64);
    // Others are served meanwhile, and the rest arrives once it reads.
    net.send(0, 2, Service::Sync, message(9, MAX_MESSAGE_LEN)).unwrap();
    net.run_until_delivered(2, 1, Duration::from_secs(2));
    net.deaf.clear();
    net.run_until_delivered(1, taken.len(), Duration::from_secs(4));
    assert!(net.delivered[1].iter().map(|(_, _, message)| message).eq(&taken));
    assert!(net.links.iter().all(|link| link.accounts == Accounts::default()));
}

#[test]
fn reading_goes_on_as_soon_as_there_is_memory_for_it() {
    let mut net = Net::new(20, 2, Faults::default());
    net.deaf.insert(1);
    while net.send(0, 1, Service::Sync, message(1, 10_000)).is_ok() {
        net.run(Duration::from_millis(5));
    }
    let link = &mut net.links[1];
    assert!(!link.blocked.is_empty());
    let mut bytes = 0;
    while let Some((_, _, message)) = link.poll_message() {
        bytes += message.len();
    }
    assert!(bytes > MEMBER_BUFFER, "{bytes} bytes: what the socket held came without another packet");
}

#[test]
fn a_peer_that_never_reads_is_given_up() {
    let mut net = Net::new(9, 2, Faults::default());
    net.deaf.insert(1);
    while net.send(0, 1, Service::Sync, message(1, 64 << 10)).is_ok() {
        net.run(Duration::from_millis(100));
    }
    net.run(Duration::from_secs(200));
    assert!(
        matches!(net.events[0][..], [LinkEvent::Broken { reason: BrokenReason::Stalled, .. }]),
        "{:?}",
        net.events[0]
    );
    assert_eq!(net.links[0].accounts, Accounts::default());
}

#[test]
fn after_close_peer_nothing_of_it_remains() {
    for millis in [0, 5, 30, 70, 150, 400, 3_000] {
        let mut net = Net::new(10, 3, Faults { loss_percent: 5, duplicate_percent: 5, jitter: LATENCY });
        net.deaf.insert(0);
        for service in [Service::Sync, Service::Consensus] {
            for _ in 0..2 {
                net.send(0, 1, service, message(1, MAX_MESSAGE_LEN - 1000)).unwrap_or(());
                net.send(1, 0, service, message(2, MAX_MESSAGE_LEN - 1000)).unwrap_or(());
            }
        }
        net.send(0, 2, Service::Gossip, message(3, 1000)).unwrap();
        net.run(Duration::from_millis(millis));
        net.links[0].send(net.now, id(1), Service::Call, message(3, 1000)).unwrap();
        net.links[0].close_peer(id(1));
        assert_forgotten(&net.links[0], id(1));
        net.run(Duration::from_secs(2));
        assert_forgotten(&net.links[0], id(1));
        assert_eq!(net.send(0, 1, Service::Sync, vec![1]), Err(SendError::NotAttached));
        assert_eq!(net.delivered[2].len(), 1, "the other peer is untouched");
        if millis >= 5 {
            assert!(refused(&net.links[0], LinkError::NotAttached) > 0);
        }
        net.links[0].close_peer(id(2));
        assert_forgotten(&net.links[0], id(2));
    }
}

#[test]
fn a_guest_that_restarts_again_and_again_finds_its_place_free_of_what_it_left_behind() {
    let mut net = Net::new(19, 2, Faults::default());
    net.links[0].attach(id(1), Rights::Guest).unwrap();
    for run in 0..10 {
        net.now = net.now + Duration::from_secs(1);
        let link = &mut net.links[0];
        for (number, service) in [Service::Sync, Service::Join].into_iter().enumerate() {
            let port = 50_000 + 2 * run + number as u16;
            let syn = packet(id(1), id(0), (port, service.port()), |_| ());
            assert_eq!(link.handle_packet(net.now, id(1), &syn), Ok(()), "run {run}");
            // What this node has to say to it waits for the answer of a run that is over.
            link.send(net.now, id(1), service, message(1, 100)).unwrap();
        }
        assert!(link.connection_count() <= SOCKETS_PER_GUEST);
    }
}

#[test]
fn what_waits_for_a_closed_peer_goes_with_it() {
    let mut net = Net::new(18, 2, Faults::default());
    net.send(0, 1, Service::Sync, message(1, 1000)).unwrap();
    net.run(Duration::from_secs(1));
    net.send(0, 1, Service::Gossip, message(2, 1000)).unwrap();
    net.send(0, 1, Service::Sync, message(3, 1000)).unwrap();
    while net.links[0].poll_transmit().is_some() {}
    let link = &mut net.links[0];
    link.handle_timeout(net.now + Duration::from_secs(1));
    link.handle_timeout(net.now + Duration::from_secs(15));
    let stray = packet(id(1), id(0), (FIRST_PORT, 1), |tcp| tcp.control = TcpControl::None);
    link.handle_packet(net.now, id(1), &stray).unwrap_err();
    assert!(!link.resent.is_empty() && !link.events.is_empty() && link.device.iter().count() > 0);
    link.close_peer(id(1));
    assert_forgotten(link, id(1));
    assert_eq!(link.poll_transmit(), None);
}

#[test]
fn a_lower_standing_ends_what_it_does_not_allow() {
    let mut net = Net::new(11, 2, Faults::default());
    net.deaf.insert(0);
    for service in [Service::Sync, Service::Consensus, Service::Gossip] {
        net.send(1, 0, service, message(1, 1000)).unwrap();
    }
    net.run(Duration::from_secs(1));
    net.links[0].attach(id(1), Rights::Consensus(NodeId([2; 32]))).unwrap();
    net.deaf.clear();
    net.run(Duration::from_secs(1));
    let services: Vec<Service> = net.delivered[0].iter().map(|(_, service, _)| *service).collect();
    assert_eq!(services, [Service::Sync, Service::Consensus]);
    let broken =
        LinkEvent::Broken { peer: id(1), service: Service::Gossip, reason: BrokenReason::NotAllowed, unsent: 0 };
    assert_eq!(net.events[0], [broken]);
    // The peer does not know of it yet, and tries again in vain.
    net.send(1, 0, Service::Gossip, message(2, 1000)).unwrap();
    net.send(1, 0, Service::Sync, message(3, 1000)).unwrap();
    net.run(Duration::from_secs(3));
    assert_eq!(refused(&net.links[0], LinkError::NotAllowed), 1);
    assert_eq!(net.delivered[0].len(), 3);
    assert_eq!(net.send(0, 1, Service::Gossip, vec![1]), Err(SendError::NotAllowed));
    assert_eq!(net.events[1].len(), 2, "{:?}", net.events[1]);
}

#[test]
fn a_guest_joins_and_syncs_at_its_pace() {
    let mut net = Net::new(12, 2, Faults::default());
    net.links[0].attach(id(1), Rights::Guest).unwrap();
    net.links[1].attach(id(0), Standing::Host).unwrap();
    net.send(1, 0, Service::Join, message(1, 2000)).unwrap();
    net.send(1, 0, Service::Sync, message(2, 100)).unwrap();
    net.run_until_delivered(0, 2, Duration::from_secs(1));
    net.send(0, 1, Service::Sync, message(3, MAX_MESSAGE_LEN)).unwrap();
    let took = net.run_until_delivered(1, 1, Duration::from_secs(6));
    let least = Duration::from_secs((MAX_MESSAGE_LEN as u64 - GUEST_BURST) / GUEST_RATE);
    assert!(took >= least, "{took:?}");
    assert_eq!(net.send(1, 0, Service::Gossip, vec![1]), Err(SendError::NotAllowed));
    // It tells no long stories.
    net.send(1, 0, Service::Sync, message(4, 100 << 10)).unwrap();
    net.run(Duration::from_secs(1));
    assert!(matches!(net.events[0][..], [LinkEvent::Broken { reason: BrokenReason::MessageLength, .. }]));
}

#[test]
fn a_guest_that_sends_too_fast_is_cut_to_its_rate() {
    let mut net = Net::new(13, 2, Faults::default());
    net.links[0].attach(id(1), Rights::Guest).unwrap();
    let flood = packet(id(1), id(0), (50_000, 2), |tcp| tcp.payload = &[7; 900]);
    let mut passed = 0;
    for _ in 0..20_000 {
        net.now = net.now + Duration::from_micros(500);
        passed += u64::from(net.links[0].handle_packet(net.now, id(1), &flood) != Err(LinkError::RateLimited));
        while net.links[0].poll_transmit().is_some() {}
    }
    let bytes = passed * flood.len() as u64;
    assert!(bytes <= 10 * GUEST_PACKET_RATE + GUEST_PACKET_BURST, "{bytes} bytes in 10 s");
    assert_eq!(refused(&net.links[0], LinkError::RateLimited), 20_000 - passed);
}

#[test]
fn there_are_as_many_guests_as_may_be() {
    let mut link = ControlLink::new(id(0), &mut ChaCha20Rng::seed_from_u64(1));
    for guest in 1..=MAX_GUESTS {
        link.attach(id(guest), Rights::Guest).unwrap();
    }
    assert_eq!(link.attach(id(100), Rights::Guest), Err(AttachError::GuestsFull));
    assert_eq!(link.attach(id(1), Rights::Guest), Ok(()));
    link.attach(id(101), member(101)).unwrap();
    // A member that loses its rights where there is no room for one more guest keeps nothing.
    assert_eq!(link.attach(id(101), Rights::Guest), Err(AttachError::GuestsFull));
    assert_forgotten(&link, id(101));
    assert_eq!(link.attach(id(0), member(0)), Err(AttachError::OwnAddress));
}

#[test]
fn a_message_of_a_forbidden_length_breaks_the_connection() {
    let mut net = Net::new(14, 2, Faults::default());
    assert_eq!(net.send(0, 1, Service::Call, message(1, (64 << 10) + 1)), Err(SendError::Length));
    assert_eq!(net.send(0, 1, Service::Sync, message(1, MAX_MESSAGE_LEN + 1)), Err(SendError::Length));
    assert_eq!(net.send(0, 1, Service::Sync, Vec::new()), Err(SendError::Length));
    for (round, forbidden) in [Vec::new(), message(1, (64 << 10) + 1)].into_iter().enumerate() {
        net.send(0, 1, Service::Call, vec![1]).unwrap();
        let now = net.now;
        // The sender's own check is passed by.
        let ControlLink { connections, peers, accounts, .. } = &mut net.links[0];
        connections.values_mut().for_each(|connection| connection.queue(now, forbidden.clone()));
        let account = &mut peers.get_mut(&id(1)).unwrap().account;
        accounts.reserve(account, Class::Member, Direction::Outbound, cost(forbidden.len())).unwrap();
        net.run(Duration::from_secs(2));
        assert_eq!(net.delivered[1].len(), round + 1, "what came before is good");
        assert_eq!(net.links[1].counters().broken[&BrokenReason::MessageLength], round as u64 + 1);
        assert_eq!(net.links.iter().map(ControlLink::connection_count).collect::<Vec<_>>(), [0, 0]);
        assert!(net.links.iter().all(|link| link.accounts == Accounts::default()));
    }
}

#[test]
fn packets_that_are_not_the_peers_are_refused_and_counted() {
    let mut net = Net::new(15, 3, Faults::default());
    let now = net.now;
    let link = &mut net.links[0];
    let syn = packet(id(1), id(0), (50_000, 1), |_| ());
    let mut udp = syn.clone();
    udp[6] = 17;
    let mut damaged = syn.clone();
    damaged[50] ^= 1;
    for (from, bytes, expected) in [
        (9, syn.clone(), LinkError::NotAttached),
        (2, syn.clone(), LinkError::SourceNotPeers),
        (1, packet(id(1), id(2), (50_000, 1), |_| ()), LinkError::DestinationNotOurs),
        (1, packet(id(1), id(0), (50_000, 9), |_| ()), LinkError::UnknownService),
        (1, packet(id(1), id(0), (1, 1), |_| ()), LinkError::UnknownService),
        (1, packet(id(1), id(0), (1, 50_000), |_| ()), LinkError::NoConnection),
        (1, packet(id(1), id(0), (50_000, 1), |tcp| tcp.ack_number = Some(TcpSeqNumber(1))), LinkError::NoConnection),
        (1, udp, LinkError::Malformed),
        (1, damaged, LinkError::Malformed),
        (1, [&syn[..], &[0]].concat(), LinkError::Malformed),
        (1, Vec::new(), LinkError::Malformed),
    ] {
        let before = refused(link, expected);
        assert_eq!(link.handle_packet(now, id(from), &bytes), Err(expected));
        assert_eq!((refused(link, expected), link.connection_count()), (before + 1, 0));
    }
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    for len in 0..2_000 {
        let mut bytes = vec![0; len];
        rng.fill_bytes(&mut bytes);
        assert_eq!(link.handle_packet(now, id(1), &bytes), Err(LinkError::Malformed));
    }
    assert_eq!(link.connection_count(), 0);
}

#[test]
fn a_service_that_a_peer_does_not_have_is_reset_and_one_that_it_is_about_to_have_waits() {
    let cases = [(Rights::Guest.into(), LinkError::NotAllowed, 1), (Standing::Host, LinkError::TooEarly, 0)];
    for (standing, expected, answers) in cases {
        let mut net = Net::new(18, 2, Faults::default());
        let (now, link) = (net.now, &mut net.links[0]);
        link.attach(id(1), standing).unwrap();
        let syn = packet(id(1), id(0), (50_000, Service::Gossip.port()), |_| ());
        assert_eq!(link.handle_packet(now, id(1), &syn), Err(expected));
        assert_eq!((refused(link, expected), link.connection_count()), (1, 0));
        assert_eq!(std::iter::from_fn(|| link.poll_transmit()).count(), answers);
        link.attach(id(1), member(1)).unwrap();
        assert_eq!(link.handle_packet(now, id(1), &syn), Ok(()), "asked again");
    }
}

#[test]
fn what_a_guest_began_goes_on_when_it_is_a_member() {
    let mut net = Net::new(19, 2, Faults::default());
    net.links[0].attach(id(1), Rights::Guest).unwrap();
    net.links[1].attach(id(0), Standing::Host).unwrap();
    net.send(1, 0, Service::Join, message(1, 2000)).unwrap();
    net.run_until_delivered(0, 1, Duration::from_secs(1));
    for (link, other) in [(0, 1), (1, 0)] {
        net.links[link].attach(id(other), member(other)).unwrap();
    }
    net.run(Duration::from_secs(100));
    for link in &net.links {
        let LinkCounters { packets, broken, .. } = link.counters();
        assert!(packets.is_empty() && broken.is_empty(), "{packets:?} {broken:?}");
        assert_eq!(link.connection_count(), 0, "it ended by itself");
    }
}

#[test]
fn a_flood_of_openings_takes_a_bounded_share() {
    let mut net = Net::new(16, 3, Faults::default());
    for round in 0..20_000u32 {
        let ports = (FIRST_PORT + (round % 16_000) as u16, Service::ALL[round as usize % 5].port());
        let syn = packet(id(1), id(0), ports, |_| ());
        let _ = net.links[0].handle_packet(net.now, id(1), &syn);
        net.now = net.now + Duration::from_micros(100);
        assert!(net.links[0].connection_count() <= Service::ALL.len() * CONNECTIONS_PER_SERVICE);
        if round % 100 == 0 {
            // Nobody answers: the flood comes from a machine without the other half.
            while net.links[0].poll_transmit().is_some() {}
        }
    }
    assert!(refused(&net.links[0], LinkError::TooManyOpenings) > 15_000);
    net.send(2, 0, Service::Sync, message(1, 1000)).unwrap();
    net.run_until_delivered(0, 1, Duration::from_secs(1));
    net.run(Duration::from_secs(60));
    assert_eq!(net.links[0].connections_of(id(1)).count(), 0);
}

#[test]
fn a_queue_that_nobody_drains_stops_growing() {
    let mut net = Net::new(17, 2, Faults::default());
    for round in 0..5_000u16 {
        let stray = packet(id(1), id(0), (FIRST_PORT + round, 1), |tcp| tcp.control = TcpControl::None);
        assert_eq!(net.links[0].handle_packet(net.now, id(1), &stray), Err(LinkError::NoConnection));
    }
    assert_eq!(net.links[0].device.iter().count(), 1024);
}

#[test]
fn when_all_sockets_are_taken_who_has_most_gives_way() {
    let mut link = ControlLink::new(id(0), &mut ChaCha20Rng::seed_from_u64(1));
    let now = Instant::from_micros(1);
    for peer in 1..=60 {
        link.attach(id(peer), member(peer)).unwrap();
    }
    for peer in 1..=59 {
        for (service, port) in [(1, 1), (1, 2), (3, 3), (3, 4), (4, 5), (4, 6), (5, 7), (5, 8)] {
            let syn = packet(id(peer), id(0), (FIRST_PORT + port, service), |_| ());
            let _ = link.handle_packet(now, id(peer), &syn);
            assert!(link.connection_count() <= MEMBER_SOCKETS);
        }
    }
    assert_eq!(link.connection_count(), MEMBER_SOCKETS);
    let syn = packet(id(60), id(0), (FIRST_PORT, 3), |_| ());
    assert_eq!(link.handle_packet(now, id(60), &syn), Ok(()));
    assert_eq!((link.connections_of(id(60)).count(), link.connection_count()), (1, MEMBER_SOCKETS));
    let least = (1..=59).map(|peer| link.connections_of(id(peer)).count()).min();
    assert!(least >= Some(5), "nobody is left without: {least:?}");
}

#[test]
fn mutated_segments_of_a_live_connection_never_panic() {
    for seed in 0..60 {
        let mut net = Net::new(seed, 2, Faults { loss_percent: 3, duplicate_percent: 3, jitter: LATENCY });
        for (from, to) in [(0, 1), (1, 0)] {
            net.send(from, to, Service::Sync, message(1, 60_000)).unwrap();
        }
        let end = net.now + Duration::from_secs(3);
        while net.step(end) {
            let Some(mut entry) = net.flying.last_entry() else { continue };
            let (from, to, bytes) = entry.get_mut();
            let (from, to) = (*from, *to);
            if net.rng.next_u32().is_multiple_of(4) && bytes.len() >= 60 {
                for _ in 0..1 + net.rng.next_u32() % 3 {
                    // Mostly the TCP header, where the states are.
                    let index = 40 + net.rng.next_u32() as usize % 24.min(bytes.len() - 40);
                    bytes[index] = match net.rng.next_u32() % 3 {
                        0 => net.rng.next_u32() as u8,
                        1 => bytes[index].wrapping_add(1),
                        _ => bytes[index] ^ 1 << (net.rng.next_u32() % 8),
                    };
                }
                let (source, destination) = (id(from).address().into(), id(to).address().into());
                TcpPacket::new_unchecked(&mut bytes[40..]).fill_checksum(&source, &destination);
            }
        }
        assert!(net.links.iter().all(|link| link.connection_count() <= 2 * CONNECTIONS_PER_SERVICE));
    }
}
