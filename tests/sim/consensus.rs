//! Consensus among simulated validators: the very same `Bft` that the daemon runs.

mod block;
mod cluster;
mod disk;

use cluster::{Cluster, Options, Partition, at};
use p2plus::ledger::consensus::{Height, Misbehaviour};
use std::collections::BTreeMap;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

/// What the table shows of a run, as one node saw it.
struct Figures {
    latencies: Vec<Duration>,
    rounds: BTreeMap<u32, usize>,
    cpu: Duration,
}

fn run(options: Options, prepare: impl FnOnce(&mut Cluster)) -> (Cluster, Figures) {
    let before = thread_cpu();
    let mut cluster = Cluster::new(options);
    prepare(&mut cluster);
    assert!(cluster.run(HOUR), "stuck, seed {}: {:?}", options.seed, standing(&cluster));
    let cpu = thread_cpu().saturating_sub(before);
    let figures = figures(&cluster, cpu);
    (cluster, figures)
}

fn standing(cluster: &Cluster) -> Vec<String> {
    let line = |node: &cluster::Node| {
        let status = node.is_up().then(|| node.bft().status());
        format!("head {} {status:?} {:?} {:?}", node.disk.chain.head(), node.halted, node.refusals)
    };
    cluster.nodes.iter().map(line).collect()
}

fn figures(cluster: &Cluster, cpu: Duration) -> Figures {
    let observer = cluster.nodes.iter().find(|node| node.is_up() && !node.is_liar).unwrap();
    let blocks = &observer.disk.chain.0;
    let mut latencies: Vec<_> = blocks.windows(2).map(|pair| pair[1].at.saturating_since(pair[0].at)).collect();
    latencies.sort_unstable();
    let mut rounds = BTreeMap::new();
    blocks.iter().for_each(|block| *rounds.entry(block.certificate.round.0).or_default() += 1);
    Figures { latencies, rounds, cpu }
}

/// The processor time of this thread, where the kernel tells it.
fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0))
}

fn row(name: &str, cluster: &Cluster, figures: &Figures) -> String {
    let millis = |span: Duration| span.as_secs_f64() * 1e3;
    let part = |percent: usize| millis(figures.latencies[figures.latencies.len() * percent / 101]);
    let heights = cluster.history.len() as f64;
    let rounds: Vec<_> = figures.rounds.iter().map(|(round, count)| format!("{round}: {count}")).collect();
    format!(
        "| {name} | {:.1} / {:.1} / {:.1} | {} | {:.2} | {:.1} | {:.1} | {:.1} | {} |",
        part(50),
        part(95),
        part(100),
        rounds.join(", "),
        millis(figures.cpu) / heights,
        cluster.counts.messages as f64 / heights,
        cluster.counts.bytes as f64 / heights / 1000.0,
        cluster.counts.log_syncs as f64 / heights / cluster.nodes.len() as f64,
        cluster.counts.syncs,
    )
}

fn crash(node: usize, from: u64, until: u64) -> impl FnOnce(&mut Cluster) {
    move |cluster| {
        cluster.crash_at(at(from), node);
        cluster.restart_at(at(until), node);
    }
}

fn with_liar(node: usize) -> impl FnOnce(&mut Cluster) {
    move |cluster| cluster.nodes[node].is_liar = true
}

/// The figures of `docs/consensus.md`: `cargo test --test sim table -- --nocapture`.
#[test]
fn table_of_latencies() {
    let options = Options::default();
    let lossy = Options { loss_permille: 50, jitter: Duration::from_millis(20), ..options };
    let split = Partition { from: at(2000), until: at(8000), split: 2 };
    let runs = [
        ("n = 1", run(Options { count: 1, ..options }, |_| {})),
        ("n = 4, all well", run(options, |_| {})),
        ("n = 4, one crashed from the start", run(options, |cluster| cluster.crash_at(at(0), 3))),
        ("n = 4, crash at 3 s, restart at 6 s", run(options, crash(3, 3000, 6000))),
        ("n = 4, one lies in proposals and votes", run(options, with_liar(3))),
        ("n = 4, 5 % loss", run(lossy, |_| {})),
        ("n = 4, 2\\|2 apart from 2 s to 8 s", run(options, |cluster| cluster.partition = Some(split))),
        ("n = 7", run(Options { count: 7, ..options }, |_| {})),
        ("n = 31", run(Options { count: 31, heights: 10, ..options }, |_| {})),
    ];
    println!(
        "| scenario | ms per height p50 / p95 / max | rounds | CPU ms | messages | kB | fsyncs per node | blocks fetched |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (name, (cluster, figures)) in &runs {
        println!("{}", row(name, cluster, figures));
    }
    let p50 = |place: usize| figures_p50(&runs[place].1.1);
    assert_eq!(p50(0), Duration::ZERO);
    assert!(p50(1) < Duration::from_millis(90) && p50(7) < Duration::from_millis(90));
}

