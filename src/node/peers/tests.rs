//! Two or more peer tables and the datagrams between them, carried by hand.

use super::*;
use crate::crypto::exchange::TransportSecret;
use crate::crypto::hash::Digest;
use crate::crypto::identity::VerifyingKey;
use crate::crypto::secret::Secret;
use crate::node::control::MAX_GUESTS;
use crate::path::allowance::UNPROVED_BYTES;
use crate::path::candidate::MAX_TARGETS;
use crate::policy::{Member, PolicyDiff};
use crate::session::Source;
use crate::time::UnixMillis;
use crate::wire::datagram::{Datagram, Lane, TRANSPORT_HEADER_LEN};
use crate::wire::drops::DropReason;
use crate::wire::handshake::Versions;
use crate::wire::transport_record::Layer;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

mod dormancy;
mod guests;
mod sources;
mod streams;

/// A node of its seed: keys, table, and what it thinks of the network.
struct Side {
    endpoint: SocketAddr,
    policy: Policy,
    table: PeerTable,
    drops: Arc<Drops>,
    rng: ChaCha20Rng,
}

fn transport(seed: u8) -> TransportSecret {
    TransportSecret::from_bytes([seed; 32])
}

fn endpoint(seed: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, seed], 4647))
}

/// A network of the members with these seeds.
fn policy_of(seeds: &[u8]) -> Policy {
    let members = seeds.iter().map(|seed| Member {
        id: NodeId([*seed; 32]),
        name: format!("node-{seed}"),
        node_key: VerifyingKey([*seed; 32]),
        transport_key: transport(*seed).public_key(),
        addresses: Vec::new(),
        tags: Vec::new(),
        subnets: Vec::new(),
        is_exit: false,
        relay: None,
        static_endpoints: Vec::new(),
    });
    Policy::new(members, BTreeMap::new(), BTreeSet::new())
}

fn at(millis: u64) -> Now {
    Now { instant: Instant::from_micros(millis * 1000), wall: UnixMillis(1_800_000_000_000 + millis) }
}

impl Side {
    fn new(seed: u8, members: &[u8]) -> Self {
        let keys = LocalKeys::new(transport(seed), NodeId([seed; 32]), Digest([7; 32]), Secret::new([8; 32]));
        let (mut rng, drops) = (ChaCha20Rng::seed_from_u64(u64::from(seed)), Arc::new(Drops::new()));
        let table = PeerTable::new(at(0), keys, Terms::default(), Arc::clone(&drops), &mut rng);
        Self { endpoint: endpoint(seed), policy: policy_of(members), table, drops, rng }
    }

    fn knows(mut self, seed: u8) -> Self {
        let (key, id) = (transport(seed).public_key(), Some(NodeId([seed; 32])));
        self.table.add_candidate(key, id, endpoint(seed), CandidateSource::Configured, |_| false).unwrap();
        self
    }

    fn connect(&mut self, now: Now, seed: u8) {
        let mut ctx = Context { now, policy: &self.policy, rng: &mut self.rng };
        self.table.connect(&mut ctx, transport(seed).public_key());
    }

    /// Takes a packet for a member that there is no session with.
    fn stage(&mut self, now: Now, seed: u8, packet: Vec<u8>) {
        let mut ctx = Context { now, policy: &self.policy, rng: &mut self.rng };
        self.table.stage(&mut ctx, NodeId([seed; 32]), Layer::Ip, packet);
    }

    fn ping(&mut self, now: Now, key: TransportKey) -> Option<ProbeId> {
        self.table.ping(&mut Context { now, policy: &self.policy, rng: &mut self.rng }, key)
    }

    /// Takes a datagram as the data threads and the node do, the node a little later.
    fn receive(&mut self, now: Now, from: SocketAddr, mut datagram: Vec<u8>) {
        let later = now + Duration::from_micros(50);
        let mut ctx = Context { now: later, policy: &self.policy, rng: &mut self.rng };
        let Ok(Datagram::Transport(header)) = Datagram::classify(&datagram) else {
            self.table.handle_handshake(&mut ctx, from.into(), &datagram);
            return;
        };
        let inlets = self.table.inlets(|_| None);
        let Some(inlet) = inlets.get(&header.receiver) else { return };
        let record = inlet.session.open(now.instant, &header, &mut datagram[TRANSPORT_HEADER_LEN..]).unwrap();
        self.table.handle_record(&mut ctx, header.receiver, from.into(), record);
    }

