//! Control records (record kind 3): short messages between two nodes inside their session.
//!
//! At most 1.1 kB each, so that they pass every path. Loss is normal: what must arrive is asked for again or travels by stream.

use crate::crypto::hash::{Digest, domain_hash};
use crate::crypto::identity::{BadSignature, NodeId, Signature, SigningKey, VerifyingKey};
use crate::time::UnixMillis;
use crate::wire::prefix::Prefix;
use crate::wire::relay::Label;
use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use std::net::SocketAddr;

/// The longest encoded control message: with all headers it fits the 1124-byte path.
pub const MAX_CONTROL_LEN: usize = 1040;

/// The longest ledger message that fits [`ControlMessage::Ledger`]: its tag and its length go in front.
pub const MAX_LEDGER_IN_CONTROL: usize = MAX_CONTROL_LEN - 5;

/// Endpoints in one node record.
pub const MAX_RECORD_ENDPOINTS: usize = 8;

/// A probe is padded by this, so that a pong is never longer than what it answers.
const PROBE_PADDING: usize = 23;

/// Relays that a label request names besides the one that it goes to.
pub const MAX_THROUGH: usize = 2;

/// Home relays in one node record.
pub const MAX_HOMES: usize = 3;

/// Bytes that are no control message of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a control message")]
pub struct MalformedControl;

/// What a control record says.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ControlMessage {
    /// Asks for a [`ControlMessage::Pong`] to where this came from.
    Probe {
        /// Random; the pong repeats it.
        id: u64,
        /// The sender only asks: it uses another path.
        is_spare: bool,
        /// Zeros.
        padding: [u8; PROBE_PADDING],
    },
    /// Answers a probe.
    Pong {
        /// The probe's id.
        id: u64,
        /// The address that the probe came from: the prober's own, as seen from here.
        observed: SocketAddr,
    },
    /// A ledger message that fits: a revocation, a head.
    Ledger(Vec<u8>),
    /// The sender closes this session and all others with the receiver.
    Goodbye,
    /// The sender gets datagrams of the receiver's that the session's keys do not open: something on the way alters them.
    Damaged,
    /// Asks a relay for a way to a member.
    LabelRequest(LabelRequest),
    /// Answers a label request: what the sender of it puts in front of datagrams for the member.
    LabelGranted {
        /// The request's.
        id: u32,
        /// The label on the hop between the two.
        label: Label,
    },
    /// Answers a label request.
    LabelRefused {
        /// The request's.
        id: u32,
        /// Why.
        reason: LabelRefusal,
    },
    /// Tells a member that another one reaches it through the sender.
    LabelOffered {
        /// Who.
        origin: NodeId,
        /// What leads back there, on the hop between the two.
        label: Label,
    },
    /// The label leads nowhere any more.
    LabelGone {
        /// Which.
        label: Label,
    },
    /// Asks a member to be met half-way, directly or by a member that both know.
    Call(Call),
    /// Asks a relay for a second place that sees where a probe comes from.
    EarWanted,
    /// Answers that: the sender answers probes at this port of its own, too.
    Ear {
        /// Never 0.
        port: u16,
    },
}

/// What a relay is asked for.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LabelRequest {
    /// The answer repeats it.
    pub id: u32,
    /// Who wants to reach the target.
    pub origin: NodeId,
    /// Where the way leads.
    pub target: NodeId,
    /// The relays behind the receiver, in their order: at most [`MAX_THROUGH`].
    pub through: Vec<NodeId>,
}

/// Why a relay gives no label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum LabelRefusal {
    /// It relays for nobody.
    NoRelay,
    /// As many labels are given as there may be, or as this member may have.
    Full,
    /// The target, or a relay of the list, is no member.
    Stranger,
    /// The list names somebody twice.
    Loop,
    /// The next of the list does not answer.
    Unreachable,
}

