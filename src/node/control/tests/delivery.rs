//! What is sent arrives, whatever the network does.

use super::*;

#[test]
fn a_mebibyte_arrives_intact_whatever_the_network_does() {
    // Round trip 40 ms. smoltcp alone stalls for good from 5 % with 5 ms on.
    for (loss_percent, jitter_millis, limit_millis) in
        [(0, 0, 1_000), (0, 20, 1_500), (5, 0, 3_000), (5, 5, 4_000), (20, 0, 8_000), (20, 40, 16_000)]
    {
        for seed in 0..4 {
            let jitter = Duration::from_millis(jitter_millis);
            let mut net = Net::new(seed, 2, Faults { loss_percent, duplicate_percent: 3, jitter });
            let sent = message(seed, MAX_MESSAGE_LEN);
            net.send(0, 1, Service::Sync, sent.clone()).unwrap();
            let took = net.run_until_delivered(1, 1, Duration::from_millis(limit_millis));
            assert!(net.delivered[1] == [(id(0), Service::Sync, sent)], "the bytes are the same");
            assert!(net.events.iter().all(Vec::is_empty), "{:?}", net.events);
            let packets = net.trace.iter().filter(|(_, from, _)| *from == 0).count();
            let needed = MAX_MESSAGE_LEN / 975 * 100 / (100 - loss_percent as usize);
            assert!(packets < needed * 5 / 4, "{packets} packets at {loss_percent} %, {jitter:?}, {took:?}");
        }
    }
}

#[test]
fn what_comes_for_one_connection_touches_no_other() {
    let mut net = Net::new(7, 4, Faults::default());
    for to in 1..4 {
        net.send(0, to, Service::Sync, message(1, 100)).unwrap();
    }
    net.run(Duration::from_secs(5));
    assert_eq!(net.links[0].connection_count(), 3);
    let touched = |net: &Net| net.links[0].agenda.touched().map(|key| key.peer).collect::<Vec<_>>();
    assert!(touched(&net).is_empty());
    net.send(2, 0, Service::Sync, message(2, 100)).unwrap();
    net.drain();
    let arrival = net.flying.keys().next().unwrap().0;
    // The sender's own timers come later.
    assert!(net.step(arrival));
    assert_eq!(touched(&net), [id(2)]);
}

#[test]
fn three_nodes_speak_all_at_once_and_in_order() {
    let mut net = Net::new(3, 3, Faults { loss_percent: 5, duplicate_percent: 5, jitter: LATENCY });
    let services = [Service::Sync, Service::Consensus, Service::Gossip, Service::Call];
    for round in 0..20 {
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
            for service in services {
                net.send(from, to, service, message(round, 1 + round as usize * 300)).unwrap();
            }
        }
        net.run(Duration::from_millis(15));
    }
    net.run(Duration::from_secs(20));
    for (to, from) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        for service in services {
            let got = net.delivered[to].iter().filter(|(peer, other, _)| (*peer, *other) == (id(from), service));
            let got: Vec<&Vec<u8>> = got.map(|(_, _, message)| message).collect();
            let expected: Vec<Vec<u8>> = (0..20).map(|round| message(round, 1 + round as usize * 300)).collect();
            assert!(got.into_iter().eq(&expected), "{from} to {to}, {service:?}");
        }
    }
    assert!(net.events.iter().all(Vec::is_empty), "{:?}", net.events);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let mut net = Net::new(seed, 3, Faults { loss_percent: 10, duplicate_percent: 10, jitter: LATENCY });
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            net.send(from, to, Service::Sync, message(5, 100_000)).unwrap();
        }
        net.run(Duration::from_secs(120));
        assert!(net.delivered.iter().all(|messages| messages.len() == 1));
        net.trace
    };
    let trace = run(11);
    assert!(trace == run(11));
    assert!(trace != run(12));
}

