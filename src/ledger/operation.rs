//! What a transaction does, and how each operation is framed.
//!
//! ```text
//! operation : code u16 | len u32 | bytes (borsh of the operation)
//! ```
//! The frame lets a node that does not know a code keep the bytes, and still read the revocations beside it.

use super::address::Ipv4Choice;
use super::name::Label;
use super::validators::Seats;
use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::{Digest, domain_hash};
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::policy::RelayTerms;
use crate::policy::rule::Rule;
use crate::time::UnixMillis;
use crate::wire::endpoint::StaticEndpoints;
use crate::wire::prefix::Prefix;
use crate::wire::record::{RecordData, RecordKind, RecordMark, RecordName};
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;

/// The most tags of a member or credential.
pub const MAX_TAGS: usize = 16;

/// The most members of a segment that routers and DHCP servers may be behind.
pub const MAX_GATEWAYS: usize = 16;

/// The most frames a second that a segment may let one member send to everybody.
pub const MAX_STORM_LIMIT: u32 = 100_000;

/// How often an identity was revoked before this membership: 0 for a first one.
pub type Incarnation = u64;

/// The number of a rule: 1 for the first of a network, and never given twice.
pub type RuleNumber = u64;

/// The operations that this program knows, as the version of the networks that it founds.
pub const PROTOCOL_VERSION: u32 = 3;

/// The code of [`ProtocolSet`], which says "upgrade" to a program that lacks the version.
pub const PROTOCOL_SET: u16 = 72;

/// Makes a node a member, by the authority of signers.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Admit {
    /// The identity that becomes a member.
    pub identity: NodeId,
    /// The key of its node records.
    pub node_key: VerifyingKey,
    /// The key of its handshakes.
    pub transport_key: TransportKey,
    /// Its name; derived from the identity when absent.
    pub name: Option<Label>,
    /// Its tags, at most [`MAX_TAGS`].
    pub tags: BTreeSet<Label>,
    /// Its IPv4 address; the next free one when absent.
    pub ipv4: Option<Ipv4Addr>,
    /// When its membership ends by itself.
    pub expires: Option<UnixMillis>,
    /// One more than the last revoked incarnation, 0 when none was.
    pub incarnation: Incarnation,
}

/// Makes a node a member, by the authority of a credential. Signed by the identity and by the credential's key.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Join {
    /// The identity that becomes a member, the transaction's author.
    pub identity: NodeId,
    /// The key of its node records.
    pub node_key: VerifyingKey,
    /// The key of its handshakes.
    pub transport_key: TransportKey,
    /// The public half of the credential; the secret half is never sent.
    pub credential: VerifyingKey,
    /// The name it would like; a name in the credential comes first.
    pub name: Option<Label>,
}

/// Ends a membership, and every other one of this incarnation or an earlier one, whatever the order of their blocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
pub struct Revoke {
    /// The identity that is cut.
    pub identity: NodeId,
    /// Its current incarnation, 0 for one that was never revoked.
    pub incarnation: Incarnation,
}

/// Gives a member another name. Signed by a signer, or by the member itself for a name that is not reserved.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Rename {
    /// The member.
    pub identity: NodeId,
    /// Its new name.
    pub name: Label,
}

/// Gives a member tags, or takes some from it. Signed by a signer.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Tags {
    /// The member.
    pub identity: NodeId,
    /// The tags, at least one; those that it has, or has not, already are fine.
    pub tags: BTreeSet<Label>,
}

/// Lets whoever holds a key join: what stands behind an invitation.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Credential {
    /// [`credential_hash`] of the public half.
    pub key_hash: Digest,
    /// The name that the member will have; implies one use.
    pub name: Option<Label>,
    /// The tags that members will have, at most [`MAX_TAGS`].
    pub tags: BTreeSet<Label>,
    /// How many may join by it, at least one.
    pub uses: u32,
    /// When it ends by itself.
    pub expires: UnixMillis,
}