    /// Takes those of the datagrams from somewhere that went to where this side is.
    fn receive_all(&mut self, now: Now, from: SocketAddr, sent: Vec<Transmit>) {
        let here = self.endpoint;
        let arrived = sent.into_iter().filter(|transmit| transmit.path.remote == here);
        arrived.for_each(|transmit| self.receive(now, from, transmit.datagram));
    }

    fn handle_timeout(&mut self, now: Now) {
        self.table.handle_timeout(&mut Context { now, policy: &self.policy, rng: &mut self.rng });
    }

    fn events(&mut self) -> Vec<PeerEvent> {
        std::iter::from_fn(|| self.table.poll_event()).collect()
    }

    fn sent(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.table.poll_transmit()).collect()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.snapshot().into_iter().find(|(other, _)| *other == reason).map_or(0, |(_, count)| count)
    }
}

/// Carries what both send to where the other one is, until both are silent.
fn carry(now: Now, left: &mut Side, right: &mut Side) {
    loop {
        let (from_left, from_right) = (left.sent(), right.sent());
        if from_left.is_empty() && from_right.is_empty() {
            return;
        }
        right.receive_all(now, left.endpoint, from_left);
        left.receive_all(now, right.endpoint, from_right);
    }
}

/// Lets time pass for both, from one moment to another, and carries what they send. Returns the moments at which anything was sent.
fn pass(millis: std::ops::Range<u64>, left: &mut Side, right: &mut Side) -> Vec<u64> {
    let mut busy = Vec::new();
    for millis in millis.step_by(250) {
        left.handle_timeout(at(millis));
        right.handle_timeout(at(millis));
        let sent: Vec<_> = left.sent().into_iter().map(|transmit| (true, transmit)).collect();
        let sent = sent.into_iter().chain(right.sent().into_iter().map(|transmit| (false, transmit)));
        for (from_left, Transmit { datagram, .. }) in sent {
            busy.push(millis);
            let (from, to) = if from_left { (left.endpoint, &mut *right) } else { (right.endpoint, &mut *left) };
            to.receive(at(millis), from, datagram);
        }
        carry(at(millis), left, right);
    }
    busy.dedup();
    busy
}

/// Two members with a session since 1 ms.
fn acquainted() -> (Side, Side) {
    let (mut left, mut right) = (Side::new(1, &[1, 2]).knows(2), Side::new(2, &[1, 2]));
    left.connect(at(1), 2);
    carry(at(1), &mut left, &mut right);
    (left, right)
}

/// A member whose record names `endpoints` and that answers nowhere is kept for an hour. Returns the bytes that went to each.
fn an_hour_of(endpoints: impl Fn(u64) -> Vec<SocketAddr>) -> BTreeMap<SocketAddr, usize> {
    let (mut left, key) = (Side::new(1, &[1, 2]), transport(2).public_key());
    left.table.keep(BTreeSet::from([key]));
    let mut sent: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for millis in (0..3_600_000).step_by(250) {
        if millis % 10_000 == 0 {
            let named = endpoints(millis / 10_000);
            left.table.retain_records(key, &named);
            for endpoint in named {
                let id = Some(NodeId([2; 32]));
                left.table.add_candidate(key, id, endpoint, CandidateSource::Record, |_| false).unwrap();
            }
            left.table.take_record_news(at(millis).instant, key);
        }
        left.handle_timeout(at(millis));
        for Transmit { path, datagram, .. } in left.sent() {
            *sent.entry(path.remote).or_default() += datagram.len();
        }
    }
    sent
}

#[test]
fn a_record_that_names_a_victim_sends_it_a_bounded_trickle() {
    const HOUR: usize = 3600 / 120 * 8000;
    let victim = SocketAddr::from(([198, 51, 100, 9], 53));
    let sent = an_hour_of(|_| vec![victim]);
    assert!(sent[&victim] > 7 * 7260, "it is tried");
    assert!(sent[&victim] <= UNPROVED_BYTES + HOUR, "{}", sent[&victim]);
    // Other ports of the same victim every ten seconds, eight in each record.
    let sent =
        an_hour_of(|turn| (0..8).map(|port| SocketAddr::new(victim.ip(), (turn * 8 + port + 1) as u16)).collect());
    let bytes = sent.values().sum::<usize>();
    assert!(bytes <= (UNPROVED_BYTES + HOUR) * MAX_TARGETS, "{bytes}");
}