fn figures_p50(figures: &Figures) -> Duration {
    figures.latencies[figures.latencies.len() / 2]
}

#[test]
fn one_validator_decides_without_a_message() {
    let (cluster, figures) = run(Options { count: 1, ..Options::default() }, |_| {});
    assert_eq!(cluster.counts.messages, 0);
    assert_eq!(figures.rounds, BTreeMap::from([(0, 100)]));
    assert_eq!(cluster.now, at(0), "no timeout passed");
}

#[test]
fn four_validators_decide_every_height_in_the_first_round() {
    let (cluster, figures) = run(Options::default(), |_| {});
    assert_eq!(figures.rounds, BTreeMap::from([(0, 100)]));
    assert!(figures.latencies.last().unwrap() < &Duration::from_millis(100), "three hops of 25 to 30 ms");
    assert!(cluster.nodes.iter().all(|node| node.misbehaved.is_empty() && node.halted.is_none()));
}

#[test]
fn a_crashed_proposer_costs_two_timeouts_and_not_one_in_four_heights() {
    let (cluster, figures) = run(Options::default(), |cluster| cluster.crash_at(at(1000), 3));
    let later_rounds = figures.rounds.iter().filter(|(round, _)| **round > 0).map(|(_, count)| count).sum::<usize>();
    assert!(later_rounds <= 2, "{:?}", figures.rounds);
    assert_eq!(cluster.nodes[0].disk.chain.head(), Height(100));
}

#[test]
fn a_validator_comes_back_through_its_log_and_by_sync() {
    let (cluster, figures) = run(Options::default(), crash(3, 3000, 6000));
    assert!(cluster.nodes.iter().all(|node| node.disk.chain.head() == Height(100)));
    assert!(cluster.counts.syncs > 0);
    let votes_again = cluster.nodes[3].votes.keys().any(|(height, ..)| *height == Height(100));
    assert!(votes_again && figures.rounds[&0] >= 97, "{:?}", figures.rounds);
}

#[test]
fn all_validators_crash_at_once_and_go_on() {
    for seed in 0..20 {
        let (cluster, _) = run(Options { seed, heights: 30, ..Options::default() }, |cluster| {
            for node in 0..4 {
                let moment = cluster.random(200);
                cluster.crash_at(at(1000 + moment), node);
                cluster.restart_at(at(1500 + moment), node);
            }
        });
        assert!(cluster.nodes.iter().all(|node| node.disk.chain.head() == Height(30) && node.halted.is_none()));
    }
}

#[test]
fn a_liar_is_reported_by_the_honest() {
    let (cluster, _) = run(Options::default(), with_liar(3));
    let liar = cluster.nodes[3].key().verifying_key();
    for node in &cluster.nodes[..3] {
        let mut kinds = (false, false);
        for misbehaviour in &node.misbehaved {
            match misbehaviour {
                Misbehaviour::Votes(evidence) => {
                    assert!(evidence.validator == liar && evidence.is_valid(&block::CHAIN));
                    kinds.0 = true;
                }
                Misbehaviour::Proposals { proposer, first, second } => {
                    assert!(*proposer == liar && first.block != second.block && first.round == second.round);
                    for proposal in [first, second] {
                        liar.verify(&proposal.signed_bytes(&block::CHAIN), &proposal.signature).unwrap();
                    }
                    kinds.1 = true;
                }
            }
        }
        assert_eq!(kinds, (true, true));
    }
}

#[test]
fn two_halves_do_not_decide_apart_and_go_on_together() {
    let split = Partition { from: at(2000), until: at(8000), split: 2 };
    let (cluster, figures) = run(Options::default(), |cluster| cluster.partition = Some(split));
    let apart = |block: &&block::Committed| block.at > at(2100) && block.at < at(8000);
    assert_eq!(cluster.nodes[0].disk.chain.0.iter().filter(apart).count(), 0);
    assert!(figures.latencies.last().unwrap() < &Duration::from_secs(8));
}

#[test]
fn seven_validators_outvote_two_that_are_down() {
    let (_, figures) = run(Options { count: 7, ..Options::default() }, |cluster| {
        cluster.crash_at(at(0), 2);
        cluster.crash_at(at(0), 5);
    });
    assert!(figures.rounds[&0] >= 96, "{:?}", figures.rounds);
}

#[test]
fn an_invalid_block_is_refused_at_once_and_the_next_proposer_is_heard() {
    let (cluster, figures) = run(Options::default(), |cluster| cluster.nodes[1].builds_invalid = true);
    assert!(figures.rounds[&1] >= 15, "{:?}", figures.rounds);
    // Two rounds of three hops and no propose timeout; the prevote timeout does not run, since all agree on nil.
    assert!(figures.latencies.last().unwrap() < &Duration::from_millis(500), "{:?}", figures.latencies.last());
    assert!(cluster.nodes.iter().all(|node| node.misbehaved.is_empty()));
}

