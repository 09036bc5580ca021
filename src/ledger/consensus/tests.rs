//! One validator alone with its inputs; many together are in `tests/sim/consensus.rs`.

use super::message::{PolkaCertificate, RoundCertificate, RoundProof, RoundVote, SignedProposal, SignedVote};
use super::wal::{Log, Record};
use super::*;
use crate::crypto::hash::{Digest, domain_hash};
use crate::crypto::identity::{Signature, SigningKey};
use crate::time::UnixMillis;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::time::Duration;

const CHAIN: Digest = Digest([42; 32]);
const HEIGHT: Height = Height(5);

fn id_of(bytes: &[u8]) -> Option<BlockId> {
    bytes.starts_with(b"block").then(|| BlockId(domain_hash("p2plus/test/block", &[bytes])))
}

fn now(millis: u64) -> Now {
    Now { instant: Instant::from_micros(millis * 1000), wall: UnixMillis(millis) }
}

/// Four validators by place; the one under test is at place 0, and place 1 proposes at height 5.
struct Four {
    keys: Vec<SigningKey>,
    set: ValidatorSet,
}

impl Four {
    fn new() -> Self {
        let mut keys: Vec<_> = (1..=4).map(|seed| SigningKey::from_seed(&[seed; 32])).collect();
        keys.sort_by_key(SigningKey::verifying_key);
        let validators = keys.iter().map(|key| Validator { key: key.verifying_key(), power: 1 }).collect();
        Self { keys, set: ValidatorSet::new(validators).unwrap() }
    }

    fn key(&self, place: usize) -> VerifyingKey {
        self.keys[place].verifying_key()
    }

    fn start(&self, height: Height) -> Start {
        Start { height, validators: self.set.clone(), proposers: proposer_order(&self.set, None, height) }
    }

    fn bft(&self, head: u64, recovery: Recovery) -> Bft {
        let config = Config { chain: CHAIN, head: Height(head), id_of, timeouts: Timeouts::default() };
        Bft::new(config, SigningKey::from_seed(self.keys[0].seed()), recovery)
    }

    /// The validator at place 0 with height 5 open.
    fn open(&self) -> Bft {
        let mut bft = self.bft(4, Recovery::NewKey);
        bft.handle(now(0), Input::Start(self.start(HEIGHT))).unwrap();
        bft
    }

    fn vote(&self, place: usize, round: u32, kind: VoteKind, block: Option<BlockId>) -> SignedVote {
        let validator = u16::try_from(place).unwrap();
        let signature = Signature([0; 64]);
        let vote = SignedVote { height: HEIGHT, round: Round(round), kind, block, validator, signature };
        SignedVote { signature: self.keys[place].sign(&vote.signed_bytes(&CHAIN)), ..vote }
    }

    fn proposal(&self, place: usize, round: u32, pol_round: Option<u32>, block: &[u8]) -> Message {
        let unsigned = SignedProposal {
            height: HEIGHT,
            round: Round(round),
            pol_round: pol_round.map(Round),
            block: id_of(block).unwrap(),
            proposer: u16::try_from(place).unwrap(),
            signature: Signature([0; 64]),
        };
        let signature = self.keys[place].sign(&unsigned.signed_bytes(&CHAIN));
        Message::Proposal(SignedProposal { signature, ..unsigned }, block.to_vec())
    }

    fn say(&self, bft: &mut Bft, place: usize, message: &Message) -> Result<(), Refusal> {
        bft.handle(now(1), Input::Message { from: self.key(place), bytes: message.encode() })
    }
}

fn drain(bft: &mut Bft) -> Vec<Output> {
    std::iter::from_fn(|| bft.poll_output()).collect()
}

/// The votes among what is to be sent.
fn sent_votes(outputs: &[Output]) -> Vec<SignedVote> {
    let vote = |output: &Output| match output {
        Output::Send { bytes, .. } => match Message::decode(bytes) {
            Ok(Message::Vote(vote)) => Some(vote),
            _ => None,
        },
        _ => None,
    };
    outputs.iter().filter_map(vote).collect()
}

