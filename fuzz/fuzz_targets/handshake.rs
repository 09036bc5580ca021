//! A responder that gets whatever: datagrams of a member, a stranger and a revoked node, damaged, repeated, out of order and from
//! any address, and bytes that are no datagram with a mac1 that fits. Its answers go back, damaged, to the initiator.
//!
//! It must not panic, must keep its tables bounded, and must never send an address more bytes than came from there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::crypto::exchange::TransportKey;
use p2plus::policy::{Policy, Rights};
use p2plus::session::handshake::responder::Inbound;
use p2plus::session::handshake::{Local, Refusal};
use p2plus::session::{Aim, Established, Indices, Initiator, LocalKeys, Responder, Source, Terms, TimestampSource};
use p2plus::time::{Instant, UnixMillis};
use p2plus_fuzz::{Script, local_keys, node_id, policy, transport_key};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// The responder, a member like the first initiator. The second was revoked, the third nobody knows.
const RESPONDER: u8 = 9;
const INITIATORS: [u8; 3] = [1, 2, 3];
/// Steps of one run: key exchanges are slow.
const MAX_STEPS: usize = 48;

struct Far {
    keys: LocalKeys,
    /// Made when it is first needed.
    initiator: Option<Initiator>,
}

struct Stage {
    rng: ChaCha20Rng,
    now: Instant,
    keys: LocalKeys,
    policy: Policy,
    terms: Terms,
    indices: Indices,
    timestamps: TimestampSource,
    responder: Responder,
    far: Vec<Far>,
    /// Bytes from each address, and to it.
    traffic: BTreeMap<u8, (usize, usize)>,
}

fuzz_target!(|bytes: &[u8]| {
    let mut script = Script::new(bytes);
    let mut stage = Stage::new();
    for _ in 0..MAX_STEPS {
        if script.is_over() {
            break;
        }
        stage.step(&mut script);
    }
});

impl Stage {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let responder = Responder::new(Instant::ZERO, &mut rng);
        let far = INITIATORS.map(|seed| Far { keys: local_keys(seed), initiator: None }).into();
        Self {
            rng,
            now: Instant::from_micros(1_000_000),
            keys: local_keys(RESPONDER),
            policy: policy([RESPONDER, 1, 2], [2]),
            terms: Terms::default(),
            indices: Indices::default(),
            timestamps: TimestampSource::default(),
            responder,
            far,
            traffic: BTreeMap::new(),
        }
    }

    fn initiate(&mut self, seed: u8) -> Initiator {
        let aim = Aim { key: transport_key(RESPONDER), identity: Some(node_id(RESPONDER)) };
        let offer = self.terms.offer(self.timestamps.next(UnixMillis(self.now.as_micros() / 1000)));
        let index = self.indices.reserve(&mut self.rng).expect("few indices are in use");
        Initiator::new(self.now, &local_keys(seed), aim, offer, index, &mut self.rng).expect("a usable key")
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let (action, who, address) = (script.u8(), usize::from(script.u8() % 3), script.u8() % 4);
        match action % 8 {
            0..4 => {
                let mut datagram = self.flight(who, address)[usize::from(action % 4 % 3)].clone();
                script.damage(&mut datagram);
                if script.u8() % 2 == 1 {
                    self.repair(&mut datagram);
                }
                self.deliver(who, address, &datagram, script);
            }
            4 => {
                let mut datagram = script.chunk().to_vec();
                self.repair(&mut datagram);
                self.deliver(who, address, &datagram, script);
            }
            5 => {
                self.now = self.now + Duration::from_millis(u64::from(script.u16()));
                self.responder.handle_timeout(self.now);
                self.far[who].initiator = None;
            }
            6 => {
                self.policy = policy([RESPONDER, 1, 2], [1 + script.u8() % 2]);
                self.responder.handle_policy(&self.policy);
            }
            _ => self.flood(who, address, script),
        }
        let (members, guests) = self.responder.half_open_counts();
        assert!(members <= 4 * INITIATORS.len() && guests <= 64);
        assert!(self.traffic.values().all(|(received, sent)| sent <= received), "more bytes went out than came in");
    }

    /// The three datagrams of an initiator.
    fn flight(&mut self, who: usize, address: u8) -> [Vec<u8>; 3] {
        if self.far[who].initiator.is_none() {
            self.far[who].initiator = Some(self.initiate(INITIATORS[who]));
        }
        let initiator = self.far[who].initiator.as_ref().expect("made above");
        initiator.datagrams(source(address)).map(<[u8]>::to_vec)
    }

    /// Makes mac1 fit, as anybody can who knows the network's secret.
    fn repair(&self, datagram: &mut [u8]) {
        let macs = if datagram.first() == Some(&1) { 32 } else { 16 };
        let Some(covered) = datagram.len().checked_sub(macs) else { return };
        let mac1 = self.keys.network_keys(&transport_key(RESPONDER)).mac1(&datagram[..covered]);
        datagram[covered..covered + 16].copy_from_slice(&mac1);
    }

    /// Sends an initiation again and again, so that the responder asks for cookies.
    fn flood(&mut self, who: usize, address: u8, script: &mut Script<'_>) {
        let datagram = self.flight(who, address)[0].clone();
        for _ in 0..script.u8() {
            self.deliver(who, address, &datagram, &mut Script::new(&[]));
        }
    }

    fn deliver(&mut self, who: usize, address: u8, datagram: &[u8], script: &mut Script<'_>) {
        self.traffic.entry(address).or_default().0 += datagram.len();
        let local = Local { keys: &self.keys, policy: &self.policy, terms: &self.terms };
        let inbound = Inbound { now: self.now, source: source(address), datagram };
        let Ok(outcome) = self.responder.handle(local, inbound, &mut self.indices, &mut self.rng) else { return };
        if let Some(established) = &outcome.established {
            self.check(established);
        }
        assert!(outcome.transmit.len() <= 2);
        for mut answer in outcome.transmit {
            self.traffic.entry(address).or_default().1 += answer.len();
            script.damage(&mut answer);
            let _ = self.answer(who, address, &answer);
        }
    }

    fn answer(&mut self, who: usize, address: u8, answer: &[u8]) -> Result<Option<Established>, Refusal> {
        let Far { keys, initiator } = &mut self.far[who];
        let Some(initiator) = initiator else { return Ok(None) };
        let _ = initiator.handle_cookie(source(address), answer);
        let local = Local { keys, policy: &self.policy, terms: &self.terms };
        initiator.handle_response(local, self.now, answer)
    }

    /// Whoever gets a session holds a key, and gets no more than the policy says of it.
    fn check(&self, established: &Established) {
        let key: &TransportKey = established.session.admission().transport_key();
        let number = INITIATORS.into_iter().find(|seed| transport_key(*seed) == *key).expect("somebody's real key");
        let expected = match self.policy.member(&node_id(number)) {
            Some(member) => Rights::Member(member.id),
            None => Rights::Guest,
        };
        assert_eq!(established.session.admission().rights(), expected);
    }
}

fn source(address: u8) -> Source {
    let socket = |last, port| SocketAddr::from(([192, 0, 2, last], port));
    match address {
        0..3 => Source::Endpoint(socket(1 + address, 4647)),
        _ => Source::Relayed { relay: socket(7, 4647), label: 5 },
    }
}
