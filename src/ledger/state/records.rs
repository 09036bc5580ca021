//! The tables of the state and their records. Tags and records are part of the format: they are under the state root.

use super::super::address::Ipv4Choice;
use super::super::block::Height;
use super::super::name::Label;
use super::super::operation::{Incarnation, RuleNumber, Scopes};
use super::super::validators::{Seats, ValidatorSet};
use super::name_records::{NameRecord, NameTotals, RecordKey, TargetedKey};
use super::table::{Key, Part, Table};
use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::Digest;
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::policy::RelayTerms;
use crate::policy::rule::Rule;
use crate::time::UnixMillis;
use crate::wire::endpoint::StaticEndpoints;
use crate::wire::prefix::Prefix;
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeSet;

pub(super) const NETWORK: Table<(), Network> = Table::new(1);
pub(super) const MEMBERS: Table<NodeId, MemberRecord> = Table::new(2);
pub(super) const REVOKED: Table<NodeId, Incarnation> = Table::new(3);
pub(super) const NAMES: Table<Label, Tenure> = Table::new(4);
pub(super) const IPV4: Table<u32, Tenure> = Table::new(5);
pub(super) const IPV6: Table<u64, NodeId> = Table::new(6);
pub(super) const TRANSPORT_KEYS: Table<TransportKey, NodeId> = Table::new(7);
pub(super) const CREDENTIALS: Table<Digest, CredentialRecord> = Table::new(8);
pub(super) const ISSUED: Table<(VerifyingKey, Digest), ()> = Table::new(9);
pub(super) const SIGNERS: Table<VerifyingKey, SignerRecord> = Table::new(10);
pub(super) const VALIDATORS: Table<(), Seats> = Table::new(11);
pub(super) const RECOVERY: Table<(), Recovery> = Table::new(12);
pub(super) const AUTHORS: Table<VerifyingKey, Author> = Table::new(13);
pub(super) const ENDINGS: Table<(UnixMillis, Ending), ()> = Table::new(14);
pub(super) const RESTS: Table<(UnixMillis, Rest), ()> = Table::new(15);
pub(super) const LAST_IPV4: Table<(), u32> = Table::new(16);
pub(super) const COMMITTERS: Table<(), ValidatorSet> = Table::new(17);
pub(super) const PARENT_COMMITTERS: Table<(), ValidatorSet> = Table::new(18);
pub(super) const RULES: Table<RuleNumber, RuleRecord> = Table::new(19);
pub(super) const ROUTES: Table<(NodeId, Prefix), RouteRecord> = Table::new(20);
pub(super) const EXITS: Table<NodeId, Approval> = Table::new(21);
pub(super) const NAME_RECORDS: Table<Part<0, RecordKey>, NameRecord> = Table::new(24);
pub(super) const NAME_TARGETS: Table<Part<1, TargetedKey>, ()> = Table::new(24);
pub(super) const NAME_TOTALS: Table<Part<2, ()>, NameTotals> = Table::new(24);
pub(super) const RULE_COUNT: Table<(), RuleCount> = Table::new(25);
pub(super) const RULES_OF: Table<(NodeId, RuleNumber), ()> = Table::new(26);
pub(super) const RULE_NUMBERS: Table<Digest, RuleNumber> = Table::new(27);
pub(super) const SEGMENTS: Table<Label, SegmentRecord> = Table::new(22);
pub(super) const BRIDGES: Table<(u32, NodeId), ()> = Table::new(23);
pub(super) const RELAYS: Table<NodeId, RelayRecord> = Table::new(28);
pub(super) const ENDPOINTS: Table<NodeId, EndpointsRecord> = Table::new(29);

/// Says whether an entry that comes from outside belongs to one of the tables and can be read.
pub(super) fn is_readable(key: &[u8], value: &[u8]) -> bool {
    match key.first() {
        Some(1) => NETWORK.accepts(key, value),
        Some(2) => MEMBERS.accepts(key, value),
        Some(3) => REVOKED.accepts(key, value),
        Some(4) => NAMES.accepts(key, value),
        Some(5) => IPV4.accepts(key, value),
        Some(6) => IPV6.accepts(key, value),
        Some(7) => TRANSPORT_KEYS.accepts(key, value),
        Some(8) => CREDENTIALS.accepts(key, value),
        Some(9) => ISSUED.accepts(key, value),
        Some(10) => SIGNERS.accepts(key, value),
        Some(11) => VALIDATORS.accepts(key, value),
        Some(12) => RECOVERY.accepts(key, value),
        Some(13) => AUTHORS.accepts(key, value),
        Some(14) => ENDINGS.accepts(key, value),
        Some(15) => RESTS.accepts(key, value),
        Some(16) => LAST_IPV4.accepts(key, value),
        Some(17) => COMMITTERS.accepts(key, value),
        Some(18) => PARENT_COMMITTERS.accepts(key, value),
        Some(19) => RULES.accepts(key, value),
        Some(20) => ROUTES.accepts(key, value),
        Some(21) => EXITS.accepts(key, value),
        Some(24) => {
            NAME_RECORDS.accepts(key, value) || NAME_TARGETS.accepts(key, value) || NAME_TOTALS.accepts(key, value)
        }
        Some(25) => RULE_COUNT.accepts(key, value),
        Some(26) => RULES_OF.accepts(key, value),
        Some(27) => RULE_NUMBERS.accepts(key, value),
        Some(22) => SEGMENTS.accepts(key, value),
        Some(23) => BRIDGES.accepts(key, value),
        Some(28) => RELAYS.accepts(key, value),
        Some(29) => ENDPOINTS.accepts(key, value),
        _ => false,
    }
}

