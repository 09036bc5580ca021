//! What happened, as the control API shows it: blocks, transactions and their operations, read from the stored chain.

use super::api::types::{BlockView, LedgerItem, LogEntry, TransactionView};
use super::failure::{ErrorCode, Failure};
use super::names as records;
use super::views::{Names, Resting, id_digits};
use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::Digest;
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::ledger::name::Label;
use crate::ledger::operation::{Admit, Join, WhichRecords};
use crate::ledger::store::StoreError;
use crate::ledger::{Block, Certificate, Height, Ledger, Operation, SignedTransaction, TxId};
use crate::policy::RelayTerms;
use crate::wire::record::{RecordData, Target};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Entries that one `ledger log` shows: the newest.
const MAX_LOG: usize = 1000;

/// Goes down the chain, some blocks at a time, so that everything else goes on meanwhile.
struct Descent {
    next: Option<Height>,
    end: Height,
}

impl Descent {
    /// From the newest block to the oldest that is held, or to `since`.
    fn new(ledger: &Ledger, since: Option<u64>) -> Result<Self, Failure> {
        let oldest = ledger.oldest().map_err(|error| unreadable(&error))?.map_or(0, |height| height.0);
        let end = Height(since.unwrap_or(0).max(oldest));
        Ok(Self { next: ledger.head().map(|head| head.height()).filter(|newest| *newest >= end), end })
    }

    /// Reads one block. `None` at the end; a height whose block is not held gives an empty place.
    fn next(&mut self, ledger: &Ledger) -> Result<Option<Option<Block>>, Failure> {
        let Some(height) = self.next else { return Ok(None) };
        self.next = height.0.checked_sub(1).map(Height).filter(|below| *below >= self.end);
        let block = ledger.block(height).map_err(|error| unreadable(&error))?;
        Ok(Some(block.map(|(block, _)| block)))
    }
}

/// A look for what happened.
pub struct LogSearch {
    subject: Option<NodeId>,
    descent: Descent,
    entries: Vec<LogEntry>,
    resting: Resting,
}

impl LogSearch {
    /// Begins at the newest block: everything, or what `subject` did and what was done to it, down to the height `since`.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn new(ledger: &Ledger, subject: Option<NodeId>, since: Option<u64>) -> Result<Self, Failure> {
        let (descent, resting) = (Descent::new(ledger, since)?, Resting::new(ledger));
        Ok(Self { subject, descent, entries: Vec::new(), resting })
    }

    /// Reads up to `count` more blocks. At the end it gives the entries, the oldest first: at most the newest 1,000.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn step(&mut self, ledger: &Ledger, count: usize) -> Result<Option<Vec<LogEntry>>, Failure> {
        let names = Names::with(ledger, self.resting.clone());
        for _ in 0..count {
            let next = if self.entries.len() < MAX_LOG { self.descent.next(ledger)? } else { None };
            let Some(block) = next else {
                let mut entries = std::mem::take(&mut self.entries);
                entries.truncate(MAX_LOG);
                entries.reverse();
                return Ok(Some(entries));
            };
            let mut of_block = block.map(|block| block_entries(&names, &block)).unwrap_or_default();
            if let Some(subject) = &self.subject {
                let (id, name) = (subject.to_string(), names.key(&subject.verifying_key()));
                of_block.retain(|entry| entry.author == name || entry.subject.as_deref() == Some(&id));
            }
            self.entries.extend(of_block.into_iter().rev());
        }
        Ok(None)
    }
}

/// A look for a transaction by the first digits of its id.
pub struct ItemSearch {
    digits: String,
    descent: Descent,
}

/// What a look for one thing comes to.
pub enum Sought {
    /// It is there.
    Found(LedgerItem),
    /// The chain has to be gone through.
    Search(ItemSearch),
}