#[test]
fn a_session_that_nobody_keeps_falls_silent_and_ends() {
    let (mut left, mut right) = acquainted();
    // The last word of a conversation is asked about once, and an answer asks for none.
    left.table.send_stream(at(1000), transport(2).public_key(), b"the last word", true);
    let busy = pass(1000..400_000, &mut left, &mut right);
    assert!(busy.last().is_some_and(|last| *last < 10_000), "{busy:?}");
    assert!(!left.table.has_session(&transport(2).public_key()));
    assert!(!right.table.has_session(&transport(1).public_key()));
    left.connect(at(400_000), 2);
    carry(at(400_000), &mut left, &mut right);
    assert_eq!(left.table.outlets().len(), 1, "they find each other again");
}

#[test]
fn an_acknowledgement_is_not_asked_about() {
    let asked = |asks_for_answer: bool| {
        let (mut left, mut right) = acquainted();
        pass(1000..5000, &mut left, &mut right);
        left.table.send_stream(at(5000), transport(2).public_key(), b"a word", asks_for_answer);
        left.sent();
        let mut asked = 0;
        for millis in 5000..7000 {
            left.handle_timeout(at(millis));
            asked += left.sent().len();
        }
        asked
    };
    assert!(asked(true) > 0);
    assert_eq!(asked(false), 0);
}

#[test]
fn a_renewal_that_nobody_answers_goes_everywhere_once_the_path_is_given_up() {
    let (mut left, _) = acquainted();
    let key = transport(2).public_key();
    left.table.add_candidate(key, None, endpoint(9), CandidateSource::Configured, |_| false).unwrap();
    left.sent();
    let mut ctx = Context { now: at(130_000), policy: &left.policy, rng: &mut left.rng };
    left.table.renew(&mut ctx, key);
    let remotes = |sent: Vec<Transmit>| sent.iter().map(|transmit| transmit.path.remote).collect::<BTreeSet<_>>();
    assert_eq!(remotes(left.sent()), BTreeSet::from([endpoint(2)]));
    left.events();
    left.connect(at(132_000), 2);
    assert!(left.events().iter().any(|event| matches!(event, PeerEvent::Sought(_))), "relays are asked");
    assert_eq!(remotes(left.sent()), BTreeSet::from([endpoint(9)]));
    left.connect(at(132_001), 2);
    assert!(left.sent().is_empty(), "once");
}

#[test]
fn whose_datagrams_arrive_damaged_hears_of_it_once_a_second_and_nobody_else_does() {
    let (mut left, mut right) = acquainted();
    let mut told = |damaged: u64, millis: u64| {
        let key = transport(2).public_key();
        for number in 0..damaged {
            left.table.send_stream(at(millis), key, &[7; 100], true);
            let mut datagram = left.sent().pop().unwrap().datagram;
            *datagram.last_mut().unwrap() ^= 1;
            let Ok(Datagram::Transport(header)) = Datagram::classify(&datagram) else { panic!("{number}") };
            let inlets = right.table.inlets(|_| None);
            let sealed = &mut datagram[TRANSPORT_HEADER_LEN..];
            assert!(inlets[&header.receiver].session.open(at(millis).instant, &header, sealed).is_err());
        }
        pass(millis..millis + 3000, &mut left, &mut right);
        let is_news = |event: &PeerEvent| matches!(event, PeerEvent::Damaged(of, path) if *of == key && path.remote == endpoint(2));
        assert!(!right.events().iter().any(|event| matches!(event, PeerEvent::Damaged(..))));
        left.events().iter().filter(|event| is_news(event)).count()
    };
    assert_eq!(told(7, 5_000), 0, "a few are anybody's");
    assert_eq!(told(8, 10_000), 1);
    assert_eq!(told(0, 15_000), 0);
    assert_eq!(told(100, 20_000), 1);
}