/// What the network is.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Network {
    /// Its name.
    pub name: Label,
    /// Where its IPv4 addresses come from.
    pub ipv4: Ipv4Choice,
    /// Which operations its blocks may hold.
    pub protocol_version: u32,
}

/// One member, as the chain knows it.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct MemberRecord {
    /// Its name.
    pub name: Label,
    /// The key of its node records.
    pub node_key: VerifyingKey,
    /// The key of its handshakes.
    pub transport_key: TransportKey,
    /// Its tags.
    pub tags: BTreeSet<Label>,
    /// Its host number in the IPv4 pool.
    pub ipv4: Option<u32>,
    /// When its membership ends by itself.
    pub expires: Option<UnixMillis>,
    /// How often the identity was revoked before.
    pub incarnation: Incarnation,
    /// The height of its admission.
    pub admitted_height: Height,
    /// The author of its admission: a signer, or for a join the issuer of the credential.
    pub admitted_by: VerifyingKey,
    /// The credential that it joined by.
    pub credential: Option<Digest>,
}

/// Who has a name or an address.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Tenure {
    /// A member has it.
    Held(NodeId),
    /// Nobody but its last holder may have it until this block time.
    Resting {
        /// Who had it.
        last: NodeId,
        /// When it is free again.
        until: UnixMillis,
    },
}

/// A credential that can be used.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct CredentialRecord {
    /// The author of the transaction that made it.
    pub issuer: VerifyingKey,
    /// The name that the member will have.
    pub name: Option<Label>,
    /// The tags that members will have.
    pub tags: BTreeSet<Label>,
    /// How many may still join by it.
    pub uses: u32,
    /// When it ends by itself.
    pub expires: UnixMillis,
}

/// A segment of the link layer.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SegmentRecord {
    /// Its number, by which frames name it.
    pub number: u32,
    /// The tag of its members.
    pub tag: Label,
    /// The members behind which its routers and DHCP servers are.
    pub gateways: BTreeSet<NodeId>,
    /// Frames a second that one member may send to everybody.
    pub storm_limit: u32,
}

/// What a key may sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SignerRecord {
    /// How much its signature counts.
    pub weight: u32,
    /// For what.
    pub scopes: Scopes,
}

/// A rule, and who stands behind it.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct RuleRecord {
    /// What it says.
    pub rule: Rule,
    /// By whose authority.
    pub approval: Approval,
}

/// By whose authority something holds.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Approval {
    /// The height of the block that made it.
    pub height: Height,
    /// The id of the transaction that made it; of genesis, the one for the chain zero.
    pub transaction: Digest,
    /// The signers by whose authority it was made, in the order of their keys.
    pub signers: Vec<VerifyingKey>,
}

/// A subnet behind a member.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct RouteRecord {
    /// The subnet as it is there, where the overlay sees it as another one.
    pub local: Option<Prefix>,
    /// By whose authority.
    pub approval: Approval,
}

/// A member that relays for others.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct RelayRecord {
    /// On what terms.
    pub terms: RelayTerms,
    /// By whose authority.
    pub approval: Approval,
}

/// Where a validator stays.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct EndpointsRecord {
    /// Its endpoints, at least one.
    pub endpoints: StaticEndpoints,
    /// By whose authority: no signer's, where the validator's node said so itself.
    pub approval: Approval,
}

/// How many rules there are, and were.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
pub(super) struct RuleCount {
    pub(super) last: RuleNumber,
    pub(super) present: u32,
}

/// Who can continue the chain after a disaster.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Recovery {
    /// The keys.
    pub keys: BTreeSet<VerifyingKey>,
    /// How many of them must sign.
    pub needed: u8,
}

/// How far the author of transactions has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct Author {
    /// The last sequence number.
    pub seq: u64,
    /// The day of block time of its last transaction.
    pub day: u64,
    /// How many it made on that day.
    pub count: u16,
}

/// What ends at a time, so that the next end is found without looking at everything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Ending {
    Member(NodeId),
    Credential(Digest),
}

impl Key for Ending {
    fn write(&self, bytes: &mut Vec<u8>) {
        let (kind, id) = match self {
            Self::Member(id) => (0, &id.0),
            Self::Credential(hash) => (1, &hash.0),
        };
        bytes.push(kind);
        bytes.extend_from_slice(id);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, id) = bytes.split_first()?;
        let id = id.try_into().ok()?;
        match kind {
            0 => Some(Self::Member(NodeId(id))),
            1 => Some(Self::Credential(Digest(id))),
            _ => None,
        }
    }
}

/// What is free again at a time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Rest {
    Name(Label),
    Ipv4(u32),
}

impl Key for Rest {
    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Name(label) => {
                bytes.push(0);
                label.write(bytes);
            }
            Self::Ipv4(host) => {
                bytes.push(1);
                host.write(bytes);
            }
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match kind {
            0 => Label::read(rest).map(Self::Name),
            1 => u32::read(rest).map(Self::Ipv4),
            _ => None,
        }
    }
}
