//! Validators on a virtual network: one heap of events, one clock, one seed.

mod network;

use super::block::{CHAIN, Chain, Committed, id_of};
use super::disk::Disk;
use p2plus::crypto::hash::{Digest, domain_hash};
use p2plus::crypto::identity::{SigningKey, VerifyingKey};
use p2plus::ledger::consensus::wal::{Log, LogStore};
use p2plus::ledger::consensus::{
    Bft, BlockId, Certificate, Config, Halt, Height, Input, Misbehaviour, Orderer, Output, Recovery, Refusal, Round,
    Timeouts, Validator, ValidatorSet, Verdict, VoteKind,
};
use p2plus::time::{Instant, Now, UnixMillis};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub count: usize,
    pub latency: Duration,
    /// Added evenly between zero and this: messages overtake each other.
    pub jitter: Duration,
    pub loss_permille: u64,
    pub block_len: usize,
    pub heights: u64,
    pub seed: u64,
    /// Validators that know of a pending transaction by themselves; the others open a height when they are wanted.
    pub openers: usize,
    /// Whether members that are no validators give a node that starts the blocks that it lacks.
    pub members_answer: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            count: 4,
            latency: Duration::from_millis(25),
            jitter: Duration::from_millis(5),
            loss_permille: 0,
            block_len: 2000,
            heights: 100,
            seed: 1,
            openers: usize::MAX,
            members_answer: false,
        }
    }
}

/// Something that happens to a node.
#[derive(Clone, Debug)]
enum Event {
    Open,
    Timer,
    Deliver {
        from: VerifyingKey,
        bytes: Vec<u8>,
    },
    Build {
        height: Height,
        round: Round,
    },
    Execute {
        id: BlockId,
        block: Vec<u8>,
    },
    Sync(Vec<Committed>),
    Crash,
    /// Starts again, from an image of the disk or from the disk as it is.
    Restart(Option<Box<Disk>>),
    /// Dies after this many more outputs, in the middle of carrying them out.
    DieAfter(usize),
    TakeImage,
}

struct Scheduled {
    at: Instant,
    number: u64,
    node: usize,
    /// The life of the node for which it was meant; anything but the network's and the test's events dies with it.
    life: Option<u64>,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub struct Node {
    seed: [u8; 32],
    bft: Option<Bft>,
    life: u64,
    timer_at: Option<Instant>,
    die_after: Option<usize>,
    pub disk: Disk,
    pub image: Option<Disk>,
    /// Sends two versions of everything.
    pub is_liar: bool,
    pub misbehaved: Vec<Misbehaviour>,
    pub halted: Option<Halt>,
    pub refusals: BTreeMap<String, u64>,
    /// Its own blocks break the rules; it keeps those of the protocol.
    pub builds_invalid: bool,
    /// Proposals do not reach it unless it asks for them.
    pub is_deaf_to_proposals: bool,
    /// The votes that left the node, over all its lives.
    pub votes: BTreeMap<(Height, Round, VoteKind), Option<BlockId>>,
    /// Its own proposals, likewise.
    pub proposals: BTreeMap<(Height, Round), BlockId>,
}

impl Node {
    pub fn key(&self) -> SigningKey {
        SigningKey::from_seed(&self.seed)
    }

    pub fn is_up(&self) -> bool {
        self.bft.is_some()
    }

    pub fn bft(&self) -> &Bft {
        self.bft.as_ref().unwrap()
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub messages: u64,
    pub bytes: u64,
    pub syncs: u64,
    pub log_bytes: u64,
    pub log_syncs: u64,
}

/// Two groups that do not hear each other for a while.
#[derive(Clone, Copy, Debug)]
pub struct Partition {
    pub from: Instant,
    pub until: Instant,
    /// Nodes below this number are on one side.
    pub split: usize,
}

pub struct Cluster {
    pub options: Options,
    pub now: Instant,
    pub nodes: Vec<Node>,
    pub validators: ValidatorSet,
    pub counts: Counts,
    pub partition: Option<Partition>,
    /// The one block that anybody honest has committed at each height.
    pub history: BTreeMap<Height, BlockId>,
    /// The same with its blocks: what members that are no validators hold.
    shown: Chain,
    /// A hash over everything that happened.
    pub trace: Digest,
    heap: BinaryHeap<Reverse<Scheduled>>,
    number: u64,
    rng: ChaCha20Rng,
}

pub fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1000)
}