#[test]
fn a_kept_session_is_renewed_by_whoever_keeps_it() {
    for keeper in [1, 2] {
        let (mut left, mut right) = acquainted();
        let (side, other) = if keeper == 1 { (&mut left, 2) } else { (&mut right, 1) };
        side.table.keep(BTreeSet::from([transport(other).public_key()]));
        let busy = pass(1000..1_000_000, &mut left, &mut right);
        let longest = busy.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(longest <= 26_000, "kept by {keeper}: silent for {longest} ms");
        assert!(left.table.has_session(&transport(2).public_key()) && right.table.outlets().len() == 1);
        let handshakes = busy.len();
        assert!(handshakes < 1000 / 25 * 4, "kept by {keeper}: busy in {handshakes} moments");
    }
}

#[test]
fn a_peer_that_does_not_know_of_the_admission_is_asked_less_and_less_often() {
    let (mut left, mut right) = (Side::new(1, &[1, 2]).knows(2), Side::new(2, &[2]));
    left.connect(at(1), 2);
    carry(at(1), &mut left, &mut right);
    let mut begun = 0;
    for millis in (1000..301_000).step_by(250) {
        left.handle_timeout(at(millis));
        right.handle_timeout(at(millis));
        let sent = left.sent();
        begun += sent.iter().filter(|transmit| transmit.datagram[0] == 1).count();
        for transmit in sent {
            right.receive(at(millis), left.endpoint, transmit.datagram);
        }
        carry(at(millis), &mut left, &mut right);
    }
    // 1, 2, 4 … 60 s: ten times in five minutes; a cookie makes a second flight of each.
    assert!((8..=12).contains(&begun), "{begun}");
    right.policy = policy_of(&[1, 2]);
    pass(301_000..365_000, &mut left, &mut right);
    assert!(right.table.usable().any(|(_, rights)| rights.is_member()), "and gets what it asks for");
}

#[test]
fn a_guest_stays_for_ten_minutes_and_may_come_again() {
    let (mut guest, mut host) = (Side::new(1, &[2]).knows(2), Side::new(2, &[2]));
    let host_key = transport(2).public_key();
    guest.table.keep(BTreeSet::from([host_key]));
    let came = |host: &mut Side| host.events().iter().filter(|event| matches!(event, PeerEvent::Up(..))).count();
    pass(0..599_000, &mut guest, &mut host);
    assert!(came(&mut host) > 1, "renewed on the way");
    let downs = |host: &mut Side| host.events().iter().filter(|event| matches!(event, PeerEvent::Down(_))).count();
    assert_eq!(downs(&mut host), 0);
    guest.table.keep(BTreeSet::new());
    pass(599_000..602_000, &mut guest, &mut host);
    assert_eq!(downs(&mut host), 1);
    assert!(!guest.table.has_session(&host_key), "it is told");
    assert!(!host.table.mentions(&transport(1).public_key()), "and nothing is left of it");
    guest.connect(at(602_000), 2);
    carry(at(602_000), &mut guest, &mut host);
    assert_eq!(came(&mut host), 1, "it comes again");
}

#[test]
fn there_are_as_many_guests_as_may_be() {
    let mut host = Side::new(200, &[200]);
    for seed in 1..=MAX_GUESTS as u8 + 1 {
        let mut guest = Side::new(seed, &[200]).knows(200);
        // Slower than half-open handshakes pile up: those have a bound of their own.
        let now = at(u64::from(seed) * 200);
        guest.connect(now, 200);
        carry(now, &mut guest, &mut host);
    }
    assert_eq!(host.table.usable().count(), MAX_GUESTS);
    assert_eq!(host.dropped(DropReason::NoPlace), 1);
}

#[test]
fn what_a_session_carried_is_remembered_after_its_end() {
    let (mut left, mut right) = acquainted();
    let carried = |side: &Side, seed: u8| {
        let peer = side.table.peer(&transport(seed).public_key()).unwrap();
        let live = |bytes: fn(&Session) -> u64| peer.sessions.receiving().map(|it| bytes(it)).sum::<u64>();
        (peer.past_bytes.0 + live(Session::bytes_sent), peer.past_bytes.1 + live(Session::bytes_received))
    };
    pass(1000..10_000, &mut left, &mut right);
    let before = carried(&left, 2);
    assert!(before.0 > 0 && before.1 > 0);
    pass(10_000..200_000, &mut left, &mut right);
    assert_eq!(carried(&left, 2), before);
    assert!(left.table.peer(&transport(2).public_key()).unwrap().last_heard.is_some());
}