/// Ends a credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct CredentialRevoke {
    /// Which one.
    pub key_hash: Digest,
}

/// Ends a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct RuleDel {
    /// Which one.
    pub number: RuleNumber,
}

/// Lets a member route a subnet that lies behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct RouteApprove {
    /// The member.
    pub identity: NodeId,
    /// The subnet as the overlay sees it.
    pub prefix: Prefix,
    /// The subnet as it is behind the member, of the same length, where that is another one: each address is mapped 1:1.
    pub local: Option<Prefix>,
}

/// Ends a member's route.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct RouteRevoke {
    /// The member.
    pub identity: NodeId,
    /// The subnet as the overlay sees it.
    pub prefix: Prefix,
}

/// Says whether a member may carry others' traffic to everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct ExitApprove {
    /// The member.
    pub identity: NodeId,
    /// Whether it may.
    pub is_exit: bool,
}

/// Says on what terms a member relays for others, found at static endpoints.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct RelayApprove {
    /// The member.
    pub identity: NodeId,
    /// The terms; none end it.
    pub terms: Option<RelayTerms>,
}

/// Says where a validator stays. Signed by a signer, or by the validator's node itself.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct EndpointsSet {
    /// The node of the validator, a member.
    pub identity: NodeId,
    /// Its endpoints; none when it has none that stay.
    pub endpoints: StaticEndpoints,
}

/// Sets a DNS record, in the place of one with the same mark. Signed by the member whose name it is at or below, or by a signer.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct NameSet {
    /// Its name in the network's zone.
    pub name: RecordName,
    /// What it says.
    pub data: RecordData,
}

/// Ends DNS records. Signed as they are.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct NameDel {
    /// Their name in the network's zone.
    pub name: RecordName,
    /// Which of those that have the name.
    pub which: WhichRecords,
}

/// Which of the records of one name.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum WhichRecords {
    /// All.
    All,
    /// Those of a kind.
    Kind(RecordKind),
    /// One.
    One(RecordMark),
}

/// Makes a segment of the link layer, or sets anew what it is. Whoever has its tag is in it.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SegmentSet {
    /// Its name.
    pub name: Label,
    /// The tag of its members.
    pub tag: Label,
    /// The members behind which its routers and DHCP servers are, at most [`MAX_GATEWAYS`].
    pub gateways: BTreeSet<NodeId>,
    /// Frames a second that one member may send to everybody, 1 to [`MAX_STORM_LIMIT`].
    pub storm_limit: u32,
}

/// Ends a segment, and the bridges into it.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SegmentDel {
    /// Its name.
    pub name: Label,
}

/// Lets a member bridge a network into a segment: it vouches for the stations there.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct BridgeApprove {
    /// The segment's name.
    pub segment: Label,
    /// The member.
    pub member: NodeId,
}

/// Takes that back.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct BridgeRevoke {
    /// The segment's name.
    pub segment: Label,
    /// The member.
    pub member: NodeId,
}

/// Sets what a key may sign; weight 0 ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SignerSet {
    /// The signer's key.
    pub key: VerifyingKey,
    /// How much its signature counts towards a threshold.
    pub weight: u32,
    /// For which classes of operations.
    pub scopes: Scopes,
}

/// Replaces the validators.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct ValidatorSetOperation {
    /// The validators of the next height, with their nodes.
    pub seats: Seats,
}

/// Sets the keys that can continue the chain after a disaster.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct RecoverySet {
    /// The keys, of which the secret halves are kept as words on paper.
    pub keys: BTreeSet<VerifyingKey>,
    /// How many of them must sign.
    pub needed: u8,
}

/// Founds the network: in genesis, once.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct NetworkSet {
    /// The network's name, at most 32 bytes.
    pub name: Label,
    /// Where IPv4 addresses come from.
    pub ipv4: Ipv4Choice,
    /// The operations that blocks may hold, see [`Operation::since`].
    pub protocol_version: u32,
}