#[test]
fn one_validator_builds_and_decides() {
    let key = SigningKey::from_seed(&[1; 32]);
    let set = ValidatorSet::new(vec![Validator { key: key.verifying_key(), power: 1 }]).unwrap();
    let start = Start { height: Height(1), validators: set.clone(), proposers: vec![0] };
    for recovery in [Recovery::NewKey, Recovery::Log(Log::default()), Recovery::Lost] {
        let config = Config { chain: CHAIN, head: Height(0), id_of, timeouts: Timeouts::default() };
        let mut bft = Bft::new(config, SigningKey::from_seed(&[1; 32]), recovery);
        bft.handle(now(0), Input::Start(start.clone())).unwrap();
        assert!(drain(&mut bft).contains(&Output::Build { height: Height(1), round: Round(0) }));
        let block = b"block 1".to_vec();
        bft.handle(now(0), Input::Built { height: Height(1), round: Round(0), block }).unwrap();
        let outputs = drain(&mut bft);
        assert!(!outputs.iter().any(|output| matches!(output, Output::Send { .. })));
        let Some(Output::Decided { id, block, certificate }) = outputs.last() else { panic!("{outputs:?}") };
        assert_eq!((Some(*id), &block[..]), (id_of(b"block 1"), &b"block 1"[..]));
        assert_eq!(certificate.verify(&CHAIN, &set), Ok(()));
        assert_eq!((bft.poll_timeout(), bft.max_height_signed()), (None, Height(1)));
    }
}