impl Cluster {
    pub fn new(options: Options) -> Self {
        let seeds: Vec<[u8; 32]> = (1..=options.count).map(|seed| [u8::try_from(seed).unwrap(); 32]).collect();
        let validator = |seed: &[u8; 32]| Validator { key: SigningKey::from_seed(seed).verifying_key(), power: 1 };
        let validators = ValidatorSet::new(seeds.iter().map(validator).collect()).unwrap();
        let mut nodes: Vec<_> = seeds
            .into_iter()
            .map(|seed| Node {
                seed,
                bft: None,
                life: 0,
                timer_at: None,
                die_after: None,
                disk: Disk::default(),
                image: None,
                is_liar: false,
                misbehaved: Vec::new(),
                halted: None,
                refusals: BTreeMap::new(),
                builds_invalid: false,
                is_deaf_to_proposals: false,
                votes: BTreeMap::new(),
                proposals: BTreeMap::new(),
            })
            .collect();
        // A node's number is its place.
        nodes.sort_by_key(|node| node.key().verifying_key());
        let mut cluster = Self {
            options,
            now: Instant::ZERO,
            nodes,
            validators,
            counts: Counts::default(),
            partition: None,
            history: BTreeMap::new(),
            shown: Chain::default(),
            trace: Digest::default(),
            heap: BinaryHeap::new(),
            number: 0,
            rng: ChaCha20Rng::seed_from_u64(options.seed),
        };
        for node in 0..options.count {
            cluster.boot(node, Recovery::NewKey);
        }
        cluster
    }

    pub fn crash_at(&mut self, at: Instant, node: usize) {
        self.schedule(at, node, None, Event::Crash);
    }

    pub fn die_after(&mut self, at: Instant, node: usize, outputs: usize) {
        self.schedule(at, node, None, Event::DieAfter(outputs));
    }

    pub fn restart_at(&mut self, at: Instant, node: usize) {
        self.schedule(at, node, None, Event::Restart(None));
    }

    /// Copies the disk at one time, to bring it back at another.
    pub fn restore_at(&mut self, image_at: Instant, restore_at: Instant, node: usize) {
        self.schedule(image_at, node, None, Event::TakeImage);
        self.schedule(restore_at, node, None, Event::Restart(Some(Box::default())));
    }

    pub fn random(&mut self, below: u64) -> u64 {
        self.rng.next_u64() % below.max(1)
    }

    /// Runs until every honest node that is up has all heights, or the virtual time is over; says which.
    pub fn run(&mut self, limit: Duration) -> bool {
        let limit = Instant::ZERO + limit;
        while !self.is_done() {
            let Some(Reverse(next)) = self.heap.pop() else { return false };
            if next.at > limit {
                return false;
            }
            self.now = next.at;
            let is_stale = next.life.is_some_and(|life| life != self.nodes[next.node].life);
            if !is_stale {
                self.happen(next.node, next.event);
            }
        }
        true
    }

    fn is_done(&self) -> bool {
        let mut honest = self.nodes.iter().filter(|node| node.is_up() && !node.is_liar);
        let comings = |event: &Reverse<Scheduled>| matches!(event.0.event, Event::Restart(_));
        honest.all(|node| node.disk.chain.head().0 >= self.options.heights) && !self.heap.iter().any(comings)
    }

    fn schedule(&mut self, at: Instant, node: usize, life: Option<u64>, event: Event) {
        self.number += 1;
        self.heap.push(Reverse(Scheduled { at, number: self.number, node, life, event }));
    }

    fn soon(&mut self, node: usize, event: Event) {
        let life = self.nodes[node].life;
        self.schedule(self.now, node, Some(life), event);
    }

