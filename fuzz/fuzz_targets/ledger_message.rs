//! What a peer says about the ledger, down to the blocks in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::ledger::Block;
use p2plus::ledger::consensus::Message;
use p2plus::ledger::sync::LedgerMessage;
use p2plus_fuzz::NETWORK;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = LedgerMessage::decode(bytes) else { return };
    assert_eq!(message.encode(), bytes);
    match message {
        LedgerMessage::Blocks(blocks) => {
            for block in blocks {
                let _ = Block::decode(&block.block);
            }
        }
        LedgerMessage::Transactions(transactions) => {
            for transaction in transactions {
                let _ = transaction.verify(&NETWORK);
            }
        }
        LedgerMessage::Consensus(bytes) => {
            let _ = Message::decode(&bytes);
        }
        _ => {}
    }
});