#[test]
fn a_vote_leaves_behind_its_record() {
    let four = Four::new();
    let mut bft = four.open();
    drain(&mut bft);
    four.say(&mut bft, 1, &four.proposal(1, 0, None, b"block a")).unwrap();
    assert_eq!(sent_votes(&drain(&mut bft)), [], "not before it was executed");
    let id = id_of(b"block a").unwrap();
    bft.handle(now(2), Input::Validated { block: id, verdict: Verdict::Valid }).unwrap();
    let outputs = drain(&mut bft);
    let [vote] = sent_votes(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!((vote.kind, vote.block), (VoteKind::Prevote, Some(id)));
    let place = |wanted: &dyn Fn(&Output) -> bool| outputs.iter().position(wanted).unwrap();
    let record = Record::Vote(vote).frame();
    let persisted = place(&|output| *output == Output::Persist(record.clone()));
    assert!(persisted < place(&|output| matches!(output, Output::Send { .. })));
}

#[test]
fn an_invalid_block_is_answered_by_nil() {
    let four = Four::new();
    let mut bft = four.open();
    four.say(&mut bft, 1, &four.proposal(1, 0, None, b"block a")).unwrap();
    let block = id_of(b"block a").unwrap();
    bft.handle(now(2), Input::Validated { block, verdict: Verdict::Invalid }).unwrap();
    assert_eq!(sent_votes(&drain(&mut bft)), [four.vote(0, 0, VoteKind::Prevote, None)]);
}

#[test]
fn what_is_wrong_with_a_message_has_a_name() {
    let four = Four::new();
    let mut bft = four.open();
    let garbage = Input::Message { from: four.key(1), bytes: vec![200; 40] };
    assert_eq!(bft.handle(now(1), garbage), Err(Refusal::Malformed(Malformed::Undecodable)));
    let prevote = four.vote(1, 0, VoteKind::Prevote, None);
    let stranger = SigningKey::from_seed(&[9; 32]).verifying_key();
    for from in [stranger, four.key(0)] {
        let message = Input::Message { from, bytes: Message::Vote(prevote).encode() };
        assert_eq!(bft.handle(now(1), message), Err(Refusal::UnknownSender));
    }
    let nobody = SignedVote { validator: 4, ..prevote };
    let forged = SignedVote { block: Some(BlockId::default()), ..prevote };
    let old = SignedVote { height: Height(4), ..prevote };
    let far = four.vote(1, 11, VoteKind::Prevote, None);
    let mut refused = |message: Message| four.say(&mut bft, 1, &message).unwrap_err();
    assert_eq!(refused(Message::Vote(nobody)), Refusal::UnknownValidator);
    assert_eq!(refused(Message::Vote(forged)), Refusal::BadSignature);
    assert_eq!(refused(Message::Vote(old)), Refusal::Old);
    assert_eq!(refused(Message::Vote(far)), Refusal::TooFarAhead);
    assert_eq!(refused(four.proposal(2, 0, None, b"block")), Refusal::NotTheProposer);
    assert_eq!(refused(four.proposal(1, 0, Some(0), b"block")), Refusal::NotTheProposer);
    assert_eq!(refused(four.proposal(3, 2, None, b"block")), Refusal::TooFarAhead);
    let Message::Proposal(proposal, _) = four.proposal(1, 0, None, b"block a") else { unreachable!() };
    assert_eq!(refused(Message::Proposal(proposal, b"block b".to_vec())), Refusal::WrongBlock);
    assert_eq!(refused(Message::Proposal(proposal, b"no block".to_vec())), Refusal::WrongBlock);
    let unsigned = SignedProposal { signature: Signature([1; 64]), ..proposal };
    assert_eq!(refused(Message::Proposal(unsigned, b"block a".to_vec())), Refusal::BadSignature);
    let lost = Message::LastVote(Some(SignedVote {
        signature: Signature([1; 64]),
        ..four.vote(0, 3, VoteKind::Prevote, None)
    }));
    assert_eq!(refused(lost), Refusal::BadSignature);
    let get = Message::GetProposal { height: HEIGHT, round: Round(0), block: BlockId::default() };
    assert_eq!(refused(get), Refusal::NotHere);
    assert_eq!(sent_votes(&drain(&mut bft)), []);
}

#[test]
fn a_certificate_of_too_few_or_of_one_twice_is_refused() {
    let four = Four::new();
    let mut bft = four.open();
    let block = BlockId(Digest([3; 32]));
    let polka = |places: &[usize]| {
        let sign = |place: &usize| {
            let vote = four.vote(*place, 0, VoteKind::Prevote, Some(block));
            CommitSignature { validator: vote.validator, signature: vote.signature }
        };
        let signatures = places.iter().map(sign).collect();
        Message::Polka(PolkaCertificate { height: HEIGHT, round: Round(0), block, signatures })
    };
    let round = |proof: RoundProof, votes: &[SignedVote]| {
        let quote = |vote: &SignedVote| RoundVote {
            kind: vote.kind,
            block: vote.block,
            validator: vote.validator,
            signature: vote.signature,
        };
        let votes = votes.iter().map(quote).collect();
        Message::Round(RoundCertificate { height: HEIGHT, round: Round(1), proof, votes })
    };
    let nil = |place| four.vote(place, 1, VoteKind::Prevote, None);
    let weak = [
        polka(&[1, 2]),
        polka(&[1, 1, 1]),
        round(RoundProof::Skip, &[nil(1)]),
        round(RoundProof::Skip, &[nil(1), nil(1)]),
        round(RoundProof::Precommits, &[nil(1), nil(2), nil(3)]),
    ];
    for certificate in &weak {
        assert_eq!(four.say(&mut bft, 1, certificate), Err(Refusal::TooFewSigners), "{certificate:?}");
    }
    assert_eq!(bft.status().1, Round(0));
    assert_eq!(four.say(&mut bft, 1, &polka(&[1, 2, 3])), Ok(()));
    assert_eq!(four.say(&mut bft, 1, &round(RoundProof::Skip, &[nil(1), nil(2)])), Ok(()));
    assert_eq!(bft.status().1, Round(1));
}

#[test]
fn a_third_block_of_one_round_is_refused_and_two_are_reported() {
    let four = Four::new();
    let mut bft = four.open();
    assert_eq!(four.say(&mut bft, 1, &four.proposal(1, 0, None, b"block a")), Ok(()));
    assert_eq!(four.say(&mut bft, 1, &four.proposal(1, 0, None, b"block b")), Ok(()));
    assert_eq!(four.say(&mut bft, 1, &four.proposal(1, 0, None, b"block c")), Err(Refusal::Full));
    let block = id_of(b"block a").unwrap();
    bft.handle(now(1), Input::Validated { block, verdict: Verdict::Valid }).unwrap();
    for (place, kind) in
        [(1, VoteKind::Prevote), (2, VoteKind::Prevote), (1, VoteKind::Precommit), (2, VoteKind::Precommit)]
    {
        four.say(&mut bft, place, &Message::Vote(four.vote(place, 0, kind, Some(block)))).unwrap();
    }
    let outputs = drain(&mut bft);
    assert!(outputs.iter().any(|output| matches!(output, Output::Decided { .. })));
    assert!(outputs.iter().any(|output| matches!(output, Output::Misbehaved(Misbehaviour::Proposals { .. }))));
}

#[test]
fn an_answer_that_does_not_fit_changes_nothing() {
    let four = Four::new();
    let mut bft = four.open();
    let mut answer = |input| bft.handle(now(1), input).unwrap_err();
    let block = b"block a".to_vec();
    let built = |round| Input::Built { height: HEIGHT, round: Round(round), block: block.clone() };
    assert_eq!(answer(built(0)), Refusal::NotTheProposer);
    assert_eq!(answer(built(1)), Refusal::Stale);
    let validated = Input::Validated { block: BlockId::default(), verdict: Verdict::Valid };
    assert_eq!(answer(validated), Refusal::NotHere);
    assert_eq!(answer(Input::Start(four.start(HEIGHT))), Refusal::AlreadyOpen);
    assert_eq!(answer(Input::Start(four.start(Height(4)))), Refusal::Old);
    let start = Start { proposers: vec![0, 1, 2, 2], ..four.start(Height(6)) };
    assert_eq!(answer(Input::Start(start)), Refusal::BadStart);
    let id = id_of(&block).unwrap();
    let certificate = Certificate { height: HEIGHT, round: Round(0), block: id, signatures: Vec::new() };
    let wrong = Input::Synced { block: b"block b".to_vec(), certificate: certificate.clone() };
    assert_eq!(answer(wrong), Refusal::WrongBlock);
    let weak = Refusal::BadCertificate(BadCertificate::NoQuorum { signed: 0, total: 4 });
    assert_eq!(answer(Input::Synced { block, certificate }), weak);
}

#[test]
fn nobody_is_answered_more_often_than_the_ration() {
    let four = Four::new();
    let mut bft = four.open();
    let ask = Message::GetLastVote { height: HEIGHT };
    let answers = (0..50).filter(|_| four.say(&mut bft, 1, &ask) != Err(Refusal::TooOften)).count();
    assert_eq!(answers, 8);
    assert_eq!(four.say(&mut bft, 2, &ask), Ok(()), "another one");
    let later = Input::Message { from: four.key(1), bytes: ask.encode() };
    assert_eq!(bft.handle(now(1100), later), Ok(()));
}

#[test]
fn a_validator_that_lost_its_log_follows_without_voting() {
    let four = Four::new();
    let mut bft = four.bft(4, Recovery::Lost);
    bft.handle(now(0), Input::Start(four.start(HEIGHT))).unwrap();
    (1..4).for_each(|place| four.say(&mut bft, place, &Message::LastVote(None)).unwrap());
    four.say(&mut bft, 1, &four.proposal(1, 0, None, b"block a")).unwrap();
    let block = id_of(b"block a").unwrap();
    bft.handle(now(1), Input::Validated { block, verdict: Verdict::Valid }).unwrap();
    for kind in [VoteKind::Prevote, VoteKind::Precommit] {
        (1..4).for_each(|place| {
            let _ = four.say(&mut bft, place, &Message::Vote(four.vote(place, 0, kind, Some(block))));
        });
    }
    let outputs = drain(&mut bft);
    assert_eq!(sent_votes(&outputs), []);
    assert!(outputs.iter().any(|output| matches!(output, Output::Decided { .. })));
}

#[test]
fn a_log_newer_than_the_chain_forbids_to_vote_below_it() {
    let four = Four::new();
    let log = Log { height: Height(8), max_height_signed: Height(7), ..Log::default() };
    let mut bft = four.bft(4, Recovery::Log(log));
    bft.handle(now(0), Input::Start(four.start(HEIGHT))).unwrap();
    (1..4).for_each(|place| four.say(&mut bft, place, &Message::LastVote(None)).unwrap());
    four.say(&mut bft, 1, &four.proposal(1, 0, None, b"block a")).unwrap();
    let block = id_of(b"block a").unwrap();
    bft.handle(now(1), Input::Validated { block, verdict: Verdict::Valid }).unwrap();
    assert_eq!(sent_votes(&drain(&mut bft)), []);
    assert_eq!(bft.max_height_signed(), Height(7));
}

#[test]
fn after_a_restart_the_others_are_asked_for_ten_seconds_at_most() {
    let four = Four::new();
    let mut bft = four.bft(4, Recovery::Log(Log::default()));
    bft.handle(now(0), Input::Start(four.start(HEIGHT))).unwrap();
    four.say(&mut bft, 1, &Message::LastVote(None)).unwrap();
    let is_question = |output: &Output| match output {
        Output::Send { bytes, .. } => matches!(Message::decode(bytes), Ok(Message::GetLastVote { .. })),
        _ => false,
    };
    let mut questions = 0;
    while bft.status().2 == Step::Waiting {
        let (at, reason) = bft.poll_timeout().unwrap();
        assert_eq!(reason, Deadline::Recovery);
        questions += drain(&mut bft).iter().filter(|output| is_question(output)).count();
        bft.handle(Now { instant: at, wall: UnixMillis(0) }, Input::Timer).unwrap();
        assert!(at <= now(10_000).instant);
    }
    assert_eq!(questions, 10);
}

#[test]
fn a_vote_that_only_others_remember_silences_the_height() {
    let four = Four::new();
    for is_late in [false, true] {
        let mut bft = four.bft(4, Recovery::Log(Log::default()));
        bft.handle(now(0), Input::Start(four.start(HEIGHT))).unwrap();
        let echo = Message::LastVote(Some(four.vote(0, 0, VoteKind::Precommit, None)));
        if is_late {
            bft.handle(now(10_000), Input::Timer).unwrap();
        }
        four.say(&mut bft, 1, &echo).unwrap();
        (2..4).for_each(|place| four.say(&mut bft, place, &Message::LastVote(None)).unwrap());
        assert_eq!(bft.status().2, Step::Propose);
        four.say(&mut bft, 1, &four.proposal(1, 0, None, b"block a")).unwrap();
        let block = id_of(b"block a").unwrap();
        bft.handle(now(10_001), Input::Validated { block, verdict: Verdict::Valid }).unwrap();
        assert_eq!(sent_votes(&drain(&mut bft)), []);
        assert_eq!(bft.max_height_signed(), HEIGHT);
        bft.handle(now(10_002), Input::Start(four.start(Height(6)))).unwrap();
        bft.handle(now(12_000), Input::Timer).unwrap();
        assert_eq!(sent_votes(&drain(&mut bft)).len(), 1, "nil at the next height");
    }
}

#[test]
fn no_bytes_from_outside_make_it_panic_or_vote() {
    let four = Four::new();
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let samples = [
        Message::Vote(four.vote(1, 0, VoteKind::Precommit, None)),
        four.proposal(1, 0, None, b"block a"),
        four.proposal(2, 1, Some(0), b"block a"),
        Message::Status { height: Height(6), round: Round(1), step: Step::Commit },
        Message::LastVote(Some(four.vote(0, 1, VoteKind::Prevote, None))),
        Message::GetProposal { height: HEIGHT, round: Round(0), block: BlockId::default() },
    ]
    .map(|message| message.encode());
    let mut bft = four.open();
    drain(&mut bft);
    for count in 0..20_000_u64 {
        let mut bytes = samples[usize::try_from(rng.next_u64() % 6).unwrap()].clone();
        let place = usize::try_from(rng.next_u64()).unwrap() % bytes.len();
        bytes[place] ^= 1 << (count % 8);
        if count % 5 == 0 {
            bytes.truncate(place);
        }
        let from = four.key(1 + usize::try_from(count % 3).unwrap());
        let _ = bft.handle(now(1), Input::Message { from, bytes });
        assert_eq!(sent_votes(&drain(&mut bft)), []);
    }
}

#[test]
fn later_rounds_may_take_longer_up_to_a_bound() {
    use arc_malachitebft_core_types::{Round as EngineRound, Timeout};
    let timeouts = Timeouts::default();
    let propose = |round| timeouts.duration(Timeout::propose(EngineRound::new(round)));
    assert_eq!(propose(0), Duration::from_millis(500));
    assert_eq!(propose(4), Duration::from_millis(1500));
    assert_eq!(propose(u32::MAX), Duration::from_secs(30));
}
