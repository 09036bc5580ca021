//! A control link that gets arbitrary packets from a member and from a guest, beside a real peer whose packets are lost, repeated and
//! damaged.
//!
//! It must not panic, must keep its connections bounded, and must give nobody a service that is not theirs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::node::control::{ControlLink, GUEST_SOCKETS, LinkId, MAX_MESSAGE_LEN, MEMBER_SOCKETS, Service, Standing};
use p2plus::policy::Rights;
use p2plus::time::Instant;
use p2plus_fuzz::{Script, internet_checksum, node_id, transport_key};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::Duration;

const MEMBER: usize = 1;
const GUEST: usize = 2;
/// Steps of one run.
const MAX_STEPS: usize = 400;
/// Packets that wait on the path in one direction.
const MAX_FLYING: usize = 64;
const PORTS: [u16; 8] = [0, 1, 2, 3, 4, 5, 49_152, 65_535];

struct Stage {
    now: Instant,
    /// The link under attack, a member's and a guest's.
    links: [ControlLink; 3],
    /// Packets from the attacked link to each of the others, and back.
    outward: [VecDeque<Vec<u8>>; 3],
    inward: [VecDeque<Vec<u8>>; 3],
}

fuzz_target!(|bytes: &[u8]| {
    let mut script = Script::new(bytes);
    let mut stage = Stage::new();
    for _ in 0..MAX_STEPS {
        if script.is_over() {
            break;
        }
        stage.step(&mut script);
        stage.check();
    }
});

fn id(index: usize) -> LinkId {
    static IDS: OnceLock<[LinkId; 3]> = OnceLock::new();
    IDS.get_or_init(|| [1, 2, 3].map(|seed| LinkId(transport_key(seed))))[index]
}

fn standing(index: usize) -> Standing {
    match index {
        GUEST => Standing::Peer(Rights::Guest),
        _ => Standing::Peer(Rights::Member(node_id(index as u8 + 1))),
    }
}

impl Stage {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let mut links = [0, 1, 2].map(|index| ControlLink::new(id(index), &mut rng));
        for index in [MEMBER, GUEST] {
            links[0].attach(id(index), standing(index)).expect("few peers");
        }
        links[MEMBER].attach(id(0), standing(0)).expect("one peer");
        links[GUEST].attach(id(0), Standing::Host).expect("one peer");
        let (outward, inward) = Default::default();
        Self { now: Instant::from_micros(1_000_000), links, outward, inward }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let (action, who) = (script.u8(), MEMBER + usize::from(script.u8() % 2));
        match action % 10 {
            0 => self.attack(who, script.chunk()),
            1 | 2 => self.attack(who, &segment(who, script)),
            3 => {
                let _ = self.links[0].send(self.now, id(who), service(script), vec![7; usize::from(script.u16())]);
            }
            4 => {
                let _ = self.links[who].send(self.now, id(0), service(script), vec![8; usize::from(script.u16())]);
            }
            5 => self.exchange(who, script),
            6 => {
                for _ in 0..script.u8() {
                    self.exchange(who, &mut Script::new(&[]));
                }
            }
            7 => {
                self.now = self.now + Duration::from_millis(u64::from(script.u16()));
                self.links.iter_mut().for_each(|link| link.handle_timeout(self.now));
            }
            8 => {
                let standings = [standing(MEMBER), standing(GUEST), Standing::Host];
                let _ = self.links[0].attach(id(who), standings[usize::from(script.u8() % 3)]);
                // The check of services below goes by the first standing.
                while self.links[0].poll_message().is_some() {}
                let _ = self.links[0].attach(id(who), standing(who));
            }
            _ => {
                self.links[0].close_peer(id(who));
                let _ = self.links[0].attach(id(who), standing(who));
            }
        }
        self.collect();
    }

    fn attack(&mut self, who: usize, packet: &[u8]) {
        let _ = self.links[0].handle_packet(self.now, id(who), packet);
    }

    /// Carries one packet in each direction: lost, repeated or damaged as the script says.
    fn exchange(&mut self, who: usize, script: &mut Script<'_>) {
        let fate = script.u8();
        if let Some(mut packet) = self.inward[who].pop_front() {
            script.damage(&mut packet);
            if fate & 2 != 0 {
                complete(&mut packet);
            }
            for _ in 0..[1, 1, 2, 0][usize::from(fate >> 2 & 3)] {
                self.attack(who, &packet);
            }
        }
        if let Some(packet) = self.outward[who].pop_front() {
            let _ = self.links[who].handle_packet(self.now, id(0), &packet);
        }
        self.collect();
    }

    fn collect(&mut self) {
        for index in 0..3 {
            while let Some((peer, packet)) = self.links[index].poll_transmit() {
                let Some(to) = (0..3).find(|other| id(*other) == peer) else { continue };
                let queue = if index == 0 { &mut self.outward[to] } else { &mut self.inward[index] };
                if queue.len() < MAX_FLYING {
                    queue.push_back(packet);
                }
            }
            while self.links[index].poll_event().is_some() {}
        }
    }

    fn check(&mut self) {
        assert!(self.links[0].connection_count() <= MEMBER_SOCKETS + GUEST_SOCKETS);
        while let Some((peer, service, message)) = self.links[0].poll_message() {
            let who = if peer == id(GUEST) { GUEST } else { MEMBER };
            assert!(standing(who).allows(service), "a message for a service that is not the sender's");
            assert!((1..=MAX_MESSAGE_LEN).contains(&message.len()));
            assert!(who == MEMBER || message.len() <= 64 << 10);
        }
        for index in 0..3 {
            while self.links[index].poll_message().is_some() {}
            let _ = self.links[index].poll_timeout();
        }
    }
}

fn service(script: &mut Script<'_>) -> Service {
    Service::ALL[usize::from(script.u8()) % Service::ALL.len()]
}

/// Makes a TCP segment from `who` whose header is the script's, in a packet that is otherwise in order.
fn segment(who: usize, script: &mut Script<'_>) -> Vec<u8> {
    let port = |choice: u8| PORTS[usize::from(choice) % PORTS.len()];
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    packet[6..8].copy_from_slice(&[6, 64]);
    packet[8..24].copy_from_slice(&id(who).address().octets());
    packet[24..40].copy_from_slice(&id(0).address().octets());
    packet.extend(port(script.u8()).to_be_bytes());
    packet.extend(port(script.u8()).to_be_bytes());
    packet.extend(script.array::<8>());
    packet.extend([(5 + script.u8() % 11) << 4, script.u8()]);
    packet.extend(script.array::<2>());
    packet.extend([0; 4]);
    packet.extend(script.chunk());
    let payload_len = (packet.len() - 40).min(1200);
    packet.truncate(40 + payload_len);
    packet[4..6].copy_from_slice(&(payload_len as u16).to_be_bytes());
    complete(&mut packet);
    packet
}

/// Writes the TCP checksum of an IPv6 packet without extensions.
fn complete(packet: &mut [u8]) {
    if packet.len() < 60 {
        return;
    }
    packet[56..58].fill(0);
    let len = (packet.len() as u32 - 40).to_be_bytes();
    let checksum = internet_checksum(&[&packet[8..40], &len, &[0, 0, 0, 6], &packet[40..]]);
    packet[56..58].copy_from_slice(&checksum.to_be_bytes());
}