/// Lets blocks hold the operations of a later protocol version. Signed by a signer; there is no way back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct ProtocolSet {
    /// The version, above the network's.
    pub version: u32,
}

/// A class of operations that a signer may be trusted with, and its bit in [`Scopes`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u16)]
pub enum Scope {
    /// Admission, names and tags of members.
    Members = 1,
    /// Revocation.
    Revocation = 1 << 1,
    /// Credentials, the authority behind invitations.
    Credentials = 1 << 2,
    /// Rules, routes, exits, relays, segments.
    Rights = 1 << 3,
    /// DNS records.
    Names = 1 << 4,
    /// Signers, thresholds, validators, parameters.
    Governance = 1 << 5,
}

/// A set of [`Scope`]s. Bits without a meaning do not decode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize)]
pub struct Scopes(u16);

impl Scopes {
    /// Every scope.
    pub const ALL: Self = Self((1 << 6) - 1);

    /// Says whether `scope` is in the set.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope as u16 != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope as u16))
    }
}

impl BorshDeserialize for Scopes {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let bits = u16::deserialize_reader(reader)?;
        if bits & !Self::ALL.0 != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "unknown scope"));
        }
        Ok(Self(bits))
    }
}

/// Returns the name under which the ledger knows a credential.
pub fn credential_hash(key: &VerifyingKey) -> Digest {
    domain_hash("p2plus/credential/1", &[&key.0])
}

/// Declares the operations with their codes once, so that reading and writing cannot disagree.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident($payload:ty) = $code:literal, $text:literal, since $version:literal;)*) => {
        /// One operation of a transaction.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum Operation {
            $($(#[$doc])* $name($payload),)*
            /// An operation of a later protocol version: kept as it came, never applied.
            Unknown {
                /// Its code.
                code: u16,
                /// Its bytes.
                bytes: Vec<u8>,
            },
        }

        impl Operation {
            /// Returns the code on the wire.
            pub fn code(&self) -> u16 {
                match self {
                    $(Self::$name(_) => $code,)*
                    Self::Unknown { code, .. } => *code,
                }
            }

            /// Returns the protocol version from which on blocks may hold it; an unknown one is of a version above this program's.
            pub fn since(&self) -> u32 {
                match self {
                    $(Self::$name(_) => $version,)*
                    Self::Unknown { .. } => PROTOCOL_VERSION + 1,
                }
            }

            /// Returns the word for it in logs and lists.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => $text,)*
                    Self::Unknown { .. } => "unknown",
                }
            }

            fn payload(&self) -> io::Result<Vec<u8>> {
                match self {
                    $(Self::$name(payload) => borsh::to_vec(payload),)*
                    Self::Unknown { bytes, .. } => Ok(bytes.clone()),
                }
            }

            fn parse(code: u16, bytes: Vec<u8>) -> io::Result<Self> {
                match code {
                    $($code => borsh::from_slice(&bytes).map(Self::$name),)*
                    _ => Ok(Self::Unknown { code, bytes }),
                }
            }
        }
    };
}