#[test]
fn a_session_for_sync_alone_carries_no_packets_and_no_member_stands_behind_it() {
    let (mut left, mut right) = (Side::new(1, &[1, 2]).knows(2), Side::new(2, &[1, 2]));
    right.table.terms.versions = Versions { lowest: 1, highest: 2 };
    right.table.terms.minimum_version = 2;
    left.connect(at(1), 2);
    carry(at(1), &mut left, &mut right);
    for side in [&mut left, &mut right] {
        let ups: Vec<_> = side.events().into_iter().filter(|event| matches!(event, PeerEvent::Up(..))).collect();
        assert!(matches!(ups[..], [PeerEvent::Up(_, Rights::Guest)]), "{ups:?}");
        assert!(side.table.outlets().is_empty(), "nothing is sealed for it");
        assert!(
            side.table.inlets(|_| None).values().all(|inlet| inlet.rights == Rights::Guest),
            "nothing is delivered from it"
        );
        assert!(side.table.usable().all(|(_, rights)| rights == Rights::Guest));
    }
}

#[test]
fn a_ledger_message_in_a_control_record_is_for_members() {
    for (known_there, heard) in [(true, true), (false, false)] {
        let members: &[u8] = if known_there { &[1, 2] } else { &[2] };
        let (mut left, mut right) = (Side::new(1, &[1, 2]).knows(2), Side::new(2, members));
        left.connect(at(1), 2);
        carry(at(1), &mut left, &mut right);
        right.events();
        assert!(left.table.send_ledger(at(2), transport(2).public_key(), vec![1, 2, 3]));
        carry(at(2), &mut left, &mut right);
        let took = right.events().iter().any(|event| matches!(event, PeerEvent::Ledger(..)));
        assert_eq!((took, right.dropped(DropReason::RecordNotAllowed)), (heard, u64::from(!heard)));
    }
}

#[test]
fn who_takes_this_node_for_a_guest_is_not_reached_before_it_knows_better() {
    let (mut left, mut right) = (Side::new(1, &[1, 2]).knows(2), Side::new(2, &[2]));
    let key = transport(2).public_key();
    left.connect(at(1), 2);
    carry(at(1), &mut left, &mut right);
    for millis in [2, 500] {
        assert_eq!(left.ping(at(millis), key), None);
        assert!(left.sent().is_empty(), "nor does every look begin a handshake");
    }
    right.policy = policy_of(&[1, 2]);
    let mut ctx = Context { now: at(1200), policy: &left.policy, rng: &mut left.rng };
    left.table.handle_timeout(&mut ctx);
    carry(at(1200), &mut left, &mut right);
    assert!(left.ping(at(1201), key).is_some());
}

#[test]
fn a_cookie_sends_no_flight_to_where_none_went_and_none_twice() {
    let (mut left, mut right) = (Side::new(1, &[1, 2]).knows(2), Side::new(2, &[2]));
    left.connect(at(1), 2);
    for transmit in left.sent() {
        right.receive(at(1), left.endpoint, transmit.datagram);
    }
    let answers = right.sent();
    let [Transmit { datagram: cookie, .. }] = &answers[..] else { panic!("one cookie") };
    assert_eq!(right.drops.get(DropReason::CookieRequired), 0, "which is no drop");
    let victim = SocketAddr::from(([198, 51, 100, 9], 53));
    let lens = |transmits: &[Transmit]| transmits.iter().map(|transmit| transmit.datagram.len()).sum::<usize>();
    left.receive(at(2), victim, cookie.clone());
    let first = left.sent();
    assert!(lens(&first) > 0 && first.iter().all(|transmit| transmit.path.remote == endpoint(2)));
    for source in [victim, endpoint(2), endpoint(2)] {
        left.receive(at(3), source, cookie.clone());
        assert!(left.sent().is_empty(), "from {source}");
    }
    for transmit in first {
        right.receive(at(4), left.endpoint, transmit.datagram);
    }
    carry(at(4), &mut left, &mut right);
    assert!(left.events().iter().any(|event| matches!(event, PeerEvent::Up(..))), "the cookie served");
}