/// A node's endpoints, told when they matter: both ends begin to send to each other's at once, so that each opens its own NAT.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Call {
    /// Whose endpoints.
    pub from: NodeId,
    /// Whom they are for: the receiver, or somebody whom it passes them on to.
    pub to: NodeId,
    /// At most [`MAX_RECORD_ENDPOINTS`].
    pub endpoints: Vec<SocketAddr>,
    /// How the sender's NAT chooses endpoints.
    pub nat: NatKind,
    /// It answers one.
    pub is_answer: bool,
}

/// How the NAT in front of a node chooses the endpoint that others see (RFC 4787 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum NatKind {
    /// Not enough others said what they see.
    #[default]
    Unknown,
    /// There is none: others see an endpoint of the host's own.
    None,
    /// There is one, and not enough others said what they see.
    Undetermined,
    /// The same endpoint towards everybody.
    Independent,
    /// Another one towards each other.
    Dependent,
}

impl NatKind {
    /// Says whether there is a NAT.
    pub const fn is_there(self) -> bool {
        matches!(self, Self::Undetermined | Self::Independent | Self::Dependent)
    }

    /// The word for it in commands and lists.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::None => "none",
            Self::Undetermined => "undetermined",
            Self::Independent => "endpoint-independent",
            Self::Dependent => "endpoint-dependent",
        }
    }
}

impl ControlMessage {
    /// Makes a probe.
    pub fn probe(id: u64, is_spare: bool) -> Self {
        Self::Probe { id, is_spare, padding: [0; PROBE_PADDING] }
    }

    /// Encodes the message.
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Decodes a message; all bytes must belong to it.
    ///
    /// # Errors
    /// [`MalformedControl`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedControl> {
        if bytes.len() > MAX_CONTROL_LEN {
            return Err(MalformedControl);
        }
        let message = borsh::from_slice(bytes).map_err(|_| MalformedControl)?;
        let fits = match &message {
            Self::LabelRequest(request) => request.through.len() <= MAX_THROUGH,
            Self::Call(call) => call.endpoints.len() <= MAX_RECORD_ENDPOINTS,
            _ => true,
        };
        fits.then_some(message).ok_or(MalformedControl)
    }
}

/// Where a node says that it can be reached. Signed by its node key, spread by gossip, never on the chain.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct NodeRecord {
    /// Whose record this is.
    pub id: NodeId,
    /// Higher replaces lower: Unix milliseconds when it was made, or the last + 1.
    pub sequence: u64,
    /// At most [`MAX_RECORD_ENDPOINTS`].
    pub endpoints: Vec<SocketAddr>,
    /// What it asks signers for: at most [`MAX_REQUESTS`].
    pub requests: Vec<Request>,
    /// What it, as a signer, refuses others: at most [`MAX_REFUSALS`].
    pub refused: Vec<RequestId>,
    /// How its NAT chooses endpoints.
    pub nat: NatKind,
    /// Others may reach members through it.
    pub is_relay: bool,
    /// The relays that it keeps a session with, the best first: at most [`MAX_HOMES`].
    pub homes: Vec<HomeRelay>,
}

/// A relay that a node can be reached through at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct HomeRelay {
    /// Which member.
    pub id: NodeId,
    /// The round trip to it, in milliseconds.
    pub rtt_millis: u16,
}

/// The most that a member asks for at a time.
pub const MAX_REQUESTS: usize = 4;
/// The most endpoints of a relay that is asked for: one for each version of IP. A signer may approve more.
pub const MAX_WANTED_ENDPOINTS: usize = 2;
/// The most refusals that a record tells of.
pub const MAX_REFUSALS: usize = 16;

/// Something that a member asks signers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Request {
    /// What.
    pub wanted: Wanted,
    /// When it was made.
    pub made: UnixMillis,
}

