use super::*;
use crate::ledger::kit::{ADMIN, BEGIN, HOUR, NODE, Net, VALIDATOR, admit, id, key};
use crate::ledger::operation::Operation;
use crate::ledger::transaction::Transaction;

/// A chain of genesis and three blocks.
fn net() -> Net {
    let mut net = Net::new();
    for seed in NODE..NODE + 3 {
        net.order(Operation::Admit(admit(seed, 0))).unwrap();
    }
    net
}

/// Changes the next block after `net`'s head, seals what can be sealed, and executes it.
fn try_next(net: &mut Net, change: impl FnOnce(&mut Block)) -> Result<Execution, ChainError> {
    let admission = net.admission(admit(NODE + 5, 0));
    let mut block = net.propose(net.later(), &[admission]).block;
    change(&mut block);
    block.header.txs_root = block.body.root();
    execute(&net.head, &net.state, &net.tree, &block)
}

#[test]
fn a_chain_replays_to_its_head() {
    let net = net();
    assert_eq!(verify_chain(&net.chain(), net.blocks.clone()).unwrap(), net.head);
}

#[test]
fn the_first_bad_height_is_named() {
    let net = net();
    let tampered = |height: usize, change: &dyn Fn(&mut Block, &mut Option<Certificate>)| {
        let mut blocks = net.blocks.clone();
        let (block, certificate) = &mut blocks[height];
        change(block, certificate);
        verify_chain(&net.chain(), blocks).map(drop).unwrap_err()
    };
    let (height, error) = tampered(2, &|_, certificate| *certificate = None);
    assert!(height == Height(2) && matches!(error, ChainError::WrongCertificate));
    let (height, error) = tampered(2, &|_, certificate| certificate.as_mut().unwrap().signatures.clear());
    assert!(height == Height(2) && matches!(error, ChainError::BadCertificate(_)));
    let (height, error) = tampered(2, &|block, _| block.header.time.0 += 1);
    assert!(height == Height(2) && matches!(error, ChainError::WrongCertificate));
    let (height, error) = tampered(3, &|block, _| block.body.transactions.clear());
    assert!(height == Height(3) && matches!(error, ChainError::Block(MalformedBlock::WrongBody)));
    let (height, error) = tampered(0, &|block, _| block.header.time.0 += 1);
    assert!(height == Height(0) && matches!(error, ChainError::OtherNetwork(_)));
}

#[test]
fn a_missing_or_doubled_block_breaks_the_chain() {
    let net = net();
    let verify = |blocks: Vec<_>| verify_chain(&net.chain(), blocks).map(drop).unwrap_err();
    let mut gap = net.blocks.clone();
    gap.remove(1);
    assert!(matches!(verify(gap), (Height(1), ChainError::NotNext { given: Height(2), .. })));
    let mut doubled = net.blocks.clone();
    doubled.insert(2, doubled[1].clone());
    assert!(matches!(verify(doubled), (Height(2), ChainError::NotNext { given: Height(1), .. })));
    assert!(matches!(verify(Vec::new()), (Height(0), ChainError::Empty)));
}

#[test]
fn a_block_follows_its_head_or_is_refused_by_name() {
    let mut net = net();
    assert!(try_next(&mut net, |_| {}).is_ok());
    let refused = |net: &mut Net, change: fn(&mut Block)| try_next(net, change).unwrap_err();
    assert!(matches!(refused(&mut net, |block| block.header.chain = Digest([1; 32])), ChainError::OtherChain));
    assert!(matches!(refused(&mut net, |block| block.header.epoch = 1), ChainError::OtherChain));
    assert!(matches!(refused(&mut net, |block| block.header.height = Height(9)), ChainError::NotNext { .. }));
    assert!(matches!(
        refused(&mut net, |block| block.header.parent = BlockId(Digest([1; 32]))),
        ChainError::WrongParent
    ));
    assert!(matches!(refused(&mut net, |block| block.header.time = BEGIN), ChainError::NotLater));
    let same = net.head.header.time;
    assert!(matches!(try_next(&mut net, |block| block.header.time = same), Err(ChainError::NotLater)));
    assert!(matches!(
        refused(&mut net, |block| block.header.validators_hash = Digest([1; 32])),
        ChainError::WrongValidators
    ));
    let next: fn(&mut Block) = |block| block.header.next_validators_hash = Digest([1; 32]);
    assert!(matches!(refused(&mut net, next), ChainError::WrongValidators));
    assert!(matches!(
        refused(&mut net, |block| block.header.proposer = key(99).verifying_key()),
        ChainError::NotAProposer
    ));
    assert!(matches!(refused(&mut net, |block| block.header.state_root = Digest([1; 32])), ChainError::WrongState));
    assert!(matches!(refused(&mut net, |block| block.body.transactions.clear()), ChainError::WrongState));
}

#[test]
fn the_commit_inside_a_block_is_that_of_the_block_before() {
    let mut net = net();
    let older = net.blocks[2].1.clone();
    assert!(matches!(try_next(&mut net, |block| block.body.last_commit = None), Err(ChainError::WrongLastCommit)));
    assert!(matches!(try_next(&mut net, |block| block.body.last_commit = older), Err(ChainError::WrongLastCommit)));
    let unsigned = try_next(&mut net, |block| block.body.last_commit.as_mut().unwrap().signatures.clear());
    assert!(matches!(unsigned, Err(ChainError::BadLastCommit(_))));
}