/// One block or transaction, by its height, or by its id or the first digits of it. What has an index is found at once.
///
/// # Errors
/// Not found, or a store that cannot be read.
pub fn item(ledger: &Ledger, what: &str) -> Result<Sought, Failure> {
    let names = Names::new(ledger);
    if let Ok(height) = what.parse::<u64>() {
        match ledger.block(Height(height)).map_err(|error| unreadable(&error))? {
            Some((block, certificate)) => {
                return Ok(Sought::Found(LedgerItem::Block(block_view(&names, ledger, &block, certificate.as_ref()))));
            }
            // The first digits of an id may all be decimal.
            None if id_digits(what).is_err() => return Err(missing(what)),
            None => {}
        }
    }
    let digits = id_digits(what)?;
    if let Some(found) = ledger.pending().into_iter().find(|(id, _)| id.to_string().starts_with(&digits)) {
        return Ok(Sought::Found(LedgerItem::Transaction(transaction_view(&names, found.0, found.1, None))));
    }
    // An id has as many digits as an identity.
    let Ok(NodeId(whole)) = digits.parse() else {
        return Ok(Sought::Search(ItemSearch { digits, descent: Descent::new(ledger, None)? }));
    };
    let id = TxId(Digest(whole));
    let (height, signed) = ledger.transaction(&id).map_err(|error| unreadable(&error))?.ok_or_else(|| missing(what))?;
    let (block, _) = ledger.block(height).map_err(|error| unreadable(&error))?.ok_or_else(|| missing(what))?;
    Ok(Sought::Found(LedgerItem::Transaction(transaction_view(&names, id, &signed, Some(&block)))))
}

impl ItemSearch {
    /// Reads up to `count` more blocks. `None` as long as there are more.
    ///
    /// # Errors
    /// Not found, or a store that cannot be read.
    pub fn step(&mut self, ledger: &Ledger, count: usize) -> Result<Option<LedgerItem>, Failure> {
        for _ in 0..count {
            let block = self.descent.next(ledger)?.ok_or_else(|| missing(&self.digits))?;
            let found = block.as_ref().and_then(|block| {
                let mut of_block =
                    block.body.transactions.iter().map(|signed| (signed.id(&block.header.chain), signed));
                of_block.find(|(id, _)| id.to_string().starts_with(&self.digits))
            });
            if let Some((id, signed)) = found {
                let view = transaction_view(&Names::new(ledger), id, signed, block.as_ref());
                return Ok(Some(LedgerItem::Transaction(view)));
            }
        }
        Ok(None)
    }
}

fn missing(what: &str) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("the ledger has no block or transaction {what}"))
        .hint("`p2plus ledger log` lists both")
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
        let (subject, detail) = describe(names, operation);
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
fn describe(names: &Names<'_>, operation: &Operation) -> (Option<String>, String) {
    let named = |name: &Option<Label>| name.as_ref().map(|name| format!("name {name}")).unwrap_or_default();
    match operation {
        Operation::Admit(admit) => (Some(admit.identity.to_string()), named(&admit.name)),
        Operation::Join(join) => (Some(join.identity.to_string()), named(&join.name)),
        Operation::Revoke(revoke) => (Some(revoke.identity.to_string()), String::new()),
        Operation::Rename(rename) => (Some(rename.identity.to_string()), format!("name {}", rename.name)),
        Operation::Tag(tags) => (Some(tags.identity.to_string()), tag_list("+", &tags.tags)),
        Operation::Untag(tags) => (Some(tags.identity.to_string()), tag_list("-", &tags.tags)),
        Operation::Credential(credential) => {
            let uses = if credential.uses == 1 { "one use".to_owned() } else { format!("{} uses", credential.uses) };
            let detail = [named(&credential.name), uses].into_iter().filter(|part| !part.is_empty());
            (Some(credential.key_hash.to_string()), detail.collect::<Vec<_>>().join(", "))
        }
        Operation::CredentialRevoke(revoke) => (Some(revoke.key_hash.to_string()), String::new()),
        Operation::NameSet(set) => (member_of(&set.data), records::in_words(names, &set.name, &set.data)),
        Operation::NameDel(del) => match &del.which {
            WhichRecords::All => (None, del.name.to_string()),
            WhichRecords::Kind(kind) => (None, format!("{} {}", del.name, kind.name())),
            WhichRecords::One(mark) => (None, format!("{} {}", del.name, mark.kind().name())),
        },
        Operation::SegmentSet(set) => (None, format!("segment {}, tag {}", set.name, set.tag)),
        Operation::SegmentDel(del) => (None, format!("segment {}", del.name)),
        Operation::BridgeApprove(approve) => (Some(approve.member.to_string()), format!("segment {}", approve.segment)),
        Operation::BridgeRevoke(revoke) => (Some(revoke.member.to_string()), format!("segment {}", revoke.segment)),
        Operation::SignerSet(set) => (Some(set.key.to_string()), format!("weight {}", set.weight)),
        Operation::ValidatorSet(set) => match set.seats.as_slice().len() {
            1 => (None, "1 validator".to_owned()),
            count => (None, format!("{count} validators")),
        },
        Operation::RecoverySet(set) => (None, format!("{} of {} keys", set.needed, set.keys.len())),
        Operation::ProtocolSet(set) => (None, format!("version {}", set.version)),
        Operation::Rule(rule) => (None, names.rule(rule)),
        Operation::RuleDel(rule) => (None, format!("rule {}", rule.number)),
        Operation::RouteApprove(approve) => {
            let mapped = approve.local.map(|local| format!(", which is {local} there")).unwrap_or_default();
            (Some(approve.identity.to_string()), format!("{}{mapped}", approve.prefix))
        }
        Operation::RouteRevoke(revoke) => (Some(revoke.identity.to_string()), revoke.prefix.to_string()),
        Operation::ExitApprove(approve) => {
            (Some(approve.identity.to_string()), if approve.is_exit { "exit" } else { "no exit" }.to_owned())
        }
        Operation::RelayApprove(approve) => {
            let detail = approve.terms.as_ref().map_or_else(|| "no relay".to_owned(), relay_in_words);
            (Some(approve.identity.to_string()), detail)
        }
        Operation::EndpointsSet(set) => {
            let detail = match set.endpoints.as_slice() {
                [] => "no static endpoints".to_owned(),
                endpoints => format!("at {}", list(endpoints)),
            };
            (Some(set.identity.to_string()), detail)
        }
        Operation::NetworkSet(set) => (None, format!("network {}", set.name)),
        Operation::Unknown { code, .. } => (None, format!("code {code}: unknown to this version")),
    }
}

