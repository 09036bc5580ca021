//! What happened, as the control API shows it: blocks, transactions and their operations, read from the stored chain.

use super::api::types::{BlockView, LedgerItem, LogEntry, TransactionView};
use super::failure::{ErrorCode, Failure};
use super::views::{Names, id_digits};
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::ledger::name::Label;
use crate::ledger::operation::{Admit, Join};
use crate::ledger::store::StoreError;
use crate::ledger::{Block, Certificate, Height, Ledger, Operation, SignedTransaction, TxId};

/// Entries that one `ledger log` shows: the newest.
const MAX_LOG: usize = 1000;

/// What happened, the oldest first: at most the newest 1,000 entries.
///
/// # Errors
/// A store that cannot be read.
pub fn log(ledger: &Ledger, subject: Option<&NodeId>, since: Option<u64>) -> Result<Vec<LogEntry>, Failure> {
    let Some(head) = ledger.head() else { return Ok(Vec::new()) };
    let names = Names::new(ledger);
    let oldest = ledger.oldest().map_err(|error| unreadable(&error))?.map_or(0, |height| height.0);
    let mut entries = Vec::new();
    for height in (since.unwrap_or(0).max(oldest)..=head.height().0).rev() {
        let Some((block, _)) = ledger.block(Height(height)).map_err(|error| unreadable(&error))? else { continue };
        let mut of_block = block_entries(&names, &block);
        if let Some(subject) = subject {
            let (id, name) = (subject.to_string(), names.key(&subject.verifying_key()));
            of_block.retain(|entry| entry.author == name || entry.subject.as_deref() == Some(&id));
        }
        entries.extend(of_block.into_iter().rev());
        if entries.len() >= MAX_LOG {
            break;
        }
    }
    entries.reverse();
    Ok(entries)
}

/// One block or transaction, by its height, or by its id or the first digits of it.
///
/// # Errors
/// Not found, or a store that cannot be read.
pub fn item(ledger: &Ledger, what: &str) -> Result<LedgerItem, Failure> {
    let names = Names::new(ledger);
    let missing = || {
        Failure::new(ErrorCode::NotFound, format!("the ledger has no block or transaction {what}"))
            .hint("`p2plus ledger log` lists both")
    };
    if let Ok(height) = what.parse::<u64>() {
        match ledger.block(Height(height)).map_err(|error| unreadable(&error))? {
            Some((block, certificate)) => {
                return Ok(LedgerItem::Block(block_view(&names, ledger, &block, certificate.as_ref())));
            }
            // The first digits of an id may all be decimal.
            None if id_digits(what).is_err() => return Err(missing()),
            None => {}
        }
    }
    let digits = id_digits(what)?;
    if let Some(found) = ledger.pending().into_iter().find(|(id, _)| id.to_string().starts_with(&digits)) {
        return Ok(LedgerItem::Transaction(transaction_view(&names, found.0, found.1, None)));
    }
    let newest = ledger.head().map_or(0, |head| head.height().0);
    for height in (0..=newest).rev() {
        let Some((block, _)) = ledger.block(Height(height)).map_err(|error| unreadable(&error))? else { break };
        let chain = block.header.chain;
        let found = block.body.transactions.iter().find(|signed| signed.id(&chain).to_string().starts_with(&digits));
        if let Some(signed) = found {
            let view = transaction_view(&names, signed.id(&chain), signed, Some(&block));
            return Ok(LedgerItem::Transaction(view));
        }
    }
    Err(missing())
}

fn block_view(names: &Names<'_>, ledger: &Ledger, block: &Block, certificate: Option<&Certificate>) -> BlockView {
    let header = &block.header;
    BlockView {
        height: header.height.0,
        hash: block.id().0.to_string(),
        parent: header.parent.0.to_string(),
        epoch: header.epoch.into(),
        time_ms: header.time.0,
        proposer: names.key(&header.proposer),
        state_root: header.state_root.to_string(),
        signatures: certificate
            .map_or(0, |certificate| u32::try_from(certificate.signatures.len()).unwrap_or(u32::MAX)),
        validators: u32::try_from(ledger.state().validators().as_slice().len()).unwrap_or(u32::MAX),
        entries: block_entries(names, block),
    }
}

/// A transaction in its block, or in the pool.
fn transaction_view(names: &Names<'_>, id: TxId, signed: &SignedTransaction, block: Option<&Block>) -> TransactionView {
    let is_revocation = signed.transaction.is_revocation();
    TransactionView {
        tx: id.to_string(),
        height: block.map(|block| block.header.height.0),
        author: names.key(&signed.transaction.author),
        seq: (!is_revocation).then_some(signed.transaction.seq),
        witnesses: signed.witnesses.iter().map(|witness| witness.key.to_string()).collect(),
        entries: transaction_entries(names, id, signed, block),
    }
}

