//! The DNS records of the network: who may set which, what they point to, and how they end.
//!
//! ```text
//!   set     name at or below a member's name: the member itself, or signers with *names*;   any other name: signers with *names*
//!   ends    deleted · its member is renamed or gone · what it points to is gone
//! ```
//! A record belongs to its name. So a name whose holder gives it up takes all its records along, and nobody becomes the holder of a name
//! that has any: whoever came to it would own what others wrote.

use super::addresses::is_default_name;
use super::records::{MEMBERS, NAME_RECORDS, NAME_TARGETS, NAME_TOTALS, NAMES, Tenure};
use super::table::{Key, Part, View};
use super::{Draft, Effect, State, TxError};
use crate::crypto::hash::{Digest, domain_hash};
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::ledger::block::Height;
use crate::ledger::name::Label;
use crate::ledger::operation::{NameDel, NameSet, Scope, WhichRecords};
use crate::ledger::transaction::SignedTransaction;
use crate::wire::record::{RecordData, RecordKind, RecordMark, RecordName, Target};
use borsh::{BorshDeserialize, BorshSerialize};

/// The most records of one name, so that its answer is bounded: with the longest texts about 17 kB.
pub const MAX_RECORDS_OF_NAME: usize = 16;
/// The most records at and below the name of one member.
pub const MAX_RECORDS_OF_MEMBER: usize = 32;
/// The most records whose names are no member's.
pub const MAX_RECORDS: u32 = 4096;
/// The most records at and below the names of all members: in a room of their own, so that members cannot take the network's.
pub const MAX_MEMBERS_RECORDS: u32 = 16_384;

/// One record, as the chain knows it.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct NameRecord {
    /// What it says.
    pub data: RecordData,
    /// The author of the transaction that set it.
    pub author: VerifyingKey,
    /// The height of that.
    pub height: Height,
}

/// How many records there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
pub(super) struct NameTotals {
    network: u32,
    members: u32,
}

/// Where a record stands: by its name from the top, so that what lies below a name lies together.
///
/// ```text
///   label . label . … 0 | kind u8 | H("p2plus/record/1", mark)
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RecordKey {
    name: RecordName,
    kind: RecordKind,
    mark: Digest,
}

/// A record by what it points to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TargetedKey {
    target: Target,
    record: RecordKey,
}

impl RecordKey {
    fn new(name: &RecordName, mark: &RecordMark) -> Self {
        let bytes = borsh::to_vec(mark).expect("writing to memory does not fail");
        Self { name: name.clone(), kind: mark.kind(), mark: domain_hash("p2plus/record/1", &[&bytes]) }
    }
}

/// Writes the labels of a name from the top, each with a dot behind it: no label has one, so that names below it begin alike.
fn write_labels<'l>(labels: impl Iterator<Item = &'l str>, bytes: &mut Vec<u8>) {
    for label in labels {
        bytes.extend_from_slice(label.as_bytes());
        bytes.push(b'.');
    }
}

fn write_name(name: &RecordName, bytes: &mut Vec<u8>) {
    write_labels(name.labels_from_top(), bytes);
    bytes.push(0);
}

/// Reads what [`write_name`] wrote, and gives what follows.
fn read_name(bytes: &[u8]) -> Option<(RecordName, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let (labels, rest) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]);
    let Some(labels) = labels.strip_suffix('.') else { return labels.is_empty().then(|| (RecordName::apex(), rest)) };
    RecordName::from_top(labels.split('.')).ok().filter(|name| !name.is_apex()).map(|name| (name, rest))
}

impl Key for RecordKey {
    fn write(&self, bytes: &mut Vec<u8>) {
        write_name(&self.name, bytes);
        bytes.push(self.kind as u8);
        bytes.extend_from_slice(&self.mark.0);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (name, rest) = read_name(bytes)?;
        let (kind, mark) = rest.split_first()?;
        let kind = *RecordKind::ALL.get(usize::from(*kind))?;
        Some(Self { name, kind, mark: Digest(mark.try_into().ok()?) })
    }
}

impl Key for Target {
    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Member(id) => {
                bytes.push(0);
                bytes.extend_from_slice(&id.0);
            }
            Self::Name(name) => {
                bytes.push(1);
                write_name(name, bytes);
            }
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (target, rest) = read_target(bytes)?;
        rest.is_empty().then_some(target)
    }
}

fn read_target(bytes: &[u8]) -> Option<(Target, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    match kind {
        0 => rest.split_first_chunk().map(|(id, rest)| (Target::Member(NodeId(*id)), rest)),
        1 => read_name(rest).map(|(name, rest)| (Target::Name(name), rest)),
        _ => None,
    }
}