fn relay_in_words(terms: &RelayTerms) -> String {
    let tls = terms.tls_port().map(|port| format!(", TLS on port {port}")).unwrap_or_default();
    format!("relay at {}{tls}, class {}", list(terms.endpoints().as_slice()), terms.class())
}

fn list(endpoints: &[SocketAddr]) -> String {
    endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn tag_list(sign: &str, tags: &BTreeSet<Label>) -> String {
    tags.iter().map(|tag| format!("{sign}{tag}")).collect::<Vec<_>>().join(" ")
}

/// The member that a record points to.
fn member_of(data: &RecordData) -> Option<String> {
    match data.target() {
        Some(Target::Member(id)) => Some(id.to_string()),
        Some(Target::Name(_)) | None => None,
    }
}

/// The keys besides its identity that a node had when it was admitted.
pub struct AdmittedKeys {
    /// The key of its node records.
    pub node_key: VerifyingKey,
    /// The key of its handshakes.
    pub transport_key: TransportKey,
}

/// A look for the keys that an identity had when it was last admitted.
pub struct KeySearch {
    id: NodeId,
    descent: Descent,
}

impl KeySearch {
    /// Begins at the newest block.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn new(ledger: &Ledger, id: NodeId) -> Result<Self, Failure> {
        Ok(Self { id, descent: Descent::new(ledger, None)? })
    }

    /// Reads up to `count` more blocks. `None` as long as there are more.
    ///
    /// # Errors
    /// Not found, or a store that cannot be read.
    pub fn step(&mut self, ledger: &Ledger, count: usize) -> Result<Option<AdmittedKeys>, Failure> {
        for _ in 0..count {
            let block = self.descent.next(ledger)?.ok_or_else(|| unknown_keys(&self.id))?;
            if let Some(keys) = block.and_then(|block| admitted_keys(&block, &self.id)) {
                return Ok(Some(keys));
            }
        }
        Ok(None)
    }
}

/// The keys of an identity's last admission in a block.
fn admitted_keys(block: &Block, id: &NodeId) -> Option<AdmittedKeys> {
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
    found.next_back()
}

fn unknown_keys(id: &NodeId) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("the ledger never had {id} as a member, so its other keys are not known"))
        .hint("`p2plus keys` on that node prints the whole command to type here; or invite it: p2plus invite")
}