#[test]
fn answers_pass_the_gate_while_their_attempt_is_under_way_and_no_longer() {
    let receive_all = |left: &mut Side, answers: &[Transmit]| {
        answers.iter().for_each(|answer| left.receive(at(2), endpoint(2), answer.datagram.clone()));
    };
    let jump = |left: &mut Side, _: &[Transmit]| {
        left.table.handle_clock_jump(&mut Context { now: at(2), policy: &left.policy, rng: &mut left.rng });
    };
    let revoke = |left: &mut Side, _: &[Transmit]| {
        let policy = policy_of(&[1]);
        let diff = PolicyDiff::between(&left.policy, &policy);
        left.table.handle_policy(&mut Context { now: at(2), policy: &policy, rng: &mut left.rng }, &diff);
    };
    let give_up = |left: &mut Side, _: &[Transmit]| left.handle_timeout(at(6_000));
    let ends: [fn(&mut Side, &[Transmit]); 4] = [receive_all, jump, revoke, give_up];
    for (number, end) in ends.into_iter().enumerate() {
        let (mut left, mut right) = (Side::new(1, &[1, 2]).knows(2), Side::new(2, &[1, 2]));
        left.table.take_change();
        left.connect(at(1), 2);
        assert_eq!(left.table.take_change(), Some(Change::Gate));
        left.sent().into_iter().for_each(|transmit| right.receive(at(1), left.endpoint, transmit.datagram));
        let answers = right.sent();
        let check = |left: &Side| {
            let gate = left.table.gate();
            let passed = |answer: &&Transmit| gate.check(Source::Endpoint(endpoint(2)), &answer.datagram).is_ok();
            answers.iter().filter(passed).count()
        };
        assert_eq!((check(&left), answers.len()), (2, 2));
        end(&mut left, &answers);
        assert_eq!(check(&left), 0, "end {number}");
        assert!(left.table.take_change().is_some() && left.table.attempts.is_empty(), "end {number}");
    }
}

#[test]
fn after_a_clock_jump_nothing_is_sent_before_the_session_is_new() {
    let (mut left, mut right) = (Side::new(1, &[1, 2]).knows(2), Side::new(2, &[1, 2]));
    left.connect(at(1), 2);
    carry(at(1), &mut left, &mut right);
    assert_eq!(left.table.outlets().len(), 1);
    let old = Arc::clone(&left.table.outlets()[&NodeId([2; 32])].session);
    let mut data_thread = old.claim_lane(Lane::new(1, 0)).unwrap();
    left.connect(at(39_000), 2);
    left.sent();
    left.table.handle_clock_jump(&mut Context { now: at(40_000), policy: &left.policy, rng: &mut left.rng });
    assert!(left.table.outlets().is_empty() && left.table.take_change() == Some(Change::Sessions));
    assert!(
        data_thread.seal(at(40_000).instant, &mut [0; 64]).is_err(),
        "nor by a thread that has the table from before"
    );
    assert!(!left.table.send_stream(at(40_000), transport(2).public_key(), b"streams wait", true));
    carry(at(40_000), &mut left, &mut right);
    let outlets = left.table.outlets();
    let fresh = outlets.values().map(|outlet| outlet.session.created()).collect::<Vec<_>>();
    assert!(matches!(fresh[..], [created] if created >= at(40_000).instant), "{fresh:?}");
}

#[test]
fn records_that_name_new_endpoints_every_second_do_not_end_the_waits() {
    let mut left = Side::new(1, &[1, 2]).knows(2);
    let key = transport(2).public_key();
    let mut flights = 0;
    for millis in (0..120_000).step_by(250) {
        if millis % 1000 == 0 {
            let named = SocketAddr::from(([198, 51, 100, 9], 1 + (millis / 1000) as u16));
            left.table.add_candidate(key, None, named, CandidateSource::Record, |_| false).unwrap();
            left.table.take_record_news(at(millis).instant, key);
        }
        left.connect(at(millis), 2);
        let mut ctx = Context { now: at(millis), policy: &left.policy, rng: &mut left.rng };
        left.table.handle_timeout(&mut ctx);
        flights += left.sent().iter().filter(|transmit| transmit.datagram[0] == 1).count();
    }
    // Without records there are six attempts in two minutes, five times to eight targets each; every half minute it begins anew.
    assert!(flights <= 16 * 5 * MAX_TARGETS, "{flights}");
}

