//! The node as the control API shows it: plain values become the documented JSON types.

use super::api::types::{
    Authorization, BadBlock, BlockView, Invite, LedgerItem, LedgerRole, LedgerStatus, LogEntry, Member as MemberView,
    PathKind, Peer, PeerPath, PeerSession, TransactionView, VerifyReport,
};
use super::failure::{ErrorCode, Failure};
use crate::crypto::hash::Digest;
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::ledger::engine::{Verification, VerifyError};
use crate::ledger::store::StoreError;
use crate::ledger::{Block, Certificate, Height, Ledger, Operation, SignedTransaction, TxId};
use crate::node::Node;
use crate::node::status::PeerStatus;
use crate::policy::Member;
use crate::time::Now;
use rand_core::CryptoRng;
use std::net::SocketAddr;
use std::time::Duration;

/// Blocks that one step of a verification replays.
const VERIFY_STEP: usize = 256;

/// Entries that one `ledger log` shows: the newest.
const MAX_LOG: usize = 1000;

/// A path over an endpoint, or none.
pub fn path(endpoint: Option<SocketAddr>) -> PeerPath {
    let kind = if endpoint.is_some() { PathKind::Direct } else { PathKind::None };
    PeerPath { kind, endpoint, relay: None }
}

/// Another member, and the way to it.
pub fn peer(status: PeerStatus) -> Peer {
    Peer {
        id: status.member.id.to_string(),
        name: status.member.name,
        addresses: status.member.addresses,
        tags: status.member.tags,
        authorization: Authorization::Member,
        seen_seconds: status.seen.map(|seen| seen.as_secs()),
        path: path(status.endpoint),
        rtt_ms: status.rtt.map(milliseconds),
        session: status.session.map(|session| PeerSession {
            cipher: session.cipher.name().to_owned(),
            post_quantum: true,
            age_seconds: session.age.as_secs(),
        }),
        tx_bytes: status.tx_bytes,
        rx_bytes: status.rx_bytes,
    }
}

/// A duration in milliseconds, to the microsecond.
pub fn milliseconds(span: Duration) -> f64 {
    let micros = u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}

/// A member with what the ledger knows of its admission.
pub fn member(ledger: &Ledger, member: &Member) -> MemberView {
    let record = ledger.state().member(&member.id);
    MemberView {
        id: member.id.to_string(),
        name: member.name.clone(),
        addresses: member.addresses.clone(),
        tags: member.tags.clone(),
        authorization: Authorization::Member,
        admitted_height: record.as_ref().map(|record| record.admitted_height.0),
        admitted_by: record.map(|record| key_name(ledger, &record.admitted_by)),
    }
}

/// Everybody the ledger knows: members, then those who were revoked.
pub fn members<R: CryptoRng>(node: &Node<R>) -> Vec<MemberView> {
    let ledger = node.ledger();
    let mut members: Vec<_> = node.policy().members().map(|one| member(ledger, one)).collect();
    members.sort_by(|left, right| left.name.cmp(&right.name));
    members.extend(node.policy().revoked().map(|id| {
        // A revocation on sight leaves the record in the state until its block.
        let record = ledger.state().member(id);
        MemberView {
            id: id.to_string(),
            name: record.as_ref().map(|record| record.name.to_string()).unwrap_or_default(),
            addresses: Vec::new(),
            tags: Vec::new(),
            authorization: Authorization::Revoked,
            admitted_height: record.as_ref().map(|record| record.admitted_height.0),
            admitted_by: record.map(|record| key_name(ledger, &record.admitted_by)),
        }
    }));
    members
}

/// The ledger at a glance.
pub fn ledger_status<R: CryptoRng>(node: &Node<R>, now: Now) -> LedgerStatus {
    let ledger = node.ledger();
    let head = ledger.head();
    let is_validator = node.policy().validators().any(|id| *id == node.id());
    let validators = ledger.state().validators().as_slice().len();
    LedgerStatus {
        height: head.map_or(0, |head| head.height().0),
        hash: head.map(|head| head.id.0.to_string()).unwrap_or_default(),
        epoch: head.map_or(0, |head| head.header.epoch.into()),
        role: if is_validator { LedgerRole::Validator } else { LedgerRole::Full },
        validators: u32::try_from(validators).unwrap_or(u32::MAX),
        is_final: ledger.halted().is_none() && head.is_some(),
        age_seconds: node.ledger_age(now).map(|age| age.as_secs()),
        pending: ledger.pending().len() as u64,
    }
}