/// What may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Wanted {
    /// To route a subnet.
    Route {
        /// As the overlay would see it.
        prefix: Prefix,
        /// As it is there, where that is another one.
        local: Option<Prefix>,
    },
    /// To carry others' traffic to everywhere.
    Exit,
    /// To relay for others.
    Relay {
        /// Where it stays. What a signer would refuse is no request.
        endpoints: [Option<SocketAddr>; MAX_WANTED_ENDPOINTS],
        /// The port at which the same addresses are reached by TLS; 0 for none.
        tls_port: u16,
    },
}

/// The name of a request: the first bytes of a hash over it and who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct RequestId(pub [u8; 8]);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A [`NodeRecord`] with its signature.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedRecord {
    record: NodeRecord,
    signature: Signature,
}

/// Why a record is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// More endpoints than a host has.
    #[error("too many endpoints in a node record")]
    TooManyEndpoints,
    /// More requests or refusals than a record may have.
    #[error("too many requests or refusals in a node record")]
    TooManyRequests,
    /// More home relays than a record may have.
    #[error("too many home relays in a node record")]
    TooManyHomes,
    /// Not signed by the node's key for this network.
    #[error(transparent)]
    Signature(#[from] BadSignature),
}

impl SignedRecord {
    /// Signs `record` for the network `network_id`; endpoints past [`MAX_RECORD_ENDPOINTS`] are left out.
    pub fn sign(mut record: NodeRecord, node_key: &SigningKey, network_id: &Digest) -> Self {
        record.endpoints.truncate(MAX_RECORD_ENDPOINTS);
        let signature = node_key.sign(&record.digest(network_id).0);
        Self { record, signature }
    }

    /// What the record claims.
    pub fn claimed(&self) -> &NodeRecord {
        &self.record
    }

    /// The identity that the record claims to be of.
    pub fn claimed_id(&self) -> NodeId {
        self.record.id
    }

    /// The sequence number that the record claims.
    pub fn claimed_sequence(&self) -> u64 {
        self.record.sequence
    }

    /// The endpoints that the record claims; more than a record may have, perhaps.
    pub fn claimed_endpoints(&self) -> &[SocketAddr] {
        &self.record.endpoints
    }

    /// Says whether the record claims that others may reach members through its node.
    pub fn claims_relay(&self) -> bool {
        self.record.is_relay
    }

    /// Lends the record if `node_key` signed it for the network `network_id`.
    ///
    /// # Errors
    /// [`RecordError`] says why it is not believed.
    pub fn verify(&self, node_key: &VerifyingKey, network_id: &Digest) -> Result<&NodeRecord, RecordError> {
        if self.record.endpoints.len() > MAX_RECORD_ENDPOINTS {
            return Err(RecordError::TooManyEndpoints);
        }
        if self.record.requests.len() > MAX_REQUESTS || self.record.refused.len() > MAX_REFUSALS {
            return Err(RecordError::TooManyRequests);
        }
        if self.record.homes.len() > MAX_HOMES {
            return Err(RecordError::TooManyHomes);
        }
        node_key.verify(&self.record.digest(network_id).0, &self.signature)?;
        Ok(&self.record)
    }
}