#[test]
fn a_late_goodbye_ends_what_is_older_and_not_what_was_made_since() {
    let (mut left, mut right) = acquainted();
    left.table.say_goodbye(at(10));
    let farewell = left.sent();
    left.connect(at(20), 2);
    carry(at(20), &mut left, &mut right);
    right.events();
    for transmit in farewell {
        right.receive(at(30), left.endpoint, transmit.datagram);
    }
    let left_key = transport(1).public_key();
    assert!(right.table.usable().any(|(key, _)| key == left_key), "the newer session stays, and its path");
    assert_eq!(right.table.holdings().sessions, 1, "the older one is gone");
    assert!(!right.events().iter().any(|event| matches!(event, PeerEvent::Down(_))));
    left.table.say_goodbye(at(40));
    carry(at(40), &mut left, &mut right);
    assert!(!right.table.has_session(&left_key), "a goodbye in the session in use ends it");
}

#[test]
fn who_was_revoked_is_not_kept_until_the_next_review() {
    let mut left = Side::new(1, &[1, 2]);
    let key = transport(2).public_key();
    left.table.keep(BTreeSet::from([key]));
    assert!(left.table.mentions(&key), "nothing else is known of it");
    let (older, newer) = (policy_of(&[1, 2]), policy_of(&[1]));
    let mut ctx = Context { now: at(1), policy: &newer, rng: &mut left.rng };
    left.table.handle_policy(&mut ctx, &crate::policy::PolicyDiff::between(&older, &newer));
    assert!(!left.table.mentions(&key));
}

#[test]
fn a_packet_that_waits_without_a_way_is_a_drop_once_it_is_too_old_and_none_when_it_arrives() {
    for is_found in [false, true] {
        let (mut left, mut right) = (Side::new(1, &[1, 2]), Side::new(2, &[1, 2]));
        left.stage(at(0), 2, vec![0x45; 100]);
        assert_eq!(left.dropped(DropReason::NoPath), 0, "it waits");
        assert!(left.table.poll_timeout().is_some(), "and is looked at");
        if is_found {
            left = left.knows(2);
            left.connect(at(10), 2);
            carry(at(10), &mut left, &mut right);
        }
        pass(1000..7000, &mut left, &mut right);
        assert_eq!(left.dropped(DropReason::NoPath), u64::from(!is_found));
    }
}

#[test]
fn a_worn_key_is_replaced_within_a_second() {
    let (mut left, mut right) = acquainted();
    let in_use = |side: &Side| Arc::clone(&side.table.outlets()[&NodeId([2; 32])].session);
    let worn = in_use(&left);
    left.table.keep(BTreeSet::from([transport(2).public_key()]));
    pass(1000..60_000, &mut left, &mut right);
    assert_eq!(in_use(&left).local_index(), worn.local_index(), "a minute is no age");
    worn.wear_out();
    pass(60_250..61_500, &mut left, &mut right);
    let fresh = in_use(&left);
    assert_ne!(fresh.local_index(), worn.local_index());
    assert!(!fresh.wants_rekey() && right.table.outlets().len() == 1);
}

#[test]
fn who_is_sent_away_at_once_knocks_less_and_less_often() {
    let (mut left, mut right) = (Side::new(1, &[1, 2]).knows(2), Side::new(2, &[1, 2]));
    let (left_key, right_key) = (transport(1).public_key(), transport(2).public_key());
    left.table.keep(BTreeSet::from([right_key]));
    let mut sent_away = 0;
    for millis in (0..300_000).step_by(250) {
        pass(millis..millis + 1, &mut left, &mut right);
        if right.table.usable().next().is_some() {
            right.table.dismiss(at(millis), left_key);
            carry(at(millis), &mut left, &mut right);
            sent_away += 1;
        }
    }
    assert!((8..=12).contains(&sent_away), "{sent_away}");
    pass(300_000..400_000, &mut left, &mut right);
    assert!(right.table.usable().next().is_some(), "and is let in when there is a place");
}