fn block_entries(names: &Names<'_>, block: &Block) -> Vec<LogEntry> {
    let chain = &block.header.chain;
    let transactions = block.body.transactions.iter();
    transactions.flat_map(|signed| transaction_entries(names, signed.id(chain), signed, Some(block))).collect()
}

/// The operations of a transaction; height and time are 0 while it has no block.
fn transaction_entries(
    names: &Names<'_>,
    id: TxId,
    signed: &SignedTransaction,
    block: Option<&Block>,
) -> Vec<LogEntry> {
    let author = names.key(&signed.transaction.author);
    let entry = |operation: &Operation| {
        let (subject, detail) = describe(operation);
        let member = subject.as_ref().and_then(|subject| subject.parse::<NodeId>().ok());
        LogEntry {
            height: block.map_or(0, |block| block.header.height.0),
            time_ms: block.map_or(0, |block| block.header.time.0),
            tx: id.to_string(),
            author: author.clone(),
            op: operation.name().to_owned(),
            subject_name: member.and_then(|id| names.of(&id)),
            subject,
            detail,
        }
    };
    signed.transaction.operations.iter().map(entry).collect()
}

/// Whom an operation is about, and the rest in a few words.
fn describe(operation: &Operation) -> (Option<String>, String) {
    let named = |name: &Option<Label>| name.as_ref().map(|name| format!("name {name}")).unwrap_or_default();
    match operation {
        Operation::Admit(admit) => (Some(admit.identity.to_string()), named(&admit.name)),
        Operation::Join(join) => (Some(join.identity.to_string()), named(&join.name)),
        Operation::Revoke(revoke) => (Some(revoke.identity.to_string()), String::new()),
        Operation::Rename(rename) => (Some(rename.identity.to_string()), format!("name {}", rename.name)),
        Operation::Credential(credential) => {
            let uses = if credential.uses == 1 { "one use".to_owned() } else { format!("{} uses", credential.uses) };
            let detail = [named(&credential.name), uses].into_iter().filter(|part| !part.is_empty());
            (Some(credential.key_hash.to_string()), detail.collect::<Vec<_>>().join(", "))
        }
        Operation::CredentialRevoke(revoke) => (Some(revoke.key_hash.to_string()), String::new()),
        Operation::SignerSet(set) => (Some(set.key.to_string()), format!("weight {}", set.weight)),
        Operation::ValidatorSet(set) => match set.seats.as_slice().len() {
            1 => (None, "1 validator".to_owned()),
            count => (None, format!("{count} validators")),
        },
        Operation::RecoverySet(set) => (None, format!("{} of {} keys", set.needed, set.keys.len())),
        Operation::NetworkSet(set) => (None, format!("network {}", set.name)),
        Operation::Unknown { code, .. } => (None, format!("code {code}: unknown to this version")),
    }
}

/// The keys besides its identity that a node had when it was admitted.
pub struct AdmittedKeys {
    /// The key of its node records.
    pub node_key: VerifyingKey,
    /// The key of its handshakes.
    pub transport_key: TransportKey,
}

/// Finds the keys that an identity had when it was last admitted.
///
/// # Errors
/// A store that cannot be read.
pub fn last_keys(ledger: &Ledger, id: &NodeId) -> Result<Option<AdmittedKeys>, Failure> {
    let newest = ledger.head().map_or(0, |head| head.height().0);
    for height in (0..=newest).rev() {
        let Some((block, _)) = ledger.block(Height(height)).map_err(|error| unreadable(&error))? else { break };
        let operations = block.body.transactions.iter().flat_map(|signed| &signed.transaction.operations);
        let mut found = operations.filter_map(|operation| match operation {
            Operation::Admit(Admit { identity, node_key, transport_key, .. })
            | Operation::Join(Join { identity, node_key, transport_key, .. })
                if identity == id =>
            {
                Some(AdmittedKeys { node_key: *node_key, transport_key: *transport_key })
            }
            _ => None,
        });
        if let Some(keys) = found.next_back() {
            return Ok(Some(keys));
        }
    }
    Ok(None)
}

fn unreadable(error: &StoreError) -> Failure {
    Failure::new(ErrorCode::Failed, format!("the ledger cannot be read: {error}"))
}
