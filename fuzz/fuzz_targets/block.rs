//! Blocks: raw, and with the hash that belongs to their body; certificates and evidence.
#![no_main]

use borsh::BorshDeserialize;
use libfuzzer_sys::fuzz_target;
use p2plus::ledger::certificate::Evidence;
use p2plus::ledger::chain::verify_chain;
use p2plus::ledger::genesis::Genesis;
use p2plus::ledger::tree::MemoryTree;
use p2plus::ledger::{Block, Certificate, Validator, ValidatorSet};
use p2plus_fuzz::{NETWORK, verifying_key};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(block) = Block::decode(bytes) {
        assert_eq!(block.encode(), bytes);
        let _ = Genesis::open(block, &MemoryTree::default());
    }
    if let Ok(mut block) = Block::deserialize(&mut &bytes[..]) {
        block.header.txs_root = block.body.root();
        if block.check_form().is_ok() {
            assert_eq!(Block::decode(&block.encode()), Ok(block.clone()));
        }
        let _ = verify_chain(&block.id().0.clone(), [(block, None)]);
    }
    if let Ok(certificate) = Certificate::try_from_slice(bytes) {
        let validator = Validator { key: verifying_key(3), power: 1 };
        let validators = ValidatorSet::new(vec![validator]).expect("one validator");
        assert!(certificate.verify(&NETWORK, &validators).is_err());
    }
    if let Ok(evidence) = Evidence::try_from_slice(bytes) {
        let _ = evidence.is_valid(&NETWORK);
    }
});