    fn happen(&mut self, node: usize, event: Event) {
        let kind = std::mem::discriminant(&event);
        let label = format!("{:?} {node} {kind:?}", self.now);
        self.trace = domain_hash("p2plus/sim/trace", &[&self.trace.0, label.as_bytes()]);
        match event {
            Event::Restart(image) => self.restart(node, image.is_some()),
            Event::TakeImage => self.nodes[node].image = Some(self.nodes[node].disk.clone()),
            Event::DieAfter(outputs) => self.nodes[node].die_after = Some(outputs),
            Event::Crash => self.crash(node),
            _ if !self.nodes[node].is_up() => {}
            Event::Open => self.open(node),
            Event::Timer => {
                self.nodes[node].timer_at = None;
                let due = self.nodes[node].bft().poll_timeout().is_some_and(|(at, _)| at <= self.now);
                if due {
                    self.give(node, Input::Timer);
                } else {
                    self.set_timer(node);
                }
            }
            Event::Deliver { from, bytes } => {
                self.trace = domain_hash("p2plus/sim/trace", &[&self.trace.0, &bytes]);
                self.give(node, Input::Message { from, bytes });
            }
            Event::Build { height, round } => {
                // A validator that builds twice for one round, as after a crash, does not build the same.
                let salt = self.rng.next_u64();
                let it = &self.nodes[node];
                let block = it.disk.chain.build(!it.builds_invalid, self.options.block_len, salt);
                self.give(node, Input::Built { height, round, block });
            }
            Event::Execute { id, block } => {
                let verdict = Verdict::from(self.nodes[node].disk.chain.accepts(&block, &self.validators));
                self.give(node, Input::Validated { block: id, verdict });
            }
            Event::Sync(blocks) => self.take_synced(node, blocks),
        }
    }

    fn boot(&mut self, node: usize, recovery: Recovery) {
        let it = &mut self.nodes[node];
        let head = it.disk.chain.head();
        let config = Config { chain: CHAIN, head, id_of, timeouts: Timeouts::default() };
        it.bft = Some(Bft::new(config, it.key(), recovery));
        if node < self.options.openers {
            self.soon(node, Event::Open);
        }
    }

    fn crash(&mut self, node: usize) {
        let random = self.rng.next_u64();
        let it = &mut self.nodes[node];
        it.bft = None;
        it.life += 1;
        it.timer_at = None;
        it.die_after = None;
        it.disk.log.crash(random);
    }

    fn restart(&mut self, node: usize, from_image: bool) {
        if self.nodes[node].is_up() {
            self.crash(node);
        }
        if from_image {
            self.nodes[node].disk = self.nodes[node].image.clone().unwrap();
        }
        if self.options.members_answer {
            let chain = &mut self.nodes[node].disk.chain;
            let missing = self.shown.0.iter().skip(chain.0.len());
            chain.0.extend(missing.cloned());
        }
        let bytes = self.nodes[node].disk.log.load().unwrap();
        self.boot(node, Recovery::Log(Log::decode(&bytes).unwrap()));
    }

    fn open(&mut self, node: usize) {
        let start = self.nodes[node].disk.chain.next_start(&self.validators);
        if start.height.0 <= self.options.heights {
            self.give(node, Input::Start(start));
        }
    }

    /// Gives one input to a node and carries out what comes of it, in order.
    pub fn give(&mut self, node: usize, input: Input) {
        let now = Now { instant: self.now, wall: UnixMillis(self.now.as_micros() / 1000) };
        let Some(bft) = self.nodes[node].bft.as_mut() else { return };
        if let Err(refusal) = bft.handle(now, input) {
            *self.nodes[node].refusals.entry(format!("{refusal:?}")).or_default() += 1;
            assert_ne!(refusal, Refusal::BadStart, "node {node} at {:?}", self.now);
        }
        while let Some(output) = self.nodes[node].bft.as_mut().and_then(Orderer::poll_output) {
            if self.nodes[node].die_after == Some(0) {
                return self.crash(node);
            }
            if let Some(left) = &mut self.nodes[node].die_after {
                *left -= 1;
            }
            self.carry_out(node, output);
        }
        self.set_timer(node);
    }