/// Credentials that can still admit.
pub fn invites(ledger: &Ledger) -> Vec<Invite> {
    let credentials = ledger.state().credentials();
    credentials
        .into_iter()
        .map(|(hash, record)| Invite {
            credential: hash.to_string(),
            name: record.name.map(|name| name.to_string()),
            tags: record.tags.iter().map(ToString::to_string).collect(),
            uses_left: record.uses,
            expires: record.expires.0 / 1000,
            author: key_name(ledger, &record.issuer),
        })
        .collect()
}

/// What happened, the oldest first: at most the newest 1,000 entries.
///
/// # Errors
/// A store that cannot be read.
pub fn log(ledger: &Ledger, subject: Option<&Member>, since: Option<u64>) -> Result<Vec<LogEntry>, Failure> {
    let Some(head) = ledger.head() else { return Ok(Vec::new()) };
    let oldest = ledger.oldest().map_err(|error| unreadable(&error))?.map_or(0, |height| height.0);
    let mut entries = Vec::new();
    for height in (since.unwrap_or(0).max(oldest)..=head.height().0).rev() {
        let Some((block, _)) = ledger.block(Height(height)).map_err(|error| unreadable(&error))? else { continue };
        let mut of_block = block_entries(ledger, &block);
        if let Some(subject) = subject {
            let id = subject.id.to_string();
            of_block.retain(|entry| entry.author == subject.name || entry.subject.as_deref() == Some(&id));
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
    let missing = || Failure::new(ErrorCode::NotFound, format!("the ledger has no block or transaction {what}"));
    if let Ok(height) = what.parse::<u64>() {
        let found = ledger.block(Height(height)).map_err(|error| unreadable(&error))?;
        let (block, certificate) = found.ok_or_else(missing)?;
        return Ok(LedgerItem::Block(block_view(ledger, &block, certificate.as_ref())));
    }
    if let Some(found) = ledger.pending().into_iter().find(|(id, _)| id.to_string().starts_with(what)) {
        return Ok(LedgerItem::Transaction(transaction_view(ledger, found.0, found.1, None)));
    }
    let digits = what.to_ascii_lowercase();
    let newest = ledger.head().map_or(0, |head| head.height().0);
    for height in (0..=newest).rev() {
        let Some((block, _)) = ledger.block(Height(height)).map_err(|error| unreadable(&error))? else { break };
        let chain = block.header.chain;
        let found = block.body.transactions.iter().find(|signed| signed.id(&chain).to_string().starts_with(&digits));
        if let Some(signed) = found {
            let view = transaction_view(ledger, signed.id(&chain), signed, Some(height));
            return Ok(LedgerItem::Transaction(view));
        }
    }
    Err(missing())
}

fn block_view(ledger: &Ledger, block: &Block, certificate: Option<&Certificate>) -> BlockView {
    let header = &block.header;
    BlockView {
        height: header.height.0,
        hash: block.id().0.to_string(),
        parent: header.parent.0.to_string(),
        epoch: header.epoch.into(),
        time_ms: header.time.0,
        proposer: key_name(ledger, &header.proposer),
        state_root: header.state_root.to_string(),
        signatures: certificate
            .map_or(0, |certificate| u32::try_from(certificate.signatures.len()).unwrap_or(u32::MAX)),
        validators: u32::try_from(ledger.state().validators().as_slice().len()).unwrap_or(u32::MAX),
        entries: block_entries(ledger, block),
    }
}

fn transaction_view(ledger: &Ledger, id: TxId, signed: &SignedTransaction, height: Option<u64>) -> TransactionView {
    let is_revocation = signed.transaction.is_revocation();
    TransactionView {
        tx: id.to_string(),
        height,
        author: key_name(ledger, &signed.transaction.author),
        seq: (!is_revocation).then_some(signed.transaction.seq),
        witnesses: signed.witnesses.iter().map(|witness| witness.key.to_string()).collect(),
        entries: transaction_entries(ledger, id, signed, height.unwrap_or(0), 0),
    }
}

fn block_entries(ledger: &Ledger, block: &Block) -> Vec<LogEntry> {
    let header = &block.header;
    let entries = block.body.transactions.iter().flat_map(|signed| {
        transaction_entries(ledger, signed.id(&header.chain), signed, header.height.0, header.time.0)
    });
    entries.collect()
}

fn transaction_entries(
    ledger: &Ledger,
    id: TxId,
    signed: &SignedTransaction,
    height: u64,
    time_ms: u64,
) -> Vec<LogEntry> {
    let author = key_name(ledger, &signed.transaction.author);
    let entry = |operation: &Operation| {
        let (subject, detail) = describe(operation);
        LogEntry {
            height,
            time_ms,
            tx: id.to_string(),
            author: author.clone(),
            op: operation.name().to_owned(),
            subject,
            detail,
        }
    };
    signed.transaction.operations.iter().map(entry).collect()
}

/// Whom an operation is about, and the rest in a few words.
fn describe(operation: &Operation) -> (Option<String>, String) {
    let named = |name: &Option<crate::ledger::name::Label>| {
        name.as_ref().map(|name| format!("name {name}")).unwrap_or_default()
    };
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
        Operation::ValidatorSet(set) => (None, format!("{} validators", set.seats.as_slice().len())),
        Operation::RecoverySet(set) => (None, format!("{} of {} keys", set.needed, set.keys.len())),
        Operation::NetworkSet(set) => (None, format!("network {}", set.name)),
        Operation::Unknown { code, .. } => (None, format!("code {code}: unknown to this version")),
    }
}

/// A key as people know it: the member whose identity it is, else its digits.
fn key_name(ledger: &Ledger, key: &VerifyingKey) -> String {
    let member = ledger.state().member(&NodeId(key.0));
    member.map_or_else(|| key.to_string(), |record| record.name.to_string())
}

/// Replays the stored chain from its beginning.
pub fn verify_all(ledger: &Ledger) -> VerifyReport {
    let mut verification = Verification::default();
    loop {
        if let Some(report) = verify_step(&mut verification, ledger, VERIFY_STEP) {
            return report;
        }
    }
}

/// Replays up to `count` more blocks of the stored chain. Returns the report at its end, or at the first bad block.
pub fn verify_step(verification: &mut Verification, ledger: &Ledger, count: usize) -> Option<VerifyReport> {
    match verification.step(ledger, count) {
        Ok(None) => None,
        Ok(Some(head)) => Some(VerifyReport { from: 0, to: head.0, blocks: head.0 + 1, bad: None }),
        Err(error) => Some(broken(verification, &error)),
    }
}

fn broken(verification: &Verification, error: &VerifyError) -> VerifyReport {
    let good = verification.verified().map(|height| height.0);
    let next = good.map_or(0, |height| height + 1);
    let bad = BadBlock { height: error.height().map_or(next, |height| height.0), reason: error.to_string() };
    VerifyReport { from: 0, to: good.unwrap_or(0), blocks: next, bad: Some(bad) }
}

fn unreadable(error: &StoreError) -> Failure {
    Failure::new(ErrorCode::Failed, format!("the ledger cannot be read: {error}"))
}

/// Finds the credential whose hash is `digits` or begins so.
///
/// # Errors
/// Not found, or more than one.
pub fn credential(ledger: &Ledger, digits: &str) -> Result<Digest, Failure> {
    let wanted = digits.to_ascii_lowercase();
    let credentials = ledger.state().credentials();
    let mut found = credentials.into_iter().map(|(hash, _)| hash).filter(|hash| hash.to_string().starts_with(&wanted));
    match (found.next(), found.next()) {
        (Some(hash), None) => Ok(hash),
        (Some(_), Some(_)) => {
            Err(Failure::new(ErrorCode::Usage, format!("more than one invitation begins with {digits}")))
        }
        (None, _) => Err(Failure::new(ErrorCode::NotFound, format!("there is no invitation {digits}"))
            .hint("`p2plus invites` lists those that can still admit")),
    }
}