operations! {
    /// Code 1.
    Admit(Admit) = 1, "admit", since 1;
    /// Code 2.
    Join(Join) = 2, "join", since 1;
    /// Code 3. The one code whose meaning no later version changes.
    Revoke(Revoke) = 3, "revoke", since 1;
    /// Code 6.
    Rename(Rename) = 6, "rename", since 1;
    /// Code 7.
    Tag(Tags) = 7, "tag", since 2;
    /// Code 8.
    Untag(Tags) = 8, "untag", since 2;
    /// Code 16.
    Credential(Credential) = 16, "credential", since 1;
    /// Code 17.
    CredentialRevoke(CredentialRevoke) = 17, "credential-revoke", since 1;
    /// Code 32.
    Rule(Rule) = 32, "rule", since 2;
    /// Code 33.
    RuleDel(RuleDel) = 33, "rule-del", since 2;
    /// Code 34.
    RouteApprove(RouteApprove) = 34, "route-approve", since 2;
    /// Code 35.
    RouteRevoke(RouteRevoke) = 35, "route-revoke", since 2;
    /// Code 36.
    ExitApprove(ExitApprove) = 36, "exit-approve", since 2;
    /// Code 37.
    RelayApprove(RelayApprove) = 37, "relay-approve", since 3;
    /// Code 48.
    NameSet(NameSet) = 48, "name-set", since 2;
    /// Code 49.
    NameDel(NameDel) = 49, "name-del", since 2;
    /// Code 38.
    SegmentSet(SegmentSet) = 38, "segment-set", since 2;
    /// Code 39.
    SegmentDel(SegmentDel) = 39, "segment-del", since 2;
    /// Code 40.
    BridgeApprove(BridgeApprove) = 40, "bridge-approve", since 2;
    /// Code 41.
    BridgeRevoke(BridgeRevoke) = 41, "bridge-revoke", since 2;
    /// Code 42.
    EndpointsSet(EndpointsSet) = 42, "endpoints-set", since 3;
    /// Code 64.
    SignerSet(SignerSet) = 64, "signer-set", since 1;
    /// Code 67.
    ValidatorSet(ValidatorSetOperation) = 67, "validator-set", since 1;
    /// Code 68.
    RecoverySet(RecoverySet) = 68, "recovery-set", since 1;
    /// Code 71.
    NetworkSet(NetworkSet) = 71, "network-set", since 1;
    /// Code 72. Its first version is 1, because it leads from there; a program of version 1 does not know it and stops.
    ProtocolSet(ProtocolSet) = 72, "protocol-set", since 1;
}

impl BorshSerialize for Operation {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        self.code().serialize(writer)?;
        self.payload()?.serialize(writer)
    }
}

impl BorshDeserialize for Operation {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let code = u16::deserialize_reader(reader)?;
        Self::parse(code, Vec::deserialize_reader(reader)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_operation_keeps_its_bytes() {
        let operation = Operation::Unknown { code: 999, bytes: vec![1, 2, 3] };
        let bytes = borsh::to_vec(&operation).unwrap();
        assert_eq!(bytes, [0xe7, 3, 3, 0, 0, 0, 1, 2, 3]);
        assert_eq!(borsh::from_slice::<Operation>(&bytes).unwrap(), operation);
    }

    #[test]
    fn a_known_operation_with_a_byte_too_many_does_not_decode() {
        let revoke = Revoke { identity: NodeId([1; 32]), incarnation: 0 };
        let mut payload = borsh::to_vec(&revoke).unwrap();
        assert!(Operation::parse(3, payload.clone()).is_ok());
        payload.push(0);
        assert!(Operation::parse(3, payload).is_err());
    }

    #[test]
    fn tags_out_of_order_do_not_decode() {
        let tags = |list: [&str; 2]| borsh::to_vec(&list.map(str::to_owned).to_vec()).unwrap();
        assert!(borsh::from_slice::<BTreeSet<Label>>(&tags(["a", "b"])).is_ok());
        assert!(borsh::from_slice::<BTreeSet<Label>>(&tags(["b", "a"])).is_err());
        assert!(borsh::from_slice::<BTreeSet<Label>>(&tags(["a", "a"])).is_err());
    }

    #[test]
    fn a_scope_without_a_meaning_does_not_decode() {
        assert!(borsh::from_slice::<Scopes>(&[0x3f, 0]).is_ok());
        assert!(borsh::from_slice::<Scopes>(&[0x40, 0]).is_err());
        let scopes: Scopes = [Scope::Revocation].into_iter().collect();
        assert!(scopes.contains(Scope::Revocation) && !scopes.contains(Scope::Members));
    }
}