#[test]
fn a_block_with_a_transaction_that_does_not_apply_is_refused_as_a_whole() {
    let mut net = net();
    let again = net.admission(admit(NODE, 0)).into_inner();
    let refused = try_next(&mut net, |block| block.body.transactions.push(again));
    // It was signed before the one that comes first in the block.
    let replayed = |error: &TxError| matches!(error, TxError::Replayed { .. });
    assert!(matches!(&refused, Err(ChainError::InvalidTransaction { place: 1, error }) if replayed(error)));
    let refused = try_next(&mut net, |block| block.body.transactions[0].transaction.seq += 1);
    assert!(matches!(refused, Err(ChainError::MalformedTransaction { place: 0, .. })));
}

#[test]
fn an_unknown_operation_is_told_from_a_wrong_block() {
    let mut net = net();
    let unknown = net.sign(&[ADMIN], vec![Operation::Unknown { code: 999, bytes: Vec::new() }]).into_inner();
    let error = try_next(&mut net, |block| block.body.transactions.push(unknown)).unwrap_err();
    assert_eq!(error.unknown_operation(), Some(999));
    assert_eq!(ChainError::WrongParent.unknown_operation(), None);
}

#[test]
fn false_evidence_is_refused() {
    use crate::crypto::identity::Signature;
    use crate::ledger::block::Round;
    use crate::ledger::certificate::{QuotedVote, VoteKind};
    let mut net = net();
    let vote = |block| QuotedVote { block, signature: Signature([0; 64]) };
    let evidence = Evidence {
        validator: key(VALIDATOR).verifying_key(),
        height: Height(1),
        round: Round(0),
        kind: VoteKind::Precommit,
        first: vote(None),
        second: vote(Some(BlockId(Digest([1; 32])))),
    };
    assert!(matches!(try_next(&mut net, |block| block.body.evidence.push(evidence)), Err(ChainError::BadEvidence)));
}

#[test]
fn a_checkpoint_binds_the_chain_that_passes_it() {
    let net = net();
    let replay = |checkpoint: Checkpoint| {
        let mut blocks = net.blocks.iter().cloned();
        let mut replay = Replay::begin(&net.chain(), blocks.next().unwrap().0, Some(checkpoint))?;
        for (block, certificate) in blocks {
            replay.advance(&block, certificate.unwrap())?;
        }
        Ok::<bool, ChainError>(replay.is_past_checkpoint())
    };
    let at = |height: usize| Checkpoint { height: Height(height as u64), id: net.blocks[height].0.id() };
    assert!(replay(at(2)).unwrap());
    assert!(replay(at(0)).unwrap());
    assert!(!replay(Checkpoint { height: Height(9), ..at(2) }).unwrap());
    assert!(matches!(replay(Checkpoint { height: Height(1), ..at(2) }), Err(ChainError::ContradictsCheckpoint)));
    assert!(matches!(replay(Checkpoint { height: Height(0), ..at(2) }), Err(ChainError::ContradictsCheckpoint)));
}

#[test]
fn a_full_block_leaves_the_rest_for_the_next() {
    let mut net = net();
    let time = net.later();
    let long = |net: &Net, seq| {
        let operations =
            vec![Operation::Unknown { code: 999, bytes: vec![0; 10] }, Operation::Admit(admit(NODE + 9, 0))];
        let author = key(ADMIN).verifying_key();
        net.sign_with(&[ADMIN], Transaction::new(author, seq, time.after(HOUR), operations))
    };
    let dropped = long(&net, 900);
    let renames: Vec<_> = (0..600u64)
        .map(|count| {
            let name = format!("name-{count}").parse().unwrap();
            let rename = crate::ledger::operation::Rename { identity: id(NODE), name };
            net.sign(&[ADMIN], vec![Operation::Rename(rename)])
        })
        .collect();
    let pending: Vec<_> = std::iter::once(dropped.clone()).chain(renames).collect();
    let built = net.propose(time, &pending);
    assert_eq!(built.dropped, [(dropped.id(), TxError::UnknownOperation(999))]);
    assert_eq!(built.block.body.transactions.len(), MAX_BLOCK_TRANSACTIONS);
    assert!(built.block.encode().len() <= MAX_BLOCK_LEN);
    assert!(execute(&net.head, &net.state, &net.tree, &built.block).is_ok());
}

#[test]
fn what_a_block_revokes_is_read_without_applying_it() {
    let mut net = net();
    let revoke = Revoke { identity: id(NODE), incarnation: 0 };
    let operations = vec![Operation::Unknown { code: 999, bytes: Vec::new() }, Operation::Revoke(revoke)];
    let transaction = net.sign(&[ADMIN], operations).into_inner();
    let mut block = net.propose(net.later(), &[]).block;
    block.body.transactions.push(transaction);
    assert_eq!(revocations(&block), [revoke]);
}