#[test]
fn a_proposal_that_got_lost_is_pulled_from_a_voter() {
    let (_, figures) = run(Options { heights: 20, ..Options::default() }, |cluster| {
        // Three of four are needed, and one of the three hears no proposal.
        cluster.crash_at(at(0), 3);
        cluster.nodes[0].is_deaf_to_proposals = true;
    });
    assert_eq!(figures.rounds, BTreeMap::from([(0, 20)]));
}

#[test]
fn a_height_that_one_validator_opens_is_opened_by_all() {
    let (cluster, _) = run(Options { openers: 1, heights: 20, ..Options::default() }, |_| {});
    assert!(cluster.nodes.iter().all(|node| node.disk.chain.head() == Height(20)));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let options =
            Options { seed, loss_permille: 50, jitter: Duration::from_millis(20), heights: 30, ..Options::default() };
        let (cluster, _) = run(options, |cluster| {
            cluster.nodes[3].is_liar = true;
            cluster.crash_at(at(1000), 1);
            cluster.restart_at(at(1700), 1);
        });
        (cluster.trace, cluster.now)
    };
    assert_eq!(trace(77), trace(77));
    assert_ne!(trace(77), trace(78));
}

#[test]
fn sixty_seeds_with_a_liar_and_loss_break_nothing_and_stick_nowhere() {
    for seed in 0..60 {
        let loss_permille = [0, 30, 100][usize::try_from(seed % 3).unwrap()];
        let (latency, jitter) = (Duration::from_millis(20), Duration::from_millis(40));
        let options = Options { seed, loss_permille, latency, jitter, heights: 20, ..Options::default() };
        run(options, with_liar(usize::try_from(seed % 4).unwrap()));
    }
}

#[test]
fn sixty_seeds_with_crashes_in_the_middle_of_a_write_break_nothing() {
    for seed in 0..60 {
        let options = Options { seed, loss_permille: 30, heights: 20, ..Options::default() };
        let (cluster, _) = run(options, |cluster| {
            for crash in 0..6 {
                let node = usize::try_from(cluster.random(4)).unwrap();
                let moment = crash * 400 + cluster.random(300);
                let outputs = usize::try_from(cluster.random(6)).unwrap();
                cluster.die_after(at(moment), node, outputs);
                cluster.restart_at(at(moment + 350), node);
            }
        });
        assert!(cluster.nodes.iter().all(|node| node.halted.is_none() && node.misbehaved.is_empty()));
    }
}

#[test]
fn a_restored_image_of_one_of_four_never_votes_twice() {
    for seed in 0..40 {
        let options = Options { seed, loss_permille: 20, heights: 60, ..Options::default() };
        let (cluster, _) = run(options, |cluster| {
            let image = 500 + cluster.random(500);
            // Within the same height as well as many heights later.
            let age = [5, 40, 90, 1500][usize::try_from(seed % 4).unwrap()];
            cluster.restore_at(at(image), at(image + age), 2);
        });
        assert!(cluster.nodes.iter().all(|node| node.misbehaved.is_empty() && node.halted.is_none()));
        assert!(cluster.nodes[2].votes.keys().any(|(height, ..)| *height > Height(50)), "it votes again");
    }
}

#[test]
fn one_validator_that_dies_anywhere_shows_one_block_per_height() {
    for outputs in 0..12 {
        let options = Options { count: 1, heights: 5, members_answer: false, ..Options::default() };
        let (cluster, _) = run(options, |cluster| {
            cluster.die_after(at(0), 0, outputs);
            cluster.restart_at(at(10), 0);
        });
        assert_eq!(cluster.history.len(), 5);
    }
}

/// Five heights, a copy of the disk from their middle, and its return when they are over.
fn restore_a_sole_validator(members_answer: bool) -> Cluster {
    let options = Options { count: 1, heights: 8, members_answer, ..Options::default() };
    let (cluster, _) = run(options, |cluster| {
        cluster.die_after(at(0), 0, 12);
        cluster.restore_at(at(1), at(30), 0);
        cluster.restart_at(at(10), 0);
    });
    cluster
}

#[test]
fn an_old_image_of_a_sole_validator_goes_on_from_what_members_hold() {
    assert_eq!(restore_a_sole_validator(true).history.len(), 8);
}

/// The bound: nobody else signs, so nobody else can know. Members that hold the first block notice the second.
#[test]
#[should_panic(expected = "two blocks at height")]
fn an_old_image_of_a_sole_validator_forks_the_chain_if_nobody_answers() {
    restore_a_sole_validator(false);
}