    fn set_timer(&mut self, node: usize) {
        let Some((due, _)) = self.nodes[node].bft.as_ref().and_then(Orderer::poll_timeout) else { return };
        let due = due.max(self.now);
        if self.nodes[node].timer_at.is_none_or(|set| due < set) {
            self.nodes[node].timer_at = Some(due);
            let life = self.nodes[node].life;
            self.schedule(due, node, Some(life), Event::Timer);
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        match output {
            Output::Persist(frame) => {
                self.counts.log_bytes += frame.len() as u64;
                self.nodes[node].disk.log.append(&frame).unwrap();
            }
            Output::Restart(frame) => self.nodes[node].disk.log.reset(&frame).unwrap(),
            Output::Build { height, round } => self.soon(node, Event::Build { height, round }),
            Output::Validate { id, block, .. } => self.soon(node, Event::Execute { id, block: block.to_vec() }),
            Output::Send { to, bytes } => {
                self.counts.log_syncs += u64::from(self.nodes[node].disk.log.is_dirty());
                self.nodes[node].disk.log.sync().unwrap();
                self.send(node, to, &bytes);
            }
            Output::Decided { id, block, certificate } => self.commit(node, id, &block, certificate),
            Output::Misbehaved(misbehaviour) => self.nodes[node].misbehaved.push(misbehaviour),
            Output::NeedSync { height } => self.sync(node, height),
            Output::Wanted { height } => {
                if height == self.nodes[node].disk.chain.head().next() {
                    self.soon(node, Event::Open);
                }
            }
            Output::Halted(reason) => self.nodes[node].halted = Some(reason),
        }
    }

    fn commit(&mut self, node: usize, id: BlockId, bytes: &[u8], certificate: Certificate) {
        certificate.verify(&CHAIN, &self.validators).unwrap();
        assert_eq!((certificate.block, id_of(bytes)), (id, Some(id)));
        let chain = &mut self.nodes[node].disk.chain;
        assert_eq!(certificate.height, chain.head().next());
        let first = *self.history.entry(certificate.height).or_insert(id);
        assert_eq!(first, id, "two blocks at height {}, seed {}", certificate.height, self.options.seed);
        assert!(chain.accepts(bytes, &self.validators), "a block that breaks the rules was committed");
        let committed = Committed { id, bytes: bytes.to_vec(), certificate, at: self.now };
        if committed.certificate.height > self.shown.head() {
            self.shown.0.push(committed.clone());
        }
        chain.0.push(committed);
        if node < self.options.openers {
            self.soon(node, Event::Open);
        }
    }

    fn sync(&mut self, node: usize, height: Height) {
        let has_it = |donor: &usize| {
            let it = &self.nodes[*donor];
            *donor != node
                && it.is_up()
                && !it.is_liar
                && it.disk.chain.at(height).is_some()
                && self.connected(node, *donor)
        };
        let Some(donor) = (0..self.nodes.len()).find(has_it) else { return };
        let first = usize::try_from(height.0).unwrap() - 1;
        let blocks = self.nodes[donor].disk.chain.0[first..].iter().take(64).cloned().collect();
        self.counts.syncs += 1;
        let back = self.now + self.options.latency * 2;
        let life = self.nodes[node].life;
        self.schedule(back, node, Some(life), Event::Sync(blocks));
    }

    /// One block goes through the orderer; more of them straight to the chain, which leaves the open height behind.
    fn take_synced(&mut self, node: usize, blocks: Vec<Committed>) {
        let is_open = self.nodes[node].bft().status().2 != p2plus::ledger::consensus::Step::Waiting;
        if blocks.len() == 1 && is_open {
            let Committed { bytes, certificate, .. } = blocks.into_iter().next().unwrap();
            return self.give(node, Input::Synced { block: bytes, certificate });
        }
        for block in blocks {
            if block.certificate.height == self.nodes[node].disk.chain.head().next() {
                self.commit(node, block.id, &block.bytes, block.certificate);
            }
        }
        self.soon(node, Event::Open);
    }
}