#[test]
fn an_answer_takes_the_connection_of_the_question() {
    let mut net = Net::new(4, 2, Faults::default());
    net.send(0, 1, Service::Call, b"question".to_vec()).unwrap();
    net.run(Duration::from_secs(1));
    net.send(1, 0, Service::Call, b"answer".to_vec()).unwrap();
    net.run(Duration::from_secs(1));
    assert_eq!(net.delivered[1], [(id(0), Service::Call, b"question".to_vec())]);
    assert_eq!(net.delivered[0], [(id(1), Service::Call, b"answer".to_vec())]);
    assert_eq!(net.links.iter().map(ControlLink::connection_count).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn a_small_message_does_not_wait_for_the_one_before() {
    let mut net = Net::new(19, 2, Faults::default());
    net.send(0, 1, Service::Consensus, b"hello".to_vec()).unwrap();
    net.run(Duration::from_secs(1));
    net.send(0, 1, Service::Consensus, b"prevote".to_vec()).unwrap();
    net.run(Duration::from_millis(1));
    net.send(0, 1, Service::Consensus, b"precommit".to_vec()).unwrap();
    net.run_until_delivered(1, 3, LATENCY + Duration::from_millis(1));
}

#[test]
fn a_lost_message_is_repeated_long_before_tcp_would() {
    let mut late = 0;
    for seed in 0..100 {
        let mut net = Net::new(seed, 2, Faults::default());
        for round in 0..5 {
            net.send(0, 1, Service::Consensus, message(round, 200)).unwrap();
            net.run(Duration::from_millis(200));
        }
        net.faults.loss_percent = 20;
        net.send(0, 1, Service::Consensus, b"vote".to_vec()).unwrap();
        late += u32::from(net.run_until_delivered(1, 6, Duration::from_secs(2)) > Duration::from_millis(150));
    }
    assert!(late <= 8, "{late} of 100, where 20 are lost once and 4 twice");
}

#[test]
fn idle_connections_close_on_both_sides_and_open_again() {
    let mut net = Net::new(5, 2, Faults { loss_percent: 20, ..Faults::default() });
    for round in 1..=3 {
        net.send(0, 1, Service::Gossip, message(round, 100)).unwrap();
        net.run(IDLE_TIMEOUT / 2);
        assert_eq!(net.delivered[1].len(), round as usize);
        assert_eq!(net.links[1].connection_count(), 1);
        net.run(IDLE_TIMEOUT);
        for link in &mut net.links {
            assert_eq!(link.connection_count(), 0);
            assert_eq!(link.poll_timeout(), None, "nothing is left to wait for");
        }
    }
    assert!(net.events.iter().all(Vec::is_empty), "{:?}", net.events);
}

#[test]
fn a_restarted_peer_is_connected_again_within_seconds() {
    let mut net = Net::new(6, 2, Faults { loss_percent: 5, ..Faults::default() });
    net.send(0, 1, Service::Sync, message(1, 1000)).unwrap();
    net.send(1, 0, Service::Gossip, message(2, 1000)).unwrap();
    net.run(Duration::from_secs(2));
    assert_eq!((net.delivered[0].len(), net.delivered[1].len()), (1, 1));
    net.restart(1);
    // The restarted one speaks first, for a service that the other still holds a connection of.
    net.send(1, 0, Service::Gossip, message(3, 1000)).unwrap();
    net.run_until_delivered(0, 2, Duration::from_secs(2));
    // The other learns from a reset that its connection is gone.
    net.send(0, 1, Service::Sync, message(4, 1000)).unwrap();
    net.run(Duration::from_secs(2));
    let broken = LinkEvent::Broken { peer: id(1), service: Service::Sync, reason: BrokenReason::Reset, unsent: 0 };
    assert_eq!(net.events[0], [broken]);
    net.send(0, 1, Service::Sync, message(5, 1000)).unwrap();
    net.run_until_delivered(1, 2, Duration::from_secs(2));
}

#[test]
fn a_peer_that_is_away_is_given_up() {
    let mut net = Net::new(7, 2, Faults { loss_percent: 100, ..Faults::default() });
    net.send(0, 1, Service::Sync, message(1, 1000)).unwrap();
    net.run(Duration::from_secs(30));
    let broken = LinkEvent::Broken { peer: id(1), service: Service::Sync, reason: BrokenReason::Unanswered, unsent: 1 };
    assert_eq!(net.events[0], [broken]);
    assert_eq!(net.links[0].connection_count(), 0);
    assert!(net.trace.len() < 20, "{} packets to nobody", net.trace.len());
    assert_eq!(net.links[0].accounts, Accounts::default());
}
