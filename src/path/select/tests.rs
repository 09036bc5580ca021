//! Paths that are taken, kept and left.

use super::*;
use crate::path::local::LocalEnd;
use crate::wire::relay::Label;

/// A path whose local end is not known.
fn path(last: u8) -> Path {
    SocketAddr::from(([192, 0, 2, last], 4647)).into()
}

fn seconds(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn passed(sent: Option<Instant>, received: Option<Instant>) -> Traffic {
    Traffic { sent, received, used: None }
}

fn used(sent: Instant, received: Instant) -> Traffic {
    Traffic { used: Some(sent), ..passed(Some(sent), Some(received)) }
}

#[test]
fn a_packet_from_elsewhere_moves_nothing_until_its_pong() {
    let mut paths = Paths::default();
    paths.established(seconds(1), path(1));
    assert_eq!(paths.heard_from(seconds(2), path(2), Speech::Using), Some(path(2)));
    paths.probe_sent(seconds(2), ProbeId(7), path(2));
    assert_eq!(paths.heard_from(seconds(2), path(2), Speech::Using), None, "one probe a second");
    assert_eq!(paths.heard_from(seconds(2), path(3), Speech::Using), None, "not one for each address");
    assert_eq!(paths.heard_from(seconds(2), path(2), Speech::Using), None);
    assert_eq!(paths.path(), Some(path(1)));
    let rtt = Duration::from_millis(10);
    assert_eq!(paths.handle_pong(seconds(2) + rtt, ProbeId(7)), Some(rtt));
    assert_eq!(paths.path(), Some(path(2)));
    assert_eq!(paths.handle_pong(seconds(3), ProbeId(8)), None, "an unknown probe");
}

#[test]
fn a_direct_way_that_opens_is_asked_though_another_relay_s_was_a_moment_ago() {
    let mut paths = Paths::default();
    for number in [1, 2] {
        paths.add_relayed(TransportKey([number; 32]), relayed(number));
    }
    answer(&mut paths, seconds(1), relayed(1), Duration::from_millis(40));
    assert_eq!(paths.heard_from(seconds(2), relayed(2), Speech::Using), Some(relayed(2)));
    assert_eq!(paths.heard_from(seconds(2), path(1), Speech::Trying), Some(path(1)));
    assert_eq!(paths.heard_from(seconds(2), path(2), Speech::Trying), None, "one of its kind a second");
}

/// A link over TLS to the peer, or with a label through it.
fn stream(label: Option<Label>) -> Path {
    Path { local: Some(LocalEnd::STREAM), label, remote: SocketAddr::from(([192, 0, 2, 9], 443)) }
}

#[test]
fn a_path_over_tls_is_the_last_of_all() {
    let mut paths = Paths::default();
    paths.established(seconds(1), stream(None));
    assert_eq!(paths.path(), Some(stream(None)));
    assert!(paths.endpoint().is_none() && paths.candidates().is_empty(), "TCP's address is no candidate");
    paths.forget_local_ends();
    assert_eq!(paths.path(), Some(stream(None)), "it is a path of its own wherever the host is");
    // UDP takes its place with the first answer, though it be slower.
    paths.add_relayed(TransportKey([1; 32]), relayed(1));
    answer(&mut paths, seconds(2), relayed(1), Duration::from_millis(300));
    assert_eq!(paths.path(), Some(relayed(1)));
    answer(&mut paths, seconds(3), path(1), Duration::from_millis(400));
    assert_eq!(paths.path(), Some(path(1)));
    for faster in [stream(None), relayed(1)] {
        answer(&mut paths, seconds(4), faster, Duration::from_millis(1));
        assert_eq!(paths.path(), Some(path(1)));
    }
}

#[test]
fn who_comes_over_tls_has_the_path_in_use_asked_and_is_followed_when_that_is_silent() {
    let mut paths = Paths::default();
    paths.established(seconds(1), path(1));
    answer(&mut paths, seconds(1), path(1), Duration::from_millis(10));
    assert_eq!(paths.heard_from(seconds(10), stream(None), Speech::Using), Some(path(1)));
    paths.probe_sent(seconds(10), ProbeId(7), path(1));
    assert_eq!(paths.heard_from(millis(10_020), stream(None), Speech::Using), None, "its answer may come");
    assert_eq!(paths.heard_from(millis(10_600), stream(None), Speech::Using), Some(stream(None)), "sooner now");
    let mut asked = Vec::new();
    for at in (10_100..10_700).step_by(100) {
        if let PathCheck::Probe(ways) = paths.check(millis(at), passed(Some(seconds(10)), Some(seconds(10)))) {
            asked = ways;
            paths.probe_sent(millis(at), ProbeId(at), path(1));
        }
    }
    assert_eq!(asked, [path(1)], "the link is asked because the peer speaks there, and until it answers it is no way");
    answer(&mut paths, millis(10_700), stream(None), Duration::from_millis(20));
    assert_eq!(paths.path(), Some(stream(None)));
}

#[test]
fn what_comes_by_a_link_makes_it_no_way_until_it_answers() {
    let mut paths = Paths::default();
    paths.established(seconds(1), path(1));
    answer(&mut paths, seconds(1), stream(None), Duration::from_millis(10));
    let other = Path { remote: SocketAddr::from(([192, 0, 2, 9], 444)), ..stream(None) };
    paths.heard_from(seconds(2), other, Speech::Using);
    assert_eq!(paths.stream(), Some(stream(None)), "the one that answered stays");
    assert!(paths.is_proved(stream(None)));
    answer(&mut paths, seconds(3), other, Duration::from_millis(10));
    assert_eq!(paths.stream(), Some(other));
    // What was under way when a link ended does not bring it back.
    assert!(paths.lose_stream(&other));
    paths.heard_from(seconds(4), other, Speech::Using);
    assert_eq!((paths.stream(), paths.path()), (None, Some(path(1))));
}

#[test]
fn a_link_that_ends_is_left_and_what_is_labelled_over_one_counts_as_it_does() {
    let mut paths = Paths::default();
    paths.established(seconds(1), stream(None));
    assert!(paths.lose_stream(&stream(None)) && paths.path().is_none());
    assert!(!paths.lose_stream(&stream(None)));
    paths.add_relayed(TransportKey([1; 32]), stream(Some(Label(7))));
    answer(&mut paths, seconds(2), stream(Some(Label(7))), Duration::from_millis(10));
    paths.add_relayed(TransportKey([2; 32]), relayed(1));
    answer(&mut paths, seconds(3), relayed(1), Duration::from_millis(90));
    assert_eq!(paths.path(), Some(relayed(1)));
}

#[test]
fn a_working_path_is_left_only_for_a_faster_one() {
    let mut paths = Paths::default();
    paths.established(seconds(1), path(1));
    paths.probe_sent(seconds(1), ProbeId(1), path(1));
    paths.handle_pong(seconds(1) + Duration::from_millis(30), ProbeId(1));
    for (id, millis, expected) in [(2, 27, path(1)), (3, 25, path(2))] {
        let sent = seconds(10);
        paths.probe_sent(sent, ProbeId(id), path(2));
        let pong = sent + Duration::from_millis(millis);
        paths.handle_pong(pong, ProbeId(id));
        assert_eq!(paths.path(), Some(expected));
    }
}

fn millis(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

/// A way through a relay at 192.0.2.`relay`.
fn relayed(relay: u8) -> Path {
    Path { label: Some(Label(7)), ..path(relay) }
}

/// Has `way` answer a probe after `rtt`.
fn answer(paths: &mut Paths, now: Instant, way: Path, rtt: Duration) {
    paths.probe_sent(now, ProbeId(99), way);
    paths.handle_pong(now + rtt, ProbeId(99));
}

#[test]
fn a_direct_path_takes_the_place_of_a_relay_s_at_once_and_loses_it_only_by_silence() {
    let (mut paths, relay) = (Paths::default(), TransportKey([9; 32]));
    paths.add_relayed(relay, relayed(9));
    paths.established(seconds(1), relayed(9));
    assert_eq!((paths.path(), paths.endpoint()), (Some(relayed(9)), None));
    answer(&mut paths, seconds(2), path(1), Duration::from_millis(300));
    assert_eq!(paths.path(), Some(path(1)));
    answer(&mut paths, seconds(3), relayed(9), Duration::from_millis(1));
    assert_eq!(paths.path(), Some(path(1)), "a relay's is no faster way");
    assert_eq!(paths.heard_from(seconds(4), relayed(9), Speech::Using), None, "nor one to follow to");
    paths.established(seconds(4), relayed(9));
    assert_eq!(paths.path(), Some(path(1)));
    // 3 round trips of 300 ms.
    assert_eq!(paths.check(seconds(10), passed(Some(seconds(10)), Some(seconds(9)))), PathCheck::Healthy);
    let asked = PathCheck::Probe(vec![path(1), relayed(9)]);
    assert_eq!(paths.check(millis(10_900), used(millis(10_900), seconds(9))), asked);
    paths.probe_sent(millis(10_900), ProbeId(5), path(1));
    answer(&mut paths, millis(10_900), relayed(9), Duration::from_millis(50));
    assert_eq!(paths.path(), Some(path(1)), "its own answer may still come");
    answer(&mut paths, millis(11_300), relayed(9), Duration::from_millis(50));
    assert_eq!(paths.path(), Some(relayed(9)));
}

#[test]
fn a_slow_answer_moves_nothing_when_the_path_itself_answers_the_probe() {
    let (mut paths, relay) = (Paths::default(), TransportKey([9; 32]));
    paths.established(seconds(1), path(1));
    answer(&mut paths, seconds(1), path(1), Duration::from_millis(20));
    paths.add_relayed(relay, relayed(9));
    assert_eq!(paths.check(seconds(10), passed(Some(seconds(10)), Some(seconds(9)))), PathCheck::Healthy);
    let asked = PathCheck::Probe(vec![path(1), relayed(9)]);
    assert_eq!(paths.check(millis(10_300), used(millis(10_300), seconds(9))), asked);
    for (id, way) in [(1, path(1)), (2, relayed(9))] {
        paths.probe_sent(millis(10_300), ProbeId(id), way);
    }
    paths.handle_pong(millis(10_320), ProbeId(1));
    paths.handle_pong(millis(10_390), ProbeId(2));
    assert_eq!(paths.path(), Some(path(1)));
}

#[test]
fn what_nobody_uses_is_asked_by_its_own_path_alone_until_that_leaves_it_unanswered() {
    let mut paths = Paths::default();
    paths.established(seconds(1), path(1));
    answer(&mut paths, seconds(1), path(1), Duration::from_millis(20));
    paths.add_relayed(TransportKey([9; 32]), relayed(9));
    let mut ask = |at| {
        let asked = paths.check(millis(at), passed(Some(seconds(10)), Some(seconds(9))));
        if let PathCheck::Probe(ways) = &asked {
            ways.iter().for_each(|way| paths.probe_sent(millis(at), ProbeId(at), *way));
        }
        asked
    };
    assert_eq!(ask(10_000), PathCheck::Healthy);
    assert_eq!(ask(10_300), PathCheck::Probe(vec![path(1)]));
    assert_eq!(ask(10_400), PathCheck::Probe(vec![path(1), relayed(9)]));
}

#[test]
fn a_handshake_through_a_relay_is_followed_when_the_direct_path_owes_an_answer() {
    let (mut paths, relay) = (Paths::default(), TransportKey([9; 32]));
    paths.established(seconds(1), path(1));
    paths.add_relayed(relay, relayed(9));
    paths.check(seconds(10), passed(Some(seconds(10)), Some(seconds(9))));
    paths.established(seconds(11), relayed(9));
    assert_eq!(paths.path(), Some(relayed(9)));
}

#[test]
fn a_lost_relay_s_way_is_replaced_by_another_one_or_none() {
    let mut paths = Paths::default();
    let relays = [8, 9].map(|seed| TransportKey([seed; 32]));
    paths.add_relayed(relays[0], relayed(8));
    paths.add_relayed(relays[1], relayed(9));
    paths.established(seconds(1), relayed(8));
    answer(&mut paths, seconds(1), relayed(9), Duration::from_millis(90));
    paths.relay_moved(&relays[0], path(5));
    assert_eq!(paths.path(), Some(relayed(5)), "the label goes along");
    assert!(paths.lose_relayed(|relay, _| *relay == relays[0]));
    assert_eq!(paths.path(), Some(relayed(9)));
    assert!(paths.lose_relayed(|_, _| true));
    assert_eq!(paths.path(), None);
}

#[test]
fn the_next_best_ways_are_kept_warm_while_something_of_a_users_passes() {
    let mut paths = Paths::default();
    paths.established(seconds(1), path(1));
    paths.add_relayed(TransportKey([9; 32]), relayed(9));
    let mut asked = 0;
    for second in 2..122 {
        let now = seconds(second);
        let last = if second < 62 { now } else { seconds(61) };
        let said = Some(now);
        match paths.check(now, Traffic { used: Some(last), ..passed(said, said) }) {
            PathCheck::Warm(ways) => {
                assert_eq!(ways, [relayed(9)]);
                asked += 1;
            }
            other => assert_eq!(other, PathCheck::Healthy),
        }
    }
    assert!((4..=5).contains(&asked), "{asked}");
}

#[test]
fn a_second_relay_is_missed_while_the_first_one_is_in_use() {
    let mut paths = Paths::default();
    let [one, other] = [8, 9].map(|seed| TransportKey([seed; 32]));
    paths.add_relayed(one, relayed(8));
    paths.established(seconds(1), relayed(8));
    assert!(paths.hangs_on_one_relay());
    paths.add_relayed(other, relayed(9));
    assert!(!paths.hangs_on_one_relay());
    paths.lose_relayed(|relay, _| *relay == other);
    paths.established(seconds(2), path(1));
    assert!(!paths.hangs_on_one_relay(), "a direct path hangs on none");
}

#[test]
fn who_only_tries_a_path_does_not_move() {
    let mut paths = Paths::default();
    paths.established(seconds(1), path(1));
    answer(&mut paths, seconds(1), path(1), Duration::from_millis(20));
    assert_eq!(paths.heard_from(seconds(2), path(2), Speech::Trying), Some(path(2)));
    answer(&mut paths, seconds(2), path(2), Duration::from_millis(20));
    assert_eq!(paths.path(), Some(path(1)));
    paths.heard_from(seconds(3), path(2), Speech::Using);
    answer(&mut paths, seconds(3), path(2), Duration::from_millis(20));
    assert_eq!(paths.path(), Some(path(2)));
}

#[test]
fn the_other_end_of_a_path_is_the_hosts_own_and_counts_as_much() {
    let by = |socket| Path { local: Some(LocalEnd { socket, address: None }), ..path(1) };
    let mut paths = Paths::default();
    paths.established(seconds(1), by(0));
    assert_eq!(paths.heard_from(seconds(2), by(0), Speech::Using), None);
    assert_eq!(
        paths.heard_from(seconds(2), by(1), Speech::Using),
        Some(by(1)),
        "the same endpoint spoke to another socket"
    );
    assert_eq!((paths.path(), paths.path_to(path(1).remote)), (Some(by(0)), by(1)));
    paths.probe_sent(seconds(2), ProbeId(1), by(1));
    paths.handle_pong(seconds(2) + Duration::from_millis(9), ProbeId(1));
    assert_eq!(paths.path(), Some(by(1)));
    paths.forget_local_ends();
    assert_eq!((paths.path(), paths.path_to(path(1).remote)), (Some(path(1)), path(1)));
    assert_eq!(paths.path_to(path(2).remote), path(2), "never heard from there");
}