fn unreadable(error: &StoreError) -> Failure {
    Failure::new(ErrorCode::Failed, format!("the ledger cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::super::files::NodeFiles;
    use super::super::founding;
    use super::super::paths::Roots;
    use super::super::setup::InitArgs;
    use super::*;
    use crate::io::clock;
    use crate::ledger::Transaction;
    use crate::ledger::operation::Rename;
    use crate::time::Now;
    use std::path::Path;
    use std::time::Duration;

    /// A chain whose founder renamed itself some times, and the ids of what it signed.
    fn chain(folder: &Path) -> (Ledger, Vec<TxId>) {
        let roots = Roots { state_dir: folder.into(), run_dir: folder.into(), config_file: None };
        let (paths, config) = (roots.network("lab".parse().unwrap()), Config::default());
        let node_name = "ada".parse().unwrap();
        founding::found(&InitArgs { paths: paths.clone(), config, node_name, ipv4: None, listen: Vec::new() }).unwrap();
        let files = NodeFiles::open(&paths).unwrap();
        let (begin, key) = (clock::now(), files.signing_keys().unwrap().identity);
        let mut ledger = files.open_ledger(None, begin.wall).unwrap();
        let ids = (1..=4).map(|seq: u64| {
            let later = Duration::from_secs(seq);
            let now = Now { instant: begin.instant + later, wall: begin.wall.after(later) };
            let name = format!("ada-{seq}").parse().unwrap();
            let rename = Operation::Rename(Rename { identity: key.node_id(), name });
            let until = now.wall.after(Duration::from_secs(60));
            let signed =
                Transaction::new(key.verifying_key(), seq, until, vec![rename]).sign(&files.network_id(), &[&key]);
            let id = signed.id(&files.network_id());
            ledger.submit(now, signed).unwrap();
            id
        });
        let ids = ids.collect();
        assert_eq!(ledger.head().unwrap().height(), Height(4));
        (ledger, ids)
    }

    #[test]
    fn the_log_is_read_a_bounded_number_of_blocks_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, ids) = chain(folder.path());
        let mut search = LogSearch::new(&ledger, None, Some(1)).unwrap();
        for block in 0..ids.len() {
            assert!(search.step(&ledger, 1).unwrap().is_none(), "block {block}");
        }
        let entries = search.step(&ledger, 1).unwrap().expect("the end");
        let shown: Vec<_> = entries.iter().map(|entry| entry.tx.clone()).collect();
        assert_eq!(shown, ids.iter().map(ToString::to_string).collect::<Vec<_>>());
        // The newest stay when the last block that is read has more than there is room for.
        let mut search = LogSearch::new(&ledger, None, None).unwrap();
        search.entries = vec![entries[3].clone(); MAX_LOG - 4 - 1];
        let full = search.step(&ledger, 100).unwrap().expect("the end");
        assert_eq!((full.len(), full[0].height), (MAX_LOG, 0));
        let nobody = Some(NodeId([9; 32]));
        assert_eq!(LogSearch::new(&ledger, nobody, None).unwrap().step(&ledger, 100).unwrap(), Some(Vec::new()));
        assert_eq!(LogSearch::new(&ledger, None, Some(5)).unwrap().step(&ledger, 1).unwrap(), Some(Vec::new()));
    }

    #[test]
    fn the_keys_of_an_admission_are_looked_for_a_bounded_number_of_blocks_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, ids) = chain(folder.path());
        let (founder, record) = ledger.state().members().into_iter().next().expect("the founder");
        let mut search = KeySearch::new(&ledger, founder).unwrap();
        for block in 0..ids.len() {
            assert!(search.step(&ledger, 1).unwrap().is_none(), "block {block}");
        }
        let keys = search.step(&ledger, 1).unwrap().expect("genesis admitted it");
        assert_eq!(keys.transport_key, record.transport_key);
        let mut search = KeySearch::new(&ledger, NodeId([9; 32])).unwrap();
        assert_eq!(search.step(&ledger, 100).err().unwrap().code, ErrorCode::NotFound);
    }

    #[test]
    fn a_whole_id_is_found_by_its_index_and_its_first_digits_a_bounded_number_of_blocks_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, ids) = chain(folder.path());
        let whole = ids[0].to_string();
        let is_it = |item: &LedgerItem| matches!(item, LedgerItem::Transaction(view) if view.tx == whole && view.height == Some(1));
        assert!(matches!(item(&ledger, &whole).unwrap(), Sought::Found(found) if is_it(&found)));
        let Sought::Search(mut search) = item(&ledger, &whole[..20]).unwrap() else {
            panic!("there is no index of these")
        };
        for block in 1..ids.len() {
            assert!(search.step(&ledger, 1).unwrap().is_none(), "block {block}");
        }
        assert!(is_it(&search.step(&ledger, 1).unwrap().expect("its block")));
        let unknown = "5".repeat(64);
        assert_eq!(item(&ledger, &unknown).err().unwrap().code, ErrorCode::NotFound);
        let Sought::Search(mut search) = item(&ledger, &unknown[..20]).unwrap() else { panic!("nothing is pending") };
        assert_eq!(search.step(&ledger, 100).unwrap_err().code, ErrorCode::NotFound);
    }
}
