//! Why a transaction does not apply.

use super::super::address::BadPool;
use super::super::name::Label;
use super::super::operation::{Incarnation, MAX_GATEWAYS, MAX_STORM_LIMIT, MAX_TAGS, RuleNumber, Scope};
use super::super::validators::BadValidatorSet;
use super::name_records::{MAX_MEMBERS_RECORDS, MAX_RECORDS, MAX_RECORDS_OF_MEMBER, MAX_RECORDS_OF_NAME};
use super::routes::{BadRoute, MAX_ROUTES_OF_MEMBER};
use super::{MAX_BRIDGES, MAX_ISSUED, MAX_OWN_TRANSACTIONS, MAX_RULES, MAX_SEGMENTS, MAX_SIGNERS};
use crate::crypto::identity::NodeId;
use crate::wire::prefix::Prefix;
use crate::wire::record::RecordName;
use std::net::{Ipv4Addr, SocketAddr};

/// Why a transaction does not apply to a state; nothing of it happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// An operation of a later version: this program stops applying.
    #[error("operation {0} is unknown to this version: upgrade")]
    UnknownOperation(u16),
    /// A protocol version that this program does not have: it stops applying.
    #[error("protocol version {0} is unknown to this version: upgrade")]
    UnknownProtocol(u32),
    /// An operation of a later protocol version than the network's.
    #[error("the network is at protocol version {network}, and {operation} takes {needed}")]
    LaterProtocol {
        /// The operation's name.
        operation: &'static str,
        /// What it takes.
        needed: u32,
        /// What the network has.
        network: u32,
    },
    /// A protocol version that the network has or has passed.
    #[error("the network is at protocol version {0} already")]
    EarlierProtocol(u32),
    /// The witnesses' weights do not reach the threshold of the operation.
    #[error("the signers have a weight of {weight} for {scope:?}, {threshold} is needed")]
    NotAuthorized {
        /// The class of the operation.
        scope: Scope,
        /// What the witnesses have.
        weight: u64,
        /// What it takes.
        threshold: u64,
    },
    /// The sequence number was used or passed.
    #[error("sequence number {seq} is not above {last}")]
    Replayed {
        /// The transaction's.
        seq: u64,
        /// The last one of its author.
        last: u64,
    },
    /// Its last moment has passed.
    #[error("the transaction was valid until {valid_until} and block time is {time} (ms)")]
    Expired {
        /// The transaction's last moment.
        valid_until: u64,
        /// The block's time.
        time: u64,
    },
    /// Its last moment is too far ahead.
    #[error("the transaction's last moment is too far ahead")]
    ValidTooLong,
    /// A member made too many transactions today.
    #[error("a member makes at most {MAX_OWN_TRANSACTIONS} transactions a day")]
    TooMany,
    /// An operation that stands in genesis only, or genesis lacks or repeats one.
    #[error("the operation {0:?} does not belong here")]
    Misplaced(&'static str),
    /// The identity is a member.
    #[error("{0} is a member")]
    AlreadyMember(NodeId),
    /// The identity is no member.
    #[error("{0} is no member")]
    NotAMember(NodeId),
    /// An admission of another incarnation than the one after the last revocation.
    #[error("{identity} needs an admission of incarnation {current}, not {given}")]
    WrongIncarnation {
        /// Who.
        identity: NodeId,
        /// What it takes.
        current: Incarnation,
        /// What was given.
        given: Incarnation,
    },
    /// A join of an identity that was revoked.
    #[error("{0} was revoked: a signer must admit it again")]
    WasRevoked(NodeId),
    /// A revocation of an incarnation that is yet to come.
    #[error("{identity} is at incarnation {current}, not {given}")]
    FutureIncarnation {
        /// Who.
        identity: NodeId,
        /// Where it is.
        current: Incarnation,
        /// What was given.
        given: Incarnation,
    },
    /// A revocation of what is revoked.
    #[error("everything in the transaction is revoked already")]
    AlreadyRevoked,
    /// Something else than revocations, where nothing else may be.
    #[error("the transaction does more than revoke")]
    NotARevocation,
    /// A key that is no point of full order.
    #[error("a key of {0} is unusable")]
    UnusableKey(NodeId),
    /// Another member has the transport key.
    #[error("the transport key belongs to another member")]
    TransportKeyTaken,
    /// Another member has the IPv6 host number, or nobody may.
    #[error("the identity's IPv6 address is taken")]
    Ipv6Taken,
    /// The IPv4 address is another member's, rests, or is nobody's.
    #[error("{0} is taken, at rest or cannot be given")]
    Ipv4Taken(Ipv4Addr),
    /// Every address of the pool is taken or at rest.
    #[error("the IPv4 pool is used up")]
    PoolExhausted,
    /// The name is another member's, or rests.
    #[error("the name {0} is taken or at rest")]
    NameTaken(Label),
    /// The name needs a signer.
    #[error("the name {0} is reserved: only a signer gives it")]
    NameReserved(Label),
    /// The name says that it follows from another identity.
    #[error("the name {0} is kept for the identity that begins with its digits")]
    NameOfAnother(Label),
    /// A name that no such record can have.
    #[error(
        "{0} cannot be the name of such a record: labels that begin with an underscore are for SRV and TXT records"
    )]
    NotAHost(RecordName),
    /// An SRV record that is found by no service.
    #[error("{0} does not begin with a service and a protocol, as in _imap._tcp.{0}")]
    NotAService(RecordName),
    /// A record would point to a name without addresses.
    #[error("{0} is no member and has no addresses of its own in the zone")]
    NoSuchTarget(RecordName),
    /// There is no such record.
    #[error("there is no such record of {0}")]
    NoSuchRecord(RecordName),
    /// The name has as many records as one answer may hold.
    #[error("{0} has {MAX_RECORDS_OF_NAME} records, which is the most")]
    TooManyRecordsOfName(RecordName),
    /// A member has as many records as it may.
    #[error("at and below {0} are {MAX_RECORDS_OF_MEMBER} records, which is the most of one member")]
    TooManyRecordsOfMember(Label),
    /// The network has as many records as it may.
    #[error(
        "the network has as many DNS records as it may: {MAX_RECORDS} beside its members', {MAX_MEMBERS_RECORDS} of theirs"
    )]
    TooManyRecords,
    /// More than [`MAX_TAGS`].
    #[error("more than {MAX_TAGS} tags")]
    TooManyTags,
    /// A change of tags that names none.
    #[error("no tag is named")]
    NoTags,
    /// The network has this rule.
    #[error("rule {0} says this already")]
    RuleExists(RuleNumber),
    /// No rule has this number.
    #[error("there is no rule {0}")]
    NoSuchRule(RuleNumber),
    /// The network has too many rules.
    #[error("a network has at most {MAX_RULES} rules")]
    TooManyRules,
    /// A prefix that no member may route.
    #[error("{0} cannot be routed: {1}")]
    BadRoute(Prefix, BadRoute),
    /// The member routes this subnet.
    #[error("{1} routes {0} already")]
    RouteExists(Prefix, NodeId),
    /// The member does not route this subnet.
    #[error("{1} does not route {0}")]
    NoSuchRoute(Prefix, NodeId),
    /// The member routes too many subnets.
    #[error("a member routes at most {MAX_ROUTES_OF_MEMBER} subnets")]
    TooManyRoutes,
    /// The member does not relay for others by approval, so that nothing is to be ended.
    #[error("{0} is no approved relay")]
    NotARelay(NodeId),
    /// The static endpoints of a node that is no validator's.
    #[error("{0} is no validator: others are found by what they say of themselves")]
    NotAValidator(NodeId),
    /// A static endpoint among the overlay's own addresses.
    #[error("{0} is inside the overlay")]
    OverlayEndpoint(SocketAddr),
    /// A membership or credential that would end before it begins.
    #[error("it would have ended before this block")]
    EndsInThePast,
    /// No such credential: never made, used up, ended or revoked.
    #[error("the credential is unknown, used up, expired or revoked")]
    NoSuchCredential,
    /// The identity or the credential's key did not sign the join.
    #[error("a join is authored by the identity and signed by the credential's key")]
    JoinNotSigned,
    /// A credential with this key exists.
    #[error("a credential with this key exists")]
    CredentialExists,
    /// A credential that nobody could use, or that lasts too long.
    #[error("a credential has 1 to 10,000 uses, one if it has a name, and lasts at most a year")]
    BadCredential,
    /// The author has too many credentials.
    #[error("an author has at most {MAX_ISSUED} credentials at a time")]
    TooManyCredentials,
    /// No segment has this name.
    #[error("there is no segment {0}")]
    NoSuchSegment(Label),
    /// The network has too many segments.
    #[error("a network has at most {MAX_SEGMENTS} segments")]
    TooManySegments,
    /// A segment with too many gateways, or a limit that is none.
    #[error("a segment has at most {MAX_GATEWAYS} gateways and a storm limit of 1 to {MAX_STORM_LIMIT}")]
    BadSegment,
    /// The segment has too many bridges.
    #[error("a segment has at most {MAX_BRIDGES} bridges")]
    TooManyBridges,
    /// The member may not bridge, so that nothing is to be taken back.
    #[error("{0} may not bridge into the segment {1}")]
    NotABridge(NodeId, Label),
    /// A signer's key is unusable.
    #[error("the signer's key is unusable")]
    BadSigner,
    /// The network has too many signers.
    #[error("a network has at most {MAX_SIGNERS} signers")]
    TooManySigners,
    /// Nobody could change the signers any more.
    #[error("at least one signer must keep the governance of the network")]
    NoGovernor,
    /// The recovery keys cannot recover.
    #[error("the recovery keys are unusable, too many, or fewer than needed")]
    BadRecovery,
    /// The network's name is too long.
    #[error("the name of a network has at most 32 bytes")]
    NetworkName,
    /// The pool cannot be one.
    #[error(transparent)]
    Pool(#[from] BadPool),
    /// The validators cannot be some.
    #[error(transparent)]
    Validators(#[from] BadValidatorSet),
}