impl NodeRecord {
    fn digest(&self, network_id: &Digest) -> Digest {
        let bytes = borsh::to_vec(self).expect("writing to memory does not fail");
        domain_hash("p2plus node record 3", &[&network_id.0, &bytes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pong_is_never_longer_than_its_probe() {
        let probe = ControlMessage::probe(7, true).encode();
        for observed in ["192.0.2.1:1", "[2001:db8::1]:1"] {
            let pong = ControlMessage::Pong { id: 7, observed: observed.parse().unwrap() }.encode();
            assert!(pong.len() <= probe.len(), "{} > {}", pong.len(), probe.len());
        }
    }

    #[test]
    fn the_longest_ledger_message_fills_a_control_message() {
        let message = ControlMessage::Ledger(vec![7; MAX_LEDGER_IN_CONTROL]);
        assert_eq!(message.encode().len(), MAX_CONTROL_LEN);
        assert_eq!(ControlMessage::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn only_whole_messages_decode() {
        let messages = [
            ControlMessage::probe(1, false),
            ControlMessage::LabelRequest(LabelRequest {
                id: 1,
                origin: NodeId([1; 32]),
                target: NodeId([2; 32]),
                through: vec![NodeId([3; 32]); MAX_THROUGH],
            }),
            ControlMessage::LabelGranted { id: 1, label: Label(2) },
            ControlMessage::LabelRefused { id: 1, reason: LabelRefusal::Loop },
            ControlMessage::LabelOffered { origin: NodeId([1; 32]), label: Label(3) },
            ControlMessage::LabelGone { label: Label(4) },
            ControlMessage::Call(call(MAX_RECORD_ENDPOINTS)),
            ControlMessage::EarWanted,
            ControlMessage::Ear { port: 4648 },
            ControlMessage::Pong { id: 2, observed: "[2001:db8::1]:1".parse().unwrap() },
            ControlMessage::Ledger(vec![1, 2, 3]),
            ControlMessage::Goodbye,
            ControlMessage::Damaged,
        ];
        for message in messages {
            let bytes = message.encode();
            assert_eq!(ControlMessage::decode(&bytes), Ok(message));
            for len in 0..bytes.len() {
                assert_eq!(ControlMessage::decode(&bytes[..len]), Err(MalformedControl));
            }
            assert_eq!(ControlMessage::decode(&[bytes.as_slice(), &[0]].concat()), Err(MalformedControl));
        }
        assert_eq!(ControlMessage::decode(&[99]), Err(MalformedControl));
        let long = ControlMessage::Call(call(MAX_RECORD_ENDPOINTS + 1)).encode();
        assert_eq!(ControlMessage::decode(&long), Err(MalformedControl));
    }

    fn call(endpoints: usize) -> Call {
        let endpoints = vec!["[2001:db8::1]:1".parse().unwrap(); endpoints];
        let (from, to) = (NodeId([1; 32]), NodeId([2; 32]));
        Call { from, to, endpoints, nat: NatKind::Dependent, is_answer: true }
    }

    #[test]
    fn requests_have_the_bytes_that_records_and_disks_hold() {
        let wanted = [
            (Wanted::Route { prefix: "10.1.0.0/16".parse().unwrap(), local: None }, "00000a0100001000"),
            (Wanted::Exit, "01"),
            (
                Wanted::Relay { endpoints: [Some("192.0.2.1:4647".parse().unwrap()), None], tls_port: 443 },
                "020100c0000201271200bb01",
            ),
        ];
        for (wanted, frozen) in wanted {
            let bytes = borsh::to_vec(&wanted).unwrap();
            assert_eq!(hex::encode(&bytes), frozen);
            assert_eq!(borsh::from_slice::<Wanted>(&bytes).unwrap(), wanted);
        }
    }

    #[test]
    fn a_record_is_believed_only_as_signed_and_in_its_network() {
        let key = SigningKey::from_seed(&[1; 32]);
        let network = Digest([2; 32]);
        let record = NodeRecord {
            id: key.node_id(),
            sequence: 5,
            endpoints: vec!["192.0.2.1:4647".parse().unwrap()],
            requests: Vec::new(),
            refused: Vec::new(),
            nat: NatKind::None,
            is_relay: true,
            homes: Vec::new(),
        };
        let signed = SignedRecord::sign(record.clone(), &key, &network);
        assert_eq!(signed.verify(&key.verifying_key(), &network), Ok(&record));
        assert!(signed.verify(&key.verifying_key(), &Digest([3; 32])).is_err());
        let mut altered = signed.clone();
        altered.record.endpoints[0].set_port(1);
        assert!(altered.verify(&key.verifying_key(), &network).is_err());
        let mut long = signed;
        long.record.endpoints = vec!["192.0.2.1:4647".parse().unwrap(); MAX_RECORD_ENDPOINTS + 1];
        assert_eq!(long.verify(&key.verifying_key(), &network), Err(RecordError::TooManyEndpoints));
    }
}