impl Key for TargetedKey {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.target.write(bytes);
        self.record.write(bytes);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (target, rest) = read_target(bytes)?;
        Some(Self { target, record: RecordKey::read(rest)? })
    }
}

/// Where the keys begin of the records at a name.
fn at(name: &RecordName) -> Vec<u8> {
    let mut bytes = vec![0];
    write_name(name, &mut bytes);
    bytes
}

/// Where the keys begin of the records at or below a name directly below the zone.
fn at_or_below(name: &Label) -> Vec<u8> {
    let mut bytes = vec![0];
    write_labels(std::iter::once(name.as_str()), &mut bytes);
    bytes
}

/// Where the keys begin of the records that point to something.
fn pointing_to(target: &Target) -> Vec<u8> {
    let mut bytes = vec![1];
    target.write(&mut bytes);
    bytes
}

/// To whom a name of the zone belongs.
enum Holder {
    Network,
    Member(NodeId, Label),
}

impl State {
    /// Lists all DNS records, each name's together.
    pub fn name_records(&self) -> Vec<(RecordName, NameRecord)> {
        let records = self.entries.list(&NAME_RECORDS, &[0], usize::MAX);
        records.into_iter().map(|(Part(key), record)| (key.name, record)).collect()
    }
}

impl Draft<'_> {
    pub(super) fn set_record(&mut self, signed: &SignedTransaction, set: &NameSet) -> Result<(), TxError> {
        let NameSet { name, data } = set;
        let holder = self.permit_name(signed, name)?;
        check_form(name, data.kind())?;
        if let (Holder::Member(_, label), RecordData::Address(_)) = (&holder, data)
            && name.as_str() == label.as_str()
        {
            // Its addresses are the member's.
            return Err(TxError::NameTaken(label.clone()));
        }
        self.check_target(data)?;
        let key = Part(RecordKey::new(name, &data.mark()));
        if !self.layers.has(&NAME_RECORDS, &key) {
            self.count_record(name, &holder)?;
        }
        if let Some(target) = data.target() {
            self.layers.put(&NAME_TARGETS, &Part(TargetedKey { target, record: key.0.clone() }), &());
        }
        let record = NameRecord { data: data.clone(), author: signed.transaction.author, height: self.height };
        self.layers.put(&NAME_RECORDS, &key, &record);
        self.effects.push(Effect::RecordSet(name.clone()));
        Ok(())
    }

    pub(super) fn delete_records(&mut self, signed: &SignedTransaction, del: &NameDel) -> Result<(), TxError> {
        self.permit_name(signed, &del.name)?;
        let mut keys = self.records_at(&del.name);
        match &del.which {
            WhichRecords::All => {}
            WhichRecords::Kind(kind) => keys.retain(|key| key.kind == *kind),
            WhichRecords::One(mark) => {
                let meant = RecordKey::new(&del.name, mark);
                keys.retain(|key| *key == meant);
            }
        }
        if keys.is_empty() {
            return Err(TxError::NoSuchRecord(del.name.clone()));
        }
        keys.iter().for_each(|key| self.end_record(key));
        Ok(())
    }

    /// Finds to whom a name belongs, and checks that the witnesses may set its records.
    fn permit_name(&self, signed: &SignedTransaction, name: &RecordName) -> Result<Holder, TxError> {
        let holder = self.holder(name);
        let by_itself = matches!(&holder, Holder::Member(id, _) if signed.is_witness(&id.verifying_key()));
        if !by_itself {
            self.permit(signed, Scope::Names)?;
        }
        let Some(label) = name.top().and_then(|top| top.parse::<Label>().ok()) else { return Ok(holder) };
        match &holder {
            Holder::Member(..) => Ok(holder),
            Holder::Network if is_default_name(&label) => Err(TxError::NameOfAnother(label)),
            // At rest: its last holder may have it back.
            Holder::Network if self.layers.has(&NAMES, &label) => Err(TxError::NameTaken(label)),
            Holder::Network => Ok(holder),
        }
    }

    fn holder(&self, name: &RecordName) -> Holder {
        let label = name.top().and_then(|top| top.parse::<Label>().ok());
        match label.and_then(|label| Some((self.layers.read(&NAMES, &label)?, label))) {
            Some((Tenure::Held(id), label)) => Holder::Member(id, label),
            Some((Tenure::Resting { .. }, _)) | None => Holder::Network,
        }
    }

    fn check_target(&self, data: &RecordData) -> Result<(), TxError> {
        match data.target() {
            Some(Target::Member(id)) if !self.layers.has(&MEMBERS, &id) => Err(TxError::NotAMember(id)),
            Some(Target::Name(name)) if !self.has_addresses(&name) => Err(TxError::NoSuchTarget(name)),
            _ => Ok(()),
        }
    }

    /// Makes room for one more record, or says of what there are too many.
    fn count_record(&mut self, name: &RecordName, holder: &Holder) -> Result<(), TxError> {
        if self.layers.list(&NAME_RECORDS, &at(name), MAX_RECORDS_OF_NAME).len() == MAX_RECORDS_OF_NAME {
            return Err(TxError::TooManyRecordsOfName(name.clone()));
        }
        let mut totals = self.layers.read(&NAME_TOTALS, &Part(())).unwrap_or_default();
        match holder {
            Holder::Network if totals.network >= MAX_RECORDS => return Err(TxError::TooManyRecords),
            Holder::Network => totals.network += 1,
            Holder::Member(_, label) => {
                let below = self.layers.list(&NAME_RECORDS, &at_or_below(label), MAX_RECORDS_OF_MEMBER);
                if below.len() == MAX_RECORDS_OF_MEMBER {
                    return Err(TxError::TooManyRecordsOfMember(label.clone()));
                }
                if totals.members >= MAX_MEMBERS_RECORDS {
                    return Err(TxError::TooManyRecords);
                }
                totals.members += 1;
            }
        }
        self.layers.put(&NAME_TOTALS, &Part(()), &totals);
        Ok(())
    }

    /// Says whether a name has a record, or one below it has.
    pub(super) fn has_records_at_or_below(&self, name: &Label) -> bool {
        !self.layers.list(&NAME_RECORDS, &at_or_below(name), 1).is_empty()
    }

    /// Ends what belongs to the name of a member and what points to the member: it is gone, and its name still held.
    pub(super) fn end_records_of(&mut self, id: &NodeId, name: &Label) {
        self.end_records_at_or_below(name);
        self.end_records_pointing_to(&Target::Member(*id));
    }

    /// Ends what belongs to a name that its holder gives up, and still holds.
    pub(super) fn end_records_at_or_below(&mut self, name: &Label) {
        let below = self.layers.list(&NAME_RECORDS, &at_or_below(name), usize::MAX);
        below.iter().for_each(|(Part(key), _)| self.end_record(key));
    }

    fn end_records_pointing_to(&mut self, target: &Target) {
        let pointing = self.layers.list(&NAME_TARGETS, &pointing_to(target), usize::MAX);
        pointing.iter().for_each(|(Part(key), ())| self.end_record(&key.record));
    }

    /// Ends a record, and with the last address of a name what points to the name. What ended already stays so.
    fn end_record(&mut self, key: &RecordKey) {
        let part = Part(key.clone());
        let Some(record) = self.layers.read(&NAME_RECORDS, &part) else { return };
        self.layers.remove(&NAME_RECORDS, &part);
        if let Some(target) = record.data.target() {
            self.layers.remove(&NAME_TARGETS, &Part(TargetedKey { target, record: key.clone() }));
        }
        let mut totals = self.layers.read(&NAME_TOTALS, &Part(())).unwrap_or_default();
        let total = match self.holder(&key.name) {
            Holder::Network => &mut totals.network,
            Holder::Member(..) => &mut totals.members,
        };
        *total = total.saturating_sub(1);
        self.layers.put(&NAME_TOTALS, &Part(()), &totals);
        self.effects.push(Effect::RecordEnded(key.name.clone()));
        if key.kind == RecordKind::Address && !self.has_addresses(&key.name) {
            self.end_records_pointing_to(&Target::Name(key.name.clone()));
        }
    }

    /// Says whether a name has addresses that are no member's own.
    fn has_addresses(&self, name: &RecordName) -> bool {
        self.records_at(name).iter().any(|key| key.kind == RecordKind::Address)
    }

    fn records_at(&self, name: &RecordName) -> Vec<RecordKey> {
        let records = self.layers.list(&NAME_RECORDS, &at(name), usize::MAX);
        records.into_iter().map(|(Part(key), _)| key).collect()
    }
}

/// Checks that records of a kind can have a name.
fn check_form(name: &RecordName, kind: RecordKind) -> Result<(), TxError> {
    match kind {
        RecordKind::Address | RecordKind::Mail if !name.is_host() => Err(TxError::NotAHost(name.clone())),
        RecordKind::Service if !name.is_service() => Err(TxError::NotAService(name.clone())),
        _ => Ok(()),
    }
}
